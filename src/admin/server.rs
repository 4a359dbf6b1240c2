//! Floor 4. The HTTP server of the admin address: routes, limits, an orderly stop.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{debug, debug_span, warn};

use crate::admin::control::{self, Control};
use crate::admin::health::{Health, Readiness, lines};
use crate::admin::view::View;
use crate::admin::{json, page};
use crate::net::{Listener, Stream};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Connections at once: a few scrapers, probes and browsers. One more ends the oldest, so that no
/// number of silent ones shuts out the probe that keeps the process alive.
const CONNECTIONS_MAX: usize = 64;
/// Longest time between a connection made, or a reply written, and the next complete request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// After so long a connection is asked to end, so that none that reads nothing stays for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(600);
/// Time for the reply under way when a connection is asked to end.
const GRACE: Duration = Duration::from_secs(2);
/// The same for a connection that is in the way of a new one; a page takes a few milliseconds.
const GIVE_WAY: Duration = Duration::from_millis(100);
/// Pause after a failed accept, which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Prometheus's text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
pub(super) const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const HTML_TYPE: &str = "text/html; charset=utf-8";
pub(super) const JSON_TYPE: &str = "application/json";
/// The page needs its own style and nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

const PATHS: &str = "/  /metrics  /livez  /readyz  /api/v1/status  /api/v1/failovers  \
    POST /api/v1/switchover\n";

/// What the server shows.
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Metrics,
    /// For `/livez`.
    pub health: Health,
    /// For everything else; called once per request, on the control plane's thread.
    pub view: Box<dyn Fn() -> View + Send + Sync>,
    /// For what changes something.
    pub control: Control,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("health", &self.health)
            .field("control", &self.control)
            .finish_non_exhaustive()
    }
}

/// Serves `admin` on `listener` until `tasks` are asked to stop; connections are tasks of theirs.
///
/// These should be asked last: `/readyz` is to say that the process is stopping while it does.
///
/// # Cancel safety
/// Dropping this future stops accepting; connections go on.
pub async fn serve(listener: Listener, admin: Admin, tasks: Tasks) {
    let router = router(Arc::new(admin));
    let mut slots = Slots::new();
    loop {
        // Biased: a stop wins over a client that is waiting.
        let accepted = tokio::select! {
            biased;
            () = tasks.stopping() => return,
            accepted = accept(&listener, &mut slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let span = debug_span!("admin", client.addr = stream.peer());
                let connection = connection(stream, slot, router.clone(), tasks.clone());
                tasks.spawn(span, connection);
            }
            Err(error) => {
                warn!(%error, "admin server cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(listener: &Listener, slots: &mut Slots) -> std::io::Result<(Stream, Slot)> {
    let stream = listener.accept().await?;
    Ok((stream, slots.take().await))
}

/// Who is connected, oldest first.
struct Slots {
    free: Arc<Semaphore>,
    /// Tells a connection to give way; closed when the connection has ended.
    taken: VecDeque<oneshot::Sender<()>>,
}

/// The right of one connection to exist.
struct Slot {
    give_way: oneshot::Receiver<()>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            taken: VecDeque::new(),
        }
    }

    /// A slot for a new connection; where none is free the oldest connection gives way.
    async fn take(&mut self) -> Slot {
        self.taken.retain(|connection| !connection.is_closed());
        if self.free.available_permits() == 0
            && let Some(oldest) = self.taken.pop_front()
        {
            // It may have ended this very moment; then its slot is free.
            let _ = oldest.send(());
        }
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (sender, give_way) = oneshot::channel();
        self.taken.push_back(sender);
        Slot {
            give_way,
            _permit: permit,
        }
    }
}

/// One connection. A half-sent request must not keep the process from stopping, nor hold its slot
/// for ever: each wait has an end.
async fn connection(stream: Stream, mut slot: Slot, router: Router, tasks: Tasks) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    let serving = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    // Biased: what is finished need not be stopped.
    let (ended, grace) = tokio::select! {
        biased;
        ended = serving.as_mut() => (Some(ended), GRACE),
        () = tasks.stopping() => (None, GRACE),
        _ = &mut slot.give_way => (None, GIVE_WAY),
        () = sleep(CONNECTION_LIFE) => (None, GRACE),
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        serving.as_mut().graceful_shutdown();
        timeout(grace, serving).await.unwrap_or(Ok(()))
    };
    if let Err(error) = ended {
        debug!(%error, "admin client gone");
    }
}

fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/api/v1/status", get(status))
        .route("/api/v1/failovers", get(failovers))
        .route("/api/v1/switchover", post(control::switchover))
        .layer(DefaultBodyLimit::max(control::ORDER_MAX))
        .fallback(async || reply(StatusCode::NOT_FOUND, TEXT_TYPE, PATHS.to_owned()))
        .with_state(admin)
}

async fn status_page(State(admin): State<Arc<Admin>>) -> Response {
    let mut response = reply(StatusCode::OK, HTML_TYPE, page::page(&(admin.view)()));
    let policy = header::HeaderValue::from_static(PAGE_POLICY);
    response
        .headers_mut()
        .insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    reply(StatusCode::OK, METRICS_TYPE, admin.metrics.render())
}

async fn livez(State(admin): State<Arc<Admin>>) -> Response {
    match admin.health.stalled().as_slice() {
        [] => reply(StatusCode::OK, TEXT_TYPE, "alive\n".to_owned()),
        stalled => {
            let hanging = stalled
                .iter()
                .map(|worker| format!("worker {worker} hangs"));
            reply(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, lines(hanging))
        }
    }
}

async fn readyz(State(admin): State<Arc<Admin>>, RawQuery(query): RawQuery) -> Response {
    let readiness = Readiness::of(&(admin.view)());
    let ready = readiness.is_ready();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose"));
    let text = if verbose {
        readiness.verbose()
    } else {
        readiness.brief()
    };
    reply(status, TEXT_TYPE, text)
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    reply(
        StatusCode::OK,
        JSON_TYPE,
        format!("{:#}\n", json::status(&(admin.view)())),
    )
}

async fn failovers(State(admin): State<Arc<Admin>>) -> Response {
    reply(
        StatusCode::OK,
        JSON_TYPE,
        format!("{:#}\n", json::failovers(&(admin.view)())),
    )
}

pub(super) fn reply(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tracing::Span;

    use super::*;
    use crate::admin::control::Refused;
    use crate::admin::view::tests::healthy;
    use crate::net::{ListenAddr, connect};
    use crate::telemetry::BuildInfo;
    use crate::types::{NodeAddr, Secret};

    const DEADLINE: Duration = Duration::from_secs(10);

    struct Running {
        addr: NodeAddr,
        tasks: Tasks,
        draining: Arc<AtomicBool>,
    }

    async fn start() -> Running {
        let any_port: ListenAddr = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&any_port).await.unwrap();
        let addr = listener.local_addr().unwrap().to_string().parse().unwrap();
        let draining = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&draining);
        let admin = Admin {
            metrics: Metrics::new(BuildInfo {
                version: "1.2.3",
                revision: "abc",
            }),
            health: Health::new(Instant::now(), vec![Arc::default()]),
            view: Box::new(move || View {
                draining: seen.load(Ordering::Relaxed),
                ..healthy()
            }),
            control: Control {
                token: Some(Secret::new("s3cret")),
                switch_over: Box::new(|name| {
                    Box::pin(async move {
                        name.map_or(Err(Refused::Busy), |asked| {
                            let known = "mymaster".to_owned();
                            Err(Refused::Unknown { asked, known })
                        })
                    })
                }),
            },
        };
        let tasks = Tasks::new();
        tasks.spawn(Span::none(), serve(listener, admin, tasks.clone()));
        Running {
            addr,
            tasks,
            draining,
        }
    }

    /// Head and body of the reply to `GET path`.
    async fn fetch(running: &Running, path: &str) -> (String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        say(running, &request).await
    }

    /// Head and body of the reply to an order with `token`.
    async fn order(running: &Running, token: &str, body: &str) -> (String, String) {
        let (path, length) = ("/api/v1/switchover", body.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        say(running, &request).await
    }

    async fn say(running: &Running, request: &str) -> (String, String) {
        let mut stream = connect(&running.addr, DEADLINE).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut reply))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn every_path_answers_with_its_type() {
        let running = start().await;
        for (path, status, content_type, part) in [
            ("/", "200", HTML_TYPE, "<h1>Switchman</h1>"),
            (
                "/metrics",
                "200",
                METRICS_TYPE,
                "switchman_build_info{version=\"1.2.3\"",
            ),
            ("/livez", "200", TEXT_TYPE, "alive"),
            ("/readyz", "200", TEXT_TYPE, "ready"),
            (
                "/readyz?verbose",
                "200",
                TEXT_TYPE,
                "[+] group mymaster: writes flow",
            ),
            (
                "/api/v1/status",
                "200",
                JSON_TYPE,
                "\"master_name\": \"mymaster\"",
            ),
            (
                "/api/v1/failovers",
                "200",
                JSON_TYPE,
                "\"old_master\": \"redis-2:6379\"",
            ),
            ("/nothing", "404", TEXT_TYPE, "/readyz"),
        ] {
            let (head, body) = fetch(&running, path).await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}")),
                "{path}: {head}"
            );
            assert!(
                head.contains(&format!("content-type: {content_type}")),
                "{path}: {head}"
            );
            assert!(body.contains(part), "{path}: {body}");
        }
        assert_eq!(running.tasks.drain(DEADLINE).await, 0);
    }

    #[tokio::test]
    async fn orders_need_the_token_and_say_what_is_wrong() {
        let running = start().await;
        let named = r#"{"master_name": "orders"}"#;
        for (token, body, status, part) in [
            ("wrong", "", "401", "admin.token"),
            ("s3cret", "", "409", "another switchover"),
            ("s3cret", named, "404", "mymaster"),
            ("s3cret", "[]", "400", "master_name"),
        ] {
            let (head, text) = order(&running, token, body).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
            assert!(text.contains(part), "{text}");
        }
    }

    #[tokio::test]
    async fn a_stopping_process_says_so_and_still_answers() {
        let running = start().await;
        running.draining.store(true, Ordering::Relaxed);
        let (head, body) = fetch(&running, "/readyz").await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert_eq!(body, "the process is stopping\n");
        assert!(
            fetch(&running, "/livez")
                .await
                .0
                .starts_with("HTTP/1.1 200")
        );
    }

    #[tokio::test]
    async fn silent_connections_do_not_shut_out_a_probe() {
        let running = start().await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX + 8 {
            silent.push(connect(&running.addr, DEADLINE).await.unwrap());
        }
        for _ in 0..8 {
            let probe = timeout(HEAD_TIMEOUT / 10, fetch(&running, "/livez"));
            let (head, _) = probe
                .await
                .expect("answered long before the silent ones are given up");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
        let first = silent.first_mut().unwrap();
        assert_eq!(
            first.read(&mut [0; 64]).await.unwrap_or(0),
            0,
            "the oldest gave way"
        );
        let last = silent.last_mut().unwrap();
        last.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")
            .await
            .unwrap();
        assert!(
            last.read(&mut [0; 64]).await.unwrap() > 0,
            "the youngest is still served"
        );
    }

    #[tokio::test]
    async fn a_half_sent_request_does_not_keep_the_server_from_stopping() {
        let running = start().await;
        let mut half = connect(&running.addr, DEADLINE).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
        fetch(&running, "/livez").await;
        assert_eq!(running.tasks.drain(DEADLINE).await, 0);
        assert_eq!(half.read(&mut [0; 64]).await.unwrap_or(0), 0);
    }
}
