//! Floor 6. Layers → settings of the process. Every mistake is found before any is returned.

use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use crate::command::Table;
use crate::config::keys::{self, KEYS, Key, LISTENER_KEYS, Scope, Shape};
use crate::config::layers::{Given, Item, Layer, Layers};
use crate::config::{
    Admin, Commands, ConfigErrors, Effective, GroupSettings, Limits, Loaded, Problem, Settings,
    Shutdown, Source, Upstream, groups, secrets, values,
};
use crate::net::ListenAddr;
use crate::telemetry::logging::LogSettings;

/// Threads that serve clients: more than any machine has processors for.
const WORKERS_MAX: usize = 1024;
/// Clients: more than there are ports for.
const CLIENTS_MAX: usize = 10_000_000;
/// Leased connections per worker: Redis's own default limit of clients is 10 000.
const LEASED_MAX: usize = 100_000;
/// Leased connections per worker where nobody says how many.
const LEASED_EACH: usize = 512;
/// The same of all workers together: two processes then have room below Redis's default
/// `maxclients` (10 000), whatever machine they are on.
const LEASED_ALL: usize = 4096;
/// The longest time that any of the timeouts may be.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// The shortest time that most of the timeouts may be: below, a healthy network is at fault.
const TIMEOUT_MIN: Duration = Duration::from_millis(10);

/// The world outside, as far as a check needs it.
pub(super) struct Surroundings<'a> {
    /// Processors that this process may use.
    pub(super) processors: NonZeroUsize,
    /// Reads a file with a secret.
    pub(super) read: &'a dyn Fn(&Path) -> io::Result<SecretFile>,
}

/// A file with a secret.
pub(super) struct SecretFile {
    pub(super) text: String,
    /// Others than its owner and group may read it.
    pub(super) public: bool,
}

/// What is found on the way.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
    pub(super) effective: Vec<Effective>,
}

/// There is no value, because of a problem that is in the [`Findings`] already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted;

/// Reads keys through the layers, the strongest first, and notes what it finds.
pub(super) struct Lookup<'a> {
    pub(super) layers: Vec<&'a Layer>,
    /// Name of the group as people know it, if the keys are a group's.
    pub(super) group: Option<String>,
    /// The place to name for what nobody gave.
    pub(super) place: Source,
    pub(super) findings: &'a mut Findings,
}

/// Settings from `layers`; `problems` are those found while reading them.
pub(super) fn check(
    layers: &Layers,
    surroundings: &Surroundings<'_>,
    mut findings: Findings,
) -> Result<Loaded, ConfigErrors> {
    let settings = process(layers, surroundings, &mut findings);
    let Findings {
        mut problems,
        mut warnings,
        mut effective,
    } = findings;
    problems.sort();
    problems.dedup();
    warnings.sort();
    warnings.dedup();
    match settings {
        Ok(settings) if problems.is_empty() => {
            let all = || KEYS.iter().chain(LISTENER_KEYS);
            let order = |key| all().position(|known| known.path == key);
            effective.sort_by_key(|value| {
                (value.group.is_some(), value.group.clone(), order(value.key))
            });
            Ok(Loaded {
                settings,
                warnings,
                effective,
            })
        }
        _ => Err(ConfigErrors { problems, warnings }),
    }
}

fn process(
    layers: &Layers,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
) -> Result<Settings, Noted> {
    let top = layers.file.iter().map(|file| &file.top);
    let layered = [&layers.flags, &layers.env]
        .into_iter()
        .chain(top)
        .collect();
    let mut lookup = Lookup {
        layers: layered,
        group: None,
        place: Source::Default,
        findings,
    };
    let workers = workers(&mut lookup, surroundings.processors);
    let log_format = lookup.one(&keys::LOG_FORMAT, values::parsed);
    let log_level = lookup.one(&keys::LOG_LEVEL, values::parsed);
    let admin = lookup.one(&keys::ADMIN_LISTEN, tcp_listener);
    let token_keys = (&keys::ADMIN_TOKEN, &keys::ADMIN_TOKEN_FILE);
    let token = secrets::secret(&mut lookup, token_keys, surroundings);
    secrets::warn_of_public(layers, &mut lookup, &[&keys::ADMIN_TOKEN]);
    let limits = limits(&mut lookup);
    let upstream = upstream(&mut lookup, workers);
    let drain = values::duration(Duration::ZERO, TIMEOUT_MAX);
    let drain_timeout = lookup.one(&keys::SHUTDOWN_DRAIN_TIMEOUT, drain);
    let commands = commands(&mut lookup);
    let groups = groups::groups(layers, surroundings, findings, admin.as_ref().ok());
    Ok(Settings {
        workers: workers?,
        log: LogSettings {
            format: log_format?,
            level: log_level?,
        },
        admin: Admin {
            listen: admin?,
            token: token?,
        },
        limits: limits?,
        upstream: upstream?,
        shutdown: Shutdown {
            drain_timeout: drain_timeout?,
        },
        commands: commands?,
        groups: groups
            .into_iter()
            .collect::<Result<Vec<GroupSettings>, Noted>>()?,
    })
}

fn workers(lookup: &mut Lookup<'_>, processors: NonZeroUsize) -> Result<NonZeroUsize, Noted> {
    let given = lookup.one(&keys::WORKERS, values::number(0, WORKERS_MAX))?;
    if given == 0 {
        lookup.show(
            &keys::WORKERS,
            format!("{processors} (one for each processor)"),
        );
    }
    Ok(NonZeroUsize::new(given).unwrap_or(processors))
}

fn limits(lookup: &mut Lookup<'_>) -> Result<Limits, Noted> {
    let max_clients = lookup.one(&keys::MAX_CLIENTS, values::positive_or_auto(CLIENTS_MAX));
    let output = values::size(ByteSize::kib(64), ByteSize::gib(64));
    let client_output_limit = lookup.one(&keys::CLIENT_OUTPUT_LIMIT, output);
    let write = values::duration(TIMEOUT_MIN, TIMEOUT_MAX);
    let client_write_timeout = lookup.one(&keys::CLIENT_WRITE_TIMEOUT, write);
    let scripts = values::size(ByteSize::b(0), ByteSize::gib(1));
    let script_cache = lookup.one(&keys::SCRIPT_CACHE, scripts);
    Ok(Limits {
        max_clients: max_clients?,
        client_output_limit: client_output_limit?,
        client_write_timeout: client_write_timeout?,
        script_cache: script_cache?,
    })
}

fn upstream(
    lookup: &mut Lookup<'_>,
    workers: Result<NonZeroUsize, Noted>,
) -> Result<Upstream, Noted> {
    let timeout = || values::duration(TIMEOUT_MIN, TIMEOUT_MAX);
    let connect_timeout = lookup.one(&keys::CONNECT_TIMEOUT, timeout());
    let reply_timeout = lookup.one(&keys::REPLY_TIMEOUT, timeout());
    let suspect_after = lookup.one(&keys::SUSPECT_AFTER, timeout());
    let max_leased = max_leased(lookup, workers);
    let idle_timeout = lookup.one(&keys::IDLE_TIMEOUT, timeout());
    if let (Ok(reply), Ok(suspect)) = (reply_timeout, suspect_after)
        && suspect >= reply
    {
        let longer = "this must be shorter than upstream.reply-timeout";
        lookup.wrong(&keys::SUSPECT_AFTER, longer.to_owned());
    }
    Ok(Upstream {
        connect_timeout: connect_timeout?,
        reply_timeout: reply_timeout?,
        suspect_after: suspect_after?,
        max_leased: max_leased?,
        idle_timeout: idle_timeout?,
    })
}

fn max_leased(
    lookup: &mut Lookup<'_>,
    workers: Result<NonZeroUsize, Noted>,
) -> Result<NonZeroUsize, Noted> {
    let given = lookup.one(&keys::MAX_LEASED, values::positive_or_auto(LEASED_MAX))?;
    let share = LEASED_EACH.min(LEASED_ALL / workers?);
    let derived = NonZeroUsize::new(share).unwrap_or(NonZeroUsize::MIN);
    if given.is_none() {
        let shown = format!("{derived} (at most {LEASED_ALL} for all workers)");
        lookup.show(&keys::MAX_LEASED, shown);
    }
    Ok(given.unwrap_or(derived))
}

fn commands(lookup: &mut Lookup<'_>) -> Result<Commands, Noted> {
    let refuse = lookup.list(&keys::COMMANDS_REFUSE, values::word);
    let allow = lookup.list(&keys::COMMANDS_ALLOW, values::word);
    let table = Table::builtin();
    for (key, names) in [
        (&keys::COMMANDS_REFUSE, &refuse),
        (&keys::COMMANDS_ALLOW, &allow),
    ] {
        for name in names.iter().flat_map(|names| table.unknown_names(names)) {
            let hint = "a module's command, or misspelt?";
            lookup.warn(key, format!("{name:?} is no command of Redis; {hint}"));
        }
    }
    Ok(Commands {
        refuse: refuse?,
        allow: allow?,
    })
}

fn tcp_listener(text: &str) -> Result<ListenAddr, String> {
    match values::parsed(text)? {
        ListenAddr::Unix(_) => Err("the admin server speaks TCP only; write host:port".to_owned()),
        tcp @ ListenAddr::Tcp { .. } => Ok(tcp),
    }
}

impl Lookup<'_> {
    /// The value of a key that has a default.
    pub(super) fn one<T>(
        &mut self,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Noted> {
        let value = self.maybe(key, read)?;
        Ok(value.expect("a key that is read with `one` has a default"))
    }

    /// The value of a key, if there is one.
    pub(super) fn maybe<T>(
        &mut self,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Noted> {
        Ok(self.list(key, read)?.pop())
    }

    /// The values of a list.
    pub(super) fn list<T>(
        &mut self,
        key: &'static Key,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Noted> {
        let given = self.given(key);
        self.note(key, given.as_ref());
        let mut good = Vec::new();
        let items = given.iter().flat_map(|given| &given.items);
        let mut all_good = true;
        for Item { text, source } in items {
            match read(text) {
                Ok(value) => good.push(value),
                Err(problem) => {
                    all_good = false;
                    self.note_problem(key, source.clone(), problem);
                }
            }
        }
        if all_good { Ok(good) } else { Err(Noted) }
    }

    /// What the strongest layer that speaks gives, or the default.
    pub(super) fn given(&self, key: &Key) -> Option<Given> {
        let given = self.layers.iter().find_map(|layer| layer.get(key)).cloned();
        let default = || Given::from_text(key, key.default, Source::Default);
        given.or_else(|| (!key.default.is_empty()).then(default))
    }

    /// Where a key's value comes from.
    pub(super) fn source(&self, key: &Key) -> Source {
        self.given(key)
            .map_or(Source::Default, |given| given.source)
    }

    /// Notes that a key's value is wrong.
    pub(super) fn wrong(&mut self, key: &'static Key, problem: String) {
        self.note_problem(key, self.source(key), problem);
    }

    /// Notes that a key's value looks like a mistake.
    pub(super) fn warn(&mut self, key: &'static Key, problem: String) {
        let (source, key) = (self.source(key), self.name(key));
        self.findings.warnings.push(Problem {
            source,
            key,
            problem,
        });
    }

    /// Shows `value` instead of what was given.
    pub(super) fn show(&mut self, key: &Key, value: String) {
        let mut shown = self.findings.effective.iter_mut();
        if let Some(noted) = shown.rfind(|noted| noted.key == key.path) {
            noted.value = value;
        }
    }

    fn note(&mut self, key: &'static Key, given: Option<&Given>) {
        let value = match given {
            Some(_) if key.shape == Shape::Secret => "(hidden)".to_owned(),
            Some(given) if !given.items.is_empty() => {
                let texts: Vec<&str> = given.items.iter().map(|item| item.text.as_str()).collect();
                texts.join(", ")
            }
            _ => "(none)".to_owned(),
        };
        let source = given.map_or(Source::Default, |given| given.source.clone());
        let group = self.group.clone();
        self.findings.effective.push(Effective {
            group,
            key: key.path,
            value,
            source,
        });
    }

    fn note_problem(&mut self, key: &'static Key, source: Source, problem: String) {
        let key = self.name(key);
        let source = if source == Source::Default {
            self.place.clone()
        } else {
            source
        };
        self.findings.problems.push(Problem {
            source,
            key,
            problem,
        });
    }

    fn name(&self, key: &Key) -> String {
        match (&self.group, key.scope) {
            (Some(group), Scope::Group | Scope::Listener) => {
                format!("{} of group {group:?}", key.path)
            }
            _ => key.path.to_owned(),
        }
    }
}
