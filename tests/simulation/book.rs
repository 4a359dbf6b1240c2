//! What is true of a world: what every command met with, and the first promise that was broken.

use crate::plan::Micros;

/// Number of a command in the book.
pub(crate) type Id = usize;

/// What the client of a command was told in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing yet.
    Open,
    /// The node's own reply.
    Done,
    /// That it is part of a transaction which has not ended.
    Queued,
    /// That it may have been executed.
    Uncertain,
    /// That it was not executed.
    Refused,
    /// That its time was over before there was anything.
    Nil,
    /// Its client is gone.
    Unheard,
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Set,
    Get,
    /// RPUSH of its own number.
    Push,
    /// BLPOP.
    Pop,
    Multi,
    Exec,
}

/// One command of a client.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one command"
)]
pub(crate) struct Command {
    pub(crate) client: usize,
    pub(crate) verb: Verb,
    /// Whether its client sent it between MULTI and EXEC.
    pub(crate) inside: bool,
    pub(crate) made: Micros,
    /// When Switchman had read it.
    pub(crate) arrived: Option<Micros>,
    /// Whether all of it was handed to a connection, ever.
    pub(crate) wired: bool,
    /// Whether the node that had it last has said that it does not execute it.
    pub(crate) disowned: bool,
    /// Executions.
    pub(crate) times: u32,
    /// Where it was executed last.
    pub(crate) node: usize,
    /// Nodes that have it in their history, or once had: one bit each.
    pub(crate) held_by: u8,
    pub(crate) fate: Fate,
    /// For how long it wants to wait, has waited at nodes, and since when it waits at one.
    pub(crate) timeout: Micros,
    pub(crate) waited: Micros,
    pub(crate) blocked_at: Micros,
    /// What it has taken from the list.
    pub(crate) element: Option<Id>,
    /// Whether its reply came to a worker that keeps replies back. One that came before may be
    /// heard later, behind others; it was acknowledged before the hold all the same.
    pub(crate) gated: bool,
}

impl Command {
    pub(crate) fn writes(&self) -> bool {
        matches!(self.verb, Verb::Set | Verb::Push | Verb::Pop)
    }
}

/// A broken promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// A reply is not that of the request whose turn it is.
    Reply,
    /// A client was told something of a command that is not true.
    Truth,
    /// A write was executed twice, or sent again although it may have been executed.
    Twice,
    /// Writes of a client were executed in another order than sent.
    Order,
    /// A client was closed without a reason.
    Closed,
    /// Something was sent to a master that was left, or after `Quiet`.
    Left,
    /// Something was sent to the master although too few Sentinels are heard (`strict-quorum`).
    Minority,
    /// A write was sent to a replica.
    Astray,
    /// A snapshot with an older epoch, or another number than the next.
    Snapshot,
    /// A master in a snapshot that has not said it is one.
    Unproven,
    /// A command that was not sent was not answered by its deadline.
    Deadline,
    /// The trouble is over, and commands still fail.
    Progress,
    /// A client noticed what it must not notice.
    Needless,
    /// Something was not answered at all.
    Silence,
    /// A write acknowledged during a hold is not in the history that goes on.
    Gate,
    /// A command waited for a shorter or a longer time than it asked for.
    Wait,
    /// A planned failover that is said to have lost nothing has lost something.
    Planned,
    /// Switchman itself panicked.
    Panic,
}

/// The first violation, in words.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) words: String,
}

/// What is counted over many worlds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) commands: u64,
    pub(crate) done: u64,
    pub(crate) uncertain: u64,
    pub(crate) refused: u64,
    /// Holds begun.
    pub(crate) holds: u64,
    /// Masters left for others.
    pub(crate) switches: u64,
    /// Acknowledged writes that are not in the last master's history.
    pub(crate) lost: u64,
    /// Planned failovers that ended with another master.
    pub(crate) planned: u64,
    /// Worlds that used the escape from the epoch fence.
    pub(crate) regressions: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.commands += other.commands;
        self.done += other.done;
        self.uncertain += other.uncertain;
        self.refused += other.refused;
        self.holds += other.holds;
        self.switches += other.switches;
        self.lost += other.lost;
        self.planned += other.planned;
        self.regressions += other.regressions;
    }
}

/// Everything that is known of a world.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) commands: Vec<Command>,
    pub(crate) violation: Option<Violation>,
    pub(crate) counts: Counts,
    /// Writes acknowledged by a master that was being left: the command, and that master.
    pub(crate) suspects: Vec<(Id, usize)>,
    /// Whether no client may notice anything.
    pub(crate) harmless: bool,
}

impl Book {
    /// Takes note of a broken promise; only the first one counts.
    pub(crate) fn broke(&mut self, broken: Broken, words: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(Violation {
                broken,
                words: words(),
            });
        }
    }

    /// All of a command was handed to a connection.
    ///
    /// What is only queued may be sent again: a transaction whose EXEC was not sent is begun anew.
    /// That it is executed once is seen where it is executed.
    pub(crate) fn wired(&mut self, id: Id) {
        let command = &mut self.commands[id];
        let again = command.writes() && command.wired && !command.disowned && !command.inside;
        command.wired = true;
        command.disowned = false;
        if again {
            self.broke(Broken::Twice, || format!("write {id} was sent twice"));
        }
    }

    /// A node has executed a command.
    pub(crate) fn executed(&mut self, id: Id, node: usize) {
        let command = &mut self.commands[id];
        command.times += 1;
        command.node = node;
        command.held_by |= 1 << node;
        if command.writes() && command.times > 1 {
            self.broke(Broken::Twice, || format!("write {id} was executed twice"));
        }
    }

    /// A client was told something.
    pub(crate) fn told(&mut self, id: Id, fate: Fate) {
        let command = &mut self.commands[id];
        command.fate = fate;
        let command = *command;
        let (times, writes) = (command.times, command.writes());
        let lie = match fate {
            Fate::Done => times == 0 && !matches!(command.verb, Verb::Multi | Verb::Exec),
            Fate::Nil | Fate::Refused => writes && times > 0,
            Fate::Uncertain => command.verb == Verb::Get && !command.inside,
            // A transaction may be over when its beginning is heard of.
            Fate::Open | Fate::Queued | Fate::Unheard => false,
        };
        // A transaction that is not closed when its master is left is lost: README.md says so.
        let plain = matches!(command.verb, Verb::Set | Verb::Get | Verb::Push);
        let plain = plain && !command.inside;
        if self.harmless && plain && matches!(fate, Fate::Refused | Fate::Uncertain) {
            self.broke(Broken::Needless, || {
                format!("command {id} was told {fate:?}")
            });
        }
        if lie {
            self.broke(Broken::Truth, || {
                format!("command {id}, executed {times} times, was told {fate:?}")
            });
        }
    }

    /// A write was acknowledged by `old` while it was being left, and `new` is the next master.
    pub(crate) fn past_the_fork(&mut self, id: Id, old: usize, new: usize) {
        let command = self.commands[id];
        if command.gated && command.held_by & (1 << new) == 0 {
            self.broke(Broken::Gate, || {
                format!(
                    "write {id}, acknowledged by node {old} while it was being left, is unknown \
                     to node {new}"
                )
            });
        }
    }

    /// The end of the world: what was said is still true, and every node kept the order.
    pub(crate) fn close(&mut self, histories: &[Vec<Id>], survivors: &[Id]) {
        for id in 0..self.commands.len() {
            self.close_command(id);
        }
        for history in histories {
            self.check_order(history);
        }
        let mut survives = vec![false; self.commands.len()];
        for id in survivors {
            survives[*id] = true;
        }
        let acknowledged = |command: &Command| command.writes() && command.fate == Fate::Done;
        let fates = self.commands.iter().zip(survives);
        let lost = fates.filter(|(command, survives)| acknowledged(command) && !survives);
        let lost = u64::try_from(lost.count()).unwrap_or(u64::MAX);
        self.counts.lost += lost;
    }

    fn close_command(&mut self, id: Id) {
        let command = self.commands[id];
        self.counts.commands += 1;
        match command.fate {
            Fate::Done => self.counts.done += 1,
            Fate::Uncertain => self.counts.uncertain += 1,
            Fate::Refused | Fate::Queued | Fate::Nil => {
                self.counts.refused += u64::from(command.fate == Fate::Refused);
                if command.writes() && command.times > 0 {
                    self.broke(Broken::Truth, || {
                        format!("write {id}, which was {:?}, was executed", command.fate)
                    });
                }
            }
            Fate::Open => self.broke(Broken::Silence, || format!("no answer to {id}")),
            Fate::Unheard => {}
        }
    }

    /// What one node executed of each client came in the order of sending, but for writes of which
    /// nothing is known: they may come late.
    fn check_order(&mut self, history: &[Id]) {
        let mut latest = vec![None; self.commands.len()];
        for id in history {
            let command = self.commands[*id];
            if command.fate != Fate::Done {
                continue;
            }
            let before = latest[command.client].replace(*id);
            if before.is_some_and(|before| before > *id) {
                self.broke(Broken::Order, || {
                    format!("write {id} came after {before:?}")
                });
            }
        }
    }
}
