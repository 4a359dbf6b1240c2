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

/// TEMPORARY.
pub fn start(
    settings: Settings,
    _started: std::time::Instant,
    tasks: &crate::tasks::Tasks,
) -> Handle {
    use crate::topology::Phase;
    let mut snap = Snapshot::unknown(std::time::Duration::from_secs(10));
    if let Source::Static { master, replicas } = &settings.source {
        snap.master = Some(master.clone());
        snap.replicas = replicas.clone();
        snap.phase = Phase::Stable;
    }
    let snap = Arc::new(snap);
    let (a, snapshots) = watch::channel(Arc::clone(&snap));
    let (b, status) = watch::channel(Arc::new(Status {
        master_name: settings.master_name.clone(),
        snapshot: snap,
        at: crate::types::Time::ZERO,
        waiting: None,
        cause: None,
        candidates: vec![],
        view_stale: false,
        master: None,
        replicas: vec![],
        sentinels: vec![],
        incidents: vec![],
        switches_completed: 0,
        switches_abandoned: 0,
        last_switch_took: None,
    }));
    let (c, commands) = watch::channel(Arc::new(command::Table::builtin()));
    let (reports, mut d) = mpsc::channel(64);
    let t = tasks.clone();
    tasks.spawn(tracing::Span::none(), async move { let _x = (a, b, c); loop { tokio::select!{ biased; () = t.stopping() => return, r = d.recv() => { if r.is_none() { return } } } } });
    Handle {
        snapshots,
        status,
        commands,
        reports,
    }
}
