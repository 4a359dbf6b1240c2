//! Floor 4. What is on its way over a hub's link: the names that requests in flight begin with, and
//! what becomes of those that the server refuses.
//!
//! ```text
//!   SUBSCRIBE a b  refused   a name that was kept for it, and nobody hears, ends
//!   UNSUBSCRIBE a  refused   for the moment: told again a little later, unless it is heard by then
//! ```

use std::collections::HashMap;

use crate::command::Leased;
use crate::exchange::hub::{Hub, Name, REFUSED_PAUSE, begins};
use crate::exchange::ticket::Purpose;
use crate::exchange::{Exchange, GroupIndex, LinkKey};
use crate::resp::Request;
use crate::types::Time;

/// Names for which room is kept where none is in flight.
const KEEP_CAPACITY: usize = 1024;

/// The names that requests in flight on a link begin with.
#[derive(Debug, Default)]
pub(super) struct Begun(HashMap<Name, Counts>);

/// How often: as a channel, a pattern and a sharded channel.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: [u32; 3],
    /// Whether nobody heard it any more, and it was not ended for their sake.
    spared: bool,
}

impl Begun {
    /// A request that begins with this name is in flight.
    pub(super) fn add(&mut self, command: Leased, name: &[u8]) {
        let Some(kind) = kind(command) else { return };
        let counts = match self.0.get_mut(name) {
            Some(counts) => counts,
            None => self.0.entry(Box::from(name)).or_default(),
        };
        if let Some(count) = counts.requests.get_mut(kind) {
            *count += 1;
        }
    }

    /// The server has answered to one of them. Returns whether the name was spared for it.
    pub(super) fn remove(&mut self, command: Leased, name: &[u8]) -> bool {
        let counts = self.0.get_mut(name);
        let Some((counts, kind)) = counts.zip(kind(command)) else {
            return false;
        };
        if let Some(count) = counts.requests.get_mut(kind) {
            *count = count.saturating_sub(1);
        }
        let spared = counts.spared;
        if counts.requests == [0; 3] {
            self.0.remove(name);
            if self.0.is_empty() && self.0.capacity() > KEEP_CAPACITY {
                self.0 = HashMap::new();
            }
        }
        spared
    }

    /// Whether one of them begins with this name.
    pub(super) fn has(&self, command: Leased, name: &[u8]) -> bool {
        let counts = self.0.get(name).zip(kind(begins(command)));
        let count = counts.and_then(|(counts, kind)| counts.requests.get(kind));
        count.is_some_and(|count| *count > 0)
    }

    /// Nobody hears a name that one of them begins with.
    pub(super) fn spare(&mut self, name: &[u8]) {
        if let Some(counts) = self.0.get_mut(name) {
            counts.spared = true;
        }
    }

    /// Whether there are none.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where a command that begins has its count; `None` if it ends.
const fn kind(command: Leased) -> Option<usize> {
    match command {
        Leased::Subscribe => Some(0),
        Leased::Psubscribe => Some(1),
        Leased::Ssubscribe => Some(2),
        _ => None,
    }
}

impl Exchange {
    /// An error: what the oldest request would have begun is not asked for any more. Returns the
    /// names that were kept for it.
    pub(super) fn begun_in_vain(&mut self, key: LinkKey) -> Vec<(Leased, Name)> {
        let mut spared = Vec::new();
        if let Some(link) = self.links.get_mut(key)
            && let Some((ticket, raw)) = link.pipeline.oldest()
            && let Purpose::Subscription(subscription) = ticket.purpose
            && let Some(request) = Request::from_raw(raw)
        {
            let command = subscription.command;
            for name in request.args().skip(1) {
                if link.begun.remove(command, name) && subscription.asked {
                    spared.push((command, Name::from(name)));
                }
            }
        }
        spared
    }

    /// Tells hubs of a group again what their servers would not hear when it was told.
    pub(super) fn end_later(&mut self, index: GroupIndex, now: Time) {
        let Some(group) = self.groups.get_mut(index) else {
            return;
        };
        let due = |hub: &mut Hub| Some((hub.link?, hub.take_later(now)?));
        let due: Vec<_> = group.hubs.iter_mut().filter_map(due).collect();
        for (link, names) in due {
            for (command, name) in names {
                self.end_unheard(link, (command, &name), now);
            }
        }
    }
}

impl Hub {
    /// A name whose end was refused for the moment.
    pub(super) fn end_later(&mut self, command: Leased, name: Name, now: Time) {
        let later = self.later.get_or_insert_default();
        later.0 = now + REFUSED_PAUSE;
        later.1.push((command, name));
    }

    fn take_later(&mut self, now: Time) -> Option<Vec<(Leased, Name)>> {
        let later = self.later.take_if(|(at, _)| *at <= now)?;
        Some(later.1)
    }
}
