//! Which servers are in the `PATH`: Redis or Valkey, and since which version they have something.
//! Tests are written for Redis 7.0; here stands what they ask before they expect it of others.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::LazyLock;

use switchman::demo::client::Client;
use switchman::demo::process::{Process, wait_for};

use crate::lab::tell;
use crate::lab::{SOON, say};

/// As the server program tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    is_valkey: bool,
    number: (u32, u32),
}

static SERVER: LazyLock<Version> = LazyLock::new(|| {
    let told = Command::new("redis-server").arg("--version").output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    Version::read(&told).unwrap_or_else(|| panic!("no version in {told:?}"))
});

impl Version {
    /// That of the servers in the `PATH`.
    pub(crate) fn of_server() -> &'static Self {
        &SERVER
    }

    fn read(told: &str) -> Option<Self> {
        let (family, rest) = told.split_once(" server v=")?;
        let mut numbers = rest.split('.').map(str::parse);
        let number = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self {
            is_valkey: family.eq_ignore_ascii_case("valkey"),
            number,
        })
    }

    /// Whether it has what Redis has since `number`, which is at most 7.2: there Valkey begins.
    pub(crate) fn has_that_of_redis(&self, number: (u32, u32)) -> bool {
        self.is_valkey || self.number >= number
    }

    /// Whether it is Valkey, 9 or later.
    pub(crate) fn is_valkey_since_9(&self) -> bool {
        self.is_valkey && self.number >= (9, 0)
    }

    /// Whether it is Redis, of `number`.
    pub(crate) fn is_redis(&self, number: (u32, u32)) -> bool {
        !self.is_valkey && self.number == number
    }
}

/// Whether the servers are of the time before Redis 7.0: without functions, sharded channels and
/// `SENTINEL DEBUG`, with other words for errors.
pub(crate) fn is_before_7() -> bool {
    !Version::of_server().has_that_of_redis((7, 0))
}

/// Whether the servers lack `what`, which came with Redis 7.0; the test is skipped then, and says
/// so.
pub(crate) fn lacks(what: &str) -> bool {
    if is_before_7() {
        println!("skipped: these servers have no {what}");
    }
    is_before_7()
}

/// The lines of a configuration by which a node takes `DEBUG`. Before Redis 7.0 every node does.
pub(crate) fn debug_lines() -> Vec<String> {
    if is_before_7() {
        return Vec::new();
    }
    vec!["enable-debug-command yes".to_owned()]
}

/// The line of a configuration by which a server connects to others from `addr`. Before Redis 7.0
/// that is the first address at which it listens.
pub(crate) fn source_line(addr: IpAddr) -> String {
    if is_before_7() {
        return format!("bind {addr} 127.0.0.1");
    }
    format!("bind-source-addr {addr}")
}

/// Whether a bare server loses the reply to a failed login behind others that are not written yet
/// (Redis issue 15640): Redis 8.0 and Valkey 8 do.
pub(crate) fn loses_logins(addr: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
        .write_all(b"PING\r\nAUTH nobody wrong\r\nQUIT\r\n")
        .unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("+OK\r\n"), "{told}");
    !told.contains("-WRONGPASS ")
}

/// Waits until Switchman knows from an old master that it is one. It has the words of younger ones
/// until then.
pub(crate) fn wait_for_words(client: &mut Client) {
    if !is_before_7() {
        return;
    }
    let known = wait_for(SOON, || {
        let told = say(client, &["CLIENT", "SETNAME"]);
        (!told.error()?.contains('|')).then_some(())
    });
    assert!(known.is_some(), "never the words of this server");
}

/// Rights to all but `CLIENT KILL`. Before Redis 7.0, no subcommand can be taken away alone.
pub(crate) fn all_but_client_kill() -> &'static str {
    if is_before_7() {
        "+@all -client +client|list +client|id"
    } else {
        "+@all -client|kill"
    }
}

/// Sets one of the times by which a Sentinel lives, such as `INFO-PERIOD`. Before Redis 7.0 they
/// are fixed, and it takes longer to notice something.
pub(crate) fn set_period(sentinel: &Process, name: &str, millis: &str) {
    if !is_before_7() {
        tell(sentinel, &["SENTINEL", "DEBUG", name, millis]);
    }
}

#[test]
fn versions_are_read_of_what_servers_tell() {
    let read = |told: &str| Version::read(told).unwrap();
    let old = read("Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64");
    assert!(!old.has_that_of_redis((7, 0)) && old.has_that_of_redis((6, 2)));
    assert!(old.is_redis((6, 2)) && !old.is_redis((7, 0)));
    let valkey = read("Valkey server v=9.1.2 sha=00000000:0 malloc=jemalloc-5.3.1");
    assert!(valkey.has_that_of_redis((7, 2)) && valkey.is_valkey_since_9());
    assert_eq!(Version::read("bash: redis-server: not found"), None);
}
