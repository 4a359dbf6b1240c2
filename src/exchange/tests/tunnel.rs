//! Floor 4. Tests: Clients that become replicas.

use super::*;
use crate::command::Table;

/// A world in which clients may become replicas with an address.
fn world() -> World {
    let mut world = World::new();
    let names = ["sync", "psync", "replconf"].map(str::to_owned);
    let table = Table::builtin().with_policy(&[], &names);
    world.exchange.commands(0, Arc::new(table));
    world
}

/// A client that is one, and its link.
fn replica(world: &mut World) -> (ClientKey, LinkKey) {
    let client = world.client();
    world.send(client, &["PSYNC ? -1"]);
    let link = world.asked_on("m", "PSYNC ? -1");
    world.wires.get_mut(&link).unwrap().asked.clear();
    (client, link)
}

#[test]
fn what_the_master_says_passes_unread_and_what_its_replica_says_too() {
    let mut world = world();
    let (client, link) = replica(&mut world);
    world
        .say_raw(link, b"+FULLRESYNC 8371 0\r\n$18\r\nREDIS")
        .unwrap();
    world.say_raw(link, b"0011 no end *3\r\n$3").unwrap();
    assert_eq!(
        world.heard(client),
        "+FULLRESYNC 8371 0|$18|REDIS0011 no end *3|$3"
    );
    world.send_raw(client, b"*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK");
    assert!(world.wires[&link].arrived.is_empty(), "when it is whole");
    world.send_raw(client, b"\r\n$1\r\n0\r\n\n*3\r\n");
    assert_eq!(world.wires[&link].asked[0].1, "REPLCONF ACK 0");
    assert_eq!(world.wires[&link].arrived, b"\n");
    world.pass(Duration::from_secs(600));
    assert!(!world.is_closed(client), "silence is nothing to it");
    assert_eq!(world.heard(client), "");
    world.leave(client);
    assert!(!world.wires.contains_key(&link));
    world.assert_calm();
}

#[test]
fn a_replica_may_not_say_anything_else() {
    let front = b"*3\r\n$8\r\nREPLCONF\r\n$300000\r\n";
    let long = [&front[..], &vec![b'x'; 290_000]].concat();
    let flush = b"*1\r\n$8\r\nFLUSHALL\r\n";
    for said in [&flush[..], b"*x\r\n", b"FLUSHALL\r\n", &long] {
        let mut world = world();
        let (client, link) = replica(&mut world);
        world.say_raw(link, b"+CONTINUE\r\n").unwrap();
        world.send_raw(client, said);
        assert!(world.is_closed(client));
        assert!(world.asked("m").is_empty());
        assert!(!world.wires.contains_key(&link));
        world.assert_calm();
    }
}

#[test]
fn it_begins_when_the_replies_to_what_came_before_have_come_and_on_the_same_link() {
    let mut world = world();
    let client = world.client();
    world.send(
        client,
        &["SET a 1", "REPLCONF capa eof", "SYNC", "REPLCONF ACK 0"],
    );
    world.answer("m", "SET a 1", "+OK");
    let link = world.asked_on("m", "REPLCONF capa eof");
    assert_eq!(world.asked("m"), ["REPLCONF capa eof"]);
    world.answer("m", "REPLCONF capa eof", "+OK");
    assert_eq!(
        world.wires[&link].asked.len(),
        1,
        "the master has not begun"
    );
    world.say_raw(link, b"\n").unwrap();
    let asked: Vec<_> = world.wires[&link].asked.iter().map(|it| &*it.1).collect();
    assert_eq!(asked, ["SYNC", "REPLCONF ACK 0"]);
    world.say_raw(link, b"\n$EOF:x").unwrap();
    assert_eq!(world.heard(client), "+OK|+OK|\n\n$EOF:x");
}

#[test]
fn what_a_server_does_not_answer_is_not_sent_and_none_of_it_is_in_a_transaction() {
    let mut world = world();
    let client = world.client();
    world.send(client, &["REPLCONF ACK 0", "replconf GETACK *", "PING"]);
    assert_eq!(world.heard(client), "+PONG|");
    assert!(world.asked("m").is_empty());
    world.send(client, &["MULTI", "REPLCONF capa eof", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    let heard = world.heard(client);
    assert!(
        heard.contains("'REPLCONF between MULTI and EXEC'"),
        "{heard}"
    );
    assert!(
        world
            .asked("m")
            .iter()
            .all(|line| !line.starts_with("REPLCONF"))
    );
}

#[test]
fn it_waits_for_what_a_replica_owes_its_client() {
    let mut world = world();
    let client = world.client();
    world.send(client, &["GET a", "SYNC"]);
    assert!(world.asked("m").is_empty());
    world.lose_node("r1");
    world.answer_all("r1");
    world.answer("m", "SYNC", "+any");
    assert_eq!(world.heard(client), "+OK|+any|");
}

#[test]
fn it_ends_with_its_link_and_nobody_else_gets_that() {
    let mut world = world();
    let (client, link) = replica(&mut world);
    world.say_raw(link, b"+CONTINUE\r\n").unwrap();
    let other = world.client();
    world.send(other, &["MULTI", "INCR a"]);
    assert_ne!(world.asked_on("m", "MULTI"), link);
    world.lose(link);
    assert_eq!(world.heard(client), "+CONTINUE|");
    assert!(world.is_closed(client));

    let (client, link) = replica(&mut world);
    world.lose(link);
    assert!(world.is_closed(client), "with nothing heard either");
}

#[test]
fn a_switch_waits_for_none_and_ends_it_and_so_does_the_end() {
    let mut world = world();
    let (client, _) = replica(&mut world);
    world.reports.clear();
    world.switching();
    let quiet = |report: &ReportKind| matches!(report, ReportKind::Quiet { .. });
    assert!(world.reports.iter().any(quiet));
    world.publish(Phase::Stable, Some("r1"));
    assert!(world.is_closed(client));

    let mut world = self::world();
    let (client, _) = replica(&mut world);
    world.exchange.stop(world.now);
    world.run();
    assert!(world.is_closed(client));
}

#[test]
fn it_is_listed_as_a_replica() {
    let mut world = world();
    let (client, _) = replica(&mut world);
    let other = world.client();
    let portrait = |world: &World, key| {
        let client = world.exchange.clients.get(key).unwrap();
        world.exchange.portrait(client, world.now).flags
    };
    assert_eq!(portrait(&world, client), "S");
    assert_eq!(portrait(&world, other), "N");
}

#[test]
fn a_replica_that_takes_nothing_throttles_its_link_alone() {
    let mut world = world();
    let (client, link) = replica(&mut world);
    world.deaf.push(client);
    for _ in 0..40 {
        if world.exchange.is_throttled(link) {
            break;
        }
        world.say_raw(link, &vec![b'x'; 100_000]).unwrap();
    }
    assert!(world.exchange.is_throttled(link));
    let held = world.exchange.clients.get(client).unwrap().replies.unread();
    assert!(held < 2 << 20, "{held}");
}

#[test]
fn a_replica_that_says_more_than_its_link_takes_is_not_read_until_it_does() {
    let mut world = world();
    let (client, link) = replica(&mut world);
    world.say_raw(link, b"+CONTINUE\r\n").unwrap();
    world.wires.get_mut(&link).unwrap().open = false;
    let said = pipeline(&["REPLCONF ACK 0"]).repeat(30_000);
    for piece in said.chunks(50_000) {
        if !world.exchange.wants_input(client) {
            break;
        }
        world.send_raw(client, piece);
    }
    assert!(!world.exchange.wants_input(client) && !world.is_closed(client));
    let pending = world
        .exchange
        .links
        .get(link)
        .unwrap()
        .pipeline
        .pending_bytes();
    assert!(pending < 300_000, "{pending}");
    world.wires.get_mut(&link).unwrap().open = true;
    world.write(link);
    world.run();
    assert!(world.exchange.wants_input(client));
    let asked = &world.wires[&link].asked;
    assert!(asked.len() > 5_000 && asked.iter().all(|it| it.1 == "REPLCONF ACK 0"));
}

#[test]
fn who_is_not_taken_for_a_replica_goes_on_as_before() {
    let mut world = world();
    let (client, link) = replica(&mut world);
    world.say_raw(link, b"-NOPERM").unwrap();
    assert_eq!(world.heard(client), "");
    world.say_raw(link, b" no\r\n").unwrap();
    assert_eq!(world.heard(client), "-NOPERM no|");
    assert!(!world.wires.contains_key(&link));
    world.send(client, &["PING", "SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+PONG|+OK|");
    world.send(client, &["SYNC"]);
    let link = world.asked_on("m", "SYNC");
    world.say_raw(link, b"\n").unwrap();
    world.say_raw(link, b"-not the first").unwrap();
    assert_eq!(world.heard(client), "\n-not the first");
    world.send(client, &["PING"]);
    assert!(world.is_closed(client));
}

#[test]
fn what_came_behind_a_request_that_is_refused_is_answered_too() {
    let mut world = world();
    let client = world.client();
    let acks = ["REPLCONF ACK 0"; 3];
    world.send(
        client,
        &[&["PSYNC ? -1"][..], &acks, &["PING", "SYNC"]].concat(),
    );
    let link = world.asked_on("m", "PSYNC ? -1");
    assert_eq!(world.wires[&link].asked.len(), 1);
    world.say_raw(link, b"-NOPERM no\r\n").unwrap();
    assert_eq!(world.heard(client), "-NOPERM no|+PONG|");
    let link = world.asked_on("m", "SYNC");
    world.wires.get_mut(&link).unwrap().asked.clear();
    world.say_raw(link, b"$0\r\n").unwrap();
    assert_eq!(world.heard(client), "$0|");
}

#[test]
fn what_was_watched_is_watched_behind_a_request_that_is_refused() {
    let mut world = world();
    let client = world.client();
    world.send(client, &["WATCH a"]);
    let link = world.asked_on("m", "WATCH a");
    world.answer("m", "WATCH a", "+OK");
    world.send(client, &["SYNC"]);
    assert_eq!(world.asked_on("m", "SYNC"), link);
    world.answer("m", "SYNC", "-NOPERM no");
    world.send(client, &["MULTI", "EXEC"]);
    assert_eq!(world.asked_on("m", "MULTI"), link);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "EXEC", "*-1");
    assert_eq!(world.heard(client), "+OK|-NOPERM no|+OK|*-1|");
    world.assert_calm();
    assert!(!world.links("m").contains(&link), "it goes to nobody else");
    world.send(client, &["HELLO 3", "CLIENT TRACKING ON"]);
    world.answer("m", "CLIENT TRACKING ON", "+OK");
    world.heard(client);
    world.send(client, &["SYNC"]);
    let heard = world.heard(client);
    assert!(heard.contains("is not offered"), "{heard}");
}

#[test]
fn an_option_without_a_value_is_answered() {
    let mut world = world();
    let client = world.client();
    world.send(client, &["REPLCONF ACK", "PING"]);
    world.answer("m", "REPLCONF ACK", "-ERR syntax error");
    world.answer("m", "PING", "+PONG");
    assert_eq!(world.heard(client), "-ERR syntax error|+PONG|");
}

#[test]
fn without_leave_it_has_no_address() {
    let refused = "(commands.allow permits it)|+PONG|";
    for line in [
        "REPLCONF listening-port 6379",
        "REPLCONF capa eof IP-Address 10.0.0.1",
        "REPLCONF listening-port\0 6379",
        "REPLCONF ip-address\0x 10.0.0.1",
        "REPLCONF GETACK * listening-port 6379",
    ] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &[line, "PING"]);
        assert!(world.heard(client).ends_with(refused), "{line}");
        assert!(world.asked("m").is_empty());
        world.send(client, &["REPLCONF capa eof", "SYNC"]);
        world.answer("m", "REPLCONF capa eof", "+OK");
        assert_eq!(world.heard(client), "+OK|");
        let link = world.asked_on("m", "SYNC");
        world.say_raw(link, b"\n").unwrap();
        world.send(client, &["REPLCONF ACK 1", "REPLCONF capa eof"]);
        assert_eq!(world.wires[&link].asked.len(), 3);
        world.send(client, &[line]);
        assert!(world.is_closed(client), "{line}");
    }
}

#[test]
fn an_operator_may_refuse_all_of_it() {
    let mut world = World::new();
    let names = ["sync", "replconf"].map(str::to_owned);
    let table = Table::builtin().with_policy(&names, &[]);
    world.exchange.commands(0, Arc::new(table));
    let client = world.client();
    for line in ["SYNC", "REPLCONF capa eof"] {
        world.send(client, &[line]);
        let heard = world.heard(client);
        assert!(heard.ends_with("(commands.allow permits it)|"), "{heard}");
    }
    assert!(world.asked("m").is_empty());
    let (client, link) = replica(&mut world);
    world.say_raw(link, b"+CONTINUE\r\n").unwrap();
    world.send(client, &["REPLCONF ACK 1"]);
    assert_eq!(world.wires[&link].asked.len(), 1, "it cannot do without");
    world.send(client, &["SYNC"]);
    assert!(world.is_closed(client));
}

#[test]
fn what_a_server_might_answer_or_not_is_not_asked() {
    let refused = "(commands.allow permits it)|";
    for (line, want) in [
        ("REPLCONF capa eof ACK 0", "-ERR syntax error|"),
        ("REPLCONF listening-port 6379 ACK 0", refused),
    ] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &[line]);
        assert!(world.heard(client).ends_with(want), "{line}");
        let (client, link) = replica(&mut world);
        world.say_raw(link, b"+CONTINUE\r\n").unwrap();
        world.send(client, &[line]);
        assert!(world.is_closed(client), "{line}");
    }
}
