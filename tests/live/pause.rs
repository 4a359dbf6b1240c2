//! Writes that the master keeps waiting, and reads that go past them, as they do at a server whose
//! clients have a connection each.

use switchman::demo::client::{Client, Reply};
use switchman::demo::process::wait_for;

use crate::detour::detoured;
use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};

/// A Switchman whose clients share one lane to the master.
fn one_lane(lab: &Lab) -> Proxy {
    let mut launch = Launch::group(lab, "consistency = \"master\"\n");
    let proxy = launch.arg("--workers", "1").start();
    proxy.wait_ready();
    proxy
}

/// Clients that are there and have their place.
fn clients<const COUNT: usize>(proxy: &Proxy) -> [Client; COUNT] {
    std::array::from_fn(|_| {
        let mut client = proxy.client();
        ok(&mut client, &["SET", "k", "before"]);
        client
    })
}

/// What the master says of its clients that wait, asked through a client.
fn wait_blocked(client: &mut Client, count: usize) {
    let line = format!("blocked_clients:{count}\r\n");
    let there = wait_for(SOON, || {
        let Reply::Bulk(info) = say(client, &["INFO", "clients"]) else {
            return None;
        };
        String::from_utf8_lossy(&info).contains(&line).then_some(())
    });
    assert!(there.is_some(), "{count} clients wait");
}

#[test]
fn reads_go_past_writes_while_a_client_has_them_paused_and_each_writer_counts() {
    let lab = Lab::small();
    let proxy = one_lane(&lab);
    let mut writers: [Client; 3] = clients(&proxy);
    let [mut client] = clients(&proxy);
    ok(&mut client, &["CLIENT", "PAUSE", "600000", "WRITE"]);
    for writer in &mut writers {
        writer.send(&["SET", "k", "after"]).unwrap();
    }
    wait_blocked(&mut client, writers.len());
    assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("before"));
    assert_eq!(detoured(&proxy), Some(0));
    ok(&mut client, &["CLIENT", "UNPAUSE"]);
    for writer in &mut writers {
        assert_eq!(writer.receive().unwrap(), Reply::ok());
    }
    assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("after"));
}

#[test]
fn reads_behind_a_write_go_past_it_when_writes_turn_out_to_be_paused() {
    let lab = Lab::small();
    let proxy = one_lane(&lab);
    let [mut writer, mut reader, mut other] = clients(&proxy);
    let master = lab.node(0);
    let paused = master.command(&["CLIENT", "PAUSE", "600000", "WRITE"]);
    assert_eq!(paused.unwrap(), Reply::ok());
    writer.send(&["SET", "k", "after"]).unwrap();
    let waits = wait_for(SOON, || {
        let blocked = master.info("clients", "blocked_clients")?;
        (blocked == "1").then_some(())
    });
    assert!(waits.is_some(), "the write waits");
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("before"));
    let counted = wait_for(SOON, || detoured(&proxy).filter(|count| *count == 1));
    assert!(counted.is_some(), "{:?}", detoured(&proxy));
    wait_blocked(&mut reader, 1);
    other.send(&["INCR", "n"]).unwrap();
    wait_blocked(&mut reader, 2);
    let unpaused = master.command(&["CLIENT", "UNPAUSE"]);
    assert_eq!(unpaused.unwrap(), Reply::ok());
    assert_eq!(writer.receive().unwrap(), Reply::ok());
    assert_eq!(other.receive().unwrap(), Reply::Int(1));
    assert_eq!(say(&mut reader, &["GET", "k"]), Reply::bulk("after"));
}
