//! Floor 1. The FIFO of one connection: commands leave in order, replies come back in order.
//!
//! ```text
//!  bytes   |  replied (gone)  |  written, no reply yet  |  not written yet  |
//!                             ^ start                   ^ written           ^ end
//!  tickets                    [t0][ t1 ][t2]...         [ tn ]
//! ```
//!
//! A command's bytes stay until its reply has come, so that on a loss the caller can say of each
//! one whether it was written, and send it again elsewhere where that is allowed.
//!
//! One command may be passed on while it comes, on a connection where nothing else is in flight:
//! its bytes are gone once they are written, and whether it was sent is all that is known of it.
//!
//! Invariants: `start <= written <= bytes.len()`; the lengths of `tickets` sum to
//! `bytes.len() - start`; `flushes` rise in `upto`, and the last one is at the offset of `written`.

use std::collections::VecDeque;

use crate::types::Time;

/// Replied bytes kept at the front before the rest is moved down. Moving costs a copy of what is in
/// flight, so it waits until the front is at least as large.
const COMPACT_ABOVE: usize = 64 * 1024;

/// Capacity that an empty pipeline keeps; one huge command must not pin its memory for ever.
const KEEP_CAPACITY: usize = 256 * 1024;

/// What is in flight on one connection.
#[derive(Debug)]
pub struct Pipeline<T> {
    bytes: Vec<u8>,
    start: usize,
    written: usize,
    tickets: VecDeque<Entry<T>>,
    flushes: VecDeque<Flush>,
    /// Offset of `start` in the connection's whole output.
    start_offset: u64,
    /// Whether the oldest command is passed on while it comes.
    stream: Stream,
}

/// Whether, and how far, a command is passed on while it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    /// None is.
    No,
    /// Its end has not come.
    Open,
    /// All of it has come.
    Whole,
}

/// A command that got its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed<T> {
    /// What was handed in with the command.
    pub ticket: T,
    /// When its last byte was written.
    pub written_at: Time,
}

/// A command that was written and has no reply yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting<'a, T> {
    /// How many commands without a reply are before it.
    pub place: usize,
    /// What was handed in with the command.
    pub ticket: T,
    /// The command.
    pub bytes: &'a [u8],
    /// Offset of its first byte in the connection's whole output.
    pub offset: u64,
    /// When its last byte was written.
    pub written_at: Time,
}

/// A command that will get no reply, because its connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<'a, T> {
    /// What was handed in with the command.
    pub ticket: T,
    /// The command.
    pub bytes: &'a [u8],
    /// Whether a server can have it.
    pub sent: Sent,
}

/// Whether a whole copy of a command can have reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Its last byte was never given to the socket: no server can have executed it.
    No,
    /// All of it was given to the socket: it may have been executed.
    Yes,
}

#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    ticket: T,
    len: usize,
}

/// All bytes below the offset `upto` were written at `at` or before.
#[derive(Clone, Copy, Debug)]
struct Flush {
    upto: u64,
    at: Time,
}

impl<T: Copy> Pipeline<T> {
    /// Nothing in flight.
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            written: 0,
            tickets: VecDeque::new(),
            flushes: VecDeque::new(),
            start_offset: 0,
            stream: Stream::No,
        }
    }

    /// Commands without a reply.
    pub fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Whether every command got its reply.
    pub fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Bytes of commands without a reply, which is the memory they hold.
    pub fn pending_bytes(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// The oldest command without a reply, if all of it was written.
    pub fn oldest_written(&self) -> Option<T> {
        let entry = self.tickets.front()?;
        let whole = self.stream != Stream::Open;
        (whole && self.start + entry.len <= self.written).then_some(entry.ticket)
    }

    /// The oldest command without a reply, written or not.
    pub fn oldest_ticket(&self) -> Option<&T> {
        self.tickets.front().map(|entry| &entry.ticket)
    }

    /// The last command, if it has no reply, written or not.
    pub fn newest_ticket(&self) -> Option<T> {
        self.tickets.back().map(|entry| entry.ticket)
    }

    /// The oldest command without a reply and its bytes, if all of it was written.
    pub fn oldest(&self) -> Option<(T, &[u8])> {
        let ticket = self.oldest_written()?;
        let len = self.tickets.front()?.len;
        Some((ticket, self.bytes.get(self.start..self.start + len)?))
    }

    /// The tickets of all commands without a reply, oldest first.
    pub fn tickets(&self) -> impl Iterator<Item = T> + '_ {
        self.tickets.iter().map(|entry| entry.ticket)
    }

    /// Every command that was written wholly and has no reply, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = Waiting<'_, T>> + '_ {
        let mut flushes = self.flushes.iter().peekable();
        let mut end = self.start;
        let whole = self.stream != Stream::Open;
        self.tickets
            .iter()
            .take_while(move |_| whole)
            .enumerate()
            .map_while(move |(place, entry)| {
                let start = end;
                end += entry.len;
                let upto = self.start_offset + offset(end - self.start);
                while flushes.next_if(|flush| flush.upto < upto).is_some() {}
                Some(Waiting {
                    place,
                    ticket: entry.ticket,
                    bytes: self.bytes.get(start..end)?,
                    offset: self.start_offset + offset(start - self.start),
                    written_at: flushes.peek()?.at,
                })
            })
    }

    /// Whether the command whose first byte has this offset in the connection's whole output has
    /// its reply.
    pub fn is_answered(&self, offset: u64) -> bool {
        offset < self.start_offset
    }

    /// The ticket of a command without a reply, by its place: 0 is the oldest.
    pub fn ticket_mut(&mut self, place: usize) -> Option<&mut T> {
        self.tickets.get_mut(place).map(|entry| &mut entry.ticket)
    }

    /// The tickets of all commands without a reply, oldest first, to be changed.
    pub fn tickets_mut(&mut self) -> impl Iterator<Item = &mut T> + '_ {
        self.tickets.iter_mut().map(|entry| &mut entry.ticket)
    }

    /// Appends a command; it leaves with the next write.
    pub fn push(&mut self, ticket: T, command: &[u8]) {
        self.bytes.extend_from_slice(command);
        self.tickets.push_back(Entry {
            ticket,
            len: command.len(),
        });
    }

    /// Begins a command of which more is to come, where nothing is in flight; returns whether that
    /// is so. It is the only one until its reply has come.
    pub fn open(&mut self, ticket: T, front: &[u8]) -> bool {
        let free = self.is_empty();
        if free {
            self.push(ticket, front);
            self.stream = Stream::Open;
        }
        free
    }

    /// More of that command; `whole` says that this is its end.
    pub fn feed(&mut self, bytes: &[u8], whole: bool) {
        if self.stream == Stream::Open
            && let Some(entry) = self.tickets.front_mut()
        {
            entry.len += bytes.len();
            self.bytes.extend_from_slice(bytes);
            if whole {
                self.stream = Stream::Whole;
            }
        }
    }

    /// Whether the end of the only command has not come.
    pub fn is_open(&self) -> bool {
        self.stream == Stream::Open
    }

    /// Whether the oldest command is, or was, passed on while it came: its bytes are not kept.
    pub fn is_streamed(&self) -> bool {
        self.stream != Stream::No
    }

    /// The bytes to write next.
    pub fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.written..).unwrap_or_default()
    }

    /// Notes that the socket took the first `count` bytes of [`Pipeline::unwritten`].
    pub fn advance_written(&mut self, count: usize, now: Time) {
        self.written = (self.written + count).min(self.bytes.len());
        let upto = self.start_offset + offset(self.written - self.start);
        self.flushes.push_back(Flush { upto, at: now });
        if self.stream != Stream::No {
            self.drop_written();
        }
    }

    /// Forgets what was written of a command that nobody could send again.
    fn drop_written(&mut self) {
        let Some(entry) = self.tickets.front_mut() else {
            return;
        };
        let gone = entry.len.min(self.written - self.start);
        entry.len -= gone;
        self.bytes.drain(self.start..self.start + gone);
        self.written -= gone;
        self.start_offset += offset(gone);
        if gone > 0 {
            // Only the last of them will be asked for.
            let last = self.flushes.len().saturating_sub(1);
            self.flushes.drain(..last);
        }
    }

    /// Takes the oldest command off, because its reply has come.
    ///
    /// `None` if no whole command was written: the peer sent a reply that nobody asked for.
    pub fn complete(&mut self) -> Option<Completed<T>> {
        let entry = *self.tickets.front()?;
        if self.start + entry.len > self.written || self.stream == Stream::Open {
            return None;
        }
        self.stream = Stream::No;
        self.tickets.pop_front();
        self.start += entry.len;
        self.start_offset += offset(entry.len);
        let written_at = self.flushed_at(self.start_offset);
        if self.start == self.bytes.len() {
            self.reset_buffer();
        } else if self.start > COMPACT_ABOVE && self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.written -= self.start;
            self.start = 0;
        }
        Some(Completed {
            ticket: entry.ticket,
            written_at,
        })
    }

    /// Every command without a reply, oldest first. The caller drops the pipeline afterwards.
    pub fn lost(&self) -> impl Iterator<Item = Lost<'_, T>> + '_ {
        let mut at = self.start;
        let whole = self.stream != Stream::Open;
        self.tickets.iter().map(move |entry| {
            let end = at + entry.len;
            let bytes = self.bytes.get(at..end).unwrap_or_default();
            let sent = if whole && end <= self.written {
                Sent::Yes
            } else {
                Sent::No
            };
            at = end;
            Lost {
                ticket: entry.ticket,
                bytes,
                sent,
            }
        })
    }

    /// When the byte before offset `end` was written.
    fn flushed_at(&mut self, end: u64) -> Time {
        while let Some(flush) = self.flushes.front() {
            if flush.upto >= end {
                return flush.at;
            }
            self.flushes.pop_front();
        }
        // Unreachable by the invariant on `flushes`; a wrong time is better than a crash.
        Time::ZERO
    }

    fn reset_buffer(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.written = 0;
        self.flushes.clear();
        if self.bytes.capacity() > KEEP_CAPACITY {
            self.bytes.shrink_to(KEEP_CAPACITY);
        }
    }
}

impl<T: Copy> Default for Pipeline<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A length in memory as an offset in a stream.
#[expect(
    clippy::as_conversions,
    reason = "usize has at most 64 bits on every target of Rust"
)]
const fn offset(len: usize) -> u64 {
    len as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn replies_complete_commands_in_the_order_of_their_writing() {
        let mut pipeline = Pipeline::new();
        pipeline.push('a', b"GET a");
        pipeline.push('b', b"GET bb");
        assert_eq!(pipeline.unwritten(), b"GET aGET bb");
        pipeline.advance_written(5, at(1));
        pipeline.advance_written(6, at(2));
        let done = pipeline.complete().unwrap();
        assert_eq!(
            done,
            Completed {
                ticket: 'a',
                written_at: at(1)
            }
        );
        assert_eq!(pipeline.complete().unwrap().written_at, at(2));
        assert!(pipeline.is_empty() && pipeline.complete().is_none());
    }

    #[test]
    fn a_reply_before_the_whole_command_was_written_is_nobodys() {
        let mut pipeline = Pipeline::new();
        pipeline.push('a', b"GET a");
        pipeline.advance_written(4, at(1));
        assert_eq!(pipeline.complete(), None);
        assert_eq!(pipeline.oldest_written(), None);
    }

    #[test]
    fn a_command_whose_last_byte_was_not_written_counts_as_not_sent() {
        let mut pipeline = Pipeline::new();
        pipeline.push(1, b"INCR a");
        pipeline.push(2, b"INCR b");
        pipeline.push(3, b"INCR c");
        pipeline.advance_written(6 + 5, at(1));
        let lost: Vec<_> = pipeline
            .lost()
            .map(|lost| (lost.ticket, lost.sent))
            .collect();
        assert_eq!(lost, [(1, Sent::Yes), (2, Sent::No), (3, Sent::No)]);
        assert_eq!(pipeline.lost().nth(1).unwrap().bytes, b"INCR b");
    }

    #[test]
    fn what_waits_is_told_with_the_time_of_its_writing() {
        let mut pipeline = Pipeline::new();
        for ticket in 1..=4 {
            pipeline.push(ticket, b"GET a");
        }
        pipeline.advance_written(5, at(1));
        pipeline.advance_written(10 + 4, at(2));
        pipeline.complete().unwrap();
        let waiting: Vec<_> = pipeline
            .waiting()
            .map(|it| (it.place, it.ticket, it.offset, it.written_at))
            .collect();
        assert_eq!(waiting, [(0, 2, 5, at(2)), (1, 3, 10, at(2))]);
        *pipeline.ticket_mut(1).unwrap() = 9;
        assert_eq!(pipeline.tickets().collect::<Vec<_>>(), [2, 9, 4]);
    }

    #[test]
    fn a_command_that_is_passed_on_while_it_comes_leaves_nothing_behind() {
        let mut pipeline = Pipeline::new();
        assert!(pipeline.open('a', b"SET k "));
        assert!(pipeline.is_open() && pipeline.is_streamed());
        assert!(!pipeline.open('b', b"SET k "), "one at a time");
        pipeline.advance_written(4, at(1));
        assert_eq!(
            (pipeline.unwritten(), pipeline.pending_bytes()),
            (&b"k "[..], 2)
        );
        pipeline.advance_written(2, at(2));
        assert_eq!(pipeline.complete(), None, "its end has not come");
        assert_eq!(pipeline.oldest_written(), None);
        assert_eq!(pipeline.waiting().count(), 0);
        let sent = |pipeline: &Pipeline<char>| {
            let lost = pipeline.lost().map(|lost| (lost.ticket, lost.sent));
            lost.collect::<Vec<_>>()
        };
        assert_eq!(sent(&pipeline), [('a', Sent::No)]);
        pipeline.feed(b"val", false);
        pipeline.feed(b"ue", true);
        pipeline.push('b', b"GET k");
        assert_eq!(sent(&pipeline), [('a', Sent::No), ('b', Sent::No)]);
        pipeline.advance_written(7, at(3));
        assert_eq!(sent(&pipeline), [('a', Sent::Yes), ('b', Sent::No)]);
        assert_eq!(pipeline.unwritten(), b"T k");
        pipeline.advance_written(3, at(4));
        let waiting: Vec<_> = pipeline
            .waiting()
            .map(|it| (it.ticket, it.offset))
            .collect();
        assert_eq!(waiting, [('a', 11), ('b', 11)]);
        assert_eq!(pipeline.oldest(), Some(('a', &b""[..])));
        let done = pipeline.complete().unwrap();
        assert_eq!((done.ticket, done.written_at), ('a', at(3)));
        assert!(!pipeline.is_streamed());
        assert_eq!(pipeline.oldest(), Some(('b', &b"GET k"[..])));
        assert_eq!(pipeline.complete().unwrap().written_at, at(4));
        assert!(pipeline.is_empty() && pipeline.pending_bytes() == 0);
    }

    proptest! {
        /// Any order of pushes, partial writes and completions: what comes out is what went in.
        #[test]
        fn what_comes_out_is_what_went_in(
            ops in prop::collection::vec((0_u8..3, 1_usize..9_000), 1..200),
        ) {
            let mut pipeline = Pipeline::new();
            let mut model: VecDeque<(u32, Vec<u8>)> = VecDeque::new();
            let (mut next, mut wire, mut replied) = (0_u32, Vec::new(), 0_usize);
            for (op, size) in ops {
                match op {
                    0 => {
                        let body = vec![next.to_le_bytes()[0]; size];
                        pipeline.push(next, &body);
                        model.push_back((next, body));
                        next += 1;
                    }
                    1 => {
                        let count = size.min(pipeline.unwritten().len());
                        wire.extend_from_slice(&pipeline.unwritten()[..count]);
                        pipeline.advance_written(count, Time::ZERO);
                    }
                    _ => {
                        let sent = |body: &[u8]| replied + body.len() <= wire.len();
                        let whole = model.front().is_some_and(|(_, body)| sent(body));
                        let done = pipeline.complete();
                        prop_assert_eq!(done.is_some(), whole);
                        if let Some(done) = done {
                            let (ticket, body) = model.pop_front().unwrap();
                            prop_assert_eq!(done.ticket, ticket);
                            prop_assert_eq!(&wire[replied..replied + body.len()], &body[..]);
                            replied += body.len();
                        }
                    }
                }
                let left = pipeline.lost().map(|lost| (lost.ticket, lost.bytes.to_vec()));
                let left: Vec<_> = left.collect();
                prop_assert_eq!(left, model.iter().cloned().collect::<Vec<_>>());
                let pending: usize = model.iter().map(|(_, body)| body.len()).sum();
                prop_assert_eq!(pipeline.pending_bytes(), pending);
            }
        }
    }
}
