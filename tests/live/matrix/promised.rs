//! What is promised for a master that is left: by plan, by its death, by its silence.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::failover::{SWITCH_MAX, listen};
use crate::faults::{Fault, Fronted, NODES};
use crate::lab::Lab;
use crate::matrix::master::kill;
use crate::matrix::scene::{Figures, Scene};
use crate::proxy::{self, Launch, Proxy};

/// Time from Sentinel's news of a new master to the first acknowledgement there.
const RETURN_MAX: Duration = Duration::from_millis(200);

/// How late replication is where it lags.
const LAG: Duration = Duration::from_millis(500);

#[test]
fn a_planned_failover_loses_nothing() {
    let lab = Lab::start(&hasty());
    let proxy = lab.proxy();
    let figures = left("SENTINEL FAILOVER", &lab, &proxy, || {
        lab.failover().unwrap();
        Vec::new()
    });
    nothing_lost(&figures);
}

#[test]
fn a_switchover_loses_nothing() {
    let lab = Lab::start(&hasty());
    nothing_lost(&switchover("switchover", &lab));
}

#[test]
fn a_switchover_to_a_replica_that_lags_loses_nothing() {
    let lab = Fronted::start(hasty());
    let lag = Fault {
        delay_out: LAG,
        ..Fault::default()
    };
    lab.front(0).set(NODES, lag);
    nothing_lost(&switchover("switchover, replication 500 ms late", &lab));
}

#[test]
fn the_death_of_the_master_leaves_one_doubt_each() {
    let lab = Lab::start(&hasty());
    let proxy = lab.proxy();
    let figures = left("kill -9", &lab, &proxy, || vec![kill(lab.node(0))]);
    one_doubt_each(&figures);
}

#[test]
fn a_master_that_hangs_and_returns_leaves_one_doubt_each() {
    let lab = Lab::start(&hasty());
    let proxy = lab.proxy();
    let scene = Scene::new(&lab, &proxy);
    let watch = Watch::begin(&lab);
    let (story, (first, new, crash)) = scene.play(|| {
        lab.node(0).freeze().unwrap();
        let crash = Instant::now();
        let (first, new) = watch.end();
        scene.wait_for_progress();
        lab.node(0).thaw().unwrap();
        (first, new, crash)
    });
    let figures = story.judge("SIGSTOP, thawed after the switch", new, &[crash]);
    one_doubt_each(&figures);
    returned(story.first_acknowledgement_after(first));
}

#[test]
fn polling_alone_follows_a_planned_failover() {
    polling("SENTINEL FAILOVER, polling only", |lab| {
        let ordered = Instant::now();
        lab.failover().unwrap();
        // The old master goes on to be one until a Sentinel demotes it.
        let until = (0..=SWITCH_MAX.as_secs()).map(Duration::from_secs);
        until.map(|after| ordered + after).collect()
    });
}

#[test]
fn polling_alone_follows_the_death_of_the_master() {
    polling("kill -9, polling only", |lab| vec![kill(lab.node(0))]);
}

/// The Sentinels let Switchman ask, but not subscribe. How much is lost then is not promised.
fn polling(cell: &str, fault: impl FnOnce(&Lab) -> Vec<Instant>) {
    let may = "-@all +auth +role +info +ping +sentinel|get-master-addr-by-name +sentinel|master \
               +sentinel|replicas +sentinel|sentinels +sentinel|myid";
    let lab = Lab::start(&Plan {
        sentinel_config: vec![format!("user watch on >secret {may}")],
        ..hasty()
    });
    let login = "sentinel-username = \"watch\"\nsentinel-password = \"secret\"\n";
    let proxy = Launch::group(&lab, login).start();
    let figures = left(cell, &lab, &proxy, || fault(&lab));
    assert_eq!(figures.refused, 0, "{figures:#?}");
}

/// `switchman switchover` under load.
fn switchover(cell: &str, lab: &Lab) -> Figures {
    let token = lab.dir().join("token");
    fs::write(&token, "open sesame\n").unwrap();
    let token = token.to_str().unwrap().to_owned();
    let mut launch = Launch::before(lab);
    launch.env("SWITCHMAN_ADMIN_TOKEN_FILE", &token);
    let proxy = launch.start();
    left(cell, lab, &proxy, || {
        let admin = proxy.admin().to_string();
        let args = ["switchover", "--admin", &admin, "--token-file", &token];
        let (status, text) = proxy::run(&args);
        assert!(status.success(), "{text}");
        Vec::new()
    })
}

/// The master is left because of `act`. What was acknowledged in the second before a moment that it
/// returns may be lost.
fn left(cell: &str, lab: &Lab, proxy: &Proxy, act: impl FnOnce() -> Vec<Instant>) -> Figures {
    let scene = Scene::new(lab, proxy);
    let watch = Watch::begin(lab);
    let (story, (first, new, crashes)) = scene.play(|| {
        let crashes = act();
        let (first, new) = watch.end();
        (first, new, crashes)
    });
    let figures = story.judge(cell, new, &crashes);
    returned(story.first_acknowledgement_after(first));
    figures
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
            .recv_timeout(SWITCH_MAX)
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

fn returned(after: Duration) {
    println!("first acknowledgement after the news: Figures {{ {after:?} }}");
    assert!(after <= RETURN_MAX, "{after:?}");
}

fn nothing_lost(figures: &Figures) {
    let Figures {
        lost,
        uncertain,
        refused,
        ..
    } = figures;
    assert_eq!((*lost, *uncertain, *refused), (0, 0, 0), "{figures:#?}");
}

fn one_doubt_each(figures: &Figures) {
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    assert_eq!(figures.refused, 0, "{figures:#?}");
}

/// Sentinels as people run them who want a fast failover.
fn hasty() -> Plan {
    Plan {
        down_after: Duration::from_secs(1),
        ..Plan::default()
    }
}
