//! Floor 1. The way forth: each answer, and the step that follows it.
//! Knows that nothing is asked before everything that it stands on is known.

use std::collections::BTreeMap;

use super::{Leaving, Pause, Phase, Progress, Switchover};
use crate::switchover::{
    Action, Answer, Failure, Fork, Group, PAUSE_MARGIN, Question, Replication, StepName,
};
use crate::types::NodeAddr;

impl Switchover {
    pub(super) fn begin(&mut self) {
        let Group::Writable(master) = self.picture.group.clone() else {
            let why = "there is no writable master: a switch is under way, or none is known yet";
            return self.give_up(StepName::Check, why.to_owned());
        };
        self.old = Some(master.clone());
        let (replicas, sentinels) = (self.picture.candidates.len(), self.picture.sentinels.len());
        if sentinels == 0 {
            let why = "no Sentinel answers that could be asked to fail over";
            return self.give_up(StepName::Check, why.to_owned());
        }
        if replicas == 0 {
            let why = "no replica may be promoted: Sentinel lists none that is alive \
                       with a slave-priority other than 0";
            return self.give_up(StepName::Check, why.to_owned());
        }
        self.done(
            StepName::Check,
            format!("master {master}, replicas to choose from: {replicas}"),
        );
        let until = self.now + self.limits.total + self.limits.wind_up;
        self.actions.push_back(Action::Hold { until });
    }

    /// Goes on as far as what is known allows.
    pub(super) fn look(&mut self) {
        if self.stands() {
            match &self.phase {
                Phase::Quieting => self.look_quiet(),
                Phase::CatchingUp(_) => self.look_replicas(),
                _ => {}
            }
        }
        self.look_back();
    }

    /// Whether writes are still held for us. The new master is what we wait for in the end, and
    /// a surprise before.
    pub(super) fn stands(&mut self) -> bool {
        let Some(step) = self.step() else {
            return false;
        };
        let (old, told) = (self.old.clone(), self.commanded);
        match self.picture.group.clone() {
            Group::Held { master, .. } if Some(&master) == old.as_ref() => {
                self.held = true;
                return true;
            }
            // The order to hold is on its way.
            Group::Writable(master) if Some(&master) == old.as_ref() && !self.held => return true,
            Group::Writable(master) if Some(&master) == old.as_ref() => {
                self.give_up(step, "writes were not held any more".to_owned());
            }
            Group::Writable(to) if told => self.leave(to),
            Group::Writable(to) | Group::Held { master: to, .. } => {
                self.give_up(step, format!("another switch came first, to {to}"));
            }
            Group::Unknown => self.give_up(step, "the master is not known any more".to_owned()),
        }
        false
    }

    pub(super) fn look_quiet(&mut self) {
        if let Group::Held {
            master,
            quiet: true,
        } = self.picture.group.clone()
        {
            self.done(
                StepName::Hold,
                "writes are held, nothing is in flight".to_owned(),
            );
            let left = self.end_of_all().since(self.now);
            let time = left + PAUSE_MARGIN;
            self.pause = Pause::Until(self.now + time + self.limits.order);
            self.turn(Phase::Pausing, self.limits.order);
            self.ask(Question::Pause { node: master, time });
        }
    }

    pub(super) fn paused(&mut self, result: Result<Answer, Failure>) {
        if !matches!(self.phase, Phase::Pausing) {
            return;
        }
        match (result, self.old.clone()) {
            (Ok(_), Some(node)) => {
                self.done(
                    StepName::Pause,
                    format!("{node} takes no writes from anybody"),
                );
                self.turn(Phase::Measuring, self.limits.order);
                self.ask(Question::Replication { node });
            }
            (Ok(_), None) => {}
            (Err(why), _) => self.give_up(StepName::Pause, format!("CLIENT PAUSE: {why}")),
        }
    }

    pub(super) fn replication(&mut self, node: &NodeAddr, result: Result<Answer, Failure>) {
        let told = match result {
            Ok(Answer::Replication(told)) => Ok(told),
            Ok(Answer::Done) => Err(Failure::Unclear("it does not tell".to_owned())),
            Err(why) => Err(why),
        };
        let next = self.now + self.limits.pace;
        match &mut self.phase {
            Phase::Measuring if self.old.as_ref() == Some(node) => self.measured(told),
            Phase::CatchingUp(replicas) => {
                if let (Some(progress), Some(end)) = (replicas.get_mut(node), &self.end) {
                    progress.asking = false;
                    progress.due = next;
                    progress.missing = missing(&told, end);
                }
            }
            Phase::Leaving(leaving) if leaving.to == *node && leaving.fork.is_none() => {
                let (fork, detail) = judge(&told, self.end.as_ref());
                leaving.fork = Some(fork);
                self.done(StepName::Fork, detail);
            }
            _ => {}
        }
    }

    pub(super) fn measured(&mut self, told: Result<Replication, Failure>) {
        match told {
            Ok(told) if told.is_master && !told.id.is_empty() => {
                self.done(
                    StepName::Offset,
                    format!("{} of {}", told.offset, brief(&told.id)),
                );
                self.end = Some((told.id, told.offset));
                self.turn(Phase::CatchingUp(BTreeMap::new()), self.limits.catch_up);
            }
            Ok(_) => self.give_up(StepName::Offset, "it is no master any more".to_owned()),
            Err(why) => self.give_up(StepName::Offset, format!("INFO replication: {why}")),
        }
    }

    /// Asks those that are behind; goes on when nobody is.
    pub(super) fn look_replicas(&mut self) {
        let (now, candidates) = (self.now, self.picture.candidates.clone());
        let Phase::CatchingUp(replicas) = &mut self.phase else {
            return;
        };
        replicas.retain(|node, _| candidates.contains(node));
        let mut questions = Vec::new();
        for node in &candidates {
            let progress = replicas.entry(node.clone()).or_insert_with(|| Progress {
                asking: false,
                due: now,
                missing: Some("not asked yet".to_owned()),
            });
            if !progress.asking && progress.missing.is_some() && progress.due <= now {
                progress.asking = true;
                questions.push(Question::Replication { node: node.clone() });
            }
        }
        let behind = replicas.values().any(|each| each.missing.is_some());
        let names: Vec<String> = replicas.keys().map(ToString::to_string).collect();
        for question in questions {
            self.ask(question);
        }
        if candidates.is_empty() {
            let why = "no replica may be promoted any more";
            self.give_up(StepName::Replicas, why.to_owned());
        } else if !behind {
            let detail = format!("nothing is missing at {}", names.join(", "));
            self.done(StepName::Replicas, detail);
            let sentinels = self.picture.sentinels.iter().cloned().collect();
            self.turn(Phase::Commanding(sentinels), self.limits.order * 3);
            self.command("no Sentinel answers");
        }
    }

    /// Tells the next Sentinel; `why` the last one could not be told.
    pub(super) fn command(&mut self, why: &str) {
        let Phase::Commanding(left) = &mut self.phase else {
            return;
        };
        match left.pop_front() {
            Some(sentinel) => {
                self.commanded = true;
                self.ask(Question::Failover { sentinel });
            }
            None => self.give_up(StepName::Failover, why.to_owned()),
        }
    }

    pub(super) fn told(&mut self, sentinel: &NodeAddr, result: Result<Answer, Failure>) {
        if !matches!(self.phase, Phase::Commanding(_)) {
            return;
        }
        let detail = match result {
            Ok(_) => format!("{sentinel} begins"),
            Err(Failure::Unclear(why)) => format!("{sentinel} may have begun: {why}"),
            Err(Failure::NotSent(why)) => {
                self.commanded = false;
                return self.command(&format!("{sentinel}: {why}"));
            }
            Err(Failure::Refused(why)) => {
                self.commanded = false;
                return self.give_up(StepName::Failover, format!("{sentinel}: {why}"));
            }
        };
        self.done(StepName::Failover, detail);
        self.turn(Phase::Proving, self.limits.total);
    }

    /// The new master is proven and writes flow.
    pub(super) fn leave(&mut self, to: NodeAddr) {
        let Some(node) = self.old.clone() else { return };
        if matches!(self.phase, Phase::Commanding(_)) {
            self.done(
                StepName::Failover,
                "it happens before it is answered".to_owned(),
            );
        }
        self.done(StepName::Proof, format!("{to} is master, writes flow"));
        self.deadline = self.now + self.limits.wind_up;
        let leaving = Leaving {
            to: to.clone(),
            fork: None,
            demoted: false,
            retry: None,
        };
        self.phase = Phase::Leaving(leaving);
        self.ask(Question::Demote {
            node,
            to: to.clone(),
        });
        self.ask(Question::Replication { node: to });
    }

    pub(super) fn demoted(&mut self, to: &NodeAddr, result: Result<Answer, Failure>) {
        let (Phase::Leaving(leaving), Some(node)) = (&mut self.phase, self.old.clone()) else {
            return;
        };
        if leaving.demoted {
            return;
        }
        leaving.demoted = true;
        let detail = match result {
            Ok(_) => format!("{node} follows {to}"),
            Err(why) => format!(
                "REPLICAOF: {why}; until Sentinel demotes {node}, about 10 s, \
                 what is written to it directly will be lost"
            ),
        };
        self.done(StepName::Demote, detail);
        self.ask(Question::Unpause { node });
    }
}

/// What a replica lacks of `end`, if anything.
fn missing(told: &Result<Replication, Failure>, end: &(String, u64)) -> Option<String> {
    let (id, offset) = end;
    match told {
        Err(why) => Some(why.to_string()),
        Ok(told) if told.is_master => Some("it calls itself master".to_owned()),
        Ok(told) if told.id != *id => Some("it follows another history".to_owned()),
        Ok(told) if told.offset < *offset => Some(format!(
            "{} bytes behind",
            offset.saturating_sub(told.offset)
        )),
        Ok(_) => None,
    }
}

/// Whether the new master's history begins behind `end`.
fn judge(told: &Result<Replication, Failure>, end: Option<&(String, u64)>) -> (Fork, String) {
    match (told, end) {
        (Ok(told), Some((id, offset))) => {
            let first = told.left_at.unwrap_or(0);
            let detail = format!("new history from {first} of {}", brief(&told.left));
            if told.left == *id && first > *offset {
                (Fork::Held, format!("{detail}: nothing is missing"))
            } else {
                let want = format!("{} of {}", offset.saturating_add(1), brief(id));
                (
                    Fork::Broken,
                    format!("{detail}, not from {want} or later: WRITES ARE MISSING"),
                )
            }
        }
        (Err(why), _) => (Fork::Unseen, format!("INFO replication: {why}")),
        (Ok(_), None) => (Fork::Unseen, "nothing to compare with".to_owned()),
    }
}

/// The beginning of a replication id, which is enough for people.
fn brief(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
