//! Floor 4. Tests: Commands that are answered here, from users who may not use them.

use super::pubsub::subscribe;
use super::*;
use crate::command::{Described, Table};

const DENIED: &str = "-NOPERM this user has no permissions to run the 'x' command";

/// A world with a client that has logged in.
fn with_user(user: &str) -> (World, ClientKey) {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &[&format!("AUTH {user} secret")]);
    assert_eq!(world.heard(client), "+OK|");
    (world, client)
}

#[test]
fn the_master_answers_a_ping_of_a_user_with_a_name() {
    let (mut world, client) = with_user("app");
    world.send(client, &["PING", "PING a b", "ECHO x", "SET a 1"]);
    assert_eq!(world.asked("m"), ["PING", "PING a b", "ECHO x", "SET a 1"]);
    world.answer("m", "PING", "+PONG");
    world.answer("m", "PING a b", DENIED);
    world.answer("m", "ECHO x", DENIED);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), format!("+PONG|{DENIED}|{DENIED}|+OK|"));
    world.assert_calm();
}

#[test]
fn a_ping_of_a_subscriber_with_a_name_is_answered_as_ones() {
    let (mut world, client) = with_user("app");
    subscribe(&mut world, client, "a");
    world.heard(client);
    world.send(client, &["PING", "PING x"]);
    world.answer("m", "PING", "+PONG");
    world.answer("m", "PING x", DENIED);
    assert_eq!(world.heard(client), format!("*2|$4|pong|$0||{DENIED}|"));
    world.assert_calm();
}

#[test]
fn the_master_says_what_a_user_with_a_name_has_not_begun() {
    let (mut world, client) = with_user("app");
    let lines = ["EXEC", "DISCARD", "UNWATCH"];
    world.send(client, &lines);
    assert_eq!(world.asked("m"), lines);
    for line in lines {
        world.answer("m", line, DENIED);
    }
    assert_eq!(world.heard(client), format!("{DENIED}|").repeat(3));
    world.send(client, &["MULTI", "EXEC"]);
    assert_eq!(world.asked("m"), ["MULTI", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "EXEC", "*0");
    assert_eq!(world.heard(client), "+OK|*0|");
    world.send(client, &["MULTI", "EXEC", "DISCARD"]);
    world.answer("m", "MULTI", DENIED);
    world.answer("m", "EXEC", DENIED);
    world.answer("m", "DISCARD", DENIED);
    assert_eq!(world.heard(client), format!("{DENIED}|").repeat(3));
    world.assert_calm();
}

#[test]
fn the_master_says_to_a_user_with_a_name_what_is_wrong_with_a_request() {
    let (mut world, client) = with_user("app");
    let lines = [
        "BLPOP a",
        "SELECT",
        "MULTI x",
        "CLIENT GETNAME x",
        "SUBSCRIBE",
    ];
    world.send(client, &lines);
    assert_eq!(world.asked("m"), lines);
    for line in lines {
        world.answer("m", line, "-ERR wrong");
    }
    assert_eq!(world.heard(client), "-ERR wrong|".repeat(5));
    world.assert_calm();
}

#[test]
fn the_master_says_to_a_user_with_a_name_what_it_may_not_end() {
    let (mut world, client) = with_user("app");
    let lines = ["WATCH a", "EXEC", "DISCARD", "BLPOP a"];
    world.send(client, &lines);
    assert_eq!(world.asked("m"), lines);
    for line in lines {
        world.answer("m", line, DENIED);
    }
    assert_eq!(world.heard(client), format!("{DENIED}|").repeat(4));
    world.send(client, &["UNWATCH"]);
    world.answer("m", "UNWATCH", DENIED);
    assert_eq!(world.heard(client), format!("{DENIED}|"));
    world.assert_calm();
}

#[test]
fn a_deleted_user_hears_nothing_of_what_is_wrong_with_a_request() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    world.open_all();
    let client = world.client();
    world.send(client, &["AUTH app secret"]);
    world.open_all();
    assert_eq!(world.heard(client), "+OK|");
    world.lose_node("m");
    world.send(client, &["BLPOP a"]);
    let (link, _) = world.only_opening();
    world.refuse(link, wrong_password());
    assert!(world.heard(client).starts_with("-WRONGPASS "));
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn without_a_master_we_say_what_is_wrong_with_a_request() {
    let (mut world, client) = with_user("app");
    world.switching();
    world.send(client, &["BLPOP a"]);
    let wrong = "-ERR wrong number of arguments for 'blpop' command|";
    assert_eq!(world.heard(client), wrong);
    world.assert_calm();
}

#[test]
fn nobody_is_asked_about_the_default_user_nor_about_what_everybody_may() {
    let (mut world, client) = with_user("default");
    world.send(client, &["PING", "CLIENT SETNAME a", "CLIENT GETNAME"]);
    assert_eq!(world.heard(client), "+PONG|+OK|$1|a|");
    let (mut world, client) = with_user("app");
    world.send(client, &["RESET", "PING"]);
    assert_eq!(world.heard(client), "+RESET|+PONG|");
    let client = world.client();
    world.send(client, &["AUTH app secret", "QUIT"]);
    assert_eq!(world.heard(client), "+OK|+OK|");
}

#[test]
fn what_a_user_may_is_asked_before_each_command_in_a_form_that_does_nothing() {
    let (mut world, client) = with_user("app");
    let id = format!(":{}", world.next_client);
    for (line, question, reply) in [
        ("CLIENT SETNAME a", "CLIENT SETNAME  ", "+OK"),
        ("CLIENT SETNAME b", "CLIENT SETNAME  ", DENIED),
        ("CLIENT GETNAME", "CLIENT GETNAME", "$1|a"),
        ("client id", "client id", &id),
        ("CLIENT NO-EVICT ON", "CLIENT NO-EVICT ?", DENIED),
        ("CLIENT SETINFO lib-name x", "CLIENT SETINFO ? ?", "+OK"),
        ("READONLY", "READONLY", DENIED),
    ] {
        world.send(client, &[line, "GET k"]);
        assert_eq!(world.asked("m"), [question], "{line}");
        assert!(world.asked("r1").is_empty(), "it waits");
        let told = if reply == DENIED {
            DENIED
        } else {
            "-ERR other"
        };
        world.answer("m", question, told);
        world.answer("r1", "GET k", "$1|v");
        assert_eq!(world.heard(client), format!("{reply}|$1|v|"), "{line}");
    }
    world.assert_calm();
}

/// The master is of the time before Redis 7.0.
pub(super) fn before_7(world: &mut World) {
    let names = [
        "get", "set", "ping", "command", "client", "reset", "auth", "config", "hello", "script",
    ];
    let told = names.map(|name| Described {
        name: name.to_owned(),
        arity: -1,
        ..Described::default()
    });
    let table = Table::builtin().overlay(&told);
    assert!(table.is_before_7());
    world.exchange.commands(0, Arc::new(table));
}

#[test]
fn a_reset_takes_a_right_before_redis_7_and_its_link_is_left() {
    let (mut world, client) = with_user("app");
    before_7(&mut world);
    world.send(client, &["SET a 1", "RESET", "SET b 1"]);
    world.answer("m", "SET a 1", "+OK");
    let first = world.asked_on("m", "RESET");
    world.answer("m", "RESET", DENIED);
    assert_ne!(world.asked_on("m", "SET b 1"), first);
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(client), format!("+OK|{DENIED}|+OK|"));
    world.send(client, &["RESET", "PING"]);
    world.answer("m", "RESET", "+RESET");
    assert_eq!(world.heard(client), "+RESET|+PONG|");
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn before_redis_7_a_server_looks_at_rights_before_it_looks_at_subcommands() {
    let (mut world, client) = with_user("app");
    before_7(&mut world);
    let misspelt = "-ERR Unknown subcommand or wrong number of arguments for";
    for line in ["CLIENT SETNAME a b", "CLIENT NO-EVICT x"] {
        world.send(client, &[line, line]);
        world.answer("m", line, DENIED);
        world.answer("m", line, misspelt);
        assert_eq!(world.heard(client), format!("{DENIED}|{misspelt}|"));
    }
    world.assert_calm();
}

#[test]
fn a_select_is_asked_for_where_it_changes_nothing() {
    let (mut world, client) = with_user("app");
    for (line, database, reply) in [
        ("SELECT 0", 0, "+OK"),
        ("SELECT 3", 3, "+OK"),
        ("SELECT 5", 5, DENIED),
        (
            "SELECT x",
            0,
            "-ERR value is not an integer or out of range",
        ),
    ] {
        world.send(client, &[line]);
        let link = world.asked_on("m", line);
        assert_eq!(world.wires[&link].plan.database, database, "{line}");
        world.answer("m", line, if reply == DENIED { DENIED } else { "+OK" });
        assert_eq!(world.heard(client), format!("{reply}|"), "{line}");
    }
    world.send(client, &["SET a 1"]);
    let link = world.asked_on("m", "SET a 1");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn silence_is_kept_where_it_was_asked_for() {
    let (mut world, client) = with_user("app");
    world.send(client, &["CLIENT REPLY SKIP", "CLIENT ID", "CLIENT ID"]);
    for question in ["CLIENT REPLY ?", "CLIENT ID", "CLIENT ID"] {
        assert_eq!(world.asked("m"), [question]);
        world.answer("m", question, "-ERR syntax error");
    }
    let id = world.next_client;
    assert_eq!(world.heard(client), format!(":{id}|"));
    world.assert_calm();
}

#[test]
fn a_question_that_is_lost_is_asked_anew_and_nobody_waits_where_there_is_no_master() {
    let (mut world, client) = with_user("app");
    world.send(client, &["CLIENT ID"]);
    world.lose_node("m");
    world.answer("m", "CLIENT ID", DENIED);
    world.switching();
    world.send(client, &["PING", "CLIENT GETNAME"]);
    assert_eq!(world.heard(client), format!("{DENIED}|+PONG|$-1|"));
    world.switch_to("r1", &[]);
    world.send(client, &["PING"]);
    world.answer("r1", "PING", "+PONG");
    world.assert_calm();
}

#[test]
fn who_leaves_while_the_master_is_asked_leaves_nothing_behind() {
    let (mut world, client) = with_user("app");
    world.send(client, &["SET a 1", "CLIENT ID"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.asked("m"), ["CLIENT ID"]);
    world.leave(client);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_login_needs_no_right_to_select() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SELECT 2"]);
    world.opens = false;
    world.send(client, &["AUTH app secret"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.database, 0);
    world.open(link);
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.send(client, &["SET a 1"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.database, 2);
    world.open(link);
    world.answer("m", "SET a 1", "+OK");
    // Nor does what the master is asked for it.
    world.send(client, &["PING", "ECHO x"]);
    for (question, told) in [("PING", "+PONG"), ("ECHO x", DENIED)] {
        let link = world.asked_on("m", question);
        assert_eq!(world.wires[&link].plan.database, 0);
        world.answer("m", question, told);
    }
    assert_eq!(world.heard(client), format!("+OK|+PONG|{DENIED}|"));
    world.assert_calm();
}
