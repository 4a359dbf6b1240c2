//! Much of everything: values that are larger than the memory they pass in, as many idle clients
//! as open files allow, a thousand transactions a second. `make size` has it all; `make test` has a
//! little of each.
//!
//! `SWITCHMAN_VALUE_MIB`, `SWITCHMAN_VALUE_ROUNDS`, `SWITCHMAN_IDLE_CLIENTS` and
//! `SWITCHMAN_TRANSACTION_SECONDS` say how much.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use switchman::demo::client::{Client, Reply, encode_command};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::hostile::metric;
use crate::lab::{Lab, SOON, ok, say};
use crate::listeners::{SECTIONS, listener, wait_for_replica};
use crate::order::allow_open_files;
use crate::proxy::{Launch, Proxy};
use crate::routing::calls;
use crate::subscribers::number;
use crate::vitals::Vitals;

const MIB: usize = 1024 * 1024;

/// What a proxy may use in all while large values pass.
const RESIDENT_MAX: u64 = 64_000_000;

/// What an idle client may cost.
const IDLE_MAX: u64 = 3 * 1024;

/// Time for anything large.
const LONG: Duration = Duration::from_secs(120);

/// Clients with small commands beside a large value, and how often each has one.
const SMALL_CLIENTS: usize = 4;
const SMALL_EVERY: Duration = Duration::from_millis(1);

/// Ways of a large value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Set,
    GetFromMaster,
    /// Of a key that Switchman has not seen before.
    GetUnseenFromMaster,
    GetFromReplica,
}

impl Way {
    const ALL: [Self; 4] = [
        Self::Set,
        Self::GetFromMaster,
        Self::GetUnseenFromMaster,
        Self::GetFromReplica,
    ];
}

/// Where the three ways begin: at the nodes, or at listeners of Switchman.
struct Doors {
    name: &'static str,
    master: SocketAddr,
    replica: SocketAddr,
}

#[test]
fn a_value_passes_both_ways_in_little_memory() {
    let size = number("SWITCHMAN_VALUE_MIB", 128) * MIB;
    let rounds = number("SWITCHMAN_VALUE_ROUNDS", 1);
    let lab = Lab::alone(&Plan {
        node_config: vec!["client-output-buffer-limit replica 0 0 0".to_owned()],
        ..Lab::small_plan()
    });
    let mut launch = Launch::group(&lab, SECTIONS);
    // A node with a large value in hand on a busy machine is slow, and is to serve all the same.
    let patient = "[upstream]\nsuspect-after = \"10s\"\n";
    let proxy = launch.config(patient).start();
    proxy.wait_ready();
    let through = Doors {
        name: "switchman",
        master: listener(&proxy, "master"),
        replica: listener(&proxy, "replica"),
    };
    let direct = Doors {
        name: "direct",
        master: lab.node(0).addr(),
        replica: lab.node(1).addr(),
    };
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    wait_for_replica(&lab, &mut Client::connect(through.replica, SOON).unwrap());
    let piece: Vec<u8> = (0..MIB).map(|_| fastrand::u8(..)).collect();
    for way in Way::ALL {
        let mut waits = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (doors, waits) in [&direct, &through].into_iter().zip(&mut waits) {
                waits.extend(pass((&lab, &proxy), way, doors, (&piece, size)));
            }
        }
        let [direct, through] = waits.map(|waits| centile(&waits, 99));
        let ratio = through.as_secs_f64() / direct.as_secs_f64();
        println!("figures:\t{way:?}: p99 of small commands {through:?}, {ratio:.2} x {direct:?}");
    }
    let vitals = Vitals::of(proxy.pid());
    println!(
        "figures:\tresident memory {} KB at most",
        vitals.resident_max / 1024
    );
    assert!(vitals.resident_max <= RESIDENT_MAX, "{vitals:?}");
}

/// Has a large value pass by one of the ways, and looks whether it arrives, whole, and whence.
/// Returns how long each small command of other clients took meanwhile.
fn pass(
    (lab, proxy): (&Lab, &Proxy),
    way: Way,
    doors: &Doors,
    (piece, size): (&[u8], usize),
) -> Vec<Duration> {
    let node = lab.node(usize::from(way == Way::GetFromReplica));
    let read = calls(node, "get");
    let unseen = format!("unseen:{}", fastrand::u64(..));
    if way == Way::GetUnseenFromMaster {
        rename(lab, "large", &unseen);
    }
    let (took, waits) = beside_small_commands((lab, proxy), || match way {
        Way::Set => put(doors.master, piece, size),
        Way::GetFromMaster => get(doors.master, "large", piece, size),
        Way::GetUnseenFromMaster => get(doors.master, &unseen, piece, size),
        Way::GetFromReplica => get(doors.replica, "large", piece, size),
    });
    if way == Way::GetUnseenFromMaster {
        rename(lab, &unseen, "large");
    }
    lab.wait_in_sync(lab.node(0), 1, LONG).unwrap();
    if way != Way::Set {
        assert_eq!(calls(node, "get"), read + 1, "{way:?}");
    }
    println!(
        "figures:\t{way:?} of {} MiB, {}: {took:.3?}; small commands meanwhile: p50 {:?}, p99 {:?} \
         of {}; resident {} KB, {} KB at most",
        size / MIB,
        doors.name,
        centile(&waits, 50),
        centile(&waits, 99),
        waits.len(),
        Vitals::of(proxy.pid()).resident / 1024,
        Vitals::of(proxy.pid()).resident_max / 1024
    );
    waits
}

fn stream(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn put(addr: SocketAddr, piece: &[u8], size: usize) {
    let mut stream = stream(addr);
    let header = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${size}\r\n");
    stream.write_all(header.as_bytes()).unwrap();
    for _ in 0..size / piece.len() {
        stream.write_all(piece).unwrap();
    }
    stream.write_all(b"\r\n").unwrap();
    expect(&mut stream, b"+OK\r\n");
}

/// At the master itself, so that Switchman does not know.
fn rename(lab: &Lab, key: &str, new: &str) {
    let renamed = lab.node(0).command(&["RENAME", key, new]);
    assert_eq!(renamed.unwrap(), Reply::ok());
}

fn get(addr: SocketAddr, key: &str, piece: &[u8], size: usize) {
    let mut stream = stream(addr);
    stream.write_all(&request(&["GET", key])).unwrap();
    expect(&mut stream, format!("${size}\r\n").as_bytes());
    let mut got = vec![0; piece.len()];
    for at in 0..size / piece.len() {
        stream.read_exact(&mut got).unwrap();
        assert!(got == piece, "piece {at} is not what was sent");
    }
    expect(&mut stream, b"\r\n");
}

fn request(args: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(args, &mut bytes);
    bytes
}

fn expect(stream: &mut TcpStream, want: &[u8]) {
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(
        got.escape_ascii().to_string(),
        want.escape_ascii().to_string()
    );
}

/// Does something large, and returns how long it took and how long each small command of other
/// clients took meanwhile.
fn beside_small_commands(
    (lab, proxy): (&Lab, &Proxy),
    large: impl FnOnce(),
) -> (Duration, Vec<Duration>) {
    let stop = AtomicBool::new(false);
    let mut clients: Vec<_> = (0..SMALL_CLIENTS)
        .map(|_| proxy.patient_client(LONG))
        .collect();
    for client in &mut clients {
        wait_for_small_reads(lab, client);
    }
    thread::scope(|scope| {
        let small: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(at, client)| {
                let (key, stop) = (format!("small:{at}"), &stop);
                scope.spawn(move || small_commands(client, &key, stop))
            })
            .collect();
        let stops = Stop(&stop);
        let began = Instant::now();
        large();
        let took = began.elapsed();
        drop(stops);
        let waits = small.into_iter().flat_map(|each| each.join().unwrap());
        (took, waits.collect())
    })
}

/// Waits until a client's small reads are served by the replica, which is left alone for a while
/// after it has stood still.
fn wait_for_small_reads(lab: &Lab, client: &mut Client) {
    let deadline = Instant::now() + LONG;
    loop {
        let before = calls(lab.node(1), "strlen");
        assert_eq!(say(client, &["STRLEN", "k"]), Reply::Int(1));
        if calls(lab.node(1), "strlen") > before {
            return;
        }
        assert!(Instant::now() < deadline, "the replica serves no reads");
        thread::sleep(SMALL_EVERY);
    }
}

/// Ends the small commands, though a test fail.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A write, then a read of what is settled, and so on.
fn small_commands(client: &mut Client, key: &str, stop: &AtomicBool) -> Vec<Duration> {
    let mut waits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for args in [&["SET", key, "v"][..], &["STRLEN", "k"]] {
            let began = Instant::now();
            let reply = say(client, args);
            let took = began.elapsed();
            waits.push(took);
            // Who waits for a reply sends nothing meanwhile; what it would have sent had waited
            // too. Else it would depend on how many commands came before and after whether one
            // in a hundred has met a node that stands still.
            let mut rest = took;
            while rest > SMALL_EVERY {
                rest -= SMALL_EVERY;
                waits.push(rest);
            }
            assert!(
                matches!(reply, Reply::Simple(_) | Reply::Int(1)),
                "{reply:?}"
            );
            thread::sleep(SMALL_EVERY);
        }
    }
    waits
}

fn centile(waits: &[Duration], centile: usize) -> Duration {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * centile / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// Processes that the idle clients are spread over.
const HERDS: usize = 4;

/// A herd's environment: where, and how many.
const HERD: &str = "SWITCHMAN_HERD";

/// What a herd says when all its clients are there.
const ALL_THERE: &str = "all there";

/// The value that each idle client has read before.
const BLOB: usize = MIB;

#[test]
fn idle_clients_cost_little_memory_each() {
    let allowed = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX) - 1_000;
    let wanted = number("SWITCHMAN_IDLE_CLIENTS", 2_000);
    let count = wanted.min(usize::try_from(allowed).unwrap()) / HERDS * HERDS;
    let lab = Lab::alone(&Lab::small_plan());
    let last = (BLOB - 1).to_string();
    let set = lab.node(0).command(&["SETRANGE", "blob", &last, "x"]);
    assert_eq!(set.unwrap().int(), i64::try_from(BLOB).ok());
    let mut launch = Launch::before(&lab);
    // Connections to nodes need files too, and these clients need few.
    launch.env("SWITCHMAN_UPSTREAM_MAX_LEASED", "256");
    let proxy = launch.start();
    proxy.wait_ready();
    // What is paid once.
    drop(Herd::bring(&proxy, 8).and_all_there());
    assert!(connected(&proxy, 0).is_some(), "the first herd stays");
    let before = Vitals::of(proxy.pid());
    let herds: Vec<Herd> = (0..HERDS)
        .map(|_| Herd::bring(&proxy, count / HERDS))
        .collect();
    let herds: Vec<Herd> = herds.into_iter().map(Herd::and_all_there).collect();
    let count = u64::try_from(count).unwrap();
    let there = connected(&proxy, count);
    assert!(there.is_some(), "of {count}: {:?}", clients(&proxy));
    let each = || {
        (Vitals::of(proxy.pid())
            .resident
            .saturating_sub(before.resident))
            / count
    };
    println!(
        "figures:\t{count} idle clients: {} bytes each, at once",
        each()
    );
    // What the last ones have read is given back in a moment.
    let little = wait_for(2 * SOON, || Some(each()).filter(|each| *each <= IDLE_MAX));
    println!(
        "figures:\t{count} idle clients of {HERDS} processes: {} bytes each, {} KB in all",
        each(),
        Vitals::of(proxy.pid()).resident / 1024
    );
    assert!(little.is_some(), "{} bytes each", each());
    drop(herds);
}

fn clients(proxy: &Proxy) -> Option<u64> {
    metric(proxy, "switchman_client_connections{")
}

fn connected(proxy: &Proxy, count: u64) -> Option<()> {
    wait_for(4 * SOON, || (clients(proxy)? == count).then_some(()))
}

/// A process of idle clients, which leave when it is dropped.
struct Herd(Child);

impl Herd {
    fn bring(proxy: &Proxy, count: usize) -> Self {
        let herd = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "size::a_herd_of_idle_clients", "--nocapture"])
            .env(HERD, format!("{} {count}", proxy.addr()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(herd.unwrap())
    }

    fn and_all_there(mut self) -> Self {
        let output = BufReader::new(self.0.stdout.take().unwrap());
        let mut lines = output.lines().map_while(Result::ok);
        assert!(
            lines.any(|line| line.ends_with(ALL_THERE)),
            "a herd is lost"
        );
        self
    }
}

impl Drop for Herd {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the processes do that [`idle_clients_cost_little_memory_each`] starts; nothing elsewhere.
#[test]
fn a_herd_of_idle_clients() {
    let Ok(herd) = std::env::var(HERD) else {
        return;
    };
    let (addr, count) = herd.split_once(' ').unwrap();
    let (addr, count): (SocketAddr, usize) = (addr.parse().unwrap(), count.parse().unwrap());
    allow_open_files(u64::try_from(count).unwrap() + 100);
    let mut blob = vec![0; format!("${BLOB}\r\n").len() + BLOB + 2];
    let client = |_| {
        let mut client = stream(addr);
        // Redis 7.0 does not know the second; what it costs is the same.
        for args in [
            &["HELLO", "3"][..],
            &["CLIENT", "SETINFO", "LIB-NAME", "herd"],
            &["PING"],
        ] {
            client.write_all(&request(args)).unwrap();
        }
        let mut words = Vec::new();
        while !words.ends_with(b"+PONG\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            words.push(byte[0]);
        }
        client.write_all(&request(&["GET", "blob"])).unwrap();
        client.read_exact(&mut blob).unwrap();
        assert!(blob.ends_with(b"\0x\r\n"));
        client
    };
    let herd: Vec<TcpStream> = (0..count).map(client).collect();
    println!("{ALL_THERE}");
    // Until whoever has brought it is gone, or has no more need of it.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(herd);
}

/// Transactions of all clients together, in a second.
const TRANSACTIONS: usize = 1_000;

/// Clients of which each has its part of them.
const TRADERS: usize = 8;

#[test]
fn transactions_open_no_connections() {
    let seconds = number("SWITCHMAN_TRANSACTION_SECONDS", 3);
    let lab = Lab::alone(&Lab::small_plan());
    let proxy = lab.proxy();
    proxy.wait_ready();
    let each = seconds * TRANSACTIONS / TRADERS;
    let mut master = lab.node(0).connect().unwrap();
    let mut received = || {
        let stats = say(&mut master, &["INFO", "stats"]);
        let received = stats.info("total_connections_received").unwrap();
        received.parse::<u64>().unwrap()
    };
    let (before, began) = (received(), Instant::now());
    thread::scope(|scope| {
        for trader in 0..TRADERS {
            let mut client = proxy.client();
            scope.spawn(move || trade(&mut client, &format!("n:{trader}"), each));
        }
    });
    let (took, opened) = (began.elapsed(), received() - before);
    println!(
        "figures:\t{} transactions in {took:.1?}: {opened} connections opened to the master",
        each * TRADERS
    );
    assert!(
        opened <= 10,
        "{opened} connections for {} transactions",
        each * TRADERS
    );
    for trader in 0..TRADERS {
        let counted = say(&mut master, &["GET", &format!("n:{trader}")]);
        assert_eq!(counted.text(), Some(each.to_string()));
    }
}

/// Transactions in one piece, command by command, and with a watched key, at an even pace.
fn trade(client: &mut Client, key: &str, count: usize) {
    let began = Instant::now();
    let (multi, incr, exec) = (vec!["MULTI"], vec!["INCR", key], vec!["EXEC"]);
    for number in 0..count {
        let due = SECOND * u32::try_from(number).unwrap() / u32::try_from(PER_TRADER).unwrap();
        thread::sleep(due.saturating_sub(began.elapsed()));
        if number % 3 == 2 {
            ok(client, &["WATCH", key]);
        }
        let replies = if number % 3 == 0 {
            let block = [multi.clone(), incr.clone(), exec.clone()];
            client.pipeline(&block).unwrap()
        } else {
            [&multi, &incr, &exec]
                .map(|line| say(client, line))
                .to_vec()
        };
        let want = i64::try_from(number + 1).unwrap();
        assert_eq!(replies[2], Reply::Array(vec![Reply::Int(want)]));
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// Transactions of one client in a second.
const PER_TRADER: usize = TRANSACTIONS / TRADERS;
