//! Large replies to a client that does not read them, and what others need not wait for behind
//! them. Requests meet on one connection because their node is frozen until they are there.

use std::io::{Read, Write};
use std::net::TcpStream;

use switchman::demo::client::{Reply, encode_command};
use switchman::demo::process::{Process, wait_for};

use crate::hostile::metric;
use crate::lab::{Lab, SOON, ok, say};
use crate::listeners::wait_for_replica;
use crate::proxy::{Launch, Proxy};

/// Bytes of a value that fits into no buffer between a node and a client.
const LARGE: usize = 64 * 1024 * 1024;

/// A Switchman with one worker, and so one lane to each node, that has patience with frozen ones.
fn one_lane(lab: &Lab, consistency: &str) -> Proxy {
    let mut launch = Launch::group(lab, &format!("consistency = \"{consistency}\"\n"));
    launch.arg("--workers", "1");
    let proxy = launch
        .config("[upstream]\nsuspect-after = \"30s\"\n")
        .start();
    proxy.wait_ready();
    proxy
}

/// Waits until so many requests are in flight to a node.
fn wait_for_in_flight(proxy: &Proxy, node: &Process, count: u64) {
    let name = format!(
        "switchman_upstream_in_flight_requests{{master_name=\"mymaster\",node=\"{}\"}}",
        node.addr()
    );
    let there = wait_for(SOON, || metric(proxy, &name).filter(|it| *it == count));
    assert!(there.is_some(), "{count} requests in flight");
}

pub(crate) fn detoured(proxy: &Proxy) -> Option<u64> {
    metric(proxy, "switchman_detoured_requests_total{")
}

/// Has a client ask for the large value and read nothing, and another one ask for something else
/// right behind it. Returns what that hears, and the first one's connection.
fn ask_behind(proxy: &Proxy, node: &Process, args: &[&str]) -> (Reply, TcpStream) {
    let mut deaf = TcpStream::connect(proxy.addr()).unwrap();
    deaf.set_read_timeout(Some(SOON)).unwrap();
    let mut other = proxy.client();
    // It is there, and has its place.
    say(&mut other, &["PING"]);
    node.freeze().unwrap();
    let mut request = Vec::new();
    encode_command(&["GET", "large"], &mut request);
    deaf.write_all(&request).unwrap();
    wait_for_in_flight(proxy, node, 1);
    other.send(args).unwrap();
    wait_for_in_flight(proxy, node, 2);
    node.thaw().unwrap();
    (other.receive().unwrap(), deaf)
}

/// Reads all of the large reply.
fn read_large(deaf: &mut TcpStream) {
    let header = format!("${LARGE}\r\n");
    let mut reply = vec![0; header.len() + LARGE + 2];
    deaf.read_exact(&mut reply).unwrap();
    assert!(reply.starts_with(header.as_bytes()) && reply.ends_with(b"x\r\n"));
}

#[test]
fn a_read_behind_a_large_reply_that_nobody_takes_is_answered_over_another_connection() {
    let lab = Lab::small();
    let last = (LARGE - 1).to_string();
    lab.node(0)
        .command(&["SETRANGE", "large", &last, "x"])
        .unwrap();
    lab.node(0).command(&["SET", "k", "v"]).unwrap();
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let proxy = one_lane(&lab, "eventual");
    wait_for_replica(&lab, &mut proxy.client());
    assert_eq!(detoured(&proxy), Some(0));
    let (reply, mut deaf) = ask_behind(&proxy, lab.node(1), &["STRLEN", "k"]);
    assert_eq!(reply, Reply::Int(1));
    let counted = wait_for(SOON, || detoured(&proxy).filter(|count| *count == 1));
    assert!(counted.is_some(), "{:?}", detoured(&proxy));
    read_large(&mut deaf);
}

#[test]
fn a_write_waits_for_no_read_of_a_value_that_is_known_to_be_large() {
    let lab = Lab::small();
    let proxy = one_lane(&lab, "master");
    let mut sender = proxy.client();
    let value = "x".repeat(LARGE);
    ok(&mut sender, &["SET", "large", &value]);
    let (reply, mut deaf) = ask_behind(&proxy, lab.node(0), &["INCR", "n"]);
    assert_eq!(reply, Reply::Int(1));
    assert_eq!(detoured(&proxy), Some(0));
    read_large(&mut deaf);
}
