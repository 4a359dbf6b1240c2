//! Floor 1. What came of a planned failover: its steps with their times, and how it ended.
//! Knows the words for people, and no format.

use std::fmt;
use std::time::Duration;

use crate::types::NodeAddr;

/// A planned failover that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What was done, in this order.
    pub steps: Vec<Step>,
    /// How it ended.
    pub outcome: Outcome,
}

/// One thing done, or not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub name: StepName,
    /// When it was over, from the start.
    pub at: Duration,
    /// What came of it, in words.
    pub detail: String,
}

/// The steps in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepName {
    /// Somebody can be promoted, and somebody can be asked to.
    Check,
    /// No client of ours writes.
    Hold,
    /// Nobody else does.
    Pause,
    /// Where the master stands.
    Offset,
    /// All that may be promoted stand there too.
    Replicas,
    /// A Sentinel was told.
    Failover,
    /// The new master is proven; writes flow.
    Proof,
    /// The new history begins where the old one ended.
    Fork,
    /// The old master follows the new one.
    Demote,
    /// The old master is not paused any more.
    Unpause,
    /// Writes go on with the old master.
    Release,
}

/// How a planned failover ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a new master.
    Switched {
        /// The old one.
        from: NodeAddr,
        /// The new one.
        to: NodeAddr,
        /// Whether it has all that the old one had.
        fork: Fork,
    },
    /// It was given up.
    GaveUp {
        /// At which step.
        step: StepName,
        /// Why.
        reason: String,
        /// How things were left, in words.
        state: String,
    },
}

/// Whether a new history begins where the old one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// It does: nothing is missing.
    Held,
    /// It begins before, or elsewhere: something is missing.
    Broken,
    /// The new master did not tell. Every replica had everything before it was promoted.
    Unseen,
}

impl StepName {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Hold => "hold",
            Self::Pause => "pause",
            Self::Offset => "offset",
            Self::Replicas => "replicas",
            Self::Failover => "failover",
            Self::Proof => "proof",
            Self::Fork => "fork",
            Self::Demote => "demote",
            Self::Unpause => "unpause",
            Self::Release => "release",
        }
    }
}

impl fmt::Display for StepName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
