//! Floor 1. Nodes that run a script for too long: alive, and their role is not told.

use super::world::{A, B, C, Peer, S1, World, addr, master, replica_of, view};
use crate::topology::{Ejection, NodeAnswer, NodeRole, ReportKind, Source};

const SWITCH: &str = "orders 10.0.0.1 6379 10.0.0.2 6379";

fn busy() -> Peer<NodeAnswer> {
    let role = NodeRole::Busy;
    Peer::Answers(NodeAnswer {
        role,
        run_id: None,
        replication: None,
        zone: None,
    })
}

#[test]
fn a_master_that_becomes_busy_is_the_master_all_the_time() {
    let mut world = World::healthy();
    world.set(A, busy());
    world.report(0, ReportKind::Silent { node: addr(A) });
    world.run(60_000);
    assert_eq!(world.writable().as_deref(), Some(A));
    let status = world.machine.status();
    assert!(status.incidents.is_empty());
    assert!(
        status
            .master
            .is_some_and(|it| it.busy && it.error.is_none())
    );
    world.set(A, master());
    world.run(2_000);
    assert!(world.machine.status().master.is_some_and(|it| !it.busy));
}

#[test]
fn a_silent_master_is_gone_on_with_as_soon_as_it_says_that_it_is_busy() {
    let mut world = World::healthy();
    world.set(A, Peer::Silent);
    world.report(0, ReportKind::Silent { node: addr(A) });
    world.run(5_000);
    assert!(world.is_holding());
    world.set(A, busy());
    let took = world.run_until(2_000, |world| world.writable().is_some());
    assert!(took <= 700, "{took} ms");
    assert_eq!(world.writable().as_deref(), Some(A));
    world.run(60_000);
    assert_eq!(world.machine.status().incidents.len(), 1);
}

#[test]
fn a_busy_node_is_not_proven_to_be_what_it_was_not() {
    let mut world = World::unstarted();
    world.set(A, busy());
    world.run(20_000);
    assert_eq!(world.master(), None, "nobody has ever heard its role");
    world.set(A, master());
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(A));

    world.fail_over_to_b(2);
    world.set(B, busy());
    world.event(S1, "+switch-master", SWITCH);
    world.run(20_000);
    assert!(world.is_holding(), "B was a replica when it last told");
    world.set(B, master());
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    // A believed to be a master when it last told, long ago, and is named again.
    world.set(A, busy());
    world.run(20_000);
    world.all_see(&view(A, 3, &[C]));
    world.run(20_000);
    assert!(world.is_holding());
    assert_eq!(world.master().as_deref(), Some(B));
}

#[test]
fn a_busy_master_is_left_when_the_sentinels_have_another_one() {
    let mut world = World::healthy();
    world.set(A, busy());
    world.run(3_000);
    world.fail_over_to_b(2);
    world.event(S1, "+switch-master", SWITCH);
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(B));
}

#[test]
fn a_demoted_master_that_is_busy_stays_demoted() {
    let mut world = World::healthy();
    world.set(A, replica_of(B));
    world.run(2_000);
    assert!(world.is_holding());
    world.set(A, busy());
    world.run(20_000);
    assert!(world.is_holding());
}

#[test]
fn a_busy_replica_serves_no_reads_until_it_has_told_its_role_again() {
    let mut world = World::healthy();
    world.set(B, busy());
    world.run(3_000);
    assert_eq!(world.replicas(), [C]);
    let status = world.machine.status();
    let of_b = status.replicas.iter().find(|it| it.node.node == addr(B));
    assert_eq!(of_b.and_then(|it| it.ejected), Some(Ejection::Busy));
    world.set(B, replica_of(A));
    world.run(3_000);
    assert_eq!(world.replicas(), [B, C]);
}

#[test]
fn a_configured_master_is_believed_while_it_is_busy() {
    let (master, replicas) = (addr(A), Vec::new());
    let mut world = World::new(Source::Static { master, replicas });
    world.set(A, busy());
    world.run(1_000);
    assert_eq!(world.writable().as_deref(), Some(A));
}
