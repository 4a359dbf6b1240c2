//! Floor 2. One round of questions to a Sentinel: a pipeline out, a `View` in.
//! Knows the commands and their replies; the meaning of the fields is read by `topology`.

use redis::Pipeline;
use redis::Value;

use crate::sentinel::link::{Link, LinkError};
use crate::sentinel::words::{
    chain, fields, info, is_unknown, items, number, refusal, text, wording,
};
use crate::topology::{MasterEntry, ReplicaEntry, SentinelEntry, SentinelFailure, View};
use crate::types::{MasterName, NodeAddr};

/// Asks one Sentinel about one group, again and again.
#[derive(Debug)]
pub(super) struct Round {
    link: Link,
    questions: Pipeline,
    name: MasterName,
    /// It knows `SLAVES` and not yet `REPLICAS` (before Redis 5).
    old: bool,
}

impl Round {
    /// Questions about `name` over `link`.
    pub(super) fn new(link: Link, name: MasterName) -> Self {
        let questions = questions(&name, "REPLICAS");
        Self {
            link,
            questions,
            name,
            old: false,
        }
    }

    /// Asks everything in one write.
    pub(super) async fn ask(&mut self) -> Result<View, SentinelFailure> {
        let answers = self
            .link
            .ask(&self.questions)
            .await
            .map_err(|error| unreachable(&error))?;
        let unknown = answers.get(2).and_then(refusal).is_some_and(is_unknown);
        if unknown && !self.old && is_sentinel(answers.get(5)) {
            self.old = true;
            self.questions = questions(&self.name, "SLAVES");
            let answers = self
                .link
                .ask(&self.questions)
                .await
                .map_err(|error| unreachable(&error))?;
            return read(&answers);
        }
        read(&answers)
    }
}

fn questions(name: &MasterName, replicas: &str) -> Pipeline {
    let mut questions = Pipeline::with_capacity(7);
    let mut sentinel = |word: &str| {
        questions.cmd("SENTINEL").arg(word).arg(name.as_str());
    };
    sentinel("GET-MASTER-ADDR-BY-NAME");
    sentinel("MASTER");
    sentinel(replicas);
    sentinel("SENTINELS");
    questions.cmd("SENTINEL").arg("MYID");
    questions.cmd("ROLE");
    questions.cmd("INFO").arg("sentinel");
    questions
}

fn unreachable(error: &LinkError) -> SentinelFailure {
    SentinelFailure::Unreachable { why: chain(error) }
}

fn read(answers: &[Value]) -> Result<View, SentinelFailure> {
    let [address, master, replicas, sentinels, id, role, state] = answers else {
        let why = format!("{} answers to 7 questions", answers.len());
        return Err(SentinelFailure::Unreachable { why });
    };
    let refused = refusal(address);
    if is_data_node(role) || (refused.is_some_and(is_unknown) && !is_sentinel(Some(role))) {
        return Err(SentinelFailure::NotASentinel);
    }
    if let Some(error) = refused {
        return Err(SentinelFailure::Unreachable {
            why: wording(error),
        });
    }
    let known = !items(address).is_empty();
    if let Some(error) = refusal(master).filter(|_| known) {
        // Without the epoch its address is worth nothing: most likely a right is missing.
        return Err(SentinelFailure::Unreachable {
            why: wording(error),
        });
    }
    Ok(View {
        id: text(id),
        known,
        master: location(address),
        entry: known.then(|| MasterEntry::from_fields(&fields(master))),
        replicas: items(replicas)
            .iter()
            .map(|it| ReplicaEntry::from_fields(&fields(it)))
            .collect(),
        sentinels: items(sentinels)
            .iter()
            .map(|it| SentinelEntry::from_fields(&fields(it)))
            .collect(),
        tilt: info(state)
            .get("sentinel_tilt")
            .is_some_and(|tilt| tilt == "1"),
    })
}

fn location(address: &Value) -> Option<NodeAddr> {
    let [host, port] = items(address) else {
        return None;
    };
    NodeAddr::new(&text(host)?, u16::try_from(number(port)?).ok()?)
}

fn is_sentinel(role: Option<&Value>) -> bool {
    role.and_then(role_word)
        .is_some_and(|word| word == "sentinel")
}

fn is_data_node(role: &Value) -> bool {
    role_word(role).is_some_and(|word| word == "master" || word == "slave")
}

fn role_word(role: &Value) -> Option<String> {
    text(items(role).first()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn list(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| bulk(word)).collect())
    }

    fn error(line: &str) -> Value {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap()
    }

    fn answers(address: Value, role: Value) -> Vec<Value> {
        let master = list(&["config-epoch", "7", "flags", "master"]);
        let replica = list(&["ip", "10.0.0.2", "port", "6379", "role-reported", "slave"]);
        let replicas = Value::Array(vec![replica]);
        let sentinels = Value::Array(vec![list(&["ip", "10.0.1.2", "port", "26379"])]);
        vec![
            address,
            master,
            replicas,
            sentinels,
            bulk("f00d"),
            role,
            bulk("sentinel_tilt:1\r\n"),
        ]
    }

    fn sentinel() -> Value {
        Value::Array(vec![bulk("sentinel"), list(&["orders"])])
    }

    #[test]
    fn a_round_of_answers_becomes_a_view() {
        let view = read(&answers(list(&["10.0.0.1", "6379"]), sentinel())).unwrap();
        assert_eq!(view.master, NodeAddr::new("10.0.0.1", 6379));
        assert_eq!(view.vote().unwrap().1.get(), 7);
        assert_eq!((view.replicas.len(), view.sentinels.len()), (1, 1));
        assert!(view.known && view.tilt);
        assert_eq!(view.id.as_deref(), Some("f00d"));
    }

    #[test]
    fn an_unknown_name_is_a_null_and_no_error() {
        let mut told = answers(Value::Nil, sentinel());
        told[1] = error("ERR No such master with that name");
        told[2] = told[1].clone();
        let view = read(&told).unwrap();
        assert!(!view.known);
        assert_eq!((view.master, view.entry), (None, None));
    }

    #[test]
    fn a_data_node_is_told_by_its_role_or_by_what_it_does_not_know() {
        let role = Value::Array(vec![
            bulk("master"),
            Value::Int(0),
            Value::Array(Vec::new()),
        ]);
        let told = answers(error("ERR unknown command 'SENTINEL'"), role);
        assert_eq!(read(&told), Err(SentinelFailure::NotASentinel));
        let told = answers(error("ERR unknown command 'SENTINEL'"), error("NOPERM no"));
        assert_eq!(read(&told), Err(SentinelFailure::NotASentinel));
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let told = answers(error("NOAUTH Authentication required."), error("NOAUTH x"));
        let why = "NOAUTH Authentication required.".to_owned();
        assert_eq!(read(&told), Err(SentinelFailure::Unreachable { why }));
        let mut told = answers(list(&["10.0.0.1", "6379"]), sentinel());
        told[1] = error("NOPERM this user has no permissions");
        assert!(matches!(
            read(&told),
            Err(SentinelFailure::Unreachable { .. })
        ));
    }

    #[test]
    fn an_empty_address_is_known_and_leads_nowhere() {
        let view = read(&answers(list(&["", "6379"]), sentinel())).unwrap();
        assert!(view.known);
        assert_eq!(view.master, None);
    }
}
