//! Floor 4. Tests: Links that are open before anybody needs them.

use super::*;

/// A group whose links stay open for whoever needs one next. Nothing opens by itself, save what is
/// open before the test begins: a shared link, and one beside it.
fn warm() -> World {
    let mut setup = Setup::default();
    setup.settings.warm = true;
    let mut world = World::with(setup);
    world.opens = false;
    assert_eq!((world.links("m").len(), world.opening()), (2, None));
    assert_eq!(world.links("r1").len(), 1, "replicas need none");
    world
}

fn pooled(world: &World) -> usize {
    let pools = world.exchange.groups[0].pool.values();
    pools.map(Vec::len).sum()
}

#[test]
fn who_blocks_waits_for_no_connection_and_the_next_one_has_another() {
    let mut world = warm();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["BLPOP q 0"]);
    assert_eq!(world.asked("m"), ["BLPOP q 0"]);
    // It keeps it: another is opened at once, and is not open yet.
    let (next, plan) = world.only_opening();
    assert!(is_master(&plan) && plan.database == 0);
    world.send(two, &["BLPOP p 0"]);
    assert_eq!(world.asked("m"), ["BLPOP q 0"]);
    // The client waits for that one; in its place comes a third.
    let links = world.links("m");
    assert_eq!(links.len(), 4);
    world.open(next);
    assert_eq!(world.asked("m"), ["BLPOP q 0", "BLPOP p 0"]);
    world.open_all();
    assert_eq!(pooled(&world), 1);
    world.answer("m", "BLPOP q 0", "*-1");
    world.answer("m", "BLPOP p 0", "*-1");
    assert_eq!(world.heard(one) + &world.heard(two), "*-1|*-1|");
    assert_eq!((pooled(&world), world.links("m").len()), (3, 4));
    // There are some now.
    world.send(one, &["BLPOP q 0"]);
    assert_eq!(world.opening(), None);
    world.answer("m", "BLPOP q 0", "*-1");
    world.assert_calm();
}

#[test]
fn another_database_has_one_as_soon_as_it_is_selected() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["SELECT 3"]);
    assert_eq!(
        world.heard(client),
        "",
        "the master has not said that it may"
    );
    let opening: Vec<_> = world.wires.iter().filter(|(_, it)| !it.open).collect();
    let databases: Vec<_> = opening.iter().map(|(_, it)| it.plan.database).collect();
    assert_eq!(databases, [3, 3], "the shared one, and one beside it");
    world.open_all();
    assert_eq!(world.heard(client), "+OK|");
    world.send(client, &["BRPOP q 0"]);
    world.answer("m", "BRPOP q 0", "*-1");
    world.assert_calm();
}

#[test]
fn a_user_who_logs_in_has_one_too_and_it_goes_with_the_last_of_them() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["AUTH app secret"]);
    let (proof, _) = world.only_opening();
    world.open(proof);
    assert_eq!(world.heard(client), "+OK|");
    let (spare, plan) = world.only_opening();
    assert!(plan.login.is_some(), "of that user");
    // It leaves before that is open.
    world.leave(client);
    let next = world.client();
    world.send(next, &["AUTH app secret"]);
    let user = |world: &World| {
        let wires = world.wires.values();
        wires.filter(|it| it.plan.login.is_some()).count()
    };
    while let Some(link) = world.opening() {
        world.open(link);
    }
    assert_eq!(world.heard(next), "+OK|");
    assert!(user(&world) >= 2);
    world.send(next, &["RESET"]);
    assert_eq!(world.heard(next), "+RESET|");
    assert_eq!(user(&world), 0);
    assert!(!world.wires.contains_key(&spare));
    assert!(world.exchange.groups[0].warming.is_empty());
    world.assert_calm();
}

#[test]
fn a_transaction_borrows_it_and_opens_none() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.answer("m", "MULTI", "+OK");
    assert_eq!((world.opening(), pooled(&world)), (None, 0));
    world.send(client, &["INCR a", "EXEC"]);
    world.answer("m", "INCR a", "+QUEUED");
    world.answer("m", "EXEC", "*1|:1");
    assert_eq!((world.opening(), pooled(&world)), (None, 1));
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|:1|");
    world.assert_calm();
}

#[test]
fn a_monitor_sees_no_connection_being_opened_in_its_place() {
    let mut world = warm();
    let (watcher, other) = (world.client(), world.client());
    world.send(watcher, &["MONITOR"]);
    assert!(world.asked("m").is_empty());
    let (own, _) = world.only_opening();
    assert_eq!(pooled(&world), 1, "it is left for others");
    world.open(own);
    world.answer("m", "MONITOR", "+OK");
    world.send(other, &["MULTI"]);
    assert_eq!(
        (world.opening(), world.asked("m")),
        (None, vec!["MULTI".into()])
    );
    world.answer("m", "MULTI", "+OK");
    world.send(other, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    world.leave(watcher);
    world.assert_calm();
}

#[test]
fn one_that_leaves_marks_is_replaced() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["DEBUG SLEEP 0"]);
    world.answer("m", "DEBUG SLEEP 0", "+OK");
    world.pass(ms(900));
    assert_eq!(world.opening(), None, "its client would see that");
    world.pass(ms(100));
    let (next, _) = world.only_opening();
    world.open(next);
    world.pass(ms(5_100));
    assert_eq!((pooled(&world), world.links("m").len()), (1, 2));
    world.assert_calm();
}

#[test]
fn a_refusal_harms_nobody_and_is_not_answered_by_another_attempt() {
    for failure in [unreachable(), wrong_password(), no_auth()] {
        let mut world = warm();
        let client = world.client();
        world.send(client, &["SELECT 3"]);
        let opening: Vec<_> = world.wires.iter().filter(|(_, it)| !it.open).collect();
        let [shared, spare] = [*opening[0].0, *opening[1].0];
        world.open(shared);
        assert_eq!(world.heard(client), "+OK|");
        world.refuse(spare, failure);
        assert_eq!(world.opening(), None);
        assert!(world.exchange.groups[0].warming.is_empty());
        world.send(client, &["SET a 1"]);
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(client), "+OK|");
        assert!(!world.is_closed(client));
        world.assert_calm();
    }
}

#[test]
fn it_goes_with_its_master_and_comes_with_the_next() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    let (unopened, _) = world.only_opening();
    world.opens = true;
    world.switching();
    assert!(!world.wires.contains_key(&unopened));
    world.switch_to("r1", &["m"]);
    let masters = |world: &World, host: &str| {
        let links = world.links(host).into_iter();
        links.filter(|it| is_master(&world.wires[it].plan)).count()
    };
    // A shared one, one for the client that is not asked there yet, and those to call it back.
    assert!(masters(&world, "r1") >= 2);
    assert_eq!(pooled(&world), 1);
    let index = world.exchange.groups[0].writable.unwrap();
    let lanes = world.exchange.groups[0].pool.keys();
    assert!(lanes.into_iter().all(|lane| lane.node == index));
    world.leave(client);
}

#[test]
fn it_stays_while_it_is_idle_and_what_came_beyond_it_goes() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    world.open_all();
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!((pooled(&world), world.links("m").len()), (2, 3));
    world.pass(ms(61_000));
    assert_eq!((pooled(&world), world.links("m").len()), (1, 2));
    // That of a database which nobody uses goes with its shared link.
    world.send(client, &["SELECT 3"]);
    world.open_all();
    world.send(client, &["SELECT 0"]);
    assert_eq!((pooled(&world), world.links("m").len()), (2, 4));
    world.pass(ms(130_000));
    assert_eq!((pooled(&world), world.links("m").len()), (1, 2));
    world.assert_calm();
}

#[test]
fn it_takes_nobodys_place() {
    let mut setup = Setup::default();
    setup.settings.warm = true;
    setup.settings.leases_max = 2;
    let mut world = World::with(setup);
    assert_eq!(pooled(&world), 1);
    world.opens = false;
    let clients = [(); 3].map(|()| world.client());
    world.send(clients[0], &["SELECT 3"]);
    world.open_all();
    assert_eq!(pooled(&world), 1, "half of them may be spare");
    for (at, client) in clients.into_iter().enumerate() {
        world.send(client, &[&format!("BLPOP q{at} 0")]);
        world.open_all();
    }
    assert_eq!(world.asked("m"), ["BLPOP q0 0", "BLPOP q1 0"]);
    assert!(world.heard(clients[2]).contains("max-leased"));
    for at in 0..2 {
        world.answer("m", &format!("BLPOP q{at} 0"), "*-1");
    }
    world.assert_calm();
}

fn full() -> OpenFailure {
    let line = b"-ERR max number of clients reached\r\n";
    OpenFailure::Refused(crate::telemetry::ConnectStage::Tcp, Box::from(&line[..]))
}

#[test]
fn a_node_that_has_no_room_for_it_is_not_spared_for_its_sake() {
    let mut world = warm();
    let (one, two) = (world.client(), world.client());
    world.send(one, &["BLPOP q 0"]);
    let (spare, _) = world.only_opening();
    world.refuse(spare, full());
    assert!(world.reports.is_empty(), "{:?}", world.reports);
    // The next one opens its own at once.
    world.send(two, &["BLPOP p 0"]);
    world.open_all();
    assert_eq!(world.asked("m"), ["BLPOP q 0", "BLPOP p 0"]);
    world.answer("m", "BLPOP q 0", "*-1");
    world.answer("m", "BLPOP p 0", "*-1");
    world.assert_calm();
}

#[test]
fn it_makes_room_at_a_node_for_what_somebody_waits_for() {
    let mut world = warm();
    let client = world.client();
    assert_eq!(pooled(&world), 1);
    world.send(client, &["SELECT 3"]);
    while let Some(link) = world.opening() {
        world.refuse(link, full());
    }
    assert_eq!((pooled(&world), world.links("m").len()), (0, 1));
    world.pass(ms(200));
    assert!(world.opening().is_some(), "it is tried again");
    world.open_all();
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();
}

#[test]
fn a_monitor_takes_it_where_no_other_can_be_had() {
    let mut world = warm();
    let (one, watcher) = (world.client(), world.client());
    world.send(one, &["SELECT 3"]);
    while let Some(link) = world.opening() {
        world.refuse(link, unreachable());
    }
    assert_eq!(pooled(&world), 1);
    world.send(watcher, &["MONITOR"]);
    world.answer("m", "MONITOR", "+OK");
    assert_eq!(world.heard(watcher), "+OK|");
}

#[test]
fn it_brings_no_scripts() {
    let mut world = warm();
    let client = world.client();
    world.send(client, &["SCRIPT LOAD return1"]);
    let sha = "$40|e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    world.answer("m", "SCRIPT LOAD return1", sha);
    assert_eq!(world.heard(client), format!("{sha}|"));
    let spare: Vec<_> = world.exchange.groups[0]
        .pool
        .values()
        .flatten()
        .copied()
        .collect();
    world.lose(spare[0]);
    // The node may have been started anew: who needs a link brings the scripts along.
    world.send(client, &["BLPOP q 0"]);
    world.open_all();
    assert_eq!(world.asked("m").len(), 2);
    world.answer("m", "SCRIPT LOAD return1", sha);
    world.answer("m", "BLPOP q 0", "*-1");
    world.send(client, &["BLPOP q 0"]);
    world.open_all();
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(client), "*-1|*-1|");
    world.assert_calm();
}
