//! Floor 4. Bodies of the scripts that went through this process: the script cache of a server is
//! neither replicated nor kept, and clients are not to see that there are several.
//!
//! ```text
//!   EVAL_RO     by the master the first time, which has the script then; by replicas from then on
//!   EVALSHA_RO  by replicas if the master has the script, which they are given before; by the
//!               master otherwise, as only that knows
//!   SCRIPT FLUSH  empties the master's cache: what replicas have nobody names any more
//! ```
//!
//! To a master that is new, or may have been restarted, the bodies are given.
//!
//! Shared by the workers, as a client may load with one connection and run with another. It is
//! locked for moments, and only when a body is new or missing. Must not know what a script does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::{Class, Script};
use crate::exchange::client::Client;
use crate::exchange::kept;
use crate::exchange::link::{Link, Usage};
use crate::exchange::node::{Group, Node};
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{ReplyScanner, Request, Scan, encode};
use crate::route::NoReplica;
use crate::telemetry::RequestClass;

/// Bytes of bodies that a new link brings along, the latest first: what clients send on it waits
/// behind them. A body that is missing nevertheless is loaded when it is asked for.
const BROUGHT_MAX: usize = 256 * 1024;

/// Bodies that a worker knows to be known, before it begins to ask anew.
const SEEN_MAX: usize = 4096;

/// How often a request may have been placed anew before it is healed no more: by a replica that
/// lacked the script, and by a master that did.
const HEALED_MAX: u8 = 2;

/// Bytes that a body costs besides its own.
const OVERHEAD: usize = 256;

/// The bodies that are known. See the module.
pub struct Scripts {
    max: usize,
    /// Grows whenever something is forgotten.
    forgotten: AtomicU64,
    /// Grows whenever a cache is emptied.
    emptied: AtomicU64,
    store: Mutex<Store>,
}

/// Invariants: `order` has the keys of `bodies`; `undigested` is the end of `order`; `digests` has
/// the rest of it; `bytes` is the sum of what [`cost`] says.
#[derive(Default)]
struct Store {
    bodies: HashMap<Key, Kept>,
    /// Oldest first.
    order: VecDeque<Key>,
    /// By the SHA-1, which nobody computes before somebody asks.
    digests: HashMap<(GroupIndex, Digest), Key>,
    undigested: VecDeque<Key>,
    bytes: usize,
}

struct Kept {
    body: Arc<[u8]>,
    /// Whether the master was seen to take it.
    at_master: bool,
    digest: Option<Digest>,
}

/// SHA-1 of a body, in lower-case hexadecimal.
type Digest = [u8; 40];

/// A group, and the hash of a body.
type Key = (GroupIndex, u64);

impl Scripts {
    /// Keeps up to `max` bytes of bodies; with 0 none.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            forgotten: AtomicU64::new(0),
            emptied: AtomicU64::new(0),
            store: Mutex::default(),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a body; the oldest give way. Unless a cache was emptied since `sent`.
    fn keep(&self, key: Key, body: &[u8], (at_master, sent): (bool, u16)) {
        if cost(body) > self.max {
            return;
        }
        let mut store = self.store();
        if sent != self.times_emptied() {
            return;
        }
        if let Some(kept) = store.bodies.get_mut(&key) {
            kept.at_master |= at_master;
            return;
        }
        store.bytes += cost(body);
        let kept = Kept {
            body: Arc::from(body),
            at_master,
            digest: None,
        };
        store.bodies.insert(key, kept);
        store.order.push_back(key);
        store.undigested.push_back(key);
        let before = store.order.len();
        while store.bytes > self.max {
            store.forget_oldest();
        }
        if store.order.len() < before {
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The body with this SHA-1, and whether the master was seen to take it.
    fn find(&self, group: GroupIndex, digest: &Digest) -> Option<(Arc<[u8]>, bool)> {
        let mut store = self.store();
        store.digest();
        let key = store.digests.get(&(group, *digest))?;
        let kept = store.bodies.get(key)?;
        Some((Arc::clone(&kept.body), kept.at_master))
    }

    /// Whether the master was seen to take a body.
    fn is_at_master(&self, key: Key) -> bool {
        let store = self.store();
        store.bodies.get(&key).is_some_and(|kept| kept.at_master)
    }

    /// How often a cache was emptied, as far as this tells requests in flight apart.
    fn times_emptied(&self) -> u16 {
        let [.., high, low] = self.emptied.load(Ordering::Relaxed).to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The latest bodies of a group, up to `most` bytes.
    fn latest(&self, group: GroupIndex, most: usize) -> Vec<Arc<[u8]>> {
        let store = self.store();
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        for key in store.order.iter().rev().filter(|key| key.0 == group) {
            let Some(Kept { body, .. }) = store.bodies.get(key) else {
                continue;
            };
            bytes += body.len();
            if bytes > most {
                break;
            }
            bodies.push(Arc::clone(body));
        }
        bodies
    }

    /// Forgets the bodies of a group.
    fn forget(&self, group: GroupIndex) {
        let mut store = self.store();
        for _ in 0..store.order.len() {
            // Those of other groups come out in the order in which they were.
            if let Some(key) = store.order.pop_front() {
                if key.0 == group {
                    store.remove(key);
                } else {
                    store.order.push_back(key);
                }
            }
        }
        store.undigested.retain(|key| key.0 != group);
        self.emptied.fetch_add(1, Ordering::Relaxed);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }
}

impl Store {
    fn forget_oldest(&mut self) {
        let Some(key) = self.order.pop_front() else {
            return;
        };
        if self.undigested.front() == Some(&key) {
            self.undigested.pop_front();
        }
        self.remove(key);
    }

    fn remove(&mut self, key: Key) {
        let Some(kept) = self.bodies.remove(&key) else {
            return;
        };
        self.bytes -= cost(&kept.body);
        if let Some(digest) = kept.digest {
            self.digests.remove(&(key.0, digest));
        }
    }

    /// Computes what is missing.
    fn digest(&mut self) {
        for key in std::mem::take(&mut self.undigested) {
            let Some(kept) = self.bodies.get_mut(&key) else {
                continue;
            };
            let text = sha1_smol::Sha1::from(&kept.body).digest().to_string();
            kept.digest = Digest::try_from(text.as_bytes()).ok();
            if let Some(digest) = kept.digest {
                self.digests.insert((key.0, digest), key);
            }
        }
    }
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripts({} bytes)", self.store().bytes)
    }
}

/// What a request does to the script cache of its node, as far as anybody keeps account of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Caching {
    /// Nothing.
    #[default]
    Nothing,
    /// It adds a script that the master may not have; and how often a cache was emptied by then.
    Adds(u16),
    /// It empties the cache.
    Empties,
    /// It names a script that the master has, or had.
    Names,
    /// It names one of which only the master knows whether there is such a script.
    Asks,
}

impl Caching {
    /// The class of a request that is of this one otherwise.
    fn class(self, class: Class) -> Class {
        match (self, class) {
            (Self::Adds(_) | Self::Asks, Class::Read) => Class::MasterRead,
            _ => class,
        }
    }

    /// Whether its reply is to be looked at.
    #[inline]
    pub(super) const fn ends(self) -> bool {
        matches!(self, Self::Adds(_) | Self::Empties)
    }
}

/// The scripts that the replica at the other end of a link was given.
#[derive(Debug, Default)]
pub(super) struct Brought(HashSet<Digest>);

/// What one worker knows of them without a lock: what the master has.
#[derive(Debug)]
pub(super) struct Seen {
    scripts: Arc<Scripts>,
    bodies: HashSet<Key>,
    digests: HashSet<(GroupIndex, Digest)>,
    forgotten: u64,
}

impl Seen {
    /// Nothing is known without a lock.
    pub(super) fn new(scripts: Arc<Scripts>) -> Self {
        Self {
            scripts,
            bodies: HashSet::new(),
            digests: HashSet::new(),
            forgotten: 0,
        }
    }

    /// A client sends a script, names one, or has them all forgotten: what that does to the cache
    /// of its node, and what it is because of that.
    #[cold]
    pub(super) fn note(
        &mut self,
        (client, group): (&Client, &Group),
        (script, class): (Script, Class),
        request: &Request<'_>,
    ) -> (Caching, Class) {
        self.forget();
        let caching = match script {
            Script::Flush => {
                self.scripts.forget(client.group);
                Caching::Empties
            }
            Script::Digest if class == Class::Read => {
                let spared = group.settings.no_replica == NoReplica::Error;
                let known = self.knows(client.group, request);
                if known || spared || client.access.is_read_only() {
                    Caching::Names
                } else {
                    Caching::Asks
                }
            }
            Script::Digest | Script::Function => Caching::Nothing,
            Script::Body | Script::Load => self.adds(client, (script, class), request),
        };
        (caching, caching.class(class))
    }

    /// Forgets everything if anything was forgotten.
    fn forget(&mut self) {
        let forgotten = self.scripts.forgotten.load(Ordering::Relaxed);
        let full = self.bodies.len() >= SEEN_MAX || self.digests.len() >= SEEN_MAX;
        if self.forgotten != forgotten || full {
            self.forgotten = forgotten;
            self.bodies.clear();
            self.digests.clear();
        }
    }

    /// What becomes of the master's cache with a body. To a client that speaks with a replica this
    /// has a cache of its own.
    fn adds(
        &mut self,
        client: &Client,
        (script, class): (Script, Class),
        request: &Request<'_>,
    ) -> Caching {
        let Some(body) = body_of(script, request) else {
            return Caching::Nothing;
        };
        let (key, sent) = ((client.group, hash(body)), self.scripts.times_emptied());
        if self.bodies.contains(&key) {
            return Caching::Nothing;
        }
        if self.scripts.is_at_master(key) {
            self.bodies.insert(key);
            return Caching::Nothing;
        }
        let at_replica = class == Class::Read && client.access.is_read_only();
        if at_replica {
            self.scripts.keep(key, body, (false, sent));
            return Caching::Nothing;
        }
        Caching::Adds(sent)
    }

    /// Whether the master has the script that a request names.
    fn knows(&mut self, group: GroupIndex, request: &Request<'_>) -> bool {
        let Some(digest) = request.arg1().and_then(digest_of) else {
            return false;
        };
        let key = (group, digest);
        if self.digests.contains(&key) {
            return true;
        }
        let known = self
            .scripts
            .find(group, &digest)
            .is_some_and(|found| found.1);
        if known {
            self.digests.insert(key);
        }
        known
    }

    /// The oldest request of a link has its reply, and is one that ends in a script cache.
    #[cold]
    pub(super) fn answered(&self, link: &Link, reply: &[u8]) {
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return;
        };
        match ticket.caching {
            // It may never be executed.
            _ if ticket.purpose == Purpose::Queued && reply.starts_with(b"+QUEUED") => {}
            // What was added meanwhile may be gone, too.
            Caching::Empties => self.scripts.forget(link.group),
            Caching::Adds(sent) if is_cached(reply) => {
                self.keep(link, raw, sent);
            }
            _ => {}
        }
    }

    /// A transaction has this reply to EXEC: what it has queued is executed with that, or never.
    pub(super) fn executed(&self, link: &Link, queued: &kept::Kept, reply: &[u8]) {
        let mut scripts = queued.scripts().peekable();
        if !reply.starts_with(b"*") || (scripts.peek().is_none() && !queued.flushes()) {
            return;
        }
        if queued.flushes() {
            return self.scripts.forget(link.group);
        }
        let header = memchr::memchr(b'\n', reply).map_or(reply.len(), |end| end + 1);
        let mut rest = reply.get(header..).unwrap_or_default();
        let mut place = 0;
        while let Ok(Scan::Complete { len, .. }) = ReplyScanner::default().scan(rest)
            && let Some((element, behind)) = rest.split_at_checked(len)
        {
            let script = scripts.next_if(|script| script.0 == place);
            if let Some((_, raw, sent)) = script.filter(|_| is_cached(element)) {
                self.keep(link, raw, sent);
            }
            (rest, place) = (behind, place + 1);
        }
    }

    /// Keeps the body that a request has brought to the cache at the other end of a link.
    fn keep(&self, link: &Link, raw: &[u8], sent: u16) {
        let Some(request) = Request::from_raw(raw) else {
            return;
        };
        let script = if request.name().eq_ignore_ascii_case(b"script") {
            Script::Load
        } else {
            Script::Body
        };
        if let Some(body) = body_of(script, &request) {
            let at_master = link.lane.role == Role::Master;
            let key = (link.group, hash(body));
            self.scripts.keep(key, body, (at_master, sent));
        }
    }
}

impl Exchange {
    /// Has a new link to a master that may lack the scripts bring them along, before anything else.
    pub(super) fn bring_scripts(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let index = link.group;
        let group = self.groups.get_mut(index);
        let group = group.filter(|group| group.writable == Some(link.lane.node));
        let node = group.and_then(|group| group.nodes.get_mut(link.lane.node.0));
        let Some(node) = node.filter(|node| node.lacks_scripts) else {
            return;
        };
        if link.lane.role != Role::Master
            || matches!(link.usage, Usage::Proof(_) | Usage::Hub | Usage::Target(_))
        {
            return;
        }
        for body in self.settings.scripts.latest(index, BROUGHT_MAX) {
            load(link, node, &body);
        }
    }

    /// Has a link to a replica bring the script that a request names, unless it has brought it.
    #[inline]
    pub(super) fn bring_script(&mut self, (key, caching): (LinkKey, Caching), raw: &[u8]) {
        if caching == Caching::Names {
            self.bring_named(key, raw);
        }
    }

    #[cold]
    fn bring_named(&mut self, key: LinkKey, raw: &[u8]) {
        let digest = Request::from_raw(raw).and_then(|request| digest_of(request.arg1()?));
        let Some((link, digest)) = self.links.get_mut(key).zip(digest) else {
            return;
        };
        let group = self.groups.get_mut(link.group);
        let node = group.and_then(|group| group.nodes.get_mut(link.lane.node.0));
        let Some(node) = node.filter(|_| link.lane.role == Role::Replica) else {
            return;
        };
        let brought = link.scripts.get_or_insert_default();
        if brought.0.len() >= SEEN_MAX {
            brought.0.clear();
        }
        if brought.0.contains(&digest) {
            return;
        }
        if let Some((body, _)) = self.settings.scripts.find(link.group, &digest) {
            brought.0.insert(digest);
            load(link, node, &body);
        }
    }

    /// The master does not have the script that the oldest request of a shared link names: it is
    /// loaded, and the request placed anew behind that. False if that cannot be done, or if a later
    /// request of the client may have been executed before.
    pub(super) fn heal_script(&mut self, key: LinkKey) -> bool {
        // Or nothing binds its client to it.
        let unbound = match self.usage(key) {
            Usage::Leased(Some(owner)) => self.only_attends(owner),
            usage => usage == Usage::Shared,
        };
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        let (index, usage) = (link.group, link.usage);
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return false;
        };
        let Some(client) = self.clients.get(ticket.client) else {
            return false;
        };
        let alone = ticket.purpose == Purpose::Plain && client.replies.is_latest(ticket.seq);
        if !alone || !unbound || ticket.bounces >= HEALED_MAX {
            return false;
        }
        let digest = Request::from_raw(raw).and_then(|request| digest_of(request.arg1()?));
        let found = digest.and_then(|digest| self.settings.scripts.find(index, &digest));
        let Some((body, true)) = found else {
            return false;
        };
        let again = ticket.again(usage, ticket.bounces + 1, raw);
        link.pipeline.complete();
        self.uncount(ticket, key);
        if let Some(link) = self.links.get_mut(key)
            && let Some(group) = self.groups.get_mut(index)
            && let Some(node) = group.nodes.get_mut(link.lane.node.0)
        {
            load(link, node, &body);
            if !link.dirty {
                link.dirty = true;
                self.dirty_links.push(key);
            }
        }
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client.try_again(again);
        }
        self.touch(ticket.client);
        true
    }
}

/// Has a link load a body. Nobody hears the reply: a server that refuses it says so when the script
/// is asked for.
fn load(link: &mut Link, node: &mut Node, body: &[u8]) {
    let ticket = Ticket::nobodys(RequestClass::Write, Purpose::Internal, link.heard_at);
    let mut raw = Vec::new();
    encode::request(&mut raw, &[b"SCRIPT", b"LOAD", body]);
    link.pipeline.push(ticket, &raw);
    node.in_flight += 1;
}

/// The body that a request carries.
fn body_of<'r>(script: Script, request: &Request<'r>) -> Option<&'r [u8]> {
    let at = if script == Script::Load { 2 } else { 1 };
    request.args().nth(at)
}

/// A SHA-1 in hexadecimal of any case.
fn digest_of(word: &[u8]) -> Option<Digest> {
    Digest::try_from(word.to_ascii_lowercase()).ok()
}

/// Whether a script has come into the cache: where it was run, its own errors tell it.
fn is_cached(reply: &[u8]) -> bool {
    !reply.starts_with(b"-") || memchr::memmem::find(reply, b" script: ").is_some()
}

/// What a body counts for.
fn cost(body: &[u8]) -> usize {
    body.len().saturating_add(OVERHEAD)
}

/// A hash of a body, eight bytes at a time. Two bodies with the same cost the later one its place.
fn hash(body: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
    let (words, rest) = body.as_chunks::<8>();
    let seed = rest.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let hash = words
        .iter()
        .fold(seed, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    mix(hash, u64::try_from(body.len()).unwrap_or(u64::MAX))
}
