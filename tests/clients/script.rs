//! A client that is a program of its own: how it is started, watched, and listened to.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use switchman::demo::process::wait_for;

/// Time for all features of one client. Each has a shorter deadline of its own.
const SCRIPT_MAX: Duration = Duration::from_secs(180);

/// A program, and what stands on its command line before and behind the address.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    program: PathBuf,
    before: Vec<OsString>,
    node_path: Option<PathBuf>,
    resp: Option<u32>,
}

impl Script {
    /// The script `name`, which lies beside this file, run by `interpreter`.
    pub(crate) fn new(interpreter: &Path, name: &str) -> Self {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut script = Self::program(interpreter);
        script.before.push(scripts.join(name).into());
        script
    }

    /// The same for Node.js, which finds its libraries in `modules`.
    pub(crate) fn node(modules: &Path, name: &str) -> Self {
        let mut script = Self::new(Path::new("node"), name);
        script.node_path = Some(modules.to_owned());
        script
    }

    /// A program that is the script.
    pub(crate) fn program(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            before: Vec::new(),
            node_path: None,
            resp: None,
        }
    }

    /// The same with one more argument before the address.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.before.push(arg.into());
        self
    }

    /// The same, asked to speak this version of RESP.
    pub(crate) fn resp(mut self, version: u32) -> Self {
        self.resp = Some(version);
        self
    }

    /// Runs it at `addr`, in `dir`. Returns what it said, with a line that begins with `FAIL` if it
    /// did not end well.
    pub(crate) fn run(&self, addr: SocketAddr, dir: &Path) -> String {
        let path = dir.join("client.log");
        let log = File::create(&path).unwrap();
        let mut command = Command::new(&self.program);
        command
            .args(&self.before)
            .args([addr.ip().to_string(), addr.port().to_string()])
            .args(self.resp.map(|version| version.to_string()))
            .envs(self.node_path.iter().map(|path| ("NODE_PATH", path)))
            // The deployment's guard ends what runs below its directory, should we be killed.
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let ended = wait_for(SCRIPT_MAX, || child.try_wait().unwrap());
        let verdict = match ended {
            Some(status) if status.success() => String::new(),
            Some(status) => format!("FAIL ended with {status}\n"),
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                format!("FAIL killed after {SCRIPT_MAX:?}\n")
            }
        };
        fs::read_to_string(&path).unwrap() + &verdict
    }
}
