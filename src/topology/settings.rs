//! Floor 1. What the machine is told once: the group, its sources, and every time it waits for.
//! Knows no values from a file; `config` checks them.

use std::time::Duration;

use crate::types::{MasterName, NodeAddr};

/// Bounds of [`Hold::Auto`].
const HOLD_AUTO_MIN: Duration = Duration::from_secs(10);
const HOLD_AUTO_MAX: Duration = Duration::from_secs(60);
/// What [`Hold::Auto`] adds to Sentinel's down-after: election, promotion and proof.
const HOLD_AUTO_MARGIN: Duration = Duration::from_secs(5);

/// Everything that one machine needs to know before it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name under which Sentinel monitors the group.
    pub master_name: MasterName,
    /// Who says where the master is.
    pub source: Source,
    /// How long commands wait for a master.
    pub hold: Hold,
    /// Writes are held when fewer than a majority of the Sentinels have answered for so long.
    /// `None`: they flow as long as nobody names another master.
    pub strict_quorum: Option<Duration>,
    /// How many workers report [`ReportKind::Quiet`](super::ReportKind::Quiet).
    pub workers: usize,
    /// A replica further behind than this many bytes serves no reads; `None` for any lag.
    pub max_lag: Option<u64>,
    /// The same for a replica that has had all that the master had so long ago, or longer.
    pub max_lag_time: Option<Duration>,
    /// What makes a replica nearer than another, besides its zone.
    pub choice: ReplicaChoice,
    /// Where Switchman is; replicas there are nearer than others.
    pub zone: Option<String>,
    /// Where nodes are, if they do not tell.
    pub node_zones: Vec<(NodeAddr, String)>,
    /// All times.
    pub timings: Timings,
}

/// What makes a replica nearer than another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplicaChoice {
    /// Nothing: what they have to do decides.
    #[default]
    Load,
    /// How quickly it answers.
    Nearest,
}

/// Who says where the master is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Sentinels; more are learned from these.
    Sentinels(Vec<NodeAddr>),
    /// The configuration: this master and these replicas, for ever.
    Static {
        /// The master.
        master: NodeAddr,
        /// Its replicas.
        replicas: Vec<NodeAddr>,
    },
}

/// How long a command waits for a writable master, from its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Sentinel's `down-after-milliseconds` and 5 s, at least 10 s, at most 60 s.
    #[default]
    Auto,
    /// This long.
    Fixed(Duration),
}

/// All times of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Between two rounds of questions to a Sentinel while all is well.
    pub poll_idle: Duration,
    /// The same while something is wrong, or was a moment ago.
    pub poll_trouble: Duration,
    /// Between two questions to anybody during a switch.
    pub poll_switch: Duration,
    /// Between two checks of the master's role while all is well.
    pub check_master: Duration,
    /// Between two checks of a replica's role while all is well.
    pub check_replica: Duration,
    /// Longest wait for all workers to report that the old master is quiet.
    pub drain: Duration,
    /// How long trouble is remembered.
    pub trouble: Duration,
    /// During a switch longer than this, questions are asked at `poll_trouble` only.
    pub patience: Duration,
    /// At start: longest wait for the other Sentinels after the first one has answered.
    pub settle: Duration,
    /// At start: how long it takes more than a minority of the Sentinels to be believed, from when
    /// the first one names a master.
    pub minority: Duration,
    /// A sign that nobody confirms any more expires: of a Sentinel that is gone, of a replica that
    /// calls itself master while no Sentinel knows of a failover.
    pub sign: Duration,
    /// A newer address whose node is no master is given up after this time, if most Sentinels still
    /// name the current master and it is one.
    pub doubt: Duration,
    /// The escape from the epoch fence: all Sentinels have been behind it for so long.
    pub escape: Duration,
    /// A replica that no Sentinel lists any more is forgotten after this time.
    pub forget_replica: Duration,
    /// A learned Sentinel that neither answers nor is listed is forgotten after this time.
    pub forget_sentinel: Duration,
    /// Between two look-ups of a host name.
    pub resolve: Duration,
    /// An answer that the shell still owes after this time counts as a failure.
    pub lost: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            poll_idle: Duration::from_secs(5),
            poll_trouble: Duration::from_secs(1),
            poll_switch: Duration::from_millis(150),
            check_master: Duration::from_secs(1),
            check_replica: Duration::from_secs(2),
            drain: Duration::from_millis(500),
            trouble: Duration::from_secs(15),
            patience: Duration::from_secs(30),
            settle: Duration::from_millis(250),
            // A Sentinel that has lost its memory hears of the others' master within 2 s (Redis
            // sentinel.c, `SENTINEL_PUBLISH_PERIOD`), and one that is slow was asked twice by then.
            // No command that waits meanwhile is refused because of it: they are held for longer.
            minority: Duration::from_secs(3),
            sign: Duration::from_secs(5),
            // Half of the shortest automatic hold: what waited for it is not refused because of it.
            doubt: Duration::from_secs(5),
            escape: Duration::from_secs(30),
            forget_replica: Duration::from_secs(60),
            forget_sentinel: Duration::from_secs(600),
            resolve: Duration::from_secs(30),
            lost: Duration::from_secs(10),
        }
    }
}

impl Hold {
    /// The time to hold, given Sentinel's `down-after-milliseconds` where it is known.
    pub fn time(self, down_after: Option<Duration>) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Auto => down_after.map_or(HOLD_AUTO_MIN, |down_after| {
                down_after
                    .saturating_add(HOLD_AUTO_MARGIN)
                    .clamp(HOLD_AUTO_MIN, HOLD_AUTO_MAX)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_automatic_hold_follows_down_after_within_its_bounds() {
        let check = |down_after: Option<u64>, want: u64| {
            let hold = Hold::Auto.time(down_after.map(Duration::from_secs));
            assert_eq!(hold, Duration::from_secs(want), "{down_after:?}");
        };
        check(None, 10);
        check(Some(1), 10);
        check(Some(30), 35);
        check(Some(300), 60);
        let fixed = Hold::Fixed(Duration::from_secs(3));
        assert_eq!(
            fixed.time(Some(Duration::from_secs(30))),
            Duration::from_secs(3)
        );
    }
}
