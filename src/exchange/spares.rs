//! Floor 4. Memory that clients need for a moment, and give to each other when they are idle.

use crate::session::{Parked, Replies, Seq};

/// Buffers kept.
const BUFFERS_MAX: usize = 128;
/// Capacity above which a buffer is given back to the allocator instead.
const BUFFER_CAPACITY: usize = 16 * 1024;

/// Holders of replies that wait for earlier ones, kept.
const PARKED_MAX: usize = 64;

/// What nobody needs now.
#[derive(Debug, Default)]
pub(super) struct Spares {
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "they are lent in their boxes")]
    parked: Vec<Box<Parked>>,
}

impl Spares {
    /// An empty buffer, with room if there is one.
    #[inline]
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_default()
    }

    /// Lends a client what the reply to `seq` needs, as far as it has not got it.
    #[inline]
    pub(super) fn lend(&mut self, replies: &mut Replies, seq: Seq) {
        if replies.is_bare()
            && let Some(buffer) = self.buffers.pop()
        {
            replies.lend(buffer);
        }
        if replies.parks(seq)
            && let Some(parked) = self.parked.pop()
        {
            replies.lend_parked(parked);
        }
    }

    /// Takes back what a client has needed for output that is all gone now.
    #[inline]
    pub(super) fn reclaim(&mut self, replies: &mut Replies, buffer: Vec<u8>) {
        self.keep(buffer);
        if let Some(parked) = replies.spare_parked()
            && self.parked.len() < PARKED_MAX
        {
            self.parked.push(parked);
        }
    }

    /// Whether no more is kept than may be.
    #[cfg(test)]
    pub(super) fn is_bounded(&self) -> bool {
        self.buffers.len() <= BUFFERS_MAX && self.parked.len() <= PARKED_MAX
    }

    /// Takes a buffer back.
    pub(super) fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS_MAX
            && buffer.capacity() > 0
            && buffer.capacity() <= BUFFER_CAPACITY
        {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::session::Piece;

    use super::*;

    /// Two replies in the wrong order, read by their client.
    fn batch(spares: &mut Spares, replies: &mut Replies) {
        let (a, b) = (replies.begin(), replies.begin());
        for seq in [b, a] {
            spares.lend(replies, seq);
            replies.deliver(seq, b"+OK\r\n", Piece::Last);
        }
        let buffer = replies.advance(10).expect("all of it");
        spares.reclaim(replies, buffer);
    }

    #[test]
    fn clients_use_the_same_memory_one_after_another() {
        let mut spares = Spares::default();
        let mut clients: Vec<Replies> = (0..3).map(|_| Replies::default()).collect();
        for replies in &mut clients {
            batch(&mut spares, replies);
            assert!(replies.owns_nothing() && replies.is_bare());
            assert_eq!((spares.buffers.len(), spares.parked.len()), (1, 1));
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut spares = Spares::default();
        let mut clients: Vec<Replies> = (0..200).map(|_| Replies::default()).collect();
        for replies in &mut clients {
            let (a, b) = (replies.begin(), replies.begin());
            replies.deliver(b, b"b", Piece::Last);
            replies.deliver(a, b"a", Piece::Last);
        }
        for replies in &mut clients {
            let buffer = replies.advance(2).expect("all of it");
            spares.reclaim(replies, buffer);
            assert!(replies.owns_nothing());
        }
        assert_eq!(spares.buffers.len(), BUFFERS_MAX);
        assert_eq!(spares.parked.len(), PARKED_MAX);
        spares.buffers.clear();
        spares.keep(Vec::with_capacity(BUFFER_CAPACITY + 1));
        spares.keep(Vec::new());
        assert!(spares.buffers.is_empty(), "too large, or nothing");
    }
}
