//! What a client's connection carries when the master changes, and finds again with the next one.

use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};

/// Time from the fault to the end of a switch.
pub(crate) const SWITCH_MAX: Duration = Duration::from_secs(8);

/// A deployment that can fail over, and a Switchman that reads from the master only.
pub(crate) fn start() -> (Lab, Proxy) {
    let lab = Lab::start(&Plan::default());
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    let proxy = launch.start();
    proxy.wait_ready();
    (lab, proxy)
}

/// A planned failover, until a write has reached the new master.
pub(crate) fn fail_over(lab: &Lab, proxy: &Proxy) {
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    lab.failover().unwrap();
    lab.wait_for_switch(lab.node(0), SWITCH_MAX).unwrap();
    proxy.wait_switched(lab.node(1));
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

#[test]
fn a_blocked_read_waits_on_at_the_next_master() {
    let (lab, proxy) = start();
    let mut reader = proxy.patient_client(SWITCH_MAX);
    reader
        .send(&["XREAD", "BLOCK", "30000", "STREAMS", "s", "0"])
        .unwrap();
    wait_until_blocked(lab.node(0));
    fail_over(&lab, &proxy);
    let mut writer = proxy.patient_client(SWITCH_MAX);
    let id = say(&mut writer, &["XADD", "s", "*", "f", "v"]);
    let fields = Reply::Array(vec![Reply::bulk("f"), Reply::bulk("v")]);
    let entries = Reply::Array(vec![Reply::Array(vec![id, fields])]);
    let stream = Reply::Array(vec![Reply::bulk("s"), entries]);
    assert_eq!(reader.receive().unwrap(), Reply::Array(vec![stream]));
}

#[test]
fn a_blocked_pop_outlives_a_master_that_is_demoted_for_a_moment() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    let (mut popper, mut pusher) = (
        proxy.patient_client(SWITCH_MAX),
        proxy.patient_client(SWITCH_MAX),
    );
    popper.send(&["BLPOP", "list", "2.5"]).unwrap();
    let begun = Instant::now();
    wait_until_blocked(lab.node(0));
    demote_for_a_moment(&lab);
    wait_until_blocked(lab.node(0));
    assert_eq!(popper.receive().unwrap(), Reply::NullArray);
    let waited = begun.elapsed();
    let on_the_dot = Duration::from_millis(2450)..Duration::from_secs(3);
    assert!(on_the_dot.contains(&waited), "{waited:?}");

    popper.send(&["BLPOP", "list", "0"]).unwrap();
    wait_until_blocked(lab.node(0));
    demote_for_a_moment(&lab);
    assert_eq!(say(&mut pusher, &["RPUSH", "list", "x"]), Reply::Int(1));
    let taken = Reply::Array(vec![Reply::bulk("list"), Reply::bulk("x")]);
    assert_eq!(popper.receive().unwrap(), taken);
}

/// Nobody tells the old master of it for seconds, and it would not say what came of the wait.
#[test]
fn a_blocked_pop_waits_on_at_the_next_master() {
    let (lab, proxy) = start();
    let mut poppers: Vec<Client> = (0..3).map(|_| proxy.patient_client(4 * SOON)).collect();
    let lines: [&[&str]; 3] = [
        &["BLPOP", "list", "0"],
        &["BLMOVE", "from", "to", "LEFT", "RIGHT", "60"],
        &["BZPOPMIN", "set", "60"],
    ];
    for (popper, line) in poppers.iter_mut().zip(lines) {
        popper.send(line).unwrap();
    }
    let blocked = wait_for(SOON, || {
        let count = lab.node(0).info("clients", "blocked_clients")?;
        (count == "3").then_some(())
    });
    assert!(blocked.is_some(), "not everybody waits at the master");
    fail_over(&lab, &proxy);
    for popper in &mut poppers {
        // As long as the old master could still be asked, and longer.
        popper.wait_at_most(Duration::from_millis(500)).unwrap();
        assert!(popper.receive().is_err(), "nothing has happened");
        popper.wait_at_most(SWITCH_MAX).unwrap();
    }
    let mut pusher = proxy.patient_client(SWITCH_MAX);
    assert_eq!(say(&mut pusher, &["RPUSH", "list", "x", "y"]).error(), None);
    assert_eq!(say(&mut pusher, &["RPUSH", "from", "z"]).error(), None);
    assert_eq!(say(&mut pusher, &["ZADD", "set", "1", "m"]), Reply::Int(1));
    let bulks = |words: &[&str]| Reply::Array(words.iter().map(|it| Reply::bulk(it)).collect());
    let taken = [
        bulks(&["list", "x"]),
        Reply::bulk("z"),
        bulks(&["set", "m", "1"]),
    ];
    for (popper, want) in poppers.iter_mut().zip(taken) {
        assert_eq!(popper.receive().unwrap(), want);
    }
    let left = lab.node(1).command(&["LRANGE", "list", "0", "-1"]).unwrap();
    assert_eq!(left, bulks(&["y"]), "one element was taken");
}

#[test]
fn the_next_master_has_the_scripts_of_the_last() {
    let (lab, proxy) = start();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.patient_client(SWITCH_MAX)).collect();
    let add = "return redis.call('incrby', KEYS[1], ARGV[1])";
    let digest = say(&mut clients[0], &["SCRIPT", "LOAD", add]);
    let digest = digest.text().expect("SCRIPT LOAD gives a digest");
    let answer = say(&mut clients[1], &["EVAL", "return 42", "0"]);
    assert_eq!(answer, Reply::Int(42));
    fail_over(&lab, &proxy);
    for (client, sum) in clients.iter_mut().zip([7, 14, 21, 28]) {
        let added = say(client, &["EVALSHA", &digest, "1", "n", "7"]);
        assert_eq!(added, Reply::Int(sum));
        let known = say(client, &["SCRIPT", "EXISTS", &digest, FORTY_TWO]);
        assert_eq!(known, Reply::Array(vec![Reply::Int(1), Reply::Int(1)]));
    }

    ok(&mut lab.node(1).connect().unwrap(), &["SCRIPT", "FLUSH"]);
    let answer = say(&mut clients[3], &["EVALSHA", FORTY_TWO, "0"]);
    assert_eq!(answer, Reply::Int(42), "loaded when it is missing");
    ok(&mut clients[0], &["SCRIPT", "FLUSH"]);
    let missing = say(&mut clients[1], &["EVALSHA", FORTY_TWO, "0"]);
    let line = missing.error().unwrap_or_default();
    assert!(line.starts_with("NOSCRIPT "), "{missing:?}");
}

/// The SHA-1 of `return 42`.
const FORTY_TWO: &str = "1fa00e76656cc152ad327c13fe365858fd7be306";

#[test]
fn a_client_that_tracks_hears_that_all_may_have_changed_and_tracks_on() {
    let (lab, proxy) = start();
    let (mut reader, mut writer) = (proxy.patient_client(SWITCH_MAX), proxy.client());
    ok(&mut writer, &["SET", "k", "old"]);
    assert_eq!(say(&mut reader, &["HELLO", "3"]).error(), None);
    ok(&mut reader, &["CLIENT", "TRACKING", "ON"]);
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("old"));
    fail_over(&lab, &proxy);
    let invalid = |what| Reply::Push(vec![Reply::bulk("invalidate"), what]);
    for when in ["with the connection lost", "with tracking on again"] {
        assert_eq!(reader.receive().unwrap(), invalid(Reply::Null), "{when}");
    }
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("old"));
    ok(&mut writer, &["SET", "k", "new"]);
    let key = Reply::Array(vec![Reply::bulk("k")]);
    assert_eq!(reader.receive().unwrap(), invalid(key));
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("new"));
}

#[test]
fn a_client_that_chooses_what_is_tracked_goes_on_choosing() {
    let (lab, proxy) = start();
    let (mut reader, mut writer) = (proxy.patient_client(SWITCH_MAX), proxy.client());
    ok(&mut writer, &["SET", "k", "old"]);
    assert_eq!(say(&mut reader, &["HELLO", "3"]).error(), None);
    ok(&mut reader, &["CLIENT", "TRACKING", "ON", "OPTIN"]);
    ok(&mut reader, &["CLIENT", "CACHING", "YES"]);
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("old"));
    fail_over(&lab, &proxy);
    let invalid = |what| Reply::Push(vec![Reply::bulk("invalidate"), what]);
    for when in ["with the connection lost", "with tracking on again"] {
        assert_eq!(reader.receive().unwrap(), invalid(Reply::Null), "{when}");
    }
    assert_eq!(say(&mut reader, &["GET", "other"]), Reply::Null);
    ok(&mut reader, &["CLIENT", "CACHING", "YES"]);
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("old"));
    ok(&mut writer, &["MSET", "other", "new", "k", "new"]);
    let key = Reply::Array(vec![Reply::bulk("k")]);
    assert_eq!(reader.receive().unwrap(), invalid(key), "the chosen one");
}

#[test]
fn a_transaction_outlives_a_master_that_is_demoted_for_a_moment() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    let mut client = proxy.patient_client(SWITCH_MAX);
    ok(&mut client, &["MULTI"]);
    queue(&mut client, &[&["INCR", "a"]]);
    let mut node = lab.node(0).connect().unwrap();
    let port = lab.node(1).port().to_string();
    ok(&mut node, &["REPLICAOF", "127.0.0.1", &port]);
    client.send(&["INCR", "b"]).unwrap();
    let refused = wait_for(SOON, || {
        let line = lab.node(0).info("errorstats", "errorstat_READONLY")?;
        (line == "count=1").then_some(())
    });
    assert!(refused.is_some(), "INCR never reached the demoted master");
    ok(&mut node, &["REPLICAOF", "NO", "ONE"]);
    assert_eq!(
        client.receive().unwrap(),
        Reply::Simple("QUEUED".to_owned())
    );
    let done = Reply::Array(vec![Reply::Int(1), Reply::Int(1)]);
    assert_eq!(say(&mut client, &["EXEC"]), done);
}

/// Those who wait at the master are sent away.
fn demote_for_a_moment(lab: &Lab) {
    let mut node = lab.node(0).connect().unwrap();
    let port = lab.node(1).port().to_string();
    ok(&mut node, &["REPLICAOF", "127.0.0.1", &port]);
    ok(&mut node, &["REPLICAOF", "NO", "ONE"]);
}

fn wait_until_blocked(node: &Process) {
    let blocked = wait_for(SOON, || {
        let count = node.info("clients", "blocked_clients")?;
        (count == "1").then_some(())
    });
    assert!(blocked.is_some(), "nobody waits at the master");
}
