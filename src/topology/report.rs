//! Floor 1. What workers tell the control plane: the way back of the control flow.

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
}
