//! Floor 4. Tests: Replies that are kept back while their master is being replaced.

use super::*;
use crate::topology::Acks;

const DOUBT: &str = "-UNCERTAIN switchman: executed by a master that is being replaced; its \
    successor may or may not have it|";

/// The master is about to be left, and its replies are to be kept.
fn suspect(world: &mut World) -> Generation {
    world.picture.acks = Acks::Kept;
    world.switching()
}

/// The hold goes on with this word on the replies.
fn turn(world: &mut World, acks: Acks) {
    world.picture.acks = acks;
    world.switching();
}

fn leave(world: &mut World, acks: Acks) {
    world.picture.acks = acks;
    world.switch_to("r1", &[]);
}

fn counted(world: &mut World) -> (u64, u64, u64) {
    let counts = world.exchange.counts(0).unwrap();
    (
        counts.kept_released,
        counts.kept_uncertain,
        counts.uncertain,
    )
}

#[test]
fn replies_to_writes_are_kept_in_order_until_the_candidates_have_everything() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "GET a", "INCR b"]);
    let generation = suspect(&mut world);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "GET a", "$1|1");
    assert!(world.reports.is_empty());
    world.answer("m", "INCR b", ":1");
    assert_eq!(world.reports, [ReportKind::Quiet { generation }]);
    world.pass(ms(500));
    assert_eq!(world.heard(client), "");
    turn(&mut world, Acks::Settled);
    assert_eq!(world.heard(client), "+OK|$1|1|:1|");
    leave(&mut world, Acks::Settled);
    assert_eq!(counted(&mut world), (2, 0, 0));
    world.assert_calm();
}

#[test]
fn what_waits_behind_a_replica_is_taken_back_when_its_master_is_suspected() {
    // Given: the same master goes on. Settled: its successor has it. Doubtful: it may lack it.
    for (acks, end) in [
        (Acks::Given, "+OK|"),
        (Acks::Settled, "+OK|"),
        (Acks::Doubtful, DOUBT),
    ] {
        let mut world = World::with(Setup {
            replicas: ["r1", "r2"].map(addr).to_vec(),
            ..Setup::default()
        });
        let client = world.client();
        world.send(client, &["GET x", "SET a 1", "SET b 1 NX", "DBSIZE"]);
        world.answer("m", "SET a 1", "+OK");
        world.answer("m", "SET b 1 NX", "-ERR no");
        world.answer("m", "DBSIZE", ":7");
        let generation = suspect(&mut world);
        assert_eq!(world.reports, [ReportKind::Quiet { generation }]);
        let slow = ["r1", "r2"]
            .into_iter()
            .find(|host| !world.asked(host).is_empty());
        world.answer(slow.unwrap(), "GET x", "$1|0");
        assert_eq!(world.heard(client), "$1|0|", "{acks:?}");
        // What comes next belongs behind it.
        world.send(client, &["SET c 1"]);
        let next = if acks == Acks::Given {
            world.picture.acks = acks;
            world.publish(Phase::Stable, Some("m"));
            "m"
        } else {
            leave(&mut world, acks);
            "r1"
        };
        world.answer(next, "SET c 1", "+OK");
        assert_eq!(world.heard(client), format!("{end}-ERR no|:7|+OK|"));
        world.assert_calm();
    }
}

#[test]
fn no_more_is_taken_back_than_may_be_kept() {
    let mut world = World::with(Setup {
        replicas: ["r1", "r2"].map(addr).to_vec(),
        settings: Settings {
            output_high: 64 << 20,
            ..Settings::default()
        },
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET x", "GETDEL a", "GETDEL b"]);
    let value = format!("${}|{}", 3 << 20, "v".repeat(3 << 20));
    world.answer("m", "GETDEL a", &value);
    world.answer("m", "GETDEL b", &value);
    suspect(&mut world);
    let slow = ["r1", "r2"]
        .into_iter()
        .find(|host| !world.asked(host).is_empty());
    world.answer(slow.unwrap(), "GET x", "$1|0");
    assert_eq!(world.heard(client), "$1|0|");
    turn(&mut world, Acks::Settled);
    let heard = world.heard(client);
    let (first, second) = heard.split_at(value.len() + 1);
    assert!(first == format!("{value}|"), "the first is kept");
    assert_eq!(second, DOUBT, "the other had no room");
    assert_eq!(counted(&mut world).1, 1);
    world.assert_calm();
}

#[test]
fn reads_errors_and_nulls_acknowledge_nothing() {
    let mut world = World::new();
    let clients = [(); 4].map(|()| world.client());
    let told = [
        ("DBSIZE", ":0"),
        ("INCR b", "-WRONGTYPE no"),
        ("SET c 1 NX", "$-1"),
        ("MULTI", "+OK"),
    ];
    for (client, (line, _)) in clients.iter().zip(told) {
        world.send(*client, &[line]);
    }
    suspect(&mut world);
    for (client, (line, reply)) in clients.into_iter().zip(told) {
        world.answer("m", line, reply);
        assert_eq!(world.heard(client), format!("{reply}|"));
    }
}

#[test]
fn what_the_new_master_may_lack_is_uncertain_and_everything_goes_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    suspect(&mut world);
    world.send(client, &["INCR b", "GET b"]);
    world.answer("m", "INCR a", ":1");
    leave(&mut world, Acks::Doubtful);
    assert_eq!(world.heard(client), DOUBT);
    world.answer("r1", "INCR b", ":1");
    world.answer("r1", "GET b", "$1|1");
    assert_eq!(world.heard(client), ":1|$1|1|");
    assert_eq!(counted(&mut world), (0, 1, 1));
    world.assert_calm();
}

#[test]
fn what_the_new_master_has_is_passed_on_though_its_link_was_lost() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    suspect(&mut world);
    world.answer("m", "INCR a", ":1");
    world.lose_node("m");
    assert_eq!(world.heard(client), "");
    leave(&mut world, Acks::Settled);
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn a_read_behind_a_kept_reply_is_not_asked_of_a_replica() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    suspect(&mut world);
    world.answer("m", "SET a 1", "+OK");
    world.send(client, &["GET a"]);
    assert!(world.asked("r1").is_empty());
    world.picture.acks = Acks::Given;
    world.switch_to("m", &["r1"]);
    assert_eq!(world.heard(client), "+OK|");
    world.answer("r1", "GET a", "$1|1");
    world.assert_calm();
}

#[test]
fn a_master_that_stays_has_everything() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a", "BLPOP q 0"]);
    suspect(&mut world);
    world.answer("m", "INCR a", ":1");
    world.picture.acks = Acks::Given;
    world.switch_to("m", &["r1"]);
    world.answer("m", "BLPOP q 0", "*2|$1|q|$1|1");
    assert_eq!(world.heard(client), ":1|*2|$1|q|$1|1|");
    assert_eq!(counted(&mut world), (1, 0, 0));
    world.assert_calm();
}

#[test]
fn what_is_served_after_quiet_is_not_settled_with_the_rest() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["BLPOP q 0"]);
    world.pass(ms(50));
    world.send(two, &["INCR a"]);
    suspect(&mut world);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.reports.len(), 1);
    world.answer("m", "BLPOP q 0", "*2|$1|q|$1|1");
    turn(&mut world, Acks::Settled);
    assert_eq!(
        (world.heard(two), world.heard(one)),
        (":1|".to_owned(), String::new())
    );
    leave(&mut world, Acks::Settled);
    assert_eq!(world.heard(one), DOUBT);
    assert_eq!(counted(&mut world), (1, 1, 1));
    world.assert_calm();
}

#[test]
fn no_reply_is_kept_for_longer_than_a_command_is_held() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    suspect(&mut world);
    world.answer("m", "INCR a", ":1");
    world.pass(ms(4_950));
    assert_eq!(world.heard(client), "");
    world.pass(ms(50));
    assert_eq!(world.heard(client), DOUBT);
    leave(&mut world, Acks::Settled);
    world.assert_calm();
}

#[test]
fn an_exec_is_kept_whole_and_what_it_selects_holds_once_it_is_passed_on() {
    for (acks, want, database) in [(Acks::Settled, "*1|+OK|", 2), (Acks::Doubtful, DOUBT, 0)] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["MULTI", "SELECT 2", "EXEC", "INCR a"]);
        suspect(&mut world);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "SELECT 2", "+QUEUED");
        world.answer("m", "EXEC", "*1|+OK");
        assert_eq!(world.heard(client), "+OK|+QUEUED|");
        leave(&mut world, acks);
        assert_eq!(world.heard(client), want);
        let link = world.asked_on("r1", "INCR a");
        assert_eq!(world.wires[&link].plan.database, database);
        world.answer("r1", "INCR a", ":1");
        world.assert_calm();
    }
}

#[test]
fn a_reply_too_large_to_be_kept_is_uncertain_and_the_next_one_is_not() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["GETDEL a"]);
    world.send(other, &["INCR b"]);
    suspect(&mut world);
    let link = world.link("m");
    world.wires.get_mut(&link).unwrap().asked.pop_front();
    world.say_raw(link, b"$100000\r\n").unwrap();
    world.say_raw(link, &vec![b'x'; 60_000]).unwrap();
    world.say_raw(link, &vec![b'x'; 40_000]).unwrap();
    assert_eq!(world.heard(client), "");
    world.say_raw(link, b"\r\n").unwrap();
    assert_eq!(world.heard(client), DOUBT);
    world.answer("m", "INCR b", ":1");
    leave(&mut world, Acks::Settled);
    assert_eq!(world.heard(other), ":1|");
    world.assert_calm();
}

#[test]
fn a_reply_of_which_a_part_was_passed_on_is_passed_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GETDEL a"]);
    let link = world.link("m");
    world.wires.get_mut(&link).unwrap().asked.pop_front();
    world.say_raw(link, b"$100000\r\n").unwrap();
    world.say_raw(link, &vec![b'x'; 60_000]).unwrap();
    suspect(&mut world);
    world.say_raw(link, &vec![b'x'; 40_000]).unwrap();
    world.say_raw(link, b"\r\n").unwrap();
    assert_eq!(world.heard(client).len(), "$100000||".len() + 100_000);
    world.assert_calm();
}

#[test]
fn kept_replies_have_a_bound() {
    let mut world = World::new();
    let client = world.client();
    let lines: Vec<_> = (0..200).map(|at| format!("GETDEL k{at}")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    world.send(client, &lines);
    suspect(&mut world);
    let link = world.link("m");
    world.wires.get_mut(&link).unwrap().asked.clear();
    for _ in &lines {
        let reply = format!("${}\r\n{}\r\n", 30_000, "x".repeat(30_000));
        world.say_raw(link, reply.as_bytes()).unwrap();
    }
    leave(&mut world, Acks::Settled);
    let (released, doubted, _) = counted(&mut world);
    assert_eq!(released + doubted, 200);
    assert!((130..140).contains(&released), "{released}");
    world.assert_calm();
}

#[test]
fn a_client_that_leaves_takes_what_was_kept_for_it_along() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "INCR a", "EXEC"]);
    suspect(&mut world);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.answer("m", "EXEC", "*1|:1");
    world.leave(client);
    leave(&mut world, Acks::Settled);
    assert_eq!(counted(&mut world), (0, 0, 0));
    world.assert_calm();
}

#[test]
fn a_worker_that_missed_a_switch_does_not_guess() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR a"]);
    suspect(&mut world);
    world.answer("m", "INCR a", ":1");
    world.picture.acks = Acks::Settled;
    world.publish(Phase::Switching { since: world.now }, Some("r1"));
    assert_eq!(world.heard(client), DOUBT);
    leave(&mut world, Acks::Given);
    world.assert_calm();
}

#[test]
fn a_kept_reply_is_in_doubt_when_all_is_given_up() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    suspect(&mut world);
    world.answer("m", "SET a 1", "+OK");
    world.exchange.stop(world.now);
    world.run();
    assert_eq!(world.heard(client), "");
    world.exchange.abandon_all(world.now);
    world.run();
    assert_eq!(world.heard(client), DOUBT);
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_transaction_that_asks_other_workers_is_kept_back_like_any_other() {
    for (acks, end) in [(Acks::Settled, "*1|$0||"), (Acks::Doubtful, DOUBT)] {
        let settings = Settings {
            workers: 2,
            ..Settings::default()
        };
        let mut world = World::with(Setup {
            settings,
            ..Setup::default()
        });
        let client = world.client();
        world.send(client, &["MULTI", "CLIENT LIST ID 7", "EXEC"]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "CLIENT LIST ?", "+QUEUED");
        world.answer("m", "EXEC", "*1|-ERR syntax error");
        assert_eq!(world.heard(client), "+OK|+QUEUED|");
        suspect(&mut world);
        let answer = Answer::nothing(&world.questions[0]);
        world.exchange.roll_answered(answer, world.now);
        world.run();
        assert_eq!(world.heard(client), "", "{acks:?}");
        leave(&mut world, acks);
        assert_eq!(world.heard(client), end);
        world.assert_calm();
    }
}
