//! Floor 4. One link for each login, on which a group's clients hear together what is published at
//! the master: each name is subscribed to once, however many clients listen.
//!
//! ```text
//!   SUBSCRIBE a    ──► hub ──► master      confirmed there: its client hears a from now on
//!   UNSUBSCRIBE a  ──► hub ──► master      asked there for a name that nobody hears, and answered:
//!                                          what was published before is heard, its client hears a
//!                                          no more; who hears it alone ends it there before that
//!   message on a   ◄── hub ◄── master      goes to all who hear a
//! ```
//!
//! The server's confirmations decide who hears what, and each client's are written here, with its
//! own count. A link that is lost is made again, with all names that anybody hears, without a word
//! to anybody. A name that the server then refuses ends those who hear it: they would wait for
//! messages that never come. What is on its way, and an end that the server refuses, is in
//! `begun.rs`.
//!
//! Nobody throttles a hub: it is always read. A client that does not keep up is closed when it has
//! left too much unread (as Redis does, `client-output-buffer-limit pubsub`).
//!
//! The link speaks RESP3 where the server does: replies may come among messages there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::command::Leased;
use crate::exchange::audience::Audience;
use crate::exchange::client::Ending;
use crate::exchange::link::{LaneId, Link, NodeId, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::node::Group;
use crate::exchange::ticket::{Purpose, Subscription, Ticket};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role};
use crate::resp::encode;
use crate::session::IdentityId;
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

/// A channel or a pattern.
pub(super) type Name = Box<[u8]>;

/// Names, and who hears each.
type Names = HashMap<Box<[u8]>, BTreeSet<ClientKey>>;

/// What the clients of one login hear.
#[derive(Debug)]
pub(super) struct Hub {
    identity: IdentityId,
    /// `None`: it is lost, or nobody has needed it yet.
    pub(super) link: Option<LinkKey>,
    channels: Names,
    patterns: Names,
    shards: Names,
    /// Until when no link is opened, after one was refused.
    pub(super) paused_until: Option<Time>,
    /// Names that the server would not end when it was told to, and when it is told again.
    pub(super) later: Option<(Time, Vec<(Leased, Name)>)>,
    audience: Arc<Audience>,
}

/// How long a hub's link is not opened again after the node has refused it for the moment.
pub(super) const REFUSED_PAUSE: Duration = Duration::from_secs(1);

impl Hub {
    fn new(identity: IdentityId, audience: Arc<Audience>) -> Self {
        Self {
            identity,
            link: None,
            channels: Names::new(),
            patterns: Names::new(),
            shards: Names::new(),
            paused_until: None,
            later: None,
            audience,
        }
    }

    /// Whether nobody hears anything.
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.patterns.is_empty() && self.shards.is_empty()
    }

    pub(super) fn of(&self, command: Leased) -> &Names {
        match command {
            Leased::Psubscribe | Leased::Punsubscribe => &self.patterns,
            Leased::Ssubscribe | Leased::Sunsubscribe => &self.shards,
            _ => &self.channels,
        }
    }

    fn of_mut(&mut self, command: Leased) -> &mut Names {
        match command {
            Leased::Psubscribe | Leased::Punsubscribe => &mut self.patterns,
            Leased::Ssubscribe | Leased::Sunsubscribe => &mut self.shards,
            _ => &mut self.channels,
        }
    }

    /// A client hears a name from now on. True if nobody did before.
    pub(super) fn join(&mut self, command: Leased, name: &[u8], client: ClientKey) -> bool {
        if let Some(clients) = self.of_mut(command).get_mut(name) {
            if clients.insert(client) {
                self.audience.join(command, name);
            }
            return false;
        }
        let clients = BTreeSet::from([client]);
        self.of_mut(command).insert(Box::from(name), clients);
        true
    }

    /// A client hears a name no more. True if nobody does any more.
    fn leave(&mut self, command: Leased, name: &[u8], client: ClientKey) -> bool {
        let names = self.of_mut(command);
        let Some(clients) = names.get_mut(name) else {
            return false;
        };
        if !clients.remove(&client) {
            return false;
        }
        let ends = clients.is_empty();
        if ends {
            names.remove(name);
        } else {
            self.audience.leave(command, name);
        }
        ends
    }

    /// Nobody hears a name any more. Returns who did.
    pub(super) fn end(&mut self, command: Leased, name: &[u8]) -> BTreeSet<ClientKey> {
        let clients = self.of_mut(command).remove(name).unwrap_or_default();
        self.audience.end(command, name, clients.len());
        clients
    }

    /// All that is heard, in order.
    fn names(&self) -> Vec<(Leased, Box<[u8]>)> {
        let kinds = [Leased::Subscribe, Leased::Psubscribe, Leased::Ssubscribe];
        let of = |kind| self.of(kind).keys().map(move |name| (kind, name.clone()));
        let mut names: Vec<_> = kinds.into_iter().flat_map(of).collect();
        names.sort_by(|one, other| one.1.cmp(&other.1));
        names
    }

    /// Whether it has to be made again, and may be.
    fn is_due(&self, now: Time) -> bool {
        let paused = self.paused_until.is_some_and(|until| now < until);
        self.link.is_none() && !self.is_empty() && !paused
    }
}

impl Group {
    pub(super) fn hub(&self, identity: IdentityId) -> Option<&Hub> {
        self.hubs.iter().find(|hub| hub.identity == identity)
    }

    pub(super) fn hub_mut(&mut self, identity: IdentityId) -> &mut Hub {
        let at = self.hubs.iter().position(|hub| hub.identity == identity);
        let at = at.unwrap_or_else(|| {
            let audience = Arc::clone(&self.settings.audience);
            self.hubs.push(Hub::new(identity, audience));
            self.hubs.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "it is there")]
        &mut self.hubs[at]
    }

    /// Whether a hub is to be made again, or told something again.
    pub(super) fn lacks_hub(&self) -> bool {
        self.hubs
            .iter()
            .any(|hub| hub.later.is_some() || (hub.link.is_none() && !hub.is_empty()))
    }

    /// The protocol of hubs.
    pub(super) fn hub_protocol(&self) -> Protocol {
        let known = [Protocol::Resp2, Protocol::Resp3].map(|it| self.hello(it).is_some());
        if known.contains(&true) {
            Protocol::Resp3
        } else {
            Protocol::Resp2
        }
    }

    /// The hub whose link this is.
    pub(super) fn hub_of(&mut self, key: LinkKey) -> Option<&mut Hub> {
        self.hubs.iter_mut().find(|hub| hub.link == Some(key))
    }

    /// A hub's link is gone.
    pub(super) fn hub_lost(&mut self, key: LinkKey) {
        if let Some(hub) = self.hub_of(key) {
            hub.link = None;
            hub.later = None;
        }
        self.hubs
            .retain(|hub| hub.link.is_some() || !hub.is_empty());
    }
}

impl Exchange {
    /// The link of the hub for a login, open or opening; a new one subscribes first to what is
    /// heard already. `None` if there is no master to have one with now.
    pub(super) fn hub_link(
        &mut self,
        index: GroupIndex,
        identity: IdentityId,
        now: Time,
    ) -> Option<LinkKey> {
        let group = self.groups.get_mut(index)?;
        let node = group.writable?;
        if let Some(link) = group.hub(identity).and_then(|hub| hub.link) {
            let here = self.links.get(link)?;
            return (here.lane.node == node && here.left.is_none()).then_some(link);
        }
        let may_open = group.may_open(node, now);
        let link = match self.lend_to_hub(index, (node, identity), now) {
            Some(lent) => lent.link()?,
            None if !may_open => return None,
            None => self.open_aside(index, (node, identity), Usage::Hub, now)?,
        };
        let hub = self.groups.get_mut(index)?.hub_mut(identity);
        hub.link = Some(link);
        for (command, name) in hub.names() {
            self.tell_hub(link, command, &name, now);
        }
        Some(link)
    }

    /// Opens a link to a master beside those for requests, on which the server tells what it has to
    /// tell: by pushes, if it can.
    pub(super) fn open_aside(
        &mut self,
        index: GroupIndex,
        (node, identity): (NodeId, IdentityId),
        usage: Usage,
        now: Time,
    ) -> Option<LinkKey> {
        let group = self.groups.get(index)?;
        let lane = LaneId {
            node,
            role: Role::Master,
            identity,
            database: 0,
            protocol: group.hub_protocol(),
            bulky: false,
        };
        let login = group.login(identity).cloned();
        Some(self.open(Link::new(index, lane, usage, now), login))
    }

    /// Sends a change of our own on a hub's link; nobody hears its confirmation. One name at a
    /// time: a server that refuses one refuses all that are asked for together.
    pub(super) fn tell_hub(&mut self, key: LinkKey, command: Leased, name: &[u8], now: Time) {
        let purpose = Purpose::Subscription(Subscription {
            command,
            names: 1,
            asked: false,
        });
        if let Some(link) = self.links.get_mut(key) {
            link.begun.add(command, name);
        }
        let mut raw = Vec::new();
        encode::request(&mut raw, &[word(command), name]);
        self.send_nobodys(key, purpose, &raw, now);
    }

    /// Sends something on a hub's link that no client has asked for.
    pub(super) fn send_nobodys(&mut self, key: LinkKey, purpose: Purpose, raw: &[u8], now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        if link.pipeline.is_empty() {
            link.heard_at = now;
        }
        let ticket = Ticket::nobodys(RequestClass::Leased, purpose, now);
        link.pipeline.push(ticket, raw);
        let wakes = !link.dirty && link.state != State::Opening;
        link.dirty |= wakes;
        let (index, node) = (link.group, link.lane.node);
        let group = self.groups.get_mut(index);
        if let Some(node) = group.and_then(|group| group.nodes.get_mut(node.0)) {
            node.in_flight += 1;
        }
        if wakes {
            self.dirty_links.push(key);
        }
    }

    /// A link with names and nothing in flight was silent for long: whether it still leads anywhere
    /// only its node can say.
    pub(super) fn look_after_hub(&mut self, key: LinkKey, now: Time) {
        let mut raw = Vec::new();
        encode::request(&mut raw, &[b"PING"]);
        self.send_nobodys(key, Purpose::Internal, &raw, now);
    }

    /// Whether somebody hears something over a link.
    pub(super) fn is_heard(&self, key: LinkKey, index: GroupIndex) -> bool {
        let group = self.groups.get(index);
        let mut hubs = group.into_iter().flat_map(|group| &group.hubs);
        hubs.any(|hub| hub.link == Some(key) && !hub.is_empty())
    }

    /// Makes hubs again that have lost their links.
    pub(super) fn restore_hubs(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let due: Vec<_> = group
            .hubs
            .iter()
            .filter(|hub| hub.is_due(now))
            .map(|hub| hub.identity)
            .collect();
        for identity in due {
            let _ = self.hub_link(index, identity, now);
        }
    }

    /// A name that nobody hears or has asked for is not subscribed to any more.
    pub(super) fn end_unheard(
        &mut self,
        key: LinkKey,
        (command, name): (Leased, &[u8]),
        now: Time,
    ) {
        if !self.is_wanted(key, (command, name)) {
            self.tell_hub(key, ends(command), name, now);
        } else if let Some(link) = self.links.get_mut(key) {
            link.begun.spare(name);
        }
    }

    /// Whether anybody hears a name on a link, or has asked for it.
    pub(super) fn is_wanted(&self, key: LinkKey, (command, name): (Leased, &[u8])) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let group = self.groups.get(link.group);
        let hub = group.and_then(|group| group.hub(link.lane.identity));
        let heard = hub.is_some_and(|hub| hub.of(command).contains_key(name));
        heard || link.begun.has(command, name)
    }

    /// How many bytes may be told on an open link without a question behind them having to wait;
    /// none if it is not open.
    pub(super) fn room_on_hub(&self, key: LinkKey) -> usize {
        let link = self
            .links
            .get(key)
            .filter(|link| link.state == State::Ready);
        let used = link.map_or(usize::MAX, |link| link.pipeline.pending_bytes());
        (self.settings.link_bytes / 2).saturating_sub(used)
    }

    /// Whether a client hears a name on a link, and nobody else does or is about to.
    pub(super) fn is_heard_alone(
        &self,
        key: LinkKey,
        client: ClientKey,
        (command, name): (Leased, &[u8]),
    ) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let group = self.groups.get(link.group);
        let hub = group.and_then(|group| group.hub(link.lane.identity));
        let clients = hub.and_then(|hub| hub.of(command).get(name));
        clients.is_some_and(|clients| clients.len() == 1 && clients.contains(&client))
            && !link.begun.has(command, name)
    }

    pub(super) fn close_hub(&mut self, key: LinkKey, now: Time) {
        self.lose(key, Loss::Left, now);
    }

    /// The node lets nobody in with this login, or not now.
    pub(super) fn hub_refused(&mut self, link: &Link, words: &[u8], now: Time) {
        let identity = link.lane.identity;
        let Some(group) = self.groups.get_mut(link.group) else {
            return;
        };
        let hub = group.hub_mut(identity);
        if is_passing(words) {
            hub.paused_until = Some(now + REFUSED_PAUSE);
            return;
        }
        self.end_listeners(link.group, identity);
    }

    /// Ends those who hear something with a login.
    pub(super) fn end_listeners(&mut self, index: GroupIndex, identity: IdentityId) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.hub(identity).is_none() {
            return;
        }
        let hub = group.hub_mut(identity);
        let clients: BTreeSet<_> = hub
            .names()
            .iter()
            .flat_map(|(command, name)| hub.end(*command, name))
            .collect();
        for client in clients {
            self.end(client, Ending::AfterReplies);
        }
    }

    /// A client hears these names no more.
    pub(super) fn leave_hub(
        &mut self,
        key: ClientKey,
        (index, identity): (GroupIndex, IdentityId),
        (names, ended): (&[(Leased, Name)], &BTreeSet<Name>),
        now: Time,
    ) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.hub(identity).is_none() {
            return;
        }
        let hub = group.hub_mut(identity);
        let unheard: Vec<_> = names
            .iter()
            .filter(|(command, name)| hub.leave(*command, name, key))
            .filter(|(_, name)| !ended.contains(name))
            .collect();
        let link = hub.link;
        for (command, name) in unheard {
            if let Some(link) = link {
                self.end_unheard(link, (*command, name), now);
            }
        }
        if link.is_none() {
            self.forget_hubs(index);
        }
    }

    /// A client's names are heard with another login from now on, as far as that may hear them.
    pub(super) fn move_to_hub(
        &mut self,
        key: ClientKey,
        (index, identity): (GroupIndex, IdentityId),
        names: &[(Leased, Box<[u8]>)],
        now: Time,
    ) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let hub = group.hub_mut(identity);
        let link = hub.link;
        for (command, name) in names {
            if let Some(group) = self.groups.get_mut(index) {
                group.hub_mut(identity).join(*command, name, key);
            }
            if let Some(link) = link {
                // Also where another hears it: that may be about to leave, and the server told.
                self.tell_hub(link, *command, name, now);
            }
        }
        self.restore_hubs(index, now);
    }

    fn forget_hubs(&mut self, index: GroupIndex) {
        if let Some(group) = self.groups.get_mut(index) {
            group
                .hubs
                .retain(|hub| hub.link.is_some() || !hub.is_empty());
        }
    }
}

/// How one of the six commands is called.
pub(super) const fn word(command: Leased) -> &'static [u8] {
    match command {
        Leased::Subscribe => b"SUBSCRIBE",
        Leased::Psubscribe => b"PSUBSCRIBE",
        Leased::Ssubscribe => b"SSUBSCRIBE",
        Leased::Punsubscribe => b"PUNSUBSCRIBE",
        Leased::Sunsubscribe => b"SUNSUBSCRIBE",
        _ => b"UNSUBSCRIBE",
    }
}

/// What ends what a command begins, and the other way round.
const fn ends(command: Leased) -> Leased {
    match command {
        Leased::Psubscribe | Leased::Punsubscribe => Leased::Punsubscribe,
        Leased::Ssubscribe | Leased::Sunsubscribe => Leased::Sunsubscribe,
        _ => Leased::Unsubscribe,
    }
}

pub(super) const fn begins(command: Leased) -> Leased {
    match command {
        Leased::Psubscribe | Leased::Punsubscribe => Leased::Psubscribe,
        Leased::Ssubscribe | Leased::Sunsubscribe => Leased::Ssubscribe,
        _ => Leased::Subscribe,
    }
}

/// Whether a node refuses for the moment only.
pub(super) fn is_passing(words: &[u8]) -> bool {
    let passing: [&[u8]; 3] = [b"-BUSY ", b"-LOADING ", b"-MASTERDOWN "];
    passing.iter().any(|code| words.starts_with(code))
}
