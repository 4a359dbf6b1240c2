//! `CLIENT TRACKING … REDIRECT`: who is told what becomes invalid for another client.

use switchman::demo::client::{Client, Reply};

use crate::carried::{SWITCH_MAX, fail_over, start};
use crate::lab::{Lab, ok, say};

fn id(client: &mut Client) -> String {
    say(client, &["CLIENT", "ID"]).int().unwrap().to_string()
}

/// Has `target` listen, and `reader` redirect to it.
fn redirect(target: &mut Client, reader: &mut Client) -> String {
    let channel = "__redis__:invalidate";
    let number = id(target);
    let heard = say(target, &["SUBSCRIBE", channel]);
    assert_eq!(heard.items()[2], Reply::Int(1));
    ok(reader, &["CLIENT", "TRACKING", "ON", "REDIRECT", &number]);
    number
}

/// Asserts that the target is told of `key` when that changes.
fn assert_told(target: &mut Client, reader: &mut Client, writer: &mut Client, key: &str) {
    say(reader, &["GET", key]);
    ok(writer, &["SET", key, "new"]);
    let keys = Reply::Array(vec![Reply::bulk(key)]);
    let words = ["message", "__redis__:invalidate"].map(Reply::bulk);
    let message = [&words[..], &[keys]].concat();
    assert_eq!(target.receive().unwrap(), Reply::Array(message));
}

#[test]
fn another_client_is_told_as_by_redis() {
    Lab::small().both(|door| {
        let mut clients = [door.client(), door.client(), door.client()];
        let [target, reader, writer] = &mut clients;
        let number = redirect(target, reader);
        let number = number.parse().unwrap();
        assert_told(target, reader, writer, "a");
        assert_eq!(say(reader, &["CLIENT", "GETREDIR"]), Reply::Int(number));
        ok(reader, &["MULTI"]);
        say(reader, &["CLIENT", "GETREDIR"]);
        let told = Reply::Array(vec![Reply::Int(number)]);
        assert_eq!(say(reader, &["EXEC"]), told);
        let line = say(reader, &["CLIENT", "INFO"]).text().unwrap();
        let has = |line: &str, want: &str| line.split_whitespace().any(|it| it == want);
        assert!(has(&line, &format!("redir={number}")), "{line}");
        assert!(has(&line, "flags=t"), "{line}");
        ok(reader, &["CLIENT", "TRACKING", "OFF"]);
        let line = say(reader, &["CLIENT", "INFO"]).text().unwrap();
        assert!(has(&line, "redir=-1"), "{line}");
    });
}

#[test]
fn a_failover_ends_both_and_the_new_master_has_others() {
    let (lab, proxy) = start();
    let mut old = [
        proxy.patient_client(SWITCH_MAX),
        proxy.patient_client(SWITCH_MAX),
    ];
    let [target, reader] = &mut old;
    redirect(target, reader);
    fail_over(&lab, &proxy);
    for client in &mut old {
        assert!(client.receive().is_err(), "it relied on what is lost");
    }
    let mut clients = [proxy.client(), proxy.client(), proxy.client()];
    let [target, reader, writer] = &mut clients;
    redirect(target, reader);
    assert_told(target, reader, writer, "b");
}
