//! Floor 4. Whether clients that have not logged in are let in.
//!
//! Redis decides that when a client connects, and for as long as it stays (networking.c,
//! `clientSetDefaultAuth`): one that came before there was a password goes on without it. Here
//! clients share connections to the master, which are as old as the first of them, so that only a
//! new one tells what holds for a new client:
//!
//! ```text
//!   its first command ──► somebody was let in lately ─────────────────────► it is in
//!                     ├─► none is open yet: it goes on one that opens, which tells
//!                     └─► one is opened to see ──► it opens ──────────────► it is in
//!                                              ├─► -NOAUTH ───────────────► it has to log in
//!                                              └─► nothing: reads go to replicas, the rest waits
//! ```
//!
//! Who is in stays so until RESET, or until no connection is left that was let in.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::command::Class;
use crate::exchange::client::{Client, Wait};
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::lease::Multi;
use crate::exchange::link::{LaneId, Link, NodeId, Usage};
use crate::exchange::node::Group;
use crate::exchange::slab::Slab;
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role};
use crate::resp::Request;
use crate::session::IdentityId;
use crate::types::{Protocol, Time};

/// How long it is believed what a new connection has told.
const BELIEVED_FOR: Duration = Duration::from_secs(1);

/// How many commands of clients may have changed who is let in, as all workers know.
#[derive(Debug, Default)]
pub struct Changes(AtomicU32);

impl Changes {
    /// There may have been one.
    pub(super) fn note(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub(super) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of how the master takes clients that have not logged in.
#[derive(Debug, Default)]
pub(super) struct Door {
    said: Said,
    /// When, and behind how many changes.
    at: Time,
    changes: u32,
    /// The connection that is opened to see.
    trial: Option<LinkKey>,
}

/// What a new connection has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said {
    /// Nothing.
    #[default]
    Nothing,
    /// It was let in.
    In,
    /// It has to log in.
    LogIn,
}

impl Group {
    /// Whether a client that comes now is let in, as far as is known.
    pub(super) fn admits(&self, now: Time) -> bool {
        let is_in = self.door.said == Said::In && self.is_believed(now);
        is_in || self.settings.anonymous.is_some()
    }

    /// A connection that is not logged in has told something, behind so many changes.
    pub(super) fn door_told(&mut self, is_in: bool, changes: u32, now: Time) {
        self.door.said = if is_in { Said::In } else { Said::LogIn };
        (self.door.at, self.door.changes) = (now, changes);
    }

    /// The master could not be asked. That it wanted a login last still holds.
    fn door_is_silent(&mut self, now: Time) {
        if self.door.said == Said::In {
            self.door.said = Said::Nothing;
        }
        (self.door.at, self.door.changes) = (now, self.settings.changes.count());
    }

    /// Whether a client had to log in before anything else, when that was seen last.
    pub(super) fn wants_login(&self) -> bool {
        self.door.said == Said::LogIn && self.settings.anonymous.is_none()
    }

    /// The same, as far as it was seen lately: a password may be taken away, or the next master
    /// have none.
    pub(super) fn wants_login_now(&self, now: Time) -> bool {
        self.wants_login() && self.is_believed(now)
    }

    fn is_believed(&self, now: Time) -> bool {
        let door = &self.door;
        now.since(door.at) < BELIEVED_FOR && door.changes == self.settings.changes.count()
    }

    /// Whether a link of this lane is opened to tell it.
    pub(super) fn is_tried(&self, links: &Slab<LinkKey, Link>, lane: LaneId) -> bool {
        let link = self.door.trial.and_then(|trial| links.get(trial));
        link.is_some_and(|link| link.lane == lane)
    }

    /// A link is gone.
    pub(super) fn trial_over(&mut self, key: LinkKey) -> bool {
        self.door.trial.take_if(|trial| *trial == key).is_some()
    }
}

impl Exchange {
    /// Looks whether a client that is not in yet is let in. `Some`: that is not known before a
    /// connection tells.
    #[cold]
    pub(super) fn admit(&mut self, job: Job, request: &Request<'_>) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let group = self.groups.get(client.group)?;
        if client.session.is_logged_in() {
            client.admitted = true;
            return None;
        }
        if client.lease.is_some() && group.wants_login_now(job.now) {
            if !client.is_lease_busy() {
                let ends = [&b"exec"[..], b"discard"];
                let ends = ends
                    .iter()
                    .any(|word| request.name().eq_ignore_ascii_case(word));
                self.break_lease(job, ends);
            } else if job.again.is_none() {
                // The link on which that is decides what it is in.
                client.wait = Wait::Answers;
                return Some(Placed::Waits);
            }
        }
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        if group.table.classify(request).allowed_before_login() {
            return None;
        }
        self.knock(job)
    }

    /// A client has to log in now: what it has begun comes to nothing.
    fn break_lease(&mut self, job: Job, ends: bool) {
        let client = self.clients.get(job.key);
        let in_multi = client.is_some_and(Client::is_in_multi);
        self.drop_lease(job.key, job.now);
        if in_multi
            && !ends
            && let Some(client) = self.clients.get_mut(job.key)
        {
            client.lease.get_or_insert_default().multi = Multi::Broken;
        }
    }

    /// The same for what does not take a login.
    pub(super) fn knock(&mut self, job: Job) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let index = client.group;
        let group = self.groups.get_mut(index)?;
        let is_believed = group.is_believed(job.now);
        if group.admits(job.now) {
            client.admitted = true;
            return None;
        }
        let node = group.writable.filter(|_| !is_believed)?;
        let lane = LaneId {
            node,
            role: Role::Master,
            identity: IdentityId::ANONYMOUS,
            database: 0,
            protocol: Protocol::Resp2,
            bulky: false,
        };
        let (may_open, changes) = (
            group.may_open(node, job.now),
            group.settings.changes.count(),
        );
        let wants_login = group.wants_login();
        let is_new = |key: &LinkKey| {
            let link = self.links.get(*key);
            link.is_some_and(|link| link.lane.node == node && link.changes == changes)
        };
        let key = match group.door.trial.filter(is_new) {
            Some(key) => key,
            // The link on which it goes is the first to tell.
            None if !wants_login && !self.has_anonymous(index, node) => return None,
            None if !may_open => {
                self.groups.get_mut(index)?.door_is_silent(job.now);
                return None;
            }
            None => {
                let link = Link::new(index, lane, Usage::Leased(None), job.now);
                let key = self.open(link, None);
                self.groups.get_mut(index)?.door.trial = Some(key);
                key
            }
        };
        self.links.get_mut(key)?.waiters.push(job.key);
        self.clients.get_mut(job.key)?.wait = Wait::Link(key);
        Some(Placed::Waits)
    }

    /// Whether a connection to the master is open on which clients are that have not logged in.
    fn has_anonymous(&self, index: GroupIndex, node: NodeId) -> bool {
        self.has_another((index, node, IdentityId::ANONYMOUS))
    }

    /// Whether nobody knows if a client is let in: then it must not ask the master over what others
    /// have opened, who were.
    pub(super) fn is_in_doubt(&self, key: ClientKey) -> bool {
        let client = self.clients.get(key);
        let client = client.filter(|it| !it.admitted && !it.session.is_logged_in());
        client.is_some_and(|client| {
            let group = self.groups.get(client.group);
            let group = group.filter(|group| group.settings.anonymous.is_none());
            let node = group.and_then(|group| group.writable);
            node.is_some_and(|node| self.has_anonymous(client.group, node))
        })
    }

    /// The trial is over, as its connection is open: it is spare.
    pub(super) fn end_trial(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let Some(group) = self.groups.get_mut(link.group) else {
            return;
        };
        if !group.trial_over(key) {
            return;
        }
        let index = link.group;
        if link.pipeline.is_empty() && !group.pool.contains_key(&link.lane) {
            self.pool_or_close(key, now);
        } else {
            self.close_when_idle(key, now);
        }
        // Some may have been in doubt since an earlier one.
        self.resume_held(index);
    }

    /// The same, as it was not opened, whatever for; `key` is gone.
    pub(super) fn trial_failed(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.wants_login_now(now) {
            // Those in doubt hear so.
            self.resume_held(index);
        } else {
            group.door_is_silent(now);
        }
    }

    /// A connection that takes so long tells nothing: reads that replicas serve must not wait for a
    /// master that is gone.
    pub(super) fn expire_trial(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let is_unknown = group.door.said == Said::Nothing && !group.is_believed(now);
        let Some(trial) = group.door.trial else {
            if is_unknown && !group.held.is_empty() {
                // Those who are in doubt ask again.
                self.resume_held(index);
            }
            return;
        };
        let Some(link) = self.links.get_mut(trial) else {
            return;
        };
        if link.waiters.is_empty() || now.since(link.opened_at) < self.settings.suspect_after {
            return;
        }
        let waiters = std::mem::take(&mut link.waiters);
        group.door_is_silent(now);
        self.end_waits(trial, &waiters);
    }

    /// A command of an administrator has its reply: it may have set a password.
    pub(super) fn note_change(&self, key: LinkKey) {
        if let Some(link) = self.links.get(key) {
            self.note_change_of(link.group);
        }
    }

    /// The same for one that may have been executed.
    pub(super) fn note_change_of(&self, index: GroupIndex) {
        if let Some(group) = self.groups.get(index) {
            group.settings.changes.note();
        }
    }

    /// A client's transaction is to have such a command, if this is one.
    pub(super) fn note_administration(&mut self, key: ClientKey, class: Class) {
        let client = self.clients.get_mut(key).filter(|_| class == Class::Admin);
        if let Some(lease) = client.and_then(|client| client.lease.as_mut()) {
            lease.administers = true;
        }
    }

    /// Whether a client's transaction has such a command; used up by asking.
    pub(super) fn administers(&mut self, key: ClientKey) -> bool {
        let client = self.clients.get_mut(key);
        let lease = client.and_then(|client| client.lease.as_mut());
        lease.is_some_and(|lease| std::mem::take(&mut lease.administers))
    }

    /// No connection is left that was let in: nobody is any more.
    pub(super) fn lock_out(&mut self, index: GroupIndex) {
        for (_, client) in self.clients.iter_mut() {
            if client.group == index && !client.session.is_logged_in() {
                client.admitted = false;
            }
        }
    }
}
