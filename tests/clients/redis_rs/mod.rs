//! What an application does with the crate `redis` and its defaults, save one: by default a reply
//! that takes more than half a second is an error, and a planned failover takes longer.

mod subscriber;

use std::collections::HashSet;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamPendingReply, StreamReadOptions, StreamReadReply};
use redis::{
    AsyncConnectionConfig, AsyncTypedCommands, Client, ErrorKind, RedisResult, Script,
    ServerErrorKind, cmd, pipe,
};
use tokio::time::timeout;

use crate::redis_rs::subscriber::Subscriber;

/// Time for one feature.
const SOON: Duration = Duration::from_secs(30);

/// Time for a failover, from its traffic to its end.
const SWITCHED: Duration = Duration::from_secs(60);

/// Length of a big value.
const BIG: usize = 32 << 20;

/// Keys to be found.
const KEYS: usize = 10_000;

/// A script that writes and reads.
const LUA: &str = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])";

/// Uses the Redis at `addr`, which speaks `resp`; returns a line for each feature.
pub(crate) fn run(addr: SocketAddr, resp: u32) -> String {
    let app = App {
        addr,
        resp3: resp == 3,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        [
            feature("connect", SOON, app.connect()).await,
            feature("client_name", SOON, app.client_name()).await,
            feature("select", SOON, app.select()).await,
            feature("get_set", SOON, app.get_set()).await,
            feature("pipeline", SOON, app.pipeline()).await,
            feature("transaction", SOON, app.transaction()).await,
            feature("watch_conflict", SOON, app.watch_conflict()).await,
            feature("pubsub", SOON, app.pubsub()).await,
            feature("blocking_pop", SOON, app.blocking_pop()).await,
            feature("script", SOON, app.script()).await,
            feature("scan", SOON, app.scan()).await,
            feature("streams", SOON, app.streams()).await,
            feature("big_value", SOON, app.big_value()).await,
            feature("failover", SWITCHED, app.failover()).await,
        ]
        .concat()
    })
}

/// The line that says how `work` went: `ok`, with what it has to add, or what failed.
async fn feature(
    name: &str,
    limit: Duration,
    work: impl Future<Output = Result<String>>,
) -> String {
    let done = timeout(limit, work)
        .await
        .unwrap_or_else(|late| Err(late.into()));
    match done {
        Ok(more) => format!("ok {name} {more}\n"),
        Err(error) => format!("FAIL {name}: {error:#}\n"),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "reads like an assertion where it is called"
)]
fn expect<T: Debug + PartialEq>(what: &str, got: T, want: T) -> Result<()> {
    ensure!(got == want, "{what}: got {got:?}, want {want:?}");
    Ok(())
}

/// The application, which knows one address.
struct App {
    addr: SocketAddr,
    resp3: bool,
}

impl App {
    /// A client of the database `db`.
    fn client(&self, db: u32) -> RedisResult<Client> {
        // Without this option the library decides.
        let options = if self.resp3 { "?protocol=resp3" } else { "" };
        Client::open(format!("redis://{}/{db}{options}", self.addr))
    }

    async fn connected(&self) -> RedisResult<MultiplexedConnection> {
        self.connected_to(0).await
    }

    async fn connected_to(&self, db: u32) -> RedisResult<MultiplexedConnection> {
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(SOON))
            .set_response_timeout(None);
        let client = self.client(db)?;
        client
            .get_multiplexed_async_connection_with_config(&patient)
            .await
    }

    async fn connect(&self) -> Result<String> {
        let mut con = self.connected().await?;
        expect("ping", con.ping().await?, "PONG".to_owned())?;
        let info: String = cmd("CLIENT").arg("INFO").query_async(&mut con).await?;
        let resp = info.split(' ').find(|field| field.starts_with("resp="));
        Ok(resp.context("no version in CLIENT INFO")?.trim().to_owned())
    }

    async fn client_name(&self) -> Result<String> {
        let mut named = self.connected().await?;
        expect("no name", named.client_getname().await?, None)?;
        named.client_setname("app:1").await?;
        expect(
            "name",
            named.client_getname().await?,
            Some("app:1".to_owned()),
        )?;
        let other = self.connected().await?.client_getname().await?;
        expect("name of another", other, None)?;
        Ok(String::new())
    }

    async fn select(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut fifth = self.connected_to(5).await?;
        con.set("where", "database 0").await?;
        fifth.set("where", "database 5").await?;
        expect(
            "in 0",
            con.get("where").await?,
            Some("database 0".to_owned()),
        )?;
        expect(
            "in 5",
            fifth.get("where").await?,
            Some("database 5".to_owned()),
        )?;
        cmd("SELECT").arg(0).exec_async(&mut fifth).await?;
        let got = fifth.get("where").await?;
        expect("in 0 after SELECT", got, Some("database 0".to_owned()))?;
        Ok(String::new())
    }

    async fn get_set(&self) -> Result<String> {
        let mut con = self.connected().await?;
        con.set("k", "value").await?;
        expect("get", con.get("k").await?, Some("value".to_owned()))?;
        expect("delete", con.del("k").await?, 1)?;
        expect("get of nothing", con.get("k").await?, None)?;
        Ok(String::new())
    }

    async fn pipeline(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut batch = pipe();
        let mut want = Vec::new();
        for i in 0..250 {
            let key = format!("p:{i}");
            batch.cmd("SET").arg(&key).arg(i).cmd("GET").arg(&key);
            want.extend(["OK".to_owned(), i.to_string()]);
        }
        let got: Vec<String> = batch.query_async(&mut con).await?;
        expect("500 replies", got, want)?;
        Ok(String::new())
    }

    async fn transaction(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut block = pipe();
        block
            .atomic()
            .incr("n", 1)
            .rpush("l", &["a", "b"])
            .lrange("l", 0, -1);
        let got: (i64, i64, Vec<String>) = block.query_async(&mut con).await?;
        expect("replies", got, (1, 2, vec!["a".to_owned(), "b".to_owned()]))?;
        Ok(String::new())
    }

    async fn watch_conflict(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut other = self.connected().await?;
        cmd("WATCH").arg("w").exec_async(&mut con).await?;
        other.set("w", "other").await?;
        let mut block = pipe();
        block.atomic().set("w", "mine");
        let refused: Option<Vec<String>> = block.query_async(&mut con).await?;
        expect("with a conflict", refused, None)?;
        expect("value", con.get("w").await?, Some("other".to_owned()))?;
        cmd("WATCH").arg("w").exec_async(&mut con).await?;
        let done: Option<Vec<String>> = block.query_async(&mut con).await?;
        expect("without a conflict", done, Some(vec!["OK".to_owned()]))?;
        Ok(String::new())
    }

    async fn pubsub(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut subscriber = Subscriber::new(&self.client(0)?, self.resp3).await?;
        subscriber.subscribe("c").await?;
        expect("receivers", con.publish("c", "hello").await?, 1)?;
        expect("message", subscriber.next().await?, "hello".to_owned())?;
        if let Some(commands) = subscriber.commands() {
            commands.set("s", "subscribed").await?;
            let got = commands.get("s").await?;
            expect("get between messages", got, Some("subscribed".to_owned()))?;
        }
        subscriber.psubscribe("d*").await?;
        subscriber.unsubscribe("c").await?;
        con.publish("c", "too late").await?;
        con.publish("done", "done").await?;
        expect("message", subscriber.next().await?, "done".to_owned())?;
        subscriber.punsubscribe("d*").await?;
        Ok(String::new())
    }

    async fn blocking_pop(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut waiter = self.connected().await?;
        let popped = |text: &str| Some(["q".to_owned(), text.to_owned()]);
        con.rpush("q", "ready").await?;
        expect("at once", waiter.blpop("q", 4.0).await?, popped("ready"))?;
        expect("timed out", waiter.blpop("q", 0.1).await?, None)?;
        let waking = async {
            wait_until_blocked(&mut con).await?;
            con.rpush("q", "woken").await
        };
        let (woken, waking) = tokio::join!(waiter.blpop("q", 4.0), waking);
        waking?;
        expect("woken", woken?, popped("woken"))?;
        Ok(String::new())
    }

    async fn script(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let script = Script::new(LUA);
        let mut by_name = cmd("EVALSHA");
        by_name.arg(script.get_hash()).arg(1).arg("s").arg("two");
        match by_name.query_async::<String>(&mut con).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            other => bail!("without a script: {other:?}"),
        }
        let got: String = script.key("s").arg("one").invoke_async(&mut con).await?;
        expect("loaded when missed", got, "one".to_owned())?;
        let got: String = by_name.query_async(&mut con).await?;
        expect("by its name", got, "two".to_owned())?;
        cmd("SCRIPT").arg("FLUSH").exec_async(&mut con).await?;
        let got: String = script.key("s").arg("three").invoke_async(&mut con).await?;
        expect("loaded after a flush", got, "three".to_owned())?;
        Ok(String::new())
    }

    async fn scan(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let want: HashSet<String> = (0..KEYS).map(|i| format!("scan:{i}")).collect();
        let pairs: Vec<_> = want.iter().map(|key| (key, "v")).collect();
        for some in pairs.chunks(1_000) {
            con.mset(some).await?;
        }
        let mut scan = cmd("SCAN");
        scan.cursor_arg(0)
            .arg("MATCH")
            .arg("scan:*")
            .arg("COUNT")
            .arg(500);
        let mut found = HashSet::new();
        let mut keys = scan.clone().iter_async::<String>(&mut con).await?;
        while let Some(key) = keys.next_item().await {
            found.insert(key?);
        }
        ensure!(found == want, "{} keys, not {KEYS}", found.len());
        Ok(String::new())
    }

    async fn streams(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut waiter = self.connected().await?;
        con.xgroup_create_mkstream("x", "workers", "0").await?;
        let mut want = Vec::new();
        for i in 0..10 {
            let name = con.xadd("x", "*", &[("job", i.to_string())]).await?;
            want.push((name.context("no name")?, i.to_string()));
        }
        let by = |who: &str| StreamReadOptions::default().group("workers", who);
        let first = con.xread_options(&["x"], &[">"], &by("a").count(6)).await?;
        let rest = con.xread_options(&["x"], &[">"], &by("b")).await?;
        let got = [jobs(first)?, jobs(rest)?].concat();
        expect("entries", got, want.clone())?;
        let done: Vec<_> = want[..9].iter().map(|(name, _)| name).collect();
        expect("acknowledged", con.xack("x", "workers", &done).await?, 9)?;
        match con.xpending("x", "workers").await? {
            StreamPendingReply::Data(data) => {
                expect(
                    "pending",
                    (data.count, data.start_id),
                    (1, want[9].0.clone()),
                )?;
            }
            other => bail!("pending: {other:?}"),
        }
        let again = con.xread_options(&["x"], &["0"], &by("b")).await?;
        expect("still pending", jobs(again)?, want[9..].to_vec())?;
        let waiting = by("a").block(4_000);
        let waiting = waiter.xread_options(&["x"], &[">"], &waiting);
        let waking = async {
            wait_until_blocked(&mut con).await?;
            con.xadd("x", "*", &[("job", "late")]).await
        };
        let (woken, waking) = tokio::join!(waiting, waking);
        let late = (waking?.context("no name")?, "late".to_owned());
        expect("woken", jobs(woken?)?, vec![late])?;
        Ok(String::new())
    }

    async fn big_value(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut dice = fastrand::Rng::with_seed(1);
        let mut value = vec![0; BIG];
        dice.fill(&mut value);
        con.set("big", &value[..]).await?;
        expect("size", con.strlen("big").await?, BIG)?;
        let got: Vec<u8> = cmd("GET").arg("big").query_async(&mut con).await?;
        ensure!(got == value, "another value");
        con.del("big").await?;
        Ok(String::new())
    }

    /// Traffic until `failover:over` is there, which is set when another node is master.
    async fn failover(&self) -> Result<String> {
        let mut con = self.connected().await?;
        let mut subscriber = Subscriber::new(&self.client(0)?, self.resp3).await?;
        let script = Script::new("return ARGV[1]");
        script.load_async(&mut con).await?;
        let id = con.client_id().await?;
        subscriber.subscribe("failover").await?;
        expect("receivers", con.publish("failover", "before").await?, 1)?;
        expect("before", subscriber.next().await?, "before".to_owned())?;
        let mut last = 0;
        while !traffic(&mut con, last).await? {
            last += 11;
        }
        let mut by_name = cmd("EVALSHA");
        by_name.arg(script.get_hash()).arg(0).arg("kept");
        let got: String = by_name.query_async(&mut con).await?;
        expect("script", got, "kept".to_owned())?;
        expect("connection", con.client_id().await?, id)?;
        while con.publish("failover", "after").await? == 0 {}
        expect("after", subscriber.next().await?, "after".to_owned())?;
        Ok(String::new())
    }
}

/// One round of it, which counts to `last + 11`; says whether it was the last one.
async fn traffic(con: &mut MultiplexedConnection, last: u64) -> Result<bool> {
    let mut batch = pipe();
    for _ in 0..10 {
        batch.cmd("INCR").arg("failover:count");
    }
    batch.cmd("GET").arg("failover:over");
    let mut counted: Vec<Option<u64>> = batch.query_async(con).await?;
    let over = counted.pop().context("no reply")?;
    let want = (last + 1..=last + 10).map(Some).collect();
    expect("counted", counted, want)?;
    let count = last + 11;
    let mut block = pipe();
    block.atomic().cmd("INCR").arg("failover:count");
    block.cmd("GET").arg("failover:count");
    let got: (u64, u64) = block.query_async(con).await?;
    expect("in a block", got, (count, count))?;
    con.set("failover:token", count).await?;
    let got = con.get("failover:token").await?;
    expect("own write", got, Some(count.to_string()))?;
    Ok(over.is_some())
}

/// Names and jobs in a reply about the stream `x`.
fn jobs(reply: Option<StreamReadReply>) -> Result<Vec<(String, String)>> {
    let stream = reply
        .context("nothing to read")?
        .keys
        .pop()
        .context("no stream")?;
    expect("stream", &stream.key[..], "x")?;
    let job = |entry: &redis::streams::StreamId| {
        let job = entry.get::<String>("job").context("no job")?;
        Ok((entry.id.clone(), job))
    };
    stream.ids.iter().map(job).collect()
}

async fn wait_until_blocked(con: &mut MultiplexedConnection) -> RedisResult<()> {
    loop {
        let info: String = cmd("INFO").arg("clients").query_async(con).await?;
        if !info.contains("blocked_clients:0\r") {
            return Ok(());
        }
    }
}
