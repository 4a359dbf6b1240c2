//! Floor 4. Tests: Scripts that a new master does not have.

use super::*;
use crate::exchange::Scripts;

/// `return 1`
const ONE: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
/// `return 2`
const TWO: &str = "7f923f79fe76194c868d7e1d0820de36700eb649";
const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.";

/// Requests in which `_` stands for a space within an argument.
fn request(line: &str) -> Vec<u8> {
    let (name, args) = line.split_once(' ').unwrap();
    let args: Vec<String> = args.split(' ').map(|word| word.replace('_', " ")).collect();
    let mut words = vec![name.as_bytes()];
    words.extend(args.iter().map(String::as_bytes));
    let mut raw = Vec::new();
    encode::request(&mut raw, &words);
    raw
}

fn say(world: &mut World, client: ClientKey, line: &str) {
    world.send_raw(client, &request(line));
}

/// A world with a client whose script has been run at the master.
fn with_script() -> (World, ClientKey) {
    let mut world = World::new();
    let client = world.client();
    say(&mut world, client, "EVAL return_1 0");
    world.answer("m", "EVAL return 1 0", ":1");
    assert_eq!(world.heard(client), ":1|");
    (world, client)
}

#[test]
fn a_new_master_is_given_the_scripts_before_anything_else() {
    let (mut world, client) = with_script();
    say(&mut world, client, "SCRIPT LOAD return_2");
    world.answer("m", "SCRIPT LOAD return 2", "$3|sha");
    world.heard(client);
    world.switching();
    let evalsha = format!("EVALSHA {ONE} 0");
    world.send(client, &[&evalsha]);
    world.switch_to("r1", &[]);
    let loads = ["SCRIPT LOAD return 2", "SCRIPT LOAD return 1"];
    assert_eq!(world.asked("r1"), [loads[0], loads[1], &evalsha]);
    world.answer("r1", loads[0], "$3|sha");
    world.answer("r1", loads[1], "-NOPERM no permissions to load");
    world.answer("r1", &evalsha, ":1");
    assert_eq!(world.heard(client), ":1|");
    world.send(client, &["MULTI"]);
    assert_eq!(world.asked("r1"), ["MULTI"], "the master has them by now");
    world.leave(client);
    world.assert_calm();
}

#[test]
fn a_master_that_may_have_been_restarted_is_given_them_again() {
    let (mut world, client) = with_script();
    world.lose_node("m");
    world.send(client, &["SET a 1"]);
    assert_eq!(world.asked("m"), ["SCRIPT LOAD return 1", "SET a 1"]);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_script_that_is_missing_is_loaded_and_run() {
    let (mut world, client) = with_script();
    let other = world.client();
    let evalsha = format!("evalsha {} 0", ONE.to_uppercase());
    world.send(other, &["SET a 1", &evalsha]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.asked("m"), ["SCRIPT LOAD return 1", &evalsha]);
    world.send(other, &["SET b 2"]);
    world.answer("m", "SCRIPT LOAD return 1", "$3|sha");
    world.answer("m", &evalsha, ":1");
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(world.heard(other), "+OK|:1|+OK|");
    assert_eq!(world.heard(client), "");
    world.assert_calm();
}

#[test]
fn a_replica_is_given_the_script_that_it_is_to_run() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &["GET a", &evalsha, &evalsha]);
    let load = "SCRIPT LOAD return 1";
    assert_eq!(world.asked("r1"), ["GET a", load, &evalsha, &evalsha]);
    for (line, reply) in [("GET a", "$1|1"), (load, "$3|sha")] {
        world.answer("r1", line, reply);
    }
    world.answer("r1", &evalsha, ":1");
    world.answer("r1", &evalsha, ":1");
    assert_eq!(world.heard(client), "$1|1|:1|:1|");
    // Another connection may lead to another process.
    world.lose_node("r1");
    let upper = format!("evalsha_ro {} 0", ONE.to_uppercase());
    world.send(client, &[&upper]);
    assert_eq!(world.asked("r1"), [load, &upper]);
    world.answer_all("r1");
    world.assert_calm();
}

#[test]
fn a_read_only_script_that_a_replica_does_not_take_is_found_by_way_of_the_master() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &[&evalsha]);
    world.answer("r1", "SCRIPT LOAD return 1", "-NOPERM no permissions");
    world.answer("r1", &evalsha, NOSCRIPT);
    world.answer("m", &evalsha, NOSCRIPT);
    world.answer("m", "SCRIPT LOAD return 1", "$3|sha");
    world.answer("m", &evalsha, ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn a_script_that_only_reads_is_the_masters_until_that_has_it() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    say(&mut world, client, "EVAL_RO return_1 0");
    say(&mut world, other, "EVAL_RO return_1 0");
    assert_eq!(world.asked("m").len(), 2, "it is not there yet");
    // Its own errors show that it has come there, others do not.
    for reply in [
        "-NOPERM no permissions",
        "-ERR user_script:1: x script: y, on @user_script:1.",
    ] {
        world.answer("m", "EVAL_RO return 1 0", reply);
    }
    say(&mut world, client, "EVAL_RO return_1 0");
    world.answer("r1", "EVAL_RO return 1 0", ":1");
    let evalsha = format!("EVALSHA {ONE} 0");
    world.send(client, &["SCRIPT EXISTS x", &evalsha]);
    assert_eq!(world.asked("m"), ["SCRIPT EXISTS x", &evalsha]);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_script_that_nobody_here_knows_is_for_the_master_to_find() {
    let mut world = World::new();
    let client = world.client();
    for digest in [ONE, "12"] {
        let evalsha = format!("EVALSHA_RO {digest} 0");
        world.send(client, &[&evalsha]);
        world.answer("m", &evalsha, NOSCRIPT);
        assert_eq!(world.heard(client), format!("{NOSCRIPT}|"));
    }
    world.assert_calm();
}

#[test]
fn what_was_flushed_no_replica_runs() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &[&evalsha]);
    world.answer_all("r1");
    world.heard(client);
    world.send(client, &["SCRIPT FLUSH"]);
    // Executed before the flush, perhaps, though it was sent behind it.
    let other = world.client();
    say(&mut world, other, "EVAL return_1 0");
    world.answer("m", "SCRIPT FLUSH", "+OK");
    world.answer("m", "EVAL return 1 0", ":1");
    world.send(client, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(client), format!("+OK|{NOSCRIPT}|"));
    say(&mut world, client, "EVAL_RO return_1 0");
    world.answer("m", "EVAL_RO return 1 0", ":1");
    world.send(client, &[&evalsha]);
    world.answer("r1", &evalsha, ":1");
    assert_eq!(world.heard(client), ":1|:1|");
    world.assert_calm();
}

#[test]
fn what_is_queued_takes_effect_with_exec() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &["MULTI"]);
    say(&mut world, client, "EVAL_RO return_1 0");
    world.send(client, &["SCRIPT FLUSH"]);
    world.answer_all("m");
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    say(&mut world, other, "EVAL return_1 0");
    world.answer("m", "EVAL return 1 0", ":1");
    world.send(other, &[&evalsha]);
    world.answer("r1", "SCRIPT LOAD return 1", "$3|sha");
    world.answer("r1", &evalsha, ":1");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*2|:1|+OK");
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    world.assert_calm();
}

#[test]
fn what_was_queued_and_not_executed_nobody_has() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    for (end, reply) in [
        ("DISCARD", "+OK"),
        (
            "EXEC",
            "-EXECABORT Transaction discarded because of previous errors.",
        ),
        ("EXEC", "*-1"),
    ] {
        world.send(client, &["MULTI"]);
        say(&mut world, client, "EVAL return_1 0");
        say(&mut world, client, "SCRIPT LOAD return_1");
        world.send(client, &[end]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "EVAL return 1 0", "+QUEUED");
        world.answer("m", "SCRIPT LOAD return 1", "+QUEUED");
        world.answer("m", end, reply);
        for command in ["EVALSHA", "EVALSHA_RO"] {
            let evalsha = format!("{command} {ONE} 0");
            world.send(other, &[&evalsha]);
            world.answer("m", &evalsha, NOSCRIPT);
            assert_eq!(world.heard(other), format!("{NOSCRIPT}|"), "{reply}");
        }
    }
    world.assert_calm();
}

#[test]
fn what_exec_has_run_is_known() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["MULTI", "GET a"]);
    for line in ["EVAL return_1 1", "SCRIPT LOAD return_2"] {
        say(&mut world, client, line);
    }
    world.send(client, &["EXEC"]);
    world.answer("m", "MULTI", "+OK");
    for line in ["GET a", "EVAL return 1 1", "SCRIPT LOAD return 2"] {
        world.answer("m", line, "+QUEUED");
    }
    let wrong = "-ERR Number of keys can't be greater than number of args";
    world.answer("m", "EXEC", &format!("*3|*2|:1|:2|{wrong}|$40|{TWO}"));
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(other), format!("{NOSCRIPT}|"));
    let evalsha = format!("EVALSHA_RO {TWO} 0");
    world.send(other, &[&evalsha]);
    world.answer("r1", "SCRIPT LOAD return 2", "$3|sha");
    world.answer("r1", &evalsha, ":2");
    assert_eq!(world.heard(other), ":2|");
    // A flush between the queue and EXEC may come before it or behind it.
    world.send(client, &["MULTI"]);
    say(&mut world, client, "EVAL return_3 0");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "EVAL return 3 0", "+QUEUED");
    world.send(other, &["SCRIPT FLUSH"]);
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*1|:3");
    world.answer("m", "SCRIPT FLUSH", "+OK");
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(other), format!("+OK|{NOSCRIPT}|"));
    world.assert_calm();
}

#[test]
fn a_flush_in_a_transaction_that_is_begun_anew_is_one() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["MULTI", "SCRIPT FLUSH"]);
    let link = world.asked_on("m", "MULTI");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SCRIPT FLUSH", "+QUEUED");
    say(&mut world, other, "EVAL return_1 0");
    world.answer("m", "EVAL return 1 0", ":1");
    world.lose(link);
    world.send(client, &["EXEC"]);
    for (line, reply) in [
        ("SCRIPT LOAD return 1", "$3|sha"),
        ("MULTI", "+OK"),
        ("SCRIPT FLUSH", "+QUEUED"),
        ("EXEC", "*1|+OK"),
    ] {
        world.answer("m", line, reply);
    }
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|+OK|");
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(other), format!(":1|{NOSCRIPT}|"));
    world.assert_calm();
}

#[test]
fn a_read_only_client_has_the_cache_of_a_replica() {
    let mut world = World::new();
    let client = world.client_by(Access::new(
        crate::types::ListenerRole::Replica,
        crate::route::Reads::Replicas,
    ));
    say(&mut world, client, "EVAL return_1 0");
    world.answer("r1", "EVAL_RO return 1 0", ":1");
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &[&evalsha]);
    world.answer("r1", "SCRIPT LOAD return 1", "$3|sha");
    world.answer("r1", &evalsha, ":1");
    let other = world.client();
    world.send(other, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(other), format!("{NOSCRIPT}|"));
    world.assert_calm();
}

#[test]
fn a_missing_script_is_told_where_healing_would_change_the_order_or_is_refused() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA {ONE} 0");
    world.send(client, &[&evalsha, "SET a 1"]);
    world.answer("m", &evalsha, NOSCRIPT);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), format!("{NOSCRIPT}|+OK|"));
    world.send(client, &[&evalsha]);
    for _ in 0..2 {
        world.answer("m", &evalsha, NOSCRIPT);
        world.answer("m", "SCRIPT LOAD return 1", "-NOPERM no permissions");
    }
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(client), format!("{NOSCRIPT}|"));
    world.assert_calm();
}

#[test]
fn scripts_that_were_flushed_are_forgotten_and_learned_anew() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA {ONE} 0");
    world.send(client, &["SCRIPT FLUSH", &evalsha]);
    world.answer("m", "SCRIPT FLUSH", "+OK");
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.heard(client), format!("+OK|{NOSCRIPT}|"));
    say(&mut world, client, "EVAL return_1 0");
    world.answer("m", "EVAL return 1 0", ":1");
    world.send(client, &[&evalsha]);
    world.answer("m", &evalsha, NOSCRIPT);
    assert_eq!(world.asked("m"), ["SCRIPT LOAD return 1", &evalsha]);
}

#[test]
fn the_oldest_scripts_give_way_and_none_is_kept_where_there_is_no_room() {
    let settings = |max| Settings {
        scripts: Arc::new(Scripts::new(max)),
        ..Settings::default()
    };
    for (max, kept) in [(0, 0), (600, 2), (300, 1)] {
        let mut world = World::with(Setup {
            settings: settings(max),
            ..Setup::default()
        });
        let client = world.client();
        for body in ["return_1", "return_2", "return_3", "return_3"] {
            say(&mut world, client, &format!("EVAL {body} 0"));
            world.answer_all("m");
        }
        world.lose_node("m");
        world.send(client, &["SET a 1"]);
        let mut want = ["SCRIPT LOAD return 3", "SCRIPT LOAD return 2"][..kept].to_vec();
        want.push("SET a 1");
        assert_eq!(world.asked("m"), want, "{max}");
    }
}
