//! Floor 4. What a request changes, as stamps to be marked, and what a read needs to be settled.
//! The rules behind it are in `consistency`.
//!
//! | marked | when |
//! |---|---|
//! | a write's keys | when it is put on its link, when its reply was read, when its link is lost |
//! | those of a transaction | also when EXEC is sent, has its reply, or is lost |
//! | what may be executed after that | also when its connection has ended at the node |
//! | a script's | the same, but everything, unless its declared keys are trusted |

use crate::command::{KeySpec, Keys, Reach};
use crate::consistency::{Scripts, Slot, Stamps};
use crate::exchange::client::Client;
use crate::exchange::link::{Link, NodeId, Usage};
use crate::exchange::node::{Group, Node};
use crate::exchange::slab::Slab;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::mux::Sent;
use crate::resp::{Request, is_word};
use crate::route::Reads;
use crate::telemetry::MasterRead;

/// Stamps kept of one transaction; with more it marks everything.
const GATHERED_MAX: usize = 256;

/// What a request changes, in few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Marks {
    /// Nothing, or nobody keeps account of it.
    #[default]
    None,
    /// What has this stamp.
    One(Slot),
    /// What its bytes say.
    Several,
}

/// What a read needs of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    stamp: u32,
    /// Whether it is the stamp of more than single keys.
    whole: bool,
}

impl Need {
    /// Any replica will do.
    pub(super) const NOTHING: Self = Self {
        stamp: 0,
        whole: false,
    };

    /// The newest stamp of a read's keys, and whether it stands for more than single keys, together
    /// with those of the whole database.
    #[inline]
    fn of(stamps: &Stamps, database: u32, (keys, whole): (u32, bool)) -> Self {
        let others = stamps.whole(database);
        Self {
            stamp: keys.max(others),
            whole: whole || others > keys,
        }
    }

    #[inline]
    pub(super) const fn is_nothing(self) -> bool {
        self.stamp == 0
    }

    /// Why it goes to the master if no replica will do.
    pub(super) const fn reason(self) -> MasterRead {
        if self.whole {
            MasterRead::UnsettledAll
        } else {
            MasterRead::Unsettled
        }
    }
}

/// What a client's transaction changes.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    slots: Vec<Slot>,
}

impl Gathered {
    fn add(&mut self, slot: Slot, everything: Slot) {
        if self.slots.len() < GATHERED_MAX {
            self.slots.push(slot);
        } else {
            self.slots = vec![everything];
        }
    }

    fn clear(&mut self) {
        self.slots = Vec::new();
    }
}

impl Group {
    /// The stamps that a client's requests will be weighed against, if they are.
    #[inline]
    pub(super) fn stamps_for(&self, client: &Client) -> Option<&Stamps> {
        let stamps = self.settings.stamps.as_deref();
        stamps.filter(|_| client.access.reads() == Reads::OwnWrites)
    }

    /// What a request changes that is no read. `slot` is that of its first argument, if known.
    #[inline]
    pub(super) fn marks(
        &self,
        client: &Client,
        reach: Reach,
        (request, slot): (&Request<'_>, Option<Slot>),
    ) -> Marks {
        match &self.settings.stamps {
            Some(stamps) if reach != Reach::Nothing => {
                self.marked(stamps, client, reach, (request, slot))
            }
            _ => Marks::None,
        }
    }

    /// The same, of what changes something.
    fn marked(
        &self,
        stamps: &Stamps,
        client: &Client,
        reach: Reach,
        (request, slot): (&Request<'_>, Option<Slot>),
    ) -> Marks {
        let lease = client.lease.as_ref();
        if lease.is_some_and(|lease| lease.inside.selects()) {
            // In which database it is executed, only the server knows.
            return Marks::One(stamps.everything());
        }
        let database = client.session.database;
        match reach {
            Reach::Nothing => Marks::None,
            Reach::Keys(keys) if keys.is_arg1() => {
                let key = || request.arg1().map(|key| stamps.slot(database, key));
                slot.or_else(key).map_or(Marks::None, Marks::One)
            }
            Reach::Keys(_) | Reach::OtherDatabase(_) => Marks::Several,
            Reach::Declared(_) if self.settings.script_keys == Scripts::Declared => Marks::Several,
            Reach::Database => Marks::One(stamps.database(database)),
            Reach::Declared(_) | Reach::Everything => Marks::One(stamps.everything()),
        }
    }

    /// What a read needs. `slot` is that of its first argument, if it is known.
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "it is called from one busy place; as a function it costs 1 % of a command"
    )]
    pub(super) fn need(
        &self,
        reach: Reach,
        database: u32,
        (request, slot): (&Request<'_>, Option<Slot>),
    ) -> Need {
        let Some(stamps) = &self.settings.stamps else {
            return Need::NOTHING;
        };
        match (reach, slot) {
            (Reach::Keys(keys), Some(slot)) if keys.is_arg1() => {
                Need::of(stamps, database, (stamps.stamp(slot), false))
            }
            _ => self.need_of_several(stamps, reach, database, request),
        }
    }

    /// The same for a read that is not simply of one key.
    fn need_of_several(
        &self,
        stamps: &Stamps,
        reach: Reach,
        database: u32,
        request: &Request<'_>,
    ) -> Need {
        let trusted = self.settings.script_keys == Scripts::Declared;
        let keys = match reach {
            Reach::Nothing => return Need::NOTHING,
            Reach::Keys(keys) => newest_of(stamps, keys, database, request),
            Reach::Declared(keys) if trusted => newest_of(stamps, keys, database, request),
            Reach::Declared(_) | Reach::OtherDatabase(_) | Reach::Database | Reach::Everything => {
                (stamps.newest(), true)
            }
        };
        Need::of(stamps, database, keys)
    }

    /// Whether a replica has what a read needs.
    #[inline]
    pub(super) fn settles(&self, node: NodeId, need: Need) -> bool {
        let node = || self.nodes.get(node.0);
        need.is_nothing() || node().is_some_and(|node| node.settles(need))
    }

    /// Whether one of those that may be read from does.
    #[inline]
    pub(super) fn has_settled(&self, need: Need) -> bool {
        self.readable.iter().any(|node| self.settles(*node, need))
    }

    /// A request is put on a link.
    #[inline]
    pub(super) fn mark_sent(&self, marks: Marks, database: u32, raw: &[u8]) {
        if let Some(stamps) = &self.settings.stamps {
            self.mark(marks, stamps.generation(), database, raw);
        }
    }

    /// A request may have changed what it changes.
    pub(super) fn mark(&self, marks: Marks, generation: u32, database: u32, raw: &[u8]) {
        let Some(stamps) = &self.settings.stamps else {
            return;
        };
        match marks {
            Marks::None => {}
            Marks::One(slot) => stamps.mark(slot, generation),
            Marks::Several => self.each(stamps, database, raw, |slot| {
                stamps.mark(slot, generation);
            }),
        }
    }

    /// The oldest request of a link has its reply, and `generation` was loaded after that.
    pub(super) fn mark_answered(
        &self,
        link: &Link,
        clients: &Slab<ClientKey, Client>,
        generation: u32,
    ) {
        if let Some((ticket, raw)) = link.pipeline.oldest() {
            self.mark(ticket.marks, generation, database_of(link, clients), raw);
        }
    }

    /// Calls `visit` with each stamp of a request of which only the bytes are left.
    fn each(&self, stamps: &Stamps, database: u32, raw: &[u8], mut visit: impl FnMut(Slot)) {
        let Some(request) = Request::from_raw(raw) else {
            return visit(stamps.everything());
        };
        let told = match self.table.classify(&request).reach() {
            Reach::Nothing => Keys::Told,
            Reach::Keys(keys) | Reach::Declared(keys) => {
                keys.visit(&request, |key| visit(stamps.slot(database, key)))
            }
            Reach::OtherDatabase(keys) => {
                elsewhere(&request, |other, key| visit(stamps.slot(other, key)));
                keys.visit(&request, |key| visit(stamps.slot(database, key)))
            }
            Reach::Database | Reach::Everything => Keys::Untold,
        };
        if told == Keys::Untold {
            visit(stamps.everything());
        }
    }

    /// A command of a client's transaction is queued.
    fn gather(&self, gathered: &mut Gathered, marks: Marks, database: u32, raw: &[u8]) {
        let Some(stamps) = &self.settings.stamps else {
            return;
        };
        let everything = stamps.everything();
        match marks {
            Marks::None => {}
            Marks::One(slot) => gathered.add(slot, everything),
            Marks::Several => self.each(stamps, database, raw, |slot| {
                gathered.add(slot, everything);
            }),
        }
    }

    fn mark_gathered(&self, gathered: &Gathered, generation: u32) {
        if let Some(stamps) = &self.settings.stamps {
            for slot in &gathered.slots {
                stamps.mark(*slot, generation);
            }
        }
    }
}

impl Node {
    /// Whether it has what a read needs of a replica.
    #[inline]
    pub(super) fn settles(&self, need: Need) -> bool {
        let settled = || self.settled.as_ref();
        need.is_nothing() || settled().is_some_and(|it| it.settled() >= need.stamp)
    }
}

impl Exchange {
    /// The generation for what a node has just answered, or failed to.
    #[inline]
    pub(super) fn load_generation(&mut self, link: LinkKey) {
        let group = self.links.get(link).map(|link| link.group);
        let group = group.and_then(|group| self.groups.get(group));
        if let Some(stamps) = group.and_then(|group| group.settings.stamps.as_ref()) {
            self.generation = stamps.generation();
        }
    }

    /// Follows the replies to a client's transaction: what it has queued is marked with EXEC.
    pub(super) fn gather_queued(&mut self, key: LinkKey, owner: ClientKey, reply: &[u8]) {
        let (Some(link), Some(client)) = (self.links.get(key), self.clients.get_mut(owner)) else {
            return;
        };
        let database = client.session.database;
        let (Some((ticket, raw)), Some(lease)) = (link.pipeline.oldest(), &mut client.lease) else {
            return;
        };
        let Some(group) = self.groups.get(link.group) else {
            return;
        };
        match ticket.purpose {
            Purpose::Multi if reply.starts_with(b"+OK") => lease.gathered.clear(),
            Purpose::Queued => group.gather(&mut lease.gathered, ticket.marks, database, raw),
            Purpose::Exec => group.mark_gathered(&lease.gathered, self.generation),
            _ => {}
        }
    }

    /// A client's EXEC is on its way.
    pub(super) fn mark_exec(&self, owner: ClientKey) {
        let client = self.clients.get(owner);
        if let Some(client) = client
            && let Some(lease) = &client.lease
            && let Some(group) = self.groups.get(client.group)
            && let Some(stamps) = &group.settings.stamps
        {
            group.mark_gathered(&lease.gathered, stamps.generation());
        }
    }

    /// A link is gone, with requests on it that the node may have executed.
    pub(super) fn mark_lost(&self, link: &Link) {
        let Some(group) = self.groups.get(link.group) else {
            return;
        };
        let Some(stamps) = &group.settings.stamps else {
            return;
        };
        let (generation, database) = (stamps.generation(), database_of(link, &self.clients));
        for lost in link.pipeline.lost().filter(|lost| lost.sent == Sent::Yes) {
            group.mark(lost.ticket.marks, generation, database, lost.bytes);
            if lost.ticket.purpose == Purpose::Exec {
                let client = self.clients.get(lost.ticket.client);
                match client.and_then(|client| client.lease.as_ref()) {
                    Some(lease) => group.mark_gathered(&lease.gathered, generation),
                    None => stamps.mark(stamps.everything(), generation),
                }
            }
        }
    }

    /// A request of a lost link will not be executed any more, or nobody waits to know: it may have
    /// been until now. Its bytes are gone.
    pub(super) fn mark_ended(&self, ticket: Ticket) {
        let client = self.clients.get(ticket.client);
        let group = client.and_then(|client| self.groups.get(client.group));
        let Some(stamps) = group.and_then(|group| group.settings.stamps.as_ref()) else {
            return;
        };
        let slot = match (ticket.purpose, ticket.marks) {
            (Purpose::Exec, _) | (_, Marks::Several) => stamps.everything(),
            (_, Marks::One(slot)) => slot,
            (_, Marks::None) => return,
        };
        stamps.mark(slot, stamps.generation());
    }
}

/// The database of what is on a link. A transaction may have left a client's own in another than
/// that of its lane.
fn database_of(link: &Link, clients: &Slab<ClientKey, Client>) -> u32 {
    let owner = match link.usage {
        Usage::Leased(Some(owner)) => clients.get(owner),
        Usage::Leased(None) | Usage::Shared | Usage::Hub | Usage::Proof(_) | Usage::Target(_) => {
            None
        }
    };
    owner.map_or(link.lane.database, |owner| owner.session.database)
}

/// The newest stamp of a read's keys, and whether it is that of everything.
#[inline]
fn newest_of(stamps: &Stamps, keys: KeySpec, database: u32, request: &Request<'_>) -> (u32, bool) {
    let mut newest = 0;
    let told = keys.visit(request, |key| {
        newest = newest.max(stamps.stamp(stamps.slot(database, key)));
    });
    match told {
        Keys::Told => (newest, false),
        Keys::Untold => (stamps.newest(), true),
    }
}

/// Calls `visit` with each key that a request may change in another database than its client's:
/// `MOVE key database`, `COPY source destination DB database`. Of several options `DB` the server
/// heeds the last.
fn elsewhere<'a>(request: &Request<'a>, mut visit: impl FnMut(u32, &'a [u8])) {
    let words = request.args();
    let mut note = |key: usize, number: &[u8]| {
        let number = std::str::from_utf8(number).ok();
        let number = number.and_then(|number| number.parse().ok());
        if let (Some(number), Some(key)) = (number, words.clone().nth(key)) {
            visit(number, key);
        }
    };
    if request.name().eq_ignore_ascii_case(b"move") {
        words.clone().nth(2).into_iter().for_each(|it| note(1, it));
        return;
    }
    let options = words.clone().skip(3).zip(words.clone().skip(4));
    let databases = options.filter(|(option, _)| is_word(option, b"db"));
    databases.for_each(|(_, number)| note(2, number));
}
