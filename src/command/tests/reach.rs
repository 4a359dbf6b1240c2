//! Floor 1. Tests of what requests read and change.

use crate::command::tests::{classify, encoded};
use crate::command::{Class, Described, Keys, Reach, Table};
use crate::resp::Request;

/// Checks how far each of `texts` reaches, which semicolons part, keys by their names.
fn check(want: &str, texts: &str) {
    let table = Table::builtin();
    for text in texts.split("; ") {
        assert_eq!(told(&table, text), want, "{text}");
    }
}

fn told(table: &Table, text: &str) -> String {
    let raw = encoded(text);
    let keys = |keys: crate::command::KeySpec| {
        let mut names = Vec::new();
        let told = keys.visit(&Request::from_raw(&raw).unwrap(), |key| {
            names.push(String::from_utf8_lossy(key).into_owned());
        });
        assert_eq!(told, Keys::Told, "{text}");
        names.join(" ")
    };
    match classify(table, text).reach() {
        Reach::Nothing => "nothing".to_owned(),
        Reach::Keys(spec) => keys(spec),
        Reach::OtherDatabase(spec) => format!("elsewhere {}", keys(spec)),
        Reach::Declared(spec) => format!("declared {}", keys(spec)),
        Reach::Database => "database".to_owned(),
        Reach::Everything => "everything".to_owned(),
    }
}

#[test]
fn reads_and_writes_reach_their_keys() {
    check(
        "a",
        "GET a; SET a 1; LPUSH a 1; BLPOP a 0; XADD a * f v; XGROUP CREATE a g $",
    );
    check(
        "a b",
        "MGET a b; MSET a 1 b 2; RENAME a b; BLMOVE a b LEFT LEFT 0; LMPOP 2 a b LEFT",
    );
    check(
        "d a b",
        "ZUNIONSTORE d 2 a b; SINTERSTORE d a b; BITOP AND d a b",
    );
    check(
        "a b",
        "XREAD STREAMS a b 0 0; SORT a STORE b; GEORADIUS a 0 0 1 m STORE b",
    );
    check("a b", "MIGRATE h 6379  0 10 KEYS a b");
    // It keeps in the key what it has counted.
    check("a b", "PFCOUNT a b");
}

#[test]
fn scripts_reach_what_they_declare_if_they_keep_to_it() {
    check(
        "declared a",
        "EVAL x 1 a b; EVALSHA x 1 a; FCALL f 1 a; EVAL_RO x 1 a; FCALL_RO f 1 a",
    );
    check("declared ", "EVAL x 0");
}

#[test]
fn what_names_no_key_reaches_everything() {
    check(
        "everything",
        "FLUSHALL; SWAPDB 0 1; FUNCTION LOAD x; FUNCTION FLUSH; DEBUG RELOAD",
    );
    check(
        "everything",
        "NOSUCH a; FUNCTION NOSUCH; KEYS *; SORT_RO a BY b",
    );
    check("database", "FLUSHDB; FLUSHDB ASYNC");
    check("elsewhere a", "MOVE a 1");
    check("elsewhere a b", "COPY a b DB 1; COPY a b");
}

#[test]
fn what_touches_no_data_reaches_nothing() {
    check(
        "nothing",
        "PUBLISH c m; SPUBLISH c m; SCRIPT LOAD x; SCRIPT FLUSH; WAIT 1 0; MULTI; EXEC",
    );
    check(
        "nothing",
        "CONFIG SET a b; BGSAVE; CLIENT NO-TOUCH ON; PING; INFO; TOUCH a; SUBSCRIBE c",
    );
    check("nothing", "XREAD BLOCK 0 STREAMS a $; FT.CURSOR READ i 1");
}

#[test]
fn a_write_always_reaches_something_and_so_does_what_the_master_alone_knows() {
    let table = Table::builtin();
    for spec in table.specs() {
        let writes = spec.flags.contains(crate::command::Flags::WRITE);
        let command = crate::command::Command {
            spec: Some(spec),
            class: spec.class,
            problem: None,
        };
        let refused = spec.class == Class::Refused;
        assert!(
            !writes || refused || command.reach() != Reach::Nothing,
            "{}",
            spec.name
        );
    }
    let described = |name: &str, flags: &[&str], first_key| Described {
        name: name.to_owned(),
        arity: -2,
        flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        first_key,
        last_key: first_key,
        step: first_key,
        ..Described::default()
    };
    let table = table.overlay(&[
        described("m.set", &["write"], 1),
        described("m.all", &["write"], 0),
        described("m.get", &["readonly"], 1),
        described("m.find", &["readonly"], 0),
        described("m.what", &[], 0),
        described("m.wait", &["blocking"], 0),
    ]);
    for (text, want) in [
        ("M.SET a", "a"),
        ("M.ALL a", "everything"),
        ("M.GET a", "a"),
        ("M.FIND a", "everything"),
        ("M.WHAT a", "everything"),
        ("M.WAIT a", "everything"),
    ] {
        assert_eq!(told(&table, text), want, "{text}");
    }
}
