//! Floor 4. Tests: Nodes that run a script: silent on the link that asked for it, busy on others.

use super::*;
use crate::route::Reads;
use crate::telemetry::ConnectStage;
use crate::types::ListenerRole;

const BUSY: &str = "-BUSY Redis is busy running a script.";

fn busy() -> OpenFailure {
    let line = format!("{BUSY}\r\n").into_bytes();
    OpenFailure::Refused(ConnectStage::Handshake, line.into_boxed_slice())
}

#[test]
fn new_requests_go_past_a_silent_link_and_the_order_of_each_client_stays() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["EVAL endless 0"]);
    world.send(two, &["SET a 1"]);
    let silent = world.link("m");
    world.pass(ms(600));
    assert_eq!(
        world.reports,
        [ReportKind::Silent { node: addr("m") }],
        "once, and nothing is lost"
    );
    let three = world.client();
    world.send(three, &["SET b 1"]);
    world.answer("m", "SET b 1", BUSY);
    assert_eq!(world.heard(three), format!("{BUSY}|"));
    world.send(one, &["SET c 1"]);
    assert_eq!(world.asked("m"), ["EVAL endless 0", "SET a 1"]);

    world.answer("m", "EVAL endless 0", "-ERR killed");
    assert_eq!(world.heard(one), "-ERR killed|");
    world.answer("m", "SET c 1", "+OK");
    assert_eq!(world.heard(one), "+OK|");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    assert!(
        !world.wires.contains_key(&silent),
        "closed after its last reply"
    );
    assert_eq!(world.exchange.counts(0).unwrap().uncertain, 0);
    world.assert_calm();
}

#[test]
fn clients_that_wait_for_room_on_a_silent_link_go_past_it_too() {
    let mut setup = Setup::default();
    setup.settings.link_bytes = 40;
    let mut world = World::with(setup);
    let (one, two) = (world.client(), world.client());
    world.send(one, &["EVAL endless-endless-endless 0"]);
    world.send(two, &["SET a 1"]);
    assert_eq!(world.asked("m").len(), 1);
    world.pass(ms(600));
    world.answer("m", "SET a 1", BUSY);
    assert_eq!(world.heard(two), format!("{BUSY}|"));
}

#[test]
fn a_master_that_is_silent_on_every_link_gets_no_new_ones_for_ever() {
    let mut world = World::new();
    let clients = [(); 20].map(|()| world.client());
    for client in clients {
        world.send(client, &["PING"]);
    }
    for client in clients {
        world.send(client, &["INCR a"]);
        world.pass(ms(600));
    }
    assert_eq!(world.links("m").len(), 5);
    assert_eq!(world.asked("m").len(), 20);
    world.answer_all("m");
    assert_eq!(world.links("m").len(), 1);
    world.assert_calm();
}

#[test]
fn what_a_busy_master_does_not_even_select_is_answered_with_its_words() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    world.send(client, &["SELECT 3"]);
    assert_eq!(world.heard(client), "+OK|");
    world.lose_node("m");
    world.opens = false;
    world.send(client, &["SET a 1", "MULTI", "SET a 2", "EXEC", "SELECT 4"]);
    while let Some(link) = world.opening() {
        world.refuse(link, busy());
    }
    let heard = world.heard(client);
    let aborted = "-EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(
        heard,
        format!("{BUSY}|+OK|{BUSY}|{aborted}|{BUSY}|"),
        "as the node itself would"
    );
    world.opens = true;
    world.send(other, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(other), "+OK|", "nobody else is held");
    world.send(client, &["SET a 3"]);
    world.answer("m", "SET a 3", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn a_script_is_ended_over_a_link_that_needs_no_database() {
    for (line, database) in [
        ("SCRIPT KILL", 0),
        ("function kill", 0),
        ("FUNCTION STATS", 0),
        ("CONFIG RESETSTAT", 3),
    ] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["SELECT 3"]);
        assert_eq!(world.heard(client), "+OK|");
        world.opens = false;
        world.send(client, &[line]);
        let (link, plan) = world.only_opening();
        assert_eq!(plan.database, database, "{line}");
        world.open(link);
        world.answer("m", line, "+OK");
        assert_eq!(world.heard(client), "+OK|");
        world.opens = true;
        world.send(client, &["MULTI"]);
        let used = world.asked_on("m", "MULTI");
        assert_eq!(world.wires[&used].plan.database, 3, "after {line}");
    }
}

#[test]
fn a_read_that_a_busy_replica_refuses_is_asked_of_the_master() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a"]);
    world.answer("r1", "GET a", BUSY);
    world.answer("m", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.send(client, &["SET a 2"]);
    world.answer("m", "SET a 2", BUSY);
    assert_eq!(
        world.heard(client),
        format!("{BUSY}|"),
        "of the master it is heard"
    );
    world.assert_calm();
}

#[test]
fn links_that_slow_readers_throttle_do_not_keep_others_from_going_past_a_silent_one() {
    let mut setup = Setup::default();
    setup.settings.output_high = 10_000;
    let mut world = World::with(setup);
    for line in ["EVAL a 0", "EVAL b 0", "EVAL c 0", "EVAL d 0"] {
        let slow = world.client();
        world.deaf.push(slow);
        world.send(slow, &[line, "SET more 1"]);
        world.answer("m", line, &"x".repeat(20_000).replacen('x', "+", 1));
    }
    let (one, two) = (world.client(), world.client());
    world.send(one, &["EVAL endless 0"]);
    world.pass(ms(600));
    world.send(two, &["SET a 1"]);
    world.answer("m", "SET a 1", BUSY);
    assert_eq!(world.heard(two), format!("{BUSY}|"));
}

/// A script that runs, asked for by a client in another database than 0.
fn running(world: &mut World) -> ClientKey {
    let client = world.client();
    world.send(client, &["SELECT 3", "EVAL endless 0"]);
    assert_eq!(world.heard(client), "+OK|");
    assert_eq!(world.asked("m"), ["EVAL endless 0"]);
    client
}

/// The master says so over its idle link.
fn known_to_be_busy(world: &mut World) {
    world.pass(ms(60));
    world.answer("m", "PING", BUSY);
}

/// The PING of a new client is the master's to answer.
fn assert_ping_hears_it(world: &mut World) {
    let client = world.client();
    world.send(client, &["PING"]);
    world.answer("m", "PING", BUSY);
    assert_eq!(world.heard(client), format!("{BUSY}|"));
}

#[test]
fn a_ping_hears_of_a_script_that_runs_for_too_long() {
    let mut world = World::new();
    let (runner, client) = (running(&mut world), world.client());
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "+PONG|", "nobody knows");
    known_to_be_busy(&mut world);
    world.send(client, &["SELECT 3", "PING", "ECHO x", "SET a 1"]);
    world.answer("m", "PING", BUSY);
    world.answer("m", "ECHO x", BUSY);
    assert_eq!(world.heard(client), format!("+OK|{BUSY}|{BUSY}|"));
    // Later it is asked again whether it is still.
    for _ in 0..20 {
        known_to_be_busy(&mut world);
    }
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "", "behind its SET");
    world.answer("m", "EVAL endless 0", "-ERR killed");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|+PONG|");
    assert_eq!(world.heard(runner), "-ERR killed|");
    world.pass(ms(400));
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "+PONG|");
    world.assert_calm();
}

#[test]
fn a_silent_master_keeps_nobody_waiting_for_a_ping() {
    let mut world = World::new();
    let (_, client) = (running(&mut world), world.client());
    for _ in 0..6 {
        world.pass(ms(60));
        assert_eq!(world.asked("m"), ["EVAL endless 0", "PING"], "asked once");
        world.send(client, &["PING"]);
        assert_eq!(world.heard(client), "+PONG|");
    }
}

#[test]
fn no_connection_is_opened_to_ask_whether_a_master_is_busy() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["EVAL endless 0"]);
    world.pass(ms(60));
    assert_eq!(world.asked("m"), ["EVAL endless 0"]);
    assert_eq!(world.links("m").len(), 1);
    // Whoever hears of it has told all.
    let other = world.client();
    world.send(other, &["MULTI"]);
    world.answer("m", "MULTI", BUSY);
    assert_eq!(world.heard(other), format!("{BUSY}|"));
    assert_ping_hears_it(&mut world);
}

#[test]
fn only_a_script_that_runs_makes_a_master_busy() {
    let mut world = World::new();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["SELECT 3", "SET slow 1"]);
    world.pass(ms(60));
    assert_eq!(world.asked("m"), ["SET slow 1"]);
    world.answer(
        "m",
        "SET slow 1",
        "-BUSYGROUP Consumer Group name already exists",
    );
    world.send(two, &["PING"]);
    assert_eq!(world.heard(two), "+PONG|");
    assert_eq!(
        world.heard(one),
        "+OK|-BUSYGROUP Consumer Group name already exists|"
    );
    world.assert_calm();
}

#[test]
fn who_never_asks_the_master_hears_nothing_of_its_scripts() {
    let mut world = World::new();
    let reader = world.client_by(Access::new(ListenerRole::Replica, Reads::Replicas));
    let subscriber = world.client();
    world.send(subscriber, &["SUBSCRIBE c"]);
    world.answer("m", "SUBSCRIBE c", ">3|$9|subscribe|$1|c|:1");
    world.heard(subscriber);
    running(&mut world);
    known_to_be_busy(&mut world);
    world.send(reader, &["PING"]);
    assert_eq!(world.heard(reader), "+PONG|");
    world.send(subscriber, &["PING"]);
    assert_eq!(world.heard(subscriber), "*2|$4|pong|$0||");
}

#[test]
fn a_server_with_patience_is_asked_until_it_has_lost_it() {
    let mut world = World::new();
    let _runner = running(&mut world);
    let idle = world.links("m").len();
    for _ in 0..100 {
        world.pass(ms(50));
    }
    let silent = ReportKind::Silent { node: addr("m") };
    assert_eq!(world.reports, [silent], "of the script alone");
    assert_eq!(world.links("m").len(), idle);
    for _ in 0..20 {
        known_to_be_busy(&mut world);
    }
    assert_ping_hears_it(&mut world);
}

#[test]
fn where_no_connection_is_free_a_busy_master_gets_one() {
    let mut world = World::new();
    let (runner, other) = (world.client(), world.client());
    world.send(runner, &["EVAL endless 0"]);
    world.pass(ms(60));
    world.send(other, &["MULTI"]);
    world.answer("m", "MULTI", BUSY);
    world.leave(other);
    for _ in 0..2 {
        world.pass(ms(60));
    }
    for _ in 0..20 {
        known_to_be_busy(&mut world);
    }
    assert_ping_hears_it(&mut world);
}

#[test]
fn what_the_master_was_asked_of_a_users_rights_is_used_up() {
    let mut world = World::new();
    let user = world.client();
    world.send(user, &["AUTH app secret", "SELECT 3"]);
    world.answer_all("m");
    world.heard(user);
    world.send(user, &["PING", "CLIENT SETNAME x"]);
    // It says so to the question whether the user may PING.
    let question = world.asked("m").pop().unwrap();
    world.answer("m", &question, BUSY);
    assert_eq!(world.heard(user), "+PONG|");
    assert!(!world.asked("m").is_empty(), "may it set a name?");
}

#[test]
fn a_ping_behind_what_waits_is_answered_here() {
    let mut world = World::new();
    running(&mut world);
    known_to_be_busy(&mut world);
    let client = world.client();
    world.send(client, &["BLPOP q 0", "PING"]);
    world.answer("m", "BLPOP q 0", BUSY);
    assert_eq!(world.heard(client), format!("{BUSY}|+PONG|"));
    world.leave(client);
}

#[test]
fn a_transaction_for_which_a_busy_master_lets_nobody_in_is_begun_and_aborted() {
    let aborted = "-EXECABORT Transaction discarded because of previous errors.|";
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.opens = false;
    world.send(client, &["MULTI"]);
    let opening = world.opening().unwrap();
    world.refuse(opening, busy());
    assert_eq!(world.heard(client), "+OK|");
    world.send(client, &["INCR a"]);
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-MASTERDOWN switchman: the transaction"),
        "{heard}"
    );
    world.send(client, &["EXEC"]);
    assert_eq!(world.heard(client), aborted);
    world.send(client, &["MULTI", "DISCARD"]);
    let opening = world.opening().unwrap();
    world.refuse(opening, busy());
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.send(client, &["WATCH a", "MULTI", "INCR a", "EXEC", "GET a"]);
    let opening = world.opening().unwrap();
    world.refuse(opening, busy());
    let heard = world.heard(client);
    assert_eq!(heard, format!("{BUSY}|+OK|{BUSY}|{aborted}"));
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.assert_calm();
}
