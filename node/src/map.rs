//! The shard map on a storage node: from its own placement replica where it has one, otherwise by stream from those who do.

use std::sync::Arc;
use std::time::Duration;

use postrider_api::id::{NodeId, ShardId};
use postrider_api::limit::MAP_BYTES_MAX;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::pb::{self, answer, query};
use postrider_api::tls::TlsIdentity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::replicas::Replicas;

/// How long a node may take to send its first map.
const FIRST_MAP: Duration = Duration::from_secs(3);
/// The pause after all sources have failed.
const PAUSE: Duration = Duration::from_millis(500);
/// A stream is opened anew after this long, so that nobody follows a cut-off replica for ever.
const STREAM_AGE: Duration = Duration::from_secs(120);

/// The newest map known here; `None` until there is one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Map {
    newest: watch::Sender<Option<Arc<pb::ShardMap>>>,
}

impl Map {
    pub(crate) fn new() -> Self {
        Self { newest: watch::Sender::new(None) }
    }

    pub(crate) fn get(&self) -> Option<Arc<pb::ShardMap>> {
        self.newest.borrow().clone()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Option<Arc<pb::ShardMap>>> {
        self.newest.subscribe()
    }

    pub(crate) fn shard(&self, shard: ShardId) -> Option<pb::Shard> {
        self.get()?.shards.iter().find(|known| known.id == shard.0).cloned()
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<pb::Node> {
        self.get()?.nodes.iter().find(|known| known.id == node.0).cloned()
    }

    /// Addresses of the nodes that hold a placement replica.
    pub(crate) fn placement(&self) -> Vec<String> {
        let Some(map) = self.get() else { return Vec::new() };
        let placement = map.shards.iter().find(|shard| shard.id == ShardId::PLACEMENT.0);
        let holders = placement.map(|shard| shard.replicas.as_slice()).unwrap_or_default();
        let nodes = map.nodes.iter().filter(|node| holders.contains(&node.id));
        nodes.map(|node| node.address.clone()).collect()
    }

    /// Takes in a map, unless it is older than the one that is known.
    fn offer(&self, map: pb::ShardMap) {
        self.newest.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|known| known.version < map.version);
            if newer {
                *newest = Some(Arc::new(map));
            }
            newer
        });
    }
}

/// Keeps the map fresh until the node stops.
pub(crate) struct MapKeeper {
    pub(crate) map: Map,
    pub(crate) replicas: Replicas,
    pub(crate) tls: TlsIdentity,
    pub(crate) seeds: Vec<String>,
    pub(crate) advertise: String,
    pub(crate) stop: CancellationToken,
}

impl MapKeeper {
    pub(crate) async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep() => {}
        }
    }

    async fn keep(&self) {
        let mut generation = self.replicas.machines.map_generation();
        loop {
            generation.borrow_and_update();
            if self.holds_placement() {
                self.read_own();
                self.own_may_differ(&mut generation).await;
            } else {
                tokio::select! {
                    () = self.follow() => {}
                    () = self.own_may_differ(&mut generation) => {}
                }
            }
        }
    }

    /// Returns when the own placement replica has a new map, has appeared, or has gone. A replica that was just opened is
    /// empty until its group begins, which shows in its status only.
    async fn own_may_differ(&self, generation: &mut watch::Receiver<u64>) {
        let begun = async {
            if let Some(mut status) = self.replicas.watch(ShardId::PLACEMENT)
                && status.borrow().voters.is_empty()
                && status.wait_for(|status| !status.voters.is_empty()).await.is_ok()
            {
                return;
            }
            // It has begun long ago, or was removed, which the generation tells.
            std::future::pending().await
        };
        tokio::select! {
            _ = generation.changed() => {} // the machines live as long as the keeper
            () = begun => {}
        }
    }

    fn holds_placement(&self) -> bool {
        self.replicas.status(ShardId::PLACEMENT).is_some_and(|status| !status.voters.is_empty())
    }

    fn read_own(&self) {
        let known_version = 0;
        let query = pb::Query { query: Some(query::Query::GetShardMap(pb::GetShardMap { known_version })) };
        let now_ms = self.replicas.clock.wall_ms();
        let answered = self
            .replicas
            .read(ShardId::PLACEMENT, |reader| postrider_shard::query(ShardId::PLACEMENT, reader, now_ms, &query));
        match answered {
            Ok(pb::Answer { answer: Some(answer::Answer::ShardMap(map)) }) => self.map.offer(map),
            Ok(_) => tracing::error!("the placement shard answered something else than a map"),
            Err(error) => tracing::error!(%error, "the placement shard's map cannot be read"),
        }
    }

    /// Follows one source after the other; returns when each has failed or one has ended.
    async fn follow(&self) {
        let mut sources = self.map.placement();
        sources.extend(self.seeds.iter().cloned());
        sources.retain(|address| *address != self.advertise);
        for address in sources {
            match self.follow_one(&address).await {
                Ok(()) => return,
                Err(status) => tracing::debug!(%address, %status, "no shard map from this node"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// `Ok` when it gave at least one map.
    async fn follow_one(&self, address: &str) -> Result<(), Status> {
        let endpoint = self.tls.endpoint(address).map_err(|error| Status::internal(format!("{error:?}")))?;
        let mut service = ShardServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAP_BYTES_MAX);
        let known_version = self.map.get().map_or(0, |map| map.version);
        let late = |_| Status::deadline_exceeded("no answer in time");
        let opening = service.watch_map(pb::WatchMapRequest { known_version });
        let mut maps = tokio::time::timeout(FIRST_MAP, opening).await.map_err(late)??.into_inner();
        let first = tokio::time::timeout(FIRST_MAP, maps.message()).await.map_err(late)??;
        self.map.offer(first.ok_or_else(|| Status::unavailable("the node has no map"))?);

        // Only those who hold placement are followed for long: a node that follows itself might lead nowhere.
        let holders = self.map.placement();
        if !holders.is_empty() && !holders.iter().any(|holder| holder == address) {
            return Ok(());
        }
        let age = tokio::time::sleep(STREAM_AGE);
        tokio::pin!(age);
        loop {
            tokio::select! {
                map = maps.message() => match map {
                    Ok(Some(map)) => self.map.offer(map),
                    Ok(None) => return Ok(()),
                    Err(status) => {
                        tracing::debug!(%address, %status, "map stream ended");
                        return Ok(());
                    }
                },
                () = &mut age => return Ok(()),
            }
        }
    }
}
