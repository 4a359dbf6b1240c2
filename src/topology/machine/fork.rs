//! Floor 1. Where the master's history ends, and whether the next one goes on from there.
//! Knows offsets and replication ids; what workers do with a reply that lies behind is theirs.
//!
//! ```text
//!   old master   ────────────────┬─────────┬──────────► until somebody demotes it
//!                          begin ┘         └ end: every worker was quiet before it was asked
//!   new master   ──────────────────────────────┬──────► its own history
//!                                              └ fork: the first byte of the old one that it lacks
//! ```
//!
//! What was acknowledged before the hold lies before `begin`. What was in flight then, and is kept
//! back by the workers, lies before `end`. It is known to be safe when every node that may win has
//! all up to `end`, or when the new master tells that its fork lies behind.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Machine;
use super::State;
use super::peers::Node;
use crate::topology::incident::{Cause, Witness};
use crate::topology::snapshot::Acks;
use crate::topology::view::NodeRole;
use crate::types::{NodeAddr, Replication, Time};

/// How long replicas are asked again and again whether they have caught up; after that at the pace
/// of a switch. One that lags by more has lost the race with its promotion.
const HASTE: Duration = Duration::from_secs(1);

/// For how long a node that could be chosen may win: Sentinel's default `failover-timeout`.
const FAILOVER_MAX: Duration = Duration::from_secs(180);

/// What is known of the old master's history during a hold.
#[derive(Debug)]
pub(super) struct Fork {
    /// Whether workers keep replies to writes back.
    keeps: bool,
    /// Where the master stood when the hold began, or at its last word before.
    begin: Option<Position>,
    /// When the last worker became quiet.
    quiet: Option<Time>,
    /// Where it stood after that.
    end: Option<Position>,
    /// Whether those who may be chosen have everything up to `end`.
    safe: bool,
}

/// A place in a history.
#[derive(Clone, Debug)]
struct Position {
    /// `master_replid`.
    id: String,
    /// The last byte.
    offset: u64,
    /// When the question was asked.
    asked: Time,
}

impl Fork {
    /// At the beginning of a hold, with what `master` last said.
    pub(super) fn new(master: Option<&Node>) -> Self {
        let said = master.and_then(|node| node.answer.as_ref());
        let begin = said.and_then(|said| Position::of(said.asked, said.replication.as_ref()?));
        Self {
            keeps: false,
            begin,
            quiet: None,
            end: None,
            safe: false,
        }
    }

    fn acks(&self) -> Acks {
        match (self.keeps, self.safe) {
            (false, _) => Acks::Given,
            (true, false) => Acks::Kept,
            (true, true) => Acks::Settled,
        }
    }
}

impl Position {
    fn of(asked: Time, told: &Replication) -> Option<Self> {
        told.is_master.then(|| Self {
            id: told.id.clone(),
            offset: told.offset,
            asked,
        })
    }

    /// The first byte of this history that the master `told` does not have, if it came from it.
    fn left_at(&self, told: &Replication) -> Option<u64> {
        (told.is_master && told.left == self.id)
            .then_some(told.left_at)
            .flatten()
    }

    /// Whether `told` has everything up to here.
    fn is_reached(&self, told: &Replication) -> bool {
        let follows = !told.is_master && told.id == self.id && told.offset >= self.offset;
        follows || self.left_at(told).is_some_and(|first| first > self.offset)
    }
}

impl Machine {
    /// Takes in what the master and those who may replace it have told since.
    pub(super) fn watch_fork(&mut self) {
        let (now, workers) = (self.now, self.settings.workers);
        let suspected = !self.is_static() && self.is_suspected();
        let told = self.master_node().and_then(Node::replication);
        let position = told.and_then(|(asked, told)| Position::of(asked, told));
        let State::Switching(hold) = &mut self.state else {
            return;
        };
        let fork = &mut hold.fork;
        let newly_quiet = fork.quiet.is_none() && hold.quiet.len() >= workers;
        if newly_quiet {
            fork.quiet = Some(now);
        }
        let mut ended = false;
        if let Some(position) = position {
            let fresh = |since: Time| position.asked >= since;
            if fork
                .begin
                .as_ref()
                .is_none_or(|begin| begin.asked < hold.since)
                && fresh(hold.since)
            {
                fork.begin = Some(position.clone());
            }
            ended = fork.end.is_none() && fork.quiet.is_some_and(fresh);
            if ended {
                fork.end = Some(position);
            }
        }
        // Where the master may not be asked, nothing could ever be given again.
        fork.keeps |= suspected && fork.begin.is_some();
        if newly_quiet {
            self.want_master();
        }
        if ended {
            self.mark(
                Witness::Switchman,
                "nothing is in flight, and the end is known".to_owned(),
            );
        }
        self.look_for_laggards(ended);
        if let State::Switching(hold) = &self.state {
            self.acks = hold.fork.acks();
        }
    }

    /// Nodes that may be the next master. A replica that one Sentinel has chosen leaves the others
    /// in: another Sentinel may choose again, and it is not known which of them wins. So does one
    /// that is down now, or not listed any more: it may have been promoted before, or come back. A
    /// Sentinel that is behind names one that the others will list, and may choose, in a moment.
    fn successors(&self) -> BTreeSet<NodeAddr> {
        let nodes = self.nodes.iter();
        let fit = nodes.filter(|(_, node)| node.may_reign(self.now, FAILOVER_MAX));
        let fit = fit.map(|(addr, _)| addr.clone());
        let votes = self.votes().into_iter();
        let named = votes.map(|vote| vote.node.clone());
        let all = fit.chain(named);
        all.filter(|addr| !self.is_master(addr)).collect()
    }

    /// Asks those who may be chosen until they have everything.
    fn look_for_laggards(&mut self, ended: bool) {
        let State::Switching(hold) = &self.state else {
            return;
        };
        let (Some(end), Some(quiet), false) = (&hold.fork.end, hold.fork.quiet, hold.fork.safe)
        else {
            return;
        };
        let candidates = self.successors();
        let has_all = |addr: &NodeAddr| {
            let told = self.node(addr).and_then(Node::replication);
            told.is_some_and(|(_, told)| end.is_reached(told))
        };
        let behind: Vec<_> = candidates.iter().filter(|addr| !has_all(addr)).collect();
        if candidates.is_empty() {
            return;
        }
        if !behind.is_empty() {
            if ended || self.now.since(quiet) < HASTE {
                for addr in behind.into_iter().cloned().collect::<Vec<_>>() {
                    self.want_node(&addr);
                }
            }
            return;
        }
        if let State::Switching(hold) = &mut self.state {
            hold.fork.safe = true;
        }
        let names: Vec<_> = candidates.iter().map(ToString::to_string).collect();
        let what = format!("everything up to there is at {}", names.join(", "));
        self.mark(Witness::Switchman, what);
    }

    /// Whether the end of the old master's history is known, or cannot be.
    pub(super) fn is_measured(&self) -> bool {
        let State::Switching(hold) = &self.state else {
            return true;
        };
        let fork = &hold.fork;
        let tells = self
            .master_node()
            .is_some_and(|node| matches!(node.role(), Some(NodeRole::Master { .. })));
        !fork.keeps || fork.end.is_some() || !tells || self.now >= self.overdue_at(hold)
    }

    /// `target` becomes the master in use: decides what becomes of the replies that are kept back.
    /// Returns how many bytes from before the hold it lacks, where that can be told.
    pub(super) fn judge_fork(&mut self, target: &NodeAddr) -> Option<u64> {
        let State::Switching(hold) = &self.state else {
            return None;
        };
        let fork = &hold.fork;
        let told = self.node(target).and_then(Node::replication);
        let told = told.map(|(_, told)| told);
        let reached = |position: &Position| told.is_some_and(|told| position.is_reached(told));
        let safe = fork.safe || fork.end.as_ref().is_some_and(reached);
        let acks = match (fork.keeps, safe) {
            (false, _) => Acks::Given,
            (true, true) => Acks::Settled,
            (true, false) => Acks::Doubtful,
        };
        let begin = fork.begin.as_ref();
        let first = begin
            .zip(told)
            .and_then(|(begin, told)| begin.left_at(told));
        let lacks =
            |(begin, first): (&Position, u64)| begin.offset.saturating_add(1).saturating_sub(first);
        let forked = begin.zip(first).map(lacks);
        self.acks = acks;
        if acks == Acks::Doubtful {
            let what = format!("replies kept back are in doubt: {target} may lack what they say");
            self.mark(Witness::Switchman, what);
        }
        forked
    }

    /// Whether the master may be replaced by a node that does not have everything. While writes
    /// are only held by command, whoever commands sees to it that it has.
    fn is_suspected(&self) -> bool {
        match &self.state {
            State::Switching(hold) => {
                hold.cause != Cause::Switchover || self.failover_cause().is_some()
            }
            State::Unknown | State::Stable => false,
        }
    }

    /// The memory of `addr`, under whichever of its addresses it is known.
    fn node(&self, addr: &NodeAddr) -> Option<&Node> {
        let same = || {
            self.nodes
                .iter()
                .find(|(key, _)| self.names.same(key, addr))
        };
        self.nodes
            .get(addr)
            .or_else(|| same().map(|(_, node)| node))
    }

    fn want_node(&mut self, addr: &NodeAddr) {
        let names = &self.names;
        let mut known = self.nodes.iter_mut();
        if let Some((_, node)) = known.find(|(key, _)| names.same(key, addr)) {
            node.ask.want();
        }
    }
}
