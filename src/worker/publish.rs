//! Floor 5. What a worker has counted, handed over a few times a second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::exchange::Exchange;
use crate::telemetry::{MasterRead, WorkerBusy, WorkerMetrics};
use crate::types::{NodeAddr, Time};

/// What all workers together show of a group.
#[derive(Debug, Default)]
pub struct GroupGauges {
    /// Clients turned away at the limit that no worker has counted yet.
    pub refused: Arc<AtomicU64>,
    clients: AtomicI64,
    held_clients: AtomicI64,
    held: AtomicU64,
    held_bytes: AtomicU64,
    expired: AtomicU64,
    resent: AtomicU64,
    uncertain: AtomicU64,
    kept_released: AtomicU64,
    kept_uncertain: AtomicU64,
    /// Reads that the master served and a replica might have, in the order of [`MasterRead::ALL`].
    master_reads: [AtomicU64; MasterRead::COUNT],
    /// Reads that each node has answered.
    reads: Mutex<HashMap<NodeAddr, u64>>,
    /// What each worker says of the present or last hold.
    holds: Mutex<HashMap<usize, Hold>>,
}

/// The present or last hold of writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hold {
    /// The longest time for which a request was held.
    pub longest: Duration,
    /// When the first of them went to a master.
    pub first_released: Option<Time>,
}

/// Totals since the start of the process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Requests that waited for a master, until they went on or were refused.
    pub held: u64,
    /// Bytes of them, and of what their clients had sent behind them.
    pub held_bytes: u64,
    /// Those among them that were refused.
    pub expired: u64,
    /// Requests sent again elsewhere after their connection was lost.
    pub resent: u64,
    /// Requests answered `-UNCERTAIN`.
    pub uncertain: u64,
    /// Replies kept back and passed on in the end.
    pub kept_released: u64,
    /// Replies kept back and answered `-UNCERTAIN` in the end; among `uncertain`.
    pub kept_uncertain: u64,
}

impl Totals {
    /// The greater of both, each by itself. They only grow, so that it is the later of two looks.
    #[must_use]
    pub fn max_of_each(&self, other: &Self) -> Self {
        Self {
            held: self.held.max(other.held),
            held_bytes: self.held_bytes.max(other.held_bytes),
            expired: self.expired.max(other.expired),
            resent: self.resent.max(other.resent),
            uncertain: self.uncertain.max(other.uncertain),
            kept_released: self.kept_released.max(other.kept_released),
            kept_uncertain: self.kept_uncertain.max(other.kept_uncertain),
        }
    }
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
            held_bytes: self.held_bytes.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            uncertain: self.uncertain.load(Ordering::Relaxed),
            kept_released: self.kept_released.load(Ordering::Relaxed),
            kept_uncertain: self.kept_uncertain.load(Ordering::Relaxed),
        }
    }

    /// Reads that the master served since the start and a replica might have, by the reason.
    pub fn master_reads(&self) -> impl Iterator<Item = (MasterRead, u64)> {
        let counts = MasterRead::ALL.iter().zip(&self.master_reads);
        counts.map(|(why, count)| (*why, count.load(Ordering::Relaxed)))
    }

    /// Reads that each node has answered since the start; none without any.
    pub fn reads(&self) -> HashMap<NodeAddr, u64> {
        let reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        reads.clone()
    }

    fn add_reads<'a>(&self, more: impl Iterator<Item = (&'a NodeAddr, u64)>) {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, count) in more.filter(|(_, count)| *count > 0) {
            if let Some(total) = reads.get_mut(node) {
                *total += count;
            } else {
                reads.insert(node.clone(), count);
            }
        }
    }

    /// The present or last hold, of all workers together.
    pub fn hold(&self) -> Hold {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let first = holds.values().filter_map(|hold| hold.first_released);
        Hold {
            longest: holds
                .values()
                .map(|hold| hold.longest)
                .max()
                .unwrap_or_default(),
            first_released: first.min(),
        }
    }
}

/// Publishes one worker's counts.
pub(super) struct Publisher {
    worker: usize,
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
    pub(super) const fn new(worker: usize, busy: WorkerBusy) -> Self {
        Self {
            worker,
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
            for (total, more) in [
                (&gauges.held_bytes, counts.held_bytes),
                (&gauges.expired, counts.held_expired),
                (&gauges.resent, counts.resent),
                (&gauges.uncertain, counts.uncertain),
                (&gauges.kept_released, counts.kept_released),
                (&gauges.kept_uncertain, counts.kept_uncertain),
            ] {
                total.fetch_add(more, Ordering::Relaxed);
            }
            for (total, more) in gauges.master_reads.iter().zip(counts.master_reads()) {
                total.fetch_add(*more, Ordering::Relaxed);
            }
            gauges.add_reads(counts.node_reads());
            let lately = Hold {
                longest: counts.longest_hold,
                first_released: counts.first_released,
            };
            let holds = gauges.holds.lock();
            holds
                .unwrap_or_else(PoisonError::into_inner)
                .insert(self.worker, lately);
            (group.clients, group.held_clients) = (counts.clients, counts.held_clients);
            group.metrics.publish(counts);
        }
        let metrics = Handle::current().metrics();
        self.busy.set_total(metrics.worker_total_busy_duration(0));
    }
}
