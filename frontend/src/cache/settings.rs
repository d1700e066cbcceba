//! What an operator says about the cache, checked before anything is served.

use std::net::IpAddr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use thiserror::Error;

use crate::cache::limit::{MEMORY_BYTES_DEFAULT, RECENT_DAYS_DEFAULT};

/// The cache of a frontend.
#[derive(Debug, Clone)]
pub struct CacheSettings {
    /// Mail that was received before so many days is not kept.
    pub recent_days: u32,
    /// What is kept in this process where there is no Redis, bytes.
    pub memory_bytes: u64,
    /// The region's Redis.
    pub redis: Option<RedisSettings>,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { recent_days: RECENT_DAYS_DEFAULT, memory_bytes: MEMORY_BYTES_DEFAULT, redis: None }
    }
}

/// What stands at the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server, at the only address.
    Single,
    /// Some nodes of a Redis Cluster, which tell the others.
    Cluster,
    /// Sentinels, which tell who is the master of this name.
    Sentinel {
        /// What they call it.
        master: String,
    },
}

/// A region's Redis. Not `Debug` as it is: it has a password.
#[derive(Clone)]
pub struct RedisSettings {
    /// `redis://HOST:PORT` or `rediss://HOST:PORT` (TLS), with `/NUMBER` behind it for another database than 0, or `unix:///PATH`.
    pub addresses: Vec<String>,
    /// What stands there.
    pub topology: Topology,
    /// ACL user; without it the default one.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// For `rediss://`; without it the system's authorities are trusted.
    pub tls: Option<RedisTls>,
    /// Whether `redis://` is allowed off the loopback, on a network that is protected otherwise.
    pub allow_plain: bool,
}

impl std::fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisSettings")
            .field("addresses", &self.addresses)
            .field("topology", &self.topology)
            .finish_non_exhaustive()
    }
}

/// TLS to Redis, in PEM.
#[derive(Clone)]
pub struct RedisTls {
    /// The authority that is trusted, instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// This process's certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Settings that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// No address, or more than the one that a single server has.
    #[error("a single Redis has one address, a cluster and sentinels have one or more; there are {0}")]
    Addresses(usize),
    /// An address that is none.
    #[error("{address:?} is no address of a Redis: {reason}")]
    Address {
        /// As it is written.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The client refuses the settings.
    #[error("these settings of a Redis cannot be used: {0}")]
    Client(#[from] redis::RedisError),
}

impl RedisSettings {
    /// A server without password, for tests and the demo.
    pub fn single(address: impl Into<String>) -> Self {
        Self {
            addresses: vec![address.into()],
            topology: Topology::Single,
            user: None,
            password: None,
            tls: None,
            allow_plain: false,
        }
    }

    /// The addresses, each checked.
    pub(crate) fn parsed(&self) -> Result<Vec<ConnectionInfo>, SettingsError> {
        let count = self.addresses.len();
        if count == 0 || count > 1 && self.topology == Topology::Single {
            return Err(SettingsError::Addresses(count));
        }
        self.addresses.iter().map(|address| self.parse(address)).collect()
    }

    fn parse(&self, address: &str) -> Result<ConnectionInfo, SettingsError> {
        let wrong = |reason: &str| SettingsError::Address { address: address.to_owned(), reason: reason.to_owned() };
        if address.contains(['#', '@', '?']) {
            return Err(wrong("user and password have keys of their own, and nothing else is to be said here"));
        }
        let info = address.into_connection_info().map_err(|error| wrong(&error.to_string()))?;
        match info.addr() {
            ConnectionAddr::Tcp(host, _) if !self.allow_plain && !is_loopback(host) => Err(wrong(
                "plain connections leave this machine: use rediss://, or set allow_plain on a protected network",
            )),
            ConnectionAddr::Unix(_) if self.topology != Topology::Single => {
                Err(wrong("a cluster and sentinels have addresses of the network"))
            }
            _ => Ok(info),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in
            ["redis://127.0.0.1:6379", "redis://localhost", "rediss://10.0.1.9:6379/2", "unix:///run/redis.sock"]
        {
            assert!(RedisSettings::single(good).parsed().is_ok(), "{good}");
        }
        for bad in [
            "redis://10.0.1.9:6379",
            "redis://:secret@127.0.0.1",
            "rediss://10.0.1.9:6379/#insecure",
            "http://127.0.0.1",
            "127.0.0.1:6379",
            "",
        ] {
            assert!(RedisSettings::single(bad).parsed().is_err(), "{bad}");
        }
        let plain = RedisSettings { allow_plain: true, ..RedisSettings::single("redis://10.0.1.9:6379") };
        assert!(plain.parsed().is_ok());
        let two = RedisSettings { addresses: vec!["rediss://a".into(), "rediss://b".into()], ..plain };
        assert!(two.parsed().is_err(), "which of them?");
        assert!(RedisSettings { topology: Topology::Cluster, ..two }.parsed().is_ok());
    }
}
