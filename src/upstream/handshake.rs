//! Floor 2. From a node's address to a connection that may carry requests.
//!
//! The login goes alone: with other replies pending, a failed one can lose its error reply (Redis
//! issue 15640). It is an `AUTH`, or a `HELLO` where the client's was one. The rest goes in one
//! write: `HELLO`, `CLIENT SETNAME`, `SELECT`, `PING`, `ROLE`, and for a connection that may carry
//! writes `CLIENT INFO`, so that it can be ended from elsewhere.
//!
//! A client stays in its database when it logs in as a user without the right to `SELECT`. Its
//! connection gets there as it did itself: by a `SELECT` before its login, where the server lets
//! connections without one do that.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::fence::Connection;
use crate::net::{self, ConnectError, ConnectStage, Stream};
use crate::resp::{ReplyKind, ReplyScanner, Scan, encode};
use crate::types::{CONNECTION_NAME, NodeAddr, Protocol};

/// How long connections may take to open.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For resolving the name and connecting.
    pub connect_timeout: Duration,
    /// For all replies of the handshake.
    pub handshake_timeout: Duration,
}

/// What to open.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The node.
    pub node: NodeAddr,
    /// The role it must have.
    pub expected: Expected,
    /// The whole command that logs in, if any.
    pub auth: Option<Vec<u8>>,
    /// The protocol to speak.
    pub protocol: Protocol,
    /// The database to select.
    pub database: u32,
}

/// The role that a node must answer to `ROLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `master`.
    Master,
    /// `slave`.
    Replica,
}

/// A connection that may carry requests.
#[derive(Debug)]
pub struct Opened {
    /// The stream, with no reply outstanding.
    pub stream: Stream,
    /// The node's whole reply to `HELLO`; `None` where it does not know it.
    pub hello: Option<Vec<u8>>,
    /// What the node calls the connection, if it may carry writes and the node tells.
    pub connection: Option<Connection>,
}

/// The step at which a node was heard to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The login.
    Auth,
    /// Everything after it.
    Handshake,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Master => "master",
            Self::Replica => "replica",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "login",
            Self::Handshake => "handshake",
        })
    }
}

/// A connection that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke during the handshake.
    #[error("{node} broke off the handshake")]
    Broken {
        /// The node.
        node: NodeAddr,
        /// The socket's error.
        source: io::Error,
    },
    /// The node did not answer in time.
    #[error("{node} did not finish the handshake within {limit:?}")]
    TimedOut {
        /// The node.
        node: NodeAddr,
        /// The time allowed.
        limit: Duration,
    },
    /// The node has another role.
    #[error("{node} is not a {expected}")]
    WrongRole {
        /// The node.
        node: NodeAddr,
        /// The role it should have.
        expected: Expected,
    },
    /// The node loads its data or has no link to its master, or it is a replica that runs a script.
    #[error("{node} is not ready: {line}")]
    NotReady {
        /// The node.
        node: NodeAddr,
        /// Its error line.
        line: String,
    },
    /// The node takes nothing before a login.
    #[error("{node} wants a login")]
    LoginWanted {
        /// The node.
        node: NodeAddr,
        /// Its error line.
        line: Vec<u8>,
        /// That for `HELLO`, which differs between servers.
        hello: Vec<u8>,
    },
    /// The node answered with an error.
    #[error("{node} refused the {stage}: {}", printable(line))]
    Refused {
        /// The node.
        node: NodeAddr,
        /// At which step.
        stage: Stage,
        /// Its whole error line.
        line: Vec<u8>,
    },
}

/// An error line without what it repeats of the command (Redis server.c, `unknown command`), which
/// may be a password.
fn printable(line: &[u8]) -> String {
    let repeated = memchr::memmem::find(line, b", with args");
    let own = repeated.and_then(|at| line.get(..at)).unwrap_or(line);
    String::from_utf8_lossy(own).trim_end().to_owned()
}

impl Failure {
    /// The step that failed, as metrics name it.
    pub const fn stage(&self) -> crate::telemetry::ConnectStage {
        use crate::telemetry::ConnectStage as Label;
        match self {
            Self::Connect(error) => match error.stage() {
                ConnectStage::Dns => Label::Dns,
                ConnectStage::Tcp => Label::Tcp,
            },
            Self::LoginWanted { .. }
            | Self::Refused {
                stage: Stage::Auth, ..
            } => Label::Auth,
            _ => Label::Handshake,
        }
    }
}

/// Connects and shakes hands.
///
/// # Cancel safety
/// Dropping the future closes what was begun.
pub async fn open(plan: &Plan, settings: &Settings) -> Result<Opened, Failure> {
    let stream = net::connect(&plan.node, settings.connect_timeout).await?;
    let limit = settings.handshake_timeout;
    let mut talk = Talk {
        stream,
        input: Vec::new(),
    };
    match timeout(limit, shake_hands(plan, &mut talk)).await {
        Ok(Ok((hello, connection))) => Ok(Opened {
            stream: talk.stream,
            hello,
            connection,
        }),
        Ok(Err(failure)) => Err(failure),
        Err(_elapsed) => Err(Failure::TimedOut {
            node: plan.node.clone(),
            limit,
        }),
    }
}

/// What the node says to `HELLO`, and what it calls the connection.
type Told = (Option<Vec<u8>>, Option<Connection>);

async fn shake_hands(plan: &Plan, talk: &mut Talk) -> Result<Told, Failure> {
    let broken = |source| Failure::Broken {
        node: plan.node.clone(),
        source,
    };
    let refused = |stage, line| Failure::Refused {
        node: plan.node.clone(),
        stage,
        line,
    };
    let mut selected_before = false;
    if let Some(auth) = &plan.auth {
        if plan.database != 0 && names_user(auth) {
            let mut first = Vec::new();
            select(&mut first, plan.database);
            talk.stream.write_all(&first).await.map_err(broken)?;
            selected_before = talk.reply().await.map_err(broken)?.starts_with(b"+");
        }
        talk.stream.write_all(auth).await.map_err(broken)?;
        let reply = talk.reply().await.map_err(broken)?;
        if reply.starts_with(b"-") {
            return Err(refused(Stage::Auth, reply));
        }
    }
    talk.stream
        .write_all(&questions(plan))
        .await
        .map_err(broken)?;

    let hello = talk.reply().await.map_err(broken)?;
    let named = talk.reply().await.map_err(broken)?;
    let selected = if plan.database == 0 {
        None
    } else {
        Some(talk.reply().await.map_err(broken)?)
    };
    let pong = talk.reply().await.map_err(broken)?;
    let role = talk.reply().await.map_err(broken)?;
    let info = match plan.expected {
        Expected::Master => Some(talk.reply().await.map_err(broken)?),
        Expected::Replica => None,
    };
    if role.starts_with(b"-NOAUTH") {
        return Err(Failure::LoginWanted {
            node: plan.node.clone(),
            line: role,
            hello,
        });
    }
    check_ready(plan, [&named, &pong, &role])?;
    let hello = if hello.starts_with(b"-") {
        Err(hello)
    } else {
        Ok(hello)
    };
    if let (Err(line), Protocol::Resp3) = (&hello, plan.protocol) {
        return Err(refused(Stage::Handshake, line.clone()));
    }
    if let Some(line) = selected.filter(|line| line.starts_with(b"-"))
        && !(selected_before && line.starts_with(b"-NOPERM"))
    {
        return Err(refused(Stage::Handshake, line));
    }
    check_role(plan, &role)?;
    let hello = hello.ok();
    let connection = info.and_then(|info| Connection::read(&info, hello.as_deref()));
    Ok((hello, connection))
}

/// Whether an `AUTH` names its user. The default user, whose password alone is told, is whom a
/// connection belongs to before its login too, where the server lets it do anything then.
fn names_user(auth: &[u8]) -> bool {
    auth.starts_with(b"*3\r\n")
}

/// Everything that is asked after the login.
fn questions(plan: &Plan) -> Vec<u8> {
    let mut out = Vec::new();
    introduce(&mut out, plan.protocol);
    if plan.database != 0 {
        select(&mut out, plan.database);
    }
    encode::request(&mut out, &[b"PING"]);
    encode::request(&mut out, &[b"ROLE"]);
    if plan.expected == Expected::Master {
        encode::request(&mut out, &[b"CLIENT", b"INFO"]);
    }
    out
}

fn introduce(out: &mut Vec<u8>, protocol: Protocol) {
    encode::request(out, &[b"HELLO", protocol.version()]);
    encode::request(out, &[b"CLIENT", b"SETNAME", CONNECTION_NAME]);
}

fn select(out: &mut Vec<u8>, database: u32) {
    encode::request(out, &[b"SELECT", database.to_string().as_bytes()]);
}

/// A node that loads its data, or has lost its master, says so to most commands, of these to `PING`
/// (Redis marks the others as allowed meanwhile). One that runs a script says so too: others can
/// serve the reads of a replica, but of a master its clients are to hear it, and one of them may
/// end the script.
fn check_ready(plan: &Plan, replies: [&[u8]; 3]) -> Result<(), Failure> {
    let says = |reply: &&[u8]| {
        reply.starts_with(b"-LOADING")
            || reply.starts_with(b"-MASTERDOWN")
            || (plan.expected == Expected::Replica && reply.starts_with(b"-BUSY "))
    };
    match replies.into_iter().find(says) {
        None => Ok(()),
        Some(reply) => {
            let line = String::from_utf8_lossy(reply).trim_end().to_owned();
            Err(Failure::NotReady {
                node: plan.node.clone(),
                line,
            })
        }
    }
}

/// The role must be the expected one. A node that may not say (`NOPERM`, renamed command), or a
/// master that is busy, is believed: the control plane has proven its role with its own login.
fn check_role(plan: &Plan, reply: &[u8]) -> Result<(), Failure> {
    let is = |role: &[u8]| memchr::memmem::find(reply.get(..24).unwrap_or(reply), role).is_some();
    let fits = match plan.expected {
        Expected::Master => is(b"\r\nmaster\r\n"),
        Expected::Replica => is(b"\r\nslave\r\n"),
    };
    if fits || reply.starts_with(b"-") {
        Ok(())
    } else {
        Err(Failure::WrongRole {
            node: plan.node.clone(),
            expected: plan.expected,
        })
    }
}

/// A stream on which one reply after the other is awaited.
struct Talk {
    stream: Stream,
    input: Vec<u8>,
}

/// Bytes of one handshake reply: a `HELLO` with many modules has a few kilobytes.
const REPLY_MAX: usize = 1 << 20;

impl Talk {
    /// The next reply, whole. Pushes are skipped.
    async fn reply(&mut self) -> io::Result<Vec<u8>> {
        let (mut scanner, mut at) = (ReplyScanner::default(), 0);
        loop {
            let rest = self.input.get(at..).unwrap_or_default();
            let scan = if rest.is_empty() {
                Scan::Partial { len: 0, missing: 1 }
            } else {
                scanner
                    .scan(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            };
            match scan {
                Scan::Complete { len, kind } => {
                    let behind = self.input.split_off(at + len);
                    let reply = std::mem::replace(&mut self.input, behind);
                    at = 0;
                    if kind != ReplyKind::Push {
                        return Ok(reply);
                    }
                }
                Scan::Partial { len, .. } => {
                    at += len;
                    if self.input.len() > REPLY_MAX {
                        return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
                    }
                    if self.stream.read_buf(&mut self.input).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_repeats_no_password() {
        let refusal = |line: &[u8]| {
            let node = NodeAddr::parse("redis-1:6379", None).unwrap();
            let (stage, line) = (Stage::Auth, line.to_vec());
            Failure::Refused { node, stage, line }.to_string()
        };
        let unknown = b"-ERR unknown command 'auth', with args beginning with: 'u' 'secret' \r\n";
        assert_eq!(
            refusal(unknown),
            "redis-1:6379 refused the login: -ERR unknown command 'auth'"
        );
        assert_eq!(
            refusal(b"-WRONGPASS no\r\n"),
            "redis-1:6379 refused the login: -WRONGPASS no"
        );
    }
}
