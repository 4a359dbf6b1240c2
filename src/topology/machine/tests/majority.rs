//! Floor 1. Strict quorum: no writes without a majority of the Sentinels.

use std::time::Duration;

use super::world::{
    A, B, C, Peer, S1, S2, S3, World, addr, master, replica_of, sentinel_entry, settings, view,
};
use crate::topology::{Cause, Note, Phase, Source, View, Waiting};

/// For how long a majority may be missing.
const STRICT: u64 = 3_000;
/// Time in which a Sentinel that is gone is found out, when nothing else happens.
const NOTICED: u64 = 6_000;

fn strict(source: Source) -> World {
    let mut settings = settings(source);
    settings.strict_quorum = Some(Duration::from_millis(STRICT));
    let mut world = World::with(settings);
    world.set(A, master());
    world.set(B, replica_of(A));
    world.set(C, replica_of(A));
    world
}

/// Three Sentinels that name A, all of it healthy.
fn healthy() -> World {
    let mut world = strict(Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)]));
    world.all_see(&view(A, 1, &[B, C]));
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    world
}

fn answering(world: &World) -> (usize, usize) {
    let majority = world.machine.status().majority.unwrap();
    (majority.answering, majority.known)
}

#[test]
fn writes_are_held_without_a_majority_and_go_on_with_one() {
    let mut world = healthy();
    world.lose_sentinel(S2);
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(A), "two of three answer");
    assert_eq!(answering(&world), (2, 3));
    world.lose_sentinel(S3);
    let noticed = world.run_until(NOTICED, |world| answering(world) == (1, 3));
    assert!(!world.is_holding(), "after {noticed} ms");
    let took = world.run_until(STRICT + 500, World::is_holding);
    assert!(took.abs_diff(STRICT) <= 10, "{took} ms");
    assert!(world.snapshot().no_majority);
    assert_eq!(world.replicas(), [B, C], "reads go on");
    let status = world.machine.status();
    assert_eq!(status.cause, Some(Cause::NoMajority));
    let (answering, known) = (1, 3);
    assert_eq!(status.waiting, Some(Waiting::Majority { answering, known }));
    world.run(600_000);
    assert!(world.is_holding());

    world.sees(S2, view(A, 1, &[B, C]));
    let took = world.run_until(3_000, |world| world.writable().is_some());
    assert!(took <= 2_000, "{took} ms");
    assert!(!world.snapshot().no_majority);
    assert_eq!(world.machine.status().switches_abandoned, 1);
    let told = |note: &&Note| matches!(note, Note::MajorityLost { .. } | Note::MajorityBack { .. });
    assert_eq!(world.notes.iter().filter(told).count(), 2);
}

#[test]
fn a_majority_that_returns_in_time_was_never_missed() {
    let mut world = healthy();
    for _ in 0..10 {
        world.lose_sentinel(S1);
        world.lose_sentinel(S3);
        world.run_until(NOTICED, |world| answering(world) == (1, 3));
        world.run(STRICT - 1_500);
        world.all_see(&view(A, 1, &[B, C]));
        world.run_until(1_400, |world| answering(world) == (3, 3));
    }
    assert!(world.machine.status().incidents.is_empty());
}

#[test]
fn the_master_proves_itself_again_after_the_majority_is_back() {
    let mut world = healthy();
    world.lose_sentinel(S2);
    world.lose_sentinel(S3);
    world.run(NOTICED + STRICT);
    assert!(world.is_holding());
    world.set(A, Peer::Silent);
    world.all_see(&view(A, 1, &[B, C]));
    world.run(10_000);
    assert!(world.is_holding());
    assert!(
        !world.snapshot().no_majority,
        "the master is what it waits for"
    );
    world.set(A, master());
    let took = world.run_until(3_000, |world| world.writable().is_some());
    assert!(took <= 1_500, "{took} ms");
}

#[test]
fn what_the_others_decided_meanwhile_is_followed_when_they_are_heard() {
    let mut world = healthy();
    world.lose_sentinel(S2);
    world.lose_sentinel(S3);
    world.run(NOTICED + STRICT);
    assert!(world.is_holding());
    // Even the one that is heard does not move writes without the others.
    world.fail_over_to_b(2);
    world.lose_sentinel(S2);
    world.lose_sentinel(S3);
    world.run(20_000);
    assert!(world.is_holding());
    assert_eq!(world.master().as_deref(), Some(A));
    world.fail_over_to_b(2);
    world.run_until(3_000, |world| world.writable().as_deref() == Some(B));
    assert_eq!(world.switches(), 1);
}

#[test]
fn without_a_majority_no_first_master_is_taken() {
    let mut world = strict(Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)]));
    world.sees(S1, view(A, 1, &[B, C]));
    world.run(60_000);
    assert_eq!(world.snapshot().phase, Phase::Unknown);
    assert!(world.snapshot().no_majority);
    world.sees(S2, view(A, 1, &[B, C]));
    world.run(3_000);
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn a_reset_takes_no_majority_away() {
    let seeds = vec![addr(S1)];
    let mut world = strict(Source::Sentinels(seeds));
    let mut told = view(A, 1, &[B, C]);
    told.sentinels = vec![sentinel_entry(S2, "two"), sentinel_entry(S3, "three")];
    world.sees(S1, told);
    for (sentinel, id) in [(S2, "two"), (S3, "three")] {
        let mut told = view(A, 1, &[B, C]);
        told.id = Some(id.to_owned());
        world.sees(sentinel, told);
    }
    world.run(3_000);
    assert_eq!(answering(&world), (3, 3));
    // Nobody lists anybody any more, for a while.
    world.all_see(&view(A, 1, &[]));
    world.event(S1, "+reset-master", "master orders 10.0.0.1 6379");
    world.run(30_000);
    assert_eq!(answering(&world), (3, 3));
    // And the dead ones count as long as they are known.
    world.lose_sentinel(S2);
    world.lose_sentinel(S3);
    world.run(NOTICED + STRICT);
    assert!(world.is_holding());
}

#[test]
fn a_sentinel_with_a_second_address_counts_once() {
    let mut world = strict(Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)]));
    let everybody = [
        sentinel_entry("172.17.0.1:26379", "one"),
        sentinel_entry("172.17.0.2:26379", "two"),
        sentinel_entry("172.17.0.3:26379", "three"),
    ];
    for (sentinel, id) in [(S1, "one"), (S2, "two"), (S3, "three")] {
        let mut told = view(A, 1, &[B, C]);
        told.id = Some(id.to_owned());
        told.sentinels = everybody.to_vec();
        world.sees(sentinel, told);
    }
    world.run(1_000);
    world.lose_sentinel(S3);
    world.run(60_000);
    assert_eq!(
        answering(&world),
        (2, 3),
        "announced where nobody reaches them"
    );
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn sentinels_that_do_not_know_the_name_have_no_say() {
    let mut world = healthy();
    world.sees(S2, View::default());
    world.sees(S3, View::default());
    world.run(NOTICED + STRICT);
    assert!(world.is_holding());
    assert_eq!(answering(&world), (1, 3));
}

#[test]
fn a_quorum_is_not_strict_by_itself_and_never_without_sentinels() {
    let mut world = World::healthy();
    for sentinel in [S1, S2, S3] {
        world.lose_sentinel(sentinel);
    }
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    let majority = world.machine.status().majority.unwrap();
    assert!(!majority.is_reached() && majority.strict.is_none());

    let master = addr(A);
    let mut fixed = strict(Source::Static {
        master,
        replicas: vec![addr(B)],
    });
    fixed.run(60_000);
    assert_eq!(fixed.writable().as_deref(), Some(A));
    assert_eq!(fixed.machine.status().majority, None);
}
