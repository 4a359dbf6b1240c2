//! The load of a cell, and its judgement.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::process::{Process, wait_for};

use crate::faults::tell;
use crate::lab::{Lab, SOON, say};
use crate::proxy::Proxy;

const WRITERS: usize = 8;
const READERS: usize = 2;

/// Time between two commands of a client.
const PACE: Duration = Duration::from_millis(1);

/// Acknowledgements that each writer must have before a fault, and again after it.
const ENOUGH: u64 = 100;

/// Longest wait of a client for one reply, and of a scene for the progress of all clients.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// Time before a crash in which an acknowledged write may be lost: replication is asynchronous.
const LAG_MAX: Duration = Duration::from_secs(1);

/// A deployment, Switchman before it, and the clients' common state.
pub(super) struct Scene<'a> {
    proxy: &'a Proxy,
    acknowledged: [AtomicU64; WRITERS],
    stopped: AtomicBool,
}

impl<'a> Scene<'a> {
    /// All reads will find what they look for, wherever they go.
    pub(super) fn new(lab: &'a Lab, proxy: &'a Proxy) -> Self {
        proxy.wait_ready();
        say(&mut proxy.client(), &["SET", "fixed", "v"]);
        lab.wait_in_sync(lab.node(0), lab.nodes().len() - 1, SOON)
            .unwrap();
        Self {
            proxy,
            acknowledged: Default::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Runs `act` under load, then waits until every client has gone on.
    pub(super) fn play<T>(&self, act: impl FnOnce() -> T) -> (Story, T) {
        thread::scope(|scope| {
            let stop = Stop(&self.stopped);
            let writers: Vec<_> = (0..WRITERS)
                .map(|id| scope.spawn(move || self.write(id)))
                .collect();
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| self.read())).collect();
            self.wait_for_progress();
            let acted = act();
            self.wait_for_progress();
            drop(stop);
            let story = Story {
                writes: writers.into_iter().map(|it| it.join().unwrap()).collect(),
                reads: readers.into_iter().map(|it| it.join().unwrap()).collect(),
            };
            (story, acted)
        })
    }

    /// Waits until each writer has [`ENOUGH`] more acknowledgements than now.
    pub(super) fn wait_for_progress(&self) {
        let counts = || {
            self.acknowledged
                .each_ref()
                .map(|it| it.load(Ordering::Relaxed))
        };
        let before = counts();
        let moved = wait_for(PATIENCE, || {
            let moved = counts()
                .iter()
                .zip(before)
                .all(|(now, then)| *now >= then + ENOUGH);
            moved.then_some(())
        });
        assert!(
            moved.is_some(),
            "within {PATIENCE:?} from {before:?} to {:?} only",
            counts()
        );
    }

    fn write(&self, id: usize) -> Vec<Attempt> {
        let mut client = self.proxy.patient_client(PATIENCE);
        let mut attempts = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let token = format!("{id}-{}", attempts.len());
            let sent = Instant::now();
            let outcome = Outcome::of(client.command(&["RPUSH", "tokens", &token]));
            let severed = matches!(outcome, Outcome::Wrong(_));
            if matches!(outcome, Outcome::Acknowledged(_)) {
                self.acknowledged[id].fetch_add(1, Ordering::Relaxed);
            }
            attempts.push(Attempt {
                token,
                sent,
                done: Instant::now(),
                outcome,
            });
            if severed {
                return attempts;
            }
            thread::sleep(PACE.saturating_sub(sent.elapsed()));
        }
        expect_no_reply_left(&mut client);
        attempts
    }

    fn read(&self) -> Vec<Reading> {
        let mut client = self.proxy.patient_client(PATIENCE);
        let mut readings = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let asked = Instant::now();
            let reply = client.command(&["GET", "fixed"]);
            let wrong = match reply {
                Ok(reply) if reply == Reply::bulk("v") => None,
                other => Some(format!("{other:?}")),
            };
            readings.push(Reading {
                asked,
                done: Instant::now(),
                wrong,
            });
            thread::sleep(PACE.saturating_sub(asked.elapsed()));
        }
        expect_no_reply_left(&mut client);
        readings
    }
}

/// Lets a state of things last: how long it does is what the test is about.
pub(super) fn let_last(time: Duration) {
    thread::sleep(time);
}

/// The next reply is that of the next command: nothing else is on its way.
fn expect_no_reply_left(client: &mut Client) {
    assert_eq!(
        say(client, &["ECHO", "the last word"]),
        Reply::bulk("the last word")
    );
}

/// Stops all clients, also when the test fails in between, so that its threads can be joined.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What the clients saw.
#[derive(Debug)]
pub(super) struct Story {
    writes: Vec<Vec<Attempt>>,
    reads: Vec<Vec<Reading>>,
}

/// One token, and what its client heard of it.
#[derive(Debug)]
struct Attempt {
    token: String,
    sent: Instant,
    done: Instant,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    /// The length of the list, and so the place of the token.
    Acknowledged(i64),
    /// It may or may not be there.
    Uncertain,
    /// It was not sent.
    Refused,
    /// Nothing of the kind.
    Wrong(String),
}

impl Outcome {
    fn of(reply: Result<Reply, ClientError>) -> Self {
        match reply {
            Ok(Reply::Int(place)) => Self::Acknowledged(place),
            Ok(Reply::Error(line)) if line.starts_with("UNCERTAIN ") => Self::Uncertain,
            Ok(Reply::Error(line)) if line.starts_with("MASTERDOWN switchman: ") => Self::Refused,
            other => Self::Wrong(format!("{other:?}")),
        }
    }
}

#[derive(Debug)]
struct Reading {
    asked: Instant,
    done: Instant,
    wrong: Option<String>,
}

/// What came of a scene.
#[derive(Debug)]
#[expect(dead_code, reason = "some figures are there to be printed")]
pub(super) struct Figures {
    pub(super) acknowledged: usize,
    pub(super) uncertain: usize,
    /// Most UNCERTAIN that one client got.
    pub(super) uncertain_each: usize,
    pub(super) refused: usize,
    pub(super) lost: usize,
    pub(super) longest_silence: Duration,
    pub(super) reads: usize,
    pub(super) longest_read: Duration,
}

impl Story {
    /// Checks what holds in every cell, against the data of `master`, and prints the figures. Only
    /// what was acknowledged just before one of the `crashes` of a master may be lost.
    pub(super) fn judge(&self, cell: &str, master: &Process, crashes: &[Instant]) -> Figures {
        let stored = tell(master, &["LRANGE", "tokens", "0", "-1"]);
        let stored: Vec<String> = stored.items().iter().filter_map(Reply::text).collect();
        let mut places = HashMap::new();
        for (place, token) in (1_i64..).zip(&stored) {
            let before = places.insert(token.as_str(), place);
            assert_eq!(before, None, "{token} was applied twice");
        }
        let mut lost = 0;
        for attempt in self.writes.iter().flatten() {
            let place = places.get(attempt.token.as_str()).copied();
            match (&attempt.outcome, place) {
                (Outcome::Wrong(reply), _) => panic!("{cell}: {}: {reply}", attempt.token),
                (Outcome::Refused, Some(_)) => panic!("{cell}: refused and applied: {attempt:?}"),
                (Outcome::Acknowledged(reply), Some(place)) => {
                    assert_eq!(
                        *reply, place,
                        "{cell}: a reply to another command: {attempt:?}"
                    );
                }
                (Outcome::Acknowledged(_), None) => {
                    let allowed = crashes
                        .iter()
                        .any(|crash| may_be_lost(attempt.done, *crash));
                    assert!(allowed, "{cell}: lost: {attempt:?}; crashes {crashes:?}");
                    lost += 1;
                }
                (Outcome::Uncertain, _) | (Outcome::Refused, None) => {}
            }
        }
        let wrong = self
            .reads
            .iter()
            .flatten()
            .find_map(|read| read.wrong.as_ref());
        assert_eq!(wrong, None, "{cell}: a read failed");
        let figures = self.figures(lost);
        println!("{cell}: {figures:?}");
        figures
    }

    /// The longest time without an acknowledgement for some writer that began in `window`.
    pub(super) fn longest_silence(&self, window: &Range<Instant>) -> Duration {
        let silence = |own: &Vec<Attempt>| {
            let answers: Vec<Instant> = own
                .iter()
                .filter(|it| matches!(it.outcome, Outcome::Acknowledged(_)))
                .map(|it| it.done)
                .collect();
            let pairs = answers.windows(2).filter(|pair| window.contains(&pair[0]));
            pairs
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or_default()
        };
        self.writes.iter().map(silence).max().unwrap_or_default()
    }

    /// The longest read that was asked for in `window`.
    pub(super) fn longest_read(&self, window: &Range<Instant>) -> Duration {
        let reads = self
            .reads
            .iter()
            .flatten()
            .filter(|it| window.contains(&it.asked));
        reads.map(|it| it.done - it.asked).max().unwrap_or_default()
    }

    /// Time from `news` to the first acknowledgement of any client after it.
    pub(super) fn first_acknowledgement_after(&self, news: Instant) -> Duration {
        let all = self.writes.iter().flatten();
        let after =
            all.filter(|it| matches!(it.outcome, Outcome::Acknowledged(_)) && it.done > news);
        let first = after.map(|it| it.done).min();
        first.expect("the clients go on") - news
    }

    /// Whether some write was answered in `window` with `-UNCERTAIN` or `-MASTERDOWN`.
    pub(super) fn fails_in(&self, window: &Range<Instant>) -> bool {
        let mut answered = self
            .writes
            .iter()
            .flatten()
            .filter(|it| window.contains(&it.done));
        answered.any(|it| !matches!(it.outcome, Outcome::Acknowledged(_)))
    }

    fn figures(&self, lost: usize) -> Figures {
        let count = |own: &Vec<Attempt>, which: fn(&Outcome) -> bool| {
            own.iter().filter(|it| which(&it.outcome)).count()
        };
        let sum = |which| self.writes.iter().map(|own| count(own, which)).sum();
        let uncertain: fn(&Outcome) -> bool = |it| matches!(it, Outcome::Uncertain);
        let each = self.writes.iter().map(|own| count(own, uncertain));
        let first = self.writes.iter().flatten().map(|it| it.sent).min();
        let now = Instant::now();
        let always = first.unwrap_or(now)..now;
        Figures {
            acknowledged: sum(|it| matches!(it, Outcome::Acknowledged(_))),
            uncertain: sum(uncertain),
            uncertain_each: each.max().unwrap_or_default(),
            refused: sum(|it| matches!(it, Outcome::Refused)),
            lost,
            longest_silence: self.longest_silence(&always),
            reads: self.reads.iter().map(Vec::len).sum(),
            longest_read: self.longest_read(&always),
        }
    }
}

/// Whether what was acknowledged at `done` may have been on a master only that died at `crash`.
fn may_be_lost(done: Instant, crash: Instant) -> bool {
    done <= crash && done + LAG_MAX >= crash
}
