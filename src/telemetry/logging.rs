//! Floor 0. How log lines look, which are written, and where: to standard error.
//! The subscriber is the one thing in the process that is global, by the nature of `tracing`.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

/// How to log.
#[derive(Clone, Debug, Default)]
pub struct LogSettings {
    /// For people or for machines.
    pub format: LogFormat,
    /// Which lines are written.
    pub level: LogLevel,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines are written: a level, or a list of `module=level` with or without one for the rest.
#[derive(Clone, PartialEq)]
pub struct LogLevel {
    text: String,
    targets: Targets,
}

/// A text that is no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no level; write error, warn, info, debug, trace or off, \
     or a list like info,switchman::sentinel=debug"
)]
pub struct LogLevelError(String);

/// A text that is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log format; write text or json")]
pub struct LogFormatError(String);

/// Starts logging for the whole process; once.
pub fn init(settings: &LogSettings) -> Result<(), TryInitError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Registry::default()
        .with(layer.with_filter(settings.level.targets.clone()))
        .try_init()
}

impl FromStr for LogLevel {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        let wrong = || LogLevelError(text.to_owned());
        let targets: Targets = text.parse().map_err(|_| wrong())?;
        // A bare word that is no level would pass for the name of a module.
        let mut words = text.split(',').filter(|word| !word.contains('='));
        if words.any(|word| word.parse::<LevelFilter>().is_err()) {
            return Err(wrong());
        }
        Ok(Self {
            text: text.to_owned(),
            targets,
        })
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        "info".parse().expect("info is a level")
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LogFormat {
    type Err = LogFormatError;

    fn from_str(text: &str) -> Result<Self, LogFormatError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogFormatError(text.to_owned())),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_lists() {
        for text in [
            "info",
            "off",
            "warn,switchman::sentinel=debug",
            "switchman=trace",
        ] {
            assert_eq!(text.parse::<LogLevel>().unwrap().to_string(), text);
        }
        for text in ["loud", "info,loud", "switchman=loud"] {
            assert!(text.parse::<LogLevel>().is_err(), "{text}");
        }
    }
}
