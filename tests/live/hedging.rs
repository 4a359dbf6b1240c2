//! Hedged reads: a replica that is frozen keeps nobody waiting.

use std::time::{Duration, Instant};

use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::routing::calls;

/// Reads sent twice so far that came to this.
fn hedged(proxy: &Proxy, outcome: &str) -> u64 {
    let (_, text) = proxy.get("/metrics").unwrap();
    let label = format!("outcome=\"{outcome}\"");
    let line = text
        .lines()
        .find(|line| line.starts_with("switchman_hedged_requests_total{") && line.contains(&label));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    #[expect(
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small count as Prometheus writes it"
    )]
    value.map_or(0, |value| value as u64)
}

/// The slowest of some reads while one of two replicas is frozen; some of them go to that one.
///
/// `suspect-after` is long, so that nothing else helps them.
fn slowest_read(hedge: &str) -> (Duration, u64) {
    let lab = Lab::start(&Plan {
        replicas: 2,
        down_after: 12 * SOON,
        ..Plan::default()
    });
    let lines = format!("consistency = \"eventual\"\nhedge-reads = \"{hedge}\"\n");
    let mut launch = Launch::group(&lab, &lines);
    launch.env("SWITCHMAN_UPSTREAM_SUSPECT_AFTER", "2s");
    launch.env("SWITCHMAN_WORKERS", "1");
    let proxy = launch.start();
    proxy.wait_ready();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 2, SOON).unwrap();
    // Both replicas serve, and enough reads are answered to tell which are late.
    let began = Instant::now();
    let warm = wait_for(2 * SOON, || {
        for _ in 0..200 {
            let mut other = proxy.client();
            assert_eq!(say(&mut other, &["GET", "k"]), Reply::bulk("v"));
        }
        let served = |node| calls(lab.node(node), "get") > 100;
        let long = began.elapsed() > Duration::from_secs(3);
        (long && served(1) && served(2)).then_some(())
    });
    assert!(warm.is_some(), "the replicas were not used");

    lab.node(2).freeze().unwrap();
    let mut slowest = Duration::ZERO;
    for _ in 0..10 {
        // A new one has no replica of its own yet.
        let mut client = proxy.patient_client(SOON);
        let began = Instant::now();
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
        slowest = slowest.max(began.elapsed());
    }
    lab.node(2).thaw().unwrap();
    let won = if hedge == "on" {
        let won = wait_for(SOON, || Some(hedged(&proxy, "won")).filter(|won| *won > 0));
        won.expect("a read was won by its second copy")
    } else {
        hedged(&proxy, "won")
    };
    println!(
        "hedge-reads {hedge}: slowest read {slowest:?}, {} sent twice, {won} won",
        hedged(&proxy, "sent"),
    );
    (slowest, won)
}

#[test]
fn a_frozen_replica_of_two_keeps_no_hedged_read_waiting() {
    let (slowest, _) = slowest_read("on");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
}

#[test]
fn without_hedging_a_read_waits_until_its_frozen_replica_is_suspected() {
    let (slowest, won) = slowest_read("off");
    assert!(slowest > Duration::from_millis(1900), "{slowest:?}");
    assert_eq!(won, 0);
}
