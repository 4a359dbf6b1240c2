//! Floor 4. What an operator may order over HTTP, and who may.
//! Knows tokens and answers; what is ordered is done by whoever wires the process.

use std::fmt;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::admin::server::{Admin, JSON_TYPE, TEXT_TYPE, reply};
use crate::types::Secret;

/// Largest body of an order, in bytes.
pub(super) const ORDER_MAX: usize = 4 * 1024;

const DISABLED: &str = "switchover is off: set admin.token or admin.token-file \
    (SWITCHMAN_ADMIN_TOKEN, SWITCHMAN_ADMIN_TOKEN_FILE) where Switchman runs\n";
const UNAUTHORIZED: &str =
    "missing or wrong token: send the one of admin.token as \"Authorization: Bearer TOKEN\"\n";
const MALFORMED: &str = "the body must be empty, or JSON such as {\"master_name\": \"mymaster\"}\n";

/// What an operator may order.
pub struct Control {
    /// Who has it may give orders; nobody may without one.
    pub token: Option<Secret>,
    /// Fails the group of this name over, or the only group there is.
    pub switch_over: Box<dyn Fn(Option<String>) -> Ordered + Send + Sync>,
}

/// What will come of an order.
pub type Ordered = Pin<Box<dyn Future<Output = Result<SwitchoverView, Refused>> + Send>>;

/// A planned failover that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchoverView {
    /// Name of the group.
    pub master_name: String,
    /// What was done, in this order.
    pub steps: Vec<StepView>,
    /// How it ended.
    pub end: SwitchoverEnd,
}

/// One step of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepView {
    /// Its name, one word.
    pub step: &'static str,
    /// When it was over, from the start.
    pub at: Duration,
    /// What came of it, in words.
    pub detail: String,
}

/// How a planned failover ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchoverEnd {
    /// There is a new master.
    Switched {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
        /// Whether it has all that the old one had; `None` where it did not tell.
        lossless: Option<bool>,
    },
    /// It was given up.
    GaveUp {
        /// At which step.
        step: &'static str,
        /// Why.
        reason: String,
        /// How things were left.
        state: String,
    },
}

/// Why an order was not even begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No group has this name.
    #[error("no group is called {asked:?}; there are {known}")]
    Unknown {
        /// The name given.
        asked: String,
        /// The names there are.
        known: String,
    },
    /// Several groups, and no name.
    #[error("there are several groups, say which: {known}")]
    Several {
        /// The names there are.
        known: String,
    },
    /// One is under way.
    #[error("another switchover of this group is under way")]
    Busy,
    /// The process ends.
    #[error("the process is stopping")]
    Stopping,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Refused {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Unknown { .. } => StatusCode::NOT_FOUND,
            Self::Several { .. } => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::CONFLICT,
            Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `POST /api/v1/switchover`. Scripts rely on the names: `master_name`, `outcome` (`switched`,
/// `gave_up`), `steps[]` (`step`, `at_ms`, `detail`); when switched `old_master`, `new_master` and
/// `lossless` (null where the new master did not tell); when given up `step`, `reason`, `state`.
pub(super) async fn switchover(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(token) = &admin.control.token else {
        return text(StatusCode::FORBIDDEN, DISABLED);
    };
    let given = headers.get(header::AUTHORIZATION).and_then(bearer);
    if !given.is_some_and(|given| is_same(given, token.reveal().as_bytes())) {
        let mut response = text(StatusCode::UNAUTHORIZED, UNAUTHORIZED);
        let scheme = HeaderValue::from_static("Bearer");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
        return response;
    }
    let Ok(name) = master_name(&body) else {
        return text(StatusCode::BAD_REQUEST, MALFORMED);
    };
    match (admin.control.switch_over)(name).await {
        Ok(view) => {
            let status = match view.end {
                SwitchoverEnd::Switched { .. } => StatusCode::OK,
                SwitchoverEnd::GaveUp { .. } => StatusCode::SERVICE_UNAVAILABLE,
            };
            reply(status, JSON_TYPE, format!("{:#}\n", document(&view)))
        }
        Err(refused) => text(refused.status(), &format!("{refused}\n")),
    }
}

fn text(status: StatusCode, text: &str) -> Response {
    reply(status, TEXT_TYPE, text.to_owned())
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Whether both are equal, in a time that does not depend on where they differ.
fn is_same(given: &[u8], token: &[u8]) -> bool {
    let differ = given
        .iter()
        .zip(token.iter().cycle())
        .fold(0, |differ, (one, other)| black_box(differ | (one ^ other)));
    given.len() == token.len() && differ == 0
}

/// A body that is neither empty nor an order.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// The name in the body, if there is one.
fn master_name(body: &[u8]) -> Result<Option<String>, Malformed> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let document: Value = serde_json::from_slice(body).map_err(|_| Malformed)?;
    let order = document.as_object().ok_or(Malformed)?;
    match order.get("master_name") {
        None | Some(Value::Null) => Ok(None),
        Some(name) => Ok(Some(name.as_str().ok_or(Malformed)?.to_owned())),
    }
}

fn document(view: &SwitchoverView) -> Value {
    let step = |step: &StepView| {
        let at_ms = u64::try_from(step.at.as_millis()).unwrap_or(u64::MAX);
        json!({ "step": step.step, "at_ms": at_ms, "detail": step.detail })
    };
    let steps: Vec<Value> = view.steps.iter().map(step).collect();
    match &view.end {
        SwitchoverEnd::Switched { from, to, lossless } => json!({
            "master_name": view.master_name,
            "outcome": "switched",
            "old_master": from,
            "new_master": to,
            "lossless": lossless,
            "steps": steps,
        }),
        SwitchoverEnd::GaveUp {
            step,
            reason,
            state,
        } => json!({
            "master_name": view.master_name,
            "outcome": "gave_up",
            "step": step,
            "reason": reason,
            "state": state,
            "steps": steps,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_must_be_the_whole_token() {
        for (given, same) in [
            ("secret", true),
            ("secreT", false),
            ("secre", false),
            ("secretsecret", false),
            ("", false),
        ] {
            assert_eq!(is_same(given.as_bytes(), b"secret"), same, "{given}");
        }
        let value = HeaderValue::from_static("bearer secret");
        assert_eq!(bearer(&value), Some(&b"secret"[..]));
        assert_eq!(bearer(&HeaderValue::from_static("Basic secret")), None);
    }

    #[test]
    fn a_body_names_a_group_or_none() {
        assert_eq!(master_name(b" \n"), Ok(None));
        assert_eq!(master_name(b"{}"), Ok(None));
        let named = master_name(br#"{"master_name": "orders"}"#);
        assert_eq!(named, Ok(Some("orders".to_owned())));
        for wrong in [&b"orders"[..], b"[]", br#"{"master_name": 1}"#] {
            assert_eq!(master_name(wrong), Err(Malformed));
        }
    }
}
