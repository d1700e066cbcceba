//! Keeps the shard map fresh: from this node's own placement replica where that hears its group, otherwise by stream from
//! others.
//!
//! Invariant: a placement replica here is believed to be current only while it leads with a quorum or hears who leads. One
//! that was moved away while the node was down, or has stopped, hears nobody, and its map would stay for ever.

use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::limit::MAP_BYTES_MAX;
use postrider_api::map_stream::MapUpdates;
use postrider_api::pb::shard_service_client::ShardServiceClient;
use postrider_api::pb::{self, answer, query, query_reply};
use postrider_api::tls::TlsIdentity;
use postrider_raft::{GroupStatus, Role};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::map::Map;
use crate::replicas::{Replicas, group};

/// How long a node may take to send its first map.
const FIRST_MAP: Duration = Duration::from_secs(3);
/// The pause between two sources.
const PAUSE: Duration = Duration::from_millis(500);
/// A stream is opened anew, at another node, after this long, so that nobody follows a cut-off replica for ever.
const STREAM_AGE: Duration = Duration::from_secs(120);
/// An own replica that has heard nobody lead for this long may be cut off, or no member any more. Longer than an election.
const SILENCE: Duration = Duration::from_secs(5);
/// After the own replica's map was taken in, so many times as long as that took pass before the next, and at most this.
const REST: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether the own replica hears anybody.
const TICK: Duration = Duration::from_secs(1);

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
        let mut last = None;
        loop {
            generation.borrow_and_update();
            if self.own().is_some() {
                let began = self.replicas.clock.monotonic();
                self.read_own();
                // However fast it changes, keeping it takes a part of one core only.
                let took = self.replicas.clock.monotonic().saturating_sub(began);
                tokio::time::sleep(took.saturating_mul(REST).min(REST_MAX)).await;
            }
            let is_current = self.own_is_current();
            let turned = async {
                while self.own_is_current() == is_current {
                    tokio::time::sleep(TICK).await;
                }
            };
            let followed = async {
                match is_current {
                    true => std::future::pending().await,
                    false => self.follow(&mut last).await,
                }
            };
            tokio::select! {
                () = followed => {}
                () = turned => {}
                () = self.own_may_differ(&mut generation) => {}
            }
        }
    }

    /// The own placement replica, if it has begun and runs: one that has stopped may have stopped because its rows are wrong.
    fn own(&self) -> Option<GroupStatus> {
        let status = self.replicas.status(ShardId::PLACEMENT)?;
        let runs = !matches!(status.role, Role::Stopped { .. });
        (runs && !status.voters.is_empty()).then_some(status)
    }

    fn own_is_current(&self) -> bool {
        let Some(status) = self.own() else { return false };
        let heard_ms = match status.role {
            Role::Leader => status.quorum_ack_age_ms,
            _ => self.replicas.host.heard_age_ms(group(ShardId::PLACEMENT)),
        };
        heard_ms.is_some_and(|ms| Duration::from_millis(ms) < SILENCE)
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

    fn read_own(&self) {
        let known_version = self.map.version();
        let query = pb::Query { query: Some(query::Query::GetShardMap(pb::GetShardMap { known_version })) };
        let now_ms = self.replicas.clock.wall_ms();
        let answered = self
            .replicas
            .read(ShardId::PLACEMENT, |reader| postrider_shard::query(ShardId::PLACEMENT, reader, now_ms, &query));
        match answered {
            Ok(pb::Answer { answer: Some(answer::Answer::ShardMap(update)) }) => drop(self.map.offer(update)),
            Ok(_) => tracing::error!("the placement shard answered something else than a map"),
            Err(error) => tracing::error!(%error, "the placement shard's map cannot be read"),
        }
    }

    /// Follows one source after the other; returns when each has failed or one has ended. Whoever was followed last comes
    /// last: what was wrong with him may not show.
    async fn follow(&self, last: &mut Option<String>) {
        for address in sources(self.map.placement(), &self.seeds, &self.advertise, last.as_deref()) {
            *last = Some(address.clone());
            match self.follow_one(&address).await {
                Ok(()) => break,
                Err(status) => tracing::debug!(%address, %status, "no shard map from this node"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }

    /// `Ok` when it gave at least one map.
    async fn follow_one(&self, address: &str) -> Result<(), Status> {
        let endpoint = self.tls.endpoint(address).map_err(|error| Status::internal(error.to_string()))?;
        let mut service = ShardServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(MAP_BYTES_MAX);
        let known_version = self.map.version();
        let late = |_| Status::deadline_exceeded("no answer in time");
        let opening = service.watch_map(pb::WatchMapRequest { known_version });
        let stream = tokio::time::timeout(FIRST_MAP, opening).await.map_err(late)??.into_inner();
        let mut updates = MapUpdates::new(stream);
        let first = tokio::time::timeout(FIRST_MAP, updates.next()).await.map_err(late)??;
        if !self.take(first.ok_or_else(|| Status::unavailable("the node has no map"))?, &mut updates) {
            return Err(Status::out_of_range("it does not know the version that is known here"));
        }

        // Only those who hold placement are followed for long: a node that follows itself might lead nowhere.
        let holders = self.map.placement();
        let is_holder = holders.is_empty() || holders.iter().any(|holder| holder == address);
        if !is_holder || !has_placement(&mut service, self.map.version()).await {
            return Ok(());
        }
        let age = tokio::time::sleep(STREAM_AGE);
        tokio::pin!(age);
        loop {
            tokio::select! {
                update = updates.next() => match update {
                    // Behind another source's map: the next stream begins with what is missing.
                    Ok(Some(update)) => if !self.take(update, &mut updates) { return Ok(()) },
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

    fn take(&self, update: pb::MapUpdate, updates: &mut MapUpdates) -> bool {
        let began = self.replicas.clock.monotonic();
        let taken = self.map.offer(update);
        updates.took(self.replicas.clock.monotonic().saturating_sub(began));
        taken
    }
}

/// Whether a node has a placement replica, whatever the map says: nodes that placement has left, all in one go, and that were not told
/// where it is now, would follow each other, each with the map of the other.
async fn has_placement(service: &mut ShardServiceClient<Channel>, known_version: u64) -> bool {
    // What is known already is the shortest answer there is.
    let query = query::Query::GetShardMap(pb::GetShardMap { known_version });
    let request = pb::QueryRequest {
        shard: ShardId::PLACEMENT.0,
        mode: pb::ReadMode::Stale.into(),
        query: Some(pb::Query { query: Some(query) }),
        ..Default::default()
    };
    let asked = tokio::time::timeout(FIRST_MAP, service.query(request)).await;
    matches!(asked, Ok(Ok(reply)) if matches!(reply.get_ref().result, Some(query_reply::Result::Answer(_))))
}

/// Whom to ask for the map, in turn: those who hold placement, then the seeds, each once, never this node itself.
fn sources(holders: Vec<String>, seeds: &[String], own: &str, last: Option<&str>) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for address in holders.into_iter().chain(seeds.iter().cloned()) {
        if address != own && !sources.contains(&address) {
            sources.push(address);
        }
    }
    // Those behind him first, so that everybody has his turn.
    if let Some(at) = last.and_then(|last| sources.iter().position(|source| source == last)) {
        sources.rotate_left(at + 1);
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn every_source_has_its_turn() {
        let (holders, seeds) = (names(&["a", "me", "b"]), names(&["b", "c", "me"]));
        let mut last: Option<String> = None;
        let mut turns = Vec::new();
        for _ in 0..4 {
            let first = sources(holders.clone(), &seeds, "me", last.as_deref()).remove(0);
            turns.push(first.clone());
            last = Some(first);
        }
        assert_eq!(turns, ["a", "b", "c", "a"]);
        assert_eq!(sources(holders, &seeds, "me", Some("gone")), ["a", "b", "c"]);
    }
}
