//! Floor 4. Tests: Long replies of some clients, and what the others need not wait for.

use super::*;
use crate::route::Reads;
use crate::types::ListenerRole;

/// Bytes of a piece of a long reply, and pieces until it counts as one.
const PIECE: usize = 1 << 20;
pub(super) const PIECES: usize = 4;

/// A server begins with a reply of 20 MiB on a link, and sends so many pieces of it.
pub(super) fn begin(world: &mut World, link: LinkKey, pieces: usize) {
    let asked = &mut world.wires.get_mut(&link).unwrap().asked;
    asked.pop_front().unwrap();
    world.say_raw(link, b"$20971520\r\n").unwrap();
    go_on(world, link, pieces);
}

pub(super) fn go_on(world: &mut World, link: LinkKey, pieces: usize) {
    for _ in 0..pieces {
        world.say_raw(link, &vec![b'x'; PIECE]).unwrap();
    }
}

/// The rest of it.
pub(super) fn end(world: &mut World, link: LinkKey, client: ClientKey) {
    go_on(world, link, 20 - PIECES);
    world.say_raw(link, b"\r\n").unwrap();
    assert_eq!(world.heard(client).len(), "$20971520||".len() + (20 << 20));
}

/// The link to a node that is not this one.
pub(super) fn other_link(world: &World, host: &str, link: LinkKey) -> LinkKey {
    let mut links = world.links(host);
    links.retain(|it| *it != link);
    assert_eq!(links.len(), 1, "links to {host} besides");
    links[0]
}

/// A client whose reads this node serves.
fn reader(world: &mut World, host: &str) -> ClientKey {
    if host == "m" {
        master_reader(world)
    } else {
        eventual(world)
    }
}

/// How often a node is asked this.
pub(super) fn times(world: &World, host: &str, line: &str) -> usize {
    world.asked(host).iter().filter(|it| *it == line).count()
}

/// The next reply on a link.
pub(super) fn reply(world: &mut World, link: LinkKey, reply: &str) {
    let asked = &mut world.wires.get_mut(&link).unwrap().asked;
    asked.pop_front().unwrap();
    world.say(link, reply);
}

/// A client whose reads replicas serve, whatever it has written.
pub(super) fn eventual(world: &mut World) -> ClientKey {
    world.client_by(Access::new(ListenerRole::Split, Reads::Replicas))
}

/// A world with little room for output.
pub(super) fn narrow() -> World {
    World::with(Setup {
        settings: Settings {
            output_high: 10_000,
            ..Settings::default()
        },
        ..Setup::default()
    })
}

/// A line of 20 kB.
pub(super) fn line() -> String {
    "x".repeat(20_000).replacen('x', "+", 1)
}

/// A client whose reads the master serves.
pub(super) fn master_reader(world: &mut World) -> ClientKey {
    world.client_by(Access::new(ListenerRole::Split, Reads::Master))
}

pub(super) fn detoured(world: &mut World) -> u64 {
    world.exchange.counts(0).unwrap().detoured
}

#[test]
fn reads_behind_a_long_reply_are_asked_twice_and_the_later_reply_is_dropped() {
    let mut world = World::new();
    let client = world.client();
    let behind = [world.client(), world.client()];
    let other = world.client();
    let long = world.link("r1");
    world.send(client, &["GET big", "GET own"]);
    world.send(behind[0], &["GET a"]);
    world.send(behind[1], &["STRLEN b"]);
    begin(&mut world, long, PIECES - 1);
    assert_eq!(world.links("r1"), [long], "what is short is waited for");
    go_on(&mut world, long, 1);
    let new = other_link(&world, "r1", long);
    world.send(other, &["GET c"]);
    let asked = |link| world.wires[&link].asked.iter().map(|(_, line)| &**line);
    assert!(asked(long).eq(["GET own", "GET a", "STRLEN b"]));
    assert!(asked(new).eq(["GET a", "STRLEN b", "GET c"]));
    for it in ["$1|A", ":1", "$1|C"] {
        reply(&mut world, new, it);
    }
    assert_eq!(behind.map(|client| world.heard(client)), ["$1|A|", ":1|"]);
    assert_eq!(world.heard(other), "$1|C|");
    assert_eq!(detoured(&mut world), 2);
    end(&mut world, long, client);
    for it in ["$3|own", "$3|old", ":3"] {
        reply(&mut world, long, it);
    }
    assert_eq!(world.heard(client), "$3|own|");
    let heard = behind.map(|client| world.heard(client));
    assert_eq!(heard, ["", ""], "they are dropped");
    world.pass(ms(100));
    assert_eq!(world.links("r1"), [new], "the other one has done its duty");
    world.assert_calm();
}

#[test]
fn writes_wait_behind_a_long_reply_of_the_master_and_reads_behind_their_own_clients_writes() {
    let mut world = World::new();
    let client = master_reader(&mut world);
    let (reads, writes, both) = (
        master_reader(&mut world),
        world.client(),
        master_reader(&mut world),
    );
    let long = world.link("m");
    world.send(client, &["GET big"]);
    world.send(reads, &["GET a"]);
    world.send(writes, &["INCR n"]);
    world.send(both, &["INCR n", "GET n"]);
    begin(&mut world, long, PIECES);
    let new = other_link(&world, "m", long);
    assert_eq!(world.asked_on("m", "GET a"), long);
    assert_eq!(world.wires[&new].asked.len(), 1);
    world.wires.get_mut(&new).unwrap().asked.pop_front();
    world.say(new, "$1|A");
    assert_eq!(world.heard(reads), "$1|A|");
    end(&mut world, long, client);
    for reply in ["$3|old", ":1", ":2", "$1|2"] {
        world.say(long, reply);
    }
    assert_eq!(world.heard(reads), "");
    assert_eq!(world.heard(writes), ":1|");
    assert_eq!(world.heard(both), ":2|$1|2|");
    world.assert_calm();
}

#[test]
fn a_cursor_that_would_move_twice_is_not_asked_twice_nor_anew() {
    let mut world = World::new();
    let (client, search) = (master_reader(&mut world), master_reader(&mut world));
    let long = world.link("m");
    world.send(client, &["GET big"]);
    world.send(search, &["FT.CURSOR READ idx 7"]);
    begin(&mut world, long, PIECES);
    assert_eq!(times(&world, "m", "FT.CURSOR READ idx 7"), 1);
    world.lose(long);
    assert_eq!(times(&world, "m", "FT.CURSOR READ idx 7"), 0);
    assert!(world.heard(search).starts_with("-UNCERTAIN "));
}

#[test]
fn reads_that_bring_long_replies_too_are_not_asked_twice() {
    let mut world = World::new();
    let clients: Vec<_> = (0..10).map(|_| world.client()).collect();
    let first = world.link("r1");
    for client in &clients {
        world.send(*client, &["GET big"]);
    }
    begin(&mut world, first, PIECES);
    assert_eq!(world.links("r1"), [first]);
    assert_eq!(world.asked("r1").len(), 9);
    assert_eq!(detoured(&mut world), 0);
}

#[test]
fn who_left_meanwhile_has_nothing_asked_twice() {
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    world.leave(behind);
    begin(&mut world, long, PIECES);
    assert_eq!(world.links("r1"), [long]);
    end(&mut world, long, client);
    world.say(long, "$1|A");
    world.assert_calm();
}

#[test]
fn a_long_reply_that_nobody_hears_any_more_is_passed_by_too() {
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    world.leave(client);
    begin(&mut world, long, PIECES);
    let new = other_link(&world, "r1", long);
    world.wires.get_mut(&new).unwrap().asked.pop_front();
    world.say(new, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
}

#[test]
fn reads_behind_a_client_that_does_not_read_are_asked_twice() {
    let mut world = narrow();
    let (slow, behind) = (world.client(), world.client());
    world.deaf.push(slow);
    let link = world.link("r1");
    world.send(slow, &["GET big", "GET big"]);
    world.send(behind, &["GET a"]);
    world.answer("r1", "GET big", &line());
    assert!(world.exchange.is_throttled(link));
    let new = other_link(&world, "r1", link);
    world.wires.get_mut(&new).unwrap().asked.pop_front();
    world.say(new, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
    for _ in 0..40 {
        world.pass(ms(1_000));
        world.exchange.took(slow, 100, world.now);
        world.run();
    }
    assert!(!world.is_closed(slow), "nobody waits behind it");
}

#[test]
fn a_read_is_not_asked_twice_once_its_client_has_written() {
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a", "SET b 1"]);
    world.answer("m", "SET b 1", "+OK");
    begin(&mut world, long, PIECES);
    assert_eq!(world.asked("r1"), ["GET a"]);
    end(&mut world, long, client);
    world.answer("r1", "GET a", "$1|A");
    assert_eq!(world.heard(behind), "$1|A|+OK|");
    assert_eq!(detoured(&mut world), 0);
    world.assert_calm();
}

#[test]
fn what_a_client_writes_behind_a_read_is_sent_when_either_answer_has_come() {
    for role in ["r1", "m"] {
        let mut world = World::new();
        let (client, behind) = (reader(&mut world, role), reader(&mut world, role));
        let long = world.link(role);
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a"]);
        begin(&mut world, long, PIECES);
        world.send(behind, &["SET a 1"]);
        assert_eq!(times(&world, "m", "SET a 1"), 0, "it might be seen");
        let new = other_link(&world, role, long);
        reply(&mut world, new, "$1|A");
        assert_eq!(times(&world, "m", "SET a 1"), 1);
        world.answer("m", "SET a 1", "+OK");
        end(&mut world, long, client);
        reply(&mut world, long, "$1|1");
        assert_eq!(world.heard(behind), "$1|A|+OK|");
        world.assert_calm();
    }
}

#[test]
fn a_read_is_asked_twice_at_most_and_a_long_answer_is_that_of_the_first() {
    let mut world = World::new();
    let (one, two, behind) = (world.client(), world.client(), world.client());
    let first = world.link("r1");
    world.send(one, &["GET big"]);
    world.send(two, &["GET large"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, first, PIECES);
    let second = other_link(&world, "r1", first);
    begin(&mut world, second, PIECES);
    assert_eq!(world.wires[&second].asked.len(), 1);
    assert_eq!(world.links("r1").len(), 2, "nothing needs a third");
    assert!(world.exchange.links.get(second).unwrap().input.len() < 100_000);
    go_on(&mut world, second, 20 - PIECES);
    world.say_raw(second, b"\r\n").unwrap();
    assert_eq!(world.heard(two), "", "it is not kept");
    reply(&mut world, second, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
    end(&mut world, first, one);
    begin(&mut world, first, PIECES);
    end(&mut world, first, two);
    reply(&mut world, first, "$1|A");
    assert_eq!(world.heard(behind), "");
    assert_eq!(detoured(&mut world), 2);
    world.assert_calm();
}

#[test]
fn the_loss_of_either_link_leaves_one_answer() {
    for loses_first in [true, false] {
        let mut world = World::new();
        let (client, behind) = (world.client(), world.client());
        let long = world.link("r1");
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a"]);
        begin(&mut world, long, PIECES);
        let new = other_link(&world, "r1", long);
        world.lose(if loses_first { long } else { new });
        assert_eq!(world.is_closed(client), loses_first);
        if loses_first {
            assert_eq!(
                times(&world, "r1", "GET a"),
                2,
                "the read itself is asked anew"
            );
            reply(&mut world, new, "$3|old");
            assert_eq!(world.heard(behind), "");
            reply(&mut world, new, "$1|A");
        } else {
            assert_eq!(times(&world, "r1", "GET a"), 1);
            end(&mut world, long, client);
            reply(&mut world, long, "$1|A");
        }
        assert_eq!(world.heard(behind), "$1|A|");
        world.assert_calm();
    }
}

#[test]
fn a_node_that_says_nothing_leaves_the_answer_to_the_first() {
    let mut world = World::new();
    let (client, behind) = (world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(behind, &["GET a"]);
    begin(&mut world, long, PIECES);
    let new = other_link(&world, "r1", long);
    reply(
        &mut world,
        new,
        "-LOADING Redis is loading the dataset in memory",
    );
    assert_eq!(world.heard(behind), "");
    end(&mut world, long, client);
    reply(&mut world, long, "$1|A");
    assert_eq!(world.heard(behind), "$1|A|");
    world.assert_calm();
}

#[test]
fn of_a_pipeline_nothing_is_asked_twice() {
    for role in ["r1", "m"] {
        let mut world = World::new();
        let (client, behind) = (reader(&mut world, role), reader(&mut world, role));
        let long = world.link(role);
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a", "GET a"]);
        begin(&mut world, long, PIECES);
        assert_eq!(times(&world, role, "GET a"), 2);
        assert_eq!(world.links(role), [long]);
        end(&mut world, long, client);
        reply(&mut world, long, "$1|1");
        reply(&mut world, long, "$1|2");
        assert_eq!(world.heard(behind), "$1|1|$1|2|");
        world.assert_calm();
    }
}

#[test]
fn what_a_client_reads_behind_a_copy_is_not_older_than_that() {
    for role in ["r1", "m"] {
        let mut world = World::new();
        let (client, behind) = (reader(&mut world, role), reader(&mut world, role));
        let long = world.link(role);
        world.send(client, &["GET big"]);
        world.send(behind, &["GET a"]);
        begin(&mut world, long, PIECES);
        world.send(behind, &["GET b"]);
        let new = other_link(&world, role, long);
        let asked = world.wires[&new].asked.len();
        assert_eq!(
            asked,
            if role == "m" { 1 } else { 2 },
            "it waits, or is behind"
        );
        reply(&mut world, new, "$1|A");
        assert_eq!(world.asked_on(role, "GET b"), new);
        reply(&mut world, new, "$1|B");
        assert_eq!(world.heard(behind), "$1|A|$1|B|");
        end(&mut world, long, client);
        reply(&mut world, long, "$1|0");
        assert_eq!(world.heard(behind), "");
        world.assert_calm();
    }
}

#[test]
fn the_read_itself_is_found_wherever_it_has_come_to() {
    let mut world = World::new();
    let (client, first, second) = (world.client(), world.client(), world.client());
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    world.send(first, &["GET a"]);
    world.send(second, &["GET b"]);
    begin(&mut world, long, PIECES);
    let new = other_link(&world, "r1", long);
    end(&mut world, long, client);
    reply(&mut world, long, "$1|A");
    assert_eq!(world.heard(first), "$1|A|");
    world.send(first, &["GET c"]);
    reply(&mut world, new, "$1|0");
    assert_eq!(world.heard(first), "", "it came too late");
    reply(&mut world, new, "$1|B");
    assert_eq!(world.heard(second), "$1|B|");
    reply(&mut world, long, "$1|0");
    assert_eq!(world.heard(second), "");
    reply(&mut world, new, "$1|C");
    assert_eq!(world.heard(first), "$1|C|");
    world.assert_calm();
}

#[test]
fn so_many_are_copied_for_one_reply_and_no_more() {
    let mut world = World::new();
    let client = world.client();
    let behind: Vec<_> = (0..1100).map(|_| world.client()).collect();
    let long = world.link("r1");
    world.send(client, &["GET big"]);
    for client in &behind {
        world.send(*client, &["GET a"]);
    }
    begin(&mut world, long, PIECES);
    assert_eq!(detoured(&mut world), 1024);
    let new = other_link(&world, "r1", long);
    for _ in 0..1024 {
        reply(&mut world, new, "$1|A");
    }
    end(&mut world, long, client);
    for _ in 0..1100 {
        reply(&mut world, long, "$1|A");
    }
    for client in behind {
        assert_eq!(world.heard(client), "$1|A|");
    }
    world.assert_calm();
}
