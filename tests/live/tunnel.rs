//! A real replica that follows the master through Switchman.

use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::carried::{SWITCH_MAX, fail_over, start};
use crate::lab::{Lab, SOON, ok, tell};
use crate::proxy::{Launch, Proxy};

/// A Switchman before the first node alone.
fn before(lab: &Lab, commands: &str) -> Proxy {
    let config = format!(
        "[commands]\n{commands}\n[[group]]\nmaster-name = \"mymaster\"\n\
         listen = [\"127.0.0.1:0\"]\nmaster = \"{}\"\n",
        lab.node(0).addr()
    );
    let proxy = Launch::with_config(lab, &config).start();
    proxy.wait_ready();
    proxy
}

/// Whether a replica follows whom it is told to.
fn follows(replica: &Process) -> bool {
    let status = replica.info("replication", "master_link_status");
    status.as_deref() == Some("up")
}

#[test]
fn a_replica_follows_the_master_through_it_and_hears_of_a_loss() {
    let lab = Lab::start(&Plan {
        sentinels: 0,
        ..Lab::small_plan()
    });
    let proxy = before(&lab, r#"allow = ["replconf"]"#);
    let (replica, mut client) = (lab.node(1), proxy.client());
    let port = proxy.addr().port().to_string();
    // It must have all anew: nothing but the stream itself could show a byte that is missing.
    let value = "v".repeat(3_000_000);
    ok(&mut client, &["SET", "large", &value]);
    assert_eq!(tell(replica, &["REPLICAOF", "NO", "ONE"]), Reply::ok());
    assert_eq!(tell(replica, &["FLUSHALL"]), Reply::ok());
    let followed = tell(replica, &["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(followed, Reply::ok());
    let up = wait_for(SOON, || follows(replica).then_some(()));
    assert!(up.is_some(), "{}", replica.log_tail(20));
    assert_eq!(tell(replica, &["GET", "large"]), Reply::bulk(&value));

    for _ in 0..1_000 {
        ok(&mut client, &["SET", "large", "small"]);
        client.command(&["INCR", "n"]).unwrap();
    }
    let counted = wait_for(SOON, || {
        (tell(replica, &["GET", "n"]) == Reply::bulk("1000")).then_some(())
    });
    assert!(counted.is_some(), "{:?}", tell(replica, &["GET", "n"]));
    let acknowledged = client.command(&["WAIT", "1", "5000"]).unwrap();
    assert_eq!(acknowledged, Reply::Int(1), "what it says comes as well");

    drop(proxy);
    let down = wait_for(SOON, || (!follows(replica)).then_some(()));
    assert!(down.is_some(), "it would wait for a dead master");
}

#[test]
fn a_replica_that_may_not_say_where_it_is_follows_all_the_same() {
    let lab = Lab::start(&Plan {
        sentinels: 0,
        ..Lab::small_plan()
    });
    let proxy = before(&lab, "");
    let (replica, mut client) = (lab.node(1), proxy.client());
    let port = proxy.addr().port().to_string();
    tell(replica, &["REPLICAOF", "127.0.0.1", &port]);
    let up = wait_for(SOON, || follows(replica).then_some(()));
    assert!(up.is_some(), "{}", replica.log_tail(20));
    ok(&mut client, &["SET", "k", "v"]);
    let has = wait_for(SOON, || {
        (tell(replica, &["GET", "k"]) == Reply::bulk("v")).then_some(())
    });
    assert!(has.is_some(), "{}", replica.log_tail(30));
    let listed = lab.node(0).info("replication", "slave0").unwrap();
    assert!(listed.contains("port=0,"), "{listed}");
}

#[test]
fn a_replica_that_may_not_follow_is_told_so() {
    let lab = Lab::start(&Plan {
        sentinels: 0,
        ..Lab::small_plan()
    });
    let proxy = before(&lab, r#"refuse = ["sync", "psync"]"#);
    let replica = lab.node(1);
    let port = proxy.addr().port().to_string();
    tell(replica, &["REPLICAOF", "127.0.0.1", &port]);
    let told = wait_for(SOON, || {
        let log = replica.log_tail(50);
        log.contains("'SYNC' is refused here (commands.allow permits it)")
            .then_some(())
    });
    assert!(told.is_some(), "{}", replica.log_tail(50));
    assert!(!follows(replica));
}

#[test]
fn a_planned_failover_waits_for_no_replica_behind_it_and_ends_it() {
    let (lab, proxy) = start();
    let mut follower = proxy.patient_client(SWITCH_MAX);
    follower.send_raw(b"SYNC\r\n").unwrap();
    let sent = wait_for(SOON, || {
        let listed = lab.node(0).info("replication", "slave1")?;
        listed.contains("port=0,state=online").then_some(())
    });
    assert!(sent.is_some(), "the master has sent it everything");
    fail_over(&lab, &proxy);
    let heard = follower.drain().unwrap();
    let has = |text: &[u8]| heard.windows(text.len()).any(|part| part == text);
    let came = has(b"REDIS0") || has(b"VALKEY0");
    assert!(came, "the data came: {} bytes", heard.len());
}
