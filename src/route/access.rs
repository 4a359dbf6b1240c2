//! Floor 2. What one client may have: by the listener that it came by, and by its own words.

use crate::route::Reads;
use crate::types::ListenerRole;

/// What a client may have. It is fixed when the client is accepted; READONLY and READWRITE switch
/// within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    role: ListenerRole,
    /// Who serves its reads now.
    reads: Reads,
    /// Who serves them by its listener.
    given: Reads,
}

impl Access {
    /// What a listener of this role gives, whose reads are served by `reads`.
    pub const fn new(role: ListenerRole, reads: Reads) -> Self {
        let given = match role {
            ListenerRole::Master => Reads::Master,
            ListenerRole::Split | ListenerRole::Replica => reads,
        };
        Self {
            role,
            reads: given,
            given,
        }
    }

    /// What its listener is to the client.
    pub const fn role(self) -> ListenerRole {
        self.role
    }

    /// Who serves the client's reads.
    #[inline]
    pub const fn reads(self) -> Reads {
        self.reads
    }

    /// Whether the client must not write.
    #[inline]
    pub const fn is_read_only(self) -> bool {
        matches!(self.role, ListenerRole::Replica)
    }

    /// Whether it is by the client's own word, or by the role of its listener, that the master
    /// serves its reads.
    pub const fn spares_replicas(self) -> bool {
        let by_word = matches!(self.reads, Reads::Master) && !matches!(self.given, Reads::Master);
        by_word || matches!(self.role, ListenerRole::Master)
    }

    /// READWRITE: the master serves the client's reads, save where it is not to have any.
    pub const fn read_write(&mut self) {
        if !self.is_read_only() {
            self.reads = Reads::Master;
        }
    }

    /// READONLY, and RESET: its listener decides.
    pub const fn read_only(&mut self) {
        self.reads = self.given;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_switches_its_replica_reads_within_what_its_listener_gives() {
        for (role, given, off) in [
            (ListenerRole::Split, Reads::Replicas, Reads::Master),
            (ListenerRole::Master, Reads::Master, Reads::Master),
            (ListenerRole::Replica, Reads::Replicas, Reads::Replicas),
        ] {
            let mut access = Access::new(role, Reads::Replicas);
            assert_eq!(access.reads(), given, "{role:?}");
            access.read_write();
            assert_eq!(access.reads(), off, "{role:?}");
            assert_eq!(access.spares_replicas(), off == Reads::Master, "{role:?}");
            access.read_only();
            assert_eq!(access.reads(), given, "{role:?}");
        }
        let mut master = Access::new(ListenerRole::Split, Reads::Master);
        master.read_only();
        assert_eq!(master.reads(), Reads::Master);
        assert!(!master.spares_replicas(), "the mode is for all");
    }
}
