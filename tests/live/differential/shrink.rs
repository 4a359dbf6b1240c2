//! A sequence that shows a difference, made as short as it gets.

use crate::differential::plan::{Plan, Step};
use crate::differential::play::{Difference, play, told};
use crate::differential::scene::Scene;

/// Shorter sequences that are tried before one is told.
const ATTEMPTS: u32 = 120;

/// The shortest sequence found that shows the same, and what it shows.
pub(super) fn shrink(
    scene: &mut Scene,
    plan: &Plan,
    seen: &Difference,
) -> Option<(Plan, Difference)> {
    let mut shrinking = Shrinking {
        scene,
        likeness: seen.likeness.clone(),
        attempts: 0,
    };
    let mut small = plan.clone();
    small.steps.truncate(seen.step + 1);
    let mut shown = shrinking.shows(&small)?;
    let mut size = small.steps.len() / 2;
    while size > 0 {
        size = shrinking.fewer_steps(&mut small, &mut shown, size);
    }
    shrinking.fewer_units(&mut small, &mut shown);
    Some((small, shown))
}

struct Shrinking<'a> {
    scene: &'a mut Scene,
    likeness: String,
    attempts: u32,
}

impl Shrinking<'_> {
    /// What `plan` shows, where that is the same.
    fn shows(&mut self, plan: &Plan) -> Option<Difference> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return None;
        }
        let (_, difference) = play(self.scene, plan, None);
        difference.filter(|it| it.likeness == self.likeness)
    }

    /// Leaves out `size` steps wherever that can be; returns the next size to try.
    fn fewer_steps(&mut self, small: &mut Plan, shown: &mut Difference, size: usize) -> usize {
        let mut at = 0;
        while at < small.steps.len() {
            let mut less = small.clone();
            less.steps.drain(at..(at + size).min(small.steps.len()));
            match self.shows(&less) {
                Some(difference) => {
                    less.steps.truncate(difference.step + 1);
                    *small = less;
                    *shown = difference;
                }
                None => at += size,
            }
        }
        size / 2
    }

    /// Leaves out single units.
    fn fewer_units(&mut self, small: &mut Plan, shown: &mut Difference) {
        for step in (0..small.steps.len()).rev() {
            let count = |plan: &Plan| match &plan.steps[step] {
                Step::Say { units, .. } | Step::Block { units, .. } => units.len(),
                Step::Scan { .. } | Step::Settle => 0,
            };
            for unit in (0..count(small)).rev() {
                let mut less = small.clone();
                if let Some(units) = less.steps[step].units() {
                    units.remove(unit);
                }
                if let Some(difference) = self.shows(&less) {
                    *small = less;
                    *shown = difference;
                }
            }
        }
        small
            .steps
            .retain_mut(|step| step.units().is_none_or(|units| !units.is_empty()));
    }
}

/// The sequence in words that `redis-cli` takes.
pub(super) fn tell(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for step in &plan.steps {
        match step {
            Step::Say { client, units } | Step::Block { client, units } => {
                for command in units.iter().flatten() {
                    lines.push(format!("  {client}> {}", told(&command.words)));
                }
                if matches!(step, Step::Block { .. }) {
                    lines.push("  (blocks)".to_owned());
                }
            }
            Step::Scan { client, words } => {
                lines.push(format!("  {client}> {} … (to its end)", told(words)));
            }
            Step::Settle => lines.push("  (replicas get everything)".to_owned()),
        }
    }
    lines.join("\n")
}
