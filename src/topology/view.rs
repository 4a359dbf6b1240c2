//! Floor 1. What one Sentinel answers when asked, read from its field lists, and what a node says.
//! Knows the field names of `SENTINEL MASTER|REPLICAS|SENTINELS` and `ROLE`; judges nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::types::{ConfigEpoch, NodeAddr, Replication};

/// One field list of a Sentinel's answer. Fields come and go with versions and states, so they are
/// read by name and never by place.
pub type Fields = BTreeMap<String, String>;

/// All that one Sentinel said in one round of questions about our group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Its own id (`SENTINEL MYID`, Redis 6.2 and later).
    pub id: Option<String>,
    /// Whether it monitors a master of our name.
    pub known: bool,
    /// The address from `SENTINEL GET-MASTER-ADDR-BY-NAME`, the only one to be trusted; `None`
    /// where it does not know (empty host or port 0 included).
    pub master: Option<NodeAddr>,
    /// `SENTINEL MASTER`. Its address is not read: on the leader it is the old one together with
    /// the new epoch until the failover has ended.
    pub entry: Option<MasterEntry>,
    /// `SENTINEL REPLICAS`.
    pub replicas: Vec<ReplicaEntry>,
    /// `SENTINEL SENTINELS`: all but the one asked.
    pub sentinels: Vec<SentinelEntry>,
    /// Whether it is in tilt mode (`INFO sentinel`): its down flags then mean nothing.
    pub tilt: bool,
}

/// A master as `SENTINEL MASTER` describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MasterEntry {
    /// `config-epoch`.
    pub epoch: ConfigEpoch,
    /// `flags`.
    pub flags: Flags,
    /// `failover-state`.
    pub failover: FailoverStep,
    /// `role-reported`: by the node itself, in its `INFO`.
    pub role: Option<ReportedRole>,
    /// `num-other-sentinels`.
    pub other_sentinels: u32,
    /// `quorum`.
    pub quorum: u32,
    /// `down-after-milliseconds`.
    pub down_after: Option<Duration>,
}

/// A replica as `SENTINEL REPLICAS` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaEntry {
    /// `ip` and `port`; `None` while Sentinel cannot resolve its name.
    pub addr: Option<NodeAddr>,
    /// `runid`, empty until Sentinel's first `INFO`.
    pub run_id: Option<String>,
    /// `flags`.
    pub flags: Flags,
    /// `role-reported`.
    pub role: Option<ReportedRole>,
    /// Whether `master-link-status` is `ok`.
    pub link_ok: bool,
    /// `master-host` and `master-port`; `None` for `?`.
    pub master: Option<NodeAddr>,
    /// `slave-repl-offset`.
    pub offset: u64,
    /// `slave-priority`; 0 is never promoted.
    pub priority: u32,
}

/// Another Sentinel as `SENTINEL SENTINELS` lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentinelEntry {
    /// `ip` and `port`; `None` where the address was invalidated.
    pub addr: Option<NodeAddr>,
    /// `runid`: what it answers to `SENTINEL MYID`.
    pub id: Option<String>,
}

/// The words of `flags` that matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a set of independent flags, as Redis sends it"
)]
pub struct Flags {
    /// This Sentinel takes the node for down.
    pub s_down: bool,
    /// A quorum takes the master for down.
    pub o_down: bool,
    /// This Sentinel has no link to the node.
    pub disconnected: bool,
    /// This Sentinel leads, or tries to lead, a failover.
    pub failover_in_progress: bool,
    /// The failover was commanded (`SENTINEL FAILOVER`).
    pub force_failover: bool,
}

/// Steps of a failover, in their order (`failover-state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailoverStep {
    /// No failover, or a word we do not know.
    #[default]
    None,
    /// Waiting to be elected.
    WaitStart,
    /// Elected; choosing a replica.
    SelectReplica,
    /// Telling it to be master.
    SendReplicaofNoOne,
    /// Waiting until it says so.
    WaitPromotion,
    /// It is master; the other replicas are being moved to it.
    ReconfReplicas,
    /// About to publish `+switch-master`.
    UpdateConfig,
}

/// The role that a node reports to Sentinel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportedRole {
    /// `master`.
    Master,
    /// `slave`.
    Replica,
}

/// What a node answered to `ROLE` (or to `INFO replication`, where `ROLE` is renamed).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnswer {
    /// Its role.
    pub role: NodeRole,
    /// `run_id` of its process, where `INFO` may be asked.
    pub run_id: Option<String>,
    /// The history that it writes or follows, where `INFO` may be asked.
    pub replication: Option<Replication>,
    /// Its zone, where `INFO` may be asked and tells one (Valkey `availability-zone`).
    pub zone: Option<String>,
}

/// The role that a node has by its own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRole {
    /// A master at this replication offset.
    Master {
        /// Bytes of its replication stream.
        offset: u64,
    },
    /// A replica.
    Replica {
        /// Of this master, as far as it can be read.
        master: Option<NodeAddr>,
        /// Whether its link to the master is `connected`, not connecting or syncing.
        connected: bool,
        /// Bytes of the master's stream that it has, 0 before its first sync.
        offset: u64,
    },
    /// A Sentinel or another thing that is no data node.
    NotData,
    /// It runs a script that does not end soon: until then it tells nothing, and nobody can change
    /// its role (`REPLICAOF` is not among what Redis accepts meanwhile).
    Busy,
    /// Alive, but it does not tell (no permission, renamed commands, an error instead).
    Untold {
        /// Its words.
        why: String,
    },
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master { .. } => f.write_str("master"),
            Self::Replica {
                master, connected, ..
            } => {
                let link = if *connected { "" } else { ", link down" };
                match master {
                    Some(master) => write!(f, "replica of {master}{link}"),
                    None => write!(f, "replica of an unknown master{link}"),
                }
            }
            Self::NotData => f.write_str("not a data node"),
            Self::Busy => f.write_str("busy with a script"),
            Self::Untold { why } => write!(f, "role not told: {why}"),
        }
    }
}

/// Why a node gave no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFailure {
    /// No connection, or it ended before the answer.
    NoConnection {
        /// The system's words.
        why: String,
    },
    /// Connected or connecting, but silent until the deadline.
    NoAnswer,
}

/// Why a Sentinel gave no view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SentinelFailure {
    /// No connection, no answer in time, or a refusal.
    Unreachable {
        /// The words of the system or the Sentinel.
        why: String,
    },
    /// Something answers there, but it is no Sentinel.
    NotASentinel,
}

impl View {
    /// The address and the epoch it belongs to, where this Sentinel knows both.
    pub fn vote(&self) -> Option<(&NodeAddr, ConfigEpoch)> {
        let entry = self.entry.as_ref()?;
        Some((self.master.as_ref()?, entry.epoch))
    }
}

impl MasterEntry {
    /// Reads the reply of `SENTINEL MASTER`.
    pub fn from_fields(fields: &Fields) -> Self {
        Self {
            epoch: ConfigEpoch::new(number(fields, "config-epoch")),
            flags: Flags::parse(text(fields, "flags")),
            failover: FailoverStep::parse(text(fields, "failover-state")),
            role: ReportedRole::parse(text(fields, "role-reported")),
            other_sentinels: small(fields, "num-other-sentinels"),
            quorum: small(fields, "quorum"),
            down_after: fields
                .get("down-after-milliseconds")
                .and_then(|value| value.parse().ok())
                .map(Duration::from_millis),
        }
    }
}

impl ReplicaEntry {
    /// Reads one element of the reply of `SENTINEL REPLICAS`.
    pub fn from_fields(fields: &Fields) -> Self {
        Self {
            addr: address(fields, "ip", "port"),
            run_id: filled(fields, "runid"),
            flags: Flags::parse(text(fields, "flags")),
            role: ReportedRole::parse(text(fields, "role-reported")),
            link_ok: text(fields, "master-link-status") == "ok",
            master: address(fields, "master-host", "master-port")
                .filter(|master| master.host() != "?"),
            offset: number(fields, "slave-repl-offset"),
            priority: small(fields, "slave-priority"),
        }
    }
}

impl SentinelEntry {
    /// Reads one element of the reply of `SENTINEL SENTINELS`.
    pub fn from_fields(fields: &Fields) -> Self {
        Self {
            addr: address(fields, "ip", "port"),
            id: filled(fields, "runid"),
        }
    }
}

impl Flags {
    /// Reads the comma-separated words, whole: `master_down` is not `master`.
    pub fn parse(text: &str) -> Self {
        let mut flags = Self::default();
        for word in text.split(',') {
            match word {
                "s_down" => flags.s_down = true,
                "o_down" => flags.o_down = true,
                "disconnected" => flags.disconnected = true,
                "failover_in_progress" => flags.failover_in_progress = true,
                "force_failover" => flags.force_failover = true,
                _ => {}
            }
        }
        flags
    }
}

impl FailoverStep {
    fn parse(text: &str) -> Self {
        match text {
            "wait_start" => Self::WaitStart,
            "select_slave" => Self::SelectReplica,
            "send_slaveof_noone" => Self::SendReplicaofNoOne,
            "wait_promotion" => Self::WaitPromotion,
            "reconf_slaves" => Self::ReconfReplicas,
            "update_config" => Self::UpdateConfig,
            _ => Self::None,
        }
    }
}

impl ReportedRole {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "master" => Some(Self::Master),
            "slave" => Some(Self::Replica),
            _ => None,
        }
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

fn filled(fields: &Fields, name: &str) -> Option<String> {
    fields.get(name).filter(|value| !value.is_empty()).cloned()
}

fn number(fields: &Fields, name: &str) -> u64 {
    text(fields, name).parse().unwrap_or(0)
}

fn small(fields: &Fields, name: &str) -> u32 {
    text(fields, name).parse().unwrap_or(0)
}

fn address(fields: &Fields, host: &str, port: &str) -> Option<NodeAddr> {
    NodeAddr::new(text(fields, host), text(fields, port).parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn flags_are_compared_as_whole_words() {
        assert_eq!(
            Flags::parse("master_down,slave,master_reboot"),
            Flags::default()
        );
        let flags = Flags::parse("s_down,master,failover_in_progress,force_failover");
        assert!(flags.s_down && flags.failover_in_progress && flags.force_failover);
        assert!(!flags.o_down && !flags.disconnected);
    }

    #[test]
    fn a_master_entry_has_an_epoch_and_no_address() {
        let entry = MasterEntry::from_fields(&fields(&[
            ("name", "orders"),
            ("ip", "10.0.0.1"),
            ("flags", "master,failover_in_progress"),
            ("failover-state", "reconf_slaves"),
            ("config-epoch", "7"),
            ("down-after-milliseconds", "3000"),
            ("num-other-sentinels", "2"),
            ("quorum", "2"),
            ("role-reported", "master"),
            ("a-field-of-a-later-version", "x"),
        ]));
        assert_eq!(entry.epoch, ConfigEpoch::new(7));
        assert_eq!(entry.failover, FailoverStep::ReconfReplicas);
        assert_eq!(entry.down_after, Some(Duration::from_secs(3)));
        assert_eq!((entry.other_sentinels, entry.quorum), (2, 2));
        assert_eq!(entry.role, Some(ReportedRole::Master));
    }

    #[test]
    fn a_replica_without_a_master_has_a_question_mark() {
        let entry = ReplicaEntry::from_fields(&fields(&[
            ("ip", "10.0.0.2"),
            ("port", "6379"),
            ("runid", ""),
            ("master-host", "?"),
            ("master-port", "0"),
            ("master-link-status", "err"),
        ]));
        assert_eq!(entry.master, None);
        assert_eq!(entry.run_id, None);
        assert!(!entry.link_ok);
    }

    #[test]
    fn an_empty_address_or_port_0_is_no_address() {
        for pairs in [
            [("ip", ""), ("port", "6379")],
            [("ip", "10.0.0.2"), ("port", "0")],
        ] {
            assert_eq!(ReplicaEntry::from_fields(&fields(&pairs)).addr, None);
            assert_eq!(SentinelEntry::from_fields(&fields(&pairs)).addr, None);
        }
    }
}
