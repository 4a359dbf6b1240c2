//! Floor 0. Writes requests and replies at the end of a caller's buffer.
//! Owns the differences between RESP2 and RESP3 in print. Knows no command and no error table.

use crate::types::Protocol;

/// Decimal figures of the longest number, `u64::MAX`.
const FIGURES: usize = 20;

/// Writes a request: `args` as an array of bulks, the command's name first.
pub fn request(out: &mut Vec<u8>, args: &[&[u8]]) {
    array_header(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// Writes the simple string `text`; line breaks become spaces, as Redis does it.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text.as_bytes());
}

/// Writes the error `text`, which begins with its code (`ERR ...`); line breaks become spaces.
pub fn error(out: &mut Vec<u8>, text: &str) {
    error_bytes(out, text.as_bytes());
}

/// The same for a text that repeats a client's bytes, whatever they are.
pub fn error_bytes(out: &mut Vec<u8>, text: &[u8]) {
    line(out, b'-', text);
}

/// Writes an integer.
pub fn integer(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    if value < 0 {
        out.push(b'-');
    }
    decimal(out, value.unsigned_abs());
    out.extend_from_slice(b"\r\n");
}

/// Writes a bulk string.
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    bulk_header(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Writes a verbatim string of format `txt`; a bulk string in RESP2.
///
/// Redis answers so where people are to read it: INFO, CLIENT LIST, CLIENT INFO.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &[u8]) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            out.push(b'=');
            // The format and its colon belong to the length.
            length(out, text.len().saturating_add(4));
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Writes the null that stands for a missing string; `$-1` in RESP2.
pub fn null(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Writes the null that stands for a missing array (an EXEC that failed); `*-1` in RESP2.
pub fn null_array(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"*-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Writes the head of an array; `n` values follow.
pub fn array_header(out: &mut Vec<u8>, n: usize) {
    out.push(b'*');
    length(out, n);
}

/// Writes the head of a map; `n` pairs of values follow. A flat array of 2`n` in RESP2.
pub fn map_header(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array_header(out, n.saturating_mul(2)),
        Protocol::Resp3 => {
            out.push(b'%');
            length(out, n);
        }
    }
}

/// Writes the head of a set; `n` values follow. An array in RESP2.
pub fn set_header(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array_header(out, n),
        Protocol::Resp3 => {
            out.push(b'~');
            length(out, n);
        }
    }
}

/// Writes the head of an out-of-band push; `n` values follow. An array in RESP2.
pub fn push_header(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array_header(out, n),
        Protocol::Resp3 => {
            out.push(b'>');
            length(out, n);
        }
    }
}

/// Writes the head of a bulk string; `length` bytes and CRLF follow.
pub(super) fn bulk_header(out: &mut Vec<u8>, bytes: usize) {
    out.push(b'$');
    length(out, bytes);
}

fn length(out: &mut Vec<u8>, length: usize) {
    decimal(out, u64::try_from(length).unwrap_or(u64::MAX));
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, lead: u8, text: &[u8]) {
    out.push(lead);
    out.extend(text.iter().map(|byte| match *byte {
        b'\r' | b'\n' => b' ',
        other => other,
    }));
    out.extend_from_slice(b"\r\n");
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut figures = [b'0'; FIGURES];
    let mut start = FIGURES;
    for slot in figures.iter_mut().rev() {
        *slot = b'0'.wrapping_add(u8::try_from(value % 10).unwrap_or_default());
        start = start.saturating_sub(1);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(figures.get(start..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"before|".to_vec();
        write(&mut out);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn values_are_printed_as_redis_prints_them() {
        let check = |got: String, want: &str| assert_eq!(got, want);
        check(
            written(|out| request(out, &[b"GET", b"k"])),
            "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        );
        check(written(|out| simple(out, "OK")), "+OK\r\n");
        check(
            written(|out| error(out, "ERR no such thing")),
            "-ERR no such thing\r\n",
        );
        check(written(|out| integer(out, 0)), ":0\r\n");
        check(written(|out| integer(out, -42)), ":-42\r\n");
        check(
            written(|out| integer(out, i64::MIN)),
            ":-9223372036854775808\r\n",
        );
        check(
            written(|out| integer(out, i64::MAX)),
            ":9223372036854775807\r\n",
        );
        check(written(|out| bulk(out, b"")), "$0\r\n\r\n");
        check(
            written(|out| bulk(out, b"0123456789")),
            "$10\r\n0123456789\r\n",
        );
        check(written(|out| array_header(out, 1_048_576)), "*1048576\r\n");
        check(
            written(|out| decimal(out, u64::MAX)),
            "18446744073709551615",
        );
    }

    #[test]
    fn the_protocol_decides_the_shape() {
        use Protocol::{Resp2, Resp3};
        let check = |write: &dyn Fn(&mut Vec<u8>, Protocol), resp2: &str, resp3: &str| {
            assert_eq!(written(|out| write(out, Resp2)), resp2);
            assert_eq!(written(|out| write(out, Resp3)), resp3);
        };
        check(&null, "$-1\r\n", "_\r\n");
        check(&null_array, "*-1\r\n", "_\r\n");
        check(
            &|out, protocol| map_header(out, protocol, 7),
            "*14\r\n",
            "%7\r\n",
        );
        check(
            &|out, protocol| set_header(out, protocol, 3),
            "*3\r\n",
            "~3\r\n",
        );
        check(
            &|out, protocol| push_header(out, protocol, 3),
            "*3\r\n",
            ">3\r\n",
        );
        check(
            &|out, protocol| verbatim(out, protocol, b"hi"),
            "$2\r\nhi\r\n",
            "=6\r\ntxt:hi\r\n",
        );
    }

    #[test]
    fn a_line_cannot_be_broken_from_inside() {
        assert_eq!(
            written(|out| error(out, "ERR a\r\n+OK\r\n")),
            "-ERR a  +OK  \r\n"
        );
        assert_eq!(written(|out| simple(out, "a\nb")), "+a b\r\n");
    }
}
