//! Floor 4. Tests: Databases: SELECT is proven, and lanes are kept apart by it.

use super::*;

#[test]
fn select_is_proven_by_the_lane_for_it() {
    let mut world = World::new();
    world.opens = false;
    let client = world.client();
    world.send(client, &["SET a 0", "SELECT 3", "SET a 3", "SELECT 3"]);
    assert_eq!(
        world.opening(),
        None,
        "nothing changes while a reply is due"
    );
    world.answer("m", "SET a 0", "+OK");
    let (link, plan) = world.only_opening();
    assert_eq!(plan.database, 3);
    world.open(link);
    assert_eq!(world.asked_on("m", "SET a 3"), link);
    world.answer("m", "SET a 3", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|+OK|+OK|");
    world.send(client, &["GET a"]);
    let (link, plan) = world.only_opening();
    assert_eq!((plan.node, plan.database), (addr("r1"), 3));
    world.open(link);
    world.answer("r1", "GET a", "$1|3");
    world.assert_calm();
}

#[test]
fn a_database_that_the_node_does_not_have_is_refused_in_its_words() {
    let mut world = World::new();
    world.opens = false;
    let client = world.client();
    world.send(client, &["SELECT 99", "SET a 1", "SELECT x", "SELECT -1"]);
    let (link, _) = world.only_opening();
    let said = Box::from(&b"-ERR DB index is out of range\r\n"[..]);
    let stage = crate::telemetry::ConnectStage::Handshake;
    world.refuse(link, OpenFailure::Refused(stage, said));
    world.answer("m", "SET a 1", "+OK");
    let out = "-ERR DB index is out of range|";
    let no = "-ERR value is not an integer or out of range|";
    assert_eq!(world.heard(client), format!("{out}+OK|{no}{out}"));
    world.assert_calm();
}

#[test]
fn a_lost_read_is_sent_again_in_the_database_it_was_meant_for() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "SELECT 1", "GET a"]);
    world.lose_node("r1");
    let link = world.asked_on("r1", "GET a");
    assert_eq!(world.wires[&link].plan.database, 0);
    world.answer("r1", "GET a", "$1|0");
    let link = world.asked_on("r1", "GET a");
    assert_eq!(world.wires[&link].plan.database, 1);
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|0|+OK|$1|1|");
}
