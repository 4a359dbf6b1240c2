//! Floor 5. What Switchman promises in figures, and whether a run has shown it.

use std::fmt;

use serde_json::json;

use crate::report::Results;
use crate::report::float;
use crate::report::per_second;
use crate::report::processor_us;
use crate::targets::Target;

/// Which side of the bound is good.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One promise and what was measured; `None` where something needed was left out of the run.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    target: Target,
    aim: &'static str,
    bound: Bound,
    measured: Option<f64>,
}

impl Verdict {
    /// Whether the aim was met or could not be judged.
    pub(crate) fn met(&self) -> bool {
        self.measured.is_none_or(|value| match self.bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        })
    }

    fn word(&self) -> &'static str {
        match (self.measured, self.met()) {
            (None, _) => "----",
            (Some(_), true) => "PASS",
            (Some(_), false) => "FAIL",
        }
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let (bound, value) = self.bound.parts();
        json!({
            "kind": "aim",
            "target": self.target.to_string(),
            "aim": self.aim,
            "bound": format!("{bound} {value}"),
            "measured": self.measured,
            "verdict": self.word(),
        })
    }
}

impl Bound {
    fn parts(self) -> (&'static str, f64) {
        match self {
            Self::AtMost(bound) => ("<=", bound),
            Self::AtLeast(bound) => (">=", bound),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bound, value) = self.bound.parts();
        write!(f, "{} {:<20} {:<42} ", self.word(), self.target, self.aim)?;
        match self.measured {
            Some(measured) => write!(f, "{measured:>6.2} {bound} {value:.2}"),
            None => write!(f, "  not measured {bound} {value:.2}"),
        }
    }
}

/// Judges each shape of Switchman that took part.
pub(crate) fn judge(results: &Results) -> Vec<Verdict> {
    if results.has(Target::SwitchmanOwnWrites) {
        return judge_consistency(results);
    }
    let shapes = [Target::SwitchmanMaster, Target::SwitchmanReplica];
    let shapes = shapes.into_iter().filter(|&shape| results.has(shape));
    shapes
        .flat_map(|shape| judge_shape(results, shape))
        .collect()
}

/// Judges what it costs to miss none of one's own writes.
#[rustfmt::skip]
fn judge_consistency(results: &Results) -> Vec<Verdict> {
    let target = Target::SwitchmanOwnWrites;
    let pair = (target, Target::SwitchmanReplica);
    let processor = results.ratio(16, pair, processor_us);
    let row = |aim, bound, measured| Verdict { target, aim, bound, measured };
    vec![
        row("CPU, pipeline 16, of eventual's",         Bound::AtMost(1.05), processor),
    ]
}

#[rustfmt::skip]
fn judge_shape(results: &Results, target: Target) -> Vec<Verdict> {
    use Bound::AtLeast;
    use Bound::AtMost;
    use Target::Haproxy;
    use Target::Nutcracker;

    let processor = |pipeline, other| results.ratio(pipeline, (target, other), processor_us);
    let pace = |pipeline, other| {
        results.ratio(pipeline, (target, other), |sample| Some(per_second(sample)))
    };
    // Slower than the better of two is slower by the smaller ratio.
    let better = pace(1, Haproxy).zip(pace(1, Nutcracker)).map(|(one, other)| one.min(other));
    let idle = results.idle_of(target);
    let per_client = idle.map(crate::idle::Idle::kb_per_client);
    let at_start = idle.map(|idle| float(idle.start_kb) / 1024.0);
    let row = |aim, bound, measured| Verdict { target, aim, bound, measured };
    vec![
        row("CPU, no pipelining, of nutcracker's",     AtMost(0.90),   processor(1, Nutcracker)),
        row("CPU, pipeline 16, of HAProxy's",          AtMost(1.15),   processor(16, Haproxy)),
        row("CPU, pipeline 100, of HAProxy's",         AtMost(2.00),   processor(100, Haproxy)),
        row("commands/s, no pipelining, of the best",  AtLeast(0.97),  better),
        row("commands/s, pipeline 16, of HAProxy's",   AtLeast(0.90),  pace(16, Haproxy)),
        row("memory per idle client, KB",              AtMost(3.00),   per_client),
        row("resident memory at start, MB",            AtMost(15.00),  at_start),
    ]
}
