//! Floor 0. Words as servers compare them: C strings, which end at a zero byte.

/// Whether a server takes `word` for this option, in any case (`strcasecmp`): nothing from the
/// first zero byte on counts.
pub fn is_word(word: &[u8], option: &[u8]) -> bool {
    let (text, rest) = word.split_at_checked(option.len()).unwrap_or((word, &[]));
    text.eq_ignore_ascii_case(option) && rest.first().is_none_or(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_ends_at_a_zero_byte() {
        for (word, want) in [
            (&b"block"[..], true),
            (b"BloCK", true),
            (b"block\0", true),
            (b"block\0x", true),
            (b"blockx", false),
            (b"bloc", false),
            (b"bloc\0", false),
            (b"\0block", false),
            (b"", false),
        ] {
            assert_eq!(is_word(word, b"block"), want, "{word:?}");
        }
    }
}
