//! Floor 0. The control plane's metrics of one master group.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};

use crate::telemetry::families::{
    FENCES, Family, MASTER_INFO, REPLICA_EJECTIONS, REPLICA_INFO, REPLICA_LAG_BYTES,
    REPLICA_LAG_SECONDS, SENTINEL_HEARD, SENTINEL_MAJORITY, SENTINEL_UP, TOPOLOGY_EPOCH,
    TOPOLOGY_FORKED_BYTES, TOPOLOGY_GENERATION, TOPOLOGY_PHASE, TOPOLOGY_SWITCH_DURATION,
    TOPOLOGY_SWITCHES,
};
use crate::telemetry::recorder::Recorder;
use crate::telemetry::{EjectionReason, FenceResult};
use crate::types::{ConfigEpoch, Generation, MasterName, NodeAddr};

/// Sentinels, topology and switches of one group.
#[derive(Debug)]
pub struct GroupMetrics {
    recorder: Arc<Recorder>,
    name: MasterName,
    generation: Gauge,
    epoch: Gauge,
    phases: [(TopologyPhase, Gauge); 3],
    majority: Gauge,
    masters: HashMap<NodeAddr, Gauge>,
    replicas: HashMap<NodeAddr, Gauge>,
    lags: HashMap<NodeAddr, [Gauge; 2]>,
    ejections: HashMap<NodeAddr, [Counter; EjectionReason::COUNT]>,
    completed: Counter,
    abandoned: Counter,
    forked_bytes: Counter,
    fences: Vec<Counter>,
    switch_duration: Histogram,
}

/// The phase of a group as metrics tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopologyPhase {
    /// No master is known yet.
    Unknown,
    /// Writes flow.
    Stable,
    /// Writes are held.
    Switching,
}

/// The topology of a group as metrics tell it.
#[derive(Clone, Copy, Debug)]
pub struct TopologyState<'a> {
    /// Number of the snapshot.
    pub generation: Generation,
    /// Sentinel's configuration epoch in use.
    pub epoch: ConfigEpoch,
    /// Phase of the group.
    pub phase: TopologyPhase,
    /// The master in use.
    pub master: Option<&'a NodeAddr>,
    /// Replicas that may serve reads.
    pub replicas: &'a [NodeAddr],
}

impl GroupMetrics {
    pub(super) fn new(recorder: Arc<Recorder>, name: &MasterName) -> Self {
        let group = name.as_str();
        let phase = |phase: TopologyPhase| {
            (
                phase,
                recorder.gauge(&TOPOLOGY_PHASE, &[group, phase.label()]),
            )
        };
        Self {
            generation: recorder.gauge(&TOPOLOGY_GENERATION, &[group]),
            epoch: recorder.gauge(&TOPOLOGY_EPOCH, &[group]),
            phases: [
                phase(TopologyPhase::Unknown),
                phase(TopologyPhase::Stable),
                phase(TopologyPhase::Switching),
            ],
            majority: recorder.gauge(&SENTINEL_MAJORITY, &[group]),
            masters: HashMap::new(),
            replicas: HashMap::new(),
            lags: HashMap::new(),
            ejections: HashMap::new(),
            completed: recorder.counter(&TOPOLOGY_SWITCHES, &[group, "completed"]),
            abandoned: recorder.counter(&TOPOLOGY_SWITCHES, &[group, "abandoned"]),
            forked_bytes: recorder.counter(&TOPOLOGY_FORKED_BYTES, &[group]),
            fences: FenceResult::ALL
                .iter()
                .map(|result| recorder.counter(&FENCES, &[group, result.label()]))
                .collect(),
            switch_duration: recorder.histogram(&TOPOLOGY_SWITCH_DURATION, &[group]),
            name: name.clone(),
            recorder,
        }
    }

    /// Tells the topology in use.
    pub fn topology(&mut self, state: &TopologyState<'_>) {
        self.generation.set(as_f64(state.generation.get()));
        self.epoch.set(as_f64(state.epoch.get()));
        for (phase, gauge) in &self.phases {
            gauge.set(if *phase == state.phase { 1.0 } else { 0.0 });
        }
        let series = |family| {
            move |recorder: &Recorder, name: &MasterName, node: &NodeAddr| {
                recorder.gauge(family, &[name.as_str(), &node.to_string()])
            }
        };
        let masters = state.master.into_iter();
        let master_info = series(&MASTER_INFO);
        mark(&mut self.masters, masters, |node| {
            master_info(&self.recorder, &self.name, node)
        });
        let replica_info = series(&REPLICA_INFO);
        let replicas = state.replicas.iter();
        mark(&mut self.replicas, replicas, |node| {
            replica_info(&self.recorder, &self.name, node)
        });
    }

    /// Tells how far behind each replica is, in bytes and time. What is said of one no more is
    /// unknown from then on.
    pub fn lags<'a>(
        &mut self,
        lags: impl Iterator<Item = (&'a NodeAddr, Option<u64>, Option<Duration>)>,
    ) {
        for gauge in self.lags.values().flatten() {
            gauge.set(f64::NAN);
        }
        for (node, bytes, time) in lags {
            let series = |family| {
                let labels = [self.name.as_str(), &node.to_string()];
                self.recorder.gauge(family, &labels)
            };
            let register = || [series(&REPLICA_LAG_BYTES), series(&REPLICA_LAG_SECONDS)];
            let [in_bytes, in_time] = self.lags.entry(node.clone()).or_insert_with(register);
            in_bytes.set(bytes.map_or(f64::NAN, as_f64));
            in_time.set(time.map_or(f64::NAN, |time| time.as_secs_f64()));
        }
    }

    /// Tells how often `node` was ejected since the start, by reason in the order of
    /// [`EjectionReason::ALL`]. Each is there at 0 from the first time that the node is named.
    pub fn ejections(&mut self, node: &NodeAddr, totals: &[u64; EjectionReason::COUNT]) {
        let counters = self.ejections.entry(node.clone()).or_insert_with(|| {
            let addr = node.to_string();
            std::array::from_fn(|at| {
                let labels = [self.name.as_str(), &addr, EjectionReason::ALL[at].label()];
                self.recorder.counter(&REPLICA_EJECTIONS, &labels)
            })
        });
        for (counter, total) in counters.iter().zip(totals) {
            counter.absolute(*total);
        }
    }

    /// Tells that `sentinel` is connected and answers.
    pub fn sentinel_up(&self, sentinel: &NodeAddr) {
        self.sentinel(&SENTINEL_UP, sentinel).set(1.0);
    }

    /// Tells that `sentinel` is known and does not answer.
    pub fn sentinel_down(&self, sentinel: &NodeAddr) {
        self.sentinel(&SENTINEL_UP, sentinel).set(0.0);
    }

    /// Tells that the events of `sentinel` are heard.
    pub fn sentinel_heard(&self, sentinel: &NodeAddr) {
        self.sentinel(&SENTINEL_HEARD, sentinel).set(1.0);
    }

    /// Tells that the events of `sentinel` are not heard.
    pub fn sentinel_unheard(&self, sentinel: &NodeAddr) {
        self.sentinel(&SENTINEL_HEARD, sentinel).set(0.0);
    }

    /// Tells that more than half of the known Sentinels answer, or that there are none.
    pub fn majority_reached(&self) {
        self.majority.set(1.0);
    }

    /// Tells that too few of them do.
    pub fn majority_missing(&self) {
        self.majority.set(0.0);
    }

    /// Counts a switch that took `took` from its first sign until writes flowed again.
    pub fn switch_completed(&self, took: Duration) {
        self.completed.increment(1);
        self.switch_duration.record(took);
    }

    /// Counts a switch after which the old master stayed.
    pub fn switch_abandoned(&self) {
        self.abandoned.increment(1);
    }

    /// Counts bytes of the old master's history that the new master does not have.
    pub fn forked(&self, bytes: u64) {
        self.forked_bytes.increment(bytes);
    }

    /// Tells how many connections were to be ended at their nodes since the start, and came to
    /// this.
    pub fn fences(&self, result: FenceResult, total: u64) {
        if let Some(counter) = self.fences.get(result.index()) {
            counter.absolute(total);
        }
    }

    fn sentinel(&self, family: &Family, sentinel: &NodeAddr) -> Gauge {
        self.recorder
            .gauge(family, &[self.name.as_str(), &sentinel.to_string()])
    }
}

impl TopologyPhase {
    const fn label(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Stable => "stable",
            Self::Switching => "switching",
        }
    }
}

/// Sets the gauges of `now` to 1 and those of all nodes that were there before to 0.
fn mark<'a>(
    known: &mut HashMap<NodeAddr, Gauge>,
    now: impl Iterator<Item = &'a NodeAddr>,
    mut register: impl FnMut(&NodeAddr) -> Gauge,
) {
    for gauge in known.values() {
        gauge.set(0.0);
    }
    for node in now {
        known
            .entry(node.clone())
            .or_insert_with(|| register(node))
            .set(1.0);
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers; exact up to 2^53"
)]
const fn as_f64(number: u64) -> f64 {
    number as f64
}
