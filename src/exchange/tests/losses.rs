//! Floor 4. Tests: What becomes of requests whose link is lost, or whose node says "not me".

use std::iter;

use super::*;

const UNCERTAIN: &str = "-UNCERTAIN switchman: the connection to the master was lost after the \
    command was sent; it may or may not have been executed|";

#[test]
fn a_written_write_is_uncertain_and_its_client_stays() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a", "INCR a", "INCR a", "INCR a", "INCR a"]);
    world.lose_node("m");
    assert_eq!(world.heard(client), UNCERTAIN.repeat(5));
    assert!(!world.is_closed(client));
    let lost = ReportKind::LinkLost { node: addr("m") };
    assert_eq!(world.reports, [lost]);
    world.send(client, &["INCR a"]);
    world.answer("m", "INCR a", ":6");
    assert_eq!(world.heard(client), ":6|");
    assert_eq!(world.exchange.counts(0).unwrap().uncertain, 5);
    world.assert_calm();
}

#[test]
fn what_was_not_wholly_written_is_sent_again_in_order() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    world.open_all();
    let client = world.client();
    let link = world.link("m");
    let lines = ["SET a 1", "INCR b", "APPEND c x"];
    world
        .exchange
        .client_bytes(client, &pipeline(&lines), world.now);
    let first = encoded("SET a 1").len();
    world.write_some(link, first + 3);
    world.lose(link);
    assert_eq!(world.heard(client), UNCERTAIN);
    world.open_all();
    assert_eq!(world.asked("m"), ["INCR b", "APPEND c x"]);
    world.answer("m", "INCR b", ":1");
    world.answer("m", "APPEND c x", ":1");
    assert_eq!(world.heard(client), ":1|:1|");
    let counts = world.exchange.counts(0).unwrap();
    assert_eq!((counts.uncertain, counts.resent), (1, 0));
    world.assert_calm();
}

#[test]
fn a_read_that_breaks_each_connection_is_given_up_and_the_next_ones_are_not() {
    let mut world = World::with(Setup {
        replicas: Vec::new(),
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET poison", "GET b"]);
    for _ in 0..7 {
        assert_eq!(world.asked("m"), ["GET poison", "GET b"]);
        world.lose_node("m");
    }
    assert_eq!(world.heard(client), "");
    world.lose_node("m");
    assert_eq!(world.asked("m"), ["GET b"]);
    world.answer("m", "GET b", "+2");
    let heard = world.heard(client);
    assert!(heard.starts_with("-ERR switchman: the connection to the node broke 8 times"));
    assert!(heard.ends_with("|+2|"), "{heard}");
    assert_eq!(world.exchange.counts(0).unwrap().uncertain, 0);
    world.assert_calm();
}

#[test]
fn reads_are_sent_again_where_they_may_be_served() {
    let mut world = World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a", "GET b"]);
    let (used, free) = if world.asked("r1").is_empty() {
        ("r2", "r1")
    } else {
        ("r1", "r2")
    };
    world.lose_node(used);
    let mut asked = world.asked(free);
    asked.extend(world.asked(used));
    assert_eq!(asked, ["GET a", "GET b"]);
    world.answer_all(used);
    world.answer_all(free);
    assert_eq!(world.heard(client), "+OK|+OK|");
    assert_eq!(world.exchange.counts(0).unwrap().resent, 2);
    world.assert_calm();
}

#[test]
fn a_read_of_the_master_is_sent_again_before_what_came_behind_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "GET a", "SET a 2", "GET a"]);
    world.opens = false;
    world.lose_node("m");
    world.send(client, &["SET a 3"]);
    world.opens = true;
    world.open_all();
    assert!(world.asked("m").is_empty());
    assert_eq!(world.asked("r1"), ["GET a", "GET a"]);
    world.answer_all("r1");
    world.answer("m", "SET a 3", "+OK");
    assert_eq!(
        world.heard(client),
        format!("{UNCERTAIN}+OK|{UNCERTAIN}+OK|+OK|")
    );
    world.assert_calm();
}

#[test]
fn a_client_to_which_half_a_reply_was_given_is_closed() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["GET big"]);
    world.send(other, &["GET small"]);
    let link = world.link("r1");
    let half = format!("$100000\r\n{}", "x".repeat(60_000));
    world.say_raw(link, half.as_bytes()).unwrap();
    assert_eq!(world.heard(client).len(), half.len() - 1);
    world.lose(link);
    assert!(world.is_closed(client));
    world.answer("r1", "GET small", "+OK");
    assert_eq!(world.heard(other), "+OK|");
}

#[test]
fn a_client_that_has_quit_still_gets_the_reply_to_a_read_that_was_lost() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "QUIT", "SET never 1"]);
    world.lose_node("r1");
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|+OK|");
    assert!(world.is_closed(client));
    assert!(world.asked("m").is_empty());
}

#[test]
fn a_loss_does_not_leave_a_client_waiting_for_its_own_replies() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "RESET", "SET b 1"]);
    world.lose_node("r1");
    world.answer("r1", "GET a", "$1|1");
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(client), "$1|1|+RESET|+OK|");
    world.assert_calm();
}

#[test]
fn replies_that_do_not_come_in_time_end_the_link() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    world.pass(ms(500));
    assert_eq!(world.reports, [ReportKind::Silent { node: addr("m") }]);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.heard(client), "");
    world.pass(ms(600));
    assert!(
        world
            .heard(client)
            .starts_with("-UNCERTAIN switchman: the node did not answer")
    );
    assert!(!world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_silent_replica_is_left_and_its_reads_are_asked_elsewhere_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "GET b"]);
    assert_eq!(world.asked("r1"), ["GET a", "GET b"]);
    world.pass(ms(450));
    assert_eq!(world.asked("r1"), ["GET a", "GET b"]);
    world.pass(ms(100));
    assert_eq!(world.asked("m"), ["GET a", "GET b"]);
    assert_eq!(
        world.reports.first(),
        Some(&ReportKind::Silent { node: addr("r1") })
    );
    world.answer("m", "GET a", "+1");
    world.answer("m", "GET b", "+2");
    assert_eq!(world.heard(client), "+1|+2|");
    world.assert_calm();
}

#[test]
fn a_worker_that_was_stopped_itself_suspects_nobody() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a"]);
    world.pass(ms(50));
    world.now = world.now + ms(5_000);
    world.exchange.tick(world.now);
    world.run();
    assert_eq!(world.asked("r1"), ["GET a"]);
    world.answer("r1", "GET a", "+1");
    assert_eq!(world.heard(client), "+1|");
    world.assert_calm();
}

#[test]
fn a_demoted_master_is_reported_and_the_latest_write_goes_to_the_next_one() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    let readonly = "-READONLY You can't write against a read only replica.";
    world.answer("m", "SET a 1", readonly);
    assert_eq!(world.heard(client), "");
    assert_eq!(world.reports, [ReportKind::Demoted { node: addr("m") }]);
    world.switch_to("r1", &["m"]);
    assert_eq!(world.asked("r1"), ["SET a 1"]);
    world.answer("r1", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn a_refusal_of_an_earlier_request_or_from_within_a_script_passes_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "SET a 2"]);
    let readonly = "-READONLY You can't write against a read only replica.";
    world.answer("m", "SET a 1", readonly);
    assert_eq!(world.heard(client), format!("{readonly}|"));
    world.answer("m", "SET a 2", readonly);
    assert_eq!(world.heard(client), "");
    world.pass(ms(100));
    world.answer("m", "SET a 2", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.send(client, &["EVAL x 0"]);
    let inside = "-READONLY You can't write. script: 1234, on @user_script:1.";
    world.answer("m", "EVAL x 0", inside);
    assert_eq!(world.heard(client), format!("{inside}|"));
    world.assert_calm();
}

#[test]
fn what_may_write_by_its_own_word_the_master_refuses_whatever_is_behind_it() {
    let readonly = "-READONLY You can't write against a read only replica.";
    let refused = "-ERR Can not execute a script with write flag using *_ro command.";
    for behind in [
        None,
        Some("WATCH a"),
        Some("WAIT 1 0"),
        Some("XREAD BLOCK 0 STREAMS s 0-0"),
    ] {
        let mut world = World::new();
        let client = world.client();
        let lines: Vec<_> = iter::once("FCALL_RO put 0").chain(behind).collect();
        world.send(client, &lines);
        world.answer("r1", "FCALL_RO put 0", readonly);
        if behind.is_none() {
            // In the words of its version.
            world.answer("m", "FCALL_RO put 0", "-ERR no");
            assert_eq!(world.heard(client), "-ERR no|");
        } else {
            assert_eq!(world.heard(client), format!("{refused}|"), "{behind:?}");
        }
        // That says nothing against the replica.
        let other = world.client();
        world.send(other, &["GET b"]);
        world.answer("r1", "GET b", "$1|1");
        assert_eq!(world.heard(other), "$1|1|");
        assert!(world.reports.is_empty(), "{:?}", world.reports);
        world.leave(client);
        world.assert_calm();
    }
}

#[test]
fn a_replica_that_loads_has_the_master_answer() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a"]);
    world.answer(
        "r1",
        "GET a",
        "-LOADING Redis is loading the dataset in memory",
    );
    world.answer("m", "GET a", "$1|1");
    world.pass(ms(100));
    world.send(client, &["GET a"]);
    world.answer(
        "r1",
        "GET a",
        "-MASTERDOWN Link with MASTER is down and so on",
    );
    world.answer("m", "GET a", "$1|2");
    assert_eq!(world.heard(client), "$1|1|$1|2|");
    assert!(world.reports.is_empty());
    world.assert_calm();
}

#[test]
fn a_master_that_loads_has_the_write_tried_again() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    world.answer(
        "m",
        "SET a 1",
        "-LOADING Redis is loading the dataset in memory",
    );
    assert!(world.reports.is_empty());
    world.pass(ms(50));
    assert!(world.asked("m").is_empty());
    world.pass(ms(50));
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
}

#[test]
fn a_request_that_every_node_refuses_gets_the_nodes_words_in_the_end() {
    let loading = "-LOADING Redis is loading the dataset in memory";
    let read_only = "-READONLY You can't write against a read only replica.";
    // A master that loads is waited for as long as one that cannot be reached: five seconds here.
    for (words, want) in [(read_only, 9), (loading, 51)] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["SET a 1"]);
        let mut tries = 0;
        while !world.asked("m").is_empty() {
            world.answer("m", "SET a 1", words);
            world.pass(ms(100));
            tries += 1;
        }
        assert_eq!(tries, want, "{words}");
        assert_eq!(world.heard(client), format!("{words}|"));
        world.assert_calm();
    }
}

#[test]
fn reads_that_a_replica_refuses_are_asked_elsewhere_unless_a_write_follows_them() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "GET b", "SET d 1", "GET c"]);
    let loading = "-LOADING Redis is loading the dataset in memory";
    let words = format!("{loading}|");
    for line in ["GET a", "GET b"] {
        world.answer("r1", line, loading);
    }
    world.answer("m", "SET d 1", "+OK");
    world.answer("m", "GET c", "$1|c");
    assert_eq!(world.heard(client), format!("{words}{words}+OK|$1|c|"));
    world.pass(ms(100));
    world.send(client, &["GET a", "GET b"]);
    for line in ["GET a", "GET b"] {
        world.answer("r1", line, loading);
    }
    assert_eq!(world.asked("m"), ["GET a", "GET b"]);
    world.answer("m", "GET a", "$1|a");
    world.answer("m", "GET b", "$1|b");
    assert_eq!(world.heard(client), "$1|a|$1|b|");
    world.assert_calm();
}

#[test]
fn a_master_that_takes_no_further_connection_is_used_over_those_that_it_has() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.opens = false;
    world.send(two, &["BLPOP q 9"]);
    let (link, _) = world.only_opening();
    world.refuse(link, full());
    world.send(one, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(one), "+OK|");
    // A pause comes between two attempts, however many want one.
    world.send(one, &["BLPOP p 9"]);
    assert!(world.wires.values().all(|wire| wire.open));
    for _ in 0..60 {
        world.pass(ms(100));
        let opening = world.wires.iter().find(|(_, wire)| !wire.open);
        if let Some(link) = opening.map(|(link, _)| *link) {
            world.refuse(link, full());
        }
    }
    let held = "(held 5000 ms); the command was not sent|";
    let words = "-MASTERDOWN switchman: the nodes of 'orders' take no further connection ";
    for client in [one, two] {
        assert_eq!(world.heard(client), format!("{words}{held}"));
    }
    world.opens = true;
    world.pass(ms(1_000));
    world.send(two, &["BLPOP q 9"]);
    world.answer("m", "BLPOP q 9", "*-1");
    world.assert_calm();
}

fn full() -> OpenFailure {
    let line = b"-ERR max number of clients reached\r\n";
    OpenFailure::Refused(
        crate::telemetry::ConnectStage::Handshake,
        Box::from(&line[..]),
    )
}

#[test]
fn what_a_refused_lane_carried_gets_the_nodes_words_once() {
    let mut world = World::with(Setup {
        opens: false,
        group: GroupSettings {
            anonymous: Some(login("default", "old")),
            ..Setup::default().group
        },
        ..Setup::default()
    });
    let (client, silent) = (world.client(), world.client());
    world.send(client, &["SET a 1", "SET b 2"]);
    world.send(silent, &["CLIENT REPLY OFF", "SET c 3"]);
    let link = world.link("m");
    world.refuse(link, wrong_password());
    let said = "-WRONGPASS invalid username-password pair or user is disabled.|";
    assert_eq!(world.heard(client), said.repeat(2));
    assert_eq!(world.heard(silent), "");
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "+PONG|");
    world.assert_calm();
}

#[test]
fn half_a_reply_that_overtook_another_is_forgotten_when_its_link_is_lost() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["DBSIZE", "GET big"]);
    let half = format!("$100000\r\n{}", "x".repeat(60_000));
    let link = world.link("r1");
    world.say_raw(link, half.as_bytes()).unwrap();
    world.lose(link);
    world.answer("r1", "GET big", "$3|big");
    world.answer("m", "DBSIZE", ":1");
    assert_eq!(world.heard(client), ":1|$3|big|");
    world.assert_calm();
}

#[test]
fn reads_go_past_a_replica_that_takes_no_further_connection() {
    for replicas in [vec!["r1"], vec!["r1", "r2"]] {
        let mut world = World::with(Setup {
            replicas: replicas.iter().map(|host| addr(host)).collect(),
            ..Setup::default()
        });
        let client = world.client();
        world.send(client, &["SELECT 1"]);
        assert_eq!(world.heard(client), "+OK|");
        world.opens = false;
        for _ in 0..20 {
            world.send(client, &["GET a"]);
            for _ in 0..4 {
                let opening = world.opening();
                let Some(link) = opening else { break };
                if world.wires[&link].plan.node == addr("r1") {
                    world.refuse(link, full());
                } else {
                    world.open(link);
                }
            }
            let host = if world.asked("m").is_empty() {
                "r2"
            } else {
                "m"
            };
            world.answer(host, "GET a", "$1|a");
            assert_eq!(world.heard(client), "$1|a|", "{replicas:?}");
        }
    }
}
