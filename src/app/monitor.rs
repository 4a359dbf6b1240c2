//! Floor 8. Follows what the control plane sees, for the metrics and the incidents' tallies.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::info_span;

use super::Group;
use crate::config::Settings;
use crate::tasks::Tasks;
use crate::telemetry::{GroupMetrics, Metrics, TopologyPhase, TopologyState};
use crate::topology::{self, Phase, Status};
use crate::worker::{GroupGauges, Totals};

/// How long after an incident's end its requests are still counted: workers publish five times a
/// second.
const SETTLE: Duration = Duration::from_millis(500);

/// What an incident cost, for the last few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    pub(super) incident: u64,
    pub(super) held: u64,
    pub(super) uncertain: u64,
    /// The group's totals when it began.
    base: Totals,
    /// When its end was first seen.
    ended: Option<Instant>,
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
            tallies,
            sentinels: HashSet::new(),
            completed: 0,
            abandoned: 0,
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
    tallies: Tallies,
    sentinels: HashSet<crate::types::NodeAddr>,
    completed: u64,
    abandoned: u64,
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
        let known: HashSet<_> = status
            .sentinels
            .iter()
            .map(|one| one.addr.clone())
            .collect();
        for gone in self.sentinels.difference(&known) {
            self.metrics.sentinel_down(gone);
        }
        for sentinel in &status.sentinels {
            if sentinel.up {
                self.metrics.sentinel_up(&sentinel.addr);
            } else {
                self.metrics.sentinel_down(&sentinel.addr);
            }
        }
        self.sentinels = known;
        while self.completed < status.switches_completed {
            self.completed += 1;
            self.metrics
                .switch_completed(status.last_switch_took.unwrap_or_default());
        }
        while self.abandoned < status.switches_abandoned {
            self.abandoned += 1;
            self.metrics.switch_abandoned();
        }
    }

    /// While the last incident runs, what was held and lost since its beginning is its own.
    fn tally(&self, status: &Status) {
        let Some(incident) = status.incidents.last() else {
            return;
        };
        let totals = self.gauges.totals();
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        if tallies
            .last()
            .is_none_or(|last| last.incident != incident.number)
        {
            let (held, uncertain) = (0, 0);
            let number = incident.number;
            tallies.push(Tally {
                incident: number,
                held,
                uncertain,
                base: totals,
                ended: None,
            });
            if tallies.len() > topology::INCIDENTS_MAX {
                tallies.remove(0);
            }
        }
        let Some(tally) = tallies.last_mut() else {
            return;
        };
        if tally
            .ended
            .is_some_and(|ended| ended.elapsed() > SETTLE * 2)
        {
            return;
        }
        if incident.outcome.is_some() {
            tally.ended.get_or_insert_with(Instant::now);
        }
        tally.held = totals.held.saturating_sub(tally.base.held);
        tally.uncertain = totals.uncertain.saturating_sub(tally.base.uncertain);
    }
}
