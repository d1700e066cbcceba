//! Copies of one blob: read, compared with the hash, restored.

use std::sync::Arc;

use bytes::Bytes;
use postrider_api::id::BlobHash;
use postrider_blob::{BLOB_BYTES_MAX, BlobError, BlobStore, Zone};

use super::pace::Pace;

/// What a copy that was read turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Its bytes are what its hash says.
    Whole,
    Damaged,
    Missing,
    /// Its store does not say.
    Unknown,
}

/// Reads a copy as a whole. The content of one that is whole comes with it.
pub(crate) async fn read(
    store: &dyn BlobStore,
    zone: &Zone,
    hash: &BlobHash,
    pace: &Pace,
) -> (Condition, Option<Bytes>) {
    let reading = async { store.get(zone, hash, None).await?.collect(BLOB_BYTES_MAX).await };
    match reading.await {
        Ok(content) => {
            pace.after(content.len() as u64).await;
            (Condition::Whole, Some(content))
        }
        Err(BlobError::Corrupt { .. } | BlobError::TooLarge { .. }) => (Condition::Damaged, None),
        Err(BlobError::NotFound) => (Condition::Missing, None),
        Err(error) => {
            tracing::debug!(%error, %hash, region = store.region(), "a copy could not be read");
            (Condition::Unknown, None)
        }
    }
}

/// A whole copy from any of the stores.
pub(crate) async fn fetch(
    stores: &[Arc<dyn BlobStore>],
    zone: &Zone,
    hash: &BlobHash,
    pace: &Pace,
) -> Result<Option<Bytes>, BlobError> {
    let mut unknown = None;
    for store in stores {
        match read(&**store, zone, hash, pace).await {
            (Condition::Whole, content) => return Ok(content),
            (Condition::Unknown, _) => unknown = Some(store.region().to_owned()),
            (Condition::Damaged | Condition::Missing, _) => {}
        }
    }
    match unknown {
        None => Ok(None),
        // It may be there.
        Some(region) => Err(BlobError::Unavailable { region, outage: postrider_blob::Outage::Failing }),
    }
}

/// Writes a copy where there is none, or over one that is damaged.
pub(crate) async fn restore(
    store: &dyn BlobStore,
    zone: &Zone,
    hash: &BlobHash,
    content: Bytes,
    is_damaged: bool,
    pace: &Pace,
) -> Result<(), BlobError> {
    let bytes = content.len() as u64;
    if is_damaged {
        store.replace(zone, hash, content).await?;
    } else {
        store.put(zone, hash, content).await?;
    }
    pace.after(bytes).await;
    Ok(())
}
