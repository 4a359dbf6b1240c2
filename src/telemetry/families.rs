//! Floor 0. Every metric there is: name, kind, help. The one table from which the rest derives.

/// One metric with all its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Full name, as Prometheus shows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One line of explanation.
    pub help: &'static str,
}

/// What a metric's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Comes and goes.
    Gauge,
    /// Durations in buckets, in seconds.
    Histogram,
}

macro_rules! families {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal)+) => {
        $(pub(super) const $id: Family = Family {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// Every metric of Switchman's own, in the order of the documentation. The process metrics
        /// (`process_*`) have the meaning that all Prometheus clients give them.
        pub const FAMILIES: &[Family] = &[$($id),+];
    };
}

families! {
    CLIENT_CONNECTIONS Gauge "switchman_client_connections" ["master_name"]
        "Clients connected now."
    CLIENT_CONNECTIONS_TOTAL Counter "switchman_client_connections_total" ["master_name", "outcome"]
        "Clients that came: accepted, or refused_limit when there were too many."
    CLIENT_CONNECTIONS_CLOSED Counter "switchman_client_connections_closed_total" ["master_name"]
        "Clients that left or were closed."
    CLIENT_RECEIVED_BYTES Counter "switchman_client_received_bytes_total" ["master_name"]
        "Bytes read from clients."
    CLIENT_SENT_BYTES Counter "switchman_client_sent_bytes_total" ["master_name"]
        "Bytes written to clients."
    REQUESTS Counter "switchman_requests_total" ["master_name", "class", "target"]
        "Requests answered, by what they were and who answered."
    REQUEST_DURATION Histogram "switchman_request_duration_seconds"
        ["master_name", "class", "target"]
        "From a request decoded to its reply delivered."
    REJECTED Counter "switchman_rejected_requests_total" ["master_name", "reason"]
        "Errors of Switchman's own and clients closed, by reason."
    MASTER_READS Counter "switchman_master_reads_total" ["master_name", "reason"]
        "Reads that replicas may serve and the master did, by the reason."
    RESENT Counter "switchman_resent_requests_total" ["master_name"]
        "Reads sent again elsewhere after their connection was lost."
    DETOURED Counter "switchman_detoured_requests_total" ["master_name"]
        "Reads asked over another connection too: a long reply or paused write was before them."
    HEDGED Counter "switchman_hedged_requests_total" ["master_name", "outcome"]
        "Late reads of replicas: sent to another too, won by it, or skipped as they were too many."
    UNCERTAIN Counter "switchman_uncertain_requests_total" ["master_name"]
        "Requests answered UNCERTAIN: sent, but whether they were executed is unknown."
    HELD_CLIENTS Gauge "switchman_held_clients" ["master_name"]
        "Clients whose next request waits for a writable master now."
    HELD Counter "switchman_held_requests_total" ["master_name", "outcome"]
        "Requests that were held: released to a master, or expired with an error."
    HOLD_DURATION Histogram "switchman_hold_duration_seconds" ["master_name"]
        "How long held requests waited."
    KEPT Counter "switchman_kept_replies_total" ["master_name", "outcome"]
        "Replies to writes kept back in a failover: released, or uncertain on the new master."
    UPSTREAM_DURATION Histogram "switchman_upstream_duration_seconds" ["master_name", "target"]
        "From a request sent to a node to its reply read."
    UPSTREAM_IN_FLIGHT Gauge "switchman_upstream_in_flight_requests" ["master_name", "node"]
        "Requests sent to a node and not yet answered."
    UPSTREAM_CONNECTIONS Gauge "switchman_upstream_connections" ["master_name", "node", "lane"]
        "Connections open to a node: shared by all clients, or leased to one."
    UPSTREAM_CONNECT_FAILURES Counter "switchman_upstream_connect_failures_total"
        ["master_name", "node", "stage"]
        "Connections to a node that failed, by the step: dns, tcp, auth or handshake."
    UPSTREAM_LOST Counter "switchman_upstream_lost_requests_total" ["master_name", "node", "sent"]
        "Requests whose connection was lost: sent (yes) or still unsent (no)."
    NODE_READS Counter "switchman_node_reads_total" ["master_name", "node"]
        "Reads answered by a node: the share that each has."
    REPLICA_LAG_BYTES Gauge "switchman_replica_lag_bytes" ["master_name", "node"]
        "Bytes of replication that a replica is behind the master, as both told last; NaN: unknown."
    REPLICA_LAG_SECONDS Gauge "switchman_replica_lag_seconds" ["master_name", "node"]
        "How long ago a replica had all that the master had; NaN if unknown."
    REPLICA_EJECTIONS Counter "switchman_replica_ejections_total" ["master_name", "node", "reason"]
        "Replicas that served reads and do not any more, by reason."
    UPSTREAM_RECEIVED_BYTES Counter "switchman_upstream_received_bytes_total" ["master_name"]
        "Bytes read from nodes."
    UPSTREAM_SENT_BYTES Counter "switchman_upstream_sent_bytes_total" ["master_name"]
        "Bytes written to nodes."
    FENCES Counter "switchman_fences_total" ["master_name", "result"]
        "Connections given up with a write unanswered, and what came of ending them at the node."
    SENTINEL_UP Gauge "switchman_sentinel_up" ["master_name", "sentinel"]
        "Whether a Sentinel is connected and answers: 1 or 0."
    SENTINEL_HEARD Gauge "switchman_sentinel_heard" ["master_name", "sentinel"]
        "Whether a Sentinel's events are heard: 1 or 0; a planned failover at 0 may lose writes."
    SENTINEL_MAJORITY Gauge "switchman_sentinel_majority" ["master_name"]
        "Whether more than half of the known Sentinels answer: 1 or 0; 1 without Sentinels."
    MASTER_INFO Gauge "switchman_master_info" ["master_name", "node"]
        "1 for the node that is the master in use, 0 for those that were."
    REPLICA_INFO Gauge "switchman_replica_info" ["master_name", "node"]
        "1 for each replica that may serve reads, 0 for those that might once."
    TOPOLOGY_GENERATION Gauge "switchman_topology_generation" ["master_name"]
        "Number of the topology in use; grows with each change."
    TOPOLOGY_EPOCH Gauge "switchman_topology_config_epoch" ["master_name"]
        "Sentinel's configuration epoch in use; 0 for a static group."
    TOPOLOGY_PHASE Gauge "switchman_topology_phase" ["master_name", "phase"]
        "1 for the phase in which the group is: unknown, stable or switching."
    TOPOLOGY_SWITCHES Counter "switchman_topology_switches_total" ["master_name", "outcome"]
        "Switches of the master: completed, or abandoned because the old one stayed."
    TOPOLOGY_SWITCH_DURATION Histogram "switchman_topology_switch_duration_seconds" ["master_name"]
        "From the first sign of a completed switch to writes flowing again."
    TOPOLOGY_FORKED_BYTES Counter "switchman_topology_forked_bytes_total" ["master_name"]
        "Bytes of replication, acknowledged before a switch, that the new master did not have."
    WORKER_BUSY Counter "switchman_worker_busy_seconds_total" ["worker"]
        "Time a worker's thread spent working rather than waiting."
    BUILD_INFO Gauge "switchman_build_info" ["version", "revision"]
        "1; the labels say what is running."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_their_kind_and_unit() {
        for family in FAMILIES {
            let name = family.name;
            assert!(name.starts_with("switchman_"), "{name}");
            assert_eq!(
                name.ends_with("_total"),
                family.kind == Kind::Counter,
                "{name}"
            );
            assert_eq!(
                name.ends_with("duration_seconds"),
                family.kind == Kind::Histogram,
                "{name}"
            );
            assert!(family.help.ends_with('.'), "{name}");
        }
    }
}
