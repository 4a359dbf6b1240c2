//! Floor 0. Tasks that are named, tracked, asked to stop, waited for, and counted when late.
//! Knows nothing of what the tasks do. Nobody else spawns, save `worker` on its own thread.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span};

/// A group of tasks with one way to stop them.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` until it ends; [`Tasks::drain`] waits for it.
    ///
    /// Must be called on a tokio runtime. The future should watch [`Tasks::stopping`].
    pub fn spawn<F>(&self, span: Span, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(future.instrument(span));
    }

    /// Resolves when the tasks have been asked to stop.
    ///
    /// # Cancel safety
    /// Dropping this future changes nothing.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Asks every task to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.stop.cancel();
        self.tracker.close();
    }

    /// Asks every task to stop and waits until they have, or until `deadline` has passed.
    ///
    /// Returns how many were late. The runtime that owns them ends those when it is dropped.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.ask_to_stop();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_late) => self.tracker.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_tasks_that_listen_and_counts_those_that_do_not() {
        let tasks = Tasks::new();
        let listening = tasks.clone();
        tasks.spawn(Span::none(), async move { listening.stopping().await });
        tasks.spawn(Span::none(), std::future::pending());
        assert_eq!(tasks.drain(Duration::from_secs(1)).await, 1);
    }
}
