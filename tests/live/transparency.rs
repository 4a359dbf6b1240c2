//! What Redis says, word for word: errors of commands, errors of the protocol, values of any size.

use std::cell::RefCell;

use switchman::demo::client::Reply;

use crate::lab::{Lab, ok, say};

#[test]
fn mistakes_get_redis_own_words() {
    let script: &[&[&str]] = &[
        &["FOO", "bar", "with space"],
        &["foo"],
        &["GET"],
        &["GET", "a", "b"],
        &["SET", "k"],
        &["SET", "k", "v", "NOSUCH"],
        &["CLIENT", "NOSUCH"],
        &["CLIENT", "SETNAME"],
        &["CONFIG", "NOSUCH"],
        &["LPUSH", "list", "a"],
        &["INCR", "list"],
        &["GET", "list"],
        &["SELECT", "x"],
        &["SELECT", "-1"],
        &["EXPIRE", "k", "x"],
        &["EVAL", "return redis.error_reply('MY own')", "0"],
        &["EVALSHA", "ffffffffffffffffffffffffffffffffffffffff", "0"],
        &["CLUSTER", "INFO"],
        &["ASKING"],
        &["READONLY"],
        &["AUTH", "x"],
        &["AUTH", "nobody", "x"],
        &["HELLO", "x"],
        &["PING", "a", "b"],
        &["ECHO"],
        &["OBJECT", "ENCODING", "list"],
    ];
    let expected = RefCell::new(None);
    Lab::small().both(|door| {
        let replies = door.replies(script);
        let mut expected = expected.borrow_mut();
        let expected = expected.get_or_insert_with(|| replies.clone());
        for ((line, got), want) in script.iter().zip(&replies).zip(expected) {
            assert_eq!(got, want, "{line:?}");
        }
        assert_eq!(replies[0].error().map(new_quotes).as_deref(), Some(UNKNOWN));
    });
}

const UNKNOWN: &str = "ERR unknown command 'FOO', with args beginning with: 'bar' 'with space' ";

/// What was put in backticks before Redis 7.0, as it is since.
fn new_quotes(line: &str) -> String {
    line.replace("`, with", "', with")
        .replace("`, ", "' ")
        .replace('`', "'")
}

#[test]
fn broken_requests_get_redis_own_words_and_the_end() {
    Lab::small().both(|door| {
        let check = |request: &[u8], line: &str| {
            let mut client = door.client();
            client.send_raw(&[b"PING\r\n", request].concat()).unwrap();
            let want = format!("+PONG\r\n-ERR Protocol error: {line}\r\n");
            let got = String::from_utf8_lossy(&client.drain().unwrap()).into_owned();
            assert_eq!(
                got,
                want,
                "{}: {}",
                door.name,
                String::from_utf8_lossy(request)
            );
        };
        check(b"*abc\r\n", "invalid multibulk length");
        check(b"*03\r\n", "invalid multibulk length");
        check(b"*1\r\n+PING\r\n", "expected '$', got '+'");
        check(b"*1\r\n$-1\r\n", "invalid bulk length");
        check(b"*1\r\n$x\r\n", "invalid bulk length");
        check(b"*1\r\n$536870913\r\n", "invalid bulk length");
        check(b"SET k \"v\r\n", "unbalanced quotes in request");
    });
}

#[test]
fn endless_headers_get_redis_own_words_and_the_end() {
    Lab::small().both(|door| {
        let check = |start: &str, line: &str| {
            let mut client = door.client();
            let request = start.to_owned() + &"1".repeat(65_537);
            client.send_raw(request.as_bytes()).unwrap();
            let want = format!("-ERR Protocol error: {line}\r\n");
            let got = String::from_utf8_lossy(&client.drain().unwrap()).into_owned();
            assert_eq!(got, want, "{}", door.name);
        };
        check("a", "too big inline request");
        check("*", "too big mbulk count string");
        check("*1\r\n$", "too big bulk count string");
    });
}

#[test]
fn inline_commands_and_empty_requests_are_understood() {
    Lab::small().both(|door| {
        let mut client = door.client();
        client.send_raw(b"*0\r\n*-1\r\n\r\nPING\r\n").unwrap();
        assert_eq!(client.receive().unwrap(), Reply::Simple("PONG".to_owned()));
        client
            .send_raw(b"set k \"a\\x41\\n b\"\nget k\r\n  get   'k' \r\n")
            .unwrap();
        assert_eq!(client.receive().unwrap(), Reply::ok());
        assert_eq!(client.receive().unwrap(), Reply::bulk("aA\n b"));
        assert_eq!(client.receive().unwrap(), Reply::bulk("aA\n b"));
        client.send_raw(b"*1\r\n$0\r\n\r\n").unwrap();
        let reply = client.receive().unwrap();
        let nameless = "ERR unknown command '', with args beginning with: ";
        assert_eq!(
            reply.error().map(new_quotes).as_deref(),
            Some(nameless),
            "{reply:?}"
        );
    });
}

#[test]
fn a_browser_is_shown_the_door_without_a_word() {
    Lab::small().both(|door| {
        for request in ["POST / HTTP/1.1\r\n", "Host: localhost\r\n"] {
            let mut client = door.client();
            client.send_raw(request.as_bytes()).unwrap();
            assert_eq!(client.drain().unwrap(), b"", "{}: {request}", door.name);
        }
    });
}

#[test]
fn a_megabyte_comes_back_as_it_went() {
    Lab::small().both(|door| {
        let (mut client, mut other) = (door.client(), door.client());
        let value: Vec<u8> = (0..1_048_576_u32)
            .map(|at| at.to_le_bytes()[usize::from(at > 9)])
            .collect();
        assert_eq!(
            client
                .command(&[b"SET", b"big".as_slice(), &value])
                .unwrap(),
            Reply::ok()
        );
        assert_eq!(
            client.command(&["GET", "big"]).unwrap(),
            Reply::Bulk(value.clone())
        );

        client.send(&["GET", "big"]).unwrap();
        client.send(&["PING"]).unwrap();
        ok(&mut other, &["SET", "small", "s"]);
        assert_eq!(say(&mut other, &["GET", "small"]), Reply::bulk("s"));
        assert_eq!(client.receive().unwrap(), Reply::Bulk(value.clone()));
        assert_eq!(client.receive().unwrap(), Reply::Simple("PONG".to_owned()));

        let both = client.command(&["MGET", "big", "small", "big"]).unwrap();
        let want = [
            Reply::Bulk(value.clone()),
            Reply::bulk("s"),
            Reply::Bulk(value),
        ];
        assert_eq!(both.items(), want);
    });
}

#[test]
fn keys_and_values_may_be_any_bytes() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(
            client.command(&[b"SET".as_slice(), &all, &all]).unwrap(),
            Reply::ok()
        );
        assert_eq!(
            client.command(&[b"GET".as_slice(), &all]).unwrap(),
            Reply::Bulk(all)
        );
        assert_eq!(client.command(&["SET", "", ""]).unwrap(), Reply::ok());
        assert_eq!(client.command(&["GET", ""]).unwrap(), Reply::bulk(""));
    });
}

#[test]
fn scripts_and_scans_work_as_on_one_server() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let set = "return redis.call('SET', KEYS[1], ARGV[1])";
        ok(&mut client, &["EVAL", set, "1", "k", "v"]);
        let sha = say(
            &mut client,
            &["SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])"],
        );
        let sha = sha.text().unwrap();
        assert_eq!(
            say(&mut client, &["EVALSHA", &sha, "1", "k"]),
            Reply::bulk("v")
        );

        let names: Vec<String> = (0..500).map(|name| format!("s:{name}")).collect();
        for name in &names {
            ok(&mut client, &["SET", name, "v"]);
        }
        let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
        loop {
            let page = say(
                &mut client,
                &["SCAN", &cursor, "MATCH", "s:*", "COUNT", "50"],
            );
            let [next, found] = page.items() else {
                panic!("{page:?}")
            };
            seen.extend(found.items().iter().filter_map(Reply::text));
            cursor = next.text().unwrap();
            if cursor == "0" {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), names.len());
    });
}
