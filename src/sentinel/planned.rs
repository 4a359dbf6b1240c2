//! Floor 2. A planned failover beside the topology machine: tells it what that sees, performs what
//! it wants. Decides nothing.

use std::collections::HashMap;
use std::fmt;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tracing::info;

use crate::sentinel::link::Link;
use crate::sentinel::orders;
use crate::sentinel::staff::Staff;
use crate::switchover::{
    Action, Answer, Failure, Group, Limits, Picture, Question, Report, Switchover,
};
use crate::topology::Machine;
use crate::topology::Phase;
use crate::types::{NodeAddr, Time};

/// Planned failovers that may be asked for at the same moment; all but one are refused.
pub(super) const ORDERS_MAX: usize = 8;

/// Somebody wants a planned failover and waits for the report.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) reply: oneshot::Sender<Result<Report, Busy>>,
}

/// Another one is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

/// Why a planned failover was not even begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBegun {
    /// One at a time.
    #[error("another switchover of this group is under way")]
    Busy,
    /// The process ends.
    #[error("the process is stopping")]
    Stopping,
}

/// Where planned failovers of one group are ordered.
#[derive(Clone)]
pub struct Orders {
    orders: mpsc::Sender<Order>,
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Orders")
    }
}

impl Orders {
    pub(super) const fn new(orders: mpsc::Sender<Order>) -> Self {
        Self { orders }
    }

    /// Fails the group over as planned, and tells how it went.
    ///
    /// # Cancel safety
    /// Dropping this future does not stop what has begun.
    pub async fn switch_over(&self) -> Result<Report, NotBegun> {
        let (reply, report) = oneshot::channel();
        self.orders
            .try_send(Order { reply })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => NotBegun::Busy,
                mpsc::error::TrySendError::Closed(_) => NotBegun::Stopping,
            })?;
        match report.await {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(Busy)) => Err(NotBegun::Busy),
            Err(_gone) => Err(NotBegun::Stopping),
        }
    }
}

/// The one that is under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Planned {
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    machine: Switchover,
    reply: oneshot::Sender<Result<Report, Busy>>,
    /// Kept between questions to the same peer.
    links: HashMap<NodeAddr, Box<Link>>,
}

impl Planned {
    /// Begins, unless one is under way.
    pub(super) fn begin(&mut self, now: Time, order: Order, topology: &Machine) {
        if self.running.is_some() {
            // Who has gone away need not be told.
            let _ = order.reply.send(Err(Busy));
            return;
        }
        let limits = Limits::new(topology.snapshot().hold, topology.down_after());
        info!("switchover begins");
        self.running = Some(Running {
            machine: Switchover::new(now, limits, picture(topology)),
            reply: order.reply,
            links: HashMap::new(),
        });
    }

    /// An order was carried out, or not.
    pub(super) fn answered(
        &mut self,
        now: Time,
        link: Box<Link>,
        question: &Question,
        result: Result<Answer, Failure>,
    ) {
        if let Some(running) = &mut self.running {
            running.links.insert(orders::peer(question).clone(), link);
            running.machine.handle_answer(now, question, result);
        }
    }

    /// Ends with the process: a master that may be paused is not left so, if it answers.
    pub(super) async fn abandon(&mut self, staff: &Staff) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if let Some(node) = running.machine.left_to_unpause().cloned() {
            let kept = running.links.remove(&node);
            let unpause = Question::Unpause { node };
            let result = staff.order_now(&unpause, kept).await;
            info!(?result, "switchover abandoned, master unpaused");
        }
    }

    /// When it is to be driven again at the latest.
    pub(super) fn due(&self) -> Option<Time> {
        self.running.as_ref()?.machine.poll_timeout()
    }

    /// Tells it what `topology` sees and the time, and performs what it wants. Returns whether
    /// `topology` was told something.
    pub(super) fn drive(&mut self, now: Time, topology: &mut Machine, staff: &Staff) -> bool {
        let Some(running) = &mut self.running else {
            return false;
        };
        let mut told = false;
        running.machine.handle_picture(now, picture(topology));
        if running.machine.poll_timeout().is_some_and(|due| due <= now) {
            running.machine.handle_timeout(now);
        }
        while let Some(action) = running.machine.poll_action() {
            match action {
                Action::Hold { until } => {
                    told = true;
                    if let Err(why) = topology.hold(now, until) {
                        running.machine.handle_hold_refused(now, &why.to_string());
                    }
                }
                Action::Release => {
                    told = true;
                    topology.let_go(now);
                }
                Action::Ask(question) => {
                    let kept = running.links.remove(orders::peer(&question));
                    staff.order(question, kept);
                }
            }
        }
        if let Some(report) = running.machine.poll_report() {
            for step in &report.steps {
                let at_ms = step.at.as_millis();
                info!(step = %step.name, at_ms, detail = step.detail, "switchover");
            }
            if let Some(Running { reply, .. }) = self.running.take() {
                // Who has gone away finds it in the log.
                let _ = reply.send(Ok(report));
            }
        }
        told
    }
}

fn picture(topology: &Machine) -> Picture {
    let snapshot = topology.snapshot();
    let group = match (&snapshot.phase, snapshot.master.clone()) {
        (Phase::Stable, Some(master)) => Group::Writable(master),
        (Phase::Switching { .. }, Some(master)) => Group::Held {
            master,
            quiet: topology.is_quiet(),
        },
        (Phase::Unknown, _) | (_, None) => Group::Unknown,
    };
    Picture {
        group,
        candidates: topology.promotable(),
        sentinels: topology.answering().cloned().collect(),
    }
}
