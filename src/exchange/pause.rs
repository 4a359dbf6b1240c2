//! Floor 4. A master that keeps writes waiting (`CLIENT PAUSE … WRITE`, `FAILOVER`) goes on with
//! reads. Behind a write, on the same connection, it comes to none.
//!
//! ```text
//!   a client sends CLIENT PAUSE ───────────────────────┐
//!   a write is silent ──► PING over another link       ├──► known to all workers, for a while
//!                              └──► PONG ──────────────┘
//!                                     └──► reads behind that write are asked once more (detour)
//!
//!   reads of the master meanwhile    go over the link apart that those of large values have
//!   writes                           have a link each at first, then the last of these together
//! ```
//!
//! A few writes have links of their own so that the master counts them as it does the clients of a
//! server (`blocked_clients` in `INFO`). More than a few would be a flood of connections.
//!
//! That a client has asked for a pause is no proof that there is one: the node may refuse it, or
//! somebody else may end it. If there is none, what was done in vain costs a connection or two.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::command::Class;
use crate::exchange::client::Client;
use crate::exchange::dispatch::Job;
use crate::exchange::link::{LaneId, Lending, Link, NodeId, Usage};
use crate::exchange::node::Group;
use crate::exchange::ticket::{Effect, Purpose};
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode};
use crate::types::Time;

/// How long a pause counts as one after it was found. While a write stays silent, it is found
/// again with each tick.
const KEEP: Duration = Duration::from_secs(1);

/// For how long a client is believed that there is a pause, at most. Whether it is longer is found.
const TOLD_MAX: Duration = Duration::from_secs(600);

/// Silent links of one lane, at most, that new requests go past at a time: a master on which every
/// connection falls silent gets no more of them.
const PASSED_BY_MAX: usize = 4;

/// Writes of one worker that get a link to themselves for each pause that a client asks for.
const APART_MAX: u8 = 16;

/// What a master says to PING that does not run a script.
const PONG: &[u8] = b"+PONG";

/// Whether the master of a group keeps writes waiting, as far as any worker knows.
#[derive(Debug, Default)]
pub struct Pause {
    /// Until when, in milliseconds since the start of the process. 0: there is none, as is mostly
    /// so.
    until: AtomicU64,
    /// How many were asked for.
    told: AtomicU32,
}

impl Pause {
    /// A client has asked for one of so many milliseconds. Without an end it is not shortened
    /// (Redis networking.c, `pauseClients`).
    fn begin(&self, length: u64, now: Time) {
        let length = Duration::from_millis(length).min(TOLD_MAX);
        self.until
            .fetch_max(millis(now + length), Ordering::Relaxed);
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// A client has asked for its end.
    fn end(&self) {
        self.until.store(0, Ordering::Relaxed);
    }

    /// A write has no reply where others have.
    fn found(&self, now: Time) {
        self.until.fetch_max(millis(now + KEEP), Ordering::Relaxed);
    }

    /// When it is over, nothing is looked up any more.
    pub(super) fn expire(&self, now: Time) {
        let until = self.until.load(Ordering::Relaxed);
        if until != 0 && until <= millis(now) {
            // Where another worker has just found one, that stays.
            let order = Ordering::Relaxed;
            let _ = self.until.compare_exchange(until, 0, order, order);
        }
    }

    /// Whether there may be one.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.until.load(Ordering::Relaxed) != 0
    }

    fn is(&self, now: Time) -> bool {
        millis(now) < self.until.load(Ordering::Relaxed)
    }
}

fn millis(time: Time) -> u64 {
    u64::try_from(time.since_start().as_millis()).unwrap_or(u64::MAX)
}

/// Writes that still get a link to themselves.
#[derive(Debug, Default)]
pub(super) struct Apart {
    left: u8,
    /// In the pause of this number.
    told: u32,
}

impl Group {
    /// Whether a request for the master has to be looked at more closely.
    #[inline]
    pub(super) fn may_go_apart(&self) -> bool {
        self.has_bulky() || self.settings.pause.is_known()
    }

    pub(super) fn is_paused(&self, now: Time) -> bool {
        self.settings.pause.is(now)
    }

    /// Whether one more write gets a link to itself.
    fn takes_apart(&mut self) -> bool {
        let told = self.settings.pause.told.load(Ordering::Relaxed);
        if self.apart.told != told {
            self.apart = Apart {
                left: APART_MAX,
                told,
            };
        }
        let left = self.apart.left;
        self.apart.left = left.saturating_sub(1);
        left > 0
    }
}

impl Client {
    /// Whether a request does not go where others of its client go while writes are paused: a read
    /// that need not follow anything, and all that a pause keeps waiting.
    pub(super) fn goes_apart_in_pause(
        &self,
        group: &Group,
        (job, class): (&Job, Class),
        request: &Request<'_>,
    ) -> bool {
        let reads = matches!(class, Class::Read | Class::MasterRead) && !may_replicate(request);
        group.is_paused(job.now) && (!reads || self.master_out == 0)
    }
}

impl Exchange {
    /// A client sends CLIENT PAUSE or CLIENT UNPAUSE to the master.
    pub(super) fn note_pause(&self, job: Job, request: &Request<'_>) {
        let is = |word: Option<&[u8]>, want: &[u8]| word.is_some_and(|it| same(it, want));
        let mut args = request.args().skip(1);
        let (sub, length) = (args.next(), args.next());
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let Some(group) = group.filter(|_| same(request.name(), b"client")) else {
            return;
        };
        if is(sub, b"unpause") {
            group.settings.pause.end();
        } else if is(sub, b"pause") {
            let length = length.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
            if let Some(length) = length {
                group.settings.pause.begin(length, job.now);
            }
        }
    }

    /// Whether a pause keeps a request of this client waiting.
    pub(super) fn waits_in_pause(&self, job: &Job, effect: Effect, request: &Request<'_>) -> bool {
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        group.is_some_and(|group| group.settings.pause.is_known() && group.is_paused(job.now))
            && (effect == Effect::Writes || may_replicate(request))
    }

    /// A write that will wait is on its way over a shared link: the next one gets another, as far
    /// as there is one more to be had for it.
    #[cold]
    pub(super) fn leave_to_write(&mut self, key: LinkKey) {
        let index = self.links.get(key).map(|link| link.group);
        if self.may_pass_by(key)
            && let Some(group) = index.and_then(|index| self.groups.get_mut(index))
            && group.takes_apart()
        {
            self.pass_by(key);
        }
    }

    /// Whether new requests may go past those on a shared link.
    fn may_pass_by(&self, key: LinkKey) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let (group, lane) = (link.group, link.lane);
        let alike = |link: &Link| link.group == group && link.lane == lane;
        let is_passed_by = |link: &Link| {
            // A throttled one was left for another reason.
            let left = link.retired && link.throttled_at.is_none();
            left && link.usage == Usage::Shared && alike(link)
        };
        let passed_by = self.links.iter().filter(|(_, link)| is_passed_by(link));
        // Where it lets nobody in with this login, there is none to take its place.
        let group = self.groups.get(group);
        let alone = group.is_some_and(|it| it.keeps_out((lane.node, lane.identity)));
        !alone && !link.retired && link.usage == Usage::Shared && passed_by.count() < PASSED_BY_MAX
    }

    /// A shared link takes no new requests, and who waits for room on it looks for another.
    pub(super) fn pass_by(&mut self, key: LinkKey) {
        self.retire(key);
        if let Some(link) = self.links.get_mut(key) {
            link.lending = Lending::PassedBy;
            let waiters = std::mem::take(&mut link.waiters);
            self.end_waits(key, &waiters);
        }
    }

    /// A shared link to a master has been silent for a while. New requests do not queue there any
    /// more; a client with requests on it waits for them, for the sake of its order. If reads wait
    /// behind what is silent, the master is asked whether it answers others.
    pub(super) fn bypass(&mut self, key: LinkKey, now: Time) {
        if self.may_pass_by(key) {
            self.pass_by(key);
        }
        let Some(link) = self.links.get(key).filter(|link| link.has_read_waiting()) else {
            return;
        };
        let (index, lane) = (link.group, link.lane);
        let is_master = |group: &Group| group.writable == Some(lane.node);
        if !self.groups.get(index).is_some_and(is_master) {
            return;
        }
        let aside = [true, false].map(|bulky| LaneId { bulky, ..lane });
        for lane in aside {
            if let Ok(other) = self.shared_link(index, lane, now)
                && other != key
            {
                let mut raw = Vec::new();
                encode::request(&mut raw, &[b"PING"]);
                return self.send_nobodys(other, Purpose::Internal, &raw, now);
            }
        }
    }

    /// A node has answered a question of our own. Where it has been silent all the while, it keeps
    /// what it was asked there waiting.
    pub(super) fn answers_beside(
        &mut self,
        key: LinkKey,
        (asked_at, reply): (Time, &[u8]),
        now: Time,
    ) {
        let link = self.links.get(key).filter(|_| reply.starts_with(PONG));
        let Some(link) = link else {
            return;
        };
        let (index, node) = (link.group, link.lane.node);
        let is_silent = |link: &Link| {
            let own = (link.group, link.lane.node, link.lane.role);
            own == (index, node, Role::Master)
                && link.usage == Usage::Shared
                && link.suspected
                && link.heard_at <= asked_at
        };
        let silent = self.links.iter().filter(|(_, link)| is_silent(link));
        let silent: Vec<_> = silent.map(|(key, _)| key).collect();
        if !silent.is_empty() {
            self.find_pause((index, node), now);
        }
        for key in silent {
            self.detour(key, now);
        }
    }

    fn find_pause(&self, (index, node): (GroupIndex, NodeId), now: Time) {
        let group = self.groups.get(index);
        if let Some(group) = group.filter(|group| group.writable == Some(node)) {
            group.settings.pause.found(now);
        }
    }

    /// Writes are silent still: a pause that is known lasts.
    pub(super) fn prolong_pauses(&self, now: Time) {
        for (_, link) in self.links.iter() {
            let group = self.groups.get(link.group);
            if link.suspected
                && link.lane.role == Role::Master
                && group.is_some_and(|group| group.is_paused(now))
            {
                self.find_pause((link.group, link.lane.node), now);
            }
        }
    }
}

impl Link {
    /// Whether a client's read waits behind something else on a shared link.
    fn has_read_waiting(&self) -> bool {
        let mut tickets = self.pipeline.tickets().skip(1);
        self.usage == Usage::Shared
            && tickets.any(|it| it.purpose == Purpose::Plain && it.effect == Effect::Reads)
    }
}

/// Whether a command that only reads may be replicated nevertheless, for which a pause keeps it
/// waiting (Redis server.c, `processCommand`: `CMD_MAY_REPLICATE`).
pub(super) fn may_replicate(request: &Request<'_>) -> bool {
    same(request.name(), b"pfcount")
}

fn same(word: &[u8], want: &[u8]) -> bool {
    word.eq_ignore_ascii_case(want)
}
