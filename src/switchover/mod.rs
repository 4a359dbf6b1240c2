//! Floor 1. A planned failover that loses nothing, step by step: questions out, answers and time
//! in. Knows no sockets, no clock and no Sentinel's protocol; whoever performs its questions does.
//!
//! ```text
//!   check ─► hold ─► pause ─► offset ─► replicas ─► failover ─► proof ─► fork, demote, unpause
//!              │       │        │          │           │          │
//!              └───────┴────────┴──────────┴───────────┴──────────┴──► unpause, release: given up
//! ```
//!
//! * Nothing of our clients is in flight when the master is paused, and nobody else can write from
//!   then on. So the offset that the master tells afterwards, M under its replication id R, is the
//!   end of all that was ever acknowledged.
//! * Sentinel is asked to fail over only when every replica that it may choose has applied M under
//!   R. Whichever it chooses, nothing is missing.
//! * Sentinel tells the old master to follow the new one only after about ten seconds, and a paused
//!   master even later. It is told here, as soon as the new one is proven, and only then unpaused:
//!   whoever was paused is answered `-READONLY` instead of being acknowledged and forgotten.
//! * The pause has an end of its own, should we die.

mod machine;
mod report;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

pub use self::machine::Switchover;
pub use self::report::{Fork, Outcome, Report, Step, StepName};
pub use crate::types::Replication;
use crate::types::{NodeAddr, Time};

/// How much longer than the whole undertaking the master stays paused: time to unpause it in order.
const PAUSE_MARGIN: Duration = Duration::from_secs(2);
/// The shortest wait for replicas, however impatient the Sentinels are.
const CATCH_UP_MIN: Duration = Duration::from_millis(500);
/// The longest.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Times of one undertaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest wait until all workers are quiet.
    pub quiet: Duration,
    /// Longest wait for one order to be obeyed: pause, offset, failover.
    pub order: Duration,
    /// Longest wait for the replicas. A paused master holds up a Sentinel's `PUBLISH`, and behind
    /// it that Sentinel's `PING`: paused for `down-after-milliseconds` it would be taken for down.
    pub catch_up: Duration,
    /// From the start until it is given up; then writes go on in time for the clients that wait.
    pub total: Duration,
    /// Longest wait for everything to be put in order at the end.
    pub wind_up: Duration,
    /// Between two questions to a replica that is behind, or two attempts to unpause.
    pub pace: Duration,
}

impl Limits {
    /// Limits for clients that wait at most `hold`, under Sentinels with this `down_after`.
    pub fn new(hold: Duration, down_after: Option<Duration>) -> Self {
        let catch_up = down_after.map_or(CATCH_UP_MAX, |down_after| down_after * 3 / 4);
        Self {
            quiet: Duration::from_secs(2),
            order: Duration::from_secs(1),
            catch_up: catch_up.clamp(CATCH_UP_MIN, CATCH_UP_MAX),
            total: hold.mul_f32(0.9),
            wind_up: Duration::from_secs(3),
            pace: Duration::from_millis(10),
        }
    }
}

/// What the topology machine sees, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Whether writes flow, and whereto.
    pub group: Group,
    /// Replicas that a Sentinel may choose.
    pub candidates: BTreeSet<NodeAddr>,
    /// Sentinels that answer.
    pub sentinels: Vec<NodeAddr>,
}

/// Whether writes flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// No master is known.
    Unknown,
    /// They flow to this proven master.
    Writable(NodeAddr),
    /// They are held.
    Held {
        /// The master being left, or to go on with.
        master: NodeAddr,
        /// Whether nothing of our clients is in flight to it.
        quiet: bool,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action not performed leaves the machine waiting until its deadline"]
pub enum Action {
    /// Hold writes, at most until this moment.
    Hold {
        /// The end of the hold if nobody ends it before.
        until: Time,
    },
    /// End the hold.
    Release,
    /// Ask, and hand the answer back with the question.
    Ask(Question),
}

/// What is asked of a node or a Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `CLIENT PAUSE time WRITE`.
    Pause {
        /// The master.
        node: NodeAddr,
        /// After so long the node goes on by itself.
        time: Duration,
    },
    /// `CLIENT UNPAUSE`.
    Unpause {
        /// The master that was paused.
        node: NodeAddr,
    },
    /// `INFO replication`.
    Replication {
        /// Master or replica.
        node: NodeAddr,
    },
    /// `SENTINEL FAILOVER` of the group. Never sent twice by itself.
    Failover {
        /// Whom to ask.
        sentinel: NodeAddr,
    },
    /// `REPLICAOF`, for a master that is none any more.
    Demote {
        /// The old master.
        node: NodeAddr,
        /// The new one.
        to: NodeAddr,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// Where it stands.
    Replication(Replication),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The question was not sent.
    NotSent(String),
    /// It was answered by an error, in these words.
    Refused(String),
    /// It was sent, and perhaps obeyed.
    Unclear(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) | Self::Refused(why) | Self::Unclear(why) => f.write_str(why),
        }
    }
}
