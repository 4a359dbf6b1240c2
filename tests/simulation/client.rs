//! Clients that know nothing: they send batches of writes and reads without waiting, take what
//! comes for the answers in their order, and are told the truth or not.

use std::collections::VecDeque;

use switchman::exchange::ClientKey;
use switchman::resp::encode;
use switchman::route::Access;
use switchman::topology::Phase;

use crate::book::{Broken, Command, Fate, Id, Verb};
use crate::listener::Listener;
use crate::plan::{Habit, Micros, ms, sec};
use crate::world::{Event, World};

/// Commands that a client leaves unanswered at most.
const OPEN_MAX: usize = 12;
/// How long commands want to wait.
const WAITS: [Micros; 3] = [ms(100), ms(600), sec(2)];
/// By how much a wait may be rounded: timeouts to a millisecond, and times of arrival that differ
/// by less than 10 are not told apart.
const ROUNDED: Micros = ms(11);
/// Commands that must succeed one after the other before a calm world counts as served.
const PROVEN: u32 = 4;

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: usize,
    pub(crate) key: ClientKey,
    habit: Habit,
    /// Commands not taken by Switchman yet.
    bytes: Vec<u8>,
    /// Where each of them ends in `bytes`.
    ends: VecDeque<(Id, usize)>,
    /// Commands without an answer.
    pub(crate) sent: VecDeque<Id>,
    heard: Vec<u8>,
    /// When an answer came, or anything was in flight, the last time.
    pub(crate) waits_since: Micros,
    /// Commands of the calm that succeeded, one after the other.
    proven: u32,
    offers: bool,
    /// Whether it has sent MULTI, and no EXEC yet.
    inside: bool,
    /// What was queued, as it was told.
    queued: Vec<Id>,
    /// Elements of an array that are missing, and those that came.
    array: Option<(usize, Vec<String>)>,
    dice: fastrand::Rng,
}

impl World {
    pub(crate) fn join(&mut self, habit: Habit, dice: fastrand::Rng) -> Client {
        let mut dice = dice;
        let worker = dice.usize(..self.workers.len());
        let now = self.time();
        self.next_client += 1;
        let key = self.workers[worker].exchange.client_joined(
            0,
            Access::default(),
            self.next_client,
            now,
        );
        Client {
            worker,
            key,
            habit,
            bytes: Vec::new(),
            ends: VecDeque::new(),
            sent: VecDeque::new(),
            heard: Vec::new(),
            waits_since: self.now,
            proven: 0,
            offers: false,
            inside: false,
            queued: Vec::new(),
            array: None,
            dice,
        }
    }

    /// A client leaves, and another one comes in its place.
    pub(crate) fn hang_up(&mut self, at: usize) {
        let (worker, key) = (self.clients[at].worker, self.clients[at].key);
        let client = &mut self.clients[at];
        let unheard = std::mem::take(&mut client.sent).into_iter();
        for id in unheard.chain(std::mem::take(&mut client.queued)) {
            self.book.commands[id].fate = Fate::Unheard;
        }
        let now = self.time();
        self.workers[worker].exchange.client_gone(key, now);
        self.perform(worker);
        let (habit, dice) = (self.clients[at].habit, self.clients[at].dice.fork());
        let proven = self.clients[at].proven;
        self.clients[at] = self.join(habit, dice);
        self.clients[at].proven = proven;
    }

    /// A client sends a batch.
    pub(crate) fn talk(&mut self, at: usize) {
        let calm = self.is_calm();
        let client = &mut self.clients[at];
        let (habit, dice) = (client.habit, &mut client.dice);
        let pause = if calm { ms(150) } else { habit.pause };
        let count = dice.usize(1..=habit.batch);
        let pause = dice.u64(pause / 4..=pause);
        self.later(pause, Event::Talk(at));
        for _ in 0..count {
            if self.clients[at].sent.len() < OPEN_MAX {
                self.compose(at);
            }
        }
        self.offer(at);
    }

    fn compose(&mut self, at: usize) {
        let id = self.book.commands.len();
        let client = &mut self.clients[at];
        let inside = client.inside;
        let verb = match client.dice.u32(..30) {
            0 | 1 if !inside => Verb::Multi,
            0..10 if inside => Verb::Exec,
            2 | 3 if !inside => Verb::Pop,
            number if client.dice.u32(..10) < client.habit.writes => match number % 5 {
                0 => Verb::Push,
                _ => Verb::Set,
            },
            _ => Verb::Get,
        };
        note!(self, "client {at} sends {id}: {verb:?}");
        let client = &mut self.clients[at];
        client.inside = verb == Verb::Multi || (inside && verb != Verb::Exec);
        let named = match verb {
            Verb::Get => format!("k#{id}"),
            Verb::Pop => format!("q#{id}"),
            _ => id.to_string(),
        };
        let (timeout, wait) = match verb {
            Verb::Pop => {
                let timeout = *client.dice.choice(&WAITS).expect("not empty");
                let wait = format!("{}.{:03}", timeout / sec(1), timeout % sec(1) / ms(1));
                (timeout, wait)
            }
            _ => (0, String::new()),
        };
        let words: &[&[u8]] = match verb {
            Verb::Push => &[b"RPUSH", b"q", named.as_bytes()],
            Verb::Pop => &[b"BLPOP", named.as_bytes(), wait.as_bytes()],
            Verb::Set => &[b"SET", b"k", named.as_bytes()],
            Verb::Get => &[b"GET", named.as_bytes()],
            Verb::Multi => &[b"MULTI"],
            Verb::Exec => &[b"EXEC"],
        };
        encode::request(&mut client.bytes, words);
        client.ends.push_back((id, client.bytes.len()));
        client.sent.push_back(id);
        self.book.commands.push(Command {
            client: at,
            verb,
            inside,
            made: self.now,
            arrived: None,
            // Without a number they are not recognised on their way.
            wired: matches!(verb, Verb::Multi | Verb::Exec),
            disowned: false,
            times: 0,
            node: 0,
            held_by: 0,
            fate: Fate::Open,
            timeout,
            waited: 0,
            blocked_at: 0,
            element: None,
            gated: false,
        });
    }

    /// Switchman reads what a client has sent, if it wants to, all of it or a part.
    pub(crate) fn offer(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.offers = false;
        let worker = client.worker;
        if client.bytes.is_empty() || !self.workers[worker].exchange.wants_input(client.key) {
            return;
        }
        let mut count = client.bytes.len();
        if client.dice.u32(..8) == 0 {
            count = client.dice.usize(1..=count);
        }
        let chunk: Vec<u8> = client.bytes.drain(..count).collect();
        while let Some((id, end)) = client.ends.front().copied()
            && end <= count
        {
            client.ends.pop_front();
            self.book.commands[id].arrived = Some(self.now);
        }
        for (_, end) in &mut client.ends {
            *end -= count;
        }
        let key = client.key;
        if !client.bytes.is_empty() {
            client.offers = true;
            let delay = client.dice.u64(50..ms(2));
            self.later(delay, Event::Offer(at));
        }
        let now = self.time();
        self.workers[worker].exchange.client_bytes(key, &chunk, now);
        self.perform(worker);
    }

    /// A client has output, or may be read from again.
    pub(crate) fn hear(&mut self, worker: usize, key: ClientKey) {
        let now = self.time();
        let exchange = &mut self.workers[worker].exchange;
        let output = exchange.output(key).to_vec();
        if !output.is_empty() {
            exchange.took(key, output.len(), now);
        }
        let finished = exchange.is_finished(key);
        let of = |client: &Client| client.worker == worker && client.key == key;
        let Some(at) = self.clients.iter().position(of) else {
            return self.hear_on((worker, key), &output, finished);
        };
        self.clients[at].heard.extend_from_slice(&output);
        self.understand(at);
        let client = &mut self.clients[at];
        if finished {
            let half = !client.heard.is_empty() || client.array.is_some();
            if !half {
                self.book
                    .broke(Broken::Closed, || format!("client {at} was closed"));
            }
            self.hang_up(at);
        } else if !client.bytes.is_empty() && !client.offers {
            client.offers = true;
            self.later(1, Event::Offer(at));
        }
    }

    /// Takes whole replies off what a client has heard.
    fn understand(&mut self, at: usize) {
        let heard = std::mem::take(&mut self.clients[at].heard);
        let mut rest = heard.as_slice();
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            rest = &rest[end + 2..];
            self.judge_line(at, &line);
        }
        self.clients[at].heard = rest.to_vec();
    }

    /// One line: a reply, or a piece of the reply to EXEC.
    fn judge_line(&mut self, at: usize, line: &str) {
        let client = &mut self.clients[at];
        if let Some((missing, lines)) = &mut client.array {
            lines.push(line.to_owned());
            *missing -= 1;
        } else if let Some(count) = line.strip_prefix('*').filter(|count| *count != "-1") {
            client.array = Some((count.parse().unwrap_or(0), Vec::new()));
        } else {
            return self.judge_reply(at, line, &[]);
        }
        if let Some((0, lines)) = self.clients[at].array.take_if(|array| array.0 == 0) {
            self.judge_reply(at, "*", &lines);
        }
    }

    fn judge_reply(&mut self, at: usize, line: &str, lines: &[String]) {
        let now = self.now;
        let client = &mut self.clients[at];
        client.waits_since = now;
        let Some(id) = client.sent.pop_front() else {
            return self
                .book
                .broke(Broken::Reply, || format!("nobody asked for {line}"));
        };
        note!(self, "client {at} hears of {id}: {line:.40}");
        let command = self.book.commands[id];
        let refusals = [
            "-MASTERDOWN switchman: ",
            "-ERR switchman: ",
            "-READONLY ",
            "-EXECABORT ",
            "-ERR EXEC without MULTI",
        ];
        let own = match command.verb {
            Verb::Set | Verb::Get | Verb::Push => {
                line.strip_prefix("+DONE#")
                    .and_then(|number| number.parse().ok())
                    == Some(id)
            }
            Verb::Pop => line == "*" && is_element(id, &command, lines),
            Verb::Multi => line == "+OK",
            Verb::Exec => line == "*",
        };
        let fate = if own {
            Fate::Done
        } else if line == "*-1" && command.verb == Verb::Pop {
            Fate::Nil
        } else if line == "+QUEUED" && command.inside {
            Fate::Queued
        } else if line.starts_with("-UNCERTAIN switchman: ") {
            Fate::Uncertain
        } else if refusals.iter().any(|words| line.starts_with(words)) {
            Fate::Refused
        } else {
            return self
                .book
                .broke(Broken::Reply, || format!("{id} is answered with {line}"));
        };
        self.learn(at, id, fate);
        if fate == Fate::Nil {
            self.judge_wait(id);
        } else if command.verb == Verb::Exec {
            self.judge_exec(at, fate, lines);
        } else if fate == Fate::Queued {
            self.clients[at].queued.push(id);
        }
        let calm = self.is_calm() && command.made >= self.calm_at;
        let client = &mut self.clients[at];
        client.proven = match fate {
            Fate::Done | Fate::Queued | Fate::Nil if calm => client.proven + 1,
            _ => 0,
        };
    }

    /// There was nothing until the time of a command was over.
    fn judge_wait(&mut self, id: Id) {
        let (now, command) = (self.now, self.book.commands[id]);
        let since = command.arrived.unwrap_or(now);
        if now + ROUNDED < since + command.timeout {
            self.book.broke(Broken::Wait, || {
                format!(
                    "{id} waits since {since} for {}, and not longer than to {now}",
                    command.timeout
                )
            });
        }
    }

    /// The commands of a transaction have its fate.
    fn judge_exec(&mut self, at: usize, fate: Fate, lines: &[String]) {
        let queued = std::mem::take(&mut self.clients[at].queued);
        let own = queued.iter().map(|id| format!("+DONE#{id}"));
        if fate == Fate::Done && !own.eq(lines.iter().cloned()) {
            self.book.broke(Broken::Reply, || {
                format!("{queued:?} are answered with {lines:?}")
            });
        }
        for id in queued {
            self.learn(at, id, fate);
        }
    }

    fn learn(&mut self, at: usize, id: Id, fate: Fate) {
        self.book.told(id, fate);
        if self.book.commands[id].writes() && fate == Fate::Done {
            self.acknowledged(at, id);
        }
    }

    /// A write was acknowledged: is the node that executed it being left?
    fn acknowledged(&mut self, at: usize, id: Id) {
        let node = self.book.commands[id].node;
        let snapshot = &self.workers[self.clients[at].worker].snapshot;
        let master = snapshot
            .master
            .as_ref()
            .and_then(|master| self.names.node(master));
        match (snapshot.phase, master) {
            (Phase::Stable, Some(master)) if master != node => {
                self.book.past_the_fork(id, node, master);
            }
            (Phase::Switching { .. }, Some(_)) => self.book.suspects.push((id, node)),
            _ => {}
        }
    }

    /// Whether all clients are served again.
    pub(crate) fn is_served(&self) -> bool {
        let heard = self.listeners.iter().all(Listener::is_served);
        heard && self.clients.iter().all(|client| client.proven >= PROVEN)
    }
}

/// Whether the reply to BLPOP is what it has taken.
fn is_element(id: Id, command: &Command, lines: &[String]) -> bool {
    let element = command.element.map(|element| format!("+E{element}#{id}"));
    matches!(lines, [list, taken] if list == "+q" && Some(taken) == element.as_ref())
}
