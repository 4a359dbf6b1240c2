//! Floor 6. A small blocking Redis client: commands, pipelines, deadlines, RESP2 and RESP3 replies
//! as values. Knows nothing of Sentinel, retries and pools: one connection, one conversation.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, io};

/// Nesting of aggregates that a reply may have; Redis itself nests at most four deep outside
/// scripts.
const DEPTH_MAX: usize = 64;

/// Bytes asked of the socket in one read.
const READ_SIZE: usize = 64 * 1024;

/// Largest bulk that Redis sends by default (`proto-max-bulk-len`).
const BULK_MAX: usize = 512 * 1024 * 1024;

/// One connection to something that speaks RESP.
///
/// Every wait ends at the client's timeout. After an error the connection is of no further use,
/// save after a timeout: the reply may still be received later.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    timeout: Duration,
    input: Vec<u8>,
    /// Bytes of `input` that were already given out as replies.
    taken: usize,
}

impl Client {
    /// Connects to `addr`; `timeout` bounds the connect and each later reply.
    pub fn connect(addr: SocketAddr, timeout: Duration) -> Result<Self, ClientError> {
        let stream = TcpStream::connect_timeout(&addr, timeout)?;
        stream.set_nodelay(true)?;
        Self::over(Socket::Tcp(stream), timeout)
    }

    /// Connects to the Unix socket at `path`; `timeout` bounds each later reply.
    pub fn connect_unix(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        Self::over(Socket::Unix(UnixStream::connect(path)?), timeout)
    }

    fn over(socket: Socket, timeout: Duration) -> Result<Self, ClientError> {
        socket.set_write_timeout(timeout)?;
        Ok(Self {
            socket,
            timeout,
            input: Vec::new(),
            taken: 0,
        })
    }

    /// Time that each reply may take from now on.
    pub fn wait_at_most(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.timeout = timeout;
        Ok(self.socket.set_write_timeout(timeout)?)
    }

    /// The address of our end, where it is a TCP connection.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(stream) => stream.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Sends one command and waits for its reply. Error replies are replies: `Ok(Reply::Error)`.
    pub fn command<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, ClientError> {
        self.send(args)?;
        self.receive()
    }

    /// Sends all commands in one write, then waits for as many replies.
    ///
    /// Commands and replies together should fit the socket buffers (some 100 KB): nothing is read
    /// before everything is written.
    pub fn pipeline<A: AsRef<[u8]>>(
        &mut self,
        commands: &[Vec<A>],
    ) -> Result<Vec<Reply>, ClientError> {
        let mut bytes = Vec::new();
        for command in commands {
            encode_command(command, &mut bytes);
        }
        self.send_raw(&bytes)?;
        commands.iter().map(|_| self.receive()).collect()
    }

    /// Sends one command without waiting for its reply.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        encode_command(args, &mut bytes);
        self.send_raw(&bytes)
    }

    /// Sends `bytes` as they are: inline commands, broken frames, parts of frames.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.socket.write_all(bytes).map_err(ClientError::from_io)
    }

    /// Waits for the next reply (or push, or message) and takes it.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let mut parser = Parser {
                bytes: self.input.get(self.taken..).unwrap_or(&[]),
                at: 0,
            };
            if let Some(reply) = parser.reply(DEPTH_MAX)? {
                self.taken += parser.at;
                self.forget_taken();
                return Ok(reply);
            }
            self.fill(deadline)?;
        }
    }

    /// Waits until the other side closes; bytes that arrive before it are returned.
    pub fn drain(&mut self) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.fill(deadline) {
                Ok(()) => {}
                Err(ClientError::Closed) => return Ok(self.input.split_off(self.taken)),
                Err(error) => return Err(error),
            }
        }
    }

    fn forget_taken(&mut self) {
        if self.taken == self.input.len() {
            self.input.clear();
            self.taken = 0;
        } else if self.taken > READ_SIZE {
            self.input.drain(..self.taken);
            self.taken = 0;
        }
    }

    fn fill(&mut self, deadline: Instant) -> Result<(), ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ClientError::Timeout);
        }
        self.socket.set_read_timeout(left)?;
        let start = self.input.len();
        self.input.resize(start + READ_SIZE, 0);
        let tail = self
            .input
            .get_mut(start..)
            .expect("the buffer was just made longer");
        let read = self.socket.read(tail);
        self.input.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(ClientError::Closed),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(ClientError::from_io(error)),
        }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side closed the connection, by FIN or by RST, with no whole reply left to read.
    #[error("the connection was closed")]
    Closed,
    /// The client's timeout passed.
    #[error("no reply in time")]
    Timeout,
    /// The bytes received are no RESP reply.
    #[error("not a reply: {0}")]
    Protocol(String),
}

impl ClientError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

/// A reply, by its RESP type. Texts that Redis sends as text stay the text that was sent.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// `+`, such as `OK`.
    Simple(String),
    /// `-` or `!`: the whole error line, such as `ERR unknown command`.
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, and in RESP3 `_`.
    Null,
    /// `*-1`, in RESP2 only.
    NullArray,
    /// `*`
    Array(Vec<Reply>),
    /// `%`: keys and values in the order sent.
    Map(Vec<(Reply, Reply)>),
    /// `~`
    Set(Vec<Reply>),
    /// `>`
    Push(Vec<Reply>),
    /// `,` as written.
    Double(String),
    /// `#`
    Boolean(bool),
    /// `(` as written.
    BigNumber(String),
    /// `=`: format and text.
    Verbatim(String, String),
}

impl Reply {
    /// A bulk reply of this text.
    pub fn bulk(text: &str) -> Self {
        Self::Bulk(text.as_bytes().to_vec())
    }

    /// The `+OK` of a command that worked.
    pub fn ok() -> Self {
        Self::Simple("OK".to_owned())
    }

    /// Text of a string, number or error reply; `None` for null and aggregates.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Simple(text)
            | Self::Error(text)
            | Self::Double(text)
            | Self::BigNumber(text)
            | Self::Verbatim(_, text) => Some(text.clone()),
            Self::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Int(number) => Some(number.to_string()),
            Self::Boolean(_)
            | Self::Null
            | Self::NullArray
            | Self::Array(_)
            | Self::Map(_)
            | Self::Set(_)
            | Self::Push(_) => None,
        }
    }

    /// The error line, where the reply is an error.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(line) => Some(line),
            _ => None,
        }
    }

    /// The number, where the reply is an integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Elements of an array, set or push; nothing for any other reply.
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) | Self::Set(items) | Self::Push(items) => items,
            _ => &[],
        }
    }

    /// Value of `name` in a map, or in an array of names and values as RESP2 has it.
    pub fn field(&self, name: &str) -> Option<&Reply> {
        let named = |key: &Reply| key.text().is_some_and(|key| key == name);
        match self {
            Self::Map(pairs) => pairs
                .iter()
                .find(|(key, _)| named(key))
                .map(|(_, value)| value),
            Self::Array(items) => items
                .chunks_exact(2)
                .find_map(|pair| named(pair.first()?).then(|| pair.last()).flatten()),
            _ => None,
        }
    }

    /// Value of `name` in the `name:value` lines of an `INFO` reply.
    pub fn info(&self, name: &str) -> Option<String> {
        let text = self.text()?;
        text.lines().find_map(|line| {
            line.strip_prefix(name)?
                .strip_prefix(':')
                .map(|value| value.trim_end().to_owned())
        })
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Int(number) => write!(f, ":{number}"),
            Self::Bulk(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Null => f.write_str("null"),
            Self::NullArray => f.write_str("null array"),
            Self::Array(items) => f.debug_list().entries(items).finish(),
            Self::Map(pairs) => f
                .debug_map()
                .entries(pairs.iter().map(|(k, v)| (k, v)))
                .finish(),
            Self::Set(items) => f.debug_set().entries(items).finish(),
            Self::Push(items) => write!(f, ">{items:?}"),
            Self::Double(text) => write!(f, ",{text}"),
            Self::Boolean(value) => write!(f, "#{value}"),
            Self::BigNumber(text) => write!(f, "({text}"),
            Self::Verbatim(format, text) => write!(f, "={format}:{text:?}"),
        }
    }
}

/// Appends one command as an array of bulks, the form in which clients send.
pub fn encode_command<A: AsRef<[u8]>>(args: &[A], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads one reply off the front of `bytes`; `at` is how far it came.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    /// `None` until a whole reply has arrived.
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, ClientError> {
        let Some(line) = self.line()? else {
            return Ok(None);
        };
        let Some((kind, rest)) = line.split_at_checked(1) else {
            return Err(ClientError::Protocol("an empty line".to_owned()));
        };
        let rest = rest.to_owned();
        if depth == 0 {
            return Err(ClientError::Protocol(format!(
                "nested more than {DEPTH_MAX} deep"
            )));
        }
        Ok(match kind {
            "+" => Some(Reply::Simple(rest)),
            "-" => Some(Reply::Error(rest)),
            ":" => Some(Reply::Int(number(&rest)?)),
            "," => Some(Reply::Double(rest)),
            "(" => Some(Reply::BigNumber(rest)),
            "_" => Some(Reply::Null),
            "#" => Some(Reply::Boolean(rest == "t")),
            "$" if rest == "-1" => Some(Reply::Null),
            "*" if rest == "-1" => Some(Reply::NullArray),
            "$" => self.body(&rest)?.map(Reply::Bulk),
            "!" => self.body(&rest)?.map(|line| Reply::Error(lossy(&line))),
            "=" => self.body(&rest)?.map(|body| verbatim(&body)),
            "*" => self.items(&rest, depth)?.map(Reply::Array),
            "~" => self.items(&rest, depth)?.map(Reply::Set),
            ">" => self.items(&rest, depth)?.map(Reply::Push),
            "%" => self.pairs(&rest, depth)?.map(Reply::Map),
            _ => {
                return Err(ClientError::Protocol(format!(
                    "a line that starts with {kind:?}"
                )));
            }
        })
    }

    fn line(&mut self) -> Result<Option<String>, ClientError> {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return Ok(None);
        };
        let line = rest.get(..end).unwrap_or(&[]);
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(ClientError::Protocol(format!(
                "no CR before LF in {:?}",
                lossy(line)
            )));
        };
        self.at += end + 1;
        Ok(Some(lossy(line)))
    }

    fn body(&mut self, len: &str) -> Result<Option<Vec<u8>>, ClientError> {
        let len = count(len)?;
        if len > BULK_MAX {
            return Err(ClientError::Protocol(format!("a bulk of {len} bytes")));
        }
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let Some(body) = rest.get(..len + 2) else {
            return Ok(None);
        };
        self.at += len + 2;
        match body.strip_suffix(b"\r\n") {
            Some(body) => Ok(Some(body.to_vec())),
            None => Err(ClientError::Protocol(format!(
                "a bulk of {len} bytes without its CRLF"
            ))),
        }
    }

    fn items(&mut self, len: &str, depth: usize) -> Result<Option<Vec<Reply>>, ClientError> {
        (0..count(len)?)
            .map(|_| self.reply(depth - 1).transpose())
            .map(Option::transpose)
            .collect()
    }

    fn pairs(
        &mut self,
        len: &str,
        depth: usize,
    ) -> Result<Option<Vec<(Reply, Reply)>>, ClientError> {
        let mut pairs = Vec::new();
        for _ in 0..count(len)? {
            let Some(key) = self.reply(depth - 1)? else {
                return Ok(None);
            };
            let Some(value) = self.reply(depth - 1)? else {
                return Ok(None);
            };
            pairs.push((key, value));
        }
        Ok(Some(pairs))
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(text: &str) -> Result<i64, ClientError> {
    text.parse()
        .map_err(|_| ClientError::Protocol(format!("{text:?} where a number belongs")))
}

fn count(text: &str) -> Result<usize, ClientError> {
    text.parse()
        .map_err(|_| ClientError::Protocol(format!("{text:?} where a length belongs")))
}

fn verbatim(body: &[u8]) -> Reply {
    let text = lossy(body);
    let (format, text) = text.split_once(':').unwrap_or(("", &text));
    Reply::Verbatim(format.to_owned(), text.to_owned())
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Option<Reply>, ClientError> {
        Parser { bytes, at: 0 }.reply(DEPTH_MAX)
    }

    #[test]
    fn every_type_of_both_protocols_is_read() {
        let check = |bytes: &str, want: Reply| {
            assert_eq!(parse(bytes.as_bytes()).unwrap(), Some(want), "{bytes:?}");
        };
        check("+OK\r\n", Reply::ok());
        check("-ERR no\r\n", Reply::Error("ERR no".to_owned()));
        check(":-7\r\n", Reply::Int(-7));
        check("$3\r\na\r\n\r\n", Reply::bulk("a\r\n"));
        check("$-1\r\n", Reply::Null);
        check("_\r\n", Reply::Null);
        check("*-1\r\n", Reply::NullArray);
        check(
            "*2\r\n:1\r\n*0\r\n",
            Reply::Array(vec![Reply::Int(1), Reply::Array(vec![])]),
        );
        check("%1\r\n+a\r\n#t\r\n", {
            Reply::Map(vec![(Reply::Simple("a".to_owned()), Reply::Boolean(true))])
        });
        check(
            "~1\r\n,1.5\r\n",
            Reply::Set(vec![Reply::Double("1.5".to_owned())]),
        );
        check(
            ">1\r\n(12\r\n",
            Reply::Push(vec![Reply::BigNumber("12".to_owned())]),
        );
        check("!6\r\nERR no\r\n", Reply::Error("ERR no".to_owned()));
        check(
            "=6\r\ntxt:hi\r\n",
            Reply::Verbatim("txt".to_owned(), "hi".to_owned()),
        );
    }

    #[test]
    fn a_reply_in_pieces_is_waited_for() {
        let whole = b"*2\r\n%1\r\n+k\r\n$2\r\nab\r\n:1\r\n";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]).unwrap(), None, "{end} bytes");
        }
        assert!(parse(whole).unwrap().is_some());
    }

    #[test]
    fn bytes_that_are_no_reply_are_refused() {
        for bytes in [
            "x\r\n",
            "\r\n",
            ":a\r\n",
            "$x\r\n",
            "*x\r\n",
            "+a\n",
            "$1\r\nabc",
        ] {
            let error = parse(bytes.as_bytes()).unwrap_err();
            assert!(
                matches!(error, ClientError::Protocol(_)),
                "{bytes:?}: {error}"
            );
        }
        assert!(parse("*1\r\n".repeat(DEPTH_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn fields_are_found_in_maps_and_in_flat_arrays() {
        let pair = || (Reply::bulk("ip"), Reply::bulk("::1"));
        let flat = Reply::Array(vec![
            Reply::bulk("name"),
            Reply::bulk("ip"),
            pair().0,
            pair().1,
        ]);
        assert_eq!(flat.field("ip"), Some(&Reply::bulk("::1")));
        assert_eq!(
            Reply::Map(vec![pair()]).field("ip"),
            Some(&Reply::bulk("::1"))
        );
        assert_eq!(
            Reply::bulk("# Server\r\npid:7\r\n").info("pid"),
            Some("7".to_owned())
        );
    }
}
