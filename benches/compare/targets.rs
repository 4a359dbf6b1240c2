//! Floor 5. The cluster, and the proxies before it: started, found ready, ended with the run.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::bail;
use clap::ValueEnum;
use switchman::demo::deployment::Deployment;
use switchman::demo::deployment::Plan;
use switchman::demo::process::free_port;
use tempfile::TempDir;

use crate::options::Options;
use crate::report::Report;
use crate::workload::encode;

/// How long a proxy may take from its start to its first reply.
const READY_DEADLINE: Duration = Duration::from_secs(15);
/// Pause between two looks at a proxy that is not ready.
const READY_PAUSE: Duration = Duration::from_millis(20);

/// A machine at its limit must not look like a dead master: nobody fails over in this comparison.
const DOWN_AFTER: Duration = Duration::from_secs(60);

/// What can be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Target {
    /// No proxy: the master itself.
    Direct,
    /// `HAProxy`, `mode tcp`.
    Haproxy,
    /// nutcracker (twemproxy).
    Nutcracker,
    /// Switchman, everything to the master.
    SwitchmanMaster,
    /// Switchman, reads to the replica.
    SwitchmanReplica,
    /// Switchman, reads to a replica that has what was written.
    SwitchmanOwnWrites,
}

impl Target {
    /// Whether it is Switchman, in whichever shape.
    pub(crate) fn is_switchman(self) -> bool {
        self == Self::SwitchmanMaster || self.tells_consistencies_apart()
    }

    /// Whether it takes part where two consistencies are compared.
    pub(crate) fn tells_consistencies_apart(self) -> bool {
        matches!(self, Self::SwitchmanReplica | Self::SwitchmanOwnWrites)
    }

    /// Whether a client may say HELLO and CLIENT: nutcracker closes such a connection.
    pub(crate) fn speaks_hello(self) -> bool {
        self != Self::Nutcracker
    }

    /// The program's file name, if it is not ours.
    fn program(self) -> Option<&'static str> {
        match self {
            Self::Haproxy => Some("haproxy"),
            Self::Nutcracker => Some("nutcracker"),
            Self::Direct
            | Self::SwitchmanMaster
            | Self::SwitchmanReplica
            | Self::SwitchmanOwnWrites => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nutcracker => "nutcracker",
            Self::SwitchmanMaster => "switchman-master",
            Self::SwitchmanReplica => "switchman-replica",
            Self::SwitchmanOwnWrites => "switchman-own-writes",
        })
    }
}

/// The cluster and one running instance of each proxy that takes part.
pub(crate) struct Fleet {
    proxies: BTreeMap<Target, Proxy>,
    direct: bool,
    cluster: Deployment,
    started: usize,
    dir: TempDir,
}

impl Fleet {
    /// Starts the cluster and every wanted proxy that is installed; names those that are not.
    pub(crate) fn start(
        options: &Options,
        report: &mut Report<impl Write + IsTerminal>,
    ) -> anyhow::Result<Self> {
        let plan = Plan {
            down_after: DOWN_AFTER,
            replicas: options.replicas(),
            ..Plan::default()
        };
        let mut fleet = Self {
            proxies: BTreeMap::new(),
            direct: options.wants(Target::Direct),
            cluster: Deployment::start(&plan)?,
            started: 0,
            dir: tempfile::tempdir()?,
        };
        for &target in Target::value_variants() {
            match target
                .program()
                .filter(|program| find_program(program).is_none())
            {
                _ if target == Target::Direct || !options.wants(target) => {}
                Some(program) => report.absent(target, program)?,
                None => {
                    let proxy = fleet.start_proxy(target)?;
                    fleet.proxies.insert(target, proxy);
                }
            }
        }
        Ok(fleet)
    }

    /// Address of the master.
    pub(crate) fn master(&self) -> SocketAddr {
        self.cluster.node(0).addr()
    }

    /// GETs that each node has served, the master first.
    pub(crate) fn reads(&self) -> anyhow::Result<Vec<u64>> {
        let nodes = self.cluster.nodes().iter();
        nodes
            .map(|node| {
                let stats = node.command(&["INFO", "commandstats"])?;
                let line = stats.info("cmdstat_get").unwrap_or_default();
                let mut fields = line.split(',');
                let calls = fields.find_map(|field| field.strip_prefix("calls="));
                Ok(calls.unwrap_or("0").parse()?)
            })
            .collect()
    }

    /// Everything that can be driven.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let direct = self.direct.then_some(Target::Direct);
        direct.into_iter().chain(self.proxies()).collect()
    }

    /// Every proxy that runs.
    pub(crate) fn proxies(&self) -> Vec<Target> {
        self.proxies.keys().copied().collect()
    }

    /// Where a target listens, and its process if it is a proxy.
    pub(crate) fn endpoint(&self, target: Target) -> (SocketAddr, Option<u32>) {
        match self.proxies.get(&target) {
            Some(proxy) => (proxy.addr(), Some(proxy.pid())),
            None => (self.master(), None),
        }
    }

    /// Replaces every proxy that runs by a new process of it.
    pub(crate) fn begin_afresh(&mut self) -> anyhow::Result<()> {
        for target in self.proxies() {
            let proxy = self.start_proxy(target)?;
            self.proxies.insert(target, proxy);
        }
        Ok(())
    }

    /// Starts one more instance of a proxy and waits until it answers.
    pub(crate) fn start_proxy(&mut self, target: Target) -> anyhow::Result<Proxy> {
        self.started += 1;
        let dir = self.dir.path().join(format!("{target}-{}", self.started));
        fs::create_dir(&dir)?;
        Proxy::start(target, &self.cluster, &dir).with_context(|| {
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            format!("{target} does not start; its log: {}", log.trim())
        })
    }
}

/// A proxy process; ended when dropped.
pub(crate) struct Proxy {
    target: Target,
    child: Child,
    addr: SocketAddr,
}

impl Proxy {
    fn start(target: Target, cluster: &Deployment, dir: &Path) -> anyhow::Result<Self> {
        let listen = free_addr()?;
        let mut command = match target {
            Target::Haproxy => haproxy(listen, cluster, dir)?,
            Target::Nutcracker => nutcracker(listen, cluster, dir)?,
            Target::SwitchmanMaster => switchman("master", cluster, dir)?,
            Target::SwitchmanReplica => switchman("eventual", cluster, dir)?,
            Target::SwitchmanOwnWrites => switchman("own-writes", cluster, dir)?,
            Target::Direct => bail!("no proxy"),
        };
        let log = dir.join("log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{}", command.get_program().display()))?;
        let mut proxy = Self {
            target,
            child,
            addr: listen,
        };
        let deadline = Instant::now() + READY_DEADLINE;
        if target.is_switchman() {
            proxy.addr = proxy.wait_for(deadline, || logged_address(&log))?;
        }
        let addr = proxy.addr;
        proxy.wait_for(deadline, || answers(addr))?;
        Ok(proxy)
    }

    /// What it is.
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Looks again and again until `look` finds something, the process ends or time is up.
    fn wait_for<T>(
        &mut self,
        deadline: Instant,
        look: impl Fn() -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status}");
            }
            if Instant::now() >= deadline {
                bail!("not ready within {} s", READY_DEADLINE.as_secs());
            }
            thread::sleep(READY_PAUSE);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn haproxy(listen: SocketAddr, cluster: &Deployment, dir: &Path) -> anyhow::Result<Command> {
    let master = cluster.node(0).addr();
    let config = dir.join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen redis\n  bind {listen}\n  server master {master}\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new("haproxy");
    // -db: stay in the foreground, one process.
    command.args(["-q", "-db", "-f"]).arg(config);
    Ok(command)
}

fn nutcracker(listen: SocketAddr, cluster: &Deployment, dir: &Path) -> anyhow::Result<Command> {
    let master = cluster.node(0).addr();
    let config = dir.join("nutcracker.yml");
    let text = format!(
        "pool:\n  listen: {listen}\n  redis: true\n  preconnect: true\n  \
         servers:\n   - {master}:1\n"
    );
    fs::write(&config, text)?;
    let stats_port = free_addr()?.port().to_string();
    let mut command = Command::new("nutcracker");
    command.arg("--conf-file").arg(config);
    command.args(["--stats-addr", "127.0.0.1", "--stats-port", &stats_port]);
    Ok(command)
}

fn switchman(consistency: &str, cluster: &Deployment, dir: &Path) -> anyhow::Result<Command> {
    let sentinels: Vec<String> = cluster
        .sentinels()
        .iter()
        .map(|each| format!("\"{}\"", each.addr()))
        .collect();
    let config = dir.join("switchman.toml");
    let text = format!(
        "workers = 1\n\
         [log]\nformat = \"json\"\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [[group]]\nmaster-name = \"{}\"\nlisten = [\"127.0.0.1:0\"]\n\
         sentinels = [{}]\nconsistency = \"{consistency}\"\n",
        cluster.master_name(),
        sentinels.join(", "),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchman"));
    command.args(["run", "--config"]).arg(config);
    Ok(command)
}

/// The address in Switchman's log line "listening".
fn logged_address(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        // Fields of an event stand beside the level or in an object of their own.
        let fields = line.get("fields").unwrap_or(&line);
        if fields.get("message")?.as_str()? != "listening" {
            return None;
        }
        fields.get("listen.addr")?.as_str()?.parse().ok()
    })
}

/// Whether a command gets its reply: the only readiness that all proxies have in common.
fn answers(addr: SocketAddr) -> Option<()> {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(READY_DEADLINE))?;
        stream.write_all(&encode(&[b"GET", b"no-such-key"]))?;
        let mut reply = [0; 5];
        stream.read_exact(&mut reply)?;
        Ok(&reply == b"$-1\r\n")
    };
    ask().ok()?.then_some(())
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// A loopback address that nobody listens on.
fn free_addr() -> anyhow::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}
