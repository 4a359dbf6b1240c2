//! What a client's connection carries when the master changes, and finds again with the next one.

use std::time::Duration;

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};

/// Time from the fault to the end of a switch.
const SWITCH_MAX: Duration = Duration::from_secs(8);

/// A deployment that can fail over, and a Switchman that reads from the master only.
fn start() -> (Lab, Proxy) {
    let lab = Lab::start(&Plan::default());
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    let proxy = launch.start();
    proxy.wait_ready();
    (lab, proxy)
}

/// A planned failover, until a write has reached the new master.
fn fail_over(lab: &Lab, proxy: &Proxy) {
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    lab.failover().unwrap();
    lab.wait_for_switch(lab.node(0), SWITCH_MAX).unwrap();
    ok(
        &mut proxy.patient_client(SWITCH_MAX),
        &["SET", "settled", "v"],
    );
    let settled = lab.node(1).command(&["EXISTS", "settled"]).unwrap();
    assert_eq!(settled, Reply::Int(1), "the new master serves");
}

fn queue(client: &mut Client, lines: &[&[&str]]) {
    for line in lines {
        let queued = say(client, line);
        assert_eq!(queued, Reply::Simple("QUEUED".to_owned()), "{line:?}");
    }
}

#[test]
fn a_transaction_goes_on_with_the_next_master() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(SWITCH_MAX);
    ok(&mut client, &["MULTI"]);
    queue(&mut client, &[&["INCR", "a"], &["SELECT", "3"]]);
    fail_over(&lab, &proxy);
    queue(&mut client, &[&["INCR", "b"]]);
    let done = Reply::Array(vec![Reply::Int(1), Reply::ok(), Reply::Int(1)]);
    assert_eq!(say(&mut client, &["EXEC"]), done);
    assert_eq!(
        say(&mut client, &["MGET", "a", "b"]).items()[1],
        Reply::bulk("1")
    );
    let there = lab.node(1).command(&["MGET", "a", "b"]).unwrap();
    assert_eq!(there.items(), [Reply::bulk("1"), Reply::Null]);
}
