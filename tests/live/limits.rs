//! Clients that go to each limit of what a client may ask, and beyond it. They hear what a bare
//! Redis says, byte for byte, and meet the same end; meanwhile another client goes about its
//! business, and memory stays small.

use std::collections::HashSet;
use std::fmt::Debug;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply, encode_command};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::hostile::before_liar;
use crate::lab::{Door, Lab, SOON, ok, say};
use crate::liar::{Liar, Then};
use crate::order::allow_open_files;
use crate::proxy::{Launch, Proxy};
use crate::version::{Version, loses_logins};
use crate::vitals::Vitals;

const MIB: u64 = 1024 * 1024;

/// The longest line without its end, that end not counted.
const LINE: usize = 65_536;

/// Clients that do the same at once.
const CROWD: usize = 200;

/// What the other client has done before the first misdeed, and does again behind the last.
const BUSINESS: u64 = 50;

/// The password of a deployment that has one.
const PASSWORD: &str = "right";

/// What both servers answer to the same misdeeds, which must be equal. Switchman's memory never
/// grows by `growth`.
fn both<T: PartialEq + Debug>(
    (lab, launch): (&Lab, &Launch),
    growth: u64,
    misdeeds: impl Fn(&Door) -> T,
) {
    let redis = Door {
        name: "redis",
        addr: lab.node(0).addr(),
    };
    let want = misdeeds(&redis);
    lab.node(0).command(&["FLUSHALL"]).ok();
    let proxy = launch.start();
    proxy.wait_ready();
    let got = beside_another(&proxy, growth, misdeeds);
    assert_eq!(got, want);
}

/// Runs `misdeeds` with a Switchman that serves another client all the time.
fn beside_another<T>(proxy: &Proxy, growth: u64, misdeeds: impl FnOnce(&Door) -> T) -> T {
    let door = Door {
        name: "switchman",
        addr: proxy.addr(),
    };
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let go_on = |from: u64| {
        let more = wait_for(4 * SOON, || {
            (done.load(Ordering::Relaxed) >= from + BUSINESS).then_some(())
        });
        assert!(more.is_some(), "the other client does not go on");
    };
    thread::scope(|scope| {
        let _when_over = Stop(&stop);
        let other = scope.spawn(|| business(&door, &stop, &done));
        go_on(0);
        let before = Vitals::of(proxy.pid());
        let result = misdeeds(&door);
        let after = Vitals::of(proxy.pid());
        go_on(done.load(Ordering::Relaxed));
        stop.store(true, Ordering::Relaxed);
        let slowest = other.join().unwrap();
        let grown = after.resident_max.saturating_sub(before.resident);
        println!(
            "grown by {} of {} KiB at most to {} KiB; {} commands of another client, the slowest \
             in {slowest:?}",
            grown / 1024,
            growth / 1024,
            after.resident_max / 1024,
            done.load(Ordering::Relaxed),
        );
        assert!(grown < growth, "{before:?}\n{after:?}");
        result
    })
}

/// Ends the other client's business, though a test fail.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Every reply as it must be, over shared connections and one of its own; returns the longest wait.
fn business(door: &Door, stop: &AtomicBool, done: &AtomicU64) -> Duration {
    let mut client = Client::connect(door.addr, 2 * SOON).unwrap();
    // What is answered by Switchman may come before it knows that there is a password.
    if say(&mut client, &["GET", "bystander"]).error().is_some() {
        ok(&mut client, &["AUTH", PASSWORD]);
    }
    let mut slowest = Duration::ZERO;
    for round in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let value = round.to_string();
        ok(&mut client, &["SET", "bystander", &value]);
        assert_eq!(say(&mut client, &["GET", "bystander"]), Reply::bulk(&value));
        if round % 10 == 0 {
            ok(&mut client, &["WATCH", "bystander"]);
            ok(&mut client, &["MULTI"]);
            let queued = Reply::Simple("QUEUED".to_owned());
            assert_eq!(say(&mut client, &["INCR", "bystander"]), queued);
            let done = Reply::Array(vec![Reply::Int(round + 1)]);
            assert_eq!(say(&mut client, &["EXEC"]), done);
        }
        done.fetch_add(2, Ordering::Relaxed);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

/// A connection on which the test says and hears bytes.
fn wire(door: &Door) -> TcpStream {
    let stream = TcpStream::connect(door.addr).unwrap();
    stream.set_read_timeout(Some(12 * SOON)).unwrap();
    stream.set_write_timeout(Some(12 * SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn command<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(args, &mut bytes);
    bytes
}

/// Everything that is heard until the other side closes.
fn heard(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return all,
            Err(error) => panic!("still open after {}: {error}", shown(&all)),
        }
    }
}

/// What a new client hears that says `words` and is closed then.
fn answer(door: &Door, words: &[u8]) -> Vec<u8> {
    let mut stream = wire(door);
    stream.write_all(words).unwrap();
    heard(&mut stream)
}

/// Bytes for people, the beginning of them.
fn shown(bytes: &[u8]) -> String {
    let begin = bytes.get(..200).unwrap_or(bytes);
    format!("{} ({} bytes)", begin.escape_ascii(), bytes.len())
}

/// Announcements that are odd or too large. Those that Redis does not mind are followed by more.
const ODD: &[&str] = &[
    "*2147483648\r\n",
    "*99999999999999999999\r\n",
    "*9223372036854775808\r\n",
    "*-9223372036854775808\r\n",
    "*-9223372036854775809\r\n",
    "*-2147483649\r\n",
    "*-2\r\n",
    "*-1\r\n",
    "*0\r\n",
    "*-0\r\n",
    "*00\r\n",
    "*01\r\n",
    "*+1\r\n",
    "* 1\r\n",
    "*1 \r\n",
    "*\r\n",
    "*0x1\r\n",
    "*1.0\r\n",
    "*1\r\n$536870913\r\n",
    "*1\r\n$2147483648\r\n",
    "*1\r\n$9223372036854775807\r\n",
    "*1\r\n$99999999999999999999\r\n",
    "*1\r\n$-1\r\n",
    "*1\r\n$-9223372036854775808\r\n",
    "*1\r\n$00\r\n",
    "*1\r\n$04\r\nPING\r\n",
    "*1\r\n$+4\r\nPING\r\n",
    "*1\r\n$ 4\r\nPING\r\n",
    "*1\r\n$4 \r\nPING\r\n",
    "*1\r\n$\r\n",
    "*1\r\n:4\r\nPING\r\n",
    "*1\r\n*1\r\n$4\r\nPING\r\n",
    "*1\r\n\r\n",
    "*1\r\n\n\r\n",
    "*2\r\n$4\r\nECHO\r\n$536870913\r\n",
    "*2\r\n$4\r\nECHO\r\n$-1\r\n",
    "*2\r\n$4\r\nECHO\r\n+x\r\n",
    "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n",
    "~1\r\n",
    ">1\r\n",
    "$4\r\n",
];

#[test]
fn odd_announcements_are_answered_as_by_redis() {
    let lab = Lab::small();
    both((&lab, &Launch::before(&lab)), 8 * MIB, |door| {
        let hear = |odd: &&str| {
            let words = format!("PING\r\n{odd}PING\r\nQUIT\r\n");
            (
                odd.escape_debug().to_string(),
                shown(&answer(door, words.as_bytes())),
            )
        };
        ODD.iter().map(hear).collect::<Vec<_>>()
    });
}

#[test]
fn a_line_without_an_end_is_answered_as_by_redis() {
    let lab = Lab::small();
    both((&lab, &Launch::before(&lab)), 8 * MIB, |door| {
        let mut told = Vec::new();
        for lead in ["x", "*", "*1\r\n$", "*2\r\n$4\r\nECHO\r\n$"] {
            let line_begun = lead.rsplit('\n').next().unwrap_or_default().len();
            let digits = "1".repeat(LINE - line_begun);
            // One byte more than is waited with.
            let words = format!("PING\r\n{lead}{digits}1");
            told.push(shown(&answer(door, words.as_bytes())));
            // As many as are waited with: the end is still to come.
            let mut stream = wire(door);
            let words = format!("PING\r\n{lead}{digits}");
            stream.write_all(words.as_bytes()).unwrap();
            let mut pong = [0; 7];
            stream.read_exact(&mut pong).unwrap();
            stream.write_all(b"\r\nQUIT\r\n").unwrap();
            told.push(shown(&heard(&mut stream)));
        }
        told
    });
}

#[test]
fn more_arguments_than_switchman_takes_are_too_many() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    proxy.wait_ready();
    beside_another(&proxy, 8 * MIB, |door| {
        let told = answer(door, b"PING\r\n*1048577\r\n$4\r\nPING\r\n");
        let want = b"+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n";
        assert_eq!(shown(&told), shown(want));
    });
}

/// What may not be said before a login, and what may.
const BEFORE_LOGIN: &[&str] = &[
    "HELLO\r\n",
    "HELLO 3 SETNAME a\r\n",
    "*11\r\n",
    "*1048576\r\n",
    "*2147483648\r\n",
    "*-1\r\n",
    "*2\r\n$16385\r\n",
    "*2\r\n$536870912\r\n",
    "*2\r\n$536870913\r\n",
    "*2\r\n$-1\r\n",
    "*2\r\n$4\r\nAUTH\r\n$16385\r\n",
    "*2\r\n$4\r\nAUTH\r\n$5\r\nright\r\n*11\r\n$3\r\nDEL\r\n",
    "*2\r\n$4\r\nAUTH\r\n$5\r\nwrong\r\n*11\r\n$3\r\nDEL\r\n",
];

#[test]
fn little_may_be_said_before_a_login() {
    let plan = Plan {
        password: Some(PASSWORD.to_owned()),
        ..Lab::small_plan()
    };
    let lab = Lab::start(&plan);
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_PASSWORD", PASSWORD);
    let loses_logins = loses_logins(lab.node(0).addr());
    both((&lab, &launch), 48 * MIB, |door| {
        let mut told = Vec::new();
        for words in BEFORE_LOGIN {
            if loses_logins && words.contains("wrong") {
                continue;
            }
            let logs_in = words.contains("right");
            let rest = if logs_in {
                "$1\r\nk\r\n".repeat(10)
            } else {
                String::new()
            };
            let words = format!("PING\r\n{words}{rest}QUIT\r\n");
            told.push(shown(&answer(door, words.as_bytes())));
        }
        // As much as may be: each client ten arguments of 16 KiB, all of them at once.
        let argument = "k".repeat(16_384);
        let mut most = vec!["DEL"];
        most.resize(10, &argument);
        let most = command(&most);
        let (last, front) = most.split_last().unwrap();
        let begin = |_| {
            let mut stream = wire(door);
            stream.write_all(b"PING\r\n").unwrap();
            stream.write_all(front).unwrap();
            stream
        };
        let mut streams: Vec<TcpStream> = (0..CROWD).map(begin).collect();
        for stream in &mut streams {
            stream.write_all(&[*last]).unwrap();
            stream.write_all(b"QUIT\r\n").unwrap();
            told.push(shown(&heard(stream)));
        }
        told
    });
}

#[test]
fn what_is_announced_and_does_not_come_costs_nothing() {
    allow_open_files(4_000);
    let lab = Lab::small();
    let halves: [&[u8]; 4] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nand no more",
        b"*2\r\n$3\r\nGET\r\n$536870912\r\nand no more",
        b"*1\r\n$536870912\r\n",
        b"*1048576\r\n$4\r\nMGET\r\n$1\r\nk\r\n",
    ];
    for half in halves {
        println!("{} times {}", CROWD, half.escape_ascii());
        both((&lab, &Launch::before(&lab)), 16 * MIB, |door| {
            let begin = |_| {
                let mut stream = wire(door);
                stream.write_all(b"PING\r\n").unwrap();
                stream.write_all(half).unwrap();
                let mut pong = [0; 7];
                stream.read_exact(&mut pong).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            };
            let mut streams: Vec<TcpStream> = (0..CROWD).map(begin).collect();
            let mut client = door.client();
            let there = wait_for(2 * SOON, || {
                let list = say(&mut client, &["CLIENT", "LIST"]).text()?;
                (listed(&list, &streams) == CROWD).then_some(())
            });
            // Nobody has heard more, nor been closed.
            let waits = |stream: &mut TcpStream| {
                let read = stream.read(&mut [0; 16]);
                read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            };
            let waiting = streams.iter_mut().filter_map(|it| waits(it).then_some(()));
            (there.is_some(), waiting.count())
        });
    }
}

/// How many of these connections a list of clients has.
fn listed(list: &str, streams: &[TcpStream]) -> usize {
    let addrs = list
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("addr="));
    let there: HashSet<&str> = addrs.collect();
    let own = streams
        .iter()
        .map(|stream| stream.local_addr().unwrap().to_string());
    own.filter(|addr| there.contains(addr.as_str())).count()
}

#[test]
fn a_million_arguments_are_one_command() {
    let lab = Lab::small();
    both((&lab, &Launch::before(&lab)), 64 * MIB, |door| {
        let keys: Vec<String> = (0..1_048_575).map(|key| format!("m:{key}")).collect();
        let with = |name: &str, args: usize| {
            let mut all = vec![name];
            all.extend(keys.iter().take(args).map(String::as_str));
            command(&all)
        };
        let mut told = Vec::new();
        for (name, args) in [
            ("MSET", 1_000_000),
            ("MGET", 1_000_000),
            ("NOSUCH", 1_000_000),
            ("DEL", 1_048_575),
        ] {
            let began = Instant::now();
            let words = [with(name, args), command(&["QUIT"])].concat();
            let answer = answer(door, &words);
            println!("{}: {name} of {args} in {:?}", door.name, began.elapsed());
            told.push((name, shown(&answer), sum(&answer)));
        }
        told
    });
}

/// Something that differs where bytes differ.
fn sum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| sum.wrapping_mul(31).wrapping_add(u64::from(*byte));
    bytes.iter().fold(7, step)
}

#[test]
fn a_hundred_thousand_commands_may_be_sent_before_a_reply_is_read() {
    const DEPTH: usize = 100_000;
    let lab = Lab::small();
    both((&lab, &Launch::before(&lab)), 16 * MIB, |door| {
        let (mut words, mut want) = (Vec::new(), Vec::new());
        for number in 1..=DEPTH / 4 {
            for args in [
                &["INCR", "n"][..],
                &["GET", "n"],
                &["ECHO", "n"],
                &["LLEN", "n"],
            ] {
                encode_command(args, &mut words);
            }
            let digits = number.to_string();
            let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
            want.extend(
                format!(
                    ":{number}\r\n${}\r\n{number}\r\n$1\r\nn\r\n{wrong}\r\n",
                    digits.len()
                )
                .bytes(),
            );
        }
        words.extend(command(&["QUIT"]));
        want.extend(b"+OK\r\n");
        let told = answer(door, &words);
        assert!(told == want, "{}: {}", door.name, shown(&told));
    });
}

/// A script whose reply is an array in an array, and so on.
const NEST: &str = "local t = {1} for _ = 2, tonumber(ARGV[1]) do t = {t} end return t";

#[test]
fn replies_may_be_nested_ten_thousand_deep() {
    let lab = Lab::small();
    both((&lab, &Launch::before(&lab)), 16 * MIB, |door| {
        let mut told = Vec::new();
        for depth in ["5", "1000", "7000", "10000"] {
            let eval = command(&["EVAL", NEST, "0", depth]);
            let inside = [command(&["MULTI"]), eval.clone(), command(&["EXEC"])].concat();
            for words in [&eval, &inside] {
                let quit = command(&["PING", "end"]);
                let answer = answer(door, &[words.as_slice(), &quit, b"QUIT\r\n"].concat());
                told.push((depth, shown(&answer), sum(&answer)));
            }
        }
        told
    });
}

/// The scripts of Redis end at 8 000 (`LUAI_MAXCSTACK`, "reached lua stack limit" is all that they
/// say below), so that only an invented node goes deeper.
#[test]
fn replies_of_any_depth_pass() {
    let lab = Lab::small();
    let nested = |args: &[String]| {
        let depth: usize = args[1].parse().unwrap();
        [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat()
    };
    let liar = Liar::start(move |args, _| match args[0].as_str() {
        "GET" if args[1] != "bystander" => (nested(args), Then::Stay),
        _ => (b"+OK\r\n".to_vec(), Then::Stay),
    });
    let proxy = before_liar(&lab, &liar);
    let before = Vitals::of(proxy.pid());
    for depth in [10_000, 1_000_000] {
        let words = [command(&["GET", &depth.to_string()]), command(&["QUIT"])].concat();
        let door = Door {
            name: "switchman",
            addr: proxy.addr(),
        };
        let told = answer(&door, &words);
        let want = [b"*1\r\n".repeat(depth), b":1\r\n+OK\r\n".to_vec()].concat();
        assert!(told == want, "{}", shown(&told));
    }
    let after = Vitals::of(proxy.pid());
    println!("{before:?}\n{after:?}");
    assert!(after.resident_max < before.resident + 16 * MIB);
}

#[test]
fn a_subscriber_too_slow_for_its_messages_is_closed_and_not_left_with_a_gap() {
    // Twice of what the server keeps for a subscriber (client-output-buffer-limit).
    const MESSAGES: usize = 600;
    if Version::of_server().is_valkey_since_9() {
        println!("skipped: these servers do not count what several replies share");
        return;
    }
    let lab = Lab::small();
    let filling = "x".repeat(100_000);
    both((&lab, &Launch::before(&lab)), 48 * MIB, |door| {
        let mut slow = door.client();
        say(&mut slow, &["SUBSCRIBE", "c"]);
        let mut publisher = Client::connect(door.addr, 4 * SOON).unwrap();
        let mut hearers = Vec::new();
        for number in 0..MESSAGES {
            let text = format!("{number} {filling}");
            hearers.push(say(&mut publisher, &["PUBLISH", "c", &text]));
        }
        let mut expected = 0;
        while let Ok(message) = slow.receive() {
            let text = message.items()[2].text().unwrap();
            let (number, _) = text.split_once(' ').unwrap();
            assert_eq!(number, expected.to_string(), "{}", door.name);
            expected += 1;
        }
        println!("{}: {expected} messages of {MESSAGES}", door.name);
        let left = hearers
            .iter()
            .take_while(|it| **it == Reply::Int(1))
            .count();
        let rest = &hearers[left..];
        (
            expected < MESSAGES,
            (1..MESSAGES).contains(&left),
            rest.iter().all(|it| *it == Reply::Int(0)),
            slow.command(&["PING"]).is_err(),
        )
    });
}
