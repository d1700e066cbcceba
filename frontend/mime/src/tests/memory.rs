//! Blobs in memory, and the way back through them.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::executor::block_on;
use futures::{StreamExt as _, stream};
use postrider_api::id::{BlobHash, BodyId};
use postrider_api::pb;
use prost::Message as _;

use super::super::limit::{
    COMMAND_REST_BYTES_MAX, ENVELOPE_BYTES_MAX, LITERAL_BYTES_MAX, PARTS_BYTES_MAX, PIECES_BYTES_MAX,
};
use super::super::{
    BlobReadError, BlobSource, BlobStream, ByteStream, IngestLimits, Ingested, RawError, Recipe, attachment, ingest,
    raw,
};

pub(super) const BODY_ID: BodyId = BodyId([7; 16]);

/// Blobs in memory, given out in small chunks.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) blobs: Arc<HashMap<BlobHash, Bytes>>,
    pub(super) chunk: usize,
}

impl Memory {
    pub(super) fn of(ingested: &Ingested, chunk: usize) -> Self {
        let blobs = ingested.blobs.iter().map(|blob| (blob.hash, blob.content.clone())).collect();
        Self { blobs: Arc::new(blobs), chunk }
    }
}

impl BlobSource for Memory {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        let blob = self.blobs.get(&hash).ok_or(BlobReadError::Missing(hash))?;
        let part = blob.slice(range.start as usize..range.end as usize);
        let chunk = self.chunk.max(1);
        let chunks: Vec<_> =
            (0..part.len()).step_by(chunk).map(|at| Ok(part.slice(at..part.len().min(at + chunk)))).collect();
        Ok(stream::iter(chunks).boxed())
    }
}

pub(super) fn stored(message: &pb::NewMessage) -> pb::StoredBody {
    let body = message.body.clone().unwrap();
    pb::StoredBody {
        pieces: message.pieces.clone(),
        parts: message.parts.clone(),
        body: Some(pb::BodyRecord { compression: body.compression, text: body.text, text_length: body.text_length }),
    }
}

pub(super) fn collect(stream: ByteStream) -> Result<Vec<u8>, RawError> {
    block_on(async {
        let mut stream = stream;
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
        }
        Ok(bytes)
    })
}

/// Ingests, and checks all that holds for every message: the way back, the sizes, the limits.
pub(super) fn checked(bytes: &[u8], limits: &IngestLimits) -> Ingested {
    let ingested = ingest(&Bytes::copy_from_slice(bytes), BODY_ID, limits);
    let message = &ingested.message;
    let stored = stored(message);
    let memory = Memory::of(&ingested, 1000);

    let back = collect(block_on(raw(&stored, &memory)).unwrap()).unwrap();
    assert!(back == bytes, "the way back gives other bytes");
    assert_eq!(message.size, bytes.len() as u64);
    assert_eq!(message.pieces.iter().map(|piece| piece.raw_length).sum::<u64>(), message.size);
    let recipe = Recipe::parse(&stored).unwrap();
    assert_eq!(recipe.size(), message.size);
    assert!(recipe.blobs().all(|hash| memory.blobs.contains_key(&hash)));
    for blob in &ingested.blobs {
        assert_eq!(BlobHash::of(&blob.content), blob.hash);
    }
    check_parts(&stored, &memory, message.size);
    check_limits(message, limits);
    ingested
}

fn check_parts(stored: &pb::StoredBody, memory: &Memory, size: u64) {
    for part in &stored.parts {
        assert!(part.offset + part.length <= size);
        let file = block_on(attachment(stored, &part.path, memory, None)).unwrap();
        assert_eq!(file.length, part.decoded_size);
        assert_eq!(collect(file.stream).unwrap().len() as u64, part.decoded_size, "part {}", part.path);
    }
}

fn check_limits(message: &pb::NewMessage, limits: &IngestLimits) {
    let body = message.body.as_ref().unwrap();
    assert!(body.text_length as usize <= limits.literal_bytes_max.min(LITERAL_BYTES_MAX));
    assert!(body.text.len() as u64 <= body.text_length);
    assert!(message.envelope.as_ref().unwrap().encoded_len() <= ENVELOPE_BYTES_MAX);
    let listed = |parts: Vec<pb::Part>| pb::NewMessage { parts, ..pb::NewMessage::default() }.encoded_len();
    assert!(listed(message.parts.clone()) <= PARTS_BYTES_MAX);
    let recipe = pb::NewMessage { pieces: message.pieces.clone(), ..pb::NewMessage::default() };
    assert!(recipe.encoded_len() <= PIECES_BYTES_MAX);
    let rest = postrider_api::limit::COMMAND_BYTES_MAX - COMMAND_REST_BYTES_MAX;
    assert!(message.encoded_len() <= rest, "{} bytes", message.encoded_len());
}
