//! Floor 4. Tests: CLIENT INFO, LIST, KILL and UNBLOCK, over one worker and several.

use super::*;
use crate::exchange::CALLS_MAX;

/// What the master says to a form that has no effect.
const HARMLESS: &str = "-ERR syntax error";

/// A worker of two.
fn one_of_two() -> World {
    let settings = Settings {
        workers: 2,
        ..Settings::default()
    };
    World::with(Setup {
        settings,
        ..Setup::default()
    })
}

/// The client sends this, and may.
fn asks(world: &mut World, client: ClientKey, line: &str, question: &str, told: &str) -> String {
    world.send(client, &[line]);
    world.answer("m", question, told);
    world.heard(client)
}

/// The numbers in a reply to CLIENT LIST.
fn ids(heard: &str) -> Vec<u64> {
    let lines = heard.split("id=").skip(1);
    let id = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
    lines
        .filter(|line| line.contains(" addr="))
        .map(id)
        .collect()
}

#[test]
fn a_client_is_told_what_is_known_of_it() {
    let mut world = World::new();
    let client = world.client();
    let lines = [
        "CLIENT SETNAME web",
        "CLIENT SETINFO LIB-NAME lib",
        "CLIENT SETINFO LIB-VER 1.2",
        "SELECT 3",
    ];
    world.send(client, &lines);
    world.heard(client);
    world.pass(ms(7_000));
    world.send(client, &["CLIENT INFO"]);
    let line = "id=101 addr=10.0.0.1:40000 laddr=10.0.0.2:6379 fd=9 name=web age=7 idle=0 \
                flags=N db=3 sub=0 psub=0 ssub=0 multi=-1 qbuf=26 qbuf-free=0 argv-mem=0 \
                multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=26 events=r cmd=client|info \
                user=default redir=-1 resp=2 lib-name=lib lib-ver=1.2\n";
    assert_eq!(world.heard(client), format!("${}|{line}|", line.len()));
    world.send(client, &["HELLO 3", "CLIENT INFO"]);
    let heard = world.heard(client);
    assert!(
        heard.contains("|=") && heard.contains("|txt:id=101 "),
        "{heard}"
    );
    assert!(world.asked("m").is_empty());
    world.assert_calm();
}

#[test]
fn the_list_is_of_all_workers_in_the_order_of_arrival() {
    let (mut world, mut other) = (one_of_two(), one_of_two());
    let first = world.client();
    other.next_client = world.next_client;
    let elsewhere = other.client();
    other.send(elsewhere, &["GET k"]);
    world.next_client = other.next_client;
    let third = world.client();
    world.send(first, &["CLIENT LIST", "GET a"]);
    world.answer("m", "CLIENT LIST ?", HARMLESS);
    assert_eq!(world.heard(first), "", "one has not answered");
    assert!(world.asked("r1").is_empty(), "what comes behind it waits");
    let answer = other.answer_roll(&world.questions[0]);
    world.exchange.roll_answered(answer, world.now);
    world.run();
    world.answer("r1", "GET a", "$1|v");
    let heard = world.heard(first);
    assert_eq!(ids(&heard), [101, 102, 103]);
    assert!(
        heard.contains(" cmd=get ") && heard.ends_with("\n|$1|v|"),
        "{heard}"
    );
    world.leave(first);
    world.leave(third);
    world.assert_calm();
}

#[test]
fn a_list_may_be_of_some() {
    let mut world = World::new();
    let (client, subscriber) = (world.client(), world.client());
    world.send(subscriber, &["SUBSCRIBE c"]);
    let link = world.asked_on("m", "SUBSCRIBE c");
    world.say(link, ">3|$9|subscribe|$1|c|:1");
    world.heard(subscriber);
    for (line, want) in [
        ("CLIENT LIST ID 102 7 101 102 -1", &[102, 101, 102][..]),
        ("CLIENT LIST TYPE pubsub", &[102]),
        ("client list type NORMAL", &[101]),
        ("CLIENT LIST TYPE replica", &[]),
    ] {
        let question = format!("{} ?", &line[..11]);
        let heard = asks(&mut world, client, line, &question, HARMLESS);
        assert_eq!(ids(&heard), want, "{line}");
    }
    // What is wrong with it the master says; what is new, nobody does.
    let words = "-ERR Unknown client type 'x'";
    for (line, told, want) in [
        ("CLIENT LIST TYPE x", words, words),
        (
            "CLIENT LIST NAME web",
            "$0||",
            "-ERR switchman: 'CLIENT NAME' is not offered through this proxy",
        ),
    ] {
        let heard = asks(&mut world, client, line, line, told);
        assert_eq!(heard, format!("{want}|"));
    }
}

#[test]
fn who_is_killed_is_closed_and_counted() {
    let mut world = World::new();
    let clients: Vec<_> = (0..5).map(|_| world.client()).collect();
    world.send(clients[0], &["AUTH app secret"]);
    world.send(clients[1], &["BLPOP q 0"]);
    world.heard(clients[0]);
    let asker = clients[4];
    for (line, question, told, want) in [
        (
            "CLIENT KILL 10.0.0.1:40003",
            "CLIENT KILL ? ?",
            HARMLESS,
            "+OK|",
        ),
        (
            "CLIENT KILL 10.0.0.1:40003",
            "CLIENT KILL ? ?",
            HARMLESS,
            "-ERR No such client|",
        ),
        (
            "CLIENT KILL USER app",
            "CLIENT KILL USER app ADDR ?",
            ":0",
            ":1|",
        ),
        (
            "CLIENT KILL LADDR 10.0.0.2:6379 ID 102",
            "CLIENT KILL LADDR 10.0.0.2:6379 ID 102 ADDR ?",
            ":0",
            ":1|",
        ),
        (
            "CLIENT KILL MAXAGE 100",
            "CLIENT KILL MAXAGE 100 ADDR ?",
            ":0",
            ":0|",
        ),
    ] {
        let heard = asks(&mut world, asker, line, question, told);
        assert_eq!(heard, want, "{line}");
    }
    for (at, closed) in [true, true, false, true, false].into_iter().enumerate() {
        assert_eq!(world.is_closed(clients[at]), closed, "{at}");
    }
    let fences = world.fences.len();
    assert_eq!(fences, 1, "nobody hears what the blocked one would pop");
    // Others first, itself behind its reply.
    let all = "CLIENT KILL TYPE normal SKIPME no";
    let heard = asks(&mut world, asker, all, &format!("{all} ADDR ?"), ":0");
    assert_eq!(heard, ":2|");
    assert!(world.is_closed(asker) && world.is_closed(clients[2]));
    world.assert_calm();
}

#[test]
fn what_is_wrong_with_a_kill_the_master_says_without_killing_anybody() {
    let mut world = World::new();
    let client = world.client();
    let no_user = "-ERR No such user 'x'";
    for (line, question, told, want) in [
        (
            "CLIENT KILL USER x",
            "CLIENT KILL USER x ADDR ?",
            no_user,
            no_user,
        ),
        // The last option must not take the others' words for its value.
        (
            "CLIENT KILL ID 101 SKIPME no USER",
            "CLIENT KILL ID 101 SKIPME no ADDR ?",
            ":0",
            "-ERR syntax error",
        ),
        (
            "CLIENT KILL ID 101 FLAGS b",
            "CLIENT KILL ID 101 FLAGS b ADDR ?",
            ":0",
            "-ERR switchman: 'CLIENT FLAGS' is not offered through this proxy",
        ),
    ] {
        let heard = asks(&mut world, client, line, question, told);
        assert_eq!(heard, format!("{want}|"), "{line}");
    }
    assert!(!world.is_closed(client));
    assert!(world.questions.is_empty());
    world.assert_calm();
}

#[test]
fn a_client_of_another_worker_is_killed_there() {
    let (mut world, mut other) = (one_of_two(), one_of_two());
    let client = world.client();
    other.next_client = 200;
    let victim = other.client();
    let question = "CLIENT KILL ID 201 ADDR ?";
    let heard = asks(&mut world, client, "CLIENT KILL ID 201", question, ":0");
    assert_eq!(heard, "");
    let answer = other.answer_roll(&world.questions[0]);
    other.run();
    assert!(other.is_closed(victim));
    world.exchange.roll_answered(answer, world.now);
    world.run();
    assert_eq!(world.heard(client), ":1|");
    world.assert_calm();
    other.assert_calm();
}

#[test]
fn who_waits_behind_those_that_end_waits_has_its_turn() {
    let (mut world, mut other) = (one_of_two(), one_of_two());
    for at in 0..CALLS_MAX {
        let waiting = world.client();
        world.send(waiting, &[&format!("BLPOP q{at} 0")]);
        let asker = world.client();
        world.send(asker, &[&format!("CLIENT UNBLOCK {}", 101 + 2 * at)]);
        world.answer("m", "CLIENT UNBLOCK ?", HARMLESS);
    }
    let last = world.client();
    world.send(last, &["CLIENT LIST"]);
    for at in 0..CALLS_MAX {
        let answer = other.answer_roll(&world.questions[at]);
        world.exchange.roll_answered(answer, world.now);
        world.run();
    }
    assert!(world.asked("m").iter().any(|line| line == "CLIENT LIST ?"));
}

#[test]
fn a_worker_that_does_not_answer_is_not_waited_for_for_long() {
    let mut world = one_of_two();
    let client = world.client();
    asks(&mut world, client, "CLIENT LIST", "CLIENT LIST ?", HARMLESS);
    world.send(client, &["PING"]);
    world.pass(ms(1_900));
    assert_eq!(world.heard(client), "");
    world.pass(ms(200));
    let heard = world.heard(client);
    assert!(
        heard.starts_with("-ERR switchman: not all workers"),
        "{heard}"
    );
    assert!(heard.ends_with("|+PONG|"), "{heard}");
    // Its answer comes too late, and one that leaves in between hears none.
    let answer = world.answer_roll(&world.questions[0].clone());
    world.exchange.roll_answered(answer, world.now);
    asks(&mut world, client, "CLIENT LIST", "CLIENT LIST ?", HARMLESS);
    world.leave(client);
    let answer = world.answer_roll(&world.questions[1].clone());
    world.exchange.roll_answered(answer, world.now);
    world.run();
    world.assert_calm();
}

#[test]
fn so_many_are_answered_at_a_time_and_all_in_the_end() {
    let mut world = one_of_two();
    let clients: Vec<_> = (0..20).map(|_| world.client()).collect();
    for client in &clients {
        world.send(*client, &["CLIENT LIST"]);
    }
    for _ in 0..10 {
        while world.asked("m").contains(&"CLIENT LIST ?".to_owned()) {
            world.answer("m", "CLIENT LIST ?", HARMLESS);
        }
        assert!(world.questions.len() <= 8);
        for question in std::mem::take(&mut world.questions) {
            let answer = Answer::nothing(&question);
            world.exchange.roll_answered(answer, world.now);
            world.run();
        }
    }
    for client in clients {
        assert_eq!(ids(&world.heard(client)).len(), 20);
    }
    world.assert_calm();
}

#[test]
fn who_waits_at_the_master_is_unblocked_there() {
    let (mut world, mut there) = (one_of_two(), one_of_two());
    let client = world.client();
    there.next_client = 200;
    let blocked = there.client();
    there.send(blocked, &["BLPOP q 0"]);
    let own = there.asked_on("m", "BLPOP q 0");
    let id = there.exchange.links.get(own).unwrap().connection.as_ref();
    let unblock = format!("CLIENT UNBLOCK {} ERROR", id.unwrap().id);
    let asked = "CLIENT UNBLOCK 201 ERROR";
    asks(
        &mut world,
        client,
        asked,
        "CLIENT UNBLOCK ?",
        "-ERR value is not an integer",
    );
    let answer = there.answer_roll(&world.questions[0]);
    world.exchange.roll_answered(answer, world.now);
    world.run();
    world.answer("m", &unblock, ":1");
    assert_eq!(world.heard(client), ":1|");
    let words = "-UNBLOCKED client unblocked via CLIENT UNBLOCK";
    there.answer("m", "BLPOP q 0", words);
    assert_eq!(there.heard(blocked), format!("{words}|"));
    let pooled = there.exchange.groups[0].pool.values().flatten().count();
    assert_eq!(pooled, 0, "the next client's wait must not be ended");
    world.assert_calm();
    there.assert_calm();
}

#[test]
fn nobody_else_is_unblocked_and_no_other_node_is_asked() {
    let mut world = World::new();
    let (client, blocked) = (world.client(), world.client());
    let rights = "-ERR value is not an integer or out of range";
    for (line, question, want) in [
        ("CLIENT UNBLOCK 102", "CLIENT UNBLOCK ?", ":0"),
        ("CLIENT UNBLOCK 7 TIMEOUT", "CLIENT UNBLOCK ?", ":0"),
        ("CLIENT UNBLOCK -1", "CLIENT UNBLOCK ?", ":0"),
        ("CLIENT UNBLOCK x", "CLIENT UNBLOCK ?", rights),
        (
            "CLIENT UNBLOCK x SOON",
            "CLIENT UNBLOCK ?",
            "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
        ),
        (
            "CLIENT UNBLOCK 7 ERROR x",
            "CLIENT UNBLOCK 0 ERROR x",
            rights,
        ),
    ] {
        let heard = asks(&mut world, client, line, question, rights);
        assert_eq!(heard, format!("{want}|"), "{line}");
    }
    // It is lost before it has taken the request: that must not go to another server.
    world.send(blocked, &["BLPOP q 0"]);
    let link = world.asked_on("m", "BLPOP q 0");
    let id = world.exchange.links.get(link).unwrap().connection.as_ref();
    let unblock = format!("CLIENT UNBLOCK {}", id.unwrap().id);
    asks(
        &mut world,
        client,
        "CLIENT UNBLOCK 102",
        "CLIENT UNBLOCK ?",
        rights,
    );
    let lane = world.asked_on("m", &unblock);
    world.lose(lane);
    let heard = world.heard(client);
    assert!(heard.starts_with("-UNCERTAIN "), "{heard}");
    world.leave(blocked);
    world.assert_calm();
}

#[test]
fn what_was_not_sent_before_its_connection_is_lost_is_sent_nowhere() {
    let (mut world, mut there) = (one_of_two(), one_of_two());
    let client = world.client();
    there.next_client = 200;
    let blocked = there.client();
    there.send(blocked, &["BLPOP q 0"]);
    let (asked, question) = ("CLIENT UNBLOCK 201", "CLIENT UNBLOCK ?");
    let told = "-ERR value is not an integer";
    asks(&mut world, client, asked, question, told);
    let lane = world.link("m");
    let answer = there.answer_roll(&world.questions[0]);
    world.exchange.roll_answered(answer, world.now);
    world.lose(lane);
    let heard = world.heard(client);
    assert!(heard.starts_with("-MASTERDOWN "), "{heard}");
    assert!(world.asked("m").is_empty(), "it may have restarted");
    world.assert_calm();
}

#[test]
fn the_default_user_is_asked_for_too_and_nobody_acts_without_a_master() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    let denied = "-NOPERM this user has no permissions to run this command";
    let question = "CLIENT KILL ID 102 ADDR ?";
    let heard = asks(&mut world, client, "CLIENT KILL ID 102", question, denied);
    assert_eq!(heard, format!("{denied}|"));
    assert!(!world.is_closed(other));
    world.switching();
    world.send(client, &["CLIENT KILL ID 102", "CLIENT INFO"]);
    assert_eq!(world.heard(client), "");
    world.switch_to("r1", &[]);
    world.answer("r1", question, ":0");
    let heard = world.heard(client);
    assert!(heard.starts_with(":1|$"), "{heard}");
    assert!(world.is_closed(other));
    world.assert_calm();
}

#[test]
fn between_multi_and_exec_they_have_their_places() {
    let mut world = World::new();
    let (client, other) = (world.client(), world.client());
    let lines = [
        "MULTI",
        "CLIENT KILL ID 102",
        "CLIENT LIST",
        "CLIENT SETNAME web",
        "CLIENT INFO",
    ];
    world.send(client, &lines);
    let queued = [
        "CLIENT KILL ID 102 ADDR ?",
        "CLIENT LIST ?",
        "CLIENT SETNAME web",
        "CLIENT INFO",
    ];
    world.answer("m", "MULTI", "+OK");
    for line in queued {
        world.answer("m", line, "+QUEUED");
    }
    assert!(!world.is_closed(other), "nothing is executed before EXEC");
    world.send(client, &["EXEC", "CLIENT GETNAME"]);
    world.answer("m", "EXEC", "*4|:0|-ERR syntax error|+OK|$4|id=7");
    assert!(world.is_closed(other));
    let heard = world.heard(client);
    let (begin, end) = ("+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|*4|:1|$", "|$3|web|");
    assert!(heard.starts_with(begin) && heard.ends_with(end), "{heard}");
    assert_eq!(ids(&heard), [101, 101]);
    assert!(heard.contains("id=101 addr=10.0.0.1:40000 laddr=10.0.0.2:6379 fd=9 name= "));
    assert!(heard.contains(" name=web age="), "{heard}");
    world.assert_calm();
}

#[test]
fn an_exec_waits_for_the_other_workers_and_what_comes_behind_it_for_the_exec() {
    let mut world = one_of_two();
    let client = world.client();
    world.send(client, &["MULTI", "CLIENT LIST", "SELECT 3", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CLIENT LIST ?", "+QUEUED");
    world.answer("m", "SELECT 3", "+QUEUED");
    world.answer("m", "EXEC", "*2|-ERR syntax error|+OK");
    world.send(client, &["SET a 1"]);
    assert!(world.asked("m").is_empty(), "its database is not known");
    assert_eq!(world.heard(client), "+OK|+QUEUED|+QUEUED|");
    let answer = Answer::nothing(&world.questions[0]);
    world.exchange.roll_answered(answer, world.now);
    world.run();
    let link = world.asked_on("m", "SET a 1");
    assert_eq!(world.wires[&link].plan.database, 3);
    world.answer("m", "SET a 1", "+OK");
    let heard = world.heard(client);
    assert!(
        heard.starts_with("*2|$") && heard.ends_with("|+OK|+OK|"),
        "{heard}"
    );
    // What the server has refused at EXEC is refused.
    let denied = "-NOPERM no";
    world.send(client, &["MULTI", "CLIENT LIST", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "CLIENT LIST ?", "+QUEUED");
    world.answer("m", "EXEC", &format!("*1|{denied}"));
    assert_eq!(world.heard(client), format!("+OK|+QUEUED|*1|{denied}|"));
    world.assert_calm();
}
