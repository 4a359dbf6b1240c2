//! Floor 4. Clients whose login the master takes no more, while it keeps the connections that have
//! it: a user that was turned off or has another password, and whoever came before there was one.
//!
//! Redis lets those clients go on. Here they go on with the connections that there are, as no other
//! can be had: one that is everybody's becomes a client's own and the other way round, and what is
//! in another database or protocol is turned to the one that is needed.
//!
//! ```text
//!   shared, idle ──────────┐                       ┌─► MULTI …, BLPOP … of one client ──► pool
//!   shared, busy: withdrawn,                       │
//!     into the pool when idle ──► pool ─┬──────────┼─► shared, by those who wait for one
//!   a hub on which nobody hears ──────┘ └─ SELECT, │
//!                                          HELLO ──┘─► hub, if another is left
//! ```
//!
//! Who finds none free waits as for a master, for as long. After a moment a new connection is tried
//! again: the login may be good once more. When none is left, the clients are closed with the next
//! one that is refused: so a user is seen to be deleted.

use std::time::Duration;

use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::Multi;
use crate::exchange::link::{LaneId, Lending, Link, NodeId, State, Usage};
use crate::exchange::lookup::NoLane;
use crate::exchange::node::Group;
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode};
use crate::session::{HelloFacts, IdentityId};
use crate::types::{Protocol, Time};

/// How long nothing new is tried after a refusal.
const KEPT_OUT_FOR: Duration = Duration::from_secs(1);

/// What a client gets for whom no link may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lent {
    /// This link, in no list and with nothing in flight.
    Link(LinkKey),
    /// This one, when it is what it has to be.
    Turning(LinkKey),
    /// None for the moment.
    Nothing,
}

impl Lent {
    /// The link, if it can be used.
    pub(super) fn link(self) -> Option<LinkKey> {
        match self {
            Self::Link(key) => Some(key),
            Self::Turning(_) | Self::Nothing => None,
        }
    }
}

impl Group {
    /// A node has refused a login that it had taken before.
    pub(super) fn keep_out(&mut self, (node, identity): (NodeId, IdentityId), now: Time) {
        if let Some(node) = self.nodes.get_mut(node.0) {
            node.kept_out.retain(|(other, _)| *other != identity);
            node.kept_out.push((identity, now));
        }
    }

    /// Whether it has not taken it since.
    pub(super) fn keeps_out(&self, (node, identity): (NodeId, IdentityId)) -> bool {
        let node = self.nodes.get(node.0);
        node.is_some_and(|node| node.kept_out.iter().any(|(other, _)| *other == identity))
    }

    /// The same, for whoever would open a new link. After a moment one may, and the others wait
    /// for what comes of it.
    fn keeps_out_now(&mut self, (node, identity): (NodeId, IdentityId), now: Time) -> bool {
        let node = self.nodes.get_mut(node.0);
        let mut entries = node.into_iter().flat_map(|node| &mut node.kept_out);
        let Some((_, at)) = entries.find(|(other, _)| *other == identity) else {
            return false;
        };
        let is_over = now.since(*at) >= KEPT_OUT_FOR;
        if is_over {
            *at = now;
        }
        !is_over
    }

    /// A login was taken by a node, or nobody has it any more. Whether that is news.
    pub(super) fn let_in(&mut self, node: Option<NodeId>, identity: IdentityId) -> bool {
        let mut is_news = false;
        for (at, other) in self.nodes.iter_mut().enumerate() {
            if node.is_none_or(|node| node.0 == at) {
                let before = other.kept_out.len();
                other.kept_out.retain(|(other, _)| *other != identity);
                is_news |= other.kept_out.len() < before;
            }
        }
        is_news
    }

    /// Whether a link could not be turned to a lane a moment ago.
    fn is_hopeless(&mut self, lane: LaneId, now: Time) -> bool {
        self.unturned
            .retain(|(_, at)| now.since(*at) < KEPT_OUT_FOR);
        self.unturned.iter().any(|(other, _)| *other == lane)
    }

    /// Whether a node refuses anybody's login.
    fn keeps_anybody_out(&self) -> bool {
        self.nodes.iter().any(|node| !node.kept_out.is_empty())
    }
}

impl Exchange {
    /// A link for a lane that has none to a node that takes its login no more; `None`: it may. A
    /// link that is lent is nobody's and in no list.
    pub(super) fn lend(&mut self, index: GroupIndex, lane: LaneId, now: Time) -> Option<Lent> {
        let group = self.groups.get_mut(index)?;
        if !group.keeps_out_now((lane.node, lane.identity), now) {
            return None;
        }
        if lane.bulky || lane.role == Role::Replica {
            // What it is for can be had elsewhere.
            return Some(Lent::Nothing);
        }
        if let Some(pooled) = group.take_pooled(lane) {
            return Some(Lent::Link(pooled));
        }
        let hopeless = group.is_hopeless(lane, now);
        let turns = |link: &Link| link.group == index && link.lending == Lending::Turning(lane);
        let turning = self.links.iter().find(|(_, link)| turns(link));
        if let Some(key) = turning.map(|(key, _)| key) {
            return Some(Lent::Turning(key));
        }
        let Some((key, alike, idle)) = self.best_to_lend(index, lane) else {
            return Some(Lent::Nothing);
        };
        if !alike && hopeless {
            return Some(Lent::Nothing);
        }
        self.withdraw(key);
        if !idle {
            return Some(Lent::Nothing);
        }
        self.change_usage(key, Usage::Leased(None));
        if alike {
            return Some(Lent::Link(key));
        }
        if let Some(link) = self.links.get_mut(key) {
            link.lending = Lending::Turning(lane);
        }
        self.turn(key, now);
        Some(Lent::Turning(key))
    }

    /// Which link may serve a lane best: whether it is just like it, and has nothing in flight.
    fn best_to_lend(&self, index: GroupIndex, lane: LaneId) -> Option<(LinkKey, bool, bool)> {
        let group = self.groups.get(index)?;
        let is_kin = |other: &LaneId| {
            let (database, protocol) = (lane.database, lane.protocol);
            let as_asked = LaneId {
                database,
                protocol,
                bulky: false,
                ..*other
            };
            as_asked == lane
        };
        let shared = group.lanes.iter().map(|(lane, key)| (*lane, *key));
        let pools = group.pool.iter();
        let pooled = pools.flat_map(|(lane, keys)| keys.iter().map(|key| (*lane, *key)));
        let hub = group.hub(lane.identity).filter(|hub| hub.is_empty());
        let hub = hub.and_then(|hub| Some((hub.link?, self.links.get(hub.link?)?)));
        let hub = hub.filter(|(_, link)| link.pipeline.is_empty());
        let hub = hub.map(|(key, link)| (link.lane, key));
        let spare = shared.chain(pooled).chain(hub);
        let kin = spare.filter(|(other, _)| is_kin(other));
        let state = |(other, key): (LaneId, LinkKey)| {
            let link = self.links.get(key)?;
            let idle = link.pipeline.is_empty() && link.input.is_empty();
            let alike = LaneId {
                bulky: false,
                ..other
            } == lane;
            (link.state == State::Ready).then_some((key, alike, idle))
        };
        let all = kin.filter_map(state);
        // The keys make it the same one each time.
        all.max_by_key(|(key, alike, idle)| (*idle, *alike, std::cmp::Reverse(*key)))
    }

    /// Takes a link out of every list for good or for a while. Those who have requests on it get
    /// their replies; nobody sends anything there any more.
    fn withdraw(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.lending = Lending::Withdrawn;
        let (lane, index) = (link.lane, link.group);
        let waiters = std::mem::take(&mut link.waiters);
        if let Some(group) = self.groups.get_mut(index) {
            group.lanes.retain(|_, other| *other != key);
            group.leave_pool(lane, key);
            group.hub_lost(key);
        }
        self.suit_all(key);
        self.forget_lane(key);
        self.end_waits(key, &waiters);
    }

    /// A link that is in no list may have been for large values alone.
    fn suit_all(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            link.lane.bulky = false;
        }
    }

    /// No client's next request goes over a link because its last one did.
    fn forget_lane(&mut self, key: LinkKey) {
        for (_, client) in self.clients.iter_mut() {
            client.master_lane.take_if(|lane| *lane == key);
        }
    }

    /// A link that is in no list may have nothing in flight any more. If it can be had then, it
    /// lies in the pool. Whether it does.
    pub(super) fn give_back(&mut self, key: LinkKey, now: Time) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let stays = match link.lending {
            Lending::Withdrawn => !link.retired,
            Lending::PassedBy => self.is_needed(key),
            Lending::No | Lending::Cleaned(_) | Lending::Turning(_) => false,
        };
        if !stays || !link.pipeline.is_empty() {
            return false;
        }
        self.forget_lane(key);
        if let Some(link) = self.links.get_mut(key) {
            link.retired = false;
        }
        self.suit_all(key);
        self.change_usage(key, Usage::Leased(None));
        self.pool_or_close(key, now);
        true
    }

    /// Links with a login that others have gone past are the last that there are.
    pub(super) fn regain(&mut self, of: (GroupIndex, NodeId, IdentityId), now: Time) {
        let is_one = |link: &Link| link.is_with(of) && link.lending == Lending::PassedBy;
        let links = self.links.iter().filter(|(_, link)| is_one(link));
        let keys: Vec<_> = links.map(|(key, _)| key).collect();
        for key in keys {
            self.forget_lane(key);
            if let Some(link) = self.links.get_mut(key) {
                link.lending = Lending::Withdrawn;
                link.retired = false;
            }
            self.give_back(key, now);
        }
    }

    /// Whether no other link may be had in the place of one.
    pub(super) fn is_needed(&self, key: LinkKey) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let (index, lane) = (link.group, link.lane);
        let of = (index, lane.node, lane.identity);
        let others =
            |(other, link): (LinkKey, &Link)| other != key && link.is_with(of) && !link.retired;
        let Some(group) = self.groups.get(index).filter(|_| link.is_with(of)) else {
            return false;
        };
        // Where it is not known that others are refused, they may be.
        let may_be_refused = match lane.identity {
            IdentityId::ANONYMOUS => group.wants_login(),
            identity => self.has_sessions(index, identity),
        };
        group.keeps_out((lane.node, lane.identity))
            || (may_be_refused && !self.links.iter().any(others))
    }

    /// A link serves others from now on.
    fn change_usage(&mut self, key: LinkKey, usage: Usage) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.lending = Lending::No;
        let former = std::mem::replace(&mut link.usage, usage);
        let group = self.groups.get_mut(link.group);
        if let Some(group) = group
            && let Some(node) = group.nodes.get(link.lane.node.0)
        {
            let counts = group.counts.at(node.index);
            for (usage, one) in [(former, -1), (usage, 1)] {
                match usage {
                    Usage::Shared | Usage::Hub => counts.shared += one,
                    Usage::Leased(_) | Usage::Proof(_) | Usage::Target(_) => counts.leased += one,
                }
            }
        }
    }

    /// Makes what is lent everybody's whom it fits.
    pub(super) fn share(&mut self, lent: Lent, now: Time) -> Result<LinkKey, NoLane> {
        let key = match lent {
            Lent::Link(key) => key,
            Lent::Turning(key) => return Err(NoLane::Turning(key)),
            Lent::Nothing => return Err(NoLane::NotNow),
        };
        self.change_usage(key, Usage::Shared);
        let link = self.links.get_mut(key).ok_or(NoLane::NotNow)?;
        link.heard_at = now;
        let (lane, index) = (link.lane, link.group);
        if let Some(group) = self.groups.get_mut(index) {
            group.lanes.insert(lane, key);
        }
        Ok(key)
    }

    /// The same for those who hear what is published. `None`: a new link may be opened.
    pub(super) fn lend_to_hub(
        &mut self,
        index: GroupIndex,
        (node, identity): (NodeId, IdentityId),
        now: Time,
    ) -> Option<Lent> {
        let group = self.groups.get_mut(index)?;
        if !group.keeps_out_now((node, identity), now) {
            return None;
        }
        let lane = LaneId {
            node,
            role: Role::Master,
            identity,
            database: 0,
            protocol: group.hub_protocol(),
            bulky: false,
        };
        // One that only hears does without another; the others do not.
        let clients = self.clients.iter();
        let is_with_it = |group, other| (group, other) == (index, identity);
        let others = clients
            .filter(|(_, it)| is_with_it(it.group, it.session.identity))
            .nth(1);
        let links = self.links.iter();
        let of_it = |link: &Link| link.is_with((index, node, identity)) && !link.retired;
        let spares = links.filter(|(_, link)| of_it(link)).nth(1);
        if others.is_some() && spares.is_none() {
            // Who hears something already would wait for messages that never come.
            self.end_listeners(index, identity);
            return Some(Lent::Nothing);
        }
        let lent = self.lend(index, lane, now)?;
        if let Some(key) = lent.link() {
            self.change_usage(key, Usage::Hub);
        }
        Some(lent)
    }

    /// The lane to the master that fits a client; or its request is sent where it can be. An `Err`
    /// is what became of it.
    pub(super) fn find_or_borrow_lane(
        &mut self,
        job: Job,
        node: NodeId,
        (request, kind): (&Request<'_>, Kind),
    ) -> Result<LinkKey, Placed> {
        if self.is_in_doubt(job.key) {
            return Err(self.hold(job));
        }
        if self.has_only_its_own(job, node) {
            return Err(self.send_on_lease(job, request.raw(), kind));
        }
        if let Some(hub) = self.hub_instead(job, node) {
            return Err(self.send_in_order(hub, job, (request.raw(), kind)));
        }
        let client = self.clients.get(job.key).ok_or(Placed::Answered)?;
        let group = client.group;
        let lane = self.lane_of(job.key, node, Role::Master);
        let found = self.shared_link(group, lane.ok_or(Placed::Answered)?, job.now);
        found.map_err(|why| self.without_lane(job, why))
    }

    /// The link on which a client hears, where it may ask too and there is no other.
    fn hub_instead(&self, job: Job, node: NodeId) -> Option<LinkKey> {
        let client = self.clients.get(job.key)?;
        let group = self.groups.get(client.group)?;
        let of = (node, client.session.identity);
        let hub = group.hub(of.1).filter(|_| group.keeps_out(of))?.link?;
        let lane = self.lane_of(job.key, node, Role::Master)?;
        let fits = self.links.get(hub)?.lane == lane && lane.protocol == Protocol::Resp3;
        let alone = !group.lanes.contains_key(&lane) && !group.pool.contains_key(&lane);
        (fits && alone && self.is_open(hub)).then_some(hub)
    }

    /// Sends a request when none of its client's is in flight to the master over another link.
    fn send_in_order(&mut self, key: LinkKey, job: Job, (raw, kind): (&[u8], Kind)) -> Placed {
        if let Some(client) = self.clients.get_mut(job.key)
            && client.master_out > 0
            && client.master_link != Some(key)
        {
            client.wait = Wait::Order;
            return Placed::Waits;
        }
        self.send(key, job, raw, kind)
    }

    /// Whether a client has the only link that it can have for itself already.
    pub(super) fn has_only_its_own(&self, job: Job, node: NodeId) -> bool {
        let Some(client) = self.clients.get(job.key) else {
            return false;
        };
        let lease = client.lease.as_deref().filter(|it| it.multi == Multi::No);
        let Some(group) = self.groups.get(client.group).filter(|_| lease.is_some()) else {
            return false;
        };
        let own = lease.and_then(|lease| lease.link);
        let lane = self.lane_of(job.key, node, Role::Master);
        own.is_some_and(|own| self.is_open(own))
            && group.keeps_out((node, client.session.identity))
            && lane.is_some_and(|lane| !group.lanes.contains_key(&lane))
    }

    /// Asks for the next thing in which a link is not yet what it has to be.
    fn turn(&mut self, key: LinkKey, now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let Lending::Turning(lane) = link.lending else {
            return;
        };
        let mut raw = Vec::new();
        if link.lane.protocol == lane.protocol {
            let database = lane.database.to_string();
            encode::request(&mut raw, &[b"SELECT", database.as_bytes()]);
        } else {
            encode::request(&mut raw, &[b"HELLO", lane.protocol.version()]);
        }
        self.send_nobodys(key, Purpose::Turning, &raw, now);
    }

    /// The master has answered that. What it says against it, those hear who wait for this link;
    /// the link stays what it is.
    pub(super) fn turned(&mut self, key: LinkKey, reply: &[u8], now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let lane = match link.lending {
            Lending::Turning(lane) => lane,
            Lending::Cleaned(remains) => return self.cleaned((key, remains), reply, now),
            Lending::No | Lending::Withdrawn | Lending::PassedBy => return,
        };
        let refused = reply.starts_with(b"-");
        let index = link.group;
        let group = self.groups.get_mut(index);
        if refused {
            if let Some(group) = group {
                group.unturned.push((lane, now));
            }
        } else if link.lane.protocol == lane.protocol {
            link.lane.database = lane.database;
        } else {
            link.lane.protocol = lane.protocol;
            if let (Some(group), Some(facts)) = (group, HelloFacts::read(reply)) {
                group.set_hello(lane.protocol, facts);
            }
        }
        if !refused && link.lane != lane && !link.retired {
            return self.turn(key, now);
        }
        link.lending = Lending::No;
        let waiters = std::mem::take(&mut link.waiters);
        if link.retired {
            // Nobody has its login any more.
            self.discard(key);
            return self.end_waits(key, &waiters);
        }
        if refused {
            for waiter in &waiters {
                self.object_to(*waiter, key, reply);
            }
        }
        // They go on before those who would turn it to something else.
        self.end_waits(key, &waiters);
        self.pool_or_close(key, now);
    }

    /// A link lies in the pool: it may be what somebody waits for.
    pub(super) fn resume_kept_out(&mut self, index: GroupIndex) {
        let group = self.groups.get(index);
        if group.is_some_and(Group::keeps_anybody_out) {
            self.resume_held(index);
        }
    }

    /// After a moment it is tried anew whether logins are taken, if anybody waits.
    pub(super) fn retry_kept_out(&mut self, index: GroupIndex, now: Time) {
        let group = self
            .groups
            .get(index)
            .filter(|group| !group.held.is_empty());
        let is_over = |(_, at): &(IdentityId, Time)| now.since(*at) >= KEPT_OUT_FOR;
        let mut nodes = group.into_iter().flat_map(|group| &group.nodes);
        if nodes.any(|node| node.kept_out.iter().any(is_over)) {
            self.resume_held(index);
        }
    }

    /// Links with a login that are in no list for a while.
    pub(super) fn links_being_lent(&self, index: GroupIndex, identity: IdentityId) -> Vec<LinkKey> {
        let is_one = |link: &Link| {
            (link.group, link.lane.identity) == (index, identity) && link.lending != Lending::No
        };
        let links = self.links.iter().filter(|(_, link)| is_one(link));
        links.map(|(key, _)| key).collect()
    }

    /// Whether a login has a link to a node that was let in.
    pub(super) fn has_another(&self, of: (GroupIndex, NodeId, IdentityId)) -> bool {
        let mut links = self.links.iter();
        links.any(|(_, link)| link.is_with(of))
    }

    /// Whether any client has a login.
    fn has_sessions(&self, index: GroupIndex, identity: IdentityId) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|(_, it)| (it.group, it.session.identity) == (index, identity))
    }

    /// Whether a link is the last to its node with the login of a client: another might not be let
    /// in.
    pub(super) fn is_last_with_login(&mut self, key: LinkKey, now: Time) -> bool {
        let link = self.links.get(key);
        let is_last = link.is_some_and(|link| !link.retired) && self.is_needed(key);
        if is_last && let Some(link) = self.links.get_mut(key) {
            // Then it is looked at again.
            link.heard_at = now;
        }
        is_last
    }
}

impl Link {
    /// Whether it is open, to this node and with this login.
    fn is_with(&self, (index, node, identity): (GroupIndex, NodeId, IdentityId)) -> bool {
        let lane = self.lane;
        self.state == State::Ready
            && self.left.is_none()
            && lane.role == Role::Master
            && (self.group, lane.node, lane.identity) == (index, node, identity)
    }
}
