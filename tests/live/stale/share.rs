//! Replicas go on serving nearly everything while other keys are written all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use switchman::demo::client::Reply;

use crate::matrix::figures::report;
use crate::stale::scene::Scene;

const KEYS: usize = 100_000;

/// One command in so many is a write.
const WRITE_EVERY: usize = 20;

/// How late replication is.
const LAG: Duration = Duration::from_millis(5);

/// Clients at once, and commands that each has on their way.
const CLIENTS: usize = 16;
const PIPELINE: usize = 16;

const TIME: Duration = Duration::from_secs(3);

/// Part of the reads that replicas must serve, in percent, and each of two at least.
const SHARE_MIN: u64 = 90;
const SHARE_EACH_MIN: u64 = 20;

#[test]
fn under_constant_writes_replicas_serve_nine_reads_in_ten() {
    let scene = Scene::start("own-writes");
    fill(&scene);
    scene.delay(LAG);
    let stopped = AtomicBool::new(false);
    let (served, commands) = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| read_and_write(&scene, &stopped)))
            .collect();
        // Whatever the filling has left is settled by then.
        scene.served_in(TIME / 3);
        let served = scene.served_in(TIME);
        stopped.store(true, Ordering::Relaxed);
        let commands: usize = clients.into_iter().map(|it| it.join().unwrap()).sum();
        (served, commands)
    });
    let total: u64 = served.iter().sum();
    let percent = |part: u64| part * 100 / total;
    let by_replicas = percent(served[1..].iter().sum());
    report(&[
        ("commands", &commands),
        ("reads_in_window", &total),
        ("read_at_master_and_replicas", &format!("{served:?}")),
        ("percent_at_replicas", &by_replicas),
    ]);
    assert!(
        by_replicas >= SHARE_MIN,
        "{by_replicas} % at replicas: {served:?}"
    );
    assert!(
        served[1..]
            .iter()
            .all(|each| percent(*each) >= SHARE_EACH_MIN),
        "a replica is left out: {served:?}"
    );
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

/// Returns the number of its commands.
fn read_and_write(scene: &Scene, stopped: &AtomicBool) -> usize {
    let mut client = scene.proxy.client();
    let mut dice = fastrand::Rng::new();
    let mut commands = 0;
    while !stopped.load(Ordering::Relaxed) {
        let batch: Vec<Vec<String>> = (0..PIPELINE)
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
        commands += PIPELINE;
    }
    commands
}

fn key(number: usize) -> String {
    format!("key:{number:06}")
}
