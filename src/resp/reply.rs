//! Floor 0. Finds where each reply of a node ends, and what kind of value it is.
//! Owns the grammar of RESP2 and RESP3 values. Knows no request and keeps no bytes.

use memchr::memchr;

use crate::resp::cursor::{self, Crlf, Number};
use crate::resp::limits::{AGGREGATE_MAX, ATOMIC_LINE_MAX, REPLY_BULK_MAX};

/// Finds the ends of replies in a node's bytes; one per connection.
///
/// Nesting costs nothing: all that is kept is how many values the reply still owes. RESP2 and
/// RESP3 are both understood, whatever was agreed. An attribute belongs to the value behind it
/// and is no reply. A push is reported as one; inside an array it counts as an element, as in
/// what EXEC answers to a SUBSCRIBE.
#[derive(Clone, Debug, Default)]
pub struct ReplyScanner {
    /// Values that have to come behind the current one.
    owed: u64,
    stage: Stage,
    /// The line that is not whole has no CRLF before this offset.
    searched: usize,
    /// Kind of the value at the top, once its first line is read.
    kind: Option<ReplyKind>,
}

/// What [`ReplyScanner::scan`] found at the front of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the scanner has moved on by `len` bytes"]
pub enum Scan {
    /// A reply or push ends here; the scanner is ready for the next.
    Complete {
        /// Bytes up to its end, counted from the front of this call's buffer.
        len: usize,
        /// What it is.
        kind: ReplyKind,
    },
    /// A reply is not whole yet.
    Partial {
        /// Bytes at the front of the buffer that belong to the reply and are done with; may be 0.
        len: usize,
        /// The reply does not end before this many more bytes, at least 1.
        missing: usize,
    },
}

/// Kind of a reply: of its outermost value, attributes left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyKind {
    /// `+`
    Simple,
    /// `-`
    Error,
    /// `:`
    Integer,
    /// `$`
    Bulk,
    /// `$-1`, the null of RESP2.
    NullBulk,
    /// `*`
    Array,
    /// `*-1`, the null array of RESP2.
    NullArray,
    /// `_`, the null of RESP3.
    Null,
    /// `#`
    Boolean,
    /// `,`
    Double,
    /// `(`
    BigNumber,
    /// `!`, an error with a length.
    BulkError,
    /// `=`, text with a format.
    Verbatim,
    /// `%`
    Map,
    /// `~`
    Set,
    /// `>`, out of band: answers no request.
    Push,
}

/// Why a node's bytes are no reply. The connection cannot be used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A value begins with a byte that no type has.
    #[error("no value begins with '{}'", lead.escape_ascii())]
    UnknownType {
        /// The byte.
        lead: u8,
    },
    /// A streamed string or aggregate, which no server sends.
    #[error("streamed value '{}' is not supported", lead.escape_ascii())]
    Streamed {
        /// The type of the value, or the `;` or `.` of its continuation.
        lead: u8,
    },
    /// The length, count or number behind the type is malformed or out of bounds.
    #[error("invalid number behind '{}'", lead.escape_ascii())]
    InvalidNumber {
        /// The type of the value.
        lead: u8,
    },
    /// A null or a boolean with other contents than it can have.
    #[error("invalid value behind '{}'", lead.escape_ascii())]
    InvalidValue {
        /// The type of the value.
        lead: u8,
    },
    /// A bulk is not followed by CRLF.
    #[error("expected CRLF after bulk")]
    BulkNotCrlf,
    /// One reply owes more values than can be counted.
    #[error("reply has more elements than can be counted")]
    TooManyElements,
}

impl ReplyKind {
    /// Whether the reply is one of the three nulls.
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null | Self::NullBulk | Self::NullArray)
    }
}

impl ReplyScanner {
    /// Reads on at the front of `buf`, to the end of one reply at most.
    ///
    /// After either outcome the scanner has moved on by `len`: the next call's `buf` must begin
    /// right behind these bytes, whether the caller has forwarded or kept them. What lies behind
    /// `len` must come again, with more bytes after it, if the outcome was [`Scan::Partial`].
    ///
    /// Of a bulk any bytes count as done. Lines are done only as a whole, except text lines above
    /// [`ATOMIC_LINE_MAX`]. So a short error reply outside of an array is never reported in parts.
    ///
    /// After an error the scanner is of no use.
    #[inline]
    pub fn scan(&mut self, buf: &[u8]) -> Result<Scan, ReplyError> {
        // In a bulk or a long line a value is owed, or the outermost has its kind.
        if self.owed == 0
            && self.kind.is_none()
            && let Some((kind, behind)) = plain(buf)
        {
            self.searched = 0;
            return Ok(Scan::Complete {
                len: distance(buf, behind),
                kind,
            });
        }
        self.scan_rest(buf)
    }

    /// Scans what is not simply a plain value.
    fn scan_rest(&mut self, buf: &[u8]) -> Result<Scan, ReplyError> {
        let mut rest = buf;
        loop {
            let step = match self.stage {
                Stage::Value => {
                    rest = self.elements(rest);
                    self.value(rest)?
                }
                Stage::Body { left } => self.body(rest, left)?,
                Stage::Line => self.line(rest),
            };
            match step {
                Step::Opened { behind } => rest = behind,
                Step::Closed { behind } => {
                    rest = behind;
                    if let Some(fewer) = self.owed.checked_sub(1) {
                        self.owed = fewer;
                    } else if let Some(kind) = self.kind.take() {
                        return Ok(Scan::Complete {
                            len: distance(buf, rest),
                            kind,
                        });
                    }
                }
                Step::Short { rest, missing } => {
                    return Ok(Scan::Partial {
                        len: distance(buf, rest),
                        missing,
                    });
                }
            }
        }
    }

    /// Whether the reply that is not whole yet is a push.
    pub fn is_push(&self) -> bool {
        self.kind == Some(ReplyKind::Push)
    }

    /// Skips plain values, all but the last of those owed; returns what is behind them.
    #[inline]
    fn elements<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let (mut owed, mut rest) = (self.owed, rest);
        while let Some(fewer) = owed.checked_sub(1)
            && let Some((_, behind)) = plain(rest)
        {
            (owed, rest) = (fewer, behind);
        }
        if owed != self.owed {
            (self.owed, self.searched) = (owed, 0);
        }
        rest
    }

    /// Reads the first line of a value, and as much of its body as there is.
    fn value<'a>(&mut self, rest: &'a [u8]) -> Result<Step<'a>, ReplyError> {
        let [lead, text @ ..] = rest else {
            return Ok(Step::Short { rest, missing: 1 });
        };
        match *lead {
            b'$' => self.bulk(rest, text, ReplyKind::Bulk),
            b'+' => Ok(self.text(rest, text, ReplyKind::Simple)),
            b':' => self.integer(rest, text),
            b'*' => self.aggregate(rest, text, ReplyKind::Array),
            b'-' => Ok(self.text(rest, text, ReplyKind::Error)),
            b'_' => self.word(rest, text, ReplyKind::Null),
            b'%' => self.aggregate(rest, text, ReplyKind::Map),
            b'~' => self.aggregate(rest, text, ReplyKind::Set),
            b'>' => self.aggregate(rest, text, ReplyKind::Push),
            b',' => Ok(self.text(rest, text, ReplyKind::Double)),
            b'=' => self.bulk(rest, text, ReplyKind::Verbatim),
            b'#' => match text.split_first() {
                Some((b't' | b'f', text)) => self.word(rest, text, ReplyKind::Boolean),
                Some(_) => Err(ReplyError::InvalidValue { lead: b'#' }),
                None => Ok(Step::Short { rest, missing: 3 }),
            },
            b'(' => Ok(self.text(rest, text, ReplyKind::BigNumber)),
            b'!' => self.bulk(rest, text, ReplyKind::BulkError),
            b'|' => self.attribute(rest, text),
            lead @ (b';' | b'.') => Err(ReplyError::Streamed { lead }),
            lead => Err(ReplyError::UnknownType { lead }),
        }
    }

    fn bulk<'a>(
        &mut self,
        rest: &'a [u8],
        text: &'a [u8],
        kind: ReplyKind,
    ) -> Result<Step<'a>, ReplyError> {
        let Some((value, behind)) = header(rest, text)? else {
            return Ok(Step::Short { rest, missing: 1 });
        };
        match u64::try_from(value) {
            Ok(length) if length <= REPLY_BULK_MAX => {
                self.begin(kind);
                self.body(behind, length)
            }
            Err(_) if value == -1 && kind == ReplyKind::Bulk => {
                self.begin(ReplyKind::NullBulk);
                Ok(Step::Closed { behind })
            }
            _ => Err(invalid_number(rest)),
        }
    }

    /// Reads on in a bulk of which `left` bytes, and the CRLF behind them, have yet to come.
    fn body<'a>(&mut self, rest: &'a [u8], left: u64) -> Result<Step<'a>, ReplyError> {
        let whole = usize::try_from(left)
            .ok()
            .and_then(|left| rest.split_at_checked(left));
        let Some((_, tail)) = whole else {
            let left = left.saturating_sub(u64::try_from(rest.len()).unwrap_or(u64::MAX));
            self.stage = Stage::Body { left };
            let missing = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .saturating_add(2);
            return Ok(Step::Short {
                rest: end_of(rest),
                missing,
            });
        };
        match cursor::crlf(tail) {
            Crlf::Whole { rest } => {
                self.stage = Stage::Value;
                Ok(Step::Closed { behind: rest })
            }
            Crlf::Incomplete { missing } => {
                self.stage = Stage::Body { left: 0 };
                Ok(Step::Short {
                    rest: tail,
                    missing,
                })
            }
            Crlf::Wrong => Err(ReplyError::BulkNotCrlf),
        }
    }

    fn integer<'a>(&mut self, rest: &'a [u8], text: &'a [u8]) -> Result<Step<'a>, ReplyError> {
        Ok(match header(rest, text)? {
            Some((_, behind)) => {
                self.begin(ReplyKind::Integer);
                Step::Closed { behind }
            }
            None => Step::Short { rest, missing: 1 },
        })
    }

    fn aggregate<'a>(
        &mut self,
        rest: &'a [u8],
        text: &'a [u8],
        kind: ReplyKind,
    ) -> Result<Step<'a>, ReplyError> {
        let Some((value, behind)) = header(rest, text)? else {
            return Ok(Step::Short { rest, missing: 1 });
        };
        if value == -1 && kind == ReplyKind::Array {
            self.begin(ReplyKind::NullArray);
            return Ok(Step::Closed { behind });
        }
        let count = count(value).ok_or(invalid_number(rest))?;
        let elements = if kind == ReplyKind::Map {
            count.saturating_mul(2)
        } else {
            count
        };
        self.begin(kind);
        match elements.checked_sub(1) {
            Some(behind_first) => {
                self.owe(behind_first)?;
                Ok(Step::Opened { behind })
            }
            None => Ok(Step::Closed { behind }),
        }
    }

    fn attribute<'a>(&mut self, rest: &'a [u8], text: &'a [u8]) -> Result<Step<'a>, ReplyError> {
        let Some((value, behind)) = header(rest, text)? else {
            return Ok(Step::Short { rest, missing: 1 });
        };
        let pairs = count(value).ok_or(invalid_number(rest))?;
        self.owe(pairs.saturating_mul(2))?;
        Ok(Step::Opened { behind })
    }

    /// Reads what must be nothing but CRLF.
    fn word<'a>(
        &mut self,
        rest: &'a [u8],
        text: &'a [u8],
        kind: ReplyKind,
    ) -> Result<Step<'a>, ReplyError> {
        match cursor::crlf(text) {
            Crlf::Whole { rest } => {
                self.begin(kind);
                Ok(Step::Closed { behind: rest })
            }
            Crlf::Incomplete { missing } => Ok(Step::Short { rest, missing }),
            Crlf::Wrong => Err(ReplyError::InvalidValue {
                lead: rest.first().copied().unwrap_or_default(),
            }),
        }
    }

    /// Reads a line of text from its first byte on.
    fn text<'a>(&mut self, rest: &'a [u8], text: &'a [u8], kind: ReplyKind) -> Step<'a> {
        let known = self.searched.min(text.len());
        if let Some(behind) = behind_crlf(text.get(known..).unwrap_or_default()) {
            self.searched = 0;
            self.begin(kind);
            return Step::Closed { behind };
        }
        if text.len() > ATOMIC_LINE_MAX {
            self.searched = 0;
            self.begin(kind);
            self.stage = Stage::Line;
            return self.line(text);
        }
        self.searched = distance(text, last_carriage_return(text));
        Step::Short { rest, missing: 1 }
    }

    /// Reads on in a line of text that has been reported in part.
    fn line<'a>(&mut self, rest: &'a [u8]) -> Step<'a> {
        match behind_crlf(rest) {
            Some(behind) => {
                self.stage = Stage::Value;
                Step::Closed { behind }
            }
            None => Step::Short {
                rest: last_carriage_return(rest),
                missing: 1,
            },
        }
    }

    /// Notes the kind of a value, if it is the outermost.
    #[inline]
    fn begin(&mut self, kind: ReplyKind) {
        // Attributes in front of the outermost value owe at least that value.
        if self.owed == 0 && self.kind.is_none() {
            self.kind = Some(kind);
        }
    }

    #[inline]
    fn owe(&mut self, values: u64) -> Result<(), ReplyError> {
        self.owed = self
            .owed
            .checked_add(values)
            .ok_or(ReplyError::TooManyElements)?;
        Ok(())
    }
}

/// Where the scanner stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Before the first byte of a value.
    #[default]
    Value,
    /// In a bulk: so many bytes to come, and CRLF.
    Body { left: u64 },
    /// In a text line longer than [`ATOMIC_LINE_MAX`].
    Line,
}

enum Step<'a> {
    /// The header of an aggregate or attribute was read; a value follows.
    Opened { behind: &'a [u8] },
    /// A value was read to its end.
    Closed { behind: &'a [u8] },
    /// Bytes are missing; those in `rest` have to come again.
    Short { rest: &'a [u8], missing: usize },
}

/// Reads a whole value of the most frequent kinds at the front of `buf`, and what is behind it;
/// `None` if [`ReplyScanner::value`] has to look.
#[inline]
fn plain(buf: &[u8]) -> Option<(ReplyKind, &[u8])> {
    match buf {
        [b'$', b'-', b'1', b'\r', b'\n', rest @ ..] => Some((ReplyKind::NullBulk, rest)),
        [b'$', text @ ..] => {
            let (_, rest) = cursor::bulk(text, usize::MAX)?;
            Some((ReplyKind::Bulk, rest))
        }
        [b'+', b'O', b'K', b'\r', b'\n', rest @ ..] => Some((ReplyKind::Simple, rest)),
        [b':', text @ ..] => {
            let (_, rest) = cursor::length(text)?;
            Some((ReplyKind::Integer, rest))
        }
        _ => None,
    }
}

/// Reads the number of the line `rest`, which is `text` and the type before it.
#[inline]
fn header<'a>(rest: &[u8], text: &'a [u8]) -> Result<Option<(i64, &'a [u8])>, ReplyError> {
    match cursor::number(text) {
        Number::Whole { value, rest } => Ok(Some((value, rest))),
        Number::Incomplete => Ok(None),
        Number::Malformed if text.starts_with(b"?") => Err(ReplyError::Streamed {
            lead: rest.first().copied().unwrap_or_default(),
        }),
        Number::Malformed | Number::NotCrlf => Err(invalid_number(rest)),
    }
}

#[inline]
fn count(value: i64) -> Option<u64> {
    u64::try_from(value)
        .ok()
        .filter(|count| *count <= AGGREGATE_MAX)
}

fn invalid_number(line: &[u8]) -> ReplyError {
    ReplyError::InvalidNumber {
        lead: line.first().copied().unwrap_or_default(),
    }
}

/// What stands behind the first CRLF in `text`; a carriage return alone is text.
#[inline]
fn behind_crlf(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        let tail = rest.get(memchr(b'\r', rest)?..)?;
        match tail {
            [_, b'\n', behind @ ..] => return Some(behind),
            [_, behind @ ..] => rest = behind,
            [] => return None,
        }
    }
}

/// The carriage return that ends `text`, which may be half a CRLF; else the empty end of it.
fn last_carriage_return(text: &[u8]) -> &[u8] {
    match text {
        [.., b'\r'] => text.get(text.len().saturating_sub(1)..).unwrap_or_default(),
        _ => end_of(text),
    }
}

fn end_of(text: &[u8]) -> &[u8] {
    text.get(text.len()..).unwrap_or_default()
}

/// Bytes of `buf` before `tail`, which ends where `buf` ends.
#[inline]
fn distance(buf: &[u8], tail: &[u8]) -> usize {
    buf.len().saturating_sub(tail.len())
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::indexing_slicing,
        reason = "a test that slices out of bounds fails, as it should"
    )]

    use super::*;

    fn scan(buf: &[u8]) -> Result<Scan, ReplyError> {
        ReplyScanner::default().scan(buf)
    }

    #[test]
    fn every_type_of_value_is_known() {
        let check = |reply: &str, kind: ReplyKind| {
            let len = reply.len();
            let followed = format!("{reply}+next\r\n");
            assert_eq!(
                scan(followed.as_bytes()),
                Ok(Scan::Complete { len, kind }),
                "{reply:?}"
            );
        };
        check("+OK\r\n", ReplyKind::Simple);
        check("+\r\n", ReplyKind::Simple);
        check("+a\rb\nc\r\r\n", ReplyKind::Simple);
        check("-ERR no\r\n", ReplyKind::Error);
        check(":-9223372036854775808\r\n", ReplyKind::Integer);
        check("$0\r\n\r\n", ReplyKind::Bulk);
        check("$4\r\n\r\n\r\n\r\n", ReplyKind::Bulk);
        check("$-1\r\n", ReplyKind::NullBulk);
        check("*0\r\n", ReplyKind::Array);
        check(
            "*3\r\n*2\r\n:1\r\n$1\r\na\r\n*-1\r\n$-1\r\n",
            ReplyKind::Array,
        );
        check("*-1\r\n", ReplyKind::NullArray);
        check("_\r\n", ReplyKind::Null);
        check("#t\r\n", ReplyKind::Boolean);
        check("#f\r\n", ReplyKind::Boolean);
        check(",-inf\r\n", ReplyKind::Double);
        check(
            "(3492890328409238509324850943850943825024385\r\n",
            ReplyKind::BigNumber,
        );
        check("!5\r\nERR x\r\n", ReplyKind::BulkError);
        check("=6\r\ntxt:hi\r\n", ReplyKind::Verbatim);
        check("%0\r\n", ReplyKind::Map);
        check("%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n_\r\n", ReplyKind::Map);
        check("~2\r\n:1\r\n:2\r\n", ReplyKind::Set);
        check(">3\r\n+message\r\n+ch\r\n+hi\r\n", ReplyKind::Push);
        check("*1\r\n>3\r\n+subscribe\r\n+ch\r\n:1\r\n", ReplyKind::Array);
    }

    #[test]
    fn an_attribute_belongs_to_the_value_behind_it() {
        let check = |reply: &str, kind: ReplyKind| {
            let len = reply.len();
            assert_eq!(
                scan(reply.as_bytes()),
                Ok(Scan::Complete { len, kind }),
                "{reply:?}"
            );
        };
        check("|1\r\n+ttl\r\n:3600\r\n$1\r\na\r\n", ReplyKind::Bulk);
        check("|0\r\n+OK\r\n", ReplyKind::Simple);
        check("|1\r\n+k\r\n*2\r\n:1\r\n:2\r\n%0\r\n", ReplyKind::Map);
        check(
            "|1\r\n+k\r\n+v\r\n|1\r\n+k\r\n+v\r\n*-1\r\n",
            ReplyKind::NullArray,
        );
        check(
            "|1\r\n|1\r\n+a\r\n+b\r\n+k\r\n+v\r\n-ERR\r\n",
            ReplyKind::Error,
        );
        check("*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n", ReplyKind::Array);
        let alone = b"|1\r\n+k\r\n+v\r\n";
        assert_eq!(
            scan(alone),
            Ok(Scan::Partial {
                len: alone.len(),
                missing: 1
            })
        );
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let check = |bytes: &str, want: ReplyError| {
            assert_eq!(scan(bytes.as_bytes()), Err(want), "{bytes:?}");
        };
        for (bytes, lead) in [("PING\r\n", b'P'), ("\r\n", b'\r'), ("\0", 0)] {
            check(bytes, ReplyError::UnknownType { lead });
        }
        for bytes in [
            "$?\r\n", "*?\r\n", "%?\r\n", "~?\r\n", ">?\r\n", ";4\r\n", ".\r\n",
        ] {
            check(
                bytes,
                ReplyError::Streamed {
                    lead: bytes.as_bytes()[0],
                },
            );
        }
        let numbers = "$-2\r\n|*-2\r\n|%-1\r\n|~-1\r\n|>-1\r\n|=-1\r\n|!-1\r\n|:+1\r\n|:1.5\r\n|\
                       :\r\n|:01\r\n|*2147483648\r\n|%2147483648\r\n|$1099511627777\r\n|$EOF:x|\
                       $9999999999999999999999\r\n|$1\rX";
        for bytes in numbers.split('|').chain(["|-1\r\n", "|2147483648\r\n"]) {
            check(
                bytes,
                ReplyError::InvalidNumber {
                    lead: bytes.as_bytes()[0],
                },
            );
        }
        for bytes in ["#x\r\n", "#tt\r\n", "#t\n", "_x\r\n", "_\r\r"] {
            check(
                bytes,
                ReplyError::InvalidValue {
                    lead: bytes.as_bytes()[0],
                },
            );
        }
        check("$2\r\nabc\r\n", ReplyError::BulkNotCrlf);
        check("$2\r\nab\n", ReplyError::BulkNotCrlf);
    }

    #[test]
    fn a_reply_cannot_owe_more_than_can_be_counted() {
        let mut scanner = ReplyScanner {
            owed: u64::MAX - 1,
            ..ReplyScanner::default()
        };
        assert_eq!(scanner.scan(b"*3\r\n"), Err(ReplyError::TooManyElements));
    }

    #[test]
    fn depth_costs_nothing() {
        assert!(size_of::<ReplyScanner>() <= 40);
        for depth in [10_000, 1_000_000] {
            for opening in ["*1\r\n", "%1\r\n_\r\n", "~1\r\n", "|1\r\n_\r\n_\r\n*1\r\n"] {
                let buf = [&opening.as_bytes().repeat(depth)[..], b"+end\r\n"].concat();
                let found = scan(&buf);
                assert!(matches!(found, Ok(Scan::Complete { len, .. }) if len == buf.len()));
            }
        }
    }

    #[test]
    fn a_large_bulk_is_done_byte_by_byte() {
        let mut scanner = ReplyScanner::default();
        let partial = |len, missing| Ok(Scan::Partial { len, missing });
        assert_eq!(scanner.scan(b"$536870912"), partial(0, 1));
        assert_eq!(scanner.scan(b"$536870912\r\nabc"), partial(15, 536_870_911));
        assert_eq!(scanner.scan(&[b'x'; 100]), partial(100, 536_870_811));
        let mut left = 536_870_809;
        let piece = vec![0; 1 << 20];
        while left > 0 {
            let len = piece.len().min(left);
            left -= len;
            assert_eq!(scanner.scan(&piece[..len]), partial(len, left + 2));
        }
        assert_eq!(scanner.scan(b"\r"), partial(0, 1));
        let end = Scan::Complete {
            len: 2,
            kind: ReplyKind::Bulk,
        };
        assert_eq!(scanner.scan(b"\r\n+OK\r\n"), Ok(end));
    }

    #[test]
    fn a_text_line_is_whole_up_to_its_bound_and_passes_in_pieces_beyond() {
        let mut scanner = ReplyScanner::default();
        let line = [&b"+"[..], &[b'x'; ATOMIC_LINE_MAX], b"\r\n"].concat();
        let atomic = &line[..=ATOMIC_LINE_MAX];
        assert_eq!(
            scanner.scan(atomic),
            Ok(Scan::Partial { len: 0, missing: 1 })
        );
        let whole = Scan::Complete {
            len: line.len(),
            kind: ReplyKind::Simple,
        };
        assert_eq!(scanner.scan(&line), Ok(whole));
        let long = [atomic, b"x\r"].concat();
        let partial = Scan::Partial {
            len: long.len() - 1,
            missing: 1,
        };
        assert_eq!(scanner.scan(&long), Ok(partial));
        assert_eq!(
            scanner.scan(b"\r"),
            Ok(Scan::Partial { len: 0, missing: 1 })
        );
        assert_eq!(
            scanner.scan(b"\rx"),
            Ok(Scan::Partial { len: 2, missing: 1 })
        );
        let end = Scan::Complete {
            len: 2,
            kind: ReplyKind::Simple,
        };
        assert_eq!(scanner.scan(b"\r\n"), Ok(end));
        assert_eq!(scanner.scan(b"+OK\r\n").map(|_| ()), Ok(()));
    }

    #[test]
    fn a_line_that_came_in_two_pieces_leaves_no_trace() {
        for opening in ["", "*3\r\n"] {
            let buf = format!("{opening}+OK\r\n+\r\n+x\r\n");
            let first = scan(buf.as_bytes());
            for cut in 1..buf.len() {
                let mut scanner = ReplyScanner::default();
                let found = scanner.scan(&buf.as_bytes()[..cut]);
                let (Ok(Scan::Partial { len, .. }), Ok(Scan::Complete { len: end, kind })) =
                    (found, first)
                else {
                    continue;
                };
                let rest = Scan::Complete {
                    len: end - len,
                    kind,
                };
                assert_eq!(
                    scanner.scan(&buf.as_bytes()[len..]),
                    Ok(rest),
                    "{opening:?} {cut}"
                );
                let empty = Scan::Complete {
                    len: 3,
                    kind: ReplyKind::Simple,
                };
                assert_eq!(scanner.scan(b"+\r\n"), Ok(empty), "{opening:?} {cut}");
            }
        }
    }

    #[test]
    fn bytes_already_seen_are_not_read_again() {
        let element = [&b"$270\r\n"[..], &[b'v'; 270], b"\r\n"].concat();
        let buf = [&b"*1000\r\n"[..], &element.repeat(1000)].concat();
        let (mut scanner, mut start, mut again) = (ReplyScanner::default(), 0, 0);
        for end in (1460..buf.len()).step_by(1460) {
            let found = scanner.scan(&buf[start..end]);
            let Ok(Scan::Partial { len, .. }) = found else {
                panic!("{found:?}")
            };
            start += len;
            again += end - start;
        }
        let end = Scan::Complete {
            len: buf.len() - start,
            kind: ReplyKind::Array,
        };
        assert_eq!(scanner.scan(&buf[start..]), Ok(end));
        // Of each piece at most a header or half a CRLF comes again.
        assert!(again <= 6 * buf.len().div_ceil(1460), "{again} bytes");
        let mut scanner = ReplyScanner::default();
        for end in 1..1000 {
            let found = scanner.scan(&[&b"+"[..], &[b'x'; 1000]].concat()[..end]);
            assert_eq!(found, Ok(Scan::Partial { len: 0, missing: 1 }));
            assert_eq!(scanner.searched, end - 1);
        }
    }
}
