//! The digest of a replica at a named index (P-12).

use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::pb;

use crate::fault;
use crate::replicas::{Replicas, read_snapshot};

/// Looks for a moment between two batches.
const LOOKS_MAX: u32 = 2000;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// The replica's logical values and the index they are of: a snapshot taken while no batch was on its way.
pub(crate) async fn digest(replicas: &Replicas, shard: ShardId) -> Result<(u64, [u8; 32]), pb::Fault> {
    let permit = replicas.scans.clone().acquire_owned().await.map_err(|_| fault::busy())?; // closed: shutting down
    for _ in 0..LOOKS_MAX {
        let machine = replicas.machines.get(shard).ok_or_else(fault::unknown_group)?;
        let scanned = replicas.clone();
        // The snapshot borrows the database, so both are made on the thread that reads.
        let scan = tokio::task::spawn_blocking(move || {
            let before = machine.resting()?;
            // Entries that are no commands move this index alone; with no batch on its way it is of these rows as well.
            let applied = scanned.status(shard).and_then(|status| status.applied).unwrap_or(0);
            let snapshot = scanned.db.snapshot();
            if machine.resting() != Some(before) {
                return None;
            }
            let digest = read_snapshot(&snapshot, shard, |reader| postrider_shard::digest(reader));
            Some((applied.max(before.index), digest))
        });
        match scan.await {
            Ok(Some((applied, Ok(digest)))) => {
                drop(permit);
                return Ok((applied, digest));
            }
            Ok(Some((_, Err(broken)))) => return Err(fault::corrupt(&broken)),
            Ok(None) => tokio::time::sleep(PAUSE).await,
            // The task ends early only when the process does.
            Err(_) => return Err(fault::busy()),
        }
    }
    Err(fault::busy())
}
