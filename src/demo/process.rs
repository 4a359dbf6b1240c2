//! Floor 6. One child process that serves a loopback port: start, signals, log, end.
//! Knows the command line of `redis-server`, and nothing of who replicates whom.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::demo::client::{Client, ClientError, Reply};

/// Time that a started process has until it serves its port.
const START_MAX: Duration = Duration::from_secs(10);

/// Time that one control command may take.
const COMMAND_MAX: Duration = Duration::from_secs(5);

/// Pause between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ports tried for one process before giving up.
const PORTS_TRIED: usize = 20;

/// Lines of a dead child's log that its error shows.
const LOG_LINES: usize = 8;

/// Ports handed out lie here: below 32768, from where Linux takes the source ports of outgoing
/// connections. So a port stays free while its node is down for a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_768;

/// A Redis node or a Sentinel that we started. Ends, by SIGKILL, when dropped.
#[derive(Debug)]
pub struct Process {
    kind: Kind,
    program: PathBuf,
    addr: SocketAddr,
    dir: PathBuf,
    password: Option<String>,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `kind` on a free port and waits until it serves.
    ///
    /// `dir` is made and becomes its working directory; `config` writes the configuration for a
    /// port. A port that somebody else took in the meantime is replaced by another.
    pub(super) fn start(
        kind: Kind,
        program: &Path,
        dir: &Path,
        password: Option<&str>,
        config: impl Fn(u16) -> String,
    ) -> Result<Self, ProcessError> {
        fs::create_dir_all(dir)?;
        for _ in 1..PORTS_TRIED {
            let port = free_port()?;
            fs::write(dir.join(kind.config_file()), config(port))?;
            let process = Self {
                kind,
                program: program.to_owned(),
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                child: Mutex::new(spawn(kind, program, dir)?),
                dir: dir.to_owned(),
                password: password.map(str::to_owned),
            };
            match process.wait_until_served() {
                Err(ProcessError::Exited { log, .. }) if log.contains("already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(process),
            }
        }
        Err(ProcessError::NoPort)
    }

    /// The address it serves, on loopback. The same after a restart.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port it serves.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Process id of the running child, or of the last one.
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Its working directory: configuration, log, data.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the child is there; a frozen one is.
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// Ends it by SIGKILL and waits for its end. Nothing happens where it has ended before.
    pub fn kill(&self) -> Result<(), ProcessError> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end by SIGTERM and returns at once; see [`wait_gone`](Self::wait_gone).
    pub fn shutdown(&self) -> Result<(), ProcessError> {
        self.signal(Signal::TERM)
    }

    /// Stops it by SIGSTOP: its sockets stay open and the kernel still takes connections for it.
    pub fn freeze(&self) -> Result<(), ProcessError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on by SIGCONT.
    pub fn thaw(&self) -> Result<(), ProcessError> {
        self.signal(Signal::CONT)
    }

    /// Waits at most `timeout` for its end.
    pub fn wait_gone(&self, timeout: Duration) -> Result<(), ProcessError> {
        wait_for(timeout, || (!self.is_running()).then_some(()))
            .ok_or_else(|| self.late("end", timeout))
    }

    /// Starts it again on the same port and directory, killing it first where it runs, and waits
    /// until it serves. Its configuration is what it (or Sentinel) wrote last.
    pub fn restart(&self) -> Result<(), ProcessError> {
        self.kill()?;
        *self.child() = spawn(self.kind, &self.program, &self.dir)?;
        self.wait_until_served()
    }

    /// A new connection to it, logged in where the plan has a password.
    pub fn connect(&self) -> Result<Client, ProcessError> {
        let mut client = Client::connect(self.addr, COMMAND_MAX)?;
        if let Some(password) = &self.password {
            let reply = client.command(&["AUTH", password])?;
            if let Some(line) = reply.error() {
                return Err(ProcessError::Refused {
                    addr: self.addr,
                    line: line.to_owned(),
                });
            }
        }
        Ok(client)
    }

    /// Sends one command over a connection of its own. Error replies are replies.
    pub fn command(&self, args: &[&str]) -> Result<Reply, ProcessError> {
        Ok(self.connect()?.command(args)?)
    }

    /// Value of `name` in `INFO section`, where the process answers and has it.
    pub fn info(&self, section: &str, name: &str) -> Option<String> {
        self.command(&["INFO", section]).ok()?.info(name)
    }

    /// The last `lines` lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or(&[]);
        tail.join("\n")
    }

    fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        let mut child = self.child();
        match child.try_wait()? {
            None => Ok(kill_process(Pid::from_child(&child), signal).map_err(io::Error::from)?),
            Some(_) => Err(ProcessError::Gone {
                what: self.kind.name(),
                addr: self.addr,
            }),
        }
    }

    /// The answer must come from our own child: somebody else may have won the port.
    fn wait_until_served(&self) -> Result<(), ProcessError> {
        let pid = self.pid().to_string();
        let served = wait_for(START_MAX, || match self.child().try_wait() {
            Err(error) => Some(Err(error.into())),
            Ok(Some(status)) => {
                let log = self.log_tail(LOG_LINES);
                Some(Err(ProcessError::Exited {
                    what: self.kind.name(),
                    status,
                    log,
                }))
            }
            Ok(None) => (self.info("server", "process_id")? == pid).then_some(Ok(())),
        });
        served.unwrap_or_else(|| Err(self.late("serve", START_MAX)))
    }

    fn late(&self, act: &'static str, after: Duration) -> ProcessError {
        let (what, log) = (self.kind.name(), self.log_tail(LOG_LINES));
        ProcessError::Late {
            what,
            addr: self.addr,
            act,
            after,
            log,
        }
    }

    /// A panic elsewhere leaves the handle of the child as good as it was.
    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL ends a frozen process too; an error means that it has ended before.
        let _ended_before = self.kill();
    }
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A master or a replica.
    Redis,
    /// A Sentinel.
    Sentinel,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Sentinel => "Sentinel",
        }
    }

    fn config_file(self) -> &'static str {
        match self {
            Self::Redis => "redis.conf",
            Self::Sentinel => "sentinel.conf",
        }
    }
}

/// Why a process is not as it should be; worded for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such program.
    #[error(
        "{} is not installed; Debian and Ubuntu have it as package redis-server, Fedora and \
         Homebrew as redis, Alpine as redis; or name its path",
        .0.display()
    )]
    NotInstalled(PathBuf),
    /// The child ended instead of serving.
    #[error("{what} ended instead of serving ({status}); the end of its log:\n{log}")]
    Exited {
        /// Redis or Sentinel.
        what: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last words.
        log: String,
    },
    /// A deadline passed.
    #[error("{what} at {addr} did not {act} within {after:?}; the end of its log:\n{log}")]
    Late {
        /// Redis or Sentinel.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
        /// What was waited for.
        act: &'static str,
        /// How long.
        after: Duration,
        /// Its last words.
        log: String,
    },
    /// A signal for a process that has ended.
    #[error("{what} at {addr} has ended and takes no signals")]
    Gone {
        /// Redis or Sentinel.
        what: &'static str,
        /// Where.
        addr: SocketAddr,
    },
    /// The plan's password is not the node's.
    #[error("{addr} refuses the login: {line}")]
    Refused {
        /// Where.
        addr: SocketAddr,
        /// The node's reply.
        line: String,
    },
    /// Every port tried was taken by somebody else before the child could have it.
    #[error("no free loopback port found between {} and {}", PORTS.start, PORTS.end)]
    NoPort,
    /// No answer to a command.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A file, a pipe or a signal failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A loopback port that nobody listens on at the moment.
///
/// Somebody else may take it before the caller does; where a program can say which port it got,
/// give it port 0 instead.
pub fn free_port() -> Result<u16, ProcessError> {
    let mut dice = fastrand::Rng::new();
    for _ in 0..1_000 {
        let port = dice.u16(PORTS);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(ProcessError::NoPort)
}

/// Looks until `look` finds something, or until `timeout` has passed (then `None`).
pub fn wait_for<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Starts the child in a process group of its own, so that Ctrl-C at a terminal reaches us alone
/// and we decide the order of the end.
fn spawn(kind: Kind, program: &Path, dir: &Path) -> Result<Child, ProcessError> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    let mut command = Command::new(program);
    command
        .arg(kind.config_file())
        .current_dir(dir)
        .process_group(0);
    if kind == Kind::Sentinel {
        command.arg("--sentinel");
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProcessError::NotInstalled(program.to_owned()),
        _ => ProcessError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let dir = std::env::temp_dir();
        let error = spawn(Kind::Redis, Path::new("/nowhere/redis-server"), &dir).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/redis-server is not installed"),
            "{text}"
        );
        assert!(text.contains("package redis-server"), "{text}");
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().unwrap();
        assert!(PORTS.contains(&port));
        // A child that another test forks holds our probing socket until its exec.
        let bound = wait_for(COMMAND_MAX, || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
        });
        assert!(bound.is_some());
    }
}
