//! Floor 4. How many reads the master serves because no replica can: a set of replicas that died
//! must not drown the master with what they served.

use std::time::Duration;

use crate::command::Class;
use crate::exchange::node::Group;
use crate::route::{Facts, NoReplica, Reads};
use crate::types::Time;

/// For how long unused permission is kept: a second's reads may come at once.
const BURST: Duration = Duration::from_secs(1);

/// Permission for so many reads per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fallback {
    /// Between two reads; `None`: any number is permitted.
    interval: Option<Duration>,
    /// When all permission given so far is used up at that pace.
    used_up: Time,
}

impl Fallback {
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self {
            interval: per_second.map(|count| BURST / count.max(1)),
            used_up: Time::ZERO,
        }
    }

    /// Whether one more read may go to the master now.
    fn permits(&mut self, now: Time) -> bool {
        let Some(interval) = self.interval else {
            return true;
        };
        let next = self.used_up.max(now) + interval;
        let permitted = next.since(now) <= BURST;
        if permitted {
            self.used_up = next;
        }
        permitted
    }
}

impl Group {
    /// What becomes of a read for which no replica takes a connection.
    pub(super) fn no_replica_now(&mut self, now: Time) -> NoReplica {
        match self.settings.no_replica {
            NoReplica::Master if self.fallback.permits(now) => NoReplica::Master,
            NoReplica::Master | NoReplica::Error => NoReplica::Error,
        }
    }

    /// Whether a read that the master would serve, because no replica is healthy, is one too many.
    #[inline]
    pub(super) fn refuses_fallback(&mut self, class: Class, facts: Facts, now: Time) -> bool {
        let falls_back = !facts.has_replica
            && class == Class::Read
            && facts.reads != Reads::Master
            && facts.writes_in_flight == 0;
        falls_back && !self.fallback.permits(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted(fallback: &mut Fallback, times: usize, now: Time) -> usize {
        (0..times).filter(|_| fallback.permits(now)).count()
    }

    #[test]
    fn a_seconds_reads_may_come_at_once_and_then_only_at_the_pace() {
        let mut fallback = Fallback::new(Some(50));
        let start = Time::from_start(Duration::from_secs(100));
        assert_eq!(permitted(&mut fallback, 200, start), 50);
        let soon = start + Duration::from_millis(100);
        assert_eq!(permitted(&mut fallback, 200, soon), 5);
        let late = start + Duration::from_secs(60);
        assert_eq!(
            permitted(&mut fallback, 200, late),
            50,
            "no more is saved up"
        );
    }

    #[test]
    fn without_a_limit_everything_is_permitted() {
        assert_eq!(permitted(&mut Fallback::new(None), 200, Time::ZERO), 200);
    }
}
