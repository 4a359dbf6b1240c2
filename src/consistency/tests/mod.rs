//! Floor 1. Tests: The rules one by one, all of them in invented worlds, and the atomics alone.

mod model;
mod orders;
mod rules;
