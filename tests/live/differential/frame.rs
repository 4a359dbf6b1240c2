//! Replies as frames that keep every byte, for two servers to be compared by; and the connections
//! that they come over.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Nesting that a reply may have.
const DEPTH_MAX: usize = 64;

/// Letters of a text that are told.
const TOLD_MAX: usize = 300;

/// One RESP frame: its type byte, and what follows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Frame {
    /// What is one line, nulls included.
    Line(u8, Vec<u8>),
    /// What says how long it is.
    Bulk(u8, Vec<u8>),
    /// What says how many it has; maps and attributes with keys and values in turn. An attribute
    /// has the reply that it belongs to as its last one.
    Many(u8, Vec<Frame>),
}

impl Frame {
    /// The frame at the front of `bytes` and its length; `None` until a whole one has arrived.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let mut at = 0;
        let frame = Self::next(bytes, &mut at, DEPTH_MAX)?;
        Ok(frame.map(|frame| (frame, at)))
    }

    fn next(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Self>, String> {
        let Some(end) = memchr::memmem::find(&bytes[*at..], b"\r\n") else {
            return Ok(None);
        };
        let line = &bytes[*at..*at + end];
        *at += end + 2;
        let (Some((&kind, rest)), true) = (line.split_first(), depth > 0) else {
            return Err(format!("no frame: {}", quoted(line)));
        };
        match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'(' | b'_' => {
                Ok(Some(Self::Line(kind, rest.to_vec())))
            }
            b'$' | b'*' if rest == b"-1" => Ok(Some(Self::Line(kind, rest.to_vec()))),
            b'$' | b'!' | b'=' => {
                let len = number(rest)?;
                let Some(body) = bytes[*at..].get(..len + 2) else {
                    return Ok(None);
                };
                *at += len + 2;
                let body = body.strip_suffix(b"\r\n").ok_or("no end of a bulk")?;
                Ok(Some(Self::Bulk(kind, body.to_vec())))
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let len = number(rest)?;
                let count = match kind {
                    b'%' => len * 2,
                    b'|' => len * 2 + 1,
                    _ => len,
                };
                let items = (0..count).map(|_| Self::next(bytes, at, depth - 1).transpose());
                let items: Result<Option<Vec<Self>>, String> =
                    items.map(Option::transpose).collect();
                Ok(items?.map(|items| Self::Many(kind, items)))
            }
            _ => Err(format!("no frame: {}", quoted(line))),
        }
    }

    /// The elements of an aggregate.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::Many(_, items) => items,
            Self::Line(..) | Self::Bulk(..) => &[],
        }
    }

    /// What a scalar says.
    pub(super) fn text(&self) -> &[u8] {
        match self {
            Self::Line(_, text) | Self::Bulk(_, text) => text,
            Self::Many(..) => b"",
        }
    }

    pub(super) fn kind(&self) -> u8 {
        match self {
            Self::Line(kind, _) | Self::Bulk(kind, _) | Self::Many(kind, _) => *kind,
        }
    }

    pub(super) fn is_error(&self) -> bool {
        matches!(self.kind(), b'-' | b'!')
    }

    pub(super) fn is_line(&self, line: &[u8]) -> bool {
        matches!(self, Self::Line(kind, text) if line.split_first() == Some((kind, text)))
    }

    /// The first word of an aggregate, such as `message`.
    pub(super) fn verb(&self) -> &[u8] {
        self.items().first().map_or(b"", Self::text)
    }

    /// Whether it came by itself, and not because this client has asked for it: messages and
    /// invalidations.
    pub(super) fn is_news(&self) -> bool {
        let told = [&b"message"[..], b"pmessage", b"smessage"].contains(&self.verb());
        match self {
            Self::Many(b'>', _) => told || !is_confirmation(self),
            Self::Many(b'*', items) => told && (items.len() == 3 || items.len() == 4),
            _ => false,
        }
    }
}

/// Whether it answers `SUBSCRIBE` or one of its kin.
pub(super) fn is_confirmation(frame: &Frame) -> bool {
    let (verb, three) = (frame.verb(), frame.items().len() == 3);
    let verb = verb.strip_prefix(b"un").unwrap_or(verb);
    let verb = verb.strip_prefix(b"pun").unwrap_or(verb);
    let verb = verb.strip_prefix(b"sun").unwrap_or(verb);
    three && [&b"subscribe"[..], b"psubscribe", b"ssubscribe"].contains(&verb)
}

fn number(text: &[u8]) -> Result<usize, String> {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|it| it.parse().ok());
    number.ok_or_else(|| format!("no length: {}", quoted(text)))
}

/// Bytes as `redis-cli` would take them.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !b"\"'\\".contains(byte);
    if !bytes.is_empty() && bytes.len() <= TOLD_MAX && bytes.iter().all(plain) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let cut = &bytes[..bytes.len().min(TOLD_MAX)];
    let text = cut.escape_ascii().to_string();
    let more = bytes.len() - cut.len();
    match more {
        0 => format!("\"{text}\""),
        more => format!("\"{text}\" (and {more} bytes)"),
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(kind, text) => {
                write!(f, "{}{}", char::from(*kind), text.escape_ascii())
            }
            Self::Bulk(b'$', text) => f.write_str(&quoted(text)),
            Self::Bulk(kind, text) => write!(f, "{}{}", char::from(*kind), quoted(text)),
            Self::Many(kind, items) => {
                write!(f, "{}{items:?}", char::from(*kind))
            }
        }
    }
}

/// Why no frame comes any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Closed,
    Late,
    Garbage(String),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    taken: usize,
}

impl Conn {
    pub(super) fn open(addr: SocketAddr, patience: Duration) -> Self {
        let stream = TcpStream::connect_timeout(&addr, patience).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(patience)).unwrap();
        Self {
            stream,
            input: Vec::new(),
            taken: 0,
        }
    }

    /// Sends `bytes`; that the other side is gone is seen when its reply is read.
    pub(super) fn send(&mut self, bytes: &[u8]) {
        let _seen_by_the_reader = self.stream.write_all(bytes);
    }

    /// Whether something has come that is not read yet.
    pub(super) fn has_come(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let come = self.stream.peek(&mut [0]).is_ok();
        self.stream.set_nonblocking(false).unwrap();
        come || self.taken < self.input.len()
    }

    /// The next frame, waited for until `deadline`.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Frame, Gone> {
        loop {
            let found = Frame::read(&self.input[self.taken..]).map_err(Gone::Garbage)?;
            if let Some((frame, len)) = found {
                self.taken += len;
                if self.taken == self.input.len() {
                    self.input.clear();
                    self.taken = 0;
                }
                return Ok(frame);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Gone::Late);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(Gone::Closed),
                Ok(read) => self.input.extend_from_slice(&piece[..read]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(Gone::Closed),
                },
            }
        }
    }
}
