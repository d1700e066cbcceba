//! Messages as they are stored: whatever the rows say, they are put together or refused.
#![no_main]

use std::ops::Range;

use bytes::Bytes;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};
use libfuzzer_sys::fuzz_target;
use postrider_api::id::BlobHash;
use postrider_api::pb;
use postrider_mime::{BlobReadError, BlobSource, BlobStream, attachment, raw, render};
use prost::Message;

/// Bytes of a blob that are given at once; of what claims to be longer there is nothing.
const BLOB_BYTES_MAX: u64 = 64 * 1024;

/// Every blob is there, and is zeros.
#[derive(Clone)]
struct Zeros;

impl BlobSource for Zeros {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        if range.end > BLOB_BYTES_MAX || range.start > range.end {
            return Err(BlobReadError::Missing(hash));
        }
        let content = Bytes::from(vec![0; (range.end - range.start) as usize]);
        Ok(stream::iter([Ok(content)]).boxed())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(stored) = pb::StoredBody::decode(data) else { return };
    block_on(async {
        if let Ok(bytes) = raw(&stored, &Zeros).await {
            drop(bytes.try_for_each(|_| std::future::ready(Ok(()))).await);
        }
        for part in &stored.parts {
            if let Ok(attachment) = attachment(&stored, &part.path, &Zeros, None).await {
                drop(attachment.stream.try_for_each(|_| std::future::ready(Ok(()))).await);
            }
        }
        let record = pb::EmailRecord { parts: stored.parts.clone(), ..pb::EmailRecord::default() };
        drop(render(&record, &stored, &Zeros).await);
    });
});
