//! Floor 4. Tests: CLIENT TRACKING.

use super::*;

const EVERYTHING: &str = ">2|$10|invalidate|_|";
const ON: &str = "CLIENT TRACKING ON";

/// A RESP3 client that tracks what it reads, and its link.
fn tracking(world: &mut World) -> (ClientKey, LinkKey) {
    let client = world.client();
    world.send(client, &["HELLO 3", ON]);
    let link = world.asked_on("m", ON);
    world.answer("m", ON, "+OK");
    world.heard(client);
    (client, link)
}

#[test]
fn what_a_client_tracks_it_reads_from_its_own_link_and_hears_what_changes() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    world.send(client, &["GET a"]);
    assert_eq!(world.asked_on("m", "GET a"), link);
    world.answer("m", "GET a", "$1|1");
    world.say(link, ">2|$10|invalidate|*1|$1|a");
    assert_eq!(world.heard(client), "$1|1|>2|$10|invalidate|*1|$1|a|");
    world.send(client, &["CLIENT TRACKING OFF", "GET a"]);
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    world.answer("m", "GET a", "$1|1");
    assert_eq!(world.heard(client), "+OK|$1|1|");
    world.leave(client);
    world.assert_calm();
    // Its server still knows what this client has read.
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 0);
}

#[test]
fn tracking_that_is_on_again_goes_on_with_what_was_read_before() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    world.send(client, &["GET a"]);
    world.answer("m", "GET a", "$1|1");
    world.send(
        client,
        &["CLIENT TRACKING OFF", "SELECT 3", "GET a", "SET b 1"],
    );
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    assert_eq!(world.asked_on("m", "SELECT 3"), link, "it keeps up");
    world.answer("m", "SELECT 3", "+OK");
    world.answer("r1", "GET a", "$1|1");
    let shared = world.asked_on("m", "SET b 1");
    assert_ne!(shared, link);
    assert_eq!(world.wires[&shared].plan.database, 3);
    world.answer("m", "SET b 1", "+OK");
    world.send(client, &[ON, "GET a"]);
    assert_eq!(world.asked_on("m", ON), link);
    world.answer("m", ON, "+OK");
    world.answer("m", "GET a", "$1|1");
    world.say(link, ">2|$10|invalidate|*1|$1|a");
    let heard = world.heard(client);
    assert!(
        heard.ends_with("+OK|$1|1|>2|$10|invalidate|*1|$1|a|"),
        "{heard}"
    );
    world.send(client, &["CLIENT TRACKING OFF"]);
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    world.lose(link);
    assert_eq!(world.heard(client), "+OK|", "nobody relies on it");
    world.assert_calm();
}

#[test]
fn a_link_that_was_tracked_makes_room_for_others() {
    let settings = Settings {
        leases_max: 1,
        ..Settings::default()
    };
    let mut world = World::with(Setup {
        settings,
        ..Setup::default()
    });
    let (client, link) = tracking(&mut world);
    let other = world.client();
    world.send(other, &["BLPOP q 1"]);
    assert!(
        world
            .heard(other)
            .starts_with("-ERR switchman: all 1 connections")
    );
    world.send(client, &["CLIENT TRACKING OFF"]);
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    world.send(other, &["BLPOP q 1"]);
    assert_ne!(world.asked_on("m", "BLPOP q 1"), link);
    assert!(!world.links("m").contains(&link));
    world.answer("m", "BLPOP q 1", "*-1");
    assert_eq!(
        (world.heard(client), world.heard(other)),
        ("+OK|".to_owned(), "*-1|".to_owned())
    );
    world.assert_calm();
}

#[test]
fn the_node_tells_what_comes_before_what_becomes_invalid_and_what_behind_it() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    let invalid = ">2|$10|invalidate|*1|$1|a|";
    for told in [
        format!("+OK|{invalid}+PONG|$1|x|"),
        // With BCAST.
        format!("+OK|+PONG|$1|x|{invalid}"),
    ] {
        let lines = ["SET a 1", "PING", "ECHO x"];
        world.send(client, &lines);
        assert_eq!(world.asked("m"), lines);
        world.wires.get_mut(&link).unwrap().asked.clear();
        world.say(link, &told);
        assert_eq!(world.heard(client), told);
    }
    // Without a link nothing comes, and there is nothing to wait for.
    world.send(client, &["PING"]);
    world.switching();
    world.lose(link);
    world.send(client, &["PING"]);
    assert_eq!(world.heard(client), format!("{EVERYTHING}+PONG|+PONG|"));
    world.switch_to("r1", &[]);
    world.answer("r1", ON, "+OK");
    assert_eq!(world.heard(client), EVERYTHING);
    world.leave(client);
    world.assert_calm();
}

#[test]
fn the_node_tells_what_is_tracked_while_anything_is() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    for line in ["CLIENT TRACKINGINFO", "CLIENT GETREDIR"] {
        world.send(client, &[line]);
        assert_eq!(world.asked_on("m", line), link);
        world.answer("m", line, ":0");
    }
    assert_eq!(world.heard(client), ":0|:0|");
    world.send(client, &["CLIENT TRACKING OFF", "CLIENT GETREDIR"]);
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    world.answer("m", "CLIENT GETREDIR", ":-1");
    assert_eq!(world.heard(client), "+OK|:-1|");
    let off = "%3|$5|flags|~1|$3|off|$8|redirect|:-1|$8|prefixes|*0|";
    world.send(client, &["CLIENT TRACKINGINFO"]);
    assert_eq!(world.heard(client), off);
    world.leave(client);
    world.assert_calm();
}

#[test]
fn a_choice_is_over_with_whatever_comes_next() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    world.send(client, &["CLIENT CACHING YES", "PING", "PING"]);
    world.answer("m", "CLIENT CACHING YES", "+OK");
    for told in ["+PONG", "+PONG"] {
        assert_eq!(world.asked_on("m", "PING"), link);
        world.answer("m", "PING", told);
    }
    assert_eq!(world.heard(client), "+OK|+PONG|+PONG|");
}

#[test]
fn the_node_tells_what_is_tracked_in_resp2_too_before_it_says_that_anything_is() {
    let mut world = World::new();
    let client = world.client();
    let on = "CLIENT TRACKING ON BCAST";
    world.send(client, &[on, "CLIENT GETREDIR", "CLIENT TRACKINGINFO"]);
    let link = world.asked_on("m", on);
    for (line, told) in [
        (on, "+OK"),
        ("CLIENT GETREDIR", ":7"),
        ("CLIENT TRACKINGINFO", "*0"),
    ] {
        assert_eq!(world.asked_on("m", line), link);
        world.answer("m", line, told);
    }
    assert_eq!(world.heard(client), "+OK|:7|*0|");
}

#[test]
fn after_a_switch_all_is_invalid_and_tracking_is_on_before_the_next_read() {
    let mut world = World::new();
    let (client, _) = tracking(&mut world);
    let more = "client tracking on BCAST PREFIX p";
    world.send(client, &[more]);
    world.answer("m", more, "+OK");
    world.heard(client);
    world.switching();
    world.send(client, &["GET a"]);
    world.opens = false;
    world.switch_to("r1", &[]);
    assert_eq!(world.heard(client), EVERYTHING);
    world.opens = true;
    world.open_all();
    assert_eq!(world.asked("r1"), [ON, more, "GET a"]);
    world.answer("r1", ON, "+OK");
    world.answer("r1", more, "+OK");
    assert_eq!(world.heard(client), EVERYTHING.repeat(2));
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.lose_node("r1");
    assert_eq!(
        world.asked("r1"),
        [ON, more],
        "prefixes are news by themselves"
    );
}

#[test]
fn reads_that_are_lost_are_asked_again_where_they_are_tracked() {
    let mut world = World::new();
    let (client, link) = tracking(&mut world);
    world.send(
        client,
        &["GET a", "CLIENT TRACKING ON NOLOOP", "MULTI", "GET b"],
    );
    world.lose(link);
    let again = [ON, "GET a", "CLIENT TRACKING ON NOLOOP", "MULTI", "GET b"];
    assert_eq!(world.asked("m"), again);
    for (line, reply) in again.iter().zip(["+OK", "$1|1", "+OK", "+OK", "+QUEUED"]) {
        world.answer("m", line, reply);
    }
    let want = format!("{EVERYTHING}{EVERYTHING}$1|1|+OK|+OK|+QUEUED|");
    assert_eq!(world.heard(client), want);
    world.lose_node("m");
    world.send(client, &["EXEC"]);
    let again = [ON, "CLIENT TRACKING ON NOLOOP", "MULTI"];
    assert_eq!(world.asked("m"), again);
    for line in again {
        world.answer("m", line, "+OK");
    }
    world.answer("m", "GET b", "+QUEUED");
    world.answer("m", "EXEC", "*1|$1|1");
    assert_eq!(world.heard(client), EVERYTHING.repeat(3) + "*1|$1|1|");
}

#[test]
fn tracking_begins_when_what_was_asked_elsewhere_is_answered() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "GET a", ON]);
    world.heard(client);
    assert!(world.asked("m").is_empty());
    world.answer("r1", "GET a", "$1|1");
    world.answer("m", ON, "+OK");
    assert_eq!(world.heard(client), "$1|1|+OK|");
}

#[test]
fn a_client_is_closed_that_would_wait_for_news_in_vain() {
    let mut world = World::new();
    let (refused, link) = tracking(&mut world);
    world.lose(link);
    world.answer("m", ON, "-NOPERM no permissions");
    assert!(world.is_closed(refused));
    let old = world.client();
    world.send(old, &["CLIENT TRACKING ON BCAST"]);
    world.answer("m", "CLIENT TRACKING ON BCAST", "+OK");
    world.lose_node("m");
    assert!(world.is_closed(old), "RESP2 tells it elsewhere");
    let many = world.client();
    world.send(many, &["HELLO 3"]);
    let long = format!("{ON} BCAST PREFIX {}", "x".repeat(40_000));
    for _ in 0..2 {
        world.send(many, &[&long]);
        world.answer("m", &long, "+OK");
    }
    world.lose_node("m");
    assert!(world.is_closed(many));
}

/// A RESP3 client that says which of its reads are tracked, and its link.
fn choosing(world: &mut World) -> (ClientKey, LinkKey) {
    let client = world.client();
    let on = "CLIENT TRACKING ON OPTIN";
    world.send(client, &["HELLO 3", on, "CLIENT CACHING YES", "GET a"]);
    let link = world.asked_on("m", on);
    for (line, reply) in [(on, "+OK"), ("CLIENT CACHING YES", "+OK")] {
        world.answer("m", line, reply);
    }
    world.heard(client);
    (client, link)
}

#[test]
fn a_client_whose_choices_are_all_answered_is_tracked_again() {
    let mut world = World::new();
    let (client, link) = choosing(&mut world);
    world.answer("m", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|");
    world.send(
        client,
        &["CLIENT CACHING YES", "MULTI", "GET b", "EXEC", "GET c"],
    );
    let transaction = [
        ("CLIENT CACHING YES", "+OK"),
        ("MULTI", "+OK"),
        ("GET b", "+QUEUED"),
        ("EXEC", "*1|$1|2"),
    ];
    for (line, reply) in transaction {
        world.answer("m", line, reply);
    }
    world.heard(client);
    world.lose(link);
    assert!(!world.is_closed(client));
    assert_eq!(world.asked("m"), ["CLIENT TRACKING ON OPTIN", "GET c"]);
    world.answer_all("m");
    assert_eq!(world.heard(client), format!("{EVERYTHING}{EVERYTHING}+OK|"));
    world.send(client, &["CLIENT TRACKING OFF"]);
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    world.leave(client);
    world.assert_calm();
}

#[test]
fn a_client_is_closed_that_could_not_know_whether_a_read_is_tracked() {
    let choices = [
        (None, &[][..]),
        (Some("$1|1"), &["CLIENT CACHING YES"][..]),
        (Some("$1|1"), &["CLIENT CACHING YES", "MULTI", "GET b"][..]),
    ];
    for (answer, more) in choices {
        for answered in 0..=more.len() {
            let mut world = World::new();
            let (client, link) = choosing(&mut world);
            if let Some(answer) = answer {
                world.answer("m", "GET a", answer);
            }
            world.send(client, more);
            for line in &more[..answered] {
                let reply = if *line == "GET b" { "+QUEUED" } else { "+OK" };
                world.answer("m", line, reply);
            }
            world.lose(link);
            world.answer_all("m");
            assert!(world.is_closed(client), "{answered} of {more:?}");
        }
    }
}

#[test]
fn a_choice_that_is_refused_sticks_to_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "CLIENT CACHING YES"]);
    world.answer("m", "CLIENT CACHING YES", "-ERR not in tracking mode");
    world.assert_calm();
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 1);
}

/// A client to which others redirect, with its number, and a client that does so, with its own
/// link and that of the target. What the master calls the target's link is its number there.
fn redirected(world: &mut World) -> ([ClientKey; 2], [LinkKey; 2], String) {
    let (target, client) = (world.client(), world.client());
    let before = world.links("m");
    world.send(client, &["CLIENT TRACKING ON REDIRECT 101 NOLOOP"]);
    world.pass(ms(50));
    assert_eq!(
        world.links("m").len(),
        before.len() + 2,
        "the target's, and its own"
    );
    let (_, link) = world.exchange.redirection.only_link();
    let connection = world.exchange.links.get(link).unwrap().connection.as_ref();
    let connection = connection.unwrap().id.to_string();
    let on = format!("CLIENT TRACKING ON REDIRECT {connection} NOLOOP");
    let own = world.asked_on("m", &on);
    assert_ne!(own, link);
    world.answer("m", &on, "+OK");
    assert_eq!(world.heard(client), "+OK|");
    ([target, client], [link, own], connection)
}

#[test]
fn invalidations_go_to_the_client_to_which_another_redirects_them() {
    let mut world = World::new();
    let ([target, client], [link, own], connection) = redirected(&mut world);
    world.send(client, &["GET a"]);
    assert_eq!(world.asked_on("m", "GET a"), own);
    world.answer("m", "GET a", "$1|1");
    world.heard(client);
    let message = "*3|$7|message|$20|__redis__:invalidate|";
    let one = ">2|$10|invalidate|*1|$1|a|";
    world.say(link, one);
    assert_eq!(world.heard(target), "", "with RESP2 it has to listen");
    world.send(target, &["HELLO 3"]);
    world.heard(target);
    world.say(link, one);
    world.say(link, ">2|$10|invalidate|$-1");
    assert_eq!(world.heard(target), format!("{one}{EVERYTHING}"));
    world.send(target, &["HELLO 2", "SUBSCRIBE c"]);
    let hub = world.asked_on("m", "SUBSCRIBE c");
    world.say(hub, ">3|$9|subscribe|$1|c|:1");
    world.heard(target);
    for (said, heard) in [("*1|$1|a", "*1|$1|a|"), ("_", "$-1|"), ("$-1", "$-1|")] {
        world.say(link, &format!(">2|$10|invalidate|{said}"));
        assert_eq!(world.heard(target), format!("{message}{heard}"));
    }
    for (line, told, heard) in [
        ("CLIENT GETREDIR", format!(":{connection}"), ":101|"),
        (
            "CLIENT TRACKINGINFO",
            format!("*2|$8|redirect|:{connection}"),
            "*2|$8|redirect|:101|",
        ),
    ] {
        world.send(client, &[line]);
        assert_eq!(world.asked_on("m", line), own);
        world.answer("m", line, &told);
        assert_eq!(world.heard(client), heard);
    }
    world.leave(target);
    assert!(!world.links("m").contains(&link), "the server notices");
    let broken = ">2|$21|tracking-redir-broken|";
    world.say(own, &format!("{broken}:{connection}"));
    assert_eq!(world.heard(client), format!("{broken}:101|"));
}

#[test]
fn what_is_told_of_a_redirection_names_the_client() {
    let mut world = World::new();
    let ([_, client], _, connection) = redirected(&mut world);
    let listed = |world: &mut World| {
        world.send(client, &["CLIENT INFO"]);
        let line = world.heard(client);
        let words = line.split([' ', '|']);
        let shown = words.filter(|it| it.starts_with("flags=") || it.starts_with("redir="));
        shown.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(listed(&mut world), "flags=t redir=101");
    world.send(client, &["MULTI", "CLIENT GETREDIR", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CLIENT GETREDIR", "+QUEUED");
    world.answer("m", "EXEC", &format!("*1|:{connection}"));
    assert_eq!(world.heard(client), "+OK|+QUEUED|*1|:101|");
    world.send(client, &["CLIENT TRACKING ON", "CLIENT TRACKING OFF"]);
    world.answer("m", "CLIENT TRACKING ON", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.answer("m", "CLIENT TRACKING OFF", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    assert_eq!(listed(&mut world), "flags=N redir=-1");
}

#[test]
fn a_target_that_quits_is_told_so_when_the_server_knows() {
    for lost in [false, true] {
        let mut world = World::new();
        let ([target, _], [link, _], _) = redirected(&mut world);
        world.send(target, &["PING", "QUIT"]);
        assert_eq!(world.asked_on("m", "QUIT"), link);
        assert_eq!(world.heard(target), "+PONG|");
        assert!(!world.is_closed(target));
        if !lost {
            world.say(link, "+OK");
            assert!(world.is_closed(target));
        }
        world.lose(link);
        assert_eq!(world.heard(target), "+OK|");
        assert!(world.is_closed(target));
    }
}

#[test]
fn who_hears_for_others_is_closed_when_its_link_is_lost() {
    let mut world = World::new();
    let ([target, client], [link, _], _) = redirected(&mut world);
    world.pass(ms(61_000));
    assert_eq!(world.asked_on("m", "PING"), link, "it is not idle");
    world.say(link, "+PONG");
    assert!(!world.is_closed(target));
    world.lose(link);
    assert!(world.is_closed(target) && !world.is_closed(client));
    world.lose_node("m");
    assert!(world.is_closed(client));
}

#[test]
fn a_target_that_is_not_there_is_none() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT TRACKING ON REDIRECT 7", "PING"]);
    let heard = world.heard(client);
    let nobody = "-ERR The client ID you want redirect to does not exist|";
    assert_eq!(heard, format!("{nobody}+PONG|"));
    world.send(client, &["MULTI", "CLIENT TRACKING ON REDIRECT 101"]);
    world.answer("m", "MULTI", "+OK");
    let heard = world.heard(client);
    assert!(heard.starts_with("+OK|-ERR switchman: 'CLIENT"), "{heard}");
    // What is no number, and what is a prefix, is for the server.
    let other = world.client();
    for line in [
        "CLIENT TRACKING ON REDIRECT x",
        "CLIENT TRACKING ON PREFIX REDIRECT 7",
    ] {
        world.send(other, &[line]);
        world.answer("m", line, "-ERR no");
        assert_eq!(world.heard(other), "-ERR no|");
    }
}

#[test]
fn a_target_whose_link_does_not_open_is_waited_for_briefly() {
    let mut world = World::new();
    let (target, client) = (world.client(), world.client());
    world.opens = false;
    world.send(client, &["CLIENT TRACKING ON REDIRECT 101", "PING"]);
    world.pass(ms(1_900));
    assert_eq!(world.heard(client), "");
    let (link, _) = world.only_opening();
    world.pass(ms(200));
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-ERR switchman: not all workers"),
        "{heard}"
    );
    assert!(heard.ends_with("|+PONG|"), "{heard}");
    world.refuse(link, wrong_password());
    assert!(!world.is_closed(target), "nobody relies on it");
    world.assert_calm();
}
