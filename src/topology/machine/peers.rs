//! Floor 1. What is remembered of one Sentinel and of one node.
//! Knows how answers and silence change a memory, and nothing of the group as a whole.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ask::Ask;
use super::nearness::Trips;
use crate::topology::report::Outlier;
use crate::topology::status::{Ejection, Subscription};
use crate::topology::view::{NodeAnswer, NodeFailure, NodeRole, View};
use crate::types::{NodeAddr, Replication, Time};

/// Answers that a replica must give before it serves again after it had failed to.
const PROBATION: u8 = 2;
/// Questions without an answer, in a row, after which a node counts as silent.
const SILENT_AFTER: u32 = 2;

/// One Sentinel.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one peer"
)]
pub(super) struct Sentinel {
    pub(super) seed: bool,
    pub(super) ask: Ask,
    pub(super) id: Option<String>,
    pub(super) seen: Option<Seen>,
    /// Whether it answered the last question.
    pub(super) up: bool,
    pub(super) down_since: Time,
    pub(super) error: Option<String>,
    pub(super) failures: u64,
    pub(super) subscription: Subscription,
    pub(super) s_down: bool,
    pub(super) o_down: bool,
    pub(super) tilt: bool,
    /// The failover of the master in use that it leads or tries to lead.
    pub(super) failover: Option<Failover>,
    pub(super) noted: Noted,
}

/// The last view of a Sentinel.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) view: View,
    pub(super) asked: Time,
    pub(super) at: Time,
}

/// A failover that one Sentinel leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failover {
    pub(super) heard: Time,
    /// Commanded, so that no election can fail.
    pub(super) manual: bool,
    /// Elected: it goes on to the promotion.
    pub(super) decided: bool,
    /// The promotion, once it is ordered. Sentinel orders it once (Redis sentinel.c,
    /// `sentinelFailoverSendSlaveOfNoOne`).
    pub(super) promotion: Option<Promotion>,
}

/// The order to become a master, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Promotion {
    pub(super) candidate: NodeAddr,
    pub(super) heard: Time,
    /// The candidate has said since that it is a master.
    obeyed: bool,
    /// And then that it follows the master in use again: another Sentinel has undone it.
    undone: bool,
}

impl Failover {
    /// Whether it comes to nothing, though its leader does not know it yet.
    pub(super) fn is_undone(&self) -> bool {
        self.promotion.as_ref().is_some_and(|it| it.undone)
    }
}

impl Promotion {
    pub(super) const fn new(candidate: NodeAddr, heard: Time) -> Self {
        Self {
            candidate,
            heard,
            obeyed: false,
            undone: false,
        }
    }

    /// Takes the candidate's word, to a question of time `asked`. `follows`: it is a replica of the
    /// master in use, in touch with it.
    pub(super) fn answered(&mut self, asked: Time, role: &NodeRole, follows: bool) {
        match role {
            NodeRole::Master { .. } if asked >= self.heard => {
                self.obeyed = true;
                self.undone = false;
            }
            NodeRole::Replica { .. } => self.undone |= self.obeyed && follows,
            _ => {}
        }
    }
}

/// What was logged of a Sentinel and shall not be logged again while it lasts.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one peer"
)]
pub(super) struct Noted {
    pub(super) down: bool,
    pub(super) not_a_sentinel: bool,
    pub(super) name_unknown: bool,
    pub(super) loopback: bool,
}

/// One node: the master, a candidate or a replica.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one peer"
)]
pub(super) struct Node {
    pub(super) ask: Ask,
    /// Its last answer, however old.
    pub(super) answer: Option<Answer>,
    /// Why the last question was not answered, if it was not.
    pub(super) failure: Option<NodeFailure>,
    /// Its last word was that it runs a script; `answer` is what it said of its role before that.
    busy: bool,
    silent: u32,
    /// A worker has trouble with it: one unanswered question then is enough.
    pub(super) suspect: bool,
    pub(super) run_id: Option<String>,
    /// Since when it has answered as a master without a break.
    pub(super) master_since: Option<Time>,
    lost_at: Option<Time>,
    /// How long the last break in its answers was.
    pub(super) outage: Duration,
    /// It has answered as a replica since it was last the master in use: if it answers as a master
    /// now, it became one. A left master that has not been told yet did not.
    pub(super) was_replica: bool,
    /// It calls itself master, and its claim was examined and turned down.
    pub(super) rogue: bool,
    /// It became a master by a restart, not by a promotion.
    pub(super) restarted_as_master: bool,
    /// What each Sentinel that lists it as a replica says of it.
    pub(super) listings: BTreeMap<NodeAddr, Listing>,
    pub(super) unlisted_since: Time,
    /// When it was last told that it may be the next master: a Sentinel has chosen it, may choose
    /// it, or names it.
    pub(super) fit_at: Option<Time>,
    /// Whether it serves reads.
    pub(super) serving: bool,
    pub(super) ejection: Option<Ejection>,
    /// Good answers still owed.
    pub(super) probation: u8,
    /// Since when its link to the master has been bad, while it serves.
    pub(super) link_bad: Option<Time>,
    /// How far behind the master it was when it was last asked.
    pub(super) lag_time: Option<Duration>,
    pub(super) trips: Trips,
    /// Its zone, if it tells.
    pub(super) zone: Option<String>,
    /// Why a worker leaves it alone, and until when.
    pub(super) outlier: Option<(Outlier, Time)>,
}

/// What one Sentinel says of a replica.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) verdict: Result<(), Ejection>,
    /// The master that it follows, as that Sentinel was told.
    pub(super) master: Option<NodeAddr>,
}

/// An answer of a node.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) role: NodeRole,
    pub(super) replication: Option<Replication>,
    pub(super) asked: Time,
    pub(super) at: Time,
}

impl Sentinel {
    /// Whether it has been heard, or has failed to be: then it need not be waited for.
    pub(super) fn tried(&self) -> bool {
        self.seen.is_some() || self.ask.failures() > 0
    }

    /// Its view, while it answers.
    pub(super) fn view(&self) -> Option<&View> {
        self.seen
            .as_ref()
            .filter(|_| self.up)
            .map(|seen| &seen.view)
    }

    /// Takes note of a failover that it leads.
    pub(super) fn leads(&mut self, now: Time, manual: bool, decided: bool) {
        let before = self.failover.take();
        let before = before.as_ref();
        self.failover = Some(Failover {
            heard: now,
            manual: manual || before.is_some_and(|before| before.manual),
            decided: decided || before.is_some_and(|before| before.decided),
            promotion: before.and_then(|before| before.promotion.clone()),
        });
    }

    /// Takes its answer to a question of time `asked`.
    pub(super) fn saw(&mut self, now: Time, asked: Time, view: View) {
        self.tilt = view.tilt;
        if let Some(entry) = &view.entry {
            self.s_down = entry.flags.s_down;
            self.o_down = entry.flags.o_down;
        }
        if view.id.is_some() {
            self.id.clone_from(&view.id);
        }
        self.seen = Some(Seen {
            view,
            asked,
            at: now,
        });
        self.up = true;
        self.error = None;
    }

    /// Takes that it gave none.
    pub(super) fn missed(&mut self, now: Time, why: String) {
        if self.up || self.error.is_none() {
            self.down_since = now;
        }
        self.up = false;
        self.error = Some(why);
        self.failures += 1;
    }
}

impl Node {
    /// A node that is not listed yet. What Sentinels held of it before is not known, whatever they
    /// say now: one may have chosen it just then.
    pub(super) fn new(now: Time) -> Self {
        Self {
            unlisted_since: now,
            fit_at: Some(now),
            ..Self::default()
        }
    }

    /// Whether it was ever asked, and has answered or failed to.
    pub(super) const fn is_heard(&self) -> bool {
        self.answer.is_some() || self.failure.is_some()
    }

    /// Its role, if it answered the last question.
    pub(super) fn role(&self) -> Option<&NodeRole> {
        let answer = self.answer.as_ref().filter(|_| self.failure.is_none())?;
        Some(&answer.role)
    }

    /// Where it stands in which history, and when it was asked, if it answered the last question.
    pub(super) fn replication(&self) -> Option<(Time, &Replication)> {
        let answer = self.answer.as_ref().filter(|_| self.failure.is_none())?;
        Some((answer.asked, answer.replication.as_ref()?))
    }

    /// Whether it may become the master, or has, by what Sentinels and itself have told within
    /// `memory`.
    pub(super) fn may_reign(&self, now: Time, memory: Duration) -> bool {
        let reigned = self
            .answer
            .as_ref()
            .filter(|answer| matches!(answer.role, NodeRole::Master { .. }));
        let told = self.fit_at.max(reigned.map(|answer| answer.at));
        told.is_some_and(|at| now.since(at) < memory)
    }

    /// When it was asked the question to which it last answered that it is a master.
    pub(super) fn proven(&self) -> Option<Time> {
        let answer = self.answer.as_ref().filter(|_| self.failure.is_none())?;
        matches!(answer.role, NodeRole::Master { .. }).then_some(answer.asked)
    }

    /// Takes its answer to a question of time `asked`. Returns whether its process is another one
    /// than before.
    pub(super) fn answered(&mut self, now: Time, asked: Time, answer: NodeAnswer) -> bool {
        let restarted = match (&self.run_id, &answer.run_id) {
            (Some(before), Some(after)) => before != after,
            _ => false,
        };
        if answer.run_id.is_some() {
            self.run_id = answer.run_id;
            self.zone = answer.zone;
        }
        self.trips.note(now.since(asked));
        match &answer.role {
            NodeRole::Master { .. } => {
                self.master_since.get_or_insert(now);
                self.restarted_as_master |= restarted;
            }
            NodeRole::Replica { .. } => {
                self.master_since = None;
                self.was_replica = true;
                self.rogue = false;
                self.restarted_as_master = false;
            }
            NodeRole::NotData | NodeRole::Busy | NodeRole::Untold { .. } => {
                self.master_since = None;
            }
        }
        self.spoke(now);
        self.busy = answer.role == NodeRole::Busy;
        self.answer = Some(Answer {
            role: answer.role,
            replication: answer.replication,
            asked,
            at: now,
        });
        restarted
    }

    /// Takes that it is busy, to a question of time `asked`: its role is the one that it told last.
    /// Returns false where it has told none.
    ///
    /// That cannot keep a write on the wrong node: as long as a node is busy nobody's write is
    /// executed there, and nobody can demote it. One that was demoted just before, or restarted as
    /// a replica, says `-READONLY` to the first write afterwards; and a newer view of the Sentinels
    /// asks for the proof of another node, not for this one's.
    pub(super) fn stays_as_it_was(&mut self, now: Time, asked: Time) -> bool {
        let Some(answer) = &mut self.answer else {
            return false;
        };
        answer.asked = asked;
        answer.at = now;
        self.spoke(now);
        self.busy = true;
        true
    }

    /// Takes that it lives.
    fn spoke(&mut self, now: Time) {
        if let Some(lost_at) = self.lost_at.take() {
            self.outage = now.since(lost_at);
        }
        self.failure = None;
        self.silent = 0;
        self.suspect = false;
    }

    /// Takes that it gave none.
    pub(super) fn missed(&mut self, now: Time, failure: NodeFailure) {
        self.silent = match failure {
            NodeFailure::NoAnswer => self.silent.saturating_add(1),
            NodeFailure::NoConnection { .. } => 0,
        };
        self.lost_at.get_or_insert(now);
        self.master_since = None;
        self.failure = Some(failure);
    }

    /// Whether its last word was that it runs a script.
    pub(super) fn is_busy(&self) -> bool {
        self.busy && self.failure.is_none()
    }

    /// Whether it cannot be connected to.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.failure, Some(NodeFailure::NoConnection { .. }))
    }

    /// Whether it is silent, and not by one slow command only. Trouble that others have with it
    /// (`hint`) makes one unanswered question enough.
    pub(super) fn is_silent(&self, hint: bool) -> bool {
        let enough = if hint || self.suspect {
            1
        } else {
            SILENT_AFTER
        };
        self.silent >= enough
    }

    /// Its replication offset by its last answer.
    pub(super) fn offset(&self) -> Option<u64> {
        match &self.answer.as_ref()?.role {
            NodeRole::Master { offset } | NodeRole::Replica { offset, .. } => Some(*offset),
            NodeRole::NotData | NodeRole::Busy | NodeRole::Untold { .. } => None,
        }
    }

    /// Takes the judgement whether it may serve reads; returns whether that is a change.
    pub(super) fn judged(&mut self, judgement: Result<(), Ejection>) -> bool {
        let served = self.serving;
        self.serving = judgement.is_ok();
        self.ejection = judgement.err();
        match self.ejection {
            // After a failure of its own it must show that it has recovered for good.
            Some(Ejection::Unreachable | Ejection::LinkDown | Ejection::Lagging) if served => {
                self.probation = PROBATION;
            }
            Some(_) => {}
            None => self.link_bad = None,
        }
        served != self.serving
    }

    /// Why it is not proven to be master, in words.
    pub(super) fn last_words(&self) -> String {
        match (&self.failure, &self.answer) {
            (Some(NodeFailure::NoConnection { why }), _) => why.clone(),
            (Some(NodeFailure::NoAnswer), _) => "no answer in time".to_owned(),
            (None, None) => "not asked yet".to_owned(),
            (None, Some(_)) if self.busy => NodeRole::Busy.to_string(),
            (None, Some(answer)) => answer.role.to_string(),
        }
    }
}
