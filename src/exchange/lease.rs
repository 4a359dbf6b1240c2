//! Floor 4. Links that are one client's alone: from the pool or new, and back when nothing sticks to
//! them.
//!
//! ```text
//!   pool ──► leased: blocking command ──reply──────────────────► pool
//!                    MULTI … EXEC / DISCARD ──reply────────────► pool
//!                    WATCH … EXEC / DISCARD / UNWATCH ──reply──► pool
//!                    SUBSCRIBE … last UNSUBSCRIBE ──confirmed──► pool
//!                    TRACKING, MONITOR, … ─────── client gone ─► closed
//! ```

use crate::command::{Class, Leased, Local};
use crate::exchange::client::{Client, Numbered, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::intake::offset;
use crate::exchange::link::{State, Usage};
use crate::exchange::ticket::Purpose;
use crate::exchange::{ClientKey, Exchange, LinkKey, Role};
use crate::resp::{Request, encode};
use crate::session::{Reject, Subscriptions};
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

/// Idle links kept for each kind of lane.
const POOL_MAX: usize = 64;

/// Channel of the message that makes WAIT see a client's own writes; nobody listens.
const WAIT_CHANNEL: &[u8] = b"__switchman__:wait";

/// A client's own link, and what sticks to it.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// The link; `None` after it was lost, until another takes its place.
    pub(super) link: Option<LinkKey>,
    /// Between MULTI and EXEC.
    pub(super) in_multi: bool,
    /// The transaction's link is lost: nothing of it is executed any more.
    pub(super) broken: bool,
    /// Keys are watched.
    pub(super) watching: bool,
    /// The link that watched is lost: the next EXEC must not succeed.
    pub(super) stale_watch: bool,
    /// Database selected inside MULTI.
    pub(super) selected: Option<u32>,
    /// Something stays on the link that cannot be undone.
    pub(super) sticky: bool,
    /// What it has subscribed to.
    pub(super) subscriptions: Subscriptions,
}

/// Why a client cannot have a link of its own now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLease {
    /// The client is not there any more.
    Gone,
    /// It has requests in flight on another link to the master.
    Order,
    /// There is no writable master.
    NoMaster,
    /// All leased links are in use.
    Full,
}

impl Lease {
    /// Whether the link is as it was when it came from the pool, once it has no requests in flight.
    pub(super) fn is_clean(&self) -> bool {
        !self.in_multi
            && !self.watching
            && !self.stale_watch
            && !self.sticky
            && self.subscriptions.is_empty()
    }
}

impl Client {
    /// Whether it speaks RESP2 and has subscriptions.
    pub(super) fn is_restricted_subscriber(&self) -> bool {
        self.session.protocol == Protocol::Resp2
            && self
                .lease
                .as_ref()
                .is_some_and(|lease| !lease.subscriptions.is_empty())
    }

    /// Whether its lease has a link with requests in flight.
    pub(super) fn is_lease_busy(&self) -> bool {
        let link = self.lease.as_ref().and_then(|lease| lease.link);
        link.is_some() && self.master_out > 0 && self.master_link == link
    }
}

impl Exchange {
    /// A request of a client that has a lease: the lease, or where it would go without one.
    pub(super) fn dispatch_with_lease(
        &mut self,
        job: Job,
        request: &Request<'_>,
        class: Class,
    ) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Done;
        };
        let Some(lease) = client.lease.as_deref() else {
            return Placed::Done;
        };
        match class {
            Class::Local(Local::Quit | Local::Reset) | Class::Refused => {
                self.dispatch_unshared(job, request, class)
            }
            _ if lease.in_multi => self.place_in_multi(job, request, class),
            Class::Leased(leased) => self.place_leased(job, request, leased),
            Class::Local(Local::Ping) if client.is_restricted_subscriber() => {
                self.send_on_lease(job, request.raw(), Kind::leased(Purpose::Plain))
            }
            Class::Local(Local::Select) if lease.watching || lease.sticky => {
                let reject = Reject::Redis(
                    "ERR switchman: SELECT between WATCH and EXEC, or on a connection with \
                     CLIENT TRACKING, is not offered",
                );
                self.reject(job, RequestClass::Refused, reject)
            }
            Class::Local(_) => self.dispatch_unshared(job, request, class),
            Class::Read | Class::MasterRead | Class::Write | Class::Admin
                if lease.watching || lease.sticky =>
            {
                self.send_on_lease(job, request.raw(), Kind::leased(Purpose::Plain))
            }
            _ => self.dispatch_unshared(job, request, class),
        }
    }

    /// A command that needs a link of its own.
    pub(super) fn place_leased(
        &mut self,
        job: Job,
        request: &Request<'_>,
        leased: Leased,
    ) -> Placed {
        let raw = request.raw();
        match leased {
            Leased::Multi => self.begin_multi(job, raw),
            Leased::Exec => self.reject(
                job,
                RequestClass::Leased,
                Reject::Redis("ERR EXEC without MULTI"),
            ),
            Leased::Discard => self.reject(
                job,
                RequestClass::Leased,
                Reject::Redis("ERR DISCARD without MULTI"),
            ),
            Leased::Watch => self.watch(job, raw),
            Leased::Unwatch => self.unwatch(job, raw),
            Leased::Wait => self.place_wait(job, raw),
            Leased::Tracking | Leased::ConnectionState | Leased::Monitor => {
                let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Plain));
                if placed == Placed::Done
                    && let Some(client) = self.clients.get_mut(job.key)
                    && let Some(lease) = client.lease.as_deref_mut()
                {
                    lease.sticky = true;
                }
                placed
            }
            Leased::Blocking => self.send_on_lease(job, raw, Kind::leased(Purpose::Plain)),
            _ => self.place_subscription(job, request, leased),
        }
    }

    /// Administration goes to the master on a link of the client's own, with its own rights.
    pub(super) fn place_admin(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let kind = Kind {
            class: RequestClass::Admin,
            ..Kind::leased(Purpose::Plain)
        };
        let leaves_marks = request.name().eq_ignore_ascii_case(b"script")
            || request.name().eq_ignore_ascii_case(b"debug");
        let placed = self.send_on_lease(job, request.raw(), kind);
        if leaves_marks
            && placed == Placed::Done
            && let Some(client) = self.clients.get_mut(job.key)
            && let Some(link) = client.lease.as_ref().and_then(|lease| lease.link)
        {
            // It serves this client to the end, but never goes back to the pool.
            self.retire(link);
        }
        placed
    }

    /// WAIT counts the writes of its own connection. These of the client went over another one, so
    /// that a message, which is replicated like a write, goes first: its offset lies behind theirs.
    fn place_wait(&mut self, job: Job, raw: &[u8]) -> Placed {
        let link = match self.lease_link(job) {
            Ok(link) => link,
            Err(placed) => return placed,
        };
        let mut publish = Vec::new();
        encode::request(&mut publish, &[b"PUBLISH", WAIT_CHANNEL, b""]);
        self.send_internal(link, job.key, Purpose::Internal, &publish, job.now);
        self.send(link, job, raw, Kind::leased(Purpose::Plain))
    }

    /// Sends on the client's own link, which is taken from the pool or opened first.
    pub(super) fn send_on_lease(&mut self, job: Job, raw: &[u8], kind: Kind) -> Placed {
        match self.lease_link(job) {
            Ok(link) => self.send(link, job, raw, kind),
            Err(placed) => placed,
        }
    }

    /// The client's own link. An `Err` is what became of the request without one.
    pub(super) fn lease_link(&mut self, job: Job) -> Result<LinkKey, Placed> {
        self.take_lease(job).map_err(|why| match why {
            NoLease::Gone => Placed::Done,
            NoLease::NoMaster => self.hold(job),
            NoLease::Full => {
                let max = self.settings.leases_max;
                self.reject(job, RequestClass::Refused, Reject::NoLease { max })
            }
            NoLease::Order => {
                if let Some(client) = self.clients.get_mut(job.key) {
                    client.wait = Wait::Order;
                }
                Placed::Waits
            }
        })
    }

    /// The link that the client has, or one from the pool, or a new one.
    pub(super) fn take_lease(&mut self, job: Job) -> Result<LinkKey, NoLease> {
        let client = self.clients.get(job.key).ok_or(NoLease::Gone)?;
        let own = client.lease.as_ref().and_then(|lease| lease.link);
        if client.master_out > 0 && (own.is_none() || client.master_link != own) {
            return Err(NoLease::Order);
        }
        let index = client.group;
        let group = self.groups.get(index).ok_or(NoLease::Gone)?;
        if let Some(own) = own {
            // What was begun before a switch goes on where it is; nothing new begins.
            let bound = client.lease.as_ref().is_some_and(|lease| !lease.is_clean());
            let free = bound || group.writable.is_some();
            return if free {
                Ok(own)
            } else {
                Err(NoLease::NoMaster)
            };
        }
        let node = group.writable.ok_or(NoLease::NoMaster)?;
        let lane = self
            .lane_of(job.key, node, Role::Master)
            .ok_or(NoLease::Gone)?;
        let group = self.groups.get_mut(index).ok_or(NoLease::Gone)?;
        let key = match group.pool.get_mut(&lane).and_then(Vec::pop) {
            Some(pooled) => pooled,
            None => {
                if self.leased_count() >= self.settings.leases_max {
                    return Err(NoLease::Full);
                }
                let login = self
                    .groups
                    .get(index)
                    .and_then(|group| group.login(lane.identity));
                self.open(index, lane, Usage::Leased(Some(job.key)), login, job.now)
            }
        };
        if let Some(link) = self.links.get_mut(key) {
            link.usage = Usage::Leased(Some(job.key));
        }
        if let Some(client) = self.clients.get_mut(job.key) {
            client.lease.get_or_insert_default().link = Some(key);
        }
        Ok(key)
    }

    fn leased_count(&self) -> usize {
        self.links
            .iter()
            .filter(|(_, link)| matches!(link.usage, Usage::Leased(_)))
            .count()
    }

    /// Sends a command of our own on a client's link; nobody hears its reply.
    pub(super) fn send_internal(
        &mut self,
        link: LinkKey,
        key: ClientKey,
        purpose: Purpose,
        raw: &[u8],
        now: Time,
    ) {
        // It takes a number like any other so that the client's counts stay true, and gives an
        // empty reply.
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let seq = client.replies.begin();
        let number = Numbered {
            seq,
            spoken: false,
            bounces: 0,
        };
        let job = Job {
            key,
            again: Some(number),
            arrived: now,
            now,
        };
        // With a number a request is never refused for lack of room.
        let _ = self.send(link, job, raw, Kind::leased(purpose));
    }

    /// Gives a client's link back when nothing is in flight on it and nothing sticks to it.
    pub(super) fn release_lease(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.is_lease_busy() || !client.lease.as_ref().is_some_and(|lease| lease.is_clean()) {
            return;
        }
        let Some(link) = client.lease.take().and_then(|lease| lease.link) else {
            return;
        };
        self.pool_or_close(link, now);
    }

    /// Puts a clean link into the pool, or closes it.
    pub(super) fn pool_or_close(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (lane, index) = (link.lane, link.group);
        link.usage = Usage::Leased(None);
        link.heard_at = now;
        let fine = link.state == State::Ready && link.pipeline.is_empty() && link.input.is_empty();
        let group = self.groups.get_mut(index);
        if fine
            && let Some(group) = group
            && group.writable == Some(lane.node)
        {
            let pooled = group.pool.entry(lane).or_default();
            if pooled.len() < POOL_MAX {
                pooled.push(key);
                return;
            }
        }
        self.discard(key);
    }

    /// Ends a client's lease for good: the link is closed unless it is clean.
    pub(super) fn drop_lease(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let busy = client.is_lease_busy();
        let Some(lease) = client.lease.take() else {
            return;
        };
        let Some(link) = lease.link else { return };
        if busy || !lease.is_clean() {
            self.forget_requests_of(link, key);
            self.discard(link);
        } else {
            self.pool_or_close(link, now);
        }
    }

    /// Takes a closing link's requests out of its client's and node's counts.
    fn forget_requests_of(&mut self, key: LinkKey, client: ClientKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let lost = u32::try_from(offset(link.pipeline.len())).unwrap_or(u32::MAX);
        if let Some(client) = self.clients.get_mut(client) {
            client.master_out = client.master_out.saturating_sub(lost);
            client.writes_out = client.writes_out.saturating_sub(lost);
        }
        let node = self
            .groups
            .get_mut(link.group)
            .and_then(|group| group.nodes.get_mut(link.lane.node.0));
        if let Some(node) = node {
            node.in_flight = node.in_flight.saturating_sub(lost);
        }
    }
}
