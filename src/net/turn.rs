//! Floor 1. Turns: whoever never runs out of work lets the others have theirs.

use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::yield_now;

/// Ends a turn before its work is done: the task is polled again once all that are ready had a turn
/// and the sockets were asked who else is. A task that only wakes itself is polled up to 61 times
/// (tokio's event interval) before anybody looks at the sockets, and 61 turns of a large value are
/// some 15 ms, for which small commands would wait.
pub fn poll_again<T>(cx: &mut Context<'_>) -> Poll<T> {
    // The first poll asks for the next one; what is polled then is the task, not this.
    let _pending = pin!(yield_now()).poll(cx);
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::runtime::LocalRuntime;
    use tokio::task::spawn_local;

    use super::*;

    #[test]
    fn sockets_are_looked_at_between_turns() {
        let later = LocalRuntime::new().unwrap().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, server) = tokio::join!(client, listener.accept());
            let (client, mut server) = (client.unwrap(), server.unwrap().0);
            let turns = Rc::new(Cell::new(0));
            let taken = Rc::clone(&turns);
            let heard = spawn_local(async move {
                assert_eq!(server.read_u8().await.unwrap(), 7);
                taken.get()
            });
            let busy = spawn_local(poll_fn(move |cx| {
                turns.set(turns.get() + 1);
                if turns.get() == 100 {
                    client.try_write(&[7]).unwrap();
                }
                assert!(turns.get() < 1_000_000, "nobody looks at the socket");
                poll_again::<()>(cx)
            }));
            let heard = heard.await.unwrap();
            busy.abort();
            heard - 100
        });
        assert!(later < 5, "{later} turns later");
    }
}
