//! Floor 4. Tests: SELECT, AUTH and HELLO of a client whose link cannot be changed for another one,
//! and what binds it to one.

use super::*;

const ON: &str = "CLIENT TRACKING ON";
const HELLO: &str = "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:77";

/// Links that nobody has.
fn pooled(world: &World) -> usize {
    world.exchange.groups[0].pool.values().flatten().count()
}

#[test]
fn a_database_selected_with_a_watch_is_that_of_link_and_session() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH k", "SELECT 3", "GET k", "SET j 1"]);
    let link = world.asked_on("m", "WATCH k");
    world.answer("m", "WATCH k", "+OK");
    assert_eq!(world.asked("m"), ["SELECT 3"], "nothing behind it is sent");
    assert_eq!(world.asked_on("m", "SELECT 3"), link);
    world.answer("m", "SELECT 3", "+OK");
    assert_eq!(world.asked("m"), ["GET k", "SET j 1"]);
    assert_eq!(world.asked_on("m", "GET k"), link);
    world.answer("m", "GET k", "$-1");
    world.answer("m", "SET j 1", "+OK");
    world.send(client, &["MULTI", "SET k 1", "EXEC", "SET i 1"]);
    assert_eq!(world.asked_on("m", "MULTI"), link);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET k 1", "+QUEUED");
    world.answer("m", "EXEC", "*1|+OK");
    let link = world.asked_on("m", "SET i 1");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer("m", "SET i 1", "+OK");
    assert_eq!(
        world.heard(client),
        "+OK|+OK|$-1|+OK|+OK|+QUEUED|*1|+OK|+OK|"
    );
    assert_eq!(pooled(&world), 0, "it was opened for another database");
    world.assert_calm();
}

#[test]
fn what_the_server_refuses_changes_nothing() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH k", "SELECT 99", "AUTH a b", "HELLO 9"]);
    world.answer("m", "WATCH k", "+OK");
    let lines = [
        ("SELECT 99", "-ERR DB index is out of range"),
        ("AUTH a b", "-WRONGPASS no"),
        ("HELLO 9", "-NOPROTO unsupported protocol version"),
    ];
    let replies: Vec<_> = lines.iter().map(|(_, reply)| *reply).collect();
    for (line, reply) in lines {
        world.answer("m", line, reply);
    }
    assert_eq!(world.heard(client), format!("+OK|{}|", replies.join("|")));
    world.send(client, &["UNWATCH", "SET a 1"]);
    world.answer("m", "UNWATCH", "+OK");
    let link = world.asked_on("m", "SET a 1");
    let plan = &world.wires[&link].plan;
    assert_eq!((plan.database, &plan.login), (0, &None));
    world.answer("m", "SET a 1", "+OK");
    world.assert_calm();
}

#[test]
fn a_login_and_a_protocol_hold_beside_a_watch() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["WATCH k", "HELLO 3 AUTH app secret SETNAME web"]);
    world.answer("m", "WATCH k", "+OK");
    world.answer("m", "HELLO 3 AUTH app secret SETNAME web", HELLO);
    let own = HELLO.replace(":77", ":101");
    assert_eq!(world.heard(client), format!("+OK|{own}|"));
    world.send(client, &["CLIENT GETNAME", "UNWATCH", "SET a 1"]);
    // The master says whether this user may ask that, and then it is answered here.
    world.answer("m", "CLIENT GETNAME", "_");
    world.answer("m", "UNWATCH", "+OK");
    let link = world.asked_on("m", "SET a 1");
    let plan = &world.wires[&link].plan;
    assert_eq!(plan.login, Some(login("app", "secret")));
    assert_eq!(plan.protocol, Protocol::Resp3);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "$3|web|+OK|+OK|");
    assert_eq!(pooled(&world), 0);
    world.leave(client);
    world.assert_calm();
}

#[test]
fn what_is_made_again_after_a_loss_is_made_with_the_new_settings() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", ON]);
    world.answer("m", ON, "+OK");
    world.send(client, &["SELECT 2", "GET a"]);
    world.answer("m", "SELECT 2", "+OK");
    let link = world.asked_on("m", "GET a");
    world.answer("m", "GET a", "$-1");
    world.lose(link);
    let link = world.asked_on("m", ON);
    let plan = &world.wires[&link].plan;
    assert_eq!((plan.database, plan.protocol), (2, Protocol::Resp3));
    world.answer("m", ON, "+OK");
    world.leave(client);
    world.assert_calm();
}

#[test]
fn one_that_is_lost_is_placed_anew_on_the_next_link() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", ON]);
    world.answer("m", ON, "+OK");
    world.heard(client);
    world.send(client, &["SELECT 2", "GET a"]);
    let link = world.asked_on("m", "SELECT 2");
    world.lose(link);
    assert_eq!(world.asked("m"), [ON, "SELECT 2"]);
    world.answer("m", ON, "+OK");
    world.answer("m", "SELECT 2", "+OK");
    world.answer("m", "GET a", "$-1");
    assert!(world.heard(client).ends_with("+OK|$-1|"));
    world.leave(client);
    world.assert_calm();
}

#[test]
fn a_subscriber_that_goes_back_to_resp2_may_do_little_from_then_on() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "SUBSCRIBE c"]);
    world.answer("m", "SUBSCRIBE c", ">3|$9|subscribe|$1|c|:1");
    world.heard(client);
    world.send(client, &["HELLO 2", "GET a"]);
    let heard = world.heard(client);
    assert!(heard.contains("|-ERR Can't execute 'get'"), "{heard}");
    world.send(client, &["UNSUBSCRIBE c", "GET a"]);
    let nobodys = "$20|__switchman__:nobody";
    let asked = "UNSUBSCRIBE __switchman__:nobody";
    world.answer("m", "UNSUBSCRIBE c", ">3|$11|unsubscribe|$1|c|:0");
    world.answer("m", asked, &format!(">3|$11|unsubscribe|{nobodys}|:1"));
    world.answer("r1", "GET a", "$-1");
    assert_eq!(world.heard(client), "*3|$11|unsubscribe|$1|c|:0|$-1|");
    world.assert_calm();
}

#[test]
fn what_the_server_refuses_binds_nobody_to_a_connection() {
    for line in [
        "CLIENT NO-TOUCH ON",
        "CLIENT CACHING YES",
        "CLIENT TRACKING X",
        "HIMPORT PREPARE a b",
    ] {
        let mut world = World::new();
        let client = world.client();
        world.send(client, &[line, "GET a"]);
        let link = world.asked_on("m", line);
        world.answer("m", line, "-ERR no");
        assert_eq!(world.asked_on("m", "GET a"), link, "it was sent behind");
        world.answer("m", "GET a", "$-1");
        assert_eq!(world.heard(client), "-ERR no|$-1|");
        world.assert_calm();
        assert_eq!(pooled(&world), 1);
        world.lose(link);
        assert!(!world.is_closed(client));
    }
}

#[test]
fn what_may_bind_and_is_lost_before_its_reply_is_asked_again() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT CACHING YES"]);
    world.lose_node("m");
    assert!(!world.is_closed(client));
    world.answer("m", "CLIENT CACHING YES", "-ERR no");
    assert_eq!(world.heard(client), "-ERR no|");
    world.send(client, &["HIMPORT SET a k b c"]);
    world.lose_node("m");
    assert!(
        world.heard(client).starts_with("-UNCERTAIN "),
        "it may write"
    );
    world.assert_calm();
}
