//! Floor 4. Tests: Transactions whose link is lost before EXEC was sent are begun anew.

use super::*;

/// A client with an open transaction in which the master has queued these.
fn begun(world: &mut World, lines: &[&str]) -> ClientKey {
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.answer("m", "MULTI", "+OK");
    for line in lines {
        world.send(client, &[line]);
        world.answer("m", line, "+QUEUED");
    }
    assert_eq!(
        world.heard(client),
        format!("+OK|{}", "+QUEUED|".repeat(lines.len()))
    );
    client
}

/// The node is asked for MULTI alone, and queues these after it.
fn renews(world: &mut World, host: &str, lines: &[&str]) {
    assert_eq!(world.asked(host), ["MULTI"]);
    world.answer(host, "MULTI", "+OK");
    for line in lines {
        world.answer(host, line, "+QUEUED");
    }
}

#[test]
fn a_transaction_goes_on_at_the_next_master_without_a_word() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a", "SET b c"]);
    world.lose_node("m");
    world.switch_to("r1", &[]);
    assert!(world.asked("r1").is_empty(), "not before it is needed");
    world.send(client, &["INCR d", "EXEC"]);
    renews(&mut world, "r1", &["INCR a", "SET b c"]);
    assert_eq!(world.heard(client), "");
    world.answer("r1", "INCR d", "+QUEUED");
    world.answer("r1", "EXEC", "*3|:1|+OK|:1");
    assert_eq!(world.heard(client), "+QUEUED|*3|:1|+OK|:1|");
    world.send(client, &["INCR e"]);
    world.answer("r1", "INCR e", ":1");
    assert_eq!(world.heard(client), ":1|");
    assert_eq!(world.exchange.counts(0).unwrap().uncertain, 0);
    world.assert_calm();
}

#[test]
fn what_is_in_flight_comes_behind_what_was_queued() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    world.send(client, &["INCR b", "INCR c"]);
    world.lose_node("m");
    renews(&mut world, "m", &["INCR a"]);
    world.answer("m", "INCR b", "+QUEUED");
    world.answer("m", "INCR c", "+QUEUED");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*3|:1|:1|:1");
    assert_eq!(world.heard(client), "+QUEUED|+QUEUED|*3|:1|:1|:1|");
    world.assert_calm();
}

#[test]
fn an_exec_of_which_the_last_byte_was_not_written_is_executed_elsewhere() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    let link = *world.links("m").last().unwrap();
    let exec = encoded("EXEC");
    world.exchange.client_bytes(client, &exec, world.now);
    world.write_some(link, exec.len() - 1);
    world.lose(link);
    renews(&mut world, "m", &["INCR a"]);
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "*1|:1|");
    world.assert_calm();
}

#[test]
fn transactions_that_were_sent_without_their_exec_are_placed_anew_as_a_whole() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    world.open_all();
    let client = world.client();
    world.send(client, &["WATCH w", "UNWATCH"]);
    world.open_all();
    world.answer("m", "WATCH w", "+OK");
    let lines = [
        "MULTI", "INCR a", "EXEC", "MULTI", "INCR b", "DISCARD", "MULTI", "INCR c",
    ];
    world
        .exchange
        .client_bytes(client, &pipeline(&lines), world.now);
    let link = world.asked_on("m", "UNWATCH");
    world.write_some(link, pipeline(&lines[..3]).len() - 1);
    world.lose(link);
    world.open_all();
    // What comes behind DISCARD waits for the reply to it.
    assert_eq!(world.asked("m"), lines[..6]);
    for line in lines {
        let reply = match line {
            "MULTI" | "DISCARD" => "+OK",
            "EXEC" => "*1|:1",
            _ => "+QUEUED",
        };
        world.answer("m", line, reply);
    }
    let want = "+OK|+OK|+OK|+QUEUED|*1|:1|+OK|+QUEUED|+OK|+OK|+QUEUED|";
    assert_eq!(world.heard(client), want);
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*1|:1");
    world.assert_calm();
}

#[test]
fn a_transaction_behind_one_with_a_sent_exec_goes_on() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    world.send(client, &["EXEC", "MULTI", "INCR b"]);
    world.lose_node("m");
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
    assert_eq!(world.asked("m"), ["MULTI", "INCR b"]);
    world.send(client, &["EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR b", "+QUEUED");
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn a_transaction_waits_for_a_master_as_long_as_any_command() {
    let mut world = World::new();
    let (late, early) = (
        begun(&mut world, &["INCR a"]),
        begun(&mut world, &["INCR b"]),
    );
    world.lose_node("m");
    world.switching();
    world.send(late, &["INCR x", "EXEC"]);
    world.pass(ms(4000));
    world.send(early, &["EXEC"]);
    world.pass(ms(1000));
    let heard = world.heard(late);
    assert!(
        heard.starts_with("-MASTERDOWN switchman: no writable"),
        "{heard}"
    );
    assert!(heard.contains("|-EXECABORT"), "{heard}");
    assert_eq!(world.heard(early), "");
    world.switch_to("r1", &[]);
    renews(&mut world, "r1", &["INCR b"]);
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(early), "*1|:1|");
    world.assert_calm();
}

#[test]
fn a_master_that_will_not_begin_it_anew_executes_nothing_of_it() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    world.lose_node("m");
    world.send(client, &["INCR b", "EXEC", "INCR c"]);
    world.answer("m", "MULTI", "-NOPERM this user has no permissions");
    let heard = world.heard(client);
    let words: Vec<_> = heard.split_terminator('|').collect();
    assert!(
        words[0].starts_with("-MASTERDOWN switchman: the transaction"),
        "{heard}"
    );
    assert!(words[1].starts_with("-EXECABORT"), "{heard}");
    assert_eq!(world.asked("m"), ["INCR c"]);
    world.answer("m", "INCR c", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
    assert!(world.exchange.groups[0].pool.is_empty());
}

#[test]
fn a_link_lost_while_a_transaction_is_begun_anew_has_it_begun_once_more() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    world.lose_node("m");
    world.send(client, &["EXEC"]);
    assert_eq!(world.asked("m"), ["MULTI"]);
    world.opens = false;
    world.lose_node("m");
    world.refuse(world.opening().unwrap(), unreachable());
    world.opens = true;
    world.pass(ms(100));
    world.open_all();
    world.answer("m", "MULTI", "+OK");
    world.switch_to("r1", &[]);
    assert!(
        world.heard(client).starts_with("-UNCERTAIN"),
        "EXEC was sent behind INCR"
    );
    assert!(world.asked("r1").is_empty());
    world.assert_calm();
}

#[test]
fn a_transaction_that_every_connection_breaks_under_ends() {
    let mut world = World::new();
    let client = begun(&mut world, &["INCR a"]);
    world.send(client, &["INCR b"]);
    for _ in 0..8 {
        world.lose_node("m");
        assert_eq!(world.asked("m"), ["MULTI"]);
    }
    world.lose_node("m");
    assert!(world.asked("m").is_empty());
    assert!(
        world
            .heard(client)
            .starts_with("-MASTERDOWN switchman: the transaction")
    );
    world.send(client, &["EXEC"]);
    assert!(world.heard(client).starts_with("-EXECABORT"));
    world.assert_calm();
}

#[test]
fn what_was_refused_or_watched_is_not_begun_anew() {
    let mut world = World::new();
    let refused = world.client();
    world.send(refused, &["MULTI", "NONSENSE"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "NONSENSE", "-ERR unknown command");
    let watching = world.client();
    world.send(watching, &["WATCH w", "MULTI"]);
    world.answer("m", "WATCH w", "+OK");
    world.answer("m", "MULTI", "+OK");
    for (client, end) in [(refused, "-EXECABORT"), (watching, "*-1|")] {
        world.heard(client);
        world.lose_node("m");
        world.send(client, &["EXEC"]);
        assert!(world.heard(client).starts_with(end), "{end}");
    }
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn a_subscriber_hears_on_while_its_transaction_is_begun_anew() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "SUBSCRIBE c", "MULTI", "INCR a"]);
    let confirmation = ">3|$9|subscribe|$1|c|:1|";
    world.answer("m", "SUBSCRIBE c", confirmation);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.heard(client);
    world.switching();
    world.send(client, &["EXEC"]);
    world.switch_to("r1", &[]);
    assert_eq!(world.asked("r1"), ["MULTI", "SUBSCRIBE c"]);
    world.answer("r1", "SUBSCRIBE c", confirmation);
    renews(&mut world, "r1", &["INCR a"]);
    world.answer("r1", "EXEC", "*1|:1");
    assert_eq!(world.heard(client), "*1|:1|");
}

#[test]
fn a_database_selected_before_the_loss_holds_from_exec_on() {
    let mut world = World::new();
    let client = begun(&mut world, &["SELECT 3", "INCR a"]);
    world.lose_node("m");
    world.send(client, &["EXEC", "SET k v"]);
    renews(&mut world, "m", &["SELECT 3", "INCR a"]);
    world.answer("m", "EXEC", "*2|+OK|:1");
    let link = world.asked_on("m", "SET k v");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer("m", "SET k v", "+OK");
    assert_eq!(world.heard(client), "*2|+OK|:1|+OK|");
    world.assert_calm();
}

#[test]
fn a_master_that_says_nothing_to_it_keeps_nobody_waiting_for_longer_than_a_hold() {
    for opens in [true, false] {
        let mut world = World::new();
        let client = begun(&mut world, &["INCR a"]);
        world.lose_node("m");
        world.opens = opens;
        world.send(client, &["INCR b"]);
        assert_eq!(world.asked("m").len(), usize::from(opens));
        world.pass(ms(4_900));
        assert_eq!(world.heard(client), "");
        world.pass(ms(200));
        let heard = world.heard(client);
        assert!(
            heard.starts_with("-MASTERDOWN switchman: the transaction's"),
            "{heard}"
        );
        world.opens = true;
        world.send(client, &["EXEC", "INCR c"]);
        world.run();
        let asked = world.asked("m");
        assert_eq!(asked, ["INCR c"], "nothing of it is executed");
        world.answer("m", "INCR c", ":1");
        let heard = world.heard(client);
        assert!(heard.starts_with("-EXECABORT "), "{heard}");
        assert!(heard.ends_with("|:1|"), "{heard}");
        world.assert_calm();
    }
}
