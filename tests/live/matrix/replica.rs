//! What may happen to a replica while it is read from.

use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON};
use crate::matrix::figures::timed;
use crate::matrix::scene::{Scene, let_last};
use crate::routing::calls;

/// Longest time that a client may wait where a replica is lost.
const STALL_MAX: Duration = Duration::from_secs(1);

#[test]
fn a_killed_replica_costs_no_read() {
    lose_the_replica("replica killed", |lab| lab.node(1).kill().unwrap());
}

#[test]
fn a_frozen_replica_costs_no_read() {
    lose_the_replica("replica frozen", |lab| lab.node(1).freeze().unwrap());
}

#[test]
fn all_replicas_may_die_at_once() {
    let plan = Plan {
        replicas: 2,
        ..Plan::default()
    };
    lose("all replicas killed", &plan, |lab| {
        lab.nodes()[1..].iter().for_each(|it| it.kill().unwrap());
    });
}

fn lose_the_replica(fault: &str, act: impl Fn(&Lab)) {
    lose(fault, &Plan::default(), act);
}

fn lose(fault: &str, plan: &Plan, act: impl Fn(&Lab)) {
    let lab = Lab::start(plan);
    let proxy = lab.proxy();
    let (story, window) = Scene::new(&lab, &proxy).play(|| {
        // The two readers keep their replicas, which may be the same one.
        let reads = || {
            lab.nodes()[1..]
                .iter()
                .map(|it| calls(it, "get"))
                .sum::<u64>()
        };
        let read = wait_for(SOON, || (reads() >= 100).then_some(()));
        assert!(read.is_some(), "no replica was read from");
        let began = Instant::now();
        act(&lab);
        let_last(Duration::from_secs(3));
        began..Instant::now()
    });
    let figures = story.judge(fault, lab.node(0), &[]);
    figures.expect_no_error();
    let stall = story.longest_silence(&window).max(figures.longest_read);
    timed("stall", stall, (STALL_MAX, STALL_MAX));
}
