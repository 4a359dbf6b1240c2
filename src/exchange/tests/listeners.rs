//! Floor 4. Tests: Listeners with a role of their own, READONLY and READWRITE.

use std::sync::Arc;

use super::*;
use crate::command::{Described, Table};
use crate::consistency::Stamps;
use crate::exchange::GroupSettings;
use crate::route::Reads;
use crate::telemetry::MasterRead;
use crate::types::ListenerRole;

const REFUSED: &str = "-READONLY You can't write against a read only replica.|";

fn replica() -> Access {
    Access::new(ListenerRole::Replica, Reads::Replicas)
}

/// A world whose nodes say at the handshake that they are this server.
fn of_family(server: &'static str, version: &'static str) -> World {
    of_family_with(Setup::default(), server, version)
}

fn of_family_with(setup: Setup, server: &'static str, version: &'static str) -> World {
    let mut world = World::with(Setup {
        opens: false,
        ..setup
    });
    while let Some(link) = world.opening() {
        let mut hello = Vec::new();
        encode::map_header(&mut hello, Protocol::Resp2, 2);
        for word in ["server", server, "version", version] {
            encode::bulk(&mut hello, word.as_bytes());
        }
        let opened = Opened {
            hello: HelloFacts::read(&hello),
            ..shaken(&world.wires[&link].plan, 1)
        };
        world.wires.get_mut(&link).unwrap().open = true;
        world.exchange.link_opened(link, opened, world.now);
        world.run();
    }
    world
}

#[test]
fn a_master_listener_asks_the_master_alone_while_others_of_the_group_use_replicas() {
    let mut world = World::new();
    let master = world.client_by(Access::new(ListenerRole::Master, Reads::Replicas));
    let split = world.client();
    world.send(master, &["GET a"]);
    world.send(split, &["GET b"]);
    assert_eq!(world.asked("m"), ["GET a"]);
    assert_eq!(world.asked("r1"), ["GET b"]);
    world.answer_all("m");
    world.answer_all("r1");
    world.assert_calm();
}

/// How often the master served a read that replicas might have, for this reason.
fn by_master(world: &mut World, why: MasterRead) -> u64 {
    world.exchange.counts(0).unwrap().master_reads()[why.index()]
}

#[test]
fn a_read_by_the_master_is_counted_for_what_sent_it_there() {
    let mut world = of_family("valkey", "8.0.1");
    let by_role = world.client_by(Access::new(ListenerRole::Master, Reads::Replicas));
    let by_mode = world.client_by(Access::new(ListenerRole::Split, Reads::Master));
    let by_word = world.client();
    world.send(by_role, &["GET a"]);
    assert_eq!(by_master(&mut world, MasterRead::Policy), 1);
    world.send(by_mode, &["GET a"]);
    assert_eq!(by_master(&mut world, MasterRead::Mode), 1);
    world.send(by_word, &["READWRITE", "GET a"]);
    assert_eq!(by_master(&mut world, MasterRead::Policy), 2);
    world.answer_all("m");
    world.picture.replicas.clear();
    world.picture.lagging = true;
    world.publish(Phase::Stable, Some("m"));
    world.send(by_word, &["READONLY", "GET a"]);
    assert_eq!(by_master(&mut world, MasterRead::Lag), 1);
    assert_eq!(by_master(&mut world, MasterRead::NoneEligible), 0);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn what_writes_is_refused_to_a_read_only_client_and_reaches_no_node() {
    let mut world = World::new();
    let client = world.client_by(replica());
    for line in [
        "SET a 1",
        "GETEX a",
        "SORT l",
        "BLPOP l 0",
        "XREADGROUP GROUP g c STREAMS s >",
        "FUNCTION LOAD x",
        "FLUSHALL",
    ] {
        world.send(client, &[line]);
        assert_eq!(world.heard(client), REFUSED, "{line}");
    }
    for (line, words) in [
        ("SET a", "-ERR wrong number of arguments for 'set' command|"),
        (
            "NOSUCH a",
            "-ERR unknown command 'NOSUCH', with args beginning with: 'a' |",
        ),
        ("EXEC", "-ERR EXEC without MULTI|"),
    ] {
        world.send(client, &[line]);
        assert_eq!(world.heard(client), words, "{line}");
    }
    for line in [
        "CONFIG SET a b",
        "SCRIPT FLUSH",
        "MONITOR",
        "DEBUG JMAP",
        "ACL SETUSER a",
    ] {
        world.send(client, &[line]);
        let heard = world.heard(client);
        assert!(heard.contains("' is not offered on a listener"), "{heard}");
    }
    for line in ["WAIT 1 0", "WAITAOF 0 1 0"] {
        world.send(client, &[line]);
        let heard = world.heard(client);
        assert!(
            heard.contains("cannot be used with replica instances"),
            "{heard}"
        );
    }
    assert_eq!(world.asked("m"), Vec::<String>::new());
    assert_eq!(world.asked("r1"), Vec::<String>::new());
    world.assert_calm();
}

#[test]
fn reads_of_a_read_only_client_follow_the_rules_of_all_reads() {
    let mut world = World::with(Setup {
        replicas: Vec::new(),
        ..Setup::default()
    });
    let client = world.client_by(replica());
    world.send(client, &["GET a", "SET a 1", "GET b"]);
    world.answer("m", "GET a", "$1|1");
    world.answer("m", "GET b", "$1|2");
    assert_eq!(world.heard(client), format!("$1|1|{REFUSED}$1|2|"));
    world.assert_calm();
}

/// The commands of a master that has few.
fn few() -> Vec<Described> {
    let few = ["get", "set", "ping", "command"].map(|name| Described {
        name: name.to_owned(),
        arity: -1,
        ..Described::default()
    });
    few.to_vec()
}

#[test]
fn what_the_master_lacks_is_unknown_to_a_read_only_client_too() {
    let mut world = World::new();
    let mut told = few();
    told[3].subcommands.push(Described {
        name: "command|count".to_owned(),
        arity: 2,
        ..Described::default()
    });
    let table = Table::builtin().overlay(&told);
    world.exchange.commands(0, Arc::new(table));
    let client = world.client_by(replica());
    world.send(client, &["HEXPIRE a"]);
    let said = "-ERR unknown command 'HEXPIRE', with args beginning with: 'a' |";
    assert_eq!(world.heard(client), said);
    world.assert_calm();
}

#[test]
fn before_an_old_master_errors_have_its_words() {
    let mut world = World::new();
    world
        .exchange
        .commands(0, Arc::new(Table::builtin().overlay(&few())));
    let reading = world.client_by(replica());
    world.send(reading, &["HEXPIRE a"]);
    let said = "-ERR unknown command `HEXPIRE`, with args beginning with: `a`, |";
    assert_eq!(world.heard(reading), said);
    world.assert_calm();
}

#[test]
fn what_reads_at_a_replica_as_well_is_read_there_for_a_read_only_client() {
    let mut world = World::new();
    let (split, client) = (world.client(), world.client_by(replica()));
    for line in ["PFCOUNT a", "ROLE", "XINFO STREAM s", "XINFO GROUPS s"] {
        world.send(split, &[line]);
        world.answer("m", line, ":1");
        world.send(client, &[line]);
        world.answer("r1", line, ":2");
    }
    assert_eq!(world.heard(client), ":2|:2|:2|:2|");
    world.send(client, &["XINFO HELP"]);
    world.answer("m", "XINFO HELP", "*0");
    world.assert_calm();
}

#[test]
fn a_script_of_a_read_only_client_must_not_write_wherever_it_runs() {
    let mut world = World::new();
    let client = world.client_by(replica());
    world.send(client, &["EVAL x 1 a b", "evalsha f 0", "FCALL f 1 a"]);
    let asked = ["EVAL_RO x 1 a b", "EVALSHA_RO f 0", "FCALL_RO f 1 a"];
    assert_eq!(world.asked("r1"), asked);
    world.switch_to("m", &[]);
    world.lose_node("r1");
    assert_eq!(world.asked("m"), asked);
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_transaction_of_a_read_only_client_with_a_write_is_not_executed() {
    let mut world = World::new();
    let client = world.client_by(replica());
    world.send(client, &["MULTI", "GET a", "SET b 1", "GET c"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "GET a", "+QUEUED");
    world.answer("m", "GET c", "+QUEUED");
    assert_eq!(
        world.heard(client),
        format!("+OK|+QUEUED|{REFUSED}+QUEUED|")
    );
    world.send(client, &["EXEC"]);
    world.answer("m", "DISCARD", "+OK");
    assert!(world.heard(client).starts_with("-EXECABORT "));
    world.send(client, &["MULTI", "EVAL x 0", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "EVAL_RO x 0", "+QUEUED");
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn a_read_only_client_is_told_that_it_speaks_with_a_replica() {
    let mut world = World::new();
    let (client, other) = (world.client_by(replica()), world.client());
    world.send(client, &["ROLE", "INFO replication"]);
    world.send(other, &["ROLE"]);
    assert_eq!(world.asked("r1"), ["ROLE", "INFO replication"]);
    assert_eq!(world.asked("m"), ["ROLE"]);
    world.answer_all("r1");
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn what_was_seen_before_the_word_that_switches_is_placed_once() {
    let setup = Setup {
        group: GroupSettings {
            stamps: Some(Arc::new(Stamps::new(64, 1))),
            ..Setup::default().group
        },
        ..Setup::default()
    };
    let mut world = of_family_with(setup, "valkey", "8.0.1");
    let client = world.client_by(Access::new(ListenerRole::Split, Reads::OwnWrites));
    let lines = ["GET a", "READWRITE", "GET b", "READONLY", "GET c", "GET d"];
    world.send(client, &lines);
    assert_eq!(world.asked("r1"), ["GET a", "GET c", "GET d"]);
    assert_eq!(world.asked("m"), ["GET b"]);
}

#[test]
fn readwrite_and_readonly_switch_the_replica_reads_where_the_family_takes_them() {
    let mut world = of_family("valkey", "8.0.1");
    let client = world.client();
    let expect = |world: &mut World, line: &str, node: &str| {
        world.send(client, &[line, "GET a"]);
        assert_eq!(world.asked(node), ["GET a"], "{line}");
        world.answer(node, "GET a", "$1|1");
        let ok = if line == "RESET" { "+RESET|" } else { "+OK|" };
        assert_eq!(world.heard(client), format!("{ok}$1|1|"));
    };
    expect(&mut world, "READWRITE", "m");
    expect(&mut world, "READONLY", "r1");
    expect(&mut world, "READWRITE", "m");
    expect(&mut world, "RESET", "r1");
    let read_only = world.client_by(replica());
    world.send(read_only, &["READWRITE", "GET a", "SET a 1"]);
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(read_only), format!("+OK|$1|1|{REFUSED}"));
    world.assert_calm();
}

#[test]
fn readwrite_changes_nothing_where_the_family_has_no_use_for_it() {
    let no = "-ERR This instance has cluster support disabled|";
    for (version, said) in [("7.0.15", no), ("6.2.14", "+OK|")] {
        let mut world = of_family("redis", version);
        let client = world.client();
        world.send(client, &["READWRITE", "READONLY", "GET a"]);
        world.answer("r1", "GET a", "$1|1");
        assert_eq!(world.heard(client), format!("{said}{no}$1|1|"), "{version}");
        world.assert_calm();
    }
}
