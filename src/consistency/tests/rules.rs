//! Floor 1. Tests: stamps, settling and questions, one rule each.

use std::sync::Arc;
use std::time::Duration;

use crate::consistency::{Ask, Failure, Sampler, Settled, Stamps, Told, View};
use crate::types::{NodeAddr, Replication, Time};

fn addr(host: &str) -> NodeAddr {
    NodeAddr::new(host, 6379).unwrap()
}

fn ms(count: u64) -> Time {
    Time::from_start(Duration::from_millis(count))
}

/// A master `m`, a replica `r`, and somebody who asks.
struct Scene {
    stamps: Arc<Stamps>,
    replica: Arc<Settled>,
    sampler: Sampler,
    view: View,
}

impl Scene {
    fn new() -> Self {
        let stamps = Arc::new(Stamps::new(1024, 1));
        Self {
            replica: stamps.node(&addr("r")),
            sampler: Sampler::new(Arc::clone(&stamps), Duration::from_millis(100)),
            stamps,
            view: View {
                master: Some(addr("m")),
                replicas: vec![addr("r")],
            },
        }
    }

    fn write(&self, key: &str) -> u32 {
        let generation = self.stamps.generation();
        let slot = self.stamps.slot(0, key.as_bytes());
        self.stamps.mark(slot, generation);
        self.stamps.stamp(slot)
    }

    fn tick(&mut self, now: u64) -> Vec<Ask> {
        let view = self.view.clone();
        self.sampler.handle_timeout(ms(now), || view.clone());
        self.asks()
    }

    fn asks(&mut self) -> Vec<Ask> {
        std::iter::from_fn(|| self.sampler.poll_ask()).collect()
    }

    /// The question to the master of this round, answered; returns what is asked then.
    fn sample(&mut self, now: u64, id: &str, offset: u64) -> Vec<Ask> {
        let asks = self.tick(now);
        let [Ask::Master { generation, .. }] = asks[..] else {
            panic!("{asks:?}");
        };
        self.sampler
            .handle_master(ms(now), generation, Ok(master(id, offset)));
        self.asks()
    }

    fn answer(&mut self, asks: &[Ask], told: Told) {
        let [Ask::Replica { incarnation, .. }] = asks[..] else {
            panic!("{asks:?}");
        };
        self.sampler
            .handle_replica(&addr("r"), incarnation, Ok(told));
    }
}

fn master(id: &str, offset: u64) -> Told {
    Told {
        replication: Replication {
            is_master: true,
            id: id.to_owned(),
            offset,
            ..Replication::default()
        },
        is_linked: false,
    }
}

fn replica(id: &str, offset: u64) -> Told {
    let mut told = master(id, offset);
    told.replication.is_master = false;
    told.is_linked = true;
    told
}

#[test]
fn a_write_is_settled_when_the_replica_has_what_the_master_had_after_it() {
    let mut scene = Scene::new();
    let stamp = scene.write("k");
    let asks = scene.sample(0, "a", 70);
    scene.answer(&asks, replica("a", 69));
    assert!(scene.replica.settled() < stamp);
    let asks = scene.tick(100);
    scene.answer(&asks, replica("a", 70));
    assert!(scene.replica.settled() >= stamp);
    assert!(
        scene.write("k") > scene.replica.settled(),
        "the next one is not"
    );
}

#[test]
fn nothing_is_asked_while_everything_is_settled() {
    let mut scene = Scene::new();
    assert_eq!(scene.tick(0), []);
    scene.write("k");
    let asks = scene.sample(100, "a", 1);
    scene.answer(&asks, replica("a", 1));
    assert_eq!(scene.tick(200), []);
    scene.replica.renew();
    let asks = scene.tick(300);
    assert!(
        matches!(asks[..], [Ask::Replica { fresh: true, .. }]),
        "the sample is as good as before: {asks:?}"
    );
}

#[test]
fn a_node_is_asked_once_in_an_interval_and_never_twice_at_once() {
    let mut scene = Scene::new();
    scene.write("k");
    assert_eq!(scene.tick(0).len(), 1);
    assert_eq!(scene.tick(99), []);
    assert_eq!(scene.tick(100), [], "it has a question to answer");
    let generation = scene.stamps.generation();
    scene
        .sampler
        .handle_master(ms(150), generation, Ok(master("a", 1)));
    assert_eq!(scene.asks().len(), 1);
    scene.write("k");
    assert_eq!(scene.tick(200).len(), 1, "the master, for the second write");
    assert_eq!(scene.tick(300), []);
}

#[test]
fn an_answer_of_another_history_settles_nothing() {
    let mut scene = Scene::new();
    scene.write("k");
    let asks = scene.sample(0, "b", 70);
    scene.answer(&asks, replica("a", 90));
    assert_eq!(scene.replica.settled(), 0);
    let asks = scene.tick(100);
    scene.answer(&asks, replica("b", 90));
    assert_eq!(scene.replica.settled(), 0, "that it is another one is news");
    let asks = scene.tick(200);
    scene.answer(&asks, replica("b", 90));
    assert!(scene.replica.settled() > 0);
}

#[test]
fn a_replica_without_a_link_to_its_master_settles_nothing() {
    let mut scene = Scene::new();
    scene.write("k");
    let asks = scene.sample(0, "a", 1);
    let mut syncing = replica("a", 1);
    syncing.is_linked = false;
    scene.answer(&asks, syncing);
    assert_eq!(scene.replica.settled(), 0);
}

#[test]
fn a_switch_unsettles_everything_and_old_samples_are_void() {
    let mut scene = Scene::new();
    scene.view.replicas.push(addr("m2"));
    scene.write("k");
    let asks = scene.tick(0);
    let [Ask::Master { generation, .. }] = asks[..] else {
        panic!("{asks:?}");
    };
    scene.replica.publish(scene.replica.incarnation(), 1);
    scene.view = View {
        master: Some(addr("m2")),
        replicas: vec![addr("r")],
    };
    let asks = scene.tick(100);
    assert_eq!(scene.replica.settled(), 0);
    assert!(matches!(&asks[..], [Ask::Master { node, .. }] if *node == addr("m2")));
    scene
        .sampler
        .handle_master(ms(110), generation, Ok(master("a", 9)));
    assert_eq!(scene.asks(), [], "the old master's answer is nobody's");
}

#[test]
fn a_lost_connection_begins_another_incarnation() {
    let mut scene = Scene::new();
    scene.write("k");
    let asks = scene.sample(0, "a", 1);
    scene.answer(&asks, replica("a", 1));
    scene.write("k");
    let asks = scene.sample(100, "a", 2);
    let [
        Ask::Replica {
            incarnation, fresh, ..
        },
    ] = asks[..]
    else {
        panic!("{asks:?}");
    };
    assert!(!fresh);
    scene
        .sampler
        .handle_replica(&addr("r"), incarnation, Err(Failure::Lost));
    assert_eq!(scene.replica.settled(), 0);
    assert!(scene.replica.incarnation() > incarnation);
    assert!(!scene.replica.publish(incarnation, 9), "it came too late");
}

#[test]
fn a_replica_far_behind_settles_what_it_has() {
    let mut scene = Scene::new();
    let mut stamps = Vec::new();
    for round in 0..1000 {
        stamps.push(scene.write("k"));
        let asks = scene.sample(round * 100, "a", round);
        if !asks.is_empty() {
            scene.answer(&asks, replica("a", round / 2));
        }
    }
    let settled = scene.replica.settled();
    let behind = stamps.iter().filter(|stamp| **stamp > settled).count();
    assert!(
        (500..700).contains(&behind),
        "{behind} of 1000 are unsettled"
    );
}

#[test]
fn keys_of_all_lengths_and_databases_have_stamps_of_their_own() {
    let stamps: Stamps = Stamps::new(1 << 20, 3);
    let mut slots = std::collections::BTreeSet::new();
    let key = [b'k'; 64];
    for database in 0..4 {
        for length in 0..=key.len() {
            slots.insert(stamps.slot(database, &key[..length]));
        }
    }
    assert_eq!(slots.len(), 4 * 65);
    for at in 0..key.len() {
        let mut other = key;
        other[at] ^= 1;
        slots.insert(stamps.slot(0, &other));
    }
    assert_eq!(slots.len(), 4 * 65 + 64, "each byte counts");
    let other: Stamps = Stamps::new(1 << 20, 4);
    assert_ne!(
        stamps.slot(0, &key),
        other.slot(0, &key),
        "so does the seed"
    );
}

#[test]
fn slots_are_used_evenly() {
    let stamps: Stamps = Stamps::new(1 << 10, 5);
    let mut used = std::collections::BTreeMap::new();
    for key in 0..100_000 {
        let slot = stamps.slot(0, format!("user:{key:06}").as_bytes());
        *used.entry(slot).or_insert(0) += 1;
    }
    let counts: Vec<i32> = used.values().copied().collect();
    let (least, most) = (counts.iter().min(), counts.iter().max());
    assert!(
        used.len() == 1 << 10 && least >= Some(&50) && most <= Some(&150),
        "{least:?} {most:?}"
    );
}

#[test]
fn the_whole_of_a_database_has_a_stamp_and_so_has_everything() {
    let stamps: Stamps = Stamps::new(16, 1);
    stamps.mark(stamps.database(3), 5);
    assert_eq!([stamps.whole(3), stamps.whole(4)], [5, 0]);
    stamps.mark(stamps.everything(), 7);
    assert_eq!(
        [stamps.whole(3), stamps.whole(4), stamps.newest()],
        [7, 7, 7]
    );
    stamps.mark(stamps.everything(), 6);
    assert_eq!(stamps.whole(0), 7, "a stamp is never lowered");
}

#[test]
fn a_replica_that_went_back_in_its_history_has_settled_nothing() {
    let mut scene = Scene::new();
    scene.write("k");
    let asks = scene.sample(0, "a", 70);
    scene.answer(&asks, replica("a", 75));
    assert!(scene.replica.settled() > 0);
    scene.write("k");
    let asks = scene.sample(100, "a", 80);
    // It has synchronized with another replica, which is behind it.
    scene.answer(&asks, replica("a", 65));
    assert_eq!(scene.replica.settled(), 0);
    let asks = scene.tick(200);
    assert!(matches!(asks[..], [Ask::Replica { fresh: true, .. }]));
    scene.answer(&asks, replica("a", 72));
    assert_eq!(scene.replica.settled(), 1, "the first write");
}

#[test]
fn a_replica_that_was_promoted_keeps_what_it_has_until_it_follows_another() {
    let mut scene = Scene::new();
    let early = scene.write("k");
    let asks = scene.sample(0, "a", 70);
    scene.answer(&asks, replica("a", 75));
    let late = scene.write("l");
    let asks = scene.sample(100, "a", 80);
    scene.answer(&asks, master("b", 79));
    let settled = scene.replica.settled();
    assert!(early <= settled && settled < late, "{settled}");
    let asks = scene.tick(200);
    assert!(matches!(asks[..], [Ask::Replica { fresh: false, .. }]));
    scene.answer(&asks, replica("c", 85));
    assert_eq!(scene.replica.settled(), 0);
}

#[test]
fn what_a_process_before_has_acknowledged_is_settled_first() {
    let mut scene = Scene::new();
    assert_eq!(scene.stamps.whole(0), 0);
    scene.stamps.succeed();
    assert!(scene.replica.settled() < scene.stamps.whole(0));
    let asks = scene.sample(0, "a", 70);
    scene.answer(&asks, replica("a", 69));
    assert!(scene.replica.settled() < scene.stamps.whole(0));
    let asks = scene.tick(100);
    scene.answer(&asks, replica("a", 70));
    assert!(scene.replica.settled() >= scene.stamps.whole(0));
}
