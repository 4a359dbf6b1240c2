//! Floor 2. One turn of a connection: everything that waits is written, everything there is read.

use std::io;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use crate::net::{Stream, poll_again};

/// Whose connection it is.
pub trait Peer {
    /// The bytes to write next.
    fn unwritten(&self) -> &[u8];
    /// The socket took the first `count` of them.
    fn written(&mut self, count: usize);
    /// Whether it wants to read now; a throttled connection does not.
    fn wants_input(&self) -> bool;
    /// The node sent `data`; false if the connection must not be used any more.
    fn received(&mut self, data: &[u8]) -> bool;
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// The node closed it.
    Closed,
    /// It broke.
    Broken(io::Error),
    /// What the node sent made no sense.
    Nonsense,
}

/// Reads of one turn; a node that never pauses must not starve the other connections of its thread.
const READS_PER_TURN: usize = 16;

/// Writes what waits and reads what is there, until neither goes on.
///
/// Ready when the connection has ended. Otherwise the task is woken when the socket can go on; for
/// new bytes to write, or when a throttled peer wants input again, the caller wakes it.
pub fn poll_turn(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
    peer: &mut impl Peer,
) -> Poll<End> {
    for _ in 0..READS_PER_TURN {
        if let Poll::Ready(Err(error)) = write_all(stream, cx, peer) {
            return Poll::Ready(End::Broken(error));
        }
        if !peer.wants_input() {
            return Poll::Pending;
        }
        let mut buf = ReadBuf::new(scratch);
        match stream.poll_read(cx, &mut buf) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(End::Closed),
            Poll::Ready(Ok(_)) => {
                if !peer.received(buf.filled()) {
                    return Poll::Ready(End::Nonsense);
                }
            }
            Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
        }
    }
    poll_again(cx)
}

/// Writes until nothing is left or the socket takes no more.
fn write_all(stream: &Stream, cx: &mut Context<'_>, peer: &mut impl Peer) -> Poll<io::Result<()>> {
    loop {
        let bytes = peer.unwritten();
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match stream.try_write(bytes) {
            Ok(count) => peer.written(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match stream.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    other => return other,
                }
            }
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}
