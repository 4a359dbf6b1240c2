//! Floor 4. What a server has queued of a transaction: kept until EXEC has its reply, so that the
//! transaction can be begun anew when its link is lost before.
//!
//! ```text
//!  MULTI ─ OK ──► commands, each with its QUEUED ──► EXEC sent ──► reply: forgotten
//!                        │ link lost                     │ link lost
//!                        ▼                               ▼
//!    another link: MULTI, OK, the same commands        UNCERTAIN
//! ```
//!
//! A transaction with a command that was refused, or with too much to keep, ends with its link.

use crate::exchange::client::{Client, Wait};
use crate::exchange::dispatch::{Job, Placed};
use crate::exchange::lease::{Lease, Multi};
use crate::exchange::losses::Loss;
use crate::exchange::scripts::Caching;
use crate::exchange::spares::Spares;
use crate::exchange::standing::BREAKS_MAX;
use crate::exchange::ticket::{Purpose, Ticket};
use crate::exchange::{ClientKey, Exchange, LinkKey};
use crate::resp::{Decoded, RequestDecoder, RequestLimits, encode};
use crate::types::Time;

/// Bytes of queued commands that are kept of one transaction.
const KEPT_MAX: usize = 64 * 1024;

/// What is known of the transaction whose replies are coming, whatever the client has sent since.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The commands to which the server has said `QUEUED`, one behind the other.
    commands: Vec<u8>,
    /// How many these are.
    count: usize,
    /// Those among them that bring a script.
    scripts: Vec<Queued>,
    /// Whether SCRIPT FLUSH is queued.
    flushes: bool,
    known: Known,
    /// Whether the server watches keys for it.
    watches: bool,
    /// How often it was begun anew.
    times: u8,
}

/// A queued command that brings a script.
#[derive(Clone, Copy, Debug)]
struct Queued {
    /// Where its bytes are.
    begin: usize,
    end: usize,
    /// How many are queued before it.
    place: usize,
    /// How often a cache was emptied by then.
    emptied: u16,
}

/// How much of a transaction is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// The server has begun none.
    #[default]
    None,
    /// All that it has queued.
    Whole,
    /// Less than it takes to begin it anew.
    Part,
}

/// Whether a transaction that the server had begun has a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Renewal {
    /// It has, or there is no transaction.
    #[default]
    Done,
    /// It was lost.
    Due,
    /// MULTI is on its way over another one.
    Asked,
}

impl Kept {
    /// Whether the server has begun a transaction all of which is known.
    pub(super) fn is_whole(&self) -> bool {
        self.known == Known::Whole
    }

    /// Whether that can be begun anew once more.
    pub(super) fn is_renewable(&self) -> bool {
        self.is_whole() && !self.watches && self.times < BREAKS_MAX
    }

    /// Whether the server watches keys for it.
    pub(super) const fn watches(&self) -> bool {
        self.watches
    }

    /// How often it was begun anew.
    pub(super) const fn times(&self) -> u8 {
        self.times
    }

    /// Whether it empties the server's script cache.
    pub(super) const fn flushes(&self) -> bool {
        self.flushes
    }

    /// The commands that bring a script, as far as they are known: its place among all, its bytes,
    /// and how often a cache was emptied by then.
    pub(super) fn scripts(&self) -> impl Iterator<Item = (usize, &[u8], u16)> {
        self.scripts.iter().filter_map(|it| {
            let raw = self.commands.get(it.begin..it.end)?;
            Some((it.place, raw, it.emptied))
        })
    }

    /// Notes that it cannot be begun anew: not all of it is known, or something was refused.
    pub(super) fn spoil(&mut self) {
        if self.known == Known::Whole {
            self.known = Known::Part;
        }
        self.commands = Vec::new();
    }

    /// The request `raw` has this reply.
    fn note(&mut self, ticket: Ticket, raw: &[u8], reply: &[u8], spares: &mut Spares) {
        match ticket.purpose {
            Purpose::Watch => self.watches = true,
            Purpose::Multi if reply.starts_with(b"+OK") => self.known = Known::Whole,
            Purpose::Queued if self.known != Known::None => {
                self.flushes |= ticket.caching == Caching::Empties;
                if self.known == Known::Part {
                    return;
                }
                let fits = self.commands.len() + raw.len() <= KEPT_MAX;
                if !fits || !reply.starts_with(b"+QUEUED") {
                    return self.spoil();
                }
                if self.commands.capacity() == 0 {
                    self.commands = spares.buffer();
                }
                let begin = self.commands.len();
                self.commands.extend_from_slice(raw);
                if let Caching::Adds(emptied) = ticket.caching {
                    self.scripts.push(Queued {
                        begin,
                        end: self.commands.len(),
                        place: self.count,
                        emptied,
                    });
                }
                self.count += 1;
            }
            _ => {}
        }
    }
}

impl Exchange {
    /// The oldest request of a client's own link has this reply: notes what it means for a
    /// transaction or for tracking.
    pub(super) fn keep_queued(&mut self, key: LinkKey, owner: ClientKey, reply: &[u8]) {
        let (Some(link), Some(client)) = (self.links.get(key), self.clients.get_mut(owner)) else {
            return;
        };
        let (Some((ticket, raw)), Some(lease)) = (link.pipeline.oldest(), &mut client.lease) else {
            return;
        };
        lease.tracking.note_other(ticket.purpose);
        match ticket.purpose {
            Purpose::Exec | Purpose::Undo(_) => {
                let kept = lease.ended(ticket.seq, reply);
                if ticket.purpose == Purpose::Exec {
                    self.seen.executed(link, &kept, reply);
                }
                self.spares.keep(kept.commands);
            }
            Purpose::Tracking => {
                lease.told.note(raw, reply);
                lease.sticky |= !lease.tracking.note(raw, reply);
            }
            Purpose::Caching => lease.tracking.note_choice(reply),
            Purpose::Sticks => {
                lease.told.note(raw, reply);
                lease.sticking = lease.sticking.saturating_sub(1);
                lease.sticky |= !reply.starts_with(b"-");
            }
            purpose => {
                if purpose == Purpose::Multi {
                    lease.opened(ticket.seq, reply);
                }
                lease.kept.note(ticket, raw, reply, &mut self.spares);
            }
        }
    }

    /// Begins a transaction anew, whose link was lost: first MULTI alone. What follows must not be
    /// executed outside of it, should the server refuse that.
    pub(super) fn renew_multi(&mut self, job: Job, link: LinkKey) -> Placed {
        let Some(client) = self.clients.get_mut(job.key) else {
            return Placed::Answered;
        };
        client.wait = Wait::Renewal;
        let Some(lease) = &mut client.lease else {
            return Placed::Answered;
        };
        if lease.renewal == Renewal::Due {
            lease.renewal = Renewal::Asked;
            lease.kept.times = lease.kept.times.saturating_add(1);
            self.renewing.push(job.key);
            let mut multi = Vec::new();
            encode::request(&mut multi, &[b"MULTI"]);
            self.send_internal(link, job, Purpose::Renewal, &multi);
        }
        Placed::Waits
    }

    /// The server has answered to that MULTI: what the former one had queued follows.
    pub(super) fn renew_queue(&mut self, key: LinkKey, ticket: Ticket, reply: &[u8], now: Time) {
        self.end_wait(ticket.client, Wait::Renewal);
        let Some(client) = self.clients.get_mut(ticket.client) else {
            return;
        };
        let Some(lease) = &mut client.lease else {
            return;
        };
        if !reply.starts_with(b"+OK") {
            lease.give_up_multi();
            return self.retire(key);
        }
        lease.renewal = Renewal::Done;
        let commands = std::mem::take(&mut lease.kept.commands);
        let job = Job::new(ticket.client, now, now);
        let (mut decoder, mut inline) = (RequestDecoder::default(), Vec::new());
        let mut rest = &commands[..];
        while let Ok(Decoded::Request { request, consumed }) =
            decoder.decode(rest, &RequestLimits::AUTHENTICATED, &mut inline)
        {
            self.send_internal(key, job, Purpose::Internal, request.raw());
            rest = rest.get(consumed..).unwrap_or_default();
        }
        if let Some(client) = self.clients.get_mut(ticket.client)
            && let Some(lease) = &mut client.lease
        {
            lease.kept.commands = commands;
        }
    }

    /// Gives up the transactions that could not be begun anew within the hold time of what comes
    /// next in them, and the links that do not answer.
    pub(super) fn expire_renewals(&mut self, now: Time) {
        let mut late = Vec::new();
        let (clients, groups) = (&self.clients, &self.groups);
        self.renewing.retain(|key| {
            let waiting = |client: &&Client| client.wait == Wait::Renewal;
            let Some(client) = clients.get(*key).filter(waiting) else {
                return false;
            };
            let Some(group) = groups.get(client.group) else {
                return false;
            };
            let is_late = now.since(client.next_arrived()) >= group.snapshot.hold;
            if is_late {
                late.push(*key);
            }
            !is_late
        });
        for key in late {
            let client = self.clients.get_mut(key);
            let lease = client.and_then(|client| client.lease.as_deref_mut());
            let link = lease.and_then(|lease| {
                lease.give_up_multi();
                lease.link
            });
            if let Some(link) = link {
                self.link_lost(link, Loss::Silent, now);
            }
        }
    }
}

impl Lease {
    /// Notes that the transaction, if there is one, is not begun anew, and not executed.
    pub(super) fn give_up_multi(&mut self) {
        self.kept = Kept::default();
        self.renewal = Renewal::Done;
        if matches!(self.multi, Multi::Open | Multi::Aborted) {
            self.multi = Multi::Broken;
        }
    }
}
