//! Clients that configure, debug or measure the master, and find there what they have done.

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::debug_lines;

/// A Switchman whose replicas serve reads.
fn reading_replicas(lab: &Lab) -> Proxy {
    let proxy = Launch::group(lab, "consistency = \"own-writes\"\n").start();
    proxy.wait_ready();
    proxy
}

/// The entries of the slow log, newest first: name of the client, and words.
fn slow(client: &mut Client) -> Vec<(String, String)> {
    let Reply::Array(entries) = say(client, &["SLOWLOG", "GET", "128"]) else {
        panic!("no slow log");
    };
    let text = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    let entry = |entry: Reply| match entry {
        Reply::Array(fields) => match &fields[..] {
            [_, _, _, Reply::Array(words), _, name, ..] => {
                let words: Vec<_> = words.iter().map(text).collect();
                (text(name), words.join(" "))
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(entry).collect()
}

#[test]
fn the_slow_log_has_all_that_an_administrator_sends_under_its_name() {
    let lab = Lab::small();
    let proxy = reading_replicas(&lab);
    let mut client = proxy.client();
    ok(&mut client, &["CLIENT", "SETNAME", "boss"]);
    ok(
        &mut client,
        &["CONFIG", "SET", "slowlog-log-slower-than", "0"],
    );
    ok(&mut client, &["SLOWLOG", "RESET"]);
    assert_eq!(say(&mut client, &["PING"]), Reply::Simple("PONG".into()));
    assert_eq!(say(&mut client, &["ECHO", "x"]), Reply::bulk("x"));
    assert_eq!(say(&mut client, &["GET", "nosuch"]), Reply::Null);
    ok(
        &mut client,
        &["CONFIG", "SET", "slowlog-log-slower-than", "-1"],
    );
    let own: Vec<_> = slow(&mut client)
        .into_iter()
        .filter(|(name, _)| name == "boss")
        .map(|(_, words)| words)
        .rev()
        .collect();
    assert_eq!(own, ["SLOWLOG RESET", "PING", "ECHO x", "GET nosuch"]);
}

#[test]
fn keys_expire_by_being_read_where_an_administrator_has_the_master_do_nothing_else() {
    let lab = Lab::start(&Plan {
        node_config: debug_lines(),
        ..Lab::small_plan()
    });
    let proxy = reading_replicas(&lab);
    let mut client = proxy.client();
    ok(&mut client, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    ok(&mut client, &["SET", "k", "v", "PX", "1"]);
    assert_eq!(say(&mut client, &["DBSIZE"]), Reply::Int(1));
    let gone = wait_for(SOON, || {
        (say(&mut client, &["GET", "k"]) == Reply::Null).then_some(())
    });
    assert!(gone.is_some());
    assert_eq!(say(&mut client, &["DBSIZE"]), Reply::Int(0));
    ok(&mut client, &["DEBUG", "SET-ACTIVE-EXPIRE", "1"]);
}
