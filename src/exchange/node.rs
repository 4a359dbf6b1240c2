//! Floor 4. A master group and its nodes as one worker sees them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::command::Table;
use crate::consistency::Settled;
use crate::exchange::admission::Door;
use crate::exchange::fallback::Fallback;
use crate::exchange::gate::Gate;
use crate::exchange::hedging::Hedging;
use crate::exchange::hub::Hub;
use crate::exchange::link::{LaneId, NodeId, Role, Usage};
use crate::exchange::pause::Apart;
use crate::exchange::readers::Reader;
use crate::exchange::{ClientKey, GroupSettings, LinkKey};
use crate::route::Candidate;
use crate::session::{HelloFacts, IdentityId, Login};
use crate::telemetry::{Counts, NodeIndex, RequestClass};
use crate::topology::Snapshot;
use crate::types::{NodeAddr, Protocol, Time};

/// One master group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) settings: GroupSettings,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) table: Arc<Table>,
    pub(super) counts: Counts,
    pub(super) nodes: Vec<Node>,
    /// The master, if writes may be sent to it now.
    pub(super) writable: Option<NodeId>,
    /// Replicas that reads may be sent to now.
    pub(super) readable: Vec<NodeId>,
    /// Where those are put that a choice is made of.
    pub(super) candidates: Vec<Candidate<NodeId>>,
    /// What the master may serve in their place.
    pub(super) fallback: Fallback,
    /// Shared links that take requests.
    pub(super) lanes: HashMap<LaneId, LinkKey>,
    /// Leased links that nobody uses.
    pub(super) pool: HashMap<LaneId, Vec<LinkKey>>,
    /// Links that are opened before anybody needs them.
    pub(super) warming: Vec<LinkKey>,
    /// Clients that wait for a master, in the order in which they began to. Some may be gone, or
    /// not wait any more.
    pub(super) held: Vec<ClientKey>,
    /// Links that prove a login.
    pub(super) proofs: usize,
    /// Clients whose login is proven when others are done.
    pub(super) provers: VecDeque<ClientKey>,
    /// Clients for which what is tracked has to be made again.
    pub(super) untracked: Vec<ClientKey>,
    /// Over which link the master was asked last whether it is busy with a script.
    pub(super) prober: Option<LinkKey>,
    /// Writes that still get a link to themselves while they are paused.
    pub(super) apart: Apart,
    /// On which clients hear messages; few, one for each login.
    pub(super) hubs: Vec<Hub>,
    /// How the master takes clients that have not logged in.
    pub(super) door: Door,
    /// What links could not be turned to lately, and when that was said.
    pub(super) unturned: Vec<(LaneId, Time)>,
    /// The master's answers to `HELLO 2` and `HELLO 3`.
    pub(super) hello: [Option<HelloFacts>; 2],
    /// What a node says to `HELLO` where it wants a login, if any has said so.
    pub(super) hello_objection: Option<Box<[u8]>>,
    /// Proven logins with the number of sessions that have them; [`IdentityId`] `n` is entry `n-1`.
    pub(super) identities: Vec<(Option<Login>, usize)>,
    /// Whether `Quiet` has been reported for the present snapshot.
    pub(super) quiet: bool,
    /// Its reads that are sent twice, if any are.
    pub(super) hedging: Option<Box<Hedging>>,
    /// Replies of its master that are kept back.
    pub(super) gate: Gate,
}

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) addr: NodeAddr,
    pub(super) index: NodeIndex,
    /// Requests in flight to it.
    pub(super) in_flight: u32,
    /// Links to it, of any kind.
    pub(super) links: usize,
    /// Those of them that are open.
    pub(super) open: usize,
    /// Those that are being opened.
    pub(super) opening: usize,
    /// Those that are to be opened after these.
    pub(super) turns: Turns,
    /// Failed connections in a row.
    pub(super) failures: u32,
    /// Until when it is left alone.
    pub(super) retry_at: Option<Time>,
    /// Until when no further link to it is opened, while those that are open are used.
    pub(super) open_at: Option<Time>,
    /// Whether it may not have the scripts that clients have loaded, should it be the master.
    pub(super) lacks_scripts: bool,
    /// How far it is, as a replica, if anybody keeps account of that.
    pub(super) settled: Option<Arc<Settled>>,
    /// What it is as a replica.
    pub(super) reader: Reader,
    /// Whom it lets in no more, and when it said so.
    pub(super) kept_out: Vec<(IdentityId, Time)>,
}

/// Links in the order in which they are to be opened. Some may be gone.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Many clients wait for one of these, or it lets a client in.
    first: VecDeque<LinkKey>,
    /// One client waits for one of these.
    leased: VecDeque<LinkKey>,
}

impl Turns {
    pub(super) fn add(&mut self, key: LinkKey, usage: Usage) {
        match usage {
            Usage::Shared | Usage::Hub | Usage::Proof(_) | Usage::Leased(None) => {
                self.first.push_back(key);
            }
            Usage::Leased(Some(_)) | Usage::Target(_) => self.leased.push_back(key),
        }
    }

    pub(super) fn next(&mut self) -> Option<LinkKey> {
        let first = self.first.pop_front();
        first.or_else(|| self.leased.pop_front())
    }
}

impl Node {
    /// Whether a link to it may be opened now.
    pub(super) fn may_open(&self, now: Time) -> bool {
        self.open_at.is_none_or(|at| at <= now)
    }

    /// It has answered a request of this class, after this time.
    #[inline]
    pub(super) fn replied(&mut self, class: RequestClass, took: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if class == RequestClass::Read {
            self.reader.replied(took);
        }
    }

    /// Ends its pauses that are over by `now`. Returns whether there were any.
    pub(super) fn end_pauses(&mut self, now: Time) -> bool {
        let retry = self.retry_at.take_if(|at| *at <= now).is_some();
        let open = self.open_at.take_if(|at| *at <= now).is_some();
        retry || open
    }

    /// Ends its pauses. Returns whether there were any.
    pub(super) fn end_all_pauses(&mut self) -> bool {
        let retry = self.retry_at.take().is_some();
        let open = self.open_at.take().is_some();
        retry || open
    }
}

impl Group {
    pub(super) fn new(settings: GroupSettings, table: Arc<Table>) -> Self {
        let hedging = settings.hedge_reads.then(Box::default);
        Self {
            fallback: Fallback::new(settings.readers.fallback),
            settings,
            hedging,
            snapshot: Arc::new(Snapshot::unknown(Duration::from_secs(10))),
            table,
            counts: Counts::new(),
            nodes: Vec::new(),
            writable: None,
            readable: Vec::new(),
            candidates: Vec::new(),
            lanes: HashMap::new(),
            pool: HashMap::new(),
            warming: Vec::new(),
            held: Vec::new(),
            proofs: 0,
            provers: VecDeque::new(),
            untracked: Vec::new(),
            prober: None,
            apart: Apart::default(),
            hubs: Vec::new(),
            door: Door::default(),
            unturned: Vec::new(),
            hello: [None, None],
            hello_objection: None,
            identities: Vec::new(),
            quiet: true,
            gate: Gate::default(),
        }
    }

    /// The node with this address; a new one takes the place of a node that nobody needs.
    pub(super) fn node(&mut self, addr: &NodeAddr) -> NodeId {
        if let Some(at) = self.nodes.iter().position(|node| node.addr == *addr) {
            return NodeId(at);
        }
        let index = self.counts.node(addr);
        let stamps = self.settings.stamps.as_ref();
        let mut fresh = Node {
            addr: addr.clone(),
            index,
            in_flight: 0,
            links: 0,
            open: 0,
            opening: 0,
            turns: Turns::default(),
            failures: 0,
            retry_at: None,
            open_at: None,
            lacks_scripts: true,
            settled: stamps.map(|stamps| stamps.node(addr)),
            reader: Reader::new(&self.settings.readers, addr),
            kept_out: Vec::new(),
        };
        let snapshot = &self.snapshot;
        let needless = |node: &Node| node.links == 0 && !snapshot_names(snapshot, &node.addr);
        if let Some(at) = self.nodes.iter().position(needless)
            && let Some(node) = self.nodes.get_mut(at)
        {
            fresh.reader.succeed(&node.reader);
            let former = std::mem::replace(node, fresh);
            let counts = self.counts.at(former.index);
            counts.in_flight = 0;
            counts.reads += former.reader.reads;
            return NodeId(at);
        }
        self.nodes.push(fresh);
        NodeId(self.nodes.len() - 1)
    }

    /// Works out anew where requests may go.
    pub(super) fn refresh(&mut self, now: Time) {
        let snapshot = Arc::clone(&self.snapshot);
        let master = snapshot.writable_master().map(|addr| self.node(addr));
        self.writable = master.filter(|id| self.is_reachable(*id, now));
        let replicas: Vec<_> = snapshot
            .replicas
            .iter()
            .map(|addr| self.node(addr))
            .collect();
        self.admit_readers(&replicas, now);
    }

    /// Whether a link to a node may be opened now.
    pub(super) fn may_open(&self, id: NodeId, now: Time) -> bool {
        self.nodes.get(id.0).is_none_or(|node| node.may_open(now))
    }

    /// Whether a node that failed is left alone for a moment.
    pub(super) fn is_backing_off(&self) -> bool {
        let paused = |node: &Node| node.retry_at.is_some() || node.open_at.is_some();
        self.nodes.iter().any(paused)
    }

    pub(super) fn is_reachable(&self, id: NodeId, now: Time) -> bool {
        self.nodes
            .get(id.0)
            .is_some_and(|node| node.retry_at.is_none_or(|at| at <= now))
    }

    /// The login behind an identity; for anonymous clients the one that the operator lends them.
    pub(super) fn login(&self, identity: IdentityId) -> Option<&Login> {
        match identity.0.checked_sub(1) {
            None => self.settings.anonymous.as_ref(),
            Some(at) => self.entry(at).and_then(|(login, _)| login.as_ref()),
        }
    }

    fn entry(&self, at: u32) -> Option<&(Option<Login>, usize)> {
        self.identities.get(usize::try_from(at).ok()?)
    }

    /// The identity of a login that one more session has proven.
    pub(super) fn join_identity(&mut self, login: &Login) -> IdentityId {
        let same = |(known, _): &(Option<Login>, usize)| known.as_ref() == Some(login);
        let free = |(known, sessions): &(Option<Login>, usize)| known.is_none() && *sessions == 0;
        let at = self
            .identities
            .iter()
            .position(same)
            .or_else(|| self.identities.iter().position(free));
        let at = at.unwrap_or_else(|| {
            self.identities.push((None, 0));
            self.identities.len() - 1
        });
        if let Some((known, sessions)) = self.identities.get_mut(at) {
            *known = Some(login.clone());
            *sessions += 1;
        }
        IdentityId(u32::try_from(at + 1).unwrap_or(u32::MAX))
    }

    /// Notes that a session no longer has `identity`; true if nobody has it any more.
    pub(super) fn leave_identity(&mut self, identity: IdentityId) -> bool {
        let Some(at) = identity
            .0
            .checked_sub(1)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return false;
        };
        let Some((_, sessions)) = self.identities.get_mut(at) else {
            return false;
        };
        *sessions = sessions.saturating_sub(1);
        *sessions == 0
    }

    /// Sets the counts of what is in flight to each node, and counts what it has read.
    pub(super) fn count_nodes(&mut self) {
        for node in &self.nodes {
            self.counts.at(node.index).in_flight = 0;
        }
        for node in &mut self.nodes {
            let counts = self.counts.at(node.index);
            counts.in_flight += i64::from(node.in_flight);
            counts.reads += std::mem::take(&mut node.reader.reads);
        }
    }

    /// Whether anything is in flight to any node.
    pub(super) fn is_busy(&self) -> bool {
        self.nodes.iter().any(|node| node.in_flight > 0)
    }

    /// Whether anything is in flight to another node than the master.
    pub(super) fn is_reading(&self) -> bool {
        let master = self.writable.and_then(|id| self.nodes.get(id.0));
        let at_master = master.map_or(0, |node| node.in_flight);
        let all = self.nodes.iter().map(|node| node.in_flight);
        all.sum::<u32>() > at_master
    }

    /// Forgets a login that nobody has and no link uses.
    pub(super) fn forget_identity(&mut self, identity: IdentityId) {
        let at = identity
            .0
            .checked_sub(1)
            .and_then(|at| usize::try_from(at).ok());
        if let Some((login, 0)) = at.and_then(|at| self.identities.get_mut(at)) {
            *login = None;
            self.let_in(None, identity);
        }
    }

    /// The master's answer to `HELLO` in a protocol.
    pub(super) fn hello(&self, protocol: Protocol) -> Option<&HelloFacts> {
        let [two, three] = &self.hello;
        match protocol {
            Protocol::Resp2 => two.as_ref(),
            Protocol::Resp3 => three.as_ref(),
        }
    }

    /// Takes note of it.
    pub(super) fn set_hello(&mut self, protocol: Protocol, facts: HelloFacts) {
        let [two, three] = &mut self.hello;
        match protocol {
            Protocol::Resp2 => *two = Some(facts),
            Protocol::Resp3 => *three = Some(facts),
        }
    }

    /// The lane on `node` for what a session has set.
    pub(super) const fn lane_id(
        node: NodeId,
        role: Role,
        identity: IdentityId,
        (database, protocol): (u32, Protocol),
    ) -> LaneId {
        LaneId {
            node,
            role,
            identity,
            database,
            protocol,
            bulky: false,
        }
    }
}

/// Whether the picture speaks of a node.
fn snapshot_names(snapshot: &Snapshot, addr: &NodeAddr) -> bool {
    snapshot.master.as_ref() == Some(addr) || snapshot.replicas.contains(addr)
}
