//! Floor 1. One stream type for every peer: TCP or Unix.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected byte stream, registered with the runtime of the thread that made it.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix-domain.
    Unix(UnixStream),
}

/// The event of a peer that has closed its side only; where the system has none, it is noticed when
/// the peer is gone.
#[cfg(target_os = "linux")]
const HUNG_UP: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const HUNG_UP: PollFlags = PollFlags::empty();

/// A stream on its way from one thread's runtime to another's.
#[derive(Debug)]
pub enum DetachedStream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// Unix-domain.
    Unix(std::os::unix::net::UnixStream),
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Stream {
    /// Reads what is there into `buf`; `Ok(0)` is the end of the stream.
    ///
    /// Goes through the runtime's readiness, so that a short read spares the read that would
    /// only answer "nothing more".
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        let polled = match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        polled.map_ok(|()| buf.filled().len() - before)
    }

    /// Whether the peer has closed its side, or is gone, however much of what it sent is unread.
    pub fn has_hung_up(&self) -> bool {
        let mut peer = [PollFd::new(self, HUNG_UP)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let gone = HUNG_UP | PollFlags::HUP | PollFlags::ERR;
        poll(&mut peer, Some(&at_once)).is_ok()
            && peer.iter().any(|peer| peer.revents().intersects(gone))
    }

    /// Writes as much of `buf` as the socket takes now; `WouldBlock` when it takes nothing.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(buf),
            Self::Unix(stream) => stream.try_write(buf),
        }
    }

    /// Ready when the socket takes bytes again after `WouldBlock`.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// The peer as `ip:port`, or `unix` for a Unix-domain peer.
    pub fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream
                .peer_addr()
                .map_or_else(|_| "gone".to_owned(), |peer| peer.to_string()),
            Self::Unix(_) => "unix".to_owned(),
        }
    }

    /// Both ends, the peer's first, as servers name those of their clients: `ip:port`, or for a
    /// Unix-domain peer the socket's path with port 0, twice.
    pub fn ends(&self) -> [String; 2] {
        let known = match self {
            Self::Tcp(stream) => {
                let ends = [stream.peer_addr(), stream.local_addr()];
                ends.map(|end| end.map(|end| end.to_string()).ok())
            }
            Self::Unix(stream) => {
                let own = stream.local_addr().ok();
                let path = own.and_then(|own| Some(own.as_pathname()?.display().to_string()));
                let end = path.map(|path| format!("{path}:0"));
                [end.clone(), end]
            }
        };
        known.map(|end| end.unwrap_or_else(|| "?:0".to_owned()))
    }

    /// Takes the stream off this thread's runtime, to hand it to another thread.
    pub fn detach(self) -> io::Result<DetachedStream> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(DetachedStream::Tcp),
            Self::Unix(stream) => stream.into_std().map(DetachedStream::Unix),
        }
    }
}

impl DetachedStream {
    /// Registers the stream with the runtime of this thread.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Self::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
