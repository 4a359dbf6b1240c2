//! Floor 4. Tests: AUTH, SELECT, HELLO, CLIENT, RESET, QUIT, and what a client may do before login.

use super::*;

/// A world whose nodes want a login, which is known.
fn locked() -> World {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    while let Some(link) = world.opening() {
        world.refuse(link, no_auth());
    }
    world
}

/// The client logs in and is believed.
fn log_in(world: &mut World, client: ClientKey, said: &str) {
    world.send(client, &[said]);
    let (link, _) = world.only_opening();
    world.open(link);
    assert_eq!(world.heard(client), "+OK|");
}

#[test]
fn a_login_is_proven_by_a_link_of_its_own_which_then_carries_it() {
    let mut world = locked();
    let client = world.client();
    world.send(client, &["AUTH app secret", "SET a 1"]);
    assert_eq!(world.heard(client), "");
    let (link, plan) = world.only_opening();
    assert_eq!(
        (plan.node, plan.login),
        (addr("m"), Some(login("app", "secret")))
    );
    world.open(link);
    assert_eq!(world.asked_on("m", "SET a 1"), link);
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.assert_calm();
}

#[test]
fn a_wrong_password_gets_the_nodes_own_words_and_changes_nothing() {
    let mut world = locked();
    let client = world.client();
    log_in(&mut world, client, "AUTH app secret");
    world.send(client, &["AUTH app wrong", "SET a 1"]);
    let (link, _) = world.only_opening();
    world.refuse(link, wrong_password());
    world.answer("m", "SET a 1", "+OK");
    let said = "-WRONGPASS invalid username-password pair or user is disabled.|";
    assert_eq!(world.heard(client), format!("{said}+OK|"));
    assert!(!world.is_closed(client));
    world.assert_calm();
}

#[test]
fn every_login_is_proven_anew() {
    let mut world = locked();
    let (one, two) = (world.client(), world.client());
    log_in(&mut world, one, "AUTH app secret");
    world.send(two, &["AUTH app secret"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, Some(login("app", "secret")));
    world.refuse(link, wrong_password());
    assert!(world.heard(two).starts_with("-WRONGPASS"));
    world.send(two, &["GET a"]);
    assert!(world.heard(two).starts_with("-NOAUTH"));
}

#[test]
fn users_do_not_share_lanes() {
    let mut world = locked();
    let (one, two, three) = (world.client(), world.client(), world.client());
    log_in(&mut world, one, "AUTH app secret");
    log_in(&mut world, two, "AUTH other secret");
    log_in(&mut world, three, "AUTH app secret");
    for client in [one, two, three] {
        world.send(client, &["SET a 1"]);
    }
    let on = |world: &World, client| {
        let client = world.exchange.clients.get(client).unwrap();
        client.master_link.unwrap()
    };
    assert_ne!(on(&world, one), on(&world, two));
    assert_eq!(on(&world, one), on(&world, three));
    world.answer_all("m");
    world.assert_calm();
}

#[test]
fn a_login_is_forgotten_with_the_last_session_that_has_it() {
    let mut world = locked();
    let (one, two) = (world.client(), world.client());
    log_in(&mut world, one, "AUTH app secret");
    log_in(&mut world, two, "AUTH app secret");
    world.leave(one);
    assert!(!world.links("m").is_empty());
    log_in(&mut world, two, "AUTH other secret");
    let known: Vec<_> = world.exchange.groups[0].identities.iter().collect();
    assert_eq!(known, [&(None, 0), &(Some(login("other", "secret")), 1)]);
    assert_eq!(world.links("m").len(), 1);
    world.leave(two);
    assert!(world.links("m").is_empty());
    assert!(world.exchange.groups[0].pool.is_empty());
}

#[test]
fn a_lane_that_is_refused_when_it_opens_again_closes_its_sessions() {
    let mut world = locked();
    let (uses, idle, other) = (world.client(), world.client(), world.client());
    log_in(&mut world, uses, "AUTH app secret");
    log_in(&mut world, idle, "AUTH app secret");
    log_in(&mut world, other, "AUTH other secret");
    world.lose_node("m");
    world.send(uses, &["SET a 1"]);
    let (link, _) = world.only_opening();
    world.refuse(link, wrong_password());
    assert!(world.heard(uses).starts_with("-WRONGPASS"));
    assert!(world.is_closed(uses) && world.is_closed(idle) && !world.is_closed(other));
    world.assert_calm();
}

#[test]
fn before_login_redis_looks_at_name_and_arity_first() {
    let mut world = locked();
    let client = world.client();
    world.send(
        client,
        &["FOO a b", "GET", "GET a", "CLIENT ID", "MULTI", "EXEC"],
    );
    let want = format!(
        "-ERR unknown command 'FOO', with args beginning with: 'a' 'b' |\
         -ERR wrong number of arguments for 'get' command|{}\
         -EXECABORT Transaction discarded because of: NOAUTH Authentication required.|",
        "-NOAUTH Authentication required.|".repeat(3)
    );
    assert_eq!(world.heard(client), want);
    world.send(client, &["RESET", "QUIT"]);
    assert_eq!(world.heard(client), "+RESET|+OK|");
    assert!(world.is_closed(client));
}

#[test]
fn that_a_login_is_required_is_learned_from_the_first_link_and_said_as_redis_says_it() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["FOO", "GET a", "MULTI", "SET a 1", "EXEC"]);
    while let Some(link) = world.opening() {
        world.refuse(link, no_auth());
    }
    let want = format!(
        "-ERR unknown command 'FOO', with args beginning with: |{}\
         -EXECABORT Transaction discarded because of: NOAUTH Authentication required.|",
        "-NOAUTH Authentication required.|".repeat(3)
    );
    assert_eq!(world.heard(client), want);
    let asks = world.client();
    world.send(asks, &["SELECT 1", "AUTH app secret"]);
    assert_eq!(world.heard(asks), "-NOAUTH Authentication required.|");
    world.open_all();
    assert_eq!(world.heard(asks), "+OK|");
    world.assert_calm();
}

#[test]
fn a_password_that_is_taken_away_is_asked_for_no_longer() {
    let mut world = locked();
    let client = world.client();
    world.send(client, &["SET a 1"]);
    assert_eq!(world.heard(client), "-NOAUTH Authentication required.|");
    world.pass(ms(1000));
    world.send(client, &["SET a 1"]);
    let (link, plan) = world.only_opening();
    assert_eq!(plan.login, None);
    world.refuse(link, no_auth());
    assert_eq!(world.heard(client), "-NOAUTH Authentication required.|");
    world.send(client, &["SET a 1"]);
    assert_eq!(world.opening(), None, "it was asked a moment ago");
    assert_eq!(world.heard(client), "-NOAUTH Authentication required.|");
    world.pass(ms(1000));
    world.send(client, &["SET a 1", "SET b 2"]);
    world.open_all();
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "SET b 2", "+OK");
    assert_eq!(world.heard(client), "+OK|+OK|");
    world.assert_calm();
}

#[test]
fn a_password_that_only_a_replica_wants_leaves_its_reads_to_the_master() {
    for refusal in [no_auth(), wrong_password()] {
        let mut world = World::with(Setup {
            opens: false,
            ..Setup::default()
        });
        let client = world.client();
        world.send(client, &["GET a"]);
        while let Some(link) = world.opening() {
            if is_master(&world.wires[&link].plan) {
                world.open(link);
            } else {
                world.refuse(link, refusal.clone());
            }
        }
        world.answer("m", "GET a", "$1|1");
        let other = world.client();
        world.send(other, &["SET a 2"]);
        world.answer("m", "SET a 2", "+OK");
        assert_eq!(world.heard(other), "+OK|");
        assert_eq!(world.heard(client), "$1|1|");
        assert!(!world.is_closed(client));
        world.assert_calm();
    }
}

#[test]
fn a_question_overtaken_by_the_news_that_a_login_is_required_leaves_no_verdict_behind() {
    let mut world = World::with(Setup {
        opens: false,
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["SELECT 1", "AUTH app secret", "HELLO 3"]);
    while let Some(link) = world.opening() {
        let plan = &world.wires[&link].plan;
        if plan.login.is_none() {
            world.refuse(link, no_auth());
        } else {
            world.open(link);
        }
    }
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-NOAUTH Authentication required.|+OK|%3|"),
        "{heard}"
    );
}

#[test]
fn little_may_be_announced_before_login() {
    let mut world = locked();
    let (many, long, fine) = (world.client(), world.client(), world.client());
    world.send_raw(many, b"*11\r\n");
    assert_eq!(
        world.heard(many),
        "-ERR Protocol error: unauthenticated multibulk length|"
    );
    world.send_raw(long, b"*2\r\n$16385\r\n");
    assert_eq!(
        world.heard(long),
        "-ERR Protocol error: unauthenticated bulk length|"
    );
    assert!(world.is_closed(many) && world.is_closed(long));
    log_in(&mut world, fine, "AUTH app secret");
    world.send_raw(fine, b"*11\r\n$4\r\nMSET\r\n");
    assert_eq!(world.heard(fine), "");
}

#[test]
fn the_limits_of_a_login_hold_from_the_request_behind_it_on() {
    let mut world = locked();
    let client = world.client();
    let words = (0..12)
        .map(|at| format!("k{at}"))
        .collect::<Vec<_>>()
        .join(" ");
    let said = format!("DEL {words}");
    world.send(client, &["AUTH app secret", &said]);
    world.open_all();
    world.answer("m", &said, ":0");
    assert_eq!(world.heard(client), "+OK|:0|");
}

#[test]
fn a_login_during_a_switch_waits_like_a_write() {
    let mut world = locked();
    let client = world.client();
    world.send(client, &["AUTH app secret"]);
    world.switching();
    assert!(world.links("m").is_empty());
    world.switch_to("r1", &[]);
    let plans = world.wires.values().map(|wire| &wire.plan);
    let nodes: Vec<_> = plans
        .filter(|plan| plan.login.is_some())
        .map(|plan| &plan.node)
        .collect();
    assert_eq!(nodes, [&addr("r1")]);
    world.open_all();
    assert_eq!(world.heard(client), "+OK|");
}

#[test]
fn logins_are_proven_a_few_at_a_time() {
    let mut world = locked();
    let clients: Vec<_> = (0..100).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["AUTH app secret"]);
    }
    assert_eq!(world.wires.len(), 32);
    world.leave(clients[0]);
    world.leave(clients[99]);
    assert_eq!(world.wires.len(), 32);
    let (link, _) = world.wires.iter().next().unwrap();
    world.refuse(*link, wrong_password());
    assert_eq!(world.wires.len(), 32);
    world.open_all();
    let mut heard: Vec<_> = clients[1..99]
        .iter()
        .map(|client| world.heard(*client))
        .collect();
    heard.retain(|said| said == "+OK|");
    assert_eq!(heard.len(), 97);
    world.assert_calm();
}

#[test]
fn a_master_that_is_gone_while_it_looks_at_a_login_has_the_next_one_look_at_it() {
    let mut world = locked();
    let client = world.client();
    world.send(client, &["AUTH app secret"]);
    let (link, _) = world.only_opening();
    world.refuse(link, unreachable());
    assert_eq!(world.heard(client), "");
    world.pass(ms(100));
    let proof = |world: &World| {
        let mut wires = world.wires.iter();
        wires
            .find(|(_, wire)| wire.plan.login.is_some())
            .map(|(link, _)| *link)
    };
    let link = proof(&world).unwrap();
    world.open(link);
    assert_eq!(world.heard(client), "+OK|");
}

#[test]
fn the_operators_login_serves_clients_without_one() {
    let mut world = World::with(Setup {
        group: GroupSettings {
            anonymous: Some(login("app", "lent")),
            ..Setup::default().group
        },
        ..Setup::default()
    });
    let client = world.client();
    world.send(client, &["SET a 1", "BLPOP q 0"]);
    world.answer("m", "SET a 1", "+OK");
    world.answer("m", "BLPOP q 0", "*-1");
    assert_eq!(world.heard(client), "+OK|*-1|");
    let lent = |wire: &Wire| wire.plan.login == Some(login("app", "lent"));
    assert!(world.wires.values().all(lent));
}

#[test]
fn hello_answers_with_the_masters_facts_and_the_clients_id() {
    let mut world = World::new();
    let client = world.client();
    world.send(
        client,
        &[
            "HELLO",
            "HELLO 3 SETNAME web",
            "CLIENT GETNAME",
            "GET a",
            "CLIENT ID",
        ],
    );
    let link = world.asked_on("r1", "GET a");
    assert_eq!(world.wires[&link].plan.protocol, Protocol::Resp3);
    world.answer("r1", "GET a", "_");
    let two = "*6|$6|server|$5|redis|$5|proto|:2|$2|id|:101|";
    let three = "%3|$6|server|$5|redis|$5|proto|:3|$2|id|:101|";
    assert_eq!(world.heard(client), format!("{two}{three}$3|web|_|:101|"));
    world.send(client, &["HELLO 4", "HELLO 2", "CLIENT GETNAME"]);
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-NOPROTO unsupported protocol version|*6|"),
        "{heard}"
    );
    world.assert_calm();
}

#[test]
fn hello_logs_in_or_says_that_a_login_is_due() {
    let mut world = locked();
    let client = world.client();
    world.send(client, &["HELLO 3"]);
    let text = world.heard(client);
    assert!(
        text.starts_with("-NOAUTH HELLO must be called with the client already"),
        "{text}"
    );
    // In the words of the node, once they are known.
    let other = world.client();
    let wanted = OpenFailure::LoginWanted {
        said: Box::from(&b"-NOAUTH Authentication required.\r\n"[..]),
        said_to_hello: Box::from(&b"-NOAUTH HELLO as they say here\r\n"[..]),
    };
    world.pass(ms(1000));
    world.send(other, &["HELLO 3", "GET a"]);
    let (link, _) = world.only_opening();
    world.refuse(link, wanted);
    assert_eq!(
        world.heard(other),
        "-NOAUTH HELLO as they say here|-NOAUTH Authentication required.|"
    );
    world.send(client, &["HELLO 3 AUTH app secret", "SET a 1"]);
    let (link, plan) = world.only_opening();
    assert_eq!(
        (plan.login, plan.protocol),
        (Some(login("app", "secret")), Protocol::Resp3)
    );
    world.open(link);
    assert!(world.heard(client).starts_with("%3|"));
    world.answer("m", "SET a 1", "+OK");
    world.send(client, &["HELLO 3 AUTH app wrong"]);
    let link = world.opening().unwrap();
    world.refuse(link, wrong_password());
    assert!(
        world
            .heard(client)
            .ends_with("|-WRONGPASS invalid username-password pair or user is disabled.|")
    );
}

#[test]
fn reset_makes_a_new_connection_of_an_old_one() {
    let mut world = World::new();
    let client = world.client();
    world.send(
        client,
        &[
            "HELLO 3 SETNAME web",
            "SELECT 2",
            "CLIENT REPLY OFF",
            "RESET",
        ],
    );
    assert!(world.heard(client).ends_with("|+OK|+RESET|"));
    world.send(client, &["CLIENT GETNAME", "GET a"]);
    let link = world.asked_on("r1", "GET a");
    let plan = &world.wires[&link].plan;
    assert_eq!((plan.protocol, plan.database), (Protocol::Resp2, 0));
    world.answer("r1", "GET a", "$-1");
    assert_eq!(world.heard(client), "$-1|$-1|");
    let mut world = locked();
    let client = world.client();
    log_in(&mut world, client, "AUTH app secret");
    world.send(client, &["RESET", "GET a"]);
    assert_eq!(
        world.heard(client),
        "+RESET|-NOAUTH Authentication required.|"
    );
    world.assert_calm();
}

#[test]
fn nothing_behind_quit_is_looked_at() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["GET a", "QUIT", "SET b 1"]);
    world.send(client, &["SET c 1"]);
    assert!(world.asked("m").is_empty() && !world.is_closed(client));
    assert!(!world.exchange.wants_input(client));
    world.answer("r1", "GET a", "$1|1");
    assert_eq!(world.heard(client), "$1|1|+OK|");
    assert!(world.is_closed(client));
}

#[test]
fn clients_whose_turn_others_leave_unused_have_it_all_the_same() {
    let mut world = locked();
    let clients: Vec<_> = (0..80).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["AUTH app secret"]);
    }
    world.switching();
    for client in &clients[..64] {
        world.leave(*client);
    }
    world.switch_to("m", &[]);
    world.pass(ms(50));
    world.open_all();
    for client in &clients[64..] {
        assert_eq!(world.heard(*client), "+OK|");
    }
    world.assert_calm();
}
