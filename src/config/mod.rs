//! Floor 6. Placeholder header: replaced with the module.
