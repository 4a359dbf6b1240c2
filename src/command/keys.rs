//! Floor 1. Which arguments of a request are keys.
//! Must not know what is done with a key.

use crate::command::options::StreamOptions;
use crate::resp::{Request, is_word};

/// Where the keys stand among the words of a request; word 0 is the command's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpec {
    /// It touches no key.
    None,
    /// It touches keys that its words do not tell: all of them, those of a pattern, or those of a
    /// module's command that only the module can find.
    Any,
    /// Words `first`, `first + step`, … up to `last`; a negative `last` counts from the end, −1
    /// being the last word.
    Range {
        /// The first key, at least 1.
        first: u8,
        /// The last one.
        last: i8,
        /// Distance from one key to the next, at least 1.
        step: u8,
    },
    /// Word `at` is the number of keys that follow it.
    Counted {
        /// Position of the number.
        at: u8,
        /// Distance from one key to the next.
        step: u8,
        /// Whether word 1 is a key too.
        destination: bool,
    },
    /// The first half of the words behind `STREAMS`.
    Streams,
    /// Word 1, and what follows `STORE` or `STOREDIST`.
    Store,
    /// Word 3, or, if that is empty, the words behind `KEYS`.
    Migrate,
}

/// Whether the keys of a request are told by its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Keys {
    /// The ones visited are all, or more than all.
    Told,
    /// Any key may be touched.
    Untold,
}

impl KeySpec {
    /// Whether the first argument is the only key.
    #[inline]
    pub const fn is_arg1(self) -> bool {
        matches!(
            self,
            Self::Range {
                first: 1,
                last: 1,
                ..
            }
        )
    }

    /// Calls `visit` with each key of `request`, a key twice if it stands there twice.
    ///
    /// Words that do not fit the command's grammar, which the server will answer with an error,
    /// give too many keys or too few.
    #[inline]
    pub fn visit<'a>(self, request: &Request<'a>, visit: impl FnMut(&'a [u8])) -> Keys {
        match self {
            Self::None => Keys::Told,
            Self::Any => Keys::Untold,
            Self::Range {
                first: 1, last: 1, ..
            } => {
                request.arg1().into_iter().for_each(visit);
                Keys::Told
            }
            _ => self.search(request, visit),
        }
    }

    fn search<'a>(self, request: &Request<'a>, mut visit: impl FnMut(&'a [u8])) -> Keys {
        let (argc, words) = (request.argc(), request.args());
        match self {
            Self::None => {}
            Self::Any => return Keys::Untold,
            Self::Range { first, last, step } => {
                let end = match usize::try_from(last) {
                    Ok(last) => last.saturating_add(1),
                    Err(_) => (argc + 1).saturating_sub(usize::from(last.unsigned_abs())),
                };
                let first = usize::from(first);
                let keys = words
                    .take(end)
                    .skip(first)
                    .step_by(usize::from(step.max(1)));
                keys.for_each(visit);
            }
            Self::Counted {
                at,
                step,
                destination,
            } => {
                if destination {
                    words.clone().nth(1).into_iter().for_each(&mut visit);
                }
                let mut rest = words.skip(usize::from(at));
                let count = rest.next().and_then(number).unwrap_or(0);
                rest.step_by(usize::from(step.max(1)))
                    .take(count)
                    .for_each(visit);
            }
            Self::Streams => {
                if let Some(first) = StreamOptions::of(words.clone()).keys {
                    let half = argc.saturating_sub(first) / 2;
                    words.skip(first).take(half).for_each(visit);
                }
            }
            Self::Store => {
                words.clone().nth(1).into_iter().for_each(&mut visit);
                let options = words.clone().skip(2).zip(words.skip(3));
                let stores = options.filter(|(option, _)| is_store(option));
                stores.for_each(|(_, destination)| visit(destination));
            }
            Self::Migrate => match words.clone().nth(3) {
                Some([]) => {
                    let mut options = words.skip(6);
                    if options.any(|word| is_word(word, b"keys")) {
                        options.for_each(visit);
                    }
                }
                key => key.into_iter().for_each(visit),
            },
        }
        Keys::Told
    }
}

fn is_store(word: &[u8]) -> bool {
    is_word(word, b"store") || is_word(word, b"storedist")
}

fn number(word: &[u8]) -> Option<usize> {
    std::str::from_utf8(word).ok()?.parse().ok()
}
