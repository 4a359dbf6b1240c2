//! Floor 1. Tests of what the built-in table says of each kind of request.

mod changed;
mod reach;

use proptest::prelude::{Strategy, any, prop, proptest};

use crate::command::{
    Class, Command, Flags, KeySpec, Keys, Leased, Local, Problem, Script, Spec, Table,
};
use crate::resp::Request;

const READ: Class = Class::Read;
const MASTER: Class = Class::MasterRead;
const WRITE: Class = Class::Write;
const ADMIN: Class = Class::Admin;
const REFUSED: Class = Class::Refused;
const BLOCKING: Class = Class::Leased(Leased::Blocking);
const STATE: Class = Class::Leased(Leased::ConnectionState);

/// The request that consists of `text`'s words, which single spaces part.
pub(super) fn encoded(text: &str) -> Vec<u8> {
    encoded_words(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn encoded_words(words: &[&[u8]]) -> Vec<u8> {
    let mut raw = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        raw.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        raw.extend_from_slice(word);
        raw.extend_from_slice(b"\r\n");
    }
    raw
}

fn classify<'t>(table: &'t Table, text: &str) -> Command<'t> {
    table.classify(&Request::from_raw(&encoded(text)).unwrap())
}

fn class(text: &str) -> Class {
    classify(&Table::builtin(), text).class
}

/// Checks the class of each of `texts`, which semicolons part.
fn check_class(want: Class, texts: &str) {
    let table = Table::builtin();
    for text in texts.split("; ") {
        let got = classify(&table, text);
        assert_eq!((got.class, got.problem), (want, None), "{text}");
    }
}

#[test]
fn every_row_is_found_by_its_name_in_any_case() {
    let table = Table::builtin();
    assert!(table.specs().len() > 480, "{} rows", table.specs().len());
    for spec in table.specs() {
        for name in [spec.name.to_lowercase(), spec.name.to_uppercase()] {
            let found = classify(&table, &name.replace('|', " ")).spec.unwrap();
            assert_eq!(found.name, spec.name);
            assert_eq!(table.get(&name).unwrap().name, spec.name);
        }
    }
}

#[test]
fn classes_agree_with_the_servers_own_flags() {
    for spec in Table::builtin().specs() {
        let (name, flags) = (&spec.name, spec.flags);
        let reads = matches!(spec.class, Class::Read | Class::MasterRead);
        assert!(!flags.contains(Flags::WRITE) || !reads, "{name} writes");
        assert!(
            spec.class != READ || flags.contains(Flags::READONLY),
            "{name} is not said to read"
        );
        let waits = matches!(spec.class, Class::Leased(Leased::Blocking | Leased::Wait));
        let waits = waits || flags.contains(Flags::BLOCK_OPTION);
        assert_eq!(flags.contains(Flags::BLOCKING), waits, "{name}");
        let shared_admin = flags.contains(Flags::ADMIN) && spec.class == WRITE;
        assert!(!shared_admin, "{name} is for administrators");
    }
}

#[test]
fn reads_that_any_node_can_answer() {
    check_class(
        READ,
        "GET k; get k; GeT k; MGET a b; EXISTS a b; TTL k; HGETALL k; \
         LRANGE k 0 -1; SMEMBERS k; ZRANGE k 0 -1; ZUNION 2 a b; XRANGE k - +; \
         XREAD STREAMS k 0; XREAD COUNT 5 STREAMS block 0; XPENDING k g; \
         KEYS *; SORT_RO k; BITFIELD_RO k; GEORADIUS_RO k 0 0 1 m; \
         EVAL_RO x 0; EVALSHA_RO x 0; FCALL_RO f 0; GEOSEARCH k FROMMEMBER m BYRADIUS 1 m; \
         DUMP k",
    );
}

#[test]
fn reads_that_only_the_master_answers_right() {
    check_class(
        MASTER,
        "SCAN 0; HSCAN k 0; SSCAN k 0; ZSCAN k 0; PFCOUNT k; RANDOMKEY; DBSIZE; TOUCH k; \
         OBJECT FREQ k; OBJECT HELP; MEMORY USAGE k; INFO; INFO replication; ROLE; TIME; COMMAND; \
         COMMAND DOCS; CONFIG GET save; PUBSUB NUMSUB a; SCRIPT EXISTS x; FUNCTION LIST; \
         ACL LIST; SLOWLOG GET; FT.AGGREGATE i q WITHCURSOR; XINFO STREAM k; xinfo groups k; \
         XINFO CONSUMERS k g",
    );
}

#[test]
fn writes_and_what_passes_for_them() {
    check_class(
        WRITE,
        "SET k v; DEL a b; GETEX k; GETDEL k; GETSET k v; SPOP k; LPOP k; SORT k; \
         SORT k STORE d; GEORADIUS k 0 0 1 m; BITFIELD k GET u8 0; EXPIRE k 5; EVAL x 0; \
         EVALSHA x 0; FCALL f 0; PUBLISH c m; SPUBLISH c m; \
         XREADGROUP GROUP g c STREAMS k >; XREADGROUP GROUP block c STREAMS k >; \
         XGROUP CREATE k g $; FLUSHALL; SWAPDB 0 1; MIGRATE h 1 k 0 1000; FUNCTION LOAD x; \
         SCRIPT LOAD x; SCRIPT FLUSH; FT.CURSOR READ i 1",
    );
}

#[test]
fn what_needs_a_connection_of_its_own() {
    check_class(
        BLOCKING,
        "BLPOP k 0; BRPOP k 0; BLMOVE a b LEFT LEFT 0; BLMPOP 0 1 k LEFT; BRPOPLPUSH a b 0; \
         BZPOPMIN k 0; BZPOPMAX k 0; BZMPOP 0 1 k MIN; XREAD BLOCK 0 STREAMS k $; \
         xread count 1 block 0 streams k $; XREADGROUP GROUP g c BLOCK 0 STREAMS k >",
    );
    check_class(
        STATE,
        "CLIENT CACHING YES; CLIENT NO-TOUCH ON; CLIENT IMPORT-SOURCE ON; \
         HIMPORT PREPARE a b; HIMPORT SET a k b c",
    );
    let check = |text: &str, want: Leased| check_class(Class::Leased(want), text);
    check("MULTI", Leased::Multi);
    check("EXEC", Leased::Exec);
    check("DISCARD", Leased::Discard);
    check("WATCH a b", Leased::Watch);
    check("UNWATCH", Leased::Unwatch);
    check("SUBSCRIBE a", Leased::Subscribe);
    check("UNSUBSCRIBE", Leased::Unsubscribe);
    check("PSUBSCRIBE a", Leased::Psubscribe);
    check("PUNSUBSCRIBE", Leased::Punsubscribe);
    check("SSUBSCRIBE a", Leased::Ssubscribe);
    check("SUNSUBSCRIBE", Leased::Sunsubscribe);
    check("WAIT 1 0", Leased::Wait);
    check("WAITAOF 1 1 0", Leased::Wait);
    check("CLIENT TRACKING ON", Leased::Tracking);
    check("MONITOR", Leased::Monitor);
}

#[test]
fn what_switchman_answers_itself() {
    let check = |text: &str, want: Local| check_class(Class::Local(want), text);
    check("AUTH p", Local::Auth);
    check("HELLO", Local::Hello);
    check("HELLO 3 AUTH u p SETNAME n", Local::Hello);
    check("SELECT 1", Local::Select);
    check("RESET", Local::Reset);
    check("QUIT", Local::Quit);
    check("PING", Local::Ping);
    check("PING x", Local::Ping);
    check("ECHO x", Local::Echo);
    check("READONLY", Local::Readonly);
    check("READWRITE", Local::Readwrite);
    check("ACL WHOAMI", Local::AclWhoami);
    check("CLIENT CAPA redirect", Local::ClientCapa);
    check("CLIENT GETNAME", Local::ClientGetname);
    check("CLIENT GETREDIR", Local::ClientGetredir);
    check("CLIENT HELP", Local::ClientHelp);
    check("CLIENT ID", Local::ClientId);
    check("CLIENT INFO", Local::ClientInfo);
    check("CLIENT KILL TYPE normal", Local::ClientKill);
    check("CLIENT LIST", Local::ClientList);
    check("CLIENT NO-EVICT ON", Local::ClientNoEvict);
    check("CLIENT REPLY OFF", Local::ClientReply);
    check("client setinfo lib-name x", Local::ClientSetinfo);
    check("CLIENT SETNAME x", Local::ClientSetname);
    check("CLIENT TRACKINGINFO", Local::ClientTrackinginfo);
    check("CLIENT UNBLOCK 1", Local::ClientUnblock);
}

#[test]
fn what_is_for_administrators_and_what_is_refused() {
    check_class(
        ADMIN,
        "CONFIG SET a b; CONFIG REWRITE; DEBUG SLEEP 0; CLIENT PAUSE 10; CLIENT UNPAUSE; \
         ACL SETUSER u; CLUSTER SLOTS; ASKING; SAVE; BGSAVE; MODULE LOAD x; SCRIPT KILL; \
         SCRIPT DEBUG NO; FUNCTION KILL; FUNCTION STATS; SENTINEL MASTERS; PFSELFTEST; \
         LATENCY RESET; SYNC; PSYNC a 1; REPLCONF",
    );
    check_class(
        REFUSED,
        "REPLICAOF h 1; SLAVEOF h 1; FAILOVER; SHUTDOWN; \
         CLIENT MAINT_NOTIFICATIONS ON",
    );
}

#[test]
fn a_container_is_known_by_its_subcommands() {
    let table = Table::builtin();
    let check = |text: &str, name: Option<&str>, class: Class, problem: Option<Problem>| {
        let got = classify(&table, text);
        assert_eq!(got.spec.map(|spec| spec.name.as_ref()), name, "{text}");
        assert_eq!((got.class, got.problem), (class, problem), "{text}");
    };
    let (unknown, arity) = (Some(Problem::UnknownSubcommand), Some(Problem::WrongArity));
    check("CLIENT", Some("client"), MASTER, arity);
    check("CLIENT FROB", Some("client"), ADMIN, unknown);
    check("CONFIG FROB x", Some("config"), ADMIN, unknown);
    check("COMMAND", Some("command"), MASTER, None);
    check("COMMAND FROB", Some("command"), ADMIN, unknown);
    check("HIMPORT FROB", Some("himport"), STATE, unknown);
    check(
        "CLIENT SETNAME",
        Some("client|setname"),
        Class::Local(Local::ClientSetname),
        arity,
    );
    check("XGROUP SETNAME", Some("xgroup"), ADMIN, unknown);
    check("GET SETNAME", Some("get"), READ, None);
    check("CLIENT|ID", None, WRITE, Some(Problem::UnknownCommand));
    check("setname x", None, WRITE, Some(Problem::UnknownCommand));
}

#[test]
fn what_nobody_described_is_a_write() {
    let table = Table::builtin();
    let long = "x".repeat(200);
    for text in ["JSON.GET k", "FROB", "get\0 k", "géT k", "", long.as_str()] {
        let got = classify(&table, text);
        assert_eq!(
            (got.class, got.problem),
            (WRITE, Some(Problem::UnknownCommand)),
            "{text}"
        );
        assert!(got.spec.is_none() && !got.fits_shared_block(), "{text}");
    }
}

#[test]
fn arity_counts_the_name() {
    let table = Table::builtin();
    let check = |text: &str, fits: bool| {
        let want = if fits {
            None
        } else {
            Some(Problem::WrongArity)
        };
        assert_eq!(classify(&table, text).problem, want, "{text}");
    };
    check("GET", false);
    check("GET a", true);
    check("GET a b", false);
    check("DEL", false);
    check("DEL a", true);
    check("DEL a b c d", true);
    check("QUIT now please", true);
    check("CLIENT ID", true);
    check("CLIENT ID x", false);
    check("XREAD BLOCK 0", false);
}

#[test]
fn reads_are_sent_again_and_nothing_else_is() {
    let check = |text: &str, want: bool| assert_eq!(class(text).is_resendable(), want, "{text}");
    check("GET k", true);
    check("SCAN 0", true);
    check("EVAL_RO x 0", true);
    check("XREAD STREAMS a 0", true);
    for text in [
        "SET k v",
        "GETEX k",
        "GETDEL k",
        "SPOP k",
        "LPOP k",
        "EVAL x 0",
        "PUBLISH c m",
    ] {
        check(text, false);
    }
    for text in [
        "XREADGROUP GROUP g c STREAMS k >",
        "BLPOP k 0",
        "XREAD BLOCK 0 STREAMS k 0",
    ] {
        check(text, false);
    }
    for text in ["CONFIG SET a b", "JSON.GET k", "MULTI", "CLIENT FROB"] {
        check(text, false);
    }
}

#[test]
fn only_plain_reads_and_writes_fit_a_shared_block() {
    let table = Table::builtin();
    let check = |text: &str, want: bool| {
        assert_eq!(classify(&table, text).fits_shared_block(), want, "{text}");
    };
    for text in [
        "GET k",
        "SET k v",
        "INCR k",
        "PUBLISH c m",
        "XREAD STREAMS k 0",
        "TIME",
    ] {
        check(text, true);
    }
    for text in [
        "EVAL x 0",
        "EVALSHA x 0",
        "FCALL f 0",
        "EVAL_RO x 0",
        "SCRIPT LOAD x",
    ] {
        check(text, false);
    }
    for text in [
        "BLPOP k 0",
        "XREAD BLOCK 0 STREAMS k 0",
        "SUBSCRIBE c",
        "MULTI",
        "WATCH k",
    ] {
        check(text, false);
    }
    for text in [
        "SELECT 1",
        "HELLO 3",
        "QUIT",
        "PING",
        "CLIENT REPLY OFF",
        "CONFIG SET a b",
    ] {
        check(text, false);
    }
    for text in ["GET", "JSON.GET k", "CLIENT FROB", "OBJECT", "SHUTDOWN"] {
        check(text, false);
    }
}

#[test]
fn four_commands_come_before_the_login() {
    let table = Table::builtin();
    let early = |spec: &&Spec| spec.flags.contains(Flags::NO_AUTH);
    let mut early: Vec<&str> = table
        .specs()
        .iter()
        .filter(early)
        .map(|s| s.name.as_ref())
        .collect();
    early.sort_unstable();
    assert_eq!(early, ["auth", "hello", "quit", "reset"]);
    assert!(classify(&table, "HELLO 3").allowed_before_login());
    assert!(!classify(&table, "PING").allowed_before_login());
    assert!(!classify(&table, "FROB").allowed_before_login());
}

#[test]
fn a_subscriber_has_nine_commands() {
    let table = Table::builtin();
    let allowed =
        |spec: &&Spec| classify(&table, &spec.name.replace('|', " ")).allowed_while_subscribed();
    assert_eq!(table.specs().iter().filter(allowed).count(), 9);
    assert!(classify(&table, "PING").allowed_while_subscribed());
    assert!(classify(&table, "SUNSUBSCRIBE").allowed_while_subscribed());
    assert!(!classify(&table, "GET k").allowed_while_subscribed());
}

#[test]
fn scripts_are_told_by_what_they_carry() {
    let table = Table::builtin();
    let check = |text: &str, want: Option<Script>| {
        assert_eq!(
            classify(&table, text).spec.unwrap().script(),
            want,
            "{text}"
        );
    };
    check("EVAL x 0", Some(Script::Body));
    check("EVAL_RO x 0", Some(Script::Body));
    check("EVALSHA x 0", Some(Script::Digest));
    check("EVALSHA_RO x 0", Some(Script::Digest));
    check("FCALL f 0", Some(Script::Function));
    check("FCALL_RO f 0", Some(Script::Function));
    check("SCRIPT LOAD x", Some(Script::Load));
    check("SCRIPT FLUSH", Some(Script::Flush));
    check("SCRIPT EXISTS x", None);
    check("GET k", None);
}

#[test]
fn keys_are_found_where_each_command_has_them() {
    let table = Table::builtin();
    let check = |text: &str, want: &str| {
        let raw = encoded(text);
        let request = Request::from_raw(&raw).unwrap();
        let spec = table.classify(&request).spec.unwrap();
        let mut found = Vec::new();
        let told = spec.keys.visit(&request, |key| found.push(key));
        assert_eq!(told, Keys::Told, "{text}");
        assert_eq!(found.join(&b' '), want.as_bytes(), "{text}");
    };
    check("GET a", "a");
    check("PING a", "");
    check("MGET a b c", "a b c");
    check("MSET a 1 b 2", "a b");
    check("MSETEX 2 a 1 b 2 EX 5", "a b");
    check("BLPOP a b 0", "a b");
    check("BITOP AND d a b", "d a b");
    check("COPY a b REPLACE", "a b");
    check("OBJECT ENCODING a", "a");
    check("XGROUP CREATE a g $", "a");
    check("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b");
    check("ZDIFF 2 a b WITHSCORES", "a b");
    check("LMPOP 2 a b LEFT", "a b");
    check("BZMPOP 0 1 a MIN", "a");
    check("EVAL x 2 a b c", "a b");
    check("EVAL x 0 c", "");
    check("FCALL f 1 a", "a");
    check("XREAD COUNT 1 STREAMS a b 0 0", "a b");
    check("XREADGROUP GROUP streams c STREAMS a >", "a");
    check("SORT a BY x", "a");
    check("SORT a LIMIT 0 1 store d", "a d");
    check("GEORADIUS a 0 0 1 m STOREDIST d", "a d");
    check("MIGRATE h 1 a 0 1000", "a");
    check("PUBLISH c m", "");
    check("HIMPORT SET a f v", "a");
    // Malformed, which the server will say.
    check("EVAL x 9 a", "a");
    check("EVAL x -1 a", "");
    check("EVAL x nine a", "");
    check("XREAD STREAMS a", "");
    check("BLPOP 0", "");
    for text in [
        "KEYS *",
        "FLUSHALL",
        "SWAPDB 0 1",
        "SCAN 0",
        "SORT_RO a BY w_*",
        "DBSIZE",
    ] {
        assert_eq!(
            classify(&table, text).spec.unwrap().keys,
            KeySpec::Any,
            "{text}"
        );
    }
}

#[test]
fn keys_of_a_migration_may_stand_at_its_end() {
    let raw = encoded("MIGRATE h 1  0 9 COPY KEYS a b");
    let mut found = Vec::new();
    let told = KeySpec::Migrate.visit(&Request::from_raw(&raw).unwrap(), |key| found.push(key));
    assert_eq!((told, found), (Keys::Told, vec![&b"a"[..], b"b"]));
}

fn any_words() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let known = Table::builtin().specs().len();
    let word = prop::sample::select(vec!["streams", "block", "keys", "store", "2", "-1", ""]);
    let word = word.prop_map(|word| word.as_bytes().to_vec());
    let rest = prop::collection::vec(word, 0..12);
    (0..known, any::<bool>(), rest).prop_map(|(number, known, rest)| {
        let name = if known {
            Table::builtin().specs()[number].name.to_string()
        } else {
            "x".into()
        };
        let name = name.split('|').map(|word| word.as_bytes().to_vec());
        name.chain(rest).collect()
    })
}

proptest! {
    #[test]
    fn no_request_has_more_keys_than_arguments(words in any_words()) {
        let table = Table::builtin();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let raw = encoded_words(&words);
        let request = Request::from_raw(&raw).unwrap();
        if let Some(spec) = table.classify(&request).spec {
            let mut seen = 0;
            let _told = spec.keys.visit(&request, |_| seen += 1);
            proptest::prop_assert!(seen < words.len(), "{seen} keys in {words:?}");
        }
    }
}
