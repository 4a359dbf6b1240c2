//! Floor 1. How many of the Sentinels answer, and since when too few do.
//! Knows nothing of what they name.

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
        let (answering, known) = self.count(|_| true);
        Some(Majority {
            answering,
            known,
            strict: self.settings.strict_quorum,
        })
    }

    /// How many Sentinels of a kind answer, and how many there are.
    fn count(&self, counts: impl Fn(&Sentinel) -> bool) -> (usize, usize) {
        // A handful: looking through them is faster than a set of them.
        let mut known = Vec::with_capacity(self.sentinels.len());
        for (addr, sentinel) in self.sentinels.iter().filter(|(_, it)| counts(it)) {
            let who = identity(addr, sentinel);
            let answers = sentinel.view().is_some_and(|view| view.known);
            match known.iter_mut().find(|(other, _)| *other == who) {
                Some((_, also)) => *also |= answers,
                None => known.push((who, answers)),
            }
        }
        let answering = known.iter().filter(|(_, answers)| *answers);
        (answering.count(), known.len())
    }

    /// At start: how many Sentinels answer, and how many there are, if these are too few to be
    /// believed yet. `None`: the first master may be one that they name.
    ///
    /// A few may be cut off from the others together with an old master, or have lost their memory.
    /// The others get a while to say so. Whether those refuse connections or are silent makes no
    /// difference: it is what Sentinels do that are being started, too.
    pub(super) fn too_few_to_begin(&self) -> Option<Majority> {
        let majority = self.majority()?;
        let patience = self.settings.timings.minority;
        let waited = self
            .first_vote
            .is_some_and(|first| self.now.since(first) >= patience);
        // Dead ones, which the others never forget, must not outvote all that are configured. A
        // single address says nothing of how many there are: it may be a name for all of them.
        let (answering, seeds) = self.count(|sentinel| sentinel.seed);
        let configured = seeds > 1 && answering * 2 > seeds;
        // Nor is one enough that needs others for a quorum and does not know them.
        let views = self.sentinels.values().filter_map(Sentinel::view);
        let entries = views.filter_map(|view| view.entry.as_ref());
        let quorum = entries.map(|entry| entry.quorum).max().unwrap_or(0);
        let quorum = usize::try_from(quorum).unwrap_or(usize::MAX);
        let all = Majority {
            known: majority.known.max(quorum),
            ..majority
        };
        (!waited && !configured && !all.is_reached()).then_some(all)
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
