//! The digest of a replica at a named index (P-12).

use std::time::Duration;

use postrider_api::id::ShardId;
use postrider_api::pb;

use crate::fault;
use crate::replicas::{Replicas, read_snapshot};
use crate::scan::{self, ScanReader};

/// Looks for a moment between two batches.
const LOOKS_MAX: u32 = 2000;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// The replica's logical values and the index they are of: a snapshot taken while no batch was on its way.
pub(crate) async fn digest(replicas: &Replicas, shard: ShardId) -> Result<(u64, [u8; 32]), pb::Fault> {
    // Between two looks as well: who has had his turn goes on until he has found a moment.
    let _place = replicas.scans.whole().await?;
    for _ in 0..LOOKS_MAX {
        let machine = replicas.machines.get(shard).ok_or_else(fault::unknown_group)?;
        let scanned = replicas.clone();
        // The snapshot borrows the database, so both are made on the thread that reads.
        let scan = scan::on_thread(move |gone| {
            let before = machine.resting()?;
            // Entries that are no commands move this index alone; with no batch on its way it is of these rows as well.
            let applied = scanned.status(shard).and_then(|status| status.applied).unwrap_or(0);
            let snapshot = scanned.db.snapshot();
            if machine.resting() != Some(before) {
                return None;
            }
            let digest = read_snapshot(&snapshot, shard, |rows| postrider_shard::digest(&ScanReader::new(*rows, gone)));
            Some((applied.max(before.index), digest))
        });
        match scan.await {
            Some(Some((applied, Ok(digest)))) => return Ok((applied, digest)),
            Some(Some((_, Err(broken)))) => return Err(fault::corrupt(&broken)),
            Some(None) => tokio::time::sleep(PAUSE).await,
            // The process ends.
            None => return Err(fault::busy()),
        }
    }
    Err(fault::busy())
}
