//! Conversations made by chance, held with Redis and with Switchman: what differs is a bug of the
//! latter.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use fastrand::Rng;
use switchman::demo::client::encode_command;

use crate::lab::{Lab, SOON, ok};
use crate::proxy::Launch;
use crate::version::{loses_logins, wait_for_words};

/// Commands without consequences for the session, one of each kind at least.
const PLAIN: [&str; 20] = [
    "SET a 1",
    "SET b x",
    "GET a",
    "GET l",
    "INCR a",
    "INCR b",
    "DEL a",
    "RPUSH l x y",
    "LRANGE l 0 -1",
    "LPOP l",
    "HSET h f v",
    "HGETALL h",
    "DBSIZE",
    "PING",
    "ECHO hey",
    "NOSUCH a b",
    "GET",
    "EXPIRE a 1000",
    "PUBLISH c m",
    "EVAL return{1,{2}} 0",
];

/// What may be said between MULTI and EXEC.
const QUEUED: [&str; 10] = [
    "SELECT 1",
    "SELECT 99",
    "INCR n",
    "GET a",
    "PING",
    "LPUSH l z",
    "WATCH a",
    "MULTI",
    "BLPOP none 0",
    "PUBLISH c m",
];

/// What changes the session, or does not although it looks like it.
const SESSION: [&str; 14] = [
    "SELECT 1",
    "SELECT 0",
    "SELECT 99",
    "HELLO 3",
    "HELLO 2",
    "HELLO 9",
    "RESET",
    "AUTH x",
    FAILED_LOGIN,
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "UNWATCH",
    "DISCARD",
    "EXEC",
];

const FAILED_LOGIN: &str = "AUTH nobody x";

// What of several channels is left at once, each server tells in an order of its own.
const SUBSCRIPTION: [&str; 6] = [
    "SUBSCRIBE c d",
    "PING",
    "GET a",
    "PUBLISH e m",
    "UNSUBSCRIBE c",
    "UNSUBSCRIBE",
];

const LAST_WORD: &str = "last word";

/// One conversation: what is said, and where it is cut into pieces.
struct Conversation {
    lines: Vec<&'static str>,
    bytes: Vec<u8>,
    cuts: Vec<usize>,
}

impl Conversation {
    fn of(seed: u64, loses_logins: bool) -> Self {
        let mut chance = Rng::with_seed(seed);
        let mut lines = Vec::new();
        for _ in 0..chance.usize(1..12) {
            scene(&mut chance, seed.is_multiple_of(4), &mut lines);
        }
        if loses_logins {
            lines.retain(|line| *line != FAILED_LOGIN);
        }
        let mut bytes = Vec::new();
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            encode_command(&words, &mut bytes);
        }
        encode_command(&["ECHO", LAST_WORD], &mut bytes);
        let mut cuts: Vec<usize> = (0..chance.usize(0..4))
            .map(|_| chance.usize(0..bytes.len()))
            .collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        Self { lines, bytes, cuts }
    }

    /// Everything that `addr` answers.
    fn with(&self, addr: SocketAddr) -> String {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        for piece in self.cuts.windows(2) {
            stream.write_all(&self.bytes[piece[0]..piece[1]]).unwrap();
        }
        let end = format!("\r\n{LAST_WORD}\r\n").into_bytes();
        let (mut heard, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
        while !heard.ends_with(&end) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("{error} after {heard:?} of {:?}", self.lines),
            }
        }
        let heard = String::from_utf8(heard).unwrap();
        let mut lines: Vec<&str> = heard.split("\r\n").collect();
        for at in 1..lines.len() {
            if lines[at - 1] == "id" {
                // Of HELLO; every server counts for itself.
                lines[at] = ":";
            }
        }
        lines.join("\n")
    }
}

/// A few lines that belong together. Either there are subscriptions in a conversation, or what a
/// client with subscriptions may not do here.
fn scene(chance: &mut Rng, subscribes: bool, lines: &mut Vec<&'static str>) {
    let mut any = |of: &[&'static str]| *chance.choice(of).unwrap();
    let (plain, more) = (any(&PLAIN), any(&PLAIN));
    let (session, queued) = (any(&SESSION), [any(&QUEUED), any(&QUEUED), any(&QUEUED)]);
    match chance.u8(0..20) {
        0..=4 if !subscribes => lines.push(session),
        5..=7 => {
            if chance.bool() {
                lines.extend(["WATCH a b", plain]);
            }
            lines.push("MULTI");
            lines.extend(queued.into_iter().take(chance.usize(0..4)));
            if chance.u8(0..4) == 0 {
                lines.push("NOSUCH");
            }
            lines.push(if chance.bool() { "EXEC" } else { "DISCARD" });
        }
        8 if subscribes => lines.extend(SUBSCRIPTION),
        9 => lines.extend(["CLIENT REPLY SKIP", plain]),
        10 => lines.extend(["CLIENT REPLY OFF", plain, more, "CLIENT REPLY ON"]),
        _ => lines.push(plain),
    }
}

#[test]
fn conversations_of_chance_are_answered_as_redis_answers_them() {
    let lab = Lab::small();
    let mut launch = Launch::group(&lab, "consistency = \"master\"\n");
    let proxy = launch.arg("--workers", "1").start();
    proxy.wait_ready();
    wait_for_words(&mut proxy.client());
    let mut master = lab.node(0).connect().unwrap();
    let loses_logins = loses_logins(lab.node(0).addr());
    for seed in 0..2000 {
        let conversation = Conversation::of(seed, loses_logins);
        let [redis, switchman] = [lab.node(0).addr(), proxy.addr()].map(|addr| {
            ok(&mut master, &["FLUSHALL"]);
            conversation.with(addr)
        });
        assert_eq!(switchman, redis, "seed {seed}: {:?}", conversation.lines);
    }
}
