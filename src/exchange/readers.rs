//! Floor 4. Which replica reads for a client of this worker.
//!
//! ```text
//!  reads in flight on a replica's link?   the next one joins them, so that replies come in order
//!  a replica of its own (spread client)?  that one, unless it is overloaded or not good enough for
//!     │                                   this read: then another one for this read alone
//!     │ none, or it is gone, or has more clients than its share
//!     ▼
//!  choose (see `route`)                   by clients if it is to be kept, else by the reads in
//!                                         flight
//! ```

use std::time::Duration;

use crate::exchange::client::Client;
use crate::exchange::link::{MaybeNode, NodeId};
use crate::exchange::node::{Group, Node};
use crate::exchange::outliers::{Ejected, Faults, Pace};
use crate::route::{self, Candidate, Dice};
use crate::types::{NodeAddr, Time};

/// Weight of a replica for which none is given, and the greatest there is.
pub const WEIGHT_MAX: u8 = 100;

/// How long a replica that has come (back) has less than its share: its weight grows from a tenth
/// to the whole. Its connections, its caches and its processor need not take everything at once.
const SLOW_START: Duration = Duration::from_secs(10);

/// Requests in flight to a client's own replica up to which nobody looks whether others have fewer.
const OVERLOADED_ABOVE: u32 = 64;
/// How many times as much for its weight as the least loaded other one it may have in flight.
const OVERLOAD_RATIO: u64 = 4;

/// How replicas are chosen.
#[derive(Clone, Debug)]
pub struct ReaderSettings {
    /// For how long a choice holds.
    pub spread: Spread,
    /// Replicas with another weight than [`WEIGHT_MAX`]; 0 is for none at all.
    pub weights: Vec<(NodeAddr, u8)>,
    /// Reads per second that this worker may send to the master because no replica is healthy;
    /// `None`: all.
    pub fallback: Option<u32>,
}

/// For how long a choice holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// A client keeps its replica.
    #[default]
    Client,
    /// Each read may go to another one.
    Request,
}

impl Default for ReaderSettings {
    fn default() -> Self {
        Self {
            spread: Spread::Client,
            weights: Vec::new(),
            fallback: None,
        }
    }
}

impl ReaderSettings {
    fn weight(&self, addr: &NodeAddr) -> u8 {
        let mut weights = self.weights.iter();
        let found = weights.find(|(node, _)| node == addr);
        found.map_or(WEIGHT_MAX, |(_, weight)| *weight)
    }
}

/// A node as one that reads.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) weight: u8,
    distance: u8,
    /// Whether the picture lists it as a replica.
    pub(super) listed: bool,
    /// Whether reads may be sent to it now.
    readable: bool,
    /// Since when it is listed, or no outlier any more.
    pub(super) since: Time,
    /// Clients whose own replica it is.
    clients: u32,
    /// Those of them that are to choose anew.
    surplus: u32,
    /// Reads that it has answered since they were last counted.
    pub(super) reads: u64,
    pub(super) pace: Pace,
    pub(super) faults: Faults,
    pub(super) ejected: Ejected,
}

/// What replicas are compared by.
#[derive(Clone, Copy)]
enum Load {
    /// Clients that keep them.
    Clients,
    /// Requests in flight.
    InFlight,
}

impl Reader {
    pub(super) fn new(settings: &ReaderSettings, addr: &NodeAddr) -> Self {
        Self {
            weight: settings.weight(addr),
            distance: 0,
            listed: false,
            readable: false,
            since: Time::ZERO,
            clients: 0,
            surplus: 0,
            reads: 0,
            pace: Pace::default(),
            faults: Faults::default(),
            ejected: Ejected::default(),
        }
    }

    /// For another node in the place of this one, of which the clients of the former do not know.
    pub(super) fn succeed(&mut self, former: &Self) {
        self.clients = former.clients;
    }

    /// It has answered a read, in this time.
    #[inline]
    pub(super) fn replied(&mut self, took: Duration) {
        self.reads += 1;
        self.pace.note(took);
    }

    /// Whether a client may have it for its own.
    pub(super) const fn is_member(&self) -> bool {
        self.listed && self.weight > 0 && self.ejected.until.is_none()
    }

    /// Its weight now: the configured one times ten when its slow start is over.
    fn share(&self, now: Time) -> u32 {
        let (age, whole) = (now.since(self.since), SLOW_START.as_millis());
        let tenths = (age.as_millis() * 10 / whole).clamp(1, 10);
        u32::from(self.weight) * u32::try_from(tenths).unwrap_or(10)
    }

    fn is_warm(&self, now: Time) -> bool {
        now.since(self.since) >= SLOW_START
    }

    /// It begins anew, with nothing held against it.
    pub(super) fn start(&mut self, now: Time) {
        self.since = now;
        self.pace = Pace::default();
        self.faults = Faults::default();
        self.ejected.until = None;
    }
}

impl Group {
    /// Takes which nodes the picture lists as replicas, and works out which of them reads may be
    /// sent to now.
    pub(super) fn admit_readers(&mut self, replicas: &[NodeId], now: Time) {
        let distances = self.snapshot.distances.clone();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let place = replicas.iter().position(|id| id.0 == at);
            let reader = &mut node.reader;
            if place.is_some() && !reader.listed {
                reader.start(now);
                reader.ejected.times = 0;
            }
            reader.listed = place.is_some();
            let distance = place.and_then(|place| distances.get(place));
            reader.distance = distance.copied().unwrap_or(0);
        }
        let some = |serves: fn(&Reader) -> bool| -> Vec<NodeId> {
            let ids = replicas.iter().copied();
            let reader = |id: NodeId| self.nodes.get(id.0).map(|node| &node.reader);
            ids.filter(|id| self.is_reachable(*id, now) && reader(*id).is_some_and(serves))
                .collect()
        };
        let mut readable = some(Reader::is_member);
        if readable.is_empty() {
            readable = some(|reader| reader.weight > 0);
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.reader.readable = readable.contains(&NodeId(at));
        }
        self.readable = readable;
    }

    /// The replica for the next read of a client, whose last one went to `cached`; `None` if none
    /// is `eligible`.
    pub(super) fn pick_reader(
        &mut self,
        client: &mut Client,
        cached: Option<NodeId>,
        eligible: impl Fn(&Node) -> bool,
        (dice, now): (&mut Dice, Time),
    ) -> Option<NodeId> {
        let serves = |group: &Self, id: NodeId| {
            let node = group.nodes.get(id.0);
            node.is_some_and(|node| node.reader.readable && eligible(node))
        };
        if client.replica_out > 0
            && let Some(id) = cached.filter(|id| serves(self, *id))
        {
            return Some(id);
        }
        if self.settings.readers.spread == Spread::Request {
            return self.choose_reader(Load::InFlight, &eligible, (dice, now));
        }
        if let Some(id) = client.reader.get()
            && let Some(node) = self.nodes.get_mut(id.0)
            && node.reader.is_member()
        {
            if node.reader.surplus > 0 {
                node.reader.surplus -= 1;
            } else if serves(self, id) && !self.is_overloaded(id) {
                return Some(id);
            } else {
                return self.choose_reader(Load::InFlight, &eligible, (dice, now));
            }
        }
        self.leave_reader(client);
        let chosen = self.choose_reader(Load::Clients, &eligible, (dice, now))?;
        if let Some(node) = self.nodes.get_mut(chosen.0) {
            node.reader.clients += 1;
            client.reader = MaybeNode::new(chosen);
        }
        Some(chosen)
    }

    /// Whether a client's next read goes where its last one went, without looking at any other
    /// replica.
    #[inline]
    pub(super) fn stays_with(&self, client: &Client, id: NodeId) -> bool {
        let Some(node) = self.nodes.get(id.0) else {
            return false;
        };
        let reader = &node.reader;
        let joins = client.replica_out > 0;
        let keeps = || {
            let own = client.reader == MaybeNode::new(id);
            own && reader.surplus == 0 && node.in_flight <= OVERLOADED_ABOVE
        };
        reader.readable && (joins || keeps())
    }

    /// A client has no replica of its own any more.
    pub(super) fn leave_reader(&mut self, client: &mut Client) {
        if let Some(id) = std::mem::take(&mut client.reader).get()
            && let Some(node) = self.nodes.get_mut(id.0)
        {
            node.reader.clients = node.reader.clients.saturating_sub(1);
        }
    }

    /// A client that has a replica of its own keeps this one from now on.
    pub(super) fn move_reader(&mut self, client: &mut Client, id: NodeId) {
        if client.reader == MaybeNode::default() {
            return;
        }
        self.leave_reader(client);
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.reader.clients += 1;
            client.reader = MaybeNode::new(id);
        }
    }

    fn choose_reader(
        &mut self,
        load: Load,
        eligible: &impl Fn(&Node) -> bool,
        (dice, now): (&mut Dice, Time),
    ) -> Option<NodeId> {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let readable = self.readable.iter();
        let nodes = readable.filter_map(|id| Some((*id, self.nodes.get(id.0)?)));
        let able = nodes.filter(|(_, node)| eligible(node));
        candidates.extend(able.map(|(id, node)| node.candidate(id, load, now)));
        let chosen = route::choose(&mut candidates, dice);
        self.candidates = candidates;
        chosen
    }

    /// Whether others, no further away, have far less in flight than a client's own replica.
    fn is_overloaded(&self, id: NodeId) -> bool {
        let Some(own) = self.nodes.get(id.0) else {
            return false;
        };
        let by =
            |node: &Node, other: &Node| u64::from(node.in_flight) * u64::from(other.reader.weight);
        let idler = |other: &NodeId| {
            let other = self.nodes.get(other.0);
            other.is_some_and(|other| {
                let near = other.reader.distance <= own.reader.distance;
                near && by(own, other) > OVERLOAD_RATIO * by(other, own)
            })
        };
        own.in_flight > OVERLOADED_ABOVE
            && self
                .readable
                .iter()
                .any(|other| *other != id && idler(other))
    }

    /// Lets clients choose anew where a replica has more of them than its share: another one came,
    /// came back, or is nearer.
    pub(super) fn share_out(&mut self, now: Time) {
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.clear();
        let readable = self.readable.iter();
        let nodes = readable.filter_map(|id| Some((*id, self.nodes.get(id.0)?)));
        let members = nodes.filter(|(_, node)| node.reader.is_member());
        candidates.extend(members.map(|(id, node)| node.candidate(id, Load::Clients, now)));
        let clients: u64 = candidates.iter().map(|it| u64::from(it.load)).sum();
        for candidate in &candidates {
            // Those further away are left altogether.
            self.set_surplus(candidate.id, candidate.load);
        }
        route::keep_nearest(&mut candidates);
        let whole: u64 = candidates.iter().map(|it| u64::from(it.weight)).sum();
        for candidate in &candidates {
            let fair = (clients * u64::from(candidate.weight)).div_ceil(whole.max(1));
            // An eighth more is no reason to move.
            let most = u32::try_from(fair + fair / 8).unwrap_or(u32::MAX);
            self.set_surplus(candidate.id, candidate.load.saturating_sub(most));
        }
        self.candidates = candidates;
    }

    fn set_surplus(&mut self, id: NodeId, surplus: u32) {
        if let Some(node) = self.nodes.get_mut(id.0) {
            node.reader.surplus = surplus;
        }
    }
}

impl Node {
    fn candidate(&self, id: NodeId, load: Load, now: Time) -> Candidate<NodeId> {
        Candidate {
            id,
            distance: self.reader.distance,
            warm: self.reader.is_warm(now),
            weight: self.reader.share(now),
            load: match load {
                Load::Clients => self.reader.clients,
                Load::InFlight => self.in_flight,
            },
        }
    }
}
