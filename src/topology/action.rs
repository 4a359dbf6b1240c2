//! Floor 1. What the machine wants done, and what it has to say to the log.
//! Knows nothing of how either is done.

use std::sync::Arc;
use std::time::Duration;

use super::incident::Cause;
use super::report::Outlier;
use super::snapshot::Snapshot;
use super::status::Ejection;
use crate::types::{ConfigEpoch, Generation, NodeAddr};

/// One thing for the shell to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action not performed leaves the machine waiting for its answer"]
pub enum Action {
    /// Subscribe to this Sentinel and be ready to ask it.
    AddSentinel(NodeAddr),
    /// Leave this Sentinel; answers to open questions are not wanted any more.
    DropSentinel(NodeAddr),
    /// Ask this Sentinel for its view, then `handle_view` or `handle_view_failed`.
    AskSentinel(NodeAddr),
    /// Ask this node for its role, then `handle_node` or `handle_node_failed`.
    AskNode(NodeAddr),
    /// Close what is kept open to this node; it is of no interest any more.
    DropNode(NodeAddr),
    /// Look this host name up, then `handle_resolved`.
    Resolve(String),
    /// Give this picture to the data plane.
    Publish(Arc<Snapshot>),
    /// Log this.
    Note(Note),
}

/// A change of state that a person on call may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The first master is proven.
    MasterFound {
        /// The master.
        master: NodeAddr,
        /// Its epoch.
        epoch: ConfigEpoch,
        /// Of the snapshot that says so.
        generation: Generation,
    },
    /// Writes are held.
    Holding {
        /// The master being left, or in doubt.
        master: NodeAddr,
        /// Why.
        cause: Cause,
        /// Of the snapshot that says so.
        generation: Generation,
    },
    /// Writes go on with the old master.
    Released {
        /// The master.
        master: NodeAddr,
        /// Why they had been held.
        cause: Cause,
        /// Of the snapshot that says so.
        generation: Generation,
        /// For how long they had been held.
        took: Duration,
    },
    /// Writes go on with a new master.
    Switched {
        /// The old master.
        old: NodeAddr,
        /// The new master.
        new: NodeAddr,
        /// Its epoch.
        epoch: ConfigEpoch,
        /// Of the snapshot that says so.
        generation: Generation,
        /// For how long writes had been held.
        took: Duration,
        /// Workers that were not quiet at the drain deadline.
        unquiet: usize,
    },
    /// The master's process was replaced by a new one that is a master again.
    MasterRestarted {
        /// The master.
        master: NodeAddr,
    },
    /// The master answers as a replica and no Sentinel leads a failover.
    ChangedOutsideSentinel {
        /// The master that is none.
        master: NodeAddr,
    },
    /// A replica calls itself master and no Sentinel agrees.
    RogueMaster {
        /// The replica.
        node: NodeAddr,
    },
    /// The address announced is not proven and is given up for now.
    CandidateDoubted {
        /// The announced master.
        node: NodeAddr,
        /// Its epoch.
        epoch: ConfigEpoch,
    },
    /// Sentinels name different masters under one epoch.
    ViewsDiffer {
        /// The master in use.
        current: NodeAddr,
        /// The other one.
        other: NodeAddr,
        /// The epoch.
        epoch: ConfigEpoch,
    },
    /// All Sentinels are behind the epoch in use; they are not obeyed for now.
    Regressed {
        /// The epoch in use.
        in_use: ConfigEpoch,
        /// The highest that they tell.
        told: ConfigEpoch,
    },
    /// The older epoch is accepted: nobody has known the newer one for a long time.
    RegressionAccepted {
        /// The epoch that was in use.
        from: ConfigEpoch,
        /// The epoch in use from now on.
        to: ConfigEpoch,
    },
    /// A Sentinel answers, for the first time or again.
    SentinelUp {
        /// The Sentinel.
        sentinel: NodeAddr,
    },
    /// A Sentinel does not answer any more.
    SentinelDown {
        /// The Sentinel.
        sentinel: NodeAddr,
        /// Why.
        why: String,
    },
    /// Fewer than a majority of the Sentinels answer.
    MajorityLost {
        /// Those that do.
        answering: usize,
        /// All that are known.
        known: usize,
    },
    /// A majority of the Sentinels answers again.
    MajorityBack {
        /// Those that do.
        answering: usize,
        /// All that are known.
        known: usize,
    },
    /// A configured address leads to something that is no Sentinel.
    NotASentinel {
        /// The address.
        addr: NodeAddr,
    },
    /// A Sentinel does not monitor a master of our name.
    NameUnknown {
        /// The Sentinel.
        sentinel: NodeAddr,
    },
    /// A Sentinel does not let us subscribe.
    SubscriptionForbidden {
        /// The Sentinel.
        sentinel: NodeAddr,
    },
    /// A Sentinel on another host announces a loopback address.
    LoopbackRejected {
        /// The Sentinel.
        sentinel: NodeAddr,
        /// What it announces.
        announced: NodeAddr,
    },
    /// A Sentinel was learned from the others.
    SentinelLearned {
        /// The Sentinel.
        sentinel: NodeAddr,
    },
    /// A learned Sentinel is forgotten.
    SentinelForgotten {
        /// The Sentinel.
        sentinel: NodeAddr,
    },
    /// A Sentinel entered or left tilt mode.
    Tilt {
        /// The Sentinel.
        sentinel: NodeAddr,
        /// Entered.
        on: bool,
    },
    /// A replica serves reads.
    ReplicaAdmitted {
        /// The replica.
        node: NodeAddr,
    },
    /// A replica that served reads does not any more.
    ReplicaEjected {
        /// The replica.
        node: NodeAddr,
        /// Why.
        why: Ejection,
    },
    /// A worker sends a replica no reads for a while.
    ReplicaAvoided {
        /// Index of the worker.
        worker: usize,
        /// The replica.
        node: NodeAddr,
        /// What is wrong with it.
        why: Outlier,
        /// For how long.
        time: Duration,
    },
    /// A node that must be proven does not tell its role.
    RoleUntold {
        /// The node.
        node: NodeAddr,
        /// Its words.
        why: String,
    },
}
