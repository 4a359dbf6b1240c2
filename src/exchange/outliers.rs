//! Floor 4. Replicas that differ from the others, in failures or in the time of their replies:
//! a worker leaves them alone for a while although the control plane sees nothing wrong with them.
//! They come back in a slow start, as one does that is new. While there is no other, they serve:
//! slow is better than none.

use std::time::Duration;

use crate::exchange::link::NodeId;
use crate::exchange::node::Group;
use crate::exchange::readers::Reader;
use crate::exchange::{Action, Exchange, GroupIndex};
use crate::topology::{Outlier, ReportKind};
use crate::types::Time;

/// A failure so soon after another is the same one: when a node dies, all its connections break.
const FAULT_APART: Duration = Duration::from_millis(100);
/// Failures within `FAULTS_WITHIN` that make an outlier.
const FAULTS_MAX: u32 = 5;
const FAULTS_WITHIN: Duration = Duration::from_secs(10);

/// Replies from which the mean of their times is believed, and again as many that must come while
/// it is too high.
const REPLIES_MIN: u32 = 32;
/// For how long it must be too high.
const SLOW_FOR: Duration = Duration::from_secs(1);
/// How many times the median of the others it may be.
const SLOW_RATIO: u64 = 5;
/// What is never too slow.
const SLOW_ABOVE: Duration = Duration::from_millis(20);

/// How long an outlier is left alone the first time; each further time twice as long, up to the
/// longest. A time without as long as `CALM` begins anew.
const EJECTED_FOR: Duration = Duration::from_secs(10);
const EJECTED_FOR_MAX: Duration = Duration::from_secs(80);
const CALM: Duration = Duration::from_secs(300);

/// The times of a node's replies.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// Their mean, the last sixteen weighing most, in nanoseconds; times sixteen.
    mean: u64,
    replies: u32,
    /// Since when it has been too high, and how many replies there had been then.
    slow_since: Option<(Time, u32)>,
}

/// The failures of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    count: u32,
    first: Time,
    last: Option<Time>,
}

/// Whether a node is left alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ejected {
    pub(super) until: Option<Time>,
    /// How often it was, without a calm time in between.
    pub(super) times: u32,
}

impl Reader {
    /// Takes a failure; returns whether that is one too many.
    fn failed(&mut self, now: Time) -> bool {
        let faults = &mut self.faults;
        if faults
            .last
            .is_some_and(|last| now.since(last) < FAULT_APART)
        {
            return false;
        }
        if faults.count == 0 || now.since(faults.first) >= FAULTS_WITHIN {
            (faults.first, faults.count) = (now, 0);
        }
        faults.last = Some(now);
        faults.count += 1;
        faults.count >= FAULTS_MAX
    }

    /// Leaves it alone; returns for how long.
    fn eject(&mut self, now: Time) -> Duration {
        if now.since(self.since) >= CALM {
            self.ejected.times = 0;
        }
        let longer = 1 << self.ejected.times.min(8);
        let time = (EJECTED_FOR * longer).min(EJECTED_FOR_MAX);
        self.ejected.times += 1;
        self.ejected.until = Some(now + time);
        time
    }
}

impl Pace {
    /// Takes the time of one reply.
    #[inline]
    pub(super) fn note(&mut self, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX >> 8);
        self.mean = if self.replies == 0 {
            took.saturating_mul(16)
        } else {
            (self.mean - self.mean / 16).saturating_add(took)
        };
        self.replies = self.replies.saturating_add(1);
    }

    /// The mean, once there are enough replies to believe it.
    fn believed(&self) -> Option<u64> {
        (self.replies >= REPLIES_MIN).then_some(self.mean / 16)
    }

    /// Whether it has been above `limit` for long enough.
    fn is_too_slow(&mut self, limit: u64, now: Time) -> bool {
        if self.believed().is_none_or(|mean| mean <= limit) {
            self.slow_since = None;
            return false;
        }
        let (since, replies) = *self.slow_since.get_or_insert((now, self.replies));
        now.since(since) >= SLOW_FOR && self.replies - replies >= REPLIES_MIN
    }
}

impl Group {
    /// The next replica whose replies take much longer than those of the others, if it may be left
    /// alone: at least half of the replicas serve.
    fn find_slow(&mut self, now: Time) -> Option<NodeId> {
        let readers = self.nodes.iter().map(|node| &node.reader);
        let all = readers.filter(|it| it.listed && it.weight > 0).count();
        if self.readable.len() < 2 || (self.readable.len() - 1) * 2 < all {
            return None;
        }
        let mut slow = None;
        for at in 0..self.readable.len() {
            let id = *self.readable.get(at)?;
            let Some(limit) = self.slow_limit(id) else {
                continue;
            };
            let node = self.nodes.get_mut(id.0)?;
            if node.reader.pace.is_too_slow(limit, now) {
                slow = slow.or(Some(id));
            }
        }
        slow
    }

    /// What a replica's mean may be, by those of the others.
    fn slow_limit(&self, id: NodeId) -> Option<u64> {
        let others = self.readable.iter().filter(|other| **other != id);
        let means = others.filter_map(|id| self.nodes.get(id.0)?.reader.pace.believed());
        let mut means: Vec<u64> = means.collect();
        means.sort_unstable();
        let median = *means.get(means.len() / 2)?;
        let least = u64::try_from(SLOW_ABOVE.as_nanos()).unwrap_or(u64::MAX);
        Some(least.max(median.saturating_mul(SLOW_RATIO)))
    }

    /// Lets those back whose time alone is over; returns whether there were any.
    fn return_outliers(&mut self, now: Time) -> bool {
        let mut any = false;
        for node in &mut self.nodes {
            if node.reader.ejected.until.is_some_and(|until| until <= now) {
                node.reader.start(now);
                any = true;
            }
        }
        any
    }
}

impl Exchange {
    /// A replica could not be connected to, turned a read away, fell silent, or broke a connection.
    pub(super) fn reader_failed(&mut self, index: GroupIndex, id: NodeId, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let others = group.readable.iter().any(|other| *other != id);
        if let Some(node) = group.nodes.get_mut(id.0)
            && node.reader.is_member()
            && node.reader.failed(now)
            && others
        {
            self.eject_reader(index, id, Outlier::Errors, now);
        }
    }

    /// Time has passed: outliers are found, and come back.
    pub(super) fn tick_readers(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.return_outliers(now) {
            group.refresh(now);
        }
        let slow = group.find_slow(now);
        group.share_out(now);
        if let Some(id) = slow {
            self.eject_reader(index, id, Outlier::Latency, now);
        }
    }

    fn eject_reader(&mut self, index: GroupIndex, id: NodeId, why: Outlier, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let Some(node) = group.nodes.get_mut(id.0) else {
            return;
        };
        let time = node.reader.eject(now);
        let node = node.addr.clone();
        group.refresh(now);
        let report = ReportKind::Outlier { node, why, time };
        self.actions.push_back(Action::Report(index, report));
    }
}
