//! Floor 4. What is remembered of a request in flight, and given back with its reply or loss.

use crate::exchange::ClientKey;
use crate::session::Seq;
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
    /// A command between MULTI and EXEC, MULTI itself included.
    Queued,
    /// EXEC.
    Exec,
    /// DISCARD in place of an EXEC that must not happen: the client hears a null.
    ExecNever,
    /// A change of subscriptions; ends after so many confirmations, 0: known when it is the oldest.
    Subscription(Subscription),
    /// Asked by Switchman itself; the reply is nobody's.
    Internal,
}

/// A change of subscriptions in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) command: crate::command::Leased,
    /// Channels or patterns named.
    pub(super) names: u32,
    /// Whether the client asked; otherwise Switchman restores what it had.
    pub(super) asked: bool,
}
