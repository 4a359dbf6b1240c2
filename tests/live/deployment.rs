//! The deployment that all other tests stand on: it is complete when it starts, and gone when it
//! ends.

use std::time::Duration;

use switchman::demo::deployment::{Deployment, Plan};
use switchman::demo::process::{Process, wait_for};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_deployment_is_in_sync_when_it_starts_and_gone_when_it_ends() {
    let deployment = Deployment::start(&Plan {
        replicas: 2,
        ..Plan::default()
    })
    .unwrap();
    let (master, dir) = (deployment.node(0), deployment.dir().to_owned());
    assert_eq!(deployment.master().map(Process::addr), Some(master.addr()));
    let pids: Vec<u32> = deployment.nodes().iter().map(Process::pid).collect();

    drop(deployment);
    assert!(!dir.exists());
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is still there"
        );
    }
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_as_a_replica() {
    let plan = Plan {
        password: Some("secret".to_owned()),
        ..Plan::default()
    };
    let deployment = Deployment::start(&plan).unwrap();
    let old = deployment.node(0);
    old.kill().unwrap();
    assert!(!old.is_running());
    let new = deployment.wait_for_switch(old, SOON).unwrap();

    old.restart().unwrap();
    deployment.wait_for_replica(old, new, 2 * SOON).unwrap();
    assert_eq!(
        new.command(&["SET", "k", "v"]).unwrap().text().as_deref(),
        Some("OK")
    );
    deployment.wait_in_sync(new, 1, SOON).unwrap();
}

#[test]
fn a_frozen_node_answers_nothing_until_it_is_thawed() {
    let plan = Plan {
        sentinels: 0,
        replicas: 0,
        ..Plan::default()
    };
    let deployment = Deployment::start(&plan).unwrap();
    let node = deployment.node(0);
    let mut client = node.connect().unwrap();
    client.wait_at_most(Duration::from_millis(200)).unwrap();

    node.freeze().unwrap();
    assert!(client.command(&["PING"]).is_err());
    node.thaw().unwrap();
    assert_eq!(
        wait_for(SOON, || client.receive().ok())
            .unwrap()
            .text()
            .as_deref(),
        Some("PONG")
    );

    node.shutdown().unwrap();
    node.wait_gone(SOON).unwrap();
}
