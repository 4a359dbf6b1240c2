//! Floor 0. The two small things every frame is made of: a strict number line and a CRLF.
//! The only place that turns digits into lengths. Knows no frame.

/// What stands at the front of some bytes where `<number>\r\n` is expected.
#[derive(Debug)]
pub(super) enum Number<'a> {
    /// The number, and the bytes behind its CRLF.
    Whole { value: i64, rest: &'a [u8] },
    /// A good beginning; more bytes decide.
    Incomplete,
    /// Not a number as Redis's `string2ll` wants it: no plus, no spaces, no leading zeros, 64 bit.
    Malformed,
    /// A number whose carriage return is not followed by a line feed.
    NotCrlf,
}

/// What stands at the front of some bytes where CRLF is expected.
#[derive(Debug)]
pub(super) enum Crlf<'a> {
    /// CRLF, and the bytes behind it.
    Whole { rest: &'a [u8] },
    /// This many bytes of it have not come yet.
    Incomplete { missing: usize },
    /// Something else.
    Wrong,
}

/// Reads the length or count in `<number>\r\n`, and what is behind it.
///
/// `None` if there is more to say about it, which [`number`] does.
#[expect(
    clippy::inline_always,
    reason = "the tuple would come back through memory, four times for each command"
)]
#[inline(always)]
pub(super) fn length(text: &[u8]) -> Option<(usize, &[u8])> {
    match text {
        [ones @ b'0'..=b'9', b'\r', b'\n', rest @ ..] => {
            Some((usize::from(ones.wrapping_sub(b'0')), rest))
        }
        [
            tens @ b'1'..=b'9',
            ones @ b'0'..=b'9',
            b'\r',
            b'\n',
            rest @ ..,
        ] => {
            let tens = usize::from(tens.wrapping_sub(b'0'));
            let ones = usize::from(ones.wrapping_sub(b'0'));
            Some((tens.wrapping_mul(10).wrapping_add(ones), rest))
        }
        _ => match number(text) {
            Number::Whole { value, rest } => Some((usize::try_from(value).ok()?, rest)),
            _ => None,
        },
    }
}

/// Reads a whole `<number>\r\n<bytes>\r\n` of at most `max` bytes, and what is behind it.
///
/// `None` if there is more to say about it.
#[inline]
pub(super) fn bulk(text: &[u8], max: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = length(text)?;
    if length > max {
        return None;
    }
    match rest.split_at_checked(length)? {
        (body, [b'\r', b'\n', rest @ ..]) => Some((body, rest)),
        _ => None,
    }
}

/// Reads `<number>\r\n`.
pub(super) fn number(text: &[u8]) -> Number<'_> {
    let (negative, mut rest) = match text {
        [b'-', digits @ ..] => (true, digits),
        _ => (false, text),
    };
    let mut value = None;
    loop {
        // A zero stands alone: neither `-0` nor `007` is what Redis prints or takes.
        let complete = value.is_some_and(|value| !(negative && value == 0));
        match rest {
            [figure @ b'0'..=b'9', tail @ ..] => {
                let Some(longer) = append(value, *figure, negative) else {
                    return Number::Malformed;
                };
                value = Some(longer);
                rest = tail;
            }
            [] => return Number::Incomplete,
            [b'\r', tail @ ..] if complete => {
                return match (value, tail) {
                    (_, []) => Number::Incomplete,
                    (Some(value), [b'\n', rest @ ..]) => Number::Whole { value, rest },
                    _ => Number::NotCrlf,
                };
            }
            _ => return Number::Malformed,
        }
    }
}

/// Reads CRLF.
#[inline]
pub(super) fn crlf(text: &[u8]) -> Crlf<'_> {
    match text {
        [b'\r', b'\n', rest @ ..] => Crlf::Whole { rest },
        [] => Crlf::Incomplete { missing: 2 },
        [b'\r'] => Crlf::Incomplete { missing: 1 },
        _ => Crlf::Wrong,
    }
}

fn append(value: Option<i64>, figure: u8, negative: bool) -> Option<i64> {
    let figure = digit(figure);
    match value {
        None => Some(if negative {
            figure.wrapping_neg()
        } else {
            figure
        }),
        Some(0) => None,
        Some(value) if negative => value.checked_mul(10)?.checked_sub(figure),
        Some(value) => value.checked_mul(10)?.checked_add(figure),
    }
}

fn digit(figure: u8) -> i64 {
    i64::from(figure.wrapping_sub(b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<i64> {
        match number(text.as_bytes()) {
            Number::Whole { value, rest } => {
                assert_eq!(rest, b"+", "{text:?}");
                Some(value)
            }
            Number::Malformed => None,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn numbers_are_read_as_redis_prints_them() {
        for value in [
            0,
            1,
            9,
            10,
            42,
            99,
            100,
            65_536,
            -1,
            -10,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(read(&format!("{value}\r\n+")), Some(value));
        }
    }

    #[test]
    fn numbers_in_any_other_dress_are_refused() {
        let bad = "|-|+1| 1|1 |01|00|-0|-01|--1|1a|abc|0x1|1\n|9223372036854775808|\
                   -9223372036854775809|99999999999999999999999999";
        for text in bad.split('|') {
            assert_eq!(read(&format!("{text}\r\n+")), None, "{text:?}");
        }
    }

    #[test]
    fn a_beginning_asks_for_more() {
        for text in ["", "-", "1", "12", "123", "1\r", "12\r", "-5\r"] {
            assert!(
                matches!(number(text.as_bytes()), Number::Incomplete),
                "{text:?}"
            );
        }
        for text in ["1\rX", "12\r\r", "123\rX"] {
            assert!(
                matches!(number(text.as_bytes()), Number::NotCrlf),
                "{text:?}"
            );
        }
    }
}
