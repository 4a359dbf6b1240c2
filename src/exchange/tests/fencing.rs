//! Floor 4. Tests: What waits for the end of a connection at its node, and what does not.

use super::*;

const ENDED: &str = "-UNCERTAIN switchman: the node did not answer within upstream.reply-timeout, \
    and has ended the connection; the command may or may not have been executed, and will not be \
    any more|";
const PERHAPS_LATER: &str = "-UNCERTAIN switchman: the node did not answer within \
    upstream.reply-timeout; the command may still be applied|";

/// A world in which replies are overdue after a second.
fn impatient() -> World {
    World::with(Setup {
        settings: Settings {
            reply_timeout: ms(1_000),
            ..Settings::default()
        },
        ..Setup::default()
    })
}

impl World {
    /// The only connection that is to be ended, and the link that waits for it.
    fn only_fence(&mut self) -> (fence::Request, Option<LinkKey>) {
        assert_eq!(self.fences.len(), 1, "{:?}", self.fences);
        self.fences.remove(0)
    }

    fn fenced(&mut self, link: LinkKey, result: FenceResult) {
        self.exchange.fenced(link, result, self.now);
        self.run();
    }
}

#[test]
fn an_overdue_write_is_answered_when_its_connection_has_ended_at_the_node() {
    for result in [FenceResult::Killed, FenceResult::Gone] {
        let mut world = impatient();
        let (one, two) = (world.client(), world.client());
        world.send(one, &["INCR a"]);
        world.send(two, &["INCR b", "INCR c"]);
        let link = world.link("m");
        let opened = world.now;
        world.pass(ms(1_000));
        let (request, who) = world.only_fence();
        assert_eq!((request.node, request.opened), (addr("m"), opened));
        let (id, named) = (request.connection.id, request.connection.addr);
        assert_eq!(named, Some(Box::from(format!("10.0.0.9:{id}"))));
        assert_eq!(who, Some(link));
        assert!(!world.wires.contains_key(&link), "it is closed at once");
        assert_eq!((world.heard(one), world.heard(two)), Default::default());
        world.fenced(link, result);
        assert_eq!(world.heard(one), ENDED);
        assert_eq!(world.heard(two), ENDED.repeat(2));
        assert_eq!(world.exchange.counts(0).unwrap().uncertain, 3);
        world.assert_calm();
    }
}

#[test]
fn nobody_waits_for_long_nor_for_a_node_that_forbids_it() {
    let mut world = impatient();
    let client = world.client();
    world.send(client, &["INCR a"]);
    let link = world.link("m");
    world.pass(ms(1_050));
    assert_eq!(world.heard(client), "");
    assert!(world.exchange.poll_timeout(world.now).is_some());
    world.pass(ms(50));
    assert_eq!(world.heard(client), PERHAPS_LATER);
    world.fenced(link, FenceResult::Killed);
    assert_eq!(world.heard(client), "", "too late");
    world.assert_calm();

    for result in [FenceResult::Forbidden, FenceResult::Dropped] {
        world.send(client, &["INCR a"]);
        let link = world.asked_on("m", "INCR a");
        world.pass(ms(1_000));
        world.fenced(link, result);
        assert_eq!(world.heard(client), PERHAPS_LATER);
        world.assert_calm();
    }
}

#[test]
fn what_its_client_sent_behind_waits_and_reads_of_others_do_not() {
    let mut world = World::with(Setup {
        settings: Settings {
            reply_timeout: ms(1_000),
            ..Settings::default()
        },
        replicas: Vec::new(),
        ..Setup::default()
    });
    let (writer, reader) = (world.client(), world.client());
    world.send(writer, &["SET a 1", "GET a"]);
    world.send(reader, &["GET a"]);
    let link = world.link("m");
    world.pass(ms(1_000));
    assert_eq!(world.asked("m"), ["PING", "GET a"], "the reader's");
    world.answer("m", "PING", "+PONG");
    world.answer("m", "GET a", "$-1");
    assert_eq!(world.heard(reader), "$-1|");
    world.fenced(link, FenceResult::Killed);
    assert_eq!(world.heard(writer), ENDED);
    world.answer("m", "GET a", "$-1");
    assert_eq!(world.heard(writer), "$-1|");
    world.assert_calm();
}

#[test]
fn a_transaction_and_a_client_that_left_meanwhile_are_no_different() {
    let mut world = impatient();
    let (client, gone) = (world.client(), world.client());
    for one in [client, gone] {
        world.send(one, &["MULTI", "INCR a", "EXEC"]);
    }
    world.answer_all("m");
    assert!(world.heard(client).ends_with("+OK|"));
    world.send(client, &["MULTI", "INCR a", "EXEC"]);
    let link = world.asked_on("m", "MULTI");
    world.answer("m", "MULTI", "+OK");
    world.answer("m", "INCR a", "+QUEUED");
    world.send(gone, &["INCR b"]);
    world.pass(ms(1_000));
    let who: Vec<_> = world.fences.iter().filter_map(|(_, who)| *who).collect();
    assert!(who.len() == 2 && who.contains(&link), "{who:?}");
    world.leave(gone);
    for link in who {
        world.fenced(link, FenceResult::Killed);
    }
    assert_eq!(world.heard(client), format!("+OK|+QUEUED|{ENDED}"));
    world.send(client, &["INCR a"]);
    world.answer("m", "INCR a", ":2");
    assert_eq!(world.heard(client), ":2|");
    world.assert_calm();
}

#[test]
fn a_pop_whose_client_left_is_ended_at_the_node() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["BLPOP q 0"]);
    let _link = world.asked_on("m", "BLPOP q 0");
    world.leave(client);
    let (request, who) = world.only_fence();
    assert_eq!((request.node, who), (addr("m"), None));

    // What only reads takes nothing along, and what was sent to be executed may be.
    for lines in [
        &["XREAD BLOCK 0 STREAMS s 0"][..],
        &["MULTI", "INCR a", "EXEC"],
    ] {
        let client = world.client();
        world.send(client, lines);
        world.leave(client);
        assert_eq!(world.fences, []);
    }
    world.assert_calm();
}

#[test]
fn what_a_master_that_was_left_still_does_is_not_waited_for() {
    let mut world = World::new();
    let (writer, reader) = (world.client(), world.client());
    world.send(writer, &["INCR a"]);
    world.send(reader, &["XREAD BLOCK 0 STREAMS s 0"]);
    world.switching();
    world.switch_to("r1", &[]);
    assert!(world.heard(writer).starts_with("-UNCERTAIN"));
    let (request, who) = world.only_fence();
    assert_eq!((request.node, who), (addr("m"), None));
    assert_eq!(world.asked("r1"), ["XREAD BLOCK 0 STREAMS s 0"]);
}

#[test]
fn what_the_node_has_ended_or_answered_is_left_alone() {
    let mut world = impatient();
    let client = world.client();
    world.send(client, &["INCR a"]);
    world.lose_node("m");
    assert!(world.heard(client).starts_with("-UNCERTAIN"));
    world.send(client, &["INCR a"]);
    world.answer("m", "INCR a", ":1");
    world.switch_to("r1", &[]);
    assert_eq!(world.fences, []);
    // A node that says more than it was asked for may still read.
    world.send(client, &["INCR a"]);
    let link = world.link("r1");
    world.exchange.link_lost(link, Loss::Nonsense, world.now);
    world.run();
    assert_eq!(world.only_fence().1, None);
    world.assert_calm();
}

#[test]
fn a_link_that_the_node_has_not_named_is_given_up_as_ever() {
    let mut world = World::with(Setup {
        settings: Settings {
            reply_timeout: ms(1_000),
            ..Settings::default()
        },
        opens: false,
        ..Setup::default()
    });
    while let Some(link) = world.opening() {
        world.wires.get_mut(&link).unwrap().open = true;
        let opened = Opened::default();
        world.exchange.link_opened(link, opened, world.now);
        world.run();
    }
    let client = world.client();
    world.send(client, &["INCR a"]);
    world.pass(ms(1_000));
    assert_eq!(world.heard(client), PERHAPS_LATER);
    assert_eq!(world.fences, []);
}

#[test]
fn nobody_waits_when_all_is_given_up() {
    let mut world = impatient();
    let client = world.client();
    world.send(client, &["INCR a"]);
    world.pass(ms(1_000));
    world.exchange.stop(world.now);
    world.run();
    assert_eq!(world.heard(client), "");
    world.exchange.abandon_all(world.now);
    world.run();
    assert_eq!(world.heard(client), PERHAPS_LATER);
    assert!(world.is_closed(client));
    world.assert_calm();
}
