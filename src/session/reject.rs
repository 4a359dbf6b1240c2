//! Floor 3. Every error line that a client can get from Switchman itself, in one table.
//!
//! The first word is one that clients know: `MASTERDOWN` says "not executed, retry is safe" and is
//! retried by several client libraries; `UNCERTAIN` says "may have been executed" and is retried by
//! none. Lines that begin with `ERR`, `NOAUTH` and `EXECABORT` are Redis's own where Redis has
//! them.

use std::time::Duration;

use crate::resp::encode;
use crate::session::words;
use crate::telemetry::Reason;
use crate::types::MasterName;

/// Longest part of a client's words that an error repeats (Redis server.c, `%.128s`).
pub(super) const QUOTED_MAX: usize = 128;

/// Why Switchman answers a command with an error of its own.
#[derive(Clone, Copy, Debug)]
pub enum Reject<'a> {
    /// No writable master within the hold time.
    NoMaster {
        /// The group.
        name: &'a MasterName,
        /// How long the command waited.
        held: Duration,
    },
    /// There is a master, and no connection to it could be opened within the hold time.
    NoConnection {
        /// The group.
        name: &'a MasterName,
        /// How long the command waited.
        held: Duration,
    },
    /// No majority of the Sentinels within the hold time, and `strict-quorum` demands one.
    NoMajority {
        /// The group.
        name: &'a MasterName,
        /// How long the command waited.
        held: Duration,
    },
    /// No Sentinel that answers knows the group: Switchman is configured with another name than
    /// they are.
    UnknownName {
        /// The group.
        name: &'a MasterName,
        /// How long the command waited.
        held: Duration,
    },
    /// Sent, and the connection was lost before the reply.
    Uncertain,
    /// Sent, and no reply came within `upstream.reply-timeout`.
    UncertainSilent,
    /// The same, and the node has ended the connection since.
    UncertainEnded,
    /// Executed by a master that is being replaced; its successor may not have it.
    UncertainFork,
    /// A request that was passed on while it came, and whose connection was lost in the middle.
    HalfSent,
    /// A queued command of a transaction whose connection was lost before EXEC was sent.
    TransactionLost,
    /// EXEC of such a transaction.
    ExecAborted,
    /// A read whose connection broke each time that its reply was due next.
    Breaks {
        /// How often.
        times: u8,
    },
    /// No replica may serve the read, and `no-replica = "error"`.
    NoReplica,
    /// The command is refused here.
    Refused {
        /// Its name as the client wrote it.
        command: &'a [u8],
    },
    /// The command would change the connection or act on other clients in a way that Switchman does
    /// not offer.
    NotOffered {
        /// Its name as the client wrote it.
        command: &'a [u8],
        /// Its subcommand.
        sub: &'a [u8],
    },
    /// The command acts on a node, and the client's listener is a replica to it.
    NotAtReplica {
        /// Its name as the client wrote it.
        command: &'a [u8],
    },
    /// All leased connections are in use.
    NoLease {
        /// The limit, `upstream.max-leased`.
        max: usize,
    },
    /// A connection for this command cannot be had because of too many different ones.
    NoLane {
        /// The limit per node.
        max: usize,
    },
    /// Not logged in where the nodes demand it.
    Unauthenticated,
    /// The same, to an EXEC.
    UnauthenticatedExec,
    /// Redis's own: no such command.
    UnknownCommand {
        /// The name.
        command: &'a [u8],
    },
    /// Redis's own: no such subcommand.
    UnknownSubcommand {
        /// Name of the container.
        container: &'a str,
        /// The client's word.
        sub: &'a [u8],
    },
    /// Redis's own: too few or too many arguments.
    WrongArity {
        /// Lower-case name, `container|subcommand`.
        name: &'a str,
    },
    /// Redis's own: only some commands are allowed to a subscriber that speaks RESP2.
    Subscribed {
        /// Lower-case name.
        name: &'a str,
    },
    /// Any other line in Redis's words, without the leading `-`.
    Redis(&'a str),
    /// Switchman is stopping; the command was not sent.
    Stopping,
    /// A command about clients that not every worker has answered.
    Unanswered,
}

impl Reject<'_> {
    /// Appends the error line to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Uncertain => encode::error(
                out,
                "UNCERTAIN switchman: the connection to the master was lost after the command was \
                 sent; it may or may not have been executed",
            ),
            Self::UncertainSilent => encode::error(
                out,
                "UNCERTAIN switchman: the node did not answer within upstream.reply-timeout; the \
                 command may still be applied",
            ),
            Self::UncertainEnded => encode::error(
                out,
                "UNCERTAIN switchman: the node did not answer within upstream.reply-timeout, and \
                 has ended the connection; the command may or may not have been executed, and will \
                 not be any more",
            ),
            Self::UncertainFork => encode::error(
                out,
                "UNCERTAIN switchman: executed by a master that is being replaced; its successor \
                 may or may not have it",
            ),
            Self::TransactionLost => encode::error(
                out,
                "MASTERDOWN switchman: the transaction's connection was lost before EXEC; nothing \
                 of it was executed",
            ),
            Self::HalfSent => encode::error(
                out,
                "MASTERDOWN switchman: the connection to the master was lost before all of the \
                 request was sent; it was not executed",
            ),
            Self::ExecAborted => encode::error(
                out,
                "EXECABORT Transaction discarded because of: the connection to the master was lost",
            ),
            Self::NoReplica => encode::error(
                out,
                "MASTERDOWN switchman: no replica can serve reads now; the command was not sent",
            ),
            Self::Unauthenticated => encode::error(out, "NOAUTH Authentication required."),
            Self::UnauthenticatedExec => encode::error(
                out,
                "EXECABORT Transaction discarded because of: NOAUTH Authentication required.",
            ),
            Self::Redis(text) => encode::error(out, text),
            Self::UnknownCommand { .. } => self.write_unknown([].into_iter(), out),
            Self::UnknownSubcommand { container, sub } => {
                let container = container.to_uppercase();
                let text = [
                    b"ERR unknown subcommand '",
                    start(sub, QUOTED_MAX),
                    b"'. Try ",
                    container.as_bytes(),
                    b" HELP.",
                ];
                encode::error_bytes(out, &text.concat());
            }
            Self::Unanswered => encode::error(
                out,
                "ERR switchman: not all workers have answered in time; what they were asked may \
                 still be done",
            ),
            Self::Stopping => encode::error(
                out,
                "MASTERDOWN switchman: stopping; the command was not sent, connect again",
            ),
            _ => encode::error(out, &self.with_facts()),
        }
    }

    /// The lines that name something.
    fn with_facts(&self) -> String {
        match *self {
            Self::NoMaster { name, held } => format!(
                "MASTERDOWN switchman: no writable master for '{name}' (held {} ms); the command \
                 was not sent",
                held.as_millis()
            ),
            Self::NoConnection { name, held } => format!(
                "MASTERDOWN switchman: the nodes of '{name}' take no further connection (held {} \
                 ms); the command was not sent",
                held.as_millis()
            ),
            Self::NoMajority { name, held } => format!(
                "MASTERDOWN switchman: no majority of the Sentinels for '{name}' answers, and \
                 strict-quorum is set (held {} ms); the command was not sent",
                held.as_millis()
            ),
            Self::UnknownName { name, held } => format!(
                "MASTERDOWN switchman: no Sentinel knows the name '{name}'; set master-name to one \
                 that SENTINEL MASTERS lists (held {} ms); the command was not sent",
                held.as_millis()
            ),
            Self::Refused { command } => format!(
                "ERR switchman: '{}' is refused here (commands.allow permits it)",
                quoted(command)
            ),
            Self::NotOffered { command, sub } => format!(
                "ERR switchman: '{} {}' is not offered through this proxy",
                quoted(command),
                quoted(sub)
            ),
            Self::NotAtReplica { command } => format!(
                "ERR switchman: '{}' is not offered on a listener of the role replica, as it acts \
                 on the master",
                quoted(command)
            ),
            Self::NoLease { max } => format!(
                "ERR switchman: all {max} connections for transactions and blocking commands \
                 are in use (upstream.max-leased)"
            ),
            Self::Breaks { times } => format!(
                "ERR switchman: the connection to the node broke {times} times when the reply to \
                 this command was due; it is not sent again"
            ),
            Self::NoLane { max } => format!(
                "ERR switchman: more than {max} combinations of user, database and protocol are \
                 in use on one node"
            ),
            _ => self.of_redis(),
        }
    }

    /// Those among them that are Redis's own.
    fn of_redis(&self) -> String {
        match *self {
            Self::WrongArity { name } => {
                let code = code_of(name);
                format!("{code} wrong number of arguments for '{name}' command")
            }
            Self::Subscribed { name } => {
                let code = code_of(name);
                format!(
                    "{code} Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING \
                     / QUIT / RESET are allowed in this context"
                )
            }
            _ => String::new(),
        }
    }

    /// Appends Redis's line for an unknown command with the arguments that follow it, each in
    /// quotes, until there are 128 bytes of them (Redis server.c, `commandCheckExistence`).
    pub fn write_unknown<'a>(&self, args: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
        let Self::UnknownCommand { command } = *self else {
            return self.write(out);
        };
        let mut excerpt = Vec::new();
        for arg in args {
            if excerpt.len() >= QUOTED_MAX {
                break;
            }
            let room = QUOTED_MAX - excerpt.len();
            excerpt.extend_from_slice(&[b"'", start(arg, room), b"' "].concat());
        }
        let line = [
            b"ERR unknown command '",
            start(command, QUOTED_MAX),
            b"', with args beginning with: ",
            &excerpt[..],
        ];
        encode::error_bytes(out, &line.concat());
    }

    /// Whether the command may have been executed.
    pub const fn is_uncertain(&self) -> bool {
        matches!(
            self,
            Self::Uncertain | Self::UncertainSilent | Self::UncertainEnded | Self::UncertainFork
        )
    }

    /// The label under which the metric counts it; `None` for Redis's own lines.
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::NoMaster { .. }
            | Self::NoConnection { .. }
            | Self::UnknownName { .. }
            | Self::HalfSent
            | Self::TransactionLost
            | Self::ExecAborted => Some(Reason::NoMaster),
            Self::NoMajority { .. } => Some(Reason::NoMajority),
            Self::Uncertain | Self::UncertainFork => Some(Reason::Uncertain),
            Self::Breaks { .. } => Some(Reason::Breaks),
            Self::UncertainSilent | Self::UncertainEnded => Some(Reason::ReplyTimeout),
            Self::NoReplica => Some(Reason::NoReplica),
            Self::Refused { .. } | Self::NotOffered { .. } | Self::NotAtReplica { .. } => {
                Some(Reason::RefusedCommand)
            }
            Self::NoLease { .. } | Self::NoLane { .. } => Some(Reason::NoLease),
            Self::Unauthenticated | Self::UnauthenticatedExec => Some(Reason::Unauthenticated),
            Self::Stopping => Some(Reason::Stopping),
            Self::UnknownCommand { .. }
            | Self::UnknownSubcommand { .. }
            | Self::WrongArity { .. }
            | Self::Subscribed { .. }
            | Self::Unanswered
            | Self::Redis(_) => None,
        }
    }
}

/// How Redis begins its refusal of a command: an EXEC that is not executed says so (server.c,
/// `rejectCommandSds`).
fn code_of(name: &str) -> &'static str {
    match name {
        "exec" => "EXECABORT Transaction discarded because of:",
        _ => "ERR",
    }
}

/// As much of a word as C's `%.*s` takes: no more than `most` bytes, and nothing from a zero on.
pub(super) fn start(word: &[u8], most: usize) -> &[u8] {
    let text = words::c_text(word);
    text.get(..most).unwrap_or(text)
}

/// The client's own words for an error line: cut, and harmless there.
fn quoted(words: &[u8]) -> String {
    let cut = words.get(..QUOTED_MAX).unwrap_or(words);
    String::from_utf8_lossy(cut).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_line_of_bounded_length() {
        let name = MasterName::new("mymaster");
        let long = [b'\n'; 1000];
        let all = [
            Reject::NoMaster {
                name: &name,
                held: Duration::from_secs(5),
            },
            Reject::NoConnection {
                name: &name,
                held: Duration::from_secs(5),
            },
            Reject::NoMajority {
                name: &name,
                held: Duration::from_secs(5),
            },
            Reject::UnknownName {
                name: &name,
                held: Duration::from_secs(5),
            },
            Reject::Uncertain,
            Reject::UncertainSilent,
            Reject::UncertainEnded,
            Reject::UncertainFork,
            Reject::TransactionLost,
            Reject::ExecAborted,
            Reject::NoReplica,
            Reject::NotAtReplica { command: &long },
            Reject::Refused { command: &long },
            Reject::NotOffered {
                command: &long,
                sub: b"kill",
            },
            Reject::NoLease { max: 512 },
            Reject::NoLane { max: 512 },
            Reject::Breaks { times: 8 },
            Reject::Unauthenticated,
            Reject::UnauthenticatedExec,
            Reject::UnknownCommand { command: &long },
            Reject::UnknownSubcommand {
                container: "client",
                sub: &long,
            },
            Reject::WrongArity { name: "get" },
            Reject::WrongArity { name: "exec" },
            Reject::Subscribed { name: "get" },
            Reject::Subscribed { name: "exec" },
            Reject::Redis("ERR x"),
            Reject::Unanswered,
            Reject::Stopping,
        ];
        for reject in all {
            let mut out = Vec::new();
            reject.write(&mut out);
            let line = out
                .strip_prefix(b"-")
                .unwrap()
                .strip_suffix(b"\r\n")
                .unwrap();
            assert!(line.len() > 4 && line.len() < 300, "{reject:?}");
            assert!(
                !line.contains(&b'\n') && !line.contains(&b'\r'),
                "{reject:?}"
            );
        }
    }
    #[test]
    fn what_nobody_knows_is_repeated_byte_for_byte_as_far_as_redis_does_it() {
        let check = |words: &[&[u8]], want: &[u8]| {
            let mut out = Vec::new();
            let reject = Reject::UnknownCommand { command: words[0] };
            reject.write_unknown(words.iter().skip(1).copied(), &mut out);
            let head = [b"-ERR unknown command '", want, b"\r\n"].concat();
            assert_eq!(
                out.escape_ascii().to_string(),
                head.escape_ascii().to_string()
            );
        };
        let begin = b"FOO', with args beginning with: ";
        let (a, b) = ([b'a'; 130], [b'b'; 130]);
        check(&[b"FOO\0x"], begin);
        check(
            &[b"FOO", b"x\0y", b"z\xff\r\n"],
            &[begin, &b"'x' 'z\xff  ' "[..]].concat(),
        );
        check(
            &[b"FOO", &a[..100], &b, b"c"],
            &[&begin[..], b"'", &a[..100], b"' '", &b[..25], b"' "].concat(),
        );
        check(
            &[b"FOO", &a[..124], b"b", b"c"],
            &[&begin[..], b"'", &a[..124], b"' 'b' "].concat(),
        );
        check(
            &[b"FOO", &a[..125], b"b"],
            &[&begin[..], b"'", &a[..125], b"' "].concat(),
        );
        let mut out = Vec::new();
        let (container, sub) = ("client", &b"n\xff\0x"[..]);
        Reject::UnknownSubcommand { container, sub }.write(&mut out);
        assert_eq!(
            out,
            b"-ERR unknown subcommand 'n\xff'. Try CLIENT HELP.\r\n"
        );
    }
}
