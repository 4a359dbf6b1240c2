//! Floor 6. How the story is told: one writer, relative times, colours where somebody can see them.
//! Knows nothing of what happens.

use std::fmt;
use std::io;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31;1";
const GREEN: &str = "32";

/// The account of a demonstration, written as it happens.
pub(super) struct Account<'a> {
    out: &'a mut dyn Write,
    colour: Colour,
    started: Instant,
}

/// Whether lines may hold escape sequences for a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colour {
    /// Plain text, for files and pipes.
    #[default]
    Never,
    /// ANSI colours, for a terminal.
    Always,
}

impl<'a> Account<'a> {
    /// An account whose time begins now.
    pub(super) fn new(out: &'a mut dyn Write, colour: Colour) -> Self {
        let started = Instant::now();
        Self {
            out,
            colour,
            started,
        }
    }

    /// Time since the beginning.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A headline.
    pub(super) fn scene(&mut self, title: &str) -> io::Result<()> {
        let title = self.paint(BOLD, title);
        writeln!(self.out, "\n{title}")?;
        self.out.flush()
    }

    /// Something that has just happened.
    pub(super) fn tell(&mut self, text: &str) -> io::Result<()> {
        let time = format!("{:>7.2} s", self.started.elapsed().as_secs_f64());
        let time = self.paint(DIM, &time);
        writeln!(self.out, "{time}  {text}")?;
        self.out.flush()
    }

    /// More about what was told last.
    pub(super) fn more(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:>9}  {text}", "")?;
        self.out.flush()
    }

    /// One line of the list of expectations.
    pub(super) fn expectation(&mut self, expectation: &Expectation) -> io::Result<()> {
        let verdict = if expectation.held {
            self.paint(GREEN, "     ok")
        } else {
            self.paint(RED, " FAILED")
        };
        writeln!(self.out, "{verdict}  {expectation}")?;
        self.out.flush()
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            Colour::Never => text.to_owned(),
            Colour::Always => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Something that the demonstration must show, and what it has shown.
#[derive(Clone, Debug)]
pub(super) struct Expectation {
    /// What was promised.
    pub(super) promise: &'static str,
    /// What was seen.
    pub(super) seen: String,
    /// Whether the promise was held.
    pub(super) held: bool,
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.promise, self.seen)
    }
}

/// A duration as people say it: `850 ms`, `1.42 s`.
pub(super) fn spoken(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    } else if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(colour: Colour) -> String {
        let mut out = Vec::new();
        let mut account = Account::new(&mut out, colour);
        account.scene("The master dies").unwrap();
        let expectation = Expectation {
            promise: "no reply is wrong",
            seen: "2 wrong".to_owned(),
            held: false,
        };
        account.expectation(&expectation).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_file_gets_no_escape_sequences() {
        let plain = "\nThe master dies\n FAILED  no reply is wrong (2 wrong)\n";
        assert_eq!(written(Colour::Never), plain);
        assert!(written(Colour::Always).contains("\x1b[31;1m FAILED\x1b[0m"));
    }

    #[test]
    fn durations_are_spoken_in_the_unit_that_suits() {
        let check = |micros, text| assert_eq!(spoken(Duration::from_micros(micros)), text);
        check(420, "0.4 ms");
        check(85_000, "85 ms");
        check(1_416_000, "1.42 s");
    }
}
