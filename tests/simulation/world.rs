//! A world: everything in it, the order of its events, and its end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use switchman::switchover::Question;
use switchman::telemetry::ConnectStage;
use switchman::topology::{
    Machine, NodeAnswer, NodeFailure, Report, ReportKind, SentinelFailure, View,
};
use switchman::types::{NodeAddr, Time};

use crate::book::{Book, Broken, Id};
use crate::client::Client;
use crate::control::Control;
use crate::listener::{Listener, Message};
use crate::node::Node;
use crate::plan::{Micros, Plan, dice, ms, sec};
use crate::planned::{Asked, Planned};
use crate::run::Story;
use crate::sentinel::Sentinel;
use crate::worker::{Conn, Worker};

/// Name of the master group.
pub(crate) const NAME: &str = "orders";

/// How long after the last fault everything must work again: the escape from the epoch fence takes
/// 30 s, and a Sentinel whose failover failed begins another one after twice its timeout.
const CALM_MAX: Micros = sec(120);

/// How long it takes until an operator looks at it.
const HELP_AFTER: Micros = sec(30);

/// Longest time without progress in which the last replies come: the reply timeout and the hold.
const SILENCE_MAX: Micros = sec(75);

/// How a faulty glue behaves, to see whether the oracle sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Workers hear of no switch.
    Withhold,
    /// All workers hear of the first master for ever.
    OldMaster,
    /// The snapshot after a switch has an old epoch.
    OldEpoch,
    /// A write that may have been executed is sent again.
    Resend,
    /// Some replies get lost, and the connection goes on.
    Swallow,
    /// Some commands are acknowledged and not executed.
    Forge,
    /// Workers do not know how late it is.
    NoTicks,
    /// No Sentinel's answer is heard.
    Blind,
    /// It is not heard either that one does not answer.
    Hush,
    /// Nodes say too early that the time of a command is over.
    Impatient,
    /// A command that has waited at one node waits at the next one for all of its time.
    Anew,
    /// After a switch nobody hears a message.
    Unheard,
    /// After a switch each subscription is confirmed twice.
    Confirmed,
    /// Nodes say that they have more of a history than they do.
    Boast,
}

/// What happens next to whom.
#[derive(Debug)]
pub(crate) enum Event {
    Fault(usize),
    Heal(usize),
    Calm,
    Help,
    Beat(usize),
    Hello(usize, usize, (u64, u64)),
    Order(usize, Option<usize>),
    Subscribe(usize, u32),
    Subscribed(usize, u32),
    Unsubscribed(usize, u32),
    Published(usize, u32, Box<(&'static str, String)>),
    AskedSentinel(usize),
    ViewCame(usize, Box<Result<View, SentinelFailure>>),
    AskedNode(usize),
    NodeCame(usize, Box<Result<NodeAnswer, NodeFailure>>),
    NodeLost(usize),
    Report(usize, Box<ReportKind>),
    Snapshot(usize),
    Tick(usize),
    Reached(usize),
    Shaken(usize, bool),
    Refused(usize),
    GiveUp(usize),
    Write(usize),
    Arrive(usize),
    Deliver(usize),
    Apply(usize),
    Sync(usize, u32),
    Talk(usize),
    Offer(usize),
    Drive,
    Ordered(Box<Question>),
    Obeyed(Box<Asked>),
    Unpaused(usize),
    Overdue(usize, Id),
    Listen(usize),
    Broadcast,
    Gone(usize),
}

/// What happens when: the order is small to move, the events stay where they are.
#[derive(Debug, Default)]
struct Agenda {
    /// Moment, number, and place of the event.
    order: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    events: Vec<Option<Event>>,
    free: Vec<usize>,
    number: u64,
}

impl Agenda {
    fn push(&mut self, at: Micros, event: Event) {
        self.number += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order.push(Reverse((at, self.number, place)));
    }

    fn next(&self) -> Micros {
        let first = self.order.peek();
        first.map_or(Micros::MAX, |Reverse((at, ..))| *at)
    }

    fn pop(&mut self) -> Option<(Micros, Event)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        let event = self.events[place].take();
        Some((at, event.expect("an event for each moment")))
    }
}

/// Addresses by index, and back.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) nodes: Vec<NodeAddr>,
    pub(crate) sentinels: Vec<NodeAddr>,
}

impl Names {
    fn new(plan: &Plan) -> Self {
        let addr = |net: u32, at: usize, port| {
            NodeAddr::new(&format!("10.0.{net}.{}", at + 1), port).expect("an address")
        };
        Self {
            nodes: (0..plan.nodes).map(|at| addr(0, at, 6379)).collect(),
            sentinels: (0..plan.sentinels).map(|at| addr(1, at, 26379)).collect(),
        }
    }

    pub(crate) fn node(&self, addr: &NodeAddr) -> Option<usize> {
        self.nodes.iter().position(|node| node == addr)
    }

    pub(crate) fn sentinel(&self, addr: &NodeAddr) -> Option<usize> {
        self.sentinels.iter().position(|sentinel| sentinel == addr)
    }
}

/// How a world ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Things go wrong.
    Trouble,
    /// All faults are over; clients go on until they are served.
    Calm,
    /// Clients are silent; what is under way arrives. Until when, at least.
    Ending(Micros),
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) names: Names,
    pub(crate) now: Micros,
    agenda: Agenda,
    stage: Stage,
    pub(crate) calm_at: Micros,
    pub(crate) book: Book,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sentinels: Vec<Sentinel>,
    pub(crate) control: Control,
    /// A planned failover, if one is under way.
    pub(crate) planned: Option<Planned>,
    pub(crate) workers: Vec<Worker>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) clients: Vec<Client>,
    pub(crate) listeners: Vec<Listener>,
    /// What was published.
    pub(crate) messages: Vec<Message>,
    pub(crate) next_client: u64,
    /// Histories begun.
    pub(crate) stories: u32,
    /// Whom each fault has struck.
    pub(crate) struck: Vec<usize>,
    /// What happened, when somebody wants to read it.
    pub(crate) trace: Option<Story>,
}

/// The product's time for a world's.
fn moment(at: Micros) -> Time {
    Time::from_start(Duration::from_micros(at))
}

/// A world's time for the product's, rounded up: what waits for it finds that it has come.
pub(crate) fn micros(at: Time) -> Micros {
    let nanos = at.since_start().as_nanos();
    u64::try_from(nanos.div_ceil(1_000)).unwrap_or(Micros::MAX)
}

fn purpose(base: u64, at: usize) -> u64 {
    base + u64::try_from(at).unwrap_or(0)
}

impl World {
    pub(crate) fn new(plan: &Plan, mutation: Option<Mutation>) -> Self {
        let names = Names::new(plan);
        let seed = plan.seed;
        let node = |at| Node::new((at != 0).then_some(0), dice(seed, purpose(10, at)));
        let sentinel = |at| Sentinel::new(plan.nodes, dice(seed, purpose(20, at)));
        let mut world = Self {
            mutation,
            now: 0,
            agenda: Agenda::default(),
            stage: Stage::Trouble,
            calm_at: plan.calm_at(),
            book: Book {
                harmless: plan.is_harmless(),
                ..Book::default()
            },
            nodes: (0..plan.nodes).map(node).collect(),
            sentinels: (0..plan.sentinels).map(sentinel).collect(),
            control: Control::new(plan, &names),
            planned: None,
            workers: (0..plan.workers).map(|at| Worker::new(plan, at)).collect(),
            conns: Vec::new(),
            clients: Vec::new(),
            listeners: Vec::new(),
            messages: Vec::new(),
            next_client: 0,
            stories: 1,
            struck: vec![0; plan.faults.len()],
            trace: None,
            names,
            plan: plan.clone(),
        };
        for (at, habit) in plan.clients.iter().enumerate() {
            let client = world.join(*habit, dice(seed, purpose(50, at)));
            world.clients.push(client);
        }
        for at in 0..plan.listeners {
            let listener = world.begin_to_listen(dice(seed, purpose(60, at)));
            world.listeners.push(listener);
        }
        world
    }

    pub(crate) fn time(&self) -> Time {
        moment(self.now)
    }

    /// Keeps a line of what happens.
    pub(crate) fn tell(&self, line: &str) {
        if let Some(story) = &self.trace {
            let (ms, us) = (self.now / 1_000, self.now % 1_000);
            story.borrow_mut().push(format!("{ms:>8}.{us:03} {line}"));
        }
    }

    pub(crate) fn at(&mut self, at: Micros, event: Event) {
        self.agenda.push(at, event);
    }

    pub(crate) fn later(&mut self, delay: Micros, event: Event) {
        self.at(self.now.saturating_add(delay), event);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.stage != Stage::Trouble
    }

    /// The whole history, to its end or to the first broken promise.
    pub(crate) fn run(&mut self) {
        self.begin();
        while self.book.violation.is_none() && !self.is_over() {
            if self.control.due < self.agenda.next() {
                self.now = self.control.due;
                self.inform(Machine::handle_timeout);
            } else if let Some((at, event)) = self.agenda.pop() {
                self.now = at;
                self.happen(event);
            }
        }
        if self.book.violation.is_none() {
            self.close();
        }
    }

    fn begin(&mut self) {
        self.inform(Machine::handle_timeout);
        self.send_snapshots();
        for at in 0..self.workers.len() {
            self.later(0, Event::Tick(at));
        }
        for at in 0..self.sentinels.len() {
            self.later(0, Event::Beat(at));
        }
        for at in 0..self.clients.len() {
            self.later(ms(5), Event::Talk(at));
        }
        for at in 0..self.listeners.len() {
            self.later(ms(5), Event::Listen(at));
            self.later(0, Event::Broadcast);
        }
        for at in 0..self.plan.faults.len() {
            let fault = self.plan.faults[at];
            self.at(fault.at, Event::Fault(at));
            self.at(fault.at + fault.lasts, Event::Heal(at));
        }
        self.at(self.calm_at, Event::Calm);
    }

    fn happen(&mut self, event: Event) {
        if let Some(worker) = self.worker_of(&event)
            && self.workers[worker].stalled > self.now
        {
            return self.at(self.workers[worker].stalled, event);
        }
        match event {
            Event::Fault(at) => self.strike(at),
            Event::Heal(at) => self.heal(at),
            Event::Calm => self.calm(),
            Event::Help => self.help(),
            Event::Talk(at) if !matches!(self.stage, Stage::Ending(_)) => self.talk(at),
            Event::Listen(at) if !matches!(self.stage, Stage::Ending(_)) => self.listen(at),
            Event::Talk(_) | Event::Listen(_) => {}
            Event::Broadcast => self.broadcast(),
            Event::Offer(at) => self.offer(at),
            Event::Apply(at) => self.apply(at),
            Event::Sync(at, attempt) => self.sync(at, attempt),
            Event::Order(at, master) => self.ordered(at, master),
            Event::Beat(at) => self.beat(at),
            Event::Hello(at, master, epochs) => self.greeted(at, master, epochs),
            Event::Drive => self.drive(),
            Event::Ordered(question) => self.ordered_by_plan(*question),
            Event::Obeyed(asked) => self.obeyed(*asked),
            Event::Unpaused(at) => self.unpaused(at),
            Event::Overdue(conn, id) => self.overdue(conn, id),
            Event::Gone(conn) => self.gone(conn),
            other => self.happen_to_switchman(other),
        }
    }

    fn happen_to_switchman(&mut self, event: Event) {
        match event {
            Event::Subscribe(at, life) => self.subscribe(at, life),
            Event::Subscribed(at, life) => self.subscribed(at, life),
            Event::Unsubscribed(at, life) => self.unsubscribed(at, life),
            Event::Published(at, life, said) => self.published(at, life, (said.0, &said.1)),
            Event::AskedSentinel(at) => self.asked_sentinel(at),
            Event::ViewCame(at, answer) => self.view_came(at, *answer),
            Event::AskedNode(at) => self.asked_node(at),
            Event::NodeCame(at, answer) => self.node_came(at, *answer),
            Event::NodeLost(at) => self.node_lost(at),
            Event::Report(worker, kind) => {
                let kind = *kind;
                let report = Report { worker, kind };
                self.inform(|machine, now| machine.handle_report(now, report));
            }
            Event::Snapshot(at) => self.take_snapshot(at),
            Event::Tick(at) => self.tick(at),
            Event::Reached(at) => self.reached(at),
            Event::Shaken(at, fits) => self.shaken(at, fits),
            Event::Refused(at) => self.refused(at, ConnectStage::Tcp),
            Event::GiveUp(at) => self.refused(at, ConnectStage::Handshake),
            Event::Write(at) => self.write(at),
            Event::Arrive(at) => self.arrive(at),
            Event::Deliver(at) => self.deliver(at),
            _ => {}
        }
    }

    /// All faults are over.
    fn calm(&mut self) {
        note!(self, "all is calm");
        for at in 0..self.plan.faults.len() {
            self.heal(at);
        }
        self.stage = Stage::Calm;
        self.later(HELP_AFTER, Event::Help);
    }

    /// Whether nothing remains to be seen.
    fn is_over(&mut self) -> bool {
        let since = self.now.saturating_sub(self.calm_at);
        match self.stage {
            Stage::Trouble => false,
            Stage::Calm if self.is_served() => {
                let settled = self.now + ms(100) + self.plan.pace.way * 4;
                self.stage = Stage::Ending(settled);
                false
            }
            Stage::Calm => {
                if since > CALM_MAX {
                    let machine = self.control.describe();
                    self.book.broke(Broken::Progress, || {
                        format!(
                            "no service {} s after the last fault: {machine}",
                            since / sec(1)
                        )
                    });
                }
                false
            }
            Stage::Ending(settled) => {
                let open = self.clients.iter().any(|client| !client.sent.is_empty());
                if !open && !self.listeners.iter().any(Listener::waits) {
                    return self.now >= settled;
                }
                self.now > settled + SILENCE_MAX
            }
        }
    }

    /// The accounts are settled.
    fn close(&mut self) {
        let histories: Vec<_> = self.nodes.iter().map(|node| node.history.clone()).collect();
        let latest = &self.control.latest;
        let master = latest
            .master
            .as_ref()
            .and_then(|master| self.names.node(master));
        let last = master
            .map(|master| self.nodes[master].log.clone())
            .unwrap_or_default();
        if let Some(at) = self.listeners.iter().position(Listener::waits) {
            let words = || format!("no answer to listener {at}");
            self.book.broke(Broken::Silence, words);
        }
        self.book.close(&histories, &last);
    }
}
