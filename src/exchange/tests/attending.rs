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
    // What is answered here it hears of.
    world.send(client, &["CLIENT ID", "GET b"]);
    assert_eq!(world.asked("m"), ["CLIENT ID", "GET b"]);
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
    let (one, other) = (world.client(), world.client());
    world.send(other, &["SELECT 3"]);
    assert_eq!(world.heard(other), "+OK|");
    let (client, link) = attending(&mut world);
    world.send(one, &["BLPOP a 0"]);
    assert_eq!(
        world.asked_on("m", "BLPOP a 0"),
        link,
        "it is as good as another"
    );
    world.answer("m", "BLPOP a 0", "*-1");
    assert_eq!(world.heard(one), "*-1|");
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), "+PONG|");

    let (_, link) = attending(&mut world);
    world.send(other, &["BLPOP a 0"]);
    assert!(
        !world.links("m").contains(&link),
        "of no use in another database"
    );
    assert_eq!(world.exchange.leased_count(), 1);
    world.answer("m", "BLPOP a 0", "*-1");
    assert_eq!(world.heard(other), "*-1|");
}

#[test]
fn one_that_is_lost_takes_no_place() {
    let mut world = World::with(Setup {
        settings: Settings {
            leases_max: 1,
            ..Settings::default()
        },
        ..Setup::default()
    });
    let (client, link) = attending(&mut world);
    world.send(client, &["WATCH a"]);
    world.answer("m", "WATCH a", "+OK");
    world.lose(link);
    world.send(client, &["UNWATCH"]);
    assert_eq!(world.heard(client), "+OK|+OK|");
    let others = [(); 2].map(|()| world.client());
    for other in others {
        world.send(other, &["BLPOP a 0"]);
    }
    assert_eq!(world.exchange.leased_count(), 1);
}

/// As whom a link is logged in.
fn user(world: &World, link: LinkKey) -> Option<&[u8]> {
    let login = world.wires[&link].plan.login.as_ref();
    login.and_then(Login::username)
}

#[test]
fn another_user_never_has_the_link_of_the_one_before() {
    for (second, gives_up) in [("AUTH bob b", 5_100), ("HELLO 2 AUTH bob b", 0)] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["AUTH alice a", "CONFIG RESETSTAT"]);
        let alices = world.asked_on("m", "CONFIG RESETSTAT");
        assert_eq!(user(&world, alices), Some(&b"alice"[..]));
        world.answer("m", "CONFIG RESETSTAT", "+OK");
        world.send(client, &[second]);
        assert!(!world.links("m").contains(&alices), "nobody is alice");
        // The next user gets the number that alice had.
        let other = world.client();
        world.send(other, &["AUTH carol c"]);
        world.pass(ms(gives_up));
        for client in [client, other] {
            world.send(client, &["MULTI"]);
        }
        let asked = world.links("m").into_iter();
        let asked = asked.filter(|link| !world.wires[link].asked.is_empty());
        let users: Vec<_> = asked.map(|link| user(&world, link)).collect();
        assert_eq!(users.len(), 2);
        assert!(users.contains(&Some(b"bob")) && users.contains(&Some(b"carol")));
    }
}

#[test]
fn a_third_user_does_not_find_the_link_of_the_first() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["AUTH alice a", "CONFIG RESETSTAT"]);
    world.answer("m", "CONFIG RESETSTAT", "+OK");
    world.send(client, &["AUTH bob b", "AUTH carol c", "SET x 1"]);
    let link = world.asked_on("m", "SET x 1");
    assert_eq!(user(&world, link), Some(&b"carol"[..]));
}

#[test]
fn what_is_counted_late_says_nothing_of_what_comes_next() {
    for reply in [":5", "-NOPERM no"] {
        let mut world = World::new();
        let (client, _) = attending(&mut world);
        world.send(client, &["CLIENT ID"]);
        world.pass(ms(5_100));
        world.answer("m", "CLIENT ID", reply);
        assert!(world.heard(client).starts_with(':'));
        world.send(client, &["SELECT 1"]);
        assert_eq!(world.heard(client), "+OK|");
        world.send(client, &["CLIENT LIST"]);
        assert_eq!(world.asked("m"), ["CLIENT LIST ?"]);
    }
}

#[test]
fn what_the_master_cannot_do_now_is_placed_anew() {
    for reply in ["-LOADING Redis is loading", "-MASTERDOWN Link down"] {
        let mut world = World::new();
        let (client, _) = attending(&mut world);
        world.send(client, &["SET a 1"]);
        world.answer("m", "SET a 1", reply);
        assert_eq!(world.heard(client), "", "{reply}");
        world.pass(ms(1_000));
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(client), "+OK|");
    }
}

#[test]
fn a_script_that_the_master_has_forgotten_is_brought_to_it() {
    let mut world = World::new();
    let (client, link) = attending(&mut world);
    let named = "EVALSHA 02083f4579e08a612425c0c1a17ee47add783b94 0";
    asks(&mut world, client, link, ("EVAL body 0", "$1|A"));
    world.send(client, &[named]);
    world.answer("m", named, "-NOSCRIPT No matching script. Please use EVAL.");
    assert_eq!(world.heard(client), "");
    assert_eq!(world.asked("m"), ["SCRIPT LOAD body", named]);
    world.answer("m", "SCRIPT LOAD body", "$1|x");
    world.answer("m", named, "$1|A");
    assert_eq!(world.heard(client), "$1|A|");
    world.pass(ms(5_100));
    world.assert_calm();
}

#[test]
fn who_watches_the_master_is_not_named_meanwhile() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT SETNAME boss", "MONITOR"]);
    world.answer("m", "MONITOR", "+OK");
    world.send(client, &["SLOWLOG RESET"]);
    assert_eq!(world.asked("m"), ["SLOWLOG RESET"]);
    world.answer("m", "SLOWLOG RESET", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|+OK|");
    assert!(world.exchange.attending.is_empty());
}

#[test]
fn who_only_looks_does_not_attend() {
    let mut world = World::new();
    let client = world.client();
    for line in ["COMMANDLOG GET 1 slow", "CONFIG REWRITE", "CONFIG GET a"] {
        world.send(client, &[line]);
        world.answer("m", line, "*0");
        assert_eq!(world.heard(client), "*0|");
    }
    assert!(world.exchange.attending.is_empty());
    world.assert_calm();
}
