//! Floor 4. Commands about Switchman's clients: every worker is asked, and the client hears what
//! all have said together.
//!
//! ```text
//!  CLIENT KILL … ──► may it? (`rights.rs`) ──► Action::Ask ──► each worker: answer_roll
//!                                                                    │ who is meant; they end
//!  client ◄── one reply ◄── all have answered, or it takes too long ◄┘ roll_answered
//! ```
//!
//! The clients are those of the asker's group. What comes behind such a command waits for its
//! reply. CLIENT UNBLOCK finds out which connection its client waits on, and has the node end the
//! wait, over the lane of who asks: the link of that client is nobody else's from then on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::command::Local;
use crate::exchange::client::{Client, Ending, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::inside::Carrying;
use crate::exchange::link::{LaneId, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::redirection::Sought;
use crate::exchange::ticket::Purpose;
use crate::exchange::{Action, ClientKey, Exchange, GroupIndex, Role, Stopping};
use crate::resp::{Request, encode};
use crate::session::{AboutClients, Choice, Ends, Portrait, Reject};
use crate::telemetry::RequestClass;
use crate::types::{NodeAddr, Protocol, Time};

/// Commands of one worker's clients that are answered at a time; each may bring the lines of all
/// clients there are. Others wait for their turn.
pub const CALLS_MAX: usize = 8;

/// How long the other workers have. None of them ever waits for anything.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// What a worker asks all workers.
#[derive(Clone, Debug, Default)]
pub struct Question {
    number: u32,
    group: GroupIndex,
    /// The number of the client that asks.
    asker: u64,
    /// The bytes of what it asks, which servers count among those that wait.
    bytes: usize,
    about: Arc<AboutClients>,
}

/// What one worker has to say.
#[derive(Debug, Default)]
pub struct Answer {
    number: u32,
    found: Found,
}

/// What was found and done.
#[derive(Debug, Default)]
struct Found {
    lines: Vec<Line>,
    /// Clients that were ended, or are.
    ended: u64,
    /// Whether the one that asks is among them.
    asker_ends: bool,
    waits: Option<Waiting>,
    target: Option<Sought>,
}

/// One client's line.
#[derive(Debug)]
struct Line {
    id: u64,
    text: Vec<u8>,
}

/// Where a client waits at a server.
#[derive(Debug)]
struct Waiting {
    node: NodeAddr,
    /// What that calls the connection.
    connection: u64,
}

/// The questions of a worker's clients.
#[derive(Debug, Default)]
pub(super) struct Roll {
    calls: Vec<Call>,
    /// Questions of some of them, which are put when there are fewer.
    backlog: VecDeque<Question>,
    /// Clients that wait until there are fewer.
    turn: VecDeque<ClientKey>,
    next: u32,
}

/// One that is not answered by all.
#[derive(Debug)]
struct Call {
    number: u32,
    about: Arc<AboutClients>,
    asker: Asker,
    /// When it was put; `None`: it is in the backlog.
    since: Option<Time>,
    /// Workers that have not answered.
    missing: usize,
    found: Found,
}

/// For whom.
#[derive(Debug)]
enum Asker {
    /// A command with a number.
    Command(Job),
    /// A transaction that was executed, in the middle of its reply.
    Inside(Box<Carrying>),
    /// A command that stays where it is until that is known.
    Target(ClientKey),
}

/// What the client hears.
enum Said {
    Text(Vec<u8>),
    Number(u64),
    Fine,
    Nothing,
    Error(Reject<'static>),
}

impl Question {
    /// Whether other workers are asked too.
    pub fn is_for_all(&self) -> bool {
        *self.about != AboutClients::Info
    }
}

impl Answer {
    /// That of a worker which is not there any more.
    pub fn nothing(question: &Question) -> Self {
        Self {
            number: question.number,
            found: Found::default(),
        }
    }
}

impl Roll {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

impl Exchange {
    /// Leaves a command about clients where it is, if too many are being answered.
    pub(super) fn wait_for_roll(&mut self, job: Job) -> Option<Placed> {
        if self.roll.calls.len() < CALLS_MAX {
            return None;
        }
        let client = self.clients.get_mut(job.key)?;
        client.wait = Wait::Turn;
        self.roll.turn.push_back(job.key);
        Some(Placed::Waits)
    }

    /// A command about clients, which its client may use.
    pub(super) fn ask_about_clients(
        &mut self,
        job: Job,
        request: &Request<'_>,
        local: Local,
    ) -> Placed {
        if local == Local::ClientUnblock && job.again.is_some() {
            // It was for a connection to a node that is lost.
            return self.no_connection(job);
        }
        if let Some(waits) = self
            .wait_for_answers(job)
            .or_else(|| self.wait_for_roll(job))
        {
            return waits;
        }
        let about = match AboutClients::read(local, request) {
            Ok(about) => about,
            Err(reject) => return self.reject(job, RequestClass::Session, reject),
        };
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        let again = Some(client.number(job.again));
        client.wait = Wait::Answers;
        let bytes = request.raw().len();
        self.call_roll(Asker::Command(Job { again, ..job }), about, bytes, job.now);
        Placed::Sent
    }

    /// The same for a command in a transaction that was executed.
    pub(super) fn ask_inside(&mut self, carrying: Box<Carrying>, about: AboutClients, now: Time) {
        self.call_roll(Asker::Inside(carrying), about, 0, now);
    }

    /// All are asked for the client to which another one redirects.
    pub(super) fn look_for(&mut self, key: ClientKey, target: u64, now: Time) {
        self.call_roll(Asker::Target(key), AboutClients::Target(target), 0, now);
    }

    fn call_roll(&mut self, asker: Asker, about: AboutClients, bytes: usize, now: Time) {
        let client = self.clients.get(asker.key());
        let client = client.map(|client| (client.group, client.session.id));
        // What a transaction has done stays done although its client is gone.
        let Some((group, id)) = client.or_else(|| Some((asker.group()?, 0))) else {
            return;
        };
        let number = self.roll.next;
        self.roll.next = number.wrapping_add(1);
        let question = Question {
            number,
            group,
            asker: id,
            bytes,
            about: Arc::new(about),
        };
        let missing = if question.is_for_all() {
            self.settings.workers
        } else {
            1
        };
        self.roll.calls.push(Call {
            number,
            about: Arc::clone(&question.about),
            asker,
            since: None,
            missing,
            found: Found::default(),
        });
        self.roll.backlog.push_back(question);
        self.ask_next(now);
    }

    /// Puts as many questions at a time as there is room for on the way to other workers.
    fn ask_next(&mut self, now: Time) {
        let roll = &mut self.roll;
        while roll.calls.len() - roll.backlog.len() < CALLS_MAX {
            let Some(question) = roll.backlog.pop_front() else {
                return;
            };
            let mut calls = roll.calls.iter_mut();
            if let Some(call) = calls.find(|call| call.number == question.number) {
                call.since = Some(now);
            }
            self.actions.push_back(Action::Ask(question));
        }
    }

    /// Answers a worker for the clients of this one, and ends those that are to end. `ends` knows
    /// their sockets.
    pub fn answer_roll(
        &mut self,
        question: &Question,
        ends: impl Fn(ClientKey) -> Ends,
        now: Time,
    ) -> Answer {
        let mut found = Found::default();
        if let AboutClients::Deleted(choice) = &*question.about {
            self.prove_anew(question.group, choice, now);
        }
        match &*question.about {
            AboutClients::Info => {
                let choice = Choice::of(question.asker);
                found.lines = self.lines(question, &choice, ends, now);
            }
            AboutClients::List(choice) => found.lines = self.lines(question, choice, ends, now),
            AboutClients::Kill(choice)
            | AboutClients::KillOne(choice)
            | AboutClients::Deleted(choice) => {
                for (key, id) in self.chosen(question, choice, ends, now) {
                    found.ended += 1;
                    if id == question.asker {
                        found.asker_ends = true;
                    } else {
                        self.end(key, Ending::Now);
                    }
                }
            }
            AboutClients::Unblock { id, .. } => found.waits = self.find_waiting(question, *id),
            AboutClients::Target(id) => {
                found.target = self.find_target(question.group, *id, now);
            }
        }
        Answer {
            number: question.number,
            found,
        }
    }

    /// What a node has said to a login that is on its way may be from before its user was deleted.
    fn prove_anew(&mut self, index: GroupIndex, choice: &Choice, now: Time) {
        let links = self.links.iter();
        let proofs =
            links.filter(|(_, link)| link.group == index && matches!(link.usage, Usage::Proof(_)));
        let proofs = proofs.filter(|(_, link)| {
            let user = link.proves.as_deref();
            user.is_none_or(|user| choice.names(user))
        });
        let proofs: Vec<_> = proofs.map(|(key, _)| key).collect();
        for proof in proofs {
            self.lose(proof, Loss::Left, now);
        }
        self.settle(now);
    }

    fn lines(
        &self,
        question: &Question,
        choice: &Choice,
        ends: impl Fn(ClientKey) -> Ends,
        now: Time,
    ) -> Vec<Line> {
        let each = self.each_chosen(question, choice, ends, now);
        let line = |(_, portrait, ends): (ClientKey, Portrait<'_>, Ends)| {
            let mut text = Vec::new();
            portrait.write(&ends, &mut text);
            let id = portrait.id;
            Line { id, text }
        };
        each.map(line).collect()
    }

    fn chosen(
        &self,
        question: &Question,
        choice: &Choice,
        ends: impl Fn(ClientKey) -> Ends,
        now: Time,
    ) -> Vec<(ClientKey, u64)> {
        let each = self.each_chosen(question, choice, ends, now);
        each.map(|(key, portrait, _)| (key, portrait.id)).collect()
    }

    /// The clients of the question's group that are chosen.
    fn each_chosen<'a>(
        &'a self,
        question: &'a Question,
        choice: &'a Choice,
        ends: impl Fn(ClientKey) -> Ends + 'a,
        now: Time,
    ) -> impl Iterator<Item = (ClientKey, Portrait<'a>, Ends)> + 'a {
        let of_group = |client: &Client| client.group == question.group;
        let clients = self.clients.iter();
        let clients = clients.filter(move |(_, it)| of_group(it) && it.ending != Ending::Now);
        clients.filter_map(move |(key, client)| {
            let mut portrait = self.portrait(client, now);
            if portrait.id == question.asker {
                portrait.unread += question.bytes;
            }
            if !choice.takes(&portrait, question.asker) {
                return None;
            }
            let ends = ends(key);
            choice.takes_ends(&ends).then_some((key, portrait, ends))
        })
    }

    /// Where a client waits at a server. Its link is for no other client from now on, so that
    /// nobody else's wait can be ended in its place.
    fn find_waiting(&mut self, question: &Question, id: u64) -> Option<Waiting> {
        let is = |it: &Client| it.group == question.group && it.session.id == id;
        let found = self.clients.iter().find(|(_, client)| is(client));
        let key = found?.1.lease.as_ref()?.link?;
        let link = self.links.get(key)?;
        if !link.is_waiting() || link.left.is_some() {
            return None;
        }
        let connection = link.connection.as_ref()?.id;
        let group = self.groups.get(question.group)?;
        let node = group.nodes.get(link.lane.node.0)?.addr.clone();
        self.retire(key);
        Some(Waiting { node, connection })
    }

    /// A worker has answered.
    pub fn roll_answered(&mut self, answer: Answer, now: Time) {
        let mut calls = self.roll.calls.iter_mut();
        let Some(at) = calls.position(|call| call.number == answer.number) else {
            // It was not waited for any longer.
            return;
        };
        if let Some(call) = self.roll.calls.get_mut(at) {
            call.missing = call.missing.saturating_sub(1);
            call.found.add(answer.found);
            if call.missing > 0 {
                return;
            }
        }
        let call = self.roll.calls.swap_remove(at);
        self.conclude(call, now);
        self.ask_next(now);
        self.settle(now);
    }

    /// Nobody is kept waiting for a worker that does not answer, or when all is given up.
    pub(super) fn expire_roll(&mut self, now: Time) {
        let all = self.stopping == Stopping::Abandoning;
        loop {
            if all {
                self.roll.backlog.clear();
            }
            let is_late = |call: &mut Call| {
                let since = call.since;
                all || since.is_some_and(|since| now.since(since) >= ANSWERS_WITHIN)
            };
            let late: Vec<_> = self.roll.calls.extract_if(.., is_late).collect();
            if late.is_empty() {
                return self.ask_next(now);
            }
            for call in late {
                self.go_on_without(call, now);
            }
            // A transaction of which one was may have asked the next thing, and all is given up.
        }
    }

    /// Says what is known without the workers that have not answered.
    fn go_on_without(&mut self, call: Call, now: Time) {
        let said = match &*call.about {
            // It is as the master says, whoever is closed late.
            AboutClients::Deleted(_) => Said::Nothing,
            _ => Said::Error(Reject::Unanswered),
        };
        let key = call.asker.key();
        self.say(call.asker, &said, now);
        if call.found.asker_ends {
            self.end(key, Ending::AfterReplies);
        }
    }

    /// All have answered.
    fn conclude(&mut self, call: Call, now: Time) {
        let mut found = call.found;
        if let Asker::Target(key) = call.asker {
            self.sought(key, found.target.unwrap_or(Sought::Nobody));
            return self.next_turns();
        }
        let said = match (&*call.about, found.waits.take()) {
            (AboutClients::Info, _) => Said::Text(text(found.lines, None)),
            (AboutClients::List(choice), _) => Said::Text(text(found.lines, choice.ids.as_deref())),
            (AboutClients::KillOne(_), _) if found.ended == 0 => {
                Said::Error(Reject::Redis("ERR No such client"))
            }
            (AboutClients::KillOne(_), _) => Said::Fine,
            (AboutClients::Kill(_), _) => Said::Number(found.ended),
            (AboutClients::Deleted(_), _) => Said::Nothing,
            (AboutClients::Unblock { error, .. }, Some(waiting)) => {
                if let Asker::Command(job) = call.asker {
                    self.unblock_at(Job { now, ..job }, &waiting, *error);
                }
                return self.next_turns();
            }
            (AboutClients::Unblock { .. }, None) | (AboutClients::Target(_), _) => Said::Number(0),
        };
        let key = call.asker.key();
        self.say(call.asker, &said, now);
        if found.asker_ends {
            self.end(key, Ending::AfterReplies);
        }
    }

    /// The client hears it.
    fn say(&mut self, asker: Asker, said: &Said, now: Time) {
        let key = asker.key();
        let protocol = self.clients.get(key).map(|it| it.session.protocol);
        self.scratch.clear();
        let reason = said.write(protocol.unwrap_or_default(), &mut self.scratch);
        match asker {
            Asker::Command(job) => {
                self.answer(Job { now, ..job }, RequestClass::Session, reason);
                self.touch(key);
            }
            Asker::Inside(mut carrying) => {
                carrying.hear(&self.scratch);
                self.carry_on(carrying, now);
            }
            Asker::Target(key) => self.sought(key, Sought::Later),
        }
        self.next_turns();
    }

    /// Who does not take its turn, because it may not or is gone, must not keep it from others.
    fn next_turns(&mut self) {
        for next in std::mem::take(&mut self.roll.turn) {
            self.end_wait(next, Wait::Turn);
        }
    }

    /// Has a node end a client's wait, over the lane of who asks, with its rights.
    fn unblock_at(&mut self, job: Job, waiting: &Waiting, error: bool) {
        let Some(client) = self.clients.get(job.key) else {
            return;
        };
        let (index, identity) = (client.group, client.session.identity);
        let protocol = client.session.protocol;
        let group = self.groups.get(index);
        let writable = group.and_then(|group| {
            let node = group.nodes.get(group.writable?.0)?;
            group.writable.filter(|_| node.addr == waiting.node)
        });
        let lane = writable.map(|node| LaneId {
            node,
            role: Role::Master,
            identity,
            database: 0,
            protocol,
            bulky: false,
        });
        let link = lane.and_then(|lane| self.shared_link(index, lane, job.now).ok());
        let Some(link) = link.filter(|link| self.is_open(*link)) else {
            self.no_connection(job);
            return self.touch(job.key);
        };
        let id = waiting.connection.to_string();
        let mut words = vec![&b"CLIENT"[..], b"UNBLOCK", id.as_bytes()];
        words.extend(error.then_some(&b"ERROR"[..]));
        let mut raw = Vec::new();
        encode::request(&mut raw, &words);
        // With a number it has room, and is sent.
        let _ = self.send(link, job, &raw, Kind::leased(Purpose::Slow));
    }

    /// A command is refused for want of a connection.
    pub(super) fn no_connection(&mut self, job: Job) -> Placed {
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let Some(name) = group.map(|group| group.settings.name.clone()) else {
            return Placed::Answered;
        };
        let held = Duration::ZERO;
        let reject = Reject::NoConnection { name: &name, held };
        self.reject(job, RequestClass::Refused, reject)
    }
}

impl Asker {
    const fn group(&self) -> Option<GroupIndex> {
        match self {
            Self::Inside(carrying) => Some(carrying.group()),
            Self::Command(_) | Self::Target(_) => None,
        }
    }

    const fn key(&self) -> ClientKey {
        match self {
            Self::Command(job) => job.key,
            Self::Inside(carrying) => carrying.client(),
            Self::Target(key) => *key,
        }
    }
}

impl Found {
    fn add(&mut self, other: Self) {
        self.lines.extend(other.lines);
        self.ended += other.ended;
        self.asker_ends |= other.asker_ends;
        self.waits = self.waits.take().or(other.waits);
        self.target = self.target.take().or(other.target);
    }
}

impl Said {
    /// Returns the reason that is counted, if it is an error of ours.
    fn write(&self, protocol: Protocol, out: &mut Vec<u8>) -> Option<crate::telemetry::Reason> {
        match self {
            Self::Text(text) => encode::verbatim(out, protocol, text),
            Self::Number(number) => {
                encode::integer(out, i64::try_from(*number).unwrap_or(i64::MAX));
            }
            Self::Fine => encode::simple(out, "OK"),
            Self::Nothing => {}
            Self::Error(reject) => {
                reject.write(out);
                return reject.reason();
            }
        }
        None
    }
}

/// The lines in the order of arrival, or of the numbers that were given, with which one may come
/// twice.
fn text(mut lines: Vec<Line>, ids: Option<&[u64]>) -> Vec<u8> {
    lines.sort_unstable_by_key(|line| line.id);
    let Some(ids) = ids else {
        let texts: Vec<_> = lines.into_iter().map(|line| line.text).collect();
        return texts.concat();
    };
    let found = ids.iter().filter_map(|id| {
        let at = lines.binary_search_by_key(id, |line| line.id).ok()?;
        lines.get(at)
    });
    let texts: Vec<&[u8]> = found.map(|line| &line.text[..]).collect();
    texts.concat()
}
