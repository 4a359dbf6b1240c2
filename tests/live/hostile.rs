//! Clients and nodes that mean harm, or behave as if they did: what they cost, and whom.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, ClientError, Reply, encode_command};
use switchman::demo::process::wait_for;

use crate::lab::{Lab, SOON, ok, say};
use crate::liar::{Liar, Then};
use crate::proxy::{Launch, Proxy};
use crate::vitals::Vitals;

const MIB: u64 = 1024 * 1024;

/// A Switchman whose clients share one lane to the master.
fn one_lane(lab: &Lab, limits: &str) -> Proxy {
    let mut launch = Launch::group(lab, "consistency = \"master\"\n");
    launch.arg("--workers", "1");
    launch.config(&format!("[limits]\n{limits}\n")).start()
}

/// A connection on which the test says and hears bytes.
fn wire(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn command(args: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(args, &mut bytes);
    bytes
}

/// The number of the first line of the metrics that begins with `name`.
fn metric(proxy: &Proxy, name: &str) -> Option<u64> {
    let (_, body) = proxy.get("/metrics")?;
    let line = body.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn write_timeouts(proxy: &Proxy) -> Option<u64> {
    let name =
        "switchman_rejected_requests_total{master_name=\"mymaster\",reason=\"write_timeout\"}";
    metric(proxy, name)
}

/// A value of so many bytes at the master.
fn large_value(lab: &Lab, key: &str, bytes: u64) {
    let last = (bytes - 1).to_string();
    let len = lab.node(0).command(&["SETRANGE", key, &last, "x"]).unwrap();
    assert_eq!(len.int(), i64::try_from(bytes).ok());
}

/// Bytes until the connection ends, in whichever way.
fn rest(stream: &mut TcpStream) -> u64 {
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return total,
            Ok(count) => total += u64::try_from(count).unwrap(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return total,
            Err(error) => panic!("still open: {error}"),
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_and_holds_nobody_up_for_longer() {
    let lab = Lab::small();
    large_value(&lab, "large", 64 * MIB);
    let proxy = one_lane(
        &lab,
        "client-output-limit = \"1MiB\"\nclient-write-timeout = \"1s\"",
    );
    let mut other = proxy.client();
    let mut deaf = wire(&proxy);
    deaf.write_all(&command(&["GET", "large"])).unwrap();
    let (begun, mut stalled) = (Instant::now(), Duration::ZERO);
    while write_timeouts(&proxy) != Some(1) {
        let asked = Instant::now();
        ok(&mut other, &["SET", "k", "v"]);
        stalled = stalled.max(asked.elapsed());
        assert!(begun.elapsed() < SOON, "the deaf client was never given up");
    }
    println!("another client waited {stalled:?} at most");
    assert!(stalled < Duration::from_secs(3), "waited for {stalled:?}");
    assert!(rest(&mut deaf) < 64 * MIB, "closed in the middle");
    ok(&mut proxy.client(), &["SET", "k", "w"]);
}

#[test]
fn half_requests_cost_next_to_nothing() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    let before = Vitals::of(proxy.pid());
    let halves: [&[u8]; 5] = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nand no more",
        b"*1048576\r\n$4\r\nMGET\r\n",
        b"*",
        b"GE",
        b"*2\r\n$536870912\r\n",
    ];
    let open = |index: usize| {
        let mut stream = wire(&proxy);
        stream.write_all(halves[index % halves.len()]).unwrap();
        stream
    };
    let streams: Vec<TcpStream> = (0..1000).map(open).collect();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    let during = Vitals::of(proxy.pid());
    println!("{before:?}\n{during:?}");
    assert!(during.resident < before.resident + 16 * MIB);

    drop(streams);
    let closed = wait_for(SOON, || {
        (Vitals::of(proxy.pid()).files <= before.files).then_some(())
    });
    assert!(
        closed.is_some(),
        "connections stay: {:?}",
        Vitals::of(proxy.pid())
    );
}

#[test]
fn idle_clients_cost_no_processor_time() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    let mut clients: Vec<Client> = (0..1000).map(|_| proxy.client()).collect();
    for client in &mut clients {
        say(client, &["PING"]);
    }
    let silent = clients.first_mut().unwrap();
    silent.wait_at_most(Duration::from_secs(2)).unwrap();
    let before = Vitals::of(proxy.pid());
    assert!(matches!(silent.receive(), Err(ClientError::Timeout)));
    let busy = Vitals::of(proxy.pid()).busy.saturating_sub(before.busy);
    println!("busy for {busy:?} of 2 s with 1000 idle clients, {before:?}");
    assert!(
        busy < Duration::from_millis(200),
        "busy for {busy:?} of 2 s"
    );
}

#[test]
fn replies_that_nobody_reads_are_bounded_and_not_lost() {
    const REQUESTS: usize = 100_000;
    let lab = Lab::small();
    let value = "v".repeat(1000);
    lab.node(0).command(&["SET", "k", &value]).unwrap();
    // With a limit below what one client may have in flight, the others would wait for it.
    let proxy = one_lane(&lab, "client-output-limit = \"8MiB\"");
    let before = Vitals::of(proxy.pid());
    let stream = wire(&proxy);
    stream.set_write_timeout(Some(6 * SOON)).unwrap();
    let (mut writing, request) = (stream.try_clone().unwrap(), command(&["GET", "k"]));
    let writer = thread::spawn(move || {
        for _ in 0..REQUESTS / 100 {
            writing.write_all(&request.repeat(100)).unwrap();
        }
    });
    let mut other = proxy.client();
    for _ in 0..500 {
        ok(&mut other, &["SET", "other", "v"]);
    }
    let mut reader = std::io::BufReader::new(stream);
    let want = format!("$1000\r\n{value}\r\n").into_bytes();
    let mut reply = vec![0; want.len()];
    for index in 0..REQUESTS {
        reader.read_exact(&mut reply).unwrap();
        assert!(reply == want, "reply {index}");
    }
    writer.join().unwrap();
    let after = Vitals::of(proxy.pid());
    println!("{before:?}\n{after:?}");
    assert!(after.resident_max < before.resident + 32 * MIB);
}

#[test]
fn clients_that_vanish_in_the_middle_of_anything_leave_nothing_behind() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    let before = Vitals::of(proxy.pid());
    let middles = [
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$9\r\nhalf".to_vec(),
        command(&["GET", "k"]).repeat(50),
        [command(&["MULTI"]), command(&["INCR", "vanished"])].concat(),
        [command(&["WATCH", "k"]), command(&["GET", "k"])].concat(),
        command(&["BLPOP", "nothing", "0"]),
        command(&["SUBSCRIBE", "channel"]),
        command(&["MONITOR"]),
        [command(&["HELLO", "3"]), command(&["AUTH", "no", "body"])].concat(),
    ];
    let vanish = |round: usize| {
        for (index, middle) in middles.iter().enumerate() {
            let mut stream = wire(&proxy);
            stream.write_all(middle).unwrap();
            if (round + index).is_multiple_of(2) {
                // Some wait for a sign of life first; not all are given one.
                stream
                    .set_read_timeout(Some(Duration::from_millis(2)))
                    .unwrap();
                let _ = stream.read(&mut [0; 8]);
            }
            if round.is_multiple_of(2) {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(linger).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            let vanish = &vanish;
            scope.spawn(move || (0..60).for_each(|round| vanish(round + thread)));
        }
    });
    let gone = wait_for(SOON, || {
        let master = |field: &str| lab.node(0).info("clients", field);
        let clients = metric(&proxy, "switchman_client_connections{");
        (clients == Some(0) && master("blocked_clients")? == "0").then_some(())
    });
    let after = Vitals::of(proxy.pid());
    println!("{before:?}\n{after:?}");
    assert!(gone.is_some(), "clients or blocked commands stay");
    assert!(after.files < before.files + 200, "pooled links at most");
    assert!(after.resident < before.resident + 16 * MIB);
    assert_eq!(
        lab.node(0).command(&["GET", "vanished"]).unwrap(),
        Reply::Null
    );
}

#[test]
fn a_client_that_has_said_its_last_word_hears_every_reply() {
    let lab = Lab::small();
    let proxy = one_lane(&lab, "");
    proxy.wait_ready();
    let mut stream = wire(&proxy);
    let words = [command(&["INCR", "k"]).repeat(500), command(&["GET", "k"])].concat();
    stream.write_all(&words).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    let mut replies: Vec<String> = (1..=500).map(|n| format!(":{n}")).collect();
    replies.extend(["$3", "500", ""].map(str::to_owned));
    assert_eq!(heard, replies.join("\r\n"));
}

#[test]
fn who_gets_no_connection_of_his_own_is_told_so_and_others_go_on() {
    let lab = Lab::small();
    let mut launch = Launch::group(&lab, "");
    launch.arg("--workers", "1");
    let proxy = launch.config("[upstream]\nmax-leased = 8\n").start();
    let mut blocked: Vec<Client> = (0..8).map(|_| proxy.client()).collect();
    for client in &mut blocked {
        client.send(&["BLPOP", "list", "0"]).unwrap();
    }
    let waiting = wait_for(SOON, || {
        (lab.node(0).info("clients", "blocked_clients")? == "8").then_some(())
    });
    assert!(waiting.is_some(), "they do not block");
    let mut ninth = proxy.client();
    for args in [&["BLPOP", "list", "0"][..], &["MULTI"], &["SUBSCRIBE", "c"]] {
        let reply = say(&mut ninth, args);
        let line = reply.error().unwrap_or_default();
        assert!(
            line.starts_with("ERR switchman: all 8 connections"),
            "{reply:?}"
        );
    }
    ok(&mut ninth, &["SET", "k", "v"]);
    drop(blocked);
    let freed = wait_for(SOON, || {
        let reply = say(&mut ninth, &["MULTI"]);
        (reply == Reply::ok()).then_some(())
    });
    assert!(
        freed.is_some(),
        "connections of clients that left are not given back"
    );
}

/// A Switchman before a liar instead of a Redis.
fn before_liar(lab: &Lab, liar: &Liar) -> Proxy {
    let config = format!(
        "workers = 1\n[[group]]\nmaster-name = \"mymaster\"\nlisten = [\"127.0.0.1:0\"]\n\
         master = \"{}\"\n",
        liar.addr()
    );
    let proxy = Launch::with_config(lab, &config).start();
    proxy.wait_ready();
    proxy
}

#[test]
fn a_reply_that_nobody_asked_for_reaches_nobody() {
    let lab = Lab::small();
    let liar = Liar::start(|args, _| {
        let key = args.last().unwrap();
        let reply = format!("${}\r\n{key}\r\n", key.len());
        (reply.repeat(2).into_bytes(), Then::Stay)
    });
    let proxy = before_liar(&lab, &liar);
    let (mut one, mut two) = (proxy.client(), proxy.client());
    for round in 0..200 {
        for (client, name) in [(&mut one, "one"), (&mut two, "two")] {
            let key = format!("{name}:{round}");
            assert_eq!(say(client, &["GET", &key]), Reply::bulk(&key));
        }
    }
}

#[test]
fn a_read_of_which_half_a_reply_came_is_asked_again_and_a_write_is_not() {
    let lab = Lab::small();
    let liar = Liar::start(|_, heard| {
        if heard % 2 == 0 {
            (b"$5\r\nhal".to_vec(), Then::Close)
        } else {
            (b"$5\r\nwhole\r\n".to_vec(), Then::Stay)
        }
    });
    let proxy = before_liar(&lab, &liar);
    let mut client = proxy.client();
    assert_eq!(say(&mut client, &["GET", "k"]), Reply::bulk("whole"));
    assert_eq!(liar.heard(), 2);
    let reply = say(&mut client, &["INCR", "k"]);
    assert!(
        reply.error().unwrap_or_default().starts_with("UNCERTAIN "),
        "{reply:?}"
    );
    assert_eq!(liar.heard(), 3);
}
