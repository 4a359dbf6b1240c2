//! Workers as `src/worker` runs them: they move bytes between an exchange, its clients and its
//! connections, pass snapshots in and reports out, and tell the time. The connections have delays,
//! take bytes in parts, and break with whatever is on its way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use switchman::consistency::Scripts;
use switchman::exchange::{
    Action, Exchange, GroupSettings, LinkKey, Loss, OpenFailure, OpenPlan, Opened, ReaderSettings,
    Role, Settings,
};
use switchman::resp::{Decoded, Request, RequestDecoder, RequestLimits};
use switchman::route::NoReplica;
use switchman::telemetry::ConnectStage;
use switchman::topology::{Acks, Phase, ReportKind, Snapshot};
use switchman::types::MasterName;

use crate::book::{Broken, Id};
use crate::listener::{CHANNELS, NOBODYS};
use crate::node::{Life, READONLY};
use crate::plan::{Micros, Plan, STALL_MAX, dice, ms};
use crate::world::{Event, Mutation, NAME, World};

/// Longest way of a snapshot from the control plane to a worker.
const SNAPSHOT_WAY: Micros = 500;
/// How long a worker may act upon the snapshot before the published one.
pub(crate) const GRACE: Micros = ms(1);
/// `upstream.connect-timeout`.
const CONNECT_TIMEOUT: Micros = ms(500);
/// How late the answer to a command may be that waited as long as is allowed: the connection that
/// it waited for last, a tick, and the way through the worker.
const LATE: Micros = CONNECT_TIMEOUT + STALL_MAX + ms(300);

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) exchange: Exchange,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Whether a snapshot is on its way.
    expects: bool,
    /// Whether it has said that it is quiet, and was not told to go on since.
    pub(crate) quiet: bool,
    /// When its last report arrives.
    reported: Micros,
    /// Until when it does not run.
    pub(crate) stalled: Micros,
    links: Vec<Option<(LinkKey, usize)>>,
    opened: u64,
    dice: fastrand::Rng,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// On its way to the node.
    Knocking,
    /// The node has not answered the handshake.
    Waiting,
    /// The answer is on its way.
    Shaking,
    Ready,
}

/// One whole command on its way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// That has a number.
    Run(Id),
    /// BLPOP: its number, and how long it waits.
    Pop(Id, Micros),
    Multi,
    Exec,
    Discard,
    /// SUBSCRIBE to these channels, or UNSUBSCRIBE.
    Tune(u8, bool),
    Ping(u64),
}

/// How a connection stands between MULTI and EXEC in the eyes of the node.
#[derive(Debug)]
enum Multi {
    No,
    /// What is queued.
    Open(Vec<Id>),
    /// One of the commands was refused.
    Spoilt,
}

/// One connection.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about two ends"
)]
pub(crate) struct Conn {
    key: LinkKey,
    worker: usize,
    pub(crate) node: usize,
    pub(crate) role: Role,
    stage: Stage,
    /// Whether our end is open.
    pub(crate) ours: bool,
    /// Whether the node's end is open.
    pub(crate) theirs: bool,
    /// The command that waits at the node; nothing behind it is read.
    pub(crate) blocked: Option<Id>,
    /// Whether the node has said that it reads nothing behind what waited.
    pub(crate) unread: bool,
    /// Channels whose messages the node sends, one bit each.
    pub(crate) channels: u8,
    /// Whole commands on their way to the node, or not read by it.
    pub(crate) up: VecDeque<Words>,
    arriving: bool,
    multi: Multi,
    /// The beginning of a command whose rest was not written yet.
    part: Vec<u8>,
    /// Replies on their way to us.
    pub(crate) down: Vec<u8>,
    delivering: bool,
    /// The beginning of a line whose rest has not come yet.
    line: Vec<u8>,
    /// Whether the connection ends behind them.
    pub(crate) ends: bool,
    pub(crate) dice: fastrand::Rng,
}

impl Worker {
    pub(crate) fn new(plan: &Plan, at: usize) -> Self {
        let mut dice = dice(plan.seed, 100 + u64::try_from(at).unwrap_or(0));
        let group = GroupSettings {
            name: MasterName::new(NAME),
            no_replica: NoReplica::Master,
            readers: ReaderSettings::default(),
            hedge_reads: false,
            anonymous: None,
            stamps: None,
            audience: Arc::default(),
            bulky: Arc::default(),
            busy: Arc::default(),
            pause: Arc::default(),
            changes: Arc::default(),
            script_keys: Scripts::default(),
        };
        let settings = Settings {
            reply_timeout: Duration::from_micros(plan.pace.reply_timeout),
            opening_max: 2,
            ..Settings::default()
        };
        Self {
            exchange: Exchange::new(settings, vec![group], dice.u64(..)),
            snapshot: Arc::new(Snapshot::unknown(Duration::from_secs(10))),
            expects: false,
            quiet: false,
            reported: 0,
            stalled: 0,
            links: Vec::new(),
            opened: 0,
            dice,
        }
    }
}

impl World {
    // --- control plane to worker, and back

    /// A snapshot is published; a worker looks at the latest one, whichever it was woken for.
    pub(crate) fn send_snapshots(&mut self) {
        for at in 0..self.workers.len() {
            let worker = &mut self.workers[at];
            if !worker.expects {
                worker.expects = true;
                let delay = worker.dice.u64(..SNAPSHOT_WAY);
                self.later(delay, Event::Snapshot(at));
            }
        }
    }

    pub(crate) fn take_snapshot(&mut self, at: usize) {
        self.workers[at].expects = false;
        let mut snapshot = Arc::clone(&self.control.latest);
        match self.mutation {
            Some(Mutation::Withhold) if self.workers[at].snapshot.phase == Phase::Stable => return,
            Some(Mutation::OldMaster) if snapshot.phase == Phase::Stable => {
                let old = Some(self.names.nodes[0].clone());
                Arc::make_mut(&mut snapshot).master = old;
            }
            _ => {}
        }
        let worker = &mut self.workers[at];
        // Of two holds in a row it may hear of the second one only.
        worker.quiet &= snapshot.phase != Phase::Stable && snapshot.phase == worker.snapshot.phase;
        worker.snapshot = Arc::clone(&snapshot);
        let now = self.time();
        self.workers[at].exchange.topology(0, snapshot, now);
        self.perform(at);
    }

    fn report(&mut self, at: usize, kind: ReportKind) {
        if matches!(kind, ReportKind::Quiet { .. }) {
            self.workers[at].quiet = true;
        }
        note!(self, "worker {at} reports {kind:?}");
        let worker = &mut self.workers[at];
        let due = worker
            .reported
            .max(self.now + worker.dice.u64(..SNAPSHOT_WAY));
        worker.reported = due;
        self.at(due, Event::Report(at, Box::new(kind)));
    }

    pub(crate) fn tick(&mut self, at: usize) {
        let now = self.time();
        if self.mutation != Some(Mutation::NoTicks) {
            self.workers[at].exchange.tick(now);
            self.perform(at);
        }
        self.check_deadlines(at);
        let wanted = self.workers[at].exchange.poll_timeout(now);
        let pause = wanted.map_or(ms(200), |at| {
            u64::try_from(at.since(now).as_micros()).unwrap_or(u64::MAX)
        });
        self.later(pause.clamp(100, ms(200)), Event::Tick(at));
    }

    /// What a client waits for, and was never sent, has a deadline. It does not count while another
    /// command of the same client is in flight, behind which it may have to wait for its place.
    fn check_deadlines(&mut self, at: usize) {
        let hold = self.workers[at].snapshot.hold.as_micros();
        let limit = u64::try_from(hold).unwrap_or(u64::MAX) + LATE;
        let now = self.now;
        for client in &mut self.clients {
            let Some(id) = client.sent.front().copied() else {
                continue;
            };
            let commands = &self.book.commands;
            if client.worker != at || client.sent.iter().any(|id| commands[*id].wired) {
                client.waits_since = now;
                continue;
            }
            let Some(arrived) = commands[id].arrived else {
                continue;
            };
            let since = arrived.max(client.waits_since);
            if now > since + limit {
                self.book.broke(Broken::Deadline, || {
                    format!("command {id} waits since {since}, and was not sent anywhere")
                });
            }
        }
    }

    // --- what the exchange wants

    pub(crate) fn perform(&mut self, at: usize) {
        loop {
            let mut idle = true;
            while let Some(action) = self.workers[at].exchange.poll_action() {
                idle = false;
                match action {
                    Action::Open(key, plan) => self.open(at, key, &plan),
                    Action::Close(key) => self.close_conn(at, key),
                    Action::Report(_, kind) => self.report(at, kind),
                    // The nodes of this world do not name connections, and nobody asks for clients.
                    Action::Fence(..) | Action::Ask(_) => {}
                }
            }
            while let Some(key) = self.workers[at].exchange.poll_dirty_link() {
                idle = false;
                if let Some(conn) = self.conn(at, key) {
                    let delay = self.conns[conn].dice.u64(..50);
                    self.later(delay, Event::Write(conn));
                }
            }
            while let Some(key) = self.workers[at].exchange.poll_dirty_client() {
                idle = false;
                self.hear(at, key);
            }
            if idle {
                return;
            }
        }
    }

    fn close_conn(&mut self, at: usize, key: LinkKey) {
        let conn = self.conn(at, key).expect("closes what it opened");
        self.conns[conn].ours = false;
        self.workers[at].links[key.index()] = None;
        let delay = self.way(conn);
        self.later(delay, Event::Gone(conn));
    }

    fn conn(&self, worker: usize, key: LinkKey) -> Option<usize> {
        let slot = self.workers[worker].links.get(key.index()).copied()?;
        slot.filter(|(of, _)| *of == key).map(|(_, conn)| conn)
    }

    fn open(&mut self, at: usize, key: LinkKey, plan: &OpenPlan) {
        let node = self.names.node(&plan.node).expect("a node of this world");
        let worker = &mut self.workers[at];
        worker.opened += 1;
        let purpose = 1_000 * (1 + u64::try_from(at).unwrap_or(0)) + worker.opened;
        let conn = self.conns.len();
        while worker.links.len() <= key.index() {
            worker.links.push(None);
        }
        worker.links[key.index()] = Some((key, conn));
        self.conns.push(Conn {
            key,
            worker: at,
            node,
            role: plan.role,
            stage: Stage::Knocking,
            ours: true,
            theirs: false,
            blocked: None,
            unread: false,
            channels: 0,
            up: VecDeque::new(),
            arriving: false,
            multi: Multi::No,
            part: Vec::new(),
            down: Vec::new(),
            delivering: false,
            line: Vec::new(),
            ends: false,
            dice: dice(self.plan.seed, purpose),
        });
        let delay = self.way(conn) + self.way(conn);
        self.later(delay, Event::Reached(conn));
        self.later(CONNECT_TIMEOUT, Event::GiveUp(conn));
    }

    fn way(&mut self, conn: usize) -> Micros {
        let way = self.plan.pace.way;
        self.conns[conn].dice.u64(way / 4..=way)
    }

    // --- the way to a node and back

    /// A new connection has reached its node, or the node may look at it now.
    pub(crate) fn reached(&mut self, at: usize) {
        let conn = &self.conns[at];
        if !matches!(conn.stage, Stage::Knocking | Stage::Waiting) || !conn.ours {
            return;
        }
        let node = &self.nodes[conn.node];
        if node.cut_off {
            return;
        }
        let follows = node.follows;
        let life = node.life;
        let way = self.way(at);
        let conn = &mut self.conns[at];
        match life {
            Life::Dead if conn.stage == Stage::Waiting => {}
            Life::Dead => self.later(way, Event::Refused(at)),
            Life::Frozen => {
                conn.theirs = true;
                conn.stage = Stage::Waiting;
            }
            Life::Up => {
                conn.theirs = true;
                conn.stage = Stage::Shaking;
                let fits = (conn.role == Role::Master) == follows.is_none();
                self.later(way, Event::Shaken(at, fits));
            }
        }
    }

    pub(crate) fn shaken(&mut self, at: usize, fits: bool) {
        let (key, worker) = (self.conns[at].key, self.conns[at].worker);
        if !self.conns[at].ours || self.conns[at].stage == Stage::Ready {
            return;
        }
        if self.nodes[self.conns[at].node].cut_off {
            return;
        }
        let now = self.time();
        self.conns[at].stage = Stage::Ready;
        let exchange = &mut self.workers[worker].exchange;
        if fits {
            exchange.link_opened(key, Opened::default(), now);
            if self.conns[at].ends {
                self.later(0, Event::Deliver(at));
            }
        } else {
            exchange.link_refused(key, OpenFailure::WrongRole, now);
        }
        self.perform(worker);
    }

    /// There is no connection, and there will be none.
    pub(crate) fn refused(&mut self, at: usize, stage: ConnectStage) {
        let (key, worker) = (self.conns[at].key, self.conns[at].worker);
        if !self.conns[at].ours || self.conns[at].stage == Stage::Ready {
            return;
        }
        let now = self.time();
        self.conns[at].stage = Stage::Ready;
        let failure = OpenFailure::Unreachable(stage);
        self.workers[worker]
            .exchange
            .link_refused(key, failure, now);
        self.perform(worker);
    }

    /// A connection takes what waits for it, or a part of that.
    pub(crate) fn write(&mut self, at: usize) {
        let (key, worker) = (self.conns[at].key, self.conns[at].worker);
        if !self.conns[at].ours || self.conns[at].stage != Stage::Ready {
            return;
        }
        let now = self.time();
        self.workers[worker].exchange.link_turn(key);
        let bytes = self.workers[worker].exchange.unwritten(key);
        if bytes.is_empty() {
            return;
        }
        let conn = &mut self.conns[at];
        let count = if conn.dice.u32(..8) == 0 {
            conn.dice.usize(..=bytes.len())
        } else {
            bytes.len()
        };
        let rest = bytes.len() - count;
        let chunk = bytes.get(..count).unwrap_or_default();
        let all = whole_commands(&mut conn.part, chunk);
        if count > 0 {
            self.check_target(at);
        }
        self.workers[worker].exchange.written(key, count, now);
        for words in all {
            self.wire(at, words);
        }
        if rest > 0 {
            let delay = self.conns[at].dice.u64(50..ms(2));
            self.later(delay, Event::Write(at));
        }
        self.arrive_later(at);
        self.perform(worker);
    }

    /// A whole command has left.
    fn wire(&mut self, at: usize, words: Words) {
        if let Words::Run(id) | Words::Pop(id, _) = words {
            let (node, role) = (self.conns[at].node, self.conns[at].role);
            self.book.wired(id);
            if self.book.commands[id].writes() && role == Role::Replica {
                self.book.broke(Broken::Astray, || {
                    format!("write {id} was sent to replica {node}")
                });
            }
            if self.mutation == Some(Mutation::Forge)
                && matches!(words, Words::Run(_))
                && self.conns[at].dice.u32(..20) == 0
            {
                let reply = format!("+DONE#{id}\r\n");
                self.conns[at].down.extend_from_slice(reply.as_bytes());
                return self.deliver_later(at);
            }
        }
        // Behind a break nothing arrives any more.
        if !self.conns[at].ends {
            self.conns[at].up.push_back(words);
        } else if self.conns[at].unread {
            self.disown(words);
        }
    }

    /// The node has said that it does not read this command.
    fn disown(&mut self, words: Words) {
        if let Words::Run(id) | Words::Pop(id, _) = words {
            self.book.commands[id].disowned = true;
        }
    }

    /// Nothing may leave for a master that was left, or by a worker that is quiet.
    fn check_target(&mut self, at: usize) {
        let conn = &self.conns[at];
        if conn.role != Role::Master {
            return;
        }
        let (node, worker) = (conn.node, conn.worker);
        let latest = &self.control.latest;
        let named = latest
            .master
            .as_ref()
            .and_then(|master| self.names.node(master));
        let known = self.now > self.control.published + GRACE;
        if known && named != Some(node) {
            self.book.broke(Broken::Left, || {
                format!("worker {worker} sends to node {node}, which was left for {named:?}")
            });
        }
        if self.lacks_quorum() {
            self.book.broke(Broken::Minority, || {
                format!("worker {worker} sends to node {node}, and a minority is heard")
            });
        }
        if self.workers[worker].quiet {
            self.book.broke(Broken::Left, || {
                format!("worker {worker} is quiet, and sends to node {node}")
            });
        }
    }

    pub(crate) fn arrive_later(&mut self, at: usize) {
        if !self.conns[at].up.is_empty() && !self.conns[at].arriving {
            self.conns[at].arriving = true;
            let delay = self.way(at);
            self.later(delay, Event::Arrive(at));
        }
    }

    /// The node reads what has arrived.
    pub(crate) fn arrive(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        conn.arriving = false;
        let node = conn.node;
        if self.nodes[node].cut_off || self.nodes[node].life == Life::Frozen {
            return;
        }
        if !conn.theirs || self.nodes[node].life == Life::Dead {
            let unread = conn.unread;
            for words in std::mem::take(&mut conn.up) {
                if unread {
                    self.disown(words);
                }
            }
            return;
        }
        while let Some(words) = self.conns[at].up.pop_front() {
            if self.conns[at].blocked.is_some() || self.is_postponed(at, words) {
                self.conns[at].up.push_front(words);
                break;
            }
            let reply = self.answer(at, words);
            if !self.conns[at].ends {
                self.conns[at].down.extend_from_slice(reply.as_bytes());
            }
        }
        self.deliver_later(at);
    }

    /// Whether a paused node leaves this command, and all behind it, for later.
    fn is_postponed(&self, at: usize, words: Words) -> bool {
        let conn = &self.conns[at];
        let writes = |id: &Id| self.book.commands[*id].writes();
        let concerned = match (words, &conn.multi) {
            (Words::Run(id) | Words::Pop(id, _), _) => writes(&id),
            (Words::Exec, Multi::Open(queued)) => queued.iter().any(writes),
            _ => false,
        };
        concerned && self.nodes[conn.node].is_paused(self.now)
    }

    /// What the node says to a command that came over a connection.
    fn answer(&mut self, at: usize, words: Words) -> String {
        let node = self.conns[at].node;
        let replica = self.nodes[node].follows.is_some();
        let multi = &mut self.conns[at].multi;
        match (words, multi) {
            (Words::Run(id), Multi::No) => return self.execute(node, id),
            (Words::Tune(channels, on), _) => return self.tune(at, channels, on),
            (Words::Ping(number), _) => return self.pong(at, number),
            (Words::Pop(id, timeout), _) => return self.pop(at, id, timeout),
            (Words::Run(id), multi) => {
                if replica && self.book.commands[id].writes() {
                    *multi = Multi::Spoilt;
                    return READONLY.to_owned();
                }
                if let Multi::Open(queued) = multi {
                    queued.push(id);
                }
                return "+QUEUED\r\n".to_owned();
            }
            (Words::Multi, multi) => *multi = Multi::Open(Vec::new()),
            (Words::Discard, multi) => *multi = Multi::No,
            (Words::Exec, multi) => {
                let ended = std::mem::replace(multi, Multi::No);
                return self.transact(node, ended);
            }
        }
        "+OK\r\n".to_owned()
    }

    fn transact(&mut self, node: usize, multi: Multi) -> String {
        let queued = match multi {
            Multi::No => return "-ERR EXEC without MULTI\r\n".to_owned(),
            Multi::Spoilt => {
                let why = "-EXECABORT Transaction discarded because of previous errors.\r\n";
                return why.to_owned();
            }
            Multi::Open(queued) => queued,
        };
        let writes = queued.iter().any(|id| self.book.commands[*id].writes());
        if writes && self.nodes[node].follows.is_some() {
            let why = READONLY.trim_start_matches('-');
            return format!("-EXECABORT Transaction discarded because of: {why}");
        }
        let mut reply = format!("*{}\r\n", queued.len());
        for id in queued {
            reply += &self.execute(node, id);
        }
        reply
    }

    pub(crate) fn deliver_later(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        if !conn.delivering && (!conn.down.is_empty() || conn.ends) {
            conn.delivering = true;
            let delay = self.way(at);
            self.later(delay, Event::Deliver(at));
        }
    }

    /// Replies arrive, or a part of them, and the end of the connection behind them.
    pub(crate) fn deliver(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        conn.delivering = false;
        let (key, worker) = (conn.key, conn.worker);
        if !conn.ours || conn.stage != Stage::Ready || self.nodes[conn.node].cut_off {
            return;
        }
        let mut count = conn.down.len();
        if count > 1 && conn.dice.u32(..8) == 0 {
            count = conn.dice.usize(1..count);
        }
        let mut chunk: Vec<u8> = conn.down.drain(..count).collect();
        let more = !conn.down.is_empty();
        if self.mutation == Some(Mutation::Swallow) && self.conns[at].dice.u32(..30) == 0 {
            chunk.clear();
        }
        let now = self.time();
        let mut fine = true;
        if !chunk.is_empty() {
            self.note_taken(at, &chunk);
            let exchange = &mut self.workers[worker].exchange;
            fine = exchange.link_bytes(key, &chunk, now).is_ok();
        }
        self.perform(worker);
        if more && fine {
            self.deliver_later(at);
        } else if self.conns[at].ends || !fine {
            self.lose(at);
        }
    }

    /// Replies reach a worker: does it keep such ones back now?
    fn note_taken(&mut self, at: usize, chunk: &[u8]) {
        let conn = &mut self.conns[at];
        let snapshot = &self.workers[conn.worker].snapshot;
        let master = snapshot.master.as_ref();
        let left = || master.is_some_and(|it| *it != self.names.nodes[conn.node]);
        let gated = match snapshot.phase {
            Phase::Unknown => false,
            Phase::Stable => left(),
            Phase::Switching { .. } => snapshot.acks != Acks::Given,
        };
        for byte in chunk {
            if *byte != b'\n' {
                conn.line.push(*byte);
                continue;
            }
            let line = conn.line.trim_ascii_end();
            let number = line.rsplit(|byte| *byte == b'#').next();
            let number = number.filter(|number| number.len() < line.len());
            let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            if let Some(command) = number.and_then(|id: Id| self.book.commands.get_mut(id)) {
                command.gated = gated;
            }
            conn.line.clear();
        }
    }

    fn lose(&mut self, at: usize) {
        let (key, worker) = (self.conns[at].key, self.conns[at].worker);
        let now = self.time();
        if self.conns[at].ours {
            note!(
                self,
                "worker {worker} loses a connection to node {}",
                self.conns[at].node
            );
            self.workers[worker]
                .exchange
                .link_lost(key, Loss::Broken, now);
            self.perform(worker);
        }
    }

    /// A node ends all its connections. What it has not read it never reads; of what it has said
    /// the last words may be lost.
    pub(crate) fn dismiss(&mut self, node: usize, dies: bool) {
        for at in 0..self.conns.len() {
            let conn = &mut self.conns[at];
            if conn.node != node || !conn.theirs {
                continue;
            }
            conn.theirs = false;
            conn.blocked = None;
            if self.mutation == Some(Mutation::Resend) {
                self.resend(at);
            }
            let conn = &mut self.conns[at];
            conn.up.clear();
            if conn.dice.bool() {
                let keep = conn.dice.usize(..=conn.down.len());
                conn.down.truncate(keep);
            }
            conn.ends = true;
            if conn.stage != Stage::Ready {
                let delay = self.way(at);
                self.later(delay, Event::Refused(at));
            }
            self.conns[at].delivering = false;
            self.deliver_later(at);
        }
        self.nodes[node].blocked.clear();
        self.lose_probe(node, dies);
    }

    /// What a faulty glue would do: what may have been executed goes to somebody else, once more.
    fn resend(&mut self, at: usize) {
        let again: Vec<Id> = (0..self.book.commands.len())
            .filter(|id| self.book.commands[*id].writes() && self.book.commands[*id].times == 1)
            .collect();
        let other = self.conns.iter().position(|conn| {
            conn.theirs && conn.ours && conn.role == Role::Master && conn.stage == Stage::Ready
        });
        if let (Some(other), Some(id)) = (other.filter(|other| *other != at), again.last()) {
            self.conns[other].up.push_back(Words::Run(*id));
            self.arrive_later(other);
        }
    }

    /// A connection breaks on the way. Of what was under way in either direction a beginning
    /// arrives.
    pub(crate) fn snap(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        if !conn.ours || conn.stage != Stage::Ready || conn.ends {
            return;
        }
        let keep = conn.dice.usize(..=conn.up.len());
        conn.up.truncate(keep);
        let keep = conn.dice.usize(..=conn.down.len());
        conn.down.truncate(keep);
        conn.ends = true;
        self.deliver_later(at);
    }

    /// The worker to which this happens.
    pub(crate) fn worker_of(&self, event: &Event) -> Option<usize> {
        match event {
            Event::Snapshot(at) | Event::Tick(at) => Some(*at),
            Event::Shaken(conn, _)
            | Event::Refused(conn)
            | Event::GiveUp(conn)
            | Event::Write(conn)
            | Event::Deliver(conn) => Some(self.conns[*conn].worker),
            Event::Listen(listener) => Some(self.listeners[*listener].worker),
            Event::Talk(client) | Event::Offer(client) => Some(self.clients[*client].worker),
            _ => None,
        }
    }

    /// Connections that are in use on both ends.
    pub(crate) fn in_use(&self) -> Vec<usize> {
        let used = |conn: &Conn| conn.ours && conn.theirs && conn.stage == Stage::Ready;
        let conns = self.conns.iter().enumerate();
        conns
            .filter(|(_, conn)| used(conn))
            .map(|(at, _)| at)
            .collect()
    }
}

/// The commands that are whole with these bytes.
fn whole_commands(part: &mut Vec<u8>, chunk: &[u8]) -> Vec<Words> {
    part.extend_from_slice(chunk);
    let (mut all, mut inline, mut at) = (Vec::new(), Vec::new(), 0);
    while at < part.len() {
        let mut decoder = RequestDecoder::default();
        let limits = RequestLimits::AUTHENTICATED;
        let found = decoder.decode(&part[at..], &limits, &mut inline);
        let Ok(Decoded::Request { request, consumed }) = found else {
            break;
        };
        all.push(match request.name() {
            b"MULTI" => Words::Multi,
            b"EXEC" => Words::Exec,
            b"DISCARD" => Words::Discard,
            b"SUBSCRIBE" => Words::Tune(channels_of(&request), true),
            b"UNSUBSCRIBE" => Words::Tune(channels_of(&request), false),
            b"PING" => Words::Ping(u64::try_from(number_of(&request)).unwrap_or(0)),
            b"BLPOP" => Words::Pop(number_of(&request), wait_of(&request)),
            _ => Words::Run(number_of(&request)),
        });
        at += consumed;
    }
    part.drain(..at);
    all
}

/// How long a command wants to wait, by its last word.
fn wait_of(request: &Request<'_>) -> Micros {
    let last = request.args().last().unwrap_or_default();
    let seconds = std::str::from_utf8(last).expect("a number");
    let wait = Duration::from_secs_f64(seconds.parse().expect("a number"));
    u64::try_from(wait.as_micros()).unwrap_or(Micros::MAX)
}

/// The channels that a command names.
fn channels_of(request: &Request<'_>) -> u8 {
    let bit = |name: &[u8]| {
        let at = CHANNELS.iter().position(|known| known.as_bytes() == name);
        1_u8 << at.expect("a channel of this world")
    };
    let names = request.args().skip(1);
    let names = names.filter(|name| *name != NOBODYS.as_bytes());
    names.fold(0, |all, name| all | bit(name))
}

/// The number in a command: in the name of the list that it waits for, or in its last word. What
/// Switchman asks by itself has none.
fn number_of(request: &Request<'_>) -> Id {
    if request.argc() == 1 {
        return 0;
    }
    let word = match request.name() {
        b"BLPOP" => request.arg1(),
        _ => request.args().last(),
    };
    let word = word.unwrap_or_default();
    let digits = word.rsplit(|byte| *byte == b'#').next();
    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
    let number = digits.and_then(|digits| digits.parse().ok());
    number.expect("a command of this world")
}
