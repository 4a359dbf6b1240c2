//! Failovers under load: the same connections go on, nothing is applied twice, nobody hears the
//! demoted.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SOON, say};
use crate::proxy::{Launch, Proxy};
use crate::version::set_period;

const WRITERS: usize = 8;

/// Acknowledgements that each writer must have before the fault, and again after the switch.
const ENOUGH: u64 = 200;

/// Time from the fault to Sentinel's news of a new master: down-after, election, promotion.
pub(crate) const SWITCH_MAX: Duration = Duration::from_secs(8);

/// Time from one news of a Sentinel to its next one at most.
const LISTEN_MAX: Duration = Duration::from_secs(60);

/// Time that Sentinel takes at most to make a replica of a master that returns.
const CONVERT_MAX: Duration = Duration::from_secs(16);

#[test]
fn clients_do_not_notice_a_planned_failover() {
    let fault = |lab: &Lab| lab.failover().unwrap();
    let figures = Trial::run("SENTINEL FAILOVER", fault, |_| {});
    assert_eq!(figures.uncertain, 0, "a planned failover leaves no doubt");
    assert_eq!(
        figures.lost, 0,
        "a planned failover loses no acknowledged write"
    );
}

#[test]
fn clients_survive_the_death_of_the_master() {
    let fault = |lab: &Lab| lab.node(0).kill().unwrap();
    Trial::run("kill -9", fault, |old| old.restart().unwrap());
}

#[test]
fn clients_survive_a_master_that_hangs() {
    let fault = |lab: &Lab| lab.node(0).freeze().unwrap();
    Trial::run("SIGSTOP", fault, |old| old.thaw().unwrap());
}

/// Nobody waits for a reply that may never come.
#[test]
fn a_client_in_a_blocking_command_does_not_prolong_a_planned_failover() {
    let lab = Lab::start(&Plan::default());
    let mut launch = Launch::before(&lab);
    launch.env("SWITCHMAN_DRAIN_TIMEOUT", "20s");
    let proxy = launch.start();
    proxy.wait_ready();
    let mut writer = proxy.patient_client(6 * SOON);
    say(&mut writer, &["SET", "count", "0"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let mut waiter = proxy.patient_client(6 * SOON);
    waiter.send(&["BLPOP", "queue", "0"]).unwrap();
    for line in [&["MULTI"][..], &["INCR", "behind"], &["EXEC"]] {
        waiter.send(line).unwrap();
    }
    let blocked = wait_for(SOON, || {
        let info = lab.node(0).command(&["INFO", "clients"]).ok()?;
        (info.info("blocked_clients")? == "1").then_some(())
    });
    assert!(blocked.is_some(), "BLPOP never arrived");
    lab.failover().unwrap();
    let (mut stall, mut count) = (Duration::ZERO, 0);
    while lab
        .master()
        .is_none_or(|node| node.addr() == lab.node(0).addr())
    {
        let sent = Instant::now();
        count += 1;
        assert_eq!(say(&mut writer, &["INCR", "count"]), Reply::Int(count));
        stall = stall.max(sent.elapsed());
    }
    println!("longest stall: {stall:?}");
    assert!(stall < SOON, "{stall:?}");
    proxy.wait_switched(lab.master().unwrap());
    assert_eq!(say(&mut writer, &["RPUSH", "queue", "x"]), Reply::Int(1));
    let popped = Reply::Array(vec![Reply::bulk("queue"), Reply::bulk("x")]);
    assert_eq!(waiter.receive().unwrap(), popped);
    let behind = [waiter.receive(), waiter.receive(), waiter.receive()];
    assert_eq!(
        behind.map(Result::unwrap)[2],
        Reply::Array(vec![Reply::Int(1)])
    );
}

/// One failover from load to load.
struct Trial<'a> {
    lab: &'a Lab,
    proxy: &'a Proxy,
    crowd: Crowd,
}

/// What came of it.
#[derive(Debug)]
#[expect(dead_code, reason = "most figures are there to be printed")]
struct Figures {
    acknowledged: usize,
    uncertain: usize,
    lost: usize,
    longest_silence: Duration,
    first_acknowledgement_after_the_news: Duration,
    last_client_after_the_news: Duration,
    reads: u64,
    longest_read: Duration,
}

impl Trial<'_> {
    /// Runs `fault` under load, checks everything that holds for every failover, prints the
    /// figures.
    fn run(name: &str, fault: impl Fn(&Lab), revive: impl Fn(&Process)) -> Figures {
        let lab = Lab::start(&Plan::default());
        let proxy = lab.proxy();
        proxy.wait_ready();
        say(&mut proxy.client(), &["SET", "fixed", "v"]);
        lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
        let trial = Trial {
            lab: &lab,
            proxy: &proxy,
            crowd: Crowd::default(),
        };
        let (attempts, reader, news) = thread::scope(|scope| {
            let _stop = trial.crowd.stop_on_drop();
            let writers: Vec<_> = (0..WRITERS)
                .map(|id| {
                    let trial = &trial;
                    scope.spawn(move || trial.write(id))
                })
                .collect();
            let reader = scope.spawn(|| trial.read());
            let news = trial.act(&fault, &revive);
            trial.crowd.stopped.store(true, Ordering::Relaxed);
            let attempts = writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect();
            (attempts, reader.join().unwrap(), news)
        });
        let figures = trial.judge(attempts, reader, &news);
        println!("{name}: {figures:#?}");
        figures
    }

    /// The fault, the switch, the return of the old master.
    fn act(&self, fault: &impl Fn(&Lab), revive: &impl Fn(&Process)) -> News {
        let (lab, old) = (self.lab, self.lab.node(0));
        self.crowd.wait_for_progress(SOON);
        let heard = listen(lab);
        fault(lab);
        let first = heard
            .recv_timeout(SWITCH_MAX)
            .expect("Sentinel announces a new master");
        self.crowd.wait_for_progress(SWITCH_MAX);
        self.crowd.pause_us.store(10_000, Ordering::Relaxed);
        let new = lab.wait_for_switch(old, SWITCH_MAX).unwrap();

        revive(old);
        for sentinel in lab.sentinels() {
            // So that the wait for the conversion is nearer to 8 s than to 20 s.
            set_period(sentinel, "INFO-PERIOD", "1000");
        }
        let fork = watch_zombie(old);
        lab.wait_for_replica(old, new, CONVERT_MAX).unwrap();
        let before = crate::routing::calls(old, "get");
        let serves = wait_for(2 * SOON, || {
            (crate::routing::calls(old, "get") > before).then_some(())
        });
        assert!(
            serves.is_some(),
            "the old master, a replica now, was never read from"
        );
        News { first, fork }
    }

    /// One client that adds a token each millisecond, and never asks twice.
    fn write(&self, id: usize) -> Vec<Attempt> {
        let mut client = self.proxy.patient_client(2 * CONVERT_MAX);
        let mut attempts = Vec::new();
        while !self.crowd.stopped.load(Ordering::Relaxed) {
            let token = format!("{id}-{}", attempts.len());
            let sent = Instant::now();
            let outcome = match client.command(&["RPUSH", "tokens", &token]) {
                Ok(Reply::Int(_)) => Outcome::Acknowledged,
                Ok(reply) => Outcome::Refused(reply.text().unwrap_or_default()),
                Err(error) => Outcome::Severed(error),
            };
            let severed = matches!(outcome, Outcome::Severed(_));
            if matches!(outcome, Outcome::Acknowledged) {
                self.crowd.acknowledged[id].fetch_add(1, Ordering::Relaxed);
            }
            attempts.push(Attempt {
                id,
                token,
                sent,
                done: Instant::now(),
                outcome,
            });
            if severed {
                break;
            }
            let pause = Duration::from_micros(self.crowd.pause_us.load(Ordering::Relaxed));
            thread::sleep(pause.saturating_sub(sent.elapsed()));
        }
        attempts
    }

    /// One client that reads a settled key all the time: how many reads, and the longest.
    fn read(&self) -> (u64, Duration) {
        let mut client = self.proxy.patient_client(2 * CONVERT_MAX);
        let (mut reads, mut longest) = (0, Duration::ZERO);
        while !self.crowd.stopped.load(Ordering::Relaxed) {
            let asked = Instant::now();
            assert_eq!(
                say(&mut client, &["GET", "fixed"]),
                Reply::bulk("v"),
                "read {reads}"
            );
            reads += 1;
            longest = longest.max(asked.elapsed());
            thread::sleep(Duration::from_millis(1));
        }
        (reads, longest)
    }

    fn judge(
        &self,
        attempts: Vec<Vec<Attempt>>,
        (reads, longest_read): (u64, Duration),
        news: &News,
    ) -> Figures {
        let new = self.lab.master().expect("Sentinels agree on a master");
        let stored = tokens(&new.command(&["LRANGE", "tokens", "0", "-1"]).unwrap());
        let mut times = HashMap::new();
        for token in &stored {
            *times.entry(token.as_str()).or_insert(0) += 1;
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "applied more than once: {twice:?}");

        let silences = attempts.iter().map(|own| check_client(own, news.first));
        let (silences, returns): (Vec<_>, Vec<_>) = silences.unzip();
        let all: Vec<Attempt> = attempts.into_iter().flatten().collect();
        let demoted: Vec<&Attempt> = all
            .iter()
            .filter(|attempt| attempt.sent > news.first && news.fork.contains(&attempt.token))
            .collect();
        assert!(
            demoted.is_empty(),
            "sent to the demoted master: {demoted:?}"
        );
        let acknowledged = all.iter().filter(|each| each.is(&Outcome::Acknowledged));
        let lost = acknowledged
            .clone()
            .filter(|each| !times.contains_key(each.token.as_str()));
        let figures = Figures {
            acknowledged: acknowledged.clone().count(),
            uncertain: all.len() - acknowledged.clone().count(),
            lost: lost.count(),
            longest_silence: silences.into_iter().max().unwrap_or_default(),
            first_acknowledgement_after_the_news: returns.iter().copied().min().unwrap_or_default(),
            last_client_after_the_news: returns.into_iter().max().unwrap_or_default(),
            reads,
            longest_read,
        };
        self.check_record(&figures);
        let first = figures.first_acknowledgement_after_the_news;
        assert!(first <= Duration::from_millis(500), "{figures:#?}");
        figures
    }
}

impl Trial<'_> {
    /// The flight recorder and the log say of the switch what the clients saw.
    fn check_record(&self, figures: &Figures) {
        let (_, body) = self.proxy.get("/api/v1/failovers").unwrap();
        let record: Value = serde_json::from_str(&body).unwrap();
        let record = &record["failovers"][0];
        println!("{record:#}");
        assert_eq!(record["outcome"], "completed");
        let seconds = |name: &str| Duration::from_secs_f64(record[name].as_f64().unwrap());
        let held = usize::try_from(record["held_requests"].as_u64().unwrap()).unwrap();
        assert!(held + figures.uncertain >= WRITERS);
        assert!(record["held_bytes"].as_u64() > Some(0));
        assert_eq!(record["expired_requests"], 0);
        assert_eq!(record["uncertain_requests"], figures.uncertain);
        assert!(
            seconds("longest_hold_seconds") <= figures.longest_silence.max(figures.longest_read)
        );
        assert!(seconds("first_released_seconds") >= seconds("took_seconds"));
        let told = |entry: &Value| (entry["master.new"] == record["new_master"]).then_some(());
        self.proxy.log().wait("incident", told);
    }
}

/// Checks the conversation of one client. Returns its longest silence, and the time from the news
/// of the new master to its next acknowledgement.
fn check_client(own: &[Attempt], news: Instant) -> (Duration, Duration) {
    let mut doubts = 0;
    for attempt in own {
        match &attempt.outcome {
            Outcome::Acknowledged => {}
            Outcome::Refused(line) if line.starts_with("UNCERTAIN") => doubts += 1,
            Outcome::Refused(_) | Outcome::Severed(_) => panic!("{attempt:?}"),
        }
    }
    assert!(
        doubts <= 1,
        "client {} was left in doubt {doubts} times",
        own[0].id
    );
    let answers: Vec<Instant> = own
        .iter()
        .filter(|each| each.is(&Outcome::Acknowledged))
        .map(|each| each.done)
        .collect();
    let silence = answers
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default();
    let next = answers
        .iter()
        .find(|done| **done > news)
        .expect("every client goes on");
    (silence, *next - news)
}

/// The writers' common state.
#[derive(Default)]
struct Crowd {
    acknowledged: [AtomicU64; WRITERS],
    stopped: AtomicBool,
    /// Time between two writes of a client, in microseconds.
    pause_us: AtomicU64,
}

impl Crowd {
    /// Waits until each writer has [`ENOUGH`] more acknowledgements than now.
    fn wait_for_progress(&self, timeout: Duration) {
        let counts = || {
            self.acknowledged
                .each_ref()
                .map(|count| count.load(Ordering::Relaxed))
        };
        let before = counts();
        let moved = wait_for(timeout, || {
            let now = counts();
            now.iter()
                .zip(before)
                .all(|(now, then)| *now >= then + ENOUGH)
                .then_some(())
        });
        assert!(
            moved.is_some(),
            "within {timeout:?} from {before:?} to {:?} only",
            counts()
        );
    }

    /// Stops everybody when the test fails in between, so that its threads can be joined.
    fn stop_on_drop(&self) -> impl Drop + '_ {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        self.pause_us.store(1_000, Ordering::Relaxed);
        Stop(&self.stopped)
    }
}

/// One token, and what its client heard of it.
#[derive(Debug)]
struct Attempt {
    id: usize,
    token: String,
    sent: Instant,
    done: Instant,
    outcome: Outcome,
}

impl Attempt {
    fn is(&self, outcome: &Outcome) -> bool {
        std::mem::discriminant(&self.outcome) == std::mem::discriminant(outcome)
    }
}

#[derive(Debug)]
enum Outcome {
    Acknowledged,
    Refused(String),
    Severed(#[expect(dead_code, reason = "shown where the test fails")] ClientError),
}

/// What happened beside the clients.
struct News {
    /// When a Sentinel first told of the new master.
    first: Instant,
    /// Tokens that the old master had while it still held itself for one.
    fork: HashSet<String>,
}

/// Reports each time that a Sentinel tells of a new master.
pub(crate) fn listen(lab: &Lab) -> Receiver<Instant> {
    let (heard, news) = mpsc::channel();
    let all = listen_to_each(lab);
    thread::spawn(move || {
        // Until all Sentinels have ended, or nobody listens any more.
        while let Ok((_, at)) = all.recv() {
            if heard.send(at).is_err() {
                break;
            }
        }
    });
    news
}

/// Reports each time that a Sentinel tells of a new master, with the index of that Sentinel.
pub(crate) fn listen_to_each(lab: &Lab) -> Receiver<(usize, Instant)> {
    let (heard, news) = mpsc::channel();
    let subscribers = lab.subscribe(&["+promoted-slave", "+switch-master"]);
    for (index, mut subscriber) in subscribers.unwrap().into_iter().enumerate() {
        let heard = heard.clone();
        subscriber.wait_at_most(LISTEN_MAX).unwrap();
        thread::spawn(move || {
            // Until the Sentinel ends, or nobody listens any more.
            while subscriber.receive().is_ok() && heard.send((index, Instant::now())).is_ok() {}
        });
    }
    news
}

/// Watches a returned master for as long as it holds itself for one: no client may reach it.
/// Returns the tokens that it has.
fn watch_zombie(old: &Process) -> HashSet<String> {
    let mut client = old.connect().unwrap();
    let mut fork = None;
    let deadline = Instant::now() + LISTEN_MAX;
    loop {
        assert!(
            Instant::now() < deadline,
            "no Sentinel makes a replica of it"
        );
        match zombie_state(&mut client) {
            Ok(Some(state)) => {
                let first = fork.get_or_insert_with(|| state.clone());
                assert_eq!(state.gets, first.gets, "reads reached the demoted master");
                assert_eq!(state.tokens.len(), first.tokens.len(), "writes reached it");
            }
            // Sentinel closes all connections when it makes a replica of it.
            Ok(None) | Err(_) => return fork.map(|state| state.tokens).unwrap_or_default(),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[derive(Clone)]
struct Zombie {
    gets: u64,
    tokens: HashSet<String>,
}

/// One look at a node, `None` once it is a replica. In a transaction, so that all parts are of one
/// moment.
fn zombie_state(client: &mut Client) -> Result<Option<Zombie>, ClientError> {
    let lines = ["MULTI", "INFO everything", "LRANGE tokens 0 -1", "EXEC"];
    let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let replies = client.pipeline(&lines)?;
    let [info, list] = replies[3].items() else {
        panic!("{replies:?}")
    };
    if info.info("role").as_deref() != Some("master") {
        return Ok(None);
    }
    let gets = info.info("cmdstat_get").and_then(|stats| {
        stats
            .strip_prefix("calls=")?
            .split(',')
            .next()?
            .parse()
            .ok()
    });
    Ok(Some(Zombie {
        gets: gets.unwrap_or(0),
        tokens: tokens(list).into_iter().collect(),
    }))
}

fn tokens(list: &Reply) -> Vec<String> {
    list.items().iter().filter_map(Reply::text).collect()
}
