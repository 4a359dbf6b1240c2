//! Many worlds on all processors, and a world that is wrong made small and told.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::book::{Broken, Counts, Violation};
use crate::plan::Plan;
use crate::world::{Mutation, World};

/// Smaller worlds that are tried before one is told.
const ATTEMPTS: u32 = 1_500;
/// Lines told of a long story: of its beginning, and of its end.
const LINES: usize = 100;

/// Lines of a world's story, kept even when it ends in a panic.
pub(crate) type Story = Rc<RefCell<Vec<String>>>;

/// How a world ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) violation: Option<Violation>,
    counts: Counts,
}

/// Lets a world happen.
pub(crate) fn play(plan: &Plan, mutation: Option<Mutation>) -> Outcome {
    play_with(plan, mutation, None)
}

fn play_with(plan: &Plan, mutation: Option<Mutation>, story: Option<Story>) -> Outcome {
    be_quiet();
    QUIET.set(true);
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan, mutation);
        world.trace = story;
        world.run();
        Outcome {
            counts: world.book.counts,
            violation: world.book.violation,
        }
    }));
    QUIET.set(false);
    ran.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let words = said.unwrap_or_default();
        let broken = Broken::Panic;
        Outcome {
            violation: Some(Violation { broken, words }),
            counts: Counts::default(),
        }
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A panic in a world is told with its story, once, and not by the hook each time.
fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// When enough worlds were seen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Worlds(u64),
    Time(Duration),
}

/// Worlds one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Many {
    pub(crate) first: u64,
    pub(crate) limit: Limit,
}

/// What came of them.
#[derive(Debug)]
pub(crate) struct Done {
    worlds: u64,
    took: Duration,
    pub(crate) counts: Counts,
    /// The first world that broke a promise.
    pub(crate) broken: Option<Plan>,
}

impl Many {
    /// Runs them until the limit, or until one is wrong.
    pub(crate) fn run(self) -> Done {
        let began = Instant::now();
        let next = AtomicU64::new(self.first);
        let sum = Mutex::new((0, Counts::default(), None));
        let processors = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..processors {
                scope.spawn(|| self.work(began, &next, &sum));
            }
        });
        let (worlds, counts, broken) = sum.into_inner().expect("no thread panics");
        Done {
            worlds,
            took: began.elapsed(),
            counts,
            broken,
        }
    }

    fn work(self, began: Instant, next: &AtomicU64, sum: &Mutex<(u64, Counts, Option<Plan>)>) {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let enough = match self.limit {
                Limit::Worlds(worlds) => seed >= self.first.saturating_add(worlds),
                Limit::Time(time) => began.elapsed() >= time,
            };
            if enough {
                return;
            }
            let plan = Plan::new(seed);
            let outcome = play(&plan, None);
            let mut sum = sum.lock().expect("no thread panics");
            sum.0 += 1;
            sum.1.add(&outcome.counts);
            if outcome.violation.is_some() {
                sum.2.get_or_insert(plan);
            }
            if sum.2.is_some() {
                return;
            }
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worlds, took, counts) = (self.worlds, self.took.as_secs_f64(), &self.counts);
        write!(f, "{worlds} worlds in {took:.1} s: {counts:?}")
    }
}

/// Tells the story of a world, and of the smallest one like it that breaks the same promise; fails
/// if it breaks one.
pub(crate) fn tell(plan: &Plan) {
    let Some(violation) = play(plan, None).violation else {
        return println!("{}\n{plan}keeps all promises", story(plan).join("\n"));
    };
    let small = minimise(plan, violation.broken);
    let mut lines = story(&small);
    if lines.len() > LINES * 2 {
        lines.splice(LINES..lines.len() - LINES, ["…".to_owned()]);
    }
    let violation = play(&small, None).violation.unwrap_or(violation);
    panic!(
        "{small}{}\nbroken: {:?}: {}\nSWITCHMAN_SIM_WORLD={} shows it again",
        lines.join("\n"),
        violation.broken,
        violation.words,
        small.seed
    );
}

fn story(plan: &Plan) -> Vec<String> {
    let story = Story::default();
    play_with(plan, None, Some(Rc::clone(&story)));
    story.take()
}

/// The smallest world that still breaks the promise: whatever can be left out is left out.
fn minimise(plan: &Plan, broken: Broken) -> Plan {
    let mut small = plan.clone();
    let mut attempts = 0;
    'smaller: loop {
        for less in small.smaller() {
            attempts += 1;
            if attempts > ATTEMPTS {
                return small;
            }
            let violation = play(&less, None).violation;
            if violation.is_some_and(|violation| violation.broken == broken) {
                small = less;
                continue 'smaller;
            }
        }
        return small;
    }
}
