//! Two deployments that are alike, Switchman before one of them, and a clean slate on both.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::{Deployment, Plan};
use switchman::demo::process::{Process, wait_for};

use crate::differential::frame::Conn;
use crate::differential::plan::Spec;
use crate::differential::tables::crashes_by_flush;
use crate::lab::{Lab, SOON, say};
use crate::proxy::{Launch, Proxy};
use crate::routing::calls;
use crate::version::{debug_lines, is_before_7, loses_logins};

/// Says at which node it runs, and is served by a replica only where that has everything.
const PROBE: [&str; 3] = ["EVAL_RO", "return redis.call('INFO', 'replication')", "0"];

/// Time that replicas have to get everything before a sequence goes on without that.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// What every sequence begins with.
const CLEAN: &[&[&str]] = &[
    &["SWAPDB", "0", "0"],
    &["FLUSHALL"],
    &["SCRIPT", "FLUSH"],
    &["ACL", "LOG", "RESET"],
    &[
        "CONFIG",
        "SET",
        "hash-max-listpack-entries",
        "128",
        "set-max-intset-entries",
        "512",
    ],
];

/// Both servers, the bare one first.
pub(super) struct Scene {
    // Dropped in this order.
    proxy: Proxy,
    ours: Lab,
    theirs: Deployment,
    /// Connections by which sequences are prepared.
    doors: [Client; 2],
    /// A connection that only asks: one that configures is served by the master for a while.
    asks: Client,
    /// Connections to both masters themselves.
    masters: [Client; 2],
    pub(super) settled: Settled,
    /// Whether the bare server loses the reply to a failed login, unless that is the first of what
    /// is sent at once.
    pub(super) loses_logins: bool,
}

/// Pauses, and how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settled {
    pub(super) pauses: u64,
    pub(super) late: u64,
    asked_master: u64,
    asked_replica: u64,
}

impl Scene {
    pub(super) fn start() -> Self {
        let lines = [
            "slowlog-log-slower-than 60000000",
            "repl-ping-replica-period 3600",
        ];
        let plan = Plan {
            // Scripts may see what they are on, and nothing is slow by chance.
            node_config: [debug_lines(), lines.map(str::to_owned).to_vec()].concat(),
            ..Lab::small_plan()
        };
        let ours = Lab::alone(&plan);
        let theirs = Deployment::start(&plan).unwrap();
        let mut launch = Launch::before(&ours);
        launch
            .env("SWITCHMAN_CONSISTENCY", "own-writes")
            .env("SWITCHMAN_SETTLE_INTERVAL", "10ms");
        let proxy = launch.start();
        proxy.wait_ready();
        let connect = |addr| Client::connect(addr, 4 * SOON).unwrap();
        let mut doors = [connect(theirs.node(0).addr()), connect(proxy.addr())];
        // Until the master has told its commands, those of younger servers are known.
        let told = wait_for(SOON, || {
            let [theirs, ours] = doors.each_mut().map(|it| say(it, &["CLIENT", "SETINFO"]));
            (theirs == ours).then_some(())
        });
        assert!(told.is_some(), "the master's commands are not known");
        Self {
            asks: connect(proxy.addr()),
            doors,
            masters: [connect(theirs.node(0).addr()), connect(ours.node(0).addr())],
            loses_logins: loses_logins(theirs.node(0).addr()),
            proxy,
            ours,
            theirs,
            settled: Settled::default(),
        }
    }

    /// Where clients of both sides connect.
    pub(super) fn addrs(&self) -> [SocketAddr; 2] {
        [self.theirs.node(0).addr(), self.proxy.addr()]
    }

    /// The commands of the server; without what ends the connection, and replies that are under way
    /// with it, which old servers tell as if they were some.
    pub(super) fn known(&mut self) -> Vec<Spec> {
        let reply = say(&mut self.masters[0], &["COMMAND"]);
        let mut known: Vec<Spec> = reply
            .items()
            .iter()
            .flat_map(|it| {
                let subs = it.items().get(9).map(Reply::items).unwrap_or_default();
                [it].into_iter().chain(subs)
            })
            .filter_map(command)
            .filter(|it| !["post", "host:"].contains(&it.name.as_str()))
            .collect();
        known.sort_by(|a, b| a.name.cmp(&b.name));
        known
    }

    /// Takes back what sequences before this one have left, and waits until their clients are gone.
    pub(super) fn clean(&mut self) {
        for master in &mut self.masters {
            let gone = wait_for(SOON, || {
                let patterns = say(master, &["PUBSUB", "NUMPAT"]);
                let [all, shards] = ["CHANNELS", "SHARDCHANNELS"]
                    .map(|which| say(master, &["PUBSUB", which]).items().len());
                // Sentinels have one channel.
                (patterns == Reply::Int(0) && all <= 1 && shards == 0).then_some(())
            });
            assert!(gone.is_some(), "subscriptions stay behind");
        }
        for door in &mut self.doors {
            if crashes_by_flush() {
                let libraries = say(door, &["FUNCTION", "LIST"]);
                let names = libraries.items().iter().map(|it| it.field("library_name"));
                for name in names.filter_map(|name| name?.text()) {
                    say(door, &["FUNCTION", "DELETE", &name]);
                }
            } else {
                // An error where there are none.
                say(door, &["FUNCTION", "FLUSH"]);
            }
            let mut words: Vec<Vec<&str>> = CLEAN.iter().map(|it| it.to_vec()).collect();
            words.push(vec!["ACL", "USERS"]);
            let users = door.pipeline(&words).unwrap().pop().unwrap_or(Reply::Null);
            let names = users.items().iter().filter_map(Reply::text);
            for name in names.filter(|name| name != "default") {
                say(door, &["ACL", "DELUSER", &name]);
            }
        }
    }

    /// Waits until replicas have everything, and Switchman knows it.
    pub(super) fn settle(&mut self) {
        self.settled.pauses += 1;
        let deadline = Instant::now() + SETTLED_WITHIN;
        loop {
            if self.asks_replica() {
                self.settled.asked_replica += 1;
                return;
            }
            self.settled.asked_master += 1;
            if Instant::now() > deadline {
                self.settled.late += 1;
                return;
            }
        }
    }

    /// Has Switchman serve a read, and tells whether a replica did.
    fn asks_replica(&mut self) -> bool {
        if !is_before_7() {
            let reply = say(&mut self.asks, &PROBE);
            return reply.info("role").as_deref() == Some("slave");
        }
        // Nothing that such a replica may serve tells where it runs. This one, too, has to have
        // everything.
        let count = |it: &Self| calls(it.ours.node(1), "keys");
        let before = count(self);
        say(&mut self.asks, &["KEYS", "nobody"]);
        count(self) > before
    }

    /// Waits until a client is blocked at both masters, or has been answered.
    pub(super) fn wait_blocked(&mut self, conns: &[Conn; 2]) {
        for (master, conn) in self.masters.iter_mut().zip(conns) {
            let _or_it_does_not_block = wait_for(SOON, || {
                let info = say(master, &["INFO", "clients"]);
                let blocked = info.info("blocked_clients")? != "0";
                (blocked || conn.has_come()).then_some(())
            });
        }
    }

    /// Reads that replicas and the master have served for clients of Switchman, our own questions
    /// taken off.
    pub(super) fn reads(&self) -> (u64, u64) {
        let (_, page) = self.proxy.get("/metrics").unwrap();
        let count = |target: &str| -> u64 {
            let named = |line: &&str| {
                line.starts_with("switchman_requests_total{")
                    && line.contains("class=\"read\"")
                    && line.contains(&format!("target=\"{target}\""))
            };
            let values = page.lines().filter(named);
            values
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum()
        };
        (
            count("replica").saturating_sub(self.settled.asked_replica),
            count("master").saturating_sub(self.settled.asked_master),
        )
    }

    /// The version that both servers tell.
    pub(super) fn version(&mut self) -> String {
        let info = say(&mut self.masters[0], &["INFO", "server"]);
        info.info("redis_version").unwrap_or_default()
    }

    /// Nothing that a sequence does makes a node a replica or ends it.
    pub(super) fn is_whole(&self) -> bool {
        let up = |deployment: &Deployment| deployment.nodes().iter().all(Process::is_running);
        up(&self.ours) && up(&self.theirs)
    }
}

/// Commands that may wait and are not said to: before Redis 7.0 none is.
const BLOCKING: [&str; 7] = [
    "blmove",
    "blpop",
    "brpop",
    "brpoplpush",
    "bzpopmax",
    "bzpopmin",
    "wait",
];

/// One element of a `COMMAND` reply.
fn command(reply: &Reply) -> Option<Spec> {
    let [name, arity, flags, ..] = reply.items() else {
        return None;
    };
    let flags: Vec<String> = flags.items().iter().filter_map(Reply::text).collect();
    let name = name.text()?;
    Some(Spec {
        blocks: flags.iter().any(|it| it == "blocking") || BLOCKING.contains(&name.as_str()),
        arity: arity.int()?,
        name,
    })
}
