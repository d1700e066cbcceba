//! What a sweep, a move and an operator ask: the blobs that this shard needs, by hash.

use bytes::Bytes;
use postrider_api::id::BlobHash;
use postrider_api::limit::BLOB_ROWS_MAX;
use postrider_api::pb::answer::Answer;
use postrider_api::pb::{BlobPage, BlobRecord, ListBlobs, ShardBlob};

use crate::key::{Key, KeyRange};
use crate::query::{QueryError, malformed};
use crate::row;
use crate::store::{Direction, Reader};

pub(crate) fn answer(reader: &impl Reader, query: &ListBlobs) -> Result<Answer, QueryError> {
    let range = KeyRange::blobs(hash(&query.after, "after")?, hash(&query.until, "until")?);
    let rows_max = match query.limit {
        0 => BLOB_ROWS_MAX,
        limit => limit.min(BLOB_ROWS_MAX),
    };
    let mut page = BlobPage::default();
    for found in reader.scan(&range, Direction::Forward) {
        let (key, value) = found?;
        let (key, blob) = row::decode_row::<BlobRecord>(key, value)?;
        let Key::Blob(hash) = key else { continue };
        if blob.references == 0 && blob.pins == 0 {
            continue; // condemned; a batch of a sweep at most
        }
        if page.blobs.len() == rows_max as usize {
            page.more = true;
            break;
        }
        page.blobs.push(ShardBlob { hash: Bytes::copy_from_slice(&hash.0), blob: Some(blob) });
    }
    Ok(Answer::Blobs(page))
}

fn hash(bytes: &Bytes, field: &str) -> Result<Option<BlobHash>, QueryError> {
    match bytes.is_empty() {
        true => Ok(None),
        false => BlobHash::try_from(&bytes[..]).map(Some).map_err(|error| malformed(format!("{field}: {error}"))),
    }
}
