//! Floor 4. `CLIENT TRACKING … REDIRECT`: invalidations that go to another client.
//!
//! ```text
//!  REDIRECT 7 ──► who is 7? (`roll.rs`) ──► its worker opens a link for it: Usage::Target
//!  REDIRECT 54 ──► master                   54 is what the master calls that link
//!  client 7 ◄── `invalidate`, or a message ◄── that link
//! ```
//!
//! The link is the target's alone, and closed with it, so that the server tells those who have
//! redirected to it. A target whose link is lost is closed: what was changed meanwhile it cannot
//! know, and those who rely on it notice. Who redirects is closed when its own link is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::Local;
use crate::exchange::client::{Client, Ending, Numbered, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::{Link, State, Usage};
use crate::exchange::losses::Loss;
use crate::exchange::ticket::{Effect, Purpose};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey};
use crate::resp::{Request, encode, is_word};
use crate::session::Reject;
use crate::telemetry::{Reason, RequestClass};
use crate::types::{NodeAddr, Protocol, Time};

/// How long a client waits for its target's link.
const WITHIN: Duration = Duration::from_secs(2);

/// Redis networking.c, `clientCommand`.
const NOBODY: &str = "ERR The client ID you want redirect to does not exist";

/// Redis tracking.c, `sendTrackingMessage`: what begins a message to a target, in RESP3 and RESP2.
const INVALIDATE: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// The same: that the target is gone. Its number follows.
const BROKEN: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n";

/// Who looks for a target, and the links of those who are.
#[derive(Debug, Default)]
pub(super) struct Redirection {
    links: BTreeMap<ClientKey, LinkKey>,
    searches: BTreeMap<ClientKey, Search>,
}

/// A client's search for this target.
#[derive(Debug)]
struct Search {
    target: u64,
    found: Option<Sought>,
}

/// What became of a search.
#[derive(Debug)]
pub(super) enum Sought {
    /// There is no such client.
    Nobody,
    /// Its link is not open yet; asked again with the next tick.
    Later,
    /// Its link is to this node, which calls it so.
    Link(NodeAddr, u64),
}

/// To whom it is told what becomes invalid of what a client reads.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Those to whom it was redirected, the latest first.
    targets: [Option<Target>; 2],
    whom: Option<u64>,
}

/// A target's number, and what the master calls its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    number: u64,
    connection: u64,
}

impl Redirection {
    /// Whether nobody waits for a target.
    pub(super) fn is_idle(&self) -> bool {
        self.searches.is_empty()
    }

    /// The only target, and its link.
    #[cfg(test)]
    pub(super) fn only_link(&self) -> (ClientKey, LinkKey) {
        assert_eq!(self.links.len(), 1);
        let (client, link) = self.links.first_key_value().expect("there is one");
        (*client, *link)
    }
}

impl Exchange {
    /// CLIENT TRACKING with this target.
    pub(super) fn place_redirected(
        &mut self,
        job: Job,
        request: &Request<'_>,
        target: u64,
    ) -> Placed {
        if job.again.is_some() {
            // It names a link of the node whose connection is lost, and what it did is lost too.
            return self.no_connection(job);
        }
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let node = group.and_then(|group| group.nodes.get(group.writable?.0));
        let Some(master) = node.map(|node| node.addr.clone()) else {
            return self.hold(job);
        };
        let searches = &mut self.redirection.searches;
        let search = searches.remove(&job.key).filter(|it| it.target == target);
        match search.map(|search| search.found) {
            Some(Some(Sought::Nobody)) => {
                self.reject(job, RequestClass::Leased, Reject::Redis(NOBODY))
            }
            Some(Some(Sought::Link(at, connection))) if at == master => {
                let found = Target {
                    number: target,
                    connection,
                };
                let placed = self.place_sticking(job, &found.put_into(request), Effect::Reads);
                match placed {
                    Placed::Waits => {
                        let found = Some(Sought::Link(at, connection));
                        let search = Search { target, found };
                        self.redirection.searches.insert(job.key, search);
                    }
                    Placed::Sent => {
                        self.on_lease(job.key, placed, |lease| lease.told.begins(found));
                    }
                    Placed::Answered => {}
                }
                placed
            }
            // Whoever wakes its client meanwhile has not answered.
            Some(found @ (None | Some(Sought::Later))) => {
                self.wait_for_target(job.key, Search { target, found })
            }
            Some(Some(Sought::Link(..))) | None => {
                if job.now.since(job.arrived) >= WITHIN {
                    return self.reject(job, RequestClass::Leased, Reject::Unanswered);
                }
                if let Some(waits) = self.wait_for_roll(job) {
                    return waits;
                }
                let found = None;
                let placed = self.wait_for_target(job.key, Search { target, found });
                self.look_for(job.key, target, job.now);
                placed
            }
        }
    }

    fn wait_for_target(&mut self, key: ClientKey, search: Search) -> Placed {
        let Some(client) = self.clients.get_mut(key) else {
            return Placed::Answered;
        };
        client.wait = Wait::Turn;
        self.redirection.searches.insert(key, search);
        Placed::Waits
    }

    /// All workers have answered.
    pub(super) fn sought(&mut self, key: ClientKey, found: Sought) {
        if let Some(search) = self.redirection.searches.get_mut(&key) {
            let later = matches!(found, Sought::Later);
            search.found = Some(found);
            if !later {
                self.end_wait(key, Wait::Turn);
            }
        }
    }

    /// Asks again about links that were not open yet.
    pub(super) fn seek_again(&mut self) {
        let is_later = |search: &Search| matches!(search.found, Some(Sought::Later));
        let searches = self.redirection.searches.iter();
        let later: Vec<_> = searches
            .filter(|(_, search)| is_later(search))
            .map(|(key, _)| *key)
            .collect();
        for key in later {
            self.redirection.searches.remove(&key);
            self.end_wait(key, Wait::Turn);
        }
    }

    /// What is known of a client of this worker as a target, if it is there; it gets its link.
    pub(super) fn find_target(&mut self, index: GroupIndex, id: u64, now: Time) -> Option<Sought> {
        let is = |client: &Client| client.group == index && client.session.id == id;
        let is = |client: &Client| is(client) && client.ending != Ending::Now;
        let key = self.clients.iter().find(|(_, client)| is(client))?.0;
        Some(self.seek(key, now))
    }

    fn seek(&mut self, key: ClientKey, now: Time) -> Sought {
        let Some(link) = self.target_link(key, now).and_then(|it| self.links.get(it)) else {
            return Sought::Later;
        };
        if link.state == State::Opening {
            return Sought::Later;
        }
        let group = self.groups.get(link.group);
        let node = group.and_then(|group| group.nodes.get(link.lane.node.0));
        match (node, &link.connection) {
            (Some(node), Some(connection)) if link.lane.protocol == Protocol::Resp3 => {
                Sought::Link(node.addr.clone(), connection.id)
            }
            _ => Sought::Nobody,
        }
    }

    fn target_link(&mut self, key: ClientKey, now: Time) -> Option<LinkKey> {
        if let Some(link) = self.redirection.links.get(&key) {
            return Some(*link);
        }
        let client = self.clients.get(key)?;
        let (index, identity) = (client.group, client.session.identity);
        let group = self.groups.get(index)?;
        let node = group.writable?;
        let kept_out = group.keeps_out((node, identity));
        if kept_out || !group.may_open(node, now) {
            return None;
        }
        if self.leased_count() >= self.settings.leases_max && !self.discard_spare() {
            return None;
        }
        let link = self.open_aside(index, (node, identity), Usage::Target(key), now)?;
        self.redirection.links.insert(key, link);
        Some(link)
    }

    /// A push is nobody's on a shared link, and on one that is a client's its own.
    pub(super) fn pass_unasked(&mut self, usage: Usage, frame: &[u8]) {
        match usage {
            Usage::Leased(Some(owner)) => self.pass_own_push(owner, frame),
            Usage::Target(owner) => self.pass_invalidation(owner, frame),
            Usage::Leased(None) | Usage::Shared | Usage::Hub | Usage::Proof(_) => {}
        }
    }

    /// A push on a target's link.
    fn pass_invalidation(&mut self, owner: ClientKey, frame: &[u8]) {
        let (Some(client), Some(what)) =
            (self.clients.get_mut(owner), frame.strip_prefix(INVALIDATE))
        else {
            return;
        };
        // The null of who has redirected.
        let everything = what.starts_with(b"_") || what.starts_with(b"$-1");
        let (head, null): (_, &[u8]) = match client.session.protocol {
            Protocol::Resp3 => (INVALIDATE, b"_\r\n"),
            Protocol::Resp2 if client.is_subscriber() => (MESSAGE, b"$-1\r\n"),
            Protocol::Resp2 => return,
        };
        client.replies.push(head);
        client.replies.push(if everything { null } else { what });
        let behind = client.replies.held_bytes() > self.settings.output_high;
        self.touch(owner);
        if behind && !self.is_finished(owner) {
            self.count_reject(owner, Reason::SlowSubscriber);
            self.end(owner, Ending::Now);
        }
    }

    /// A target's link is gone; `open`: it was open, and others may rely on it.
    pub(super) fn target_lost(&mut self, owner: ClientKey, open: bool) {
        if self.redirection.links.remove(&owner).is_some() && open {
            self.end(owner, Ending::Now);
        }
    }

    /// A client says QUIT, and hears the reply when its link as a target is gone at the server too:
    /// what becomes invalid from then on, those who redirect hear of as broken.
    pub(super) fn quit_target(&mut self, key: ClientKey, now: Time) {
        let links = &mut self.redirection.links;
        let Some(link) = links.remove(&key) else {
            return;
        };
        let open = |it: &&Link| it.state == State::Ready;
        let client = self.clients.get_mut(key);
        if let (Some(client), Some(_)) = (client, self.links.get(link).filter(open)) {
            let again = Some(Numbered::new(client.replies.begin(), false));
            let job = Job {
                again,
                ..Job::new(key, now, now)
            };
            let kind = Kind {
                effect: Effect::Reads,
                ..Kind::leased(Purpose::Internal)
            };
            let mut raw = Vec::new();
            encode::request(&mut raw, &[b"QUIT"]);
            self.send(link, job, &raw, kind);
        } else {
            self.lose(link, Loss::Left, now);
        }
    }

    /// A client is gone: so is its link as a target, and its search.
    pub(super) fn drop_target(&mut self, key: ClientKey, now: Time) {
        self.redirection.searches.remove(&key);
        if let Some(link) = self.redirection.links.remove(&key) {
            self.lose(link, Loss::Left, now);
        }
    }

    /// What a client is told of its redirection names the target as clients do. In `scratch`.
    pub(super) fn name_target(&mut self, key: ClientKey, frame: &[u8]) {
        let named = self.lease_of(key).and_then(|it| it.told.name_in(frame));
        self.scratch.clear();
        self.scratch
            .extend_from_slice(named.as_deref().unwrap_or(frame));
    }

    /// Whether a command tells of a redirection.
    pub(super) fn tells_target(&self, key: ClientKey, local: Local) -> bool {
        let tells = matches!(local, Local::ClientGetredir | Local::ClientTrackinginfo);
        tells && self.lease_of(key).is_some_and(|it| it.told.is_named())
    }

    /// A push on a client's own link.
    fn pass_own_push(&mut self, owner: ClientKey, frame: &[u8]) {
        if !frame.starts_with(BROKEN) {
            return self.pass_push(owner, frame);
        }
        self.name_target(owner, frame);
        let named = std::mem::take(&mut self.scratch);
        self.pass_push(owner, &named);
        self.scratch = named;
    }
}

impl Told {
    /// A client redirects to another target.
    const fn begins(&mut self, target: Target) {
        self.targets = [Some(target), self.targets[0]];
    }

    /// Whether the master has other names for it.
    pub(super) const fn is_named(&self) -> bool {
        self.targets[0].is_some()
    }

    /// A command that sticks to the link has this reply.
    pub(super) fn note(&mut self, raw: &[u8], reply: &[u8]) {
        let Some(request) = Request::from_raw(raw).filter(|_| reply.starts_with(b"+OK")) else {
            return;
        };
        let is = |at, want: &[u8]| {
            let mut words = request.args();
            words.nth(at).is_some_and(|it| is_word(it, want))
        };
        if !is(0, b"client") || !is(1, b"tracking") {
            return;
        }
        let named = |connection| {
            let mut targets = self.targets.iter().flatten();
            let target = targets.find(|it| it.connection == connection);
            target.map_or(connection, |it| it.number)
        };
        let whom = target_of(&request).map_or(0, named);
        self.whom = is(2, b"on").then_some(whom);
    }

    /// The number of the client to whom it is told, 0 for who tracks; `None` if nothing is tracked.
    pub(super) const fn whom(&self) -> Option<u64> {
        self.whom
    }

    fn name_in(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let mut targets = self.targets.iter().flatten();
        targets.find_map(|it| it.name_in(frame))
    }
}

impl Target {
    /// The command with what the master calls the target.
    fn put_into(self, request: &Request<'_>) -> Vec<u8> {
        let connection = self.connection.to_string();
        let mut words: Vec<&[u8]> = request.args().collect();
        let at = place_of_target(&words).and_then(|at| words.get_mut(at));
        if let Some(word) = at {
            *word = connection.as_bytes();
        }
        let mut raw = Vec::new();
        encode::request(&mut raw, &words);
        raw
    }

    /// What tells of the connection, if this does, with the target's number.
    fn name_in(self, frame: &[u8]) -> Option<Vec<u8>> {
        let told = format!(":{}\r\n", self.connection);
        let at = memchr::memmem::find(frame, told.as_bytes())?;
        let (head, rest) = frame.split_at_checked(at)?;
        let tail = rest.get(told.len()..)?;
        let number = format!(":{}\r\n", self.number);
        Some([head, number.as_bytes(), tail].concat())
    }
}

/// The number of the client to which a CLIENT TRACKING redirects. What is no number the master
/// words, as it does what is wrong before it.
pub(super) fn target_of(request: &Request<'_>) -> Option<u64> {
    let words: Vec<&[u8]> = request.args().collect();
    let word = words.get(place_of_target(&words)?)?;
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Where the target stands: behind the first `REDIRECT` that is no prefix.
fn place_of_target(words: &[&[u8]]) -> Option<usize> {
    let mut at = 3;
    loop {
        let word = words.get(at)?;
        if is_word(word, b"redirect") {
            return Some(at + 1);
        }
        at += if is_word(word, b"prefix") { 2 } else { 1 };
    }
}
