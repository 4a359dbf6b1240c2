//! Floor 3. Placeholder header: replaced with the module.
