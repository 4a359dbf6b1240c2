//! Floor 1. Which replicas are nearer than others: in the same zone, and quicker to answer.
//!
//! The time is the shortest of the last few answers to the machine's own questions. Every replica
//! is asked alike, whether or not clients read from it; what clients ask plays no part, nor does a
//! moment in which somebody was busy.

use std::collections::VecDeque;
use std::time::Duration;

use super::Machine;
use super::peers::Node;
use crate::topology::settings::ReplicaChoice;
use crate::types::NodeAddr;

/// Answers whose times are remembered.
const TRIPS_MAX: usize = 8;
/// What makes no difference, besides a half of the shortest time: two replicas in one data centre
/// are equally near.
const TOLERANCE: Duration = Duration::from_micros(500);

/// How long a node took to answer, the last few times.
#[derive(Clone, Debug, Default)]
pub(super) struct Trips {
    times: VecDeque<Duration>,
    /// Whether it was taken for near.
    near: bool,
}

impl Trips {
    pub(super) fn note(&mut self, time: Duration) {
        if self.times.len() >= TRIPS_MAX {
            self.times.pop_front();
        }
        self.times.push_back(time);
    }

    pub(super) fn shortest(&self) -> Option<Duration> {
        self.times.iter().min().copied()
    }

    /// Whether it is near where the nearest takes `least`. One that was stays so for longer.
    fn is_near(&self, least: Duration) -> bool {
        let (half, tolerance) = if self.near {
            (least, TOLERANCE * 2)
        } else {
            (least / 2, TOLERANCE)
        };
        self.shortest()
            .is_none_or(|time| time <= least + half + tolerance)
    }
}

impl Machine {
    /// The zone of a node, configured or by its own word.
    pub(super) fn zone_of<'a>(&'a self, addr: &NodeAddr, node: &'a Node) -> Option<&'a str> {
        let mut zones = self.settings.node_zones.iter();
        let given = zones.find(|(known, _)| self.names.same(known, addr));
        given.map_or(node.zone.as_deref(), |(_, zone)| Some(zone))
    }

    /// How far away the replicas are, in the order given; nothing if all are equally near. One in
    /// another zone is further away than any in the same.
    pub(super) fn distances(&mut self, replicas: &[NodeAddr]) -> Vec<u8> {
        let elsewhere: Vec<bool> = replicas.iter().map(|it| self.is_elsewhere(it)).collect();
        if self.settings.choice == ReplicaChoice::Nearest {
            for side in [false, true] {
                let here = replicas.iter().zip(&elsewhere);
                let here = here.filter(|(_, other)| **other == side);
                let here: Vec<_> = here.map(|(addr, _)| addr.clone()).collect();
                self.measure(&here);
            }
        }
        let by_time = self.settings.choice == ReplicaChoice::Nearest;
        let far = |addr| by_time && self.nodes.get(addr).is_some_and(|it| !it.trips.near);
        let each = replicas.iter().zip(&elsewhere);
        let distance =
            |(addr, elsewhere): (_, &bool)| u8::from(*elsewhere) * 2 + u8::from(far(addr));
        let distances: Vec<u8> = each.map(distance).collect();
        if distances.iter().all(|it| Some(it) == distances.first()) {
            return Vec::new();
        }
        distances
    }

    fn is_elsewhere(&self, addr: &NodeAddr) -> bool {
        let (Some(zone), Some(node)) = (&self.settings.zone, self.nodes.get(addr)) else {
            return false;
        };
        self.zone_of(addr, node) != Some(zone)
    }

    /// Finds those of `replicas` that are near compared to each other.
    fn measure(&mut self, replicas: &[NodeAddr]) {
        let nodes = replicas.iter().filter_map(|addr| self.nodes.get(addr));
        let least = nodes.filter_map(|node| node.trips.shortest()).min();
        for addr in replicas {
            if let Some(node) = self.nodes.get_mut(addr) {
                node.trips.near = least.is_none_or(|least| node.trips.is_near(least));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips(millis: &[u64]) -> Trips {
        let mut trips = Trips::default();
        for time in millis {
            trips.note(Duration::from_millis(*time));
        }
        trips
    }

    #[test]
    fn the_shortest_of_the_last_answers_counts() {
        let mut times = trips(&[9, 3, 40]);
        assert_eq!(times.shortest(), Some(Duration::from_millis(3)));
        for _ in 0..TRIPS_MAX {
            times.note(Duration::from_millis(12));
        }
        assert_eq!(times.shortest(), Some(Duration::from_millis(12)));
    }

    #[test]
    fn near_equals_are_equal_and_who_is_near_stays_so_for_longer() {
        let least = Duration::from_millis(4);
        let mut times = trips(&[6]);
        assert!(times.is_near(least));
        times = trips(&[7]);
        assert!(!times.is_near(least));
        times.near = true;
        assert!(times.is_near(least));
        times = trips(&[10]);
        times.near = true;
        assert!(!times.is_near(least));
        assert!(trips(&[]).is_near(least), "not known yet");
    }
}
