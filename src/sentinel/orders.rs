//! Floor 2. The orders of a planned failover: one command out, one answer in.
//! Knows the words of each command, and what its refusal looks like.

use redis::Pipeline;
use redis::Value;

use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::words::{info, refusal, replication, wording};
use crate::switchover::{Answer, Failure, Question};
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
        Question::Replication { .. } => Ok(Answer::Replication(replication(&info(answer)))),
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
}
