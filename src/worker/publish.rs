//! Floor 5. What a worker has counted, handed over a few times a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::runtime::Handle;

use crate::exchange::Exchange;
use crate::telemetry::{WorkerBusy, WorkerMetrics};

/// What all workers together show of a group.
#[derive(Debug, Default)]
pub struct GroupGauges {
    /// Clients turned away at the limit that no worker has counted yet.
    pub refused: Arc<AtomicU64>,
    clients: AtomicI64,
    held_clients: AtomicI64,
    held: AtomicU64,
    uncertain: AtomicU64,
}

/// Totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Requests that waited for a master, until they went on or were refused.
    pub held: u64,
    /// Requests answered `-UNCERTAIN`.
    pub uncertain: u64,
}

impl GroupGauges {
    /// Clients connected.
    pub fn clients(&self) -> u64 {
        u64::try_from(self.clients.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Clients whose next request waits for a master.
    pub fn held_clients(&self) -> u64 {
        u64::try_from(self.held_clients.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Totals since the start.
    pub fn totals(&self) -> Totals {
        Totals {
            held: self.held.load(Ordering::Relaxed),
            uncertain: self.uncertain.load(Ordering::Relaxed),
        }
    }
}

/// Publishes one worker's counts.
pub(super) struct Publisher {
    groups: Vec<Group>,
    busy: WorkerBusy,
}

struct Group {
    metrics: WorkerMetrics,
    gauges: Arc<GroupGauges>,
    /// This worker's share of the gauges when they were last published.
    clients: i64,
    held_clients: i64,
}

impl Publisher {
    pub(super) const fn new(busy: WorkerBusy) -> Self {
        Self {
            groups: Vec::new(),
            busy,
        }
    }

    pub(super) fn add(&mut self, metrics: WorkerMetrics, gauges: Arc<GroupGauges>) {
        self.groups.push(Group {
            metrics,
            gauges,
            clients: 0,
            held_clients: 0,
        });
    }

    /// Must be called on the worker's runtime.
    pub(super) fn publish(&mut self, exchange: &mut Exchange) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            let Some(counts) = exchange.counts(index) else {
                continue;
            };
            let gauges = &group.gauges;
            counts.turned_away(gauges.refused.swap(0, Ordering::Relaxed));
            gauges
                .clients
                .fetch_add(counts.clients - group.clients, Ordering::Relaxed);
            let held = counts.held_clients - group.held_clients;
            gauges.held_clients.fetch_add(held, Ordering::Relaxed);
            gauges.held.fetch_add(
                counts.held_released + counts.held_expired,
                Ordering::Relaxed,
            );
            gauges
                .uncertain
                .fetch_add(counts.uncertain, Ordering::Relaxed);
            (group.clients, group.held_clients) = (counts.clients, counts.held_clients);
            group.metrics.publish(counts);
        }
        let metrics = Handle::current().metrics();
        self.busy.set_total(metrics.worker_total_busy_duration(0));
    }
}
