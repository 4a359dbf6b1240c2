//! Planned failovers ordered from Switchman: nothing is lost, nothing is applied twice, nobody
//! hears an error, not even who writes at the master itself; and what cannot be done is given up.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::tell;
use crate::lab::{Lab, SOON, say};
use crate::proxy::{self, Launch, Proxy};
use crate::version::lacks;

const TOKEN: &str = "open sesame";
const WRITERS: usize = 8;
/// Acknowledgements of all writers together before the order, and again after it.
const ENOUGH: usize = 500;
/// The median of how long a client waits for its one slow reply. Sentinel takes 0.3 to 1.2 s, as
/// its look at the candidate once a second falls; the rest is for a machine that is busy.
const STALL_MAX: Duration = Duration::from_secs(2);

/// How long a replica stays behind a master that is paused already.
const BEHIND: Duration = Duration::from_millis(200);

/// A deployment, Switchman with a token before it, and the file with the token.
struct Scene {
    lab: Lab,
    proxy: Proxy,
    token_file: String,
}

impl Scene {
    fn start(plan: &Plan) -> Self {
        let lab = Lab::start(plan);
        let file = lab.dir().join("token");
        fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let token_file = file.to_str().unwrap().to_owned();
        let mut launch = Launch::before(&lab);
        launch.env("SWITCHMAN_ADMIN_TOKEN_FILE", &token_file);
        let proxy = launch.start();
        proxy.wait_ready();
        // A replica hears nothing from its first synchronisation until its first sign of life.
        say(&mut proxy.client(), &["SET", "fixed", "v"]);
        lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
        Self {
            lab,
            proxy,
            token_file,
        }
    }

    /// `switchman switchover`: whether it succeeded, and what it printed.
    fn order(&self) -> (bool, String) {
        let admin = self.proxy.admin().to_string();
        let file = &self.token_file;
        let args = ["switchover", "--admin", &admin, "--token-file", file];
        let (status, text) = proxy::run(&args);
        println!("{text}");
        (status.success(), text)
    }

    /// Runs `orders` while clients of Switchman, and one of the master, write; then judges what
    /// they heard. Returns what `orders` returned, and the stall of each client of Switchman.
    fn under_load<T>(&self, orders: impl FnOnce() -> T) -> (T, Vec<Duration>) {
        let stop = AtomicBool::new(false);
        let count = AtomicUsize::new(0);
        let (result, through, direct) = thread::scope(|scope| {
            let _stopped = StopOnDrop(&stop);
            let through: Vec<_> = (0..WRITERS)
                .map(|id| {
                    let client = self.proxy.patient_client(4 * SOON);
                    let (stop, count) = (&stop, &count);
                    scope.spawn(move || write(client, &format!("c{id}"), stop, count))
                })
                .collect();
            let mut direct = self.lab.node(0).connect().unwrap();
            direct.wait_at_most(4 * SOON).unwrap();
            let direct = scope.spawn(|| write(direct, "direct", &stop, &count));
            wait_for_more(&count);
            let result = orders();
            wait_for_more(&count);
            stop.store(true, Ordering::Relaxed);
            let through: Vec<Written> = through.into_iter().map(|it| it.join().unwrap()).collect();
            (result, through, direct.join().unwrap())
        });
        self.judge(&through, &direct);
        (result, through.iter().map(|own| own.stall).collect())
    }

    fn judge(&self, through: &[Written], direct: &Written) {
        self.check_stored(through.iter().chain([direct]));
        for own in through {
            assert_eq!(own.refused, None, "a client of Switchman heard an error");
        }
        let acknowledged: usize = through.iter().map(|own| own.acknowledged.len()).sum();
        println!(
            "{acknowledged} acknowledged through Switchman, {} at the master itself, which ended \
             with {:?}, 0 lost, 0 twice",
            direct.acknowledged.len(),
            direct.refused
        );
    }

    /// Checks that everything acknowledged is there, and everything once.
    fn check_stored<'a>(&self, written: impl IntoIterator<Item = &'a Written>) {
        let master = wait_for(2 * SOON, || self.lab.master()).expect("Sentinels agree in the end");
        let reply = master.command(&["LRANGE", "tokens", "0", "-1"]).unwrap();
        let mut stored: HashMap<String, usize> = HashMap::new();
        for token in reply.items().iter().filter_map(Reply::text) {
            *stored.entry(token).or_default() += 1;
        }
        let twice: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "applied more than once: {twice:?}");
        for own in written {
            let gone = |token: &&String| !stored.contains_key(*token);
            let lost: Vec<_> = own.acknowledged.iter().filter(gone).collect();
            assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        }
    }

    /// Waits until the old master follows the new one.
    fn new_master(&self) -> usize {
        let old = self.lab.node(0);
        let new = self.lab.wait_for_switch(old, 2 * SOON).unwrap();
        self.lab.wait_for_replica(old, new, SOON).unwrap();
        new.port().into()
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What one client wrote and heard.
#[derive(Debug)]
struct Written {
    acknowledged: HashSet<String>,
    /// The first reply that was no acknowledgement; the client stopped there.
    refused: Option<String>,
    /// The longest wait for a reply.
    stall: Duration,
}

/// Adds a token each millisecond until told to stop, or until it hears something else than `+OK`.
fn write(mut client: Client, name: &str, stop: &AtomicBool, count: &AtomicUsize) -> Written {
    let mut written = Written {
        acknowledged: HashSet::new(),
        refused: None,
        stall: Duration::ZERO,
    };
    while !stop.load(Ordering::Relaxed) {
        let token = format!("{name}-{}", written.acknowledged.len());
        let sent = Instant::now();
        match client.command(&["RPUSH", "tokens", &token]) {
            Ok(Reply::Int(_)) => {
                written.acknowledged.insert(token);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(other) => written.refused = Some(other.text().unwrap_or_default()),
            Err(error) => written.refused = Some(error.to_string()),
        }
        written.stall = written.stall.max(sent.elapsed());
        if written.refused.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(1).saturating_sub(sent.elapsed()));
    }
    written
}

fn wait_for_more(count: &AtomicUsize) {
    let enough = count.load(Ordering::Relaxed) + ENOUGH;
    let moved = wait_for(2 * SOON, || {
        (count.load(Ordering::Relaxed) >= enough).then_some(())
    });
    assert!(moved.is_some(), "writers do not go on");
}

fn median(mut stalls: Vec<Duration>) -> Duration {
    stalls.sort();
    stalls[stalls.len() / 2]
}

/// Status code and body of `POST /api/v1/switchover`.
fn post(proxy: &Proxy, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&proxy.admin(), SOON).unwrap();
    stream.set_read_timeout(Some(4 * SOON)).unwrap();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    write!(
        stream,
        "POST /api/v1/switchover HTTP/1.0\r\nHost: h\r\n{}Content-Length: 0\r\n\r\n",
        bearer.unwrap_or_default()
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (
        head.split(' ').nth(1).unwrap().parse().unwrap(),
        body.to_owned(),
    )
}

#[test]
fn a_switchover_loses_nothing_and_nobody_hears_an_error() {
    let scene = Scene::start(&Plan::default());
    let ((done, text), stalls) = scene.under_load(|| scene.order());
    println!("stalls: {stalls:?}");
    assert!(done, "{text}");
    assert!(text.contains("nothing was lost"), "{text}");
    assert!(text.contains("follows"), "{text}");
    let stall = median(stalls);
    println!("median stall: {stall:?}");
    assert!(stall <= STALL_MAX, "{stall:?}");
    scene.new_master();
}

/// What waits at the master does not keep a switchover from beginning, and goes on at the new one.
#[test]
fn clients_in_a_blocking_command_are_served_by_the_new_master() {
    const WAIT_MS: &str = "6000";
    let scene = Scene::start(&Plan::default());
    let lines: [&[&str]; 4] = [
        &["BLPOP", "queue", "0"],
        &["XREAD", "BLOCK", "0", "STREAMS", "stream", "0-0"],
        &[
            "XREADGROUP",
            "GROUP",
            "g",
            "c",
            "BLOCK",
            "0",
            "STREAMS",
            "stream2",
            ">",
        ],
        &["WAIT", "5", WAIT_MS],
    ];
    let mut other = scene.proxy.client();
    say(
        &mut other,
        &["XGROUP", "CREATE", "stream2", "g", "$", "MKSTREAM"],
    );
    let wait = |line: &[&str]| {
        let mut client = scene.proxy.patient_client(4 * SOON);
        let asked = Instant::now();
        (say(&mut client, line), asked.elapsed())
    };
    let ((done, text), replies) = thread::scope(|scope| {
        let waiters = lines.map(|line| scope.spawn(move || wait(line)));
        let master = scene.lab.node(0);
        let all = wait_for(SOON, || {
            let info = master.command(&["INFO", "clients"]).ok()?;
            (info.info("blocked_clients")? == "4").then_some(())
        });
        assert!(all.is_some(), "not everybody waits");
        let (result, stalls) = scene.under_load(|| scene.order());
        let stall = median(stalls);
        println!("median stall: {stall:?}");
        assert!(stall <= STALL_MAX, "{stall:?}");
        say(&mut other, &["RPUSH", "queue", "element"]);
        say(&mut other, &["XADD", "stream", "1-1", "f", "v"]);
        say(&mut other, &["XADD", "stream2", "1-1", "f", "v"]);
        (result, waiters.map(|waiter| waiter.join().unwrap()))
    });
    assert!(done, "{text}");
    assert!(text.contains("nothing was lost"), "{text}");
    let entry = |stream: &str| {
        let fields = Reply::Array(vec![Reply::bulk("f"), Reply::bulk("v")]);
        let entry = Reply::Array(vec![Reply::bulk("1-1"), fields]);
        let stream = vec![Reply::bulk(stream), Reply::Array(vec![entry])];
        Reply::Array(vec![Reply::Array(stream)])
    };
    let element = Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("element")]);
    let [pop, read, group, (count, waited)] = replies;
    assert_eq!(pop.0, element);
    assert_eq!((read.0, group.0), (entry("stream"), entry("stream2")));
    assert!(matches!(count, Reply::Int(0..=1)), "{count:?}");
    let time = Duration::from_millis(WAIT_MS.parse().unwrap());
    assert!(waited >= time && waited <= time + SOON / 2, "{waited:?}");
    let left = say(&mut other, &["LLEN", "queue"]);
    assert_eq!(left, Reply::Int(0), "popped, and popped once");
    scene.new_master();
}

/// Whether a client has paused the writes of `master`.
fn is_paused(master: &Process) -> bool {
    let stats = tell(master, &["INFO", "commandstats"]);
    stats.info("cmdstat_client|pause").is_some()
}

/// Waits until the one replica of `master` lacks something.
fn wait_until_behind(master: &Process) {
    let behind = wait_for(SOON, || {
        let info = tell(master, &["INFO", "replication"]);
        let replica = info.info("slave0")?;
        let applied = replica
            .split(',')
            .find_map(|it| it.strip_prefix("offset="))?;
        (info.info("master_repl_offset")? != applied).then_some(())
    });
    assert!(behind.is_some(), "nothing was written meanwhile");
}

#[test]
fn a_switchover_waits_for_a_replica_that_is_behind() {
    if lacks("statistics of CLIENT PAUSE") {
        return;
    }
    let scene = Scene::start(&Plan::default());
    let ((done, text), stalls) = scene.under_load(|| {
        scene.lab.node(1).freeze().unwrap();
        wait_until_behind(scene.lab.node(0));
        thread::scope(|scope| {
            let thaw = scope.spawn(|| {
                let paused = wait_for(SOON, || is_paused(scene.lab.node(0)).then_some(()));
                thread::sleep(BEHIND);
                scene.lab.node(1).thaw().unwrap();
                assert!(paused.is_some(), "the master was never paused");
            });
            let result = scene.order();
            thaw.join().unwrap();
            result
        })
    });
    println!("median stall: {:?}", median(stalls));
    assert!(done, "{text}");
    assert!(text.contains("nothing was lost"), "{text}");
    scene.new_master();
}

#[test]
fn a_switchover_without_a_replica_to_choose_is_given_up_before_anybody_waits() {
    let plan = Plan {
        node_config: vec!["replica-priority 0".to_owned()],
        ..Plan::default()
    };
    let scene = Scene::start(&plan);
    let ((done, text), stalls) = scene.under_load(|| scene.order());
    assert!(!done, "{text}");
    assert!(text.contains("given up at check"), "{text}");
    let longest = stalls.into_iter().max();
    assert!(longest < Some(Duration::from_millis(500)), "{longest:?}");
    assert_eq!(scene.lab.master().unwrap().addr(), scene.lab.node(0).addr());
}

#[test]
fn a_switchover_with_a_dead_replica_is_given_up_and_writes_go_on() {
    let scene = Scene::start(&Plan::default());
    let ((done, text), stalls) = scene.under_load(|| {
        scene.lab.node(1).kill().unwrap();
        scene.order()
    });
    println!("stalls: {stalls:?}");
    assert!(!done, "{text}");
    assert!(text.contains("given up at replicas"), "{text}");
    let now = format!("now: writes flow to {}", scene.lab.node(0).addr());
    assert!(text.contains(&now), "{text}");
    assert_eq!(scene.lab.master().unwrap().addr(), scene.lab.node(0).addr());
}

#[test]
fn only_who_has_the_token_may_order_and_only_once_at_a_time() {
    let scene = Scene::start(&Plan::default());
    let open = scene.lab.proxy();
    open.wait_ready();
    let (code, text) = post(&open, Some(TOKEN));
    assert_eq!(code, 403);
    assert!(text.contains("SWITCHMAN_ADMIN_TOKEN"), "{text}");
    let admin = open.admin().to_string();
    let (status, text) = proxy::run(&["switchover", "--admin", &admin]);
    assert!(!status.success());
    assert!(text.contains("admin.token"), "{text}");

    assert_eq!(post(&scene.proxy, None).0, 401);
    assert_eq!(post(&scene.proxy, Some("wrong")).0, 401);
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| post(&scene.proxy, Some(TOKEN)));
        let second = post(&scene.proxy, Some(TOKEN));
        (first.join().unwrap(), second)
    });
    let mut codes = [first.0, second.0];
    codes.sort_unstable();
    assert_eq!(codes, [200, 409], "{first:?} {second:?}");
    let report = if first.0 == 200 { first.1 } else { second.1 };
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["outcome"], "switched", "{report}");
    assert_eq!(report["lossless"], true, "{report}");
    let incidents = scene.proxy.get("/api/v1/failovers").unwrap().1;
    let incidents: Value = serde_json::from_str(&incidents).unwrap();
    assert_eq!(incidents["failovers"][0]["cause"], "switchover");
}

/// What another Switchman's clients had sent when the master was paused was not executed, and that
/// cannot be told from a reply that was lost.
#[test]
fn another_switchman_loses_nothing_either() {
    let scene = Scene::start(&Plan::default());
    let other = scene.lab.proxy();
    other.wait_ready();
    let stop = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    let written: Vec<Written> = thread::scope(|scope| {
        let _stopped = StopOnDrop(&stop);
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let client = other.patient_client(4 * SOON);
                let (stop, count) = (&stop, &count);
                scope.spawn(move || write(client, &format!("o{id}"), stop, count))
            })
            .collect();
        wait_for_more(&count);
        let (done, text) = scene.order();
        assert!(done, "{text}");
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for own in &written {
        let told = own.refused.as_deref();
        let doubt = told.is_none_or(|line| line.starts_with("UNCERTAIN"));
        assert!(doubt, "{told:?}");
    }
    let doubts = written.iter().filter(|own| own.refused.is_some()).count();
    println!("{doubts} of {WRITERS} clients of another Switchman were left in doubt");
    scene.check_stored(&written);
}

#[test]
fn a_switchman_that_ends_meanwhile_leaves_no_master_paused() {
    if lacks("statistics of CLIENT PAUSE") {
        return;
    }
    let plan = Plan {
        down_after: 2 * SOON,
        ..Plan::default()
    };
    let scene = Scene::start(&plan);
    let (master, admin) = (scene.lab.node(0), scene.proxy.admin().to_string());
    let calls = |command: &str| crate::routing::calls(master, command);
    scene.lab.node(1).freeze().unwrap();
    let file = &scene.token_file;
    let args = ["switchover", "--admin", &admin, "--token-file", file];
    thread::scope(|scope| {
        let order = scope.spawn(|| proxy::run(&args));
        let paused = wait_for(SOON, || (calls("client|pause") == 1).then_some(()));
        assert!(paused.is_some(), "the master was never paused");
        scene.proxy.terminate();
        scene.proxy.wait_end(SOON);
        assert_eq!(calls("client|unpause"), 1);
        let (status, text) = order.join().unwrap();
        assert!(!status.success(), "{text}");
    });
    let mut direct = master.connect().unwrap();
    assert_eq!(say(&mut direct, &["SET", "k", "v"]), Reply::ok());
}
