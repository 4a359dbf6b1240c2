//! Floor 4. Commands that wait at the server: `BLPOP` and its kin, `XREAD BLOCK`, `WAIT`.
//!
//! The time for which a command is held here is part of its own: it is sent for the rest of it, or
//! hears, without being sent, what a server says at the end of that time. But where there is a
//! master, it is sent once, for as short as can be, however long its link took to open: something
//! may be there already.
//!
//! ```text
//!   nothing is sent behind them: it could not be taken back, and would keep a switch waiting
//!   a switch begins        they hold up nobody: the worker is quiet with them
//!   the master is left     what may be issued again at any time goes to the new one at once;
//!                          the others are called back (see `recall.rs`), and their links stay for
//!                          a moment, for the old one's word:
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
use crate::exchange::client::{Ending, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{Link, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Request, encode};
use crate::session::Reject;
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

/// Channel of the message that makes WAIT see a client's own writes; nobody listens.
const WAIT_CHANNEL: &[u8] = b"__switchman__:wait";

/// A command that has had no reply for so long merely waits. One with something to take would have
/// it by now, save at a master that is slow or far away.
const WAITS_AFTER: Duration = Duration::from_millis(20);

/// How long a master that was left may still say what came of a command that waits there. In a
/// planned failover of Switchman's own it is told to be a replica as soon as writes flow.
const LAST_WORD_MAX: Duration = Duration::from_secs(1);

/// What servers count timeouts in; for less a request is not written anew.
const TIME_STEP: Duration = Duration::from_millis(1);

/// What a server says when it becomes a replica; after `CLIENT UNBLOCK` it says something else.
const FORCED: &[u8] = b"-UNBLOCKED force unblock ";

/// What says, of a command that was left behind, that nothing came of it: that it was called back,
/// or that it reached a replica.
const LAST_WORDS: [&[u8]; 2] = [b"-UNBLOCKED ", b"-READONLY "];

impl Exchange {
    /// A command that blocks until data comes or its time is over.
    pub(super) fn place_blocking(&mut self, job: Job, request: &Request<'_>) -> Placed {
        self.place_waiting(job, request, &[])
    }

    /// WAIT counts the writes of its own connection. These of the client went over another one, so
    /// that a message, which is replicated like a write, goes first: its offset lies behind theirs.
    pub(super) fn place_wait(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let mut publish = Vec::new();
        encode::request(&mut publish, &[b"PUBLISH", WAIT_CHANNEL, b""]);
        self.place_waiting(job, request, &publish)
    }

    /// Sends a command that waits, behind `before`. Its own time runs from its turn on, whether it
    /// is held here or waits at a server.
    fn place_waiting(&mut self, job: Job, request: &Request<'_>, before: &[u8]) -> Placed {
        let waits = self.blocking_of(job, request);
        let time = waits.and_then(|waits| time_of(request, waits));
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if let Some(words) = client.take_objection() {
            // Its link was refused with these.
            self.scratch.clear();
            self.scratch.extend_from_slice(&words);
            return self.answer_unsent(job);
        }
        let begun = job.again.and_then(|number| number.waits_since);
        let until = client
            .until
            .or_else(|| time.and_then(|time| Some(begun? + time)));
        let is_over = until.is_some_and(|until| until <= job.now);
        if is_over && begun.is_some() {
            self.compose_in_vain(job.key, request);
            return self.answer_unsent(job);
        }
        let placed = match self.waiting_link(job, time) {
            Ok(link) => {
                if !before.is_empty() {
                    self.send_internal(link, job, Purpose::Internal, before);
                }
                self.send_waiting(link, job, request, (waits, until))
            }
            Err(Placed::Waits) if is_over && self.is_held(job.key) => {
                self.compose_in_vain(job.key, request);
                return self.answer_unsent(job);
            }
            Err(placed) => placed,
        };
        if let Some(client) = self.clients.get_mut(job.key) {
            let counts = matches!(client.wait, Wait::Master | Wait::Proof(_));
            client.until = match placed {
                Placed::Waits if counts => until.or_else(|| Some(job.now + time?)),
                Placed::Waits => client.until,
                Placed::Sent | Placed::Answered => None,
            };
        }
        placed
    }

    fn blocking_of(&self, job: Job, request: &Request<'_>) -> Option<Blocking> {
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        let spec = group.table.classify(request).spec?;
        Some(blocking(spec, request))
    }

    /// The link for a command that waits. One whose time runs is not put on a link that is not open
    /// yet: what is left of its time is not known before.
    fn waiting_link(&mut self, job: Job, time: Option<Duration>) -> Result<LinkKey, Placed> {
        let key = self.lease_link(job)?;
        if time.is_some()
            && let Some(link) = self.links.get_mut(key)
            && link.state == State::Opening
            && let Some(client) = self.clients.get_mut(job.key)
        {
            link.waiters.push(job.key);
            client.wait = Wait::Proof(key);
            self.warm_again(key, job.now);
            return Err(Placed::Waits);
        }
        self.warm_again(key, job.now);
        Ok(key)
    }

    /// Sends it; if its time runs already, for the rest of it.
    fn send_waiting(
        &mut self,
        link: LinkKey,
        job: Job,
        request: &Request<'_>,
        (waits, until): (Option<Blocking>, Option<Time>),
    ) -> Placed {
        let repeat = waits.map_or(Repeat::Never, |waits| waits.repeat);
        let kind = Kind {
            effect: match repeat {
                Repeat::Always => Effect::Reads,
                Repeat::IfUndone | Repeat::Never => Effect::Writes,
            },
            ..Kind::leased(Purpose::Waits(repeat))
        };
        let rest = until
            .zip(waits)
            .and_then(|(until, waits)| shortened(request, waits, until.since(job.now)));
        let placed = match rest {
            None => self.send(link, job, request.raw(), kind),
            Some(rest) => {
                // From now on its time is what it says.
                let arrived = job.now;
                self.send(link, Job { arrived, ..job }, &rest, kind)
            }
        };
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
        {
            client.blocks = true;
        }
        placed
    }

    /// What a server says whose command has waited in vain (Redis blocked.c,
    /// `replyToBlockedClientOnTimeout`). Nobody was asked how many replicas have a client's writes,
    /// so that none is known to.
    fn compose_in_vain(&mut self, key: ClientKey, request: &Request<'_>) {
        let client = self.clients.get(key);
        let protocol = client.map_or(Protocol::Resp2, |client| client.session.protocol);
        let out = &mut self.scratch;
        out.clear();
        if request.name().eq_ignore_ascii_case(b"wait") {
            encode::integer(out, 0);
        } else if request.name().eq_ignore_ascii_case(b"waitaof") {
            encode::array_header(out, 2);
            encode::integer(out, 0);
            encode::integer(out, 0);
        } else {
            encode::null_array(out, protocol);
        }
    }

    /// Answers a command that was not sent with what `scratch` holds.
    fn answer_unsent(&mut self, job: Job) -> Placed {
        if let Some(client) = self.clients.get_mut(job.key) {
            client.until = None;
            client.wait = Wait::No;
        }
        // The link that it waited for may go.
        self.touch(job.key);
        self.answer(job, RequestClass::Leased, None)
    }

    /// Whether a client waits for a writable master.
    fn is_held(&self, key: ClientKey) -> bool {
        let client = self.clients.get(key);
        client.is_some_and(|client| client.wait == Wait::Master)
    }

    /// Ends the waits of commands that have waited at a server before, and whose own time is over
    /// before their next link is open.
    pub(super) fn expire_unopened(&mut self, now: Time) {
        if self.opening == 0 {
            return;
        }
        let owner = |link: &Link| match (link.state, link.usage) {
            (State::Opening, Usage::Leased(owner)) => owner,
            _ => None,
        };
        let links = self.links.iter();
        let waiting = links.filter_map(|(key, link)| Some((key, owner(link)?)));
        let is_over = |(_, owner): &(LinkKey, ClientKey)| {
            let client = self.clients.get(*owner);
            client.is_some_and(|client| client.has_waited_at_server() && client.is_out_of_time(now))
        };
        let over: Vec<_> = waiting.filter(is_over).collect();
        for (link, owner) in over {
            self.end_wait(owner, Wait::Proof(link));
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
        let word = |word: &&[u8]| words.starts_with(word);
        let called_back = link.left.is_some() && LAST_WORDS.iter().any(word);
        if !again || !(called_back || words.starts_with(FORCED)) {
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
            || self.state == State::Tunnel
            || (self.waits_for().is_some() && now.since(self.heard_at) >= WAITS_AFTER)
    }

    /// Whether the master being left may still have something to say that spares a doubt.
    pub(super) fn is_worth_waiting(&self) -> bool {
        self.waits_for() == Some(Repeat::IfUndone)
    }

    /// Whether the last request in flight is one that waits at the server.
    pub(super) fn ends_in_wait(&self) -> bool {
        let last = self.pipeline.newest_ticket();
        last.is_some_and(|ticket| matches!(ticket.purpose, Purpose::Waits(_)))
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

/// How long a request waits; `None` if without end, or if a server would refuse it.
fn time_of(request: &Request<'_>, waits: Blocking) -> Option<Duration> {
    let timeout = waits.timeout?;
    let time = timeout.unit.read(request.args().nth(timeout.word)?)?;
    (!time.is_zero()).then_some(time)
}

/// The request with what is left of its time, if that is less than what it says.
fn shortened(request: &Request<'_>, waits: Blocking, rest: Duration) -> Option<Vec<u8>> {
    let timeout = waits.timeout?;
    if rest + TIME_STEP > time_of(request, waits)? {
        return None;
    }
    let mut words: Vec<&[u8]> = request.args().collect();
    let rest = timeout.unit.write(rest);
    *words.get_mut(timeout.word)? = rest.as_bytes();
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
