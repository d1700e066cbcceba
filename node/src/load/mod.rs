//! What this node bears and can bear, for whoever plans what should move.
//!
//! It is asked for, not sent: of thousands of nodes it would be thousands of commands a minute for numbers that nobody needs after the next.

mod rate;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{NodeId, ShardId};
use postrider_api::pb;
use tokio_util::sync::CancellationToken;

use crate::options::CapacityOptions;
use crate::replicas::Replicas;
use rate::Rate;

/// How often it is looked how far each replica has come.
const SAMPLE_EVERY: Duration = Duration::from_secs(30);
/// What a node bears all day where nobody says otherwise, writes a second of one processor.
const WRITES_PER_S_OF_A_PROCESSOR: u64 = 500;

/// Measures what the node's replicas cost. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LoadMeter {
    node: NodeId,
    replicas: Replicas,
    capacity: CapacityOptions,
    /// Where its disk is.
    dir: PathBuf,
    rates: Arc<Mutex<HashMap<ShardId, Rate>>>,
}

impl LoadMeter {
    pub(crate) fn new(node: NodeId, replicas: Replicas, capacity: CapacityOptions, dir: PathBuf) -> Self {
        Self { node, replicas, capacity, dir, rates: Arc::default() }
    }

    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            self.sample();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SAMPLE_EVERY) => {}
            }
        }
    }

    fn sample(&self) {
        let now = self.replicas.clock.monotonic();
        let mut rates = self.rates.lock();
        let mut known = HashMap::with_capacity(rates.len());
        for group in self.replicas.host.groups() {
            let shard = ShardId(group.0);
            let Some(applied) = self.replicas.status(shard).and_then(|status| status.applied) else { continue };
            let rate = match rates.get(&shard) {
                Some(rate) => rate.at(now, applied),
                None => Rate::new(now, applied),
            };
            known.insert(shard, rate);
        }
        *rates = known;
    }

    /// As it is now; the writes as they were over the last minutes.
    pub(crate) fn report(&self) -> pb::LoadReply {
        let rates = self.rates.lock().clone();
        let groups = self.replicas.host.groups().into_iter();
        let replicas: Vec<pb::ReplicaLoad> = groups
            .filter_map(|group| {
                let shard = ShardId(group.0);
                let status = self.replicas.status(shard)?;
                Some(pb::ReplicaLoad {
                    shard: shard.0,
                    bytes: self.replicas.counts(shard).bytes,
                    writes_per_s: rates.get(&shard).map_or(0, Rate::per_s),
                    leads_in_term: if status.leads() { status.term } else { 0 },
                })
            })
            .collect();
        let own_bytes = replicas.iter().map(|replica| replica.bytes).sum();
        let (capacity_bytes, other_bytes) = self.disk(own_bytes);
        pb::LoadReply {
            node: self.node.0,
            capacity_bytes,
            capacity_writes_per_s: self.capacity.writes_per_s.unwrap_or_else(writes_of_this_machine),
            other_bytes,
            replicas,
        }
    }

    /// What shards may take, and what of it others have. Of what was allotted to them they have all.
    fn disk(&self, own_bytes: u64) -> (u64, u64) {
        if let Some(bytes) = self.capacity.bytes {
            return (bytes, 0);
        }
        match rustix::fs::statvfs(self.dir.as_path()) {
            Ok(disk) => {
                let bytes = disk.f_blocks.saturating_mul(disk.f_frsize);
                let used = bytes.saturating_sub(disk.f_bavail.saturating_mul(disk.f_frsize));
                (bytes, used.saturating_sub(own_bytes))
            }
            Err(error) => {
                // Full: it gets nothing more.
                tracing::error!(%error, dir = %self.dir.display(), "how large the disk is cannot be told");
                (own_bytes.max(1), 0)
            }
        }
    }
}

fn writes_of_this_machine() -> u64 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    WRITES_PER_S_OF_A_PROCESSOR.saturating_mul(u64::try_from(processors).unwrap_or(u64::MAX))
}
