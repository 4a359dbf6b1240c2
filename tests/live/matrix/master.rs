//! What may happen to the master itself.

use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::Process;

use crate::faults::tell;
use crate::lab::{Lab, SOON};
use crate::matrix::scene::{PATIENCE, Scene, let_last};
use crate::proxy::Launch;

#[test]
fn a_freeze_shorter_than_down_after_costs_a_stall_and_no_error() {
    let freeze = Duration::from_secs(2);
    let lab = Lab::start(&unhurried());
    let proxy = lab.proxy();
    let (story, ()) = Scene::new(&lab, &proxy).play(|| {
        lab.node(0).freeze().unwrap();
        let_last(freeze);
        lab.node(0).thaw().unwrap();
    });
    let figures = story.judge("freeze shorter than down-after", lab.node(0), &[]);
    assert_eq!((figures.uncertain, figures.refused), (0, 0), "{figures:#?}");
    assert!(figures.longest_silence >= freeze, "{figures:#?}");
    assert!(
        figures.longest_silence < freeze + Duration::from_secs(1),
        "{figures:#?}"
    );
    assert!(
        figures.longest_read < Duration::from_secs(1),
        "{figures:#?}"
    );
}

#[test]
fn a_master_that_is_shut_down_loses_nothing() {
    let lab = Lab::start(&Plan::default());
    let proxy = lab.proxy();
    let (story, new) = Scene::new(&lab, &proxy).play(|| {
        lab.node(0).shutdown().unwrap();
        lab.wait_for_switch(lab.node(0), PATIENCE).unwrap()
    });
    // Since Redis 7.0 a master waits for its replicas before it ends.
    let figures = story.judge("SIGTERM", new, &[]);
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    assert_eq!(figures.refused, 0, "{figures:#?}");
}

#[test]
fn a_master_that_restarts_within_down_after_goes_on_as_master() {
    let plan = Plan {
        node_config: vec!["appendonly yes".to_owned()],
        ..unhurried()
    };
    let lab = Lab::start(&plan);
    let proxy = lab.proxy();
    let (story, ()) = Scene::new(&lab, &proxy).play(|| lab.node(0).restart().unwrap());
    // It appends to its file before it answers; only the machine's death would take that away.
    let figures = story.judge("restart within down-after", lab.node(0), &[]);
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    assert_eq!(figures.refused, 0, "{figures:#?}");
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

#[test]
fn the_new_master_may_die_before_the_old_one_returns() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        failover_timeout: Duration::from_secs(3),
        ..Plan::default()
    });
    let proxy = lab.proxy();
    let scene = Scene::new(&lab, &proxy);
    let (story, (third, crashes)) = scene.play(|| {
        let first_crash = kill(lab.node(0));
        let second = lab.wait_for_switch(lab.node(0), PATIENCE).unwrap();
        let mut others = lab.nodes()[1..].iter();
        let other = others.find(|node| node.addr() != second.addr()).unwrap();
        lab.wait_for_replica(other, second, SOON).unwrap();
        scene.wait_for_progress();
        lab.wait_until_seen(1, SOON).unwrap();
        let second_crash = kill(second);
        let third = lab.wait_for_switch(second, PATIENCE).unwrap();
        assert_eq!(third.addr(), other.addr());
        (third, [first_crash, second_crash])
    });
    let figures = story.judge("double failover", third, &crashes);
    assert!(figures.uncertain_each <= 2, "{figures:#?}");
    assert_eq!(figures.refused, 0, "{figures:#?}");
}

#[test]
fn killed_connections_leave_at_most_one_doubt_each() {
    let lab = Lab::start(&Plan::default());
    let proxy = lab.proxy();
    let scene = Scene::new(&lab, &proxy);
    let rounds = 5;
    let (story, ()) = scene.play(|| {
        for _ in 0..rounds {
            tell(lab.node(0), &["CLIENT", "KILL", "TYPE", "normal"]);
            scene.wait_for_progress();
        }
    });
    let figures = story.judge("CLIENT KILL TYPE normal", lab.node(0), &[]);
    assert!(figures.uncertain_each <= rounds, "{figures:#?}");
    assert_eq!(figures.refused, 0, "{figures:#?}");
    assert!(
        figures.longest_silence < Duration::from_secs(1),
        "{figures:#?}"
    );
}

#[test]
fn a_master_demoted_behind_sentinels_back_is_waited_for_and_never_left() {
    let lab = Lab::start(&unhurried());
    let demote = || drop(tell(lab.node(0), &["REPLICAOF", "127.0.0.1", "1"]));
    let restore = || drop(tell(lab.node(0), &["REPLICAOF", "NO", "ONE"]));
    behind_sentinels_back("REPLICAOF", &lab, demote, restore);
}

#[test]
fn the_target_of_a_failover_command_is_not_followed() {
    let lab = Lab::start(&unhurried());
    let hand_over = |from: &Process, to: &Process| {
        tell(from, &["FAILOVER"]);
        lab.wait_for_replica(from, to, SOON).unwrap();
    };
    let (old, new) = (lab.node(0), lab.node(1));
    behind_sentinels_back(
        "FAILOVER",
        &lab,
        || hand_over(old, new),
        || hand_over(new, old),
    );
}

/// `demote` takes the master's role away for some time; `restore` gives it back before the
/// Sentinels act on it.
fn behind_sentinels_back(cell: &str, lab: &Lab, demote: impl Fn(), restore: impl Fn()) {
    let hold = Duration::from_secs(1);
    let proxy = Launch::group(lab, "hold = \"1s\"\n").start();
    let (story, window) = Scene::new(lab, &proxy).play(|| {
        demote();
        let (began, stored) = (Instant::now(), tokens(lab.node(1)));
        let_last(3 * hold);
        assert_eq!(
            tokens(lab.node(1)),
            stored,
            "a write reached a node Sentinel does not name"
        );
        let window = began..Instant::now();
        restore();
        window
    });
    let figures = story.judge(cell, lab.node(0), &[]);
    assert!(figures.refused > 0, "{figures:#?}");
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    assert!(
        story.longest_read(&window) < Duration::from_secs(2),
        "{figures:#?}"
    );
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

/// Sentinels that take no node for dead within the time of a test.
pub(super) fn unhurried() -> Plan {
    Plan {
        down_after: 4 * SOON,
        ..Plan::default()
    }
}

/// Kills a node. Returns when.
pub(super) fn kill(node: &Process) -> Instant {
    node.kill().unwrap();
    Instant::now()
}

/// How many tokens a node has.
pub(super) fn tokens(node: &Process) -> Option<i64> {
    tell(node, &["LLEN", "tokens"]).int()
}
