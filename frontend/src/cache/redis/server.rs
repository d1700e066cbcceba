//! A Redis, as it is configured: one server, a cluster, or whoever sentinels name.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, RedisResult, TlsCertificates,
    TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::cache::limit::PROBE_WAIT_MAX;
use crate::cache::settings::{RedisSettings, RedisTls, SettingsError, Topology};

/// Where to connect to.
pub(super) enum Server {
    Single(Box<Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

/// A connection that many use at once. Cheap to clone.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn run(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }
}

impl Server {
    pub(super) fn new(settings: &RedisSettings) -> Result<Self, SettingsError> {
        let infos = settings.parsed()?.into_iter().map(|info| with_credentials(info, settings));
        let mut infos: Vec<ConnectionInfo> = infos.collect();
        let certificates = settings.tls.as_ref().map(certificates);
        match &settings.topology {
            Topology::Single => {
                let info = infos.pop().ok_or(SettingsError::Addresses(0))?;
                Ok(Self::Single(Box::new(match (certificates, is_tls(&info)) {
                    (Some(certificates), true) => Client::build_with_tls(info, certificates)?,
                    _ => Client::open(info)?,
                })))
            }
            Topology::Cluster => {
                let mut builder = ClusterClient::builder(infos).retries(1).connection_timeout(PROBE_WAIT_MAX);
                if let Some(certificates) = certificates {
                    builder = builder.certs(certificates);
                }
                Ok(Self::Cluster(Box::new(builder.build()?)))
            }
            Topology::Sentinel { master } => {
                Ok(Self::Sentinel(Box::new(Mutex::new(sentinels(&infos, master, settings, certificates)?))))
            }
        }
    }

    /// A new connection. It is as good as its first answer.
    pub(super) async fn connect(&self) -> RedisResult<Connection> {
        // Who asks says how long he waits.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PROBE_WAIT_MAX))
            .set_response_timeout(None::<Duration>);
        match self {
            Self::Single(client) => {
                client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
            }
            Self::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            Self::Sentinel(client) => {
                client.lock().await.get_async_connection_with_config(&config).await.map(Connection::One)
            }
        }
    }
}

fn is_tls(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

fn with_credentials(info: ConnectionInfo, settings: &RedisSettings) -> ConnectionInfo {
    let mut redis = info.redis_settings().clone();
    if let Some(user) = &settings.user {
        redis = redis.set_username(user);
    }
    if let Some(password) = &settings.password {
        redis = redis.set_password(password);
    }
    info.set_redis_settings(redis)
}

fn certificates(tls: &RedisTls) -> TlsCertificates {
    let client_tls = tls.identity.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
    TlsCertificates { client_tls, root_cert: tls.ca.clone() }
}

/// Sentinels and the master have the same kind of connection and the same certificates. The credentials are the master's: sentinels
/// that want some of their own have the same ones, too.
fn sentinels(
    infos: &[ConnectionInfo],
    master: &str,
    settings: &RedisSettings,
    certificates: Option<TlsCertificates>,
) -> RedisResult<SentinelClient> {
    let addresses: Vec<ConnectionAddr> = infos.iter().map(|info| info.addr().clone()).collect();
    let secure = infos.iter().any(is_tls);
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if let Some(info) = infos.first() {
        builder = builder.set_client_to_redis_db(info.redis_settings().db());
    }
    if let Some(user) = &settings.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &settings.password {
        builder = builder.set_client_to_redis_password(password);
    }
    if secure {
        builder =
            builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        if let Some(certificates) = certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
    }
    builder.build()
}
