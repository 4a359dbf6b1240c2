//! Floor 4. Hedged reads: one that a replica has not answered when nearly all others are is sent to
//! another replica too. The first answer is the client's, the later one is dropped.
//!
//! ```text
//!   link A   [ … ][ GET a: Hedged, nobody's ]      pair: whose it is, where it is, won or not
//!   link B   [ … ][ GET a: Hedged, nobody's ]
//!
//!   a reply comes, pair not won    the client's; the other copy is still counted off its link
//!   a reply comes, pair won        dropped
//!   an error "ask somebody else",
//!   or the link is lost            the other copy becomes what the request was before
//! ```
//!
//! Neither copy is the client's while there are two: it counts one request, and its next reads do
//! not follow the late one. With one copy left everything is as if there had never been two.

use std::time::Duration;

use crate::exchange::link::{LaneId, Link, NodeId, Passed, State, Usage};
use crate::exchange::marks::Need;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role, Stopping};
use crate::mux::Completed;
use crate::resp::{ReplyKind, Request};
use crate::route::Reads;
use crate::session::{Piece, Seq};
use crate::telemetry::{HedgeOutcome, Latency, RequestClass, Target};
use crate::types::Time;

/// Which reads are late: those that take longer than so many percent of them.
const PERCENT: u64 = 95;

/// The shortest time after which a read is late: what timers can tell apart.
const LATE_MIN: Duration = Duration::from_millis(1);

/// How often late reads are looked for while any are in flight.
const LOOK: Duration = Duration::from_millis(1);

/// How often it is reckoned anew what is late.
const RECKON: Duration = Duration::from_secs(1);

/// Reads that tell what is late; fewer tell nothing.
const RECKON_MIN: u64 = 20;

/// Reads for each one that may be sent twice: 5 % more at most.
const READS_PER_HEDGE: u64 = 20;

/// Reads that may be sent twice at once after many that were not.
const BURST: u64 = 20;

/// Bytes of the largest read that is sent twice.
const BYTES_MAX: usize = 16 * 1024;

/// The hedged reads of one group.
#[derive(Debug, Default)]
pub(super) struct Hedging {
    /// How long reads took of late.
    window: Latency,
    /// Reads in `window` since it was last reckoned with.
    fresh: u64,
    reckoned_at: Time,
    /// A read that takes longer is late. `None`: too few were seen.
    late_after: Option<Duration>,
    /// Reads answered, as far as they are counted and not published.
    seen: u64,
    /// Reads answered and not paid for hedges.
    credit: u64,
    /// Reads that are sent twice, by the number that their tickets have.
    pairs: Vec<Option<Pair>>,
    /// Whether the next look is due at once rather than in the worker's own time.
    pub(super) looks: bool,
}

/// A read on two links.
#[derive(Clone, Copy, Debug)]
struct Pair {
    /// What it was before, with its client.
    ticket: Ticket,
    first: LinkKey,
    second: LinkKey,
    won: bool,
}

/// What a reply to one of two copies is.
#[derive(Clone, Copy, Debug)]
enum Came {
    /// The client's.
    First(Ticket),
    /// Nobody's.
    Later,
}

/// A late read.
#[derive(Debug)]
struct Late {
    link: LinkKey,
    place: usize,
    ticket: Ticket,
    lane: LaneId,
}

impl Hedging {
    /// Takes note of how many reads have been answered and not published.
    fn count(&mut self, answered: u64) {
        let more = answered.saturating_sub(self.seen);
        self.seen = answered;
        self.credit = (self.credit + more).min(BURST * READS_PER_HEDGE);
    }

    /// The reads counted in `took` are about to be published and forgotten.
    fn publish(&mut self, took: &Latency) {
        self.count(took.count());
        self.seen = 0;
        self.window.add(took);
        self.fresh += took.count();
    }

    /// Reckons what is late.
    fn reckon(&mut self, now: Time) {
        if now.since(self.reckoned_at) < RECKON || self.fresh < RECKON_MIN {
            return;
        }
        let nearly_all = self.window.percentile(PERCENT);
        self.late_after = nearly_all.map(|time| time.max(LATE_MIN));
        self.window.halve();
        (self.fresh, self.reckoned_at) = (0, now);
    }

    /// Whether one more read may be sent twice.
    const fn can_pay(&self) -> bool {
        self.credit >= READS_PER_HEDGE
    }

    const fn pay(&mut self) {
        self.credit = self.credit.saturating_sub(READS_PER_HEDGE);
    }

    /// A number for a read that is on two links from now on.
    fn begin(&mut self, pair: Pair) -> Seq {
        let free = self.pairs.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        if let Some(place) = self.pairs.get_mut(at) {
            *place = Some(pair);
        }
        Seq::try_from(at).unwrap_or(Seq::MAX)
    }

    fn pair(&mut self, number: Seq) -> Option<&mut Option<Pair>> {
        self.pairs.get_mut(usize::try_from(number).ok()?)
    }

    /// A reply has come to one of two.
    fn came(&mut self, number: Seq) -> Came {
        match self.pair(number) {
            Some(Some(pair)) if !pair.won => {
                pair.won = true;
                Came::First(pair.ticket)
            }
            Some(place) => {
                *place = None;
                Came::Later
            }
            None => Came::Later,
        }
    }

    /// The copy on `link` is gone without a reply. Returns the link with the other, if that is to
    /// go on alone, and what it is.
    fn lost(&mut self, number: Seq, link: LinkKey) -> Option<(LinkKey, Ticket)> {
        let pair = self.pair(number)?.take()?;
        let other = if pair.first == link {
            pair.second
        } else {
            pair.first
        };
        (!pair.won).then_some((other, pair.ticket))
    }

    /// Whether no read is on two links.
    #[cfg(test)]
    pub(super) fn owns_nothing(&self) -> bool {
        self.pairs.iter().all(Option::is_none)
    }

    /// Whether the copy on `link` was the second.
    fn is_second(&mut self, number: Seq, link: LinkKey) -> bool {
        matches!(self.pair(number), Some(Some(pair)) if pair.second == link)
    }
}

impl Exchange {
    /// How many reads are answered is about to be published.
    pub(super) fn publish_hedging(&mut self, index: GroupIndex) {
        if let Some(group) = self.groups.get_mut(index)
            && let Some(hedging) = group.hedging.as_deref_mut()
        {
            hedging.publish(group.counts.upstream_duration(Target::Replica));
        }
    }

    /// When late reads have to be looked for, if any may be.
    pub(super) fn hedging_due(&self, now: Time) -> Option<Time> {
        let mut groups = self.groups.iter();
        groups
            .any(|group| group.hedging.is_some() && group.is_reading())
            .then(|| now + LOOK)
    }

    /// Whether a look for late reads has become due since [`Exchange::poll_timeout`] was asked: the
    /// first read is in flight after a time without any.
    pub fn hurries(&self) -> bool {
        self.hedges
            && self.groups.iter().any(|group| {
                let hedging = group.hedging.as_deref();
                hedging.is_some_and(|hedging| !hedging.looks) && group.is_reading()
            })
    }

    /// Notes whether the next look is near.
    pub(super) fn note_looks(&mut self) {
        for group in &mut self.groups {
            let reading = group.is_reading();
            if let Some(hedging) = group.hedging.as_deref_mut() {
                hedging.looks = reading;
            }
        }
    }

    /// Sends late reads to other replicas too, as many as may be.
    pub(super) fn hedge_late(&mut self, now: Time) {
        for index in 0..self.groups.len() {
            let Some(group) = self.groups.get_mut(index) else {
                continue;
            };
            let answered = group.counts.upstream_duration(Target::Replica).count();
            let Some(hedging) = group.hedging.as_deref_mut() else {
                continue;
            };
            hedging.count(answered);
            hedging.reckon(now);
            let late_after = hedging.late_after;
            if let Some(late_after) = late_after
                && group.readable.len() > 1
                && self.stopping != Stopping::Abandoning
            {
                self.hedge_group(index, late_after, now);
            }
        }
    }

    fn hedge_group(&mut self, index: GroupIndex, late_after: Duration, now: Time) {
        let mut late = Vec::new();
        let mut first_seen = 0;
        for (key, link) in self.links.iter_mut() {
            if link.group == index && link.may_be_late() {
                first_seen += gather(&mut late, (key, link), late_after, now);
            }
        }
        let mut skipped = late.len();
        for read in late {
            let pays = self.hedging(index).is_some_and(|hedging| hedging.can_pay());
            if !pays {
                break;
            }
            skipped -= 1;
            self.hedge(index, &read, now);
        }
        if let Some(group) = self.groups.get_mut(index) {
            // Each is counted once, although it may be sent twice later.
            for _ in 0..skipped.min(first_seen) {
                group.counts.hedge(HedgeOutcome::Skipped);
            }
        }
    }

    fn hedging(&mut self, index: GroupIndex) -> Option<&mut Hedging> {
        self.groups.get_mut(index)?.hedging.as_deref_mut()
    }

    /// Sends a read to another replica too, if there is one that may serve it.
    fn hedge(&mut self, index: GroupIndex, read: &Late, now: Time) {
        let Some(client) = self.clients.get(read.ticket.client) else {
            return;
        };
        let seq = read.ticket.seq;
        // Asked anew, it must not see what its client has written since.
        if client.replies.is_begun(seq) || !client.is_last_to_matter(seq, Effect::Reads) {
            return;
        }
        let Some(link) = self.links.get(read.link) else {
            return;
        };
        let Some(raw) = link.pipeline.waiting().nth(read.place) else {
            return;
        };
        let raw = raw.bytes.to_vec();
        let need = match client.access.reads() {
            Reads::OwnWrites => self.need_anew((index, read.lane.database), &raw),
            Reads::Replicas | Reads::Master => Need::NOTHING,
        };
        let Some(node) = self.other_replica(index, read.lane.node, need) else {
            return;
        };
        let lane = LaneId { node, ..read.lane };
        let Ok(second) = self.shared_link(index, lane, now) else {
            return;
        };
        if !need.is_nothing() && !self.is_open(second) {
            // It may lead to another process than the one that has settled this.
            return;
        }
        let room = self.settings.link_bytes;
        let Some(twin) = self.links.get_mut(second) else {
            return;
        };
        if !twin.accepts() || twin.pipeline.pending_bytes() + raw.len() > room {
            return;
        }
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let Some(hedging) = group.hedging.as_deref_mut() else {
            return;
        };
        hedging.pay();
        let number = hedging.begin(Pair {
            ticket: read.ticket,
            first: read.link,
            second,
            won: false,
        });
        let copy = Ticket {
            client: ClientKey::NOBODY,
            seq: number,
            purpose: Purpose::Hedged,
            ..read.ticket
        };
        if twin.pipeline.is_empty() {
            twin.heard_at = now;
        }
        twin.pipeline.push(copy, &raw);
        if !twin.dirty && twin.state != State::Opening {
            twin.dirty = true;
            self.dirty_links.push(second);
        }
        group.counts.hedge(HedgeOutcome::Sent);
        if let Some(node) = group.nodes.get_mut(node.0) {
            node.in_flight += 1;
        }
        let first = self.links.get_mut(read.link);
        if let Some(ticket) = first.and_then(|link| link.pipeline.ticket_mut(read.place)) {
            *ticket = copy;
        }
    }

    /// What a read that is in flight in a database needs of a replica by now, if its client has to
    /// see its own writes.
    pub(super) fn need_anew(&self, (index, database): (GroupIndex, u32), raw: &[u8]) -> Need {
        match (self.groups.get(index), Request::from_raw(raw)) {
            (Some(group), Some(request)) => {
                let reach = group.table.classify(&request).reach();
                group.need(reach, database, (&request, None))
            }
            _ => Need::NOTHING,
        }
    }

    /// The replica with the fewest requests in flight that this read may be sent to, save the one
    /// that is late.
    fn other_replica(&self, index: GroupIndex, late: NodeId, need: Need) -> Option<NodeId> {
        let group = self.groups.get(index)?;
        let others = group.readable.iter().filter(|node| **node != late);
        let able = others.filter(|node| group.settles(**node, need));
        let load = |id: &&NodeId| group.nodes.get(id.0).map_or(0, |node| node.in_flight);
        able.min_by_key(load).copied()
    }

    /// A reply whose client is gone, or that is one of two.
    #[cold]
    pub(super) fn nobodys(
        &mut self,
        key: LinkKey,
        done: Completed<Ticket>,
        reply: (&[u8], ReplyKind),
        now: Time,
    ) {
        let index = self.links.get(key).map(|link| link.group);
        let group = index.and_then(|index| self.groups.get_mut(index));
        if let Some(group) = group.filter(|group| group.gate.is_armed) {
            group.gate.mend(key);
        }
        if let Some(link) = self.links.get_mut(key) {
            // Nobody's replies are not told apart otherwise.
            link.passed = Passed::default();
        }
        match done.ticket.purpose {
            Purpose::Hedged => self.hedged_reply(key, done, reply, now),
            Purpose::Copy => self.copy_replied(key, done, reply, now),
            Purpose::Turning => self.turned(key, reply.0, now),
            Purpose::Internal => self.answers_beside(key, (done.ticket.arrived, reply.0), now),
            _ => {}
        }
    }

    /// One of two copies has its reply.
    #[cold]
    fn hedged_reply(
        &mut self,
        key: LinkKey,
        done: Completed<Ticket>,
        (frame, kind): (&[u8], ReplyKind),
        now: Time,
    ) {
        let number = done.ticket.seq;
        let Some((index, node)) = self.links.get(key).map(|link| (link.group, link.lane.node))
        else {
            return;
        };
        let Some(hedging) = self.hedging(index) else {
            return;
        };
        if kind == ReplyKind::Error && asks_elsewhere(frame) {
            return self.copy_lost(index, (key, number), 0);
        }
        let second = hedging.is_second(number, key);
        let Came::First(ticket) = hedging.came(number) else {
            return;
        };
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if second {
            group.counts.hedge(HedgeOutcome::Won);
        }
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        let counts = &mut group.counts;
        let took = now.since(done.written_at);
        counts.upstream_duration(Target::Replica).record(took);
        counts.request(ticket.class, Target::Replica, 1);
        counts
            .request_duration(ticket.class, Target::Replica)
            .record(now.since(ticket.arrived));
        client.answered(Role::Replica, ticket.effect);
        if second {
            // What it reads next need not wait behind the copy that is late.
            client.replica_lane = Some(key);
            group.move_reader(client, node);
        }
        let bytes: &[u8] = if ticket.spoken { frame } else { &[] };
        client.replies.deliver(ticket.seq, bytes, Piece::Last);
        self.touch(ticket.client);
    }

    /// One of two copies has a long reply, which is not kept until it is whole: its first bytes
    /// decide which of them is the client's.
    fn hedged_early(&mut self, key: LinkKey, number: Seq) {
        let Some((index, node)) = self.links.get(key).map(|link| (link.group, link.lane.node))
        else {
            return;
        };
        let Some(hedging) = self.hedging(index) else {
            return;
        };
        let second = hedging.is_second(number, key);
        let Some((other, ticket)) = hedging.lost(number, key) else {
            return self.let_pass(key, number);
        };
        self.let_pass(other, number);
        let link = self.links.get_mut(key);
        if let Some(oldest) = link.and_then(|link| link.pipeline.ticket_mut(0)) {
            *oldest = ticket;
        }
        if second
            && let Some(client) = self.clients.get_mut(ticket.client)
            && let Some(group) = self.groups.get_mut(index)
        {
            group.counts.hedge(HedgeOutcome::Won);
            client.replica_lane = Some(key);
            group.move_reader(client, node);
        }
    }

    /// One of two copies is nobody's, and the other knows nothing of it any more.
    fn let_pass(&mut self, key: LinkKey, number: Seq) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let is_copy = |it: &&mut Ticket| it.purpose == Purpose::Hedged && it.seq == number;
        if let Some(copy) = link.pipeline.tickets_mut().find(is_copy) {
            copy.purpose = Purpose::Plain;
        }
    }

    /// A reply to a request that is on two links is too long to be kept until it is whole.
    #[cold]
    pub(super) fn decide_early(&mut self, key: LinkKey, oldest: Ticket) {
        match oldest.purpose {
            Purpose::Hedged => self.hedged_early(key, oldest.seq),
            Purpose::Copy => self.copy_is_long(key, oldest.seq),
            _ => {}
        }
    }

    /// One of two copies is gone without a reply, `breaks` connections having broken when it was
    /// the next one due: the other is what the request was before.
    #[cold]
    pub(super) fn copy_lost(
        &mut self,
        index: GroupIndex,
        (key, number): (LinkKey, Seq),
        breaks: u8,
    ) {
        let lost = self.hedging(index).and_then(|it| it.lost(number, key));
        let Some((other, mut ticket)) = lost else {
            return;
        };
        ticket.breaks = ticket.breaks.max(breaks);
        let Some(link) = self.links.get_mut(other) else {
            return;
        };
        let is_copy = |it: &&mut Ticket| it.purpose == Purpose::Hedged && it.seq == number;
        let copy = link.pipeline.tickets_mut().find(is_copy);
        if let Some(copy) = copy {
            *copy = ticket;
        }
    }
}

impl Link {
    /// Whether its reads may be late by its node's doing.
    fn may_be_late(&self) -> bool {
        self.lane.role == Role::Replica
            && self.usage == Usage::Shared
            && self.state == State::Ready
            && !self.pipeline.is_empty()
            && self.throttled_by.is_empty()
    }
}

/// Gathers the late reads of a link. Returns how many were not late before.
fn gather(
    late: &mut Vec<Late>,
    (key, link): (LinkKey, &mut Link),
    late_after: Duration,
    now: Time,
) -> usize {
    let (mut fresh, mut upto) = (0, link.late_upto);
    for it in link.pipeline.waiting() {
        if now.since(it.written_at) < late_after {
            break;
        }
        let is_new = it.offset >= link.late_upto;
        upto = upto.max(it.offset + 1);
        let asked = it.ticket.client != ClientKey::NOBODY;
        let plain = it.ticket.purpose == Purpose::Plain && it.ticket.class == RequestClass::Read;
        if asked && plain && it.bytes.len() <= BYTES_MAX {
            fresh += usize::from(is_new);
            late.push(Late {
                link: key,
                place: it.place,
                ticket: it.ticket,
                lane: link.lane,
            });
        }
    }
    link.late_upto = upto;
    fresh
}

/// Whether an error line says that the request was not executed and that another node may do it.
pub(super) fn asks_elsewhere(line: &[u8]) -> bool {
    const WORDS: [&[u8]; 5] = [
        b"-LOADING ",
        b"-MASTERDOWN ",
        b"-BUSY ",
        b"-READONLY ",
        b"-NOSCRIPT ",
    ];
    WORDS.iter().any(|word| line.starts_with(word))
}
