//! The clients: each over a pool of connections, each with keys of its own, and all with some in
//! common.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{slice, thread};

use switchman::demo::client::{Client, ClientError, Reply};

use crate::stale::record::{Kind, Record, Written};
use crate::stale::scene::Scene;

/// Clients at once.
const CLIENTS: usize = 64;

/// Connections of each, of which the last [`FOREIGN`] are in database 1.
const POOL: usize = 8;
const FOREIGN: usize = 3;

/// Keys of each kind that a client writes. What was written some rounds before has come to the
/// replicas, and is read there.
const KEYS_OF_A_KIND: usize = 6;

/// Keys that all clients count up.
const SHARED: usize = 16;

/// Time between two scripts; one client runs them.
const SCRIPT_EVERY: Duration = Duration::from_secs(2);

/// One write of several commands in so many has [`PAUSE`] before the last one, EXEC for example:
/// replicas settle meanwhile what came before it.
const SLOW_EVERY: usize = 6;
const PAUSE: Duration = Duration::from_millis(250);

/// Time between two cycles of a client: two cores are shared by all of them, Switchman, the nodes
/// and their fronts, and a Sentinel that is starved sees nodes die.
const PACE: Duration = Duration::from_millis(10);

/// Longest wait for one reply: over an election that must be repeated.
const PATIENCE: Duration = Duration::from_secs(60);

/// Violations that are told in full.
const EXAMPLES: usize = 3;

/// What clients saw in one part of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Acknowledged.
    pub(super) writes: u64,
    /// Answered.
    pub(super) reads: u64,
    /// Reads older than what was acknowledged before they were asked for, and still is.
    pub(super) stale: u64,
    /// The same by what kind of key it was.
    pub(super) stale_by: BTreeMap<String, u64>,
    /// Acknowledged writes that the new master has not.
    pub(super) lost: u64,
    /// Reads of which nobody can say.
    pub(super) undecided: u64,
    /// Errors, by their first word, or as the connection told.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.stale += other.stale;
        self.lost += other.lost;
        self.undecided += other.undecided;
        for (sum, own) in [
            (&mut self.errors, &other.errors),
            (&mut self.stale_by, &other.stale_by),
        ] {
            for (name, count) in own {
                *sum.entry(name.clone()).or_default() += count;
            }
        }
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples
            .extend(other.examples.iter().take(room).cloned());
    }
}

/// Parts of a run, and what is common to all clients.
pub(super) struct Crowd<'a> {
    scene: &'a Scene,
    part: AtomicUsize,
    stopped: AtomicBool,
    /// Newest count acknowledged to anybody, by how often writes were lost before and by key.
    shared: Mutex<HashMap<(u64, usize), i64>>,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            part: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            shared: Mutex::default(),
        }
    }

    /// Runs `act` while all clients read and write; it says when another of `parts` begins.
    pub(super) fn play(&self, parts: usize, act: impl FnOnce(&Self)) -> Vec<Tally> {
        let mut total = vec![Tally::default(); parts];
        thread::scope(|scope| {
            let stop = Stop(&self.stopped);
            let callers: Vec<_> = (0..CLIENTS)
                .map(|id| scope.spawn(move || Caller::new(self, id, parts).run()))
                .collect();
            act(self);
            drop(stop);
            for caller in callers {
                let tallies = caller.join().unwrap();
                total
                    .iter_mut()
                    .zip(&tallies)
                    .for_each(|(sum, it)| sum.add(it));
            }
        });
        total
    }

    /// From now on what clients see counts for this part.
    pub(super) fn begin(&self, part: usize) {
        self.part.store(part, Ordering::Relaxed);
    }
}

/// Stops all clients, also where the test fails in between, so that its threads can be joined.
pub(super) struct Stop<'a>(pub(super) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One client.
struct Caller<'a> {
    crowd: &'a Crowd<'a>,
    id: usize,
    pool: Vec<Client>,
    /// The last one is written by scripts.
    records: Vec<Record>,
    tallies: Vec<Tally>,
    dice: fastrand::Rng,
}

impl<'a> Caller<'a> {
    fn new(crowd: &'a Crowd<'a>, id: usize, parts: usize) -> Self {
        let records = Kind::MANY.into_iter().flat_map(|kind| {
            (0..KEYS_OF_A_KIND).map(move |number| {
                // One in three lives in the other database.
                let database = usize::from(number % 3 == 2);
                Record::new(kind, format!("{kind:?}:{id}:{number}"), database)
            })
        });
        let script = Record::new(Kind::Script, format!("Script:{id}"), 0);
        let mut caller = Self {
            crowd,
            id,
            pool: Vec::new(),
            records: records.chain([script]).collect(),
            tallies: vec![Tally::default(); parts],
            dice: fastrand::Rng::new(),
        };
        caller.pool = (0..POOL).map(|index| caller.connect(index)).collect();
        caller
    }

    fn run(mut self) -> Vec<Tally> {
        let mut last_script = Instant::now();
        while !self.crowd.stopped.load(Ordering::Relaxed) {
            if self.id == 0 && last_script.elapsed() >= SCRIPT_EVERY {
                last_script = Instant::now();
                self.cycle(self.records.len() - 1);
            }
            let index = self.any_record();
            self.cycle(index);
            let index = self.any_record();
            self.check(index, POOL);
            self.cycle_of_all();
            thread::sleep(PACE.mul_f32(self.dice.f32() * 2.0));
        }
        self.tallies
    }

    /// Writes over one connection, and reads over another one what was acknowledged.
    fn cycle(&mut self, index: usize) {
        let database = self.records[index].written_in();
        let connection = self.connection(database, POOL);
        let commands = self.records[index].next();
        let slow = commands.len() > 1 && self.dice.usize(..SLOW_EVERY) == 0;
        let Some(replies) = self.write(connection, &commands, slow) else {
            return;
        };
        match self.records[index].take(&replies) {
            Written::Acknowledged => self.tally().writes += 1,
            Written::Lost => {
                self.tally().writes += 1;
                self.tally().lost += 1;
            }
            Written::Failed => return,
        }
        self.check(index, connection);
    }

    /// Reads over a connection that is not `other`. The version seen must not be older than the
    /// one acknowledged.
    fn check(&mut self, index: usize, other: usize) {
        let record = &self.records[index];
        let (database, question) = (record.read_in(), record.question());
        let connection = self.connection(database, other);
        let Some(replies) = self.say(connection, slice::from_ref(&question)) else {
            return;
        };
        let record = &self.records[index];
        let (Some(seen), known) = (record.seen(&replies[0]), record.acknowledged()) else {
            return;
        };
        self.tally().reads += 1;
        if seen >= known {
            return;
        }
        let truth = self.crowd.scene.ask_the_master(database, &question);
        let record = &self.records[index];
        let Some(there) = truth.as_ref().and_then(|reply| record.seen(reply)) else {
            self.tally().undecided += 1;
            return;
        };
        if seen < there {
            let kind = format!("{:?}", record.kind());
            let told = format!("{question:?}: {seen}, the master has {there}: {record:?}");
            self.found_stale(&kind, told);
        }
        if there < known {
            self.tally().lost += 1;
            self.records[index].go_on_from(there);
        }
    }

    fn any_record(&mut self) -> usize {
        self.dice.usize(..self.records.len() - 1)
    }

    /// Counts up a key of all clients, then reads another one, of which somebody else may have
    /// heard more.
    fn cycle_of_all(&mut self) {
        let truth = &self.crowd.scene.truth;
        let Some(losses) = truth.losses() else {
            return;
        };
        let key = |number| format!("shared:{losses}:{number}");
        let number = self.dice.usize(..SHARED);
        let writing = self.connection(0, POOL);
        let count = self.say(writing, &[vec!["INCR".to_owned(), key(number)]]);
        if let Some(count) = count.and_then(|replies| replies[0].int()) {
            self.tally().writes += 1;
            let mut shared = self.crowd.shared.lock().unwrap();
            let newest = shared.entry((losses, number)).or_default();
            *newest = count.max(*newest);
        }
        let number = self.dice.usize(..SHARED);
        let reading = self.connection(0, writing);
        let known = self
            .crowd
            .shared
            .lock()
            .unwrap()
            .get(&(losses, number))
            .copied();
        let question = vec!["GET".to_owned(), key(number)];
        let Some(replies) = self.say(reading, slice::from_ref(&question)) else {
            return;
        };
        if replies[0].error().is_some() {
            return;
        }
        self.tally().reads += 1;
        let count = |reply: &Reply| reply.text().map_or(0, |text| text.parse::<i64>().unwrap());
        let (known, seen) = (known.unwrap_or(0), count(&replies[0]));
        if seen >= known {
            return;
        }
        let there = self.crowd.scene.ask_the_master(0, &question);
        let there = there.map(|reply| count(&reply));
        match there {
            Some(there) if truth.losses() == Some(losses) => {
                if there < known {
                    self.tally().lost += 1;
                } else {
                    let told = format!("{question:?}: {seen}, known was {known}");
                    self.found_stale("Shared", told);
                }
            }
            _ => self.tally().undecided += 1,
        }
    }

    fn found_stale(&mut self, kind: &str, told: String) {
        let tally = self.tally();
        tally.stale += 1;
        *tally.stale_by.entry(kind.to_owned()).or_default() += 1;
        if tally.examples.len() < EXAMPLES {
            tally.examples.push(told);
        }
    }

    /// Says `commands` at once, or the last one a while after the others.
    fn write(
        &mut self,
        connection: usize,
        commands: &[Vec<String>],
        slow: bool,
    ) -> Option<Vec<Reply>> {
        let (last, others) = commands.split_last().filter(|_| slow).unzip();
        let (Some(last), Some(others)) = (last, others) else {
            return self.say(connection, commands);
        };
        let mut replies = self.say(connection, others)?;
        thread::sleep(PAUSE);
        replies.extend(self.say(connection, slice::from_ref(last))?);
        Some(replies)
    }

    /// Says `commands` at once. `None` where not all replies came; errors are replies, and counted.
    fn say(&mut self, connection: usize, commands: &[Vec<String>]) -> Option<Vec<Reply>> {
        let replies = match self.pool[connection].pipeline(commands) {
            Ok(replies) => replies,
            Err(error) => {
                let error = match error {
                    ClientError::Closed => "closed".to_owned(),
                    other => format!("{other}"),
                };
                *self.tally().errors.entry(error).or_default() += 1;
                self.pool[connection] = self.connect(connection);
                return None;
            }
        };
        for line in replies.iter().filter_map(Reply::error) {
            let word = line.split(' ').next().unwrap_or_default();
            *self.tally().errors.entry(word.to_owned()).or_default() += 1;
        }
        Some(replies)
    }

    /// A connection in `database` that is not `other`.
    fn connection(&mut self, database: usize, other: usize) -> usize {
        let all = if database == 0 {
            0..POOL - FOREIGN
        } else {
            POOL - FOREIGN..POOL
        };
        let mut index = self.dice.usize(all.clone());
        if index == other {
            index = if index + 1 == all.end {
                all.start
            } else {
                index + 1
            };
        }
        index
    }

    fn connect(&self, index: usize) -> Client {
        let mut client = self.crowd.scene.proxy.patient_client(PATIENCE);
        if index >= POOL - FOREIGN {
            let reply = client.command(&["SELECT", "1"]).unwrap();
            assert_eq!(reply, Reply::ok());
        }
        client
    }

    fn tally(&mut self) -> &mut Tally {
        let part = self.crowd.part.load(Ordering::Relaxed);
        &mut self.tallies[part]
    }
}
