//! Floor 6. What the client of the story sends next, and what each of its ten keys may hold.
//! Pure: no socket, no clock. Knows replies, not where they come from.

use std::collections::VecDeque;

use crate::demo::client::Reply;

/// Keys in use; the first half holds texts, the second half counters.
const KEYS: usize = 10;
/// One command in so many is a write, as in an application that mostly reads.
const WRITE_EACH: usize = 10;
/// Values that a key has held before and that a replica may still have: about five seconds' worth.
const PAST_MAX: usize = 16;
/// One write in so many deletes its key.
const DELETE_EACH: usize = 4;

/// What the client does to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// `GET`
    Get,
    /// `SET`
    Set,
    /// `INCR`
    Incr,
    /// `DEL`
    Del,
}

impl Act {
    /// All of them, in the order of every table.
    pub(super) const ALL: [Self; 4] = [Self::Get, Self::Set, Self::Incr, Self::Del];

    /// The command's name as Redis has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Incr => "INCR",
            Self::Del => "DEL",
        }
    }

    /// Whether it changes its key.
    pub(super) fn is_write(self) -> bool {
        self != Self::Get
    }
}

/// One command of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What is done.
    pub(super) act: Act,
    /// Which key, from 0.
    key: usize,
    /// What `SET` writes.
    value: String,
}

impl Step {
    /// The words to send.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = vec![self.act.name().to_owned(), key_name(self.key)];
        if self.act == Act::Set {
            words.push(self.value.clone());
        }
        words
    }
}

/// What a reply was worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// What everything acknowledged so far allows.
    Right,
    /// A read that was answered by what the key held before: a replica was a moment behind.
    Behind,
    /// Something else: an acknowledged write is missing, or one was made that nobody sent.
    Wrong(String),
    /// Sent, but nobody knows whether it was executed.
    Uncertain,
    /// Not executed, with the error's words.
    Refused(String),
}

/// What each key may hold, after all that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    steps: usize,
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    /// More than one, where the outcome of a write is unknown, until the reply to a later write
    /// settles it. A read does not: it may come from a replica that is behind.
    possible: Vec<Option<String>>,
    /// What it held before, the last [`PAST_MAX`] of it.
    past: VecDeque<Option<String>>,
}

impl Ledger {
    /// A ledger of keys that do not exist.
    pub(super) fn new() -> Self {
        Self {
            steps: 0,
            keys: vec![Key::new(); KEYS],
        }
    }

    /// What to send next: always the same sequence.
    pub(super) fn next_step(&mut self) -> Step {
        let number = self.steps;
        self.steps += 1;
        let (round, place) = (number / WRITE_EACH, number % WRITE_EACH);
        let (act, key) = if place + 1 < WRITE_EACH {
            (Act::Get, number % KEYS)
        } else {
            let key = round % KEYS;
            (write_of(round / KEYS + key, key), key)
        };
        let value = format!("value-{number}");
        Step { act, key, value }
    }

    /// Compares a reply with what was possible, and keeps what it has settled.
    pub(super) fn judge(&mut self, step: &Step, reply: &Reply) -> Outcome {
        let Some(key) = self.keys.get_mut(step.key) else {
            return Outcome::Wrong("a key that is not in use".to_owned());
        };
        if let Some(line) = reply.error() {
            if !(line.starts_with("UNCERTAIN ") && step.act.is_write()) {
                return Outcome::Refused(line.to_owned());
            }
            key.may_have_done(step);
            return Outcome::Uncertain;
        }
        let fits = |old: &&Option<String>| answer(step, old.as_deref()) == *reply;
        if let Some(old) = key.possible.iter().find(fits).cloned() {
            if step.act.is_write() {
                key.has_done(step, old.as_deref());
            }
            return Outcome::Right;
        }
        if !step.act.is_write() && key.past.iter().any(|old| fits(&old)) {
            return Outcome::Behind;
        }
        Outcome::Wrong(format!(
            "{} answered {reply:?}, possible before: {:?}",
            step.words().join(" "),
            key.possible
        ))
    }

    /// A read of each key: what is to be found there at the end.
    pub(super) fn review() -> Vec<Step> {
        let review = |key| Step {
            act: Act::Get,
            key,
            value: String::new(),
        };
        (0..KEYS).map(review).collect()
    }
}

impl Key {
    fn new() -> Self {
        Self {
            possible: vec![None],
            past: VecDeque::new(),
        }
    }

    /// The step was executed, and the key held `old` before.
    fn has_done(&mut self, step: &Step, old: Option<&str>) {
        let now = vec![after(step, old)];
        self.past.extend(std::mem::replace(&mut self.possible, now));
        let excess = self.past.len().saturating_sub(PAST_MAX);
        self.past.drain(..excess);
    }

    /// The step was executed or not.
    fn may_have_done(&mut self, step: &Step) {
        let done = self.possible.iter().map(|old| after(step, old.as_deref()));
        let done: Vec<_> = done.collect();
        self.possible.extend(done);
    }
}

/// Which write comes to `key` as its turn number `turn`.
fn write_of(turn: usize, key: usize) -> Act {
    if turn % DELETE_EACH == DELETE_EACH - 1 {
        Act::Del
    } else if key < KEYS / 2 {
        Act::Set
    } else {
        Act::Incr
    }
}

/// What the key holds after the step, if it held `old` before.
fn after(step: &Step, old: Option<&str>) -> Option<String> {
    match step.act {
        Act::Get => old.map(str::to_owned),
        Act::Set => Some(step.value.clone()),
        Act::Incr => Some((number(old) + 1).to_string()),
        Act::Del => None,
    }
}

/// What Redis answers to the step, if the key holds `old`.
fn answer(step: &Step, old: Option<&str>) -> Reply {
    match (step.act, old) {
        (Act::Get, None) => Reply::Null,
        (Act::Get, Some(value)) => Reply::bulk(value),
        (Act::Set, _) => Reply::ok(),
        (Act::Incr, old) => Reply::Int(number(old) + 1),
        (Act::Del, old) => Reply::Int(i64::from(old.is_some())),
    }
}

/// A counter's value; one that does not exist counts from 0. Counters hold nothing but numbers.
fn number(value: Option<&str>) -> i64 {
    value.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn key_name(key: usize) -> String {
    format!("demo:{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(act: Act, key: usize, value: &str) -> Step {
        let value = value.to_owned();
        Step { act, key, value }
    }

    #[test]
    fn each_act_comes_within_a_second_of_the_story() {
        let mut ledger = Ledger::new();
        let acts: Vec<Act> = (0..300).map(|_| ledger.next_step().act).collect();
        for act in Act::ALL {
            assert!(acts.contains(&act), "{act:?}");
        }
        let writes = acts.iter().filter(|act| act.is_write()).count();
        assert_eq!(writes, 300 / WRITE_EACH);
    }

    #[test]
    fn a_write_that_nobody_sent_is_a_wrong_reply() {
        let mut ledger = Ledger::new();
        let incr = step(Act::Incr, 5, "");
        assert_eq!(ledger.judge(&incr, &Reply::Int(1)), Outcome::Right);
        // Lost: counts from nothing again. Doubled: one is skipped.
        for reply in [Reply::Int(1), Reply::Int(3)] {
            let outcome = ledger.judge(&incr, &reply);
            assert!(matches!(outcome, Outcome::Wrong(_)), "{outcome:?}");
        }
    }

    #[test]
    fn a_read_may_be_behind_but_not_ahead() {
        let mut ledger = Ledger::new();
        for value in ["a", "b"] {
            let set = step(Act::Set, 0, value);
            assert_eq!(ledger.judge(&set, &Reply::ok()), Outcome::Right);
        }
        let get = step(Act::Get, 0, "");
        assert_eq!(ledger.judge(&get, &Reply::bulk("b")), Outcome::Right);
        assert_eq!(ledger.judge(&get, &Reply::bulk("a")), Outcome::Behind);
        assert_eq!(ledger.judge(&get, &Reply::Null), Outcome::Behind);
        let ahead = ledger.judge(&get, &Reply::bulk("c"));
        assert!(matches!(ahead, Outcome::Wrong(_)), "{ahead:?}");
    }

    #[test]
    fn an_uncertain_increment_may_have_happened_once_or_not_at_all() {
        let unknown = Reply::Error("UNCERTAIN switchman: lost".to_owned());
        let check = |then: i64, right: bool| {
            let mut ledger = Ledger::new();
            let incr = step(Act::Incr, 5, "");
            assert_eq!(ledger.judge(&incr, &Reply::Int(1)), Outcome::Right);
            assert_eq!(ledger.judge(&incr, &unknown), Outcome::Uncertain);
            let outcome = ledger.judge(&incr, &Reply::Int(then));
            assert_eq!(outcome == Outcome::Right, right, "{then}: {outcome:?}");
        };
        check(2, true);
        check(3, true);
        check(4, false);
    }

    #[test]
    fn a_refused_write_leaves_the_key_as_it_was() {
        let mut ledger = Ledger::new();
        let refused = Reply::Error("MASTERDOWN switchman: no master".to_owned());
        let outcome = ledger.judge(&step(Act::Set, 0, "a"), &refused);
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        let read = ledger.judge(&step(Act::Get, 0, ""), &Reply::Null);
        assert_eq!(read, Outcome::Right);
    }
}
