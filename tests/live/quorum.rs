//! Sentinels that are not heard: when that is told, and when it stops writes.

use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy, run};

/// What the status says of the group.
fn group(proxy: &Proxy) -> Option<Value> {
    let (_, page) = proxy.get("/api/v1/status")?;
    let mut status: Value = serde_json::from_str(&page).ok()?;
    Some(status["groups"][0].take())
}

fn has_line(proxy: &Proxy, line: &str) -> bool {
    let (_, page) = proxy.get("/metrics").unwrap();
    page.lines().any(|each| each == line)
}

#[test]
fn a_strict_quorum_holds_and_refuses_writes_until_a_majority_is_back() {
    let lab = Lab::start(&Plan {
        down_after: 12 * SOON,
        ..Plan::default()
    });
    let proxy = Launch::group(&lab, "strict-quorum = \"1s\"\nhold = \"4s\"\n").start();
    let mut client = proxy.patient_client(2 * SOON);
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let all = wait_for(SOON, || {
        let majority = group(&proxy)?["majority"].take();
        (majority["answering"] == 3 && majority["known"] == 3).then_some(())
    });
    assert!(all.is_some());
    assert!(has_line(
        &proxy,
        "switchman_sentinel_majority{master_name=\"mymaster\"} 1"
    ));

    lab.sentinel(1).freeze().unwrap();
    lab.sentinel(2).freeze().unwrap();
    let held = wait_for(4 * SOON, || {
        let group = group(&proxy)?;
        let few = group["waiting"].as_str()? == "no majority of the sentinels answers: 1 of 3";
        (few && group["phase"] == "switching").then_some(())
    });
    assert!(held.is_some(), "writes still flow: {:?}", group(&proxy));
    // The control plane says so a moment before each worker knows it.
    let line = wait_for(2 * SOON, || {
        let reply = say(&mut client, &["SET", "other", "w"]);
        reply.error().map(str::to_owned)
    });
    let line = line.expect("a write is refused");
    assert!(
        line.starts_with("MASTERDOWN switchman: no majority of the Sentinels"),
        "{line}"
    );
    assert!(line.ends_with("the command was not sent"), "{line}");
    assert_eq!(say(&mut proxy.client(), &["GET", "k"]), Reply::bulk("v"));
    assert!(has_line(
        &proxy,
        "switchman_sentinel_majority{master_name=\"mymaster\"} 0"
    ));
    let (_, shown) = run(&["status", "--admin", &proxy.admin().to_string()]);
    let told = "1 of 3 answer, NO majority; writes are held after 1s without one";
    assert!(shown.contains(told), "{shown}");

    client.send(&["SET", "k", "x"]).unwrap();
    lab.sentinel(2).thaw().unwrap();
    assert_eq!(client.receive().unwrap(), Reply::ok());
    lab.sentinel(1).thaw().unwrap();
    proxy.wait_ready();
    assert_eq!(
        lab.node(0).command(&["GET", "k"]).unwrap(),
        Reply::bulk("x")
    );
}

#[test]
fn by_itself_a_living_master_is_enough() {
    let lab = Lab::start(&Plan {
        down_after: 12 * SOON,
        ..Plan::default()
    });
    let proxy = lab.proxy();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    for sentinel in lab.sentinels() {
        sentinel.freeze().unwrap();
    }
    let told = wait_for(4 * SOON, || {
        ok(&mut client, &["SET", "k", "v"]);
        has_line(
            &proxy,
            "switchman_sentinel_majority{master_name=\"mymaster\"} 0",
        )
        .then_some(())
    });
    for sentinel in lab.sentinels() {
        sentinel.thaw().unwrap();
    }
    assert!(told.is_some());
    ok(&mut client, &["SET", "k", "w"]);
}

#[test]
fn a_master_that_dies_without_a_quorum_is_waited_for_while_its_replicas_serve() {
    const HOLD: Duration = Duration::from_secs(2);
    let lab = Lab::start(&Plan::default());
    let proxy = Launch::group(&lab, "hold = \"2s\"\n").start();
    let mut client = proxy.patient_client(4 * SOON);
    ok(&mut client, &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    for sentinel in &lab.sentinels()[1..] {
        sentinel.kill().unwrap();
    }
    let mut down = lab.subscribe(&["+sdown"]).unwrap();
    lab.node(0).kill().unwrap();
    // The Sentinels that are gone are told of too, in any order.
    let of_master = |news: Reply| news.items()[2].text().unwrap().starts_with("master ");
    while !of_master(down[0].receive().unwrap()) {}

    let asked = Instant::now();
    client.send(&["SET", "k", "w"]).unwrap();
    let mut reader = proxy.client();
    while asked.elapsed() < HOLD / 2 {
        let read = Instant::now();
        assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("v"));
        assert!(read.elapsed() < SOON / 5, "{:?}", read.elapsed());
    }
    let refused = client.receive().unwrap();
    let line = refused.error().unwrap_or_default();
    assert!(
        line.starts_with("MASTERDOWN switchman: no writable master"),
        "{refused:?}"
    );
    assert!(
        asked.elapsed() >= HOLD,
        "refused after {:?}",
        asked.elapsed()
    );

    for sentinel in &lab.sentinels()[1..] {
        sentinel.restart().unwrap();
    }
    lab.wait_for_switch(lab.node(0), 4 * SOON).unwrap();
    proxy.wait_ready();
    ok(&mut client, &["SET", "k", "w"]);
    let there = lab.node(1).command(&["GET", "k"]).unwrap();
    assert_eq!(there, Reply::bulk("w"));
}

#[test]
fn who_is_not_heard_is_told_with_what_that_means() {
    let may = "-@all +auth +role +info +sentinel|get-master-addr-by-name +sentinel|master \
               +sentinel|replicas +sentinel|sentinels +sentinel|myid";
    let lab = Lab::start(&Plan {
        sentinel_config: vec![format!("user watch on >secret {may}")],
        ..Lab::small_plan()
    });
    let login = "sentinel-username = \"watch\"\nsentinel-password = \"secret\"\n";
    let polling = Launch::group(&lab, login).start();
    let hearing = lab.proxy();
    let heard = |proxy: &Proxy| {
        let line = "switchman_sentinel_heard{";
        let (_, page) = proxy.get("/metrics")?;
        let found = page.lines().find(|each| each.starts_with(line))?;
        Some(found.rsplit_once(' ')?.1 == "1")
    };
    let detail = |proxy: &Proxy| {
        let mut sentinel = group(proxy)?["sentinels"][0].take();
        let detail = sentinel["detail"].take().as_str()?.to_owned();
        Some((sentinel["heard"].as_bool()?, detail))
    };
    let told = wait_for(SOON, || {
        let (is_heard, words) = detail(&polling)?;
        let forbidden =
            words.ends_with("SUBSCRIBE is forbidden: a planned failover may lose writes");
        (forbidden && !is_heard && heard(&polling) == Some(false)).then_some(())
    });
    assert!(told.is_some(), "{:?}", detail(&polling));
    let well = wait_for(SOON, || {
        let (is_heard, words) = detail(&hearing)?;
        (is_heard && !words.contains("lose") && heard(&hearing) == Some(true)).then_some(())
    });
    assert!(well.is_some(), "{:?}", detail(&hearing));
    ok(
        &mut polling.patient_client(Duration::from_secs(10)),
        &["SET", "k", "v"],
    );
}
