//! Floor 4. A master that keeps writes waiting (`CLIENT PAUSE … WRITE`, `FAILOVER`) goes on with
//! reads. Behind a write, on the same connection, it comes to none.
//!
//! ```text
//!   +OK to CLIENT PAUSE … WRITE of a client ────────────┐
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
//! A pause that a client has asked for may be ended by somebody else. What is done in vain then
//! costs a few connections.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{Class, Flags};
use crate::exchange::client::Client;
use crate::exchange::dispatch::Job;
use crate::exchange::hub::is_passing;
use crate::exchange::link::{LaneId, Lending, Link, Usage};
use crate::exchange::node::Group;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode, is_word};
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
    /// One of so many milliseconds has begun for a client. Without an end it is not shortened
    /// (Redis networking.c, `pauseClients`).
    fn begin(&self, length: u64, now: Time) {
        let length = Duration::from_millis(length).min(TOLD_MAX);
        self.until
            .fetch_max(millis(now + length), Ordering::Relaxed);
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// It was ended for a client, or the master is another.
    pub(super) fn end(&self) {
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
    /// When the master was last asked whether it answers others.
    asked_at: Option<Time>,
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
            self.apart.told = told;
            self.apart.left = APART_MAX;
        }
        self.apart.left > 0
    }

    /// Whether a pause keeps a command waiting that only reads, as it may be replicated
    /// nevertheless (Redis server.c, `processCommand`: `CMD_MAY_REPLICATE`).
    pub(super) fn may_replicate(&self, request: &Request<'_>) -> bool {
        let spec = self.table.classify(request).spec;
        spec.is_some_and(|spec| spec.flags.contains(Flags::MAY_REPLICATE))
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
        let reads = matches!(class, Class::Read | Class::MasterRead);
        group.is_paused(job.now) && (!reads || self.master_out == 0 || group.may_replicate(request))
    }
}

impl Exchange {
    /// The master has said this to a client's CLIENT PAUSE or CLIENT UNPAUSE.
    pub(super) fn take_pause(&self, index: GroupIndex, (raw, reply): (&[u8], &[u8]), now: Time) {
        let request = Request::from_raw(raw).filter(|_| reply.starts_with(b"+OK"));
        let (Some(request), Some(group)) = (request, self.groups.get(index)) else {
            return;
        };
        let mut args = request.args().skip(2);
        let length = args.next();
        let length = length.and_then(|it| std::str::from_utf8(it).ok()?.parse().ok());
        if request.arg1().is_some_and(|sub| same(sub, b"unpause")) {
            group.settings.pause.end();
        } else if let Some(length) = length
            && args.next().is_some_and(|mode| same(mode, b"write"))
        {
            // Otherwise it keeps reads waiting as well.
            group.settings.pause.begin(length, now);
        }
    }

    /// Whether a pause keeps a request of this client waiting.
    pub(super) fn waits_in_pause(&self, job: &Job, effect: Effect, request: &Request<'_>) -> bool {
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let paused = |group: &&Group| group.settings.pause.is_known() && group.is_paused(job.now);
        group
            .filter(paused)
            .is_some_and(|group| effect == Effect::Writes || group.may_replicate(request))
    }

    /// A write that will wait is on its way over a shared link: the next one gets another, as far
    /// as there is one more to be had for it.
    #[cold]
    pub(super) fn leave_to_write(&mut self, key: LinkKey) {
        let lanes_max = self.settings.lanes_max;
        let index = self.links.get(key).map(|link| link.group);
        let group = index.and_then(|index| self.groups.get_mut(index));
        let takes = group.is_some_and(|it| it.takes_apart() && it.lanes.len() < lanes_max);
        if takes
            && self.may_pass_by(key)
            && let Some(group) = index.and_then(|index| self.groups.get_mut(index))
        {
            group.apart.left -= 1;
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
    /// more; a client with requests on it waits for them, for the sake of its order.
    pub(super) fn bypass(&mut self, key: LinkKey) {
        if self.may_pass_by(key) {
            self.pass_by(key);
        }
    }

    /// Shared links to masters are silent. What is known of a pause lasts. Where reads wait behind
    /// what is silent, the master is asked whether it answers others.
    pub(super) fn look_behind_silence(&mut self, now: Time) {
        let mut behind: Vec<(LinkKey, GroupIndex, LaneId)> = Vec::new();
        for (key, link) in self.links.iter() {
            let (index, lane) = (link.group, link.lane);
            let group = self.groups.get(index);
            let group = group.filter(|group| group.writable == Some(lane.node));
            let Some(group) = group.filter(|_| link.is_silent()) else {
                continue;
            };
            if group.is_paused(now) {
                group.settings.pause.found(now);
            }
            let is_due = |at: Time| now.since(at) >= self.settings.suspect_after;
            if group.apart.asked_at.is_none_or(is_due) && link.has_read_waiting() {
                behind.push((key, index, lane));
            }
        }
        for (key, index, lane) in behind {
            let asked_at = self.groups.get(index).and_then(|it| it.apart.asked_at);
            if asked_at != Some(now)
                && self.ask_beside(key, (index, lane), now)
                && let Some(group) = self.groups.get_mut(index)
            {
                group.apart.asked_at = Some(now);
            }
        }
    }

    /// Asks a master over another link than a silent one, unless it is being asked there. False if
    /// there is none.
    fn ask_beside(&mut self, key: LinkKey, (index, lane): (GroupIndex, LaneId), now: Time) -> bool {
        let aside = [true, false].map(|bulky| LaneId { bulky, ..lane });
        let mut others = aside
            .into_iter()
            .filter_map(|lane| self.shared_link(index, lane, now).ok());
        let other = others.find(|other| *other != key);
        let Some((other, link)) = other.and_then(|key| Some((key, self.links.get(key)?))) else {
            return false;
        };
        let asked = |it: Ticket| it.purpose == Purpose::Internal;
        if !link.pipeline.tickets().any(asked) {
            let mut raw = Vec::new();
            encode::request(&mut raw, &[b"PING"]);
            self.send_nobodys(other, Purpose::Internal, &raw, now);
        }
        true
    }

    /// A node has answered a question of our own. Where it has been silent all the while, it keeps
    /// what it was asked there waiting.
    pub(super) fn answers_beside(
        &mut self,
        key: LinkKey,
        (asked_at, reply): (Time, &[u8]),
        now: Time,
    ) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let (index, node) = (link.group, link.lane.node);
        let group = self.groups.get(index);
        let group = group.filter(|group| group.writable == Some(node));
        // A master that does not let this user say PING answers reads all the same.
        let Some(group) = group.filter(|_| !is_passing(reply)) else {
            return;
        };
        let is_one = |link: &Link| {
            let own = (link.group, link.lane.node) == (index, node);
            own && link.is_silent() && link.heard_at <= asked_at
        };
        let silent = self.links.iter().filter(|(_, link)| is_one(link));
        let silent: Vec<_> = silent.map(|(key, _)| key).collect();
        if !silent.is_empty() {
            group.settings.pause.found(now);
        }
        for key in silent {
            self.detour(key, now);
        }
    }
}

impl Link {
    /// Whether it is one of everybody's to a master, and has owed a reply for a while.
    fn is_silent(&self) -> bool {
        self.usage == Usage::Shared && self.lane.role == Role::Master && self.suspected
    }

    /// Whether a client's read waits behind something else, and was not asked elsewhere.
    fn has_read_waiting(&self) -> bool {
        let reads = |it: Ticket| it.purpose == Purpose::Plain && it.effect == Effect::Reads;
        let mut tickets = self.pipeline.tickets().skip(1);
        tickets.any(|it| reads(it) && !it.detoured)
    }
}

/// Whether a request begins or ends a pause.
pub(super) fn is_pause(request: &Request<'_>) -> bool {
    let is_one = |sub: &[u8]| same(sub, b"pause") || same(sub, b"unpause");
    same(request.name(), b"client") && request.arg1().is_some_and(is_one)
}

fn same(word: &[u8], want: &[u8]) -> bool {
    is_word(word, want)
}
