//! Data nodes: they execute what arrives, follow a master with some delay, fork when they are
//! promoted, and forget their fork when they follow again.

use std::collections::VecDeque;

use switchman::switchover::Question;

use crate::book::{Id, Verb};
use crate::plan::{Micros, ms};
use crate::world::{Event, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Up,
    /// Stopped; its sockets are still there.
    Frozen,
    Dead,
}

#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent faults and facts"
)]
pub(crate) struct Node {
    pub(crate) life: Life,
    /// Number of its process.
    pub(crate) process: u32,
    /// Whom it follows; `None`: it is a master.
    pub(crate) follows: Option<usize>,
    /// Whether its link to the master was made.
    pub(crate) synced: bool,
    /// Which attempt to follow is the present one.
    attempt: u32,
    /// Number of the history that it writes or follows (`master_replid`).
    pub(crate) story: u32,
    /// The history that it left when it was promoted, and the first write of that one which it
    /// does not have (`master_replid2`, `second_repl_offset`).
    pub(crate) left: Option<(u32, usize)>,
    /// Writes, in the order of its replication stream.
    pub(crate) log: Vec<Id>,
    /// Writes that it executed itself, in order.
    pub(crate) history: Vec<Id>,
    applying: bool,
    /// Elements of the list, by the commands that have pushed them.
    pub(crate) list: VecDeque<Id>,
    /// Connections that wait for elements, and their commands, in their order.
    pub(crate) blocked: VecDeque<(usize, Id)>,
    pub(crate) cut_off: bool,
    pub(crate) shunned: bool,
    pub(crate) unlinked: bool,
    pub(crate) lags: bool,
    /// Since when, and until when, it takes no writes (`CLIENT PAUSE`).
    pub(crate) paused_since: Micros,
    pub(crate) paused_until: Micros,
    /// What it was told while it was frozen.
    pub(crate) orders: Vec<Question>,
    pub(crate) dice: fastrand::Rng,
}

impl Node {
    pub(crate) fn new(follows: Option<usize>, dice: fastrand::Rng) -> Self {
        Self {
            life: Life::Up,
            process: 1,
            follows,
            synced: true,
            attempt: 0,
            story: 1,
            left: None,
            log: Vec::new(),
            history: Vec::new(),
            applying: false,
            list: VecDeque::new(),
            blocked: VecDeque::new(),
            cut_off: false,
            shunned: false,
            unlinked: false,
            lags: false,
            paused_since: 0,
            paused_until: 0,
            orders: Vec::new(),
            dice,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    pub(crate) fn is_paused(&self, now: Micros) -> bool {
        self.paused_until > now
    }
}

/// What a replica says to a write.
pub(crate) const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";

impl World {
    /// The node executes a command; returns what it says.
    pub(crate) fn execute(&mut self, at: usize, id: Id) -> String {
        let writes = self.book.commands[id].writes();
        if writes && self.nodes[at].follows.is_some() {
            self.book.commands[id].disowned = true;
            return READONLY.to_owned();
        }
        self.book.executed(id, at);
        if writes {
            self.record(at, id);
        }
        if self.book.commands[id].verb == Verb::Push {
            self.nodes[at].list.push_back(id);
            self.serve(at);
        }
        format!("+DONE#{id}\r\n")
    }

    /// A write is in the node's history.
    pub(crate) fn record(&mut self, at: usize, id: Id) {
        self.nodes[at].log.push(id);
        self.nodes[at].history.push(id);
        self.stream(at);
    }

    /// The stream of a node reaches those that follow it, some time later.
    fn stream(&mut self, master: usize) {
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.follows == Some(master) && node.synced && !node.applying {
                node.applying = true;
                let lag = if node.lags {
                    ms(800)
                } else {
                    self.plan.pace.lag
                };
                let delay = node.dice.u64(..=lag);
                self.later(delay, Event::Apply(at));
            }
        }
    }

    fn hears(&self, at: usize, master: usize) -> bool {
        let (node, master) = (&self.nodes[at], &self.nodes[master]);
        node.is_up() && master.is_up() && !node.unlinked && !master.unlinked
    }

    pub(crate) fn apply(&mut self, at: usize) {
        self.nodes[at].applying = false;
        let Some(master) = self.nodes[at].follows else {
            return;
        };
        if !self.nodes[at].synced || !self.hears(at, master) {
            return;
        }
        let known = self.nodes[at].log.len();
        let Some(news) = self.nodes[master].log.get(known..) else {
            return;
        };
        let news = news.to_vec();
        let begins = self.nodes[master].log.starts_with(&self.nodes[at].log);
        assert!(
            begins,
            "node {at} follows another history than node {master}'s"
        );
        for id in &news {
            self.book.commands[*id].held_by |= 1 << at;
        }
        self.replay(at, &news);
        self.nodes[at].log.extend(news);
        self.nodes[at].story = self.nodes[master].story;
        self.stream(at);
    }

    /// The node is told whom to follow, as Sentinel does: its clients are dismissed with it.
    pub(crate) fn ordered(&mut self, at: usize, master: Option<usize>) {
        if !self.nodes[at].is_up() || master == Some(at) {
            return;
        }
        note!(self, "node {at} is to follow {master:?}");
        self.follow(at, master);
        self.dismiss(at, false);
    }

    /// An operator makes it a master; its clients stay.
    pub(crate) fn reign(&mut self, at: usize) {
        if self.nodes[at].is_up() {
            self.follow(at, None);
        }
    }

    pub(crate) fn freeze(&mut self, at: usize) {
        if self.nodes[at].is_up() {
            self.nodes[at].life = Life::Frozen;
        }
    }

    pub(crate) fn follow(&mut self, at: usize, master: Option<usize>) {
        if master.is_none() && self.nodes[at].follows.is_some() {
            self.begin_story(at);
        }
        if master.is_some() {
            self.unblock_all(at);
        }
        let node = &mut self.nodes[at];
        node.follows = master;
        node.synced = false;
        node.attempt += 1;
        if master.is_some() {
            let delay = node.dice.u64(ms(1)..ms(60));
            let attempt = node.attempt;
            self.later(delay, Event::Sync(at, attempt));
        }
    }

    /// A node that becomes a master, or is one again, begins a history of its own.
    fn begin_story(&mut self, at: usize) {
        self.stories += 1;
        let story = self.stories;
        let node = &mut self.nodes[at];
        node.left = Some((node.story, node.log.len() + 1));
        node.story = story;
        self.unfollow(at);
    }

    /// It asks its master for everything that it does not have, or for all of it.
    pub(crate) fn sync(&mut self, at: usize, attempt: u32) {
        let node = &self.nodes[at];
        let Some(master) = node
            .follows
            .filter(|_| node.attempt == attempt && !node.synced)
        else {
            return;
        };
        let leads = self.nodes[master].follows != Some(at);
        if !leads || !self.hears(at, master) {
            let delay = self.nodes[at].dice.u64(ms(50)..ms(400));
            return self.later(delay, Event::Sync(at, attempt));
        }
        let log = self.nodes[master].log.clone();
        for id in &log {
            self.book.commands[*id].held_by |= 1 << at;
        }
        let story = self.nodes[master].story;
        let list = self.nodes[master].list.clone();
        // Redis replication.c: a replica that takes up another history sends its own replicas away
        // (`disconnectReplicas`), or they would go on as if theirs were the same.
        if self.nodes[at].story != story || self.nodes[at].log.len() > log.len() {
            self.unfollow(at);
        }
        let node = &mut self.nodes[at];
        node.log = log;
        node.list = list;
        node.story = story;
        node.left = None;
        node.synced = true;
        note!(self, "node {at} has all of node {master}");
    }

    pub(crate) fn kill(&mut self, at: usize) {
        if self.nodes[at].life == Life::Dead {
            return;
        }
        self.nodes[at].life = Life::Dead;
        self.nodes[at].orders.clear();
        self.nodes[at].paused_until = 0;
        self.dismiss(at, true);
        self.unfollow(at);
    }

    /// Those that follow a node lose their links to it, and try to have them again.
    fn unfollow(&mut self, master: usize) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].follows == Some(master) {
                self.follow(at, Some(master));
            }
        }
    }

    pub(crate) fn restart(&mut self, at: usize) {
        if self.nodes[at].life != Life::Dead {
            return;
        }
        self.nodes[at].life = Life::Up;
        self.nodes[at].process += 1;
        let master = self.nodes[at].follows;
        if master.is_none() {
            self.begin_story(at);
        }
        self.follow(at, master);
    }

    pub(crate) fn thaw(&mut self, at: usize) {
        if self.nodes[at].life == Life::Frozen {
            self.nodes[at].life = Life::Up;
            for order in std::mem::take(&mut self.nodes[at].orders) {
                self.obey(at, &order);
            }
            self.go_on(at);
        }
    }

    /// What stood still on the way to a node and back moves again.
    pub(crate) fn go_on(&mut self, at: usize) {
        let way: Micros = self.plan.pace.way;
        for conn in 0..self.conns.len() {
            if self.conns[conn].node == at {
                let delay = self.conns[conn].dice.u64(..=way);
                self.later(delay, Event::Reached(conn));
                self.later(delay, Event::Arrive(conn));
                self.later(delay, Event::Deliver(conn));
            }
        }
        if self.nodes[at].follows.is_some() {
            self.later(0, Event::Apply(at));
        }
        self.stream(at);
    }
}
