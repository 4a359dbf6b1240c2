//! Floor 4. Commands about subscriptions, and what a subscriber publishes itself: over the hub of
//! its login, behind what was published before.
//!
//! They wait until everything that their client has asked elsewhere is answered: a confirmation
//! must not overtake a reply, and it cannot wait for one as a reply can.

use std::collections::{BTreeSet, VecDeque};

use crate::command::Leased;
use crate::exchange::client::{Client, Numbered, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::hub::{begins, is_passing, word};
use crate::exchange::link::State;
use crate::exchange::ticket::{Effect, Purpose, Subscription, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Request, encode};
use crate::session::{IdentityId, Piece, Subscriptions};
use crate::telemetry::RequestClass;
use crate::types::{Protocol, Time};

/// `RESET`.
pub(super) const RESET: &[u8] = b"*1\r\n$5\r\nRESET\r\n";

/// At least as many bytes as what stands around a name that is left, in the protocol.
const FRAME: usize = 64;

/// What stands for a name that nobody hears.
const NOBODYS: &[u8] = b"__switchman__:nobody";

/// What one client hears.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) subscriptions: Subscriptions,
    /// Whether a change of them may be in flight.
    changing: bool,
    /// What it hears no more once its hub has answered, oldest first: UNSUBSCRIBE and its like, or
    /// RESET.
    leaving: VecDeque<Leaving>,
    /// What it will be told of them once the server has heard of it too.
    left: VecDeque<Box<[u8]>>,
}

/// What ends some of a client's subscriptions.
#[derive(Debug)]
struct Leaving {
    raw: Box<[u8]>,
    /// Names that nobody else hears: the server was told before it was asked.
    ended: BTreeSet<Box<[u8]>>,
}

impl Heard {
    /// Whether something of it is about to end.
    fn is_leaving(&self) -> bool {
        !self.leaving.is_empty() || !self.left.is_empty()
    }
}

impl Client {
    /// Whether it speaks RESP2 and has subscriptions.
    pub(super) fn is_restricted_subscriber(&self) -> bool {
        self.session.protocol == Protocol::Resp2 && self.is_subscriber()
    }

    /// Whether it has subscriptions.
    pub(super) fn is_subscriber(&self) -> bool {
        let heard = self.heard.as_ref();
        heard.is_some_and(|heard| !heard.subscriptions.is_empty())
    }

    /// Whether its subscriptions are not settled, and matter to what comes next.
    pub(super) fn is_changing_subscriptions(&mut self) -> bool {
        let Some(heard) = self.heard.as_deref_mut() else {
            return false;
        };
        heard.changing &= self.replies.outstanding() > 0;
        heard.changing && self.session.protocol == Protocol::Resp2
    }

    /// Whether a RESET has no reply yet.
    pub(super) fn is_resetting(&self) -> bool {
        let heard = self.heard.as_ref();
        let last = heard.and_then(|heard| heard.leaving.back());
        last.is_some_and(|last| &*last.raw == RESET)
    }

    /// Whether it waits for replies of others than this link.
    pub(super) fn is_answered_beside(&self, link: Option<LinkKey>) -> bool {
        let all_on_it = self.master_out == self.replies.outstanding()
            && self.master_link == link
            && link.is_some();
        self.replies.outstanding() > 0 && !all_on_it
    }

    /// What it has subscribed to.
    fn names(&self) -> Vec<(Leased, Box<[u8]>)> {
        let kinds = [Leased::Subscribe, Leased::Psubscribe, Leased::Ssubscribe];
        let heard = self.heard.as_ref();
        let all = heard.into_iter().flat_map(|heard| {
            kinds.into_iter().flat_map(|kind| {
                let names = heard.subscriptions.of(kind).iter();
                names.map(move |name| (kind, name.clone()))
            })
        });
        all.collect()
    }
}

impl Exchange {
    /// One of the six commands that change subscriptions.
    pub(super) fn place_subscription(
        &mut self,
        job: Job,
        request: &Request<'_>,
        command: Leased,
    ) -> Placed {
        let begins = matches!(
            command,
            Leased::Subscribe | Leased::Psubscribe | Leased::Ssubscribe
        );
        if !begins {
            return self.place_behind_messages(job, request.raw(), Some(command));
        }
        let link = match self.hub_for(job) {
            Ok(link) => link,
            Err(placed) => return placed,
        };
        let names = u32::try_from(request.argc().saturating_sub(1)).unwrap_or(u32::MAX);
        let purpose = Purpose::Subscription(Subscription {
            command,
            names,
            asked: true,
        });
        let placed = self.send(link, job, request.raw(), Kind::leased(purpose));
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
            && let Some(link) = self.links.get_mut(link)
        {
            client.heard.get_or_insert_default().changing = true;
            for name in request.args().skip(1) {
                link.begun.add(command, name);
            }
        }
        placed
    }

    /// UNSUBSCRIBE and its like (`ends`), or RESET: done when the hub has answered, behind which
    /// nothing comes that was published before. What is asked there is the end of a subscription
    /// that there is not, which takes the same right; RESET takes none, and a PING will do. What
    /// nobody else hears is ended there before that, so that who publishes next is not told of a
    /// listener; without the right to it both are refused.
    pub(super) fn place_behind_messages(
        &mut self,
        job: Job,
        raw: &[u8],
        ends: Option<Leased>,
    ) -> Placed {
        let link = match self.hub_for(job) {
            Ok(link) => link,
            Err(placed) => return placed,
        };
        let mut ended = BTreeSet::new();
        let placed = match ends {
            Some(command) => {
                ended = self.heard_by_it_alone(job.key, link, (command, raw));
                for name in &ended {
                    self.tell_hub(link, command, name, job.now);
                }
                let mut question = Vec::new();
                let nobodys = self.nobodys_name(link, command);
                encode::request(&mut question, &[word(command), &nobodys]);
                self.ask_hub(link, job, &question, Purpose::Leaving)
            }
            None => self.ping_hub(link, job, Purpose::Leaving),
        };
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
        {
            let heard = client.heard.get_or_insert_default();
            heard.changing = true;
            let raw = Box::from(raw);
            heard.leaving.push_back(Leaving { raw, ended });
        }
        placed
    }

    /// Which names that a client is about to leave nobody else hears on an open link, or has asked
    /// for there. None while it leaves others: what it hears is not decided; nor where the question
    /// would not fit behind them, and have to wait while they are told.
    fn heard_by_it_alone(
        &self,
        key: ClientKey,
        link: LinkKey,
        (command, raw): (Leased, &[u8]),
    ) -> BTreeSet<Box<[u8]>> {
        let client = self.clients.get(key);
        let heard = client.and_then(|client| client.heard.as_deref());
        let request = Request::from_raw(raw);
        let (Some(heard), Some(request)) = (heard.filter(|it| !it.is_leaving()), request) else {
            return BTreeSet::new();
        };
        let mut names: BTreeSet<Box<[u8]>> = request.args().skip(1).map(Box::from).collect();
        if names.is_empty() {
            names = heard.subscriptions.of(command).iter().cloned().collect();
        }
        names.retain(|name| self.is_heard_alone(link, key, (command, name)));
        let bytes: usize = names.iter().map(|name| FRAME + name.len()).sum();
        if bytes >= self.room_on_hub(link) {
            names.clear();
        }
        names
    }

    /// A name that nobody hears on a link, or is about to.
    fn nobodys_name(&self, link: LinkKey, command: Leased) -> Vec<u8> {
        let mut name = Vec::from(NOBODYS);
        while self.is_wanted(link, (command, &name)) {
            name.push(b'_');
        }
        name
    }

    fn ping_hub(&mut self, link: LinkKey, job: Job, purpose: Purpose) -> Placed {
        let mut ping = Vec::new();
        encode::request(&mut ping, &[b"PING"]);
        self.ask_hub(link, job, &ping, purpose)
    }

    fn ask_hub(&mut self, link: LinkKey, job: Job, raw: &[u8], purpose: Purpose) -> Placed {
        let kind = Kind {
            effect: Effect::Reads,
            ..Kind::leased(purpose)
        };
        self.send(link, job, raw, kind)
    }

    /// PUBLISH of a subscriber: over the hub, where its message, if it is for the client itself,
    /// comes behind all replies that are due before, and next to its own. Up to Redis 7.0 that is
    /// before it, later behind it: a PING that nobody hears of is answered behind both, and what
    /// the client asks next behind that. `None`: there is no hub on which that could be.
    pub(super) fn publish_on_hub(&mut self, job: Job, raw: &[u8], kind: Kind) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let group = self.groups.get(client.group)?;
        let key = group.hub(client.session.identity)?.link?;
        let link = self.links.get_mut(key)?;
        if link.lane.protocol == Protocol::Resp2 {
            return None;
        }
        if client
            .heard
            .as_ref()
            .is_some_and(|heard| heard.is_leaving())
        {
            // Who hears it is not decided.
            client.wait = Wait::Answers;
            return Some(Placed::Waits);
        }
        if link.state == State::Opening {
            link.waiters.push(job.key);
            client.wait = Wait::Proof(key);
            return Some(Placed::Waits);
        }
        let link = match self.hub_for(job) {
            Ok(link) => link,
            Err(placed) => return Some(placed),
        };
        let placed = self.send(link, job, raw, kind);
        if placed == Placed::Sent
            && let Some(client) = self.clients.get_mut(job.key)
        {
            let again = Some(Numbered::new(client.replies.begin(), false));
            let behind = Job {
                again,
                ..Job::new(job.key, job.arrived, job.now)
            };
            self.ping_hub(link, behind, Purpose::Internal);
        }
        Some(placed)
    }

    /// The link of a client's hub, once all that it has asked elsewhere is answered. An `Err` is
    /// what became of the request without it.
    fn hub_for(&mut self, job: Job) -> Result<LinkKey, Placed> {
        let Some(client) = self.clients.get(job.key) else {
            return Err(Placed::Answered);
        };
        let (index, identity) = (client.group, client.session.identity);
        if self.is_in_doubt(job.key) {
            return Err(self.hold(job));
        }
        let group = self.groups.get(index);
        let present = group.and_then(|group| group.hub(identity)?.link);
        let wait = if job.again.is_none() && client.is_answered_beside(present) {
            Some(Wait::Answers)
        } else if client.master_out > 0 && client.master_link != present {
            Some(Wait::Order)
        } else {
            None
        };
        if let Some(wait) = wait {
            if let Some(client) = self.clients.get_mut(job.key) {
                client.wait = wait;
            }
            return Err(Placed::Waits);
        }
        let link = self.hub_link(index, identity, job.now);
        link.ok_or_else(|| self.hold(job))
    }

    /// A hub has said this, or is gone: nothing comes any more that was published before. Its
    /// client hears what it has left no longer, and is told so when the server does not count it
    /// any more; or it may not leave, and hears that.
    pub(super) fn left(&mut self, ticket: Ticket, said: &[u8], now: Time) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        let leaving = client.heard.as_deref_mut();
        if ticket.purpose == Purpose::Left {
            let told = leaving.and_then(|heard| heard.left.pop_front());
            let told = told.as_deref().unwrap_or_default();
            return client.replies.deliver(ticket.seq, told, Piece::Last);
        }
        let leaving = leaving.and_then(|heard| heard.leaving.pop_front());
        let Some(Leaving { raw, ended }) = leaving else {
            return client.replies.deliver(ticket.seq, &[], Piece::Last);
        };
        let Some(request) = Request::from_raw(&raw) else {
            return client.replies.deliver(ticket.seq, &[], Piece::Last);
        };
        if said.starts_with(b"-") && request.raw() != RESET {
            let words = if ticket.spoken { said } else { &[] };
            client.replies.deliver(ticket.seq, words, Piece::Last);
            if is_passing(said) {
                self.hear_on(ticket.client, (request.name(), &ended), now);
            }
            return;
        }
        let group = self.groups.get(client.group);
        let hub = group.and_then(|group| group.hub(client.session.identity)?.link);
        let in_flight = |exchange: &Self| Some(exchange.links.get(hub?)?.pipeline.len());
        let before = in_flight(self);
        self.scratch.clear();
        let command = if request.raw() == RESET {
            self.begin_again(ticket.client, now);
            self.scratch.clear();
            encode::simple(&mut self.scratch, "RESET");
            None
        } else {
            Some(ends_by(request.name()))
        };
        if let Some(command) = command {
            self.unsubscribe(ticket.client, (command, &request, &ended), now);
        }
        let told = std::mem::take(&mut self.scratch);
        let ends = hub.filter(|_| in_flight(self) > before);
        self.tell_left(ticket, ends, &told, now);
        self.scratch = told;
    }

    /// A client may not leave at the moment: of what it hears alone the server may have ended some.
    fn hear_on(&mut self, key: ClientKey, (name, ended): (&[u8], &BTreeSet<Box<[u8]>>), now: Time) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let group = self.groups.get(client.group);
        let Some(hub) = group.and_then(|group| group.hub(client.session.identity)) else {
            return;
        };
        let command = begins(ends_by(name));
        let heard = ended
            .iter()
            .filter(|name| hub.of(command).contains_key(*name));
        let heard: Vec<_> = heard.collect();
        if let Some(link) = hub.link {
            for name in heard {
                self.tell_hub(link, command, name, now);
            }
        }
    }

    /// A client is told what it has left; `ends`: on this link the server is about to hear that
    /// nobody hears it any more, and would count it meanwhile.
    fn tell_left(&mut self, ticket: Ticket, ends: Option<LinkKey>, told: &[u8], now: Time) {
        if let Some(link) = ends {
            let again = Some(Numbered::new(ticket.seq, ticket.spoken));
            let job = Job {
                again,
                ..Job::new(ticket.client, ticket.arrived, now)
            };
            if self.ping_hub(link, job, Purpose::Left) == Placed::Sent {
                if let Some(client) = self.clients.get_mut(ticket.client) {
                    let heard = client.heard.get_or_insert_default();
                    heard.left.push_back(Box::from(told));
                }
                return;
            }
        }
        if let Some(client) = self.clients.get_mut(ticket.client) {
            // Confirmations are pushes, which `CLIENT REPLY` does not silence (Redis pubsub.c,
            // CLIENT_PUSHING).
            client.replies.deliver(ticket.seq, told, Piece::Last);
        }
    }

    /// Ends subscriptions, with the confirmations in `scratch`; the server has heard of those that
    /// are `ended`.
    fn unsubscribe(
        &mut self,
        key: ClientKey,
        (command, request, ended): (Leased, &Request<'_>, &BTreeSet<Box<[u8]>>),
        now: Time,
    ) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let (protocol, index) = (client.session.protocol, client.group);
        let heard = client.heard.get_or_insert_default();
        let subscriptions = &mut heard.subscriptions;
        let mut names: Vec<Box<[u8]>> = request.args().skip(1).map(Box::from).collect();
        if names.is_empty() {
            names = subscriptions.of(command).iter().cloned().collect();
        }
        let out = &mut self.scratch;
        if names.is_empty() {
            subscriptions.confirm(out, protocol, (command, None));
        }
        let mut left = Vec::new();
        for name in names {
            let was_there = subscriptions.remove(command, &name);
            subscriptions.confirm(out, protocol, (command, Some(&name)));
            if was_there {
                left.push((command, name));
            }
        }
        let of = (index, client.session.identity);
        let confirmations = std::mem::take(&mut self.scratch);
        self.leave_hub(key, of, (&left, ended), now);
        self.scratch = confirmations;
    }

    /// A client hears nothing any more.
    pub(super) fn hear_nothing(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let names = client.names();
        let of = (client.group, client.session.identity);
        client.heard = None;
        self.leave_hub(key, of, (&names, &BTreeSet::new()), now);
    }

    /// A client that hears something has another login from now on. Redis lets it hear on; here the
    /// new login has to have the right to. The reply to the login, and what comes next, comes when
    /// it hears again.
    pub(super) fn hear_as(&mut self, key: ClientKey, former: IdentityId, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let (index, identity) = (client.group, client.session.identity);
        if client.heard.is_none() || former == identity {
            return;
        }
        let names = client.names();
        self.move_to_hub(key, (index, identity), &names, now);
        self.leave_hub(key, (index, former), (&names, &BTreeSet::new()), now);
        let group = self.groups.get(index);
        let link = group.and_then(|group| group.hub(identity)?.link);
        if let (Some(link), Some(client)) = (link, self.clients.get_mut(key))
            && !names.is_empty()
        {
            let again = Some(Numbered::new(client.replies.begin(), false));
            let job = Job {
                again,
                ..Job::new(key, now, now)
            };
            self.ping_hub(link, job, Purpose::Internal);
        }
    }

    /// Forgets that a client was about to hear something, once it does not.
    pub(super) fn release_heard(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && client.replies.outstanding() == 0
            && let Some(heard) = &client.heard
            && heard.subscriptions.is_empty()
        {
            client.heard = None;
        }
    }

    /// PING of a RESP2 client with subscriptions (Redis server.c, `pingCommand`), of the right
    /// arity.
    pub(super) fn pong(&mut self, job: Job, request: &Request<'_>) -> Placed {
        self.scratch.clear();
        encode::array_header(&mut self.scratch, 2);
        encode::bulk(&mut self.scratch, b"pong");
        encode::bulk(&mut self.scratch, request.arg1().unwrap_or_default());
        self.answer(job, RequestClass::Session, None)
    }

    /// Passes a message that answers no request on to its client.
    pub(super) fn pass_push(&mut self, owner: ClientKey, frame: &[u8]) {
        if let Some(client) = self.clients.get_mut(owner) {
            client.replies.push(frame);
            self.touch(owner);
        }
    }
}

/// Which of the three that end a name is.
fn ends_by(name: &[u8]) -> Leased {
    if name.eq_ignore_ascii_case(b"punsubscribe") {
        Leased::Punsubscribe
    } else if name.eq_ignore_ascii_case(b"sunsubscribe") {
        Leased::Sunsubscribe
    } else {
        Leased::Unsubscribe
    }
}
