//! Floor 1. Finds a name among the known ones without allocation, in any case of letters.
//! Must not know what a name means.

/// Longest name, in bytes, that can be found. The longest of a server has 24.
pub(super) const NAME_MAX: usize = 32;

/// Most names in one index; the built-in ones are some 500.
pub(super) const NAMES_MAX: usize = 8192;

const EMPTY: u16 = u16::MAX;
const ODD: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xc2b2_ae3d_27d4_eb4f,
    0x1656_67b1_9e37_79f9,
    0xd6e8_feb8_6659_fd93,
    0xa076_1d64_78bd_642f,
];

/// A name, lower-cased, together with the container to which it belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    words: [u64; 4],
    /// Scope and length.
    whence: u64,
}

impl Key {
    /// The key of `text` in `scope`: 0 for commands, else 1 + the number of the container.
    ///
    /// `None` if `text` is empty or longer than [`NAME_MAX`].
    #[inline]
    pub(super) fn new(scope: u32, text: &[u8]) -> Option<Self> {
        let length = u8::try_from(text.len()).ok()?;
        let words = match text.len() {
            0 => return None,
            1..=8 => [lower(short(text)), 0, 0, 0],
            9..=NAME_MAX => long(text),
            _ => return None,
        };
        let whence = u64::from(scope) << 8 | u64::from(length);
        Some(Self { words, whence })
    }

    #[inline]
    fn hash(&self) -> u64 {
        let [a, b, c, d] = self.words;
        let mixed = a.wrapping_mul(ODD[0])
            ^ b.wrapping_mul(ODD[1])
            ^ c.wrapping_mul(ODD[2])
            ^ d.wrapping_mul(ODD[3])
            ^ self.whence.wrapping_mul(ODD[4]);
        (mixed ^ (mixed >> 32)).wrapping_mul(ODD[0])
    }

    /// The same as [`short_command`], for the name of a command.
    fn short_command(&self) -> Option<u64> {
        let [word, ..] = self.words;
        let length = usize::try_from(self.whence).ok()?;
        matches!(length, 1..=SHORT_MAX).then_some(word | self.whence << 56)
    }

    /// Whether both are the same. Without branches, which a library call for so few bytes has.
    #[inline]
    fn is(&self, other: &Self) -> bool {
        let pairs = self.words.iter().zip(&other.words);
        let differing = pairs.fold(self.whence ^ other.whence, |sum, (a, b)| sum | (a ^ b));
        differing == 0
    }
}

/// One to eight bytes as one little-endian word, filled up with zeros.
///
/// Two loads that overlap in the middle, where both have the same bytes, instead of a loop.
#[inline]
fn short(text: &[u8]) -> u64 {
    let length = text.len();
    if let (Some(front), Some(back)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let back = u64::from(u32::from_le_bytes(*back)) << (8 * (length - 4));
        return u64::from(u32::from_le_bytes(*front)) | back;
    }
    match text {
        [] => 0,
        [front, ..] => {
            let (middle, back) = (text[length / 2], text[length - 1]);
            u64::from(*front)
                | u64::from(middle) << (8 * (length / 2))
                | u64::from(back) << (8 * (length - 1))
        }
    }
}

/// Up to 32 bytes as four words, lower-cased.
fn long(text: &[u8]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(text.chunks(8)) {
        *word = lower(short(bytes));
    }
    words
}

/// Eight bytes at once to lower case, ASCII letters only.
///
/// Per byte: adding `0x80 - 'A'` carries into the top bit from `'A'` on, adding `0x7f - 'Z'` does
/// from the byte after `'Z'` on. Where the first did and the second did not stands a capital.
#[inline]
const fn lower(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = word & (0x7f * EACH);
    let from_a = low + (0x80 - 0x41) * EACH;
    let past_z = low + (0x7f - 0x5a) * EACH;
    let capital = (from_a ^ past_z) & !word & (0x80 * EACH);
    word | (capital >> 2)
}

/// Most bytes of a name that leaves room for its length in the word that holds both.
const SHORT_MAX: usize = 7;

/// The name of a command of one to seven bytes, as nearly all that are said have, lower-cased, and
/// its length, in one word. Never zero. `None` for other names.
#[inline]
fn short_command(text: &[u8]) -> Option<u64> {
    let length = u64::try_from(text.len()).ok()?;
    matches!(text.len(), 1..=SHORT_MAX).then(|| lower(short(text)) | length << 56)
}

/// Where a word is in a table of which the highest bits of a product are the address.
#[inline]
fn spread(word: u64, shift: u32) -> usize {
    let product = word.wrapping_mul(ODD[0]);
    let product = (product ^ (product >> 32)).wrapping_mul(ODD[1]);
    usize::try_from(product >> shift).unwrap_or(0)
}

/// Open addressing over keys that are never removed.
///
/// Invariant: the length of `slots` is a power of two and at least four times that of `keys`, so
/// that a probe ends; each slot is [`EMPTY`] or an index into `keys`. Commands with short names
/// stand in `shorts` too, at most one in four slots: their word and the same index, or zero.
#[derive(Clone, Debug)]
pub(super) struct Index {
    slots: Vec<u16>,
    shorts: Vec<(u64, u16)>,
    keys: Vec<Key>,
    shift: u32,
    short_shift: u32,
}

impl Default for Index {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Index {
    /// An index of `keys`, whose numbers are their positions; of two equal ones the first counts.
    pub(super) fn new(keys: Vec<Key>) -> Self {
        debug_assert!(keys.len() <= NAMES_MAX, "the table bounds its names");
        let room = |names: usize| (names * 4).next_power_of_two().max(64);
        let length = room(keys.len());
        let shift = 64 - length.trailing_zeros();
        let is_short = |key: &&Key| key.short_command().is_some();
        let shorts = room(keys.iter().filter(is_short).count());
        let mut index = Self {
            slots: vec![EMPTY; length],
            shorts: vec![(0, EMPTY); shorts],
            keys,
            shift,
            short_shift: 64 - shorts.trailing_zeros(),
        };
        for (number, key) in index.keys.clone().into_iter().enumerate() {
            let Ok(number) = u16::try_from(number) else {
                break;
            };
            if let Err(slot) = index.probe(key) {
                index.slots[slot] = number;
            }
            if let Some(word) = key.short_command()
                && let Err(slot) = index.probe_short(word)
            {
                index.shorts[slot] = (word, number);
            }
        }
        index
    }

    /// Position of the command called `text`.
    #[inline]
    pub(super) fn find_command(&self, text: &[u8]) -> Option<usize> {
        match short_command(text) {
            Some(word) => self.probe_short(word).ok(),
            None => self.find(Key::new(0, text)?),
        }
    }

    /// Position of a command with a short name, or the empty slot where it belongs.
    #[inline]
    fn probe_short(&self, word: u64) -> Result<usize, usize> {
        let mask = self.shorts.len() - 1;
        let mut slot = spread(word, self.short_shift) & mask;
        loop {
            match self.shorts[slot] {
                (it, number) if it == word => return Ok(usize::from(number)),
                (0, _) => return Err(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Position of `key`.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<usize> {
        self.probe(key).ok()
    }

    /// Position of `key`, or the empty slot where it belongs.
    #[inline]
    fn probe(&self, key: Key) -> Result<usize, usize> {
        let mask = self.slots.len() - 1;
        let mut slot = usize::try_from(key.hash() >> self.shift).unwrap_or(0) & mask;
        loop {
            let number = self.slots[slot];
            if number == EMPTY {
                return Err(slot);
            }
            if self.keys[usize::from(number)].is(&key) {
                return Ok(usize::from(number));
            }
            slot = (slot + 1) & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_and_only_letters_become_small() {
        for byte in 0..=u8::MAX {
            let word = lower(u64::from_le_bytes([byte; 8]));
            assert_eq!(word.to_le_bytes(), [byte.to_ascii_lowercase(); 8], "{byte}");
        }
    }

    #[test]
    fn names_of_all_lengths_are_told_apart() {
        let names: Vec<String> = (1..=NAME_MAX).map(|length| "x".repeat(length)).collect();
        let keys = names
            .iter()
            .map(|name| Key::new(0, name.as_bytes()).unwrap())
            .collect();
        let index = Index::new(keys);
        for (number, name) in names.iter().enumerate() {
            let upper = name.to_uppercase();
            assert_eq!(
                index.find(Key::new(0, upper.as_bytes()).unwrap()),
                Some(number)
            );
            assert_eq!(index.find_command(upper.as_bytes()), Some(number));
            assert_eq!(index.find(Key::new(1, name.as_bytes()).unwrap()), None);
        }
        assert!(Key::new(0, b"").is_none());
        assert!(Key::new(0, "x".repeat(NAME_MAX + 1).as_bytes()).is_none());
    }

    #[test]
    fn a_zero_byte_makes_another_name() {
        let index = Index::new(vec![Key::new(0, b"get").unwrap()]);
        assert_eq!(index.find(Key::new(0, b"get\0").unwrap()), None);
        assert_eq!(index.find_command(b"get\0"), None);
        assert_eq!(index.find_command(b"gE\0"), None);
        assert_eq!(index.find_command(b"GeT"), Some(0));
        assert_eq!(index.find_command(b""), None);
    }

    #[test]
    fn a_subcommand_is_no_command() {
        let keys = [(3, "get"), (0, "get"), (0, "GET"), (0, "set")];
        let keys = keys.map(|(scope, name)| Key::new(scope, name.as_bytes()).unwrap());
        let index = Index::new(keys.to_vec());
        assert_eq!(index.find_command(b"get"), Some(1), "the first of its name");
        assert_eq!(index.find_command(b"set"), Some(3));
        assert_eq!(index.find(keys[0]), Some(0));
    }
}
