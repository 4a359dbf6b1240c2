//! Floor 4. Is the process alive; may it get clients. The answers for `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::admin::{GroupView, NodeRole, NodeView, PhaseView, View};

/// A worker that has not beaten for so long hangs. Far above any pause that a busy machine makes:
/// a restart drops every client.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// The workers' heartbeats.
#[derive(Debug)]
pub struct Health {
    start: Instant,
    /// Milliseconds from `start` to each worker's last beat.
    beats: Vec<Arc<AtomicU64>>,
}

/// Whether the process may get clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What was checked, in words, and whether it is well.
    checks: Vec<(bool, String)>,
}

impl Health {
    /// Watches `beats`: each worker stores the milliseconds since `start` there, about every second
    /// or oftener.
    pub const fn new(start: Instant, beats: Vec<Arc<AtomicU64>>) -> Self {
        Self { start, beats }
    }

    /// The workers that hang, by index.
    pub fn stalled(&self) -> Vec<usize> {
        self.stalled_at(self.start.elapsed())
    }

    fn stalled_at(&self, since_start: Duration) -> Vec<usize> {
        let hangs = |beat: &AtomicU64| {
            let last = Duration::from_millis(beat.load(Ordering::Relaxed));
            since_start.saturating_sub(last) > STALLED_AFTER
        };
        let workers = self.beats.iter().enumerate();
        workers
            .filter(|(_, beat)| hangs(beat))
            .map(|(worker, _)| worker)
            .collect()
    }
}

impl Readiness {
    /// Judges `view`: every group has a proven master, or is switching and has not done so for
    /// longer than clients are held; and the process is not stopping.
    pub fn of(view: &View) -> Self {
        let draining = if view.draining {
            "the process is stopping"
        } else {
            "not stopping"
        };
        let mut checks = vec![(!view.draining, draining.to_owned())];
        checks.extend(view.groups.iter().map(check_group));
        Self { checks }
    }

    /// Whether everything is well.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|(well, _)| *well)
    }

    /// What is not well, one thing a line; `ready` if all is.
    pub fn brief(&self) -> String {
        if self.is_ready() {
            return "ready\n".to_owned();
        }
        let wrong = self.checks.iter().filter(|(well, _)| !well);
        lines(wrong.map(|(_, what)| what.clone()))
    }

    /// Everything that was checked, one thing a line.
    pub fn verbose(&self) -> String {
        let mark = |well| if well { "[+]" } else { "[-]" };
        lines(
            self.checks
                .iter()
                .map(|(well, what)| format!("{} {what}", mark(*well))),
        )
    }
}

/// One text a line, each line ended.
pub(super) fn lines(texts: impl Iterator<Item = String>) -> String {
    texts.flat_map(|text| [text, "\n".to_owned()]).collect()
}

fn check_group(group: &GroupView) -> (bool, String) {
    let (well, what) = match group.phase {
        PhaseView::Unknown => (false, "no master is known".to_owned()),
        PhaseView::Stable => {
            // A master that is busy says so itself to everybody, and to nobody better elsewhere.
            let told = |node: &&NodeView| node.role == NodeRole::Master && !node.detail.is_empty();
            let what = group.nodes.iter().find(told).map_or_else(
                || "writes flow".to_owned(),
                |master| format!("the master is {}", master.detail),
            );
            (true, what)
        }
        PhaseView::Switching { elapsed } => {
            let what = format!("switching for {:.1} s", elapsed.as_secs_f64());
            (elapsed <= group.hold, what)
        }
    };
    (well, format!("group {}: {what}", group.master_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::tests::healthy;

    #[test]
    fn a_worker_that_stops_beating_is_found() {
        let beats: Vec<Arc<AtomicU64>> = vec![Arc::default(), Arc::default()];
        let health = Health::new(Instant::now(), beats.clone());
        assert_eq!(
            health.stalled_at(Duration::from_secs(10)),
            Vec::<usize>::new()
        );
        beats[0].store(5_000, Ordering::Relaxed);
        assert_eq!(health.stalled_at(Duration::from_secs(15)), [1]);
        assert_eq!(health.stalled_at(Duration::from_secs(16)), [0, 1]);
    }

    #[test]
    fn readiness_needs_a_master_in_every_group() {
        let mut view = healthy();
        assert_eq!(Readiness::of(&view).brief(), "ready\n");
        view.groups.push(healthy().groups.remove(0));
        view.groups[1].phase = PhaseView::Unknown;
        let readiness = Readiness::of(&view);
        assert!(!readiness.is_ready());
        assert_eq!(readiness.brief(), "group mymaster: no master is known\n");
        assert_eq!(
            readiness.verbose(),
            "[+] not stopping\n[+] group mymaster: writes flow\n\
             [-] group mymaster: no master is known\n"
        );
    }

    #[test]
    fn a_switch_is_no_reason_to_lose_clients_until_it_outlasts_the_hold() {
        let mut view = healthy();
        view.groups[0].phase = PhaseView::Switching {
            elapsed: Duration::from_secs(10),
        };
        assert!(Readiness::of(&view).is_ready());
        view.groups[0].phase = PhaseView::Switching {
            elapsed: Duration::from_secs(11),
        };
        assert_eq!(
            Readiness::of(&view).brief(),
            "group mymaster: switching for 11.0 s\n"
        );
    }

    #[test]
    fn a_busy_master_is_told_and_is_no_reason_to_lose_clients() {
        let mut view = healthy();
        view.groups[0].nodes[0].detail = "busy with a script".to_owned();
        assert_eq!(Readiness::of(&view).brief(), "ready\n");
        assert_eq!(
            Readiness::of(&view).verbose(),
            "[+] not stopping\n[+] group mymaster: the master is busy with a script\n"
        );
    }

    #[test]
    fn a_stopping_process_is_not_ready() {
        let view = View {
            draining: true,
            ..healthy()
        };
        assert_eq!(Readiness::of(&view).brief(), "the process is stopping\n");
    }
}
