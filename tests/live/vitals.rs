//! What a process costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

/// Clock ticks of `/proc/<pid>/stat` a second, on every Linux that there is.
const TICKS: u64 = 100;

/// A process as the kernel sees it now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vitals {
    /// Memory in use.
    pub(crate) resident: u64,
    /// The most that there was in use at any time.
    pub(crate) resident_max: u64,
    /// Open files, sockets among them.
    pub(crate) files: usize,
    /// Processor time used since its start.
    pub(crate) busy: Duration,
}

impl Vitals {
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let words = line.unwrap().trim_start_matches(':').split_whitespace();
            words.take(1).last().unwrap().parse().unwrap()
        };
        Self {
            resident: kib("VmRSS") * 1024,
            resident_max: kib("VmHWM") * 1024,
            files: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            busy: busy(pid),
        }
    }
}

/// User and system time: fields 14 and 15, counted behind the name, which may hold anything.
fn busy(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_name, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}
