//! A subscriber by the crate `redis`: over a connection that does nothing else, as RESP2 has it, or
//! over one that goes on with commands, as RESP3 allows.

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{Receiver, channel};

/// Whoever listens.
pub(crate) enum Subscriber {
    /// In RESP2.
    Alone(PubSubSink, PubSubStream),
    /// In RESP3.
    Among(MultiplexedConnection, Receiver<PushInfo>),
}

impl Subscriber {
    /// One that is connected.
    pub(crate) async fn new(client: &Client, resp3: bool) -> Result<Self> {
        if !resp3 {
            let (sink, messages) = client.get_async_pubsub().await?.split();
            return Ok(Self::Alone(sink, messages));
        }
        let (sender, pushes) = channel(16);
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| sender.try_send(push).map_err(|_| "full"));
        let con = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        Ok(Self::Among(con, pushes))
    }

    /// Its connection, where it may go on with commands.
    pub(crate) fn commands(&mut self) -> Option<&mut MultiplexedConnection> {
        match self {
            Self::Alone(..) => None,
            Self::Among(con, _) => Some(con),
        }
    }

    pub(crate) async fn subscribe(&mut self, channel: &str) -> Result<()> {
        match self {
            Self::Alone(sink, _) => sink.subscribe(channel).await?,
            Self::Among(con, _) => con.subscribe(channel).await?,
        }
        Ok(())
    }

    pub(crate) async fn unsubscribe(&mut self, channel: &str) -> Result<()> {
        match self {
            Self::Alone(sink, _) => sink.unsubscribe(channel).await?,
            Self::Among(con, _) => con.unsubscribe(channel).await?,
        }
        Ok(())
    }

    pub(crate) async fn psubscribe(&mut self, pattern: &str) -> Result<()> {
        match self {
            Self::Alone(sink, _) => sink.psubscribe(pattern).await?,
            Self::Among(con, _) => con.psubscribe(pattern).await?,
        }
        Ok(())
    }

    pub(crate) async fn punsubscribe(&mut self, pattern: &str) -> Result<()> {
        match self {
            Self::Alone(sink, _) => sink.punsubscribe(pattern).await?,
            Self::Among(con, _) => con.punsubscribe(pattern).await?,
        }
        Ok(())
    }

    /// What the next message says.
    pub(crate) async fn next(&mut self) -> Result<String> {
        match self {
            Self::Alone(_, messages) => {
                let message = messages.next().await.context("no message")?;
                Ok(message.get_payload()?)
            }
            Self::Among(_, pushes) => next_push(pushes).await,
        }
    }
}

/// What the next message among `pushes` says; confirmations are passed over.
async fn next_push(pushes: &mut Receiver<PushInfo>) -> Result<String> {
    loop {
        let push = pushes.recv().await.context("no more messages")?;
        match push.kind {
            PushKind::Message | PushKind::PMessage => {
                let Some(Value::BulkString(text)) = push.data.last() else {
                    bail!("no message: {push:?}");
                };
                return Ok(String::from_utf8(text.clone())?);
            }
            PushKind::Disconnection => bail!("disconnected"),
            _ => {}
        }
    }
}
