//! Floor 8. Checked settings → what each module wants to be told.

use std::sync::Arc;

use crate::config::{
    Consistency, Discovery, GroupSettings, Hold, ListenerSettings, NoReplica, ReplicaChoice,
    ScriptKeys, Settings, Spread,
};
use crate::consistency::{self, SLOTS, Stamps};
use crate::exchange::{self, Audience, Bulky, Busy, Changes, Pause, Scripts};
use crate::route;
use crate::sentinel;
use crate::topology;
use crate::upstream;

/// Where account is kept of a group's writes, if reads by any of its listeners need that.
pub(super) fn stamps(group: &GroupSettings) -> Option<Arc<Stamps>> {
    let needs = |listener: &ListenerSettings| access(listener).reads() == route::Reads::OwnWrites;
    let wanted = group.listen.iter().any(needs);
    wanted.then(|| {
        let stamps = Stamps::new(SLOTS, fastrand::u64(..));
        stamps.succeed();
        Arc::new(stamps)
    })
}

/// For the control plane of one group.
pub(super) fn sentinel(
    settings: &Settings,
    group: &GroupSettings,
    stamps: Option<Arc<Stamps>>,
) -> sentinel::Settings {
    let source = match &group.discovery {
        Discovery::Sentinels { addrs, credentials } => sentinel::Source::Sentinels {
            seeds: addrs.clone(),
            credentials: credentials.clone(),
        },
        Discovery::Static { master, replicas } => sentinel::Source::Static {
            master: master.clone(),
            replicas: replicas.clone(),
        },
    };
    sentinel::Settings {
        node_credentials: group.credentials.clone(),
        hold: match group.hold {
            Hold::Auto => topology::Hold::Auto,
            Hold::Fixed(time) => topology::Hold::Fixed(time),
        },
        strict_quorum: group.strict_quorum,
        drain: group.drain_timeout,
        workers: settings.workers.get(),
        stamps,
        settle_interval: group.settle_interval,
        max_lag: group.replicas.max_lag,
        max_lag_time: group.replicas.max_lag_time,
        choice: match group.replicas.choice {
            ReplicaChoice::Load => topology::ReplicaChoice::Load,
            ReplicaChoice::Nearest => topology::ReplicaChoice::Nearest,
        },
        zone: group.replicas.zone.clone(),
        node_zones: group.replicas.node_zones.clone(),
        ..sentinel::Settings::new(group.master_name.clone(), source)
    }
}

/// For a worker's exchange.
pub(super) fn exchange(settings: &Settings, scripts: &Arc<Scripts>) -> exchange::Settings {
    exchange::Settings {
        workers: settings.workers.get(),
        scripts: Arc::clone(scripts),
        output_high: settings.limits.client_output_limit,
        write_timeout: settings.limits.client_write_timeout,
        leases_max: settings.upstream.max_leased.get(),
        warm: true,
        idle: settings.upstream.idle_timeout,
        reply_timeout: settings.upstream.reply_timeout,
        suspect_after: settings.upstream.suspect_after,
        ..exchange::Settings::default()
    }
}

/// For connections to nodes.
pub(super) fn upstream(settings: &Settings) -> upstream::Settings {
    let timeout = settings.upstream.connect_timeout;
    upstream::Settings {
        connect_timeout: timeout,
        handshake_timeout: timeout,
    }
}

/// For the clients of one listener.
pub(super) const fn access(listener: &ListenerSettings) -> route::Access {
    let reads = match listener.consistency {
        Consistency::OwnWrites => route::Reads::OwnWrites,
        Consistency::Eventual => route::Reads::Replicas,
        Consistency::Master => route::Reads::Master,
    };
    route::Access::new(listener.role, reads)
}

/// What all workers know of a group together.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    pub(super) stamps: Option<Arc<Stamps>>,
    audience: Arc<Audience>,
    bulky: Arc<Bulky>,
    busy: Arc<Busy>,
    pause: Arc<Pause>,
    changes: Arc<Changes>,
}

impl Shared {
    pub(super) fn new(stamps: Option<Arc<Stamps>>) -> Self {
        Self {
            stamps,
            ..Self::default()
        }
    }
}

/// For a worker's part of one group.
pub(super) fn group(
    settings: &Settings,
    group: &GroupSettings,
    shared: Shared,
) -> exchange::GroupSettings {
    let workers = u32::try_from(settings.workers.get()).unwrap_or(u32::MAX);
    let replicas = &group.replicas;
    exchange::GroupSettings {
        name: group.master_name.clone(),
        no_replica: match group.no_replica {
            NoReplica::Master => route::NoReplica::Master,
            NoReplica::Error => route::NoReplica::Error,
        },
        readers: exchange::ReaderSettings {
            spread: match replicas.spread {
                Spread::Client => exchange::Spread::Client,
                Spread::Request => exchange::Spread::Request,
            },
            weights: replicas.weights.clone(),
            // Each worker has its part, rounded up.
            fallback: replicas.fallback_limit.map(|limit| limit.div_ceil(workers)),
        },
        hedge_reads: group.hedge_reads,
        anonymous: None,
        stamps: shared.stamps,
        audience: shared.audience,
        bulky: shared.bulky,
        busy: shared.busy,
        pause: shared.pause,
        changes: shared.changes,
        script_keys: match group.scripts {
            ScriptKeys::Any => consistency::Scripts::Everything,
            ScriptKeys::Declared => consistency::Scripts::Declared,
        },
    }
}
