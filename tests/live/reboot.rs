//! A master that restarts before Sentinel gives it up: with its data, which takes time to load, or
//! without.

use std::fs::OpenOptions;
use std::io::Write;

use switchman::demo::client::{Client, Reply};
use switchman::demo::process::Process;

use crate::lab::{Lab, SOON, ok, say};
use crate::lab::{save, tell};
use crate::proxy::{Launch, Proxy};
use crate::version::lacks;

/// Keys that a master loads.
const KEYS: &str = "2000";

/// Time that a master takes for each of them, in microseconds; four seconds in all.
const DELAY_US: u32 = 2_000;

/// What a client does meanwhile, and hears.
type Conversation = (&'static [&'static [&'static str]], Vec<Reply>);

#[test]
fn clients_wait_for_a_master_that_loads_its_data() {
    if lacks("way to be asked often while they load") {
        return;
    }
    let lab = Lab::small();
    let proxy = reading_from_the_master(&lab);
    let master = lab.node(0);
    let fill = "for i = 1, tonumber(ARGV[1]) do redis.call('set', 'key:' .. i, 'v') end";
    tell(master, &["EVAL", fill, "0", KEYS]);
    tell(master, &["RPUSH", "list", "x"]);
    save(master);
    load_slowly(master);
    let exchanges: [Conversation; 5] = [
        (&[&["INCR", "n"]], vec![Reply::Int(1)]),
        (&[&["GET", "key:1"]], vec![Reply::bulk("v")]),
        (&[&["EVAL", "return 1", "0"]], vec![Reply::Int(1)]),
        (
            &[&["BLPOP", "list", "60"]],
            vec![Reply::Array(vec![Reply::bulk("list"), Reply::bulk("x")])],
        ),
        (
            &[&["MULTI"], &["INCR", "m"], &["EXEC"]],
            vec![
                Reply::ok(),
                Reply::Simple("QUEUED".to_owned()),
                Reply::Array(vec![Reply::Int(1)]),
            ],
        ),
    ];
    let mut clients: Vec<Client> = exchanges
        .iter()
        .map(|_| proxy.patient_client(4 * SOON))
        .collect();
    master.restart().unwrap();
    for (client, (lines, _)) in clients.iter_mut().zip(&exchanges) {
        for line in *lines {
            client.send(line).unwrap();
        }
    }
    let loading = master.info("persistence", "loading");
    assert_eq!(loading.as_deref(), Some("1"), "it has loaded already");
    for (client, (lines, want)) in clients.iter_mut().zip(&exchanges) {
        let heard: Vec<Reply> = lines.iter().map(|_| client.receive().unwrap()).collect();
        assert_eq!(heard, *want, "{lines:?}");
    }
    expect_no_switch(&lab, &proxy);
}

#[test]
fn a_master_that_comes_back_empty_is_told_of() {
    let lab = Lab::small();
    let proxy = reading_from_the_master(&lab);
    let mut client = proxy.patient_client(4 * SOON);
    ok(&mut client, &["SET", "k", "v"]);
    lab.node(0).restart().unwrap();
    assert_eq!(say(&mut client, &["GET", "k"]), Reply::Null);
    ok(&mut client, &["SET", "k", "w"]);
    expect_no_switch(&lab, &proxy);
}

fn reading_from_the_master(lab: &Lab) -> Proxy {
    let mut launch = Launch::before(lab);
    launch.env("SWITCHMAN_CONSISTENCY", "master");
    let proxy = launch.start();
    proxy.wait_ready();
    proxy
}

/// The master is the same as before, and the log says what it may have lost.
fn expect_no_switch(lab: &Lab, proxy: &Proxy) {
    let addr = lab.node(0).addr().to_string();
    proxy.log().wait(
        "master was restarted; what it had not saved is gone",
        |event| (event["master"] == addr.as_str()).then_some(()),
    );
    assert!(!proxy.log().text().contains("master switched"));
    assert_eq!(lab.master().map(Process::addr), Some(lab.node(0).addr()));
}

/// From its next start on the node takes its time over each key, and answers meanwhile.
fn load_slowly(node: &Process) {
    let path = node.dir().join("redis.conf");
    let mut config = OpenOptions::new().append(true).open(path).unwrap();
    let lines = format!("key-load-delay {DELAY_US}\nloading-process-events-interval-bytes 1024\n");
    config.write_all(lines.as_bytes()).unwrap();
}
