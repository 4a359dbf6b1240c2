//! Floor 1. What workers tell the control plane: the way back of the control flow.

use std::fmt;
use std::time::Duration;

use crate::types::{Generation, NodeAddr};

/// One worker's word about a node or a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Index of the worker that speaks, from 0.
    pub worker: usize,
    /// What it says.
    pub kind: ReportKind,
}

/// What a worker can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReportKind {
    /// Nothing of this worker's clients is in flight to the master of snapshot `generation`, save
    /// commands that merely wait there until somebody else writes. The snapshot was
    /// [`Phase::Switching`](super::Phase::Switching), and no write will be sent before the next.
    Quiet {
        /// Generation of that snapshot.
        generation: Generation,
    },
    /// An established connection to `node` ended without our doing (EOF, reset, write error).
    LinkLost {
        /// Its address as in the snapshot.
        node: NodeAddr,
    },
    /// A connection to `node` could not be made (refused, timed out, handshake failed).
    ConnectFailed {
        /// Its address as in the snapshot.
        node: NodeAddr,
    },
    /// `node`, to which a write was sent, answered `-READONLY`: it is a replica now.
    Demoted {
        /// Its address as in the snapshot.
        node: NodeAddr,
    },
    /// Replies from `node` are overdue (longer than the suspicion time) although bytes are in
    /// flight.
    Silent {
        /// Its address as in the snapshot.
        node: NodeAddr,
    },
    /// This worker leaves a replica alone that others may take for healthy.
    Outlier {
        /// Its address as in the snapshot.
        node: NodeAddr,
        /// What is wrong with it.
        why: Outlier,
        /// For how long.
        time: Duration,
    },
}

/// In what a replica differs from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlier {
    /// Connections to it fail or break, or it turns reads away, again and again.
    Errors,
    /// Its replies take much longer than those of the others.
    Latency,
}

impl fmt::Display for Outlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Errors => "left alone after repeated errors",
            Self::Latency => "left alone for slow replies",
        })
    }
}
