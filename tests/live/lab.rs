//! What each test starts with: a deployment, a turn to run it, and the two doors into it.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::{Deployment, Plan};
use switchman::demo::process::{Process, wait_for};

use crate::proxy::{Launch, Proxy};
use crate::version::wait_for_words;

/// Time for anything that should happen at once, on a machine that is busy with other tests.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Time for Sentinels to find everything in good health. One that could not run for two seconds is
/// in tilt mode for thirty (Redis sentinel.c, `SENTINEL_TILT_PERIOD`), and says that nothing is.
pub(crate) const SEEN: Duration = Duration::from_secs(45);

/// A deployment with its turn: at most [`Turn::MAX`] exist at a time, for the sake of their timing.
#[derive(Debug)]
pub(crate) struct Lab {
    // Dropped before the turn is given back.
    deployment: Deployment,
    _turn: Turn,
}

impl Lab {
    pub(crate) fn start(plan: &Plan) -> Self {
        Self::start_in(Turn::take(), plan)
    }

    /// The same for a test that keeps the machine busy: no other deployment runs beside it.
    pub(crate) fn alone(plan: &Plan) -> Self {
        Self::start_in(Turn::take_all(), plan)
    }

    fn start_in(turn: Turn, plan: &Plan) -> Self {
        Self {
            deployment: Deployment::start(plan).unwrap(),
            _turn: turn,
        }
    }

    /// One master, one replica, one Sentinel: enough where nothing fails over.
    pub(crate) fn small() -> Self {
        Self::start(&Self::small_plan())
    }

    /// Nothing fails over here: a Sentinel that is kept from the processor must not change that.
    pub(crate) fn small_plan() -> Plan {
        Plan {
            sentinels: 1,
            quorum: 1,
            down_after: 12 * SOON,
            ..Plan::default()
        }
    }

    /// Switchman before this deployment, with nothing but the flags that a sidecar needs.
    pub(crate) fn proxy(&self) -> Proxy {
        Launch::before(&self.deployment).start()
    }

    /// Runs `conversation` with Redis itself, which proves the conversation, and then with
    /// Switchman, which proves Switchman. Both start with empty databases.
    ///
    /// All reads go to the master: a conversation that reads what it wrote a moment ago would be
    /// surprised by a replica.
    pub(crate) fn both(&self, conversation: impl Fn(&Door)) {
        let mut launch = Launch::before(self);
        launch.env("SWITCHMAN_CONSISTENCY", "master");
        self.both_through(&launch, conversation);
    }

    /// The same with a Switchman that the test describes.
    pub(crate) fn both_through(&self, launch: &Launch, conversation: impl Fn(&Door)) {
        let redis = Door {
            name: "redis",
            addr: self.node(0).addr(),
        };
        self.converse(&redis, &conversation);
        let proxy = launch.start();
        wait_for_words(&mut proxy.client());
        self.converse(
            &Door {
                name: "switchman",
                addr: proxy.addr(),
            },
            &conversation,
        );
    }

    fn converse(&self, door: &Door, conversation: &impl Fn(&Door)) {
        println!("conversation with {}", door.name);
        self.node(0).command(&["FLUSHALL"]).unwrap();
        self.wait_in_sync(self.node(0), self.nodes().len() - 1, SOON)
            .unwrap();
        conversation(door);
    }
}

impl Deref for Lab {
    type Target = Deployment;

    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

/// An address at which a Redis should be found: Redis itself, or Switchman.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) addr: SocketAddr,
}

impl Door {
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.addr, SOON).unwrap()
    }

    /// Replies to `script`, said line by line over one connection.
    pub(crate) fn replies(&self, script: &[&[&str]]) -> Vec<Reply> {
        let mut client = self.client();
        script
            .iter()
            .map(|line| client.command(line).unwrap())
            .collect()
    }
}

/// Says `args` and returns the reply; for clients that must not fail.
pub(crate) fn say(client: &mut Client, args: &[&str]) -> Reply {
    client
        .command(args)
        .unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// Says `args` and expects `+OK`.
pub(crate) fn ok(client: &mut Client, args: &[&str]) {
    assert_eq!(say(client, args), Reply::ok(), "{args:?}");
}

/// An error reply of this line.
pub(crate) fn error(line: &str) -> Reply {
    Reply::Error(line.to_owned())
}

/// The right to run a deployment now.
#[derive(Debug)]
struct Turn {
    /// How many others it keeps from running, and itself.
    share: usize,
}

/// How much of [`Turn::MAX`] is taken, and how many wait for all of it.
#[derive(Debug, Default)]
struct Turns {
    taken: usize,
    all_wanted: usize,
}

impl Turn {
    /// Deployments at a time; a third one on two cores would starve somebody's Sentinel.
    const MAX: usize = 2;

    fn take() -> Self {
        let full = |turns: &mut Turns| turns.taken == Self::MAX || turns.all_wanted > 0;
        let mut turns = CHANGED.wait_while(TURNS.lock().unwrap(), full).unwrap();
        turns.taken += 1;
        Self { share: 1 }
    }

    /// Whoever comes later waits, else this one would for ever.
    fn take_all() -> Self {
        let mut turns = TURNS.lock().unwrap();
        turns.all_wanted += 1;
        let mut turns = CHANGED.wait_while(turns, |it| it.taken > 0).unwrap();
        turns.all_wanted -= 1;
        turns.taken = Self::MAX;
        Self { share: Self::MAX }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURNS.lock().unwrap().taken -= self.share;
        CHANGED.notify_all();
    }
}

static TURNS: Mutex<Turns> = Mutex::new(Turns {
    taken: 0,
    all_wanted: 0,
});
static CHANGED: Condvar = Condvar::new();

/// Has a node save its data. It may be doing so for a replica already, and refuses it meanwhile.
pub(crate) fn save(process: &Process) {
    let saved = wait_for(SOON, || {
        let reply = process.command(&["SAVE"]).unwrap();
        (reply == Reply::ok()).then_some(())
    });
    assert!(saved.is_some(), "{}", process.log_tail(20));
}

/// Says a command to a node or a Sentinel, which must not refuse it.
pub(crate) fn tell(process: &Process, args: &[&str]) -> Reply {
    let reply = process.command(args).unwrap();
    assert_eq!(reply.error(), None, "{args:?}");
    reply
}
