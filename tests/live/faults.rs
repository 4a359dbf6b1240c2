//! A TCP link that misbehaves on command: slow, silent, torn, or refused. And a deployment all of
//! whose links to the nodes are such links.
//!
//! A [`Front`] tells those who connect apart by their source address, so that the link of Switchman
//! can be cut while the Sentinels stay content: `bind-source-addr` (before Redis 7.0 `bind`) gives
//! Sentinels and nodes addresses of their own, all of 127.0.0.0/8 being loopback on Linux.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::{ControlFlow, Deref};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::SockRef;
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::lab::{Lab, SEEN, SOON, tell};
use crate::version::{set_period, source_line};

/// Source address of whoever binds none: Switchman, and the tests.
pub(crate) const SWITCHMAN: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Source address of the Sentinels of a [`Fronted`] deployment.
const SENTINELS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Source address of its nodes.
pub(crate) const NODES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Time that the front's own connection to its target may take.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// Bytes of a peer among which its `PSYNC` is looked for: a replica says little before it.
const GREETING: usize = 4096;

/// Chunks of up to 16 KiB that are read ahead of a fault; more waits at the sender. Small writes
/// are a chunk each, and a slow link has half a second of them on its way.
const CHUNKS_MAX: usize = 8192;

/// What happens to the bytes of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Time for which what the peer sent stays on its way.
    pub(crate) delay_in: Duration,
    /// Time for which what the target sent stays on its way.
    pub(crate) delay_out: Duration,
    /// The same, only on connections on which the peer has asked for the replication stream.
    pub(crate) delay_stream: Duration,
    /// Nothing that the peer sends arrives; it arrives late where the fault ends.
    pub(crate) deaf: bool,
    /// Nothing that the target sends arrives, its end neither.
    pub(crate) mute: bool,
    /// New connections are reset as soon as they are made.
    pub(crate) refuse: bool,
    /// The connection on which the target has sent so many bytes more is reset. Only once.
    pub(crate) tear_after: Option<usize>,
}

impl Fault {
    /// A link that swallows everything, without a FIN: half-open on both sides.
    pub(crate) fn black_hole() -> Self {
        Self {
            deaf: true,
            mute: true,
            ..Self::default()
        }
    }

    /// A link on which nothing arrives that the target sends.
    pub(crate) fn mute() -> Self {
        Self {
            mute: true,
            ..Self::default()
        }
    }

    /// A link that cannot be made.
    pub(crate) fn refuse() -> Self {
        Self {
            refuse: true,
            ..Self::default()
        }
    }

    /// A link on which everything takes `delay` more in each direction.
    pub(crate) fn slow(delay: Duration) -> Self {
        Self {
            delay_in: delay,
            delay_out: delay,
            ..Self::default()
        }
    }

    /// A link on which replication, and nothing else, takes `delay` more.
    pub(crate) fn lag(delay: Duration) -> Self {
        Self {
            delay_stream: delay,
            ..Self::default()
        }
    }

    /// A link that is reset once, after `bytes` more of the target's bytes.
    pub(crate) fn tear_after(bytes: usize) -> Self {
        Self {
            tear_after: Some(bytes),
            ..Self::default()
        }
    }
}

/// An address in front of one server. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub(crate) struct Front {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Front {
    /// Listens on a port that the kernel chooses, and passes everything on to `target`.
    pub(crate) fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener, target)
        });
        Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on `peer` has this fault, and no other.
    pub(crate) fn set(&self, peer: IpAddr, fault: Fault) {
        self.shared.state().faults.insert(peer, fault);
        self.shared.changed.notify_all();
    }

    /// From now on the link of `peer` is as good as any.
    pub(crate) fn heal(&self, peer: IpAddr) {
        self.set(peer, Fault::default());
    }

    /// From now on nothing passes on the connections that `peer` has, nor their end; on new ones
    /// everything does.
    pub(crate) fn strand(&self, peer: IpAddr) {
        let state = self.shared.state();
        let links = state.links.iter().filter_map(Weak::upgrade);
        for link in links.filter(|link| link.peer == peer) {
            link.stranded.store(true, Ordering::Relaxed);
        }
    }

    /// Ends all connections of `peer` by RST, on both sides.
    pub(crate) fn reset(&self, peer: IpAddr) {
        self.shared.reset(|link| link.peer == peer);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.reset(|_| true);
        // Wakes the acceptor; it has ended by itself where nobody listens any more.
        let _ended_before = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.join().unwrap();
        }
    }
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    faults: HashMap<IpAddr, Fault>,
    links: Vec<Weak<Link>>,
    closed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// From the peer to the target.
    In,
    /// From the target to the peer.
    Out,
}

/// A connection and its continuation. Both are closed when the last pump has let go of them.
#[derive(Debug)]
struct Link {
    peer: IpAddr,
    client: TcpStream,
    server: TcpStream,
    dead: AtomicBool,
    /// The peer has sent `PSYNC`: the target's bytes are the replication stream.
    stream: AtomicBool,
    /// Nothing passes any more, for ever.
    stranded: AtomicBool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, target: SocketAddr) {
        while let Ok((client, from)) = listener.accept() {
            let refuse = {
                let state = self.state();
                if state.closed {
                    return;
                }
                state.faults.get(&from.ip()).is_some_and(|it| it.refuse)
            };
            let server = (!refuse).then(|| TcpStream::connect_timeout(&target, CONNECT_MAX));
            match server {
                Some(Ok(server)) => self.join(from.ip(), client, server),
                Some(Err(_)) | None => abort_on_close(&client),
            }
        }
    }

    /// Lets the bytes of the two connections flow.
    fn join(self: &Arc<Self>, peer: IpAddr, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let link = Arc::new(Link {
            peer,
            client,
            server,
            dead: AtomicBool::new(false),
            stream: AtomicBool::new(false),
            stranded: AtomicBool::new(false),
        });
        self.state().links.push(Arc::downgrade(&link));
        for way in [Way::In, Way::Out] {
            let (chunks, due) = mpsc::sync_channel(CHUNKS_MAX);
            let (shared, reader, writer) = (Arc::clone(self), Arc::clone(&link), Arc::clone(&link));
            thread::spawn(move || read(&reader, way, &chunks));
            thread::spawn(move || shared.pump(&writer, way, &due));
        }
    }

    /// Passes on what `read` has read, when its time has come.
    fn pump(&self, link: &Link, way: Way, chunks: &Receiver<Chunk>) {
        let mut to = match way {
            Way::In => &link.server,
            Way::Out => &link.client,
        };
        for Chunk { read_at, bytes } in chunks {
            let read = bytes.as_ref().map_or(0, Vec::len);
            let ControlFlow::Continue(passes) = self.gate(link, way, (read, read_at)) else {
                return link.reset();
            };
            let done = match bytes {
                Some(bytes) if bytes.is_empty() => return drop(to.shutdown(Shutdown::Write)),
                Some(bytes) => to.write_all(&bytes[..read.min(passes)]).is_ok() && read <= passes,
                None => false,
            };
            if !done {
                return link.reset();
            }
        }
    }

    /// Waits for as long as the link's fault keeps bytes back. Says how many of `bytes` may pass;
    /// a break where none will ever pass again.
    fn gate(
        &self,
        link: &Link,
        way: Way,
        (bytes, read_at): (usize, Instant),
    ) -> ControlFlow<(), usize> {
        let mut state = self.state();
        loop {
            if link.dead.load(Ordering::Relaxed) || state.closed {
                return ControlFlow::Break(());
            }
            let fault = state.faults.entry(link.peer).or_default();
            let (stopped, delay) = match way {
                Way::In => (fault.deaf, fault.delay_in),
                Way::Out if link.stream.load(Ordering::Relaxed) => {
                    (fault.mute, fault.delay_out.max(fault.delay_stream))
                }
                Way::Out => (fault.mute, fault.delay_out),
            };
            if stopped || link.stranded.load(Ordering::Relaxed) {
                state = self.changed.wait(state).unwrap();
                continue;
            }
            let mut passes = bytes;
            if let (Way::Out, Some(left)) = (way, fault.tear_after) {
                passes = bytes.min(left);
                // Spent by the link that it tears.
                fault.tear_after = (bytes <= left).then(|| left - bytes);
            }
            drop(state);
            thread::sleep(delay.saturating_sub(read_at.elapsed()));
            return ControlFlow::Continue(passes);
        }
    }

    fn reset(&self, which: impl Fn(&Link) -> bool) {
        let mut state = self.state();
        state.links.retain(|link| link.strong_count() > 0);
        let links = state.links.iter().filter_map(Weak::upgrade);
        links
            .filter(|link| which(link))
            .for_each(|link| link.reset());
        drop(state);
        self.changed.notify_all();
    }
}

/// What was read at once: nothing at the end, `None` where the connection broke.
struct Chunk {
    read_at: Instant,
    bytes: Option<Vec<u8>>,
}

/// Reads ahead, so that what is delayed is so by as much as the fault says, and not by more.
fn read(link: &Link, way: Way, chunks: &SyncSender<Chunk>) {
    let mut from = match way {
        Way::In => &link.client,
        Way::Out => &link.server,
    };
    let mut buffer = vec![0; 16 * 1024];
    let mut greeting = match way {
        Way::In => GREETING,
        Way::Out => 0,
    };
    loop {
        let read = from.read(&mut buffer);
        if matches!(&read, Err(error) if error.kind() == ErrorKind::Interrupted) {
            continue;
        }
        let bytes = read.ok().map(|read| buffer[..read].to_vec());
        if let Some(bytes) = bytes.as_deref().filter(|_| greeting > 0) {
            greeting = greeting.saturating_sub(bytes.len());
            if memchr::memmem::find(bytes, b"\r\nPSYNC\r\n").is_some() {
                link.stream.store(true, Ordering::Relaxed);
            }
        }
        let ends = bytes.as_ref().is_none_or(Vec::is_empty);
        let read_at = Instant::now();
        if chunks.send(Chunk { read_at, bytes }).is_err() || ends {
            return;
        }
    }
}

impl Link {
    /// All threads wake and let go, and the kernel says RST instead of FIN.
    fn reset(&self) {
        self.dead.store(true, Ordering::Relaxed);
        for stream in [&self.client, &self.server] {
            abort_on_close(stream);
            // Wakes who reads; sends nothing.
            let _closed_by_the_other_side = stream.shutdown(Shutdown::Read);
        }
    }
}

fn abort_on_close(stream: &TcpStream) {
    let _closed_by_the_other_side = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A deployment in which nobody but the tests knows the true address of a node.
///
/// Each node announces its front (`replica-announce-port`), Sentinels monitor the master's, and
/// replicas replicate from it.
#[derive(Debug)]
pub(crate) struct Fronted {
    fronts: Vec<Front>,
    lab: Lab,
}

impl Fronted {
    pub(crate) fn start(plan: Plan) -> Self {
        Self::start_by(plan, Lab::start)
    }

    /// The same with the machine for itself: see [`Lab::alone`].
    pub(crate) fn alone(plan: Plan) -> Self {
        Self::start_by(plan, Lab::alone)
    }

    fn start_by(mut plan: Plan, start: impl Fn(&Plan) -> Lab) -> Self {
        plan.node_config.extend([
            source_line(NODES),
            // Else others would look for it at its source address, where it does not listen.
            "replica-announce-ip 127.0.0.1".to_owned(),
            // Redis takes 127.0.0.1 alone for its own machine.
            "protected-mode no".to_owned(),
        ]);
        plan.sentinel_config.extend([
            source_line(SENTINELS),
            // For the same reason.
            "sentinel announce-ip 127.0.0.1".to_owned(),
        ]);
        let lab = start(&plan);
        let fronts: Vec<Front> = lab
            .nodes()
            .iter()
            .map(|it| Front::before(it.addr()))
            .collect();
        let fronted = Self { fronts, lab };
        fronted.announce();
        monitor(
            &fronted,
            ("127.0.0.1", fronted.front(0).addr().port()),
            &plan,
        );
        fronted
    }

    /// The front of node `index`.
    pub(crate) fn front(&self, index: usize) -> &Front {
        &self.fronts[index]
    }

    /// The master's place among the nodes, where all running Sentinels name the same front.
    pub(crate) fn master_index(&self) -> Option<usize> {
        let running = self.sentinels().iter().filter(|it| it.is_running());
        let mut named = running.map(|it| self.master_according_to(it));
        let first = named.next()??;
        let agreed = named.all(|other| other == Some(first));
        let index = self.fronts.iter().position(|it| it.addr() == first);
        index.filter(|_| agreed)
    }

    /// Each node announces its front, and writes that down for when it is started again.
    fn announce(&self) {
        let master = self.fronts[0].addr().port().to_string();
        for (index, node) in self.nodes().iter().enumerate() {
            let port = self.fronts[index].addr().port().to_string();
            tell(node, &["CONFIG", "SET", "replica-announce-port", &port]);
            if index > 0 {
                tell(node, &["REPLICAOF", "127.0.0.1", &master]);
            }
            tell(node, &["CONFIG", "REWRITE"]);
        }
        let replicas = self.nodes().len() - 1;
        let seen = wait_for(SOON, || {
            let info = self.node(0).command(&["INFO", "replication"]).ok()?;
            let text = info.text()?;
            let mut ports = self.fronts[1..].iter().map(|it| it.addr().port());
            let listed = ports.all(|port| text.contains(&format!("port={port},")));
            let alone = info.info("connected_slaves")? == replicas.to_string();
            (listed && alone).then_some(())
        });
        assert!(seen.is_some(), "the replicas announce their fronts");
        self.wait_in_sync(self.node(0), replicas, SOON).unwrap();
    }
}

/// Lets the Sentinels of a deployment find its master at another host and port.
pub(crate) fn monitor(lab: &Lab, (host, port): (&str, u16), plan: &Plan) {
    let (name, port, quorum) = (lab.master_name(), port.to_string(), plan.quorum.to_string());
    let (down_after, timeout) = (
        plan.down_after.as_millis().to_string(),
        plan.failover_timeout.as_millis().to_string(),
    );
    let set = |option, value| ["SENTINEL", "SET", name, option, value];
    for sentinel in lab.sentinels() {
        tell(sentinel, &["SENTINEL", "REMOVE", name]);
        tell(
            sentinel,
            &["SENTINEL", "MONITOR", name, host, &port, &quorum],
        );
        tell(sentinel, &set("down-after-milliseconds", &down_after));
        tell(sentinel, &set("failover-timeout", &timeout));
    }
    greet_every(lab, Duration::from_millis(100));
    lab.wait_until_seen(lab.nodes().len() - 1, SEEN).unwrap();
    greet_every(lab, Duration::from_secs(2));
}

impl Deref for Fronted {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.lab
    }
}

/// Time between two greetings of all Sentinels, by which they tell each other of the master.
pub(crate) fn greet_every(lab: &Lab, period: Duration) {
    let period = period.as_millis().to_string();
    for sentinel in lab.sentinels().iter().filter(|it| it.is_running()) {
        set_period(sentinel, "PUBLISH-PERIOD", &period);
    }
}

/// Replaces the lines of a Sentinel's configuration that begin like one of `lines`, and starts it
/// again with them.
pub(crate) fn reconfigure(sentinel: &Process, lines: &[&str]) {
    sentinel.kill().unwrap();
    let path = sentinel.dir().join("sentinel.conf");
    let old = fs::read_to_string(&path).unwrap();
    let key = |line: &str| line.rsplit_once(' ').map(|(key, _)| key.to_owned());
    let replaced: Vec<_> = lines.iter().filter_map(|line| key(line)).collect();
    let kept = old
        .lines()
        .filter(|line| key(line).is_none_or(|key| !replaced.contains(&key)));
    let new: Vec<&str> = kept.chain(lines.iter().copied()).collect();
    fs::write(&path, new.join("\n") + "\n").unwrap();
    sentinel.restart().unwrap();
}
