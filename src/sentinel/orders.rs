//! Floor 2. The orders of a planned failover: one command out, one answer in.
//! Knows the words of each command, and what its refusal looks like.

use redis::Pipeline;
use redis::Value;

use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::words::{info, refusal, wording};
use crate::switchover::{Answer, Failure, Question, Replication};
use crate::topology::Fields;
use crate::types::{MasterName, NodeAddr};

/// Whom a question is for.
pub(super) const fn peer(question: &Question) -> &NodeAddr {
    match question {
        Question::Pause { node, .. }
        | Question::Unpause { node }
        | Question::Replication { node }
        | Question::Demote { node, .. } => node,
        Question::Failover { sentinel } => sentinel,
    }
}

/// Asks `question` about the group `name` over `link`.
///
/// # Cancel safety
/// Dropping this future may leave the order carried out or not.
pub(super) async fn perform(
    link: &mut Link,
    question: &Question,
    name: &MasterName,
) -> Result<Answer, Failure> {
    let answers = link
        .ask(&command(question, name))
        .await
        .map_err(|error| failure(&error))?;
    let answer = answers.first().unwrap_or(&Value::Nil);
    if let Some(error) = refusal(answer) {
        return Err(Failure::Refused(wording(error)));
    }
    match question {
        Question::Replication { .. } => Ok(Answer::Replication(read(&info(answer)))),
        Question::Pause { .. }
        | Question::Unpause { .. }
        | Question::Failover { .. }
        | Question::Demote { .. } => Ok(Answer::Done),
    }
}

fn command(question: &Question, name: &MasterName) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(1);
    match question {
        Question::Pause { time, .. } => {
            let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            pipeline.cmd("CLIENT").arg("PAUSE").arg(time).arg("WRITE")
        }
        Question::Unpause { .. } => pipeline.cmd("CLIENT").arg("UNPAUSE"),
        Question::Replication { .. } => pipeline.cmd("INFO").arg("replication"),
        Question::Failover { .. } => pipeline.cmd("SENTINEL").arg("FAILOVER").arg(name.as_str()),
        Question::Demote { to, .. } => pipeline.cmd("REPLICAOF").arg(to.host()).arg(to.port()),
    };
    pipeline
}

fn failure(error: &LinkError) -> Failure {
    let why = error.to_string();
    match error {
        LinkError::Connect(_) | LinkError::LogIn(_) => Failure::NotSent(why),
        LinkError::Lost(_) | LinkError::Silent(_) => Failure::Unclear(why),
    }
}

fn read(fields: &Fields) -> Replication {
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
    let is_master = text("role") == "master";
    let offset = if is_master {
        "master_repl_offset"
    } else {
        "slave_repl_offset"
    };
    Replication {
        is_master,
        id: text("master_replid"),
        offset: number(offset).unwrap_or(0),
        left: text("master_replid2"),
        // -1 where it was never promoted.
        left_at: number("second_repl_offset"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addr(text: &str) -> NodeAddr {
        text.parse().unwrap()
    }

    #[test]
    fn orders_are_spelled_as_the_servers_want_them() {
        let (node, to) = (addr("10.0.0.1:6379"), addr("10.0.0.2:6380"));
        let sentinel = node.clone();
        let time = Duration::from_millis(1_500);
        let pause = Question::Pause {
            node: node.clone(),
            time,
        };
        for (question, words) in [
            (pause, "CLIENT PAUSE 1500 WRITE"),
            (Question::Unpause { node: node.clone() }, "CLIENT UNPAUSE"),
            (Question::Failover { sentinel }, "SENTINEL FAILOVER orders"),
            (Question::Demote { node, to }, "REPLICAOF 10.0.0.2 6380"),
        ] {
            let packed = command(&question, &MasterName::new("orders")).get_packed_pipeline();
            let bulk = |word: &str| format!("${}\r\n{word}\r\n", word.len());
            let bulks: String = words.split(' ').map(bulk).collect();
            let want = format!("*{}\r\n{bulks}", words.split(' ').count());
            assert_eq!(String::from_utf8_lossy(&packed), want);
        }
    }

    #[test]
    fn a_master_and_a_replica_tell_their_offsets_under_different_names() {
        let told = |text: &str| read(&info(&Value::BulkString(text.as_bytes().to_vec())));
        let master = told(
            "role:master\r\nmaster_replid:b\r\nmaster_replid2:a\r\n\
             master_repl_offset:20\r\nsecond_repl_offset:15\r\n",
        );
        assert!(master.is_master);
        assert_eq!((master.offset, master.left_at), (20, Some(15)));
        assert_eq!((master.id.as_str(), master.left.as_str()), ("b", "a"));
        let replica = told(
            "role:slave\r\nslave_read_repl_offset:12\r\nslave_repl_offset:11\r\n\
             master_replid:b\r\nmaster_repl_offset:20\r\nsecond_repl_offset:-1\r\n",
        );
        assert!(!replica.is_master);
        assert_eq!((replica.offset, replica.left_at), (11, None));
    }
}
