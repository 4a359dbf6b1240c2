//! Floor 4. Tests: Which connection a request takes, and that replies come in order.

use super::*;
use crate::exchange::Spread;

#[test]
fn replies_come_in_the_order_of_the_requests_whoever_answers_first() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "SET b 1", "GET c"]);
    assert_eq!(world.asked("r1"), ["GET a"]);
    assert_eq!(world.asked("m"), ["SET b 1", "GET c"]);
    world.answer("m", "SET b 1", "+OK");
    world.answer("m", "GET c", "$1|3");
    assert_eq!(world.heard(client), "");
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|+OK|$1|3|");
    world.assert_calm();
}

#[test]
fn a_read_behind_the_clients_own_write_goes_to_the_master_until_it_is_acknowledged() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["SET a 1", "GET a"]);
    world.send(other, &["GET a"]);
    assert_eq!(world.asked("m"), ["SET a 1", "GET a"]);
    assert_eq!(world.asked("r1"), ["GET a"]);
    world.answer("m", "SET a 1", "+OK");
    world.send(client, &["GET a"]);
    assert_eq!(world.asked("r1"), ["GET a", "GET a"]);
    world.answer("m", "GET a", "$1|1");
    world.answer_all("r1");
    world.assert_calm();
}

#[test]
fn a_read_whose_replica_is_lost_does_not_wait_for_a_write_behind_it() {
    let mut world = World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a", "SET b 1", "GET c"]);
    let asked = |world: &World| {
        let replicas = ["r1", "r2"].into_iter();
        let mut asked = replicas.filter(|node| world.asked(node) == ["GET a"]);
        asked.next().expect("a replica is asked")
    };
    world.lose_node(asked(&world));
    world.answer(asked(&world), "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    assert_eq!(world.asked("m"), ["SET b 1", "GET c"]);
    world.answer("m", "SET b 1", "+OK");
    world.answer("m", "GET c", "$1|3");
    assert_eq!(world.heard(client), "+OK|$1|3|");
    world.assert_calm();
}

#[test]
fn a_write_waits_for_the_clients_own_reads_of_its_keys_at_a_replica() {
    let writes = [
        "SET a 1",
        "DEL x y a",
        "MSET z 1 a 2",
        "RENAME x a",
        "MOVE a 3",
        "SORT x STORE a",
        "FLUSHALL",
        "FLUSHDB",
        "SWAPDB 0 1",
        "EVAL return 0",
        "FUNCTION FLUSH",
        "DEBUG RELOAD",
        "FOO bar",
        "BLPOP a 0",
    ];
    for write in writes {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["GET a", write, "STRLEN b"]);
        assert_eq!(world.asked("r1"), ["GET a"], "{write}");
        assert!(world.asked("m").is_empty(), "{write}");
        world.answer("r1", "GET a", "$-1");
        assert_eq!(world.asked("m")[0], write);
        world.answer("m", write, ":0");
        world.answer_all("m");
        world.answer_all("r1");
        assert!(world.heard(client).starts_with("$-1|:0|"), "{write}");
    }
}

#[test]
fn a_write_of_other_keys_does_not_wait_for_a_read() {
    let writes = [
        "SET b 1",
        "MSET b 1 c 2",
        "PUBLISH a x",
        "SCRIPT LOAD return",
        "BLPOP b 0",
        "TOUCH a",
    ];
    for write in writes {
        let mut world = World::new();
        let (client, other) = (world.client(), world.client());
        world.send(client, &["GET a", "HGET h a", write]);
        world.send(other, &["SET a 2"]);
        assert_eq!(world.asked("r1"), ["GET a", "HGET h a"]);
        assert_eq!(world.asked("m"), [write, "SET a 2"]);
        world.answer_all("m");
        world.answer_all("r1");
        world.assert_calm();
    }
}

#[test]
fn a_write_still_waits_for_a_read_whose_replica_is_lost() {
    let mut world = World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a", "SET a 1"]);
    let asked = |world: &World| {
        let replicas = ["r1", "r2"].into_iter();
        let mut asked = replicas.filter(|node| world.asked(node) == ["GET a"]);
        asked.next().expect("a replica is asked")
    };
    world.lose_node(asked(&world));
    assert!(world.asked("m").is_empty());
    world.answer(asked(&world), "GET a", "$-1");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "$-1|+OK|");
    world.assert_calm();
}

#[test]
fn a_read_that_the_master_serves_after_all_is_not_waited_for() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "SET a 1"]);
    world.picture.replicas = Vec::new();
    world.publish(Phase::Stable, Some("m"));
    world.lose_node("r1");
    assert_eq!(world.asked("m"), ["GET a", "SET a 1"]);
    world.answer("m", "GET a", "$-1");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "$-1|+OK|");
    world.assert_calm();
}

#[test]
fn a_transaction_is_executed_when_the_reads_before_it_are_answered() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "MULTI", "SET a 1", "EXEC", "GET a"]);
    assert_eq!(world.asked("m"), ["MULTI", "SET a 1"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 1", "+QUEUED");
    assert!(world.asked("m").is_empty());
    world.answer("r1", "GET a", "$-1");
    assert_eq!(world.asked("m"), ["EXEC"]);
    world.answer("m", "EXEC", "*1|+OK");
    world.answer_all("m");
    world.answer_all("r1");
    assert_eq!(world.heard(client), "$-1|+OK|+QUEUED|*1|+OK|+OK|");
    world.assert_calm();
}

#[test]
fn a_client_with_reads_in_flight_stays_at_its_replica_and_a_new_one_takes_the_less_busy() {
    let mut setup = Setup {
        replicas: vec![addr("r1"), addr("r2")],
        ..Setup::default()
    };
    setup.group.readers.spread = Spread::Request;
    let mut world = World::with(setup);
    let busy = world.client();
    world.send(busy, &["GET a"]);
    world.send(busy, &["GET b", "GET c"]);
    let (used, free) = if world.asked("r1").is_empty() {
        ("r2", "r1")
    } else {
        ("r1", "r2")
    };
    assert_eq!(world.asked(used), ["GET a", "GET b", "GET c"]);
    for _ in 0..3 {
        let client = world.client();
        world.send(client, &["GET x"]);
    }
    assert_eq!(world.asked(free).len(), 3);
    world.answer_all(used);
    world.answer_all(free);
    world.assert_calm();
}

#[test]
fn a_command_only_the_master_can_answer_does_not_wait_for_replicas() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "DBSIZE", "FOO bar"]);
    assert_eq!(world.asked("m"), ["DBSIZE"], "what nobody knows may write");
    world.answer("m", "DBSIZE", ":0");
    world.answer("r1", "GET a", "$-1");
    let unknown = "-ERR unknown command 'FOO', with args beginning with: 'bar' ";
    world.answer("m", "FOO bar", unknown);
    assert_eq!(world.heard(client), format!("$-1|:0|{unknown}|"));
}

#[test]
fn an_error_of_our_own_stands_where_its_request_stood() {
    let mut world = World::new();
    let client = world.client();
    let mut lines = vec!["SET k v"; 1000];
    lines[500] = "REPLICAOF NO ONE";
    world.send(client, &lines);
    world.answer_all("m");
    let heard = world.heard(client);
    let replies: Vec<_> = heard.split_terminator('|').collect();
    assert_eq!(replies.len(), 1000);
    assert!(replies[500].contains("'REPLICAOF' is refused here"));
    assert_eq!(replies.iter().filter(|reply| **reply == "+OK").count(), 999);
}

#[test]
fn commands_for_another_connection_to_the_master_wait_for_the_replies_of_the_first() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "BLPOP q 0", "GET a", "SET b 2"]);
    assert_eq!(world.asked("m"), ["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.asked("m"), ["BLPOP q 0"]);
    assert!(
        world.asked("r1").is_empty(),
        "a read behind a pop stays behind it"
    );
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.asked("m"), ["SET b 2"]);
    assert_eq!(world.asked("r1"), ["GET a"]);
    world.answer("m", "SET b 2", "+OK");
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "+OK|*-1|$1|1|+OK|");
    world.assert_calm();
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let mut world = World::new();
    let client = world.client();
    for byte in pipeline(&["SET key value", "GET key"]) {
        world.send_raw(client, &[byte]);
    }
    let link = world.link("m");
    world.wires.get_mut(&link).unwrap().asked.clear();
    for byte in *b"+OK\r\n$5\r\nvalue\r\n" {
        assert_eq!(world.say_raw(link, &[byte]), Ok(()));
    }
    assert_eq!(world.heard(client), "+OK|$5|value|");
    world.assert_calm();
}

#[test]
fn a_reply_that_nobody_asked_for_ends_the_link_and_reaches_nobody() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["GET a"]);
    let link = world.link("r1");
    world.wires.get_mut(&link).unwrap().asked.clear();
    assert_eq!(world.try_say(link, "$1|1|$1|2"), Err(Violation::Unasked));
    assert_eq!(world.heard(client), "$1|1|");
    assert_eq!(world.heard(other), "");
    assert!(!world.wires.contains_key(&link));
    world.send(other, &["GET b"]);
    world.answer("r1", "GET b", "$1|3");
    assert_eq!(world.heard(other), "$1|3|");
}

#[test]
fn replies_for_a_client_that_left_are_taken_and_dropped() {
    let mut world = World::new();
    let (leaves, stays) = (world.client(), world.client());
    world.send(leaves, &["SET a 1", "SET a 2"]);
    world.send(stays, &["SET b 3"]);
    world.leave(leaves);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "SET a 2", "+OK");
    world.answer("m", "SET b 3", "+THREE");
    assert_eq!(world.heard(stays), "+THREE|");
    world.assert_calm();
}
