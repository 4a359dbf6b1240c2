//! Floor 2. Carries what Sentinels and nodes say to the topology machine, and performs its actions.
//! The only module that names the `redis` crate. Decides nothing.

mod settings;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tracing::info_span;

pub use self::settings::{Settings, Source, Timings};
pub use crate::topology::Status;

use crate::tasks::Tasks;
use crate::topology::Report;
use crate::topology::Snapshot;

/// Reports that may wait; a worker whose report does not fit drops it and reports again later.
const REPORTS_MAX: usize = 1_024;

/// What the rest of the process sees of one master group.
#[derive(Debug)]
pub struct Handle {
    /// The picture that the data plane acts upon.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Everything an operator may want to know.
    pub status: watch::Receiver<Arc<Status>>,
    /// The way back: what workers tell.
    pub reports: mpsc::Sender<Report>,
}
