//! Floor 5. The tasks of one worker's links: open, take turns, end.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::task::{spawn_local, yield_now};
use tracing::{debug, warn};

use super::core::{Core, LinkSlot, Shared};
use crate::exchange::{Exchange, GroupIndex, LinkKey, Loss, OpenFailure, OpenPlan, Opened, Role};
use crate::fence;
use crate::net::Stream;
use crate::session::HelloFacts;
use crate::types::Time;
use crate::upstream::{self, End, Expected, Failure, Peer, Plan};

impl Core {
    pub(super) fn open_link(&mut self, key: LinkKey, plan: &OpenPlan) {
        let Some(shared) = self.shared() else { return };
        let auth = plan.login.as_ref().map(|login| {
            let mut auth = Vec::new();
            login.write(&mut auth, plan.login_by, plan.protocol);
            auth
        });
        let plan = Plan {
            node: plan.node.clone(),
            expected: match plan.role {
                Role::Master => Expected::Master,
                Role::Replica => Expected::Replica,
            },
            auth,
            protocol: plan.protocol,
            database: plan.database,
        };
        let task = spawn_local(run(shared, key, plan)).abort_handle();
        while self.links.len() <= key.index() {
            self.links.push(None);
        }
        if let Some(slot) = self.links.get_mut(key.index()) {
            *slot = Some(LinkSlot {
                key,
                waker: None,
                task,
            });
        }
    }

    /// Has a connection ended at its node. Whoever waits for it hears what came of that.
    pub(super) fn fence(&self, group: GroupIndex, request: fence::Request, who: Option<LinkKey>) {
        let Some(fences) = self.fences.get(group) else {
            return;
        };
        let order = fences.order(request);
        if let (Some(key), Some(shared)) = (who, self.shared()) {
            spawn_local(async move {
                // Without a result the exchange answers at its deadline.
                if let Some(result) = order.result().await {
                    tell(&shared, |exchange, now| exchange.fenced(key, result, now));
                }
            });
        }
    }

    pub(super) fn close_link(&mut self, key: LinkKey) {
        let slot = self.links.get_mut(key.index());
        if let Some(slot) = slot.and_then(|slot| slot.take_if(|slot| slot.key == key)) {
            slot.task.abort();
        }
    }

    pub(super) fn wake_link(&mut self, key: LinkKey) {
        let slot = self.links.get_mut(key.index()).and_then(Option::as_mut);
        if let Some(slot) = slot
            && slot.key == key
            && let Some(waker) = &slot.waker
        {
            waker.wake_by_ref();
        }
    }

    /// One turn of a link. Ready when it is gone.
    fn poll_link(&mut self, key: LinkKey, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        let slot = self.links.get_mut(key.index()).and_then(Option::as_mut);
        let Some(slot) = slot.filter(|slot| slot.key == key) else {
            return Poll::Ready(());
        };
        if !slot
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            slot.waker = Some(cx.waker().clone());
        }
        let now = self.now();
        self.exchange.link_turn(key);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut turn = Turn {
            core: self,
            key,
            now,
        };
        let ended = upstream::poll_turn(stream, cx, &mut scratch, &mut turn);
        self.scratch = scratch;
        let Poll::Ready(end) = ended else {
            return Poll::Pending;
        };
        let loss = match end {
            End::Closed => {
                debug!(node.link = ?key, "node closed the connection");
                Loss::Broken
            }
            End::Broken(error) => {
                debug!(node.link = ?key, %error, "connection to node broke");
                Loss::Broken
            }
            End::Nonsense => {
                warn!(
                    node.link = ?key,
                    "node sent a reply that fits no request; its connection is closed"
                );
                Loss::Nonsense
            }
        };
        self.exchange.link_lost(key, loss, now);
        self.perform(now);
        Poll::Ready(())
    }
}

/// A link during its turn.
struct Turn<'a> {
    core: &'a mut Core,
    key: LinkKey,
    now: Time,
}

impl Peer for Turn<'_> {
    fn unwritten(&self) -> &[u8] {
        self.core.exchange.unwritten(self.key)
    }

    fn written(&mut self, count: usize) {
        if self.core.exchange.written(self.key, count, self.now) {
            self.core.perform(self.now);
        }
    }

    fn wants_input(&self) -> bool {
        !self.core.exchange.is_throttled(self.key)
    }

    fn received(&mut self, data: &[u8]) -> bool {
        // Read anew: between a request's writing and its reply there may be a wait in the kernel.
        self.now = self.core.now();
        let fine = self
            .core
            .exchange
            .link_bytes(self.key, data, self.now)
            .is_ok();
        self.core.perform(self.now);
        fine
    }
}

/// The life of a link.
async fn run(shared: Shared, key: LinkKey, plan: Plan) {
    let settings = shared.borrow().upstream.clone();
    // To connect takes longer than to write what was given to open links in the same turn: that
    // comes first.
    yield_now().await;
    let opened = upstream::open(&plan, &settings).await;
    let mut stream = match opened {
        Ok(upstream::Opened {
            stream,
            hello,
            connection,
        }) => {
            let hello = hello.as_deref().and_then(HelloFacts::read);
            let opened = Opened { hello, connection };
            tell(&shared, |exchange, now| {
                exchange.link_opened(key, opened, now);
            });
            stream
        }
        Err(failure) => {
            debug!(%failure, "cannot open connection to node");
            let failure = as_refusal(failure);
            return tell(&shared, |exchange, now| {
                exchange.link_refused(key, failure, now);
            });
        }
    };
    poll_fn(|cx| shared.borrow_mut().poll_link(key, &mut stream, cx)).await;
}

/// Lets the exchange know something and performs what follows from it.
fn tell(shared: &Shared, event: impl FnOnce(&mut Exchange, Time)) {
    let mut core = shared.borrow_mut();
    let now = core.now();
    event(&mut core.exchange, now);
    core.perform(now);
}

fn as_refusal(failure: Failure) -> OpenFailure {
    let stage = failure.stage();
    match failure {
        Failure::WrongRole { .. } => OpenFailure::WrongRole,
        Failure::NotReady { .. } => OpenFailure::NotReady,
        Failure::LoginWanted { line, hello, .. } => OpenFailure::LoginWanted {
            said: line.into_boxed_slice(),
            said_to_hello: hello.into_boxed_slice(),
        },
        Failure::Refused { line, .. } => OpenFailure::Refused(stage, line.into_boxed_slice()),
        Failure::Connect(_) | Failure::Broken { .. } | Failure::TimedOut { .. } => {
            OpenFailure::Unreachable(stage)
        }
    }
}
