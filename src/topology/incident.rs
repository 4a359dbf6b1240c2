//! Floor 1. The flight recorder: what was said by whom around each hold, and how it ended.
//! Knows nothing of what the machine makes of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{ConfigEpoch, Generation, NodeAddr, Time};

/// Incidents kept; older ones are forgotten.
pub const INCIDENTS_MAX: usize = 64;
/// Marks kept in one incident: a failover has about thirty, a long outage repeats itself.
pub const MARKS_MAX: usize = 128;
/// Marks kept while nothing happens, to explain the next incident.
const PRELUDE_MAX: usize = 32;
/// What was said this long before a hold, or after its end, belongs to it.
const AROUND: Duration = Duration::from_secs(15);

/// One hold of writes: from the first sign to a proven master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// Number, from 1, without gaps.
    pub number: u64,
    /// When writes were first held.
    pub started: Time,
    /// Why.
    pub cause: Cause,
    /// The master at that time.
    pub from: NodeAddr,
    /// Generation of the first snapshot that held.
    pub generation: Generation,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// What was said, oldest first; at most [`MARKS_MAX`].
    pub marks: Vec<Mark>,
    /// Marks that did not fit.
    pub marks_lost: u64,
}

/// The end of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The master with which writes went on; the old one if the switch was abandoned.
    pub to: NodeAddr,
    /// Whether it is another one than before.
    pub switched: bool,
    /// Configuration epoch then in use.
    pub epoch: ConfigEpoch,
    /// Time for which writes were held.
    pub took: Duration,
    /// Bytes of the old master's history, up to where it stood when the hold began, that the new
    /// one does not have: they were acknowledged and are lost. `None` where that is not known.
    pub forked: Option<u64>,
}

/// Why writes were held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody commanded Switchman to hold: a planned failover is being prepared.
    Switchover,
    /// A commanded failover began.
    ManualFailover,
    /// A failover was decided by election, or began while the master could not be reached.
    AutomaticFailover,
    /// The master answers as a replica.
    Demoted,
    /// The master cannot be connected to.
    MasterLost,
    /// The master is connected and silent.
    MasterSilent,
    /// A replica answers as a master before any Sentinel has said so.
    ReplicaPromoted,
    /// A Sentinel names another master.
    NewerView,
    /// Fewer than a majority of the Sentinels have answered for too long.
    NoMajority,
}

/// One thing said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was heard.
    pub at: Time,
    /// By whom.
    pub who: Witness,
    /// In words for a reader.
    pub what: String,
}

/// Who says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Witness {
    /// A Sentinel.
    Sentinel(NodeAddr),
    /// A data node.
    Node(NodeAddr),
    /// A worker thread, by its index.
    Worker(usize),
    /// The machine itself.
    Switchman,
}

/// The last [`INCIDENTS_MAX`] incidents.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    /// Shared with the pictures for operators; copied when it changes while one is looked at.
    incidents: VecDeque<Arc<Incident>>,
    prelude: VecDeque<Mark>,
    started: u64,
}

impl Incident {
    /// Milliseconds from the start of the hold to `mark`; negative before it.
    pub fn offset_ms(&self, mark: &Mark) -> i64 {
        let after = i64::try_from(mark.at.since(self.started).as_millis()).unwrap_or(i64::MAX);
        let before = i64::try_from(self.started.since(mark.at).as_millis()).unwrap_or(i64::MAX);
        after - before
    }

    fn covers(&self, now: Time) -> bool {
        match &self.outcome {
            None => true,
            Some(outcome) => now.since(self.started + outcome.took) <= AROUND,
        }
    }

    fn mark(&mut self, mark: Mark) {
        if self.marks.len() < MARKS_MAX {
            self.marks.push(mark);
        } else {
            self.marks_lost += 1;
        }
    }
}

impl Recorder {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The incidents kept, oldest first.
    pub fn incidents(&self) -> impl Iterator<Item = &Arc<Incident>> {
        self.incidents.iter()
    }

    /// Notes what somebody said. A repetition of the last words of the same speaker is dropped.
    pub fn mark(&mut self, mark: Mark) {
        let repeats = |last: Option<&Mark>| {
            last.is_some_and(|last| last.who == mark.who && last.what == mark.what)
        };
        match self
            .incidents
            .back_mut()
            .filter(|incident| incident.covers(mark.at))
        {
            Some(incident) => {
                if !repeats(
                    incident
                        .marks
                        .iter()
                        .rev()
                        .find(|last| last.who == mark.who),
                ) {
                    Arc::make_mut(incident).mark(mark);
                }
            }
            None if repeats(self.prelude.iter().rev().find(|last| last.who == mark.who)) => {}
            None => {
                if self.prelude.len() == PRELUDE_MAX {
                    self.prelude.pop_front();
                }
                self.prelude.push_back(mark);
            }
        }
    }

    /// Opens an incident; what was said shortly before becomes its beginning.
    pub fn open(&mut self, now: Time, cause: Cause, from: NodeAddr, generation: Generation) {
        self.started += 1;
        if self.incidents.len() == INCIDENTS_MAX {
            self.incidents.pop_front();
        }
        let marks = self
            .prelude
            .drain(..)
            .filter(|mark| now.since(mark.at) <= AROUND)
            .collect::<Vec<_>>();
        self.incidents.push_back(Arc::new(Incident {
            number: self.started,
            started: now,
            cause,
            from,
            generation,
            outcome: None,
            marks,
            marks_lost: 0,
        }));
    }

    /// Ends the open incident and returns it, or `None` where none is open.
    pub fn close(&mut self, outcome: Outcome) -> Option<&Incident> {
        let incident = self
            .incidents
            .back_mut()
            .filter(|open| open.outcome.is_none())?;
        Arc::make_mut(incident).outcome = Some(outcome);
        Some(incident)
    }
}

impl Cause {
    /// The cause in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::ManualFailover => "manual failover",
            Self::AutomaticFailover => "automatic failover",
            Self::Demoted => "master demoted",
            Self::MasterLost => "master lost",
            Self::MasterSilent => "master silent",
            Self::ReplicaPromoted => "replica promoted",
            Self::NewerView => "newer address",
            Self::NoMajority => "no majority of sentinels",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sentinel(addr) => write!(f, "sentinel {addr}"),
            Self::Node(addr) => write!(f, "node {addr}"),
            Self::Worker(index) => write!(f, "worker {index}"),
            Self::Switchman => f.write_str("switchman"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    fn said(ms: u64, what: &str) -> Mark {
        Mark {
            at: at(ms),
            who: Witness::Switchman,
            what: what.to_owned(),
        }
    }

    fn master() -> NodeAddr {
        "10.0.0.1:6379".parse().unwrap()
    }

    fn open(recorder: &mut Recorder, ms: u64) {
        recorder.open(at(ms), Cause::MasterLost, master(), Generation::new(2));
    }

    fn close(recorder: &mut Recorder, took: u64) {
        let took = Duration::from_millis(took);
        let epoch = ConfigEpoch::new(1);
        recorder
            .close(Outcome {
                to: master(),
                switched: false,
                epoch,
                took,
                forked: None,
            })
            .unwrap();
    }

    #[test]
    fn an_incident_begins_with_what_was_said_shortly_before() {
        let mut recorder = Recorder::new();
        recorder.mark(said(1_000, "long ago"));
        recorder.mark(said(29_500, "+sdown"));
        open(&mut recorder, 30_000);
        recorder.mark(said(30_200, "+elected-leader"));
        let incident = recorder.incidents().next().unwrap();
        let offsets: Vec<_> = incident
            .marks
            .iter()
            .map(|mark| (incident.offset_ms(mark), &*mark.what))
            .collect();
        assert_eq!(offsets, [(-500, "+sdown"), (200, "+elected-leader")]);
    }

    #[test]
    fn the_aftermath_of_an_incident_still_belongs_to_it() {
        let mut recorder = Recorder::new();
        open(&mut recorder, 0);
        close(&mut recorder, 1_000);
        recorder.mark(said(12_000, "+convert-to-slave"));
        recorder.mark(said(60_000, "another day"));
        let incident = recorder.incidents().next().unwrap();
        assert_eq!(incident.marks.len(), 1);
    }

    #[test]
    fn one_speaker_repeating_itself_is_noted_once() {
        let mut recorder = Recorder::new();
        open(&mut recorder, 0);
        for ms in 1..100 {
            recorder.mark(said(ms, "no connection"));
        }
        assert_eq!(recorder.incidents().next().unwrap().marks.len(), 1);
    }

    #[test]
    fn incidents_and_marks_are_bounded() {
        let mut recorder = Recorder::new();
        for number in 0..100 {
            open(&mut recorder, number * 100_000);
            for mark in 0..200 {
                recorder.mark(said(number * 100_000, &mark.to_string()));
            }
            close(&mut recorder, 1);
        }
        assert_eq!(recorder.incidents().count(), INCIDENTS_MAX);
        let last = recorder.incidents().last().unwrap();
        assert_eq!(last.number, 100);
        assert_eq!((last.marks.len(), last.marks_lost), (MARKS_MAX, 72));
    }
}
