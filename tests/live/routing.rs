//! Writes go to the master, reads to the replicas.

use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::Launch;

const KEYS: usize = 200;

/// Calls of `command` that `node` has executed.
pub(crate) fn calls(node: &Process, command: &str) -> u64 {
    let stats = node.info("commandstats", &format!("cmdstat_{command}"));
    let calls = stats.and_then(|stats| {
        let field = stats
            .split(',')
            .find_map(|field| field.strip_prefix("calls="))?;
        field.parse().ok()
    });
    calls.unwrap_or(0)
}

#[test]
fn writes_go_to_the_master_and_settled_reads_to_the_replicas() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let (master, replicas) = lab.nodes().split_first().unwrap();
    let proxy = lab.proxy();
    let mut client = proxy.client();
    for key in 0..KEYS {
        ok(
            &mut client,
            &["SET", &format!("k:{key}"), &format!("v{key}")],
        );
    }
    assert_eq!(calls(master, "set"), 200, "SETs at the master");
    lab.wait_in_sync(master, 2, SOON).unwrap();

    // Switchman takes a moment to learn that the replicas have caught up; then it must use them.
    // Each client keeps its replica.
    let mut readers: Vec<_> = (0..8).map(|_| proxy.client()).collect();
    let at_replicas = || replicas.iter().map(|node| calls(node, "get")).sum::<u64>();
    let served = wait_for(SOON, || {
        let before = at_replicas();
        for key in 0..KEYS {
            let reader = &mut readers[key % 8];
            let reply = say(reader, &["GET", &format!("k:{key}")]);
            assert_eq!(reply, Reply::bulk(&format!("v{key}")));
        }
        Some(at_replicas() - before).filter(|served| *served >= 190)
    });
    let each: Vec<u64> = replicas.iter().map(|node| calls(node, "get")).collect();
    println!(
        "GETs at the master {}, at the replicas {each:?}",
        calls(master, "get")
    );
    assert!(served.is_some(), "replicas never served 190 of 200 GETs");
    assert!(
        each.iter().all(|calls| *calls > 0),
        "a replica was left out"
    );
}

#[test]
fn reads_go_to_the_master_when_the_replica_is_dead() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let used = wait_for(SOON, || {
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
        (calls(lab.node(1), "get") > 0).then_some(())
    });
    assert!(used.is_some(), "the replica was never used");

    lab.node(1).kill().unwrap();
    let before = calls(lab.node(0), "get");
    for _ in 0..100 {
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
    }
    assert_eq!(calls(lab.node(0), "get") - before, 100);
}

#[test]
fn a_write_is_read_back_at_once_over_any_connection_and_settled_keys_by_replicas() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Lab::small_plan()
    });
    let proxy = lab.proxy();
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    for round in 0..2_000 {
        let (key, value) = (format!("k:{}", round % 50), round.to_string());
        ok(&mut writer, &["SET", &key, &value]);
        let read = say(&mut reader, &["GET", &key]);
        assert_eq!(read, Reply::bulk(&value), "round {round}");
    }
    // Under writes to other keys, what nobody writes is soon read from replicas alone.
    let at_master = || calls(lab.node(0), "get");
    let settled = wait_for(SOON, || {
        let before = at_master();
        for key in 0..50 {
            ok(&mut writer, &["SET", "another", "1"]);
            let read = say(&mut reader, &["GET", &format!("k:{key}")]);
            assert_eq!(read, Reply::bulk(&format!("{}", 1_950 + key)));
        }
        (at_master() == before).then_some(())
    });
    assert!(settled.is_some(), "the master still serves settled reads");
    // When all is settled, nobody is asked any more.
    let asked = || lab.nodes().iter().map(|node| calls(node, "info")).max();
    assert!(asked() < Some(1_000), "{:?} INFOs at one node", asked());
}

#[test]
fn with_eventual_consistency_nobody_is_asked_and_replicas_serve_every_read() {
    let lab = Lab::small();
    let proxy = Launch::group(&lab, "consistency = \"eventual\"\n").start();
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    ok(&mut writer, &["SET", "k", "0"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let used = wait_for(SOON, || {
        say(&mut reader, &["GET", "k"]);
        (calls(lab.node(1), "get") > 0).then_some(())
    });
    assert!(used.is_some(), "the replica was never used");
    let before = calls(lab.node(0), "get");
    for round in 0..500 {
        ok(&mut writer, &["SET", "k", &round.to_string()]);
        say(&mut reader, &["GET", "k"]);
    }
    assert_eq!(calls(lab.node(0), "get"), before);
}

#[test]
fn with_consistency_master_a_write_is_read_back_at_once_over_any_connection() {
    let lab = Lab::small();
    let proxy = Launch::group(&lab, "consistency = \"master\"\n").start();
    let (mut writer, mut reader) = (proxy.client(), proxy.client());
    for round in 0..500 {
        let value = round.to_string();
        ok(&mut writer, &["SET", "k", &value]);
        let read = say(&mut reader, &["GET", "k"]);
        assert_eq!(read, Reply::bulk(&value), "round {round}");
    }
    assert_eq!(calls(lab.node(0), "get"), 500);
    assert_eq!(calls(lab.node(1), "get"), 0);
}

#[test]
fn a_replica_answers_in_the_database_and_the_protocol_of_the_client() {
    let lab = Lab::small();
    let mut master = lab.node(0).connect().unwrap();
    for database in 0..16 {
        ok(&mut master, &["SELECT", &database.to_string()]);
        say(
            &mut master,
            &["HSET", "h", "database", &database.to_string()],
        );
    }
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let proxy = lab.proxy();
    let (mut old, mut new) = (proxy.client(), proxy.client());
    say(&mut new, &["HELLO", "3"]);
    let served = wait_for(SOON, || {
        for database in 0..16 {
            let database = database.to_string();
            let (key, value) = (Reply::bulk("database"), Reply::bulk(&database));
            ok(&mut old, &["SELECT", &database]);
            ok(&mut new, &["SELECT", &database]);
            let flat = say(&mut old, &["HGETALL", "h"]);
            assert_eq!(flat, Reply::Array(vec![key.clone(), value.clone()]));
            assert_eq!(
                say(&mut new, &["HGETALL", "h"]),
                Reply::Map(vec![(key, value)])
            );
        }
        (calls(lab.node(1), "hgetall") >= 32).then_some(())
    });
    assert!(
        served.is_some(),
        "the replica served {} only",
        calls(lab.node(1), "hgetall")
    );
}
