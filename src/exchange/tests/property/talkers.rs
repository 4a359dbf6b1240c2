//! Floor 4. Tests: The clients of an invented world: what they say, and what they make of replies.

use super::*;
use crate::route::Reads;
use crate::types::ListenerRole;

/// So many talkers send nothing before they have heard what they have asked for.
const WAITING: usize = 3;

/// A name that some servers take for another one: no node may see it.
const ZERO: &str = "SET\0x";

/// A user who is let in nowhere.
pub(super) const NOBODY: &str = "nobody";

impl Sim {
    pub(super) fn talk(&mut self) {
        let at = self.dice.usize(..self.talkers.len());
        if self.talkers[at].key.is_none() {
            let id = self.next_id;
            let access = match self.dice.u32(0..4) {
                0 => Access::new(ListenerRole::Split, Reads::Master),
                _ => Access::default(),
            };
            let key = self.exchange.client_joined(0, access, id, self.now);
            self.talkers[at] = Talker {
                key: Some(key),
                ..Talker::default()
            };
        }
        let key = self.talkers[at].key.unwrap();
        if !self.exchange.wants_input(key) {
            return;
        }
        // Some wait for each reply.
        let waits = at < WAITING;
        if waits && !self.talkers[at].sent.is_empty() && self.talkers[at].bytes.is_empty() {
            return;
        }
        if self.talkers[at].bytes.len() < 200 && !self.talkers[at].quits {
            let most = if waits { 2 } else { 4 };
            for _ in 0..self.dice.usize(1..most) {
                self.compose(at);
            }
        }
        let bytes = &mut self.talkers[at].bytes;
        let least = if waits { bytes.len() } else { 0 };
        let count = self.dice.usize(least..=bytes.len());
        let chunk: Vec<_> = bytes.drain(..count).collect();
        self.send(key, &chunk);
    }

    /// Adds a command or a transaction to what a client sends.
    pub(super) fn compose(&mut self, at: usize) {
        let key = self.dice.u32(0..4);
        match self.dice.u32(0..43) {
            0..12 => self.say(at, "SET", key),
            12..20 => self.say(at, "GET", key),
            20..24 => self.say(at, "LCS", key),
            24..26 => self.say(at, "DBSIZE", key),
            26..28 => self.say(at, "BLPOP", key),
            28..30 => self.say(at, "SELECT", key % 2),
            30 => self.say(at, "PING", key),
            31 | 35..38 => self.say(at, "BIG", key),
            // One that is refused is heard, and silences nothing.
            32 if self.logins == Logins::None => {
                self.say(at, "SKIP", key);
                self.say(at, "SET", key);
            }
            33 => self.say(at, "CONFIG", key),
            38 => self.say(at, "PAUSE", key),
            39 => self.say(at, ZERO, key),
            40 | 41 if self.logins == Logins::Given => self.say(at, "AUTH", key),
            42 if self.logins == Logins::Given => self.say(at, "RESET", key),
            34 if self.dice.u32(0..10) == 0 => self.say(at, "QUIT", key),
            _ => self.compose_transaction(at),
        }
    }

    pub(super) fn compose_transaction(&mut self, at: usize) {
        if self.dice.u32(0..3) == 0 {
            self.say(at, "WATCH", 1);
            if self.dice.bool() {
                self.say(at, "GET", 1);
            }
        }
        self.say(at, "MULTI", 0);
        for _ in 0..self.dice.u32(0..4) {
            let word = *self.dice.choice(&["SET", "GET", "PING", "BLPOP"]).unwrap();
            self.say(at, word, 2);
        }
        match self.dice.u32(0..12) {
            0 => self.say(at, "REPLICAOF", 0),
            1 => self.say(at, ZERO, 0),
            _ => {}
        }
        let word = if self.dice.u32(0..6) == 0 {
            "DISCARD"
        } else {
            "EXEC"
        };
        self.say(at, word, 0);
    }

    pub(super) fn say(&mut self, at: usize, word: &str, key: u32) {
        let id = self.next_id;
        self.next_id += 1;
        let line = match word {
            "SET" => format!("SET k{key} {id}"),
            "GET" => format!("GET k{key}#{id}"),
            "LCS" => format!("LCS k{key} #{id}"),
            "BIG" => format!("GET big#{id}"),
            "BLPOP" => format!(
                "BLPOP q{key}#{id} {}",
                ["0", "0.5"][usize::from(id % 2 == 1)]
            ),
            "DBSIZE" => format!("OBJECT FREQ k#{id}"),
            "SELECT" => format!("SELECT {key}"),
            "SKIP" => "CLIENT REPLY SKIP".to_owned(),
            "WATCH" => "WATCH w".to_owned(),
            "CONFIG" => format!("CONFIG SET x {id}"),
            "PING" => format!("PING {id}"),
            "PAUSE" => format!("CLIENT PAUSE {} {id}", key * 300),
            "REPLICAOF" => "REPLICAOF NO ONE".to_owned(),
            ZERO => format!("{ZERO} {id}"),
            "AUTH" => {
                let user = match key {
                    0 => NOBODY,
                    1 => "ann",
                    _ => "bob",
                };
                format!("AUTH {user} p")
            }
            _ => word.to_owned(),
        };
        self.owner.insert(id, at);
        if self.exchange.groups[0].settings.stamps.is_some() {
            let stamp = self.stamps.stamp(self.stamps.everything());
            self.needs.insert(id, stamp);
        }
        let talker = &mut self.talkers[at];
        talker.bytes.extend_from_slice(&encoded(&line));
        let skips = |sent: &Sent| sent.line == "CLIENT REPLY SKIP";
        let spoken = word != "SKIP" && !talker.sent.back().is_some_and(skips);
        talker.quits |= word == "QUIT";
        talker.sent.push_back(Sent { line, id, spoken });
    }

    /// A client reads some of its output.
    pub(super) fn listen(&mut self) {
        let at = self.dice.usize(..self.talkers.len());
        let most = self.dice.usize(1..40_000);
        self.listen_to(at, most);
    }

    pub(super) fn listen_to(&mut self, at: usize, most: usize) {
        let Some(key) = self.talkers[at].key else {
            return;
        };
        let output = self.exchange.output(key);
        let count = output.len().min(most);
        if output.len() > count {
            self.exchange.stalled(key, self.now);
        }
        let chunk = self.exchange.output(key)[..count].to_vec();
        self.exchange.took(key, count, self.now);
        self.talkers[at].heard.extend_from_slice(&chunk);
        self.understand(at);
        if self.exchange.is_finished(key) {
            let talker = &self.talkers[at];
            let client = self.exchange.clients.get(key).unwrap();
            let half = !talker.heard.is_empty() || client.replies.is_partial();
            assert!(half || talker.quits, "closed without a reason: {client:?}");
            self.exchange.client_gone(key, self.now);
            self.forget(at);
        }
    }

    pub(super) fn hang_up(&mut self) {
        let at = self.dice.usize(..self.talkers.len());
        if let Some(key) = self.talkers[at].key {
            if self.dice.bool() {
                self.exchange.client_ended(key, self.now);
            }
            self.exchange.client_gone(key, self.now);
            self.forget(at);
        }
    }

    /// A client is gone: whatever it did not hear of may have happened once.
    pub(super) fn forget(&mut self, at: usize) {
        let talker = std::mem::take(&mut self.talkers[at]);
        for id in talker.queued.into_iter().flatten() {
            self.allowed.insert(id, (0, 1));
        }
        // Another one on this place begins with an order of its own.
        self.latest.remove(&at);
        self.written.retain(|(owner, _), _| *owner != at);
        for owner in self.owner.values_mut().filter(|owner| **owner == at) {
            *owner = usize::MAX;
        }
    }

    /// Takes whole replies off what a client has heard.
    pub(super) fn understand(&mut self, at: usize) {
        loop {
            while self.talkers[at]
                .sent
                .front()
                .is_some_and(|sent| !sent.spoken)
            {
                let sent = self.talkers[at].sent.pop_front().unwrap();
                self.allowed.insert(sent.id, (0, 1));
            }
            let heard = std::mem::take(&mut self.talkers[at].heard);
            let Ok(Scan::Complete { len, .. }) = ReplyScanner::default().scan(&heard) else {
                self.talkers[at].heard = heard;
                return;
            };
            self.talkers[at].heard = heard[len..].to_vec();
            let reply = String::from_utf8_lossy(&heard[..len]).into_owned();
            let sent = self.talkers[at].sent.pop_front();
            let sent = sent.unwrap_or_else(|| panic!("nobody asked for {reply}"));
            self.judge(at, &sent, &reply);
            if reply.starts_with("+DONE") {
                self.judge_order(&sent, &reply);
            }
        }
    }

    /// Whether a reply says that its request was not executed.
    fn is_not_executed(&self, reply: &str) -> bool {
        let words = [
            "-MASTERDOWN ",
            "-READONLY ",
            "-ERR switchman: ",
            "-LOADING ",
        ];
        let locked_out = self.was_kept_out && reply.starts_with("-NOAUTH ");
        locked_out || words.iter().any(|text| reply.starts_with(text))
    }

    /// Whether a reply is one that its request may have, and what it says of the execution.
    pub(super) fn judge(&mut self, at: usize, sent: &Sent, reply: &str) {
        let word = sent.line.split(' ').next().unwrap();
        let own = is_own(sent, word, reply);
        let uncertain = reply.starts_with("-UNCERTAIN ");
        // Its own time was over before it had a master.
        let in_vain = word == "BLPOP" && reply == "*-1\r\n";
        let refused = in_vain || self.is_not_executed(reply);
        let talker = &mut self.talkers[at];
        let in_multi = talker.queued.is_some();
        let fine = own || uncertain || refused;
        let fate = if own && word != ZERO {
            (1, 1)
        } else if uncertain {
            (0, 1)
        } else {
            (0, 0)
        };
        match word {
            "AUTH" | "RESET" | "SELECT" if reply.starts_with('+') => {
                talker.turn_into(&sent.line);
            }
            "WATCH" => talker.watched = true,
            "MULTI" if own || uncertain => talker.queued = Some(Vec::new()),
            "EXEC" | "DISCARD" => {
                let null = reply == "*-1\r\n" && talker.watched;
                let without = reply.contains("without MULTI") && !in_multi;
                let aborted = reply.starts_with("-EXECABORT ");
                assert!(fine || null || without || aborted, "{sent:?} {reply}");
                let happened = word == "EXEC" && own && !null;
                assert!(!happened || !talker.spoilt, "{sent:?} {reply}");
                let fate = match (happened, uncertain) {
                    (true, _) => (1, 1),
                    (false, true) => (0, 1),
                    (false, false) => (0, 0),
                };
                for id in talker.queued.take().into_iter().flatten() {
                    self.allowed.insert(id, fate);
                }
                talker.watched = false;
                talker.spoilt = false;
                return;
            }
            _ => {}
        }
        if matches!(
            word,
            "MULTI" | "SELECT" | "WATCH" | "QUIT" | "AUTH" | "RESET"
        ) {
            assert!(fine, "{sent:?} {reply}");
        } else if let (Some(queued), true) = (&mut talker.queued, reply == "+QUEUED\r\n") {
            queued.push(sent.id);
        } else {
            assert!(fine, "{sent:?} {reply}");
            talker.spoilt |= in_multi;
            if word != "PING" && word != "REPLICAOF" {
                let reads = matches!(word, "GET" | "LCS" | "OBJECT" | "PING");
                let (least, most) = fate;
                let most = if reads { u32::MAX } else { most };
                self.allowed.insert(sent.id, (least, most));
                if fate == (1, 1) {
                    let executed = &self.executed[&sent.id];
                    assert_eq!(executed.user, talker.user, "{sent:?}");
                    let right = reads || executed.database == talker.database;
                    assert!(right, "{sent:?} {executed:?}");
                }
            }
        }
    }

    /// A write that was executed for certain was seen by no read before it.
    fn judge_order(&mut self, sent: &Sent, reply: &str) {
        if let (true, Some(sees)) = (sent.line.starts_with("LCS "), reply.split('#').nth(1)) {
            let sees: u64 = sees.parse().unwrap();
            if sees > sent.id {
                self.foreseen.insert(sees, sent.id);
            }
        }
        if sent.line.starts_with("SET ") {
            let by = self.foreseen.get(&sent.id);
            assert!(by.is_none(), "{sent:?} was seen by the read {by:?}");
        }
    }
}

impl Talker {
    /// Something that changes its session was answered with `+`.
    fn turn_into(&mut self, line: &str) {
        let (word, behind) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "AUTH" => self.user = behind.split(' ').next().map(str::to_owned),
            "SELECT" => self.database = behind.parse().unwrap(),
            _ => {
                self.user = None;
                self.database = 0;
                self.watched = false;
            }
        }
    }
}

/// Whether a reply is the one that its request has when it is executed.
fn is_own(sent: &Sent, word: &str, reply: &str) -> bool {
    match word {
        "RESET" => reply == "+RESET\r\n",
        "AUTH" if sent.line.contains(NOBODY) => reply.starts_with("-WRONGPASS "),
        "MULTI" | "SELECT" | "WATCH" | "DISCARD" | "QUIT" | "AUTH" => reply == "+OK\r\n",
        "EXEC" => reply.starts_with('*') && reply != "*-1\r\n",
        "PING" => reply.contains(&format!("\r\n{}\r\n", sent.id)),
        ZERO => {
            let known = format!("'{}' ", sent.id);
            reply.starts_with("-ERR unknown command ") && reply.contains(&known)
        }
        _ => reply.contains(&format!("#{}\r\n", sent.id)),
    }
}
