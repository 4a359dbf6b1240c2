//! The turn of a worker without sockets: requests of many clients in, placed, written, answered,
//! and the replies taken. Time per command, everything included.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use switchman::consistency::{SLOTS, Scripts, Stamps};
use switchman::exchange::{
    Action, ClientKey, Exchange, GroupSettings, Opened, ReaderSettings, Settings,
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

/// Bytes of a GET and a SET of [`requests`].
const GET_LEN: usize = 13 + 23;
const SET_LEN: usize = 13 + 23 + 23;

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
            bulky: Arc::default(),
            busy: Arc::default(),
            pause: Arc::default(),
            changes: Arc::default(),
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
        while let Some(action) = exchange.poll_action() {
            if let Action::Open(key, _) = action {
                exchange.link_opened(key, Opened::default(), now);
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
            now,
            replies: Vec::new(),
            next: 0,
        }
    }

    /// One turn in which every client sends its requests, and hears all replies.
    fn run(&mut self, requests: &[Vec<u8>]) -> usize {
        self.now = self.now + Duration::from_micros(100);
        for client in &self.clients {
            let requests = requests.get(self.next % requests.len());
            self.next += 1;
            let requests = black_box(requests.expect("one of them"));
            self.exchange.client_bytes(*client, requests, self.now);
        }
        // A write may wait for reads of what shares a stamp with it: the nodes are asked again.
        while self.answer() {}
        let mut bytes = 0;
        while let Some(client) = self.exchange.poll_dirty_client() {
            while !self.exchange.output(client).is_empty() {
                let count = black_box(self.exchange.output(client)).len();
                self.exchange.took(client, count, self.now);
                bytes += count;
            }
        }
        bytes
    }

    /// The nodes answer what is written to them. Returns whether there was anything.
    fn answer(&mut self) -> bool {
        let mut asked = false;
        while let Some(link) = self.exchange.poll_dirty_link() {
            self.exchange.link_turn(link);
            let written = black_box(self.exchange.unwritten(link));
            let count = written.len();
            let mut rest = written;
            self.replies.clear();
            while let Some(second) = rest.get(1) {
                let (len, reply) = match second {
                    b'2' => (GET_LEN, REPLY),
                    _ => (SET_LEN, OK),
                };
                self.replies.extend_from_slice(reply);
                rest = rest.get(len..).unwrap_or_default();
            }
            self.exchange.written(link, count, self.now);
            for read in self.replies.chunks(64 * 1024) {
                let taken = self.exchange.link_bytes(link, black_box(read), self.now);
                taken.expect("as many replies as requests");
            }
            asked |= count > 0;
        }
        asked
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

/// Measures turns at pipeline depths 1, 16 and 100.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("exchange");
    let modes = [
        ("replica", Reads::Replicas),
        ("own-writes", Reads::OwnWrites),
        ("master", Reads::Master),
    ];
    for (name, reads) in modes {
        for depth in [1_usize, 16, 100] {
            let sets = (0..REQUEST_SETS).map(|set| requests(depth, set * depth));
            let requests: Vec<_> = sets.collect();
            let mut turn = Turn::new(reads);
            let depth_u64 = u64::try_from(depth).expect("small");
            group.throughput(Throughput::Elements(CLIENTS * depth_u64));
            group.bench_function(format!("turn/{name}/pipeline {depth}"), |b| {
                b.iter(|| turn.run(&requests));
            });
        }
    }
    group.finish();
}
