//! Floor 4. A client that becomes a replica of the master (`SYNC`, `PSYNC`): what the master says
//! from then on is no reply, and passes unread.
//!
//! ```text
//!   REPLCONF …            the client has a link of its own to the end
//!   SYNC      ──► link    when nothing of its client is in flight, nor tracked for it
//!   REPLCONF  ──► link    once the master has begun, as more of an upload that has no end; nothing
//!                         else of a replica is let through, for the master would execute it
//!   … bytes   ◄── link    as those of a long reply that has no end
//!   -error    ◄── link    a reply like any other, and the end of it
//! ```
//!
//! At which address it is a replica it may not say, unless the operator lets it: the master would
//! tell the Sentinels of one that is not there.
//!
//! It ends with either connection, with the master, and with the process, which waits for nothing
//! on it.

use crate::command::{Class, Table};
use crate::exchange::client::{Client, Ending, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::State;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::upload::{Upload, WINDOW};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Decoded, Request, RequestLimits, is_word};
use crate::session::Reject;
use crate::telemetry::{Reason, RequestClass};
use crate::types::Time;

impl Exchange {
    /// Sends what makes a replica of its client.
    pub(super) fn place_tunnel(&mut self, job: Job, request: &Request<'_>) -> Placed {
        // What was asked before is not to wait for the end of this.
        if let Some(waits) = self.wait_for_answers(job) {
            return waits;
        }
        let lease = self.lease_of(job.key);
        if lease.is_some_and(|lease| lease.tracking.was_on()) {
            // What becomes invalid would come among what the master says.
            let reject = Reject::NotOffered {
                command: request.name(),
                sub: b"where CLIENT TRACKING was on",
            };
            return self.reject(job, RequestClass::Refused, reject);
        }
        let was_sticky = lease.is_some_and(|lease| lease.sticky);
        let key = match self.upload_link(job) {
            Ok(key) => key,
            Err(placed) => return placed,
        };
        let placed = self.send(key, job, request.raw(), Kind::leased(Purpose::Upload));
        if placed == Placed::Sent {
            self.on_lease(job.key, placed, |lease| lease.sticky = true);
            self.retire(key);
            if let Some(link) = self.links.get_mut(key) {
                link.state = State::Tunnel;
            }
            if let Some(client) = self.clients.get_mut(job.key) {
                client.upload = Some(Box::new(Upload::endless(key, was_sticky)));
            }
        }
        placed
    }

    /// Takes what a replica has to say from the front of `bytes`. Returns how many bytes are done
    /// with; fewer than there are if the last of it is not whole, or has to wait for room.
    pub(super) fn hear_replica(
        &mut self,
        key: ClientKey,
        bytes: &[u8],
        limits: &RequestLimits,
        now: Time,
    ) -> usize {
        let Some(client) = self.clients.get_mut(key) else {
            return bytes.len();
        };
        let Some(table) = self.groups.get(client.group).map(|group| &group.table) else {
            return bytes.len();
        };
        let on = client.upload.as_ref().and_then(|upload| upload.on);
        let Some((at, link)) = on.and_then(|at| Some((at, self.links.get_mut(at)?))) else {
            return bytes.len();
        };
        let begun = |it: &Ticket| client.replies.is_begun(it.seq);
        let has_begun = link.pipeline.oldest_ticket().is_some_and(begun);
        if !has_begun || link.pipeline.pending_bytes() >= WINDOW {
            link.waiters.push(key);
            client.wait = Wait::Link(at);
            return 0;
        }
        let mut inline = Vec::new();
        let used = match client.decoder.decode(bytes, limits, &mut inline) {
            Ok(Decoded::Request { request, consumed }) if speaks_as_replica(&request, table) => {
                consumed
            }
            // It says so, by line ends, while it loads the data.
            Ok(Decoded::Nothing { consumed }) => consumed,
            Ok(Decoded::Incomplete { .. }) if bytes.len() < WINDOW => return 0,
            Ok(Decoded::Request { .. } | Decoded::Incomplete { .. }) | Err(_) => {
                self.count_reject(key, Reason::Protocol);
                self.end(key, Ending::Now);
                return bytes.len();
            }
        };
        self.feed(at, (bytes.get(..used).unwrap_or_default(), false), now);
        used
    }

    /// What a node sends to a client that it takes for a replica. False if it begins with an error:
    /// it takes nobody for one, the error is a reply like any other, and its client goes on as
    /// before.
    pub(super) fn pass_through(&mut self, key: LinkKey, bytes: &[u8], now: Time) -> bool {
        let link = self.links.get_mut(key);
        let Some((link, ticket)) = link.and_then(|link| {
            let ticket = link.pipeline.oldest_ticket().copied()?;
            Some((link, ticket))
        }) else {
            return true;
        };
        let client = self.clients.get_mut(ticket.client);
        let first = client.filter(|client| !client.replies.is_begun(ticket.seq));
        let is_first = first.is_some();
        if let Some(client) = first
            && bytes.starts_with(b"-")
        {
            // Nothing of what came behind the request was read.
            link.state = State::Ready;
            link.pipeline.feed(&[], true);
            let upload = client.upload.take();
            if let Some(lease) = client.lease.as_deref_mut() {
                lease.sticky = upload.is_some_and(|upload| upload.was_sticky);
            }
            self.end_waits_on(key);
            return false;
        }
        self.pass_on((key, ticket), bytes, now);
        if is_first {
            self.end_waits_on(key);
        }
        true
    }

    /// Clients that wait for a link go on.
    pub(super) fn end_waits_on(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            let waiters = std::mem::take(&mut link.waiters);
            self.end_waits(key, &waiters);
        }
    }

    /// Clients that are replicas are never done.
    pub(super) fn end_tunnels(&mut self) {
        let clients = self.clients.iter();
        let ones = clients.filter(|(_, client)| client.is_replica());
        let keys: Vec<_> = ones.map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Ending::Now);
        }
    }
}

impl Client {
    /// Whether it has become a replica.
    pub(super) fn is_replica(&self) -> bool {
        self.upload.as_deref().is_some_and(Upload::is_endless)
    }
}

/// Whether a command makes a replica of its client.
pub(super) fn makes_replica(request: &Request<'_>) -> bool {
    let name = request.name();
    name.eq_ignore_ascii_case(b"sync") || name.eq_ignore_ascii_case(b"psync")
}

/// Whether it says what a replica has to say to its master. One whose `PSYNC` is refused tries
/// `SYNC` (Redis replication.c, `slaveTryPartialResynchronization`).
fn speaks_as_replica(request: &Request<'_>, table: &Table) -> bool {
    let may = || table.classify(request).class != Class::Refused;
    // A replica that may be one has to acknowledge.
    let speaks =
        has_no_reply(request) || ((makes_replica(request) || tells_replica(request)) && may());
    speaks && !is_silent_later(request) && !is_address_refused(request, table)
}

/// Whether a replica says at which address it is, and may not.
pub(super) fn is_address_refused(request: &Request<'_>, table: &Table) -> bool {
    let mut options = request.args().skip(1).step_by(2);
    !table.lets_replicas_announce()
        && tells_replica(request)
        && options.any(|it| is_word(it, b"listening-port") || is_word(it, b"ip-address"))
}

/// Whether a command says what such a replica is like, over the connection on which it is one.
pub(super) fn tells_replica(request: &Request<'_>) -> bool {
    request.name().eq_ignore_ascii_case(b"replconf")
}

/// Whether a server says nothing to this, whoever sends it (Redis replication.c,
/// `replconfCommand`).
pub(super) fn has_no_reply(request: &Request<'_>) -> bool {
    tells_replica(request) && request.argc() % 2 == 1 && request.arg1().is_some_and(is_silent)
}

/// Whether it says so behind other options, so that what a server answers depends on those.
pub(super) fn is_silent_later(request: &Request<'_>) -> bool {
    let mut options = request.args().skip(3).step_by(2);
    tells_replica(request) && options.any(is_silent)
}

fn is_silent(option: &[u8]) -> bool {
    is_word(option, b"ack") || is_word(option, b"getack")
}
