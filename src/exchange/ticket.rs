//! Floor 4. What is remembered of a request in flight, and given back with its reply or loss.

use crate::command::Repeat;
use crate::exchange::ClientKey;
use crate::exchange::client::{Again, Numbered, Origin};
use crate::exchange::link::Usage;
use crate::exchange::marks::Marks;
use crate::exchange::scripts::Caching;
use crate::session::{Seq, Weighs};
use crate::telemetry::RequestClass;
use crate::types::Time;

/// A request on a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) client: ClientKey,
    pub(super) seq: Seq,
    /// When the request had been read.
    pub(super) arrived: Time,
    pub(super) class: RequestClass,
    pub(super) effect: Effect,
    pub(super) purpose: Purpose,
    /// Whether the client hears the reply (`CLIENT REPLY`).
    pub(super) spoken: bool,
    /// How often a node has refused it as not the one to ask.
    pub(super) bounces: u8,
    /// How many connections broke when its reply was the next one due.
    pub(super) breaks: u8,
    /// Whether a copy of it was sent, because of what was before it.
    pub(super) detoured: bool,
    /// What it changes, as far as anybody keeps account of that.
    pub(super) marks: Marks,
    /// What it does to the script cache of its node.
    pub(super) caching: Caching,
    /// Whether its reply counts clients.
    pub(super) counts: bool,
}

impl Ticket {
    /// What no client has asked for.
    pub(super) const fn nobodys(class: RequestClass, purpose: Purpose, now: Time) -> Self {
        Self {
            client: ClientKey::NOBODY,
            seq: 0,
            arrived: now,
            class,
            effect: Effect::Reads,
            purpose,
            spoken: false,
            bounces: 0,
            breaks: 0,
            detoured: false,
            marks: Marks::None,
            caching: Caching::Nothing,
            counts: false,
        }
    }

    /// The request with these bytes, to be placed anew.
    pub(super) fn again(&self, usage: Usage, bounces: u8, raw: &[u8]) -> Again {
        let origin = match (usage, self.purpose) {
            (Usage::Shared, _) | (Usage::Hub, Purpose::Plain) => Origin::Shared,
            (_, Purpose::Multi | Purpose::Queued | Purpose::Exec | Purpose::Undo(_)) => Origin::Any,
            _ => Origin::Leased,
        };
        let number = Numbered {
            seq: self.seq,
            spoken: self.spoken,
            bounces,
            breaks: self.breaks,
            origin,
            waits_since: None,
        };
        Again {
            number,
            arrived: self.arrived,
            raw: Box::from(raw),
        }
    }
}

/// Whether a lost request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It only reads.
    Reads,
    /// It may write, or do something that must not be done twice.
    Writes,
}

/// What the reply means for the session, besides being passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nothing.
    Plain,
    /// MULTI.
    Multi,
    /// A command between MULTI and EXEC.
    Queued,
    /// EXEC.
    Exec,
    /// MULTI of a transaction that is begun anew; the reply is nobody's.
    Renewal,
    /// WATCH. With the link the watch is lost too, and EXEC will not succeed.
    Watch,
    /// DISCARD or UNWATCH: whether they arrive or the link is lost, the end is the same.
    Undo(Undo),
    /// A command that may take its time, as it administers a node.
    Slow,
    /// A command that waits at the server until something happens or its time is over, and when it
    /// may be issued again.
    Waits(Repeat),
    /// A change of subscriptions.
    Subscription(Subscription),
    /// `CLIENT TRACKING` of a RESP3 client.
    Tracking,
    /// The same, on another link; the reply is nobody's.
    Retracking,
    /// `CLIENT CACHING` of a RESP3 client.
    Caching,
    /// SELECT, AUTH or HELLO where something sticks to the link.
    Setting,
    /// What is asked on a hub before its client hears something no more.
    Leaving,
    /// PING behind that, when the server knows it too.
    Left,
    /// RESET of a client for which something is tracked.
    Reset,
    /// A command that sets something on the connection for good, if the server takes it.
    Sticks,
    /// What is asked about a redirection (`CLIENT GETREDIR`, `CLIENT TRACKINGINFO`).
    Redirected,
    /// A write that is passed on while it comes.
    Upload,
    /// Asked by Switchman itself; the reply is nobody's.
    Internal,
    /// The same, to learn whether its client may use what it has sent, and what says that it may
    /// not.
    Rights(Weighs),
    /// The same, to have a link in another database or protocol.
    Turning,
    /// One of two copies of a read; whose it is, its group's `Hedging` knows by the number that
    /// stands for `seq`.
    Hedged,
    /// A copy of a read that waits behind a long reply; whose it is, `Detours` knows by the number
    /// that stands for `seq`.
    Copy,
}

/// What the client hears when something is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undo {
    /// It asked for that: the node's words, `OK` if there are none.
    Asked,
    /// It sent EXEC, but a key that it watched may have changed: a null.
    StaleWatch,
    /// It sent EXEC, but one of the commands before it was refused here: EXECABORT.
    Aborted,
    /// It sent EXEC with arguments: EXECABORT.
    Misspelt,
}

/// A change of subscriptions in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) command: crate::command::Leased,
    /// Channels or patterns named, each confirmed once.
    pub(super) names: u32,
    /// Whether the client asked; otherwise Switchman restores what it had.
    pub(super) asked: bool,
}
