//! The region's Redis: one connection that all requests share, as long as it answers.
//!
//! Invariant: nobody waits for a connection that has failed: from then on each request goes on without it, and one task, on
//! nobody's time, makes another connection and hears an answer on it first.

mod server;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, cmd};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::cache::Values;
use crate::cache::breaker::Breaker;
use crate::cache::limit::{
    BACKGROUND_WAIT_MAX, FULL_PAUSE, PROBE_INTERVAL, PROBE_WAIT_MAX, VALUE_BYTES_MAX, VALUE_WAIT_MAX,
};
use crate::cache::name::Key;
use crate::cache::redis::server::{Connection, Server};
use crate::cache::settings::{RedisSettings, SettingsError};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskError {
    /// There is no connection worth asking.
    Down,
    /// It did not answer in time.
    Late,
    /// The connection broke, or the server is not in a state to answer.
    Broken,
    /// It has no memory left to write.
    Full,
    /// It does not know the script.
    NoScript,
    /// It answered what makes no sense here.
    Refused,
}

impl AskError {
    fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Late => "late",
            Self::Broken => "broken",
            Self::Full => "full",
            Self::NoScript => "no_script",
            Self::Refused => "refused",
        }
    }
}

/// The way to a Redis.
pub(crate) struct Link {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    server: Server,
    /// `None`: until there is one that answers.
    live: RwLock<Option<Arc<Live>>>,
    /// The live connection has failed.
    failed: Notify,
    /// Until when nothing is written.
    full_until: RwLock<Option<Instant>>,
}

struct Live {
    connection: Connection,
    breaker: Breaker,
}

impl Link {
    /// A link that connects in the background, again and again, until it is dropped.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub(crate) fn start(settings: &RedisSettings) -> Result<Arc<Self>, SettingsError> {
        let shared = Arc::new(Shared {
            server: Server::new(settings)?,
            live: RwLock::default(),
            failed: Notify::new(),
            full_until: RwLock::default(),
        });
        let stop = CancellationToken::new();
        tokio::spawn(keep(Arc::clone(&shared), stop.clone()));
        Ok(Arc::new(Self { shared, _stop: stop.drop_guard() }))
    }

    /// Whether there is a connection that answers.
    pub(crate) fn is_up(&self) -> bool {
        self.shared.live.read().as_ref().is_some_and(|live| !live.breaker.is_open())
    }

    /// Asks, and waits so long at most.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd, wait: Duration) -> Result<T, AskError> {
        let asked = self.shared.ask(command, wait).await;
        if let Err(error) = &asked {
            metrics::counter!("postrider_cache_redis_errors_total", "kind" => error.label()).increment(1);
        }
        asked
    }

    /// The same with what writes: not while Redis has no room.
    pub(crate) async fn write<T: FromRedisValue>(&self, command: &Cmd, wait: Duration) -> Result<T, AskError> {
        let full_until = *self.shared.full_until.read();
        if full_until.is_some_and(|until| Instant::now() < until) {
            return Err(AskError::Full);
        }
        let asked = self.ask(command, wait).await;
        if matches!(asked, Err(AskError::Full)) {
            *self.shared.full_until.write() = Some(Instant::now() + FULL_PAUSE);
        }
        asked
    }
}

impl Shared {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd, wait: Duration) -> Result<T, AskError> {
        let live = self.live.read().clone().filter(|live| !live.breaker.is_open()).ok_or(AskError::Down)?;
        let mut connection = live.connection.clone();
        let error = match timeout(wait, connection.run(command)).await {
            Ok(Ok(value)) => {
                live.breaker.answered();
                return T::from_redis_value(value).map_err(|_| AskError::Refused);
            }
            Ok(Err(error)) => kind(&error),
            Err(_) => AskError::Late,
        };
        match error {
            AskError::Late | AskError::Broken => {
                if live.breaker.failed() {
                    self.failed.notify_one();
                }
            }
            _ => live.breaker.answered(),
        }
        Err(error)
    }

    /// A connection that has answered.
    async fn connect(&self) -> Result<Connection, String> {
        let connecting = async {
            let mut connection = self.server.connect().await?;
            connection.run(&cmd("PING")).await?;
            Ok::<_, RedisError>(connection)
        };
        match timeout(PROBE_WAIT_MAX, connecting).await {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }
}

/// What an error is to who asked.
fn kind(error: &RedisError) -> AskError {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => AskError::NoScript,
        // Another server has to be found, or this one to be waited for.
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => AskError::Broken,
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("OOM") => AskError::Full,
            // Of a script that was refused its first write.
            _ if error.detail().is_some_and(|detail| detail.contains("OOM")) => AskError::Full,
            _ => AskError::Refused,
        },
        _ => AskError::Broken,
    }
}

/// Keeps a connection.
async fn keep(shared: Arc<Shared>, stop: CancellationToken) {
    stop.run_until_cancelled(async {
        let mut since = Instant::now();
        let mut is_known = false;
        loop {
            metrics::gauge!("postrider_cache_breaker_open").set(1.0);
            let connection = loop {
                match shared.connect().await {
                    Ok(connection) => break connection,
                    Err(error) => {
                        if !std::mem::replace(&mut is_known, true) {
                            tracing::warn!(error, "Redis cannot be reached: requests go on without it");
                        }
                        tokio::time::sleep(PROBE_INTERVAL).await;
                    }
                }
            };
            *shared.live.write() = Some(Arc::new(Live { connection, breaker: Breaker::default() }));
            metrics::gauge!("postrider_cache_breaker_open").set(0.0);
            tracing::info!(away_ms = since.elapsed().as_millis(), "Redis answers");
            shared.failed.notified().await;
            *shared.live.write() = None;
            since = Instant::now();
            is_known = true;
            metrics::counter!("postrider_cache_breaker_opened_total").increment(1);
            tracing::warn!("Redis does not answer any more: requests go on without it");
        }
    })
    .await;
}

#[async_trait]
impl Values for Link {
    async fn get(&self, key: &Key) -> Option<Bytes> {
        let found: Option<Vec<u8>> = self.ask(cmd("GET").arg(key.text()), VALUE_WAIT_MAX).await.ok()?;
        // What is larger was not put by a frontend.
        found.filter(|value| value.len() <= VALUE_BYTES_MAX).map(Bytes::from)
    }

    async fn put(&self, key: &Key, value: Bytes, lifetime: Duration) {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
        let mut set = cmd("SET");
        set.arg(key.text()).arg(&value[..]).arg("PX").arg(lifetime_ms);
        // What is not put is read from the shard again.
        let _put_or_not: Result<(), AskError> = self.write(&set, BACKGROUND_WAIT_MAX).await;
    }

    async fn remove(&self, key: &Key) {
        let _removed_or_not: Result<(), AskError> = self.ask(cmd("UNLINK").arg(key.text()), BACKGROUND_WAIT_MAX).await;
    }
}

#[cfg(test)]
mod tests;
