//! Floor 0. What one worker counts for one master group: plain fields, no atomics, no names.
//! Knows nothing of how it is published.

use std::time::Duration;

use crate::telemetry::Latency;
use crate::types::{NodeAddr, Time};

/// Nodes of one group that have series of their own. A group has a handful; but where every restart
/// brings a new address a year of them must not fill the memory, so later ones share one series.
pub(super) const NODES_MAX: usize = 256;

/// An enum whose variants are the closed set of values of one label.
macro_rules! label_values {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $label:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// How many values there are.
            pub const COUNT: usize = Self::ALL.len();
            /// Each value once, in the order of their indices.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value as metrics write it.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }

            #[expect(clippy::as_conversions, reason = "the discriminant of a fieldless enum")]
            /// Its place in `ALL`.
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label_values! {
    /// What kind of request it was; label `class`.
    pub enum RequestClass {
        /// Reads data.
        Read = "read",
        /// Changes data.
        Write = "write",
        /// Changes or asks the state of the session (AUTH, SELECT, HELLO, PING …).
        Session = "session",
        /// Went over a connection of the client's own (transactions, blocking, pub/sub …).
        Leased = "leased",
        /// Administers a node.
        Admin = "admin",
        /// Was refused by Switchman.
        Refused = "refused",
    }
}

label_values! {
    /// Who answered a request; label `target`.
    pub enum Target {
        /// The master.
        Master = "master",
        /// A replica.
        Replica = "replica",
        /// Switchman itself.
        Local = "local",
    }
}

label_values! {
    /// Why a client got an error of Switchman's own, or was closed; label `reason`.
    pub enum Reason {
        /// The limit of clients was reached; the client was turned away.
        MaxClients = "max_clients",
        /// The client broke the protocol.
        Protocol = "protocol",
        /// The command is refused here.
        RefusedCommand = "refused_command",
        /// There was no writable master until the end of the hold time; not sent.
        NoMaster = "no_master",
        /// No majority of the Sentinels answered until the end of the hold time; not sent.
        NoMajority = "no_majority",
        /// There was no healthy replica, and the master must not serve reads.
        NoReplica = "no_replica",
        /// The client has not authenticated.
        Unauthenticated = "unauthenticated",
        /// All leased connections were in use.
        NoLease = "no_lease",
        /// The request is larger than allowed.
        TooLarge = "too_large",
        /// The client took nothing of its output for too long.
        WriteTimeout = "write_timeout",
        /// A subscriber did not keep up, and the connection that its messages came over was lost.
        SlowSubscriber = "slow_subscriber",
        /// The node did not answer in time.
        ReplyTimeout = "reply_timeout",
        /// The connection was lost after a write was sent: its outcome is unknown.
        Uncertain = "uncertain",
        /// The connection broke each time that the reply was due.
        Breaks = "breaks",
        /// Switchman is stopping.
        Stopping = "stopping",
    }
}

label_values! {
    /// Why the master served a read that a replica may serve; label `reason`.
    pub enum MasterRead {
        /// No replica was known to have every write to its keys.
        Unsettled = "unsettled",
        /// The same, for a write of which the keys are not known, or a read that may read any.
        UnsettledAll = "unsettled_all",
        /// Every replica lagged too far behind.
        Lag = "lag",
        /// No replica could serve reads.
        NoneEligible = "none_eligible",
        /// Reads are to go to the master.
        Mode = "mode",
        /// The client has asked for it, or its listener does.
        Policy = "policy",
    }
}

label_values! {
    /// Why a replica that served reads does not any more; label `reason`.
    pub enum EjectionReason {
        /// No Sentinel lists it.
        NotListed = "not_listed",
        /// Sentinels take it for down.
        SentinelDown = "sentinel_down",
        /// Sentinels see it as a master, or its own answer says so.
        IsMaster = "is_master",
        /// It follows another master, in Sentinel's view or its own.
        OtherMaster = "other_master",
        /// Its link to the master is down or syncing, in Sentinel's view or its own.
        LinkDown = "link_down",
        /// It does not answer.
        Unreachable = "unreachable",
        /// It does not tell its role, or has not yet.
        NotProven = "not_proven",
        /// It runs a script.
        Busy = "busy",
        /// It is further behind than allowed.
        Lag = "lag",
        /// A worker leaves it alone: connections fail or break, or it turns reads away.
        Errors = "errors",
        /// A worker leaves it alone: it is much slower than the others.
        Latency = "latency",
    }
}

label_values! {
    /// The step at which a connection to a node failed; label `stage`.
    pub enum ConnectStage {
        /// Resolving the name.
        Dns = "dns",
        /// Connecting the socket.
        Tcp = "tcp",
        /// Logging in.
        Auth = "auth",
        /// The rest of the handshake: HELLO, SELECT, ROLE …
        Handshake = "handshake",
    }
}

label_values! {
    /// What became of a read that a replica did not answer in time; label `outcome`.
    pub enum HedgeOutcome {
        /// It was also sent to another.
        Sent = "sent",
        /// That one answered first.
        Won = "won",
        /// It was not, because too many were already.
        Skipped = "skipped",
    }
}

label_values! {
    /// What became of a connection to be ended at its node; label `result`.
    pub enum FenceResult {
        /// The node has ended it.
        Killed = "killed",
        /// It had ended already, or the node's process has.
        Gone = "gone",
        /// Switchman's login has no right to it, or none to see that the process is the same.
        Forbidden = "forbidden",
        /// The node did not answer in time.
        Expired = "expired",
        /// There were too many.
        Dropped = "dropped",
    }
}

/// What one worker has counted for one group.
///
/// Counters and durations hold what came since the last [`publish`](super::WorkerMetrics::publish),
/// which empties them; gauges hold this worker's present share and are kept.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Clients accepted.
    pub client_connections_accepted: u64,
    /// Clients turned away at the limit.
    pub client_connections_refused: u64,
    /// Clients gone, whoever closed.
    pub client_connections_closed: u64,
    /// Bytes read from clients.
    pub client_received_bytes: u64,
    /// Bytes written to clients.
    pub client_sent_bytes: u64,
    /// Bytes read from nodes.
    pub upstream_received_bytes: u64,
    /// Bytes written to nodes.
    pub upstream_sent_bytes: u64,
    /// Held requests that went on to a master.
    pub held_released: u64,
    /// Held requests that were answered with an error at the end of the hold time.
    pub held_expired: u64,
    /// How long requests were held, released and expired ones.
    pub hold_duration: Latency,
    /// Bytes of requests, and of what was read behind them, that a master or the end of the hold
    /// time set free.
    pub held_bytes: u64,
    /// Gauge: the longest hold of a request since writes were last held.
    pub longest_hold: Duration,
    /// Gauge: when a request that was held first went to the master since writes were last held.
    pub first_released: Option<Time>,
    /// Replies kept back from a master about to be replaced, and passed on.
    pub kept_released: u64,
    /// Replies kept back, and answered `-UNCERTAIN` in the end.
    pub kept_uncertain: u64,
    /// Reads that were sent again elsewhere after their connection was lost.
    pub resent: u64,
    /// Reads asked twice because a long reply or a paused write was before theirs.
    pub detoured: u64,
    /// Requests answered `-UNCERTAIN`: sent, outcome unknown.
    pub uncertain: u64,
    /// Gauge: clients connected now.
    pub clients: i64,
    /// Gauge: clients whose next request is held now.
    pub held_clients: i64,
    pub(super) requests: [[u64; Target::COUNT]; RequestClass::COUNT],
    pub(super) request_duration: [[Latency; Target::COUNT]; RequestClass::COUNT],
    pub(super) upstream_duration: [Latency; Target::COUNT],
    pub(super) rejected: [u64; Reason::COUNT],
    pub(super) master_reads: [u64; MasterRead::COUNT],
    pub(super) hedged: [u64; HedgeOutcome::COUNT],
    /// Invariant: at most [`NODES_MAX`] with an address, and behind those at most one without.
    pub(super) nodes: Vec<(Option<NodeAddr>, NodeCounts)>,
}

/// Which of a [`Counts`]' nodes; of no use with another `Counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeIndex(usize);

/// What one worker has counted for one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Gauge: requests sent and not yet answered.
    pub in_flight: i64,
    /// Gauge: shared connections open.
    pub shared: i64,
    /// Gauge: leased connections open, in use or warm.
    pub leased: i64,
    /// Reads that it has answered.
    pub reads: u64,
    /// Requests whose connection was lost when they had been sent.
    pub lost_sent: u64,
    /// Requests whose connection was lost before they were sent.
    pub lost_unsent: u64,
    pub(super) connect_failures: [u64; ConnectStage::COUNT],
}

impl Counts {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes are held from now on.
    pub const fn hold_begins(&mut self) {
        self.longest_hold = Duration::ZERO;
        self.first_released = None;
    }

    /// A request was held for so long, and went to a node now.
    pub fn released(&mut self, held: Duration, target: Target, now: Time) {
        self.held_released += 1;
        self.hold_duration.record(held);
        self.longest_hold = self.longest_hold.max(held);
        if target == Target::Master {
            self.first_released.get_or_insert(now);
        }
    }

    /// A request was held for so long in vain.
    pub fn expired(&mut self, held: Duration) {
        self.held_expired += 1;
        self.hold_duration.record(held);
        self.longest_hold = self.longest_hold.max(held);
    }

    /// Counts `times` requests of `class` answered by `target`.
    #[inline]
    pub fn request(&mut self, class: RequestClass, target: Target, times: u64) {
        self.requests[class.index()][target.index()] += times;
    }

    /// Durations from a request decoded to its reply handed to the client's socket.
    #[inline]
    pub fn request_duration(&mut self, class: RequestClass, target: Target) -> &mut Latency {
        &mut self.request_duration[class.index()][target.index()]
    }

    /// Durations from a request written to a node to its reply read.
    #[inline]
    pub fn upstream_duration(&mut self, target: Target) -> &mut Latency {
        &mut self.upstream_duration[target.index()]
    }

    /// Counts one error of our own, or one client closed, for `reason`.
    pub fn reject(&mut self, reason: Reason) {
        self.rejected[reason.index()] += 1;
    }

    /// Counts one read that a replica might have served, and the master did.
    #[inline]
    pub fn read_by_master(&mut self, why: MasterRead) {
        self.master_reads[why.index()] += 1;
    }

    /// Reads that the master served since the last publication and a replica might have, in the
    /// order of [`MasterRead::ALL`].
    pub const fn master_reads(&self) -> &[u64; MasterRead::COUNT] {
        &self.master_reads
    }

    /// Counts one late read of a replica.
    pub fn hedge(&mut self, outcome: HedgeOutcome) {
        self.hedged[outcome.index()] += 1;
    }

    /// How many late reads of replicas have come to this and are not published.
    pub fn hedges(&self, outcome: HedgeOutcome) -> u64 {
        self.hedged[outcome.index()]
    }

    /// Counts `times` clients turned away because there were too many.
    pub fn turned_away(&mut self, times: u64) {
        self.client_connections_refused += times;
        self.rejected[Reason::MaxClients.index()] += times;
    }

    /// Reads that each node has answered since they were last published.
    pub fn node_reads(&self) -> impl Iterator<Item = (&NodeAddr, u64)> {
        let nodes = self.nodes.iter();
        nodes.filter_map(|(addr, counts)| Some((addr.as_ref()?, counts.reads)))
    }

    /// The index of `node`, for [`Counts::at`]; look it up once per connection.
    pub fn node(&mut self, node: &NodeAddr) -> NodeIndex {
        let found = self
            .nodes
            .iter()
            .position(|(known, _)| known.as_ref().is_none_or(|known| known == node));
        NodeIndex(found.unwrap_or_else(|| {
            let own = (self.nodes.len() < NODES_MAX).then(|| node.clone());
            self.nodes.push((own, NodeCounts::default()));
            self.nodes.len() - 1
        }))
    }

    /// The counts of one node.
    ///
    /// # Panics
    /// With an index that another `Counts` gave.
    #[inline]
    pub fn at(&mut self, node: NodeIndex) -> &mut NodeCounts {
        let (_, counts) = self
            .nodes
            .get_mut(node.0)
            .expect("an index is used with the counts that gave it");
        counts
    }
}

impl NodeCounts {
    /// Counts a connection that failed at `stage`.
    pub fn connect_failed(&mut self, stage: ConnectStage) {
        self.connect_failures[stage.index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_index_and_those_past_the_limit_share_one() {
        let mut counts = Counts::new();
        let addr = |port: usize| NodeAddr::new("n", u16::try_from(port).unwrap()).unwrap();
        let first = counts.node(&addr(1));
        for port in 2..=NODES_MAX {
            assert_ne!(counts.node(&addr(port)), first);
        }
        let other = counts.node(&addr(NODES_MAX + 1));
        assert_eq!(counts.node(&addr(NODES_MAX + 2)), other);
        assert_eq!(counts.node(&addr(1)), first);
        assert_eq!(counts.nodes.len(), NODES_MAX + 1);
    }
}
