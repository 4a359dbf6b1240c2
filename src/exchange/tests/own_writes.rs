//! Floor 4. Tests: reads see the writes of their own process: which replica may serve them, what is
//! marked when, and who waits.

use std::sync::Arc;

use super::{Setup, World, addr, ms, no_auth};
use crate::consistency::{Scripts, Stamps};
use crate::exchange::{GroupSettings, Settings};
use crate::telemetry::FenceResult;

/// A world that keeps account, and a control plane that settles what the test says.
struct Scene {
    world: World,
    stamps: Arc<Stamps>,
}

impl Scene {
    fn new() -> Self {
        Self::with(&["r1"], Scripts::Everything)
    }

    /// One in which replies are overdue after a second.
    fn impatient() -> Self {
        let settings = Settings {
            reply_timeout: ms(1_000),
            ..Settings::default()
        };
        Self::set(&["r1"], Scripts::Everything, settings)
    }

    fn with(replicas: &[&str], script_keys: Scripts) -> Self {
        Self::set(replicas, script_keys, Settings::default())
    }

    fn set(replicas: &[&str], script_keys: Scripts, settings: Settings) -> Self {
        let stamps = Arc::new(Stamps::new(1 << 16, 11));
        let world = World::with(Setup {
            group: GroupSettings {
                stamps: Some(Arc::clone(&stamps)),
                script_keys,
                ..Setup::default().group
            },
            replicas: replicas.iter().map(|host| addr(host)).collect(),
            settings,
            ..Setup::default()
        });
        Self { world, stamps }
    }

    /// The replica has everything that was written until now.
    fn settle(&mut self, host: &str) {
        let settled = self.stamps.node(&addr(host));
        let generation = self.stamps.generation();
        self.stamps.advance();
        assert!(settled.publish(settled.incarnation(), generation));
    }

    /// Says something that the master answers.
    fn write(&mut self, line: &str) {
        let client = self.world.client();
        self.world.send(client, &[line]);
        self.world.answer("m", line, "+OK");
        assert_eq!(self.world.heard(client), "+OK|");
    }

    fn has(&self, host: &str, line: &str) -> bool {
        self.world.asked(host).iter().any(|asked| asked == line)
    }

    /// Which node is asked what a new client asks; it answers.
    fn reader(&mut self, line: &str) -> &'static str {
        let client = self.world.client();
        self.world.send(client, &[line]);
        let host = ["m", "r1", "r2"]
            .into_iter()
            .find(|host| self.has(host, line))
            .unwrap_or("nobody");
        if host != "nobody" {
            self.world.answer(host, line, "$1|v");
        }
        host
    }
}

#[test]
fn a_key_that_was_written_is_read_from_the_master_until_a_replica_has_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.reader("GET a"), "r1", "nobody wrote it");
    scene.write("SET a 1");
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("MGET b a"), "m");
    assert_eq!(scene.reader("GET b"), "r1", "another key");
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1");
    scene.write("SET a 2");
    assert_eq!(scene.reader("GET a"), "m");
}

#[test]
fn a_read_goes_to_the_replica_that_has_what_it_must_see() {
    let mut scene = Scene::with(&["r1", "r2"], Scripts::Everything);
    scene.write("SET a 1");
    scene.settle("r2");
    for _ in 0..10 {
        assert_eq!(scene.reader("GET a"), "r2");
    }
}

#[test]
fn in_a_switch_a_read_of_an_unsettled_key_waits_and_others_go_on() {
    let mut scene = Scene::new();
    scene.write("SET a 1");
    scene.world.switching();
    assert_eq!(scene.reader("GET b"), "r1");
    let client = scene.world.client();
    scene.world.send(client, &["GET a"]);
    assert!(!scene.has("r1", "GET a") && !scene.has("m", "GET a"));
    scene.world.switch_to("m", &["r1"]);
    scene.world.answer("m", "GET a", "$1|1");
    assert_eq!(scene.world.heard(client), "$1|1|");
}

#[test]
fn a_write_that_was_lost_marks_its_key() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["SET a 1"]);
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1", "sent is not answered");
    scene.world.lose_node("m");
    assert!(scene.world.heard(client).starts_with("-UNCERTAIN"));
    scene.world.pass(ms(2000));
    assert_eq!(scene.reader("GET a"), "m");
}

#[test]
fn an_error_marks_its_key_and_a_silenced_client_too() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene
        .world
        .send(client, &["CLIENT REPLY OFF", "SET a 1", "LPUSH b 1"]);
    scene.settle("r1");
    scene.world.answer("m", "SET a 1", "+OK");
    scene.world.answer("m", "LPUSH b 1", "-WRONGTYPE no");
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "m");
}

#[test]
fn a_write_of_several_keys_marks_each_of_them() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["MSET a 1 b 2"]);
    scene.settle("r1");
    scene.world.answer("m", "MSET a 1 b 2", "+OK");
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "m");
    assert_eq!(scene.reader("GET 1"), "r1");
}

#[test]
fn a_transaction_marks_its_keys_when_it_is_executed() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene
        .world
        .send(client, &["MULTI", "SET a 1", "MSET b 1 c 2"]);
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    scene.world.answer("m", "MSET b 1 c 2", "+QUEUED");
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1", "queued is not written");
    scene.world.send(client, &["EXEC"]);
    scene.settle("r1");
    scene.world.answer("m", "EXEC", "*2|+OK|+OK");
    for key in ["a", "b", "c"] {
        assert_eq!(scene.reader(&format!("GET {key}")), "m", "{key}");
    }
    assert_eq!(scene.reader("GET d"), "r1");
}

#[test]
fn a_transaction_whose_exec_is_lost_marks_its_keys() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["MULTI", "SET a 1"]);
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    scene.world.send(client, &["EXEC"]);
    scene.settle("r1");
    scene.world.lose_node("m");
    scene.world.pass(ms(2000));
    assert_eq!(scene.reader("GET a"), "m");
}

#[test]
fn a_transaction_that_selects_marks_everything() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["MULTI", "SELECT 3", "SET a 1"]);
    scene.settle("r1");
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SELECT 3", "+QUEUED");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    assert_eq!(scene.reader("GET z"), "m");
}

#[test]
fn a_blocking_command_marks_when_it_is_answered() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["BLPOP q 0"]);
    scene.settle("r1");
    assert_eq!(scene.reader("LLEN q"), "r1");
    scene.world.answer("m", "BLPOP q 0", "*2|$1|q|$1|x");
    assert_eq!(scene.reader("LLEN q"), "m");
}

#[test]
fn what_tells_no_keys_marks_everything() {
    for line in [
        "EVAL return 0",
        "EVAL return 1 a",
        "FCALL f 1 a",
        "FUNCTION LOAD x",
        "FLUSHALL",
        "SWAPDB 0 1",
        "MODULE.WRITE a",
    ] {
        let mut scene = Scene::new();
        scene.write(line);
        assert_eq!(scene.reader("GET z"), "m", "{line}");
        scene.settle("r1");
        assert_eq!(scene.reader("GET z"), "r1", "{line}");
    }
}

#[test]
fn what_writes_no_data_marks_nothing() {
    for line in ["PUBLISH c m", "SCRIPT LOAD x", "TOUCH a", "CONFIG SET a b"] {
        let mut scene = Scene::new();
        scene.write(line);
        assert_eq!(scene.reader("FCALL_RO f 0"), "r1", "{line}");
    }
}

#[test]
fn a_count_is_kept_in_its_key_and_so_counts_as_a_write_to_it() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["PFCOUNT a", "GET a", "GET b"]);
    assert_eq!(scene.world.asked("m"), ["PFCOUNT a", "GET a"]);
    assert_eq!(scene.world.asked("r1"), ["GET b"]);
    scene.world.answer_all("m");
    scene.world.answer_all("r1");
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "r1");
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1");
}

#[test]
fn a_database_is_flushed_alone_and_other_databases_have_other_keys() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["SELECT 3"]);
    scene.world.send(client, &["FLUSHDB"]);
    scene.world.answer("m", "FLUSHDB", "+OK");
    assert_eq!(scene.reader("GET a"), "r1");
    scene.world.send(client, &["GET a"]);
    assert!(scene.has("m", "GET a"));
    scene.world.answer("m", "GET a", "$-1");
    scene.settle("r1");
    scene.write("MOVE a 3");
    scene.write("COPY b c DB 3");
    for key in ["a", "c"] {
        let line = format!("GET {key}");
        scene.world.send(client, &[&line]);
        assert!(scene.has("m", &line), "{key} in the other database");
        scene.world.answer("m", &line, "$-1");
    }
}

#[test]
fn a_read_of_anything_needs_everything() {
    let mut scene = Scene::new();
    scene.write("SET a 1");
    for line in ["EVAL_RO x 0", "EVAL_RO x 1 b", "FCALL_RO f 1 b", "KEYS *"] {
        assert_eq!(scene.reader(line), "m", "{line}");
    }
    scene.settle("r1");
    assert_eq!(scene.reader("EVAL_RO x 1 b"), "r1");
}

#[test]
fn scripts_are_held_to_their_declared_keys_by_the_operators_word() {
    let mut scene = Scene::with(&["r1"], Scripts::Declared);
    scene.write("EVAL x 1 a");
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "r1");
    assert_eq!(scene.reader("EVAL_RO x 1 b"), "r1");
    assert_eq!(scene.reader("EVAL_RO x 1 a"), "m");
}

#[test]
fn a_replica_that_was_restarted_serves_what_nobody_wrote_until_it_is_known() {
    let mut scene = Scene::new();
    scene.write("SET a 1");
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1");
    scene.world.lose_node("r1");
    scene.world.pass(ms(2000));
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "r1");
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "r1");
}

#[test]
fn a_read_that_needs_something_does_not_wait_on_a_link_that_is_opening() {
    let mut scene = Scene::new();
    scene.write("SET a 1");
    scene.world.opens = false;
    scene.world.lose_node("r1");
    scene.world.pass(ms(900));
    // Whatever is settled now may not hold for the process that the link will lead to.
    scene.settle("r1");
    assert_eq!(scene.reader("GET a"), "m");
}

#[test]
fn a_read_that_is_sent_again_is_checked_again() {
    let mut scene = Scene::with(&["r1", "r2"], Scripts::Everything);
    scene.write("SET a 1");
    scene.settle("r1");
    let client = scene.world.client();
    scene.world.send(client, &["GET a"]);
    assert!(scene.has("r1", "GET a"));
    scene.world.lose_node("r1");
    assert!(!scene.has("r2", "GET a"), "it may not have it");
    scene.world.answer("m", "GET a", "$1|1");
    assert_eq!(scene.world.heard(client), "$1|1|");
}

#[test]
fn of_several_databases_that_a_copy_names_the_last_counts() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["SELECT 2"]);
    scene.world.send(client, &["COPY a b DB 1 replace db 2"]);
    scene.world.answer("m", "COPY a b DB 1 replace db 2", ":1");
    scene.world.heard(client);
    scene.world.send(client, &["GET b"]);
    assert!(scene.has("m", "GET b"));

    let mut scene = Scene::new();
    scene.write("COPY a b DB 1 DB 2");
    let client = scene.world.client();
    scene.world.send(client, &["SELECT 2", "GET b"]);
    assert!(scene.has("m", "GET b"));
}

#[test]
fn what_was_executed_after_its_link_was_given_up_is_not_missed_either() {
    for line in ["SET a 1", "MSET a 1 b 2"] {
        let mut scene = Scene::impatient();
        let client = scene.world.client();
        scene.world.send(client, &[line]);
        let link = scene.world.link("m");
        scene.world.pass(ms(1_000));
        // The master was asked how far it is, and only then reads what the lost link had brought.
        scene.settle("r1");
        assert_eq!(scene.world.heard(client), "");
        scene
            .world
            .exchange
            .fenced(link, FenceResult::Killed, scene.world.now);
        scene.world.run();
        assert!(scene.world.heard(client).starts_with("-UNCERTAIN"));
        assert_eq!(scene.reader("GET a"), "m", "{line}");
    }
}

#[test]
fn a_transaction_executed_after_its_link_was_given_up_is_not_missed_either() {
    let mut scene = Scene::impatient();
    let client = scene.world.client();
    scene.world.send(client, &["MULTI", "SET a 1", "EXEC"]);
    let link = scene.world.asked_on("m", "MULTI");
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    scene.world.pass(ms(1_000));
    scene.settle("r1");
    scene
        .world
        .exchange
        .fenced(link, FenceResult::Gone, scene.world.now);
    scene.world.run();
    assert!(scene.world.heard(client).contains("-UNCERTAIN"));
    assert_eq!(scene.reader("GET a"), "m");
}

#[test]
fn a_transaction_that_was_begun_anew_marks_what_was_queued_on_the_lost_link() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    scene.world.send(client, &["MULTI", "SET a 1"]);
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    scene.world.lose_node("m");
    scene.world.pass(ms(2_000));
    scene.world.send(client, &["SET b 1", "EXEC"]);
    scene.world.answer("m", "MULTI", "+OK");
    scene.world.answer("m", "SET a 1", "+QUEUED");
    scene.world.answer("m", "SET b 1", "+QUEUED");
    scene.settle("r1");
    scene.world.answer("m", "EXEC", "*2|+OK|+OK");
    assert!(scene.world.heard(client).ends_with("*2|+OK|+OK|"));
    assert_eq!(scene.reader("GET a"), "m");
    assert_eq!(scene.reader("GET b"), "m");
    assert_eq!(scene.reader("GET c"), "r1");
}

#[test]
fn what_is_seen_early_is_read_by_the_rules_that_hold_when_it_is_its_turn() {
    let mut scene = Scene::set(&["r1"], Scripts::Everything, Settings::default());
    let world = &mut scene.world;
    for link in world.links("m") {
        world.lose(link);
    }
    // From now on the nodes want a login.
    world.opens = false;
    let client = world.client();
    world.send(client, &["SELECT 1"]);
    while let Some(link) = world.opening() {
        world.refuse(link, no_auth());
    }
    world.heard(client);
    world.send(client, &["AUTH default secret"]);
    world.open_all();
    assert_eq!(world.heard(client), "+OK|");
    let long = format!("SET k {}", "v".repeat(20_000));
    world.send(client, &["PING", &long]);
    world.open_all();
    assert_eq!(world.heard(client), "+PONG|");
    world.answer("m", &long, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    // RESET takes the login away, and with it the leave to announce so much.
    world.send(client, &["RESET", &long]);
    assert_eq!(
        world.heard(client),
        "+RESET|-ERR Protocol error: unauthenticated bulk length|"
    );
    assert!(world.is_closed(client));
}

#[test]
fn what_is_seen_early_is_weighed_in_the_database_in_which_it_is_read() {
    let mut scene = Scene::new();
    let writer = scene.world.client();
    scene.world.send(writer, &["SELECT 1"]);
    scene.world.send(writer, &["SET k 1"]);
    scene.world.answer("m", "SET k 1", "+OK");
    assert_eq!(scene.world.heard(writer), "+OK|+OK|");
    let reader = scene.world.client();
    scene.world.send(reader, &["SELECT 1", "GET k"]);
    scene.world.answer("m", "GET k", "$1|1");
    assert_eq!(scene.world.heard(reader), "+OK|$1|1|");
    scene.world.send(reader, &["SELECT 0", "GET k"]);
    scene.world.answer("r1", "GET k", "$-1");
    assert_eq!(scene.world.heard(reader), "+OK|$-1|");
}

#[test]
fn a_select_waits_for_replies_and_what_comes_behind_it_is_read_in_its_database() {
    let mut scene = Scene::new();
    let writer = scene.world.client();
    scene.world.send(writer, &["SELECT 1", "SET k 1"]);
    scene.world.answer("m", "SET k 1", "+OK");
    assert_eq!(scene.world.heard(writer), "+OK|+OK|");
    let reader = scene.world.client();
    let lines = ["GET k", "SELECT 1", "GET k", "SELECT 0", "GET k"];
    scene.world.send(reader, &lines);
    for (host, database) in [("r1", 0), ("m", 1), ("r1", 0)] {
        let link = scene.world.asked_on(host, "GET k");
        assert_eq!(scene.world.wires[&link].plan.database, database);
        let others = ["m", "r1"].map(|host| scene.world.asked(host).len());
        assert_eq!(others.iter().sum::<usize>(), 1, "SELECT waits for replies");
        scene.world.answer(host, "GET k", "$1|v");
    }
    assert_eq!(scene.world.heard(reader), "$1|v|+OK|$1|v|+OK|$1|v|");
}

#[test]
fn as_many_as_come_at_once_are_placed_once_and_in_their_order() {
    let mut scene = Scene::new();
    let client = scene.world.client();
    let lines: Vec<String> = (0..100).map(|at| format!("GET k{at}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    scene.world.send(client, &lines);
    assert_eq!(scene.world.asked("r1"), lines);
    assert!(scene.world.asked("m").is_empty());
}

#[test]
fn what_is_seen_early_may_be_too_large_all_the_same() {
    let settings = Settings {
        request_max: 10_000,
        ..Settings::default()
    };
    let mut scene = Scene::set(&["r1"], Scripts::Everything, settings);
    let world = &mut scene.world;
    let client = world.client();
    let long = format!("SET k {}", "v".repeat(11_000));
    world.send(client, &["PING", &long, "PING"]);
    assert_eq!(world.heard(client), "+PONG|");
    assert!(world.is_closed(client));
    assert!(world.asked("m").is_empty());
}

#[test]
fn a_write_waits_for_the_clients_own_reads_of_what_shares_a_stamp_with_its_keys() {
    let writes = [
        "SET a 1",
        "DEL x y a",
        "MSET z 1 a 2",
        "RENAME x a",
        "MOVE a 3",
        "COPY x a DB 0",
        "EVAL return 0",
        "FLUSHALL",
    ];
    for write in writes {
        // The stamp of a read's key is known ahead, or not; and so is that of a write's.
        for lines in [vec!["GET a", write], vec!["GET b", "GET a", write]] {
            let mut scene = Scene::new();
            let world = &mut scene.world;
            let client = world.client();
            world.send(client, &lines);
            assert_eq!(world.asked("r1").len(), lines.len() - 1, "{write}");
            assert!(world.asked("m").is_empty(), "{write}");
            world.answer_all("r1");
            assert_eq!(world.asked("m"), [write]);
        }
    }
    for write in ["SET b 1", "MSET b 1 c 2", "HSET b f v"] {
        let mut scene = Scene::new();
        let client = scene.world.client();
        scene.world.send(client, &["GET a", write]);
        assert_eq!(scene.world.asked("r1"), ["GET a"]);
        assert_eq!(scene.world.asked("m"), [write]);
    }
}

#[test]
fn a_batch_may_be_cut_anywhere_whatever_was_seen_of_it() {
    let mut bytes = super::pipeline(&["GET a", "SET b 1", "GET b"]);
    bytes.extend_from_slice(b"\r\n*0\r\nGET a\r\n");
    bytes.extend_from_slice(&super::pipeline(&["SELECT 1", "GET a"]));
    bytes.extend_from_slice(b"*1\r\n:4\r\n");
    let lived = |cut: usize| {
        let mut scene = Scene::new();
        let world = &mut scene.world;
        let client = world.client();
        let (front, back) = bytes.split_at(cut);
        world.send_raw(client, front);
        world.send_raw(client, back);
        let asked = ["r1", "m"].map(|host| world.asked(host));
        for host in ["r1", "m", "r1"] {
            world.answer_all(host);
        }
        (asked, world.heard(client), world.is_closed(client))
    };
    let whole = lived(0);
    let (asked, heard, closed) = &whole;
    // What is read in another database waits for the master's replies.
    assert_eq!(asked.each_ref().map(Vec::len), [1, 3]);
    assert_eq!(heard.matches("+OK|").count(), 6);
    assert!(heard.ends_with("-ERR Protocol error: expected '$', got ':'|"));
    assert!(closed);
    for cut in 1..bytes.len() {
        assert_eq!(lived(cut), whole, "cut at {cut}");
    }
}
