//! Floor 1. What the kernel says of a process: processor time and resident memory.

use std::fs;
use std::io;
use std::time::Duration;

/// Processor time of all threads of `pid` so far, user and kernel together.
///
/// `/proc/PID/task/TID/schedstat` begins with the thread's time on a processor in nanoseconds
/// (Linux, `Documentation/scheduler/sched-stats.rst`). A thread that has ended no longer counts;
/// no proxy here ends threads under load.
pub(crate) fn processor_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += first_number(&stat).ok_or_else(|| malformed("schedstat"))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Resident memory of `pid`, in KB (1 024 bytes).
///
/// `smaps_rollup` walks the page tables and is exact, where `statm` lags behind by up to 64 pages
/// per thread.
pub(crate) fn resident_kb(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    rollup
        .lines()
        .find_map(|line| line.strip_prefix("Rss:"))
        .and_then(first_number)
        .ok_or_else(|| malformed("smaps_rollup"))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{name} has no number in it"),
    )
}
