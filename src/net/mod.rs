//! Floor 1. Streams: listen, accept, connect. The only module that names `tokio::net`.
//! Knows no RESP.

mod addr;
mod connect;
mod listener;
mod stream;
mod turn;

pub use addr::{ListenAddr, ListenAddrError};
pub use connect::{ConnectError, ConnectStage, connect, resolve};
pub use listener::{BindError, Listener};
pub use stream::{DetachedStream, Stream};
pub use turn::poll_again;
