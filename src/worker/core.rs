//! Floor 5. The sockets of one worker beside its exchange, and the turns of its clients.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::ReadBuf;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::neighbours::Neighbours;
use crate::downstream::Entrance;
use crate::exchange::{Action, Answer, ClientKey, Exchange, GroupIndex, LinkKey, Question};
use crate::net::{Stream, poll_again};
use crate::sentinel::Fences;
use crate::session::Ends;
use crate::topology::{Report, ReportKind};
use crate::types::Time;
use crate::upstream;

/// Bytes read at once. One buffer serves every socket of the worker, so an idle one has none.
const SCRATCH: usize = 64 * 1024;

/// Reads of one client's turn; a client that never pauses must not starve the others.
const READS_PER_TURN: usize = 4;

/// The worker's state, shared by its tasks, which all run on its thread.
pub(super) type Shared = Rc<RefCell<Core>>;

/// Everything that the tasks of one worker touch. Borrowed within a poll, never across one.
pub(super) struct Core {
    pub(super) exchange: Exchange,
    pub(super) started: Instant,
    pub(super) worker: usize,
    pub(super) upstream: upstream::Settings,
    pub(super) links: Vec<Option<LinkSlot>>,
    pub(super) scratch: Vec<u8>,
    /// The way to the control plane, one for each group.
    pub(super) reports: Vec<mpsc::Sender<Report>>,
    /// Where connections are to be ended at their nodes, for each group.
    pub(super) fences: Vec<Fences>,
    /// The other workers.
    pub(super) neighbours: Neighbours,
    /// Reports that found the way full.
    pub(super) unsent: VecDeque<(GroupIndex, Report)>,
    /// Wakes who keeps time before its time.
    pub(super) hurry: Rc<Notify>,
    /// Clients of this worker, as the acceptor counts them.
    pub(super) count: Arc<AtomicUsize>,
    clients: Vec<Option<ClientSlot>>,
    /// For tasks that the core spawns.
    itself: Option<Shared>,
}

/// A client's socket.
struct ClientSlot {
    key: ClientKey,
    stream: Stream,
    waker: Option<Waker>,
    /// It is not read from, because its session does not want more.
    paused: bool,
}

/// A link's task.
pub(super) struct LinkSlot {
    pub(super) key: LinkKey,
    pub(super) waker: Option<Waker>,
    pub(super) task: AbortHandle,
}

impl Core {
    pub(super) fn new(
        exchange: Exchange,
        worker: usize,
        upstream: upstream::Settings,
        (started, count): (Instant, Arc<AtomicUsize>),
        (reports, fences, neighbours): (Vec<mpsc::Sender<Report>>, Vec<Fences>, Neighbours),
    ) -> Shared {
        let core = Self {
            exchange,
            started,
            worker,
            upstream,
            links: Vec::new(),
            scratch: vec![0; SCRATCH],
            reports,
            fences,
            neighbours,
            unsent: VecDeque::new(),
            hurry: Rc::default(),
            count,
            clients: Vec::new(),
            itself: None,
        };
        let shared = Rc::new(RefCell::new(core));
        shared.borrow_mut().itself = Some(Rc::clone(&shared));
        shared
    }

    /// The time now. Read once for each readiness event, not for each command.
    pub(super) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    /// Ends the circle between the core and itself, so that its memory and sockets are freed.
    pub(super) fn close(&mut self) {
        self.clients.clear();
        for slot in self.links.drain(..).flatten() {
            slot.task.abort();
        }
        self.itself = None;
    }

    pub(super) fn shared(&self) -> Option<Shared> {
        self.itself.clone()
    }

    /// Takes a client in. `None` if its socket died on the way.
    pub(super) fn join(&mut self, stream: Stream, entrance: Entrance, id: u64) -> ClientKey {
        let now = self.now();
        let Entrance { group, access } = entrance;
        let key = self.exchange.client_joined(group, access, id, now);
        while self.clients.len() <= key.index() {
            self.clients.push(None);
        }
        if let Some(slot) = self.clients.get_mut(key.index()) {
            *slot = Some(ClientSlot {
                key,
                stream,
                waker: None,
                paused: false,
            });
        }
        key
    }

    fn client(&mut self, key: ClientKey) -> Option<&mut ClientSlot> {
        self.clients
            .get_mut(key.index())?
            .as_mut()
            .filter(|slot| slot.key == key)
    }

    /// One turn of a client: reads what is there, lets the exchange have it, writes what there is
    /// to say. Ready when the client is gone.
    pub(super) fn poll_client(&mut self, key: ClientKey, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.now();
        for _ in 0..READS_PER_TURN {
            if self.poll_output(key, cx, now).is_ready() || self.client(key).is_none() {
                return Poll::Ready(());
            }
            let wants_input = self.exchange.wants_input(key);
            let Some(slot) = self.client(key) else {
                return Poll::Ready(());
            };
            slot.paused = !wants_input;
            if !wants_input {
                return Poll::Pending;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let mut buf = ReadBuf::new(&mut scratch);
            let polled = match self.client(key) {
                Some(slot) => slot.stream.poll_read(cx, &mut buf),
                None => Poll::Ready(Ok(0)),
            };
            match polled {
                Poll::Pending => {
                    self.scratch = scratch;
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0)) => self.exchange.client_ended(key, now),
                Poll::Ready(Ok(_)) => self.exchange.client_bytes(key, buf.filled(), now),
                Poll::Ready(Err(_gone)) => self.drop_client(key, now),
            }
            self.scratch = scratch;
            self.perform(now);
        }
        poll_again(cx)
    }

    /// Registers for room in the socket while output waits. Ready when the client is gone.
    fn poll_output(&mut self, key: ClientKey, cx: &mut Context<'_>, now: Time) -> Poll<()> {
        let Some(slot) = self.client(key) else {
            return Poll::Ready(());
        };
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        while !self.exchange.output(key).is_empty() {
            let Some(slot) = self.client(key) else {
                return Poll::Ready(());
            };
            match slot.stream.poll_write_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_gone)) => {
                    self.drop_client(key, now);
                    return Poll::Ready(());
                }
                Poll::Ready(Ok(())) => {
                    self.write_client(key, now);
                    self.perform(now);
                }
            }
        }
        if self.client(key).is_none() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Does what the exchange asks for, until it asks for nothing.
    pub(super) fn perform(&mut self, now: Time) {
        loop {
            let mut idle = true;
            while let Some(action) = self.exchange.poll_action() {
                idle = false;
                match action {
                    Action::Open(key, plan) => self.open_link(key, &plan),
                    Action::Close(key) => self.close_link(key),
                    Action::Report(group, kind) => self.report(group, kind),
                    Action::Fence(group, request, who) => self.fence(group, request, who),
                    Action::Ask(question) => self.ask_all(&question, now),
                }
            }
            while let Some(key) = self.exchange.poll_dirty_link() {
                idle = false;
                self.wake_link(key);
            }
            while let Some(key) = self.exchange.poll_dirty_client() {
                idle = false;
                self.write_client(key, now);
            }
            if idle {
                if self.exchange.hurries() {
                    self.hurry.notify_one();
                }
                return;
            }
        }
    }

    /// Writes a client's output straight away; only what its socket does not take waits for its
    /// task.
    fn write_client(&mut self, key: ClientKey, now: Time) {
        loop {
            let output = self.exchange.output(key);
            if output.is_empty() {
                break;
            }
            let slot = self.clients.get(key.index()).and_then(Option::as_ref);
            let Some(slot) = slot.filter(|slot| slot.key == key) else {
                return;
            };
            match slot.stream.try_write(output) {
                Ok(count) => self.exchange.took(key, count, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.exchange.is_finished(key) {
                        // It is to be closed now, not when it has room for the rest.
                        return self.drop_client(key, now);
                    }
                    self.exchange.stalled(key, now);
                    return self.wake_client(key);
                }
                Err(_gone) => return self.drop_client(key, now),
            }
        }
        if self.exchange.is_finished(key) {
            self.drop_client(key, now);
        } else if self.client(key).is_some_and(|slot| slot.paused) && self.exchange.wants_input(key)
        {
            self.wake_client(key);
        }
    }

    /// Looks whether clients that are not read from are still there: one that waits for data or for
    /// a master, behind more than is read ahead, would keep its place for ever.
    pub(super) fn look_for_hung_up(&mut self, now: Time) {
        let slots = self.clients.iter().flatten();
        let gone = slots.filter(|slot| slot.paused && slot.stream.has_hung_up());
        let keys: Vec<ClientKey> = gone.map(|slot| slot.key).collect();
        for key in keys {
            self.exchange.client_hung_up(key, now);
        }
        self.perform(now);
    }

    fn wake_client(&mut self, key: ClientKey) {
        if let Some(slot) = self.client(key)
            && let Some(waker) = &slot.waker
        {
            waker.wake_by_ref();
        }
    }

    /// Closes a client's socket; its task ends when it is polled next.
    fn drop_client(&mut self, key: ClientKey, now: Time) {
        if self.client(key).is_none() {
            return;
        }
        let slot = self.clients.get_mut(key.index()).and_then(Option::take);
        if let Some(slot) = slot {
            self.exchange.client_gone(key, now);
            self.count.fetch_sub(1, Ordering::Relaxed);
            if let Some(waker) = slot.waker {
                waker.wake();
            }
        }
    }

    /// Puts a question about clients to all workers, this one included.
    fn ask_all(&mut self, question: &Question, now: Time) {
        let silent = if question.is_for_all() {
            self.neighbours.ask(question)
        } else {
            0
        };
        let answer = self.answer(question, now);
        self.exchange.roll_answered(answer, now);
        for _ in 0..silent {
            self.exchange.roll_answered(Answer::nothing(question), now);
        }
    }

    /// What this worker says to such a question.
    pub(super) fn answer(&mut self, question: &Question, now: Time) -> Answer {
        let clients = &self.clients;
        let ends = |key: ClientKey| {
            let slot = clients.get(key.index()).and_then(Option::as_ref);
            let slot = slot.filter(|slot| slot.key == key);
            slot.map_or_else(Ends::default, |slot| {
                let [peer, own] = slot.stream.ends();
                let file = slot.stream.as_fd().as_raw_fd();
                Ends { peer, own, file }
            })
        };
        self.exchange.answer_roll(question, ends, now)
    }

    fn report(&mut self, group: GroupIndex, kind: ReportKind) {
        self.unsent.push_back((
            group,
            Report {
                worker: self.worker,
                kind,
            },
        ));
        self.send_reports();
    }

    /// Sends what the control plane has room for. The rest waits for the next tick: a report that
    /// is dropped could leave a switch waiting for its deadline.
    pub(super) fn send_reports(&mut self) {
        while let Some((group, report)) = self.unsent.pop_front() {
            let Some(sender) = self.reports.get(group) else {
                continue;
            };
            match sender.try_send(report) {
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(report)) => {
                    self.unsent.push_front((group, report));
                    return;
                }
            }
        }
    }
}
