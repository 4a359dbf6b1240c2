//! Floor 1. The stamps: when each key was written last, in generations. Fixed memory, no locks on
//! the way of a command.

use std::sync::{Arc, Mutex, PoisonError};

use prefetch_index::prefetch_index;

use crate::consistency::atomics::{Atomic, Atomics, Std};
use crate::consistency::settled::Settled;
use crate::types::NodeAddr;

/// Stamps of keys in a table: 1 MiB, in a page of 2 MiB where the kernel has such.
///
/// With as many keys written between two samples as fit into a second of a busy master (100 000), a
/// key that was not written shares its stamp with one that was in one case of three; with 1000, in
/// one of 260.
pub const SLOTS: usize = 1 << 18;

/// Stamps of whole databases; those with numbers this far apart share one.
const DATABASES: u32 = 64;

/// Where a stamp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u32);

impl Slot {
    /// Its number among the stamps of its group. The last bits of those of keys are in no order.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The stamps of one master group, its generation, and how far its replicas are.
///
/// ```text
///   slots   | keys, by hash of database and key … | databases, by number | everything |
/// ```
#[derive(Debug)]
pub struct Stamps<A: Atomics = Std> {
    seed: u64,
    /// Stamps of keys less one; their number is a power of two.
    mask: u32,
    /// Stamps of databases less one.
    databases: u32,
    slots: A::Table,
    /// The present generation, at least 1; a stamp of 0 was never set. The control plane raises it,
    /// ten times a second at most, so that it lasts for 13 years.
    generation: A::U32,
    /// The highest stamp.
    newest: A::U32,
    nodes: Mutex<Vec<(NodeAddr, Arc<Settled<A>>)>>,
}

impl<A: Atomics> Stamps<A> {
    /// Nothing written yet; `keys` stamps for keys, rounded up to a power of two. `seed` is chance,
    /// so that nobody can choose keys that share a stamp.
    pub fn new(keys: usize, seed: u64) -> Self {
        let keys = u32::try_from(keys).unwrap_or(1 << 28);
        let keys = keys.clamp(1, 1 << 28).next_power_of_two();
        Self::of(keys, DATABASES, seed)
    }

    /// The same with this many stamps of databases; both are powers of two.
    pub(super) fn of(keys: u32, databases: u32, seed: u64) -> Self {
        let slots = usize::try_from(keys + databases + 1).unwrap_or(0);
        Self {
            seed,
            mask: keys - 1,
            databases: databases - 1,
            slots: A::table(slots),
            generation: Atomic::new(1),
            newest: Atomic::new(0),
            nodes: Mutex::default(),
        }
    }

    /// The stamp of a key.
    #[inline]
    pub fn slot(&self, database: u32, key: &[u8]) -> Slot {
        let hash = hash(self.seed ^ u64::from(database), key);
        Slot(upper(hash) & self.mask)
    }

    /// The stamp of a whole database.
    #[inline]
    pub const fn database(&self, database: u32) -> Slot {
        Slot(self.mask + 1 + (database & self.databases))
    }

    /// The stamp of everything.
    #[inline]
    pub const fn everything(&self) -> Slot {
        Slot(self.mask + self.databases + 2)
    }

    /// The generation for writes whose replies have been read. Load it after that, and mark before
    /// a client has them.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load()
    }

    /// There was a write, whose reply had been read when the generation was `generation`.
    #[inline]
    pub fn mark(&self, slot: Slot, generation: u32) {
        let Some(stamp) = self.slots.get(index(slot)) else {
            return;
        };
        // Looking costs less than writing to what other processors read.
        if stamp.load() < generation {
            stamp.fetch_max(generation);
        }
        if self.newest.load() < generation {
            self.newest.fetch_max(generation);
        }
    }

    /// Somebody before us may have acknowledged any write: a process that this one replaces.
    pub fn succeed(&self) {
        self.mark(self.everything(), self.generation());
    }

    /// When there was the last write.
    #[inline]
    pub fn stamp(&self, slot: Slot) -> u32 {
        self.slots.get(index(slot)).map_or(u32::MAX, Atomic::load)
    }

    /// A stamp will be looked at soon. The table is larger than a processor's own cache: what is
    /// not there yet comes from memory meanwhile.
    #[inline]
    pub fn prefetch(&self, slot: Slot) {
        prefetch_index(&*self.slots, index(slot));
    }

    /// When the whole of a database was written last, alone or with everything.
    #[inline]
    pub fn whole(&self, database: u32) -> u32 {
        self.stamp(self.everything())
            .max(self.stamp(self.database(database)))
    }

    /// When anything was written last.
    #[inline]
    pub fn newest(&self) -> u32 {
        self.newest.load()
    }

    /// How far the replica at `addr` is. Those that nobody holds any more are forgotten.
    pub fn node(&self, addr: &NodeAddr) -> Arc<Settled<A>> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, node)) = nodes.iter().find(|(known, _)| known == addr) {
            return Arc::clone(node);
        }
        nodes.retain(|(_, node)| Arc::strong_count(node) > 1);
        let node = Arc::new(Settled::new());
        nodes.push((addr.clone(), Arc::clone(&node)));
        node
    }

    /// Begins the next generation, and returns it. `None` at the end of them all, from when on
    /// nothing more is settled.
    pub fn advance(&self) -> Option<u32> {
        if self.generation.load() == u32::MAX {
            return None;
        }
        Some(self.generation.fetch_add(1) + 1)
    }
}

fn index(slot: Slot) -> usize {
    usize::try_from(slot.0).unwrap_or(usize::MAX)
}

#[expect(clippy::as_conversions, reason = "the upper half of the word fits")]
const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Words with ones and zeros in no order (digits of π).
const ODD: [u64; 2] = [0x2437_3f6a_8885_a309, 0x1319_8a2e_0370_7345];

/// A hash of `key` in `seed`'s family: products of 128 bits whose halves are folded, sixteen bytes
/// at a time (as wyhash does).
#[inline]
fn hash(seed: u64, key: &[u8]) -> u64 {
    let mut state = seed ^ ODD[0];
    let mut rest = key;
    while let Some((front, behind)) = rest.split_first_chunk::<16>() {
        let [one, other] = halves(front);
        state = fold(one ^ state, other ^ ODD[1]);
        rest = behind;
    }
    let [one, other] = if let (Some(front), Some(back)) =
        (rest.first_chunk::<8>(), rest.last_chunk::<8>())
    {
        [u64::from_le_bytes(*front), u64::from_le_bytes(*back)]
    } else if let (Some(front), Some(back)) = (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        let (front, back) = (u32::from_le_bytes(*front), u32::from_le_bytes(*back));
        [u64::from(front), u64::from(back)]
    } else {
        let short = rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte));
        [short, 0]
    };
    let length = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let state = fold(one ^ state, other ^ ODD[1] ^ length);
    fold(state ^ seed, ODD[0])
}

#[inline]
fn halves(bytes: &[u8; 16]) -> [u64; 2] {
    let word = u128::from_le_bytes(*bytes);
    [low(word), low(word >> 64)]
}

#[inline]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    low(product) ^ low(product >> 64)
}

#[expect(clippy::as_conversions, reason = "the lower half is meant")]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn low(word: u128) -> u64 {
    word as u64
}

#[cfg(test)]
impl Stamps {
    /// Sets a stamp as no worker may: whatever it was.
    pub(super) fn overwrite(&self, slot: Slot, generation: u32) {
        self.slots[index(slot)].store(generation, std::sync::atomic::Ordering::SeqCst);
        self.newest
            .fetch_max(generation, std::sync::atomic::Ordering::SeqCst);
    }
}
