//! Floor 1. Finding the first master, and the Sentinels.

use super::world::{
    A, B, C, Peer, S1, S2, S3, World, addr, master, replica_of, sentinel_entry, view,
};
use crate::topology::{Note, Phase, SentinelFailure, Source, Subscription, View, Waiting};
use crate::types::{ConfigEpoch, Generation, Time};

fn seeds() -> Source {
    Source::Sentinels(vec![addr(S1), addr(S2), addr(S3)])
}

#[test]
fn a_healthy_group_is_found_within_a_few_answers() {
    let mut world = World::unstarted();
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 20, "{took} ms");
    let snapshot = world.snapshot();
    assert_eq!(snapshot.epoch, ConfigEpoch::new(1));
    assert!(snapshot.generation > Generation::FIRST);
    world.run(200);
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn a_black_holed_seed_delays_discovery_by_a_moment_only() {
    let mut world = World::unstarted();
    world.sentinels.insert(addr(S1), Peer::Silent);
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 300, "{took} ms");
}

#[test]
fn a_name_unknown_to_some_sentinels_is_learned_from_the_others() {
    let mut world = World::unstarted();
    world.sees(S1, View::default());
    world.run(100);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert!(
        world
            .notes
            .contains(&Note::NameUnknown { sentinel: addr(S1) })
    );
}

#[test]
fn an_unknown_name_and_unreachable_sentinels_are_told_apart() {
    let mut world = World::new(seeds());
    world.run(1_000);
    assert_eq!(
        world.machine.status().waiting,
        Some(Waiting::SentinelsUnreachable)
    );
    assert!(!world.snapshot().name_unknown);
    world.all_see(&View::default());
    world.run(2_000);
    assert_eq!(world.machine.status().waiting, Some(Waiting::NameUnknown));
    assert!(world.snapshot().name_unknown);
    assert_eq!(world.snapshot().phase, Phase::Unknown);
}

#[test]
fn sentinels_that_are_all_down_at_first_are_found_when_one_returns() {
    let mut world = World::new(seeds());
    world.set(A, master());
    world.run(60_000);
    let asked = world.questions(S1);
    assert!((30..200).contains(&asked), "{asked} questions in a minute");
    world.sees(S2, view(A, 1, &[]));
    let took = world.run_until(5_000, |world| world.writable().is_some());
    assert!(
        took <= 4_300,
        "{took} ms, of which 3 s are for the other two"
    );
}

/// S1 has lost its memory and names C, which was the master long ago and has just returned. The
/// others know better.
fn forgetful() -> World {
    let mut world = World::unstarted();
    world.sees(S1, view(C, 0, &[]));
    world.set(C, master());
    world.all_but_s1(Peer::Refuses);
    world
}

#[test]
fn one_of_three_sentinels_is_not_believed_until_the_others_had_time() {
    for silence in [Peer::Refuses, Peer::Silent] {
        let mut world = forgetful();
        world.all_but_s1(silence);
        world.run(2_000);
        assert_eq!(world.master(), None);
        let (answering, known) = (1, 3);
        let waiting = world.machine.status().waiting;
        assert_eq!(waiting, Some(Waiting::Majority { answering, known }));
        world.sees(S2, view(A, 5, &[B]));
        let took = world.run_until(2_000, |world| world.writable().is_some());
        assert!(took <= 1_100, "{took} ms");
        assert_eq!(world.writable().as_deref(), Some(A));
        let of_c =
            |(_, it): &(_, std::sync::Arc<crate::topology::Snapshot>)| it.master == Some(addr(C));
        assert!(!world.snapshots.iter().any(of_c));
    }
}

#[test]
fn of_two_masters_named_by_as_many_the_first_one_heard_is_not_the_better() {
    let mut world = World::unstarted();
    world.sees(S1, view(C, 1, &[]));
    world.set(C, master());
    world.all_but_s1(Peer::Refuses);
    world.run(1_000);
    world.sees(S2, view(A, 1, &[B]));
    world.run(1_500);
    assert_eq!(world.master(), None);
    let waiting = world.machine.status().waiting;
    assert_eq!(waiting, Some(Waiting::Disagreement));
    world.sees(S3, view(A, 1, &[B]));
    let took = world.run_until(2_000, |world| world.writable().is_some());
    assert!(took <= 1_100, "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.switches(), 0);
}

#[test]
fn one_of_three_sentinels_is_enough_when_the_others_stay_away() {
    for silence in [Peer::Refuses, Peer::Silent] {
        let mut world = World::unstarted();
        world.all_but_s1(silence);
        let took = world.run_until(5_000, |world| world.writable().is_some());
        assert!((2_900..3_300).contains(&took), "{took} ms");
        assert_eq!(world.writable().as_deref(), Some(A));
        assert_eq!(world.machine.status().waiting, None);
    }
}

#[test]
fn two_of_three_sentinels_are_not_waited_for() {
    let mut world = World::unstarted();
    world.sentinels.insert(addr(S3), Peer::Refuses);
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 20, "{took} ms");
}

#[test]
fn dead_sentinels_that_the_others_never_forgot_do_not_delay_the_start() {
    let mut world = World::unstarted();
    let mut told = view(A, 1, &[B, C]);
    let dead = |at: u8| sentinel_entry(&format!("10.0.9.{at}:26379"), &format!("dead{at}"));
    told.sentinels = (1..=20).map(dead).collect();
    world.all_see(&told);
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 300, "{took} ms");
}

#[test]
fn a_sentinel_that_knows_of_no_other_is_not_alone_if_it_needs_one_for_a_quorum() {
    let mut world = World::new(Source::Sentinels(vec![addr(S1)]));
    world.sees(S1, view(C, 0, &[]));
    world.set(C, master());
    world.set(A, master());
    world.run(1_500);
    assert_eq!(world.master(), None);
    world.sees(S1, view(A, 5, &[]));
    world.run(3_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    let mut told = view(A, 1, &[]);
    told.entry.as_mut().unwrap().quorum = 1;
    let mut world = World::new(Source::Sentinels(vec![addr(S1)]));
    world.sees(S1, told);
    world.set(A, master());
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 20, "{took} ms");
}

#[test]
fn a_seed_that_is_a_data_node_is_rejected_once() {
    let mut world = World::unstarted();
    world.sentinels.insert(addr(S1), Peer::Silent);
    world.run(10);
    for ms in 1..5 {
        let now = world.now + std::time::Duration::from_secs(ms);
        world
            .machine
            .handle_view_failed(now, &addr(S1), SentinelFailure::NotASentinel, 0);
        world
            .machine
            .handle_timeout(now + std::time::Duration::from_millis(900));
    }
    world.run(0);
    let rejected = Note::NotASentinel { addr: addr(S1) };
    assert_eq!(
        world.notes.iter().filter(|note| **note == rejected).count(),
        1
    );
}

#[test]
fn an_empty_address_is_no_answer() {
    let mut world = World::unstarted();
    let mut empty = view(A, 9, &[]);
    empty.master = None;
    world.sees(S1, empty.clone());
    world.run(100);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.snapshot().epoch, ConfigEpoch::new(1));
    let mut world = World::new(seeds());
    world.all_see(&empty);
    world.run(1_000);
    assert_eq!(world.machine.status().waiting, Some(Waiting::NoAddress));
}

#[test]
fn a_stale_sentinel_that_answers_first_does_not_lead_to_a_stale_master() {
    let mut world = World::unstarted();
    world.sees(S1, view(C, 0, &[]));
    world.set(C, master());
    world.sentinels.insert(addr(S2), Peer::Silent);
    world.run(2_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert!(
        world
            .snapshots
            .iter()
            .all(|(_, it)| it.master != Some(addr(C)))
    );
}

#[test]
fn a_node_that_does_not_prove_itself_is_not_published() {
    let mut world = World::unstarted();
    world.set(A, replica_of(B));
    world.run(5_000);
    assert_eq!(world.snapshot().phase, Phase::Unknown);
    let waiting = world.machine.status().waiting;
    assert!(matches!(waiting, Some(Waiting::Proof { node, .. }) if node == addr(A)));
    world.set(A, master());
    let took = world.run_until(1_000, |world| world.writable().is_some());
    assert!(took <= 200, "{took} ms");
}

#[test]
fn a_new_sentinel_is_learned_and_the_seeds_are_kept() {
    let mut world = World::healthy();
    let mut told = view(A, 1, &[B, C]);
    told.sentinels = vec![sentinel_entry("10.0.1.4:26379", "four")];
    world.sees(S1, told);
    world.sees("10.0.1.4:26379", view(A, 1, &[B, C]));
    world.event(
        S1,
        "+sentinel",
        "sentinel four 10.0.1.4 26379 @ orders 10.0.0.1 6379",
    );
    world.run(100);
    let sentinels = world.machine.status().sentinels;
    assert_eq!(sentinels.len(), 4);
    assert!(sentinels.iter().all(|sentinel| sentinel.up));
    world.all_see(&view(A, 1, &[B, C]));
    for sentinel in [S1, S2, S3, "10.0.1.4:26379"] {
        world.lose_sentinel(sentinel);
    }
    world.run(700_000);
    let sentinels = world.machine.status().sentinels;
    assert_eq!(sentinels.len(), 3, "the learned one is forgotten");
    assert!(sentinels.iter().all(|sentinel| sentinel.seed));
}

#[test]
fn a_service_name_for_all_sentinels_does_not_hide_the_others() {
    let service = "sentinels:26379";
    let mut world = World::new(Source::Sentinels(vec![addr(service)]));
    world.names.insert(
        "sentinels".to_owned(),
        "10.0.1.1 10.0.1.2 10.0.1.3".to_owned(),
    );
    world.set(A, master());
    for (sentinel, id, others) in [
        (S1, "one", [(S2, "two"), (S3, "three")]),
        (S2, "two", [(S1, "one"), (S3, "three")]),
        (S3, "three", [(S1, "one"), (S2, "two")]),
    ] {
        let mut told = view(A, 1, &[]);
        told.id = Some(id.to_owned());
        told.sentinels = others.map(|(other, id)| sentinel_entry(other, id)).to_vec();
        world.sees(sentinel, told.clone());
        if id == "one" {
            world.sees(service, told);
        }
    }
    world.run(10_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    let sentinels = world.machine.status().sentinels;
    let ids: Vec<_> = sentinels.iter().filter_map(|it| it.id.as_deref()).collect();
    assert_eq!(ids, ["two", "three", "one"], "each of them once");
    assert_eq!(world.machine.status().candidates.first().unwrap().votes, 3);
}

#[test]
fn one_sentinel_under_two_addresses_has_one_vote_and_one_entry() {
    let mut world = World::unstarted();
    let mut told = view(A, 1, &[]);
    told.sentinels = vec![sentinel_entry("192.168.0.2:26379", "two")];
    told.id = Some("one".to_owned());
    world.sees(S1, told);
    let mut second = view(A, 1, &[]);
    second.id = Some("two".to_owned());
    world.sees(S2, second.clone());
    world.sees("192.168.0.2:26379", second);
    world.run(12_000);
    assert_eq!(world.machine.status().sentinels.len(), 3);
    assert_eq!(world.machine.status().candidates.first().unwrap().votes, 3);
}

#[test]
fn a_loopback_address_from_another_host_is_rejected() {
    let mut world = World::unstarted();
    let mut told = view("127.0.1.1:6379", 7, &["127.0.0.1:6380"]);
    told.sentinels = vec![sentinel_entry("127.0.0.1:26379", "x")];
    world.sees(S1, told);
    world.set("127.0.1.1:6379", master());
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.machine.status().sentinels.len(), 3);
    let rejected = |note: &&Note| matches!(note, Note::LoopbackRejected { .. });
    assert_eq!(world.notes.iter().filter(rejected).count(), 1);
}

#[test]
fn loopback_addresses_of_loopback_sentinels_are_fine() {
    let mut world = World::new(Source::Sentinels(vec![addr("127.0.0.1:26379")]));
    world.sees("127.0.0.1:26379", view("127.0.0.1:6379", 0, &[]));
    world.set("127.0.0.1:6379", master());
    world.run(4_000);
    assert_eq!(world.writable().as_deref(), Some("127.0.0.1:6379"));
}

#[test]
fn a_subscription_that_comes_up_is_followed_by_a_question() {
    let mut world = World::healthy();
    let before = world.questions(S1);
    world.subscription(S1, Subscription::On);
    world.run(20);
    assert_eq!(world.questions(S1), before + 1);
}

#[test]
fn a_refused_subscription_is_noted_once_and_polling_goes_on() {
    let mut world = World::healthy();
    world.subscription(S1, Subscription::Forbidden);
    world.subscription(S1, Subscription::Forbidden);
    let forbidden = Note::SubscriptionForbidden { sentinel: addr(S1) };
    assert_eq!(
        world
            .notes
            .iter()
            .filter(|note| **note == forbidden)
            .count(),
        1
    );
    let before = world.questions(S1);
    world.run(20_000);
    assert!(world.questions(S1) >= before + 3);
}

#[test]
fn news_during_a_question_lead_to_another_one() {
    let mut world = World::healthy();
    world.event(S1, "+slave", "slave x 10.0.0.2 6379 @ orders 10.0.0.1 6379");
    let before = world.questions(S1);
    for _ in 0..10 {
        world.event(S1, "+slave", "slave x 10.0.0.2 6379 @ orders 10.0.0.1 6379");
    }
    world.run(100);
    let more = world.questions(S1) - before;
    assert!((1..=2).contains(&more), "{more} questions for a burst");
}

#[test]
fn a_healthy_group_is_asked_at_a_quiet_pace() {
    let mut world = World::healthy();
    world.run(20_000);
    let before = (world.questions(S1), world.questions(A), world.questions(B));
    let published = world.snapshots.len();
    world.run(60_000);
    let sentinel = world.questions(S1) - before.0;
    let master = world.questions(A) - before.1;
    let replica = world.questions(B) - before.2;
    assert!((11..=13).contains(&sentinel), "{sentinel}");
    assert!((58..=62).contains(&master), "{master}");
    assert!((29..=31).contains(&replica), "{replica}");
    assert_eq!(
        world.snapshots.len(),
        published,
        "nothing changes, nothing is published"
    );
}

#[test]
fn a_static_master_needs_nobody_but_itself() {
    let source = Source::Static {
        master: addr(A),
        replicas: vec![addr(B), addr(C)],
    };
    let mut world = World::new(source);
    world.run(2_000);
    assert_eq!(world.snapshot().phase, Phase::Unknown);
    world.set(A, master());
    world.set(B, replica_of(A));
    world.set(C, replica_of(B));
    world.run(3_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    assert_eq!(world.replicas(), [B], "C follows another master");
    world.set(A, Peer::Refuses);
    world.link_lost(A);
    world.run(20);
    assert!(world.is_holding());
    assert_eq!(world.replicas(), [B], "reads go on");
    world.set(A, master());
    world.run(300);
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn a_static_master_that_may_not_be_asked_is_taken_at_the_word_of_the_configuration() {
    let source = Source::Static {
        master: addr(A),
        replicas: Vec::new(),
    };
    let mut world = World::new(source);
    let role = crate::topology::NodeRole::Untold {
        why: "NOPERM".to_owned(),
    };
    world.set(
        A,
        Peer::Answers(crate::topology::NodeAnswer {
            role,
            run_id: None,
            replication: None,
            zone: None,
        }),
    );
    world.run(100);
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn the_hold_time_follows_down_after() {
    let mut world = World::unstarted();
    let mut told = view(A, 1, &[B, C]);
    told.entry.as_mut().unwrap().down_after = Some(std::time::Duration::from_secs(30));
    world.sees(S2, told);
    world.run(1_000);
    assert_eq!(world.snapshot().hold, std::time::Duration::from_secs(35));
    assert!(world.now > Time::ZERO);
}
