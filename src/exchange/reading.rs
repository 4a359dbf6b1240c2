//! Floor 4. A read: what it needs of a replica, and why the master serves it.

use crate::command::Class;
use crate::exchange::client::{Client, Origin};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{NodeId, State};
use crate::exchange::lookup::NoLane;
use crate::exchange::marks::Need;
use crate::exchange::node::{Group, Node};
use crate::exchange::{Exchange, LinkKey, Role};
use crate::resp::Request;
use crate::route::{Access, Facts, NoReplica, Reads};
use crate::session::Reject;
use crate::telemetry::{MasterRead, RequestClass};

impl Exchange {
    /// Counts why a read that has been placed went to the master.
    pub(super) fn count_master_read(&mut self, job: Job, placed: Placed, why: MasterRead) {
        let index = self.clients.get(job.key).map(|client| client.group);
        if placed == Placed::Sent
            && let Some(group) = index.and_then(|index| self.groups.get_mut(index))
        {
            group.counts.read_by_master(why);
        }
    }

    /// The lane to a replica, or to another one if it takes no further connection.
    pub(super) fn find_replica_lane(
        &mut self,
        job: Job,
        picked: NodeId,
        eligible: impl Fn(&Node) -> bool,
    ) -> Result<LinkKey, NoLane> {
        let Some(index) = self.clients.get(job.key).map(|client| client.group) else {
            return Err(NoLane::NotNow);
        };
        let (mut next, mut at) = (Some(picked), 0);
        while let Some(node) = next {
            let lane = self.lane_of(job.key, node, Role::Replica);
            let found = self.shared_link(index, lane.ok_or(NoLane::NotNow)?, job.now);
            if found != Err(NoLane::NotNow) {
                return found;
            }
            let Some(group) = self.groups.get(index) else {
                return Err(NoLane::NotNow);
            };
            let fits = |id: &NodeId| group.nodes.get(id.0).is_some_and(&eligible);
            let mut others = group.readable.iter().enumerate().skip(at);
            let other = others.find(|(_, id)| fits(id));
            (next, at) = (other.map(|(_, id)| *id), other.map_or(at, |(at, _)| at + 1));
        }
        Err(NoLane::NotNow)
    }

    /// Whether a link is there and takes bytes.
    pub(super) fn is_open(&self, key: LinkKey) -> bool {
        let link = self.links.get(key);
        link.is_some_and(|link| link.state == State::Ready)
    }

    /// A read that no replica can serve now, for want of an open link to one that has settled it.
    pub(super) fn place_unsettled(
        &mut self,
        job: Job,
        request: &Request<'_>,
        need: Need,
    ) -> Placed {
        let placed = self.place_on_master(job, request, Kind::shared(Class::Read));
        self.count_master_read(job, placed, need.reason());
        placed
    }

    /// A read for which no replica takes a connection now.
    pub(super) fn place_without_replica(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get_mut(client.group));
        match group.map(|group| group.no_replica_now(job.now)) {
            Some(NoReplica::Master) => {
                let placed = self.place_on_master(job, request, Kind::shared(Class::Read));
                self.count_master_read(job, placed, MasterRead::NoneEligible);
                placed
            }
            Some(NoReplica::Error) => self.reject(job, RequestClass::Read, Reject::NoReplica),
            None => Placed::Answered,
        }
    }
}

/// What decides where a request goes, and what it needs of a replica. It is taken for granted that
/// one has that.
#[inline]
pub(super) fn weigh(
    client: &Client,
    group: &Group,
    (job, class): (&Job, Class),
    request: &Request<'_>,
) -> (Facts, Need) {
    let bounced = job.again.is_some_and(|number| number.bounces > 0);
    let no_replica = group.settings.no_replica;
    let was_first = job.again.is_some_and(|it| it.origin == Origin::Replica);
    let reads = if bounced && no_replica == NoReplica::Master {
        Reads::Master
    } else {
        client.access.reads()
    };
    let need = if class == Class::Read && reads == Reads::OwnWrites {
        group.need(job.reach, client.session.database, (request, job.slot))
    } else {
        Need::NOTHING
    };
    let facts = Facts {
        reads,
        no_replica,
        writes_in_flight: if was_first { 0 } else { client.writes_out },
        has_master: group.writable.is_some(),
        has_replica: !group.readable.is_empty(),
        has_settled: true,
    };
    (facts, need)
}

/// Why the master serves a read of a client with this access; `lagging` says whether replicas only
/// serve none because they are too far behind.
pub(super) const fn why_master(
    facts: Facts,
    (access, lagging): (Access, bool),
    need: Need,
) -> MasterRead {
    match (access.reads(), facts.reads) {
        (Reads::Master, _) if access.spares_replicas() => MasterRead::Policy,
        (Reads::Master, _) => MasterRead::Mode,
        (_, Reads::Master) => MasterRead::NoneEligible,
        _ if facts.writes_in_flight > 0 => MasterRead::Unsettled,
        _ if !facts.has_replica && lagging => MasterRead::Lag,
        _ if !facts.has_replica => MasterRead::NoneEligible,
        _ => need.reason(),
    }
}
