//! Floor 5. One thread of the data plane: a single-threaded runtime, its clients and its links.
//! Moves bytes between sockets and its `exchange`; decides nothing.
//!
//! ```text
//!  client ready ──► poll_client: read ► exchange.client_bytes ─┐
//!  node ready ────► poll_link:  read ► exchange.link_bytes ────┤
//!  snapshot, tick, new client, stop ───────────────────────────┴► perform: open and close links,
//!                                        report, wake links with bytes, write clients' output
//! ```
//!
//! A link's task is woken by the first request that a turn puts on it and runs after every client
//! that was ready before it, so one write carries the commands of many clients.

mod core;
mod links;
mod neighbours;
mod publish;
mod thread;

pub use neighbours::{Neighbours, neighbours};
pub use publish::{GroupGauges, Hold, Totals};
pub use thread::{CommandPolicy, GroupFeed, Setup, Worker, WorkerHandle, start};
