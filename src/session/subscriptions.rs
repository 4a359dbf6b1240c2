//! Floor 3. What a client has subscribed to, and the words in which Redis tells subscribers of it.

use std::collections::BTreeSet;

use crate::command::Leased;
use crate::resp::encode;
use crate::types::Protocol;

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
    /// A message for those who have subscribed to this name with this command.
    Message(Leased, &'a [u8]),
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

    /// Adds a name of the kind that `command` acts on.
    pub fn add(&mut self, command: Leased, name: &[u8]) {
        self.of_mut(command).insert(Box::from(name));
    }

    /// Removes one. False if it was not there.
    pub fn remove(&mut self, command: Leased, name: &[u8]) -> bool {
        self.of_mut(command).remove(name)
    }

    /// Writes the confirmation of a change: the command's word, the name (`None`: there was none to
    /// end), and how many there are now. Shard channels are counted by themselves (Redis pubsub.c,
    /// `addReplyPubsubSubscribed`, `subscriptionCount` of `pubSubShardType`).
    pub fn confirm(
        &self,
        out: &mut Vec<u8>,
        protocol: Protocol,
        (command, name): (Leased, Option<&[u8]>),
    ) {
        let word: &[u8] = match command {
            Leased::Subscribe => b"subscribe",
            Leased::Psubscribe => b"psubscribe",
            Leased::Ssubscribe => b"ssubscribe",
            Leased::Punsubscribe => b"punsubscribe",
            Leased::Sunsubscribe => b"sunsubscribe",
            _ => b"unsubscribe",
        };
        let count = match command {
            Leased::Ssubscribe | Leased::Sunsubscribe => self.shards.len(),
            _ => self.channels.len() + self.patterns.len(),
        };
        encode::push_header(out, protocol, 3);
        encode::bulk(out, word);
        match name {
            Some(name) => encode::bulk(out, name),
            None => encode::null(out, protocol),
        }
        encode::integer(out, i64::try_from(count).unwrap_or(i64::MAX));
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
            (b"message", Some(name)) => Self::Message(Leased::Subscribe, name),
            (b"pmessage", Some(name)) => Self::Message(Leased::Psubscribe, name),
            (b"smessage", Some(name)) => Self::Message(Leased::Ssubscribe, name),
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
    fn what_a_subscribed_connection_brings_is_told_apart() {
        let read = |frame| Announcement::read(frame);
        let confirmed = Announcement::Subscribed(Leased::Subscribe, b"a");
        assert_eq!(
            read(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"),
            confirmed
        );
        let confirmed = Announcement::Subscribed(Leased::Psubscribe, b"a*");
        assert_eq!(
            read(b">3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n"),
            confirmed
        );
        let message = Announcement::Message(Leased::Subscribe, b"a");
        assert_eq!(
            read(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"),
            message
        );
        let message = Announcement::Message(Leased::Psubscribe, b"*");
        let frame = b">4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\na\r\n$1\r\nx\r\n";
        assert_eq!(read(frame), message);
        let none = Announcement::Unsubscribed(Leased::Unsubscribe, None);
        assert_eq!(read(b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:2\r\n"), none);
        assert_eq!(read(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"), Announcement::Other);
    }

    #[test]
    fn shard_channels_are_counted_by_themselves() {
        let mut subscriptions = Subscriptions::default();
        let mut confirm = |command, name: &[u8]| {
            subscriptions.add(command, name);
            let mut out = Vec::new();
            subscriptions.confirm(&mut out, Protocol::Resp3, (command, Some(name)));
            String::from_utf8(out).unwrap().replace("\r\n", "|")
        };
        assert_eq!(confirm(Leased::Subscribe, b"a"), ">3|$9|subscribe|$1|a|:1|");
        assert_eq!(confirm(Leased::Subscribe, b"a"), ">3|$9|subscribe|$1|a|:1|");
        assert_eq!(
            confirm(Leased::Psubscribe, b"p"),
            ">3|$10|psubscribe|$1|p|:2|"
        );
        assert_eq!(
            confirm(Leased::Ssubscribe, b"s"),
            ">3|$10|ssubscribe|$1|s|:1|"
        );
        assert!(subscriptions.remove(Leased::Unsubscribe, b"a"));
        assert!(!subscriptions.remove(Leased::Unsubscribe, b"a"));
        let mut out = Vec::new();
        subscriptions.confirm(&mut out, Protocol::Resp2, (Leased::Unsubscribe, None));
        assert_eq!(out, b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:1\r\n");
    }
}
