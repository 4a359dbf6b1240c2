//! Floor 4. Placeholder header: replaced with the module.
