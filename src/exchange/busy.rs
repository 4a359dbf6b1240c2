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
//! A master that says nothing at all is none of this: there PING is answered as ever.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::command::{Class, Local};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{LaneId, Link, State, Usage};
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode};
use crate::session::IdentityId;
use crate::types::{Protocol, Time};

/// How long a script may run before the master is asked whether it is busy. Most are done by then;
/// no server calls one too slow much earlier (`busy-reply-threshold`).
const LONG: Duration = Duration::from_millis(10);

/// How long a master counts as busy after it has said so. It is asked anew before that is over.
const KEEP: Duration = Duration::from_millis(300);

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
    /// A master has answered with an error.
    pub(super) fn note_busy(&self, index: GroupIndex, reply: &[u8], now: Time) {
        let group = self.groups.get(index);
        if let Some(group) = group.filter(|_| reply.starts_with(WORDS)) {
            group.settings.busy.note(now);
        }
    }

    /// Asks masters that have been running a script for a moment whether they are busy.
    pub(super) fn ask_about_scripts(&mut self, now: Time) {
        let running = self.links.iter().filter_map(|(_, link)| {
            let index = link.group;
            link.runs_script(now).then_some((index, link.lane))
        });
        let running: Vec<(GroupIndex, LaneId)> = running.collect();
        for (index, lane) in running {
            let is_asked = |key: LinkKey| {
                let link = self.links.get(key);
                link.is_some_and(|link| !link.pipeline.is_empty())
            };
            let group = self.groups.get(index);
            if group.is_none_or(|group| group.prober.is_some_and(is_asked)) {
                continue;
            }
            let is_free = |link: &Link| link.group == index && link.may_ask(lane);
            let free = self.links.iter().find(|(_, link)| is_free(link));
            let Some(free) = free.map(|(key, _)| key) else {
                continue;
            };
            let mut raw = Vec::new();
            encode::request(&mut raw, &[b"PING"]);
            self.send_nobodys(free, Purpose::Internal, &raw, now);
            if let Some(group) = self.groups.get_mut(index) {
                group.prober = Some(free);
            }
        }
    }

    /// Has a busy master answer what is answered here otherwise. `None`: it is.
    pub(super) fn ask_busy_master(
        &mut self,
        job: Job,
        request: &Request<'_>,
        local: Local,
    ) -> Option<Placed> {
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        let asks = matches!(local, Local::Ping | Local::Echo) && job.again.is_none();
        if !asks || !group.settings.busy.is(job.now) {
            return None;
        }
        let node = group.writable?;
        if client.heard.is_some() || client.access.is_read_only() {
            return None;
        }
        let kind = Kind::shared(Class::MasterRead);
        if client.master_out > 0 {
            return Some(self.place_on_master(job, request, kind));
        }
        // The node would refuse a SELECT. What is read over a lane apart is no script.
        let lane = LaneId {
            database: 0,
            bulky: true,
            ..self.lane_of(job.key, node, Role::Master)?
        };
        let link = self.shared_link(self.clients.get(job.key)?.group, lane, job.now);
        Some(self.send(link.ok()?, job, request.raw(), kind))
    }
}

impl Link {
    /// Whether a master has been running a script for a moment that was asked for here.
    fn runs_script(&self, now: Time) -> bool {
        if self.lane.role != Role::Master || now.since(self.heard_at) < LONG {
            return false;
        }
        let oldest = self.pipeline.oldest();
        oldest.is_some_and(|(ticket, raw)| {
            ticket.purpose == Purpose::Plain && Request::from_raw(raw).is_some_and(|it| runs(&it))
        })
    }

    /// Whether the master of `lane` may be asked over this link whether it is busy: it says so at
    /// once here if it does at all, and nobody's right is used for that.
    fn may_ask(&self, lane: LaneId) -> bool {
        let own = (self.lane.node, self.lane.role, self.lane.identity);
        own == (lane.node, Role::Master, IdentityId::ANONYMOUS)
            && self.usage == Usage::Shared
            && self.state == State::Ready
            && self.lane.protocol == Protocol::Resp2
            && !self.retired
            && !self.suspected
            && self.pipeline.is_empty()
    }
}

/// Whether a request runs a script or a function.
fn runs(request: &Request<'_>) -> bool {
    let names = [&b"eval"[..], b"evalsha", b"fcall"];
    let name = request.name().to_ascii_lowercase();
    let name = name.strip_suffix(b"_ro").unwrap_or(&name);
    names.contains(&name)
}
