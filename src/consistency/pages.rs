//! Floor 1. Memory for a large table of numbers that are looked at in no order: in one large page,
//! where the kernel has them. A table of 1 MiB in pages of 4 KiB has 256 of them, of which a
//! processor finds most neither in its cache nor by the addresses that it remembers; of a large one
//! it remembers the address.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::AtomicU32;

use memmap2::MmapMut;
use self_cell::{MutBorrow, self_cell};
use zerocopy::FromBytes;

/// A large page of x86-64, and of arm64 with small ones of 4 KiB: 2 MiB.
const LARGE: usize = 2 << 20;

/// Bytes from which on a table is worth a large page.
const WORTH: usize = LARGE / 2;

type Numbers<'a> = &'a [AtomicU32];

self_cell!(
    struct Mapped {
        owner: MutBorrow<MmapMut>,
        #[covariant]
        dependent: Numbers,
    }
);

/// A table of numbers that all begin as 0. What is not looked at takes no memory; in a large page,
/// that is all or nothing.
pub struct Pages(Place);

enum Place {
    Large(Mapped),
    Small(Box<[AtomicU32]>),
}

impl Pages {
    /// So many numbers.
    pub fn new(count: usize) -> Self {
        Self(Self::large(count).map_or_else(|| Self::small(count), Place::Large))
    }

    fn small(count: usize) -> Place {
        Place::Small((0..count).map(|_| AtomicU32::new(0)).collect())
    }

    /// `None` if they are too few, or the kernel does not want to.
    fn large(count: usize) -> Option<Mapped> {
        let bytes = count.checked_mul(size_of::<AtomicU32>())?;
        if bytes < WORTH {
            return None;
        }
        // Somewhere in it a large page begins.
        let len = bytes.checked_next_multiple_of(LARGE)?.checked_add(LARGE)?;
        let map = MmapMut::map_anon(len).ok()?;
        // Where there are none (Linux: transparent_hugepage = never), small ones do too.
        #[cfg(target_os = "linux")]
        let _none = map.advise(memmap2::Advice::HugePage);
        Mapped::try_new(MutBorrow::new(map), |map| {
            let map = map.borrow_mut();
            let begin = map.as_ptr().align_offset(LARGE);
            let end = begin.checked_add(bytes).ok_or(())?;
            let bytes = map.get_mut(begin..end).ok_or(())?;
            let numbers = <[AtomicU32]>::mut_from_bytes(bytes);
            numbers.map(|it| &*it).map_err(|_| ())
        })
        .ok()
    }
}

impl Deref for Pages {
    type Target = [AtomicU32];

    #[inline]
    fn deref(&self) -> &[AtomicU32] {
        match &self.0 {
            Place::Large(numbers) => numbers.borrow_dependent(),
            Place::Small(numbers) => numbers,
        }
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn a_table_of_any_size_is_zero_at_first_and_keeps_each_number() {
        let worth = WORTH / size_of::<AtomicU32>();
        for count in [0, 1, 1000, worth - 1, worth, worth + 65, 3 * worth + 1] {
            let pages = Pages::new(count);
            assert_eq!(pages.len(), count);
            assert!(pages.iter().all(|it| it.load(SeqCst) == 0));
            for (number, at) in (0..).zip(pages.iter()) {
                at.store(number, SeqCst);
            }
            let kept = (0..).zip(pages.iter());
            assert!(
                kept.into_iter()
                    .all(|(number, at)| at.load(SeqCst) == number)
            );
        }
    }

    #[test]
    fn a_large_table_begins_where_a_large_page_begins() {
        let pages = Pages::new(WORTH / size_of::<AtomicU32>());
        assert!(matches!(pages.0, Place::Large(_)));
        assert_eq!(pages.as_ptr().align_offset(LARGE), 0);
        let small = Pages::new(WORTH / size_of::<AtomicU32>() - 1);
        assert!(matches!(small.0, Place::Small(_)));
    }

    #[test]
    fn more_than_there_is_is_not_asked_of_the_kernel() {
        assert!(Pages::large(usize::MAX).is_none());
        assert!(Pages::large(usize::MAX / size_of::<AtomicU32>()).is_none());
    }
}
