//! Floor 7. `switchman status`: what a running Switchman sees, for people or as JSON.

use std::fmt::Write;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::cli::args::{Demand, Print};
use crate::cli::http::{HttpError, get};
use crate::cli::{Out, StatusArgs};

/// Asks the running Switchman and prints its answer.
pub fn status(args: &StatusArgs) -> ExitCode {
    match ask(args) {
        Ok(text) => {
            Out::Stdout.line(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            Out::Stderr.line(format_args!("error: {error}"));
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                Out::Stderr.line(format_args!("  because: {cause}"));
                source = cause.source();
            }
            if let Some(remedy) = error.remedy() {
                Out::Stderr.line(remedy);
            }
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error("cannot start the runtime")]
    Runtime(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("the answer is not the JSON of a Switchman's status")]
    Json(#[from] serde_json::Error),
    #[error("Switchman is not ready\n{text}")]
    NotReady { text: String },
}

impl StatusError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Http(HttpError::Connect(_) | HttpError::TimedOut { .. }) => Some(
                "Is Switchman running there? Give its admin address (admin.listen): --admin ADDR",
            ),
            Self::Http(HttpError::Status { .. } | HttpError::Protocol { .. }) | Self::Json(_) => {
                Some("Is that Switchman's admin address, not the one for Redis clients?")
            }
            Self::Runtime(_) | Self::NotReady { .. } => None,
        }
    }
}

fn ask(args: &StatusArgs) -> Result<String, StatusError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let body = runtime.block_on(get(&args.admin, "/api/v1/status"))?;
    let status: Value = serde_json::from_str(&body)?;
    let text = match args.print {
        Print::Json => body,
        Print::Table => table(&status),
    };
    if args.demand == Demand::Ready && status["ready"] != Value::Bool(true) {
        return Err(StatusError::NotReady { text });
    }
    Ok(text)
}

/// The status for people.
fn table(status: &Value) -> String {
    let mut text = format!(
        "Switchman {}, up {}, {} of at most {} clients, {} workers{}\n",
        word(&status["version"]),
        uptime(&status["uptime_seconds"]),
        word(&status["clients"]),
        word(&status["max_clients"]),
        word(&status["workers"]),
        if status["draining"] == Value::Bool(true) {
            ", STOPPING"
        } else {
            ""
        },
    );
    for group in list(&status["groups"]) {
        push(&mut text, format_args!("\n{}", heading(group)));
        for (name, line) in group_lines(group) {
            push(&mut text, format_args!("  {name:13} {line}"));
        }
    }
    text
}

fn heading(group: &Value) -> String {
    let phase = match &group["phase_seconds"] {
        Value::Null => word(&group["phase"]),
        since => format!("{} for {} s", word(&group["phase"]), word(since)),
    };
    let (epoch, generation) = (word(&group["config_epoch"]), word(&group["generation"]));
    format!(
        "{}: {phase} (epoch {epoch}, generation {generation})",
        word(&group["master_name"])
    )
}

/// A listener with its role and consistency.
fn listener(listener: &Value) -> String {
    format!(
        "{} ({}, {})",
        word(&listener["addr"]),
        word(&listener["role"]),
        word(&listener["consistency"])
    )
}

/// What there is to say of a group: a name, and the rest of the line.
fn group_lines(group: &Value) -> Vec<(String, String)> {
    let listen: Vec<String> = list(&group["listeners"]).iter().map(listener).collect();
    let mut lines = vec![
        ("listen".to_owned(), listen.join(", ")),
        (
            "clients".to_owned(),
            format!(
                "{}, {} held",
                word(&group["clients"]),
                word(&group["held_clients"])
            ),
        ),
    ];
    let waiting = word(&group["waiting"]);
    if group["waiting"].is_string() && !waiting.is_empty() {
        lines.push(("waits".to_owned(), waiting));
    }
    let forbidden = word(&group["fences"]["forbidden"]);
    if group["fences"]["forbidden"].is_string() && !forbidden.is_empty() {
        let means = format!("not kept from being applied after a timeout: {forbidden}");
        lines.push(("late writes".to_owned(), means));
    }
    for node in list(&group["nodes"]) {
        let state = if node["in_use"] == Value::Bool(true) {
            "in use"
        } else {
            "not in use"
        };
        let line = format!("{}{}", peer(node, state), readings(node));
        lines.push((word(&node["role"]), line));
    }
    let by_master = counts(&group["master_reads"]);
    if !by_master.is_empty() {
        lines.push(("master reads".to_owned(), by_master));
    }
    if !group["majority"].is_null() {
        let majority = word(&group["majority"]["detail"]);
        lines.push(("sentinels".to_owned(), majority));
    }
    for sentinel in list(&group["sentinels"]) {
        let state = if sentinel["up"] == Value::Bool(true) {
            "up"
        } else {
            "down"
        };
        lines.push(("sentinel".to_owned(), peer(sentinel, state)));
    }
    if !group["last_failover"].is_null() {
        lines.push((
            "last failover".to_owned(),
            failover(&group["last_failover"]),
        ));
    }
    lines
}

fn peer(peer: &Value, state: &str) -> String {
    let detail = word(&peer["detail"]);
    let colon = if detail.is_empty() { "" } else { ": " };
    format!("{:24} {state}{colon}{detail}", word(&peer["addr"]))
}

/// What a node reads, and how far behind it is; nothing that a Switchman does not tell.
fn readings(node: &Value) -> String {
    let told = |name: &str, before: &str, after: &str| match &node[name] {
        Value::Null => String::new(),
        value => format!("{before}{}{after}", word(value)),
    };
    let reads = told("reads_percent", ", ", " % of the reads");
    let lag = match (&node["lag_bytes"], &node["lag_seconds"]) {
        (Value::Null, Value::Null) => String::new(),
        (bytes, Value::Null) => format!(", {} bytes behind", word(bytes)),
        (Value::Null, time) => format!(", {} s behind", word(time)),
        (bytes, time) => format!(", {} bytes and {} s behind", word(bytes), word(time)),
    };
    let left = counts(&node["ejections"]);
    let left = if left.is_empty() {
        left
    } else {
        format!(", left: {left}")
    };
    format!("{reads}{lag}{}{left}", told("zone", ", zone ", ""))
}

/// What happened, and how often; empty if nothing did.
fn counts(counts: &Value) -> String {
    let all = counts.as_object().into_iter().flatten();
    let all: Vec<String> = all
        .map(|(name, count)| format!("{name} {}", word(count)).replace(char::is_control, "?"))
        .collect();
    all.join(", ")
}

fn failover(failover: &Value) -> String {
    format!(
        "{} {} ({}): {} -> {} in {} s, {} held ({} s at most), {} refused, \
         {} sent again, {} uncertain",
        word(&failover["started_at"]),
        word(&failover["outcome"]),
        word(&failover["cause"]),
        word(&failover["old_master"]),
        word(&failover["new_master"]),
        word(&failover["took_seconds"]),
        word(&failover["held_requests"]),
        word(&failover["longest_hold_seconds"]),
        word(&failover["expired_requests"]),
        word(&failover["resent_requests"]),
        word(&failover["uncertain_requests"]),
    )
}

fn uptime(seconds: &Value) -> String {
    let whole = Duration::try_from_secs_f64(seconds.as_f64().unwrap_or(0.0)).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(whole.as_secs())).to_string()
}

/// A text or a number as people read it. What came over the network must not move their cursor.
fn word(value: &Value) -> String {
    let text = match value {
        Value::Null => "?".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace(char::is_control, "?")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Appends a line.
fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_names_phase_nodes_sentinels_and_the_last_failover() {
        let status = json!({
            "version": "1.2.3", "uptime_seconds": 90061.5, "draining": false, "workers": 2,
            "clients": 5, "max_clients": 100,
            "groups": [{
                "master_name": "mymaster", "listen": ["127.0.0.1:6379"], "phase": "switching",
                "listeners": [{
                    "addr": "127.0.0.1:6379", "role": "split", "consistency": "eventual"
                }],
                "phase_seconds": 0.4, "generation": 7, "config_epoch": 3,
                "nodes": [
                    { "addr": "redis-1:6379", "role": "master", "in_use": true, "detail": "" },
                    {
                        "addr": "r:2", "role": "replica", "in_use": true, "reads": 9,
                        "reads_percent": 90, "lag_bytes": 14, "lag_seconds": 1.5, "zone": "a",
                        "ejections": { "lag": 1, "busy": 2 }, "detail": "",
                    },
                    { "addr": "r:1", "role": "replica", "in_use": false, "detail": "\u{1b}[2J" },
                ],
                "sentinels": [{ "addr": "s:26379", "up": false, "detail": "refused" }],
                "master_reads": { "unsettled": 7 },
                "majority": { "detail": "2 of 3 answer, a majority" },
                "clients": 5, "held_clients": 2,
                "fences": { "pending": 1, "forbidden": "a:1: NOPERM" },
                "last_failover": {
                    "started_at": "2023-11-14T22:13:20.250Z", "outcome": "completed",
                    "cause": "+odown",
                    "old_master": "a:1", "new_master": "b:1", "took_seconds": 1.1,
                    "held_requests": 42, "longest_hold_seconds": 1.08, "expired_requests": 0,
                    "resent_requests": 3, "uncertain_requests": 1,
                },
            }],
        });
        assert_eq!(
            table(&status).lines().collect::<Vec<_>>(),
            [
                "Switchman 1.2.3, up 1day 1h 1m 1s, 5 of at most 100 clients, 2 workers",
                "",
                "mymaster: switching for 0.4 s (epoch 3, generation 7)",
                "  listen        127.0.0.1:6379 (split, eventual)",
                "  clients       5, 2 held",
                "  late writes   not kept from being applied after a timeout: a:1: NOPERM",
                "  master        redis-1:6379             in use",
                "  replica       r:2                      in use, 90 % of the reads, \
                 14 bytes and 1.5 s behind, zone a, left: busy 2, lag 1",
                "  replica       r:1                      not in use: ?[2J",
                "  master reads  unsettled 7",
                "  sentinels     2 of 3 answer, a majority",
                "  sentinel      s:26379                  down: refused",
                "  last failover 2023-11-14T22:13:20.250Z completed (+odown): a:1 -> b:1 in 1.1 s, \
                 42 held (1.08 s at most), 0 refused, 3 sent again, 1 uncertain",
            ]
        );
    }

    #[test]
    fn nobody_there_is_told_with_what_to_do() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let args = StatusArgs {
            admin: free.to_string().parse().unwrap(),
            print: Print::Table,
            demand: Demand::Answer,
        };
        let error = ask(&args).unwrap_err();
        assert!(
            matches!(error, StatusError::Http(HttpError::Connect(_))),
            "{error}"
        );
        assert!(error.remedy().unwrap().contains("--admin"));
    }
}
