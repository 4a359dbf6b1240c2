//! Floor 4. Tests: WATCH, MULTI, EXEC, and the link that carries them.

use super::*;

/// A client with an open transaction of one queued INCR.
pub(super) fn begun(world: &mut World) -> ClientKey {
    let client = world.client();
    world.send(client, &["MULTI", "INCR a"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    assert_eq!(world.heard(client), "+OK|+QUEUED|");
    client
}

/// A client with an open transaction of one command, too large to be kept.
pub(super) fn begun_with_much(world: &mut World) -> ClientKey {
    let client = world.client();
    let large = format!("SET a {}", "x".repeat(70_000));
    world.send(client, &["MULTI", &large]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", &large, "+QUEUED");
    assert_eq!(world.heard(client), "+OK|+QUEUED|");
    client
}

/// What Redis says to an EXEC with arguments.
const MISSPELT: &str = "-EXECABORT Transaction discarded because of: wrong number of arguments for \
    'exec' command|";

#[test]
fn an_exec_with_arguments_ends_the_transaction_and_executes_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "SET a 1", "EXEC x", "EXEC", "SET b 2"]);
    assert_eq!(world.asked("m"), ["MULTI", "SET a 1", "DISCARD"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 1", "+QUEUED");
    world.answer("m", "DISCARD", "+OK");
    world.answer("m", "SET b 2", "+OK");
    let without = "-ERR EXEC without MULTI|";
    assert_eq!(
        world.heard(client),
        format!("+OK|+QUEUED|{MISSPELT}{without}+OK|")
    );
    world.assert_calm();
}

#[test]
fn an_exec_with_arguments_says_so_whatever_becomes_of_its_link() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "SET a 1"]);
    world.answer("m", "MULTI", "+OK");
    world.send(client, &["EXEC x"]);
    world.lose_node("m");
    assert!(world.heard(client).ends_with(MISSPELT));
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn an_exec_with_arguments_ends_what_is_watched() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["EXEC x"]);
    assert_eq!(world.heard(client), MISSPELT);
    world.send(client, &["WATCH a"]);
    world.answer("m", "WATCH a", "+OK");
    world.send(client, &["EXEC x", "DISCARD x"]);
    world.answer("m", "UNWATCH", "+OK");
    let discard = "-ERR wrong number of arguments for 'discard' command|";
    assert_eq!(world.heard(client), format!("+OK|{MISSPELT}{discard}"));
    world.assert_calm();
    world.send(client, &["WATCH a"]);
    world.answer("m", "WATCH a", "+OK");
    world.lose_node("m");
    world.send(client, &["EXEC x"]);
    assert_eq!(world.heard(client), format!("+OK|{MISSPELT}"));
    world.assert_calm();
}

#[test]
fn a_thousand_transactions_need_one_more_link() {
    let mut world = World::new();
    let before = world.opened;
    for _ in 0..1000 {
        let client = begun(&mut world);
        world.send(client, &["EXEC"]);
        world.answer("m", "EXEC", "*1|:1");
        assert_eq!(world.heard(client), "*1|:1|");
        world.leave(client);
    }
    assert_eq!(world.opened, before + 1);
    world.assert_calm();
}

#[test]
fn everything_between_multi_and_exec_goes_over_one_link() {
    let mut world = World::new();
    let client = world.client();
    let lines = [
        "MULTI",
        "SET a 1",
        "GET a",
        "PING",
        "BLPOP q 0",
        "CONFIG GET x",
        "EXEC",
    ];
    world.send(client, &lines);
    assert_eq!(world.asked("m"), lines);
    let link = world.asked_on("m", "MULTI");
    assert_eq!(world.wires[&link].asked.len(), lines.len());
    world.answer("m", "MULTI", "+OK");
    for line in &lines[1..6] {
        world.answer("m", line, "+QUEUED");
    }
    world.answer("m", "EXEC", "*5|+OK|$1|1|+PONG|*-1|*0");
    let queued = "+QUEUED|".repeat(5);
    assert_eq!(
        world.heard(client),
        format!("+OK|{queued}*5|+OK|$1|1|+PONG|*-1|*0|")
    );
    world.assert_calm();
}

#[test]
fn a_watch_whose_link_is_lost_lets_no_exec_succeed() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH a"]);
    world.answer("m", "WATCH a", "+OK");
    world.lose_node("m");
    world.send(client, &["GET a"]);
    world.answer("r1", "GET a", "$1|1");
    world.send(client, &["MULTI", "SET a 2", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 2", "+QUEUED");
    world.answer("m", "DISCARD", "+OK");
    assert_eq!(world.heard(client), "+OK|$1|1|+OK|+QUEUED|*-1|");
    world.send(client, &["MULTI", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "EXEC", "*0");
    assert_eq!(world.heard(client), "+OK|*0|");
    world.assert_calm();
}

#[test]
fn a_transaction_with_a_watch_lost_in_the_middle_gets_a_null() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "WATCH a", "MULTI"]);
    world.answer("m", "WATCH a", "+OK");
    world.answer("m", "MULTI", "+OK");
    world.heard(client);
    world.lose_node("m");
    world.send(client, &["EXEC"]);
    assert_eq!(world.heard(client), "_|");
    world.assert_calm();
}

#[test]
fn a_watching_client_reads_where_it_watches() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH a", "GET a"]);
    let link = world.asked_on("m", "WATCH a");
    assert_eq!(world.wires[&link].asked.len(), 2);
    world.answer("m", "WATCH a", "+OK");
    world.answer("m", "GET a", "$1|1");
    world.send(client, &["UNWATCH", "GET a"]);
    world.answer("m", "UNWATCH", "+OK");
    world.answer("r1", "GET a", "$1|1");
    world.assert_calm();
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 1);
}

#[test]
fn a_client_that_leaves_takes_its_unfinished_transaction_along() {
    let mut world = World::new();
    let client = begun(&mut world);
    let link = world
        .exchange
        .clients
        .get(client)
        .unwrap()
        .lease
        .as_ref()
        .unwrap()
        .link
        .unwrap();
    world.leave(client);
    assert!(!world.wires.contains_key(&link));
    world.assert_calm();
    assert!(world.exchange.groups[0].pool.is_empty());
}

#[test]
fn what_is_refused_inside_a_transaction_aborts_it() {
    let mut world = World::new();
    for line in [
        "REPLICAOF NO ONE",
        "SUBSCRIBE c",
        "CLIENT REPLY OFF",
        "CLIENT UNBLOCK 7",
    ] {
        let client = begun(&mut world);
        world.send(client, &[line]);
        assert!(
            world.heard(client).starts_with("-ERR switchman: "),
            "{line}"
        );
        world.send(client, &["EXEC"]);
        world.answer("m", "DISCARD", "+OK");
        let aborted = "-EXECABORT Transaction discarded because of previous errors.|";
        assert_eq!(world.heard(client), aborted, "{line}");
        world.assert_calm();
    }
}

#[test]
fn the_server_words_what_is_wrong_inside_a_transaction() {
    let mut world = World::new();
    let client = begun(&mut world);
    let wrong = ["BLPOP x", "DISCARD now", "NONSENSE", "MULTI", "WATCH b"];
    world.send(client, &wrong);
    assert_eq!(world.asked("m"), wrong);
    for line in wrong {
        world.answer("m", line, "-ERR no");
    }
    world.send(client, &["EXEC"]);
    world.answer(
        "m",
        "EXEC",
        "-EXECABORT Transaction discarded because of previous errors.",
    );
    world.heard(client);
    world.assert_calm();
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 1);
}

#[test]
fn a_multi_that_is_refused_takes_what_came_with_it_along() {
    let mut world = World::before(Setup::default());
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.pass(ms(40));
    world.send(client, &["INCR a", "EXEC"]);
    world.pass(ms(4960));
    let heard = world.heard(client);
    let words: Vec<_> = heard.split_terminator('|').collect();
    assert!(
        words[0].starts_with("-MASTERDOWN switchman: no writable master"),
        "{heard}"
    );
    assert!(
        words[1].starts_with("-MASTERDOWN switchman: the transaction"),
        "{heard}"
    );
    assert!(words[2].starts_with("-EXECABORT"), "{heard}");
    world.publish(Phase::Stable, Some("m"));
    assert!(world.asked("m").is_empty());
    world.send(client, &["INCR b"]);
    world.answer("m", "INCR b", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn a_client_that_has_heard_of_the_refused_multi_is_not_in_a_transaction() {
    let mut world = World::before(Setup::default());
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.pass(ms(5000));
    assert!(world.heard(client).starts_with("-MASTERDOWN"));
    world.publish(Phase::Stable, Some("m"));
    world.pass(ms(50));
    world.send(client, &["INCR a", "EXEC"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), ":1|-ERR EXEC without MULTI|");
    world.assert_calm();
}

#[test]
fn a_transaction_goes_on_during_a_switch_until_quiet_was_reported() {
    let mut world = World::new();
    let (early, late) = (begun(&mut world), begun(&mut world));
    let other = world.client();
    world.send(other, &["SET x 1"]);
    world.switching();
    world.send(early, &["EXEC"]);
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(early), "*1|:1|");
    world.answer("m", "SET x 1", "+OK");
    let is_quiet = |kind: &ReportKind| matches!(kind, ReportKind::Quiet { .. });
    assert!(world.reports.iter().any(is_quiet));
    world.send(late, &["EXEC"]);
    assert!(world.asked("m").is_empty());
    world.switch_to("r1", &[]);
    assert_eq!(world.asked("r1"), ["MULTI"]);
    world.answer("r1", "MULTI", "+OK");
    world.answer("r1", "INCR a", "+QUEUED");
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(late), "*1|:1|");
    world.assert_calm();
}

#[test]
fn a_transaction_that_waits_behind_quiet_waits_on_when_a_replica_comes_or_goes() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.switching();
    world.send(client, &["EXEC"]);
    assert!(world.asked("m").is_empty());
    let reports = world.reports.len();
    world.picture.replicas.clear();
    world.publish(world.picture.phase, Some("m"));
    assert!(world.asked("m").is_empty());
    assert_eq!(world.reports.len(), reports);
    world.switch_to("r1", &[]);
    world.answer("r1", "MULTI", "+OK");
    world.answer("r1", "INCR a", "+QUEUED");
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "*1|:1|");
    world.assert_calm();
}

#[test]
fn a_transaction_that_waited_too_long_for_its_exec_is_gone_at_the_server_too() {
    let mut world = World::new();
    let client = begun(&mut world);
    let link = world
        .exchange
        .clients
        .get(client)
        .unwrap()
        .lease
        .as_ref()
        .unwrap()
        .link
        .unwrap();
    world.switching();
    world.send(client, &["EXEC"]);
    world.pass(ms(5000));
    assert!(
        world
            .heard(client)
            .starts_with("-MASTERDOWN switchman: no writable master")
    );
    assert!(!world.wires.contains_key(&link));
    world.switch_to("m", &["r1"]);
    world.send(client, &["INCR b"]);
    world.answer("m", "INCR b", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn a_read_from_before_the_transaction_is_not_queued_when_it_is_sent_again() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET old", "MULTI"]);
    world.answer("m", "MULTI", "+OK");
    world.lose_node("r1");
    world.answer("r1", "GET old", "$1|1");
    assert_eq!(world.heard(client), "$1|1|+OK|");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*0");
    world.assert_calm();
}

#[test]
fn select_inside_a_transaction_holds_from_its_exec_on() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["SELECT 3", "EXEC", "SET k v"]);
    world.answer("m", "SELECT 3", "+QUEUED");
    world.answer("m", "EXEC", "*2|:1|+OK");
    let link = world.asked_on("m", "SET k v");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer("m", "SET k v", "+OK");
    assert_eq!(world.heard(client), "+QUEUED|*2|:1|+OK|+OK|");
    world.assert_calm();
    let client = begun(&mut world);
    world.send(client, &["SELECT 4", "DISCARD", "SET k v"]);
    world.answer("m", "SELECT 4", "+QUEUED");
    world.answer("m", "DISCARD", "+OK");
    let link = world.asked_on("m", "SET k v");
    assert_eq!(world.wires[&link].plan.database, 0);
}

#[test]
fn reset_and_quit_work_between_multi_and_exec() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["RESET", "INCR a"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), "+RESET|:1|");
    let client = begun(&mut world);
    world.send(client, &["QUIT"]);
    assert_eq!(world.heard(client), "+OK|");
    assert!(world.is_closed(client));
    assert!(world.exchange.groups[0].pool.is_empty());
    world.assert_calm();
}

#[test]
fn a_server_that_does_not_end_a_transaction_keeps_its_link_from_others() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["DISCARD"]);
    world.answer(
        "m",
        "DISCARD",
        "-NOPERM this user has no permissions to run 'discard'",
    );
    assert!(world.heard(client).starts_with("-NOPERM"));
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "-EXECABORT Transaction discarded");
    assert!(world.heard(client).starts_with("-EXECABORT"));
    assert!(world.exchange.groups[0].pool.is_empty());
    assert_eq!(world.links("m").len(), 1);
    world.assert_calm();
}

#[test]
fn a_transaction_whose_exec_waited_too_long_is_not_begun_behind_its_end() {
    let mut world = World::with(Setup {
        opens: false,
        replicas: Vec::new(),
        ..Setup::default()
    });
    world.picture.hold = ms(100);
    world.publish(Phase::Stable, Some("m"));
    for _ in 0..8 {
        world.refuse(world.link("m"), unreachable());
        world.pass(ms(1000));
    }
    let lane = world.link("m");
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.refuse(lane, unreachable());
    world.send(client, &["EXEC"]);
    world.pass(ms(100));
    let heard = world.heard(client);
    let words: Vec<_> = heard.split_terminator('|').collect();
    assert!(
        words[0].starts_with("-MASTERDOWN switchman: the transaction"),
        "{heard}"
    );
    assert!(
        words[1].starts_with("-MASTERDOWN switchman: no writable"),
        "{heard}"
    );
    world.opens = true;
    world.pass(ms(1000));
    world.send(client, &["INCR a"]);
    assert_eq!(world.asked("m"), ["INCR a"]);
    world.answer("m", "INCR a", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn what_comes_behind_a_discard_waits_until_the_transaction_is_over() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["DISCARD", "SET a 1", "MULTI"]);
    assert_eq!(world.asked("m"), ["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "MULTI", "+OK");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*0\r\n");
    assert_eq!(world.heard(client), "+OK|+OK|+OK|*0|");
    world.assert_calm();
}

const NO_RIGHT: &str = "-NOPERM this user has no permissions to run the 'discard' command";

#[test]
fn a_discard_that_is_refused_leaves_the_transaction_open() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["DISCARD", "SET a 1", "EXEC"]);
    world.answer("m", "DISCARD", NO_RIGHT);
    world.answer("m", "SET a 1", "+QUEUED");
    world.answer("m", "EXEC", "-EXECABORT Transaction discarded");
    let heard = format!("{NO_RIGHT}|+QUEUED|-EXECABORT Transaction discarded|");
    assert_eq!(world.heard(client), heard);
    world.assert_calm();
}

#[test]
fn a_transaction_of_which_a_discard_was_refused_is_not_begun_anew() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["DISCARD"]);
    world.answer("m", "DISCARD", NO_RIGHT);
    world.lose_node("m");
    world.send(client, &["EXEC", "SET a 1"]);
    assert_eq!(world.asked("m"), ["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    let heard = world.heard(client);
    assert!(
        heard.starts_with(&format!("{NO_RIGHT}|-EXECABORT ")),
        "{heard}"
    );
    assert!(heard.ends_with("|+OK|"), "{heard}");
    world.assert_calm();
}

#[test]
fn a_discard_whose_link_is_lost_has_ended_the_transaction() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["DISCARD", "SET a 1"]);
    world.lose_node("m");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.assert_calm();
}

#[test]
fn an_exec_that_is_refused_says_nothing_of_the_discard_behind_it() {
    let mut world = World::new();
    let client = begun(&mut world);
    world.send(client, &["EXEC", "MULTI", "DISCARD", "SET a 1"]);
    world.answer("m", "EXEC", "-EXECABORT Transaction discarded");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "DISCARD", "+OK");
    world.answer("m", "SET a 1", "+OK");
    let heard = "-EXECABORT Transaction discarded|+OK|+OK|+OK|";
    assert_eq!(world.heard(client), heard);
    world.assert_calm();
}

#[test]
fn a_multi_that_the_server_refuses_begins_nothing() {
    let mut world = World::new();
    let client = world.client();
    let denied = "-NOPERM this user has no permissions to run the 'multi' command";
    world.send(
        client,
        &["MULTI", "SET a 1", "CLIENT REPLY SKIP", "GET b", "GET c"],
    );
    assert_eq!(world.asked("m"), ["MULTI", "SET a 1"]);
    world.answer("m", "MULTI", denied);
    world.answer("m", "SET a 1", "+OK");
    world.answer_all("r1");
    assert_eq!(world.heard(client), format!("{denied}|+OK|+OK|"));
    world.assert_calm();
}

#[test]
fn a_multi_behind_a_refused_one_is_its_own() {
    let mut world = World::new();
    let client = world.client();
    let denied = "-NOPERM this user has no permissions to run the 'multi' command";
    let without = "-ERR EXEC without MULTI";
    world.send(client, &["MULTI", "EXEC", "MULTI", "SET a 1", "EXEC"]);
    world.answer("m", "MULTI", denied);
    world.answer("m", "EXEC", without);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 1", "+QUEUED");
    world.answer("m", "EXEC", "*1|+OK");
    let heard = format!("{denied}|{without}|+OK|+QUEUED|*1|+OK|");
    assert_eq!(world.heard(client), heard);
    world.assert_calm();
}

#[test]
fn a_discard_behind_a_refused_multi_opens_none() {
    let mut world = World::new();
    let client = world.client();
    let denied = "-NOPERM this user has no permissions to run the 'x' command";
    world.send(client, &["MULTI", "DISCARD", "BLPOP a 1"]);
    world.answer("m", "MULTI", denied);
    world.answer("m", "DISCARD", denied);
    world.answer("m", "BLPOP a 1", "*-1");
    assert_eq!(world.heard(client), format!("{denied}|{denied}|*-1|"));
    world.assert_calm();
}
