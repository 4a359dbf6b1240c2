//! Listeners with a role of their own, beside a real replica.

use std::net::SocketAddr;

use serde_json::Value;
use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, error, ok, say};
use crate::proxy::{Launch, Proxy, tcp_addr};
use crate::routing::calls;
use crate::version::{is_before_7, wait_for_words};

/// Sections for a listener of each role but the usual one.
pub(crate) const SECTIONS: &str = "\
    [[group.listener]]\naddress = \"127.0.0.1:0\"\nrole = \"master\"\n\
    [[group.listener]]\naddress = \"127.0.0.1:0\"\nrole = \"replica\"\n\
    consistency = \"eventual\"\n";

/// What a replica and a listener of that role answer alike.
const ALIKE: &[&[&str]] = &[
    &["SET", "a", "b"],
    &["SET", "a"],
    &["NOSUCH", "a", "b"],
    &["GET", "k"],
    &["GETEX", "k"],
    &["SORT", "l"],
    &["SORT_RO", "l"],
    &["BITFIELD", "k", "GET", "u8", "0"],
    &["BLPOP", "l", "1"],
    &["XREAD", "BLOCK", "10", "STREAMS", "s", "$"],
    &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"],
    &["EXPIRE", "k", "1"],
    &["FLUSHALL"],
    &["SWAPDB", "0", "1"],
    &["FUNCTION", "LOAD", "x"],
    &["FUNCTION", "LIST"],
    &["TOUCH", "k"],
    &["PFCOUNT", "h"],
    &["WAIT", "0", "10"],
    &["MULTI"],
    &["GET", "k"],
    &["EXEC"],
    &["MULTI"],
    &["GET", "k"],
    &["SET", "a", "b"],
    &["GET", "k"],
    &["EXEC"],
    &["MULTI"],
    &["SET", "a", "b"],
    &["DISCARD"],
    &["WATCH", "k"],
    &["MULTI"],
    &["EXEC"],
    &["UNWATCH"],
    &["EVAL", "return redis.call('get', KEYS[1])", "1", "k"],
    &["EVAL_RO", "return redis.call('set', KEYS[1], 1)", "1", "k"],
    &["FCALL", "nosuch", "0"],
    &["PUBLISH", "ch", "x"],
    &["READONLY"],
    &["READWRITE"],
    &["SELECT", "1"],
    &["GET", "k"],
    &["OBJECT", "ENCODING", "k"],
];

/// Where clients of the listener with this role connect.
pub(crate) fn listener(proxy: &Proxy, role: &str) -> SocketAddr {
    proxy.log().wait("listening", |event| {
        (event["listen.role"] == role).then(|| tcp_addr(event))?
    })
}

fn client(proxy: &Proxy, role: &str) -> Client {
    Client::connect(listener(proxy, role), SOON).unwrap()
}

/// Waits until the replica serves the reads of a listener.
pub(crate) fn wait_for_replica(lab: &Lab, client: &mut Client) {
    let served = wait_for(SOON, || {
        let before = calls(lab.node(1), "get");
        say(client, &["GET", "k"]);
        (calls(lab.node(1), "get") > before).then_some(())
    });
    assert!(served.is_some(), "the replica was never used");
}

#[test]
fn each_listener_of_a_group_has_its_role() {
    let lab = Lab::small();
    let proxy = Launch::group(&lab, SECTIONS).start();
    let (mut split, mut master, mut replica) = (
        proxy.client(),
        client(&proxy, "master"),
        client(&proxy, "replica"),
    );
    ok(&mut split, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    wait_for_replica(&lab, &mut replica);

    let at_master = calls(lab.node(0), "get");
    for _ in 0..100 {
        assert_eq!(say(&mut replica, &["GET", "k"]), Reply::bulk("v"));
    }
    assert_eq!(calls(lab.node(0), "get"), at_master, "by the replica alone");
    let at_replica = calls(lab.node(1), "get");
    for _ in 0..100 {
        assert_eq!(say(&mut master, &["GET", "k"]), Reply::bulk("v"));
    }
    assert_eq!(calls(lab.node(1), "get"), at_replica, "by the master alone");
    ok(&mut master, &["SET", "k", "w"]);
    let refused = error("READONLY You can't write against a read only replica.");
    assert_eq!(say(&mut replica, &["SET", "k", "x"]), refused);
    assert_eq!(say(&mut master, &["GET", "k"]), Reply::bulk("w"));

    let (_, status) = proxy.get("/api/v1/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    let listeners = status["groups"][0]["listeners"].as_array().unwrap();
    let roles: Vec<&str> = listeners
        .iter()
        .map(|it| it["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["split", "master", "replica"]);
    assert_eq!(listeners[1]["consistency"], "master");
}

/// Some servers do not tell since when `WAIT` is refused so.
fn of_any_family(reply: Reply) -> Reply {
    match reply.error() {
        Some(line) if line.starts_with("ERR WAIT ") => error(&line.replace("since Redis 4.0 ", "")),
        _ => reply,
    }
}

#[test]
fn a_replica_listener_answers_what_a_real_replica_answers() {
    let lab = Lab::small();
    lab.node(0).command(&["SET", "k", "v"]).unwrap();
    lab.node(0).command(&["RPUSH", "l", "2", "1"]).unwrap();
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let proxy = Launch::group(&lab, SECTIONS).start();
    let mut real = lab.node(1).connect().unwrap();
    let mut listener = client(&proxy, "replica");
    wait_for_replica(&lab, &mut listener);
    wait_for_words(&mut listener);
    for line in ALIKE {
        if is_before_7() && line[0] == "EVAL" {
            // It could not be kept from writing.
            let refused = say(&mut listener, line);
            assert!(refused.error().unwrap().contains("EVAL_RO"), "{refused:?}");
            continue;
        }
        let [ours, theirs] = [&mut listener, &mut real].map(|it| of_any_family(say(it, line)));
        assert_eq!(ours, theirs, "{line:?}");
    }

    let role = say(&mut listener, &["ROLE"]);
    assert_eq!(role.items().first(), Some(&Reply::bulk("slave")));
    let info = say(&mut listener, &["INFO", "replication"]);
    assert_eq!(info.info("role").as_deref(), Some("slave"));
    let hello = say(&mut listener, &["HELLO", "3"]);
    assert_eq!(hello.field("role"), Some(&Reply::bulk("replica")));
    let write = ["EVAL", "return redis.call('set', KEYS[1], 1)", "1", "k"];
    let refused = say(&mut listener, &write);
    let refused = refused.error().unwrap();
    let before_7 = is_before_7() && refused.contains("EVAL_RO");
    assert!(
        before_7
            || refused.starts_with("ERR Write commands are not allowed from read-only scripts"),
        "{refused}"
    );
    let config = say(&mut listener, &["CONFIG", "SET", "maxmemory", "0"]);
    assert!(
        config
            .error()
            .unwrap()
            .contains("a listener of the role replica")
    );
    assert_eq!(
        lab.node(0).command(&["GET", "k"]).unwrap(),
        Reply::bulk("v")
    );
}

#[test]
fn a_replica_listener_goes_on_reading_and_refusing_through_a_failover() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let proxy = Launch::group(&lab, SECTIONS).start();
    proxy.wait_ready();
    let mut client = client(&proxy, "replica");
    let old = lab.master().unwrap().addr();
    let refused = error("READONLY You can't write against a read only replica.");
    let mut asked = 0;
    lab.failover().unwrap();
    let switched = wait_for(4 * SOON, || {
        for _ in 0..50 {
            assert_eq!(say(&mut client, &["SET", "k", "v"]), refused);
            assert_eq!(say(&mut client, &["GET", "k"]), Reply::Null);
            let write = ["EVAL", "return redis.call('set', KEYS[1], 1)", "1", "k"];
            assert!(say(&mut client, &write).error().is_some());
            asked += 1;
        }
        lab.master().filter(|master| master.addr() != old)
    });
    println!("{asked} rounds during the failover");
    let master = switched.expect("the master is switched");
    assert_eq!(master.command(&["GET", "k"]).unwrap(), Reply::Null);
}
