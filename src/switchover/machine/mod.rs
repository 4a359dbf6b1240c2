//! Floor 1. The machine of one planned failover; the picture is in the module's header.
//! Knows what may follow what; every failure leads to the way back.

mod back;
mod forth;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::switchover::{
    Action, Answer, Failure, Fork, Limits, Picture, Question, Report, Step, StepName,
};
use crate::types::{NodeAddr, Time};

/// One planned failover.
#[derive(Debug)]
pub struct Switchover {
    limits: Limits,
    started: Time,
    now: Time,
    /// The end of the current step.
    deadline: Time,
    picture: Picture,
    /// The master at the start.
    old: Option<NodeAddr>,
    held: bool,
    pause: Pause,
    /// The end of all that was acknowledged: replication id and offset.
    end: Option<(String, u64)>,
    /// Whether a Sentinel may have been told.
    commanded: bool,
    phase: Phase,
    steps: Vec<Step>,
    actions: VecDeque<Action>,
}

/// Whether the old master is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// It was never asked for.
    Never,
    /// It was asked for, and holds at most until then.
    Until(Time),
    /// It is over.
    Over,
}

#[derive(Debug)]
enum Phase {
    Quieting,
    Pausing,
    Measuring,
    CatchingUp(BTreeMap<NodeAddr, Progress>),
    /// Asking a Sentinel; those left are asked if it cannot be reached.
    Commanding(VecDeque<NodeAddr>),
    Proving,
    Leaving(Leaving),
    Undoing(Undoing),
    Ended(Option<Report>),
}

/// One replica on its way to the master's offset.
#[derive(Debug)]
struct Progress {
    /// Whether a question to it is open.
    asking: bool,
    /// When the next one is due.
    due: Time,
    /// What is missing, `None` when nothing is.
    missing: Option<String>,
}

/// The new master is proven; the old one is put in order.
#[derive(Debug)]
struct Leaving {
    to: NodeAddr,
    fork: Option<Fork>,
    demoted: bool,
    retry: Option<Time>,
}

/// The way back.
#[derive(Debug)]
struct Undoing {
    step: StepName,
    reason: String,
    retry: Option<Time>,
}

// Constructor and inputs.
impl Switchover {
    /// Begins with a group as in `picture`.
    pub fn new(now: Time, limits: Limits, picture: Picture) -> Self {
        let mut machine = Self {
            limits,
            started: now,
            now,
            deadline: now + limits.quiet.min(limits.total),
            picture,
            old: None,
            held: false,
            pause: Pause::Never,
            end: None,
            commanded: false,
            phase: Phase::Quieting,
            steps: Vec::new(),
            actions: VecDeque::new(),
        };
        machine.begin();
        machine
    }

    /// The group looks so now.
    pub fn handle_picture(&mut self, now: Time, picture: Picture) {
        self.now = self.now.max(now);
        if self.picture != picture {
            self.picture = picture;
            self.look();
        }
    }

    /// Writes cannot be held.
    pub fn handle_hold_refused(&mut self, now: Time, why: &str) {
        self.now = self.now.max(now);
        if matches!(self.phase, Phase::Quieting) {
            self.give_up(StepName::Hold, why.to_owned());
        }
    }

    /// A question was answered, or not. An answer that nobody waits for any more changes nothing.
    pub fn handle_answer(
        &mut self,
        now: Time,
        question: &Question,
        result: Result<Answer, Failure>,
    ) {
        self.now = self.now.max(now);
        match question {
            Question::Pause { .. } => self.paused(result),
            Question::Unpause { .. } => self.unpaused(&result),
            Question::Replication { node } => self.replication(node, result),
            Question::Failover { sentinel } => self.told(sentinel, result),
            Question::Demote { to, .. } => self.demoted(to, result),
        }
        self.look();
    }

    /// It is time for something that [`Switchover::poll_timeout`] has named.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.now >= self.deadline {
            self.late();
        }
        self.look();
    }
}

// Outputs.
impl Switchover {
    /// The next thing to do; call until `None` after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Switchover::handle_timeout`] is to be called; `None` once it has ended.
    pub fn poll_timeout(&self) -> Option<Time> {
        let retry = match &self.phase {
            Phase::Ended(_) => return None,
            Phase::CatchingUp(replicas) => {
                let waiting = replicas.values().filter(|each| !each.asking);
                let behind = waiting.filter(|each| each.missing.is_some());
                behind.map(|each| each.due).min()
            }
            Phase::Leaving(leaving) => leaving.retry,
            Phase::Undoing(undoing) => undoing.retry,
            Phase::Quieting
            | Phase::Pausing
            | Phase::Measuring
            | Phase::Commanding(_)
            | Phase::Proving => None,
        };
        retry.into_iter().chain([self.deadline]).min()
    }

    /// The master that may be paused, and would be left so if nothing more were done.
    pub fn left_to_unpause(&self) -> Option<&NodeAddr> {
        match self.pause {
            Pause::Until(_) => self.old.as_ref(),
            Pause::Never | Pause::Over => None,
        }
    }

    /// What came of it, once, when it has ended.
    pub fn poll_report(&mut self) -> Option<Report> {
        match &mut self.phase {
            Phase::Ended(report) => report.take(),
            _ => None,
        }
    }
}

// What both ways use.
impl Switchover {
    fn end_of_all(&self) -> Time {
        self.started + self.limits.total
    }

    fn turn(&mut self, phase: Phase, limit: Duration) {
        self.phase = phase;
        self.deadline = (self.now + limit).min(self.end_of_all());
    }

    fn ask(&mut self, question: Question) {
        self.actions.push_back(Action::Ask(question));
    }

    fn done(&mut self, name: StepName, detail: String) {
        let at = self.now.since(self.started);
        self.steps.push(Step { name, at, detail });
    }
}
