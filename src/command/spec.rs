//! Floor 1. One command's description: name, arity, class, flags, key positions.
//! Must not know how descriptions are found or combined.

use std::borrow::Cow;
use std::ops::BitOr;

use crate::command::{Class, KeySpec};

/// Description of one command or subcommand.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Lower case; a subcommand as `container|subcommand`, as servers since Redis 7.0 write it.
    pub name: Cow<'static, str>,
    /// Number of words, the name included; negative: at least so many.
    pub arity: i32,
    /// How to handle it, as far as the arguments do not decide.
    pub class: Class,
    /// Its properties.
    pub flags: Flags,
    /// Which of its arguments are keys.
    pub keys: KeySpec,
    /// Its place in its table.
    pub number: u16,
}

impl Spec {
    /// Whether a request of `argc` words, the name included, has the right number of them.
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = usize::try_from(self.arity.unsigned_abs()).unwrap_or(usize::MAX);
        if self.arity < 0 {
            argc >= wanted
        } else {
            argc == wanted
        }
    }

    /// What this command does with scripts, if anything.
    pub fn script(&self) -> Option<Script> {
        if self.flags.contains(Flags::SCRIPT) {
            Script::of(&self.name)
        } else {
            None
        }
    }
}

/// What a command does with the script cache, which each node has for itself and which is neither
/// replicated nor kept (Redis 7.0 and later).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Script {
    /// `EVAL`, `EVAL_RO`: carries the body as argument 1, and the node remembers it.
    Body,
    /// `EVALSHA`, `EVALSHA_RO`: names the body by its SHA-1 as argument 1.
    Digest,
    /// `FCALL`, `FCALL_RO`: calls a function; libraries are replicated.
    Function,
    /// `SCRIPT LOAD`: carries the body as argument 2, does not run it.
    Load,
    /// `SCRIPT FLUSH`: empties the cache.
    Flush,
}

impl Script {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "eval" | "eval_ro" => Some(Self::Body),
            "evalsha" | "evalsha_ro" => Some(Self::Digest),
            "fcall" | "fcall_ro" => Some(Self::Function),
            "script|load" => Some(Self::Load),
            "script|flush" => Some(Self::Flush),
            _ => None,
        }
    }
}

/// A set of properties of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

impl Flags {
    /// No property.
    pub const NONE: Self = Self(0);
    /// Changes data.
    pub const WRITE: Self = Self(1 << 0);
    /// Reads data.
    pub const READONLY: Self = Self(1 << 1);
    /// May hold up its connection.
    pub const BLOCKING: Self = Self(1 << 2);
    /// Refused when memory is short.
    pub const DENYOOM: Self = Self(1 << 3);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(1 << 4);
    /// Not flagged as a write, yet may be passed on to replicas.
    pub const MAY_REPLICATE: Self = Self(1 << 5);
    /// Where its keys are depends on its arguments.
    pub const MOVABLEKEYS: Self = Self(1 << 6);
    /// Speaks of channels.
    pub const PUBSUB: Self = Self(1 << 7);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 8);
    /// Accepted before login.
    pub const NO_AUTH: Self = Self(1 << 9);
    /// Not allowed in scripts.
    pub const NOSCRIPT: Self = Self(1 << 10);
    /// Not allowed in transactions.
    pub const NO_MULTI: Self = Self(1 << 11);
    /// Accepted while a script is busy.
    pub const ALLOW_BUSY: Self = Self(1 << 12);
    /// Ours: has subcommands.
    pub const CONTAINER: Self = Self(1 << 13);
    /// Ours: runs a script, or changes the script cache.
    pub const SCRIPT: Self = Self(1 << 14);
    /// Ours: blocks only with the option `BLOCK`.
    pub const BLOCK_OPTION: Self = Self(1 << 15);
    /// Ours: may name another database for one of its keys.
    pub const OTHER_DATABASE: Self = Self(1 << 16);
    /// Ours: changes the whole of its database.
    pub const DATABASE: Self = Self(1 << 17);
    /// Ours: may change anything, whatever its other flags say.
    pub const ANYTHING: Self = Self(1 << 18);

    /// Ours: the master does not have it.
    pub const MISSING: Self = Self(1 << 19);

    pub(super) const NOT_BY_NAME_ALONE: Self =
        Self(Self::CONTAINER.0 | Self::BLOCK_OPTION.0 | Self::MISSING.0);
    pub(super) const UNUSUAL: Self = Self(
        Self::READONLY.0
            | Self::SCRIPT.0
            | Self::OTHER_DATABASE.0
            | Self::DATABASE.0
            | Self::ANYTHING.0
            | Self::PUBSUB.0,
    );
    pub(super) const UNFIT_FOR_SHARED_BLOCK: Self = Self(Self::SCRIPT.0 | Self::NO_MULTI.0);

    /// The words that servers use in the `COMMAND` reply, as far as they matter to a proxy.
    pub const WORDS: [(&'static str, Self); 13] = [
        ("write", Self::WRITE),
        ("readonly", Self::READONLY),
        ("blocking", Self::BLOCKING),
        ("denyoom", Self::DENYOOM),
        ("fast", Self::FAST),
        ("may_replicate", Self::MAY_REPLICATE),
        ("movablekeys", Self::MOVABLEKEYS),
        ("pubsub", Self::PUBSUB),
        ("admin", Self::ADMIN),
        ("no_auth", Self::NO_AUTH),
        ("noscript", Self::NOSCRIPT),
        ("no_multi", Self::NO_MULTI),
        ("allow_busy", Self::ALLOW_BUSY),
    ];

    /// The flag that a server calls `word`, [`Flags::NONE`] for one that does not matter here.
    pub fn from_word(word: &str) -> Self {
        let known = Self::WORDS
            .iter()
            .find(|(text, _)| text.eq_ignore_ascii_case(word));
        known.map_or(Self::NONE, |(_, flag)| *flag)
    }

    /// The flags that a server calls `words`; those that do not matter here are left out.
    pub fn from_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        words
            .into_iter()
            .map(Self::from_word)
            .fold(Self::NONE, BitOr::bitor)
    }

    /// Whether all of `others` are set.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether any of `others` is set.
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
