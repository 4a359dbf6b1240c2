//! Floor 4. Tests: Clients that configure or debug the master, and all that they ask meanwhile.

use super::*;

/// A client that has set the master's statistics back.
fn attending(world: &mut World) -> (ClientKey, LinkKey) {
    let client = world.client();
    world.send(client, &["CONFIG RESETSTAT"]);
    let link = world.asked_on("m", "CONFIG RESETSTAT");
    world.answer("m", "CONFIG RESETSTAT", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    (client, link)
}

/// Sends a request and has it answered, on this link.
fn asks(world: &mut World, client: ClientKey, link: LinkKey, (request, reply): (&str, &str)) {
    world.send(client, &[request]);
    assert_eq!(world.asked_on("m", request), link);
    world.answer("m", request, reply);
    assert_eq!(world.heard(client), format!("{reply}|"));
}

#[test]
fn the_master_serves_and_counts_all_of_who_attends_to_it() {
    let mut world = World::new();
    let (client, link) = attending(&mut world);
    for what in [
        ("PING", "+PONG"),
        ("ECHO x", "$1|x"),
        ("GET a", "$1|A"),
        ("SET a 1", "+OK"),
        ("SLOWLOG LEN", ":0"),
    ] {
        asks(&mut world, client, link, what);
    }
    // What the master cannot know it is asked too.
    world.send(client, &["CLIENT ID", "GET b"]);
    assert_eq!(world.asked("m"), ["CLIENT ID"]);
    world.answer("m", "CLIENT ID", ":77");
    world.answer("m", "GET b", "$1|B");
    let heard = world.heard(client);
    assert!(
        heard.ends_with("|$1|B|") && !heard.starts_with(":77"),
        "{heard}"
    );
    world.pass(ms(5_100));
    world.assert_calm();
}

#[test]
fn attendance_ends_a_while_after_the_last_command_that_begins_it() {
    let mut world = World::new();
    let (client, link) = attending(&mut world);
    world.pass(ms(4_000));
    asks(&mut world, client, link, ("DEBUG JMAP", "+OK"));
    world.pass(ms(4_000));
    asks(&mut world, client, link, ("PING", "+PONG"));
    world.pass(ms(1_100));
    world.send(client, &["PING", "GET a"]);
    assert_eq!(world.heard(client), "+PONG|");
    world.answer("r1", "GET a", "$1|A");
    assert_eq!(world.heard(client), "$1|A|");
    assert!(world.exchange.attending.is_empty());
    world.assert_calm();
}

#[test]
fn who_says_nothing_gives_its_link_back_all_the_same() {
    let mut world = World::new();
    let (_, link) = attending(&mut world);
    world.pass(ms(4_900));
    let pooled = |world: &World| world.exchange.groups[0].pool.values().flatten().count();
    assert_eq!(pooled(&world), 0);
    world.pass(ms(200));
    assert_eq!(pooled(&world), 1);
    assert!(world.links("m").contains(&link));
    world.assert_calm();
}

#[test]
fn its_link_bears_its_name_and_serves_nobody_behind_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT SETNAME boss", "DEBUG SLEEP 0"]);
    assert_eq!(world.asked("m"), ["CLIENT SETNAME boss", "DEBUG SLEEP 0"]);
    let link = world.asked_on("m", "CLIENT SETNAME boss");
    world.answer("m", "CLIENT SETNAME boss", "+OK");
    world.answer("m", "DEBUG SLEEP 0", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|");
    asks(&mut world, client, link, ("CONFIG SET a 1", "+OK"));
    world.send(client, &["CLIENT SETNAME \"\""]);
    world.send(client, &["CONFIG SET b 1"]);
    let asked = ["CLIENT SETNAME switchman", "CONFIG SET b 1"];
    assert_eq!(world.asked("m"), asked);
    for line in asked {
        world.answer("m", line, "+OK");
    }
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.pass(ms(5_100));
    assert!(!world.links("m").contains(&link));
    world.assert_calm();
}

#[test]
fn what_comes_from_another_database_goes_the_usual_way() {
    let mut world = World::new();
    let (client, link) = attending(&mut world);
    world.send(client, &["SELECT 1", "PING", "CLIENT GETNAME"]);
    assert_eq!(world.heard(client), "+OK|+PONG|$-1|");
    world.send(client, &["GET a"]);
    world.answer("r1", "GET a", "$1|A");
    assert_eq!(world.heard(client), "$1|A|");
    world.send(client, &["SELECT 0"]);
    assert_eq!(world.heard(client), "+OK|");
    asks(&mut world, client, link, ("PING", "+PONG"));
    world.pass(ms(5_100));
    world.assert_calm();
}

#[test]
fn nobody_attends_to_a_master_that_is_not_there() {
    let mut world = World::new();
    let (client, link) = attending(&mut world);
    world.send(client, &["GET a"]);
    world.lose(link);
    world.answer("r1", "GET a", "$1|A");
    assert_eq!(world.heard(client), "$1|A|");
    let (client, _) = attending(&mut world);
    world.publish(Phase::Unknown, None);
    world.send(client, &["PING", "GET a"]);
    assert_eq!(world.heard(client), "+PONG|");
    world.answer("r1", "GET a", "$1|A");
    assert_eq!(world.heard(client), "$1|A|");
}

#[test]
fn where_links_are_short_others_get_that_of_who_attends() {
    let mut world = World::with(Setup {
        settings: Settings {
            leases_max: 1,
            ..Settings::default()
        },
        ..Setup::default()
    });
    let other = world.client();
    let (client, link) = attending(&mut world);
    world.send(other, &["BLPOP a 0"]);
    let taken = world.asked_on("m", "BLPOP a 0");
    assert_ne!(taken, link, "{:?}", world.links("m"));
    assert!(!world.links("m").contains(&link));
    world.answer("m", "BLPOP a 0", "*-1");
    assert_eq!(world.heard(other), "*-1|");
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "+PONG|");
}
