//! What frontends and workers have behind them: the storage nodes and the object stores.

use std::sync::Arc;

use anyhow::Context as _;
use postrider_api::env::{SystemClock, SystemEntropy};
use postrider_api::tls::TlsIdentity;
use postrider_blob::{BlobStore, Replicated, S3Options, S3Store};
use postrider_frontend::blobs::Blobs;
use postrider_router::{ConnectError, Router, RouterOptions};

use tokio::sync::watch;

use super::{ClusterConfig, StoreConfig};
use crate::signal::Stop;

/// Checked settings; connected when it is asked to.
pub(crate) struct Backend {
    /// The object stores of all regions as one.
    pub(crate) blobs: Blobs,
    /// What this process shows to the others.
    pub(crate) identity: TlsIdentity,
    options: RouterOptions,
    _kept_up: watch::Sender<()>,
}

impl Backend {
    /// Checks certificates, addresses and keys. Talks to nobody yet.
    pub(crate) async fn new(region: &str, cluster: &ClusterConfig, stores: &[StoreConfig]) -> anyhow::Result<Self> {
        let identity = cluster.tls.load()?;
        let kept_up = super::keep_up(&identity);
        let options = RouterOptions::new(
            cluster.nodes.clone(),
            region.to_owned(),
            identity.clone(),
            SystemClock::shared(),
            SystemEntropy::shared(),
        );
        let members = self::stores(stores).await?;
        Ok(Self {
            blobs: Blobs::new(Replicated::new(members, region, SystemClock::shared())),
            identity,
            options,
            _kept_up: kept_up,
        })
    }

    /// A router, once a storage node has given a shard map; `None` when the process is told to stop before that.
    pub(crate) async fn connect(&self, stop: &mut Stop) -> anyhow::Result<Option<Router>> {
        connect(&self.options, stop).await
    }
}

/// See [`Backend::connect`].
pub(super) async fn connect(options: &RouterOptions, stop: &mut Stop) -> anyhow::Result<Option<Router>> {
    loop {
        let connected = tokio::select! {
            connected = Router::connect(options.clone()) => connected,
            _ = stop.wait() => return Ok(None),
        };
        match connected {
            Ok(router) => return Ok(Some(router)),
            // Storage nodes may be starting; what is wrong with our own settings never mends itself.
            Err(error @ ConnectError::NoMap { .. }) => tracing::warn!(%error, "waiting for a storage node"),
            Err(error) => return Err(error).context("connect to the storage nodes"),
        }
    }
}

/// Clients of the object stores. Talks to nobody yet.
pub(super) async fn stores(stores: &[StoreConfig]) -> anyhow::Result<Vec<Arc<dyn BlobStore>>> {
    let mut members: Vec<Arc<dyn BlobStore>> = Vec::with_capacity(stores.len());
    for store in stores {
        let secret_key = super::read_secret(&store.secret_key_file)?;
        let mut options = S3Options::new(&store.region, &store.endpoint, &store.bucket, &store.access_key, secret_key);
        options.allow_plain = store.allow_plain;
        let member = S3Store::connect(options).await;
        members.push(Arc::new(member.with_context(|| format!("object store of {}", store.region))?));
    }
    Ok(members)
}
