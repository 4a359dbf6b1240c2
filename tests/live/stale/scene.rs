//! A deployment whose replication is late, Switchman before it, and who is master in truth.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::faults::{Fault, Fronted, NODES, greet_every};
use crate::lab::SOON;
use crate::lab::tell;
use crate::proxy::{self, Launch, Proxy};
use crate::stale::record::Kind;
use crate::version::set_period;

/// Longest time that a switch may take until every replica follows the new master, with Sentinels
/// that must vote again, and a replication that is late.
const SWITCH_MAX: Duration = Duration::from_secs(60);

/// How old the data is with which a replica comes back.
const BACKLOG: Duration = Duration::from_millis(500);

/// What is done to the nodes; most of it replaces the master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// `switchman switchover`: nothing may be lost.
    Ordered,
    /// `SENTINEL FAILOVER`: what is not replicated is lost.
    Failover,
    /// `kill -9`: the same.
    Crash,
    /// The master stays, and a replica is killed and comes back with data of some time before.
    Return,
}

/// Three nodes and one Switchman.
pub(super) struct Scene {
    lab: Fronted,
    pub(super) proxy: Proxy,
    token_file: String,
    pub(super) truth: Truth,
}

impl Scene {
    /// With `consistency` as it is called in the configuration.
    pub(super) fn start(consistency: &str) -> Self {
        let plan = Plan {
            replicas: 2,
            failover_timeout: Duration::from_secs(3),
            ..Plan::default()
        };
        let lab = Fronted::alone(plan);
        // An old master is made a replica after four greetings, and followers are seen by INFO: a
        // switch is over in two seconds, not in ten.
        greet_every(&lab, Duration::from_millis(500));
        for sentinel in lab.sentinels() {
            set_period(sentinel, "INFO-PERIOD", "1000");
        }
        let file = lab.dir().join("token");
        fs::write(&file, "open sesame\n").unwrap();
        let token_file = file.to_str().unwrap().to_owned();
        let mut launch = Launch::before(&lab);
        launch.env("SWITCHMAN_ADMIN_TOKEN_FILE", &token_file);
        launch.env("SWITCHMAN_CONSISTENCY", consistency);
        let proxy = launch.start();
        proxy.wait_ready();
        Self {
            truth: Truth::new(0),
            lab,
            proxy,
            token_file,
        }
    }

    pub(super) fn nodes(&self) -> &[Process] {
        self.lab.nodes()
    }

    /// From now on all replicas are so late.
    pub(super) fn delay(&self, lag: Duration) {
        for index in 0..self.nodes().len() {
            self.lab.front(index).set(NODES, Fault::lag(lag));
        }
    }

    /// Waits until both replicas have everything that was written before.
    pub(super) fn wait_in_sync(&self) {
        let replicas = self.nodes().len() - 1;
        self.lab
            .wait_in_sync(self.master(), replicas, 2 * SOON)
            .unwrap();
    }

    /// The master of now.
    pub(super) fn master(&self) -> &Process {
        self.lab.node(self.truth.master().0)
    }

    /// What the master says to `question`, as soon as there is one. `None` where there never is.
    pub(super) fn ask_the_master(&self, database: usize, question: &[String]) -> Option<Reply> {
        let deadline = Instant::now() + 2 * SWITCH_MAX;
        while Instant::now() < deadline && !self.truth.given_up.load(Ordering::Relaxed) {
            let (master, age) = self.truth.master();
            let addr = self.lab.node(master).addr();
            let answer = Client::connect(addr, SOON).and_then(|mut client| {
                client.command(&["SELECT", &database.to_string()])?;
                client.command(question)
            });
            // Where the master was replaced meanwhile, nobody knows who answered as what.
            if let (Ok(answer), true) = (answer, self.truth.master().1 == age) {
                self.truth.asked.fetch_add(1, Ordering::Relaxed);
                return Some(answer);
            }
        }
        None
    }

    /// Reads that each node has served, in the order of nodes.
    pub(super) fn reads(&self) -> Vec<u64> {
        let reads = |node: &Process| -> u64 {
            let stats = node.command(&["INFO", "commandstats"]).unwrap();
            let calls = |command| {
                let line = stats
                    .info(&format!("cmdstat_{command}"))
                    .unwrap_or_default();
                let mut fields = line.split(',');
                let calls = fields.find_map(|field| field.strip_prefix("calls="));
                calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
            };
            Kind::READS.map(calls).iter().sum()
        };
        self.nodes().iter().map(reads).collect()
    }

    /// Reads that the master, and then each replica, serve while `time` passes: no switch is under
    /// way. Those by which the truth was found out do not count.
    pub(super) fn served_in(&self, time: Duration) -> Vec<u64> {
        let (master, _) = self.truth.master();
        let (asked, before) = (self.truth.asked.load(Ordering::Relaxed), self.reads());
        thread::sleep(time);
        let after = self.reads();
        let asked = self.truth.asked.load(Ordering::Relaxed) - asked;
        let mut served: Vec<u64> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
        let by_master = served.remove(master).saturating_sub(asked);
        served.insert(0, by_master);
        served
    }

    /// Does it, and waits until all nodes follow the master. Says whether it happened:
    /// an order may be given up, with a replica that is too late.
    pub(super) fn switch(&self, how: Switch) -> bool {
        let (old, _) = self.truth.master();
        self.wait_in_touch();
        let began = Instant::now();
        let switched = match how {
            Switch::Ordered => {
                let _unknown = self.truth.is_unknown(Loss::None);
                let admin = self.proxy.admin().to_string();
                let file = &self.token_file;
                let args = ["switchover", "--admin", &admin, "--token-file", file];
                let (status, text) = proxy::run(&args);
                if !status.success() {
                    println!("no switchover: {text}");
                }
                self.finish(old, status.success())
            }
            Switch::Failover => {
                let _unknown = self.truth.is_unknown(Loss::Possible);
                self.lab.failover().unwrap();
                self.finish(old, true)
            }
            Switch::Crash => {
                let _unknown = self.truth.is_unknown(Loss::Possible);
                self.lab.node(old).kill().unwrap();
                // What was on its way to the replicas is lost too.
                self.lab.front(old).reset(NODES);
                self.wait_for_new(old);
                self.lab.node(old).restart().unwrap();
                self.finish(old, true)
            }
            Switch::Return => {
                let replica = self.lab.node((old + 1) % self.nodes().len());
                tell(replica, &["SAVE"]);
                thread::sleep(BACKLOG);
                replica.kill().unwrap();
                replica.restart().unwrap();
                self.finish(old, false);
                true
            }
        };
        println!("{how:?}: {switched}, {:?}", began.elapsed());
        switched
    }

    /// Waits until Sentinels take every replica for fit to be promoted.
    fn wait_in_touch(&self) {
        self.lab
            .wait_until_seen(self.nodes().len() - 1, SWITCH_MAX)
            .unwrap();
    }

    fn wait_for_new(&self, old: usize) -> usize {
        let new = wait_for(SWITCH_MAX, || {
            self.lab.master_index().filter(|index| *index != old)
        });
        new.unwrap_or_else(|| panic!("no new master within {SWITCH_MAX:?}"))
    }

    /// Waits until Switchman and every node follow the master, and lets that be known.
    fn finish(&self, old: usize, is_new: bool) -> bool {
        let master = if is_new { self.wait_for_new(old) } else { old };
        let front = self.lab.front(master).addr().to_string();
        let port = self.lab.front(master).addr().port().to_string();
        let follows = |node: &Process| {
            let info = node.command(&["INFO", "replication"]).ok()?;
            let linked = info.info("master_link_status")? == "up";
            (linked && info.info("master_port")? == port).then_some(())
        };
        let others = || (0..self.nodes().len()).filter(|index| *index != master);
        let all = wait_for(SWITCH_MAX, || {
            let (_, status) = self.proxy.get("/api/v1/status")?;
            let status: serde_json::Value = serde_json::from_str(&status).ok()?;
            let named = status["groups"][0]["master"].as_str()? == front;
            let all = others().all(|index| follows(self.lab.node(index)).is_some());
            (named && all).then_some(())
        });
        assert!(
            all.is_some(),
            "not everybody follows {front} within {SWITCH_MAX:?}: {:?}",
            self.proxy.get("/api/v1/status")
        );
        tell(self.lab.node(master), &["PING"]);
        self.truth.is(master);
        is_new
    }
}

/// Whether acknowledged writes may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    None,
    Possible,
}

/// Who is master. It is known save while the master is replaced.
pub(super) struct Truth {
    state: Mutex<State>,
    changed: Condvar,
    /// Reads by which clients found out what the master has.
    asked: AtomicU64,
    /// Changes twice, before and after, where acknowledged writes may be lost. Odd in between.
    losses: AtomicU64,
    /// Nobody will make it known any more: the test has failed.
    given_up: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct State {
    master: usize,
    known: bool,
    /// Switches so far.
    age: u64,
}

impl Truth {
    fn new(master: usize) -> Self {
        Self {
            state: Mutex::new(State {
                master,
                known: true,
                age: 0,
            }),
            changed: Condvar::new(),
            asked: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            given_up: AtomicBool::new(false),
        }
    }

    /// How often writes may have been lost; `None` while they may be.
    pub(super) fn losses(&self) -> Option<u64> {
        let losses = self.losses.load(Ordering::SeqCst);
        losses.is_multiple_of(2).then_some(losses)
    }

    /// The master's place among the nodes, and how many there were before it; waits for one.
    fn master(&self) -> (usize, u64) {
        let unknown = |state: &mut State| !state.known && !self.given_up.load(Ordering::Relaxed);
        let state = self.changed.wait_while(self.state.lock().unwrap(), unknown);
        let state = state.unwrap();
        (state.master, state.age)
    }

    fn is_unknown(&self, loss: Loss) -> Unknown<'_> {
        if loss == Loss::Possible {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        let mut state = self.state.lock().unwrap();
        state.known = false;
        state.age += 1;
        Unknown { truth: self, loss }
    }

    fn is(&self, master: usize) {
        let mut state = self.state.lock().unwrap();
        (state.master, state.known) = (master, true);
        drop(state);
        self.changed.notify_all();
    }
}

/// Nobody knows the master, until it is told, or the test fails.
struct Unknown<'a> {
    truth: &'a Truth,
    loss: Loss,
}

impl Drop for Unknown<'_> {
    fn drop(&mut self) {
        if self.loss == Loss::Possible {
            self.truth.losses.fetch_add(1, Ordering::SeqCst);
        }
        if thread::panicking() {
            self.truth.given_up.store(true, Ordering::Relaxed);
            // Whoever looks next sees it.
            drop(self.truth.state.lock());
            self.truth.changed.notify_all();
        }
    }
}
