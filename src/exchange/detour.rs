//! Floor 4. Reads that wait behind the long reply of another client, or behind a write that a
//! master keeps waiting, are asked once more, over another connection. Whichever answer comes first
//! is the client's.
//!
//! ```text
//!   link A   [ GET b: megabytes pass ][ GET a ][ SET c ]     takes nothing new
//!   link B   [ GET a: a copy, nobody's ]
//!
//!   the copy's reply comes first     the client's; the read on A becomes nobody's
//!   the read is gone from A          it was answered, or is lost and asked anew: the copy's reply
//!                                    is dropped, as is one that says nothing, or is long
//! ```
//!
//! A server sends replies in order, so that what it has long answered comes when all before it has:
//! at once, or when a slow client takes what is its own. What is asked twice stays where it is in
//! every other respect: it is in flight there for its client, what comes behind it waits for it,
//! and with its link it is lost. A copy is put on another link at once, or not at all. A write
//! cannot be done twice, and waits.
//!
//! A read is copied once, and if it is all that its client waits for: in a pipeline, the one behind
//! it might be answered here, as things were before. It is not copied if its key is known to have
//! a large value: of many of those, each would be sent again for each one before it. Where a copy
//! needs a replica that has certain writes, and there is no open link to this one, the master has
//! it, as if the replica did not have them.

use crate::exchange::answers::target;
use crate::exchange::client::{Client, Ending};
use crate::exchange::hedging::asks_elsewhere;
use crate::exchange::link::{LaneId, Link, State};
use crate::exchange::marks::Need;
use crate::exchange::node::Group;
use crate::exchange::scripts::Caching;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role, Stopping};
use crate::mux::{Completed, Waiting};
use crate::resp::{ReplyKind, Request};
use crate::route::Reads;
use crate::session::{Piece, Seq};
use crate::types::Time;

/// Bytes of the largest read that is asked twice.
const BYTES_MAX: usize = 16 * 1024;

/// The most reads that are copied for one long reply.
const COPIES_MAX: usize = 1024;

/// Reads that were asked twice and whose copies are in flight, by the number that the copies'
/// tickets have.
#[derive(Debug, Default)]
pub(super) struct Detours {
    places: Vec<Option<Detour>>,
    /// Places without one.
    free: Vec<Seq>,
}

/// Whose read was asked twice, and where it is in flight for its client.
#[derive(Clone, Copy, Debug)]
struct Detour {
    client: ClientKey,
    seq: Seq,
    first: LinkKey,
    /// The place that it had there, which can only have become less.
    place: usize,
    /// Where it begins in the link's whole output.
    offset: u64,
}

impl Detours {
    /// A number for a copy.
    fn begin(&mut self, detour: Detour) -> Seq {
        let number = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            Seq::try_from(self.places.len() - 1).unwrap_or(Seq::MAX)
        });
        if let Some(place) = self.place(number) {
            *place = Some(detour);
        }
        number
    }

    fn place(&mut self, number: Seq) -> Option<&mut Option<Detour>> {
        self.places.get_mut(usize::try_from(number).ok()?)
    }

    /// A copy has its reply, or will have none.
    fn end(&mut self, number: Seq) -> Option<Detour> {
        let detour = self.place(number)?.take()?;
        self.free.push(number);
        if self.free.len() == self.places.len() {
            // The last one; there may have been many.
            *self = Self::default();
        }
        Some(detour)
    }

    /// Whether no copy is in flight.
    #[cfg(test)]
    pub(super) const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

impl Exchange {
    /// A long reply keeps a link busy, or waits for its client, or a write waits at its master:
    /// what else waits there, and can be had elsewhere, need not.
    #[cold]
    pub(super) fn detour(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let Some(group) = self.groups.get(link.group) else {
            return;
        };
        if self.stopping != Stopping::No {
            return;
        }
        // Of the oldest some may have come already.
        let begun = link.pipeline.oldest_written().filter(|oldest| {
            let client = self.clients.get(oldest.client);
            client.is_none_or(|client| client.replies.is_begun(oldest.seq))
        });
        let begun = begun.map(|oldest| oldest.client);
        let waits =
            |client: &ClientKey| Some(*client) != begun && !link.throttled_by.contains(client);
        let mut reads = Vec::new();
        for it in link.pipeline.waiting() {
            if reads.len() == COPIES_MAX {
                break;
            }
            let client = Some(it.ticket.client).filter(waits);
            if let Some(client) = client.and_then(|client| self.clients.get(client))
                && client.may_ask_twice(&it)
                && !Request::from_raw(it.bytes).is_some_and(|it| group.may_replicate(&it))
                && !group.has_large_value(it.bytes, now)
            {
                let detour = Detour {
                    client: it.ticket.client,
                    seq: it.ticket.seq,
                    first: key,
                    place: it.place,
                    offset: it.offset,
                };
                reads.push((detour, it.ticket, it.bytes.to_vec()));
            }
        }
        let (index, lane) = (link.group, link.lane);
        for (detour, ticket, raw) in reads {
            let other = self.way_round((index, lane), &ticket, &raw, now);
            if let Some(other) = other.filter(|other| *other != key) {
                self.send_copy(detour, other, (&ticket, &raw), now);
            }
        }
    }

    /// Another link than one of this lane for a copy of a read, if there is one that may serve it.
    fn way_round(
        &mut self,
        (index, lane): (GroupIndex, LaneId),
        ticket: &Ticket,
        raw: &[u8],
        now: Time,
    ) -> Option<LinkKey> {
        let group = self.groups.get(index)?;
        let lane = LaneId {
            // Over others' links no read goes past their writes.
            bulky: lane.role == Role::Master && group.is_paused(now),
            ..lane
        };
        if lane.role == Role::Master {
            let serves = group.writable == Some(lane.node);
            return serves.then(|| self.shared_link(index, lane, now).ok())?;
        }
        let client = self.clients.get(ticket.client)?;
        let need = match client.access.reads() {
            Reads::OwnWrites => self.need_anew((index, lane.database), raw),
            Reads::Replicas | Reads::Master => Need::NOTHING,
        };
        if need.is_nothing() {
            let serves = group.readable.contains(&lane.node);
            return serves.then(|| self.shared_link(index, lane, now).ok())?;
        }
        // A link that is not open yet may lead to another process than the one that settled this.
        let able = group.readable.contains(&lane.node) && group.settles(lane.node, need);
        let open = group.lanes.get(&lane).filter(|link| self.is_open(**link));
        if let Some(link) = open.filter(|_| able) {
            return Some(*link);
        }
        let master = group.writable.filter(|_| !self.spares_master(index))?;
        let lane = LaneId {
            node: master,
            role: Role::Master,
            ..lane
        };
        self.shared_link(index, lane, now).ok()
    }

    /// Puts a copy of a read on another link.
    fn send_copy(
        &mut self,
        detour: Detour,
        other: LinkKey,
        (ticket, raw): (&Ticket, &[u8]),
        now: Time,
    ) {
        let room = self.settings.link_bytes;
        let Some(link) = self.links.get_mut(other) else {
            return;
        };
        if !link.accepts() || link.pipeline.pending_bytes() + raw.len() > room {
            return;
        }
        let seq = self.detours.begin(detour);
        let copy = Ticket {
            client: ClientKey::NOBODY,
            seq,
            purpose: Purpose::Copy,
            ..*ticket
        };
        if link.pipeline.is_empty() {
            link.heard_at = now;
        }
        link.counting += u32::from(copy.counts);
        link.pipeline.push(copy, raw);
        if !link.dirty && link.state != State::Opening {
            link.dirty = true;
            self.dirty_links.push(other);
        }
        let node = link.lane.node;
        if let Some(group) = self.groups.get_mut(link.group) {
            group.counts.detoured += 1;
            if let Some(node) = group.nodes.get_mut(node.0) {
                node.in_flight += 1;
            }
        }
        let first = self.links.get_mut(detour.first);
        if let Some(first) = first.and_then(|link| link.pipeline.ticket_mut(detour.place)) {
            first.detoured = true;
        }
    }

    /// A copy has its reply, which is the client's if the read itself has none yet.
    #[cold]
    pub(super) fn copy_replied(
        &mut self,
        key: LinkKey,
        done: Completed<Ticket>,
        (frame, kind): (&[u8], ReplyKind),
        now: Time,
    ) {
        let detour = self.detours.end(done.ticket.seq);
        let (Some(detour), Some(by)) = (detour, self.links.get(key).map(|link| link.lane.role))
        else {
            return;
        };
        let Some(first) = self.links.get_mut(detour.first) else {
            return;
        };
        let role = first.lane.role;
        let Some(group) = self.groups.get_mut(first.group) else {
            return;
        };
        let kept_back = group.gate.is_armed && (role == Role::Master || by == Role::Master);
        if kept_back || (kind == ReplyKind::Error && asks_elsewhere(frame)) {
            return;
        }
        let Some(client) = self.clients.get_mut(detour.client) else {
            return;
        };
        // Who takes nothing gets no more for now.
        if client.stalled || client.replies.is_begun(detour.seq) {
            return;
        }
        let Some(ticket) = first.first_of(&detour) else {
            return;
        };
        ticket.client = ClientKey::NOBODY;
        let ticket = done.ticket;
        client.answered(role, ticket.effect);
        group.count_answered(ticket, target(by), now);
        let bytes: &[u8] = if ticket.spoken { frame } else { &[] };
        if ticket.spoken {
            self.spares.lend(&mut client.replies, detour.seq);
        }
        client.replies.deliver(detour.seq, bytes, Piece::Last);
        self.touch(detour.client);
    }

    /// The copy that is due next on a link has a long reply, as the read itself will have.
    #[cold]
    pub(super) fn copy_is_long(&mut self, key: LinkKey, number: Seq) {
        self.detours.end(number);
        let link = self.links.get_mut(key);
        if let Some(copy) = link.and_then(|link| link.pipeline.ticket_mut(0)) {
            copy.purpose = Purpose::Plain;
        }
    }

    /// A copy is gone without a reply.
    #[cold]
    pub(super) fn copy_gone(&mut self, number: Seq) {
        self.detours.end(number);
    }
}

impl Link {
    /// The ticket of a read that was asked twice, if it has no reply yet.
    fn first_of(&mut self, detour: &Detour) -> Option<&mut Ticket> {
        if self.pipeline.is_answered(detour.offset) {
            return None;
        }
        // Mostly nothing was answered here meanwhile.
        let is_it = |ticket: &Ticket| (ticket.client, ticket.seq) == (detour.client, detour.seq);
        let last = detour.place.min(self.pipeline.len().saturating_sub(1));
        let mut places = (0..=last).rev();
        let place = places.find(|at| self.pipeline.ticket_mut(*at).is_some_and(|it| is_it(it)))?;
        self.pipeline.ticket_mut(place)
    }
}

impl Client {
    /// Whether a request of its own that waits on a link may be asked twice: nothing of its own is
    /// before or behind it, so that a later answer is as good.
    fn may_ask_twice(&self, it: &Waiting<'_, Ticket>) -> bool {
        let ticket = &it.ticket;
        let plain = ticket.purpose == Purpose::Plain && ticket.effect == Effect::Reads;
        let free = ticket.caching == Caching::Nothing && !ticket.detoured;
        let alone = self.replies.outstanding() == 1 && self.again.is_empty();
        plain
            && free
            && alone
            && it.bytes.len() <= BYTES_MAX
            && self.ending != Ending::Now
            && !self.stalled
            && !self.replies.is_begun(ticket.seq)
    }
}

impl Group {
    /// Whether a request is about a key with a large value.
    fn has_large_value(&self, raw: &[u8], now: Time) -> bool {
        Request::from_raw(raw).is_none_or(|request| {
            let reach = self.table.classify(&request).reach();
            self.is_bulky(reach, &request, now)
        })
    }
}
