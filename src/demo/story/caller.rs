//! Floor 6. The client of the story: one plain connection, one command after another, at a steady
//! pace, on a thread of its own. Knows an address, and nothing of Sentinels and failovers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use crate::demo::client::Client;
use crate::demo::client::ClientError;
use crate::demo::process::wait_for;
use crate::demo::story::ledger::Act;
use crate::demo::story::ledger::Ledger;
use crate::demo::story::ledger::Outcome;
use crate::demo::story::ledger::Step;

/// From one command to the next, so about 300 in a second.
pub(super) const PACE: Duration = Duration::from_millis(3);
/// The longest wait for one reply; well above every limit on holding.
pub(super) const REPLY_MAX: Duration = Duration::from_secs(30);

/// The client, running until it is stopped or dropped.
#[derive(Debug)]
pub(super) struct Caller {
    shared: Arc<Shared>,
    local: Option<SocketAddr>,
    thread: Option<JoinHandle<Ledger>>,
}

/// What the client has seen so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Commands answered by what they asked for.
    pub(super) answered: BTreeMap<Act, u64>,
    /// Writes whose outcome is unknown.
    pub(super) uncertain: u64,
    /// Commands answered by any other error.
    pub(super) refused: u64,
    /// Reads answered by what their key held a moment before; they count as answered.
    pub(super) behind: u64,
    /// Replies that acknowledged writes rule out.
    pub(super) wrong: u64,
    /// The words of the first refusal or wrong reply.
    pub(super) complaint: Option<String>,
    /// The longest wait since it was last asked for.
    pub(super) longest: Duration,
    /// The command that waits for its reply, and since when.
    pub(super) waiting: Option<(Instant, String)>,
    /// Since when an acknowledged write is looked for, and when it came.
    watch: Option<(Instant, Option<Instant>)>,
    /// Why the connection has ended.
    pub(super) broken: Option<String>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    resting: bool,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Run,
    Rest,
    Stop,
}

impl Caller {
    /// Connects to `addr` and begins.
    pub(super) fn start(addr: SocketAddr) -> Result<Self, ClientError> {
        let client = Client::connect(addr, REPLY_MAX)?;
        let local = client.local_addr();
        let state = State {
            mode: Mode::Run,
            resting: false,
            tally: Tally::default(),
        };
        let state = Mutex::new(state);
        let shared = Arc::new(Shared { state });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || own.call(client));
        Ok(Self {
            shared,
            local,
            thread: Some(thread),
        })
    }

    /// The client's end of its only connection.
    pub(super) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    /// What it has seen until now.
    pub(super) fn tally(&self) -> Tally {
        self.shared.lock().tally.clone()
    }

    /// The longest wait since the last time this was asked.
    pub(super) fn take_longest(&self) -> Duration {
        std::mem::take(&mut self.shared.lock().tally.longest)
    }

    /// Lets it rest and waits until its last reply is there; whether that came in time.
    pub(super) fn rest(&self) -> bool {
        self.shared.lock().mode = Mode::Rest;
        let resting = || {
            let state = self.shared.lock();
            (state.resting || state.tally.broken.is_some()).then_some(())
        };
        wait_for(REPLY_MAX, resting).is_some()
    }

    /// Lets it go on.
    pub(super) fn go_on(&self) {
        let mut state = self.shared.lock();
        state.mode = Mode::Run;
        state.resting = false;
    }

    /// Looks out for the first write that is acknowledged from `since` on.
    pub(super) fn watch_writes(&self, since: Instant) {
        self.shared.lock().tally.watch = Some((since, None));
    }

    /// Ends the connection after the last reply; what the keys must hold now.
    pub(super) fn stop(mut self) -> Option<Ledger> {
        self.shared.lock().mode = Mode::Stop;
        self.thread.take()?.join().ok()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.shared.lock().mode = Mode::Stop;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic itself.
            let _reported = thread.join();
        }
    }
}

impl Tally {
    /// Commands answered by what they asked for, of all kinds together.
    pub(super) fn total(&self) -> u64 {
        self.answered.values().sum()
    }

    /// When the write that is looked for was acknowledged.
    pub(super) fn resumed(&self) -> Option<Instant> {
        self.watch?.1
    }

    fn settle(&mut self, step: &Step, outcome: Outcome, took: Duration) {
        self.waiting = None;
        self.longest = self.longest.max(took);
        match outcome {
            Outcome::Right | Outcome::Behind => {
                self.behind += u64::from(outcome == Outcome::Behind);
                *self.answered.entry(step.act).or_default() += 1;
                if let Some((since, seen @ None)) = &mut self.watch {
                    let now = Instant::now();
                    *seen = (step.act.is_write() && now >= *since).then_some(now);
                }
            }
            Outcome::Uncertain => self.uncertain += 1,
            Outcome::Refused(words) => {
                self.refused += 1;
                self.complaint.get_or_insert(words);
            }
            Outcome::Wrong(words) => {
                self.wrong += 1;
                self.complaint.get_or_insert(words);
            }
        }
    }
}

impl Shared {
    /// The thread's whole life.
    fn call(&self, mut client: Client) -> Ledger {
        let mut ledger = Ledger::new();
        loop {
            match self.mode() {
                Mode::Run => {}
                Mode::Rest => {
                    thread::sleep(PACE);
                    continue;
                }
                Mode::Stop => return ledger,
            }
            let step = ledger.next_step();
            let words = step.words();
            let asked = Instant::now();
            self.lock().tally.waiting = Some((asked, words.join(" ")));
            match client.command(&words) {
                Ok(reply) => {
                    let outcome = ledger.judge(&step, &reply);
                    self.lock().tally.settle(&step, outcome, asked.elapsed());
                }
                Err(error) => {
                    self.lock().tally.broken = Some(error.to_string());
                    return ledger;
                }
            }
            thread::sleep(PACE.saturating_sub(asked.elapsed()));
        }
    }

    fn mode(&self) -> Mode {
        let mut state = self.lock();
        state.resting = state.mode == Mode::Rest;
        state.mode
    }

    /// A panic elsewhere leaves the figures as good as they were.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
