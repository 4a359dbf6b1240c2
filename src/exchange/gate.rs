//! Floor 4. The gate: replies of a master that is about to be replaced, kept back until it is known
//! whether its successor has what they acknowledge.
//!
//! | the picture says | kept before quiet | kept after it | what comes now |
//! |---|---|---|---|
//! | `Given`, same master | passed on | passed on | passed on |
//! | `Kept` | stays | stays | is kept |
//! | `Settled`, same master | passed on | stays | is kept |
//! | `Settled`, another master | passed on | UNCERTAIN | – |
//! | `Doubtful`, or nobody knows | UNCERTAIN | UNCERTAIN | – |
//!
//! Kept are replies that acknowledge a write: no errors and no nulls, and nothing of which the
//! client has a part already. Those that came before, and wait for an earlier reply of their
//! client, are taken back. A request with a kept reply counts as in flight for its client, and not
//! for the node.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::exchange::client::Client;
use crate::exchange::inside::{Carried, Orders};
use crate::exchange::link::NodeId;
use crate::exchange::marks::Marks;
use crate::exchange::scripts::Caching;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::waiting::is_null;
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role, Stopping};
use crate::resp::ReplyKind;
use crate::session::{Piece, Reject};
use crate::telemetry::{RequestClass, Target};
use crate::topology::{Acks, Phase, Snapshot};
use crate::types::{NodeAddr, Time};

/// Bytes of replies that one worker keeps back for one group; more are UNCERTAIN at once. What is
/// in flight on a shared link is bounded to as much.
const KEPT_MAX: usize = 4 << 20;

/// What each kept reply costs besides its bytes.
const KEPT_EACH: usize = size_of::<Kept>();

/// The replies kept back of one group.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Whether replies of a master have to be looked at. All that is asked where nothing is kept.
    pub(super) is_armed: bool,
    /// The master whose replies are kept now.
    closed: Option<NodeId>,
    /// The master whose replies are in `kept`.
    master: Option<NodeAddr>,
    /// Oldest first.
    kept: VecDeque<Kept>,
    bytes: usize,
    /// Links with a reply on its way that is too large to be kept: what came of it is dropped.
    cut: Vec<LinkKey>,
}

/// One reply.
#[derive(Debug)]
struct Kept {
    ticket: Ticket,
    reply: Box<[u8]>,
    at: Time,
    /// Whether it came after the worker had reported that it is quiet.
    late: bool,
    /// The link that it came over; `None` if it had been passed on before, and waited for an
    /// earlier reply of its client.
    link: Option<LinkKey>,
    /// What the transaction has said of the connection.
    orders: Orders,
}

/// What becomes of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is passed on.
    Pass,
    /// It is kept.
    Keep,
    /// It is not known what it acknowledges.
    Doubt,
}

impl Gate {
    /// Whether nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Decides about a reply of a master. `begun`: its client has a part of it.
    #[cold]
    pub(super) fn verdict(
        &mut self,
        (link, node): (LinkKey, NodeId),
        ticket: Ticket,
        (reply, kind): (&[u8], ReplyKind),
        begun: bool,
    ) -> Verdict {
        if self.mend(link) {
            return Verdict::Doubt;
        }
        if self.closed != Some(node) || begun || !acknowledges(&ticket, (reply, kind)) {
            return Verdict::Pass;
        }
        if self.has_room_for(reply) {
            Verdict::Keep
        } else {
            Verdict::Doubt
        }
    }

    const fn has_room_for(&self, reply: &[u8]) -> bool {
        self.bytes + reply.len() + KEPT_EACH <= KEPT_MAX
    }

    /// Decides about a piece of a reply that is too large to be kept: whether it is dropped.
    pub(super) fn cuts(
        &mut self,
        (link, node): (LinkKey, NodeId),
        ticket: Ticket,
        begun: bool,
    ) -> bool {
        let known = self.cut.contains(&link);
        let cuts = known || (self.closed == Some(node) && !begun && may_acknowledge(&ticket));
        if cuts && !known {
            self.cut.push(link);
        }
        cuts
    }

    /// The reply of which pieces were dropped is over. False if none were.
    pub(super) fn mend(&mut self, link: LinkKey) -> bool {
        let at = self.cut.iter().position(|cut| *cut == link);
        if let Some(at) = at {
            self.cut.swap_remove(at);
            self.rearm();
        }
        at.is_some()
    }

    fn push(&mut self, kept: Kept) {
        self.bytes += kept.reply.len() + KEPT_EACH;
        self.kept.push_back(kept);
    }

    fn pop_if(&mut self, is_over: impl Fn(&Kept) -> bool) -> Option<Kept> {
        self.kept.front().filter(|kept| is_over(kept))?;
        let kept = self.kept.pop_front()?;
        self.bytes = self.bytes.saturating_sub(kept.reply.len() + KEPT_EACH);
        Some(kept)
    }

    fn rearm(&mut self) {
        self.is_armed = self.closed.is_some() || !self.cut.is_empty();
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
    }

    /// What becomes of a kept reply under a new picture; `Keep`: it stays.
    fn fate(&self, late: bool, snapshot: &Snapshot) -> Verdict {
        let stays = self.master == snapshot.master;
        let switching = matches!(snapshot.phase, Phase::Switching { .. });
        match snapshot.acks {
            Acks::Given if stays => Verdict::Pass,
            Acks::Kept if stays && switching => Verdict::Keep,
            Acks::Settled if stays && switching && late => Verdict::Keep,
            Acks::Settled if !late && stays == switching => Verdict::Pass,
            _ => Verdict::Doubt,
        }
    }
}

impl Client {
    /// Takes the whole reply of a node.
    #[inline]
    pub(super) fn reply(&mut self, ticket: &Ticket, (bytes, kind): (&[u8], ReplyKind)) {
        // One that leaves at once cannot be taken back.
        let stays = ticket.effect == Effect::Writes && !self.replies.is_due(ticket.seq);
        self.replies.deliver(ticket.seq, bytes, Piece::Last);
        if stays && acknowledges(ticket, (bytes, kind)) {
            self.replies.acknowledge(ticket.seq);
        }
    }
}

impl Exchange {
    /// A new picture of a group: closes or opens its gate, and decides about what is behind it.
    pub(super) fn turn_gate(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let snapshot = Arc::clone(&group.snapshot);
        let switching = matches!(snapshot.phase, Phase::Switching { .. });
        let closes = switching && snapshot.acks != Acks::Given;
        let master = snapshot.master.as_ref().filter(|_| closes);
        let at = master.map(|addr| group.node(addr));
        let gate = &mut group.gate;
        let was_closed = gate.closed.is_some() && gate.master == snapshot.master;
        let (mut passed, mut doubted) = (Vec::new(), Vec::new());
        for kept in std::mem::take(&mut gate.kept) {
            match gate.fate(kept.late, &snapshot) {
                Verdict::Pass => passed.push(kept),
                Verdict::Keep => gate.kept.push_back(kept),
                Verdict::Doubt => doubted.push(kept),
            }
        }
        let sizes = gate.kept.iter().map(|kept| kept.reply.len() + KEPT_EACH);
        gate.bytes = sizes.sum();
        gate.closed = at;
        if closes {
            gate.master.clone_from(&snapshot.master);
        }
        gate.cut.retain(|link| self.links.get(*link).is_some());
        gate.rearm();
        if closes && !was_closed {
            self.take_back(index, now);
        }
        for kept in passed {
            self.pass(index, kept, now);
        }
        for kept in doubted {
            self.doubt(kept.ticket);
        }
    }

    /// Keeps back what the master has acknowledged and no client has heard: it waits behind an
    /// earlier reply, mostly a replica's, and the master may have been lost before it was
    /// replicated.
    fn take_back(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let mut doubted = Vec::new();
        let clients = self.clients.iter_mut();
        for (key, client) in clients.filter(|(_, client)| client.group == index) {
            for (seq, reply) in client.replies.take_back() {
                if client.master_out == 0 {
                    client.master_link = None;
                }
                client.master_out += 1;
                client.writes_out += 1;
                let ticket = Ticket {
                    client: key,
                    seq,
                    arrived: now,
                    class: RequestClass::Write,
                    effect: Effect::Writes,
                    purpose: Purpose::Plain,
                    spoken: true,
                    bounces: 0,
                    breaks: 0,
                    detoured: false,
                    marks: Marks::None,
                    caching: Caching::Nothing,
                    counts: false,
                };
                if !group.gate.has_room_for(&reply) {
                    doubted.push(ticket);
                    continue;
                }
                group.gate.push(Kept {
                    ticket,
                    reply: reply.into_boxed_slice(),
                    at: now,
                    late: false,
                    link: None,
                    orders: Orders::default(),
                });
            }
        }
        for ticket in doubted {
            self.doubt(ticket);
        }
    }

    /// No reply is kept for longer than a command is held, and none when all is given up.
    pub(super) fn expire_kept(&mut self, index: GroupIndex, now: Time) {
        let all = self.stopping == Stopping::Abandoning;
        while let Some(group) = self.groups.get_mut(index) {
            let limit = group.snapshot.hold;
            let is_over = |kept: &Kept| all || now.since(kept.at) >= limit;
            let Some(kept) = group.gate.pop_if(is_over) else {
                return;
            };
            self.doubt(kept.ticket);
        }
    }

    /// Keeps a reply back.
    pub(super) fn keep_back(&mut self, key: LinkKey, ticket: Ticket, reply: &[u8], now: Time) {
        let orders = self.orders(key, ticket, reply);
        let Some(client) = self.clients.get(ticket.client) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(client.group) {
            group.gate.push(Kept {
                ticket,
                reply: Box::from(reply),
                at: now,
                late: group.quiet,
                link: Some(key),
                orders,
            });
        }
    }

    /// A reply that was too large to be kept, or one too many.
    pub(super) fn doubt_now(&mut self, key: LinkKey, ticket: Ticket, reply: &[u8]) {
        // Whatever the client is told, its link is not as it was.
        let _ = self.orders(key, ticket, reply);
        self.doubt(ticket);
    }

    /// Passes a kept reply on.
    fn pass(&mut self, index: GroupIndex, kept: Kept, now: Time) {
        let ticket = kept.ticket;
        let (orders, reply) = (kept.orders, &kept.reply);
        let carried = match kept.link {
            Some(link) => self.carry_out((index, link, ticket), orders, reply, now),
            None => Carried::AsItIs,
        };
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        if !matches!(carried, Carried::Later) {
            client.answered(Role::Master, ticket.effect);
            let reply = carried.words().unwrap_or(&kept.reply);
            client.replies.deliver(ticket.seq, reply, Piece::Last);
            client.replies.acknowledge(ticket.seq);
        }
        if let Some(group) = self.groups.get_mut(client.group) {
            let counts = &mut group.counts;
            if kept.link.is_some() {
                counts.request(ticket.class, Target::Master, 1);
                counts
                    .request_duration(ticket.class, Target::Master)
                    .record(now.since(ticket.arrived));
            }
            counts.kept_released += 1;
        }
        self.touch(ticket.client);
    }

    /// Passes the reply of a transaction on for which other clients had to be asked first. It is
    /// kept like any other if its master has come under suspicion since.
    pub(super) fn pass_late(&mut self, ticket: Ticket, reply: Vec<u8>, now: Time) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(client.group)
            && group.gate.closed.is_some()
        {
            if !group.gate.has_room_for(&reply) {
                return self.doubt(ticket);
            }
            return group.gate.push(Kept {
                ticket,
                reply: reply.into_boxed_slice(),
                at: now,
                // The master had answered before.
                late: false,
                link: None,
                orders: Orders::default(),
            });
        }
        client.answered(Role::Master, ticket.effect);
        client.reply(&ticket, (&reply, ReplyKind::Array));
        self.touch(ticket.client);
    }

    /// Says that it is not known whether the write will be there.
    fn doubt(&mut self, ticket: Ticket) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        client.answered(Role::Master, ticket.effect);
        if let Some(group) = self.groups.get_mut(client.group) {
            group.counts.kept_uncertain += 1;
        }
        self.tell(ticket, Reject::UncertainFork);
        self.touch(ticket.client);
    }
}

/// Whether this reply acknowledges a write.
#[inline]
fn acknowledges(ticket: &Ticket, (reply, kind): (&[u8], ReplyKind)) -> bool {
    may_acknowledge(ticket) && kind != ReplyKind::Error && !is_null(reply)
}

/// Whether a reply to this request can acknowledge a write.
fn may_acknowledge(ticket: &Ticket) -> bool {
    let purpose = matches!(
        ticket.purpose,
        Purpose::Plain
            | Purpose::Exec
            | Purpose::Slow
            | Purpose::Sticks
            | Purpose::Upload
            | Purpose::Waits(_)
    );
    purpose && ticket.spoken && ticket.effect == Effect::Writes
}
