//! Floor 4. Tests: Commands that block have a time of their own, wherever they spend it.

use super::*;

#[test]
fn the_time_of_what_waits_runs_on_while_it_is_held() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 10"]);
    world.pass(ms(3_000));
    world.answer("m", "BLPOP q 10", UNBLOCKED);
    let demoted = ReportKind::Demoted { node: addr("m") };
    assert!(world.reports.contains(&demoted));
    world.switching();
    world.pass(ms(2_000));
    world.switch_to("r1", &[]);
    world.answer("r1", "BLPOP q 5.000", UNBLOCKED);
    world.switching();
    world.pass(ms(4_000));
    world.switch_to("m", &[]);
    world.pass(ms(3_000));
    world.answer("m", "BLPOP q 1.000", "*-1");
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

#[test]
fn the_time_of_what_waits_runs_from_its_last_byte_on() {
    let mut world = World::new();
    let client = world.client();
    world.switching();
    world.send(client, &["SET k v"]);
    world.pass(ms(1_000));
    let pop = encoded("BLPOP q 10");
    let (begin, end) = pop.split_at(9);
    world.send_raw(client, begin);
    world.pass(ms(3_000));
    world.send_raw(client, end);
    world.switch_to("r1", &[]);
    world.answer("r1", "SET k v", "+OK");
    world.pass(ms(2_000));
    world.answer("r1", "BLPOP q 10", UNBLOCKED);
    world.switching();
    world.switch_to("m", &[]);
    world.answer("m", "BLPOP q 8.000", "*-1");
    assert_eq!(world.heard(client), "+OK|*-1|");
}

#[test]
fn the_time_for_which_a_command_is_held_is_part_of_its_own() {
    let mut world = World::new();
    let lines = [
        "BLPOP q 5",
        "BZPOPMIN q 2.5",
        "BLMOVE q p LEFT LEFT 5",
        "BLMPOP 5 1 q LEFT",
        "XREAD BLOCK 5000 STREAMS s 0",
        "WAIT 1 5000",
        "BLPOP q 0",
    ];
    world.switching();
    let clients = lines.map(|line| {
        let client = world.client();
        world.send(client, &[line]);
        client
    });
    world.pass(ms(2000));
    world.switch_to("r1", &[]);
    let publish = "PUBLISH __switchman__:wait ";
    let rest = [
        "BLPOP q 3.000",
        "BZPOPMIN q 0.500",
        "BLMOVE q p LEFT LEFT 3.000",
        "BLMPOP 3.000 1 q LEFT",
        "XREAD BLOCK 3000 STREAMS s 0",
        publish,
        "WAIT 1 3000",
        "BLPOP q 0",
    ];
    let mut asked = world.asked("r1");
    asked.sort_unstable();
    let mut want = rest;
    want.sort_unstable();
    assert_eq!(asked, want);
    world.answer("r1", rest[0], "*-1");
    world.send(clients[0], &["BLPOP q 5"]);
    world.answer("r1", "BLPOP q 5", "*-1");
    assert_eq!(
        world.heard(clients[0]),
        "*-1|*-1|",
        "the next has all its time"
    );
}

#[test]
fn a_command_whose_time_ends_while_it_is_held_hears_what_a_server_would_say() {
    let mut world = World::new();
    let lines = [
        ("BLPOP a b 1", "*-1|", "_|"),
        ("BRPOPLPUSH a b 1", "*-1|", "_|"),
        ("BLMOVE a b LEFT LEFT 1", "*-1|", "_|"),
        ("BLMPOP 1 1 a LEFT", "*-1|", "_|"),
        ("BZPOPMAX a 1", "*-1|", "_|"),
        ("BZMPOP 1 1 a MIN", "*-1|", "_|"),
        ("XREAD BLOCK 1000 STREAMS s $", "*-1|", "_|"),
        ("XREADGROUP GROUP g c BLOCK 1000 STREAMS s >", "*-1|", "_|"),
        ("WAIT 1 1000", ":0|", ":0|"),
        ("WAITAOF 0 1 1000", "*2|:0|:0|", "*2|:0|:0|"),
    ];
    let mut heard_by = Vec::new();
    for (line, resp2, resp3) in lines {
        let (old, new) = (world.client(), world.client());
        world.send(new, &["HELLO 3"]);
        world.heard(new);
        heard_by.extend([(old, line, resp2), (new, line, resp3)]);
    }
    world.switching();
    for (client, line, _) in &heard_by {
        world.send(*client, &[line, "PING"]);
    }
    world.pass(ms(950));
    for (client, line, _) in &heard_by {
        assert_eq!(world.heard(*client), "", "{line}");
    }
    world.pass(ms(50));
    for (client, line, want) in &heard_by {
        assert_eq!(world.heard(*client), format!("{want}+PONG|"), "{line}");
    }
    world.switch_to("r1", &[]);
    assert!(world.asked("r1").is_empty(), "nobody waits any more");
    assert_eq!(world.exchange.counts(0).unwrap().held_expired, 0);
    world.assert_calm();
}

#[test]
fn a_command_that_waits_longer_than_the_hold_is_refused_at_its_end() {
    for line in ["BLPOP q 0", "BLPOP q 6", "BLPOP q x"] {
        let mut world = World::new();
        let client = world.client();
        world.switching();
        world.send(client, &[line]);
        world.pass(ms(4950));
        assert_eq!(world.heard(client), "", "{line}");
        world.pass(ms(50));
        let heard = world.heard(client);
        assert!(heard.starts_with("-MASTERDOWN switchman: "), "{heard}");
        world.assert_calm();
    }
}

#[test]
fn what_is_behind_a_command_that_waits_at_a_server_is_held_from_its_turn_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    world.pass(ms(1_000));
    world.send(client, &["SET a 1", "BLPOP p 0"]);
    world.pass(ms(5_000));
    world.switching();
    world.answer("m", "BLPOP q 0", "*-1");
    world.pass(ms(4_900));
    assert_eq!(world.heard(client), "*-1|");
    world.switch_to("r1", &[]);
    world.answer("r1", "SET a 1", "+OK");
    world.pass(ms(5_000));
    world.answer("r1", "BLPOP p 0", "*-1");
    assert_eq!(world.heard(client), "+OK|*-1|");
    world.assert_calm();
}

#[test]
fn what_has_waited_at_a_server_hears_the_end_of_its_time_while_it_is_held() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 3"]);
    world.pass(ms(1000));
    world.answer("m", "BLPOP q 3", UNBLOCKED);
    world.switching();
    world.pass(ms(1950));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

#[test]
fn the_time_until_a_link_is_open_is_part_of_a_commands_own() {
    let mut world = World::new();
    let client = world.client();
    world.opens = false;
    world.send(client, &["GET a", "BLPOP q 2", "BLPOP p 2"]);
    let (link, _) = world.only_opening();
    world.pass(ms(300));
    world.refuse(link, unreachable());
    world.pass(ms(100));
    let (link, _) = world.only_opening();
    world.answer("r1", "GET a", "$1|a");
    world.pass(ms(1100));
    world.open(link);
    assert_eq!(world.asked("m"), ["BLPOP q 0.500"]);
    world.answer("m", "BLPOP q 0.500", "*-1");
    world.answer("m", "BLPOP p 2", "*-1");
    assert_eq!(world.heard(client), "$1|a|*-1|*-1|");
    world.assert_calm();
}

#[test]
fn a_command_whose_time_ends_before_its_link_is_open_is_tried_once_all_the_same() {
    let mut world = World::new();
    let client = world.client();
    world.opens = false;
    world.send(client, &["BLPOP q 1", "PING"]);
    let (link, _) = world.only_opening();
    world.pass(ms(1200));
    assert_eq!(world.heard(client), "");
    world.open(link);
    world.answer("m", "BLPOP q 0.002", "*2|$1|q|$1|v");
    assert_eq!(world.heard(client), "*2|$1|q|$1|v|+PONG|");
    world.assert_calm();
}

#[test]
fn a_command_whose_time_has_ended_hears_so_where_no_link_can_be_opened() {
    let mut world = World::new();
    let client = world.client();
    world.opens = false;
    world.send(client, &["BLPOP q 1", "BLPOP q 1", "PING"]);
    let (link, _) = world.only_opening();
    world.pass(ms(1200));
    world.refuse(link, unreachable());
    assert_eq!(world.heard(client), "*-1|");
    world.switching();
    world.pass(ms(950));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert_eq!(world.heard(client), "*-1|+PONG|");
    world.switch_to("m", &[]);
    world.assert_calm();
}

#[test]
fn the_time_of_a_command_behind_one_that_waits_begins_with_its_turn() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP a 0"]);
    world.pass(ms(100));
    world.switching();
    world.send(client, &["BLPOP b 2"]);
    world.pass(ms(3000));
    assert_eq!(world.asked("m"), ["BLPOP a 0"]);
    world.answer("m", "BLPOP a 0", UNBLOCKED);
    world.switch_to("r1", &[]);
    assert_eq!(world.asked("r1"), ["BLPOP a 0"]);
    world.answer("r1", "BLPOP a 0", "*2|$1|a|$1|1");
    world.answer("r1", "BLPOP b 2", "*-1");
    assert_eq!(world.heard(client), "*2|$1|a|$1|1|*-1|");
    world.assert_calm();
}
