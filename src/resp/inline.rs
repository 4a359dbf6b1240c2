//! Floor 0. Inline commands: one line of words, rewritten as an array of bulks.
//! Owns Redis's rules of quoting (`sdssplitargs`). Knows no limits: a line comes already bounded.

use crate::resp::encode;

/// A quote that is not closed, or is followed by something other than white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

/// Replaces the contents of `out` by the words of `line` as an array of bulks.
///
/// Returns the number of words; for 0 `out` is empty.
pub(super) fn rewrite(line: &[u8], out: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    out.clear();
    let mut words: usize = 0;
    let mut rest = line;
    while let Some(behind) = word(rest, |_| ())? {
        words = words.saturating_add(1);
        rest = behind;
    }
    if words == 0 {
        return Ok(0);
    }
    encode::array_header(out, words);
    rest = line;
    loop {
        let mut length: usize = 0;
        if word(rest, |_| length = length.saturating_add(1))?.is_none() {
            return Ok(words);
        }
        encode::bulk_header(out, length);
        rest = word(rest, |byte| out.push(byte))?.unwrap_or_default();
        out.extend_from_slice(b"\r\n");
    }
}

/// Hands the bytes of the first word of `line` to `emit`, quotes and escapes resolved.
///
/// Returns what stands behind the word, or `None` if there is none.
fn word(line: &[u8], mut emit: impl FnMut(u8)) -> Result<Option<&[u8]>, UnbalancedQuotes> {
    let Some(start) = line.iter().position(|byte| !is_space(*byte)) else {
        return Ok(None);
    };
    let mut rest = line.get(start..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => return Ok(Some(rest)),
            // Fewer bytes than `is_space` knows: a vertical tab begins no word, but ends none.
            [b' ' | b'\n' | b'\r' | b'\t', behind @ ..] => return Ok(Some(behind)),
            [b'"', quoted @ ..] => return double_quoted(quoted, emit).map(Some),
            [b'\'', quoted @ ..] => return single_quoted(quoted, emit).map(Some),
            [byte, behind @ ..] => {
                emit(*byte);
                behind
            }
        };
    }
}

fn double_quoted(mut rest: &[u8], mut emit: impl FnMut(u8)) -> Result<&[u8], UnbalancedQuotes> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, behind @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                emit(hex(*high).wrapping_shl(4) | hex(*low));
                behind
            }
            [b'\\', escaped, behind @ ..] => {
                emit(unescape(*escaped));
                behind
            }
            [b'"', behind @ ..] => return end_of_quote(behind),
            [byte, behind @ ..] => {
                emit(*byte);
                behind
            }
            [] => return Err(UnbalancedQuotes),
        };
    }
}

fn single_quoted(mut rest: &[u8], mut emit: impl FnMut(u8)) -> Result<&[u8], UnbalancedQuotes> {
    loop {
        rest = match rest {
            [b'\\', b'\'', behind @ ..] => {
                emit(b'\'');
                behind
            }
            [b'\'', behind @ ..] => return end_of_quote(behind),
            [byte, behind @ ..] => {
                emit(*byte);
                behind
            }
            [] => return Err(UnbalancedQuotes),
        };
    }
}

fn end_of_quote(behind: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match behind.first() {
        Some(byte) if !is_space(*byte) => Err(UnbalancedQuotes),
        _ => Ok(behind),
    }
}

/// C's `isspace`, which differs from `u8::is_ascii_whitespace` by the vertical tab.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(figure: u8) -> u8 {
    match figure {
        b'0'..=b'9' => figure.wrapping_sub(b'0'),
        _ => figure
            .to_ascii_lowercase()
            .wrapping_sub(b'a')
            .wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &[u8], want: &[&[u8]]) {
        let mut out = b"left over".to_vec();
        assert_eq!(
            rewrite(line, &mut out),
            Ok(want.len()),
            "{}",
            line.escape_ascii()
        );
        let mut expected = Vec::new();
        if !want.is_empty() {
            encode::request(&mut expected, want);
        }
        assert_eq!(
            out.escape_ascii().to_string(),
            expected.escape_ascii().to_string()
        );
    }

    #[test]
    fn words_are_split_and_quotes_resolved_as_redis_does() {
        check(b"", &[]);
        check(b" \t\r\x0b\x0c ", &[]);
        check(b"PING", &[b"PING"]);
        check(b"  SET  key\tvalue  ", &[b"SET", b"key", b"value"]);
        check(br#"SET k "a b" 'c d'"#, &[b"SET", b"k", b"a b", b"c d"]);
        check(br#"e "" ''"#, &[b"e", b"", b""]);
        check(
            br#"e "\n\r\t\b\a\\\"\q\x41\xfF\xg1""#,
            &[b"e", b"\n\r\t\x08\x07\\\"qA\xffxg1"],
        );
        check(br"e 'it\'s' 'a\nb'", &[b"e", b"it's", br"a\nb"]);
        check(br#"half"way there" on"#, &[b"halfway there", b"on"]);
        check(b"a\x0bb\x0b c", &[b"a\x0bb\x0b", b"c"]);
        check(b"a\0b c", &[b"a\0b", b"c"]);
        check(b"\xff\xfe", &[b"\xff\xfe"]);
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            r#"""#,
            "'",
            r#"a "b"#,
            "a 'b",
            r#"a "b"c"#,
            "a 'b'c",
            r#""\"#,
            r#""\""#,
        ] {
            assert_eq!(
                rewrite(line.as_bytes(), &mut Vec::new()),
                Err(UnbalancedQuotes),
                "{line}"
            );
        }
    }
}
