//! Replicas are killed, come back, freeze and are promoted while clients read: no read fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};

/// Clients that read all the time.
const READERS: usize = 8;
/// Longest wait of a read, whatever happens: a frozen replica is suspected after half a second.
const STALL_MAX: Duration = Duration::from_secs(1);

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    reads: u64,
    wrong: Vec<Reply>,
    longest: Duration,
}

fn keep_reading(proxy: &Proxy, done: &AtomicBool) -> Seen {
    let mut client = proxy.client();
    let mut seen = Seen::default();
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let reply = say(&mut client, &["GET", "k"]);
        seen.longest = seen.longest.max(begun.elapsed());
        seen.reads += 1;
        if reply != Reply::bulk("v") {
            seen.wrong.push(reply);
        }
        thread::sleep(Duration::from_millis(1));
    }
    seen
}

/// What the status says of a node.
fn told(proxy: &Proxy, node: &Process) -> Option<Value> {
    let (_, body) = proxy.get("/api/v1/status")?;
    let status: Value = serde_json::from_str(&body).ok()?;
    let nodes = status["groups"][0]["nodes"].as_array()?;
    let addr = node.addr().to_string();
    nodes.iter().find(|it| it["addr"] == *addr).cloned()
}

#[track_caller]
fn wait_in_use(proxy: &Proxy, node: &Process, in_use: bool) {
    let there = wait_for(6 * SOON, || {
        let told = told(proxy, node);
        let is = told.is_some_and(|it| it["role"] == "replica" && it["in_use"] == true);
        (is == in_use).then_some(())
    });
    assert!(there.is_some(), "{}: {:?}", node.addr(), told(proxy, node));
}

/// Waits until a node has answered more reads.
#[track_caller]
fn wait_read_from(proxy: &Proxy, node: &Process) {
    let reads = || told(proxy, node).and_then(|it| it["reads"].as_u64());
    let before = reads();
    let more = wait_for(6 * SOON, || (reads() > before).then_some(()));
    assert!(
        more.is_some(),
        "nobody reads from {}: {before:?}",
        node.addr()
    );
}

/// Runs `story` while clients read; none of their reads fails or waits for long.
fn while_reading(proxy: &Proxy, what: &str, story: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let seen: Vec<Seen> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| keep_reading(proxy, &done)))
            .collect();
        // However the story ends, the readers do too.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        done.store(true, Ordering::Relaxed);
        let seen = readers.into_iter().map(|it| it.join().unwrap()).collect();
        told.unwrap_or_else(|why| std::panic::resume_unwind(why));
        seen
    });
    let longest = seen.iter().map(|it| it.longest).max().unwrap_or_default();
    let reads: u64 = seen.iter().map(|it| it.reads).sum();
    println!("{what}: {reads} reads, the longest took {longest:?}");
    let wrong: Vec<_> = seen.iter().flat_map(|it| &it.wrong).collect();
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    assert!(longest <= STALL_MAX, "{what}: {longest:?}");
}

#[test]
fn no_read_fails_whatever_happens_to_the_replicas() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let proxy = lab.proxy();
    proxy.wait_ready();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 2, SOON).unwrap();
    let (one, two) = (lab.node(1), lab.node(2));
    wait_in_use(&proxy, one, true);
    wait_in_use(&proxy, two, true);
    while_reading(&proxy, "both serve", || {
        wait_read_from(&proxy, one);
        wait_read_from(&proxy, two);
    });
    while_reading(&proxy, "one is killed and comes back", || {
        one.kill().unwrap();
        wait_in_use(&proxy, one, false);
        wait_read_from(&proxy, two);
        one.restart().unwrap();
        wait_in_use(&proxy, one, true);
        wait_read_from(&proxy, one);
    });
    while_reading(&proxy, "one is frozen and wakes up", || {
        two.freeze().unwrap();
        wait_in_use(&proxy, two, false);
        wait_read_from(&proxy, one);
        two.thaw().unwrap();
        wait_in_use(&proxy, two, true);
        wait_read_from(&proxy, two);
    });
    while_reading(&proxy, "both are killed", || {
        one.kill().unwrap();
        two.kill().unwrap();
        wait_in_use(&proxy, one, false);
        wait_in_use(&proxy, two, false);
        wait_read_from(&proxy, lab.node(0));
        one.restart().unwrap();
        two.restart().unwrap();
        wait_in_use(&proxy, one, true);
        wait_in_use(&proxy, two, true);
    });
}

#[test]
fn no_read_fails_when_the_replica_that_serves_it_is_promoted() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let proxy = lab.proxy();
    proxy.wait_ready();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 2, SOON).unwrap();
    wait_in_use(&proxy, lab.node(1), true);
    wait_in_use(&proxy, lab.node(2), true);
    while_reading(&proxy, "one is promoted", || {
        lab.failover().unwrap();
        let new = lab.wait_for_switch(lab.node(0), 4 * SOON).unwrap();
        let other = if new.addr() == lab.node(1).addr() {
            2
        } else {
            1
        };
        wait_in_use(&proxy, lab.node(other), true);
        wait_read_from(&proxy, lab.node(other));
        // The old master is listed as a replica at once, and serves only when it is one.
        wait_in_use(&proxy, lab.node(0), true);
        wait_read_from(&proxy, lab.node(0));
    });
}

#[test]
fn a_dead_set_of_replicas_gives_the_master_no_more_reads_than_are_allowed() {
    let lab = Lab::small();
    let proxy = Launch::group(&lab, "replica-fallback-limit = 20\n").start();
    proxy.wait_ready();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    wait_in_use(&proxy, lab.node(1), true);
    lab.node(1).kill().unwrap();
    wait_in_use(&proxy, lab.node(1), false);
    let line = "MASTERDOWN switchman: no replica can serve reads now";
    let (mut served, mut refused) = (0, 0);
    let begun = Instant::now();
    for _ in 0..500 {
        match say(&mut client, &["GET", "k"]) {
            Reply::Error(error) if error.starts_with(line) => refused += 1,
            reply => {
                assert_eq!(reply, Reply::bulk("v"));
                served += 1;
            }
        }
    }
    let took = begun.elapsed();
    println!("{served} served and {refused} refused in {took:?}");
    assert!(refused > 0 && served > 0);
    let allowed = 20.0 + 20.0 * took.as_secs_f64() + 1.0;
    assert!(f64::from(served) <= allowed, "{served} in {took:?}");
}
