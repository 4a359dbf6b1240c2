//! Floor 3. `HELLO`: what a client asks, and the answer, which is the master's own save for the id.

use crate::resp::{ReplyScanner, Request, Scan, encode};
use crate::session::state::{BAD_NAME, is_fine};
use crate::session::{Login, words};
use crate::types::{ListenerRole, Protocol};

/// What a `HELLO` asks, as far as it can be read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HelloRequest {
    /// The version asked for; `None` keeps the present one.
    pub protocol: Option<Protocol>,
    /// `AUTH username password` and `SETNAME name`, as they stand.
    pub steps: Vec<HelloStep>,
    /// What is wrong behind these, in Redis's own words.
    pub objection: Option<Vec<u8>>,
}

/// One option of a `HELLO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelloStep {
    /// `AUTH username password`.
    Login(Login),
    /// `SETNAME name`.
    Name(Box<[u8]>),
}

impl HelloRequest {
    /// Reads the arguments up to the first that is wrong (Redis networking.c, `helloCommand`).
    pub fn read(request: &Request<'_>) -> Self {
        let mut args = request.args().skip(1);
        let mut hello = Self::default();
        let Some(version) = args.next() else {
            return hello;
        };
        match read_version(version) {
            Ok(protocol) => hello.protocol = Some(protocol),
            Err(text) => {
                hello.objection = Some(text.as_bytes().to_vec());
                return hello;
            }
        }
        while let Some(option) = args.next() {
            if words::is(option, "AUTH") && args.len() >= 2 {
                let (username, password) = (args.next(), args.next());
                let login = Login::new(username, password.unwrap_or_default());
                hello.steps.push(HelloStep::Login(login));
            } else if words::is(option, "SETNAME") && args.len() >= 1 {
                let name = Box::from(args.next().unwrap_or_default());
                hello.steps.push(HelloStep::Name(name));
            } else {
                let option = words::c_text(option);
                hello.objection = Some([SYNTAX, option, b"'"].concat());
                break;
            }
        }
        hello
    }

    /// Whether it logs in.
    pub fn has_login(&self) -> bool {
        let login = |step: &HelloStep| matches!(step, HelloStep::Login(_));
        self.steps.iter().any(login)
    }

    /// The same as servers since 7.2 take it: nothing is done where anything is wrong, the last of
    /// several logins and names counts, and the login comes first.
    #[must_use]
    pub fn at_once(self) -> Self {
        let wrong = self.steps.iter().find_map(|step| match step {
            HelloStep::Name(name) if !is_fine(name) => Some(BAD_NAME.as_bytes().to_vec()),
            _ => None,
        });
        let objection = wrong.or(self.objection);
        let steps = if objection.is_some() {
            Vec::new()
        } else {
            let last = |login: bool| {
                let kind = |step: &&HelloStep| matches!(step, HelloStep::Login(_)) == login;
                self.steps.iter().rfind(kind).cloned()
            };
            last(true).into_iter().chain(last(false)).collect()
        };
        Self {
            steps,
            objection,
            ..self
        }
    }
}

const SYNTAX: &[u8] = b"ERR Syntax error in HELLO option '";

fn read_version(text: &[u8]) -> Result<Protocol, &'static str> {
    match words::integer(text) {
        None => Err("ERR Protocol version is not an integer or out of range"),
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err("NOPROTO unsupported protocol version"),
    }
}

/// What the master said to a `HELLO` in one protocol: names, and values as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloFacts {
    fields: Vec<Field>,
}

/// A name, and its value as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: Box<[u8]>,
    value: Box<[u8]>,
}

impl HelloFacts {
    /// Reads a whole reply to `HELLO`: a map, or in RESP2 a flat array. `None` if it is neither.
    pub fn read(reply: &[u8]) -> Option<Self> {
        let (header, mut rest) = split_line(reply)?;
        let (kind, count) = header.split_first()?;
        let count: usize = std::str::from_utf8(count).ok()?.parse().ok()?;
        let pairs = match kind {
            b'%' => count,
            b'*' => count / 2,
            _ => return None,
        };
        let mut fields = Vec::new();
        for _ in 0..pairs {
            let (name, behind) = split_value(rest)?;
            let (value, behind) = split_value(behind)?;
            let (_, text) = split_line(name)?;
            fields.push(Field {
                name: Box::from(text.strip_suffix(b"\r\n")?),
                value: Box::from(value),
            });
            rest = behind;
        }
        Some(Self { fields })
    }

    /// Whether the server takes READONLY and READWRITE although it is no node of a cluster: Valkey
    /// since 8.0 does (cluster.c, `readonlyCommand`), Redis answers that it has no cluster support.
    pub fn takes_readonly(&self) -> bool {
        self.value(b"server") == Some(b"valkey") && self.version().0 >= 8
    }

    /// Whether the server says OK to READWRITE, which changes nothing there, though it refuses
    /// READONLY: Redis before 7.0 does (cluster.c, `readwriteCommand`).
    pub fn takes_readwrite_in_vain(&self) -> bool {
        (1, 0) < self.version() && self.version() < (7, 0)
    }

    /// Whether the server does what stands in a `HELLO` one after the other, and so a part of what
    /// has something wrong at its end: those before 7.2 do.
    pub fn takes_hello_in_steps(&self) -> bool {
        (1, 0) < self.version() && self.version() < (7, 2)
    }

    /// The text of a field.
    fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let field = self.fields.iter().find(|field| *field.name == *name)?;
        let (_, text) = split_line(&field.value)?;
        text.strip_suffix(b"\r\n")
    }

    /// The first two numbers of the server's version; zeros if it does not tell.
    fn version(&self) -> (u32, u32) {
        let version = self.value(b"version").unwrap_or_default();
        let mut numbers = version.split(|byte| *byte == b'.').map(|number| {
            let number = std::str::from_utf8(number).ok()?;
            number.parse().ok()
        });
        let mut next = || numbers.next().flatten().unwrap_or(0);
        (next(), next())
    }

    /// Writes the answer for the client `id`: the master's words with that number, and the role
    /// that the client's address has.
    pub fn write(&self, out: &mut Vec<u8>, (protocol, role): (Protocol, ListenerRole), id: u64) {
        let role = match role {
            ListenerRole::Split | ListenerRole::Master => "master",
            ListenerRole::Replica => "replica",
        };
        encode::map_header(out, protocol, self.fields.len());
        for Field { name, value } in &self.fields {
            encode::bulk(out, name);
            match &**name {
                b"id" => encode::integer(out, i64::try_from(id).unwrap_or(i64::MAX)),
                b"role" => encode::bulk(out, role.as_bytes()),
                _ => out.extend_from_slice(value),
            }
        }
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((
        bytes.get(..end)?.strip_suffix(b"\r")?,
        bytes.get(end + 1..)?,
    ))
}

fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match ReplyScanner::default().scan(bytes) {
        Ok(Scan::Complete { len, .. }) => Some((bytes.get(..len)?, bytes.get(len..)?)),
        Ok(Scan::Partial { .. }) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&[u8]]) -> HelloRequest {
        let mut raw = Vec::new();
        encode::request(&mut raw, words);
        HelloRequest::read(&Request::from_raw(&raw).unwrap())
    }

    fn login(user: &[u8]) -> HelloStep {
        HelloStep::Login(Login::new(Some(user), b"p"))
    }

    fn name(name: &[u8]) -> HelloStep {
        HelloStep::Name(Box::from(name))
    }

    #[test]
    fn hello_is_read_as_redis_reads_it() {
        assert_eq!(read(&[b"HELLO"]), HelloRequest::default());
        let full = read(&[b"hello", b"3", b"auth\0x", b"u", b"p", b"SetName", b"n"]);
        assert_eq!(full.protocol, Some(Protocol::Resp3));
        assert_eq!(full.steps, [login(b"u"), name(b"n")]);
        assert_eq!(full.objection, None);
    }

    #[test]
    fn an_objection_is_in_redis_own_words_and_bytes() {
        let check = |words: &[&[u8]], want: &[u8]| {
            assert_eq!(read(words).objection.as_deref(), Some(want));
        };
        for version in [&b"4"[..], b"-1", b"0"] {
            let text = b"NOPROTO unsupported protocol version";
            check(&[b"HELLO", version], text);
        }
        for version in [&b"x"[..], b"02", b"+2", b"2 ", b"99999999999999999999"] {
            let text = b"ERR Protocol version is not an integer or out of range";
            check(&[b"HELLO", version, b"bad"], text);
        }
        let bytes = b"ERR Syntax error in HELLO option 'a\xff\r'";
        check(&[b"HELLO", b"2", b"a\xff\r\0b"], bytes);
        let few = b"ERR Syntax error in HELLO option 'AUTH'";
        check(&[b"HELLO", b"3", b"AUTH", b"u"], few);
    }

    #[test]
    fn what_stands_before_something_wrong_counts_with_older_servers_only() {
        let words: [&[u8]; 12] = [
            b"HELLO", b"3", b"SETNAME", b"a", b"AUTH", b"u", b"p", b"AUTH", b"v", b"p", b"SETNAME",
            b"b",
        ];
        let fine = read(&words);
        let steps = [name(b"a"), login(b"u"), login(b"v"), name(b"b")];
        assert_eq!(fine.steps, steps);
        assert_eq!(fine.at_once().steps, [login(b"v"), name(b"b")]);
        let wrong = read(&[&words[..], &[b"x"]].concat());
        assert_eq!(wrong.steps, steps);
        let wrong = wrong.at_once();
        assert!(wrong.steps.is_empty() && wrong.objection.is_some());
        let name = read(&[b"HELLO", b"3", b"SETNAME", b"a b", b"x"]).at_once();
        assert_eq!(name.objection.as_deref(), Some(BAD_NAME.as_bytes()));
    }

    #[test]
    fn the_answer_is_the_masters_with_the_clients_id() {
        let master =
            b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:7\r\n$7\r\nmodules\r\n*0\r\n";
        let mut out = Vec::new();
        HelloFacts::read(master).unwrap().write(
            &mut out,
            (Protocol::Resp3, ListenerRole::Split),
            42,
        );
        let want =
            b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:42\r\n$7\r\nmodules\r\n*0\r\n";
        assert_eq!(out, want);
        assert_eq!(HelloFacts::read(b"-NOAUTH x\r\n"), None);
    }

    #[test]
    fn a_listener_of_the_role_replica_says_so_and_versions_make_a_difference() {
        let hello = |server: &str, version: &str| {
            let mut reply = Vec::new();
            encode::map_header(&mut reply, Protocol::Resp2, 3);
            for word in ["server", server, "version", version, "role", "master"] {
                encode::bulk(&mut reply, word.as_bytes());
            }
            HelloFacts::read(&reply).unwrap()
        };
        let mut out = Vec::new();
        let facts = hello("valkey", "8.0.1");
        facts.write(&mut out, (Protocol::Resp2, ListenerRole::Replica), 1);
        assert!(out.ends_with(b"$4\r\nrole\r\n$7\r\nreplica\r\n"));
        assert!(facts.takes_readonly());
        for (version, in_steps) in [
            ("7.0.15", true),
            ("6.2.14", true),
            ("7.2.0", false),
            ("8.0.1", false),
            ("x", false),
        ] {
            let facts = hello("redis", version);
            assert_eq!(facts.takes_hello_in_steps(), in_steps, "{version}");
            let in_vain = version == "6.2.14";
            assert_eq!(facts.takes_readwrite_in_vain(), in_vain, "{version}");
        }
        for (server, version) in [("redis", "8.2.0"), ("valkey", "7.2.5"), ("valkey", "x")] {
            assert!(
                !hello(server, version).takes_readonly(),
                "{server} {version}"
            );
        }
    }
}
