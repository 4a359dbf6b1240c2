//! Floor 4. From a whole request to its place: a lane, a leased link, an answer of our own, or a
//! wait.

use std::sync::Arc;

use crate::command::{Class, Leased, Problem, Reach, Spec};
use crate::consistency::Slot;
use crate::exchange::answers::target;
use crate::exchange::audience::counts;
use crate::exchange::client::{Client, Ending, NO_COMMAND, Numbered, Origin, Wait};
use crate::exchange::link::{Link, State};
use crate::exchange::lookup::NoLane;
use crate::exchange::marks::{Marks, Need};
use crate::exchange::node::{Group, Node};
use crate::exchange::objections::{has_zero, objection, write_reject};
use crate::exchange::read_only::ReadOnly;
use crate::exchange::reading::{weigh, why_master};
use crate::exchange::scripts::Caching;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey, Role};
use crate::resp::Request;
use crate::route::{self, Target};
use crate::session::{Piece, Reject};
use crate::telemetry::{self, RequestClass};
use crate::types::Time;

/// A request that is being placed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) key: ClientKey,
    /// Its number, if it had been placed before.
    pub(super) again: Option<Numbered>,
    /// When it was read, or a command before it had waited at a server.
    pub(super) arrived: Time,
    pub(super) now: Time,
    /// What it reads or changes.
    pub(super) reach: Reach,
    /// What it changes, as far as anybody keeps account of that.
    pub(super) marks: Marks,
    /// What it does to the script cache of its node.
    pub(super) caching: Caching,
    /// The stamp of its first argument in its client's database, if it is known already.
    pub(super) slot: Option<Slot>,
    /// Whether its reply counts clients.
    pub(super) counts: bool,
}

impl Job {
    /// A request of a client, of which nothing else is known yet.
    pub(super) const fn new(key: ClientKey, arrived: Time, now: Time) -> Self {
        Self {
            key,
            again: None,
            arrived,
            now,
            reach: Reach::Nothing,
            marks: Marks::None,
            caching: Caching::Nothing,
            slot: None,
            counts: false,
        }
    }

    /// Whether the request has nothing to do with what its client's lease is about now: it is
    /// older.
    fn passes_by(&self, client: &Client) -> bool {
        self.again.is_some_and(|number| match number.origin {
            Origin::Shared | Origin::Replica => true,
            // Where it is tracked, it must not be read elsewhere.
            Origin::Leased => client.is_in_multi() && !client.is_tracked(),
            Origin::Any => false,
        })
    }
}

/// Whether a request found its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    /// It is on its way to a node.
    Sent,
    /// It is answered, or its client is gone.
    Answered,
    /// It stays where it is; the client's `wait` says for what.
    Waits,
}

/// What a request is once its class is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) class: RequestClass,
    pub(super) effect: Effect,
    pub(super) purpose: Purpose,
}

impl Kind {
    pub(super) const fn shared(class: Class) -> Self {
        match class {
            Class::Read | Class::MasterRead => Self {
                class: RequestClass::Read,
                effect: Effect::Reads,
                purpose: Purpose::Plain,
            },
            _ => Self {
                class: RequestClass::Write,
                effect: Effect::Writes,
                purpose: Purpose::Plain,
            },
        }
    }

    pub(super) const fn leased(purpose: Purpose) -> Self {
        Self {
            class: RequestClass::Leased,
            effect: Effect::Writes,
            purpose,
        }
    }
}

impl Exchange {
    /// Places a request, or leaves it with the reason in the client's `wait`.
    pub(super) fn dispatch(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if job.again.is_none() && client.is_full(&self.settings) {
            client.wait = Wait::Room;
            return Placed::Waits;
        }
        let admitted = client.admitted;
        if self.stopping.refuses(job.again.is_none()) {
            return self.reject(job, RequestClass::Refused, Reject::Stopping);
        }
        if !admitted && let Some(placed) = self.admit(job, request) {
            return placed;
        }
        self.dispatch_admitted(job, request)
    }

    /// Places a request of a client that is let in, or is told that it is not.
    #[inline]
    fn dispatch_admitted(&mut self, mut job: Job, request: &Request<'_>) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Some(group) = self.groups.get(client.group) else {
            return Placed::Answered;
        };
        let command = group.table.classify(request);
        if let Some(problem) = command.problem.filter(|it| it.is_unknown()) {
            if problem == Problem::UnknownCommand && request.is_cross_protocol() {
                self.end(job.key, Ending::Now);
                return Placed::Answered;
            }
            if has_zero(&command, request, group.table.is_before_7()) {
                return self.refuse_zero(job, request);
            }
        }
        client.command = command.spec.map_or(NO_COMMAND, |spec| spec.number);
        let (mut class, reach) = (command.class, command.reach());
        let locked_out = !client.admitted && group.wants_login_now(job.now);
        if client.access.is_read_only() && !locked_out {
            match ReadOnly::of(&command) {
                ReadOnly::Same => {}
                ReadOnly::Read => class = Class::Read,
                ReadOnly::Named(name) => return self.dispatch_as(job, request, name),
                ReadOnly::Refused(refusal) => {
                    let table = Arc::clone(&group.table);
                    let name = table.classify(request).spec.map_or("", |spec| &spec.name);
                    return self.refuse_to_read_only(job, request, (refusal, name));
                }
            }
        }
        job.reach = reach;
        if class != Class::Read {
            job.marks = group.marks(client, reach, (request, job.slot));
        }
        if reach == Reach::Nothing {
            job.counts = counts(request, group.settings.audience.is_counted());
        }
        if client.waits_for_reads(group, (class, reach), (request, job.slot)) {
            return Placed::Waits;
        }
        let bare = client.lease.is_none() && client.heard.is_none();
        let plain = bare || job.passes_by(client);
        if let Some(script) = command.spec.and_then(Spec::script)
            && !locked_out
        {
            (job.caching, class) = self.seen.note((&*client, group), (script, class), request);
        }
        if plain && class.is_shared() && !locked_out {
            return self.place_shared(&job, request, class);
        }
        if !plain && client.is_undecided(job.again.is_none(), class) {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let is_exec = class == Class::Leased(Leased::Exec);
        let before_7 = group.table.is_before_7();
        let objection = objection(client, (locked_out, before_7), &command, request);
        if let Some(it) = objection {
            let reason = write_reject(&mut self.scratch, it.reject, request, before_7);
            return self.object(job, request, (it.class, reason), (it.is_masters, is_exec));
        }
        let (fails, problem) = (command.is_sure_to_fail() && !is_exec, command.problem);
        self.dispatch_stateful(job, request, class, (plain, fails, problem))
    }

    /// Answers with the objection that `scratch` holds, unless the master says it.
    fn object(
        &mut self,
        job: Job,
        request: &Request<'_>,
        (class, reason): (RequestClass, Option<telemetry::Reason>),
        (is_masters, is_exec): (bool, bool),
    ) -> Placed {
        let placed = match is_masters {
            false => None,
            true if is_exec => self.have_master_object_to_end(job, request, Leased::Exec),
            true => self.have_master_object(job, request),
        };
        if let Some(placed) = placed {
            return placed;
        }
        if is_exec {
            self.unwatch_by_exec(job);
        }
        self.answer(job, class, reason)
    }

    /// Classes that do not travel on shared links, for a client without a lease, or one whose lease
    /// does not bind them.
    pub(super) fn dispatch_unshared(
        &mut self,
        job: Job,
        request: &Request<'_>,
        class: Class,
    ) -> Placed {
        match class {
            Class::Read | Class::MasterRead | Class::Write => {
                self.place_shared(&job, request, class)
            }
            Class::Local(local) => self.place_local(job, request, local),
            Class::Leased(leased) => self.place_leased(job, request, leased),
            Class::Admin => self.place_admin(job, request),
            Class::Refused => {
                let reject = Reject::Refused {
                    command: request.name(),
                };
                self.reject(job, RequestClass::Refused, reject)
            }
        }
    }

    /// A stateless command goes to a lane.
    #[inline]
    pub(super) fn place_shared(
        &mut self,
        job: &Job,
        request: &Request<'_>,
        class: Class,
    ) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Some(group) = self.groups.get(client.group) else {
            return Placed::Answered;
        };
        let (index, access) = (client.group, client.access);
        let (mut facts, need) = weigh(client, group, (job, class), request);
        let mut target = route::decide(class, facts);
        if target == Target::Replica {
            client.asks(group, job.reach, (request, job.slot));
            // Where the last one went mostly will do, and the others need not be looked at.
            let beaten = client.replica_lane;
            let placed =
                beaten.and_then(|key| self.send_beaten((key, need), job, request.raw(), class));
            if let Some(placed) = placed {
                return placed;
            }
            if !need.is_nothing() {
                let group = self.groups.get(index);
                facts.has_settled = group.is_some_and(|group| group.has_settled(need));
                target = route::decide(class, facts);
            }
        }
        let (Some(client), Some(group)) = (self.clients.get(job.key), self.groups.get_mut(index))
        else {
            return Placed::Answered;
        };
        if target == Target::Master && group.refuses_fallback(class, facts, job.now) {
            target = Target::NoReplica;
        }
        let beaten = match target {
            Target::Master
                if group.may_go_apart() && client.goes_apart(group, (job, class), request) =>
            {
                None
            }
            Target::Master => client.beaten_to_master(group),
            Target::Replica | Target::Hold | Target::NoReplica => None,
        };
        let beaten =
            beaten.and_then(|key| self.send_beaten((key, need), job, request.raw(), class));
        let placed = match (beaten, target) {
            (Some(placed), _) => placed,
            (None, Target::Master) => self.place_on_master(*job, request, Kind::shared(class)),
            (None, Target::Replica) => self.place_on_replica(*job, request, need),
            (None, Target::Hold) => self.hold(*job),
            (None, Target::NoReplica) => self.reject(*job, RequestClass::Read, Reject::NoReplica),
        };
        if class == Class::Read && target == Target::Master {
            let group = self.groups.get(index);
            let lagging = group.is_some_and(|group| group.snapshot.lagging);
            self.count_master_read(*job, placed, why_master(facts, (access, lagging), need));
        }
        placed
    }

    /// The lane to the master, if nothing of this client is in flight on another link to it.
    pub(super) fn place_on_master(
        &mut self,
        job: Job,
        request: &Request<'_>,
        kind: Kind,
    ) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let writable = self
            .groups
            .get(client.group)
            .and_then(|group| group.writable);
        let Some(node) = writable else {
            return self.hold(job);
        };
        let lane = client.master_lane;
        if let Some(link) = self.lane_apart(&job, node, (kind.effect, request)) {
            return self.send(link, job, request.raw(), kind);
        }
        let link = match self.fits(lane, node) {
            Some(link) => link,
            None => match self.find_or_borrow_lane(job, node, (request, kind)) {
                Ok(link) => link,
                Err(placed) => return placed,
            },
        };
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        client.master_lane = Some(link);
        if client.master_out > 0 && client.master_link != Some(link) {
            client.wait = Wait::Order;
            return Placed::Waits;
        }
        let placed = self.send(link, job, request.raw(), kind);
        if placed == Placed::Sent && self.waits_in_pause(&job, kind.effect, request) {
            self.leave_to_write(link);
        }
        placed
    }

    /// The lane to the replica that is to read for this client.
    fn place_on_replica(&mut self, job: Job, request: &Request<'_>, need: Need) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Some(group) = self.groups.get_mut(client.group) else {
            return Placed::Answered;
        };
        let cached = client.replica_lane;
        let link = cached.and_then(|key| self.links.get(key));
        let cached_node = link.map(|link| link.lane.node);
        let eligible = |node: &Node| node.settles(need);
        let chance = (&mut self.dice, job.now);
        let Some(node) = group.pick_reader(client, cached_node, eligible, chance) else {
            // Another worker has just found that what was settled is not.
            return self.place_unsettled(job, request, need);
        };
        let link = match self.fits(cached, node) {
            Some(link) => link,
            None => match self.find_replica_lane(job, node, eligible) {
                Ok(link) => link,
                Err(NoLane::NotNow | NoLane::Turning(_)) => {
                    return self.place_without_replica(job, request);
                }
                Err(why) => return self.without_lane(job, why),
            },
        };
        if !need.is_nothing() && !self.is_open(link) {
            // It may lead to another process than the one that has settled this.
            return self.place_unsettled(job, request, need);
        }
        if let Some(client) = self.clients.get_mut(job.key) {
            client.replica_lane = Some(link);
        }
        self.send(link, job, request.raw(), Kind::shared(Class::Read))
    }

    /// What becomes of a request for which there is no shared link.
    pub(super) fn without_lane(&mut self, job: Job, why: NoLane) -> Placed {
        match why {
            NoLane::NotNow | NoLane::Turning(_) => self.hold(job),
            NoLane::TooMany => {
                let max = self.settings.lanes_max;
                self.reject(job, RequestClass::Refused, Reject::NoLane { max })
            }
        }
    }

    /// Puts a request on a link; waits if the link has too much in flight already.
    pub(super) fn send(&mut self, key: LinkKey, job: Job, raw: &[u8], kind: Kind) -> Placed {
        self.bring_script((key, job.caching), raw);
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Some(link) = self.links.get_mut(key) else {
            return self.hold(job);
        };
        if link.pipeline.pending_bytes() >= self.settings.link_bytes && job.again.is_none() {
            link.waiters.push(job.key);
            client.wait = Wait::Link(key);
            return Placed::Waits;
        }
        let Some(group) = self.groups.get_mut(client.group) else {
            return Placed::Answered;
        };
        let place = Place {
            client,
            group,
            link: (key, link),
        };
        if place.append(&job, raw, kind) {
            self.dirty_links.push(key);
        }
        Placed::Sent
    }

    /// The beaten track: a request goes where its client's last one went, without looking anything
    /// up. `None` if that link is not the one to take any more.
    #[inline]
    fn send_beaten(
        &mut self,
        (key, need): (LinkKey, Need),
        job: &Job,
        raw: &[u8],
        class: Class,
    ) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let group = self.groups.get_mut(client.group)?;
        let link = self.links.get_mut(key)?;
        let node = link.lane.node;
        if job.caching == Caching::Names {
            return None;
        }
        let right = match link.lane.role {
            Role::Master => group.writable == Some(node),
            Role::Replica => group.stays_with(client, node) && group.settles(node, need),
        };
        // One that is not open yet may lead to another process than the one that has settled it.
        let right = right && (need.is_nothing() || link.state == State::Ready);
        let has_room = link.pipeline.pending_bytes() < self.settings.link_bytes;
        if !right || !link.accepts() || !has_room {
            return None;
        }
        let place = Place {
            client,
            group,
            link: (key, link),
        };
        if place.append(job, raw, Kind::shared(class)) {
            self.dirty_links.push(key);
        }
        Some(Placed::Sent)
    }

    /// Answers with an error of our own.
    pub(super) fn reject(&mut self, job: Job, class: RequestClass, reject: Reject<'_>) -> Placed {
        self.scratch.clear();
        reject.write(&mut self.scratch);
        self.answer(job, class, reject.reason())
    }

    /// Answers with what `scratch` holds.
    pub(super) fn answer(
        &mut self,
        job: Job,
        class: RequestClass,
        reason: Option<telemetry::Reason>,
    ) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let Numbered { seq, spoken, .. } = client.number(job.again);
        client.held_since = None;
        let bytes: &[u8] = if spoken { &self.scratch } else { &[] };
        if !bytes.is_empty() {
            self.spares.lend(&mut client.replies, seq);
        }
        client.replies.deliver(seq, bytes, Piece::Last);
        if !client.dirty {
            client.dirty = true;
            self.dirty_clients.push(job.key);
        }
        if let Some(group) = self.groups.get_mut(client.group) {
            let target = telemetry::Target::Local;
            group.counts.request(class, target, 1);
            group
                .counts
                .request_duration(class, target)
                .record(job.now.since(job.arrived));
            if let Some(reason) = reason {
                group.counts.reject(reason);
            }
        }
        Placed::Answered
    }
}

impl Client {
    /// The link of its last request for the master, if the next one may follow it there.
    fn beaten_to_master(&self, group: &Group) -> Option<LinkKey> {
        let free = self.master_out == 0 || self.master_link == self.master_lane;
        self.master_lane
            .filter(|_| free && group.writable.is_some())
    }
}

/// Where a request goes.
struct Place<'a> {
    client: &'a mut Client,
    group: &'a mut Group,
    link: (LinkKey, &'a mut Link),
}

impl Place<'_> {
    /// Puts a request on the link. Returns whether the link has to be written from now on.
    #[inline]
    fn append(self, job: &Job, raw: &[u8], kind: Kind) -> bool {
        let Self {
            client,
            group,
            link: (key, link),
        } = self;
        if let Some(since) = client.held_since.take() {
            let target = target(link.lane.role);
            group.counts.released(job.now.since(since), target, job.now);
        }
        let number = client.number(job.again);
        if link.pipeline.is_empty() {
            link.heard_at = job.now;
        }
        if kind.effect == Effect::Writes && job.again.is_none() {
            client.last_write = number.seq;
        }
        let ticket = Ticket {
            client: job.key,
            seq: number.seq,
            arrived: job.arrived,
            class: kind.class,
            effect: kind.effect,
            purpose: kind.purpose,
            spoken: number.spoken,
            bounces: number.bounces,
            breaks: number.breaks,
            detoured: false,
            marks: job.marks,
            caching: job.caching,
            counts: job.counts,
        };
        link.counting += u32::from(job.counts);
        if job.marks != Marks::None {
            group.mark_sent(job.marks, link.lane.database, raw);
        }
        if kind.purpose == Purpose::Upload {
            link.pipeline.open(ticket, raw);
        } else {
            link.pipeline.push(ticket, raw);
        }
        match link.lane.role {
            Role::Master => {
                client.master_out += 1;
                client.master_link = Some(key);
                client.writes_out += u32::from(kind.effect == Effect::Writes);
            }
            Role::Replica => client.replica_out += 1,
        }
        if let Some(node) = group.nodes.get_mut(link.lane.node.0) {
            node.in_flight += 1;
        }
        let wakes = !link.dirty && link.state != State::Opening;
        link.dirty |= wakes;
        wakes
    }
}
