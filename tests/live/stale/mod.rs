//! Reads that miss what was acknowledged before they were asked for: stale ones.
//!
//! Replication is late by a time that a test sets, and by nothing else: every node stands behind a
//! front ([`crate::faults::Fronted`]) which keeps back the bytes of the replication stream alone.
//! Clients write over one connection of a pool and read over another. A value that the new master
//! has not either is lost, and not stale.
//!
//! `make test` has half a minute of it, `make stale-reads` as many seconds as
//! `SWITCHMAN_STALE_SECONDS` says.

mod client;
mod lag;
mod own_writes;
mod record;
mod scene;
mod share;
