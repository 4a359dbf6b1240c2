//! Floor 4. Commands that Switchman answers itself, and those for which it asks the master first:
//! AUTH, SELECT; and, in `hello.rs`, HELLO.
//!
//! A login is proven on the present master by a connection of its own, each time; no verdict is
//! kept. While that connection opens, the request stays where it is and is looked at again.

use std::collections::hash_map::Entry;

use crate::command::{Class, Local};
use crate::exchange::client::{Client, Ending, Numbered, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{LaneId, Lending, Link, NodeId, State, Usage};
use crate::exchange::lookup::{NoLane, UNPROVEN};
use crate::exchange::pubsub::RESET;
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode};
use crate::session::{HelloFacts, IdentityId, Login, LoginBy, Outcome};
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

/// What a question to the master has come to.
pub(super) enum Proof {
    /// The link is open: the node agrees.
    Given(LinkKey),
    /// The request was answered, or waits.
    Settled(Placed),
}

/// Logins of one group that are proven at once; each is a connection to the master.
const PROOFS_MAX: usize = 32;

/// Redis cluster.c, `readonlyCommand` and `readwriteCommand`.
const NO_CLUSTER: &str = "ERR This instance has cluster support disabled";

impl Exchange {
    /// A command of the class `Local`.
    pub(super) fn place_local(&mut self, job: Job, request: &Request<'_>, local: Local) -> Placed {
        if local.is_about_others()
            && let Some(waits) = self.wait_for_roll(job)
        {
            return waits;
        }
        if let Some(placed) = self.ask_busy_master(job, request, local) {
            return placed;
        }
        if let Some(placed) = self.ask_for_rights(job, request, local) {
            return placed;
        }
        self.scratch.clear();
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        // With more words it is told what is wrong with them, like everybody.
        if local == Local::Ping && request.argc() <= 2 && client.is_restricted_subscriber() {
            return self.pong(job, request);
        }
        match client.session.local(local, request, &mut self.scratch) {
            Outcome::Replied => self.answer(job, RequestClass::Session, None),
            Outcome::Unspoken => {
                self.scratch.clear();
                self.answer_unspoken(job)
            }
            Outcome::Quit => {
                self.quit_target(job.key, job.now);
                let placed = self.answer(job, RequestClass::Session, None);
                self.end(job.key, Ending::AfterReplies);
                placed
            }
            Outcome::Reset => self.reset(job),
            Outcome::Auth(login) => self.auth(job, (&login, LoginBy::named(request.name()))),
            Outcome::Select(index) => self.select(job, index),
            Outcome::Hello(hello) => self.hello(job, hello, LoginBy::named(request.name())),
            Outcome::ReadOnly => self.switch_reads(job, Local::Readonly),
            Outcome::ReadWrite => self.switch_reads(job, Local::Readwrite),
            Outcome::Forward if local == Local::ClientCapa => {
                let raw = without_capabilities(request);
                match Request::from_raw(&raw) {
                    Some(request) => {
                        self.place_on_master(job, &request, Kind::shared(Class::MasterRead))
                    }
                    None => Placed::Answered,
                }
            }
            Outcome::Clients => self.ask_about_clients(job, request, local),
            Outcome::WhoAmI | Outcome::Forward => {
                self.place_on_master(job, request, Kind::shared(Class::MasterRead))
            }
        }
    }

    /// CLIENT REPLY OFF and SKIP have no reply, and do not use up a SKIP themselves.
    fn answer_unspoken(&mut self, job: Job) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let seq = client.replies.begin();
        let again = Some(Numbered::new(seq, false));
        self.answer(Job { again, ..job }, RequestClass::Session, None)
    }

    fn reset(&mut self, job: Job) -> Placed {
        if let Some(waits) = self.wait_for_answers(job) {
            return waits;
        }
        if let Some(placed) = self.reset_link(job) {
            return placed;
        }
        if self.clients.get(job.key).is_some_and(Client::is_subscriber) {
            return self.place_behind_messages(job, RESET, None);
        }
        self.begin_again(job.key, job.now);
        self.scratch.clear();
        encode::simple(&mut self.scratch, "RESET");
        self.answer(job, RequestClass::Session, None)
    }

    /// A client is as when it connected.
    pub(super) fn begin_again(&mut self, key: ClientKey, now: Time) {
        self.drop_lease(key, now);
        self.hear_nothing(key, now);
        self.change_identity(key, IdentityId::ANONYMOUS, now);
        if let Some(client) = self.clients.get_mut(key) {
            client.session.reset();
            client.access.read_only();
            client.forget_lanes();
        }
    }

    fn auth(&mut self, job: Job, (login, by): (&Login, LoginBy)) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let protocol = client.session.protocol;
        match self.prove(job, (login, by), protocol) {
            Proof::Settled(placed) => placed,
            Proof::Given(link) => {
                self.adopt(job, link, login);
                self.scratch.clear();
                encode::simple(&mut self.scratch, "OK");
                self.answer(job, RequestClass::Session, None)
            }
        }
    }

    fn select(&mut self, job: Job, index: u32) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let (identity, protocol) = (client.session.identity, client.session.protocol);
        if client.session.database != index {
            if let Some(waits) = self.wait_for_answers(job) {
                return waits;
            }
            // A user with a name was asked about this database just now, and the link may be on its
            // way to another already.
            if !self.has_asked(job.key)
                && let Proof::Settled(placed) = self.ask(job, identity, (index, protocol))
            {
                return placed;
            }
        }
        if let Some(client) = self.clients.get_mut(job.key) {
            client.session.database = index;
            client.forget_lanes();
        }
        self.scratch.clear();
        encode::simple(&mut self.scratch, "OK");
        self.answer(job, RequestClass::Session, None)
    }

    /// READONLY and READWRITE, as the master's family answers them: where it takes them, they
    /// switch the client's reads of replicas.
    fn switch_reads(&mut self, job: Job, local: Local) -> Placed {
        let Some(client) = self.clients.get(job.key) else {
            return Placed::Answered;
        };
        let (identity, database) = (client.session.identity, client.session.database);
        let (index, protocol) = (client.group, client.session.protocol);
        // The link to the master brings what it says to HELLO.
        if let Proof::Settled(placed) = self.ask(job, identity, (database, protocol)) {
            return placed;
        }
        let facts = self.groups.get(index).and_then(|it| it.hello(protocol));
        self.scratch.clear();
        if facts.is_some_and(HelloFacts::takes_readonly) {
            if let Some(client) = self.clients.get_mut(job.key) {
                match local {
                    Local::Readonly => client.access.read_only(),
                    _ => client.access.read_write(),
                }
            }
            encode::simple(&mut self.scratch, "OK");
        } else if local == Local::Readwrite
            && facts.is_some_and(HelloFacts::takes_readwrite_in_vain)
        {
            encode::simple(&mut self.scratch, "OK");
        } else {
            encode::error(&mut self.scratch, NO_CLUSTER);
        }
        self.answer(job, RequestClass::Session, None)
    }

    /// Asks the master whether it takes a login. The same request comes here again until it is
    /// known.
    pub(super) fn prove(
        &mut self,
        job: Job,
        (login, by): (&Login, LoginBy),
        protocol: Protocol,
    ) -> Proof {
        if let Some(waits) = self.wait_for_answers(job) {
            return Proof::Settled(waits);
        }
        if let Some(settled) = self.verdict(job) {
            return settled;
        }
        let Some(client) = self.clients.get(job.key) else {
            return Proof::Settled(Placed::Answered);
        };
        let index = client.group;
        if let Some(link) = client.proof.filter(|link| self.links.get(*link).is_some()) {
            return self.when_ready(job, link);
        }
        let Some(group) = self.groups.get_mut(index) else {
            return Proof::Settled(Placed::Answered);
        };
        let free = |node: &NodeId| group.may_open(*node, job.now);
        let Some(node) = group.writable.filter(free) else {
            return Proof::Settled(self.hold(job));
        };
        if group.proofs >= PROOFS_MAX {
            group.provers.push_back(job.key);
            if let Some(client) = self.clients.get_mut(job.key) {
                client.wait = Wait::Turn;
            }
            return Proof::Settled(Placed::Waits);
        }
        group.proofs += 1;
        let lane = LaneId {
            node,
            role: Role::Master,
            identity: UNPROVEN,
            // A user need not have the right to SELECT.
            database: 0,
            protocol,
            bulky: false,
        };
        let usage = Usage::Proof(job.key);
        let mut link = Link::new(index, lane, usage, job.now);
        link.proves = Some(Box::from(login.username().unwrap_or(b"default")));
        link.login_by = by;
        let link = self.open(link, Some(login.clone()));
        if let Some(client) = self.clients.get_mut(job.key) {
            client.proof = Some(link);
        }
        self.when_ready(job, link)
    }

    /// A link proves nobody's login any more: the next client has its turn.
    pub(super) fn proof_ended(&mut self, index: GroupIndex) {
        if let Some(group) = self.groups.get_mut(index) {
            group.proofs = group.proofs.saturating_sub(1);
        }
        self.next_proofs(index);
    }

    /// As many clients have their turn as there is room for. One that does not take it, because it
    /// is held or gone, leaves it to those of the next tick.
    pub(super) fn next_proofs(&mut self, index: GroupIndex) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let mut room = PROOFS_MAX.saturating_sub(group.proofs);
        while room > 0
            && let Some(group) = self.groups.get_mut(index)
            && let Some(key) = group.provers.pop_front()
        {
            if self.clients.get(key).map(|client| client.wait) == Some(Wait::Turn) {
                room -= 1;
                self.end_wait(key, Wait::Turn);
            }
        }
    }

    /// Asks the master whether it has a database, or speaks a protocol, by the lane for it.
    pub(super) fn ask(
        &mut self,
        job: Job,
        identity: IdentityId,
        settings: (u32, Protocol),
    ) -> Proof {
        if let Some(settled) = self.verdict(job) {
            return settled;
        }
        let Some(client) = self.clients.get(job.key) else {
            return Proof::Settled(Placed::Answered);
        };
        let index = client.group;
        let Some(node) = self.groups.get(index).and_then(|group| group.writable) else {
            return Proof::Settled(self.hold(job));
        };
        let (database, protocol) = settings;
        let lane = LaneId {
            node,
            role: Role::Master,
            identity,
            database,
            protocol,
            bulky: false,
        };
        match self.shared_link(index, lane, job.now) {
            Ok(link) | Err(NoLane::Turning(link)) => self.when_ready(job, link),
            Err(why) => Proof::Settled(self.without_lane(job, why)),
        }
    }

    fn when_ready(&mut self, job: Job, key: LinkKey) -> Proof {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Proof::Settled(Placed::Answered);
        };
        let Some(link) = self.links.get_mut(key) else {
            return Proof::Settled(self.hold(job));
        };
        if link.state == State::Ready && !matches!(link.lending, Lending::Turning(_)) {
            return Proof::Given(key);
        }
        link.waiters.push(job.key);
        client.wait = Wait::Proof(key);
        Proof::Settled(Placed::Waits)
    }

    /// The node's own words against what was asked, if it has spoken.
    pub(super) fn verdict(&mut self, job: Job) -> Option<Proof> {
        let client = self.clients.get_mut(job.key)?;
        let words = client.take_objection()?;
        self.scratch.clear();
        self.scratch.extend_from_slice(&words);
        Some(Proof::Settled(self.answer(
            job,
            RequestClass::Session,
            None,
        )))
    }

    pub(super) fn forget_verdict(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key) {
            client.verdict = None;
        }
    }

    /// Gives a session its proven login; the link that proved it serves as the first with it.
    pub(super) fn adopt(&mut self, job: Job, key: LinkKey, login: &Login) {
        let Some(client) = self.clients.get_mut(job.key) else {
            return;
        };
        client.proof = None;
        let index = client.group;
        if self.only_attends(job.key) {
            // Its link is that of the user it was.
            self.drop_lease(job.key, job.now);
        }
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let identity = group.join_identity(login);
        self.change_identity(job.key, identity, job.now);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.lane.identity = identity;
        let lane = link.lane;
        if let Some(group) = self.groups.get_mut(index)
            && group.let_in(Some(lane.node), identity)
        {
            self.resume_held(index);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if let Entry::Vacant(place) = group.lanes.entry(lane) {
            place.insert(key);
            link.usage = Usage::Shared;
            link.heard_at = job.now;
            if let Some(node) = group.nodes.get(lane.node.0) {
                let counts = group.counts.at(node.index);
                counts.leased -= 1;
                counts.shared += 1;
            }
        } else {
            self.pool_or_close(key, job.now);
        }
        self.warm(index, lane, job.now);
        self.proof_ended(index);
    }

    /// Sets a session's login and lets go of the former one.
    pub(super) fn change_identity(&mut self, key: ClientKey, identity: IdentityId, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let former = std::mem::replace(&mut client.session.identity, identity);
        client.admitted = false;
        let index = client.group;
        client.forget_lanes();
        self.hear_as(key, former, now);
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if !group.leave_identity(former) {
            return;
        }
        group.forget_identity(former);
        let mut orphans: Vec<_> = group
            .lanes
            .iter()
            .filter(|(lane, _)| lane.identity == former)
            .map(|(_, key)| *key)
            .collect();
        let pooled = group
            .pool
            .iter()
            .filter(|(lane, _)| lane.identity == former);
        orphans.extend(pooled.flat_map(|(_, keys)| keys.iter().copied()));
        group.pool.retain(|lane, _| lane.identity != former);
        let hub = group.hub(former).and_then(|hub| hub.link);
        let warming = group.warming.iter().copied();
        orphans.extend(warming.filter(|key| {
            let link = self.links.get(*key);
            link.is_some_and(|link| link.lane.identity == former)
        }));
        orphans.extend(self.links_being_lent(index, former));
        for link in orphans.into_iter().chain(hub) {
            self.close_when_idle(link, now);
        }
    }

    /// AUTH, HELLO AUTH and RESET take effect between requests, not among them.
    pub(super) fn wait_for_answers(&mut self, job: Job) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        if job.again.is_some() || client.replies.outstanding() == 0 {
            return None;
        }
        client.wait = Wait::Answers;
        Some(Placed::Waits)
    }
}

/// `CLIENT CAPA` without what its client is capable of. With `redirect` a connection would hear
/// where the master is now, in place of `-READONLY`, and so would everybody on it: Switchman knows
/// that by itself. What a server does not know it ignores.
pub(super) fn without_capabilities(request: &Request<'_>) -> Vec<u8> {
    let words = request.args().take(2);
    let words: Vec<&[u8]> = words.chain([&b"?"[..]]).collect();
    let mut raw = Vec::new();
    encode::request(&mut raw, &words);
    raw
}
