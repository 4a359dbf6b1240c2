//! Floor 2. Carries what Sentinels and nodes say to the topology machine, and performs its actions.
//! The only module that names the `redis` crate. Decides nothing.

mod commands;
mod driver;
mod fencing;
mod link;
mod notes;
mod orders;
mod planned;
mod probe;
mod round;
mod sampling;
mod settings;
mod staff;
mod subscriber;
mod words;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tracing::info_span;

pub use self::fencing::{Fenced, Fences};
pub use self::planned::{NotBegun, Orders};
pub use self::settings::{Settings, Source, Timings};
pub use crate::topology::Status;

use self::driver::Driver;
use self::driver::Ends;
use self::fencing::Fencing;
use self::sampling::Sampling;
use self::staff::Staff;
use crate::command::Table;
use crate::fence;
use crate::tasks::Tasks;
use crate::topology;
use crate::topology::Machine;
use crate::topology::Report;
use crate::topology::Snapshot;
use crate::types::Time;

/// Reports of workers that may wait. A worker whose report finds no room makes it again later.
const REPORTS_MAX: usize = 1_024;
/// Messages of our own tasks that may wait; a task waits for room.
const INPUTS_MAX: usize = 256;

/// What the rest of the process sees of one master group.
#[derive(Debug)]
pub struct Handle {
    /// The picture that the data plane acts upon.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Everything an operator may want to know.
    pub status: watch::Receiver<Arc<Status>>,
    /// What commands are: the built-in table, overlaid with what the proven master told.
    pub commands: watch::Receiver<Arc<Table>>,
    /// The way back: what workers tell.
    pub reports: mpsc::Sender<Report>,
    /// Where planned failovers are ordered.
    pub orders: Orders,
    /// Where connections that a worker gave up are ended at their nodes.
    pub fences: Fences,
    /// What an operator may want to know of that.
    pub fenced: watch::Receiver<fence::Status>,
}

/// Follows a master group until `tasks` are asked to stop.
///
/// `start` is the moment from which all [`Time`]s of the process count. Must be called on a tokio
/// runtime, which runs all of it.
pub fn start(settings: Settings, start: Instant, tasks: &Tasks) -> Handle {
    let machine = Machine::new(settings.for_machine(), Time::from_start(start.elapsed()));
    let (reports, heard) = mpsc::channel(REPORTS_MAX);
    let (snapshots, snapshots_seen) = watch::channel(Arc::clone(machine.snapshot()));
    let (status, status_seen) = watch::channel(Arc::new(machine.status()));
    let (commands, commands_seen) = watch::channel(Table::builtin());
    let span = info_span!("topology", group = %settings.master_name);
    let (inbox, inputs) = mpsc::channel(INPUTS_MAX);
    let (orders, ordered) = mpsc::channel(planned::ORDERS_MAX);
    let (fence_orders, to_fence) = mpsc::channel(fence::PENDING_MAX);
    let (fenced, fenced_seen) = watch::channel(fence::Status::default());
    let ends = Ends {
        inputs,
        orders: ordered,
        fences: to_fence,
        reports: heard,
        snapshots,
        status,
        commands,
    };
    if let Some(stamps) = settings.stamps.clone() {
        let span = info_span!("settling", group = %settings.master_name);
        let (told, seen) = ((settings.clone(), stamps), snapshots_seen.clone());
        tasks.spawn(span, Sampling::new(told, seen, start, tasks).run());
    }
    let staff = Staff::new(settings, tasks, inbox);
    tasks.spawn(
        span,
        Driver::new((machine, Fencing::new(fenced)), staff, start, ends).run(tasks.clone()),
    );
    Handle {
        snapshots: snapshots_seen,
        status: status_seen,
        commands: commands_seen,
        reports,
        orders: Orders::new(orders),
        fences: Fences::new(fence_orders),
        fenced: fenced_seen,
    }
}

impl Settings {
    fn for_machine(&self) -> topology::Settings {
        topology::Settings {
            master_name: self.master_name.clone(),
            source: match &self.source {
                Source::Sentinels { seeds, .. } => topology::Source::Sentinels(seeds.clone()),
                Source::Static { master, replicas } => topology::Source::Static {
                    master: master.clone(),
                    replicas: replicas.clone(),
                },
            },
            hold: self.hold,
            strict_quorum: self.strict_quorum,
            workers: self.workers,
            max_lag: self.max_lag,
            max_lag_time: self.max_lag_time,
            choice: self.choice,
            zone: self.zone.clone(),
            node_zones: self.node_zones.clone(),
            timings: topology::Timings {
                drain: self.drain,
                ..self.machine
            },
        }
    }
}
