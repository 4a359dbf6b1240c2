//! Real clients with the settings they come with, and in each version of RESP that they speak:
//! first with Redis itself, which proves their scripts, then through Switchman, which proves
//! Switchman.
//!
//! The scripts lie beside this file, one for each interface, and use what applications use: see
//! [`FEATURES`]. What they need is installed once below `target/clients`, in the versions that
//! `requirements.txt` and `package.json` name, or by `make tools` in those of the system.

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
mod script;
#[expect(dead_code, reason = "shared with the live tests, which use all of it")]
#[path = "../live/version.rs"]
mod version;

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SEEN};
use crate::script::Script;

/// What each client shows that it can do: its script prints `ok`, the name, and perhaps more.
const FEATURES: &[&str] = &[
    // A greeting; it says in which version of RESP.
    "connect",
    "client_name",
    // Databases by the address and by SELECT.
    "select",
    "get_set",
    // 500 commands in one go.
    "pipeline",
    // MULTI and EXEC.
    "transaction",
    // A WATCH that fails, and one that holds.
    "watch_conflict",
    // Channels and patterns.
    "pubsub",
    // BLPOP that finds something, is woken, or runs out of time.
    "blocking_pop",
    // EVALSHA of a script that the server knows, does not know, or knows no longer.
    "script",
    // 10,000 keys by SCAN.
    "scan",
    // Consumer groups: read, acknowledge, look what is pending, wait.
    "streams",
    // 32 MiB there and back.
    "big_value",
    // Traffic through a planned failover without an error, over the same connection; then a script
    // that the old master knew, and a subscriber that hears.
    "failover",
];

/// Time in which a client begins with the traffic of a failover, all other features behind it.
const BUSY_MAX: Duration = Duration::from_secs(120);

/// Commands of that traffic that a replica has before the failover.
const ENOUGH: u64 = 100;

/// Time from the order to a new master.
const SWITCH_MAX: Duration = Duration::from_secs(30);

#[test]
fn redis_py_works_with_its_defaults() {
    let python = have(packages::python());
    works(3, &Script::new(&python, "python.py").arg("redis"));
}

#[test]
fn redis_py_works_with_resp2() {
    let python = have(packages::python());
    works(2, &Script::new(&python, "python.py").arg("redis").resp(2));
}

#[test]
fn redis_py_works_with_resp3() {
    let python = have(packages::python());
    works(3, &Script::new(&python, "python.py").arg("redis").resp(3));
}

#[test]
fn valkey_py_works_with_its_defaults() {
    let python = have(packages::python());
    works(2, &Script::new(&python, "python.py").arg("valkey"));
}

#[test]
fn valkey_py_works_with_resp3() {
    let python = have(packages::python());
    works(3, &Script::new(&python, "python.py").arg("valkey").resp(3));
}

#[test]
fn node_redis_works_with_its_defaults() {
    let modules = have(packages::node_modules());
    works(3, &Script::node(&modules, "node_redis.cjs"));
}

#[test]
fn node_redis_works_with_resp2() {
    let modules = have(packages::node_modules());
    works(2, &Script::node(&modules, "node_redis.cjs").resp(2));
}

#[test]
fn ioredis_works_with_its_defaults() {
    let modules = have(packages::node_modules());
    works(3, &Script::node(&modules, "ioredis.cjs"));
}

#[test]
fn ioredis_works_with_resp2() {
    let modules = have(packages::node_modules());
    works(2, &Script::node(&modules, "ioredis.cjs").resp(2));
}

#[test]
fn redis_rs_works_with_its_defaults() {
    works_by(2, |addr, _| redis_rs::run(addr, 2));
}

#[test]
fn redis_rs_works_with_resp3() {
    works_by(3, |addr, _| redis_rs::run(addr, 3));
}

#[test]
fn hiredis_works_with_its_defaults() {
    let program = have(packages::hiredis());
    works(2, &Script::program(&program));
}

#[test]
fn phpredis_works_with_its_defaults() {
    let php = have(packages::php());
    works(2, &Script::new(&php, "phpredis.php"));
}

#[test]
fn redis_rb_works_with_its_defaults() {
    let ruby = have(packages::ruby());
    works(2, &Script::new(&ruby, "redis_rb.rb"));
}

/// What was `found`; fails with the words how to get it.
fn have<T>(found: Result<T, String>) -> T {
    found.unwrap_or_else(|remedy| panic!("{remedy}"))
}

/// Fails unless the client that `script` is does everything, over this version of RESP.
fn works(resp: u32, script: &Script) {
    works_by(resp, |addr, dir| script.run(addr, dir));
}

/// The same for a client which is given an address and a directory for its needs, and returns what
/// it has to say.
fn works_by(resp: u32, client: impl Fn(SocketAddr, &Path) -> String + Sync) {
    let lab = calm_lab();
    let master = lab.node(0);

    println!("with redis:");
    let said = play(&lab, || client(master.addr(), lab.dir()), || master);
    assert_everything("redis", resp, &said);

    for forget in [&["FLUSHALL"][..], &["SCRIPT", "FLUSH"]] {
        master.command(forget).unwrap();
    }
    let proxy = lab.proxy();
    proxy.wait_ready();
    println!("with switchman:");
    let said = play(
        &lab,
        || client(proxy.addr(), lab.dir()),
        || {
            lab.wait_until_seen(1, SEEN).unwrap();
            lab.failover().unwrap();
            lab.wait_for_switch(master, SWITCH_MAX).unwrap()
        },
    );
    assert_everything("switchman", resp, &said);
}

/// One master, one replica, three Sentinels which do nothing unless they are told: this is about
/// clients, and a machine that is busy with them keeps Sentinels from the processor.
fn calm_lab() -> Lab {
    let lab = Lab::start(&Plan {
        down_after: SEEN,
        ..Plan::default()
    });
    for sentinel in lab.sentinels() {
        // In tilt mode, in which one is that could not run for so long, it would end no failover.
        let trigger = SEEN.as_millis().to_string();
        let _unknown_before_7 = sentinel.command(&["SENTINEL", "DEBUG", "TILT-TRIGGER", &trigger]);
    }
    lab
}

/// What `client` says, for which `switch` is done when it is busy with the last feature. `switch`
/// returns the node that is master then.
fn play<'a>(
    lab: &Lab,
    client: impl Fn() -> String + Sync + Send,
    switch: impl FnOnce() -> &'a Process,
) -> String {
    let said = thread::scope(|scope| {
        let client = scope.spawn(client);
        let busy = || {
            let count = lab.node(1).command(&["GET", "failover:count"]).ok()?;
            (count.text()?.parse::<u64>().ok()? >= ENOUGH).then_some(())
        };
        // It says itself why, if it ends before.
        let ended = || client.is_finished().then_some(());
        wait_for(BUSY_MAX, || busy().or_else(ended));
        if busy().is_some() {
            switch().command(&["SET", "failover:over", "1"]).unwrap();
        }
        client.join().unwrap()
    });
    println!("{said}");
    said
}

/// Fails unless each feature is there, and nothing failed.
fn assert_everything(with: &str, resp: u32, said: &str) {
    let ok = |feature: &&str| {
        said.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("ok") && words.next() == Some(feature)
        })
    };
    let missing: Vec<_> = FEATURES.iter().filter(|feature| !ok(feature)).collect();
    assert!(missing.is_empty(), "not with {with}: {missing:?}");
    assert!(!said.contains("FAIL"), "failed with {with}");
    let version = format!("ok connect resp={resp}");
    assert!(said.contains(&version), "not {version:?} with {with}");
}
