//! Floor 4. Tests: The nodes of an invented world, and the wires to them.

use super::talkers::NOBODY;
use super::*;
use crate::exchange::link::Usage;

impl Sim {
    pub(super) fn open_or_refuse(&mut self) {
        let Some(key) = self.any_line() else { return };
        let line = self.lines.get_mut(&key).unwrap();
        if line.open {
            return;
        }
        let wants_master = line.plan.role == Role::Master;
        // A master that was left may not know that it is none.
        let unaware = self.exchange.is_left(key) && self.dice.bool();
        if wants_master != self.nodes[line.node].is_master && !unaware {
            self.exchange
                .link_refused(key, OpenFailure::WrongRole, self.now);
        } else if self.dice.u32(0..8) == 0 {
            self.exchange.link_refused(key, unreachable(), self.now);
        } else if wants_master && self.keeps_out {
            self.exchange.link_refused(key, no_auth(), self.now);
        } else {
            self.open(key);
        }
    }

    pub(super) fn open(&mut self, key: LinkKey) {
        let line = self.lines.get_mut(&key).unwrap();
        if line.user().as_deref() == Some(NOBODY) {
            let refusal = wrong_password();
            return self.exchange.link_refused(key, refusal, self.now);
        }
        line.open = true;
        line.database = line.plan.database;
        let opened = shaken(&line.plan, line.number);
        self.exchange.link_opened(key, opened, self.now);
    }

    pub(super) fn write(&mut self) {
        if let Some(key) = self.any_line() {
            let most = self.dice.usize(..400);
            self.write_to(key, most);
        }
    }

    pub(super) fn write_to(&mut self, key: LinkKey, most: usize) {
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        let bytes = self.exchange.unwritten(key);
        if !line.open || bytes.is_empty() {
            return;
        }
        let calls = self.exchange.links.get(key).unwrap().usage == Usage::Leased(None);
        assert!(
            !self.exchange.is_left(key) || calls,
            "a request for a master that was left"
        );
        let quiet = self.quiet == Some(self.picture.generation);
        let left = quiet && self.picture.phase != Phase::Stable && line.plan.role == Role::Master;
        assert!(!left, "a request after quiet: {}", bytes.escape_ascii());
        let count = bytes.len().min(most);
        line.to_node.extend_from_slice(&bytes[..count]);
        self.exchange.written(key, count, self.now);
    }

    pub(super) fn serve(&mut self) {
        if let Some(key) = self.any_line() {
            self.serve_all(key);
        }
    }

    pub(super) fn serve_all(&mut self, key: LinkKey) {
        if let Some(mut line) = self.lines.remove(&key) {
            while self.execute_next(&mut line) {}
            self.lines.insert(key, line);
        }
    }

    /// The node executes the next request of a connection, if it is whole.
    pub(super) fn execute_next(&mut self, line: &mut Line) -> bool {
        if let Some(pop) = line.blocked.take() {
            if self.dice.u32(0..3) != 0 {
                line.blocked = Some(pop);
                return false;
            }
            let reply = self.execute(line, &pop);
            line.to_us.extend_from_slice(reply.as_bytes());
            return true;
        }
        if line.deaf {
            return false;
        }
        let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
        let limits = RequestLimits::AUTHENTICATED;
        let found = decoder.decode(&line.to_node, &limits, &mut inline);
        let Ok(Decoded::Request { request, consumed }) = found else {
            return false;
        };
        let words = text(&request);
        if self.writes == Writes::Paused && words.starts_with("SET ") && self.dice.u32(0..3) != 0 {
            return false;
        }
        line.to_node.drain(..consumed);
        let reply = self.reply(line, &words);
        line.to_us.extend_from_slice(reply.as_bytes());
        line.blocked.is_none()
    }

    pub(super) fn reply(&mut self, line: &mut Line, words: &str) -> String {
        let word = words.split(' ').next().unwrap();
        let master = self.nodes[line.node].is_master;
        match (word, line.multi.as_mut()) {
            ("MULTI", multi) => {
                assert!(multi.is_none(), "MULTI on a link with a transaction");
                line.multi = Some(Ok(Vec::new()));
                "+OK\r\n".to_owned()
            }
            ("WATCH", None) => "+OK\r\n".to_owned(),
            // A link is put in order.
            ("DISCARD", None) if self.was_kept_out => "-ERR DISCARD without MULTI\r\n".to_owned(),
            ("UNWATCH", None) if self.was_kept_out => "+OK\r\n".to_owned(),
            ("SELECT", None) if self.was_kept_out || line.plan.login.is_some() => {
                line.database = words[7..].parse().unwrap();
                "+OK\r\n".to_owned()
            }
            // A user with a name hears it from the node.
            ("EXEC" | "DISCARD", None) if line.plan.login.is_some() => {
                format!("-ERR {word} without MULTI\r\n")
            }
            ("EXEC" | "DISCARD", None) => panic!("{word} without MULTI"),
            ("DISCARD", Some(_)) => {
                line.multi = None;
                "+OK\r\n".to_owned()
            }
            ("EXEC", Some(Ok(queued)))
                if !master && queued.iter().any(|words| !words.starts_with("GET")) =>
            {
                line.multi = None;
                "-EXECABORT Transaction discarded because of: READONLY no.\r\n".to_owned()
            }
            ("EXEC", Some(_)) => match line.multi.take() {
                Some(Ok(queued)) => {
                    let mut reply = format!("*{}\r\n", queued.len());
                    for words in queued {
                        reply += &self.execute(line, &words);
                    }
                    reply
                }
                _ => "-EXECABORT Transaction discarded because of previous errors.\r\n".to_owned(),
            },
            (_, Some(multi)) => {
                if !master && word == "SET" {
                    *multi = Err(());
                    return "-READONLY You can't write against a read only replica.\r\n".to_owned();
                }
                if let Ok(queued) = multi {
                    queued.push(words.to_owned());
                }
                "+QUEUED\r\n".to_owned()
            }
            ("SET" | "BLPOP", None) if !master => {
                "-READONLY You can't write against a read only replica.\r\n".to_owned()
            }
            ("CLIENT", None) if words.starts_with("CLIENT SETNAME") => "+OK\r\n".to_owned(),
            ("PING", None) if words == "PING" => "+PONG\r\n".to_owned(),
            ("CLIENT", None) if words.starts_with("CLIENT PAUSE") => {
                let ends = words.starts_with("CLIENT PAUSE 0 ");
                self.writes = if ends { Writes::Go } else { Writes::Paused };
                self.execute(line, words)
            }
            ("CLIENT", None) => self.unblock(line.node, words),
            ("BLPOP", None) => {
                line.blocked = Some(words.to_owned());
                String::new()
            }
            _ => self.execute(line, words),
        }
    }

    pub(super) fn execute(&mut self, line: &Line, words: &str) -> String {
        let word = words.split(' ').next().unwrap();
        let digits = |text: &str| text.parse::<u64>().unwrap();
        let id = match word {
            "GET" | "LCS" | "OBJECT" => digits(words.rsplit('#').next().unwrap()),
            "BLPOP" => digits(words.split(['#', ' ']).nth(2).unwrap()),
            _ => digits(words.rsplit(' ').next().unwrap()),
        };
        if line.plan.role == Role::Replica
            && let Some(needs) = self.needs.get(&id)
        {
            let has = line.settled;
            assert!(
                has >= *needs,
                "{words} needs {needs}, the replica has {has}"
            );
        }
        let executed = self.executed.entry(id).or_default();
        executed.times += 1;
        executed.database = line.database;
        executed.user = line.user();
        let writes = matches!(word, "SET" | "BLPOP" | "CONFIG");
        if writes {
            assert_eq!(executed.times, 1, "{words} was executed twice");
            if let Some(at) = self.owner.get(&id)
                && *at != usize::MAX
            {
                let latest = self.latest.insert(*at, id);
                assert!(
                    latest.is_none_or(|latest| latest < id),
                    "{words} out of order"
                );
                let key = words.split(' ').nth(1).unwrap_or_default();
                self.written.insert((*at, key.to_owned()), id);
            }
        }
        match word {
            "PING" => format!("${}\r\n{id}\r\n", id.to_string().len()),
            "GET" if words.contains("big") => {
                let body = format!("{}#{id}", "x".repeat(50_000));
                format!("${}\r\n{body}\r\n", body.len())
            }
            "LCS" => {
                let key = words.split(' ').nth(1).unwrap().to_owned();
                let at = self.owner[&id];
                let sees = self.written.get(&(at, key)).copied().unwrap_or(0);
                format!("+DONE#{sees}#{id}\r\n")
            }
            _ => format!("+DONE#{id}\r\n"),
        }
    }

    pub(super) fn feed(&mut self) {
        if let Some(key) = self.any_line() {
            let most = self.dice.usize(1..30_000);
            self.feed_from(key, most);
        }
    }

    pub(super) fn feed_from(&mut self, key: LinkKey, most: usize) {
        let Some(line) = self.lines.get_mut(&key) else {
            return;
        };
        if line.to_us.is_empty() || self.exchange.is_throttled(key) {
            return;
        }
        let count = line.to_us.len().min(most);
        let chunk: Vec<_> = line.to_us.drain(..count).collect();
        let taken = self.exchange.link_bytes(key, &chunk, self.now);
        assert_eq!(taken, Ok(()));
    }

    pub(super) fn lose(&mut self) {
        if let Some(key) = self.any_line()
            && self.lines[&key].open
        {
            self.exchange.link_lost(key, Loss::Broken, self.now);
        }
    }

    /// A switch begins or ends, a replica comes or goes.
    pub(super) fn trouble(&mut self) {
        let master = self.nodes.iter().position(|node| node.is_master).unwrap();
        if self.logins == Logins::Wanted && self.dice.bool() {
            self.keeps_out = !self.keeps_out;
            self.was_kept_out |= self.keeps_out;
            return;
        }
        match self.picture.phase {
            Phase::Stable if self.dice.bool() => {
                self.picture.replicas = (0..NODES.len())
                    .filter(|at| *at != master && self.dice.u32(0..4) != 0)
                    .map(|at| addr(NODES[at]))
                    .collect();
                self.publish(Phase::Stable, master);
            }
            Phase::Switching { .. } if self.dice.bool() => self.publish(self.picture.phase, master),
            Phase::Stable => self.publish(Phase::Switching { since: self.now }, master),
            _ => {
                let next = self.dice.usize(..NODES.len());
                self.promote(next);
            }
        }
    }

    pub(super) fn promote(&mut self, next: usize) {
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.is_master = at == next;
        }
        if self.dice.bool() {
            self.unblock_all(next);
        }
        let others = NODES.iter().enumerate().filter(|(at, _)| *at != next);
        self.picture.replicas = others.map(|(_, host)| addr(host)).collect();
        self.publish(Phase::Stable, next);
    }

    /// A node is asked to end the wait on one of its connections.
    fn unblock(&mut self, node: usize, words: &str) -> String {
        let number = words.split(' ').nth(2).and_then(|word| word.parse().ok());
        let mut lines = self.lines.values_mut().filter(|line| line.node == node);
        let line = lines.find(|line| Some(line.number) == number);
        let Some(line) = line.filter(|line| line.blocked.is_some()) else {
            return ":0\r\n".to_owned();
        };
        line.blocked = None;
        line.to_us
            .extend_from_slice(b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
        ":1\r\n".to_owned()
    }

    /// Nodes that are no masters end the wait of their clients.
    pub(super) fn unblock_all(&mut self, master: usize) {
        for line in self.lines.values_mut().filter(|line| line.node != master) {
            if line.blocked.take().is_some() {
                line.to_us
                    .extend_from_slice(b"-UNBLOCKED force unblock from it\r\n");
                line.deaf = true;
            }
        }
    }
}
