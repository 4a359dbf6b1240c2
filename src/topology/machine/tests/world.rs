//! Floor 1. A world of invented Sentinels, nodes and time around one machine, for its tests.
//! Knows how things answer, and nothing of what the machine should make of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::topology::{
    Action, FailoverStep, Hold, Machine, MasterEntry, NodeAnswer, NodeFailure, NodeRole, Note,
    Phase, ReplicaChoice, ReplicaEntry, Report, ReportKind, ReportedRole, SentinelEntry,
    SentinelFailure, Settings, Snapshot, Source, Subscription, Timings, View,
};
use crate::types::{ConfigEpoch, MasterName, NodeAddr, Time};

pub(super) const A: &str = "10.0.0.1:6379";
pub(super) const B: &str = "10.0.0.2:6379";
pub(super) const C: &str = "10.0.0.3:6379";
pub(super) const S1: &str = "10.0.1.1:26379";
pub(super) const S2: &str = "10.0.1.2:26379";
pub(super) const S3: &str = "10.0.1.3:26379";

/// Time from a question to its answer.
const LATENCY: Duration = Duration::from_millis(1);
/// Time after which a question to something silent is given up.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn addr(text: &str) -> NodeAddr {
    text.parse().unwrap()
}

/// How a peer reacts to a question.
#[derive(Clone, Debug)]
pub(super) enum Peer<T> {
    Answers(T),
    Refuses,
    Silent,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Time,
    pub(super) sentinels: BTreeMap<NodeAddr, Peer<View>>,
    pub(super) nodes: BTreeMap<NodeAddr, Peer<NodeAnswer>>,
    pub(super) names: BTreeMap<String, String>,
    pub(super) snapshots: Vec<(Time, Arc<Snapshot>)>,
    pub(super) notes: Vec<Note>,
    pub(super) asked: BTreeMap<NodeAddr, u32>,
    /// By how much longer nodes take to answer.
    pub(super) far: BTreeMap<NodeAddr, Duration>,
    /// Whether workers report quiet as soon as they are told to hold.
    pub(super) obedient: bool,
    workers: usize,
    pending: Vec<(Time, Pending)>,
}

#[derive(Clone, Debug)]
enum Pending {
    Sentinel(NodeAddr, Peer<View>),
    Node(NodeAddr, Peer<NodeAnswer>),
    Resolved(String),
}

pub(super) fn settings(source: Source) -> Settings {
    Settings {
        master_name: MasterName::new("orders"),
        source,
        hold: Hold::Auto,
        strict_quorum: None,
        workers: 2,
        max_lag: None,
        max_lag_time: None,
        choice: ReplicaChoice::Load,
        zone: None,
        node_zones: Vec::new(),
        timings: Timings::default(),
    }
}

/// A view that names `master` at `epoch`, with `replicas` healthy.
pub(super) fn view(master: &str, epoch: u64, replicas: &[&str]) -> View {
    View {
        id: None,
        known: true,
        master: Some(addr(master)),
        entry: Some(MasterEntry {
            epoch: ConfigEpoch::new(epoch),
            role: Some(ReportedRole::Master),
            other_sentinels: 2,
            quorum: 2,
            down_after: Some(Duration::from_secs(3)),
            ..MasterEntry::default()
        }),
        replicas: replicas
            .iter()
            .map(|replica| healthy(replica, master))
            .collect(),
        sentinels: Vec::new(),
        tilt: false,
    }
}

pub(super) fn healthy(replica: &str, master: &str) -> ReplicaEntry {
    ReplicaEntry {
        addr: Some(addr(replica)),
        role: Some(ReportedRole::Replica),
        link_ok: true,
        master: Some(addr(master)),
        ..ReplicaEntry::default()
    }
}

pub(super) fn sentinel_entry(sentinel: &str, id: &str) -> SentinelEntry {
    SentinelEntry {
        addr: Some(addr(sentinel)),
        id: Some(id.to_owned()),
    }
}

/// `view` with a failover that its Sentinel leads.
pub(super) fn leading(mut view: View, step: FailoverStep, manual: bool) -> View {
    let entry = view.entry.as_mut().unwrap();
    entry.failover = step;
    entry.flags.failover_in_progress = true;
    entry.flags.force_failover = manual;
    view
}

pub(super) fn master() -> Peer<NodeAnswer> {
    Peer::Answers(NodeAnswer {
        role: NodeRole::Master { offset: 1_000 },
        run_id: None,
        replication: None,
        zone: None,
    })
}

pub(super) fn replica_of(of: &str) -> Peer<NodeAnswer> {
    let role = NodeRole::Replica {
        master: Some(addr(of)),
        connected: true,
        offset: 1_000,
    };
    Peer::Answers(NodeAnswer {
        role,
        run_id: None,
        replication: None,
        zone: None,
    })
}

pub(super) fn cut_off_replica_of(of: &str) -> Peer<NodeAnswer> {
    let role = NodeRole::Replica {
        master: Some(addr(of)),
        connected: false,
        offset: 1_000,
    };
    Peer::Answers(NodeAnswer {
        role,
        run_id: None,
        replication: None,
        zone: None,
    })
}

impl World {
    /// Three Sentinels that name A at epoch 1 with replicas B and C, all of it healthy.
    pub(super) fn healthy() -> Self {
        let mut world = Self::unstarted();
        world.run(1_000);
        assert_eq!(world.snapshot().phase, Phase::Stable);
        assert_eq!(world.snapshot().replicas, [addr(B), addr(C)]);
        world
    }

    /// The same before the first moment.
    pub(super) fn unstarted() -> Self {
        let mut world = Self::new(Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)]));
        world.all_see(&view(A, 1, &[B, C]));
        world.set(A, master());
        world.set(B, replica_of(A));
        world.set(C, replica_of(A));
        world
    }

    pub(super) fn new(source: Source) -> Self {
        Self::with(settings(source))
    }

    pub(super) fn with(settings: Settings) -> Self {
        let workers = settings.workers;
        Self {
            machine: Machine::new(settings, Time::ZERO),
            now: Time::ZERO,
            sentinels: BTreeMap::new(),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            snapshots: Vec::new(),
            notes: Vec::new(),
            asked: BTreeMap::new(),
            far: BTreeMap::new(),
            obedient: true,
            workers,
            pending: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, node: &str, peer: Peer<NodeAnswer>) {
        self.nodes.insert(addr(node), peer);
    }

    pub(super) fn sees(&mut self, sentinel: &str, view: View) {
        self.sentinels.insert(addr(sentinel), Peer::Answers(view));
    }

    pub(super) fn all_see(&mut self, view: &View) {
        for sentinel in [S1, S2, S3] {
            self.sees(sentinel, view.clone());
        }
    }

    /// How the Sentinels but S1 react.
    pub(super) fn all_but_s1(&mut self, peer: Peer<View>) {
        self.sentinels.insert(addr(S2), peer.clone());
        self.sentinels.insert(addr(S3), peer);
    }

    pub(super) fn lose_sentinel(&mut self, sentinel: &str) {
        self.sentinels.insert(addr(sentinel), Peer::Refuses);
    }

    /// What a failover from A to B leaves in all views and nodes.
    pub(super) fn fail_over_to_b(&mut self, epoch: u64) {
        self.all_see(&view(B, epoch, &[C]));
        self.set(B, master());
        self.set(C, replica_of(B));
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(self.machine.snapshot())
    }

    pub(super) fn master(&self) -> Option<String> {
        self.snapshot().master.as_ref().map(ToString::to_string)
    }

    pub(super) fn writable(&self) -> Option<String> {
        self.snapshot().writable_master().map(ToString::to_string)
    }

    pub(super) fn replicas(&self) -> Vec<String> {
        self.snapshot()
            .replicas
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn is_holding(&self) -> bool {
        matches!(self.snapshot().phase, Phase::Switching { .. })
    }

    pub(super) fn switches(&self) -> usize {
        self.notes
            .iter()
            .filter(|note| matches!(note, Note::Switched { .. }))
            .count()
    }

    pub(super) fn questions(&self, peer: &str) -> u32 {
        self.asked.get(&addr(peer)).copied().unwrap_or(0)
    }

    pub(super) fn event(&mut self, sentinel: &str, channel: &str, payload: &str) {
        self.machine
            .handle_event(self.now, &addr(sentinel), channel, payload);
        self.perform();
    }

    pub(super) fn subscription(&mut self, sentinel: &str, state: Subscription) {
        self.machine
            .handle_subscription(self.now, &addr(sentinel), state);
        self.perform();
    }

    pub(super) fn report(&mut self, worker: usize, kind: ReportKind) {
        self.machine
            .handle_report(self.now, Report { worker, kind });
        self.perform();
    }

    pub(super) fn link_lost(&mut self, node: &str) {
        self.report(0, ReportKind::LinkLost { node: addr(node) });
    }

    /// The machine's own connection to `node` ends.
    pub(super) fn node_lost(&mut self, node: &str) {
        self.machine.handle_node_lost(self.now, &addr(node));
        self.perform();
    }

    /// Lets `ms` milliseconds pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.perform();
        let mut rounds = 0_u32;
        loop {
            let timeout = self
                .machine
                .poll_timeout()
                .expect("a question is always open or due");
            let answer = self.pending.iter().map(|(at, _)| *at).min();
            let next = answer
                .map_or(timeout, |answer| answer.min(timeout))
                .max(self.now);
            if next > end {
                break;
            }
            rounds += 1;
            assert!(rounds < 100_000, "the machine spins");
            self.now = next;
            match self.pending.iter().position(|(at, _)| *at <= next) {
                Some(index) => {
                    let (_, answer) = self.pending.remove(index);
                    self.deliver(answer);
                }
                None => self.machine.handle_timeout(self.now),
            }
            self.perform();
        }
        self.now = end;
        self.machine.handle_timeout(self.now);
        self.perform();
    }

    /// Runs until `done`, and returns how many milliseconds that took.
    pub(super) fn run_until(&mut self, limit_ms: u64, done: impl Fn(&Self) -> bool) -> u64 {
        for ms in 0..limit_ms {
            if done(self) {
                return ms;
            }
            self.run(1);
        }
        panic!("not within {limit_ms} ms: {:?}", self.machine.status());
    }

    fn deliver(&mut self, answer: Pending) {
        let (now, dice) = (self.now, 1 << 31);
        match answer {
            Pending::Sentinel(from, Peer::Answers(view)) => {
                self.machine.handle_view(now, &from, view);
            }
            Pending::Sentinel(from, _) => {
                let failure = SentinelFailure::Unreachable {
                    why: "refused".to_owned(),
                };
                self.machine.handle_view_failed(now, &from, failure, dice);
            }
            Pending::Node(from, Peer::Answers(answer)) => {
                self.machine.handle_node(now, &from, answer);
            }
            Pending::Node(from, Peer::Refuses) => {
                let failure = NodeFailure::NoConnection {
                    why: "refused".to_owned(),
                };
                self.machine.handle_node_failed(now, &from, failure, dice);
            }
            Pending::Node(from, Peer::Silent) => {
                self.machine
                    .handle_node_failed(now, &from, NodeFailure::NoAnswer, dice);
            }
            Pending::Resolved(name) => {
                let ips = self
                    .names
                    .get(&name)
                    .map_or("", String::as_str)
                    .split_whitespace();
                let ips = ips.map(|ip| ip.parse().unwrap());
                self.machine.handle_resolved(now, &name, ips.collect());
            }
        }
    }

    fn perform(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let soon = self.now + LATENCY;
            match action {
                Action::AskSentinel(sentinel) => {
                    *self.asked.entry(sentinel.clone()).or_default() += 1;
                    let peer = self
                        .sentinels
                        .get(&sentinel)
                        .cloned()
                        .unwrap_or(Peer::Refuses);
                    let at = if matches!(peer, Peer::Silent) {
                        self.now + PATIENCE
                    } else {
                        soon
                    };
                    self.pending.push((at, Pending::Sentinel(sentinel, peer)));
                }
                Action::AskNode(node) => {
                    *self.asked.entry(node.clone()).or_default() += 1;
                    let peer = self.nodes.get(&node).cloned().unwrap_or(Peer::Refuses);
                    let at = if matches!(peer, Peer::Silent) {
                        self.now + PATIENCE
                    } else {
                        soon + self.far.get(&node).copied().unwrap_or_default()
                    };
                    self.pending.push((at, Pending::Node(node, peer)));
                }
                Action::Resolve(name) => self.pending.push((soon, Pending::Resolved(name))),
                Action::Publish(snapshot) => self.published(snapshot),
                Action::Note(note) => self.notes.push(note),
                Action::AddSentinel(_) | Action::DropSentinel(_) | Action::DropNode(_) => {}
            }
        }
    }

    fn published(&mut self, snapshot: Arc<Snapshot>) {
        let generation = snapshot.generation;
        let hold = matches!(snapshot.phase, Phase::Switching { .. });
        self.snapshots.push((self.now, snapshot));
        if hold && self.obedient {
            for worker in 0..self.workers {
                let kind = ReportKind::Quiet { generation };
                self.machine
                    .handle_report(self.now, Report { worker, kind });
            }
        }
    }
}
