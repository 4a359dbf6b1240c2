//! Many subscribers of one channel: one subscription at the master for each worker, and every
//! message to everybody, once and in order, behind a failover too.
//!
//! `SWITCHMAN_SUBSCRIBERS` and `SWITCHMAN_MESSAGES` say how many.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use switchman::demo::client::{Client, Reply, encode_command};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::tell;
use crate::lab::{Lab, SOON, say};
use crate::order::allow_open_files;
use crate::proxy::{Launch, Proxy};

/// Messages that are published before they are looked for.
const BATCH: usize = 10;

/// Workers of Switchman here.
const WORKERS: i64 = 2;

/// Time for all subscribers to hear something.
const HEARD: Duration = Duration::from_secs(60);

pub(crate) fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn many_subscribers_share_one_subscription_and_miss_nothing() {
    let count = number("SWITCHMAN_SUBSCRIBERS", 1_000);
    let messages = number("SWITCHMAN_MESSAGES", 100);
    allow_open_files(u64::try_from(count).unwrap() + 1_000);
    let lab = Lab::alone(&Plan::default());
    let proxy = Launch::before(&lab).start();
    proxy.wait_ready();
    let mut all: Vec<TcpStream> = (0..count).map(|_| subscriber(&proxy)).collect();
    for stream in &mut all {
        expect(stream, "*3|$9|subscribe|$4|news|:1|");
    }
    let mut publisher = proxy.patient_client(HEARD);
    check_counts(&lab, lab.node(0), &mut publisher, count);
    for batch in 0..messages.div_ceil(BATCH) {
        let texts: Vec<String> = (0..BATCH).map(|at| format!("{batch} {at}")).collect();
        publish(&mut publisher, &mut all, &texts);
    }

    lab.failover().unwrap();
    let master = lab.wait_for_switch(lab.node(0), SOON * 4).unwrap();
    proxy.wait_switched(master);
    let again = wait_for(HEARD, || {
        let told = say(&mut publisher, &["PUBSUB", "NUMSUB", "news"]);
        (told.items().get(1)?.int()? == i64::try_from(count).ok()?).then_some(())
    });
    assert!(again.is_some(), "not subscribed at the new master");
    publish(&mut publisher, &mut all, &["behind it".to_owned()]);

    drop(all);
    let none = wait_for(HEARD, || (at_master(master)? == 0).then_some(()));
    assert!(none.is_some(), "a subscription is left behind");
    let last = say(&mut publisher, &["PUBLISH", "news", "nobody hears it"]);
    assert_eq!(last, Reply::Int(0));
}

/// One that has asked for its subscription.
fn subscriber(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(HEARD)).unwrap();
    let mut request = Vec::new();
    encode_command(&["SUBSCRIBE", "news"], &mut request);
    stream.write_all(&request).unwrap();
    stream
}

/// What comes next is this; `|` stands for a line end.
fn expect(stream: &mut TcpStream, text: &str) {
    let want = text.replace('|', "\r\n");
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(
        got.escape_ascii().to_string(),
        want.as_bytes().escape_ascii().to_string()
    );
}

/// Connections that hear the channel at the master.
fn at_master(master: &Process) -> Option<i64> {
    let reply = tell(master, &["PUBSUB", "NUMSUB", "news"]);
    reply.items().get(1)?.int()
}

fn check_counts(lab: &Lab, master: &Process, through: &mut Client, clients: usize) {
    let at_master = at_master(master).unwrap();
    assert!(
        (1..=WORKERS).contains(&at_master),
        "{at_master} connections"
    );
    let clients = i64::try_from(clients).unwrap();
    let told = say(through, &["PUBSUB", "NUMSUB", "news"]);
    assert_eq!(told.items().get(1), Some(&Reply::Int(clients)));
    let list = tell(lab.node(0), &["CLIENT", "LIST", "TYPE", "pubsub"]);
    let switchman = list.text().unwrap_or_default();
    let own = switchman
        .lines()
        .filter(|line| !line.contains(" name=sentinel-"));
    assert_eq!(i64::try_from(own.count()).unwrap(), at_master);
}

/// Publishes, and expects that everybody is told, and that the publisher hears how many.
fn publish(publisher: &mut Client, all: &mut [TcpStream], texts: &[String]) {
    let count = Reply::Int(i64::try_from(all.len()).unwrap());
    let mut want = String::new();
    for text in texts {
        assert_eq!(say(publisher, &["PUBLISH", "news", text]), count);
        let _ = write!(want, "*3|$7|message|$4|news|${}|{text}|", text.len());
    }
    for stream in all {
        expect(stream, &want);
    }
}
