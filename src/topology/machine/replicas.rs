//! Floor 1. Which replicas may serve reads: listed as healthy, and healthy by their own word.
//! Knows that a list may be empty for a while (`SENTINEL RESET`) and that entries never die.

use std::time::Duration;

use super::Machine;
use super::State;
use super::command::is_fit;
use super::peers::Listing;
use super::peers::Node;
use crate::topology::action::Note;
use crate::topology::report::Outlier;
use crate::topology::status::Ejection;
use crate::topology::view::{NodeRole, ReplicaEntry, ReportedRole, View};
use crate::types::{NodeAddr, Time};

impl Machine {
    /// Takes what one Sentinel says of the replicas.
    pub(super) fn list_replicas(&mut self, from: &NodeAddr, view: &View) {
        let verdict = |entry: &ReplicaEntry| reported(entry, view.tilt);
        let lives = |entry: &ReplicaEntry| verdict(entry) != Err(Ejection::SentinelSaysDown);
        let (up, down): (Vec<_>, Vec<_>) = view.replicas.iter().partition(|entry| lives(entry));
        let mut listed: Vec<&NodeAddr> = Vec::new();
        for entry in up.into_iter().chain(down) {
            // Not resolved yet by this Sentinel: nothing to go by.
            let Some(addr) = &entry.addr else { continue };
            // The dead, which Sentinel never forgets, have what room the others leave.
            let fits = self.has_room_for(addr) || (lives(entry) && self.make_room_for(addr));
            if !fits {
                continue;
            }
            self.names
                .learn_run_id_if_unknown(addr, entry.run_id.as_deref());
            let listing = Listing {
                verdict: verdict(entry),
                master: entry.master.clone(),
            };
            let node = self
                .nodes
                .entry(addr.clone())
                .or_insert_with(|| Node::new(self.now));
            node.listings.insert(from.clone(), listing);
            if is_fit(entry) {
                node.fit_at = Some(self.now);
            }
            listed.push(addr);
        }
        for (addr, node) in &mut self.nodes {
            if !listed.contains(&addr)
                && node.listings.remove(from).is_some()
                && node.listings.is_empty()
            {
                node.unlisted_since = self.now;
            }
        }
    }

    /// Takes a replica's own answer.
    pub(super) fn learn_replica(&mut self, addr: &NodeAddr) {
        let Some(node) = self.nodes.get_mut(addr) else {
            return;
        };
        let told = node.answer.as_ref().map(|answer| answer.asked);
        let told = told.zip(node.offset());
        node.lag_time = told.and_then(|(asked, offset)| self.progress.lag(asked, offset));
        let Some(node) = self.nodes.get(addr) else {
            return;
        };
        if self.own_word(node).is_ok() {
            if let Some(node) = self.nodes.get_mut(addr) {
                node.probation = node.probation.saturating_sub(1);
            }
        } else if node.serving && matches!(self.state, State::Stable) {
            // Its master may be the one in trouble.
            self.want_master();
        }
    }

    /// Judges all replicas, and logs who comes and who goes.
    pub(super) fn judge_replicas(&mut self) {
        let judged: Vec<(NodeAddr, Result<(), Ejection>)> = self
            .nodes
            .iter()
            .filter(|(addr, node)| !self.is_master(addr) && (node.is_listed() || node.serving))
            .map(|(addr, node)| (addr.clone(), self.judge(node)))
            .collect();
        let now = self.now;
        for (addr, judgement) in judged {
            let excused = self
                .nodes
                .get(&addr)
                .is_some_and(|node| self.is_excused(node, judgement));
            let Some(node) = self.nodes.get_mut(&addr) else {
                continue;
            };
            if excused {
                node.link_bad.get_or_insert(now);
                continue;
            }
            if node.judged(judgement) {
                if let Err(why) = judgement {
                    let counted = self.counts.ejections.entry(addr.clone()).or_default();
                    let reasons = Ejection::ALL.iter().zip(&mut counted.judged);
                    let counts = reasons.filter(|(reason, _)| **reason == why);
                    counts.for_each(|(_, count)| *count += 1);
                }
                self.note(match judgement {
                    Ok(()) => Note::ReplicaAdmitted { node: addr },
                    Err(why) => Note::ReplicaEjected { node: addr, why },
                });
            }
        }
        let master = self.master.clone();
        if let Some(node) = master.and_then(|master| self.nodes.get_mut(&master)) {
            // What it was as a replica is over.
            node.serving = false;
            node.ejection = None;
        }
    }

    /// Addresses of the replicas that serve, one for each node.
    pub(super) fn serving(&self) -> Vec<NodeAddr> {
        let mut serving: Vec<NodeAddr> = Vec::new();
        for (addr, node) in &self.nodes {
            let double = || serving.iter().any(|other| self.names.same(other, addr));
            if node.serving && !self.is_master(addr) && !double() {
                serving.push(addr.clone());
            }
        }
        serving
    }

    /// Bytes that a replica is behind the master, as far as both have told.
    pub(super) fn lag(&self, node: &Node) -> Option<u64> {
        let master = self.master_node()?.offset()?;
        Some(master.saturating_sub(node.offset()?))
    }

    fn judge(&self, node: &Node) -> Result<(), Ejection> {
        match &self.state {
            State::Unknown => Err(Ejection::NotProven),
            State::Stable => {
                self.own_word(node)?;
                self.listed(node)?;
                if node.probation > 0 {
                    Err(Ejection::NotProven)
                } else {
                    Ok(())
                }
            }
            // While there is no master every replica's link to it is down. Those that served go on
            // to, as long as they answer: old data is what reads get until the switch is over.
            State::Switching(_) if node.serving => match node.role() {
                Some(NodeRole::NotData) => Err(Ejection::RoleUnknown),
                Some(NodeRole::Busy) => Err(Ejection::Busy),
                None if node.is_lost() || node.is_silent(false) => Err(Ejection::Unreachable),
                Some(_) | None => Ok(()),
            },
            State::Switching(_) => Err(node.ejection.unwrap_or(Ejection::NotProven)),
        }
    }

    /// What the Sentinels say together: one that sees it well is enough, another may be cut off.
    fn listed(&self, node: &Node) -> Result<(), Ejection> {
        if !node.is_listed() {
            // `SENTINEL RESET` empties the list for up to ten seconds.
            let limit = self.settings.timings.forget_replica;
            let forgotten = self.now.since(node.unlisted_since) >= limit;
            return if node.serving && !forgotten {
                Ok(())
            } else {
                Err(Ejection::NotListed)
            };
        }
        let mut first = None;
        for listing in node.listings.values() {
            let follows = listing
                .master
                .as_ref()
                .is_some_and(|master| self.is_master(master));
            match listing.verdict {
                Ok(()) if follows => return Ok(()),
                Ok(()) => first = first.or(Some(Ejection::SentinelSaysOtherMaster)),
                Err(why) => first = first.or(Some(why)),
            }
        }
        let all_new = |node: &Node| {
            let mut listings = node.listings.values();
            listings.all(|listing| listing.verdict == Err(Ejection::NotProven))
        };
        if node.serving && all_new(node) {
            // After a `SENTINEL RESET` of all of them, none knows anything yet.
            return Ok(());
        }
        first.map_or(Ok(()), Err)
    }

    /// What the replica says itself.
    fn own_word(&self, node: &Node) -> Result<(), Ejection> {
        let Some(role) = node.role() else {
            let gone = node.is_lost() || node.is_silent(false);
            return match (node.failure.is_some(), gone || !node.serving) {
                (false, _) => Err(Ejection::NotProven),
                (true, true) => Err(Ejection::Unreachable),
                // One slow answer is none.
                (true, false) => Ok(()),
            };
        };
        match role {
            NodeRole::Master { .. } => Err(Ejection::IsMaster),
            NodeRole::Busy => Err(Ejection::Busy),
            NodeRole::NotData | NodeRole::Untold { .. } => Err(Ejection::RoleUnknown),
            NodeRole::Replica {
                master, connected, ..
            } => {
                if !master.as_ref().is_some_and(|master| self.is_master(master)) {
                    Err(Ejection::OtherMaster)
                } else if !connected {
                    Err(Ejection::LinkDown)
                } else if self.is_lagging(node) {
                    Err(Ejection::Lagging)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// Whether it is too far behind; one that was ejected must come clearly closer to return.
    fn is_lagging(&self, node: &Node) -> bool {
        let part = if node.serving { 1 } else { 2 };
        let bytes = self.settings.max_lag.zip(self.lag(node));
        let time = self.settings.max_lag_time.zip(node.lag_time);
        bytes.is_some_and(|(limit, lag)| lag > limit / u64::from(part))
            || time.is_some_and(|(limit, lag)| lag > limit / part)
    }

    /// Whether a replica serves no reads for no other reason than that it is too far behind.
    pub(super) fn is_held_back_by_lag(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.any(|node| !node.serving && node.ejection == Some(Ejection::Lagging))
    }

    /// A worker leaves a replica alone for a while.
    pub(super) fn avoided(
        &mut self,
        worker: usize,
        addr: &NodeAddr,
        (why, time): (Outlier, Duration),
    ) {
        let until = self.now + time;
        if let Some(node) = self.nodes.get_mut(addr) {
            node.outlier = Some((why, until));
            node.ask.want();
            let counted = self.counts.ejections.entry(addr.clone()).or_default();
            match why {
                Outlier::Errors => counted.errors += 1,
                Outlier::Latency => counted.latency += 1,
            }
            self.note(Note::ReplicaAvoided {
                worker,
                node: addr.clone(),
                why,
                time,
            });
        }
    }

    /// Whether a broken link to the master is no reason yet: if the master is the one that is gone,
    /// its replicas are all there is to read from. It must prove after the news that it is not.
    fn is_excused(&self, node: &Node, judgement: Result<(), Ejection>) -> bool {
        let by_link = matches!(
            judgement,
            Err(Ejection::LinkDown | Ejection::SentinelSaysLinkDown)
        );
        let alive_since = |bad: Time| {
            let master = self.master.as_ref();
            master
                .and_then(|master| self.proof(master))
                .is_some_and(|asked| asked >= bad)
        };
        node.serving && by_link && !node.link_bad.is_some_and(alive_since)
    }
}

/// What a Sentinel's entry says for or against reading from the replica, whoever the master is.
fn reported(entry: &ReplicaEntry, tilt: bool) -> Result<(), Ejection> {
    // A tilted Sentinel's clock has jumped: what it takes for down means nothing.
    let down = !tilt && (entry.flags.s_down || entry.flags.o_down);
    // Listed, and neither connected to nor asked for `INFO` yet.
    let new = entry.run_id.is_none() && (entry.flags.disconnected || !entry.link_ok);
    if !down && new {
        return Err(Ejection::NotProven);
    }
    if down || entry.flags.disconnected {
        return Err(Ejection::SentinelSaysDown);
    }
    match entry.role {
        Some(ReportedRole::Replica) if entry.link_ok => Ok(()),
        Some(ReportedRole::Replica) => Err(Ejection::SentinelSaysLinkDown),
        Some(ReportedRole::Master) => Err(Ejection::SentinelSaysMaster),
        None => Err(Ejection::NotProven),
    }
}
