//! Floor 4. How many clients there are, in all workers, for INFO; and how many hear a name that
//! Switchman has subscribed to once for all of them, so that PUBLISH and PUBSUB NUMSUB tell that to
//! their clients. The server counts connections.
//!
//! A server counts each connection that hears the channel, and each pattern of each connection that
//! matches (Redis pubsub.c, `pubsubPublishMessageInternal`). What is kept here is by how much that
//! is too little: clients less connections, for each name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::command::Leased;
use crate::exchange::{Exchange, LinkKey};
use crate::resp::{ReplyKind, Request, encode, is_word};
use crate::types::Time;

/// The clients of a group, and names with more clients than connections, and how many more.
#[derive(Debug, Default)]
pub struct Audience {
    /// Clients that have connected and are not gone.
    present: AtomicUsize,
    names: Mutex<Names>,
    /// How many such names there are: mostly none, and then nothing is looked up.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct Names {
    channels: HashMap<Box<[u8]>, i64>,
    patterns: HashMap<Box<[u8]>, i64>,
    shards: HashMap<Box<[u8]>, i64>,
}

impl Names {
    fn of(&mut self, command: Leased) -> &mut HashMap<Box<[u8]>, i64> {
        match command {
            Leased::Psubscribe | Leased::Punsubscribe => &mut self.patterns,
            Leased::Ssubscribe | Leased::Sunsubscribe => &mut self.shards,
            _ => &mut self.channels,
        }
    }

    /// Clients that a message on `channel` reaches beyond the connections that it goes over.
    fn behind(&self, channel: &[u8]) -> i64 {
        let own = self.channels.get(channel).copied().unwrap_or(0);
        let patterns = self.patterns.iter();
        let matching = patterns.filter(|(pattern, _)| matches(pattern, channel));
        own + matching.map(|(_, count)| count).sum::<i64>()
    }
}

impl Audience {
    /// Whether the server counts too few for any name.
    #[inline]
    pub fn is_counted(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// A client has connected.
    pub(super) fn enter(&self) {
        self.present.fetch_add(1, Ordering::Relaxed);
    }

    /// One is gone.
    pub(super) fn exit(&self) {
        self.present.fetch_sub(1, Ordering::Relaxed);
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more client hears a name over a connection that another hears it over.
    pub(super) fn join(&self, command: Leased, name: &[u8]) {
        self.change(command, name, 1);
    }

    /// One less does, and another stays.
    pub(super) fn leave(&self, command: Leased, name: &[u8]) {
        self.change(command, name, -1);
    }

    /// So many hear a name no more; with them the connection.
    pub(super) fn end(&self, command: Leased, name: &[u8], clients: usize) {
        let more = clients.saturating_sub(1);
        self.change(command, name, -i64::try_from(more).unwrap_or(i64::MAX));
    }

    fn change(&self, command: Leased, name: &[u8], by: i64) {
        if by == 0 {
            return;
        }
        let mut names = self.names();
        let of = names.of(command);
        if let Some(count) = of.get_mut(name) {
            *count += by;
            if *count == 0 {
                of.remove(name);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        } else {
            of.insert(Box::from(name), by);
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reply that a request is to have whose server has said `reply`. `None`: the same.
    pub(super) fn counted(&self, request: &Request<'_>, reply: &[u8]) -> Option<Vec<u8>> {
        if is_info(request) {
            return with_clients(reply, self.present.load(Ordering::Relaxed));
        }
        let arg1 = request.arg1()?;
        let is = is_word;
        let mut names = self.names();
        if is(request.name(), b"publish") || is(request.name(), b"spublish") {
            let more = if is(request.name(), b"publish") {
                names.behind(arg1)
            } else {
                names.shards.get(arg1).copied().unwrap_or(0)
            };
            let (count, []) = integer(reply)? else {
                return None;
            };
            let mut out = Vec::new();
            encode::integer(&mut out, count.saturating_add(more));
            return Some(out);
        }
        let of = if is(arg1, b"shardnumsub") {
            names.of(Leased::Ssubscribe)
        } else {
            names.of(Leased::Subscribe)
        };
        let head = reply.strip_prefix(b"*")?;
        let end = memchr::memchr(b'\n', head)?;
        let mut rest = head.get(end + 1..)?;
        let mut out = reply.get(..end + 2)?.to_vec();
        while !rest.is_empty() {
            let (name, behind) = bulk(rest)?;
            let (count, behind) = integer(behind)?;
            encode::bulk(&mut out, name);
            let more = of.get(name).copied().unwrap_or(0);
            encode::integer(&mut out, count.saturating_add(more));
            rest = behind;
        }
        Some(out)
    }
}

impl Exchange {
    /// The oldest request of a link has its reply, in which clients are to be counted.
    #[cold]
    pub(super) fn complete_counted(
        &mut self,
        key: LinkKey,
        frame: &[u8],
        kind: ReplyKind,
        now: Time,
    ) {
        let link = self.links.get_mut(key);
        let counted = link.and_then(|link| {
            link.counting = link.counting.saturating_sub(1);
            let (_, raw) = link.pipeline.oldest()?;
            let group = self.groups.get(link.group)?;
            let request = Request::from_raw(raw)?;
            group.settings.audience.counted(&request, frame)
        });
        let frame = counted.as_deref().unwrap_or(frame);
        self.complete(key, frame, kind, now);
    }
}

/// Whether a request's reply counts clients; `names`: there are names with more of them than the
/// server knows.
pub(super) fn counts(request: &Request<'_>, names: bool) -> bool {
    is_info(request) || (names && counts_who_hears(request))
}

fn is_info(request: &Request<'_>) -> bool {
    request.name().eq_ignore_ascii_case(b"info")
}

fn counts_who_hears(request: &Request<'_>) -> bool {
    let is = |word: Option<&[u8]>, want: &[u8]| word.is_some_and(|w| is_word(w, want));
    let (name, sub) = (Some(request.name()), request.arg1());
    is(name, b"publish")
        || is(name, b"spublish")
        || (is(name, b"pubsub") && (is(sub, b"numsub") || is(sub, b"shardnumsub")))
}

/// The field of `INFO` that counts clients (Redis server.c, `genRedisInfoString`).
const CLIENTS: &[u8] = b"\nconnected_clients:";

/// A reply to INFO with another number of clients. `None`: it says nothing of them.
fn with_clients(reply: &[u8], count: usize) -> Option<Vec<u8>> {
    let (kind, line) = reply
        .split_first()
        .filter(|(it, _)| matches!(it, b'$' | b'='))?;
    let text = line.get(memchr::memchr(b'\n', line)? + 1..)?;
    let text = text.strip_suffix(b"\r\n")?;
    let before = memchr::memmem::find(text, CLIENTS)? + CLIENTS.len();
    let (head, tail) = text.split_at_checked(before)?;
    let tail = tail.get(memchr::memchr(b'\r', tail)?..)?;
    let count = count.to_string();
    let len = head.len() + count.len() + tail.len();
    let mut out = vec![*kind];
    out.extend_from_slice(len.to_string().as_bytes());
    for part in [b"\r\n", head, count.as_bytes(), tail, b"\r\n"] {
        out.extend_from_slice(part);
    }
    Some(out)
}

/// The integer at the front, and what follows it.
fn integer(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let line = bytes.strip_prefix(b":")?;
    let end = memchr::memchr(b'\r', line)?;
    let number = std::str::from_utf8(line.get(..end)?).ok()?.parse().ok()?;
    Some((number, line.get(end + 2..)?))
}

/// The bulk at the front, and what follows it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = bytes.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', line)?;
    let len: usize = std::str::from_utf8(line.get(..end)?).ok()?.parse().ok()?;
    let body = line.get(end + 2..)?;
    Some((body.get(..len)?, body.get(len + 2..)?))
}

/// Whether a pattern matches a name (Redis util.c, `stringmatchlen`, with regard to case).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.is_empty() {
        return pattern.is_empty();
    }
    let (mut pattern, mut name) = (pattern, name);
    // Behind the last star, and from where on it has not been tried to match.
    let mut star: Option<(&[u8], &[u8])> = None;
    while let Some((byte, rest)) = name.split_first() {
        let goes_on = match pattern.split_first() {
            Some((b'*', behind)) => {
                star = Some((behind, name));
                pattern = behind;
                continue;
            }
            Some((b'?', behind)) => Some(behind),
            Some((b'[', behind)) => class(behind, *byte),
            Some((b'\\', [escaped, behind @ ..])) => (escaped == byte).then_some(behind),
            Some((plain, behind)) => (plain == byte).then_some(behind),
            None => None,
        };
        if let Some(behind) = goes_on {
            (pattern, name) = (behind, rest);
        } else if let Some((behind, from)) = star {
            let from = from.get(1..).unwrap_or_default();
            star = Some((behind, from));
            (pattern, name) = (behind, from);
        } else {
            return false;
        }
    }
    pattern.iter().all(|byte| *byte == b'*')
}

/// What follows a class, behind its bracket, if it holds `byte`.
fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (inverse, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b'\\', escaped, behind @ ..] => {
                found |= *escaped == byte;
                behind
            }
            [b']', behind @ ..] => return (found != inverse).then_some(behind),
            // It ends with the pattern.
            [] => return (found != inverse).then_some(rest),
            [from, b'-', to, behind @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                behind
            }
            [one, behind @ ..] => {
                found |= *one == byte;
                behind
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(audience: &Audience, words: &[&[u8]], reply: &str) -> Option<String> {
        let mut raw = Vec::new();
        encode::request(&mut raw, words);
        let request = Request::from_raw(&raw).unwrap();
        assert!(counts(&request, true));
        let out = audience.counted(&request, reply.replace('|', "\r\n").as_bytes())?;
        Some(String::from_utf8(out).unwrap().replace("\r\n", "|"))
    }

    #[test]
    fn what_the_server_counts_is_completed() {
        let audience = Audience::default();
        assert!(!audience.is_counted());
        audience.join(Leased::Subscribe, b"a");
        audience.join(Leased::Subscribe, b"a");
        audience.join(Leased::Psubscribe, b"a*");
        audience.join(Leased::Ssubscribe, b"a");
        assert!(audience.is_counted());
        let publish = |name: &[u8]| counted(&audience, &[b"publish", name, b"x"], ":2|");
        assert_eq!(publish(b"a").as_deref(), Some(":5|"));
        assert_eq!(publish(b"ab").as_deref(), Some(":3|"));
        assert_eq!(publish(b"b").as_deref(), Some(":2|"));
        let shard = counted(&audience, &[b"SPUBLISH", b"a", b"x"], ":1|");
        assert_eq!(shard.as_deref(), Some(":2|"));
        let words: [&[u8]; 4] = [b"PUBSUB", b"NUMSUB", b"a", b"b"];
        let numbers = counted(&audience, &words, "*4|$1|a|:1|$1|b|:0|");
        assert_eq!(numbers.as_deref(), Some("*4|$1|a|:3|$1|b|:0|"));
        assert_eq!(counted(&audience, &words, "*0|").as_deref(), Some("*0|"));
        let refused = counted(&audience, &[b"publish", b"a", b"x"], "-NOPERM no|");
        assert_eq!(refused, None);
        audience.leave(Leased::Unsubscribe, b"a");
        audience.leave(Leased::Punsubscribe, b"a*");
        audience.end(Leased::Ssubscribe, b"a", 2);
        assert!(audience.is_counted());
        audience.end(Leased::Subscribe, b"a", 2);
        assert!(!audience.is_counted());
    }

    #[test]
    fn info_counts_the_clients_that_there_are() {
        let audience = Audience::default();
        let info = |reply: &str| counted(&audience, &[b"info"], reply);
        let one = "$53|# Clients|connected_clients:123|blocked_clients:1||";
        let none = "$51|# Clients|connected_clients:0|blocked_clients:1||";
        assert_eq!(info(one).as_deref(), Some(none));
        (0..11).for_each(|_| audience.enter());
        audience.exit();
        let verbatim = "=36|txt:# Clients|connected_clients:9||";
        let ten = "=37|txt:# Clients|connected_clients:10||";
        assert_eq!(info(verbatim).as_deref(), Some(ten));
        assert_eq!(info("$9|# Memory||"), None);
        assert_eq!(info("-NOPERM no|"), None);
        assert_eq!(info("$27|# x|my_connected_clients:1|"), None);
    }

    #[test]
    fn patterns_match_as_those_of_redis_do() {
        for (pattern, name, want) in [
            ("*", "a", true),
            ("*", "", false),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*b", "aab", true),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[a\\]]", "]", true),
            ("[ab", "b", true),
            ("[^", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a\\", "a\\", true),
            ("A", "a", false),
            ("*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            let found = matches(pattern.as_bytes(), name.as_bytes());
            assert_eq!(found, want, "{pattern} {name}");
        }
    }
}
