//! Floor 6. Switchman as a child of the story: started by its flags, asked by its admin address.
//! Knows the command line and the metrics, as anybody outside does.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;

use crate::demo::deployment::Deployment;
use crate::demo::process::ProcessError;
use crate::demo::process::free_port;
use crate::demo::process::wait_for;

/// Time that Switchman has until it says that it is ready.
const READY_MAX: Duration = Duration::from_secs(10);
/// Time that it has for its end: above the drain that it allows itself by default.
const END_MAX: Duration = Duration::from_secs(15);
/// Time that one answer of the admin address may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Lines of its log that an error shows.
const LOG_LINES: usize = 8;

/// A running Switchman. Ends, by SIGKILL, when dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

/// Why there is no Switchman; worded for the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The program could not be started.
    #[error("cannot start {}: {error}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It ended instead of serving.
    #[error("switchman ended instead of serving ({status}); the end of its log:\n{log}")]
    Exited {
        /// How it ended.
        status: ExitStatus,
        /// Its last words.
        log: String,
    },
    /// It did not become ready in time.
    #[error("switchman was not ready within {after:?}; the end of its log:\n{log}")]
    NotReady {
        /// The limit.
        after: Duration,
        /// Its last words.
        log: String,
    },
    /// No port to give it.
    #[error(transparent)]
    Port(#[from] ProcessError),
    /// A file or a signal failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Proxy {
    /// Starts `program` before the deployment and waits until it is ready.
    ///
    /// It lives in a folder of the deployment, so that it ends with it in any case.
    pub(super) fn start(program: &Path, deployment: &Deployment) -> Result<Self, ProxyError> {
        let dir = deployment.dir().join("switchman");
        fs::create_dir_all(&dir)?;
        let log = dir.join("log");
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(program);
        command.args(["run", "--workers", "1"]);
        command.args(["--listen", &listen.to_string()]);
        command.args(["--admin-listen", &admin.to_string()]);
        command.args(["--sentinel", &deployment.sentinel_addrs()]);
        command.args(["--master-name", deployment.master_name()]);
        // The story is about this deployment, whatever the user's own settings are about.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SWITCHMAN_") {
                command.env_remove(name);
            }
        }
        command.current_dir(&dir).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log)?);
        let child = command.spawn().map_err(|error| ProxyError::Start {
            program: program.to_owned(),
            error,
        })?;
        let mut proxy = Self {
            child,
            listen,
            admin,
            log,
        };
        proxy.wait_until_ready()?;
        Ok(proxy)
    }

    /// Where clients connect.
    pub(super) fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where operators look.
    pub(super) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sum of the metric `name` over all series that have `label` in them; 0 if there is none.
    pub(super) fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let (_, page) = self.ask("/metrics").ok()?;
        Some(sum_of(&page, name, label))
    }

    /// Asks it to end by SIGTERM and waits; how it ended, if in time.
    pub(super) fn stop(mut self) -> Result<Option<ExitStatus>, ProxyError> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).map_err(io::Error::from)?;
        let ended = wait_for(END_MAX, || self.child.try_wait().transpose());
        Ok(ended.transpose()?)
    }

    fn wait_until_ready(&mut self) -> Result<(), ProxyError> {
        let ready = wait_for(READY_MAX, || match self.child.try_wait() {
            Err(error) => Some(Err(error.into())),
            Ok(Some(status)) => Some(Err(ProxyError::Exited {
                status,
                log: self.log_tail(),
            })),
            Ok(None) => self.ask("/readyz").ok()?.0.then_some(Ok(())),
        });
        ready.unwrap_or_else(|| {
            Err(ProxyError::NotReady {
                after: READY_MAX,
                log: self.log_tail(),
            })
        })
    }

    /// Whether the status is 200, and the page.
    fn ask(&self, path: &str) -> io::Result<(bool, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        // Version 1.0, so that the page ends with the connection (RFC 9112, 6.3).
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.admin);
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let good = head.split(' ').nth(1) == Some("200");
        Ok((good, page.to_owned()))
    }

    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..);
        tail.unwrap_or_default().join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only where it has ended before.
        let _ended_before = self.child.kill();
        let _ended_before = self.child.wait();
    }
}

/// Adds up the lines of a Prometheus page that show `name` with `label`.
fn sum_of(page: &str, name: &str, label: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let series = lines.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    let values = series.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok());
    // Not `sum`: that of nothing is -0, and prints so.
    values.fold(0.0, |sum, value| sum + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_series() {
        let page = "# TYPE held_total counter\n\
                    held_total{group=\"a\",outcome=\"sent\"} 2\n\
                    held_total{group=\"a\",outcome=\"refused\"} 1\n\
                    held_total_more 7\n\
                    plain 4\n";
        let check = |name, label, sum: f64| {
            let found = sum_of(page, name, label);
            assert!(
                (found - sum).abs() < f64::EPSILON,
                "{name} {label}: {found}"
            );
        };
        check("held_total", "", 3.0);
        check("held_total", "outcome=\"sent\"", 2.0);
        check("plain", "", 4.0);
        check("absent", "", 0.0);
    }
}
