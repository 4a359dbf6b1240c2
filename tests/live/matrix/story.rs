//! What the clients of a cell saw, and what is wrong with it.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use switchman::demo::client::{ClientError, Reply};
use switchman::demo::process::Process;

use crate::lab::tell;
use crate::matrix::figures::report;

/// Time before a master's death in which an acknowledged write may be lost: replication is
/// asynchronous.
const LAG_MAX: Duration = Duration::from_secs(1);

/// Time that a reply may be on its way to the client when the master that gave it has died. Any
/// other master needs Sentinel's down-after first, a second at least.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// What the clients saw.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) writes: Vec<Vec<Attempt>>,
    pub(super) reads: Vec<Vec<Reading>>,
}

/// One token, and what its client heard of it.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) token: String,
    pub(super) sent: Instant,
    pub(super) done: Instant,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// The length of the list, and so the place of the token.
    Acknowledged(i64),
    /// It may or may not be there.
    Uncertain,
    /// It was not sent.
    Refused,
    /// No reply: the connection was closed, or stayed silent.
    Unanswered(#[expect(dead_code, reason = "shown where the test fails")] ClientError),
    /// Nothing of the kind.
    Wrong(#[expect(dead_code, reason = "shown where the test fails")] Reply),
}

impl Outcome {
    pub(super) fn of(reply: Result<Reply, ClientError>) -> Self {
        match reply {
            Ok(Reply::Int(place)) => Self::Acknowledged(place),
            Ok(Reply::Error(line)) if line.starts_with("UNCERTAIN ") => Self::Uncertain,
            Ok(Reply::Error(line)) if line.starts_with("MASTERDOWN switchman: ") => Self::Refused,
            Ok(other) => Self::Wrong(other),
            Err(error) => Self::Unanswered(error),
        }
    }

    pub(super) fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Acknowledged(_))
    }

    /// Whether no client may ever see it.
    pub(super) fn is_wrong(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Wrong(_))
    }
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) asked: Instant,
    pub(super) done: Instant,
    pub(super) wrong: Option<String>,
}

/// Why an acknowledged write may be lost.
#[derive(Clone, Debug)]
pub(super) enum Loss {
    /// A master died, or fell silent for good, at this moment: with what replication had not
    /// carried yet, and that is the end of what it had acknowledged.
    Death(Instant),
    /// Nobody could tell Switchman that its master was being replaced.
    Untold(Range<Instant>),
}

/// What came of a scene.
#[derive(Debug, Default)]
pub(super) struct Figures {
    acknowledged: usize,
    /// Acknowledged, and not there.
    pub(super) lost: usize,
    /// Tokens that are there more than once.
    twice: usize,
    /// Replies that belong to another command.
    misdelivered: usize,
    /// Commands without a reply.
    unanswered: usize,
    pub(super) uncertain: usize,
    /// Most UNCERTAIN that one client got.
    pub(super) uncertain_each: usize,
    /// UNCERTAIN, and not there.
    pub(super) uncertain_absent: usize,
    pub(super) refused: usize,
    /// Said not to be sent, and there.
    belied: usize,
    /// Other replies to a write.
    wrong: usize,
    reads: usize,
    read_errors: usize,
    pub(super) longest_silence: Duration,
    pub(super) longest_read: Duration,
}

impl Story {
    /// Checks what holds in every cell, against the data of `master`, and prints the figures. Only
    /// what one of `losses` explains may be lost.
    pub(super) fn judge(&self, fault: &str, master: &Process, losses: &[Loss]) -> Figures {
        let stored = tell(master, &["LRANGE", "tokens", "0", "-1"]);
        let stored: Vec<String> = stored.items().iter().filter_map(Reply::text).collect();
        let mut places = HashMap::new();
        let mut figures = self.figures();
        for (place, token) in (1_i64..).zip(&stored) {
            let before = places.insert(token.as_str(), place);
            figures.twice += usize::from(before.is_some());
        }
        let mut broken = Vec::new();
        for attempt in self.writes.iter().flatten() {
            let place = places.get(attempt.token.as_str()).copied();
            let (count, breach) = match (&attempt.outcome, place) {
                (Outcome::Acknowledged(reply), Some(place)) if *reply != place => {
                    (&mut figures.misdelivered, true)
                }
                (Outcome::Acknowledged(reply), None) => {
                    let explains = |loss| self.explains(loss, attempt, *reply, &places);
                    (&mut figures.lost, !losses.iter().any(explains))
                }
                (Outcome::Uncertain, None) => (&mut figures.uncertain_absent, false),
                (Outcome::Refused, Some(_)) => (&mut figures.belied, true),
                (Outcome::Unanswered(_), _) => (&mut figures.unanswered, true),
                (Outcome::Wrong(_), _) => (&mut figures.wrong, true),
                _ => continue,
            };
            *count += 1;
            if breach {
                broken.push((attempt, place));
            }
        }
        figures.print(fault);
        let first = &broken[..broken.len().min(5)];
        assert!(
            broken.is_empty(),
            "{fault}: {} promises broken: {first:#?}; losses {losses:?}; {figures:#?}",
            broken.len()
        );
        assert_eq!(figures.twice, 0, "{fault}: applied twice: {figures:#?}");
        let wrong = self.reads.iter().flatten().find(|it| it.wrong.is_some());
        assert!(wrong.is_none(), "{fault}: a read failed: {wrong:?}");
        figures
    }

    /// Whether `loss` explains that `attempt` is not there, which was told to have `place`.
    fn explains(
        &self,
        loss: &Loss,
        attempt: &Attempt,
        place: i64,
        places: &HashMap<&str, i64>,
    ) -> bool {
        match loss {
            Loss::Untold(span) => span.contains(&attempt.done),
            Loss::Death(death) => {
                let died_with_it = |it: &Attempt| {
                    it.sent <= *death
                        && it.done <= *death + ON_ITS_WAY
                        && it.done + LAG_MAX >= *death
                };
                // Replication carries everything up to some place, and nothing behind it.
                let carried = |it: &&Attempt| {
                    let Outcome::Acknowledged(told) = it.outcome else {
                        return false;
                    };
                    told > place && died_with_it(it) && places.contains_key(it.token.as_str())
                };
                died_with_it(attempt) && !self.writes.iter().flatten().any(|it| carried(&it))
            }
        }
    }

    /// The longest time without an acknowledgement for some writer that began in `window`.
    pub(super) fn longest_silence(&self, window: &Range<Instant>) -> Duration {
        let silence = |own: &Vec<Attempt>| {
            let answers: Vec<Instant> = own
                .iter()
                .filter(|it| it.outcome.is_acknowledged())
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
        let after = all.filter(|it| it.outcome.is_acknowledged() && it.done > news);
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
        answered.any(|it| !it.outcome.is_acknowledged())
    }

    /// The shortest time after which a write was answered with `-MASTERDOWN`.
    pub(super) fn shortest_refusal(&self) -> Option<Duration> {
        let all = self.writes.iter().flatten();
        let refused = all.filter(|it| matches!(it.outcome, Outcome::Refused));
        refused.map(|it| it.done - it.sent).min()
    }

    /// What can be told without the data.
    fn figures(&self) -> Figures {
        let count = |own: &Vec<Attempt>, which: fn(&Outcome) -> bool| {
            own.iter().filter(|it| which(&it.outcome)).count()
        };
        let sum = |which| self.writes.iter().map(|own| count(own, which)).sum();
        let uncertain: fn(&Outcome) -> bool = |it| matches!(it, Outcome::Uncertain);
        let each = self.writes.iter().map(|own| count(own, uncertain));
        let first = self.writes.iter().flatten().map(|it| it.sent).min();
        let now = Instant::now();
        let always = first.unwrap_or(now)..now;
        let reads = || self.reads.iter().flatten();
        Figures {
            acknowledged: sum(Outcome::is_acknowledged),
            uncertain: sum(uncertain),
            uncertain_each: each.max().unwrap_or_default(),
            refused: sum(|it| matches!(it, Outcome::Refused)),
            reads: reads().count(),
            read_errors: reads().filter(|it| it.wrong.is_some()).count(),
            longest_silence: self.longest_silence(&always),
            longest_read: self.longest_read(&always),
            ..Figures::default()
        }
    }
}

impl Figures {
    /// Nobody noticed anything but the time that it took.
    pub(super) fn expect_no_error(&self) {
        let errors = (self.lost, self.uncertain, self.refused);
        assert_eq!(errors, (0, 0, 0), "{self:#?}");
    }

    /// No client was left in doubt more than `doubts` times, nor heard another error.
    pub(super) fn expect_doubts(&self, doubts: usize) {
        assert!(self.uncertain_each <= doubts, "{self:#?}");
        assert_eq!(self.refused, 0, "{self:#?}");
    }

    fn print(&self, fault: &str) {
        println!("{fault}: {self:?}");
        report(&[
            ("fault", &fault),
            ("acknowledged", &self.acknowledged),
            ("lost", &self.lost),
            ("twice", &self.twice),
            ("misdelivered", &self.misdelivered),
            ("unanswered", &self.unanswered),
            ("uncertain", &self.uncertain),
            ("uncertain_each", &self.uncertain_each),
            ("refused", &self.refused),
            ("belied", &self.belied),
            ("wrong", &self.wrong),
            ("reads", &self.reads),
            ("read_errors", &self.read_errors),
        ]);
    }
}
