//! Floor 0. Placeholder header: replaced with the module.
