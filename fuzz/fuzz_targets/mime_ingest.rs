//! Any bytes are ingested, and what was stored gives the same bytes back.
#![no_main]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::{StreamExt, TryStreamExt, stream};
use libfuzzer_sys::fuzz_target;
use postrider_api::id::{BlobHash, BodyId};
use postrider_api::pb;
use postrider_mime::{BlobReadError, BlobSource, BlobStream, IngestLimits, ingest, raw};

#[derive(Clone)]
struct Blobs(Arc<HashMap<BlobHash, Bytes>>);

impl BlobSource for Blobs {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        let content = self.0.get(&hash).ok_or(BlobReadError::Missing(hash))?;
        let slice = content.slice(range.start as usize..range.end as usize);
        Ok(stream::iter([Ok(slice)]).boxed())
    }
}

fuzz_target!(|data: &[u8]| {
    // Small limits, so that small inputs reach the cutting too.
    let limits = IngestLimits { blob_bytes_min: 64, literal_bytes_max: 2048 };
    let bytes = Bytes::copy_from_slice(data);
    let ingested = ingest(&bytes, BodyId([7; 16]), &limits);
    let message = ingested.message;
    assert_eq!(message.size, data.len() as u64);
    let body = message.body.expect("ingest gives a body");
    let stored = pb::StoredBody {
        pieces: message.pieces,
        parts: message.parts,
        body: Some(pb::BodyRecord { compression: body.compression, text: body.text, text_length: body.text_length }),
    };
    let blobs = Blobs(Arc::new(ingested.blobs.into_iter().map(|blob| (blob.hash, blob.content)).collect()));
    let back: Vec<Bytes> =
        block_on(async { raw(&stored, &blobs).await?.try_collect().await }).expect("what was stored can be read");
    assert_eq!(back.concat(), data);
});
