//! Floor 1. A planned failover in invented time: the way forth, and the way back from every step.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::Switchover;
use crate::switchover::{
    Action, Answer, Failure, Fork, Group, Limits, Outcome, Picture, Question, Replication, Report,
    StepName,
};
use crate::types::{NodeAddr, Time};

const A: &str = "10.0.0.1:6379";
const B: &str = "10.0.0.2:6379";
const C: &str = "10.0.0.3:6379";
const S1: &str = "10.0.1.1:26379";
const S2: &str = "10.0.1.2:26379";
const ID: &str = "0123456789abcdef";
/// Where the master stands.
const END: u64 = 1_000;

fn addr(text: &str) -> NodeAddr {
    text.parse().unwrap()
}

fn at(ms: u64) -> Time {
    Time::from_start(Duration::from_millis(ms))
}

fn limits() -> Limits {
    Limits::new(Duration::from_secs(10), Some(Duration::from_secs(4)))
}

fn writable(master: &str) -> Group {
    Group::Writable(addr(master))
}

fn held(quiet: bool) -> Group {
    Group::Held {
        master: addr(A),
        quiet,
    }
}

fn picture(group: Group) -> Picture {
    Picture {
        group,
        candidates: BTreeSet::from([addr(B), addr(C)]),
        sentinels: vec![addr(S1), addr(S2)],
    }
}

fn master(offset: u64) -> Answer {
    Answer::Replication(Replication {
        is_master: true,
        id: ID.to_owned(),
        offset,
        ..Replication::default()
    })
}

fn replica(offset: u64) -> Answer {
    Answer::Replication(Replication {
        id: ID.to_owned(),
        offset,
        ..Replication::default()
    })
}

fn promoted(left_at: u64) -> Answer {
    Answer::Replication(Replication {
        is_master: true,
        id: "fedc".to_owned(),
        offset: END + 100,
        left: ID.to_owned(),
        left_at: Some(left_at),
    })
}

fn refused() -> Failure {
    Failure::Refused("NOPERM no".to_owned())
}

/// One switchover and what it has asked for.
struct Play {
    machine: Switchover,
    now: u64,
    asked: Vec<Question>,
    holds: u32,
    releases: u32,
}

impl Play {
    fn start(picture: Picture) -> Self {
        let mut play = Self {
            machine: Switchover::new(at(0), limits(), picture),
            now: 0,
            asked: Vec::new(),
            holds: 0,
            releases: 0,
        };
        play.perform();
        play
    }

    fn perform(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Hold { .. } => self.holds += 1,
                Action::Release => self.releases += 1,
                Action::Ask(question) => self.asked.push(question),
            }
        }
    }

    fn sees(&mut self, group: Group) {
        self.machine.handle_picture(at(self.now), picture(group));
        self.perform();
    }

    /// Lets time pass until `ms`, with every timer on the way.
    fn run(&mut self, ms: u64) {
        while let Some(due) = self.machine.poll_timeout().filter(|due| *due <= at(ms)) {
            self.machine.handle_timeout(due);
            self.perform();
            let next = self.machine.poll_timeout();
            assert!(next.is_none_or(|next| next > due), "the machine spins");
        }
        self.now = ms;
    }

    /// The one question that is open, taken out.
    #[track_caller]
    fn only(&mut self) -> Question {
        assert_eq!(self.asked.len(), 1, "{:?}", self.asked);
        self.asked.remove(0)
    }

    fn answer(&mut self, question: &Question, result: Result<Answer, Failure>) {
        self.machine.handle_answer(at(self.now), question, result);
        self.perform();
    }

    /// Answers the open question, which is the one of `step`.
    #[track_caller]
    fn reply(&mut self, step: StepName, result: Result<Answer, Failure>) {
        let question = self.only();
        assert_eq!(step_of(&question), step, "{question:?}");
        self.answer(&question, result);
    }

    /// Goes on, without a fault, until the questions of `step` are open.
    fn until(step: StepName) -> Self {
        let mut play = Self::start(picture(writable(A)));
        play.sees(held(false));
        if step == StepName::Hold {
            return play;
        }
        play.sees(held(true));
        if step == StepName::Pause {
            return play;
        }
        play.reply(StepName::Pause, Ok(Answer::Done));
        if step == StepName::Offset {
            return play;
        }
        play.reply(StepName::Offset, Ok(master(END)));
        if step == StepName::Replicas {
            return play;
        }
        for question in play.asked.split_off(0) {
            play.answer(&question, Ok(replica(END)));
        }
        if step == StepName::Failover {
            return play;
        }
        play.reply(StepName::Failover, Ok(Answer::Done));
        if step == StepName::Proof {
            return play;
        }
        play.now = 1_000;
        play.sees(writable(B));
        play
    }

    #[track_caller]
    fn report(&mut self) -> Report {
        self.machine.poll_report().expect("it has ended")
    }

    /// Checks that it is given up at `step`, and answers what it asks on its way back.
    #[track_caller]
    fn is_given_up_at(&mut self, step: StepName) -> String {
        let paused = step > StepName::Hold;
        if paused {
            let questions = self.asked.split_off(0);
            let last = questions.last().expect("it asks to unpause");
            assert_eq!(*last, Question::Unpause { node: addr(A) });
            self.answer(last, Ok(Answer::Done));
        }
        assert_eq!((self.holds, self.releases), (1, 1));
        assert!(
            self.machine.poll_report().is_none(),
            "writes are still held"
        );
        self.sees(writable(A));
        match self.report().outcome {
            Outcome::GaveUp {
                step: at,
                reason,
                state,
            } => {
                assert_eq!(at, step);
                assert!(state.starts_with("writes flow to 10.0.0.1:6379"), "{state}");
                reason
            }
            Outcome::Switched { .. } => panic!("it was not given up"),
        }
    }
}

fn step_of(question: &Question) -> StepName {
    match question {
        Question::Pause { .. } => StepName::Pause,
        Question::Unpause { .. } => StepName::Unpause,
        Question::Replication { node } if *node == addr(A) => StepName::Offset,
        Question::Replication { .. } => StepName::Replicas,
        Question::Failover { .. } => StepName::Failover,
        Question::Demote { .. } => StepName::Demote,
    }
}

#[test]
fn a_switchover_goes_from_hold_to_the_demoted_master() {
    let mut play = Play::until(StepName::Fork);
    let demote = Question::Demote {
        node: addr(A),
        to: addr(B),
    };
    let fork = Question::Replication { node: addr(B) };
    assert_eq!(play.asked, [demote.clone(), fork.clone()]);
    play.answer(&fork, Ok(promoted(END + 1)));
    assert!(play.machine.poll_report().is_none(), "A is still paused");
    play.answer(&demote, Ok(Answer::Done));
    let unpause = play.asked.pop().unwrap();
    assert_eq!(unpause, Question::Unpause { node: addr(A) });
    play.answer(&unpause, Ok(Answer::Done));
    let report = play.report();
    let names: Vec<StepName> = report.steps.iter().map(|step| step.name).collect();
    assert_eq!(
        names,
        [
            StepName::Check,
            StepName::Hold,
            StepName::Pause,
            StepName::Offset,
            StepName::Replicas,
            StepName::Failover,
            StepName::Proof,
            StepName::Fork,
            StepName::Demote,
            StepName::Unpause,
        ]
    );
    let (from, to, fork) = (addr(A), addr(B), Fork::Held);
    assert_eq!(report.outcome, Outcome::Switched { from, to, fork });
    assert_eq!((play.holds, play.releases), (1, 0));
    assert_eq!(play.machine.poll_timeout(), None);
    assert_eq!(play.machine.left_to_unpause(), None);
}

#[test]
fn a_history_that_begins_too_early_is_told() {
    for (left_at, want) in [(END + 1, Fork::Held), (END, Fork::Broken)] {
        let mut play = Play::until(StepName::Fork);
        for question in play.asked.split_off(0) {
            let answer = match &question {
                Question::Replication { .. } => promoted(left_at),
                _ => Answer::Done,
            };
            play.answer(&question, Ok(answer));
        }
        play.reply(StepName::Unpause, Ok(Answer::Done));
        let outcome = play.report().outcome;
        assert!(
            matches!(&outcome, Outcome::Switched { fork, .. } if *fork == want),
            "{outcome:?}"
        );
    }
}

#[test]
fn nothing_begins_without_a_master_a_replica_and_a_sentinel() {
    let mut without_replica = picture(writable(A));
    without_replica.candidates.clear();
    let mut without_sentinel = picture(writable(A));
    without_sentinel.sentinels.clear();
    let without_master = picture(Group::Unknown);
    for picture in [without_replica, without_sentinel, without_master] {
        let mut play = Play::start(picture);
        let outcome = play.report().outcome;
        let Outcome::GaveUp { step, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(step, StepName::Check);
        assert_eq!((play.holds, play.releases, play.asked.len()), (0, 0, 0));
    }
}

#[test]
fn workers_that_are_not_quiet_in_time_end_it_before_anybody_is_paused() {
    let mut play = Play::until(StepName::Hold);
    play.run(1_999);
    assert_eq!(play.releases, 0);
    play.run(2_000);
    assert_eq!(play.asked, []);
    assert!(play.is_given_up_at(StepName::Hold).contains("script"));
}

#[test]
fn a_refusal_at_any_step_leads_back() {
    for (step, words) in [
        (StepName::Pause, "CLIENT PAUSE: NOPERM no"),
        (StepName::Offset, "INFO replication: NOPERM no"),
        (StepName::Failover, "10.0.1.1:26379: NOPERM no"),
    ] {
        let mut play = Play::until(step);
        play.reply(step, Err(refused()));
        assert_eq!(play.is_given_up_at(step), words);
    }
}

#[test]
fn a_pause_that_is_not_answered_is_undone_all_the_same() {
    let mut play = Play::until(StepName::Pause);
    assert_eq!(
        play.machine.left_to_unpause(),
        Some(&addr(A)),
        "it may be, already"
    );
    play.run(1_000);
    play.is_given_up_at(StepName::Pause);
}

#[test]
fn a_replica_that_stays_behind_ends_it() {
    let mut play = Play::until(StepName::Replicas);
    let questions = play.asked.split_off(0);
    play.answer(&questions[0], Ok(replica(END)));
    play.answer(&questions[1], Ok(replica(END - 7)));
    assert_eq!(play.asked, [], "not at once again");
    play.run(10);
    assert_eq!(play.only(), questions[1], "nor the one that has everything");
    play.run(3_000);
    let reason = play.is_given_up_at(StepName::Replicas);
    assert_eq!(reason, "10.0.0.3:6379: 7 bytes behind");
}

#[test]
fn a_sentinel_that_cannot_be_reached_is_followed_by_the_next() {
    let mut play = Play::until(StepName::Failover);
    let unreached = || Err(Failure::NotSent("refused".to_owned()));
    play.reply(StepName::Failover, unreached());
    let second = Question::Failover { sentinel: addr(S2) };
    assert_eq!(play.asked, [second]);
    play.reply(StepName::Failover, unreached());
    let reason = play.is_given_up_at(StepName::Failover);
    assert_eq!(reason, "10.0.1.2:26379: refused");
}

#[test]
fn a_sentinel_that_may_have_begun_is_not_followed_by_another() {
    let mut play = Play::until(StepName::Failover);
    play.reply(StepName::Failover, Err(Failure::Unclear("lost".to_owned())));
    assert_eq!(play.asked, []);
    play.sees(writable(C));
    assert_eq!(step_of(&play.asked[0]), StepName::Demote);
}

#[test]
fn a_failover_that_comes_to_nothing_is_given_up_in_time_for_the_clients() {
    let mut play = Play::until(StepName::Proof);
    play.run(8_999);
    assert_eq!(play.asked, []);
    play.run(9_001);
    play.is_given_up_at(StepName::Proof);
}

#[test]
fn another_switch_in_between_ends_it() {
    let mut play = Play::until(StepName::Replicas);
    play.sees(writable(C));
    play.asked.drain(..2);
    play.reply(StepName::Unpause, Ok(Answer::Done));
    match play.report().outcome {
        Outcome::GaveUp { state, .. } => assert_eq!(state, "writes flow to 10.0.0.3:6379"),
        outcome @ Outcome::Switched { .. } => panic!("{outcome:?}"),
    }
}

#[test]
fn an_unpause_that_fails_is_tried_again_and_told_in_the_end() {
    let mut play = Play::until(StepName::Offset);
    play.reply(StepName::Offset, Err(refused()));
    play.sees(writable(A));
    for round in 1..=5 {
        play.reply(StepName::Unpause, Err(refused()));
        play.run(round * 100);
    }
    play.run(3_001);
    match play.report().outcome {
        Outcome::GaveUp { state, .. } => assert!(state.contains("CLIENT UNPAUSE"), "{state}"),
        outcome @ Outcome::Switched { .. } => panic!("{outcome:?}"),
    }
}

#[test]
fn a_master_that_cannot_be_demoted_is_unpaused_and_told_of() {
    let mut play = Play::until(StepName::Fork);
    let questions = play.asked.split_off(0);
    play.answer(&questions[0], Err(refused()));
    play.reply(StepName::Unpause, Ok(Answer::Done));
    play.answer(&questions[1], Ok(promoted(END + 1)));
    let report = play.report();
    let demote = report
        .steps
        .iter()
        .find(|step| step.name == StepName::Demote);
    assert!(demote.unwrap().detail.contains("will be lost"));
}

/// What may happen next.
#[derive(Clone, Debug)]
enum Event {
    /// The oldest question is answered.
    Answer(Reaction),
    /// The group looks different.
    Group(Group),
    /// Nothing, for so many milliseconds.
    Wait(u64),
}

#[derive(Clone, Debug)]
enum Reaction {
    Good,
    Behind,
    Fails(Failure),
}

fn any_event() -> impl Strategy<Value = Event> {
    let failure = prop_oneof![
        Just(Failure::NotSent("x".to_owned())),
        Just(Failure::Refused("x".to_owned())),
        Just(Failure::Unclear("x".to_owned())),
    ];
    let reaction = prop_oneof![
        8 => Just(Reaction::Good),
        2 => Just(Reaction::Behind),
        1 => failure.prop_map(Reaction::Fails),
    ];
    let group = prop_oneof![
        6 => Just(held(true)),
        1 => Just(held(false)),
        1 => Just(writable(A)),
        2 => Just(writable(B)),
        1 => Just(Group::Unknown),
    ];
    prop_oneof![
        8 => reaction.prop_map(Event::Answer),
        3 => group.prop_map(Event::Group),
        3 => (1_u64..1_500).prop_map(Event::Wait),
    ]
}

/// Plays `events` and checks the promises at each of them.
fn promises_hold(events: Vec<Event>) {
    let mut play = Play::start(picture(writable(A)));
    play.sees(held(false));
    let mut complete: BTreeSet<NodeAddr> = BTreeSet::new();
    let mut asked: Vec<Question> = Vec::new();
    for event in events {
        asked.extend(play.asked.iter().cloned());
        match event {
            Event::Answer(_) if play.asked.is_empty() => {}
            Event::Answer(reaction) => {
                let question = play.asked.remove(0);
                let result = react(&question, &reaction);
                if let (Question::Replication { node }, Ok(Answer::Replication(told))) =
                    (&question, &result)
                    && told.offset >= END
                {
                    complete.insert(node.clone());
                }
                play.answer(&question, result);
            }
            Event::Group(group) => play.sees(group),
            Event::Wait(ms) => play.run(play.now + ms),
        }
        let tells = |question: &Question| matches!(question, Question::Failover { .. });
        if play.asked.iter().any(tells) {
            assert!(complete.contains(&addr(B)) && complete.contains(&addr(C)));
        }
    }
    // Nobody answers any more: it ends all the same, and in time.
    play.run(play.now + 30_000);
    asked.append(&mut play.asked);
    assert!(play.machine.poll_report().is_some(), "it never ends");
    let paused = |question: &Question| matches!(question, Question::Pause { .. });
    let unpaused = |question: &Question| matches!(question, Question::Unpause { .. });
    if asked.iter().any(paused) {
        assert!(asked.iter().any(unpaused), "a pause is left behind");
    }
    let switched = asked
        .iter()
        .any(|question| matches!(question, Question::Demote { .. }));
    assert!(switched || play.releases == 1, "writes stay held");
}

fn react(question: &Question, reaction: &Reaction) -> Result<Answer, Failure> {
    match (question, reaction) {
        (_, Reaction::Fails(failure)) => Err(failure.clone()),
        (Question::Replication { node }, _) if *node == addr(A) => Ok(master(END)),
        (Question::Replication { .. }, Reaction::Behind) => Ok(replica(END - 1)),
        (Question::Replication { .. }, Reaction::Good) => Ok(replica(END)),
        _ => Ok(Answer::Done),
    }
}

proptest! {
    #[test]
    fn no_order_of_events_breaks_the_promises(
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        promises_hold(events);
    }
}
