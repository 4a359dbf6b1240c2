//! Floor 4. Tests: Subscriptions whose link is lost, and those that are refused.

use super::pubsub::{DENIED, NOBODYS, confirmed, message, pong, subscribe, subscriber};
use super::*;

#[test]
fn subscriptions_are_made_again_after_a_switch_without_a_word() {
    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "news");
    let (other, _) = subscriber(&mut world, "news");
    let (third, _) = subscriber(&mut world, "sports");
    world.switching();
    world.switch_to("r1", &[]);
    assert_eq!(world.asked("r1"), ["SUBSCRIBE news", "SUBSCRIBE sports"]);
    for name in ["news", "sports"] {
        let words = format!("SUBSCRIBE {name}");
        world.answer("r1", &words, &confirmed('>', "subscribe", name, 1));
    }
    let link = *world.links("r1").last().unwrap();
    for client in [client, other, third] {
        assert_eq!(world.heard(client), "");
    }
    world.say(link, &message('>', "news", "still here"));
    for client in [client, other] {
        assert_eq!(world.heard(client), message('*', "news", "still here"));
    }
    assert_eq!(world.heard(third), "");
    world.send(client, &["UNSUBSCRIBE"]);
    let question = format!("UNSUBSCRIBE {NOBODYS}");
    world.answer("r1", &question, &confirmed('>', "unsubscribe", NOBODYS, 7));
    assert_eq!(
        world.heard(client),
        confirmed('*', "unsubscribe", "news", 0)
    );
    world.assert_calm();
}

#[test]
fn subscriptions_are_made_again_at_once_when_only_the_link_breaks() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    let (other, _) = subscriber(&mut world, "sports");
    world.lose(link);
    assert_eq!(world.asked("m"), ["SUBSCRIBE news", "SUBSCRIBE sports"]);
    world.answer(
        "m",
        "SUBSCRIBE news",
        "-NOPERM no permission for this channel",
    );
    assert!(
        world.is_closed(client),
        "it would wait for messages that never come"
    );
    let confirmation = confirmed('>', "subscribe", "sports", 1);
    world.answer("m", "SUBSCRIBE sports", &confirmation);
    assert!(!world.is_closed(other) && world.heard(other).is_empty());
}

#[test]
fn a_master_that_is_busy_is_asked_again_for_what_is_heard() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    world.lose(link);
    world.answer(
        "m",
        "SUBSCRIBE news",
        "-BUSY Redis is busy running a script.",
    );
    assert!(!world.is_closed(client) && world.asked("m").is_empty());
    world.pass(Duration::from_secs(1));
    let confirmation = confirmed('>', "subscribe", "news", 1);
    world.answer("m", "SUBSCRIBE news", &confirmation);
    let link = *world.links("m").last().unwrap();
    world.say(link, &message('>', "news", "x"));
    assert_eq!(world.heard(client), message('*', "news", "x"));
}

#[test]
fn a_link_that_breaks_between_two_confirmations_that_nobody_hears_is_replaced_too() {
    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "a");
    let link = subscribe(&mut world, client, "b");
    assert_eq!(world.heard(client), confirmed('*', "subscribe", "b", 2));
    world.lose(link);
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    let link = world.asked_on("m", "SUBSCRIBE b");
    world.lose(link);
    for name in ["a", "b"] {
        let words = format!("SUBSCRIBE {name}");
        world.answer("m", &words, &confirmed('>', "subscribe", name, 1));
    }
    let link = *world.links("m").last().unwrap();
    world.say(link, &message('>', "b", "still here"));
    assert_eq!(world.heard(client), message('*', "b", "still here"));
    assert!(!world.is_closed(client));
}

#[test]
fn a_subscription_lost_while_the_client_is_busy_elsewhere_is_made_again_at_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let link = subscribe(&mut world, client, "a");
    world.send(client, &["SET k 1"]);
    world.lose(link);
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.answer("m", "SET k 1", "+OK");
    world.heard(client);
    world.send(client, &["RESET"]);
    pong(&mut world, &["a"]);
    assert_eq!(world.heard(client), "+RESET|");
    world.assert_calm();
}

#[test]
fn a_subscription_that_was_not_confirmed_is_asked_for_again_and_confirmed_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a"]);
    world.switch_to("r1", &[]);
    world.answer("r1", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    assert_eq!(world.heard(client), confirmed('*', "subscribe", "a", 1));
}

#[test]
fn an_unsubscription_whose_link_is_lost_is_done() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["UNSUBSCRIBE", "GET k"]);
    world.lose(link);
    world.answer("r1", "GET k", "$-1");
    let end = confirmed('*', "unsubscribe", "a", 0);
    assert_eq!(world.heard(client), end + "$-1|");
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn a_reset_whose_link_is_lost_is_done() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    world.send(client, &["RESET", "GET k"]);
    world.opens = false;
    world.lose(link);
    assert_eq!(world.heard(client), "+RESET|");
    world.opens = true;
    world.open_all();
    world.answer("r1", "GET k", "$-1");
    assert_eq!(world.heard(client), "$-1|");
    world.assert_calm();
}

#[test]
fn what_is_lost_behind_what_was_published_is_told_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let link = subscribe(&mut world, client, "a");
    world.heard(client);
    world.send(client, &["PUBLISH a x", "PUBLISH a y", "PING"]);
    world.answer("m", "PUBLISH a x", ":1");
    assert_eq!(world.asked("m"), ["PING", "PUBLISH a y", "PING"]);
    assert_eq!(world.heard(client), ":1|");
    world.lose(link);
    let told = world.heard(client);
    assert!(
        told.starts_with("-UNCERTAIN ") && told.ends_with("|+PONG|"),
        "{told}"
    );
    assert_eq!(told.matches('|').count(), 2, "{told}");
}

#[test]
fn a_subscription_that_is_refused_leaves_the_client_as_it_was() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a b", "GET k"]);
    world.answer(
        "m",
        "SUBSCRIBE a b",
        "-NOPERM no permission for this channel",
    );
    world.answer("r1", "GET k", "$1|1");
    assert_eq!(
        world.heard(client),
        "-NOPERM no permission for this channel|$1|1|"
    );
    world.assert_calm();
}

#[test]
fn who_may_not_leave_hears_that_and_hears_on() {
    for word in ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"] {
        let mut world = World::new();
        let (client, link) = subscriber(&mut world, "a");
        let question = format!("{word} {NOBODYS}");
        world.send(client, &[word, &format!("{word} a b"), "PING"]);
        if word == "UNSUBSCRIBE" {
            world.answer("m", "UNSUBSCRIBE a", DENIED);
        }
        for _ in 0..2 {
            assert_eq!(world.asked_on("m", &question), link);
            world.answer("m", &question, DENIED);
        }
        let pong = "*2|$4|pong|$0||";
        assert_eq!(world.heard(client), format!("{DENIED}|{DENIED}|{pong}"));
        world.say(link, &message('>', "a", "x"));
        assert_eq!(world.heard(client), message('*', "a", "x"));
        world.leave(client);
        world.answer("m", "UNSUBSCRIBE a", DENIED);
        // Nor does one hear that who wants no replies.
        let client = world.client();
        world.send(client, &["CLIENT REPLY OFF", word]);
        world.answer("m", &question, DENIED);
        assert_eq!(world.heard(client), "");
        world.assert_calm();
    }
}

#[test]
fn what_is_asked_for_who_leaves_ends_nothing_that_anybody_hears() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, NOBODYS);
    let other = world.client();
    world.send(other, &[&format!("SUBSCRIBE {NOBODYS}_")]);
    world.send(client, &["UNSUBSCRIBE x"]);
    let name = format!("{NOBODYS}_");
    let subscribed = confirmed('>', "subscribe", &name, 2);
    world.answer("m", &format!("SUBSCRIBE {name}"), &subscribed);
    let name = format!("{NOBODYS}__");
    let question = format!("UNSUBSCRIBE {name}");
    world.answer("m", &question, &confirmed('>', "unsubscribe", &name, 2));
    assert_eq!(world.heard(client), confirmed('*', "unsubscribe", "x", 1));
    world.say(link, &message('>', NOBODYS, "x"));
    assert_eq!(world.heard(client), message('*', NOBODYS, "x"));
    // What the server ends by itself meanwhile is another matter.
    world.send(client, &["UNSUBSCRIBE x"]);
    world.say(link, &confirmed('>', "unsubscribe", NOBODYS, 1));
    let ended = confirmed('*', "unsubscribe", NOBODYS, 0);
    assert_eq!(world.heard(client), ended);
    world.answer("m", &question, &confirmed('>', "unsubscribe", &name, 1));
    assert_eq!(world.heard(client), confirmed('*', "unsubscribe", "x", 0));
}

#[test]
fn an_end_that_is_refused_is_nothing_to_who_has_come_since() {
    let mut world = World::new();
    let [client, user, stays] = [world.client(), world.client(), world.client()];
    world.send(client, &["HELLO 3"]);
    subscribe(&mut world, client, "a");
    world.heard(client);
    for client in [user, stays] {
        world.send(client, &["AUTH app secret"]);
        assert_eq!(world.heard(client), "+OK|");
    }
    let link = subscribe(&mut world, user, "a");
    world.leave(user);
    world.send(client, &["AUTH app secret"]);
    let asked = &mut world.wires.get_mut(&link).unwrap().asked;
    let asked: Vec<_> = asked.drain(..).map(|(_, text)| text).collect();
    assert_eq!(asked, ["UNSUBSCRIBE a", "SUBSCRIBE a", "PING"]);
    world.say(link, DENIED);
    assert!(!world.is_closed(client));
    world.say(link, &confirmed('>', "subscribe", "a", 1));
    assert_eq!(world.heard(client), "");
    world.say(link, "+PONG");
    assert_eq!(world.heard(client), "+OK|");
    world.say(link, &message('>', "a", "x"));
    assert_eq!(world.heard(client), message('>', "a", "x"));
}

#[test]
fn subscribers_whose_new_link_is_refused_are_closed_unless_it_is_for_a_moment() {
    for (words, stays) in [
        (&b"-BUSY Redis is busy running a script.\r\n"[..], true),
        (
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
            false,
        ),
    ] {
        let mut world = World::new();
        let (client, link) = subscriber(&mut world, "a");
        world.opens = false;
        world.lose(link);
        let stage = crate::telemetry::ConnectStage::Handshake;
        let refusal = OpenFailure::Refused(stage, Box::from(words));
        let again = world.opening().unwrap();
        world.refuse(again, refusal);
        assert_eq!(world.opening(), None);
        assert_eq!(world.is_closed(client), !stays);
        world.pass(Duration::from_secs(1));
        assert_eq!(world.opening().is_some(), stays);
    }
}

const BUSY: &str = "-BUSY Redis is busy running a script.";

#[test]
fn an_end_that_a_busy_server_refuses_is_told_again() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.leave(client);
    world.answer("m", "UNSUBSCRIBE a", BUSY);
    assert!(world.asked("m").is_empty());
    world.pass(ms(1_000));
    assert_eq!(world.asked_on("m", "UNSUBSCRIBE a"), link);
    world.answer("m", "UNSUBSCRIBE a", BUSY);
    // Meanwhile somebody hears it.
    let other = world.client();
    subscribe(&mut world, other, "a");
    world.pass(ms(1_000));
    assert!(world.asked("m").is_empty());
    assert_eq!(world.heard(other), confirmed('*', "subscribe", "a", 1));
    world.assert_calm();
}

#[test]
fn an_end_that_was_refused_is_not_told_over_another_link() {
    let mut world = World::new();
    let (stays, link) = subscriber(&mut world, "b");
    let client = world.client();
    subscribe(&mut world, client, "a");
    world.leave(client);
    world.answer("m", "UNSUBSCRIBE a", BUSY);
    world.lose(link);
    let other = world.asked_on("m", "SUBSCRIBE b");
    world.answer("m", "SUBSCRIBE b", &confirmed('>', "subscribe", "b", 1));
    world.pass(ms(2_000));
    assert!(world.asked("m").is_empty(), "it knows nothing of a");
    world.say(other, &message('>', "b", "x"));
    let heard = world.heard(stays);
    assert!(heard.ends_with(&message('*', "b", "x")), "{heard}");
    world.assert_calm();
}

#[test]
fn who_may_not_leave_for_the_moment_hears_on() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["UNSUBSCRIBE a"]);
    // A script begins between the two.
    let ended = confirmed('>', "unsubscribe", "a", 0);
    world.answer("m", "UNSUBSCRIBE a", &ended);
    world.answer("m", &format!("UNSUBSCRIBE {NOBODYS}"), BUSY);
    assert_eq!(world.heard(client), format!("{BUSY}|"));
    let again = confirmed('>', "subscribe", "a", 1);
    world.answer("m", "SUBSCRIBE a", &again);
    world.say(link, &message('>', "a", "x"));
    assert_eq!(world.heard(client), message('*', "a", "x"));
    world.assert_calm();
}

#[test]
fn what_was_kept_for_a_request_that_is_refused_ends() {
    let mut world = World::new();
    let (first, link) = subscriber(&mut world, "a");
    let second = world.client();
    world.send(second, &["SUBSCRIBE a b"]);
    world.leave(first);
    assert_eq!(world.asked("m"), ["SUBSCRIBE a b"]);
    world.answer("m", "SUBSCRIBE a b", DENIED);
    assert_eq!(world.heard(second), format!("{DENIED}|"));
    assert_eq!(world.asked_on("m", "UNSUBSCRIBE a"), link);
    let ended = confirmed('>', "unsubscribe", "a", 0);
    world.answer("m", "UNSUBSCRIBE a", &ended);
    world.assert_calm();
}
