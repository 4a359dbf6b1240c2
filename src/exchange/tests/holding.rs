//! Floor 4. Tests: Waiting for a writable master.

use super::*;

/// No master yet.
fn unknown() -> World {
    World::before(Setup::default())
}

#[test]
fn a_held_write_goes_to_the_master_that_the_next_picture_names() {
    let mut world = unknown();
    let client = world.client();
    world.send(client, &["SET a 1", "GET a"]);
    world.pass(ms(200));
    assert_eq!(world.heard(client), "");
    assert_eq!(world.exchange.counts(0).unwrap().held_clients, 1);
    world.publish(Phase::Stable, Some("m"));
    assert_eq!(world.asked("m"), ["SET a 1", "GET a"]);
    world.answer_all("m");
    assert_eq!(world.heard(client), "+OK|+OK|");
    let counts = world.exchange.counts(0).unwrap();
    assert_eq!((counts.held_released, counts.held_clients), (1, 0));
    assert_eq!(counts.hold_duration.count(), 1);
    world.assert_calm();
}

#[test]
fn each_request_is_refused_when_it_has_waited_for_the_hold_time_itself() {
    let mut world = unknown();
    let client = world.client();
    world.send(client, &["SET a 1", "SET b 2"]);
    world.pass(ms(1000));
    world.send(client, &["SET c 3"]);
    world.pass(ms(1500));
    world.send(client, &["SET d 4"]);
    world.pass(ms(2400));
    assert_eq!(world.heard(client), "");
    world.pass(ms(100));
    let text = "no writable master for 'orders' (held 5000 ms); the command was not sent|";
    let said = format!("-MASTERDOWN switchman: {text}");
    assert_eq!(world.heard(client), format!("{said}{said}"));
    world.pass(ms(950));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert_eq!(world.heard(client), said);
    world.pass(ms(1450));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert_eq!(world.heard(client), said);
    assert_eq!(world.exchange.counts(0).unwrap().held_expired, 4);
    world.publish(Phase::Stable, Some("m"));
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn what_a_hold_cost_is_known_and_forgotten_when_the_next_one_begins() {
    let mut world = World::new();
    let client = world.client();
    for _ in 0..2 {
        world.switching();
        let counts = world.exchange.counts(0).unwrap();
        assert_eq!((counts.longest_hold, counts.first_released), (ms(0), None));
        let before = counts.held_bytes;
        world.send(client, &["SET a 1", "SET b 2"]);
        world.pass(ms(300));
        world.publish(Phase::Stable, Some("m"));
        let now = world.now;
        let counts = world.exchange.counts(0).unwrap();
        assert_eq!(
            (counts.longest_hold, counts.first_released),
            (ms(300), Some(now))
        );
        assert_eq!(counts.held_bytes - before, 2 * 27);
        world.answer_all("m");
    }
    world.assert_calm();
}

#[test]
fn without_a_majority_of_the_sentinels_that_is_what_the_refusal_says() {
    let mut world = World::new();
    let client = world.client();
    world.picture.no_majority = true;
    world.switching();
    world.send(client, &["SET a 1"]);
    world.pass(ms(5_000));
    let text = "no majority of the Sentinels for 'orders' answers, and strict-quorum is set \
                (held 5000 ms); the command was not sent|";
    assert_eq!(
        world.heard(client),
        format!("-MASTERDOWN switchman: {text}")
    );
    assert_eq!(world.exchange.counts(0).unwrap().held_expired, 1);
    world.assert_calm();
}

#[test]
fn without_a_majority_what_was_begun_at_a_silent_master_waits_too() {
    // An INCR that is not answered keeps the worker from being quiet.
    let silent = |no_majority| {
        let mut world = World::new();
        let (client, other) = (world.client(), world.client());
        world.send(client, &["WATCH a"]);
        world.answer_all("m");
        world.send(other, &["INCR b"]);
        world.picture.no_majority = no_majority;
        world.switching();
        world.send(client, &["MULTI", "SET a 1", "EXEC"]);
        (world, client)
    };
    let (world, _) = silent(false);
    assert_eq!(world.asked("m"), ["INCR b", "MULTI", "SET a 1", "EXEC"]);
    let (mut world, client) = silent(true);
    assert_eq!(world.asked("m"), ["INCR b"]);
    assert_eq!(world.heard(client), "+OK|");
    world.picture.no_majority = false;
    world.publish(Phase::Stable, Some("m"));
    assert_eq!(world.asked("m"), ["INCR b", "MULTI", "SET a 1", "EXEC"]);
}

#[test]
fn a_name_that_no_sentinel_knows_is_what_the_refusal_says() {
    let mut world = unknown();
    let client = world.client();
    world.picture.name_unknown = true;
    world.publish(Phase::Unknown, None);
    world.send(client, &["SET a 1"]);
    world.pass(ms(5_000));
    let heard = world.heard(client);
    let text = "-MASTERDOWN switchman: no Sentinel knows the name 'orders'; set master-name to one \
                that SENTINEL MASTERS lists (held 5000 ms)";
    assert!(heard.starts_with(text), "{heard}");
    world.assert_calm();
}

#[test]
fn a_held_write_is_dropped_when_its_client_leaves() {
    let mut world = unknown();
    let (leaves, ends, stays) = (world.client(), world.client(), world.client());
    for client in [leaves, ends, stays] {
        world.send(client, &["INCR a"]);
    }
    world.leave(leaves);
    world.exchange.client_ended(ends, world.now);
    world.run();
    assert!(world.is_closed(ends));
    world.publish(Phase::Stable, Some("m"));
    assert_eq!(world.asked("m"), ["INCR a"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(stays), ":1|");
}

#[test]
fn clients_go_on_in_the_order_in_which_they_began_to_wait() {
    let mut world = unknown();
    let clients: Vec<_> = (0..20).map(|_| world.client()).collect();
    for (at, client) in clients.iter().enumerate() {
        world.send(*client, &[&format!("SET k {at}")]);
        world.pass(ms(50));
    }
    world.publish(Phase::Stable, Some("m"));
    let want: Vec<_> = (0..20).map(|at| format!("SET k {at}")).collect();
    assert_eq!(world.asked("m"), want);
}

#[test]
fn ten_thousand_held_clients_leave_in_time_that_grows_with_their_number_only() {
    let mut world = unknown();
    let clients: Vec<_> = (0..10_000).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["SET a 1"]);
    }
    for client in clients {
        world.leave(client);
    }
    world.pass(ms(50));
    assert!(world.exchange.groups[0].held.is_empty());
    let idle = Settings::default().idle;
    assert_eq!(
        world.exchange.poll_timeout(world.now),
        Some(world.now + idle)
    );
}

#[test]
fn reads_of_replicas_go_on_while_writes_are_held() {
    let mut world = World::new();
    let (reads, writes) = (world.client(), world.client());
    world.switching();
    world.send(reads, &["GET a"]);
    world.send(writes, &["SET a 1", "GET a"]);
    assert_eq!(world.asked("r1"), ["GET a"]);
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(reads), "$1|1|");
    assert_eq!(world.heard(writes), "");
}

#[test]
fn a_client_that_waits_is_read_no_further_than_allowed() {
    let mut world = unknown();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    assert!(world.exchange.wants_input(client));
    let mut sent = 0;
    while world.exchange.wants_input(client) {
        world.send(client, &["SET some-key some-value"]);
        sent += 1;
    }
    assert!((200..1000).contains(&sent), "{sent}");
    world.publish(Phase::Stable, Some("m"));
    assert!(world.exchange.wants_input(client));
    assert_eq!(world.asked("m").len(), sent + 1);
}

#[test]
fn a_new_table_holds_for_requests_that_were_held() {
    let mut world = unknown();
    let client = world.client();
    world.send(client, &["FLUSHALL"]);
    let table = crate::command::Table::builtin().with_policy(&["flushall".to_owned()], &[]);
    world.exchange.commands(0, Arc::new(table));
    world.publish(Phase::Stable, Some("m"));
    assert!(world.heard(client).contains("'FLUSHALL' is refused here"));
    assert!(world.asked("m").is_empty());
}

#[test]
fn a_master_that_cannot_be_reached_holds_until_it_can() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["SET a 1", "SET b 2"]);
    for _ in 0..3 {
        let link = world.link("m");
        world.refuse(link, unreachable());
        assert_eq!(world.heard(client), "");
        while world.links("m").is_empty() {
            world.pass(ms(50));
        }
    }
    let failed = ReportKind::ConnectFailed { node: addr("m") };
    assert_eq!(world.reports, vec![failed; 3]);
    let link = world.link("m");
    world.open(link);
    assert_eq!(world.asked("m"), ["SET a 1", "SET b 2"]);
}

#[test]
fn a_full_node_is_left_alone_for_a_while_and_its_words_reach_nobody() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["SET a 1"]);
    let link = world.link("m");
    let said = Box::from(&b"-ERR max number of clients reached\r\n"[..]);
    let stage = crate::telemetry::ConnectStage::Handshake;
    world.refuse(link, OpenFailure::Refused(stage, said));
    assert!(world.links("m").is_empty());
    assert_eq!(world.heard(client), "");
    world.opens = true;
    world.pass(ms(100));
    assert_eq!(world.asked("m"), ["SET a 1"]);
}

#[test]
fn stopping_finishes_what_is_in_flight_and_refuses_what_is_held() {
    let mut world = World::new();
    let (busy, held, idle) = (world.client(), world.client(), world.client());
    world.send(busy, &["SET a 1"]);
    world.switching();
    world.send(held, &["SET b 1", "SET b 2"]);
    world.exchange.stop(world.now);
    world.run();
    let said = "-MASTERDOWN switchman: stopping; the command was not sent, connect again|";
    assert_eq!(world.heard(held), format!("{said}{said}"));
    assert!(world.is_closed(held) && world.is_closed(idle) && !world.is_closed(busy));
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(busy), "+OK|");
    assert!(world.is_closed(busy));
}

const STOPPING: &str = "-MASTERDOWN switchman: stopping; the command was not sent, connect again|";

#[test]
fn what_waits_for_its_turn_when_all_stops_is_refused_in_its_turn() {
    let mut world = World::new();
    let (ordered, late) = (world.client(), world.client());
    world.send(ordered, &["SET a 1", "BLPOP q 5", "PING"]);
    world.send(late, &["SET b 1"]);
    world.exchange.stop(world.now);
    world.run();
    assert_eq!(world.heard(ordered), "", "replies come in order");
    world.send(late, &["SET b 2", "GET b"]);
    assert_eq!(world.asked("m"), ["SET a 1", "SET b 1"]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "SET b 1", "+OK");
    for client in [ordered, late] {
        assert_eq!(world.heard(client), format!("+OK|{STOPPING}{STOPPING}"));
        assert!(world.is_closed(client));
    }
}

#[test]
fn what_waits_for_room_or_a_link_when_all_stops_is_refused_too() {
    let mut setup = Setup::default();
    setup.settings.pipeline_max = 2;
    let mut world = World::with(setup);
    let (crowded, unopened) = (world.client(), world.client());
    world.send(crowded, &["SET a 1", "SET b 2", "SET c 3", "SET d 4"]);
    world.opens = false;
    world.send(unopened, &["BLPOP q 5"]);
    world.exchange.stop(world.now);
    world.run();
    assert_eq!(world.heard(unopened), STOPPING);
    assert!(world.is_closed(unopened) && !world.is_closed(crowded));
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "SET b 2", "+OK");
    assert!(world.asked("m").is_empty());
    assert_eq!(
        world.heard(crowded),
        format!("+OK|+OK|{STOPPING}{STOPPING}")
    );
    assert!(world.is_closed(crowded));
}

#[test]
fn what_is_given_up_when_the_time_to_stop_is_over_has_an_answer() {
    let mut world = World::new();
    let lines = [
        ("SET a 1", "-UNCERTAIN "),
        ("GET a", STOPPING),
        ("BLPOP q 0", "-UNCERTAIN "),
        ("XREAD BLOCK 0 STREAMS s 0", STOPPING),
        ("SUBSCRIBE c", STOPPING),
    ];
    let clients = lines.map(|(line, want)| {
        let client = world.client();
        world.send(client, &[line]);
        (client, line, want)
    });
    world.exchange.stop(world.now);
    world.run();
    world.pass(ms(1000));
    for (client, line, _) in clients {
        assert!(!world.is_closed(client), "{line}");
    }
    world.send(clients[0].0, &["PING"]);
    world.exchange.abandon_all(world.now);
    world.run();
    for (client, line, want) in clients {
        let heard = world.heard(client);
        assert!(heard.starts_with(want), "{line}: {heard}");
        assert!(world.is_closed(client), "{line}");
        assert_eq!(
            heard.ends_with(STOPPING),
            line == "SET a 1" || want == STOPPING
        );
    }
    world.assert_calm();
}
