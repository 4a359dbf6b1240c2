//! Floor 4. Tests: A master that keeps writes waiting, and what goes past them.

use super::detour::{detoured, master_reader, other_link, times};
use super::*;

/// A client has paused writes for so many milliseconds, and the master has said so.
fn paused(world: &mut World, length: u32) -> ClientKey {
    let client = world.client();
    let line = format!("CLIENT PAUSE {length} WRITE");
    world.send(client, &[&line]);
    world.answer("m", &line, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    client
}

/// The next reply to a request of a client.
fn answered(world: &mut World, client: ClientKey, (request, reply): (&str, &str)) {
    world.answer("m", request, reply);
    assert_eq!(world.heard(client), format!("{reply}|"));
}

#[test]
fn reads_of_others_go_past_writes_that_are_paused() {
    let mut world = World::new();
    let (writes, reads) = (world.client(), master_reader(&mut world));
    world.send(reads, &["GET a"]);
    let lane = world.asked_on("m", "GET a");
    answered(&mut world, reads, ("GET a", "$1|A"));
    paused(&mut world, 60_000);
    world.send(writes, &["SET a 1"]);
    assert_eq!(world.asked_on("m", "SET a 1"), lane);
    for (request, reply) in [
        ("GET a", "$1|A"),
        ("INFO clients", "$1|i"),
        ("DBSIZE", ":1"),
    ] {
        world.send(reads, &[request]);
        answered(&mut world, reads, (request, reply));
    }
    answered(&mut world, writes, ("SET a 1", "+OK"));
    world.assert_calm();
}

#[test]
fn each_of_a_few_writes_has_a_link_to_itself_and_the_rest_one_together() {
    let mut world = World::new();
    paused(&mut world, 60_000);
    let before = world.links("m").len();
    let clients = [(); 9].map(|()| world.client());
    for client in clients {
        world.send(client, &["PUBLISH c m"]);
    }
    let mut asked: Vec<_> = world
        .links("m")
        .iter()
        .map(|link| world.wires[link].asked.len())
        .filter(|count| *count > 0)
        .collect();
    asked.sort_unstable();
    assert_eq!(asked, [1, 1, 1, 1, 5]);
    assert_eq!(world.links("m").len(), before + 4);
    let reads = master_reader(&mut world);
    world.send(reads, &["GET a"]);
    answered(&mut world, reads, ("GET a", "$1|A"));
    for client in clients {
        world.answer("m", "PUBLISH c m", ":0");
        assert_eq!(world.heard(client), ":0|");
    }
    world.pass(ms(100));
    assert!(world.links("m").len() <= before + 1, "and one for reads");
    world.assert_calm();
}

#[test]
fn a_pause_that_is_none_does_not_open_links_for_ever() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    answered(&mut world, client, ("SET a 1", "+OK"));
    paused(&mut world, 60_000);
    let before = world.opened;
    for _ in 0..100 {
        world.send(client, &["SET a 1"]);
        answered(&mut world, client, ("SET a 1", "+OK"));
    }
    assert_eq!(world.opened - before, 16);
    paused(&mut world, 60_000);
    let before = world.opened;
    for _ in 0..2 {
        world.send(client, &["SET a 1"]);
        answered(&mut world, client, ("SET a 1", "+OK"));
    }
    assert_eq!(world.opened - before, 1, "the next one is another");
}

#[test]
fn what_reads_and_may_replicate_counts_as_a_write() {
    let mut world = World::new();
    paused(&mut world, 60_000);
    let clients = [world.client(), master_reader(&mut world)];
    world.send(clients[0], &["PFCOUNT h"]);
    let link = world.asked_on("m", "PFCOUNT h");
    world.send(clients[1], &["GET a"]);
    assert_ne!(world.asked_on("m", "GET a"), link);
    answered(&mut world, clients[1], ("GET a", "$1|A"));
    world.send(clients[1], &["GET a", "PFCOUNT h"]);
    assert_eq!(times(&world, "m", "PFCOUNT h"), 1, "it waits for its turn");
    answered(&mut world, clients[1], ("GET a", "$1|A"));
    assert_eq!(times(&world, "m", "PFCOUNT h"), 2, "over a link of its own");
    for client in clients {
        answered(&mut world, client, ("PFCOUNT h", ":0"));
    }
    world.assert_calm();
}

#[test]
fn the_order_of_each_client_stays() {
    let mut world = World::new();
    let client = master_reader(&mut world);
    paused(&mut world, 60_000);
    world.send(client, &["GET a", "SET a 1", "GET a", "SET a 2", "GET b"]);
    let mut heard = String::new();
    for request in ["GET a", "SET a 1", "GET a", "SET a 2", "GET b"] {
        assert_eq!(world.asked("m").first().map(String::as_str), Some(request));
        world.answer("m", request, "+x");
        heard.push_str(&world.heard(client));
    }
    assert_eq!(heard, "+x|".repeat(5));
    world.assert_calm();
}

#[test]
fn when_it_is_over_all_goes_as_before() {
    for ends in [true, false] {
        let mut world = World::new();
        let client = paused(&mut world, 2_000);
        if ends {
            world.send(client, &["CLIENT UNPAUSE"]);
            answered(&mut world, client, ("CLIENT UNPAUSE", "+OK"));
        } else {
            world.pass(ms(2_100));
        }
        assert!(!is_known(&world));
        let reads = master_reader(&mut world);
        world.send(client, &["SET a 1"]);
        world.send(reads, &["GET a"]);
        let lane = world.asked_on("m", "SET a 1");
        assert_eq!(world.wires[&lane].asked.len(), 2, "one link for both");
        world.answer_all("m");
        world.assert_calm();
    }
}

#[test]
fn a_longer_pause_is_not_shortened_nor_believed_for_ever() {
    let mut world = World::new();
    paused(&mut world, 5_000);
    paused(&mut world, 10);
    world.pass(ms(4_000));
    assert!(is_known(&world));
    world.pass(ms(2_000));
    assert!(!is_known(&world));
    paused(&mut world, u32::MAX);
    world.pass(Duration::from_secs(601));
    assert!(!is_known(&world));
}

/// Whether a pause of writes is known.
fn is_known(world: &World) -> bool {
    world.exchange.groups[0].settings.pause.is_known()
}

#[test]
fn what_is_no_pause_of_writes_is_none() {
    let mut world = World::new();
    let client = world.client();
    for (line, reply) in [
        ("CLIENT PAUSE 60000 WRITE", "-NOPERM no"),
        (
            "CLIENT PAUSE x WRITE",
            "-ERR timeout is not an integer or out of range",
        ),
        ("CONFIG PAUSE 60000 WRITE", "+OK"),
        ("CLIENT PAUSE 60000", "+OK"),
        ("CLIENT PAUSE 60000 ALL", "+OK"),
    ] {
        world.send(client, &[line]);
        answered(&mut world, client, (line, reply));
        assert!(!is_known(&world), "{line}");
    }
    paused(&mut world, 60_000);
    world.send(client, &["CLIENT UNPAUSE"]);
    answered(&mut world, client, ("CLIENT UNPAUSE", "-NOPERM no"));
    assert!(is_known(&world), "it was not ended");
}

#[test]
fn in_a_transaction_it_is_one_when_that_is_executed() {
    let mut world = World::new();
    let client = world.client();
    for (end, reply, known) in [
        ("DISCARD", "+OK", false),
        ("EXEC", "*2|+OK|+OK", true),
        ("EXEC", "-EXECABORT no", true),
    ] {
        let lines = ["MULTI", "SET a 1", "CLIENT PAUSE 60000 WRITE"];
        world.send(client, &lines);
        for (line, reply) in lines.iter().zip(["+OK", "+QUEUED", "+QUEUED"]) {
            world.answer("m", line, reply);
        }
        let before = is_known(&world);
        world.send(client, &[end]);
        world.answer("m", end, reply);
        assert_eq!(is_known(&world), known || before, "{end}");
        assert!(world.heard(client).ends_with(&format!("{reply}|")));
    }
}

#[test]
fn one_whose_connection_is_lost_before_the_reply_is_none() {
    let mut world = World::new();
    let client = world.client();
    let line = "CLIENT PAUSE 60000 WRITE";
    world.send(client, &[line]);
    world.lose(world.asked_on("m", line));
    assert!(world.heard(client).starts_with("-UNCERTAIN "));
    assert!(!is_known(&world), "if it is one, it is found");
    world.send(client, &["CLIENT UNPAUSE"]);
    answered(&mut world, client, ("CLIENT UNPAUSE", "+OK"));
    paused(&mut world, 60_000);
    assert!(is_known(&world));
}

#[test]
fn another_master_is_not_paused() {
    let mut world = World::new();
    paused(&mut world, 60_000);
    world.switching();
    assert!(is_known(&world));
    world.publish(Phase::Stable, Some("r1"));
    assert!(!is_known(&world));
}

/// A write that is silent, and a read behind it on the same link.
fn silent(world: &mut World) -> (LinkKey, [ClientKey; 2]) {
    let clients = [world.client(), master_reader(world)];
    let lane = world.link("m");
    world.send(clients[0], &["SET a 1"]);
    world.send(clients[1], &["GET a"]);
    assert_eq!(world.wires[&lane].asked.len(), 2);
    (lane, clients)
}

#[test]
fn a_pause_of_others_is_found_and_reads_behind_a_silent_write_are_asked_once_more() {
    let mut world = World::new();
    let (lane, [writes, reads]) = silent(&mut world);
    world.pass(ms(450));
    assert_eq!(world.links("m"), [lane]);
    world.pass(ms(100));
    let apart = world.asked_on("m", "PING");
    assert_eq!(detoured(&mut world), 0, "it may be dead");
    world.answer("m", "PING", "+PONG");
    assert_eq!(detoured(&mut world), 1);
    assert_eq!(world.asked_on("m", "GET a"), apart);
    answered(&mut world, reads, ("GET a", "$1|A"));

    let more = world.client();
    world.send(more, &["SET b 1"]);
    world.pass(ms(5_000));
    world.send(reads, &["GET b"]);
    assert_eq!(world.asked_on("m", "GET b"), apart, "at once, still");
    answered(&mut world, reads, ("GET b", "$1|B"));

    world.answer("m", "SET a 1", "+OK");
    world.say(lane, "$1|1");
    assert_eq!(world.heard(writes), "+OK|");
    assert_eq!(world.heard(reads), "", "its second answer is dropped");
    answered(&mut world, more, ("SET b 1", "+OK"));
    world.pass(ms(1_200));
    assert!(!is_known(&world));
    world.assert_calm();
}

#[test]
fn a_master_that_answers_nobody_or_is_busy_is_not_taken_for_one_that_pauses() {
    for reply in ["", "-BUSY Redis is busy running a script."] {
        let mut world = World::new();
        let (_, [_, reads]) = silent(&mut world);
        world.pass(ms(550));
        if !reply.is_empty() {
            world.answer("m", "PING", reply);
        }
        world.pass(ms(1_000));
        assert_eq!(detoured(&mut world), 0);
        assert!(!is_known(&world));
        world.answer("m", "SET a 1", "+OK");
        answered(&mut world, reads, ("GET a", "$1|A"));
    }
}

#[test]
fn a_read_that_comes_later_than_the_silence_is_answered_too() {
    let mut world = World::new();
    for _ in 0..5 {
        let client = world.client();
        world.send(client, &["SET a 1"]);
        world.pass(ms(600));
    }
    assert_eq!(world.links("m").len(), 5, "no further one is gone past");
    assert!(!is_known(&world));
    let reads = master_reader(&mut world);
    world.send(reads, &["GET a"]);
    assert_eq!(times(&world, "m", "PING"), 0);
    world.pass(ms(50));
    world.answer(
        "m",
        "PING",
        "-NOPERM this user has no permissions to run the 'ping' command",
    );
    answered(&mut world, reads, ("GET a", "$1|A"));
    assert_eq!(detoured(&mut world), 1);
    assert!(is_known(&world));
}

#[test]
fn a_question_that_is_lost_is_asked_again_and_not_too_often() {
    let mut world = World::new();
    let (lane, [_, reads]) = silent(&mut world);
    world.pass(ms(550));
    let apart = other_link(&world, "m", lane);
    world.lose(apart);
    world.pass(ms(300));
    assert_eq!(times(&world, "m", "PING"), 0);
    world.pass(ms(300));
    world.answer(
        "m",
        "PING",
        "-LOADING Redis is loading the dataset in memory",
    );
    assert_eq!(detoured(&mut world), 0, "it would not answer reads either");
    world.pass(ms(600));
    world.answer("m", "PING", "+PONG");
    answered(&mut world, reads, ("GET a", "$1|A"));
    world.pass(ms(2_000));
    assert_eq!(times(&world, "m", "PING"), 0, "nothing waits any more");
}

#[test]
fn a_write_alone_asks_nothing() {
    let mut world = World::new();
    let client = world.client();
    let lane = world.link("m");
    world.send(client, &["SET a 1"]);
    world.pass(ms(2_000));
    assert_eq!(world.links("m"), [lane]);
    answered(&mut world, client, ("SET a 1", "+OK"));
}

#[test]
fn a_link_that_has_spoken_since_is_not_passed_by() {
    let mut world = World::new();
    let (lane, [writes, reads]) = silent(&mut world);
    world.pass(ms(550));
    let apart = other_link(&world, "m", lane);
    answered(&mut world, writes, ("SET a 1", "+OK"));
    world.answer("m", "PING", "+PONG");
    assert_eq!(world.wires[&apart].asked.len(), 0);
    assert_eq!(detoured(&mut world), 0);
    answered(&mut world, reads, ("GET a", "$1|A"));
    world.assert_calm();
}

#[test]
fn what_the_master_does_not_answer_either_way_is_lost_with_its_link_once() {
    let mut world = World::new();
    let (lane, [writes, reads]) = silent(&mut world);
    world.pass(ms(550));
    world.answer("m", "PING", "+PONG");
    world.lose(lane);
    assert!(world.heard(writes).starts_with("-UNCERTAIN "));
    world.answer_all("m");
    assert_eq!(world.heard(reads), "+OK|");
    world.assert_calm();
}
