//! Floor 4. A client with something that sticks to its own link changes its settings: SELECT, AUTH
//! and HELLO go over that link, and hold for link and session once the server has agreed.
//!
//! Nothing is in flight when they are sent, and nothing is sent behind them before their reply:
//! what it would mean is not decided. A link that is lost has decided nothing, and they are placed
//! anew.

use crate::command::Local;
use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{Exchange, LinkKey};
use crate::resp::Request;
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

    /// That has its reply. Returns what the client hears, if that is not the reply.
    pub(super) fn set(
        &mut self,
        (key, ticket): (LinkKey, Ticket),
        reply: &[u8],
        now: Time,
    ) -> Option<Vec<u8>> {
        let client = self.clients.get_mut(ticket.client);
        let lease = client.and_then(|client| client.lease.as_deref_mut());
        let raw = lease.and_then(|lease| lease.setting.take());
        let (local, raw) = raw?;
        self.retire(key);
        let out = self.take_effect((key, ticket.client), (local, &raw), reply, now);
        ticket.spoken.then_some(out)
    }
}
