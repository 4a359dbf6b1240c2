//! Floor 1. The table of all commands: built in, overlaid by the master's own, cut by the operator.
//! Must not know how the master is asked, nor where the operator's wishes are written.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use crate::command::lookup::{Index, Key, NAMES_MAX};
use crate::command::options::StreamOptions;
use crate::command::rows::ROWS;
use crate::command::{Class, Command, Flags, KeySpec, Leased, Problem, Script, Spec};
use crate::resp::Request;

/// Every known command. Immutable; made anew when the master or the configuration changes.
///
/// Names of more than 32 bytes, of which no server has any, are unknown here.
#[derive(Clone, Debug)]
pub struct Table {
    specs: Vec<Spec>,
    index: Index,
    before_7: bool,
    /// Whether the operator lets clients say at which address they are replicas.
    announces: bool,
}

/// Words of other protocols that end the connection on which they are said. Servers before 7.0 tell
/// them like commands, and call them reads; they must never go over a connection that is shared.
const TRAPS: [&str; 2] = ["post", "host:"];

/// A command as a server describes it in its `COMMAND` reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Name in any case; a subcommand with or without `container|` before it.
    pub name: String,
    /// Number of words, the name included; negative: at least so many.
    pub arity: i64,
    /// Flags, in the server's words.
    pub flags: Vec<String>,
    /// Position of the first key, 0 for none.
    pub first_key: i64,
    /// Position of the last key; negative counts from the end.
    pub last_key: i64,
    /// Distance from one key to the next.
    pub step: i64,
    /// Subcommands (since Redis 7.0).
    pub subcommands: Vec<Self>,
}

impl Table {
    /// The commands of Redis and Valkey as they come, without modules. Made once.
    pub fn builtin() -> Arc<Self> {
        static BUILTIN: LazyLock<Arc<Table>> = LazyLock::new(|| Arc::new(Table::of_rows()));
        Arc::clone(&BUILTIN)
    }

    fn of_rows() -> Self {
        let specs = ROWS.iter().map(|row| Spec {
            name: Cow::Borrowed(row.0),
            arity: row.1,
            class: row.2,
            flags: Flags::from_words(row.4.split_whitespace()),
            keys: row.3,
            number: 0,
        });
        Self::assemble(specs.collect())
    }

    /// This table with what the master says of itself.
    ///
    /// Of a command known here only the arity is taken over. One that the master does not have
    /// keeps its row, so that it is known how it must not be sent, and counts as unknown. A new one
    /// (a module's, a renamed one, one of a younger server) is classed by its flags: blocking,
    /// read, write; one with none of these may do anything to its connection and is handled as
    /// [`Class::Admin`]. What does not fit into the table (8192 names of 32 bytes) is left out, and
    /// so remains unknown: a write. So do `POST` and `HOST:`, which are no commands.
    #[must_use]
    pub fn overlay(&self, described: &[Described]) -> Self {
        let mut specs = self.specs.clone();
        for command in described {
            let name = command.name.to_ascii_lowercase();
            if TRAPS.contains(&name.as_str()) {
                continue;
            }
            self.merge(&mut specs, &name, command);
            for sub in &command.subcommands {
                self.merge(&mut specs, &format!("{name}|{}", bare(&sub.name)), sub);
            }
        }
        let mut before_7 = false;
        if is_whole(described) {
            before_7 = described.iter().all(|it| it.subcommands.is_empty());
            note_missing(&mut specs, described);
        }
        if before_7 {
            loosen(&mut specs);
        }
        Self {
            before_7,
            announces: self.announces,
            ..Self::assemble(specs)
        }
    }

    fn merge(&self, specs: &mut Vec<Spec>, name: &str, described: &Described) {
        let known = self.number(name).and_then(|number| specs.get_mut(number));
        let arity = i32::try_from(described.arity);
        match (known, arity) {
            (Some(spec), Ok(arity)) => spec.arity = arity,
            (None, Ok(arity)) => {
                let flags = Flags::from_words(described.flags.iter().map(String::as_str));
                let keys = described.keys(name, flags);
                let name = Cow::Owned(name.to_owned());
                let class = class_by_flags(flags);
                let anything = if class == Class::Admin {
                    Flags::ANYTHING
                } else {
                    Flags::NONE
                };
                specs.push(Spec {
                    name,
                    arity,
                    class,
                    flags: flags | anything,
                    keys,
                    number: 0,
                });
            }
            (_, Err(_)) => {}
        }
    }

    /// This table with the operator's wishes: `refuse` these, `allow` those.
    ///
    /// Names are like `flushall`, `client kill` or `client|kill`, in any case; a container stands
    /// for all its subcommands. Where both lists speak, the longer name wins, then `allow`. What is
    /// refused by default and allowed here becomes [`Class::Admin`]; anything else keeps its class.
    /// A name not known here is refused all the same, should a client use it.
    #[must_use]
    pub fn with_policy(&self, refuse: &[String], allow: &[String]) -> Self {
        let before_7 = self.before_7;
        let refuse: Vec<String> = refuse.iter().map(|name| normal(name)).collect();
        let allow: Vec<String> = allow.iter().map(|name| normal(name)).collect();
        let mut specs = self.specs.clone();
        for name in &refuse {
            self.make_known(&mut specs, name);
        }
        for spec in &mut specs {
            let refused = closeness(&refuse, &spec.name);
            let allowed = closeness(&allow, &spec.name);
            if refused > allowed {
                spec.class = Class::Refused;
            } else if allowed > 0 && spec.class == Class::Refused {
                spec.class = Class::Admin;
            }
        }
        Self {
            before_7,
            announces: closeness(&allow, "replconf") > 0,
            ..Self::assemble(specs)
        }
    }

    /// Those of the operator's `names` that are not in this table, as the operator wrote them.
    ///
    /// They may be a module's, or misspelt. One like `get|foo`, where `get` is known to have no
    /// subcommands, never has any effect.
    pub fn unknown_names<'n>(&self, names: &'n [String]) -> Vec<&'n str> {
        let unknown = |name: &&String| self.number(&normal(name)).is_none();
        names.iter().filter(unknown).map(String::as_str).collect()
    }

    /// Gives `name` a row, so that it can be refused, unless it has one or cannot exist.
    fn make_known(&self, specs: &mut Vec<Spec>, name: &str) {
        if self.number(name).is_some() {
            return;
        }
        let unknown = |name: &str| Spec {
            name: Cow::Owned(name.to_owned()),
            arity: -1,
            class: Class::Write,
            flags: Flags::NONE,
            keys: KeySpec::Any,
            number: 0,
        };
        if let Some((container, _)) = name.split_once('|') {
            match self.number(container).and_then(|number| specs.get(number)) {
                None => specs.push(unknown(container)),
                Some(known) if known.flags.contains(Flags::CONTAINER) => {}
                Some(_) => return,
            }
        }
        specs.push(unknown(name));
    }

    /// What `request` is.
    #[inline]
    pub fn classify(&self, request: &Request<'_>) -> Command<'_> {
        let argc = request.argc();
        let Some(number) = self.index.find_command(request.name()) else {
            let problem = Some(Problem::UnknownCommand);
            return Command {
                spec: None,
                class: Class::Write,
                problem,
            };
        };
        let spec = &self.specs[number];
        if !spec.flags.intersects(Flags::NOT_BY_NAME_ALONE) {
            return described(spec, argc);
        }
        if spec.flags.contains(Flags::MISSING) {
            return missing(spec, Problem::UnknownCommand);
        }
        if spec.flags.contains(Flags::CONTAINER)
            && let Some(first) = request.arg1()
        {
            return self.classify_subcommand(number, first, argc);
        }
        let mut command = described(spec, argc);
        let may_block = spec.flags.contains(Flags::BLOCK_OPTION) && spec.class != Class::Refused;
        if may_block && StreamOptions::of(request.args()).block.is_some() {
            command.class = Class::Leased(Leased::Blocking);
        }
        command
    }

    fn classify_subcommand(&self, container: usize, first: &[u8], argc: usize) -> Command<'_> {
        // Servers before 7.0 compare it as a C string (`strcasecmp`); later ones look it up.
        let end = memchr::memchr(0, first).filter(|_| self.before_7);
        let first = end.and_then(|end| first.get(..end)).unwrap_or(first);
        let key = scope(container).and_then(|scope| Key::new(scope, first));
        if let Some(number) = key.and_then(|key| self.index.find(key)) {
            let spec = &self.specs[number];
            return if spec.flags.contains(Flags::MISSING) {
                missing(spec, Problem::UnknownSubcommand)
            } else {
                described(spec, argc)
            };
        }
        let spec = &self.specs[container];
        let class = if spec.class == Class::MasterRead {
            Class::Admin
        } else {
            spec.class
        };
        Command {
            spec: Some(spec),
            class,
            problem: Some(Problem::UnknownSubcommand),
        }
    }

    /// Whether the master is of the time before Redis 7.0: it tells no subcommands, knows them and
    /// their arity when it executes them only, and has other words for some errors.
    pub const fn is_before_7(&self) -> bool {
        self.before_7
    }

    /// Whether the operator has allowed `REPLCONF` by name: a client may say then at which address
    /// it is a replica. Sentinels learn that from the master, and would count one there that is not
    /// (Redis sentinel.c, `sentinelRefreshInstanceInfo`).
    pub const fn lets_replicas_announce(&self) -> bool {
        self.announces
    }

    /// The row of `name`, a command or `container|subcommand`, in any case.
    pub fn get(&self, name: &str) -> Option<&Spec> {
        self.number(name).map(|number| &self.specs[number])
    }

    /// All rows.
    pub fn specs(&self) -> &[Spec] {
        &self.specs
    }

    fn number(&self, name: &str) -> Option<usize> {
        let (command, sub) = name
            .split_once('|')
            .map_or((name, None), |(c, s)| (c, Some(s)));
        let number = self.index.find_command(command.as_bytes())?;
        match sub {
            None => Some(number),
            Some(sub) => self.index.find(Key::new(scope(number)?, sub.as_bytes())?),
        }
    }

    /// Builds the index, and sets the flags that are ours.
    fn assemble(specs: Vec<Spec>) -> Self {
        let mut table = Self {
            specs: Vec::with_capacity(specs.len()),
            index: Index::default(),
            before_7: false,
            announces: false,
        };
        let mut keys = Vec::with_capacity(specs.len());
        let mut numbers: HashMap<Cow<'static, str>, usize> = HashMap::new();
        let (subs, commands): (Vec<Spec>, Vec<Spec>) =
            specs.into_iter().partition(|spec| spec.name.contains('|'));
        for spec in commands.into_iter().chain(subs) {
            let number = table.specs.len();
            let parent = spec
                .name
                .split_once('|')
                .map(|(container, sub)| (numbers.get(container).copied(), sub));
            let key = match parent {
                None => Key::new(0, spec.name.as_bytes()),
                Some((parent, sub)) => parent
                    .and_then(scope)
                    .and_then(|s| Key::new(s, sub.as_bytes())),
            };
            let Some(key) = key else { continue };
            if number == NAMES_MAX || numbers.contains_key(&spec.name) {
                continue;
            }
            if let Some((Some(parent), _)) = parent {
                let flags = &mut table.specs[parent].flags;
                *flags = *flags | Flags::CONTAINER;
            }
            keys.push(key);
            numbers.insert(spec.name.clone(), number);
            table.specs.push(Spec {
                flags: spec.flags | own_flags(&spec.name),
                number: u16::try_from(number).unwrap_or(u16::MAX),
                ..spec
            });
        }
        table.index = Index::new(keys);
        table
    }
}

impl Described {
    /// Where the keys of this command, called `name`, are, as far as its description tells. One
    /// that touches data and names no key may touch any.
    ///
    /// Modules describe where a cluster has to look, which may be less than what a command reads:
    /// `JSON.MGET` tells the first of its keys only. So every word of a read from its first key on
    /// is taken for one.
    fn keys(&self, name: &str, flags: Flags) -> KeySpec {
        if self.first_key == 0 && !flags.intersects(Flags::WRITE | Flags::READONLY) {
            return KeySpec::None;
        }
        let reads = class_by_flags(flags) == Class::Read;
        let first = u8::try_from(self.first_key).unwrap_or(0);
        // Not before the first; a negative one counts from the end.
        let last = i8::try_from(self.last_key).ok();
        let last = last.filter(|_| self.last_key < 0 || self.last_key >= self.first_key);
        match (first, last, u8::try_from(self.step)) {
            _ if flags.contains(Flags::MOVABLEKEYS) || names_no_keys(name, reads) => KeySpec::Any,
            (1.., Some(_), Ok(1..)) if reads => KeySpec::Range {
                first,
                last: -1,
                step: 1,
            },
            (1.., Some(last), Ok(step @ 1..)) => KeySpec::Range { first, last, step },
            _ => KeySpec::Any,
        }
    }
}

/// Whether what a module's command calls its key stands for others: the name of an index of many
/// keys (`FT.SEARCH`, `FT.DROPINDEX`, not `FT.SUGGET`), or a series that follows from another one
/// by a rule (`TS.RANGE`).
fn names_no_keys(name: &str, reads: bool) -> bool {
    let index = name.starts_with("ft.") && !name.starts_with("ft.sug");
    index || (reads && name.starts_with("ts."))
}

/// What the row says of a request of `argc` words.
#[inline]
fn described(spec: &Spec, argc: usize) -> Command<'_> {
    let problem = if spec.arity_ok(argc) {
        None
    } else {
        Some(Problem::WrongArity)
    };
    Command {
        spec: Some(spec),
        class: spec.class,
        problem,
    }
}

/// What the master does not have. Where a shared connection will do, the master words the error.
#[cold]
const fn missing(spec: &Spec, problem: Problem) -> Command<'_> {
    Command {
        spec: Some(spec),
        class: if spec.class.is_shared() {
            Class::Write
        } else {
            spec.class
        },
        problem: Some(problem),
    }
}

/// Whether a server has told all of its commands, as far as can be seen: what every server has is
/// among them.
fn is_whole(described: &[Described]) -> bool {
    let told = |name: &str| {
        described
            .iter()
            .any(|it| it.name.eq_ignore_ascii_case(name))
    };
    ["get", "set", "ping", "command"]
        .iter()
        .all(|name| told(name))
}

/// Subcommands that Switchman answers itself, and that servers before 7.0 do not have.
const SINCE_7: [&str; 2] = ["client|no-evict", "client|setinfo"];

/// Marks what is not among the `described`. Servers before 7.0 tell no subcommands.
fn note_missing(specs: &mut [Spec], described: &[Described]) {
    let subs: HashMap<String, HashSet<String>> = described
        .iter()
        .map(|command| {
            let subs = command.subcommands.iter().map(|sub| bare(&sub.name));
            (command.name.to_ascii_lowercase(), subs.collect())
        })
        .collect();
    for spec in specs {
        let has = match spec.name.split_once('|') {
            // Servers before 7.0 answer it before they look into their table.
            None => spec.name == "quit" || subs.contains_key(spec.name.as_ref()),
            Some((container, sub)) => subs.get(container).is_some_and(|told| {
                let untold = told.is_empty() && !SINCE_7.contains(&spec.name.as_ref());
                untold || told.contains(sub)
            }),
        };
        if !has {
            spec.flags = spec.flags | Flags::MISSING;
        }
    }
}

/// Servers before 7.0 look at the arguments of a subcommand when they execute it, some at other
/// things first (CLUSTER), and some at fewer (Redis 6.2 networking.c, `clientCommand`: CACHING).
fn loosen(specs: &mut [Spec]) {
    for spec in specs {
        if spec.name == "client|caching" {
            spec.arity = -3;
        } else if spec.class == Class::Admin && spec.name.contains('|') {
            spec.arity = -2;
        }
    }
}

/// The name of a subcommand without its container's.
fn bare(name: &str) -> String {
    let bare = name.rsplit('|').next().unwrap_or_default();
    bare.to_ascii_lowercase()
}

/// The scope in which the names of the subcommands of this container are looked up.
fn scope(container: usize) -> Option<u32> {
    u32::try_from(container).ok()?.checked_add(1)
}

fn class_by_flags(flags: Flags) -> Class {
    if flags.contains(Flags::BLOCKING) {
        Class::Leased(Leased::Blocking)
    } else if flags.contains(Flags::WRITE) {
        Class::Write
    } else if flags.contains(Flags::READONLY) {
        Class::Read
    } else {
        Class::Admin
    }
}

/// The flags that no server tells.
fn own_flags(name: &str) -> Flags {
    let script = if Script::of(name).is_some() {
        Flags::SCRIPT
    } else {
        Flags::NONE
    };
    let other = match name {
        "xread" | "xreadgroup" => Flags::BLOCK_OPTION,
        "copy" | "move" => Flags::OTHER_DATABASE,
        "flushdb" => Flags::DATABASE,
        "debug" => Flags::ANYTHING,
        _ => Flags::NONE,
    };
    script | other
}

/// `"CLIENT  kill"` and `"client|kill"` as `"client|kill"`.
fn normal(name: &str) -> String {
    let words = name
        .split(|c: char| c == '|' || c.is_whitespace())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("|").to_ascii_lowercase()
}

/// How closely one of `names` means the command `name`: 2 itself, 1 its container, 0 not at all.
fn closeness(names: &[String], name: &str) -> u8 {
    let listed = |name: &str| names.iter().any(|listed| listed == name);
    match name.split_once('|') {
        _ if listed(name) => 2,
        Some((container, _)) if listed(container) => 1,
        _ => 0,
    }
}
