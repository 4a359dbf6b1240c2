//! Floor 1. What each thing said changes in memory, before anything is decided.
//! Knows which hints lead to which questions.

use std::mem;
use std::time::Duration;

use super::Machine;
use super::peers::{Failover, Listing, Node, Promotion, Sentinel};
use crate::backoff::Backoff;
use crate::topology::action::{Action, Note};
use crate::topology::event::Event;
use crate::topology::incident::Witness;
use crate::topology::status::Ejection;
use crate::topology::view::{
    FailoverStep, NodeAnswer, NodeFailure, NodeRole, SentinelFailure, View,
};
use crate::types::{NodeAddr, Time};

/// Sentinels known at most, configured ones not counted: a group has three or five.
pub(super) const LEARNED_SENTINELS_MAX: usize = 32;
/// Nodes known at most: a list of dead replicas that Sentinel never forgets must not fill memory.
const NODES_MAX: usize = 256;
/// First wait after a failure; it doubles up to the pace of the phase.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait between two questions to a dead node.
const NODE_PAUSE_MAX: Duration = Duration::from_secs(10);

impl Machine {
    /// Takes an event of a known Sentinel.
    pub(super) fn heard(&mut self, from: &NodeAddr, event: Event) {
        match event {
            Event::FailoverBegan { master } => {
                self.no_promotion_yet(from);
                let manual = !self.sentinels.values().any(|each| each.o_down);
                self.heard_failover(from, master.as_ref(), (manual, false));
            }
            Event::FailoverDecided { master, candidate } => {
                self.no_promotion_yet(from);
                self.heard_failover(from, master.as_ref(), (false, true));
                self.want_candidate(candidate.as_ref());
            }
            Event::PromotionOrdered { master, candidate } => {
                self.heard_failover(from, master.as_ref(), (false, true));
                self.want_candidate(candidate.as_ref());
                let now = self.now;
                if let Some(failover) = self.failover_of(from) {
                    failover.promotion = candidate.map(|candidate| Promotion::new(candidate, now));
                }
            }
            Event::Promoted { master, candidate } | Event::Switched { master, candidate } => {
                self.heard_failover(from, master.as_ref(), (false, true));
                self.want_candidate(candidate.as_ref());
                self.want_all_sentinels();
                self.trouble();
            }
            Event::FailoverAborted | Event::FailoverEnded => {
                if let Some(sentinel) = self.sentinels.get_mut(from) {
                    sentinel.failover = None;
                }
                self.sign();
            }
            Event::MasterSubjectivelyDown(down) => {
                if let Some(sentinel) = self.sentinels.get_mut(from) {
                    sentinel.s_down = down;
                }
                self.want_master();
                self.trouble();
            }
            Event::MasterObjectivelyDown(down) => {
                if let Some(sentinel) = self.sentinels.get_mut(from) {
                    sentinel.o_down = down;
                }
                self.want_master();
                self.trouble();
            }
            Event::MasterRebooted => self.want_master(),
            Event::RoleChanged { node } => {
                self.want_known(node.as_ref());
                self.want_all_sentinels();
                self.trouble();
            }
            Event::ReplicaChanged { node } => {
                self.want_known(node.as_ref());
                self.trouble();
            }
            Event::SentinelsChanged | Event::Unclear => {}
            Event::Reconfigured => self.trouble(),
            Event::Tilt(on) => self.tilt(from, on),
        }
        if let Some(sentinel) = self.sentinels.get_mut(from) {
            sentinel.ask.want_now();
        }
    }

    fn heard_failover(
        &mut self,
        from: &NodeAddr,
        master: Option<&NodeAddr>,
        (manual, decided): (bool, bool),
    ) {
        // The leader repeats an old switch last of all, when its master is ours no more.
        let concerns = master.is_some_and(|master| self.is_master(master));
        if let Some(sentinel) = self.sentinels.get_mut(from).filter(|_| concerns) {
            sentinel.leads(self.now, manual, decided);
            self.sign();
        }
    }

    fn failover_of(&mut self, sentinel: &NodeAddr) -> Option<&mut Failover> {
        self.sentinels.get_mut(sentinel)?.failover.as_mut()
    }

    /// A Sentinel is at a step before the promotion: one that it has ordered was of another
    /// failover, of whose end we did not hear.
    fn no_promotion_yet(&mut self, sentinel: &NodeAddr) {
        if let Some(failover) = self.failover_of(sentinel) {
            failover.promotion = None;
        }
    }

    /// The replica that is to become a master was heard.
    fn learn_promotion(&mut self, addr: &NodeAddr, asked: Time) {
        let Some(role) = self.nodes.get(addr).and_then(Node::role).cloned() else {
            return;
        };
        let follows = matches!(
            &role,
            NodeRole::Replica { master: Some(master), connected: true, .. }
                if self.is_master(master)
        );
        let failovers = self
            .sentinels
            .values_mut()
            .filter_map(|sentinel| sentinel.failover.as_mut());
        for promotion in failovers.filter_map(|failover| failover.promotion.as_mut()) {
            if promotion.candidate == *addr {
                promotion.answered(asked, &role, follows);
            }
        }
    }

    fn tilt(&mut self, from: &NodeAddr, on: bool) {
        if let Some(sentinel) = self.sentinels.get_mut(from)
            && sentinel.tilt != on
        {
            sentinel.tilt = on;
            self.note(Note::Tilt {
                sentinel: from.clone(),
                on,
            });
        }
    }

    fn want_candidate(&mut self, candidate: Option<&NodeAddr>) {
        if let Some(candidate) = candidate
            && self.make_room_for(candidate)
        {
            let now = self.now;
            let node = self.node_mut(candidate);
            node.fit_at = Some(now);
            node.ask.want_now();
        }
    }

    fn want_known(&mut self, node: Option<&NodeAddr>) {
        let Some(node) = node else { return };
        if let Some(key) = self
            .nodes
            .keys()
            .find(|key| self.names.same(key, node))
            .cloned()
            && let Some(known) = self.nodes.get_mut(&key)
        {
            known.ask.want();
        }
    }

    /// A worker has trouble with a node.
    pub(super) fn accuse(&mut self, worker: usize, node: &NodeAddr, what: &str) {
        let Some(known) = self.nodes.get_mut(node) else {
            return;
        };
        known.suspect = true;
        known.ask.want();
        self.mark(Witness::Worker(worker), format!("{what} {node}"));
        if self.is_master(node) {
            self.trouble();
        }
    }

    /// Takes a view.
    pub(super) fn learn_view(&mut self, from: &NodeAddr, mut view: View) {
        self.reject_loopback(from, &mut view);
        let tilt = view.tilt;
        let Some(sentinel) = self.sentinels.get_mut(from) else {
            return;
        };
        let Some(asked) = sentinel.ask.answered() else {
            return;
        };
        let first = sentinel.seen.is_none();
        let was_down = mem::take(&mut sentinel.noted.down);
        let unknown = !view.known && !mem::replace(&mut sentinel.noted.name_unknown, !view.known);
        sentinel.noted.not_a_sentinel = false;
        self.tilt(from, tilt);
        let says = said(&view);
        let failover = self.leading(&view);
        let step = view
            .entry
            .as_ref()
            .map_or(FailoverStep::None, |it| it.failover);
        let ordered = self.failover_of(from).and_then(|it| it.promotion.as_ref());
        let before_order = step < FailoverStep::WaitPromotion
            && ordered.is_some_and(|promotion| promotion.heard <= asked);
        if before_order {
            self.no_promotion_yet(from);
        }
        self.list_replicas(from, &view);
        if let Some(sentinel) = self.sentinels.get_mut(from) {
            sentinel.saw(self.now, asked, view);
            match failover {
                Some((manual, decided)) => sentinel.leads(self.now, manual, decided),
                // An answer to a question from before the event does not contradict it.
                None if sentinel
                    .failover
                    .as_ref()
                    .is_some_and(|it| it.heard <= asked) =>
                {
                    sentinel.failover = None;
                }
                None => {}
            }
        }
        self.mark(Witness::Sentinel(from.clone()), says);
        self.first_view.get_or_insert(self.now);
        if first || was_down {
            self.note(Note::SentinelUp {
                sentinel: from.clone(),
            });
        }
        if unknown {
            self.note(Note::NameUnknown {
                sentinel: from.clone(),
            });
        }
        self.learn_sentinels();
        self.learn_hold();
    }

    /// The failover of the master in use that the view tells of: whether commanded, whether
    /// decided. After the promotion it is the view's address that tells, not the state.
    pub(super) fn leading(&self, view: &View) -> Option<(bool, bool)> {
        let entry = view
            .entry
            .as_ref()
            .filter(|entry| entry.flags.failover_in_progress)?;
        let (named, epoch) = view.vote()?;
        let ours = self.master.is_none() || (self.is_master(named) && epoch >= self.epoch);
        let before_promotion = entry.failover <= FailoverStep::WaitPromotion;
        (ours && before_promotion).then_some((
            entry.flags.force_failover,
            entry.failover >= FailoverStep::SelectReplica,
        ))
    }

    /// Takes that a Sentinel gave no view.
    pub(super) fn miss_view(&mut self, from: &NodeAddr, failure: SentinelFailure, dice: u32) {
        let limit = self.sentinel_pause();
        let Some(sentinel) = self.sentinels.get_mut(from) else {
            return;
        };
        let pause = Backoff::new(FIRST_PAUSE.min(limit), limit);
        if sentinel
            .ask
            .failed(self.now, |failures| pause.delay(failures, dice))
            .is_none()
        {
            return;
        }
        if self.settings.strict_quorum.is_some() {
            // Writes may depend on it: one slow answer must not count for a whole pace.
            sentinel.ask.want();
        }
        let note = match &failure {
            SentinelFailure::NotASentinel => {
                let noted = mem::replace(&mut sentinel.noted.not_a_sentinel, true);
                (!noted).then(|| Note::NotASentinel { addr: from.clone() })
            }
            SentinelFailure::Unreachable { why } => {
                let noted = mem::replace(&mut sentinel.noted.down, true);
                (!noted).then(|| Note::SentinelDown {
                    sentinel: from.clone(),
                    why: why.clone(),
                })
            }
        };
        let why = match failure {
            SentinelFailure::Unreachable { why } => why,
            SentinelFailure::NotASentinel => "this is not a Sentinel".to_owned(),
        };
        self.mark(Witness::Sentinel(from.clone()), format!("no answer: {why}"));
        if let Some(sentinel) = self.sentinels.get_mut(from) {
            sentinel.missed(self.now, why);
        }
        if let Some(note) = note {
            self.note(note);
        }
    }

    /// Takes a node's word.
    pub(super) fn learn_node(&mut self, addr: &NodeAddr, answer: NodeAnswer) {
        let is_master = self.is_master(addr);
        let Some(node) = self.nodes.get_mut(addr) else {
            return;
        };
        let Some(asked) = node.ask.answered() else {
            return;
        };
        // No other node gains by it: what was never proven, or was left, is not proven by silence.
        let busy_master = answer.role == NodeRole::Busy && is_master;
        if busy_master && node.stays_as_it_was(self.now, asked) {
            self.mark(
                Witness::Node(addr.clone()),
                format!("ROLE: {}", answer.role),
            );
            return;
        }
        let is_now_master = matches!(answer.role, NodeRole::Master { .. });
        let says = format!("ROLE: {}", answer.role);
        let untold = match &answer.role {
            NodeRole::Untold { why } => Some(why.clone()),
            NodeRole::Master { .. }
            | NodeRole::Replica { .. }
            | NodeRole::NotData
            | NodeRole::Busy => None,
        };
        let restarted = node.answered(self.now, asked, answer);
        if is_master
            && is_now_master
            && let Some(offset) = node.offset()
        {
            self.progress.note(addr, asked, offset);
        }
        self.names.learn_run_id(addr, node.run_id.as_deref());
        self.mark(Witness::Node(addr.clone()), says);
        if !self.is_master(addr) {
            self.learn_replica(addr);
            self.learn_promotion(addr, asked);
            return;
        }
        if restarted && is_now_master {
            self.note(Note::MasterRestarted {
                master: addr.clone(),
            });
        }
        if is_now_master && self.demoted_heard.is_some_and(|heard| asked >= heard) {
            self.demoted_heard = None;
        }
        match untold {
            Some(why) if !self.noted.untold => {
                self.noted.untold = true;
                self.note(Note::RoleUntold {
                    node: addr.clone(),
                    why,
                });
            }
            Some(_) => {}
            None => self.noted.untold = false,
        }
    }

    /// Takes that a node did not answer.
    pub(super) fn miss_node(&mut self, addr: &NodeAddr, failure: NodeFailure, dice: u32) {
        let urgent = self.is_urgent(addr);
        let pause = Backoff::new(FIRST_PAUSE, NODE_PAUSE_MAX);
        let Some(node) = self.nodes.get_mut(addr) else {
            return;
        };
        let pause = |failures| {
            if urgent {
                FIRST_PAUSE
            } else {
                pause.delay(failures, dice)
            }
        };
        if node.ask.failed(self.now, pause).is_none() {
            return;
        }
        if matches!(failure, NodeFailure::NoAnswer) {
            // Slow or silent: the next answer tells.
            node.ask.want();
        }
        node.missed(self.now, failure);
        let says = format!("ROLE: {}", node.last_words());
        self.mark(Witness::Node(addr.clone()), says);
    }

    /// Learns other Sentinels from the views, once the configured ones have been heard.
    fn learn_sentinels(&mut self) {
        if !self.discovered() {
            return;
        }
        self.drop_doubles();
        let known_id = |id: &Option<String>| {
            let same = |other: &Sentinel| id.is_some() && other.id == *id;
            self.sentinels.values().any(|other| other.up && same(other))
        };
        let mut found: Vec<(NodeAddr, Option<String>)> = Vec::new();
        let views = self
            .sentinels
            .values()
            .filter_map(|sentinel| sentinel.view());
        for entry in views
            .flat_map(|view| &view.sentinels)
            .filter(|each| !known_id(&each.id))
        {
            let Some(addr) = &entry.addr else { continue };
            let known = self
                .sentinels
                .keys()
                .chain(found.iter().map(|(addr, _)| addr))
                .any(|key| self.names.same_place(key, addr));
            if !known {
                found.push((addr.clone(), entry.id.clone()));
            }
        }
        let learned = self
            .sentinels
            .values()
            .filter(|sentinel| !sentinel.seed)
            .count();
        for (addr, id) in found
            .into_iter()
            .take(LEARNED_SENTINELS_MAX.saturating_sub(learned))
        {
            self.note(Note::SentinelLearned {
                sentinel: addr.clone(),
            });
            self.add_sentinel(addr.clone(), false);
            if let Some(sentinel) = self.sentinels.get_mut(&addr) {
                // It may be one of those that are known, at an address where it cannot be reached.
                sentinel.id = id;
            }
        }
    }

    /// Drops learned Sentinels that turn out to be another one under a second address.
    fn drop_doubles(&mut self) {
        let double = self.sentinels.iter().find(|(addr, learned)| {
            let twin = |(other_addr, other): (&NodeAddr, &Sentinel)| {
                let same = other_addr != *addr && learned.id.is_some() && other.id == learned.id;
                same && other.up && (other.seed || !learned.up || other_addr < *addr)
            };
            !learned.seed && self.sentinels.iter().any(twin)
        });
        if let Some(addr) = double.map(|(addr, _)| addr.clone()) {
            self.forget_sentinel(&addr);
        }
    }

    pub(super) fn forget_sentinel(&mut self, addr: &NodeAddr) {
        if self.sentinels.remove(addr).is_some() {
            for node in self.nodes.values_mut() {
                node.listings.remove(addr);
            }
            self.actions.push_back(Action::DropSentinel(addr.clone()));
            self.note(Note::SentinelForgotten {
                sentinel: addr.clone(),
            });
        }
    }

    /// A Sentinel on another host that announces a loopback address means itself, not us.
    fn reject_loopback(&mut self, from: &NodeAddr, view: &mut View) {
        if self.names.is_loopback(from) != Some(false) {
            return;
        }
        let mut rejected = None;
        let mut check = |addr: &mut Option<NodeAddr>| {
            let loops = |found: &NodeAddr| self.names.is_loopback(found) == Some(true);
            if addr.as_ref().is_some_and(loops) {
                rejected = addr.take();
            }
        };
        view.replicas
            .iter_mut()
            .for_each(|replica| check(&mut replica.addr));
        view.sentinels
            .iter_mut()
            .for_each(|sentinel| check(&mut sentinel.addr));
        check(&mut view.master);
        let Some(sentinel) = self.sentinels.get_mut(from) else {
            return;
        };
        let noted = mem::replace(&mut sentinel.noted.loopback, rejected.is_some());
        if let Some(announced) = rejected.filter(|_| !noted) {
            self.note(Note::LoopbackRejected {
                sentinel: from.clone(),
                announced,
            });
        }
    }

    fn learn_hold(&mut self) {
        let views = self
            .sentinels
            .values()
            .filter_map(|sentinel| sentinel.view());
        let told = views
            .filter_map(|view| view.entry.as_ref()?.down_after)
            .max();
        if let Some(down_after) = told {
            self.down_after = Some(down_after);
            self.hold = self.settings.hold.time(self.down_after);
        }
    }

    /// Whether one more node can be known, or this one is already.
    pub(super) fn has_room_for(&self, addr: &NodeAddr) -> bool {
        self.nodes.len() < NODES_MAX || self.nodes.contains_key(addr)
    }

    /// The same for one that lives: one that is dead makes room for it. Returns whether one did.
    pub(super) fn make_room_for(&mut self, addr: &NodeAddr) -> bool {
        if self.has_room_for(addr) {
            return true;
        }
        let mut nodes = self.nodes.iter();
        let dead = nodes.find(|(addr, node)| node.is_down() && !self.is_urgent(addr));
        let dead = dead.map(|(addr, _)| addr.clone());
        if let Some(addr) = &dead {
            self.nodes.remove(addr);
            self.actions.push_back(Action::DropNode(addr.clone()));
        }
        dead.is_some()
    }

    /// Whether a node is asked fast and without growing pauses: everything waits for it.
    fn is_urgent(&self, addr: &NodeAddr) -> bool {
        self.is_master(addr) || self.urgent().any(|target| target == addr)
    }

    /// Nodes that Sentinels, or the configuration, name as master and that are not it yet.
    pub(super) fn targets(&self) -> impl Iterator<Item = &NodeAddr> {
        self.named().iter().filter(|node| !self.is_master(node))
    }

    /// Nodes whose role is to be known soon: those, and who was ordered to become a master.
    pub(super) fn urgent(&self) -> impl Iterator<Item = &NodeAddr> {
        let sentinels = self.sentinels.values();
        let failovers = sentinels.filter_map(|sentinel| sentinel.failover.as_ref());
        let ordered = failovers.filter_map(|failover| failover.promotion.as_ref());
        self.targets()
            .chain(ordered.map(|promotion| &promotion.candidate))
    }
}

/// The gist of a view for the flight recorder.
fn said(view: &View) -> String {
    match (&view.master, &view.entry) {
        (Some(master), Some(entry)) => {
            let step = match entry.failover {
                FailoverStep::None => String::new(),
                step => format!(", failover {step:?}"),
            };
            let down = match (entry.flags.s_down, entry.flags.o_down) {
                (_, true) => ", o_down",
                (true, false) => ", s_down",
                (false, false) => "",
            };
            format!(
                "master is {master}, epoch {}{down}{step}",
                entry.epoch.get()
            )
        }
        (None, _) if !view.known => "does not know this name".to_owned(),
        _ => "knows no address".to_owned(),
    }
}

impl Node {
    /// Whether some Sentinel lists it as a replica.
    pub(super) fn is_listed(&self) -> bool {
        !self.listings.is_empty()
    }

    /// Whether every Sentinel that lists it takes it for down, and nobody has a use for it.
    fn is_down(&self) -> bool {
        let down = |listing: &Listing| listing.verdict == Err(Ejection::SentinelSaysDown);
        !self.serving && self.master_since.is_none() && self.listings.values().all(down)
    }
}
