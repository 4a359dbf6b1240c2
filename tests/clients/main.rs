//! Real clients with the settings they come with: first with Redis itself, which proves their
//! scripts, then through Switchman, which proves Switchman.
//!
//! The scripts lie beside this file, one for each client, and use what applications use: get and
//! set, a pipeline of 500, MULTI/EXEC, a WATCH that fails and one that holds, publish and
//! subscribe, and BLPOP that finds something, is woken, or runs out of time. Versions are pinned in
//! `requirements.txt` and `package.json`; what they name is installed below `target/clients` once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of a test fail it by panicking, and print what the clients said"
)]

#[expect(dead_code, reason = "shared with the live tests, which use all of it")]
#[path = "../live/lab.rs"]
mod lab;
mod packages;
#[expect(dead_code, reason = "shared with the live tests, which use all of it")]
#[path = "../live/proxy.rs"]
mod proxy;
mod redis_rs;

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use switchman::demo::process::wait_for;

use crate::lab::Lab;

/// Time for all features of one client. Each has a shorter deadline of its own.
const SCRIPT_MAX: Duration = Duration::from_secs(60);

/// The scripts.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

#[test]
fn redis_py_works_with_its_defaults() {
    with_both(|lab, addr| script(lab, python("redis_py.py"), addr, None));
}

#[test]
fn redis_py_works_with_resp2() {
    with_both(|lab, addr| script(lab, python("redis_py.py"), addr, Some("2")));
}

#[test]
fn redis_py_works_with_resp3() {
    with_both(|lab, addr| script(lab, python("redis_py.py"), addr, Some("3")));
}

#[test]
fn node_redis_works_with_its_defaults() {
    with_both(|lab, addr| script(lab, node("node_redis.cjs"), addr, None));
}

#[test]
fn ioredis_works_with_its_defaults() {
    with_both(|lab, addr| script(lab, node("ioredis.cjs"), addr, None));
}

#[test]
fn redis_rs_works_with_its_defaults() {
    with_both(|_, addr| redis_rs::run(&format!("redis://{addr}/")));
}

#[test]
fn redis_rs_works_with_resp3() {
    with_both(|_, addr| redis_rs::run(&format!("redis://{addr}/?protocol=resp3")));
}

/// Lets a client work with a Redis and then with Switchman in front of it. `work` says whether all
/// features worked.
fn with_both(work: impl Fn(&Lab, SocketAddr) -> bool) {
    let lab = Lab::small();
    println!("with redis:");
    assert!(work(&lab, lab.node(0).addr()), "failed with redis itself");
    // The scripts read back what they have just written, which only the master is sure to have.
    let mut launch = proxy::Launch::before(&lab);
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    let proxy = launch.start();
    proxy.wait_ready();
    println!("with switchman:");
    assert!(work(&lab, proxy.addr()), "failed with switchman");
}

fn python(name: &str) -> Command {
    let mut command = Command::new(packages::python().unwrap_or_else(|error| panic!("{error}")));
    command.arg(Path::new(SCRIPTS).join(name));
    command
}

fn node(name: &str) -> Command {
    let modules = packages::node_modules().unwrap_or_else(|error| panic!("{error}"));
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules);
    command.arg(Path::new(SCRIPTS).join(name));
    command
}

/// Runs a client's script, prints its lines, and says whether it ended well.
fn script(lab: &Lab, mut command: Command, addr: SocketAddr, version: Option<&str>) -> bool {
    let said = lab.dir().join("client.log");
    let log = File::create(&said).unwrap();
    command
        .args([addr.ip().to_string(), addr.port().to_string()])
        .args(version)
        .current_dir(lab.dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut child = command.spawn().unwrap();
    let ended = wait_for(SCRIPT_MAX, || child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
        println!("killed after {SCRIPT_MAX:?}");
    }
    println!("{}", std::fs::read_to_string(&said).unwrap());
    ended.is_some_and(|status| status.success())
}
