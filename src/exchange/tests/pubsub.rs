//! Floor 4. Tests: Subscriptions in RESP2 and RESP3.

use super::*;

/// A client with this subscription, and the link over which it hears.
pub(super) fn subscriber(world: &mut World, channel: &str) -> (ClientKey, LinkKey) {
    let client = world.client();
    let link = subscribe(world, client, channel);
    assert_eq!(world.heard(client), confirmed('*', "subscribe", channel, 1));
    (client, link)
}

/// A client subscribes, and the master confirms.
pub(super) fn subscribe(world: &mut World, client: ClientKey, channel: &str) -> LinkKey {
    let words = format!("SUBSCRIBE {channel}");
    world.send(client, &[&words]);
    let link = world.asked_on("m", &words);
    world.answer("m", &words, &confirmed('>', "subscribe", channel, 1));
    link
}

/// Nobody hears this.
pub(super) const NOBODYS: &str = "__switchman__:nobody";
pub(super) const DENIED: &str = "-NOPERM this user has no permissions to run the 'x' command";

/// The master lets a client leave: it ends what nobody else hears, and has nothing more to say of
/// what came before.
fn leave(world: &mut World, ended: &[&str]) {
    for name in ended {
        let words = format!("UNSUBSCRIBE {name}");
        world.answer("m", &words, &confirmed('>', "unsubscribe", name, 0));
    }
    let question = format!("UNSUBSCRIBE {NOBODYS}");
    world.answer("m", &question, &confirmed('>', "unsubscribe", NOBODYS, 7));
}

/// The same for RESET.
pub(super) fn pong(world: &mut World, ended: &[&str]) {
    world.answer("m", "PING", "+PONG");
    end(world, ended);
}

fn end(world: &mut World, ended: &[&str]) {
    for name in ended {
        let words = format!("UNSUBSCRIBE {name}");
        world.answer("m", &words, &confirmed('>', "unsubscribe", name, 0));
    }
    if !ended.is_empty() {
        world.answer("m", "PING", "+PONG");
    }
}

pub(super) fn confirmed(kind: char, what: &str, name: &str, count: usize) -> String {
    format!(
        "{kind}3|${}|{what}|${}|{name}|:{count}|",
        what.len(),
        name.len()
    )
}

pub(super) fn message(kind: char, channel: &str, text: &str) -> String {
    let (lc, lt) = (channel.len(), text.len());
    format!("{kind}3|$7|message|${lc}|{channel}|${lt}|{text}|")
}

#[test]
fn a_resp2_subscriber_gets_messages_and_may_do_little_else() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "news");
    world.say(link, &message('>', "news", "hello"));
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
    world.send(client, &["PING", "PING x", "PING x y"]);
    let wrong = "-ERR wrong number of arguments for 'ping' command|";
    let pongs = "*2|$4|pong|$0||*2|$4|pong|$1|x|";
    assert_eq!(world.heard(client), format!("{pongs}{wrong}"));
}

#[test]
fn many_subscribers_share_one_subscription() {
    let mut world = World::new();
    let (first, link) = subscriber(&mut world, "a");
    let others: Vec<_> = (0..10)
        .map(|at| {
            let client = world.client();
            if at % 2 == 0 {
                world.send(client, &["HELLO 3"]);
                world.heard(client);
            }
            assert_eq!(subscribe(&mut world, client, "a"), link);
            let kind = if at % 2 == 0 { '>' } else { '*' };
            assert_eq!(world.heard(client), confirmed(kind, "subscribe", "a", 1));
            (client, kind)
        })
        .collect();
    world.say(link, &message('>', "a", "x"));
    assert_eq!(world.heard(first), message('*', "a", "x"));
    for (client, kind) in &others {
        assert_eq!(world.heard(*client), message(*kind, "a", "x"));
    }
    for (client, _) in &others {
        world.leave(*client);
    }
    world.send(first, &["UNSUBSCRIBE a"]);
    leave(&mut world, &["a"]);
    world.assert_calm();
}

#[test]
fn who_subscribes_while_the_last_one_leaves_goes_on_hearing() {
    let mut world = World::new();
    let (first, link) = subscriber(&mut world, "a");
    let second = world.client();
    world.send(second, &["SUBSCRIBE a"]);
    world.leave(first);
    let asked = world.asked("m");
    assert_eq!(asked, ["SUBSCRIBE a"], "it is not ended behind that");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.heard(second);
    world.say(link, &message('>', "a", "x"));
    assert_eq!(world.heard(second), message('*', "a", "x"));
    // Behind the end of the last one it is begun anew.
    world.leave(second);
    let third = world.client();
    world.send(third, &["SUBSCRIBE a"]);
    assert_eq!(world.asked("m"), ["UNSUBSCRIBE a", "SUBSCRIBE a"]);
    world.answer("m", "UNSUBSCRIBE a", &confirmed('>', "unsubscribe", "a", 0));
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    assert_eq!(world.heard(third), confirmed('*', "subscribe", "a", 1));
}

#[test]
fn who_leaves_before_its_subscription_is_confirmed_leaves_none_behind() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a b"]);
    world.leave(client);
    let two = confirmed('>', "subscribe", "a", 1) + &confirmed('>', "subscribe", "b", 2);
    world.answer("m", "SUBSCRIBE a b", &two);
    for name in ["a", "b"] {
        let words = format!("UNSUBSCRIBE {name}");
        world.answer("m", &words, &confirmed('>', "unsubscribe", name, 0));
    }
    world.assert_calm();
}

#[test]
fn each_login_has_its_own_hub() {
    let mut world = World::new();
    let (_, link) = subscriber(&mut world, "a");
    let user = world.client();
    world.send(user, &["AUTH ann pw"]);
    assert_eq!(world.heard(user), "+OK|");
    let other = subscribe(&mut world, user, "a");
    assert_ne!(link, other);
    world.heard(user);
    world.say(other, &message('>', "a", "x"));
    assert_eq!(world.heard(user), message('*', "a", "x"));
}

#[test]
fn a_pipeline_around_a_subscription_is_answered_in_order() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SUBSCRIBE a", "PING", "UNSUBSCRIBE a", "GET k"]);
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    leave(&mut world, &["a"]);
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
    world.answer("m", "SUBSCRIBE c", &confirmed('>', "subscribe", "c", 1));
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
    let two = confirmed('>', "subscribe", "a", 7) + &confirmed('>', "subscribe", "b", 8);
    world.answer("m", "SUBSCRIBE a b", &two);
    world.answer("m", "PSUBSCRIBE p*", &confirmed('>', "psubscribe", "p*", 9));
    let own = [
        ("subscribe", "a", 1),
        ("subscribe", "b", 2),
        ("psubscribe", "p*", 3),
    ];
    let own = own.map(|(what, name, count)| confirmed('*', what, name, count));
    assert_eq!(world.heard(client), own.concat());
    world.send(
        client,
        &["UNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "GET k"],
    );
    leave(&mut world, &["a", "b"]);
    let end = confirmed('*', "unsubscribe", "a", 2) + &confirmed('*', "unsubscribe", "b", 1);
    assert_eq!(world.heard(client), end);
    leave(&mut world, &[]);
    assert_eq!(world.heard(client), "*3|$11|unsubscribe|$-1|:1|");
    let question = format!("PUNSUBSCRIBE {NOBODYS}");
    world.answer("m", &question, &confirmed('>', "punsubscribe", NOBODYS, 7));
    assert_eq!(world.heard(client), "", "the server has not heard of it");
    let last = confirmed('>', "punsubscribe", "p*", 0);
    world.answer("m", "PUNSUBSCRIBE p*", &last);
    world.answer("m", "PING", "+PONG");
    world.answer("r1", "GET k", "$1|1");
    let last = confirmed('*', "punsubscribe", "p*", 0);
    assert_eq!(world.heard(client), format!("{last}$1|1|"));
    world.assert_calm();
}

#[test]
fn a_pattern_and_a_channel_that_both_match_give_two_messages() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.send(client, &["PSUBSCRIBE *"]);
    world.answer("m", "PSUBSCRIBE *", &confirmed('>', "psubscribe", "*", 2));
    world.heard(client);
    let (other, _) = subscriber(&mut world, "a");
    let both = message('>', "a", "x") + ">4|$8|pmessage|$1|*|$1|a|$1|x|";
    world.say(link, &both);
    assert_eq!(world.heard(client), both.replace('>', "*"));
    assert_eq!(world.heard(other), message('*', "a", "x"));
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
    let hears = confirmed('>', "subscribe", "a", 1) + &message('>', "a", "x");
    let read = world.asked("r1").len() + world.asked("m").len();
    assert_eq!(read, 1);
    let node = if world.asked("r1").is_empty() {
        "m"
    } else {
        "r1"
    };
    world.answer(node, "GET k", "$1|1");
    assert_eq!(world.heard(client), hears + "$1|1|+OK|");
    world.send(client, &["BLPOP q 0"]);
    assert_ne!(world.asked_on("m", "BLPOP q 0"), link);
    world.say(link, &message('>', "a", "y"));
    world.answer("m", "BLPOP q 0", "_");
    assert_eq!(world.heard(client), message('>', "a", "y") + "_|");
    world.send(client, &["HELLO"]);
    assert!(world.heard(client).starts_with("%3|"));
    world.send(client, &["MULTI", "SET j 2", "EXEC"]);
    world.say(link, &message('>', "a", "z"));
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "SET j 2", "+QUEUED");
    world.answer("m", "EXEC", "*1|+OK");
    let hears = message('>', "a", "z");
    assert_eq!(world.heard(client), hears + "+OK|+QUEUED|*1|+OK|");
}

#[test]
fn what_a_resp3_subscriber_publishes_for_itself_comes_where_the_server_puts_it() {
    for message_first in [true, false] {
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
        let pushed = message('>', "a", "x");
        if message_first {
            world.say(link, &pushed);
        }
        world.answer("m", "PUBLISH a x", ":1");
        if !message_first {
            world.say(link, &pushed);
        }
        assert_eq!(world.asked_on("m", "PING"), link);
        world.answer("m", "PING", "+PONG");
        world.answer("m", "SET j 1", "+OK");
        let told = if message_first {
            pushed + ":1|"
        } else {
            format!(":1|{pushed}")
        };
        assert_eq!(world.heard(client), format!("$-1|{told}+PONG|+OK|"));
        world.assert_calm();
    }
}

#[test]
fn who_has_left_is_not_counted_by_what_is_published_behind_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let link = subscribe(&mut world, client, "a");
    world.heard(client);
    world.send(client, &["UNSUBSCRIBE", "PUBLISH a x"]);
    let other = world.client();
    world.send(other, &["PUBLISH a y"]);
    let question = format!("UNSUBSCRIBE {NOBODYS}");
    let first = ["UNSUBSCRIBE a", &question, "PUBLISH a y"];
    assert_eq!(world.asked("m"), first, "the server hears of it first");
    assert_eq!(world.asked_on("m", "UNSUBSCRIBE a"), link);
    leave(&mut world, &["a"]);
    world.answer("m", "PUBLISH a y", ":0");
    world.answer("m", "PUBLISH a x", ":0");
    let end = confirmed('>', "unsubscribe", "a", 0);
    assert_eq!(world.heard(client), format!("{end}:0|"));
    world.assert_calm();
}

#[test]
fn a_subscriber_with_another_login_publishes_when_that_hears() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    subscribe(&mut world, client, "a");
    world.heard(client);
    world.opens = false;
    world.send(client, &["AUTH app secret", "PUBLISH a x"]);
    world.open_all();
    let link = world.asked_on("m", "SUBSCRIBE a");
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    assert_eq!(
        world.heard(client),
        "",
        "the reply to AUTH, too, has to wait"
    );
    assert_eq!(world.asked_on("m", "PING"), link);
    world.answer("m", "PING", "+PONG");
    assert_eq!(world.asked_on("m", "PUBLISH a x"), link);
    world.say(link, &message('>', "a", "x"));
    world.answer("m", "PUBLISH a x", ":1");
    let heard = message('>', "a", "x");
    assert_eq!(world.heard(client), format!("+OK|{heard}:1|"));
}

#[test]
fn a_login_of_a_subscriber_is_answered_when_it_hears_again() {
    for (login, answered) in [
        ("AUTH app secret", "+OK|"),
        ("HELLO 3 AUTH app secret", "%"),
    ] {
        for lost in [false, true] {
            let mut world = World::new();
            let client = world.client();
            world.send(client, &["HELLO 3"]);
            subscribe(&mut world, client, "a");
            world.heard(client);
            let opened = world.opened;
            world.send(client, &[login]);
            let link = world.asked_on("m", "SUBSCRIBE a");
            assert_eq!(world.heard(client), "");
            if lost {
                world.lose(link);
            } else {
                world.say(link, &confirmed('>', "subscribe", "a", 1));
                assert_eq!(world.heard(client), "");
                world.say(link, "+PONG");
            }
            let heard = world.heard(client);
            assert!(heard.starts_with(answered), "{heard}");
            let again = usize::from(lost);
            assert_eq!(world.opened - opened, 2 + again, "its proof, and the hub");
            world.leave(client);
        }
    }
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
        let link = subscribe(&mut world, client, "a");
        world.heard(client);
        world.send(client, &["RESET", "GET k"]);
        assert_eq!(world.asked_on("m", "PING"), link);
        world.say(link, &message('>', "a", "x"));
        assert!(world.asked("r1").is_empty());
        pong(&mut world, &["a"]);
        world.answer("r1", "GET k", "$-1");
        let pushed = message(kind, "a", "x");
        assert_eq!(world.heard(client), format!("{pushed}+RESET|$-1|"));
        world.assert_calm();
    }
}

#[test]
fn a_message_in_the_middle_of_a_long_reply_follows_it() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let link = subscribe(&mut world, client, "a");
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
    pong(&mut world, &["a"]);
    world.assert_calm();
}

#[test]
fn reset_and_quit_end_a_subscription() {
    let mut world = World::new();
    let (client, _) = subscriber(&mut world, "a");
    world.send(client, &["RESET", "GET k"]);
    pong(&mut world, &["a"]);
    world.answer("r1", "GET k", "$1|1");
    assert_eq!(world.heard(client), "+RESET|$1|1|");
    let (client, _) = subscriber(&mut world, "a");
    world.send(client, &["QUIT"]);
    assert_eq!(world.heard(client), "+OK|");
    assert!(world.is_closed(client));
    world.answer("m", "UNSUBSCRIBE a", &confirmed('>', "unsubscribe", "a", 0));
    world.assert_calm();
}

#[test]
fn a_subscription_the_server_ends_is_passed_on() {
    let mut world = World::new();
    let (client, link) = subscriber(&mut world, "a");
    world.say(link, &confirmed('>', "unsubscribe", "a", 0));
    assert_eq!(world.heard(client), confirmed('*', "unsubscribe", "a", 0));
    world.send(client, &["GET k"]);
    world.answer("r1", "GET k", "$1|1");
    world.assert_calm();
}

#[test]
fn a_subscriber_that_does_not_read_is_closed_and_disturbs_nobody() {
    let mut world = World::new();
    let (deaf, link) = subscriber(&mut world, "a");
    let (client, _) = subscriber(&mut world, "a");
    world.deaf.push(deaf);
    let text = "x".repeat(100_000);
    for _ in 0..10 {
        world.say(link, &message('>', "a", &text));
        assert_eq!(world.heard(client), message('*', "a", &text));
        assert!(!world.exchange.is_throttled(link) && !world.is_closed(deaf));
    }
    world.say(link, &message('>', "a", &text));
    assert!(world.is_closed(deaf) && !world.is_closed(client));
    assert_eq!(world.asked("m"), [""; 0], "the other still hears");
}

#[test]
fn subscriptions_are_confirmed_to_a_client_that_wants_no_replies() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["CLIENT REPLY OFF"]);
    subscribe(&mut world, client, "a");
    world.send(client, &["UNSUBSCRIBE a"]);
    leave(&mut world, &["a"]);
    let both = confirmed('*', "subscribe", "a", 1) + &confirmed('*', "unsubscribe", "a", 0);
    assert_eq!(world.heard(client), both);
}

#[test]
fn who_subscribes_while_another_leaves_hears_all_the_same() {
    // Before the server has heard of the one, and behind it.
    for behind in [false, true] {
        let mut world = World::new();
        let (first, link) = subscriber(&mut world, "a");
        let second = world.client();
        let words = ["SUBSCRIBE a", "UNSUBSCRIBE a"];
        let (begins, ends) = (vec![(second, words[0])], vec![(first, words[1])]);
        let all = if behind {
            [ends, begins]
        } else {
            [begins, ends]
        };
        for (client, words) in all.concat() {
            world.send(client, &[words]);
        }
        let question = format!("UNSUBSCRIBE {NOBODYS}");
        let asked = if behind {
            vec!["UNSUBSCRIBE a", &question, "SUBSCRIBE a"]
        } else {
            vec!["SUBSCRIBE a", &question]
        };
        assert_eq!(world.asked("m"), asked);
        if behind {
            leave(&mut world, &["a"]);
        }
        world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
        if !behind {
            leave(&mut world, &[]);
        }
        assert_eq!(world.asked("m"), [""; 0]);
        world.heard(first);
        world.heard(second);
        world.say(link, &message('>', "a", "x"));
        assert_eq!(world.heard(first), "");
        assert_eq!(world.heard(second), message('*', "a", "x"));
    }
}

#[test]
fn who_leaves_and_comes_back_in_one_breath_hears_what_it_has_said_last() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let link = subscribe(&mut world, client, "a");
    world.send(client, &["UNSUBSCRIBE a", "SUBSCRIBE a"]);
    leave(&mut world, &["a"]);
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    world.heard(client);
    world.say(link, &message('>', "a", "x"));
    assert_eq!(world.heard(client), message('>', "a", "x"));
    world.send(client, &["UNSUBSCRIBE a", "SUBSCRIBE a", "UNSUBSCRIBE a"]);
    leave(&mut world, &["a"]);
    world.answer("m", "SUBSCRIBE a", &confirmed('>', "subscribe", "a", 1));
    let question = format!("UNSUBSCRIBE {NOBODYS}");
    world.answer("m", &question, &confirmed('>', "unsubscribe", NOBODYS, 1));
    end(&mut world, &["a"]);
    let end = confirmed('>', "unsubscribe", "a", 0);
    assert!(world.heard(client).ends_with(&end));
    world.assert_calm();
}

#[test]
fn who_gets_the_login_of_one_that_is_leaving_hears_what_that_has_left() {
    let mut world = World::new();
    let (first, second) = (world.client(), world.client());
    world.send(first, &["AUTH app secret"]);
    let link = subscribe(&mut world, first, "a");
    world.send(second, &["HELLO 3"]);
    subscribe(&mut world, second, "a");
    world.heard(second);
    world.send(first, &["UNSUBSCRIBE a"]);
    world.send(second, &["AUTH app secret"]);
    assert_eq!(world.asked_on("m", "UNSUBSCRIBE a"), link);
    let asked: Vec<_> = world.wires[&link].asked.iter().map(|it| &*it.1).collect();
    let question = format!("UNSUBSCRIBE {NOBODYS}");
    assert_eq!(asked, ["UNSUBSCRIBE a", &question, "SUBSCRIBE a", "PING"]);
}
