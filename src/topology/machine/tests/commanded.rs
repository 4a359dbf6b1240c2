//! Floor 1. Holding by command, and each way in which that ends.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::{A, B, C, Peer, S1, World, addr, master, settings, view};
use crate::topology::{Cause, Flags, HOLD_MAX, HoldRefused, Phase, Source};
use crate::types::Time;

/// Holds by command for `ms` milliseconds.
fn hold(world: &mut World, ms: u64) -> Result<(), HoldRefused> {
    let until = world.now + Duration::from_millis(ms);
    let result = world.machine.hold(world.now, until);
    world.run(0);
    result
}

fn let_go(world: &mut World) {
    world.machine.let_go(world.now);
    world.run(0);
}

#[test]
fn a_command_holds_a_healthy_master_until_it_is_taken_back_and_the_master_proven() {
    let mut world = World::healthy();
    hold(&mut world, 20_000).unwrap();
    assert!(world.is_holding());
    assert_eq!(world.machine.status().cause, Some(Cause::Switchover));
    assert!(world.machine.is_quiet() && world.machine.is_commanded());
    world.run(10_000);
    assert!(world.is_holding(), "however healthy the master is");
    world.set(A, Peer::Silent);
    world.run(100);
    let_go(&mut world);
    world.run(300);
    assert!(world.is_holding(), "proofs from before do not count");
    world.set(A, master());
    world.run_until(5_000, |world| world.writable().as_deref() == Some(A));
    assert!(!world.machine.is_commanded());
    assert_eq!(world.switches(), 0);
}

#[test]
fn a_command_that_nobody_takes_back_ends_by_itself() {
    let mut world = World::healthy();
    hold(&mut world, 5_000).unwrap();
    world.run(4_900);
    assert!(world.is_holding());
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(A));
    assert!((100..=200).contains(&took), "{took} ms");

    hold(&mut world, 3_600_000).unwrap();
    world.run(u64::try_from(HOLD_MAX.as_millis()).unwrap() + 200);
    assert_eq!(world.writable().as_deref(), Some(A));
}

#[test]
fn a_hold_by_command_ends_on_the_master_that_sentinels_name_then() {
    let mut world = World::healthy();
    hold(&mut world, 20_000).unwrap();
    world.run(500);
    world.fail_over_to_b(2);
    let took = world.run_until(1_000, |world| world.writable().as_deref() == Some(B));
    assert!(took <= 200, "{took} ms");
    assert!(!world.machine.is_commanded());
    world.run(30_000);
    assert_eq!(world.writable().as_deref(), Some(B));
    assert_eq!(world.machine.status().incidents.len(), 1);
}

#[test]
fn quiet_means_all_workers() {
    let mut world = World::healthy();
    world.obedient = false;
    hold(&mut world, 20_000).unwrap();
    world.run(2_000);
    assert!(!world.machine.is_quiet(), "whatever drain-timeout says");
    assert_eq!(world.snapshot().master, Some(addr(A)));
}

#[test]
fn only_a_stable_group_with_sentinels_is_held_by_command() {
    let mut world = World::unstarted();
    assert_eq!(hold(&mut world, 1_000), Err(HoldRefused::Unknown));
    let mut world = World::healthy();
    hold(&mut world, 1_000).unwrap();
    assert_eq!(hold(&mut world, 1_000), Err(HoldRefused::Switching));
    let source = Source::Static {
        master: addr(A),
        replicas: Vec::new(),
    };
    let mut world = World::with(settings(source));
    world.set(A, master());
    world.run(1_000);
    assert_eq!(world.snapshot().phase, Phase::Stable);
    assert_eq!(hold(&mut world, 1_000), Err(HoldRefused::Static));
}

#[test]
fn letting_go_of_what_is_not_held_by_command_changes_nothing() {
    let mut world = World::healthy();
    let before = (world.snapshot(), world.questions(A));
    let_go(&mut world);
    assert_eq!((world.snapshot(), world.questions(A)), before);
    assert_ne!(world.now, Time::ZERO);
}

#[test]
fn replicas_that_sentinel_may_choose_are_alive_and_of_a_priority() {
    let mut world = World::healthy();
    assert_eq!(world.machine.promotable(), BTreeSet::new(), "priority 0");
    let mut told = view(A, 1, &[B, C]);
    for replica in &mut told.replicas {
        replica.priority = 100;
    }
    told.replicas[1].flags = Flags {
        s_down: true,
        ..Flags::default()
    };
    world.all_see(&told);
    world.run(6_000);
    assert_eq!(world.machine.promotable(), BTreeSet::from([addr(B)]));
    // One that sees it alive is enough: it may be the one that is told to fail over.
    told.replicas[1].flags = Flags::default();
    world.sees(S1, told);
    world.run(6_000);
    let both = BTreeSet::from([addr(B), addr(C)]);
    assert_eq!(world.machine.promotable(), both);
    assert_eq!(world.machine.answering().count(), 3);
}
