//! Floor 4. Tests: Random clients, random nodes, random trouble, and what must hold all the same:
//!
//! * every request gets one reply, in order: its own, or an error that says what is known of it;
//! * what was said not to be executed was executed nowhere, and nothing was executed twice;
//! * the requests of a client at the master are all on one link;
//! * the writes of a client are executed in the order in which it sent them, in the database that
//!   it had selected;
//! * no read sees a write that its client sent behind it, unless that is UNCERTAIN;
//! * a replica serves no read that needs more than it was known to have, over links that were open
//!   when that was known;
//! * nothing is sent to a master that is being left after `Quiet`, or at all after it was left;
//! * who was let in goes on when a password is set, in its database, and who was not hears so;
//! * what a client sends is executed as the user who it was when it sent it;
//! * a transaction of which a command was refused is not executed;
//! * a name with a byte 0 comes to no node;
//! * when the trouble is over, everything is answered, and nothing is kept.

mod nodes;
mod talkers;

use std::collections::BTreeMap;

use super::*;
use crate::consistency::Stamps;
use crate::exchange::Bulky;
use crate::route::Access;
use crate::telemetry::{HedgeOutcome, Latency, Target};
use crate::topology::Acks;

/// Where requests are executed; replica of whichever node is master.
#[derive(Default)]
struct Node {
    is_master: bool,
}

impl Line {
    /// The user whose requests it takes.
    fn user(&self) -> Option<String> {
        let user = self.plan.login.as_ref()?.username()?;
        Some(String::from_utf8_lossy(user).into_owned())
    }
}

/// A connection between the switchboard and a node.
struct Line {
    plan: OpenPlan,
    node: usize,
    /// Its number at the node.
    number: u64,
    open: bool,
    to_node: Vec<u8>,
    to_us: Vec<u8>,
    /// Requests queued since MULTI; `Err`: one of them was refused.
    multi: Option<Result<Vec<String>, ()>>,
    /// The pop that it waits for.
    blocked: Option<String>,
    /// Its node reads no more.
    deaf: bool,
    /// What its node was known to have when it was open.
    settled: u32,
    /// Where its requests are executed.
    database: u32,
}

/// What a world has to do with logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logins {
    None,
    /// Nodes want one now and then, and nobody has any.
    Wanted,
    /// Clients have them.
    Given,
}

/// What a master does with writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Go,
    /// It keeps them waiting.
    Paused,
}

/// One request as its client remembers it.
#[derive(Clone, Debug)]
struct Sent {
    line: String,
    id: u64,
    spoken: bool,
}

#[derive(Default)]
struct Talker {
    key: Option<ClientKey>,
    /// Encoded and not sent.
    bytes: Vec<u8>,
    sent: VecDeque<Sent>,
    heard: Vec<u8>,
    database: u32,
    /// The user who it is, with a name.
    user: Option<String>,
    /// Whether it has sent WATCH: then its transaction may be refused.
    watched: bool,
    /// Identifiers queued since MULTI; `None` outside of a transaction.
    queued: Option<Vec<u64>>,
    /// Whether something was refused since: nothing of it may be executed then.
    spoilt: bool,
    quits: bool,
}

/// Where, by whom and how often something was executed, and when it was last.
#[derive(Clone, Debug, Default)]
struct Executed {
    times: u32,
    database: u32,
    user: Option<String>,
}

struct Sim {
    exchange: Exchange,
    now: Time,
    dice: fastrand::Rng,
    nodes: Vec<Node>,
    lines: BTreeMap<LinkKey, Line>,
    /// Connections so far.
    opened: u64,
    talkers: Vec<Talker>,
    picture: Snapshot,
    /// Whether masters let nobody in any more who does not log in, as nobody does.
    keeps_out: bool,
    was_kept_out: bool,
    logins: Logins,
    writes: Writes,
    /// The generation for which all is quiet.
    quiet: Option<Generation>,
    next_id: u64,
    executed: HashMap<u64, Executed>,
    /// What was said of each request in the end: the most it may have been executed.
    allowed: HashMap<u64, (u32, u32)>,
    /// The last write of each client that was executed.
    latest: HashMap<usize, u64>,
    /// The last one to each key.
    written: HashMap<(usize, String), u64>,
    /// Writes that were seen by reads before them: with a connection both may be lost, and the read
    /// is sent again where the write was executed.
    foreseen: HashMap<u64, u64>,
    /// Which client sent what.
    owner: HashMap<u64, usize>,
    stamps: Arc<Stamps>,
    /// What each request needs that a replica may not have.
    needs: HashMap<u64, u32>,
    /// Reads that were sent twice, and that the second copy won; and those copied for a long reply
    /// before theirs.
    twice: [u64; 3],
}

const NODES: [&str; 3] = ["n0", "n1", "n2"];

impl Sim {
    /// Reads are hedged in every other world, and account is kept of writes in half of either kind.
    fn new(seed: u64) -> Self {
        let settings = Settings {
            pipeline_max: 16,
            read_ahead: 500,
            link_bytes: 600,
            leases_max: 4,
            warm: seed % 7 < 3,
            // One of the large replies is too much, or is not.
            output_high: if seed.is_multiple_of(3) {
                30_000
            } else {
                60_000
            },
            long_reply: 40_000,
            bulky_reply: 20_000,
            reply_timeout: Duration::from_secs(20),
            opening_max: 2,
            ..Settings::default()
        };
        let mut picture = Snapshot::unknown(Duration::from_secs(1));
        picture.replicas = vec![addr("n1"), addr("n2")];
        let stamps = Arc::new(Stamps::new(64, seed));
        let group = GroupSettings {
            hedge_reads: seed.is_multiple_of(2),
            stamps: (seed % 4 < 2).then(|| Arc::clone(&stamps)),
            // Few places make many keys bulky, and nothing is bulky with many.
            bulky: Arc::new(Bulky::with(if seed.is_multiple_of(5) { 16 } else { 4096 })),
            ..Setup::default().group
        };
        let mut sim = Self {
            exchange: Exchange::new(settings, vec![group], seed),
            now: Time::from_start(Duration::from_secs(1)),
            dice: fastrand::Rng::with_seed(seed),
            nodes: NODES.iter().map(|_| Node::default()).collect(),
            lines: BTreeMap::new(),
            opened: 0,
            talkers: (0..6).map(|_| Talker::default()).collect(),
            picture,
            keeps_out: false,
            was_kept_out: false,
            logins: match seed % 7 {
                0..3 => Logins::Wanted,
                3 | 4 => Logins::Given,
                _ => Logins::None,
            },
            writes: Writes::Go,
            quiet: None,
            next_id: 0,
            executed: HashMap::new(),
            allowed: HashMap::new(),
            latest: HashMap::new(),
            written: HashMap::new(),
            foreseen: HashMap::new(),
            owner: HashMap::new(),
            stamps,
            needs: HashMap::new(),
            twice: [0; 3],
        };
        sim.nodes[0].is_master = true;
        sim.publish(Phase::Stable, 0);
        sim
    }

    fn publish(&mut self, phase: Phase, master: usize) {
        self.picture.generation = self.picture.generation.next();
        self.picture.phase = phase;
        let acks = [Acks::Given, Acks::Kept, Acks::Settled, Acks::Doubtful];
        self.picture.acks = *self.dice.choice(&acks).unwrap();
        self.picture.master = Some(addr(NODES[master]));
        let picture = Arc::new(self.picture.clone());
        self.exchange.topology(0, picture, self.now);
        self.perform();
        if phase == Phase::Stable {
            for (key, line) in &self.lines {
                let left = line.plan.role == Role::Master && line.node != master;
                let waits = left && self.exchange.is_left(*key);
                assert!(!left || waits, "a link to a master that was left");
            }
        }
    }

    fn perform(&mut self) {
        while let Some(action) = self.exchange.poll_action() {
            match action {
                Action::Open(key, plan) => {
                    let host = plan.node.host();
                    let node = NODES.iter().position(|name| *name == host).unwrap();
                    self.opened += 1;
                    let line = Line {
                        plan,
                        node,
                        number: self.opened,
                        open: false,
                        to_node: Vec::new(),
                        to_us: Vec::new(),
                        multi: None,
                        blocked: None,
                        deaf: false,
                        settled: 0,
                        database: 0,
                    };
                    assert!(self.lines.insert(key, line).is_none());
                }
                Action::Close(key) => {
                    let line = self.lines.remove(&key).expect("closes what it opened");
                    self.last_words(line);
                }
                Action::Report(_, ReportKind::Quiet { generation }) => {
                    assert_ne!(self.quiet, Some(generation), "quiet is said once");
                    self.quiet = Some(generation);
                }
                Action::Fence(_, _, Some(link)) if self.dice.bool() => {
                    let result = *self.dice.choice(FenceResult::ALL).unwrap();
                    self.exchange.fenced(link, result, self.now);
                }
                Action::Report(..) | Action::Fence(..) | Action::Ask(_) => {}
            }
        }
        while let Some(key) = self.exchange.poll_dirty_link() {
            self.exchange.link_turn(key);
        }
        while self.exchange.poll_dirty_client().is_some() {}
    }

    /// A connection is gone; what was written may still be executed, as much of it as came along.
    fn last_words(&mut self, mut line: Line) {
        if self.dice.bool() {
            let keep = self.dice.usize(..=line.to_node.len());
            line.to_node.truncate(keep);
            while self.execute_next(&mut line) {}
        }
    }

    fn step(&mut self) {
        self.now = self.now + ms(self.dice.u64(0..4));
        self.look_for_late_reads();
        match self.dice.u32(0..100) {
            0..18 => self.talk(),
            18..30 => self.open_or_refuse(),
            30..50 => self.write(),
            50..68 => self.serve(),
            68..84 => self.feed(),
            84..92 => self.listen(),
            92..94 => self.lose(),
            94..95 => self.trouble(),
            95..96 => self.hang_up(),
            _ => {
                self.now = self.now + ms(self.dice.u64(0..200));
                self.exchange.tick(self.now);
                self.account();
            }
        }
        self.perform();
        self.look_for_split_clients();
    }

    /// Some bytes of a client arrive, if there are any.
    fn send(&mut self, key: ClientKey, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.exchange.client_bytes(key, bytes, self.now);
        }
    }

    /// A client's requests at the master are all on one link.
    fn look_for_split_clients(&self) {
        let mut links: HashMap<ClientKey, LinkKey> = HashMap::new();
        for (key, link) in self.exchange.links.iter() {
            if link.lane.role == Role::Master {
                let clients = link.pipeline.tickets().map(|ticket| ticket.client);
                for client in clients.filter(|client| *client != ClientKey::NOBODY) {
                    assert_eq!(*links.entry(client).or_insert(key), key, "{client:?}");
                }
            }
        }
    }

    /// Somebody writes everything, or a replica is known to have everything.
    fn account(&mut self) {
        let generation = self.stamps.generation();
        if self.exchange.groups[0].settings.stamps.is_none() {
            return;
        }
        if self.dice.bool() {
            return self.stamps.mark(self.stamps.everything(), generation);
        }
        let at = self.dice.usize(..NODES.len());
        let settled = self.stamps.node(&addr(NODES[at]));
        self.stamps.advance();
        assert!(settled.publish(settled.incarnation(), generation));
        let lines = self.lines.values_mut();
        for line in lines.filter(|line| line.open && line.node == at) {
            line.settled = generation;
        }
    }

    /// Replicas answer nearly all other reads at once, so that each that takes a moment is late.
    fn look_for_late_reads(&mut self) {
        if !self.exchange.groups[0].settings.hedge_reads {
            return;
        }
        let counts = self.exchange.counts(0).unwrap();
        let [sent, won] = [HedgeOutcome::Sent, HedgeOutcome::Won].map(|it| counts.hedges(it));
        self.twice = [sent, won, counts.detoured];
        let took = counts.upstream_duration(Target::Replica);
        *took = Latency::default();
        took.record_many(Duration::from_micros(100), 40);
        self.exchange.tick(self.now);
        self.perform();
    }

    fn any_line(&mut self) -> Option<LinkKey> {
        let keys: Vec<_> = self.lines.keys().copied().collect();
        self.dice.choice(keys)
    }

    /// The trouble is over: everything is answered.
    fn calm_down(&mut self) {
        self.keeps_out = false;
        self.writes = Writes::Go;
        self.promote(0);
        for _ in 0..400 {
            self.now = self.now + ms(50);
            self.exchange.tick(self.now);
            self.perform();
            for link in self.lines.keys().copied().collect::<Vec<_>>() {
                if self.lines.get(&link).is_some_and(|line| !line.open) {
                    self.open(link);
                    self.perform();
                }
                self.write_to(link, usize::MAX);
                self.serve_all(link);
                self.feed_from(link, usize::MAX);
                self.perform();
            }
            for at in 0..self.talkers.len() {
                if let Some(key) = self.talkers[at].key
                    && self.exchange.wants_input(key)
                {
                    let chunk = std::mem::take(&mut self.talkers[at].bytes);
                    self.send(key, &chunk);
                }
                self.listen_to(at, usize::MAX);
                self.perform();
            }
            let mut clients = self.exchange.clients.iter();
            // What nobody hears the reply of is placed too.
            let answered = clients
                .all(|(_, client)| client.replies.outstanding() == 0 && client.input.is_empty());
            // Nor does Switchman wait for anything that it has asked itself.
            let mut nodes = self.exchange.groups[0].nodes.iter();
            let quiet = nodes.all(|node| node.in_flight == 0);
            if answered && quiet && self.talkers.iter().all(|talker| talker.sent.is_empty()) {
                return;
            }
        }
        let mut talkers = self.talkers.iter();
        let Some(stuck) = talkers.find(|talker| !talker.sent.is_empty()) else {
            return;
        };
        let client = stuck.key.and_then(|key| self.exchange.clients.get(key));
        panic!("no answer to {:?}: {client:?}", stuck.sent.front());
    }

    /// What was said of each request is true, and nothing is kept.
    fn settle_accounts(&mut self) {
        for (id, (least, most)) in &self.allowed {
            let times = self.executed.get(id).map_or(0, |executed| executed.times);
            assert!(
                (*least..=*most).contains(&times),
                "request {id} was executed {times} times"
            );
        }
        for (key, client) in self.exchange.clients.iter() {
            let counts = (client.master_out, client.writes_out, client.replica_out);
            assert_eq!(counts, (0, 0, 0), "{key:?}");
            assert_eq!((client.input.capacity(), client.again.capacity()), (0, 0));
            assert!(client.throttled.is_empty() && client.later.capacity() == 0);
        }
        // Nobody is kept out any more.
        self.now = self.now + ms(1_000);
        self.exchange.tick(self.now);
        self.perform();
        for talker in &self.talkers {
            if let Some(key) = talker.key {
                self.exchange.client_gone(key, self.now);
            }
        }
        self.perform();
        self.exchange.tick(self.now);
        assert_eq!(self.exchange.client_count(), 0);
        let group = &self.exchange.groups[0];
        assert!(group.nodes.iter().all(|node| node.in_flight == 0));
        assert!(group.held.is_empty() && group.untracked.is_empty());
        for (key, link) in self.exchange.links.iter() {
            assert!(
                link.pipeline.is_empty() && link.input.capacity() == 0,
                "{key:?}"
            );
            assert!(link.throttled_by.is_empty() && !link.is_owned(), "{key:?}");
        }
        assert!(self.exchange.spares.is_bounded());
        let hedging = group.hedging.as_ref();
        assert!(hedging.is_none_or(|it| it.owns_nothing()));
        assert!(self.exchange.detours.is_empty());
    }
}

#[test]
fn whatever_happens_everybody_is_told_the_truth_once() {
    let mut twice = [0; 3];
    for seed in seeds() {
        let mut sim = Sim::new(seed);
        let story = std::panic::AssertUnwindSafe(|| {
            for _ in 0..1500 {
                sim.step();
            }
            sim.calm_down();
            sim.settle_accounts();
        });
        let told = std::panic::catch_unwind(story);
        assert!(told.is_ok(), "seed {seed}");
        for (all, some) in twice.iter_mut().zip(sim.twice) {
            *all += some;
        }
    }
    let [sent, won, detoured] = twice;
    println!(
        "{sent} reads sent twice, {won} won by the second copy, {detoured} behind long replies"
    );
    assert!(
        seeds().count() < 10 || (sent > 0 && won > 0 && won < sent && detoured > 0),
        "{sent} reads were sent twice, {won} of them in time, {detoured} behind long replies"
    );
}

/// Some seeds, or the one in `SWITCHMAN_SEED`, or from it on as many as `SWITCHMAN_SEEDS` says.
fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("SWITCHMAN_SEED");
    let count = number("SWITCHMAN_SEEDS").unwrap_or(if first.is_some() { 1 } else { 80 });
    let first = first.unwrap_or(0);
    first..first + count
}
