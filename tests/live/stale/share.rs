//! Replicas go on serving nearly everything while other keys are written all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use switchman::demo::client::Reply;

use crate::matrix::figures::report;
use crate::stale::client::Stop;
use crate::stale::scene::Scene;

const KEYS: usize = 100_000;

/// One command in so many is a write.
const WRITE_EVERY: usize = 20;

/// How late replication is.
const LAG: Duration = Duration::from_millis(5);

/// Clients at once.
const CLIENTS: usize = 16;

const TIME: Duration = Duration::from_secs(3);

/// Part of the reads that replicas must serve, in percent, and each of two at least.
const SHARE_MIN: u64 = 90;
const SHARE_EACH_MIN: u64 = 20;

#[test]
fn under_constant_writes_replicas_serve_nine_reads_in_ten() {
    let scene = Scene::start("own-writes");
    fill(&scene);
    scene.delay(LAG);
    let served = measure(&scene, 1);
    let total: u64 = served.iter().sum();
    let percent = |part: u64| part * 100 / total;
    let by_replicas = percent(served[1..].iter().sum());
    assert!(
        by_replicas >= SHARE_MIN,
        "{by_replicas} % at replicas: {served:?}"
    );
    assert!(
        served[1..].iter().all(|it| percent(*it) >= SHARE_EACH_MIN),
        "a replica is left out: {served:?}"
    );
    // Nothing is promised of these.
    measure(&scene, 16);
}

/// Reads served by the master and by each replica, with so many commands of each client on their
/// way.
fn measure(scene: &Scene, pipeline: usize) -> Vec<u64> {
    let stopped = AtomicBool::new(false);
    let served = thread::scope(|scope| {
        let _stop = Stop(&stopped);
        for _ in 0..CLIENTS {
            scope.spawn(|| read_and_write(scene, pipeline, &stopped));
        }
        // Whatever the filling has left is settled by then.
        scene.served_in(TIME / 3);
        scene.served_in(TIME)
    });
    let total: u64 = served.iter().sum();
    report(&[
        ("pipeline", &pipeline),
        ("reads_per_second", &(total / TIME.as_secs())),
        ("read_at_master_and_replicas", &format!("{served:?}")),
        (
            "percent_at_replicas",
            &(served[1..].iter().sum::<u64>() * 100 / total.max(1)),
        ),
    ]);
    served
}

fn fill(scene: &Scene) {
    let mut client = scene.master().connect().unwrap();
    for first in (0..KEYS).step_by(1000) {
        let pairs = (first..first + 1000).flat_map(|number| [key(number), "v".to_owned()]);
        let command: Vec<String> = ["MSET".to_owned()].into_iter().chain(pairs).collect();
        assert_eq!(client.command(&command).unwrap(), Reply::ok());
    }
    scene.wait_in_sync();
}

fn read_and_write(scene: &Scene, pipeline: usize, stopped: &AtomicBool) {
    let mut client = scene.proxy.client();
    let mut dice = fastrand::Rng::new();
    while !stopped.load(Ordering::Relaxed) {
        let batch: Vec<Vec<String>> = (0..pipeline)
            .map(|_| {
                let key = key(dice.usize(..KEYS));
                match dice.usize(..WRITE_EVERY) {
                    0 => vec!["SET".to_owned(), key, "v".to_owned()],
                    _ => vec!["GET".to_owned(), key],
                }
            })
            .collect();
        let replies = client.pipeline(&batch).unwrap();
        for (command, reply) in batch.iter().zip(replies) {
            let right = [Reply::ok(), Reply::bulk("v")];
            assert!(right.contains(&reply), "{command:?}: {reply:?}");
        }
    }
}

fn key(number: usize) -> String {
    format!("key:{number:06}")
}
