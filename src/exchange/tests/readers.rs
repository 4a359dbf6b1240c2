//! Floor 4. Tests: Which replica reads for whom.

use super::*;
use crate::exchange::Spread;
use crate::telemetry::ConnectStage;
use crate::topology::Outlier;

fn world(replicas: &[&str], readers: ReaderSettings) -> World {
    let mut setup = Setup {
        replicas: replicas.iter().map(|host| addr(host)).collect(),
        ..Setup::default()
    };
    setup.group.readers = readers;
    World::with(setup)
}

/// A world in which the slow start of everybody is over.
fn warm(replicas: &[&str]) -> World {
    let mut world = world(replicas, ReaderSettings::default());
    world.pass(ms(11_000));
    world
}

fn by_request() -> ReaderSettings {
    ReaderSettings {
        spread: Spread::Request,
        ..ReaderSettings::default()
    }
}

fn clients(world: &mut World, count: usize) -> Vec<ClientKey> {
    (0..count).map(|_| world.client()).collect()
}

/// Who answers the next read of a client.
fn read(world: &mut World, client: ClientKey) -> String {
    world.heard(client);
    world.send(client, &["GET a"]);
    for host in ["r1", "r2", "r3", "m"] {
        if !world.asked(host).is_empty() {
            world.answer(host, "GET a", "$1|x");
            assert_eq!(world.heard(client), "$1|x|");
            return host.to_owned();
        }
    }
    format!("nobody: {}", world.heard(client))
}

fn all_send(world: &mut World, clients: &[ClientKey], lines: &[&str]) {
    for client in clients {
        world.send(*client, lines);
    }
}

/// How many of these clients read from a node.
fn readers(world: &mut World, clients: &[ClientKey], host: &str) -> usize {
    let hosts: Vec<_> = clients.iter().map(|key| read(world, *key)).collect();
    hosts.iter().filter(|it| *it == host).count()
}

/// Everybody reads now and then while time passes.
fn live(world: &mut World, clients: &[ClientKey], seconds: u64) {
    for _ in 0..seconds * 10 {
        world.pass(ms(100));
        for client in clients {
            read(world, *client);
        }
    }
}

fn outliers(world: &World) -> Vec<(String, Outlier)> {
    let kinds = world.reports.iter().filter_map(|report| match report {
        ReportKind::Outlier { node, why, .. } => Some((node.host().to_owned(), *why)),
        _ => None,
    });
    kinds.collect()
}

#[test]
fn a_client_keeps_its_replica_and_clients_are_spread_evenly() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 9);
    let first: Vec<_> = clients.iter().map(|key| read(&mut world, *key)).collect();
    let of_one = first.iter().filter(|host| *host == "r1").count();
    assert!((4..=5).contains(&of_one), "{first:?}");
    for _ in 0..20 {
        let again: Vec<_> = clients.iter().map(|key| read(&mut world, *key)).collect();
        assert_eq!(again, first);
    }
}

#[test]
fn the_place_of_a_client_that_left_is_free() {
    let mut world = warm(&["r1", "r2"]);
    let mut clients = clients(&mut world, 4);
    assert_eq!(readers(&mut world, &clients, "r1"), 2);
    for _ in 0..10 {
        clients.retain(|key| {
            let stays = read(&mut world, *key) == "r2";
            if !stays {
                world.leave(*key);
            }
            stays
        });
        assert_eq!(clients.len(), 2);
        clients.extend((0..2).map(|_| world.client()));
        assert_eq!(readers(&mut world, &clients, "r1"), 2);
    }
}

#[test]
fn by_request_each_read_goes_to_the_idler_of_two() {
    let mut world = world(&["r1", "r2"], by_request());
    let (one, two) = (world.client(), world.client());
    for _ in 0..10 {
        world.send(one, &["GET a"]);
        world.send(two, &["GET b"]);
        assert_eq!(world.asked("r1").len(), 1);
        assert_eq!(world.asked("r2").len(), 1);
        world.answer_all("r1");
        world.answer_all("r2");
    }
    let hosts: Vec<_> = (0..20).map(|_| read(&mut world, one)).collect();
    assert!(hosts.contains(&"r1".to_owned()) && hosts.contains(&"r2".to_owned()));
}

#[test]
fn a_read_joins_those_of_its_client_in_flight() {
    let mut world = world(&["r1", "r2"], by_request());
    let client = world.client();
    for _ in 0..10 {
        world.send(client, &["GET a"]);
        world.send(client, &["GET b"]);
        let both = [world.asked("r1").len(), world.asked("r2").len()];
        assert!(both == [2, 0] || both == [0, 2], "{both:?}");
        world.answer_all("r1");
        world.answer_all("r2");
    }
}

#[test]
fn a_replica_that_comes_gets_its_share_little_by_little() {
    let mut world = warm(&["r1"]);
    let clients = clients(&mut world, 20);
    assert_eq!(readers(&mut world, &clients, "r1"), 20);
    world.switch_to("m", &["r1", "r2"]);
    live(&mut world, &clients, 1);
    let early = readers(&mut world, &clients, "r2");
    assert!(early <= 4, "{early}");
    live(&mut world, &clients, 4);
    let later = readers(&mut world, &clients, "r2");
    assert!((5..=8).contains(&later), "{later}");
    live(&mut world, &clients, 7);
    let whole = readers(&mut world, &clients, "r2");
    assert!((9..=10).contains(&whole), "{whole}");
    let before: Vec<_> = clients.iter().map(|key| read(&mut world, *key)).collect();
    live(&mut world, &clients, 5);
    let after: Vec<_> = clients.iter().map(|key| read(&mut world, *key)).collect();
    assert_eq!(before, after, "and then everybody stays");
}

#[test]
fn two_clients_have_both_replicas_again_when_one_was_away() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 2);
    assert_eq!(readers(&mut world, &clients, "r1"), 1);
    world.switch_to("m", &["r1"]);
    assert_eq!(readers(&mut world, &clients, "r1"), 2);
    world.switch_to("m", &["r1", "r2"]);
    live(&mut world, &clients, 11);
    assert_eq!(readers(&mut world, &clients, "r1"), 1);
}

#[test]
fn a_replica_that_is_killed_under_load_fails_no_read() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 10);
    all_send(&mut world, &clients, &["GET a", "GET b"]);
    world.opens = false;
    world.lose_node("r1");
    let (link, _) = world.only_opening();
    world.refuse(link, OpenFailure::Unreachable(ConnectStage::Tcp));
    world.answer_all("r2");
    for client in &clients {
        assert_eq!(world.heard(*client), "+OK|+OK|");
    }
    world.switch_to("m", &["r2"]);
    assert_eq!(readers(&mut world, &clients, "r2"), 10);
}

#[test]
fn a_replica_that_is_promoted_under_load_fails_no_read() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 10);
    all_send(&mut world, &clients, &["GET a"]);
    world.switching();
    world.switch_to("r1", &["r2"]);
    all_send(&mut world, &clients, &["GET b"]);
    assert!(world.asked("r2").len() >= 10, "{:?}", world.asked("r2"));
    world.answer_all("r1");
    world.answer_all("r2");
    for client in &clients {
        assert_eq!(world.heard(*client), "+OK|+OK|");
    }
    assert_eq!(readers(&mut world, &clients, "r2"), 10);
}

#[test]
fn an_overloaded_replica_is_spared_and_its_clients_return_to_it() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 4);
    let own: Vec<_> = clients.iter().map(|key| read(&mut world, *key)).collect();
    let of_one = own.iter().zip(&clients).filter(|(host, _)| *host == "r1");
    let of_one: Vec<_> = of_one.map(|(_, key)| *key).collect();
    let [one, other] = of_one[..] else {
        panic!("{own:?}")
    };
    let asked = |world: &World| ["r1", "r2"].map(|host| world.asked(host).len());
    world.send(one, &["GET b"; 64]);
    world.send(other, &["GET c"]);
    assert_eq!(asked(&world), [65, 0], "that is nothing unusual");
    world.answer_all("r1");
    world.send(one, &["GET b"; 65]);
    world.send(other, &["GET c"]);
    assert_eq!(asked(&world), [65, 1]);
    world.answer_all("r2");
    world.send(other, &["GET c"]);
    assert_eq!(asked(&world), [65, 1], "as long as that lasts");
    world.answer_all("r1");
    world.answer_all("r2");
    world.send(other, &["GET c"]);
    assert_eq!(asked(&world), [1, 0]);
}

#[test]
fn weights_are_shares_and_0_is_none() {
    let weights = vec![(addr("r1"), 25), (addr("r3"), 0)];
    let settings = ReaderSettings {
        weights,
        ..ReaderSettings::default()
    };
    let mut world = world(&["r1", "r2", "r3"], settings);
    world.pass(ms(11_000));
    let clients = clients(&mut world, 20);
    assert_eq!(readers(&mut world, &clients, "r1"), 4);
    assert_eq!(readers(&mut world, &clients, "r2"), 16);
    world.switch_to("m", &["r3"]);
    assert_eq!(
        readers(&mut world, &clients, "m"),
        20,
        "as if there were none"
    );
}

#[test]
fn the_nearest_read_while_there_are_any() {
    let mut world = warm(&["r1", "r2", "r3"]);
    let clients = clients(&mut world, 12);
    assert_eq!(readers(&mut world, &clients, "r1"), 4);
    world.picture.distances = vec![2, 0, 0];
    world.switch_to("m", &["r1", "r2", "r3"]);
    live(&mut world, &clients, 1);
    assert_eq!(readers(&mut world, &clients, "r1"), 0, "they move at once");
    assert_eq!(readers(&mut world, &clients, "r2"), 6);
    world.picture.distances = Vec::new();
    world.switch_to("m", &["r1"]);
    assert_eq!(readers(&mut world, &clients, "r1"), 12);
}

#[test]
fn a_replica_that_fails_again_and_again_is_left_alone_for_a_while() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 4);
    assert_eq!(readers(&mut world, &clients, "r1"), 2);
    for _ in 0..5 {
        all_send(&mut world, &clients, &["GET a"]);
        assert_eq!(outliers(&world), []);
        world.lose_node("r1");
        world.answer_all("r1");
        world.answer_all("r2");
        world.pass(ms(1_000));
    }
    assert_eq!(outliers(&world), [("r1".to_owned(), Outlier::Errors)]);
    live(&mut world, &clients, 8);
    assert_eq!(readers(&mut world, &clients, "r2"), 4);
    live(&mut world, &clients, 14);
    assert_eq!(readers(&mut world, &clients, "r1"), 2, "it has come back");
}

#[test]
fn the_last_replica_is_never_an_outlier() {
    let mut world = warm(&["r1"]);
    let client = world.client();
    for _ in 0..20 {
        world.send(client, &["GET a"]);
        world.lose_node("r1");
        world.answer_all("r1");
        world.answer_all("m");
        world.pass(ms(300));
    }
    assert_eq!(outliers(&world), []);
    assert_eq!(read(&mut world, client), "r1");
}

/// Each client reads a few times, and a node's replies take so long.
fn slow_reads(world: &mut World, clients: &[ClientKey], slow: &[&str], millis: u64) {
    for _ in 0..100 {
        all_send(world, clients, &["GET a"]);
        for host in ["r1", "r2", "r3"] {
            if !slow.contains(&host) {
                world.answer_all(host);
            }
        }
        world.pass(ms(millis));
        for host in slow {
            world.answer_all(host);
        }
    }
}

#[test]
fn a_replica_that_is_much_slower_than_the_others_is_left_alone_for_a_while() {
    let mut world = warm(&["r1", "r2", "r3"]);
    let clients = clients(&mut world, 9);
    slow_reads(&mut world, &clients, &["r1"], 19);
    assert_eq!(outliers(&world), [], "that is not slow");
    slow_reads(&mut world, &clients, &["r1"], 40);
    assert_eq!(outliers(&world), [("r1".to_owned(), Outlier::Latency)]);
    assert_eq!(readers(&mut world, &clients, "r1"), 0);
    slow_reads(&mut world, &clients, &["r2"], 40);
    let only = [("r1".to_owned(), Outlier::Latency)];
    assert_eq!(outliers(&world), only, "half of them serve");
    live(&mut world, &clients, 25);
    assert!(readers(&mut world, &clients, "r1") >= 2);
}

#[test]
fn an_outlier_serves_when_nobody_else_does() {
    let mut world = warm(&["r1", "r2"]);
    let clients = clients(&mut world, 8);
    slow_reads(&mut world, &clients, &["r1"], 40);
    assert_eq!(readers(&mut world, &clients, "r1"), 0);
    world.lose_node("r2");
    world.switch_to("m", &["r1"]);
    assert_eq!(readers(&mut world, &clients, "r1"), 8);
}

#[test]
fn a_dead_set_of_replicas_does_not_drown_the_master() {
    let settings = ReaderSettings {
        fallback: Some(10),
        ..ReaderSettings::default()
    };
    let mut world = world(&["r1"], settings);
    let clients = clients(&mut world, 30);
    assert_eq!(readers(&mut world, &clients, "r1"), 30);
    world.switch_to("m", &[]);
    assert_eq!(readers(&mut world, &clients, "m"), 10);
    let refused = "nobody: -MASTERDOWN switchman: no replica can serve reads now";
    assert!(read(&mut world, clients[0]).starts_with(refused));
    world.pass(ms(500));
    assert_eq!(readers(&mut world, &clients, "m"), 5);
    world.send(clients[0], &["SET a 1", "GET a"]);
    world.answer_all("m");
    let heard = world.heard(clients[0]);
    assert_eq!(
        heard, "+OK|+OK|",
        "a read of one's own write is none of these"
    );
    world.switch_to("m", &["r1"]);
    assert_eq!(readers(&mut world, &clients, "r1"), 30);
}

#[test]
fn the_reads_of_each_node_are_counted() {
    let mut world = world(&["r1"], ReaderSettings::default());
    let client = world.client();
    for _ in 0..3 {
        assert_eq!(read(&mut world, client), "r1");
    }
    world.switch_to("m", &[]);
    assert_eq!(read(&mut world, client), "m");
    let text = memory::rendered(&mut world);
    let of = |host: &str, count: u32| {
        format!("switchman_node_reads_total{{master_name=\"orders\",node=\"{host}:6379\"}} {count}")
    };
    assert!(text.contains(&of("r1", 3)), "{text}");
    assert!(text.contains(&of("m", 1)), "{text}");
}
