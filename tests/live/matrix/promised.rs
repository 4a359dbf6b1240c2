//! What is promised for a master that is left: by plan, by its death, by its silence.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::failover::{SWITCH_MAX, listen};
use crate::faults::{Fault, Fronted, NODES};
use crate::lab::{Lab, SEEN};
use crate::matrix::figures::{timed, took};
use crate::matrix::master::{RETURN_MAX, hasty, kill, patient, tokens};
use crate::matrix::scene::{PATIENCE, PATIENT, Scene};
use crate::matrix::story::{Figures, Loss, Story};
use crate::proxy::{self, Launch, Proxy};

/// How long a planned failover may keep a client waiting, at the median and at worst: Sentinel
/// looks at the candidate once a second.
const STALL: (Duration, Duration) = (Duration::from_millis(1_300), Duration::from_millis(1_700));

/// How late replication is where it lags.
const LAG: Duration = Duration::from_millis(500);

#[test]
fn a_planned_failover_loses_nothing() {
    let lab = Lab::start(&hasty());
    let proxy = lab.proxy();
    planned("SENTINEL FAILOVER", &lab, &[&proxy]);
}

#[test]
fn a_planned_failover_loses_nothing_through_two_switchmans() {
    let lab = Lab::start(&hasty());
    let (one, other) = (lab.proxy(), lab.proxy());
    planned("SENTINEL FAILOVER, two Switchmans", &lab, &[&one, &other]);
}

#[test]
fn a_switchover_loses_nothing() {
    let lab = Lab::start(&hasty());
    switchover("switchman switchover", &lab, Duration::ZERO);
}

#[test]
fn a_switchover_to_a_replica_that_lags_loses_nothing() {
    let lab = Fronted::start(hasty());
    let lag = Fault {
        delay_out: LAG,
        ..Fault::default()
    };
    lab.front(0).set(NODES, lag);
    switchover("switchman switchover, replication 500 ms late", &lab, LAG);
}

#[test]
fn the_death_of_the_master_leaves_one_doubt_each() {
    let lab = Lab::start(&hasty());
    let proxy = patient(&lab);
    death("kill -9", &lab, &[&proxy]);
}

#[test]
fn the_death_of_the_master_leaves_one_doubt_each_through_two_switchmans() {
    let lab = Lab::start(&hasty());
    let (one, other) = (patient(&lab), patient(&lab));
    death("kill -9, two Switchmans", &lab, &[&one, &other]);
}

#[test]
fn a_master_that_hangs_and_returns_leaves_one_doubt_each() {
    let lab = Lab::start(&hasty());
    let proxy = patient(&lab);
    let old = lab.node(0);
    let freeze = || {
        old.freeze().unwrap();
        vec![Loss::Death(Instant::now())]
    };
    let (story, figures, news) = left(
        ("SIGSTOP, thawed after the switch", &lab, &[&proxy]),
        freeze,
        |scene| returns(scene, &lab, || old.thaw().unwrap()),
    );
    figures.expect_doubts(1);
    returned(&story, news);
    took("stall", figures.longest_silence);
}

#[test]
fn polling_alone_follows_a_planned_failover() {
    polling("SENTINEL FAILOVER, polling only", |lab| {
        let ordered = Instant::now();
        lab.failover().unwrap();
        // The old master goes on to be one until a Sentinel demotes it.
        vec![Loss::Untold(ordered..ordered + SWITCH_MAX)]
    });
}

#[test]
fn polling_alone_follows_the_death_of_the_master() {
    polling("kill -9, polling only", |lab| {
        vec![Loss::Death(kill(lab.node(0)))]
    });
}

/// `SENTINEL FAILOVER` before `proxies`: nothing is lost, nobody hears an error.
fn planned(fault: &str, lab: &Lab, proxies: &[&Proxy]) {
    let order = || {
        lab.failover().unwrap();
        Vec::new()
    };
    let (story, figures, news) = left((fault, lab, proxies), order, |scene| {
        scene.leaves_alone(lab.node(0));
    });
    figures.expect_no_error();
    returned(&story, news);
    timed("stall", figures.longest_silence, STALL);
}

/// `switchman switchover`, with replication `lag` late.
fn switchover(fault: &str, lab: &Lab, lag: Duration) {
    let token = lab.dir().join("token");
    fs::write(&token, "open sesame\n").unwrap();
    let token = token.to_str().unwrap().to_owned();
    let mut launch = Launch::before(lab);
    launch.env("SWITCHMAN_ADMIN_TOKEN_FILE", &token);
    let proxy = launch.start();
    let order = || {
        let admin = proxy.admin().to_string();
        let args = ["switchover", "--admin", &admin, "--token-file", &token];
        let (status, text) = proxy::run(&args);
        assert!(status.success(), "{text}");
        Vec::new()
    };
    // It makes a replica of the old master, which is read from as soon as it is healthy.
    let (story, figures, news) = left((fault, lab, &[&proxy]), order, |_| ());
    figures.expect_no_error();
    returned(&story, news);
    timed(
        "stall",
        figures.longest_silence,
        (STALL.0 + lag, STALL.1 + lag),
    );
}

/// The master dies, and returns when another one serves.
fn death(fault: &str, lab: &Lab, proxies: &[&Proxy]) {
    let old = lab.node(0);
    let (story, figures, news) = left(
        (fault, lab, proxies),
        || vec![Loss::Death(kill(old))],
        |scene| returns(scene, lab, || old.restart().unwrap()),
    );
    figures.expect_doubts(1);
    returned(&story, news);
    took("stall", figures.longest_silence);
}

/// The Sentinels let Switchman ask, but not subscribe. How much is lost then is not promised.
fn polling(fault: &str, act: impl FnOnce(&Lab) -> Vec<Loss>) {
    let may = "-@all +auth +role +info +ping +sentinel|get-master-addr-by-name +sentinel|master \
               +sentinel|replicas +sentinel|sentinels +sentinel|myid";
    let lab = Lab::start(&Plan {
        sentinel_config: vec![format!("user watch on >secret {may}")],
        ..hasty()
    });
    let login = "hold = \"30s\"\nsentinel-username = \"watch\"\nsentinel-password = \"secret\"\n";
    let proxy = Launch::group(&lab, login).start();
    let watched = (fault, &lab, &[&proxy][..]);
    let (story, figures, news) = left(watched, || act(&lab), |_| ());
    assert_eq!(figures.refused, 0, "{figures:#?}");
    took("ack", story.first_acknowledgement_after(news));
    took("stall", figures.longest_silence);
}

/// What a master is left before: a name for the fault, the deployment, and every Switchman.
type Watched<'a> = (&'a str, &'a Lab, &'a [&'a Proxy]);

/// The master is left because of `act`, which says what may be lost; `and_then` follows when all
/// clients use the new one. Returns also when the first Sentinel told of the new master.
fn left(
    (fault, lab, proxies): Watched<'_>,
    act: impl FnOnce() -> Vec<Loss>,
    and_then: impl FnOnce(&Scene<'_>),
) -> (Story, Figures, Instant) {
    let scene = Scene::spread(lab, proxies).patient(PATIENT);
    let watch = Watch::begin(lab);
    let (story, (first, new, losses)) = scene.play(|| {
        let losses = act();
        let (first, new) = watch.end();
        let before = tokens(new);
        let used = wait_for(PATIENCE, || (tokens(new) > before).then_some(()));
        assert!(used.is_some(), "nobody writes to the new master");
        and_then(&scene);
        (first, new, losses)
    });
    let figures = story.judge(fault, new, &losses);
    (story, figures, first)
}

/// The old master returns, by `act`, when every Sentinel has found the new one in good health, and
/// believes to be a master. Nobody may use it.
fn returns(scene: &Scene<'_>, lab: &Lab, act: impl FnOnce()) {
    lab.wait_until_seen(0, SEEN).unwrap();
    act();
    scene.leaves_alone(lab.node(0));
}

/// The master by the name that Sentinel has for it, and who tells of the next one.
struct Watch<'a> {
    lab: &'a Lab,
    old: Option<SocketAddr>,
    news: Receiver<Instant>,
}

impl<'a> Watch<'a> {
    fn begin(lab: &'a Lab) -> Self {
        Self {
            lab,
            old: lab.master_according_to(lab.sentinel(0)),
            news: listen(lab),
        }
    }

    /// When the first Sentinel told of a new master, and which one it is, once all name it: there
    /// is but one replica.
    fn end(&self) -> (Instant, &'a Process) {
        let first = self
            .news
            .recv_timeout(PATIENT)
            .expect("Sentinel announces a new master");
        let named = wait_for(SWITCH_MAX, || {
            let sentinels = self.lab.sentinels().iter();
            let mut named = sentinels.map(|it| self.lab.master_according_to(it));
            named
                .all(|addr| addr.is_some() && addr != self.old)
                .then_some(())
        });
        assert!(named.is_some(), "every Sentinel names a new master");
        (first, self.lab.node(1))
    }
}

fn returned(story: &Story, news: Instant) {
    let after = story.first_acknowledgement_after(news);
    timed("ack", after, (RETURN_MAX, RETURN_MAX));
}
