//! Floor 0. From one worker's plain counts to the series that all workers share.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::telemetry::counts::{
    ConnectStage, Counts, HedgeOutcome, MasterRead, NodeCounts, Reason, RequestClass as Class,
    Target,
};
use crate::telemetry::families as f;
use crate::telemetry::families::Family;
use crate::telemetry::histogram::Fixed;
use crate::telemetry::recorder::Recorder;
use crate::types::{MasterName, NodeAddr};

/// Value of the label `node` for nodes past the limit.
const OTHER: &str = "other";

/// The pairs whose series are there from the start; any other one appears when it is first counted.
const COMMON: [(Class, Target); 8] = [
    (Class::Read, Target::Master),
    (Class::Read, Target::Replica),
    (Class::Write, Target::Master),
    (Class::Session, Target::Master),
    (Class::Session, Target::Local),
    (Class::Leased, Target::Master),
    (Class::Admin, Target::Master),
    (Class::Refused, Target::Local),
];

/// Where one worker publishes what it has counted for one group.
#[derive(Debug)]
pub struct WorkerMetrics {
    recorder: Arc<Recorder>,
    name: MasterName,
    clients: Share,
    held_clients: Share,
    connections_accepted: Counter,
    connections_refused: Counter,
    connections_closed: Counter,
    client_received_bytes: Counter,
    client_sent_bytes: Counter,
    upstream_received_bytes: Counter,
    upstream_sent_bytes: Counter,
    held_released: Counter,
    held_expired: Counter,
    hold_duration: Arc<Fixed>,
    kept_released: Counter,
    kept_uncertain: Counter,
    resent: Counter,
    detoured: Counter,
    uncertain: Counter,
    rejected: [Counter; Reason::COUNT],
    master_reads: [Counter; MasterRead::COUNT],
    hedged: [Counter; HedgeOutcome::COUNT],
    requests: [[Option<Requests>; Target::COUNT]; Class::COUNT],
    upstream_duration: [Option<Arc<Fixed>>; Target::COUNT],
    nodes: Vec<Node>,
}

/// A gauge to which each worker adds its share.
#[derive(Debug)]
struct Share {
    gauge: Gauge,
    published: i64,
}

#[derive(Debug)]
struct Requests {
    total: Counter,
    duration: Arc<Fixed>,
}

#[derive(Debug)]
struct Node {
    in_flight: Share,
    shared: Share,
    leased: Share,
    reads: Counter,
    lost_sent: Counter,
    lost_unsent: Counter,
    connect_failures: [Counter; ConnectStage::COUNT],
}

impl WorkerMetrics {
    pub(super) fn new(recorder: Arc<Recorder>, name: &MasterName) -> Self {
        let group = name.as_str();
        let counter = |family: &Family| recorder.counter(family, &[group]);
        let labelled = |family: &Family, value| recorder.counter(family, &[group, value]);
        let mut requests = [const { [const { None }; Target::COUNT] }; Class::COUNT];
        for (class, target) in COMMON {
            requests[class.index()][target.index()] =
                Some(Requests::new(&recorder, group, class, target));
        }
        let upstream = |target| Some(upstream_duration(&recorder, group, target));
        Self {
            clients: Share::new(recorder.gauge(&f::CLIENT_CONNECTIONS, &[group])),
            held_clients: Share::new(recorder.gauge(&f::HELD_CLIENTS, &[group])),
            connections_accepted: labelled(&f::CLIENT_CONNECTIONS_TOTAL, "accepted"),
            connections_refused: labelled(&f::CLIENT_CONNECTIONS_TOTAL, "refused_limit"),
            connections_closed: counter(&f::CLIENT_CONNECTIONS_CLOSED),
            client_received_bytes: counter(&f::CLIENT_RECEIVED_BYTES),
            client_sent_bytes: counter(&f::CLIENT_SENT_BYTES),
            upstream_received_bytes: counter(&f::UPSTREAM_RECEIVED_BYTES),
            upstream_sent_bytes: counter(&f::UPSTREAM_SENT_BYTES),
            held_released: labelled(&f::HELD, "released"),
            held_expired: labelled(&f::HELD, "expired"),
            hold_duration: recorder.fixed(&f::HOLD_DURATION, &[group]),
            kept_released: labelled(&f::KEPT, "released"),
            kept_uncertain: labelled(&f::KEPT, "uncertain"),
            resent: counter(&f::RESENT),
            detoured: counter(&f::DETOURED),
            uncertain: counter(&f::UNCERTAIN),
            rejected: std::array::from_fn(|at| labelled(&f::REJECTED, Reason::ALL[at].label())),
            master_reads: std::array::from_fn(|at| {
                labelled(&f::MASTER_READS, MasterRead::ALL[at].label())
            }),
            hedged: std::array::from_fn(|at| labelled(&f::HEDGED, HedgeOutcome::ALL[at].label())),
            requests,
            upstream_duration: [upstream(Target::Master), upstream(Target::Replica), None],
            nodes: Vec::new(),
            name: name.clone(),
            recorder,
        }
    }

    /// Adds what `counts` has counted since the last call, sets this worker's share of the gauges,
    /// and empties the counters of `counts`. Always with the same `counts`.
    ///
    /// A few microseconds; call it a few times a second, not per request.
    pub fn publish(&mut self, counts: &mut Counts) {
        self.clients.set(counts.clients);
        self.held_clients.set(counts.held_clients);
        add(
            &self.connections_accepted,
            &mut counts.client_connections_accepted,
        );
        add(
            &self.connections_refused,
            &mut counts.client_connections_refused,
        );
        add(
            &self.connections_closed,
            &mut counts.client_connections_closed,
        );
        add(
            &self.client_received_bytes,
            &mut counts.client_received_bytes,
        );
        add(&self.client_sent_bytes, &mut counts.client_sent_bytes);
        add(
            &self.upstream_received_bytes,
            &mut counts.upstream_received_bytes,
        );
        add(&self.upstream_sent_bytes, &mut counts.upstream_sent_bytes);
        add(&self.held_released, &mut counts.held_released);
        add(&self.held_expired, &mut counts.held_expired);
        self.hold_duration.absorb(&mut counts.hold_duration);
        add(&self.kept_released, &mut counts.kept_released);
        add(&self.kept_uncertain, &mut counts.kept_uncertain);
        add(&self.resent, &mut counts.resent);
        add(&self.detoured, &mut counts.detoured);
        add(&self.uncertain, &mut counts.uncertain);
        for (counter, count) in self.rejected.iter().zip(&mut counts.rejected) {
            add(counter, count);
        }
        for (counter, count) in self.master_reads.iter().zip(&mut counts.master_reads) {
            add(counter, count);
        }
        for (counter, count) in self.hedged.iter().zip(&mut counts.hedged) {
            add(counter, count);
        }
        self.publish_requests(counts);
        self.publish_nodes(counts);
    }

    fn publish_requests(&mut self, counts: &mut Counts) {
        let group = self.name.as_str();
        for class in Class::ALL {
            for target in Target::ALL {
                let (class_at, target_at) = (class.index(), target.index());
                let total = &mut counts.requests[class_at][target_at];
                let duration = &mut counts.request_duration[class_at][target_at];
                if *total == 0 && duration.count() == 0 {
                    continue;
                }
                let series = self.requests[class_at][target_at]
                    .get_or_insert_with(|| Requests::new(&self.recorder, group, *class, *target));
                add(&series.total, total);
                series.duration.absorb(duration);
            }
        }
        for target in Target::ALL {
            let duration = &mut counts.upstream_duration[target.index()];
            if duration.count() != 0 {
                self.upstream_duration[target.index()]
                    .get_or_insert_with(|| upstream_duration(&self.recorder, group, *target))
                    .absorb(duration);
            }
        }
    }

    fn publish_nodes(&mut self, counts: &mut Counts) {
        for (addr, _) in counts.nodes.iter().skip(self.nodes.len()) {
            self.nodes
                .push(Node::new(&self.recorder, self.name.as_str(), addr.as_ref()));
        }
        for (node, (_, counts)) in self.nodes.iter_mut().zip(&mut counts.nodes) {
            node.publish(counts);
        }
    }
}

impl Drop for WorkerMetrics {
    /// Takes back this worker's share of the gauges.
    fn drop(&mut self) {
        self.clients.set(0);
        self.held_clients.set(0);
        for node in &mut self.nodes {
            node.in_flight.set(0);
            node.shared.set(0);
            node.leased.set(0);
        }
    }
}

impl Share {
    const fn new(gauge: Gauge) -> Self {
        Self {
            gauge,
            published: 0,
        }
    }

    fn set(&mut self, now: i64) {
        if now != self.published {
            self.gauge.increment(as_f64(now - self.published));
            self.published = now;
        }
    }
}

impl Requests {
    fn new(recorder: &Recorder, group: &str, class: Class, target: Target) -> Self {
        let labels = [group, class.label(), target.label()];
        Self {
            total: recorder.counter(&f::REQUESTS, &labels),
            duration: recorder.fixed(&f::REQUEST_DURATION, &labels),
        }
    }
}

impl Node {
    fn new(recorder: &Recorder, group: &str, addr: Option<&NodeAddr>) -> Self {
        let node = addr.map_or_else(|| OTHER.to_owned(), NodeAddr::to_string);
        let lane = |lane| {
            Share::new(recorder.gauge(&f::UPSTREAM_CONNECTIONS, &[group, node.as_str(), lane]))
        };
        let lost = |sent| recorder.counter(&f::UPSTREAM_LOST, &[group, node.as_str(), sent]);
        Self {
            in_flight: Share::new(recorder.gauge(&f::UPSTREAM_IN_FLIGHT, &[group, &node])),
            shared: lane("shared"),
            leased: lane("leased"),
            reads: recorder.counter(&f::NODE_READS, &[group, &node]),
            lost_sent: lost("yes"),
            lost_unsent: lost("no"),
            connect_failures: std::array::from_fn(|at| {
                let labels = [group, node.as_str(), ConnectStage::ALL[at].label()];
                recorder.counter(&f::UPSTREAM_CONNECT_FAILURES, &labels)
            }),
        }
    }

    fn publish(&mut self, counts: &mut NodeCounts) {
        self.in_flight.set(counts.in_flight);
        self.shared.set(counts.shared);
        self.leased.set(counts.leased);
        add(&self.reads, &mut counts.reads);
        add(&self.lost_sent, &mut counts.lost_sent);
        add(&self.lost_unsent, &mut counts.lost_unsent);
        for (counter, count) in self
            .connect_failures
            .iter()
            .zip(&mut counts.connect_failures)
        {
            add(counter, count);
        }
    }
}

fn upstream_duration(recorder: &Recorder, group: &str, target: Target) -> Arc<Fixed> {
    recorder.fixed(&f::UPSTREAM_DURATION, &[group, target.label()])
}

/// Adds `count` and empties it.
fn add(counter: &Counter, count: &mut u64) {
    if *count != 0 {
        counter.increment(std::mem::take(count));
    }
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers; exact up to 2^53"
)]
const fn as_f64(number: i64) -> f64 {
    number as f64
}
