//! Floor 2. What the shell around one topology machine is told once.
//! Knows no values from a file; `config` checks them.

use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::consistency::Stamps;
use crate::topology::{self, Hold};
use crate::types::{Credentials, MasterName, NodeAddr};

/// Everything needed to follow one master group.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name under which Sentinel monitors the group.
    pub master_name: MasterName,
    /// Who says where the master is.
    pub source: Source,
    /// With which Switchman logs in to the data nodes, for `ROLE`, `INFO` and `COMMAND`.
    pub node_credentials: Option<Credentials>,
    /// How long commands wait for a master.
    pub hold: Hold,
    /// For how long fewer than a majority of the Sentinels may answer before writes are held.
    pub strict_quorum: Option<Duration>,
    /// Longest wait for workers to report that the old master is quiet.
    pub drain: Duration,
    /// How many workers report.
    pub workers: usize,
    /// A replica further behind than this many bytes serves no reads; `None` for any lag.
    pub max_lag: Option<u64>,
    /// Where account is kept of what is written, if reads need it: what is settled is found out.
    pub stamps: Option<Arc<Stamps>>,
    /// Least time between two questions to one node about that.
    pub settle_interval: Duration,
    /// The same for a replica that has had all that the master had so long ago, or longer.
    pub max_lag_time: Option<Duration>,
    /// What makes a replica nearer than another, besides its zone.
    pub choice: topology::ReplicaChoice,
    /// Where Switchman is.
    pub zone: Option<String>,
    /// Where nodes are, if they do not tell.
    pub node_zones: Vec<(NodeAddr, String)>,
    /// Times of the shell.
    pub timings: Timings,
    /// Times of the machine; its `drain` is replaced by the one above.
    pub machine: topology::Timings,
}

/// Who says where the master is.
#[derive(Clone, Debug)]
pub enum Source {
    /// Sentinels; more are learned from these.
    Sentinels {
        /// The configured ones, never forgotten.
        seeds: Vec<NodeAddr>,
        /// With which Switchman logs in to all of them.
        credentials: Option<Credentials>,
    },
    /// The configuration: this master and these replicas, for ever.
    Static {
        /// The master.
        master: NodeAddr,
        /// Its replicas.
        replicas: Vec<NodeAddr>,
    },
}

/// Times of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// For resolving, connecting and logging in, each.
    pub connect: Duration,
    /// For one round of questions.
    pub query: Duration,
    /// Between two `PING`s on a subscription.
    pub beat: Duration,
    /// A subscription whose `PING` is not answered within this time is half-open: it is dropped.
    pub silence: Duration,
    /// Between two attempts to subscribe.
    pub resubscribe: Backoff,
}

impl Settings {
    /// The defaults for the group `master_name` found through `source`.
    pub fn new(master_name: MasterName, source: Source) -> Self {
        Self {
            master_name,
            source,
            node_credentials: None,
            hold: Hold::Auto,
            strict_quorum: None,
            drain: Duration::from_millis(500),
            workers: 1,
            max_lag: None,
            stamps: None,
            settle_interval: Duration::from_millis(100),
            max_lag_time: None,
            choice: topology::ReplicaChoice::Load,
            zone: None,
            node_zones: Vec::new(),
            timings: Timings::default(),
            machine: topology::Timings::default(),
        }
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(500),
            query: Duration::from_millis(500),
            beat: Duration::from_secs(1),
            silence: Duration::from_secs(2),
            resubscribe: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
        }
    }
}
