//! `switchman switchover` as `src/sentinel/planned.rs` runs it: the machine of a planned failover
//! beside the one of the topology; its orders take their way, and may be obeyed late.

use switchman::switchover::{
    Action, Answer, Failure, Fork, Group, Limits, Outcome, Picture, Question, Report, Switchover,
};
use switchman::topology::{Machine, Phase};

use crate::book::{Broken, Id};
use crate::control::QUESTION_TIMEOUT;
use crate::node::Life;
use crate::plan::Micros;
use crate::world::{Event, World, micros};

/// A planned failover under way.
#[derive(Debug)]
pub(crate) struct Planned {
    machine: Switchover,
    /// For when it is woken.
    timer: Micros,
    /// The master at its beginning.
    old: usize,
    /// All that the old master had when a Sentinel was told.
    end: Option<Vec<Id>>,
}

/// A question on its way, or its answer.
pub(crate) type Asked = (Question, Result<Answer, Failure>);

impl World {
    /// Somebody wants the group to be failed over.
    pub(crate) fn switch_over(&mut self) {
        let old = self.control.latest.master.clone();
        let Some(old) = old.and_then(|master| self.names.node(&master)) else {
            return;
        };
        if self.planned.is_some() {
            return;
        }
        let machine = &self.control.machine;
        let limits = Limits::new(machine.snapshot().hold, machine.down_after());
        self.planned = Some(Planned {
            machine: Switchover::new(self.time(), limits, picture(machine)),
            timer: 0,
            old,
            end: None,
        });
        self.drive();
    }

    /// Tells it what the topology machine sees, and does what it wants.
    pub(crate) fn drive(&mut self) {
        let Some(mut planned) = self.planned.take() else {
            return;
        };
        let now = self.time();
        let mut told = true;
        while told {
            told = false;
            let seen = picture(&self.control.machine);
            planned.machine.handle_picture(now, seen);
            if planned.machine.poll_timeout().is_some_and(|due| due <= now) {
                planned.machine.handle_timeout(now);
            }
            while let Some(action) = planned.machine.poll_action() {
                told |= self.follow_planned(&mut planned, action);
            }
        }
        if let Some(report) = planned.machine.poll_report() {
            return self.judge_report(&planned, &report);
        }
        let due = planned.machine.poll_timeout().map_or(self.now, micros);
        let due = due.max(self.now + 1);
        if planned.timer != due {
            planned.timer = due;
            self.at(due, Event::Drive);
        }
        self.planned = Some(planned);
    }

    /// Returns whether the topology machine was told something.
    fn follow_planned(&mut self, planned: &mut Planned, action: Action) -> bool {
        note!(self, "switchover: {action:?}");
        match action {
            Action::Hold { until } => {
                let mut refused = None;
                self.inform(|machine, now| refused = machine.hold(now, until).err());
                if let Some(why) = refused {
                    let now = self.time();
                    planned.machine.handle_hold_refused(now, &why.to_string());
                }
                true
            }
            Action::Release => {
                self.inform(Machine::let_go);
                true
            }
            Action::Ask(question) => {
                if matches!(question, Question::Failover { .. }) {
                    planned.end = Some(self.nodes[planned.old].log.clone());
                }
                let delay = self.control_way();
                self.later(delay, Event::Ordered(Box::new(question)));
                false
            }
        }
    }

    /// A question of a planned failover has reached whom it is for.
    pub(crate) fn ordered_by_plan(&mut self, question: Question) {
        let way = self.control_way();
        let silence = Err(Failure::Unclear("no answer in time".to_owned()));
        let unsent = Err(Failure::NotSent("refused".to_owned()));
        let (delay, answer) = match &question {
            Question::Failover { sentinel } => {
                let at = self.names.sentinel(sentinel).expect("one of this world");
                let told = &self.sentinels[at];
                if told.unseen {
                    (QUESTION_TIMEOUT, silence)
                } else if !told.up {
                    (way, unsent)
                } else if told.tilt || told.is_leading() {
                    (way, Err(Failure::Refused("INPROG".to_owned())))
                } else {
                    self.begin_failover(at, true);
                    (way, Ok(Answer::Done))
                }
            }
            Question::Pause { node, .. }
            | Question::Unpause { node }
            | Question::Replication { node }
            | Question::Demote { node, .. } => {
                let at = self.names.node(node).expect("a node of this world");
                let asked = &mut self.nodes[at];
                match asked.life {
                    _ if asked.cut_off => (QUESTION_TIMEOUT, unsent),
                    Life::Dead => (way, unsent),
                    Life::Frozen => {
                        asked.orders.push(question.clone());
                        (QUESTION_TIMEOUT, silence)
                    }
                    Life::Up => (way, Ok(self.obey(at, &question))),
                }
            }
        };
        self.later(delay, Event::Obeyed(Box::new((question, answer))));
    }

    /// A node does what it is told.
    pub(crate) fn obey(&mut self, at: usize, order: &Question) -> Answer {
        match order {
            Question::Pause { time, .. } => {
                let lasts = u64::try_from(time.as_micros()).unwrap_or(Micros::MAX);
                let node = &mut self.nodes[at];
                if node.paused_until <= self.now {
                    node.paused_since = self.now;
                }
                node.paused_until = node.paused_until.max(self.now + lasts);
                let until = node.paused_until;
                self.at(until, Event::Unpaused(at));
            }
            Question::Unpause { .. } => {
                self.nodes[at].paused_until = 0;
                self.unpaused(at);
            }
            Question::Demote { to, .. } => {
                let to = self.names.node(to).expect("a node of this world");
                if to != at && self.nodes[at].follows != Some(to) {
                    self.follow(at, Some(to));
                }
            }
            Question::Replication { .. } => {
                let told = self.role(at).replication;
                return Answer::Replication(told.expect("nodes of this world tell"));
            }
            Question::Failover { .. } => {}
        }
        Answer::Done
    }

    pub(crate) fn obeyed(&mut self, (question, answer): Asked) {
        note!(self, "switchover hears {answer:?} to {question:?}");
        let now = self.time();
        if let Some(planned) = &mut self.planned {
            planned.machine.handle_answer(now, &question, answer);
            self.drive();
        }
    }

    /// The pause of a node is over, unless it was prolonged.
    pub(crate) fn unpaused(&mut self, at: usize) {
        if self.nodes[at].is_paused(self.now) {
            return;
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].node == at {
                self.arrive_later(conn);
            }
        }
    }

    /// What it claims in the end is true: nothing is missing.
    fn judge_report(&mut self, planned: &Planned, report: &Report) {
        note!(self, "switchover: {report:?}");
        let Outcome::Switched { to, fork, .. } = &report.outcome else {
            return;
        };
        self.book.counts.planned += 1;
        let to = self.names.node(to).expect("a node of this world");
        let end = planned.end.as_deref().unwrap_or_default();
        let lacks = |id: &&Id| self.book.commands[**id].held_by & (1 << to) == 0;
        let missing = end.iter().find(lacks).copied();
        if let (Fork::Held, Some(id)) = (fork, missing) {
            self.book.broke(Broken::Planned, || {
                format!("nothing is missing at node {to}, it is said, but write {id} is")
            });
        }
        if *fork == Fork::Broken && self.plan.faults.len() == 1 {
            self.book.broke(Broken::Planned, || {
                "a planned failover without any trouble has lost something".to_owned()
            });
        }
    }
}

fn picture(machine: &Machine) -> Picture {
    let snapshot = machine.snapshot();
    let group = match (&snapshot.phase, snapshot.master.clone()) {
        (Phase::Stable, Some(master)) => Group::Writable(master),
        (Phase::Switching { .. }, Some(master)) => Group::Held {
            master,
            quiet: machine.is_quiet(),
        },
        (Phase::Unknown, _) | (_, None) => Group::Unknown,
    };
    Picture {
        group,
        candidates: machine.promotable(),
        sentinels: machine.answering().cloned().collect(),
    }
}
