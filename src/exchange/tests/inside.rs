//! Floor 4. Tests: Commands about the connection between MULTI and EXEC.

use super::*;

/// A client with an open transaction, to which these are queued.
fn queued(world: &mut World, lines: &[&str]) -> ClientKey {
    let client = world.client();
    world.send(client, &["MULTI"]);
    world.send(client, lines);
    world.answer("m", "MULTI", "+OK");
    for line in lines {
        // Only its own clients are listed, by Switchman.
        let sent = if *line == "CLIENT LIST" {
            "CLIENT LIST ?"
        } else {
            line
        };
        world.answer("m", sent, "+QUEUED");
    }
    let heard = world.heard(client);
    assert_eq!(heard, format!("+OK|{}", "+QUEUED|".repeat(lines.len())));
    client
}

/// Its EXEC has this reply.
fn executes(world: &mut World, client: ClientKey, reply: &str) -> String {
    world.send(client, &["EXEC"]);
    world.answer("m", "EXEC", reply);
    world.heard(client)
}

#[test]
fn what_the_link_says_of_itself_the_session_says_instead() {
    let mut world = World::new();
    let lines = [
        "CLIENT ID",
        "SET a 1",
        "CLIENT SETNAME web",
        "CLIENT GETNAME",
        "CLIENT LIST",
        "PING",
    ];
    let client = queued(&mut world, &lines);
    let heard = executes(
        &mut world,
        client,
        "*6|:77|+OK|+OK|$9|switchman|-ERR syntax error|+PONG",
    );
    let (begin, end) = ("*6|:101|+OK|+OK|$3|web|$", "|+PONG|");
    assert!(heard.starts_with(begin) && heard.ends_with(end), "{heard}");
    assert!(heard.contains("|id=101 addr="), "{heard}");
    world.send(client, &["CLIENT GETNAME"]);
    assert_eq!(world.heard(client), "$3|web|");
    let pooled = world.exchange.groups[0].pool.values().flatten().count();
    assert_eq!(pooled, 0, "the link has a name that is another client's");
    world.assert_calm();
}

#[test]
fn a_link_that_was_only_asked_goes_back_to_the_pool() {
    let mut world = World::new();
    let client = queued(&mut world, &["CLIENT ID", "CLIENT INFO"]);
    let heard = executes(&mut world, client, "*2|:77|$4|id=7");
    assert!(heard.starts_with("*2|:101|$"), "{heard}");
    assert!(heard.contains("|id=101 addr="), "{heard}");
    let pooled = world.exchange.groups[0].pool.values().flatten().count();
    assert_eq!(pooled, 1);
    world.assert_calm();
}

#[test]
fn nothing_takes_effect_without_exec_or_where_the_server_refuses_it() {
    let mut world = World::new();
    let client = queued(&mut world, &["CLIENT SETNAME web", "SELECT 3"]);
    world.send(client, &["DISCARD", "CLIENT GETNAME"]);
    world.answer("m", "DISCARD", "+OK");
    assert_eq!(world.heard(client), "+OK|$-1|");
    let client = queued(&mut world, &["CLIENT SETNAME web", "SELECT 99", "AUTH x y"]);
    let refused = "*3|-NOPERM no|-ERR DB index is out of range|-WRONGPASS no";
    let heard = executes(&mut world, client, refused);
    assert_eq!(heard, format!("{refused}|"));
    world.send(client, &["CLIENT GETNAME", "SET a 1"]);
    assert_eq!(world.heard(client), "$-1|");
    let link = world.asked_on("m", "SET a 1");
    let plan = &world.wires[&link].plan;
    assert_eq!((plan.database, &plan.login), (0, &None));
    world.answer("m", "SET a 1", "+OK");
    world.assert_calm();
}

#[test]
fn a_protocol_and_a_login_hold_from_their_place_on() {
    let mut world = World::new();
    let lines = [
        "CLIENT GETNAME",
        "HELLO 3 AUTH app secret",
        "CLIENT GETNAME",
    ];
    let client = queued(&mut world, &lines);
    world.send(client, &["EXEC", "SET a 1", "CLIENT GETNAME"]);
    assert_eq!(world.asked("m"), ["EXEC"], "nothing before it is known");
    let hello = "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:77";
    world.answer("m", "EXEC", &format!("*3|$-1|{hello}|_"));
    let link = world.asked_on("m", "SET a 1");
    let plan = &world.wires[&link].plan;
    assert_eq!(plan.protocol, Protocol::Resp3);
    assert_eq!(plan.login, Some(login("app", "secret")));
    world.answer("m", "SET a 1", "+OK");
    // Whether this user may ask that is asked over a link with the login and the protocol too.
    let link = world.asked_on("m", "CLIENT GETNAME");
    let plan = &world.wires[&link].plan;
    assert_eq!(plan.protocol, Protocol::Resp3);
    assert_eq!(plan.login, Some(login("app", "secret")));
    world.answer("m", "CLIENT GETNAME", "_");
    let own = hello.replace(":77", ":101");
    assert_eq!(world.heard(client), format!("*3|$-1|{own}|_|+OK|_|"));
    world.leave(client);
    // The link is the only one with its login: it is put in order.
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn what_stands_behind_a_multi_that_is_refused_holds_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["MULTI", "AUTH app secret", "SELECT 3", "EXEC"]);
    for (line, told) in [
        ("MULTI", "-NOPERM no"),
        ("AUTH app secret", "+OK"),
        ("SELECT 3", "+OK"),
        ("EXEC", "-ERR EXEC without MULTI"),
    ] {
        world.answer("m", line, told);
    }
    world.send(client, &["SET a 1"]);
    let link = world.asked_on("m", "SET a 1");
    let plan = &world.wires[&link].plan;
    assert_eq!(plan.login, Some(login("app", "secret")));
    assert_eq!(plan.database, 3);
    world.answer("m", "SET a 1", "+OK");
    let heard = "-NOPERM no|+OK|+OK|-ERR EXEC without MULTI|+OK|";
    assert_eq!(world.heard(client), heard);
    world.leave(client);
    // The link is the only one with its login: it is put in order.
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn what_asks_about_clients_behind_a_multi_that_is_refused_is_answered_here() {
    let mut world = World::new();
    let client = world.client();
    let lines = ["MULTI", "CLIENT LIST", "CLIENT INFO", "GET a"];
    world.send(client, &lines);
    assert_eq!(
        world.asked("m"),
        ["MULTI", "CLIENT LIST ?", "CLIENT INFO", "GET a"]
    );
    world.answer("m", "MULTI", "-NOPERM no");
    world.answer("m", "CLIENT LIST ?", "-ERR syntax error");
    world.answer("m", "CLIENT INFO", "$12|id=7 name=it");
    world.answer("m", "GET a", "$1|A");
    let heard = world.heard(client);
    let (refused, rest) = heard.split_once('|').unwrap();
    assert_eq!(refused, "-NOPERM no");
    assert_eq!(rest.matches("id=101 addr=10.0.0.1:").count(), 2, "{rest}");
    assert!(!rest.contains("id=7") && !rest.contains("syntax"), "{rest}");
    assert!(rest.ends_with("|$1|A|"), "{rest}");
    world.send(client, &["MULTI", "CLIENT LIST"]);
    world.answer("m", "MULTI", "-NOPERM no");
    world.answer("m", "CLIENT LIST ?", "-NOPERM not that either");
    assert_eq!(world.heard(client), "-NOPERM no|-NOPERM not that either|");
    // Where it is not, the server says what it does not queue.
    world.send(client, &["MULTI", "CLIENT LIST", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CLIENT LIST ?", "-OOM command not allowed");
    world.answer("m", "EXEC", "-EXECABORT because of previous errors");
    let heard = "+OK|-OOM command not allowed|-EXECABORT because of previous errors|";
    assert_eq!(world.heard(client), heard);
    world.leave(client);
    world.assert_calm();
}

#[test]
fn a_reply_that_is_spoken_again_begins_in_the_middle() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT REPLY OFF", "MULTI", "SET a 1"]);
    world.send(client, &["CLIENT REPLY ON", "GET a", "EXEC", "PING"]);
    world.answer("m", "MULTI", "+OK");
    for line in ["SET a 1", "CLIENT REPLY ON", "GET a"] {
        world.answer("m", line, "+QUEUED");
    }
    world.answer("m", "EXEC", "*3|+OK|+OK|$1|1");
    assert_eq!(world.heard(client), "+OK|$1|1|+PONG|");
    world.assert_calm();
}

#[test]
fn what_silences_or_acts_on_others_is_not_offered_and_what_redis_refuses_has_its_words() {
    for line in [
        "CLIENT REPLY OFF",
        "CLIENT REPLY SKIP",
        "CLIENT UNBLOCK 1",
        "SUBSCRIBE c",
    ] {
        let mut world = World::new();
        let client = queued(&mut world, &["SET a 1"]);
        world.send(client, &[line, "EXEC"]);
        world.answer("m", "DISCARD", "+OK");
        let heard = world.heard(client);
        assert!(heard.contains("is not offered"), "{heard}");
        assert!(heard.contains("|-EXECABORT "), "{heard}");
        world.assert_calm();
    }
    let mut world = World::new();
    let client = queued(&mut world, &["SET a 1"]);
    world.send(client, &["PSYNC ? -1", "SHUTDOWN"]);
    let refused = "-ERR Command not allowed inside a transaction|";
    assert_eq!(world.heard(client), refused.repeat(2));
}

#[test]
fn tracking_that_a_transaction_turns_on_sticks_to_its_link() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    world.heard(client);
    let on = "CLIENT TRACKING ON";
    world.send(client, &["MULTI", "GET a", on]);
    let link = world.asked_on("m", "MULTI");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "GET a", "+QUEUED");
    world.answer("m", on, "+QUEUED");
    world.send(client, &["EXEC", "GET b"]);
    assert_eq!(world.asked("m"), ["EXEC"], "where it is read is not known");
    world.answer("m", "EXEC", "*2|$1|1|+OK");
    assert_eq!(world.asked_on("m", "GET b"), link);
    world.answer("m", "GET b", "$1|2");
    world.say(link, ">2|$10|invalidate|*1|$1|b");
    let heard = world.heard(client);
    let end = "*2|$1|1|+OK|$1|2|>2|$10|invalidate|*1|$1|b|";
    assert!(heard.ends_with(end), "{heard}");
    // What is chosen in a transaction is over with it.
    let choice = "CLIENT CACHING YES";
    world.send(client, &["MULTI", choice, "GET c", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", choice, "+QUEUED");
    world.answer("m", "GET c", "+QUEUED");
    world.answer("m", "EXEC", "*2|+OK|$1|3");
    world.heard(client);
    world.lose(link);
    let everything = ">2|$10|invalidate|_|";
    assert_eq!(world.heard(client), everything);
    world.answer("m", on, "+OK");
    assert_eq!(world.heard(client), everything);
    world.leave(client);
    world.assert_calm();
}

#[test]
fn what_sticks_to_a_link_that_is_lost_meanwhile_is_made_again_or_ends_its_client() {
    for (line, stays) in [("CLIENT TRACKING ON", true), ("CLIENT NO-TOUCH ON", false)] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &["HELLO 3"]);
        world.send(client, &["MULTI", line, "EXEC"]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", line, "+QUEUED");
        world.heard(client);
        world.picture.acks = crate::topology::Acks::Kept;
        world.switching();
        world.answer("m", "EXEC", "*1|+OK");
        assert_eq!(world.heard(client), "");
        world.lose_node("m");
        world.picture.acks = crate::topology::Acks::Settled;
        world.switching();
        world.switch_to("r1", &[]);
        let heard = world.heard(client);
        assert!(heard.ends_with("*1|+OK|"), "{heard}");
        assert_eq!(heard.contains("invalidate"), stays, "{heard}");
        assert_eq!(world.is_closed(client), !stays);
        assert_eq!(world.asked("r1").contains(&line.to_owned()), stays);
    }
}

#[test]
fn what_makes_another_kind_of_connection_has_the_servers_word() {
    let mut world = World::new();
    let denied = "-ERR MONITOR isn't allowed for DENY BLOCKING client";
    let client = queued(&mut world, &["MONITOR", "SET a 1"]);
    let heard = executes(&mut world, client, &format!("*2|{denied}|+OK"));
    assert_eq!(heard, format!("*2|{denied}|+OK|"));
    world.assert_calm();
    // One of an older version takes it.
    let client = queued(&mut world, &["MONITOR"]);
    world.send(client, &["EXEC"]);
    let link = world.asked_on("m", "EXEC");
    world.answer("m", "EXEC", "*1|+OK");
    assert_eq!(world.heard(client), "*1|+OK|");
    world.say(link, "+1.0 [0 x] get a");
    assert_eq!(world.heard(client), "+1.0 [0 x] get a|");
    world.lose(link);
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn no_transaction_has_more_of_them_than_are_kept() {
    let mut world = World::new();
    let client = queued(&mut world, &["SET a 1"]);
    let name = format!("CLIENT SETNAME {}", "x".repeat(40_000));
    world.send(client, &[&name, &name, "EXEC"]);
    world.answer("m", &name, "+QUEUED");
    world.answer("m", "DISCARD", "+OK");
    let heard = world.heard(client);
    assert!(
        heard.starts_with("+QUEUED|-ERR switchman: 'CLIENT between"),
        "{heard}"
    );
    assert!(heard.contains("|-EXECABORT "), "{heard}");
    world.assert_calm();
}

#[test]
fn what_was_queued_before_a_loss_holds_with_the_exec_on_another_link() {
    let mut world = World::new();
    let client = queued(&mut world, &["SET a 1", "CLIENT SETNAME web"]);
    world.send(client, &["CLIENT GETNAME"]);
    world.lose_node("m");
    world.send(client, &["EXEC"]);
    world.answer("m", "MULTI", "+OK");
    for line in ["SET a 1", "CLIENT SETNAME web", "CLIENT GETNAME"] {
        world.answer("m", line, "+QUEUED");
    }
    world.answer("m", "EXEC", "*3|+OK|+OK|$3|web");
    assert_eq!(world.heard(client), "+QUEUED|*3|+OK|+OK|$3|web|");
    world.send(client, &["CLIENT GETNAME"]);
    assert_eq!(world.heard(client), "$3|web|");
    world.assert_calm();
}
