//! Failovers that do not come to their end: whoever waits goes on with the next attempt.

use std::time::Duration;

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::tell;
use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::set_period;

/// Time from a fault to the end of the second attempt: down-after, twice the failover timeout, and
/// the election.
const PATIENCE: Duration = Duration::from_secs(30);

/// A deployment that tries again soon, and a Switchman that waits for that.
fn start() -> (Lab, Proxy) {
    let lab = Lab::start(&Plan {
        failover_timeout: Duration::from_secs(2),
        ..Plan::default()
    });
    let proxy = Launch::group(&lab, "hold = \"40s\"\n").start();
    proxy.wait_ready();
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    (lab, proxy)
}

#[test]
fn a_failover_without_a_fit_replica_is_waited_out() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(PATIENCE);
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let mut heard = lab.subscribe(&["-failover-abort-no-good-slave"]).unwrap();
    for sentinel in lab.sentinels() {
        set_period(sentinel, "INFO-PERIOD", "500");
    }
    tell(lab.node(1), &["CONFIG", "SET", "replica-priority", "0"]);
    // By INFO, for which an old Sentinel asks each 10 s.
    let unfit = wait_for(3 * SOON, || {
        let unfit = |it| priority_of_replica(&lab, it).as_deref() == Some("0");
        lab.sentinels().iter().all(unfit).then_some(())
    });
    assert!(unfit.is_some(), "the Sentinels do not know of it");
    lab.node(0).kill().unwrap();
    client.send(&["INCR", "n"]).unwrap();
    let aborted = wait_for(PATIENCE, || {
        let mut heard = heard.iter_mut();
        heard.any(has_news).then_some(())
    });
    assert!(aborted.is_some(), "no failover was aborted");
    client.wait_at_most(Duration::from_millis(100)).unwrap();
    assert!(client.receive().is_err(), "there is no master");
    assert_eq!(say(&mut proxy.client(), &["GET", "k"]), Reply::bulk("v"));

    tell(lab.node(1), &["CONFIG", "SET", "replica-priority", "100"]);
    client.wait_at_most(PATIENCE).unwrap();
    assert_eq!(client.receive().unwrap(), Reply::Int(1));
    assert_eq!(tell(lab.node(1), &["GET", "n"]), Reply::bulk("1"));
    // It is written beside the workers, who may have answered before.
    proxy.log().wait("master switched", |_| Some(()));
}

#[test]
fn a_leader_that_dies_after_its_election_is_replaced() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(PATIENCE);
    every_leader_dies(&lab, "crash-after-election");
    lab.node(0).kill().unwrap();
    client.send(&["INCR", "n"]).unwrap();
    wait_for_dead_leader(&lab);
    assert_eq!(client.receive().unwrap(), Reply::Int(1));
    assert_eq!(tell(lab.node(1), &["GET", "n"]), Reply::bulk("1"));
    lab.wait_for_switch(lab.node(0), SOON).unwrap();
}

/// Nobody else knows of the promotion: the node calls itself a master, and is none yet.
#[test]
fn a_leader_that_dies_after_the_promotion_is_not_followed() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(PATIENCE);
    every_leader_dies(&lab, "crash-after-promotion");
    lab.node(0).kill().unwrap();
    client.send(&["INCR", "n"]).unwrap();
    wait_for_dead_leader(&lab);
    let promoted = wait_for(SOON, || {
        (lab.node(1).info("replication", "role")? == "master").then_some(())
    });
    assert!(promoted.is_some(), "the leader died too early");
    let mut looks = 0;
    let switched = wait_for(PATIENCE, || {
        // In this order: who is asked last may know already what the first did not. The second
        // leader promotes the same node, which cuts whatever connection it has at that moment.
        let early = lab.node(1).command(&["GET", "n"]).ok();
        looks += usize::from(early.is_some());
        let named = lab.sentinels().iter().filter(|it| it.is_running());
        let named = named.filter_map(|it| lab.master_according_to(it));
        let mut named = named.filter(|it| *it == lab.node(1).addr());
        if named.next().is_some() {
            return Some(());
        }
        let unwritten = early.is_none_or(|it| it == Reply::Null);
        assert!(unwritten, "written before a Sentinel named it");
        None
    });
    assert!(switched.is_some(), "there was no second attempt");
    assert!(looks > 1, "nobody has looked whether it was written");
    assert_eq!(client.receive().unwrap(), Reply::Int(1));
    assert_eq!(tell(lab.node(1), &["GET", "n"]), Reply::bulk("1"));
}

/// The old master lives, and nobody but the dead leader knows of another: writes go on with it.
#[test]
fn a_planned_failover_whose_leader_dies_after_the_promotion_loses_nothing() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(PATIENCE);
    ok(&mut client, &["SET", "n", "0"]);
    tell(
        lab.sentinel(0),
        &["SENTINEL", "SIMULATE-FAILURE", "crash-after-promotion"],
    );
    lab.failover().unwrap();
    wait_for_dead_leader(&lab);
    let mut count = 0;
    let settled = wait_for(PATIENCE, || {
        count += 1;
        assert_eq!(say(&mut client, &["INCR", "n"]), Reply::Int(count));
        let role = lab.node(1).info("replication", "role")?;
        (role == "slave").then_some(())
    });
    assert!(settled.is_some(), "nobody made a replica of it again");
    count += 1;
    assert_eq!(say(&mut client, &["INCR", "n"]), Reply::Int(count));
    let there = tell(lab.node(0), &["GET", "n"]);
    assert_eq!(there, Reply::bulk(&count.to_string()));
}

/// Whichever Sentinel leads dies at this point of its failover.
fn every_leader_dies(lab: &Lab, point: &str) {
    for sentinel in lab.sentinels() {
        tell(sentinel, &["SENTINEL", "SIMULATE-FAILURE", point]);
    }
}

/// The first leader has died; the next one is to live.
fn wait_for_dead_leader(lab: &Lab) {
    let died = wait_for(PATIENCE, || {
        let mut sentinels = lab.sentinels().iter();
        sentinels.any(|it| !it.is_running()).then_some(())
    });
    assert!(died.is_some(), "no Sentinel has led");
    for sentinel in lab.sentinels().iter().filter(|it| it.is_running()) {
        // Clears what was set.
        tell(sentinel, &["SENTINEL", "SIMULATE-FAILURE", "help"]);
    }
}

fn priority_of_replica(lab: &Lab, sentinel: &Process) -> Option<String> {
    let replicas = tell(sentinel, &["SENTINEL", "REPLICAS", lab.master_name()]);
    replicas.items().first()?.field("slave-priority")?.text()
}

/// Whether something has come to a subscriber.
fn has_news(subscriber: &mut Client) -> bool {
    subscriber.wait_at_most(Duration::from_millis(20)).unwrap();
    subscriber.receive().is_ok()
}
