//! Floor 0. Placeholder header.
