//! Floor 4. What a hub's link brings that is no reply: messages, for all who hear the name, and
//! the server's word on who hears what.

use crate::command::Leased;
use crate::exchange::client::{Client, Ending};
use crate::exchange::hub::{REFUSED_PAUSE, begins, is_passing};
use crate::exchange::link::Link;
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, LinkKey};
use crate::resp::{ReplyKind, Request};
use crate::session::{Announcement, Piece};
use crate::telemetry::Reason;
use crate::types::{Protocol, Time};

impl Exchange {
    /// A frame on a hub's link. True if it was no reply, and is dealt with.
    pub(super) fn heard_on_hub(
        &mut self,
        key: LinkKey,
        (frame, kind): (&[u8], ReplyKind),
        now: Time,
    ) -> bool {
        let is_resp2 = |link: &Link| link.lane.protocol == Protocol::Resp2;
        match kind {
            ReplyKind::Push => self.announce(key, frame, now),
            ReplyKind::Array if self.links.get(key).is_some_and(is_resp2) => {
                self.announce(key, frame, now)
            }
            ReplyKind::Error => {
                let spared = self.begun_in_vain(key);
                self.refused_to_hub(key, frame, now);
                for (command, name) in spared {
                    self.end_unheard(key, (command, &name), now);
                }
                false
            }
            _ => false,
        }
    }

    /// A frame that may be no reply. True if it was dealt with.
    fn announce(&mut self, key: LinkKey, frame: &[u8], now: Time) -> bool {
        match Announcement::read(frame) {
            Announcement::Other => return false,
            Announcement::Message(command, name) => self.pass_message(key, command, name, frame),
            Announcement::Subscribed(command, name) => {
                self.subscribed(key, (command, name), now);
            }
            Announcement::Unsubscribed(command, name) => {
                self.unsubscribed(key, (command, name), now);
            }
        }
        true
    }

    /// A message goes to all who hear the name.
    fn pass_message(&mut self, key: LinkKey, command: Leased, name: &[u8], frame: &[u8]) {
        let index = self.links.get(key).map(|link| link.group);
        let Some(group) = index.and_then(|index| self.groups.get_mut(index)) else {
            return;
        };
        let hub = group.hubs.iter().find(|hub| hub.link == Some(key));
        let Some(clients) = hub.and_then(|hub| hub.of(command).get(name)) else {
            return;
        };
        let mut behind = Vec::new();
        for key in clients {
            let Some(client) = self.clients.get_mut(*key) else {
                continue;
            };
            client.hear(frame);
            if client.replies.held_bytes() > self.settings.output_high {
                behind.push(*key);
            }
            if !client.dirty {
                client.dirty = true;
                self.dirty_clients.push(*key);
            }
        }
        for key in behind {
            if !self.is_finished(key) {
                self.count_reject(key, Reason::SlowSubscriber);
                self.end(key, Ending::Now);
            }
        }
    }

    /// The server confirms a subscription.
    fn subscribed(&mut self, key: LinkKey, (command, name): (Leased, &[u8]), now: Time) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let pending = link.pipeline.oldest_written();
        let pending = pending.and_then(|ticket| match ticket.purpose {
            Purpose::Subscription(subscription) => Some((ticket, subscription)),
            _ => None,
        });
        let Some((ticket, subscription)) = pending else {
            return;
        };
        link.begun.remove(command, name);
        link.confirmed += 1;
        let last = link.confirmed >= subscription.names;
        if last {
            link.confirmed = 0;
        }
        let (index, identity) = (link.group, link.lane.identity);
        self.scratch.clear();
        if let Some(client) = self.clients.get_mut(ticket.client) {
            let heard = client.heard.get_or_insert_default();
            heard.subscriptions.add(command, name);
            let protocol = client.session.protocol;
            let what = (command, Some(name));
            heard
                .subscriptions
                .confirm(&mut self.scratch, protocol, what);
            if let Some(group) = self.groups.get_mut(index) {
                group.hub_mut(identity).join(command, name, ticket.client);
            }
            if !last {
                client
                    .replies
                    .deliver(ticket.seq, &self.scratch, Piece::More);
                self.touch(ticket.client);
            }
        } else {
            self.end_unheard(key, (command, name), now);
        }
        if last {
            let confirmation = std::mem::take(&mut self.scratch);
            self.complete(key, &confirmation, ReplyKind::Simple, now);
            self.scratch = confirmation;
        }
    }

    /// The server confirms the end of one: that we have asked for, or that it has come to by
    /// itself.
    fn unsubscribed(&mut self, key: LinkKey, (command, name): (Leased, Option<&[u8]>), now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let (index, identity) = (link.group, link.lane.identity);
        let oldest = link.pipeline.oldest_written();
        let ours = match oldest.map(|ticket| ticket.purpose) {
            Some(Purpose::Subscription(it)) => it.command == command,
            Some(Purpose::Leaving) => {
                let raw = link.pipeline.oldest().map_or(&b""[..], |(_, raw)| raw);
                let request = Request::from_raw(raw);
                name.is_some() && request.and_then(|request| request.arg1()) == name
            }
            _ => false,
        };
        if ours {
            self.complete(key, &[], ReplyKind::Simple, now);
            return;
        }
        let (Some(name), Some(group)) = (name, self.groups.get_mut(index)) else {
            return;
        };
        let hub = group.hub_mut(identity);
        for key in hub.end(command, name) {
            let Some(client) = self.clients.get_mut(key) else {
                continue;
            };
            let Some(heard) = client.heard.as_deref_mut() else {
                continue;
            };
            heard.subscriptions.remove(command, name);
            let mut words = Vec::new();
            let protocol = client.session.protocol;
            let what = (command, Some(name));
            heard.subscriptions.confirm(&mut words, protocol, what);
            client.replies.push(&words);
            self.touch(key);
        }
    }

    /// A name is refused to a hub that has lost its link: who hears it cannot go on. Or the end of
    /// one, that nobody hears.
    pub(super) fn refused_to_hub(&mut self, key: LinkKey, frame: &[u8], now: Time) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return;
        };
        let Purpose::Subscription(subscription) = ticket.purpose else {
            return;
        };
        let name = Request::from_raw(raw).and_then(|request| request.arg1());
        let begins = begins(subscription.command) == subscription.command;
        let (Some(name), false) = (name, subscription.asked) else {
            return;
        };
        let (name, index, identity) = (Box::<[u8]>::from(name), link.group, link.lane.identity);
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        if !begins {
            // A link that is no hub's any more is told nothing, and ends by itself.
            if let Some(hub) = group.hub_of(key).filter(|_| is_passing(frame)) {
                hub.end_later(subscription.command, name, now);
            }
            return;
        }
        let hub = group.hub_mut(identity);
        if is_passing(frame) {
            // Asked again over another link, a little later.
            hub.paused_until = Some(now + REFUSED_PAUSE);
            return self.close_hub(key, now);
        }
        for client in hub.end(subscription.command, &name) {
            self.end(client, Ending::Now);
        }
    }
}

impl Client {
    /// Takes a message: a push in RESP3, an array in RESP2.
    fn hear(&mut self, frame: &[u8]) {
        let kind: u8 = match self.session.protocol {
            Protocol::Resp2 => b'*',
            Protocol::Resp3 => b'>',
        };
        let rest = frame.get(1..).unwrap_or_default();
        // One behind the other, wherever the first goes.
        self.replies.push(&[kind]);
        self.replies.push(rest);
    }
}
