//! Floor 7. What the comparison is asked to do: arguments, or the environment.

use std::time::Duration;

use clap::Parser;

use crate::targets::Target;

/// Compares Switchman with other proxies, and all of them with no proxy at all.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// Rounds; each drives every target once at every pipeline length.
    #[arg(long, env = "SWITCHMAN_BENCH_ROUNDS", default_value_t = 5)]
    pub(crate) rounds: usize,

    /// Length of one measured window, in seconds.
    #[arg(long, env = "SWITCHMAN_BENCH_SECONDS", default_value_t = 2.0)]
    seconds: f64,

    /// Length of the warm-up before each window, in seconds.
    #[arg(long, env = "SWITCHMAN_BENCH_WARM_UP", default_value_t = 0.4)]
    warm_up: f64,

    /// Clients that are busy at once.
    #[arg(long, env = "SWITCHMAN_BENCH_CLIENTS", default_value_t = 50)]
    pub(crate) clients: usize,

    /// Commands in one batch of a client.
    #[arg(
        long,
        env = "SWITCHMAN_BENCH_PIPELINES",
        value_delimiter = ',',
        default_values_t = [1, 16, 100],
    )]
    pub(crate) pipelines: Vec<usize>,

    /// Idle clients for the measurement of memory; 0 leaves it out.
    #[arg(long, env = "SWITCHMAN_BENCH_IDLE_CLIENTS", default_value_t = 1_800)]
    pub(crate) idle_clients: usize,

    /// Silence before the memory of idle clients is read, in seconds.
    #[arg(long, env = "SWITCHMAN_BENCH_IDLE_SECONDS", default_value_t = 5.0)]
    idle_seconds: f64,

    /// Targets; all of them unless given.
    #[arg(long, env = "SWITCHMAN_BENCH_ONLY", value_delimiter = ',')]
    only: Vec<Target>,

    /// Prints every measurement and every aim as one JSON object per line, and nothing else.
    #[arg(long, env = "SWITCHMAN_BENCH_JSON")]
    pub(crate) json: bool,

    /// Ends with exit code 2 if an aim is missed.
    #[arg(long, env = "SWITCHMAN_BENCH_STRICT")]
    pub(crate) strict: bool,

    /// Given by `cargo bench`, of no meaning here.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Whether this target takes part.
    pub(crate) fn wants(&self, target: Target) -> bool {
        self.only.is_empty() || self.only.contains(&target)
    }

    /// Length of one measured window.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Length of the warm-up before it.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }

    /// Silence before the memory of idle clients is read.
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_secs_f64(self.idle_seconds)
    }
}
