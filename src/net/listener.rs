//! Floor 1. Bind and accept, TCP and Unix; which accept errors are worth another try.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener, lookup_host};

use super::connect::prepare;
use super::{ListenAddr, Stream};

/// Connections the kernel keeps for us between two accepts (Redis's `tcp-backlog` is 511).
const BACKLOG: i32 = 1024;

/// A bound socket that gives clients.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix-domain; the path is removed when the listener is dropped, and before the socket closes:
    /// whoever finds nobody listening may put a socket of his own there.
    Unix(SocketPath, UnixListener),
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}; is another process using it?")]
pub struct BindError {
    /// The address asked for.
    pub addr: ListenAddr,
    /// The system's word.
    pub source: io::Error,
}

/// Removes the socket's path when dropped.
#[derive(Debug)]
pub struct SocketPath(PathBuf);

impl Drop for SocketPath {
    fn drop(&mut self) {
        // Nothing to tell anybody: somebody may have tidied it away.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Binds `addr`. A Unix path where nobody listens any more is taken over.
    pub async fn bind(addr: &ListenAddr) -> Result<Self, BindError> {
        let bound = match addr {
            ListenAddr::Tcp { host, port } => bind_tcp(host, *port).await,
            ListenAddr::Unix(path) => bind_unix(path).await,
        };
        bound.map_err(|source| BindError {
            addr: addr.clone(),
            source,
        })
    }

    /// The address bound, with the port that the system chose where 0 was asked for.
    pub fn local_addr(&self) -> io::Result<ListenAddr> {
        match self {
            Self::Tcp(listener) => {
                let addr = listener.local_addr()?;
                Ok(ListenAddr::Tcp {
                    host: addr.ip().to_string(),
                    port: addr.port(),
                })
            }
            Self::Unix(path, _) => Ok(ListenAddr::Unix(path.0.clone())),
        }
    }

    /// Waits for the next client. An `Err` is passing trouble (out of descriptors, a client that
    /// was gone already): try again after a moment.
    ///
    /// # Cancel safety
    /// Dropping this future loses no client.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| prepare(stream)),
            Self::Unix(_, listener) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

async fn bind_tcp(host: &str, port: u16) -> io::Result<Listener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host resolves to no address");
    for addr in lookup_host((host, port)).await? {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        match socket
            .bind(&addr.into())
            .and_then(|()| socket.listen(BACKLOG))
        {
            Ok(()) => return TcpListener::from_std(socket.into()).map(Listener::Tcp),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    if is_socket(path).await && tokio::net::UnixStream::connect(path).await.is_err() {
        tokio::fs::remove_file(path).await?;
    }
    UnixListener::bind(path).map(|listener| Listener::Unix(SocketPath(path.to_owned()), listener))
}

async fn is_socket(path: &Path) -> bool {
    tokio::fs::metadata(path)
        .await
        .is_ok_and(|meta| meta.file_type().is_socket())
}
