//! Floor 4. Bodies of the scripts that went through this process, to give them to a master that
//! does not have them: the script cache of a server is neither replicated nor kept.
//!
//! Shared by the workers, as a client may load with one connection and run with another. It is
//! locked for moments, and only when a body is new or missing. Must not know what a script does.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::Script;
use crate::exchange::link::{Link, Usage};
use crate::exchange::marks::Marks;
use crate::exchange::node::Node;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, GroupIndex, LinkKey, Role};
use crate::resp::{Request, encode};
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
            store: Mutex::default(),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a body; the oldest give way.
    fn keep(&self, key: Key, body: &[u8]) {
        if cost(body) > self.max {
            return;
        }
        let mut store = self.store();
        if store.bodies.contains_key(&key) {
            return;
        }
        store.bytes += cost(body);
        let kept = Kept {
            body: Arc::from(body),
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

    /// The body with this SHA-1, in hexadecimal of any case.
    fn find(&self, group: GroupIndex, digest: &[u8]) -> Option<Arc<[u8]>> {
        let digest = Digest::try_from(digest.to_ascii_lowercase()).ok()?;
        let mut store = self.store();
        store.digest();
        let key = store.digests.get(&(group, digest))?;
        store.bodies.get(key).map(|kept| Arc::clone(&kept.body))
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

/// What one worker knows of them without a lock.
#[derive(Debug, Default)]
pub(super) struct Seen {
    bodies: HashSet<Key>,
    forgotten: u64,
}

impl Seen {
    /// A client sends a script, or has them all forgotten.
    #[cold]
    pub(super) fn note(
        &mut self,
        scripts: &Scripts,
        group: GroupIndex,
        script: Script,
        request: &Request<'_>,
    ) {
        let at = match script {
            Script::Body => 1,
            Script::Load => 2,
            Script::Flush => return scripts.forget(group),
            Script::Digest | Script::Function => return,
        };
        let Some(body) = request.args().nth(at) else {
            return;
        };
        if scripts.max == 0 {
            return;
        }
        let forgotten = scripts.forgotten.load(Ordering::Relaxed);
        if self.forgotten != forgotten || self.bodies.len() >= SEEN_MAX {
            self.forgotten = forgotten;
            self.bodies.clear();
        }
        let key = (group, hash(body));
        if self.bodies.insert(key) {
            scripts.keep(key, body);
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
        if link.lane.role != Role::Master || matches!(link.usage, Usage::Proof(_)) {
            return;
        }
        for body in self.settings.scripts.latest(index, BROUGHT_MAX) {
            load(link, node, &body);
        }
    }

    /// The master does not have the script that the oldest request of a shared link names: it is
    /// loaded, and the request placed anew behind that. False if that cannot be done, or if a later
    /// request of the client may have been executed before.
    pub(super) fn heal_script(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        let index = link.group;
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return false;
        };
        let Some(client) = self.clients.get(ticket.client) else {
            return false;
        };
        let alone = ticket.purpose == Purpose::Plain && client.replies.is_latest(ticket.seq);
        if !alone || link.usage != Usage::Shared || ticket.bounces >= HEALED_MAX {
            return false;
        }
        let digest = Request::from_raw(raw).and_then(|request| request.arg1());
        let body = digest.and_then(|digest| self.settings.scripts.find(index, digest));
        let Some(body) = body else {
            return false;
        };
        let again = ticket.again(Usage::Shared, ticket.bounces + 1, raw);
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
    let ticket = Ticket {
        client: ClientKey::NOBODY,
        seq: 0,
        arrived: link.heard_at,
        class: RequestClass::Write,
        effect: Effect::Reads,
        purpose: Purpose::Internal,
        spoken: false,
        bounces: 0,
        breaks: 0,
        marks: Marks::None,
    };
    let mut raw = Vec::new();
    encode::request(&mut raw, &[b"SCRIPT", b"LOAD", body]);
    link.pipeline.push(ticket, &raw);
    node.in_flight += 1;
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
