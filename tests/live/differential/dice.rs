//! Chance with a seed, and the words that it makes of templates.
//!
//! A template is a line of words. `[ … ]` is there or not, `( … | … )` is one of several, `{ … }`
//! comes once or more often, and `<…>` is drawn: see [`Dice::drawn`]. With `!` in front it is sent
//! as it is; else words of it are sometimes left out, doubled, or replaced by odd ones.

use fastrand::Rng;

use crate::differential::grammar::{FUNCTIONS, LIBRARIES, SCRIPTS};

/// What a command consists of.
pub(super) type Words = Vec<Vec<u8>>;

/// One template in so many is spoiled.
const SPOILED: u32 = 8;

/// Words that hardly fit anywhere.
const ODD: [&[u8]; 34] = [
    b"",
    b"0",
    b"1",
    b"-1",
    b"2",
    b"00",
    b"+1",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1e400",
    b"nan",
    b"inf",
    b"-inf",
    b"1.5",
    b"0x10",
    b"abc",
    b"*",
    b"[",
    b"(1",
    b"[a",
    b"+",
    b"-",
    b"$",
    b">",
    b"\xff\x00\r\n",
    b"a b",
    b"COUNT",
    b"limit",
    b"WithScores",
    b"GET",
    b"MATCH",
    b"help",
];

/// Values; the long ones make hashes and lists change what they are inside.
const VALUES: [&[u8]; 14] = [
    b"0",
    b"1",
    b"17",
    b"-3",
    b"3.25",
    b"9223372036854775806",
    b"",
    b"hello",
    b"Hello World",
    b"\x00\x01\xfe\xff",
    b"\r\n+OK\r\n",
    b"m1",
    b"nan",
    b"\xe4\xf6",
];

/// Payloads of `DUMP`: a number as Redis 5 has written it, and no payload.
const PAYLOADS: [&[u8]; 3] = [
    b"\x00\xc0\n\t\x00\xbem\x06\x89Z(\x00\n",
    b"\x00\xc0\x0a\x0b\x00nothing of it",
    b"",
];

/// Commands whose small numbers would be times that pass while a sequence runs.
const TIMED: [&str; 12] = [
    "set",
    "setex",
    "psetex",
    "getex",
    "expire",
    "pexpire",
    "expireat",
    "pexpireat",
    "restore",
    "restore-asking",
    "getset",
    "hexpire",
];

/// What a sequence is drawn by.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    rng: Rng,
    /// In front of all keys and channels.
    prefix: String,
}

impl Dice {
    pub(super) fn new(number: u64) -> Self {
        Self {
            rng: Rng::with_seed(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            prefix: format!("{number}:"),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether something that happens once in `many` times happens.
    pub(super) fn once_in(&mut self, many: u32) -> bool {
        self.rng.u32(..many) == 0
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        self.rng.usize(..end)
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(..of.len())]
    }

    /// A command by `template`.
    pub(super) fn command(&mut self, template: &str) -> Words {
        let (exact, template) = match template.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, template),
        };
        let tokens: Vec<&str> = template.split(' ').collect();
        let mut words = Words::new();
        self.expand(&tokens, &mut words);
        if !exact && self.once_in(SPOILED) {
            self.spoil(&mut words);
        }
        far_away(&mut words);
        words
    }

    /// Any words in place of arguments.
    pub(super) fn odd_arguments(&mut self, count: usize, words: &mut Words) {
        for _ in 0..count {
            let word = self.odd();
            words.push(word);
        }
    }

    /// The name in odd case, now and then.
    pub(super) fn cased(&mut self, name: &str) -> Vec<u8> {
        match self.below(8) {
            0 => name.to_uppercase().into_bytes(),
            1 => name
                .chars()
                .map(|letter| {
                    if self.rng.bool() {
                        letter.to_ascii_uppercase()
                    } else {
                        letter
                    }
                })
                .collect::<String>()
                .into_bytes(),
            _ => name.as_bytes().to_vec(),
        }
    }

    fn expand(&mut self, tokens: &[&str], words: &mut Words) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let end = match *token {
                "[" | "(" | "{" => closing(tokens, at),
                _ => at,
            };
            let inner = tokens.get(at + 1..end).unwrap_or_default();
            match *token {
                "[" if self.once_in(2) => self.expand(inner, words),
                "[" => {}
                "(" => {
                    let choices = alternatives(inner);
                    let chosen = self.below(choices.len());
                    self.expand(choices[chosen], words);
                }
                "{" => {
                    for _ in 0..=self.below(3) {
                        self.expand(inner, words);
                    }
                }
                token => self.token(token, words),
            }
            at = end + 1;
        }
    }

    fn token(&mut self, token: &str, words: &mut Words) {
        let drawn = token.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
        match drawn {
            Some(what) => {
                if let Some(kind) = what.strip_prefix("n:") {
                    let count = 1 + self.below(3);
                    words.push(count.to_string().into_bytes());
                    (0..count).for_each(|_| {
                        let key = self.drawn(kind);
                        words.push(key);
                    });
                } else {
                    let word = self.drawn(what);
                    words.push(word);
                }
            }
            None if token == "''" => words.push(Vec::new()),
            None => {
                let word = if self.once_in(12) {
                    self.cased(token)
                } else {
                    token.as_bytes().to_vec()
                };
                words.push(word);
            }
        }
    }

    /// What the word between the angles says: a key by the letter of its type, or a value.
    fn drawn(&mut self, what: &str) -> Vec<u8> {
        let number = |it: i64| it.to_string().into_bytes();
        match what {
            "s" | "l" | "h" | "e" | "z" | "x" | "g" | "b" | "p" => self.key(what),
            "k" => {
                let kind = self.one(&["s", "l", "h", "e", "z", "x", "g", "b", "p"]);
                self.key(kind)
            }
            "v" => self.value(),
            "m" => format!("m{}", self.below(6)).into_bytes(),
            "i" => number(self.rng.i64(-5..20)),
            "n" => number(self.rng.i64(0..6)),
            "f" => self.one(&["0", "1.5", "-2.25", "3e2", "10", "0.1"]).into(),
            "big" => number(self.rng.i64(..)),
            "sec" => self.one(&["100", "86400", "100000", "-1", "0"]).into(),
            "ms" => self.one(&["100000", "86400000", "-1", "0"]).into(),
            "at" => self.one(&["4102444800", "1", "0", "33177117420"]).into(),
            "atms" => self.one(&["4102444800000", "1", "0"]).into(),
            "pat" => {
                let rest = self.one(&["*", "s*", "[le]?", "?0", "nothing", "*1"]);
                format!("{}{rest}", self.prefix).into_bytes()
            }
            "glob" => self.one(&["*", "m*", "m[0-2]", "?1", "x"]).into(),
            "id" => self
                .one(&[
                    "0",
                    "0-0",
                    "1-1",
                    "2-1",
                    "3-0",
                    "5",
                    "9-9",
                    "x",
                    "18446744073709551615-1",
                ])
                .into(),
            "next" => self.one(&["1-*", "2-*", "3-1", "7-*", "9-9", "4-4"]).into(),
            "score" => self
                .one(&["0", "1", "2.5", "-inf", "+inf", "(1", "(2", "10"])
                .into(),
            "lex" => self
                .one(&["-", "+", "[m1", "(m1", "[m4", "(m9", "[", "m"])
                .into(),
            "lon" => self
                .one(&["13.361389", "15.087269", "2.35", "0", "179.9", "181"])
                .into(),
            "lat" => self
                .one(&["38.115556", "37.502669", "48.85", "0", "85.05", "86"])
                .into(),
            "unit" => self.one(&["m", "km", "ft", "mi", "parsec"]).into(),
            "ch" => {
                let name = self.one(&["a", "b", "c"]);
                format!("{}{name}", self.prefix).into_bytes()
            }
            "own" => format!("{}own", self.prefix).into_bytes(),
            "chpat" => {
                let pattern = self.one(&["*", "a*", "[bc]"]);
                format!("{}{pattern}", self.prefix).into_bytes()
            }
            "db" => self.one(&["0", "1", "2", "3", "15"]).into(),
            other => self.drawn_rarely(other),
        }
    }

    fn drawn_rarely(&mut self, what: &str) -> Vec<u8> {
        match what {
            "bits" => self
                .one(&["u8", "i8", "u1", "i64", "u63", "u64", "i5"])
                .into(),
            "off" => self.one(&["0", "1", "7", "8", "100", "#1", "#3"]).into(),
            "bit" => self.one(&["0", "1", "7", "100", "1000"]).into(),
            "payload" => self.one(&PAYLOADS).to_vec(),
            "lua" => self.one(SCRIPTS).into(),
            "lib" => self.one(LIBRARIES).into(),
            "fn" => self.one(FUNCTIONS).into(),
            "sha" => {
                let body = self.one(SCRIPTS);
                sha1_smol::Sha1::from(body)
                    .digest()
                    .to_string()
                    .into_bytes()
            }
            "user" => format!("u{}", self.below(3)).into_bytes(),
            "odd" => self.odd(),
            other => panic!("nothing is drawn for <{other}>"),
        }
    }

    /// A key that has most often the type of this letter; two of a type, so that they are met.
    fn key(&mut self, kind: &str) -> Vec<u8> {
        let kind = match self.below(16) {
            0 => self.one(&["s", "l", "h", "e", "z", "x", "g", "b", "p"]),
            1 => "none",
            _ => kind,
        };
        let number = self.below(2);
        format!("{}{kind}{number}", self.prefix).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(40) {
            0 => vec![b'x'; 70],
            1 => vec![b'y'; 2_000],
            2 if self.once_in(8) => vec![b'z'; 40_000],
            _ => self.one(&VALUES).to_vec(),
        }
    }

    fn odd(&mut self) -> Vec<u8> {
        match self.below(8) {
            0 => self.drawn("k"),
            1 => self.value(),
            _ => self.one(&ODD).to_vec(),
        }
    }

    /// Makes something wrong of a good command, most often.
    fn spoil(&mut self, words: &mut Words) {
        let at = self.below(words.len());
        let odd = self.odd();
        match self.below(6) {
            0 if at > 0 => {
                words.remove(at);
            }
            1 => words.push(odd),
            2 => words.insert(at.max(1), odd),
            3 => words.push(words[at].clone()),
            4 if words.len() > 2 => {
                let other = 1 + self.below(words.len() - 1);
                words.swap(at.max(1), other);
            }
            _ if at > 0 => words[at] = odd,
            _ => {
                words.truncate(1 + self.below(2));
            }
        }
    }
}

/// Makes times of what might pass meanwhile far away.
pub(super) fn far_away(words: &mut [Vec<u8>]) {
    let name = String::from_utf8_lossy(words.first().map_or(b"", Vec::as_slice)).to_lowercase();
    if !TIMED.contains(&name.as_str()) {
        return;
    }
    let mut far: &[u8] = b"100000";
    for word in words.iter_mut().skip(2) {
        let number = std::str::from_utf8(word)
            .ok()
            .and_then(|it| it.parse::<i64>().ok());
        if number.is_some_and(|it| (1..100_000).contains(&it)) {
            *word = far.to_vec();
        }
        // `SET` with a moment that is over leaves a key that counts (`DBSIZE`) until the server
        // comes to it, within 100 ms; others delete theirs.
        far = match word.to_ascii_uppercase().as_slice() {
            b"EXAT" if name == "set" => b"4102444800",
            b"PXAT" if name == "set" => b"4102444800000",
            _ => b"100000",
        };
    }
}

/// Where the bracket at `start` closes.
fn closing(tokens: &[&str], start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match *token {
            "[" | "(" | "{" => depth += 1,
            "]" | ")" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    panic!("a bracket stays open in {tokens:?}")
}

/// What stands between the bars that are in no brackets.
fn alternatives<'a, 'b>(tokens: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let mut depth = 0_usize;
    tokens
        .split(|token| {
            match *token {
                "[" | "(" | "{" => depth += 1,
                "]" | ")" | "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && *token == "|"
        })
        .collect()
}
