//! Floor 4. Large replies, which pass in pieces. Nobody keeps what has passed.

use crate::exchange::answers::Violation;
use crate::exchange::link::Usage;
use crate::exchange::marks::Marks;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{Exchange, LinkKey, Role};
use crate::session::Piece;
use crate::types::{Protocol, Time};

impl Exchange {
    /// A piece of a large reply goes to its client at once.
    pub(super) fn piece(&mut self, key: LinkKey, piece: &[u8], now: Time) -> Result<(), Violation> {
        let Some(link) = self.links.get_mut(key) else {
            return Ok(());
        };
        let ticket = link.pipeline.oldest_written().ok_or(Violation::Unasked)?;
        let (lane, index) = (link.lane, link.group);
        let (long, bulky) = (self.settings.long_reply, self.settings.bulky_reply);
        let passed = link.passed.add((ticket.client, ticket.seq), piece.len());
        let is_long = passed > long && link.usage == Usage::Shared && !link.retired;
        if passed > bulky && passed - piece.len() <= bulky {
            self.note_bulky_reply(key, now);
        }
        if is_long {
            self.pass_by(key);
            self.detour(key, now);
        }
        let (Some(link), Some(group)) = (self.links.get_mut(key), self.groups.get_mut(index))
        else {
            return Ok(());
        };
        if ticket.marks != Marks::None {
            group.mark_answered(link, &self.clients, self.generation);
        }
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return Ok(());
        };
        if group.gate.is_armed && lane.role == Role::Master {
            let begun = client.replies.is_begun(ticket.seq);
            if group.gate.cuts((key, lane.node), ticket, begun) {
                return Ok(());
            }
        }
        if ticket.spoken {
            self.pass_on((key, ticket), piece, now);
        }
        Ok(())
    }

    /// Gives a client more of a reply, and reads no more from its link for now if it takes nothing.
    pub(super) fn pass_on(&mut self, (key, ticket): (LinkKey, Ticket), piece: &[u8], now: Time) {
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        self.spares.lend(&mut client.replies, ticket.seq);
        client.replies.deliver(ticket.seq, piece, Piece::More);
        let parked = client.replies.parked_bytes();
        let unread = client.replies.unread();
        let stalls = client.stalled && unread > self.settings.output_high;
        self.touch(ticket.client);
        if stalls {
            // It may be another link than that of its last request.
            self.throttle(key, ticket.client, now);
        }
        if parked > self.settings.output_high {
            self.overtaken(ticket.client, key, now);
        }
    }

    /// Pieces may be passed on unless the whole has to be looked at first.
    pub(super) fn may_stream(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let announces = link.usage == Usage::Hub && link.lane.protocol == Protocol::Resp2;
        let Some(oldest) = link.pipeline.oldest_written() else {
            return false;
        };
        if announces || oldest.counts || link.scanner.is_push() || self.is_left(key) {
            return false;
        }
        match oldest.purpose {
            Purpose::Plain | Purpose::Slow | Purpose::Waits(_) => true,
            Purpose::Hedged | Purpose::Copy => {
                self.decide_early(key, oldest);
                true
            }
            _ => false,
        }
    }
}
