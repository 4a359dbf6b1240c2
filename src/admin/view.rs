//! Floor 4. What there is to see, as plain values: whoever wires the process fills them in.

use std::fmt;
use std::time::{Duration, SystemTime};

/// The process at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Version of Switchman.
    pub version: String,
    /// Time since the process started.
    pub uptime: Duration,
    /// Whether the process is stopping.
    pub draining: bool,
    /// Threads that serve clients.
    pub workers: usize,
    /// Clients connected, all groups together.
    pub clients: u64,
    /// Most clients at once.
    pub max_clients: u64,
    /// The master groups in the order of the configuration.
    pub groups: Vec<GroupView>,
}

/// One master group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub master_name: String,
    /// Where its clients connect.
    pub listeners: Vec<ListenerView>,
    /// Whether writes flow.
    pub phase: PhaseView,
    /// In a few words, what a group without a writable master waits for; else empty.
    pub waiting: String,
    /// Number of the topology in use.
    pub generation: u64,
    /// Sentinel's configuration epoch in use; 0 in a static group.
    pub config_epoch: u64,
    /// Longest time for which a command waits for a writable master.
    pub hold: Duration,
    /// The master and every replica known, healthy or not; the master first.
    pub nodes: Vec<NodeView>,
    /// Reads that the master served and a replica might have, by the words of the metric's reasons;
    /// only those that happened.
    pub master_reads: Vec<(&'static str, u64)>,
    /// Every Sentinel known; empty in a static group.
    pub sentinels: Vec<SentinelView>,
    /// How many of them answer; `None` in a static group.
    pub majority: Option<MajorityView>,
    /// Clients connected.
    pub clients: u64,
    /// Clients whose next request waits for a writable master.
    pub held_clients: u64,
    /// Connections given up that are to be ended at their nodes.
    pub fences: FencesView,
    /// Switches of the master, the newest first; a bounded number of them.
    pub incidents: Vec<Incident>,
}

/// Where clients of a group connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    /// The address.
    pub addr: String,
    /// What it is to them: `split`, `master` or `replica`.
    pub role: &'static str,
    /// Which of their reads go to replicas, as the configuration says it.
    pub consistency: &'static str,
}

/// Connections given up with a write unanswered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FencesView {
    /// Those whose node has not answered for them yet.
    pub pending: u64,
    /// Which node forbids it, and in which words; empty if none does.
    pub forbidden: String,
}

/// How many Sentinels answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MajorityView {
    /// Those that answer and know the group.
    pub answering: usize,
    /// All that are known, one with two addresses once.
    pub known: usize,
    /// Whether those are more than half.
    pub reached: bool,
    /// For how long that may be missing before writes are held; `None` for ever.
    pub strict: Option<Duration>,
}

/// Whether writes flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseView {
    /// No master is known.
    Unknown,
    /// Writes flow.
    Stable,
    /// Writes are held, for so long already.
    Switching {
        /// Time since the first sign of the switch.
        elapsed: Duration,
    },
}

/// One Redis node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its address.
    pub addr: String,
    /// What it is to us.
    pub role: NodeRole,
    /// Whether commands are sent to it.
    pub in_use: bool,
    /// Reads that it has answered since the start of the process.
    pub reads: u64,
    /// What a replica tells of itself; `None` for a master.
    pub replica: Option<ReplicaView>,
    /// In a few words, why not, or what else there is to say; may be empty.
    pub detail: String,
}

/// A replica, as far as it and the master have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaView {
    /// Bytes of replication that it is behind.
    pub lag_bytes: Option<u64>,
    /// How long ago it had all that the master had.
    pub lag: Option<Duration>,
    /// Its zone.
    pub zone: Option<String>,
    /// How often it served reads and was left, by the words of the metric's reasons; only those
    /// that happened.
    pub ejections: Vec<(&'static str, u64)>,
}

/// What a node is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// The proven master, or the one being left.
    Master,
    /// A replica.
    Replica,
}

/// One Sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentinelView {
    /// Its address.
    pub addr: String,
    /// Whether it is connected and answers.
    pub up: bool,
    /// Whether its events are heard. At one that is not, a planned failover may lose writes.
    pub heard: bool,
    /// In a few words, why not, or what it says; may be empty.
    pub detail: String,
}

/// One switch of a master, from its first sign to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Wall clock at the first sign.
    pub started_at: SystemTime,
    /// How it ended.
    pub outcome: Outcome,
    /// What made Switchman hold writes, in a few words.
    pub cause: String,
    /// The master at the first sign.
    pub old_master: Option<String>,
    /// The master at the end.
    pub new_master: Option<String>,
    /// From the first sign until writes flowed again, or until now.
    pub took: Duration,
    /// What it cost the clients.
    pub cost: Cost,
    /// Bytes of the old master's history, acknowledged before, that the new one does not have.
    pub forked_bytes: Option<u64>,
    /// What happened, in order.
    pub events: Vec<Event>,
}

/// What a switch cost the clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests that waited.
    pub held_requests: u64,
    /// Bytes of them, and of what their clients had sent behind them.
    pub held_bytes: u64,
    /// The longest time for which one of them waited.
    pub longest_hold: Duration,
    /// Those among them that were refused at the end of the hold time.
    pub expired_requests: u64,
    /// Requests that were sent again elsewhere after their connection was lost.
    pub resent_requests: u64,
    /// Requests that were answered `-UNCERTAIN`.
    pub uncertain_requests: u64,
    /// From the first sign until the first request that had waited was sent to the master.
    pub first_released: Option<Duration>,
    /// Replies to writes that were kept back and passed on.
    pub released_replies: u64,
    /// Replies to writes that were kept back and answered `-UNCERTAIN`; among
    /// `uncertain_requests`.
    pub doubted_replies: u64,
}

/// How a switch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// Writes flow to another master.
    Completed,
    /// Writes flow to the old master again.
    Abandoned,
}

/// One thing that happened during a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the first sign; negative for what led to it.
    pub at_ms: i64,
    /// What happened, in a few words.
    pub what: String,
}

impl fmt::Display for ListenerView {
    /// The address with its role and consistency.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {})", self.addr, self.role, self.consistency)
    }
}

impl fmt::Display for MajorityView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = if self.reached { "a" } else { "NO" };
        write!(
            f,
            "{} of {} answer, {reached} majority",
            self.answering, self.known
        )?;
        match self.strict {
            Some(time) => {
                let time = humantime::format_duration(time);
                write!(f, "; writes are held after {time} without one")
            }
            None => Ok(()),
        }
    }
}

impl View {
    /// Switches of all groups with the names of these, the newest first.
    pub fn incidents(&self) -> Vec<(&str, &Incident)> {
        let mut all: Vec<(&str, &Incident)> = self
            .groups
            .iter()
            .flat_map(|group| {
                group
                    .incidents
                    .iter()
                    .map(|incident| (group.master_name.as_str(), incident))
            })
            .collect();
        all.sort_by_key(|(_, incident)| std::cmp::Reverse(incident.started_at));
        all
    }
}

impl GroupView {
    /// The share of all reads that a node has answered, in percent.
    pub fn share_of_reads(&self, node: &NodeView) -> u64 {
        let all: u64 = self.nodes.iter().map(|node| node.reads).sum();
        (node.reads * 100).checked_div(all).unwrap_or(0)
    }
}

impl PhaseView {
    /// The phase in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Stable => "stable",
            Self::Switching { .. } => "switching",
        }
    }
}

impl NodeRole {
    /// The role in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }
}

impl Outcome {
    /// The outcome in one word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Abandoned => "abandoned",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn close_by() -> ReplicaView {
        ReplicaView {
            lag_bytes: Some(14),
            lag: Some(Duration::ZERO),
            zone: Some("a".to_owned()),
            ejections: vec![("unreachable", 2), ("lag", 1)],
        }
    }

    /// A healthy group with one failover behind it.
    fn usual_listener() -> ListenerView {
        ListenerView {
            addr: "127.0.0.1:6379".to_owned(),
            role: "split",
            consistency: "eventual",
        }
    }

    pub(in crate::admin) fn healthy() -> View {
        let node = |addr: &str, role| NodeView {
            addr: addr.to_owned(),
            role,
            in_use: true,
            reads: if role == NodeRole::Master { 20 } else { 60 },
            replica: (role == NodeRole::Replica).then(close_by),
            detail: String::new(),
        };
        let incident = Incident {
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250),
            outcome: Outcome::Completed,
            cause: "manual failover".to_owned(),
            old_master: Some("redis-2:6379".to_owned()),
            new_master: Some("redis-1:6379".to_owned()),
            took: Duration::from_millis(1100),
            cost: Cost {
                held_requests: 42,
                held_bytes: 1_900,
                longest_hold: Duration::from_millis(1_080),
                expired_requests: 0,
                resent_requests: 3,
                uncertain_requests: 1,
                first_released: Some(Duration::from_millis(1_101)),
                released_replies: 3,
                doubted_replies: 0,
            },
            forked_bytes: Some(0),
            events: vec![Event {
                at_ms: 7,
                what: "+try-failover".to_owned(),
            }],
        };
        View {
            version: "1.2.3".to_owned(),
            uptime: Duration::from_secs(90_061),
            draining: false,
            workers: 2,
            clients: 5,
            max_clients: 10_000,
            groups: vec![GroupView {
                master_name: "mymaster".to_owned(),
                listeners: vec![usual_listener()],
                phase: PhaseView::Stable,
                waiting: String::new(),
                generation: 7,
                config_epoch: 3,
                hold: Duration::from_secs(10),
                nodes: vec![
                    node("redis-1:6379", NodeRole::Master),
                    node("redis-2:6379", NodeRole::Replica),
                ],
                master_reads: vec![("unsettled", 7)],
                sentinels: vec![SentinelView {
                    addr: "redis-1:26379".to_owned(),
                    up: false,
                    heard: false,
                    detail: "<refused>".to_owned(),
                }],
                majority: Some(MajorityView {
                    answering: 0,
                    known: 1,
                    reached: false,
                    strict: Some(Duration::from_secs(5)),
                }),
                clients: 5,
                held_clients: 0,
                fences: FencesView::default(),
                incidents: vec![incident],
            }],
        }
    }

    #[test]
    fn incidents_of_all_groups_come_newest_first() {
        let mut view = healthy();
        let mut other = view.groups[0].clone();
        other.master_name = "other".to_owned();
        other.incidents[0].started_at += Duration::from_secs(1);
        view.groups.push(other);
        let names: Vec<&str> = view.incidents().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["other", "mymaster"]);
    }
}
