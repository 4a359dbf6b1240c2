//! Floor 4. Tests: A master is left for another, replicas come and go.

use super::*;

fn quiet(world: &World) -> Vec<Generation> {
    let generation = |kind: &ReportKind| match kind {
        ReportKind::Quiet { generation } => Some(*generation),
        _ => None,
    };
    world.reports.iter().filter_map(generation).collect()
}

#[test]
fn quiet_is_reported_once_and_not_before_the_last_reply() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["SET a 1", "SET b 2"]);
    world.send(two, &["GET a"]);
    let generation = world.switching();
    world.send(one, &["SET c 3"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(quiet(&world), []);
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(quiet(&world), [generation]);
    world.answer("r1", "GET a", "$1|1");
    world.pass(ms(500));
    assert_eq!(quiet(&world), [generation]);
    assert_eq!(world.heard(one), "+OK|+OK|");
    world.switch_to("r1", &["m"]);
    assert_eq!(world.asked("r1"), ["SET c 3"]);
}

#[test]
fn quiet_does_not_wait_for_what_merely_waits() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["BLPOP q 0"]);
    world.pass(ms(50));
    world.send(two, &["SET a 1", "BLPOP p 0"]);
    let first = world.switching();
    assert_eq!(quiet(&world), []);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(quiet(&world), [first], "what was held is not sent");
    world.switch_to("m", &["r1"]);
    let second = world.switching();
    assert_eq!(quiet(&world), [first], "there may be something to pop");
    world.pass(ms(50));
    assert_eq!(quiet(&world), [first, second]);
    world.answer("m", "BLPOP q 0", "*2|$1|q|$1|1");
    assert_eq!(world.heard(one), "*2|$1|q|$1|1|");
}

#[test]
fn what_is_behind_what_waits_neither_keeps_a_switch_waiting_nor_is_lost_with_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0", "MULTI", "INCR a", "EXEC"]);
    world.pass(ms(50));
    let generation = world.switching();
    assert_eq!(quiet(&world), [generation]);
    world.switch_to("r1", &[]);
    let lines = world.asked("m").into_iter();
    for call in lines.filter(|line| line.starts_with("CLIENT UNBLOCK ")) {
        world.answer("m", &call, ":1");
    }
    world.answer("m", "BLPOP q 0", "-UNBLOCKED client unblocked");
    assert_eq!(world.asked("r1"), ["BLPOP q 0"]);
    world.answer("r1", "BLPOP q 0", "*-1");
    world.answer("r1", "MULTI", "+OK");
    world.answer("r1", "INCR a", "+QUEUED");
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "*-1|+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn a_worker_with_nothing_in_flight_is_quiet_at_once_in_each_switch() {
    let mut world = World::new();
    let first = world.switching();
    world.switch_to("m", &["r1"]);
    let second = world.switching();
    assert_eq!(quiet(&world), [first, second]);
}

#[test]
fn quiet_comes_with_the_loss_of_the_old_masters_links_too() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    let generation = world.switching();
    assert_eq!(quiet(&world), []);
    world.lose_node("m");
    assert_eq!(quiet(&world), [generation]);
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
}

#[test]
fn links_to_a_master_that_was_left_are_lost_and_held_writes_go_to_the_new_one_in_order() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    world.switching();
    world.send(client, &["INCR b", "INCR c"]);
    world.switch_to("r1", &[]);
    assert!(world.links("m").is_empty());
    assert_eq!(world.asked("r1"), ["INCR b", "INCR c"]);
    world.answer("r1", "INCR b", ":1");
    world.answer("r1", "INCR c", ":2");
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-UNCERTAIN") && heard.ends_with("|:1|:2|"),
        "{heard}"
    );
    world.assert_calm();
}

#[test]
fn a_switch_that_is_called_off_loses_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    world.switching();
    world.send(client, &["INCR b"]);
    world.switch_to("m", &["r1"]);
    world.answer("m", "INCR a", ":1");
    world.answer("m", "INCR b", ":2");
    assert_eq!(world.heard(client), ":1|:2|");
    world.assert_calm();
}

#[test]
fn a_replica_that_is_removed_answers_what_it_was_asked() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a"]);
    let former = world.link("r1");
    world.switch_to("m", &["r2"]);
    world.send(client, &["GET b"]);
    assert_eq!(world.asked("r1"), ["GET a"]);
    assert_eq!(world.asked("r2"), ["GET b"]);
    world.answer("r2", "GET b", "$1|2");
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|$1|2|");
    assert!(!world.wires.contains_key(&former));
    world.assert_calm();
}

#[test]
fn a_replica_that_is_removed_while_its_link_opens_keeps_nobody_waiting() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a"]);
    world.opens = true;
    world.switch_to("m", &["r2"]);
    assert!(world.links("r1").is_empty());
    world.answer("r2", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.assert_calm();
}

#[test]
fn what_waits_for_a_link_to_open_is_not_sent_to_a_master_that_is_being_left() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let (client, other) = (world.client(), world.client());
    world.send(client, &["INCR a"]);
    world.send(other, &["MULTI", "INCR b", "EXEC"]);
    let generation = world.switching();
    assert_eq!(quiet(&world), [generation]);
    assert!(world.links("m").is_empty());
    world.opens = true;
    world.switch_to("r1", &[]);
    world.answer("r1", "INCR a", ":1");
    for (request, reply) in [("MULTI", "+OK"), ("INCR b", "+QUEUED"), ("EXEC", "*1|:1")] {
        world.answer("r1", request, reply);
    }
    assert_eq!(world.heard(client), ":1|");
    assert_eq!(world.heard(other), "+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn a_master_that_was_left_while_its_link_opens_keeps_nobody_waiting() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["INCR a", "GET a"]);
    world.opens = true;
    world.switch_to("r1", &["m"]);
    world.answer("r1", "INCR a", ":1");
    assert_eq!(world.asked("m"), Vec::<String>::new());
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), ":1|$1|1|");
    world.assert_calm();
}

#[test]
fn nodes_change_places_and_no_request_takes_a_link_of_the_former_role() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "GET a"]);
    world.answer_all("m");
    world.send(client, &["GET a"]);
    world.answer_all("r1");
    world.switch_to("r1", &["m"]);
    world.send(client, &["GET a", "SET b 2"]);
    let roles: Vec<_> = world.wires.values().map(|wire| &wire.plan).collect();
    assert!(
        roles
            .iter()
            .all(|plan| (plan.node == addr("r1")) == is_master(plan))
    );
    assert_eq!(world.asked("m"), ["GET a"]);
    assert_eq!(world.asked("r1"), ["SET b 2"]);
}

#[test]
fn without_replicas_the_master_serves_reads_or_they_are_refused_as_set() {
    let mut world = World::with(Setup {
        replicas: Vec::new(),
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a"]);
    world.answer("m", "GET a", "$1|1");
    let mut strict = World::with(Setup {
        replicas: Vec::new(),
        group: GroupSettings {
            no_replica: NoReplica::Error,
            ..Setup::default().group
        },
        ..Setup::default()
    });
    let client = strict.client();
    strict.send(client, &["GET a"]);
    assert!(
        strict
            .heard(client)
            .starts_with("-MASTERDOWN switchman: no replica")
    );
}

#[test]
fn two_switches_on_end_each_leave_nothing_at_the_node_between() {
    let mut world = World::new();
    let client = world.client();
    world.switching();
    world.send(client, &["INCR a"]);
    world.opens = false;
    world.switch_to("r1", &["m"]);
    world.opens = true;
    world.switch_to("m", &["r1"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), ":1|");
    assert!(world.asked("r1").is_empty());
    world.assert_calm();
}

/// Two replicas, and a master that reads must not reach.
fn sparing() -> World {
    World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        group: GroupSettings {
            no_replica: NoReplica::Error,
            ..Setup::default().group
        },
        ..Setup::default()
    })
}

/// The replica that was asked something, and the other one.
fn first_asked(world: &World) -> (&'static str, &'static str) {
    if world.asked("r1").is_empty() {
        ("r2", "r1")
    } else {
        ("r1", "r2")
    }
}

#[test]
fn a_read_that_replicas_turn_away_stays_off_a_master_that_reads_must_not_reach() {
    for words in [
        "-LOADING Redis is loading",
        "-MASTERDOWN Link is down",
        "-BUSY Redis is busy",
    ] {
        let mut world = sparing();
        let client = world.client();
        world.send(client, &["GET a"]);
        let (one, other) = first_asked(&world);
        world.answer(one, "GET a", words);
        world.answer(other, "GET a", words);
        assert_eq!(world.asked("m"), Vec::<String>::new(), "{words}");
        let heard = world.heard(client);
        assert!(
            heard.starts_with("-MASTERDOWN switchman: no replica"),
            "{heard}"
        );
        world.pass(ms(150));
        world.send(client, &["GET a"]);
        let (again, _) = first_asked(&world);
        world.answer(again, "GET a", "$1|1");
        assert_eq!(world.heard(client), "$1|1|");
        world.assert_calm();
    }
}

#[test]
fn a_read_of_a_silent_replica_stays_off_a_master_that_reads_must_not_reach() {
    let mut world = sparing();
    let client = world.client();
    world.send(client, &["GET a"]);
    let (_, other) = first_asked(&world);
    world.pass(ms(600));
    assert_eq!(world.asked("m"), Vec::<String>::new());
    world.answer(other, "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
}

#[test]
fn a_script_that_a_replica_lacks_is_not_run_by_a_master_that_reads_must_not_reach() {
    let mut world = sparing();
    let client = world.client();
    let words = "-NOSCRIPT No matching script.";
    world.send(client, &["EVALSHA_RO 12 0"]);
    let (one, _) = first_asked(&world);
    world.answer(one, "EVALSHA_RO 12 0", words);
    assert_eq!(world.asked("m"), Vec::<String>::new());
    assert_eq!(world.heard(client), format!("{words}|"));
}
