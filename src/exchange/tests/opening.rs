//! Floor 4. Tests: Links that are opened a few at a time.

use super::*;
use crate::telemetry::ConnectStage;

/// Links that are opened at once.
const MAX: usize = 4;

/// Nothing opens by itself, save what is open before the test begins.
fn world() -> World {
    let mut setup = Setup::default();
    setup.settings.opening_max = MAX;
    let mut world = World::with(setup);
    world.opens = false;
    world
}

fn opening(world: &World, host: &str) -> Vec<LinkKey> {
    let links = world.links(host).into_iter();
    links.filter(|link| !world.wires[link].open).collect()
}

/// Clients that each ask for a link of their own.
fn blocked(world: &mut World, count: usize) -> Vec<ClientKey> {
    let clients: Vec<_> = (0..count).map(|_| world.client()).collect();
    for (at, client) in clients.iter().enumerate() {
        world.send(*client, &[&format!("BLPOP q{at} 0")]);
    }
    clients
}

/// Opens what is to be opened, never more than allowed at once.
fn open_in_turn(world: &mut World, host: &str) {
    while let Some(link) = opening(world, host).first().copied() {
        assert!(opening(world, host).len() <= MAX);
        world.open(link);
    }
}

fn answer_all_of(world: &mut World, clients: &[ClientKey]) {
    assert_eq!(world.asked("m").len(), clients.len());
    for (at, client) in clients.iter().enumerate() {
        world.answer("m", &format!("BLPOP q{at} 0"), "*-1");
        assert_eq!(world.heard(*client), "*-1|");
    }
}

#[test]
fn many_links_are_opened_a_few_at_a_time_and_all_are() {
    let mut world = world();
    let clients = blocked(&mut world, 20);
    assert_eq!(opening(&world, "m").len(), MAX);
    open_in_turn(&mut world, "m");
    answer_all_of(&mut world, &clients);
    world.assert_calm();
}

#[test]
fn shared_links_come_first() {
    let mut world = world();
    let clients = blocked(&mut world, 20);
    let other = world.client();
    world.send(other, &["SELECT 5", "SET a 1"]);
    world.open(opening(&world, "m")[0]);
    let databases = opening(&world, "m").into_iter();
    let databases: Vec<_> = databases
        .map(|link| world.wires[&link].plan.database)
        .collect();
    assert_eq!(databases, [0, 0, 0, 5]);
    open_in_turn(&mut world, "m");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(other), "+OK|+OK|");
    answer_all_of(&mut world, &clients);
}

#[test]
fn one_that_hangs_or_is_refused_does_not_hold_the_others_up() {
    let mut world = world();
    let clients = blocked(&mut world, 20);
    let hangs = opening(&world, "m")[0];
    let refused = opening(&world, "m")[1];
    let words: Box<[u8]> = Box::from(&b"-NOPERM no\r\n"[..]);
    world.refuse(
        refused,
        OpenFailure::Refused(ConnectStage::Handshake, words),
    );
    assert_eq!(opening(&world, "m").len(), MAX);
    while let Some(link) = opening(&world, "m").into_iter().find(|link| *link != hangs) {
        world.open(link);
    }
    assert_eq!(world.asked("m").len(), clients.len() - 2);
    assert_eq!(world.heard(clients[1]), "-NOPERM no|");
    world.open(hangs);
    world.answer("m", "BLPOP q0 0", "*-1");
    assert_eq!(world.heard(clients[0]), "*-1|");
}

#[test]
fn a_node_that_takes_none_gives_all_their_turn_again_after_a_moment() {
    let mut world = world();
    let clients = blocked(&mut world, 20);
    let first = opening(&world, "m")[0];
    world.refuse(first, OpenFailure::Unreachable(ConnectStage::Tcp));
    assert_eq!(opening(&world, "m").len(), MAX - 1, "those under way only");
    world.pass(ms(200));
    assert_eq!(opening(&world, "m").len(), MAX);
    open_in_turn(&mut world, "m");
    answer_all_of(&mut world, &clients);
    world.assert_calm();
}

#[test]
fn who_leaves_before_its_turn_takes_nobodys() {
    let mut world = world();
    let clients = blocked(&mut world, 12);
    let (leave, stay) = clients.split_at(8);
    for client in leave {
        world.leave(*client);
    }
    assert_eq!(opening(&world, "m").len(), MAX);
    open_in_turn(&mut world, "m");
    assert_eq!(world.asked("m").len(), stay.len());
}

#[test]
fn a_switch_takes_turns_away_and_gives_new_ones() {
    let mut world = world();
    let clients = blocked(&mut world, 12);
    world.switching();
    assert_eq!(opening(&world, "m"), []);
    world.switch_to("r1", &[]);
    assert_eq!(opening(&world, "r1").len(), MAX);
    open_in_turn(&mut world, "r1");
    assert_eq!(world.asked("r1").len(), clients.len());
}
