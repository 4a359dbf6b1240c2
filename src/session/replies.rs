//! Floor 3. Replies leave in the order of the requests, whichever connection answered first.
//!
//! ```text
//!  out      [ bytes the client took | bytes on their way ]        replies below `head`
//!  parked   [ head: waiting | head+1: done | head+2: waiting ]    while an answer overtook one
//! ```
//!
//! Requests are numbered; `head` is the oldest whose reply is not wholly in `out`. Answers that
//! come in order, which is nearly all of them, are copied once, into `out`. An idle client owns
//! nothing here.

use std::collections::VecDeque;
use std::ops::Range;

use crate::session::outflow::Outflow;

/// Number of a request within its session; wraps around.
pub type Seq = u32;

/// The reply side of a session.
#[derive(Debug, Default)]
pub struct Replies {
    out: Outflow,
    head: Seq,
    next: Seq,
    /// Whether a part of `head`'s reply is in `out` already.
    partial: bool,
    parked: Option<Box<Parked>>,
    /// Pushes that came in the middle of a reply; they follow it.
    pushes: Vec<u8>,
}

/// Answers that overtook an earlier one. `slots[i]` belongs to request `head + i`.
///
/// Where replies of two nodes are put in order that is what every batch needs, so it is lent like a
/// buffer of the output, and given back as that is.
#[derive(Debug, Default)]
pub struct Parked {
    slots: VecDeque<Slot>,
    arena: Vec<u8>,
    /// Bytes of the arena that have left.
    dead: usize,
    /// Bytes of replies in pieces.
    pieces: usize,
}

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Waiting,
    /// A whole reply, in the arena.
    Done(Range<usize>),
    /// The same, and it acknowledges a write.
    Acknowledged(Range<usize>),
    /// A reply that arrives in pieces.
    Pieces { bytes: Box<Outflow>, whole: bool },
}

/// Whether a piece of a reply is its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// More follows.
    More,
    /// The reply is whole with this piece.
    Last,
}

impl Replies {
    /// Gives the next request its number.
    pub const fn begin(&mut self) -> Seq {
        let seq = self.next;
        self.next = seq.wrapping_add(1);
        seq
    }

    /// The number that the next request gets.
    pub const fn next(&self) -> Seq {
        self.next
    }

    /// Requests whose reply is not wholly in the output yet.
    pub const fn outstanding(&self) -> u32 {
        self.next.wrapping_sub(self.head)
    }

    /// The latest request.
    pub const fn latest(&self) -> Seq {
        self.next.wrapping_sub(1)
    }

    /// Whether `seq` is the latest request.
    pub const fn is_latest(&self, seq: Seq) -> bool {
        seq.wrapping_add(1) == self.next
    }

    /// Whether `seq` is the request whose reply is due next, and nothing of it has come.
    pub const fn is_due(&self, seq: Seq) -> bool {
        self.head == seq && self.next != seq && !self.partial
    }

    /// Whether a part of a reply is in the output that is not whole: nothing else may follow it.
    pub const fn is_partial(&self) -> bool {
        self.partial
    }

    /// Whether a part of a reply to `seq`, or all of it, has been taken.
    pub fn is_begun(&self, seq: Seq) -> bool {
        let ahead = seq.wrapping_sub(self.head);
        let parked = self.parked.as_ref();
        let slot = usize::try_from(ahead)
            .ok()
            .and_then(|ahead| parked?.slots.get(ahead));
        (self.partial && ahead == 0)
            || matches!(
                slot,
                Some(Slot::Done(_) | Slot::Acknowledged(_) | Slot::Pieces { .. })
            )
    }

    /// Takes back what has come of a reply to `seq`, because its connection is lost. False if a
    /// part of it is in the output already: nothing else may follow it then.
    #[must_use = "half a reply cannot be followed by anything"]
    pub fn retract(&mut self, seq: Seq) -> bool {
        if self.partial && self.head == seq {
            return false;
        }
        let index = usize::try_from(seq.wrapping_sub(self.head)).ok();
        if let (Some(parked), Some(index)) = (&mut self.parked, index)
            && let Some(slot @ Slot::Pieces { .. }) = parked.slots.get_mut(index)
            && let Slot::Pieces { bytes, .. } = std::mem::take(slot)
        {
            parked.pieces -= bytes.len();
        }
        true
    }

    /// Takes a reply, or a piece of it, of request `seq`.
    #[inline]
    pub fn deliver(&mut self, seq: Seq, bytes: &[u8], piece: Piece) {
        if seq != self.head {
            return self.park(seq, bytes, piece);
        }
        self.out.push(bytes);
        match piece {
            Piece::More => self.partial = true,
            Piece::Last => {
                self.partial = false;
                self.head = self.head.wrapping_add(1);
                if self.parked.is_some() || !self.pushes.is_empty() {
                    self.unpark();
                }
            }
        }
    }

    /// The whole reply that was delivered to `seq` acknowledges a write: while it waits for earlier
    /// ones, [`Replies::take_back`] finds it. Nothing happens if it does not wait.
    pub fn acknowledge(&mut self, seq: Seq) {
        if seq.wrapping_sub(self.head) >= self.outstanding() {
            return;
        }
        let index = usize::try_from(seq.wrapping_sub(self.head)).ok();
        let (Some(parked), Some(index)) = (&mut self.parked, index) else {
            return;
        };
        match parked.slots.get_mut(index) {
            Some(slot @ Slot::Done(_)) => {
                if let Slot::Done(range) = std::mem::take(slot) {
                    *slot = Slot::Acknowledged(range);
                }
            }
            Some(slot @ Slot::Pieces { whole: true, .. }) => {
                if let Slot::Pieces { bytes, .. } = std::mem::take(slot) {
                    parked.pieces -= bytes.len();
                    let start = parked.arena.len();
                    for part in bytes.parts() {
                        parked.arena.extend_from_slice(part);
                    }
                    *slot = Slot::Acknowledged(start..parked.arena.len());
                }
            }
            _ => {}
        }
    }

    /// Takes every reply back that acknowledges a write and waits for an earlier one. Their
    /// requests have no reply any more, and are to get another one.
    pub fn take_back(&mut self) -> Vec<(Seq, Vec<u8>)> {
        let Some(parked) = &mut self.parked else {
            return Vec::new();
        };
        let mut taken = Vec::new();
        let mut seq = self.head;
        for slot in &mut parked.slots {
            if let Slot::Acknowledged(range) = slot {
                let bytes = parked.arena.get(range.clone()).unwrap_or_default();
                parked.dead += bytes.len();
                taken.push((seq, bytes.to_vec()));
                *slot = Slot::Waiting;
            }
            seq = seq.wrapping_add(1);
        }
        taken
    }

    /// Takes a push message, which belongs to no request.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.partial {
            self.pushes.extend_from_slice(bytes);
        } else {
            self.out.push(bytes);
        }
    }

    /// The bytes to write to the client next: of all that it has not taken the first ones, empty if
    /// there are none.
    pub fn output(&self) -> &[u8] {
        self.out.next()
    }

    /// How many bytes the client has not taken.
    pub fn unread(&self) -> usize {
        self.out.len()
    }

    /// Notes that the client took the first `count` bytes of [`Replies::output`]. Returns the empty
    /// buffer when nothing is left, for others to use.
    pub fn advance(&mut self, count: usize) -> Option<Vec<u8>> {
        self.out.advance(count)
    }

    /// Whether the output has no buffer; then [`Replies::lend`] spares an allocation.
    pub const fn is_bare(&self) -> bool {
        self.out.is_bare()
    }

    /// Whether nothing is kept but an output buffer.
    #[cfg(test)]
    pub fn owns_nothing(&self) -> bool {
        self.parked.is_none() && self.pushes.capacity() == 0
    }

    /// Whether a reply to `seq` would wait for earlier ones, and nothing is there to hold it; then
    /// [`Replies::lend_parked`] spares some allocations.
    #[inline]
    pub const fn parks(&self, seq: Seq) -> bool {
        seq != self.head && self.parked.is_none()
    }

    /// Lends what holds replies that wait for earlier ones.
    pub fn lend_parked(&mut self, parked: Box<Parked>) {
        debug_assert!(self.parked.is_none(), "asked before");
        self.parked = Some(parked);
    }

    /// Takes what held replies that waited for earlier ones, if none does any more: for others to
    /// use, unless it is too large to be kept.
    #[inline]
    pub fn spare_parked(&mut self) -> Option<Box<Parked>> {
        let mut parked = self.parked.take_if(|parked| parked.slots.is_empty())?;
        parked.clear();
        parked.is_small().then_some(parked)
    }

    /// Lends the output an empty buffer.
    pub fn lend(&mut self, buffer: Vec<u8>) {
        self.out.lend(buffer);
    }

    /// The output's buffer, with whatever is in it.
    pub fn into_buffer(self) -> Vec<u8> {
        self.out.into_buffer()
    }

    /// Bytes of answers that wait for earlier ones.
    pub fn parked_bytes(&self) -> usize {
        let parked = self.parked.as_ref();
        parked.map_or(0, |parked| parked.arena.len() - parked.dead + parked.pieces)
    }

    /// The oldest request whose reply is not wholly in the output.
    pub const fn oldest(&self) -> Seq {
        self.head
    }

    /// Bytes held for the client: output it has not taken, and answers that wait for earlier ones.
    pub fn held_bytes(&self) -> usize {
        self.out.len() + self.parked_bytes() + self.pushes.len()
    }

    fn park(&mut self, seq: Seq, bytes: &[u8], piece: Piece) {
        debug_assert!(
            seq.wrapping_sub(self.head) < self.outstanding(),
            "each request is answered once"
        );
        let parked = self.parked.get_or_insert_default();
        // A sequence number is at most `outstanding` ahead of the head; on a target where that does
        // not fit an index, nothing fits anyway.
        let Ok(index) = usize::try_from(seq.wrapping_sub(self.head)) else {
            return;
        };
        while parked.slots.len() <= index {
            parked.slots.push_back(Slot::Waiting);
        }
        let Some(slot) = parked.slots.get_mut(index) else {
            return;
        };
        match (&mut *slot, piece) {
            (Slot::Waiting, Piece::Last) => {
                let start = parked.arena.len();
                parked.arena.extend_from_slice(bytes);
                *slot = Slot::Done(start..parked.arena.len());
            }
            (Slot::Waiting, Piece::More) => {
                parked.pieces += bytes.len();
                let mut held = Box::<Outflow>::default();
                held.push(bytes);
                *slot = Slot::Pieces {
                    bytes: held,
                    whole: false,
                };
            }
            (Slot::Pieces { bytes: held, whole }, piece) => {
                held.push(bytes);
                parked.pieces += bytes.len();
                *whole = piece == Piece::Last;
            }
            // A second answer to one request: the connection's pipeline makes that impossible.
            (Slot::Done(_) | Slot::Acknowledged(_), _) => {}
        }
    }

    /// Moves what may leave now from `parked` to `out`, after `head` advanced by one.
    fn unpark(&mut self) {
        let pushes = std::mem::take(&mut self.pushes);
        self.out.push(&pushes);
        let Some(parked) = &mut self.parked else {
            return;
        };
        // The slot of the request that was just answered directly.
        parked.slots.pop_front();
        loop {
            match parked.slots.front_mut() {
                Some(Slot::Done(range) | Slot::Acknowledged(range)) => {
                    let bytes = parked.arena.get(range.clone()).unwrap_or_default();
                    self.out.push(bytes);
                    parked.dead += bytes.len();
                }
                Some(Slot::Pieces { bytes, whole }) => {
                    parked.pieces -= bytes.len();
                    self.out.append(std::mem::take(&mut **bytes));
                    if !*whole {
                        self.partial = true;
                        return self.trim();
                    }
                }
                Some(Slot::Waiting) | None => return self.trim(),
            }
            parked.slots.pop_front();
            self.head = self.head.wrapping_add(1);
        }
    }

    /// Gives memory back once nothing is parked, or leaves it to [`Replies::spare_parked`], and
    /// reclaims an arena that never gets empty.
    fn trim(&mut self) {
        let Some(parked) = &mut self.parked else {
            return;
        };
        if parked.slots.is_empty() {
            if self.out.len() == 0 || !parked.is_small() {
                // Nobody comes for it, or not soon.
                self.parked = None;
            } else {
                parked.clear();
            }
            return;
        }
        if parked.dead <= ARENA_COMPACT_ABOVE || parked.dead <= parked.arena.len() / 2 {
            return;
        }
        let old = std::mem::take(&mut parked.arena);
        for slot in &mut parked.slots {
            if let Slot::Done(range) | Slot::Acknowledged(range) = slot {
                let start = parked.arena.len();
                parked
                    .arena
                    .extend_from_slice(old.get(range.clone()).unwrap_or_default());
                *range = start..parked.arena.len();
            }
        }
        parked.dead = 0;
    }
}

impl Parked {
    fn clear(&mut self) {
        self.slots.clear();
        self.arena.clear();
        (self.dead, self.pieces) = (0, 0);
    }

    fn is_small(&self) -> bool {
        self.slots.capacity() <= KEEP_SLOTS && self.arena.capacity() <= KEEP_ARENA
    }
}

/// Requests of which the places are kept for others to use.
const KEEP_SLOTS: usize = 512;
/// Bytes of the arena that are.
const KEEP_ARENA: usize = 16 * 1024;

/// Dead bytes in the arena before the living ones are moved together.
const ARENA_COMPACT_ABOVE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the client reads; what is idle then is taken back.
    fn taken(replies: &mut Replies) -> String {
        let text = String::from_utf8(replies.output().to_vec()).unwrap();
        replies.advance(text.len());
        replies.spare_parked();
        text
    }

    fn acknowledge(replies: &mut Replies, seq: Seq, bytes: &[u8]) {
        replies.deliver(seq, bytes, Piece::Last);
        replies.acknowledge(seq);
    }

    #[test]
    fn what_acknowledges_can_be_taken_back_while_it_waits() {
        let mut replies = Replies::default();
        let seqs: Vec<_> = (0..5).map(|_| replies.begin()).collect();
        acknowledge(&mut replies, seqs[3], b"d");
        replies.deliver(seqs[2], b"c", Piece::Last);
        acknowledge(&mut replies, seqs[1], b"b");
        let back = vec![(seqs[1], b"b".to_vec()), (seqs[3], b"d".to_vec())];
        assert_eq!(replies.take_back(), back);
        assert_eq!(replies.take_back(), []);
        assert_eq!(replies.held_bytes(), 1);
        acknowledge(&mut replies, seqs[0], b"a");
        assert_eq!(taken(&mut replies), "a");
        acknowledge(&mut replies, seqs[1], b"B");
        assert_eq!(taken(&mut replies), "Bc", "what is out is given");
        replies.deliver(seqs[4], b"e", Piece::Last);
        assert_eq!(replies.take_back(), []);
        acknowledge(&mut replies, seqs[3], b"D");
        assert_eq!(taken(&mut replies), "De");
        assert!(replies.owns_nothing());
    }

    #[test]
    fn what_acknowledges_in_pieces_can_be_taken_back_once_it_is_whole() {
        let mut replies = Replies::default();
        let (a, b) = (replies.begin(), replies.begin());
        replies.deliver(b, b"one ", Piece::More);
        assert_eq!(replies.take_back(), []);
        acknowledge(&mut replies, b, b"two");
        assert_eq!(replies.held_bytes(), 7);
        assert_eq!(replies.take_back(), [(b, b"one two".to_vec())]);
        assert_eq!(replies.held_bytes(), 0);
        replies.deliver(a, b"a", Piece::Last);
        replies.deliver(b, b"b", Piece::Last);
        assert_eq!(taken(&mut replies), "ab");
        assert!(replies.owns_nothing());
    }

    #[test]
    fn what_held_parked_replies_is_used_again() {
        let mut replies = Replies::default();
        let (a, b) = (replies.begin(), replies.begin());
        assert!(replies.parks(b) && !replies.parks(a));
        replies.deliver(b, b"b", Piece::Last);
        assert!(!replies.parks(b), "it has one");
        replies.deliver(a, b"a", Piece::Last);
        assert_eq!(replies.held_bytes(), 2);
        let parked = replies.spare_parked().expect("nothing is outstanding");
        assert!(replies.owns_nothing());
        let mut other = Replies::default();
        let seqs: Vec<_> = (0..4).map(|_| other.begin()).collect();
        other.lend_parked(parked);
        other.deliver(seqs[1], b"B", Piece::Last);
        assert!(other.spare_parked().is_none(), "it holds one");
        other.deliver(seqs[0], b"A", Piece::Last);
        assert_eq!(taken(&mut other), "AB");
        assert!(other.owns_nothing(), "though two are outstanding");
        other.deliver(seqs[3], b"", Piece::Last);
        other.deliver(seqs[2], b"", Piece::Last);
        assert!(other.owns_nothing(), "nobody would come for it");
    }

    #[test]
    fn what_held_large_parked_replies_is_not_kept_for_a_slow_reader() {
        let mut replies = Replies::default();
        let seqs: Vec<_> = (0..4).map(|_| replies.begin()).collect();
        replies.deliver(seqs[1], &vec![b'x'; KEEP_ARENA + 1], Piece::Last);
        replies.deliver(seqs[2], b"c", Piece::Last);
        replies.deliver(seqs[0], b"a", Piece::Last);
        assert!(
            replies.owns_nothing(),
            "nothing is read, one is outstanding"
        );
        assert_eq!(replies.unread(), KEEP_ARENA + 3);
    }

    #[test]
    fn an_answer_that_overtakes_waits_for_the_earlier_ones() {
        let mut replies = Replies::default();
        let (a, b, c) = (replies.begin(), replies.begin(), replies.begin());
        replies.deliver(c, b"c", Piece::Last);
        replies.deliver(b, b"b", Piece::Last);
        assert_eq!(taken(&mut replies), "");
        assert_eq!(replies.held_bytes(), 2);
        replies.deliver(a, b"a", Piece::Last);
        assert_eq!(taken(&mut replies), "abc");
        assert_eq!(replies.outstanding(), 0);
        assert!(replies.parked.is_none());
    }

    #[test]
    fn pieces_of_the_oldest_reply_leave_at_once_and_a_push_waits_for_the_last() {
        let mut replies = Replies::default();
        let (a, b) = (replies.begin(), replies.begin());
        replies.deliver(b, b"b1", Piece::More);
        replies.deliver(a, b"a1", Piece::More);
        assert_eq!(taken(&mut replies), "a1");
        replies.push(b"!");
        assert!(replies.is_begun(a) && replies.is_begun(b));
        assert!(!replies.retract(a));
        replies.deliver(a, b"a2", Piece::Last);
        assert_eq!(taken(&mut replies), "a2!b1");
        assert!(!replies.retract(b));
        replies.deliver(b, b"b2", Piece::Last);
        assert_eq!(taken(&mut replies), "b2");
        assert_eq!(replies.outstanding(), 0);
    }

    #[test]
    fn half_a_reply_that_nobody_has_seen_is_taken_back() {
        let mut replies = Replies::default();
        let (a, b) = (replies.begin(), replies.begin());
        replies.deliver(b, b"half", Piece::More);
        assert!(!replies.is_begun(a) && replies.is_begun(b));
        assert!(replies.retract(a) && replies.retract(b));
        assert!(!replies.is_begun(b));
        assert_eq!(replies.held_bytes(), 0);
        replies.deliver(b, b"b", Piece::Last);
        replies.deliver(a, b"a", Piece::Last);
        assert_eq!(taken(&mut replies), "ab");
    }

    proptest! {
        /// Any interleaving of connections and pieces gives the replies in the order of the
        /// requests.
        #[test]
        fn any_interleaving_leaves_in_order(
            lanes in prop::collection::vec(0_usize..3, 1..60),
            picks in prop::collection::vec((0_usize..3, any::<bool>()), 0..400),
            first in any::<u32>(),
        ) {
            let mut replies = Replies { head: first, next: first, ..Replies::default() };
            let mut queues = vec![VecDeque::new(); 3];
            let mut want = Vec::new();
            for (at, lane) in lanes.iter().enumerate() {
                let body = format!("<{at}>").into_bytes();
                want.extend_from_slice(&body);
                queues[*lane].push_back((replies.begin(), body));
            }
            let rest = (0..3).flat_map(|lane| std::iter::repeat_n((lane, true), 200));
            let mut got = Vec::new();
            let mut spare = None;
            for (lane, whole) in picks.into_iter().chain(rest) {
                let Some((seq, body)) = queues[lane].front_mut() else { continue };
                if replies.parks(*seq) && let Some(parked) = spare.take() {
                    replies.lend_parked(parked);
                }
                if whole || body.len() == 1 {
                    replies.deliver(*seq, body, Piece::Last);
                    queues[lane].pop_front();
                } else {
                    replies.deliver(*seq, &body[..1], Piece::More);
                    body.remove(0);
                }
                let count = replies.output().len();
                got.extend_from_slice(replies.output());
                replies.advance(count);
                spare = spare.or_else(|| replies.spare_parked());
            }
            prop_assert_eq!(got, want);
            prop_assert_eq!(replies.outstanding(), 0);
            prop_assert_eq!(replies.held_bytes(), 0);
        }
    }
}
