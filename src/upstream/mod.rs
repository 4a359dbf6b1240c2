//! Floor 2. Connections to Redis nodes: opened with a handshake, then turned once per readiness.
//! Knows no clients and no routing; whose requests it carries is its [`Peer`]'s business.

mod connection;
mod handshake;

pub use connection::{End, Peer, poll_turn};
pub use handshake::{Expected, Failure, Opened, Plan, Settings, Stage, open};
