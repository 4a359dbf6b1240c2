//! Floor 1. What is decided: when to hold, with whom to go on, when to go on with the old master.
//! Knows only what is in memory; every rule looks at all of it.

use std::collections::BTreeSet;
use std::slice;

use super::Machine;
use super::NotedGroup;
use super::State;
use super::Switching;
use super::choose::{Choice, Vote, choose};
use super::fork::Fork;
use super::peers::{Failover, Node, Sentinel};
use crate::topology::action::Note;
use crate::topology::incident::{Cause, Outcome, Witness};
use crate::topology::settings::Source;
use crate::topology::snapshot::Acks;
use crate::topology::view::NodeRole;
use crate::types::{ConfigEpoch, NodeAddr, Time};

/// Longest paces of questions for which a proof stays fresh: one may be slow, one may be lost.
const PROOF_PACES: u32 = 3;

/// A proven master that is not the one in use.
struct Target {
    node: NodeAddr,
    epoch: ConfigEpoch,
}

impl Machine {
    /// Compares what the Sentinels name with what is in use.
    pub(super) fn compare_views(&mut self) {
        if self.is_static() {
            return;
        }
        self.watch_majority();
        let votes = self.votes();
        let anybody = !votes.is_empty();
        let in_use = self.master.as_ref().map(|master| (master, self.epoch));
        self.choice = choose(&votes, in_use, &self.names);
        if anybody {
            self.first_vote.get_or_insert(self.now);
        }
        for node in self.named().to_vec() {
            // Under this very address: it is the one that would be published, so it is the one to
            // be proven, even where the node is known under another.
            let named = self
                .nodes
                .entry(node)
                .or_insert_with(|| Node::new(self.now));
            named.fit_at = Some(self.now);
        }
        self.watch_doubt();
        self.watch_regression();
        self.watch_difference();
    }

    /// One step of the picture in the header. Returns whether it was taken.
    pub(super) fn step(&mut self) -> bool {
        match &self.state {
            State::Unknown => self.find_first(),
            State::Stable => {
                self.adopt_epoch();
                match self.cause() {
                    Some(cause) => self.begin_hold(cause),
                    None => false,
                }
            }
            State::Switching(_) => {
                self.adopt_epoch();
                if let Some(target) = self.target().filter(|_| !self.lacks_majority()) {
                    self.remember_proof();
                    self.is_drained() && self.is_measured() && self.switch_to(target)
                } else {
                    self.may_release() && self.release()
                }
            }
        }
    }

    /// Nodes that may be the master, by the word of the Sentinels or of the configuration.
    pub(super) fn named(&self) -> &[NodeAddr] {
        match &self.choice {
            Choice::Newer { nodes, .. } | Choice::Older { nodes, .. } => nodes,
            Choice::Contested { other, .. } => slice::from_ref(other),
            Choice::Current { .. } => &[],
            Choice::Nothing => match &self.settings.source {
                Source::Static { master, .. } => slice::from_ref(master),
                Source::Sentinels(_) => &[],
            },
        }
    }

    /// Whether all Sentinels were heard or tried, or the first has answered long enough ago.
    pub(super) fn discovered(&self) -> bool {
        let settled = self.settings.timings.settle;
        let waited = self
            .first_view
            .is_some_and(|first| self.now.since(first) >= settled);
        waited || self.sentinels.values().all(Sentinel::tried)
    }

    /// Why writes must be held now, if they must.
    pub(super) fn cause(&self) -> Option<Cause> {
        self.commanded
            .map(|_| Cause::Switchover)
            .or_else(|| self.failover_cause())
            .or_else(|| self.master_cause())
            .or_else(|| self.newer_is_named().then_some(Cause::NewerView))
            .or_else(|| self.replica_is_promoted().then_some(Cause::ReplicaPromoted))
            .or_else(|| self.lacks_majority().then_some(Cause::NoMajority))
    }

    /// A failover that goes on to a promotion whatever our link says.
    pub(super) fn failover_cause(&self) -> Option<Cause> {
        let failovers = || self.failovers().filter(|failover| !failover.is_undone());
        if failovers().any(|failover| failover.manual) {
            Some(Cause::ManualFailover)
        } else if failovers().any(|failover| failover.decided) {
            // An undecided election may come to nothing: a Sentinel's fault is no reason to hold.
            Some(Cause::AutomaticFailover)
        } else {
            None
        }
    }

    /// How many Sentinels that answer name the master in use.
    pub(super) fn naming_current(&self) -> usize {
        let votes = self.votes();
        votes
            .iter()
            .filter(|vote| self.is_master(vote.node))
            .count()
    }

    /// One vote per Sentinel that answers; one with two addresses has one.
    pub(super) fn votes(&self) -> Vec<Vote<'_>> {
        // A handful: looking through them is faster than a set of them.
        let mut ids: Vec<&str> = Vec::new();
        let mut votes = Vec::new();
        for sentinel in self.sentinels.values() {
            let Some((node, epoch)) = sentinel.view().and_then(|view| view.vote()) else {
                continue;
            };
            let id = sentinel.id.as_deref();
            if id.is_none_or(|id| !ids.contains(&id)) {
                ids.extend(id);
                votes.push(Vote { node, epoch });
            }
        }
        votes
    }

    /// Whether fewer than a majority of the Sentinels answer, or all are behind the epoch in use.
    pub(super) fn is_stale(&self) -> bool {
        let older = matches!(self.choice, Choice::Older { .. });
        self.majority().is_some_and(|it| older || !it.is_reached())
    }

    /// Whether nothing is in flight to the old master any more, or has been for too long.
    pub(super) fn is_drained(&self) -> bool {
        match &self.state {
            State::Switching(hold) => {
                hold.quiet.len() >= self.settings.workers || self.now >= self.overdue_at(hold)
            }
            State::Unknown | State::Stable => true,
        }
    }

    /// When replies of the old master are not waited for any more.
    ///
    /// While it lives they may yet come: somebody may have paused it, to demote it as soon as the
    /// new master is proven. What it then turns away was not executed; what is left is in doubt.
    pub(super) fn overdue_at(&self, hold: &Switching) -> Time {
        let lives = self
            .master_node()
            .is_some_and(|node| !node.is_lost() && !node.is_silent(true));
        let from = hold.proven.filter(|_| lives).unwrap_or(hold.since);
        from + self.settings.timings.drain
    }

    fn remember_proof(&mut self) {
        let now = self.now;
        if let State::Switching(hold) = &mut self.state {
            hold.proven.get_or_insert(now);
        }
    }

    /// Whether `node` proved by its last word, not long ago, that it is master.
    pub(super) fn is_proven_now(&self, node: &NodeAddr) -> bool {
        let timings = &self.settings.timings;
        let fresh = timings.check_master.max(timings.poll_trouble) * PROOF_PACES;
        self.proof(node)
            .is_some_and(|asked| self.now.since(asked) <= fresh)
    }

    /// Whether a master is named that is not the one in use, and is no rumour.
    pub(super) fn newer_is_named(&self) -> bool {
        match &self.choice {
            Choice::Newer { .. } => {
                self.master.is_some() && self.doubt.as_ref().is_none_or(|doubt| !doubt.given_up)
            }
            // Decided under a newer epoch, only not yet by whom: the others will tell.
            Choice::Contested { epoch, .. } if *epoch > self.epoch => true,
            Choice::Contested { .. } | Choice::Older { .. } => self.target().is_some(),
            Choice::Nothing | Choice::Current { .. } => false,
        }
    }

    fn failovers(&self) -> impl Iterator<Item = &Failover> {
        let sentinels = self.sentinels.values();
        sentinels.filter_map(|sentinel| sentinel.failover.as_ref())
    }

    /// What the master's own words, or its silence, say.
    fn master_cause(&self) -> Option<Cause> {
        let node = self.master_node()?;
        let demoted = matches!(
            node.role(),
            Some(NodeRole::Replica { .. } | NodeRole::NotData)
        );
        let hinted = self.failovers().next().is_some()
            || self
                .sentinels
                .values()
                .any(|sentinel| sentinel.o_down && !sentinel.tilt);
        if demoted || self.demoted_heard.is_some() {
            Some(Cause::Demoted)
        } else if node.is_lost() {
            Some(Cause::MasterLost)
        } else if node.is_silent(hinted) {
            Some(Cause::MasterSilent)
        } else {
            None
        }
    }

    /// Whether a listed replica calls itself master, and came to it by a promotion.
    fn replica_is_promoted(&self) -> bool {
        !self.is_static()
            && self.nodes.iter().any(|(addr, node)| {
                let claims = matches!(node.role(), Some(NodeRole::Master { .. }));
                let explained = node.rogue || node.restarted_as_master;
                claims
                    && node.was_replica
                    && !explained
                    && node.is_listed()
                    && !self.is_master(addr)
            })
    }

    /// The proven node to go on with, if there is one.
    fn target(&self) -> Option<Target> {
        let proven = |node: &&NodeAddr| !self.is_master(node) && self.is_proven_now(node);
        match &self.choice {
            Choice::Newer { nodes, epoch } => {
                let unheard =
                    |node: &NodeAddr| self.nodes.get(node).is_none_or(|it| !it.is_heard());
                let may_be = |node: &&NodeAddr| proven(node) || unheard(node);
                let mut found = nodes.iter().filter(may_be);
                let node = found.next().filter(proven)?.clone();
                // As many Sentinels for one as for the other, and both say master, or may: wait.
                found.next().is_none().then_some(Target {
                    node,
                    epoch: *epoch,
                })
            }
            Choice::Contested {
                other,
                votes,
                against,
                epoch,
            } => {
                let majority = votes > against && votes * 2 > self.sentinels.len();
                let only_one = votes >= against && !self.current_is_proven();
                let wins = (majority || only_one) && proven(&other);
                wins.then(|| Target {
                    node: other.clone(),
                    epoch: *epoch,
                })
            }
            Choice::Older { nodes, epoch } => {
                let node = nodes.first().filter(|_| nodes.len() == 1).filter(proven)?;
                let escapes = self.regression_is_old() && !self.current_is_proven();
                escapes.then(|| Target {
                    node: node.clone(),
                    epoch: *epoch,
                })
            }
            Choice::Nothing | Choice::Current { .. } => None,
        }
    }

    pub(super) fn current_is_proven(&self) -> bool {
        self.master
            .as_ref()
            .is_some_and(|master| self.is_proven_now(master))
    }

    fn find_first(&mut self) -> bool {
        let found = if self.is_static() {
            let mut named = self.named().iter();
            let proven = named.find(|node| self.is_proven_now(node));
            proven.map(|node| Target {
                node: node.clone(),
                epoch: self.epoch,
            })
        } else {
            // A failover under way ends in another answer: better to begin with that one.
            self.target().filter(|_| {
                self.discovered()
                    && self.too_few_to_begin().is_none()
                    && self.failover_cause().is_none()
                    && !self.lacks_majority()
            })
        };
        let Some(Target { node, epoch }) = found else {
            return false;
        };
        let generation = self.snapshot.generation.next();
        self.mark(Witness::Switchman, format!("{node} is the master"));
        self.note(Note::MasterFound {
            master: node.clone(),
            epoch,
            generation,
        });
        self.state = State::Stable;
        self.take(node, epoch);
        true
    }

    fn begin_hold(&mut self, cause: Cause) -> bool {
        let now = self.now;
        let generation = self.snapshot.generation.next();
        let master = self.master.clone().expect("a stable group has a master");
        self.recorder.open(now, cause, master.clone(), generation);
        self.mark(Witness::Switchman, format!("writes are held: {cause}"));
        self.note(Note::Holding {
            master,
            cause,
            generation,
        });
        let hold = Switching {
            cause,
            since: now,
            last_sign: now,
            generation,
            quiet: BTreeSet::new(),
            proven: None,
            fork: Fork::new(self.master_node()),
        };
        self.state = State::Switching(Box::new(hold));
        self.want_all_sentinels();
        for node in self.nodes.values_mut().filter(|node| node.serving) {
            node.ask.want();
        }
        self.want_master();
        self.trouble();
        self.watch_fork();
        true
    }

    fn switch_to(&mut self, target: Target) -> bool {
        let Target { node, epoch } = target;
        let now = self.now;
        let State::Switching(hold) = &self.state else {
            return false;
        };
        let old = self.master.clone().expect("a master is being left");
        let took = now.since(hold.since);
        let unquiet = self.settings.workers.saturating_sub(hold.quiet.len());
        let generation = self.snapshot.generation.next();
        let (new, from) = (node.clone(), self.epoch);
        let forked = self.judge_fork(&node);
        self.mark(Witness::Switchman, format!("writes go on with {node}"));
        if epoch < from {
            self.note(Note::RegressionAccepted { from, to: epoch });
        }
        self.note(Note::Switched {
            old: old.clone(),
            new,
            epoch,
            generation,
            took,
            unquiet,
        });
        self.recorder.close(Outcome {
            to: node.clone(),
            switched: true,
            epoch,
            took,
            forked,
        });
        self.counts.completed += 1;
        self.counts.last_took = Some(took);
        if let Some(left) = self.nodes.get_mut(&old) {
            left.unlisted_since = now;
        }
        self.state = State::Stable;
        self.take(node, epoch);
        self.want_all_sentinels();
        self.trouble();
        true
    }

    /// Makes `node` the master in use.
    fn take(&mut self, node: NodeAddr, epoch: ConfigEpoch) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.was_replica = false;
            known.rogue = false;
        }
        for sentinel in self.sentinels.values_mut() {
            sentinel.failover = None;
        }
        self.master = Some(node);
        self.epoch = epoch;
        self.demoted_heard = None;
        self.commanded = None;
        self.doubt = None;
        self.regressed_since = None;
        self.noted = NotedGroup::default();
        self.compare_views();
    }

    /// Whether the master in use may be written to again.
    fn may_release(&self) -> bool {
        let State::Switching(hold) = &self.state else {
            return false;
        };
        let Some(master) = &self.master else {
            return false;
        };
        let proven = self
            .proof(master)
            .is_some_and(|asked| asked >= hold.last_sign);
        proven && self.cause().is_none() && (self.is_static() || self.is_witnessed(hold))
    }

    /// Whether Sentinels confirm, after the last sign, that the master in use is still theirs.
    fn is_witnessed(&self, hold: &Switching) -> bool {
        let mut up = self
            .sentinels
            .values()
            .filter(|sentinel| sentinel.up)
            .peekable();
        let nobody = up.peek().is_none();
        let all_asked = up.all(|sentinel| {
            sentinel
                .seen
                .as_ref()
                .is_some_and(|seen| seen.asked >= hold.last_sign)
        });
        let confirmed = matches!(
            self.choice,
            Choice::Current { .. } | Choice::Contested { .. }
        ) && self.naming_current() > 0;
        let doubted = self.doubt.as_ref().is_some_and(|doubt| doubt.given_up);
        if all_asked && !nobody && (confirmed || doubted) {
            return true;
        }
        // Nobody can confirm. A master that was away for less than down-after cannot have been
        // replaced meanwhile; one that was away for longer may be a ghost, which the Sentinels
        // that we do not see would have made a replica within this time.
        let Some(node) = self.master_node() else {
            return false;
        };
        let down_after = self.down_after.unwrap_or(self.settings.timings.doubt);
        let by_link = matches!(hold.cause, Cause::MasterLost | Cause::MasterSilent);
        let short = by_link && node.outage < down_after;
        let long_proven = node
            .master_since
            .is_some_and(|since| self.now.since(since) >= self.settings.timings.escape);
        all_asked && (short || long_proven)
    }

    fn release(&mut self) -> bool {
        let now = self.now;
        let State::Switching(hold) = &self.state else {
            return false;
        };
        let (cause, took) = (hold.cause, now.since(hold.since));
        let master = self.master.clone().expect("a held group has a master");
        let generation = self.snapshot.generation.next();
        self.mark(
            Witness::Switchman,
            format!("writes go on with {master} as before"),
        );
        self.note(Note::Released {
            master: master.clone(),
            cause,
            generation,
            took,
        });
        let epoch = self.epoch;
        self.recorder.close(Outcome {
            to: master,
            switched: false,
            epoch,
            took,
            forked: None,
        });
        self.counts.abandoned += 1;
        self.counts.last_took = Some(took);
        self.acks = Acks::Given;
        self.state = State::Stable;
        self.noted.outside = false;
        true
    }

    /// The master in use under a newer epoch: a failover that came back to it, or a Sentinel that
    /// could not follow. An older one only by the escape.
    fn adopt_epoch(&mut self) {
        match &self.choice {
            Choice::Current { epoch } if *epoch > self.epoch => self.epoch = *epoch,
            Choice::Older { nodes, epoch } if self.regression_is_old() => {
                let (from, to) = (self.epoch, *epoch);
                if nodes.len() == 1 && nodes.iter().all(|node| self.is_master(node)) {
                    self.epoch = to;
                    self.regressed_since = None;
                    self.noted.regressed = false;
                    self.note(Note::RegressionAccepted { from, to });
                    self.compare_views();
                }
            }
            Choice::Nothing
            | Choice::Current { .. }
            | Choice::Newer { .. }
            | Choice::Contested { .. }
            | Choice::Older { .. } => {}
        }
    }
}
