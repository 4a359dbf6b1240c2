//! Floor 4. Commands that wait at the server: `BLPOP` and its kin, `XREAD BLOCK`, `WAIT`.
//!
//! ```text
//!   a switch begins        they hold up nobody: the worker is quiet with them
//!   the master is left     what may be issued again at any time goes to the new one at once;
//!                          the link of the others stays for a moment, for the old one's word:
//!     -UNBLOCKED, -READONLY  nothing came of it: issued again with the time that is left
//!     null                 its time is over: passed on
//!     any other reply      executed where nobody looks any more: UNCERTAIN
//!     EOF, no word         UNCERTAIN
//! ```
//!
//! A master that becomes a replica by `REPLICAOF` ends the wait of its clients by this word, and
//! closes their connections without reading on (blocked.c, `disconnectAllBlockedClients`).

use std::time::Duration;

use crate::command::{Blocking, Repeat, blocking};
use crate::exchange::client::Ending;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::Link;
use crate::exchange::losses::Loss;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{Exchange, LinkKey};
use crate::resp::{Request, encode};
use crate::session::Reject;
use crate::types::Time;

/// Channel of the message that makes WAIT see a client's own writes; nobody listens.
const WAIT_CHANNEL: &[u8] = b"__switchman__:wait";

/// A command that has had no reply for so long merely waits. One with something to take would have
/// it by now, save at a master that is slow or far away.
const WAITS_AFTER: Duration = Duration::from_millis(20);

/// How long a master that was left may still say what came of a command that waits there. In a
/// planned failover of Switchman's own it is told to be a replica as soon as writes flow.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// What a server says when it becomes a replica; after `CLIENT UNBLOCK` it says something else.
const FORCED: &[u8] = b"-UNBLOCKED force unblock ";

impl Exchange {
    /// A command that blocks until data comes or its time is over.
    pub(super) fn place_blocking(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let waits = self.blocking_of(job, request);
        match self.lease_link(job) {
            Ok(link) => self.send_waiting(link, job, request, waits),
            Err(placed) => placed,
        }
    }

    /// WAIT counts the writes of its own connection. These of the client went over another one, so
    /// that a message, which is replicated like a write, goes first: its offset lies behind theirs.
    pub(super) fn place_wait(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let waits = self.blocking_of(job, request);
        let link = match self.lease_link(job) {
            Ok(link) => link,
            Err(placed) => return placed,
        };
        let mut publish = Vec::new();
        encode::request(&mut publish, &[b"PUBLISH", WAIT_CHANNEL, b""]);
        self.send_internal(link, job, Purpose::Internal, &publish);
        self.send_waiting(link, job, request, waits)
    }

    fn blocking_of(&self, job: Job, request: &Request<'_>) -> Option<Blocking> {
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        let spec = group.table.classify(request).spec?;
        Some(blocking(spec, request))
    }

    /// Sends it; if it has waited elsewhere before, for the rest of its time.
    fn send_waiting(
        &mut self,
        link: LinkKey,
        job: Job,
        request: &Request<'_>,
        waits: Option<Blocking>,
    ) -> Placed {
        let repeat = waits.map_or(Repeat::Never, |waits| waits.repeat);
        let kind = Kind {
            effect: match repeat {
                Repeat::Always => Effect::Reads,
                Repeat::IfUndone | Repeat::Never => Effect::Writes,
            },
            ..Kind::leased(Purpose::Waits(repeat))
        };
        let since = job.again.and_then(|number| number.waits_since);
        let rest = since.and_then(|since| shortened(request, waits?, job.now.since(since)));
        match rest {
            None => self.send(link, job, request.raw(), kind),
            Some(rest) => {
                // From now on its time is what it says.
                let arrived = job.now;
                self.send(link, Job { arrived, ..job }, &rest, kind)
            }
        }
    }

    /// A server has ended the wait of the oldest command on a link. False if its line is to be
    /// passed on.
    pub(super) fn unblocked(&mut self, key: LinkKey, words: &[u8], now: Time) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return false;
        };
        let again = matches!(
            ticket.purpose,
            Purpose::Waits(Repeat::Always | Repeat::IfUndone)
        );
        // On a link that was left nothing is sent behind, so that there nothing else can follow.
        let refused = link.left.is_some() && words.starts_with(b"-READONLY ");
        if !again || !(refused || words.starts_with(FORCED)) {
            return false;
        }
        let again = ticket.again(link.usage, ticket.bounces, raw);
        let (index, node, left) = (link.group, link.lane.node, link.left.is_some());
        link.pipeline.complete();
        self.uncount(ticket, key);
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client.try_again(again.after_waiting(now));
        }
        if let Some(group) = self.groups.get_mut(index) {
            group.counts.resent += 1;
        }
        if !left {
            self.distrust(index, node, now);
            self.report_demoted(index, node);
        }
        self.touch(ticket.client);
        self.lose(key, Loss::Unblocked, now);
        true
    }

    /// Whether a link stays only for the end of what waits at a master that was left.
    pub(super) fn is_left(&self, key: LinkKey) -> bool {
        self.links.get(key).is_some_and(|link| link.left.is_some())
    }

    /// A master that was left has answered a command that waited there.
    pub(super) fn last_word(&mut self, ticket: Ticket) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        if client.replies.retract(ticket.seq) {
            self.tell(ticket, Reject::Uncertain);
        } else {
            // A part of it was passed on before the switch.
            self.end(ticket.client, Ending::Now);
        }
    }

    /// Leaves a link to a master that was left as soon as that has said what came of the command
    /// that waits there.
    pub(super) fn leave_later(&mut self, key: LinkKey, now: Time) {
        self.retire(key);
        if let Some(link) = self.links.get_mut(key) {
            link.left = Some(now);
        }
    }

    /// The last word has been said.
    pub(super) fn end_of_left(&mut self, key: LinkKey, now: Time) {
        let done = |link: &Link| link.left.is_some() && link.pipeline.is_empty();
        if self.links.get(key).is_some_and(done) {
            self.link_lost(key, Loss::Left, now);
        }
    }

    /// Last words that do not come are not waited for.
    pub(super) fn give_up_left(&mut self, now: Time) {
        let late = |link: &Link| {
            let since = link.left;
            since.is_some_and(|since| now.since(since) >= LAST_WORD_MAX)
        };
        let links = self.links.iter().filter(|(_, link)| late(link));
        let keys: Vec<_> = links.map(|(key, _)| key).collect();
        for key in keys {
            self.link_lost(key, Loss::Left, now);
        }
    }
}

impl Link {
    /// Whether nothing on it can write any more unless somebody else does first: nothing is in
    /// flight, or one command that merely waits.
    pub(super) fn is_quiet(&self, now: Time) -> bool {
        self.pipeline.is_empty()
            || (self.waits_for().is_some() && now.since(self.heard_at) >= WAITS_AFTER)
    }

    /// Whether the master being left may still have something to say that spares a doubt.
    pub(super) fn is_worth_waiting(&self) -> bool {
        self.waits_for() == Some(Repeat::IfUndone)
    }

    /// Whether all that is in flight is one command that waits at the server.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits_for().is_some()
    }

    /// The one command in flight, if it is one that waits at the server.
    fn waits_for(&self) -> Option<Repeat> {
        match self.pipeline.oldest_written()?.purpose {
            Purpose::Waits(repeat) if self.pipeline.len() == 1 => Some(repeat),
            _ => None,
        }
    }
}

/// The request with what is left of its time after `waited`, if it says how long it waits.
fn shortened(request: &Request<'_>, blocking: Blocking, waited: Duration) -> Option<Vec<u8>> {
    let timeout = blocking.timeout?;
    let mut words: Vec<&[u8]> = request.args().collect();
    let word = words.get_mut(timeout.word)?;
    let time = timeout.unit.read(word).filter(|time| !time.is_zero())?;
    let rest = timeout.unit.write(time.saturating_sub(waited));
    *word = rest.as_bytes();
    let mut raw = Vec::new();
    encode::request(&mut raw, &words);
    Some(raw)
}

/// Whether a reply says that the time was over.
pub(super) fn is_null(frame: &[u8]) -> bool {
    [&b"*-1\r"[..], b"$-1\r", b"_\r"]
        .iter()
        .any(|null| frame.starts_with(null))
}
