//! Floor 2. Carries what Sentinels and nodes say to the topology machine, and performs its actions.
//! The only module that names the `redis` crate. Decides nothing.

mod settings;

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::watch;

pub use self::settings::{Settings, Source, Timings};
pub use crate::topology::Status;

use crate::command;
use crate::topology::Report;
use crate::topology::Snapshot;

/// What the rest of the process sees of one master group.
#[derive(Debug)]
pub struct Handle {
    /// The picture that the data plane acts upon.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Everything an operator may want to know.
    pub status: watch::Receiver<Arc<Status>>,
    /// What commands are: the built-in table, overlaid with what the proven master told.
    pub commands: watch::Receiver<Arc<command::Table>>,
    /// The way back: what workers tell.
    pub reports: mpsc::Sender<Report>,
}
