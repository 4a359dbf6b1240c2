//! Floor 2. One connection of ours to a Sentinel or a node: opened when needed, kept, given up.
//! Knows the `redis` crate as a protocol, never as a dialler: streams and time limits are ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::Pipeline;
use redis::RedisConnectionInfo;
use redis::RedisError;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::Span;

use crate::net;
use crate::sentinel::settings::Timings;
use crate::tasks::Tasks;
use crate::types::Credentials;
use crate::types::NodeAddr;

/// Questions in a row without an answer after which the connection itself is doubted. Until then it
/// is kept: a frozen peer answers there first when it thaws.
const UNANSWERED_MAX: u32 = 5;

/// A peer, and the connection to it while there is one.
#[derive(Debug)]
pub(super) struct Link {
    addr: NodeAddr,
    credentials: Option<Credentials>,
    timings: Timings,
    tasks: Tasks,
    connection: Option<MultiplexedConnection>,
    unanswered: u32,
    ended: Arc<Notify>,
}

/// Why questions were not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] net::ConnectError),
    /// The peer does not let us in.
    #[error("log in: {0}")]
    LogIn(RedisError),
    /// The connection ended, or what came is not the protocol.
    #[error(transparent)]
    Lost(RedisError),
    /// Connected, and no answer in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// The settings of a connection that speaks as `credentials`.
///
/// `AUTH` goes out alone and is answered before anything else is sent: a server from 7.2 on may
/// swallow the error of an `AUTH` that has company.
pub(super) fn login(credentials: Option<&Credentials>) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
    if let Some(credentials) = credentials {
        info = info.set_password(credentials.password.reveal());
        if let Some(username) = &credentials.username {
            info = info.set_username(username);
        }
    }
    info
}

impl Link {
    /// A peer that has not been connected to yet.
    pub(super) fn new(
        addr: NodeAddr,
        credentials: Option<Credentials>,
        timings: Timings,
        tasks: &Tasks,
    ) -> Self {
        Self {
            addr,
            credentials,
            timings,
            tasks: tasks.clone(),
            connection: None,
            unanswered: 0,
            ended: Arc::new(Notify::new()),
        }
    }

    /// Tells when a connection has ended, whether or not something was being asked.
    pub(super) fn ended(&self) -> Arc<Notify> {
        Arc::clone(&self.ended)
    }

    /// Sends `questions` in one write and returns one answer for each; an error reply is an answer.
    ///
    /// A kept connection that turns out to be closed is replaced once: servers close idle ones, and
    /// Sentinel closes all of them when it reconfigures a node.
    pub(super) async fn ask(&mut self, questions: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let kept = self.connection.is_some();
        match self.ask_once(questions).await {
            Err(LinkError::Lost(_)) if kept => self.ask_once(questions).await,
            result => result,
        }
    }

    /// The same over the connection of the last answer, and no other: what that told of the peer's
    /// process still holds.
    pub(super) async fn ask_further(
        &mut self,
        questions: &Pipeline,
    ) -> Result<Vec<Value>, LinkError> {
        if self.connection.is_none() {
            let ended = io::Error::from(io::ErrorKind::NotConnected);
            return Err(LinkError::Lost(ended.into()));
        }
        self.ask_once(questions).await
    }

    async fn ask_once(&mut self, questions: &Pipeline) -> Result<Vec<Value>, LinkError> {
        let limit = self.timings.query;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open().await?,
        };
        let answers = connection.send_packed_commands(questions, 0, questions.len());
        match timeout(limit, answers).await {
            Ok(Ok(answers)) => {
                self.unanswered = 0;
                self.connection = Some(connection);
                Ok(answers)
            }
            Ok(Err(error)) => Err(LinkError::Lost(error)),
            Err(_elapsed) => {
                self.unanswered += 1;
                if self.unanswered < UNANSWERED_MAX {
                    self.connection = Some(connection);
                } else {
                    self.unanswered = 0;
                }
                Err(LinkError::Silent(limit))
            }
        }
    }

    async fn open(&self) -> Result<MultiplexedConnection, LinkError> {
        let limit = self.timings.connect;
        let stream = net::connect(&self.addr, limit).await?;
        let info = login(self.credentials.as_ref());
        // Our own limits count; the one of the library would end a question that is still open.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let open = MultiplexedConnection::new_with_config(&info, stream, config);
        match timeout(limit, open).await {
            Ok(Ok((connection, driver))) => {
                let ended = self.ended();
                // Ends with the connection, or with the peer's last word.
                self.tasks.spawn(Span::current(), async move {
                    driver.await;
                    ended.notify_one();
                });
                Ok(connection)
            }
            Ok(Err(error)) if error.is_io_error() => Err(LinkError::Lost(error)),
            Ok(Err(error)) => Err(LinkError::LogIn(error)),
            Err(_elapsed) => Err(LinkError::Silent(limit)),
        }
    }
}
