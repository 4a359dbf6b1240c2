//! Floor 1. What holds in every order of inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::world::{A, B, C, S1, S2, S3, World, addr, master, replica_of, settings, view};
use crate::topology::{
    Acks, Action, Event, FailoverStep, Flags, Machine, NodeAnswer, NodeFailure, NodeRole, Note,
    Phase, Report, ReportKind, SentinelFailure, Settings, Source, Subscription, View,
};
use crate::types::{Generation, NodeAddr, Replication, Time};

const NODES: [&str; 3] = [A, B, C];
const SENTINELS: [&str; 3] = [S1, S2, S3];

#[derive(Clone, Debug)]
enum Input {
    Event {
        sentinel: usize,
        channel: usize,
        from: usize,
        to: usize,
    },
    Subscription {
        sentinel: usize,
        on: bool,
    },
    View {
        sentinel: usize,
        view: View,
    },
    ViewFailed {
        sentinel: usize,
    },
    Node {
        node: usize,
        answer: NodeAnswer,
    },
    NodeFailed {
        node: usize,
        silent: bool,
    },
    Report {
        worker: usize,
        kind: ReportKind,
    },
    Hold {
        ms: u64,
    },
    LetGo,
    Timeout,
    Wait {
        ms: u64,
    },
}

fn any_view() -> impl Strategy<Value = View> {
    let step = prop_oneof![
        Just(FailoverStep::None),
        Just(FailoverStep::WaitStart),
        Just(FailoverStep::SelectReplica),
        Just(FailoverStep::WaitPromotion),
        Just(FailoverStep::ReconfReplicas),
    ];
    let flags = (any::<[bool; 5]>(), any::<bool>());
    (0..4_usize, 0..4_u64, step, flags).prop_map(|(master, epoch, step, (flags, tilt))| {
        let Some(master) = NODES.get(master) else {
            return View::default();
        };
        let others: Vec<&str> = NODES.into_iter().filter(|node| node != master).collect();
        let mut told = view(master, epoch, &others);
        let entry = told.entry.as_mut().unwrap();
        entry.failover = step;
        let [
            s_down,
            o_down,
            disconnected,
            failover_in_progress,
            force_failover,
        ] = flags;
        entry.flags = Flags {
            s_down,
            o_down,
            disconnected,
            failover_in_progress,
            force_failover,
        };
        told.tilt = tilt;
        told
    })
}

fn any_role() -> impl Strategy<Value = NodeRole> {
    prop_oneof![
        3 => Just(NodeRole::Master { offset: 7 }),
        3 => (0..3_usize, any::<bool>()).prop_map(|(of, connected)| NodeRole::Replica {
            master: Some(addr(NODES[of])),
            connected,
            offset: 7,
        }),
        1 => Just(NodeRole::NotData),
        1 => Just(NodeRole::Busy),
        1 => Just(NodeRole::Untold { why: "NOPERM".to_owned() }),
    ]
}

fn any_history() -> impl Strategy<Value = Replication> {
    let id = || prop_oneof![Just("x".to_owned()), Just("y".to_owned())];
    let left_at = proptest::option::of(0..4_u64);
    (any::<bool>(), id(), 0..4_u64, id(), left_at).prop_map(
        |(is_master, id, offset, left, left_at)| Replication {
            is_master,
            id,
            offset,
            left,
            left_at,
        },
    )
}

fn any_kind() -> impl Strategy<Value = ReportKind> {
    let node = (0..3_usize).prop_map(|node| addr(NODES[node]));
    prop_oneof![
        (0..20_u64).prop_map(|it| ReportKind::Quiet {
            generation: Generation::new(it)
        }),
        node.clone().prop_map(|node| ReportKind::LinkLost { node }),
        node.clone()
            .prop_map(|node| ReportKind::ConnectFailed { node }),
        node.clone().prop_map(|node| ReportKind::Demoted { node }),
        node.prop_map(|node| ReportKind::Silent { node }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        3 => (0..3_usize, 0..64_usize, 0..3_usize, 0..3_usize).prop_map(
            |(sentinel, channel, from, to)| Input::Event { sentinel, channel, from, to }
        ),
        1 => (0..3_usize, any::<bool>())
            .prop_map(|(sentinel, on)| Input::Subscription { sentinel, on }),
        6 => (0..3_usize, any_view()).prop_map(|(sentinel, view)| Input::View { sentinel, view }),
        1 => (0..3_usize).prop_map(|sentinel| Input::ViewFailed { sentinel }),
        6 => (0..3_usize, any_role(), 0..3_u8, proptest::option::of(any_history())).prop_map(
            |(node, role, run_id, replication)| {
                let run_id = Some(format!("{node} {run_id}"));
                Input::Node { node, answer: NodeAnswer { role, run_id, replication, zone: None } }
            }
        ),
        2 => (0..3_usize, any::<bool>())
            .prop_map(|(node, silent)| Input::NodeFailed { node, silent }),
        2 => (0..3_usize, any_kind()).prop_map(|(worker, kind)| Input::Report { worker, kind }),
        1 => (0..100_000_u64).prop_map(|ms| Input::Hold { ms }),
        1 => Just(Input::LetGo),
        2 => Just(Input::Timeout),
        2 => (0..20_000_u64).prop_map(|ms| Input::Wait { ms }),
    ]
}

/// A machine under arbitrary inputs, and what was true of the world at its last word.
struct Run {
    machine: Machine,
    now: Time,
    /// Nodes whose last answer was that they are master.
    masters: BTreeSet<NodeAddr>,
    /// Nodes that told to be a master when they last told a role.
    told: BTreeSet<NodeAddr>,
    /// Nodes that have been asked and have not answered yet, and since when.
    open: BTreeMap<NodeAddr, Time>,
    /// After so long a question has no answer.
    lost: Duration,
    escaped: bool,
    last: (Generation, u64),
    /// The master of the last snapshot, if that held writes.
    held: Option<NodeAddr>,
}

impl Run {
    /// Takes an answer; returns whether it is in time, `None` if nobody has asked. Whether one that
    /// comes after its question has expired still counts is not known here: by such a one nothing
    /// is taken back.
    fn close(&mut self, node: &NodeAddr) -> Option<bool> {
        let asked = self.open.remove(node)?;
        Some(self.now.since(asked) < self.lost)
    }

    /// Keeps in mind who has proven to be a master. A busy master in use is what it told last.
    fn learn(&mut self, node: &NodeAddr, role: &NodeRole) {
        let Some(in_time) = self.close(node) else {
            return;
        };
        let in_use = self.machine.snapshot().master.as_ref() == Some(node);
        let is_master = match role {
            NodeRole::Master { .. } => true,
            NodeRole::Busy => in_use && self.told.contains(node),
            _ => false,
        };
        for set in [&mut self.masters, &mut self.told] {
            if in_time {
                set.remove(node);
            }
            set.extend(is_master.then(|| node.clone()));
        }
    }

    fn feed(&mut self, input: Input) {
        let now = self.now;
        let machine = &mut self.machine;
        match input {
            Input::Event {
                sentinel,
                channel,
                from,
                to,
            } => {
                self.feed_event(&addr(SENTINELS[sentinel]), channel, NODES[from], NODES[to]);
            }
            Input::Subscription { sentinel, on } => {
                let state = if on {
                    Subscription::On
                } else {
                    Subscription::Off
                };
                machine.handle_subscription(now, &addr(SENTINELS[sentinel]), state);
            }
            Input::View { sentinel, view } => {
                machine.handle_view(now, &addr(SENTINELS[sentinel]), view);
            }
            Input::ViewFailed { sentinel } => {
                let failure = SentinelFailure::Unreachable {
                    why: "refused".to_owned(),
                };
                machine.handle_view_failed(now, &addr(SENTINELS[sentinel]), failure, 9);
            }
            Input::Node { node, answer } => {
                let node = addr(NODES[node]);
                self.learn(&node, &answer.role);
                self.machine.handle_node(now, &node, answer);
            }
            Input::NodeFailed { node, silent } => {
                let node = addr(NODES[node]);
                if self.close(&node) == Some(true) {
                    self.masters.remove(&node);
                }
                let failure = if silent {
                    NodeFailure::NoAnswer
                } else {
                    NodeFailure::NoConnection {
                        why: "refused".to_owned(),
                    }
                };
                self.machine.handle_node_failed(now, &node, failure, 9);
            }
            Input::Report { worker, kind } => {
                machine.handle_report(now, Report { worker, kind });
            }
            Input::Hold { ms } => {
                // Refused or not: what follows must hold.
                let _ = machine.hold(now, now + Duration::from_millis(ms));
            }
            Input::LetGo => machine.let_go(now),
            Input::Timeout => {
                self.now = machine.poll_timeout().unwrap().max(now);
                machine.handle_timeout(self.now);
            }
            Input::Wait { ms } => self.now = now + Duration::from_millis(ms),
        }
    }

    fn feed_event(&mut self, sentinel: &NodeAddr, channel: usize, from: &str, to: &str) {
        let channels: Vec<&str> = Event::channels().collect();
        let channel = channels[channel % channels.len()];
        let (from, to) = (addr(from), addr(to));
        let (ip, new) = (from.host(), to.host());
        let payload = match channel {
            "+switch-master" => format!("orders {ip} 6379 {new} 6379"),
            "+try-failover" | "+odown" | "+elected-leader" => format!("master orders {ip} 6379"),
            _ => format!("slave x {new} 6379 @ orders {ip} 6379"),
        };
        self.machine
            .handle_event(self.now, sentinel, channel, &payload);
    }

    fn check(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Note(Note::RegressionAccepted { .. }) => self.escaped = true,
                Action::Publish(snapshot) => {
                    let (generation, epoch) = self.last;
                    assert_eq!(snapshot.generation, generation.next());
                    assert!(
                        snapshot.epoch.get() >= epoch || self.escaped,
                        "an older epoch"
                    );
                    self.escaped = false;
                    if snapshot.phase == Phase::Stable {
                        let master = snapshot.master.as_ref().unwrap();
                        assert!(!snapshot.replicas.contains(master));
                    }
                    assert_eq!(snapshot.master.is_none(), snapshot.phase == Phase::Unknown);
                    let holds = matches!(snapshot.phase, Phase::Switching { .. });
                    let other = if holds { Acks::Doubtful } else { Acks::Kept };
                    assert_ne!(snapshot.acks, other);
                    if self.held.as_ref() == snapshot.master.as_ref() && !holds {
                        assert_eq!(snapshot.acks, Acks::Given, "the master stayed");
                    }
                    self.held = snapshot.master.clone().filter(|_| holds);
                    self.last = (snapshot.generation, snapshot.epoch.get());
                }
                Action::AskNode(node) => {
                    self.open.insert(node, self.now);
                }
                _ => {}
            }
        }
        assert!(
            self.machine.poll_timeout().is_some(),
            "nothing is open or due"
        );
    }
}

fn any_strict() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of((1..10_u64).prop_map(Duration::from_secs))
}

fn begin(strict_quorum: Option<Duration>) -> Run {
    let source = Source::Sentinels(SENTINELS.map(addr).to_vec());
    let settings = Settings {
        strict_quorum,
        ..settings(source)
    };
    let lost = settings.timings.lost;
    Run {
        machine: Machine::new(settings, Time::ZERO),
        now: Time::ZERO,
        masters: BTreeSet::new(),
        told: BTreeSet::new(),
        open: BTreeMap::new(),
        lost,
        escaped: false,
        last: (Generation::FIRST, 0),
        held: None,
    }
}

fn run(inputs: Vec<Input>, strict: Option<Duration>) {
    let mut run = begin(strict);
    run.check();
    for input in inputs {
        let before = run.machine.snapshot().writable_master().cloned();
        run.feed(input);
        let after = run.machine.snapshot().writable_master().cloned();
        if let Some(master) = after.filter(|_| before != run.machine.snapshot().master) {
            assert!(run.masters.contains(&master), "{master} was not proven");
        }
        run.check();
    }
}

/// Time left alone: whatever happened before, a healthy world is served in the end.
fn recovers(inputs: Vec<Input>, strict: Option<Duration>) {
    let mut world = World::unstarted();
    let mut run = begin(strict);
    for input in inputs {
        run.feed(input);
        run.check();
    }
    world.machine = run.machine;
    world.now = run.now;
    world.all_see(&view(B, 9, &[C]));
    world.set(A, replica_of(B));
    world.set(B, master());
    world.set(C, replica_of(B));
    world.run(90_000);
    assert_eq!(
        world.writable().as_deref(),
        Some(B),
        "{:#?}",
        world.machine.status()
    );
    assert_eq!(world.replicas(), [C]);
}

proptest! {
    #[test]
    fn no_order_of_inputs_breaks_the_promises(
        inputs in proptest::collection::vec(any_input(), 0..200),
        strict in any_strict()
    ) {
        run(inputs, strict);
    }

}

proptest! {
    // Each case lives through a minute and a half of invented time.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_history_ends_on_the_healthy_master(
        inputs in proptest::collection::vec(any_input(), 0..120),
        strict in any_strict()
    ) {
        recovers(inputs, strict);
    }
}
