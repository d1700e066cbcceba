//! Messages whose content is near: read from the region's cache what never changes, and from the shard, in the same consistent
//! read as ever, whether it is there, whether the caller may see it and what does change.
//!
//! Invariant (P-9): the shard is asked under the caller's session before anything of the content is given out, and a value is looked
//! for under the user of that session only.
//! Invariant: content stays in its residency zone: a frontend that stands in none of the zone's regions keeps nothing of it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{TryStreamExt as _, stream};
use postrider_api::id::{BlobHash, EmailId, ShardId, UserId};
use postrider_api::pb;

use crate::blobs::ZoneBlobs;
use crate::cache::{BLOB_BYTES_MAX, Cache, Contents, View};
use crate::cluster::Cluster;
use crate::rest::bodies::Bodies;
use crate::rest::mailboxes::{Caller, Freshness, Mailboxes};
use crate::rest::messages::{record, state, stored_body};
use crate::rest::problem::{Kind, Problem};
use crate::rest::turns::Turn;
use postrider_mime::{BlobReadError, BlobSource, BlobStream, Rendered};

/// What a frontend keeps near. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Near {
    cache: Cache,
    cluster: Arc<dyn Cluster>,
    region: String,
}

/// A message, read.
pub(crate) struct Opened {
    pub(crate) record: pb::EmailRecord,
    pub(crate) rendered: Rendered,
    pub(crate) freshness: Freshness,
    pub(crate) turn: Turn,
}

impl Near {
    /// For a frontend of a region.
    pub(crate) fn new(cache: Cache, cluster: Arc<dyn Cluster>, region: String) -> Self {
        Self { cache, cluster, region }
    }

    /// The contents that may lie here; `None` where they are of another zone.
    fn contents(&self, shard: ShardId) -> Option<&Contents> {
        let map = self.cluster.map();
        let zone = &map.shards.iter().find(|candidate| candidate.id == shard.0)?.zone;
        let is_here = map.regions.iter().any(|region| region.name == self.region && region.zone == *zone);
        is_here.then(|| self.cache.contents())
    }

    /// Reads a message and what a reader sees of it: one small question where its content is near.
    pub(crate) async fn open(
        &self,
        mailboxes: &Mailboxes,
        bodies: &Bodies,
        caller: &Caller,
        message: EmailId,
        min_modseq: u64,
    ) -> Result<Opened, Problem> {
        let turn = bodies.early_turn(mailboxes, caller).await?;
        let contents = self.contents(caller.shard);
        let kept = match contents {
            Some(contents) => contents.view(caller.user, message).await,
            None => None,
        };
        if let Some(view) = kept {
            let (state, freshness) = self.state(mailboxes, caller, message, min_modseq).await?;
            if let Some((record, rendered)) = view.with(state) {
                let turn = turn.or_now(bodies, caller).await?;
                return Ok(Opened { record, rendered, freshness, turn });
            }
        }
        let ((record, fresh), (stored, body_fresh)) = tokio::try_join!(
            record(mailboxes, caller, message, min_modseq),
            stored_body(mailboxes, caller, message, min_modseq),
        )?;
        let turn = turn.or_now(bodies, caller).await?;
        let (record, rendered) = bodies.render(caller.shard, record, stored).await?;
        if let Some(contents) = contents {
            contents.put_view(caller.user, message, View::of(&record, &rendered));
        }
        Ok(Opened { record, rendered, freshness: fresh.and(body_fresh), turn })
    }

    /// What it takes to give back a message's bytes, and where its blobs are read from.
    pub(crate) async fn stored(
        &self,
        mailboxes: &Mailboxes,
        bodies: &Bodies,
        caller: &Caller,
        message: EmailId,
        min_modseq: u64,
    ) -> Result<(pb::StoredBody, NearBlobs, Freshness), Problem> {
        let contents = self.contents(caller.shard);
        let kept = match contents {
            Some(contents) => contents.stored(caller.user, message).await,
            None => None,
        };
        let (stored, freshness) = match kept {
            // The body of a message never changes: it is there as long as the message is.
            Some(stored) => (stored, self.state(mailboxes, caller, message, min_modseq).await?.1),
            None => {
                let (stored, freshness) = stored_body(mailboxes, caller, message, min_modseq).await?;
                if let Some(contents) = contents {
                    contents.put_stored(caller.user, message, stored.clone());
                }
                (stored, freshness)
            }
        };
        let length = |piece: &pb::Piece| Some((BlobHash(piece.blob.as_ref().try_into().ok()?), piece.blob_length));
        let near = contents.map(|contents| Kept {
            contents: contents.clone(),
            user: caller.user,
            message,
            lengths: stored.pieces.iter().filter_map(length).collect(),
        });
        let blobs = NearBlobs { blobs: bodies.of_shard(caller.shard)?, near: near.map(Arc::new) };
        Ok((stored, blobs, freshness))
    }

    /// What may change of a message whose content is near. Of one that is gone nothing has to lie here any longer; what is not asked
    /// for any more is over when it is no longer recent, and until then served to nobody.
    async fn state(
        &self,
        mailboxes: &Mailboxes,
        caller: &Caller,
        message: EmailId,
        min_modseq: u64,
    ) -> Result<(pb::EmailRecord, Freshness), Problem> {
        let state = state(mailboxes, caller, message, min_modseq).await;
        if let (Err(problem), Some(contents)) = (&state, self.contents(caller.shard))
            && problem.kind() == Kind::NotFound
        {
            contents.forget(caller.user, message);
        }
        state
    }
}

/// The blobs of one message: the small ones from the cache, the others from the object stores. Cheap to clone.
#[derive(Clone)]
pub(crate) struct NearBlobs {
    blobs: ZoneBlobs,
    near: Option<Arc<Kept>>,
}

struct Kept {
    contents: Contents,
    user: UserId,
    message: EmailId,
    /// How long each blob of the message is.
    lengths: HashMap<BlobHash, u64>,
}

impl Kept {
    fn length(&self, hash: &BlobHash) -> Option<u64> {
        self.lengths.get(hash).copied().filter(|length| *length <= BLOB_BYTES_MAX)
    }
}

impl BlobSource for NearBlobs {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        let small = self.near.as_ref().and_then(|near| Some((near, near.length(&hash)?)));
        let Some((near, length)) = small else { return self.blobs.read(hash, range).await };
        let whole = match near.contents.blob(near.user, near.message, &hash).await {
            Some(kept) if kept.len() as u64 == length => kept,
            _ => {
                let read = self.blobs.read(hash, 0..length).await?;
                let whole = collect(read, length).await?;
                if whole.len() as u64 == length {
                    near.contents.put_blob(near.user, near.message, &hash, whole.clone());
                }
                whole
            }
        };
        let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let part = bounds.filter(|(start, end)| start <= end && *end <= whole.len());
        // A range that the blob does not have: it is not the one that the row means.
        let (start, end) = part.ok_or(BlobReadError::Damaged(hash))?;
        Ok(Box::pin(stream::iter([Ok(whole.slice(start..end))])))
    }
}

async fn collect(stream: BlobStream, length: u64) -> Result<Bytes, BlobReadError> {
    let whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or_default());
    let append = |mut whole: BytesMut, piece: Bytes| async move {
        whole.extend_from_slice(&piece);
        Ok(whole)
    };
    stream.try_fold(whole, append).await.map(BytesMut::freeze)
}
