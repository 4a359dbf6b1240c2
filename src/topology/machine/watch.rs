//! Floor 1. What lasts: everybody behind the epoch in use, a named master without proof, views that
//! differ. Knows when each began, and says it once.

use std::mem;

use super::Doubt;
use super::Machine;
use super::choose::Choice;
use super::peers::Node;
use crate::topology::action::Note;
use crate::topology::view::NodeRole;

impl Machine {
    /// Whether it has lasted long enough to escape from the epoch fence.
    pub(super) fn regression_is_old(&self) -> bool {
        let escape = self.settings.timings.escape;
        self.regressed_since
            .is_some_and(|since| self.now.since(since) >= escape)
    }

    /// All who answer, and at least a majority of those configured, are behind the epoch in use.
    pub(super) fn watch_regression(&mut self) {
        let Choice::Older { epoch, .. } = &self.choice else {
            self.regressed_since = None;
            self.noted.regressed = false;
            return;
        };
        let told = *epoch;
        let up = self
            .sentinels
            .values()
            .filter(|sentinel| sentinel.up)
            .count();
        let seeds = self
            .sentinels
            .values()
            .filter(|sentinel| sentinel.seed)
            .count();
        if up * 2 > seeds {
            self.regressed_since.get_or_insert(self.now);
        } else {
            self.regressed_since = None;
        }
        if !self.noted.regressed {
            self.noted.regressed = true;
            self.note(Note::Regressed {
                in_use: self.epoch,
                told,
            });
        }
    }

    /// A newer address whose node does not prove itself must not hold writes for ever.
    pub(super) fn watch_doubt(&mut self) {
        let now = self.now;
        let Choice::Newer { nodes, epoch } = &self.choice else {
            self.doubt = None;
            return;
        };
        let (Some(node), Some(_)) = (nodes.first().cloned(), &self.master) else {
            return;
        };
        let epoch = *epoch;
        let same = |doubt: &Doubt| doubt.node == node && doubt.epoch == epoch;
        if !self.doubt.as_ref().is_some_and(same) || self.is_proven_now(&node) {
            self.doubt = Some(Doubt {
                node,
                epoch,
                since: now,
                given_up: false,
            });
            return;
        }
        let most = self.naming_current() * 2 > self.sentinels.len();
        let vouched = most && self.current_is_proven() && self.failover_cause().is_none();
        if let Some(doubt) = &mut self.doubt
            && !doubt.given_up
            && vouched
            && now.since(doubt.since) >= self.settings.timings.doubt
        {
            doubt.given_up = true;
            self.note(Note::CandidateDoubted { node, epoch });
        }
    }

    /// Loud once, whenever the views begin to differ or the master was changed behind Sentinel.
    pub(super) fn watch_difference(&mut self) {
        let differ = match (&self.choice, &self.master) {
            (Choice::Contested { other, epoch, .. }, Some(current)) => {
                let (current, other) = (current.clone(), other.clone());
                Some(Note::ViewsDiffer {
                    current,
                    other,
                    epoch: *epoch,
                })
            }
            _ => None,
        };
        let noted = mem::replace(&mut self.noted.differ, differ.is_some());
        if let Some(note) = differ.filter(|_| !noted) {
            self.note(note);
        }
        let is_replica = |node: &Node| matches!(node.role(), Some(NodeRole::Replica { .. }));
        let demoted = self.master_node().is_some_and(is_replica);
        let behind = demoted && self.failover_cause().is_none() && !self.newer_is_named();
        if behind && !self.noted.outside {
            self.noted.outside = true;
            let master = self.master.clone().expect("a demoted master is one");
            self.note(Note::ChangedOutsideSentinel { master });
        }
    }
}
