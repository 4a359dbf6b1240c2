//! Floor 4. Tests: Scripts that a new master does not have.

use super::*;
use crate::exchange::Scripts;

/// `return 1`
const ONE: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.";

/// Requests in which `_` stands for a space within a word.
fn request(line: &str) -> Vec<u8> {
    let words: Vec<String> = line.split(' ').map(|word| word.replace('_', " ")).collect();
    let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
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
fn a_read_only_script_is_found_by_way_of_the_master() {
    let (mut world, client) = with_script();
    let evalsha = format!("EVALSHA_RO {ONE} 0");
    world.send(client, &[&evalsha]);
    world.answer("r1", &evalsha, NOSCRIPT);
    world.answer("m", &evalsha, NOSCRIPT);
    world.answer("m", "SCRIPT LOAD return 1", "$3|sha");
    world.answer("m", &evalsha, ":1");
    assert_eq!(world.heard(client), ":1|");
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
