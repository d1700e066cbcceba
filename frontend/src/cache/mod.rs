//! What a region's frontends keep near: the content of messages, which never changes under its id, and what they count together
//! (see [`crate::limits`]). In this process, or in the region's Redis.
//!
//! Invariant (P-2, P-9): nothing here decides. Whether a message is there, whether the caller may see it and everything of it
//! that changes comes from its shard in the very read that is answered; only what that read leaves out is taken from here.
//! Invariant: a value is sealed under the cluster's secret and bound to its user and its id: what somebody else reads is noise, and what
//! he writes is not served.
//! Invariant: a cache that is gone, slow, full, empty or lying costs less than 20 ms and no answer.

mod breaker;
mod content;
mod limit;
mod memory;
mod name;
mod redis;
mod seal;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postrider_api::env::{Clock, Entropy};

use crate::cache::content::Sealed;
use crate::cache::memory::Memory;
use crate::cache::name::Key;
use crate::cache::redis::Link;
use crate::limits::{LimitTable, Limiter, RegionWorkers, SharedLimits};
use crate::rest::ClusterSecret;

#[cfg(test)]
#[path = "../../tests/rest/redis_server.rs"]
mod redis_server;

#[cfg(test)]
pub(crate) use crate::cache::redis_server::RedisServer;

pub use crate::cache::content::fuzz_content;
pub(crate) use crate::cache::content::{Contents, View};
pub(crate) use crate::cache::limit::{BACKGROUND_WAIT_MAX, BLOB_BYTES_MAX, LIMIT_WAIT_MAX};
pub use crate::cache::limit::{MEMORY_BYTES_DEFAULT, RECENT_DAYS_DEFAULT};
pub(crate) use crate::cache::redis::{AskError, Link as RedisLink};
pub use crate::cache::settings::{CacheSettings, RedisSettings, RedisTls, SettingsError, Topology};

/// Where values lie. Whatever is wrong there is a miss to the caller.
#[async_trait]
pub(crate) trait Values: Send + Sync + 'static {
    /// The value, if it is at hand.
    async fn get(&self, key: &Key) -> Option<Bytes>;

    /// Puts a value for so long at most. What cannot be put is not there.
    async fn put(&self, key: &Key, value: Bytes, lifetime: Duration);

    /// Takes a value away.
    async fn remove(&self, key: &Key);
}

/// The cache of a frontend. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    contents: Contents,
    link: Option<Arc<Link>>,
    limit_key: [u8; 32],
    clock: Arc<dyn Clock>,
}

impl Cache {
    /// A cache as it is configured; of a Redis nobody waits for it to be there. To be called within a runtime.
    ///
    /// # Errors
    /// When the settings cannot be used, whatever Redis says.
    pub fn new(
        settings: &CacheSettings,
        secret: &ClusterSecret,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, SettingsError> {
        let link = settings.redis.as_ref().map(Link::start).transpose()?;
        let values: Arc<dyn Values> = match &link {
            Some(link) => Arc::clone(link) as _,
            None => Arc::new(Memory::new(settings.memory_bytes)),
        };
        let sealed = Sealed::new(values, secret.key("postrider 2026 cache"), entropy);
        Ok(Self {
            contents: Contents::new(sealed, Arc::clone(&clock), settings.recent_days),
            link,
            limit_key: secret.key("postrider 2026 limits"),
            clock,
        })
    }

    /// Whether a Redis is at hand now.
    pub fn is_shared(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_up())
    }

    pub(crate) fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The workers of the region, of which this process is one from now on; `None` where there is no Redis by which they would know of each
    /// other. To be called within a runtime.
    pub fn region_workers(&self) -> Option<RegionWorkers> {
        self.link.as_ref().map(|link| RegionWorkers::over(Arc::clone(link)))
    }

    /// What counts by a table of limits: with the others of the region where there is a Redis.
    pub fn limiter(&self, table: LimitTable) -> Limiter {
        let clock = Arc::clone(&self.clock);
        match &self.link {
            Some(link) => Limiter::over(table, self.limit_key, Arc::new(SharedLimits::new(clock, Arc::clone(link)))),
            None => Limiter::local(table, self.limit_key, clock),
        }
    }
}
