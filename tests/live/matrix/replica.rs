//! What may happen to a replica while it is read from.

use std::ops::Range;
use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::faults::{Fault, Fronted, NODES};
use crate::lab::tell;
use crate::lab::{Lab, SOON};
use crate::matrix::figures::{report, timed, took};
use crate::matrix::master::unhurried;
use crate::matrix::scene::{PATIENT, Scene, let_last};
use crate::matrix::story::Story;
use crate::proxy::{Launch, Proxy};
use crate::routing::calls;
use crate::version::debug_lines;

/// Longest time that a client may wait where a replica is lost.
const STALL_MAX: Duration = Duration::from_secs(1);

/// The same for a read where the replica's socket closes.
const CLOSED_MAX: Duration = Duration::from_millis(50);

/// Time before a fault in which reads take as long as they do on this machine.
const CALM: Duration = Duration::from_secs(1);

/// Keys of a dataset that takes a while to be sent and loaded.
const MANY_KEYS: &str = "300000";

/// How late a replica is that lags.
const LAG: Duration = Duration::from_secs(2);

/// Sentinel asks a master for its replicas every ten seconds.
const DISCOVERY_MAX: Duration = Duration::from_secs(25);

#[test]
fn a_killed_replica_costs_no_read() {
    let lab = Lab::start(&Plan::default());
    let act = || lab.node(1).kill().unwrap();
    disturb("replica killed", &lab, CLOSED_MAX, act);
}

#[test]
fn a_frozen_replica_costs_no_read() {
    let lab = Lab::start(&Plan::default());
    let act = || lab.node(1).freeze().unwrap();
    disturb("replica frozen", &lab, STALL_MAX, act);
}

#[test]
fn all_replicas_may_die_at_once() {
    let lab = Lab::start(&two_replicas());
    disturb("all replicas killed", &lab, CLOSED_MAX, || {
        lab.nodes()[1..].iter().for_each(|it| it.kill().unwrap());
    });
}

#[test]
fn a_replica_that_must_be_given_everything_anew_costs_no_read() {
    synchronise("replica in full sync", "disabled");
}

#[test]
fn a_replica_that_keeps_its_old_data_while_it_loads_costs_no_read() {
    synchronise("replica in full sync, swapdb", "swapdb");
}

fn synchronise(fault: &str, load: &str) {
    let lab = Lab::start(&Plan {
        node_config: [debug_lines(), vec![format!("repl-diskless-load {load}")]].concat(),
        // The master answers nobody while it is filled.
        ..unhurried()
    });
    let (master, replica) = (lab.node(0), lab.node(1));
    tell(master, &["DEBUG", "POPULATE", MANY_KEYS, "many", "100"]);
    let proxy = lab.proxy();
    let (story, window) = Scene::new(&lab, &proxy).play(|| {
        wait_until_read(replica);
        let began = Instant::now();
        tell(master, &["DEBUG", "CHANGE-REPL-ID"]);
        tell(master, &["CLIENT", "KILL", "TYPE", "replica"]);
        let synced = wait_for(PATIENT, || {
            let size = replica.command(&["DBSIZE"]).ok()?.int()?;
            let up = replica.info("replication", "master_link_status")? == "up";
            (up && size > MANY_KEYS.parse().unwrap()).then_some(())
        });
        assert!(synced.is_some(), "the replica was not given everything");
        took("sync", began.elapsed());
        wait_until_read(replica);
        began..Instant::now()
    });
    judge(fault, &story, master, &window, STALL_MAX);
}

#[test]
fn a_replica_that_lags_costs_no_read() {
    let lab = Fronted::start(Plan::default());
    disturb("replica lags by 2 s", &lab, STALL_MAX, || {
        lab.front(0).set(NODES, Fault::lag(LAG));
        let_last(2 * LAG);
        lab.front(0).heal(NODES);
    });
}

#[test]
fn a_promoted_replica_costs_no_read() {
    let lab = Lab::start(&two_replicas());
    let proxy = spread(&lab);
    let (story, (window, new)) = Scene::new(&lab, &proxy).play(|| {
        lab.nodes()[1..].iter().for_each(wait_until_read);
        let began = Instant::now();
        lab.failover().unwrap();
        let new = lab.wait_for_switch(lab.node(0), PATIENT).unwrap();
        lab.wait_for_replica(lab.node(0), new, PATIENT).unwrap();
        (began..Instant::now(), new)
    });
    let figures = story.judge("replica promoted", new, &[]);
    figures.expect_no_error();
    took("stall", story.longest_silence(&window));
    timed(
        "read_stall",
        story.longest_read(&window),
        (STALL_MAX, STALL_MAX),
    );
}

#[test]
fn a_replica_may_be_taken_away_and_given_back() {
    let lab = Lab::start(&two_replicas());
    let proxy = spread(&lab);
    let (master, replica) = (lab.node(0), lab.node(2));
    let (story, window) = Scene::new(&lab, &proxy).play(|| {
        wait_until_read(replica);
        let began = Instant::now();
        tell(replica, &["REPLICAOF", "NO", "ONE"]);
        for sentinel in lab.sentinels() {
            tell(sentinel, &["SENTINEL", "RESET", lab.master_name()]);
        }
        let mut before = calls(replica, "get");
        let left = wait_for(2 * SOON, || {
            let_last(Duration::from_millis(200));
            let now = calls(replica, "get");
            let unread = now == before;
            before = now;
            unread.then_some(())
        });
        assert!(
            left.is_some(),
            "who is no replica any more is still read from"
        );
        took("left", began.elapsed());
        let before = calls(replica, "get");
        let_last(Duration::from_secs(2));
        let read = calls(replica, "get") - before;
        report(&[("read_after_it_was_left", &read)]);
        assert_eq!(read, 0, "it was read from again");

        let given = Instant::now();
        let port = master.port().to_string();
        tell(replica, &["REPLICAOF", "127.0.0.1", &port]);
        wait_until_read(replica);
        took("used_again", given.elapsed());
        began..Instant::now()
    });
    judge(
        "replica removed, then added",
        &story,
        master,
        &window,
        STALL_MAX,
    );
}

/// Runs `act` under load, and lets what comes of it last for some time. No command may fail, and no
/// read take longer than `most`.
fn disturb(fault: &str, lab: &Lab, most: Duration, act: impl FnOnce()) {
    let proxy = spread(lab);
    let (story, (calm, window)) = Scene::new(lab, &proxy).play(|| {
        wait_until_read(lab.node(1));
        let calm = Instant::now();
        let_last(CALM);
        let began = Instant::now();
        act();
        let_last(Duration::from_secs(3));
        (calm..began, began..Instant::now())
    });
    // What the machine adds by itself.
    took("read_stall_before", story.longest_read(&calm));
    judge(fault, &story, lab.node(0), &window, most);
}

fn judge(fault: &str, story: &Story, master: &Process, window: &Range<Instant>, most: Duration) {
    let figures = story.judge(fault, master, &[]);
    figures.expect_no_error();
    timed(
        "stall",
        story.longest_silence(window),
        (STALL_MAX, STALL_MAX),
    );
    timed("read_stall", story.longest_read(window), (most, most));
}

/// Waits until clients have read from `replica` a hundred times more.
fn wait_until_read(replica: &Process) {
    let before = calls(replica, "get");
    let read = wait_for(DISCOVERY_MAX, || {
        (calls(replica, "get") >= before + 100).then_some(())
    });
    assert!(read.is_some(), "{} is not read from", replica.addr());
}

/// A Switchman whose two readers read from all replicas.
fn spread(lab: &Lab) -> Proxy {
    Launch::group(lab, "spread = \"request\"\n").start()
}

fn two_replicas() -> Plan {
    Plan {
        replicas: 2,
        ..Plan::default()
    }
}
