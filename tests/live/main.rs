//! Black-box tests: the real binary in front of real Redis nodes and real Sentinels, all on
//! loopback.
//!
//! Each test waits for events with deadlines, and uses ports that the kernel or the deployment
//! chose. Two deployments run at a time, whatever the number of test threads: see `lab::Lab`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of a test fail it by panicking, and print the figures it measured"
)]

mod attending;
mod busy;
mod carried;
mod chatter;
mod clients;
mod command_table;
mod deployment;
mod detour;
mod differential;
mod election;
mod failover;
mod faults;
mod fence;
mod gate;
mod hedging;
mod hostile;
mod lab;
mod liar;
mod lifecycle;
mod limits;
mod listeners;
mod matrix;
mod order;
mod outage;
mod pause;
mod proxy;
mod quorum;
mod reboot;
mod redirection;
mod replicas;
mod routing;
mod session;
mod size;
mod stale;
mod subscribers;
mod swallowed;
mod switchover;
mod topology;
mod transactions;
mod transparency;
mod tunnel;
mod version;
mod vitals;
