//! Floor 3. `HELLO`: what a client asks, and the answer, which is the master's own save for the id.

use crate::resp::{ReplyScanner, Request, Scan, encode};
use crate::session::Login;
use crate::types::{ListenerRole, Protocol};

/// A well-formed `HELLO`.
#[derive(Debug, PartialEq, Eq)]
pub struct HelloRequest {
    /// The version asked for; `None` keeps the present one.
    pub protocol: Option<Protocol>,
    /// `AUTH username password`.
    pub login: Option<Login>,
    /// `SETNAME name`.
    pub name: Option<Box<[u8]>>,
}

impl HelloRequest {
    /// Reads the arguments. An `Err` is Redis's own error text (networking.c, `helloCommand`).
    pub fn read(request: &Request<'_>) -> Result<Self, String> {
        let mut args = request.args().skip(1);
        let mut hello = Self {
            protocol: None,
            login: None,
            name: None,
        };
        let Some(version) = args.next() else {
            return Ok(hello);
        };
        hello.protocol = Some(read_version(version)?);
        while let Some(option) = args.next() {
            if option.eq_ignore_ascii_case(b"AUTH") && args.len() >= 2 {
                let (username, password) = (args.next(), args.next());
                hello.login = password.map(|password| Login::new(username, password));
            } else if option.eq_ignore_ascii_case(b"SETNAME") && args.len() >= 1 {
                hello.name = args.next().map(Box::from);
            } else {
                let option = String::from_utf8_lossy(option);
                return Err(format!("ERR Syntax error in HELLO option '{option}'"));
            }
        }
        Ok(hello)
    }
}

fn read_version(text: &[u8]) -> Result<Protocol, String> {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<i64>().ok());
    match number {
        None => Err("ERR Protocol version is not an integer or out of range".to_owned()),
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err("NOPROTO unsupported protocol version".to_owned()),
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
        let value = |name: &[u8]| {
            let field = self.fields.iter().find(|field| *field.name == *name)?;
            let (_, text) = split_line(&field.value)?;
            text.strip_suffix(b"\r\n")
        };
        let version = value(b"version").unwrap_or_default();
        let major = version.split(|byte| *byte == b'.').next();
        let major = major.and_then(|major| std::str::from_utf8(major).ok()?.parse::<u32>().ok());
        value(b"server") == Some(b"valkey") && major.is_some_and(|major| major >= 8)
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

    fn read(words: &[&[u8]]) -> Result<HelloRequest, String> {
        let mut raw = Vec::new();
        encode::request(&mut raw, words);
        HelloRequest::read(&Request::from_raw(&raw).unwrap())
    }

    #[test]
    fn hello_is_read_as_redis_reads_it() {
        assert_eq!(read(&[b"HELLO"]).unwrap().protocol, None);
        let full = read(&[b"hello", b"3", b"auth", b"u", b"p", b"SetName", b"n"]).unwrap();
        assert_eq!(full.protocol, Some(Protocol::Resp3));
        assert_eq!(full.login, Some(Login::new(Some(b"u"), b"p")));
        assert_eq!(full.name.as_deref(), Some(&b"n"[..]));
        assert!(read(&[b"HELLO", b"4"]).unwrap_err().starts_with("NOPROTO"));
        assert!(
            read(&[b"HELLO", b"x"])
                .unwrap_err()
                .contains("not an integer")
        );
        let error = read(&[b"HELLO", b"3", b"AUTH", b"u"]).unwrap_err();
        assert_eq!(error, "ERR Syntax error in HELLO option 'AUTH'");
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
    fn a_listener_of_the_role_replica_says_so_and_valkey_8_takes_readonly() {
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
        for (server, version) in [("redis", "8.2.0"), ("valkey", "7.2.5"), ("valkey", "x")] {
            assert!(
                !hello(server, version).takes_readonly(),
                "{server} {version}"
            );
        }
    }
}
