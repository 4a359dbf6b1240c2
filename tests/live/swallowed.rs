//! What Sentinel says to a node whose role it changes ends with CLIENT KILL, which throws away the
//! replies of commands that were executed a moment before. The end of a connection says nothing of
//! whether a command was executed.

use std::time::Duration;

use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::process::wait_for;

use crate::hostile::metric;
use crate::lab::{Lab, SOON, ok, say};
use crate::proxy::Launch;
use crate::routing::calls;
use crate::version::debug_lines;

const CLIENTS: usize = 5;

#[test]
fn writes_whose_replies_sentinel_swallows_are_in_doubt_and_never_sent_again() {
    let mut plan = Lab::small_plan();
    plan.node_config.extend(debug_lines());
    let lab = Lab::start(&plan);
    let proxy = Launch::group(&lab, "consistency = \"master\"\n").start();
    proxy.wait_ready();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| proxy.client()).collect();
    for (client, count) in clients.iter_mut().zip(1..) {
        assert_eq!(say(client, &["INCR", "count"]), Reply::Int(count));
    }
    let ids: Vec<Reply> = clients
        .iter_mut()
        .map(|it| say(it, &["CLIENT", "ID"]))
        .collect();

    let mut sentinel = promise(&lab);
    let mut sleeper = fall_asleep(&lab);
    for client in &mut clients {
        client.send(&["INCR", "count"]).unwrap();
    }
    let name = format!(
        "switchman_upstream_in_flight_requests{{master_name=\"mymaster\",node=\"{}\"}}",
        lab.node(0).addr()
    );
    let sent = wait_for(SOON, || (metric(&proxy, &name)? == 5).then_some(()));
    assert!(sent.is_some(), "the five lie in the master's sockets");
    // Behind them, and read in the same breath: their replies are written after that.
    sentinel.send(&["EXEC"]).unwrap();
    assert_eq!(sleeper.receive().unwrap(), Reply::ok());
    let done = sentinel.receive().unwrap();
    let killed = done.items()[2].int().unwrap();
    assert!(killed >= 1, "{done:?}");

    for client in &mut clients {
        let reply = client.receive().unwrap();
        let line = reply.error().unwrap_or_default();
        assert!(line.starts_with("UNCERTAIN "), "{reply:?}");
    }
    let count = lab.node(0).command(&["GET", "count"]).unwrap();
    assert_eq!(count, Reply::bulk("10"), "all five were executed, and once");
    for ((client, id), count) in clients.iter_mut().zip(ids).zip(11..) {
        assert_eq!(say(client, &["INCR", "count"]), Reply::Int(count));
        assert_eq!(say(client, &["CLIENT", "ID"]), id, "the same connection");
    }
    assert_eq!(calls(lab.node(0), "incr"), 15, "none was sent again");
}

/// A connection on which everything is said but EXEC that Sentinel says to a node when it promotes
/// it; the one of these tests is a master as before.
fn promise(lab: &Lab) -> Client {
    let mut sentinel = lab.node(0).connect().unwrap();
    ok(&mut sentinel, &["MULTI"]);
    for line in [
        "SLAVEOF NO ONE",
        "CONFIG REWRITE",
        "CLIENT KILL TYPE normal",
        "CLIENT KILL TYPE pubsub",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let queued = Reply::Simple("QUEUED".to_owned());
        assert_eq!(say(&mut sentinel, &words), queued);
    }
    sentinel
}

/// Makes the master deaf for two seconds. Returns the connection that will be told of the end.
fn fall_asleep(lab: &Lab) -> Client {
    let [mut sleeper, mut other] = [(); 2].map(|()| lab.node(0).connect().unwrap());
    sleeper.send(&["DEBUG", "SLEEP", "2"]).unwrap();
    other.wait_at_most(Duration::from_millis(50)).unwrap();
    let answer = other.command(&["PING"]);
    assert!(matches!(answer, Err(ClientError::Timeout)), "{answer:?}");
    sleeper
}
