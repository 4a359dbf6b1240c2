//! Floor 4. Tests: Reads that a replica is late with are asked of another one too.

use super::*;
use crate::telemetry::{Counts, HedgeOutcome, Latency, Target};

/// Two replicas, and so many reads answered that it is known which are late: those that take 1 ms.
/// As many as 20 may be sent twice.
fn hedging(reads: usize) -> World {
    let mut world = World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        group: GroupSettings {
            hedge_reads: true,
            ..Setup::default().group
        },
        ..Setup::default()
    });
    let client = world.client();
    for _ in 0..reads {
        world.send(client, &["GET x"]);
        world.answer_all("r1");
        world.answer_all("r2");
    }
    world.heard(client);
    publish(&mut world);
    world.pass(ms(1_000));
    world
}

/// What is counted is published, and the times that reads took are forgotten with it.
fn publish(world: &mut World) -> &mut Counts {
    let counts = world.exchange.counts(0).unwrap();
    *counts.upstream_duration(Target::Replica) = Latency::default();
    counts
}

/// The time passes in which a read becomes late, and a look is taken.
fn late(world: &mut World) {
    world.now = world.now + ms(2);
    world.exchange.tick(world.now);
    world.run();
}

/// The replica that was asked something, and the other one.
fn asked_first(world: &World) -> (&'static str, &'static str) {
    if world.asked("r1").is_empty() {
        ("r2", "r1")
    } else {
        ("r1", "r2")
    }
}

/// Reads sent twice, those won by the second, and those that were too many.
fn counted(world: &mut World) -> [u64; 3] {
    use HedgeOutcome::{Sent, Skipped, Won};
    let counts = publish(world);
    [Sent, Won, Skipped].map(|outcome| counts.hedges(outcome))
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_late_read_is_asked_of_the_other_replica_and_its_first_answer_counts() {
    for second_wins in [true, false] {
        let mut world = hedging(100);
        let client = world.client();
        world.send(client, &["GET a"]);
        let (one, other) = asked_first(&world);
        world.exchange.tick(world.now);
        assert_eq!(world.asked(other), nothing(), "it is not late yet");
        late(&mut world);
        assert_eq!(world.asked(other), ["GET a"]);
        late(&mut world);
        assert_eq!(world.asked(other), ["GET a"], "once");
        let (winner, loser) = if second_wins {
            (other, one)
        } else {
            (one, other)
        };
        world.answer(winner, "GET a", "$1|1");
        assert_eq!(world.heard(client), "$1|1|");
        world.send(client, &["GET b"]);
        let at = if world.asked(winner) == ["GET b"] {
            winner
        } else {
            loser
        };
        if second_wins {
            assert_eq!(at, winner, "it does not follow the late one");
        }
        world.answer(loser, "GET a", "$1|2");
        assert_eq!(world.heard(client), "", "the later answer is dropped");
        world.answer(at, "GET b", "$1|3");
        assert_eq!(world.heard(client), "$1|3|");
        assert_eq!(counted(&mut world), [1, u64::from(second_wins), 0]);
        world.assert_calm();
    }
}

#[test]
fn without_the_setting_or_enough_reads_nothing_is_late() {
    let mut off = World::with(Setup {
        replicas: vec![addr("r1"), addr("r2")],
        ..Setup::default()
    });
    let client = off.client();
    off.send(client, &["GET a"]);
    assert_eq!(off.exchange.poll_timeout(off.now), Some(off.now + ms(50)));
    assert!(!off.exchange.hurries());
    for mut world in [off, hedging(19)] {
        let client = world.client();
        world.send(client, &["GET a"]);
        late(&mut world);
        late(&mut world);
        let asked = [world.asked("r1"), world.asked("r2")].concat();
        assert!(asked.iter().all(|it| it == "GET a"));
        assert_eq!(counted(&mut world), [0, 0, 0]);
    }
}

#[test]
fn at_most_one_read_in_twenty_is_sent_twice() {
    let mut world = hedging(100);
    let clients: Vec<_> = (0..40).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["GET a"]);
    }
    late(&mut world);
    assert_eq!(counted(&mut world)[0], 5, "a hundred were answered");
    assert_eq!(counted(&mut world)[2], 35);
    late(&mut world);
    assert_eq!(counted(&mut world)[2], 35, "each is counted once");
    world.answer_all("r1");
    world.answer_all("r2");
    for client in clients {
        assert_eq!(world.heard(client), "+OK|");
    }
    world.assert_calm();
}

#[test]
fn what_is_left_of_two_goes_on_alone_when_the_other_is_lost() {
    for lose_second in [true, false] {
        let mut world = hedging(100);
        let client = world.client();
        world.send(client, &["GET a"]);
        let (one, other) = asked_first(&world);
        late(&mut world);
        let (lost, left) = if lose_second {
            (other, one)
        } else {
            (one, other)
        };
        world.lose_node(lost);
        assert_eq!(world.asked(lost), nothing(), "it is not sent a third time");
        assert_eq!(world.asked(left), ["GET a"]);
        // Alone it is what it was: lost in turn, it is asked anew.
        world.lose_node(left);
        let asked = [world.asked(one), world.asked(other)].concat();
        assert_eq!(asked, ["GET a"]);
        world.answer_all(one);
        world.answer_all(other);
        assert_eq!(world.heard(client), "+OK|");
        world.assert_calm();
    }
}

#[test]
fn a_link_lost_after_the_answer_answers_nobody() {
    let mut world = hedging(100);
    let client = world.client();
    world.send(client, &["GET a"]);
    let (one, other) = asked_first(&world);
    late(&mut world);
    world.answer(other, "GET a", "$1|1");
    world.lose_node(one);
    assert_eq!(world.heard(client), "$1|1|");
    assert_eq!([world.asked(one), world.asked(other)].concat(), nothing());
    world.assert_calm();
}

#[test]
fn a_replica_that_cannot_serve_a_read_leaves_it_to_the_other() {
    let mut world = hedging(100);
    let client = world.client();
    world.send(client, &["GET a"]);
    let (one, other) = asked_first(&world);
    late(&mut world);
    world.answer(
        other,
        "GET a",
        "-LOADING Redis is loading the dataset in memory",
    );
    assert_eq!(world.heard(client), "");
    world.answer(one, "GET a", "-ERR its own");
    assert_eq!(world.heard(client), "-ERR its own|");
    world.assert_calm();
}

#[test]
fn replies_stay_in_order_and_a_client_that_left_hears_nothing() {
    let mut world = hedging(100);
    let (client, gone) = (world.client(), world.client());
    world.send(gone, &["GET z"]);
    world.answer_all("r1");
    world.answer_all("r2");
    world.send(client, &["GET a", "GET b", "GET c"]);
    let (one, other) = asked_first(&world);
    late(&mut world);
    assert_eq!(world.asked(other), ["GET a", "GET b", "GET c"]);
    world.answer(other, "GET a", "$1|a");
    world.answer(one, "GET a", "$1|x");
    world.answer(one, "GET b", "$1|b");
    world.answer(other, "GET b", "$1|x");
    world.answer(other, "GET c", "$1|c");
    world.answer(one, "GET c", "$1|x");
    assert_eq!(world.heard(client), "$1|a|$1|b|$1|c|");
    world.send(gone, &["GET d"]);
    late(&mut world);
    world.leave(gone);
    world.answer_all("r1");
    world.answer_all("r2");
    world.assert_calm();
}

#[test]
fn a_read_with_a_write_behind_it_is_not_asked_again() {
    let mut world = hedging(100);
    let client = world.client();
    world.send(client, &["GET a", "SET b 1"]);
    let (one, other) = asked_first(&world);
    late(&mut world);
    assert_eq!(world.asked(other), nothing());
    world.answer(one, "GET a", "$1|0");
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(client), "$1|0|+OK|");
    world.assert_calm();
}

#[test]
fn the_first_read_after_a_rest_makes_who_keeps_time_hurry() {
    let mut world = hedging(100);
    world.exchange.tick(world.now);
    let client = world.client();
    assert!(!world.exchange.hurries());
    world.send(client, &["GET a"]);
    assert!(world.exchange.hurries());
    assert_eq!(
        world.exchange.poll_timeout(world.now),
        Some(world.now + ms(1))
    );
    world.exchange.tick(world.now);
    assert!(!world.exchange.hurries(), "it does already");
    world.answer_all("r1");
    world.answer_all("r2");
}

#[test]
fn a_long_answer_is_passed_on_while_it_comes_and_not_kept() {
    for second_wins in [true, false] {
        let mut world = hedging(100);
        let client = world.client();
        world.send(client, &["GET a"]);
        let (one, other) = asked_first(&world);
        late(&mut world);
        let (winner, loser) = if second_wins {
            (other, one)
        } else {
            (one, other)
        };
        let reply = format!("$1000000\r\n{}\r\n", "x".repeat(1_000_000));
        for host in [winner, loser] {
            let link = world.asked_on(host, "GET a");
            world.wires.get_mut(&link).unwrap().asked.clear();
            for piece in reply.as_bytes().chunks(50_000) {
                world.say_raw(link, piece).unwrap();
                let kept = world.exchange.links.get(link).unwrap().input.len();
                assert!(kept < 100_000, "{kept}");
            }
            let heard = world.heard(client).len();
            let want = if host == winner { 1_000_010 } else { 0 };
            assert_eq!(heard, want, "second wins: {second_wins}, {host}");
        }
        assert_eq!(counted(&mut world)[1], u64::from(second_wins));
        world.assert_calm();
    }
}

#[test]
fn a_long_answer_that_is_lost_in_the_middle_ends_its_client() {
    let mut world = hedging(100);
    let client = world.client();
    world.send(client, &["GET a"]);
    let (one, other) = asked_first(&world);
    late(&mut world);
    let link = world.asked_on(other, "GET a");
    world.say_raw(link, b"$1000000\r\n").unwrap();
    for _ in 0..5 {
        world.say_raw(link, &vec![b'x'; 50_000]).unwrap();
    }
    world.lose_node(other);
    assert!(world.is_closed(client), "half a reply cannot be taken back");
    world.answer(one, "GET a", "$1|x");
    world.assert_calm();
}
