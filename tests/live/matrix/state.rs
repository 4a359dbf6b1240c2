//! What a client has set before a switch and finds after it.

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::tell;
use crate::lab::{Lab, SOON, ok, say};
use crate::matrix::master::{hasty, unhurried};
use crate::matrix::scene::PATIENT;
use crate::proxy::{Launch, Proxy};

const PASSWORD: &str = "secret";

/// A deployment in which nobody takes a node for dead: a failover is ordered.
fn start() -> (Lab, Proxy) {
    start_with(unhurried())
}

/// A deployment, and a Switchman that reads from the master only.
fn start_with(plan: Plan) -> (Lab, Proxy) {
    let lab = Lab::start(&Plan {
        password: Some(PASSWORD.to_owned()),
        ..plan
    });
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_PASSWORD", PASSWORD);
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    launch.env("SWITCHMAN_HOLD", "30s");
    let proxy = launch.start();
    proxy.wait_ready();
    (lab, proxy)
}

fn client(proxy: &Proxy) -> Client {
    let mut client = proxy.patient_client(PATIENT);
    ok(&mut client, &["AUTH", PASSWORD]);
    client
}

/// A planned failover, from its command until a write has reached the new master.
fn fail_over(lab: &Lab, proxy: &Proxy) {
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    lab.failover().unwrap();
    switched(lab, proxy);
}

fn switched(lab: &Lab, proxy: &Proxy) {
    lab.wait_for_switch(lab.node(0), PATIENT).unwrap();
    proxy.wait_switched(lab.node(1));
    ok(&mut client(proxy), &["SET", "settled", "v"]);
    let settled = tell(lab.node(1), &["EXISTS", "settled"]);
    assert_eq!(settled, Reply::Int(1), "the new master serves");
}

#[test]
fn database_login_protocol_and_name_outlive_a_failover() {
    let (lab, proxy) = start();
    let mut client = proxy.patient_client(PATIENT);
    let hello = [
        "HELLO", "3", "AUTH", "default", PASSWORD, "SETNAME", "orders",
    ];
    assert_eq!(say(&mut client, &hello).error(), None);
    ok(&mut client, &["SELECT", "5"]);
    assert_eq!(say(&mut client, &["HSET", "h", "f", "v"]), Reply::Int(1));
    let id = say(&mut client, &["CLIENT", "ID"]);
    fail_over(&lab, &proxy);

    let map = Reply::Map(vec![(Reply::bulk("f"), Reply::bulk("v"))]);
    assert_eq!(say(&mut client, &["HGETALL", "h"]), map);
    ok(&mut client, &["SET", "k", "five"]);
    assert_eq!(
        say(&mut client, &["CLIENT", "GETNAME"]),
        Reply::bulk("orders")
    );
    assert_eq!(say(&mut client, &["CLIENT", "ID"]), id);
    assert_eq!(say(&mut client, &["ACL", "WHOAMI"]), Reply::bulk("default"));
    let mut node = lab.node(1).connect().unwrap();
    assert_eq!(say(&mut node, &["GET", "k"]), Reply::Null, "database 0");
    ok(&mut node, &["SELECT", "5"]);
    assert_eq!(say(&mut node, &["GET", "k"]), Reply::bulk("five"));
}

#[test]
fn subscriptions_outlive_a_failover_without_another_confirmation() {
    let (lab, proxy) = start();
    let (mut old, mut new) = (client(&proxy), client(&proxy));
    say(&mut new, &["HELLO", "3"]);
    for subscriber in [&mut old, &mut new] {
        say(subscriber, &["SUBSCRIBE", "news"]);
        say(subscriber, &["PSUBSCRIBE", "weather.*"]);
    }
    let upstream = subscribed(lab.node(0));
    assert!(matches!(upstream, 1 | 2), "{upstream}: one for each worker");
    fail_over(&lab, &proxy);
    let moved = wait_for(SOON, || (subscribed(lab.node(1)) == upstream).then_some(()));
    assert!(moved.is_some(), "not subscribed at the new master");
    let mut publisher = client(&proxy);
    let heard = [
        (["PUBLISH", "news", "one"], vec!["message", "news", "one"]),
        (
            ["PUBLISH", "weather.today", "rain"],
            vec!["pmessage", "weather.*", "weather.today", "rain"],
        ),
    ];
    for (publish, want) in heard {
        say(&mut publisher, &publish);
        let want: Vec<Reply> = want.into_iter().map(Reply::bulk).collect();
        assert_eq!(old.receive().unwrap(), Reply::Array(want.clone()));
        assert_eq!(new.receive().unwrap(), Reply::Push(want));
    }
}

/// How many connections of `node` have both subscriptions.
fn subscribed(node: &Process) -> usize {
    let list = tell(node, &["CLIENT", "LIST", "TYPE", "pubsub"]);
    let both = |client: &&str| client.contains(" sub=1 psub=1 ");
    list.text().unwrap_or_default().lines().filter(both).count()
}

#[test]
fn a_transaction_goes_on_after_a_failover() {
    let (lab, proxy) = start();
    let mut client = client(&proxy);
    queue(&mut client);
    fail_over(&lab, &proxy);
    expect_execution(&lab, &mut client);
}

#[test]
fn a_transaction_goes_on_after_the_masters_death() {
    let (lab, proxy) = start_with(hasty());
    let mut client = client(&proxy);
    queue(&mut client);
    lab.node(0).kill().unwrap();
    switched(&lab, &proxy);
    expect_execution(&lab, &mut client);
}

fn queue(client: &mut Client) {
    ok(client, &["MULTI"]);
    for key in ["a", "b"] {
        let queued = say(client, &["INCR", key]);
        assert_eq!(queued, Reply::Simple("QUEUED".to_owned()));
    }
}

/// EXEC had not been sent when the link was lost: the next master executes all of it, once.
fn expect_execution(lab: &Lab, client: &mut Client) {
    for count in 1..=2 {
        let done = Reply::Array(vec![Reply::Int(count), Reply::Int(count)]);
        assert_eq!(say(client, &["EXEC"]), done);
        let text = count.to_string();
        assert_eq!(
            tell(lab.node(1), &["MGET", "a", "b"]).items(),
            [Reply::bulk(&text), Reply::bulk(&text)]
        );
        if count == 1 {
            queue(client);
        }
    }
}

#[test]
fn what_was_watched_on_another_master_counts_as_changed() {
    let (lab, proxy) = start();
    let mut client = client(&proxy);
    ok(&mut client, &["WATCH", "a"]);
    assert_eq!(say(&mut client, &["GET", "a"]), Reply::Null);
    fail_over(&lab, &proxy);
    queue(&mut client);
    assert_eq!(say(&mut client, &["EXEC"]), Reply::NullArray);
    assert_eq!(tell(lab.node(1), &["EXISTS", "a", "b"]), Reply::Int(0));
    ok(&mut client, &["SET", "a", "v"]);
}

#[test]
fn an_element_is_not_lost_by_who_waits_for_it_across_a_failover() {
    let (lab, proxy) = start();
    let (mut waiting, mut pushing) = (client(&proxy), client(&proxy));
    waiting.send(&["BLPOP", "list", "10"]).unwrap();
    let blocked = wait_for(SOON, || {
        let count = lab.node(0).info("clients", "blocked_clients")?;
        (count == "1").then_some(())
    });
    assert!(blocked.is_some(), "BLPOP never reached the master");
    fail_over(&lab, &proxy);
    assert_eq!(say(&mut pushing, &["RPUSH", "list", "x"]), Reply::Int(1));
    let reply = waiting.receive().unwrap();
    println!("BLPOP across a planned failover: {reply:?}");
    let left = tell(lab.node(1), &["LRANGE", "list", "0", "-1"]);
    if reply
        .error()
        .is_some_and(|line| line.starts_with("UNCERTAIN "))
    {
        assert_eq!(left, Reply::Array(vec![Reply::bulk("x")]), "nobody took it");
    } else {
        let popped = Reply::Array(vec![Reply::bulk("list"), Reply::bulk("x")]);
        assert_eq!((reply, left), (popped, Reply::Array(Vec::new())));
    }
    assert_eq!(say(&mut waiting, &["ECHO", "next"]), Reply::bulk("next"));
}
