//! Floor 4. CLIENT TRACKING: turned on again with another link. What changed meanwhile cannot be
//! known, so that its client hears that everything did.
//!
//! Only in RESP3, where invalidations come over the connection that reads. With RESP2 they go to
//! another connection, which has gone too; such a client is closed.

use crate::exchange::client::Wait;
use crate::exchange::dispatch::{Job, Kind, Placed};
use crate::exchange::ticket::Purpose;
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::Request;
use crate::types::Protocol;

/// Bytes of commands with which one client may turn tracking on, to have them sent again: each may
/// bring more prefixes. One with more is closed when its link is lost.
const COMMANDS_MAX: usize = 64 * 1024;

/// The invalidation of everything, as FLUSHALL causes it (Redis tracking.c,
/// `trackingInvalidateKeysOnFlush`).
const EVERYTHING: &[u8] = b">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// What a client's own link tracks for it.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    /// The commands that have turned it on.
    commands: Vec<Box<[u8]>>,
    /// Those without a reply, on or off.
    asked: u32,
}

impl Tracking {
    /// Whether it is on, or may be.
    pub(super) const fn is_on(&self) -> bool {
        !self.commands.is_empty() || self.asked > 0
    }

    /// Whether it is surely on.
    pub(super) const fn is_made(&self) -> bool {
        !self.commands.is_empty()
    }

    /// The link is lost: what has no reply is placed anew.
    pub(super) fn lose_link(&mut self) {
        self.asked = 0;
    }

    /// A command has this reply. False if there is too much to keep.
    pub(super) fn note(&mut self, raw: &[u8], reply: &[u8]) -> bool {
        self.asked = self.asked.saturating_sub(1);
        if !reply.starts_with(b"+OK") {
            return true;
        }
        let mode = Request::from_raw(raw).and_then(|request| request.args().nth(2));
        if mode.is_some_and(|mode| mode.eq_ignore_ascii_case(b"on")) {
            self.commands.push(Box::from(raw));
        } else {
            self.commands = Vec::new();
        }
        let bytes = self.commands.iter().map(|raw| raw.len());
        bytes.sum::<usize>() <= COMMANDS_MAX
    }
}

impl Exchange {
    /// CLIENT TRACKING ON or OFF. From then on all that the client asks goes over its own link.
    pub(super) fn place_tracking(&mut self, job: Job, raw: &[u8]) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        if client.session.protocol == Protocol::Resp2 {
            let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Plain));
            self.on_lease(job.key, placed, |lease| lease.sticky = true);
            return placed;
        }
        // A reply from elsewhere must not come behind the news that all is invalid.
        if job.again.is_none() && client.is_answered_elsewhere() {
            client.wait = Wait::Answers;
            return Placed::Waits;
        }
        let placed = self.send_on_lease(job, raw, Kind::leased(Purpose::Tracking));
        self.on_lease(job.key, placed, |lease| lease.tracking.asked += 1);
        placed
    }

    /// Turns on a new link what was on at the lost one, before anything else is sent there.
    pub(super) fn track_again(&mut self, job: Job, link: LinkKey) {
        let lease = self.lease_of(job.key);
        let commands = lease.map(|lease| lease.tracking.commands.clone());
        for raw in commands.unwrap_or_default() {
            self.send_internal(link, job, Purpose::Retracking, &raw);
        }
    }

    /// A client hears that all that it has read may have changed.
    pub(super) fn invalidate_everything(&mut self, key: ClientKey) {
        self.pass_push(key, EVERYTHING);
    }
}
