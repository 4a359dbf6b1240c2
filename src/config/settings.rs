//! Floor 6. The checked settings: whoever holds one of these need not check it again.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::config::{Problem, Source};
use crate::net::ListenAddr;
use crate::telemetry::logging::LogSettings;
use crate::types::{Credentials, ListenerRole, MasterName, NodeAddr, Secret};

/// Everything that the process needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Threads that serve clients; resolved, never "as many as there are processors".
    pub workers: NonZeroUsize,
    /// How to log.
    pub log: LogSettings,
    /// The operators' HTTP server.
    pub admin: Admin,
    /// Bounds for clients.
    pub limits: Limits,
    /// Connections to nodes.
    pub upstream: Upstream,
    /// How to stop.
    pub shutdown: Shutdown,
    /// Which commands are refused.
    pub commands: Commands,
    /// The master groups, at least one; names and listeners are unique.
    pub groups: Vec<GroupSettings>,
}

/// The operators' HTTP server.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it listens; always TCP.
    pub listen: ListenAddr,
    /// What changes something asks for this token, and is off without one.
    pub token: Option<Secret>,
}

/// Bounds for clients.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Clients of all groups together; `None` is for the process to derive from its limit of open
    /// files.
    pub max_clients: Option<NonZeroUsize>,
    /// Bytes of output that a client leaves unread before what feeds it is throttled.
    pub client_output_limit: usize,
    /// A client above that limit that takes nothing for so long is closed.
    pub client_write_timeout: Duration,
    /// Bytes of bodies of scripts that are kept; 0 for none.
    pub script_cache: usize,
}

/// Connections to nodes.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// For resolving and connecting, and again for the handshake.
    pub connect_timeout: Duration,
    /// Longest wait for the reply to a request that does not block by itself.
    pub reply_timeout: Duration,
    /// A node that owes replies and sends nothing for so long is suspected.
    pub suspect_after: Duration,
    /// Leased connections per worker, those at rest included.
    pub max_leased: NonZeroUsize,
    /// A connection that nobody uses for so long is closed, save the first lane and spare ones.
    pub idle_timeout: Duration,
}

/// How to stop.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// From SIGTERM until what is still in flight is abandoned.
    pub drain_timeout: Duration,
}

/// Changes to which commands are refused; names as in `command|subcommand`.
#[derive(Clone, Debug)]
pub struct Commands {
    /// Refused besides those refused by default.
    pub refuse: Vec<String>,
    /// Let through although refused by default.
    pub allow: Vec<String>,
}

/// One master group.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// Name under which Sentinel monitors it; label of its metrics.
    pub master_name: MasterName,
    /// Where its clients connect; at least one.
    pub listen: Vec<ListenerSettings>,
    /// How its nodes are found.
    pub discovery: Discovery,
    /// Login of Switchman itself at the nodes.
    pub credentials: Option<Credentials>,
    /// How long commands wait for a writable master.
    pub hold: Hold,
    /// Time without an answer of most Sentinels after which writes are held; `None`: never.
    pub strict_quorum: Option<Duration>,
    /// From the first sign of a switch until what is in flight to the old master is abandoned.
    pub drain_timeout: Duration,
    /// Which reads go to replicas.
    pub consistency: Consistency,
    /// Which keys a script may read and change.
    pub scripts: ScriptKeys,
    /// Least time between two questions to one node about how far it is.
    pub settle_interval: Duration,
    /// What happens to reads for replicas when none is healthy.
    pub no_replica: NoReplica,
    /// Which replica reads for whom.
    pub replicas: Replicas,
    /// Whether a read that a replica does not answer in time is sent to another too.
    pub hedge_reads: bool,
}

/// Which replica reads for whom.
#[derive(Clone, Debug)]
pub struct Replicas {
    /// Reads per second, in this process, that go to the master because no replica is healthy.
    pub fallback_limit: Option<u32>,
    /// Whether clients keep their replica.
    pub spread: Spread,
    /// Whether only the nearest read.
    pub choice: ReplicaChoice,
    /// Shares that are not the usual one.
    pub weights: Vec<(NodeAddr, u8)>,
    /// Where this Switchman is.
    pub zone: Option<String>,
    /// Where nodes are.
    pub node_zones: Vec<(NodeAddr, String)>,
    /// Bytes by which a replica may be behind.
    pub max_lag: Option<u64>,
    /// How long ago it may have had all that the master had.
    pub max_lag_time: Option<Duration>,
}

/// Whether clients keep their replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each keeps one.
    Client,
    /// Each read may go to another.
    Request,
}

/// Which of the healthy replicas read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaChoice {
    /// All, by their load.
    Load,
    /// The nearest.
    Nearest,
}

/// Where clients of a group connect, and what they see there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The address.
    pub addr: ListenAddr,
    /// What it is to them.
    pub role: ListenerRole,
    /// Which of their reads go to replicas.
    pub consistency: Consistency,
}

/// How the nodes of a group are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Sentinels are asked.
    Sentinels {
        /// Where they are; at least one, none twice.
        addrs: Vec<NodeAddr>,
        /// Login at the Sentinels.
        credentials: Option<Credentials>,
    },
    /// The master never changes.
    Static {
        /// The master.
        master: NodeAddr,
        /// Its replicas, possibly none.
        replicas: Vec<NodeAddr>,
    },
}

/// How long commands wait for a writable master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Derived from Sentinel's `down-after-milliseconds`.
    Auto,
    /// This long.
    Fixed(Duration),
}

/// Which reads go to replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Those that miss no write that went through this process and was acknowledged.
    OwnWrites,
    /// All: a read may miss a write that its replica has not received yet.
    Eventual,
    /// None: the master serves everything.
    Master,
}

/// Which keys a script may read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptKeys {
    /// Any.
    Any,
    /// Those that it has declared.
    Declared,
}

impl Consistency {
    /// As it is written in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OwnWrites => "own-writes",
            Self::Eventual => "eventual",
            Self::Master => "master",
        }
    }
}

/// What happens to reads for replicas when none is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReplica {
    /// The master serves them.
    Master,
    /// They are answered with an error.
    Error,
}

/// Settings, and how they came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is allowed but looks like a mistake.
    pub warnings: Vec<Problem>,
    /// Each key with its value, in the order of the key table, the process's before the groups'.
    pub effective: Vec<Effective>,
}

/// One key's value and where it came from, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Name of the group, for a group's key.
    pub group: Option<String>,
    /// Path of the key.
    pub key: &'static str,
    /// The value as text; secrets are hidden, nothing is empty.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}
