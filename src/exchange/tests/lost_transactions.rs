//! Floor 4. Tests: Transactions whose link is lost.

use super::transactions::{begun, begun_with_much};
use super::*;

#[test]
fn an_exec_that_was_sent_is_uncertain_and_one_that_was_not_is_aborted() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["EXEC"]);
    world.lose_node("m");
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
    world.send(client, &["EXEC"]);
    assert_eq!(world.heard(client), "-ERR EXEC without MULTI|");

    let client = begun_with_much(&mut world);
    let link = *world.links("m").last().unwrap();
    let exec = encoded("EXEC");
    world.exchange.client_bytes(client, &exec, world.now);
    world.write_some(link, exec.len() - 1);
    world.lose(link);
    assert!(world.heard(client).starts_with("-EXECABORT"));
    world.assert_calm();
}

#[test]
fn of_two_transactions_on_a_lost_link_only_the_one_with_a_sent_exec_is_uncertain() {
    let mut world = World::new();
    let client = world.client();
    let lines = ["MULTI", "INCR a", "EXEC", "WATCH w", "MULTI", "INCR b"];
    world.send(client, &lines);
    world.lose_node("m");
    let heard = world.heard(client);
    let words: Vec<_> = heard
        .split_terminator('|')
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let (maybe, no) = ("-UNCERTAIN", "-MASTERDOWN");
    assert_eq!(words, [maybe, maybe, maybe, "+OK", no, no]);
    world.send(client, &["EXEC"]);
    assert_eq!(world.heard(client), "*-1|");
    world.assert_calm();
}

#[test]
fn a_transaction_with_too_much_to_keep_ends_with_its_link() {
    let mut world = World::new();
    let client = begun_with_much(&mut world);
    world.send(client, &["INCR b"]);
    world.lose_node("m");
    let line = "-MASTERDOWN switchman: the transaction's connection was lost before EXEC; nothing \
        of it was executed|";
    assert_eq!(world.heard(client), line);
    world.send(client, &["INCR c", "EXEC", "INCR d"]);
    assert_eq!(world.asked("m"), ["INCR d"]);
    world.answer("m", "INCR d", ":1");
    let aborted = "-EXECABORT Transaction discarded because of: the connection to the master was \
        lost|";
    assert_eq!(world.heard(client), format!("{line}{aborted}:1|"));
    world.assert_calm();
}

#[test]
fn discard_ends_a_lost_transaction_too() {
    let mut world = World::new();
    for begin in [begun, begun_with_much] {
        let client = begin(&mut world);
        world.lose_node("m");
        world.send(client, &["DISCARD", "GET a"]);
        world.answer("r1", "GET a", "$1|1");
        assert_eq!(world.heard(client), "+OK|$1|1|");
        world.assert_calm();
    }
}

#[test]
fn a_transaction_on_a_link_that_never_opened_is_begun_anew() {
    let mut world = World::new();
    world.opens = false;
    let client = world.client();
    world.send(client, &["WATCH a", "MULTI", "INCR a"]);
    let (link, _) = world.only_opening();
    world.refuse(link, unreachable());
    world.opens = true;
    world.pass(ms(100));
    world.send(client, &["EXEC"]);
    for (request, reply) in [("WATCH a", "+OK"), ("MULTI", "+OK"), ("INCR a", "+QUEUED")] {
        world.answer("m", request, reply);
    }
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "+OK|+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn what_is_refused_in_a_transaction_waits_until_that_is_begun() {
    let mut world = World::new();
    for exec_before in [true, false] {
        world.opens = false;
        let client = world.client();
        world.send(client, &["MULTI", "INCR a", "REPLICAOF NO ONE"]);
        if exec_before {
            world.send(client, &["EXEC"]);
        }
        let (link, _) = world.only_opening();
        world.refuse(link, unreachable());
        world.opens = true;
        world.pass(ms(100));
        if !exec_before {
            world.send(client, &["EXEC"]);
        }
        assert_eq!(world.asked("m"), ["MULTI", "INCR a"]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "INCR a", "+QUEUED");
        world.answer("m", "DISCARD", "+OK");
        let heard = world.heard(client);
        let words: Vec<_> = heard.split_terminator('|').collect();
        assert_eq!(words.len(), 4, "{heard}");
        assert!(heard.starts_with("+OK|+QUEUED|-ERR switchman: "), "{heard}");
        assert!(words[3].starts_with("-EXECABORT"), "{heard}");
        world.assert_calm();
        world.lose_node("m");
    }
}

#[test]
fn a_client_that_has_heard_of_the_lost_multi_is_not_in_a_transaction() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH w", "MULTI"]);
    world.lose_node("m");
    assert!(
        world
            .heard(client)
            .starts_with("+OK|-MASTERDOWN switchman: the transaction")
    );
    world.pass(ms(50));
    world.send(client, &["INCR a", "EXEC"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), ":1|-ERR EXEC without MULTI|");
    world.assert_calm();
}

#[test]
fn what_came_before_a_lost_transaction_is_placed_anew_outside_of_it() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    world.open_all();
    let client = world.client();
    world.send(client, &["WATCH a"]);
    world.open_all();
    world.answer("m", "WATCH a", "+OK");
    let lines = ["GET a", "WATCH b", "MULTI", "INCR a", "EXEC"];
    world
        .exchange
        .client_bytes(client, &pipeline(&lines), world.now);
    let link = *world.links("m").last().unwrap();
    world.write_some(link, encoded("GET a").len());
    world.lose(link);
    world.answer("r1", "GET a", "$1|1");
    let heard = world.heard(client);
    let words: Vec<_> = heard.split_terminator('|').collect();
    assert_eq!(words[..4], ["+OK", "$1", "1", "+OK"]);
    assert!(words[4].starts_with("-MASTERDOWN") && words[5].starts_with("-MASTERDOWN"));
    assert!(words[6].starts_with("-EXECABORT"));
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}
