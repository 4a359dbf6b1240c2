//! Floor 4. The views as JSON. Scripts rely on the names: fields are added, never renamed.
//!
//! `/api/v1/status`: `version`, `ready` (as `/readyz`), `uptime_seconds`, `draining`, `workers`,
//! `clients`, `max_clients`,
//! `groups[]` with `master_name`, `listen[]`, `listeners[]` (`addr`, `role`, `consistency`),
//! `phase` (`unknown`, `stable`, `switching`),
//! `phase_seconds` (how long it has been switching, else null), `waiting` (for what, or empty),
//! `generation`, `config_epoch`,
//! `hold_seconds`, `master` (address or null), `nodes[]` (`addr`, `role`, `in_use`, `reads`
//! (answered since the start), `reads_percent` (of all reads of the group), `lag_bytes` and
//! `lag_seconds` (of a replica, or null), `zone` (or null), `ejections` (by reason, of a replica,
//! or null), `detail`), `master_reads` (by reason: reads that a replica might have served),
//! `sentinels[]` (`addr`, `up`, `detail`), `clients`, `held_clients`,
//! `fences` (`pending`, `forbidden`: in whose words, or empty), `last_failover` (or null).
//!
//! `/api/v1/failovers`: `failovers[]`, the newest first, with `master_name`, `started_at`
//! (RFC 3339), `outcome` (`running`, `completed`, `abandoned`), `cause`, `old_master`,
//! `new_master`, `took_seconds`, `held_requests`, `held_bytes`, `longest_hold_seconds`,
//! `expired_requests`, `resent_requests`, `uncertain_requests`, `first_released_seconds`,
//! `released_replies` and `doubted_replies` (to writes, kept back until the new master was known to
//! have them, or not), `forked_bytes` (of replication, acknowledged before, that it lacks; or
//! null), `events[]` (`at_ms`, negative before the first sign, and `what`).

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin::health::Readiness;
use crate::admin::{
    GroupView, Incident, ListenerView, MajorityView, NodeRole, NodeView, PhaseView, SentinelView,
    View,
};

/// The body of `/api/v1/status`.
pub(super) fn status(view: &View) -> Value {
    json!({
        "version": view.version,
        "ready": Readiness::of(view).is_ready(),
        "uptime_seconds": seconds(view.uptime),
        "draining": view.draining,
        "workers": view.workers,
        "clients": view.clients,
        "max_clients": view.max_clients,
        "groups": view.groups.iter().map(group).collect::<Vec<_>>(),
    })
}

/// The body of `/api/v1/failovers`.
pub(super) fn failovers(view: &View) -> Value {
    let incidents = view.incidents();
    let all: Vec<Value> = incidents
        .iter()
        .map(|(name, one)| incident(name, one))
        .collect();
    json!({ "failovers": all })
}

fn listener(listener: &ListenerView) -> Value {
    json!({
        "addr": listener.addr,
        "role": listener.role,
        "consistency": listener.consistency,
    })
}

fn group(group: &GroupView) -> Value {
    let switching = match group.phase {
        PhaseView::Switching { elapsed } => Some(seconds(elapsed)),
        PhaseView::Unknown | PhaseView::Stable => None,
    };
    let master = group
        .nodes
        .iter()
        .find(|node| node.role == NodeRole::Master);
    json!({
        "master_name": group.master_name,
        "listen": group.listeners.iter().map(|it| &it.addr).collect::<Vec<_>>(),
        "listeners": group.listeners.iter().map(listener).collect::<Vec<_>>(),
        "phase": group.phase.word(),
        "phase_seconds": switching,
        "waiting": group.waiting,
        "generation": group.generation,
        "config_epoch": group.config_epoch,
        "hold_seconds": seconds(group.hold),
        "master": master.map(|node| &node.addr),
        "nodes": group.nodes.iter().map(|one| node(group, one)).collect::<Vec<_>>(),
        "master_reads": counts(&group.master_reads),
        "sentinels": group.sentinels.iter().map(sentinel).collect::<Vec<_>>(),
        "majority": group.majority.as_ref().map(majority),
        "clients": group.clients,
        "held_clients": group.held_clients,
        "fences": { "pending": group.fences.pending, "forbidden": group.fences.forbidden },
        "last_failover": group.incidents.first().map(|one| incident(&group.master_name, one)),
    })
}

fn node(group: &GroupView, node: &NodeView) -> Value {
    let replica = node.replica.as_ref();
    json!({
        "addr": node.addr,
        "role": node.role.word(),
        "in_use": node.in_use,
        "reads": node.reads,
        "reads_percent": group.share_of_reads(node),
        "lag_bytes": replica.and_then(|replica| replica.lag_bytes),
        "lag_seconds": replica.and_then(|replica| replica.lag).map(seconds),
        "zone": replica.and_then(|replica| replica.zone.as_deref()),
        "ejections": replica.map(|replica| counts(&replica.ejections)),
        "detail": node.detail,
    })
}

/// What happened, and how often.
fn counts(counts: &[(&'static str, u64)]) -> Value {
    let named = counts
        .iter()
        .map(|(name, n)| ((*name).to_owned(), json!(n)));
    Value::Object(named.collect())
}

fn sentinel(sentinel: &SentinelView) -> Value {
    json!({
        "addr": sentinel.addr,
        "up": sentinel.up,
        "heard": sentinel.heard,
        "detail": sentinel.detail,
    })
}

fn majority(majority: &MajorityView) -> Value {
    json!({
        "answering": majority.answering,
        "known": majority.known,
        "reached": majority.reached,
        "strict_quorum_seconds": majority.strict.map(seconds),
        "detail": majority.to_string(),
    })
}

fn incident(master_name: &str, incident: &Incident) -> Value {
    let (events, cost) = (incident.events.iter(), &incident.cost);
    json!({
        "master_name": master_name,
        "started_at": humantime::format_rfc3339_millis(incident.started_at).to_string(),
        "outcome": incident.outcome.word(),
        "cause": incident.cause,
        "old_master": incident.old_master,
        "new_master": incident.new_master,
        "took_seconds": seconds(incident.took),
        "held_requests": cost.held_requests,
        "held_bytes": cost.held_bytes,
        "longest_hold_seconds": seconds(cost.longest_hold),
        "expired_requests": cost.expired_requests,
        "resent_requests": cost.resent_requests,
        "uncertain_requests": cost.uncertain_requests,
        "first_released_seconds": cost.first_released.map(seconds),
        "released_replies": cost.released_replies,
        "doubted_replies": cost.doubted_replies,
        "forked_bytes": incident.forked_bytes,
        "events": events
            .map(|event| json!({ "at_ms": event.at_ms, "what": event.what }))
            .collect::<Vec<_>>(),
    })
}

/// Seconds with milliseconds; more digits would be noise.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::tests::healthy;

    #[test]
    fn the_names_of_the_fields_are_those_that_scripts_rely_on() {
        let mut status = status(&healthy());
        let last = status["groups"][0]["last_failover"].take();
        assert_eq!(
            status,
            json!({
                "version": "1.2.3", "ready": true, "uptime_seconds": 90061.0,
                "draining": false, "workers": 2,
                "clients": 5, "max_clients": 10000,
                "groups": [{
                    "master_name": "mymaster", "listen": ["127.0.0.1:6379"],
                    "listeners": [{"addr": "127.0.0.1:6379", "role": "split",
                        "consistency": "eventual"}],
                    "phase": "stable",
                    "phase_seconds": null, "waiting": "", "generation": 7, "config_epoch": 3,
                    "hold_seconds": 10.0, "master": "redis-1:6379",
                    "majority": {
                        "answering": 0, "known": 1, "reached": false,
                        "strict_quorum_seconds": 5.0,
                        "detail":
                            "0 of 1 answer, NO majority; writes are held after 5s without one",
                    },
                    "nodes": [
                        {
                            "addr": "redis-1:6379", "role": "master", "in_use": true,
                            "reads": 20, "reads_percent": 25, "lag_bytes": null,
                            "lag_seconds": null, "zone": null, "ejections": null, "detail": "",
                        },
                        {
                            "addr": "redis-2:6379", "role": "replica", "in_use": true,
                            "reads": 60, "reads_percent": 75, "lag_bytes": 14,
                            "lag_seconds": 0.0, "zone": "a",
                            "ejections": { "unreachable": 2, "lag": 1 }, "detail": "",
                        },
                    ],
                    "master_reads": { "unsettled": 7 },
                    "sentinels": [
                        {
                            "addr": "redis-1:26379", "up": false, "heard": false,
                            "detail": "<refused>",
                        },
                    ],
                    "clients": 5, "held_clients": 0,
                    "fences": { "pending": 0, "forbidden": "" }, "last_failover": null,
                }],
            })
        );
        assert_eq!(json!({ "failovers": [last] }), failovers(&healthy()));
        assert_eq!(
            last,
            json!({
                "master_name": "mymaster", "started_at": "2023-11-14T22:13:20.250Z",
                "outcome": "completed", "cause": "manual failover", "old_master": "redis-2:6379",
                "new_master": "redis-1:6379", "took_seconds": 1.1, "held_requests": 42,
                "held_bytes": 1900, "longest_hold_seconds": 1.08, "expired_requests": 0,
                "resent_requests": 3, "uncertain_requests": 1, "first_released_seconds": 1.101,
                "released_replies": 3, "doubted_replies": 0, "forked_bytes": 0,
                "events": [{ "at_ms": 7, "what": "+try-failover" }],
            })
        );
    }
}
