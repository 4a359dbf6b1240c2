//! Floor 1. Tests of the table as the master's description and the operator's wishes change it.

use crate::command::tests::{ADMIN, BLOCKING, MASTER, READ, REFUSED, WRITE, classify};
use crate::command::{Class, Described, KeySpec, Leased, Local, Problem, Table};

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn described(name: &str, arity: i64, flags: &[&str], keys: (i64, i64, i64)) -> Described {
    Described {
        name: name.to_owned(),
        arity,
        flags: names(flags),
        first_key: keys.0,
        last_key: keys.1,
        step: keys.2,
        subcommands: Vec::new(),
    }
}

#[test]
fn a_server_without_subcommands_is_one_of_the_time_before_7() {
    let old = ["get", "set", "ping", "command", "client"];
    let old = old.map(|name| described(name, -2, &[], (0, 0, 0)));
    let table = Table::builtin().overlay(&old);
    assert!(table.is_before_7() && table.with_policy(&[], &[]).is_before_7());
    let problem = |text| classify(&table, text).problem;
    assert_eq!(problem("CLIENT SETNAME x"), None);
    assert_eq!(problem("CLIENT CACHING YES x"), None);
    assert_eq!(problem("CLIENT PAUSE"), None);
    assert_eq!(problem("CLIENT SETNAME"), Some(Problem::WrongArity));
    for lacking in ["CLIENT SETINFO LIB-NAME x", "CLIENT NO-EVICT ON"] {
        assert_eq!(
            problem(lacking),
            Some(Problem::UnknownSubcommand),
            "{lacking}"
        );
    }
    let sub = described("client|setname", 3, &[], (0, 0, 0));
    let mut new = old.to_vec();
    new[4].subcommands.push(sub);
    let new = Table::builtin().overlay(&new);
    assert!(!new.is_before_7());
    let wrong = Some(Problem::WrongArity);
    let is = classify(&Table::builtin(), "CLIENT CACHING YES x").problem;
    assert_eq!(is, wrong);
    assert!(!Table::builtin().is_before_7());
}

#[test]
fn what_ends_its_connection_is_no_command_though_an_old_server_tells_it() {
    let flags = ["readonly", "loading", "stale"];
    let told = ["host:", "post"].map(|name| described(name, -1, &flags, (0, 0, 0)));
    let table = Table::builtin().overlay(&told);
    for text in ["POST / HTTP/1.1", "host: localhost", "Post"] {
        let problem = classify(&table, text).problem;
        assert_eq!(problem, Some(Problem::UnknownCommand), "{text}");
    }
}

#[test]
fn a_modules_commands_come_with_the_masters_description() {
    let described = [
        described("JSON.GET", -2, &["readonly", "module"], (1, 1, 1)),
        described("json.set", -4, &["write", "denyoom", "module"], (1, 1, 1)),
        described("bf.wait", 3, &["write", "blocking"], (1, -2, 1)),
        described("m.many", -2, &["readonly", "movablekeys"], (1, 1, 1)),
        described("ft.search", -3, &["readonly"], (0, 0, 0)),
        described("ft.cursor", -2, &["readonly"], (0, 0, 0)),
        described("m.state", -1, &["fast"], (0, 0, 0)),
    ];
    let table = Table::builtin().overlay(&described);
    let check = |text: &str, class: Class, keys: KeySpec, problem: Option<Problem>| {
        let got = classify(&table, text);
        assert_eq!((got.class, got.problem), (class, problem), "{text}");
        assert_eq!(got.spec.unwrap().keys, keys, "{text}");
    };
    let one = KeySpec::Range {
        first: 1,
        last: 1,
        step: 1,
    };
    let rest = KeySpec::Range {
        first: 1,
        last: -1,
        step: 1,
    };
    check("json.get k", READ, rest, None);
    check("JSON.GET", READ, rest, Some(Problem::WrongArity));
    check("JSON.SET k . 1", WRITE, one, None);
    check(
        "BF.WAIT k 0",
        BLOCKING,
        KeySpec::Range {
            first: 1,
            last: -2,
            step: 1,
        },
        None,
    );
    check("M.MANY 1 k", READ, KeySpec::Any, None);
    check("FT.SEARCH i q", READ, KeySpec::Any, None);
    check("FT.CURSOR READ i 1", WRITE, KeySpec::Any, None);
    check("M.STATE", ADMIN, KeySpec::None, None);
    assert!(classify(&table, "JSON.SET k . 1").fits_shared_block());
    assert!(!classify(&table, "BF.WAIT k 0").fits_shared_block());
}

#[test]
fn of_a_known_command_the_master_decides_the_arity_only() {
    let mut client = described("client", -2, &[], (0, 0, 0));
    client.subcommands = vec![
        described("client|id", -2, &["noscript"], (0, 0, 0)),
        described("list", 3, &[], (0, 0, 0)),
        described("client|newread", 2, &["readonly"], (0, 0, 0)),
        described("client|newstate", 2, &["noscript"], (0, 0, 0)),
    ];
    let scan = described("SCAN", 2, &["readonly"], (1, 1, 1));
    let huge = described("get", i64::MAX, &["write"], (1, 1, 1));
    let table = Table::builtin().overlay(&[client, scan, huge]);
    let check = |text: &str, class: Class, problem: Option<Problem>| {
        let got = classify(&table, text);
        assert_eq!((got.class, got.problem), (class, problem), "{text}");
    };
    check("CLIENT ID x", Class::Local(Local::ClientId), None);
    check("CLIENT LIST x", Class::Local(Local::ClientList), None);
    check(
        "CLIENT LIST",
        Class::Local(Local::ClientList),
        Some(Problem::WrongArity),
    );
    check("CLIENT NEWREAD", READ, None);
    check("CLIENT NEWSTATE", ADMIN, None);
    check("CLIENT OTHER", ADMIN, Some(Problem::UnknownSubcommand));
    check("SCAN 0", MASTER, None);
    check("SCAN 0 COUNT 5", MASTER, Some(Problem::WrongArity));
    check("GET k", READ, None);
}

#[test]
fn a_new_container_is_a_container() {
    let mut config = described("FT.CONFIG", -2, &[], (0, 0, 0));
    config.subcommands = vec![
        described("ft.config|GET", 3, &["readonly"], (0, 0, 0)),
        described("ft.config|set", 4, &["admin"], (0, 0, 0)),
    ];
    let table = Table::builtin().overlay(&[config]);
    assert_eq!(classify(&table, "ft.config get x").class, READ);
    assert_eq!(classify(&table, "FT.CONFIG SET x y").class, ADMIN);
    assert_eq!(
        classify(&table, "FT.CONFIG FROB").problem,
        Some(Problem::UnknownSubcommand)
    );
}

#[test]
fn a_boundless_description_is_cut() {
    let many: Vec<Described> = (0..20_000)
        .map(|number| described(&format!("m.{number}"), 1, &["readonly"], (0, 0, 0)))
        .chain([described(&"x".repeat(33), 1, &["readonly"], (0, 0, 0))])
        .collect();
    let table = Table::builtin().overlay(&many);
    assert_eq!(table.specs().len(), 8192);
    assert_eq!(classify(&table, "m.0").class, READ);
    assert_eq!(
        classify(&table, "m.19999").problem,
        Some(Problem::UnknownCommand)
    );
    assert_eq!(classify(&table, "GET k").class, READ);
}

#[test]
fn a_name_described_twice_counts_once() {
    let twice = [
        described("m.a", 2, &["readonly"], (0, 0, 0)),
        described("M.A", 3, &["write"], (0, 0, 0)),
    ];
    let table = Table::builtin().overlay(&twice);
    assert_eq!(table.specs().len(), Table::builtin().specs().len() + 1);
    assert_eq!(classify(&table, "M.A x").class, READ);
}

#[test]
fn the_operator_refuses_and_allows_by_name() {
    let refuse = names(&[
        "FlushAll",
        "client kill",
        "CONFIG",
        "debug",
        "m.frob",
        "n.conf set",
    ]);
    let allow = names(&["config|get", "FAILOVER", "get"]);
    let table = Table::builtin().with_policy(&refuse, &allow);
    let check = |text: &str, want: Class| assert_eq!(classify(&table, text).class, want, "{text}");
    check("FLUSHALL", REFUSED);
    check("FLUSHDB", WRITE);
    check("CLIENT KILL x", REFUSED);
    check("CLIENT LIST", Class::Local(Local::ClientList));
    check("CONFIG SET a b", REFUSED);
    check("CONFIG FROB", REFUSED);
    check("CONFIG", REFUSED);
    check("CONFIG GET a", MASTER);
    check("DEBUG SLEEP 1", REFUSED);
    check("FAILOVER", ADMIN);
    check("SHUTDOWN", REFUSED);
    check("GET k", READ);
    check("M.FROB", REFUSED);
    check("N.CONF SET a", REFUSED);
    check("N.CONF GET a", WRITE);
    let overlaid = table.overlay(&[described("m.frob", 1, &["readonly"], (0, 0, 0))]);
    assert_eq!(classify(&overlaid, "M.FROB").class, REFUSED);
}

#[test]
fn the_longer_name_wins_then_the_permission() {
    let check = |refuse: &[&str], allow: &[&str], want: Class| {
        let table = Table::builtin().with_policy(&names(refuse), &names(allow));
        assert_eq!(
            classify(&table, "CONFIG SET a b").class,
            want,
            "{refuse:?} {allow:?}"
        );
    };
    check(&["config set"], &["config"], REFUSED);
    check(&["config"], &["config set"], ADMIN);
    check(&["config"], &["config"], ADMIN);
    check(&["config set"], &["config set"], ADMIN);
    check(&["config get"], &[], ADMIN);
    check(&[], &[], ADMIN);
}

#[test]
fn a_refused_stream_read_stays_refused_when_it_blocks() {
    let table = Table::builtin().with_policy(&names(&["xread"]), &[]);
    assert_eq!(classify(&table, "XREAD BLOCK 0 STREAMS a 0").class, REFUSED);
}

#[test]
fn names_that_mean_nothing_are_told() {
    let table = Table::builtin();
    let asked = names(&[
        "flushal",
        "FLUSHALL",
        "client  kill",
        "client|frob",
        "get foo",
        "",
    ]);
    assert_eq!(
        table.unknown_names(&asked),
        ["flushal", "client|frob", "get foo", ""]
    );
    let refusing = table.with_policy(&asked, &[]);
    assert_eq!(classify(&refusing, "GET foo").class, READ);
    assert_eq!(classify(&refusing, "GET bar").problem, None);
    assert_eq!(classify(&refusing, "CLIENT FROB").class, REFUSED);
}

#[test]
fn a_modules_command_may_reach_further_than_its_description_tells() {
    // As RediSearch up to 2.8, RedisJSON and RedisTimeSeries register them.
    let described = [
        described("FT.SEARCH", -3, &["readonly"], (1, 1, 1)),
        described("ft.dropindex", -2, &["write"], (1, 1, 1)),
        described("ft.sugget", -3, &["readonly"], (1, 1, 1)),
        described("ft.sugadd", -4, &["write"], (1, 1, 1)),
        described("json.mget", -3, &["readonly"], (1, 1, 1)),
        described("json.mset", -4, &["write"], (1, 0, 3)),
        described("ts.range", -4, &["readonly"], (1, 1, 1)),
        described("ts.add", -4, &["write"], (1, 1, 1)),
        described("ts.madd", -4, &["write"], (1, -1, 3)),
    ];
    let table = Table::builtin().overlay(&described);
    let range = |last, step| KeySpec::Range {
        first: 1,
        last,
        step,
    };
    for (name, keys) in [
        ("ft.search", KeySpec::Any),
        ("ft.dropindex", KeySpec::Any),
        ("ft.sugget", range(-1, 1)),
        ("ft.sugadd", range(1, 1)),
        ("json.mget", range(-1, 1)),
        ("json.mset", KeySpec::Any),
        ("ts.range", KeySpec::Any),
        ("ts.add", range(1, 1)),
        ("ts.madd", range(-1, 3)),
    ] {
        assert_eq!(table.get(name).unwrap().keys, keys, "{name}");
    }
}

/// What a server tells that has the commands of `names`, subcommands with their containers.
fn whole(names: &[&str]) -> Vec<Described> {
    let mut told: Vec<Described> = Vec::new();
    for name in ["get", "set", "ping", "command"].iter().chain(names) {
        let command = described(name, -1, &[], (0, 0, 0));
        match name.split_once('|') {
            None => told.push(command),
            Some(_) => told.last_mut().unwrap().subcommands.push(command),
        }
    }
    told
}

#[test]
fn what_the_master_does_not_have_is_unknown_whatever_its_arity() {
    let table = Table::builtin().overlay(&whole(&["client", "client|id", "config"]));
    let check = |text: &str, class: Class, problem: Option<Problem>| {
        let got = classify(&table, text);
        assert_eq!((got.class, got.problem), (class, problem), "{text}");
        assert_eq!(got.is_sure_to_fail(), problem.is_some(), "{text}");
    };
    let unknown = Some(Problem::UnknownCommand);
    // The master words the error.
    check("HTTL k FIELDS 1 f", WRITE, unknown);
    check("XREAD", WRITE, unknown);
    // It must not come near such a connection, should the master have it after all.
    check("XREAD BLOCK 0 STREAMS k $", WRITE, unknown);
    check("WAITAOF", Class::Leased(Leased::Wait), unknown);
    check("SENTINEL MASTERS", WRITE, unknown);
    check("SHUTDOWN", REFUSED, unknown);
    let sub = Some(Problem::UnknownSubcommand);
    check("CLIENT SETINFO", Class::Local(Local::ClientSetinfo), sub);
    check("client kill x", Class::Local(Local::ClientKill), sub);
    check("CLIENT ID", Class::Local(Local::ClientId), None);
    // A server before 7.0 does not tell its subcommands, nor of QUIT.
    check("CONFIG GET a", MASTER, None);
    check("QUIT", Class::Local(Local::Quit), None);
    assert!(!classify(&table, "CLIENT OTHER").is_sure_to_fail());
    assert!(!classify(&table, "OTHER").is_sure_to_fail());
}

#[test]
fn what_is_missing_shows_in_a_whole_description_only() {
    let mut told = whole(&["client"]);
    told.remove(0);
    let table = Table::builtin().overlay(&told);
    assert_eq!(classify(&table, "HGET k f").problem, None);
    let table = Table::builtin().overlay(&whole(&[]));
    let refused = table.with_policy(&names(&["hget"]), &[]);
    let got = classify(&refused, "HGET k f");
    assert_eq!(got.class, REFUSED);
    assert_eq!(got.problem, Some(Problem::UnknownCommand));
}
