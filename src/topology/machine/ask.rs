//! Floor 1. The pace of questions to one peer: one at a time, not too often, and never forgotten.
//! Knows neither the question nor the peer.

use std::time::Duration;

use crate::types::Time;

/// Two questions that events ask for are at least so far apart: one switch is a burst of events.
const GAP: Duration = Duration::from_millis(10);

/// What has been asked of one peer, and when it may be asked again.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    running: Option<Time>,
    last: Option<Time>,
    wanted: bool,
    not_before: Time,
    failures: u32,
}

impl Ask {
    /// Asks for a question as soon as the peer may be asked again. While one is running this means
    /// another one after it: its answer may be older than the news.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, without regard to failures: the peer has just shown that it lives.
    pub(super) fn want_now(&mut self) {
        self.wanted = true;
        self.not_before = Time::ZERO;
    }

    /// When the next question is due, given the pace of routine questions; `None` while one runs,
    /// or where no routine is wanted.
    pub(super) fn due(&self, pace: Option<Duration>) -> Option<Time> {
        if self.running.is_some() {
            return None;
        }
        let after = match (self.wanted, pace) {
            (true, _) => GAP,
            (false, Some(pace)) => pace,
            (false, None) => return None,
        };
        let regular = self.last.map_or(Time::ZERO, |last| last + after);
        Some(regular.max(self.not_before))
    }

    /// When the running question has to be given up.
    pub(super) fn lost_at(&self, lost: Duration) -> Option<Time> {
        self.running.map(|asked| asked + lost)
    }

    /// The question is being asked.
    pub(super) fn begin(&mut self, now: Time) {
        self.running = Some(now);
        self.last = Some(now);
        self.wanted = false;
    }

    /// An answer came. Returns when it was asked for, `None` where nothing was asked.
    pub(super) fn answered(&mut self) -> Option<Time> {
        let asked = self.running.take()?;
        self.failures = 0;
        self.not_before = Time::ZERO;
        Some(asked)
    }

    /// No answer came; the next question waits for `pause`, given the failures in a row.
    pub(super) fn failed(&mut self, now: Time, pause: impl Fn(u32) -> Duration) -> Option<Time> {
        let asked = self.running.take()?;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + pause(self.failures);
        Some(asked)
    }

    /// Failures since the last answer.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    const PACE: Option<Duration> = Some(Duration::from_secs(5));

    #[test]
    fn the_first_question_is_due_at_once_and_the_next_at_its_pace() {
        let mut ask = Ask::default();
        assert_eq!(ask.due(PACE), Some(Time::ZERO));
        ask.begin(at(100));
        assert_eq!(ask.due(PACE), None);
        assert_eq!(ask.answered(), Some(at(100)));
        assert_eq!(ask.due(PACE), Some(at(5_100)));
        assert_eq!(ask.due(None), None);
    }

    #[test]
    fn a_question_wanted_while_one_runs_is_asked_after_it() {
        let mut ask = Ask::default();
        ask.begin(at(100));
        ask.want();
        assert_eq!(ask.due(PACE), None);
        assert_eq!(ask.answered(), Some(at(100)));
        assert_eq!(ask.due(None), Some(at(110)));
    }

    #[test]
    fn failures_put_the_next_question_off_until_the_peer_shows_life() {
        let mut ask = Ask::default();
        ask.begin(at(0));
        assert_eq!(ask.failed(at(10), |_| Duration::from_secs(1)), Some(at(0)));
        ask.want();
        assert_eq!(ask.due(PACE), Some(at(1_010)));
        ask.want_now();
        assert_eq!(ask.due(PACE), Some(at(10)));
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_none() {
        assert_eq!(Ask::default().answered(), None);
    }
}
