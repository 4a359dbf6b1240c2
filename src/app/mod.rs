//! Floor 8. Wires everything once: what is built in which order, and how it stops.
//!
//! ```text
//!  start   log, limits, control plane (Sentinels, topology), workers, acceptor, admin
//!  stop    signal ─► /readyz fails, no new clients ─► workers finish what is in flight, or are cut
//!          off at shutdown.drain-timeout ─► control plane ─► exit
//! ```

mod acceptor;
mod control;
mod convert;
mod monitor;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, info_span, warn};

use self::acceptor::Accepting;
use crate::admin::{self, Admin, Health};
use crate::config::{Loaded, Settings};
use crate::downstream::{Acceptor, Door, client_limit};
use crate::exchange::Scripts;
use crate::net::Listener;
use crate::sentinel;
use crate::tasks::Tasks;
use crate::telemetry::{BuildInfo, Metrics, logging};
use crate::worker::{self, CommandPolicy, GroupFeed, GroupGauges, Setup, Worker};

/// Time for the control plane's tasks to end after the workers have.
const CONTROL_DRAIN: Duration = Duration::from_secs(2);

/// Version of Switchman.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Source revision; whoever builds a release sets it in the environment of the build.
const REVISION: &str = match option_env!("SWITCHMAN_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Serves clients until a signal ends it.
pub fn run(loaded: &Loaded) -> anyhow::Result<()> {
    logging::init(&loaded.settings.log).context("cannot start logging")?;
    for problem in &loaded.warnings {
        warn!(%problem, "configuration");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(&loaded.settings));
    // A host name that is being resolved must not hold up the exit.
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// One group while the process runs.
struct Group {
    handle: sentinel::Handle,
    gauges: Arc<GroupGauges>,
    shared: convert::Shared,
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let started = Instant::now();
    let workers = settings.workers.get();
    let tasks = Tasks::new();
    let metrics = Metrics::new(BuildInfo {
        version: VERSION,
        revision: REVISION,
    });
    let limit = client_limit(
        settings.limits.max_clients.map(std::num::NonZeroUsize::get),
        workers.saturating_mul(settings.upstream.max_leased.get()),
    );
    info!(
        version = VERSION,
        workers,
        max_clients = limit.clients,
        "switchman starts"
    );

    let admin_listener = Listener::bind(&settings.admin.listen).await?;
    let groups: Vec<_> = settings
        .groups
        .iter()
        .map(|group| {
            let stamps = convert::stamps(group);
            let told = convert::sentinel(settings, group, stamps.clone());
            Group {
                handle: sentinel::start(told, started, &tasks),
                gauges: Arc::default(),
                shared: convert::Shared::new(stamps),
            }
        })
        .collect();
    let running = start_workers(settings, &groups, &metrics, started)?;
    let doors: Vec<Door> = running.iter().map(|worker| worker.door.clone()).collect();
    let accepting = start_acceptor(settings, &groups, doors.clone(), limit.clients)?;

    let draining = Arc::new(AtomicBool::new(false));
    let tallies = monitor::start(&groups, settings, &metrics, &tasks);
    let beats = running
        .iter()
        .map(|worker| Arc::clone(&worker.handle.beat))
        .collect();
    let source = view::Source {
        started,
        groups: view::sources(settings, &groups, &accepting.bound, tallies),
        doors,
        max_clients: limit.clients,
        draining: Arc::clone(&draining),
    };
    let admin = Admin {
        metrics,
        health: Health::new(started, beats),
        view: Box::new(move || source.view()),
        control: control::control(settings, &groups),
    };
    announce(settings, &accepting.bound, &admin_listener);
    let admin_tasks = Tasks::new();
    let server = admin::serve(admin_listener, admin, admin_tasks.clone());
    admin_tasks.spawn(info_span!("admin"), server);

    wait_for_signal().await?;
    draining.store(true, Ordering::Relaxed);
    stop(settings, accepting, running, &tasks).await;
    tasks.drain(CONTROL_DRAIN).await;
    admin_tasks.drain(CONTROL_DRAIN).await;
    info!("switchman ends");
    Ok(())
}

fn start_acceptor(
    settings: &Settings,
    groups: &[Group],
    doors: Vec<Door>,
    max_clients: usize,
) -> anyhow::Result<Accepting> {
    let refused = groups.iter().map(|group| Arc::clone(&group.gauges.refused));
    let acceptor = Acceptor {
        doors,
        max_clients,
        refused: refused.collect(),
        next_client: Arc::new(AtomicU64::new(1)),
    };
    let listen = settings.groups.iter().map(|group| {
        let listeners = group.listen.iter();
        listeners
            .map(|listener| (listener.addr.clone(), convert::access(listener)))
            .collect()
    });
    acceptor::start(listen.collect(), acceptor)
}

fn start_workers(
    settings: &Settings,
    groups: &[Group],
    metrics: &Metrics,
    started: Instant,
) -> anyhow::Result<Vec<Worker>> {
    let policy = CommandPolicy {
        refuse: settings.commands.refuse.clone(),
        allow: settings.commands.allow.clone(),
    };
    let feed = |(group, of): (&Group, &crate::config::GroupSettings)| GroupFeed {
        settings: convert::group(settings, of, group.shared.clone()),
        snapshots: group.handle.snapshots.clone(),
        commands: group.handle.commands.clone(),
        reports: group.handle.reports.clone(),
        fences: group.handle.fences.clone(),
        metrics: metrics.worker(&of.master_name),
        gauges: Arc::clone(&group.gauges),
    };
    let scripts = Arc::new(Scripts::new(settings.limits.script_cache));
    let start = |(worker, neighbours)| {
        let setup = Setup {
            worker,
            exchange: convert::exchange(settings, &scripts),
            upstream: convert::upstream(settings),
            groups: groups.iter().zip(&settings.groups).map(feed).collect(),
            started,
            seed: fastrand::u64(..),
            busy: metrics.worker_busy(),
            policy: policy.clone(),
            neighbours,
        };
        worker::start(setup, settings.shutdown.drain_timeout)
            .context("cannot start a worker thread")
    };
    let all = worker::neighbours(settings.workers.get());
    all.into_iter().enumerate().map(start).collect()
}

/// One line for each address, for people and for scripts that let the system choose a port.
fn announce(settings: &Settings, bound: &[Vec<crate::net::ListenAddr>], admin: &Listener) {
    for (group, addrs) in settings.groups.iter().zip(bound) {
        for (listener, addr) in group.listen.iter().zip(addrs) {
            info!(
                listen.addr = %addr,
                listen.role = listener.role.word(),
                master_name = %group.master_name,
                "listening"
            );
        }
    }
    if let Ok(addr) = admin.local_addr() {
        info!(listen.addr = %addr, "admin listening");
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Either ends the process the same way; which is looked at first does not matter.
    let name = tokio::select! {
        biased;
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(signal = name, "stopping: finishing what is in flight");
    Ok(())
}

/// Stops the data plane. The control plane goes on meanwhile, so that a switch can still end well.
async fn stop(settings: &Settings, accepting: Accepting, running: Vec<Worker>, tasks: &Tasks) {
    accepting.stop();
    for worker in &running {
        worker.handle.ask_to_stop();
    }
    let (done, ended) = tokio::sync::oneshot::channel();
    tasks.spawn(info_span!("stop"), async move {
        let late = tokio::task::spawn_blocking(move || {
            running.into_iter().map(Worker::join).sum::<usize>()
        });
        // Nobody listens any more if the process gave up waiting.
        let _ = done.send(late.await.unwrap_or(0));
    });
    let limit = settings.shutdown.drain_timeout + CONTROL_DRAIN;
    match tokio::time::timeout(limit, ended).await {
        Ok(Ok(0)) => {}
        Ok(Ok(late)) => warn!(clients.late = late, "clients were cut off"),
        Ok(Err(_)) | Err(_) => warn!("workers did not end in time"),
    }
}
