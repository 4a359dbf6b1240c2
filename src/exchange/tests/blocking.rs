//! Floor 4. Tests: Commands that occupy a link, administration, WAIT.

use super::*;

#[test]
fn a_blocking_command_answers_in_its_turn() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "BLPOP q 0", "PING", "BLPOP p 0"]);
    assert_eq!(world.asked("m"), ["BLPOP q 0", "BLPOP p 0"]);
    world.answer("m", "BLPOP q 0", "*2|$1|q|$1|1");
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
            world.exchange.client_ended(client);
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
    world.exchange.client_ended(client);
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
    world.exchange.client_ended(client);
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
    world.exchange.client_ended(client);
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
    world.switch_to("r1", &[]);
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
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
    world.send(client, &["HELLO 3", "CLIENT TRACKING ON", "GET a"]);
    let link = world.asked_on("m", "CLIENT TRACKING ON");
    world.answer("m", "CLIENT TRACKING ON", "+OK");
    world.answer("m", "GET a", "$1|1");
    world.heard(client);
    world.say(link, ">2|$10|invalidate|*1|$1|a");
    assert_eq!(world.heard(client), ">2|$10|invalidate|*1|$1|a|");
    world.send(client, &["SELECT 1"]);
    assert!(world.heard(client).starts_with("-ERR switchman: SELECT"));
    world.lose(link);
    assert!(
        world.is_closed(client),
        "it cannot be told what else has become invalid"
    );
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
