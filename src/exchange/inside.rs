//! Floor 4. Commands about the connection itself between MULTI and EXEC: the server queues them,
//! and with its reply to EXEC they hold for the session too.
//!
//! ```text
//!   between MULTI and EXEC                  with EXEC's reply, each in its place
//!   SELECT 3        ──► link  +QUEUED       +OK: session and link are in database 3 from here on
//!   CLIENT GETNAME  ──► link  +QUEUED       the link has no name: what the session says instead
//!   HELLO 3         ──► link  +QUEUED       what follows is in RESP3, in this reply already
//! ```
//!
//! The server judges: what it refuses has no effect here either, and its words are passed on. What
//! changes a link in a way that the next client could notice keeps it out of the pool.

use std::collections::VecDeque;

use crate::command::Local;
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::link::LaneId;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{ReplyScanner, Request, Scan};
use crate::session::{HelloFacts, HelloRequest, HelloStep, Login, Outcome, Seq};
use crate::types::Time;

/// Bytes of such commands that are kept of one transaction. A further one is not offered.
const ORDERS_MAX: usize = 64 * 1024;

/// A command about the connection.
#[derive(Debug)]
struct Order {
    local: Local,
    raw: Box<[u8]>,
}

/// Those of a client's transaction. All but `asked` follows the replies, so that it speaks of the
/// transaction whose replies are coming, whatever the client has sent since.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Those without a reply.
    asked: VecDeque<(Seq, Order)>,
    /// Commands that the server has queued.
    queued: usize,
    /// Which of them are about the connection.
    orders: Orders,
}

/// Commands about the connection, by their places in a transaction.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(usize, Order)>);

impl Orders {
    /// Whether the link is not as it was before them.
    fn change_link(&self) -> bool {
        let tells = |local| {
            use Local::{ClientGetname, ClientId, ClientInfo, ClientList};
            matches!(local, ClientGetname | ClientId | ClientInfo | ClientList)
        };
        self.0.iter().any(|(_, order)| !tells(order.local))
    }
}

impl Inside {
    /// MULTI or a command behind it has its reply.
    pub(super) fn note(&mut self, purpose: Purpose, seq: Seq, reply: &[u8]) {
        if purpose == Purpose::Multi && reply.starts_with(b"+OK") {
            (self.queued, self.orders) = (0, Orders::default());
        }
        let is_next = self.asked.front().is_some_and(|asked| asked.0 == seq);
        let asked = is_next.then(|| self.asked.pop_front()).flatten();
        if reply.starts_with(b"+QUEUED") {
            let order = asked.map(|(_, order)| (self.queued, order));
            self.orders.0.extend(order);
            self.queued += 1;
        }
    }

    /// Whether there are any in a transaction without a reply to its EXEC.
    pub(super) fn is_open(&self) -> bool {
        !self.asked.is_empty() || !self.orders.0.is_empty()
    }

    /// Whether there is one that may change the database.
    pub(super) fn selects(&self) -> bool {
        let asked = self.asked.iter().map(|(_, order)| order);
        let mut all = asked.chain(self.orders.0.iter().map(|(_, order)| order));
        all.any(|order| order.local == Local::Select)
    }

    /// Whether it has room for another one.
    pub(super) fn has_room_for(&self, request: &Request<'_>) -> bool {
        let each = size_of::<(usize, Order)>();
        let asked = self.asked.iter().map(|(_, order)| order.raw.len() + each);
        let orders = self
            .orders
            .0
            .iter()
            .map(|(_, order)| order.raw.len() + each);
        asked.chain(orders).sum::<usize>() + request.raw().len() + each <= ORDERS_MAX
    }

    /// The link is lost: what has no reply is placed anew.
    pub(super) fn lose_link(&mut self) {
        self.asked.clear();
    }
}

impl Exchange {
    /// A command about the connection between MULTI and EXEC.
    pub(super) fn queue_order(&mut self, job: Job, request: &Request<'_>, local: Local) -> Placed {
        let placed = self.queue(job, request.raw());
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
            && let Some(lease) = client.lease.as_deref_mut()
        {
            let latest = client.replies.latest();
            let seq = job.again.map_or(latest, |number| number.seq);
            let raw = Box::from(request.raw());
            lease.inside.asked.push_back((seq, Order { local, raw }));
        }
        placed
    }

    /// What takes effect with this reply to EXEC.
    pub(super) fn orders(&mut self, key: LinkKey, ticket: Ticket, reply: &[u8]) -> Orders {
        if !matches!(ticket.purpose, Purpose::Exec | Purpose::Undo(_)) {
            return Orders::default();
        }
        let client = self.clients.get_mut(ticket.client);
        let Some(lease) = client.and_then(|client| client.lease.as_deref_mut()) else {
            return Orders::default();
        };
        let orders = std::mem::take(&mut lease.inside.orders);
        let executed = reply.starts_with(b"*") && !reply.starts_with(b"*-");
        if !executed || ticket.purpose != Purpose::Exec {
            return Orders::default();
        }
        if orders.change_link() {
            self.retire(key);
        }
        orders
    }

    /// Carries out what a transaction with this reply to EXEC has said about the connection.
    /// Returns what the client hears, if that is not the reply.
    pub(super) fn carry_out(
        &mut self,
        (key, ticket): (LinkKey, Ticket),
        orders: Orders,
        reply: &[u8],
        now: Time,
    ) -> Option<Vec<u8>> {
        let mut orders = orders.0.into_iter().peekable();
        orders.peek()?;
        let behind_header = memchr::memchr(b'\n', reply)? + 1;
        let (header, mut rest) = reply.split_at_checked(behind_header)?;
        let (mut out, mut scanner) = (Vec::new(), ReplyScanner::default());
        let mut spoken = ticket.spoken;
        if spoken {
            out.extend_from_slice(header);
        }
        let mut place = 0;
        while let Ok(Scan::Complete { len, .. }) = scanner.scan(rest) {
            let (element, behind) = rest.split_at_checked(len)?;
            let begun = out.len();
            match orders.next_if(|(at, _)| *at == place) {
                None => out.extend_from_slice(element),
                Some((_, order)) => {
                    let link = (key, ticket.client);
                    let order_of = (order.local, &*order.raw);
                    out.extend(self.take_effect(link, order_of, element, now));
                    // `CLIENT REPLY ON` is heard, whatever was before.
                    spoken |= order.local == Local::ClientReply && element.starts_with(b"+");
                }
            }
            if !spoken {
                out.truncate(begun);
            }
            (rest, place) = (behind, place + 1);
        }
        Some(out)
    }

    /// A server has executed a command about the connection, and said this. Returns what the client
    /// hears.
    pub(super) fn take_effect(
        &mut self,
        (key, owner): (LinkKey, ClientKey),
        (local, raw): (Local, &[u8]),
        reply: &[u8],
        now: Time,
    ) -> Vec<u8> {
        let request = Request::from_raw(raw).filter(|_| !reply.starts_with(b"-"));
        let (Some(client), Some(request)) = (self.clients.get_mut(owner), request) else {
            return Vec::from(reply);
        };
        let mut composed = Vec::new();
        match client.session.local(local, &request, &mut composed) {
            Outcome::Replied | Outcome::Unspoken => return composed,
            Outcome::Hello(hello) => return self.greeted((key, owner), &hello, reply, now),
            Outcome::Auth(login) => self.logged_in((key, owner), &login, now),
            Outcome::Select(database) => {
                client.session.database = database;
                client.forget_lanes();
                self.set_lane(key, |lane| lane.database = database);
            }
            _ => {}
        }
        Vec::from(reply)
    }

    fn greeted(
        &mut self,
        (key, owner): (LinkKey, ClientKey),
        hello: &HelloRequest,
        reply: &[u8],
        now: Time,
    ) -> Vec<u8> {
        for step in &hello.steps {
            match step {
                HelloStep::Login(login) => self.logged_in((key, owner), login, now),
                HelloStep::Name(name) => {
                    if let Some(client) = self.clients.get_mut(owner) {
                        // The server takes no other names than we do.
                        let _ = client.session.set_name(name);
                    }
                }
            }
        }
        let Some(client) = self.clients.get_mut(owner) else {
            return Vec::new();
        };
        let protocol = hello.protocol.unwrap_or(client.session.protocol);
        client.session.protocol = protocol;
        client.forget_lanes();
        let (role, id) = (client.access.role(), client.session.id);
        self.set_lane(key, |lane| lane.protocol = protocol);
        let Some(facts) = HelloFacts::read(reply) else {
            return Vec::from(reply);
        };
        let mut out = Vec::new();
        facts.write(&mut out, (protocol, role), id);
        out
    }

    fn logged_in(&mut self, (key, owner): (LinkKey, ClientKey), login: &Login, now: Time) {
        let index = self.clients.get(owner).map(|client| client.group);
        let Some(group) = index.and_then(|index| self.groups.get_mut(index)) else {
            return;
        };
        let identity = group.join_identity(login);
        self.change_identity(owner, identity, now);
        self.set_lane(key, |lane| lane.identity = identity);
    }

    /// The link is another one than it was opened as.
    fn set_lane(&mut self, key: LinkKey, change: impl FnOnce(&mut LaneId)) {
        if let Some(link) = self.links.get_mut(key) {
            change(&mut link.lane);
        }
    }
}
