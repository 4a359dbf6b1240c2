//! Floor 2. Replies of the `redis` crate taken apart into plain words.
//! Knows RESP2 and RESP3 shapes of the same thing.

use std::error::Error;

use redis::ServerError;
use redis::Value;

use crate::topology::Fields;
use crate::types::Replication;

/// An error with its causes, the last of which is what the system said.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // A transparent wrapper says the same as what it wraps.
        if !words.ends_with(&said) {
            words = format!("{words}: {said}");
        }
        cause = error.source();
    }
    words
}

/// The text of a string of any kind.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Okay => Some("OK".to_owned()),
        _ => None,
    }
}

/// A number, also where it comes as a string.
pub(super) fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => text(other)?.parse().ok(),
    }
}

/// The elements of an array or a set; none of anything else.
pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        _ => &[],
    }
}

/// A field list: an array of names and values in turn, or a map.
pub(super) fn fields(value: &Value) -> Fields {
    let pair = |(name, value): (&Value, &Value)| Some((text(name)?, text(value)?));
    match value {
        Value::Map(pairs) => pairs
            .iter()
            .map(|(name, value)| (name, value))
            .filter_map(pair)
            .collect(),
        other => {
            let pairs = items(other).chunks_exact(2);
            pairs
                .filter_map(|both| pair((both.first()?, both.last()?)))
                .collect()
        }
    }
}

/// The `name:value` lines of `INFO`.
pub(super) fn info(value: &Value) -> Fields {
    let text = text(value).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// `INFO replication`, read.
pub(super) fn replication(fields: &Fields) -> Replication {
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

/// The error that the peer answered instead.
pub(super) fn refusal(value: &Value) -> Option<&ServerError> {
    match value {
        Value::ServerError(error) => Some(error),
        _ => None,
    }
}

/// An error reply as the peer wrote it.
pub(super) fn wording(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// Whether the peer does not know the command, or the subcommand.
pub(super) fn is_unknown(error: &ServerError) -> bool {
    error
        .details()
        .is_some_and(|details| details.to_ascii_lowercase().starts_with("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn field_lists_of_both_protocols_are_the_same() {
        let flat = Value::Array(vec![bulk("name"), bulk("orders"), bulk("port"), bulk("7")]);
        let map = Value::Map(vec![
            (bulk("name"), bulk("orders")),
            (bulk("port"), Value::Int(7)),
        ]);
        assert_eq!(fields(&flat), fields(&map));
        assert_eq!(fields(&flat).len(), 2);
        assert!(fields(&Value::Nil).is_empty());
    }

    #[test]
    fn info_is_read_by_line() {
        let told = info(&bulk("# Server\r\nrun_id:f00d\r\n\r\nsentinel_tilt:1\r\n"));
        assert_eq!(told.get("run_id").map(String::as_str), Some("f00d"));
        assert_eq!(told.get("sentinel_tilt").map(String::as_str), Some("1"));
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn a_master_and_a_replica_tell_their_offsets_under_different_names() {
        let told = |text: &str| replication(&info(&bulk(text)));
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
