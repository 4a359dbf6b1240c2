//! Floor 1. From a node's address to a connected stream, within a deadline.
//! Names are resolved anew at each connection: in Kubernetes a name stays and its address changes.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{error::Elapsed, timeout};

use super::Stream;
use crate::types::NodeAddr;

/// Idle time before the kernel probes a silent peer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// Time between the kernel's probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// The step at which a connection failed; a label of the failure metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectStage {
    /// Resolving the host name.
    Dns,
    /// Connecting the socket.
    Tcp,
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name did not resolve.
    #[error("cannot resolve {addr}")]
    Resolve {
        /// The address asked for.
        addr: NodeAddr,
        /// The resolver's word.
        source: io::Error,
    },
    /// The host name resolved to no address at all.
    #[error("{addr} resolves to no address")]
    NoAddress {
        /// The address asked for.
        addr: NodeAddr,
    },
    /// No address of the host accepted the connection.
    #[error("cannot connect to {addr}")]
    Connect {
        /// The address asked for.
        addr: NodeAddr,
        /// The last attempt's error.
        source: io::Error,
    },
    /// Resolving and connecting took longer than allowed.
    #[error("no connection to {addr} within {limit:?}")]
    TimedOut {
        /// The address asked for.
        addr: NodeAddr,
        /// The time allowed.
        limit: Duration,
    },
}

impl ConnectError {
    /// The step that failed.
    pub const fn stage(&self) -> ConnectStage {
        match self {
            Self::Resolve { .. } | Self::NoAddress { .. } => ConnectStage::Dns,
            Self::Connect { .. } | Self::TimedOut { .. } => ConnectStage::Tcp,
        }
    }
}

/// Resolves `addr` and connects to the first of its addresses that accepts, within `limit`.
///
/// # Cancel safety
/// Dropping the future closes what was begun.
pub async fn connect(addr: &NodeAddr, limit: Duration) -> Result<Stream, ConnectError> {
    match timeout(limit, resolve_and_connect(addr)).await {
        Ok(result) => result,
        Err(Elapsed { .. }) => Err(ConnectError::TimedOut {
            addr: addr.clone(),
            limit,
        }),
    }
}

/// All IP addresses of `host` now, within `limit`; none where it has none or does not resolve.
///
/// # Cancel safety
/// Dropping the future changes nothing.
pub async fn resolve(host: &str, limit: Duration) -> Vec<IpAddr> {
    match timeout(limit, lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|socket| socket.ip()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn resolve_and_connect(addr: &NodeAddr) -> Result<Stream, ConnectError> {
    let found = lookup_host((addr.host(), addr.port()))
        .await
        .map_err(|source| ConnectError::Resolve {
            addr: addr.clone(),
            source,
        })?;
    let mut last = None;
    for socket in found {
        match TcpStream::connect(socket).await {
            Ok(stream) => return Ok(prepare(stream)),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(source) => Err(ConnectError::Connect {
            addr: addr.clone(),
            source,
        }),
        None => Err(ConnectError::NoAddress { addr: addr.clone() }),
    }
}

/// Sets what every TCP stream of ours has: no Nagle delay, and keepalive.
pub(super) fn prepare(stream: TcpStream) -> Stream {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    // A socket that refuses these options is dead or dying; its first read says so better.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    Stream::Tcp(stream)
}
