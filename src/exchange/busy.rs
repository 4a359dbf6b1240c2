//! Floor 4. A master whose script runs for too long says `-BUSY` to whatever it is asked. Clients
//! hear so of what is answered here too, as long as it is known.
//!
//! ```text
//!   EVAL … has no reply for a moment ──► PING over a link with nothing on it ──► -BUSY
//!   anybody asks the master anything ──────────────────────────────────────────► -BUSY
//!                                                  known to all workers for a while ◄┘
//!   PING, ECHO meanwhile ──► the master, over a link on which no script is ──► what it says
//! ```
//!
//! A master that says nothing at all is none of this: there PING is answered as ever, save one that
//! was sent to it just before. Where the nodes want a login and Switchman has none of its own, only
//! what clients ask tells.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{Class, Local};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{LaneId, Link, NodeId, State, Usage};
use crate::exchange::node::Group;
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode, is_word};
use crate::session::IdentityId;
use crate::types::{Protocol, Time};

/// How long a script may run before the master is asked whether it is busy. Most are done by then;
/// no server calls one too slow much earlier (`busy-reply-threshold`).
const LONG: Duration = Duration::from_millis(10);

/// How long a master counts as busy after it has said so. It is asked anew before that is over.
const KEEP: Duration = Duration::from_millis(300);

/// What runs scripts and functions.
const SCRIPTS: [&[u8]; 6] = [
    b"eval",
    b"evalsha",
    b"fcall",
    b"eval_ro",
    b"evalsha_ro",
    b"fcall_ro",
];

/// What a busy master says (Redis server.c, `shared.slowscripterr`).
const WORDS: &[u8] = b"-BUSY ";

/// Whether the master of a group is busy, as far as any worker has heard.
#[derive(Debug, Default)]
pub struct Busy {
    /// Until when it counts as such, in milliseconds since the start of the process.
    until: AtomicU64,
}

impl Busy {
    fn note(&self, now: Time) {
        self.until.fetch_max(millis(now + KEEP), Ordering::Relaxed);
    }

    fn is(&self, now: Time) -> bool {
        millis(now) < self.until.load(Ordering::Relaxed)
    }
}

fn millis(time: Time) -> u64 {
    u64::try_from(time.since_start().as_millis()).unwrap_or(u64::MAX)
}

impl Exchange {
    /// A node has answered with an error as the master.
    pub(super) fn note_busy(&self, (index, node): (GroupIndex, NodeId), reply: &[u8], now: Time) {
        let group = self.groups.get(index);
        let group = group.filter(|group| group.writable == Some(node));
        if let Some(group) = group.filter(|_| is_busy(reply)) {
            group.settings.busy.note(now);
        }
    }

    /// Asks masters that have been running a script for a moment whether they are busy.
    pub(super) fn ask_about_scripts(&mut self, now: Time) {
        let mut running: Vec<(GroupIndex, NodeId)> = Vec::new();
        for (_, link) in self.links.iter() {
            let which = (link.group, link.lane.node);
            if !running.contains(&which) && link.runs_script(now) {
                running.push(which);
            }
        }
        for (index, node) in running {
            self.ask_about_script(index, node, now);
        }
    }

    fn ask_about_script(&mut self, index: GroupIndex, node: NodeId, now: Time) {
        let is_asked = |key: LinkKey| {
            let link = self.links.get(key);
            let oldest = link.and_then(|link| link.pipeline.oldest_ticket());
            oldest.is_some_and(|oldest| oldest.purpose == Purpose::Internal)
        };
        let group = self.groups.get(index);
        let Some(group) = group.filter(|group| !group.prober.is_some_and(is_asked)) else {
            return;
        };
        let is_busy = group.settings.busy.is(now);
        let is_free = |link: &Link| link.group == index && link.may_ask(node);
        let free = self.links.iter().find(|(_, link)| is_free(link));
        let Some(free) = free.map(|(key, _)| key) else {
            if is_busy {
                // It lets in who asks; the next time it is asked there.
                let settings = (0, Protocol::Resp2);
                let lane = Group::lane_id(node, Role::Master, IdentityId::ANONYMOUS, settings);
                let lane = LaneId {
                    bulky: true,
                    ..lane
                };
                let _ = self.shared_link(index, lane, now);
            }
            return;
        };
        let mut raw = Vec::new();
        encode::request(&mut raw, &[b"PING"]);
        self.send_nobodys(free, Purpose::Internal, &raw, now);
        if let Some(group) = self.groups.get_mut(index) {
            group.prober = Some(free);
        }
    }

    /// Has a busy master answer what is answered here otherwise. `None`: it is.
    pub(super) fn ask_busy_master(
        &mut self,
        job: Job,
        request: &Request<'_>,
        local: Local,
    ) -> Option<Placed> {
        if !matches!(local, Local::Ping | Local::Echo) || job.again.is_some() {
            return None;
        }
        let client = self.clients.get(job.key)?;
        let index = client.group;
        let group = self.groups.get(index)?;
        if !group.settings.busy.is(job.now) {
            return None;
        }
        // What the master was asked about it before is used up elsewhere.
        if client.verdict.is_some() || client.heard.is_some() || client.access.is_read_only() {
            return None;
        }
        let node = group.writable?;
        let link = if client.master_out > 0 {
            self.fits(client.master_link, node)?
        } else {
            // The node would refuse a SELECT. What is read over a lane apart is mostly no script.
            let lane = LaneId {
                database: 0,
                bulky: true,
                ..self.lane_of(job.key, node, Role::Master)?
            };
            self.shared_link(index, lane, job.now).ok()?
        };
        self.links.get(link).filter(|link| link.answers_at_once())?;
        Some(self.send(link, job, request.raw(), Kind::shared(Class::MasterRead)))
    }
}

impl Link {
    /// Whether a master has been running a script for a moment that was asked for here.
    fn runs_script(&self, now: Time) -> bool {
        if self.lane.role != Role::Master || now.since(self.heard_at) < LONG {
            return false;
        }
        self.pipeline
            .oldest()
            .is_some_and(|(ticket, raw)| ticket.purpose == Purpose::Plain && runs(raw))
    }

    /// Whether others share it, and no script of which is known is in the way.
    fn answers_at_once(&self) -> bool {
        let oldest = self.pipeline.oldest();
        self.usage == Usage::Shared && !self.suspected && !oldest.is_some_and(|(_, raw)| runs(raw))
    }

    /// Whether a master may be asked over this link whether it is busy: it says so at once here if
    /// it does at all, and nobody's right is used for that.
    fn may_ask(&self, node: NodeId) -> bool {
        let own = (self.lane.node, self.lane.role, self.lane.identity);
        own == (node, Role::Master, IdentityId::ANONYMOUS)
            && self.usage == Usage::Shared
            && self.state == State::Ready
            && self.lane.protocol == Protocol::Resp2
            && !self.retired
            && !self.suspected
            && self.pipeline.is_empty()
    }
}

/// Whether a request runs a script or a function. Its name is on its third line.
fn runs(raw: &[u8]) -> bool {
    let mut lines = raw.split(|byte| *byte == b'\n').skip(2);
    let name = lines.next().and_then(|line| line.strip_suffix(b"\r"));
    let is_name = |it: &[u8]| name.is_some_and(|name| name.eq_ignore_ascii_case(it));
    SCRIPTS.iter().any(|it| is_name(it))
}

/// Whether a master says that it is busy.
pub(super) fn is_busy(reply: &[u8]) -> bool {
    reply.starts_with(WORDS)
}

/// Whether it concerns the script that runs, whatever its client's database. Redis accepts these,
/// and few others, while it is busy with one (`allow_busy` in its `COMMAND`).
pub(super) fn is_accepted_by_busy(request: &Request<'_>) -> bool {
    let is = |word: Option<&[u8]>, want: &[u8]| word.is_some_and(|w| is_word(w, want));
    let (name, sub) = (Some(request.name()), request.arg1());
    let kill = is(sub, b"kill");
    (kill && is(name, b"script")) || ((kill || is(sub, b"stats")) && is(name, b"function"))
}
