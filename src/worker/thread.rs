//! Floor 5. A worker's thread: its runtime, what it listens to, and its end.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::LocalRuntime;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::core::{Core, Shared};
use super::neighbours::{Neighbours, Note};
use super::publish::{GroupGauges, Publisher};
use crate::command::Table;
use crate::downstream::{Door, NewClient};
use crate::exchange::{self, Exchange, GroupSettings};
use crate::sentinel::Fences;
use crate::telemetry::{WorkerBusy, WorkerMetrics};
use crate::topology::{Report, Snapshot};
use crate::types::Time;
use crate::upstream;

/// Clients on their way from the acceptor.
const DOOR: usize = 128;

/// How often a worker that has nothing else to do publishes its counts and shows that it lives.
const PUBLISH: Duration = Duration::from_millis(200);

/// What a worker is told once.
#[derive(Debug)]
pub struct Setup {
    /// Its number, from 0.
    pub worker: usize,
    /// Bounds of its exchange.
    pub exchange: exchange::Settings,
    /// Times of its connections.
    pub upstream: upstream::Settings,
    /// Its groups, in the order of their indices.
    pub groups: Vec<GroupFeed>,
    /// The start of the process, from which [`Time`] counts.
    pub started: Instant,
    /// Chance.
    pub seed: u64,
    /// Where its busy time is published.
    pub busy: WorkerBusy,
    /// What the operator refuses and allows.
    pub policy: CommandPolicy,
    /// The other workers.
    pub neighbours: Neighbours,
}

/// Which commands the operator refuses, and which of those refused by default he allows.
#[derive(Clone, Debug, Default)]
pub struct CommandPolicy {
    /// Names as in `flushall` or `client|kill`.
    pub refuse: Vec<String>,
    /// Names as above.
    pub allow: Vec<String>,
}

impl CommandPolicy {
    fn apply(&self, table: Arc<Table>) -> Arc<Table> {
        if self.refuse.is_empty() && self.allow.is_empty() {
            return table;
        }
        Arc::new(table.with_policy(&self.refuse, &self.allow))
    }
}

/// What a worker hears of one group.
#[derive(Debug)]
pub struct GroupFeed {
    /// Its policy.
    pub settings: GroupSettings,
    /// Its pictures.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What commands are.
    pub commands: watch::Receiver<Arc<Table>>,
    /// The way back.
    pub reports: mpsc::Sender<Report>,
    /// Where connections are ended at their nodes.
    pub fences: Fences,
    /// Where its counts are published.
    pub metrics: WorkerMetrics,
    /// And shown.
    pub gauges: Arc<GroupGauges>,
}

/// What the rest of the process holds of a worker.
#[derive(Debug)]
pub struct Worker {
    /// The way in for clients.
    pub door: Door,
    /// For asking it to stop, and for the admin page.
    pub handle: WorkerHandle,
    thread: JoinHandle<usize>,
}

/// A view of a worker that can be shared.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    /// When the worker last went round its loop, in milliseconds since the start of the process.
    pub beat: Arc<AtomicU64>,
    stop: CancellationToken,
}

impl WorkerHandle {
    /// Asks the worker to finish what is in flight and to end.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
    }
}

impl Worker {
    /// Waits for the thread to end. Returns how many clients were still there at the deadline.
    pub fn join(self) -> usize {
        self.thread.join().unwrap_or(0)
    }
}

/// Starts a worker on a thread of its own. `drain` is how long it may take to stop.
pub fn start(setup: Setup, drain: Duration) -> io::Result<Worker> {
    let (sender, clients) = mpsc::channel(DOOR);
    let count = Arc::new(AtomicUsize::new(0));
    let handle = WorkerHandle {
        beat: Arc::default(),
        stop: CancellationToken::new(),
    };
    let door = Door {
        clients: sender,
        count: Arc::clone(&count),
    };
    let (life, name) = (handle.clone(), format!("worker-{}", setup.worker));
    let (ready, started) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        let runtime = match LocalRuntime::new() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready.send(Err(error));
                return 0;
            }
        };
        let _ = ready.send(Ok(()));
        let late = runtime.block_on(serve(setup, clients, (life, count), drain));
        // A name that is being resolved must not hold up the end.
        runtime.shutdown_timeout(Duration::ZERO);
        late
    })?;
    match started.recv() {
        Ok(Ok(())) => Ok(Worker {
            door,
            handle,
            thread,
        }),
        Ok(Err(error)) => Err(error),
        Err(_gone) => Err(io::Error::other("the worker's thread ended at its start")),
    }
}

/// The life of a worker.
async fn serve(
    setup: Setup,
    clients: mpsc::Receiver<NewClient>,
    (life, count): (WorkerHandle, Arc<AtomicUsize>),
    drain: Duration,
) -> usize {
    let Setup {
        worker,
        exchange,
        upstream,
        groups,
        started,
        seed,
        busy,
        policy,
        mut neighbours,
    } = setup;
    let policies = groups.iter().map(|feed| feed.settings.clone()).collect();
    let reports = groups.iter().map(|feed| feed.reports.clone()).collect();
    let fences = groups.iter().map(|feed| feed.fences.clone()).collect();
    let exchange = Exchange::new(exchange, policies, seed);
    let heard = neighbours.hear();
    let core = Core::new(
        exchange,
        worker,
        upstream,
        (started, count),
        (reports, fences, neighbours),
    );
    spawn_local(follow_neighbours(Rc::clone(&core), heard));
    let mut publisher = Publisher::new(worker, busy);
    for (index, feed) in groups.into_iter().enumerate() {
        publisher.add(feed.metrics, feed.gauges);
        spawn_local(follow_snapshots(Rc::clone(&core), index, feed.snapshots));
        spawn_local(follow_commands(
            Rc::clone(&core),
            index,
            feed.commands,
            policy.clone(),
        ));
    }
    let accepting = spawn_local(accept(Rc::clone(&core), clients));
    let publisher = Rc::new(RefCell::new(publisher));
    spawn_local(keep_time(
        Rc::clone(&core),
        Rc::clone(&publisher),
        Arc::clone(&life.beat),
    ));

    life.stop.cancelled().await;
    accepting.abort();
    with(&core, Exchange::stop);
    let empty = async {
        while core.borrow().exchange.client_count() > 0 {
            sleep(DRAIN_LOOK).await;
        }
    };
    let _ = timeout(drain, empty).await;
    let late = core.borrow().exchange.client_count();
    with(&core, Exchange::abandon_all);
    publisher
        .borrow_mut()
        .publish(&mut core.borrow_mut().exchange);
    if late > 0 {
        warn!(
            worker,
            clients.late = late,
            "clients were cut off at the end of shutdown.drain-timeout"
        );
    }
    core.borrow_mut().close();
    debug!(worker, "worker ended");
    late
}

/// How often a stopping worker looks whether its last client is gone.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

async fn follow_snapshots(
    core: Shared,
    group: usize,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
) {
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        with(&core, |exchange, now| {
            exchange.topology(group, snapshot, now);
        });
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn follow_commands(
    core: Shared,
    group: usize,
    mut tables: watch::Receiver<Arc<Table>>,
    policy: CommandPolicy,
) {
    loop {
        let table = policy.apply(Arc::clone(&tables.borrow_and_update()));
        with(&core, |exchange, _now| exchange.commands(group, table));
        if tables.changed().await.is_err() {
            return;
        }
    }
}

/// Answers other workers, and hears their answers.
async fn follow_neighbours(core: Shared, heard: Option<mpsc::Receiver<Note>>) {
    let Some(mut heard) = heard else { return };
    while let Some(note) = heard.recv().await {
        let mut core = core.borrow_mut();
        let now = core.now();
        match note {
            Note::Question(asker, question) => {
                let answer = core.answer(&question, now);
                core.neighbours.answer(asker, answer);
            }
            Note::Answer(answer) => core.exchange.roll_answered(answer, now),
        }
        core.perform(now);
    }
}

/// Takes clients from the acceptor.
async fn accept(core: Shared, mut clients: mpsc::Receiver<NewClient>) {
    while let Some(client) = clients.recv().await {
        let NewClient {
            stream,
            entrance,
            id,
        } = client;
        let stream = match stream.attach() {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "client gone before it was served");
                core.borrow().count.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
        };
        let key = core.borrow_mut().join(stream, entrance, id);
        let core = Rc::clone(&core);
        spawn_local(async move { poll_fn(|cx| core.borrow_mut().poll_client(key, cx)).await });
    }
}

/// Time between two looks for clients that hung up while they were not read from.
const LOOK: Duration = Duration::from_secs(1);

/// Times, counts and signs of life.
async fn keep_time(core: Shared, publisher: Rc<RefCell<Publisher>>, beat: Arc<AtomicU64>) {
    let (mut last, mut looked) = (Time::ZERO, Time::ZERO);
    let hurry = Rc::clone(&core.borrow().hurry);
    loop {
        let pause = {
            let mut open = core.borrow_mut();
            let now = open.now();
            open.exchange.tick(now);
            open.perform(now);
            open.send_reports();
            let alive = u64::try_from(now.since_start().as_millis()).unwrap_or(u64::MAX);
            beat.store(alive, Ordering::Relaxed);
            let wanted = open.exchange.poll_timeout(now).map(|at| at.since(now));
            wanted.map_or(PUBLISH, |wanted| wanted.min(PUBLISH))
        };
        let now = core.borrow().now();
        if now.since(last) >= PUBLISH {
            last = now;
            publisher
                .borrow_mut()
                .publish(&mut core.borrow_mut().exchange);
        }
        if now.since(looked) >= LOOK {
            looked = now;
            core.borrow_mut().look_for_hung_up(now);
        }
        // Whichever comes first.
        let _ = timeout(pause, hurry.notified()).await;
    }
}

/// Lets the exchange have an event and performs what follows from it.
fn with(core: &Shared, event: impl FnOnce(&mut Exchange, Time)) {
    let mut core = core.borrow_mut();
    let now = core.now();
    event(&mut core.exchange, now);
    core.perform(now);
}
