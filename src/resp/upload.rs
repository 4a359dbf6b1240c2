//! Floor 0. A request that is too large to be kept until it is whole: what is there of it, and how
//! much of what comes next still belongs to it.
//! Holds nothing of it; the rules are those of [`RequestDecoder`](crate::resp::RequestDecoder).

use crate::resp::cursor::{self, Number};
use crate::resp::limits::RequestLimits;
use crate::resp::request::{Request, RequestError, allowed_bulk};

/// Arguments that such a request may have: they are read again while it waits for its place.
const ARGS_MAX: usize = 1024;

/// Bytes of a CRLF.
const CRLF: usize = 2;

/// What is still to come of a request whose beginning was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Bytes of the present argument with its CRLF.
    body: usize,
    /// Arguments behind it.
    args: usize,
}

impl Upload {
    /// The request at the front of `buf` if it goes on beyond the end of it with an argument of
    /// which at least `missing` bytes have not come, and what they belong to.
    ///
    /// The request's raw bytes are all of `buf`. It has its name, its first argument if that is
    /// there, and the number of all that were announced. `None` for everything else, among which
    /// are requests of more than a thousand arguments.
    pub fn begin<'a>(
        buf: &'a [u8],
        limits: &RequestLimits,
        missing: usize,
    ) -> Option<(Request<'a>, Self)> {
        let (max_args, max_bulk) = limits.in_force();
        let (argc, rest) = cursor::length(buf.strip_prefix(b"*")?)?;
        if argc > max_args.min(ARGS_MAX) {
            return None;
        }
        let (name, mut rest) = cursor::bulk(rest.strip_prefix(b"$")?, max_bulk)?;
        let mut first = None;
        let mut left = argc.checked_sub(1)?;
        loop {
            left = left.checked_sub(1)?;
            let arg = rest.strip_prefix(b"$")?;
            if let Some((body, behind)) = cursor::bulk(arg, max_bulk) {
                first = first.or(Some(body));
                rest = behind;
                continue;
            }
            let (length, begun) = cursor::length(arg)?;
            let to_come = length.checked_sub(begun.len())?;
            if length > max_bulk || to_come < missing {
                return None;
            }
            let upload = Self {
                body: to_come.saturating_add(CRLF),
                args: left,
            };
            return Some((Request::begun(buf, name, first, argc), upload));
        }
    }

    /// How many bytes at the front of `bytes` belong to the request. Fewer than there are: a
    /// header is not whole, or the request is, which [`Upload::is_done`] tells.
    pub fn take(&mut self, bytes: &[u8], limits: &RequestLimits) -> Result<usize, RequestError> {
        let mut rest = bytes;
        loop {
            let body = self.body.saturating_sub(CRLF).min(rest.len());
            self.body = self.body.saturating_sub(body);
            rest = rest.get(body..).unwrap_or_default();
            while let 1..=CRLF = self.body
                && let Some((next, behind)) = rest.split_first()
            {
                let due = if self.body == CRLF { b'\r' } else { b'\n' };
                if *next != due {
                    return Err(RequestError::BulkNotCrlf);
                }
                self.body = self.body.saturating_sub(1);
                rest = behind;
            }
            if self.body > 0 || self.args == 0 || rest.is_empty() {
                break;
            }
            let Some(length) = rest.strip_prefix(b"$") else {
                let got = rest.first().copied().unwrap_or_default();
                return Err(RequestError::ExpectedBulk { got });
            };
            match cursor::number(length) {
                Number::Whole {
                    value,
                    rest: behind,
                } => {
                    self.body = allowed_bulk(value, limits)?.saturating_add(CRLF);
                    self.args = self.args.saturating_sub(1);
                    rest = behind;
                }
                Number::Incomplete => break,
                Number::Malformed => return Err(RequestError::InvalidBulk),
                Number::NotCrlf => return Err(RequestError::HeaderNotCrlf),
            }
        }
        Ok(bytes.len().saturating_sub(rest.len()))
    }

    /// Whether nothing is to come any more.
    pub const fn is_done(&self) -> bool {
        self.body == 0 && self.args == 0
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test that slices out of bounds fails, as it should"
    )]

    use proptest::prelude::*;

    use super::*;

    const OPEN: RequestLimits = RequestLimits::AUTHENTICATED;

    fn begin(text: &[u8]) -> Option<(usize, Upload)> {
        let (request, upload) = Upload::begin(text, &OPEN, 5)?;
        assert_eq!(request.raw(), text);
        Some((request.argc(), upload))
    }

    #[test]
    fn a_large_argument_that_is_not_whole_begins_one() {
        let begun = b"*4\r\n$5\r\nSETEX\r\n$1\r\nk\r\n$9\r\n123";
        let (request, upload) = Upload::begin(begun, &OPEN, 5).unwrap();
        assert_eq!(request.name(), b"SETEX");
        assert_eq!(request.arg1(), Some(&b"k"[..]));
        assert_eq!(request.argc(), 4);
        assert_eq!(upload, Upload { body: 8, args: 1 });
        // Of the first argument nothing is known until it is whole.
        let (request, _) = Upload::begin(b"*2\r\n$3\r\nGET\r\n$9\r\n123", &OPEN, 5).unwrap();
        assert_eq!(request.arg1(), None);
    }

    #[test]
    fn everything_else_begins_none() {
        for text in [
            &b""[..],
            b"PING\r\n",
            b"*0\r\n",
            b"*2\r\n$9\r\n123",
            b"*2\r\n$3\r\nGET\r\n$9\r",
            b"*2\r\n$3\r\nGET\r\n$9\r\n12345",
            b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n",
            b"*2\r\n$3\r\nGET\r\n$2\r\nab++",
            b"*2\r\n$3\r\nGET\r\n:9\r\n",
            b"*2\r\n$3\r\nGET\r\n$536870913\r\n",
            b"*1025\r\n$3\r\nDEL\r\n$9\r\n",
        ] {
            assert_eq!(begin(text), None, "{}", text.escape_ascii());
        }
        let closed = RequestLimits::UNAUTHENTICATED;
        assert!(Upload::begin(b"*2\r\n$3\r\nGET\r\n$16385\r\n", &closed, 5).is_none());
        assert!(Upload::begin(b"*2\r\n$3\r\nGET\r\n$16384\r\n", &closed, 5).is_some());
    }

    #[test]
    fn what_is_wrong_in_the_rest_is_said_as_ever() {
        let check = |text: &[u8], want: RequestError| {
            let mut upload = Upload { body: 4, args: 1 };
            assert_eq!(upload.take(text, &OPEN), Err(want));
        };
        check(b"ab++", RequestError::BulkNotCrlf);
        check(b"ab\r+", RequestError::BulkNotCrlf);
        check(b"ab\r\n:1\r\n", RequestError::ExpectedBulk { got: b':' });
        check(b"ab\r\n$x\r\n", RequestError::InvalidBulk);
        check(b"ab\r\n$-1\r\n", RequestError::InvalidBulk);
        check(b"ab\r\n$536870913\r\n", RequestError::InvalidBulk);
        check(b"ab\r\n$1\r+", RequestError::HeaderNotCrlf);
    }

    proptest! {
        /// However the bytes are cut, all of the request is taken and nothing behind it.
        #[test]
        fn the_rest_ends_where_the_request_ends(
            lengths in prop::collection::vec(0_usize..40, 1..6),
            cuts in prop::collection::vec(1_usize..30, 0..40),
        ) {
            let mut bytes = Vec::new();
            for (at, length) in lengths.iter().enumerate() {
                if at > 0 {
                    bytes.extend_from_slice(format!("${length}\r\n").as_bytes());
                }
                bytes.extend(std::iter::repeat_n(b'\r', *length));
                bytes.extend_from_slice(b"\r\n");
            }
            let end = bytes.len();
            bytes.extend_from_slice(b"$1\r\nx\r\n");
            let mut upload = Upload { body: lengths[0] + 2, args: lengths.len() - 1 };
            let (mut taken, mut there) = (0, 0);
            let mut cuts = cuts.into_iter();
            while !upload.is_done() {
                there = bytes.len().min(there + cuts.next().unwrap_or(1_000));
                taken += upload.take(&bytes[taken..there], &OPEN).unwrap();
            }
            prop_assert_eq!(taken, end);
        }
    }
}
