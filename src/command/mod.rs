//! Floor 1. Placeholder header: replaced with the module.
