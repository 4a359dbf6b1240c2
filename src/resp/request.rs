//! Floor 0. Takes requests off the bytes of a client, one whole request at a time.
//! Owns Redis's rules and error texts of request framing. Knows no command and keeps no bytes.

use memchr::memchr;

use crate::resp::cursor::{self, Crlf, Number};
use crate::resp::limits::{LINE_MAX, RequestLimits, UNAUTHENTICATED_ARGS, UNAUTHENTICATED_BULK};
use crate::resp::{encode, inline};

/// Finds the requests in a client's bytes; one per client.
///
/// Stricter than Redis in one thing: each CRLF of an array is checked, because a request is
/// forwarded as it came, and what one parser skips another may obey. In exchange two things do
/// not depend on how the bytes were cut: what a request is, and what is too long.
#[derive(Clone, Debug, Default)]
pub struct RequestDecoder {
    /// Where the first argument that is not whole begins, 0 before the third argument.
    resume: usize,
    /// Arguments from `resume` on.
    left: usize,
    /// The line that is not whole has no terminator before this offset.
    searched: usize,
}

/// What [`RequestDecoder::decode`] found at the front of its bytes.
#[derive(Clone, Copy, Debug)]
#[must_use = "bytes that are not consumed are decoded again"]
pub enum Decoded<'a> {
    /// A whole request.
    Request {
        /// The request.
        request: Request<'a>,
        /// Its bytes in the buffer, to be skipped before the next call.
        consumed: usize,
    },
    /// Something Redis skips without a reply: an empty line, or an array of no elements.
    Nothing {
        /// Its bytes in the buffer, to be skipped before the next call.
        consumed: usize,
    },
    /// The beginning of a request.
    Incomplete {
        /// No request is whole before this many more bytes, at least 1. For an argument the rest
        /// of it with its CRLF, however large.
        missing: usize,
    },
}

/// Why a client's bytes are no request. Redis answers with the text and closes the connection.
///
/// The texts are Redis's own (`networking.c`); the two about CRLF are ours, in Redis's manner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// An inline command longer than [`LINE_MAX`].
    #[error("too big inline request")]
    InlineTooBig,
    /// An inline command with a quote left open, or one that ends inside a word.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// No end of the `*` header within [`LINE_MAX`].
    #[error("too big mbulk count string")]
    CountTooBig,
    /// The number of arguments is no number, or above [`RequestLimits::max_args`].
    #[error("invalid multibulk length")]
    InvalidCount,
    /// More than [`UNAUTHENTICATED_ARGS`] arguments before authentication.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    /// No end of a `$` header within [`LINE_MAX`].
    #[error("too big bulk count string")]
    BulkLineTooBig,
    /// An argument that does not begin with `$`.
    #[error("expected '$', got '{}'", got.escape_ascii())]
    ExpectedBulk {
        /// The byte in its place.
        got: u8,
    },
    /// The length of an argument is no number, negative, or above [`RequestLimits::max_bulk`].
    #[error("invalid bulk length")]
    InvalidBulk,
    /// More than [`UNAUTHENTICATED_BULK`] bytes in an argument before authentication.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// The carriage return behind a count or a length stands alone (Redis does not look).
    #[error("expected CRLF after length")]
    HeaderNotCrlf,
    /// An argument is not followed by CRLF (Redis does not look).
    #[error("expected CRLF after bulk")]
    BulkNotCrlf,
}

/// One whole request, as an array of bulks.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    raw: &'a [u8],
    name: &'a [u8],
    arg1: Option<&'a [u8]>,
    argc: usize,
}

/// The arguments of a request, its name first. Reads them anew from the raw bytes.
#[derive(Clone, Debug)]
pub struct Args<'a> {
    rest: &'a [u8],
    left: usize,
}

impl RequestDecoder {
    /// Looks for one request at the front of `buf`.
    ///
    /// `buf` holds all bytes not yet consumed. After [`Decoded::Incomplete`] the next call must
    /// be given the same bytes with more behind them; arguments already seen are not read again.
    /// An inline command is rewritten as an array of bulks into `inline`, whose former contents
    /// are lost; no other request touches it.
    ///
    /// After an error nothing else can be read from this client.
    #[inline]
    pub fn decode<'a>(
        &mut self,
        buf: &'a [u8],
        limits: &RequestLimits,
        inline: &'a mut Vec<u8>,
    ) -> Result<Decoded<'a>, RequestError> {
        if self.resume == 0
            && let Some((request, consumed)) = whole(buf, limits)
        {
            self.searched = 0;
            return Ok(Decoded::Request { request, consumed });
        }
        self.decode_rest(buf, limits, inline)
    }

    /// The request at the front of `buf`, and its length, if that is easily told: what comes behind
    /// one that was just decoded, seen early. Nothing is consumed. It is to be decoded all the
    /// same, or, under the same limits, to be taken for decoded.
    #[inline]
    pub fn look_ahead<'a>(
        &self,
        buf: &'a [u8],
        limits: &RequestLimits,
    ) -> Option<(Request<'a>, usize)> {
        // Between two requests there is nothing to remember.
        if self.resume == 0 && self.searched == 0 {
            whole(buf, limits)
        } else {
            None
        }
    }

    /// Decodes what is not simply a whole array.
    fn decode_rest<'a>(
        &mut self,
        buf: &'a [u8],
        limits: &RequestLimits,
        inline: &'a mut Vec<u8>,
    ) -> Result<Decoded<'a>, RequestError> {
        let found = match buf {
            [b'*', count @ ..] => self.array(buf, count, limits),
            [] => Err(Stop::Missing(1)),
            _ => self.inline(buf, inline),
        };
        match found {
            Ok(found) => {
                *self = Self::default();
                Ok(found)
            }
            Err(Stop::Missing(missing)) => Ok(Decoded::Incomplete { missing }),
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    fn array<'a>(
        &mut self,
        buf: &'a [u8],
        count: &'a [u8],
        limits: &RequestLimits,
    ) -> Result<Decoded<'a>, Stop> {
        let (argc, behind_count) = match cursor::number(count) {
            Number::Whole { value, rest } => (allowed_count(value, limits)?, rest),
            _ => return Err(self.odd_header(buf, buf, Header::Count)),
        };
        let Some(behind_name) = argc.checked_sub(1) else {
            return Ok(Decoded::Nothing {
                consumed: distance(buf, behind_count),
            });
        };
        // The name and the first argument are read again if the request came in pieces: their
        // bodies are skipped, not scanned, and so the decoder has no need to keep them.
        let (name, mut rest) = self.bulk(buf, behind_count, limits)?;
        let mut second = None;
        let mut left = behind_name;
        if let Some(behind_second) = behind_name.checked_sub(1) {
            let (body, behind) = self.bulk(buf, rest, limits)?;
            (second, rest, left) = (Some(body), behind, behind_second);
        }
        if self.resume != 0 {
            (rest, left) = (buf.get(self.resume..).unwrap_or_default(), self.left);
        }
        while let Some(fewer) = left.checked_sub(1) {
            match self.bulk(buf, rest, limits) {
                Ok((_, behind)) => (rest, left) = (behind, fewer),
                Err(stop) => {
                    (self.resume, self.left) = (distance(buf, rest), left);
                    return Err(stop);
                }
            }
        }
        let consumed = distance(buf, rest);
        let raw = buf.get(..consumed).unwrap_or_default();
        Ok(Decoded::Request {
            request: Request {
                raw,
                name,
                arg1: second,
                argc,
            },
            consumed,
        })
    }

    /// Reads the argument at the front of `rest`, a tail of `buf`; returns what is behind it too.
    fn bulk<'a>(
        &mut self,
        buf: &'a [u8],
        rest: &'a [u8],
        limits: &RequestLimits,
    ) -> Result<(&'a [u8], &'a [u8]), Stop> {
        let [b'$', length @ ..] = rest else {
            return Err(self.odd_header(buf, rest, Header::Bulk));
        };
        let (length, body) = match cursor::number(length) {
            Number::Whole { value, rest } => (allowed_bulk(value, limits)?, rest),
            _ => return Err(self.odd_header(buf, rest, Header::Bulk)),
        };
        let Some((body, tail)) = body.split_at_checked(length) else {
            let missing = length.saturating_sub(body.len());
            return Err(Stop::Missing(missing.saturating_add(2)));
        };
        match cursor::crlf(tail) {
            Crlf::Whole { rest } => Ok((body, rest)),
            Crlf::Incomplete { missing } => Err(Stop::Missing(missing)),
            Crlf::Wrong => Err(Stop::Fault(RequestError::BulkNotCrlf)),
        }
    }

    /// Decides about the header at the front of `line`, a tail of `buf`, that could not be read.
    ///
    /// Like Redis it looks for the end of the line first and at its contents then.
    #[cold]
    fn odd_header(&mut self, buf: &[u8], line: &[u8], header: Header) -> Stop {
        let [lead, number @ ..] = line else {
            return Stop::Missing(1);
        };
        let begun = match header {
            Header::Count => true,
            Header::Bulk => *lead == b'$',
        };
        let number = cursor::number(number);
        if begun && matches!(number, Number::Incomplete) {
            return Stop::Missing(1);
        }
        match self.terminator(buf, line, b'\r') {
            Terminator::At(_) if !begun => RequestError::ExpectedBulk { got: *lead }.into(),
            Terminator::At(_) if matches!(number, Number::NotCrlf) => {
                RequestError::HeaderNotCrlf.into()
            }
            Terminator::At(_) => header.invalid().into(),
            Terminator::NotYet => Stop::Missing(1),
            Terminator::TooFar => header.too_big().into(),
        }
    }

    #[cold]
    fn inline<'a>(&mut self, buf: &'a [u8], out: &'a mut Vec<u8>) -> Result<Decoded<'a>, Stop> {
        let end = match self.terminator(buf, buf, b'\n') {
            Terminator::At(end) => end,
            Terminator::NotYet => return Err(Stop::Missing(1)),
            Terminator::TooFar => return Err(RequestError::InlineTooBig.into()),
        };
        let line = buf.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let consumed = end.saturating_add(1);
        inline::rewrite(line, out).map_err(|_| RequestError::UnbalancedQuotes)?;
        let found = Request::from_raw(out).map(|request| Decoded::Request { request, consumed });
        Ok(found.unwrap_or(Decoded::Nothing { consumed }))
    }

    /// Looks for the byte `end` in `line`, a tail of `buf`, behind what was searched before.
    fn terminator(&mut self, buf: &[u8], line: &[u8], end: u8) -> Terminator {
        let start = distance(buf, line);
        // An end of two bytes makes a line no longer.
        let max = match line.get(LINE_MAX) {
            Some(b'\r') => LINE_MAX.saturating_add(1),
            _ => LINE_MAX,
        };
        let window = line.get(..=max).unwrap_or(line);
        let searched = self.searched.saturating_sub(start).min(window.len());
        match memchr(end, window.get(searched..).unwrap_or_default()) {
            Some(found) => Terminator::At(found.saturating_add(searched)),
            None if window.len() > max => Terminator::TooFar,
            None => {
                self.searched = start.saturating_add(window.len());
                Terminator::NotYet
            }
        }
    }
}

impl RequestError {
    /// Writes the whole reply, CRLF included, as Redis would: `-ERR Protocol error: ...`.
    pub fn reply(&self, out: &mut Vec<u8>) {
        let Self::ExpectedBulk { got } = *self else {
            return encode::error(out, &format!("ERR Protocol error: {self}"));
        };
        // Redis puts in the byte as it is, unless it would break the line.
        let got = if matches!(got, b'\r' | b'\n') {
            b' '
        } else {
            got
        };
        out.extend_from_slice(b"-ERR Protocol error: expected '$', got '");
        out.push(got);
        out.extend_from_slice(b"'\r\n");
    }
}

impl<'a> Request<'a> {
    /// Reads a request that was accepted before: exactly one array of bulks, no limits.
    pub fn from_raw(raw: &'a [u8]) -> Option<Self> {
        let (request, consumed) = whole(raw, &RequestLimits::NONE)?;
        (consumed == raw.len()).then_some(request)
    }

    /// One of which more is to come behind `raw`.
    pub(super) const fn begun(
        raw: &'a [u8],
        name: &'a [u8],
        first: Option<&'a [u8]>,
        argc: usize,
    ) -> Self {
        Self {
            raw,
            name,
            arg1: first,
            argc,
        }
    }

    /// The bytes to forward.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Number of arguments, the name included; at least 1.
    pub fn argc(&self) -> usize {
        self.argc
    }

    /// The command's name as the client wrote it, in any case; may be empty.
    pub fn name(&self) -> &'a [u8] {
        self.name
    }

    /// The argument behind the name: mostly the key.
    pub fn arg1(&self) -> Option<&'a [u8]> {
        self.arg1
    }

    /// All arguments, the name first.
    pub fn args(&self) -> Args<'a> {
        let count = self
            .raw
            .split_first()
            .and_then(|(_, count)| cursor::length(count));
        let rest = count.map(|(_, rest)| rest).unwrap_or_default();
        Args {
            rest,
            left: self.argc,
        }
    }

    /// Whether a browser may have been tricked into sending this: the name is `POST` or `Host:`.
    ///
    /// Redis closes such a connection without a reply (`securityWarningCommand`).
    pub fn is_cross_protocol(&self) -> bool {
        self.name.eq_ignore_ascii_case(b"post") || self.name.eq_ignore_ascii_case(b"host:")
    }
}

impl<'a> Iterator for Args<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let fewer = self.left.checked_sub(1)?;
        let (body, rest) = cursor::bulk(self.rest.strip_prefix(b"$")?, usize::MAX)?;
        (self.rest, self.left) = (rest, fewer);
        Some(body)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Args<'_> {}

/// Why a step could not be finished.
enum Stop {
    /// At least this many bytes have to come first.
    Missing(usize),
    Fault(RequestError),
}

impl From<RequestError> for Stop {
    fn from(fault: RequestError) -> Self {
        Self::Fault(fault)
    }
}

#[derive(Clone, Copy)]
enum Header {
    Count,
    Bulk,
}

impl Header {
    fn invalid(self) -> RequestError {
        match self {
            Self::Count => RequestError::InvalidCount,
            Self::Bulk => RequestError::InvalidBulk,
        }
    }

    fn too_big(self) -> RequestError {
        match self {
            Self::Count => RequestError::CountTooBig,
            Self::Bulk => RequestError::BulkLineTooBig,
        }
    }
}

enum Terminator {
    /// Offset in the line.
    At(usize),
    NotYet,
    TooFar,
}

/// Reads a whole array of bulks within its limits at the front of `buf`, and its length.
///
/// `None` says nothing but that [`RequestDecoder::decode_rest`] has to look. Of a request that
/// comes in pieces it reads the arguments that are there, once: the decoder goes on behind them.
#[expect(
    clippy::inline_always,
    reason = "a call leaves its result word by word; to move that on in larger pieces at once \
              waits until each word is stored"
)]
#[inline(always)]
fn whole<'a>(buf: &'a [u8], limits: &RequestLimits) -> Option<(Request<'a>, usize)> {
    let (max_args, max_bulk) = limits.in_force();
    let [b'*', count @ ..] = buf else { return None };
    let (argc, rest) = cursor::length(count)?;
    if argc > max_args {
        return None;
    }
    let mut left = argc.checked_sub(1)?;
    let [b'$', name @ ..] = rest else { return None };
    let (name, mut rest) = cursor::bulk(name, max_bulk)?;
    let mut second = None;
    while let Some(fewer) = left.checked_sub(1) {
        let [b'$', arg @ ..] = rest else { return None };
        let (body, behind) = cursor::bulk(arg, max_bulk)?;
        second = second.or(Some(body));
        (rest, left) = (behind, fewer);
    }
    let (raw, _) = buf.split_at_checked(distance(buf, rest))?;
    Some((
        Request {
            raw,
            name,
            arg1: second,
            argc,
        },
        raw.len(),
    ))
}

/// Bytes of `buf` before `tail`, which ends where `buf` ends.
#[inline]
fn distance(buf: &[u8], tail: &[u8]) -> usize {
    buf.len().saturating_sub(tail.len())
}

/// Arguments announced; none for the counts of 0 and below that Redis skips.
#[inline]
fn allowed_count(value: i64, limits: &RequestLimits) -> Result<usize, RequestError> {
    let Ok(count) = usize::try_from(value.max(0)) else {
        return Err(RequestError::InvalidCount);
    };
    if count > limits.max_args {
        return Err(RequestError::InvalidCount);
    }
    if count > UNAUTHENTICATED_ARGS && !limits.authenticated {
        return Err(RequestError::UnauthenticatedCount);
    }
    Ok(count)
}

#[inline]
pub(super) fn allowed_bulk(value: i64, limits: &RequestLimits) -> Result<usize, RequestError> {
    let Ok(length) = usize::try_from(value) else {
        return Err(RequestError::InvalidBulk);
    };
    if length > limits.max_bulk {
        return Err(RequestError::InvalidBulk);
    }
    if length > UNAUTHENTICATED_BULK && !limits.authenticated {
        return Err(RequestError::UnauthenticatedBulk);
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::indexing_slicing,
        reason = "a test that slices out of bounds fails, as it should"
    )]

    use super::*;

    const OPEN: RequestLimits = RequestLimits::AUTHENTICATED;
    const CLOSED: RequestLimits = RequestLimits::UNAUTHENTICATED;

    #[test]
    fn what_comes_next_is_seen_as_it_will_be_decoded() {
        let mut decoder = RequestDecoder::default();
        let mut inline = Vec::new();
        let bytes = b"PING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva";
        let (_, consumed) = request(decoder.decode(bytes, &OPEN, &mut inline));
        let behind = &bytes[consumed..];
        let (seen, len) = decoder.look_ahead(behind, &OPEN).unwrap();
        assert_eq!((seen.name(), seen.arg1()), (&b"GET"[..], Some(&b"k"[..])));
        let (came, consumed) = request(decoder.decode(behind, &OPEN, &mut inline));
        assert_eq!((came.raw(), consumed), (seen.raw(), len));

        let piece = &behind[len..];
        assert!(decoder.look_ahead(piece, &OPEN).is_none(), "not whole");
        let long = b"*2\r\n$3\r\nGET\r\n$20000\r\n";
        let long = [&long[..], &[b'k'; 20_000], b"\r\n"].concat();
        assert!(decoder.look_ahead(&long, &OPEN).is_some());
        assert!(decoder.look_ahead(&long, &CLOSED).is_none(), "not allowed");

        // In the middle of a request nothing else can come next.
        let begun = decoder.decode(piece, &OPEN, &mut inline);
        assert!(matches!(begun, Ok(Decoded::Incomplete { .. })));
        assert!(decoder.look_ahead(behind, &OPEN).is_none());
    }

    fn request(decoded: Result<Decoded<'_>, RequestError>) -> (Request<'_>, usize) {
        match decoded {
            Ok(Decoded::Request { request, consumed }) => (request, consumed),
            other => panic!("no request: {other:?}"),
        }
    }

    fn error(buf: &[u8], limits: &RequestLimits) -> Option<RequestError> {
        RequestDecoder::default()
            .decode(buf, limits, &mut Vec::new())
            .err()
    }

    fn missing(buf: &[u8], limits: &RequestLimits) -> Option<usize> {
        match RequestDecoder::default().decode(buf, limits, &mut Vec::new()) {
            Ok(Decoded::Incomplete { missing }) => Some(missing),
            _ => None,
        }
    }

    fn reply(buf: &[u8], limits: &RequestLimits) -> String {
        let mut out = Vec::new();
        error(buf, limits).expect("an error").reply(&mut out);
        out.escape_ascii().to_string()
    }

    #[test]
    fn protocol_errors_have_the_words_of_redis() {
        let check = |buf: &[u8], limits: &RequestLimits, text: &str| {
            assert_eq!(
                reply(buf, limits),
                format!(r"-ERR Protocol error: {text}\r\n")
            );
        };
        check(&[b'a'; LINE_MAX + 1], &OPEN, "too big inline request");
        check(b"GET \"k\r\n", &OPEN, "unbalanced quotes in request");
        check(
            &[b"*", &[b'1'; LINE_MAX][..]].concat(),
            &OPEN,
            "too big mbulk count string",
        );
        check(b"*1048577\r\n", &OPEN, "invalid multibulk length");
        check(b"*11\r\n", &CLOSED, "unauthenticated multibulk length");
        check(
            &[b"*1\r\n$", &[b'1'; LINE_MAX][..]].concat(),
            &OPEN,
            "too big bulk count string",
        );
        check(b"*1\r\n:1\r\n", &OPEN, r"expected \'$\', got \':\'");
        check(b"*1\r\n\r\n", &OPEN, r"expected \'$\', got \' \'");
        check(b"*1\r\n\xff\r\n", &OPEN, r"expected \'$\', got \'\xff\'");
        check(b"*1\r\n$536870913\r\n", &OPEN, "invalid bulk length");
        check(b"*1\r\n$16385\r\n", &CLOSED, "unauthenticated bulk length");
        check(b"*1\rX$4\r\n", &OPEN, "expected CRLF after length");
        check(b"*1\r\n$4\rXPING\r\n", &OPEN, "expected CRLF after length");
        check(b"*1\r\n$4\r\nPINGXX", &OPEN, "expected CRLF after bulk");
    }

    #[test]
    fn numbers_are_strict() {
        for bad in [
            "",
            "03",
            "+1",
            " 1",
            "1 ",
            "abc",
            "-",
            "-0",
            "0x1",
            "99999999999999999999",
        ] {
            let count = format!("*{bad}\r\n");
            assert_eq!(
                error(count.as_bytes(), &OPEN),
                Some(RequestError::InvalidCount),
                "{bad}"
            );
            let bulk = format!("*1\r\n${bad}\r\n");
            assert_eq!(
                error(bulk.as_bytes(), &OPEN),
                Some(RequestError::InvalidBulk),
                "{bad}"
            );
        }
        for bad in ["*1\r\n$-1\r\n", "*2\r\n$1\r\na\r\n$-5\r\n"] {
            assert_eq!(
                error(bad.as_bytes(), &OPEN),
                Some(RequestError::InvalidBulk),
                "{bad}"
            );
        }
    }

    #[test]
    fn limits_hold_exactly() {
        assert_eq!(missing(b"*1048576\r\n", &OPEN), Some(1));
        assert_eq!(missing(b"*1\r\n$536870912\r\n", &OPEN), Some(536_870_914));
        assert_eq!(missing(b"*10\r\n", &CLOSED), Some(1));
        assert_eq!(missing(b"*1\r\n$16384\r\n", &CLOSED), Some(16_386));
        // Past the common limits it is the common error, authenticated or not.
        assert_eq!(
            error(b"*1048577\r\n", &CLOSED),
            Some(RequestError::InvalidCount)
        );
        assert_eq!(
            error(b"*1\r\n$536870913\r\n", &CLOSED),
            Some(RequestError::InvalidBulk)
        );
        // Lines: the terminator may begin with the byte behind LINE_MAX, not later.
        let inline = [&[b'a'; LINE_MAX][..], b"\n"].concat();
        assert_eq!(missing(&inline[..LINE_MAX], &OPEN), Some(1));
        assert_eq!(error(&inline, &OPEN), None);
        let both = [&[b'a'; LINE_MAX][..], b"\r\n"].concat();
        assert_eq!(missing(&both[..=LINE_MAX], &OPEN), Some(1));
        assert_eq!(error(&both, &OPEN), None);
        for end in [&b"a\n"[..], b"a\r\n", b"\r\r\n", b"\ra"] {
            let long = [&[b'a'; LINE_MAX][..], end].concat();
            assert_eq!(error(&long, &OPEN), Some(RequestError::InlineTooBig));
        }
        for start in ["*", "*1\r\n$"] {
            let header = [start.as_bytes(), &[b'x'; LINE_MAX - 1]].concat();
            assert_eq!(missing(&header, &OPEN), Some(1), "{start}");
        }
    }

    #[test]
    fn nothing_is_allocated_for_an_announcement() {
        assert!(size_of::<RequestDecoder>() <= 48);
        let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
        let found = decoder.decode(b"*1048576\r\n$536870912\r\nx", &OPEN, &mut inline);
        assert!(matches!(
            found,
            Ok(Decoded::Incomplete {
                missing: 536_870_913
            })
        ));
        assert_eq!(inline.capacity(), 0);
    }

    #[test]
    fn a_request_gives_its_parts() {
        let raw = b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n$2\r\n\r\n\r\n";
        let request = Request::from_raw(raw).expect("a request");
        assert_eq!((request.raw(), request.argc()), (&raw[..], 4));
        assert_eq!(
            (request.name(), request.arg1()),
            (&b"SET"[..], Some(&b"k"[..]))
        );
        assert_eq!(request.args().len(), 4);
        assert_eq!(
            request.args().collect::<Vec<_>>(),
            [&b"SET"[..], b"k", b"", b"\r\n"]
        );
        let nameless = Request::from_raw(b"*1\r\n$0\r\n\r\n").expect("an empty name is a name");
        assert_eq!((nameless.name(), nameless.arg1()), (&b""[..], None));
        let none: [&[u8]; 5] = [
            b"",
            b"PING\r\n",
            b"*0\r\n",
            b"*1\r\n$1\r\n",
            b"*1\r\n$1\r\na\r\n+",
        ];
        for raw in none {
            assert!(Request::from_raw(raw).is_none(), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn browsers_are_recognized() {
        let check = |line: &[u8], want: bool| {
            let mut inline = Vec::new();
            let found = RequestDecoder::default().decode(line, &OPEN, &mut inline);
            let Ok(Decoded::Request { request, .. }) = found else {
                panic!("{found:?}")
            };
            assert_eq!(request.is_cross_protocol(), want);
        };
        check(b"POST / HTTP/1.1\r\n", true);
        check(b"host: example.org\r\n", true);
        check(b"*1\r\n$4\r\npost\r\n", true);
        check(b"GET / HTTP/1.1\r\n", false);
        check(b"Hostile\n", false);
    }

    #[test]
    fn arguments_already_seen_are_not_read_again() {
        let element = [&b"$270\r\n"[..], &[b'v'; 270], b"\r\n"].concat();
        let buf = [&b"*1000\r\n"[..], &element.repeat(1000)].concat();
        let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
        for end in (1460..buf.len()).step_by(1460) {
            let found = decoder.decode(&buf[..end], &OPEN, &mut inline);
            assert!(matches!(found, Ok(Decoded::Incomplete { .. })));
            assert!(end - decoder.resume < element.len(), "stopped before {end}");
        }
        let found = decoder.decode(&buf, &OPEN, &mut inline);
        assert!(matches!(found, Ok(Decoded::Request { request, .. }) if request.argc() == 1000));
    }

    #[test]
    fn a_line_is_searched_once() {
        for start in ["a", "*x", "*1\r\nx", "*3\r\n$1\r\na\r\n$1\r\nb\r\n$x"] {
            let buf = [start.as_bytes(), &[b'x'; 1000]].concat();
            let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
            for end in start.len()..buf.len() {
                let found = decoder.decode(&buf[..end], &OPEN, &mut inline);
                assert!(
                    matches!(found, Ok(Decoded::Incomplete { missing: 1 })),
                    "{start}"
                );
                assert_eq!(decoder.searched, end, "{start}");
            }
        }
    }
}
