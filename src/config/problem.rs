//! Floor 6. What is wrong with a configuration, and where: for people, with the remedy.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A flag of the command line, such as `--listen`.
    Flag(&'static str),
    /// An environment variable.
    Env(String),
    /// A line of the file, counted from 1; 0 is the file as a whole.
    File {
        /// The file.
        path: Arc<Path>,
        /// The line.
        line: usize,
    },
    /// Nobody said anything.
    Default,
}

/// One mistake, or one thing that looks like a mistake.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it is.
    pub source: Source,
    /// Path of the key, or empty where no key is concerned.
    pub key: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// Every mistake of a configuration, in the order of flags, environment and lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// At least one.
    pub problems: Vec<Problem>,
    /// What only looks like a mistake, yet may be why something else is one.
    pub warnings: Vec<Problem>,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Env(name) => f.write_str(name),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = !self.key.is_empty();
        match &self.source {
            // A flag's or a variable's name says which key it is.
            Source::File { .. } if named => write!(f, "{}: {}: ", self.source, self.key)?,
            Source::Flag(_) | Source::Env(_) | Source::File { .. } => {
                write!(f, "{}: ", self.source)?;
            }
            Source::Default if named => write!(f, "{}: ", self.key)?,
            Source::Default => {}
        }
        f.write_str(&self.problem)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}
