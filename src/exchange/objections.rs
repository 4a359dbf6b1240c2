//! Floor 4. What Redis says against a request before it looks at what it asks. Knows no place for
//! it.

use crate::command::{Class, Command, Local, Problem};
use crate::exchange::Exchange;
use crate::exchange::client::{Client, Wait};
use crate::exchange::dispatch::{Job, Placed};
use crate::resp::Request;
use crate::session::Reject;
use crate::telemetry::{self, RequestClass};

/// What is said against a request.
pub(super) struct Objection<'r> {
    pub(super) reject: Reject<'r>,
    pub(super) class: RequestClass,
    /// Whether the master would say the same, or that the user may not use this at all: before
    /// Redis 7.0 a server looks at subcommands last.
    pub(super) is_masters: bool,
}

/// What stands against it: no such command, wrong arity, not logged in, not while subscribed, in
/// this order.
pub(super) fn objection<'r>(
    client: &mut Client,
    (locked_out, before_7): (bool, bool),
    command: &Command<'r>,
    request: &Request<'r>,
) -> Option<Objection<'r>> {
    let wrong = command.is_sure_to_fail();
    // RESET needs a login before Redis 7.0.
    let allowed = command.allowed_before_login()
        && !(before_7 && command.class == Class::Local(Local::Reset));
    let locked_out = locked_out && !allowed;
    let outside = client.is_restricted_subscriber() && !command.allowed_while_subscribed();
    let by_node = command.class.is_shared() || client.is_in_multi();
    if !locked_out && !outside && (by_node || !wrong) {
        return None;
    }
    let name: &'r str = command.spec.map_or("", |spec| &spec.name);
    let looked_into = !before_7 || !is_about_subcommand(command.problem, name);
    let is_masters = !locked_out && !outside;
    // What a node has said against it does not matter then.
    client.verdict = None;
    let problem = command.problem.filter(|_| looked_into || is_masters);
    let reject = match problem {
        Some(Problem::UnknownCommand) => Reject::UnknownCommand {
            command: request.name(),
        },
        Some(Problem::UnknownSubcommand) => Reject::UnknownSubcommand {
            container: name.split('|').next().unwrap_or_default(),
            sub: request.arg1().unwrap_or_default(),
        },
        Some(Problem::WrongArity) => Reject::WrongArity { name },
        _ if locked_out && name == "exec" => Reject::UnauthenticatedExec,
        _ if locked_out => Reject::Unauthenticated,
        _ => Reject::Subscribed { name },
    };
    let class = if locked_out {
        RequestClass::Refused
    } else {
        RequestClass::Session
    };
    Some(Objection {
        reject,
        class,
        is_masters,
    })
}

/// Whether a server finds the problem only when it executes the command, if it is older than 7.0.
fn is_about_subcommand(problem: Option<Problem>, name: &str) -> bool {
    match problem {
        Some(Problem::UnknownSubcommand) => true,
        Some(Problem::WrongArity) => name.contains('|'),
        Some(Problem::UnknownCommand) | None => false,
    }
}

/// Whether the name of a command that nobody knows has a byte 0 in it, or that of a subcommand.
///
/// Redis compares names as C strings, up to that byte, where it comes to compare them at all: in
/// its tables, which it looks into by a hash of the whole name, some of these are the command
/// before the byte (Redis server.c, `commandTableDictType`). What they are here decides where they
/// go, and who may use them.
/// Before 7.0 a server compares subcommands one by one, and so does the table.
pub(super) fn has_zero(command: &Command<'_>, request: &Request<'_>, before_7: bool) -> bool {
    let has = |word: &[u8]| memchr::memchr(0, word).is_some();
    let is_about_sub = !before_7 && command.problem == Some(Problem::UnknownSubcommand);
    has(request.name()) || (is_about_sub && request.arg1().is_some_and(has))
}

impl Exchange {
    /// Answers such a request as one that is unknown. The master never sees it.
    #[cold]
    pub(super) fn refuse_zero(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let client = self.clients.get_mut(job.key);
        if let Some(client) = client.filter(|client| client.lease.is_some())
            && client.is_undecided(job.again.is_none(), Class::Write)
        {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        if self.clients.get(job.key).is_some_and(Client::is_in_multi)
            && let Some(waits) = self.mark_aborted(job)
        {
            return waits;
        }
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        client.verdict = None;
        let Some(group) = self.groups.get(client.group) else {
            return Placed::Answered;
        };
        let spec = group.table.classify(request).spec;
        let reject = match spec {
            Some(spec) => Reject::UnknownSubcommand {
                container: spec.name.split('|').next().unwrap_or_default(),
                sub: request.arg1().unwrap_or_default(),
            },
            None => Reject::UnknownCommand {
                command: request.name(),
            },
        };
        let before_7 = group.table.is_before_7();
        let reason = write_reject(&mut self.scratch, reject, request, before_7);
        self.answer(job, RequestClass::Refused, reason)
    }
}

/// Composes an error line that may repeat the request's first words.
pub(super) fn write_reject(
    scratch: &mut Vec<u8>,
    reject: Reject<'_>,
    request: &Request<'_>,
    before_7: bool,
) -> Option<telemetry::Reason> {
    scratch.clear();
    if before_7 {
        reject.write_before_7(request, scratch);
    } else {
        reject.write_unknown(request.args().skip(1), scratch);
    }
    reject.reason()
}
