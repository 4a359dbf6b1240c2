//! The real binary as a child process: its flags, its log, its admin pages, its end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use switchman::demo::client::Client;
use switchman::demo::deployment::Deployment;
use switchman::demo::process::{Process, wait_for};

use crate::lab::SOON;

/// The program under test.
const SWITCHMAN: &str = env!("CARGO_BIN_EXE_switchman");

/// Time that Switchman has for its end after SIGTERM before it is killed and the test fails.
const END_MAX: Duration = Duration::from_secs(10);

/// How Switchman is to be started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    program: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    config: String,
}

impl Launch {
    /// The flags that a sidecar before `deployment` needs; ports are the kernel's choice.
    pub(crate) fn before(deployment: &Deployment) -> Self {
        let mut launch = Self::bare(deployment, "");
        launch.arg("--listen", "127.0.0.1:0");
        launch.arg("--sentinel", &deployment.sentinel_addrs());
        launch.arg("--master-name", deployment.master_name());
        launch.arg("--workers", "2");
        launch
    }

    /// Everything as `config` says; only the admin address and the form of the log are given.
    pub(crate) fn with_config(deployment: &Deployment, config: &str) -> Self {
        Self::bare(deployment, config)
    }

    /// One group before `deployment`, by a configuration file, with `lines` of its own.
    pub(crate) fn group(deployment: &Deployment, lines: &str) -> Self {
        let sentinels: Vec<String> = deployment
            .sentinels()
            .iter()
            .map(|each| format!("\"{}\"", each.addr()))
            .collect();
        let config = format!(
            "[[group]]\nmaster-name = \"{}\"\nlisten = [\"127.0.0.1:0\"]\n\
             sentinels = [{}]\n{lines}",
            deployment.master_name(),
            sentinels.join(", ")
        );
        Self::bare(deployment, &config)
    }

    /// Adds the flag `name` with `value`.
    pub(crate) fn arg(&mut self, name: &str, value: &str) -> &mut Self {
        self.args.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Sets the environment variable `name`.
    pub(crate) fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds lines to the configuration file.
    pub(crate) fn config(&mut self, lines: &str) -> &mut Self {
        self.config.push_str(lines);
        self
    }

    /// Runs it by `wrapper`, which becomes the program that the variable `PROGRAM` names.
    pub(crate) fn through(&mut self, wrapper: &Path) -> &mut Self {
        wrapper.clone_into(&mut self.program);
        self.env("PROGRAM", SWITCHMAN)
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) -> Proxy {
        let mut proxy = self.spawn();
        proxy.listen = proxy.log.wait("listening", tcp_addr);
        proxy.admin = proxy.log.wait("admin listening", tcp_addr);
        proxy
    }

    /// Starts what is expected to end by itself, and waits for that.
    pub(crate) fn run(&self) -> Ended {
        let proxy = self.spawn();
        let status = proxy.wait_end(SOON);
        Ended {
            status,
            output: proxy.log.whole(),
        }
    }

    fn bare(deployment: &Deployment, config: &str) -> Self {
        let dir = deployment
            .dir()
            .join(format!("switchman-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).unwrap();
        let args = [
            "run",
            "--config",
            "switchman.toml",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        let config = format!("{config}\n[log]\nformat = \"json\"\n");
        Self {
            program: PathBuf::from(SWITCHMAN),
            dir,
            args: args.map(str::to_owned).to_vec(),
            envs: Vec::new(),
            config,
        }
    }

    fn spawn(&self) -> Proxy {
        fs::write(self.dir.join("switchman.toml"), &self.config).unwrap();
        let mut child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.envs.iter().cloned())
            // The deployment's guard ends what runs below its directory, should we be killed.
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        log.keep(child.stdout.take().unwrap());
        log.keep(child.stderr.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Proxy {
            child: Mutex::new(child),
            log,
            listen: nowhere,
            admin: nowhere,
        }
    }
}

/// A running Switchman. Dropping it asks it to end by SIGTERM, and kills it where it is late.
#[derive(Debug)]
pub(crate) struct Proxy {
    child: Mutex<Child>,
    log: Log,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Proxy {
    /// Address of its (first) TCP listener.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listen
    }

    /// Address of its admin pages.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// A new client whose replies may take [`SOON`].
    pub(crate) fn client(&self) -> Client {
        self.patient_client(SOON)
    }

    /// A new client whose replies may take `patience`.
    pub(crate) fn patient_client(&self, patience: Duration) -> Client {
        Client::connect(self.listen, patience).unwrap()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let mut child = self.child.lock().unwrap();
        if child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
    }

    /// Waits for its end; kills it and fails where it is late.
    pub(crate) fn wait_end(&self, timeout: Duration) -> ExitStatus {
        let ended = wait_for(timeout, || self.child.lock().unwrap().try_wait().unwrap());
        ended.unwrap_or_else(|| {
            self.kill();
            panic!(
                "switchman did not end within {timeout:?}; its log:\n{}",
                self.log.text()
            );
        })
    }

    /// Status code and body of `GET path`, where the admin server answers.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, SOON).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.admin
        )
        .ok()?;
        let mut response = String::new();
        stream.read_to_string(&mut response).ok()?;
        let (head, body) = response.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    }

    /// Waits until it writes to `master` instead of another. The Sentinels may agree on a new
    /// master before it has heard of the failover, and before that it writes to the old one.
    pub(crate) fn wait_switched(&self, master: &Process) {
        let addr = master.addr().to_string();
        self.log.wait("master switched", |event| {
            (event["master.new"] == addr.as_str()).then_some(())
        });
    }

    /// Waits until `/readyz` answers 200: it has a verified master.
    pub(crate) fn wait_ready(&self) {
        let ready = wait_for(4 * SOON, || {
            self.get("/readyz").filter(|(code, _)| *code == 200)
        });
        assert!(
            ready.is_some(),
            "not ready within {:?}; its log:\n{}",
            4 * SOON,
            self.log.text()
        );
    }

    fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        let _ended_before = child.kill();
        let _reaped_before = child.wait();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("log of switchman:\n{}", self.log.text());
            self.kill();
        } else {
            self.terminate();
            self.wait_end(END_MAX);
        }
    }
}

/// A Switchman that has ended: how, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
}

/// Output of `switchman` with `args`, a subcommand that ends by itself.
pub(crate) fn run(args: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(SWITCHMAN).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// Lines that a Switchman wrote on both of its outputs, growing while it runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// Outputs still open; with none no line can follow.
    open: usize,
}

impl Log {
    /// Everything so far.
    pub(crate) fn text(&self) -> String {
        self.lines().lines.join("\n")
    }

    /// Everything that a Switchman which has ended wrote; its last lines may still be read.
    fn whole(&self) -> String {
        let deadline = Instant::now() + SOON;
        let mut lines = self.lines();
        while lines.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "an output stays open");
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
        drop(lines);
        self.text()
    }

    /// Waits for the first event with this message in which `find` finds something.
    pub(crate) fn wait<T>(&self, message: &str, find: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        let mut lines = self.lines();
        loop {
            let mut events = lines.lines.iter().filter_map(|line| event(line));
            let with_message = |event: Value| (event["message"] == message).then_some(event);
            if let Some(found) = events.find_map(|event| find(&with_message(event)?)) {
                return found;
            }
            drop(events);
            let left = deadline.saturating_duration_since(Instant::now());
            let text = || lines.lines.join("\n");
            assert!(
                !left.is_zero(),
                "no {message:?} within {SOON:?} in:\n{}",
                text()
            );
            assert!(
                lines.open > 0,
                "switchman ended without {message:?}:\n{}",
                text()
            );
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The lines are as good as ever when a test has failed with them in hand.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, output: impl Read + Send + 'static) {
        self.lines().open += 1;
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                log.lines().lines.push(line);
                log.0.1.notify_all();
            }
            log.lines().open -= 1;
            log.0.1.notify_all();
        });
    }
}

/// The fields of a line of the JSON log, with its message among them.
fn event(line: &str) -> Option<Value> {
    let event: Value = serde_json::from_str(line).ok()?;
    Some(event.get("fields").cloned().unwrap_or(event))
}

/// The TCP address of a listener's event, `None` where it listens on a Unix socket.
pub(crate) fn tcp_addr(event: &Value) -> Option<SocketAddr> {
    event["listen.addr"].as_str()?.parse().ok()
}
