//! The load of a cell.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, say};
use crate::matrix::figures::report;
use crate::matrix::story::{Attempt, Outcome, Reading, Story};
use crate::proxy::Proxy;

const WRITERS: usize = 8;
const READERS: usize = 2;

/// Time between two commands of a client.
pub(super) const PACE: Duration = Duration::from_millis(1);

/// Acknowledgements that each writer must have before a fault, and again after it.
const ENOUGH: u64 = 100;

/// Longest wait of a client for one reply, and of a scene for the progress of all clients.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);

/// The same where a master dies: Sentinels whose votes are split elect again, after a while.
pub(super) const PATIENT: Duration = Duration::from_secs(40);

/// Several Switchmans before one deployment, or one, and the clients' common state.
pub(super) struct Scene<'a> {
    proxies: Vec<&'a Proxy>,
    patience: Duration,
    acknowledged: [AtomicU64; WRITERS],
    stopped: AtomicBool,
}

impl<'a> Scene<'a> {
    /// All reads will find what they look for, wherever they go.
    pub(super) fn new(lab: &Lab, proxy: &'a Proxy) -> Self {
        Self::spread(lab, &[proxy])
    }

    /// The same with clients at several Switchmans in turn.
    pub(super) fn spread(lab: &Lab, proxies: &[&'a Proxy]) -> Self {
        for proxy in proxies {
            proxy.wait_ready();
        }
        say(&mut proxies[0].client(), &["SET", "fixed", "v"]);
        lab.wait_in_sync(lab.node(0), lab.nodes().len() - 1, SOON)
            .unwrap();
        Self {
            proxies: proxies.to_vec(),
            patience: PATIENCE,
            acknowledged: Default::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Waits for so long instead of [`PATIENCE`].
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Runs `act` under load, then waits until every client has gone on.
    pub(super) fn play<T>(&self, act: impl FnOnce() -> T) -> (Story, T) {
        thread::scope(|scope| {
            let stop = Stop(&self.stopped);
            let writers: Vec<_> = (0..WRITERS)
                .map(|id| scope.spawn(move || self.write(id)))
                .collect();
            let readers: Vec<_> = (0..READERS)
                .map(|id| scope.spawn(move || self.read(id)))
                .collect();
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
        let moved = wait_for(self.patience, || {
            let moved = counts()
                .iter()
                .zip(before)
                .all(|(now, then)| *now >= then + ENOUGH);
            moved.then_some(())
        });
        assert!(
            moved.is_some(),
            "within {:?} from {before:?} to {:?} only",
            self.patience,
            counts()
        );
    }

    /// While all clients go on, none of their commands may reach `left`, a master that was left. It
    /// is not looked at once it is a replica, which may be read from.
    pub(super) fn leaves_alone(&self, left: &Process) {
        let before = client_commands(left);
        self.wait_for_progress();
        if let (Some(before), Some(after)) = (before, client_commands(left)) {
            let reached = after - before;
            report(&[("left", &reached)]);
            assert_eq!(reached, 0, "client commands reached the master left");
        }
    }

    fn client(&self, id: usize) -> Client {
        let proxy = self.proxies[id % self.proxies.len()];
        proxy.patient_client(self.patience)
    }

    fn write(&self, id: usize) -> Vec<Attempt> {
        let mut client = self.client(id);
        let mut attempts = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let token = format!("{id}-{}", attempts.len());
            let sent = Instant::now();
            let outcome = Outcome::of(client.command(&["RPUSH", "tokens", &token]));
            let severed = outcome.is_wrong();
            if outcome.is_acknowledged() {
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

    fn read(&self, id: usize) -> Vec<Reading> {
        let mut client = self.client(id);
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

/// Commands of the kinds that clients send here and that `node` has executed as a master. Those of
/// Switchman's own (ROLE, INFO …) and of Sentinel are no business of the clients.
fn client_commands(node: &Process) -> Option<u64> {
    let mut client = node.connect().ok()?;
    let mut look = || client.command(&["INFO", "everything"]).ok();
    // By the third answer it has executed what lay in its sockets.
    let (_, _, info) = (look()?, look()?, look()?);
    let calls = |command: &str| -> u64 {
        let stats = info.info(&format!("cmdstat_{command}")).unwrap_or_default();
        let calls = stats
            .split(',')
            .find_map(|field| field.strip_prefix("calls="));
        calls.map_or(0, |calls| calls.parse().unwrap())
    };
    let all = ["rpush", "get", "set", "echo"].map(calls);
    (info.info("role")? == "master").then(|| all.iter().sum())
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
