//! Floor 6. The scenes of the story, in the order in which they are played.
//! Knows the actors; what each of them knows is theirs.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use crate::demo::client::Client;
use crate::demo::deployment::Deployment;
use crate::demo::deployment::Plan;
use crate::demo::process::Process;
use crate::demo::story::DemoError;
use crate::demo::story::DemoOptions;
use crate::demo::story::account::Account;
use crate::demo::story::account::Expectation;
use crate::demo::story::account::spoken;
use crate::demo::story::caller::Caller;
use crate::demo::story::caller::PACE;
use crate::demo::story::caller::REPLY_MAX;
use crate::demo::story::caller::Tally;
use crate::demo::story::interrupt::Interrupt;
use crate::demo::story::ledger::Act;
use crate::demo::story::ledger::Ledger;
use crate::demo::story::ledger::Outcome;
use crate::demo::story::proxy::Proxy;
use crate::demo::story::traffic::Traffic;
use crate::demo::story::traffic::calls_at;

/// `down-after-milliseconds` of the story's Sentinels.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// Sentinel's own rhythm, quickened: it looks at a node that came back after four greetings, of
/// two seconds each by default, and asks replicas for news every ten seconds.
const RHYTHM: [&str; 6] = [
    "SENTINEL",
    "DEBUG",
    "PUBLISH-PERIOD",
    "500",
    "INFO-PERIOD",
    "1000",
];
/// The longest wait for anything that Sentinels do.
const SENTINEL_MAX: Duration = Duration::from_secs(40);
/// From the Sentinels' agreement on a new master to the first write that it acknowledges.
const RESUME_MAX: Duration = Duration::from_millis(500);
/// Replies of the dead master that are still in the pipe come within this time; the next one
/// cannot come before [`DOWN_AFTER`].
const LAST_WORDS: Duration = Duration::from_millis(100);
/// A wait that is worth a word.
const NOTABLE: Duration = Duration::from_millis(200);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Everything that plays. Dropped in this order: Switchman first, so that a client that waits for
/// a reply hears of the end.
pub(super) struct Stage<'a, 'b> {
    proxy: Proxy,
    caller: Caller,
    deployment: Deployment,
    expectations: Vec<Expectation>,
    quiet: Duration,
    interrupt: &'a Interrupt,
    account: &'a mut Account<'b>,
}

impl<'a, 'b> Stage<'a, 'b> {
    /// Starts Redis, the Sentinels, Switchman and the client.
    pub(super) fn set(
        options: &DemoOptions,
        interrupt: &'a Interrupt,
        account: &'a mut Account<'b>,
    ) -> Result<Self, DemoError> {
        account.scene("Switchman: a failover, and a client that does not notice")?;
        account.tell("starting one Redis master, one replica and three Sentinels on loopback")?;
        let deployment = Deployment::start(&Plan {
            down_after: DOWN_AFTER,
            redis_server: options.redis_server.clone(),
            ..Plan::default()
        })?;
        for sentinel in deployment.sentinels() {
            sentinel.command(&RHYTHM)?;
        }
        let [master, replica] = [deployment.node(0).addr(), deployment.node(1).addr()];
        account.tell(&format!("master {master}, replica {replica}"))?;
        let sentinels = deployment.sentinel_addrs().replace(',', ", ");
        account.more(&format!("Sentinels {sentinels}"))?;
        let patience = DOWN_AFTER.as_secs();
        account.more(&format!(
            "To keep the show short they give a silent master up after {patience} s and look often;"
        ))?;
        account.more("deploy/compose.yaml has 5 s, and Sentinel's default is 30 s.")?;
        let program = match &options.switchman {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        let proxy = Proxy::start(&program, &deployment)?;
        let (listen, pid) = (proxy.listen(), proxy.pid());
        account.tell(&format!("Switchman serves {listen} (pid {pid})"))?;
        account.more(&format!("its status page: http://{}/", proxy.admin()))?;
        let caller = Caller::start(listen)?;
        let pace = spoken(PACE);
        account.tell(&format!(
            "a plain client connects: GET, SET, INCR and DEL on ten keys, one each {pace}"
        ))?;
        Ok(Self {
            proxy,
            caller,
            deployment,
            expectations: Vec::new(),
            quiet: options.quiet,
            interrupt,
            account,
        })
    }

    /// Scene 1: who serves what.
    pub(super) fn all_is_well(&mut self) -> Result<(), DemoError> {
        self.account.scene("1. All is well")?;
        let [master, replica] = [0, 1].map(|index| self.deployment.node(index).addr());
        let (seen, traffic) = self.quiet_scene(master)?;
        let writes = traffic.writes(master);
        let sent: u64 = seen
            .iter()
            .filter(|(act, _)| act.is_write())
            .map(|(_, n)| n)
            .sum();
        self.expect(
            "the master executes each write exactly once",
            format!("{sent} sent, {writes} executed"),
            writes == sent,
        );
        let [by_master, by_replica] = [master, replica].map(|node| traffic.calls(node, Act::Get));
        self.expect(
            "the replica serves reads",
            format!("{by_replica} there, {by_master} at the master"),
            by_replica > by_master,
        );
        Ok(())
    }

    /// Scene 2: the failover; returns the address of the new master.
    pub(super) fn the_master_dies(&mut self) -> Result<SocketAddr, DemoError> {
        self.account.scene("2. The master dies")?;
        let old = self.deployment.node(0).addr();
        let undisturbed = self.caller.take_longest();
        let pid = self.deployment.node(0).pid();
        self.account
            .tell(&format!("kill -9 {pid}: the master {old} is gone"))?;
        self.deployment.node(0).kill()?;
        let killed = Instant::now();
        self.caller.watch_writes(killed + LAST_WORDS);

        let (mut told, mut news) = (false, None);
        loop {
            self.pause(LOOK_EVERY)?;
            if news.is_none() {
                news = self.new_master(old)?;
            }
            if !told {
                told = self.tell_of_a_held_command()?;
            }
            if let (Some(news), Some(resumed)) = (news, self.caller.tally().resumed()) {
                return self.the_client_goes_on(undisturbed, [killed, resumed], news);
            }
            if killed.elapsed() > SENTINEL_MAX {
                let what = match news {
                    None => "the Sentinels to name a new master".to_owned(),
                    Some((_, master)) => format!("a write to be acknowledged by {master}"),
                };
                return Err(late(what, SENTINEL_MAX));
            }
        }
    }

    /// The master that all Sentinels name, if it is another one, and the time of this news.
    fn new_master(&mut self, old: SocketAddr) -> Result<Option<(Instant, SocketAddr)>, DemoError> {
        let master = self.deployment.master().map(Process::addr);
        let Some(master) = master.filter(|&master| master != old) else {
            return Ok(None);
        };
        let news = (Instant::now(), master);
        self.account
            .tell(&format!("the Sentinels name {master} the new master"))?;
        Ok(Some(news))
    }

    /// Says that a command waits, if one waits for long; whether it was said.
    fn tell_of_a_held_command(&mut self) -> Result<bool, DemoError> {
        let waiting = self.caller.tally().waiting;
        let Some((_, words)) = waiting.filter(|(since, _)| since.elapsed() > NOTABLE) else {
            return Ok(false);
        };
        self.account
            .tell(&format!("Switchman holds {words:?}; its client just waits"))?;
        Ok(true)
    }

    fn the_client_goes_on(
        &mut self,
        undisturbed: Duration,
        [killed, resumed]: [Instant; 2],
        (heard, master): (Instant, SocketAddr),
    ) -> Result<SocketAddr, DemoError> {
        let longest = spoken(self.caller.take_longest());
        let gap = spoken(resumed.saturating_duration_since(killed));
        self.account
            .tell("the client goes on, over the same connection")?;
        let undisturbed = spoken(undisturbed);
        self.account.more(&format!(
            "its longest wait: {longest} (before: {undisturbed})"
        ))?;
        self.account
            .more(&format!("no write went through for {gap}"))?;
        let after = resumed.saturating_duration_since(heard);
        self.expect(
            "writes go on as soon as there is a master",
            format!("{} after the Sentinels had agreed", spoken(after)),
            after <= RESUME_MAX,
        );
        let replica = self.deployment.node(1).addr();
        self.expect(
            "the replica is the new master",
            master.to_string(),
            master == replica,
        );
        Ok(master)
    }

    /// Scene 3: the old master starts, believes itself a master, and is put in its place.
    pub(super) fn the_old_master_returns(&mut self, new: SocketAddr) -> Result<(), DemoError> {
        self.account.scene("3. The old master comes back")?;
        let old = self.deployment.node(0).addr();
        self.account.tell(&format!(
            "starting {old} again; for now it believes to be a master"
        ))?;
        self.deployment.node(0).restart()?;
        let mut as_master = 0;
        self.wait_for(format!("{old} to become a replica"), |stage| {
            let node = stage.deployment.node(0);
            // Calls first: a node that is a master after them was one all the time.
            let calls = calls_at(node)?;
            if node.info("replication", "role")? == "master" {
                as_master = calls.values().sum();
            }
            (node.info("replication", "master_link_status")? == "up").then_some(())
        })?;
        self.account
            .tell(&format!("the Sentinels have made it a replica of {new}"))?;
        self.expect(
            "the returned master gets nothing while it believes to be one",
            format!("{as_master} commands"),
            as_master == 0,
        );
        self.wait_for(format!("{old} to serve reads"), |stage| {
            let calls = calls_at(stage.deployment.node(0))?;
            calls.get(&Act::Get).filter(|&&count| count > 0).map(drop)
        })?;
        self.account.tell("Switchman sends it reads again")?;
        let (_, traffic) = self.quiet_scene(new)?;
        let [by_old, by_new] = [old, new].map(|node| traffic.calls(node, Act::Get));
        self.expect(
            "the returned node serves reads",
            format!("{by_old} there, {by_new} at the new master"),
            by_old > by_new,
        );
        Ok(())
    }

    /// The end: what the client has seen altogether, and whether everything is where it belongs.
    pub(super) fn the_end(mut self, new: SocketAddr) -> Result<Vec<Expectation>, DemoError> {
        self.account.scene("Summary")?;
        self.caller.rest();
        let tally = self.caller.tally();
        self.summary(&tally)?;
        // Bound in this order, they are dropped in the reverse one: Switchman first.
        let Self {
            deployment,
            caller,
            proxy,
            mut expectations,
            ..
        } = self;
        expectations.extend(judge(&tally));
        let ledger = caller.stop().unwrap_or_else(Ledger::new);
        if let Some(master) = deployment.node_at(new) {
            deployment.wait_in_sync(master, 1, SENTINEL_MAX)?;
        }
        for (place, addr) in [
            ("through Switchman", proxy.listen()),
            ("at the new master", new),
        ] {
            let (right, all) = review(ledger.clone(), addr)?;
            expectations.push(Expectation {
                promise: "every key holds what was acknowledged last",
                seen: format!("{right} of {all} keys {place}"),
                held: right == all,
            });
        }
        let status = proxy.stop()?;
        expectations.push(Expectation {
            promise: "Switchman ends cleanly",
            seen: status.map_or_else(|| "still running".to_owned(), |status| status.to_string()),
            held: status.is_some_and(|status| status.success()),
        });
        Ok(expectations)
    }

    fn summary(&mut self, tally: &Tally) -> Result<(), DemoError> {
        let local = self.caller.local();
        let local = local.map_or_else(String::new, |addr| format!(" (from {addr})"));
        let (total, time) = (tally.total(), spoken(self.account.elapsed()));
        self.account.more(&format!(
            "{total} commands answered in {time}, one connection{local}"
        ))?;
        self.account.more(&format!(
            "{} reads were behind a write that had been acknowledged",
            tally.behind
        ))?;
        self.account.more("Switchman's own count:")?;
        for (name, metric) in [
            ("commands held", "switchman_held_requests_total"),
            ("reads sent again", "switchman_resent_requests_total"),
            ("writes uncertain", "switchman_uncertain_requests_total"),
            ("master switches", "switchman_topology_switches_total"),
        ] {
            if let Some(count) = self.proxy.metric(metric, "") {
                self.account
                    .more(&format!("  {name:<18} {count:>4}  {metric}"))?;
            }
        }
        Ok(())
    }

    /// Lets the client do its work for a while and tells who did what of it, exactly.
    fn quiet_scene(&mut self, master: SocketAddr) -> Result<(Vec<(Act, u64)>, Traffic), DemoError> {
        self.caller.rest();
        let before = (self.caller.tally(), Traffic::read(&self.deployment));
        self.caller.take_longest();
        self.caller.go_on();
        self.pause(self.quiet)?;
        self.caller.rest();
        let (tally, traffic) = (self.caller.tally(), Traffic::read(&self.deployment));
        self.caller.go_on();
        let traffic = traffic.since(&before.1);
        let count = |tally: &Tally, act| tally.answered.get(&act).copied().unwrap_or(0);
        let seen = Act::ALL.map(|act| (act, count(&tally, act) - count(&before.0, act)));
        let total: u64 = seen.iter().map(|(_, count)| count).sum();
        let longest = spoken(tally.longest);
        self.account.tell(&format!(
            "{total} commands answered, the longest wait was {longest}"
        ))?;
        for line in traffic.table(master) {
            self.account.more(&line)?;
        }
        Ok((seen.into(), traffic))
    }

    fn expect(&mut self, promise: &'static str, seen: String, held: bool) {
        self.expectations.push(Expectation {
            promise,
            seen,
            held,
        });
    }

    /// Looks until `look` finds something.
    fn wait_for(
        &self,
        what: String,
        mut look: impl FnMut(&Self) -> Option<()>,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + SENTINEL_MAX;
        while look(self).is_none() {
            self.pause(LOOK_EVERY)?;
            if Instant::now() >= deadline {
                return Err(late(what, SENTINEL_MAX));
            }
        }
        Ok(())
    }

    /// Lets time pass, unless somebody presses Ctrl-C.
    fn pause(&self, time: Duration) -> Result<(), DemoError> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            if self.interrupt.heard() {
                return Err(DemoError::Interrupted);
            }
            if let Some(error) = self.caller.tally().broken {
                return Err(DemoError::Broken(error));
            }
            thread::sleep(LOOK_EVERY.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}

/// What the client must and must not have seen.
fn judge(tally: &Tally) -> [Expectation; 4] {
    let complaint = tally.complaint.as_deref();
    let complaint = complaint.map_or_else(String::new, |words| format!(": {words}"));
    let expect = |promise, seen, held| Expectation {
        promise,
        seen,
        held,
    };
    [
        expect(
            "the client's connection survives",
            tally.broken.clone().unwrap_or_else(|| "open".to_owned()),
            tally.broken.is_none(),
        ),
        expect(
            "no command is refused",
            format!("{}{complaint}", tally.refused),
            tally.refused == 0,
        ),
        expect(
            "no reply contradicts an acknowledged write",
            format!("{}{complaint}", tally.wrong),
            tally.wrong == 0,
        ),
        expect(
            "at most the one command in flight at the kill is uncertain",
            tally.uncertain.to_string(),
            tally.uncertain <= 1,
        ),
    ]
}

/// Reads every key at `addr`: how many are as they must be, and how many there are.
fn review(mut ledger: Ledger, addr: SocketAddr) -> Result<(usize, usize), DemoError> {
    let mut client = Client::connect(addr, REPLY_MAX)?;
    let steps = Ledger::review();
    let mut right = 0;
    for step in &steps {
        let reply = client.command(&step.words())?;
        right += usize::from(ledger.judge(step, &reply) == Outcome::Right);
    }
    Ok((right, steps.len()))
}

fn late(what: String, after: Duration) -> DemoError {
    DemoError::Late { what, after }
}
