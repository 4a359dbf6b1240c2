//! What goes wrong, and how it goes right again.

use std::time::Duration;

use switchman::topology::Machine;

use crate::plan::{Kind, Who, sec};
use crate::world::World;

impl World {
    /// The node in this place: 0 is the master that Switchman uses.
    fn place(&self, who: Who) -> usize {
        let master = self.control.latest.master.as_ref();
        let master = master
            .and_then(|master| self.names.node(master))
            .unwrap_or(0);
        (master + who) % self.nodes.len()
    }

    pub(crate) fn strike(&mut self, fault: usize) {
        let kind = self.plan.faults[fault].kind;
        let who = match kind {
            Kind::Kill(who)
            | Kind::Freeze(who)
            | Kind::CutOff(who)
            | Kind::Shunned(who)
            | Kind::Unlinked(who)
            | Kind::Dismiss(who)
            | Kind::Lag(who)
            | Kind::Rogue(who)
            | Kind::Blind(_, who)
            | Kind::Demote(who, _) => self.place(who),
            _ => 0,
        };
        self.struck[fault] = who;
        note!(self, "FAULT {kind:?} strikes node {who}");
        match kind {
            Kind::Kill(_) => self.kill(who),
            Kind::Freeze(_) => self.freeze(who),
            Kind::CutOff(_) => self.nodes[who].cut_off = true,
            Kind::Shunned(_) => self.nodes[who].shunned = true,
            Kind::Unlinked(_) => self.nodes[who].unlinked = true,
            Kind::Dismiss(_) => self.dismiss(who, false),
            Kind::Lag(_) => self.nodes[who].lags = true,
            Kind::Rogue(_) => self.reign(who),
            Kind::Demote(_, to) => {
                let to = self.place(to);
                if to != who && self.nodes[who].is_up() && self.nodes[to].is_up() {
                    self.reign(to);
                    self.follow(who, Some(to));
                }
            }
            Kind::Stall(worker) if worker < self.workers.len() => {
                let until = self.now + self.plan.faults[fault].lasts;
                self.workers[worker].stalled = until;
            }
            Kind::Switchover => self.switch_over(),
            Kind::Hold => {
                let lasts = Duration::from_micros(self.plan.faults[fault].lasts);
                // Refused or not: what follows must hold.
                self.inform(|machine, now| {
                    let _ = machine.hold(now, now + lasts);
                });
            }
            other => self.strike_sentinels(other, who),
        }
    }

    fn strike_sentinels(&mut self, kind: Kind, who: usize) {
        match kind {
            Kind::Command(at) if !self.sentinels[at].tilt => self.begin_failover(at, true),
            Kind::DownMost => {
                for at in 1..self.sentinels.len() {
                    self.strike_sentinels(Kind::Down(at), who);
                }
            }
            Kind::Down(at) => {
                self.sentinels[at].up = false;
                self.sentinels[at].gone_since.get_or_insert(self.now);
                self.unsubscribe(at, 100);
            }
            Kind::Wipe(at) => {
                self.sentinels[at].wipe();
                self.unsubscribe(at, 100);
            }
            Kind::WipeAll => {
                for at in 0..self.sentinels.len() {
                    self.strike_sentinels(Kind::Wipe(at), who);
                }
            }
            Kind::Reset(at) => {
                self.sentinels[at].forget();
                let master = self.sentinels[at].master;
                let addr = self.names.nodes[master].clone();
                self.emit(at, "+reset-master", || {
                    format!(
                        "master {} {} {}",
                        crate::world::NAME,
                        addr.host(),
                        addr.port()
                    )
                });
            }
            Kind::Unseen(at) => {
                self.sentinels[at].unseen = true;
                self.sentinels[at].gone_since.get_or_insert(self.now);
                self.unsubscribe(at, sec(2));
            }
            Kind::Alone(at) => self.sentinels[at].alone = true,
            Kind::Blind(at, _) => self.sentinels[at].blind |= 1 << who,
            Kind::Stale(at) => self.sentinels[at].stale = Some(Box::new(self.view(at))),
            Kind::Deaf(at) => self.unsubscribe(at, sec(2)),
            Kind::Tilt(at) => {
                self.sentinels[at].tilt = true;
                self.emit(at, "+tilt", || "#tilt mode entered".to_owned());
            }
            Kind::Snap(pick) | Kind::Shake(pick) => self.strike_conns(kind, pick),
            Kind::Stubborn(at) => self.sentinels[at].stubborn = true,
            Kind::HangUp(at) if at < self.clients.len() => self.hang_up(at),
            _ => {}
        }
    }

    fn strike_conns(&mut self, kind: Kind, pick: u64) {
        let used = self.in_use();
        let pick = usize::try_from(pick).unwrap_or(0);
        if used.is_empty() {
            return;
        }
        if matches!(kind, Kind::Snap(_)) {
            return self.snap(used[pick % used.len()]);
        }
        for (at, conn) in used.into_iter().enumerate() {
            if (at + pick) % 3 == 0 {
                self.snap(conn);
            }
        }
    }

    pub(crate) fn heal(&mut self, fault: usize) {
        let who = self.struck[fault];
        let kind = self.plan.faults[fault].kind;
        note!(self, "healed: {kind:?}");
        match kind {
            Kind::Kill(_) => self.restart(who),
            Kind::Freeze(_) => self.thaw(who),
            Kind::CutOff(_) => {
                self.nodes[who].cut_off = false;
                self.go_on(who);
            }
            Kind::Shunned(_) => self.nodes[who].shunned = false,
            Kind::Unlinked(_) => {
                self.nodes[who].unlinked = false;
                self.go_on(who);
            }
            Kind::Lag(_) => self.nodes[who].lags = false,
            Kind::Down(at) => self.revive(at),
            Kind::DownMost => (1..self.sentinels.len()).for_each(|at| self.revive(at)),
            Kind::Unseen(at) => {
                self.sentinels[at].unseen = false;
                self.hear_again(at);
            }
            Kind::Alone(at) => self.sentinels[at].alone = false,
            Kind::Blind(at, _) => self.sentinels[at].blind &= !(1 << who),
            Kind::Stale(at) => self.sentinels[at].stale = None,
            Kind::Tilt(at) => {
                self.sentinels[at].tilt = false;
                self.emit(at, "-tilt", || "#tilt mode exited".to_owned());
            }
            Kind::Stubborn(at) => {
                self.sentinels[at].stubborn = false;
                self.sentinels[at].config_epoch = 0;
            }
            Kind::Hold => self.inform(Machine::let_go),
            _ => {}
        }
    }

    fn revive(&mut self, at: usize) {
        self.sentinels[at].up = true;
        self.hear_again(at);
    }

    fn hear_again(&mut self, at: usize) {
        let sentinel = &mut self.sentinels[at];
        if sentinel.up && !sentinel.unseen {
            sentinel.gone_since = None;
        }
    }
}
