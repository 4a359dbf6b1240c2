//! Floor 2. The decision table: master, replica, hold or error.

use crate::command::Class;

/// Who serves reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reads {
    /// Healthy replicas that have every write of this process to what is read.
    #[default]
    OwnWrites,
    /// Healthy replicas.
    Replicas,
    /// The master alone.
    Master,
}

/// What becomes of reads when no replica may serve them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoReplica {
    /// They go to the master.
    #[default]
    Master,
    /// They get an error.
    Error,
}

/// What the decision depends on, besides the command.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The policy of the client's listener, and what the client has chosen within it.
    pub reads: Reads,
    /// The group's policy.
    pub no_replica: NoReplica,
    /// Requests of this client in flight that may write: a read behind them must see them.
    pub writes_in_flight: u32,
    /// Whether there is a writable master.
    pub has_master: bool,
    /// Whether there is a replica that may serve reads.
    pub has_replica: bool,
    /// Whether one of them has everything that this read must see.
    pub has_settled: bool,
}

/// Where a stateless command goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The master.
    Master,
    /// A replica.
    Replica,
    /// Nowhere yet: it waits for a writable master.
    Hold,
    /// Nowhere: no replica, and the master must not be asked.
    NoReplica,
}

/// Decides for a command of a class that travels on shared connections.
#[inline]
pub fn decide(class: Class, facts: Facts) -> Target {
    let may_use_replica =
        class == Class::Read && facts.reads != Reads::Master && facts.writes_in_flight == 0;
    if may_use_replica {
        if facts.has_replica && facts.has_settled {
            return Target::Replica;
        }
        // What replicas may not have yet the master must serve, whatever it is spared.
        if facts.no_replica == NoReplica::Error && !facts.has_replica {
            return Target::NoReplica;
        }
    }
    if facts.has_master {
        Target::Master
    } else {
        Target::Hold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Facts = Facts {
        reads: Reads::Replicas,
        no_replica: NoReplica::Master,
        writes_in_flight: 0,
        has_master: true,
        has_replica: true,
        has_settled: true,
    };

    #[test]
    fn what_no_replica_has_settled_is_the_masters_or_waits() {
        let unsettled = Facts {
            reads: Reads::OwnWrites,
            has_settled: false,
            ..CALM
        };
        assert_eq!(decide(Class::Read, unsettled), Target::Master);
        let strict = Facts {
            no_replica: NoReplica::Error,
            ..unsettled
        };
        assert_eq!(decide(Class::Read, strict), Target::Master);
        let alone = Facts {
            has_master: false,
            ..unsettled
        };
        assert_eq!(decide(Class::Read, alone), Target::Hold);
    }

    #[test]
    fn reads_go_to_replicas_unless_something_speaks_against_it() {
        let check = |class, facts, want| assert_eq!(decide(class, facts), want, "{facts:?}");
        check(Class::Read, CALM, Target::Replica);
        check(Class::MasterRead, CALM, Target::Master);
        check(Class::Write, CALM, Target::Master);
        check(
            Class::Read,
            Facts {
                writes_in_flight: 1,
                ..CALM
            },
            Target::Master,
        );
        check(
            Class::Read,
            Facts {
                reads: Reads::Master,
                ..CALM
            },
            Target::Master,
        );
        check(
            Class::Read,
            Facts {
                has_replica: false,
                ..CALM
            },
            Target::Master,
        );
        let strict = Facts {
            has_replica: false,
            no_replica: NoReplica::Error,
            ..CALM
        };
        check(Class::Read, strict, Target::NoReplica);
        check(
            Class::Read,
            Facts {
                writes_in_flight: 1,
                ..strict
            },
            Target::Master,
        );
    }

    #[test]
    fn without_a_master_only_reads_of_replicas_go_on() {
        let alone = Facts {
            has_master: false,
            ..CALM
        };
        assert_eq!(decide(Class::Read, alone), Target::Replica);
        assert_eq!(decide(Class::Write, alone), Target::Hold);
        let none = Facts {
            has_replica: false,
            ..alone
        };
        assert_eq!(decide(Class::Read, none), Target::Hold);
    }
}
