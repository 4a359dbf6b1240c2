//! Switchman against a bare Redis: the same sequences of commands, sent through Switchman and to
//! the master of a deployment that is alike, must get the same replies, byte for byte.
//!
//! A sequence follows from its number: several clients, each over a connection of its own on both
//! sides, send pipelines in turn: commands of all families, good, wrong and odd, by both protocols,
//! in transactions and scripts, in several databases. Reads go to replicas as `own-writes` lets
//! them; pauses let replicas get everything, so that they serve a good part.
//!
//! `rules` holds what differs between any two servers, `tables` what is never sent and the
//! exceptions. A difference is made small and told in words that `redis-cli` takes.
//!
//! * `SWITCHMAN_DIFF_SEQUENCE`: this sequence only, with its whole story;
//! * `SWITCHMAN_DIFF_COMMANDS`: so many commands;
//! * `SWITCHMAN_DIFF_SEQUENCES`: so many sequences;
//! * `SWITCHMAN_DIFF_SECONDS`: sequences for so long;
//! * `SWITCHMAN_DIFF_FIRST`: the first sequence, instead of 0;
//! * `SWITCHMAN_DIFF_ALL`: in every other sequence something of what is known to differ, and stands
//!   in README.

mod dice;
mod frame;
mod grammar;
mod plan;
mod play;
mod rules;
mod scene;
mod shrink;
mod tables;

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use crate::differential::plan::{Plan, Scope, Spec};
use crate::differential::play::{Counts, Difference, play};
use crate::differential::rules::RULES;
use crate::differential::scene::Scene;
use crate::differential::shrink::{shrink, tell};
use crate::differential::tables::{EXCEPTIONS, KNOWN_TO_DIFFER, LEFT_OUT};

/// Commands of a run that nobody asked to be longer.
const COMMANDS: u64 = 20_000;

/// Reads of a hundred that replicas have to serve.
const BY_REPLICAS_MIN: u64 = 20;

/// Rows that the exceptions may have.
const EXCEPTIONS_MAX: usize = 15;

/// Differences that are made small; more are only counted.
const TOLD_MAX: usize = 60;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

#[test]
fn a_client_cannot_tell_switchman_from_redis() {
    let mut scene = Scene::start();
    let known = scene.known();
    println!("redis {}, {} commands", scene.version(), known.len());
    let scopes = Scopes {
        known,
        all: number("SWITCHMAN_DIFF_ALL").is_some(),
        loses_logins: scene.loses_logins,
    };
    if let Some(sequence) = number("SWITCHMAN_DIFF_SEQUENCE") {
        return tell_one(&mut scene, &scopes.plan(sequence));
    }
    let mut run = Run::default();
    run.all(&mut scene, &scopes);
    run.report(&scene);
    assert!(scene.is_whole(), "a node has ended");
    assert!(run.found.is_empty(), "{} differences", run.found.len());
    let (replicas, master) = scene.reads();
    assert!(
        replicas * 100 >= (replicas + master) * BY_REPLICAS_MIN,
        "replicas served {replicas} reads, the master {master}"
    );
}

#[test]
fn exceptions_are_few() {
    assert!(EXCEPTIONS.len() <= EXCEPTIONS_MAX);
}

/// What sequences are made of.
#[derive(Debug)]
struct Scopes {
    /// The server's commands.
    known: Vec<Spec>,
    /// Whether what is known to differ is played too.
    all: bool,
    /// See [`Scene::loses_logins`].
    loses_logins: bool,
}

impl Scopes {
    /// A sequence ends where it shows a difference: every other one has something that is known to
    /// differ, one thing after the other.
    fn plan(&self, number: u64) -> Plan {
        let turn = usize::try_from(number / 2).unwrap_or_default() % KNOWN_TO_DIFFER.len().max(1);
        let played = (self.all && number.is_multiple_of(2)).then_some(turn);
        let without = KNOWN_TO_DIFFER.iter().enumerate();
        let without = without.filter(|(at, _)| Some(*at) != played);
        Scope {
            known: self.known.clone(),
            without: without.map(|(_, known)| known).collect(),
            loses_logins: self.loses_logins,
        }
        .plan(number)
    }
}

/// Differences that are alike.
#[derive(Debug)]
struct Found {
    times: u64,
    sequence: u64,
    shortest: Option<(Plan, Difference)>,
    first: Difference,
}

/// Sequences one after the other.
#[derive(Debug, Default)]
struct Run {
    sequences: u64,
    counts: Counts,
    took: Duration,
    found: BTreeMap<String, Found>,
}

impl Run {
    fn all(&mut self, scene: &mut Scene, scopes: &Scopes) {
        let began = Instant::now();
        let first = number("SWITCHMAN_DIFF_FIRST").unwrap_or(0);
        let sequences = number("SWITCHMAN_DIFF_SEQUENCES");
        let seconds = number("SWITCHMAN_DIFF_SECONDS").map(Duration::from_secs);
        let commands = number("SWITCHMAN_DIFF_COMMANDS");
        let by_default = sequences.is_none() && seconds.is_none();
        let commands = commands.or(by_default.then_some(COMMANDS));
        loop {
            let enough = sequences.is_some_and(|it| self.sequences >= it)
                || seconds.is_some_and(|it| began.elapsed() >= it)
                || commands.is_some_and(|it| self.counts.commands() >= it);
            if enough {
                break;
            }
            self.one(scene, &scopes.plan(first + self.sequences));
            self.sequences += 1;
        }
        self.took = began.elapsed();
    }

    fn one(&mut self, scene: &mut Scene, plan: &Plan) {
        let (counts, difference) = play(scene, plan, None);
        self.counts.add(&counts);
        let Some(difference) = difference else {
            return;
        };
        if let Some(found) = self.found.get_mut(&difference.likeness) {
            found.times += 1;
            return;
        }
        let small = self.found.len() < TOLD_MAX;
        let shortest = small.then(|| shrink(scene, plan, &difference)).flatten();
        let found = Found {
            times: 1,
            sequence: plan.number,
            shortest,
            first: difference.clone(),
        };
        found.tell();
        self.found.insert(difference.likeness, found);
    }

    fn report(&self, scene: &Scene) {
        let counts = &self.counts;
        println!(
            "{} commands in {} sequences, {:.1} s: {} errors, {} news",
            counts.commands(),
            self.sequences,
            self.took.as_secs_f64(),
            counts.errors,
            counts.news,
        );
        println!("by family: {:?}", counts.by_family);
        println!("made equal by rules:");
        for rule in RULES {
            let times = counts.by_rule.get(rule.name).copied().unwrap_or_default();
            println!("  {times} {}: {}", rule.name, rule.why);
        }
        println!("exceptions:");
        for it in EXCEPTIONS {
            let (name, what) = (it.commands[0], it.what);
            let times = counts.by_exception.get(name).copied().unwrap_or_default();
            println!("  {times} {:?}: {what}, as {}", it.commands, it.why);
        }
        let (replicas, master) = scene.reads();
        println!(
            "reads: {replicas} by replicas, {master} by the master; {:?}",
            scene.settled
        );
        if scene.loses_logins {
            println!(
                "each login sent first: this server loses the reply to a failed one otherwise"
            );
        }
        println!("never sent with arguments that fit:");
        for it in LEFT_OUT {
            println!("  {}: {}", it.name, it.why);
        }
        println!("known to differ, and played with SWITCHMAN_DIFF_ALL only:");
        for it in KNOWN_TO_DIFFER {
            println!("  {}: {}", it.name, it.why);
        }
        println!("differences: {}", self.found.len());
        for (likeness, found) in &self.found {
            println!(
                "  {} times, first in {}, {}: {likeness}",
                found.times, found.sequence, found.first.family
            );
        }
    }
}

impl Found {
    fn tell(&self) {
        println!(
            "DIFFERENCE {} (sequence {})",
            self.first.likeness, self.sequence
        );
        match &self.shortest {
            Some((plan, difference)) => println!("{}\n{difference}\n", tell(plan)),
            None => println!(
                "not made smaller; in sequence {}:\n{}\n",
                self.sequence, self.first
            ),
        }
    }
}

/// Tells a sequence with all its replies.
fn tell_one(scene: &mut Scene, plan: &Plan) {
    let mut story = Vec::new();
    let (_, difference) = play(scene, plan, Some(&mut story));
    println!("{}", story.join("\n"));
    if let Some(difference) = difference {
        let found = Found {
            times: 1,
            sequence: plan.number,
            shortest: shrink(scene, plan, &difference),
            first: difference,
        };
        found.tell();
        panic!("sequence {} shows a difference", plan.number);
    }
}
