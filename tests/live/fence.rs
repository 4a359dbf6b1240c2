//! Connections that Switchman gives up are ended at their node, so that nothing that was sent on
//! them is executed later.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::faults::{Front, SWITCHMAN};
use crate::hostile::metric;
use crate::lab::tell;
use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::all_but_client_kill;

/// `upstream.reply-timeout`, as short as a test wants it.
const OVERDUE: Duration = Duration::from_secs(1);

const ENDED: &str = "UNCERTAIN switchman: the node did not answer within upstream.reply-timeout, \
    and has ended the connection";
const PERHAPS_LATER: &str = "UNCERTAIN switchman: the node did not answer within \
    upstream.reply-timeout; the command may still be applied";

#[test]
fn a_pop_whose_client_left_over_a_dead_connection_takes_nothing() {
    let lab = Lab::small();
    let front = Front::before(lab.node(0).addr());
    let proxy = before(&lab, front.addr(), "");
    let popper = popping(&lab, &proxy);
    front.strand(SWITCHMAN);
    drop(popper);
    assert!(nobody_pops(&lab), "the node goes on waiting for the pop");
    assert_eq!(tell(lab.node(0), &["RPUSH", "q", "v"]), Reply::Int(1));
    assert_eq!(tell(lab.node(0), &["LLEN", "q"]), Reply::Int(1));
    assert!(counted(&proxy, "killed", 1), "{:?}", proxy.get("/metrics"));
}

#[test]
fn a_write_on_a_dead_connection_is_answered_when_that_has_ended() {
    let lab = Lab::small();
    let front = Front::before(lab.node(0).addr());
    let proxy = before(&lab, front.addr(), "[upstream]\nreply-timeout = \"1s\"\n");
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    front.strand(SWITCHMAN);
    let sent = Instant::now();
    let reply = say(&mut client, &["SET", "k", "late"]);
    let took = sent.elapsed();
    println!("answered after {took:?}: {reply:?}");
    assert!(reply.error().unwrap().starts_with(ENDED), "{reply:?}");
    assert!(took >= OVERDUE && took < 2 * OVERDUE, "{took:?}");
    assert!(counted(&proxy, "killed", 1), "{:?}", proxy.get("/metrics"));
    assert_eq!(tell(lab.node(0), &["GET", "k"]), Reply::bulk("v"));
}

#[test]
fn what_was_given_up_at_a_frozen_node_is_ended_when_it_thaws() {
    let lab = Lab::small();
    let overdue = "[upstream]\nreply-timeout = \"1s\"\n";
    let proxy = before(&lab, lab.node(0).addr(), overdue);
    let popper = popping(&lab, &proxy);
    let mut client = proxy.client();
    ok(&mut client, &["SET", "k", "v"]);
    let before = connections(&lab);
    lab.node(0).freeze().unwrap();
    drop(popper);
    let sent = Instant::now();
    let reply = say(&mut client, &["SET", "k", "late"]);
    let took = sent.elapsed();
    println!("answered after {took:?}: {reply:?}");
    assert!(
        reply.error().unwrap().starts_with(PERHAPS_LATER),
        "{reply:?}"
    );
    assert!(took >= OVERDUE && took < 2 * OVERDUE, "{took:?}");
    let pending = wait_for(SOON, || (pending(&proxy)? == 2).then_some(()));
    assert!(pending.is_some(), "{:?}", proxy.get("/api/v1/status"));

    lab.node(0).thaw().unwrap();
    assert!(nobody_pops(&lab), "the node goes on waiting for the pop");
    let ended = wait_for(SOON, || {
        let total = fences(&proxy, "killed")? + fences(&proxy, "gone")?;
        (total == 2).then_some(())
    });
    assert!(ended.is_some(), "{:?}", proxy.get("/metrics"));
    let left = connections(&lab);
    let gone = before.iter().filter(|id| !left.contains(id));
    assert_eq!(gone.count(), 2, "{before:?} {left:?}");
    ok(&mut client, &["SET", "k", "w"]);
}

#[test]
fn without_the_right_to_end_connections_there_is_one_warning() {
    let lab = Lab::start(&Plan {
        node_config: vec![format!(
            "user watch on >secret ~* &* {}",
            all_but_client_kill()
        )],
        ..Lab::small_plan()
    });
    let login = "username = \"watch\"\npassword = \"secret\"\n";
    let proxy = Launch::group(&lab, login).start();
    proxy.wait_ready();
    for count in 1..=2 {
        drop(popping(&lab, &proxy));
        assert!(nobody_pops(&lab), "its end has arrived");
        assert!(counted(&proxy, "forbidden", count), "{count}");
    }
    let warning = "connections given up cannot be ended at the node";
    assert_eq!(proxy.log().text().matches(warning).count(), 1);
    let (_, status) = proxy.get("/api/v1/status").unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let forbidden = status["groups"][0]["fences"]["forbidden"].as_str().unwrap();
    assert!(forbidden.contains("NOPERM"), "{forbidden}");
}

/// Switchman before one fixed master.
fn before(lab: &Lab, master: SocketAddr, lines: &str) -> Proxy {
    let config = format!(
        "[[group]]\nmaster-name = \"mymaster\"\nlisten = [\"127.0.0.1:0\"]\n\
         master = \"{master}\"\n{lines}"
    );
    let proxy = Launch::with_config(lab, &config).start();
    proxy.wait_ready();
    proxy
}

/// A client that waits at the node for something to pop.
fn popping(lab: &Lab, proxy: &Proxy) -> Client {
    let mut client = proxy.client();
    client.send(&["BLPOP", "q", "0"]).unwrap();
    let waits = wait_for(SOON, || is_popping(lab).then_some(()));
    assert!(waits.is_some(), "the command never reached the node");
    client
}

fn nobody_pops(lab: &Lab) -> bool {
    wait_for(SOON, || (!is_popping(lab)).then_some(())).is_some()
}

fn is_popping(lab: &Lab) -> bool {
    lab.node(0).info("clients", "blocked_clients").as_deref() == Some("1")
}

/// Numbers of Switchman's connections at the node.
fn connections(lab: &Lab) -> Vec<String> {
    let list = tell(lab.node(0), &["CLIENT", "LIST"]).text().unwrap();
    let ours = list.lines().filter(|line| line.contains("name=switchman"));
    let ids = ours.filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned).collect()
}

fn counted(proxy: &Proxy, result: &str, count: u64) -> bool {
    wait_for(SOON, || (fences(proxy, result)? == count).then_some(())).is_some()
}

fn fences(proxy: &Proxy, result: &str) -> Option<u64> {
    let name = format!("switchman_fences_total{{master_name=\"mymaster\",result=\"{result}\"");
    metric(proxy, &name)
}

fn pending(proxy: &Proxy) -> Option<u64> {
    let (_, status) = proxy.get("/api/v1/status")?;
    let status: serde_json::Value = serde_json::from_str(&status).ok()?;
    status["groups"][0]["fences"]["pending"].as_u64()
}
