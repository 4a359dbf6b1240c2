//! Floor 4. Tests: Users that are deleted through Switchman, and their clients.

use super::*;
use crate::exchange::CALLS_MAX;
use crate::topology::Acks;

const DENIED: &str = "-NOPERM this user has no permissions to run the 'multi' command";

/// A worker, one of so many.
fn one_of(workers: usize) -> World {
    let settings = Settings {
        workers,
        ..Settings::default()
    };
    World::with(Setup {
        settings,
        ..Setup::default()
    })
}

/// A client that has logged in.
fn user(world: &mut World, name: &str) -> ClientKey {
    let client = world.client();
    world.send(client, &[&format!("AUTH {name} secret")]);
    assert_eq!(world.heard(client), "+OK|");
    client
}

#[test]
fn the_clients_of_a_user_are_closed_before_who_deletes_it_hears_so() {
    let (mut world, mut other) = (one_of(2), one_of(2));
    let deleter = world.client();
    let (here, stays) = (user(&mut world, "app"), user(&mut world, "App"));
    other.next_client = world.next_client;
    let there = user(&mut other, "more");
    let lines = ["acl DelUser nobody app more", "SET a 1", "PING"];
    world.send(deleter, &lines);
    assert_eq!(world.asked("m"), [lines[0]], "what is behind it waits");
    world.answer("m", lines[0], ":2");
    assert_eq!(world.heard(deleter), "", "one has not answered");
    let answer = other.answer_roll(&world.questions[0]);
    other.run();
    assert!(other.is_closed(there));
    world.exchange.roll_answered(answer, world.now);
    world.run();
    assert!(world.is_closed(here) && !world.is_closed(stays));
    world.answer("m", "SET a 1", "+OK");
    assert_eq!(world.heard(deleter), ":2|+OK|+PONG|");
    world.assert_calm();
    other.assert_calm();
}

#[test]
fn who_deletes_its_own_user_hears_so_and_nothing_more() {
    let mut world = World::new();
    let client = user(&mut world, "app");
    world.send(client, &["ACL DELUSER other app", "PING", "SET a 1"]);
    assert_eq!(world.asked("m"), ["ACL DELUSER other app"]);
    world.answer("m", "ACL DELUSER other app", ":1");
    assert_eq!(world.heard(client), ":1|");
    assert!(world.is_closed(client));
    assert_eq!(world.asked("m"), [""; 0]);
    world.assert_calm();
}

#[test]
fn nobody_is_closed_for_what_the_master_does_not_do_or_another_user() {
    for (line, reply) in [
        ("ACL DELUSER app", "-NOPERM no"),
        (
            "ACL DELUSER app default",
            "-ERR The 'default' user cannot be removed",
        ),
        ("ACL DELUSER other", ":1"),
        ("ACL DELUSER", "-ERR wrong number of arguments"),
        ("ACL GETUSER app", ":1"),
    ] {
        let mut world = World::new();
        let (client, second) = (user(&mut world, "app"), user(&mut world, "app"));
        world.send(client, &[line, "SET a 1"]);
        world.answer("m", line, reply);
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(client), format!("{reply}|+OK|"));
        assert!(!world.is_closed(second), "{line}");
        world.assert_calm();
    }
}

#[test]
fn a_user_that_is_made_again_behind_that_stays() {
    let mut world = World::new();
    let client = user(&mut world, "admin");
    let made = "ACL SETUSER app on >secret";
    world.send(client, &["ACL DELUSER app", made, "AUTH app secret"]);
    world.answer("m", "ACL DELUSER app", ":1");
    world.answer("m", made, "+OK");
    assert_eq!(world.heard(client), ":1|+OK|+OK|");
    assert!(!world.is_closed(client));
    world.assert_calm();
}

#[test]
fn in_a_transaction_they_are_closed_with_its_end() {
    let mut world = World::new();
    let (deleter, victim) = (user(&mut world, "app"), user(&mut world, "other"));
    let lines = ["MULTI", "ACL DELUSER other", "ACL DELUSER app", "GET a"];
    world.send(deleter, &lines);
    world.send(deleter, &["CLIENT GETNAME", "EXEC", "SET a 1"]);
    world.answer("m", "MULTI", "+OK");
    for line in &lines[1..] {
        world.answer("m", line, "+QUEUED");
    }
    world.answer("m", "CLIENT GETNAME", "+QUEUED");
    assert!(!world.is_closed(victim));
    world.answer("m", "EXEC", "*4|:1|:1|$1|v|$-1|");
    let heard = "+OK|+QUEUED|+QUEUED|+QUEUED|+QUEUED|*4|:1|:1|$1|v|$-1|";
    assert_eq!(world.heard(deleter), heard);
    assert!(world.is_closed(victim) && world.is_closed(deleter));
    assert_eq!(world.asked("m"), [""; 0], "no SET");
    world.assert_calm();
}

#[test]
fn a_transaction_that_is_not_executed_closes_nobody() {
    let mut world = World::new();
    let (deleter, victim) = (world.client(), user(&mut world, "app"));
    for (end, reply) in [("DISCARD", "+OK"), ("EXEC", "-EXECABORT no")] {
        world.send(deleter, &["MULTI", "ACL DELUSER app", end, "SET a 1"]);
        world.answer("m", "MULTI", "+OK");
        world.answer("m", "ACL DELUSER app", "+QUEUED");
        world.answer("m", end, reply);
        world.answer("m", "SET a 1", "+OK");
        assert_eq!(world.heard(deleter), format!("+OK|+QUEUED|{reply}|+OK|"));
        assert!(!world.is_closed(victim));
    }
    world.assert_calm();
}

#[test]
fn behind_a_refused_multi_they_are_closed_at_once() {
    let mut world = World::new();
    let (deleter, victim) = (user(&mut world, "admin"), user(&mut world, "app"));
    world.send(deleter, &["MULTI", "ACL DELUSER app"]);
    world.answer("m", "MULTI", DENIED);
    world.answer("m", "ACL DELUSER app", ":1");
    assert_eq!(world.heard(deleter), format!("{DENIED}|:1|"));
    assert!(world.is_closed(victim));
    world.leave(deleter);
    world.assert_calm();
}

#[test]
fn one_that_is_too_long_to_be_kept_is_not_executed_without_that() {
    let mut world = World::new();
    let deleter = world.client();
    let line = format!("ACL DELUSER app {}", "x".repeat(64 * 1024));
    world.send(deleter, &["MULTI"]);
    world.answer("m", "MULTI", "+OK");
    world.send(deleter, &[&line, "EXEC"]);
    assert_eq!(world.asked("m"), ["DISCARD"]);
    world.answer("m", "DISCARD", "+OK");
    let heard = world.heard(deleter);
    let refused = "-ERR switchman: 'ACL between MULTI and EXEC' is not offered";
    assert!(
        heard.contains(refused) && heard.contains("|-EXECABORT"),
        "{heard}"
    );
    world.assert_calm();
}

#[test]
fn silence_is_kept_where_it_was_asked_for() {
    for (reply, closed) in [(":1", true), ("-NOPERM no", false)] {
        let mut world = World::new();
        let (deleter, victim) = (world.client(), user(&mut world, "app"));
        world.send(deleter, &["CLIENT REPLY SKIP", "ACL DELUSER app", "PING"]);
        world.answer("m", "ACL DELUSER app", reply);
        assert_eq!(world.heard(deleter), "+PONG|");
        assert_eq!(world.is_closed(victim), closed);
        world.assert_calm();
    }
}

#[test]
fn a_login_that_is_on_its_way_is_proven_anew() {
    let mut world = World::new();
    let (deleter, late) = (world.client(), world.client());
    world.opens = false;
    world.send(deleter, &["ACL DELUSER app"]);
    world.open_all();
    world.send(late, &["AUTH app secret"]);
    let (before, _) = world.only_opening();
    // The node may have let it in, and then deleted the user.
    world.answer("m", "ACL DELUSER app", ":1");
    assert_eq!(world.heard(deleter), ":1|");
    let (again, _) = world.only_opening();
    assert_ne!(again, before);
    world.refuse(again, wrong_password());
    let heard = world.heard(late);
    assert!(heard.starts_with("-WRONGPASS"), "{heard}");
    world.assert_calm();
}

#[test]
fn a_worker_that_does_not_answer_keeps_no_reply_back_for_long() {
    let mut world = one_of(2);
    let deleter = world.client();
    world.send(deleter, &["ACL DELUSER app", "PING"]);
    world.answer("m", "ACL DELUSER app", ":1");
    world.pass(ms(1_900));
    assert_eq!(world.heard(deleter), "");
    world.pass(ms(200));
    assert_eq!(world.heard(deleter), ":1|+PONG|");
    world.assert_calm();
}

#[test]
fn a_lost_deletion_is_forgotten() {
    let mut world = World::new();
    let (deleter, victim) = (world.client(), user(&mut world, "app"));
    world.send(deleter, &["ACL DELUSER app", "PING"]);
    let link = world.asked_on("m", "ACL DELUSER app");
    world.lose(link);
    let heard = world.heard(deleter);
    assert!(
        heard.starts_with('-') && heard.ends_with("|+PONG|"),
        "{heard}"
    );
    // What has its number again is another command.
    world.send(deleter, &["CONFIG GET x"]);
    world.answer("m", "CONFIG GET x", ":1");
    assert!(!world.is_closed(victim));
    world.assert_calm();
}

#[test]
fn who_leaves_before_it_hears_of_it_leaves_nothing_behind() {
    let mut world = one_of(2);
    let deleter = world.client();
    world.send(deleter, &["ACL DELUSER app"]);
    world.answer("m", "ACL DELUSER app", ":1");
    world.leave(deleter);
    world.pass(ms(2_100));
    world.assert_calm();
}

#[test]
fn who_deletes_its_own_user_is_closed_although_a_worker_does_not_answer() {
    let mut world = one_of(2);
    let client = user(&mut world, "app");
    world.send(client, &["ACL DELUSER app", "PING"]);
    world.answer("m", "ACL DELUSER app", ":1");
    world.pass(ms(2_100));
    assert_eq!(world.heard(client), ":1|");
    assert!(world.is_closed(client));
    world.assert_calm();
}

#[test]
fn no_more_is_asked_at_a_time_than_there_is_room_for() {
    let (mut world, mut other) = (one_of(2), one_of(2));
    let deleters: Vec<_> = (0..40).map(|_| world.client()).collect();
    other.next_client = world.next_client;
    let name = |at| format!("u{at}");
    let victims: Vec<_> = (0..40).map(|at| user(&mut other, &name(at))).collect();
    let line = |at| format!("ACL DELUSER u{at}");
    for (at, deleter) in deleters.iter().enumerate() {
        world.send(*deleter, &[&line(at)]);
    }
    for at in 0..40 {
        world.answer("m", &line(at), ":1");
    }
    for at in 0..40 {
        assert_eq!(world.questions.len(), 40.min(at + CALLS_MAX));
        let answer = other.answer_roll(&world.questions[at]);
        other.run();
        world.exchange.roll_answered(answer, world.now);
        world.run();
    }
    for (deleter, victim) in deleters.into_iter().zip(victims) {
        assert_eq!(world.heard(deleter), ":1|");
        assert!(other.is_closed(victim));
    }
    world.assert_calm();
}

#[test]
fn a_transaction_with_several_is_answered_when_all_is_given_up() {
    let mut world = one_of(2);
    let client = world.client();
    world.send(client, &["MULTI", "ACL DELUSER a", "CLIENT LIST", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "ACL DELUSER a", "+QUEUED");
    world.answer("m", "CLIENT LIST ?", "+QUEUED");
    world.answer("m", "EXEC", "*2|:1|-ERR x");
    world.exchange.abandon_all(world.now);
    world.run();
    let heard = world.heard(client);
    let want = "+OK|+QUEUED|+QUEUED|*2|:1|-ERR switchman: not all workers";
    assert!(heard.starts_with(want), "{heard}");
}

#[test]
fn all_that_one_transaction_deletes_is_one_question() {
    let (mut world, mut other) = (one_of(2), one_of(2));
    let (admin, deleter) = (user(&mut world, "admin"), user(&mut world, "app"));
    let victims = [user(&mut world, "x"), user(&mut world, "y")];
    let lines = [
        "ACL DELUSER x",
        "GET a",
        "ACL DELUSER default",
        "ACL DELUSER y",
    ];
    world.send(deleter, &["MULTI"]);
    world.send(deleter, &lines);
    world.send(deleter, &["CLIENT LIST", "EXEC"]);
    world.answer("m", "MULTI", "+OK");
    for line in lines {
        world.answer("m", line, "+QUEUED");
    }
    world.answer("m", "CLIENT LIST ?", "+QUEUED");
    world.answer("m", "EXEC", "*5|:1|$1|v|-ERR no|:1|-ERR syntax error");
    assert_eq!(world.questions.len(), 1, "the list is asked for behind it");
    // It is closed itself meanwhile.
    world.send(admin, &["ACL DELUSER app"]);
    world.answer("m", "ACL DELUSER app", ":1");
    let mut at = 0;
    while let Some(question) = world.questions.get(at).cloned() {
        let answer = other.answer_roll(&question);
        world.exchange.roll_answered(answer, world.now);
        world.run();
        at += 1;
    }
    assert!(victims.iter().all(|it| world.is_closed(*it)));
    assert!(world.is_closed(deleter));
    assert_eq!(world.heard(admin), ":1|");
    world.assert_calm();
}

#[test]
fn what_was_deleted_is_closed_although_the_deleter_is_gone_by_then() {
    for lines in [
        &["ACL DELUSER app"][..],
        &["MULTI", "CLIENT LIST", "ACL DELUSER app", "EXEC"],
    ] {
        let mut world = World::new();
        let (deleter, victim) = (world.client(), user(&mut world, "app"));
        world.send(deleter, lines);
        if lines.len() > 1 {
            world.answer("m", "MULTI", "+OK");
            world.answer("m", "CLIENT LIST ?", "+QUEUED");
            world.answer("m", "ACL DELUSER app", "+QUEUED");
        }
        // The master is under suspicion, so that its reply is kept back.
        world.picture.acks = Acks::Kept;
        world.switching();
        match lines.len() {
            1 => world.answer("m", "ACL DELUSER app", ":1"),
            _ => world.answer("m", "EXEC", "*2|-ERR syntax error|:1"),
        }
        world.leave(deleter);
        world.picture.acks = Acks::Given;
        world.publish(Phase::Stable, Some("m"));
        assert!(world.is_closed(victim), "{lines:?}");
        world.assert_calm();
    }
}

#[test]
fn a_login_of_another_user_goes_on() {
    let mut world = World::new();
    let deleter = world.client();
    world.send(deleter, &["ACL DELUSER app"]);
    world.opens = false;
    let late = world.client();
    world.send(late, &["AUTH other secret"]);
    let (login, _) = world.only_opening();
    world.answer("m", "ACL DELUSER app", ":1");
    assert_eq!(world.only_opening().0, login);
    world.open(login);
    assert_eq!(world.heard(late), "+OK|");
    world.assert_calm();
}
