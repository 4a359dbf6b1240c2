//! Floor 4. Tests: Reads of large values at the master, and the writes of others.

use super::*;
use crate::route::Reads;
use crate::types::ListenerRole;

/// A world in which the value of `big` has just been read, and was large.
fn known(world: &mut World) -> ClientKey {
    let client = world.client_by(Access::new(ListenerRole::Split, Reads::Master));
    world.send(client, &["GET big"]);
    let link = world.asked_on("m", "GET big");
    let value = "x".repeat(2_000_000);
    large_reply(world, link, &value);
    client
}

/// The next reply on a link is this value.
fn large_reply(world: &mut World, link: LinkKey, value: &str) {
    world.wires.get_mut(&link).unwrap().asked.pop_front();
    let reply = format!("${}\r\n{value}\r\n", value.len());
    for piece in reply.as_bytes().chunks(100_000) {
        world.say_raw(link, piece).unwrap();
    }
}

#[test]
fn a_large_value_is_read_again_over_another_link_than_writes_take() {
    let mut world = World::new();
    let lane = world.link("m");
    let client = known(&mut world);
    assert!(world.heard(client).starts_with("$2000000|"));
    world.send(client, &["GET big"]);
    let other = world.client();
    world.send(other, &["SET a 1"]);
    let apart = world.asked_on("m", "GET big");
    assert_eq!(world.asked_on("m", "SET a 1"), lane);
    assert_ne!(apart, lane);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(other), "+OK|");
    let small = world.client_by(Access::new(ListenerRole::Split, Reads::Master));
    world.send(small, &["GET small"]);
    assert_eq!(world.wires[&lane].asked.back().unwrap().1, "GET small");
    world.answer("m", "GET small", "+OK");
    large_reply(&mut world, apart, &"x".repeat(2_000_000));
    world.pass(Duration::from_secs(59));
    assert_eq!(world.links("m"), [lane, apart]);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.links("m"), [lane], "nobody needs it");
}

#[test]
fn what_a_client_sends_behind_such_a_read_follows_it_in_order() {
    let mut world = World::new();
    let lane = world.link("m");
    let client = known(&mut world);
    world.heard(client);
    world.send(client, &["GET big", "SET a 1", "GET b", "GET big"]);
    let apart = world.asked_on("m", "GET big");
    assert_ne!(apart, lane);
    assert_eq!(world.asked("m"), ["GET big", "SET a 1", "GET b", "GET big"]);
    for reply in ["$3|one", "+OK", "$1|b", "$3|two"] {
        world.wires.get_mut(&apart).unwrap().asked.pop_front();
        world.say(apart, reply);
    }
    assert_eq!(world.heard(client), "$3|one|+OK|$1|b|$3|two|");
    world.send(client, &["SET a 2", "GET big"]);
    assert_eq!(world.asked_on("m", "SET a 2"), lane);
    assert_eq!(world.wires[&lane].asked.len(), 2, "behind the write");
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn only_reads_go_there_by_themselves_and_nothing_follows_over_a_link_that_was_passed_by() {
    let mut world = World::new();
    let lane = world.link("m");
    let client = known(&mut world);
    world.heard(client);
    world.send(client, &["SET big 1"]);
    assert_eq!(world.asked_on("m", "SET big 1"), lane);
    world.answer("m", "SET big 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.send(client, &["GET big"]);
    let apart = world.asked_on("m", "GET big");
    world.wires.get_mut(&apart).unwrap().asked.pop_front();
    world.say_raw(apart, b"$6000000\r\n").unwrap();
    for _ in 0..50 {
        world.say_raw(apart, &vec![b'x'; 100_000]).unwrap();
    }
    world.send(client, &["SET a 1"]);
    assert!(world.asked("m").is_empty(), "it waits for its turn");
    for _ in 0..10 {
        world.say_raw(apart, &vec![b'x'; 100_000]).unwrap();
    }
    world.say_raw(apart, b"\r\n").unwrap();
    assert_eq!(world.asked_on("m", "SET a 1"), lane);
    world.answer("m", "SET a 1", "+OK");
    world.assert_calm();
}

#[test]
fn it_is_not_followed_into_another_database() {
    let mut world = World::new();
    let client = known(&mut world);
    world.heard(client);
    world.send(client, &["GET big"]);
    world.send(client, &["SELECT 3", "SET a 1"]);
    assert_eq!(world.asked("m"), ["GET big"]);
    world.answer("m", "GET big", "+ONE");
    assert_eq!(world.heard(client), "+ONE|+OK|");
    let link = world.asked_on("m", "SET a 1");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer("m", "SET a 1", "+OK");
    world.assert_calm();
}

#[test]
fn with_the_link_apart_lost_the_read_is_asked_anew() {
    let mut world = World::new();
    let client = known(&mut world);
    world.heard(client);
    world.send(client, &["GET big", "SET a 1"]);
    let apart = world.asked_on("m", "GET big");
    world.lose(apart);
    world.answer("m", "GET big", "$1|x");
    assert!(world.heard(client).starts_with("$1|x|-UNCERTAIN"));
    world.assert_calm();
}

#[test]
fn a_value_that_was_sent_is_known_to_be_large_and_for_minutes() {
    let mut world = World::new();
    let lane = world.link("m");
    let sender = world.client();
    let mut bytes = encoded(&format!("SET big {}", "x".repeat(3_000_000)));
    let rest = bytes.split_off(100);
    world.send_raw(sender, &bytes);
    for piece in rest.chunks(100_000) {
        world.send_raw(sender, piece);
    }
    world.answer_all("m");
    assert_eq!(world.heard(sender), "+OK|");
    let reader = world.client_by(Access::new(ListenerRole::Split, Reads::Master));
    world.send(reader, &["GET big"]);
    assert_ne!(world.asked_on("m", "GET big"), lane);
    world.answer("m", "GET big", "+OK");
    world.pass(Duration::from_secs(601));
    world.send(reader, &["GET big"]);
    assert_eq!(world.asked_on("m", "GET big"), lane, "it is forgotten");
}

#[test]
fn without_another_connection_it_goes_where_others_go() {
    let mut world = World::new();
    let lane = world.link("m");
    let client = known(&mut world);
    world.heard(client);
    let until = world.now + ms(1_000);
    for node in &mut world.exchange.groups[0].nodes {
        node.open_at = Some(until);
    }
    world.send(client, &["GET big"]);
    assert_eq!(world.asked_on("m", "GET big"), lane);
    world.answer("m", "GET big", "+OK");
    assert_eq!(world.heard(client), "+OK|");
}

#[test]
fn lanes_apart_take_no_room_from_others() {
    let mut world = World::with(Setup {
        settings: Settings {
            lanes_max: 2,
            ..Settings::default()
        },
        ..Setup::default()
    });
    let client = known(&mut world);
    world.heard(client);
    world.send(client, &["GET big"]);
    world.answer("m", "GET big", "+OK");
    assert_eq!(world.links("m").len(), 2);
    world.send(client, &["SELECT 3", "SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|+OK|");
}

#[test]
fn small_replies_that_nobody_hears_do_not_add_up_to_a_large_one() {
    let mut world = World::new();
    let clients: Vec<_> = (0..4).map(|_| world.client()).collect();
    for (at, client) in clients.iter().enumerate() {
        world.send(*client, &[&format!("GET s{at}")]);
    }
    let link = world.link("r1");
    for client in clients {
        world.leave(client);
    }
    for _ in 0..4 {
        large_reply(&mut world, link, &"x".repeat(600_000));
    }
    let reader = world.client_by(Access::new(ListenerRole::Split, Reads::Master));
    for at in 0..4 {
        world.send(reader, &[&format!("GET s{at}")]);
        world.answer_all("m");
    }
    assert_eq!(world.links("m").len(), 1, "none of them is large");
}
