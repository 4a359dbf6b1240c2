//! What is not compared, and why: commands that are never sent, what is known to differ, and the
//! exceptions.

use crate::differential::frame::Frame;
use crate::differential::rules::Call;
use crate::version::Version;

/// A command that is sent with too few or too many arguments at most.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

pub(super) const LEFT_OUT: &[LeftOut] = &[
    LeftOut {
        name: "shutdown",
        why: "ends the server",
    },
    LeftOut {
        name: "failover",
        why: "makes a replica of the server",
    },
    LeftOut {
        name: "replicaof",
        why: "makes a replica of the server",
    },
    LeftOut {
        name: "slaveof",
        why: "makes a replica of the server",
    },
    LeftOut {
        name: "sync",
        why: "makes a replica of the client",
    },
    LeftOut {
        name: "psync",
        why: "makes a replica of the client",
    },
    LeftOut {
        name: "replconf",
        why: "makes a replica of the client",
    },
    LeftOut {
        name: "monitor",
        why: "shows what others send, Switchman's own commands too",
    },
    LeftOut {
        name: "migrate",
        why: "opens connections to where odd arguments say",
    },
    LeftOut {
        name: "save",
        why: "blocks the server, and writes files",
    },
    LeftOut {
        name: "bgsave",
        why: "its reply depends on whether the last one has ended",
    },
    LeftOut {
        name: "bgrewriteaof",
        why: "its reply depends on whether the last one has ended",
    },
    LeftOut {
        name: "config|rewrite",
        why: "writes files",
    },
    LeftOut {
        name: "pfselftest",
        why: "blocks the server for long",
    },
    LeftOut {
        name: "client|pause",
        why: "odd arguments block the server; the grammar has it",
    },
    LeftOut {
        name: "client|reply",
        why: "odd arguments are fine, silence is a family",
    },
    LeftOut {
        name: "client|kill",
        why: "odd arguments end other clients; the grammar has it",
    },
    LeftOut {
        name: "subscribe",
        why: "turns the client into a subscriber; a family has it",
    },
    LeftOut {
        name: "psubscribe",
        why: "turns the client into a subscriber; a family has it",
    },
    LeftOut {
        name: "ssubscribe",
        why: "turns the client into a subscriber; a family has it",
    },
    LeftOut {
        name: "script|debug",
        why: "turns the client into a debugger",
    },
    LeftOut {
        name: "multi",
        why: "the transactions have it",
    },
    LeftOut {
        name: "watch",
        why: "binds the client to a connection; the transactions have it",
    },
    LeftOut {
        name: "spop",
        why: "takes by chance; the sets have it",
    },
];

/// Why `name` is left out, if it is.
pub(super) fn left_out(name: &str) -> Option<&'static LeftOut> {
    LEFT_OUT.iter().find(|it| it.name == name)
}

/// Whether a bare server of this version may crash by a command.
pub(super) fn may_crash(call: &Call<'_>) -> bool {
    let flushes = call.is("function|flush") || call.is("function|restore") && call.says("flush");
    flushes && crashes_by_flush()
}

/// Whether the server may crash when all functions are thrown away: Redis 8.0.2 does when it frees
/// the client of their engine, which has a number of arguments and none of them (networking.c,
/// `freeClient` under `functionsLibCtxClearCurrent`).
pub(super) fn crashes_by_flush() -> bool {
    Version::of_server().is_redis((8, 0))
}

/// A command of which Switchman's reply may be another one than that of a bare server.
#[derive(Debug)]
pub(super) struct Exception {
    /// Names; `*` at the end is any ending.
    pub(super) commands: &'static [&'static str],
    pub(super) what: &'static str,
    pub(super) why: &'static str,
    /// Whether this difference is the one that is meant.
    pub(super) meant: fn(&Call<'_>, &Frame, &Frame) -> bool,
}

pub(super) const EXCEPTIONS: &[Exception] = &[
    Exception {
        commands: &["client|list"],
        what: "of Switchman's clients",
        why: "the server's list is of Switchman's connections, which many clients share",
        meant: |_, theirs, ours| !theirs.is_error() && !ours.is_error(),
    },
    Exception {
        commands: &["client|info"],
        what: "other numbers, and fewer fields",
        why: "the rest is about a connection that many clients share",
        meant: |_, theirs, ours| !theirs.is_error() && starts(ours, "id="),
    },
    Exception {
        commands: &["object|idletime"],
        what: "longer",
        why: "the master does not see the reads that replicas serve; small numbers are one object",
        meant: |_, theirs, ours| is_less(theirs, ours),
    },
];

/// Whether both are numbers, and the first is less.
fn is_less(theirs: &Frame, ours: &Frame) -> bool {
    let number = |frame: &Frame| {
        let text = std::str::from_utf8(frame.text()).ok();
        text.and_then(|text| text.parse::<i64>().ok())
            .filter(|_| frame.kind() == b':')
    };
    matches!((number(theirs), number(ours)), (Some(theirs), Some(ours)) if theirs < ours)
}

fn starts(frame: &Frame, with: &str) -> bool {
    let text = frame.text();
    text.strip_prefix(b"txt:")
        .unwrap_or(text)
        .starts_with(with.as_bytes())
}

/// The exception for this difference, if it is one.
pub(super) fn exception(call: &Call<'_>, theirs: &Frame, ours: &Frame) -> Option<usize> {
    EXCEPTIONS.iter().position(|it| {
        it.commands.iter().any(|name| call.is(name)) && (it.meant)(call, theirs, ours)
    })
}

/// What is known to differ: a family, or certain commands.
#[derive(Debug)]
pub(super) struct Known {
    /// The family, or a name for the commands.
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    /// Whether it is such a command; no command where the family is meant.
    pub(super) is: fn(&Call<'_>) -> bool,
}

/// Whether a key is one of those that have sorted sets, or places.
fn is_sorted_set(key: &[u8]) -> bool {
    let name = key.rsplit(|byte| *byte == b':').next();
    name.is_some_and(|name| matches!(name.first(), Some(b'z' | b'g')))
}

/// What is known to differ, as README says, and played with `SWITCHMAN_DIFF_ALL` only: what comes
/// behind it in a sequence differs too.
pub(super) const KNOWN_TO_DIFFER: &[Known] = &[
    Known {
        name: "WAIT in transactions",
        why: "speaks of the last write of its connection, which another client may have made",
        is: |_| false,
    },
    Known {
        name: "subscriptions in transactions",
        why: "are refused between MULTI and EXEC: their confirmations are more than EXEC counts",
        is: |_| false,
    },
    Known {
        name: "names of clients with a byte 0",
        why: "are refused, as by Redis 7.0; later servers look no further than that byte",
        is: |call| {
            let names = ["client|setname", "client|setinfo", "hello"];
            names.iter().any(|name| call.is(name)) && call.words.iter().any(|it| it.contains(&0))
        },
    },
    Known {
        name: "BITFIELD that fails",
        why: "makes an empty key at the master, of which replicas are not told: reads there differ",
        is: |call| call.is("bitfield") && call.says("FAIL"),
    },
    Known {
        name: "SORT_RO of a sorted set",
        why: "makes a skiplist of it, at the node that sorts, with which ranges by name of members \
              of unequal scores are others",
        is: |call| call.is("sort_ro") && call.words.get(1).is_some_and(|key| is_sorted_set(key)),
    },
];
