//! A node that is known by a name whose address changes, as that of a pod does.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use switchman::demo::client::Reply;
use switchman::demo::deployment::Plan;

use crate::faults::monitor;
use crate::lab::tell;
use crate::lab::{Lab, SOON};
use crate::matrix::figures::took;
use crate::matrix::master::{patient_launch, unhurried};
use crate::matrix::scene::{PATIENT, Scene};

/// Runs a program with names of its own; see there.
const WRAPPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/live/matrix/named.sh");

const NAME: &str = "master.switchman.test";
const BEFORE: &str = "127.0.0.10";
const AFTER: &str = "127.0.0.11";

#[test]
fn a_master_whose_name_gets_another_address_is_found_there() {
    if !may_mount() {
        println!("skipped: unshare --map-root-user --mount is not permitted here");
        return;
    }
    let (lab, plan) = start();
    name(&lab, BEFORE);
    let (master, replica) = (lab.node(0), lab.node(1));
    tell(replica, &["REPLICAOF", NAME, &master.port().to_string()]);
    lab.wait_for_replica(replica, master, SOON).unwrap();
    monitor(&lab, (NAME, master.port()), &plan);

    let mut launch = patient_launch(&lab);
    launch.through(Path::new(WRAPPER));
    let proxy = launch.start();
    let scene = Scene::new(&lab, &proxy).patient(PATIENT);
    let (story, ()) = scene.play(|| {
        master.kill().unwrap();
        name(&lab, AFTER);
        let path = master.dir().join("redis.conf");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(&path, config.replace(BEFORE, AFTER)).unwrap();
        master.restart().unwrap();
    });
    // It appends to its file before it answers; with appendfsync everysec it would put that off for
    // a flush that takes long (Redis aof.c, flushAppendOnlyFile).
    let figures = story.judge("name of the master gets another address", master, &[]);
    figures.expect_doubts(1);
    took("stall", figures.longest_silence);
    let port = master.port();
    assert!(TcpStream::connect((BEFORE, port)).is_err(), "it has moved");
    let (_, status) = proxy.get("/api/v1/status").unwrap();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["groups"][0]["master"], format!("{NAME}:{port}"));
    let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", lab.master_name()];
    let named = tell(lab.sentinel(0), &asked);
    assert_eq!(named.items()[0], Reply::bulk(NAME));
    lab.wait_in_sync(master, 1, 2 * SOON).unwrap();
}

/// A deployment in which everybody knows everybody by name.
fn start() -> (Lab, Plan) {
    let names = ["resolve-hostnames", "announce-hostnames"].map(|it| format!("sentinel {it} yes"));
    let plan = Plan {
        redis_server: WRAPPER.into(),
        node_config: vec![
            "appendonly yes".to_owned(),
            "appendfsync no".to_owned(),
            format!("bind 127.0.0.1 {BEFORE}"),
            // Others would look for it at its source address.
            "replica-announce-ip 127.0.0.1".to_owned(),
            // Redis takes 127.0.0.1 alone for its own machine.
            "protected-mode no".to_owned(),
        ],
        sentinel_config: [&names[..], &["sentinel announce-ip 127.0.0.1".to_owned()]].concat(),
        ..unhurried()
    };
    (Lab::start(&plan), plan)
}

/// From now on the master's name has this address.
fn name(lab: &Lab, address: &str) {
    fs::write(
        lab.dir().join("hosts"),
        format!("127.0.0.1 localhost\n{address} {NAME}\n"),
    )
    .unwrap();
}

/// Whether this machine lets us give programs an /etc/hosts of their own.
fn may_mount() -> bool {
    let script = "mount --bind /etc/hosts /etc/hosts";
    let tried = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .output();
    tried.is_ok_and(|output| output.status.success())
}
