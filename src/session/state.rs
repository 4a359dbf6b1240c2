//! Floor 3. What a client has set on its connection, and what a fresh connection starts with.

use crate::types::Protocol;

/// What Redis says to a name with other bytes than printable ASCII (networking.c,
/// `clientSetNameOrReply`).
pub(super) const BAD_NAME: &str =
    "ERR Client names cannot contain spaces, newlines or special characters.";

/// Which login a client has proven; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdentityId(pub u32);

impl IdentityId {
    /// Not logged in: whatever the nodes allow to a connection without AUTH.
    pub const ANONYMOUS: Self = Self(0);
}

/// Whether replies are spoken: `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speech {
    /// `ON`, with which every connection starts.
    #[default]
    On,
    /// `OFF`: nothing until `ON`.
    Off,
    /// `SKIP`: nothing for the next command.
    SkipNext,
}

/// The state of one client's connection, as Redis keeps it in `struct client`.
#[derive(Debug)]
pub struct Session {
    /// Switchman's `CLIENT ID`, unique in the process.
    pub id: u64,
    /// Protocol of the replies.
    pub protocol: Protocol,
    /// Selected database.
    pub database: u32,
    /// Proven login.
    pub identity: IdentityId,
    /// `CLIENT REPLY`.
    pub speech: Speech,
    /// `CLIENT SETNAME`.
    name: Option<Box<[u8]>>,
    /// `CLIENT SETINFO LIB-NAME` and `LIB-VER`.
    library: [Option<Box<[u8]>>; 2],
}

impl Session {
    /// A connection just accepted.
    pub const fn new(id: u64) -> Self {
        Self {
            id,
            protocol: Protocol::Resp2,
            database: 0,
            identity: IdentityId::ANONYMOUS,
            speech: Speech::On,
            name: None,
            library: [None, None],
        }
    }

    /// The name set with `CLIENT SETNAME`.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// Sets or, if empty, clears the name. Refuses what Redis refuses, in its own words: bytes that
    /// are not printable ASCII, and spaces (Redis networking.c, `validateClientAttr`).
    pub fn set_name(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let fine = set_attribute(&mut self.name, name);
        fine.then_some(()).ok_or(BAD_NAME)
    }

    /// `LIB-NAME`.
    pub fn library_name(&self) -> Option<&[u8]> {
        self.library.first().and_then(|value| value.as_deref())
    }

    /// `LIB-VER`.
    pub fn library_version(&self) -> Option<&[u8]> {
        self.library.last().and_then(|value| value.as_deref())
    }

    pub(super) fn set_library_name(&mut self, value: &[u8]) -> bool {
        let [name, _] = &mut self.library;
        set_attribute(name, value)
    }

    pub(super) fn set_library_version(&mut self, value: &[u8]) -> bool {
        let [_, version] = &mut self.library;
        set_attribute(version, value)
    }

    /// Whether a login has been proven.
    pub fn is_logged_in(&self) -> bool {
        self.identity != IdentityId::ANONYMOUS
    }

    /// Back to a fresh connection, as `RESET` does; the library's name stays (Redis networking.c,
    /// `resetCommand`).
    pub fn reset(&mut self) {
        let library = std::mem::take(&mut self.library);
        *self = Self {
            library,
            ..Self::new(self.id)
        };
    }

    /// Whether the reply to the command that begins now is spoken; counts off a `SKIP`.
    pub fn speaks(&mut self) -> bool {
        match self.speech {
            Speech::On => true,
            Speech::Off => false,
            Speech::SkipNext => {
                self.speech = Speech::On;
                false
            }
        }
    }
}

fn set_attribute(slot: &mut Option<Box<[u8]>>, value: &[u8]) -> bool {
    let fine = is_fine(value);
    if fine {
        *slot = (!value.is_empty()).then(|| Box::from(value));
    }
    fine
}

/// Whether a name, or what describes a client otherwise, has no bytes but printable ones.
pub(super) fn is_fine(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_graphic)
}
