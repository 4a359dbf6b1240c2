//! Floor 0. The metrics of one process: where handles come from and how the text is rendered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::families::{BUILD_INFO, WORKER_BUSY};
use crate::telemetry::recorder::{Recorder, push};
use crate::telemetry::{GroupMetrics, WorkerMetrics, process};
use crate::types::MasterName;

/// What is running; labels of `switchman_build_info`.
#[derive(Clone, Copy, Debug)]
pub struct BuildInfo {
    /// Version of the crate.
    pub version: &'static str,
    /// Source revision, or `unknown`.
    pub revision: &'static str,
}

/// All metrics of one process. Cloning gives another handle to the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: Arc<Recorder>,
    workers: Arc<Mutex<Vec<Arc<AtomicU64>>>>,
}

/// How long one worker's thread has been busy.
#[derive(Debug)]
pub struct WorkerBusy {
    nanos: Arc<AtomicU64>,
}

impl Metrics {
    /// Nothing but what is running.
    pub fn new(build: BuildInfo) -> Self {
        let recorder = Recorder::new();
        recorder
            .gauge(&BUILD_INFO, &[build.version, build.revision])
            .set(1.0);
        Self {
            recorder: Arc::new(recorder),
            workers: Arc::default(),
        }
    }

    /// The control plane's metrics of group `name`.
    pub fn group(&self, name: &MasterName) -> GroupMetrics {
        GroupMetrics::new(Arc::clone(&self.recorder), name)
    }

    /// One worker's metrics of group `name`. Each worker has its own for each group.
    pub fn worker(&self, name: &MasterName) -> WorkerMetrics {
        WorkerMetrics::new(Arc::clone(&self.recorder), name)
    }

    /// The next worker's busy time; the first call is for worker 0.
    pub fn worker_busy(&self) -> WorkerBusy {
        let nanos = Arc::new(AtomicU64::new(0));
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(Arc::clone(&nanos));
        WorkerBusy { nanos }
    }

    /// Everything in Prometheus's text format 0.0.4.
    ///
    /// Takes about a millisecond for a thousand series and reads `/proc`: not for a worker.
    pub fn render(&self) -> String {
        let mut text = self.recorder.render();
        self.render_busy(&mut text);
        process::render(&mut text);
        text
    }

    /// The exporter counts in whole numbers only; these are seconds with a fraction.
    fn render_busy(&self, text: &mut String) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, help) = (WORKER_BUSY.name, WORKER_BUSY.help);
        push(
            text,
            format_args!("# HELP {name} {help}\n# TYPE {name} counter\n"),
        );
        for (worker, nanos) in workers.iter().enumerate() {
            let busy = Duration::from_nanos(nanos.load(Ordering::Relaxed)).as_secs_f64();
            push(text, format_args!("{name}{{worker=\"{worker}\"}} {busy}\n"));
        }
        text.push('\n');
    }
}

impl WorkerBusy {
    /// Sets the whole time since the worker started for which it was not waiting, as tokio's
    /// `RuntimeMetrics::worker_total_busy_duration` gives it.
    pub fn set_total(&self, busy: Duration) {
        let nanos = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::telemetry::{
        ConnectStage, Counts, EjectionReason, FAMILIES, Reason, RequestClass, Target,
        TopologyPhase, TopologyState,
    };
    use crate::types::{ConfigEpoch, Generation, NodeAddr};

    fn metrics() -> Metrics {
        Metrics::new(BuildInfo {
            version: "1.2.3",
            revision: "abc",
        })
    }

    fn node(port: u16) -> NodeAddr {
        NodeAddr::new("node", port).unwrap()
    }

    #[track_caller]
    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(
            text.lines().any(|found| found == line),
            "{line}\nnot in\n{text}"
        );
    }

    /// A little of everything.
    fn busy_metrics() -> (Metrics, Vec<WorkerMetrics>, GroupMetrics) {
        let metrics = metrics();
        let name = MasterName::new("mymaster");
        let mut worker = metrics.worker(&name);
        let mut counts = Counts::new();
        counts.request(RequestClass::Read, Target::Replica, 3);
        let took = Duration::from_micros(70);
        counts
            .request_duration(RequestClass::Read, Target::Replica)
            .record_many(took, 3);
        counts
            .upstream_duration(Target::Replica)
            .record(Duration::from_micros(60));
        counts.reject(Reason::NoMaster);
        counts.hold_duration.record(Duration::from_secs(1));
        let at = counts.node(&node(1));
        counts.at(at).connect_failed(ConnectStage::Auth);
        counts.at(at).in_flight = 7;
        worker.publish(&mut counts);
        let mut group = metrics.group(&name);
        group.sentinel_up(&node(26379));
        group.sentinel_heard(&node(26379));
        group.majority_reached();
        group.switch_completed(Duration::from_millis(1100));
        group.topology(&TopologyState {
            generation: Generation::new(4),
            epoch: ConfigEpoch::new(2),
            phase: TopologyPhase::Stable,
            master: Some(&node(1)),
            replicas: &[node(2)],
        });
        let lag = Duration::from_millis(1500);
        group.lags([(&node(2), Some(14), Some(lag))].into_iter());
        let node = NodeAddr::new("node", 2).unwrap();
        group.ejections(&node, &[0; EjectionReason::COUNT]);
        metrics.worker_busy().set_total(Duration::from_millis(1500));
        (metrics, vec![worker], group)
    }

    #[test]
    fn counts_are_added_and_gauges_summed_over_workers() {
        let metrics = metrics();
        let name = MasterName::new("m");
        let mut workers = [metrics.worker(&name), metrics.worker(&name)];
        let mut counts = [Counts::new(), Counts::new()];
        for round in 1..=2 {
            for (worker, counts) in workers.iter_mut().zip(&mut counts) {
                counts.clients = 10 * round;
                counts.client_sent_bytes += 5;
                let at = counts.node(&node(1));
                counts.at(at).shared = round;
                worker.publish(counts);
            }
        }
        has(
            &metrics,
            "switchman_client_sent_bytes_total{master_name=\"m\"} 20",
        );
        has(
            &metrics,
            "switchman_client_connections{master_name=\"m\"} 40",
        );
        let shared =
            "switchman_upstream_connections{master_name=\"m\",node=\"node:1\",lane=\"shared\"}";
        has(&metrics, &format!("{shared} 4"));
        let [stays, goes] = workers;
        drop(goes);
        has(
            &metrics,
            "switchman_client_connections{master_name=\"m\"} 20",
        );
        has(&metrics, &format!("{shared} 2"));
        drop(stays);
    }

    #[test]
    fn publishing_empties_counters_and_keeps_gauges() {
        let metrics = metrics();
        let mut worker = metrics.worker(&MasterName::new("m"));
        let mut counts = Counts::new();
        counts.request(RequestClass::Admin, Target::Local, 2);
        counts.resent = 1;
        counts.held_clients = 3;
        for _ in 0..2 {
            worker.publish(&mut counts);
        }
        let line = "switchman_requests_total{master_name=\"m\",class=\"admin\",target=\"local\"} 2";
        has(&metrics, line);
        has(
            &metrics,
            "switchman_resent_requests_total{master_name=\"m\"} 1",
        );
        has(&metrics, "switchman_held_clients{master_name=\"m\"} 3");
    }

    #[test]
    fn the_lag_of_a_replica_that_is_gone_is_unknown() {
        let (metrics, _workers, mut group) = busy_metrics();
        let of = |name: &str| {
            format!("switchman_replica_lag_{name}{{master_name=\"mymaster\",node=\"node:2\"}}")
        };
        has(&metrics, &format!("{} 14", of("bytes")));
        has(&metrics, &format!("{} 1.5", of("seconds")));
        group.lags(std::iter::empty());
        has(&metrics, &format!("{} NaN", of("bytes")));
        has(&metrics, &format!("{} NaN", of("seconds")));
    }

    #[test]
    fn ejections_are_told_for_each_replica_and_by_reason_from_0_on() {
        let (metrics, _workers, mut group) = busy_metrics();
        let node = NodeAddr::new("node", 2).unwrap();
        let mut totals = [0; EjectionReason::COUNT];
        totals[EjectionReason::Lag.index()] = 2;
        group.ejections(&node, &totals);
        let line = |reason: &str, total: u64| {
            format!(
                "switchman_replica_ejections_total{{master_name=\"mymaster\",node=\"node:2\",\
                 reason=\"{reason}\"}} {total}"
            )
        };
        has(&metrics, &line("lag", 2));
        has(&metrics, &line("busy", 0));
    }

    #[test]
    fn closed_label_sets_are_there_before_anything_happens() {
        let metrics = metrics();
        let name = MasterName::new("m");
        let (_worker, _group) = (metrics.worker(&name), metrics.group(&name));
        has(
            &metrics,
            "switchman_rejected_requests_total{master_name=\"m\",reason=\"uncertain\"} 0",
        );
        has(
            &metrics,
            "switchman_held_requests_total{master_name=\"m\",outcome=\"expired\"} 0",
        );
        has(
            &metrics,
            "switchman_hold_duration_seconds_count{master_name=\"m\"} 0",
        );
        has(
            &metrics,
            "switchman_topology_switches_total{master_name=\"m\",outcome=\"completed\"} 0",
        );
        has(
            &metrics,
            "switchman_requests_total{master_name=\"m\",class=\"read\",target=\"replica\"} 0",
        );
    }

    #[test]
    fn a_node_that_lost_its_role_is_marked_so() {
        let (metrics, _workers, mut group) = busy_metrics();
        has(
            &metrics,
            "switchman_master_info{master_name=\"mymaster\",node=\"node:1\"} 1",
        );
        group.topology(&TopologyState {
            generation: Generation::new(5),
            epoch: ConfigEpoch::new(3),
            phase: TopologyPhase::Switching,
            master: Some(&node(2)),
            replicas: &[],
        });
        has(
            &metrics,
            "switchman_master_info{master_name=\"mymaster\",node=\"node:1\"} 0",
        );
        has(
            &metrics,
            "switchman_master_info{master_name=\"mymaster\",node=\"node:2\"} 1",
        );
        has(
            &metrics,
            "switchman_replica_info{master_name=\"mymaster\",node=\"node:2\"} 0",
        );
        has(
            &metrics,
            "switchman_topology_phase{master_name=\"mymaster\",phase=\"stable\"} 0",
        );
    }

    #[test]
    fn every_family_is_rendered_with_help_and_series() {
        let (metrics, _workers, _group) = busy_metrics();
        let text = metrics.render();
        for family in FAMILIES {
            let help = format!("# HELP {} {}", family.name, family.help);
            assert_eq!(text.matches(&help).count(), 1, "{help}");
            assert!(
                text.contains(&format!("\n{}", family.name)),
                "{} has no series",
                family.name
            );
        }
    }

    #[test]
    fn promtool_finds_nothing_to_criticise() {
        let (metrics, _workers, _group) = busy_metrics();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed (Debian: prometheus); make test installs it");
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(metrics.render().as_bytes()).unwrap();
        drop(stdin);
        let said = promtool.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&said.stderr);
        assert!(
            said.status.success() && words.is_empty(),
            "{words}\n{}",
            metrics.render()
        );
    }
}
