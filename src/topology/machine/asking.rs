//! Floor 1. Whom to ask when: paces by phase, what is due, what has expired.
//! Knows no reason for a question, only its pace.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Machine;
use super::State;
use super::peers::Node;
use crate::topology::action::{Action, Note};
use crate::topology::view::{NodeFailure, NodeRole, SentinelFailure};
use crate::types::{NodeAddr, Time};

/// Host names looked up at most: more than there are nodes and Sentinels.
const HOSTS_MAX: usize = 1024;
/// The dice for answers that were lost: they come one by one, no herd gathers around them.
const NO_DICE: u32 = 0;

impl Machine {
    /// Begins every question that is due, and takes note of when the next one will be.
    pub(super) fn ask_due(&mut self) {
        let now = self.now;
        let mut next = None;
        let mut due_now = |(addr, due): (&NodeAddr, Time)| {
            if due > now {
                next = Some(next.map_or(due, |next: Time| next.min(due)));
            }
            (due <= now).then(|| addr.clone())
        };
        let sentinels: Vec<_> = self.due_sentinels().filter_map(&mut due_now).collect();
        let nodes: Vec<_> = self.due_nodes().filter_map(&mut due_now).collect();
        self.questions_due = next;
        for addr in sentinels {
            if let Some(sentinel) = self.sentinels.get_mut(&addr) {
                sentinel.ask.begin(now);
                self.actions.push_back(Action::AskSentinel(addr));
            }
        }
        for addr in nodes {
            if let Some(node) = self.nodes.get_mut(&addr) {
                node.ask.begin(now);
                self.actions.push_back(Action::AskNode(addr));
            }
        }
        self.look_up();
    }

    /// When the next question is due. Those that run are due again once they are answered.
    pub(super) fn next_due(&self) -> Option<Time> {
        let pace = self.settings.timings.resolve;
        let hosts = self.hosts.values().filter(|host| !host.running);
        let lookups = hosts.map(|host| host.asked.map_or(Time::ZERO, |asked| asked + pace));
        self.questions_due.into_iter().chain(lookups).min()
    }

    /// When something else comes to its end: an answer owed, the wait of this phase.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        let timings = &self.settings.timings;
        let sentinels = self.sentinels.values().map(|sentinel| &sentinel.ask);
        let nodes = self.nodes.values().map(|node| &node.ask);
        let lost = sentinels
            .chain(nodes)
            .filter_map(|ask| ask.lost_at(timings.lost));
        let waits = match &self.state {
            State::Unknown => [
                self.first_view.map(|first| first + timings.settle),
                self.first_vote.map(|first| first + timings.minority),
            ],
            State::Stable => [None, None],
            State::Switching(hold) => [Some(self.overdue_at(hold)), None],
        };
        let waits = waits.into_iter().flatten();
        lost.chain(waits.filter(|end| *end > self.now))
            .chain(self.commanded)
            .chain(self.majority_due())
            .min()
    }

    /// Longest pause before the next question to a Sentinel that does not answer.
    pub(super) fn sentinel_pause(&self) -> Duration {
        match &self.state {
            State::Stable if self.settings.strict_quorum.is_none() => {
                self.settings.timings.poll_idle
            }
            State::Stable | State::Unknown | State::Switching(_) => {
                self.settings.timings.poll_trouble
            }
        }
    }

    /// Lets everything expire whose time has come.
    pub(super) fn expire(&mut self) {
        self.expire_answers();
        self.expire_failovers();
        self.examine_claims();
        self.expire_command();
        self.forget();
    }

    fn due_sentinels(&self) -> impl Iterator<Item = (&NodeAddr, Time)> {
        let pace = Some(self.sentinel_pace());
        let sentinels = self.sentinels.iter();
        sentinels.filter_map(move |(addr, sentinel)| Some((addr, sentinel.ask.due(pace)?)))
    }

    fn due_nodes(&self) -> impl Iterator<Item = (&NodeAddr, Time)> {
        let targets: Vec<_> = self.urgent().collect();
        self.nodes.iter().filter_map(move |(addr, node)| {
            let pace = self.node_pace(addr, node, targets.contains(&addr));
            Some((addr, node.ask.due(pace)?))
        })
    }

    fn sentinel_pace(&self) -> Duration {
        let timings = &self.settings.timings;
        match &self.state {
            State::Stable if self.now < self.trouble_until => timings.poll_trouble,
            State::Stable => timings.poll_idle,
            State::Unknown | State::Switching(_) => self.urgent_pace(),
        }
    }

    fn node_pace(&self, addr: &NodeAddr, node: &Node, target: bool) -> Option<Duration> {
        let timings = &self.settings.timings;
        let holding = !matches!(self.state, State::Stable);
        let worth_asking = node.serving || node.listings.values().any(|it| it.verdict.is_ok());
        if target || (holding && self.is_master(addr)) {
            Some(self.urgent_pace())
        } else if self.is_master(addr) {
            Some(timings.check_master)
        } else if holding && worth_asking {
            Some(self.urgent_pace())
        } else if worth_asking || (node.is_listed() && node.master_since.is_some()) {
            Some(timings.check_replica)
        } else {
            // Dead entries, which Sentinel never forgets, are asked about when it has news of them.
            None
        }
    }

    /// Fast at first; whoever has waited for long can wait a little longer.
    fn urgent_pace(&self) -> Duration {
        let timings = &self.settings.timings;
        let since = match &self.state {
            State::Switching(hold) => hold.since,
            State::Unknown => self.first_view.unwrap_or(self.started),
            State::Stable => self.now,
        };
        if self.now.since(since) < timings.patience {
            timings.poll_switch
        } else {
            timings.poll_trouble
        }
    }

    /// Looks up the names in use, and forgets those that are not.
    fn look_up(&mut self) {
        let now = self.now;
        let master_of = |node| match Node::role(node) {
            Some(NodeRole::Replica {
                master: Some(master),
                ..
            }) => Some(master),
            _ => None,
        };
        let masters = self.nodes.values().filter_map(master_of);
        let addrs = self.sentinels.keys().chain(self.nodes.keys());
        let names = addrs.chain(masters).filter(|addr| addr.ip().is_none());
        let used: BTreeSet<String> = names.map(|addr| addr.host().to_owned()).collect();
        let nodes = &self.nodes;
        self.names
            .retain(|host| used.contains(host), |addr| nodes.contains_key(addr));
        if used.is_empty() && self.hosts.is_empty() {
            return;
        }
        self.hosts.retain(|name, _| used.contains(name));
        for name in used {
            if self.hosts.len() < HOSTS_MAX {
                self.hosts.entry(name).or_default();
            }
        }
        let pace = self.settings.timings.resolve;
        for (name, host) in &mut self.hosts {
            if !host.running && host.asked.is_none_or(|asked| asked + pace <= now) {
                host.running = true;
                host.asked = Some(now);
                self.actions.push_back(Action::Resolve(name.clone()));
            }
        }
    }

    fn expire_answers(&mut self) {
        let now = self.now;
        let lost = self.settings.timings.lost;
        let is_lost = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let sentinels: Vec<NodeAddr> = self
            .sentinels
            .iter()
            .filter(|(_, sentinel)| is_lost(sentinel.ask.lost_at(lost)))
            .map(|(addr, _)| addr.clone())
            .collect();
        let nodes: Vec<NodeAddr> = self
            .nodes
            .iter()
            .filter(|(_, node)| is_lost(node.ask.lost_at(lost)))
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in sentinels {
            let failure = SentinelFailure::Unreachable {
                why: "the answer was lost".to_owned(),
            };
            self.miss_view(&addr, failure, NO_DICE);
        }
        for addr in nodes {
            self.miss_node(&addr, NodeFailure::NoAnswer, NO_DICE);
        }
    }

    /// A leader that is gone leads no more, as far as the others can tell; when all are gone, only
    /// after the longest of all waits.
    fn expire_failovers(&mut self) {
        let now = self.now;
        let timings = self.settings.timings;
        let any_up = self.sentinels.values().any(|sentinel| sentinel.up);
        let limit = if any_up { timings.sign } else { timings.escape };
        for sentinel in self.sentinels.values_mut().filter(|sentinel| !sentinel.up) {
            if now.since(sentinel.down_since) >= limit
                && sentinel
                    .failover
                    .as_ref()
                    .is_some_and(|heard| now.since(heard.heard) >= limit)
            {
                sentinel.failover = None;
            }
        }
    }

    /// A replica that calls itself master for a while, without any Sentinel leading a failover and
    /// with most of them naming the master in use, will be a replica again.
    fn examine_claims(&mut self) {
        let now = self.now;
        let wait = self.settings.timings.sign;
        if self.failover_cause().is_some() || self.naming_current() * 2 <= self.sentinels.len() {
            return;
        }
        let confirmed = self
            .sentinels
            .values()
            .filter(|sentinel| sentinel.up)
            .all(|sentinel| {
                sentinel
                    .seen
                    .as_ref()
                    .is_some_and(|seen| now.since(seen.asked) < wait)
            });
        let mut rogues = Vec::new();
        for (addr, node) in &mut self.nodes {
            let claims = node
                .master_since
                .is_some_and(|since| now.since(since) >= wait);
            let unexamined = node.was_replica && !node.rogue && node.is_listed();
            if confirmed && claims && unexamined && self.master.as_ref() != Some(addr) {
                node.rogue = true;
                rogues.push(addr.clone());
            }
        }
        for node in rogues {
            self.note(Note::RogueMaster { node });
        }
    }

    fn forget(&mut self) {
        let now = self.now;
        let timings = self.settings.timings;
        let is_old = |node: &Node| {
            !node.is_listed() && now.since(node.unlisted_since) >= timings.forget_replica
        };
        let old = self.nodes.iter().filter(|(_, node)| is_old(node));
        let old = old.filter(|(addr, _)| self.master.as_ref() != Some(addr));
        let old = old.filter(|(addr, _)| self.urgent().all(|urgent| urgent != *addr));
        let gone: Vec<NodeAddr> = old.map(|(addr, _)| addr.clone()).collect();
        for addr in gone {
            self.nodes.remove(&addr);
            self.actions.push_back(Action::DropNode(addr));
        }
        let listed = |addr: &NodeAddr| {
            let views = self
                .sentinels
                .values()
                .filter_map(|sentinel| sentinel.view());
            let mut entries = views.flat_map(|view| &view.sentinels);
            entries.any(|entry| entry.addr.as_ref() == Some(addr))
        };
        let gone: Vec<NodeAddr> = self
            .sentinels
            .iter()
            .filter(|(addr, sentinel)| {
                let silent = !sentinel.up && sentinel.tried();
                let old = now.since(sentinel.down_since) >= timings.forget_sentinel;
                !sentinel.seed && silent && old && !listed(addr)
            })
            .map(|(addr, _)| addr.clone())
            .collect();
        for addr in gone {
            self.forget_sentinel(&addr);
        }
    }
}
