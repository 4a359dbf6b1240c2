//! Floor 1. Replies that are kept back until it is known on which side of the fork they lie.

use std::time::Duration;

use super::world::{A, B, C, Peer, S1, S2, S3, World, addr, leading, master, replica_of, view};
use crate::topology::{
    Acks, FailoverStep, NodeAnswer, NodeRole, Outcome, ReportKind, Source, View,
};
use crate::types::Replication;

const MASTER: &str = "master orders 10.0.0.1 6379";
const CANDIDATE: &str = "slave 10.0.0.2:6379 10.0.0.2 6379 @ orders 10.0.0.1 6379";

fn says(role: NodeRole, replication: Replication) -> Peer<NodeAnswer> {
    Peer::Answers(NodeAnswer {
        role,
        run_id: None,
        replication: Some(replication),
        zone: None,
    })
}

/// The old master at `offset` of its history.
fn master_at(offset: u64) -> Peer<NodeAnswer> {
    let replication = Replication {
        is_master: true,
        id: "old".to_owned(),
        offset,
        ..Replication::default()
    };
    says(NodeRole::Master { offset }, replication)
}

/// A replica of A that has the history of `id` up to `offset`.
fn replica_at(id: &str, offset: u64) -> Peer<NodeAnswer> {
    let replication = Replication {
        id: id.to_owned(),
        offset,
        ..Replication::default()
    };
    let role = NodeRole::Replica {
        master: Some(addr(A)),
        connected: true,
        offset,
    };
    says(role, replication)
}

/// A master that has the old history up to before `left_at`.
fn promoted(left: &str, left_at: u64) -> Peer<NodeAnswer> {
    let replication = Replication {
        is_master: true,
        id: "new".to_owned(),
        offset: left_at + 5,
        left: left.to_owned(),
        left_at: Some(left_at),
    };
    let role = NodeRole::Master {
        offset: left_at + 5,
    };
    says(role, replication)
}

/// What Sentinels say of A with replicas that may be promoted.
fn told() -> View {
    let mut told = view(A, 1, &[B, C]);
    for replica in &mut told.replicas {
        replica.priority = 100;
    }
    told
}

/// A at 1000, B and C with all of it.
fn world() -> World {
    let mut world = World::unstarted();
    world.all_see(&told());
    world.set(A, master_at(1_000));
    world.set(B, replica_at("old", 1_000));
    world.set(C, replica_at("old", 1_000));
    world.run(3_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(acks(&world), Acks::Given);
    world
}

fn acks(world: &World) -> Acks {
    world.snapshot().acks
}

/// A Sentinel begins a commanded failover.
fn begin(world: &mut World) {
    world.sees(S1, leading(told(), FailoverStep::WaitStart, true));
    world.event(S1, "+try-failover", MASTER);
    assert!(world.is_holding());
}

/// B is promoted, as it is now.
fn end(world: &mut World, as_it_is: Peer<NodeAnswer>) -> Outcome {
    world.all_see(&view(B, 2, &[]));
    world.set(B, as_it_is);
    world.event(S1, "+promoted-slave", CANDIDATE);
    world.run_until(1_000, |world| world.writable().as_deref() == Some(B));
    let status = world.machine.status();
    status.incidents.last().unwrap().outcome.clone().unwrap()
}

#[test]
fn replies_are_kept_from_the_hold_on_until_whoever_may_be_chosen_has_everything() {
    let mut world = world();
    // What was in flight at the hold.
    world.set(A, master_at(1_200));
    begin(&mut world);
    assert_eq!(acks(&world), Acks::Kept);
    world.set(B, replica_at("old", 1_200));
    world.run(100);
    assert_eq!(acks(&world), Acks::Kept, "C may be chosen as well");
    world.set(C, replica_at("old", 1_300));
    let took = world.run_until(100, |world| acks(world) == Acks::Settled);
    assert!(took <= 15, "{took} ms");
    let outcome = end(&mut world, promoted("old", 1_201));
    assert_eq!((acks(&world), outcome.forked), (Acks::Settled, Some(0)));
    world.run(20_000);
    assert_eq!(acks(&world), Acks::Settled, "a worker may come late");
}

#[test]
fn a_choice_of_one_sentinel_leaves_the_other_replicas_in() {
    let mut world = world();
    world.set(A, master_at(1_200));
    begin(&mut world);
    world.set(B, replica_at("old", 1_200));
    world.event(S1, "+selected-slave", CANDIDATE);
    world.run(100);
    assert_eq!(acks(&world), Acks::Kept, "another Sentinel may choose C");
    world.set(C, replica_at("old", 1_200));
    world.run(20);
    assert_eq!(acks(&world), Acks::Settled);
}

#[test]
fn a_replica_chosen_before_the_hold_matters_when_it_is_down() {
    let mut world = world();
    world.set(B, promoted("old", 1_001));
    world.set(A, master_at(1_200));
    world.set(C, replica_at("old", 1_200));
    let mut down = told();
    down.replicas[0].flags.disconnected = true;
    world.all_see(&down);
    world.sees(S1, leading(down, FailoverStep::WaitPromotion, true));
    world.event(S1, "+failover-state-wait-promotion", CANDIDATE);
    world.set(B, Peer::Silent);
    world.run(600);
    assert!(world.is_holding());
    assert_eq!(acks(&world), Acks::Kept, "B may have been promoted already");
    let outcome = end(&mut world, promoted("old", 1_001));
    assert_eq!(acks(&world), Acks::Doubtful, "{outcome:?}");
}

#[test]
fn a_replica_that_no_sentinel_lists_any_more_matters_when_it_was_promoted() {
    let mut world = world();
    world.set(A, master_at(1_200));
    world.set(B, promoted("old", 1_001));
    world.set(C, replica_at("old", 1_200));
    let mut wiped = told();
    wiped.replicas.remove(0);
    world.all_see(&wiped);
    world.sees(S1, leading(wiped, FailoverStep::WaitStart, true));
    world.event(S1, "+try-failover", MASTER);
    world.run(600);
    assert!(world.is_holding());
    assert_eq!(acks(&world), Acks::Kept, "B may be the next master");
}

#[test]
fn a_replica_chosen_first_matters_when_another_sentinel_chooses_another_one() {
    let mut world = world();
    world.set(A, master_at(1_200));
    begin(&mut world);
    world.event(S1, "+selected-slave", CANDIDATE);
    world.set(C, replica_at("old", 1_200));
    let other = "slave 10.0.0.3:6379 10.0.0.3 6379 @ orders 10.0.0.1 6379";
    world.event(S2, "+selected-slave", other);
    world.run(100);
    assert_eq!(acks(&world), Acks::Kept, "B may have been promoted already");
    let outcome = end(&mut world, promoted("old", 1_001));
    assert_eq!((acks(&world), outcome.forked), (Acks::Doubtful, Some(200)));
}

/// What Sentinels say of B, the new master, with C healthy and A without a link.
fn told_of_b() -> View {
    let mut told = view(B, 2, &[A, C]);
    for replica in &mut told.replicas {
        replica.priority = 100;
    }
    told.replicas[0].flags.disconnected = true;
    told
}

/// A Sentinel begins a commanded failover of B, and C has all of it.
fn begin_with_b(world: &mut World, told: View) {
    assert_eq!(world.writable().as_deref(), Some(B));
    world.set(B, master_at(1_200));
    world.set(C, replica_at("old", 1_200));
    world.sees(S1, leading(told, FailoverStep::WaitStart, true));
    world.event(S1, "+try-failover", "master orders 10.0.0.2 6379");
}

#[test]
fn an_old_master_that_was_only_seen_frozen_may_win_the_next_failover() {
    let mut world = World::unstarted();
    world.all_see(&told());
    world.set(A, Peer::Silent);
    // For longer than a failover lasts: it is still named.
    world.run(200_000);
    assert_eq!(world.writable(), None);
    world.all_see(&told_of_b());
    world.set(B, master_at(1_000));
    world.set(C, replica_at("old", 1_000));
    world.run_until(5_000, |world| world.writable().is_some());
    begin_with_b(&mut world, told_of_b());
    world.run(600);
    assert_eq!(acks(&world), Acks::Kept, "A may thaw and be chosen");
    world.all_see(&view(A, 3, &[]));
    world.set(A, promoted("older", 900));
    let of_a = "slave 10.0.0.1:6379 10.0.0.1 6379 @ orders 10.0.0.2 6379";
    world.event(S1, "+promoted-slave", of_a);
    world.run_until(1_000, |world| world.writable().as_deref() == Some(A));
    assert_eq!(acks(&world), Acks::Doubtful);
}

#[test]
fn a_replica_first_heard_of_as_dead_may_have_been_chosen_before() {
    let mut world = World::unstarted();
    world.all_see(&told_of_b());
    world.set(A, Peer::Silent);
    world.set(B, master_at(1_000));
    world.set(C, replica_at("old", 1_000));
    world.run(3_000);
    begin_with_b(&mut world, told_of_b());
    world.run(600);
    assert_eq!(acks(&world), Acks::Kept);
    world.set(A, replica_at("old", 1_200));
    world.run_until(1_000, |world| acks(world) == Acks::Settled);
}

#[test]
fn a_replica_that_was_never_seen_alive_keeps_nothing_back_for_ever() {
    let mut world = World::unstarted();
    world.all_see(&told_of_b());
    world.set(A, Peer::Refuses);
    world.set(B, master_at(1_000));
    world.set(C, replica_at("old", 1_000));
    world.run(181_000);
    begin_with_b(&mut world, told_of_b());
    let took = world.run_until(100, |world| acks(world) == Acks::Settled);
    assert!(took <= 15, "{took} ms");
}

#[test]
fn a_master_that_only_a_sentinel_behind_the_others_names_may_win() {
    let mut world = World::unstarted();
    world.set(B, master_at(1_000));
    world.set(C, replica_at("old", 1_000));
    // The leader of the failover lists the replicas of the old master until it ends.
    let mut leader = told_of_b();
    leader.replicas.remove(0);
    world.all_see(&leader);
    world.sees(S3, told());
    world.set(A, Peer::Silent);
    world.run(1_000);
    begin_with_b(&mut world, leader);
    world.run(600);
    assert_eq!(acks(&world), Acks::Kept, "A will be listed in a moment");
}

#[test]
fn a_replica_of_another_history_has_nothing_of_this_one() {
    let mut world = world();
    world.set(A, master_at(2_000));
    world.set(B, replica_at("other", 9_000));
    begin(&mut world);
    world.event(S1, "+selected-slave", CANDIDATE);
    world.run(500);
    assert_eq!(acks(&world), Acks::Kept);
    let outcome = end(&mut world, promoted("other", 9_001));
    assert_eq!((acks(&world), outcome.forked), (Acks::Doubtful, None));
}

#[test]
fn what_the_new_master_lacks_is_in_doubt_and_what_was_acknowledged_is_counted() {
    let mut world = world();
    world.set(A, master_at(2_000));
    begin(&mut world);
    world.run(1_100);
    assert_eq!(acks(&world), Acks::Kept);
    let outcome = end(&mut world, promoted("old", 1_901));
    assert_eq!((acks(&world), outcome.forked), (Acks::Doubtful, Some(100)));
}

#[test]
fn a_replica_that_catches_up_before_its_promotion_has_everything() {
    let mut world = world();
    world.set(A, master_at(2_000));
    begin(&mut world);
    world.run(1_100);
    assert_eq!(acks(&world), Acks::Kept);
    let outcome = end(&mut world, promoted("old", 2_001));
    assert_eq!((acks(&world), outcome.forked), (Acks::Settled, Some(0)));
}

#[test]
fn the_end_is_measured_after_the_last_worker_became_quiet() {
    let mut world = world();
    world.obedient = false;
    begin(&mut world);
    world.run(50);
    assert_eq!(acks(&world), Acks::Kept);
    let generation = world.snapshot().generation;
    world.report(0, ReportKind::Quiet { generation });
    world.run(50);
    assert_eq!(acks(&world), Acks::Kept);
    // The last reply of the second worker was for a byte that nobody else has.
    world.set(A, master_at(1_001));
    world.report(1, ReportKind::Quiet { generation });
    world.run(300);
    assert_eq!(acks(&world), Acks::Kept);
    world.set(B, replica_at("old", 1_001));
    world.set(C, replica_at("old", 1_001));
    world.run(20);
    assert_eq!(acks(&world), Acks::Settled);
}

#[test]
fn nothing_is_in_doubt_when_the_master_stays() {
    let mut world = world();
    world.set(A, master_at(2_000));
    begin(&mut world);
    world.run(100);
    assert_eq!(acks(&world), Acks::Kept);
    world.all_see(&told());
    world.event(S1, "-failover-abort-slave-timeout", MASTER);
    world.run_until(1_000, |world| world.writable().as_deref() == Some(A));
    assert_eq!(acks(&world), Acks::Given);
}

#[test]
fn a_master_that_dies_before_it_tells_its_end_leaves_doubt() {
    let mut world = world();
    world.obedient = false;
    begin(&mut world);
    world.run(20);
    world.set(A, Peer::Refuses);
    world.node_lost(A);
    let generation = world.snapshot().generation;
    for worker in 0..2 {
        world.report(worker, ReportKind::Quiet { generation });
    }
    world.run(500);
    let outcome = end(&mut world, promoted("old", 1_001));
    assert_eq!((acks(&world), outcome.forked), (Acks::Doubtful, Some(0)));
}

#[test]
fn a_switch_heard_of_late_waits_for_the_end_of_a_master_that_lives() {
    let mut world = world();
    world.all_see(&view(B, 2, &[]));
    world.set(B, promoted("old", 1_001));
    world.event(S2, "+switch-master", "orders 10.0.0.1 6379 10.0.0.2 6379");
    world.run_until(100, |world| world.writable().as_deref() == Some(B));
    assert_eq!(acks(&world), Acks::Settled);
    let kept = |(_, snapshot): &&(_, std::sync::Arc<crate::topology::Snapshot>)| {
        snapshot.acks == Acks::Kept
    };
    assert!(world.snapshots.iter().any(|each| kept(&each)));
}

#[test]
fn a_freeze_keeps_replies_until_the_master_is_proven_again() {
    let mut world = world();
    world.set(A, Peer::Silent);
    world.run_until(3_000, World::is_holding);
    assert_eq!(acks(&world), Acks::Kept);
    world.set(A, master_at(1_000));
    world.run_until(3_000, |world| world.writable().is_some());
    assert_eq!(acks(&world), Acks::Given);
}

#[test]
fn where_nothing_can_be_measured_nothing_is_kept() {
    let mut silent = World::healthy();
    begin(&mut silent);
    silent.run(300);
    assert_eq!(acks(&silent), Acks::Given, "INFO is not answered");

    let mut world = World::new(Source::Static {
        master: addr(A),
        replicas: vec![addr(B)],
    });
    world.set(A, master_at(1_000));
    world.set(B, replica_of(A));
    world.run(2_000);
    world.set(A, Peer::Refuses);
    world.node_lost(A);
    world.run_until(500, World::is_holding);
    assert_eq!(acks(&world), Acks::Given, "nobody is promoted here");
}

#[test]
fn a_hold_by_command_keeps_nothing_until_sentinel_acts() {
    let mut world = world();
    let until = world.now + Duration::from_secs(10);
    world.machine.hold(world.now, until).unwrap();
    world.run(100);
    assert!(world.is_holding());
    assert_eq!(acks(&world), Acks::Given);
    world.event(S3, "+try-failover", MASTER);
    world.run(1);
    assert_eq!(acks(&world), Acks::Settled, "everything was there already");
    world.set(A, master());
}
