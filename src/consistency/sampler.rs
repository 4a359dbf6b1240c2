//! Floor 1. When the master and the replicas are asked how far they are, and what the answers
//! settle. Pure: `handle_*` in, `poll_*` out; the shell asks.
//!
//! ```text
//!   something was written that no sample covers ──► next generation ──► master ──► sample
//!   a replica has not settled the newest sample ──► replica ──► the newest sample that it has
//! ```
//!
//! Nothing is asked while everything is settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::consistency::atomics::{Atomics, Std};
use crate::consistency::settled::Settled;
use crate::consistency::stamps::Stamps;
use crate::types::{NodeAddr, Replication, Time};

/// Samples kept for replicas that lag: they lie a tenth of their age apart, and reach back as far
/// as anything can lag.
const SAMPLES_MAX: usize = 64;

/// Who is who, by the picture that workers act upon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The master, or the one that is being left.
    pub master: Option<NodeAddr>,
    /// Those that may serve reads.
    pub replicas: Vec<NodeAddr>,
}

/// A question to a node: `INFO replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a question that is not asked is never answered"]
pub enum Ask {
    /// To the master; answer with [`Sampler::handle_master`].
    Master {
        /// Where it is.
        node: NodeAddr,
        /// Which sample this becomes.
        generation: u32,
    },
    /// To a replica; answer with [`Sampler::handle_replica`].
    Replica {
        /// Where it is.
        node: NodeAddr,
        /// Which process it is thought to be.
        incarnation: u32,
        /// Whether it has to be asked over a new connection: the last one may lead to another
        /// process.
        fresh: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// History and offset.
    pub replication: Replication,
    /// Whether a replica has a link to its master (`master_link_status:up`).
    pub is_linked: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection, or there is none any more.
    Lost,
    /// Connected, and no answer, or none that tells anything.
    Silent,
}

/// Decides who is asked when, for one master group.
#[derive(Debug)]
pub struct Sampler<A: Atomics = Std> {
    stamps: Arc<Stamps<A>>,
    /// Least time between two questions to one node.
    interval: Duration,
    view: View,
    replicas: Vec<Replica<A>>,
    /// Oldest first.
    samples: VecDeque<Sample>,
    /// The generation of the question to the master that has no answer yet.
    asked: Option<u32>,
    /// When the next round may begin.
    due: Time,
    asks: VecDeque<Ask>,
}

/// Whoever has applied `offset` bytes of `id` has all writes up to `generation`.
#[derive(Clone, Debug)]
struct Sample {
    generation: u32,
    id: String,
    offset: u64,
}

#[derive(Debug)]
struct Replica<A: Atomics> {
    node: NodeAddr,
    settled: Arc<Settled<A>>,
    /// The incarnation that it was asked in last, over a connection that stands for it.
    connected: Option<u32>,
    /// The history that it followed when it last answered.
    id: Option<String>,
    /// How much of that it had.
    offset: u64,
    /// Whether it has a question to answer.
    asked: bool,
    /// When it may be asked again.
    due: Time,
}

impl<A: Atomics> Sampler<A> {
    /// Nobody known, nothing asked. Asks each node once in `interval`, at most.
    pub fn new(stamps: Arc<Stamps<A>>, interval: Duration) -> Self {
        Self {
            stamps,
            interval,
            view: View::default(),
            replicas: Vec::new(),
            samples: VecDeque::new(),
            asked: None,
            due: Time::ZERO,
            asks: VecDeque::new(),
        }
    }

    /// A round may be due. `look` shows the picture that workers act upon; it is called again after
    /// the next generation has begun.
    pub fn handle_timeout(&mut self, now: Time, look: impl Fn() -> View) {
        if now < self.due {
            return;
        }
        self.due = now + self.interval;
        self.handle_view(look());
        let covered = self.samples.back().map_or(0, |sample| sample.generation);
        let wanted = self.asked.is_none() && self.stamps.newest() > covered;
        let begun = if wanted { self.stamps.advance() } else { None };
        if begun.is_some() {
            self.handle_view(look());
        }
        match (begun, &self.view.master) {
            (Some(generation), Some(master)) => {
                self.asked = Some(generation);
                self.asks.push_back(Ask::Master {
                    node: master.clone(),
                    generation,
                });
            }
            // The newest sample is as new as it gets.
            _ => self.ask_replicas(now),
        }
    }

    /// The master has answered the question of `generation`.
    pub fn handle_master(&mut self, now: Time, generation: u32, answer: Result<Told, Failure>) {
        if self.asked != Some(generation) {
            // It is not the master any more, or was asked by another picture.
            return;
        }
        self.asked = None;
        if let Ok(told) = answer
            && told.replication.is_master
            && !told.replication.id.is_empty()
        {
            self.keep(Sample {
                generation: generation - 1,
                id: told.replication.id,
                offset: told.replication.offset,
            });
        }
        self.ask_replicas(now);
    }

    /// The replica has answered a question that it was asked as `incarnation`.
    pub fn handle_replica(
        &mut self,
        node: &NodeAddr,
        incarnation: u32,
        answer: Result<Told, Failure>,
    ) {
        let Some(replica) = self.replicas.iter_mut().find(|it| it.node == *node) else {
            return;
        };
        replica.asked = false;
        let told = match answer {
            Ok(told) => told,
            Err(Failure::Lost) => return replica.renew(),
            Err(Failure::Silent) => return,
        };
        let Replication {
            id,
            offset,
            is_master,
            ..
        } = told.replication;
        if is_master {
            // It has become one. What it has of our master it keeps: only another process, or
            // following another node, takes it away, and either shows.
            return;
        }
        let known = replica.id.replace(id.clone());
        let went_back = offset < std::mem::replace(&mut replica.offset, offset);
        if known.is_some_and(|known| known != id || went_back) {
            return replica.renew();
        }
        let has = |sample: &&Sample| sample.id == id && sample.offset <= offset;
        if let Some(sample) = self.samples.iter().rev().find(has)
            && told.is_linked
        {
            replica.settled.publish(incarnation, sample.generation);
        }
    }

    /// The next question.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// When [`Sampler::handle_timeout`] is to be called next.
    pub const fn poll_timeout(&self) -> Time {
        self.due
    }

    /// Whether a node is one that may have to be asked.
    pub fn knows(&self, node: &NodeAddr) -> bool {
        self.view.master.as_ref() == Some(node) || self.view.replicas.contains(node)
    }

    fn handle_view(&mut self, view: View) {
        if view == self.view {
            return;
        }
        if view.master != self.view.master {
            self.samples.clear();
            self.asked = None;
            self.asks.retain(|ask| matches!(ask, Ask::Replica { .. }));
            for replica in &mut self.replicas {
                replica.renew();
            }
        }
        self.replicas.retain(|it| view.replicas.contains(&it.node));
        for node in &view.replicas {
            if self.replicas.iter().all(|it| it.node != *node) {
                let mut replica = Replica {
                    node: node.clone(),
                    settled: self.stamps.node(node),
                    connected: None,
                    id: None,
                    offset: 0,
                    asked: false,
                    due: Time::ZERO,
                };
                replica.renew();
                self.replicas.push(replica);
            }
        }
        self.view = view;
    }

    /// Asks the replicas that may settle more than they have.
    fn ask_replicas(&mut self, now: Time) {
        let Some(newest) = self.samples.back().map(|sample| sample.generation) else {
            return;
        };
        for replica in &mut self.replicas {
            if replica.asked || now < replica.due || replica.settled.settled() >= newest {
                continue;
            }
            let incarnation = replica.settled.incarnation();
            let fresh = replica.connected.replace(incarnation) != Some(incarnation);
            replica.asked = true;
            replica.due = now + self.interval;
            self.asks.push_back(Ask::Replica {
                node: replica.node.clone(),
                incarnation,
                fresh,
            });
        }
    }

    /// Keeps a sample. If there are too many, the one goes that is missed least: the older they
    /// are, the farther they may lie apart.
    fn keep(&mut self, sample: Sample) {
        self.samples.push_back(sample);
        if self.samples.len() <= SAMPLES_MAX {
            return;
        }
        let at = |at: usize| {
            self.samples
                .get(at)
                .map_or(0, |it| u64::from(it.generation))
        };
        let newest = at(SAMPLES_MAX) + 1;
        let missed = |it: &usize| (at(it + 1) - at(it - 1)) * 1_000_000 / (newest - at(it - 1));
        if let Some(least) = (1..SAMPLES_MAX).min_by_key(missed) {
            self.samples.remove(least);
        }
    }
}

impl<A: Atomics> Replica<A> {
    fn renew(&mut self) {
        self.settled.renew();
        self.connected = None;
    }
}
