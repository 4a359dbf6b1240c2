//! Floor 4. WATCH, MULTI, EXEC: one link from the first to the last, and what becomes of a
//! transaction whose link is lost.

use crate::command::{Class, Leased, Local};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::lease::Lease;
use crate::exchange::ticket::Purpose;
use crate::exchange::{ClientKey, Exchange};
use crate::resp::{Request, encode};
use crate::session::Reject;
use crate::telemetry::RequestClass;

impl Exchange {
    pub(super) fn begin_multi(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Queued));
        self.on_lease(job.key, placed, |lease| {
            lease.in_multi = true;
            lease.broken = false;
            lease.selected = None;
        });
        placed
    }

    pub(super) fn watch(&mut self, job: Job, raw: &[u8]) -> Placed {
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Plain));
        self.on_lease(job.key, placed, |lease| lease.watching = true);
        placed
    }

    /// Without a link that watches, there is nothing to end.
    pub(super) fn unwatch(&mut self, job: Job, raw: &[u8]) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Done;
        };
        let lease = client.lease.as_deref_mut();
        if let Some(lease) = lease {
            lease.stale_watch = false;
            if lease.watching && lease.link.is_some() {
                let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Plain));
                self.on_lease(job.key, placed, |lease| lease.watching = false);
                return placed;
            }
            lease.watching = false;
        }
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
        let broken = self.lease_of(job.key).is_some_and(|lease| lease.broken);
        match class {
            Class::Leased(Leased::Exec | Leased::Discard) if broken => {
                self.end_broken_multi(job, class)
            }
            _ if broken => self.reject(job, RequestClass::Leased, Reject::TransactionLost),
            Class::Leased(Leased::Exec) => self.exec(job, request.raw()),
            Class::Leased(Leased::Discard) => {
                let placed = self.send_on_lease(job, request.raw(), Kind::leased(Purpose::Plain));
                self.on_lease(job.key, placed, end_multi);
                placed
            }
            Class::Local(Local::Auth | Local::Hello | Local::ClientReply) => {
                self.not_inside_multi(job, request)
            }
            Class::Leased(leased) if leased.is_subscription() || is_sticky(leased) => {
                self.not_inside_multi(job, request)
            }
            Class::Local(Local::Select) => {
                let index = request
                    .arg1()
                    .and_then(|index| std::str::from_utf8(index).ok());
                let index = index.and_then(|index| index.parse().ok());
                let placed = self.queue(job, request.raw());
                self.on_lease(job.key, placed, |lease| {
                    lease.selected = index.or(lease.selected)
                });
                placed
            }
            Class::Local(
                Local::ClientList
                | Local::ClientKill
                | Local::ClientUnblock
                | Local::ClientId
                | Local::ClientInfo
                | Local::ClientSetname
                | Local::ClientSetinfo
                | Local::ClientGetname
                | Local::ClientNoEvict
                | Local::ClientCapa,
            ) => self.not_inside_multi(job, request),
            _ => self.queue(job, request.raw()),
        }
    }

    fn queue(&mut self, job: Job, raw: &[u8]) -> Placed {
        self.send_on_lease(job, raw, Kind::leased(Purpose::Queued))
    }

    /// What would change the link under the transaction's feet is refused; the transaction goes on.
    fn not_inside_multi(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let reject = Reject::NotOffered {
            command: request.name(),
            sub: b"between MULTI and EXEC",
        };
        self.reject(job, RequestClass::Refused, reject)
    }

    fn exec(&mut self, job: Job, raw: &[u8]) -> Placed {
        let stale = self
            .lease_of(job.key)
            .is_some_and(|lease| lease.stale_watch);
        // What was watched is out of sight, so the transaction must not happen: it is discarded,
        // and the client hears what Redis says when a watched key was touched.
        let (raw, purpose) = if stale {
            self.scratch.clear();
            encode::request(&mut self.scratch, &[b"DISCARD"]);
            (None, Purpose::ExecNever)
        } else {
            (Some(raw), Purpose::Exec)
        };
        let discard = std::mem::take(&mut self.scratch);
        let placed = self.send_on_lease(job, raw.unwrap_or(&discard), Kind::leased(purpose));
        self.scratch = discard;
        self.on_lease(job.key, placed, end_multi);
        placed
    }

    /// EXEC or DISCARD of a transaction whose link was lost.
    fn end_broken_multi(&mut self, job: Job, class: Class) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Done;
        };
        let protocol = client.session.protocol;
        let lease = client.lease.take();
        let stale = lease.is_some_and(|lease| lease.stale_watch);
        if class != Class::Leased(Leased::Exec) {
            self.scratch.clear();
            encode::simple(&mut self.scratch, "OK");
            return self.answer(job, RequestClass::Leased, None);
        }
        if stale {
            self.scratch.clear();
            encode::null_array(&mut self.scratch, protocol);
            return self.answer(job, RequestClass::Leased, None);
        }
        self.reject(job, RequestClass::Leased, Reject::ExecAborted)
    }

    fn lease_of(&self, key: ClientKey) -> Option<&Lease> {
        self.clients.get(key)?.lease.as_deref()
    }

    /// Notes something on the lease of a client whose request was placed.
    fn on_lease(&mut self, key: ClientKey, placed: Placed, note: impl FnOnce(&mut Lease)) {
        let lease = self
            .clients
            .get_mut(key)
            .and_then(|client| client.lease.as_deref_mut());
        if placed == Placed::Done
            && let Some(lease) = lease
        {
            note(lease);
        }
    }
}

fn end_multi(lease: &mut Lease) {
    lease.in_multi = false;
    lease.watching = false;
    lease.stale_watch = false;
}

const fn is_sticky(leased: Leased) -> bool {
    matches!(
        leased,
        Leased::Tracking | Leased::ConnectionState | Leased::Monitor
    )
}
