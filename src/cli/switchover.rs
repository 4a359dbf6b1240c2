//! Floor 7. `switchman switchover`: orders a planned failover, and prints how it went.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::cli::args::Token;
use crate::cli::http::{HttpError, post};
use crate::cli::{Out, SwitchoverArgs};
use crate::types::Secret;

/// Orders the planned failover and prints each of its steps. Success is a new master that has
/// everything.
pub fn switchover(args: &SwitchoverArgs) -> ExitCode {
    match order(args) {
        Ok(Answer::Ended(document)) => {
            Out::Stdout.line(table(&document).trim_end());
            let switched = document["outcome"] == "switched";
            if switched && document["lossless"] != Value::Bool(false) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Ok(Answer::Refused(status, text)) => {
            Out::Stderr.line(format_args!("error: {}", text.trim_end()));
            if status == StatusCode::UNAUTHORIZED {
                Out::Stderr.line("Give the token: --token-file FILE, or SWITCHMAN_ADMIN_TOKEN");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            Out::Stderr.line(format_args!("error: {error}"));
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                Out::Stderr.line(format_args!("  because: {cause}"));
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

enum Answer {
    /// It was tried.
    Ended(Value),
    /// It was not even begun.
    Refused(StatusCode, String),
}

#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("cannot start the runtime")]
    Runtime(#[from] io::Error),
    #[error("cannot read the token in {path}")]
    Token { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Http(#[from] HttpError),
}

fn order(args: &SwitchoverArgs) -> Result<Answer, OrderError> {
    let token = token(&args.token)?;
    let body = match &args.master_name {
        Some(name) => json!({ "master_name": name }).to_string(),
        None => String::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let reply = post(&args.admin, "/api/v1/switchover", token.as_ref(), body);
    let (status, text) = runtime.block_on(reply)?;
    let document: Option<Value> = serde_json::from_str(&text).ok();
    Ok(
        match document.filter(|document| document["steps"].is_array()) {
            Some(document) => Answer::Ended(document),
            None => Answer::Refused(status, text),
        },
    )
}

fn token(token: &Token) -> Result<Option<Secret>, OrderError> {
    match token {
        Token::None => Ok(None),
        Token::Given(secret) => Ok(Some(secret.clone())),
        Token::File(path) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n'])))),
            Err(source) => Err(OrderError::Token {
                path: path.clone(),
                source,
            }),
        },
    }
}

/// Each step with its time, and the end, for people.
fn table(document: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut text = String::new();
    for step in document["steps"].as_array().into_iter().flatten() {
        let at_ms = step["at_ms"].as_u64().unwrap_or_default();
        let (name, detail) = (word(&step["step"]), word(&step["detail"]));
        push(&mut text, format_args!("{at_ms:>6} ms  {name:9} {detail}"));
    }
    let name = word(&document["master_name"]);
    if document["outcome"] == "switched" {
        let (old, new) = (word(&document["old_master"]), word(&document["new_master"]));
        let sure = match &document["lossless"] {
            Value::Bool(true) => "nothing was lost",
            Value::Bool(false) => "WRITES WERE LOST",
            _ => "the new master did not tell where its history begins",
        };
        push(&mut text, format_args!("{name}: {old} -> {new}, {sure}"));
    } else {
        let (step, reason) = (word(&document["step"]), word(&document["reason"]));
        push(
            &mut text,
            format_args!("{name}: given up at {step}: {reason}"),
        );
        push(&mut text, format_args!("now: {}", word(&document["state"])));
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing into a String cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_end_are_told_in_lines() {
        let steps = json!([{ "step": "hold", "at_ms": 12, "detail": "writes are held" }]);
        let switched = json!({
            "master_name": "orders", "outcome": "switched", "old_master": "a:1",
            "new_master": "b:1", "lossless": true, "steps": steps,
        });
        assert_eq!(
            table(&switched),
            "    12 ms  hold      writes are held\norders: a:1 -> b:1, nothing was lost\n"
        );
        let gave_up = json!({
            "master_name": "orders", "outcome": "gave_up", "step": "replicas",
            "reason": "b:1: 7 bytes behind", "state": "writes flow to a:1", "steps": [],
        });
        assert_eq!(
            table(&gave_up),
            "orders: given up at replicas: b:1: 7 bytes behind\nnow: writes flow to a:1\n"
        );
    }
}
