//! Floor 0. The process's own figures, under the names that all Prometheus clients use.
//! Reads `/proc`; where there is none, there are no such metrics.

use std::fs;

use crate::telemetry::recorder::push;

/// Ticks per second in `/proc`: fixed at 100 for user space on Linux.
const TICKS: f64 = 100.0;

/// Appends what is known of this process.
pub(super) fn render(text: &mut String) {
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Processor time used.",
            cpu_seconds(),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            resident_bytes(),
        ),
        (
            "process_open_fds",
            "gauge",
            "Open file descriptors.",
            open_fds(),
        ),
        (
            "process_max_fds",
            "gauge",
            "Limit of open file descriptors.",
            max_fds(),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time, Unix epoch.",
            start_seconds(),
        ),
    ] {
        if let Some(value) = value {
            push(
                text,
                format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
            );
            push(text, format_args!("{name} {value}\n\n"));
        }
    }
}

fn cpu_seconds() -> Option<f64> {
    // proc(5): field 14 is user time, field 15 system time.
    Some((stat_field(14)? + stat_field(15)?) / TICKS)
}

fn start_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    // proc(5): field 22 is the start in ticks since boot.
    Some(boot.trim().parse::<f64>().ok()? + stat_field(22)? / TICKS)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

fn open_fds() -> Option<f64> {
    // The directory's own descriptor is among the entries.
    let open = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    u32::try_from(open).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Field `number` of `/proc/self/stat`, counted from 1.
fn stat_field(number: usize) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Field 2 is the name in parentheses and may hold anything; field 3 follows the last one.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_found_and_plausible() {
        assert!(cpu_seconds().unwrap() < 3600.0 * 24.0);
        assert!(resident_bytes().unwrap() > 100_000.0);
        assert!(open_fds().unwrap() >= 3.0);
        assert!(max_fds().unwrap() >= open_fds().unwrap());
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let age = now.as_secs_f64() - start_seconds().unwrap();
        assert!((-2.0..3600.0 * 24.0).contains(&age), "{age}");
    }
}
