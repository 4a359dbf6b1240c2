//! Floor 4. Requests with an argument too large to be kept: they are passed on while they come.
//!
//! ```text
//!  its front is there ──► a link of the client's own ──► fed while it has room ──► whole ──► reply
//!        │                       │ lost, or the node objects
//!        │ refused               ▼
//!        └────────────────► the rest is taken from the client and dropped
//! ```
//!
//! Nothing of it is left to be sent again, so that a loss in the middle is told: no node executes
//! half a request. Everything else about it is as with any other write.

use crate::command::{Class, Reach, Spec};
use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::State;
use crate::exchange::marks::Marks;
use crate::exchange::ticket::Purpose;
use crate::exchange::{ClientKey, Exchange, LinkKey, Stopping};
use crate::resp::{self, RequestError, RequestLimits};
use crate::session::Piece;
use crate::telemetry::RequestClass;
use crate::types::Time;

/// Bytes of an argument that have not come from which on its request is passed on while it comes.
/// Smaller ones are forwarded when they are whole, and survive the loss of a connection.
const UPLOAD_FROM: usize = 1 << 20;

/// Bytes of it that are kept for the node to take; then its client is not read from.
pub(super) const WINDOW: usize = 256 * 1024;

/// A request that is passed on while it comes.
#[derive(Debug)]
pub(super) struct Upload {
    /// What is to come; `None`: it has no end.
    rest: Option<resp::Upload>,
    /// The link that it is on; `None` if what comes is dropped.
    pub(super) on: Option<LinkKey>,
    /// Whether something stuck to its link before.
    pub(super) was_sticky: bool,
}

impl Upload {
    /// One that goes on with whatever comes.
    pub(super) const fn endless(on: LinkKey, was_sticky: bool) -> Self {
        Self {
            rest: None,
            on: Some(on),
            was_sticky,
        }
    }

    /// Whether it has no end.
    pub(super) const fn is_endless(&self) -> bool {
        self.rest.is_none()
    }

    /// Takes more of it from the front of `bytes`. Returns how many bytes are done with.
    fn take(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<usize, RequestError> {
        let rest = self.rest.as_mut();
        rest.map_or(Ok(0), |rest| rest.take(bytes, limits))
    }

    fn is_done(&self) -> bool {
        self.rest.as_ref().is_some_and(resp::Upload::is_done)
    }
}

impl Exchange {
    /// Begins with the request at the front of `bytes`, of which `missing` bytes at least have not
    /// come. Returns whether all of `bytes` are done with.
    pub(super) fn begin_upload(
        &mut self,
        key: ClientKey,
        (bytes, missing): (&[u8], usize),
        limits: &RequestLimits,
        now: Time,
    ) -> bool {
        if missing < UPLOAD_FROM || self.stopping != Stopping::No {
            return false;
        }
        let Some((request, rest)) = resp::Upload::begin(bytes, limits, UPLOAD_FROM) else {
            return false;
        };
        let Some(client) = self.clients.get(key) else {
            return false;
        };
        let (admitted, job) = (client.admitted, Job::new(key, client.arrived, now));
        if !admitted && self.admit(job, &request).is_some() {
            return false;
        }
        if self.is_in_doubt(key) {
            return false;
        }
        let Some(client) = self.clients.get_mut(key) else {
            return false;
        };
        let Some(group) = self.groups.get(client.group) else {
            return false;
        };
        let command = group.table.classify(&request);
        let known = command.class == Class::Write && command.problem.is_none();
        let fit = known && command.spec.and_then(Spec::script).is_none();
        // What is bound to its own link, or bound to fail, is looked at when it is whole.
        let plain = client.lease.as_ref().is_none_or(|lease| lease.is_unbound());
        let may = client.admitted || !group.wants_login();
        if !fit || !plain || !may || client.access.is_read_only() || request.arg1().is_none() {
            return false;
        }
        let reach = command.reach();
        let marks = match (&group.settings.stamps, reach) {
            (None, _) | (Some(_), Reach::Nothing) => Marks::None,
            (Some(_), Reach::Keys(keys)) if keys.is_arg1() => {
                group.marks(client, reach, (&request, None))
            }
            (Some(stamps), _) => Marks::One(stamps.everything()),
        };
        group.note_bulky(reach, &request, now);
        let job = Job {
            reach,
            marks,
            ..job
        };
        let on = match self.upload_link(job) {
            Ok(link) => match self.send(link, job, bytes, Kind::leased(Purpose::Upload)) {
                Placed::Sent => Some(link),
                Placed::Waits => return false,
                Placed::Answered => None,
            },
            Err(Placed::Waits) => return false,
            Err(Placed::Sent | Placed::Answered) => None,
        };
        if let Some(client) = self.clients.get_mut(key) {
            let rest = Some(rest);
            let was_sticky = false;
            client.upload = Some(Box::new(Upload {
                rest,
                on,
                was_sticky,
            }));
            client.decoder = resp::RequestDecoder::default();
        }
        true
    }

    /// An open link of the client's own on which nothing is in flight.
    pub(super) fn upload_link(&mut self, job: Job) -> Result<LinkKey, Placed> {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Err(Placed::Answered);
        };
        if client.replies.outstanding() >= self.settings.pipeline_max {
            client.wait = Wait::Room;
            return Err(Placed::Waits);
        }
        if let Some(words) = client.take_objection() {
            // Its link was refused with these.
            self.scratch.clear();
            self.scratch.extend_from_slice(&words);
            return Err(self.answer(job, RequestClass::Leased, None));
        }
        if client.master_out > 0 {
            client.wait = Wait::Order;
            return Err(Placed::Waits);
        }
        let key = self.lease_link(job)?;
        let (Some(link), Some(client)) = (self.links.get_mut(key), self.clients.get_mut(job.key))
        else {
            return Err(Placed::Answered);
        };
        if link.state == State::Opening {
            // Once it is open nothing of the request is lost if it cannot be.
            link.waiters.push(job.key);
            client.wait = Wait::Proof(key);
            return Err(Placed::Waits);
        }
        if !link.pipeline.is_empty() {
            // What it was given to make again what the last one had.
            client.wait = Wait::Order;
            return Err(Placed::Waits);
        }
        Ok(key)
    }

    /// Takes more of a request that is passed on while it comes from the front of `bytes`. Returns
    /// how many are done with; fewer than there are if it is whole, if a header is not, if its
    /// client has to wait for room, or if the rest of it makes no sense.
    pub(super) fn go_on_uploading(
        &mut self,
        key: ClientKey,
        bytes: &[u8],
        limits: &RequestLimits,
        now: Time,
    ) -> usize {
        let Some(client) = self.clients.get_mut(key) else {
            return bytes.len();
        };
        let Some(upload) = &mut client.upload else {
            return 0;
        };
        if upload.is_endless() {
            return self.hear_replica(key, bytes, limits, now);
        }
        // Links that are lost are never named again.
        let on = upload.on;
        let mut link = on.and_then(|at| Some((at, self.links.get_mut(at)?)));
        let mut bytes = bytes;
        if let Some((at, link)) = &mut link {
            let room = WINDOW.saturating_sub(link.pipeline.pending_bytes());
            if room == 0 {
                link.waiters.push(key);
                client.wait = Wait::Link(*at);
                return 0;
            }
            bytes = bytes.get(..room).unwrap_or(bytes);
        }
        let used = match upload.take(bytes, limits) {
            Ok(used) => used,
            Err(error) => {
                // The error is the only reply.
                self.end_upload(key, now);
                self.protocol_error(key, error);
                return 0;
            }
        };
        let whole = upload.is_done();
        if whole {
            client.upload = None;
        }
        if let Some((at, link)) = link {
            if whole && let Some(ticket) = link.pipeline.ticket_mut(0) {
                ticket.arrived = now;
            }
            self.feed(at, (bytes.get(..used).unwrap_or_default(), whole), now);
        }
        used
    }

    /// A link gets more of the only request on it; `whole` says that this is its end.
    pub(super) fn feed(&mut self, at: LinkKey, (bytes, whole): (&[u8], bool), now: Time) {
        let Some(link) = self.links.get_mut(at) else {
            return;
        };
        if link.pipeline.unwritten().is_empty() {
            // Until now it was the client who was silent.
            link.heard_at = now;
        }
        link.pipeline.feed(bytes, whole);
        if !link.dirty {
            link.dirty = true;
            self.dirty_links.push(at);
        }
    }

    /// Nothing more comes of a request that is passed on while it comes, if there is one. With half
    /// a request on it the link ends too.
    pub(super) fn end_upload(&mut self, key: ClientKey, now: Time) {
        let client = self.clients.get_mut(key);
        let Some(upload) = client.and_then(|client| client.upload.take()) else {
            return;
        };
        if upload.on.is_some_and(|on| self.links.get(on).is_some()) {
            self.drop_lease(key, now);
        }
    }

    /// The node has an error to say before it has all of the request: it wants nothing more of it.
    /// False if it has all.
    #[cold]
    pub(super) fn refuse_upload(&mut self, key: LinkKey, frame: &[u8]) -> bool {
        let link = self.links.get(key).filter(|link| link.pipeline.is_open());
        let Some(ticket) = link.and_then(|link| link.pipeline.oldest_ticket().copied()) else {
            return false;
        };
        self.uncount(ticket, key);
        let gone = self.discard(key);
        self.end_waits(key, &gone.map_or_else(Vec::new, |link| link.waiters));
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return true;
        };
        client.lease = None;
        let bytes = if ticket.spoken { frame } else { &[] };
        client.replies.deliver(ticket.seq, bytes, Piece::Last);
        self.touch(ticket.client);
        true
    }

    /// A node has taken bytes at `now`. Returns whether a client goes on that feeds this link.
    pub(super) fn fed(&mut self, key: LinkKey, now: Time) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        if link.waiters.is_empty() || link.pipeline.pending_bytes() > WINDOW / 2 {
            return false;
        }
        let waiters = std::mem::take(&mut link.waiters);
        self.end_waits(key, &waiters);
        self.settle(now);
        true
    }
}
