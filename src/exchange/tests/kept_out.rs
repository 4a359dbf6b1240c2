//! Floor 4. Tests: clients whose user was turned off, or has another password.

use super::{World, ms, wrong_password};
use crate::exchange::{ClientKey, LinkKey};

/// So many clients with one login before a master, to which they have one link, and which takes
/// that login no more.
fn kept_out<const N: usize>() -> (World, [ClientKey; N], LinkKey) {
    let mut world = World::new();
    let clients = [(); N].map(|()| world.client());
    for client in clients {
        world.send(client, &["AUTH app secret"]);
        assert_eq!(world.heard(client), "+OK|");
    }
    let index = world.exchange.groups[0].identities.len();
    assert_eq!(index, 1);
    world.opens = false;
    // Each login was proven by a link of its own; the others are spare.
    let spare: Vec<_> = world.exchange.groups[0]
        .pool
        .values()
        .flatten()
        .copied()
        .collect();
    for link in spare {
        world.lose(link);
    }
    let link = user_links(&world);
    assert_eq!(link.len(), 1);
    (world, clients, link[0])
}

fn user_links(world: &World) -> Vec<LinkKey> {
    let wires = world
        .wires
        .iter()
        .filter(|(_, wire)| wire.plan.login.is_some());
    wires.map(|(key, _)| *key).collect()
}

/// The node refuses whatever is opened.
fn refuse_all(world: &mut World) -> usize {
    refuse_all_of(world, 3)
}

/// The same, which is at most so much.
fn refuse_all_of(world: &mut World, most: usize) -> usize {
    let mut count = 0;
    while let Some(link) = world.opening() {
        world.refuse(link, wrong_password());
        count += 1;
        assert!(count <= most, "it is tried again and again");
    }
    count
}

fn assert_counted(world: &mut World) {
    let (mut shared, mut leased) = (0, 0);
    for (_, link) in world.exchange.links.iter() {
        match link.usage {
            crate::exchange::link::Usage::Shared | crate::exchange::link::Usage::Hub => shared += 1,
            _ => leased += 1,
        }
    }
    let group = &mut world.exchange.groups[0];
    let indices: Vec<_> = group.nodes.iter().map(|node| node.index).collect();
    let mut sum = (0, 0);
    for index in indices {
        let counts = group.counts.at(index);
        sum = (sum.0 + counts.shared, sum.1 + counts.leased);
    }
    assert_eq!(sum, (shared, leased));
}

#[test]
fn a_transaction_goes_over_the_link_that_there_is_and_others_wait_for_it() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["MULTI", "SET a 1"]);
    assert_eq!(refuse_all(&mut world), 1);
    world.send(two, &["SET b 2"]);
    assert_eq!(world.asked_on("m", "MULTI"), link);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 1", "+QUEUED");
    assert!(world.asked("m").is_empty());
    world.send(one, &["EXEC"]);
    world.answer("m", "EXEC", "*1|+OK");
    assert_eq!(world.heard(one), "+OK|+QUEUED|*1|+OK|");
    assert_eq!(world.asked_on("m", "SET b 2"), link);
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    assert!(!world.is_closed(one) && !world.is_closed(two));
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn a_link_with_requests_of_others_is_lent_when_they_are_answered() {
    let (mut world, [one, two], link) = kept_out();
    world.send(two, &["SET b 2"]);
    world.send(one, &["BLPOP q 0"]);
    assert_eq!(refuse_all(&mut world), 1);
    world.send(two, &["SET b 3"]);
    assert_eq!(world.asked("m"), ["SET b 2"]);
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(world.asked_on("m", "BLPOP q 0"), link);
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(one), "*-1|");
    world.answer("m", "SET b 3", "+OK");
    assert_eq!(world.heard(two), "+OK|+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn who_finds_none_free_waits_as_for_a_master_and_no_longer() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["BLPOP q 0"]);
    refuse_all(&mut world);
    assert_eq!(world.asked_on("m", "BLPOP q 0"), link);
    world.send(two, &["SET b 3"]);
    for _ in 0..50 {
        world.pass(ms(100));
        refuse_all(&mut world);
    }
    let heard = world.heard(two);
    assert!(heard.starts_with("-MASTERDOWN "), "{heard}");
    assert!(!world.is_closed(one) && !world.is_closed(two));
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(one), "*-1|");
    world.assert_calm();
}

#[test]
fn a_login_that_is_good_again_has_new_links_after_a_moment() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["MULTI"]);
    refuse_all(&mut world);
    world.answer("m", "MULTI", "+OK");
    world.send(two, &["SET b 3"]);
    assert_eq!(world.opening(), None);
    world.pass(ms(1000));
    let (other, plan) = world.only_opening();
    assert!(plan.login.is_some() && other != link);
    world.open(other);
    assert_eq!(world.asked_on("m", "SET b 3"), other);
    world.answer("m", "SET b 3", "+OK");
    world.send(one, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn a_link_is_turned_to_another_database_and_back() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["SELECT 3", "SET a 1"]);
    // May this user select at all?
    refuse_all(&mut world);
    assert_eq!(world.asked("m"), ["SELECT 3"]);
    world.answer("m", "SELECT 3", "+OK");
    while world
        .asked("m")
        .first()
        .is_some_and(|it| it.starts_with("SELECT"))
    {
        let request = world.asked("m")[0].clone();
        world.answer("m", &request, "+OK");
    }
    assert_eq!(world.asked_on("m", "SET a 1"), link);
    world.send(two, &["SET b 1"]);
    assert_eq!(world.asked("m"), ["SET a 1"], "behind what is in flight");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(one), "+OK|+OK|");
    world.answer("m", "SELECT 0", "+OK");
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    world.send(one, &["SET a 2"]);
    world.answer("m", "SELECT 3", "+OK");
    world.answer("m", "SET a 2", "+OK");
    assert_eq!(world.heard(one), "+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn what_a_server_says_against_a_database_its_client_hears() {
    let (mut world, [one], _) = kept_out();
    world.send(one, &["SELECT 99", "SET a 1"]);
    refuse_all(&mut world);
    world.answer("m", "SELECT 99", "-ERR DB index is out of range");
    assert_eq!(world.heard(one), "-ERR DB index is out of range|");
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(one), "+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn a_link_is_turned_to_another_protocol() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["HELLO 3", "SET a 1"]);
    refuse_all(&mut world);
    assert_eq!(world.asked_on("m", "HELLO 3"), link);
    let facts = "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:5";
    world.answer("m", "HELLO 3", facts);
    let heard = world.heard(one);
    assert!(heard.starts_with("%3|$6|server|"), "{heard}");
    assert_eq!(world.asked_on("m", "SET a 1"), link);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(one), "+OK|");
    world.assert_calm();
}

#[test]
fn one_client_may_hear_and_ask_over_one_link_in_turn() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["SUBSCRIBE a"]);
    refuse_all(&mut world);
    if world
        .asked("m")
        .first()
        .is_some_and(|it| it.starts_with("HELLO"))
    {
        world.answer("m", "HELLO 3", "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:5");
    }
    assert_eq!(world.asked_on("m", "SUBSCRIBE a"), link);
    world.answer("m", "SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1");
    assert_eq!(world.heard(one), "*3|$9|subscribe|$1|a|:1|");
    assert_counted(&mut world);
    world.say(link, ">3|$7|message|$1|a|$1|m");
    assert_eq!(world.heard(one), "*3|$7|message|$1|a|$1|m|");
}

#[test]
fn nobody_takes_the_last_link_from_others_to_hear_something() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["SUBSCRIBE a"]);
    refuse_all(&mut world);
    world.send(two, &["SET b 1"]);
    assert_eq!(world.asked_on("m", "SET b 1"), link);
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    for _ in 0..50 {
        world.pass(ms(100));
        refuse_all(&mut world);
    }
    let heard = world.heard(one);
    assert!(heard.starts_with("-MASTERDOWN "), "{heard}");
    assert!(!world.is_closed(one));
    world.assert_calm();
}

#[test]
fn the_last_link_with_a_login_is_not_closed_for_being_idle() {
    let (mut world, [one], link) = kept_out();
    world.pass(ms(200_000));
    assert_eq!(user_links(&world), [link]);
    world.leave(one);
    assert!(user_links(&world).is_empty());
}

#[test]
fn a_replica_that_does_not_know_a_user_is_not_asked_each_time() {
    let (mut world, [one], _) = kept_out();
    world.send(one, &["GET a"]);
    assert_eq!(refuse_all(&mut world), 1);
    world.answer("m", "GET a", "$1|1");
    world.send(one, &["GET a"]);
    assert_eq!(world.opening(), None);
    world.answer("m", "GET a", "$1|1");
    assert_eq!(world.heard(one), "$1|1|$1|1|");
    world.pass(ms(1000));
    world.send(one, &["GET a"]);
    assert_eq!(refuse_all(&mut world), 1, "it may know it now");
    world.answer("m", "GET a", "$1|1");
    world.assert_calm();
}

#[test]
fn a_user_that_is_gone_with_its_links_is_seen_to_be_deleted() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["MULTI"]);
    refuse_all(&mut world);
    world.answer("m", "MULTI", "+OK");
    world.lose(link);
    world.pass(ms(1000));
    world.send(two, &["SET b 1"]);
    refuse_all(&mut world);
    assert!(world.is_closed(one) && world.is_closed(two));
}

/// The master answers what puts a link in order.
fn put_in_order(world: &mut World) {
    assert_eq!(world.asked("m"), ["DISCARD"]);
    world.answer("m", "DISCARD", "-ERR DISCARD without MULTI");
    world.answer("m", "UNWATCH", "+OK");
    world.answer("m", "CLIENT SETNAME switchman", "-NOPERM no");
}

#[test]
fn a_link_that_others_must_not_get_as_it_is_is_put_in_order() {
    for ends in [&["EXEC"][..], &["DISCARD"]] {
        let (mut world, [one], link) = kept_out();
        world.send(one, &["WATCH a"]);
        refuse_all(&mut world);
        world.answer("m", "WATCH a", "+OK");
        world.send(one, &["SELECT 3"]);
        world.answer("m", "SELECT 3", "+OK");
        world.send(one, &["MULTI"]);
        world.answer("m", "MULTI", "+OK");
        world.send(one, ends);
        world.answer("m", ends[0], "+OK");
        world.send(one, &["SET a 1"]);
        put_in_order(&mut world);
        assert_eq!(world.asked_on("m", "SET a 1"), link, "in database 3 still");
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(one), "+OK|+OK|+OK|+OK|+OK|");
        assert_counted(&mut world);
        world.assert_calm();
    }
}

#[test]
fn what_a_client_leaves_behind_in_the_middle_of_a_transaction_serves_others() {
    let (mut world, [one, two], link) = kept_out();
    world.send(one, &["MULTI", "SET a 1"]);
    refuse_all(&mut world);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET a 1", "+QUEUED");
    world.send(two, &["SET b 1"]);
    world.leave(one);
    world.answer("m", "DISCARD", "+OK");
    world.answer("m", "UNWATCH", "+OK");
    world.answer("m", "CLIENT SETNAME switchman", "+OK");
    assert_eq!(world.asked_on("m", "SET b 1"), link);
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(two), "+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn a_link_for_administration_serves_others_behind_that() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["DEBUG SLEEP 0"]);
    refuse_all(&mut world);
    world.answer("m", "DEBUG SLEEP 0", "+OK");
    world.send(one, &["SET b 1"]);
    put_in_order(&mut world);
    assert_eq!(world.asked_on("m", "SET b 1"), link);
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(one), "+OK|+OK|");
    world.assert_calm();
}

#[test]
fn a_link_on_its_way_goes_with_the_last_session_that_has_its_login() {
    for requests in [&["WATCH a"][..], &["SELECT 3"]] {
        let (mut world, [one], link) = kept_out();
        world.send(one, requests);
        refuse_all(&mut world);
        if requests == ["WATCH a"] {
            world.answer("m", "WATCH a", "+OK");
        }
        world.leave(one);
        let next = world.client();
        world.send(next, &["AUTH next secret", "SET a 1"]);
        while let Some(opening) = world.opening() {
            world.open(opening);
        }
        while let Some(request) = world.asked("m").first().cloned() {
            let on_old = world
                .wires
                .get(&link)
                .is_some_and(|it| !it.asked.is_empty());
            assert!(!on_old || request != "SET a 1", "with the login of another");
            world.answer("m", &request, "+OK");
        }
        assert!(!world.links("m").contains(&link));
    }
}

#[test]
fn a_ping_is_asked_over_the_link_that_there_is() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["BLPOP q 1"]);
    refuse_all(&mut world);
    world.answer("m", "BLPOP q 1", "*-1");
    assert_eq!(world.heard(one), "*-1|");
    // It lies in the pool, and a new one is tried.
    world.pass(ms(1000));
    world.send(one, &["PING"]);
    assert_eq!(refuse_all(&mut world), 1);
    assert_eq!(world.asked_on("m", "PING"), link);
    world.answer("m", "PING", "-NOPERM no");
    assert_eq!(world.heard(one), "-NOPERM no|");
    world.assert_calm();
}

#[test]
fn who_has_the_only_link_for_itself_asks_all_over_it() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["SELECT 3"]);
    refuse_all(&mut world);
    while let Some(request) = world.asked("m").first().cloned() {
        world.answer("m", &request, "+OK");
    }
    world.send(one, &["WATCH a"]);
    world.answer("m", "WATCH a", "+OK");
    world.send(one, &["PING", "CLIENT GETNAME"]);
    world.answer("m", "PING", "+PONG");
    world.answer("m", "CLIENT GETNAME", "-NOPERM no");
    assert_eq!(world.heard(one), "+OK|+OK|+PONG|-NOPERM no|");
    world.send(one, &["SELECT 0"]);
    world.answer("m", "SELECT 0", "+OK");
    world.send(one, &["PING", "WHOAMI", "ACL WHOAMI"]);
    world.answer("m", "PING", "+PONG");
    world.answer("m", "WHOAMI", "-ERR no");
    world.answer("m", "ACL WHOAMI", "$3|app");
    assert_eq!(world.heard(one), "+OK|+PONG|-ERR no|$3|app|");
    assert_eq!(world.links("m").iter().filter(|it| **it == link).count(), 1);
    world.send(one, &["UNWATCH"]);
    world.answer("m", "UNWATCH", "+OK");
    put_in_order(&mut world);
    assert_eq!(world.heard(one), "+OK|");
    world.assert_calm();
}

#[test]
fn a_link_of_which_nobody_knows_as_whom_it_is_logged_in_is_closed() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["WATCH a"]);
    refuse_all(&mut world);
    world.answer("m", "WATCH a", "+OK");
    let hello = "HELLO 2 AUTH other secret nonsense";
    world.send(one, &[hello]);
    world.answer("m", hello, "-ERR syntax error");
    world.send(one, &["UNWATCH"]);
    world.answer("m", "UNWATCH", "+OK");
    assert!(!world.links("m").contains(&link));
}

#[test]
fn a_link_that_others_have_gone_past_is_regained_and_nobody_is_on_it_by_habit() {
    let (mut world, [one, two], link) = kept_out();
    for client in [one, two] {
        world.send(client, &["SET a 1"]);
        world.answer("m", "SET a 1", "+OK");
    }
    world.send(two, &["SUNIONSTORE d a"]);
    world.pass(ms(600));
    world.send(one, &["MULTI"]);
    assert_eq!(refuse_all(&mut world), 1);
    world.answer("m", "SUNIONSTORE d a", ":0");
    assert_eq!(world.asked_on("m", "MULTI"), link);
    world.answer("m", "MULTI", "+OK");
    world.send(two, &["SET b 1"]);
    assert!(world.asked("m").is_empty(), "another client's transaction");
    world.send(one, &["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(one), "+OK|+OK|+OK|");
    assert_eq!(world.heard(two), "+OK|:0|+OK|");
    assert_counted(&mut world);
    world.assert_calm();
}

#[test]
fn one_that_nobody_needed_meanwhile_stays_too() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["SUNIONSTORE d a"]);
    world.pass(ms(600));
    world.answer("m", "SUNIONSTORE d a", ":0");
    world.send(one, &["SET b 1"]);
    refuse_all(&mut world);
    assert_eq!(world.asked_on("m", "SET b 1"), link);
    world.answer("m", "SET b 1", "+OK");
    assert_eq!(world.heard(one), ":0|+OK|");
    world.assert_calm();
}

#[test]
fn who_hears_something_is_closed_where_no_link_is_left_for_that() {
    let (mut world, [one, two], link) = kept_out();
    world.opens = true;
    world.send(one, &["SUBSCRIBE a"]);
    world.answer("m", "SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1");
    let hub = world.exchange.groups[0].hubs[0].link.unwrap();
    world.opens = false;
    world.lose(hub);
    refuse_all(&mut world);
    assert!(world.is_closed(one) && !world.is_closed(two));
    world.send(two, &["SET b 1"]);
    assert_eq!(world.asked_on("m", "SET b 1"), link);
    world.answer("m", "SET b 1", "+OK");
    world.assert_calm();
}

#[test]
fn one_connection_is_tried_at_a_time() {
    let (mut world, clients, link) = kept_out::<12>();
    for client in clients {
        world.send(client, &["BLPOP q 0"]);
    }
    refuse_all_of(&mut world, 12);
    for _ in 0..3 {
        world.pass(ms(1000));
        assert_eq!(refuse_all(&mut world), 1);
    }
    world.pass(ms(1000));
    let opening = world.opening().unwrap();
    world.opens = true;
    world.open(opening);
    assert_eq!(world.asked("m").len(), 12);
    assert_eq!(world.asked_on("m", "BLPOP q 0"), link);
    while !world.asked("m").is_empty() {
        world.answer("m", "BLPOP q 0", "*-1");
    }
    world.assert_calm();
}

#[test]
fn a_link_that_cannot_be_put_in_order_is_closed() {
    for (request, reply) in [("DISCARD", "-NOPERM no"), ("UNWATCH", "-NOPERM no")] {
        let (mut world, [one, two], link) = kept_out();
        world.send(one, &["MULTI"]);
        refuse_all(&mut world);
        world.answer("m", "MULTI", "+OK");
        world.leave(one);
        if request == "UNWATCH" {
            world.answer("m", "DISCARD", "+OK");
        }
        world.answer("m", request, reply);
        assert!(!world.links("m").contains(&link));
        world.send(two, &["SET a 1"]);
        world.pass(ms(1000));
        refuse_all(&mut world);
        assert!(world.is_closed(two), "as none is left");
        world.assert_calm();
    }
}

#[test]
fn a_link_that_is_lost_on_its_way_keeps_nobody_waiting() {
    let (mut world, [one], link) = kept_out();
    world.send(one, &["SELECT 3"]);
    refuse_all(&mut world);
    assert_eq!(world.asked("m"), ["SELECT 3"]);
    world.lose(link);
    world.pass(ms(1000));
    refuse_all(&mut world);
    assert!(world.is_closed(one), "it was the last");
    world.assert_calm();
}

#[test]
fn a_link_for_large_values_serves_all_if_it_is_the_only_one() {
    let (mut world, [client, other], _) = kept_out();
    world.opens = true;
    let pause = "CLIENT PAUSE 60000 WRITE";
    world.send(client, &[pause]);
    world.answer("m", pause, "+OK");
    world.send(client, &["DBSIZE"]);
    let apart = world.asked_on("m", "DBSIZE");
    world.answer("m", "DBSIZE", ":0");
    world.opens = false;
    for link in user_links(&world) {
        if link != apart {
            world.lose(link);
        }
    }
    assert_eq!(world.heard(client), "+OK|:0|");

    world.send(client, &["SET a 1"]);
    refuse_all(&mut world);
    assert_eq!(world.asked_on("m", "SET a 1"), apart);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|");
    world.send(other, &["MULTI", "INCR a", "EXEC"]);
    refuse_all(&mut world);
    for (request, reply) in [("MULTI", "+OK"), ("INCR a", "+QUEUED"), ("EXEC", "*1|:2")] {
        assert_eq!(world.asked_on("m", request), apart);
        world.answer("m", request, reply);
    }
    assert_eq!(world.heard(other), "+OK|+QUEUED|*1|:2|");
    assert_counted(&mut world);
    world.assert_calm();
}
