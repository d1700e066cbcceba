//! `[cache]` in a frontend's file: what the region's frontends keep near.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use postrider_frontend::cache::{
    CacheSettings, MEMORY_BYTES_DEFAULT, RECENT_DAYS_DEFAULT, RedisSettings, RedisTls, Topology,
};
use serde::{Deserialize, Serialize};

/// Longest time that mail may be kept near, days.
const RECENT_DAYS_MAX: u32 = 366;

/// The cache of a frontend.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheConfig {
    /// Mail that was received before so many days is not kept; 0: none is.
    #[serde(default = "recent_days")]
    pub(crate) recent_days: u32,
    /// What this process keeps where there is no Redis, bytes.
    #[serde(default = "memory_bytes")]
    pub(crate) memory_bytes: u64,
    /// The region's Redis.
    pub(crate) redis: Option<RedisConfig>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { recent_days: recent_days(), memory_bytes: memory_bytes(), redis: None }
    }
}

/// The region's Redis.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RedisConfig {
    /// `redis://HOST:PORT`, `rediss://HOST:PORT` (TLS) or `unix:///PATH`.
    pub(crate) addresses: Vec<String>,
    /// What stands there.
    #[serde(default)]
    pub(crate) topology: TopologyConfig,
    /// What sentinels call the master.
    pub(crate) master: Option<String>,
    /// ACL user.
    pub(crate) user: Option<String>,
    /// File that holds its password.
    pub(crate) password_file: Option<PathBuf>,
    /// The authority of its certificate, in PEM, instead of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// This process's certificate for it, where it wants one.
    pub(crate) cert: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
    /// Whether `redis://` is allowed off the loopback, on a network that is protected otherwise.
    #[serde(default)]
    pub(crate) allow_plain: bool,
}

/// What stands at the addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TopologyConfig {
    /// One server.
    #[default]
    Single,
    /// Nodes of a Redis Cluster.
    Cluster,
    /// Sentinels.
    Sentinel,
}

fn recent_days() -> u32 {
    RECENT_DAYS_DEFAULT
}

fn memory_bytes() -> u64 {
    MEMORY_BYTES_DEFAULT
}

impl CacheConfig {
    /// Checked, with what stands in files.
    pub(crate) fn settings(&self) -> anyhow::Result<CacheSettings> {
        ensure!(self.recent_days <= RECENT_DAYS_MAX, "cache.recent_days is at most {RECENT_DAYS_MAX}");
        let redis = self.redis.as_ref().map(|redis| redis.settings().context("cache.redis")).transpose()?;
        Ok(CacheSettings { recent_days: self.recent_days, memory_bytes: self.memory_bytes, redis })
    }
}

impl RedisConfig {
    /// Checked, with what stands in files.
    pub(crate) fn settings(&self) -> anyhow::Result<RedisSettings> {
        let topology = match (self.topology, &self.master) {
            (TopologyConfig::Sentinel, Some(master)) => Topology::Sentinel { master: master.clone() },
            (TopologyConfig::Sentinel, None) => bail!("sentinels want to know the master's name: master is missing"),
            (_, Some(_)) => bail!("only sentinels know a master by name: master belongs to topology = \"sentinel\""),
            (TopologyConfig::Single, None) => Topology::Single,
            (TopologyConfig::Cluster, None) => Topology::Cluster,
        };
        let pem = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((pem(cert)?, pem(key)?)),
            (None, None) => None,
            _ => bail!("cert and key belong together: one of them is missing"),
        };
        let ca = self.ca.as_ref().map(pem).transpose()?;
        let tls = (ca.is_some() || identity.is_some()).then_some(RedisTls { ca, identity });
        let is_secure = self.addresses.iter().all(|address| address.starts_with("rediss://"));
        ensure!(tls.is_none() || is_secure, "ca, cert and key are of use for rediss:// only");
        let password = self.password_file.as_deref().map(super::read_secret).transpose()?;
        ensure!(self.user.is_none() || password.is_some(), "a user has a password: password_file is missing");
        Ok(RedisSettings {
            addresses: self.addresses.clone(),
            topology,
            user: self.user.clone(),
            password,
            tls,
            allow_plain: self.allow_plain,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> anyhow::Result<CacheSettings> {
        toml::from_str::<CacheConfig>(text)?.settings()
    }

    #[test]
    fn what_is_left_out_is_as_documented() {
        let default = settings("").unwrap();
        assert_eq!((default.recent_days, default.memory_bytes), (16, 64 * 1024 * 1024));
        assert!(default.redis.is_none());
        let redis = settings("[redis]\naddresses = [\"redis://127.0.0.1:6379\"]").unwrap().redis.unwrap();
        assert_eq!(redis.topology, Topology::Single);
    }

    #[test]
    fn what_does_not_go_together_is_said() {
        for (text, names) in [
            ("recent_day = 3", "recent_day"),
            ("recent_days = 10000", "recent_days"),
            ("[redis]", "addresses"),
            ("[redis]\naddresses = []\ntopology = \"sentinel\"", "master"),
            ("[redis]\naddresses = []\nmaster = \"mail\"", "topology"),
            ("[redis]\naddresses = [\"rediss://a\"]\ncert = \"c\"", "key"),
            ("[redis]\naddresses = [\"rediss://a\"]\nuser = \"u\"", "password_file"),
            ("[redis]\naddresses = [\"rediss://a\"]\npassword = \"p\"", "password"),
            ("[redis]\naddresses = [\"rediss://a\"]\ntopology = \"ring\"", "topology"),
        ] {
            let error = format!("{:#}", settings(text).unwrap_err());
            assert!(error.contains(names), "{text}: {error}");
        }
    }
}
