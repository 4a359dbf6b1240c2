//! Floor 6. One text → one value; where it is none, what is wrong and what to write instead.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::config::{Consistency, Hold, NoReplica, ReplicaChoice, ScriptKeys, Spread};
use crate::exchange::WEIGHT_MAX;
use crate::types::{ListenerRole, NodeAddr};

/// Sentinel's port where none is written.
const SENTINEL_PORT: u16 = 26379;
/// Bounds of a fixed hold time: below, no failover is ever covered; above, every client gave up.
const HOLD_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// Bounds of the time without a majority of the Sentinels: below, one slow answer would hold
/// writes; above, everything has failed over twice.
const STRICT_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// Bounds of the bytes that a replica may be behind: what is below is on its way at any time.
const LAG_RANGE: (ByteSize, ByteSize) = (ByteSize::kib(1), ByteSize::tib(1));

/// Bounds of the time that a replica may be behind: below, the master is not asked often enough to
/// tell; above, its answers are forgotten.
const LAG_TIME_RANGE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// More reads per second than a master can serve.
const FALLBACK_MAX: usize = 100_000_000;

/// A value that its own type knows how to read.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A whole number within bounds, both included.
pub(super) fn number(least: usize, most: usize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| match text.parse() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        Ok(_) => Err(format!("{text} is out of bounds; give {least} to {most}")),
        Err(_) => Err(format!(
            "{text:?} is no whole number; give {least} to {most}"
        )),
    }
}

/// A whole number of at least 1 and at most `most`.
pub(super) fn positive(most: usize) -> impl Fn(&str) -> Result<NonZeroUsize, String> {
    move |text| {
        let number = number(1, most)(text)?;
        Ok(NonZeroUsize::new(number).expect("the bounds exclude 0"))
    }
}

/// A whole number of at least 1 and at most `most`, or `auto` for none.
pub(super) fn positive_or_auto(
    most: usize,
) -> impl Fn(&str) -> Result<Option<NonZeroUsize>, String> {
    move |text| {
        if text == "auto" {
            return Ok(None);
        }
        positive(most)(text)
            .map(Some)
            .map_err(|problem| format!("{problem}, or auto"))
    }
}

/// A time within bounds, both included.
pub(super) fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> {
    let bounds = format!(
        "give {} to {}",
        humantime::format_duration(least),
        humantime::format_duration(most)
    );
    move |text| match humantime::parse_duration(text) {
        Ok(time) if (least..=most).contains(&time) => Ok(time),
        Ok(_) => Err(format!("{text} is out of bounds; {bounds}")),
        Err(_) if text.parse::<f64>().is_ok() => {
            Err(format!("{text} has no unit; write {text}ms or {text}s"))
        }
        Err(_) => Err(format!(
            "{text:?} is no time; write one like 500ms, 2s or 1m"
        )),
    }
}

/// A number of bytes within bounds, both included.
pub(super) fn size(least: ByteSize, most: ByteSize) -> impl Fn(&str) -> Result<usize, String> {
    move |text| {
        let size: ByteSize = text
            .parse()
            .map_err(|_| format!("{text:?} is no size; write one like 32MiB"))?;
        if !(least..=most).contains(&size) {
            return Err(format!("{text} is out of bounds; give {least} to {most}"));
        }
        usize::try_from(size.as_u64()).map_err(|_| format!("{text} is more than can be addressed"))
    }
}

/// A Sentinel's address.
pub(super) fn sentinel(text: &str) -> Result<NodeAddr, String> {
    NodeAddr::parse(text, Some(SENTINEL_PORT)).map_err(|error| error.to_string())
}

/// A text that is not empty.
pub(super) fn word(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("this must not be empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// A master's name. Sentinel's events separate words by blanks, so that no name has one.
pub(super) fn master_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|letter: char| letter.is_whitespace()) {
        return Err(format!(
            "{text:?} is no master name; write the one in sentinel.conf"
        ));
    }
    Ok(text.to_owned())
}

/// The hold time.
pub(super) fn hold(text: &str) -> Result<Hold, String> {
    if text == "auto" {
        return Ok(Hold::Auto);
    }
    let fixed = duration(HOLD_RANGE.0, HOLD_RANGE.1)(text);
    fixed
        .map(Hold::Fixed)
        .map_err(|problem| format!("{problem}, or auto"))
}

/// What `read` reads, or `off` for none.
pub(super) fn or_off<T>(
    read: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| {
        if text == "off" {
            return Ok(None);
        }
        let value = read(text).map(Some);
        value.map_err(|problem| format!("{problem}, or off"))
    }
}

/// On or off.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{text:?} is not known; write on or off")),
    }
}

/// What a listener is to its clients.
pub(super) fn listener_role(text: &str) -> Result<ListenerRole, String> {
    let known = ListenerRole::ALL
        .into_iter()
        .find(|role| role.word() == text);
    known.ok_or_else(|| format!("{text:?} is not known; write split, master or replica"))
}

/// The time without a majority of the Sentinels, or `off` for none.
pub(super) fn strict_quorum(text: &str) -> Result<Option<Duration>, String> {
    or_off(duration(STRICT_RANGE.0, STRICT_RANGE.1))(text)
}

/// By how much a replica may be behind, or `off` for any.
pub(super) fn max_lag(text: &str) -> Result<Option<u64>, String> {
    let size = or_off(size(LAG_RANGE.0, LAG_RANGE.1))(text)?;
    Ok(size.and_then(|size| u64::try_from(size).ok()))
}

/// The same in time.
pub(super) fn max_lag_time(text: &str) -> Result<Option<Duration>, String> {
    or_off(duration(LAG_TIME_RANGE.0, LAG_TIME_RANGE.1))(text)
}

/// Reads per second, or `off` for any number.
pub(super) fn fallback_limit(text: &str) -> Result<Option<u32>, String> {
    let limit = or_off(number(1, FALLBACK_MAX))(text)?;
    Ok(limit.and_then(|limit| u32::try_from(limit).ok()))
}

/// A node with its weight.
pub(super) fn weight(text: &str) -> Result<(NodeAddr, u8), String> {
    let (node, weight) = of_node(text)?;
    let weight = number(0, usize::from(WEIGHT_MAX))(weight)?;
    Ok((node, u8::try_from(weight).unwrap_or(WEIGHT_MAX)))
}

/// A node with its zone.
pub(super) fn zone(text: &str) -> Result<(NodeAddr, String), String> {
    let (node, zone) = of_node(text)?;
    Ok((node, word(zone)?))
}

fn of_node(text: &str) -> Result<(NodeAddr, &str), String> {
    let (node, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} names no value; write host:port=value"))?;
    Ok((parsed(node)?, value))
}

/// Whether clients keep their replica.
pub(super) fn spread(text: &str) -> Result<Spread, String> {
    match text {
        "client" => Ok(Spread::Client),
        "request" => Ok(Spread::Request),
        _ => Err(format!("{text:?} is not known; write client or request")),
    }
}

/// Which of the healthy replicas read.
pub(super) fn replica_choice(text: &str) -> Result<ReplicaChoice, String> {
    match text {
        "load" => Ok(ReplicaChoice::Load),
        "nearest" => Ok(ReplicaChoice::Nearest),
        _ => Err(format!("{text:?} is not known; write load or nearest")),
    }
}

/// Which reads go to replicas.
pub(super) fn consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "own-writes" => Ok(Consistency::OwnWrites),
        "eventual" => Ok(Consistency::Eventual),
        "master" => Ok(Consistency::Master),
        _ => Err(format!(
            "{text:?} is no consistency; write own-writes, eventual or master"
        )),
    }
}

/// Which keys a script may read and change.
pub(super) fn scripts(text: &str) -> Result<ScriptKeys, String> {
    match text {
        "any" => Ok(ScriptKeys::Any),
        "declared" => Ok(ScriptKeys::Declared),
        _ => Err(format!("{text:?} is not known; write any or declared")),
    }
}

/// What happens to reads without a replica.
pub(super) fn no_replica(text: &str) -> Result<NoReplica, String> {
    match text {
        "master" => Ok(NoReplica::Master),
        "error" => Ok(NoReplica::Error),
        _ => Err(format!("{text:?} is not known; write master or error")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit_and_stay_within_bounds() {
        let time = duration(Duration::from_millis(10), Duration::from_secs(60));
        assert_eq!(time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(time("1m"), Ok(Duration::from_secs(60)));
        assert_eq!(
            time("500").unwrap_err(),
            "500 has no unit; write 500ms or 500s"
        );
        assert_eq!(
            time("2m").unwrap_err(),
            "2m is out of bounds; give 10ms to 1m"
        );
        assert_eq!(
            time("soon").unwrap_err(),
            "\"soon\" is no time; write one like 500ms, 2s or 1m"
        );
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        let size = size(ByteSize::kib(1), ByteSize::gib(1));
        assert_eq!(size("32MiB"), Ok(32 << 20));
        assert_eq!(size("32mb"), Ok(32_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("big").unwrap_err().contains("32MiB"));
        assert_eq!(
            size("1").unwrap_err(),
            "1 is out of bounds; give 1.0 KiB to 1.0 GiB"
        );
    }

    #[test]
    fn a_hold_time_is_bounded_or_automatic() {
        assert_eq!(hold("auto"), Ok(Hold::Auto));
        assert_eq!(hold("12s"), Ok(Hold::Fixed(Duration::from_secs(12))));
        assert_eq!(
            hold("1ms").unwrap_err(),
            "1ms is out of bounds; give 100ms to 10m, or auto"
        );
    }

    #[test]
    fn a_quorum_is_strict_after_a_time_or_never() {
        assert_eq!(strict_quorum("off"), Ok(None));
        assert_eq!(strict_quorum("5s"), Ok(Some(Duration::from_secs(5))));
        assert_eq!(
            strict_quorum("500ms").unwrap_err(),
            "500ms is out of bounds; give 1s to 10m, or off"
        );
    }

    #[test]
    fn words_that_are_not_known_are_answered_with_those_that_are() {
        let known = "own-writes, eventual or master";
        assert!(consistency("strong").unwrap_err().contains(known));
        assert!(scripts("none").unwrap_err().contains("any or declared"));
    }

    #[test]
    fn what_is_said_of_a_node_stands_behind_its_address() {
        let node = |text: &str| text.parse::<NodeAddr>().unwrap();
        assert_eq!(weight("r:6379=0"), Ok((node("r:6379"), 0)));
        assert_eq!(
            zone("[::1]:1=eu=a"),
            Ok((node("[::1]:1"), "eu=a".to_owned()))
        );
        for (text, want) in [
            ("r:6379", "host:port=value"),
            ("r:6379=101", "give 0 to 100"),
            ("r=1", "port"),
        ] {
            let problem = weight(text).unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
        assert!(zone("r:1=").is_err());
    }

    #[test]
    fn limits_may_be_off() {
        assert_eq!(max_lag("off"), Ok(None));
        assert_eq!(max_lag("1MiB"), Ok(Some(1 << 20)));
        assert_eq!(fallback_limit("500"), Ok(Some(500)));
        assert_eq!(
            fallback_limit("0").unwrap_err(),
            "0 is out of bounds; give 1 to 100000000, or off"
        );
        assert_eq!(
            max_lag_time("1s").unwrap_err(),
            "1s is out of bounds; give 2s to 1m, or off"
        );
    }
}
