//! Floor 1. What is unsettled: which keys have writes that a replica may not have yet, and how far
//! each replica is known to be. Pure: the atomics are shared by all workers and the control plane,
//! and everything else is handed in. Knows no clients, no commands and no sockets.
//!
//! A client that has the reply to its write must find that write, over whatever connection it reads
//! next. Each write marks the *stamps* of its keys with the present *generation*; the control plane
//! makes generations and learns which of them each replica has *settled*. A read may use a replica
//! if no stamp of its keys is above that.
//!
//! ```text
//!   worker            reply to a write read ──► g = generation ──► max(stamp, g) ──► client
//!
//!   control plane     generation = G ──► is it still the master? ──► INFO at the master: R, M
//!                     incarnation of the replica ──► INFO at the replica: R' = R, applied ≥ M
//!                                 └──► settled = G - 1, unless the incarnation is another by now
//!
//!   worker            a read: every stamp ≤ settled of this replica? ──► replica, else master
//!                     a link to the replica opened or broke ──► next incarnation, settled = 0
//! ```
//!
//! # Why no read is stale
//!
//! *Claim*: a write stamped g ≤ G - 1 is within the first M bytes of R. Its worker has read the
//! generation before it became G, and the reply before that; the master has counted the write
//! before it sent the reply (Redis `call()` propagates, `beforeSleep` writes), and was asked after
//! the generation became G. So the order is: counted, replied, read, loaded, raised, asked. Raised
//! *after* the question, the answer could be older than a write with a lower stamp. The part of
//! this order that runs over the network is no order for a memory model; hence `SeqCst` everywhere.
//!
//! *A slow worker* may have loaded its generation long before it marks. The stamp is a maximum: it
//! does not take back what another worker has marked with a later one.
//!
//! *Another master*: between raising and asking, workers may have been told of a switch and have
//! written to the new master, while the old one is asked. So the picture is looked at after
//! raising. If it is still the old one, every write on another master loads G or more. If not, the
//! question is not asked. At a switch all samples are dropped, with the answers that are still on
//! their way, and every replica begins a new incarnation.
//!
//! *The same history*: equal replication ids mean equal bytes up to an offset. A master that was
//! restarted or promoted has a new id (Redis `changeReplicationId`, `shiftReplicationId`), one
//! whose backlog was freed too. Without a backlog, writes are not counted: the first replica to
//! attach makes a new id, so that no sample from before fits. A replica in a full synchronization
//! tells an offset of 1, and that its link is down: it is not believed. A partial one goes on where
//! it was. One that follows a replica may get less than it had, of the same history: an offset that
//! went back begins a new incarnation. One that was promoted, and is not the master of the picture,
//! keeps what it has and settles nothing more; once it follows again, it is judged as any other.
//!
//! *The same process*: a replica that was restarted may have loaded old data. The links to the old
//! process are lost with it, and a worker begins a new incarnation, with nothing settled, when it
//! opens a link, before it puts a read on it that needs any; reads that wait for a link to open
//! need none. A sample belongs to the incarnation that was read before the replica was asked, over
//! a connection that was opened after that incarnation began: it speaks of a process that lived
//! later than the links were opened. If it does not live on, neither do the links. (So the `run_id`
//! need not be asked for: another process means another connection, and that another incarnation.)
//!
//! *Wrong the other way*: two keys may share a stamp, a sample may be dropped, a replica may begin
//! a new incarnation without need. All of that only sends reads to the master.
//!
//! What is **not** promised: to see the writes of others than this process, or to see two reads in
//! order. A write that a failover loses is lost, not late.

mod atomics;
mod pages;
mod sampler;
mod scripts;
mod settled;
mod stamps;
#[cfg(test)]
mod tests;

pub use atomics::{Atomic, Atomics, Std};
pub use sampler::{Ask, Failure, Sampler, Told, View};
pub use scripts::Scripts;
pub use settled::Settled;
pub use stamps::{SLOTS, Slot, Stamps};
