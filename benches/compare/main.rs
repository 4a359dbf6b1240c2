//! Floor 8. `make bench`: Switchman, `HAProxy` and nutcracker side by side, before the same master.
//! Measures and judges; knows Switchman only as a program that is started and spoken to.
//!
//! # What is measured
//!
//! One real master with one replica, watched by Sentinels, serves every target. The targets are
//! `direct` (no proxy), `haproxy` (`mode tcp`, one thread, a plain pipe), `nutcracker` (one pool,
//! one server, default buffers) and Switchman with one worker in two shapes: `switchman-master`
//! (`consistency = "master"`: the same work as the others do) and `switchman-replica`
//! (`consistency = "eventual"`: reads go to the replica). A proxy that is not installed is named
//! and left out.
//!
//! `cargo bench --bench compare -- consistency` compares Switchman with itself instead:
//! `switchman-own-writes` with `switchman-replica`, before two replicas, by one SET for 19 GETs
//! over 100 000 keys, so that most keys are settled and both send their reads to the replicas. (A
//! read that a client sends behind a write of its own, in the same batch, goes to the master.)
//!
//! # How
//!
//! * One thread, one epoll, 50 clients in a closed loop: each writes one batch of 1, 16 or 100
//!   commands in one `write`, waits for all replies, and writes the next. Ten GETs for each SET,
//!   values of 32 bytes, 1 000 keys unless said otherwise. Each reply is compared byte for byte
//!   with what it must be.
//! * All targets run at once but are driven one after another, in rounds, and the first of a
//!   round is another one each time. So whatever else the machine does meets all of them, and a
//!   ratio of two targets is taken within each round; medians of these are what is printed.
//! * Two processes of one program differ by some hundredths in processor time, as long as they
//!   live, by where their memory lies. Where a difference of that size is looked for, all proxies
//!   are started anew every few rounds.
//! * A measurement opens its own clients, warms up, and then reads commands, clock and processor
//!   time in one go at either end of the window, while the load goes on.
//! * Processor time is the run time of all threads of the proxy (`/proc/PID/task/*/schedstat`, in
//!   nanoseconds), user and kernel together, divided by the commands of the window.
//! * Latency is that of a batch: from its `write` to its last reply byte.
//! * Idle memory needs a fresh process: resident memory at start, then 1 800 clients that each
//!   said HELLO 3 and CLIENT SETINFO and read one value of 1 MB, eight at a time, then five
//!   seconds of silence. The growth is divided by the number of clients. "Marginal" is the same
//!   for the second half of the clients, free of what is paid once.
//!
//! Absolute figures say more about the machine than about the program: compare ratios.

mod aims;
mod idle;
mod load;
mod options;
mod procfs;
mod report;
mod targets;
mod workload;

use std::io::IsTerminal;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use rustix::process::Resource;
use rustix::process::Rlimit;

use crate::load::Load;
use crate::options::Options;
use crate::report::Report;
use crate::targets::Fleet;
use crate::targets::Target;
use crate::workload::Workload;

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            // Nothing else is left to do with a standard error that cannot be written to.
            let _ = writeln!(std::io::stderr(), "compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs it all; whether every aim that could be judged was met, or judging was not asked for.
fn compare(options: &Options) -> anyhow::Result<bool> {
    raise_descriptor_limit();
    let mut report = Report::new(options, std::io::stdout());
    let mut fleet = Fleet::start(options, &mut report)?;
    drive(options, &mut fleet, &mut report)?;
    if options.idle_clients() > 0 {
        for target in fleet.proxies() {
            let fresh = fleet.start_proxy(target)?;
            let idle = idle::measure(options, &fresh)
                .with_context(|| format!("idle clients of {target}"))?;
            report.idle(target, idle)?;
        }
    }
    let met = report.finish()?;
    Ok(met || !options.strict)
}

fn drive(
    options: &Options,
    fleet: &mut Fleet,
    report: &mut Report<impl Write + IsTerminal>,
) -> anyhow::Result<()> {
    let workloads: Vec<Workload> = options
        .pipelines()
        .iter()
        .map(|&pipeline| Workload::new(pipeline, options.mix()))
        .collect();
    workload::fill(fleet.master(), options.mix(), options.replicas())?;
    let targets: Vec<Target> = fleet.targets();
    for round in 0..options.rounds() {
        if options.begins_afresh(round) {
            fleet.begin_afresh()?;
        }
        for workload in &workloads {
            for turn in 0..targets.len() {
                let target = targets[(turn + round) % targets.len()];
                let (addr, pid) = fleet.endpoint(target);
                let load = Load {
                    addr,
                    pid,
                    clients: options.clients,
                    workload,
                };
                let reads = fleet.reads()?;
                let sample = load
                    .run(options.warm_up(), options.window())
                    .with_context(|| format!("{target}, pipeline {}", workload.pipeline()))?;
                report.sample(round, target, workload.pipeline(), sample)?;
                report.reads(target, &reads, &fleet.reads()?);
            }
        }
    }
    Ok(())
}

/// Lets this process and its children open as many files as the system allows: 1 800 clients
/// need more than the usual 1 024, and a pipe needs two for each.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where it is refused, opening the clients will name the limit.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}
