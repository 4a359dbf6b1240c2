//! Floor 4. Subscriptions: on the client's own link, confirmed by the server, made again after a
//! switch.

use crate::command::Leased;
use crate::exchange::client::{Ending, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::NoLease;
use crate::exchange::ticket::{Purpose, Subscription};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey};
use crate::resp::{ReplyKind, Request, encode};
use crate::session::{Announcement, Piece};
use crate::types::{Protocol, Time};

impl Exchange {
    /// One of the six commands that change subscriptions.
    pub(super) fn place_subscription(
        &mut self,
        job: Job,
        request: &Request<'_>,
        command: Leased,
    ) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        // A confirmation must not overtake a reply, and it cannot wait for one as a reply can.
        if job.again.is_none() && client.is_answered_elsewhere() {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let names = u32::try_from(request.argc().saturating_sub(1)).unwrap_or(u32::MAX);
        let purpose = Purpose::Subscription(Subscription {
            command,
            names,
            asked: true,
        });
        let placed = self.send_on_lease(job, request.raw(), Kind::leased(purpose));
        self.on_lease(job.key, placed, |lease| lease.changing = true);
        placed
    }

    /// PUBLISH of a subscriber: over its own link, where its message comes in front of the reply if
    /// it is for the client itself, and behind all replies that are due before.
    pub(super) fn publish_on_lease(&mut self, job: Job, raw: &[u8], kind: Kind) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if job.again.is_none() && client.is_answered_elsewhere() {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        self.send_on_lease(job, raw, kind)
    }

    /// An array or push on a link whose client may have subscriptions. True if it was dealt with;
    /// otherwise it is the reply to the oldest request.
    pub(super) fn announce(
        &mut self,
        key: LinkKey,
        owner: ClientKey,
        frame: &[u8],
        now: Time,
    ) -> bool {
        let announcement = Announcement::read(frame);
        match announcement {
            Announcement::Other => return false,
            Announcement::Message => {
                self.pass_push(owner, frame);
                return true;
            }
            Announcement::Subscribed(..) | Announcement::Unsubscribed(..) => {}
        }
        let Some(link) = self.links.get_mut(key) else {
            return true;
        };
        let Some(client) = self.clients.get_mut(owner) else {
            return true;
        };
        let lease = client.lease.get_or_insert_default();
        let pending = link
            .pipeline
            .oldest_written()
            .and_then(|ticket| match ticket.purpose {
                Purpose::Subscription(subscription) => Some((ticket, subscription)),
                _ => None,
            });
        let Some((ticket, subscription)) = pending else {
            // The server ends a subscription by itself (a channel permission was taken away).
            lease.subscriptions.note(announcement);
            self.pass_push(owner, frame);
            return true;
        };
        let names = usize::try_from(subscription.names).unwrap_or(usize::MAX);
        if link.confirmed == 0 && names == 0 {
            let all = lease.subscriptions.confirmations(subscription.command, 0);
            link.expected = u32::try_from(all).unwrap_or(u32::MAX);
        } else if link.confirmed == 0 {
            link.expected = subscription.names;
        }
        lease.subscriptions.note(announcement);
        link.confirmed += 1;
        let last = link.confirmed >= link.expected;
        if last {
            link.confirmed = 0;
            let bytes: &[u8] = if subscription.asked { frame } else { &[] };
            self.complete(key, bytes, ReplyKind::Simple, now);
        } else if subscription.asked {
            client.replies.deliver(ticket.seq, frame, Piece::More);
            self.touch(owner);
        }
        true
    }

    /// Passes a message that answers no request on to its client.
    pub(super) fn pass_push(&mut self, owner: ClientKey, frame: &[u8]) {
        if let Some(client) = self.clients.get_mut(owner) {
            client.replies.push(frame);
            self.touch(owner);
        }
    }

    /// Makes the subscriptions of clients whose link was lost again, on the present master.
    pub(super) fn restore_subscriptions(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if group.writable.is_none() {
            return;
        }
        for key in std::mem::take(&mut group.unsubscribed) {
            self.subscribe_again(key, now);
        }
    }

    fn subscribe_again(&mut self, key: ClientKey, now: Time) {
        let client = self.clients.get(key);
        let lease = client.and_then(|client| client.lease.as_deref());
        if lease.is_none_or(|lease| !lease.unmade) {
            return;
        }
        let job = Job::new(key, now, now);
        let link = match self.take_lease(job) {
            Ok(link) => link,
            Err(NoLease::Full | NoLease::Gone) => return self.end(key, Ending::Now),
            Err(NoLease::Order | NoLease::NoMaster) => {
                let Some(client) = self.clients.get(key) else {
                    return;
                };
                if let Some(group) = self.groups.get_mut(client.group) {
                    group.unsubscribed.push(key);
                }
                return;
            }
        };
        self.make_again(job, link);
    }

    /// Has a client's new link subscribe and track what the lost one did, before anything else is
    /// sent there.
    pub(super) fn make_again(&mut self, job: Job, link: LinkKey) {
        let client = self.clients.get_mut(job.key);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        let Some(lease) = lease.filter(|lease| lease.unmade) else {
            return;
        };
        lease.unmade = false;
        self.track_again(job, link);
        let key = job.key;
        let commands: [(Leased, &[u8]); 3] = [
            (Leased::Subscribe, b"SUBSCRIBE"),
            (Leased::Psubscribe, b"PSUBSCRIBE"),
            (Leased::Ssubscribe, b"SSUBSCRIBE"),
        ];
        for (command, word) in commands {
            let Some(client) = self.clients.get(key) else {
                return;
            };
            let Some(lease) = client.lease.as_deref() else {
                return;
            };
            let names = lease.subscriptions.of(command);
            if names.is_empty() {
                continue;
            }
            let count = u32::try_from(names.len()).unwrap_or(u32::MAX);
            let words: Vec<&[u8]> = std::iter::once(word)
                .chain(names.iter().map(|name| &**name))
                .collect();
            let mut raw = Vec::new();
            encode::request(&mut raw, &words);
            let again = Subscription {
                command,
                names: count,
                asked: false,
            };
            self.send_internal(link, job, Purpose::Subscription(again), &raw);
        }
    }

    /// Whether frames of this kind on a client's own link may be announcements. In RESP2 only the
    /// subscribed state tells a message from the reply to `BLPOP message 0`.
    pub(super) fn may_announce(&self, key: LinkKey, owner: ClientKey, kind: ReplyKind) -> bool {
        let Some(client) = self.clients.get(owner) else {
            return false;
        };
        match (client.session.protocol, kind) {
            (_, ReplyKind::Push) => true,
            (Protocol::Resp2, ReplyKind::Array) => {
                let subscribed = client.lease.as_ref();
                let oldest = self
                    .links
                    .get(key)
                    .and_then(|link| link.pipeline.oldest_written());
                subscribed.is_some_and(|lease| !lease.subscriptions.is_empty())
                    || oldest.is_some_and(|t| matches!(t.purpose, Purpose::Subscription(_)))
            }
            _ => false,
        }
    }
}
