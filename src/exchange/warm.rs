//! Floor 4. Links that are open before a client needs one for itself, so that it does not wait
//! while another's commands, which need none, go past it.
//!
//! ```text
//!   shared link to the master begun ─► one beside it ──open──► pool
//!   one taken by who keeps it long  ─► another       ──open──► pool
//!     taken before it is open       ─► its client waits for the rest of that alone
//!     refused, or lost              ─► none: who needs one opens it
//! ```
//!
//! One for each lane; none while a client has just begun to attend to the master. Where the pool is
//! empty for the length of a transaction, none is opened: its link comes back.

use crate::exchange::dispatch::Job;
use crate::exchange::lease::NoLease;
use crate::exchange::link::{LaneId, Link, NodeId, Role, Usage};
use crate::exchange::node::Group;
use crate::exchange::slab::Slab;
use crate::exchange::{Exchange, GroupIndex, LinkKey};
use crate::session::IdentityId;
use crate::types::Time;

/// What a client wants of a link of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// In this database, if any is given, and not in the session's.
    pub(super) database: Option<u32>,
    /// It never gives it back, and sees what is asked of the node meanwhile: also what a connection
    /// in its place would ask, were it opened then.
    pub(super) watches: bool,
}

impl Group {
    /// The link of a lane that is being opened before anybody needs it.
    fn warming(&self, links: &Slab<LinkKey, Link>, lane: LaneId) -> Option<LinkKey> {
        let of_lane = |key: &&LinkKey| links.get(**key).is_some_and(|link| link.lane == lane);
        self.warming.iter().find(of_lane).copied()
    }

    /// One that lies in the pool.
    pub(super) fn take_pooled(&mut self, lane: LaneId) -> Option<LinkKey> {
        let keys = self.pool.get_mut(&lane)?;
        let key = keys.pop();
        if keys.is_empty() {
            self.pool.remove(&lane);
        }
        key
    }

    /// A link is nobody's to take any more.
    pub(super) fn leave_pool(&mut self, lane: LaneId, key: LinkKey) {
        if let Some(keys) = self.pool.get_mut(&lane) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.pool.remove(&lane);
            }
        }
    }

    /// It is open, somebody's, or gone. Whether it was one.
    pub(super) fn end_warming(&mut self, key: LinkKey) -> bool {
        let before = self.warming.len();
        self.warming.retain(|other| *other != key);
        self.warming.len() < before
    }
}

impl Exchange {
    /// Opens a link for whoever needs one of this lane next, unless there is one.
    pub(super) fn warm(&mut self, index: GroupIndex, lane: LaneId, now: Time) {
        if !self.settings.warm || lane.bulky || lane.role != Role::Master {
            return;
        }
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let node = group.nodes.get(lane.node.0);
        // What clients wait for comes first, and gets most of the room. Scripts are brought by one
        // of those.
        let has_turn = node.is_some_and(|node| {
            node.opening < self.settings.opening_max / 2 && !node.lacks_scripts
        });
        let is_trial = group.is_tried(&self.links, lane);
        if group.pool.contains_key(&lane)
            || !has_turn
            || is_trial
            || self.is_attended(index, now)
            || group.writable != Some(lane.node)
            || !group.may_open(lane.node, now)
            || group.keeps_out((lane.node, lane.identity))
            || group.warming(&self.links, lane).is_some()
            || self.leased_count() >= self.settings.leases_max / 2
        {
            return;
        }
        let login = group.login(lane.identity).cloned();
        if login.is_none() && lane.identity != IdentityId::ANONYMOUS {
            return;
        }
        let key = self.open(Link::new(index, lane, Usage::Leased(None), now), login);
        if let Some(group) = self.groups.get_mut(index) {
            group.warming.push(key);
        }
    }

    /// The same beside a shared link that is begun, if its login is known to be taken; if not, that
    /// is told by the shared one.
    pub(super) fn warm_beside(&mut self, index: GroupIndex, lane: LaneId, now: Time) {
        if self.settings.warm
            && lane.role == Role::Master
            && self.has_another((index, lane.node, lane.identity))
        {
            self.warm(index, lane, now);
        }
    }

    /// The same in place of a link that its client keeps.
    pub(super) fn warm_again(&mut self, taken: LinkKey, now: Time) {
        if let Some(link) = self.links.get(taken) {
            let (index, lane) = (link.group, link.lane);
            self.warm(index, lane, now);
        }
    }

    /// A link is open: one that nobody has needed meanwhile is spare.
    pub(super) fn warmed(&mut self, key: LinkKey, now: Time) {
        let index = self.links.get(key).map(|link| link.group);
        let group = index.and_then(|index| self.groups.get_mut(index));
        if !group.is_some_and(|group| group.end_warming(key)) {
            return;
        }
        let link = self.links.get(key);
        if link.is_some_and(|link| link.pipeline.is_empty()) {
            self.pool_or_close(key, now);
        } else {
            self.close_when_idle(key, now);
        }
    }

    /// Whether an idle link is the spare one of a lane that is in use.
    pub(super) fn is_spare(&self, key: LinkKey) -> bool {
        self.links.get(key).is_some_and(|link| {
            let group = self.groups.get(link.group);
            group.is_some_and(|group| {
                let pooled = group.pool.get(&link.lane);
                self.settings.warm
                    && group.lanes.contains_key(&link.lane)
                    && pooled.and_then(|keys| keys.first()) == Some(&key)
            })
        })
    }

    /// A link from the pool, one that is about to come there, or a new one.
    pub(super) fn pooled_or_new(
        &mut self,
        index: GroupIndex,
        lane: LaneId,
        (job, watches): (Job, bool),
    ) -> Result<LinkKey, NoLease> {
        let group = self.groups.get_mut(index).ok_or(NoLease::Gone)?;
        let is_let_in = !group.keeps_out((lane.node, lane.identity));
        let may_open = is_let_in && group.may_open(lane.node, job.now);
        let fresh = self.settings.warm && watches && may_open;
        if !fresh {
            if let Some(pooled) = group.take_pooled(lane) {
                return Ok(pooled);
            }
            if let Some(key) = group.warming(&self.links, lane) {
                group.end_warming(key);
                return Ok(key);
            }
        }
        if let Some(lent) = self.lend(index, lane, job.now) {
            return lent.link().ok_or(NoLease::NoMaster);
        }
        let group = self.groups.get(index).ok_or(NoLease::Gone)?;
        if !group.may_open(lane.node, job.now) {
            return Err(NoLease::NoMaster);
        }
        let login = group.login(lane.identity).cloned();
        if self.leased_count() >= self.settings.leases_max
            && let Some(fits) = self.make_room((index, lane), job.now)?
        {
            return Ok(fits);
        }
        let usage = Usage::Leased(Some(job.key));
        Ok(self.open(Link::new(index, lane, usage, job.now), login))
    }

    /// A node takes no further connection: what nobody uses makes room there, save where it would
    /// not be let in again.
    pub(super) fn give_up_spares(&mut self, index: GroupIndex, node: NodeId) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let is_idle = |lane: &LaneId| lane.node == node && !group.keeps_out((node, lane.identity));
        let pools = group.pool.iter().filter(|(lane, _)| is_idle(lane));
        let spares: Vec<_> = pools.flat_map(|(_, keys)| keys).copied().collect();
        for key in spares {
            self.discard(key);
        }
    }

    /// One that nobody uses, but that does not fit, makes room for another; or one that somebody
    /// can do without, which may fit.
    fn make_room(
        &mut self,
        (index, lane): (GroupIndex, LaneId),
        now: Time,
    ) -> Result<Option<LinkKey>, NoLease> {
        if self.discard_spare() {
            return Ok(None);
        }
        let owner = self.kept_for_tracking().ok_or(NoLease::Full)?;
        self.drop_lease(owner, now);
        let group = self.groups.get_mut(index);
        if let Some(fits) = group.and_then(|group| group.take_pooled(lane)) {
            return Ok(Some(fits));
        }
        self.discard_spare();
        // It may have to be put in order first.
        let has_room = self.leased_count() < self.settings.leases_max;
        has_room.then_some(None).ok_or(NoLease::Full)
    }

    /// Closes a link that nobody uses. Whether there was one.
    pub(super) fn discard_spare(&mut self) -> bool {
        let pools = self.groups.iter().flat_map(|group| group.pool.values());
        let warming = self.groups.iter().flat_map(|group| &group.warming);
        let spare = pools.flatten().chain(warming).next().copied();
        spare.is_some_and(|spare| self.discard(spare).is_some())
    }
}
