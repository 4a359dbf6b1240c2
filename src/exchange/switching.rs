//! Floor 4. A new picture of a group, the passing of time, and the end.

use std::sync::Arc;

use crate::exchange::client::{Ending, Wait};
use crate::exchange::link::{LaneId, Lending, Link, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::ticket::Purpose;
use crate::exchange::{Action, ClientKey, Exchange, GroupIndex, LinkKey, Role, Stopping};
use crate::session::IdentityId;
use crate::telemetry::Reason;
use crate::topology::{Phase, ReportKind, Snapshot};
use crate::types::{Protocol, Time};

impl Exchange {
    /// A group has a new picture.
    pub fn topology(&mut self, index: GroupIndex, snapshot: Arc<Snapshot>, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let switching = matches!(snapshot.phase, Phase::Switching { .. });
        if switching && !matches!(group.snapshot.phase, Phase::Switching { .. }) {
            group.counts.hold_begins();
        }
        // Who was quiet in this hold stays quiet: replicas may come and go while it lasts.
        let goes_on = switching
            && group.snapshot.phase == snapshot.phase
            && group.snapshot.master == snapshot.master;
        let is_another = group.snapshot.master != snapshot.master;
        group.snapshot = snapshot;
        group.quiet = !switching || (goes_on && group.quiet);
        if !switching {
            // What the control plane has just proven is not left alone because of an older failure.
            let proven = group.snapshot.writable_master().cloned();
            if let Some(addr) = proven {
                let id = group.node(&addr);
                if let Some(node) = group.nodes.get_mut(id.0) {
                    node.end_all_pauses();
                }
            }
        }
        group.refresh(now);
        self.turn_gate(index, now);
        if let Some(group) = self.groups.get(index).filter(|_| is_another) {
            // What the former one had confirmed, and was kept back until now, as well.
            group.settings.pause.end();
        }
        self.leave_nodes(index, now);
        self.open_first_lanes(index, now);
        self.track_again_all(index, now);
        self.restore_hubs(index, now);
        self.resume_held(index);
        self.settle(now);
        self.check_quiet(index, now);
    }

    /// Closes the links to a master that was left, and lets those to other nodes that are not what
    /// they were finish.
    ///
    /// During a switch a link to the master that is not open yet is closed too: what waits for it
    /// would be sent behind the last request that the old master is to get.
    fn leave_nodes(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let snapshot = &group.snapshot;
        let switching = matches!(snapshot.phase, Phase::Switching { .. });
        let (mut left, mut waiting, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for (key, link) in self.links.iter().filter(|(_, link)| link.group == index) {
            let Some(node) = group.nodes.get(link.lane.node.0) else {
                continue;
            };
            match link.lane.role {
                Role::Master => {
                    let stays = snapshot.master.as_ref() == Some(&node.addr);
                    if !stays && link.left.is_some() {
                        // It has an end of its own.
                    } else if !stays && link.is_worth_waiting() {
                        waiting.push(key);
                    } else if !stays
                        || link.left.is_some()
                        || (switching && link.state == State::Opening)
                    {
                        left.push(key);
                    }
                }
                Role::Replica if !snapshot.replicas.contains(&node.addr) => idle.push(key),
                Role::Replica => {}
            }
        }
        for key in left {
            self.lose(key, Loss::Left, now);
        }
        for key in &waiting {
            self.leave_later(*key, now);
        }
        self.call_back(&waiting, now);
        for key in idle {
            self.close_when_idle(key, now);
        }
    }

    /// Closes a link after the last reply that it owes. One that is not open owes none: what waits
    /// for it is placed anew.
    pub(super) fn close_when_idle(&mut self, key: LinkKey, now: Time) {
        self.retire(key);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        if matches!(link.lending, Lending::Withdrawn | Lending::PassedBy) {
            link.lending = Lending::No;
        }
        if link.state == State::Opening {
            self.lose(key, Loss::Left, now);
        } else if link.is_done() {
            self.discard(key);
        }
    }

    /// The lanes that most clients need are opened before the first of them asks.
    fn open_first_lanes(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let lane = |node, role| LaneId {
            node,
            role,
            identity: IdentityId::ANONYMOUS,
            database: 0,
            protocol: Protocol::Resp2,
            bulky: false,
        };
        let master = group.writable.map(|node| lane(node, Role::Master));
        let replicas = group.readable.iter().map(|node| lane(*node, Role::Replica));
        let lanes: Vec<_> = master.into_iter().chain(replicas).collect();
        for lane in lanes {
            // With too many lanes already, clients that need this one are told so.
            let _ = self.shared_link(index, lane, now);
        }
    }

    /// Reports, once for each switch, that nothing is in flight to the master being left. What
    /// merely waits there does not count: it may take for ever, and writes only if another does.
    pub(super) fn check_quiet(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.quiet || !matches!(group.snapshot.phase, Phase::Switching { .. }) {
            return;
        }
        let busy = self.links.iter().any(|(_, link)| {
            link.group == index && link.lane.role == Role::Master && !link.is_quiet(now)
        });
        if !busy {
            group.quiet = true;
            let generation = group.snapshot.generation;
            self.actions
                .push_back(Action::Report(index, ReportKind::Quiet { generation }));
        }
    }

    /// Time has passed: waits end, silent links are suspected and given up, idle ones closed.
    pub fn tick(&mut self, now: Time) {
        if self.hedges {
            self.hedge_late(now);
            self.note_looks();
            if now.since(self.ticked_at) < self.settings.tick {
                // It came for that alone.
                return self.settle(now);
            }
        }
        let since_last = now.since(std::mem::replace(&mut self.ticked_at, now));
        for index in 0..self.groups.len() {
            self.tick_group(index, now);
        }
        self.expire_fencing(now);
        self.expire_roll(now);
        self.seek_again();
        self.expire_unopened(now);
        self.expire_renewals(now);
        self.ask_about_scripts(now);
        // A worker that was itself stopped for a while has not read yet what came meanwhile.
        if since_last < self.settings.suspect_after / 2 {
            self.tick_links(now);
        }
        self.tick_clients(now);
        self.end_attendances(now);
        self.settle(now);
    }

    fn tick_group(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        group.settings.bulky.expire(now);
        group.settings.pause.expire(now);
        let mut recovered = false;
        for node in &mut group.nodes {
            recovered |= node.end_pauses(now);
        }
        if recovered {
            group.refresh(now);
            self.open_first_lanes(index, now);
            self.resume_held(index);
        }
        self.expire_trial(index, now);
        self.retry_kept_out(index, now);
        self.tick_readers(index, now);
        self.track_again_all(index, now);
        self.restore_hubs(index, now);
        self.end_later(index, now);
        self.next_proofs(index);
        self.expire_held(index, now);
        self.expire_kept(index, now);
        self.check_quiet(index, now);
    }

    fn tick_links(&mut self, now: Time) {
        let (mut overdue, mut suspects, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let mut hubs = Vec::new();
        self.give_up_left(now);
        let settings = &self.settings;
        for (key, link) in self.links.iter() {
            let silence = now.since(link.heard_at);
            if link.state == State::Opening || !link.throttled_by.is_empty() {
                // The connection has its own deadline; a throttled link is silent by our doing.
                continue;
            }
            if link.pipeline.is_open() && link.pipeline.unwritten().is_empty() {
                // The node has all that there is of a request; its client is silent.
                continue;
            }
            match link.pipeline.oldest_ticket() {
                None if silence >= settings.idle
                    && (matches!(link.usage, Usage::Target(_))
                        || (link.usage == Usage::Hub && self.is_heard(key, link.group))) =>
                {
                    hubs.push(key);
                }
                None if silence >= settings.idle && !link.is_owned() => idle.push(key),
                Some(ticket) if matches!(ticket.purpose, Purpose::Slow | Purpose::Waits(_)) => {}
                Some(_) if silence >= settings.reply_timeout => overdue.push(key),
                Some(_) if silence >= settings.suspect_after && !link.suspected => {
                    // With a question of our own alone it keeps nobody waiting.
                    let last = link.pipeline.newest_ticket();
                    if link.usage != Usage::Shared
                        || last.is_none_or(|last| last.purpose != Purpose::Internal)
                    {
                        suspects.push(key);
                    }
                }
                None | Some(_) => {}
            }
        }
        for key in suspects {
            self.suspect(key, now);
        }
        self.look_behind_silence(now);
        for key in overdue {
            self.link_lost(key, Loss::Silent, now);
        }
        for key in hubs {
            self.look_after_hub(key, now);
        }
        for key in idle {
            if !self.is_first_lane(key) && !self.is_spare(key) && !self.is_last_with_login(key, now)
            {
                self.close_when_idle(key, now);
            }
        }
    }

    /// A node that owes replies is silent. The control plane hears of it. What was sent to a master
    /// stays pending, for suspicion is not loss. But it may be busy with one command only, and say
    /// so to whoever comes over another link. The reads of a replica are asked elsewhere, each
    /// once: a node that is slow, not dead, must not have them all twice.
    fn suspect(&mut self, key: LinkKey, now: Time) {
        let dice = self.dice.roll();
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.suspected = true;
        let (index, lane) = (link.group, link.lane);
        let asked_before = link.pipeline.oldest_ticket().is_some_and(|t| t.bounces > 0);
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let Some(node) = group.nodes.get_mut(lane.node.0) else {
            return;
        };
        let report = ReportKind::Silent {
            node: node.addr.clone(),
        };
        self.actions.push_back(Action::Report(index, report));
        if lane.role == Role::Master {
            self.bypass(key);
        } else if !asked_before {
            node.failures = node.failures.saturating_add(1);
            node.retry_at = Some(now + self.settings.backoff.delay(node.failures, dice));
            group.refresh(now);
            self.link_lost(key, Loss::Silent, now);
        }
    }

    /// Whether a link is one that stays open even when nobody uses it.
    fn is_first_lane(&self, key: LinkKey) -> bool {
        self.links.get(key).is_some_and(|link| {
            link.usage == Usage::Shared
                && link.lane.identity == IdentityId::ANONYMOUS
                && link.lane.database == 0
                && link.lane.protocol == Protocol::Resp2
                && !link.lane.bulky
        })
    }

    /// Clients must not keep output, or throttle links, for ever. One that alone waits for what its
    /// link brings may read as slowly as it likes, as long as it takes something now and then. One
    /// with the replies of others behind its own has the same time for all of it, steady or not.
    fn tick_clients(&mut self, now: Time) {
        let limit = self.settings.write_timeout;
        let mut stuck = Vec::new();
        for (_, link) in self.links.iter() {
            let Some(since) = link.throttled_at.filter(|_| !link.throttled_by.is_empty()) else {
                continue;
            };
            if now.since(since) >= limit && self.has_others_waiting(link) {
                stuck.extend(&link.throttled_by);
            }
        }
        let mut stalled = std::mem::take(&mut self.stalled);
        stalled.sort_unstable();
        stalled.dedup();
        stalled.retain(|key| {
            let client = self.clients.get(*key).filter(|client| client.stalled);
            let Some(client) = client else { return false };
            if now.since(client.took_at) >= limit {
                stuck.push(*key);
            }
            true
        });
        self.stalled = stalled;
        for key in stuck {
            if self.is_finished(key) {
                continue;
            }
            self.count_reject(key, Reason::WriteTimeout);
            self.end(key, Ending::Now);
        }
    }

    /// Whether replies that a throttled link owes belong to clients that do not throttle it.
    fn has_others_waiting(&self, link: &Link) -> bool {
        let mut tickets = link.pipeline.tickets();
        tickets.any(|ticket| {
            !link.throttled_by.contains(&ticket.client) && self.clients.get(ticket.client).is_some()
        })
    }

    /// Stops: what is in flight is finished, what has no place yet is refused. Whoever has all its
    /// replies is closed.
    pub fn stop(&mut self, now: Time) {
        self.stopping = Stopping::Finishing;
        for index in 0..self.groups.len() {
            self.expire_held(index, now);
        }
        self.end_tunnels();
        let keys: Vec<_> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.refuse_the_rest(key);
        }
        self.settle(now);
    }

    /// Stops at once: what is still in flight is given up, so that every request has its answer.
    pub fn abandon_all(&mut self, now: Time) {
        self.stopping = Stopping::Abandoning;
        for index in 0..self.groups.len() {
            self.expire_kept(index, now);
        }
        self.expire_fencing(now);
        self.expire_roll(now);
        let owing = self.links.iter();
        let owing = owing.filter(|(_, link)| !link.pipeline.is_empty());
        let keys: Vec<_> = owing.map(|(key, _)| key).collect();
        for key in keys {
            self.link_lost(key, Loss::Left, now);
        }
        let keys: Vec<_> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.refuse_the_rest(key);
        }
        self.settle(now);
    }

    /// Lets a client's requests without a place be refused; what was placed before keeps its turn
    /// until nothing has one any more.
    fn refuse_the_rest(&mut self, key: ClientKey) {
        let abandoning = self.stopping == Stopping::Abandoning;
        if let Some(client) = self.clients.get_mut(key)
            && (client.again.is_empty() || abandoning)
            && client.wait != Wait::Room
        {
            client.wait = Wait::Over;
        }
        self.touch(key);
    }

    /// Ends a client that has all its replies, because everything does.
    pub(super) fn end_if_finished(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get(key)
            && client.ending == Ending::No
            && client.wait == Wait::No
            && client.replies.outstanding() == 0
        {
            self.end(key, Ending::AfterReplies);
        }
    }
}
