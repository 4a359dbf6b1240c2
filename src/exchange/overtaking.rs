//! Floor 4. A read at a replica is not overtaken by what its own client writes behind it: the
//! replica may be slower than the master and what it passes on, and would answer with that.
//!
//! ```text
//!   GET a    on its way to a replica     asked: { a }
//!   SET b    goes to the master at once
//!   SET a    waits until every read at a replica is answered
//!   GET c    behind a write in flight: to the master, in order, so that nothing waits for it
//! ```
//!
//! What is asked of replicas is kept for each client as one word, in which a key is one bit of 64.
//! That is the end of its stamp's number, which is known already, or where no stamps are kept a
//! multiplication. Two keys may share a bit, and then a write waits in vain, for as long as a read
//! takes. Few do: in a pipeline with reads and writes
//! only the reads before the first write go to replicas.
//!
//! In a transaction nothing is executed before EXEC, which waits for all.

use crate::command::{Class, Keys, Leased, Reach};
use crate::consistency::{Scripts, Slot};
use crate::exchange::client::{Client, Wait};
use crate::exchange::node::Group;
use crate::resp::Request;

/// A word with ones and zeros in no order (digits of the golden ratio).
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Bytes of a key that tell it from others, besides its last eight and its length.
const FRONT: usize = 32;

/// Some keys: two sketches that have nothing in common are of keys that have nothing in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sketch(u64);

impl Sketch {
    /// No key.
    pub(super) const EMPTY: Self = Self(0);
    /// Any key.
    const ALL: Self = Self(u64::MAX);

    /// What a request reads, or may change, by the bits of its keys.
    #[inline]
    fn of(
        reach: Reach,
        scripts: Scripts,
        request: &Request<'_>,
        bit: impl Fn(&[u8]) -> u64,
    ) -> Self {
        let keys = match reach {
            Reach::Nothing => return Self::EMPTY,
            Reach::Keys(keys) => keys,
            Reach::Declared(keys) if scripts == Scripts::Declared => keys,
            Reach::Declared(_) | Reach::OtherDatabase(_) | Reach::Database | Reach::Everything => {
                return Self::ALL;
            }
        };
        let mut sketch = 0;
        match keys.visit(request, |key| sketch |= bit(key)) {
            Keys::Told => Self(sketch),
            Keys::Untold => Self::ALL,
        }
    }

    /// Adds those of another one.
    #[inline]
    pub(super) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl Group {
    /// What a request reads, or may change, in a database. `slot` is the stamp of its first
    /// argument, if it is known. Where a group has stamps, keys that share one are taken for one.
    #[inline]
    pub(super) fn sketch(
        &self,
        reach: Reach,
        database: u32,
        (request, slot): (&Request<'_>, Option<Slot>),
    ) -> Sketch {
        let scripts = self.settings.script_keys;
        match (&self.settings.stamps, reach, slot) {
            (Some(_), Reach::Keys(keys), Some(slot)) if keys.is_arg1() => Sketch(slot.bit()),
            (Some(stamps), ..) => {
                let bit = |key: &[u8]| stamps.slot(database, key).bit();
                Sketch::of(reach, scripts, request, bit)
            }
            (None, ..) => Sketch::of(reach, scripts, request, bit),
        }
    }
}

impl Client {
    /// Whether a request has to wait because a read before it, which a replica has not answered,
    /// might see what it writes.
    #[inline]
    pub(super) fn waits_for_reads(
        &mut self,
        group: &Group,
        (class, reach): (Class, Reach),
        request: (&Request<'_>, Option<Slot>),
    ) -> bool {
        if self.replica_out == 0 || !self.overtakes(group, (class, reach), request) {
            return false;
        }
        self.wait = Wait::Reads;
        true
    }

    fn overtakes(
        &self,
        group: &Group,
        (class, reach): (Class, Reach),
        request: (&Request<'_>, Option<Slot>),
    ) -> bool {
        match class {
            Class::Read | Class::MasterRead | Class::Local(_) | Class::Refused => false,
            Class::Leased(Leased::Exec) => self.is_in_multi(),
            Class::Write | Class::Admin | Class::Leased(_) => {
                let database = self.session.database;
                !self.is_in_multi() && self.asked.meets(group.sketch(reach, database, request))
            }
        }
    }
}

/// The bit of a key where no stamps are kept. In which database it is does not matter.
#[inline]
fn bit(key: &[u8]) -> u64 {
    let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let word = match key.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => key
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    let mut state = mixed(word ^ length);
    let mut rest = key.get(..FRONT).unwrap_or(key);
    while let Some((front, behind)) = rest.split_first_chunk::<8>() {
        state = mixed(state ^ u64::from_le_bytes(*front));
        rest = behind;
    }
    1 << (state >> 58)
}

#[inline]
const fn mixed(word: u64) -> u64 {
    let product = word.wrapping_mul(ODD);
    product ^ (product >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_a_little_have_bits_of_all_kinds() {
        let families: [fn(u32) -> String; 4] = [
            |number| number.to_string(),
            |number| format!("key:{number:012}"),
            |number| format!("user:{number}:profile"),
            |number| format!("{number}-{}", "x".repeat(100)),
        ];
        for family in families {
            let mut times = [0; 64];
            for number in 0..6400 {
                let bit = bit(family(number).as_bytes());
                assert_eq!(bit.count_ones(), 1);
                times[usize::try_from(bit.trailing_zeros()).unwrap()] += 1;
            }
            assert!(
                times.iter().all(|times| (40..200).contains(times)),
                "{times:?}"
            );
        }
        assert_eq!(bit(b"").count_ones(), 1);
    }
}
