//! The law of this code base, as a test: floors, owners, pure modules, headers, sizes, leftovers.
//! What is written here holds; what is not checked here or by a lint is an opinion.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use switchman::config::keys::{KEYS, LISTENER_KEYS};
use switchman::telemetry::FAMILIES;

/// Each module and its floor. A module imports from floors strictly below its own; `types`, the
/// words that all speak, may be imported everywhere.
#[rustfmt::skip]
const FLOORS: &[(&str, u32)] = &[
    ("app",        8), ("main",       8),
    ("cli",        7),
    ("config",     6), ("demo",       6),
    ("worker",     5),
    ("admin",      4), ("downstream", 4), ("exchange",   4),
    ("session",    3),
    ("route",      2), ("sentinel",   2), ("upstream",   2),
    ("command",    1), ("consistency", 1), ("fence",     1), ("mux",        1), ("net",        1),
    ("switchover", 1), ("topology",   1),
    ("backoff",    0), ("resp",       0), ("tasks",      0), ("telemetry",  0), ("types",      0),
];

/// Modules without sockets, clock, chance, files, tasks and logs: time and chance are arguments.
const PURE: &[&str] = &[
    "backoff",
    "command",
    "consistency",
    "exchange",
    "fence",
    "mux",
    "resp",
    "route",
    "session",
    "switchover",
    "topology",
    "types",
];

/// What a pure module must not name. `std::net::IpAddr` is a value and no socket.
const IMPURE: &[&str] = &[
    "Instant",
    "SystemTime",
    "tokio",
    "fastrand",
    "rand",
    "tracing",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "std::time::Instant",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
];

/// Who may name what.
const OWNERS: &[(&str, &[&str])] = &[
    ("tokio::net", &["net"]),
    ("rustls", &["net"]),
    ("socket2", &["net"]),
    ("redis::", &["sentinel"]),
    ("metrics::", &["telemetry"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("serde::", &["config"]),
    ("toml::", &["config"]),
    ("bytesize", &["config"]),
    ("prefetch_index", &["consistency"]),
    ("memmap2", &["consistency"]),
    ("self_cell", &["consistency"]),
    ("zerocopy", &["consistency"]),
    ("serde_json", &["admin", "cli", "demo"]),
    ("axum", &["admin"]),
    ("hyper", &["admin", "cli"]),
    ("clap", &["cli"]),
    ("anyhow", &["app", "main"]),
    ("tokio::spawn", &["tasks", "worker"]),
    ("spawn_local", &["tasks", "worker"]),
    ("spawn_blocking", &["tasks", "worker"]),
    ("TaskTracker", &["tasks"]),
];

/// Lines of one file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Letters of one line.
const LINE_MAX: usize = 100;

/// Files whose tests sleep, and why that is no "let it settle".
const SLEEPERS: &[(&str, &str)] = &[
    (
        "tests/live/failover.rs",
        "paces a load; looks at a node again and again until a deadline",
    ),
    ("tests/live/faults.rs", "delays bytes on their way"),
    ("tests/live/gate.rs", "keeps writers out of step"),
    ("tests/live/replicas.rs", "paces a load"),
    (
        "tests/live/size.rs",
        "paces transactions and small commands",
    ),
    (
        "tests/live/stale/client.rs",
        "paces a load: a starved Sentinel sees nodes die",
    ),
    (
        "tests/live/stale/scene.rs",
        "counts what nodes serve in a given time",
    ),
    (
        "tests/live/switchover.rs",
        "paces a load; a replica is frozen for a while",
    ),
    (
        "tests/live/matrix/scene.rs",
        "paces a load; a fault that lasts for a given time is what a test is about",
    ),
];

/// What may lie at the top of the repository.
#[rustfmt::skip]
const TOP: &[&str] = &[
    ".ci", ".git", ".gitignore", "Cargo.lock", "Cargo.toml", "LICENSE-APACHE", "LICENSE-MIT",
    "Makefile", "README.md", "benches", "clippy.toml", "config", "deploy", "rustfmt.toml", "src",
    "target", "tests",
];

/// Marks that somebody left to come back to; put together here, so that this file passes too.
const LEFTOVERS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("db", "g!("),
    concat!("#[ig", "nore"),
    concat!("#[should_", "panic"),
    concat!("unimple", "mented!("),
];

/// Words of the workshop, not of the product: who reads the repository cannot follow them.
const WORKSHOP: &[&str] = &[
    concat!("shared", "/design"),
    concat!("/wo", "rk/"),
    concat!("cla", "ude"),
    concat!("anthr", "opic"),
    concat!("chat", "gpt"),
    concat!("ai ag", "ent"),
    concat!("ai-gen", "erated"),
    concat!("co-auth", "ored"),
];

/// Hosts that addresses in the repository may name; a mirror or a private registry is none of them.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "apache.org",
    "crates.io",
    "docs.rs",
    "docker.io",
    "example.com",
    "github.com",
    "grafana.com",
    "json-schema.org",
    "kubernetes.io",
    "localhost",
    "opensource.org",
    "prometheus.io",
    "redis.io",
    "rust-lang.org",
    "schemas.github.io",
    "valkey.io",
    "w3.org",
];

/// One Rust file.
struct Source {
    /// Path from the root of the repository.
    path: String,
    text: String,
    /// The text without tests, and with blanks for comments and literals: what it does.
    code: String,
    /// The same of its tests, or of all of it if it consists of tests.
    tests: String,
    lines: usize,
}

#[test]
fn every_module_has_a_floor_and_every_floor_its_module() {
    let found: BTreeSet<String> = sources("src")
        .iter()
        .map(|file| module(&file.path).to_owned())
        .collect();
    let known: BTreeSet<String> = FLOORS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, known, "found, and in FLOORS");
}

#[test]
fn modules_import_from_below_only() {
    let mut wrong = String::new();
    for file in sources("src") {
        let own = module(&file.path);
        for name in words_after(&file.code, "crate::") {
            let below = floor(&name).is_some_and(|theirs| theirs < floor(own).unwrap());
            if name != own && name != "types" && !below {
                let _ = writeln!(wrong, "{} names crate::{name}", file.path);
            }
        }
    }
    clean(
        &wrong,
        "each is no module of a lower floor, or not one import a line",
    );
}

#[test]
fn what_has_an_owner_is_named_by_nobody_else() {
    let mut wrong = String::new();
    for file in sources("src") {
        for (name, owners) in OWNERS {
            if !owners.contains(&module(&file.path)) && names(&file.code, name) {
                let _ = writeln!(
                    wrong,
                    "{} names {name}, which belongs to {owners:?}",
                    file.path
                );
            }
        }
    }
    clean(&wrong, "");
}

#[test]
fn pure_modules_know_no_sockets_clock_chance_files_or_logs() {
    let mut wrong = String::new();
    for file in sources("src")
        .iter()
        .filter(|file| PURE.contains(&module(&file.path)))
    {
        for name in IMPURE.iter().filter(|name| names(&file.code, name)) {
            let _ = writeln!(wrong, "{} names {name}", file.path);
        }
    }
    clean(&wrong, "");
}

#[test]
fn every_file_opens_with_its_floor() {
    let mut wrong = String::new();
    for file in sources("src")
        .iter()
        .filter(|file| file.path != "src/lib.rs")
    {
        let want = format!(
            "//! Floor {}. ",
            floor(module(&file.path)).unwrap_or_default()
        );
        if !file.text.starts_with(&want) {
            let _ = writeln!(wrong, "{} does not open with {want:?}", file.path);
        }
    }
    clean(&wrong, "");
}

#[test]
fn files_and_lines_stay_readable() {
    let mut wrong = String::new();
    for file in everything() {
        if file.lines > FILE_LINES_MAX && !file.path.starts_with("tests/") {
            let _ = writeln!(wrong, "{}: {} lines without tests", file.path, file.lines);
        }
        for (at, line) in file.text.lines().enumerate() {
            let letters = line.chars().count();
            if letters > LINE_MAX {
                let _ = writeln!(wrong, "{}:{}: {letters} letters", file.path, at + 1);
            }
        }
    }
    clean(&wrong, "split the file or the line");
}

#[test]
fn imports_name_what_they_take() {
    let mut wrong = String::new();
    for file in everything() {
        for pattern in ["super::super", "::*;", "crate::{"] {
            if file.code.contains(pattern) {
                let _ = writeln!(wrong, "{} has {pattern}", file.path);
            }
        }
    }
    clean(&wrong, "");
}

#[test]
fn nothing_was_left_for_later() {
    let mut wrong = String::new();
    for file in everything() {
        for mark in LEFTOVERS.iter().filter(|mark| file.text.contains(**mark)) {
            let _ = writeln!(wrong, "{} has {mark}", file.path);
        }
    }
    clean(&wrong, "");
}

#[test]
fn tests_wait_for_events_and_do_not_sleep() {
    let mut wrong = String::new();
    for file in ["src", "tests"].into_iter().flat_map(sources) {
        let excused = SLEEPERS.iter().any(|(path, _)| *path == file.path);
        if excused != names(&file.tests, "sleep(") {
            let said = if excused {
                "does not sleep any more"
            } else {
                "sleeps in a test"
            };
            let _ = writeln!(wrong, "{} {said}", file.path);
        }
    }
    clean(&wrong, "SLEEPERS holds those that must, with the reason");
}

#[test]
fn the_top_of_the_repository_is_tidy() {
    let entries = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let strangers: Vec<String> = entries
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !TOP.contains(&name.as_str()))
        .collect();
    assert_eq!(strangers, Vec::<String>::new());
}

#[test]
fn no_text_speaks_of_the_workshop() {
    let mut wrong = String::new();
    for path in texts() {
        let text = fs::read_to_string(root().join(&path)).unwrap();
        let small = text.to_lowercase();
        for word in WORKSHOP.iter().filter(|word| small.contains(**word)) {
            let _ = writeln!(wrong, "{path} has {word:?}");
        }
        for host in hosts(&small) {
            if !HOSTS
                .iter()
                .any(|known| host == *known || host.ends_with(&format!(".{known}")))
            {
                let _ = writeln!(wrong, "{path} names the host {host}");
            }
        }
    }
    clean(&wrong, "");
}

#[test]
fn every_metric_and_every_key_is_documented() {
    let example = fs::read_to_string(root().join("config/switchman.toml")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).ok();
    let mut wrong = String::new();
    for key in KEYS.iter().chain(LISTENER_KEYS) {
        if !example.contains(&format!("# {} = ", key.name())) {
            let _ = writeln!(wrong, "config/switchman.toml lacks {}", key.path);
        }
        if readme
            .as_ref()
            .is_some_and(|text| !text.contains(&format!("`{}`", key.path)))
        {
            let _ = writeln!(wrong, "README.md lacks `{}`", key.path);
        }
    }
    for family in FAMILIES {
        if readme
            .as_ref()
            .is_some_and(|text| !text.contains(&format!("`{}`", family.name)))
        {
            let _ = writeln!(wrong, "README.md lacks `{}`", family.name);
        }
    }
    clean(&wrong, "");
}

#[test]
fn code_is_told_from_comments_literals_and_tests() {
    let text = "use a::b; // tokio\n/* rustls */ const A: &str = \"redis:: \\\" x\";\n\
                const B: char = '\"'; fn f<'a>(x: &'a str) {} const C: &str = r#\"toml\"::\"#;\n\
                #[cfg(test)]\nmod tests { use serde; }\n";
    let (code, tests, lines) = split(text);
    assert!(names(&code, "a::b") && names(&code, "fn f"), "{code}");
    for hidden in ["tokio", "rustls", "redis", "toml", "serde"] {
        assert!(!names(&code, hidden), "{hidden} in {code}");
    }
    assert!(names(&tests, "serde"));
    assert_eq!(lines, 3);
}

#[test]
fn names_are_found_as_whole_words() {
    assert!(names("use metrics::Counter;", "metrics::"));
    assert!(!names(
        "use crate::telemetry::metrics::Metrics;",
        "metrics::"
    ));
    assert!(!names("let metrics_all = 1;", "metrics"));
    assert!(!names("let operand = 1;", "rand"));
}

/// Fails with the list of what is `wrong`, and with the `rule`.
#[track_caller]
fn clean(wrong: &str, rule: &str) {
    assert!(wrong.is_empty(), "{rule}\n{wrong}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below `dir`.
fn sources(dir: &str) -> Vec<Source> {
    let paths = files(&root().join(dir))
        .into_iter()
        .filter(|path| is(path, "rs"));
    let mut sources: Vec<Source> = paths.map(|path| Source::read(&path)).collect();
    let only_tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for file in &mut sources {
        let stem = file.path.trim_end_matches(".rs");
        let only = only_tests.iter().any(|module| {
            stem.strip_prefix(module.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        if only || !file.path.starts_with("src/") {
            file.tests.push_str(&file.code);
        }
        if only {
            file.code.clear();
            file.lines = 0;
        }
    }
    sources
}

/// All Rust files.
fn everything() -> Vec<Source> {
    ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// Paths of all files that hold text of ours.
fn texts() -> Vec<String> {
    let kinds = [
        "rs", "toml", "md", "yaml", "yml", "sh", "json", "conf", "css", "service", "lock",
    ];
    let plain = ["Makefile", "Dockerfile", "run"];
    let mut paths: Vec<PathBuf> = TOP
        .iter()
        .filter(|name| ![".git", "target", ".idea", ".vscode"].contains(name))
        .map(|name| root().join(name))
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.is_file())
        .collect();
    paths.retain(|path| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        kinds.iter().any(|kind| is(path, kind)) || plain.contains(&name)
    });
    paths.iter().map(|path| relative(path)).collect()
}

/// All files below `dir`, save what is built, fetched or found by chance there.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("the folder is readable").path()) {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if ![
                "target",
                "corpus",
                "artifacts",
                "node_modules",
                "venv",
                ".venv",
            ]
            .contains(&name)
            {
                found.extend(files(&path));
            }
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root())
        .expect("it was found below the root")
        .to_string_lossy()
        .into_owned()
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).expect("sources are readable UTF-8");
        let (code, tests, lines) = split(&text);
        Self {
            path: relative(path),
            text,
            code,
            tests,
            lines,
        }
    }

    /// Modules that this one declares as `#[cfg(test)] mod name;`: their paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let dir = match self.path.strip_suffix("/mod.rs") {
            Some(dir) => dir.to_owned(),
            None => self.path.trim_end_matches(".rs").to_owned(),
        };
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let declared = self.text.split("#[cfg(test)]").skip(1).filter_map(|rest| {
            let rest = rest.trim_start().trim_start_matches("pub(super) ");
            rest.strip_prefix("mod ")?
                .split_once(';')
                .map(|(name, _)| name.to_owned())
        });
        declared
            .filter(|name| name.chars().all(word))
            .map(|name| format!("{dir}/{name}"))
            .collect()
    }
}

/// The module to which a file below `src` belongs.
fn module(path: &str) -> &str {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    match inner.split_once('/') {
        Some((module, _)) => module,
        // The map of modules stands above all of them.
        None if inner == "lib.rs" => "main",
        None => inner.trim_end_matches(".rs"),
    }
}

fn floor(module: &str) -> Option<u32> {
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

/// Code and tests of a file, both bare, and the number of lines before the tests.
fn split(text: &str) -> (String, String, usize) {
    let bare = bare(text);
    // The tests are the last module of a file, in braces of its own.
    let at = bare.match_indices("#[cfg(").map(|(at, _)| at).find(|at| {
        let (condition, item) = bare[*at..].split_once(']').unwrap_or_default();
        let head = item.split(['{', ';']).next().unwrap_or_default();
        let in_braces = item[head.len()..].starts_with('{');
        names(condition, "test") && head.split_whitespace().any(|word| word == "mod") && in_braces
    });
    let (code, tests) = bare.split_at(at.unwrap_or(bare.len()));
    (code.to_owned(), tests.to_owned(), code.lines().count())
}

/// `text` with blanks in place of comments and of what stands in quotes; lines are kept.
fn bare(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut bare = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        let length = skipped(
            &letters[at..],
            at.checked_sub(1).map(|before| letters[before]),
        );
        if length == 0 {
            bare.push(*letter);
            at += 1;
            continue;
        }
        let end = (at + length).min(letters.len());
        bare.extend(
            letters[at..end]
                .iter()
                .map(|gone| if *gone == '\n' { '\n' } else { ' ' }),
        );
        at = end;
    }
    bare
}

/// How many letters at the start of `rest` are a comment or a literal.
fn skipped(rest: &[char], before: Option<char>) -> usize {
    let in_word = before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    match rest {
        ['/', '/', ..] => rest
            .iter()
            .position(|letter| *letter == '\n')
            .unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => quoted(rest),
        ['r', '"' | '#', ..] if !in_word => raw(rest, 1),
        ['b', 'r', '"' | '#', ..] if !in_word => raw(rest, 2),
        ['\'', '\\', ..] => {
            2 + rest[2..]
                .iter()
                .skip(1)
                .position(|l| *l == '\'')
                .unwrap_or(0)
                + 2
        }
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    }
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A raw literal, whose `r` ends at `start`; 0 if it is a raw name such as `r#type`.
fn raw(rest: &[char], start: usize) -> usize {
    let hashes = rest[start..]
        .iter()
        .take_while(|letter| **letter == '#')
        .count();
    if rest.get(start + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"')
        .chain(std::iter::repeat_n('#', hashes))
        .collect();
    let body = start + hashes + 1;
    let found = rest[body..]
        .windows(end.len())
        .position(|window| window == end);
    found.map_or(rest.len(), |found| body + found + end.len())
}

/// Whether `code` names `name` as a whole word and as the start of a path.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let word = |letter: char| letter.is_alphanumeric() || letter == '_';
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        let whole = name.ends_with(|last| !word(last)) || !after.is_some_and(word);
        whole && !before.is_some_and(|letter| word(letter) || (letter == ':' && name != "sleep("))
    })
}

/// The words behind each `prefix`.
fn words_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let starts = code.match_indices(prefix).filter(|(at, _)| {
        !code[..*at].ends_with(|letter: char| letter.is_alphanumeric() || "_$".contains(letter))
    });
    let word = |letter: &char| letter.is_alphanumeric() || *letter == '_';
    starts
        .map(|(at, _)| code[at + prefix.len()..].chars().take_while(word).collect())
        .collect()
}

/// The hosts of all addresses in `text`.
fn hosts(text: &str) -> Vec<String> {
    let ends = |letter: char| !(letter.is_ascii_alphanumeric() || ".-".contains(letter));
    let addresses = text.match_indices("://").filter(|(at, _)| {
        let before = &text[..*at];
        before.ends_with("http") || before.ends_with("https")
    });
    addresses
        .filter_map(|(at, found)| text[at + found.len()..].split(ends).next())
        .filter(|host| host.contains('.') || *host == "localhost")
        .map(str::to_owned)
        .collect()
}
