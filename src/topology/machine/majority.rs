//! Floor 1. How many of the Sentinels answer, and since when too few do.
//! Knows nothing of what they name.

use std::collections::BTreeSet;

use super::Machine;
use super::State;
use super::peers::Sentinel;
use crate::topology::action::Note;
use crate::topology::status::Majority;
use crate::types::{NodeAddr, Time};

impl Machine {
    /// How many Sentinels there are, and how many of them answer; `None` in a static group.
    ///
    /// One with two addresses counts once. One that is dead counts until it is forgotten, as the
    /// others count it too when they elect a leader. One that does not know our name has no say.
    pub(super) fn majority(&self) -> Option<Majority> {
        if self.is_static() {
            return None;
        }
        let (mut known, mut answering) = (BTreeSet::new(), BTreeSet::new());
        for (addr, sentinel) in &self.sentinels {
            let who = identity(addr, sentinel);
            known.insert(who);
            if sentinel.view().is_some_and(|view| view.known) {
                answering.insert(who);
            }
        }
        Some(Majority {
            answering: answering.len(),
            known: known.len(),
            strict: self.settings.strict_quorum,
        })
    }

    /// Whether commands for the master must wait because too few Sentinels answer: whoever has the
    /// others may have replaced the master.
    pub(super) fn lacks_majority(&self) -> bool {
        let Some(patience) = self.settings.strict_quorum else {
            return false;
        };
        match &self.state {
            // Nothing is known of the time before.
            State::Unknown => self.majority().is_some_and(|it| !it.is_reached()),
            State::Stable | State::Switching(_) => self
                .minority_since
                .is_some_and(|since| self.now.since(since) >= patience),
        }
    }

    /// When too few Sentinels will have answered for too long.
    pub(super) fn majority_due(&self) -> Option<Time> {
        let due = self.minority_since? + self.settings.strict_quorum?;
        (due > self.now).then_some(due)
    }

    /// Takes note of when the majority goes and comes.
    pub(super) fn watch_majority(&mut self) {
        let Some(majority) = self.majority().filter(|_| self.discovered()) else {
            return;
        };
        let Majority {
            answering, known, ..
        } = majority;
        if !majority.is_reached() {
            if self.minority_since.is_none() {
                self.minority_since = Some(self.now);
                self.note(Note::MajorityLost { answering, known });
            }
        } else if self.minority_since.is_some() {
            if self.lacks_majority() {
                // What happened meanwhile they tell now, and the master has to prove itself anew.
                self.sign();
                self.want_all_sentinels();
            }
            self.minority_since = None;
            self.note(Note::MajorityBack { answering, known });
        }
    }
}

/// What is the same for a Sentinel under two addresses.
fn identity<'a>(
    addr: &'a NodeAddr,
    sentinel: &'a Sentinel,
) -> (Option<&'a str>, Option<&'a NodeAddr>) {
    match &sentinel.id {
        Some(id) => (Some(id), None),
        None => (None, Some(addr)),
    }
}
