//! Floor 4. Tests: What clients are told, and what they are spared.

use super::rights::before_7;
use super::*;
use crate::command::{Described, Table};
use crate::exchange::lease::Lease;

#[test]
fn client_reply_silences_what_nodes_and_we_say() {
    let mut world = World::new();
    let client = world.client();
    let lines = [
        "CLIENT REPLY OFF",
        "SET a 1",
        "PING",
        "REPLICAOF NO ONE",
        "BLPOP q 0",
    ];
    world.send(client, &lines);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "BLPOP q 0", "*-1");
    world.send(client, &["CLIENT REPLY ON", "SET b 1"]);
    world.answer("m", "SET b 1", "+B");
    assert_eq!(world.heard(client), "+OK|+B|");
    let lines = [
        "CLIENT REPLY SKIP",
        "SET c 1",
        "SET d 1",
        "CLIENT REPLY SKIP",
        "PING",
        "PING x",
    ];
    world.send(client, &lines);
    world.answer("m", "SET c 1", "+C");
    world.answer("m", "SET d 1", "+D");
    assert_eq!(world.heard(client), "+D|$1|x|");
    world.assert_calm();
}

#[test]
fn errors_of_lost_requests_are_silenced_too() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT REPLY SKIP", "SET a 1", "GET a"]);
    world.lose_node("m");
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.assert_calm();
}

#[test]
fn bare_errors_are_answered_here() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["EXEC", "DISCARD", "UNWATCH", "ECHO", "ECHO hi"]);
    let want = "-ERR EXEC without MULTI|-ERR DISCARD without MULTI|+OK|\
        -ERR wrong number of arguments for 'echo' command|$2|hi|";
    assert_eq!(world.heard(client), want);
    world.send(client, &["ACL WHOAMI", "CLIENT HELP"]);
    assert_eq!(world.asked("m"), ["ACL WHOAMI", "CLIENT HELP"]);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn what_a_client_is_capable_of_no_connection_has() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT CAPA redirect x"]);
    world.answer("m", "CLIENT CAPA ?", "+OK");
    world.send(client, &["MULTI", "CLIENT CAPA redirect", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CLIENT CAPA ?", "+QUEUED");
    world.answer("m", "EXEC", "*1|+OK");
    assert_eq!(world.heard(client), "+OK|+OK|+QUEUED|*1|+OK|");
    world.assert_calm();
}

/// Has the master tell that it lacks all but a few commands.
fn without_most(world: &mut World) {
    let told = [
        "get", "set", "ping", "command", "multi", "exec", "discard", "client",
    ]
    .map(|name| {
        let mut told = Described {
            name: name.to_owned(),
            arity: -1,
            ..Described::default()
        };
        if name == "client" {
            let id = Described {
                name: "client|id".to_owned(),
                arity: 2,
                ..Described::default()
            };
            told.subcommands.push(id);
        }
        told
    });
    let table = Table::builtin().overlay(&told);
    world.exchange.commands(0, Arc::new(table));
}

#[test]
fn a_command_that_the_master_lacks_is_unknown_as_at_the_master() {
    let mut world = World::new();
    without_most(&mut world);
    let client = world.client();
    world.send(
        client,
        &["WAITAOF 1", "client setinfo LIB-NAME x", "SHUTDOWN"],
    );
    let want = "-ERR unknown command 'WAITAOF', with args beginning with: '1' |\
        -ERR unknown subcommand 'setinfo'. Try CLIENT HELP.|\
        -ERR unknown command 'SHUTDOWN', with args beginning with: |";
    assert_eq!(world.heard(client), want);
    // On a shared connection the master says so itself.
    world.send(client, &["HTTL"]);
    world.answer("m", "HTTL", "-ERR unknown command 'HTTL'");
    assert_eq!(world.heard(client), "-ERR unknown command 'HTTL'|");
    world.assert_calm();
}

#[test]
fn in_a_transaction_the_master_says_what_it_lacks_and_nothing_refused_comes_to_it() {
    let mut world = World::new();
    without_most(&mut world);
    let client = world.client();
    world.send(client, &["MULTI", "CLIENT NO-TOUCH ON"]);
    world.answer("m", "MULTI", "+OK");
    let link = world.asked_on("m", "CLIENT NO-TOUCH ON");
    world.answer("m", "CLIENT NO-TOUCH ON", "+QUEUED");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*0");
    assert_eq!(world.heard(client), "+OK|+QUEUED|*0|");
    assert!(!world.wires.contains_key(&link), "it was closed");
    world.send(client, &["MULTI", "FAILOVER"]);
    assert!(!world.asked("m").contains(&"FAILOVER".to_owned()));
    world.answer_all("m");
    world.send(client, &["DISCARD"]);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_name_with_a_byte_0_is_known_to_nobody() {
    let mut world = World::new();
    let client = world.client();
    for (line, want) in [
        (
            "FLUSHALL\0a",
            "-ERR unknown command 'FLUSHALL', with args beginning with: |",
        ),
        (
            "SELECT\0 5",
            "-ERR unknown command 'SELECT', with args beginning with: '5' |",
        ),
        (
            "CONFIG SET\0x a b",
            "-ERR unknown subcommand 'SET'. Try CONFIG HELP.|",
        ),
        (
            "CLIENT REPLY\0 OFF",
            "-ERR unknown subcommand 'REPLY'. Try CLIENT HELP.|",
        ),
    ] {
        world.send(client, &[line]);
        assert_eq!(world.heard(client), want);
        world.send(client, &["MULTI", line, "EXEC"]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "DISCARD", "+OK");
        let aborted = "-EXECABORT Transaction discarded because of previous errors.|";
        assert_eq!(world.heard(client), format!("+OK|{want}{aborted}"));
    }
    let lines = ["nosuch", "nosuch a\0", "SET a\0 1"];
    world.send(client, &lines);
    assert_eq!(world.asked("m"), lines);
}

#[test]
fn a_key_with_a_byte_0_is_none_of_that() {
    let mut world = World::new();
    let told = ["get", "set", "ping", "command"].map(|name| Described {
        name: name.to_owned(),
        arity: -1,
        ..Described::default()
    });
    let table = Table::builtin().overlay(&told);
    world.exchange.commands(0, Arc::new(table));
    let client = world.client();
    for line in ["HTTL a\0 FIELDS 1 b", "XINFO a\0"] {
        world.send(client, &[line]);
        assert_eq!(world.asked("m"), [line]);
        world.answer("m", line, "-ERR unknown command");
        assert_eq!(world.heard(client), "-ERR unknown command|");
    }
}

#[test]
fn an_option_with_a_byte_0_is_that_option() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["XREAD BLOCK\0 0 STREAMS\0x s 0"]);
    world.send(two, &["SET a 1"]);
    let link = world.asked_on("m", "XREAD BLOCK\0 0 STREAMS\0x s 0");
    assert_ne!(
        world.asked_on("m", "SET a 1"),
        link,
        "nobody waits behind it"
    );
    world.send(two, &["MULTI", "CLIENT REPLY OFF\0", "EXEC"]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "MULTI", "+OK");
    let heard = world.heard(two);
    assert!(heard.contains("is not offered"), "{heard}");
}

#[test]
fn servers_before_7_take_a_subcommand_up_to_a_byte_0() {
    let mut world = World::new();
    before_7(&mut world);
    let client = world.client();
    world.send(client, &["CONFIG SET\0 a b"]);
    world.answer("m", "CONFIG SET\0 a b", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    let lease = world.exchange.lease_of(client);
    assert!(lease.is_some_and(Lease::is_attending));
    let other = world.client();
    world.send(other, &["SCRIPT DEBUG\0 YES"]);
    world.answer("m", "SCRIPT DEBUG\0 YES", "+OK");
    assert!(world.exchange.groups[0].pool.is_empty(), "its link is left");
    world.send(client, &["CLIENT REPLY\0 OFF", "PING"]);
    assert_eq!(world.heard(client), "", "it has asked for silence");
}
