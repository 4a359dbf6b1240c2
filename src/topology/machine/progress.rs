//! Floor 1. How long ago a replica had all that its master had: from offsets that both have told.
//!
//! The master is asked about once a second, and its answers are kept: it had written so far when it
//! was asked. A replica that has applied as much has everything from before that moment. So its lag
//! is 0 if it has what the master told last before the replica was asked, and else the time since
//! the newest of the master's answers that it has. Writes of the last second are not seen.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::{NodeAddr, Time};

/// Answers of a master that are kept, and how far apart they are at least: two minutes.
const SAMPLES_MAX: usize = 240;
const APART: Duration = Duration::from_millis(500);

/// How far one master had come, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    master: Option<NodeAddr>,
    /// Oldest first; offsets never fall.
    samples: VecDeque<(Time, u64)>,
}

impl Progress {
    /// A master had written `offset` bytes when it was `asked`.
    pub(super) fn note(&mut self, master: &NodeAddr, asked: Time, offset: u64) {
        let newest = self.samples.back();
        let other = self.master.as_ref() != Some(master);
        if other || newest.is_some_and(|(_, before)| *before > offset) {
            self.master = Some(master.clone());
            self.samples.clear();
        }
        let before = self.samples.len().checked_sub(2);
        let before = before.and_then(|at| self.samples.get(at));
        if before.is_some_and(|(at, _)| asked.since(*at) < APART) {
            // The newest is replaced, and those before it stay apart.
            self.samples.pop_back();
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((asked, offset));
    }

    /// How far behind a replica is that had applied `offset` bytes when it was `asked`; at least so
    /// far, if it is further behind than is remembered. `None` if the master has told nothing
    /// before.
    pub(super) fn lag(&self, asked: Time, offset: u64) -> Option<Duration> {
        let samples = self.samples.iter().rev();
        let mut before = samples.skip_while(|(at, _)| *at > asked).peekable();
        let (_, newest) = before.peek()?;
        if *newest <= offset {
            return Some(Duration::ZERO);
        }
        let had = before.find(|(_, told)| *told <= offset);
        let (at, _) = had.or(self.samples.front())?;
        Some(asked.since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn master() -> NodeAddr {
        NodeAddr::new("m", 1).unwrap()
    }

    /// 100 bytes are written each second.
    fn progress(seconds: u64) -> Progress {
        let mut progress = Progress::default();
        for second in 1..=seconds {
            progress.note(&master(), at(second * 1000), second * 100);
        }
        progress
    }

    #[test]
    fn a_replica_is_as_late_as_the_newest_of_the_masters_answers_that_it_has() {
        let progress = progress(10);
        let lag = |millis, offset| progress.lag(at(millis), offset).map(|it| it.as_millis());
        assert_eq!(lag(10_400, 1000), Some(0));
        assert_eq!(lag(10_400, 1030), Some(0));
        assert_eq!(lag(10_400, 999), Some(1_400));
        assert_eq!(lag(10_400, 500), Some(5_400));
        assert_eq!(lag(10_400, 0), Some(9_400), "at least");
        assert_eq!(lag(9_900, 950), Some(0), "the master was asked later");
        assert_eq!(lag(500, 0), None);
    }

    #[test]
    fn another_master_or_another_history_begins_anew() {
        let mut progress = progress(10);
        progress.note(&master(), at(11_000), 5);
        assert_eq!(progress.lag(at(11_500), 5), Some(Duration::ZERO));
        progress.note(&NodeAddr::new("n", 1).unwrap(), at(12_000), 900);
        assert_eq!(progress.lag(at(11_900), 5), None);
    }

    #[test]
    fn many_answers_in_a_hurry_do_not_drive_out_the_old_ones() {
        let mut progress = progress(10);
        for step in 0..2_000 {
            progress.note(&master(), at(10_000 + step), 1_000 + step);
        }
        assert_eq!(progress.lag(at(12_000), 500), Some(Duration::from_secs(7)));
        assert!(progress.samples.len() < 16, "{}", progress.samples.len());
    }
}
