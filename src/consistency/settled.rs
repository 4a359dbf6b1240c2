//! Floor 1. How far one replica is: the newest generation of whose writes it has all.
//! Knows nothing of how that is found out.

use crate::consistency::atomics::{Atomic, Atomics, Std};

/// One replica, as all workers and the control plane see it: `incarnation << 32 | settled`.
///
/// In one word, so that what was learned of one process is never said of its successor.
#[derive(Debug)]
pub struct Settled<A: Atomics = Std>(A::U64);

impl<A: Atomics> Settled<A> {
    /// A replica of which nothing is known.
    #[expect(clippy::new_without_default, reason = "loom's numbers have no default")]
    pub fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// The newest generation of whose writes, and those of all before, it has every one. 0: it may
    /// lack any write.
    #[inline]
    pub fn settled(&self) -> u32 {
        split(self.0.load()).1
    }

    /// Which process it is thought to be. Read it before you ask.
    pub fn incarnation(&self) -> u32 {
        split(self.0.load()).0
    }

    /// It may be another process from now on: nothing is settled.
    pub fn renew(&self) {
        let mut word = self.0.load();
        loop {
            let next = joined(split(word).0.wrapping_add(1), 0);
            match self.0.compare_exchange(word, next) {
                Ok(_) => return,
                Err(other) => word = other,
            }
        }
    }

    /// It has all writes up to `settled`, by an answer to a question that was asked when it was
    /// `incarnation`. Returns whether it still is, so that this holds.
    pub fn publish(&self, incarnation: u32, settled: u32) -> bool {
        let mut word = self.0.load();
        loop {
            let (present, already) = split(word);
            if present != incarnation {
                return false;
            }
            if already >= settled {
                return true;
            }
            match self.0.compare_exchange(word, joined(incarnation, settled)) {
                Ok(_) => return true,
                Err(other) => word = other,
            }
        }
    }
}

#[expect(clippy::as_conversions, reason = "the two halves of a word")]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[expect(clippy::as_conversions, reason = "widening, in a const function")]
const fn joined(incarnation: u32, settled: u32) -> u64 {
    (incarnation as u64) << 32 | settled as u64
}
