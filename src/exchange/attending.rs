//! Floor 4. Commands that administer the master. Whoever configures or debugs it, or sets its
//! statistics back, looks at it next: for a moment it serves all of that client, and counts all
//! that it asks.
//!
//! ```text
//!   CONFIG SET, CONFIG RESETSTAT, DEBUG,
//!   SLOWLOG RESET, LATENCY RESET, … ──► the client attends to the master, over a link of its own
//!                                       that bears its name
//!     reads, writes, PING, ECHO ──────► over that link
//!     CLIENT ID and its like ─────────► asked there too, and answered here
//!   none of the first for a while ────► as any other client
//! ```
//!
//! Nothing is bound to the link. It is given up where others need one, and with the master; what
//! comes from another database, or with another login, goes the usual way.

use std::time::Duration;

use crate::command::Local;
use crate::exchange::busy::is_accepted_by_busy;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::Lease;
use crate::exchange::link::LaneId;
use crate::exchange::node::Group;
use crate::exchange::ticket::Purpose;
use crate::exchange::tunnel::{
    has_no_reply, is_address_refused, is_silent_later, makes_replica, tells_replica,
};
use crate::exchange::warm::Wanted;
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey};
use crate::resp::{Request, encode, is_word};
use crate::session::Reject;
use crate::telemetry::RequestClass;
use crate::types::{CONNECTION_NAME, Time};

/// How long a client attends to the master after the last command that began it.
const ATTENDS: Duration = Duration::from_secs(5);

/// How long none is disturbed by a link that nobody needs yet.
const ALONE: Duration = Duration::from_secs(1);

/// What is answered here, and can be asked at a server as it stands, without a trace but the count.
const fn is_countable(local: Local) -> bool {
    matches!(
        local,
        Local::ClientId | Local::ClientGetname | Local::ClientGetredir | Local::ClientTrackinginfo
    )
}

/// Whether a command begins it.
fn begins(request: &Request<'_>) -> bool {
    let is = is_word;
    let (name, sub) = (request.name(), request.arg1().unwrap_or_default());
    let kept = [&b"slowlog"[..], b"latency", b"commandlog"];
    is(name, b"debug")
        || (is(name, b"config") && (is(sub, b"set") || is(sub, b"resetstat")))
        || (is(sub, b"reset") && kept.iter().any(|it| is(name, it)))
}

/// A client that attends to the master of a group.
#[derive(Debug)]
pub(super) struct Attending {
    client: ClientKey,
    group: GroupIndex,
    /// Whether spare links were opened again since it began.
    warmed: bool,
}

impl Lease {
    /// Whether its client attends to the master.
    pub(super) const fn is_attending(&self) -> bool {
        self.attends.is_some()
    }
}

impl Exchange {
    /// Administration goes to the master on a link of the client's own, with its own rights.
    pub(super) fn place_admin(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let kind = Kind {
            class: RequestClass::Admin,
            ..Kind::leased(Purpose::Slow)
        };
        let debugs = |word: &[u8]| is_word(word, b"debug");
        let leaves_marks = debugs(request.name()) || request.arg1().is_some_and(debugs);
        if makes_replica(request) {
            return self.place_tunnel(job, request);
        }
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        if group.is_some_and(|group| is_address_refused(request, &group.table)) {
            let command = request.name();
            return self.reject(job, RequestClass::Refused, Reject::Refused { command });
        }
        if is_silent_later(request) {
            return self.reject(
                job,
                RequestClass::Refused,
                Reject::Redis("ERR syntax error"),
            );
        }
        if has_no_reply(request) {
            self.scratch.clear();
            return self.answer(job, RequestClass::Admin, None);
        }
        // What ends a script must not need a SELECT first: a busy node would refuse it.
        // What is made again with the link is for the session's database.
        let unmade = self.lease_of(job.key).is_some_and(|lease| lease.unmade);
        let database = (is_accepted_by_busy(request) && !unmade).then_some(0);
        let wanted = Wanted {
            database,
            ..Wanted::default()
        };
        let taken = self.take_lease_in(job, wanted);
        let placed = match self.lease_or_wait(job, taken) {
            Ok(link) => {
                self.attend(job, request, link);
                self.send(link, job, request.raw(), kind)
            }
            Err(placed) => placed,
        };
        if placed == Placed::Sent {
            self.note_pause(job, request);
            self.note_deletion(job, request);
        }
        if tells_replica(request) {
            self.on_lease(job.key, placed, |lease| lease.sticky = true);
        }
        if leaves_marks
            && placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
            && let Some(link) = client.lease.as_ref().and_then(|lease| lease.link)
        {
            // It serves this client to the end, but never goes back to the pool.
            self.retire(link);
            self.warm_again(link, job.now);
        }
        placed
    }

    /// Whether a client attends to the master over a link that is as it needs one now: what it
    /// sends finds its place there at once.
    pub(super) fn attends_on_link(&self, key: ClientKey) -> bool {
        let lease = self.lease_of(key).filter(|lease| lease.is_attending());
        let link = lease.and_then(|lease| self.links.get(lease.link?));
        let lane = link.map(|link| link.lane);
        lane.is_some_and(|lane| self.lane_of(key, lane.node, lane.role) == Some(lane))
    }

    /// What administers the master is about to be sent on a client's own link, which gets the
    /// client's name if this begins its attendance.
    fn attend(&mut self, job: Job, request: &Request<'_>, link: LinkKey) {
        if !begins(request) || !self.may_attend(job.key) {
            return;
        }
        let Some(client) = self.clients.get_mut(job.key) else {
            return;
        };
        // Where it has begun something else, it has the link for that; and to one that watches
        // (MONITOR), what is said besides would be a line more.
        let Some(lease) = client.lease.as_deref_mut().filter(|it| it.is_clean()) else {
            return;
        };
        lease.attends = Some(job.now);
        let mut before = self.attending.iter_mut();
        if let Some(it) = before.find(|it| it.client == job.key) {
            it.warmed = false;
        } else {
            self.attending.push(Attending {
                client: job.key,
                group: client.group,
                warmed: false,
            });
        }
        let called = lease.called.as_deref().unwrap_or(CONNECTION_NAME);
        let name = client.session.name().unwrap_or(CONNECTION_NAME);
        if name == called {
            return;
        }
        let mut raw = Vec::new();
        encode::request(&mut raw, &[b"CLIENT", b"SETNAME", name]);
        lease.called = Some(Box::from(name));
        self.send_internal(link, job, Purpose::Internal, &raw);
        // The next client has another name.
        self.retire(link);
    }

    /// Has the master count a command that is answered here.
    pub(super) fn have_master_count(&mut self, job: Job, request: &Request<'_>, local: Local) {
        let lease = self.lease_of(job.key);
        let link = lease.and_then(|lease| lease.link);
        let client = self.clients.get(job.key);
        let is_elsewhere = client.is_none_or(|it| it.is_answered_beside(link));
        if let Some(link) = link.filter(|_| is_countable(local) && !is_elsewhere)
            && job.again.is_none()
            && self.attends_on_link(job.key)
        {
            self.send_internal(link, job, Purpose::Internal, request.raw());
        }
    }

    /// Whether a client has its link for that alone.
    pub(super) fn only_attends(&self, key: ClientKey) -> bool {
        let lease = self.lease_of(key);
        lease.is_some_and(|lease| lease.is_attending() && lease.is_clean())
    }

    /// Whether a client has just begun to attend to the master of a group. No link is opened then
    /// that nobody needs yet: what is asked over it at first would be among what it counts.
    pub(super) fn is_attended(&self, index: GroupIndex, now: Time) -> bool {
        self.attending.iter().any(|it| {
            let since = self.lease_of(it.client).and_then(|lease| lease.attends);
            it.group == index && since.is_some_and(|since| now.since(since) < ALONE)
        })
    }

    /// Whether there is a master to attend to, and others do not need the link that this takes: no
    /// more of them can be had with a login that is taken no more.
    fn may_attend(&self, key: ClientKey) -> bool {
        let client = self.clients.get(key);
        client.is_some_and(|client| {
            let group = self.groups.get(client.group);
            let identity = client.session.identity;
            let has_room = |group: &Group| {
                let master = group.writable;
                master.is_some_and(|node| !group.keeps_out((node, identity)))
            };
            group.is_some_and(has_room)
        })
    }

    /// Ends a client's attendance if it has lasted long enough, or cannot go on.
    pub(super) fn end_attendance(&mut self, key: ClientKey, now: Time) {
        if !self.lease_of(key).is_some_and(Lease::is_attending) {
            return;
        }
        let goes_on = self.may_attend(key);
        let client = self.clients.get_mut(key);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        if let Some(lease) = lease
            && lease
                .attends
                .is_some_and(|since| !goes_on || now.since(since) >= ATTENDS)
        {
            lease.attends = None;
        }
    }

    /// Clients that have sent nothing since their attendance was over give their links back, and
    /// spare links are opened again.
    pub(super) fn end_attendances(&mut self, now: Time) {
        let mut attending = std::mem::take(&mut self.attending);
        let mut quiet = Vec::new();
        attending.retain_mut(|it| {
            self.end_attendance(it.client, now);
            let lease = self.lease_of(it.client);
            let since = lease.and_then(|lease| lease.attends);
            if !it.warmed && since.is_none_or(|since| now.since(since) >= ALONE) {
                it.warmed = true;
                quiet.push(it.group);
            }
            if since.is_none() {
                self.release_lease(it.client, now);
            }
            since.is_some()
        });
        self.attending = attending;
        for index in quiet {
            let lanes = self.groups.get(index).map(|group| &group.lanes);
            let lanes: Vec<LaneId> = lanes.map_or_else(Vec::new, |it| it.keys().copied().collect());
            for lane in lanes {
                self.warm_beside(index, lane, now);
            }
        }
    }
}
