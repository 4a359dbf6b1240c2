//! Floor 6. Ctrl-C and SIGTERM as a question that the story asks between two steps, so that its
//! children are ended in order. Knows nothing of the children.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::sync::oneshot;

/// Listens for both signals for as long as it lives.
///
/// The handlers themselves stay with the process, which therefore should end after the story.
#[derive(Debug)]
pub(super) struct Interrupt {
    heard: Arc<AtomicBool>,
    /// Dropped first: its end is what ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Interrupt {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let (mut interrupted, mut terminated) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind);
            (
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
            )
        };
        let heard = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&heard);
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                // Whichever comes first: all of them end the thread.
                tokio::select! {
                    _ = interrupted.recv() => tell.store(true, Ordering::Relaxed),
                    _ = terminated.recv() => tell.store(true, Ordering::Relaxed),
                    _ = stopped => {}
                }
            });
        });
        Ok(Self {
            heard,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Whether one of the signals has come.
    pub(super) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic itself.
            let _reported = thread.join();
        }
    }
}
