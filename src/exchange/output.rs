//! Floor 4. What leaves: bytes to clients and nodes, and clients themselves.

use std::collections::VecDeque;

use crate::exchange::client::{Client, Ending, Wait};
use crate::exchange::intake::offset;
use crate::exchange::link::Usage;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::session::IdentityId;
use crate::types::Time;

impl Exchange {
    /// The bytes to write to a client next.
    pub fn output(&self, key: ClientKey) -> &[u8] {
        self.clients
            .get(key)
            .map_or(&[], |client| client.replies.output())
    }

    /// A client's socket has taken the first `count` bytes of its output.
    pub fn took(&mut self, key: ClientKey, count: usize, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        client.took_at = now;
        if let Some(buffer) = client.replies.advance(count) {
            self.spares.reclaim(&mut client.replies, buffer);
        }
        let high = self.settings.output_high;
        let unread = client.replies.unread();
        let relieved = unread <= high / 2;
        client.stalled &= !relieved && (unread > high || !client.throttled.is_empty());
        if let Some(group) = self.groups.get_mut(client.group) {
            group.counts.client_sent_bytes += offset(count);
        }
        if relieved && !client.throttled.is_empty() {
            self.relieve(key, now);
        }
        let Some(client) = self.clients.get(key) else {
            return;
        };
        if client.wait == Wait::Room && client.may_go_on(self.settings.pipeline_max, high) {
            self.touch(key);
            self.settle(now);
        }
    }

    /// A client's socket takes nothing more for now: the links that feed it are throttled once it
    /// has more unread output than allowed.
    pub fn stalled(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.replies.unread() <= self.settings.output_high {
            return;
        }
        let links = [
            client.master_link.filter(|_| client.master_out > 0),
            client.replica_lane.filter(|_| client.replica_out > 0),
            // Lines of MONITOR and invalidations come without a request.
            client.lease.as_ref().and_then(|lease| lease.link),
        ];
        if !client.stalled {
            client.stalled = true;
            client.took_at = now;
            self.stalled.push(key);
        }
        for link in links.into_iter().flatten() {
            self.throttle(link, key, now);
        }
        self.settle(now);
    }

    /// A large reply that waits for earlier ones, over other links, has become as much as a client
    /// may leave unread: its link is throttled until those are there. The client takes all that it
    /// can be given, and has as long as its earlier replies take, unless others wait for the link.
    pub(super) fn overtaken(&mut self, key: ClientKey, by: LinkKey, now: Time) {
        let (Some(client), Some(link)) = (self.clients.get(key), self.links.get(by)) else {
            return;
        };
        let due = client.replies.oldest();
        // It may have been asked anew, behind this one.
        let is_due = |ticket: Ticket| ticket.client == key && ticket.seq == due;
        let owes_it = link.pipeline.tickets().any(is_due);
        if owes_it {
            return;
        }
        self.throttle(by, key, now);
    }

    pub(super) fn throttle(&mut self, key: LinkKey, by: ClientKey, now: Time) {
        let (Some(link), Some(client)) = (self.links.get_mut(key), self.clients.get_mut(by)) else {
            return;
        };
        // A hub goes on: what it has for this client is little, and all others hear by it too.
        if matches!(link.usage, Usage::Hub | Usage::Target(_)) || !client.throttled.add(key) {
            return;
        }
        link.throttled_by.push(by);
        link.throttled_at.get_or_insert(now);
        if link.usage == Usage::Shared {
            // Others take another link from now on. What is behind this client's replies waits,
            // unless it can be asked elsewhere too.
            self.pass_by(key);
            self.detour(key, now);
        }
    }

    /// Lets the links go on that were throttled for a client.
    fn relieve(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        for link in client.throttled.take() {
            let Some(throttled) = self.links.get_mut(link) else {
                continue;
            };
            throttled.throttled_by.retain(|other| *other != key);
            // Its silence was our doing.
            throttled.heard_at = now;
            throttled.relieved_at = Some(now);
            if throttled.throttled_by.is_empty() && !throttled.dirty {
                throttled.dirty = true;
                self.dirty_links.push(link);
            }
        }
    }

    /// Whether a link must not be read from now.
    pub fn is_throttled(&self, key: LinkKey) -> bool {
        self.links
            .get(key)
            .is_some_and(|link| !link.throttled_by.is_empty())
    }

    /// Whether a client is done: the worker closes it and calls [`Exchange::client_gone`].
    pub fn is_finished(&self, key: ClientKey) -> bool {
        self.clients
            .get(key)
            .is_none_or(|client| match client.ending {
                Ending::No => false,
                Ending::AfterReplies => {
                    client.replies.outstanding() == 0 && client.replies.unread() == 0
                }
                Ending::Now => true,
            })
    }

    /// A client has sent its last byte. What it sent before is executed and answered, as Redis
    /// does, save what a hold would keep: of that, nothing was promised yet.
    pub fn client_ended(&mut self, key: ClientKey, now: Time) {
        if let Some(client) = self.clients.get_mut(key) {
            client.said_all = true;
        }
        self.end_if_all_said(key, now);
    }

    /// Begins the end of a client that has sent its last byte, once the rest of what it sent is
    /// placed.
    ///
    /// A command that blocks is not waited for, once what came before it is answered: what it pops
    /// would be lost with nobody to hear it. What the client sent behind it ends with it. Half a
    /// request that was passed on has no reply.
    pub(super) fn end_if_all_said(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        if !client.said_all {
            return;
        }
        if self.blocks(client) {
            self.end(key, Ending::Now);
        } else if matches!(client.wait, Wait::No | Wait::Master) || client.until.is_some() {
            self.end_upload(key, now);
            self.end(key, Ending::AfterReplies);
        }
    }

    /// Whether the reply that a client hears next is that of a command that waits at a server.
    fn blocks(&self, client: &Client) -> bool {
        let lease = client.lease.as_ref();
        let link = lease
            .and_then(|lease| lease.link)
            .and_then(|link| self.links.get(link));
        let oldest = link.and_then(|link| link.pipeline.oldest_ticket());
        oldest.is_some_and(|ticket| {
            matches!(ticket.purpose, Purpose::Waits(_)) && client.replies.is_due(ticket.seq)
        })
    }

    /// A client of which nothing is read for now will send nothing more. One that waits for data or
    /// for a master ends as if its last byte had been read; the others go on by themselves.
    pub fn client_hung_up(&mut self, key: ClientKey, now: Time) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        if client.wait == Wait::Master || client.until.is_some() || self.blocks(client) {
            self.client_ended(key, now);
        }
    }

    /// A client's socket is closed: its place is freed, replies still to come are nobody's.
    pub fn client_gone(&mut self, key: ClientKey, now: Time) {
        self.relieve(key, now);
        self.drop_lease(key, now);
        self.hear_nothing(key, now);
        self.drop_target(key, now);
        self.change_identity(key, IdentityId::ANONYMOUS, now);
        let Some(mut client) = self.clients.remove(key) else {
            return;
        };
        let Some(group) = self.groups.get_mut(client.group) else {
            return;
        };
        group.counts.client_connections_closed += 1;
        group.counts.clients -= 1;
        group.settings.audience.exit();
        group.leave_reader(&mut client);
        let index = client.group;
        if let Some(proof) = client.proof {
            self.discard(proof);
        }
        self.spares.keep(client.input);
        self.spares.keep(client.replies.into_buffer());
        self.settle(now);
        self.check_quiet(index, now);
    }

    /// Begins the end of a client.
    pub(super) fn end(&mut self, key: ClientKey, ending: Ending) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        // What a replica hears has no end.
        let ending = if client.is_replica() {
            Ending::Now
        } else {
            ending
        };
        if client.ending != Ending::Now {
            client.ending = ending;
        }
        client.input = Vec::new();
        client.later = Vec::new();
        if ending == Ending::Now {
            client.again = VecDeque::new();
        }
        if client.again.is_empty() {
            client.wait = Wait::No;
        }
        self.mark_dirty(key);
    }

    pub(super) fn mark_dirty(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && !client.dirty
        {
            client.dirty = true;
            self.dirty_clients.push(key);
        }
    }

    /// The bytes to write to a node next.
    pub fn unwritten(&self, key: LinkKey) -> &[u8] {
        self.links
            .get(key)
            .map_or(&[], |link| link.pipeline.unwritten())
    }

    /// A node's socket has taken the first `count` bytes. Returns whether there is something to do
    /// because of that, as after an input.
    pub fn written(&mut self, key: LinkKey, count: usize, now: Time) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        link.pipeline.advance_written(count, now);
        let streams = link.pipeline.is_streamed();
        if streams {
            // A node that takes what comes owes nothing before all of it is there.
            link.heard_at = now;
        }
        if let Some(group) = self.groups.get_mut(link.group) {
            group.counts.upstream_sent_bytes += offset(count);
        }
        streams && self.fed(key, now)
    }

    /// The worker has begun to write a link: later requests mark it again.
    pub fn link_turn(&mut self, key: LinkKey) {
        if let Some(link) = self.links.get_mut(key) {
            link.dirty = false;
        }
    }
}
