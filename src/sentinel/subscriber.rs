//! Floor 2. The subscription to one Sentinel: kept up, heard, and known to be alive.
//! Carries messages; understands none.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::Fuse;
use futures_util::future::FusedFuture;
use redis::ErrorKind;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::Value;
use redis::aio::{PubSub, PubSubSink};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::sleep;
use tokio::time::timeout;

use crate::net;
use crate::sentinel::link::login;
use crate::sentinel::settings::Timings;
use crate::sentinel::staff::Input;
use crate::sentinel::words::chain;
use crate::topology::{Event, Subscription};
use crate::types::{Credentials, NodeAddr};

/// Wait before a subscription that was forbidden is tried again: rights change by hand.
const FORBIDDEN_PAUSE: Duration = Duration::from_secs(60);

/// Subscribes to one Sentinel for ever.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) sentinel: NodeAddr,
    pub(super) credentials: Option<Credentials>,
    pub(super) timings: Timings,
    pub(super) inputs: mpsc::Sender<Input>,
}

/// Why a subscription ended, or did not begin.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connect(#[from] net::ConnectError),
    #[error(transparent)]
    Refused(#[from] RedisError),
    #[error("no answer within {0:?}")]
    Silent(Duration),
    #[error("the connection was closed")]
    Closed,
    #[error("nobody listens any more")]
    Unheard,
}

impl Subscriber {
    /// Runs until dropped, or until nobody listens any more.
    pub(super) async fn run(self) {
        let mut failures = 0;
        loop {
            let ended = self.listen(&mut failures).await;
            failures += 1;
            let forbidden = ended.is_forbidden();
            let state = if forbidden {
                Subscription::Forbidden
            } else {
                Subscription::Lost { why: chain(&ended) }
            };
            if matches!(ended, Ended::Unheard) || self.tell(state).await.is_err() {
                return;
            }
            let pause = self.timings.resubscribe.delay(failures, fastrand::u32(..));
            sleep(if forbidden { FORBIDDEN_PAUSE } else { pause }).await;
        }
    }

    /// One subscription, from its connection to its end. `failures` is reset once it is up.
    async fn listen(&self, failures: &mut u32) -> Ended {
        let (sink, mut messages) = match self.subscribe().await {
            Ok(pubsub) => pubsub.split(),
            Err(ended) => return ended,
        };
        *failures = 0;
        if self.tell(Subscription::On).await.is_err() {
            return Ended::Unheard;
        }
        let mut beat = interval(self.timings.beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pong = pin!(Fuse::terminated());
        loop {
            // Messages first: what was heard counts even if the connection is ending.
            tokio::select! {
                biased;
                message = messages.next() => {
                    let Some(message) = message else { return Ended::Closed };
                    let payload = String::from_utf8_lossy(message.get_payload_bytes()).into_owned();
                    let channel = message.get_channel_name().to_owned();
                    let from = self.sentinel.clone();
                    if self.inputs.send(Input::Event { from, channel, payload }).await.is_err() {
                        return Ended::Unheard;
                    }
                }
                answer = &mut pong => {
                    if let Err(ended) = answer {
                        return ended;
                    }
                }
                _ = beat.tick() => {
                    // The answer to the last one is waited for by its own limit.
                    if pong.is_terminated() {
                        pong.set(ping(sink.clone(), self.timings.silence).fuse());
                    }
                }
            }
        }
    }

    async fn subscribe(&self) -> Result<PubSub, Ended> {
        let limit = self.timings.connect;
        let stream = net::connect(&self.sentinel, limit).await?;
        let info = login(self.credentials.as_ref());
        let open = async {
            let mut pubsub = PubSub::new(&info, stream).await?;
            let channels: Vec<&str> = Event::channels().collect();
            pubsub.subscribe(channels).await?;
            Ok::<_, RedisError>(pubsub)
        };
        match timeout(limit, open).await {
            Ok(pubsub) => Ok(pubsub?),
            Err(_elapsed) => Err(Ended::Silent(limit)),
        }
    }

    async fn tell(&self, state: Subscription) -> Result<(), mpsc::error::SendError<Input>> {
        let from = self.sentinel.clone();
        self.inputs.send(Input::Subscription { from, state }).await
    }
}

impl Ended {
    fn is_forbidden(&self) -> bool {
        match self {
            Self::Refused(error) => error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm),
            Self::Connect(_) | Self::Silent(_) | Self::Closed | Self::Unheard => false,
        }
    }
}

/// Asks for a sign of life: a peer that is gone without a word sends nothing, for ever.
async fn ping(mut sink: PubSubSink, limit: Duration) -> Result<(), Ended> {
    match timeout(limit, sink.ping::<Value>()).await {
        Ok(Ok(_pong)) => Ok(()),
        Ok(Err(error)) => Err(Ended::Refused(error)),
        Err(_elapsed) => Err(Ended::Silent(limit)),
    }
}
