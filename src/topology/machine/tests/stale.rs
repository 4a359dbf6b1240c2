//! Floor 1. Sentinels that disagree, lag behind, forget or vanish.

use super::world::{
    A, B, C, Peer, S1, S2, S3, World, addr, cut_off_replica_of, leading, master, view,
};
use crate::topology::{FailoverStep, Note, ReportKind, Source, View};
use crate::types::ConfigEpoch;

const SWITCH: &str = "orders 10.0.0.1 6379 10.0.0.2 6379";

/// B is the master at epoch 2; A still believes to be one.
fn after_a_failover() -> World {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    world.event(S1, "+switch-master", SWITCH);
    world.run(2_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    world
}

#[test]
fn a_sentinel_behind_the_epoch_in_use_is_not_obeyed() {
    let mut world = after_a_failover();
    world.sees(S1, view(A, 1, &[B, C]));
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert_eq!(world.switches(), 1);
}

#[test]
fn the_leader_is_not_misread_while_it_reconfigures_replicas() {
    let mut world = World::healthy();
    world.set(B, master());
    world.sees(
        S1,
        leading(view(B, 2, &[]), FailoverStep::ReconfReplicas, false),
    );
    world.event(
        S1,
        "+promoted-slave",
        "slave b 10.0.0.2 6379 @ orders 10.0.0.1 6379",
    );
    world.run(100);
    assert_eq!(world.writable().as_deref(), Some(B));
    world.run(180_000);
    assert_eq!(
        world.writable().as_deref(),
        Some(B),
        "its flag concerns the past"
    );
    assert_eq!(world.machine.status().incidents.len(), 1);
}

#[test]
fn sentinels_with_wiped_configuration_are_obeyed_only_after_the_escape() {
    let mut world = after_a_failover();
    world.set(B, Peer::Refuses);
    world.all_see(&view(A, 0, &[]));
    world.link_lost(B);
    world.run(25_000);
    assert!(world.is_holding());
    assert_eq!(world.master().as_deref(), Some(B));
    world.run(10_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(0));
    let loud = |note: &&Note| matches!(note, Note::RegressionAccepted { .. });
    assert_eq!(world.notes.iter().filter(loud).count(), 1);
}

#[test]
fn wiped_sentinels_do_not_draw_writes_away_from_a_living_master() {
    let mut world = after_a_failover();
    world.all_see(&view(A, 0, &[]));
    world.run(300_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert!(world.machine.status().view_stale);
    let regressed = |note: &&Note| matches!(note, Note::Regressed { .. });
    assert_eq!(
        world.notes.iter().filter(regressed).count(),
        1,
        "loud, once"
    );
}

#[test]
fn the_same_master_monitored_anew_lowers_the_epoch_after_the_escape() {
    let mut world = after_a_failover();
    world.all_see(&view(B, 0, &[C]));
    world.run(20_000);
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(2));
    world.run(20_000);
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(0));
    assert_eq!(world.writable().as_deref(), Some(B));
    // And the next failover, at epoch 1, is followed.
    world.all_see(&view(C, 1, &[]));
    world.set(C, master());
    world.run(6_000);
    assert_eq!(world.writable().as_deref(), Some(C));
}

#[test]
fn one_wiped_sentinel_of_three_is_no_regression() {
    let mut world = after_a_failover();
    world.sees(S1, view(A, 0, &[]));
    world.run(120_000);
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(2));
    assert!(!world.machine.status().view_stale);
}

#[test]
fn a_group_removed_and_monitored_again_is_served_throughout() {
    let mut world = World::healthy();
    world.all_see(&View::default());
    world.event(S1, "-monitor", "master orders 10.0.0.1 6379");
    world.run(5_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.replicas(), [B, C]);
    world.all_see(&view(A, 0, &[B, C]));
    world.event(S1, "+monitor", "master orders 10.0.0.1 6379 quorum 2");
    world.run(40_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(0));
}

#[test]
fn equal_epochs_with_two_addresses_are_decided_by_majority_and_role() {
    // S1 could not resolve the new host: it keeps the old address with the new epoch.
    let mut world = World::healthy();
    world.sees(S1, view(A, 2, &[]));
    world.event(S1, "+switch-master", SWITCH);
    world.run(100);
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(2));
    world.sees(S2, view(B, 2, &[]));
    world.event(S2, "+switch-master", SWITCH);
    world.set(B, master());
    world.run(500);
    assert_eq!(world.master().as_deref(), Some(A), "one against one");
    world.sees(S3, view(B, 2, &[]));
    world.event(S3, "+switch-master", SWITCH);
    world.run(1_500);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert!(
        world
            .notes
            .iter()
            .any(|note| matches!(note, Note::ViewsDiffer { .. }))
    );
    world.run(30_000);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn one_wiped_sentinel_does_not_move_a_group_that_never_failed_over() {
    let mut world = World::unstarted();
    world.all_see(&view(A, 0, &[B, C]));
    world.run(1_000);
    world.sees(S1, view(C, 0, &[]));
    world.set(C, master());
    world.run(60_000);
    assert!(
        world
            .snapshots
            .iter()
            .all(|(_, it)| it.master != Some(addr(C)))
    );
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn unreachable_sentinels_do_not_stop_a_healthy_master() {
    let mut world = World::healthy();
    for sentinel in [S1, S2, S3] {
        world.lose_sentinel(sentinel);
    }
    world.run(20_000);
    let before = world.questions(S1);
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.replicas(), [B, C]);
    let asked = world.questions(S1) - before;
    assert!(
        (10..=25).contains(&asked),
        "no storm: {asked} questions in a minute"
    );
    assert!(world.machine.status().view_stale);
    let down = |note: &&Note| matches!(note, Note::SentinelDown { .. });
    assert_eq!(
        world.notes.iter().filter(down).count(),
        3,
        "each is told once"
    );
}

#[test]
fn a_master_that_returns_soon_needs_no_sentinel() {
    let mut world = World::healthy();
    for sentinel in [S1, S2, S3] {
        world.lose_sentinel(sentinel);
    }
    world.run(1_000);
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.run(1_500);
    world.set(A, master());
    let took = world.run_until(5_000, |world| world.writable().is_some());
    assert!(took <= 1_000, "{took} ms");
}

#[test]
fn a_master_that_returns_late_without_sentinels_may_be_a_ghost() {
    let mut world = World::healthy();
    for sentinel in [S1, S2, S3] {
        world.lose_sentinel(sentinel);
    }
    world.run(1_000);
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.run(20_000);
    world.set(A, master());
    world.run(25_000);
    assert!(world.is_holding());
    let took = world.run_until(20_000, |world| world.writable().is_some());
    assert!(took <= 10_000, "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn an_isolated_sentinel_beside_the_old_master_keeps_it_until_the_partition_heals() {
    let mut world = World::healthy();
    world.sentinels.insert(addr(S2), Peer::Silent);
    world.sentinels.insert(addr(S3), Peer::Silent);
    world.set(B, Peer::Silent);
    world.set(C, Peer::Silent);
    world.run(30_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert!(world.machine.status().view_stale);
    world.fail_over_to_b(2);
    world.run(6_000);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_tilted_sentinels_address_counts_and_its_down_flags_do_not() {
    let mut world = World::healthy();
    let mut told = view(A, 1, &[B, C]);
    told.tilt = true;
    told.entry.as_mut().unwrap().flags.o_down = true;
    told.replicas
        .iter_mut()
        .for_each(|replica| replica.flags.s_down = true);
    world.all_see(&told);
    world.event(S1, "+tilt", "#tilt mode entered");
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C]);
    assert!(world.machine.status().incidents.is_empty());
    let mut moved = view(B, 2, &[C]);
    moved.tilt = true;
    world.fail_over_to_b(2);
    world.all_see(&moved);
    world.run(6_000);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_master_lost_without_quorum_is_held_and_replicas_serve_old_data() {
    let mut world = World::healthy();
    world.lose_sentinel(S2);
    world.lose_sentinel(S3);
    world.set(A, Peer::Refuses);
    world.set(B, cut_off_replica_of(A));
    world.set(C, cut_off_replica_of(A));
    world.link_lost(A);
    world.event(S1, "+sdown", "master orders 10.0.0.1 6379");
    world.run(600_000);
    assert!(world.is_holding());
    assert_eq!(world.replicas(), [B, C]);
    let before = world.questions(A);
    world.run(60_000);
    assert!(
        world.questions(A) - before <= 65,
        "a long wait is a calm one"
    );
}

#[test]
fn the_same_node_by_name_and_by_address_is_one_master() {
    let mut world = World::new(Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)]));
    world
        .names
        .insert("redis-a".to_owned(), "10.0.0.1".to_owned());
    world.sees(S1, view("redis-a:6379", 1, &[]));
    world.sees(S2, view(A, 1, &[]));
    world.sees(S3, view(A, 1, &[]));
    world.set("redis-a:6379", master());
    world.set(A, master());
    world.run(20_000);
    assert!(world.writable().is_some());
    assert!(world.machine.status().incidents.is_empty());
    assert_eq!(world.machine.status().candidates.len(), 1);
}

#[test]
fn a_switch_announced_by_name_and_by_address_is_one_switch() {
    let mut world = World::healthy();
    world
        .names
        .insert("redis-b".to_owned(), "10.0.0.2".to_owned());
    world.fail_over_to_b(2);
    world.sees(S1, view("redis-b:6379", 2, &[C]));
    world.set("redis-b:6379", master());
    world.event(S1, "+switch-master", "orders 10.0.0.1 6379 redis-b 6379");
    world.run(100);
    world.event(S2, "+switch-master", SWITCH);
    world.run(20_000);
    assert!(
        world
            .writable()
            .is_some_and(|it| it == B || it == "redis-b:6379")
    );
    assert_eq!(world.switches(), 1);
    assert_eq!(world.machine.status().incidents.len(), 1);
    assert_eq!(world.replicas(), [C]);
}

#[test]
fn a_named_master_that_never_proves_itself_does_not_hold_for_ever() {
    let mut world = World::healthy();
    world.sees(S1, view("10.0.0.9:6379", 9, &[]));
    world.run(6_000);
    assert!(world.is_holding());
    world.run(12_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.machine.status().incidents.len(), 1);
    world.set("10.0.0.9:6379", master());
    world.run(3_000);
    assert_eq!(world.writable().as_deref(), Some("10.0.0.9:6379"));
}

#[test]
fn an_address_that_was_left_is_not_returned_to_on_its_own_word() {
    let mut world = after_a_failover();
    world.set(B, Peer::Refuses);
    for sentinel in [S1, S2, S3] {
        world.lose_sentinel(sentinel);
    }
    world.report(0, ReportKind::LinkLost { node: addr(B) });
    world.run(300_000);
    assert!(world.is_holding());
    assert_eq!(world.master().as_deref(), Some(B));
}
