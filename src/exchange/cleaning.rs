//! Floor 4. Links that their client has left in no state for another, where no other can be had in
//! their place: what is left on them is taken away, as far as the master agrees.
//!
//! ```text
//!   DISCARD    +OK, or -ERR DISCARD without MULTI ──► UNWATCH   +OK ──► CLIENT SETNAME ──► pool
//!              anything else ──► closed                         anything else ──► closed
//! ```

use crate::exchange::lease::Lease;
use crate::exchange::link::{Lending, Remains, Usage};
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, LinkKey};
use crate::resp::encode;
use crate::types::{CONNECTION_NAME, Time};

/// What a server says to a DISCARD of which there is no need (Redis multi.c, `discardCommand`).
const NO_TRANSACTION: &[u8] = b"-ERR DISCARD without MULTI";

impl Exchange {
    /// A link that its client has left is in no state for another client. Where the master may take
    /// no further one with this login, it is put in order. False: it has to be closed.
    pub(super) fn clean(&mut self, key: LinkKey, now: Time) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let lane = link.lane;
        let group = self.groups.get(link.group);
        let fine = link.retired
            && group.is_some_and(|group| group.writable == Some(lane.node))
            && link.pipeline.is_empty()
            && link.input.is_empty();
        if !fine || !self.is_needed(key) {
            return false;
        }
        if let Some(link) = self.links.get_mut(key) {
            link.retired = false;
            link.usage = Usage::Leased(None);
        }
        self.clean_from((key, Remains::Transaction), now);
        true
    }

    fn clean_from(&mut self, (key, remains): (LinkKey, Remains), now: Time) {
        if let Some(link) = self.links.get_mut(key) {
            link.lending = Lending::Cleaned(remains);
        }
        let words: &[&[u8]] = match remains {
            Remains::Transaction => &[b"DISCARD"],
            Remains::Watch => &[b"UNWATCH"],
            Remains::Name => &[b"CLIENT", b"SETNAME", CONNECTION_NAME],
        };
        let mut raw = Vec::new();
        encode::request(&mut raw, words);
        self.send_nobodys(key, Purpose::Turning, &raw, now);
    }

    /// The master has answered that.
    pub(super) fn cleaned(&mut self, (key, remains): (LinkKey, Remains), reply: &[u8], now: Time) {
        let is_ok = reply.starts_with(b"+OK");
        let (fine, next) = match remains {
            Remains::Transaction => (
                is_ok || reply.starts_with(NO_TRANSACTION),
                Some(Remains::Watch),
            ),
            Remains::Watch => (is_ok, Some(Remains::Name)),
            // What else should a link be called that its user may not name?
            Remains::Name => (true, None),
        };
        let is_needed = self.links.get(key).is_some_and(|link| !link.retired);
        match next {
            _ if !fine || !is_needed => {
                self.discard(key);
            }
            Some(next) => self.clean_from((key, next), now),
            None => {
                if let Some(link) = self.links.get_mut(key) {
                    link.lending = Lending::No;
                }
                self.pool_or_close(key, now);
            }
        }
    }
}

impl Lease {
    /// Whether it is known what to say to a server, so that nothing of it is left.
    pub(super) fn may_be_undone(&self) -> bool {
        !self.sticky && self.sticking == 0 && !self.tracking.was_on()
    }
}
