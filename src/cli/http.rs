//! Floor 7. One request to an admin server.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HeaderValue;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;

use crate::net::{ConnectError, connect};
use crate::types::{NodeAddr, Secret};

/// Longest time for a whole request that only asks.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for one that orders something: no hold lasts longer.
const ORDER_DEADLINE: Duration = Duration::from_secs(90);
/// Largest body that is read: far above any status, far below any memory.
const BODY_MAX: usize = 16 * 1024 * 1024;

/// A request without the reply that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// Nobody listens, or nobody can be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Whoever listens does not speak HTTP as we do.
    #[error("{addr} does not answer like an admin server")]
    Protocol {
        /// The address asked.
        addr: NodeAddr,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered something else than success.
    #[error("{addr} answered {status}")]
    Status {
        /// The address asked.
        addr: NodeAddr,
        /// Its answer.
        status: StatusCode,
    },
    /// It took too long.
    #[error("{addr} did not answer within {limit:?}")]
    TimedOut {
        /// The address asked.
        addr: NodeAddr,
        /// How long it had.
        limit: Duration,
    },
}

/// The body of a successful reply to `GET path`.
pub(super) async fn get(addr: &NodeAddr, path: &str) -> Result<String, HttpError> {
    let request = Request::get(path).body(Full::default());
    match within(DEADLINE, addr, request).await? {
        (status, body) if status.is_success() => Ok(body),
        (status, _) => Err(HttpError::Status {
            addr: addr.clone(),
            status,
        }),
    }
}

/// Status and body of the reply to `POST path` with `body`, in the name of whoever has `token`.
pub(super) async fn post(
    addr: &NodeAddr,
    path: &str,
    token: Option<&Secret>,
    body: String,
) -> Result<(StatusCode, String), HttpError> {
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {}", token.reveal()));
    }
    within(ORDER_DEADLINE, addr, request.body(Full::from(body))).await
}

type Built = Result<Request<Full<Bytes>>, hyper::http::Error>;

async fn within(
    limit: Duration,
    addr: &NodeAddr,
    request: Built,
) -> Result<(StatusCode, String), HttpError> {
    match tokio::time::timeout(limit, exchange(addr, request)).await {
        Ok(result) => result,
        Err(_late) => Err(HttpError::TimedOut {
            addr: addr.clone(),
            limit,
        }),
    }
}

async fn exchange(addr: &NodeAddr, request: Built) -> Result<(StatusCode, String), HttpError> {
    let broken = |source| HttpError::Protocol {
        addr: addr.clone(),
        source,
    };
    let mut request = request.map_err(|error| broken(error.into()))?;
    let host = HeaderValue::from_str(&addr.to_string()).map_err(|error| broken(error.into()))?;
    request.headers_mut().insert("host", host);
    let stream = TokioIo::new(connect(addr, DEADLINE).await?);
    let (mut sender, connection) = http1::handshake(stream)
        .await
        .map_err(|error| broken(error.into()))?;
    // The connection ends when the sender is dropped, behind the reply; its own error, if there is
    // one, is told by the reply.
    let reply = async move {
        let reply = sender
            .send_request(request)
            .await
            .map_err(|error| broken(error.into()))?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), BODY_MAX)
            .collect()
            .await
            .map_err(broken)?;
        Ok((
            status,
            String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        ))
    };
    let (reply, _) = tokio::join!(reply, connection);
    reply
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::AsyncReadExt;
    use tracing::Span;

    use super::*;
    use crate::admin::{Admin, Control, Health, Refused, View, serve};
    use crate::net::{ListenAddr, Listener};
    use crate::tasks::Tasks;
    use crate::telemetry::{BuildInfo, Metrics};

    fn nothing_to_order() -> Control {
        Control {
            token: None,
            switch_over: Box::new(|_| Box::pin(async { Err(Refused::Stopping) })),
        }
    }

    async fn listener() -> (Listener, NodeAddr) {
        let any_port: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&any_port).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string().parse().unwrap();
        (listener, addr)
    }

    #[tokio::test]
    async fn an_admin_server_is_asked_and_its_refusals_are_told() {
        let (listener, addr) = listener().await;
        let view = || View {
            version: "1.2.3".to_owned(),
            uptime: Duration::ZERO,
            draining: true,
            workers: 1,
            clients: 0,
            max_clients: 1,
            groups: Vec::new(),
        };
        let admin = Admin {
            metrics: Metrics::new(BuildInfo {
                version: "1.2.3",
                revision: "abc",
            }),
            health: Health::new(Instant::now(), Vec::new()),
            view: Box::new(view),
            control: nothing_to_order(),
        };
        let tasks = Tasks::new();
        tasks.spawn(Span::none(), serve(listener, admin, tasks.clone()));
        let status = get(&addr, "/api/v1/status").await.unwrap();
        assert!(status.contains("\"version\": \"1.2.3\""), "{status}");
        let refused = get(&addr, "/readyz").await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("{addr} answered 503 Service Unavailable")
        );
        let path = "/api/v1/switchover";
        let (status, text) = post(&addr, path, None, String::new()).await.unwrap();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(text.contains("admin.token"), "{text}");
    }

    #[tokio::test]
    async fn a_peer_that_speaks_something_else_is_told_apart() {
        let (listener, addr) = listener().await;
        let redis = async {
            let mut stream = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"-ERR unknown command\r\n").await
        };
        let (answer, written) = tokio::join!(get(&addr, "/api/v1/status"), redis);
        written.unwrap();
        assert!(
            matches!(answer, Err(HttpError::Protocol { .. })),
            "{answer:?}"
        );
    }
}
