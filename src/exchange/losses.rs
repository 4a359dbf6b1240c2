//! Floor 4. Links that open, fail to open, or are lost, and what becomes of the requests on them.
//!
//! | the request | was not wholly written | was written, may write | was written, only reads |
//! |---|---|---|---|
//! | on a shared link | placed anew | UNCERTAIN | placed anew |
//! | blocking, admin | placed anew | UNCERTAIN | – |
//! | between MULTI and EXEC | not executed | not executed, or UNCERTAIN with its EXEC | – |
//! | EXEC | EXECABORT | UNCERTAIN | – |
//! | SUBSCRIBE | placed anew | placed anew | – |

use crate::exchange::client::{Again, Ending, Numbered};
use crate::exchange::link::{Link, State, Usage};
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{
    Action, ClientKey, Exchange, GroupIndex, LinkKey, OpenFailure, Opened, Role,
};
use crate::mux::Sent;
use crate::session::{IdentityId, Piece, Reject};
use crate::telemetry::{ConnectStage, RequestClass};
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
}

/// What becomes of a lost request.
enum Fate {
    Again,
    Error(Reject<'static>),
    Nothing,
}

impl Exchange {
    /// A link is connected and its handshake is done.
    pub fn link_opened(&mut self, key: LinkKey, opened: Opened, now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.heard_at = now;
        let draining = link.state == State::Draining;
        if !draining {
            link.state = State::Ready;
        }
        let (lane, index, usage) = (link.lane, link.group, link.usage);
        let waiters = std::mem::take(&mut link.waiters);
        if !link.pipeline.unwritten().is_empty() && !link.dirty {
            link.dirty = true;
            self.dirty_links.push(key);
        }
        if let Some(group) = self.groups.get_mut(index) {
            if lane.role == Role::Master
                && let Some(hello) = opened.hello
            {
                group.set_hello(lane.protocol, hello);
            }
            if lane.identity == IdentityId::ANONYMOUS && group.settings.anonymous.is_none() {
                group.login_required = Some(false);
            }
            if let Some(node) = group.nodes.get_mut(lane.node.0) {
                node.failures = 0;
                node.retry_at = None;
                let counts = group.counts.at(node.index);
                match usage {
                    Usage::Shared => counts.shared += 1,
                    Usage::Leased(_) | Usage::Proof(_) => counts.leased += 1,
                }
            }
        }
        for waiter in waiters {
            self.resume(waiter, now);
        }
        self.settle(now);
    }

    /// A link could not be opened.
    pub fn link_refused(&mut self, key: LinkKey, failure: OpenFailure, now: Time) {
        let Some(link) = self.discard(key) else {
            return;
        };
        let index = link.group;
        match failure {
            OpenFailure::Refused(stage, line) => self.refused(&link, stage, &line),
            failure => self.unreachable(&link, &failure, now),
        }
        let waiters = link.waiters.clone();
        self.dispose(key, link, Loss::Broken);
        for waiter in waiters {
            self.resume(waiter, now);
        }
        self.settle(now);
        self.check_quiet(index);
    }

    /// The node does not want this login, protocol or database: those who asked hear its words.
    fn refused(&mut self, link: &Link, stage: ConnectStage, line: &[u8]) {
        let anonymous = link.lane.identity == IdentityId::ANONYMOUS;
        if let Some(group) = self.groups.get_mut(link.group) {
            if anonymous && line.starts_with(b"-NOAUTH") {
                group.login_required = Some(true);
            } else if let Some(node) = group.nodes.get(link.lane.node.0) {
                group.counts.at(node.index).connect_failed(stage);
            }
        }
        for waiter in &link.waiters {
            if let Some(client) = self.clients.get_mut(*waiter) {
                client.verdict = Some(Box::from(line));
            }
        }
        let requests: Vec<_> = link.pipeline.tickets().collect();
        for ticket in requests {
            let Some(client) = self.clients.get_mut(ticket.client) else {
                continue;
            };
            client.replies.deliver(ticket.seq, line, Piece::Last);
            // A login that was proven and is refused now was changed or taken away: Redis closes
            // the connections of such users (acl.c, `ACLKillPubsubClientsIfNeeded` and DELUSER).
            if !anonymous && stage == ConnectStage::Auth {
                self.end(ticket.client, Ending::AfterReplies);
            }
            self.touch(ticket.client);
        }
    }

    /// The node is left alone for a while that grows; the control plane hears of it.
    fn unreachable(&mut self, link: &Link, failure: &OpenFailure, now: Time) {
        let dice = self.dice.roll();
        let Some(group) = self.groups.get_mut(link.group) else {
            return;
        };
        let Some(node) = group.nodes.get_mut(link.lane.node.0) else {
            return;
        };
        node.failures = node.failures.saturating_add(1);
        node.retry_at = Some(now + self.settings.backoff.delay(node.failures, dice));
        let stage = match failure {
            OpenFailure::Unreachable(stage) => *stage,
            _ => ConnectStage::Handshake,
        };
        group.counts.at(node.index).connect_failed(stage);
        let addr = node.addr.clone();
        let wrong_master = *failure == OpenFailure::WrongRole && link.lane.role == Role::Master;
        let report = match wrong_master {
            true => ReportKind::Demoted { node: addr },
            false => ReportKind::ConnectFailed { node: addr },
        };
        self.actions.push_back(Action::Report(link.group, report));
        group.refresh(now);
    }

    /// A link that was open is gone.
    pub fn link_lost(&mut self, key: LinkKey, loss: Loss, now: Time) {
        let Some(link) = self.discard(key) else {
            return;
        };
        let index = link.group;
        let waiters = link.waiters.clone();
        if loss != Loss::Left
            && link.state != State::Opening
            && let Some(group) = self.groups.get(index)
            && let Some(node) = group.nodes.get(link.lane.node.0)
        {
            let report = ReportKind::LinkLost {
                node: node.addr.clone(),
            };
            self.actions.push_back(Action::Report(index, report));
        }
        self.dispose(key, link, loss);
        for waiter in waiters {
            self.resume(waiter, now);
        }
        self.settle(now);
        self.check_quiet(index);
    }

    /// Decides for each request of a link that is gone, and mends what its clients had on it.
    fn dispose(&mut self, key: LinkKey, link: Link, loss: Loss) {
        let exec_sent = link
            .pipeline
            .lost()
            .any(|lost| lost.ticket.purpose == Purpose::Exec && lost.sent == Sent::Yes);
        for lost in link.pipeline.lost() {
            self.count_lost(&link, lost.sent);
            let ticket = lost.ticket;
            let Some(client) = self.clients.get_mut(ticket.client) else {
                continue;
            };
            client.answered(link.lane.role, ticket.effect);
            self.touch(ticket.client);
            let Some(client) = self.clients.get_mut(ticket.client) else {
                continue;
            };
            if client.replies.is_started(ticket.seq) {
                // Half a reply cannot be taken back, and nothing may follow it.
                self.end(ticket.client, Ending::Now);
                continue;
            }
            match fate(ticket, lost.sent, exec_sent, loss) {
                Fate::Again => {
                    let Ticket {
                        seq,
                        arrived,
                        spoken,
                        bounces,
                        ..
                    } = ticket;
                    let number = Numbered {
                        seq,
                        spoken,
                        bounces,
                    };
                    client.try_again(Again {
                        number,
                        arrived,
                        raw: Box::from(lost.bytes),
                    });
                    if let Some(group) = self.groups.get_mut(link.group)
                        && lost.sent == Sent::Yes
                    {
                        group.counts.resent += 1;
                    }
                }
                Fate::Error(reject) => self.tell(ticket, reject),
                Fate::Nothing => client.replies.deliver(ticket.seq, &[], Piece::Last),
            }
        }
        for client in &link.throttled_by {
            if let Some(client) = self.clients.get_mut(*client) {
                client.throttled.retain(|other| *other != key);
            }
        }
        match link.usage {
            Usage::Leased(Some(owner)) => self.lease_lost(owner, link.group),
            Usage::Proof(owner) => {
                if let Some(client) = self.clients.get_mut(owner) {
                    client.proof = None;
                }
            }
            Usage::Leased(None) | Usage::Shared => {}
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
    fn tell(&mut self, ticket: Ticket, reject: Reject<'_>) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        self.scratch.clear();
        reject.write(&mut self.scratch);
        let line: &[u8] = if ticket.spoken { &self.scratch } else { &[] };
        client.replies.deliver(ticket.seq, line, Piece::Last);
        if let Some(group) = self.groups.get_mut(client.group) {
            group
                .counts
                .request(RequestClass::Refused, crate::telemetry::Target::Local, 1);
            group.counts.uncertain += u64::from(reject.is_uncertain());
            if let Some(reason) = reject.reason() {
                group.counts.reject(reason);
            }
        }
    }

    /// What a client had on the link that was its own.
    fn lease_lost(&mut self, owner: ClientKey, group: GroupIndex) {
        let Some(client) = self.clients.get_mut(owner) else {
            return;
        };
        let Some(lease) = client.lease.as_deref_mut() else {
            return;
        };
        lease.link = None;
        lease.stale_watch |= lease.watching;
        lease.watching = false;
        lease.broken = lease.in_multi;
        let (sticky, subscribed) = (lease.sticky, !lease.subscriptions.is_empty());
        let empty = lease.is_clean();
        if empty {
            client.lease = None;
        }
        if sticky {
            // What stuck to the connection (tracking, MONITOR) cannot be had again unnoticed.
            self.end(owner, Ending::AfterReplies);
        } else if subscribed && let Some(group) = self.groups.get_mut(group) {
            group.unsubscribed.push(owner);
        }
        self.touch(owner);
    }
}

fn fate(ticket: Ticket, sent: Sent, exec_sent: bool, loss: Loss) -> Fate {
    let uncertain = match loss {
        Loss::Silent => Reject::UncertainSilent,
        Loss::Broken | Loss::Left => Reject::Uncertain,
    };
    match (ticket.purpose, ticket.effect, sent) {
        (Purpose::Internal, ..) => Fate::Nothing,
        (Purpose::Subscription(subscription), ..) => {
            if subscription.asked {
                Fate::Again
            } else {
                Fate::Nothing
            }
        }
        (Purpose::ExecNever, ..) => Fate::Error(Reject::ExecAborted),
        (Purpose::Exec, _, Sent::Yes) => Fate::Error(uncertain),
        (Purpose::Exec, _, Sent::No) => Fate::Error(Reject::ExecAborted),
        (Purpose::Queued, ..) if exec_sent => Fate::Error(uncertain),
        (Purpose::Queued, ..) => Fate::Error(Reject::TransactionLost),
        (Purpose::Plain, Effect::Writes, Sent::Yes) => Fate::Error(uncertain),
        (Purpose::Plain, Effect::Reads, _) | (Purpose::Plain, _, Sent::No) => Fate::Again,
    }
}
