//! Floor 1. Which requests hold up their connection, how long, and whether they may be repeated.
//! Must not know clocks or connections.

use std::time::Duration;

use crate::command::Spec;
use crate::command::options::StreamOptions;
use crate::resp::{Request, is_word};

/// What is known about a request that waits at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocking {
    /// When it may be issued again.
    pub repeat: Repeat,
    /// Where it says how long to wait; `None` if that is not known (a module's command).
    pub timeout: Option<Timeout>,
}

/// When a request that waits may be issued again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// At any time: it takes nothing away and names the positions that it reads from (`XREAD` whose
    /// IDs are neither `$` nor `+`).
    Always,
    /// Once the server has said that nothing came of it.
    IfUndone,
    /// Never: what it waits for begins at the moment of its arrival (`XREAD` with `$`), or how long
    /// it waits is not known.
    Never,
}

/// Where a request says how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// Position among the words of the request, the name being word 0.
    pub word: usize,
    /// What the number there counts.
    pub unit: Unit,
}

/// What the number in a timeout counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds; a decimal fraction is allowed since Redis 6.0.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
}

impl Unit {
    /// The time that `word` stands for; zero is "without end".
    ///
    /// `None` if a server would refuse it: no number, negative, or too large.
    pub fn read(self, word: &[u8]) -> Option<Duration> {
        let text = std::str::from_utf8(word).ok()?;
        match self {
            Self::Seconds => Duration::try_from_secs_f64(text.parse().ok()?).ok(),
            Self::Milliseconds => text.parse().ok().map(Duration::from_millis),
        }
    }

    /// How to write the timeout `rest`, at least two milliseconds in seconds, and one else, because
    /// zero would be "without end".
    pub fn write(self, rest: Duration) -> String {
        let rest = rest.max(self.least());
        match self {
            Self::Seconds => format!("{}.{:03}", rest.as_secs(), rest.subsec_millis()),
            Self::Milliseconds => rest.as_millis().to_string(),
        }
    }

    /// The shortest time that every server reads as one. Redis 6.2 (timeout.c,
    /// `getTimeoutFromObjectOrReply`) makes no millisecond of 0.001 seconds, which is without end.
    const fn least(self) -> Duration {
        match self {
            Self::Seconds => Duration::from_millis(2),
            Self::Milliseconds => Duration::from_millis(1),
        }
    }
}

/// How `request` waits, whose command has the row `spec`; for requests of class `Leased(Blocking)`
/// and `Leased(Wait)`.
pub fn blocking(spec: &Spec, request: &Request<'_>) -> Blocking {
    let seconds = |word| {
        Some(Timeout {
            word,
            unit: Unit::Seconds,
        })
    };
    let milliseconds = |word| {
        Some(Timeout {
            word,
            unit: Unit::Milliseconds,
        })
    };
    let timeout = match spec.name.as_ref() {
        "blpop" | "brpop" | "bzpopmin" | "bzpopmax" => seconds(request.argc().saturating_sub(1)),
        "blmove" | "blmovem" => seconds(5),
        "brpoplpush" => seconds(3),
        "blmpop" | "bzmpop" => seconds(1),
        "wait" => milliseconds(2),
        "waitaof" => milliseconds(3),
        "xread" | "xreadgroup" => StreamOptions::of(request.args())
            .block
            .and_then(milliseconds),
        _ => None,
    };
    let repeat = match spec.name.as_ref() {
        "xread" if names_positions(request) => Repeat::Always,
        "xread" => Repeat::Never,
        _ if timeout.is_none() => Repeat::Never,
        _ => Repeat::IfUndone,
    };
    Blocking { repeat, timeout }
}

/// Whether all IDs of an `XREAD` are positions in the stream, not "what is the last one now".
fn names_positions(request: &Request<'_>) -> bool {
    let Some(first) = StreamOptions::of(request.args()).keys else {
        return false;
    };
    let keys = request.argc().saturating_sub(first) / 2;
    keys > 0
        && request
            .args()
            .skip(first + keys)
            .all(|id| !is_word(id, b"$") && !is_word(id, b"+"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Table;
    use crate::command::tests::encoded;

    fn of(text: &str) -> Blocking {
        let raw = encoded(text);
        let table = Table::builtin();
        let spec = table.get(text.split(' ').next().unwrap()).unwrap();
        blocking(spec, &Request::from_raw(&raw).unwrap())
    }

    #[test]
    fn timeouts_are_found_where_the_command_has_them() {
        let check = |text: &str, word: usize, unit: Unit| {
            assert_eq!(of(text).timeout, Some(Timeout { word, unit }), "{text}");
        };
        check("BLPOP a b 5", 3, Unit::Seconds);
        check("BRPOP a 5", 2, Unit::Seconds);
        check("BZPOPMIN a 5", 2, Unit::Seconds);
        check("BZPOPMAX a 5", 2, Unit::Seconds);
        check("BLMOVE a b LEFT RIGHT 5", 5, Unit::Seconds);
        check("BLMOVEM a b LEFT RIGHT 5 COUNT 2 OBO", 5, Unit::Seconds);
        check("BRPOPLPUSH a b 5", 3, Unit::Seconds);
        check("BLMPOP 5 1 a LEFT", 1, Unit::Seconds);
        check("BZMPOP 5 1 a MIN", 1, Unit::Seconds);
        check("WAIT 1 5", 2, Unit::Milliseconds);
        check("WAITAOF 1 1 5", 3, Unit::Milliseconds);
        check("XREAD COUNT 1 BLOCK 5 STREAMS a 0", 4, Unit::Milliseconds);
        check(
            "XREADGROUP GROUP g c BLOCK 5 STREAMS a >",
            5,
            Unit::Milliseconds,
        );
        assert_eq!(of("GET a").timeout, None);
        assert_eq!(of("XREAD STREAMS a 0").timeout, None);
    }

    #[test]
    fn only_reads_of_named_positions_may_be_issued_again_at_any_time() {
        let check = |text: &str, want: Repeat| assert_eq!(of(text).repeat, want, "{text}");
        check("XREAD BLOCK 5 STREAMS a 0", Repeat::Always);
        check("XREAD BLOCK 5 STREAMS a b 0 7-1", Repeat::Always);
        check("XREAD BLOCK 5 STREAMS a $", Repeat::Never);
        check("XREAD BLOCK 5 STREAMS a b 0 $", Repeat::Never);
        check("XREAD BLOCK 5 STREAMS a +", Repeat::Never);
        check("XREAD BLOCK 5 STREAMS $ 0", Repeat::Always);
        check("XREAD BLOCK 5 STREAMS", Repeat::Never);
        let group = "XREADGROUP GROUP g c BLOCK 5 STREAMS a 0";
        for line in [group, "BLPOP a 5", "BLMOVE a b LEFT RIGHT 5", "WAIT 1 5"] {
            check(line, Repeat::IfUndone);
        }
        check("GET a", Repeat::Never);
    }

    #[test]
    fn timeouts_are_read_as_servers_read_them() {
        let check = |unit: Unit, text: &str, want: Option<u64>| {
            let want = want.map(Duration::from_millis);
            assert_eq!(unit.read(text.as_bytes()), want, "{text}");
        };
        check(Unit::Seconds, "0", Some(0));
        check(Unit::Seconds, "1.5", Some(1500));
        check(Unit::Seconds, "0.001", Some(1));
        check(Unit::Seconds, "-1", None);
        check(Unit::Seconds, "inf", None);
        check(Unit::Seconds, "nan", None);
        check(Unit::Seconds, "x", None);
        check(Unit::Milliseconds, "0", Some(0));
        check(Unit::Milliseconds, "1500", Some(1500));
        check(Unit::Milliseconds, "1.5", None);
        check(Unit::Milliseconds, "-1", None);
        check(Unit::Milliseconds, "", None);
    }

    #[test]
    fn what_is_left_of_a_timeout_never_means_without_end() {
        for unit in [Unit::Seconds, Unit::Milliseconds] {
            assert!(!unit.least().is_zero());
            for rest in [
                Duration::ZERO,
                Duration::from_nanos(1),
                Duration::from_millis(61_005),
            ] {
                let read = unit.read(unit.write(rest).as_bytes()).unwrap();
                assert_eq!(read, rest.max(unit.least()), "{unit:?}");
            }
        }
    }
}
