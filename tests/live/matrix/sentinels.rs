//! What may happen to the Sentinels.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, Reply};
use switchman::demo::deployment::Plan;
use switchman::demo::process::{Process, wait_for};

use crate::failover::listen_to_each;
use crate::faults::{Fault, Front, Fronted, SWITCHMAN, greet_every, reconfigure};
use crate::lab::tell;
use crate::lab::{Lab, SEEN, SOON};
use crate::matrix::figures::{timed, took};
use crate::matrix::master::{hasty, kill, patient, tokens, unhurried};
use crate::matrix::scene::{PATIENCE, PATIENT, Scene, let_last};
use crate::matrix::story::Loss;
use crate::proxy::{Launch, Proxy};
use crate::version::{lacks, source_line};

/// Long enough for Switchman to find out that a Sentinel is silent, which takes it 2 s.
const LASTING: Duration = Duration::from_millis(2_500);

/// How often a fault is repeated.
const TIMES: usize = 3;

/// What a stall may have beyond what the machine does to everybody anyway.
const STALL_MAX: Duration = Duration::from_millis(50);

/// Time from the next news to the first acknowledgement where the Sentinel that led is dead.
const LEADER_LOST_MAX: Duration = Duration::from_secs(2);

#[test]
fn the_leading_sentinel_may_die_during_a_failover() {
    lose_the_leader(
        "leading Sentinel killed during a failover",
        "+selected-slave",
        1,
    );
}

#[test]
fn the_leading_sentinel_may_die_right_after_the_promotion() {
    // Where the leader has greeted the others before it dies, clients go on at once. Where it has
    // not, the others promote the same node once more, and what Sentinel says to it cuts all its
    // connections.
    lose_the_leader(
        "leading Sentinel killed after promotion",
        "+promoted-slave",
        2,
    );
}

/// The master dies, and then the Sentinel that leads the failover, when it says `event`.
///
/// The others fail over anew after twice the failover timeout, and again so long after an election
/// in which each of the two has voted for itself.
fn lose_the_leader(fault: &str, event: &str, doubts: usize) {
    let lab = Lab::start(&Plan {
        failover_timeout: Duration::from_secs(2),
        ..hasty()
    });
    let proxy = patient(&lab);
    let scene = Scene::new(&lab, &proxy).patient(PATIENT);
    let news = listen_to_each(&lab);
    let (story, (death, leader, killed, new)) = scene.play(|| {
        let leader = first_to_say(event, &lab);
        let death = kill(lab.node(0));
        let leader = leader
            .recv_timeout(PATIENT)
            .expect("a Sentinel leads a failover");
        lab.sentinel(leader).kill().unwrap();
        let killed = Instant::now();
        let new = lab.wait_for_switch(lab.node(0), PATIENT).unwrap();
        (death, leader, killed, new)
    });
    let figures = story.judge(fault, new, &[Loss::Death(death)]);
    figures.expect_doubts(doubts);
    // What the leader said last may be read here after its death: it is no news of the others.
    let others = news.try_iter().filter(|(who, _)| *who != leader);
    let news: Vec<Instant> = others.map(|(_, at)| at).collect();
    // The others may have been faster than the kill.
    let next = news.iter().find(|it| **it > killed).or(news.last());
    let next = next.expect("another Sentinel tells of the new master");
    let after = story.first_acknowledgement_after(*next);
    timed("ack", after, (LEADER_LOST_MAX, LEADER_LOST_MAX));
    took("stall", figures.longest_silence);
}

/// Index of the Sentinel that is the first to publish `event`.
fn first_to_say(event: &str, lab: &Lab) -> mpsc::Receiver<usize> {
    let (said, first) = mpsc::channel();
    let subscribers = lab.subscribe(&[event]).unwrap();
    for (index, mut subscriber) in subscribers.into_iter().enumerate() {
        let said = said.clone();
        subscriber.wait_at_most(PATIENT).unwrap();
        thread::spawn(move || {
            if subscriber.receive().is_ok() {
                // Only the first one finds somebody who listens.
                let _nobody_listens = said.send(index);
            }
        });
    }
    first
}

#[test]
fn a_frozen_sentinel_is_not_noticed() {
    let lab = Lab::start(&unhurried());
    let proxy = lab.proxy();
    unnoticed("one Sentinel frozen", &lab, &proxy, || {
        lab.sentinel(0).freeze().unwrap();
        let_last(LASTING);
        lab.sentinel(0).thaw().unwrap();
    });
}

#[test]
fn a_killed_sentinel_is_not_noticed() {
    sentinels_killed("one Sentinel killed", 1);
}

#[test]
fn two_killed_sentinels_are_not_noticed() {
    sentinels_killed("two Sentinels killed", 2);
}

fn sentinels_killed(fault: &str, count: usize) {
    let lab = Lab::start(&unhurried());
    let proxy = lab.proxy();
    let killed = &lab.sentinels()[..count];
    unnoticed(fault, &lab, &proxy, || {
        for sentinel in killed {
            sentinel.kill().unwrap();
        }
        let_last(LASTING);
        for sentinel in killed {
            sentinel.restart().unwrap();
        }
        let_last(Duration::from_secs(1));
    });
}

#[test]
fn a_sentinel_behind_a_black_hole_is_not_noticed() {
    let lab = Lab::start(&unhurried());
    let front = Front::before(lab.sentinel(0).addr());
    let port = format!("sentinel announce-port {}", front.addr().port());
    reconfigure(lab.sentinel(0), &["sentinel announce-ip 127.0.0.1", &port]);
    let known = wait_for(PATIENCE, || {
        let all = [1, 2].map(|index| peers(&lab, index).contains(&front.addr().to_string()));
        all.iter().all(|known| *known).then_some(())
    });
    assert!(known.is_some(), "the others know it by its front");
    let config = format!(
        "[[group]]\nmaster-name = \"{}\"\nlisten = [\"127.0.0.1:0\"]\n\
         sentinels = [\"{}\", \"{}\"]\n",
        lab.master_name(),
        front.addr(),
        lab.sentinel(1).addr()
    );
    let proxy = Launch::with_config(&lab, &config).start();
    unnoticed("one Sentinel black-holed", &lab, &proxy, || {
        front.set(SWITCHMAN, Fault::black_hole());
        let_last(LASTING);
        front.heal(SWITCHMAN);
        front.reset(SWITCHMAN);
    });
}

/// Addresses of the other Sentinels that Sentinel `index` knows.
fn peers(lab: &Lab, index: usize) -> Vec<String> {
    let peers = tell(
        lab.sentinel(index),
        &["SENTINEL", "SENTINELS", lab.master_name()],
    );
    let text =
        |peer: &Reply, name: &str| peer.field(name).and_then(Reply::text).unwrap_or_default();
    let addr = |peer: &Reply| format!("{}:{}", text(peer, "ip"), text(peer, "port"));
    peers.items().iter().map(addr).collect()
}

#[test]
fn the_private_opinion_of_one_sentinel_stops_nothing() {
    let own: IpAddr = [127, 0, 0, 4].into();
    let lab = Fronted::start(Plan::default());
    reconfigure(lab.sentinel(2), &[&source_line(own)]);
    lab.wait_until_seen(1, SEEN).unwrap();
    let proxy = lab.proxy();
    unnoticed_beside(lab.front(0).addr(), "private +sdown", &lab, &proxy, || {
        lab.front(0).set(own, Fault::black_hole());
        let down = wait_for(SOON, || flags(&lab, 2).contains("s_down").then_some(()));
        assert!(down.is_some(), "Sentinel 2 takes the master for dead");
        let_last(Duration::from_secs(1));
        assert!(!flags(&lab, 2).contains("o_down"), "nobody agrees");
        lab.front(0).heal(own);
        lab.front(0).reset(own);
    });
}

/// What Sentinel `index` holds of the master.
fn flags(lab: &Lab, index: usize) -> String {
    let master = tell(
        lab.sentinel(index),
        &["SENTINEL", "MASTER", lab.master_name()],
    );
    master.field("flags").and_then(Reply::text).unwrap()
}

#[test]
fn a_reset_of_all_sentinels_costs_no_read() {
    let lab = Lab::start(&unhurried());
    let proxy = lab.proxy();
    unnoticed("SENTINEL RESET", &lab, &proxy, || {
        for sentinel in lab.sentinels() {
            assert_eq!(tell(sentinel, &["SENTINEL", "RESET", "*"]), Reply::Int(1));
        }
        let_last(Duration::from_secs(2));
    });
}

#[test]
fn a_replica_announced_by_a_name_that_does_not_resolve_stops_nothing() {
    let names = ["resolve-hostnames", "announce-hostnames"];
    let lab = Lab::start(&Plan {
        replicas: 2,
        sentinel_config: names.map(|it| format!("sentinel {it} yes")).to_vec(),
        ..unhurried()
    });
    let proxy = lab.proxy();
    let (stray, port) = (lab.node(2), lab.node(0).port().to_string());
    unnoticed("announced name does not resolve", &lab, &proxy, || {
        for name in ["nowhere.invalid", "127.0.0.1"] {
            tell(stray, &["CONFIG", "SET", "replica-announce-ip", name]);
            // It says its name only when it begins to replicate.
            tell(stray, &["REPLICAOF", "NO", "ONE"]);
            tell(stray, &["REPLICAOF", "127.0.0.1", &port]);
            lab.wait_for_replica(stray, lab.node(0), SOON).unwrap();
            let_last(LASTING);
        }
    });
}

#[test]
fn traffic_goes_on_while_all_sentinels_are_down() {
    let lab = Lab::start(&unhurried());
    let proxy = lab.proxy();
    unnoticed("all Sentinels down", &lab, &proxy, || {
        lab.sentinels().iter().for_each(|it| it.kill().unwrap());
        let_last(LASTING);
        lab.sentinels().iter().for_each(|it| it.restart().unwrap());
        let_last(Duration::from_secs(1));
    });
}

#[test]
fn a_sentinel_that_has_forgotten_everything_is_not_believed() {
    if lacks("way to have Sentinels greet each other less often") {
        return;
    }
    let lab = Lab::start(&Plan::default());
    let forgetful = lab.sentinel(2);
    let name = lab.master_name();
    let old = lab.node(0);
    let proxy = patient(&lab);
    let scene = Scene::new(&lab, &proxy).patient(PATIENT);
    let (story, (death, new)) = scene.play(|| {
        let death = kill(old);
        let new = lab.wait_for_switch(old, PATIENT).unwrap();
        scene.wait_for_progress();
        // Only a greeting of the others tells it better.
        forgetful.kill().unwrap();
        greet_every(&lab, Duration::from_secs(60));
        let monitor = format!("sentinel monitor {name} 127.0.0.1 {} 2", old.port());
        let config = format!("port {}\nbind 127.0.0.1\n{monitor}\n", forgetful.port());
        fs::write(forgetful.dir().join("sentinel.conf"), config).unwrap();
        old.restart().unwrap();
        forgetful.restart().unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let (role, stale) = (role(old), lab.master_according_to(forgetful));
            assert_eq!((role.as_str(), stale), ("master", Some(old.addr())));
            assert_eq!(
                tokens(old),
                Some(0),
                "a write reached the node of the stale Sentinel"
            );
            let_last(Duration::from_millis(50));
        }
        (death, new)
    });
    let wiped = "kill -9, then a Sentinel with a wiped configuration";
    let figures = story.judge(wiped, new, &[Loss::Death(death)]);
    figures.expect_doubts(1);
    took("stall", figures.longest_silence);
}

fn role(node: &Process) -> String {
    let role = tell(node, &["ROLE"]);
    role.items().first().and_then(Reply::text).unwrap()
}

/// `act` must not be felt: neither by an error, nor by a stall longer than [`STALL_MAX`] beyond
/// what the machine itself does. That is measured by a client that asks the master directly,
/// meanwhile; the stall that is printed is what is left of it.
///
/// The machine stalls everybody now and then, and Switchman at other moments than that client. What
/// `act` itself causes comes each time: it is done [`TIMES`] times, and the calmest of them counts.
fn unnoticed(fault: &str, lab: &Lab, proxy: &Proxy, act: impl Fn()) {
    unnoticed_beside(lab.node(0).addr(), fault, lab, proxy, act);
}

/// The same where the master is asked through the front at `door`, as Switchman does.
fn unnoticed_beside(door: SocketAddr, fault: &str, lab: &Lab, proxy: &Proxy, act: impl Fn()) {
    let scene = Scene::new(lab, proxy);
    let (story, windows) = scene.play(|| {
        let time = |_| {
            let began = Instant::now();
            let ((), noise) = noise_during(door, &act);
            (began..Instant::now(), noise)
        };
        (0..TIMES).map(time).collect::<Vec<_>>()
    });
    let figures = story.judge(fault, lab.node(0), &[]);
    let stalls = windows.iter().map(|(window, noise)| {
        let silence = story.longest_silence(window);
        (silence.max(story.longest_read(window)), *noise)
    });
    let stalls: Vec<(Duration, Duration)> = stalls.collect();
    println!("{fault}: longest stalls, with Switchman and without: {stalls:?}");
    let log = proxy.log().text();
    let holds = log.lines().filter(|line| line.contains("writes held"));
    holds.for_each(|line| println!("{fault}: {line}"));
    figures.expect_no_error();
    let felt = stalls
        .iter()
        .map(|(with, noise)| with.saturating_sub(*noise));
    timed(
        "stall",
        felt.min().unwrap_or_default(),
        (STALL_MAX, STALL_MAX),
    );
}

/// Asks at `door` each millisecond while `act` runs. Returns the longest time that it took.
fn noise_during<T>(door: SocketAddr, act: impl FnOnce() -> T) -> (T, Duration) {
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut client = Client::connect(door, SOON).unwrap();
            let mut longest = Duration::ZERO;
            let pace = Duration::from_millis(1);
            while stopped.recv_timeout(pace) == Err(mpsc::RecvTimeoutError::Timeout) {
                let asked = Instant::now();
                client.command(&["PING"]).unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        });
        let acted = act();
        drop(stop);
        (acted, listener.join().unwrap())
    })
}
