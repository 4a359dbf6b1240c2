//! What a world is made of and what befalls it: drawn from a seed, made smaller by leaving out.

use std::fmt;

/// Microseconds since the beginning of a world.
pub(crate) type Micros = u64;

/// Milliseconds in microseconds.
pub(crate) const fn ms(count: u64) -> Micros {
    count * 1_000
}

/// Seconds in microseconds.
pub(crate) const fn sec(count: u64) -> Micros {
    count * 1_000_000
}

/// The dice of one purpose: what one part of a world throws does not change what others throw, so
/// that a world from which something is left out stays much the same.
pub(crate) fn dice(seed: u64, purpose: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (purpose << 32 | 0xA5))
}

/// A whole world before it begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    pub(crate) sentinels: usize,
    /// How many of the Sentinels are configured; the others are learned from them.
    pub(crate) seeds: usize,
    pub(crate) workers: usize,
    pub(crate) clients: Vec<Habit>,
    /// Clients that subscribe.
    pub(crate) listeners: usize,
    pub(crate) pace: Pace,
    pub(crate) faults: Vec<Fault>,
}

/// What one client does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    /// Longest pause between two batches.
    pub(crate) pause: Micros,
    /// Most commands of a batch.
    pub(crate) batch: usize,
    /// Writes in ten commands.
    pub(crate) writes: u32,
}

/// The times of a world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Longest way of a message in one direction.
    pub(crate) way: Micros,
    /// Longest delay of the replication stream.
    pub(crate) lag: Micros,
    pub(crate) down_after: Micros,
    pub(crate) failover_timeout: Micros,
    /// Sentinel's own periods are divided by this.
    pub(crate) hurry: u64,
    /// `None`: as Switchman chooses.
    pub(crate) hold: Option<Micros>,
    pub(crate) reply_timeout: Micros,
    /// `strict-quorum`.
    pub(crate) strict: Option<Micros>,
    /// Whether Sentinels say some things twice.
    pub(crate) echoes: bool,
}

/// Something that goes wrong, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) at: Micros,
    pub(crate) lasts: Micros,
    pub(crate) kind: Kind,
}

/// A node by its place when the fault comes: 0 is the master that Switchman uses.
pub(crate) type Who = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The process dies, and is started again.
    Kill(Who),
    /// The process stops, its sockets stay.
    Freeze(Who),
    /// Switchman and the node do not reach each other.
    CutOff(Who),
    /// The Sentinels do not reach the node.
    Shunned(Who),
    /// The other nodes do not reach the node.
    Unlinked(Who),
    /// The node closes all connections.
    Dismiss(Who),
    /// The node's replication is slow.
    Lag(Who),
    /// An operator makes it a master behind the Sentinels' backs.
    Rogue(Who),
    /// An operator makes the first a replica of the second.
    Demote(Who, Who),
    /// `SENTINEL FAILOVER`.
    Command(usize),
    /// The Sentinel dies, and is started again with its memory.
    Down(usize),
    /// All but the first one die.
    DownMost,
    /// It dies, and is started again without its memory.
    Wipe(usize),
    /// All of them at once.
    WipeAll,
    /// `SENTINEL RESET`.
    Reset(usize),
    /// Switchman does not reach the Sentinel.
    Unseen(usize),
    /// The other Sentinels do not reach it.
    Alone(usize),
    /// It does not reach the node.
    Blind(usize, Who),
    /// It answers what it knew when this began.
    Stale(usize),
    /// Its events are lost, and the subscription with them after a while.
    Deaf(usize),
    /// It does not act.
    Tilt(usize),
    /// One connection of Switchman breaks.
    Snap(u64),
    /// Every third of them.
    Shake(u64),
    /// It takes over epochs and not the addresses that belong to them: it cannot resolve them.
    Stubborn(usize),
    /// A client leaves and another one comes.
    HangUp(usize),
    /// A worker's thread does not run.
    Stall(usize),
    /// Writes are held by command, and let go.
    Hold,
    /// `switchman switchover`.
    Switchover,
}

/// Longest pause of a worker.
pub(crate) const STALL_MAX: Micros = ms(350);

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = dice(seed, 0);
        let sentinels = if dice.u32(..5) == 0 { 5 } else { 3 };
        let nodes = *dice.choice(&[2, 3, 3, 3, 4]).expect("not empty");
        let workers = if dice.u32(..4) == 0 { 2 } else { 1 };
        let clients = (0..dice.usize(1..=4)).map(|_| Habit::new(&mut dice));
        let clients: Vec<_> = clients.collect();
        let pace = Pace::new(&mut dice);
        let count = *dice.choice(&[1, 1, 2, 2, 3, 4, 6]).expect("not empty");
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..count {
            let mut fault = Fault::new(&mut dice, &pace, (nodes, sentinels, clients.len()));
            // Trouble that meets other trouble is the worst.
            if let Some(before) = faults.last()
                && dice.u32(..3) > 0
            {
                let end = if dice.u32(..3) == 0 { before.lasts } else { 0 };
                fault.at = before.at + end + dice.u64(..ms(500));
            }
            faults.push(fault);
        }
        faults.sort_by_key(|fault| fault.at);
        // There is little to see before the first one, and much between them.
        let early = faults.first().map_or(0, |fault| fault.at);
        let late = early - early.min(dice.u64(..ms(1_500)));
        for fault in &mut faults {
            fault.at -= late;
        }
        Self {
            seed,
            nodes,
            sentinels,
            seeds: dice.usize(1..=sentinels).max(dice.usize(1..=sentinels)),
            workers,
            clients,
            listeners: *dice.choice(&[0, 0, 1]).expect("not empty"),
            pace,
            faults,
        }
    }

    /// Whether clients must not notice at all: nothing happens but one thing, to one Sentinel, to a
    /// replica, or for a shorter time than the Sentinels and the clients' commands wait; or the
    /// master is replaced by command.
    pub(crate) fn is_harmless(&self) -> bool {
        let [fault] = self.faults.as_slice() else {
            return self.faults.is_empty();
        };
        let patience = self.pace.hold.unwrap_or(sec(10));
        match fault.kind {
            // It may be the only one that Switchman knows so far.
            Kind::Down(_) | Kind::Unseen(_) => fault.at > ms(500),
            Kind::DownMost => fault.at > ms(500) && self.pace.strict.is_none(),
            Kind::Wipe(_)
            | Kind::WipeAll
            | Kind::Reset(_)
            | Kind::Alone(_)
            | Kind::Blind(..)
            | Kind::Stale(_)
            | Kind::Deaf(_)
            | Kind::Tilt(_)
            | Kind::Stubborn(_)
            | Kind::HangUp(_)
            | Kind::Lag(_)
            | Kind::Unlinked(_) => true,
            Kind::Stall(_) | Kind::Hold => fault.lasts + ms(500) < patience,
            Kind::Command(_) | Kind::Switchover => sec(3) < patience,
            // Until the master has proven itself again, by an answer that may time out once.
            Kind::Freeze(0) | Kind::CutOff(0) => {
                let unseen = fault.lasts + ms(150) < self.pace.down_after;
                unseen && fault.lasts + sec(1) < patience.min(self.pace.reply_timeout)
            }
            Kind::Kill(who)
            | Kind::Freeze(who)
            | Kind::CutOff(who)
            | Kind::Shunned(who)
            | Kind::Dismiss(who) => who != 0,
            Kind::Rogue(_) | Kind::Demote(..) | Kind::Snap(_) | Kind::Shake(_) => false,
        }
    }

    /// When the last fault is over.
    pub(crate) fn calm_at(&self) -> Micros {
        let ends = self.faults.iter().map(|fault| fault.at + fault.lasts);
        ends.max().unwrap_or(0) + ms(20)
    }

    /// Plans that are smaller by one thing each.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for at in 0..self.faults.len() {
            let mut less = self.clone();
            less.faults.remove(at);
            all.push(less);
        }
        for at in (0..self.clients.len())
            .rev()
            .filter(|_| self.clients.len() > 1)
        {
            let mut less = self.clone();
            less.clients.remove(at);
            all.push(less);
        }
        let mut push = |change: &dyn Fn(&mut Self) -> bool| {
            let mut less = self.clone();
            if change(&mut less) {
                all.push(less);
            }
        };
        push(&|less| std::mem::replace(&mut less.listeners, 0) > 0);
        push(&|less| std::mem::replace(&mut less.workers, 1) > 1);
        push(&|less| std::mem::replace(&mut less.pace.echoes, false));
        push(&|less| less.sentinels == 5 && less.fewer_sentinels());
        push(&|less| std::mem::replace(&mut less.nodes, 3) > 3);
        push(&|less| std::mem::replace(&mut less.seeds, less.sentinels) < less.sentinels);
        for at in 0..self.faults.len() {
            push(&|less| {
                let lasts = &mut less.faults[at].lasts;
                *lasts /= 2;
                *lasts > ms(1)
            });
        }
        for at in 0..self.clients.len() {
            push(&|less| std::mem::replace(&mut less.clients[at].batch, 1) > 1);
        }
        all
    }

    fn fewer_sentinels(&mut self) -> bool {
        self.sentinels = 3;
        self.seeds = 3;
        true
    }
}

impl Habit {
    fn new(dice: &mut fastrand::Rng) -> Self {
        Self {
            pause: *dice.choice(&[ms(50), ms(200), ms(500)]).expect("not empty"),
            batch: dice.usize(1..=3),
            writes: dice.u32(2..=9),
        }
    }
}

impl Pace {
    fn new(dice: &mut fastrand::Rng) -> Self {
        let mut pick = |choices: &[u64]| *dice.choice(choices).expect("not empty");
        Self {
            way: pick(&[200, 200, ms(1), ms(5), ms(20)]),
            lag: pick(&[300, ms(2), ms(40)]),
            down_after: pick(&[ms(300), ms(600), ms(1_000), ms(3_000)]),
            failover_timeout: pick(&[sec(2), sec(4)]),
            hurry: pick(&[1, 4, 4, 8, 8]),
            hold: match pick(&[0, 0, 0, 1, 2, 3]) {
                1 => Some(ms(300)),
                2 => Some(ms(1_000)),
                3 => Some(ms(3_000)),
                _ => None,
            },
            reply_timeout: pick(&[sec(2), sec(60)]),
            strict: match pick(&[0, 0, 0, 0, 1, 2]) {
                1 => Some(ms(500)),
                2 => Some(sec(3)),
                _ => None,
            },
            echoes: pick(&[0, 1]) == 1,
        }
    }
}

impl Fault {
    fn new(dice: &mut fastrand::Rng, pace: &Pace, counts: (usize, usize, usize)) -> Self {
        let (nodes, sentinels, clients) = counts;
        // The master is what most faults should be about.
        let who = if dice.u32(..5) < 3 {
            0
        } else {
            dice.usize(..nodes)
        };
        let other = dice.usize(..nodes);
        let sentinel = dice.usize(..sentinels);
        let pick = dice.u64(..1_000);
        let kind = match dice.u32(..52) {
            0..7 => Kind::Kill(who),
            7..12 => Kind::Freeze(who),
            12..14 => Kind::CutOff(who),
            14..16 => Kind::Shunned(who),
            16 => Kind::Unlinked(who),
            17 => Kind::Dismiss(who),
            18 => Kind::Lag(who),
            19 => Kind::Rogue(other),
            20 => Kind::Demote(who, other),
            21..29 => Kind::Command(sentinel),
            29 | 30 => Kind::Down(sentinel),
            31 | 32 => Kind::Wipe(sentinel),
            33 if pick < 300 => Kind::WipeAll,
            34 if pick < 400 => Kind::DownMost,
            33 | 34 => Kind::Reset(sentinel),
            35 => Kind::Unseen(sentinel),
            36 => Kind::Alone(sentinel),
            37 | 38 => Kind::Blind(sentinel, who),
            39 => Kind::Stale(sentinel),
            40 => Kind::Deaf(sentinel),
            41 => Kind::Tilt(sentinel),
            42 => Kind::Shake(pick),
            43 => Kind::HangUp(dice.usize(..clients)),
            44 => Kind::Stubborn(sentinel),
            45 | 46 => Kind::Stall(dice.usize(..2)),
            47 => Kind::Hold,
            48 | 49 => Kind::Switchover,
            _ => Kind::Snap(pick),
        };
        let lasts = match dice.u32(..4) {
            0 => dice.u64(ms(1)..ms(300)),
            1 => pace.down_after + dice.u64(..ms(300)),
            2 => pace.down_after * 2 + dice.u64(..ms(1_000)),
            _ => dice.u64(ms(200)..ms(2_500)),
        };
        let lasts = match kind {
            // Less than a switch waits for a worker; more is `unquiet`.
            Kind::Stall(_) => lasts.min(STALL_MAX),
            _ => lasts,
        };
        Self {
            at: dice.u64(..ms(2_500)),
            lasts,
            kind,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "world {}: {} nodes, {} Sentinels ({} configured), {} workers, {} listeners",
            self.seed, self.nodes, self.sentinels, self.seeds, self.workers, self.listeners
        )?;
        writeln!(f, "  {:?}", self.pace)?;
        for habit in &self.clients {
            writeln!(f, "  {habit:?}")?;
        }
        for fault in &self.faults {
            let (at, lasts) = (fault.at / 1_000, fault.lasts / 1_000);
            writeln!(f, "  at {at} ms for {lasts} ms: {:?}", fault.kind)?;
        }
        Ok(())
    }
}
