//! Floor 1. The machine described for operators.
//! Knows every field and changes none.

use std::sync::Arc;

use super::Machine;
use super::State;
use super::choose::tally;
use super::peers::Node;
use super::peers::Sentinel;
use crate::topology::incident::Cause;
use crate::topology::status::{
    Candidate, Ejection, Majority, NodeStatus, ReplicaStatus, SentinelStatus, Status, Waiting,
};
use crate::types::NodeAddr;

impl Machine {
    /// Everything an operator may want to know.
    pub fn status(&self) -> Status {
        let master = self.master.as_ref();
        let replicas = self
            .nodes
            .iter()
            .filter(|(addr, node)| !self.is_master(addr) && (node.is_listed() || node.serving));
        Status {
            master_name: self.settings.master_name.clone(),
            snapshot: Arc::clone(&self.snapshot),
            at: self.now,
            waiting: self.waiting(),
            cause: self.hold_cause(),
            candidates: self.candidates(),
            view_stale: self.is_stale(),
            majority: self.majority(),
            master: master.and_then(|addr| Some(node_status(addr, self.nodes.get(addr)?))),
            replicas: replicas
                .map(|(addr, node)| self.replica_status(addr, node))
                .collect(),
            sentinels: self.sentinels.iter().map(sentinel_status).collect(),
            incidents: self.recorder.incidents().cloned().collect(),
            ejections: self.counts.ejections.clone(),
            switches_completed: self.counts.completed,
            switches_abandoned: self.counts.abandoned,
            last_switch_took: self.counts.last_took,
        }
    }

    fn hold_cause(&self) -> Option<Cause> {
        match &self.state {
            State::Switching(hold) => Some(hold.cause),
            State::Unknown | State::Stable => None,
        }
    }

    fn candidates(&self) -> Vec<Candidate> {
        let (epoch, counted) = tally(&self.votes(), &self.names);
        let candidate = |(node, votes): (&NodeAddr, usize)| Candidate {
            node: node.clone(),
            epoch,
            votes,
            proven: self.is_proven_now(node),
        };
        counted.into_iter().map(candidate).collect()
    }

    fn waiting(&self) -> Option<Waiting> {
        let few = self.majority().filter(|_| self.lacks_majority());
        if let Some(Majority {
            answering, known, ..
        }) = few
            && answering > 0
        {
            return Some(Waiting::Majority { answering, known });
        }
        match &self.state {
            State::Stable => None,
            State::Unknown => Some(self.waiting_first()),
            State::Switching(_) => Some(self.waiting_switch()),
        }
    }

    fn waiting_first(&self) -> Waiting {
        let named = self.named();
        if let [node] = named
            && self.is_proven_now(node)
            && let Some(Majority {
                answering, known, ..
            }) = self.too_few_to_begin()
        {
            return Waiting::Majority { answering, known };
        }
        match named {
            [node] if self.failover_cause().is_none() => self.proof_of(node),
            [_] => Waiting::Failover,
            [_, _, ..] => Waiting::Disagreement,
            [] if self.is_name_unknown() => Waiting::NameUnknown,
            [] if self.sentinels.values().any(|it| it.view().is_some()) => Waiting::NoAddress,
            [] => Waiting::SentinelsUnreachable,
        }
    }

    /// Whether Sentinels answer, and none of them knows the name.
    pub(super) fn is_name_unknown(&self) -> bool {
        let mut views = self
            .sentinels
            .values()
            .filter_map(Sentinel::view)
            .peekable();
        views.peek().is_some() && views.all(|view| !view.known)
    }

    fn waiting_switch(&self) -> Waiting {
        let targets: Vec<_> = self.targets().collect();
        match targets.as_slice() {
            [node] if self.newer_is_named() && self.is_proven_now(node) => Waiting::Drain,
            [node] if self.newer_is_named() => self.proof_of(node),
            [_, _, ..] => Waiting::Disagreement,
            [] | [_] if self.failover_cause().is_some() => Waiting::Failover,
            [] | [_] => match &self.master {
                Some(master) if !self.is_proven_now(master) => self.proof_of(master),
                Some(_) | None => Waiting::Failover,
            },
        }
    }

    fn proof_of(&self, node: &NodeAddr) -> Waiting {
        let last = self
            .nodes
            .get(node)
            .map_or_else(String::new, Node::last_words);
        Waiting::Proof {
            node: node.clone(),
            last,
        }
    }

    fn replica_status(&self, addr: &NodeAddr, node: &Node) -> ReplicaStatus {
        let ejected = node
            .ejection
            .or((!node.serving).then_some(Ejection::NotProven));
        let ejected = if node.serving { None } else { ejected };
        // What it said before it fell silent tells nothing of now.
        let speaks = node.failure.is_none();
        ReplicaStatus {
            node: node_status(addr, node),
            ejected,
            lag: self.lag(node).filter(|_| speaks),
            lag_time: node.lag_time.filter(|_| speaks),
            zone: self.zone_of(addr, node).map(str::to_owned),
            outlier: node
                .outlier
                .filter(|(_, until)| *until > self.now)
                .map(|(why, _)| why),
        }
    }
}

fn node_status(addr: &NodeAddr, node: &Node) -> NodeStatus {
    NodeStatus {
        node: addr.clone(),
        offset: node.offset(),
        run_id: node.run_id.clone(),
        answered: node.answer.as_ref().map(|answer| answer.at),
        error: node.failure.as_ref().map(|_| node.last_words()),
        busy: node.is_busy(),
    }
}

fn sentinel_status((addr, sentinel): (&NodeAddr, &Sentinel)) -> SentinelStatus {
    let vote = sentinel.view().and_then(|view| view.vote());
    SentinelStatus {
        addr: addr.clone(),
        id: sentinel.id.clone(),
        seed: sentinel.seed,
        up: sentinel.up,
        subscription: sentinel.subscription.clone(),
        answered: sentinel.seen.as_ref().map(|seen| seen.at),
        master: vote.map(|(node, _)| node.clone()),
        epoch: vote.map(|(_, epoch)| epoch),
        s_down: sentinel.s_down,
        o_down: sentinel.o_down,
        tilt: sentinel.tilt,
        error: sentinel.error.clone(),
        failures: sentinel.failures,
    }
}
