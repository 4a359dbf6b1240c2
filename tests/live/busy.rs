//! Scripts that run for too long: Redis itself says so to everybody, and may be told to end them.

use std::time::Duration;

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::lacks;

/// Runs for some seconds of processor time.
const SLOW: &str = "for i = 1, 4e8 do end return 'done'";

/// Nodes that call a script too slow after `limit` ms.
fn lab(limit: u32) -> Lab {
    Lab::start(&Plan {
        node_config: vec![format!("lua-time-limit {limit}")],
        ..Lab::small_plan()
    })
}

/// A Switchman whose clients share one lane to the master.
fn one_lane(lab: &Lab) -> Proxy {
    let mut launch = Launch::group(lab, "consistency = \"master\"\n");
    launch.arg("--workers", "1").start()
}

/// Waits until a new client of `proxy` hears `-BUSY`, instead of waiting for ever.
fn wait_busy(proxy: &Proxy) {
    let told = wait_for(SOON, || {
        let mut other = Client::connect(proxy.addr(), Duration::from_millis(500)).unwrap();
        let reply = other.command(&["SET", "k", "v"]).ok()?;
        reply.error()?.starts_with("BUSY ").then_some(())
    });
    assert!(told.is_some(), "nobody was told that the master is busy");
}

/// Ends the script that runs on `node` when the test does, however it does.
struct Ender<'a>(&'a Process);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        for kill in [["SCRIPT", "KILL"], ["FUNCTION", "KILL"]] {
            let _nothing_to_end = self.0.command(&kill);
        }
    }
}

/// How many requests were answered UNCERTAIN, and how many refused after a hold.
fn troubles(proxy: &Proxy) -> (String, String) {
    let (_, page) = proxy.get("/metrics").unwrap();
    let value = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let expired = "switchman_held_requests_total{master_name=\"mymaster\",outcome=\"expired\"}";
    (value("switchman_uncertain_requests_total"), value(expired))
}

fn none() -> (String, String) {
    ("0".to_owned(), "0".to_owned())
}

#[test]
fn a_script_without_end_makes_others_busy_and_can_be_killed() {
    let lab = lab(200);
    let proxy = one_lane(&lab);
    let _ender = Ender(lab.node(0));
    let mut endless = proxy.client();
    endless.send(&["EVAL", "while true do end", "0"]).unwrap();
    endless.send(&["SET", "behind", "it"]).unwrap();
    wait_busy(&proxy);
    assert_eq!(proxy.get("/readyz").unwrap().0, 200);
    // What looks after nodes asks by itself, and may hear it after a client.
    let shown = wait_for(SOON, || {
        let (_, status) = proxy.get("/api/v1/status")?;
        status.contains("busy with a script").then_some(())
    });
    assert!(shown.is_some(), "{:?}", proxy.get("/api/v1/status"));

    let mut killer = proxy.client();
    ok(&mut killer, &["SCRIPT", "KILL"]);
    let ended = endless.receive().unwrap();
    assert!(ended.error().is_some(), "{ended:?}");
    assert_eq!(endless.receive().unwrap(), Reply::ok());
    ok(&mut killer, &["SET", "k", "v"]);
    assert_eq!(troubles(&proxy), none());
}

#[test]
fn a_function_without_end_can_be_killed_from_any_database() {
    if lacks("functions") {
        return;
    }
    let lab = lab(200);
    let proxy = one_lane(&lab);
    let _ender = Ender(lab.node(0));
    let code =
        "#!lua name=lib\nredis.register_function('endless', function() while true do end end)";
    let mut endless = proxy.client();
    let loaded = say(&mut endless, &["FUNCTION", "LOAD", code]);
    assert_eq!(loaded, Reply::bulk("lib"));
    let mut killer = proxy.client();
    ok(&mut killer, &["SELECT", "3"]);
    endless.send(&["FCALL", "endless", "0"]).unwrap();
    wait_busy(&proxy);
    let told = say(&mut killer, &["SET", "k", "v"]);
    assert!(told.error().unwrap().starts_with("BUSY "), "{told:?}");
    let told = say(&mut killer, &["SELECT", "4"]);
    // Valkey 9 selects a database all the same.
    let busy = told.error().map(|line| line.starts_with("BUSY "));
    assert!(busy.unwrap_or(told == Reply::ok()), "{told:?}");

    ok(&mut killer, &["FUNCTION", "KILL"]);
    let ended = endless.receive().unwrap();
    assert!(ended.error().is_some(), "{ended:?}");
    ok(&mut killer, &["SET", "mine", "v"]);
    let here = lab.node(0).command(&["GET", "mine"]).unwrap();
    assert_eq!(here, Reply::Null, "the killer was in another database");
    assert_eq!(troubles(&proxy), none());
}

#[test]
fn a_ping_hears_of_a_script_without_end_whoever_asked_for_it() {
    let lab = lab(10);
    let proxy = Launch::group(&lab, "").start();
    proxy.wait_ready();
    let _ender = Ender(lab.node(0));
    let mut endless = proxy.client();
    // The usual lanes are left for the question whether the master is busy.
    ok(&mut endless, &["SELECT", "9"]);
    ok(&mut endless, &["SET", "k", "v"]);
    let mut clients: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    endless.send(&["EVAL", "while true do end", "0"]).unwrap();
    for client in &mut clients {
        let told = wait_for(SOON, || {
            let reply = say(client, &["PING"]);
            reply.error()?.starts_with("BUSY ").then_some(())
        });
        assert!(told.is_some(), "a PING never hears that the master is busy");
    }
    // It is so until the script ends, and with its end it is over.
    for client in &mut clients {
        let reply = say(client, &["PING"]);
        assert!(reply.error().unwrap().starts_with("BUSY "), "{reply:?}");
    }
    ok(&mut clients[0], &["SCRIPT", "KILL"]);
    assert!(endless.receive().unwrap().error().is_some());
    for client in &mut clients {
        assert_eq!(say(client, &["PING"]), Reply::Simple("PONG".to_owned()));
    }
}

#[test]
fn a_script_that_is_slow_makes_no_write_uncertain() {
    // With the second limit the script ends before anybody is told that it runs.
    for limit in [200, 60_000] {
        let lab = lab(limit);
        let proxy = one_lane(&lab);
        let mut slow = proxy.client();
        slow.send(&["EVAL", SLOW, "0"]).unwrap();
        slow.send(&["INCR", "counter"]).unwrap();
        if limit == 200 {
            wait_busy(&proxy);
        }
        let done = wait_for(4 * SOON, || {
            let reply = say(&mut proxy.patient_client(4 * SOON), &["INCR", "counter"]);
            let busy = limit == 200 && reply.error().is_some_and(|it| it.starts_with("BUSY "));
            assert!(busy || reply.int().is_some(), "limit {limit}: {reply:?}");
            reply.int()
        });
        assert!(done.is_some(), "limit {limit}: writes never went on");
        slow.wait_at_most(2 * SOON).unwrap();
        assert_eq!(slow.receive().unwrap(), Reply::bulk("done"));
        assert!(slow.receive().unwrap().int().is_some());
        let counted = lab.node(0).command(&["GET", "counter"]).unwrap();
        assert_eq!(counted, Reply::bulk("2"), "limit {limit}");
        assert_eq!(troubles(&proxy), none(), "limit {limit}");
    }
}

#[test]
fn reads_leave_a_replica_that_is_busy() {
    let lab = lab(200);
    let proxy = lab.proxy();
    proxy.wait_ready();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let _ender = Ender(lab.node(1));
    let mut endless = lab.node(1).connect().unwrap();
    endless.send(&["EVAL", "while true do end", "0"]).unwrap();
    let busy = wait_for(SOON, || {
        let reply = lab.node(1).command(&["GET", "k"]).ok()?;
        reply.error()?.starts_with("BUSY ").then_some(())
    });
    assert!(busy.is_some());
    for _ in 0..100 {
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
        assert_eq!(say(&mut proxy.client(), &["GET", "k"]), Reply::bulk("v"));
    }
    let shown = wait_for(SOON, || {
        let (_, status) = proxy.get("/api/v1/status")?;
        status.contains("busy with a script").then_some(())
    });
    assert!(shown.is_some(), "the status does not tell");
    assert_eq!(
        lab.node(1).command(&["SCRIPT", "KILL"]).unwrap(),
        Reply::ok()
    );
    let back = wait_for(4 * SOON, || {
        let (_, status) = proxy.get("/api/v1/status")?;
        (!status.contains("busy with a script")).then_some(())
    });
    assert!(back.is_some(), "the replica never came back");
}

#[test]
fn a_script_that_wrote_is_ended_by_the_end_of_its_node_only() {
    let lab = lab(200);
    let proxy = one_lane(&lab);
    let mut endless = proxy.client();
    let script = "redis.call('set', 'k', 'v') while true do end";
    endless.send(&["EVAL", script, "0"]).unwrap();
    wait_busy(&proxy);
    let told = say(&mut proxy.client(), &["SCRIPT", "KILL"]);
    assert!(told.error().unwrap().starts_with("UNKILLABLE "), "{told:?}");
    lab.node(0).kill().unwrap();
    let lost = endless.receive().unwrap();
    assert!(lost.error().unwrap().starts_with("UNCERTAIN "), "{lost:?}");
}
