//! Floor 1. Holding by command: who prepares a planned failover needs quiet before it begins.
//! Knows nothing of what is done meanwhile; the end is decided as for every other hold.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Machine;
use super::State;
use super::peers::Sentinel;
use crate::topology::view::ReplicaEntry;
use crate::types::{NodeAddr, Time};

/// Longest hold by one command: whoever commanded it may have died.
pub const HOLD_MAX: Duration = Duration::from_secs(60);

/// Why writes are not held by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldRefused {
    /// There is nobody to name another master.
    #[error("the group has a fixed master and no Sentinels")]
    Static,
    /// There is no master to hold.
    #[error("no master is known yet")]
    Unknown,
    /// The master is being doubted or left already.
    #[error("writes are held already: a switch is under way")]
    Switching,
}

impl Machine {
    /// Holds writes until the Sentinels name another master that is proven, or
    /// [`Machine::let_go`] is called, or `until`, which is at most [`HOLD_MAX`] from now.
    pub fn hold(&mut self, now: Time, until: Time) -> Result<(), HoldRefused> {
        self.now = self.now.max(now);
        match &self.state {
            _ if self.is_static() => Err(HoldRefused::Static),
            State::Unknown => Err(HoldRefused::Unknown),
            State::Switching(_) => Err(HoldRefused::Switching),
            State::Stable => {
                self.commanded = Some(until.min(self.now + HOLD_MAX));
                self.settle();
                Ok(())
            }
        }
    }

    /// Ends a hold by command. Writes go on with the old master once it has proven itself after
    /// this moment and nothing else speaks against it.
    pub fn let_go(&mut self, now: Time) {
        self.now = self.now.max(now);
        if self.commanded.take().is_some() {
            self.sign();
            self.want_all_sentinels();
        }
        self.settle();
    }

    /// Whether writes are held and every worker has reported that nothing is in flight.
    pub fn is_quiet(&self) -> bool {
        match &self.state {
            State::Switching(hold) => hold.quiet.len() >= self.settings.workers,
            State::Unknown | State::Stable => false,
        }
    }

    /// Whether writes are held by command.
    pub const fn is_commanded(&self) -> bool {
        self.commanded.is_some()
    }

    /// Sentinels that answered the last time they were asked.
    pub fn answering(&self) -> impl Iterator<Item = &NodeAddr> {
        let up = |(_, sentinel): &(&NodeAddr, &Sentinel)| sentinel.up;
        self.sentinels.iter().filter(up).map(|(addr, _)| addr)
    }

    /// Replicas that some Sentinel may choose in a failover: it sees them alive, and their
    /// `slave-priority` is not 0. What else Sentinel looks at (age of its `INFO`, time without the
    /// master) only makes the choice smaller.
    pub fn promotable(&self) -> BTreeSet<NodeAddr> {
        let views = self.sentinels.values().filter_map(Sentinel::view);
        let listed = views.flat_map(|view| &view.replicas);
        let fit = listed.filter(|replica| is_fit(replica));
        fit.filter_map(|replica| replica.addr.clone())
            .filter(|addr| !self.is_master(addr))
            .collect()
    }

    /// The longest `down-after-milliseconds` that a Sentinel has told.
    pub const fn down_after(&self) -> Option<Duration> {
        self.down_after
    }

    /// A command whose author is not heard any more must not hold for ever.
    pub(super) fn expire_command(&mut self) {
        if self.commanded.is_some_and(|until| until <= self.now) {
            self.commanded = None;
            self.sign();
            self.want_all_sentinels();
        }
    }
}

/// Whether the Sentinel that tells this may choose the replica in a failover.
pub(super) fn is_fit(replica: &ReplicaEntry) -> bool {
    let flags = replica.flags;
    let alive = !flags.s_down && !flags.o_down && !flags.disconnected;
    alive && replica.priority != 0
}
