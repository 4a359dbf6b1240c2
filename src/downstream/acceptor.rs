//! Floor 4. Accepts clients and hands each to the worker that has the fewest.
//!
//! One acceptor, not one listener per worker: with `SO_REUSEPORT` the kernel spreads few clients
//! unevenly, and closing one such listener resets the connections that queue on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::net::{DetachedStream, Listener, Stream};
use crate::route::Access;
use crate::tasks::Tasks;

/// Pause after an accept that failed: out of descriptors, which only time can mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Redis's own words (networking.c).
const TOO_MANY: &[u8] = b"-ERR max number of clients reached\r\n";

/// A client on its way to a worker.
#[derive(Debug)]
pub struct NewClient {
    /// Its socket.
    pub stream: DetachedStream,
    /// The listener it came by.
    pub entrance: Entrance,
    /// Its number in the process, in the order of arrival (`CLIENT ID`).
    pub id: u64,
}

/// What a listener is part of, and what it gives.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// Its master group.
    pub group: usize,
    /// What its clients may have.
    pub access: Access,
}

/// The way to one worker.
#[derive(Clone, Debug)]
pub struct Door {
    /// Takes clients; bounded, so that a stuck worker leaves clients in the kernel's queue.
    pub clients: mpsc::Sender<NewClient>,
    /// Clients that the worker has, those on their way included. The worker counts down.
    pub count: Arc<AtomicUsize>,
}

/// Hands clients out.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// The workers.
    pub doors: Vec<Door>,
    /// Clients of the process at most.
    pub max_clients: usize,
    /// Clients turned away at the limit, for each group; a worker takes them for the metric.
    pub refused: Vec<Arc<AtomicU64>>,
    /// The next client's number, shared by all listeners.
    pub next_client: Arc<AtomicU64>,
}

impl Acceptor {
    /// Accepts the clients of `listener` until the tasks are asked to stop.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener; a client just accepted may be closed with it.
    pub async fn run(self, listener: Listener, entrance: Entrance, tasks: Tasks) {
        let mut in_trouble = false;
        loop {
            // Stopping first: with clients queueing without pause the loop would not end.
            let accepted = tokio::select! {
                biased;
                () = tasks.stopping() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(stream) => {
                    in_trouble = false;
                    self.place(stream, entrance).await;
                }
                Err(error) => {
                    if !in_trouble {
                        warn!(%error, "cannot accept clients; raise the limit of open files");
                    }
                    in_trouble = true;
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn place(&self, stream: Stream, entrance: Entrance) {
        let total: usize = self
            .doors
            .iter()
            .map(|door| door.count.load(Ordering::Relaxed))
            .sum();
        if total >= self.max_clients {
            if let Some(refused) = self.refused.get(entrance.group) {
                refused.fetch_add(1, Ordering::Relaxed);
            }
            // A client that cannot even take this line is closed all the same.
            let _ = stream.try_write(TOO_MANY);
            return;
        }
        let emptiest = self
            .doors
            .iter()
            .min_by_key(|door| door.count.load(Ordering::Relaxed));
        let Some(door) = emptiest else { return };
        let stream = match stream.detach() {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "client gone before it was placed"),
        };
        door.count.fetch_add(1, Ordering::Relaxed);
        let id = self.next_client.fetch_add(1, Ordering::Relaxed);
        let client = NewClient {
            stream,
            entrance,
            id,
        };
        if door.clients.send(client).await.is_err() {
            door.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
