//! Floor 2. Where a command goes: a pure function of the command, the session's facts and the
//! policy. Has no state and knows no connections.

mod access;
mod balance;
mod decide;

pub use access::Access;
pub use balance::{Candidate, Dice, choose, keep_nearest};
pub use decide::{Facts, NoReplica, Reads, Target, decide};
