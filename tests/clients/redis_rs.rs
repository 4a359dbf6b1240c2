//! What an application does with the crate `redis` and its defaults.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind, Value, cmd, pipe};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

/// Time for one feature.
const SOON: Duration = Duration::from_secs(5);

/// Uses the Redis at `url`, prints a line for each feature, and says whether all worked.
pub(crate) fn run(url: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::open(url).unwrap();
        let mut all = feature("connect", connect(&client)).await;
        all &= feature("get_set", get_set(&client)).await;
        all &= feature("pipeline", pipeline(&client)).await;
        all &= feature("transaction", transaction(&client)).await;
        all &= feature("watch_conflict", watch_conflict(&client)).await;
        all &= if url.ends_with("resp3") {
            feature("pubsub", pubsub_among_commands(&client)).await
        } else {
            feature("pubsub", pubsub(&client)).await
        };
        all & feature("blpop", blpop(&client)).await
    })
}

async fn feature(name: &str, work: impl Future<Output = Result<()>>) -> bool {
    let done = timeout(SOON, work)
        .await
        .unwrap_or_else(|late| Err(late.into()));
    match &done {
        Ok(()) => println!("ok {name}"),
        Err(error) => println!("FAIL {name}: {error}"),
    }
    done.is_ok()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "reads like an assertion where it is called"
)]
fn expect<T: Debug + PartialEq>(what: &str, got: T, want: T) -> Result<()> {
    ensure!(got == want, "{what}: got {got:?}, want {want:?}");
    Ok(())
}

async fn connected(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    client.get_multiplexed_async_connection().await
}

async fn connect(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    expect(
        "ping",
        cmd("PING").query_async(&mut con).await?,
        "PONG".to_owned(),
    )
}

async fn get_set(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let set = cmd("SET")
        .arg("rs:k")
        .arg("value")
        .query_async(&mut con)
        .await?;
    expect("set", set, "OK".to_owned())?;
    let got = cmd("GET").arg("rs:k").query_async(&mut con).await?;
    expect("get", got, "value".to_owned())?;
    expect(
        "delete",
        cmd("DEL").arg("rs:k").query_async(&mut con).await?,
        1,
    )?;
    let got: Option<String> = cmd("GET").arg("rs:k").query_async(&mut con).await?;
    expect("get of nothing", got, None)
}

async fn pipeline(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let mut batch = pipe();
    let mut want = Vec::new();
    for i in 0..250 {
        let key = format!("rs:p:{i}");
        batch.cmd("SET").arg(&key).arg(i).cmd("GET").arg(&key);
        want.extend(["OK".to_owned(), i.to_string()]);
    }
    let got: Vec<String> = batch.query_async(&mut con).await?;
    expect("500 replies", got, want)
}

async fn transaction(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let _deleted: u64 = cmd("DEL")
        .arg("rs:n")
        .arg("rs:l")
        .query_async(&mut con)
        .await?;
    let mut block = pipe();
    block
        .atomic()
        .cmd("INCR")
        .arg("rs:n")
        .cmd("RPUSH")
        .arg("rs:l")
        .arg("a")
        .arg("b");
    block.cmd("LRANGE").arg("rs:l").arg(0).arg(-1);
    let got: (i64, i64, Vec<String>) = block.query_async(&mut con).await?;
    expect("replies", got, (1, 2, vec!["a".to_owned(), "b".to_owned()]))
}

async fn watch_conflict(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let mut other = connected(client).await?;
    cmd("WATCH").arg("rs:w").exec_async(&mut con).await?;
    cmd("SET")
        .arg("rs:w")
        .arg("other")
        .exec_async(&mut other)
        .await?;
    let mut block = pipe();
    block.atomic().cmd("SET").arg("rs:w").arg("mine");
    let refused: Option<Vec<String>> = block.query_async(&mut con).await?;
    expect("with a conflict", refused, None)?;
    let got = cmd("GET").arg("rs:w").query_async(&mut con).await?;
    expect("value", got, "other".to_owned())?;
    cmd("WATCH").arg("rs:w").exec_async(&mut con).await?;
    let done: Option<Vec<String>> = block.query_async(&mut con).await?;
    expect("without a conflict", done, Some(vec!["OK".to_owned()]))
}

async fn publish(con: &mut MultiplexedConnection, channel: &str, text: &str) -> Result<i64> {
    Ok(cmd("PUBLISH")
        .arg(channel)
        .arg(text)
        .query_async(con)
        .await?)
}

/// Over a connection that does nothing else, as RESP2 has it.
async fn pubsub(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let (mut sink, mut messages) = client.get_async_pubsub().await?.split();
    sink.subscribe("rs:c").await?;
    expect("receivers", publish(&mut con, "rs:c", "hello").await?, 1)?;
    let message = messages.next().await.context("no message")?;
    expect("message", message.get_payload()?, "hello".to_owned())?;
    sink.psubscribe("rs:d*").await?;
    sink.unsubscribe("rs:c").await?;
    publish(&mut con, "rs:c", "too late").await?;
    publish(&mut con, "rs:done", "done").await?;
    let message = messages.next().await.context("no message")?;
    expect("message", message.get_payload()?, "done".to_owned())?;
    sink.punsubscribe("rs:d*").await?;
    Ok(())
}

/// Over a connection that goes on with commands, as RESP3 allows.
async fn pubsub_among_commands(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    let (sender, mut pushes) = channel(16);
    let config = AsyncConnectionConfig::new()
        .set_push_sender(move |push: PushInfo| sender.try_send(push).map_err(|_| "full"));
    let mut subscriber = client
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    subscriber.subscribe("rs:c").await?;
    expect("receivers", publish(&mut con, "rs:c", "hello").await?, 1)?;
    expect(
        "message",
        next(&mut pushes, PushKind::Message).await?,
        "hello".to_owned(),
    )?;
    cmd("SET")
        .arg("rs:s")
        .arg("subscribed")
        .exec_async(&mut subscriber)
        .await?;
    let got = cmd("GET").arg("rs:s").query_async(&mut subscriber).await?;
    expect("get between messages", got, "subscribed".to_owned())?;
    subscriber.psubscribe("rs:d*").await?;
    subscriber.unsubscribe("rs:c").await?;
    publish(&mut con, "rs:c", "too late").await?;
    publish(&mut con, "rs:done", "done").await?;
    expect(
        "message",
        next(&mut pushes, PushKind::PMessage).await?,
        "done".to_owned(),
    )?;
    subscriber.punsubscribe("rs:d*").await?;
    Ok(())
}

/// What the next message says, which must be of this kind; confirmations are passed over.
async fn next(pushes: &mut Receiver<PushInfo>, kind: PushKind) -> Result<String> {
    loop {
        let push = pushes.recv().await.context("no more messages")?;
        if push.kind == kind {
            let Some(Value::BulkString(text)) = push.data.last() else {
                bail!("no message: {push:?}");
            };
            return Ok(String::from_utf8(text.clone())?);
        }
        if matches!(
            push.kind,
            PushKind::Message | PushKind::PMessage | PushKind::Disconnection
        ) {
            bail!("unexpected: {push:?}");
        }
    }
}

async fn blpop(client: &Client) -> Result<()> {
    let mut con = connected(client).await?;
    // The default of 500 ms for a reply is not for commands that wait.
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut waiter = client
        .get_multiplexed_async_connection_with_config(&patient)
        .await?;
    let blpop = |seconds: f32| cmd("BLPOP").arg("rs:q").arg(seconds).to_owned();
    let popped = |text: &str| Some(("rs:q".to_owned(), text.to_owned()));

    let _deleted: u64 = cmd("DEL").arg("rs:q").query_async(&mut con).await?;
    cmd("RPUSH")
        .arg("rs:q")
        .arg("ready")
        .exec_async(&mut con)
        .await?;
    expect(
        "at once",
        blpop(4.0).query_async(&mut waiter).await?,
        popped("ready"),
    )?;
    let none: Option<(String, String)> = blpop(0.1).query_async(&mut waiter).await?;
    expect("timed out", none, None)?;

    let four = blpop(4.0);
    let woken = four.query_async::<Option<(String, String)>>(&mut waiter);
    let waking = async {
        loop {
            let info: String = cmd("INFO").arg("clients").query_async(&mut con).await?;
            if !info.contains("blocked_clients:0\r") {
                break;
            }
        }
        cmd("RPUSH")
            .arg("rs:q")
            .arg("woken")
            .exec_async(&mut con)
            .await
    };
    let (woken, waking) = tokio::join!(woken, waking);
    waking?;
    expect("woken", woken?, popped("woken"))
}
