//! Floor 1. The options of `XREAD` and `XREADGROUP`, which decide whether and on what they wait.
//! Must not know what follows from them.

use crate::resp::is_word;

/// Where things stand among the words of an `XREAD` or `XREADGROUP`; word 0 is the name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamOptions {
    /// Position of the milliseconds behind `BLOCK`.
    pub(super) block: Option<usize>,
    /// Position of the first key, behind `STREAMS`.
    pub(super) keys: Option<usize>,
}

impl StreamOptions {
    /// Reads the options in `words`, the name included.
    ///
    /// A value is never taken for an option, so that a group may be called `block`. A word that is
    /// no option here is passed over: the server may be younger than this text.
    pub(super) fn of<'a>(words: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut found = Self::default();
        let mut values = 0;
        for (position, word) in words.enumerate().skip(1) {
            if values > 0 {
                values -= 1;
            } else if is_word(word, b"streams") {
                found.keys = Some(position + 1);
                break;
            } else if is_word(word, b"block") {
                found.block = Some(position + 1);
                values = 1;
            } else if is_word(word, b"count") || is_word(word, b"claim") {
                values = 1;
            } else if is_word(word, b"group") {
                values = 2;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_from_values() {
        let check = |text: &str, block: Option<usize>, keys: Option<usize>| {
            let found = StreamOptions::of(text.split(' ').map(str::as_bytes));
            assert_eq!(found, StreamOptions { block, keys }, "{text}");
        };
        check("XREAD STREAMS a 0", None, Some(2));
        check("xread block 0 streams a 0", Some(2), Some(4));
        check("XREAD COUNT 2 Block 10 STREAMS a 0", Some(4), Some(6));
        check("XREAD STREAMS block 0", None, Some(2));
        check("XREADGROUP GROUP block streams STREAMS a >", None, Some(5));
        check(
            "XREADGROUP GROUP g c BLOCK 5 NOACK STREAMS a >",
            Some(5),
            Some(8),
        );
        check("XREADGROUP GROUP g c CLAIM 5 STREAMS a >", None, Some(7));
        check("XREAD NEWER BLOCK 5 STREAMS a 0", Some(3), Some(5));
        check("XREAD", None, None);
        check("XREAD BLOCK", Some(2), None);
    }
}
