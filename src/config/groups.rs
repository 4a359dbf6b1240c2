//! Floor 6. Layers → settings of the groups, and what must not be the same in two of them.

use std::sync::Arc;
use std::time::Duration;

use crate::config::check::{Findings, Lookup, Noted, Surroundings};
use crate::config::keys::{self, Key, Scope};
use crate::config::layers::{Layers, Listener, Section};
use crate::config::listeners::{Taken, listeners};
use crate::config::secrets::{secret, warn_of_public};
use crate::config::{Discovery, GroupSettings, Problem, Replicas, Source, values};
use crate::net::ListenAddr;
use crate::types::{Credentials, MasterName, NodeAddr};

/// Bounds of the time for which a switch waits for replies of the old master.
const DRAIN_RANGE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(60));

/// Bounds of the time between two questions about how far a node is. Generations, of which each
/// question begins one, last for more than a year at the least.
const SETTLE_RANGE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(10));

/// Settings of every group, at least one; those with a problem are errors.
pub(super) fn groups(
    layers: &Layers,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
    admin: Option<&ListenAddr>,
) -> Vec<Result<GroupSettings, Noted>> {
    let sections = layers.file.as_ref().map_or(&[][..], |file| &file.groups);
    let mut taken = Taken::by_admin(admin);
    if let [] | [_] = sections {
        let section = sections.first();
        return vec![group(layers, section, surroundings, findings, &mut taken)];
    }
    refuse_for_several(layers, sections.len(), findings);
    let mut own = Layers {
        file: layers.file.clone(),
        ..Layers::default()
    };
    if let Some(file) = &mut own.file {
        file.listeners = Vec::new();
    }
    sections
        .iter()
        .map(|section| group(&own, Some(section), surroundings, findings, &mut taken))
        .collect()
}

/// Which of a group's two logins.
struct Login {
    username: &'static Key,
    password: &'static Key,
    password_file: &'static Key,
}

const NODE_LOGIN: Login = Login {
    username: &keys::USERNAME,
    password: &keys::PASSWORD,
    password_file: &keys::PASSWORD_FILE,
};

const SENTINEL_LOGIN: Login = Login {
    username: &keys::SENTINEL_USERNAME,
    password: &keys::SENTINEL_PASSWORD,
    password_file: &keys::SENTINEL_PASSWORD_FILE,
};

/// A flag, a variable or a listener at the top of the file cannot say which of several groups it
/// means.
fn refuse_for_several(layers: &Layers, count: usize, findings: &mut Findings) {
    for (path, given) in layers.flags.iter().chain(layers.env.iter()) {
        if keys::find(path).is_some_and(|key| key.scope == Scope::Group) {
            let problem = format!(
                "the file has {count} groups, and this cannot say which one it means; \
                 write {path} in a [[group]]"
            );
            let source = given.source.clone();
            findings.problems.push(Problem {
                source,
                key: path.to_owned(),
                problem,
            });
        }
    }
    let listeners = layers.file.iter().flat_map(|file| &file.listeners);
    findings.problems.extend(listeners.map(|listener| Problem {
        source: listener.source.clone(),
        key: "listener".to_owned(),
        problem: format!(
            "the file has {count} groups, and this cannot say which one it means; \
             write [[group.listener]] behind its [[group]]"
        ),
    }));
}

fn group(
    layers: &Layers,
    section: Option<&Section>,
    surroundings: &Surroundings<'_>,
    findings: &mut Findings,
    taken: &mut Taken,
) -> Result<GroupSettings, Noted> {
    let file = layers.file.as_ref();
    let place = match (section, file) {
        (Some(section), Some(file)) => Source::File {
            path: Arc::clone(&file.path),
            line: section.line,
        },
        _ => Source::Default,
    };
    let layered = [&layers.flags, &layers.env].into_iter();
    let layered = layered
        .chain(section.map(|section| &section.layer))
        .chain(file.map(|file| &file.top));
    let mut lookup = Lookup {
        layers: layered.collect(),
        group: None,
        place,
        findings,
    };
    lookup.group = lookup
        .given(&keys::MASTER_NAME)
        .and_then(|name| Some(name.items.first()?.text.clone()));
    let master_name = lookup.one(&keys::MASTER_NAME, values::master_name);
    let master_name = master_name.map(|name| MasterName::new(&name));
    taken.name(&mut lookup, master_name.as_ref().ok());
    let consistency = lookup.one(&keys::CONSISTENCY, values::consistency);
    let tables = section.map_or(&[][..], |section| &section.listeners);
    let tables: Vec<&Listener> = tables
        .iter()
        .chain(file.iter().flat_map(|file| &file.listeners))
        .collect();
    let listen = listeners(&mut lookup, &tables, consistency, taken);

    let credentials = credentials(&mut lookup, &NODE_LOGIN, surroundings);
    let discovery = discovery(&mut lookup, surroundings);
    let hold = lookup.one(&keys::HOLD, values::hold);
    let strict_quorum = lookup.one(&keys::STRICT_QUORUM, values::strict_quorum);
    let drain = values::duration(DRAIN_RANGE.0, DRAIN_RANGE.1);
    let drain_timeout = lookup.one(&keys::DRAIN_TIMEOUT, drain);
    let scripts = lookup.one(&keys::SCRIPTS, values::scripts);
    let settle = values::duration(SETTLE_RANGE.0, SETTLE_RANGE.1);
    let settle_interval = lookup.one(&keys::SETTLE_INTERVAL, settle);
    let no_replica = lookup.one(&keys::NO_REPLICA, values::no_replica);
    let replicas = replicas(&mut lookup);
    let hedge_reads = lookup.one(&keys::HEDGE_READS, values::switch);
    let secrets = [&keys::PASSWORD, &keys::SENTINEL_PASSWORD];
    warn_of_public(layers, &mut lookup, &secrets);
    Ok(GroupSettings {
        master_name: master_name?,
        listen: listen?,
        discovery: discovery?,
        credentials: credentials?,
        hold: hold?,
        strict_quorum: strict_quorum?,
        drain_timeout: drain_timeout?,
        consistency: consistency?,
        scripts: scripts?,
        settle_interval: settle_interval?,
        no_replica: no_replica?,
        hedge_reads: hedge_reads?,
        replicas: replicas?,
    })
}

/// Which replica reads for whom.
fn replicas(lookup: &mut Lookup<'_>) -> Result<Replicas, Noted> {
    let fallback_limit = lookup.one(&keys::REPLICA_FALLBACK_LIMIT, values::fallback_limit);
    let spread = lookup.one(&keys::SPREAD, values::spread);
    let choice = lookup.one(&keys::REPLICA_CHOICE, values::replica_choice);
    let weights = lookup.list(&keys::REPLICA_WEIGHTS, values::weight);
    let zone = lookup.maybe(&keys::ZONE, values::word);
    let node_zones = lookup.list(&keys::NODE_ZONES, values::zone);
    let max_lag = lookup.one(&keys::MAX_REPLICA_LAG, values::max_lag);
    let max_lag_time = lookup.one(&keys::MAX_REPLICA_LAG_TIME, values::max_lag_time);
    let named = |of: Vec<NodeAddr>| first_twice(&of).map(|it| format!("{it} is given twice"));
    let addrs = weights.iter().flatten().map(|(addr, _)| addr.clone());
    if let Some(twice) = named(addrs.collect()) {
        lookup.wrong(&keys::REPLICA_WEIGHTS, twice);
    }
    let addrs = node_zones.iter().flatten().map(|(addr, _)| addr.clone());
    if let Some(twice) = named(addrs.collect()) {
        lookup.wrong(&keys::NODE_ZONES, twice);
    }
    Ok(Replicas {
        fallback_limit: fallback_limit?,
        spread: spread?,
        choice: choice?,
        weights: weights?,
        zone: zone?,
        node_zones: node_zones?,
        max_lag: max_lag?,
        max_lag_time: max_lag_time?,
    })
}

fn discovery(lookup: &mut Lookup<'_>, surroundings: &Surroundings<'_>) -> Result<Discovery, Noted> {
    let sentinels = lookup.list(&keys::SENTINELS, values::sentinel);
    let credentials = credentials(lookup, &SENTINEL_LOGIN, surroundings);
    let master = lookup.maybe(&keys::MASTER, values::parsed::<NodeAddr>);
    let replicas = lookup.list(&keys::REPLICAS, values::parsed::<NodeAddr>);
    for (key, addrs) in [(&keys::SENTINELS, &sentinels), (&keys::REPLICAS, &replicas)] {
        if let Some(twice) = addrs.iter().find_map(|addrs| first_twice(addrs)) {
            lookup.wrong(key, format!("{twice} is given twice"));
        }
    }
    let (sentinels, credentials) = (sentinels?, credentials?);
    let (master, replicas) = (master?, replicas?);
    match (master, sentinels.is_empty()) {
        (None, false) if replicas.is_empty() => Ok(Discovery::Sentinels {
            addrs: sentinels,
            credentials,
        }),
        (None, false) => {
            let needs =
                "Sentinels know the replicas; leave this out, or give master, not sentinels";
            lookup.wrong(&keys::REPLICAS, needs.to_owned());
            Err(Noted)
        }
        (None, true) => {
            let problem = "there is neither a Sentinel nor a fixed master; \
                           give --sentinel HOST:PORT, SWITCHMAN_SENTINELS, \
                           or sentinels or master in the file";
            let key = lookup
                .group
                .clone()
                .map_or_else(String::new, |name| format!("group {name:?}"));
            let problem = Problem {
                source: lookup.place.clone(),
                key,
                problem: problem.to_owned(),
            };
            lookup.findings.problems.push(problem);
            Err(Noted)
        }
        (Some(_), false) => {
            let both = "sentinels are given too; a group has either these or a fixed master";
            lookup.wrong(&keys::MASTER, both.to_owned());
            Err(Noted)
        }
        (Some(master), true) => {
            if credentials.is_some() {
                let unused = "this has no effect: the master is fixed and no Sentinel is asked";
                lookup.warn(&keys::SENTINEL_PASSWORD, unused.to_owned());
            }
            Ok(Discovery::Static { master, replicas })
        }
    }
}

/// A login, if there is one.
fn credentials(
    lookup: &mut Lookup<'_>,
    login: &Login,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Credentials>, Noted> {
    let username = lookup.maybe(login.username, values::word);
    let password = secret(lookup, (login.password, login.password_file), surroundings);
    let (username, password) = (username?, password?);
    match password {
        Some(password) => {
            let username = username.map(Arc::from);
            Ok(Some(Credentials { username, password }))
        }
        None if username.is_some() => {
            let (one, other) = (login.password.path, login.password_file.path);
            lookup.wrong(
                login.username,
                format!("a user needs a password; give {one} or {other}"),
            );
            Err(Noted)
        }
        None => Ok(None),
    }
}

fn first_twice(addrs: &[NodeAddr]) -> Option<&NodeAddr> {
    addrs
        .iter()
        .enumerate()
        .find_map(|(at, addr)| addrs[..at].contains(addr).then_some(addr))
}
