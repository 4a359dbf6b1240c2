//! Floor 4. A client with something that sticks to its own link changes its settings: SELECT, AUTH
//! and HELLO go over that link, and hold for link and session once the server has agreed.
//!
//! Nothing is in flight when they are sent, and nothing is sent behind them before their reply:
//! what it would mean is not decided. A link that is lost has decided nothing, and they are placed
//! anew.

use crate::command::Local;
use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::inside::Carried;
use crate::exchange::ticket::{Effect, Purpose, Ticket};
use crate::exchange::{Exchange, LinkKey};
use crate::resp::{Request, encode};
use crate::session::Piece;
use crate::types::Time;

impl Exchange {
    /// SELECT, AUTH or HELLO. The link does not go back to the pool.
    pub(super) fn change_settings_of_lease(
        &mut self,
        job: Job,
        request: &Request<'_>,
        local: Local,
    ) -> Placed {
        if local == Local::Hello && request.argc() == 1 {
            return self.place_local(job, request, local);
        }
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if job.again.is_none() && client.replies.outstanding() > 0 {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let placed = self.send_on_lease(job, request.raw(), Kind::leased(Purpose::Setting));
        let raw = request.raw();
        self.on_lease(job.key, placed, |lease| {
            lease.setting = Some((local, Box::from(raw)));
        });
        placed
    }

    /// RESET goes over the client's own link too where that brings more than replies: what the
    /// server has sent before it comes before its reply. `None`: there is nothing to wait for.
    pub(super) fn reset_link(&mut self, job: Job) -> Option<Placed> {
        let lease = self.lease_of(job.key)?;
        if !lease.tracking.is_on() || lease.sticky || !self.is_open(lease.link?) {
            return None;
        }
        let link = self.take_lease(job).ok()?;
        let (mut raw, kind) = (Vec::new(), Kind::leased(Purpose::Reset));
        encode::request(&mut raw, &[b"RESET"]);
        let effect = Effect::Reads;
        let placed = self.send(link, job, &raw, Kind { effect, ..kind });
        self.on_lease(job.key, placed, |lease| {
            lease.setting = Some((Local::Reset, raw.into_boxed_slice()));
        });
        Some(placed)
    }

    /// That has its reply, whatever it says: the link is given up. It is never silent.
    pub(super) fn was_reset(&mut self, ticket: Ticket, now: Time) {
        self.begin_again(ticket.client, now);
        self.scratch.clear();
        encode::simple(&mut self.scratch, "RESET");
        if let Some(client) = self.clients.get_mut(ticket.client) {
            client
                .replies
                .deliver(ticket.seq, &self.scratch, Piece::Last);
        }
    }

    /// That has its reply.
    pub(super) fn set(
        &mut self,
        (key, ticket): (LinkKey, Ticket),
        reply: &[u8],
        now: Time,
    ) -> Carried {
        let client = self.clients.get_mut(ticket.client);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        let raw = lease.and_then(|lease| lease.setting.take());
        let Some((local, raw)) = raw else {
            return Carried::AsItIs;
        };
        self.retire(key);
        if local == Local::Hello {
            self.doubt_login((key, &raw), reply);
        }
        let out = self.take_effect((key, ticket.client), (local, &raw), reply, now);
        if ticket.spoken {
            Carried::Rewritten(out)
        } else {
            Carried::AsItIs
        }
    }
}
