//! What may happen to the link between Switchman and the master while the Sentinels see nothing of
//! it.
//!
//! Everybody reaches the nodes through fronts (`faults::Fronted`), and only what comes from
//! Switchman's address has the fault.

use std::ops::Range;
use std::time::{Duration, Instant};

use switchman::demo::client::{Client, ClientError, Reply};
use switchman::demo::process::{Process, wait_for};

use crate::faults::{Fault, Fronted, SWITCHMAN};
use crate::hostile::metric;
use crate::lab::tell;
use crate::lab::{SOON, ok, say};
use crate::matrix::figures::{timed, took};
use crate::matrix::master::unhurried;
use crate::matrix::scene::{PACE, Scene, let_last};
use crate::matrix::story::{Figures, Story};
use crate::proxy::{Launch, Proxy};

const HOLD: Duration = Duration::from_secs(2);

/// Longest time that a read may take: the replica is well.
const READ_MAX: Duration = Duration::from_secs(1);

/// Lines of a group that gives up as fast as these tests want.
const IMPATIENT: &str = "hold = \"2s\"\n[upstream]\nreply-timeout = \"3s\"\n";

#[test]
fn a_cut_link_is_waited_for_as_long_as_the_hold_and_recovers_with_the_link() {
    let fault = "link to the master cut, hold 2 s";
    let (story, _, figures) = trouble(fault, IMPATIENT, |lab, proxy| {
        lab.front(0).set(SWITCHMAN, Fault::mute());
        wait_until_all_wait(lab, proxy);
        let cut_off = Fault {
            refuse: true,
            ..Fault::mute()
        };
        lab.front(0).set(SWITCHMAN, cut_off);
        lab.front(0).reset(SWITCHMAN);
        let_last(2 * HOLD);
        lab.front(0).heal(SWITCHMAN);
    });
    // Who came when the link was suspected already is held, and not in doubt. What was sent was
    // executed, and was answered with a count (before), or was in doubt.
    assert!(figures.uncertain >= 1, "nothing was in doubt: {figures:#?}");
    assert_eq!(
        (figures.uncertain_each, figures.uncertain_absent),
        (1, 0),
        "what was executed, and no more, is in doubt: {figures:#?}"
    );
    assert!(
        figures.refused >= 8,
        "the hold ends for everybody: {figures:#?}"
    );
    assert!(
        story.shortest_refusal() >= Some(HOLD * 9 / 10),
        "a command was refused before the hold had passed: {:?}",
        story.shortest_refusal()
    );
}

/// Waits until commands are in flight to a muted master, and it gets no more of them.
fn wait_until_all_wait(lab: &Fronted, proxy: &Proxy) {
    let gauge = format!(
        "switchman_upstream_in_flight_requests{{master_name=\"{}\",node=\"{}\"}}",
        lab.master_name(),
        lab.front(0).addr()
    );
    let executed = || tell(lab.node(0), &["LLEN", "tokens"]).int();
    let all = wait_for(SOON, || {
        let before = executed();
        let_last(50 * PACE);
        (executed() == before && metric(proxy, &gauge)? > 0).then_some(())
    });
    assert!(all.is_some(), "commands go on over a muted link");
}

#[test]
fn a_link_that_is_cut_for_less_than_the_hold_leaves_only_doubt() {
    let (_, _, figures) = trouble("link to the master cut for 2 s", "", |lab, _| {
        lab.front(0).set(SWITCHMAN, Fault::refuse());
        lab.front(0).reset(SWITCHMAN);
        let_last(HOLD);
        lab.front(0).heal(SWITCHMAN);
    });
    figures.expect_doubts(1);
}

#[test]
fn a_half_open_link_that_heals_in_time_costs_a_stall_and_no_error() {
    let (_, _, figures) = trouble("link to the master half-open for 2 s", "", |lab, _| {
        lab.front(0).set(SWITCHMAN, Fault::black_hole());
        let_last(HOLD);
        lab.front(0).heal(SWITCHMAN);
    });
    figures.expect_no_error();
}

#[test]
fn nothing_fails_on_a_half_open_link_before_the_hold_and_the_reply_timeout_end() {
    let (story, window, figures) = trouble(
        "link to the master half-open for 6 s, hold 2 s",
        IMPATIENT,
        |lab, _| {
            lab.front(0).set(SWITCHMAN, Fault::black_hole());
            let_last(3 * HOLD);
            lab.front(0).heal(SWITCHMAN);
            lab.front(0).reset(SWITCHMAN);
        },
    );
    assert!(figures.uncertain > 0, "{figures:#?}");
    assert!(figures.uncertain_each <= 1, "{figures:#?}");
    let before = window.start..window.start + HOLD * 9 / 10;
    assert!(
        !story.fails_in(&before),
        "a command failed before the hold had passed"
    );
}

#[test]
fn a_slow_link_is_only_slow() {
    let delay = Duration::from_millis(60);
    let (story, window, figures) = trouble("link to the master 60 ms slow", "", |lab, _| {
        lab.front(0).set(SWITCHMAN, Fault::slow(delay));
        let_last(Duration::from_secs(3));
        lab.front(0).heal(SWITCHMAN);
    });
    figures.expect_no_error();
    let longest = story.longest_silence(&window);
    assert!(longest >= 2 * delay, "{longest:?}");
    let most = Duration::from_secs(1);
    timed("silence", longest, (most, most));
}

#[test]
fn a_torn_reply_is_asked_for_again_or_ends_the_connection() {
    let lab = Fronted::start(unhurried());
    let proxy = Launch::group(&lab, "consistency = \"master\"\n").start();
    let mut client = proxy.client();
    let value = "v".repeat(100_000);
    ok(&mut client, &["SET", "large", &value]);
    for torn_after in [1, 4, 40_000, 99_999] {
        lab.front(0).set(SWITCHMAN, Fault::tear_after(torn_after));
        match client.command(&["GET", "large"]) {
            Ok(reply) => assert!(reply == Reply::bulk(&value), "torn after {torn_after}"),
            // A part of the reply was given out: it can neither be taken back nor be completed.
            Err(ClientError::Closed) if torn_after > 4 => client = proxy.client(),
            Err(error) => panic!("torn after {torn_after}: {error}"),
        }
    }
    lab.front(0).heal(SWITCHMAN);
}

#[test]
fn a_write_whose_reply_is_cut_off_is_in_doubt_and_applied_once() {
    cut_off_reply(&["INCR", "count"], |_| ());
}

#[test]
fn a_transaction_whose_reply_is_cut_off_is_in_doubt_and_applied_once() {
    cut_off_reply(&["EXEC"], |client| {
        ok(client, &["MULTI"]);
        let queued = Reply::Simple("QUEUED".to_owned());
        assert_eq!(say(client, &["INCR", "count"]), queued);
    });
}

/// Cuts the link five times, each time after the master has executed `write` and before its reply
/// arrives.
fn cut_off_reply(write: &[&str], prepare: impl Fn(&mut Client)) {
    let lab = Fronted::start(unhurried());
    let proxy = lab.proxy();
    let mut client = proxy.patient_client(4 * SOON);
    let count = || tell(lab.node(0), &["GET", "count"]).text();
    let mut cut = 0;
    for round in 1..=20 {
        ok(&mut client, &["SET", "ready", "v"]);
        prepare(&mut client);
        lab.front(0).set(SWITCHMAN, Fault::mute());
        client.send(write).unwrap();
        let applied = || (count()? == round.to_string()).then_some(());
        if wait_for(SOON / 5, applied).is_none() {
            // Its question who is master met the silence too, and the write is held.
            lab.front(0).heal(SWITCHMAN);
            assert_eq!(client.receive().unwrap().error(), None);
            assert_eq!(count(), Some(round.to_string()));
            continue;
        }
        lab.front(0).reset(SWITCHMAN);
        let reply = client.receive().unwrap();
        let line = reply.error().unwrap_or_default();
        assert!(line.starts_with("UNCERTAIN "), "{reply:?}");
        lab.front(0).heal(SWITCHMAN);
        // The other links were cut too, and Switchman hears of one after the other.
        let again = || say(&mut client, &["SET", "ready", "again"]) == Reply::ok();
        assert!(recovers(again), "the same connection goes on");
        assert_eq!(count(), Some(round.to_string()));
        cut += 1;
        if cut == 5 {
            return;
        }
    }
    panic!("the write was held in all rounds but {cut}");
}

fn recovers(mut again: impl FnMut() -> bool) -> bool {
    wait_for(SOON, || again().then_some(())).is_some()
}

/// Runs `act` under load. What must hold is: the Sentinels see nothing, reads go on, and nothing
/// acknowledged is lost.
fn trouble(
    fault: &str,
    lines: &str,
    act: impl Fn(&Fronted, &Proxy),
) -> (Story, Range<Instant>, Figures) {
    let lab = Fronted::start(unhurried());
    let proxy = Launch::group(&lab, lines).start();
    let (story, window) = Scene::new(&lab, &proxy).play(|| {
        let began = Instant::now();
        act(&lab, &proxy);
        began..Instant::now()
    });
    let figures = story.judge(fault, lab.node(0), &[]);
    let named = lab.sentinels().iter().map(|it| lab.master_according_to(it));
    assert!(named.into_iter().all(|it| it == Some(lab.front(0).addr())));
    assert!(lab.nodes().iter().all(Process::is_running));
    timed("read_stall", figures.longest_read, (READ_MAX, READ_MAX));
    took("stall", figures.longest_silence);
    (story, window, figures)
}
