//! What several clients say, in an order that follows from a number.

use std::collections::VecDeque;

use crate::differential::dice::{Dice, Words, far_away};
use crate::differential::grammar::{
    FAMILIES, Family, INSIDE, OF_THE_CONNECTION, PINNED, SUBSCRIBING, SUBSCRIBING_INSIDE, TRACKING,
    WITHOUT_RIGHTS,
};
use crate::differential::rules::Call;
use crate::differential::tables::{Known, left_out, may_crash};
use crate::version::is_before_7;

/// Clients of a sequence: plain ones, then one that subscribes, one that tracks, one that blocks,
/// and one that ends its wait: both are in database 0, whatever the others do.
pub(super) const CLIENTS: usize = 6;
const SUBSCRIBER: usize = 2;
pub(super) const TRACKER: usize = 3;
const BLOCKER: usize = 4;
const SERVER: usize = 5;

/// Turns of a sequence; in each, one client sends a pipeline.
const TURNS: usize = 60;

/// Turns after which there is a pause, and half as many turns that mostly read follow it.
const PAUSE_EVERY: usize = 12;

/// Family of what users may do without a right to it.
const RIGHTS: &str = "rights to the connection";

/// Family of what goes over the connection that a client is bound to.
const PINS: &str = "pinned";

/// Family of messages that a client publishes for itself.
const PLACES: &str = "places of own messages";

/// One command, and the family that it counts for.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) words: Words,
    pub(super) family: &'static str,
}

/// Commands that are sent together or not at all.
pub(super) type Unit = Vec<Command>;

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A client sends a pipeline and reads the replies.
    Say { client: usize, units: Vec<Unit> },
    /// A client sends what blocks it; its replies are read at its next step.
    Block { client: usize, units: Vec<Unit> },
    /// A client runs a cursor to its end.
    Scan { client: usize, words: Words },
    /// Replicas get everything.
    Settle,
}

impl Step {
    pub(super) fn units(&mut self) -> Option<&mut Vec<Unit>> {
        match self {
            Self::Say { units, .. } | Self::Block { units, .. } => Some(units),
            Self::Scan { .. } | Self::Settle => None,
        }
    }
}

/// A sequence.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) number: u64,
    pub(super) steps: Vec<Step>,
}

/// A command that the server has.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    /// Lower case; a subcommand as `container|sub`.
    pub(super) name: String,
    pub(super) arity: i64,
    /// Whether it may keep its client waiting.
    pub(super) blocks: bool,
}

/// What a sequence is made of.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// The server's commands.
    pub(super) known: Vec<Spec>,
    /// What is not played.
    pub(super) without: Vec<&'static Known>,
    /// Whether no login may stand between `MULTI` and `EXEC`: a reply to a failed one is lost, and
    /// `EXEC` has fewer than it says.
    pub(super) loses_logins: bool,
}

impl Scope {
    fn has(&self, family: &str) -> bool {
        !self.without.iter().any(|it| it.name == family)
    }

    /// Whether the server has the command of a template, as far as that names one.
    fn knows(&self, template: &str) -> bool {
        let name = template.trim_start_matches('!').split(' ').next();
        let name = name.unwrap_or_default().to_lowercase();
        let is_name = name
            .bytes()
            .all(|it| it.is_ascii_alphabetic() || it == b'_');
        !is_name || self.known.iter().any(|it| it.name == name)
    }

    pub(super) fn plan(&self, number: u64) -> Plan {
        let mut maker = Maker {
            scope: self,
            dice: Dice::new(number),
            agendas: vec![VecDeque::new(); CLIENTS],
            reading: false,
            opened: [false; CLIENTS],
        };
        let mut steps = maker.steps();
        for unit in steps.iter_mut().filter_map(Step::units).flatten() {
            unit.retain(|it| {
                let call = Call::new(&it.words);
                !may_crash(&call)
                    && !hides_times(&call)
                    && !self.without.iter().any(|known| (known.is)(&call))
            });
        }
        if self.loses_logins {
            without_logins_in_transactions(&mut steps);
        }
        let steps = steps.into_iter().flat_map(silence_apart).collect();
        Plan { number, steps }
    }
}

/// Whether a command puts a stream, whose ids may be of the time, where its name does not say so:
/// by that digests are made equal, see the rules.
fn hides_times(call: &Call<'_>) -> bool {
    let names_stream = |at| {
        let word: Option<&Vec<u8>> = call.words.get(at);
        word.is_some_and(|word| word.windows(2).any(|it| it == b":x"))
    };
    if call.is("xadd") {
        return call.words.iter().any(|word| word == b"*") && !names_stream(1);
    }
    let moves = ["rename", "renamenx", "copy"]
        .iter()
        .any(|name| call.is(name));
    moves && names_stream(1) && !names_stream(2)
}

/// Whoever loses the right to `CLIENT REPLY`, or comes by it, asks for no silence in the same
/// breath: of how many commands the replies are could not be told.
fn silence_apart(step: Step) -> Vec<Step> {
    let Step::Say { client, units } = step else {
        return vec![step];
    };
    let any = |unit: &Unit, is: fn(&Call<'_>) -> bool| {
        unit.iter().any(|command| is(&Call::new(&command.words)))
    };
    let is_silence = |unit: &Unit| any(unit, |call| call.is("client|reply"));
    if !units.iter().any(|unit| any(unit, changes_rights)) {
        return vec![Step::Say { client, units }];
    }
    let parts = units.chunk_by(|one, other| !is_silence(one) && !is_silence(other));
    let parts = parts.map(<[Unit]>::to_vec);
    parts.map(|units| Step::Say { client, units }).collect()
}

/// Whether a command may change what its client may do.
fn changes_rights(call: &Call<'_>) -> bool {
    call.logs_in()
        || ["reset", "acl|setuser", "acl|deluser"]
            .iter()
            .any(|name| call.is(name))
}

fn without_logins_in_transactions(steps: &mut [Step]) {
    let mut in_multi = [false; CLIENTS];
    for step in steps {
        let (Step::Say { client, units } | Step::Block { client, units }) = step else {
            continue;
        };
        let inside = &mut in_multi[*client];
        for unit in units {
            unit.retain(|it| {
                let call = Call::new(&it.words);
                if call.is("multi") {
                    *inside = true;
                } else if ["exec", "discard", "reset"]
                    .iter()
                    .any(|name| call.is(name))
                {
                    // With arguments it may end nothing.
                    *inside &= it.words.len() > 1;
                }
                !(*inside && call.logs_in())
            });
        }
    }
}

struct Maker<'a> {
    scope: &'a Scope,
    dice: Dice,
    /// What each client will say next.
    agendas: Vec<VecDeque<Unit>>,
    /// Whether clients mostly read now.
    reading: bool,
    /// Whether a client has chosen its protocol.
    opened: [bool; CLIENTS],
}

impl Maker<'_> {
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for turn in 0..TURNS {
            let phase = turn % (PAUSE_EVERY + PAUSE_EVERY / 2);
            if phase == PAUSE_EVERY {
                steps.push(Step::Settle);
            }
            self.reading = phase >= PAUSE_EVERY;
            self.turn(&mut steps);
        }
        for client in 0..CLIENTS {
            let units: Vec<Unit> = self.agendas[client].drain(..).collect();
            if !units.is_empty() {
                steps.push(Step::Say { client, units });
            }
        }
        steps
    }

    fn turn(&mut self, steps: &mut Vec<Step>) {
        let roll = self.dice.below(40);
        let client = match roll {
            0..=31 => roll % 2,
            32..=34 => SUBSCRIBER,
            35..=37 => TRACKER,
            _ => BLOCKER,
        };
        if client == BLOCKER && self.scope.has("blocked") {
            return self.block(steps);
        }
        if client < SUBSCRIBER && self.agendas[client].is_empty() && self.dice.once_in(24) {
            let template = self.dice.one(&[
                "!SCAN",
                "!SCAN",
                "!SSCAN <e>",
                "!HSCAN <h>",
                "!ZSCAN <z>",
                "!SSCAN <k>",
            ]);
            let words = self.dice.command(template);
            return steps.push(Step::Scan { client, words });
        }
        let length = 1 + self.dice.below(8);
        let mut units = Vec::new();
        while units.len() < length {
            if self.agendas[client].is_empty() {
                self.refill(client);
            }
            // What is broadcast comes when the server has no more to read: here that is before a
            // command that waits for the replies before it.
            let alone = |unit: &Unit| client == TRACKER && unit.iter().any(|it| it.family == PINS);
            let next = self.agendas[client].front().is_some_and(alone);
            if next && !units.is_empty() {
                break;
            }
            units.extend(self.agendas[client].pop_front());
            if next {
                break;
            }
        }
        steps.push(Step::Say { client, units });
    }

    /// A client waits, and another one has something for it.
    fn block(&mut self, steps: &mut Vec<Step>) {
        let (blocked, served) = self.dice.one(&[
            ("!BLPOP <l> <l> 8", "!RPUSH <l> a b c"),
            ("!BRPOP <l> 8", "!LPUSH <l> a"),
            ("!BLMOVE <l> <l> LEFT LEFT 8", "!RPUSH <l> a"),
            ("!BRPOPLPUSH <l> <l> 8", "!RPUSH <l> a"),
            ("!BLMPOP 8 <n:l> LEFT COUNT 2", "!RPUSH <l> a b c"),
            ("!BZPOPMIN <z> 8", "!ZADD <z> 1 a 2 b"),
            ("!BZMPOP 8 <n:z> MAX COUNT 5", "!ZADD <z> 1 a 2 b"),
            ("!XREAD BLOCK 8000 STREAMS <x> $", "!XADD <x> 999-* f v"),
        ]);
        let served = if is_before_7() {
            // They make no part of an id.
            served.replace("999-*", "999-9")
        } else {
            served.to_owned()
        };
        let (blocked, served) = (self.dice.command(blocked), self.dice.command(&served));
        // The key that is waited for, so that somebody serves it; and nothing in it at first.
        let prefix = self.dice.prefix().to_owned();
        let is_key = |word: &&Vec<u8>| word.starts_with(prefix.as_bytes());
        let keys: Words = blocked.iter().filter(is_key).cloned().collect();
        let mut serving = served;
        if let (Some(key), Some(place)) = (keys.first(), serving.get_mut(1)) {
            place.clone_from(key);
        }
        let family = "blocked";
        let del = [vec![b"DEL".to_vec()], keys].concat();
        let one = |words| vec![Command { words, family }];
        let behind = self.dice.command("!GET <s>");
        steps.push(Step::Say {
            client: BLOCKER,
            units: vec![one(del)],
        });
        steps.push(Step::Block {
            client: BLOCKER,
            units: vec![one(blocked), one(behind)],
        });
        steps.push(Step::Say {
            client: SERVER,
            units: vec![one(serving)],
        });
        steps.push(Step::Say {
            client: BLOCKER,
            units: Vec::new(),
        });
    }

    fn refill(&mut self, client: usize) {
        match client {
            SUBSCRIBER if self.scope.has("subscribing") => self.subscribe(client),
            TRACKER if self.scope.has("tracking") => self.track(client),
            _ => self.talk(client),
        }
    }

    /// A connection of RESP3 in every other sequence.
    fn first_words(&mut self, client: usize, family: &'static str) {
        if !self.opened[client] {
            self.opened[client] = true;
            if self.dice.once_in(2) {
                self.say(client, "!HELLO 3", family);
            }
        }
    }

    fn subscribe(&mut self, client: usize) {
        if !self.opened[client] {
            self.first_words(client, "subscribing");
            self.say(client, "!SUBSCRIBE <own>", "subscribing");
        }
        if self.dice.once_in(16) {
            let template = self.dice.one(PINNED);
            self.say(client, template, PINS);
        }
        if self.dice.once_in(8) {
            self.say(client, "!PUBLISH <own> own", PLACES);
            self.say(client, "!PING", PLACES);
        }
        if self.dice.once_in(12) {
            self.say(client, "!RESET", "RESET of a subscriber");
        }
        let template = self.dice.one(SUBSCRIBING);
        self.say(client, template, "subscribing");
    }

    fn track(&mut self, client: usize) {
        self.first_words(client, "tracking");
        if self.dice.once_in(16) {
            let template = self.dice.one(PINNED);
            self.say(client, template, PINS);
        }
        if self.dice.once_in(16) {
            self.say(client, "!CLIENT TRACKING OFF", "tracking");
        }
        let template = self.dice.one(TRACKING);
        self.say(client, template, "tracking");
    }

    fn talk(&mut self, client: usize) {
        if self.reading {
            let read = self.plain(Kind::Read);
            return self.agendas[client].push_back(vec![read]);
        }
        match self.dice.below(40) {
            0..=2 => self.transaction(client),
            3 if self.dice.once_in(3) && self.scope.has(RIGHTS) => {
                for template in WITHOUT_RIGHTS {
                    self.say(client, template, RIGHTS);
                }
            }
            3 => self.random_member(client),
            4 if self.scope.has("silence") => self.silence(client),
            5..=8 if self.scope.has("odd") => {
                let odd = self.odd();
                self.agendas[client].extend(odd.map(|it| vec![it]));
            }
            _ => {
                let command = self.plain(Kind::Any);
                self.agendas[client].push_back(vec![command]);
            }
        }
    }

    fn say(&mut self, client: usize, template: &str, family: &'static str) {
        let words = self.dice.command(template);
        self.agendas[client].push_back(vec![Command { words, family }]);
    }

    /// Some commands between `MULTI` and `EXEC`, over some pipelines perhaps.
    fn transaction(&mut self, client: usize) {
        let family = "transactions";
        if self.dice.once_in(3) {
            self.say(client, "!WATCH <k> <k>", family);
            if self.dice.once_in(6) {
                let template = self.dice.one(PINNED);
                self.say(client, template, PINS);
            }
            let read = self.plain(Kind::Read);
            self.agendas[client].push_back(vec![read]);
        }
        self.say(client, "!MULTI", family);
        for _ in 0..self.dice.below(6) {
            if self.dice.once_in(8) {
                let template = self.dice.one(INSIDE);
                self.say(client, template, "connection in transactions");
                continue;
            }
            if self.dice.once_in(16) && self.scope.has("WAIT in transactions") {
                self.say(client, "!WAIT 0 0", "WAIT in transactions");
                continue;
            }
            if self.dice.once_in(16) && self.scope.has("subscriptions in transactions") {
                let template = self.dice.one(SUBSCRIBING_INSIDE);
                self.say(client, template, "subscriptions in transactions");
                continue;
            }
            let mut command = self.plain(Kind::Any);
            let name = String::from_utf8_lossy(&command.words[0]).to_lowercase();
            if OF_THE_CONNECTION.contains(&name.as_str()) {
                command = self.plain(Kind::Read);
            }
            self.agendas[client].push_back(vec![command]);
        }
        let end = self
            .dice
            .one(&["!EXEC", "!EXEC", "!EXEC", "!DISCARD", "EXEC"]);
        self.say(client, end, family);
        if self.dice.once_in(6) {
            let more = self.dice.one(&["UNWATCH", "EXEC", "DISCARD", "!WATCH"]);
            self.say(client, more, family);
        }
    }

    /// A member that chance takes, and then the rest, so that two servers have the same again.
    fn random_member(&mut self, client: usize) {
        let family = "sets";
        let mut spop = self.dice.command("!SPOP <e> [ <n> ]");
        let del = vec![b"DEL".to_vec(), spop[1].clone()];
        if self.dice.once_in(4) {
            spop.push(b"1".to_vec());
        }
        let unit = [spop, del].map(|words| Command { words, family });
        self.agendas[client].push_back(unit.to_vec());
    }

    /// Commands whose replies a client does not want.
    fn silence(&mut self, client: usize) {
        let family = "silence";
        let (open, close) = self.dice.one(&[
            ("!CLIENT REPLY OFF", "!CLIENT REPLY ON"),
            ("!CLIENT REPLY SKIP", "!PING"),
        ]);
        let middle = ["!SET <s> <v>", "!GET <s>", "!INCR <l>"].map(|it| self.dice.command(it));
        let count = if close == "!PING" {
            1
        } else {
            self.dice.below(4)
        };
        let mut words = vec![self.dice.command(open)];
        words.extend(middle.into_iter().take(count));
        words.push(self.dice.command(close));
        let unit = words.into_iter().map(|words| Command { words, family });
        self.agendas[client].push_back(unit.collect());
    }

    /// A command of some family.
    fn plain(&mut self, kind: Kind) -> Command {
        let wanted = |family: &&Family| {
            let fits = kind == Kind::Any || !family.reads.is_empty();
            let mut templates = family.reads.iter().chain(family.others);
            let known = templates.any(|template| self.scope.knows(template));
            fits && known && self.scope.has(family.name)
        };
        let families: Vec<&Family> = FAMILIES.iter().filter(wanted).collect();
        let total: usize = families.iter().map(|it| it.weight).sum();
        let mut roll = self.dice.below(total);
        let mut chosen = families[0];
        for family in families {
            chosen = family;
            if roll < family.weight {
                break;
            }
            roll -= family.weight;
        }
        let reads = kind == Kind::Read || self.dice.once_in(3) || chosen.others.is_empty();
        let templates = if reads && !chosen.reads.is_empty() {
            chosen.reads
        } else {
            chosen.others
        };
        let mut template = self.dice.one(templates);
        // What the server does not have is unknown with any arguments: it is not often sent.
        for _ in 0..4 {
            if self.scope.knows(template) || self.dice.once_in(8) {
                break;
            }
            template = self.dice.one(templates);
        }
        Command {
            words: self.dice.command(template),
            family: chosen.name,
        }
    }

    /// Any command of the server with arguments that hardly fit; `None` for what is left out.
    fn odd(&mut self) -> Option<Command> {
        let at = self.dice.below(self.scope.known.len());
        let known = &self.scope.known[at];
        let mut parts = known.name.splitn(2, '|');
        let mut words: Words = parts.by_ref().map(|it| self.dice.cased(it)).collect();
        let least = usize::try_from(known.arity.unsigned_abs()).expect("an arity is small");
        let wrong = self.dice.once_in(3);
        let count = match (wrong, known.arity < 0) {
            (true, false) if self.dice.once_in(2) => least + 1 + self.dice.below(3),
            (true, _) => self.dice.below(least),
            (false, true) => least + self.dice.below(4),
            (false, false) => least,
        };
        let count = count.max(words.len());
        let right = if known.arity < 0 {
            count >= least
        } else {
            count == least
        };
        if right && (known.blocks || left_out(&known.name).is_some()) {
            return None;
        }
        let missing = count.saturating_sub(words.len());
        self.dice.odd_arguments(missing, &mut words);
        far_away(&mut words);
        Some(Command {
            words,
            family: "odd",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Any,
}
