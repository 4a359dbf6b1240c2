//! Floor 4. Tests: What is counted, and what is given back.

use super::*;
use crate::exchange::client::Client;
use crate::session::Session;
use crate::telemetry::{BuildInfo, Metrics, RequestClass, Target};

/// What the group's metrics say; empties the counters.
pub(super) fn rendered(world: &mut World) -> String {
    let metrics = Metrics::new(BuildInfo {
        version: "0",
        revision: "0",
    });
    let mut worker = metrics.worker(&MasterName::new("orders"));
    worker.publish(world.exchange.counts(0).unwrap());
    metrics.render()
}

#[test]
fn a_client_is_small() {
    assert!(size_of::<Client>() <= 496, "{}", size_of::<Client>());
    assert!(size_of::<Session>() <= 80, "{}", size_of::<Session>());
}

#[test]
fn an_idle_client_owns_no_memory_besides_itself() {
    let mut world = World::new();
    let client = world.client();
    world.send(client, &["SET a 1", "GET a", "GET b", "PING"]);
    world.answer_all("m");
    let lines = [
        "MULTI",
        "EXEC",
        "CLIENT REPLY SKIP",
        "PING",
        "WATCH a",
        "UNWATCH",
        "UNWATCH",
    ];
    world.send(client, &lines);
    world.answer_all("m");
    world.send(client, &["GET x", "SET y 1"]);
    world.answer_all("m");
    world.lose_node("r1");
    world.answer_all("r1");
    world.switching();
    let half = encoded("SET half 1");
    world.send_raw(client, &half[..9]);
    world.pass(ms(100));
    world.send_raw(client, &half[9..]);
    world.pass(ms(100));
    world.send(client, &["SET c 1"]);
    world.switch_to("m", &["r1"]);
    world.answer_all("m");
    let big = format!("SET k {}", "x".repeat(50_000));
    world.send_raw(client, &encoded(&big)[..30_000]);
    world.send_raw(client, &encoded(&big)[30_000..]);
    world.answer_all("m");
    assert!(!world.heard(client).is_empty());
    world.assert_calm();
    let client = world.exchange.clients.get(client).unwrap();
    assert_eq!(client.input.capacity(), 0);
    assert_eq!(client.later.capacity(), 0);
    assert_eq!(client.again.capacity(), 0);
    assert!(client.throttled.is_empty());
    assert!(client.verdict.is_none() && client.lease.is_none());
    assert!(client.replies.is_bare() && client.replies.owns_nothing());
    for (_, link) in world.exchange.links.iter() {
        assert_eq!(link.input.capacity(), 0);
    }
}

#[test]
fn what_clients_used_is_there_for_others_when_they_are_gone() {
    let mut world = World::new();
    let clients: Vec<_> = (0..1000).map(|_| world.client()).collect();
    for client in &clients {
        world.send_raw(*client, b"*2\r\n$3\r\nGE");
        assert_eq!(world.heard(*client), "");
    }
    for client in clients {
        world.leave(client);
    }
    assert_eq!(world.exchange.client_count(), 0);
    assert!(world.exchange.spares.is_bounded());
    assert_eq!(world.exchange.counts(0).unwrap().clients, 0);
    let again: Vec<_> = (0..1000).map(|_| world.client()).collect();
    assert!(again.iter().all(|client| client.index() < 1000));
}

#[test]
fn requests_are_counted_by_what_they_are_and_who_answered() {
    let mut world = World::new();
    let client = world.client();
    let lines = [
        "SET a 1",
        "GET a",
        "PING",
        "DBSIZE",
        "MULTI",
        "EXEC",
        "CONFIG SET x y",
    ];
    world.send(client, &lines);
    world.answer_all("m");
    world.pass(ms(5_100));
    world.send(client, &["GET a", "REPLICAOF NO ONE"]);
    world.answer_all("r1");
    let counts = world.exchange.counts(0).unwrap();
    let mut count = |class, target| counts.request_duration(class, target).count();
    assert_eq!(count(RequestClass::Write, Target::Master), 1);
    assert_eq!(count(RequestClass::Read, Target::Master), 2);
    assert_eq!(count(RequestClass::Read, Target::Replica), 1);
    assert_eq!(count(RequestClass::Session, Target::Local), 1);
    assert_eq!(count(RequestClass::Leased, Target::Master), 2);
    assert_eq!(count(RequestClass::Admin, Target::Master), 1);
    assert_eq!(count(RequestClass::Refused, Target::Local), 1);
    assert_eq!(bounds::rejected(&mut world, "refused_command"), 1);
}

#[test]
fn gauges_return_to_where_they_were() {
    let mut world = World::new();
    let gauges = |world: &mut World| {
        let text = rendered(world);
        let is_gauge = |line: &&str| {
            line.starts_with("switchman_upstream_connections{")
                || line.starts_with("switchman_upstream_in_flight_requests{")
                || line.starts_with("switchman_client_connections{")
                || line.starts_with("switchman_held_clients{")
        };
        text.lines()
            .filter(is_gauge)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let before = gauges(&mut world);
    assert!(before.len() >= 6, "{before:?}");
    let (one, two) = (world.client(), world.client());
    world.send(
        one,
        &[
            "SET a 1",
            "GET a",
            "BLPOP q 0",
            "AUTH app secret",
            "SET b 1",
        ],
    );
    world.send(two, &["SELECT 1", "WATCH a", "MULTI"]);
    assert_ne!(gauges(&mut world), before);
    world.answer_all("m");
    world.answer_all("m");
    world.switching();
    world.send(one, &["SET c 1"]);
    world.pass(ms(100));
    world.switch_to("m", &["r1"]);
    world.answer_all("m");
    world.lose_node("m");
    world.lose_node("r1");
    world.leave(one);
    world.leave(two);
    world.pass(Duration::from_secs(61));
    world.switching();
    world.switch_to("m", &["r1"]);
    assert_eq!(gauges(&mut world), before);
    world.assert_calm();
}
