//! Floor 4. Where the requests of a lost link stood: sent or not, in a transaction or not, and
//! which transactions can be begun anew on another link. Decides nothing of what clients hear.
//!
//! A transaction is begun anew if no server can have executed it, nothing is watched for it, and
//! all of it is still known: what the server has queued (see `kept.rs`) and what is in flight.

use crate::exchange::kept::Kept;
use crate::exchange::lease::{Lease, Multi, Watch};
use crate::exchange::link::Link;
use crate::exchange::ticket::{Purpose, Undo};
use crate::mux::Sent;
use crate::types::Time;

/// Connections that may break when one request's reply is due next. Each break makes writes of
/// others on the same connection uncertain, so that a request must not be asked for ever.
pub(super) const BREAKS_MAX: u8 = 8;

/// Where a lost request stood, and when it was lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) sent: Sent,
    pub(super) close: Close,
    pub(super) at: Time,
}

/// How the transaction ends, on the same link, of which a lost request is a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// Not at all, or with an EXEC or DISCARD that was not wholly written.
    Open,
    /// With an EXEC that was sent.
    Executed,
    /// It must not be executed.
    Undone,
    /// Like `Open`, and it is begun anew.
    Anew,
}

/// What is begun anew of a client's transactions on a link that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Anew {
    /// None that is not among the lost requests as a whole.
    Nothing,
    /// The one that is not closed, from its MULTI on, which has no reply yet.
    Unanswered,
    /// The one that the server had begun, too.
    Begun,
}

/// What a client has begun on a link that is gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun<'a> {
    /// What the server had queued; `None` if nothing may be begun anew.
    pub(super) kept: Option<&'a Kept>,
    /// Whether its last transaction, which is not closed yet, must not be executed.
    pub(super) aborted: bool,
    /// Whether the node has read none of the requests on the link.
    pub(super) unread: bool,
    /// When the link was lost.
    pub(super) at: Time,
}

impl<'a> Begun<'a> {
    /// Nothing.
    pub(super) const fn nothing(at: Time) -> Self {
        Self {
            kept: None,
            aborted: false,
            unread: false,
            at,
        }
    }

    /// What the client with this lease has begun.
    pub(super) fn of(lease: &'a Lease, at: Time) -> Self {
        // A watch of which the next server knows nothing, or what sticks to a link.
        let bare = lease.watch == Watch::No && !lease.sticky;
        let fit = bare && matches!(lease.multi, Multi::No | Multi::Open);
        Self {
            kept: fit.then_some(&lease.kept),
            aborted: lease.multi == Multi::Aborted,
            unread: false,
            at,
        }
    }
}

/// Where each request of a link stands, oldest first, and what is begun anew.
pub(super) fn standings(link: &Link, begun: Begun<'_>) -> (Vec<Standing>, Anew) {
    let requests: Vec<_> = link
        .pipeline
        .lost()
        .map(|lost| {
            let sent = if begun.unread { Sent::No } else { lost.sent };
            (lost.ticket.purpose, sent)
        })
        .collect();
    let kept = begun.kept.filter(|kept| !is_worn(link, kept));
    let fit = fit_transactions(&requests, kept);
    let mut close = match (begun.aborted, fit.last) {
        (true, _) => Close::Undone,
        (false, true) => Close::Anew,
        (false, false) => Close::Open,
    };
    let from_behind = requests.iter().zip(&fit.each).rev().map(|(request, fit)| {
        let not_executed = if *fit { Close::Anew } else { Close::Open };
        match *request {
            (Purpose::Exec, Sent::Yes) => close = Close::Executed,
            (Purpose::Exec, Sent::No) | (Purpose::Undo(Undo::Asked), _) => close = not_executed,
            (Purpose::Undo(_), _) => close = Close::Undone,
            _ => {}
        }
        Standing {
            sent: request.1,
            close,
            at: begun.at,
        }
    });
    let mut standings: Vec<_> = from_behind.collect();
    standings.reverse();
    let first = standings.first().map_or(close, |standing| standing.close);
    let anew = match kept {
        Some(kept) if kept.is_whole() && first == Close::Anew => Anew::Begun,
        Some(_) if fit.last => Anew::Unanswered,
        _ => Anew::Nothing,
    };
    (standings, anew)
}

/// Whether links were lost under these requests so often that they may be the reason.
fn is_worn(link: &Link, kept: &Kept) -> bool {
    let mut lost = link.pipeline.lost();
    let first = lost.next().filter(|lost| lost.sent == Sent::Yes);
    kept.times() >= BREAKS_MAX
        || first.is_some_and(|lost| lost.ticket.breaks.saturating_add(1) >= BREAKS_MAX)
}

/// For each request whether the transaction that it belongs to or ends could be begun anew, and the
/// same of the one that is not closed.
struct Fit {
    each: Vec<bool>,
    last: bool,
}

fn fit_transactions(requests: &[(Purpose, Sent)], kept: Option<&Kept>) -> Fit {
    let Some(kept) = kept else {
        return Fit {
            each: vec![false; requests.len()],
            last: false,
        };
    };
    let (mut fit, mut watches) = (kept.is_whole() && !kept.watches(), kept.watches());
    let each = requests.iter().map(|(purpose, _)| {
        let here = match purpose {
            Purpose::Watch => {
                watches = true;
                return fit;
            }
            Purpose::Multi => {
                fit = !watches;
                return fit;
            }
            Purpose::Exec | Purpose::Undo(_) => fit,
            _ => return fit,
        };
        (fit, watches) = (false, false);
        here
    });
    let each = each.collect();
    Fit { each, last: fit }
}

/// Whether the last MULTI on a link is among the requests without a reply, and not closed.
pub(super) fn is_begun_in_vain(link: &Link) -> bool {
    let ends = |purpose: &Purpose| matches!(purpose, Purpose::Exec | Purpose::Undo(_));
    let purposes = link.pipeline.tickets().map(|ticket| ticket.purpose);
    let last = purposes
        .filter(|purpose| *purpose == Purpose::Multi || ends(purpose))
        .last();
    last == Some(Purpose::Multi)
}
