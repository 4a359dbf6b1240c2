//! Floor 1. The steps by which connections are ended at their nodes, for all nodes of a group.
//! Knows no links, and nothing of how a node is asked.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::backoff::Backoff;
use crate::fence::{Connection, Request};
use crate::telemetry::FenceResult;
use crate::types::{NodeAddr, Time};

/// Connections to be ended at a time, all nodes of a group together; more are dropped. So many are
/// lent to clients by two workers.
pub const PENDING_MAX: usize = 1_024;

/// Connections named in one question.
const KILLS_MAX: usize = 64;

/// For how long a node that does not answer is asked.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits between two attempts. One that gets no answer takes its own time besides.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// A new process is noticed so much later than it may have been connected to. A connection opened
/// within that time before is taken for one to the new process, if its address is known: no other
/// connection has its number and its address.
const NOTICED: Duration = Duration::from_secs(2);

/// Processes kept in mind; a group has a handful of nodes.
const PROCESSES_MAX: usize = 256;

/// Everything that is to be ended at the nodes of one group.
#[derive(Debug, Default)]
pub struct Machine {
    /// What the control plane knows of each node's process.
    processes: HashMap<NodeAddr, Process>,
    /// Nodes with something to be ended.
    nodes: Vec<Node>,
    /// Invariant: the fences of all `nodes`.
    pending: usize,
    last: u64,
    actions: VecDeque<Action>,
    /// Why the last node that forbade it did so; `None` if it has been allowed since.
    forbidden: Option<String>,
    results: [u64; FenceResult::COUNT],
}

/// Number of a request; never that of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number(u64);

/// One thing for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action not performed leaves the machine waiting for its answer"]
pub enum Action {
    /// Ask this, then [`Machine::handle_answer`]. There is one question to a node at a time.
    Ask(Question),
    /// Tell whoever waits for it what came of a request.
    Settled(Number, FenceResult),
    /// Log that a node does not let us end connections, for this reason.
    Forbidden(NodeAddr, String),
}

/// Something to ask a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Its `run_id`.
    Process {
        /// The node.
        node: NodeAddr,
    },
    /// To end these connections; to be asked over the connection on which the last question was
    /// answered, and no other.
    Kill {
        /// The node.
        node: NodeAddr,
        /// Its names for them.
        connections: Vec<Connection>,
    },
}

/// What a node answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its `run_id`.
    Process(String),
    /// What it did with each connection.
    Kills(Vec<Kill>),
}

/// What a node did with a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kill {
    /// It has ended it.
    Done,
    /// There is none.
    Gone,
    /// It does not let us, in its own words.
    Forbidden(String),
    /// It cannot now.
    NotNow,
}

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The node does not let us ask, in its own words.
    Forbidden(String),
    /// No answer, no connection, or another connection than the one of the last question.
    NoAnswer,
}

/// What an operator may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Connections to be ended that their nodes have not answered for.
    pub pending: usize,
    /// Why a node does not let us, if one did not the last time.
    pub forbidden: Option<String>,
    /// Requests since the start by result, in the order of [`FenceResult::ALL`].
    pub results: [u64; FenceResult::COUNT],
}

/// A process that answers at a node's address.
#[derive(Debug)]
struct Process {
    run_id: String,
    /// When it was first heard of.
    since: Time,
}

#[derive(Debug)]
struct Node {
    addr: NodeAddr,
    /// Oldest first.
    fences: VecDeque<Fence>,
    /// Fences named in the question that is open; 0 while its process is asked for.
    asked: Option<usize>,
    failures: u32,
    /// When it is asked next.
    due: Time,
}

#[derive(Debug)]
struct Fence {
    number: Number,
    connection: Connection,
    run_id: String,
    until: Time,
}

impl Machine {
    /// Nothing to be ended, and nothing known of any node.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection is to be ended. Its end, of whichever kind, comes as [`Action::Settled`].
    pub fn handle_request(&mut self, now: Time, request: Request) -> Number {
        self.last += 1;
        let number = Number(self.last);
        let Request {
            node,
            connection,
            opened,
        } = request;
        let Some(process) = self.processes.get(&node) else {
            self.forbid(&node, "it does not tell its run_id (INFO server)");
            self.settle(number, FenceResult::Forbidden);
            return number;
        };
        let noticed = connection.addr.as_ref().map_or(Duration::ZERO, |_| NOTICED);
        if process.since > opened + noticed {
            self.settle(number, FenceResult::Gone);
            return number;
        }
        if self.pending >= PENDING_MAX {
            self.settle(number, FenceResult::Dropped);
            return number;
        }
        let fence = Fence {
            number,
            connection,
            run_id: process.run_id.clone(),
            until: now + PATIENCE,
        };
        self.pending += 1;
        let at = self.nodes.iter().position(|other| other.addr == node);
        let at = at.unwrap_or_else(|| {
            self.nodes.push(Node {
                addr: node,
                fences: VecDeque::new(),
                asked: None,
                failures: 0,
                due: now,
            });
            self.nodes.len() - 1
        });
        if let Some(node) = self.nodes.get_mut(at) {
            node.fences.push_back(fence);
        }
        self.ask(at, now);
        number
    }

    /// The control plane has heard from a node, and of this process. What waits there is asked for
    /// at once.
    pub fn handle_process(&mut self, now: Time, node: &NodeAddr, run_id: &str) {
        self.note_process(now, node, run_id);
        if let Some(at) = self.nodes.iter().position(|other| other.addr == *node) {
            if let Some(node) = self.nodes.get_mut(at) {
                node.due = now;
            }
            self.ask(at, now);
        }
    }

    /// The control plane takes no interest in a node any more.
    pub fn forget(&mut self, node: &NodeAddr) {
        self.processes.remove(node);
    }

    /// A question was answered, or not. `dice` is any random word.
    pub fn handle_answer(
        &mut self,
        now: Time,
        question: &Question,
        result: Result<Answer, Failure>,
        dice: u32,
    ) {
        let (Question::Process { node: addr } | Question::Kill { node: addr, .. }) = question;
        let Some(at) = self.nodes.iter().position(|node| node.addr == *addr) else {
            return;
        };
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        let asked = node.asked.take().unwrap_or(0);
        match result {
            Ok(Answer::Process(run_id)) => {
                self.note_process(now, addr, &run_id);
                self.drop_others(at, &run_id);
                self.kill(at);
            }
            Ok(Answer::Kills(kills)) => {
                let all = kills.len() == asked;
                if self.judge(at, kills) && all {
                    self.kill(at);
                } else {
                    self.put_off(at, now, dice);
                }
            }
            Err(Failure::Forbidden(why)) => {
                let fences = std::mem::take(&mut node.fences);
                self.forbid(addr, &why);
                self.settle_all(fences, FenceResult::Forbidden);
            }
            Err(Failure::NoAnswer) => self.put_off(at, now, dice),
        }
        self.nodes
            .retain(|node| !node.fences.is_empty() || node.asked.is_some());
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        let mut late = VecDeque::new();
        for node in self.nodes.iter_mut().filter(|node| node.asked.is_none()) {
            while node.fences.front().is_some_and(|fence| fence.until <= now) {
                late.extend(node.fences.pop_front());
            }
        }
        self.settle_all(late, FenceResult::Expired);
        self.nodes
            .retain(|node| !node.fences.is_empty() || node.asked.is_some());
        for at in 0..self.nodes.len() {
            self.ask(at, now);
        }
    }

    /// When [`Machine::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let waiting = self.nodes.iter().filter(|node| node.asked.is_none());
        let due = |node: &Node| {
            let until = node.fences.front().map(|fence| fence.until);
            until.map_or(node.due, |until| until.min(node.due))
        };
        waiting.map(due).min()
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What there is to see.
    pub fn status(&self) -> Status {
        Status {
            pending: self.pending,
            forbidden: self.forbidden.clone(),
            results: self.results,
        }
    }

    fn note_process(&mut self, now: Time, node: &NodeAddr, run_id: &str) {
        let full = self.processes.len() >= PROCESSES_MAX;
        match self.processes.get_mut(node) {
            Some(process) if process.run_id == run_id => {}
            Some(process) => {
                process.since = now;
                run_id.clone_into(&mut process.run_id);
            }
            None if full => {}
            None => {
                let process = Process {
                    run_id: run_id.to_owned(),
                    since: now,
                };
                self.processes.insert(node.clone(), process);
            }
        }
    }

    /// Asks for a node's process, if it is its turn.
    fn ask(&mut self, at: usize, now: Time) {
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        if node.asked.is_some() || node.fences.is_empty() || node.due > now {
            return;
        }
        node.asked = Some(0);
        let node = node.addr.clone();
        self.actions
            .push_back(Action::Ask(Question::Process { node }));
    }

    /// Has a node end what is left for it, a part at a time.
    fn kill(&mut self, at: usize) {
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        node.failures = 0;
        let first = node.fences.iter().take(KILLS_MAX);
        let connections: Vec<_> = first.map(|fence| fence.connection.clone()).collect();
        if connections.is_empty() {
            return;
        }
        node.asked = Some(connections.len());
        let node = node.addr.clone();
        self.actions
            .push_back(Action::Ask(Question::Kill { node, connections }));
    }

    /// What was to be ended in other processes than this one has ended with them.
    fn drop_others(&mut self, at: usize, run_id: &str) {
        let Some(node) = self.nodes.get_mut(at) else {
            return;
        };
        let fences = std::mem::take(&mut node.fences);
        let (same, others) = fences.into_iter().partition(|fence| fence.run_id == run_id);
        node.fences = same;
        self.settle_all(others, FenceResult::Gone);
    }

    /// What came of each connection that a node was asked to end. False if it is to be asked again
    /// later for some of them.
    fn judge(&mut self, at: usize, kills: Vec<Kill>) -> bool {
        let Some(node) = self.nodes.get_mut(at) else {
            return true;
        };
        let addr = node.addr.clone();
        let mut again = VecDeque::new();
        let mut settled = Vec::new();
        for kill in kills {
            let Some(fence) = node.fences.pop_front() else {
                break;
            };
            match kill {
                Kill::NotNow => again.push_back(fence),
                other => settled.push((fence.number, other)),
            }
        }
        let done = again.is_empty();
        again.append(&mut node.fences);
        node.fences = again;
        for (number, kill) in settled {
            self.pending -= 1;
            let result = match kill {
                Kill::Done => FenceResult::Killed,
                Kill::Forbidden(why) => {
                    self.forbid(&addr, &why);
                    self.settle(number, FenceResult::Forbidden);
                    continue;
                }
                Kill::Gone | Kill::NotNow => FenceResult::Gone,
            };
            self.forbidden = None;
            self.settle(number, result);
        }
        done
    }

    fn put_off(&mut self, at: usize, now: Time, dice: u32) {
        if let Some(node) = self.nodes.get_mut(at) {
            node.failures = node.failures.saturating_add(1);
            node.due = now + PAUSE.delay(node.failures, dice);
        }
    }

    /// Notes that a node does not let us; said once, until one does.
    fn forbid(&mut self, node: &NodeAddr, why: &str) {
        if self.forbidden.is_none() {
            let said = Action::Forbidden(node.clone(), why.to_owned());
            self.actions.push_back(said);
        }
        self.forbidden = Some(format!("{node}: {why}"));
    }

    fn settle_all(&mut self, fences: VecDeque<Fence>, result: FenceResult) {
        self.pending -= fences.len();
        for fence in fences {
            self.settle(fence.number, result);
        }
    }

    fn settle(&mut self, number: Number, result: FenceResult) {
        if let Some(total) = self.results.get_mut(result.index()) {
            *total += 1;
        }
        self.actions.push_back(Action::Settled(number, result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DICE: u32 = u32::MAX;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    fn node() -> NodeAddr {
        NodeAddr::new("m", 6379).unwrap()
    }

    fn connection(id: u64) -> Connection {
        let addr = Some(Box::from(format!("10.0.0.9:{id}")));
        Connection { id, addr }
    }

    fn request(id: u64, opened: u64) -> Request {
        Request {
            node: node(),
            connection: connection(id),
            opened: at(opened),
        }
    }

    fn process() -> Action {
        Action::Ask(Question::Process { node: node() })
    }

    fn kill(ids: &[u64]) -> Question {
        let connections = ids.iter().map(|id| connection(*id)).collect();
        let node = node();
        Question::Kill { node, connections }
    }

    fn actions(machine: &mut Machine) -> Vec<Action> {
        std::iter::from_fn(|| machine.poll_action()).collect()
    }

    /// A machine that has known the node's process `a` from the start.
    fn machine() -> Machine {
        let mut machine = Machine::new();
        machine.handle_process(at(0), &node(), "a");
        machine
    }

    /// The node answers the question for its process.
    fn is_process(machine: &mut Machine, now: u64, run_id: &str) {
        let question = Question::Process { node: node() };
        let answer = Ok(Answer::Process(run_id.to_owned()));
        machine.handle_answer(at(now), &question, answer, DICE);
    }

    fn total(machine: &Machine, result: FenceResult) -> u64 {
        machine.status().results[result.index()]
    }

    #[test]
    fn a_connection_is_ended_after_the_process_has_shown_to_be_the_same() {
        let mut machine = machine();
        let number = machine.handle_request(at(10), request(7, 5));
        assert_eq!(actions(&mut machine), [process()]);
        is_process(&mut machine, 11, "a");
        assert_eq!(actions(&mut machine), [Action::Ask(kill(&[7]))]);
        let done = Ok(Answer::Kills(vec![Kill::Done]));
        machine.handle_answer(at(12), &kill(&[7]), done, DICE);
        let settled = Action::Settled(number, FenceResult::Killed);
        assert_eq!(actions(&mut machine), [settled]);
        assert_eq!(
            (machine.status().pending, machine.poll_timeout()),
            (0, None)
        );
        assert_eq!(total(&machine, FenceResult::Killed), 1);
    }

    #[test]
    fn nothing_is_ended_in_another_process() {
        let mut machine = machine();
        let before = machine.handle_request(at(10), request(7, 5));
        let _asked = actions(&mut machine);
        is_process(&mut machine, 11, "b");
        let settled = |number| Action::Settled(number, FenceResult::Gone);
        assert_eq!(actions(&mut machine), [settled(before)]);
        // Opened to the process before, as far as can be known.
        let long_ago = machine.handle_request(at(9_000), request(8, 6));
        assert_eq!(actions(&mut machine), [process()], "it may be the new one");
        is_process(&mut machine, 9_001, "b");
        assert_eq!(actions(&mut machine), [Action::Ask(kill(&[8]))]);
        let gone = Ok(Answer::Kills(vec![Kill::Gone]));
        machine.handle_answer(at(9_002), &kill(&[8]), gone, DICE);
        assert_eq!(actions(&mut machine), [settled(long_ago)]);
        machine.handle_process(at(20_000), &node(), "c");
        let older = machine.handle_request(at(20_001), request(9, 17_000));
        assert_eq!(actions(&mut machine), [settled(older)]);
        let nameless = Request {
            connection: Connection { id: 9, addr: None },
            ..request(9, 19_999)
        };
        let nameless = machine.handle_request(at(20_002), nameless);
        assert_eq!(actions(&mut machine), [settled(nameless)]);
    }

    #[test]
    fn a_frozen_node_is_asked_again_and_at_once_when_it_is_heard_of() {
        let mut machine = machine();
        let number = machine.handle_request(at(0), request(7, 0));
        let question = Question::Process { node: node() };
        for (now, due) in [(500, 600), (1_100, 1_300), (1_800, 2_200), (2_700, 3_500)] {
            assert_eq!(actions(&mut machine), [process()]);
            assert_eq!(machine.poll_timeout(), None, "it is being asked");
            machine.handle_answer(at(now), &question, Err(Failure::NoAnswer), DICE);
            assert_eq!(machine.poll_timeout(), Some(at(due)));
            machine.handle_timeout(at(due - 1));
            assert_eq!(actions(&mut machine), []);
            machine.handle_timeout(at(due));
        }
        assert_eq!(actions(&mut machine), [process()]);
        machine.handle_answer(at(4_000), &question, Err(Failure::NoAnswer), DICE);
        machine.handle_process(at(4_100), &node(), "a");
        assert_eq!(actions(&mut machine), [process()]);
        machine.handle_answer(at(5_000), &question, Err(Failure::NoAnswer), DICE);
        machine.handle_timeout(at(300_000));
        let expired = Action::Settled(number, FenceResult::Expired);
        assert_eq!(actions(&mut machine), [expired]);
        assert_eq!(
            (machine.status().pending, machine.poll_timeout()),
            (0, None)
        );
    }

    #[test]
    fn what_comes_meanwhile_is_ended_over_the_same_connection() {
        let mut machine = machine();
        for id in 0..3 {
            machine.handle_request(at(10), request(id, 5));
        }
        assert_eq!(actions(&mut machine), [process()]);
        is_process(&mut machine, 11, "a");
        assert_eq!(actions(&mut machine), [Action::Ask(kill(&[0, 1, 2]))]);
        machine.handle_request(at(12), request(3, 5));
        let kills = vec![Kill::Done, Kill::NotNow, Kill::Gone];
        machine.handle_answer(at(13), &kill(&[0, 1, 2]), Ok(Answer::Kills(kills)), DICE);
        assert_eq!(actions(&mut machine).len(), 2, "two are settled");
        assert_eq!(machine.poll_timeout(), Some(at(113)));
        machine.handle_timeout(at(113));
        assert_eq!(actions(&mut machine), [process()]);
        is_process(&mut machine, 114, "a");
        assert_eq!(actions(&mut machine), [Action::Ask(kill(&[1, 3]))]);
        // The connection was lost: what became of them is not known.
        let failure = Err(Failure::NoAnswer);
        machine.handle_answer(at(115), &kill(&[1, 3]), failure, DICE);
        assert_eq!(
            (actions(&mut machine), machine.status().pending),
            (vec![], 2)
        );
    }

    #[test]
    fn a_node_that_forbids_it_is_told_of_once() {
        let mut machine = machine();
        let mut said = 0;
        for id in 0..3 {
            let number = machine.handle_request(at(10), request(id, 5));
            is_process(&mut machine, 11, "a");
            let no = Ok(Answer::Kills(vec![Kill::Forbidden("NOPERM".to_owned())]));
            machine.handle_answer(at(12), &kill(&[id]), no, DICE);
            let all = actions(&mut machine);
            assert!(all.contains(&Action::Settled(number, FenceResult::Forbidden)));
            let notes = |action: &&Action| matches!(action, Action::Forbidden(..));
            said += all.iter().filter(notes).count();
            assert_eq!(machine.status().forbidden.unwrap(), "m:6379: NOPERM");
        }
        assert_eq!(said, 1);
        machine.handle_request(at(20), request(9, 5));
        is_process(&mut machine, 21, "a");
        let done = Ok(Answer::Kills(vec![Kill::Done]));
        machine.handle_answer(at(22), &kill(&[9]), done, DICE);
        assert_eq!(machine.status().forbidden, None, "the right was given");
    }

    #[test]
    fn without_the_right_to_see_the_process_nothing_is_ended() {
        let mut machine = Machine::new();
        let number = machine.handle_request(at(10), request(7, 5));
        let forbidden = Action::Settled(number, FenceResult::Forbidden);
        assert!(actions(&mut machine).contains(&forbidden));
        machine.handle_process(at(0), &node(), "a");
        let number = machine.handle_request(at(10), request(7, 5));
        let question = Question::Process { node: node() };
        let no = Err(Failure::Forbidden("NOPERM".to_owned()));
        machine.handle_answer(at(11), &question, no, DICE);
        let forbidden = Action::Settled(number, FenceResult::Forbidden);
        assert!(actions(&mut machine).contains(&forbidden));
        assert_eq!(
            (machine.status().pending, machine.poll_timeout()),
            (0, None)
        );
    }

    #[test]
    fn too_many_are_dropped_and_a_part_is_named_at_a_time() {
        let mut machine = machine();
        let many = u64::try_from(PENDING_MAX).unwrap();
        for id in 0..=many {
            machine.handle_request(at(10), request(id, 5));
        }
        assert_eq!(total(&machine, FenceResult::Dropped), 1);
        assert_eq!(machine.status().pending, PENDING_MAX);
        is_process(&mut machine, 11, "a");
        let mut rounds = 0;
        while machine.status().pending > 0 {
            let asked = actions(&mut machine).pop();
            let Some(Action::Ask(question @ Question::Kill { .. })) = asked else {
                panic!("the next part is asked for: {asked:?}");
            };
            let done = Ok(Answer::Kills(vec![Kill::Done; KILLS_MAX]));
            machine.handle_answer(at(12), &question, done, DICE);
            rounds += 1;
        }
        assert_eq!(rounds, PENDING_MAX / KILLS_MAX);
        assert_eq!(total(&machine, FenceResult::Killed), many);
    }
}
