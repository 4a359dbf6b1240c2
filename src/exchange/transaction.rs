//! Floor 4. WATCH, MULTI, EXEC: one link from the first to the last, and what becomes of a
//! transaction whose link is lost.

use crate::command::{Class, Flags, Leased, Local, Problem};
use crate::exchange::client::{Client, Wait};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::inside::{About, Inside, is_deletion};
use crate::exchange::kept::{Kept, Renewal};
use crate::exchange::lease::{Lease, Multi, Watch};
use crate::exchange::losses::Loss;
use crate::exchange::pause::is_pause;
use crate::exchange::redirection::target_of;
use crate::exchange::session_commands::without_capabilities;
use crate::exchange::standing::Anew;
use crate::exchange::ticket::{Purpose, Undo};
use crate::exchange::tunnel::{makes_replica, tells_replica};
use crate::exchange::{ClientKey, Exchange};
use crate::resp::{Request, encode, is_word};
use crate::session::{Reject, Seq};
use crate::telemetry::RequestClass;
use crate::types::Time;

/// Redis server.c, `processCommand`.
const NO_MULTI: &str = "ERR Command not allowed inside a transaction";

impl Exchange {
    pub(super) fn begin_multi(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Multi));
        let seq = self.placed_as(job);
        self.on_lease(job.key, placed, |lease| {
            lease.multi = Multi::Open;
            lease.opening = Some(seq);
        });
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
            Some(Multi::Refused(_) | Multi::Broken | Multi::Denied) => {
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
        let misspelt = request.argc() != 1;
        self.note_administration(job.key, class);
        let lease = self.lease_of(job.key);
        let fits = lease.is_none_or(|lease| lease.inside.has_room_for(request));
        let placed = match class {
            Class::Leased(Leased::Exec) => self.exec(job, request.raw(), misspelt),
            Class::Leased(Leased::Discard) => {
                let kind = Kind::leased(Purpose::Undo(Undo::Asked));
                let placed = self.send_on_lease(job, request.raw(), kind);
                let seq = self.placed_as(job);
                self.on_lease(job.key, placed, |lease| {
                    lease.discarding = Some((seq, lease.multi));
                    lease.end_multi();
                });
                placed
            }
            // Before Redis 7.0 EXEC would make a replica of its client.
            _ if class == Class::Refused || makes_replica(request) => {
                let reject = if self.is_no_multi(job.key, request) {
                    Reject::Redis(NO_MULTI)
                } else {
                    let command = request.name();
                    Reject::Refused { command }
                };
                return self.abort_multi(job, reject);
            }
            class => match self.order_of(job.key, request, class) {
                Some(about) if fits => self.queue_order(job, request, about),
                None if class == Class::Local(Local::ClientCapa) => {
                    self.queue(job, &without_capabilities(request))
                }
                order if is_queued(class, request) && order != Some(About::Deletion) => {
                    self.queue(job, request.raw())
                }
                _ => {
                    let reject = Reject::NotOffered {
                        command: request.name(),
                        sub: b"between MULTI and EXEC",
                    };
                    return self.abort_multi(job, reject);
                }
            },
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

    /// What a command between MULTI and EXEC means here with the reply to EXEC.
    fn order_of(&self, key: ClientKey, request: &Request<'_>, class: Class) -> Option<About> {
        match class {
            Class::Local(local) if is_order(local, request) || self.tells_target(key, local) => {
                Some(About::Session(local))
            }
            Class::Leased(leased) if sticks(leased) && target_of(request).is_none() => {
                Some(About::Link(leased))
            }
            Class::Admin if is_deletion(request) => Some(About::Deletion),
            Class::Admin if is_pause(request) => Some(About::Pause),
            _ => None,
        }
    }

    /// Whether a server refuses it in transactions.
    fn is_no_multi(&self, key: ClientKey, request: &Request<'_>) -> bool {
        let client = self.clients.get(key);
        let group = client.and_then(|client| self.groups.get(client.group));
        let spec = group.and_then(|group| group.table.classify(request).spec);
        spec.is_some_and(|spec| spec.flags.contains(Flags::NO_MULTI))
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

    pub(super) fn queue(&mut self, job: Job, raw: &[u8]) -> Placed {
        self.send_on_lease(job, raw, Kind::leased(Purpose::Queued))
    }

    /// Refuses a command as the server would: EXEC will not execute the others either. Whether it
    /// is between MULTI and EXEC is known with the reply to MULTI.
    fn abort_multi(&mut self, job: Job, reject: Reject<'_>) -> Placed {
        if let Some(waits) = self.mark_aborted(job) {
            return waits;
        }
        self.reject(job, RequestClass::Refused, reject)
    }

    /// EXEC must not execute the others. `Some`: whether there is a transaction at all is not known
    /// yet.
    pub(super) fn mark_aborted(&mut self, job: Job) -> Option<Placed> {
        let client = self.clients.get_mut(job.key)?;
        let lease = client.lease.as_deref_mut()?;
        if lease.opening.is_some() && client.replies.outstanding() > 0 {
            client.wait = Wait::Answers;
            return Some(Placed::Waits);
        }
        if lease.multi == Multi::Open {
            lease.multi = Multi::Aborted;
        }
        None
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

    /// EXEC. One with arguments ends the transaction too, and executes nothing (Redis server.c,
    /// `rejectCommand`).
    fn exec(&mut self, job: Job, raw: &[u8], misspelt: bool) -> Placed {
        let lease = self.lease_of(job.key);
        let undo = match lease.map(|lease| (lease.multi, lease.watch)) {
            _ if misspelt => Some(Undo::Misspelt),
            Some((Multi::Aborted, _)) => Some(Undo::Aborted),
            // What was watched is out of sight, so the transaction must not happen: it is
            // discarded, and the client hears what Redis says when a watched key was touched.
            Some((_, Watch::Stale)) => Some(Undo::StaleWatch),
            _ => None,
        };
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

    /// An EXEC outside of a transaction is refused. In Redis it ends what is watched all the same.
    pub(super) fn unwatch_by_exec(&mut self, job: Job) {
        let client = self.clients.get_mut(job.key);
        let Some(lease) = client.and_then(|client| client.lease.as_deref_mut()) else {
            return;
        };
        let watch = std::mem::take(&mut lease.watch);
        if let (Watch::Kept, Some(link)) = (watch, lease.link) {
            let mut unwatch = Vec::new();
            encode::request(&mut unwatch, &[b"UNWATCH"]);
            self.send_internal(link, job, Purpose::Internal, &unwatch);
        }
        self.touch(job.key);
    }

    /// EXEC or DISCARD of a transaction whose link was lost.
    fn end_broken_multi(&mut self, job: Job, class: Class) -> Placed {
        let lease = self.lease_of(job.key);
        let stale = lease.is_some_and(|lease| lease.watch == Watch::Stale);
        let denied = lease.is_some_and(|lease| lease.multi == Multi::Denied);
        self.end_multi(job.key);
        let undo = match (class, stale) {
            (Class::Leased(Leased::Exec), _) if denied => Undo::Aborted,
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
            Undo::Misspelt => Reject::WrongArity { name: "exec" }.write(&mut self.scratch),
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

    /// The number of a request that was just placed.
    pub(super) fn placed_as(&self, job: Job) -> Seq {
        let client = self.clients.get(job.key);
        let latest = client.map_or(0, |client| client.replies.latest());
        job.again.map_or(latest, |number| number.seq)
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

impl Client {
    /// Whether it is between MULTI and EXEC.
    pub(super) fn is_in_multi(&self) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|lease| lease.multi != Multi::No)
    }

    /// Whether an EXEC that may change the session has no reply yet.
    pub(super) fn is_selecting(&self) -> bool {
        let lease = self.lease.as_ref();
        self.replies.outstanding() > 0
            && lease.is_some_and(|lease| lease.multi == Multi::No && lease.inside.is_open())
    }

    /// Whether a DISCARD has no reply yet. A server that refuses it, to a user without the right to
    /// it, is still between MULTI and EXEC (Redis server.c, `rejectCommand`).
    pub(super) fn is_discarding(&self) -> bool {
        let lease = self.lease.as_ref();
        self.replies.outstanding() > 0 && lease.is_some_and(|lease| lease.discarding.is_some())
    }
}

impl Lease {
    fn end_multi(&mut self) {
        self.multi = Multi::No;
        self.watch = Watch::No;
    }

    /// A MULTI has its reply. Where it was refused, what comes next is outside of a transaction.
    pub(super) fn opened(&mut self, seq: Seq, reply: &[u8]) {
        let latest = self.opening.take_if(|it| *it == seq);
        if latest.is_none() || !reply.starts_with(b"-") {
            return;
        }
        if matches!(self.multi, Multi::Open | Multi::Aborted) {
            self.multi = Multi::No;
        }
        if let Some((_, before)) = &mut self.discarding {
            *before = Multi::No;
        }
    }

    /// The reply to an EXEC, or to what ends a transaction without one, has come. Returns what was
    /// kept of the transaction; nothing where it is not over, since DISCARD was refused.
    pub(super) fn ended(&mut self, seq: Seq, reply: &[u8]) -> Kept {
        match self.discarding.take_if(|it| it.0 == seq) {
            Some((_, multi)) if reply.starts_with(b"-") => {
                self.multi = multi;
                self.kept.spoil();
                Kept::default()
            }
            _ => std::mem::take(&mut self.kept),
        }
    }

    /// Notes that the link, on which everything but what is tracked was begun, never was.
    pub(super) fn never_had_link(&mut self) {
        self.link = None;
        self.called = None;
        self.sticky = false;
        self.lose_unanswered();
        self.lose_made();
        if self.renewal == Renewal::Asked {
            self.renewal = Renewal::Due;
            return;
        }
        self.inside = Inside::default();
        self.kept = Kept::default();
        self.multi = match self.multi {
            // Begun anew, it would no longer be known that it must not be executed.
            Multi::Aborted => Multi::Broken,
            Multi::Open => Multi::No,
            // Of an earlier link.
            other @ (Multi::No | Multi::Broken | Multi::Denied | Multi::Refused(_)) => other,
        };
        if self.watch == Watch::Kept {
            self.watch = Watch::No;
        }
    }

    /// What has no reply is placed anew.
    fn lose_unanswered(&mut self) {
        self.sticking = 0;
        self.opening = None;
        self.discarding = None;
        self.setting = None;
    }

    /// What is tracked has to be made again.
    fn lose_made(&mut self) {
        self.tracking.lose_link();
        self.unmade = self.tracking.is_made();
    }

    /// Notes that the link is gone with all that the server knew of it.
    pub(super) fn lose_link(&mut self, anew: Anew) {
        self.link = None;
        self.called = None;
        self.lose_unanswered();
        self.lose_made();
        self.inside.lose_link();
        if self.watch == Watch::Kept {
            self.watch = Watch::Stale;
        }
        if anew == Anew::Begun {
            self.multi = Multi::Open;
            self.renewal = Renewal::Due;
            return;
        }
        self.inside = Inside::default();
        if anew == Anew::Unanswered {
            self.multi = Multi::No;
        }
        self.give_up_multi();
    }
}

/// Whether a command is about the connection, so that with EXEC it holds here too. What silences
/// replies in the middle of one, acts on other connections or makes this one something else is not
/// offered.
fn is_order(local: Local, request: &Request<'_>) -> bool {
    match local {
        Local::Select
        | Local::Auth
        | Local::Hello
        | Local::ClientGetname
        | Local::ClientId
        | Local::ClientInfo
        | Local::ClientKill
        | Local::ClientList
        | Local::ClientNoEvict
        | Local::ClientSetinfo
        | Local::ClientSetname => true,
        Local::ClientReply => {
            let mode = request.args().nth(2).unwrap_or_default();
            let silences = [&b"off"[..], b"skip"];
            !silences.iter().any(|it| is_word(mode, it))
        }
        _ => false,
    }
}

/// Whether a command makes something of its connection that stays.
const fn sticks(leased: Leased) -> bool {
    matches!(
        leased,
        Leased::Tracking | Leased::ConnectionState | Leased::Monitor
    )
}

/// Whether a command may be queued as it is: the rest would change the link under the transaction's
/// feet.
fn is_queued(class: Class, request: &Request<'_>) -> bool {
    match class {
        Class::Admin if tells_replica(request) => false,
        Class::Local(local) => matches!(
            local,
            Local::Ping
                | Local::Echo
                | Local::AclWhoami
                | Local::ClientGetredir
                | Local::ClientHelp
                | Local::ClientTrackinginfo
                | Local::Readonly
                | Local::Readwrite
        ),
        Class::Leased(leased) => !leased.is_subscription() && !sticks(leased),
        Class::Read | Class::MasterRead | Class::Write | Class::Admin => true,
        Class::Refused => false,
    }
}
