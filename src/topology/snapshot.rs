//! Floor 1. The published picture of a master group: immutable, cheap to share, numbered.

use std::time::Duration;

use crate::types::{ConfigEpoch, Generation, NodeAddr, Time};

/// What the data plane may know of a master group, and all that it may act upon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of this snapshot; each published one has the next.
    pub generation: Generation,
    /// Sentinel's configuration epoch in use; 0 in a static group.
    pub epoch: ConfigEpoch,
    /// Whether writes flow.
    pub phase: Phase,
    /// Whether writes are held because too few Sentinels answer.
    pub no_majority: bool,
    /// The proven master. In [`Phase::Switching`] it is the one being left, in [`Phase::Unknown`]
    /// there is none.
    pub master: Option<NodeAddr>,
    /// Replicas that may serve reads: healthy in Sentinel's view and by their own `ROLE`.
    pub replicas: Vec<NodeAddr>,
    /// Longest time for which a command waits for a writable master, from its arrival.
    pub hold: Duration,
}

/// Whether writes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No master is known yet: commands for the master are held.
    Unknown,
    /// Writes flow to the master.
    Stable,
    /// Writes are held. When nothing of a worker's clients is in flight to the master any more, the
    /// worker reports [`ReportKind::Quiet`](super::ReportKind::Quiet) with this snapshot's
    /// generation. Replicas may come and go during a hold, with a snapshot for each change: `since`
    /// stays, and a worker that was quiet for one of them is quiet for all.
    Switching {
        /// When the first sign of the switch was seen.
        since: Time,
    },
}

impl Snapshot {
    /// The picture before anything is known.
    pub const fn unknown(hold: Duration) -> Self {
        Self {
            generation: Generation::FIRST,
            epoch: ConfigEpoch::new(0),
            phase: Phase::Unknown,
            no_majority: false,
            master: None,
            replicas: Vec::new(),
            hold,
        }
    }

    /// The master to which commands may be sent now.
    pub fn writable_master(&self) -> Option<&NodeAddr> {
        match self.phase {
            Phase::Stable => self.master.as_ref(),
            Phase::Unknown | Phase::Switching { .. } => None,
        }
    }
}
