//! Floor 4. What a server has executed about the connection takes effect here: on the session, and
//! on what is known of the link.

use crate::command::{Leased, Local};
use crate::exchange::client::Ending;
use crate::exchange::link::LaneId;
use crate::exchange::lookup::UNPROVEN;
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Request, is_word};
use crate::session::{HelloFacts, HelloRequest, HelloStep, Login, Outcome};
use crate::types::{Protocol, Time};

impl Exchange {
    /// A server has executed a command that sticks to the link if it says so. Where the link is
    /// lost by now, it is as if it had been lost later.
    pub(super) fn stick(
        &mut self,
        (key, owner): (LinkKey, ClientKey),
        (leased, raw): (Leased, &[u8]),
        reply: &[u8],
    ) {
        let is_there = self.links.get(key).is_some();
        let Some(client) = self.clients.get_mut(owner) else {
            return;
        };
        let request = Request::from_raw(raw);
        let word = request.and_then(|request| request.arg1());
        let is_caching = word.is_some_and(|word| is_word(word, b"caching"));
        if reply.starts_with(b"-") || is_caching {
            // `CLIENT CACHING` speaks of its transaction, which is over.
            return;
        }
        let (index, tells) = (client.group, client.session.protocol == Protocol::Resp3);
        let lease = client.lease.get_or_insert_default();
        let is_there = is_there && lease.link == Some(key);
        lease.told.note(raw, reply);
        lease.sticky |= !(leased == Leased::Tracking && tells && lease.tracking.note(raw, reply));
        if is_there {
            return;
        }
        if lease.sticky {
            self.end(owner, Ending::AfterReplies);
        } else if lease.tracking.is_made() {
            lease.unmade = true;
            if let Some(group) = self.groups.get_mut(index) {
                group.untracked.push(owner);
            }
            self.invalidate_everything(owner);
        }
    }

    /// A server has executed a command about the connection, and said this. Returns what the client
    /// hears.
    pub(super) fn take_effect(
        &mut self,
        (key, owner): (LinkKey, ClientKey),
        (local, raw): (Local, &[u8]),
        reply: &[u8],
        now: Time,
    ) -> Vec<u8> {
        let request = Request::from_raw(raw).filter(|_| !reply.starts_with(b"-"));
        let (Some(client), Some(request)) = (self.clients.get_mut(owner), request) else {
            return Vec::from(reply);
        };
        if matches!(local, Local::ClientGetredir | Local::ClientTrackinginfo) {
            self.name_target(owner, reply);
            return self.scratch.clone();
        }
        let mut composed = Vec::new();
        match client.session.local(local, &request, &mut composed) {
            Outcome::Replied | Outcome::Unspoken => return composed,
            Outcome::Hello(hello) => return self.greeted((key, owner), &hello, reply, now),
            Outcome::Auth(login) => self.logged_in((key, owner), &login, now),
            Outcome::Select(database) => {
                client.session.database = database;
                client.forget_lanes();
                self.set_lane(key, |lane| lane.database = database);
            }
            _ => {}
        }
        Vec::from(reply)
    }

    fn greeted(
        &mut self,
        (key, owner): (LinkKey, ClientKey),
        hello: &HelloRequest,
        reply: &[u8],
        now: Time,
    ) -> Vec<u8> {
        for step in &hello.steps {
            match step {
                HelloStep::Login(login) => self.logged_in((key, owner), login, now),
                HelloStep::Name(name) => {
                    if let Some(client) = self.clients.get_mut(owner) {
                        // The server takes no other names than we do.
                        let _ = client.session.set_name(name);
                    }
                }
            }
        }
        let Some(client) = self.clients.get_mut(owner) else {
            return Vec::new();
        };
        let protocol = hello.protocol.unwrap_or(client.session.protocol);
        client.session.protocol = protocol;
        client.forget_lanes();
        let (role, id) = (client.access.role(), client.session.id);
        self.set_lane(key, |lane| lane.protocol = protocol);
        let Some(facts) = HelloFacts::read(reply) else {
            return Vec::from(reply);
        };
        let mut out = Vec::new();
        facts.write(&mut out, (protocol, role), id);
        out
    }

    /// A HELLO with a login that a server has an error to may have logged in before that (Redis
    /// before 7.2 does one thing after the other): the link is nobody's any more.
    pub(super) fn doubt_login(&mut self, (key, raw): (LinkKey, &[u8]), reply: &[u8]) {
        let words = Request::from_raw(raw).map_or(0, |request| request.argc());
        if words > 2 && reply.starts_with(b"-") {
            self.set_lane(key, |lane| lane.identity = UNPROVEN);
        }
    }

    fn logged_in(&mut self, (key, owner): (LinkKey, ClientKey), login: &Login, now: Time) {
        let index = self.clients.get(owner).map(|client| client.group);
        let Some(group) = index.and_then(|index| self.groups.get_mut(index)) else {
            return;
        };
        let identity = group.join_identity(login);
        self.change_identity(owner, identity, now);
        self.set_lane(key, |lane| lane.identity = identity);
    }

    /// The link is another one than it was opened as.
    fn set_lane(&mut self, key: LinkKey, change: impl FnOnce(&mut LaneId)) {
        if let Some(link) = self.links.get_mut(key) {
            change(&mut link.lane);
        }
    }
}
