//! `own-writes` keeps its promise however late replication is and whatever happens to the master;
//! `eventual` does not, by the same load.

use std::env;
use std::time::{Duration, Instant};

use switchman::demo::process::wait_for;

use crate::lab::SOON;
use crate::matrix::figures::report;
use crate::stale::client::{Crowd, Tally};
use crate::stale::record::Kind;
use crate::stale::scene::{Scene, Switch};

/// How late replication is.
const LAGS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(50),
    Duration::from_millis(500),
];

/// Time for all of it where `SWITCHMAN_STALE_SECONDS` says nothing.
const SECONDS: u32 = 16;

/// Time between two switches at most.
const CALM_MAX: Duration = Duration::from_secs(10);

/// For how long it is looked at a time who serves reads.
const STEP: Duration = Duration::from_millis(100);

/// Parts of a run: all lags with switchovers and returning replicas, then all with losses.
const PARTS: usize = 2 * LAGS.len();

#[test]
fn no_read_misses_a_write_that_was_acknowledged_before() {
    let scene = Scene::start("own-writes");
    let time = seconds() * 3 / 4;
    let mut served = Served::default();
    let tallies = Crowd::new(&scene).play(PARTS, |crowd| {
        for (part, lag) in (0..).zip(LAGS) {
            scene.delay(lag);
            crowd.begin(part);
            let hows = in_turn(part, [Switch::Ordered, Switch::Return]);
            live_through(&scene, time / 8, &hows, &mut served);
        }
        for (part, lag) in (LAGS.len()..).zip(LAGS) {
            scene.delay(lag);
            crowd.begin(part);
            let hows = in_turn(part, [Switch::Failover, Switch::Crash]);
            live_through(&scene, time / 8, &hows, &mut served);
        }
    });
    print("own-writes", &tallies, &served);
    let stale: u64 = tallies.iter().map(|it| it.stale).sum();
    let lost: u64 = tallies[..LAGS.len()].iter().map(|it| it.lost).sum();
    assert_eq!(stale, 0, "{tallies:#?}");
    assert_eq!(lost, 0, "by switchovers: {tallies:#?}");
    expect_no_other_error(&tallies);
    assert!(
        served.by_replicas() > served.total() / 50,
        "replicas served hardly anything: {served:?}"
    );
}

#[test]
fn without_tracking_reads_miss_writes_so_that_the_same_load_proves_something() {
    let scene = Scene::start("eventual");
    let time = seconds() / 4;
    let mut served = Served::default();
    let tallies = Crowd::new(&scene).play(PARTS, |crowd| {
        for (part, lag) in (0..).zip(LAGS) {
            scene.delay(lag);
            crowd.begin(part);
            // After a switch the replicas are away for a while: nothing is stale then.
            let back = wait_for(2 * SOON, || {
                let served = scene.served_in(STEP);
                (served[1..].iter().sum::<u64>() > 0).then_some(())
            });
            assert!(back.is_some(), "no replica serves reads with {lag:?}");
            live_through(&scene, time / 4, &[Switch::Ordered], &mut served);
        }
    });
    print("eventual", &tallies, &served);
    for (tally, lag) in tallies.iter().zip(LAGS) {
        assert!(
            tally.stale > 0 || lag.is_zero(),
            "no stale read with {lag:?}: the load proves nothing"
        );
    }
    for kind in Kind::MANY {
        let kind = format!("{kind:?}");
        let each = tallies.iter().filter_map(|it| it.stale_by.get(&kind));
        let stale: u64 = each.sum();
        assert!(stale > 0, "no stale read of {kind}: {tallies:#?}");
    }
    expect_no_other_error(&tallies);
}

/// Lets `time` pass with the master replaced as `hows` say in turn, once at least.
fn live_through(scene: &Scene, time: Duration, hows: &[Switch], served: &mut Served) {
    let calm = (time / 2).min(CALM_MAX);
    let mut hows = hows.iter().cycle();
    let began = Instant::now();
    while began.elapsed() < time {
        served.add(&scene.served_in(calm));
        if let Some(how) = hows.next() {
            scene.switch(*how);
        }
    }
}

/// The second one first in every other part: where time is short, there is but one in each.
fn in_turn(part: usize, mut hows: [Switch; 2]) -> [Switch; 2] {
    hows.rotate_left(part % 2);
    hows
}

/// How many seconds all of it takes.
fn seconds() -> Duration {
    let set = env::var("SWITCHMAN_STALE_SECONDS").ok();
    let seconds = set.map_or(SECONDS, |text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.into())
}

/// Writes may be in doubt where the master is lost, and be refused where there is none for long.
/// Where MULTI or what is to be queued is refused, EXEC is an error too.
fn expect_no_other_error(tallies: &[Tally]) {
    for tally in tallies {
        let refused = tally.errors.contains_key("MASTERDOWN");
        let expected = |error: &str| match error {
            "UNCERTAIN" | "MASTERDOWN" => true,
            "EXECABORT" | "ERR" => refused,
            _ => false,
        };
        let other = tally.errors.keys().find(|error| !expected(error));
        assert!(other.is_none(), "{other:?}: {tallies:#?}");
    }
}

/// Reads that the master of the time and each replica served while no switch was under way.
#[derive(Debug, Default)]
struct Served(Vec<u64>);

impl Served {
    fn add(&mut self, served: &[u64]) {
        self.0.resize(served.len(), 0);
        self.0
            .iter_mut()
            .zip(served)
            .for_each(|(sum, it)| *sum += it);
    }

    fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn by_replicas(&self) -> u64 {
        self.0[1..].iter().sum()
    }
}

fn print(mode: &str, tallies: &[Tally], served: &Served) {
    for (part, tally) in tallies.iter().enumerate() {
        if tally.reads == 0 {
            continue;
        }
        let masters = match part / LAGS.len() {
            0 => "switchovers",
            _ => "losses",
        };
        report(&[
            ("consistency", &mode),
            ("lag_ms", &LAGS[part % LAGS.len()].as_millis()),
            ("with", &masters),
            ("writes", &tally.writes),
            ("reads", &tally.reads),
            ("stale", &tally.stale),
            ("stale_by_kind", &format!("{:?}", tally.stale_by)),
            ("lost", &tally.lost),
            ("undecided", &tally.undecided),
            ("errors", &format!("{:?}", tally.errors)),
        ]);
        tally.examples.iter().for_each(|it| println!("stale: {it}"));
    }
    report(&[
        ("consistency", &mode),
        ("read_at_master_and_replicas", &format!("{:?}", served.0)),
    ]);
}
