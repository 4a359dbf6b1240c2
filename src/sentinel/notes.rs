//! Floor 2. The machine's notes as log lines, for a person on call.
//! Knows the words and the level of each note; `error` means that a person must act.

use tracing::error;
use tracing::info;
use tracing::warn;

use crate::topology::Note;

/// Logs one note.
pub(super) fn log(note: &Note) {
    match note {
        Note::MasterFound { .. }
        | Note::Holding { .. }
        | Note::Released { .. }
        | Note::Switched { .. }
        | Note::MasterRestarted { .. }
        | Note::RegressionAccepted { .. } => log_master(note),
        Note::ChangedOutsideSentinel { .. }
        | Note::RogueMaster { .. }
        | Note::CandidateDoubted { .. }
        | Note::ViewsDiffer { .. }
        | Note::Regressed { .. }
        | Note::RoleUntold { .. }
        | Note::MajorityLost { .. }
        | Note::MajorityBack { .. } => log_doubt(note),
        Note::SentinelUp { .. }
        | Note::SentinelDown { .. }
        | Note::NotASentinel { .. }
        | Note::NameUnknown { .. }
        | Note::SubscriptionForbidden { .. }
        | Note::LoopbackRejected { .. }
        | Note::SentinelLearned { .. }
        | Note::SentinelForgotten { .. }
        | Note::Tilt { .. } => log_sentinel(note),
        Note::ReplicaAdmitted { node } => info!(replica = %node, "replica serves reads"),
        Note::ReplicaEjected { node, why } => {
            warn!(replica = %node, reason = %why, "replica serves no reads");
        }
        Note::ReplicaAvoided {
            worker,
            node,
            why,
            time,
        } => {
            let seconds = time.as_secs();
            warn!(replica = %node, worker, reason = %why, seconds, "worker sends replica no reads");
        }
    }
}

fn log_master(note: &Note) {
    match note {
        Note::MasterFound {
            master,
            epoch,
            generation,
        } => {
            let (epoch, generation) = (epoch.get(), generation.get());
            info!(%master, epoch, generation, "master found");
        }
        Note::Holding {
            master,
            cause,
            generation,
        } => {
            warn!(%master, %cause, generation = generation.get(), "writes held");
        }
        Note::Released {
            master,
            cause,
            generation,
            took,
        } => {
            let (generation, held_ms) = (generation.get(), took.as_millis());
            info!(%master, %cause, generation, held_ms, "writes go on with the same master");
        }
        Note::Switched {
            old,
            new,
            epoch,
            generation,
            took,
            unquiet,
        } => {
            let (epoch, generation, took_ms) = (epoch.get(), generation.get(), took.as_millis());
            info!(
                master.old = %old, master.new = %new, epoch, generation, took_ms, unquiet,
                "master switched"
            );
        }
        Note::MasterRestarted { master } => {
            warn!(%master, "master was restarted; what it had not saved is gone");
        }
        Note::RegressionAccepted { from, to } => {
            let (from, to) = (from.get(), to.get());
            error!(
                epoch.old = from,
                epoch.new = to,
                "older epoch accepted: no sentinel knows the newer"
            );
        }
        _ => {}
    }
}

fn log_doubt(note: &Note) {
    match note {
        Note::ChangedOutsideSentinel { master } => {
            error!(%master, "master was demoted outside of Sentinel; waiting for the sentinels");
        }
        Note::RogueMaster { node } => {
            error!(replica = %node, "replica calls itself master and no sentinel agrees; ignored");
        }
        Note::CandidateDoubted { node, epoch } => {
            let epoch = epoch.get();
            error!(candidate = %node, epoch, "announced master is not proven; ignored for now");
        }
        Note::ViewsDiffer {
            current,
            other,
            epoch,
        } => {
            let epoch = epoch.get();
            warn!(master = %current, %other, epoch, "sentinels name two masters");
        }
        Note::Regressed { in_use, told } => {
            let (in_use, told) = (in_use.get(), told.get());
            warn!(
                epoch.in_use = in_use,
                epoch.told = told,
                "all sentinels are behind; not obeyed"
            );
        }
        Note::RoleUntold { node, why } => {
            error!(%node, reason = why, "node does not tell its role; it cannot be proven");
        }
        Note::MajorityLost { answering, known } => {
            warn!(
                answering,
                known, "fewer than a majority of the sentinels answer"
            );
        }
        Note::MajorityBack { answering, known } => {
            info!(
                answering,
                known, "a majority of the sentinels answers again"
            );
        }
        _ => {}
    }
}

fn log_sentinel(note: &Note) {
    match note {
        Note::SentinelUp { sentinel } => info!(%sentinel, "sentinel answers"),
        Note::SentinelDown { sentinel, why } => {
            warn!(%sentinel, reason = why, "sentinel does not answer");
        }
        Note::NotASentinel { addr } => error!(%addr, "this is not a sentinel"),
        Note::NameUnknown { sentinel } => {
            error!(%sentinel, "sentinel does not know this master name");
        }
        Note::SubscriptionForbidden { sentinel } => warn!(
            %sentinel,
            "sentinel forbids SUBSCRIBE; polling only, a planned failover may lose writes"
        ),
        Note::LoopbackRejected {
            sentinel,
            announced,
        } => {
            warn!(%sentinel, %announced, "loopback address from another host rejected");
        }
        Note::SentinelLearned { sentinel } => info!(%sentinel, "sentinel learned"),
        Note::SentinelForgotten { sentinel } => info!(%sentinel, "sentinel forgotten"),
        Note::Tilt { sentinel, on: true } => warn!(%sentinel, "sentinel in tilt mode"),
        Note::Tilt {
            sentinel,
            on: false,
        } => info!(%sentinel, "sentinel out of tilt mode"),
        _ => {}
    }
}
