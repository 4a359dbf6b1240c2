//! Transactions: queued, executed, discarded, aborted, and watched keys.

use switchman::demo::client::Reply;

use crate::lab::{Lab, error, ok, say};

#[test]
fn a_transaction_executes_its_commands_together() {
    Lab::small().both(|door| {
        let mut client = door.client();
        ok(&mut client, &["MULTI"]);
        for args in [["INCR", "a"], ["INCR", "a"], ["GET", "a"], ["ECHO", "x"]] {
            assert_eq!(
                say(&mut client, &args),
                Reply::Simple("QUEUED".to_owned()),
                "{args:?}"
            );
        }
        let done = vec![
            Reply::Int(1),
            Reply::Int(2),
            Reply::bulk("2"),
            Reply::bulk("x"),
        ];
        assert_eq!(say(&mut client, &["EXEC"]), Reply::Array(done));
        assert_eq!(say(&mut client, &["GET", "a"]), Reply::bulk("2"));
    });
}

#[test]
fn a_transaction_in_one_piece_executes_too() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let lines = ["SET a 0", "MULTI", "INCR a", "MGET a b", "EXEC", "GET a"];
        let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let replies = client.pipeline(&lines).unwrap();
        let queued = Reply::Simple("QUEUED".to_owned());
        let read = Reply::Array(vec![Reply::bulk("1"), Reply::Null]);
        let done = Reply::Array(vec![Reply::Int(1), read]);
        let want = [
            Reply::ok(),
            Reply::ok(),
            queued.clone(),
            queued,
            done,
            Reply::bulk("1"),
        ];
        assert_eq!(replies, want);
    });
}

#[test]
fn a_discarded_transaction_leaves_no_trace() {
    Lab::small().both(|door| {
        let mut client = door.client();
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["SET", "k", "v"]);
        ok(&mut client, &["DISCARD"]);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::Null);
        assert_eq!(say(&mut client, &["EXEC"]), error("ERR EXEC without MULTI"));
        assert_eq!(
            say(&mut client, &["DISCARD"]),
            error("ERR DISCARD without MULTI")
        );
    });
}

#[test]
fn who_may_not_end_or_begin_a_transaction_stays_where_it_is() {
    Lab::small().both(|door| {
        let mut client = door.client();
        let user = ["ACL", "SETUSER", "meek", "on", ">x", "~*", "+@all"];
        ok(&mut client, &[&user[..], &["-discard"]].concat());
        ok(&mut client, &["AUTH", "meek", "x"]);
        let denied = |reply: &Reply| reply.error().is_some_and(|it| it.starts_with("NOPERM "));
        let lines = [
            "MULTI",
            "DISCARD",
            "SET k v",
            "EXEC",
            "ACL SETUSER meek -multi",
            "MULTI",
            "SET k w",
            "EXEC",
        ];
        let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
        let replies = client.pipeline(&lines).unwrap();
        assert!(denied(&replies[1]) && denied(&replies[5]), "{replies:?}");
        let queued = Reply::Simple("QUEUED".to_owned());
        assert_eq!([&replies[0], &replies[2]], [&Reply::ok(), &queued]);
        assert!(replies[3].error().unwrap().starts_with("EXECABORT "));
        assert_eq!(replies[6], Reply::ok(), "executed at once");
        assert_eq!(replies[7], error("ERR EXEC without MULTI"));
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("w"));
    });
}

#[test]
fn a_mistake_while_queueing_aborts_and_a_nested_multi_does_not() {
    let lab = Lab::small();
    // To some servers it is a mistake like any other.
    let told = lab.node(0).command(&["COMMAND", "INFO", "multi"]).unwrap();
    let flags = told.items()[0].items()[2].items();
    let no_multi = flags
        .iter()
        .any(|it| it.text().as_deref() == Some("no_multi"));
    lab.both(|door| {
        let mut client = door.client();
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["SET", "k", "v"]);
        let nested = error("ERR MULTI calls can not be nested");
        let watch = error("ERR WATCH inside MULTI is not allowed");
        let replies = [
            say(&mut client, &["MULTI"]),
            say(&mut client, &["WATCH", "k"]),
        ];
        let executed = say(&mut client, &["EXEC"]);
        let aborted = error("EXECABORT Transaction discarded because of previous errors.");
        if no_multi {
            let refusal = " not allowed inside a transaction";
            let refused = |it: &Reply| it.error().is_some_and(|line| line.ends_with(refusal));
            assert!(replies.iter().all(refused), "{replies:?}");
            assert_eq!(executed, aborted);
            ok(&mut client, &["SET", "k", "v"]);
        } else {
            assert_eq!(replies, [nested, watch]);
            assert_eq!(executed, Reply::Array(vec![Reply::ok()]));
        }

        ok(&mut client, &["MULTI"]);
        let arity = error("ERR wrong number of arguments for 'get' command");
        assert_eq!(say(&mut client, &["GET"]), arity);
        assert_eq!(say(&mut client, &["EXEC"]), aborted);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("v"));
    });
}

#[test]
fn a_watched_key_that_changes_stops_the_transaction() {
    Lab::small().both(|door| {
        let (mut client, mut rival) = (door.client(), door.client());
        ok(&mut client, &["WATCH", "k"]);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::Null);
        ok(&mut rival, &["SET", "k", "rival"]);
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["SET", "k", "mine"]);
        assert_eq!(say(&mut client, &["EXEC"]), Reply::NullArray);
        assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("rival"));

        ok(&mut client, &["WATCH", "k"]);
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["SET", "k", "mine"]);
        assert_eq!(say(&mut client, &["EXEC"]), Reply::Array(vec![Reply::ok()]));

        ok(&mut client, &["WATCH", "k"]);
        ok(&mut rival, &["SET", "k", "again"]);
        ok(&mut client, &["UNWATCH"]);
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["SET", "k", "unwatched"]);
        assert_eq!(say(&mut client, &["EXEC"]), Reply::Array(vec![Reply::ok()]));
    });
}

#[test]
fn a_blocking_command_in_a_transaction_does_not_block() {
    Lab::small().both(|door| {
        let mut client = door.client();
        ok(&mut client, &["MULTI"]);
        say(&mut client, &["BLPOP", "list", "0"]);
        assert_eq!(
            say(&mut client, &["EXEC"]),
            Reply::Array(vec![Reply::NullArray])
        );
    });
}
