//! Floor 0. The names of everything that is measured or logged, and how it is written out.
//! Knows nobody who counts or logs. The only module that names the `metrics` facade.
//!
//! The data plane counts into plain fields ([`Counts`], no atomics, no look-ups) and hands them
//! over a few times a second with [`WorkerMetrics::publish`]; the control plane holds a
//! [`GroupMetrics`] per master group; [`Metrics::render`] is the text that Prometheus reads. All
//! are values: a process (or a test) may have as many as it likes.

mod counts;
mod families;
mod group;
mod histogram;
pub mod logging;
mod metrics;
mod process;
mod recorder;
mod worker;

pub use counts::{
    ConnectStage, Counts, EjectionReason, FenceResult, HedgeOutcome, MasterRead, NodeCounts,
    NodeIndex, Reason, RequestClass, Target,
};
pub use families::{FAMILIES, Family, Kind};
pub use group::{GroupMetrics, TopologyPhase, TopologyState};
pub use histogram::Latency;
pub use metrics::{BuildInfo, Metrics, WorkerBusy};
pub use worker::WorkerMetrics;
