//! Floor 1. Which replicas serve reads.

use super::world::{
    A, B, C, Peer, S1, S2, S3, World, addr, cut_off_replica_of, healthy, master, replica_of,
    settings, view,
};
use std::time::Duration;

use crate::topology::{
    Ejection, NodeAnswer, NodeRole, Note, Outlier, ReplicaChoice, ReplicaEntry, ReportKind, Source,
};
use crate::types::Time;

fn ejection(world: &World, replica: &str) -> Option<Ejection> {
    let replicas = world.machine.status().replicas;
    replicas
        .iter()
        .find(|it| it.node.node == addr(replica))
        .unwrap()
        .ejected
}

#[test]
fn a_reset_empties_the_list_and_nobody_stops_reading() {
    let mut world = World::healthy();
    world.all_see(&view(A, 1, &[]));
    world.event(S1, "+reset-master", "master orders 10.0.0.1 6379");
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C]);
    world.all_see(&view(A, 1, &[B, C]));
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C]);
    assert!(
        !world
            .notes
            .iter()
            .any(|note| matches!(note, Note::ReplicaEjected { .. }))
    );
}

#[test]
fn a_replica_that_all_sentinels_have_only_just_listed_goes_on_to_serve() {
    let mut world = World::healthy();
    let mut told = view(A, 1, &[B, C]);
    for replica in &mut told.replicas {
        // As `SENTINEL REPLICAS` has it before Sentinel's first `INFO`.
        replica.flags.disconnected = true;
        replica.link_ok = false;
        replica.master = None;
    }
    world.all_see(&told);
    world.run(12_000);
    assert_eq!(world.replicas(), [B, C]);
    for replica in &mut told.replicas {
        replica.run_id = Some(format!("{:040}", 7));
    }
    world.all_see(&told);
    world.run(12_000);
    assert!(world.replicas().is_empty(), "they were known before");
}

#[test]
fn the_lag_of_a_replica_that_does_not_answer_is_unknown() {
    let mut world = World::healthy();
    let lag = |world: &World| {
        let status = world.machine.status();
        (status.replicas[0].lag, status.replicas[0].lag_time)
    };
    world.set(A, at_offset(A, 1_000, None));
    world.set(B, at_offset(B, 1_000, None));
    world.run(5_000);
    assert_eq!(lag(&world), (Some(0), Some(Duration::ZERO)));
    world.set(B, Peer::Refuses);
    world.run(5_000);
    assert_eq!(lag(&world), (None, None));
}

#[test]
fn a_replica_that_nobody_lists_any_more_is_forgotten_in_the_end() {
    let mut world = World::healthy();
    world.all_see(&view(A, 1, &[C]));
    world.run(30_000);
    assert_eq!(world.replicas(), [B, C]);
    world.run(60_000);
    assert_eq!(world.replicas(), [C]);
    let before = world.questions(B);
    world.run(60_000);
    assert_eq!(world.questions(B), before);
}

#[test]
fn an_unlisted_replica_that_does_not_answer_is_dropped_at_once() {
    let mut world = World::healthy();
    world.all_see(&view(A, 1, &[C]));
    world.set(B, Peer::Refuses);
    world.run(10_000);
    assert_eq!(world.replicas(), [C]);
}

#[test]
fn one_sentinel_that_sees_a_replica_well_is_enough() {
    let mut world = World::healthy();
    let mut told = view(A, 1, &[B, C]);
    told.replicas
        .iter_mut()
        .for_each(|replica| replica.flags.s_down = true);
    world.sees(S1, told.clone());
    world.sees(S2, told.clone());
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C]);
    world.sees(S3, told);
    world.run(10_000);
    assert_eq!(world.replicas(), Vec::<String>::new());
    assert_eq!(ejection(&world, B), Some(Ejection::SentinelSaysDown));
}

#[test]
fn a_new_replica_serves_once_it_says_so_itself() {
    let mut world = World::unstarted();
    world.all_see(&view(A, 1, &[B]));
    world.run(1_000);
    assert_eq!(world.replicas(), [B]);
    world.set(C, cut_off_replica_of(A));
    world.all_see(&view(A, 1, &[B, C]));
    world.event(S1, "+slave", "slave c 10.0.0.3 6379 @ orders 10.0.0.1 6379");
    world.run(3_000);
    assert_eq!(world.replicas(), [B]);
    assert_eq!(ejection(&world, C), Some(Ejection::LinkDown));
    world.set(C, replica_of(A));
    world.run(2_100);
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn a_fresh_entry_without_details_is_not_served_yet() {
    let mut world = World::unstarted();
    let mut told = view(A, 1, &[B]);
    told.replicas.push(ReplicaEntry {
        addr: Some(addr(C)),
        ..ReplicaEntry::default()
    });
    told.replicas.push(ReplicaEntry::default());
    world.all_see(&told);
    world.run(10_000);
    assert_eq!(world.replicas(), [B]);
}

#[test]
fn a_replica_in_full_sync_is_ejected_and_must_show_that_it_has_recovered() {
    let mut world = World::healthy();
    world.set(B, cut_off_replica_of(A));
    world.link_lost(B);
    world.run(200);
    assert_eq!(world.replicas(), [C]);
    assert_eq!(ejection(&world, B), Some(Ejection::LinkDown));
    world.set(B, replica_of(A));
    world.run(2_100);
    assert_eq!(world.replicas(), [C], "one good answer is not enough");
    world.run(2_100);
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn a_dead_replica_is_ejected_at_its_first_refusal() {
    let mut world = World::healthy();
    world.set(B, Peer::Refuses);
    world.link_lost(B);
    world.run(20);
    assert_eq!(world.replicas(), [C]);
    assert!(!world.is_holding());
}

#[test]
fn a_replica_too_far_behind_is_ejected_and_returns_when_it_is_close() {
    let mut settings = settings(Source::Sentinels(vec![addr(S1)]));
    settings.max_lag = Some(100);
    let mut world = World::with(settings);
    world.sees(S1, view(A, 1, &[B]));
    world.set(A, master());
    let at = |offset| {
        let role = NodeRole::Replica {
            master: Some(addr(A)),
            connected: true,
            offset,
        };
        Peer::Answers(NodeAnswer {
            role,
            run_id: None,
            replication: None,
            zone: None,
        })
    };
    world.set(B, at(900));
    world.run(3_000);
    assert_eq!(
        world.replicas(),
        Vec::<String>::new(),
        "100 behind is too much to begin with"
    );
    world.set(B, at(960));
    world.run(3_000);
    assert_eq!(world.replicas(), [B]);
    world.set(B, at(901));
    world.run(3_000);
    assert_eq!(world.replicas(), [B], "within the limit");
    world.set(B, at(899));
    world.run(3_000);
    assert_eq!(ejection(&world, B), Some(Ejection::Lagging));
    world.set(B, at(920));
    world.run(10_000);
    assert_eq!(
        ejection(&world, B),
        Some(Ejection::Lagging),
        "not close enough"
    );
    world.set(B, at(990));
    world.run(5_000);
    assert_eq!(world.replicas(), [B]);
}

/// Answers of a node that stands at an offset; a replica of A, save A itself.
fn at_offset(node: &str, offset: u64, zone: Option<&str>) -> Peer<NodeAnswer> {
    let role = if node == A {
        NodeRole::Master { offset }
    } else {
        NodeRole::Replica {
            master: Some(addr(A)),
            connected: true,
            offset,
        }
    };
    Peer::Answers(NodeAnswer {
        role,
        run_id: Some(format!("run-{node}")),
        replication: None,
        zone: zone.map(str::to_owned),
    })
}

/// Five seconds in which 100 bytes are written each second, and B stands still.
fn five_seconds(world: &mut World, from: u64) {
    for second in 1..=5 {
        world.set(A, at_offset(A, from + second * 100, None));
        world.run(1_000);
    }
}

#[test]
fn a_replica_that_has_been_behind_for_too_long_is_ejected_and_counted() {
    let mut settings = settings(Source::Sentinels(vec![addr(S1)]));
    settings.max_lag_time = Some(Duration::from_secs(6));
    let mut world = World::with(settings);
    world.sees(S1, view(A, 1, &[B]));
    world.set(A, at_offset(A, 1_000, None));
    world.set(B, at_offset(B, 1_000, None));
    world.run(5_000);
    assert_eq!(world.replicas(), [B]);
    five_seconds(&mut world, 1_000);
    assert_eq!(world.replicas(), [B]);
    let lag = world.machine.status().replicas[0].lag_time.unwrap();
    assert!((3..=5).contains(&lag.as_secs()), "{lag:?}");
    assert!(!world.snapshot().lagging);
    five_seconds(&mut world, 1_500);
    assert_eq!(ejection(&world, B), Some(Ejection::Lagging));
    assert!(world.snapshot().lagging, "nothing else is wrong with it");
    let lagging = Ejection::ALL.iter().position(|it| *it == Ejection::Lagging);
    let ejections = &world.machine.status().ejections;
    assert_eq!(ejections.len(), 1, "the master is none");
    assert_eq!(ejections[&addr(B)].judged[lagging.unwrap()], 1);
    world.set(B, at_offset(B, 2_000, None));
    world.run(5_000);
    assert_eq!(world.replicas(), [B]);
    assert!(!world.snapshot().lagging);
}

#[test]
fn replicas_of_another_zone_are_further_away() {
    let mut settings = settings(Source::Sentinels(vec![addr(S1)]));
    settings.zone = Some("a".to_owned());
    let mut world = World::with(settings);
    world.sees(S1, view(A, 1, &[B, C]));
    world.set(A, at_offset(A, 0, None));
    world.set(B, at_offset(B, 0, Some("b")));
    world.set(C, at_offset(C, 0, Some("a")));
    world.run(5_000);
    assert_eq!(world.replicas(), [B, C]);
    assert_eq!(world.snapshot().distances, [2, 0]);
    world.set(B, at_offset(B, 0, Some("a")));
    world.run(5_000);
    assert!(world.snapshot().distances.is_empty(), "equally near");
}

#[test]
fn a_configured_zone_goes_before_what_the_node_tells() {
    let mut settings = settings(Source::Sentinels(vec![addr(S1)]));
    settings.zone = Some("a".to_owned());
    settings.node_zones = vec![(addr(B), "a".to_owned())];
    let mut world = World::with(settings);
    world.sees(S1, view(A, 1, &[B, C]));
    world.set(A, at_offset(A, 0, None));
    world.set(B, at_offset(B, 0, Some("b")));
    world.set(C, at_offset(C, 0, None));
    world.run(5_000);
    assert_eq!(world.snapshot().distances, [0, 2]);
    assert_eq!(
        world.machine.status().replicas[0].zone.as_deref(),
        Some("a")
    );
}

#[test]
fn slow_answers_make_a_replica_further_away_where_that_is_asked_for() {
    for (choice, want) in [
        (ReplicaChoice::Nearest, &[0, 1][..]),
        (ReplicaChoice::Load, &[]),
    ] {
        let mut settings = settings(Source::Sentinels(vec![addr(S1)]));
        settings.choice = choice;
        let mut world = World::with(settings);
        world.sees(S1, view(A, 1, &[B, C]));
        world.set(A, at_offset(A, 0, None));
        world.set(B, at_offset(B, 0, None));
        world.set(C, at_offset(C, 0, None));
        world.far.insert(addr(C), Duration::from_millis(30));
        world.run(20_000);
        assert_eq!(world.replicas(), [B, C]);
        assert_eq!(world.snapshot().distances, want, "{choice:?}");
        let published = world.snapshots.len();
        world.far.clear();
        world.run(20_000);
        assert!(world.snapshot().distances.is_empty());
        assert!(world.snapshots.len() <= published + 1, "no more than once");
    }
}

#[test]
fn what_a_worker_leaves_alone_is_told_and_served_nevertheless() {
    let mut world = World::healthy();
    let kind = ReportKind::Outlier {
        node: addr(B),
        why: Outlier::Latency,
        time: Duration::from_secs(10),
    };
    world.report(1, kind);
    assert_eq!(world.replicas(), [B, C]);
    let outlier = |world: &World| world.machine.status().replicas[0].outlier;
    assert_eq!(outlier(&world), Some(Outlier::Latency));
    let avoided = |note: &Note| matches!(note, Note::ReplicaAvoided { worker: 1, .. });
    assert!(world.notes.iter().any(avoided));
    let ejections = &world.machine.status().ejections;
    assert_eq!((ejections[&addr(B)].latency, ejections.len()), (1, 1));
    world.run(11_000);
    assert_eq!(outlier(&world), None);
}

#[test]
fn dead_entries_are_not_knocked_at() {
    let mut world = World::healthy();
    let mut told = view(A, 1, &[B, C]);
    for dead in 10..60 {
        let mut entry = healthy(&format!("10.0.9.{dead}:6379"), A);
        entry.flags.s_down = true;
        entry.flags.disconnected = true;
        told.replicas.push(entry);
    }
    world.all_see(&told);
    world.run(120_000);
    let knocks: u32 = (10..60)
        .map(|dead| world.questions(&format!("10.0.9.{dead}:6379")))
        .sum();
    assert_eq!(knocks, 0);
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn a_replica_listed_as_well_that_refuses_is_asked_with_growing_pauses() {
    let mut world = World::healthy();
    world.set(B, Peer::Refuses);
    world.run(60_000);
    let before = world.questions(B);
    world.run(60_000);
    let asked = world.questions(B) - before;
    assert!((5..=13).contains(&asked), "{asked}");
}

#[test]
fn a_group_without_replicas_asks_no_more_than_any_other() {
    let mut world = World::unstarted();
    world.all_see(&view(A, 1, &[]));
    world.run(20_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    let before = world.questions(S1);
    world.run(60_000);
    assert!(world.questions(S1) - before <= 13);
}

#[test]
fn reads_survive_replicas_being_moved_one_by_one() {
    let mut world = World::healthy();
    world.fail_over_to_b(2);
    world.set(C, replica_of(A));
    world.event(S1, "+switch-master", "orders 10.0.0.1 6379 10.0.0.2 6379");
    world.run(100);
    assert_eq!(
        world.replicas(),
        Vec::<String>::new(),
        "C follows A: reads go to the master"
    );
    world.set(C, cut_off_replica_of(B));
    world.event(
        S1,
        "+slave-reconf-sent",
        "slave c 10.0.0.3 6379 @ orders 10.0.0.1 6379",
    );
    world.run(1_000);
    assert_eq!(world.replicas(), Vec::<String>::new());
    world.set(C, replica_of(B));
    world.event(
        S1,
        "+slave-reconf-done",
        "slave c 10.0.0.3 6379 @ orders 10.0.0.1 6379",
    );
    world.run(100);
    assert_eq!(world.replicas(), [C]);
    assert!(world.now > Time::ZERO);
}

#[test]
fn dead_entries_make_room_for_living_replicas() {
    const D: &str = "10.0.0.4:6379";
    let mut world = World::healthy();
    let dead = |at: usize| {
        let addr = format!("10.9.{}.{}:6379", at / 200, at % 200 + 1);
        let mut entry = healthy(&addr, A);
        entry.flags.s_down = true;
        entry.flags.disconnected = true;
        entry
    };
    let mut told = view(A, 1, &[B, C]);
    told.replicas.splice(0..0, (0..300).map(dead));
    world.all_see(&told);
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C]);
    world.set(D, replica_of(A));
    told.replicas.push(healthy(D, A));
    world.all_see(&told);
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C, D]);
    let known = world.machine.status().replicas.len();
    assert!(known < 300, "{known} are known");
    // One of them comes back to life.
    let lives = told.replicas[299].addr.clone().unwrap().to_string();
    world.set(&lives, replica_of(A));
    told.replicas[299] = healthy(&lives, A);
    world.all_see(&told);
    world.run(10_000);
    assert_eq!(world.replicas(), [B, C, D, &*lives]);
}
