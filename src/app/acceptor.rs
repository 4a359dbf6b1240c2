//! Floor 8. The acceptor's thread: binds every listener before the process says that it listens.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tracing::info_span;

use crate::downstream::{Acceptor, Entrance};
use crate::net::{BindError, ListenAddr, Listener};
use crate::route::Access;
use crate::tasks::Tasks;

/// The running acceptor.
pub(super) struct Accepting {
    /// Addresses of each group's listeners, with the ports that the system chose.
    pub(super) bound: Vec<Vec<ListenAddr>>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Accepting {
    /// Closes the listeners; clients that were accepted stay.
    pub(super) fn stop(self) {
        // If the thread is gone already, its listeners are too.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

/// Time for the accept loops to end: each waits for nothing but the next client.
const DRAIN: Duration = Duration::from_secs(1);

/// An address for clients, and what they may have there.
pub(super) type Listen = (ListenAddr, Access);

/// Binds `listen`, a list for each group, and accepts.
pub(super) fn start(listen: Vec<Vec<Listen>>, acceptor: Acceptor) -> anyhow::Result<Accepting> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let (ready, bound) = mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("acceptor".to_owned())
        .spawn(move || {
            runtime.block_on(async move {
                let tasks = Tasks::new();
                let result = accept_all(&listen, &acceptor, &tasks).await;
                let fine = result.is_ok();
                // The starter waits for exactly this message.
                let _ = ready.send(result);
                if fine {
                    let _ = stopped.await;
                }
                tasks.drain(DRAIN).await;
            });
        })?;
    let bound = bound
        .recv()
        .context("the acceptor's thread ended at its start")??;
    Ok(Accepting {
        bound,
        stop,
        thread,
    })
}

async fn accept_all(
    listen: &[Vec<Listen>],
    acceptor: &Acceptor,
    tasks: &Tasks,
) -> Result<Vec<Vec<ListenAddr>>, BindError> {
    let mut all = Vec::new();
    let mut bound = Vec::new();
    for (group, addrs) in listen.iter().enumerate() {
        let mut own = Vec::new();
        for (addr, access) in addrs {
            let listener = Listener::bind(addr).await?;
            let local = listener.local_addr();
            let local = local.map_err(|source: io::Error| BindError {
                addr: addr.clone(),
                source,
            })?;
            own.push(local);
            let access = *access;
            all.push((listener, Entrance { group, access }));
        }
        bound.push(own);
    }
    for (listener, entrance) in all {
        let group = entrance.group;
        let run = acceptor.clone().run(listener, entrance, tasks.clone());
        tasks.spawn(info_span!("acceptor", group), run);
    }
    Ok(bound)
}
