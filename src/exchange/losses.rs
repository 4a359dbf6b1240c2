//! Floor 4. Links that open, fail to open, or are lost, and what becomes of the requests on them.
//!
//! | the request | was not wholly written | was written, may write | was written, only reads |
//! |---|---|---|---|
//! | on a link that never opened | placed anew, transactions included | – | – |
//! | on a shared link | placed anew | UNCERTAIN | placed anew |
//! | blocking, admin | placed anew | UNCERTAIN | placed anew |
//! | between MULTI and EXEC | begun anew | begun anew, or UNCERTAIN with its EXEC | – |
//! | EXEC | begun anew | UNCERTAIN | – |
//! | of a transaction that cannot be begun anew | EXECABORT | EXECABORT, or UNCERTAIN | – |
//! | one passed on while it came | an error: nothing was executed | UNCERTAIN | – |
//! | WATCH | `OK`, but EXEC will not succeed | the same | – |
//! | DISCARD, UNWATCH | done | done | – |
//! | SUBSCRIBE, CLIENT TRACKING | placed anew | placed anew | – |
//! | SELECT, AUTH, HELLO on a client's own link | placed anew | placed anew | – |
//!
//! A link that the node refuses passes the node's words on to every request on it.

use crate::exchange::busy::is_busy;
use crate::exchange::client::{Ending, Origin, Wait};
use crate::exchange::fencing::Waits;
use crate::exchange::lease::Multi;
use crate::exchange::link::{Link, State, Usage};
use crate::exchange::standing::{BREAKS_MAX, Begun, Close, Standing, is_begun_in_vain, standings};
use crate::exchange::ticket::{Effect, Purpose, Ticket, Undo};
use crate::exchange::{Action, ClientKey, Exchange, LinkKey, Opened, Role};
use crate::mux::{Lost, Sent};
use crate::session::{IdentityId, Piece, Reject};
use crate::telemetry::{self, RequestClass};
use crate::topology::ReportKind;
use crate::types::Time;

/// Why a link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The peer closed it, or it broke.
    Broken,
    /// Its replies are overdue.
    Silent,
    /// We left the node.
    Left,
    /// What the node sent made no sense, and we do not read on.
    Nonsense,
    /// The node has ended the wait of what was the oldest on it, and closes it without reading on.
    Unblocked,
}

/// How a link ended, for the requests on it.
#[derive(Clone, Copy)]
pub(super) enum End<'a> {
    /// It was open.
    Lost(Loss),
    /// Its replies are overdue, and its node is to end this link.
    Fenced(LinkKey),
    /// It never was.
    Unopened,
    /// It never was: this replica does not let the client in, and the master may.
    Declined,
    /// It never was, and these are the node's words.
    Refused(&'a [u8]),
}

/// What becomes of a lost request.
enum Fate {
    /// It is placed anew.
    Again,
    /// It is answered with an error of our own.
    Error(Reject<'static>),
    /// It is as good as done.
    Undone(Undo),
    /// It is answered with the node's words.
    Passed,
    /// Its client hears something no more.
    Left,
    /// Nobody waits for it.
    Nothing,
}

impl Exchange {
    /// A link is connected and its handshake is done.
    pub fn link_opened(&mut self, key: LinkKey, opened: Opened, now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.heard_at = now;
        link.opened_at = now;
        link.connection = opened.connection.map(Box::new);
        if link.state == State::Opening {
            link.state = State::Ready;
            self.opening -= 1;
            let group = self.groups.get_mut(link.group);
            if let Some(node) = group.and_then(|group| group.nodes.get_mut(link.lane.node.0)) {
                node.opening -= 1;
                node.open += 1;
            }
        }
        let (lane, index, usage) = (link.lane, link.group, link.usage);
        let (waiters, changes) = (std::mem::take(&mut link.waiters), link.changes);
        if !link.pipeline.unwritten().is_empty() && !link.dirty {
            link.dirty = true;
            self.dirty_links.push(key);
        }
        let (mut recovered, mut is_news) = (false, false);
        if let Some(group) = self.groups.get_mut(index) {
            if lane.role == Role::Master
                && let Some(hello) = opened.hello
            {
                group.set_hello(lane.protocol, hello);
            }
            if lane.identity == IdentityId::ANONYMOUS && lane.role == Role::Master {
                group.door_told(true, changes, now);
            }
            is_news = group.let_in(Some(lane.node), lane.identity);
            if let Some(node) = group.nodes.get_mut(lane.node.0) {
                node.failures = 0;
                if lane.role == Role::Master
                    && !matches!(usage, Usage::Proof(_) | Usage::Hub | Usage::Target(_))
                {
                    // It has brought them along.
                    node.lacks_scripts = false;
                }
                if lane.role == Role::Replica
                    && let Some(settled) = &node.settled
                {
                    // It may be another process than the one that has settled anything.
                    settled.renew();
                }
                recovered = node.end_all_pauses();
                let counts = group.counts.at(node.index);
                match usage {
                    Usage::Shared | Usage::Hub => counts.shared += 1,
                    Usage::Leased(_) | Usage::Proof(_) | Usage::Target(_) => counts.leased += 1,
                }
            }
        }
        if recovered {
            // Nobody else would notice any more that the node may be used again.
            if let Some(group) = self.groups.get_mut(index) {
                group.refresh(now);
            }
            self.resume_held(index);
        }
        if is_news {
            self.resume_held(index);
        }
        self.end_waits(key, &waiters);
        self.end_trial(key, now);
        self.warmed(key, now);
        if usage == Usage::Shared {
            self.warm(index, lane, now);
        }
        self.settle(now);
    }

    /// A link that was open is gone.
    pub fn link_lost(&mut self, key: LinkKey, loss: Loss, now: Time) {
        if let Some(link) = self.lose(key, loss, now) {
            self.after_loss(key, &link, now);
        }
    }

    /// Takes a link out and decides for what was on it; those who may go on do so later.
    pub(super) fn lose(&mut self, key: LinkKey, loss: Loss, now: Time) -> Option<Link> {
        let link = self.discard(key)?;
        if link.state != State::Opening
            && let Some(group) = self.groups.get_mut(link.group)
            && let Some(node) = group.nodes.get_mut(link.lane.node.0)
        {
            // It may have been restarted, and what it had in memory is gone.
            node.lacks_scripts = true;
            if loss != Loss::Left {
                if link.lane.role == Role::Replica
                    && let Some(settled) = &node.settled
                {
                    settled.renew();
                }
                let report = ReportKind::LinkLost {
                    node: node.addr.clone(),
                };
                self.actions.push_back(Action::Report(link.group, report));
            }
        }
        if link.lane.role == Role::Replica && !link.pipeline.is_empty() && loss != Loss::Left {
            self.reader_failed(link.group, link.lane.node, now);
        }
        let waits = match loss {
            Loss::Silent => Waits::Yes,
            Loss::Broken | Loss::Left | Loss::Nonsense | Loss::Unblocked => Waits::No,
        };
        let end = match link.state {
            State::Opening => End::Unopened,
            State::Ready | State::Tunnel if is_of_the_node(loss) => End::Lost(loss),
            State::Ready if self.fence(key, &link, waits, now) => End::Fenced(key),
            State::Ready | State::Tunnel => End::Lost(loss),
        };
        self.dispose(key, &link, end, now);
        self.end_waits(key, &link.waiters);
        Some(link)
    }

    pub(super) fn after_loss(&mut self, key: LinkKey, link: &Link, now: Time) {
        self.end_waits(key, &link.waiters);
        self.track_again_all(link.group, now);
        self.restore_hubs(link.group, now);
        self.settle(now);
        self.check_quiet(link.group, now);
    }

    /// Ends the waits of clients for a link.
    pub(super) fn end_waits(&mut self, key: LinkKey, waiters: &[ClientKey]) {
        for waiter in waiters {
            self.end_wait(*waiter, Wait::Link(key));
            self.end_wait(*waiter, Wait::Proof(key));
        }
    }

    /// Decides for each request of a link that is gone, and mends what its clients had on it.
    pub(super) fn dispose(&mut self, key: LinkKey, link: &Link, end: End<'_>, now: Time) {
        let standings = match link.usage {
            Usage::Leased(Some(owner)) => self.lease_lost(owner, link, end, now),
            Usage::Leased(None)
            | Usage::Shared
            | Usage::Hub
            | Usage::Proof(_)
            | Usage::Target(_) => standings(link, Begun::nothing(now)).0,
        };
        if let Usage::Leased(Some(owner)) = link.usage
            && is_begun_in_vain(link)
        {
            self.multi_lost(owner, end, now);
        }
        match (link.usage, end) {
            (Usage::Hub, End::Refused(words)) => self.hub_refused(link, words, now),
            (Usage::Target(owner), _) => self.target_lost(owner, link.state == State::Ready),
            _ => {}
        }
        let broken = matches!(end, End::Lost(Loss::Broken | Loss::Nonsense));
        for (at, (mut lost, standing)) in link.pipeline.lost().zip(standings).enumerate() {
            lost.sent = standing.sent;
            if at == 0 && broken && lost.sent == Sent::Yes {
                // The reply that was due next may be what broke the connection.
                lost.ticket.breaks = lost.ticket.breaks.saturating_add(1);
            }
            self.count_lost(link, lost.sent);
            self.dispose_of((key, link), lost, end, standing);
        }
        for client in &link.throttled_by {
            if let Some(client) = self.clients.get_mut(*client) {
                client.throttled.remove(key);
                let unread = client.replies.unread();
                client.stalled &=
                    !client.throttled.is_empty() || unread > self.settings.output_high;
            }
        }
        if let Usage::Proof(owner) = link.usage
            && let Some(client) = self.clients.get_mut(owner)
        {
            client.proof = None;
        }
    }

    /// Decides for one request.
    fn dispose_of(
        &mut self,
        (key, link): (LinkKey, &Link),
        lost: Lost<'_, Ticket>,
        end: End<'_>,
        standing: Standing,
    ) {
        let ticket = lost.ticket;
        if ticket.purpose == Purpose::Slow {
            self.note_change_of(link.group);
        }
        let Some(client) = self.clients.get_mut(ticket.client) else {
            match ticket.purpose {
                Purpose::Hedged => {
                    self.copy_lost(link.group, (key, ticket.seq), ticket.breaks);
                }
                Purpose::Copy => self.copy_gone(ticket.seq),
                _ => {}
            }
            return;
        };
        let fate = fate(ticket, end, standing);
        if let (End::Fenced(fenced), Fate::Error(Reject::UncertainSilent)) = (end, &fate)
            && client.replies.retract(ticket.seq)
        {
            return self.answer_after_fence(fenced, ticket);
        }
        client.answered(link.lane.role, ticket.effect);
        if !client.replies.retract(ticket.seq) {
            // Half a reply cannot be taken back, and nothing may follow it.
            return self.end(ticket.client, Ending::Now);
        }
        match fate {
            Fate::Again if ticket.breaks >= BREAKS_MAX => {
                self.tell(ticket, Reject::Breaks { times: BREAKS_MAX });
            }
            Fate::Again => {
                let asked = matches!(
                    end,
                    End::Lost(Loss::Silent) | End::Fenced(_) | End::Declined
                );
                let bounces = ticket.bounces.saturating_add(u8::from(asked));
                let mut again = ticket.again(link.usage, bounces, lost.bytes);
                if link.lane.role == Role::Replica {
                    again.number.origin = Origin::Replica;
                }
                if matches!(ticket.purpose, Purpose::Waits(_)) && lost.sent == Sent::Yes {
                    again = again.after_waiting(standing.at);
                }
                client.try_again(again);
                if let Some(group) = self.groups.get_mut(link.group)
                    && lost.sent == Sent::Yes
                {
                    group.counts.resent += 1;
                }
            }
            Fate::Error(reject) => self.tell(ticket, reject),
            Fate::Undone(undo) => {
                self.compose_undone(ticket.client, undo);
                self.deliver_scratch(ticket);
            }
            Fate::Passed => {
                self.scratch.clear();
                if let End::Refused(line) = end {
                    self.scratch.extend_from_slice(line);
                }
                self.deliver_scratch(ticket);
            }
            Fate::Left => self.left(ticket, &[], standing.at),
            Fate::Nothing => client.replies.deliver(ticket.seq, &[], Piece::Last),
        }
        self.touch(ticket.client);
    }

    /// Answers a lost request with what `scratch` holds.
    fn deliver_scratch(&mut self, ticket: Ticket) {
        if let Some(client) = self.clients.get_mut(ticket.client) {
            let bytes: &[u8] = if ticket.spoken { &self.scratch } else { &[] };
            client.replies.deliver(ticket.seq, bytes, Piece::Last);
        }
    }

    fn count_lost(&mut self, link: &Link, sent: Sent) {
        let Some(group) = self.groups.get_mut(link.group) else {
            return;
        };
        let Some(node) = group.nodes.get_mut(link.lane.node.0) else {
            return;
        };
        node.in_flight = node.in_flight.saturating_sub(1);
        let counts = group.counts.at(node.index);
        match sent {
            Sent::Yes => counts.lost_sent += 1,
            Sent::No => counts.lost_unsent += 1,
        }
    }

    /// Answers a lost request with an error of our own.
    pub(super) fn tell(&mut self, ticket: Ticket, reject: Reject<'_>) {
        self.scratch.clear();
        reject.write(&mut self.scratch);
        self.deliver_scratch(ticket);
        let Some(client) = self.clients.get(ticket.client) else {
            return;
        };
        if let Some(group) = self.groups.get_mut(client.group) {
            group
                .counts
                .request(RequestClass::Refused, telemetry::Target::Local, 1);
            group.counts.uncertain += u64::from(reject.is_uncertain());
            if let Some(reason) = reject.reason() {
                group.counts.reject(reason);
            }
        }
    }

    /// A client hears of its MULTI that it came to nothing: what it sends after that is no part of
    /// a transaction. One that a busy server takes is begun, though nothing will come of it.
    fn multi_lost(&mut self, owner: ClientKey, end: End<'_>, now: Time) {
        if let Some(client) = self.clients.get_mut(owner)
            && let Some(lease) = client.lease.as_deref_mut()
            && lease.multi == Multi::Broken
        {
            lease.multi = match end {
                End::Refused(words) if is_busy(words) => Multi::Denied,
                _ => Multi::Refused(now),
            };
        }
    }

    /// What a client had on the link that was its own. Returns where the requests on it stood.
    fn lease_lost(
        &mut self,
        owner: ClientKey,
        link: &Link,
        end: End<'_>,
        now: Time,
    ) -> Vec<Standing> {
        self.end_wait(owner, Wait::Renewal);
        let Some(client) = self.clients.get_mut(owner) else {
            return standings(link, Begun::nothing(now)).0;
        };
        let Some(lease) = client.lease.as_deref_mut() else {
            return standings(link, Begun::nothing(now)).0;
        };
        if !matches!(end, End::Unopened) {
            lease.sticky |= lease.tracking.is_choosing();
        }
        let begun = match end {
            End::Lost(loss) => Begun {
                unread: loss == Loss::Unblocked,
                ..Begun::of(lease, now)
            },
            End::Fenced(_) => Begun::of(lease, now),
            End::Unopened | End::Declined | End::Refused(_) => Begun {
                kept: None,
                ..Begun::of(lease, now)
            },
        };
        let (standings, anew) = standings(link, begun);
        if matches!(end, End::Unopened) {
            // Everything that was begun on it is placed anew, so that it is as if it had not begun.
            lease.never_had_link();
        } else {
            lease.lose_link(anew);
        }
        let (sticky, unmade) = (lease.sticky, lease.unmade);
        let tracked = lease.tracking.is_made();
        if lease.is_clean() {
            client.lease = None;
        }
        if sticky {
            // What stuck to the connection (MONITOR) cannot be had again unnoticed.
            self.end(owner, Ending::AfterReplies);
        } else if unmade && matches!(end, End::Refused(_)) {
            // It would be refused again at once, and as often as it is asked for.
            self.end(owner, Ending::AfterReplies);
        } else if unmade && let Some(group) = self.groups.get_mut(link.group) {
            group.untracked.push(owner);
        }
        if tracked && !sticky {
            self.invalidate_everything(owner);
        }
        self.touch(owner);
        standings
    }
}

/// Whether the node has ended a link, so that it reads nothing more from it.
const fn is_of_the_node(loss: Loss) -> bool {
    matches!(loss, Loss::Broken | Loss::Unblocked)
}

fn fate(ticket: Ticket, end: End<'_>, standing: Standing) -> Fate {
    let again = match ticket.purpose {
        Purpose::Internal
        | Purpose::Rights(_)
        | Purpose::Renewal
        | Purpose::Retracking
        | Purpose::Hedged
        | Purpose::Copy => return Fate::Nothing,
        Purpose::Subscription(subscription) if !subscription.asked => return Fate::Nothing,
        // Nothing comes any more that was published before.
        Purpose::Leaving | Purpose::Left => return Fate::Left,
        // An EXEC that is not to happen does not become one that may.
        Purpose::Undo(undo @ (Undo::StaleWatch | Undo::Aborted | Undo::Misspelt)) => {
            return Fate::Undone(undo);
        }
        Purpose::Subscription(_) | Purpose::Tracking | Purpose::Setting | Purpose::Reset => true,
        Purpose::Multi | Purpose::Queued | Purpose::Exec | Purpose::Undo(Undo::Asked) => {
            standing.close == Close::Anew
        }
        _ => false,
    };
    if ticket.purpose == Purpose::Upload && standing.sent == Sent::No {
        return match end {
            End::Refused(_) => Fate::Passed,
            _ => Fate::Error(Reject::HalfSent),
        };
    }
    let undone = standing.close == Close::Undone;
    let is_part = matches!(ticket.purpose, Purpose::Multi | Purpose::Queued);
    let loss = match end {
        End::Unopened if undone && is_part => {
            return Fate::Error(Reject::TransactionLost);
        }
        End::Unopened if undone && ticket.purpose == Purpose::Watch => {
            return Fate::Undone(Undo::Asked);
        }
        End::Unopened | End::Declined => return Fate::Again,
        End::Refused(words) => return refused(ticket.purpose, words),
        End::Lost(_) | End::Fenced(_) if again => return Fate::Again,
        End::Lost(loss) => loss,
        End::Fenced(_) => Loss::Silent,
    };
    let uncertain = match loss {
        Loss::Silent => Reject::UncertainSilent,
        Loss::Broken | Loss::Left | Loss::Nonsense | Loss::Unblocked => Reject::Uncertain,
    };
    match (ticket.purpose, ticket.effect, standing.sent) {
        (Purpose::Undo(undo), ..) => Fate::Undone(undo),
        (Purpose::Watch, ..) => Fate::Undone(Undo::Asked),
        (Purpose::Exec, _, Sent::No) => Fate::Error(Reject::ExecAborted),
        (Purpose::Multi | Purpose::Queued, ..) if standing.close != Close::Executed => {
            Fate::Error(Reject::TransactionLost)
        }
        (Purpose::Exec | Purpose::Multi | Purpose::Queued, ..)
        | (
            Purpose::Plain
            | Purpose::Slow
            | Purpose::Waits(_)
            | Purpose::Caching
            | Purpose::Sticks
            | Purpose::Upload,
            Effect::Writes,
            Sent::Yes,
        ) => Fate::Error(uncertain),
        _ => Fate::Again,
    }
}

/// What becomes of a request whose link is refused with these words. A busy server takes `MULTI`
/// and `DISCARD`, and aborts a transaction of which it refuses anything (Redis server.c,
/// `processCommand`).
fn refused(purpose: Purpose, words: &[u8]) -> Fate {
    match purpose {
        Purpose::Multi | Purpose::Undo(Undo::Asked) if is_busy(words) => Fate::Undone(Undo::Asked),
        Purpose::Exec if is_busy(words) => Fate::Undone(Undo::Aborted),
        _ => Fate::Passed,
    }
}
