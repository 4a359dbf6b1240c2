//! Floor 1. What an operator may want to know of a group: plain data for the status page, the
//! status command and the metrics. Knows no format.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::incident::{Cause, Incident};
use super::report::Outlier;
use super::snapshot::Snapshot;
use crate::types::{ConfigEpoch, MasterName, NodeAddr, Time};

/// A group at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Name of the group.
    pub master_name: MasterName,
    /// What the data plane acts upon.
    pub snapshot: Arc<Snapshot>,
    /// When this picture was taken.
    pub at: Time,
    /// What the group waits for, when commands for the master are held.
    pub waiting: Option<Waiting>,
    /// Why writes are held, when they are.
    pub cause: Option<Cause>,
    /// Nodes that Sentinels name as master now, best first; one, unless they disagree.
    pub candidates: Vec<Candidate>,
    /// Whether too few Sentinels answer, or all are behind the epoch in use.
    pub view_stale: bool,
    /// How many Sentinels answer; `None` in a static group.
    pub majority: Option<Majority>,
    /// What the master itself said last.
    pub master: Option<NodeStatus>,
    /// All replicas that are listed or configured.
    pub replicas: Vec<ReplicaStatus>,
    /// All Sentinels, configured and learned.
    pub sentinels: Vec<SentinelStatus>,
    /// The last incidents, oldest first.
    pub incidents: Vec<Arc<Incident>>,
    /// How often each replica that served reads was left since the start; only those that were.
    pub ejections: BTreeMap<NodeAddr, Ejections>,
    /// Switches to another master since the start.
    pub switches_completed: u64,
    /// Holds that ended with the old master since the start.
    pub switches_abandoned: u64,
    /// How long the last hold was, of either kind.
    pub last_switch_took: Option<Duration>,
}

/// How many Sentinels of a group answer and know its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Majority {
    /// Sentinels that answer.
    pub answering: usize,
    /// Sentinels known, configured and learned.
    pub known: usize,
    /// For how long a majority may be missing before writes are held; `None` for ever.
    pub strict: Option<Duration>,
}

/// A node that Sentinels name as master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its address.
    pub node: NodeAddr,
    /// The highest epoch under which it is named.
    pub epoch: ConfigEpoch,
    /// How many Sentinels name it so.
    pub votes: usize,
    /// Whether its own `ROLE` says master.
    pub proven: bool,
}

/// What a node said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its address.
    pub node: NodeAddr,
    /// Its replication offset in bytes, when it told one.
    pub offset: Option<u64>,
    /// `run_id` of its process, when it told one.
    pub run_id: Option<String>,
    /// When it last answered.
    pub answered: Option<Time>,
    /// Why it did not answer the last time, if it did not.
    pub error: Option<String>,
    /// Whether it said that it runs a script, instead of its role.
    pub busy: bool,
}

/// A replica, and whether it may serve reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// What it said.
    pub node: NodeStatus,
    /// `None` if it serves reads, else why it does not.
    pub ejected: Option<Ejection>,
    /// Bytes behind the master, when both have told their offsets.
    pub lag: Option<u64>,
    /// How long ago it had all that the master had, when both have told.
    pub lag_time: Option<Duration>,
    /// Its zone, configured or by its own word.
    pub zone: Option<String>,
    /// Whether a worker leaves it alone, and why.
    pub outlier: Option<Outlier>,
}

/// How often a replica that served reads was left, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejections {
    /// For all reads of the group, in the order of [`Ejection::ALL`].
    pub judged: [u64; Ejection::ALL.len()],
    /// By a worker for a while, as its replies failed again and again; each worker counts.
    pub errors: u64,
    /// By a worker for a while, as it was slow; each worker counts.
    pub latency: u64,
}

/// Why a replica serves no reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// No Sentinel lists it.
    NotListed,
    /// Sentinels take it for down or have no link to it.
    SentinelSaysDown,
    /// Sentinels still see it in the role of a master.
    SentinelSaysMaster,
    /// Sentinels see its link to the master broken.
    SentinelSaysLinkDown,
    /// Sentinels see it follow another master.
    SentinelSaysOtherMaster,
    /// It has not been asked yet, or must answer once more.
    NotProven,
    /// It does not answer.
    Unreachable,
    /// It answers as a master.
    IsMaster,
    /// It is no data node, or does not tell its role.
    RoleUnknown,
    /// It runs a script that does not end soon.
    Busy,
    /// It follows another master.
    OtherMaster,
    /// Its link to the master is down or syncing.
    LinkDown,
    /// It is further behind than allowed.
    Lagging,
}

/// One Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts, as Sentinel states them"
)]
pub struct SentinelStatus {
    /// Its address.
    pub addr: NodeAddr,
    /// Its id, when it or another one told it.
    pub id: Option<String>,
    /// Whether it is configured, not learned.
    pub seed: bool,
    /// Whether it answered the last time it was asked.
    pub up: bool,
    /// Its subscription.
    pub subscription: Subscription,
    /// When it last answered.
    pub answered: Option<Time>,
    /// The master that it names.
    pub master: Option<NodeAddr>,
    /// The epoch of that.
    pub epoch: Option<ConfigEpoch>,
    /// Whether it takes the master for down.
    pub s_down: bool,
    /// Whether it knows of a quorum for that.
    pub o_down: bool,
    /// Whether it is in tilt mode.
    pub tilt: bool,
    /// Its last error, kept until it answers again.
    pub error: Option<String>,
    /// Questions it did not answer since the start.
    pub failures: u64,
}

/// State of the subscription to one Sentinel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Subscription {
    /// Not subscribed yet.
    #[default]
    Off,
    /// Not subscribed any more, or in vain.
    Lost {
        /// Why.
        why: String,
    },
    /// Subscribed.
    On,
    /// Subscribing is not allowed; events are found by polling only.
    Forbidden,
}

/// What a group without a writable master waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No Sentinel answers.
    SentinelsUnreachable,
    /// Sentinels answer, and none of them knows the name.
    NameUnknown,
    /// Sentinels know the name and no address for it.
    NoAddress,
    /// Fewer than a majority of the Sentinels answer, and that is not enough.
    Majority {
        /// Those that answer.
        answering: usize,
        /// All that are known.
        known: usize,
    },
    /// Sentinels disagree and no node is proven.
    Disagreement,
    /// This node must prove by its `ROLE` that it is master; its last word.
    Proof {
        /// The node.
        node: NodeAddr,
        /// What it said, or why it did not.
        last: String,
    },
    /// A failover is under way.
    Failover,
    /// Workers still wait for replies of the old master.
    Drain,
}

impl SentinelStatus {
    /// Whether its events are heard. If not, a failover that it is commanded to begin is noticed
    /// late, and what the old master acknowledges meanwhile may be lost.
    pub fn is_heard(&self) -> bool {
        self.subscription == Subscription::On
    }
}

impl Majority {
    /// Whether more than half of the Sentinels answer.
    pub const fn is_reached(&self) -> bool {
        self.answering * 2 > self.known
    }
}

impl Ejection {
    /// Each once.
    pub const ALL: [Self; 13] = [
        Self::NotListed,
        Self::SentinelSaysDown,
        Self::SentinelSaysMaster,
        Self::SentinelSaysLinkDown,
        Self::SentinelSaysOtherMaster,
        Self::NotProven,
        Self::Unreachable,
        Self::IsMaster,
        Self::RoleUnknown,
        Self::Busy,
        Self::OtherMaster,
        Self::LinkDown,
        Self::Lagging,
    ];

    /// The reason in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotListed => "not listed by any sentinel",
            Self::SentinelSaysDown => "sentinels say it is down",
            Self::SentinelSaysMaster => "sentinels see it as a master",
            Self::SentinelSaysLinkDown => "sentinels see its replication link down",
            Self::SentinelSaysOtherMaster => "sentinels see it follow another master",
            Self::NotProven => "not checked yet",
            Self::Unreachable => "does not answer",
            Self::IsMaster => "answers as a master",
            Self::RoleUnknown => "does not tell its role",
            Self::Busy => "busy with a script",
            Self::OtherMaster => "follows another master",
            Self::LinkDown => "replication link down or syncing",
            Self::Lagging => "too far behind",
        }
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SentinelsUnreachable => f.write_str("no sentinel answers"),
            Self::NameUnknown => f.write_str("no sentinel knows this master name"),
            Self::NoAddress => f.write_str("no sentinel knows an address for this master"),
            Self::Majority { answering, known } => {
                write!(
                    f,
                    "no majority of the sentinels answers: {answering} of {known}"
                )
            }
            Self::Disagreement => f.write_str("sentinels name different masters, none is proven"),
            Self::Proof { node, last } => write!(f, "{node} is not proven to be master: {last}"),
            Self::Failover => f.write_str("a failover is under way"),
            Self::Drain => f.write_str("replies of the old master are outstanding"),
        }
    }
}
