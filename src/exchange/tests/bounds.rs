//! Floor 4. Tests: What happens at each bound.

use super::pubsub::{NOBODYS, confirmed, subscribe};
use super::*;

fn small(change: impl Fn(&mut Settings)) -> World {
    let mut setup = Setup::default();
    change(&mut setup.settings);
    World::with(setup)
}

/// A read that is not asked anew elsewhere, as its client has written since.
const STAYS: &[&str] = &["GET small", "SET a 1"];

/// Before the question nothing is told that would leave no room for it.
#[test]
fn who_leaves_more_than_fits_on_a_link_asks_first() {
    let mut world = small(|settings| settings.link_bytes = 2_000);
    let client = world.client();
    let names = ["a", "b"].map(|name| name.repeat(450));
    for name in &names {
        subscribe(&mut world, client, name);
    }
    world.heard(client);
    world.send(client, &["UNSUBSCRIBE"]);
    let nobodys = format!("UNSUBSCRIBE {NOBODYS}");
    assert_eq!(world.asked("m"), [&*nobodys]);
    let answer = confirmed('>', "unsubscribe", NOBODYS, 7);
    world.answer("m", &nobodys, &answer);
    for name in &names {
        let words = format!("UNSUBSCRIBE {name}");
        let answer = confirmed('>', "unsubscribe", name, 0);
        world.answer("m", &words, &answer);
    }
    world.answer("m", "PING", "+PONG");
    let heard = world.heard(client);
    assert_eq!(heard.matches("unsubscribe").count(), 2, "{heard}");
    world.assert_calm();
}

#[test]
fn a_client_with_too_many_requests_in_flight_is_read_no_further_and_goes_on() {
    let mut world = small(|settings| {
        settings.pipeline_max = 8;
        settings.read_ahead = 100;
    });
    let client = world.client();
    world.send(client, &["SET k v"; 20]);
    assert_eq!(world.asked("m").len(), 8);
    assert!(!world.exchange.wants_input(client));
    for _ in 0..4 {
        world.answer("m", "SET k v", "+OK");
    }
    assert_eq!(world.asked("m").len(), 8);
    world.answer_all("m");
    assert_eq!(world.heard(client), "+OK|".repeat(20));
    assert!(world.exchange.wants_input(client));
    world.assert_calm();
}

#[test]
fn a_client_with_too_much_output_is_read_no_further_and_goes_on() {
    let mut world = small(|settings| settings.output_high = 10_000);
    let client = world.client();
    world.deaf.push(client);
    let line = format!("ECHO {}", "x".repeat(3_000));
    world.send(client, &[line.as_str(); 10]);
    assert!(world.exchange.output(client).len() < 13_000);
    world.deaf.clear();
    let mut bytes = 0;
    while !world.exchange.output(client).is_empty() {
        let count = world.exchange.output(client).len();
        world.exchange.took(client, count, world.now);
        bytes += count;
        world.run();
        bytes += world.heard(client).replace('|', "\r\n").len();
    }
    assert_eq!(bytes, 10 * (3_000 + "$3000\r\n\r\n".len()));
}

#[test]
fn a_client_that_does_not_read_throttles_its_link_and_the_others_take_another() {
    let mut world = small(|settings| settings.output_high = 10_000);
    let (slow, other) = (world.client(), world.client());
    world.deaf.push(slow);
    world.send(slow, &["GET big", "GET big"]);
    let link = world.link("r1");
    world.answer("r1", "GET big", &"x".repeat(20_000).replacen('x', "+", 1));
    assert!(world.exchange.is_throttled(link));
    world.send(other, &["GET small"]);
    assert_ne!(world.asked_on("r1", "GET small"), link);
    world.answer("r1", "GET small", "+OK");
    assert_eq!(world.heard(other), "+OK|");
    world.deaf.clear();
    let count = world.exchange.output(slow).len();
    world.exchange.took(slow, count, world.now);
    world.run();
    assert!(!world.exchange.is_throttled(link));
    world.answer("r1", "GET big", "+OK");
    assert!(!world.wires.contains_key(&link), "it has done its duty");
    world.assert_calm();
}

#[test]
fn a_client_that_never_reads_is_closed_in_the_end() {
    let mut world = small(|settings| settings.output_high = 10_000);
    let (slow, behind) = (world.client(), world.client());
    world.deaf.push(slow);
    world.send(slow, &["GET big", "GET big"]);
    world.send(behind, STAYS);
    world.answer("m", "SET a 1", "+OK");
    let link = world.link("r1");
    world.answer("r1", "GET big", &"x".repeat(20_000).replacen('x', "+", 1));
    world.pass(Duration::from_secs(29));
    assert!(!world.is_closed(slow));
    world.pass(ms(1_200));
    assert!(world.is_closed(slow));
    assert!(!world.exchange.is_throttled(link));
    world.answer("r1", "GET big", "+OK");
    world.answer("r1", "GET small", "+OK");
    assert_eq!(world.heard(behind), "+OK|+OK|");
    world.assert_calm();
}

#[test]
fn a_client_that_never_takes_what_is_said_already_is_closed_too() {
    let mut world = small(|settings| settings.output_high = 10_000);
    let (local, whole, steady) = (world.client(), world.client(), world.client());
    world.deaf.extend([local, whole, steady]);
    let line = format!("ECHO {}", "x".repeat(3_000));
    world.send(local, &[line.as_str(); 10]);
    for client in [whole, steady] {
        world.send(client, &["GET big"]);
        world.answer("r1", "GET big", &"x".repeat(40_000).replacen('x', "+", 1));
    }
    for _ in 0..29 {
        world.pass(ms(1_000));
        world.exchange.took(steady, 500, world.now);
        world.run();
    }
    assert!(!world.is_closed(local) && !world.is_closed(whole));
    world.pass(ms(1_200));
    assert!(world.is_closed(local) && world.is_closed(whole));
    assert!(!world.is_closed(steady));
    assert_eq!(rejected(&mut world, "write_timeout"), 2);
}

/// A client that takes a little of a large reply now and then, and whether another one's request is
/// behind it on the same link.
fn steady_reader(behind: bool) -> (World, ClientKey) {
    let mut world = small(|settings| settings.output_high = 10_000);
    let (slow, other) = (world.client(), world.client());
    world.deaf.push(slow);
    world.send(slow, &["GET big"]);
    if behind {
        world.send(other, STAYS);
    }
    let link = world.link("r1");
    world.wires.get_mut(&link).unwrap().asked.pop_front();
    world.say_raw(link, b"$100000000\r\n").unwrap();
    for _ in 0..35 {
        while !world.exchange.is_throttled(link) && !world.is_closed(slow) {
            world.say_raw(link, &vec![b'x'; 20_000]).unwrap();
        }
        if world.is_closed(slow) {
            break;
        }
        world.pass(ms(1_000));
        world.exchange.took(slow, 16_000, world.now);
        world.run();
    }
    (world, slow)
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_closed_only_if_others_wait_behind_it() {
    let (world, slow) = steady_reader(false);
    assert!(!world.is_closed(slow));
    let (mut world, slow) = steady_reader(true);
    assert!(world.is_closed(slow));
    assert_eq!(rejected(&mut world, "write_timeout"), 1);
}

#[test]
fn a_large_reply_is_passed_on_in_pieces() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET big"]);
    let link = world.link("r1");
    world.wires.get_mut(&link).unwrap().asked.clear();
    let body = "x".repeat(1_000_000);
    let reply = format!("${}\r\n{body}\r\n", body.len());
    let mut most = 0;
    let mut heard = 0;
    for piece in reply.as_bytes().chunks(10_000) {
        world.say_raw(link, piece).unwrap();
        heard += world.heard(client).replace('|', "\r\n").len();
        most = most.max(world.exchange.links.get(link).unwrap().input.len());
    }
    assert_eq!(heard, reply.len());
    assert!(most <= 50_000, "{most}");
    world.assert_calm();
}

#[test]
fn a_link_with_too_much_in_flight_lets_its_clients_wait() {
    let mut world = small(|settings| settings.link_bytes = 900);
    let clients: Vec<_> = (0..10).map(|_| world.client()).collect();
    let line = format!("SET k {}", "x".repeat(300));
    for client in &clients {
        world.send(*client, &[&line]);
    }
    assert_eq!(world.asked("m").len(), 3);
    world.answer_all("m");
    for client in clients {
        assert_eq!(world.heard(client), "+OK|");
    }
    world.assert_calm();
}

#[test]
fn a_client_that_waits_for_a_link_that_is_lost_goes_on() {
    let mut world = small(|settings| settings.link_bytes = 100);
    let (one, two) = (world.client(), world.client());
    let line = format!("SET k {}", "x".repeat(300));
    world.send(one, &[&line]);
    world.send(two, &["SET a 1"]);
    world.lose_node("m");
    assert!(world.heard(one).starts_with("-UNCERTAIN"));
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    world.assert_calm();
}

#[test]
fn a_request_that_is_too_large_closes_its_client_with_a_reason() {
    let mut world = small(|settings| settings.request_max = 10_000);
    let (announces, sends) = (world.client(), world.client());
    world.send_raw(announces, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$20000\r\n");
    assert!(world.is_closed(announces));
    let line = format!("SET k {}", "x".repeat(11_000));
    world.send(sends, &[&line]);
    assert!(world.is_closed(sends));
    assert!(world.asked("m").is_empty());
    assert_eq!(rejected(&mut world, "too_large"), 2);
}

#[test]
fn a_protocol_error_is_answered_behind_what_came_before_and_ends_the_client() {
    let mut world = World::new();
    let client = world.client();
    let mut bytes = encoded("SET a 1");
    bytes.extend_from_slice(b"*abc\r\nPING\r\n");
    world.send_raw(client, &bytes);
    assert_eq!(world.heard(client), "");
    world.answer("m", "SET a 1", "+OK");
    let error = "-ERR Protocol error: invalid multibulk length|";
    assert_eq!(world.heard(client), format!("+OK|{error}"));
    assert!(world.is_closed(client));
    assert_eq!(rejected(&mut world, "protocol"), 1);
}

#[test]
fn a_browser_is_shown_the_door() {
    let mut world = World::new();
    for line in ["POST / HTTP/1.1", "Host: localhost"] {
        let client = world.client();
        world.send_raw(client, format!("{line}\r\nSET a 1\r\n").as_bytes());
        assert!(world.is_closed(client));
        assert_eq!(world.heard(client), "");
    }
    assert!(world.asked("m").is_empty());
}

#[test]
fn leased_links_have_a_bound_and_idle_ones_make_room() {
    let mut world = small(|settings| settings.leases_max = 3);
    let clients: Vec<_> = (0..4).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["BLPOP q 0"]);
    }
    let line = "-ERR switchman: all 3 connections for transactions and blocking commands \
        are in use (upstream.max-leased)|";
    assert_eq!(world.heard(clients[3]), line);
    world.answer("m", "BLPOP q 0", "*-1");
    world.send(clients[3], &["SELECT 5", "BLPOP q 0"]);
    assert_eq!(world.asked("m").len(), 3);
    assert_eq!(world.heard(clients[3]), "+OK|");
}

#[test]
fn a_multi_without_a_link_takes_what_came_with_it_along() {
    let mut world = small(|settings| settings.leases_max = 0);
    let client = world.client();
    world.send(client, &["MULTI", "INCR a", "EXEC", "INCR b"]);
    assert_eq!(world.asked("m"), ["INCR b"]);
    world.answer("m", "INCR b", ":1");
    let heard = world.heard(client);
    let words: Vec<_> = heard.split_terminator('|').collect();
    assert!(words[0].starts_with("-ERR switchman: all 0"), "{heard}");
    assert!(words[1].starts_with("-MASTERDOWN") && words[2].starts_with("-EXECABORT"));
    assert_eq!(words[3], ":1");
}

#[test]
fn lanes_to_one_node_have_a_bound() {
    let mut world = small(|settings| settings.lanes_max = 2);
    let client = world.client();
    world.send(client, &["SELECT 1", "SELECT 2", "PING"]);
    let line = "-ERR switchman: more than 2 combinations of user, database and protocol are in \
        use on one node|";
    assert_eq!(world.heard(client), format!("+OK|{line}+PONG|"));
}

#[test]
fn links_that_nobody_uses_are_closed_but_for_the_first_ones() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SELECT 1", "SET a 1", "BLPOP q 0"]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.wires.len(), 4);
    world.pass(Duration::from_secs(61));
    assert_eq!(world.wires.len(), 2);
    world.send(client, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    world.assert_calm();
}

#[test]
fn ticks_are_asked_for_only_while_something_waits() {
    let mut world = World::new();
    let (tick, idle) = (Settings::default().tick, Settings::default().idle);
    let due = |world: &World| world.exchange.poll_timeout(world.now).unwrap();
    assert_eq!(due(&world), world.now + idle);
    let client = world.client();
    world.send(client, &["SET a 1"]);
    assert_eq!(due(&world), world.now + tick);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(due(&world), world.now + idle);
    world.switching();
    world.send(client, &["SET a 1"]);
    assert_eq!(due(&world), world.now + tick);
    world.leave(client);
    world.pass(ms(50));
    assert_eq!(due(&world), world.now + idle);
    let nothing = Exchange::new(Settings::default(), vec![Setup::default().group], 1);
    assert_eq!(nothing.poll_timeout(Time::ZERO), None);
}

/// How often the metric counted a reason.
pub(super) fn rejected(world: &mut World, reason: &str) -> u64 {
    let line = format!("reason=\"{reason}\"");
    let text = memory::rendered(world);
    let found = text.lines().find(|text| text.contains(&line));
    found.map_or(0, |text| text.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn clients_that_wait_for_room_on_a_throttled_link_take_another() {
    let mut world = small(|settings| {
        settings.output_high = 10_000;
        settings.link_bytes = 100;
    });
    let (slow, other) = (world.client(), world.client());
    world.deaf.push(slow);
    world.send(slow, &["GET big", "GET big"]);
    let wide = format!("GET {}", "x".repeat(100));
    world.send(slow, &[&wide]);
    world.send(other, &["GET small"]);
    let link = world.link("r1");
    assert_eq!(world.asked("r1").len(), 3, "the other one waits for room");
    world.answer("r1", "GET big", &"x".repeat(20_000).replacen('x', "+", 1));
    assert!(world.exchange.is_throttled(link));
    assert_ne!(world.asked_on("r1", "GET small"), link);
    world.answer("r1", "GET small", "+OK");
    assert_eq!(world.heard(other), "+OK|");
}

/// A client whose large reply overtakes an earlier one, until its link is throttled; how much of it
/// was read, and its links.
fn overtaken() -> (World, ClientKey, usize, LinkKey) {
    let mut world = small(|settings| settings.output_high = 100_000);
    let client = world.client();
    world.send(client, &["DBSIZE", "GET big"]);
    let link = world.link("r1");
    world.wires.get_mut(&link).unwrap().asked.clear();
    world.say_raw(link, b"$1000000\r\n").unwrap();
    let mut sent = 0;
    while !world.exchange.is_throttled(link) {
        world.say_raw(link, &vec![b'x'; 50_000]).unwrap();
        sent += 50_000;
        assert!(sent < 250_000, "all of it is kept");
    }
    assert_eq!(world.heard(client), "");
    (world, client, sent, link)
}

#[test]
fn a_large_reply_that_overtakes_an_earlier_one_is_not_read_before_that() {
    let (mut world, client, sent, link) = overtaken();
    let other = world.client();
    world.send(other, &["GET small"]);
    world.answer("r1", "GET small", "+OK");
    assert_eq!(world.heard(other), "+OK|", "over another link");
    world.answer("m", "DBSIZE", ":7");
    assert!(!world.exchange.is_throttled(link));
    world.say_raw(link, &vec![b'x'; 1_000_000 - sent]).unwrap();
    world.say_raw(link, b"\r\n").unwrap();
    let want = format!(":7|$1000000|{}|", "x".repeat(1_000_000));
    assert!(world.heard(client) == want);
    world.pass(ms(40_000));
    assert!(!world.is_closed(client));
    world.assert_calm();
}

#[test]
fn who_waits_with_a_large_reply_that_overtook_is_closed_once_others_wait_long_for_its_link() {
    let (mut world, client, _, link) = overtaken();
    world.pass(ms(40_000));
    assert!(!world.is_closed(client), "it takes whatever it is given");
    assert!(world.exchange.is_throttled(link));
    world.answer("m", "DBSIZE", ":7");
    assert_eq!(world.heard(client).split('|').next(), Some(":7"));

    let mut world = small(|settings| settings.output_high = 100_000);
    let (client, other) = (world.client(), world.client());
    world.send(client, &["DBSIZE", "GET big"]);
    world.send(other, STAYS);
    let link = world.link("r1");
    assert_eq!(world.asked("r1").len(), 2);
    world.wires.get_mut(&link).unwrap().asked.clear();
    world.say_raw(link, b"$1000000\r\n").unwrap();
    world.say_raw(link, &vec![b'x'; 150_000]).unwrap();
    assert!(world.exchange.is_throttled(link));
    world.pass(ms(29_000));
    assert!(!world.is_closed(client));
    world.pass(ms(1_200));
    assert!(world.is_closed(client) && !world.is_closed(other));
    assert!(!world.exchange.is_throttled(link));
    assert_eq!(rejected(&mut world, "write_timeout"), 1);
}

#[test]
fn a_link_that_is_lost_stalls_nobody_any_more() {
    let (mut world, client, _, link) = overtaken();
    world.lose(link);
    world.answer("r1", "GET big", "+OK");
    world.pass(ms(40_000));
    assert!(!world.is_closed(client));
    world.answer("m", "DBSIZE", ":7");
    assert_eq!(world.heard(client), ":7|+OK|");
    world.assert_calm();
}

#[test]
fn a_long_reply_is_not_kept_for_a_client_that_has_read_from_another_link_since() {
    let mut world = small(|_| {});
    let client = world.client();
    world.send(client, &["GET big"]);
    let link = world.link("r1");
    world.wires.get_mut(&link).unwrap().asked.clear();
    world.say_raw(link, b"$20971520\r\n").unwrap();
    for _ in 0..5 {
        world.say_raw(link, &vec![b'x'; 1 << 20]).unwrap();
    }
    world.send(client, &["GET b"]);
    assert_eq!(world.links("r1").len(), 2, "the first takes nothing new");
    world.deaf.push(client);
    for _ in 0..15 {
        if world.exchange.is_throttled(link) {
            break;
        }
        world.say_raw(link, &vec![b'x'; 1 << 20]).unwrap();
    }
    let held = world.exchange.clients.get(client).unwrap();
    assert!(held.replies.held_bytes() < 4 << 20);
}
