//! What may happen to the master itself.

use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::Process;

use crate::failover::listen;
use crate::lab::tell;
use crate::lab::{Lab, SEEN, SOON};
use crate::matrix::figures::{timed, took};
use crate::matrix::scene::{PATIENT, Scene, let_last};
use crate::matrix::story::Loss;
use crate::proxy::{Launch, Proxy};

/// Time from Sentinel's news of a new master to the first acknowledgement there.
pub(super) const RETURN_MAX: Duration = Duration::from_millis(200);

/// What a stall may have beyond the fault that is its reason.
const BEYOND: Duration = Duration::from_millis(200);

/// Longest time that a client may wait where nothing but connections are lost.
const STALL_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_freeze_shorter_than_down_after_costs_a_stall_and_no_error() {
    let lab = Lab::start(&hasty());
    freeze("SIGSTOP for 600 ms", &lab, Duration::from_millis(600));
}

#[test]
fn a_long_freeze_shorter_than_down_after_costs_a_stall_and_no_error() {
    let lab = Lab::start(&unhurried());
    freeze(
        "SIGSTOP for 2 s, down-after 20 s",
        &lab,
        Duration::from_secs(2),
    );
}

fn freeze(fault: &str, lab: &Lab, time: Duration) {
    let proxy = lab.proxy();
    let (story, ()) = Scene::new(lab, &proxy).play(|| {
        lab.node(0).freeze().unwrap();
        let_last(time);
        lab.node(0).thaw().unwrap();
    });
    let figures = story.judge(fault, lab.node(0), &[]);
    figures.expect_no_error();
    assert!(figures.longest_silence >= time, "{figures:#?}");
    let most = time + BEYOND;
    timed("stall", figures.longest_silence, (most, most));
    timed("read_stall", figures.longest_read, (STALL_MAX, STALL_MAX));
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

#[test]
fn a_master_that_is_shut_down_loses_nothing() {
    let lab = Lab::start(&hasty());
    let proxy = patient(&lab);
    let scene = Scene::new(&lab, &proxy).patient(PATIENT);
    let news = listen(&lab);
    let (story, new) = scene.play(|| {
        lab.node(0).shutdown().unwrap();
        lab.wait_for_switch(lab.node(0), PATIENT).unwrap()
    });
    // Since Redis 7.0 a master waits for its replicas before it ends.
    let figures = story.judge("SIGTERM", new, &[]);
    figures.expect_doubts(1);
    let first = news.recv().expect("Sentinel announces a new master");
    took("ack", story.first_acknowledgement_after(first));
    took("stall", figures.longest_silence);
}

#[test]
fn a_master_that_restarts_within_down_after_goes_on_as_master() {
    let plan = Plan {
        node_config: ["appendonly yes", "appendfsync no"]
            .map(str::to_owned)
            .to_vec(),
        ..unhurried()
    };
    let lab = Lab::start(&plan);
    let proxy = lab.proxy();
    let (story, ()) = Scene::new(&lab, &proxy).play(|| lab.node(0).restart().unwrap());
    // It appends to its file before it answers; only the machine's death would take that away.
    let figures = story.judge("kill -9, restart within down-after", lab.node(0), &[]);
    figures.expect_doubts(1);
    took("stall", figures.longest_silence);
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

#[test]
fn the_new_master_may_die_before_the_old_one_returns() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        failover_timeout: Duration::from_secs(3),
        ..Plan::default()
    });
    let proxy = patient(&lab);
    let scene = Scene::new(&lab, &proxy).patient(PATIENT);
    let news = listen(&lab);
    let (story, (third, deaths)) = scene.play(|| {
        let first_death = kill(lab.node(0));
        let second = lab.wait_for_switch(lab.node(0), PATIENT).unwrap();
        let mut others = lab.nodes()[1..].iter();
        let other = others.find(|node| node.addr() != second.addr()).unwrap();
        lab.wait_for_replica(other, second, SOON).unwrap();
        scene.wait_for_progress();
        lab.wait_until_seen(1, SEEN).unwrap();
        let second_death = kill(second);
        let third = lab.wait_for_switch(second, PATIENT).unwrap();
        assert_eq!(third.addr(), other.addr());
        (third, [first_death, second_death])
    });
    let figures = story.judge("double failover", third, &deaths.map(Loss::Death));
    figures.expect_doubts(2);
    let news: Vec<Instant> = news.try_iter().collect();
    let returns = deaths.map(|death| {
        let first = news.iter().find(|it| **it > death).copied();
        story.first_acknowledgement_after(first.expect("Sentinel announces a new master"))
    });
    timed("ack", returns[0].max(returns[1]), (RETURN_MAX, RETURN_MAX));
    took("stall", figures.longest_silence);
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
    let figures = story.judge("CLIENT KILL TYPE normal, 5 times", lab.node(0), &[]);
    figures.expect_doubts(rounds);
    timed("stall", figures.longest_silence, (STALL_MAX, STALL_MAX));
}

#[test]
fn a_master_demoted_behind_sentinels_back_is_waited_for_and_never_left() {
    let lab = Lab::start(&unhurried());
    let demote = || drop(tell(lab.node(0), &["REPLICAOF", "127.0.0.1", "1"]));
    let restore = || drop(tell(lab.node(0), &["REPLICAOF", "NO", "ONE"]));
    behind_sentinels_back("manual REPLICAOF", &lab, demote, restore);
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
        "manual FAILOVER",
        &lab,
        || hand_over(old, new),
        || hand_over(new, old),
    );
}

/// `demote` takes the master's role away for some time; `restore` gives it back before the
/// Sentinels act on it.
fn behind_sentinels_back(fault: &str, lab: &Lab, demote: impl Fn(), restore: impl Fn()) {
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
    let figures = story.judge(fault, lab.node(0), &[]);
    assert!(figures.refused > 0, "{figures:#?}");
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    let read = story.longest_read(&window);
    timed("read_stall", read, (STALL_MAX, STALL_MAX));
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

/// Sentinels that take no node for dead within the time of a test.
pub(super) fn unhurried() -> Plan {
    Plan {
        down_after: 4 * SOON,
        ..Plan::default()
    }
}

/// Sentinels as people run them who want a fast failover. Where they must vote again, they do so
/// after twice the failover timeout.
pub(super) fn hasty() -> Plan {
    Plan {
        down_after: Duration::from_secs(1),
        failover_timeout: Duration::from_secs(3),
        ..Plan::default()
    }
}

/// A Switchman that waits for Sentinels that must vote again.
pub(super) fn patient(lab: &Lab) -> Proxy {
    patient_launch(lab).start()
}

/// How such a one is started.
pub(super) fn patient_launch(lab: &Lab) -> Launch {
    Launch::group(lab, "hold = \"30s\"\n")
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
