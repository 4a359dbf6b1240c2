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
//! What is asked of replicas is kept for each client as one bit for each key, of 256. Which one is
//! the end of its stamp's number, which is known already, or where no stamps are kept the product
//! of a few multiplications. Two keys may share a bit, and then a write waits in vain, for as long
//! as reads take: after ten reads one write in 25. (Of 64 bits it would be one in seven.) In a
//! pipeline with reads and writes only the reads before the first write go to replicas.
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

/// Words of a sketch.
const WORDS: usize = 4;

/// Some keys, each as one bit, which others may share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sketch([u64; WORDS]);

impl Sketch {
    /// No key.
    pub(super) const EMPTY: Self = Self([0; WORDS]);
    /// Any key.
    const ALL: Self = Self([u64::MAX; WORDS]);

    /// Adds the key of which `hash` ends like that of no other, nearly always.
    #[inline]
    const fn add(&mut self, hash: u32) {
        let (word, bit) = place(hash);
        self.0[word] |= bit;
    }

    #[inline]
    const fn has(&self, hash: u32) -> bool {
        let (word, bit) = place(hash);
        self.0[word] & bit != 0
    }
}

/// The word of a key, and its bit there.
#[inline]
#[expect(clippy::as_conversions, reason = "less than four")]
const fn place(hash: u32) -> (usize, u64) {
    ((hash / 64) as usize % WORDS, 1 << (hash % 64))
}

impl Group {
    /// Adds what a request reads in a database to a sketch.
    #[inline]
    fn sketch(
        &self,
        sketch: &mut Sketch,
        (reach, database): (Reach, u32),
        request: (&Request<'_>, Option<Slot>),
    ) {
        if let Keys::Untold = self.hashes(reach, database, request, |hash| sketch.add(hash)) {
            *sketch = Sketch::ALL;
        }
    }

    /// Whether a request may change in a database what is in a sketch.
    fn meets(
        &self,
        sketch: &Sketch,
        (reach, database): (Reach, u32),
        request: (&Request<'_>, Option<Slot>),
    ) -> bool {
        let mut meets = false;
        match self.hashes(reach, database, request, |hash| meets |= sketch.has(hash)) {
            Keys::Told => meets,
            Keys::Untold => *sketch != Sketch::EMPTY,
        }
    }

    /// Calls `visit` with a hash for each key that a request reads, or may change. `slot` is the
    /// stamp of its first argument, if it is known. Where a group has stamps, keys that share one
    /// are taken for one.
    #[inline]
    fn hashes(
        &self,
        reach: Reach,
        database: u32,
        (request, slot): (&Request<'_>, Option<Slot>),
        mut visit: impl FnMut(u32),
    ) -> Keys {
        let keys = match reach {
            Reach::Nothing => return Keys::Told,
            Reach::Keys(keys) => keys,
            Reach::Declared(keys) if self.settings.script_keys == Scripts::Declared => keys,
            Reach::Declared(_) | Reach::OtherDatabase(_) | Reach::Database | Reach::Everything => {
                return Keys::Untold;
            }
        };
        match (&self.settings.stamps, slot) {
            (Some(_), Some(slot)) if keys.is_arg1() => {
                visit(slot.number());
                Keys::Told
            }
            (Some(stamps), _) => {
                keys.visit(request, |key| visit(stamps.slot(database, key).number()))
            }
            (None, _) => keys.visit(request, |key| visit(few(hash(key)))),
        }
    }
}

impl Client {
    /// Notes what a request reads that is about to be sent to a replica. If it is not after all,
    /// what changes that may wait in vain for reads that are.
    #[inline]
    pub(super) fn asks(
        &mut self,
        group: &Group,
        reach: Reach,
        request: (&Request<'_>, Option<Slot>),
    ) {
        if self.replica_out == 0 {
            self.asked = Sketch::EMPTY;
        }
        group.sketch(&mut self.asked, (reach, self.session.database), request);
    }

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
                !self.is_in_multi() && group.meets(&self.asked, (reach, database), request)
            }
        }
    }
}

/// The best bits of a hash, for keys without a stamp's number: the highest of a product depend on
/// all of what was multiplied.
#[inline]
fn few(hash: u64) -> u32 {
    u32::try_from(hash >> 56).unwrap_or_default()
}

/// The hash of a key, of which the highest bits are the best. In which database it is does not
/// matter.
#[inline]
pub(super) fn hash(key: &[u8]) -> u64 {
    let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let word = match key.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => key
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    let mut state = mixed(word ^ length);
    let (front, _) = key.as_chunks::<8>();
    for word in front.iter().take(FRONT / 8) {
        state = mixed(state ^ u64::from_le_bytes(*word));
    }
    state
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
        let families: [fn(u32) -> String; 7] = [
            |number| number.to_string(),
            |number| format!("key:{number:012}"),
            |number| format!("user:{number}:profile"),
            |number| format!("{number}-{}", "x".repeat(100)),
            |number| format!("{number}:a"),
            |number| format!("{number:05}:user"),
            |number| format!("app:prod:region:eu:session:{number:05}:profile:data"),
        ];
        for family in families {
            let mut times = [0_u32; 64 * WORDS];
            for number in 0..25_600 {
                let (word, bit) = place(few(hash(family(number).as_bytes())));
                times[word * 64 + usize::try_from(bit.trailing_zeros()).unwrap()] += 1;
            }
            assert!(
                times.iter().all(|times| (40..200).contains(times)),
                "{times:?}"
            );
        }
    }
}
