//! Floor 4. Clients of a listener with the role `replica`: what they are refused, in the words of a
//! replica, and what is made of a script.
//!
//! | the request | what becomes of it |
//! |---|---|
//! | has Redis's flag `write` | `-READONLY …`, and between MULTI and EXEC EXECABORT later |
//! | EVAL, EVALSHA, FCALL | goes on as `EVAL_RO`, `EVALSHA_RO`, `FCALL_RO` |
//! | WAIT, WAITAOF | what a replica says |
//! | ROLE, INFO, PFCOUNT, XINFO | goes where reads go |
//! | administers a node, MONITOR, SCRIPT FLUSH | refused: it would reach the master |
//! | any other | the same as for other clients |
//!
//! Nothing is left to a node to refuse: where no replica serves reads, they go to the master, and a
//! replica may be promoted under a script.

use crate::command::{Class, Command, Flags, Leased, Problem, Script, Spec};
use crate::exchange::Exchange;
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::objections::write_reject;
use crate::resp::{Request, encode};
use crate::session::Reject;
use crate::telemetry::RequestClass;

/// What a read-only client's request is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOnly {
    /// What it is anyway.
    Same,
    /// A read, although for others it is the master's.
    Read,
    /// The same under this name.
    Named(&'static [u8]),
    /// Refused for this.
    Refused(Refusal),
}

/// Why a read-only client's request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It writes.
    Writes,
    /// It waits for replicas of a master.
    Waits,
    /// The same for their files.
    WaitsForFiles,
    /// It would act on the master.
    Administers,
    /// No such command.
    Unknown,
    /// Too few or too many arguments.
    WrongArity,
}

/// Redis server.c, `shared.roslaveerr`.
const WRITES: &str = "READONLY You can't write against a read only replica.";

/// Redis replication.c, `waitCommand`.
const WAITS: &str = "ERR WAIT cannot be used with replica instances. Please also note that since \
    Redis 4.0 if a replica is configured to be writable (which is not the default) writes to \
    replicas are just local and are not propagated.";

/// Redis replication.c, `waitaofCommand`.
const WAITS_FOR_FILES: &str = "ERR WAITAOF cannot be used with replica instances. Please also \
    note that writes to replicas are just local and are not propagated.";

impl ReadOnly {
    /// What becomes of a command.
    pub(super) fn of(command: &Command<'_>) -> Self {
        let known = command.problem != Some(Problem::UnknownCommand);
        let Some(spec) = command.spec.filter(|_| known) else {
            return Self::Refused(Refusal::Unknown);
        };
        match command.class {
            // Nobody may have it, in words of its own.
            Class::Refused => return Self::Same,
            Class::Leased(Leased::Wait) if spec.name == "waitaof" => {
                return Self::Refused(Refusal::WaitsForFiles);
            }
            Class::Leased(Leased::Wait) => return Self::Refused(Refusal::Waits),
            Class::Leased(Leased::Monitor) | Class::Admin => {
                return Self::Refused(Refusal::Administers);
            }
            Class::MasterRead if replicas_own(spec) => return Self::Read,
            _ => {}
        }
        if spec.flags.contains(Flags::WRITE) {
            return Self::Refused(match command.problem {
                Some(Problem::WrongArity) => Refusal::WrongArity,
                _ => Refusal::Writes,
            });
        }
        match (command.class, spec.script()) {
            (Class::Write, Some(Script::Flush)) => Self::Refused(Refusal::Administers),
            (Class::Write, Some(Script::Body | Script::Digest | Script::Function)) => {
                Self::Named(read_only_name(spec))
            }
            _ => Self::Same,
        }
    }
}

/// Whether a replica's answer is another one than the master's, and right for whoever wants that of
/// a replica.
fn replicas_own(spec: &Spec) -> bool {
    let name = spec.name.as_ref();
    let is_xinfo = name.starts_with("xinfo|") && spec.flags.contains(Flags::READONLY);
    is_xinfo || ["role", "info", "pfcount"].contains(&name)
}

/// The name under which a script's writes are refused (since Redis 7.0).
fn read_only_name(spec: &Spec) -> &'static [u8] {
    match spec.script() {
        Some(Script::Digest) => b"EVALSHA_RO",
        Some(Script::Function) => b"FCALL_RO",
        _ => b"EVAL_RO",
    }
}

impl Exchange {
    /// Places a request under another name.
    #[cold]
    pub(super) fn dispatch_as(
        &mut self,
        job: Job,
        request: &Request<'_>,
        name: &'static [u8],
    ) -> Placed {
        let words = std::iter::once(name).chain(request.args().skip(1));
        let words: Vec<&[u8]> = words.collect();
        let mut raw = Vec::new();
        encode::request(&mut raw, &words);
        match Request::from_raw(&raw) {
            Some(renamed) => self.dispatch(job, &renamed),
            None => Placed::Answered,
        }
    }

    /// Refuses a request as a replica would: EXEC will not execute the others either.
    #[cold]
    pub(super) fn refuse_to_read_only(
        &mut self,
        job: Job,
        request: &Request<'_>,
        (refusal, name): (Refusal, &str),
    ) -> Placed {
        let reject = match refusal {
            Refusal::Writes => Reject::Redis(WRITES),
            Refusal::Waits => Reject::Redis(WAITS),
            Refusal::WaitsForFiles => Reject::Redis(WAITS_FOR_FILES),
            Refusal::Administers => Reject::NotAtReplica {
                command: request.name(),
            },
            Refusal::Unknown => Reject::UnknownCommand {
                command: request.name(),
            },
            Refusal::WrongArity => Reject::WrongArity { name },
        };
        self.abort_open_multi(job.key);
        let client = self.clients.get(job.key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let before_7 = group.is_some_and(|group| group.table.is_before_7());
        let reason = write_reject(&mut self.scratch, reject, request, before_7);
        self.answer(job, RequestClass::Refused, reason)
    }
}
