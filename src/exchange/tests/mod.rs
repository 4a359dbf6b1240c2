//! Floor 4. Tests: A switchboard without sockets: links open when the test says so, nodes answer
//! what the test makes them answer, and time passes only when it is told to.

mod admission;
mod attending;
mod blocking;
mod bounds;
mod bulky;
mod busy;
mod clients;
mod databases;
mod deletion;
mod demotion;
mod detour;
mod fencing;
mod gate;
mod hedging;
mod hello;
mod holding;
mod inside;
mod kept_out;
mod listeners;
mod losses;
mod lost_transactions;
mod memory;
mod opening;
mod order;
mod own_writes;
mod pause;
mod pinned;
mod property;
mod pubsub;
mod readers;
mod renewal;
mod resubscribing;
mod rights;
mod scripts;
mod sessions;
mod switching;
mod timeouts;
mod tracking;
mod transactions;
mod tunnel;
mod uploads;
mod warm;
mod way_round;
mod words;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{
    Action, Answer, ClientKey, Exchange, GroupSettings, LinkKey, Loss, OpenFailure, OpenPlan,
    Opened, Question, ReaderSettings, Role, Settings, Violation,
};
use crate::consistency::Scripts;
use crate::fence;
use crate::resp::{Decoded, ReplyScanner, Request, RequestDecoder, RequestLimits, Scan, encode};
use crate::route::{Access, NoReplica};
use crate::session::{Ends, HelloFacts, Login};
use crate::telemetry::FenceResult;
use crate::topology::{Phase, ReportKind, Snapshot};
use crate::types::{ConfigEpoch, Generation, MasterName, NodeAddr, Protocol, Time};

/// Everything around one switchboard with one group.
pub(super) struct World {
    pub(super) exchange: Exchange,
    pub(super) now: Time,
    /// Links the switchboard wants and has.
    pub(super) wires: BTreeMap<LinkKey, Wire>,
    /// What was reported to the control plane.
    pub(super) reports: Vec<ReportKind>,
    /// Connections that are to be ended at their nodes, and the links that wait for it.
    pub(super) fences: Vec<(fence::Request, Option<LinkKey>)>,
    /// What all workers were asked; this one has answered.
    pub(super) questions: Vec<Question>,
    /// What each client has heard.
    heard: HashMap<ClientKey, Vec<u8>>,
    /// Clients whose connection was closed.
    pub(super) closed: Vec<ClientKey>,
    /// Clients whose socket takes nothing.
    pub(super) deaf: Vec<ClientKey>,
    /// Whether links open by themselves.
    pub(super) opens: bool,
    /// Links opened in all.
    pub(super) opened: usize,
    pub(super) picture: Snapshot,
    next_client: u64,
    order: u64,
}

/// The other end of a link.
pub(super) struct Wire {
    pub(super) plan: OpenPlan,
    pub(super) open: bool,
    /// What arrived and was not read by the node.
    pub(super) arrived: Vec<u8>,
    /// Requests that the node has read and not answered, with the order of their arrival.
    pub(super) asked: VecDeque<(u64, String)>,
}

/// How a world differs from the usual one.
pub(super) struct Setup {
    pub(super) settings: Settings,
    pub(super) group: GroupSettings,
    pub(super) replicas: Vec<NodeAddr>,
    pub(super) opens: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
            group: GroupSettings {
                name: MasterName::new("orders"),
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
            },
            replicas: vec![addr("r1")],
            opens: true,
        }
    }
}

/// What a server says to who waits there when it becomes a replica.
const UNBLOCKED: &str = "-UNBLOCKED force unblock from blocking operation, instance state changed \
                         (master -> replica?)";

pub(super) fn addr(host: &str) -> NodeAddr {
    NodeAddr::new(host, 6379).unwrap()
}

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The words as an array of bulks; `""` is an empty word.
pub(super) fn encoded(line: &str) -> Vec<u8> {
    let words: Vec<&[u8]> = line
        .split(' ')
        .map(|word| if word == "\"\"" { "" } else { word }.as_bytes())
        .collect();
    let mut raw = Vec::new();
    encode::request(&mut raw, &words);
    raw
}

/// Lines as requests.
pub(super) fn pipeline(lines: &[&str]) -> Vec<u8> {
    lines.iter().flat_map(|line| encoded(line)).collect()
}

impl World {
    /// A master `m`, a replica `r1`, no client, and every link that is wanted opens at once.
    pub(super) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(super) fn with(setup: Setup) -> Self {
        let mut world = Self::before(setup);
        world.publish(Phase::Stable, Some("m"));
        world
    }

    /// A world in which no master is known yet.
    pub(super) fn before(setup: Setup) -> Self {
        let mut picture = Snapshot::unknown(Duration::from_secs(5));
        picture.epoch = ConfigEpoch::new(1);
        picture.replicas = setup.replicas;
        let mut world = Self {
            exchange: Exchange::new(setup.settings, vec![setup.group], 7),
            now: Time::from_start(Duration::from_secs(1)),
            wires: BTreeMap::new(),
            reports: Vec::new(),
            fences: Vec::new(),
            questions: Vec::new(),
            heard: HashMap::new(),
            closed: Vec::new(),
            deaf: Vec::new(),
            opens: setup.opens,
            opened: 0,
            picture,
            next_client: 100,
            order: 0,
        };
        world.publish(Phase::Unknown, None);
        world
    }

    /// Publishes a picture with this phase and master, and the replicas as they are.
    pub(super) fn publish(&mut self, phase: Phase, master: Option<&str>) {
        self.picture.generation = self.picture.generation.next();
        self.picture.phase = phase;
        self.picture.master = master.map(addr);
        let picture = Arc::new(self.picture.clone());
        self.exchange.topology(0, picture, self.now);
        self.run();
    }

    /// The master is about to be left.
    pub(super) fn switching(&mut self) -> Generation {
        let phase = Phase::Switching { since: self.now };
        let master = self.picture.master.clone().unwrap();
        self.publish(phase, Some(master.host()));
        self.picture.generation
    }

    /// The group has this master and these replicas.
    pub(super) fn switch_to(&mut self, master: &str, replicas: &[&str]) {
        self.picture.replicas = replicas.iter().map(|host| addr(host)).collect();
        self.publish(Phase::Stable, Some(master));
    }

    pub(super) fn client(&mut self) -> ClientKey {
        self.client_by(Access::default())
    }

    /// A client of a listener that gives this.
    pub(super) fn client_by(&mut self, access: Access) -> ClientKey {
        self.next_client += 1;
        let id = self.next_client;
        let key = self.exchange.client_joined(0, access, id, self.now);
        self.run();
        key
    }

    /// The client sends these requests at once.
    pub(super) fn send(&mut self, client: ClientKey, lines: &[&str]) {
        self.send_raw(client, &pipeline(lines));
    }

    pub(super) fn send_raw(&mut self, client: ClientKey, bytes: &[u8]) {
        self.exchange.client_bytes(client, bytes, self.now);
        self.run();
    }

    /// What the client has heard since the last call, with `|` for each line end.
    pub(super) fn heard(&mut self, client: ClientKey) -> String {
        let bytes = self.heard.remove(&client).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace("\r\n", "|")
    }

    /// Time passes in steps as short as the ticks.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + ms(50));
            self.exchange.tick(self.now);
            self.run();
        }
    }

    /// The client closes its connection.
    pub(super) fn leave(&mut self, client: ClientKey) {
        self.exchange.client_gone(client, self.now);
        self.run();
    }

    pub(super) fn is_closed(&self, client: ClientKey) -> bool {
        self.closed.contains(&client)
    }

    /// Does what a worker does after each input, until there is nothing left to do.
    pub(super) fn run(&mut self) {
        loop {
            let mut calm = true;
            while let Some(action) = self.exchange.poll_action() {
                calm = false;
                self.perform(action);
            }
            while let Some(link) = self.exchange.poll_dirty_link() {
                calm = false;
                self.exchange.link_turn(link);
                self.write(link);
            }
            while let Some(client) = self.exchange.poll_dirty_client() {
                calm = false;
                self.deliver(client);
            }
            if calm {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Open(link, plan) => {
                let wire = Wire {
                    plan,
                    open: false,
                    arrived: Vec::new(),
                    asked: VecDeque::new(),
                };
                self.wires.insert(link, wire);
                if self.opens {
                    self.open(link);
                }
            }
            Action::Close(link) => {
                self.wires.remove(&link).expect("closes what it opened");
            }
            Action::Ask(question) => {
                let answer = self.answer_roll(&question);
                self.exchange.roll_answered(answer, self.now);
                self.questions.push(question);
            }
            Action::Report(0, kind) => self.reports.push(kind),
            Action::Fence(0, request, who) => self.fences.push((request, who)),
            Action::Report(group, _) | Action::Fence(group, ..) => {
                panic!("there is no group {group}")
            }
        }
    }

    /// This worker's answer. Clients connect from ports as high as the numbers of their places.
    pub(super) fn answer_roll(&mut self, question: &Question) -> Answer {
        let ends = |key: ClientKey| Ends {
            peer: format!("10.0.0.1:{}", 40_000 + key.index()),
            own: "10.0.0.2:6379".to_owned(),
            file: 9,
        };
        self.exchange.answer_roll(question, ends, self.now)
    }

    /// A link is connected.
    pub(super) fn open(&mut self, link: LinkKey) {
        let wire = self.wires.get_mut(&link).unwrap();
        wire.open = true;
        self.opened += 1;
        let opened = shaken(&wire.plan, u64::try_from(self.opened).unwrap());
        self.exchange.link_opened(link, opened, self.now);
        self.run();
    }

    /// Opens every link that waits for it.
    pub(super) fn open_all(&mut self) {
        while let Some(link) = self.opening() {
            self.open(link);
        }
    }

    /// The oldest link that is not open yet.
    pub(super) fn opening(&self) -> Option<LinkKey> {
        let wire = self.wires.iter().find(|(_, wire)| !wire.open);
        wire.map(|(link, _)| *link)
    }

    /// The link that opens for a purpose; it must be the only one.
    pub(super) fn only_opening(&self) -> (LinkKey, OpenPlan) {
        let opening: Vec<_> = self.wires.iter().filter(|(_, wire)| !wire.open).collect();
        assert_eq!(opening.len(), 1, "one link opens");
        (*opening[0].0, opening[0].1.plan.clone())
    }

    pub(super) fn refuse(&mut self, link: LinkKey, failure: OpenFailure) {
        self.exchange.link_refused(link, failure, self.now);
        self.run();
    }

    /// The connection breaks.
    pub(super) fn lose(&mut self, link: LinkKey) {
        self.exchange.link_lost(link, Loss::Broken, self.now);
        self.run();
    }

    /// Every connection to a node breaks.
    pub(super) fn lose_node(&mut self, host: &str) {
        for link in self.links(host) {
            self.lose(link);
        }
    }

    /// Writes to a link until nothing is left.
    pub(super) fn write(&mut self, link: LinkKey) {
        self.write_some(link, usize::MAX);
    }

    /// The socket of a link takes at most so many bytes.
    pub(super) fn write_some(&mut self, link: LinkKey, most: usize) {
        let Some(wire) = self.wires.get_mut(&link) else {
            return;
        };
        if !wire.open {
            return;
        }
        let bytes = self.exchange.unwritten(link);
        let count = bytes.len().min(most);
        wire.arrived.extend_from_slice(&bytes[..count]);
        self.exchange.written(link, count, self.now);
        self.read_requests(link);
    }

    /// The node reads what arrived.
    fn read_requests(&mut self, link: LinkKey) {
        let wire = self.wires.get_mut(&link).unwrap();
        let mut decoder = RequestDecoder::default();
        let (mut at, mut inline) = (0, Vec::new());
        while at < wire.arrived.len() {
            let limits = RequestLimits::AUTHENTICATED;
            let found = decoder.decode(&wire.arrived[at..], &limits, &mut inline);
            let Ok(Decoded::Request { request, consumed }) = found else {
                break;
            };
            self.order += 1;
            wire.asked.push_back((self.order, text(&request)));
            at += consumed;
        }
        wire.arrived.drain(..at);
    }

    fn deliver(&mut self, client: ClientKey) {
        if self.deaf.contains(&client) {
            self.exchange.stalled(client, self.now);
        } else {
            while !self.exchange.output(client).is_empty() {
                let bytes = self.exchange.output(client).to_vec();
                let heard = self.heard.entry(client).or_default();
                heard.extend_from_slice(&bytes);
                self.exchange.took(client, bytes.len(), self.now);
            }
        }
        if self.exchange.is_finished(client) {
            self.closed.push(client);
            self.exchange.client_gone(client, self.now);
        }
    }

    /// Links to a node.
    pub(super) fn links(&self, host: &str) -> Vec<LinkKey> {
        let to = |wire: &Wire| wire.plan.node == addr(host);
        let wires = self.wires.iter();
        wires
            .filter(|(_, wire)| to(wire))
            .map(|(link, _)| *link)
            .collect()
    }

    /// The only link to a node.
    pub(super) fn link(&self, host: &str) -> LinkKey {
        let links = self.links(host);
        assert_eq!(links.len(), 1, "links to {host}");
        links[0]
    }

    /// What a node was asked and has not answered, in the order of arrival.
    pub(super) fn asked(&self, host: &str) -> Vec<String> {
        let links = self.links(host);
        let mut asked: Vec<_> = links
            .iter()
            .flat_map(|link| self.wires[link].asked.iter().cloned())
            .collect();
        asked.sort();
        asked.into_iter().map(|(_, text)| text).collect()
    }

    /// The link on which a node was asked this; it must be the next that it answers there.
    pub(super) fn asked_on(&self, host: &str, want: &str) -> LinkKey {
        let is_next = |link: &&LinkKey| {
            let next = self.wires[*link].asked.front();
            next.is_some_and(|(_, text)| text == want)
        };
        let links = self.links(host);
        let found = links.iter().find(is_next).copied();
        found.unwrap_or_else(|| panic!("{host} was not asked {want:?}: {:?}", self.asked(host)))
    }

    /// The node answers a request; `|` stands for a line end.
    pub(super) fn answer(&mut self, host: &str, request: &str, reply: &str) {
        let link = self.asked_on(host, request);
        self.wires.get_mut(&link).unwrap().asked.pop_front();
        self.say(link, reply);
    }

    /// The node answers all its requests as a node without data would.
    pub(super) fn answer_all(&mut self, host: &str) {
        while let Some(request) = self.asked(host).first().cloned() {
            self.answer(host, &request, "+OK");
        }
    }

    /// The node sends this on a link.
    pub(super) fn say(&mut self, link: LinkKey, reply: &str) {
        assert_eq!(self.try_say(link, reply), Ok(()));
    }

    pub(super) fn try_say(&mut self, link: LinkKey, reply: &str) -> Result<(), Violation> {
        let mut bytes = reply.replace('|', "\r\n").into_bytes();
        if !bytes.ends_with(b"\r\n") {
            bytes.extend_from_slice(b"\r\n");
        }
        let said = self.say_raw(link, &bytes);
        if said.is_err() {
            self.lose(link);
        }
        said
    }

    pub(super) fn say_raw(&mut self, link: LinkKey, bytes: &[u8]) -> Result<(), Violation> {
        let said = self.exchange.link_bytes(link, bytes, self.now);
        self.run();
        said
    }

    /// Asserts that nothing is in flight or remembered for anybody.
    pub(super) fn assert_calm(&self) {
        for (key, client) in self.exchange.clients.iter() {
            let counts = (client.master_out, client.writes_out, client.replica_out);
            assert_eq!(counts, (0, 0, 0), "{key:?}");
            assert_eq!(client.replies.outstanding(), 0, "{key:?}");
            assert!(client.again.is_empty() && client.lease.is_none(), "{key:?}");
        }
        for group in &self.exchange.groups {
            for node in &group.nodes {
                assert_eq!(node.in_flight, 0, "{node:?}");
            }
            assert_eq!(group.proofs, 0);
            let hedging = group.hedging.as_ref();
            assert!(hedging.is_none_or(|it| it.owns_nothing()));
        }
        assert!(self.exchange.detours.is_empty());
        for (key, link) in self.exchange.links.iter() {
            assert!(link.pipeline.is_empty(), "{key:?} {link:?}");
            assert!(link.begun.is_empty(), "{key:?} {link:?}");
        }
        let waits = |link: &super::Link| link.plan.is_some();
        let links = self.exchange.links.iter();
        let queued = links.filter(|(_, link)| waits(link)).count();
        assert_eq!(queued, self.exchange.queued);
        assert!(self.exchange.touched.is_empty());
        assert!(self.exchange.fencing.is_empty());
    }
}

/// The words of a request.
pub(super) fn text(request: &Request<'_>) -> String {
    let words: Vec<_> = request.args().map(String::from_utf8_lossy).collect();
    words.join(" ")
}

/// What the handshake of a connection with this number finds.
pub(super) fn shaken(plan: &OpenPlan, id: u64) -> Opened {
    let addr = Some(Box::from(format!("10.0.0.9:{id}")));
    Opened {
        hello: HelloFacts::read(&hello_of(plan.protocol)),
        connection: is_master(plan).then_some(fence::Connection { id, addr }),
    }
}

fn hello_of(protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode::map_header(&mut out, protocol, 3);
    encode::bulk(&mut out, b"server");
    encode::bulk(&mut out, b"redis");
    encode::bulk(&mut out, b"proto");
    encode::integer(&mut out, if protocol == Protocol::Resp2 { 2 } else { 3 });
    encode::bulk(&mut out, b"id");
    encode::integer(&mut out, 5);
    out
}

/// A login refused by the node.
pub(super) fn wrong_password() -> OpenFailure {
    let line = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    OpenFailure::Refused(crate::telemetry::ConnectStage::Auth, Box::from(&line[..]))
}

/// No connection.
pub(super) fn unreachable() -> OpenFailure {
    OpenFailure::Unreachable(crate::telemetry::ConnectStage::Tcp)
}

/// A node that wants a login.
pub(super) fn no_auth() -> OpenFailure {
    let line = b"-NOAUTH Authentication required.\r\n";
    OpenFailure::Refused(crate::telemetry::ConnectStage::Auth, Box::from(&line[..]))
}

pub(super) fn login(username: &str, password: &str) -> Login {
    Login::new(Some(username.as_bytes()), password.as_bytes())
}

/// The role for which a link opens.
pub(super) fn is_master(plan: &OpenPlan) -> bool {
    plan.role == Role::Master
}
