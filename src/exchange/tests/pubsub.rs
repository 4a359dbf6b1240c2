//! Floor 4. Tests: Subscriptions in RESP2 and RESP3.

use super::*;
use crate::topology::Acks;

/// A client with this subscription.
fn subscriber(world: &mut World, channel: &str) -> (ClientKey, LinkKey) {
    let client = world.client();
    let words = format!("SUBSCRIBE {channel}");
    world.send(client, &[&words]);
    let link = world.asked_on("m", &words);
    let confirmation = confirmed('*', "subscribe", channel, 1);
    world.answer("m", &words, &confirmation);
    assert_eq!(world.heard(client), confirmation);
    (client, link)
}

fn confirmed(kind: char, what: &str, name: &str, count: usize) -> String {
    format!(
        "{kind}3|${}|{what}|${}|{name}|:{count}|",
        what.len(),
        name.len()
    )
}

fn message(kind: char, channel: &str, text: &str) -> String {
    let (lc, lt) = (channel.len(), text.len());
    format!("{kind}3|$7|message|${lc}|{channel}|${lt}|{text}|")
}

#[test]
fn a_resp2_subscriber_gets_messages_and_may_do_little_else() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    world.say(link, &message('*', "news", "hello"));
    assert_eq!(world.heard(client), message('*', "news", "hello"));
    world.send(
        client,
        &["GET k", "nonsense", "get", "CLIENT ID", "EXEC", "client no"],
    );
    let context = "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
        in this context|";
    let want = format!(
        "-ERR Can't execute 'get': {context}\
         -ERR unknown command 'nonsense', with args beginning with: |\
         -ERR wrong number of arguments for 'get' command|\
         -ERR Can't execute 'client|id': {context}\
         -EXECABORT Transaction discarded because of: Can't execute 'exec': {context}\
         -ERR unknown subcommand 'no'. Try CLIENT HELP.|"
    );
    assert_eq!(world.heard(client), want);
    world.send(client, &["PING"]);
    world.answer("m", "PING", "*2|$4|pong|$0||");
    assert_eq!(world.heard(client), "*2|$4|pong|$0||");
}

#[test]
fn the_ping_of_a_subscriber_acknowledges_nothing_and_is_asked_again() {
    let pong = "*2|$4|pong|$0||";
    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "news");
    world.send(client, &["PING"]);
    world.picture.acks = Acks::Kept;
    world.switching();
    world.answer("m", "PING", pong);
    assert_eq!(world.heard(client), pong);

    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "news");
    world.send(client, &["PING"]);
    world.lose_node("m");
    let confirmation = confirmed('*', "subscribe", "news", 1);
    world.answer("m", "SUBSCRIBE news", &confirmation);
    world.answer("m", "PING", pong);
    assert_eq!(world.heard(client), pong);
}

#[test]
fn a_pipeline_around_a_subscription_is_answered_in_order() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a", "PING", "UNSUBSCRIBE a", "GET k"]);
    world.answer("m", "SUBSCRIBE a", &confirmed('*', "subscribe", "a", 1));
    world.answer("m", "PING", "*2|$4|pong|$0||");
    world.answer("m", "UNSUBSCRIBE a", &confirmed('*', "unsubscribe", "a", 0));
    world.answer("r1", "GET k", "$1|1");
    let want = format!(
        "{}*2|$4|pong|$0||{}$1|1|",
        confirmed('*', "subscribe", "a", 1),
        confirmed('*', "unsubscribe", "a", 0)
    );
    assert_eq!(world.heard(client), want);
    world.assert_calm();
}

#[test]
fn a_subscription_waits_for_replies_that_come_from_elsewhere() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "SET b 1", "SUBSCRIBE c"]);
    world.answer("m", "SET b 1", "+OK");
    assert!(world.asked("m").is_empty());
    world.answer("r1", "GET a", "$1|1");
    world.answer("m", "SUBSCRIBE c", &confirmed('*', "subscribe", "c", 1));
    assert_eq!(
        world.heard(client),
        format!("$1|1|+OK|{}", confirmed('*', "subscribe", "c", 1))
    );
}

#[test]
fn each_name_is_confirmed_and_unsubscribe_without_names_ends_all_of_its_kind() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a b", "PSUBSCRIBE p*"]);
    let two = confirmed('*', "subscribe", "a", 1) + &confirmed('*', "subscribe", "b", 2);
    world.answer("m", "SUBSCRIBE a b", &two);
    world.answer("m", "PSUBSCRIBE p*", &confirmed('*', "psubscribe", "p*", 3));
    world.heard(client);
    world.send(
        client,
        &["UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "GET k"],
    );
    let end = confirmed('*', "unsubscribe", "a", 2) + &confirmed('*', "unsubscribe", "b", 1);
    world.answer("m", "UNSUBSCRIBE", &end);
    assert_eq!(world.heard(client), end);
    let none = "*3|$11|unsubscribe|$-1|:1|";
    world.answer("m", "UNSUBSCRIBE", none);
    let last = confirmed('*', "punsubscribe", "p*", 0);
    world.answer("m", "PUNSUBSCRIBE", &last);
    world.answer("r1", "GET k", "$1|1");
    assert_eq!(world.heard(client), format!("{none}{last}$1|1|"));
    world.assert_calm();
    assert_eq!(world.exchange.groups[0].pool.values().flatten().count(), 1);
}

#[test]
fn a_pattern_and_a_channel_that_both_match_give_two_messages() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    let both = message('*', "a", "x") + "*4|$8|pmessage|$1|*|$1|a|$1|x|";
    world.say(link, &both);
    assert_eq!(world.heard(client), both);
}

#[test]
fn a_reply_that_looks_like_a_message_is_a_reply() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP message 0"]);
    world.answer("m", "BLPOP message 0", "*2|$7|message|$1|1");
    assert_eq!(world.heard(client), "*2|$7|message|$1|1|");
    world.assert_calm();
}

#[test]
fn a_resp3_subscriber_goes_on_with_other_commands_between_messages() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    assert!(world.heard(client).starts_with("%3|"));
    world.send(client, &["SUBSCRIBE a", "GET k", "SET j 1"]);
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.say(link, &message('>', "a", "x"));
    world.answer("m", "SET j 1", "+OK");
    world.answer("r1", "GET k", "$1|1");
    let want = confirmed('>', "subscribe", "a", 1) + &message('>', "a", "x");
    assert_eq!(world.heard(client), want + "$1|1|+OK|");
    world.send(client, &["BLPOP q 0"]);
    assert_eq!(world.asked_on("m", "BLPOP q 0"), link);
    world.say(link, &message('>', "a", "y"));
    world.answer("m", "BLPOP q 0", "_");
    assert_eq!(world.heard(client), message('>', "a", "y") + "_|");
    world.send(client, &["HELLO"]);
    assert!(world.heard(client).starts_with("%3|"));
}

#[test]
fn what_a_resp3_subscriber_publishes_for_itself_comes_before_the_reply_and_behind_earlier_ones() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "SUBSCRIBE a"]);
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.heard(client);
    world.send(client, &["GET k", "PUBLISH a x", "PING", "SET j 1"]);
    assert!(world.asked("m").is_empty(), "a reply is due elsewhere");
    world.answer("r1", "GET k", "$-1");
    assert_eq!(world.asked_on("m", "PUBLISH a x"), link);
    world.say(link, &message('>', "a", "x"));
    world.answer("m", "PUBLISH a x", ":1");
    world.answer("m", "SET j 1", "+OK");
    let pushed = message('>', "a", "x");
    assert_eq!(world.heard(client), format!("$-1|{pushed}:1|+PONG|+OK|"));
}

#[test]
fn a_reset_leaves_no_message_behind_that_came_before_it() {
    for resp3 in [false, true] {
        let mut world = World::new();
        let client = world.client();
        let kind = if resp3 { '>' } else { '*' };
        if resp3 {
            world.send(client, &["HELLO 3"]);
        }
        world.send(client, &["SUBSCRIBE a"]);
        let link = world.asked_on("m", "SUBSCRIBE a");
        world.answer("m", "SUBSCRIBE a", &confirmed(kind, "subscribe", "a", 1));
        world.heard(client);
        world.send(client, &["RESET", "GET k"]);
        assert_eq!(world.asked_on("m", "RESET"), link);
        world.say(link, &message(kind, "a", "x"));
        assert!(world.asked("r1").is_empty());
        world.answer("m", "RESET", "+RESET");
        assert!(!world.wires.contains_key(&link));
        world.answer("r1", "GET k", "$-1");
        let pushed = message(kind, "a", "x");
        assert_eq!(world.heard(client), format!("{pushed}+RESET|$-1|"));
        world.assert_calm();
    }
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
fn a_message_in_the_middle_of_a_long_reply_follows_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "SUBSCRIBE a"]);
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.send(client, &["GET big"]);
    world.heard(client);
    let half = format!("$80000\r\n{}", "x".repeat(40_000));
    let replica = world.asked_on("r1", "GET big");
    world.wires.get_mut(&replica).unwrap().asked.clear();
    world.say_raw(replica, half.as_bytes()).unwrap();
    world.say(link, &message('>', "a", "m"));
    world.say(replica, &"x".repeat(40_000));
    let heard = world.heard(client);
    assert!(heard.ends_with(&format!("x|{}", message('>', "a", "m"))));
    world.send(client, &["RESET"]);
    world.answer("m", "RESET", "+RESET");
    world.assert_calm();
}

#[test]
fn subscriptions_are_made_again_after_a_switch_without_a_word() {
    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "news");
    world.switching();
    world.switch_to("r1", &[]);
    world.answer(
        "r1",
        "SUBSCRIBE news",
        &confirmed('*', "subscribe", "news", 1),
    );
    assert_eq!(world.heard(client), "");
    let link = *world.links("r1").last().unwrap();
    let text = message('*', "news", "still here");
    world.say(link, &text);
    assert_eq!(world.heard(client), text);
    world.send(client, &["UNSUBSCRIBE"]);
    let end = confirmed('*', "unsubscribe", "news", 0);
    world.answer("r1", "UNSUBSCRIBE", &end);
    assert_eq!(world.heard(client), end);
    world.assert_calm();
}

#[test]
fn subscriptions_are_made_again_at_once_when_only_the_link_breaks() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    world.lose(link);
    assert_eq!(world.asked("m"), ["SUBSCRIBE news"]);
    world.answer(
        "m",
        "SUBSCRIBE news",
        "-NOPERM no permission for this channel",
    );
    assert!(
        world.is_closed(client),
        "it would wait for messages that never come"
    );
}

#[test]
fn a_link_that_breaks_between_two_confirmations_that_nobody_hears_is_replaced_too() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["SUBSCRIBE b"]);
    let second = confirmed('*', "subscribe", "b", 2);
    world.answer("m", "SUBSCRIBE b", &second);
    assert_eq!(world.heard(client), second);
    world.lose(link);
    let link = world.asked_on("m", "SUBSCRIBE a b");
    world.say(link, &confirmed('*', "subscribe", "a", 1));
    world.lose(link);
    let link = world.asked_on("m", "SUBSCRIBE a b");
    for (count, name) in (1..).zip(["a", "b"]) {
        world.say(link, &confirmed('*', "subscribe", name, count));
    }
    let text = message('*', "b", "still here");
    world.say(link, &text);
    assert_eq!(world.heard(client), text);
    assert!(!world.is_closed(client));
}

#[test]
fn a_subscription_lost_while_the_client_is_busy_elsewhere_is_made_again_later() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3", "SUBSCRIBE a"]);
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.send(client, &["SET k 1"]);
    world.lose(link);
    assert_eq!(world.asked("m"), ["SET k 1"]);
    world.answer("m", "SET k 1", "+OK");
    world.pass(ms(50));
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.heard(client);
    world.send(client, &["RESET"]);
    world.answer("m", "RESET", "+RESET");
    assert_eq!(world.heard(client), "+RESET|");
    world.assert_calm();
}

#[test]
fn a_subscription_that_was_not_confirmed_is_asked_for_again_and_confirmed_once() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a"]);
    world.switch_to("r1", &[]);
    world.answer("r1", "SUBSCRIBE a", &confirmed('*', "subscribe", "a", 1));
    assert_eq!(world.heard(client), confirmed('*', "subscribe", "a", 1));
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
fn reset_and_quit_end_a_subscription() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["RESET", "GET k"]);
    world.answer("m", "RESET", "+RESET");
    assert!(!world.wires.contains_key(&link));
    world.answer("r1", "GET k", "$1|1");
    assert_eq!(world.heard(client), "+RESET|$1|1|");
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["QUIT"]);
    assert_eq!(world.heard(client), "+OK|");
    assert!(world.is_closed(client) && !world.wires.contains_key(&link));
    world.assert_calm();
}

#[test]
fn a_subscription_the_server_ends_is_passed_on() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    let end = confirmed('*', "unsubscribe", "a", 0);
    world.say(link, &end);
    assert_eq!(world.heard(client), end);
    world.send(client, &["GET k"]);
    world.answer("r1", "GET k", "$1|1");
    world.assert_calm();
}

#[test]
fn a_subscriber_that_does_not_read_throttles_its_own_link_and_is_closed() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    let other = world.client();
    world.deaf.push(client);
    let text = message('*', "a", &"x".repeat(100_000));
    while !world.exchange.is_throttled(link) {
        world.say(link, &text);
    }
    world.send(other, &["SET a 1"]);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(other), "+OK|");
    world.pass(Duration::from_secs(31));
    assert!(world.is_closed(client) && !world.wires.contains_key(&link));
}

#[test]
fn a_subscriber_that_did_not_keep_up_is_closed_with_its_link_and_not_left_with_a_gap() {
    for (catches_up, stays) in [(None, false), (Some(9), false), (Some(11), true)] {
        let mut world = World::new();
        let (client, link) = subscriber(&mut world, "a");
        world.deaf.push(client);
        let text = message('*', "a", &"x".repeat(100_000));
        while !world.exchange.is_throttled(link) {
            world.say(link, &text);
        }
        if let Some(seconds) = catches_up {
            world.deaf.clear();
            let output = world.exchange.output(client).len();
            world.exchange.took(client, output, world.now);
            world.pass(Duration::from_secs(seconds));
        }
        world.lose(link);
        assert_eq!(world.is_closed(client), !stays, "{catches_up:?}");
    }
}

#[test]
fn subscriptions_are_confirmed_to_a_client_that_wants_no_replies() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT REPLY OFF", "SUBSCRIBE a"]);
    let begin = confirmed('*', "subscribe", "a", 1);
    world.answer("m", "SUBSCRIBE a", &begin);
    world.send(client, &["UNSUBSCRIBE a"]);
    let end = confirmed('*', "unsubscribe", "a", 0);
    world.answer("m", "UNSUBSCRIBE a", &end);
    assert_eq!(world.heard(client), begin + &end);
}

#[test]
fn a_subscriber_whose_new_link_is_refused_is_closed_and_not_refused_again_and_again() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SELECT 1", "SUBSCRIBE a"]);
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", "*3|$9|subscribe|$1|a|:1");
    world.opens = false;
    world.lose(link);
    let words = b"-BUSY Redis is busy running a script.\r\n";
    let stage = crate::telemetry::ConnectStage::Handshake;
    let busy = OpenFailure::Refused(stage, Box::from(&words[..]));
    let again = world.opening().unwrap();
    world.refuse(again, busy);
    assert_eq!(world.opening(), None);
    assert!(world.is_closed(client));
    world.assert_calm();
}
