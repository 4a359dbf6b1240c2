//! Floor 7. What the comparison is asked to do: arguments, or the environment.

use std::time::Duration;

use clap::Parser;
use clap::ValueEnum;

use crate::targets::Target;
use crate::workload::Mix;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// Switchman with other proxies, before one replica.
    Proxies,
    /// Switchman's `own-writes` with its `eventual`, before two replicas.
    Consistency,
}

/// Compares Switchman with other proxies, and all of them with no proxy at all.
#[derive(Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Options {
    /// What is compared.
    #[arg(default_value = "proxies")]
    subject: Subject,

    /// Rounds; each drives every target once at every pipeline length. 5, or 15 for consistency.
    #[arg(long, env = "SWITCHMAN_BENCH_ROUNDS")]
    rounds: Option<usize>,

    /// Rounds after which every proxy is started anew; 0 for never. 0, or 3 for consistency.
    #[arg(long, env = "SWITCHMAN_BENCH_FRESH_EVERY")]
    fresh_every: Option<usize>,

    /// Length of one measured window, in seconds.
    #[arg(long, env = "SWITCHMAN_BENCH_SECONDS", default_value_t = 2.0)]
    seconds: f64,

    /// Length of the warm-up before each window, in seconds.
    #[arg(long, env = "SWITCHMAN_BENCH_WARM_UP", default_value_t = 0.4)]
    warm_up: f64,

    /// Clients that are busy at once.
    #[arg(long, env = "SWITCHMAN_BENCH_CLIENTS", default_value_t = 50)]
    pub(crate) clients: usize,

    /// Commands in one batch of a client. 1, 16 and 100, or 16 for consistency.
    #[arg(long, env = "SWITCHMAN_BENCH_PIPELINES", value_delimiter = ',')]
    pipelines: Vec<usize>,

    /// Idle clients for the measurement of memory; 0 leaves it out, and consistency has none.
    #[arg(long, env = "SWITCHMAN_BENCH_IDLE_CLIENTS", default_value_t = 1_800)]
    idle_clients: usize,

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
        let is_of_subject = match self.subject {
            Subject::Proxies => target != Target::SwitchmanOwnWrites,
            Subject::Consistency => target.tells_consistencies_apart(),
        };
        is_of_subject && (self.only.is_empty() || self.only.contains(&target))
    }

    /// Times that every target is driven.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(match self.subject {
            Subject::Proxies => 5,
            Subject::Consistency => 15,
        })
    }

    /// Whether proxies are started anew before this round.
    pub(crate) fn begins_afresh(&self, round: usize) -> bool {
        let every = self.fresh_every.unwrap_or(match self.subject {
            Subject::Proxies => 0,
            Subject::Consistency => 3,
        });
        round > 0 && round.checked_rem(every) == Some(0)
    }

    /// Commands in one batch of a client.
    pub(crate) fn pipelines(&self) -> Vec<usize> {
        match self.subject {
            _ if !self.pipelines.is_empty() => self.pipelines.clone(),
            Subject::Proxies => vec![1, 16, 100],
            Subject::Consistency => vec![16],
        }
    }

    /// Clients whose memory is measured.
    pub(crate) fn idle_clients(&self) -> usize {
        match self.subject {
            Subject::Proxies => self.idle_clients,
            Subject::Consistency => 0,
        }
    }

    /// Replicas beside the master.
    pub(crate) fn replicas(&self) -> usize {
        match self.subject {
            Subject::Proxies => 1,
            Subject::Consistency => 2,
        }
    }

    /// What clients send.
    pub(crate) fn mix(&self) -> Mix {
        match self.subject {
            Subject::Proxies => Mix {
                keys: 1_000,
                cycle: 11,
            },
            // With few keys all of them would be unsettled all the time, and read at the master.
            Subject::Consistency => Mix {
                keys: 100_000,
                cycle: 20,
            },
        }
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
