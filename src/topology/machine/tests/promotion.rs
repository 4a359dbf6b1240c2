//! Floor 1. Promotions: begun, undone, aborted, claimed.

use super::failover::{CANDIDATE, MASTER, SWITCH, begin_manual};
use super::world::{
    A, B, C, Peer, S1, S2, World, addr, cut_off_replica_of, leading, master, replica_of, view,
};
use crate::topology::{Cause, FailoverStep, NodeAnswer, NodeRole, Note};

const ORDERED: &str = "+failover-state-wait-promotion";

/// S1 leads an automatic failover of A, which is back again, to B, and has told B.
fn order_promotion(world: &mut World) {
    let told = leading(view(A, 1, &[B, C]), FailoverStep::WaitPromotion, false);
    world.sees(S1, told);
    world.event(S1, "+elected-leader", MASTER);
    world.event(S1, "+selected-slave", CANDIDATE);
    world.event(S1, ORDERED, CANDIDATE);
}

#[test]
fn a_promotion_that_another_sentinel_undoes_is_not_waited_for() {
    let mut world = World::healthy();
    order_promotion(&mut world);
    assert!(world.is_holding());
    world.set(B, master());
    world.run(900);
    assert!(world.is_holding());
    world.set(B, cut_off_replica_of(A));
    world.run(500);
    assert!(world.is_holding(), "it has not followed A yet");
    world.set(B, replica_of(A));
    let took = world.run_until(3_000, |world| world.writable().is_some());
    assert!(took <= 500, "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(A));
    world.run(8_000);
    world.event(S1, "-failover-abort-slave-timeout", MASTER);
    world.all_see(&view(A, 1, &[B, C]));
    world.run(5_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.machine.status().switches_abandoned, 1);
}

/// S1's promotion of B was undone, and nothing of its end is heard.
fn undo_promotion(world: &mut World) {
    order_promotion(world);
    world.set(B, master());
    world.run(500);
    world.set(B, replica_of(A));
    world.run_until(3_000, |world| world.writable().is_some());
}

#[test]
fn the_next_failover_is_believed_though_its_beginning_was_missed() {
    let mut world = World::healthy();
    undo_promotion(&mut world);
    world.event(S1, "+failover-state-select-slave", MASTER);
    assert!(world.is_holding(), "by an event");

    let mut world = World::healthy();
    undo_promotion(&mut world);
    let told = leading(view(A, 1, &[B, C]), FailoverStep::SelectReplica, false);
    world.sees(S1, told);
    let took = world.run_until(6_000, World::is_holding);
    assert!(took <= 1_100, "by an answer, after {took} ms");
}

#[test]
fn a_candidate_that_has_not_become_a_master_yet_is_waited_for() {
    let mut world = World::healthy();
    // It was one before it was told: of that it says nothing.
    world.set(B, master());
    world.run(100);
    world.set(B, replica_of(A));
    order_promotion(&mut world);
    world.run(5_000);
    assert!(world.is_holding());
    // What became of an order says nothing of the next one.
    world.set(B, master());
    world.run(500);
    world.set(B, replica_of(A));
    order_promotion(&mut world);
    world.run(5_000);
    assert!(world.is_holding());
    world.fail_over_to_b(2);
    world.event(S1, "+promoted-slave", CANDIDATE);
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_replica_that_becomes_master_is_the_first_sign() {
    let mut world = World::healthy();
    world.set(B, master());
    world.link_lost(B);
    let took = world.run_until(100, World::is_holding);
    assert!(took <= 20, "{took} ms");
    assert_eq!(world.machine.status().cause, Some(Cause::ReplicaPromoted));
    world.run(1_000);
    assert!(world.is_holding());
    world.fail_over_to_b(2);
    world.event(S2, "+switch-master", SWITCH);
    world.run(30);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_replica_that_calls_itself_master_alone_is_turned_down_after_a_while() {
    let mut world = World::healthy();
    world.set(B, master());
    world.link_lost(B);
    world.run(100);
    assert!(world.is_holding());
    let took = world.run_until(10_000, |world| !world.is_holding());
    assert!((4_000..6_000).contains(&took), "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(A));
    assert!(world.notes.contains(&Note::RogueMaster { node: addr(B) }));
    world.run(30_000);
    assert_eq!(world.machine.status().incidents.len(), 1);
    assert_eq!(world.replicas(), [C]);
}

#[test]
fn a_replica_that_restarts_as_a_master_holds_nothing() {
    let mut world = World::healthy();
    let answer = |role, run_id: &str| {
        Peer::Answers(NodeAnswer {
            role,
            run_id: Some(run_id.to_owned()),
            replication: None,
            zone: None,
        })
    };
    let role = NodeRole::Replica {
        master: Some(addr(A)),
        connected: true,
        offset: 1,
    };
    world.set(B, answer(role, "first"));
    world.run(3_000);
    world.set(B, answer(NodeRole::Master { offset: 0 }, "second"));
    world.link_lost(B);
    world.run(20_000);
    assert!(world.machine.status().incidents.is_empty());
    assert_eq!(world.replicas(), [C]);
}

#[test]
fn a_candidate_without_a_new_epoch_is_not_followed() {
    // The leader crashed between promotion and its announcement, and A is dead.
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.event(S1, "+odown", "master orders 10.0.0.1 6379 #quorum 2/2");
    world.event(S1, "+elected-leader", MASTER);
    world.run(200);
    world.set(B, master());
    world.lose_sentinel(S1);
    world.run(60_000);
    assert!(world.is_holding());
    assert!(
        world
            .snapshots
            .iter()
            .all(|(_, it)| it.master == Some(addr(A)))
    );
    // The next attempt of the others.
    world.fail_over_to_b(2);
    world.lose_sentinel(S1);
    world.run(1_200);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn an_aborted_failover_of_a_dead_master_holds_until_the_next_one() {
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.event(S1, "+elected-leader", MASTER);
    world.run(100);
    world.event(S1, "-failover-abort-no-good-slave", MASTER);
    world.run(360_000);
    assert!(world.is_holding());
    assert_eq!(world.machine.status().incidents.len(), 1);
    world.fail_over_to_b(2);
    let took = world.run_until(3_000, |world| world.writable().as_deref() == Some(B));
    assert!(took <= 1_100, "{took} ms");
}

#[test]
fn an_aborted_promotion_goes_on_with_the_old_master_after_its_proof() {
    let mut world = World::healthy();
    begin_manual(&mut world);
    world.run(500);
    assert!(world.is_holding());
    world.event(S1, "-failover-abort-slave-timeout", MASTER);
    world.run(500);
    assert!(
        world.is_holding(),
        "the flag is still up in the leader's answer"
    );
    world.sees(S1, view(A, 1, &[B, C]));
    let took = world.run_until(2_000, |world| world.writable().as_deref() == Some(A));
    assert!(took <= 200, "{took} ms");
    let released = |note: &&Note| matches!(note, Note::Released { .. });
    assert_eq!(world.notes.iter().filter(released).count(), 1);
}

#[test]
fn a_leader_that_vanishes_does_not_hold_for_ever() {
    let mut world = World::healthy();
    begin_manual(&mut world);
    world.run(100);
    world.lose_sentinel(S1);
    world.run(3_000);
    assert!(world.is_holding());
    world.run(4_000);
    assert_eq!(world.writable().as_deref(), Some(A));
}
