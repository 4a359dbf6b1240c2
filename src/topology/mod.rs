//! Floor 1. Who is master: the pure machine that turns what Sentinels, nodes and workers say into snapshots.
//! Knows no sockets and no clock; replies and events come in as values, actions go out as values.

mod report;
mod snapshot;

pub use report::{Report, ReportKind};
pub use snapshot::{Phase, Snapshot};
