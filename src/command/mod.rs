//! Floor 1. What a request *is*: its class, its arity, its keys, whether it blocks.
//! Must not know where a request goes, what state its client is in, or what a reply says.
//!
//! One [`Table`] per configuration and master, immutable and shared: [`Table::builtin`], then
//! [`Table::overlay`] with the master's own `COMMAND` reply, then [`Table::with_policy`] with the
//! operator's `commands.refuse` and `commands.allow`.

mod blocking;
mod keys;
mod lookup;
mod options;
mod reach;
mod rows;
mod spec;
mod table;
#[cfg(test)]
mod tests;

pub use blocking::{Blocking, Repeat, Timeout, Unit, blocking};
pub use keys::{KeySpec, Keys};
pub use reach::Reach;
pub use spec::{Flags, Script, Spec};
pub use table::{Described, Table};

/// What kind of request this is; each kind is handled in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Reads, and any node with the data can answer: a replica may.
    Read,
    /// Reads, but only the master's answer is right (cursors, statistics, access times, bare
    /// containers). The reason for each command is at the top of `rows.rs`.
    MasterRead,
    /// May change data, or reaches more than this connection (`PUBLISH`, `SCRIPT LOAD`), and may
    /// share a connection. Also everything that nobody has described.
    Write,
    /// Answered by Switchman itself, never sent on.
    Local(Local),
    /// State of a connection, or occupies it for long: needs a server connection of its own.
    Leased(Leased),
    /// For administrators: goes to the master on a connection of its own that is logged in as the
    /// client, so that the server's access control decides. Never sent twice.
    Admin,
    /// Would change the topology behind Sentinel's back, impersonate a replica or lead a client
    /// past Switchman, or is refused by the operator.
    Refused,
}

impl Class {
    /// Whether a request that was sent, and lost with its connection, may be sent again.
    ///
    /// True for stateless reads only. A write never: its effect could come twice, or undo a later
    /// one.
    pub const fn is_resendable(self) -> bool {
        matches!(self, Self::Read | Self::MasterRead)
    }

    /// Whether the request travels on a connection shared with other clients.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Read | Self::MasterRead | Self::Write)
    }
}

/// Requests that Switchman answers itself: the state of its own client, and of its own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Local {
    /// `AUTH [username] password`.
    Auth,
    /// `HELLO [version [AUTH username password] [SETNAME name]]`.
    Hello,
    /// `SELECT database`.
    Select,
    /// `RESET`.
    Reset,
    /// `QUIT`.
    Quit,
    /// `PING [message]`; inside MULTI it belongs to the transaction.
    Ping,
    /// `ECHO message`; inside MULTI it belongs to the transaction.
    Echo,
    /// `READONLY`.
    Readonly,
    /// `READWRITE`.
    Readwrite,
    /// `ACL WHOAMI`.
    AclWhoami,
    /// `CLIENT CAPA`.
    ClientCapa,
    /// `CLIENT GETNAME`.
    ClientGetname,
    /// `CLIENT GETREDIR`.
    ClientGetredir,
    /// `CLIENT HELP`.
    ClientHelp,
    /// `CLIENT ID`.
    ClientId,
    /// `CLIENT INFO`.
    ClientInfo,
    /// `CLIENT KILL`.
    ClientKill,
    /// `CLIENT LIST`.
    ClientList,
    /// `CLIENT NO-EVICT`.
    ClientNoEvict,
    /// `CLIENT REPLY`.
    ClientReply,
    /// `CLIENT SETINFO`.
    ClientSetinfo,
    /// `CLIENT SETNAME`.
    ClientSetname,
    /// `CLIENT TRACKINGINFO`.
    ClientTrackinginfo,
    /// `CLIENT UNBLOCK`.
    ClientUnblock,
}

impl Local {
    /// Whether it tells of other clients, or acts on them.
    pub const fn is_about_others(self) -> bool {
        matches!(
            self,
            Self::ClientKill | Self::ClientList | Self::ClientUnblock
        )
    }
}

/// Requests that need a server connection of their own, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leased {
    /// `MULTI`.
    Multi,
    /// `EXEC`.
    Exec,
    /// `DISCARD`.
    Discard,
    /// `WATCH key …`.
    Watch,
    /// `UNWATCH`.
    Unwatch,
    /// May hold up its connection until data comes or a time has passed; see [`blocking()`].
    Blocking,
    /// `SUBSCRIBE channel …`.
    Subscribe,
    /// `UNSUBSCRIBE [channel …]`.
    Unsubscribe,
    /// `PSUBSCRIBE pattern …`.
    Psubscribe,
    /// `PUNSUBSCRIBE [pattern …]`.
    Punsubscribe,
    /// `SSUBSCRIBE shardchannel …`.
    Ssubscribe,
    /// `SUNSUBSCRIBE [shardchannel …]`.
    Sunsubscribe,
    /// `WAIT` and `WAITAOF`: speak of the writes of the connection that carries them.
    Wait,
    /// `CLIENT TRACKING`.
    Tracking,
    /// Sets something on the server's connection for good: `CLIENT CACHING`, `CLIENT NO-TOUCH`,
    /// `CLIENT IMPORT-SOURCE`, `HIMPORT …`.
    ConnectionState,
    /// `MONITOR`: lines without end.
    Monitor,
}

impl Leased {
    /// Whether this is one of the six commands that change subscriptions.
    pub const fn is_subscription(self) -> bool {
        matches!(
            self,
            Self::Subscribe
                | Self::Unsubscribe
                | Self::Psubscribe
                | Self::Punsubscribe
                | Self::Ssubscribe
                | Self::Sunsubscribe
        )
    }
}

/// Something about a request that the server would answer with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// No such command here or, as the master tells, there.
    UnknownCommand,
    /// The container is known, this subcommand is not, or not there.
    UnknownSubcommand,
    /// Too few or too many arguments.
    WrongArity,
}

impl Problem {
    /// Whether what the request names is not known.
    pub const fn is_unknown(self) -> bool {
        matches!(self, Self::UnknownCommand | Self::UnknownSubcommand)
    }
}

/// What a request is.
#[derive(Clone, Copy, Debug)]
pub struct Command<'t> {
    /// The row of the command, or of the subcommand if it is a known one, even if the master does
    /// not have it; `None` if unknown.
    pub spec: Option<&'t Spec>,
    /// How to handle it. Differs from the row's class where the arguments decide (`BLOCK`).
    pub class: Class,
    /// What the server would object to. The class is good in any case: the server is to word the
    /// error.
    pub problem: Option<Problem>,
}

impl Command<'_> {
    /// Whether the command may stand in a complete MULTI block that travels on a shared connection.
    ///
    /// Only what is surely queued there and changes nothing but data: known, well-formed, a plain
    /// read or write, no script, nothing that may block.
    pub fn fits_shared_block(&self) -> bool {
        let plain = |spec: &Spec| !spec.flags.intersects(Flags::UNFIT_FOR_SHARED_BLOCK);
        self.class.is_shared() && self.problem.is_none() && self.spec.is_some_and(plain)
    }

    /// Whether the server's error is known here word by word, whatever the class: a wrong number of
    /// arguments, or a command known here that the server does not have.
    pub fn is_sure_to_fail(&self) -> bool {
        let missing = |spec: &Spec| spec.flags.contains(Flags::MISSING);
        self.problem == Some(Problem::WrongArity) || self.spec.is_some_and(missing)
    }

    /// Whether the command is accepted from a client that has not logged in yet.
    ///
    /// The server has the flag `no_auth` on `AUTH`, `HELLO`, `QUIT` and `RESET`.
    pub fn allowed_before_login(&self) -> bool {
        self.spec
            .is_some_and(|spec| spec.flags.contains(Flags::NO_AUTH))
    }

    /// Whether a RESP2 client with subscriptions may send it: the six commands that change
    /// subscriptions, `PING`, `QUIT` and `RESET`. (RESP3 knows no such restriction.)
    pub fn allowed_while_subscribed(&self) -> bool {
        match self.class {
            Class::Local(Local::Ping | Local::Quit | Local::Reset) => true,
            Class::Leased(leased) => leased.is_subscription(),
            _ => false,
        }
    }
}
