//! Start, operators' pages, subcommands, end.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, error, ok, say};
use crate::proxy::{Launch, run, tcp_addr};
use crate::version::debug_lines;

#[test]
fn sigterm_finishes_what_is_in_flight_and_exits_0() {
    let plan = Plan {
        node_config: debug_lines(),
        ..Lab::small_plan()
    };
    let lab = Lab::start(&plan);
    let proxy = lab.proxy();
    let (mut busy, mut idle) = (proxy.client(), proxy.client());
    ok(&mut idle, &["SET", "k", "v"]);
    busy.send(&["DEBUG", "SLEEP", "1"]).unwrap();
    let mut master = Client::connect(lab.node(0).addr(), Duration::from_millis(50)).unwrap();
    let asleep = wait_for(SOON, || master.command(&["PING"]).is_err().then_some(()));
    assert!(asleep.is_some(), "the command never reached the master");

    proxy.terminate();
    assert_eq!(busy.receive().unwrap(), Reply::ok(), "it was in flight");
    assert_eq!(
        idle.drain().unwrap(),
        b"",
        "an idle client is closed without a word"
    );
    assert_eq!(proxy.wait_end(SOON).code(), Some(0));
    assert!(TcpStream::connect(proxy.addr()).is_err());
}

#[test]
fn sigterm_refuses_what_is_held_and_what_waits_behind_it() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    lab.node(0).kill().unwrap();
    let (mut writer, mut popper) = (proxy.client(), proxy.client());
    for line in [["SET", "k", "v"], ["SET", "k", "w"]] {
        writer.send(&line).unwrap();
    }
    popper.send(&["BLPOP", "q", "60"]).unwrap();
    let held = wait_for(SOON, || {
        let (_, page) = proxy.get("/metrics")?;
        page.contains("switchman_held_clients{master_name=\"mymaster\"} 2")
            .then_some(())
    });
    assert!(held.is_some(), "two clients are held");

    proxy.terminate();
    for (client, replies) in [(&mut writer, 2), (&mut popper, 1)] {
        for _ in 0..replies {
            assert_eq!(client.receive().unwrap(), error(STOPPING));
        }
        assert_eq!(client.drain().unwrap(), b"");
    }
    assert_eq!(proxy.wait_end(Duration::from_secs(2)).code(), Some(0));
}

#[test]
fn what_is_in_flight_at_the_end_of_the_drain_timeout_is_answered_and_cut() {
    const DRAIN: Duration = Duration::from_secs(1);
    let lab = Lab::small();
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_SHUTDOWN_DRAIN_TIMEOUT", "1s");
    let proxy = launch.start();
    proxy.wait_ready();
    let (mut popper, mut reader) = (proxy.client(), proxy.client());
    for line in [&["BLPOP", "q", "0"][..], &["SET", "k", "v"], &["PING"]] {
        popper.send(line).unwrap();
    }
    reader
        .send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "0"])
        .unwrap();
    let blocked = wait_for(SOON, || {
        let count = lab.node(0).info("clients", "blocked_clients")?;
        (count == "2").then_some(())
    });
    assert!(blocked.is_some(), "nobody waits at the master");

    let asked = Instant::now();
    proxy.terminate();
    let doubt = popper.receive().unwrap();
    let line = doubt.error().unwrap_or_default();
    assert!(line.starts_with("UNCERTAIN switchman: "), "{doubt:?}");
    assert!(asked.elapsed() >= DRAIN, "cut after {:?}", asked.elapsed());
    for client in [&mut popper, &mut reader] {
        let said = client.drain().unwrap();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines = said.lines().filter(|line| *line == format!("-{STOPPING}"));
        let want = said.lines().count();
        assert!(want > 0 && lines.count() == want, "{said}");
    }
    assert_eq!(proxy.wait_end(SOON).code(), Some(0));
    let there = lab.node(0).command(&["EXISTS", "k"]).unwrap();
    assert_eq!(there, Reply::Int(0), "it was said not to have been sent");
}

/// What a client hears whose command is not sent because Switchman ends.
const STOPPING: &str = "MASTERDOWN switchman: stopping; the command was not sent, connect again";

#[test]
fn an_end_without_clients_comes_at_once() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    proxy.terminate();
    assert_eq!(proxy.wait_end(Duration::from_secs(2)).code(), Some(0));
}

#[test]
fn a_wrong_flag_exits_64_and_is_named() {
    let (status, output) = run(&["run", "--no-such-flag"]);
    assert_eq!(status.code(), Some(64));
    assert!(output.contains("--no-such-flag"), "{output}");
    let (status, output) = run(&["run", "--listen", "nowhere"]);
    assert_eq!(status.code(), Some(64));
    assert!(output.contains("nowhere"), "{output}");
}

#[test]
fn every_mistake_in_a_configuration_is_named_with_its_line() {
    let lab = Lab::start(&Plan {
        replicas: 0,
        sentinels: 0,
        ..Plan::default()
    });
    let config = "\
        [[group]]\n\
        master-name = \"mymaster\"\n\
        listen = [\"nowhere\"]\n\
        sentinels = [\"127.0.0.1:99999\"]\n\
        hold = \"soon\"\n\
        consistency = \"sometimes\"\n\
        colour = \"blue\"\n";
    let ended = Launch::with_config(&lab, config).run();
    assert_eq!(ended.status.code(), Some(64), "{}", ended.output);
    let mistakes = [
        (3, "listen"),
        (4, "sentinels"),
        (5, "hold"),
        (6, "consistency"),
        (7, "colour"),
    ];
    for (line, key) in mistakes {
        let named = ended.output.lines().find(|text| text.contains(key));
        let named = named.unwrap_or_else(|| panic!("{key} is not named in:\n{}", ended.output));
        let place = [format!("line {line}"), format!(":{line}:")];
        assert!(
            place.iter().any(|place| named.contains(place)),
            "line {line} in {named:?}"
        );
    }
}

#[test]
fn the_admin_pages_answer_and_readiness_follows_the_master() {
    let lab = Lab::small();
    lab.sentinel(0).kill().unwrap();
    let proxy = lab.proxy();
    let code = |path: &str| proxy.get(path).map(|(code, _)| code);
    assert_eq!(code("/livez"), Some(200));
    assert_eq!(code("/readyz"), Some(503));
    lab.sentinel(0).restart().unwrap();
    proxy.wait_ready();
    assert_eq!(code("/livez"), Some(200));
    assert_eq!(code("/no-such-page"), Some(404));
    let (page, body) = proxy.get("/").unwrap();
    assert_eq!(page, 200);
    assert!(
        body.contains(&lab.node(0).addr().to_string()),
        "the page names the master:\n{body}"
    );
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    assert_eq!(say(&mut client, &["GET", "absent"]), Reply::Null);
    let counted = wait_for(SOON, || {
        let (code, body) = proxy.get("/metrics")?;
        assert_eq!(code, 200);
        body.contains("switchman_requests_total{").then_some(body)
    });
    let metrics = counted.expect("requests are counted");
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("promtool is not installed: the form of the metrics was not checked");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(metrics.as_bytes())
        .unwrap();
    let verdict = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&verdict.stderr);
    assert!(verdict.status.success(), "{words}\n{metrics}");
}

#[test]
fn status_shows_what_a_running_switchman_sees() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    let (admin, master) = (proxy.admin().to_string(), lab.node(0).addr().to_string());
    let (status, text) = run(&["status", "--admin", &admin]);
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(
        text.contains(lab.master_name()) && text.contains(&master),
        "{text}"
    );

    let (status, text) = run(&["status", "--admin", &admin, "--json"]);
    assert_eq!(status.code(), Some(0), "{text}");
    let json: Value = serde_json::from_str(&text).unwrap();
    let (_, page) = proxy.get("/api/v1/status").unwrap();
    let same: Value = serde_json::from_str(&page).unwrap();
    assert_eq!(json["groups"][0]["master"], same["groups"][0]["master"]);

    drop(proxy);
    let (status, text) = run(&["status", "--admin", &admin]);
    assert_eq!(status.code(), Some(1), "nobody is there: {text}");
}

#[test]
fn check_shows_what_is_in_force_and_where_it_came_from() {
    let args = [
        "check",
        "--sentinel",
        "10.0.0.1:26379",
        "--master-name",
        "orders",
    ];
    let (status, text) = run(&args);
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(
        text.contains("10.0.0.1:26379") && text.contains("orders"),
        "{text}"
    );
    assert!(
        text.contains("--sentinel") && text.contains("default"),
        "{text}"
    );

    let (status, text) = run(&["check", "--sentinel", "10.0.0.1:x"]);
    assert_eq!(status.code(), Some(64), "{text}");
    assert!(text.contains("10.0.0.1:x"), "{text}");
}

#[test]
fn two_groups_are_served_by_one_process() {
    let (one, two) = (Lab::small(), small_beside());
    let group = |lab: &switchman::demo::deployment::Deployment| {
        format!(
            "[[group]]\nmaster-name = \"{}\"\nlisten = [\"127.0.0.1:0\"]\nsentinels = [\"{}\"]\n",
            lab.master_name(),
            lab.sentinel_addrs()
        )
    };
    let proxy = Launch::with_config(&one, &(group(&one) + &group(&two))).start();
    let of = |name: &str| {
        let named = |event: &Value| tcp_addr(event).filter(|_| event["master_name"] == name);
        Client::connect(proxy.log().wait("listening", named), SOON).unwrap()
    };
    ok(&mut of(one.master_name()), &["SET", "k", "one"]);
    ok(&mut of(two.master_name()), &["SET", "k", "two"]);
    assert_eq!(
        one.node(0).command(&["GET", "k"]).unwrap(),
        Reply::bulk("one")
    );
    assert_eq!(
        two.node(0).command(&["GET", "k"]).unwrap(),
        Reply::bulk("two")
    );
}

/// A second deployment in the same turn: with a turn of its own, two such tests could wait for each
/// other.
fn small_beside() -> switchman::demo::deployment::Deployment {
    let plan = Plan {
        master_name: "other".to_owned(),
        ..Lab::small_plan()
    };
    switchman::demo::deployment::Deployment::start(&plan).unwrap()
}
