//! Floor 1. The way back, and the end: unpause, release, and what to say of it.
//! Knows that nothing may be left as it is only because something failed.

use std::mem;

use super::{Pause, Phase, Switchover, Undoing};
use crate::switchover::{
    Action, Answer, Failure, Fork, Group, Outcome, Question, Report, StepName,
};
use crate::types::Time;

impl Switchover {
    /// The step that is being taken, while there is a way forth.
    pub(super) fn step(&self) -> Option<StepName> {
        match &self.phase {
            Phase::Quieting => Some(StepName::Hold),
            Phase::Pausing => Some(StepName::Pause),
            Phase::Measuring => Some(StepName::Offset),
            Phase::CatchingUp(_) => Some(StepName::Replicas),
            Phase::Commanding(_) => Some(StepName::Failover),
            Phase::Proving => Some(StepName::Proof),
            Phase::Leaving(_) | Phase::Undoing(_) | Phase::Ended(_) => None,
        }
    }

    /// A deadline has passed.
    pub(super) fn late(&mut self) {
        let waited = "within the time that there is";
        let why = match &self.phase {
            Phase::Quieting => format!(
                "not all workers were quiet {waited}: the master owes a client a reply, \
                 perhaps to a script that runs long"
            ),
            Phase::CatchingUp(replicas) => {
                let behind = replicas.iter().filter_map(|(node, each)| {
                    let missing = each.missing.as_ref()?;
                    Some(format!("{node}: {missing}"))
                });
                behind.collect::<Vec<_>>().join("; ")
            }
            Phase::Proving => format!("no new master was proven {waited}"),
            Phase::Pausing | Phase::Measuring | Phase::Commanding(_) => {
                format!("no answer {waited}")
            }
            Phase::Leaving(leaving) => {
                let to = leaving.to.clone();
                self.demoted(&to, Err(Failure::Unclear("no answer".to_owned())));
                return self.end();
            }
            Phase::Undoing(_) => return self.end(),
            Phase::Ended(_) => return,
        };
        if let Some(step) = self.step() {
            self.give_up(step, why);
        }
    }

    pub(super) fn give_up(&mut self, step: StepName, reason: String) {
        self.done(step, format!("given up: {reason}"));
        self.deadline = self.now + self.limits.wind_up;
        let retry = None;
        self.phase = Phase::Undoing(Undoing {
            step,
            reason,
            retry,
        });
        if let (Pause::Until(_), Some(node)) = (self.pause, self.old.clone()) {
            self.ask(Question::Unpause { node });
        }
        if step == StepName::Check {
            return self.end();
        }
        self.actions.push_back(Action::Release);
        self.look_back();
    }

    pub(super) fn unpaused(&mut self, result: &Result<Answer, Failure>) {
        let again = self.now + self.limits.pace * 10;
        let retry = match &mut self.phase {
            Phase::Leaving(leaving) => &mut leaving.retry,
            Phase::Undoing(undoing) => &mut undoing.retry,
            _ => return,
        };
        match result {
            Ok(_) => {
                self.pause = Pause::Over;
                self.done(StepName::Unpause, "writes are taken again".to_owned());
            }
            Err(_) => *retry = Some(again),
        }
    }

    /// Tries again what must not be left undone, and ends when everything is in order.
    pub(super) fn look_back(&mut self) {
        let now = self.now;
        let due = |retry: &mut Option<Time>| retry.take_if(|at| *at <= now).is_some();
        let again = match &mut self.phase {
            Phase::Leaving(leaving) => due(&mut leaving.retry),
            Phase::Undoing(undoing) => due(&mut undoing.retry),
            _ => return,
        };
        if let (true, Some(node)) = (again, self.old.clone()) {
            self.ask(Question::Unpause { node });
        }
        let unpaused = !matches!(self.pause, Pause::Until(_));
        let flows = matches!(self.picture.group, Group::Writable(_));
        let over = match &self.phase {
            Phase::Leaving(leaving) => leaving.fork.is_some() && leaving.demoted && unpaused,
            Phase::Undoing(_) => unpaused && (flows || !self.held),
            _ => false,
        };
        if over {
            self.end();
        }
    }

    pub(super) fn end(&mut self) {
        let outcome = match &self.phase {
            Phase::Leaving(leaving) => Outcome::Switched {
                from: self.old.clone().unwrap_or_else(|| leaving.to.clone()),
                to: leaving.to.clone(),
                fork: leaving.fork.unwrap_or(Fork::Unseen),
            },
            Phase::Undoing(undoing) => Outcome::GaveUp {
                step: undoing.step,
                reason: undoing.reason.clone(),
                state: self.state(),
            },
            _ => return,
        };
        match (&outcome, self.left_paused()) {
            (Outcome::GaveUp { state, .. }, _) if self.held => {
                self.done(StepName::Release, state.clone());
            }
            (Outcome::Switched { .. }, Some(left)) => self.done(StepName::Unpause, left),
            _ => {}
        }
        let steps = mem::take(&mut self.steps);
        self.phase = Phase::Ended(Some(Report { steps, outcome }));
    }

    /// How things are left after giving up.
    pub(super) fn state(&self) -> String {
        let mut state = match &self.picture.group {
            Group::Writable(master) => format!("writes flow to {master}"),
            Group::Held { master, .. } => format!(
                "writes are still held: {master} or its Sentinels do not confirm that it goes on"
            ),
            Group::Unknown => "no master is known".to_owned(),
        };
        if let Some(left) = self.left_paused() {
            state.push_str("; ");
            state.push_str(&left);
        }
        if self.commanded {
            state.push_str("; Sentinel was told to fail over and may still do so");
        }
        state
    }

    /// What to say if the old master was left paused.
    pub(super) fn left_paused(&self) -> Option<String> {
        let (Pause::Until(end), Some(node)) = (self.pause, &self.old) else {
            return None;
        };
        let left = end.since(self.now).as_secs() + 1;
        Some(format!(
            "{node} does not confirm CLIENT UNPAUSE; it goes on by itself within {left} s"
        ))
    }
}
