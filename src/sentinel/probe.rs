//! Floor 2. The question of a node's role: `ROLE` and `INFO` out, `NodeAnswer` in.
//! Knows both replies, and that either may be renamed or forbidden, or put off by a script.

use redis::Pipeline;
use redis::ServerError;
use redis::Value;

use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::words::{chain, info, items, number, refusal, replication, text, wording};
use crate::topology::{Fields, NodeAnswer, NodeFailure, NodeRole};
use crate::types::NodeAddr;

/// Asks one node for its role, again and again.
#[derive(Debug)]
pub(super) struct Probe {
    link: Link,
    questions: Pipeline,
}

impl Probe {
    /// Questions over `link`.
    pub(super) fn new(link: Link) -> Self {
        let mut questions = Pipeline::with_capacity(3);
        questions.cmd("ROLE");
        questions.cmd("INFO").arg("server");
        questions.cmd("INFO").arg("replication");
        Self { link, questions }
    }

    /// Asks for role, process and history.
    pub(super) async fn ask(&mut self) -> Result<NodeAnswer, NodeFailure> {
        let answers = match self.link.ask(&self.questions).await {
            Ok(answers) => answers,
            Err(error) => return failed(error),
        };
        let mut server = answers.get(1).map(info).unwrap_or_default();
        let run_id = server.remove("run_id");
        let zone = server.remove("availability_zone");
        let role = match answers.first().map(read_role) {
            Some(Ok(role)) => role,
            Some(Err(error)) if is_busy(error) => NodeRole::Busy,
            Some(Err(error)) => self.ask_differently(wording(error)).await?,
            None => NodeRole::NotData,
        };
        let told = answers.get(2).map(|told| replication(&info(told)));
        Ok(NodeAnswer {
            role,
            run_id,
            replication: told.filter(|told| !told.id.is_empty()),
            zone: zone.filter(|zone| !zone.is_empty()),
        })
    }

    /// `ROLE` was refused with the words `why`: it may be renamed, or not allowed.
    async fn ask_differently(&mut self, why: String) -> Result<NodeRole, NodeFailure> {
        let mut question = Pipeline::with_capacity(1);
        question.cmd("INFO").arg("replication");
        let answers = match self.link.ask(&question).await {
            Ok(answers) => answers,
            Err(error) => return failed(error).map(|answer| answer.role),
        };
        if answers.first().and_then(refusal).is_some_and(is_busy) {
            return Ok(NodeRole::Busy);
        }
        let told = answers
            .first()
            .map(info)
            .and_then(|fields| read_info(&fields));
        Ok(told.unwrap_or(NodeRole::Untold { why }))
    }
}

fn failed(error: LinkError) -> Result<NodeAnswer, NodeFailure> {
    match error {
        LinkError::Silent(_) => Err(NodeFailure::NoAnswer),
        LinkError::Connect(error @ crate::net::ConnectError::TimedOut { .. }) => {
            Err(NodeFailure::NoConnection {
                why: error.to_string(),
            })
        }
        LinkError::Connect(error) => Err(NodeFailure::NoConnection { why: chain(&error) }),
        LinkError::Lost(error) => Err(NodeFailure::NoConnection {
            why: error.to_string(),
        }),
        // It lives, and does not let us ask.
        LinkError::LogIn(error) => {
            let role = NodeRole::Untold {
                why: error.to_string(),
            };
            Ok(NodeAnswer {
                role,
                run_id: None,
                replication: None,
                zone: None,
            })
        }
    }
}

/// Whether the node runs a script, for longer than it lets anybody wait (`busy-reply-threshold`):
/// it answers nearly everything with `-BUSY` then.
fn is_busy(error: &ServerError) -> bool {
    error.code() == "BUSY"
}

/// Reads `ROLE`; the error is the node's refusal.
fn read_role(role: &Value) -> Result<NodeRole, &ServerError> {
    if let Some(error) = refusal(role) {
        return Err(error);
    }
    let words = items(role);
    let offset = |value: Option<&Value>| {
        value
            .and_then(number)
            .and_then(|offset| u64::try_from(offset).ok())
            .unwrap_or(0)
    };
    Ok(match words.first().and_then(text).as_deref() {
        Some("master") => NodeRole::Master {
            offset: offset(words.get(1)),
        },
        Some("slave") => NodeRole::Replica {
            master: location(words.get(1).and_then(text), words.get(2).and_then(number)),
            connected: words.get(3).and_then(text).as_deref() == Some("connected"),
            offset: offset(words.get(4)),
        },
        Some(_) | None => NodeRole::NotData,
    })
}

/// Reads `INFO replication`.
fn read_info(fields: &Fields) -> Option<NodeRole> {
    let offset = |name: &str| fields.get(name).and_then(|it| it.parse().ok()).unwrap_or(0);
    match fields.get("role")?.as_str() {
        "master" => Some(NodeRole::Master {
            offset: offset("master_repl_offset"),
        }),
        "slave" => Some(NodeRole::Replica {
            master: location(
                fields.get("master_host").cloned(),
                fields.get("master_port").and_then(|port| port.parse().ok()),
            ),
            connected: fields
                .get("master_link_status")
                .is_some_and(|link| link == "up"),
            offset: offset("slave_repl_offset"),
        }),
        _ => None,
    }
}

fn location(host: Option<String>, port: Option<i64>) -> Option<NodeAddr> {
    NodeAddr::new(&host?, u16::try_from(port?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn roles_are_read_from_either_command() {
        let replica = |connected| NodeRole::Replica {
            master: NodeAddr::new("10.0.0.1", 6379),
            connected,
            offset: 42,
        };
        let told = |state| {
            let port = Value::Int(6379);
            Value::Array(vec![
                bulk("slave"),
                bulk("10.0.0.1"),
                port,
                bulk(state),
                Value::Int(42),
            ])
        };
        assert_eq!(read_role(&told("connected")), Ok(replica(true)));
        for state in [
            "handshake",
            "none",
            "connect",
            "connecting",
            "sync",
            "unknown",
        ] {
            assert_eq!(read_role(&told(state)), Ok(replica(false)), "{state}");
        }
        let lines = "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n\
                     master_link_status:up\r\nslave_repl_offset:42\r\n";
        assert_eq!(read_info(&info(&bulk(lines))), Some(replica(true)));
        let master = Value::Array(vec![
            bulk("master"),
            Value::Int(7),
            Value::Array(Vec::new()),
        ]);
        assert_eq!(read_role(&master), Ok(NodeRole::Master { offset: 7 }));
        let lines = bulk("role:master\r\nmaster_repl_offset:7\r\n");
        assert_eq!(
            read_info(&info(&lines)),
            Some(NodeRole::Master { offset: 7 })
        );
    }

    #[test]
    fn a_replica_before_its_first_sync_has_no_offset() {
        let words = vec![
            bulk("slave"),
            bulk(""),
            Value::Int(0),
            bulk("connect"),
            Value::Int(-1),
        ];
        assert_eq!(
            read_role(&Value::Array(words)),
            Ok(NodeRole::Replica {
                master: None,
                connected: false,
                offset: 0
            })
        );
    }

    #[test]
    fn a_node_that_runs_a_script_is_told_from_one_that_may_not_be_asked() {
        let check = |line: &str, want: bool| {
            let reply = redis::parse_redis_value(line.as_bytes()).unwrap();
            assert_eq!(read_role(&reply).map_err(is_busy), Err(want), "{line}");
        };
        check(
            "-BUSY Redis is busy running a script. You can only ...\r\n",
            true,
        );
        check("-BUSYGROUP Consumer Group name already exists\r\n", false);
        check("-NOPERM this user has no permissions to run ...\r\n", false);
        check("-ERR unknown command 'ROLE'\r\n", false);
    }

    #[test]
    fn a_sentinel_is_no_data_node() {
        let words = Value::Array(vec![bulk("sentinel"), Value::Array(Vec::new())]);
        assert_eq!(read_role(&words), Ok(NodeRole::NotData));
    }
}
