//! Floor 4. CLIENT TRACKING: turned on again with another link. What changed meanwhile cannot be
//! known, so that its client hears that everything did.
//!
//! `CLIENT CACHING` speaks of the next command alone, or of the next transaction: Redis forgets it
//! with that (networking.c, `resetClient`). A client whose link is lost in between is closed: which
//! of its reads are tracked it could not know. Otherwise nothing of it is left to be restored.
//!
//! A server forgets what a connection has read with the connection only: turned off and on again,
//! tracking goes on with what was read before. So a client keeps its link when tracking is off, as
//! long as there are others to be had, and nobody else ever gets it.
//!
//! Only in RESP3, where invalidations come over the connection that reads. With RESP2 they go to
//! another connection, which has gone too; such a client is closed.

use crate::exchange::client::{Ending, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::{Lease, NoLease};
use crate::exchange::ticket::{Effect, Purpose};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey};
use crate::resp::{Request, is_word};
use crate::types::{Protocol, Time};

/// Bytes of commands with which one client may turn tracking on, to have them sent again: each may
/// bring more prefixes. One with more is closed when its link is lost.
const COMMANDS_MAX: usize = 64 * 1024;

/// The invalidation of everything, as FLUSHALL causes it (Redis tracking.c,
/// `trackingInvalidateKeysOnFlush`).
const EVERYTHING: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// What a client's own link tracks for it.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// The commands that have turned it on.
    commands: Vec<Box<[u8]>>,
    /// Those without a reply, on or off.
    asked: u32,
    /// Times that `CLIENT CACHING` has no reply yet.
    choosing: u32,
    /// Whether it has one, and what it speaks of has none.
    chosen: bool,
    /// Whether it was on over this link.
    was_on: bool,
}

impl Tracking {
    /// Whether it is on, or may be.
    pub(super) const fn is_on(&self) -> bool {
        !self.commands.is_empty() || self.asked > 0
    }

    /// Whether it is surely on.
    pub(super) const fn is_made(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Whether it was on, so that the server may know what the client has read.
    pub(super) const fn was_on(&self) -> bool {
        self.was_on
    }

    /// The link is lost: what has no reply is placed anew.
    pub(super) fn lose_link(&mut self) {
        self.asked = 0;
        self.choosing = 0;
        self.chosen = false;
        self.was_on = false;
    }

    /// Whether `CLIENT CACHING` has something to say of what comes next, or may have.
    pub(super) const fn is_choosing(&self) -> bool {
        self.choosing > 0 || self.chosen
    }

    /// Another request has its reply than one about tracking.
    pub(super) const fn note_other(&mut self, purpose: Purpose) {
        // Redis remembers the choice until EXEC.
        let goes_on = matches!(
            purpose,
            Purpose::Multi
                | Purpose::Queued
                | Purpose::Renewal
                | Purpose::Tracking
                | Purpose::Retracking
                | Purpose::Caching
        );
        self.chosen &= goes_on;
    }

    /// `CLIENT CACHING` has this reply.
    pub(super) fn note_choice(&mut self, reply: &[u8]) {
        self.choosing = self.choosing.saturating_sub(1);
        self.chosen |= reply.starts_with(b"+OK");
    }

    /// A command has this reply. False if there is too much to keep.
    pub(super) fn note(&mut self, raw: &[u8], reply: &[u8]) -> bool {
        self.asked = self.asked.saturating_sub(1);
        if !reply.starts_with(b"+OK") {
            return true;
        }
        let mode = Request::from_raw(raw).and_then(|request| request.args().nth(2));
        if mode.is_some_and(|mode| is_word(mode, b"on")) {
            self.commands.push(Box::from(raw));
            self.was_on = true;
        } else {
            self.commands = Vec::new();
            self.chosen = false;
        }
        let bytes = self.commands.iter().map(|raw| raw.len());
        bytes.sum::<usize>() <= COMMANDS_MAX
    }
}

impl Exchange {
    /// CLIENT TRACKING ON or OFF. From then on all that the client asks goes over its own link.
    pub(super) fn place_tracking(&mut self, job: Job, raw: &[u8]) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if client.session.protocol == Protocol::Resp2 {
            return self.place_sticking(job, raw, Effect::Reads);
        }
        // A reply from elsewhere must not come behind the news that all is invalid.
        if job.again.is_none() && client.is_answered_elsewhere() {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Tracking));
        self.on_lease(job.key, placed, |lease| lease.tracking.asked += 1);
        placed
    }

    /// CLIENT CACHING, and other commands that set something on a connection.
    pub(super) fn place_connection_state(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let is = |word: Option<&[u8]>, want: &[u8]| word.is_some_and(|word| is_word(word, want));
        let of_client = is(Some(request.name()), b"client");
        let caching = of_client && is(request.arg1(), b"caching");
        let client = self.clients.get(job.key);
        let tells_itself = client.is_some_and(|it| it.session.protocol == Protocol::Resp3);
        if caching && tells_itself {
            let kind = Kind::leased(Purpose::Caching);
            let placed = self.send_on_lease(job, request.raw(), kind);
            self.on_lease(job.key, placed, |lease| lease.tracking.choosing += 1);
            return placed;
        }
        // `HIMPORT` may write too.
        let effect = if of_client {
            Effect::Reads
        } else {
            Effect::Writes
        };
        self.place_sticking(job, request.raw(), effect)
    }

    /// What sticks to the link if the server takes it. Until that is known, everything goes there.
    pub(super) fn place_sticking(&mut self, job: Job, raw: &[u8], effect: Effect) -> Placed {
        let kind = Kind {
            effect,
            ..Kind::leased(Purpose::Sticks)
        };
        let placed = self.send_on_lease(job, raw, kind);
        self.on_lease(job.key, placed, |lease| lease.sticking += 1);
        placed
    }

    /// Turns tracking on again for clients whose link was lost, on the present master.
    pub(super) fn track_again_all(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.writable.is_none() {
            return;
        }
        for key in std::mem::take(&mut group.untracked) {
            self.track_client_again(key, now);
        }
    }

    fn track_client_again(&mut self, key: ClientKey, now: Time) {
        let client = self.clients.get(key);
        let lease = client.and_then(|client| client.lease.as_deref());
        if lease.is_none_or(|lease| !lease.unmade) {
            return;
        }
        let job = Job::new(key, now, now);
        match self.take_lease(job) {
            Ok(link) => self.track_again(job, link),
            Err(NoLease::Full | NoLease::Gone) => self.end(key, Ending::Now),
            Err(NoLease::Order | NoLease::NoMaster) => {
                let Some(client) = self.clients.get(key) else {
                    return;
                };
                if let Some(group) = self.groups.get_mut(client.group) {
                    group.untracked.push(key);
                }
            }
        }
    }

    /// Turns on a new link what was on at the lost one, before anything else is sent there.
    pub(super) fn track_again(&mut self, job: Job, link: LinkKey) {
        let client = self.clients.get_mut(job.key);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        let Some(lease) = lease.filter(|lease| lease.unmade) else {
            return;
        };
        lease.unmade = false;
        let lease = self.lease_of(job.key);
        let commands = lease.map(|lease| lease.tracking.commands.clone());
        for raw in commands.unwrap_or_default() {
            self.send_internal(link, job, Purpose::Retracking, &raw);
        }
    }

    /// A client whose link is there only because tracking was on over it, or for its attendance.
    pub(super) fn kept_for_tracking(&self) -> Option<ClientKey> {
        let mut clients = self.clients.iter();
        let spare = clients.find(|(_, client)| {
            let lease = client.lease.as_deref();
            let idle = |lease: &Lease| {
                let may_go = lease.tracking.was_on() || lease.is_attending();
                lease.is_unbound() && may_go && lease.link.is_some()
            };
            lease.is_some_and(idle) && !client.is_lease_busy() && client.wait == Wait::No
        });
        spare.map(|(key, _)| key)
    }

    /// A client hears that all that it has read may have changed.
    pub(super) fn invalidate_everything(&mut self, key: ClientKey) {
        self.pass_push(key, EVERYTHING);
    }
}
