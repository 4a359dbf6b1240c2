//! Floor 4. Tests: HELLO with several options, as servers of several versions take it.

use super::*;

/// A world with a server of this version, which everything of the pool is connected to.
fn world_of(version: &str) -> World {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    open_all(&mut world, version);
    world
}

/// Opens every link that waits for it.
fn open_all(world: &mut World, version: &str) {
    while let Some(link) = world.opening() {
        open(world, link, version);
    }
}

fn open(world: &mut World, link: LinkKey, version: &str) {
    let wire = world.wires.get_mut(&link).unwrap();
    wire.open = true;
    let mut hello = Vec::new();
    encode::map_header(&mut hello, wire.plan.protocol, 1);
    encode::bulk(&mut hello, b"version");
    encode::bulk(&mut hello, version.as_bytes());
    world.opened += 1;
    let opened = Opened {
        hello: HelloFacts::read(&hello),
        ..shaken(&wire.plan, u64::try_from(world.opened).unwrap())
    };
    world.exchange.link_opened(link, opened, world.now);
    world.run();
}

const SYNTAX: &str = "-ERR Syntax error in HELLO option 'x'|";
const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.|";

#[test]
fn an_old_server_has_done_what_stands_before_something_wrong() {
    for (version, name) in [("7.0.15", "$3|web|"), ("7.2.4", "$-1|")] {
        let mut world = world_of(version);
        let client = world.client();
        world.send(client, &["HELLO 3 SETNAME web x", "CLIENT GETNAME"]);
        assert_eq!(world.heard(client), format!("{SYNTAX}{name}"), "{version}");
        world.assert_calm();
    }
}

#[test]
fn a_login_before_something_wrong_is_made_at_an_old_server() {
    let mut world = world_of("7.0.15");
    let client = world.client();
    world.send(client, &["HELLO 3 AUTH app secret x", "SET a 1"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("app", "secret")));
    open(&mut world, link, "7.0.15");
    assert_eq!(world.heard(client), SYNTAX);
    // In the protocol in which it was before.
    let (link, plan) = world.only_opening();
    let want = (Some(login("app", "secret")), Protocol::Resp2);
    assert_eq!((plan.login, plan.protocol), want);
    open(&mut world, link, "7.0.15");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.assert_calm();

    let mut world = world_of("7.2.4");
    let client = world.client();
    world.send(client, &["HELLO 3 AUTH app secret x", "SET a 1"]);
    assert_eq!(world.opening(), None);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), format!("{SYNTAX}+OK|"));
    world.assert_calm();
}

#[test]
fn several_logins_are_proven_in_turn_until_one_fails() {
    let mut world = world_of("7.0.15");
    let client = world.client();
    let hello = "HELLO 2 AUTH one secret SETNAME a AUTH two wrong SETNAME b";
    world.send(client, &[hello, "CLIENT GETNAME"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("one", "secret")));
    open(&mut world, link, "7.0.15");
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("two", "wrong")));
    assert_eq!(world.heard(client), "");
    world.refuse(link, wrong_password());
    world.answer("m", "CLIENT GETNAME", "$-1");
    assert_eq!(world.heard(client), format!("{WRONG}$1|a|"));
    // It is who it was after the first; and the same words begin anew.
    world.send(client, &["HELLO 2 AUTH two secret AUTH one secret"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("two", "secret")));
    open(&mut world, link, "7.0.15");
    open_all(&mut world, "7.0.15");
    assert!(world.heard(client).starts_with("*2|$7|version|"));
    world.assert_calm();
}

#[test]
fn a_young_server_looks_at_the_last_login_only() {
    let mut world = world_of("7.2.4");
    let client = world.client();
    let hello = "HELLO 2 AUTH one wrong SETNAME a AUTH two secret SETNAME b";
    world.send(client, &[hello, "CLIENT GETNAME"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("two", "secret")));
    open(&mut world, link, "7.2.4");
    world.answer("m", "CLIENT GETNAME", "$-1");
    assert_eq!(world.heard(client), "*2|$7|version|$5|7.2.4|$1|b|");
    world.assert_calm();
}

#[test]
fn a_name_is_refused_before_the_login_that_stands_behind_it() {
    let bad = "-ERR Client names cannot contain spaces, newlines or special characters.|";
    for version in ["7.0.15", "7.2.4"] {
        let mut world = world_of(version);
        let client = world.client();
        world.send(client, &["HELLO 2 SETNAME a\tb AUTH one secret"]);
        assert_eq!(world.opening(), None);
        assert_eq!(world.heard(client), bad, "{version}");
        world.assert_calm();
    }
}
