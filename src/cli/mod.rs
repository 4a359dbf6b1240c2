//! Floor 7. Placeholder header: replaced with the module.
