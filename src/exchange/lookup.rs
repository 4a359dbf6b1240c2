//! Floor 4. Finding and opening links.

use crate::exchange::link::{LaneId, Link, NodeId, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::node::Group;
use crate::exchange::{Action, ClientKey, Exchange, GroupIndex, LinkKey, OpenPlan, Role};
use crate::session::{IdentityId, Login};
use crate::types::Time;

/// The identity of a link that proves a login which no session has yet.
pub(super) const UNPROVEN: IdentityId = IdentityId(u32::MAX);

/// Why there is no shared link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLane {
    /// There are too many different ones to the node already.
    TooMany,
    /// The node takes no further connection for the moment, or none with this login.
    NotNow,
    /// This link is becoming one.
    Turning(LinkKey),
}

impl Exchange {
    /// Who may use a link.
    pub(super) fn usage(&self, key: LinkKey) -> Usage {
        self.links.get(key).map_or(Usage::Shared, |link| link.usage)
    }

    /// The lane that fits what the client has set, on `node`.
    pub(super) fn lane_of(&self, key: ClientKey, node: NodeId, role: Role) -> Option<LaneId> {
        let session = &self.clients.get(key)?.session;
        let settings = (session.database, session.protocol);
        Some(Group::lane_id(node, role, session.identity, settings))
    }

    /// The shared link of a lane; opened if there is none.
    pub(super) fn shared_link(
        &mut self,
        group: GroupIndex,
        lane: LaneId,
        now: Time,
    ) -> Result<LinkKey, NoLane> {
        let Some(owner) = self.groups.get(group) else {
            return Err(NoLane::TooMany);
        };
        if let Some(link) = owner.lanes.get(&lane) {
            return Ok(*link);
        }
        let alike = owner
            .lanes
            .keys()
            .filter(|other| (other.node, other.bulky) == (lane.node, lane.bulky))
            .count();
        if alike >= self.settings.lanes_max {
            return Err(NoLane::TooMany);
        }
        if let Some(lent) = self.lend(group, lane, now) {
            return self.share(lent, now);
        }
        let owner = self.groups.get(group).ok_or(NoLane::TooMany)?;
        if !owner.may_open(lane.node, now) {
            return Err(NoLane::NotNow);
        }
        let login = owner.login(lane.identity).cloned();
        let link = self.open(Link::new(group, lane, Usage::Shared, now), login);
        if let Some(owner) = self.groups.get_mut(group) {
            owner.lanes.insert(lane, link);
        }
        self.warm_beside(group, lane, now);
        Ok(link)
    }

    /// Begins a new link, to log in with `login`.
    pub(super) fn open(&mut self, link: Link, login: Option<Login>) -> LinkKey {
        let (group, lane) = (link.group, link.lane);
        let key = self.links.insert(link);
        self.opening += 1;
        let owner = self.groups.get_mut(group);
        let changes = owner.as_ref().map_or(0, |it| it.settings.changes.count());
        let node = owner.and_then(|group| group.nodes.get_mut(lane.node.0));
        if let (Some(node), Some(link)) = (node, self.links.get_mut(key)) {
            node.links += 1;
            link.changes = changes;
            let plan = OpenPlan {
                group,
                node: node.addr.clone(),
                role: lane.role,
                login,
                login_by: link.login_by,
                protocol: lane.protocol,
                database: lane.database,
            };
            if node.opening < self.settings.opening_max {
                node.opening += 1;
                self.actions.push_back(Action::Open(key, plan));
            } else {
                link.plan = Some(Box::new(plan));
                self.queued += 1;
                node.turns.add(key, link.usage);
            }
        }
        self.bring_scripts(key);
        key
    }

    /// Opens links whose turn has come: a node that has just become the master gets them a few at a
    /// time, and not all that its predecessor had at once.
    #[inline]
    pub(super) fn open_next(&mut self) {
        if self.queued > 0 {
            self.take_turns();
        }
    }

    #[cold]
    fn take_turns(&mut self) {
        let nodes = self.groups.iter_mut().flat_map(|group| &mut group.nodes);
        for node in nodes {
            while node.opening < self.settings.opening_max
                && let Some(key) = node.turns.next()
            {
                // It may have been closed since.
                let link = self.links.get_mut(key);
                if let Some(plan) = link.and_then(|link| link.plan.take()) {
                    self.queued -= 1;
                    node.opening += 1;
                    self.actions.push_back(Action::Open(key, *plan));
                }
            }
        }
    }

    /// Gives up the turns of links to a node that takes none now. What waits for them is placed
    /// anew.
    pub(super) fn give_up_turns(&mut self, group: GroupIndex, node: NodeId, now: Time) {
        if self.queued == 0 {
            return;
        }
        let waits =
            |link: &Link| link.plan.is_some() && link.group == group && link.lane.node == node;
        let links = self.links.iter().filter(|(_, link)| waits(link));
        let keys: Vec<_> = links.map(|(key, _)| key).collect();
        for key in keys {
            self.lose(key, Loss::Left, now);
        }
    }

    /// Whether a link takes requests for `node`.
    #[inline]
    pub(super) fn fits(&self, link: Option<LinkKey>, node: NodeId) -> Option<LinkKey> {
        let key = link?;
        let link = self.links.get(key)?;
        (link.accepts() && link.lane.node == node).then_some(key)
    }

    /// Takes a link out of every list, so that no request finds it; those on it stay.
    pub(super) fn retire(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.retired = true;
        let (lane, group) = (link.lane, link.group);
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        group.hub_lost(key);
        group.trial_over(key);
        group.end_warming(key);
        if group.lanes.get(&lane) == Some(&key) {
            group.lanes.remove(&lane);
        }
        group.leave_pool(lane, key);
    }

    /// Removes a link and tells the worker to close it. The caller has dealt with its requests.
    pub(super) fn discard(&mut self, key: LinkKey) -> Option<Link> {
        self.retire(key);
        let link = self.links.remove(key)?;
        self.mark_lost(&link);
        let begun = link.plan.is_none();
        if begun {
            self.actions.push_back(Action::Close(key));
        } else {
            self.queued -= 1;
        }
        if link.state == State::Opening {
            self.opening -= 1;
        }
        if let Usage::Proof(_) = link.usage {
            self.proof_ended(link.group);
        }
        let group = self.groups.get_mut(link.group);
        if let Some(group) = group
            && let Some(node) = group.nodes.get_mut(link.lane.node.0)
        {
            node.links = node.links.saturating_sub(1);
            if link.state == State::Opening {
                node.opening -= usize::from(begun);
            } else {
                node.open = node.open.saturating_sub(1);
                let counts = group.counts.at(node.index);
                match link.usage {
                    Usage::Shared | Usage::Hub => counts.shared -= 1,
                    Usage::Leased(_) | Usage::Proof(_) | Usage::Target(_) => counts.leased -= 1,
                }
            }
        }
        Some(link)
    }
}
