//! Floor 4. One connection to a node as the switchboard sees it.

use std::num::NonZeroU16;

use crate::exchange::begun::Begun;
use crate::exchange::scripts::Brought;
use crate::exchange::ticket::Ticket;
use crate::exchange::{ClientKey, GroupIndex, OpenPlan, Place};
use crate::fence::Connection;
use crate::mux::Pipeline;
use crate::resp::ReplyScanner;
use crate::session::{HelloFacts, IdentityId, LoginBy, Seq};
use crate::telemetry::ConnectStage;
use crate::types::{Protocol, Time};

/// Key of a link; never names a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(Place);

impl From<Place> for LinkKey {
    fn from(place: Place) -> Self {
        Self(place)
    }
}

impl From<LinkKey> for Place {
    fn from(key: LinkKey) -> Self {
        key.0
    }
}

impl LinkKey {
    /// The place, for tables of the worker that run in parallel.
    pub const fn index(self) -> usize {
        self.0.index()
    }
}

/// The role for which a link was made and checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Carries writes: the node's `ROLE` was `master` when it opened.
    Master,
    /// Carries reads only.
    Replica,
}

/// Index of a node within its group's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(pub(super) usize);

/// A node, or none, in as little room as possible: its index and one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MaybeNode(Option<NonZeroU16>);

impl MaybeNode {
    pub(super) fn new(id: NodeId) -> Self {
        let number = u16::try_from(id.0).ok();
        Self(number.and_then(|number| NonZeroU16::new(number.checked_add(1)?)))
    }

    pub(super) fn get(self) -> Option<NodeId> {
        let index = self.0?.get() - 1;
        Some(NodeId(usize::from(index)))
    }
}

/// What makes two links alike: a shared one carries what fits all of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneId {
    pub(super) node: NodeId,
    pub(super) role: Role,
    pub(super) identity: IdentityId,
    pub(super) database: u32,
    pub(super) protocol: Protocol,
    /// Whether it is for reads that may bring large values, and what comes behind them.
    pub(super) bulky: bool,
}

/// Who may use a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    /// Stateless requests of every client that it fits.
    Shared,
    /// One client; `None` while it lies in the pool.
    Leased(Option<ClientKey>),
    /// All clients of one login that have subscriptions.
    Hub,
    /// Nobody yet: it proves one client's login.
    Proof(ClientKey),
    /// One client, which hears over it of changes of what others have read.
    Target(ClientKey),
}

/// What may be left on a link of its last client, of what is taken away in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remains {
    Transaction,
    Watch,
    Name,
}

/// Whether a link is in no list because somebody else is to have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lending {
    /// It is not.
    #[default]
    No,
    /// It is, and can be had when nothing is in flight on it.
    Withdrawn,
    /// It is, as others have gone past what is in flight on it. It is closed then, unless no other
    /// can be had.
    PassedBy,
    /// It is, and can be had when nothing of its last client is left on it.
    Cleaned(Remains),
    /// It is, and can be had when it is in this lane's database and protocol.
    Turning(LaneId),
}

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Connecting, or waiting for its turn to; requests already queue.
    Opening,
    /// In use.
    Ready,
    /// In use by one client, to which all goes that comes.
    Tunnel,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) group: GroupIndex,
    pub(super) lane: LaneId,
    pub(super) usage: Usage,
    /// The user whose login it proves.
    pub(super) proves: Option<Box<[u8]>>,
    /// The command for its login.
    pub(super) login_by: LoginBy,
    pub(super) state: State,
    /// How it is to be opened, until its turn comes.
    pub(super) plan: Option<Box<OpenPlan>>,
    /// In no list any more: takes no new requests, or only those of its owner, and closes after
    /// the last reply.
    pub(super) retired: bool,
    pub(super) pipeline: Pipeline<Ticket>,
    pub(super) scanner: ReplyScanner,
    /// Bytes of a reply that is not whole; empty and without memory otherwise.
    pub(super) input: Vec<u8>,
    /// Bytes of `input` that the scanner has seen.
    pub(super) scanned: usize,
    /// Clients that wait for it to open or to have room.
    pub(super) waiters: Vec<ClientKey>,
    /// Clients that do not read while this link has bytes for them.
    pub(super) throttled_by: Vec<ClientKey>,
    /// When it was first throttled; stays. A shared one gets no new requests from then on, and its
    /// clients have one time for all that it owes, however often it is read from in between. On
    /// another nobody waits but who throttles it.
    pub(super) throttled_at: Option<Time>,
    /// What has passed of the reply that comes in pieces.
    pub(super) passed: Passed,
    /// When it was last read from again after being throttled.
    pub(super) relieved_at: Option<Time>,
    /// Confirmations already seen of the subscription that is the oldest in flight.
    pub(super) confirmed: u32,
    /// What the subscriptions in flight begin with.
    pub(super) begun: Begun,
    /// Requests in flight whose replies count clients. Some may have had another end: there are no
    /// more than so many.
    pub(super) counting: u32,
    pub(super) dirty: bool,
    /// When it last had a reply, or was last given work after being idle.
    pub(super) heard_at: Time,
    /// Whether its silence has been reported.
    pub(super) suspected: bool,
    /// Since when it stays only for the end of what waits at a master that was left.
    pub(super) left: Option<Time>,
    /// Offset in its output below which it is known which reads are late.
    pub(super) late_upto: u64,
    /// What the node calls it, if it may carry writes and the node has told.
    pub(super) connection: Option<Box<Connection>>,
    /// When it was opened.
    pub(super) opened_at: Time,
    /// The scripts that its replica was given.
    pub(super) scripts: Option<Box<Brought>>,
    /// How often who is let in may have changed before it was begun.
    pub(super) changes: u32,
    /// Whether it is on its way to somebody else.
    pub(super) lending: Lending,
}

/// A reply that comes in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passed {
    whose: Option<(ClientKey, Seq)>,
    bytes: usize,
}

impl Passed {
    /// Adds a piece. Returns the bytes so far.
    pub(super) fn add(&mut self, whose: (ClientKey, Seq), bytes: usize) -> usize {
        if self.whose != Some(whose) {
            *self = Self {
                whose: Some(whose),
                bytes: 0,
            };
        }
        self.bytes += bytes;
        self.bytes
    }
}

/// What a handshake has found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// The node's answer to `HELLO`, if it understands it.
    pub hello: Option<HelloFacts>,
    /// What the node calls the connection, if it may carry writes and the node tells.
    pub connection: Option<Connection>,
}

/// Why a link could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// No connection, or no handshake in time.
    Unreachable(ConnectStage),
    /// The node has another role than asked for.
    WrongRole,
    /// The node is not ready: it loads its data, has lost its master, or is a replica that runs a
    /// script.
    NotReady,
    /// The node refused the login, the protocol or the database with this error line.
    Refused(ConnectStage, Box<[u8]>),
    /// The node wants a login, and there was none.
    LoginWanted {
        /// What it said to `ROLE`, as it does to most commands.
        said: Box<[u8]>,
        /// What it said to `HELLO`.
        said_to_hello: Box<[u8]>,
    },
}

impl Link {
    pub(super) fn new(group: GroupIndex, lane: LaneId, usage: Usage, now: Time) -> Self {
        Self {
            group,
            lane,
            usage,
            proves: None,
            login_by: LoginBy::default(),
            state: State::Opening,
            plan: None,
            retired: false,
            pipeline: Pipeline::new(),
            scanner: ReplyScanner::default(),
            input: Vec::new(),
            scanned: 0,
            waiters: Vec::new(),
            throttled_by: Vec::new(),
            throttled_at: None,
            passed: Passed::default(),
            relieved_at: None,
            confirmed: 0,
            begun: Begun::default(),
            counting: 0,
            dirty: false,
            heard_at: now,
            suspected: false,
            left: None,
            late_upto: 0,
            connection: None,
            opened_at: now,
            scripts: None,
            changes: 0,
            lending: Lending::No,
        }
    }

    /// Whether it takes requests of every client that it fits.
    pub(super) const fn accepts(&self) -> bool {
        !self.retired
    }

    /// Whether a client has it for itself.
    pub(super) const fn is_owned(&self) -> bool {
        matches!(
            self.usage,
            Usage::Leased(Some(_)) | Usage::Proof(_) | Usage::Target(_)
        )
    }

    /// Whether it was retired and owes nobody anything.
    pub(super) fn is_done(&self) -> bool {
        self.retired && !self.is_owned() && self.pipeline.is_empty()
    }
}
