//! Floor 3. Words and numbers as Redis reads them: C strings end at a zero byte, and a number has
//! one spelling only.

use crate::resp::is_word;

/// What C functions see of a word: nothing from the first zero byte on.
pub(super) fn c_text(word: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, word).unwrap_or(word.len());
    word.get(..end).unwrap_or(word)
}

/// Whether `word` is this option, in any case (`strcasecmp`).
pub(super) fn is(word: &[u8], option: &str) -> bool {
    is_word(word, option.as_bytes())
}

/// A whole number as Redis takes it (util.c, `string2ll`): no sign but one minus, no leading zero,
/// nothing around it.
pub(super) fn integer(word: &[u8]) -> Option<i64> {
    let figures = word.strip_prefix(b"-").unwrap_or(word);
    let plain = match figures.first()? {
        b'0' => word == b"0",
        _ => figures.iter().all(u8::is_ascii_digit),
    };
    let text = std::str::from_utf8(word).ok().filter(|_| plain)?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for (word, want) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("", None),
            ("-", None),
            ("00", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            ("--1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("x", None),
        ] {
            assert_eq!(integer(word.as_bytes()), want, "{word}");
        }
        assert_eq!(integer(b"1\0"), None);
    }

    #[test]
    fn an_option_ends_at_a_zero_byte() {
        assert!(is(b"auth", "AUTH") && is(b"AuTh\0x", "AUTH"));
        assert!(!is(b"AUTHx", "AUTH") && !is(b"\0AUTH", "AUTH"));
        assert_eq!(c_text(b"a\xff\0b"), b"a\xff");
    }
}
