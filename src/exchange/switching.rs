//! Floor 4. A new picture of a group, the passing of time, and the end.

use std::sync::Arc;

use crate::exchange::client::Ending;
use crate::exchange::link::{LaneId, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::{Action, Exchange, GroupIndex, LinkKey, Role};
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
        group.snapshot = snapshot;
        group.quiet = !switching;
        if !switching {
            // What the control plane has just proven is not left alone because of an older failure.
            let proven = group.snapshot.writable_master().cloned();
            if let Some(addr) = proven {
                let id = group.node(&addr);
                if let Some(node) = group.nodes.get_mut(id.0) {
                    node.retry_at = None;
                }
            }
        }
        group.refresh(now);
        self.leave_nodes(index, now);
        self.open_first_lanes(index, now);
        self.restore_subscriptions(index, now);
        self.resume_held(index, now);
        self.settle(now);
        self.check_quiet(index);
    }

    /// Closes the links to a master that was left, and lets those to other nodes that are not what
    /// they were finish.
    fn leave_nodes(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        let snapshot = &group.snapshot;
        let (mut left, mut idle) = (Vec::new(), Vec::new());
        for (key, link) in self.links.iter().filter(|(_, link)| link.group == index) {
            let Some(node) = group.nodes.get(link.lane.node.0) else {
                continue;
            };
            let fits = match link.lane.role {
                Role::Master => snapshot.master.as_ref() == Some(&node.addr),
                Role::Replica => snapshot.replicas.contains(&node.addr),
            };
            match (fits, link.lane.role) {
                (true, _) => {}
                (false, Role::Master) => left.push(key),
                (false, Role::Replica) => idle.push(key),
            }
        }
        for key in left {
            self.link_lost(key, Loss::Left, now);
        }
        for key in idle {
            self.close_when_idle(key);
        }
    }

    /// Closes a link after the last reply that it owes.
    pub(super) fn close_when_idle(&mut self, key: LinkKey) {
        self.retire(key);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.state = match link.state {
            // Its requests are placed anew at once; waiting for it to open helps nobody.
            State::Opening => State::Opening,
            State::Ready | State::Draining => State::Draining,
        };
        if link.state == State::Draining && link.pipeline.is_empty() && !link.is_owned() {
            self.discard(key);
        }
    }

    /// The lanes that most clients need are opened before the first of them asks.
    fn open_first_lanes(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get(index) else {
            return;
        };
        if group.login_required == Some(true) {
            return;
        }
        let lane = |node, role| LaneId {
            node,
            role,
            identity: IdentityId::ANONYMOUS,
            database: 0,
            protocol: Protocol::Resp2,
        };
        let master = group.writable.map(|node| lane(node, Role::Master));
        let replicas = group.readable.iter().map(|node| lane(*node, Role::Replica));
        let lanes: Vec<_> = master.into_iter().chain(replicas).collect();
        for lane in lanes {
            // With too many lanes already, clients that need this one are told so.
            let _ = self.shared_link(index, lane, now);
        }
    }

    /// Reports, once for each switch, that nothing is in flight to the master being left.
    pub(super) fn check_quiet(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.quiet || !matches!(group.snapshot.phase, Phase::Switching { .. }) {
            return;
        }
        let busy = self.links.iter().any(|(_, link)| {
            link.group == index && link.lane.role == Role::Master && !link.pipeline.is_empty()
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
        for index in 0..self.groups.len() {
            self.tick_group(index, now);
        }
        self.tick_links(now);
        self.tick_clients(now);
        self.settle(now);
    }

    fn tick_group(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let mut recovered = false;
        for node in &mut group.nodes {
            if node.retry_at.is_some_and(|at| at <= now) {
                node.retry_at = None;
                recovered = true;
            }
        }
        if recovered {
            group.refresh(now);
            self.open_first_lanes(index, now);
            self.restore_subscriptions(index, now);
            self.resume_held(index, now);
        }
        self.expire_held(index, now);
    }

    fn tick_links(&mut self, now: Time) {
        let (mut overdue, mut idle) = (Vec::new(), Vec::new());
        let settings = &self.settings;
        let mut suspects = Vec::new();
        for (key, link) in self.links.iter() {
            let silence = now.since(link.heard_at);
            if link.pipeline.is_empty() {
                if link.state == State::Ready && silence >= settings.idle && !link.is_owned() {
                    idle.push(key);
                }
            } else if link.state == State::Opening || !link.throttled_by.is_empty() {
                // The connection has its own deadline; a throttled link is silent by our doing.
            } else if silence >= settings.reply_timeout && link.usage == Usage::Shared {
                overdue.push(key);
            } else if silence >= settings.suspect_after
                && !link.suspected
                && link.usage == Usage::Shared
            {
                suspects.push(key);
            }
        }
        for key in suspects {
            let Some(link) = self.links.get_mut(key) else {
                continue;
            };
            link.suspected = true;
            let group = self.groups.get(link.group);
            if let Some(node) = group.and_then(|group| group.nodes.get(link.lane.node.0)) {
                let report = ReportKind::Silent {
                    node: node.addr.clone(),
                };
                self.actions.push_back(Action::Report(link.group, report));
            }
        }
        for key in overdue {
            self.link_lost(key, Loss::Silent, now);
        }
        for key in idle
            .into_iter()
            .filter(|key| !self.is_first_lane(*key))
            .collect::<Vec<_>>()
        {
            self.close_when_idle(key);
        }
    }

    /// Whether a link is one that stays open even when nobody uses it.
    fn is_first_lane(&self, key: LinkKey) -> bool {
        self.links.get(key).is_some_and(|link| {
            link.usage == Usage::Shared
                && link.lane.identity == IdentityId::ANONYMOUS
                && link.lane.database == 0
                && link.lane.protocol == Protocol::Resp2
        })
    }

    /// A client that takes nothing of what it has asked for must not throttle others for ever.
    fn tick_clients(&mut self, now: Time) {
        let limit = self.settings.write_timeout;
        let stuck: Vec<_> = self
            .links
            .iter()
            .flat_map(|(_, link)| link.throttled_by.iter().copied())
            .filter(|key| {
                let client = self.clients.get(*key);
                client.is_some_and(|client| now.since(client.took_at) >= limit)
            })
            .collect();
        for key in stuck {
            self.count_reject(key, Reason::WriteTimeout);
            self.end(key, Ending::Now);
        }
    }

    /// Stops: what is in flight is finished, what is held is refused, nothing new is read.
    pub fn stop(&mut self, now: Time) {
        self.stopping = true;
        for index in 0..self.groups.len() {
            self.expire_held(index, now);
        }
        let keys: Vec<_> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Ending::AfterReplies);
        }
        self.settle(now);
    }
}
