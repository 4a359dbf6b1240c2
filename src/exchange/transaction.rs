//! Floor 4. WATCH, MULTI, EXEC: one link from the first to the last, and what becomes of a
//! transaction whose link is lost.

use std::collections::VecDeque;

use crate::command::{Class, Leased, Local, Problem};
use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::kept::{Kept, Renewal};
use crate::exchange::lease::{Lease, Multi, Watch};
use crate::exchange::losses::Loss;
use crate::exchange::scripts::Caching;
use crate::exchange::standing::Anew;
use crate::exchange::ticket::{Purpose, Undo};
use crate::exchange::{ClientKey, Exchange};
use crate::resp::{ReplyScanner, Request, Scan, encode};
use crate::session::{Reject, Seq};
use crate::telemetry::RequestClass;
use crate::types::Time;

impl Exchange {
    pub(super) fn begin_multi(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Multi));
        self.on_lease(job.key, placed, |lease| lease.multi = Multi::Open);
        if placed == Placed::Answered {
            self.abandon(job.key, job.now);
            if let Some(client) = self.clients.get_mut(job.key) {
                // What follows in the same breath must not be executed one by one.
                client.lease.get_or_insert_default().multi = Multi::Refused(job.now);
            }
        }
        placed
    }

    pub(super) fn watch(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Watch));
        self.on_lease(job.key, placed, |lease| {
            if lease.watch == Watch::No {
                lease.watch = Watch::Kept;
            }
        });
        placed
    }

    /// Without a link that watches, there is nothing to end.
    pub(super) fn unwatch(&mut self, job: Job, raw: &[u8]) -> Placed {
        let watch = self.lease_of(job.key).map(|lease| lease.watch);
        if watch == Some(Watch::Kept) {
            let kind = Kind::leased(Purpose::Undo(Undo::Asked));
            let placed = self.send_on_lease(job, raw, kind);
            self.on_lease(job.key, placed, |lease| lease.watch = Watch::No);
            return placed;
        }
        if let Some(client) = self.clients.get_mut(job.key)
            && let Some(lease) = client.lease.as_deref_mut()
        {
            lease.watch = Watch::No;
        }
        self.touch(job.key);
        self.scratch.clear();
        encode::simple(&mut self.scratch, "OK");
        self.answer(job, RequestClass::Leased, None)
    }

    /// A command between MULTI and EXEC.
    pub(super) fn place_in_multi(
        &mut self,
        job: Job,
        request: &Request<'_>,
        class: Class,
    ) -> Placed {
        let multi = self.lease_of(job.key).map(|lease| lease.multi);
        match multi {
            Some(Multi::Refused(at)) if job.arrived > at => {
                // The client knew that there is no transaction.
                self.end_multi(job.key);
                return self.dispatch(job, request);
            }
            Some(Multi::Refused(_) | Multi::Broken) => {
                return match class {
                    Class::Leased(Leased::Exec | Leased::Discard) => {
                        self.end_broken_multi(job, class)
                    }
                    _ => self.reject(job, RequestClass::Leased, Reject::TransactionLost),
                };
            }
            Some(Multi::No | Multi::Open | Multi::Aborted) | None => {}
        }
        let renewal = self.lease_of(job.key).map(|lease| lease.renewal);
        if class == Class::Leased(Leased::Discard) && renewal == Some(Renewal::Due) {
            return self.end_broken_multi(job, class);
        }
        let placed = match class {
            Class::Leased(Leased::Exec) => self.exec(job, request.raw()),
            Class::Leased(Leased::Discard) => {
                let kind = Kind::leased(Purpose::Undo(Undo::Asked));
                let placed = self.send_on_lease(job, request.raw(), kind);
                self.on_lease(job.key, placed, Lease::end_multi);
                placed
            }
            Class::Local(Local::Select) => return self.select_in_multi(job, request),
            Class::Refused => {
                let reject = Reject::Refused {
                    command: request.name(),
                };
                return self.abort_multi(job, reject);
            }
            class if is_queued(class) => self.queue(job, request.raw()),
            _ => {
                let reject = Reject::NotOffered {
                    command: request.name(),
                    sub: b"between MULTI and EXEC",
                };
                return self.abort_multi(job, reject);
            }
        };
        if placed == Placed::Answered {
            // It was refused for want of a master. The server must not keep the rest for later.
            self.abandon(job.key, job.now);
            if class == Class::Leased(Leased::Exec) || class == Class::Leased(Leased::Discard) {
                self.end_multi(job.key);
            }
        }
        placed
    }

    /// What the server will not queue: it words the error, and remembers it until EXEC.
    pub(super) fn place_wrong_in_multi(
        &mut self,
        job: Job,
        request: &Request<'_>,
        (class, problem): (Class, Option<Problem>),
    ) -> Placed {
        // A master that is new, and has not told its commands yet, may have it after all.
        let unknown = problem.is_some_and(Problem::is_unknown);
        if unknown && class == Class::Refused {
            return self.place_in_multi(job, request, class);
        }
        let placed = self.place_in_multi(job, request, Class::Write);
        let lease = self.lease_of(job.key);
        if unknown
            && matches!(class, Class::Leased(_))
            && let Some(link) = lease.and_then(|lease| lease.link)
        {
            // What sticks to a connection must not come into the pool with it.
            self.retire(link);
        }
        placed
    }

    fn queue(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Queued));
        if job.caching == Caching::Empties {
            self.on_lease(job.key, placed, |lease| lease.flushes = true);
        }
        placed
    }

    /// SELECT between MULTI and EXEC takes effect with EXEC. Reads that may have to be sent again
    /// must be answered by then, as they belong to the database before it.
    fn select_in_multi(&mut self, job: Job, request: &Request<'_>) -> Placed {
        if let Some(client) = self.clients.get_mut(job.key)
            && client.replica_out > 0
        {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let index = request
            .arg1()
            .and_then(|index| std::str::from_utf8(index).ok())
            .and_then(|index| index.parse().ok());
        let placed = self.queue(job, request.raw());
        if placed == Placed::Sent
            && let Some(index) = index
            && let Some(client) = self.clients.get_mut(job.key)
            && let Some(lease) = client.lease.as_deref_mut()
        {
            let latest = client.replies.latest();
            let seq = job.again.map_or(latest, |number| number.seq);
            lease.selections.asked.push_back((seq, index));
        }
        if placed == Placed::Answered {
            self.abandon(job.key, job.now);
        }
        placed
    }

    /// Refuses a command as the server would: EXEC will not execute the others either.
    fn abort_multi(&mut self, job: Job, reject: Reject<'_>) -> Placed {
        if let Some(client) = self.clients.get_mut(job.key)
            && let Some(lease) = client.lease.as_deref_mut()
        {
            lease.multi = Multi::Aborted;
        }
        self.reject(job, RequestClass::Refused, reject)
    }

    /// Something was refused to a client. If it is between MULTI and EXEC, the others are not
    /// executed.
    pub(super) fn abort_open_multi(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(lease) = client.lease.as_deref_mut()
            && lease.multi == Multi::Open
        {
            lease.multi = Multi::Aborted;
        }
    }

    fn exec(&mut self, job: Job, raw: &[u8]) -> Placed {
        let lease = self.lease_of(job.key);
        let undo = match lease.map(|lease| (lease.multi, lease.watch)) {
            Some((Multi::Aborted, _)) => Some(Undo::Aborted),
            // What was watched is out of sight, so the transaction must not happen: it is
            // discarded, and the client hears what Redis says when a watched key was touched.
            Some((_, Watch::Stale)) => Some(Undo::StaleWatch),
            _ => None,
        };
        let flushes = lease.is_some_and(|lease| lease.flushes);
        let caching = if flushes {
            Caching::Empties
        } else {
            job.caching
        };
        let job = Job { caching, ..job };
        let placed = match undo {
            None => self.send_on_lease(job, raw, Kind::leased(Purpose::Exec)),
            Some(undo) => {
                let mut discard = Vec::new();
                encode::request(&mut discard, &[b"DISCARD"]);
                self.send_on_lease(job, &discard, Kind::leased(Purpose::Undo(undo)))
            }
        };
        if placed == Placed::Sent && undo.is_none() {
            self.mark_exec(job.key);
        }
        self.on_lease(job.key, placed, Lease::end_multi);
        placed
    }

    /// EXEC or DISCARD of a transaction whose link was lost.
    fn end_broken_multi(&mut self, job: Job, class: Class) -> Placed {
        let stale = self
            .lease_of(job.key)
            .is_some_and(|lease| lease.watch == Watch::Stale);
        self.end_multi(job.key);
        let undo = match (class, stale) {
            (Class::Leased(Leased::Exec), false) => {
                return self.reject(job, RequestClass::Leased, Reject::ExecAborted);
            }
            (Class::Leased(Leased::Exec), true) => Undo::StaleWatch,
            _ => Undo::Asked,
        };
        self.compose_undone(job.key, undo);
        self.answer(job, RequestClass::Leased, None)
    }

    /// Composes what a client hears whose transaction or watch is undone.
    pub(super) fn compose_undone(&mut self, key: ClientKey, undo: Undo) {
        self.scratch.clear();
        let Some(client) = self.clients.get(key) else {
            return;
        };
        match undo {
            Undo::Asked => encode::simple(&mut self.scratch, "OK"),
            Undo::StaleWatch => encode::null_array(&mut self.scratch, client.session.protocol),
            Undo::Aborted => encode::error(
                &mut self.scratch,
                "EXECABORT Transaction discarded because of previous errors.",
            ),
        }
    }

    /// Closes a client's own link, if it has one, in the middle of a transaction or a watch.
    fn abandon(&mut self, key: ClientKey, now: Time) {
        let client = self.clients.get_mut(key);
        let Some(lease) = client.and_then(|client| client.lease.as_deref_mut()) else {
            return;
        };
        let Some(link) = lease.link else {
            return lease.give_up_multi();
        };
        if lease.multi == Multi::Open {
            // What of it waits for the link to open is not begun anew either.
            lease.multi = Multi::Aborted;
        }
        self.lose(link, Loss::Left, now);
    }

    /// Forgets a client's transaction, and what it watched with it.
    fn end_multi(&mut self, key: ClientKey) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(lease) = client.lease.as_deref_mut()
        {
            lease.give_up_multi();
            lease.end_multi();
            let empty = lease.link.is_none() && lease.is_clean();
            if empty {
                client.lease = None;
            }
        }
        self.touch(key);
    }

    pub(super) fn lease_of(&self, key: ClientKey) -> Option<&Lease> {
        self.clients.get(key)?.lease.as_deref()
    }

    /// Notes something on the lease of a client whose request is on its way.
    pub(super) fn on_lease(
        &mut self,
        key: ClientKey,
        placed: Placed,
        note: impl FnOnce(&mut Lease),
    ) {
        let lease = self
            .clients
            .get_mut(key)
            .and_then(|client| client.lease.as_deref_mut());
        if placed == Placed::Sent
            && let Some(lease) = lease
        {
            note(lease);
        }
    }
}

/// Databases selected between MULTI and EXEC. All but `asked` follows the replies, so that it
/// speaks of the transaction whose replies are coming, whatever the client has sent since.
#[derive(Debug, Default)]
pub(super) struct Selections {
    /// SELECTs without a reply, and what they ask for.
    asked: VecDeque<(Seq, u32)>,
    /// Commands that the server has queued.
    queued: usize,
    /// Which of them select which database.
    at: Vec<(usize, u32)>,
}

impl Selections {
    /// MULTI or a command behind it has its reply.
    pub(super) fn note(&mut self, purpose: Purpose, seq: Seq, reply: &[u8]) {
        if purpose == Purpose::Multi && reply.starts_with(b"+OK") {
            (self.queued, self.at) = (0, Vec::new());
        }
        let asked = self.asked.front().filter(|asked| asked.0 == seq).copied();
        if asked.is_some() {
            self.asked.pop_front();
        }
        if reply.starts_with(b"+QUEUED") {
            self.at.extend(asked.map(|(_, index)| (self.queued, index)));
            self.queued += 1;
        }
    }

    /// Whether a transaction with any has no reply to its EXEC yet.
    pub(super) fn are_open(&self) -> bool {
        !self.asked.is_empty() || !self.at.is_empty()
    }

    /// The database that a transaction with this reply to EXEC has left its connection in, unless
    /// it selected none.
    pub(super) fn executed(&mut self, reply: &[u8]) -> Option<u32> {
        let at = std::mem::take(&mut self.at);
        let last = at.last()?.0;
        let behind_header = reply.iter().position(|byte| *byte == b'\n')? + 1;
        let (mut rest, mut scanner) = (reply.get(behind_header..)?, ReplyScanner::default());
        let mut selected = None;
        for position in 0..=last {
            let Ok(Scan::Complete { len, .. }) = scanner.scan(rest) else {
                break;
            };
            if rest.starts_with(b"+OK")
                && let Some((_, index)) = at.iter().find(|select| select.0 == position)
            {
                selected = Some(*index);
            }
            rest = rest.get(len..)?;
        }
        selected
    }
}

impl Lease {
    fn end_multi(&mut self) {
        self.multi = Multi::No;
        self.watch = Watch::No;
        self.flushes = false;
    }

    /// Notes that the link, on which everything but the subscriptions was begun, never was.
    pub(super) fn never_had_link(&mut self) {
        self.link = None;
        self.changing = false;
        self.sticky = false;
        self.lose_made();
        if self.renewal == Renewal::Asked {
            self.renewal = Renewal::Due;
            return;
        }
        self.selections = Selections::default();
        self.kept = Kept::default();
        self.multi = match self.multi {
            // Begun anew, it would no longer be known that it must not be executed.
            Multi::Aborted => Multi::Broken,
            Multi::Open => Multi::No,
            // Of an earlier link.
            other @ (Multi::No | Multi::Broken | Multi::Refused(_)) => other,
        };
        if self.watch == Watch::Kept {
            self.watch = Watch::No;
        }
    }

    /// What is subscribed and tracked has to be made again.
    fn lose_made(&mut self) {
        self.tracking.lose_link();
        self.unmade = self.tracking.is_made() || !self.subscriptions.is_empty();
    }

    /// Notes that the link is gone with all that the server knew of it.
    pub(super) fn lose_link(&mut self, anew: Anew) {
        self.link = None;
        self.changing = false;
        self.lose_made();
        self.selections.asked.clear();
        if self.watch == Watch::Kept {
            self.watch = Watch::Stale;
        }
        if anew == Anew::Begun {
            self.multi = Multi::Open;
            self.renewal = Renewal::Due;
            return;
        }
        self.selections = Selections::default();
        if anew == Anew::Unanswered {
            self.multi = Multi::No;
        }
        self.give_up_multi();
    }
}

/// Whether a command may be queued: the rest would change the link under the transaction's feet, or
/// speak of the link where the client means itself.
const fn is_queued(class: Class) -> bool {
    match class {
        Class::Local(local) => matches!(
            local,
            Local::Ping
                | Local::Echo
                | Local::AclWhoami
                | Local::ClientHelp
                | Local::Readonly
                | Local::Readwrite
        ),
        Class::Leased(leased) => {
            !leased.is_subscription()
                && !matches!(
                    leased,
                    Leased::Tracking | Leased::ConnectionState | Leased::Monitor
                )
        }
        Class::Read | Class::MasterRead | Class::Write | Class::Admin => true,
        Class::Refused => false,
    }
}
