//! Floor 4. Tests: Commands that occupy a link, administration, WAIT.

use super::*;

#[test]
fn a_blocking_command_answers_in_its_turn() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "BLPOP q 0", "PING", "BLPOP p 0"]);
    assert_eq!(world.asked("m"), ["BLPOP q 0"]);
    world.answer("m", "BLPOP q 0", "*2|$1|q|$1|1");
    assert_eq!(world.asked("m"), ["BLPOP p 0"]);
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|*2|$1|q|$1|1|+PONG|");
    world.answer("m", "BLPOP p 0", "*-1");
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

#[test]
fn a_client_that_leaves_while_it_blocks_takes_the_link_along() {
    let mut world = World::new();
    for half_closed in [true, false] {
        let client = world.client();
        world.send(client, &["BLPOP q 0"]);
        let link = world.asked_on("m", "BLPOP q 0");
        if half_closed {
            world.exchange.client_ended(client, world.now);
            world.run();
            assert!(world.is_closed(client));
        } else {
            world.leave(client);
        }
        assert!(!world.wires.contains_key(&link));
        world.assert_calm();
    }
}

#[test]
fn a_client_that_half_closes_hears_the_end_of_its_transaction() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "INCR a", "EXEC"]);
    world.exchange.client_ended(client, world.now);
    world.run();
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|:1|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn what_a_client_sent_before_it_half_closed_is_executed_in_its_turn() {
    let mut world = World::new();
    let client = world.client();
    world.send(
        client,
        &["INCR a", "MULTI", "INCR a", "EXEC", "CONFIG GET x"],
    );
    world.exchange.client_ended(client, world.now);
    world.run();
    assert_eq!(world.asked("m"), ["INCR a"]);
    assert!(!world.exchange.wants_input(client));
    world.answer("m", "INCR a", ":1");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.answer("m", "EXEC", "*1|:2");
    world.answer("m", "CONFIG GET x", "*0");
    assert_eq!(world.heard(client), ":1|+OK|+QUEUED|*1|:2|*0|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_request_that_waited_when_its_client_half_closed_is_dropped_if_it_would_be_held() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a", "BLPOP q 0"]);
    world.exchange.client_ended(client, world.now);
    world.switching();
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), ":1|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_blocked_pop_whose_link_is_lost_is_uncertain_and_one_that_was_not_sent_goes_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    world.lose_node("m");
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
    world.switch_to("r1", &[]);
    world.opens = false;
    world.send(client, &["BLPOP q 0"]);
    let (link, _) = world.only_opening();
    world.refuse(link, unreachable());
    world.opens = true;
    world.pass(ms(100));
    world.answer("r1", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

/// What the old master is asked about the client that waits there with this line.
fn call_for(world: &World, words: &str) -> String {
    let waits = world.asked_on("m", words);
    let link = world.exchange.links.get(waits).unwrap();
    format!(
        "CLIENT UNBLOCK {} ERROR",
        link.connection.as_ref().unwrap().id
    )
}

/// The client's user may not call back those who wait with these lines.
fn call_in_vain(world: &mut World, lines: &[&str]) {
    for line in lines {
        let call = call_for(world, line);
        world.answer("m", &call, "-NOPERM no");
    }
}

#[test]
fn what_waits_at_a_master_that_was_left_is_called_back() {
    const CALLED: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";
    let mut world = World::new();
    let (one, two, three) = (world.client(), world.client(), world.client());
    world.send(one, &["BLPOP q 10"]);
    world.send(two, &["HELLO 3", "SELECT 3", "BLMOVE a b LEFT LEFT 0"]);
    world.heard(two);
    world.send(three, &["BRPOP p 10"]);
    world.pass(ms(1000));
    world.switch_to("r1", &[]);
    let caller = world.asked_on("m", &call_for(&world, "BLPOP q 10"));
    assert_eq!(world.wires[&caller].plan.database, 0);
    assert_eq!(
        world.wires[&caller].asked.len(),
        3,
        "one connection calls all"
    );
    for line in ["BLPOP q 10", "BLMOVE a b LEFT LEFT 0"] {
        let call = call_for(&world, line);
        world.answer("m", &call, ":1");
        world.answer("m", line, CALLED);
    }
    assert_eq!(
        world.asked("r1"),
        ["BLPOP q 9.000", "BLMOVE a b LEFT LEFT 0"]
    );
    // It had something before it was called.
    let call = call_for(&world, "BRPOP p 10");
    world.answer("m", "BRPOP p 10", "*2|$1|p|$1|1");
    world.answer("m", &call, ":0");
    assert!(world.heard(three).starts_with("-UNCERTAIN "));
    assert!(world.links("m").is_empty());
    world.answer("r1", "BLPOP q 9.000", "*-1");
    world.answer("r1", "BLMOVE a b LEFT LEFT 0", "$1|x");
    assert_eq!(
        (world.heard(one), world.heard(two)),
        ("*-1|".to_owned(), "$1|x|".to_owned())
    );
    world.assert_calm();
}

#[test]
fn a_master_that_takes_no_call_is_left_after_a_moment() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 10"]);
    world.pass(ms(1000));
    world.opens = false;
    world.switch_to("r1", &[]);
    world.pass(ms(950));
    assert_eq!(
        (world.heard(client), world.links("m").len()),
        (String::new(), 2)
    );
    world.pass(ms(50));
    assert!(world.heard(client).starts_with("-UNCERTAIN "));
    assert!(world.links("m").is_empty());
    world.assert_calm();
}

#[test]
fn what_waits_at_a_master_that_becomes_a_replica_waits_on_at_the_new_one() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["BLPOP q 10"]);
    world.send(two, &["SET a 1", "WAIT 1 9000"]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "PUBLISH __switchman__:wait ", ":0");
    world.pass(ms(2_000));
    world.switching();
    world.switch_to("r1", &[]);
    world.send(one, &["INCR b"]);
    assert_eq!(
        world.heard(one),
        "",
        "the old master may still say what came of it"
    );
    call_in_vain(&mut world, &["BLPOP q 10", "WAIT 1 9000"]);
    world.pass(ms(500));
    world.answer("m", "BLPOP q 10", UNBLOCKED);
    world.answer(
        "m",
        "WAIT 1 9000",
        "-READONLY You can't write against a read only replica.",
    );
    assert!(world.links("m").is_empty());
    let publish = "PUBLISH __switchman__:wait ";
    assert_eq!(world.asked("r1"), ["BLPOP q 7.500", publish, "WAIT 1 6500"]);
    world.answer("r1", "BLPOP q 7.500", "*2|$1|q|$1|1");
    world.answer("r1", publish, ":0");
    world.answer("r1", "WAIT 1 6500", ":0");
    world.answer("r1", "INCR b", ":1");
    assert_eq!(world.heard(one), "*2|$1|q|$1|1|:1|");
    assert_eq!(world.heard(two), "+OK|:0|");
    world.assert_calm();
}

#[test]
fn what_is_behind_a_wait_that_the_node_ended_stays_behind_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0", "BLPOP p 0"]);
    world.answer("m", "BLPOP q 0", UNBLOCKED);
    world.switching();
    world.switch_to("r1", &[]);
    assert_eq!(world.asked("r1"), ["BLPOP q 0"]);
    world.answer("r1", "BLPOP q 0", "*2|$1|q|$1|1");
    world.answer("r1", "BLPOP p 0", "*2|$1|p|$1|2");
    assert_eq!(world.heard(client), "*2|$1|q|$1|1|*2|$1|p|$1|2|");
    world.assert_calm();
}

#[test]
fn a_wait_that_another_client_ended_has_ended() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0", "XREAD BLOCK 0 STREAMS s $"]);
    let line = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";
    world.answer("m", "BLPOP q 0", line);
    world.answer("m", "XREAD BLOCK 0 STREAMS s $", UNBLOCKED);
    assert_eq!(world.heard(client), format!("{line}|{UNBLOCKED}|"));
    world.assert_calm();
}

#[test]
fn a_read_that_waits_goes_to_the_new_master_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["XREAD BLOCK 9000 STREAMS s 0-1"]);
    world.pass(ms(1_000));
    world.switching();
    world.switch_to("r1", &[]);
    assert!(world.links("m").is_empty());
    let rest = "XREAD BLOCK 8000 STREAMS s 0-1";
    assert_eq!(world.asked("r1"), [rest]);
    world.lose_node("r1");
    assert_eq!(world.heard(client), "");
    world.answer("r1", rest, "*-1");
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

#[test]
fn the_last_word_of_a_master_that_was_left_is_heard_for_a_moment() {
    for (word, want) in [
        ("*-1", "*-1|"),
        ("*2|$1|q|$1|1", "-UNCERTAIN "),
        ("-ERR unknown", "-UNCERTAIN "),
    ] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["WATCH k", "BLPOP q 9"]);
        world.answer("m", "WATCH k", "+OK");
        world.pass(ms(100));
        world.switching();
        world.switch_to("r1", &[]);
        world.send(client, &["MULTI", "EXEC"]);
        call_in_vain(&mut world, &["BLPOP q 9"]);
        world.answer("m", "BLPOP q 9", word);
        let heard = world.heard(client);
        assert!(heard.starts_with(&format!("+OK|{want}")), "{heard}");
        assert!(world.links("m").is_empty());
        world.answer("r1", "MULTI", "+OK");
        world.answer("r1", "DISCARD", "+OK");
        assert!(
            world.heard(client).ends_with("*-1|"),
            "what was watched is lost"
        );
        world.assert_calm();
    }
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 9"]);
    world.pass(ms(100));
    world.switch_to("r1", &["m"]);
    world.pass(ms(950));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert!(world.heard(client).starts_with("-UNCERTAIN "));
    world.assert_calm();
}

#[test]
fn a_blocking_command_is_not_overdue() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    world.pass(Duration::from_secs(300));
    assert!(world.reports.is_empty());
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(client), "*-1|");
}

#[test]
fn an_exec_without_an_answer_is_overdue() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.pass(Duration::from_secs(61));
    let heard = world.heard(client);
    assert!(heard.contains("did not answer within"), "{heard}");
    world.assert_calm();
}

#[test]
fn administration_goes_to_the_master_and_script_debug_marks_its_link() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CONFIG SET maxmemory 1"]);
    world.answer("m", "CONFIG SET maxmemory 1", "+OK");
    world.pass(ms(5_100));
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 1);
    world.send(client, &["SCRIPT DEBUG YES"]);
    world.answer("m", "SCRIPT DEBUG YES", "+OK");
    assert!(world.exchange.groups[0].pool.is_empty());
    assert_eq!(world.heard(client), "+OK|+OK|");
    assert_eq!(world.links("m").len(), 1);
    world.assert_calm();
}

#[test]
fn wait_comes_behind_a_message_that_is_replicated_behind_the_clients_writes() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "WAIT 1 100", "SET b 2"]);
    assert_eq!(world.asked("m"), ["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    let publish = "PUBLISH __switchman__:wait ";
    assert_eq!(world.asked("m"), [publish, "WAIT 1 100"]);
    world.answer("m", publish, ":0");
    world.answer("m", "WAIT 1 100", ":1");
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(world.heard(client), "+OK|:1|+OK|");
    world.assert_calm();
}

#[test]
fn what_sticks_to_a_connection_keeps_it_for_its_client() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT NO-TOUCH ON", "GET a"]);
    let link = world.asked_on("m", "CLIENT NO-TOUCH ON");
    world.answer("m", "CLIENT NO-TOUCH ON", "+OK");
    world.answer("m", "GET a", "$1|1");
    assert_eq!(world.heard(client), "+OK|$1|1|");
    world.lose(link);
    assert!(world.is_closed(client), "it cannot be had again unnoticed");
}

#[test]
fn a_monitor_hears_lines_that_answer_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MONITOR"]);
    let link = world.asked_on("m", "MONITOR");
    world.answer("m", "MONITOR", "+OK");
    world.say(link, "+1 [0 lua] \"GET\"|+2 [0 lua] \"SET\"");
    assert_eq!(
        world.heard(client),
        "+OK|+1 [0 lua] \"GET\"|+2 [0 lua] \"SET\"|"
    );
    world.leave(client);
    assert!(!world.wires.contains_key(&link));
}

#[test]
fn a_pop_behind_select_pops_in_the_selected_database() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP a 0", "SELECT 2", "BLPOP b 0"]);
    world.answer("m", "BLPOP a 0", "*-1");
    let link = world.asked_on("m", "BLPOP b 0");
    assert_eq!(world.wires[&link].plan.database, 2);
    world.answer("m", "BLPOP b 0", "*-1");
    assert_eq!(world.heard(client), "*-1|+OK|*-1|");
    world.assert_calm();
}

#[test]
fn a_command_that_waits_for_a_link_hears_the_words_with_which_that_is_refused() {
    let mut world = World::new();
    let client = world.client();
    world.opens = false;
    world.send(client, &["BLPOP q 5", "PING"]);
    let (link, _) = world.only_opening();
    let said = Box::from(&b"-NOPERM no\r\n"[..]);
    let stage = crate::telemetry::ConnectStage::Handshake;
    world.refuse(link, OpenFailure::Refused(stage, said));
    assert_eq!(world.heard(client), "-NOPERM no|+PONG|");
    assert_eq!(world.opening(), None);
    world.assert_calm();
}

#[test]
fn who_leaves_while_its_command_waits_for_a_link_takes_nothing() {
    let mut world = World::new();
    for half_closed in [true, false] {
        let client = world.client();
        world.opens = false;
        world.send(client, &["BLPOP q 5"]);
        let (link, _) = world.only_opening();
        if half_closed {
            world.exchange.client_ended(client, world.now);
        } else {
            world.exchange.client_hung_up(client, world.now);
        }
        world.run();
        assert!(world.is_closed(client) && !world.wires.contains_key(&link));
        world.opens = true;
        world.pass(ms(100));
        assert!(world.asked("m").is_empty());
        world.assert_calm();
    }
}

#[test]
fn a_client_that_half_closes_with_commands_behind_a_blocking_one_does_not_block_for_ever() {
    for behind in ["SET a 1", "SELECT 1", "AUTH x y"] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["BLPOP q 0", behind]);
        let link = world.asked_on("m", "BLPOP q 0");
        world.exchange.client_ended(client, world.now);
        world.run();
        assert!(world.is_closed(client), "{behind}");
        assert!(!world.wires.contains_key(&link), "{behind}");
        world.assert_calm();
    }
}

#[test]
fn a_client_that_half_closes_hears_what_came_before_its_blocking_command() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "BLPOP q 0"]);
    world.exchange.client_ended(client, world.now);
    world.run();
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_client_that_half_closes_before_its_read_is_answered_hears_it_too() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "BLPOP q 0"]);
    world.exchange.client_ended(client, world.now);
    world.run();
    assert!(!world.is_closed(client));
    world.answer("r1", "GET a", "$1|a");
    assert_eq!(world.heard(client), "$1|a|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn who_hangs_up_unread_ends_if_it_waits_and_goes_on_otherwise() {
    let mut world = World::new();
    let (blocked, held, ordered) = (world.client(), world.client(), world.client());
    let large = format!("SET k {}", "x".repeat(20_000));
    world.send(blocked, &["BLPOP q 0", &large]);
    world.send(ordered, &["INCR a", "MULTI", &large, "EXEC"]);
    world.switching();
    world.send(held, &[&large, &large]);
    for client in [blocked, held, ordered] {
        assert!(!world.exchange.wants_input(client));
        world.exchange.client_hung_up(client, world.now);
        world.run();
    }
    assert!(world.is_closed(blocked) && world.is_closed(held) && !world.is_closed(ordered));
}
