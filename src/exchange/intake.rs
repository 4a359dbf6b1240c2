//! Floor 4. Bytes of clients: decoded while there is a place for what they ask, kept otherwise.

use std::collections::VecDeque;

use crate::consistency::{Slot, Stamps};
use crate::exchange::client::{Client, Ending, Wait};
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::node::Group;
use crate::exchange::{ClientKey, Exchange, GroupIndex};
use crate::resp::{Decoded, Request, RequestError, RequestLimits};
use crate::route::Access;
use crate::session::{Piece, Session};
use crate::telemetry::Reason;
use crate::types::Time;

impl Exchange {
    /// A client has connected to a group's listener, which gives it `access`. `id` is unique in the
    /// process.
    pub fn client_joined(
        &mut self,
        group: GroupIndex,
        access: Access,
        id: u64,
        now: Time,
    ) -> ClientKey {
        let mut client = Client::new(Session::new(id), group, access, now);
        if let Some(group) = self.groups.get_mut(group) {
            group.counts.client_connections_accepted += 1;
            group.counts.clients += 1;
            group.settings.audience.enter();
            client.admitted = group.admits(now);
        }
        self.clients.insert(client)
    }

    /// A client has sent `data`, some bytes.
    pub fn client_bytes(&mut self, key: ClientKey, data: &[u8], now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(client.group) {
            group.counts.client_received_bytes += offset(data.len());
        }
        if client.ending != Ending::No {
            return;
        }
        if client.wait == Wait::No && client.again.is_empty() && client.input.is_empty() {
            client.arrived = now;
            let used = self.consume(key, data, now);
            self.keep(key, data.get(used..).unwrap_or_default());
        } else {
            self.keep(key, data);
            let Some(client) = self.clients.get_mut(key) else {
                return;
            };
            if client.wait == Wait::No {
                // What a request in pieces has waited for its rest is its client's time, not ours.
                client.arrived = now;
                self.pump(key, now);
            } else {
                client.mark_arrival(client.input.len() - data.len(), now);
            }
        }
        self.settle(now);
    }

    /// Whether more should be read from the client's socket.
    pub fn wants_input(&self, key: ClientKey) -> bool {
        self.clients.get(key).is_some_and(|client| {
            client.ending == Ending::No
                && !client.said_all
                && (client.wait == Wait::No || client.input.len() < self.settings.read_ahead)
        })
    }

    /// Ends a client's wait if it is still this one.
    pub(super) fn end_wait(&mut self, key: ClientKey, wait: Wait) {
        if let Some(client) = self.clients.get_mut(key)
            && client.wait == wait
        {
            client.wait = Wait::Over;
            self.touch(key);
        }
    }

    /// A client whose wait is over goes on.
    pub(super) fn resume(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.wait = Wait::No;
        self.pump(key, now);
        self.end_if_all_said(key, now);
        // It may read again.
        self.mark_dirty(key);
    }

    /// Places what the client has: first requests to be placed anew, then its input.
    pub(super) fn pump(&mut self, key: ClientKey, now: Time) {
        while let Some(client) = self.clients.get_mut(key)
            && let Some(again) = client.again.pop_front()
        {
            let Some(request) = Request::from_raw(&again.raw) else {
                continue;
            };
            let job = Job {
                again: Some(again.number),
                ..Job::new(key, again.arrived, now)
            };
            if self.dispatch(job, &request) == Placed::Waits {
                if let Some(client) = self.clients.get_mut(key) {
                    client.again.push_front(again);
                }
                return;
            }
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.again = VecDeque::new();
        if client.input.is_empty() {
            return;
        }
        let mut input = std::mem::take(&mut client.input);
        let used = self.consume(key, &input, now);
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if used == input.len() || client.ending != Ending::No {
            client.later = Vec::new();
            self.spares.keep(input);
            return;
        }
        input.drain(..used);
        client.forget_arrivals(used);
        client.input = input;
    }

    /// Decodes and places requests from the front of `bytes`; returns how many bytes are done with.
    fn consume(&mut self, key: ClientKey, bytes: &[u8], now: Time) -> usize {
        let mut inline = std::mem::take(&mut self.inline);
        let mut at = 0;
        // The next request, seen while the one before it was placed, for who had logged in or not.
        let mut ahead: Option<Ahead<'_>> = None;
        while let Some(rest) = bytes.get(at..)
            && !rest.is_empty()
        {
            let Some(client) = self.clients.get_mut(key) else {
                break;
            };
            if client.ending != Ending::No {
                at = bytes.len();
                break;
            }
            if client.wait != Wait::No {
                break;
            }
            let group = self.groups.get(client.group);
            let limits = limits(client, group);
            if client.upload.is_some() {
                let used = self.go_on_uploading(key, rest, &limits, now);
                if used == 0 {
                    break;
                }
                at += used;
                continue;
            }
            let is_right = |it: &Ahead<'_>| it.authenticated == limits.authenticated;
            let seen = ahead.take().filter(is_right);
            let slot = seen.and_then(|it| it.slot_in(client.session.database));
            let (request, consumed) = match seen {
                Some(seen) => (seen.request, seen.len),
                None => match client.decoder.decode(rest, &limits, &mut inline) {
                    Ok(Decoded::Request { request, consumed })
                        if consumed <= self.settings.request_max =>
                    {
                        (request, consumed)
                    }
                    Ok(Decoded::Nothing { consumed }) => {
                        at += consumed;
                        continue;
                    }
                    other => {
                        if self.stops_at(key, (rest, other), &limits, now) {
                            at = bytes.len();
                        }
                        break;
                    }
                },
            };
            let mut job = Job::new(key, client.arrived_at(at + consumed - 1), now);
            if let Some(stamps) = group.and_then(|group| group.stamps_for(client)) {
                job.slot = slot.or_else(|| slot_of(stamps, client.session.database, &request));
                let behind = rest.get(consumed..).unwrap_or_default();
                ahead = look_ahead(client, stamps, behind, &limits)
                    .filter(|ahead| ahead.len <= self.settings.request_max);
            }
            if self.dispatch(job, &request) == Placed::Waits {
                break;
            }
            at += consumed;
        }
        self.inline = inline;
        at
    }

    /// The front of `rest` is no whole request, or one too large; says whether all of it is done
    /// with.
    fn stops_at(
        &mut self,
        key: ClientKey,
        (rest, decoded): (&[u8], Result<Decoded<'_>, RequestError>),
        limits: &RequestLimits,
        now: Time,
    ) -> bool {
        match decoded {
            Ok(Decoded::Incomplete { missing })
                if rest.len().saturating_add(missing) <= self.settings.request_max =>
            {
                return self.begin_upload(key, (rest, missing), limits, now);
            }
            Ok(_) => {
                self.count_reject(key, Reason::TooLarge);
                self.end(key, Ending::Now);
            }
            Err(error) => self.protocol_error(key, error),
        }
        false
    }

    /// Redis answers with the text, behind the replies of what came before, and closes.
    pub(super) fn protocol_error(&mut self, key: ClientKey, error: RequestError) {
        self.count_reject(key, Reason::Protocol);
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let spoken = client.session.speaks();
        let seq = client.replies.begin();
        self.scratch.clear();
        error.reply(&mut self.scratch);
        let bytes: &[u8] = if spoken { &self.scratch } else { &[] };
        client.replies.deliver(seq, bytes, Piece::Last);
        self.end(key, Ending::AfterReplies);
    }

    pub(super) fn count_reject(&mut self, key: ClientKey, reason: Reason) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(client.group) {
            group.counts.reject(reason);
        }
    }

    /// Keeps bytes that cannot be placed yet.
    fn keep(&mut self, key: ClientKey, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if bytes.is_empty() || client.ending != Ending::No {
            return;
        }
        if client.input.capacity() == 0 {
            client.input = self.spares.buffer();
        }
        client.input.extend_from_slice(bytes);
    }
}

/// A request that is seen before it is its turn.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    request: Request<'a>,
    len: usize,
    /// Whether its client had logged in.
    authenticated: bool,
    /// The database that its client was in.
    database: u32,
    /// The stamp there of its first argument.
    slot: Option<Slot>,
}

impl Ahead<'_> {
    /// The stamp of its first argument, if that is still the one in this database.
    fn slot_in(&self, database: u32) -> Option<Slot> {
        self.slot.filter(|_| self.database == database)
    }
}

/// The request behind one that is about to be placed, where stamps are asked: its own is on the way
/// from memory meanwhile.
#[inline]
fn look_ahead<'a>(
    client: &Client,
    stamps: &Stamps,
    behind: &'a [u8],
    limits: &RequestLimits,
) -> Option<Ahead<'a>> {
    let (request, len) = client.decoder.look_ahead(behind, limits)?;
    let database = client.session.database;
    Some(Ahead {
        request,
        len,
        authenticated: limits.authenticated,
        database,
        slot: slot_of(stamps, database, &request),
    })
}

/// Where the stamp of a request's first argument is, for a request that comes soon.
#[inline]
fn slot_of(stamps: &Stamps, database: u32, request: &Request<'_>) -> Option<Slot> {
    let slot = request.arg1().map(|key| stamps.slot(database, key))?;
    stamps.prefetch(slot);
    Some(slot)
}

/// What a client may announce: little before it has logged in where it has to.
#[inline]
fn limits(client: &Client, group: Option<&Group>) -> RequestLimits {
    let known = client.admitted || client.session.is_logged_in();
    if !known && group.is_some_and(Group::wants_login) {
        RequestLimits::UNAUTHENTICATED
    } else {
        RequestLimits::AUTHENTICATED
    }
}

/// A length as a count of bytes.
#[expect(
    clippy::as_conversions,
    reason = "usize has at most 64 bits on every target of Rust"
)]
pub(super) const fn offset(len: usize) -> u64 {
    len as u64
}
