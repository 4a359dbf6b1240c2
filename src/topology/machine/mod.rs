//! Floor 1. The machine of one master group. Inputs: what Sentinels, nodes and workers say, and the
//! time. Outputs: whom to ask, what to publish, what to log. Knows no sockets, no clock, no chance.
//!
//! ```text
//!                    proven first master
//!   Unknown ──────────────────────────────► Stable(A) ◄─────────────────┐
//!   asks all Sentinels,                     writes flow to A            │ no cause any more,
//!   commands are held                          │                        │ A proven after the
//!                                              │ a cause to hold        │ last sign, Sentinels
//!                                              ▼                        │ confirm A
//!            B named at a newer epoch,      Switching(A) ───────────────┘
//!            B proven, A quiet or overdue   writes are held
//!   Stable(B) ◄──────────────────────────── asks everybody, fast
//! ```
//!
//! * An *event* of one Sentinel is a hint: it makes the machine hold, and ask. Only an *answer*
//!   (`GET-MASTER-ADDR-BY-NAME` with the epoch of `MASTER`) names a master, only its own `ROLE`
//!   proves it, and only a proven one is published.
//! * Every input ends in `settle`: forget what has expired, compare the views, take at most a few
//!   steps, publish what has changed, ask whom it is time to ask. So no order of inputs is special.
//! * A question is always open or due: `poll_timeout` is never `None`.

mod ask;
mod asking;
mod choose;
mod command;
mod decide;
mod fork;
mod learn;
mod majority;
mod nearness;
mod peers;
mod picture;
mod progress;
mod replicas;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::choose::Choice;
pub use self::command::{HOLD_MAX, HoldRefused};
use self::fork::Fork;
use self::peers::Listing;
use self::peers::Node;
use self::peers::Sentinel;
use self::progress::Progress;
use crate::topology::action::{Action, Note};
use crate::topology::event::Event;
use crate::topology::incident::{Cause, Mark, Recorder, Witness};
use crate::topology::names::Names;
use crate::topology::report::{Report, ReportKind};
use crate::topology::settings::{Settings, Source};
use crate::topology::snapshot::{Acks, Phase, Snapshot};
use crate::topology::status::{Ejections, Subscription};
use crate::topology::view::{NodeAnswer, NodeFailure, NodeRole, SentinelFailure, View};
use crate::types::{ConfigEpoch, Generation, NodeAddr, Time};

/// Longest text of one message that the flight recorder keeps, in bytes.
const WORDS_MAX: usize = 160;

/// One master group; see the picture above.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    names: Names,
    hosts: BTreeMap<String, Host>,
    sentinels: BTreeMap<NodeAddr, Sentinel>,
    nodes: BTreeMap<NodeAddr, Node>,
    state: State,
    /// The proven master; `None` in [`State::Unknown`] only.
    master: Option<NodeAddr>,
    epoch: ConfigEpoch,
    hold: Duration,
    down_after: Option<Duration>,
    snapshot: Arc<Snapshot>,
    acks: Acks,
    choice: Choice,
    started: Time,
    /// The moment of the last input.
    now: Time,
    first_view: Option<Time>,
    /// When a Sentinel first named a master.
    first_vote: Option<Time>,
    trouble_until: Time,
    regressed_since: Option<Time>,
    doubt: Option<Doubt>,
    demoted_heard: Option<Time>,
    /// How far the master has come.
    progress: Progress,
    /// Since when fewer than a majority of the Sentinels have answered.
    minority_since: Option<Time>,
    /// Until when writes are held by command.
    commanded: Option<Time>,
    /// When the next question to a Sentinel or a node is due, of those that are not running.
    questions_due: Option<Time>,
    noted: NotedGroup,
    recorder: Recorder,
    counts: Counts,
    actions: VecDeque<Action>,
}

/// Whether writes flow.
#[derive(Debug)]
enum State {
    Unknown,
    Stable,
    Switching(Box<Switching>),
}

/// A hold.
#[derive(Debug)]
struct Switching {
    cause: Cause,
    since: Time,
    /// Proofs older than this are not enough to go on with the old master.
    last_sign: Time,
    /// Of the first snapshot of this hold. A worker that is quiet for it, or for a later one of the
    /// same hold, stays quiet until the hold ends.
    generation: Generation,
    quiet: BTreeSet<usize>,
    /// When another master was first proven.
    proven: Option<Time>,
    fork: Fork,
}

/// A host name that is looked up now and then.
#[derive(Debug, Default)]
struct Host {
    running: bool,
    asked: Option<Time>,
}

/// A master named at a newer epoch that does not prove itself.
#[derive(Debug)]
struct Doubt {
    node: NodeAddr,
    epoch: ConfigEpoch,
    since: Time,
    given_up: bool,
}

/// What was logged and shall not be logged again while it lasts.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about the group"
)]
struct NotedGroup {
    differ: bool,
    regressed: bool,
    outside: bool,
    untold: bool,
}

#[derive(Debug, Default)]
struct Counts {
    completed: u64,
    abandoned: u64,
    ejections: BTreeMap<NodeAddr, Ejections>,
    last_took: Option<Duration>,
}

// Constructor and inputs.
impl Machine {
    /// A machine that knows nothing yet; its first actions are waiting.
    pub fn new(settings: Settings, now: Time) -> Self {
        let hold = settings.hold.time(None);
        let mut machine = Self {
            names: Names::new(),
            hosts: BTreeMap::new(),
            sentinels: BTreeMap::new(),
            nodes: BTreeMap::new(),
            state: State::Unknown,
            master: None,
            epoch: ConfigEpoch::default(),
            hold,
            down_after: None,
            snapshot: Arc::new(Snapshot::unknown(hold)),
            acks: Acks::Given,
            choice: Choice::Nothing,
            started: now,
            now,
            first_view: None,
            first_vote: None,
            trouble_until: now,
            regressed_since: None,
            doubt: None,
            demoted_heard: None,
            progress: Progress::default(),
            minority_since: None,
            commanded: None,
            questions_due: None,
            noted: NotedGroup::default(),
            recorder: Recorder::new(),
            counts: Counts::default(),
            actions: VecDeque::new(),
            settings,
        };
        machine.begin();
        machine
    }

    /// A Sentinel has published `payload` on `channel`.
    pub fn handle_event(&mut self, now: Time, sentinel: &NodeAddr, channel: &str, payload: &str) {
        self.now = self.now.max(now);
        let Some(event) = Event::parse(channel, payload, &self.settings.master_name) else {
            return;
        };
        if self.sentinels.contains_key(sentinel) {
            self.mark(
                Witness::Sentinel(sentinel.clone()),
                format!("{channel} {payload}"),
            );
            self.heard(sentinel, event);
            self.settle();
        }
    }

    /// The subscription to a Sentinel changed. Once it is on, that Sentinel is asked: what happened
    /// before was not heard.
    pub fn handle_subscription(&mut self, now: Time, sentinel: &NodeAddr, state: Subscription) {
        self.now = self.now.max(now);
        let Some(known) = self.sentinels.get_mut(sentinel) else {
            return;
        };
        match state {
            Subscription::On => known.ask.want_now(),
            Subscription::Off | Subscription::Lost { .. } => known.ask.want(),
            Subscription::Forbidden => {}
        }
        let newly = known.subscription != state;
        known.subscription = state;
        if newly && known.subscription == Subscription::Forbidden {
            self.note(Note::SubscriptionForbidden {
                sentinel: sentinel.clone(),
            });
        }
        self.settle();
    }

    /// A Sentinel has answered the question of [`Action::AskSentinel`].
    pub fn handle_view(&mut self, now: Time, sentinel: &NodeAddr, view: View) {
        self.now = self.now.max(now);
        self.learn_view(sentinel, view);
        self.settle();
    }

    /// A Sentinel has not answered it. `dice` is any random word.
    pub fn handle_view_failed(
        &mut self,
        now: Time,
        sentinel: &NodeAddr,
        failure: SentinelFailure,
        dice: u32,
    ) {
        self.now = self.now.max(now);
        self.miss_view(sentinel, failure, dice);
        self.settle();
    }

    /// A node has answered the question of [`Action::AskNode`].
    pub fn handle_node(&mut self, now: Time, node: &NodeAddr, answer: NodeAnswer) {
        self.now = self.now.max(now);
        self.learn_node(node, answer);
        self.settle();
    }

    /// A node has not answered it. `dice` is any random word.
    pub fn handle_node_failed(
        &mut self,
        now: Time,
        node: &NodeAddr,
        failure: NodeFailure,
        dice: u32,
    ) {
        self.now = self.now.max(now);
        self.miss_node(node, failure, dice);
        self.settle();
    }

    /// Our own connection to a node has ended without our doing: it is asked at once.
    ///
    /// Nodes drop their connections when Sentinel reconfigures them, and when they die.
    pub fn handle_node_lost(&mut self, now: Time, node: &NodeAddr) {
        self.now = self.now.max(now);
        if let Some(known) = self.nodes.get_mut(node) {
            known.ask.want();
            self.settle();
        }
    }

    /// A host name was looked up; no IPs where that failed.
    pub fn handle_resolved(&mut self, now: Time, host: &str, ips: Vec<IpAddr>) {
        self.now = self.now.max(now);
        if let Some(known) = self.hosts.get_mut(host) {
            known.running = false;
            self.names.learn_ips(host, ips);
            self.settle();
        }
    }

    /// A worker reports.
    pub fn handle_report(&mut self, now: Time, report: Report) {
        self.now = self.now.max(now);
        let Report { worker, kind } = report;
        match kind {
            ReportKind::Quiet { generation } => {
                let workers = self.settings.workers;
                if let State::Switching(hold) = &mut self.state
                    && generation >= hold.generation
                    && worker < workers
                {
                    hold.quiet.insert(worker);
                }
            }
            ReportKind::LinkLost { node } => {
                self.accuse(worker, &node, "lost its connection to");
            }
            ReportKind::ConnectFailed { node } => {
                self.accuse(worker, &node, "cannot connect to");
            }
            ReportKind::Silent { node } => {
                self.accuse(worker, &node, "waits for overdue replies of");
            }
            ReportKind::Demoted { node } => {
                if self.is_master(&node) {
                    self.demoted_heard = Some(now);
                    self.sign();
                    self.want_all_sentinels();
                }
                self.accuse(worker, &node, "was told READONLY by");
            }
            ReportKind::Outlier { node, why, time } => self.avoided(worker, &node, (why, time)),
        }
        self.settle();
    }

    /// It is time for something that [`Machine::poll_timeout`] has named.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = self.now.max(now);
        self.settle();
    }
}

// Outputs.
impl Machine {
    /// The next thing to do; call until `None` after each input.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Machine::handle_timeout`] is to be called, if no input comes before.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.next_due()
            .into_iter()
            .chain(self.next_deadline())
            .min()
    }

    /// The last picture published.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

// What every part of the machine uses.
impl Machine {
    fn begin(&mut self) {
        match self.settings.source.clone() {
            Source::Sentinels(seeds) => {
                for seed in seeds {
                    self.add_sentinel(seed, true);
                }
            }
            Source::Static { master, replicas } => {
                self.node_mut(&master).ask.want();
                for replica in replicas {
                    let listings = &mut self.node_mut(&replica).listings;
                    // The configuration lists it, in the place of a Sentinel.
                    let listing = Listing {
                        verdict: Ok(()),
                        master: Some(master.clone()),
                    };
                    listings.insert(replica, listing);
                }
            }
        }
        self.settle();
    }

    fn add_sentinel(&mut self, addr: NodeAddr, seed: bool) {
        if !self.sentinels.contains_key(&addr) {
            self.actions.push_back(Action::AddSentinel(addr.clone()));
            self.sentinels.insert(
                addr,
                Sentinel {
                    seed,
                    ..Sentinel::default()
                },
            );
        }
    }

    /// One round: everything that follows from what is known now.
    fn settle(&mut self) {
        self.expire();
        self.compare_views();
        // A switch may uncover a cause to hold again at once; no state follows a third one.
        for _ in 0..3 {
            self.watch_fork();
            let moved = self.step();
            self.judge_replicas();
            self.publish();
            if !moved {
                break;
            }
        }
        self.ask_due();
    }

    /// Publishes the picture if it differs from the last one in anything but its number.
    fn publish(&mut self) {
        let phase = match &self.state {
            State::Unknown => Phase::Unknown,
            State::Stable => Phase::Stable,
            State::Switching(hold) => Phase::Switching { since: hold.since },
        };
        let replicas = self.serving();
        let distances = self.distances(&replicas);
        let picture = Snapshot {
            generation: self.snapshot.generation,
            epoch: self.epoch,
            no_majority: phase != Phase::Stable && self.lacks_majority(),
            name_unknown: phase == Phase::Unknown && self.is_name_unknown(),
            phase,
            master: self.master.clone(),
            acks: self.acks,
            lagging: replicas.is_empty() && self.is_held_back_by_lag(),
            replicas,
            distances,
            hold: self.hold,
        };
        if picture != *self.snapshot {
            let generation = picture.generation.next();
            self.snapshot = Arc::new(Snapshot {
                generation,
                ..picture
            });
            self.actions
                .push_back(Action::Publish(Arc::clone(&self.snapshot)));
        }
    }

    const fn is_static(&self) -> bool {
        matches!(self.settings.source, Source::Static { .. })
    }

    fn is_master(&self, node: &NodeAddr) -> bool {
        self.master
            .as_ref()
            .is_some_and(|master| self.names.same(master, node))
    }

    fn master_node(&self) -> Option<&Node> {
        self.nodes.get(self.master.as_ref()?)
    }

    /// When `node` was asked the question whose answer proves it to be master, if it is proven.
    fn proof(&self, node: &NodeAddr) -> Option<Time> {
        let known = self.nodes.get(node)?;
        let untold_is_enough = self.is_static();
        known.proven().or_else(|| match known.role()? {
            // The configuration itself vouches for a master that cannot be asked.
            NodeRole::Busy | NodeRole::Untold { .. } if untold_is_enough => {
                Some(known.answer.as_ref()?.asked)
            }
            _ => None,
        })
    }

    /// The memory of `node`, under whichever of its addresses it is known.
    fn node_mut(&mut self, node: &NodeAddr) -> &mut Node {
        let known = if self.nodes.contains_key(node) {
            None
        } else {
            self.nodes
                .keys()
                .find(|key| self.names.same(key, node))
                .cloned()
        };
        let key = known.unwrap_or_else(|| node.clone());
        self.nodes.entry(key).or_insert_with(|| Node::new(self.now))
    }

    fn want_all_sentinels(&mut self) {
        for sentinel in self.sentinels.values_mut() {
            sentinel.ask.want();
        }
    }

    fn want_master(&mut self) {
        if let Some(node) = self
            .master
            .as_ref()
            .and_then(|master| self.nodes.get_mut(master))
        {
            node.ask.want();
        }
    }

    /// Something speaks against the master: proofs from before do not count any more.
    fn sign(&mut self) {
        if let State::Switching(hold) = &mut self.state {
            hold.last_sign = self.now;
        }
        self.want_master();
        self.trouble();
    }

    fn trouble(&mut self) {
        self.trouble_until = self.now + self.settings.timings.trouble;
    }

    fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }

    fn mark(&mut self, who: Witness, mut what: String) {
        if what.len() > WORDS_MAX {
            let end = (0..=WORDS_MAX)
                .rev()
                .find(|end| what.is_char_boundary(*end));
            what.truncate(end.unwrap_or(0));
        }
        self.recorder.mark(Mark {
            at: self.now,
            who,
            what,
        });
    }
}
