//! The turn of a worker without sockets: requests of many clients in, placed, written, answered,
//! and the replies taken. Time per command, everything included.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use switchman::consistency::{SLOTS, Scripts, Stamps};
use switchman::exchange::{
    Action, ClientKey, Exchange, GroupSettings, LinkKey, Opened, ReaderSettings, Role, Settings,
};
use switchman::route::{Access, NoReplica, Reads};
use switchman::topology::{Phase, Snapshot};
use switchman::types::{ListenerRole, MasterName, NodeAddr, Time};

/// Clients whose requests share a turn.
const CLIENTS: u64 = 50;

/// A switchboard with a master, a replica and clients.
struct Turn {
    exchange: Exchange,
    clients: Vec<ClientKey>,
    master: LinkKey,
    replica: LinkKey,
    now: Time,
    /// Replies, as many as a turn can need, to be cut off where they end.
    replies: Vec<u8>,
    /// Which requests are the next client's.
    next: usize,
}

/// Different keys that clients ask for, in sets of what one sends in a turn.
const REQUEST_SETS: usize = 1024;

const REPLY: &[u8] = b"$16\r\n0123456789abcdef\r\n";
const OK: &[u8] = b"+OK\r\n";

impl Turn {
    fn new(reads: Reads) -> Self {
        let stamps = (reads == Reads::OwnWrites).then(|| Arc::new(Stamps::new(SLOTS, 0x5eed)));
        let group = GroupSettings {
            name: MasterName::new("orders"),
            no_replica: NoReplica::Master,
            readers: ReaderSettings::default(),
            hedge_reads: false,
            anonymous: None,
            stamps: stamps.clone(),
            audience: Arc::default(),
            script_keys: Scripts::default(),
        };
        let mut exchange = Exchange::new(Settings::default(), vec![group], 1);
        let addr = |host| NodeAddr::new(host, 6379).expect("a name and a port");
        let mut picture = Snapshot::unknown(Duration::from_secs(10));
        picture.phase = Phase::Stable;
        picture.master = Some(addr("m"));
        picture.replicas = vec![addr("r")];
        let now = Time::from_start(Duration::from_secs(1));
        exchange.topology(0, Arc::new(picture), now);
        let (mut master, mut replica) = (None, None);
        while let Some(action) = exchange.poll_action() {
            if let Action::Open(key, plan) = action {
                exchange.link_opened(key, Opened::default(), now);
                match plan.role {
                    Role::Master => master = Some(key),
                    Role::Replica => replica = Some(key),
                }
            }
        }
        if let Some(stamps) = stamps {
            // All that is written is settled at once.
            let replica = stamps.node(&addr("r"));
            replica.publish(replica.incarnation(), stamps.generation());
        }
        let clients = (0..CLIENTS)
            .map(|id| exchange.client_joined(0, Access::new(ListenerRole::Split, reads), id, now))
            .collect();
        Self {
            exchange,
            clients,
            master: master.expect("the master's first lane"),
            replica: replica.expect("the replica's first lane"),
            now,
            replies: Vec::new(),
            next: 0,
        }
    }

    /// One turn in which every client sends `requests`.
    fn run(&mut self, requests: &[Vec<u8>], to_master: &[u8], to_replica: &[u8]) -> usize {
        self.now = self.now + Duration::from_micros(100);
        for client in &self.clients {
            let requests = requests.get(self.next % requests.len());
            self.next += 1;
            let requests = black_box(requests.expect("one of them"));
            self.exchange.client_bytes(*client, requests, self.now);
        }
        while let Some(link) = self.exchange.poll_dirty_link() {
            self.exchange.link_turn(link);
            let count = black_box(self.exchange.unwritten(link)).len();
            self.exchange.written(link, count, self.now);
        }
        for (link, replies) in [(self.master, to_master), (self.replica, to_replica)] {
            self.replies.clear();
            for _ in 0..CLIENTS {
                self.replies.extend_from_slice(replies);
            }
            for read in self.replies.chunks(64 * 1024) {
                let taken = self.exchange.link_bytes(link, black_box(read), self.now);
                taken.expect("as many replies as requests");
            }
        }
        let mut bytes = 0;
        while let Some(client) = self.exchange.poll_dirty_client() {
            let count = black_box(self.exchange.output(client)).len();
            self.exchange.took(client, count, self.now);
            bytes += count;
        }
        bytes
    }
}

/// What each client sends in one turn: GET and SET, ten to one, of keys from `first` on.
fn requests(depth: usize, first: usize) -> Vec<u8> {
    let mut requests = Vec::new();
    for at in 0..depth {
        let key = format!("$16\r\nkey:{:012}\r\n", first + at);
        let (head, tail) = if is_write(depth, at) {
            ("*3\r\n$3\r\nSET\r\n", "$16\r\n0123456789abcdef\r\n")
        } else {
            ("*2\r\n$3\r\nGET\r\n", "")
        };
        requests.extend([head, &key, tail].concat().bytes());
    }
    requests
}

const fn is_write(depth: usize, at: usize) -> bool {
    depth > 1 && at % 11 == 10
}

/// What the nodes answer to one client's requests.
fn answers(depth: usize, reads: Reads) -> [Vec<u8>; 2] {
    let (mut to_master, mut to_replica) = (Vec::new(), Vec::new());
    let mut writes = 0;
    for at in 0..depth {
        if is_write(depth, at) {
            to_master.extend_from_slice(OK);
            writes += 1;
        } else {
            let by_master = reads == Reads::Master || writes > 0;
            let replies = if by_master {
                &mut to_master
            } else {
                &mut to_replica
            };
            replies.extend_from_slice(REPLY);
        }
    }
    [to_master, to_replica]
}

/// Measures turns at pipeline depths 1 and 16.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("exchange");
    let modes = [
        ("replica", Reads::Replicas),
        ("own-writes", Reads::OwnWrites),
        ("master", Reads::Master),
    ];
    for (name, reads) in modes {
        for depth in [1_usize, 16] {
            let [to_master, to_replica] = answers(depth, reads);
            let sets = (0..REQUEST_SETS).map(|set| requests(depth, set * depth));
            let requests: Vec<_> = sets.collect();
            let mut turn = Turn::new(reads);
            let depth_u64 = u64::try_from(depth).expect("small");
            group.throughput(Throughput::Elements(CLIENTS * depth_u64));
            group.bench_function(format!("turn/{name}/pipeline {depth}"), |b| {
                b.iter(|| turn.run(&requests, &to_master, &to_replica));
            });
        }
    }
    group.finish();
}
