//! Floor 0. The words of the domain: addresses, names, counters, time, secrets.
//! Knows parsing and printing of these words, and nothing of what is done with them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::ops::Add;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// How connections of Switchman are called at nodes (`CLIENT SETNAME`).
pub const CONNECTION_NAME: &[u8] = b"switchman";

/// A moment, as the time that has passed since the process started.
///
/// Pure modules know no clock: the shell reads it once per readiness event and hands the result in.
/// Nanoseconds in 64 bits reach 584 years and keep what is stored per command small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the process.
    pub const ZERO: Self = Self(0);

    /// The moment `since_start` after the start of the process.
    pub fn from_start(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }

    /// Time passed since the start of the process.
    pub const fn since_start(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// Time passed since `earlier`, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, rest: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rest)))
    }
}

/// The duration in nanoseconds, at most `u64::MAX` of them.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a listener is to the clients that come by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListenerRole {
    /// A master; replicas may serve what only reads.
    #[default]
    Split,
    /// A master that serves everything itself.
    Master,
    /// A replica: it refuses what writes.
    Replica,
}

impl ListenerRole {
    /// Each once.
    pub const ALL: [Self; 3] = [Self::Split, Self::Master, Self::Replica];

    /// As it is written in the configuration and shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Master => "master",
            Self::Replica => "replica",
        }
    }
}

/// Number of a published topology snapshot; each new snapshot of a group has the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u64);

impl Generation {
    /// The generation of the snapshot with which a group starts, before anything is known.
    pub const FIRST: Self = Self(0);

    /// The generation `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The bare number, for logs and metrics.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Sentinel's `config-epoch`: the version of the mapping from a master's name to its address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigEpoch(u64);

impl ConfigEpoch {
    /// The epoch `number`.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The bare number, for logs and metrics.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Name under which Sentinel monitors a master, such as `mymaster`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterName(Arc<str>);

impl MasterName {
    /// The name `name`; any text that Sentinel accepts.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MasterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Host (name, IPv4 or IPv6 address without brackets) and port of a Redis node or a Sentinel.
///
/// Cheap to clone. Names are resolved at each connection, never here.
#[derive(Clone, Eq)]
pub struct NodeAddr {
    host: Arc<str>,
    port: u16,
    /// The host again, where it is an IP address: addresses are compared with each other often.
    ip: Option<IpAddr>,
}

/// As if derived, only that numbers, which mostly differ, are looked at first, and no letters where
/// both are copies of one.
impl PartialEq for NodeAddr {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
            && self.ip == other.ip
            && (Arc::ptr_eq(&self.host, &other.host) || self.host == other.host)
    }
}

/// IP addresses, by number, before names.
impl Ord for NodeAddr {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_letters = || {
            let same = Arc::ptr_eq(&self.host, &other.host);
            let letters = || self.host.cmp(&other.host);
            if same { Ordering::Equal } else { letters() }
        };
        let named = self.ip.is_none().cmp(&other.ip.is_none());
        let by_host = named.then(self.ip.cmp(&other.ip)).then_with(by_letters);
        by_host.then(self.port.cmp(&other.port))
    }
}

impl PartialOrd for NodeAddr {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for NodeAddr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.port.hash(state);
    }
}

/// A text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeAddrError {
    /// No host before the colon.
    #[error("{0:?} has no host; write host:port")]
    NoHost(String),
    /// No colon, or no number from 1 to 65535 behind it.
    #[error("{0:?} has no port from 1 to 65535; write host:port")]
    NoPort(String),
}

impl NodeAddr {
    /// The address `host`:`port`, or `None` where Sentinel said "I do not know": no host, or port
    /// 0.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let known = !host.is_empty() && port != 0;
        known.then(|| Self {
            host: Arc::from(host),
            port,
            ip: host.parse().ok().map(|ip: IpAddr| ip.to_canonical()),
        })
    }

    /// Host name or IP address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host if it is an IP address, and not a name; one of IPv4 inside IPv6 is one of IPv4.
    pub const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The same as a list of none or one.
    pub const fn ips(&self) -> &[IpAddr] {
        self.ip.as_slice()
    }

    /// TCP port, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Reads `host:port`, taking `default_port` where no port is written.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Self, NodeAddrError> {
        let no_port = || NodeAddrError::NoPort(text.to_owned());
        let bare_v6 = text.matches(':').count() > 1 && !text.starts_with('[');
        let (host, port) = match text.rsplit_once(':') {
            _ if bare_v6 => (text, default_port.ok_or_else(no_port)?),
            Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => {
                (text, default_port.ok_or_else(no_port)?)
            }
            Some((host, port)) => (host, port.parse().map_err(|_| no_port())?),
            None => (text, default_port.ok_or_else(no_port)?),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(NodeAddrError::NoHost(text.to_owned()));
        }
        Self::new(host, port).ok_or_else(no_port)
    }
}

impl FromStr for NodeAddr {
    type Err = NodeAddrError;

    fn from_str(text: &str) -> Result<Self, NodeAddrError> {
        Self::parse(text, None)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A password. Never printed; `Debug` shows a placeholder.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a password into custody.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The password itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// User and password with which Switchman itself logs in to a node or a Sentinel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// ACL user; `None` is the `default` user (`AUTH password`).
    pub username: Option<Arc<str>>,
    /// Its password.
    pub password: Secret,
}

/// `INFO replication`, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// Whether it is a master.
    pub is_master: bool,
    /// `master_replid`: the history that it writes or follows.
    pub id: String,
    /// Bytes of that history that it has applied (`master_repl_offset` of a master,
    /// `slave_repl_offset` of a replica).
    pub offset: u64,
    /// `master_replid2`: the history that it left when it was promoted.
    pub left: String,
    /// `second_repl_offset`: the first byte of that one which it does not have.
    pub left_at: Option<u64>,
}

/// Version of the Redis serialization protocol that a connection speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// RESP2, with which every connection starts.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// The version as `HELLO` takes it.
    pub const fn version(self) -> &'static [u8] {
        match self {
            Self::Resp2 => b"2",
            Self::Resp3 => b"3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let check = |text: &str, want: &str| {
            assert_eq!(
                NodeAddr::parse(text, Some(26379)).unwrap().to_string(),
                want,
                "{text}"
            );
        };
        check("redis-1:6379", "redis-1:6379");
        check("redis-1", "redis-1:26379");
        check("10.0.0.1:7", "10.0.0.1:7");
        check("[::1]:7", "[::1]:7");
        check("[::1]", "[::1]:26379");
        check("::1", "[::1]:26379");
    }

    #[test]
    fn addresses_are_in_the_order_of_their_numbers_and_names_come_last() {
        let mut addrs: Vec<NodeAddr> = [
            "redis-2:6379",
            "10.0.0.10:6379",
            "redis-10:6379",
            "10.0.0.9:6380",
            "[::1]:6379",
            "10.0.0.9:6379",
        ]
        .map(|text| text.parse().unwrap())
        .to_vec();
        addrs.sort();
        let texts: Vec<_> = addrs.iter().map(ToString::to_string).collect();
        let want = [
            "10.0.0.9:6379",
            "10.0.0.9:6380",
            "10.0.0.10:6379",
            "[::1]:6379",
            "redis-10:6379",
            "redis-2:6379",
        ];
        assert_eq!(texts, want);
        // Two spellings of one IP are two addresses, but one spelling is one however it came here.
        let [plain, inside, again] = ["10.0.0.9:1", "[::ffff:10.0.0.9]:1", "10.0.0.9:1"]
            .map(|text| text.parse::<NodeAddr>().unwrap());
        assert_ne!(plain, inside);
        assert_ne!(plain.cmp(&inside), Ordering::Equal);
        assert_eq!(plain.cmp(&again), Ordering::Equal);
        assert_eq!(plain, again);
    }

    #[test]
    fn broken_addresses_say_what_is_missing() {
        for text in [
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "::1",
            "[::1]",
        ] {
            assert!(
                matches!(NodeAddr::parse(text, None), Err(NodeAddrError::NoPort(_))),
                "{text}"
            );
        }
        assert!(matches!(
            NodeAddr::parse(":1", None),
            Err(NodeAddrError::NoHost(_))
        ));
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }
}
