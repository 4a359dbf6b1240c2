//! Floor 8. What the control plane and the workers know, as the admin pages show it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Instant, SystemTime};

use tokio::sync::watch;

use super::monitor::{Tallies, Tally, by_reason};
use super::{Group, VERSION};
use crate::admin::{
    Event, FencesView, GroupView, Incident, ListenerView, MajorityView, NodeRole, NodeView,
    Outcome, PhaseView, ReplicaView, SentinelView, View,
};
use crate::config::{GroupSettings, ListenerSettings, Settings};
use crate::downstream::Door;
use crate::fence;
use crate::net::ListenAddr;
use crate::telemetry::EjectionReason;
use crate::topology::{self, Majority, Phase, ReplicaStatus, SentinelStatus, Status, Subscription};
use crate::types::{ConfigEpoch, NodeAddr, Time};
use crate::worker::GroupGauges;

/// Where a view is taken from.
pub(super) struct Source {
    pub(super) started: Instant,
    pub(super) groups: Vec<GroupSource>,
    pub(super) doors: Vec<Door>,
    pub(super) max_clients: usize,
    pub(super) draining: Arc<AtomicBool>,
}

/// Where a group's part of it is taken from.
pub(super) struct GroupSource {
    listeners: Vec<ListenerView>,
    status: watch::Receiver<Arc<Status>>,
    gauges: Arc<GroupGauges>,
    fenced: watch::Receiver<fence::Status>,
    tallies: Tallies,
    /// Replicas whose weight is 0: no read goes to them.
    weightless: Vec<NodeAddr>,
}

/// The sources of all groups, in their order.
pub(super) fn sources(
    settings: &Settings,
    groups: &[Group],
    bound: &[Vec<ListenAddr>],
    tallies: Vec<Tallies>,
) -> Vec<GroupSource> {
    let parts = settings.groups.iter().zip(groups).zip(bound).zip(tallies);
    parts
        .map(|(((settings, group), bound), tallies)| GroupSource {
            listeners: settings.listen.iter().zip(bound).map(listener).collect(),
            status: group.handle.status.clone(),
            gauges: Arc::clone(&group.gauges),
            fenced: group.handle.fenced.clone(),
            tallies,
            weightless: weightless(settings),
        })
        .collect()
}

/// Replicas that are to serve no reads.
fn weightless(group: &GroupSettings) -> Vec<NodeAddr> {
    let weights = group.replicas.weights.iter();
    weights
        .filter(|(_, weight)| *weight == 0)
        .map(|(node, _)| node.clone())
        .collect()
}

/// A listener that is bound to `addr`.
fn listener((listener, addr): (&ListenerSettings, &ListenAddr)) -> ListenerView {
    ListenerView {
        addr: addr.to_string(),
        role: listener.role.word(),
        consistency: listener.consistency.word(),
    }
}

impl Source {
    /// The process now.
    pub(super) fn view(&self) -> View {
        let clients: usize = self
            .doors
            .iter()
            .map(|door| door.count.load(Ordering::Relaxed))
            .sum();
        View {
            version: VERSION.to_owned(),
            uptime: self.started.elapsed(),
            draining: self.draining.load(Ordering::Relaxed),
            workers: self.doors.len(),
            clients: u64::try_from(clients).unwrap_or(u64::MAX),
            max_clients: u64::try_from(self.max_clients).unwrap_or(u64::MAX),
            groups: self.groups.iter().map(|group| self.group(group)).collect(),
        }
    }

    fn group(&self, source: &GroupSource) -> GroupView {
        let status = Arc::clone(&source.status.borrow());
        let now = Time::from_start(self.started.elapsed());
        let snapshot = &status.snapshot;
        let tallies = source
            .tallies
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        GroupView {
            master_name: status.master_name.to_string(),
            listeners: source.listeners.clone(),
            phase: match snapshot.phase {
                Phase::Unknown => PhaseView::Unknown,
                Phase::Stable => PhaseView::Stable,
                Phase::Switching { since } => PhaseView::Switching {
                    elapsed: now.since(since),
                },
            },
            waiting: match snapshot.phase {
                Phase::Stable => String::new(),
                Phase::Unknown | Phase::Switching { .. } => status
                    .waiting
                    .as_ref()
                    .map_or_else(String::new, ToString::to_string),
            },
            generation: snapshot.generation.get(),
            config_epoch: snapshot.epoch.get(),
            hold: snapshot.hold,
            nodes: nodes(&status, &source.gauges.reads(), &source.weightless),
            master_reads: source
                .gauges
                .master_reads()
                .filter(|(_, count)| *count > 0)
                .map(|(why, count)| (why.label(), count))
                .collect(),
            sentinels: status.sentinels.iter().map(sentinel).collect(),
            majority: status.majority.map(majority),
            clients: source.gauges.clients(),
            held_clients: source.gauges.held_clients(),
            fences: fences(&source.fenced.borrow()),
            incidents: status
                .incidents
                .iter()
                .rev()
                .map(|incident| {
                    let tally = tallies
                        .iter()
                        .find(|tally| tally.incident == incident.number);
                    incident_view(incident, tally.copied(), now)
                })
                .collect(),
        }
    }
}

fn incident_view(incident: &topology::Incident, tally: Option<Tally>, now: Time) -> Incident {
    let since = now.since(incident.started);
    let started_at = SystemTime::now()
        .checked_sub(since)
        .unwrap_or(SystemTime::UNIX_EPOCH);
    Incident {
        started_at,
        outcome: match &incident.outcome {
            None => Outcome::Running,
            Some(outcome) if outcome.switched => Outcome::Completed,
            Some(_) => Outcome::Abandoned,
        },
        cause: incident.cause.to_string(),
        old_master: Some(incident.from.to_string()),
        new_master: incident
            .outcome
            .as_ref()
            .map(|outcome| outcome.to.to_string()),
        took: incident
            .outcome
            .as_ref()
            .map_or(since, |outcome| outcome.took),
        cost: tally.map(|tally| tally.cost).unwrap_or_default(),
        forked_bytes: incident.outcome.as_ref().and_then(|outcome| outcome.forked),
        events: incident
            .marks
            .iter()
            .map(|mark| Event {
                at_ms: incident.offset_ms(mark),
                what: format!("{}: {}", mark.who, mark.what),
            })
            .collect(),
    }
}

/// The master first, then the replicas, the serving ones before the others.
fn nodes(
    status: &Status,
    reads: &HashMap<NodeAddr, u64>,
    weightless: &[NodeAddr],
) -> Vec<NodeView> {
    let snapshot = &status.snapshot;
    let busy = status.master.as_ref().is_some_and(|master| master.busy);
    let waiting = match &status.waiting {
        Some(waiting) => waiting.to_string(),
        None if busy => topology::NodeRole::Busy.to_string(),
        None => String::new(),
    };
    let master = snapshot.master.as_ref().map(|addr| NodeView {
        addr: addr.to_string(),
        role: NodeRole::Master,
        in_use: snapshot.phase == Phase::Stable,
        reads: reads.get(addr).copied().unwrap_or(0),
        replica: None,
        detail: waiting,
    });
    let serving = |replica: &&ReplicaStatus| replica.ejected.is_none();
    let (mut replicas, mut others): (Vec<_>, Vec<_>) = status.replicas.iter().partition(serving);
    replicas.append(&mut others);
    master
        .into_iter()
        .chain(replicas.into_iter().map(|one| {
            let standing = standing(one, weightless);
            replica(status, one, standing, reads)
        }))
        .collect()
}

fn replica(
    status: &Status,
    replica: &ReplicaStatus,
    (in_use, detail): (bool, String),
    reads: &HashMap<NodeAddr, u64>,
) -> NodeView {
    let counted = status.ejections.get(&replica.node.node).map(by_reason);
    let reasons = EjectionReason::ALL.iter().zip(counted.unwrap_or_default());
    NodeView {
        addr: replica.node.node.to_string(),
        role: NodeRole::Replica,
        in_use,
        reads: reads.get(&replica.node.node).copied().unwrap_or(0),
        replica: Some(ReplicaView {
            lag_bytes: replica.lag,
            lag: replica.lag_time,
            zone: replica.zone.clone(),
            ejections: reasons
                .filter(|(_, count)| *count > 0)
                .map(|(why, count)| (why.label(), count))
                .collect(),
        }),
        detail,
    }
}

/// Whether reads go to a replica, and why not.
fn standing(replica: &ReplicaStatus, weightless: &[NodeAddr]) -> (bool, String) {
    match (&replica.ejected, &replica.outlier) {
        (Some(why), _) => (false, why.to_string()),
        (None, _) if weightless.contains(&replica.node.node) => {
            (false, "its weight is 0".to_owned())
        }
        (None, Some(why)) => (true, why.to_string()),
        (None, None) => (true, String::new()),
    }
}

fn fences(status: &fence::Status) -> FencesView {
    FencesView {
        pending: u64::try_from(status.pending).unwrap_or(u64::MAX),
        forbidden: status.forbidden.clone().unwrap_or_default(),
    }
}

fn majority(majority: Majority) -> MajorityView {
    MajorityView {
        answering: majority.answering,
        known: majority.known,
        reached: majority.is_reached(),
        strict: majority.strict,
    }
}

fn sentinel(sentinel: &SentinelStatus) -> SentinelView {
    let said = match (&sentinel.error, &sentinel.master) {
        (Some(error), _) if !sentinel.up => error.clone(),
        (_, Some(master)) => {
            let epoch = sentinel.epoch.map_or(0, ConfigEpoch::get);
            let tilt = if sentinel.tilt { ", in tilt mode" } else { "" };
            format!("says {master}, epoch {epoch}{tilt}")
        }
        _ => String::new(),
    };
    let unheard = match &sentinel.subscription {
        _ if !sentinel.up => "",
        Subscription::On => "",
        Subscription::Forbidden => "; SUBSCRIBE is forbidden: a planned failover may lose writes",
        Subscription::Off | Subscription::Lost { .. } => {
            "; its events are not heard: a planned failover may lose writes"
        }
    };
    SentinelView {
        addr: sentinel.addr.to_string(),
        up: sentinel.up,
        heard: sentinel.is_heard(),
        detail: format!("{said}{unheard}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Ejection, NodeStatus};

    #[test]
    fn a_replica_without_weight_is_not_shown_as_in_use() {
        let node = NodeAddr::new("redis-2", 6379).unwrap();
        let mut one = ReplicaStatus {
            node: NodeStatus {
                node: node.clone(),
                offset: None,
                run_id: None,
                answered: None,
                error: None,
                busy: false,
            },
            ejected: None,
            lag: None,
            lag_time: None,
            zone: None,
            outlier: None,
        };
        assert_eq!(standing(&one, &[]), (true, String::new()));
        let weightless = (false, "its weight is 0".to_owned());
        assert_eq!(standing(&one, std::slice::from_ref(&node)), weightless);
        one.ejected = Some(Ejection::LinkDown);
        let why = (false, Ejection::LinkDown.to_string());
        assert_eq!(standing(&one, &[node]), why, "worse than that");
    }
}
