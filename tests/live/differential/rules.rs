//! What differs between any two servers: named rules, each for some commands, that make replies
//! equal which differ in that alone.

use crate::differential::frame::{Frame, is_confirmation};

/// A command with the name by which rules know it.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    /// Lower case; `container|sub` where the server knows that.
    pub(super) name: String,
    pub(super) words: &'a [Vec<u8>],
}

impl<'a> Call<'a> {
    pub(super) fn new(words: &'a [Vec<u8>]) -> Self {
        let lower = |at: usize| {
            let word = words.get(at).map_or(&b""[..], Vec::as_slice);
            String::from_utf8_lossy(word).to_lowercase()
        };
        let first = lower(0);
        let name = if CONTAINERS.contains(&first.as_str()) && words.len() > 1 {
            format!("{first}|{}", lower(1))
        } else {
            first
        };
        Self { name, words }
    }

    /// Whether this is the command `name`; with `*` at its end, one that begins so.
    pub(super) fn is(&self, name: &str) -> bool {
        match name.strip_suffix('*') {
            Some(start) => self.name.starts_with(start),
            None => self.name == name,
        }
    }

    /// Whether `word` is among its arguments, in any case.
    pub(super) fn says(&self, word: &str) -> bool {
        let word = word.as_bytes();
        self.words
            .iter()
            .skip(1)
            .any(|it| it.eq_ignore_ascii_case(word))
    }
}

impl Call<'_> {
    /// Whether it logs in.
    pub(super) fn logs_in(&self) -> bool {
        self.is("auth") || self.is("hello") && self.says("auth")
    }

    /// Whether it is a `SORT` whose `BY` has no place for the element: it does not sort.
    fn is_by_nothing(&self) -> bool {
        let by = self
            .words
            .iter()
            .position(|it| it.eq_ignore_ascii_case(b"BY"));
        let pattern = by.and_then(|at| self.words.get(at + 1));
        pattern.is_some_and(|it| !it.contains(&b'*'))
    }
}

/// Commands with subcommands.
const CONTAINERS: &[&str] = &[
    "acl", "client", "cluster", "command", "config", "debug", "function", "latency", "memory",
    "module", "object", "pubsub", "script", "slowlog", "xgroup", "xinfo",
];

/// One thing that differs between any two servers.
pub(super) struct Rule {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) commands: &'static [&'static str],
    /// Makes both alike in this one thing.
    apply: fn(&Call<'_>, &mut Frame, &mut Frame),
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "clock",
        why: "the same moment is another one at the other server",
        commands: &["time", "lastsave"],
        apply: |_, a, b| pairwise(a, b, &near_scalar),
    },
    Rule {
        name: "time left",
        why: "some of it has passed before the other server answers",
        commands: &[
            "ttl",
            "pttl",
            "expiretime",
            "pexpiretime",
            "object|idletime",
        ],
        apply: |_, a, b| pairwise(a, b, &near_scalar),
    },
    Rule {
        name: "time ids",
        why: "XADD * makes the id of an entry of the time",
        commands: &["x*"],
        apply: |_, a, b| pairwise(a, b, &time_id),
    },
    Rule {
        name: "idle times",
        why: "consumers and entries tell how long ago something was",
        commands: &["xinfo|*", "xpending"],
        apply: |call, a, b| idle(call, a, b),
    },
    Rule {
        name: "id of the connection",
        why: "each server counts its own",
        commands: &["hello", "client|id"],
        apply: |call, a, b| {
            if call.is("client|id") {
                pairwise(a, b, &any_number);
            } else {
                after(a, b, &["id"]);
            }
        },
    },
    Rule {
        name: "random members",
        why: "which ones is left to chance; how many is not",
        commands: &[
            "srandmember",
            "hrandfield",
            "zrandmember",
            "randomkey",
            "spop",
        ],
        apply: |_, a, b| pairwise(a, b, &any_text),
    },
    Rule {
        name: "random text",
        why: "passwords and art are made by chance",
        commands: &["acl|genpass", "lolwut"],
        apply: |_, a, b| pairwise(a, b, &any_text),
    },
    Rule {
        name: "order",
        why: "hash tables have another order in each process",
        commands: &[
            "smembers",
            "sinter",
            "sunion",
            "sdiff",
            "keys",
            "pubsub|channels",
            "pubsub|shardchannels",
            "sort",
            "sort_ro",
            "command|list",
            "acl|cat",
            "eval_ro",
            "eval",
            "module|list",
        ],
        apply: |call, a, b| {
            let sorts = call.is("sort*") && !call.is_by_nothing();
            if !sorts && !call.is("eval*") {
                sort(a);
                sort(b);
            }
        },
    },
    Rule {
        name: "order of pairs",
        why: "hash tables have another order in each process",
        commands: &["hgetall", "config|get", "memory|stats", "eval", "eval_ro"],
        apply: |_, a, b| {
            sort_pairs(a);
            sort_pairs(b);
        },
    },
    Rule {
        name: "order of keys and of values",
        why: "hash tables have another order in each process",
        commands: &["hkeys", "hvals"],
        apply: |_, a, b| {
            sort(a);
            sort(b);
        },
    },
    Rule {
        name: "order at any depth",
        why: "lists of commands, libraries and their functions come from hash tables",
        commands: &[
            "command",
            "command|docs",
            "command|info",
            "function|list",
            "acl|getuser",
        ],
        apply: |_, a, b| {
            sort_deep(a);
            sort_deep(b);
        },
    },
    Rule {
        name: "cursors",
        why: "a cursor is good at the server that gave it; a page in one piece is compared",
        commands: &["scan", "sscan", "hscan", "zscan"],
        apply: |call, a, b| page(call, a, b),
    },
    Rule {
        name: "figures of a server",
        why: "load, memory, time and what others have done; the names of the fields are compared",
        commands: &["info"],
        apply: |_, a, b| {
            fields(a);
            fields(b);
        },
    },
    Rule {
        name: "sizes in memory",
        why: "what the allocator and the growth of a hash table make of it",
        commands: &[
            "memory|usage",
            "memory|stats",
            "memory|malloc-stats",
            "memory|doctor",
            "debug|object",
        ],
        apply: |call, a, b| {
            if call.is("memory|stats") {
                figures(a);
                figures(b);
            }
            pairwise(a, b, &figure);
        },
    },
    Rule {
        name: "latencies",
        why: "each server has measured its own calls",
        commands: &["latency|histogram", "acl|log"],
        apply: |_, a, b| {
            if a.kind() == b.kind() {
                *b = a.clone();
            }
        },
    },
    Rule {
        name: "place of the deployment",
        why: "ports, directories, offsets of replication",
        commands: &["role", "config|get"],
        apply: |call, a, b| {
            if call.is("role") {
                pairwise(a, b, &any_digits);
            } else {
                after(a, b, &["port", "dir", "logfile", "pidfile"]);
            }
        },
    },
    Rule {
        name: "acknowledgements",
        why: "a server counts who has its client's last write, which is a message of Switchman's",
        commands: &["waitaof"],
        apply: |_, a, b| pairwise(a, b, &any_digits),
    },
    Rule {
        name: "digests of streams",
        why: "they are of the ids, which XADD * makes of the time",
        commands: &["debug|digest-value"],
        apply: |call, a, b| digests(call, a, b),
    },
    Rule {
        name: "order of a dump",
        why: "a payload has the order of a hash table, and its checksum",
        commands: &["dump", "function|dump"],
        apply: |_, a, b| pairwise(a, b, &same_length),
    },
];

/// Whether the replies to `call` are equal, and by which rules they had to be made so.
pub(super) fn equal(call: &Call<'_>, theirs: &Frame, ours: &Frame) -> Result<Vec<usize>, ()> {
    if theirs == ours {
        return Ok(Vec::new());
    }
    let (mut a, mut b) = (theirs.clone(), ours.clone());
    let mut used = Vec::new();
    for (at, rule) in RULES.iter().enumerate() {
        if rule.commands.iter().any(|name| call.is(name)) {
            (rule.apply)(call, &mut a, &mut b);
            used.push(at);
        }
        if a == b {
            return Ok(used);
        }
    }
    Err(())
}

/// Whether it is told by Sentinels to each other, or by Switchman to itself, at any time.
pub(super) fn is_chatter(frame: &Frame) -> bool {
    let internal =
        |it: &Frame| it.text() == b"__sentinel__:hello" || it.text().starts_with(b"__switchman__:");
    frame.is_news() && frame.items().iter().any(internal)
}

/// Messages of several patterns come in the order of a hash table, for each that is published.
pub(super) fn order_of_patterns(news: &mut [Frame]) {
    let published = |frame: &Frame| match frame.items() {
        [verb, _, channel, message] if verb.text() == b"pmessage" => {
            Some((channel.clone(), message.clone()))
        }
        _ => None,
    };
    let same = |a: &Frame, b: &Frame| published(a).is_some() && published(a) == published(b);
    for run in news.chunk_by_mut(same) {
        run.sort();
    }
}

/// UNSUBSCRIBE without a channel ends all, in the order of a hash table.
pub(super) fn order_of_ends(frames: &mut [Frame]) {
    let ends =
        |frame: &Frame| is_confirmation(frame) && frame.verb().windows(5).any(|it| it == b"unsub");
    for run in frames.chunk_by_mut(|a, b| ends(a) && a.verb() == b.verb()) {
        let mut names: Vec<Frame> = run
            .iter()
            .filter_map(|it| it.items().get(1).cloned())
            .collect();
        if names.len() < 2 || !ends(&run[0]) {
            continue;
        }
        names.sort();
        for (frame, name) in run.iter_mut().zip(names) {
            if let Frame::Many(_, items) = frame {
                items[1] = name;
            }
        }
    }
}

/// Keys that become invalid at about the same time are told together or one by one, once or several
/// times, and in the order of a hash table.
pub(super) fn single_invalidations(news: Vec<Frame>) -> Vec<Frame> {
    let split = |frame: Frame| match frame.items() {
        [verb, keys] if verb.text() == b"invalidate" && keys.items().len() > 1 => {
            let one = |key: &Frame| Frame::Many(b'*', vec![key.clone()]);
            let each = |key| Frame::Many(frame.kind(), vec![verb.clone(), one(key)]);
            keys.items().iter().map(each).collect()
        }
        _ => vec![frame],
    };
    let mut news: Vec<Frame> = news.into_iter().flat_map(split).collect();
    let invalid = |frame: &Frame| frame.verb() == b"invalidate";
    for run in news.chunk_by_mut(|a, b| invalid(a) && invalid(b)) {
        run.sort();
    }
    news.dedup_by(|a, b| a == b && invalid(a));
    news
}

/// What both become where they differ in what does not count.
type Alike = dyn Fn(&Frame, &Frame) -> Option<Frame>;

/// Applies `alike` to all scalars that stand in the same place.
fn pairwise(a: &mut Frame, b: &mut Frame, alike: &Alike) {
    if a == b {
        return;
    }
    match (&mut *a, &mut *b) {
        (Frame::Many(left, lefts), Frame::Many(right, rights)) if left == right => {
            for (a, b) in lefts.iter_mut().zip(rights) {
                pairwise(a, b, alike);
            }
        }
        (Frame::Many(..), _) | (_, Frame::Many(..)) => {}
        _ => {
            if let (true, Some(same)) = (a.kind() == b.kind() && !a.is_error(), alike(a, b)) {
                *a = same.clone();
                *b = same;
            }
        }
    }
}

/// Makes digests of the same key alike where streams are kept, unless one of the keys is not there.
fn digests(call: &Call<'_>, a: &mut Frame, b: &mut Frame) {
    let (Frame::Many(_, lefts), Frame::Many(_, rights)) = (a, b) else {
        return;
    };
    let keys = call.words.iter().skip(2);
    for ((a, b), key) in lefts.iter_mut().zip(rights).zip(keys) {
        let is_there = |it: &Frame| it.text().iter().any(|digit| *digit != b'0');
        let is_of_stream = key.windows(2).any(|it| it == b":x");
        if is_of_stream && is_there(a) && is_there(b) {
            pairwise(a, b, &same_length);
        }
    }
}

fn integer(frame: &Frame) -> Option<i64> {
    std::str::from_utf8(frame.text()).ok()?.parse().ok()
}

/// Times that may lie between two answers: in seconds, milliseconds or microseconds.
const NEAR: i64 = 10_000;

fn near_scalar(a: &Frame, b: &Frame) -> Option<Frame> {
    let (left, right) = (integer(a)?, integer(b)?);
    let near = left.abs_diff(right) <= NEAR.unsigned_abs() && left >= 0 && right >= 0;
    let micros = a.kind() == b'$' && left < 1_000_000 && right < 1_000_000;
    (near || micros).then(|| Frame::Line(b'?', b"a time".to_vec()))
}

fn time_id(a: &Frame, b: &Frame) -> Option<Frame> {
    let millis = |frame: &Frame| {
        let text = std::str::from_utf8(frame.text()).ok()?;
        let (millis, count) = text.split_once('-')?;
        count.parse::<u64>().ok()?;
        let millis = millis.parse::<i64>().ok()?;
        (millis > 1_600_000_000_000).then_some(millis)
    };
    let near = millis(a)?.abs_diff(millis(b)?) <= NEAR.unsigned_abs();
    near.then(|| Frame::Line(b'?', b"an id of now".to_vec()))
}

fn any_number(a: &Frame, b: &Frame) -> Option<Frame> {
    (integer(a)? > 0 && integer(b)? > 0).then(|| Frame::Line(b'?', b"a number".to_vec()))
}

fn any_digits(a: &Frame, b: &Frame) -> Option<Frame> {
    integer(a).and(integer(b))?;
    Some(Frame::Line(b'?', b"a number".to_vec()))
}

fn any_text(a: &Frame, b: &Frame) -> Option<Frame> {
    let null = |frame: &Frame| frame.kind() == b'_' || frame.is_line(b"$-1");
    (!null(a) && !null(b)).then(|| Frame::Line(b'?', b"by chance".to_vec()))
}

fn same_length(a: &Frame, b: &Frame) -> Option<Frame> {
    let same = a.text().len().abs_diff(b.text().len()) <= 64 && !a.text().is_empty();
    same.then(|| Frame::Line(b'?', b"a payload".to_vec()))
}

/// A number, or a text of lines with numbers.
fn figure(a: &Frame, b: &Frame) -> Option<Frame> {
    let figures = integer(a).and(integer(b)).is_some() || a.text().len().min(b.text().len()) > 20;
    let double = a.kind() == b',';
    (figures || double).then(|| Frame::Line(b'?', b"figures".to_vec()))
}

/// Makes the values behind these names alike, wherever they stand.
fn after(a: &mut Frame, b: &mut Frame, names: &[&str]) {
    let (Frame::Many(_, lefts), Frame::Many(_, rights)) = (a, b) else {
        return;
    };
    for at in 0..lefts.len().min(rights.len()) {
        let name = at.checked_sub(1).map(|before| lefts[before].text());
        let meant = name.is_some_and(|name| {
            names
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it.as_bytes()))
        });
        if meant && lefts[at].kind() == rights[at].kind() {
            rights[at] = lefts[at].clone();
        } else {
            after(&mut lefts[at], &mut rights[at], names);
        }
    }
}

fn idle(call: &Call<'_>, a: &mut Frame, b: &mut Frame) {
    after(a, b, &["idle", "inactive", "seen-time", "active-time"]);
    if call.is("xpending") || call.says("full") {
        pairwise(a, b, &|a, b| {
            let number = a.kind() == b':';
            number.then(|| near_scalar(a, b)).flatten()
        });
    }
}

fn sort(frame: &mut Frame) {
    if let Frame::Many(_, items) = frame {
        items.sort();
    }
}

fn sort_deep(frame: &mut Frame) {
    if let Frame::Many(_, items) = frame {
        items.iter_mut().for_each(sort_deep);
        items.sort();
    }
}

/// Names and values in turn, by name.
fn sort_pairs(frame: &mut Frame) {
    if let Frame::Many(kind, items) = frame {
        if *kind != b'%' && !items.len().is_multiple_of(2) {
            return;
        }
        let mut pairs: Vec<Vec<Frame>> = items.chunks(2).map(<[Frame]>::to_vec).collect();
        pairs.sort();
        *items = pairs.concat();
    }
}

/// One page of a scan: all of it without an order, or that there is more.
fn page(call: &Call<'_>, a: &mut Frame, b: &mut Frame) {
    let (Frame::Many(_, left), Frame::Many(_, right)) = (a, b) else {
        return;
    };
    let ([from, found], [other_from, other_found]) = (&mut left[..], &mut right[..]) else {
        return;
    };
    let from_the_start = call.words.iter().skip(1).take(2).any(|it| it == b"0");
    if from.text() == b"0" && other_from.text() == b"0" && from_the_start {
        for found in [found, other_found] {
            if call.is("hscan") || call.is("zscan") {
                sort_pairs(found);
            } else {
                sort(found);
            }
        }
    } else {
        let more = Frame::Line(b'?', b"a page".to_vec());
        *from = more.clone();
        *other_from = more;
        *other_found = found.clone();
    }
}

/// Fields of `INFO` that come and go.
const COMING_AND_GOING: &[&str] = &[
    "slave",
    "db",
    "cmdstat_",
    "errorstat_",
    "latency_percentiles",
    "eventloop",
    "aof_",
    "module:",
];

/// The names in the lines of `INFO`.
fn fields(frame: &mut Frame) {
    if let Frame::Bulk(_, text) = frame {
        let text_of = String::from_utf8_lossy(text).into_owned();
        let names = text_of.lines().filter_map(|line| line.split(':').next());
        let names = names.filter(|name| !COMING_AND_GOING.iter().any(|it| name.starts_with(it)));
        *text = names.collect::<Vec<_>>().join("\n").into_bytes();
    }
}

/// The names of `MEMORY STATS` without those of databases, which are there while they have keys.
fn figures(frame: &mut Frame) {
    if let Frame::Many(_, items) = frame {
        let pairs = items
            .chunks(2)
            .filter(|pair| !pair[0].text().starts_with(b"db."));
        *items = pairs.map(|pair| pair[0].clone()).collect();
        items.sort();
    }
}
