//! Floor 4. Error replies on a client's own link by which a server says that it is no master any
//! more, and that it has not executed what was asked: that goes to the next master.
//!
//! | the request | the reply | what becomes of it |
//! |---|---|---|
//! | the latest of its client | `-READONLY …` | placed anew |
//! | between MULTI and EXEC, the latest | `-READONLY …` | the transaction is begun anew |
//! | EXEC, the latest | `-EXECABORT … because of: READONLY …` | the same |
//!
//! In each case the link is given up. A transaction that cannot be begun anew has the reply passed
//! on.

use crate::command::Repeat;
use crate::exchange::kept::Kept;
use crate::exchange::losses::Loss;
use crate::exchange::standing::Begun;
use crate::exchange::ticket::Purpose::{self, Waits};
use crate::exchange::ticket::Ticket;
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::types::Time;

/// Redis server.c, `processCommand`.
const READONLY: &[u8] = b"-READONLY ";

/// Redis multi.c, `execCommandAbort`.
const EXEC_READONLY: &[u8] = b"-EXECABORT Transaction discarded because of: READONLY ";

/// How often one request is placed anew because of such replies.
const BOUNCES_MAX: u8 = 8;

/// What becomes of a request that a demoted server refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is placed anew.
    Anew,
    /// It is placed anew with its transaction, like what is in flight on a lost link.
    WithTransaction,
}

impl Exchange {
    /// Deals with such a reply to the oldest request of a client's link. False if it is another.
    #[cold]
    pub(super) fn refused_by_demoted(
        &mut self,
        key: LinkKey,
        owner: ClientKey,
        reply: &[u8],
        now: Time,
    ) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let (index, node, usage) = (link.group, link.lane.node, link.usage);
        if link.left.is_some() {
            // It is known to be none.
            return false;
        }
        let Some((ticket, raw)) = link.pipeline.oldest() else {
            return false;
        };
        let Some(refused) = self.what_of_refused(owner, ticket, reply, now) else {
            return false;
        };
        let again = ticket.again(usage, ticket.bounces + 1, raw);
        self.distrust(index, node, now);
        self.report_demoted(index, node);
        if refused == Refused::Anew {
            if let Some(link) = self.links.get_mut(key) {
                link.pipeline.complete();
            }
            self.uncount(ticket, key);
            if let Some(client) = self.clients.get_mut(ticket.client) {
                client.try_again(again);
            }
            self.touch(ticket.client);
        }
        self.lose(key, Loss::Left, now);
        true
    }

    fn what_of_refused(
        &self,
        owner: ClientKey,
        ticket: Ticket,
        reply: &[u8],
        now: Time,
    ) -> Option<Refused> {
        let client = self.clients.get(owner)?;
        if ticket.bounces >= BOUNCES_MAX {
            return None;
        }
        let inside_script = memchr::memmem::find(reply, b" script: ").is_some();
        let latest = client.replies.is_latest(ticket.seq) && !inside_script;
        let readonly = latest && reply.starts_with(READONLY);
        let begun = client.lease.as_deref().map(|lease| Begun::of(lease, now));
        let whole = begun.and_then(|begun| begun.kept);
        let whole = whole.is_some_and(Kept::is_renewable);
        match ticket.purpose {
            Purpose::Plain | Waits(Repeat::Always | Repeat::IfUndone) if readonly => {
                Some(Refused::Anew)
            }
            Purpose::Queued if readonly && whole => Some(Refused::WithTransaction),
            Purpose::Exec if latest && whole && reply.starts_with(EXEC_READONLY) => {
                Some(Refused::Anew)
            }
            _ => None,
        }
    }
}
