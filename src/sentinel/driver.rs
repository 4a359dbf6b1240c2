//! Floor 2. The task that owns the machine: performs its actions, hands it what comes back.
//! Decides nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::debug;

use crate::command::Table;
use crate::sentinel::commands::CommandsReader;
use crate::sentinel::fencing::{self, Fencing};
use crate::sentinel::notes;
use crate::sentinel::planned::{Order, Planned};
use crate::sentinel::staff::{Input, Peer, Staff};
use crate::tasks::Tasks;
use crate::topology::{Action, Machine, Note, Report, Snapshot, Status};
use crate::types::{NodeAddr, Time};

/// The machine and everything it moves.
#[derive(Debug)]
pub(super) struct Driver {
    machine: Machine,
    staff: Staff,
    start: Instant,
    ends: Ends,
    sentinels: HashMap<NodeAddr, Peer>,
    nodes: HashMap<NodeAddr, Peer>,
    /// The master whose commands were last asked for.
    described: Option<NodeAddr>,
    planned: Planned,
    fencing: Fencing,
}

/// The driver's ends of its channels.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) fences: mpsc::Receiver<fencing::Order>,
    pub(super) reports: mpsc::Receiver<Report>,
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) status: watch::Sender<Arc<Status>>,
    pub(super) commands: watch::Sender<Arc<Table>>,
}

impl Driver {
    /// A driver that has performed nothing yet.
    pub(super) fn new(
        (machine, fencing): (Machine, Fencing),
        staff: Staff,
        start: Instant,
        ends: Ends,
    ) -> Self {
        Self {
            machine,
            staff,
            start,
            ends,
            sentinels: HashMap::new(),
            nodes: HashMap::new(),
            described: None,
            planned: Planned::default(),
            fencing,
        }
    }

    /// Runs until `tasks` are asked to stop.
    pub(super) async fn run(mut self, tasks: Tasks) {
        loop {
            self.settle();
            self.ends
                .status
                .send_replace(Arc::new(self.machine.status()));
            let due = self.machine.poll_timeout().into_iter();
            let due = due
                .chain(self.planned.due())
                .chain(self.fencing.due())
                .min();
            let wait = due.map_or(Duration::MAX, |due| due.since(self.now()));
            // The stop first. Then news, all of which make the machine look at the time as well, so
            // that timers cannot starve.
            tokio::select! {
                biased;
                () = tasks.stopping() => return self.planned.abandon(&self.staff).await,
                Some(input) = self.ends.inputs.recv() => self.take(input),
                Some(report) = self.ends.reports.recv() => {
                    self.machine.handle_report(self.now(), report);
                }
                Some(order) = self.ends.orders.recv() => {
                    self.planned.begin(self.now(), order, &self.machine);
                }
                Some(order) = self.ends.fences.recv() => self.fencing.begin(self.now(), order),
                () = sleep(wait) => self.machine.handle_timeout(self.now()),
            }
        }
    }

    /// Performs everything that both machines want, until neither wants anything. A picture is
    /// published before a line of the log tells of it: no writer of lines delays a hold.
    fn settle(&mut self) {
        let mut notes = Vec::new();
        loop {
            while let Some(action) = self.machine.poll_action() {
                self.perform(action, &mut notes);
            }
            notes.drain(..).for_each(|note| notes::log(&note));
            let now = self.now();
            self.fencing.drive(now, &self.staff);
            if !self.planned.drive(now, &mut self.machine, &self.staff) {
                return;
            }
        }
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        let machine = &mut self.machine;
        match input {
            Input::Event {
                from,
                channel,
                payload,
            } => {
                debug!(sentinel = %from, channel, payload, "sentinel event");
                machine.handle_event(now, &from, &channel, &payload);
            }
            Input::Subscription { from, state } => {
                debug!(sentinel = %from, ?state, "subscription");
                machine.handle_subscription(now, &from, state);
            }
            Input::View {
                from,
                result: Ok(view),
            } => machine.handle_view(now, &from, view),
            Input::View {
                from,
                result: Err(failure),
            } => {
                machine.handle_view_failed(now, &from, failure, fastrand::u32(..));
            }
            Input::Node {
                from,
                result: Ok(answer),
            } => {
                if let Some(run_id) = &answer.run_id {
                    self.fencing.heard(now, &from, run_id);
                }
                machine.handle_node(now, &from, answer);
            }
            Input::Node {
                from,
                result: Err(failure),
            } => {
                machine.handle_node_failed(now, &from, failure, fastrand::u32(..));
            }
            Input::NodeLost { from } => machine.handle_node_lost(now, &from),
            Input::Resolved { host, ips } => machine.handle_resolved(now, &host, ips),
            Input::Ordered {
                link,
                question,
                result,
            } => self.planned.answered(now, link, &question, result),
            Input::Fenced {
                link,
                question,
                result,
            } => self.fencing.answered(now, link, &question, result),
        }
    }

    fn perform(&mut self, action: Action, notes: &mut Vec<Note>) {
        match action {
            Action::AddSentinel(sentinel) => {
                let peer = self.staff.sentinel(&sentinel);
                self.sentinels.insert(sentinel, peer);
            }
            Action::DropSentinel(sentinel) => {
                self.sentinels.remove(&sentinel);
            }
            Action::AskSentinel(sentinel) => {
                if let Some(peer) = self.sentinels.get(&sentinel) {
                    peer.ask();
                }
            }
            Action::AskNode(node) => {
                let staff = &self.staff;
                self.nodes
                    .entry(node)
                    .or_insert_with_key(|node| staff.node(node))
                    .ask();
            }
            Action::DropNode(node) => {
                self.nodes.remove(&node);
                self.fencing.forget(&node);
            }
            Action::Resolve(host) => self.staff.resolve(host),
            Action::Publish(snapshot) => self.publish(snapshot),
            Action::Note(note) => notes.push(note),
        }
    }

    fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let master = snapshot.writable_master().cloned();
        self.ends.snapshots.send_replace(snapshot);
        if let Some(master) = master
            && self.described.as_ref() != Some(&master)
        {
            let reader = CommandsReader {
                snapshots: self.ends.snapshots.subscribe(),
                commands: self.ends.commands.clone(),
            };
            self.staff.read_commands(&master, reader);
            self.described = Some(master);
        }
    }
}
