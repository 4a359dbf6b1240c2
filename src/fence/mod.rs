//! Floor 1. Connections that were given up while the node may still execute what was sent on them:
//! how they are named, and the steps by which they are ended there. Pure. Knows no sockets and no
//! clients.
//!
//! ```text
//!   request ──► the node's process is the one that the connection was opened to?
//!                  no ► gone          not known ► forbidden
//!                  yes ─► ask INFO server ──► another process ► gone
//!                            │ no answer: again, later and later, sooner when it is heard of
//!                            ▼
//!                         CLIENT KILL ID … ADDR …, over the connection that has just answered
//!                            ► killed, gone, forbidden           at the deadline ► expired
//! ```

mod machine;

pub use machine::{Action, Answer, Failure, Kill, Machine, Number, PENDING_MAX, Question, Status};

use crate::types::{NodeAddr, Time};

/// Bytes of an address that is believed; an IPv6 one with scope and port has fewer.
const ADDR_MAX: usize = 128;

/// What a node calls a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its number, which no other connection to the same process gets (Redis `CLIENT ID`).
    pub id: u64,
    /// Its other end as the node sees it, in the node's own words; a server before 6.2 does not
    /// tell.
    pub addr: Option<Box<str>>,
}

/// A connection to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The node.
    pub node: NodeAddr,
    /// What it calls the connection.
    pub connection: Connection,
    /// When the connection was opened.
    pub opened: Time,
}

impl Connection {
    /// Reads a node's whole replies to `CLIENT INFO` and, where that is not known or not allowed,
    /// to `HELLO`, which tells the number only. `None` if neither tells it.
    pub fn read(info: &[u8], hello: Option<&[u8]>) -> Option<Self> {
        told(info).or_else(|| {
            Some(Self {
                id: number_in(hello?)?,
                addr: None,
            })
        })
    }
}

/// Reads `id=7 addr=10.0.0.1:50000 …`, a bulk string or a verbatim one.
fn told(info: &[u8]) -> Option<Connection> {
    let behind = memchr::memchr(b'\n', info)? + 1;
    let text = match info.first()? {
        b'$' => info.get(behind..)?,
        b'=' => info.get(behind..)?.strip_prefix(b"txt:")?,
        _ => return None,
    };
    let text = std::str::from_utf8(text.split(|byte| *byte == b'\r').next()?).ok()?;
    let field = |name: &str| text.split(' ').find_map(|word| word.strip_prefix(name));
    let addr = field("addr=").filter(|addr| !addr.is_empty() && addr.len() <= ADDR_MAX);
    Some(Connection {
        id: field("id=")?.parse().ok()?,
        addr: addr.map(Box::from),
    })
}

/// The number in a reply to `HELLO`.
fn number_in(hello: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"$2\r\nid\r\n:";
    let at = memchr::memmem::find(hello, NAME)? + NAME.len();
    let digits = hello.get(at..)?.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(id: u64, addr: Option<&str>) -> Connection {
        let addr = addr.map(Box::from);
        Connection { id, addr }
    }

    #[test]
    fn a_node_names_a_connection_in_either_protocol() {
        let line = "id=7 addr=10.0.0.1:50000 laddr=10.0.0.2:6379 fd=8 name=switchman db=0\n";
        let bulk = format!("${}\r\n{line}\r\n", line.len());
        let verbatim = format!("={}\r\ntxt:{line}\r\n", line.len() + 4);
        for reply in [bulk, verbatim] {
            let told = Connection::read(reply.as_bytes(), None);
            assert_eq!(told, Some(connection(7, Some("10.0.0.1:50000"))), "{reply}");
        }
    }

    #[test]
    fn a_node_that_does_not_know_the_command_has_told_the_number_before() {
        let refused = b"-ERR Unknown subcommand or wrong number of arguments for 'INFO'\r\n";
        let two = b"*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$2\r\nid\r\n:42\r\n";
        let three = b"%2\r\n$2\r\nid\r\n:42\r\n$5\r\nproto\r\n:3\r\n";
        for hello in [&two[..], three] {
            assert_eq!(
                Connection::read(refused, Some(hello)),
                Some(connection(42, None))
            );
        }
        assert_eq!(Connection::read(refused, None), None);
        assert_eq!(Connection::read(b"+OK\r\n", Some(b"+OK\r\n")), None);
        assert_eq!(Connection::read(b"$5\r\nid=x \r\n", None), None);
    }
}
