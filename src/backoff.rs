//! Floor 0. How long to wait before trying again: attempt and a random word in, delay out.
//! Knows no clock and no chance of its own, and never sleeps.

use std::time::Duration;

/// Delays that double from attempt to attempt up to a limit, each one spread over its upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Longest delay before the second attempt.
    pub first: Duration,
    /// Longest delay at all.
    pub limit: Duration,
}

impl Backoff {
    /// Delays from `first` up to `limit`.
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit }
    }

    /// The wait after `failures` failures in a row; zero after none.
    ///
    /// `dice` is any random word: 0 gives half of the longest delay of this step, `u32::MAX` all of
    /// it. So proxies that lost the same server together do not return to it together.
    #[must_use]
    pub fn delay(&self, failures: u32, dice: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let longest = self.first.saturating_mul(factor).min(self.limit);
        let half = longest / 2;
        half + half.mul_f64(f64::from(dice) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

    #[test]
    fn the_first_attempt_waits_for_nothing() {
        assert_eq!(BACKOFF.delay(0, u32::MAX), Duration::ZERO);
    }

    #[test]
    fn delays_double_and_stop_at_the_limit() {
        let longest = |failures| BACKOFF.delay(failures, u32::MAX);
        assert_eq!(longest(1), Duration::from_millis(100));
        assert_eq!(longest(2), Duration::from_millis(200));
        assert_eq!(longest(6), Duration::from_millis(3_200));
        for failures in [7, 31, 32, 33, u32::MAX] {
            assert_eq!(longest(failures), Duration::from_secs(5), "{failures}");
        }
    }

    #[test]
    fn chance_moves_a_delay_within_its_upper_half() {
        assert_eq!(BACKOFF.delay(1, 0), Duration::from_millis(50));
        for dice in [1, 1 << 20, 1 << 31, u32::MAX - 1] {
            let delay = BACKOFF.delay(3, dice);
            assert!(delay >= Duration::from_millis(200), "{delay:?}");
            assert!(delay <= Duration::from_millis(400), "{delay:?}");
        }
    }
}
