//! Clients and nodes that mean harm, or behave as if they did: what they cost, and whom.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
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
pub(crate) fn metric(proxy: &Proxy, name: &str) -> Option<u64> {
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
        // Connections to nodes may have been opened meanwhile.
        (Vitals::of(proxy.pid()).files + 990 <= during.files).then_some(())
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

/// What one client of a counter was told.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    done: i64,
    uncertain: i64,
    last: i64,
}

impl Told {
    /// Takes the reply to `INCR`.
    fn take(&mut self, reply: &Reply) {
        match reply {
            Reply::Int(now) => {
                assert!(*now > self.last, "{now} after {}", self.last);
                (self.done, self.last) = (self.done + 1, *now);
            }
            Reply::Error(line) if line.starts_with("UNCERTAIN ") => self.uncertain += 1,
            other => panic!("{other:?}"),
        }
    }
}

/// Counts until told to stop, many requests at once, transactions among them.
fn count(proxy: &Proxy, key: &str, stop: &AtomicBool) -> Told {
    let (mut client, mut told) = (proxy.client(), Told::default());
    let (single, echo) = (vec!["INCR", key], vec!["ECHO", key]);
    while !stop.load(Ordering::Relaxed) {
        let mut lines: Vec<Vec<&str>> = Vec::new();
        for _ in 0..20 {
            lines.extend([single.clone(), echo.clone()]);
        }
        lines.extend([
            vec!["MULTI"],
            single.clone(),
            vec!["GET", key],
            vec!["EXEC"],
        ]);
        let replies = client.pipeline(&lines).unwrap();
        let (pairs, transaction) = replies.split_at(40);
        for pair in pairs.chunks_exact(2) {
            told.take(&pair[0]);
            assert_eq!(pair[1], Reply::bulk(key));
        }
        match &transaction[3] {
            Reply::Array(both) => {
                told.take(&both[0]);
                assert_eq!(both[1].text(), Some(told.last.to_string()));
            }
            other
                if other
                    .error()
                    .is_some_and(|line| line.starts_with("EXECABORT ")) => {}
            other => told.take(other),
        }
    }
    told
}

#[test]
fn of_writes_whose_connection_is_killed_exactly_those_in_flight_are_uncertain() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let counters: Vec<_> = (0..4)
            .map(|index| {
                let (proxy, stop) = (&proxy, &stop);
                scope.spawn(move || count(proxy, &format!("counter:{index}"), stop))
            })
            .collect();
        let (begun, mut kills) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(4) {
            let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
            let killed = lab.node(0).command(&kill).unwrap();
            kills += killed.int().unwrap();
            // The time that a connection needs to be opened again, and used.
            let opened = wait_for(SOON, || {
                let list = lab.node(0).command(&["CLIENT", "LIST"]).unwrap().text()?;
                (list.matches("name=switchman").count() >= 2).then_some(())
            });
            assert!(opened.is_some(), "no connection to the master any more");
        }
        stop.store(true, Ordering::Relaxed);
        for (index, counter) in counters.into_iter().enumerate() {
            let told = counter.join().unwrap();
            let key = format!("counter:{index}");
            let counted = lab.node(0).command(&["GET", &key]).unwrap().text();
            let counted: i64 = counted.unwrap().parse().unwrap();
            println!("{kills} kills, {told:?}, counted {counted}");
            assert!(told.done > 0 && told.done <= counted);
            assert!(counted <= told.done + told.uncertain);
        }
    });
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
    for args in [&["BLPOP", "list", "0"][..], &["MULTI"], &["WATCH", "k"]] {
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
pub(crate) fn before_liar(lab: &Lab, liar: &Liar) -> Proxy {
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
fn a_connection_that_opens_after_another_was_refused_ends_the_wait_for_the_node() {
    let lab = Lab::small();
    let refused = Arc::new((Mutex::new(false), Condvar::new()));
    let seen = Arc::clone(&refused);
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    // The connection for BLPOP is made to wait until the one for RESP3, asked for after it, has
    // been refused.
    let shake_hands = move |args: &[String]| {
        let (done, changed) = &*seen;
        if !is_armed.load(Ordering::SeqCst) || args[0] != "HELLO" {
            return Then::Stay;
        }
        let mut done = done.lock().unwrap();
        if args[1] == "3" && !*done {
            *done = true;
            changed.notify_all();
            return Then::Close;
        }
        while !*done {
            done = changed.wait(done).unwrap();
        }
        Then::Stay
    };
    let liar = Liar::who_greets(shake_hands, |_, _| (b"+OK\r\n".to_vec(), Then::Stay));
    let proxy = before_liar(&lab, &liar);
    let (mut one, mut two) = (proxy.client(), proxy.client());
    ok(&mut one, &["SET", "k", "v"]);
    armed.store(true, Ordering::SeqCst);
    one.send(&["BLPOP", "list", "0"]).unwrap();
    two.send(&["HELLO", "3"]).unwrap();
    ok(&mut one_more(&proxy, &refused), &["SET", "k", "v"]);
    assert_eq!(one.receive().unwrap(), Reply::ok());
}

/// A client that comes once the connection for RESP3 has been refused.
fn one_more(proxy: &Proxy, refused: &(Mutex<bool>, Condvar)) -> Client {
    let (done, changed) = refused;
    let done = done.lock().unwrap();
    let waited = changed
        .wait_timeout_while(done, SOON, |done| !*done)
        .unwrap();
    assert!(!waited.1.timed_out(), "nobody asked for RESP3");
    proxy.client()
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

#[test]
fn a_database_selected_in_a_transaction_stays_with_its_client() {
    let lab = Lab::small();
    let proxy = one_lane(&lab, "");
    let mut one = proxy.client();
    let lines = [
        "MULTI", "SELECT 1", "EXEC", "MULTI", "SET a 1", "EXEC", "SET b 1",
    ];
    let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    one.pipeline(&lines).unwrap();
    let mut two = proxy.client();
    let lines = [vec!["MULTI"], vec!["SET", "c", "1"], vec!["EXEC"]];
    two.pipeline(&lines).unwrap();

    let mut master = lab.node(0).connect().unwrap();
    assert_eq!(
        say(&mut master, &["EXISTS", "a", "b", "c"]),
        Reply::Int(1),
        "c in 0"
    );
    ok(&mut master, &["SELECT", "1"]);
    assert_eq!(
        say(&mut master, &["EXISTS", "a", "b"]),
        Reply::Int(2),
        "a and b in 1"
    );
}

#[test]
fn a_select_that_fails_in_a_transaction_selects_nothing() {
    Lab::small().both(|door| {
        let mut client = door.client();
        for lines in [["SELECT", "99"], ["SELECT", "x"], ["SELECT", "-1"]] {
            ok(&mut client, &["SELECT", "2"]);
            ok(&mut client, &["MULTI"]);
            say(&mut client, &lines);
            say(&mut client, &["EXEC"]);
            ok(&mut client, &["SET", "k", "v"]);
        }
        ok(&mut client, &["SELECT", "2"]);
        assert_eq!(say(&mut client, &["DEL", "k"]), Reply::Int(1));
    });
}

#[test]
fn a_setting_changes_after_the_last_unsubscribe_in_the_same_breath() {
    Lab::small().both(|door| {
        let mut client = door.client();
        say(&mut client, &["HELLO", "3"]);
        let lines = [
            "SUBSCRIBE c d",
            "UNSUBSCRIBE",
            "MULTI",
            "DISCARD",
            "SELECT 1",
            "ECHO end",
        ];
        let mut words = Vec::new();
        for line in lines {
            words.extend(command(&line.split(' ').collect::<Vec<_>>()));
        }
        client.send_raw(&words).unwrap();
        let replies: Vec<Reply> = (0..8).map(|_| client.receive().unwrap()).collect();
        assert_eq!(
            replies[4..],
            [Reply::ok(), Reply::ok(), Reply::ok(), Reply::bulk("end")]
        );
    });
}

/// A reader that is always a little behind: it looks at the metrics after each piece.
fn read_slowly(proxy: &Proxy, stream: &mut TcpStream, piece: usize) -> usize {
    let (mut buffer, mut got) = (vec![0; piece], 0);
    while got < piece {
        match stream.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    write_timeouts(proxy);
    got
}

#[test]
fn a_large_reply_to_a_slow_reader_takes_no_more_memory_than_its_limit() {
    let lab = Lab::small();
    large_value(&lab, "large", 256 * MIB);
    let proxy = one_lane(&lab, "");
    let before = Vitals::of(proxy.pid());
    let mut slow = wire(&proxy);
    socket2::SockRef::from(&slow)
        .set_recv_buffer_size(64 * 1024)
        .unwrap();
    slow.write_all(&command(&["GET", "large"])).unwrap();
    for _ in 0..256 {
        assert_eq!(read_slowly(&proxy, &mut slow, 1 << 20), 1 << 20);
        let now = Vitals::of(proxy.pid());
        assert!(
            now.resident < before.resident + 48 * MIB,
            "{before:?} {now:?}"
        );
    }
}

#[test]
fn reads_of_a_frozen_replica_are_asked_again_elsewhere() {
    let lab = Lab::small();
    let proxy = lab.proxy();
    ok(&mut proxy.client(), &["SET", "k", "v"]);
    lab.wait_in_sync(lab.node(0), 1, SOON).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let (mut client, mut slowest) = (proxy.client(), Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let reply = client.command(&["GET", "k"]);
                        assert_eq!(reply.unwrap(), Reply::bulk("v"));
                        slowest = slowest.max(asked.elapsed());
                    }
                    slowest
                })
            })
            .collect();
        let used = wait_for(SOON, || {
            (crate::routing::calls(lab.node(1), "get") > 100).then_some(())
        });
        lab.node(1).freeze().unwrap();
        let left = wait_for(SOON, || {
            let before = crate::routing::calls(lab.node(0), "get");
            let (_, status) = proxy.get("/api/v1/status")?;
            (before > 0 && status.contains("does not answer")).then_some(())
        });
        let answered = wait_for(SOON, || {
            let name = format!(
                "switchman_upstream_in_flight_requests{{master_name=\"mymaster\",node=\"{}\"}}",
                lab.node(1).addr()
            );
            metric(&proxy, &name).filter(|count| *count == 0)
        });
        stop.store(true, Ordering::Relaxed);
        let slowest: Vec<_> = readers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        lab.node(1).thaw().unwrap();
        println!("slowest reads {slowest:?}");
        assert!(used.is_some() && left.is_some(), "{used:?} {left:?}");
        assert!(
            answered.is_some() && slowest.iter().all(Result::is_ok),
            "{slowest:?}"
        );
    });
}

#[test]
fn a_read_that_breaks_every_connection_is_not_asked_for_ever() {
    let lab = Lab::small();
    let liar = Liar::start(|_, _| (b"nonsense\r\n".to_vec(), Then::Stay));
    let proxy = before_liar(&lab, &liar);
    let reply = say(&mut proxy.client(), &["GET", "k"]);
    assert!(reply.error().is_some(), "{reply:?}");
    assert!(liar.heard() <= 10, "asked {} times", liar.heard());
}

#[test]
fn requests_that_still_wait_when_a_client_has_said_its_last_word_are_executed() {
    let lab = Lab::small();
    let proxy = one_lane(&lab, "");
    proxy.wait_ready();
    let mut stream = wire(&proxy);
    let transaction = [["MULTI"].as_slice(), &["INCR", "k"], &["EXEC"]];
    let mut words = command(&["INCR", "k"]).repeat(3000);
    words.extend(transaction.iter().flat_map(|line| command(line)));
    words.extend(command(&["GET", "k"]));
    stream.write_all(&words).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).unwrap();
    let replies = heard.matches("\r\n").count();
    assert!(heard.ends_with("$4\r\n3001\r\n"), "{replies} lines only");
}

#[test]
fn a_reader_that_takes_a_little_now_and_then_holds_nobody_up_for_longer() {
    let lab = Lab::small();
    large_value(&lab, "large", 256 * MIB);
    let proxy = one_lane(
        &lab,
        "client-output-limit = \"1MiB\"\nclient-write-timeout = \"1s\"",
    );
    let (stop, slowest) = (AtomicBool::new(false), Duration::from_secs(4));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            let (mut client, mut stalled) = (proxy.patient_client(4 * SOON), Duration::ZERO);
            while !stop.load(Ordering::Relaxed) && stalled < slowest {
                let asked = Instant::now();
                ok(&mut client, &["SET", "k", "v"]);
                stalled = stalled.max(asked.elapsed());
            }
            stop.store(true, Ordering::Relaxed);
            stalled
        });
        let mut slow = wire(&proxy);
        slow.write_all(&command(&["GET", "large"])).unwrap();
        let mut taken = 0;
        while !stop.load(Ordering::Relaxed) && taken < 250 * 1024 * 1024 {
            match read_slowly(&proxy, &mut slow, 64 * 1024) {
                0 => break,
                more => taken += more,
            }
        }
        drop(slow);
        stop.store(true, Ordering::Relaxed);
        let stalled = other.join().unwrap();
        println!("another client waited {stalled:?} at most");
        assert!(stalled < slowest, "another client waited {stalled:?}");
    });
}

#[test]
fn a_client_that_leaves_behind_more_than_is_read_ahead_is_noticed() {
    let lab = Lab::small();
    let proxy = one_lane(&lab, "");
    proxy.wait_ready();
    let behind = command(&["SET", "k", &"x".repeat(100_000)]);
    let mut gone = wire(&proxy);
    gone.write_all(&command(&["BLPOP", "q", "0"])).unwrap();
    gone.write_all(&behind).unwrap();
    let mut stays = wire(&proxy);
    stays.write_all(&command(&["BLPOP", "q", "0"])).unwrap();
    stays.write_all(&behind).unwrap();
    let blocked = |count: usize| {
        let info = lab.node(0).command(&["INFO", "clients"]).ok()?;
        (info.info("blocked_clients")? == count.to_string()).then_some(())
    };
    assert!(wait_for(SOON, || blocked(2)).is_some(), "both wait");
    drop(gone);
    assert!(wait_for(SOON, || blocked(1)).is_some(), "nobody noticed");
    lab.node(0).command(&["RPUSH", "q", "1"]).unwrap();
    let mut heard = [0; 64];
    let read = stays.read(&mut heard).unwrap();
    assert!(heard[..read].starts_with(b"*2\r\n$1\r\nq\r\n$1\r\n1\r\n"));
}
