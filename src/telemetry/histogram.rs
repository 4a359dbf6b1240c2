//! Floor 0. Durations in fixed buckets: [`Latency`] for one thread, [`Fixed`] for all of them.
//! Knows no names and no labels.
//!
//! The exporter's own histograms keep every sample until somebody scrapes; these have a fixed size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::HistogramFn;

/// Upper bound of each bucket in nanoseconds, and as Prometheus writes it, in seconds.
///
/// Invariant: each bound is at least twice the one before, so that no two of them lie between the
/// same two powers of two; [`bucket`] needs one comparison because of that.
#[rustfmt::skip]
pub(super) const BOUNDS: [(u64, &str); 19] = [
    (        50_000, "0.00005"),
    (       100_000, "0.0001"),
    (       250_000, "0.00025"),
    (       500_000, "0.0005"),
    (     1_000_000, "0.001"),
    (     2_500_000, "0.0025"),
    (     5_000_000, "0.005"),
    (    10_000_000, "0.01"),
    (    25_000_000, "0.025"),
    (    50_000_000, "0.05"),
    (   100_000_000, "0.1"),
    (   250_000_000, "0.25"),
    (   500_000_000, "0.5"),
    ( 1_000_000_000, "1"),
    ( 2_500_000_000, "2.5"),
    ( 5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
];

/// The buckets of [`BOUNDS`] and the one for all that is longer.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// For each bit length of a number of nanoseconds: the bucket of the shortest such duration, and
/// the bound of that bucket. No other bound lies within that bit length.
static BY_BITS: [(usize, u64); 65] = by_bits();

const fn by_bits() -> [(usize, u64); 65] {
    let mut table = [(0, BOUNDS[0].0); 65];
    let mut bits: usize = 1;
    while bits < table.len() {
        let shortest = 1_u64 << (bits - 1);
        let mut bucket = 0;
        while bucket < BOUNDS.len() && BOUNDS[bucket].0 < shortest {
            bucket += 1;
        }
        let bound = if bucket < BOUNDS.len() {
            BOUNDS[bucket].0
        } else {
            u64::MAX
        };
        table[bits] = (bucket, bound);
        bits += 1;
    }
    table
}

/// Durations counted by one thread since they were last published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    sum_nanos: u64,
}

impl Latency {
    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, took: Duration) {
        self.record_many(took, 1);
    }

    /// Counts `times` durations of the same length: requests that arrived in one read and were
    /// answered in one write.
    #[inline]
    pub fn record_many(&mut self, took: Duration, times: u64) {
        let nanos = nanos(took);
        self.buckets[bucket(nanos)] += times;
        self.sum_nanos = self.sum_nanos.wrapping_add(nanos.wrapping_mul(times));
    }

    /// Adds what `other` has counted.
    pub fn add(&mut self, other: &Self) {
        for (all, some) in self.buckets.iter_mut().zip(&other.buckets) {
            *all += some;
        }
        self.sum_nanos = self.sum_nanos.wrapping_add(other.sum_nanos);
    }

    /// Forgets half of what was counted, so that what comes weighs more.
    pub fn halve(&mut self) {
        for count in &mut self.buckets {
            *count /= 2;
        }
        self.sum_nanos /= 2;
    }

    /// A time within which so many percent of the durations lie: the upper bound of a bucket.
    /// `None`: nothing was counted, or it lies beyond the last bound.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut counted = 0;
        let mut buckets = BOUNDS.iter().zip(&self.buckets);
        let (bound, _) = buckets.find(|(_, count)| {
            counted += **count;
            counted > 0 && counted >= wanted
        })?;
        Some(Duration::from_nanos(bound.0))
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// Durations counted by all threads since the process started.
#[derive(Debug, Default)]
pub(super) struct Fixed {
    buckets: [AtomicU64; BUCKETS],
    /// Wraps after 584 years of summed waiting; Prometheus takes that for a restart.
    sum_nanos: AtomicU64,
}

impl Fixed {
    /// Counts one duration.
    pub(super) fn record(&self, took: Duration) {
        let nanos = nanos(took);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// Adds what `part` has counted and leaves `part` empty.
    pub(super) fn absorb(&self, part: &mut Latency) {
        for (all, some) in self.buckets.iter().zip(&mut part.buckets) {
            if *some != 0 {
                all.fetch_add(*some, Ordering::Relaxed);
                *some = 0;
            }
        }
        if part.sum_nanos != 0 {
            self.sum_nanos.fetch_add(part.sum_nanos, Ordering::Relaxed);
            part.sum_nanos = 0;
        }
    }

    /// The number of durations in each bucket, longer ones not included, and their sum.
    pub(super) fn read(&self) -> ([u64; BUCKETS], Duration) {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        (
            buckets,
            Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed)),
        )
    }
}

impl HistogramFn for Fixed {
    fn record(&self, seconds: f64) {
        // What is no duration (negative, NaN) counts as none at all rather than as an error.
        Self::record(
            self,
            Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        );
    }
}

/// Index of the bucket for `nanos`: the first whose bound is not below it.
#[inline]
fn bucket(nanos: u64) -> usize {
    #[expect(clippy::as_conversions, reason = "at most 64; hot")]
    let bits = (u64::BITS - nanos.leading_zeros()) as usize;
    let (first, bound) = BY_BITS[bits];
    // An addition and no branch: which of two buckets it is cannot be predicted.
    first + usize::from(bound < nanos)
}

#[inline]
fn nanos(took: Duration) -> u64 {
    took.as_secs()
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::from(took.subsec_nanos()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_lands_in_the_first_bucket_that_is_not_shorter() {
        let around = BOUNDS
            .iter()
            .flat_map(|(bound, _)| [bound - 1, *bound, bound + 1]);
        let powers = (0..64).flat_map(|bit| [1_u64 << bit, (1_u64 << bit) - 1]);
        for nanos in around.chain(powers).chain([0, u64::MAX]) {
            let plain = BOUNDS.iter().position(|(bound, _)| nanos <= *bound);
            assert_eq!(bucket(nanos), plain.unwrap_or(BOUNDS.len()), "{nanos} ns");
        }
    }

    #[test]
    fn bounds_at_least_double_and_are_written_as_seconds() {
        for pair in BOUNDS.windows(2) {
            assert!(pair[1].0 >= 2 * pair[0].0, "{pair:?}");
        }
        for (nanos, text) in BOUNDS {
            assert_eq!(Duration::from_nanos(nanos).as_secs_f64().to_string(), text);
        }
    }

    #[test]
    fn absorbing_a_part_empties_it() {
        let all = Fixed::default();
        let mut part = Latency::default();
        part.record(Duration::from_micros(10));
        part.record_many(Duration::from_secs(2), 3);
        all.absorb(&mut part);
        assert_eq!(part, Latency::default());
        all.record(Duration::from_secs(3600));
        let (buckets, sum) = all.read();
        assert_eq!((buckets[0], buckets[14], buckets[BUCKETS - 1]), (1, 3, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 5);
        assert_eq!(sum, Duration::from_secs(3606) + Duration::from_micros(10));
    }

    #[test]
    fn no_duration_overflows() {
        let mut part = Latency::default();
        part.record_many(Duration::MAX, 2);
        assert_eq!(part.count(), 2);
    }
}
