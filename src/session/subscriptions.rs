//! Floor 3. What a client has subscribed to, learned from the server's own confirmations.

use std::collections::BTreeSet;

use crate::command::Leased;

/// The channels, patterns and shard channels of one client.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: BTreeSet<Box<[u8]>>,
    patterns: BTreeSet<Box<[u8]>>,
    shards: BTreeSet<Box<[u8]>>,
}

/// What an out-of-band message of a subscribed connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announcement<'a> {
    /// A message for the subscriber.
    Message,
    /// The confirmation of a subscription to this name.
    Subscribed(Leased, &'a [u8]),
    /// The confirmation of its end; `None` if there was nothing to end.
    Unsubscribed(Leased, Option<&'a [u8]>),
    /// Something else, such as the `pong` of a RESP2 subscriber.
    Other,
}

impl Subscriptions {
    /// How many there are in all.
    pub fn len(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shards.len()
    }

    /// Channels, patterns and shard channels.
    pub fn counts(&self) -> [usize; 3] {
        [&self.channels, &self.patterns, &self.shards].map(BTreeSet::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the kind that `command` (one of the six) acts on.
    pub fn of(&self, command: Leased) -> &BTreeSet<Box<[u8]>> {
        match command {
            Leased::Psubscribe | Leased::Punsubscribe => &self.patterns,
            Leased::Ssubscribe | Leased::Sunsubscribe => &self.shards,
            _ => &self.channels,
        }
    }

    /// Confirmations that `command` with `names` names gets: one each, and without names one for
    /// each subscription of its kind, at least one (Redis pubsub.c).
    pub fn confirmations(&self, command: Leased, names: usize) -> usize {
        if names > 0 {
            names
        } else {
            self.of(command).len().max(1)
        }
    }

    /// Takes note of a confirmation.
    pub fn note(&mut self, announcement: Announcement<'_>) {
        match announcement {
            Announcement::Subscribed(command, name) => {
                self.of_mut(command).insert(Box::from(name));
            }
            Announcement::Unsubscribed(command, Some(name)) => {
                self.of_mut(command).remove(name);
            }
            Announcement::Unsubscribed(_, None) | Announcement::Message | Announcement::Other => {}
        }
    }

    fn of_mut(&mut self, command: Leased) -> &mut BTreeSet<Box<[u8]>> {
        match command {
            Leased::Psubscribe | Leased::Punsubscribe => &mut self.patterns,
            Leased::Ssubscribe | Leased::Sunsubscribe => &mut self.shards,
            _ => &mut self.channels,
        }
    }
}

impl<'a> Announcement<'a> {
    /// Reads a whole array (RESP2) or push (RESP3) of a subscribed connection.
    pub fn read(frame: &'a [u8]) -> Self {
        let Some(rest) = after_line(frame) else {
            return Self::Other;
        };
        let Some((kind, rest)) = bulk(rest) else {
            return Self::Other;
        };
        let name = bulk(rest).map(|(name, _)| name);
        match (kind, name) {
            (b"message" | b"pmessage" | b"smessage", _) => Self::Message,
            (b"subscribe", Some(name)) => Self::Subscribed(Leased::Subscribe, name),
            (b"psubscribe", Some(name)) => Self::Subscribed(Leased::Psubscribe, name),
            (b"ssubscribe", Some(name)) => Self::Subscribed(Leased::Ssubscribe, name),
            (b"unsubscribe", name) => Self::Unsubscribed(Leased::Unsubscribe, name),
            (b"punsubscribe", name) => Self::Unsubscribed(Leased::Punsubscribe, name),
            (b"sunsubscribe", name) => Self::Unsubscribed(Leased::Sunsubscribe, name),
            _ => Self::Other,
        }
    }
}

/// What follows the first line.
fn after_line(bytes: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'\n', bytes)?;
    bytes.get(end + 1..)
}

/// The bulk at the front, and what follows it; `None` for a null or anything else.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let line_end = memchr::memchr(b'\r', bytes)?;
    let digits = bytes.get(..line_end)?.strip_prefix(b"$")?;
    let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let body = after_line(bytes)?;
    Some((body.get(..len)?, body.get(len + 2..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confirmations_change_the_set_and_messages_do_not() {
        let mut subscriptions = Subscriptions::default();
        let mut check = |frame: &[u8], want: usize| {
            subscriptions.note(Announcement::read(frame));
            assert_eq!(subscriptions.len(), want, "{}", frame.escape_ascii());
        };
        check(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", 1);
        check(b">3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n", 2);
        check(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n", 2);
        check(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:2\r\n", 2);
        check(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n", 1);
        check(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", 1);
        assert_eq!(subscriptions.confirmations(Leased::Punsubscribe, 0), 1);
        assert_eq!(subscriptions.confirmations(Leased::Subscribe, 3), 3);
    }
}
