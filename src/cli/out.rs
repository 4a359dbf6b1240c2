//! Floor 7. The one writer for what people read on a terminal.

use std::fmt::Display;
use std::io::{self, Write};

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Out {
    /// What was asked for.
    Stdout,
    /// What went wrong.
    Stderr,
}

impl Out {
    /// Writes `text` and a newline.
    ///
    /// A reader that has gone away (`switchman status | head -1`) is no error of ours.
    pub fn line(self, text: impl Display) {
        let _ = match self {
            Self::Stdout => writeln!(io::stdout().lock(), "{text}"),
            Self::Stderr => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}
