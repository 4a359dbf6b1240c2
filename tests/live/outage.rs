//! No master to be had: commands wait for one, and are told so in time.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, error, ok, say};
use crate::lab::{save, tell};
use crate::proxy::Launch;

const HOLD: Duration = Duration::from_millis(700);

#[test]
fn a_command_waits_until_the_first_sentinel_answers() {
    let lab = Lab::start(&Plan::default());
    for sentinel in lab.sentinels() {
        sentinel.kill().unwrap();
    }
    let proxy = lab.proxy();
    let mut client = proxy.client();
    client.send(&["SET", "k", "v"]).unwrap();
    client.wait_at_most(Duration::from_millis(300)).unwrap();
    assert!(
        matches!(client.receive(), Err(ClientError::Timeout)),
        "there is nobody to answer"
    );

    // It is one of three: the others have a while to contradict it.
    lab.sentinel(0).restart().unwrap();
    client.wait_at_most(2 * SOON).unwrap();
    assert_eq!(client.receive().unwrap(), Reply::ok());
    assert_eq!(
        lab.node(0).command(&["GET", "k"]).unwrap(),
        Reply::bulk("v")
    );
    proxy.wait_ready();
}

#[test]
fn a_sentinel_that_has_lost_its_memory_is_not_believed_alone() {
    let lab = Lab::start(&Plan::default());
    for sentinel in lab.sentinels() {
        sentinel.kill().unwrap();
    }
    assert_eq!(
        lab.node(1).command(&["REPLICAOF", "NO", "ONE"]).unwrap(),
        Reply::ok()
    );
    take_for_master(lab.sentinel(0), lab.node(0).addr(), lab.node(1).addr());
    let proxy = lab.proxy();
    let mut client = proxy.client();
    client.send(&["SET", "k", "v"]).unwrap();
    client.wait_at_most(Duration::from_secs(1)).unwrap();
    assert!(matches!(client.receive(), Err(ClientError::Timeout)));

    lab.sentinel(1).restart().unwrap();
    lab.sentinel(2).restart().unwrap();
    client.wait_at_most(SOON).unwrap();
    assert_eq!(client.receive().unwrap(), Reply::ok());
    let value = |node: usize| lab.node(node).command(&["GET", "k"]).unwrap();
    assert_eq!(value(0), Reply::bulk("v"));
    assert_eq!(value(1).text(), None);
}

/// Starts a Sentinel that remembers nobody and takes `new` for the master, not `old`.
fn take_for_master(sentinel: &Process, old: SocketAddr, new: SocketAddr) {
    let path = sentinel.dir().join("sentinel.conf");
    let text = fs::read_to_string(&path).unwrap();
    let (old, new) = (format!(" {} ", old.port()), format!(" {} ", new.port()));
    let lines = text
        .lines()
        .filter(|line| !line.starts_with("sentinel known-"));
    let changed = lines.map(|line| match line.strip_prefix("sentinel monitor ") {
        Some(master) => format!("sentinel monitor {}\n", master.replacen(&old, &new, 1)),
        None => format!("{line}\n"),
    });
    fs::write(&path, changed.collect::<String>()).unwrap();
    sentinel.restart().unwrap();
}

#[test]
fn without_a_sentinel_a_command_is_refused_after_the_hold() {
    let lab = Lab::small();
    lab.sentinel(0).kill().unwrap();
    let proxy = Launch::group(&lab, &hold()).start();
    refused_in_time(&mut proxy.client(), &["SET", "k", "v"]);
    refused_in_time(&mut proxy.client(), &["GET", "k"]);

    lab.sentinel(0).restart().unwrap();
    proxy.wait_ready();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
}

#[test]
fn when_all_nodes_die_commands_are_refused_after_the_hold() {
    let lab = Lab::start(&Plan::default());
    let proxy = Launch::group(&lab, &hold()).start();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    for node in lab.nodes() {
        node.kill().unwrap();
    }
    refused_in_time(&mut client, &["SET", "k", "w"]);
    refused_in_time(&mut client, &["GET", "k"]);
    assert_eq!(
        say(&mut client, &["PING"]),
        Reply::Simple("PONG".to_owned())
    );
}

#[test]
fn the_time_of_a_blocking_command_runs_while_there_is_no_master() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    tell(lab.node(0), &["RPUSH", "list", "x"]);
    save(lab.node(0));
    lab.node(0).kill().unwrap();
    let mut clients: Vec<Client> = (0..3).map(|_| proxy.patient_client(4 * SOON)).collect();
    let lines: [&[&str]; 3] = [
        &["BLPOP", "none", "1"],
        &["BLPOP", "none", "6"],
        &["BLPOP", "list", "60"],
    ];
    let asked = Instant::now();
    for (client, line) in clients.iter_mut().zip(lines) {
        client.send(line).unwrap();
    }
    let just = |seconds: u64| {
        let from = Duration::from_secs(seconds);
        from..from + Duration::from_millis(500)
    };
    assert_eq!(clients[0].receive().unwrap(), Reply::NullArray);
    assert!(just(1).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    lab.node(0).restart().unwrap();
    let taken = Reply::Array(vec![Reply::bulk("list"), Reply::bulk("x")]);
    assert_eq!(clients[2].receive().unwrap(), taken);
    assert_eq!(clients[1].receive().unwrap(), Reply::NullArray);
    assert!(just(6).contains(&asked.elapsed()), "{:?}", asked.elapsed());
}

#[test]
fn a_group_without_sentinels_serves_its_one_redis() {
    let lab = Lab::start(&Plan {
        replicas: 0,
        sentinels: 0,
        ..Plan::default()
    });
    let node = lab.node(0);
    let config = format!(
        "[[group]]\nmaster-name = \"static\"\nlisten = [\"127.0.0.1:0\"]\nmaster = \"{}\"\n{}",
        node.addr(),
        hold()
    );
    let proxy = Launch::with_config(&lab, &config).start();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));

    node.kill().unwrap();
    refused_in_time(&mut client, &["SET", "k", "w"]);
    node.restart().unwrap();
    proxy.wait_ready();
    ok(&mut client, &["SET", "k", "back"]);
}

#[test]
fn a_master_without_room_for_another_connection_serves_those_that_it_has() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    let (mut writer, mut waits) = (proxy.client(), proxy.patient_client(4 * SOON));
    ok(&mut writer, &["SET", "k", "v"]);
    let mut master = lab.node(0).connect().unwrap();
    // Who has a connection keeps it.
    ok(&mut master, &["CONFIG", "SET", "maxclients", "1"]);
    waits.send(&["BLPOP", "q", "0"]).unwrap();
    let refused = wait_for(SOON, || {
        let (_, text) = proxy.get("/metrics")?;
        let failures = "switchman_upstream_connect_failures_total";
        let counted = |line: &str| line.starts_with(failures) && !line.ends_with(" 0");
        text.lines().any(counted).then_some(())
    });
    assert!(refused.is_some(), "no connection was refused");
    let began = Instant::now();
    for _ in 0..200 {
        ok(&mut writer, &["SET", "k", "v"]);
    }
    let took = began.elapsed();
    assert!(took < SOON / 5, "200 writes took {took:?}");
    assert_eq!(say(&mut writer, &["RPUSH", "q", "1"]), Reply::Int(1));
    ok(&mut master, &["CONFIG", "SET", "maxclients", "1000"]);
    let popped = waits.receive().unwrap();
    assert_eq!(popped.items()[1], Reply::bulk("1"));
}

#[test]
fn more_clients_than_allowed_are_told_so() {
    let lab = Lab::small();
    let mut launch = Launch::before(&lab);
    launch.config("[limits]\nmax-clients = 2\n");
    let proxy = launch.start();
    let (mut one, mut two) = (proxy.client(), proxy.client());
    for client in [&mut one, &mut two] {
        assert_eq!(say(client, &["PING"]), Reply::Simple("PONG".to_owned()));
    }
    let mut third = proxy.client();
    assert_eq!(
        third.receive().unwrap(),
        error("ERR max number of clients reached")
    );
    assert_eq!(third.drain().unwrap(), b"");
    drop(one);
    let admitted = wait_for(SOON, || {
        proxy
            .client()
            .command(&["PING"])
            .ok()
            .filter(|reply| reply.error().is_none())
    });
    assert!(
        admitted.is_some(),
        "a place that became free was not given away"
    );
}

fn hold() -> String {
    format!("hold = \"{}ms\"\n", HOLD.as_millis())
}

/// The command gets `-MASTERDOWN` not before the hold has passed, and not much later.
fn refused_in_time(client: &mut Client, args: &[&str]) {
    let asked = Instant::now();
    let reply = say(client, args);
    let after = asked.elapsed();
    let line = reply.error().unwrap_or_default();
    assert!(
        line.starts_with("MASTERDOWN switchman: "),
        "{args:?}: {reply:?}"
    );
    assert!(line.contains("not sent"), "{line}");
    assert!(
        after + Duration::from_millis(50) >= HOLD,
        "{args:?} refused after {after:?}"
    );
    assert!(
        after < HOLD + Duration::from_secs(2),
        "{args:?} refused after {after:?}"
    );
}
