//! A planned failover to a replica that lags: what was in flight when writes were held is either
//! acknowledged and there, or in doubt.
//!
//! Replies of the master reach Switchman [`REPLY`] late, so that every client has a command in
//! flight at that moment, and those acknowledged behind it are told from those before.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::wait_for;

use crate::faults::{Fault, Fronted, NODES, SWITCHMAN};
use crate::lab::{SOON, say};
use crate::proxy::Proxy;

const WRITERS: usize = 8;

/// How late the master's replies are.
const REPLY: Duration = Duration::from_millis(100);

/// How late Switchman may hear of the failover after the test has, or hold after it has heard.
const MARGIN: Duration = Duration::from_millis(30);

/// One token, and how it was answered.
#[derive(Debug)]
struct Attempt {
    token: String,
    sent: Instant,
    done: Instant,
    reply: Reply,
}

impl Attempt {
    fn is_acknowledged(&self) -> bool {
        matches!(self.reply, Reply::Int(_))
    }

    /// Whether it was in flight when writes were held after `news`.
    fn was_in_flight(&self, news: Instant) -> bool {
        self.sent < news && self.done > news + MARGIN
    }
}

/// What came of it.
#[derive(Debug)]
struct Figures {
    in_flight: usize,
    acknowledged: usize,
    /// Acknowledged of those in flight, and not there.
    lost: usize,
    uncertain: usize,
    /// Acknowledged before the hold, and not there.
    lost_before: usize,
    incident: Value,
}

/// `SENTINEL FAILOVER` under load, with replication `lag` late.
fn fail_over(lag: Duration) -> Figures {
    let lab = Fronted::start(Plan::default());
    let proxy = lab.proxy();
    proxy.wait_ready();
    say(&mut proxy.client(), &["SET", "fixed", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let late = |delay_out| Fault {
        delay_out,
        ..Fault::default()
    };
    lab.front(0).set(NODES, late(lag));
    lab.front(0).set(SWITCHMAN, late(REPLY));
    let (stop, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let more = |time: Duration| {
        let rounds = usize::try_from(time.as_millis() / REPLY.as_millis()).unwrap();
        let enough = count.load(Ordering::Relaxed) + rounds * WRITERS;
        let moved = wait_for(2 * SOON, || {
            (count.load(Ordering::Relaxed) >= enough).then_some(())
        });
        assert!(moved.is_some(), "writers do not go on");
    };
    let (attempts, news) = thread::scope(|scope| {
        let _stopped = StopOnDrop(&stop);
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| {
                let client = proxy.patient_client(4 * SOON);
                let (stop, count) = (&stop, &count);
                scope.spawn(move || write(client, id, (stop, count)))
            })
            .collect();
        // Longer than anything is late, so that all of it is full of writes.
        more(lag + 5 * REPLY);
        let news = announced(&lab);
        let switched = wait_for(2 * SOON, || {
            let failovers = failovers(&proxy);
            (failovers[0]["outcome"] == "completed").then_some(())
        });
        assert!(switched.is_some(), "{}", failovers(&proxy));
        more(5 * REPLY);
        stop.store(true, Ordering::Relaxed);
        let attempts = writers.into_iter().flat_map(|it| it.join().unwrap());
        (attempts.collect::<Vec<_>>(), news)
    });
    let figures = judge(&lab, &proxy, &attempts, news);
    println!("replication {lag:?} late: {figures:#?}");
    figures
}

/// Orders the failover. Returns when the first Sentinel told of it.
fn announced(lab: &Fronted) -> Instant {
    let subscribers = lab.subscribe(&["+try-failover"]).unwrap();
    let listeners: Vec<_> = subscribers
        .into_iter()
        .map(|mut subscriber| {
            subscriber.wait_at_most(SOON).unwrap();
            thread::spawn(move || subscriber.receive().map(|_told| Instant::now()))
        })
        .collect();
    lab.failover().unwrap();
    let heard = listeners.into_iter().map(|it| it.join().unwrap());
    // Only the one that leads says so.
    heard.flatten().min().expect("a Sentinel tells of it")
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Adds a token whenever the last one was answered, each writer at a phase of its own.
fn write(
    mut client: Client,
    id: usize,
    (stop, count): (&AtomicBool, &AtomicUsize),
) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let phases = u32::try_from(WRITERS).unwrap();
    thread::sleep(REPLY / phases * u32::try_from(id).unwrap());
    while !stop.load(Ordering::Relaxed) {
        let token = format!("{id}-{}", attempts.len());
        let sent = Instant::now();
        let reply = say(&mut client, &["RPUSH", "tokens", &token]);
        let done = Instant::now();
        count.fetch_add(1, Ordering::Relaxed);
        attempts.push(Attempt {
            token,
            sent,
            done,
            reply,
        });
    }
    attempts
}

fn failovers(proxy: &Proxy) -> Value {
    let body = proxy.get("/api/v1/failovers").unwrap().1;
    let body: Value = serde_json::from_str(&body).unwrap();
    body["failovers"].clone()
}

fn judge(lab: &Fronted, proxy: &Proxy, attempts: &[Attempt], news: Instant) -> Figures {
    let stored = lab
        .node(1)
        .command(&["LRANGE", "tokens", "0", "-1"])
        .unwrap();
    let stored: Vec<String> = stored.items().iter().filter_map(Reply::text).collect();
    let there: HashSet<&str> = stored.iter().map(String::as_str).collect();
    assert_eq!(there.len(), stored.len(), "applied more than once");
    for attempt in attempts {
        let error = attempt.reply.error();
        let doubt = error.is_none_or(|line| line.starts_with("UNCERTAIN switchman: executed by"));
        assert!(doubt, "{attempt:?}");
    }
    let lost =
        |attempt: &&&Attempt| attempt.is_acknowledged() && !there.contains(attempt.token.as_str());
    let in_flight: Vec<_> = attempts
        .iter()
        .filter(|it| it.was_in_flight(news))
        .collect();
    let before: Vec<_> = attempts
        .iter()
        .filter(|it| it.done <= news + MARGIN)
        .collect();
    let after: Vec<_> = attempts
        .iter()
        .filter(|it| it.sent >= news + MARGIN)
        .collect();
    assert_eq!(
        after.iter().filter(lost).count(),
        0,
        "sent to the new master"
    );
    // Workers publish five times a second.
    let counted = |doubts: usize| {
        wait_for(SOON, || {
            let mut incident = failovers(proxy)[0].take();
            incident["events"].take();
            let told = incident["doubted_replies"].as_u64()?;
            (usize::try_from(told) == Ok(doubts)).then_some(incident)
        })
    };
    let uncertain = attempts
        .iter()
        .filter(|it| it.reply.error().is_some())
        .count();
    Figures {
        in_flight: in_flight.len(),
        acknowledged: in_flight.iter().filter(|it| it.is_acknowledged()).count(),
        lost: in_flight.iter().filter(lost).count(),
        uncertain,
        lost_before: before.iter().filter(lost).count(),
        incident: counted(uncertain).expect("the incident counts what clients were told"),
    }
}

#[test]
fn what_was_in_flight_is_in_doubt_where_the_new_master_lacks_it() {
    let figures = fail_over(Duration::from_millis(600));
    assert!(figures.in_flight >= WRITERS / 4, "{figures:#?}");
    assert_eq!(figures.lost, 0, "{figures:#?}");
    assert!(figures.uncertain >= figures.in_flight, "{figures:#?}");
    let forked = figures.incident["forked_bytes"].as_u64();
    assert_eq!(figures.lost_before > 0, forked > Some(0), "{figures:#?}");
}

#[test]
fn what_was_in_flight_is_acknowledged_where_the_new_master_has_it() {
    let figures = fail_over(Duration::from_millis(20));
    assert!(figures.in_flight >= WRITERS / 4, "{figures:#?}");
    assert_eq!((figures.uncertain, figures.lost), (0, 0), "{figures:#?}");
    assert_eq!(figures.acknowledged, figures.in_flight, "{figures:#?}");
    let released = figures.incident["released_replies"].as_u64();
    assert!(
        released >= u64::try_from(figures.in_flight).ok(),
        "{figures:#?}"
    );
    assert_eq!(figures.incident["forked_bytes"].as_u64(), Some(0));
}
