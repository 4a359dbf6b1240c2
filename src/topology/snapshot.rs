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
    /// Whether there is no master because no Sentinel that answers knows the group's name.
    pub name_unknown: bool,
    /// The proven master. In [`Phase::Switching`] it is the one being left, in [`Phase::Unknown`]
    /// there is none.
    pub master: Option<NodeAddr>,
    /// What becomes of the master's replies to writes.
    pub acks: Acks,
    /// Replicas that may serve reads: healthy in Sentinel's view and by their own `ROLE`.
    pub replicas: Vec<NodeAddr>,
    /// How far away each of these is, in their order; the lower, the better. Empty if none is
    /// nearer than another.
    pub distances: Vec<u8>,
    /// Whether no replica may serve reads, and one might if it were not too far behind.
    pub lagging: bool,
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

/// What becomes of the master's replies to writes. During a hold this is about the master being
/// left; afterwards, until the next hold, about the one that was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// They are passed on. So is what was kept back, if the master stayed.
    #[default]
    Given,
    /// They are kept back: whoever replaces the master may not have what they acknowledge.
    Kept,
    /// What a worker had kept back when it reported
    /// [`ReportKind::Quiet`](super::ReportKind::Quiet) is passed on: whoever replaces the master
    /// has what it acknowledges. What comes later is kept back, or in doubt with the old master.
    Settled,
    /// What was kept back is in doubt: the new master is not known to have what it acknowledges.
    Doubtful,
}

impl Snapshot {
    /// The picture before anything is known.
    pub const fn unknown(hold: Duration) -> Self {
        Self {
            generation: Generation::FIRST,
            epoch: ConfigEpoch::new(0),
            phase: Phase::Unknown,
            no_majority: false,
            name_unknown: false,
            master: None,
            acks: Acks::Given,
            replicas: Vec::new(),
            distances: Vec::new(),
            lagging: false,
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
