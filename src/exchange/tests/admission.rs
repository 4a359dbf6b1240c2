//! Floor 4. Tests: clients that have not logged in, before a master that may want them to.

use super::{Setup, World, ms, no_auth, unreachable, wrong_password};
use crate::exchange::{ClientKey, Exchange, LinkKey};

const NO_AUTH: &str = "-NOAUTH Authentication required.|";

/// A master at which a client is that has not logged in. That was a second ago, and links open by
/// hand from now on.
fn before() -> (World, ClientKey) {
    let mut world = World::new();
    let old = world.client();
    world.send(old, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(old), "+OK|");
    world.pass(ms(1000));
    world.opens = false;
    (world, old)
}

/// The trial; a connection that is not logged in.
fn trial(world: &World) -> LinkKey {
    let (link, plan) = world.only_opening();
    assert_eq!((plan.login, plan.database), (None, 0));
    link
}

#[test]
fn who_comes_after_a_password_was_set_has_to_log_in_and_who_came_before_goes_on() {
    let (mut world, old) = before();
    let new = world.client();
    world.send(new, &["GET a", "PING"]);
    assert_eq!(world.heard(new), "");
    let link = trial(&world);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(new), NO_AUTH.repeat(2));
    world.send(new, &["SET a 2"]);
    assert_eq!(world.heard(new), NO_AUTH, "a moment ago it was so");
    world.send(old, &["SET a 3", "PING"]);
    world.answer("m", "SET a 3", "+OK");
    assert_eq!(world.heard(old), "+OK|+PONG|");
    // No other connection can be had for it.
    world.send(old, &["MULTI", "SET a 4", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 4", "+QUEUED");
    world.answer("m", "EXEC", "*1|+OK");
    assert_eq!(world.heard(old), "+OK|+QUEUED|*1|+OK|");
    assert_eq!(world.opening(), None);
    world.assert_calm();
}

#[test]
fn all_who_come_wait_for_one_connection_which_is_spare_then() {
    let (mut world, _) = before();
    let clients = [(); 3].map(|()| world.client());
    for client in clients {
        world.send(client, &["PING"]);
    }
    let link = trial(&world);
    world.open(link);
    for client in clients {
        assert_eq!(world.heard(client), "+PONG|");
    }
    let late = world.client();
    world.send(late, &["PING", "MULTI"]);
    assert_eq!(world.asked_on("m", "MULTI"), link);
    world.answer("m", "MULTI", "+OK");
    world.send(late, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    assert_eq!(world.heard(late), "+PONG|+OK|+OK|");
    let links = world.links("m").len();
    for _ in 0..3 {
        world.pass(ms(1000));
        let client = world.client();
        world.send(client, &["PING"]);
        world.open_all();
        assert_eq!(world.heard(client), "+PONG|");
        assert_eq!(world.links("m").len(), links, "one is kept");
    }
    world.assert_calm();
}

#[test]
fn a_command_that_may_have_set_a_password_ends_what_is_believed() {
    let mut world = World::new();
    let (admin, before) = (world.client(), world.client());
    world.send(admin, &["CONFIG SET requirepass secret"]);
    world.answer("m", "CONFIG SET requirepass secret", "+OK");
    assert_eq!(world.heard(admin), "+OK|");
    world.send(before, &["PING"]);
    assert_eq!(world.heard(before), "+PONG|", "it was let in when it came");
    let new = world.client();
    world.opens = false;
    world.send(new, &["GET a"]);
    let link = trial(&world);
    // One that was begun before the next of them tells nothing.
    world.send(admin, &["CONFIG SET x y"]);
    let on_its_own = world.opening();
    assert_eq!(
        on_its_own,
        Some(link),
        "the administrator has its connection"
    );
    world.answer("m", "CONFIG SET x y", "+OK");
    world.open(link);
    assert_eq!(world.heard(new), "");
    let again = trial(&world);
    world.refuse(again, no_auth());
    assert_eq!(world.heard(new), NO_AUTH);
    assert_eq!(world.heard(admin), "+OK|");
    world.pass(ms(5_100));
    world.assert_calm();
}

#[test]
fn a_master_that_says_nothing_keeps_no_reads_from_replicas() {
    let (mut world, _) = before();
    let new = world.client();
    world.send(new, &["GET a"]);
    trial(&world);
    world.pass(ms(600));
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(new), "$1|1|");
    world.assert_calm();
}

#[test]
fn what_a_master_wanted_last_holds_while_it_cannot_be_asked() {
    let (mut world, _) = before();
    let new = world.client();
    world.send(new, &["GET a"]);
    let link = trial(&world);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(new), NO_AUTH);
    for failure in [unreachable(), wrong_password()] {
        world.pass(ms(1000));
        world.send(new, &["GET a", "SET a 1"]);
        let link = trial(&world);
        world.refuse(link, failure);
        assert_eq!(world.heard(new), NO_AUTH.repeat(2));
    }
    world.assert_calm();
}

#[test]
fn a_master_that_cannot_be_asked_is_not_asked_without_end() {
    for failure in [unreachable(), wrong_password()] {
        let (mut world, _) = before();
        let new = world.client();
        world.send(new, &["SET a 1"]);
        let link = trial(&world);
        world.refuse(link, failure);
        assert_eq!(world.opening(), None);
        world.send(new, &["GET a"]);
        assert!(world.asked("m").is_empty() && world.asked("r1").is_empty());
        world.pass(ms(1000));
        let link = trial(&world);
        world.refuse(link, no_auth());
        assert_eq!(world.heard(new), NO_AUTH.repeat(2));
        world.assert_calm();
    }
}

#[test]
fn reset_makes_a_client_one_that_comes_anew() {
    let (mut world, old) = before();
    world.send(old, &["RESET", "GET a"]);
    let link = trial(&world);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(old), format!("+RESET|{NO_AUTH}"));
    world.assert_calm();
}

#[test]
fn nobody_is_in_any_more_when_no_connection_is_left() {
    let (mut world, old) = before();
    let (idle, new) = (world.client(), world.client());
    world.lose_node("m");
    world.send(old, &["SET a 1", "SET a 2"]);
    let link = trial(&world);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(old), NO_AUTH.repeat(2));
    for client in [idle, new] {
        world.send(client, &["PING"]);
        assert_eq!(world.heard(client), NO_AUTH);
    }
    world.assert_calm();
}

#[test]
fn what_needs_no_login_does_not_wait() {
    let (mut world, _) = before();
    let new = world.client();
    world.send(new, &["RESET", "QUIT"]);
    assert_eq!(world.heard(new), "+RESET|+OK|");
    assert_eq!(world.opening(), None);
}

#[test]
fn hello_takes_a_login_or_one_that_is_not_wanted() {
    let (mut world, _) = before();
    let (refused, let_in) = (world.client(), world.client());
    world.send(refused, &["HELLO 2", "HELLO 3 AUTH app secret"]);
    let link = trial(&world);
    world.refuse(link, no_auth());
    let heard = world.heard(refused);
    assert!(heard.starts_with("-NOAUTH HELLO must be"), "{heard}");
    world.open_all();
    assert!(world.heard(refused).starts_with("%3|"));
    world.pass(ms(1000));
    world.send(let_in, &["HELLO 2"]);
    let link = trial(&world);
    world.open(link);
    assert!(world.heard(let_in).starts_with("*6|"));
    world.assert_calm();
}

#[test]
fn a_large_request_is_not_passed_on_before_its_client_is_let_in() {
    let front = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$4000000\r\n";
    let (mut world, _) = before();
    let refused = world.client();
    world.send_raw(refused, front);
    world.send_raw(refused, &[b'x'; 10_000]);
    assert!(world.asked("m").is_empty() && !is_begun(&world.exchange));
    let link = trial(&world);
    world.refuse(link, no_auth());
    let heard = world.heard(refused);
    assert!(!is_begun(&world.exchange));
    assert!(
        heard.starts_with('-') && world.is_closed(refused),
        "{heard}"
    );
    let (mut world, _) = before();
    let let_in = world.client();
    world.send_raw(let_in, front);
    let link = trial(&world);
    world.open(link);
    assert!(is_begun(&world.exchange));
    world.leave(let_in);
    world.assert_calm();
}

/// Whether anything large is on its way to a node.
fn is_begun(exchange: &Exchange) -> bool {
    exchange
        .links
        .iter()
        .any(|(_, link)| link.pipeline.is_open())
}

#[test]
fn a_new_client_during_a_switch_waits_for_the_next_master_alone() {
    let (mut world, _) = before();
    let new = world.client();
    world.send(new, &["SET a 1"]);
    trial(&world);
    world.switching();
    assert_eq!(world.opening(), None, "nothing is opened to who is left");
    world.opens = true;
    world.switch_to("r1", &["m"]);
    assert_eq!(world.asked("r1"), ["SET a 1"]);
    world.answer("r1", "SET a 1", "+OK");
    assert_eq!(world.heard(new), "+OK|");
    world.assert_calm();
}

#[test]
fn who_has_to_log_in_now_is_in_no_transaction_any_more() {
    let (mut world, old) = before();
    world.send(old, &["MULTI"]);
    world.open_all();
    world.answer("m", "MULTI", "+OK");
    world.lose_node("m");
    world.send(old, &["SET a 1", "EXEC"]);
    while let Some(link) = world.opening() {
        world.refuse(link, no_auth());
    }
    let heard = world.heard(old);
    let told = format!(
        "+OK|{NO_AUTH}-EXECABORT Transaction discarded because of: {}",
        &NO_AUTH[1..]
    );
    assert_eq!(heard, told);
    world.pass(ms(1000));
    world.opens = true;
    world.send(old, &["SET a 2"]);
    world.answer("m", "SET a 2", "+OK");
    assert_eq!(world.heard(old), "+OK|", "it is not queued");
    world.assert_calm();
}

#[test]
fn a_subscriber_is_closed_with_the_last_connection_and_not_before() {
    let (mut world, old) = before();
    world.send(old, &["SUBSCRIBE a"]);
    world.open_all();
    world.answer("m", "SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1");
    assert_eq!(world.heard(old), "*3|$9|subscribe|$1|a|:1|");
    let hub = world.exchange.groups[0].hubs[0].link.unwrap();
    // Another is turned into one.
    world.lose(hub);
    let (link, _) = world.only_opening();
    world.refuse(link, no_auth());
    world.answer("m", "HELLO 3", "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:5");
    world.pass(ms(50));
    world.answer("m", "SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1");
    assert!(!world.is_closed(old));
    world.lose_node("m");
    world.pass(ms(1000));
    let mut tries = 0;
    while let Some(link) = world.opening() {
        world.refuse(link, no_auth());
        tries += 1;
        assert!(tries < 5);
    }
    assert!(world.is_closed(old));
}

#[test]
fn who_is_in_doubt_goes_on_with_whatever_the_next_connection_tells() {
    for is_let_in in [true, false] {
        let (mut world, _) = before();
        let (one, two) = (world.client(), world.client());
        world.send(one, &["SET a 1"]);
        let first = trial(&world);
        // The master says nothing for a while: the first of them is in doubt.
        world.pass(ms(600));
        assert!(world.asked("m").is_empty());
        world.pass(ms(300));
        world.send(two, &["PING"]);
        if is_let_in {
            world.open(first);
            world.answer("m", "SET a 1", "+OK");
        } else {
            world.refuse(first, no_auth());
        }
        let want = if is_let_in { "+OK|" } else { NO_AUTH };
        assert_eq!(world.heard(one), want);
        assert_eq!(world.opening(), None);
        world.assert_calm();
    }
}

#[test]
fn a_request_that_was_lost_before_its_client_was_let_in_is_not_kept() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["GET a", "SET a 1"]);
    world.open_all();
    let link = world.link("m");
    let other = world.client();
    world.send(other, &["MULTI"]);
    world.open_all();
    world.answer("m", "MULTI", "+OK");
    world.pass(ms(1000));
    assert!(!world.asked("m").is_empty());
    world.lose(link);
    while let Some(link) = world.opening() {
        world.open(link);
    }
    world.answer_all("m");
    world.answer_all("r1");
    let heard = world.heard(client);
    assert!(heard.ends_with('|'), "{heard}");
    world.send(other, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    world.assert_calm();
}

#[test]
fn a_command_that_may_have_set_a_password_does_so_in_a_transaction_too() {
    let mut world = World::new();
    let admin = world.client();
    world.send(admin, &["MULTI", "CONFIG SET requirepass secret"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CONFIG SET requirepass secret", "+QUEUED");
    world.send(admin, &["EXEC"]);
    world.answer("m", "EXEC", "*1|+OK");
    world.opens = false;
    let new = world.client();
    world.send(new, &["PING"]);
    let link = trial(&world);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(new), NO_AUTH);
    world.assert_calm();
}
