//! Floor 2. Placeholder header: replaced with the module.
