//! Floor 2. The end of connections that workers gave up, beside the topology machine: performs what
//! the fence machine wants. Knows the words of its questions, and what a refusal looks like.
//! Decides nothing.

use std::collections::HashMap;

use redis::Pipeline;
use redis::ServerError;
use redis::Value;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;
use tracing::debug;
use tracing::warn;

use crate::fence::{Action, Answer, Connection, Failure, Kill, Machine, Number};
use crate::fence::{Question, Request, Status};
use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::staff::Staff;
use crate::sentinel::words::{info, is_unknown, number, refusal, wording};
use crate::telemetry::FenceResult;
use crate::types::{NodeAddr, Time};

/// A connection that a worker wants to be ended, and where it listens for the result.
#[derive(Debug)]
pub(super) struct Order {
    request: Request,
    reply: oneshot::Sender<FenceResult>,
}

/// Where connections of one group are ordered to be ended at their nodes.
#[derive(Clone, Debug)]
pub struct Fences {
    orders: mpsc::Sender<Order>,
}

/// What comes of an order.
#[derive(Debug)]
pub struct Fenced(Option<oneshot::Receiver<FenceResult>>);

impl Fences {
    pub(super) const fn new(orders: mpsc::Sender<Order>) -> Self {
        Self { orders }
    }

    /// Has a connection ended. Whether or not anybody waits for the result, it is carried out.
    pub fn order(&self, request: Request) -> Fenced {
        let (reply, result) = oneshot::channel();
        // There is as much room as the machine has: one that finds none would be dropped there too.
        let sent = self.orders.try_send(Order { request, reply });
        Fenced(sent.is_ok().then_some(result))
    }
}

impl Fenced {
    /// The result; `None` if there will be none.
    ///
    /// # Cancel safety
    /// Dropping this future does not stop what was ordered.
    pub async fn result(self) -> Option<FenceResult> {
        self.0?.await.ok()
    }
}

/// The machine and everything it moves.
#[derive(Debug)]
pub(super) struct Fencing {
    machine: Machine,
    /// Kept between questions to the same node.
    links: HashMap<NodeAddr, Box<Link>>,
    waiting: HashMap<Number, oneshot::Sender<FenceResult>>,
    status: watch::Sender<Status>,
}

impl Fencing {
    pub(super) fn new(status: watch::Sender<Status>) -> Self {
        Self {
            machine: Machine::new(),
            links: HashMap::new(),
            waiting: HashMap::new(),
            status,
        }
    }

    pub(super) fn begin(&mut self, now: Time, order: Order) {
        let number = self.machine.handle_request(now, order.request);
        self.waiting.insert(number, order.reply);
    }

    /// A node has told of its process.
    pub(super) fn heard(&mut self, now: Time, node: &NodeAddr, run_id: &str) {
        self.machine.handle_process(now, node, run_id);
    }

    /// A node is of no interest any more.
    pub(super) fn forget(&mut self, node: &NodeAddr) {
        self.machine.forget(node);
        self.links.remove(node);
    }

    /// A question was answered, or not.
    pub(super) fn answered(
        &mut self,
        now: Time,
        link: Box<Link>,
        question: &Question,
        result: Result<Answer, Failure>,
    ) {
        self.links.insert(peer(question).clone(), link);
        self.machine
            .handle_answer(now, question, result, fastrand::u32(..));
    }

    /// When it is to be driven again at the latest.
    pub(super) fn due(&self) -> Option<Time> {
        self.machine.poll_timeout()
    }

    /// Tells the machine the time and performs what it wants.
    pub(super) fn drive(&mut self, now: Time, staff: &Staff) {
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
        }
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Ask(question) => {
                    let kept = self.links.remove(peer(&question));
                    staff.fence(question, kept);
                }
                Action::Settled(number, result) => {
                    debug!(result = result.label(), "connection given up");
                    if let Some(reply) = self.waiting.remove(&number) {
                        // Mostly nobody waits, or nobody does any more.
                        let _ = reply.send(result);
                    }
                }
                Action::Forbidden(node, reason) => warn!(
                    %node,
                    reason,
                    "connections given up cannot be ended at the node; what was sent on them may \
                     still be applied later"
                ),
            }
        }
        let status = self.machine.status();
        self.status.send_if_modified(|seen| {
            let changed = *seen != status;
            *seen = status;
            changed
        });
    }
}

/// Whom a question is for.
pub(super) const fn peer(question: &Question) -> &NodeAddr {
    match question {
        Question::Process { node } | Question::Kill { node, .. } => node,
    }
}

/// Asks `question` over `link`.
///
/// # Cancel safety
/// Dropping this future may leave connections ended or not.
pub(super) async fn perform(link: &mut Link, question: &Question) -> Result<Answer, Failure> {
    match question {
        Question::Process { .. } => {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.cmd("INFO").arg("server");
            let answers = link.ask(&pipeline).await.map_err(|error| failure(&error))?;
            process(answers.first().unwrap_or(&Value::Nil))
        }
        Question::Kill { connections, .. } => {
            let asked = link.ask_further(&kills(connections)).await;
            let answers = asked.map_err(|error| failure(&error))?;
            Ok(Answer::Kills(answers.iter().map(killed).collect()))
        }
    }
}

fn process(answer: &Value) -> Result<Answer, Failure> {
    match refusal(answer) {
        Some(error) if is_forbidden(error) => Err(Failure::Forbidden(wording(error))),
        Some(_busy) => Err(Failure::NoAnswer),
        None => info(answer)
            .remove("run_id")
            .map(Answer::Process)
            .ok_or_else(|| Failure::Forbidden("INFO server tells no run_id".to_owned())),
    }
}

fn kills(connections: &[Connection]) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(connections.len());
    for Connection { id, addr } in connections {
        pipeline.cmd("CLIENT").arg("KILL").arg("ID").arg(*id);
        if let Some(addr) = addr {
            pipeline.arg("ADDR").arg(&**addr);
        }
    }
    pipeline
}

fn killed(answer: &Value) -> Kill {
    match (refusal(answer), number(answer)) {
        (Some(error), _) if is_forbidden(error) => Kill::Forbidden(wording(error)),
        (None, Some(0)) => Kill::Gone,
        (None, Some(_ended)) => Kill::Done,
        (Some(_), _) | (None, None) => Kill::NotNow,
    }
}

/// Whether the node will say the same the next time.
fn is_forbidden(error: &ServerError) -> bool {
    error.code() == "NOPERM" || is_unknown(error)
}

fn failure(error: &LinkError) -> Failure {
    debug!(%error, "node not asked to end connections");
    Failure::NoAnswer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(line: &str) -> Value {
        redis::parse_redis_value(format!("{line}\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn connections_are_named_as_servers_want_them() {
        let connection = |id, addr: Option<&str>| {
            let addr = addr.map(Box::from);
            Connection { id, addr }
        };
        let both = [connection(7, Some("10.0.0.9:50000")), connection(8, None)];
        let words = |line: &str| {
            let bulks = line
                .split(' ')
                .map(|word| format!("${}\r\n{word}\r\n", word.len()));
            let count = line.split(' ').count();
            format!("*{count}\r\n{}", bulks.collect::<String>())
        };
        let want = words("CLIENT KILL ID 7 ADDR 10.0.0.9:50000") + &words("CLIENT KILL ID 8");
        let packed = kills(&both).get_packed_pipeline();
        assert_eq!(String::from_utf8_lossy(&packed), want);
    }

    #[test]
    fn refusals_that_last_are_told_from_those_that_pass() {
        assert_eq!(killed(&reply(":1")), Kill::Done);
        assert_eq!(killed(&reply(":0")), Kill::Gone);
        assert_eq!(killed(&reply("-BUSY Redis is busy")), Kill::NotNow);
        let no = "NOPERM this user has no permissions to run the 'client|kill' command";
        let forbidden = Kill::Forbidden(no.to_owned());
        assert_eq!(killed(&reply(&format!("-{no}"))), forbidden);
        let renamed = killed(&reply("-ERR unknown command 'CLIENT'"));
        assert!(matches!(renamed, Kill::Forbidden(_)), "{renamed:?}");

        let server = Value::BulkString(b"# Server\r\nrun_id:f00d\r\n".to_vec());
        let told = process(&server);
        assert_eq!(told, Ok(Answer::Process("f00d".to_owned())));
        assert_eq!(process(&reply("-BUSY x")), Err(Failure::NoAnswer));
        for refused in ["-NOPERM x", "+redis_version:7"] {
            let refused = process(&reply(refused));
            assert!(matches!(refused, Err(Failure::Forbidden(_))));
        }
    }
}
