//! The joint simulation: the topology machine and the exchanges of some workers, glued as the shell
//! glues them, in invented worlds of nodes, Sentinels and clients in which things go wrong; and an
//! oracle that knows all of a world and looks for broken promises (`book::Broken`).
//!
//! Everything around the two machines is a fake. Real servers cannot be made to do these things on
//! command: to die with a reply half sent, to thaw in the microsecond between a question and its
//! answer, to vote late. The live tests show that real servers behave as these fakes do.
//!
//! A world follows from its number. One that breaks a promise is made smaller, and told:
//!
//! * `SWITCHMAN_SIM_WORLD`: this world only, with its whole story;
//! * `SWITCHMAN_SIM_SECONDS`: worlds for so long, instead of a few;
//! * `SWITCHMAN_SIM_WORLDS`: so many worlds;
//! * `SWITCHMAN_SIM_FIRST`: the first world, instead of 0.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "worlds that are wrong fail a test by panicking, and the rest is told"
)]

/// Keeps a line of what happens, when somebody wants to read it.
macro_rules! note {
    ($world:expr, $($words:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($words)*);
            $world.tell(&line);
        }
    };
}

mod book;
mod client;
mod control;
mod fault;
mod listener;
mod node;
mod plan;
mod planned;
mod queue;
mod run;
mod sentinel;
mod worker;
mod world;

use std::time::Duration;

use crate::book::{Book, Broken, Command, Fate, Verb};
use crate::plan::{Fault, Kind, Plan, ms, sec};
use crate::run::{Limit, Many, play};
use crate::world::Mutation;

/// Worlds of a run that nobody asked to be longer.
const WORLDS: u64 = 500;
/// Worlds in which a faulty glue must have been seen.
const SEEN_WITHIN: u64 = 400;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}")),
    )
}

#[test]
fn no_world_breaks_a_promise() {
    if let Some(world) = number("SWITCHMAN_SIM_WORLD") {
        return run::tell(&Plan::new(world));
    }
    let many = Many {
        first: number("SWITCHMAN_SIM_FIRST").unwrap_or(0),
        limit: match (
            number("SWITCHMAN_SIM_WORLDS"),
            number("SWITCHMAN_SIM_SECONDS"),
        ) {
            (Some(worlds), _) => Limit::Worlds(worlds),
            (None, Some(seconds)) => Limit::Time(Duration::from_secs(seconds)),
            (None, None) => Limit::Worlds(WORLDS),
        },
    };
    let done = many.run();
    println!("{done}");
    if let Some(plan) = done.broken {
        run::tell(&plan);
    }
    assert!(
        done.counts.switches > 0,
        "worlds in which nothing happens prove nothing"
    );
}

/// Whether a faulty glue is seen to break a promise.
fn sees(mutation: Mutation, broken: Broken) -> bool {
    (0..SEEN_WITHIN).any(|seed| {
        let violation = play(&Plan::new(seed), Some(mutation)).violation;
        violation.is_some_and(|violation| violation.broken == broken)
    })
}

#[test]
fn the_oracle_sees_a_worker_that_goes_on_with_a_master_that_was_left() {
    assert!(sees(Mutation::Withhold, Broken::Left));
    assert!(sees(Mutation::OldMaster, Broken::Left));
}

#[test]
fn the_oracle_sees_a_snapshot_from_the_past() {
    assert!(sees(Mutation::OldEpoch, Broken::Snapshot));
}

#[test]
fn the_oracle_sees_a_write_that_is_sent_again() {
    assert!(sees(Mutation::Resend, Broken::Twice));
}

#[test]
fn the_oracle_sees_replies_that_belong_to_others() {
    assert!(sees(Mutation::Swallow, Broken::Reply));
}

#[test]
fn the_oracle_sees_an_acknowledgement_without_an_execution() {
    assert!(sees(Mutation::Forge, Broken::Truth));
}

#[test]
fn the_oracle_sees_commands_that_wait_for_too_long() {
    assert!(sees(Mutation::NoTicks, Broken::Deadline));
}

#[test]
fn the_oracle_sees_a_group_that_is_not_served_again() {
    assert!(sees(Mutation::Blind, Broken::Progress));
}

#[test]
fn the_oracle_sees_service_without_a_majority() {
    let mut plan = Plan::new(0);
    plan.seeds = plan.sentinels;
    plan.pace.strict = Some(ms(500));
    plan.faults = vec![Fault {
        at: ms(1_000),
        lasts: sec(8),
        kind: Kind::DownMost,
    }];
    let violation = play(&plan, Some(Mutation::Hush)).violation;
    assert_eq!(violation.map(|it| it.broken), Some(Broken::Minority));
    assert!(play(&plan, None).violation.is_none());
}

#[test]
fn the_oracle_sees_errors_that_nobody_had_to_have() {
    assert!(sees(Mutation::Blind, Broken::Needless));
}

#[test]
fn the_oracle_sees_commands_that_wait_for_another_time_than_they_asked_for() {
    assert!(sees(Mutation::Impatient, Broken::Wait));
    assert!(sees(Mutation::Anew, Broken::Wait));
}

#[test]
fn the_oracle_sees_subscriptions_that_are_lost_or_confirmed_twice() {
    assert!(sees(Mutation::Unheard, Broken::Progress));
    assert!(sees(Mutation::Confirmed, Broken::Reply));
}

#[test]
fn the_oracle_sees_a_planned_failover_that_loses_writes() {
    let mut plan = Plan::new(0);
    let fault = |at, kind| Fault {
        at: ms(at),
        lasts: sec(5),
        kind,
    };
    plan.faults = (1..plan.nodes)
        .map(|node| fault(900, Kind::Lag(node)))
        .collect();
    plan.faults.push(fault(2_500, Kind::Switchover));
    plan.pace.hold = None;
    let violation = play(&plan, Some(Mutation::Boast)).violation;
    assert_eq!(violation.map(|it| it.broken), Some(Broken::Planned));
    assert!(play(&plan, None).violation.is_none());
}

#[test]
fn the_oracle_sees_an_acknowledgement_beyond_the_fork() {
    let write = Command {
        client: 0,
        verb: Verb::Set,
        inside: false,
        made: 0,
        arrived: Some(0),
        wired: true,
        disowned: false,
        times: 0,
        node: 0,
        held_by: 0,
        fate: Fate::Open,
        timeout: 0,
        waited: 0,
        blocked_at: 0,
        element: None,
        gated: true,
    };
    let mut book = Book {
        commands: vec![write, write],
        ..Book::default()
    };
    book.executed(0, 0);
    book.executed(1, 0);
    book.commands[1].held_by |= 1 << 1;
    book.past_the_fork(1, 0, 1);
    assert!(book.violation.is_none());
    book.commands[0].gated = false;
    book.past_the_fork(0, 0, 1);
    assert!(book.violation.is_none());
    book.commands[0].gated = true;
    book.past_the_fork(0, 0, 1);
    assert_eq!(book.violation.map(|it| it.broken), Some(Broken::Gate));
}
