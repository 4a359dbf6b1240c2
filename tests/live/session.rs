//! One client's session: databases, logins, protocols, names, endings.

use std::time::Duration;

use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, error, ok, say};
use crate::proxy::{Launch, Proxy};
use crate::version::{Version, is_before_7, lacks};

#[test]
fn ping_and_echo_answer_as_redis_does() {
    Lab::small().both(|door| {
        let mut client = door.client();
        assert_eq!(
            say(&mut client, &["PING"]),
            Reply::Simple("PONG".to_owned())
        );
        assert_eq!(say(&mut client, &["ping", "hello"]), Reply::bulk("hello"));
        assert_eq!(say(&mut client, &["ECHO", ""]), Reply::bulk(""));
    });
}

#[test]
fn sixteen_databases_are_sixteen_places() {
    Lab::small().both(|door| {
        let mut clients: Vec<Client> = (0..16).map(|_| door.client()).collect();
        for (index, client) in clients.iter_mut().enumerate() {
            let index = index.to_string();
            ok(client, &["SELECT", &index]);
            ok(client, &["SET", "k", &index]);
        }
        for (index, client) in clients.iter_mut().enumerate() {
            assert_eq!(say(client, &["GET", "k"]), Reply::bulk(&index.to_string()));
            assert_eq!(say(client, &["DBSIZE"]), Reply::Int(1));
        }
        let mut client = door.client();
        let pipeline: Vec<Vec<String>> = (0..16)
            .flat_map(|index| [format!("SELECT {index}"), "GET k".to_owned()])
            .map(|line| line.split(' ').map(str::to_owned).collect())
            .collect();
        let replies = client.pipeline(&pipeline).unwrap();
        for (index, pair) in replies.chunks(2).enumerate() {
            assert_eq!(pair, [Reply::ok(), Reply::bulk(&index.to_string())]);
        }
        let range = error("ERR DB index is out of range");
        assert_eq!(say(&mut client, &["SELECT", "16"]), range);
        assert_eq!(
            say(&mut client, &["GET", "k"]),
            Reply::bulk("15"),
            "still in database 15"
        );
    });
}

#[test]
fn a_user_without_the_right_to_select_stays_where_it_was_before_its_login() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let user = ["ACL", "SETUSER", "meek", "on", ">x", "~*", "+get", "+blpop"];
        ok(&mut client, &user);
        ok(&mut client, &["SELECT", "3"]);
        ok(&mut client, &["SET", "k", "in 3"]);
        say(&mut client, &["RPUSH", "q", "job"]);
        ok(&mut client, &["AUTH", "meek", "x"]);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("in 3"));
        let job = Reply::Array(vec![Reply::bulk("q"), Reply::bulk("job")]);
        assert_eq!(say(&mut client, &["BLPOP", "q", "1"]), job);
        let told = say(&mut client, &["SELECT", "0"]);
        assert!(told.error().unwrap().starts_with("NOPERM "), "{told:?}");
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("in 3"));
    });
}

#[test]
fn a_password_is_asked_for_and_checked_by_redis() {
    let plan = Plan {
        password: Some("right".to_owned()),
        ..Lab::small_plan()
    };
    let lab = Lab::start(&plan);
    let mut launch = Launch::before(&lab);
    launch
        .env("SWITCHMAN_PASSWORD", "right")
        .env("SWITCHMAN_CONSISTENCY", "master");
    let no_auth = error("NOAUTH Authentication required.");
    let wrong = error("WRONGPASS invalid username-password pair or user is disabled.");
    lab.both_through(&launch, |door| {
        let mut client = door.client();
        assert_eq!(say(&mut client, &["GET", "k"]), no_auth);
        assert_eq!(say(&mut client, &["PING"]), no_auth);
        assert_eq!(say(&mut client, &["AUTH", "wrong"]), wrong);
        assert_eq!(say(&mut client, &["GET", "k"]), no_auth);
        ok(&mut client, &["AUTH", "right"]);
        ok(&mut client, &["SET", "k", "v"]);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
        assert_eq!(say(&mut client, &["AUTH", "default", "wrong"]), wrong);
        assert_eq!(
            say(&mut client, &["GET", "k"]),
            Reply::bulk("v"),
            "the old login holds"
        );

        assert_eq!(
            say(&mut client, &["RESET"]),
            Reply::Simple("RESET".to_owned())
        );
        assert_eq!(say(&mut client, &["GET", "k"]), no_auth);
        assert_eq!(
            say(&mut door.client(), &["GET", "k"]),
            no_auth,
            "logins are not shared"
        );
    });
}

#[test]
fn a_password_holds_for_the_node_that_wants_it_and_as_long_as_it_does() {
    let lab = Lab::start(&Plan {
        node_config: vec!["user proxy on >secret ~* &* +@all".to_owned()],
        ..Lab::small_plan()
    });
    let mut launch = Launch::before(&lab);
    launch
        .env("SWITCHMAN_USERNAME", "proxy")
        .env("SWITCHMAN_PASSWORD", "secret");
    let proxy = launch.start();
    proxy.wait_ready();
    let set_password = |node: usize, password: &str| {
        let mut admin = lab.node(node).connect().unwrap();
        ok(&mut admin, &["CONFIG", "SET", "requirepass", password]);
        say(
            &mut admin,
            &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
        );
    };
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    set_password(1, "replica-only");
    for _ in 0..8 {
        let mut client = proxy.client();
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
        ok(&mut client, &["SET", "k", "v"]);
    }
    set_password(0, "master");
    let no_auth = error("NOAUTH Authentication required.");
    await_reply(&proxy, &["SET", "k", "v"], &no_auth);
    let mut admin = lab.node(0).connect().unwrap();
    ok(&mut admin, &["AUTH", "master"]);
    ok(&mut admin, &["CONFIG", "SET", "requirepass", ""]);
    await_reply(&proxy, &["SET", "k", "v"], &Reply::Simple("OK".to_owned()));
}

fn await_reply(proxy: &Proxy, request: &[&str], want: &Reply) {
    let heard = wait_for(SOON, || {
        (say(&mut proxy.client(), request) == *want).then_some(())
    });
    assert!(heard.is_some(), "never {want:?}");
}

#[test]
fn acl_users_may_do_what_redis_lets_them() {
    let users = [
        "user app on >secret ~app:* &* +@all",
        "user viewer on >look ~* &* +@read +ping",
    ];
    let plan = Plan {
        node_config: users.map(str::to_owned).to_vec(),
        ..Lab::small_plan()
    };
    Lab::start(&plan).both(|door| {
        let (mut app, mut viewer) = (door.client(), door.client());
        let wrong = error("WRONGPASS invalid username-password pair or user is disabled.");
        assert_eq!(say(&mut app, &["AUTH", "app", "look"]), wrong);
        ok(&mut app, &["AUTH", "app", "secret"]);
        ok(&mut viewer, &["AUTH", "viewer", "look"]);
        assert_eq!(say(&mut app, &["ACL", "WHOAMI"]), Reply::bulk("app"));

        ok(&mut app, &["SET", "app:k", "v"]);
        let refused = say(&mut app, &["SET", "other", "v"]);
        assert!(
            refused
                .error()
                .is_some_and(|line| line.starts_with("NOPERM")),
            "{refused:?}"
        );
        assert_eq!(say(&mut viewer, &["GET", "app:k"]), Reply::bulk("v"));
        let refused = say(&mut viewer, &["SET", "app:k", "w"]);
        assert!(
            refused
                .error()
                .is_some_and(|line| line.starts_with("NOPERM")),
            "{refused:?}"
        );
        ok(&mut door.client(), &["SET", "other", "by the default user"]);
    });
}

#[test]
fn who_is_there_when_a_user_is_turned_off_or_gets_another_password_goes_on() {
    let turned_off: &[&str] = &["ACL", "SETUSER", "app", "off"];
    let renewed = &["ACL", "SETUSER", "app", "resetpass", ">other"];
    for change in [turned_off, renewed] {
        Lab::small().both(|door| {
            let (mut admin, mut client, mut other) = (door.client(), door.client(), door.client());
            let user = [
                "ACL", "SETUSER", "app", "reset", "on", ">x", "~*", "&*", "+@all",
            ];
            ok(&mut admin, &user);
            for client in [&mut client, &mut other] {
                ok(client, &["AUTH", "app", "x"]);
            }
            ok(&mut admin, change);
            go_on(&mut client);
            go_on(&mut other);
            let wrong = error("WRONGPASS invalid username-password pair or user is disabled.");
            assert_eq!(say(&mut door.client(), &["AUTH", "app", "x"]), wrong);
            assert_eq!(say(&mut client, &["ACL", "WHOAMI"]), Reply::bulk("app"));
        });
    }
}

#[test]
fn who_was_there_before_a_password_goes_on_and_who_comes_later_needs_it() {
    Lab::small().both(|door| {
        let (mut admin, mut client, mut other) = (door.client(), door.client(), door.client());
        for client in [&mut client, &mut other] {
            assert_eq!(say(client, &["PING"]), Reply::Simple("PONG".to_owned()));
        }
        ok(&mut admin, &["CONFIG", "SET", "requirepass", "secret"]);
        let no_auth = error("NOAUTH Authentication required.");
        let mut late = door.client();
        for request in [&["GET", "k"][..], &["PING"], &["MULTI"]] {
            assert_eq!(say(&mut late, request), no_auth, "{request:?}");
        }
        go_on(&mut client);
        go_on(&mut other);
        assert_eq!(say(&mut late, &["PING"]), no_auth);
        ok(&mut late, &["AUTH", "secret"]);
        ok(&mut late, &["SET", "k", "v"]);
        let reset = Reply::Simple("RESET".to_owned());
        assert_eq!(say(&mut other, &["RESET"]), reset);
        assert_eq!(say(&mut other, &["GET", "k"]), no_auth);
        ok(&mut admin, &["CONFIG", "SET", "requirepass", ""]);
        assert_eq!(say(&mut door.client(), &["GET", "k"]), Reply::bulk("v"));
    });
}

/// Does what needs a connection of its own, another database or another protocol.
fn go_on(client: &mut Client) {
    ok(client, &["SET", "k", "v"]);
    ok(client, &["MULTI"]);
    let queued = Reply::Simple("QUEUED".to_owned());
    assert_eq!(say(client, &["GET", "k"]), queued);
    assert_eq!(say(client, &["EXEC"]), Reply::Array(vec![Reply::bulk("v")]));
    ok(client, &["WATCH", "k"]);
    ok(client, &["UNWATCH"]);
    assert_eq!(say(client, &["BLPOP", "empty", "0.05"]), Reply::NullArray);
    ok(client, &["SELECT", "3"]);
    ok(client, &["SET", "k", "in 3"]);
    assert_eq!(say(client, &["GET", "k"]), Reply::bulk("in 3"));
    let range = error("ERR DB index is out of range");
    assert_eq!(say(client, &["SELECT", "16"]), range);
    ok(client, &["SELECT", "0"]);
    assert_eq!(say(client, &["GET", "k"]), Reply::bulk("v"));
    assert!(say(client, &["HELLO", "3"]).field("proto").is_some());
    assert_eq!(say(client, &["GET", "k"]), Reply::bulk("v"));
    assert_eq!(say(client, &["PING"]), Reply::Simple("PONG".to_owned()));
    assert!(matches!(say(client, &["HELLO", "2"]), Reply::Array(_)));
    assert_eq!(say(client, &["DEL", "none"]), Reply::Int(0));
}

#[test]
fn hello_switches_the_protocol_and_reset_switches_back() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let two = say(&mut client, &["HELLO", "2"]);
        assert_eq!(names(two.items()), HELLO_FIELDS, "{two:?}");
        let Reply::Map(pairs) = say(&mut client, &["HELLO", "3", "SETNAME", "three"]) else {
            panic!("HELLO 3 gives a map")
        };
        let keys: Vec<String> = pairs.iter().filter_map(|(key, _)| key.text()).collect();
        assert_eq!(keys, HELLO_FIELDS);
        let map = Reply::Map(pairs);
        assert_eq!(map.field("proto"), Some(&Reply::Int(3)));
        assert_eq!(map.field("role"), Some(&Reply::bulk("master")));
        assert_eq!(map.field("mode"), Some(&Reply::bulk("standalone")));

        say(&mut client, &["HSET", "h", "f", "v"]);
        say(&mut client, &["ZADD", "z", "1.5", "m"]);
        let hash = Reply::Map(vec![(Reply::bulk("f"), Reply::bulk("v"))]);
        assert_eq!(say(&mut client, &["HGETALL", "h"]), hash);
        assert_eq!(
            say(&mut client, &["ZSCORE", "z", "m"]),
            Reply::Double("1.5".to_owned())
        );
        assert_eq!(
            say(&mut client, &["CLIENT", "GETNAME"]),
            Reply::bulk("three")
        );
        assert_eq!(
            say(&mut client, &["HELLO", "4"]),
            error("NOPROTO unsupported protocol version")
        );

        assert_eq!(
            say(&mut client, &["RESET"]),
            Reply::Simple("RESET".to_owned())
        );
        let flat = Reply::Array(vec![Reply::bulk("f"), Reply::bulk("v")]);
        assert_eq!(say(&mut client, &["HGETALL", "h"]), flat);
        assert_eq!(say(&mut client, &["ZSCORE", "z", "m"]), Reply::bulk("1.5"));
        assert_eq!(say(&mut client, &["CLIENT", "GETNAME"]), Reply::Null);
    });
}

/// In `MONITOR`, as in `ACL LOG`, stands what the client has sent.
#[test]
fn a_login_is_seen_at_the_master_as_it_was_sent() {
    if lacks("logins in MONITOR") {
        return;
    }
    Lab::small().both(|door| {
        let mut spy = door.client();
        ok(&mut spy, &["MONITOR"]);
        let mut client = door.client();
        ok(&mut client, &["ACL", "LOG", "RESET"]);
        let refused = error("WRONGPASS invalid username-password pair or user is disabled.");
        for (login, seen) in [
            (
                &["Auth", "u", "p"][..],
                r#""Auth" "(redacted)" "(redacted)""#,
            ),
            (
                &["hello", "3", "AUTH", "u", "p"],
                r#""hello" "3" "AUTH" "(redacted)" "(redacted)""#,
            ),
        ] {
            assert_eq!(say(&mut client, login), refused);
            // Until there, it is what opens Switchman's connections.
            while !spy.receive().unwrap().text().unwrap().ends_with(seen) {}
        }
        let log = say(&mut client, &["ACL", "LOG"]);
        let objects = log.items().iter().filter_map(|it| it.field("object"));
        let objects: Vec<_> = objects.filter_map(Reply::text).collect();
        assert_eq!(objects, ["hello", "Auth"]);
    });
}

/// The user's right is asked for each time, over a connection that is no subscriber's.
#[test]
fn a_subscriber_with_a_name_of_its_own_is_answered_as_one() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let user = [
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">x",
            "~*",
            "+@all",
            "allchannels",
        ];
        ok(&mut client, &user);
        ok(&mut client, &["AUTH", "app", "x"]);
        say(&mut client, &["SUBSCRIBE", "c"]);
        let pong = |word| Reply::Array(vec![Reply::bulk("pong"), Reply::bulk(word)]);
        assert_eq!(say(&mut client, &["PING"]), pong(""));
        assert_eq!(say(&mut client, &["PING", "x"]), pong("x"));
        say(&mut client, &["UNSUBSCRIBE", "c"]);
        assert_eq!(say(&mut client, &["PING", "x"]), Reply::bulk("x"));
    });
}

#[test]
fn names_and_ids_belong_to_one_client() {
    Lab::small().both(|door| {
        let (mut one, mut two) = (door.client(), door.client());
        ok(&mut one, &["CLIENT", "SETNAME", "one"]);
        assert_eq!(say(&mut one, &["CLIENT", "GETNAME"]), Reply::bulk("one"));
        assert_eq!(say(&mut two, &["CLIENT", "GETNAME"]), Reply::Null);
        let id = |client: &mut Client| say(client, &["CLIENT", "ID"]).int().unwrap();
        let (first, second) = (id(&mut one), id(&mut two));
        assert!(first > 0 && second > first, "{first} and {second}");
        assert_eq!(id(&mut one), first);

        let spaces =
            error("ERR Client names cannot contain spaces, newlines or special characters.");
        assert_eq!(say(&mut one, &["CLIENT", "SETNAME", "a b"]), spaces);
        // Redis answers SETINFO from 7.2 on; libraries send it first and must get some answer.
        let info = say(&mut one, &["CLIENT", "SETINFO", "LIB-NAME", "lib"]);
        let has_it = Version::of_server().has_that_of_redis((7, 2));
        let unknown = info.error().is_some_and(|line| {
            line.to_lowercase().starts_with("err unknown subcommand") && line.contains("'SETINFO'")
        });
        assert!(
            if has_it { info == Reply::ok() } else { unknown },
            "{info:?}"
        );
    });
}

#[test]
fn quit_answers_and_closes() {
    Lab::small().both(|door| {
        let mut client = door.client();
        client.send_raw(b"PING\r\nQUIT\r\nSET k v\r\n").unwrap();
        assert_eq!(client.drain().unwrap(), b"+PONG\r\n+OK\r\n");
        assert_eq!(
            say(&mut door.client(), &["GET", "k"]),
            Reply::Null,
            "nothing after QUIT"
        );
    });
}

#[test]
fn blpop_is_served_at_once_or_woken_or_times_out() {
    let lab = Lab::small();
    lab.both(|door| {
        let (mut popper, mut pusher) = (door.client(), door.client());
        say(&mut pusher, &["RPUSH", "list", "a"]);
        let taken = |value: &str| Reply::Array(vec![Reply::bulk("list"), Reply::bulk(value)]);
        assert_eq!(say(&mut popper, &["BLPOP", "list", "5"]), taken("a"));

        assert_eq!(
            say(&mut popper, &["BLPOP", "list", "0.1"]),
            Reply::NullArray
        );

        popper.send(&["BLPOP", "list", "5"]).unwrap();
        popper.send(&["PING"]).unwrap();
        wait_until_blocked(&lab, 1);
        assert_eq!(say(&mut pusher, &["RPUSH", "list", "b"]), Reply::Int(1));
        assert_eq!(popper.receive().unwrap(), taken("b"));
        assert_eq!(popper.receive().unwrap(), Reply::Simple("PONG".to_owned()));
    });
}

#[test]
fn a_client_that_leaves_while_blocked_takes_nothing_with_it() {
    let lab = Lab::small();
    lab.both(|door| {
        let mut popper = door.client();
        popper.send(&["BLPOP", "list", "0"]).unwrap();
        wait_until_blocked(&lab, 1);
        drop(popper);
        wait_until_blocked(&lab, 0);
        let mut pusher = door.client();
        say(&mut pusher, &["RPUSH", "list", "a"]);
        assert_eq!(say(&mut pusher, &["LLEN", "list"]), Reply::Int(1));
    });
}

#[test]
fn subscribers_of_both_protocols_hear_what_is_published() {
    Lab::small().both(|door| {
        let (mut old, mut new, mut publisher) = (door.client(), door.client(), door.client());
        let parts =
            |kind: &str, name: &str, last: Reply| vec![Reply::bulk(kind), Reply::bulk(name), last];
        assert!(say(&mut new, &["HELLO", "3"]).field("proto").is_some());
        let confirmed = say(&mut old, &["SUBSCRIBE", "news"]);
        assert_eq!(
            confirmed,
            Reply::Array(parts("subscribe", "news", Reply::Int(1)))
        );
        let confirmed = say(&mut new, &["PSUBSCRIBE", "n*"]);
        assert_eq!(
            confirmed,
            Reply::Push(parts("psubscribe", "n*", Reply::Int(1)))
        );

        let before = publisher.command(&["PUBLISH", "news", "hello"]).unwrap();
        assert_eq!(before, Reply::Int(2));
        let heard = parts("message", "news", Reply::bulk("hello"));
        assert_eq!(old.receive().unwrap(), Reply::Array(heard));
        let mut heard = parts("pmessage", "n*", Reply::bulk("news"));
        heard.push(Reply::bulk("hello"));
        assert_eq!(new.receive().unwrap(), Reply::Push(heard));

        let refused = say(&mut old, &["GET", "k"]);
        let kinds = if is_before_7() { "(P)" } else { "(P|S)" };
        let line = format!(
            "ERR Can't execute 'get': only {kinds}SUBSCRIBE / {kinds}UNSUBSCRIBE / PING / QUIT / \
             RESET are allowed in this context"
        );
        assert_eq!(refused, error(&line));
        assert_eq!(
            say(&mut new, &["GET", "k"]),
            Reply::Null,
            "RESP3 may ask anything"
        );
        let pong = Reply::Array(vec![Reply::bulk("pong"), Reply::bulk("")]);
        assert_eq!(say(&mut old, &["PING"]), pong);
        let left = say(&mut old, &["UNSUBSCRIBE"]);
        assert_eq!(
            left,
            Reply::Array(parts("unsubscribe", "news", Reply::Int(0)))
        );
        assert_eq!(say(&mut old, &["GET", "k"]), Reply::Null);
        assert_eq!(
            say(&mut publisher, &["PUBLISH", "other", "x"]),
            Reply::Int(0)
        );
    });
}

#[test]
fn a_listener_on_a_unix_socket_serves_the_same() {
    let lab = Lab::small();
    let path = lab.dir().join("switchman.sock");
    let mut launch = Launch::before(&lab);
    launch.arg("--listen", &format!("unix:{}", path.display()));
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    let proxy = launch.start();
    let text = path.to_str().unwrap();
    proxy.log().wait("listening", |event| {
        event["listen.addr"]
            .as_str()
            .filter(|addr| addr.contains(text))
            .map(drop)
    });
    let mut local = Client::connect_unix(&path, SOON).unwrap();
    ok(&mut local, &["SET", "k", "v"]);
    assert_eq!(say(&mut proxy.client(), &["GET", "k"]), Reply::bulk("v"));
    drop(proxy);
    assert!(!path.exists(), "the socket's file goes with its listener");
}

#[test]
fn a_silent_client_is_left_alone() {
    Lab::small().both(|door| {
        let mut client = door.client();
        client.wait_at_most(Duration::from_millis(300)).unwrap();
        assert!(matches!(client.receive(), Err(ClientError::Timeout)));
        client.wait_at_most(SOON).unwrap();
        assert_eq!(
            say(&mut client, &["PING"]),
            Reply::Simple("PONG".to_owned())
        );
    });
}

const HELLO_FIELDS: [&str; 7] = [
    "server", "version", "proto", "id", "mode", "role", "modules",
];

fn names(items: &[Reply]) -> Vec<String> {
    items
        .chunks(2)
        .filter_map(|pair| pair.first()?.text())
        .collect()
}

fn wait_until_blocked(lab: &Lab, clients: usize) {
    let want = clients.to_string();
    let blocked = wait_for(SOON, || {
        lab.node(0)
            .info("clients", "blocked_clients")
            .filter(|blocked| *blocked == want)
    });
    assert!(
        blocked.is_some(),
        "never {clients} clients blocked at the master"
    );
}
