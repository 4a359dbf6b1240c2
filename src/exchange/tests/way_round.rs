//! Floor 4. Tests: Where a read behind a long reply is asked once more, and when nowhere.

use super::detour::{
    PIECES, begin, end, eventual, go_on, line, master_reader, narrow, other_link, reply, times,
};
use super::*;
use crate::consistency::Stamps;
use crate::topology::Acks;

#[test]
fn a_read_behind_a_write_of_its_own_is_asked_of_the_master_again() {
    let mut world = World::new();
    let (client, behind) = (master_reader(&mut world), eventual(&mut world));
    let long = world.link("m");
    world.send(behind, &["SET a 1"]);
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    world.answer("m", "SET a 1", "+OK");
    begin(&mut world, long, PIECES);
    assert_eq!(
        (times(&world, "m", "GET a"), times(&world, "r1", "GET a")),
        (2, 0)
    );
}

#[test]
fn a_master_that_is_being_left_is_asked_nothing_twice() {
    for acks in [Acks::Given, Acks::Kept] {
        let mut world = World::new();
        let (client, behind) = (master_reader(&mut world), master_reader(&mut world));
        let long = world.link("m");
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a"]);
        begin(&mut world, long, PIECES - 1);
        world.picture.acks = acks;
        world.switching();
        go_on(&mut world, long, 1);
        assert_eq!(times(&world, "m", "GET a"), 1);
        end(&mut world, long, client);
        reply(&mut world, long, "$1|A");
        assert_eq!(world.heard(behind), "$1|A|", "{acks:?}");
    }
}

#[test]
fn a_copy_that_a_master_answers_while_replies_are_kept_back_counts_for_nothing() {
    let mut world = World::new();
    let (client, behind) = (master_reader(&mut world), master_reader(&mut world));
    let long = world.link("m");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, long, PIECES);
    let new = other_link(&world, "m", long);
    world.picture.acks = Acks::Kept;
    world.switching();
    reply(&mut world, new, "$3|new");
    assert_eq!(world.heard(behind), "");
    end(&mut world, long, client);
    reply(&mut world, long, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
}

#[test]
fn a_copy_waits_for_nothing_and_is_refused_nothing() {
    // Behind it its client waits at the master for ever.
    let mut world = own_writes(NoReplica::Master);
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a", "XREAD BLOCK 0 STREAMS s 0"]);
    begin(&mut world, long, PIECES);
    end(&mut world, long, client);
    reply(&mut world, long, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");

    // No replica is left, and the master serves none.
    let mut world = own_writes(NoReplica::Error);
    let (client, behind) = (eventual(&mut world), eventual(&mut world));
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, long, PIECES - 1);
    world.switch_to("m", &[]);
    go_on(&mut world, long, 1);
    assert_eq!(world.heard(behind), "");

    // No connection is opened for a while.
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    let until = world.now + ms(1_000);
    for node in &mut world.exchange.groups[0].nodes {
        node.open_at = Some(until);
    }
    begin(&mut world, long, PIECES);
    assert_eq!(
        (times(&world, "r1", "GET a"), times(&world, "m", "GET a")),
        (1, 0)
    );
    world.exchange.stop(world.now);
    world.run();
    end(&mut world, long, client);
    reply(&mut world, long, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
}

#[test]
fn nothing_is_asked_twice_when_it_all_ends() {
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, long, PIECES - 1);
    world.exchange.stop(world.now);
    world.run();
    go_on(&mut world, long, 1);
    assert_eq!(world.links("r1"), [long]);
}

/// A world that keeps account of writes, where a key was written and the replica has that.
fn own_writes(no_replica: NoReplica) -> World {
    let stamps = Arc::new(Stamps::new(1 << 16, 11));
    let mut world = World::with(Setup {
        group: GroupSettings {
            stamps: Some(Arc::clone(&stamps)),
            no_replica,
            ..Setup::default().group
        },
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["SET a 0"]);
    world.answer("m", "SET a 0", "+OK");
    let settled = stamps.node(&addr("r1"));
    let generation = stamps.generation();
    stamps.advance();
    assert!(settled.publish(settled.incarnation(), generation));
    world.leave(client);
    world
}

#[test]
fn what_must_see_a_write_is_asked_of_the_master_too_if_that_may_serve_it() {
    for (no_replica, asked) in [(NoReplica::Master, 1), (NoReplica::Error, 0)] {
        let mut world = own_writes(no_replica);
        let (client, behind) = (world.client(), world.client());
        let long = world.link("r1");
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a"]);
        assert_eq!(world.asked("r1"), ["GET big", "GET a"]);
        begin(&mut world, long, PIECES);
        assert_eq!(world.links("r1"), [long], "a new link might lead elsewhere");
        assert_eq!(times(&world, "m", "GET a"), asked);
        if asked == 1 {
            world.answer("m", "GET a", "$1|0");
            assert_eq!(world.heard(behind), "$1|0|");
        }
        end(&mut world, long, client);
        reply(&mut world, long, "$1|0");
        assert_eq!(world.heard(behind).is_empty(), asked == 1);
        world.assert_calm();
    }
}

#[test]
fn the_oldest_of_a_link_that_another_client_stalls_is_asked_twice_too() {
    let mut world = narrow();
    let (behind, slow) = (master_reader(&mut world), eventual(&mut world));
    world.deaf.push(slow);
    let lane = world.link("m");
    world.send(behind, &["GET a"]);
    world.send(slow, &["GET big", "SET b 1"]);
    assert_eq!(world.asked("m"), ["GET a", "SET b 1"]);
    world.answer("r1", "GET big", &line());
    assert!(world.exchange.is_throttled(lane));
    let new = other_link(&world, "m", lane);
    reply(&mut world, new, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
}

#[test]
fn what_waits_for_its_own_client_is_not_asked_twice() {
    let mut world = narrow();
    let (first, slow) = (world.client(), world.client());
    world.deaf.push(slow);
    world.send(first, &["GET x"]);
    world.send(slow, &["DBSIZE", "GET a"]);
    world.answer("m", "DBSIZE", &line());
    assert_eq!(times(&world, "r1", "GET a"), 1);
    assert_eq!(times(&world, "r1", "GET x"), 2);
}

#[test]
fn scripts_are_not_asked_twice() {
    let mut world = World::new();
    let (client, behind) = (master_reader(&mut world), master_reader(&mut world));
    let long = world.link("m");
    world.send(client, &["GET big"]);
    world.send(behind, &["EVAL_RO x 0"]);
    begin(&mut world, long, PIECES);
    assert_eq!(times(&world, "m", "EVAL_RO x 0"), 1);
}

#[test]
fn reads_that_the_master_serves_for_want_of_replicas_are_asked_twice_within_their_limit() {
    let mut world = World::with(Setup {
        group: GroupSettings {
            readers: ReaderSettings {
                fallback: Some(1),
                ..ReaderSettings::default()
            },
            ..Setup::default().group
        },
        replicas: Vec::new(),
        ..Setup::default()
    });
    let (client, behind) = (master_reader(&mut world), world.client());
    let long = world.link("m");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, long, PIECES);
    assert_eq!(times(&world, "m", "GET a"), 2);
    assert_eq!(world.heard(behind), "", "no error");
}
