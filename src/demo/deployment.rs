//! Floor 6. A whole deployment on loopback: a master, its replicas and its Sentinels, started,
//! watched, ended. Knows the configuration of Redis and Sentinel, and nothing of Switchman.
//!
//! Nothing stays behind. Dropping the [`Deployment`] kills every child by its pid and removes the
//! directory. If we are killed ourselves, a guard, which is a small shell script, does both.

use std::fmt::Write;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use crate::demo::client::{Client, Reply};
use crate::demo::process::{Kind, Process, ProcessError, wait_for};

/// Time that replicas have for their first synchronisation, and Sentinels for finding each other.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// `down-after-milliseconds` where the plan says nothing. More than a second with purpose: Sentinel
/// connects again at most once a second, so after a switch it may reach the new master only after
/// 1.0 to 1.1 s. With 1000 ms it then took the new master for dead, and failed over back to an old
/// one that had returned at once, in 4 of 40 trials on Redis 7.0.15; with 1500 ms in none.
const DOWN_AFTER: Duration = Duration::from_millis(1_500);

/// Lines of a Sentinel's log that an error shows: one failover has about that many.
const VIEW_LINES: usize = 20;

/// What to start. Fields left at their default give the deployment that most tests want.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name under which the Sentinels monitor the master.
    pub master_name: String,
    /// Replicas beside the master.
    pub replicas: usize,
    /// Sentinels; with 0 there is nobody to fail over.
    pub sentinels: usize,
    /// Sentinels that must agree that the master is down.
    pub quorum: usize,
    /// Sentinel's `down-after-milliseconds`; 1500 ms by default, and no less for good reason.
    pub down_after: Duration,
    /// Sentinel's `failover-timeout`.
    pub failover_timeout: Duration,
    /// `requirepass` and `masterauth` of every node.
    pub password: Option<String>,
    /// `requirepass` of every Sentinel.
    pub sentinel_password: Option<String>,
    /// More lines for every node's `redis.conf`, such as `user app on >pw ~* &* +@all`.
    pub node_config: Vec<String>,
    /// More lines for every `sentinel.conf`.
    pub sentinel_config: Vec<String>,
    /// The server program, which is Redis and Sentinel in one; a bare name is looked for in `PATH`.
    pub redis_server: PathBuf,
}

impl Default for Plan {
    /// One master and one replica under three Sentinels with quorum 2.
    fn default() -> Self {
        Self {
            master_name: "mymaster".to_owned(),
            replicas: 1,
            sentinels: 3,
            quorum: 2,
            down_after: DOWN_AFTER,
            failover_timeout: Duration::from_secs(10),
            password: None,
            sentinel_password: None,
            node_config: Vec::new(),
            sentinel_config: Vec::new(),
            redis_server: PathBuf::from("redis-server"),
        }
    }
}

/// A running deployment. Everything ends with it.
#[derive(Debug)]
pub struct Deployment {
    // Dropped in this order: children, their directory, then the guard, which finds nothing to do.
    sentinels: Vec<Process>,
    nodes: Vec<Process>,
    scratch: Scratch,
    _guard: Guard,
    master_name: String,
}

impl Deployment {
    /// Starts everything and returns when every replica is in sync and every Sentinel sees the
    /// master, all replicas and all other Sentinels as healthy: about a second.
    pub fn start(plan: &Plan) -> Result<Self, DeploymentError> {
        let scratch = Scratch::new()?;
        let guard = Guard::over(&scratch.0)?;
        let mut deployment = Self {
            sentinels: Vec::new(),
            nodes: Vec::new(),
            scratch,
            _guard: guard,
            master_name: plan.master_name.clone(),
        };
        deployment.start_nodes(plan)?;
        deployment.start_sentinels(plan)?;
        Ok(deployment)
    }

    /// Name under which the Sentinels monitor the master.
    pub fn master_name(&self) -> &str {
        &self.master_name
    }

    /// The Redis nodes; the first one was the master at the start.
    pub fn nodes(&self) -> &[Process] {
        &self.nodes
    }

    /// Node `index`, from 0.
    ///
    /// # Panics
    /// Where the plan has fewer nodes.
    pub fn node(&self, index: usize) -> &Process {
        self.nodes.get(index).expect("the plan has that many nodes")
    }

    /// The node that serves `addr`.
    pub fn node_at(&self, addr: SocketAddr) -> Option<&Process> {
        self.nodes.iter().find(|node| node.addr() == addr)
    }

    /// The Sentinels.
    pub fn sentinels(&self) -> &[Process] {
        &self.sentinels
    }

    /// Sentinel `index`, from 0.
    ///
    /// # Panics
    /// Where the plan has fewer Sentinels.
    pub fn sentinel(&self, index: usize) -> &Process {
        self.sentinels
            .get(index)
            .expect("the plan has that many Sentinels")
    }

    /// Addresses of the Sentinels, as `--sentinel` takes them: `host:port,host:port`.
    pub fn sentinel_addrs(&self) -> String {
        let addrs: Vec<String> = self
            .sentinels
            .iter()
            .map(|each| each.addr().to_string())
            .collect();
        addrs.join(",")
    }

    /// A directory that goes with the deployment. Processes of the caller that run below it are
    /// killed with the deployment should we die ourselves.
    pub fn dir(&self) -> &Path {
        &self.scratch.0
    }

    /// The master as `sentinel` names it (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
    pub fn master_according_to(&self, sentinel: &Process) -> Option<SocketAddr> {
        let ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.master_name];
        match sentinel.command(&ask).ok()?.items() {
            [host, port] => format!("{}:{}", host.text()?, port.text()?).parse().ok(),
            _ => None,
        }
    }

    /// The master, where all running Sentinels name the same node.
    pub fn master(&self) -> Option<&Process> {
        let mut named = self.sentinels.iter().filter(|each| each.is_running());
        let first = self.master_according_to(named.next()?)?;
        let agreed = named.all(|each| self.master_according_to(each) == Some(first));
        self.node_at(first).filter(|_| agreed)
    }

    /// Waits until all running Sentinels name a master that is not `old`, and returns it.
    pub fn wait_for_switch(
        &self,
        old: &Process,
        timeout: Duration,
    ) -> Result<&Process, DeploymentError> {
        let found = wait_for(timeout, || {
            self.master().filter(|master| master.addr() != old.addr())
        });
        found.ok_or_else(|| {
            late(
                "every Sentinel to name a new master",
                timeout,
                &self.views(),
            )
        })
    }

    /// Waits until `node` replicates `master` with its link up.
    pub fn wait_for_replica(
        &self,
        node: &Process,
        master: &Process,
        timeout: Duration,
    ) -> Result<(), DeploymentError> {
        let port = master.port().to_string();
        let mut seen = None;
        let found = wait_for(timeout, || {
            seen = node.command(&["INFO", "replication"]).ok();
            let has = |name: &str, want: &str| {
                seen.as_ref()
                    .and_then(|info| info.info(name))
                    .is_some_and(|value| value == want)
            };
            let linked = has("master_port", &port) && has("master_link_status", "up");
            (has("role", "slave") && linked).then_some(())
        });
        let what = format!("{} to replicate {}", node.addr(), master.addr());
        found.ok_or_else(|| late(&what, timeout, &format!("{seen:?}{}", self.views())))
    }

    /// Waits until `replicas` replicas of `master` have acknowledged everything it has written.
    pub fn wait_in_sync(
        &self,
        master: &Process,
        replicas: usize,
        timeout: Duration,
    ) -> Result<(), DeploymentError> {
        let mut seen = None;
        let found = wait_for(timeout, || {
            seen = master.command(&["INFO", "replication"]).ok();
            (seen.as_ref().map_or(0, replicas_in_sync) >= replicas).then_some(())
        });
        let what = format!("{replicas} replicas of {} in sync", master.addr());
        found.ok_or_else(|| late(&what, timeout, &format!("{seen:?}")))
    }

    /// Waits until every running Sentinel holds the master, its `replicas` and every other running
    /// Sentinel for healthy.
    pub fn wait_until_seen(
        &self,
        replicas: usize,
        timeout: Duration,
    ) -> Result<(), DeploymentError> {
        let running = || self.sentinels.iter().filter(|each| each.is_running());
        let others = running().count().saturating_sub(1);
        let found = wait_for(timeout, || {
            let seen = running().all(|each| self.sees_all(each, replicas, others) == Some(true));
            seen.then_some(())
        });
        found.ok_or_else(|| {
            let what = format!("every Sentinel to see {replicas} replicas and {others} others");
            late(&what, timeout, &self.views())
        })
    }

    /// Starts a planned failover at the first running Sentinel.
    pub fn failover(&self) -> Result<(), DeploymentError> {
        let sentinel = self.sentinels.iter().find(|each| each.is_running());
        let sentinel = sentinel.ok_or(DeploymentError::NoSentinel)?;
        let reply = sentinel.command(&["SENTINEL", "FAILOVER", &self.master_name])?;
        match reply.error() {
            Some(line) => Err(DeploymentError::Refused(line.to_owned())),
            None => Ok(()),
        }
    }

    /// A connection to every running Sentinel, subscribed to `channels`, its confirmations read.
    pub fn subscribe(&self, channels: &[&str]) -> Result<Vec<Client>, DeploymentError> {
        let mut subscribers = Vec::new();
        for sentinel in self.sentinels.iter().filter(|each| each.is_running()) {
            let mut client = sentinel.connect()?;
            client
                .send(&[&["SUBSCRIBE"], channels].concat())
                .map_err(ProcessError::from)?;
            for _ in channels {
                client.receive().map_err(ProcessError::from)?;
            }
            subscribers.push(client);
        }
        Ok(subscribers)
    }

    fn start_nodes(&mut self, plan: &Plan) -> Result<(), DeploymentError> {
        for index in 0..=plan.replicas {
            let dir = self.scratch.0.join(format!("node-{index}"));
            let master = self.nodes.first().map(Process::addr);
            let config = |port| node_config(plan, port, master);
            let password = plan.password.as_deref();
            let node = Process::start(Kind::Redis, &plan.redis_server, &dir, password, config)?;
            self.nodes.push(node);
        }
        self.wait_in_sync(self.node(0), plan.replicas, SETTLE_MAX)
    }

    fn start_sentinels(&mut self, plan: &Plan) -> Result<(), DeploymentError> {
        let master = self.node(0).addr();
        for index in 0..plan.sentinels {
            let dir = self.scratch.0.join(format!("sentinel-{index}"));
            let config = |port| sentinel_config(plan, port, master);
            let password = plan.sentinel_password.as_deref();
            let sentinel =
                Process::start(Kind::Sentinel, &plan.redis_server, &dir, password, config)?;
            self.sentinels.push(sentinel);
        }
        self.greet_every(Duration::from_millis(100));
        self.wait_until_seen(plan.replicas, SETTLE_MAX)?;
        self.greet_every(Duration::from_secs(2));
        Ok(())
    }

    /// Sentinels find each other by greetings, each 2 s. `SENTINEL DEBUG` (Redis 7.0 and later)
    /// makes them greet more often; where it is unknown, the start takes some seconds longer.
    fn greet_every(&self, period: Duration) {
        let period = period.as_millis().to_string();
        for sentinel in &self.sentinels {
            let _unknown_before_7 =
                sentinel.command(&["SENTINEL", "DEBUG", "PUBLISH-PERIOD", &period]);
        }
    }

    fn sees_all(&self, sentinel: &Process, replicas: usize, others: usize) -> Option<bool> {
        let mut client = sentinel.connect().ok()?;
        let mut ask = |what| client.command(&["SENTINEL", what, &self.master_name]).ok();
        let (master, slaves, peers) = (ask("MASTER")?, ask("REPLICAS")?, ask("SENTINELS")?);
        let is = |entry: &Reply, name: &str, want: &str| {
            entry
                .field(name)
                .and_then(Reply::text)
                .is_some_and(|text| text == want)
        };
        let good_slave =
            |entry: &&Reply| is(entry, "flags", "slave") && is(entry, "master-link-status", "ok");
        // Valkey 9 keeps in mind what a peer has said of the master before this one.
        let good_peer = |entry: &&Reply| {
            is(entry, "flags", "sentinel") || is(entry, "flags", "sentinel,master_down")
        };
        Some(
            is(&master, "flags", "master")
                && slaves.items().iter().filter(good_slave).count() >= replicas
                && peers.items().iter().filter(good_peer).count() >= others,
        )
    }

    fn views(&self) -> String {
        let mut views = String::new();
        for sentinel in &self.sentinels {
            let view = sentinel.command(&["SENTINEL", "MASTER", &self.master_name]);
            let (addr, log) = (sentinel.addr(), sentinel.log_tail(VIEW_LINES));
            let _infallible = write!(views, "\n{addr}: {view:?}; the end of its log:\n{log}");
        }
        views
    }
}

/// Why a deployment is not as it should be; worded for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum DeploymentError {
    /// One of the processes.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A deadline passed.
    #[error("waited {after:?} for {what}; seen last: {seen}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What there was instead.
        seen: String,
    },
    /// Sentinel said no to a failover.
    #[error("sentinel refuses the failover: {0}")]
    Refused(String),
    /// Nobody there to ask.
    #[error("no Sentinel is running")]
    NoSentinel,
    /// The directory or the guard could not be made.
    #[error("cannot make the directory of a deployment: {0}")]
    Io(#[from] io::Error),
}

fn late(what: &str, after: Duration, seen: &str) -> DeploymentError {
    DeploymentError::Late {
        what: what.to_owned(),
        after,
        seen: seen.to_owned(),
    }
}

/// Replicas in the `slaveN:` lines of `INFO replication` that are online at the master's offset.
fn replicas_in_sync(info: &Reply) -> usize {
    let offset = format!(
        "offset={},",
        info.info("master_repl_offset").unwrap_or_default()
    );
    let text = info.text().unwrap_or_default();
    let slaves = text
        .lines()
        .filter(|line| line.starts_with("slave") && line.contains(":ip="));
    slaves
        .filter(|line| line.contains("state=online") && line.contains(&offset))
        .count()
}

fn node_config(plan: &Plan, port: u16, master: Option<SocketAddr>) -> String {
    let mut lines = vec![
        format!("port {port}"),
        "bind 127.0.0.1".to_owned(),
        "save \"\"".to_owned(),
        "repl-diskless-sync yes".to_owned(),
        "repl-diskless-sync-delay 0".to_owned(),
    ];
    if let Some(password) = &plan.password {
        lines.push(format!("requirepass {password}"));
        lines.push(format!("masterauth {password}"));
    }
    if let Some(master) = master {
        lines.push(format!("replicaof {} {}", master.ip(), master.port()));
    }
    lines.extend(plan.node_config.iter().cloned());
    lines.join("\n") + "\n"
}

fn sentinel_config(plan: &Plan, port: u16, master: SocketAddr) -> String {
    let name = &plan.master_name;
    let mut lines = vec![
        format!("port {port}"),
        "bind 127.0.0.1".to_owned(),
        format!(
            "sentinel monitor {name} {} {} {}",
            master.ip(),
            master.port(),
            plan.quorum
        ),
        format!(
            "sentinel down-after-milliseconds {name} {}",
            plan.down_after.as_millis()
        ),
        format!(
            "sentinel failover-timeout {name} {}",
            plan.failover_timeout.as_millis()
        ),
    ];
    if let Some(password) = &plan.password {
        lines.push(format!("sentinel auth-pass {name} {password}"));
    }
    if let Some(password) = &plan.sentinel_password {
        lines.push(format!("requirepass {password}"));
        lines.push(format!("sentinel sentinel-pass {password}"));
    }
    lines.extend(plan.sentinel_config.iter().cloned());
    lines.join("\n") + "\n"
}

/// The directory of a deployment, readable by us alone. Goes when dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        loop {
            let name = format!("switchman-{:016x}", fastrand::u64(..));
            let path = env::temp_dir().join(name);
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The guard tries again.
        let _left_to_the_guard = fs::remove_dir_all(&self.0);
    }
}

/// A shell that waits for the end of its input, that is for our end, however it comes. Where the
/// directory is still there by then, it kills every process that runs in it or in one of its
/// folders, and removes it. (Asking the kernel to do this, by `PR_SET_PDEATHSIG`, needs unsafe
/// code, and would follow the thread that started the child.)
#[derive(Debug)]
struct Guard(Child);

impl Guard {
    const SCRIPT: &str = r#"
        while read -r _; do :; done
        [ -d "$1" ] || exit 0
        for dir in "$1" "$1"/*/; do
            for process in /proc/[0-9]*; do
                [ "$process/cwd" -ef "$dir" ] && kill -KILL "${process#/proc/}"
            done
        done
        rm -rf -- "$1"
    "#;

    fn over(dir: &Path) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", Self::SCRIPT, "switchman-guard"])
            .arg(dir);
        command.current_dir("/").process_group(0);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _has_ended = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_count_as_in_sync_at_the_masters_offset_only() {
        let info = |slave: &str| {
            Reply::bulk(&format!(
                "role:master\r\nslave0:{slave}\r\nmaster_repl_offset:70\r\n"
            ))
        };
        let check = |slave: &str, want: usize| {
            assert_eq!(replicas_in_sync(&info(slave)), want, "{slave}");
        };
        check("ip=127.0.0.1,port=1,state=online,offset=70,lag=0", 1);
        check("ip=127.0.0.1,port=1,state=online,offset=7,lag=0", 0);
        check("ip=127.0.0.1,port=1,state=wait_bgsave,offset=70,lag=0", 0);
    }

    #[test]
    fn the_guard_removes_what_we_could_not() {
        let scratch = Scratch::new().unwrap();
        fs::create_dir(scratch.0.join("node-0")).unwrap();
        let sleeps = |dir| Command::new("sleep").arg("600").current_dir(dir).spawn();
        let dirs = [scratch.0.clone(), scratch.0.join("node-0")];
        let sleepers = dirs.map(|dir| sleeps(dir).unwrap());
        drop(Guard::over(&scratch.0).unwrap());
        assert!(!scratch.0.exists());
        for mut sleeper in sleepers {
            assert!(!sleeper.wait().unwrap().success(), "it was killed");
        }
    }
}
