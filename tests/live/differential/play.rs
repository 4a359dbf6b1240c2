//! Plays a sequence with both servers and compares reply by reply.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use switchman::demo::client::encode_command;

use crate::differential::dice::Words;
use crate::differential::frame::{Conn, Frame, Gone, is_confirmation, quoted};
use crate::differential::plan::{CLIENTS, Command, Plan, Step, TRACKER, Unit};
use crate::differential::rules::{
    Call, RULES, equal, is_chatter, order_of_ends, order_of_patterns, single_invalidations,
};
use crate::differential::scene::Scene;
use crate::differential::tables::{EXCEPTIONS, exception};

/// Time for a reply; a wait that is part of a sequence is shorter.
const PATIENCE: Duration = Duration::from_secs(15);

/// Time for news, once a bare server has told it.
const NEWS_WITHIN: Duration = Duration::from_secs(2);

/// What a subscriber publishes for itself alone.
const OWN: &[u8] = b"own";

/// Family of the question by which the end of a pipeline is known.
const BARRIER: &str = "barrier";

/// Pages that a cursor may take.
const PAGES_MAX: usize = 1_000;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) by_family: BTreeMap<&'static str, u64>,
    pub(super) by_rule: BTreeMap<&'static str, u64>,
    pub(super) by_exception: BTreeMap<&'static str, u64>,
    pub(super) news: u64,
    pub(super) errors: u64,
}

impl Counts {
    pub(super) fn commands(&self) -> u64 {
        self.by_family.values().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, own) in [
            (&mut self.by_family, &other.by_family),
            (&mut self.by_rule, &other.by_rule),
            (&mut self.by_exception, &other.by_exception),
        ] {
            for (name, count) in own {
                *sum.entry(name).or_default() += count;
            }
        }
        self.news += other.news;
        self.errors += other.errors;
    }
}

/// Where the two servers parted.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    /// The step at which it was seen.
    pub(super) step: usize,
    pub(super) client: usize,
    pub(super) family: &'static str,
    pub(super) command: String,
    /// Name of the command and what both replies are like: differences alike have the same.
    pub(super) likeness: String,
    pub(super) theirs: String,
    pub(super) ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "client {} said {}", self.client, self.command)?;
        writeln!(f, "  redis:     {}", self.theirs)?;
        write!(f, "  switchman: {}", self.ours)
    }
}

/// Plays `plan`; `tell` gets a line for each command and its reply.
pub(super) fn play(
    scene: &mut Scene,
    plan: &Plan,
    tell: Option<&mut Vec<String>>,
) -> (Counts, Option<Difference>) {
    scene.clean();
    let mut player = Player {
        scene,
        people: (0..CLIENTS).map(|_| Person::default()).collect(),
        counts: Counts::default(),
        token: 0,
        step: 0,
        story: tell,
    };
    let difference = player.all(plan).err();
    (player.counts, difference.map(|it| *it))
}

/// A client, on both sides.
#[derive(Debug, Default)]
struct Person {
    conns: Option<[Conn; 2]>,
    /// What was sent and is not read yet.
    sent: Vec<Command>,
    /// What is queued since `MULTI`.
    queue: Vec<Words>,
    news: [Vec<Frame>; 2],
}

/// Ordered frames, and how they ended.
#[derive(Debug)]
struct Heard {
    frames: Vec<Frame>,
    end: Option<Gone>,
}

struct Player<'a> {
    scene: &'a mut Scene,
    people: Vec<Person>,
    counts: Counts,
    token: u64,
    step: usize,
    story: Option<&'a mut Vec<String>>,
}

type Played = Result<(), Box<Difference>>;

impl Player<'_> {
    fn all(&mut self, plan: &Plan) -> Played {
        for (at, step) in plan.steps.iter().enumerate() {
            self.step = at;
            match step {
                Step::Say { client, units } => {
                    for write in self.writes(units) {
                        self.send(*client, write);
                        self.read(*client)?;
                    }
                }
                Step::Block { client, units } => {
                    self.send(*client, units);
                    if let Some(conns) = &self.people[*client].conns {
                        self.scene.wait_blocked(conns);
                    }
                }
                Step::Scan { client, words } => self.scan(*client, words)?,
                Step::Settle => self.scene.settle(),
            }
        }
        for client in 0..CLIENTS {
            if self.people[client].conns.is_some() {
                self.send(client, &[]);
                self.read(client)?;
            }
        }
        Ok(())
    }

    /// What of a pipeline is sent together: all of it, unless a login must be the first of what is
    /// sent at once.
    fn writes<'a>(&self, units: &'a [Unit]) -> Vec<&'a [Unit]> {
        if units.is_empty() || !self.scene.loses_logins {
            return vec![units];
        }
        let logs_in = |unit: &Unit| unit.iter().any(|it| Call::new(&it.words).logs_in());
        units.chunk_by(|_, next| !logs_in(next)).collect()
    }

    /// Sends a pipeline, and a question behind it by which its end is known.
    fn send(&mut self, client: usize, units: &[Unit]) {
        self.token += 1;
        let addrs = self.scene.addrs();
        let person = &mut self.people[client];
        let token = format!("~{}~", self.token).into_bytes();
        let mut commands: Vec<Command> = units.iter().flatten().cloned().collect();
        commands.push(Command {
            words: vec![b"PING".to_vec(), token],
            family: BARRIER,
        });
        let mut bytes = Vec::new();
        for command in &commands {
            encode_command(&command.words, &mut bytes);
        }
        let conns = person
            .conns
            .get_or_insert_with(|| addrs.map(|addr| Conn::open(addr, PATIENCE)));
        for conn in conns {
            conn.send(&bytes);
        }
        person.sent.extend(commands);
    }

    /// Reads the replies of both sides to what a client has sent, and compares.
    fn read(&mut self, client: usize) -> Played {
        if self.people[client].conns.is_none() {
            return Ok(());
        }
        let sent = &self.people[client].sent;
        let ends_tracking = sent.iter().any(|it| ends_tracking(&Call::new(&it.words)));
        self.read_replies(client)?;
        if client == TRACKER && self.people[client].conns.is_some() {
            // What is broadcast comes when the server has done all that it had read (Redis
            // tracking.c, `trackingBroadcastInvalidationMessages`): before the next reply.
            self.send(client, &[]);
            self.read_replies(client)?;
        }
        self.compare_news(client, ends_tracking)?;
        if self.people[client].conns.is_none() {
            self.people[client] = Person::default();
        }
        Ok(())
    }

    fn read_replies(&mut self, client: usize) -> Played {
        let person = &mut self.people[client];
        let Some(mut conns) = person.conns.take() else {
            return Ok(());
        };
        let sent = std::mem::take(&mut person.sent);
        let token = sent.last().expect("a pipeline has its end").words[1].clone();
        let mut silent = Silence::Off;
        let spoken = sent
            .iter()
            .filter(|it| !silent.takes(&Call::new(&it.words)));
        let expected = spoken.count();
        let expected = |frames: &[Frame]| {
            if may_silence(frames) {
                expected
            } else {
                sent.len()
            }
        };
        let deadline = Instant::now() + PATIENCE;
        let [theirs, ours] = &mut conns;
        let subscribes = |it: &&Command| it.words[0].to_ascii_lowercase().ends_with(b"subscribe");
        let subscribing = sent.iter().filter(subscribes).count();
        let theirs = hear(theirs, deadline, &mut person.news[0], |frames| {
            // Each of these has as many confirmations as it has names.
            let confirmations = frames.iter().filter(|it| is_confirmation(it)).count();
            let more = confirmations.saturating_sub(subscribing);
            ends(frames, &token, expected(frames) + more)
        });
        let count = theirs.frames.len();
        let closes = theirs.end == Some(Gone::Closed);
        let ours = hear(
            ours,
            Instant::now() + PATIENCE,
            &mut person.news[1],
            |frames| frames.len() >= count && !closes,
        );
        let gone = theirs.end.is_some() || ours.end.is_some();
        if !gone {
            if client != TRACKER {
                await_news(&mut conns, &mut person.news);
            }
            person.conns = Some(conns);
        }
        self.compare(client, &sent, theirs, ours)
    }

    fn compare(
        &mut self,
        client: usize,
        sent: &[Command],
        mut theirs: Heard,
        mut ours: Heard,
    ) -> Played {
        order_of_ends(&mut theirs.frames);
        order_of_ends(&mut ours.frames);
        let ends = [theirs.end.clone(), ours.end.clone()];
        let may_silence = may_silence(&theirs.frames);
        let mut pairs = Pairs {
            theirs: theirs.frames.into_iter().peekable(),
            ours: ours.frames.into_iter().peekable(),
        };
        let mut silent = Silence::Off;
        for (at, command) in sent.iter().enumerate() {
            let call = Call::new(&command.words);
            let skipped = silent.takes(&call);
            if skipped && may_silence {
                continue;
            }
            let Some(first) = pairs.next_reply() else {
                return self.compare_ends(client, command, ends);
            };
            let confirms = |frame: &Frame| {
                is_confirmation(frame) && frame.verb().eq_ignore_ascii_case(&command.words[0])
            };
            if first.0.is_none() && ends == [Some(Gone::Closed), Some(Gone::Closed)] {
                self.hears_why(client, command, first.1, pairs.ours)?;
                return Ok(());
            }
            let more = confirms(first.0.as_ref().unwrap_or(&NOTHING));
            if first.0.is_none() != first.1.is_none() && ends[0] != ends[1] {
                return self.compare_ends(client, command, ends);
            }
            self.compare_one(client, command, &call, first)?;
            let run = || pairs.theirs.clone().take_while(confirms).count();
            let rest = match command.words.len() {
                _ if !more => 0,
                // All that there were, and then the next command has its own.
                1 => run().saturating_sub(confirmations(&sent[at + 1..], &command.words[0])),
                names => run().min(names - 2),
            };
            for _ in 0..rest {
                if let Some(pair) = pairs.next() {
                    self.compare_one(client, command, &call, pair)?;
                }
            }
        }
        let last = sent.last().expect("a pipeline has its end");
        while let Some(pair) = pairs.next() {
            self.compare_one(client, last, &Call::new(&last.words), pair)?;
        }
        self.compare_ends(client, last, ends)
    }

    /// A bare server closes the connection of a user whom it has no more. To what was sent behind
    /// that, Switchman says why before it does the same.
    fn hears_why(
        &self,
        client: usize,
        command: &Command,
        first: Option<Frame>,
        rest: impl Iterator<Item = Frame>,
    ) -> Played {
        let why = |frame: &Frame| frame.is_error() && frame.text().starts_with(b"WRONGPASS ");
        match first.into_iter().chain(rest).find(|frame| !why(frame)) {
            None => Ok(()),
            Some(other) => Err(Box::new(self.difference(
                client,
                command,
                None,
                Some(&other),
            ))),
        }
    }

    fn compare_ends(&self, client: usize, command: &Command, ends: [Option<Gone>; 2]) -> Played {
        let [theirs, ours] = ends;
        if theirs == ours && theirs != Some(Gone::Late) {
            return Ok(());
        }
        let word = |end: &Option<Gone>| match end {
            None => "the next reply".to_owned(),
            Some(gone) => format!("{gone:?}"),
        };
        let likeness = format!("end: {} and {}", word(&theirs), word(&ours));
        Err(Box::new(Difference {
            step: self.step,
            client,
            family: command.family,
            command: told(&command.words),
            likeness,
            theirs: word(&theirs),
            ours: word(&ours),
        }))
    }

    fn compare_one(
        &mut self,
        client: usize,
        command: &Command,
        call: &Call<'_>,
        pair: (Option<Frame>, Option<Frame>),
    ) -> Played {
        let (theirs, ours) = pair;
        if let Some(story) = &mut self.story {
            story.push(format!(
                "{client}> {}\n     {:?}{}",
                told(&command.words),
                theirs.as_ref().unwrap_or(&NOTHING),
                if theirs == ours {
                    String::new()
                } else {
                    format!("\n     {ours:?}")
                },
            ));
        }
        let (Some(theirs), Some(ours)) = (&theirs, &ours) else {
            return Err(Box::new(self.difference(
                client,
                command,
                theirs.as_ref(),
                ours.as_ref(),
            )));
        };
        if command.family != BARRIER {
            *self.counts.by_family.entry(command.family).or_default() += 1;
        }
        self.counts.errors += u64::from(theirs.is_error());
        let queue = &mut self.people[client].queue;
        if theirs.is_line(b"+QUEUED") {
            queue.push(command.words.clone());
        }
        let executed = match call.name.as_str() {
            "multi" | "discard" | "reset" if !theirs.is_error() => {
                queue.clear();
                Vec::new()
            }
            "exec" => std::mem::take(queue),
            _ => Vec::new(),
        };
        let items = [theirs.items(), ours.items()].map(<[Frame]>::len);
        if executed.is_empty() || items != [executed.len(); 2] {
            if self.alike(call, theirs, ours) {
                return Ok(());
            }
            let difference = self.difference(client, command, Some(theirs), Some(ours));
            return Err(Box::new(difference));
        }
        for (words, (theirs, ours)) in executed.iter().zip(theirs.items().iter().zip(ours.items()))
        {
            let call = Call::new(words);
            if !self.alike(&call, theirs, ours) {
                let inner = Command {
                    words: words.clone(),
                    family: command.family,
                };
                let mut difference = self.difference(client, &inner, Some(theirs), Some(ours));
                difference.command = format!("EXEC of {}", difference.command);
                difference.likeness = format!("exec of {}", difference.likeness);
                return Err(Box::new(difference));
            }
        }
        Ok(())
    }

    /// Whether two replies are as good as equal.
    fn alike(&mut self, call: &Call<'_>, theirs: &Frame, ours: &Frame) -> bool {
        match equal(call, theirs, ours) {
            Ok(used) => {
                for rule in used {
                    *self.counts.by_rule.entry(RULES[rule].name).or_default() += 1;
                }
                true
            }
            Err(()) => match exception(call, theirs, ours) {
                Some(at) => {
                    let what = EXCEPTIONS[at].commands[0];
                    *self.counts.by_exception.entry(what).or_default() += 1;
                    true
                }
                None => false,
            },
        }
    }

    fn difference(
        &self,
        client: usize,
        command: &Command,
        theirs: Option<&Frame>,
        ours: Option<&Frame>,
    ) -> Difference {
        let call = Call::new(&command.words);
        let word =
            |frame: Option<&Frame>| frame.map_or("nothing".to_owned(), |it| format!("{it:?}"));
        Difference {
            step: self.step,
            client,
            family: command.family,
            command: told(&command.words),
            likeness: format!(
                "{}: {} and {}",
                call.name
                    .chars()
                    .filter(char::is_ascii_graphic)
                    .collect::<String>(),
                likeness(theirs),
                likeness(ours)
            ),
            theirs: word(theirs),
            ours: word(ours),
        }
    }

    fn compare_news(&mut self, client: usize, ends_tracking: bool) -> Played {
        let news = self.people[client].news.each_mut().map(std::mem::take);
        let mut news = news.map(single_invalidations);
        if ends_tracking {
            // What was to be broadcast to it is told, or not, as its commands come in one piece
            // or in several.
            in_both(&mut news);
        }
        for each in &mut news {
            order_of_patterns(each);
        }
        let [theirs, ours] = news;
        self.counts.news += u64::try_from(theirs.len()).unwrap_or_default();
        if theirs == ours {
            return Ok(());
        }
        let at = (0..theirs.len().max(ours.len()))
            .find(|at| theirs.get(*at) != ours.get(*at))
            .unwrap_or_default();
        let news = Command {
            words: vec![b"(news)".to_vec()],
            family: "news",
        };
        let mut difference = self.difference(client, &news, theirs.get(at), ours.get(at));
        let all = |news: &[Frame]| format!("{news:?}");
        difference.theirs = all(&theirs);
        difference.ours = all(&ours);
        Err(Box::new(difference))
    }

    /// Runs a cursor to its end on both sides, and compares everything that was found.
    fn scan(&mut self, client: usize, words: &Words) -> Played {
        let family = "scans";
        let addrs = self.scene.addrs();
        let person = &mut self.people[client];
        let open = |addr| Conn::open(addr, PATIENCE);
        let mut conns = person.conns.take().unwrap_or_else(|| addrs.map(open));
        let [theirs, ours] = &mut conns;
        let pair = [
            scanned(theirs, words, &mut person.news[0]),
            scanned(ours, words, &mut person.news[1]),
        ];
        person.conns = Some(conns);
        if pair[0].is_line(b"+QUEUED") {
            person.queue.push(page(words, b"0"));
        }
        *self.counts.by_family.entry(family).or_default() += 1;
        let [theirs, ours] = &pair;
        if theirs == ours {
            return Ok(());
        }
        let words = words.clone();
        let command = Command { words, family };
        Err(Box::new(self.difference(
            client,
            &command,
            Some(theirs),
            Some(ours),
        )))
    }
}

/// The command for the page that `cursor` names.
fn page(words: &Words, cursor: &[u8]) -> Words {
    let rest = [cursor.to_vec(), b"COUNT".to_vec(), b"5".to_vec()];
    [words.clone(), rest.to_vec()].concat()
}

/// All that a cursor comes by, without an order; or what there is instead of pages.
fn scanned(conn: &mut Conn, words: &Words, news: &mut Vec<Frame>) -> Frame {
    let (mut cursor, mut found) = (b"0".to_vec(), Vec::new());
    for _ in 0..PAGES_MAX {
        let mut bytes = Vec::new();
        encode_command(&page(words, &cursor), &mut bytes);
        conn.send(&bytes);
        let deadline = Instant::now() + PATIENCE;
        let heard = hear(conn, deadline, news, |it| !it.is_empty());
        let Some(frame) = heard.frames.into_iter().next() else {
            return NOTHING;
        };
        let [next, items] = frame.items() else {
            return frame;
        };
        cursor = next.text().to_vec();
        found.extend(items.items().to_vec());
        if cursor == b"0" {
            break;
        }
    }
    let pairs = [&b"HSCAN"[..], b"ZSCAN"].contains(&&words[0].to_ascii_uppercase()[..]);
    let size = if pairs { 2 } else { 1 };
    let mut chunks: Vec<Vec<Frame>> = found.chunks(size).map(<[Frame]>::to_vec).collect();
    chunks.sort();
    chunks.dedup();
    Frame::Many(b'*', chunks.concat())
}

const NOTHING: Frame = Frame::Line(b'?', Vec::new());

/// How many confirmations the commands of this name have that come first.
fn confirmations(sent: &[Command], verb: &[u8]) -> usize {
    let alike = |command: &&Command| command.words[0].eq_ignore_ascii_case(verb);
    let each = sent.iter().take_while(alike);
    each.map(|command| command.words.len().saturating_sub(1).max(1))
        .sum()
}

/// Replies of both sides, side by side.
struct Pairs {
    theirs: std::iter::Peekable<std::vec::IntoIter<Frame>>,
    ours: std::iter::Peekable<std::vec::IntoIter<Frame>>,
}

impl Pairs {
    fn next(&mut self) -> Option<(Option<Frame>, Option<Frame>)> {
        let pair = (self.theirs.next(), self.ours.next());
        (pair.0.is_some() || pair.1.is_some()).then_some(pair)
    }

    /// The next that answers a command: not what the client has published for itself, and both
    /// hear in the same place.
    fn next_reply(&mut self) -> Option<(Option<Frame>, Option<Frame>)> {
        while self.theirs.peek().is_some_and(is_own) && self.theirs.peek() == self.ours.peek() {
            self.next();
        }
        self.next()
    }
}

/// What `CLIENT REPLY` has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    Off,
    Next,
    On,
}

impl Silence {
    /// Whether `call` gets no reply; and what follows from it.
    fn takes(&mut self, call: &Call<'_>) -> bool {
        let mode = call.is("client|reply").then(|| call.words.get(2)).flatten();
        let says = |word: &[u8]| {
            mode.is_some_and(|it| it.eq_ignore_ascii_case(word)) && call.words.len() == 3
        };
        if says(b"ON") {
            *self = Self::Off;
            return false;
        }
        if says(b"OFF") {
            *self = Self::On;
        } else if says(b"SKIP") && *self == Self::Off {
            *self = Self::Next;
            return true;
        } else if *self == Self::Next {
            *self = Self::Off;
            return true;
        }
        *self == Self::On
    }
}

/// Whether a command ends the tracking that was on before.
fn ends_tracking(call: &Call<'_>) -> bool {
    call.is("client|tracking") && call.says("off") || call.is("reset")
}

/// Leaves of invalidations those that both have.
fn in_both(news: &mut [Vec<Frame>; 2]) {
    let [theirs, ours] = news;
    let has = |news: &[Frame], frame: &Frame| news.contains(frame);
    let shared: Vec<Frame> = theirs.iter().filter(|it| has(ours, it)).cloned().collect();
    for each in [theirs, ours] {
        each.retain(|it| it.verb() != b"invalidate" || has(&shared, it));
    }
}

/// Whether the client has the right to `CLIENT REPLY`, as far as replies tell.
fn may_silence(frames: &[Frame]) -> bool {
    let denied = |frame: &Frame| {
        let text = String::from_utf8_lossy(frame.text());
        // Before Redis 7.0 "… to run the 'client' command or its subcommand".
        let named = ["'client|reply' command", "'client' command or"];
        frame.is_error() && text.starts_with("NOPERM") && named.iter().any(|it| text.contains(it))
    };
    !frames.iter().any(denied)
}

/// Reads ordered frames until `enough`, or until nothing comes; news go to `news`.
fn hear(
    conn: &mut Conn,
    deadline: Instant,
    news: &mut Vec<Frame>,
    enough: impl Fn(&[Frame]) -> bool,
) -> Heard {
    let mut frames = Vec::new();
    while !enough(&frames) {
        match conn.next(deadline) {
            Ok(frame) if is_chatter(&frame) => {}
            Ok(frame) if frame.is_news() && !is_own(&frame) => news.push(frame),
            Ok(frame) => frames.push(frame),
            Err(gone) => {
                return Heard {
                    frames,
                    end: Some(gone),
                };
            }
        }
    }
    Heard { frames, end: None }
}

/// Whether a client hears what it has published itself, as [`OWN`]: that has its place among the
/// replies.
fn is_own(frame: &Frame) -> bool {
    frame.verb() == b"message" && frame.items().last().is_some_and(|it| it.text() == OWN)
}

/// What one of both has told comes from the other too. The bare server tells some of it, which is
/// broadcast, behind the end of a pipeline that Switchman sends in two pieces.
fn await_news(conns: &mut [Conn; 2], news: &mut [Vec<Frame>; 2]) {
    let deadline = Instant::now() + NEWS_WITHIN;
    let count = |news: &[Frame]| single_invalidations(news.to_vec()).len();
    loop {
        let [theirs, ours] = news.each_ref().map(|it| count(it));
        if theirs == ours {
            return;
        }
        let late = usize::from(ours < theirs);
        match conns[late].next(deadline) {
            Ok(frame) if is_chatter(&frame) => {}
            Ok(frame) => news[late].push(frame),
            Err(_gone) => return,
        }
    }
}

/// Whether the last frame answers the question behind a pipeline with so many replies.
fn ends(frames: &[Frame], token: &[u8], replies: usize) -> bool {
    let Some(last) = frames.last() else {
        return false;
    };
    let pong = last.verb() == b"pong" && last.items().get(1).is_some_and(|it| it.text() == token);
    let queued = last.is_line(b"+QUEUED") && frames.len() >= replies;
    // "… to run the 'ping' command", and before Redis 7.0 "… or its subcommand".
    let forbidden = last.is_error() && last.text().windows(6).any(|it| it == b"'ping'");
    let forbidden = forbidden && last.text().starts_with(b"NOPERM") && frames.len() >= replies;
    pong || queued || forbidden || last.kind() == b'$' && last.text() == token
}

/// A command as `redis-cli` takes it.
pub(super) fn told(words: &Words) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// What kind of reply it is; an error by its words without names and numbers.
fn likeness(frame: Option<&Frame>) -> String {
    let Some(frame) = frame else {
        return "nothing".to_owned();
    };
    if !frame.is_error() && frame.kind() != b'+' {
        return char::from(frame.kind()).to_string();
    }
    let text = String::from_utf8_lossy(frame.text()).into_owned();
    let words = text.split(' ').filter(|word| {
        let plain = |letter: char| letter.is_ascii_alphabetic() || "-,.:;()/|".contains(letter);
        word.chars().all(plain)
    });
    let words: Vec<&str> = words.take(9).collect();
    format!("{}{}", char::from(frame.kind()), words.join(" "))
}
