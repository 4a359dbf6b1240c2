//! Floor 4. Requests seen before it is their turn, so that their stamps come from memory together.
//! Knows where they are, and nothing of what they do.

use crate::consistency::{Slot, Stamps};
use crate::exchange::client::Client;
use crate::exchange::node::Group;
use crate::resp::{Request, RequestLimits};

/// Requests seen at a time, at most.
const DEPTH: usize = 16;

/// The same at first. Those behind one that has to wait are seen again when it has waited.
const DEPTH_FIRST: usize = 4;

/// Requests at the front of a client's bytes that are whole, and not placed yet.
///
/// The table of stamps is larger than a processor's own cache and has more pages than it keeps
/// translations of: one stamp after the other would have to be waited for.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    seen: [Option<Seen<'a>>; DEPTH],
    /// The first that is not taken, and where it begins.
    next: usize,
    at: usize,
    /// How many are looked for at the next time.
    depth: usize,
    /// For whom they were seen: who had logged in or not, and in which database.
    authenticated: bool,
    database: u32,
}

#[derive(Clone, Copy, Debug)]
struct Seen<'a> {
    request: Request<'a>,
    slot: Option<Slot>,
}

impl<'a> Ahead<'a> {
    /// Nothing seen yet.
    pub(super) const fn new() -> Self {
        Self {
            seen: [None; DEPTH],
            next: 0,
            at: 0,
            depth: DEPTH_FIRST,
            authenticated: false,
            database: 0,
        }
    }

    /// The request at the front of `bytes`, which are at `at` of all, and the stamp of its first
    /// argument, if it is seen already or can be.
    #[inline]
    pub(super) fn take(
        &mut self,
        (client, group): (&Client, Option<&Group>),
        (at, bytes): (usize, &'a [u8]),
        limits: &RequestLimits,
    ) -> Option<(&Request<'a>, Option<Slot>)> {
        let stamps = group?.stamps_for(client)?;
        let known = self.seen.get(self.next).is_some_and(Option::is_some);
        if !known || self.at != at || self.authenticated != limits.authenticated {
            self.authenticated = limits.authenticated;
            self.database = client.session.database;
            self.look((client, stamps), bytes, limits);
        }
        let seen = self.seen.get(self.next)?.as_ref()?;
        self.next += 1;
        self.at = at + seen.request.raw().len();
        let slot = seen
            .slot
            .filter(|_| self.database == client.session.database);
        Some((&seen.request, slot))
    }

    /// Looks at the front of `bytes`.
    fn look(
        &mut self,
        (client, stamps): (&Client, &Stamps),
        bytes: &'a [u8],
        limits: &RequestLimits,
    ) {
        let (mut slots, mut rest) = ([None; DEPTH], bytes);
        for (at, (place, slot)) in self.seen.iter_mut().zip(&mut slots).enumerate() {
            let found = client.decoder.look_ahead(rest, limits);
            let Some((request, len)) = found.filter(|_| at < self.depth) else {
                *place = None;
                break;
            };
            rest = rest.get(len..).unwrap_or_default();
            let key = request.arg1();
            *slot = key.map(|key| stamps.slot(self.database, key));
            *place = Some(Seen {
                request,
                slot: *slot,
            });
        }
        // Nothing else in between: the processor waits for all of them at once.
        for slot in slots.into_iter().flatten() {
            stamps.prefetch(slot);
        }
        (self.next, self.depth) = (0, DEPTH.min(self.depth * 2));
    }
}
