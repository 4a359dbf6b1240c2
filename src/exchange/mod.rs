//! Floor 4. The switchboard of one worker: its clients' sessions, the links to the nodes, and what
//! is placed where. Pure: bytes and events come in as values with the time, bytes and actions go
//! out. Knows no sockets, tasks or clocks; the worker moves the bytes.
//!
//! ```text
//!  client_bytes ──► decode ──► dispatch ──► route ──► Link.pipeline ──► unwritten / written
//!                                 │ cannot be placed now: Wait
//!                                 ▼
//!                   the client stops here: parses no further, reads little more
//!
//!  link_bytes ──► scan ──► Ticket ──► Client.replies (request order) ──► output / took
//!  link_lost  ──► written, may write: UNCERTAIN │ else: Client.again, placed anew first
//!                 overdue: its node is to end it, and UNCERTAIN waits a moment for that
//!  topology   ──► held clients resume, links to nodes that were left are lost or drained
//!  every input ─► settle: clients whose wait is over go on, in order; nothing else resumes one
//! ```
//!
//! After each input the caller performs what [`Exchange::poll_action`] gives, writes the links of
//! [`Exchange::poll_dirty_link`] and the clients of [`Exchange::poll_dirty_client`].

mod admission;
mod answers;
mod attending;
mod audience;
mod begun;
mod bulky;
mod busy;
mod cleaning;
mod client;
mod demotion;
mod detour;
mod dispatch;
mod effects;
mod fallback;
mod fencing;
mod gate;
mod hedging;
mod hello;
mod hold;
mod hub;
mod inside;
mod intake;
mod kept;
mod kept_out;
mod lease;
mod link;
mod lookup;
mod losses;
mod marks;
mod messages;
mod node;
mod objections;
mod outliers;
mod output;
mod overtaking;
mod pause;
mod pieces;
mod pinned;
mod portraits;
mod pubsub;
mod read_only;
mod readers;
mod reading;
mod recall;
mod redirection;
mod refusals;
mod rights;
mod roll;
mod scripts;
mod session_commands;
mod settings;
mod slab;
mod spares;
mod standing;
mod switching;
#[cfg(test)]
mod tests;
mod ticket;
mod tracking;
mod transaction;
mod tunnel;
mod upload;
mod waiting;
mod warm;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::command::Table;
use crate::fence;
use crate::route::Dice;
use crate::session::{Login, LoginBy};
use crate::telemetry::Counts;
use crate::topology::{ReportKind, Snapshot};
use crate::types::{NodeAddr, Protocol, Time};

pub use admission::Changes;
pub use answers::Violation;
use attending::Attending;
pub use audience::Audience;
pub use bulky::Bulky;
pub use busy::Busy;
use client::Client;
pub use client::ClientKey;
use detour::Detours;
use fencing::Fencing;
use link::Link;
pub use link::{LinkKey, OpenFailure, Opened, Role};
pub use losses::Loss;
use node::Group;
pub use pause::Pause;
pub use readers::{ReaderSettings, Spread, WEIGHT_MAX};
use redirection::Redirection;
use roll::Roll;
pub use roll::{Answer, CALLS_MAX, Question};
pub use scripts::Scripts;
use scripts::Seen;
pub use settings::{GroupSettings, Settings};
pub use slab::Place;
use slab::Slab;
use spares::Spares;

/// Index of a master group within the process.
pub type GroupIndex = usize;

/// All conversations of one worker. See the module.
#[derive(Debug)]
pub struct Exchange {
    settings: Settings,
    groups: Vec<Group>,
    clients: Slab<ClientKey, Client>,
    links: Slab<LinkKey, Link>,
    actions: VecDeque<Action>,
    dirty_links: Vec<LinkKey>,
    dirty_clients: Vec<ClientKey>,
    /// Clients that an input has given replies or lost requests; looked at once, at its end.
    touched: Vec<ClientKey>,
    /// Clients with more unread output than allowed, and some that had; seen through at each tick.
    stalled: Vec<ClientKey>,
    /// Clients that attend to their master.
    attending: Vec<Attending>,
    /// Requests of links that are being ended at their nodes.
    fencing: Vec<Fencing>,
    /// Questions about clients.
    roll: Roll,
    /// Invalidations that go to other clients than who reads.
    redirection: Redirection,
    /// Clients whose transaction is being begun anew; some may be done.
    renewing: Vec<ClientKey>,
    /// Memory for clients that need some for a moment.
    spares: Spares,
    /// Where an inline command is rewritten.
    inline: Vec<u8>,
    /// Where replies of our own are composed.
    scratch: Vec<u8>,
    /// Scripts that are surely known.
    seen: Seen,
    /// The generation of writes for what is being read from a node.
    generation: u32,
    /// Reads that are asked twice for the long replies before them.
    detours: Detours,
    /// Links that are not open yet.
    opening: usize,
    /// Those among them whose turn to be opened has not come.
    queued: usize,
    dice: Dice,
    /// Whether reads of any group are hedged.
    hedges: bool,
    /// When time was last looked at.
    ticked_at: Time,
    stopping: Stopping,
}

/// Whether the end has begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stopping {
    /// It has not.
    #[default]
    No,
    /// What was placed is answered, nothing else is placed.
    Finishing,
    /// Nothing is placed, and nothing more is waited for.
    Abandoning,
}

impl Stopping {
    /// Whether a request is not placed any more; `new`: it never was.
    #[inline]
    const fn refuses(self, new: bool) -> bool {
        match self {
            Self::No => false,
            Self::Finishing => new,
            Self::Abandoning => true,
        }
    }
}

/// What the worker has to do.
#[derive(Debug)]
#[must_use = "an action not performed leaves clients waiting for its outcome"]
pub enum Action {
    /// Connect and shake hands; answer with [`Exchange::link_opened`] or
    /// [`Exchange::link_refused`].
    Open(LinkKey, OpenPlan),
    /// Close the link's socket, if it has one, and forget the link.
    Close(LinkKey),
    /// Tell the control plane.
    Report(GroupIndex, ReportKind),
    /// Have this connection ended at its node; if a link is named, answer with
    /// [`Exchange::fenced`].
    Fence(GroupIndex, fence::Request, Option<LinkKey>),
    /// Put this to [`Exchange::answer_roll`] of every worker, or, if it is not for all, of this
    /// one; give each answer to [`Exchange::roll_answered`].
    Ask(Question),
}

/// How to open a link.
#[derive(Clone, Debug)]
pub struct OpenPlan {
    /// The group it belongs to.
    pub group: GroupIndex,
    /// Node to connect to.
    pub node: NodeAddr,
    /// Role that the node must have.
    pub role: Role,
    /// The login that goes first, if any.
    pub login: Option<Login>,
    /// The command for it.
    pub login_by: LoginBy,
    /// `HELLO` with this version.
    pub protocol: Protocol,
    /// `SELECT`, unless 0.
    pub database: u32,
}

impl Exchange {
    /// No clients, no links, nothing known of any group. `seed` is the worker's chance.
    pub fn new(settings: Settings, groups: Vec<GroupSettings>, seed: u64) -> Self {
        let table = Table::builtin();
        let hedges = groups.iter().any(|group| group.hedge_reads);
        let group = |settings: GroupSettings| Group::new(settings, Arc::clone(&table));
        Self {
            seen: Seen::new(Arc::clone(&settings.scripts)),
            settings,
            groups: groups.into_iter().map(group).collect(),
            clients: Slab::new(),
            links: Slab::new(),
            actions: VecDeque::new(),
            dirty_links: Vec::new(),
            dirty_clients: Vec::new(),
            touched: Vec::new(),
            stalled: Vec::new(),
            attending: Vec::new(),
            fencing: Vec::new(),
            roll: Roll::default(),
            redirection: Redirection::default(),
            renewing: Vec::new(),
            spares: Spares::default(),
            inline: Vec::new(),
            scratch: Vec::new(),
            generation: 0,
            detours: Detours::default(),
            opening: 0,
            queued: 0,
            dice: Dice::new(seed),
            hedges,
            ticked_at: Time::ZERO,
            stopping: Stopping::No,
        }
    }

    /// What is counted for a group, for the worker to publish, which empties it; the gauges are
    /// those of this moment.
    pub fn counts(&mut self, group: GroupIndex) -> Option<&mut Counts> {
        let held = i64::try_from(self.held_count(group)).unwrap_or(i64::MAX);
        self.publish_hedging(group);
        let group = self.groups.get_mut(group)?;
        group.counts.held_clients = held;
        group.count_nodes();
        Some(&mut group.counts)
    }

    /// Clients connected.
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// The next thing to do, until `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next link with bytes to write, each once.
    pub fn poll_dirty_link(&mut self) -> Option<LinkKey> {
        self.dirty_links.pop()
    }

    /// The next client with output to write or with its end reached, each once.
    pub fn poll_dirty_client(&mut self) -> Option<ClientKey> {
        while let Some(key) = self.dirty_clients.pop() {
            if let Some(client) = self.clients.get_mut(key) {
                client.dirty = false;
                return Some(key);
            }
        }
        None
    }

    /// The picture that a group's clients are served by.
    pub fn snapshot(&self, group: GroupIndex) -> Option<&Arc<Snapshot>> {
        self.groups.get(group).map(|group| &group.snapshot)
    }

    /// Takes a table overlaid with what the master knows.
    pub fn commands(&mut self, group: GroupIndex, table: Arc<Table>) {
        let Some(of) = self.groups.get_mut(group) else {
            return;
        };
        let former = std::mem::replace(&mut of.table, table);
        for (_, client) in self.clients.iter_mut() {
            let known = former.specs().get(usize::from(client.command));
            if client.group == group
                && let Some(known) = known
            {
                let now = of.table.get(&known.name);
                client.command = now.map_or(client::NO_COMMAND, |spec| spec.number);
            }
        }
    }

    /// When [`Exchange::tick`] has something to do, at the latest. `None`: nothing before the next
    /// input.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        let waits = |group: &Group| {
            !group.held.is_empty()
                || !group.gate.is_empty()
                || !group.untracked.is_empty()
                || group.lacks_hub()
                || !group.provers.is_empty()
                || group.is_backing_off()
                || group.is_busy()
        };
        let waited_for = !self.stalled.is_empty()
            || !self.fencing.is_empty()
            || !self.roll.is_empty()
            || !self.redirection.is_idle();
        let busy = self.opening > 0 || waited_for;
        if self.hedges
            && let Some(due) = self.hedging_due(now)
        {
            return Some(due);
        }
        if busy || self.groups.iter().any(waits) {
            Some(now + self.settings.tick)
        } else if self.links.len() > 0 {
            Some(now + self.settings.idle)
        } else {
            None
        }
    }
}
