//! Floor 1. Holding, switching, and going on with the old master.

use super::world::{
    A, B, C, Peer, S1, S2, S3, World, addr, cut_off_replica_of, healthy, leading, master,
    replica_of, view,
};
use crate::topology::{
    Cause, FailoverStep, Flags, Note, Phase, ReportKind, Source, Subscription, Witness,
};
use crate::types::{ConfigEpoch, Generation};

pub(super) const MASTER: &str = "master orders 10.0.0.1 6379";
pub(super) const CANDIDATE: &str = "slave 10.0.0.2:6379 10.0.0.2 6379 @ orders 10.0.0.1 6379";
pub(super) const SWITCH: &str = "orders 10.0.0.1 6379 10.0.0.2 6379";

/// The commanded Sentinel S1 begins; A stays alive and writable, as in life.
pub(super) fn begin_manual(world: &mut World) {
    let told = leading(view(A, 1, &[B, C]), FailoverStep::WaitStart, true);
    world.sees(S1, told);
    world.event(S1, "+try-failover", MASTER);
}

#[test]
fn a_manual_failover_holds_at_its_first_event_and_ends_on_the_new_master() {
    let mut world = World::healthy();
    begin_manual(&mut world);
    assert!(world.is_holding(), "before any answer");
    assert_eq!(world.master().as_deref(), Some(A));
    world.event(S1, "+elected-leader", MASTER);
    world.event(S1, "+selected-slave", CANDIDATE);
    world.run(1_000);
    assert!(world.is_holding(), "A answers as a master all the time");
    // The leader has seen the promotion; the observers have not.
    let mut told = leading(view(B, 2, &[]), FailoverStep::ReconfReplicas, true);
    told.replicas = vec![healthy(C, A)];
    world.sees(S1, told);
    world.set(B, master());
    world.event(S1, "+promoted-slave", CANDIDATE);
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 20, "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(B));
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(2));
    assert_eq!(world.replicas(), Vec::<String>::new(), "C still follows A");
    // The tail: observers, then the leader's own word, last of all.
    world.fail_over_to_b(2);
    world.event(S2, "+switch-master", SWITCH);
    world.event(S3, "+switch-master", SWITCH);
    world.run(1_000);
    world.event(S1, "+switch-master", SWITCH);
    world.run(20_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert_eq!(world.replicas(), [C]);
    assert_eq!(world.switches(), 1);
    let status = world.machine.status();
    assert_eq!(
        (status.switches_completed, status.switches_abandoned),
        (1, 0)
    );
    let incident = status.incidents.first().unwrap();
    assert_eq!(incident.cause, Cause::ManualFailover);
    assert!(
        incident
            .outcome
            .as_ref()
            .is_some_and(|outcome| outcome.to == addr(B))
    );
    let said = |mark: &&crate::topology::Mark| mark.what.starts_with("+try-failover");
    let first = incident.marks.iter().find(said).unwrap();
    assert_eq!(
        (incident.offset_ms(first), &first.who),
        (0, &Witness::Sentinel(addr(S1)))
    );
}

#[test]
fn one_switch_told_by_everybody_is_one_switch() {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    for sentinel in [S1, S2, S3] {
        world.event(sentinel, "+switch-master", SWITCH);
    }
    world.run(100);
    for sentinel in [S3, S2, S1] {
        world.event(sentinel, "+switch-master", SWITCH);
        world.run(30);
    }
    world.run(10_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert_eq!(world.switches(), 1);
    assert_eq!(world.machine.status().incidents.len(), 1);
}

#[test]
fn a_failover_without_any_event_is_found_by_asking() {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    let took = world.run_until(10_000, |world| world.writable().as_deref() == Some(B));
    assert!(took <= 5_300, "{took} ms");
}

#[test]
fn a_failover_is_found_by_its_flag_when_the_leader_is_not_heard() {
    let mut world = World::healthy();
    world.sees(
        S1,
        leading(view(A, 1, &[B, C]), FailoverStep::WaitStart, true),
    );
    world.run(5_100);
    assert!(world.is_holding());
    assert_eq!(world.machine.status().cause, Some(Cause::ManualFailover));
}

#[test]
fn a_switch_missed_while_the_subscription_was_down_is_found_when_it_is_up() {
    let mut world = World::healthy();
    world.subscription(
        S1,
        Subscription::Lost {
            why: "EOF".to_owned(),
        },
    );
    world.run(100);
    world.fail_over_to_b(2);
    world.subscription(S1, Subscription::On);
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(B));
    assert!(took <= 200, "{took} ms");
}

#[test]
fn a_switch_of_another_master_changes_nothing() {
    let mut world = World::healthy();
    let before = world.snapshots.len();
    world.event(S1, "+switch-master", "other 10.0.0.1 6379 10.0.0.2 6379");
    world.event(S1, "+try-failover", "master other 10.0.0.1 6379");
    world.run(1_000);
    assert_eq!(world.snapshots.len(), before);
}

#[test]
fn the_address_is_never_taken_from_an_event() {
    let mut world = World::healthy();
    world.set(B, master());
    world.event(S1, "+switch-master", SWITCH);
    world.run(4_000);
    assert!(
        world
            .snapshots
            .iter()
            .all(|(_, it)| it.master == Some(addr(A)))
    );
}

#[test]
fn our_own_connection_to_an_idle_master_is_enough_to_notice_its_death() {
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.node_lost(A);
    let took = world.run_until(100, World::is_holding);
    assert!(took <= 20, "{took} ms");
}

#[test]
fn an_election_under_a_living_master_holds_only_when_it_is_won() {
    let mut world = World::healthy();
    for sentinel in [S1, S2] {
        world.event(sentinel, "+sdown", MASTER);
        world.event(
            sentinel,
            "+odown",
            "master orders 10.0.0.1 6379 #quorum 2/2",
        );
    }
    let mut told = leading(view(A, 1, &[B, C]), FailoverStep::WaitStart, false);
    told.entry.as_mut().unwrap().flags.o_down = true;
    world.sees(S1, told.clone());
    world.event(S1, "+try-failover", MASTER);
    world.run(3_000);
    assert!(
        !world.is_holding(),
        "the election may still fail, and A answers"
    );
    told.entry.as_mut().unwrap().failover = FailoverStep::SelectReplica;
    world.sees(S1, told);
    world.event(S1, "+elected-leader", MASTER);
    assert!(world.is_holding());
    assert_eq!(world.machine.status().cause, Some(Cause::AutomaticFailover));
}

#[test]
fn an_election_that_fails_under_a_living_master_is_not_felt() {
    let mut world = World::healthy();
    world.event(S1, "+odown", "master orders 10.0.0.1 6379 #quorum 2/2");
    world.event(S1, "+try-failover", MASTER);
    world.run(1_000);
    world.event(S1, "-failover-abort-not-elected", MASTER);
    world.run(10_000);
    assert!(world.machine.status().incidents.is_empty());
}

#[test]
fn one_sentinels_private_opinion_holds_nothing() {
    let mut world = World::healthy();
    world.event(S1, "+sdown", MASTER);
    let mut told = view(A, 1, &[B, C]);
    told.entry.as_mut().unwrap().flags = Flags {
        s_down: true,
        ..Flags::default()
    };
    world.sees(S1, told);
    world.run(20_000);
    assert!(world.machine.status().incidents.is_empty());
    assert!(
        world
            .machine
            .status()
            .sentinels
            .iter()
            .any(|sentinel| sentinel.s_down)
    );
}

#[test]
fn a_crashed_master_is_held_at_once_and_replaced_when_sentinel_says_so() {
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.set(B, cut_off_replica_of(A));
    world.set(C, cut_off_replica_of(A));
    world.link_lost(A);
    let took = world.run_until(100, World::is_holding);
    assert!(took <= 20, "{took} ms");
    assert_eq!(world.machine.status().cause, Some(Cause::MasterLost));
    world.run(4_000);
    assert_eq!(
        world.replicas(),
        [B, C],
        "they are all there is to read from"
    );
    let told = leading(view(A, 1, &[]), FailoverStep::WaitPromotion, false);
    world.sees(S1, told);
    world.event(S1, "+elected-leader", MASTER);
    world.run(300);
    world.fail_over_to_b(2);
    world.event(S1, "+promoted-slave", CANDIDATE);
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(B));
    assert!(took <= 20, "{took} ms");
}

#[test]
fn a_lost_connection_to_a_living_master_is_no_outage() {
    let mut world = World::healthy();
    for worker in 0..2 {
        world.report(worker, ReportKind::LinkLost { node: addr(A) });
        world.report(worker, ReportKind::ConnectFailed { node: addr(A) });
    }
    world.run(1_000);
    assert!(world.machine.status().incidents.is_empty());
}

#[test]
fn a_master_that_returns_before_anybody_noticed_is_gone_on_with() {
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.run(1_000);
    assert!(world.is_holding());
    world.set(A, master());
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(A));
    assert!(took <= 200, "{took} ms");
    assert_eq!(world.machine.status().switches_abandoned, 1);
}

#[test]
fn a_frozen_master_stalls_and_is_gone_on_with_when_it_thaws() {
    let mut world = World::healthy();
    world.set(A, Peer::Silent);
    world.report(0, ReportKind::Silent { node: addr(A) });
    let took = world.run_until(1_000, World::is_holding);
    assert!((490..=600).contains(&took), "{took} ms");
    assert_eq!(world.machine.status().cause, Some(Cause::MasterSilent));
    assert_eq!(world.master().as_deref(), Some(A), "suspicion is not loss");
    world.set(A, master());
    let took = world.run_until(2_000, |world| world.writable().as_deref() == Some(A));
    assert!(took <= 700, "{took} ms");
}

#[test]
fn suspicion_that_the_master_answers_is_forgotten() {
    let mut world = World::healthy();
    world.report(0, ReportKind::Silent { node: addr(A) });
    world.run(3_000);
    assert!(world.machine.status().incidents.is_empty());
}

#[test]
fn one_slow_command_is_no_incident() {
    let mut world = World::healthy();
    world.set(A, Peer::Silent);
    let asked = world.questions(A);
    world.run_until(2_000, |world| world.questions(A) > asked);
    world.set(A, master());
    world.run(5_000);
    assert!(world.machine.status().incidents.is_empty());
}

#[test]
fn a_demoted_master_is_held_at_its_first_word() {
    let mut world = World::healthy();
    world.set(A, replica_of(B));
    world.set(B, master());
    world.report(1, ReportKind::Demoted { node: addr(A) });
    assert!(world.is_holding());
    assert_eq!(world.machine.status().cause, Some(Cause::Demoted));
}

#[test]
fn a_change_behind_sentinels_back_is_held_and_never_followed() {
    let mut world = World::healthy();
    world.set(A, replica_of(B));
    world.set(B, master());
    world.report(1, ReportKind::Demoted { node: addr(A) });
    world.run(29_000);
    assert!(world.is_holding());
    assert!(
        world
            .snapshots
            .iter()
            .all(|(_, it)| it.master == Some(addr(A)))
    );
    let outside = Note::ChangedOutsideSentinel { master: addr(A) };
    assert_eq!(
        world.notes.iter().filter(|note| **note == outside).count(),
        1
    );
    // In the end Sentinel promotes a third one.
    world.all_see(&view(C, 2, &[]));
    world.set(C, master());
    world.event(S2, "+switch-master", "orders 10.0.0.1 6379 10.0.0.3 6379");
    world.run(1_100);
    assert_eq!(world.writable().as_deref(), Some(C));
}

#[test]
fn a_late_readonly_of_a_master_that_is_one_holds_for_one_answer() {
    let mut world = World::healthy();
    world.report(1, ReportKind::Demoted { node: addr(A) });
    assert!(world.is_holding());
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(A));
    assert!(took <= 30, "{took} ms");
}

#[test]
fn two_failovers_back_to_back_end_on_the_last_master() {
    let mut world = World::healthy();
    world.set(A, Peer::Refuses);
    world.fail_over_to_b(2);
    world.event(S1, "+switch-master", SWITCH);
    world.run(50);
    assert_eq!(world.writable().as_deref(), Some(B));
    world.set(B, Peer::Refuses);
    world.set(C, master());
    // S3 still tells the first switch when the second is done.
    world.sees(S1, view(C, 3, &[]));
    world.sees(S2, view(C, 3, &[]));
    world.event(S1, "+switch-master", "orders 10.0.0.2 6379 10.0.0.3 6379");
    world.run(100);
    world.event(S3, "+switch-master", SWITCH);
    world.run(10_000);
    assert_eq!(world.writable().as_deref(), Some(C));
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(3));
    assert_eq!(world.switches(), 2);
}

#[test]
fn a_failover_between_known_nodes_and_back_is_followed_both_ways() {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    world.event(S1, "+switch-master", SWITCH);
    world.run(100);
    world.set(A, replica_of(B));
    world.all_see(&view(B, 2, &[A, C]));
    world.run(16_000);
    assert_eq!(world.replicas(), [A, C]);
    world.all_see(&view(A, 3, &[B, C]));
    world.set(A, master());
    world.set(B, replica_of(A));
    world.set(C, replica_of(A));
    world.event(S1, "+switch-master", "orders 10.0.0.2 6379 10.0.0.1 6379");
    world.run(2_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn the_switch_waits_for_every_worker() {
    let mut world = World::healthy();
    world.obedient = false;
    begin_manual(&mut world);
    let generation = world.snapshot().generation;
    world.run(100);
    world.fail_over_to_b(2);
    world.event(S1, "+promoted-slave", CANDIDATE);
    world.report(0, ReportKind::Quiet { generation });
    world.report(0, ReportKind::Quiet { generation });
    world.run(50);
    assert!(world.is_holding());
    let earlier = Generation::new(generation.get() - 1);
    world.report(
        1,
        ReportKind::Quiet {
            generation: earlier,
        },
    );
    world.run(10);
    assert!(world.is_holding(), "that was another hold");
    world.report(1, ReportKind::Quiet { generation });
    world.run(1);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_worker_that_is_never_quiet_does_not_delay_the_switch_beyond_the_drain() {
    let mut world = World::healthy();
    world.obedient = false;
    world.fail_over_to_b(2);
    world.event(S1, "+switch-master", SWITCH);
    let took = world.run_until(2_000, |world| world.writable().as_deref() == Some(B));
    assert!((499..=520).contains(&took), "{took} ms");
    let unquiet = |note: &&Note| matches!(note, Note::Switched { unquiet: 2, .. });
    assert_eq!(world.notes.iter().filter(unquiet).count(), 1);
}

#[test]
fn generations_rise_by_one() {
    let mut world = World::healthy();
    begin_manual(&mut world);
    world.run(500);
    world.fail_over_to_b(2);
    world.run(5_000);
    let numbers: Vec<u64> = world
        .snapshots
        .iter()
        .map(|(_, it)| it.generation.get())
        .collect();
    let want: Vec<u64> = (1..).take(numbers.len()).collect();
    assert_eq!(numbers, want);
}

#[test]
fn the_old_master_is_not_read_from_while_it_believes_to_be_one() {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    let mut told = view(B, 2, &[C]);
    let mut old = healthy(A, B);
    old.role = Some(crate::topology::ReportedRole::Master);
    old.link_ok = false;
    old.master = None;
    told.replicas.push(old);
    world.all_see(&told);
    world.event(S1, "+switch-master", SWITCH);
    world.run(10_000);
    assert_eq!(
        world.writable().as_deref(),
        Some(B),
        "A's claim is an old one"
    );
    assert_eq!(world.replicas(), [C]);
    world.set(A, replica_of(B));
    world.run(10_000);
    assert_eq!(
        world.replicas(),
        [C],
        "not before Sentinel lists it as healthy"
    );
    world.all_see(&view(B, 2, &[A, C]));
    world.run(6_000);
    assert_eq!(world.replicas(), [A, C]);
    assert_eq!(world.machine.status().incidents.len(), 1);
}

#[test]
fn a_held_group_says_since_when() {
    let mut world = World::healthy();
    let before = world.now;
    begin_manual(&mut world);
    assert_eq!(world.snapshot().phase, Phase::Switching { since: before });
}

#[test]
fn a_static_group_follows_nobody() {
    let mut world = World::new(Source::Static {
        master: addr(A),
        replicas: vec![addr(B)],
    });
    world.set(A, master());
    world.set(B, replica_of(A));
    world.run(1_000);
    world.set(A, Peer::Refuses);
    world.set(B, master());
    world.run(60_000);
    assert!(world.is_holding());
    assert_eq!(world.master().as_deref(), Some(A));
}

#[test]
fn replies_of_a_living_master_are_waited_for_once_its_successor_is_proven() {
    let drain = 500;
    for (old, least, most) in [
        (master(), drain, drain + 200),
        (replica_of(B), drain, drain + 200),
        (Peer::Refuses, 0, 200),
    ] {
        let mut world = World::healthy();
        world.obedient = false;
        begin_manual(&mut world);
        world.run(2 * drain);
        world.fail_over_to_b(2);
        world.set(A, old);
        let took = world.run_until(2 * drain, |world| world.writable().as_deref() == Some(B));
        assert!((least..=most).contains(&took), "{took} ms");
    }
}

#[test]
fn replies_that_have_come_let_the_switch_go_on_at_once() {
    let mut world = World::healthy();
    world.obedient = false;
    begin_manual(&mut world);
    world.run(1_000);
    world.fail_over_to_b(2);
    world.run(200);
    assert!(world.is_holding());
    let generation = world.snapshot().generation;
    for worker in 0..2 {
        world.report(worker, ReportKind::Quiet { generation });
    }
    assert_eq!(world.writable().as_deref(), Some(B));
}
