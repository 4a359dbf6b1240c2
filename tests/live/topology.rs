//! The control plane alone, before real Redis nodes and real Sentinels: what it publishes, and
//! when.

use std::sync::{Arc, Mutex};
use std::thread;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::{Deployment, Plan};
use switchman::demo::process::wait_for;
use switchman::sentinel::{self, Handle, Settings, Source, Status};
use switchman::tasks::Tasks;
use switchman::topology::{Phase, Report, ReportKind, SentinelStatus, Snapshot, Subscription};
use switchman::types::{Credentials, MasterName, NodeAddr, Secret};

use crate::lab::{Lab, SOON};

/// From the fault to Sentinel's news of a new master: down-after 1 s, election, promotion.
const SWITCH_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_group_is_found_with_its_replicas_its_sentinels_and_its_commands() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let mut settings = settings(&lab);
    let Source::Sentinels { seeds, .. } = &mut settings.source else {
        unreachable!("these are Sentinels");
    };
    seeds.truncate(1);
    let follower = Follower::start(settings);
    let found = follower.wait("the master and its replicas", SOON, |snapshot| {
        snapshot.phase == Phase::Stable && snapshot.replicas.len() == 2
    });
    println!("found with both replicas after {:?}", found.at);
    assert_eq!(found.snapshot.master, Some(node(&lab, 0)));
    assert_eq!(found.snapshot.hold, Duration::from_secs(10));
    let learned = follower.wait_status(SOON, |status| {
        status.sentinels.iter().filter(|it| it.up).count() == 3
    });
    assert_eq!(learned.sentinels.iter().filter(|it| it.seed).count(), 1);
    follower.wait_commands();
}

#[test]
fn sentinels_that_start_after_us_are_found() {
    let lab = Lab::start(&Plan::default());
    for sentinel in lab.sentinels() {
        sentinel.kill().unwrap();
    }
    let follower = Follower::start(settings(&lab));
    follower.wait_status(SOON, |status| {
        status.sentinels.iter().all(|it| it.error.is_some())
    });
    assert!(follower.log().is_empty());
    lab.sentinel(1).restart().unwrap();
    let up = follower.elapsed();
    let found = follower.wait("a master", 2 * SOON, |it| it.phase == Phase::Stable);
    println!(
        "found {:?} after the Sentinel was up",
        found.at.saturating_sub(up)
    );
    assert_eq!(found.snapshot.master, Some(node(&lab, 0)));
}

#[test]
fn a_killed_master_is_replaced_as_soon_as_sentinel_says_so() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let follower = Follower::start(settings(&lab));
    follower.wait("the master", SOON, |it| it.replicas.len() == 2);
    follower.wait_commands();
    let ear = Ear::open(&lab, follower.start);
    let killed = follower.elapsed();
    lab.node(0).kill().unwrap();
    let held = follower.wait("the hold", SOON, is_holding);
    let switched = follower.wait("the new master", SWITCH_MAX, |it| {
        is_stable_at_other(it, &lab)
    });
    let news = ear.first(&["+promoted-slave", "+switch-master"]);
    println!(
        "kill -9: held after {:?}; news after {:?}; new master {:?} after the news",
        held.at.saturating_sub(killed),
        news.saturating_sub(killed),
        switched.at.saturating_sub(news)
    );
    assert!(switched.at.saturating_sub(news) < Duration::from_millis(1_500));
    assert_eq!(held.snapshot.replicas.len(), 2, "reads go on");
    let status = follower.wait_status(SOON, |status| status.switches_completed == 1);
    print_incident(&status);
    // The old one comes back as a master, and is not read from before it is a replica.
    lab.node(0).restart().unwrap();
    let back = node(&lab, 0);
    let seen = follower.wait("the old master as a replica", 4 * SWITCH_MAX, |it| {
        it.replicas.contains(&back)
    });
    assert_eq!(seen.snapshot.phase, Phase::Stable);
    let role = lab.node(0).command(&["ROLE"]).unwrap();
    assert_eq!(
        role.items().first().and_then(Reply::text).as_deref(),
        Some("slave")
    );
    let flaps = follower
        .log()
        .iter()
        .filter(|it| is_holding(&it.snapshot))
        .count();
    let masters = follower.masters();
    assert_eq!(masters.len(), 2, "{flaps} holds, masters {masters:?}");
}

#[test]
fn a_planned_failover_holds_before_the_promotion_and_ends_with_it() {
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Plan::default()
    });
    let follower = Follower::start(settings(&lab));
    follower.wait("the master", SOON, |it| it.replicas.len() == 2);
    follower.wait_commands();
    let ear = Ear::open(&lab, follower.start);
    lab.failover().unwrap();
    let held = follower.wait("the hold", SOON, is_holding);
    let switched = follower.wait("the new master", SWITCH_MAX, |it| {
        is_stable_at_other(it, &lab)
    });
    let (began, asked) = (
        ear.first(&["+try-failover"]),
        ear.first(&["+failover-state-wait-promotion"]),
    );
    let promoted = ear.first(&["+promoted-slave"]);
    println!(
        "SENTINEL FAILOVER: held {:?} after +try-failover, {:?} before the promotion was \
         ordered; new master {:?} after +promoted-slave, hold of {:?}",
        held.at.saturating_sub(began),
        asked.saturating_sub(held.at),
        switched.at.saturating_sub(promoted),
        switched.at.saturating_sub(held.at)
    );
    assert!(
        held.at < asked,
        "writes were held before the candidate was told"
    );
    assert!(switched.at.saturating_sub(promoted) < Duration::from_millis(500));
    assert!(switched.snapshot.epoch > held.snapshot.epoch);
    follower.wait("the replicas", 4 * SWITCH_MAX, |it| it.replicas.len() == 2);
    assert_eq!(follower.masters().len(), 2);
    let status = follower.status();
    print_incident(&status);
    assert_eq!(status.switches_completed, 1);
}

#[test]
fn a_frozen_master_is_held_and_gone_on_with_when_it_thaws_in_time() {
    let lab = Lab::start(&Plan {
        down_after: Duration::from_secs(10),
        ..Plan::default()
    });
    let follower = Follower::start(settings(&lab));
    let first = follower.wait("the master", SOON, |it| it.phase == Phase::Stable);
    lab.node(0).freeze().unwrap();
    let frozen = follower.elapsed();
    let held = follower.wait("the hold", SOON, is_holding);
    lab.node(0).thaw().unwrap();
    let thawed = follower.elapsed();
    let on = follower.wait("the same master", SOON, |it| {
        it.phase == Phase::Stable && it.generation > held.snapshot.generation
    });
    println!(
        "SIGSTOP: held after {:?}, gone on with {:?} after SIGCONT",
        held.at.saturating_sub(frozen),
        on.at.saturating_sub(thawed)
    );
    assert_eq!(on.snapshot.master, first.snapshot.master);
    assert_eq!(follower.status().switches_abandoned, 1);
}

#[test]
fn a_frozen_sentinel_is_found_out_and_heard_again_when_it_thaws() {
    let lab = Lab::start(&Plan::default());
    let follower = Follower::start(settings(&lab));
    let frozen = NodeAddr::parse(&lab.sentinel(0).addr().to_string(), None).unwrap();
    let subscribed = |status: &Status, want: bool| {
        let sentinel = status.sentinels.iter().find(|it| it.addr == frozen);
        sentinel.is_some_and(|it| (it.subscription == Subscription::On) == want)
    };
    follower.wait_status(SOON, |status| subscribed(status, true));
    let since = Instant::now();
    lab.sentinel(0).freeze().unwrap();
    follower.wait_status(SOON, |status| subscribed(status, false));
    println!("half-open subscription found after {:?}", since.elapsed());
    lab.sentinel(0).thaw().unwrap();
    follower.wait_status(2 * SOON, |status| subscribed(status, true));
    assert_eq!(follower.masters().len(), 1, "the others were enough");
}

#[test]
fn passwords_are_given_to_nodes_and_sentinels() {
    let lab = Lab::start(&Plan {
        password: Some("node-secret".to_owned()),
        sentinel_password: Some("sentinel-secret".to_owned()),
        ..Plan::default()
    });
    let secret = |text: &str| {
        Some(Credentials {
            username: None,
            password: Secret::new(text),
        })
    };
    let mut settings = settings(&lab);
    settings.node_credentials = secret("node-secret");
    let Source::Sentinels { credentials, .. } = &mut settings.source else {
        unreachable!("these are Sentinels");
    };
    *credentials = secret("sentinel-secret");
    let follower = Follower::start(settings);
    follower.wait("the master and its replica", SOON, |it| {
        it.replicas.len() == 1
    });
}

#[test]
fn without_the_right_to_subscribe_the_promotion_itself_is_the_first_sign() {
    let may = "-@all +auth +role +info +sentinel|get-master-addr-by-name +sentinel|master \
               +sentinel|replicas +sentinel|sentinels +sentinel|myid";
    let lab = Lab::start(&Plan {
        sentinel_config: vec![format!("user watch on >secret {may}")],
        ..Plan::default()
    });
    let mut settings = settings(&lab);
    let Source::Sentinels { credentials, .. } = &mut settings.source else {
        unreachable!("these are Sentinels");
    };
    *credentials = Some(Credentials {
        username: Some(Arc::from("watch")),
        password: Secret::new("secret"),
    });
    let follower = Follower::start(settings);
    follower.wait("the master", SOON, |it| it.replicas.len() == 1);
    follower.wait_commands();
    follower.wait_status(SOON, |status| {
        let forbidden = |it: &SentinelStatus| it.subscription == Subscription::Forbidden;
        status.sentinels.iter().all(forbidden)
    });
    lab.failover().unwrap();
    let held = follower.wait("the hold", SWITCH_MAX, is_holding);
    let switched = follower.wait("the new master", SWITCH_MAX, |it| {
        is_stable_at_other(it, &lab)
    });
    let status = follower.wait_status(SOON, |status| status.switches_completed == 1);
    print_incident(&status);
    println!(
        "polling only: hold of {:?}, cause {}",
        switched.at.saturating_sub(held.at),
        status.incidents.first().unwrap().cause
    );
}

#[test]
fn a_static_group_is_followed_without_sentinels() {
    let lab = Lab::start(&Plan {
        sentinels: 0,
        ..Plan::default()
    });
    let master_name = MasterName::new("alone");
    let (master, replicas) = (node(&lab, 0), vec![node(&lab, 1)]);
    let source = Source::Static { master, replicas };
    let follower = Follower::start(Settings::new(master_name, source));
    let found = follower.wait("both nodes", SOON, |it| it.replicas.len() == 1);
    assert_eq!(found.snapshot.master, Some(node(&lab, 0)));
    lab.node(0).kill().unwrap();
    follower.wait("the hold", SOON, is_holding);
    lab.node(0).restart().unwrap();
    follower.wait("the master again", SOON, |it| {
        it.phase == Phase::Stable && it.generation > found.snapshot.generation
    });
}

fn print_incident(status: &Status) {
    let incident = status.incidents.first().unwrap();
    for mark in &incident.marks {
        let at = incident.offset_ms(mark);
        println!("{at:>7} ms  {}  {}", mark.who, mark.what);
    }
}

fn settings(lab: &Lab) -> Settings {
    let seeds = lab
        .sentinels()
        .iter()
        .map(|it| NodeAddr::parse(&it.addr().to_string(), None));
    let source = Source::Sentinels {
        seeds: seeds.map(Result::unwrap).collect(),
        credentials: None,
    };
    Settings::new(MasterName::new(lab.master_name()), source)
}

fn node(lab: &Deployment, index: usize) -> NodeAddr {
    NodeAddr::parse(&lab.node(index).addr().to_string(), None).unwrap()
}

fn is_holding(snapshot: &Snapshot) -> bool {
    matches!(snapshot.phase, Phase::Switching { .. })
}

fn is_stable_at_other(snapshot: &Snapshot, lab: &Lab) -> bool {
    snapshot.phase == Phase::Stable && snapshot.master != Some(node(lab, 0))
}

/// The control plane on a thread of its own, as in the real process, with workers that are quiet at
/// once and complain of nothing.
struct Follower {
    start: Instant,
    tasks: Tasks,
    log: Arc<Mutex<Vec<Entry>>>,
    status: tokio::sync::watch::Receiver<Arc<Status>>,
    commands: tokio::sync::watch::Receiver<Arc<switchman::command::Table>>,
    thread: Option<JoinHandle<()>>,
}

/// A snapshot, and when it was published.
#[derive(Clone, Debug)]
struct Entry {
    at: Duration,
    snapshot: Arc<Snapshot>,
}

impl Follower {
    fn start(settings: Settings) -> Self {
        let (start, tasks) = (Instant::now(), Tasks::new());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (handed, taken) = std::sync::mpsc::channel();
        let (of_thread, written) = (tasks.clone(), Arc::clone(&log));
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async move {
                let handle = sentinel::start(settings, start, &of_thread);
                handed
                    .send((handle.status.clone(), handle.commands.clone()))
                    .unwrap();
                follow(handle, start, &written).await;
                of_thread.drain(SOON).await;
            });
        });
        let (status, commands) = taken.recv().unwrap();
        Self {
            start,
            tasks,
            log,
            status,
            commands,
            thread: Some(thread),
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn log(&self) -> Vec<Entry> {
        self.log.lock().unwrap().clone()
    }

    fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// The masters in use, in their order.
    fn masters(&self) -> Vec<NodeAddr> {
        let log = self.log();
        let mut masters: Vec<NodeAddr> = log
            .iter()
            .filter_map(|it| it.snapshot.master.clone())
            .collect();
        masters.dedup();
        masters
    }

    /// The first snapshot that is as wanted.
    fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Snapshot) -> bool) -> Entry {
        let look = || self.log().into_iter().find(|it| wanted(&it.snapshot));
        wait_for(limit, look)
            .unwrap_or_else(|| panic!("no {what} within {limit:?}: {:#?}", self.status()))
    }

    /// Waits until the commands of the first master are read, which keeps the thread busy.
    fn wait_commands(&self) {
        wait_for(SOON, || self.commands.has_changed().ok().filter(|it| *it))
            .expect("the commands of the master are read");
    }

    fn wait_status(&self, limit: Duration, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
        wait_for(limit, || Some(self.status()).filter(|it| wanted(it)))
            .unwrap_or_else(|| panic!("not within {limit:?}: {:#?}", self.status()))
    }
}

/// Writes every snapshot down, and is quiet at once where writes are held.
async fn follow(mut handle: Handle, start: Instant, log: &Mutex<Vec<Entry>>) {
    while handle.snapshots.changed().await.is_ok() {
        let snapshot = Arc::clone(&handle.snapshots.borrow_and_update());
        let at = start.elapsed();
        if is_holding(&snapshot) {
            let generation = snapshot.generation;
            let kind = ReportKind::Quiet { generation };
            let _ = handle.reports.send(Report { worker: 0, kind }).await;
        }
        log.lock().unwrap().push(Entry { at, snapshot });
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || thread::panicking(),
                "the control plane fell"
            );
        }
    }
}

/// Listens to all Sentinels itself, to know when each of them said what.
struct Ear {
    heard: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl Ear {
    const CHANNELS: [&str; 4] = [
        "+try-failover",
        "+failover-state-wait-promotion",
        "+promoted-slave",
        "+switch-master",
    ];

    fn open(lab: &Lab, start: Instant) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        for client in lab.subscribe(&Self::CHANNELS).unwrap() {
            let heard = Arc::clone(&heard);
            // Ends when the deployment does, or nobody has said anything for long.
            thread::spawn(move || Self::listen(client, start, &heard));
        }
        Self { heard }
    }

    fn listen(mut client: Client, start: Instant, heard: &Mutex<Vec<(Duration, String)>>) {
        client.wait_at_most(4 * SWITCH_MAX).unwrap();
        while let Ok(message) = client.receive() {
            let at = start.elapsed();
            if let Some(channel) = message.items().get(1).and_then(Reply::text) {
                heard.lock().unwrap().push((at, channel));
            }
        }
    }

    /// When one of `channels` was first heard.
    fn first(&self, channels: &[&str]) -> Duration {
        let look = || {
            let heard = self.heard.lock().unwrap();
            heard
                .iter()
                .find(|(_, channel)| channels.contains(&channel.as_str()))
                .map(|it| it.0)
        };
        wait_for(SWITCH_MAX, look).unwrap_or_else(|| panic!("{channels:?} was not heard"))
    }
}
