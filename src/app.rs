//! Floor 8. Placeholder header.
