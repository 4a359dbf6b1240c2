//! Floor 1. What Sentinel publishes, read: channel and payload in, [`Event`] out.
//! Knows the grammar of Sentinel's `sentinelEvent()` and nothing of what an event leads to.

use crate::types::{MasterName, NodeAddr};

/// What one Sentinel has said about our master group over pub/sub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins a failover of `master` (`+try-failover`); its election may still fail.
    FailoverBegan {
        /// The master to be replaced.
        master: Option<NodeAddr>,
    },
    /// It leads the failover of `master` and goes on to promote (`+elected-leader`, the states up
    /// to the promotion, `+selected-slave`).
    FailoverDecided {
        /// The master to be replaced.
        master: Option<NodeAddr>,
        /// The replica that it has chosen, once it has.
        candidate: Option<NodeAddr>,
    },
    /// It has told the chosen replica to become a master, once and for all, and waits for that
    /// (`+failover-state-wait-promotion`).
    PromotionOrdered {
        /// The master to be replaced.
        master: Option<NodeAddr>,
        /// The replica.
        candidate: Option<NodeAddr>,
    },
    /// It has seen the chosen replica as a master (`+promoted-slave`) and answers the new address.
    Promoted {
        /// The master replaced.
        master: Option<NodeAddr>,
        /// The new master.
        candidate: Option<NodeAddr>,
    },
    /// It has replaced the master's address (`+switch-master`).
    Switched {
        /// The address before.
        master: Option<NodeAddr>,
        /// The address now.
        candidate: Option<NodeAddr>,
    },
    /// Its failover came to nothing (`-failover-abort-…`).
    FailoverAborted,
    /// Its failover is complete (`+failover-end`, `+failover-end-for-timeout`).
    FailoverEnded,
    /// It alone takes the master for down, or no longer (`+sdown`, `-sdown`).
    MasterSubjectivelyDown(bool),
    /// A quorum takes the master for down, or no longer (`+odown`, `-odown`).
    MasterObjectivelyDown(bool),
    /// The master's process was restarted (`+reboot`).
    MasterRebooted,
    /// A node reports another role than Sentinel has in mind, or the right one again.
    RoleChanged {
        /// The node.
        node: Option<NodeAddr>,
    },
    /// Something about a replica changed: found, lost, reconfigured, restarted.
    ReplicaChanged {
        /// The replica.
        node: Option<NodeAddr>,
    },
    /// Something about the set of Sentinels changed.
    SentinelsChanged,
    /// The group was configured anew (`+monitor`, `-monitor`, `+reset-master`, `+set`), or another
    /// Sentinel's newer configuration is being taken over (`+config-update-from`).
    Reconfigured,
    /// Its clock jumped and it does not act for a while, or does again (`+tilt`, `-tilt`).
    Tilt(bool),
    /// Something on a channel that matters, in words we do not understand: ask this Sentinel.
    Unclear,
}

/// Grammar and meaning of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Try,
    Decided,
    Ordered,
    Promoted,
    Switch,
    Abort,
    End,
    Sdown(bool),
    Odown(bool),
    Reboot,
    Role,
    Replica,
    Sentinels,
    Config,
    Tilt(bool),
}

#[rustfmt::skip]
const CHANNELS: &[(&str, Kind)] = &[
    ("+try-failover",                        Kind::Try),
    ("+elected-leader",                      Kind::Decided),
    ("+failover-state-select-slave",         Kind::Decided),
    ("+selected-slave",                      Kind::Decided),
    ("+failover-state-send-slaveof-noone",   Kind::Decided),
    ("+failover-state-wait-promotion",       Kind::Ordered),
    ("+promoted-slave",                      Kind::Promoted),
    ("+failover-state-reconf-slaves",        Kind::Config),
    ("+switch-master",                       Kind::Switch),
    ("+config-update-from",                  Kind::Config),
    ("-failover-abort-not-elected",          Kind::Abort),
    ("-failover-abort-no-good-slave",        Kind::Abort),
    ("-failover-abort-slave-timeout",        Kind::Abort),
    // Valkey 9: the master takes no FAILOVER in time (`SENTINEL FAILOVER … COORDINATED`).
    ("-failover-abort-master-timeout",       Kind::Abort),
    ("+failover-end",                        Kind::End),
    ("+failover-end-for-timeout",            Kind::End),
    ("+sdown",                               Kind::Sdown(true)),
    ("-sdown",                               Kind::Sdown(false)),
    ("+odown",                               Kind::Odown(true)),
    ("-odown",                               Kind::Odown(false)),
    ("+reboot",                              Kind::Reboot),
    ("+role-change",                         Kind::Role),
    ("-role-change",                         Kind::Role),
    ("+slave",                               Kind::Replica),
    ("+slave-reconf-sent",                   Kind::Replica),
    ("+slave-reconf-inprog",                 Kind::Replica),
    ("+slave-reconf-done",                   Kind::Replica),
    ("+slave-reconf-sent-be",                Kind::Replica),
    ("-slave-reconf-sent-timeout",           Kind::Replica),
    ("+convert-to-slave",                    Kind::Replica),
    ("+fix-slave-config",                    Kind::Replica),
    ("+sentinel",                            Kind::Sentinels),
    ("+sentinel-address-switch",             Kind::Sentinels),
    ("+sentinel-address-update",             Kind::Sentinels),
    ("+monitor",                             Kind::Config),
    ("-monitor",                             Kind::Config),
    ("+reset-master",                        Kind::Config),
    ("+set",                                 Kind::Config),
    ("+tilt",                                Kind::Tilt(true)),
    ("-tilt",                                Kind::Tilt(false)),
];

impl Event {
    /// The channels to subscribe to, by name: a pattern would need the right to all channels.
    pub fn channels() -> impl Iterator<Item = &'static str> {
        CHANNELS.iter().map(|(name, _)| *name)
    }

    /// Reads one message. `None` where it is about another master group.
    pub fn parse(channel: &str, payload: &str, ours: &MasterName) -> Option<Self> {
        let (_, kind) = CHANNELS.iter().find(|(name, _)| *name == channel)?;
        // Single spaces, empty words kept: an unresolved replica is `slave :6379  6379 @ …`.
        let words: Vec<&str> = payload.split(' ').collect();
        match *kind {
            Kind::Tilt(on) => Some(Self::Tilt(on)),
            Kind::Switch => Self::switched(&words, ours),
            other => Instance::parse(&words).map_or(Some(Self::Unclear), |instance| {
                (instance.group == ours.as_str()).then(|| Self::of(other, &instance))
            }),
        }
    }

    /// `<name> <old ip> <old port> <new ip> <new port>`.
    fn switched(words: &[&str], ours: &MasterName) -> Option<Self> {
        let [name, old_ip, old_port, new_ip, new_port] = words else {
            return Some(Self::Unclear);
        };
        (*name == ours.as_str()).then(|| Self::Switched {
            master: address(old_ip, old_port),
            candidate: address(new_ip, new_port),
        })
    }

    fn of(kind: Kind, about: &Instance<'_>) -> Self {
        let on_master = about.kind == "master";
        let on_sentinel = about.kind == "sentinel";
        let node = about.addr.clone();
        let master = about.master.clone();
        let candidate = if on_master { None } else { node.clone() };
        match kind {
            Kind::Try => Self::FailoverBegan { master },
            Kind::Decided => Self::FailoverDecided { master, candidate },
            Kind::Ordered => Self::PromotionOrdered { master, candidate },
            Kind::Promoted => Self::Promoted { master, candidate },
            Kind::Abort => Self::FailoverAborted,
            Kind::End => Self::FailoverEnded,
            Kind::Sdown(on) if on_master => Self::MasterSubjectivelyDown(on),
            Kind::Odown(on) if on_master => Self::MasterObjectivelyDown(on),
            Kind::Reboot if on_master => Self::MasterRebooted,
            Kind::Role => Self::RoleChanged { node },
            Kind::Sdown(_) | Kind::Odown(_) | Kind::Reboot if on_sentinel => Self::SentinelsChanged,
            Kind::Sdown(_) | Kind::Odown(_) | Kind::Reboot | Kind::Replica => {
                Self::ReplicaChanged { node }
            }
            Kind::Sentinels => Self::SentinelsChanged,
            // Tilt and switch have grammars of their own and were read before.
            Kind::Config | Kind::Switch | Kind::Tilt(_) => Self::Reconfigured,
        }
    }
}

/// `master <name> <ip> <port> …`, or `<kind> <name> <ip> <port> @ <master name> <ip> <port> …`.
struct Instance<'a> {
    kind: &'a str,
    addr: Option<NodeAddr>,
    group: &'a str,
    master: Option<NodeAddr>,
}

impl<'a> Instance<'a> {
    fn parse(words: &[&'a str]) -> Option<Self> {
        match words {
            ["master", group, ip, port, ..] => {
                let addr = address(ip, port);
                Some(Self {
                    kind: "master",
                    master: addr.clone(),
                    addr,
                    group,
                })
            }
            [
                kind @ ("slave" | "sentinel"),
                _,
                ip,
                port,
                "@",
                group,
                mip,
                mport,
                ..,
            ] => Some(Self {
                kind,
                addr: address(ip, port),
                group,
                master: address(mip, mport),
            }),
            _ => None,
        }
    }
}

fn address(ip: &str, port: &str) -> Option<NodeAddr> {
    NodeAddr::new(ip, port.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(channel: &str, payload: &str) -> Option<Event> {
        Event::parse(channel, payload, &MasterName::new("orders"))
    }

    fn addr(text: &str) -> Option<NodeAddr> {
        NodeAddr::parse(text, None).ok()
    }

    #[test]
    fn a_switch_of_our_master_carries_both_addresses() {
        let event = parse("+switch-master", "orders 10.0.0.1 6379 10.0.0.2 6380");
        let (master, candidate) = (addr("10.0.0.1:6379"), addr("10.0.0.2:6380"));
        assert_eq!(event, Some(Event::Switched { master, candidate }));
    }

    #[test]
    fn news_of_another_master_are_not_ours() {
        let check = |channel, payload| assert_eq!(parse(channel, payload), None, "{payload}");
        check("+switch-master", "orders2 10.0.0.1 6379 10.0.0.2 6380");
        check("+try-failover", "master other 10.0.0.1 6379");
        check(
            "+slave",
            "slave 10.0.0.2:6379 10.0.0.2 6379 @ other 10.0.0.1 6379",
        );
        check("switch-master", "orders 10.0.0.1 6379 10.0.0.2 6380");
    }

    #[test]
    fn an_empty_address_keeps_its_place_between_the_words() {
        let event = parse("+slave", "slave :6379  6379 @ orders 10.0.0.1 6379");
        assert_eq!(event, Some(Event::ReplicaChanged { node: None }));
        let event = parse("+switch-master", "orders 10.0.0.1 6379  6379");
        let master = addr("10.0.0.1:6379");
        assert_eq!(
            event,
            Some(Event::Switched {
                master,
                candidate: None
            })
        );
    }

    #[test]
    fn words_behind_the_instance_do_not_disturb() {
        let odown = parse("+odown", "master orders 10.0.0.1 6379 #quorum 2/2");
        assert_eq!(odown, Some(Event::MasterObjectivelyDown(true)));
        let role = parse(
            "-role-change",
            "slave [::2]:6379 ::2 6379 @ orders ::1 6379 new reported role is master",
        );
        assert_eq!(
            role,
            Some(Event::RoleChanged {
                node: addr("[::2]:6379")
            })
        );
    }

    #[test]
    fn the_chosen_replica_is_named_with_the_old_master() {
        let payload = "slave 10.0.0.2:6379 10.0.0.2 6379 @ orders 10.0.0.1 6379";
        let (master, candidate) = (addr("10.0.0.1:6379"), addr("10.0.0.2:6379"));
        let promoted = Event::Promoted {
            master: master.clone(),
            candidate: candidate.clone(),
        };
        assert_eq!(parse("+promoted-slave", payload), Some(promoted));
        let decided = Event::FailoverDecided {
            master: master.clone(),
            candidate,
        };
        assert_eq!(parse("+selected-slave", payload), Some(decided));
        let elected = Event::FailoverDecided {
            master,
            candidate: None,
        };
        assert_eq!(
            parse("+elected-leader", "master orders 10.0.0.1 6379"),
            Some(elected)
        );
    }

    #[test]
    fn down_signs_are_told_apart_by_whom_they_are_about() {
        let sentinel = "sentinel f00d 10.0.0.9 26379 @ orders 10.0.0.1 6379";
        let replica = "slave 10.0.0.2:6379 10.0.0.2 6379 @ orders 10.0.0.1 6379";
        assert_eq!(parse("+sdown", sentinel), Some(Event::SentinelsChanged));
        let node = addr("10.0.0.2:6379");
        assert_eq!(
            parse("-sdown", replica),
            Some(Event::ReplicaChanged { node })
        );
        let master = "master orders 10.0.0.1 6379";
        assert_eq!(
            parse("-sdown", master),
            Some(Event::MasterSubjectivelyDown(false))
        );
    }

    #[test]
    fn whatever_aborts_a_failover_is_subscribed_to_and_understood() {
        for why in [
            "not-elected",
            "no-good-slave",
            "slave-timeout",
            "master-timeout",
        ] {
            let channel = format!("-failover-abort-{why}");
            assert!(Event::channels().any(|known| known == channel), "{channel}");
            let ours = parse(&channel, "master orders 10.0.0.1 6379");
            assert_eq!(ours, Some(Event::FailoverAborted), "{channel}");
            assert_eq!(parse(&channel, "master other 10.0.0.1 6379"), None);
        }
    }

    #[test]
    fn tilt_names_no_master() {
        assert_eq!(
            parse("+tilt", "#tilt mode entered"),
            Some(Event::Tilt(true))
        );
        assert_eq!(
            parse("-tilt", "#tilt mode exited"),
            Some(Event::Tilt(false))
        );
    }

    #[test]
    fn words_we_do_not_understand_are_a_reason_to_ask() {
        for payload in [
            "",
            " ",
            "master",
            "slave a b c",
            "orders",
            "orders 1 2 3 4 5",
        ] {
            assert_eq!(
                parse("+switch-master", payload),
                Some(Event::Unclear),
                "{payload:?}"
            );
        }
        assert_eq!(
            parse("+slave", "slave x 10.0.0.2 6379"),
            Some(Event::Unclear)
        );
    }

    proptest::proptest! {
        #[test]
        fn no_payload_makes_the_reader_fall(row in 0..CHANNELS.len(), payload in "[ a-z0-9:@#]*") {
            let (channel, _) = CHANNELS[row];
            let _ = parse(channel, &payload);
        }
    }
}
