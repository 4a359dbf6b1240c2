//! The control plane as `src/sentinel` runs it: a machine, whose questions take their way, are
//! answered, refused or not heard, and whose subscriptions are lost and made again.

use std::sync::Arc;
use std::time::Duration;

use switchman::backoff::Backoff;
use switchman::topology::{
    Action, Hold, Machine, NodeAnswer, NodeFailure, NodeRole, Note, Phase, ReplicaChoice,
    SentinelFailure, Settings, Snapshot, Source, Subscription, Timings, View,
};
use switchman::types::{ConfigEpoch, MasterName, Replication, Time};

use crate::book::Broken;
use crate::node::Life;
use crate::plan::{Micros, Plan, dice, ms, sec};
use crate::world::{Event, Mutation, NAME, Names, World, micros};

/// Longest wait for an answer: the driver's `query` and `connect`.
pub(crate) const QUESTION_TIMEOUT: Micros = ms(500);
/// After which silence a subscription is given up.
const SILENCE: Micros = sec(2);
/// Within which it is known of a Sentinel that it does not answer any more.
const MISSED_AFTER: Micros = SILENCE + QUESTION_TIMEOUT + ms(500);

#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) machine: Machine,
    /// When the machine wants to look at the time.
    pub(crate) due: Micros,
    pub(crate) latest: Arc<Snapshot>,
    /// When it was published.
    pub(crate) published: Micros,
    /// The master before the hold, while there is one.
    left: Option<usize>,
    escaped: bool,
    /// Nodes whose last answer was that they are master.
    masters: u8,
    /// Nodes to which a connection is kept.
    probes: u8,
    dice: fastrand::Rng,
    pub(crate) dice_of_messages: fastrand::Rng,
}

impl Control {
    pub(crate) fn new(plan: &Plan, names: &Names) -> Self {
        let hold = plan.pace.hold.map(Duration::from_micros);
        let settings = Settings {
            master_name: MasterName::new(NAME),
            source: Source::Sentinels(names.sentinels.iter().take(plan.seeds).cloned().collect()),
            hold: hold.map_or(Hold::Auto, Hold::Fixed),
            workers: plan.workers,
            max_lag: None,
            max_lag_time: None,
            choice: ReplicaChoice::Load,
            zone: None,
            node_zones: Vec::new(),
            strict_quorum: plan.pace.strict.map(Duration::from_micros),
            timings: Timings::default(),
        };
        let machine = Machine::new(settings, Time::ZERO);
        let latest = Arc::new(Snapshot::unknown(machine.snapshot().hold));
        Self {
            machine,
            due: 0,
            latest,
            published: 0,
            left: None,
            escaped: false,
            masters: 0,
            probes: 0,
            dice: dice(plan.seed, 1),
            dice_of_messages: dice(plan.seed, 2),
        }
    }

    pub(crate) fn describe(&self) -> String {
        let status = self.machine.status();
        format!(
            "{:?} waiting for {:?} because of {:?}, candidates {:?}",
            status.snapshot, status.waiting, status.cause, status.candidates
        )
    }
}

impl World {
    /// Lets the machine know something, and does what it wants done.
    pub(crate) fn inform(&mut self, news: impl FnOnce(&mut Machine, Time)) {
        let now = self.time();
        news(&mut self.control.machine, now);
        while let Some(action) = self.control.machine.poll_action() {
            self.follow_machine(action);
        }
        let due = self.control.machine.poll_timeout();
        self.control.due = due.map_or(Micros::MAX, micros).max(self.now + 1);
        self.drive();
    }

    fn follow_machine(&mut self, action: Action) {
        match action {
            Action::AddSentinel(addr) => {
                let at = self.names.sentinel(&addr);
                self.subscribe_later(at.expect("a Sentinel of this world"));
            }
            Action::AskSentinel(addr) => {
                let at = self.names.sentinel(&addr);
                let delay = self.control_way();
                self.later(
                    delay,
                    Event::AskedSentinel(at.expect("a Sentinel of this world")),
                );
            }
            Action::AskNode(addr) => {
                let at = self.names.node(&addr);
                let delay = self.control_way();
                self.later(delay, Event::AskedNode(at.expect("a node of this world")));
            }
            Action::Publish(snapshot) => self.publish(&snapshot),
            Action::Note(note) => self.noted(&note),
            Action::DropSentinel(_) | Action::DropNode(_) | Action::Resolve(_) => {}
        }
    }

    pub(crate) fn control_way(&mut self) -> Micros {
        let way = self.plan.pace.way;
        self.control.dice.u64(way / 4..=way)
    }

    fn noted(&mut self, note: &Note) {
        note!(self, "machine: {note:?}");
        match note {
            Note::RegressionAccepted { .. } => {
                self.control.escaped = true;
                self.book.counts.regressions += 1;
            }
            Note::Holding { .. } => self.book.counts.holds += 1,
            Note::Switched { .. } => self.book.counts.switches += 1,
            _ => {}
        }
    }

    fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        let mut snapshot = Arc::clone(snapshot);
        if self.mutation == Some(Mutation::OldEpoch) && self.book.counts.switches > 0 {
            Arc::make_mut(&mut snapshot).epoch = ConfigEpoch::new(0);
        }
        note!(
            self,
            "snapshot {}: epoch {}, {:?}, master {:?}, replicas {:?}",
            snapshot.generation.get(),
            snapshot.epoch.get(),
            snapshot.phase,
            snapshot.master,
            snapshot.replicas
        );
        self.check_snapshot(&snapshot);
        let master = snapshot
            .master
            .as_ref()
            .and_then(|master| self.names.node(master));
        match (snapshot.phase, master) {
            (Phase::Switching { .. }, master) => self.control.left = master,
            (_, Some(new)) => self.settle_suspects(new),
            (_, None) => {}
        }
        self.control.latest = snapshot;
        self.control.published = self.now;
        self.send_snapshots();
    }

    /// Writes go on with `new`: those acknowledged while another master was left must be there.
    fn settle_suspects(&mut self, new: usize) {
        let left = self.control.left.take().filter(|old| *old != new);
        for (id, node) in std::mem::take(&mut self.book.suspects) {
            if left.is_some() && node != new {
                self.book.past_the_fork(id, node, new);
            }
        }
    }

    fn check_snapshot(&mut self, snapshot: &Snapshot) {
        let last = &self.control.latest;
        let older = snapshot.epoch < last.epoch && !self.control.escaped;
        if older || snapshot.generation != last.generation.next() {
            let (from, to) = (last.epoch, snapshot.epoch);
            self.book.broke(Broken::Snapshot, || {
                format!("{:?}: from {from:?} to {to:?}", snapshot.generation)
            });
        }
        self.control.escaped = false;
        let changed = snapshot.phase == Phase::Stable
            && (snapshot.master != last.master || last.phase != Phase::Stable);
        let master = snapshot
            .writable_master()
            .and_then(|master| self.names.node(master));
        if let Some(master) = master
            && changed
            && self.control.masters & (1 << master) == 0
        {
            self.book.broke(Broken::Unproven, || {
                format!("node {master} has not said that it is a master")
            });
        }
        if snapshot.phase == Phase::Stable
            && snapshot
                .master
                .as_ref()
                .is_some_and(|it| snapshot.replicas.contains(it))
        {
            self.book.broke(Broken::Snapshot, || {
                "the master is its own replica".to_owned()
            });
        }
    }

    // --- questions

    pub(crate) fn asked_sentinel(&mut self, at: usize) {
        let way = self.control_way();
        let sentinel = &self.sentinels[at];
        let failed = |why: &str| {
            let why = why.to_owned();
            Err(SentinelFailure::Unreachable { why })
        };
        let (delay, answer) = if sentinel.unseen {
            (QUESTION_TIMEOUT, failed("no answer in time"))
        } else if sentinel.up {
            (way, Ok(self.view(at)))
        } else {
            (way, failed("refused"))
        };
        self.later(delay, Event::ViewCame(at, Box::new(answer)));
    }

    pub(crate) fn view_came(&mut self, at: usize, answer: Result<View, SentinelFailure>) {
        let from = self.names.sentinels[at].clone();
        let dice = self.control.dice.u32(..);
        let lost = self.sentinels[at].unseen && answer.is_ok();
        if lost || (self.mutation == Some(Mutation::Blind) && self.now > ms(500)) {
            return;
        }
        match answer {
            Ok(view) => self.inform(|machine, now| machine.handle_view(now, &from, view)),
            Err(_) if self.mutation == Some(Mutation::Hush) => {}
            Err(failure) => {
                self.inform(|machine, now| machine.handle_view_failed(now, &from, failure, dice));
            }
        }
    }

    pub(crate) fn asked_node(&mut self, at: usize) {
        let way = self.control_way();
        let node = &self.nodes[at];
        let bit = 1_u8 << at;
        let kept = self.control.probes & bit != 0;
        let refused = |why: &str| {
            let why = why.to_owned();
            Err(NodeFailure::NoConnection { why })
        };
        let (delay, answer) = match node.life {
            _ if node.cut_off && kept => (QUESTION_TIMEOUT, Err(NodeFailure::NoAnswer)),
            _ if node.cut_off => (QUESTION_TIMEOUT, refused("connecting took too long")),
            Life::Dead => (way, refused("refused")),
            Life::Frozen => (QUESTION_TIMEOUT, Err(NodeFailure::NoAnswer)),
            Life::Up => (way, Ok(self.role(at))),
        };
        if matches!(answer, Ok(_) | Err(NodeFailure::NoAnswer)) {
            self.control.probes |= bit;
        } else {
            self.control.probes &= !bit;
        }
        self.later(delay, Event::NodeCame(at, Box::new(answer)));
    }

    /// What a node says to `ROLE` and `INFO`.
    pub(crate) fn role(&self, at: usize) -> NodeAnswer {
        let node = &self.nodes[at];
        let boast = if self.mutation == Some(Mutation::Boast) {
            1_000
        } else {
            0
        };
        let more = if node.follows.is_some() { boast } else { 0 };
        let offset = u64::try_from(node.log.len()).unwrap_or(0) + more;
        let role = match node.follows {
            None => NodeRole::Master { offset },
            Some(master) => NodeRole::Replica {
                master: Some(self.names.nodes[master].clone()),
                connected: node.synced,
                offset,
            },
        };
        let run_id = Some(format!("{at}-{}", node.process));
        let (left, left_at) = node.left.unzip();
        let replication = Replication {
            is_master: node.follows.is_none(),
            id: node.story.to_string(),
            offset,
            left: left.map_or_else(|| "0".to_owned(), |left| left.to_string()),
            left_at: left_at.and_then(|at| Some(u64::try_from(at).ok()? + boast)),
        };
        NodeAnswer {
            role,
            run_id,
            replication: Some(replication),
            zone: None,
        }
    }

    pub(crate) fn node_came(&mut self, at: usize, answer: Result<NodeAnswer, NodeFailure>) {
        let from = self.names.nodes[at].clone();
        let dice = self.control.dice.u32(..);
        let bit = 1_u8 << at;
        // What a partition swallows is missed when its time has come.
        let answer = if self.nodes[at].cut_off && answer.is_ok() {
            Err(NodeFailure::NoAnswer)
        } else {
            answer
        };
        match answer {
            Ok(answer) => {
                if matches!(answer.role, NodeRole::Master { .. }) {
                    self.control.masters |= bit;
                } else {
                    self.control.masters &= !bit;
                }
                self.inform(|machine, now| machine.handle_node(now, &from, answer));
            }
            Err(failure) => {
                self.control.masters &= !bit;
                self.inform(|machine, now| machine.handle_node_failed(now, &from, failure, dice));
            }
        }
    }

    /// Whether `strict-quorum` must have stopped commands for the master by now.
    pub(crate) fn lacks_quorum(&self) -> bool {
        let all_known = self.plan.seeds == self.plan.sentinels;
        let Some(strict) = self.plan.pace.strict.filter(|_| all_known) else {
            return false;
        };
        let limit = strict + MISSED_AFTER;
        let gone = self.sentinels.iter().filter(|sentinel| {
            sentinel
                .gone_since
                .is_some_and(|since| self.now > since + limit)
        });
        gone.count() * 2 >= self.sentinels.len()
    }

    /// A node has closed the connection on which it is asked.
    pub(crate) fn lose_probe(&mut self, at: usize, dies: bool) {
        let bit = 1_u8 << at;
        if self.control.probes & bit != 0 && !self.nodes[at].cut_off {
            self.control.probes &= !bit;
            let delay = if dies { 0 } else { self.control_way() };
            self.later(delay, Event::NodeLost(at));
        }
    }

    pub(crate) fn node_lost(&mut self, at: usize) {
        let from = self.names.nodes[at].clone();
        self.inform(|machine, now| machine.handle_node_lost(now, &from));
    }

    // --- subscriptions

    fn subscribe_later(&mut self, at: usize) {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let dice = self.control.dice.u32(..);
        let pause = backoff.delay(self.sentinels[at].failures, dice);
        let delay = u64::try_from(pause.as_micros()).unwrap_or(0) + self.control_way();
        let life = self.sentinels[at].life;
        self.later(delay, Event::Subscribe(at, life));
    }

    pub(crate) fn subscribe(&mut self, at: usize, life: u32) {
        let way = self.control_way();
        let sentinel = &mut self.sentinels[at];
        if sentinel.life != life || sentinel.subscribed {
            return;
        }
        if sentinel.up && !sentinel.unseen {
            sentinel.subscribed = true;
            sentinel.failures = 0;
            sentinel.heard = sentinel.heard.max(self.now + way);
            let due = sentinel.heard;
            self.at(due, Event::Subscribed(at, life));
        } else {
            let delay = if sentinel.unseen {
                QUESTION_TIMEOUT
            } else {
                way
            };
            self.unsubscribe(at, delay);
        }
    }

    /// The subscription ends, or did not begin; that is noticed after `delay`.
    pub(crate) fn unsubscribe(&mut self, at: usize, delay: Micros) {
        let sentinel = &mut self.sentinels[at];
        sentinel.life += 1;
        sentinel.subscribed = false;
        sentinel.failures += 1;
        let life = sentinel.life;
        self.later(delay.min(SILENCE), Event::Unsubscribed(at, life));
    }

    pub(crate) fn subscribed(&mut self, at: usize, life: u32) {
        if self.sentinels[at].life == life {
            let from = self.names.sentinels[at].clone();
            let on = Subscription::On;
            self.inform(|machine, now| machine.handle_subscription(now, &from, on));
        }
    }

    pub(crate) fn unsubscribed(&mut self, at: usize, life: u32) {
        if self.sentinels[at].life == life && self.mutation != Some(Mutation::Hush) {
            let from = self.names.sentinels[at].clone();
            let lost = Subscription::Lost {
                why: "gone".to_owned(),
            };
            self.inform(|machine, now| machine.handle_subscription(now, &from, lost));
            self.subscribe_later(at);
        }
    }

    /// A Sentinel publishes something.
    pub(crate) fn emit(
        &mut self,
        at: usize,
        channel: &'static str,
        words: impl FnOnce() -> String,
    ) {
        if !self.sentinels[at].subscribed && self.trace.is_none() {
            return;
        }
        let words = words();
        note!(self, "sentinel {at} says {channel} {words}");
        if !self.sentinels[at].subscribed {
            return;
        }
        let way = self.plan.pace.way;
        let echoes = self.plan.pace.echoes;
        let now = self.now;
        let sentinel = &mut self.sentinels[at];
        let life = sentinel.life;
        let times = if echoes && sentinel.dice.u32(..4) == 0 {
            2
        } else {
            1
        };
        for _ in 0..times {
            let sentinel = &mut self.sentinels[at];
            sentinel.heard = sentinel.heard.max(now + sentinel.dice.u64(way / 4..=way));
            let due = sentinel.heard;
            let said = Box::new((channel, words.clone()));
            self.at(due, Event::Published(at, life, said));
        }
    }

    pub(crate) fn published(&mut self, at: usize, life: u32, (channel, words): (&str, &str)) {
        if self.sentinels[at].life == life {
            let from = self.names.sentinels[at].clone();
            self.inform(|machine, now| machine.handle_event(now, &from, channel, words));
        }
    }
}
