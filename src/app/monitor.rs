//! Floor 8. Follows what the control plane sees, for the metrics and the incidents' tallies.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, info_span};

use super::Group;
use crate::admin::Cost;
use crate::config::Settings;
use crate::fence;
use crate::tasks::Tasks;
use crate::telemetry::{
    EjectionReason, FenceResult, GroupMetrics, Metrics, TopologyPhase, TopologyState,
};
use crate::topology::{self, Ejection, Ejections, Incident, Outcome, Phase, Status};
use crate::types::Time;
use crate::worker::{GroupGauges, Hold, Totals};

/// How long after an incident's end its requests are still counted: workers publish five times a
/// second.
const SETTLE: Duration = Duration::from_millis(500);

/// What was lost so long before an incident is its own: the loss may be what it began with, and one
/// worker may have published it before the other one was heard. What was counted for the incident
/// before is not counted again.
const BEFORE: Duration = Duration::from_secs(1);

/// Looks kept: a group whose picture changes all the time is looked at all the time.
const LOOKS_MAX: usize = 1024;

/// What an incident cost, for the last few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) incident: u64,
    pub(super) cost: Cost,
    /// The group's totals just before it began.
    base: Totals,
    /// Those up to which it was counted.
    counted: Totals,
    /// When its end was first seen.
    ended: Option<Instant>,
    told: bool,
}

impl Tally {
    /// Nothing yet of incident number `incident`; `last` is the one before.
    fn begin(incident: u64, before: Totals, last: Option<&Self>) -> Self {
        let base = last.map_or(before, |last| before.max_of_each(&last.counted));
        Self {
            incident,
            cost: Cost::default(),
            base,
            counted: base,
            ended: None,
            told: false,
        }
    }

    fn count(&mut self, totals: Totals, hold: Hold, started: Time) {
        self.cost = cost(&totals, &self.base, hold, started);
        self.counted = totals;
    }
}

/// Tallies of a group's incidents, oldest first.
pub(super) type Tallies = Arc<Mutex<Vec<Tally>>>;

/// Starts a task for each group. Returns the tallies, a list for each group.
pub(super) fn start(
    groups: &[Group],
    settings: &Settings,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Vec<Tallies> {
    let mut all = Vec::new();
    for (group, settings) in groups.iter().zip(&settings.groups) {
        let tallies = Tallies::default();
        all.push(Arc::clone(&tallies));
        let follower = Follower {
            metrics: metrics.group(&settings.master_name),
            gauges: Arc::clone(&group.gauges),
            fenced: group.handle.fenced.clone(),
            tallies,
            looks: VecDeque::new(),
            sentinels: HashSet::new(),
            completed: 0,
            abandoned: 0,
            closed: 0,
        };
        let (status, stopping) = (group.handle.status.clone(), tasks.clone());
        tasks.spawn(
            info_span!("monitor", master_name = %settings.master_name),
            async move {
                // A stop wins, or a group that changes all the time would keep the process alive.
                tokio::select! {
                    biased;
                    () = stopping.stopping() => {}
                    () = follower.follow(status) => {}
                }
            },
        );
    }
    all
}

struct Follower {
    metrics: GroupMetrics,
    gauges: Arc<GroupGauges>,
    fenced: watch::Receiver<fence::Status>,
    tallies: Tallies,
    /// The group's totals at the last looks, oldest first: back to [`BEFORE`], at least.
    looks: VecDeque<(Instant, Totals)>,
    sentinels: HashSet<crate::types::NodeAddr>,
    completed: u64,
    abandoned: u64,
    /// The last incident whose end was counted.
    closed: u64,
}

impl Follower {
    async fn follow(mut self, mut status: watch::Receiver<Arc<Status>>) {
        loop {
            let seen = Arc::clone(&status.borrow_and_update());
            self.publish(&seen);
            self.tally(&seen);
            // Both only bring the next look; which came first does not matter.
            tokio::select! {
                biased;
                changed = status.changed() => if changed.is_err() { return },
                () = sleep(SETTLE) => {}
            }
        }
    }

    fn publish(&mut self, status: &Status) {
        let snapshot = &status.snapshot;
        self.metrics.topology(&TopologyState {
            generation: snapshot.generation,
            epoch: snapshot.epoch,
            phase: match snapshot.phase {
                Phase::Unknown => TopologyPhase::Unknown,
                Phase::Stable => TopologyPhase::Stable,
                Phase::Switching { .. } => TopologyPhase::Switching,
            },
            master: snapshot.master.as_ref(),
            replicas: &snapshot.replicas,
        });
        self.publish_replicas(status);
        let known: HashSet<_> = status
            .sentinels
            .iter()
            .map(|one| one.addr.clone())
            .collect();
        for gone in self.sentinels.difference(&known) {
            self.metrics.sentinel_down(gone);
            self.metrics.sentinel_unheard(gone);
        }
        for sentinel in &status.sentinels {
            if sentinel.up {
                self.metrics.sentinel_up(&sentinel.addr);
            } else {
                self.metrics.sentinel_down(&sentinel.addr);
            }
            if sentinel.is_heard() {
                self.metrics.sentinel_heard(&sentinel.addr);
            } else {
                self.metrics.sentinel_unheard(&sentinel.addr);
            }
        }
        if status.majority.is_none_or(|it| it.is_reached()) {
            self.metrics.majority_reached();
        } else {
            self.metrics.majority_missing();
        }
        self.sentinels = known;
        for (result, total) in FenceResult::ALL.iter().zip(self.fenced.borrow().results) {
            self.metrics.fences(*result, total);
        }
        while self.completed < status.switches_completed {
            self.completed += 1;
            self.metrics
                .switch_completed(status.last_switch_took.unwrap_or_default());
        }
        while self.abandoned < status.switches_abandoned {
            self.abandoned += 1;
            self.metrics.switch_abandoned();
        }
        let ended = |incident: &&Arc<Incident>| incident.outcome.is_some();
        for incident in status.incidents.iter().filter(ended) {
            if incident.number > self.closed {
                self.closed = incident.number;
                let forked = incident.outcome.as_ref().and_then(|outcome| outcome.forked);
                self.metrics.forked(forked.unwrap_or(0));
            }
        }
    }

    fn publish_replicas(&mut self, status: &Status) {
        let replicas = status.replicas.iter();
        self.metrics
            .lags(replicas.map(|it| (&it.node.node, it.lag, it.lag_time)));
        for replica in &status.replicas {
            let node = &replica.node.node;
            if !status.ejections.contains_key(node) {
                self.metrics.ejections(node, &[0; EjectionReason::COUNT]);
            }
        }
        for (node, ejections) in &status.ejections {
            self.metrics.ejections(node, &by_reason(ejections));
        }
    }

    /// The totals a little while ago.
    fn look_back(&mut self, totals: Totals) -> Totals {
        self.looks.push_back((Instant::now(), totals));
        while self.looks.len() > LOOKS_MAX
            || self
                .looks
                .get(1)
                .is_some_and(|(at, _)| at.elapsed() >= BEFORE)
        {
            self.looks.pop_front();
        }
        self.looks.front().map_or(totals, |(_, oldest)| *oldest)
    }

    /// While the last incident runs, and a little longer, what was held and lost since its
    /// beginning is its own. Then it is told in one line.
    fn tally(&mut self, status: &Status) {
        let totals = self.gauges.totals();
        let before = self.look_back(totals);
        let Some(incident) = status.incidents.last() else {
            return;
        };
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let number = incident.number;
        if tallies.last().is_none_or(|last| last.incident != number) {
            if let Some((before, outcome, cost)) = overtaken(&mut tallies, &status.incidents) {
                tell(before, outcome, &cost);
            }
            let tally = Tally::begin(number, before, tallies.last());
            tallies.push(tally);
            if tallies.len() > topology::INCIDENTS_MAX {
                tallies.remove(0);
            }
        }
        let Some(tally) = tallies.last_mut().filter(|tally| !tally.told) else {
            return;
        };
        tally.count(totals, self.gauges.hold(), incident.started);
        if let Some(outcome) = &incident.outcome
            && tally.ended.get_or_insert_with(Instant::now).elapsed() > SETTLE * 2
        {
            tally.told = true;
            tell(incident, outcome, &tally.cost);
        }
    }
}

/// How often a replica was ejected, in the order of [`EjectionReason::ALL`].
pub(super) fn by_reason(ejections: &Ejections) -> [u64; EjectionReason::COUNT] {
    let mut totals = [0; EjectionReason::COUNT];
    for (why, count) in Ejection::ALL.iter().zip(ejections.judged) {
        totals[reason(*why).index()] += count;
    }
    totals[EjectionReason::Errors.index()] += ejections.errors;
    totals[EjectionReason::Latency.index()] += ejections.latency;
    totals
}

/// An ejection as the metric tells it.
const fn reason(why: Ejection) -> EjectionReason {
    match why {
        Ejection::NotListed => EjectionReason::NotListed,
        Ejection::SentinelSaysDown => EjectionReason::SentinelDown,
        Ejection::SentinelSaysMaster | Ejection::IsMaster => EjectionReason::IsMaster,
        Ejection::SentinelSaysLinkDown | Ejection::LinkDown => EjectionReason::LinkDown,
        Ejection::SentinelSaysOtherMaster | Ejection::OtherMaster => EjectionReason::OtherMaster,
        Ejection::NotProven | Ejection::RoleUnknown => EjectionReason::NotProven,
        Ejection::Unreachable => EjectionReason::Unreachable,
        Ejection::Busy => EjectionReason::Busy,
        Ejection::Lagging => EjectionReason::Lag,
    }
}

/// The last incident that was tallied, if it has ended and the next one came before it was told.
fn overtaken<'a>(
    tallies: &mut [Tally],
    incidents: &'a [Arc<Incident>],
) -> Option<(&'a Incident, &'a Outcome, Cost)> {
    let tally = tallies.last_mut().filter(|tally| !tally.told)?;
    let incident = incidents.iter().find(|it| it.number == tally.incident)?;
    let outcome = incident.outcome.as_ref()?;
    tally.told = true;
    Some((incident, outcome, tally.cost))
}

fn cost(now: &Totals, base: &Totals, hold: Hold, started: Time) -> Cost {
    Cost {
        held_requests: now.held.saturating_sub(base.held),
        held_bytes: now.held_bytes.saturating_sub(base.held_bytes),
        longest_hold: hold.longest,
        expired_requests: now.expired.saturating_sub(base.expired),
        resent_requests: now.resent.saturating_sub(base.resent),
        uncertain_requests: now.uncertain.saturating_sub(base.uncertain),
        first_released: hold.first_released.map(|at| at.since(started)),
        released_replies: now.kept_released.saturating_sub(base.kept_released),
        doubted_replies: now.kept_uncertain.saturating_sub(base.kept_uncertain),
    }
}

/// What is left of an incident in the log.
fn tell(incident: &Incident, outcome: &Outcome, cost: &Cost) {
    info!(
        incident = incident.number,
        outcome = if outcome.switched { "completed" } else { "abandoned" },
        cause = %incident.cause,
        master.old = %incident.from,
        master.new = %outcome.to,
        took_ms = millis(outcome.took),
        held = cost.held_requests,
        held_bytes = cost.held_bytes,
        longest_hold_ms = millis(cost.longest_hold),
        expired = cost.expired_requests,
        resent = cost.resent_requests,
        uncertain = cost.uncertain_requests,
        doubted = cost.doubted_replies,
        forked_bytes = outcome.forked,
        "incident"
    );
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Cause;
    use crate::types::{ConfigEpoch, Generation, NodeAddr};

    #[test]
    fn what_one_incident_cost_is_not_counted_again_for_the_next() {
        let totals = |held| Totals {
            held,
            ..Totals::default()
        };
        let count = |tally: &mut Tally, held| {
            tally.count(totals(held), Hold::default(), Time::ZERO);
            tally.cost.held_requests
        };
        let mut first = Tally::begin(1, totals(3), None);
        assert_eq!(count(&mut first, 8), 5);
        // The look of a second ago is older than what the first one was told of.
        let mut second = Tally::begin(2, totals(3), Some(&first));
        assert_eq!(count(&mut second, 10), 2);
        let mut third = Tally::begin(3, totals(15), Some(&second));
        assert_eq!(
            count(&mut third, 16),
            1,
            "what lies between belongs to none"
        );
    }

    #[test]
    fn an_incident_is_told_once_though_the_next_one_follows_at_once() {
        let master = NodeAddr::new("a", 6379).unwrap();
        let outcome = Outcome {
            to: master.clone(),
            switched: false,
            epoch: ConfigEpoch::default(),
            took: Duration::ZERO,
            forked: None,
        };
        let incident = |outcome| {
            Arc::new(Incident {
                number: 1,
                started: Time::ZERO,
                cause: Cause::MasterLost,
                from: master.clone(),
                generation: Generation::default(),
                outcome,
                marks: Vec::new(),
                marks_lost: 0,
            })
        };
        let mut tallies = [Tally::begin(1, Totals::default(), None)];
        assert!(overtaken(&mut tallies, &[incident(None)]).is_none());
        let ended = [incident(Some(outcome))];
        let told = overtaken(&mut tallies, &ended).map(|(incident, ..)| incident.number);
        assert_eq!(told, Some(1));
        assert!(overtaken(&mut tallies, &ended).is_none(), "it was told");
    }
}
