//! Floor 4. A client that becomes a replica of the master (`SYNC`, `PSYNC`), where an operator lets
//! it: what either says from then on is no request and no reply, and passes unread.
//!
//! ```text
//!   REPLCONF …            the client has a link of its own to the end
//!   SYNC      ──► link    when nothing of its client is in flight
//!   … bytes   ──► link    as those of an upload, without an end
//!   … bytes   ◄── link    as those of a long reply, without an end
//! ```
//!
//! It ends with either connection, with the master, and with the process, which waits for nothing
//! on it.

use crate::exchange::client::{Client, Ending};
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::link::State;
use crate::exchange::ticket::Purpose;
use crate::exchange::upload::Upload;
use crate::exchange::{Exchange, LinkKey};
use crate::resp::Request;
use crate::types::Time;

impl Exchange {
    /// Sends what makes a replica of its client.
    pub(super) fn place_tunnel(&mut self, job: Job, request: &Request<'_>) -> Placed {
        let key = match self.upload_link(job) {
            Ok(key) => key,
            Err(placed) => return placed,
        };
        let placed = self.send(key, job, request.raw(), Kind::leased(Purpose::Upload));
        if placed == Placed::Sent {
            self.on_lease(job.key, placed, |lease| lease.sticky = true);
            self.retire(key);
            if let Some(link) = self.links.get_mut(key) {
                link.state = State::Tunnel;
            }
            if let Some(client) = self.clients.get_mut(job.key) {
                client.upload = Some(Box::new(Upload::endless(key)));
            }
        }
        placed
    }

    /// What a node sends to a client that it takes for a replica.
    pub(super) fn pass_through(&mut self, key: LinkKey, bytes: &[u8], now: Time) {
        let link = self.links.get(key);
        if let Some(ticket) = link.and_then(|link| link.pipeline.oldest_ticket().copied()) {
            self.pass_on((key, ticket), bytes, now);
        }
    }

    /// Clients that are replicas are never done.
    pub(super) fn end_tunnels(&mut self) {
        let clients = self.clients.iter();
        let ones = clients.filter(|(_, client)| client.is_replica());
        let keys: Vec<_> = ones.map(|(key, _)| key).collect();
        for key in keys {
            self.end(key, Ending::Now);
        }
    }
}

impl Client {
    /// Whether it has become a replica.
    pub(super) fn is_replica(&self) -> bool {
        self.upload.as_deref().is_some_and(Upload::is_endless)
    }
}

/// Whether a command makes a replica of its client.
pub(super) fn makes_replica(request: &Request<'_>) -> bool {
    let name = request.name();
    name.eq_ignore_ascii_case(b"sync") || name.eq_ignore_ascii_case(b"psync")
}

/// Whether a command says what such a replica is like, over the connection on which it is one.
pub(super) fn tells_replica(request: &Request<'_>) -> bool {
    request.name().eq_ignore_ascii_case(b"replconf")
}
