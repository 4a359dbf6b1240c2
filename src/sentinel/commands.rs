//! Floor 2. The master's own `COMMAND`, read into the words of the command table.
//! Knows the reply's shape; what a flag means is the table's business.

use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use redis::Value;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::debug;
use tracing::warn;

use crate::backoff::Backoff;
use crate::command::{Described, Table};
use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::words::{items, number, refusal, text, wording};
use crate::topology::Snapshot;
use crate::types::NodeAddr;

/// Attempts to read a new master's commands.
const ATTEMPTS: u32 = 8;
/// Waits between them.
const PAUSE: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// Why a node's commands could not be read.
#[derive(Debug, thiserror::Error)]
enum CommandsError {
    /// The node could not be asked.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It answered with an error.
    #[error("COMMAND was refused: {0}")]
    Refused(String),
}

/// Reads the commands of one master into the table.
#[derive(Debug)]
pub(super) struct CommandsReader {
    /// Says whether it still is the master.
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Where the table is published.
    pub(super) commands: watch::Sender<Arc<Table>>,
}

impl CommandsReader {
    /// Asks `master` over `link` until it has told, or is master no more, or has been asked often
    /// enough. Until then what the last master told stands.
    pub(super) async fn run(self, mut link: Link, master: NodeAddr) {
        for attempt in 1..=ATTEMPTS {
            let told = ask_commands(&mut link).await;
            if self.snapshots.borrow().master.as_ref() != Some(&master) {
                return;
            }
            match told {
                Ok(described) => {
                    let count = described.len();
                    self.commands
                        .send_replace(Arc::new(Table::builtin().overlay(&described)));
                    debug!(count, "commands of the master read");
                    return;
                }
                Err(error) => debug!(%error, attempt, "commands of the master not read"),
            }
            sleep(PAUSE.delay(attempt, fastrand::u32(..))).await;
        }
        warn!(%master, "commands of the master cannot be read; unknown ones count as writes");
    }
}

/// Asks the node behind `link` for all of its commands.
async fn ask_commands(link: &mut Link) -> Result<Vec<Described>, CommandsError> {
    let mut question = Pipeline::with_capacity(1);
    question.cmd("COMMAND");
    let answers = link.ask(&question).await?;
    let reply = answers.first().unwrap_or(&Value::Nil);
    match refusal(reply) {
        Some(error) => Err(CommandsError::Refused(wording(error))),
        None => Ok(items(reply).iter().filter_map(read).collect()),
    }
}

/// Reads one command: name, arity, flags, three key positions, and from Redis 7.0 on ACL
/// categories, tips, key specifications and subcommands.
fn read(command: &Value) -> Option<Described> {
    let parts = items(command);
    let at = |index: usize| parts.get(index).and_then(number).unwrap_or(0);
    Some(Described {
        name: text(parts.first()?)?,
        arity: at(1),
        flags: parts.get(2).map(items)?.iter().filter_map(text).collect(),
        first_key: at(3),
        last_key: at(4),
        step: at(5),
        subcommands: parts
            .get(9)
            .map_or(&[][..], items)
            .iter()
            .filter_map(read)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn described(name: &str, subcommands: Vec<Value>) -> Value {
        let flags = vec![Value::SimpleString("readonly".to_owned())];
        let empty = || Value::Array(Vec::new());
        let (arity, keys) = (
            Value::Int(-2),
            [Value::Int(1), Value::Int(1), Value::Int(1)],
        );
        let mut parts = vec![bulk(name), arity, Value::Array(flags)];
        parts.extend(keys);
        parts.extend([empty(), empty(), empty(), Value::Array(subcommands)]);
        Value::Array(parts)
    }

    #[test]
    fn a_command_is_read_with_its_subcommands() {
        let told = read(&described(
            "object",
            vec![described("object|encoding", Vec::new())],
        ));
        let sub = Described {
            name: "object|encoding".to_owned(),
            arity: -2,
            flags: vec!["readonly".to_owned()],
            first_key: 1,
            last_key: 1,
            step: 1,
            subcommands: Vec::new(),
        };
        let whole = Described {
            name: "object".to_owned(),
            subcommands: vec![sub.clone()],
            ..sub
        };
        assert_eq!(told, Some(whole));
    }

    #[test]
    fn the_short_form_of_older_servers_is_read_too() {
        let Value::Array(mut parts) = described("get", Vec::new()) else {
            unreachable!()
        };
        parts.truncate(6);
        assert_eq!(read(&Value::Array(parts)).unwrap().subcommands, []);
        assert_eq!(read(&Value::Nil), None);
    }
}
