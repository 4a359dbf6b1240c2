//! Clients that subscribe, and the messages that masters publish. Nobody hears of a channel twice,
//! and whoever has subscribed hears on after a switch.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write;

use switchman::exchange::ClientKey;
use switchman::resp::encode;
use switchman::route::Access;

use crate::book::Broken;
use crate::plan::{Micros, ms};
use crate::world::{Event, Mutation, World};

/// Channels, one bit each.
pub(crate) const CHANNELS: [&str; 2] = ["c0", "c1"];

/// The one that nobody hears.
pub(crate) const NOBODYS: &str = "__switchman__:nobody";
/// Requests that a listener leaves unanswered at most.
const OPEN_MAX: usize = 3;

/// What a listener waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    On(usize),
    Off(usize),
    Ping(u64),
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) worker: usize,
    key: ClientKey,
    heard: Vec<u8>,
    asked: VecDeque<Asked>,
    /// Channels that it was told it hears, one bit each.
    channels: u8,
    /// Messages that it has heard.
    messages: BTreeSet<usize>,
    /// Whether one of them was published when all was calm again.
    revived: bool,
    pings: u64,
    dice: fastrand::Rng,
}

/// When a message was published, and on which channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    at: Micros,
    channel: usize,
}

impl Listener {
    /// Whether it has heard something new since all is calm.
    pub(crate) fn is_served(&self) -> bool {
        self.revived
    }

    /// Whether it waits for a reply.
    pub(crate) fn waits(&self) -> bool {
        !self.asked.is_empty()
    }
}

impl World {
    pub(crate) fn begin_to_listen(&mut self, mut dice: fastrand::Rng) -> Listener {
        let worker = dice.usize(..self.workers.len());
        let now = self.time();
        self.next_client += 1;
        let number = self.next_client;
        let key = self.workers[worker]
            .exchange
            .client_joined(0, Access::default(), number, now);
        Listener {
            worker,
            key,
            heard: Vec::new(),
            asked: VecDeque::new(),
            channels: 0,
            messages: BTreeSet::new(),
            revived: false,
            pings: 0,
            dice,
        }
    }

    /// A listener asks for something.
    pub(crate) fn listen(&mut self, at: usize) {
        let listener = &mut self.listeners[at];
        let pause = listener.dice.u64(ms(50)..ms(300));
        let pick = listener.dice.u32(..8);
        let (worker, key) = (listener.worker, listener.key);
        self.later(pause, Event::Listen(at));
        let listener = &mut self.listeners[at];
        let wants = self.workers[worker].exchange.wants_input(key);
        if listener.asked.len() >= OPEN_MAX || !wants {
            return;
        }
        let pending = |channel| {
            let about =
                |asked: &&Asked| matches!(asked, Asked::On(of) | Asked::Off(of) if *of == channel);
            listener.asked.iter().any(|asked| about(&asked))
        };
        let asked = match pick {
            _ if listener.channels & 1 == 0 && !pending(0) => Asked::On(0),
            _ if listener.channels & 1 == 0 => return,
            0 | 1 if pending(1) => return,
            0 | 1 if listener.channels & 2 == 0 => Asked::On(1),
            0 => Asked::Off(1),
            _ => Asked::Ping(listener.pings + 1),
        };
        let mut bytes = Vec::new();
        match asked {
            Asked::On(channel) => {
                encode::request(&mut bytes, &[b"SUBSCRIBE", CHANNELS[channel].as_bytes()]);
            }
            Asked::Off(channel) => {
                encode::request(&mut bytes, &[b"UNSUBSCRIBE", CHANNELS[channel].as_bytes()]);
            }
            Asked::Ping(number) => {
                listener.pings = number;
                encode::request(&mut bytes, &[b"PING", number.to_string().as_bytes()]);
            }
        }
        listener.asked.push_back(asked);
        note!(self, "listener {at} asks {asked:?}");
        let now = self.time();
        self.workers[worker].exchange.client_bytes(key, &bytes, now);
        self.perform(worker);
    }

    /// Every master publishes something of its own.
    pub(crate) fn broadcast(&mut self) {
        let pause = self.control.dice_of_messages.u64(ms(50)..ms(250));
        self.later(pause, Event::Broadcast);
        for node in 0..self.nodes.len() {
            let publisher = &self.nodes[node];
            if publisher.follows.is_some() || !publisher.is_up() || publisher.is_paused(self.now) {
                continue;
            }
            let number = self.messages.len();
            let channel = number / 2 % CHANNELS.len();
            let at = self.now;
            self.messages.push(Message { at, channel });
            let (name, text) = (CHANNELS[channel], number.to_string());
            let count = text.len();
            let frame = format!("*3\r\n$7\r\nmessage\r\n$2\r\n{name}\r\n${count}\r\n{text}\r\n");
            for conn in 0..self.conns.len() {
                let wire = &self.conns[conn];
                let hears = wire.node == node && wire.theirs && wire.channels & (1 << channel) != 0;
                if hears && !wire.ends && !self.suffers(Mutation::Unheard) {
                    let down = &mut self.conns[conn].down;
                    down.extend_from_slice(frame.as_bytes());
                    self.deliver_later(conn);
                }
            }
        }
    }

    /// A node's reply to SUBSCRIBE or UNSUBSCRIBE of these channels.
    pub(crate) fn tune(&mut self, conn: usize, channels: u8, on: bool) -> String {
        let wire = &mut self.conns[conn];
        let mut reply = String::new();
        for (channel, name) in CHANNELS.iter().enumerate() {
            let bit = 1_u8 << channel;
            if channels & bit == 0 {
                continue;
            }
            let word = if on {
                wire.channels |= bit;
                "$9\r\nsubscribe"
            } else {
                wire.channels &= !bit;
                "$11\r\nunsubscribe"
            };
            let count = wire.channels.count_ones();
            let _ = write!(reply, "*3\r\n{word}\r\n$2\r\n{name}\r\n:{count}\r\n");
        }
        if reply.is_empty() {
            let (len, count) = (NOBODYS.len(), wire.channels.count_ones());
            let name = format!("${len}\r\n{NOBODYS}");
            let _ = write!(reply, "*3\r\n$11\r\nunsubscribe\r\n{name}\r\n:{count}\r\n");
        }
        if channels != 0 && self.suffers(Mutation::Confirmed) {
            reply = reply.repeat(2);
        }
        reply
    }

    /// Whether the glue is faulty in this way, and there was a switch.
    fn suffers(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation) && self.book.counts.switches > 0
    }

    /// A node's reply to PING.
    pub(crate) fn pong(&mut self, conn: usize, number: u64) -> String {
        let text = number.to_string();
        let text = format!("${}\r\n{text}\r\n", text.len());
        if self.conns[conn].channels == 0 {
            text
        } else {
            format!("*2\r\n$4\r\npong\r\n{text}")
        }
    }

    /// A client that is no other one has output, or was closed.
    pub(crate) fn hear_on(&mut self, (worker, key): (usize, ClientKey), output: &[u8], over: bool) {
        let of = |listener: &Listener| listener.worker == worker && listener.key == key;
        let Some(at) = self.listeners.iter().position(of) else {
            return;
        };
        let mut heard = std::mem::take(&mut self.listeners[at].heard);
        heard.extend_from_slice(output);
        let mut rest = heard.as_slice();
        while let Some((words, length)) = frame(rest) {
            self.judge_frame(at, &words);
            rest = &rest[length..];
        }
        let half = !rest.is_empty();
        self.listeners[at].heard = rest.to_vec();
        if !over {
            return;
        }
        if !half {
            let words = || format!("listener {at} was closed");
            self.book.broke(Broken::Closed, words);
        }
        let now = self.time();
        self.workers[worker].exchange.client_gone(key, now);
        self.perform(worker);
        let dice = self.listeners[at].dice.fork();
        self.listeners[at] = self.begin_to_listen(dice);
    }

    fn judge_frame(&mut self, at: usize, words: &[&str]) {
        note!(self, "listener {at} hears {words:?}");
        let channel_of = |name: &&str| CHANNELS.iter().position(|channel| channel == name);
        let listener = &mut self.listeners[at];
        let answers = match words {
            ["message", name, number] => {
                let channel = channel_of(name);
                let number = number.parse().unwrap_or(usize::MAX);
                return self.judge_message(at, channel, number);
            }
            ["subscribe", name, _] => channel_of(name).map(Asked::On),
            ["unsubscribe", name, _] => channel_of(name).map(Asked::Off),
            ["pong", number] => number.parse().ok().map(Asked::Ping),
            [error] if error.starts_with("-MASTERDOWN switchman: ") => {
                listener.asked.pop_front();
                return;
            }
            _ => None,
        };
        if answers.is_none() || listener.asked.front().copied() != answers {
            let asked = listener.asked.clone();
            return self.book.broke(Broken::Reply, || {
                format!("listener {at} waits for {asked:?} and hears {words:?}")
            });
        }
        listener.asked.pop_front();
        match answers {
            Some(Asked::On(channel)) => listener.channels |= 1 << channel,
            Some(Asked::Off(channel)) => listener.channels &= !(1 << channel),
            _ => {}
        }
    }

    fn judge_message(&mut self, at: usize, channel: Option<usize>, number: usize) {
        let message = self.messages.get(number).copied();
        let listener = &mut self.listeners[at];
        let known = message.is_some_and(|message| Some(message.channel) == channel);
        let wanted = channel.is_some_and(|channel| listener.channels & (1 << channel) != 0);
        if !(known && wanted && listener.messages.insert(number)) {
            return self.book.broke(Broken::Reply, || {
                format!("listener {at} hears message {number} of {channel:?} twice or for nothing")
            });
        }
        listener.revived |= message.is_some_and(|message| message.at >= self.calm_at);
    }
}

/// The words of the first whole frame, and its length.
fn frame(bytes: &[u8]) -> Option<(Vec<&str>, usize)> {
    let line = |from: usize| {
        let rest = bytes.get(from..)?;
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let text = std::str::from_utf8(&rest[..end]).expect("plain text");
        Some((text, from + end + 2))
    };
    let (first, mut at) = line(0)?;
    let Some(count) = first.strip_prefix('*') else {
        return Some((vec![first], at));
    };
    let mut words = Vec::new();
    for _ in 0..count.parse().unwrap_or(0) {
        let (mut word, mut next) = line(at)?;
        if word.starts_with('$') {
            (word, next) = line(next)?;
        }
        words.push(word);
        at = next;
    }
    Some((words, at))
}
