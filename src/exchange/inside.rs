//! Floor 4. Commands about the connection itself between MULTI and EXEC: the server queues them,
//! and with its reply to EXEC they hold for the session too.
//!
//! ```text
//!   between MULTI and EXEC                  with EXEC's reply, each in its place
//!   SELECT 3        ──► link  +QUEUED       +OK: session and link are in database 3 from here on
//!   CLIENT GETNAME  ──► link  +QUEUED       the link has no name: what the session says instead
//!   HELLO 3         ──► link  +QUEUED       what follows is in RESP3, in this reply already
//!   CLIENT LIST     ──► link  +QUEUED       all workers are asked, and the rest waits for them
//!   CLIENT TRACKING ──► link  +QUEUED       +OK: it sticks to the link, as at any other time
//!   ACL DELUSER     ──► link  +QUEUED       :1: the clients of that user are closed before
//! ```
//!
//! The server judges: what it refuses has no effect here either, and its words are passed on. Where
//! it has refused MULTI itself, what was sent behind that is executed at once, and holds at once.
//! What changes a link in a way that the next client could notice keeps it out of the pool.

use std::collections::{BTreeSet, VecDeque};

use crate::command::{Leased, Local};
use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::pause::is_pause;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey};
use crate::resp::{ReplyScanner, Request, Scan, is_word};
use crate::session::{AboutClients, Choice, Seq};
use crate::types::Time;

/// Bytes of such commands that are kept of one transaction. A further one is not offered.
const ORDERS_MAX: usize = 64 * 1024;

/// A command about the connection.
#[derive(Debug)]
struct Order {
    about: About,
    raw: Box<[u8]>,
}

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// What the session has, or tells.
    Session(Local),
    /// What sticks to the link, if the server takes it.
    Link(Leased),
    /// The end of users, and of their clients. It is one outside of transactions too.
    Deletion,
    /// A pause of writes, or its end. It is one outside of transactions too.
    Pause,
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
    /// Whether the server has refused the last MULTI.
    refused: bool,
}

/// Commands about the connection, by their places in a transaction.
#[derive(Debug, Default)]
pub(super) struct Orders(Vec<(usize, Order)>);

impl Orders {
    /// Whether the link is not as it was before them.
    fn change_link(&self) -> bool {
        use Local::{ClientGetname, ClientGetredir, ClientId, ClientInfo, ClientTrackinginfo};
        let tells = |about| match about {
            About::Session(
                ClientGetname | ClientGetredir | ClientId | ClientInfo | ClientTrackinginfo,
            )
            | About::Deletion
            | About::Pause => true,
            About::Session(local) => local.is_about_others(),
            About::Link(_) => false,
        };
        self.0.iter().any(|(_, order)| !tells(order.about))
    }
}

/// What a client hears of its EXEC.
pub(super) enum Carried {
    /// The reply as it came.
    AsItIs,
    /// This.
    Rewritten(Vec<u8>),
    /// Other clients are asked first.
    Later,
}

impl Carried {
    /// What it hears, if that is not the reply.
    pub(super) fn words(&self) -> Option<&[u8]> {
        match self {
            Self::Rewritten(words) => Some(words),
            Self::AsItIs | Self::Later => None,
        }
    }
}

/// A transaction that was executed, and of which what it has said about the connection is being
/// carried out.
#[derive(Debug)]
pub(super) struct Carrying {
    group: GroupIndex,
    link: LinkKey,
    ticket: Ticket,
    orders: VecDeque<(usize, Order)>,
    reply: Vec<u8>,
    /// How far the reply is read, and how many elements that were.
    at: usize,
    place: usize,
    /// What the client hears, and whether it hears the next element.
    out: Vec<u8>,
    spoken: bool,
    /// Users who are none any more, and whose clients may be there.
    deleted: BTreeSet<Box<[u8]>>,
}

impl Carrying {
    /// Whose it is.
    pub(super) const fn client(&self) -> ClientKey {
        self.ticket.client
    }

    /// The group whose clients it is about; its own client may be gone.
    pub(super) const fn group(&self) -> GroupIndex {
        self.group
    }

    /// The client hears this in its place, if it hears anything.
    pub(super) fn hear(&mut self, said: &[u8]) {
        if self.spoken {
            self.out.extend_from_slice(said);
        }
    }

    /// Whether users were deleted, and the next order is not about others that may be.
    fn has_deleted(&self) -> bool {
        let next = self.orders.front().map(|(_, order)| order.about);
        !self.deleted.is_empty() && next != Some(About::Deletion)
    }

    /// The next element of the reply.
    fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.reply.get(self.at..)?;
        let Ok(Scan::Complete { len, .. }) = ReplyScanner::default().scan(rest) else {
            return None;
        };
        self.at += len;
        rest.get(..len).map(Vec::from)
    }
}

impl Order {
    /// What it asks about clients, if it does, where the server has said this to the form that it
    /// got. An `Err` is what the client hears.
    fn about_clients(&self, said: &[u8]) -> Option<Result<AboutClients, Vec<u8>>> {
        let local = match self.about {
            About::Session(local) => local,
            About::Link(_) | About::Deletion | About::Pause => return None,
        };
        if local != Local::ClientInfo && !local.is_about_others() {
            return None;
        }
        let request = Request::from_raw(&self.raw)?;
        let (_, weighs) = AboutClients::question(local, &request);
        if weighs.is_objection(said) {
            return Some(Err(Vec::from(said)));
        }
        Some(AboutClients::read(local, &request).map_err(|reject| {
            let mut out = Vec::new();
            reject.write(&mut out);
            out
        }))
    }

    /// Who is no user any more, if the server has said this of a deletion: those whom it has not
    /// found are none either.
    fn deleted(&self, said: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
        let request = Request::from_raw(&self.raw).filter(|_| said.starts_with(b":"));
        let users = request.into_iter().flat_map(|it| it.args().skip(2));
        users.map(Box::from)
    }
}

impl Inside {
    /// MULTI or a command behind it has its reply. Returns what was executed at once.
    fn note(&mut self, purpose: Purpose, seq: Seq, reply: &[u8]) -> Option<Order> {
        if purpose == Purpose::Multi {
            self.refused = reply.starts_with(b"-");
            if !self.refused {
                (self.queued, self.orders) = (0, Orders::default());
            }
        }
        let order = self.take(seq);
        if !reply.starts_with(b"+QUEUED") {
            return order.filter(|_| self.refused || !reply.starts_with(b"-"));
        }
        self.orders.0.extend(order.map(|it| (self.queued, it)));
        self.queued += 1;
        None
    }

    /// What was asked with this number.
    fn take(&mut self, seq: Seq) -> Option<Order> {
        let is_next = self.asked.front().is_some_and(|asked| asked.0 == seq);
        let next = is_next.then(|| self.asked.pop_front()).flatten();
        next.map(|(_, order)| order)
    }

    /// Commands that the server has queued.
    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    /// Whether there are any in a transaction without a reply to its EXEC.
    pub(super) fn is_open(&self) -> bool {
        !self.asked.is_empty() || !self.orders.0.is_empty()
    }

    /// Whether there is one that may change the database.
    pub(super) fn selects(&self) -> bool {
        let asked = self.asked.iter().map(|(_, order)| order);
        let mut all = asked.chain(self.orders.0.iter().map(|(_, order)| order));
        all.any(|order| order.about == About::Session(Local::Select))
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
    pub(super) fn queue_order(&mut self, job: Job, request: &Request<'_>, about: About) -> Placed {
        let placed = match about {
            About::Session(local) if local.is_about_others() => {
                // What has its place there has no effect there.
                let (raw, _) = AboutClients::question(local, request);
                self.queue(job, &raw)
            }
            About::Session(_) | About::Link(_) | About::Deletion | About::Pause => {
                self.queue(job, request.raw())
            }
        };
        self.on_its_way(job, request, placed, about);
        placed
    }

    fn on_its_way(&mut self, job: Job, request: &Request<'_>, placed: Placed, about: About) {
        let seq = self.placed_as(job);
        self.on_lease(job.key, placed, |lease| {
            let raw = Box::from(request.raw());
            lease.inside.asked.push_back((seq, Order { about, raw }));
        });
    }

    /// Something that administers the master was placed. What is behind the end of users is not
    /// sent before their clients are closed; the client may be one of them.
    pub(super) fn note_deletion(&mut self, job: Job, request: &Request<'_>) {
        if !is_deletion(request) {
            return;
        }
        self.on_its_way(job, request, Placed::Sent, About::Deletion);
        if let Some(client) = self.clients.get_mut(job.key) {
            client.wait = Wait::Answers;
        }
    }

    /// The same of a pause, and of its end.
    pub(super) fn note_pause(&mut self, job: Job, request: &Request<'_>) {
        if is_pause(request) {
            self.on_its_way(job, request, Placed::Sent, About::Pause);
        }
    }

    /// MULTI or a command behind it has its reply.
    pub(super) fn note_inside(
        &mut self,
        (key, ticket): (LinkKey, Ticket),
        reply: &[u8],
        now: Time,
    ) -> Carried {
        let index = self.links.get(key).map_or(0, |link| link.group);
        let client = self.clients.get_mut(ticket.client);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        let executed = lease.and_then(|it| it.inside.note(ticket.purpose, ticket.seq, reply));
        let Some(order) = executed else {
            return Carried::AsItIs;
        };
        if order.about == About::Deletion || order.about_clients(reply).is_some() {
            // To the form that it got the server has an error, whoever may use it.
            let carrying = Carrying {
                group: index,
                link: key,
                ticket,
                orders: VecDeque::from([(0, order)]),
                reply: Vec::from(reply),
                at: 0,
                place: 0,
                out: Vec::new(),
                spoken: ticket.spoken,
                deleted: BTreeSet::new(),
            };
            return match self.go_on_carrying(Box::new(carrying), now) {
                Some(out) => Carried::Rewritten(out),
                None => Carried::Later,
            };
        }
        if order.about == About::Session(Local::Hello) {
            self.doubt_login((key, &order.raw), reply);
        }
        if reply.starts_with(b"-") {
            return Carried::AsItIs;
        }
        let owner = (key, ticket.client);
        match order.about {
            About::Session(local) => {
                self.retire(key);
                let said = self.take_effect(owner, (local, &order.raw), reply, now);
                if ticket.spoken {
                    return Carried::Rewritten(said);
                }
            }
            About::Link(leased) => self.stick(owner, (leased, &order.raw), reply),
            About::Pause => self.take_pause(index, (&order.raw, reply), now),
            About::Deletion => {}
        }
        Carried::AsItIs
    }

    /// What takes effect with this reply to EXEC, or to what administers the master.
    pub(super) fn orders(&mut self, key: LinkKey, ticket: Ticket, reply: &[u8]) -> Orders {
        if !matches!(
            ticket.purpose,
            Purpose::Exec | Purpose::Undo(_) | Purpose::Slow
        ) {
            return Orders::default();
        }
        let client = self.clients.get_mut(ticket.client);
        let Some(lease) = client.and_then(|client| client.lease.as_deref_mut()) else {
            return Orders::default();
        };
        if ticket.purpose == Purpose::Slow {
            let order = lease.inside.take(ticket.seq);
            return Orders(order.map(|it| (0, it)).into_iter().collect());
        }
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

    /// Carries out what a transaction with this reply to EXEC has said about the connection, or
    /// what was not in one.
    pub(super) fn carry_out(
        &mut self,
        (group, link, ticket): (GroupIndex, LinkKey, Ticket),
        orders: Orders,
        reply: &[u8],
        now: Time,
    ) -> Carried {
        let header = match ticket.purpose {
            _ if orders.0.is_empty() => None,
            Purpose::Slow => Some(0),
            _ => memchr::memchr(b'\n', reply).map(|end| end + 1),
        };
        let Some((header, _)) = header.and_then(|end| reply.split_at_checked(end)) else {
            return Carried::AsItIs;
        };
        let spoken = ticket.spoken;
        let carrying = Box::new(Carrying {
            group,
            link,
            ticket,
            orders: orders.0.into(),
            reply: Vec::from(reply),
            at: header.len(),
            place: 0,
            out: Vec::from(if spoken { header } else { &[] }),
            spoken,
            deleted: BTreeSet::new(),
        });
        match self.go_on_carrying(carrying, now) {
            Some(out) => Carried::Rewritten(out),
            None => Carried::Later,
        }
    }

    /// Goes on with a transaction for which other clients had to be asked.
    pub(super) fn carry_on(&mut self, carrying: Box<Carrying>, now: Time) {
        let ticket = carrying.ticket;
        if let Some(out) = self.go_on_carrying(carrying, now) {
            self.pass_late(ticket, out, now);
        }
    }

    /// Returns what the client hears; `None` if other clients are asked first.
    fn go_on_carrying(&mut self, mut it: Box<Carrying>, now: Time) -> Option<Vec<u8>> {
        while let Some(element) = it.next() {
            let place = it.place;
            it.place += 1;
            let is_next = it.orders.front().is_some_and(|(at, _)| *at == place);
            let order = is_next.then(|| it.orders.pop_front()).flatten();
            let Some((_, order)) = order else {
                it.hear(&element);
                continue;
            };
            match order.about_clients(&element) {
                None => {
                    let link = (it.link, it.ticket.client);
                    let said = match order.about {
                        About::Session(local) => {
                            self.take_effect(link, (local, &order.raw), &element, now)
                        }
                        About::Link(leased) => {
                            self.stick(link, (leased, &order.raw), &element);
                            element.clone()
                        }
                        About::Pause => {
                            self.take_pause(it.group, (&order.raw, &element), now);
                            element.clone()
                        }
                        About::Deletion => {
                            it.deleted.extend(order.deleted(&element));
                            element.clone()
                        }
                    };
                    // `CLIENT REPLY ON` is heard, whatever was before.
                    let speaks = order.about == About::Session(Local::ClientReply);
                    it.spoken |= speaks && element.starts_with(b"+");
                    it.hear(&said);
                    if it.has_deleted() {
                        let users = Choice::of_users(std::mem::take(&mut it.deleted));
                        self.ask_on_the_way(it, AboutClients::Deleted(users), now);
                        return None;
                    }
                }
                Some(Err(said)) => it.hear(&said),
                Some(Ok(about)) => {
                    self.ask_on_the_way(it, about, now);
                    return None;
                }
            }
        }
        Some(it.out)
    }

    /// Other clients are asked about. What the rest changes, what comes behind it is to find
    /// changed.
    fn ask_on_the_way(&mut self, it: Box<Carrying>, about: AboutClients, now: Time) {
        if let Some(client) = self.clients.get_mut(it.ticket.client)
            && matches!(client.wait, Wait::No | Wait::Over | Wait::Room)
        {
            client.wait = Wait::Answers;
        }
        self.ask_inside(it, about, now);
    }

    /// A request that was answered is in flight again for its client: what it hears is not known
    /// yet.
    pub(super) fn count_again(&mut self, ticket: Ticket) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        if client.master_out == 0 {
            client.master_link = None;
        }
        client.master_out += 1;
        client.writes_out += 1;
    }
}

/// Whether it deletes users.
pub(super) fn is_deletion(request: &Request<'_>) -> bool {
    is_word(request.name(), b"acl") && request.arg1().is_some_and(|it| is_word(it, b"deluser"))
}
