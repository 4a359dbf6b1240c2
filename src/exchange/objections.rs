//! Floor 4. What Redis says against a request before it looks at what it asks. Knows no place for
//! it.

use crate::command::{Class, Command, Local, Problem};
use crate::exchange::client::Client;
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
