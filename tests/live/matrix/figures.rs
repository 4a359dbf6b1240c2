//! Figures that a cell prints for `.ci/failover-matrix`, which puts those of all rounds together.

use std::fmt::Display;
use std::time::Duration;

/// What a machine that is busy with other tests may add to a time.
const BUSY: Duration = Duration::from_secs(2);

/// Prints figures of this run, in a form that the script finds among everything else.
pub(crate) fn report(figures: &[(&str, &dyn Display)]) {
    let words: Vec<String> = figures
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    println!("figures:\t{}", words.join("\t"));
}

/// Prints a time that is not promised.
pub(super) fn took(what: &str, time: Duration) {
    report(&[(what, &seconds(time))]);
}

/// Prints a time, and how long it may be, at the median of all rounds and at the worst.
///
/// The script judges those, over cells that have the machine for themselves. Here a time fails only
/// where a busy machine does not explain it.
pub(super) fn timed(what: &str, time: Duration, (median, worst): (Duration, Duration)) {
    took(what, time);
    report(&[
        (&format!("{what}_median_max"), &seconds(median)),
        (&format!("{what}_worst_max"), &seconds(worst)),
    ]);
    let most = worst + BUSY;
    assert!(time <= most, "{what}: {time:?} where {worst:?} is promised");
}

fn seconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64())
}
