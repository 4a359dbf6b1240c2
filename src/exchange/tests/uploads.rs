//! Floor 4. Tests: Requests that are passed on while they come.

use super::*;

/// Bytes of a value that is large.
const LARGE: usize = 3 << 20;

/// `SET <key> <large value>` and its words as the node sees them.
fn set(key: &str) -> (Vec<u8>, String) {
    let value = "v".repeat(LARGE);
    let mut bytes = Vec::new();
    encode::request(&mut bytes, &[b"SET", key.as_bytes(), value.as_bytes()]);
    (bytes, format!("SET {key} {value}"))
}

/// Bytes that the exchange keeps of requests, for clients and for nodes.
fn kept(world: &World) -> usize {
    let links = world.exchange.links.iter();
    let unsent: usize = links.map(|(_, link)| link.pipeline.pending_bytes()).sum();
    let clients = world.exchange.clients.iter();
    unsent + clients.map(|(_, client)| client.input.len()).sum::<usize>()
}

/// A client in the middle of its request, the rest of it, and the link.
fn half(world: &mut World) -> (ClientKey, Vec<u8>, LinkKey) {
    let client = world.client();
    let (bytes, _) = set("k");
    let (front, rest) = bytes.split_at(bytes.len() / 2);
    let before = world.links("m");
    world.send_raw(client, front);
    let links = world.links("m");
    let link = links.into_iter().find(|link| !before.contains(link));
    (client, rest.to_vec(), link.expect("a link of its own"))
}

#[test]
fn a_large_value_is_passed_on_while_it_comes_and_nobody_waits_for_it() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    let (bytes, words) = set("k");
    for piece in bytes.chunks(50_000) {
        world.send_raw(client, piece);
        assert_eq!(kept(&world), 0);
        world.send(other, &["SET a 1"]);
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(other), "+OK|");
    }
    assert_eq!(world.asked("m"), [words.as_str()]);
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn what_is_whole_behind_it_follows_on_its_reply() {
    let mut world = World::new();
    let client = world.client();
    let (mut bytes, words) = set("k");
    let (next, next_words) = set("l");
    bytes.extend_from_slice(&pipeline(&["INCR n"]));
    bytes.extend_from_slice(&next);
    for piece in bytes.chunks(100_000) {
        world.send_raw(client, piece);
    }
    assert_eq!(world.asked("m"), [words.as_str()]);
    assert!(kept(&world) < next.len() + 100);
    world.answer("m", &words, "+OK");
    assert_eq!(world.asked("m"), ["INCR n", next_words.as_str()]);
    world.answer("m", "INCR n", ":1");
    world.answer("m", &next_words, "+OK");
    assert_eq!(world.heard(client), "+OK|:1|+OK|");
    world.assert_calm();
}

#[test]
fn it_waits_for_the_replies_to_what_came_before_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["INCR n"]);
    let (bytes, words) = set("k");
    let (front, rest) = bytes.split_at(1_000);
    world.send_raw(client, front);
    assert!(world.exchange.wants_input(client), "who left is noticed");
    assert_eq!(world.asked("m"), ["INCR n"]);
    world.answer("m", "INCR n", ":1");
    world.send_raw(client, rest);
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), ":1|+OK|");
    world.assert_calm();
}

#[test]
fn a_connection_lost_in_the_middle_is_told_and_the_rest_of_it_dropped() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    world.lose(link);
    let lost = "-MASTERDOWN switchman: the connection to the master was lost before all of the \
                request was sent; it was not executed|";
    assert_eq!(world.heard(client), lost);
    for piece in rest.chunks(100_000) {
        world.send_raw(client, piece);
        assert_eq!(kept(&world), 0);
    }
    world.send(client, &["INCR n"]);
    assert_eq!(world.asked("m"), ["INCR n"]);
    world.answer("m", "INCR n", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn a_connection_lost_behind_its_end_leaves_doubt() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    world.send_raw(client, &rest);
    world.lose(link);
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-UNCERTAIN switchman: the connection"),
        "{heard}"
    );
    world.assert_calm();
}

#[test]
fn without_a_master_little_is_read_of_it_until_it_is_refused() {
    let mut world = World::before(Setup::default());
    let client = world.client();
    let (bytes, words) = set("k");
    let mut pieces = bytes.chunks(10_000);
    while world.exchange.wants_input(client) {
        world.send_raw(client, pieces.next().expect("it is not read"));
    }
    assert!(kept(&world) < 64_000);
    world.pass(ms(5_000));
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-MASTERDOWN switchman: no writable master"),
        "{heard}"
    );
    world.publish(Phase::Stable, Some("m"));
    for piece in pieces {
        world.send_raw(client, piece);
        assert_eq!(kept(&world), 0);
    }
    world.send(client, &["INCR n"]);
    assert_eq!(
        world.asked("m"),
        ["INCR n"],
        "and not {} bytes",
        words.len()
    );
    world.answer("m", "INCR n", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn one_that_is_held_goes_to_the_next_master_whole() {
    let mut world = World::before(Setup::default());
    let client = world.client();
    let (bytes, words) = set("k");
    let (front, rest) = bytes.split_at(20_000);
    world.send_raw(client, front);
    world.publish(Phase::Stable, Some("m"));
    world.send_raw(client, rest);
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn a_node_that_takes_nothing_more_stops_its_client_alone() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    let mut pieces = rest.chunks(50_000);
    let mut read = 0;
    while world.exchange.wants_input(client) {
        let piece = pieces.next().expect("it is not read any more");
        read += piece.len();
        world.exchange.client_bytes(client, piece, world.now);
    }
    assert!(read < 400_000, "{read}");
    assert!(kept(&world) < 400_000, "{}", kept(&world));
    world.write_some(link, 200_000);
    world.run();
    assert!(world.exchange.wants_input(client));
    for piece in pieces {
        world.send_raw(client, piece);
    }
    let (_, words) = set("k");
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn nonsense_in_the_rest_of_it_ends_both_connections() {
    let mut world = World::new();
    let (client, mut rest, link) = half(&mut world);
    let end = rest.len() - 2;
    rest[end] = b'+';
    world.send_raw(client, &rest);
    assert_eq!(
        world.heard(client),
        "-ERR Protocol error: expected CRLF after bulk|"
    );
    assert!(world.is_closed(client));
    assert!(
        !world.links("m").contains(&link),
        "half a request is left on it"
    );
    world.assert_calm();
}

#[test]
fn a_node_that_objects_early_is_heard() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    world.say(link, "-ERR Protocol error: invalid bulk length");
    assert_eq!(
        world.heard(client),
        "-ERR Protocol error: invalid bulk length|"
    );
    assert!(!world.links("m").contains(&link));
    world.send_raw(client, &rest);
    world.send(client, &["INCR n"]);
    world.answer("m", "INCR n", ":1");
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
}

#[test]
fn who_leaves_in_the_middle_takes_the_connection_along() {
    let mut world = World::new();
    let (client, _, link) = half(&mut world);
    world.leave(client);
    assert!(!world.links("m").contains(&link));
    world.assert_calm();
}

#[test]
fn who_says_its_last_word_in_the_middle_ends_behind_its_other_replies() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a"]);
    let (whole, _) = set("k");
    world.send_raw(client, &whole[..100]);
    world.answer("r1", "GET a", "$1|v");
    let links = world.links("m").len();
    world.exchange.client_ended(client, world.now);
    world.run();
    assert_eq!(world.heard(client), "$1|v|");
    assert!(world.is_closed(client));
    assert!(world.links("m").len() < links, "half a request is on it");
    world.assert_calm();
}

#[test]
fn in_a_transaction_it_is_queued_when_it_is_whole() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.answer("m", "MULTI", "+OK");
    let (bytes, words) = set("k");
    for piece in bytes.chunks(100_000) {
        world.send_raw(client, piece);
    }
    world.answer("m", &words, "+QUEUED");
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", "*1|+OK");
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|+OK|");
    world.assert_calm();
}

#[test]
fn who_says_no_more_in_the_middle_takes_the_connection_along_too() {
    let mut world = World::new();
    let (client, _, link) = half(&mut world);
    world.exchange.client_ended(client, world.now);
    world.run();
    assert!(world.is_closed(client));
    assert_eq!(world.heard(client), "");
    assert!(!world.links("m").contains(&link));
    world.assert_calm();
}

#[test]
fn who_says_no_more_behind_it_hears_its_reply() {
    let mut world = World::new();
    let (client, rest, _) = half(&mut world);
    world.send_raw(client, &rest);
    world.exchange.client_ended(client, world.now);
    world.run();
    let (_, words) = set("k");
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn a_client_may_take_its_time_for_it() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    let wait = Settings::default().reply_timeout * 2;
    world.pass(wait);
    let (more, last) = rest.split_at(rest.len() - 1);
    for piece in more.chunks(500_000) {
        world.send_raw(client, piece);
        world.pass(wait / 4);
    }
    world.send_raw(client, last);
    assert!(world.links("m").contains(&link), "its node owes nothing");
    let (_, words) = set("k");
    world.answer("m", &words, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn a_node_that_does_not_answer_it_is_lost_in_time() {
    let mut world = World::new();
    let (client, rest, link) = half(&mut world);
    let wait = Settings::default().reply_timeout;
    world.pass(wait * 2);
    world.send_raw(client, &rest);
    world.pass(wait / 2);
    assert!(world.links("m").contains(&link));
    world.pass(wait / 2 + ms(500));
    assert!(!world.links("m").contains(&link));
    assert!(world.heard(client).starts_with("-UNCERTAIN "));
}
