//! Floor 3. The bytes on their way to a client, in chunks of a bounded size once they are many.
//!
//! ```text
//!  front   [ bytes the client took | bytes to write next ]        nearly always all there is
//!  more    [ chunk ] [ chunk ] [ chunk, being filled ]            once `front` has no room
//! ```
//!
//! One buffer that grows for a client that is behind would be copied each time that it doubles, and
//! keep what it grew out of, and twice what it holds, from the allocator. Chunks are neither copied
//! nor moved, and each is given back, or filled anew, as soon as the client has taken it.

use std::collections::VecDeque;

/// Bytes of a chunk; `front` gets no longer than that. More than a socket takes at once.
const CHUNK: usize = 256 * 1024;

/// Bytes taken at the front before the rest is moved down: a client that is always a little behind
/// must not keep all that it was ever sent. They are no less than a quarter of the buffer.
const COMPACT_ABOVE: usize = 64 * 1024;

/// Bytes that leave in the order in which they came. Owns nothing while it is empty, unless it was
/// lent a buffer.
#[derive(Debug, Default)]
pub(super) struct Outflow {
    front: Vec<u8>,
    taken: usize,
    more: Option<Box<More>>,
}

/// What does not fit `front`; there is at least one chunk, and none is empty.
#[derive(Debug, Default)]
struct More {
    chunks: VecDeque<Vec<u8>>,
    /// Bytes in all chunks.
    bytes: usize,
    /// An empty chunk that is filled next.
    spare: Vec<u8>,
}

impl Outflow {
    /// Adds bytes at the end.
    #[inline]
    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.more.is_none() && self.front.len() + bytes.len() <= CHUNK {
            self.front.extend_from_slice(bytes);
        } else {
            self.push_chunks(bytes);
        }
    }

    #[cold]
    fn push_chunks(&mut self, mut bytes: &[u8]) {
        if self.more.is_none() {
            let room = CHUNK.saturating_sub(self.front.len());
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            if self.front.capacity() < CHUNK {
                self.front.reserve_exact(CHUNK - self.front.len());
            }
            self.front.extend_from_slice(now);
            bytes = rest;
        }
        if bytes.is_empty() {
            return;
        }
        let more = self.more.get_or_insert_default();
        more.bytes += bytes.len();
        while !bytes.is_empty() {
            let room = match more.chunks.back() {
                Some(last) => last.capacity().min(CHUNK).saturating_sub(last.len()),
                None => 0,
            };
            if room == 0 {
                let mut chunk = std::mem::take(&mut more.spare);
                chunk.reserve_exact(CHUNK);
                more.chunks.push_back(chunk);
            } else if let Some(last) = more.chunks.back_mut() {
                let (now, rest) = bytes.split_at(room.min(bytes.len()));
                last.extend_from_slice(now);
                bytes = rest;
            }
        }
    }

    /// Adds all that another one holds; its chunks are not copied.
    pub(super) fn append(&mut self, mut other: Self) {
        if self.len() == 0 {
            *self = other;
            return;
        }
        self.push(other.next());
        if let Some(mut more) = other.more.take() {
            let own = self.more.get_or_insert_default();
            own.bytes += more.bytes;
            own.chunks.append(&mut more.chunks);
        }
    }

    /// The bytes to write next; empty only if there are none at all.
    pub(super) fn next(&self) -> &[u8] {
        self.front.get(self.taken..).unwrap_or_default()
    }

    /// All bytes, in order.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let chunks = self.more.iter().flat_map(|more| &more.chunks);
        std::iter::once(self.next()).chain(chunks.map(Vec::as_slice))
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        let more = self.more.as_ref().map_or(0, |more| more.bytes);
        self.front.len() - self.taken + more
    }

    /// Notes that the first `count` bytes of [`Outflow::next`] were taken. Returns the empty buffer
    /// when nothing is left, for others to use.
    pub(super) fn advance(&mut self, count: usize) -> Option<Vec<u8>> {
        self.taken = (self.taken + count).min(self.front.len());
        if self.taken < self.front.len() {
            let is_much = self.taken >= COMPACT_ABOVE && self.taken >= self.front.len() / 4;
            if is_much && self.more.is_none() {
                self.front.drain(..self.taken);
                self.taken = 0;
            }
            return None;
        }
        self.taken = 0;
        let mut emptied = std::mem::take(&mut self.front);
        emptied.clear();
        let Some(more) = &mut self.more else {
            return Some(emptied);
        };
        more.spare = emptied;
        self.front = more.chunks.pop_front().unwrap_or_default();
        more.bytes -= self.front.len();
        if more.chunks.is_empty() {
            self.more = None;
        }
        None
    }

    /// Whether it has no buffer; then [`Outflow::lend`] spares an allocation.
    pub(super) const fn is_bare(&self) -> bool {
        self.front.capacity() == 0
    }

    /// Lends it an empty buffer. It must be bare.
    pub(super) fn lend(&mut self, buffer: Vec<u8>) {
        debug_assert!(self.is_bare() && buffer.is_empty(), "nothing is lost");
        self.front = buffer;
    }

    /// The first buffer, with whatever is in it.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.front
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holding(bytes: &[u8]) -> Outflow {
        let mut outflow = Outflow::default();
        outflow.push(bytes);
        outflow
    }

    /// Memory that it owns.
    fn owned(outflow: &Outflow) -> usize {
        let more = outflow.more.as_ref().map_or(0, |more| {
            let chunks = more.chunks.iter().map(Vec::capacity);
            more.spare.capacity() + chunks.sum::<usize>()
        });
        outflow.front.capacity() + more
    }

    #[test]
    fn memory_follows_what_is_there() {
        let mut outflow = Outflow::default();
        let piece = vec![b'x'; 60_000];
        for _ in 0..300 {
            outflow.push(&piece);
        }
        assert_eq!(outflow.len(), 300 * piece.len());
        assert!(owned(&outflow) <= outflow.len() + 2 * CHUNK);
        while outflow.len() > 0 {
            let count = outflow.next().len().min(50_000);
            if let Some(buffer) = outflow.advance(count) {
                outflow.lend(buffer);
            }
            assert!(owned(&outflow) <= outflow.len() + 3 * CHUNK);
        }
        assert!(outflow.more.is_none());
    }

    #[test]
    fn a_client_that_is_always_behind_keeps_little() {
        let mut outflow = Outflow::default();
        for round in 0..1_000 {
            outflow.push(&[b'x'; 10_000]);
            if round > 10 {
                outflow.advance(10_000);
            }
            assert!(owned(&outflow) <= 2 * CHUNK, "{}", owned(&outflow));
        }
        let mut outflow = Outflow::default();
        for _ in 0..1_000 {
            outflow.push(&[b'x'; 10_000]);
            if outflow.len() > 1_000_000 {
                outflow.advance(10_000);
            }
            assert!(owned(&outflow) <= 1_000_000 + 4 * CHUNK);
        }
    }

    #[test]
    fn chunks_are_moved_not_copied() {
        let large = holding(&vec![b'y'; 3 * CHUNK]);
        let second = large.parts().nth(1).unwrap().as_ptr();
        let mut outflow = holding(b"x");
        outflow.append(large);
        assert!(outflow.parts().any(|part| part.as_ptr() == second));
        assert_eq!(outflow.len(), 3 * CHUNK + 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Append(Vec<usize>),
        Take(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = || prop_oneof![0_usize..100, 60_000..70_000_usize, 0..3 * CHUNK];
        let step = prop_oneof![
            size().prop_map(Step::Push),
            prop::collection::vec(size(), 0..3).prop_map(Step::Append),
            size().prop_map(Step::Take),
            Just(Step::Take(usize::MAX)),
        ];
        prop::collection::vec(step, 0..30)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is added, taken and moved, the bytes leave in their order, none is lost, and
        /// there is something to write as long as there is anything.
        #[test]
        fn bytes_leave_in_their_order(steps in steps()) {
            let mut outflow = Outflow::default();
            let (mut came, mut left) = (0_usize, 0_usize);
            // Each byte tells its place.
            let fresh = |from: usize, count: usize| -> Vec<u8> {
                (from..from + count).map(|at| (at % 251).to_le_bytes()[0]).collect()
            };
            let ends = std::iter::repeat_n(Step::Take(usize::MAX), 500);
            for step in steps.into_iter().chain(ends) {
                match step {
                    Step::Push(count) => {
                        outflow.push(&fresh(came, count));
                        came += count;
                    }
                    Step::Append(counts) => {
                        let mut other = Outflow::default();
                        for count in counts {
                            other.push(&fresh(came, count));
                            came += count;
                        }
                        outflow.append(other);
                    }
                    Step::Take(count) => {
                        let next = outflow.next();
                        let count = count.min(next.len());
                        prop_assert_eq!(&next[..count], fresh(left, count));
                        left += count;
                        if let Some(buffer) = outflow.advance(count) {
                            prop_assert!(buffer.is_empty());
                        }
                    }
                }
                prop_assert_eq!(outflow.len(), came - left);
                prop_assert_eq!(outflow.next().is_empty(), came == left);
                prop_assert!(outflow.front.len() <= CHUNK);
            }
            prop_assert_eq!(came, left);
        }
    }
}
