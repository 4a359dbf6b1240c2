//! Floor 5. Placeholder header: replaced with the module.
