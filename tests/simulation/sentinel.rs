//! Sentinels after Redis's `sentinel.c`: each sees nodes by itself, counts votes, leads failovers
//! in its steps, tells the others what it knows, and publishes events in the order of the real one.
//! Messages between them are immediate, hellos excepted.

use switchman::topology::{
    FailoverStep, Flags, MasterEntry, ReplicaEntry, ReportedRole, SentinelEntry, View,
};
use switchman::types::ConfigEpoch;

use crate::plan::{Micros, ms, sec};
use crate::world::{Event, NAME, World};

/// What one Sentinel knows of one node.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one node"
)]
struct Seen {
    /// Whether it is a replica of this group in its eyes.
    listed: bool,
    /// Whether it has said anything since.
    heard: bool,
    answered: Micros,
    asked: Micros,
    follows: Option<usize>,
    /// Since when it says so.
    since: Micros,
    link_ok: bool,
    offset: usize,
    down: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failover {
    step: FailoverStep,
    epoch: u64,
    began: Micros,
    /// Since when it is in this step.
    since: Micros,
    commanded: bool,
    candidate: usize,
    /// Replicas that were told to follow the candidate, and those that do.
    told: u8,
    done: u8,
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent faults and facts"
)]
pub(crate) struct Sentinel {
    pub(crate) up: bool,
    pub(crate) unseen: bool,
    /// Since when Switchman cannot hear it.
    pub(crate) gone_since: Option<Micros>,
    pub(crate) alone: bool,
    /// Nodes that it does not reach, one bit each.
    pub(crate) blind: u8,
    pub(crate) tilt: bool,
    /// It takes over epochs without their addresses.
    pub(crate) stubborn: bool,
    /// What it answers instead of the truth.
    pub(crate) stale: Option<Box<View>>,
    /// Which life of the subscription is the present one, and whether it is up.
    pub(crate) life: u32,
    pub(crate) subscribed: bool,
    /// When the last message of the subscription arrives.
    pub(crate) heard: Micros,
    pub(crate) failures: u32,
    pub(crate) config_epoch: u64,
    current_epoch: u64,
    pub(crate) master: usize,
    voted: (u64, usize),
    seen: Vec<Seen>,
    objectively: bool,
    failover: Option<Failover>,
    not_before: Micros,
    greets: Micros,
    pub(crate) dice: fastrand::Rng,
}

impl Sentinel {
    /// A Sentinel that knows the master, and all replicas.
    pub(crate) fn new(nodes: usize, mut dice: fastrand::Rng) -> Self {
        let seen = (0..nodes).map(|at| Seen {
            listed: at != 0,
            heard: true,
            follows: (at != 0).then_some(0),
            link_ok: true,
            ..Seen::default()
        });
        Self {
            up: true,
            unseen: false,
            gone_since: None,
            alone: false,
            blind: 0,
            tilt: false,
            stubborn: false,
            stale: None,
            life: 0,
            subscribed: false,
            heard: 0,
            failures: 0,
            config_epoch: 1,
            current_epoch: 1,
            master: 0,
            voted: (0, 0),
            seen: seen.collect(),
            objectively: false,
            failover: None,
            not_before: 0,
            greets: dice.u64(..sec(1)),
            dice,
        }
    }

    /// What it knew is gone, but for what its configuration said on the first day.
    pub(crate) fn wipe(&mut self) {
        self.config_epoch = 0;
        self.current_epoch = 0;
        self.master = 0;
        self.voted = (0, 0);
        self.forget();
    }

    /// Whether it leads a failover, or tries to.
    pub(crate) fn is_leading(&self) -> bool {
        self.failover.is_some()
    }

    /// `SENTINEL RESET`: it keeps the master and the epoch.
    pub(crate) fn forget(&mut self) {
        let nodes = self.seen.len();
        self.seen = vec![Seen::default(); nodes];
        self.failover = None;
        self.objectively = false;
    }
}

impl World {
    pub(crate) fn beat(&mut self, at: usize) {
        let pause = self.sentinels[at].dice.u64(ms(60)..ms(110));
        self.later(pause, Event::Beat(at));
        if !self.sentinels[at].up {
            return;
        }
        self.look(at);
        if self.sentinels[at].tilt {
            return;
        }
        self.judge(at);
        self.lead(at);
        self.mend(at);
        self.greet(at);
    }

    fn reaches(&self, at: usize, node: usize) -> bool {
        let blind = self.sentinels[at].blind & (1 << node) != 0;
        !blind && !self.nodes[node].shunned && self.nodes[node].is_up() && !self.waits_at(at, node)
    }

    /// Whether its `PUBLISH` waits for the end of the node's pause, and everything behind it.
    fn waits_at(&self, at: usize, node: usize) -> bool {
        let node = &self.nodes[node];
        let greeted = self.sentinels[at]
            .greets
            .saturating_sub(self.greeting_period());
        node.is_paused(self.now) && greeted > node.paused_since
    }

    fn greeting_period(&self) -> Micros {
        sec(2) / self.plan.pace.hurry
    }

    /// Sentinel's period of 10 s for `INFO`; everything is measured against it.
    fn period(&self) -> Micros {
        sec(10) / self.plan.pace.hurry
    }

    /// PING and INFO.
    fn look(&mut self, at: usize) {
        let period = self.period();
        for node in 0..self.nodes.len() {
            let sentinel = &self.sentinels[at];
            let known = sentinel.seen[node];
            let is_master = sentinel.master == node;
            if !(is_master || known.listed) || !self.reaches(at, node) {
                continue;
            }
            let sentinel = &mut self.sentinels[at];
            let trouble = sentinel.failover.is_some() || sentinel.objectively || !known.heard;
            let often = trouble || (!is_master && !known.link_ok);
            sentinel.seen[node].answered = self.now;
            let pause = if often { period / 10 } else { period };
            if known.heard && self.now < known.asked + pause {
                continue;
            }
            self.read_info(at, node);
        }
    }

    fn read_info(&mut self, at: usize, node: usize) {
        let truth = &self.nodes[node];
        let (follows, offset) = (truth.follows, truth.log.len());
        let link_ok = follows.is_some() && truth.synced;
        let now = self.now;
        let seen = &mut self.sentinels[at].seen[node];
        let changed = seen.heard && seen.follows.is_none() != follows.is_none();
        if !seen.heard || seen.follows.is_none() != follows.is_none() {
            seen.since = now;
        }
        seen.heard = true;
        seen.asked = now;
        seen.follows = follows;
        seen.link_ok = link_ok;
        seen.offset = offset;
        let master = self.sentinels[at].master;
        if changed {
            let role = if follows.is_none() { "master" } else { "slave" };
            let wrong = follows.is_none() != (node == master);
            let channel = if wrong {
                "-role-change"
            } else {
                "+role-change"
            };
            let words = format!(
                "{} new reported role is {role}",
                self.instance(node, master)
            );
            self.emit(at, channel, || words);
        }
        if node == master {
            self.find_replicas(at);
        }
    }

    /// The master tells who follows it, whether it is one or not.
    fn find_replicas(&mut self, at: usize) {
        let master = self.sentinels[at].master;
        for node in 0..self.nodes.len() {
            let truth = &self.nodes[node];
            let follows = truth.follows == Some(master) && truth.synced && truth.is_up();
            if follows && !self.sentinels[at].seen[node].listed {
                self.sentinels[at].seen[node] = Seen {
                    listed: true,
                    answered: self.now,
                    ..Seen::default()
                };
                let words = self.instance(node, master);
                self.emit(at, "+slave", || words);
            }
        }
    }

    /// Who is down, in its own eyes and in those of a quorum.
    fn judge(&mut self, at: usize) {
        let patience = self.plan.pace.down_after;
        let master = self.sentinels[at].master;
        for node in 0..self.nodes.len() {
            let sentinel = &self.sentinels[at];
            let seen = sentinel.seen[node];
            if node != master && !seen.listed {
                continue;
            }
            let silent = self.now > seen.answered + patience;
            let long = patience + self.period() * 2;
            let other = seen.heard && seen.follows.is_some() && self.now > seen.since + long;
            let down = silent || (node == master && other);
            if down != seen.down {
                self.sentinels[at].seen[node].down = down;
                let words = self.instance(node, master);
                self.emit(at, if down { "+sdown" } else { "-sdown" }, || words);
            }
        }
        let agree = (0..self.sentinels.len())
            .filter(|other| self.agrees(at, *other))
            .count();
        let down = self.sentinels[at].seen[master].down && agree >= self.quorum();
        if down != self.sentinels[at].objectively {
            self.sentinels[at].objectively = down;
            let words = self.instance(master, master);
            self.emit(at, if down { "+odown" } else { "-odown" }, || words);
        }
    }

    fn quorum(&self) -> usize {
        self.sentinels.len() / 2 + 1
    }

    fn talks_to(&self, at: usize, other: usize) -> bool {
        let (one, two) = (&self.sentinels[at], &self.sentinels[other]);
        at == other || (two.up && !one.alone && !two.alone)
    }

    fn agrees(&self, at: usize, other: usize) -> bool {
        let master = self.sentinels[at].master;
        let voter = &self.sentinels[other];
        self.talks_to(at, other) && voter.master == master && voter.seen[master].down && !voter.tilt
    }

    /// `SENTINEL FAILOVER`, or the first step of an automatic one.
    pub(crate) fn begin_failover(&mut self, at: usize, commanded: bool) {
        let limit = self.plan.pace.failover_timeout;
        let now = self.now;
        let sentinel = &mut self.sentinels[at];
        if !sentinel.up || sentinel.failover.is_some() {
            return;
        }
        sentinel.current_epoch += 1;
        let spread = sentinel.dice.u64(..ms(200));
        sentinel.failover = Some(Failover {
            step: FailoverStep::WaitStart,
            epoch: sentinel.current_epoch,
            began: now + spread,
            since: now,
            commanded,
            candidate: 0,
            told: 0,
            done: 0,
        });
        sentinel.not_before = now + limit * 2;
        let master = sentinel.master;
        let words = self.instance(master, master);
        self.emit(at, "+try-failover", || words);
    }

    /// One step of the failover that it leads.
    fn lead(&mut self, at: usize) {
        let sentinel = &self.sentinels[at];
        let Some(failover) = sentinel.failover else {
            if sentinel.objectively && self.now >= sentinel.not_before {
                self.begin_failover(at, false);
            }
            return;
        };
        match failover.step {
            FailoverStep::None => {}
            FailoverStep::WaitStart => self.be_elected(at, failover),
            FailoverStep::SelectReplica => self.select(at, failover),
            FailoverStep::SendReplicaofNoOne => self.promote(at, failover),
            FailoverStep::WaitPromotion => self.wait_promotion(at, failover),
            FailoverStep::ReconfReplicas => self.move_replicas(at, failover),
            FailoverStep::UpdateConfig => {
                let master = self.sentinels[at].master;
                let words = self.instance(master, master);
                self.emit(at, "+failover-end", || words);
                self.adopt(at, failover.candidate);
            }
        }
    }

    fn enter(&mut self, at: usize, step: FailoverStep) {
        let now = self.now;
        if let Some(failover) = &mut self.sentinels[at].failover {
            failover.step = step;
            failover.since = now;
        }
    }

    fn abort(&mut self, at: usize, why: &'static str) {
        let master = self.sentinels[at].master;
        self.sentinels[at].failover = None;
        let words = self.instance(master, master);
        self.emit(at, why, || words);
    }

    fn be_elected(&mut self, at: usize, failover: Failover) {
        if self.now < failover.began && !failover.commanded {
            return;
        }
        let mut votes = 0;
        for other in 0..self.sentinels.len() {
            if self.talks_to(at, other) && self.vote(other, failover.epoch, at) {
                votes += 1;
            }
        }
        let master = self.sentinels[at].master;
        if failover.commanded || votes >= self.quorum() {
            let words = self.instance(master, master);
            let again = words.clone();
            self.emit(at, "+elected-leader", || words);
            self.emit(at, "+failover-state-select-slave", || again);
            self.enter(at, FailoverStep::SelectReplica);
        } else if self.now > failover.began + self.plan.pace.failover_timeout.min(sec(10)) {
            self.abort(at, "-failover-abort-not-elected");
        }
    }

    /// Whether `voter` votes for `leader` in an epoch: the first who asks has its vote.
    fn vote(&mut self, voter: usize, epoch: u64, leader: usize) -> bool {
        let later = self.now + self.plan.pace.failover_timeout * 2;
        let sentinel = &mut self.sentinels[voter];
        sentinel.current_epoch = sentinel.current_epoch.max(epoch);
        if sentinel.voted.0 < epoch && sentinel.current_epoch <= epoch {
            sentinel.voted = (epoch, leader);
            if voter != leader {
                sentinel.not_before = later + sentinel.dice.u64(..ms(200));
            }
        }
        sentinel.voted == (epoch, leader)
    }

    fn select(&mut self, at: usize, failover: Failover) {
        let sentinel = &self.sentinels[at];
        let fresh = self.period() / 2;
        let fit = |(node, seen): &(usize, &Seen)| {
            let recent = self.now <= seen.asked + fresh.max(ms(600)) || failover.commanded;
            *node != sentinel.master && seen.listed && seen.heard && !seen.down && recent
        };
        let fit = sentinel.seen.iter().enumerate().filter(fit);
        let best = fit.max_by_key(|(node, seen)| (seen.offset, usize::MAX - node));
        let Some((candidate, _)) = best.filter(|(node, _)| self.reaches(at, *node)) else {
            return self.abort(at, "-failover-abort-no-good-slave");
        };
        if let Some(failover) = &mut self.sentinels[at].failover {
            failover.candidate = candidate;
        }
        let words = self.instance(candidate, self.sentinels[at].master);
        let again = words.clone();
        self.emit(at, "+selected-slave", || words);
        self.emit(at, "+failover-state-send-slaveof-noone", || again);
        self.enter(at, FailoverStep::SendReplicaofNoOne);
    }

    fn promote(&mut self, at: usize, failover: Failover) {
        if self.reaches(at, failover.candidate) {
            self.order(at, failover.candidate, None);
            let words = self.instance(failover.candidate, self.sentinels[at].master);
            self.emit(at, "+failover-state-wait-promotion", || words);
            self.enter(at, FailoverStep::WaitPromotion);
        } else if self.now > failover.since + self.plan.pace.failover_timeout {
            self.abort(at, "-failover-abort-slave-timeout");
        }
    }

    fn wait_promotion(&mut self, at: usize, failover: Failover) {
        let seen = self.sentinels[at].seen[failover.candidate];
        if seen.heard && seen.follows.is_none() && seen.asked > failover.since {
            let now = self.now;
            let sentinel = &mut self.sentinels[at];
            sentinel.config_epoch = failover.epoch;
            sentinel.greets = now;
            let master = sentinel.master;
            let words = self.instance(failover.candidate, master);
            self.emit(at, "+promoted-slave", || words);
            let words = self.instance(master, master);
            self.emit(at, "+failover-state-reconf-slaves", || words);
            self.enter(at, FailoverStep::ReconfReplicas);
        } else if self.now > failover.since + self.plan.pace.failover_timeout {
            self.abort(at, "-failover-abort-slave-timeout");
        }
    }

    fn move_replicas(&mut self, at: usize, failover: Failover) {
        let (master, candidate) = (self.sentinels[at].master, failover.candidate);
        let mut open = false;
        for node in (0..self.nodes.len()).filter(|node| *node != master && *node != candidate) {
            let seen = self.sentinels[at].seen[node];
            let bit = 1_u8 << node;
            if !seen.listed || failover.done & bit != 0 {
                continue;
            }
            if failover.told & bit == 0 && self.reaches(at, node) {
                self.order(at, node, Some(candidate));
                let words = self.instance(node, master);
                self.emit(at, "+slave-reconf-sent", || words);
                self.mark(at, |failover| failover.told |= bit);
            }
            if seen.follows == Some(candidate) && seen.link_ok {
                let words = self.instance(node, master);
                self.emit(at, "+slave-reconf-done", || words);
                self.mark(at, |failover| failover.done |= bit);
            } else {
                open |= !seen.down;
            }
        }
        if !open || self.now > failover.since + self.plan.pace.failover_timeout {
            self.enter(at, FailoverStep::UpdateConfig);
        }
    }

    fn mark(&mut self, at: usize, change: impl FnOnce(&mut Failover)) {
        if let Some(failover) = &mut self.sentinels[at].failover {
            change(failover);
        }
    }

    /// It has another master from now on.
    fn adopt(&mut self, at: usize, master: usize) {
        let old = self.sentinels[at].master;
        let (from, to) = (&self.names.nodes[old], &self.names.nodes[master]);
        let words = format!(
            "{NAME} {} {} {} {}",
            from.host(),
            from.port(),
            to.host(),
            to.port()
        );
        self.emit(at, "+switch-master", || words);
        let now = self.now;
        let sentinel = &mut self.sentinels[at];
        sentinel.master = master;
        sentinel.failover = None;
        sentinel.objectively = false;
        for (node, seen) in sentinel.seen.iter_mut().enumerate() {
            let listed = (seen.listed || node == old) && node != master;
            *seen = Seen {
                listed,
                answered: now,
                ..Seen::default()
            };
        }
    }

    /// Nodes that have come back, or were led astray, are told whom to follow.
    fn mend(&mut self, at: usize) {
        let wait = self.period() * 8 / 10;
        let sentinel = &self.sentinels[at];
        let master = sentinel.master;
        let known = sentinel.seen[master];
        let sane = known.heard && known.follows.is_none() && !known.down && !sentinel.objectively;
        if sentinel.failover.is_some() || !sane {
            return;
        }
        for node in (0..self.nodes.len()).filter(|node| *node != master) {
            let seen = self.sentinels[at].seen[node];
            let wrong = seen.follows != Some(master);
            let long = self.now > seen.since + wait;
            if !(seen.listed && seen.heard && wrong && long && self.reaches(at, node)) {
                continue;
            }
            self.order(at, node, Some(master));
            self.sentinels[at].seen[node].since = self.now;
            let words = self.instance(node, master);
            let channel = if seen.follows.is_none() {
                "+convert-to-slave"
            } else {
                "+fix-slave-config"
            };
            self.emit(at, channel, || words);
        }
    }

    fn order(&mut self, at: usize, node: usize, master: Option<usize>) {
        let way = self.plan.pace.way;
        let delay = self.sentinels[at].dice.u64(..=way);
        self.later(delay, Event::Order(node, master));
    }

    fn greet(&mut self, at: usize) {
        if self.now < self.sentinels[at].greets {
            return;
        }
        let period = self.greeting_period();
        let sentinel = &mut self.sentinels[at];
        sentinel.greets = self.now + period;
        let failover = sentinel.failover;
        let after = failover.filter(|failover| failover.step >= FailoverStep::ReconfReplicas);
        let master = after.map_or(sentinel.master, |failover| failover.candidate);
        let (epoch, current) = (sentinel.config_epoch, sentinel.current_epoch);
        for to in 0..self.sentinels.len() {
            if to != at && self.talks_to(at, to) {
                let delay = self.sentinels[at].dice.u64(..ms(30));
                self.later(delay, Event::Hello(to, master, (epoch, current)));
            }
        }
    }

    pub(crate) fn greeted(&mut self, at: usize, master: usize, epochs: (u64, u64)) {
        let sentinel = &mut self.sentinels[at];
        if !sentinel.up {
            return;
        }
        let (epoch, current) = epochs;
        sentinel.current_epoch = sentinel.current_epoch.max(current);
        if epoch > sentinel.config_epoch {
            sentinel.config_epoch = epoch;
            if sentinel.master != master {
                let words = self.instance(self.sentinels[at].master, self.sentinels[at].master);
                self.emit(at, "+config-update-from", || words);
                if !self.sentinels[at].stubborn {
                    self.adopt(at, master);
                }
            }
        }
    }

    /// An operator mends what Sentinels may never: those that were reset, or lost their memory,
    /// name a master that is a replica, and win every election; a reset in a failover leaves two
    /// masters under one epoch.
    pub(crate) fn help(&mut self) {
        let named = |sentinel: &Sentinel| sentinel.master;
        let agree = self
            .sentinels
            .iter()
            .all(|it| it.master == named(&self.sentinels[0]));
        let reigns = |node: &usize| self.nodes[*node].follows.is_none();
        let all = self.sentinels.iter().map(named);
        if agree && all.clone().all(|node| reigns(&node)) {
            return;
        }
        let master = all
            .clone()
            .find(reigns)
            .unwrap_or(named(&self.sentinels[0]));
        note!(
            self,
            "an operator makes node {master} the master for all Sentinels"
        );
        if !reigns(&master) {
            self.follow(master, None);
        }
        let epochs = self.sentinels.iter().map(|sentinel| sentinel.current_epoch);
        let epoch = epochs.max().unwrap_or(0) + 1;
        for at in 0..self.sentinels.len() {
            self.sentinels[at].current_epoch = epoch;
            self.sentinels[at].config_epoch = epoch;
            self.adopt(at, master);
        }
    }

    // --- what it says

    /// `master <name> <ip> <port>` or `slave <ip:port> <ip> <port> @ <name> <ip> <port>`.
    fn instance(&self, node: usize, master: usize) -> String {
        let addr = &self.names.nodes[node];
        if node == master {
            return format!("master {NAME} {} {}", addr.host(), addr.port());
        }
        let of = &self.names.nodes[master];
        format!(
            "slave {addr} {} {} @ {NAME} {} {}",
            addr.host(),
            addr.port(),
            of.host(),
            of.port()
        )
    }

    /// What it answers when it is asked.
    pub(crate) fn view(&self, at: usize) -> View {
        let sentinel = &self.sentinels[at];
        if let Some(stale) = &sentinel.stale {
            return (**stale).clone();
        }
        let failover = sentinel.failover;
        let after = failover.filter(|failover| failover.step >= FailoverStep::ReconfReplicas);
        let master = after.map_or(sentinel.master, |failover| failover.candidate);
        let flags = Flags {
            s_down: sentinel.seen[sentinel.master].down,
            o_down: sentinel.objectively,
            disconnected: false,
            failover_in_progress: failover.is_some(),
            force_failover: failover.is_some_and(|failover| failover.commanded),
        };
        let entry = MasterEntry {
            epoch: ConfigEpoch::new(sentinel.config_epoch),
            flags,
            failover: failover.map_or(FailoverStep::None, |failover| failover.step),
            role: Some(ReportedRole::Master),
            other_sentinels: u32::try_from(self.sentinels.len() - 1).unwrap_or(0),
            quorum: u32::try_from(self.quorum()).unwrap_or(0),
            down_after: Some(std::time::Duration::from_micros(self.plan.pace.down_after)),
        };
        let replicas = (0..self.nodes.len()).filter(|node| sentinel.seen[*node].listed);
        let learns = self.plan.seeds < self.plan.sentinels;
        let others = (0..self.sentinels.len()).filter(|other| learns && *other != at);
        View {
            id: learns.then(|| at.to_string()),
            known: true,
            master: Some(self.names.nodes[master].clone()),
            entry: Some(entry),
            replicas: replicas.map(|node| self.replica(at, node)).collect(),
            sentinels: others
                .map(|other| SentinelEntry {
                    addr: Some(self.names.sentinels[other].clone()),
                    id: Some(other.to_string()),
                })
                .collect(),
            tilt: sentinel.tilt,
        }
    }

    fn replica(&self, at: usize, node: usize) -> ReplicaEntry {
        let seen = self.sentinels[at].seen[node];
        let role = if seen.follows.is_none() {
            ReportedRole::Master
        } else {
            ReportedRole::Replica
        };
        ReplicaEntry {
            addr: Some(self.names.nodes[node].clone()),
            run_id: None,
            flags: Flags {
                s_down: seen.down,
                disconnected: !self.reaches(at, node),
                ..Flags::default()
            },
            role: Some(if seen.heard {
                role
            } else {
                ReportedRole::Replica
            }),
            link_ok: seen.link_ok,
            master: seen.follows.map(|master| self.names.nodes[master].clone()),
            offset: u64::try_from(seen.offset).unwrap_or(0),
            priority: 100,
        }
    }
}
