//! Floor 6. Redis nodes and Sentinels of our own, and what is shown with them.
//! Used by `switchman demo`, by the live tests and by the benchmarks. Knows nothing of the data
//! path: whoever wants Switchman in front of a deployment starts it.

pub mod client;
pub mod deployment;
pub mod process;
pub mod story;
