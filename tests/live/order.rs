//! Every client gets its own replies, in the order of its requests.

use std::thread;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchman::demo::client::{Client, Reply, encode_command};
use switchman::demo::deployment::Plan;

use crate::lab::{Door, Lab, SOON, ok};
use crate::proxy::Launch;

const CLIENTS: usize = 1_000;
const THREADS: usize = 4;
/// Commands of one pipeline: whole turns of a conversation, 100 and a few.
const DEPTH: usize = 17 * STEPS;
const STEPS: usize = 6;
const ROUNDS: usize = 2;

#[test]
fn a_thousand_pipelining_clients_get_their_own_replies_in_order() {
    allow_open_files(4 * u64::try_from(CLIENTS).unwrap());
    let lab = Lab::start(&Plan {
        replicas: 2,
        ..Lab::small_plan()
    });
    lab.both_through(&Launch::before(&lab), |door| {
        prepare(door);
        lab.wait_in_sync(lab.node(0), 2, SOON).unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || converse(door, thread));
            }
        });
    });
}

#[test]
fn a_request_in_single_bytes_is_understood() {
    let lab = Lab::small();
    lab.both(|door| {
        let mut client = door.client();
        for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n" {
            client.send_raw(&[*byte]).unwrap();
        }
        assert_eq!(client.receive().unwrap(), Reply::ok());
        assert_eq!(client.receive().unwrap(), Reply::bulk("\r\n"));
    });
}

/// A value per client that nobody writes any more: reads of it may go to a replica at any time.
fn prepare(door: &Door) {
    let mut client = door.client();
    for id in 0..CLIENTS {
        ok(
            &mut client,
            &["SET", &format!("fixed:{id}"), &format!("fixed of {id}")],
        );
    }
}

/// Keeps the clients of one thread busy at the same time: all send, then all receive.
fn converse(door: &Door, thread: usize) {
    let ids: Vec<usize> = (0..CLIENTS).filter(|id| id % THREADS == thread).collect();
    let mut clients: Vec<Client> = ids.iter().map(|_| door.client()).collect();
    for client in &mut clients {
        client.wait_at_most(6 * SOON).unwrap();
    }
    for round in 0..ROUNDS {
        for (id, client) in ids.iter().zip(&mut clients) {
            let requests: Vec<u8> = (0..DEPTH)
                .flat_map(|step| request(*id, round, step))
                .collect();
            client.send_raw(&requests).unwrap();
        }
        for (id, client) in ids.iter().zip(&mut clients) {
            for step in 0..DEPTH {
                let (reply, want) = (client.receive().unwrap(), answer(*id, round, step));
                assert_eq!(
                    reply, want,
                    "{}: client {id} round {round} step {step}",
                    door.name
                );
            }
        }
    }
}

/// Step `step` of a client's conversation: a write, a settled read, a marker, a counter, the
/// write's echo from the master (GETEX is a write), several settled reads.
fn request(id: usize, round: usize, step: usize) -> Vec<u8> {
    let (own, value) = (
        format!("own:{id}:{}", step / STEPS),
        format!("{id} {round} {step}"),
    );
    let (counter, fixed) = (format!("counter:{id}"), format!("fixed:{id}"));
    let other = format!("fixed:{}", (id + step) % CLIENTS);
    let args: &[&str] = match step % STEPS {
        0 => &["SET", &own, &value],
        1 => &["GET", &other],
        2 => &["ECHO", &value],
        3 => &["INCR", &counter],
        4 => &["GETEX", &own],
        _ => &["MGET", &fixed, "never written"],
    };
    let mut bytes = Vec::new();
    encode_command(args, &mut bytes);
    bytes
}

fn answer(id: usize, round: usize, step: usize) -> Reply {
    match step % STEPS {
        0 => Reply::ok(),
        1 => Reply::bulk(&format!("fixed of {}", (id + step) % CLIENTS)),
        2 => Reply::bulk(&format!("{id} {round} {step}")),
        3 => Reply::Int(i64::try_from(round * DEPTH / STEPS + step / STEPS + 1).unwrap()),
        4 => Reply::bulk(&format!("{id} {round} {}", step - 4)),
        _ => Reply::Array(vec![Reply::bulk(&format!("fixed of {id}")), Reply::Null]),
    }
}

/// Each client is a socket here, and one or two in Switchman, which inherits the limit.
pub(crate) fn allow_open_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        let raised = Rlimit {
            current: Some(files),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, raised).unwrap();
    }
}
