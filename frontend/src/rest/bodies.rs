//! The blobs of messages, as REST reads and writes them; and messages made readable.
//!
//! Invariant: a blob is looked for in the residency zone of the caller's shard and nowhere else (P-9): a hash that somebody
//! knows opens nothing, because only a row of the caller's mailbox leads here.
//! Invariant: what takes time with the size of a message runs away from the threads that serve others.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use http_body::{Frame, SizeHint};
use postrider_api::pb;

use postrider_api::id::ShardId;
use postrider_blob::BlobError;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::blobs::{Blobs, ZoneBlobs};
use crate::cluster::Cluster;
use crate::place::Place;
use crate::rest::limit::{READS_MAX, READS_PER_USER_MAX, RENDERS_MAX};
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::near::Near;
use crate::rest::problem::{Kind, Problem};
use crate::rest::turns::{Turn, Turns};
use postrider_mime::{self as mime, BlobReadError, CutBlob, RawError, Rendered};

/// The blobs of the cluster.
#[derive(Clone)]
pub(crate) struct Bodies {
    blobs: Blobs,
    cluster: Arc<dyn Cluster>,
    reads: Turns,
    renders: Arc<Semaphore>,
    near: Near,
}

impl Bodies {
    /// Over the object stores; the shard map of `cluster` tells each shard's zone.
    pub(crate) fn new(blobs: Blobs, cluster: Arc<dyn Cluster>, near: Near) -> Self {
        let reads = Turns::new(READS_MAX, READS_PER_USER_MAX);
        Self { blobs, cluster, reads, renders: Arc::new(Semaphore::new(RENDERS_MAX)), near }
    }

    /// What is kept near of messages.
    pub(crate) fn near(&self) -> &Near {
        &self.near
    }

    /// The blobs of a shard's zone.
    pub(crate) fn of_shard(&self, shard: ShardId) -> Result<ZoneBlobs, Problem> {
        match self.blobs.of_shard(&self.cluster.map(), shard) {
            Some(blobs) => blobs.map_err(|error| Problem::internal(&error.to_string())),
            None => Err(Problem::new(Kind::Unavailable).detail("the shard map does not name the shard yet")),
        }
    }

    /// The caller's turn at reading what may be large: held until the last byte of it is on its way, see [`held`]. Taken before a
    /// shard is asked where his token is proven; otherwise behind the first answer, with [`EarlyTurn::or_now`]: nobody takes another's
    /// turns with a token that opens nothing.
    pub(crate) async fn early_turn(&self, mailboxes: &Mailboxes, caller: &Caller) -> Result<EarlyTurn, Problem> {
        if !mailboxes.is_proven(caller) {
            return Ok(EarlyTurn(None));
        }
        self.reads.take(caller.user).await.map(Some).map(EarlyTurn)
    }

    /// What a reader sees of a message.
    pub(crate) async fn render(
        &self,
        shard: ShardId,
        record: pb::EmailRecord,
        stored: pb::StoredBody,
    ) -> Result<(pb::EmailRecord, Rendered), Problem> {
        let blobs = self.of_shard(shard)?;
        let runtime = Handle::current();
        // Reading and decoding take turns: the thread waits where a part lies in an object store, hence the permits.
        let rendering = self.apart(move || {
            let rendered = runtime.block_on(mime::render(&record, &stored, &blobs));
            rendered.map(|rendered| (record, rendered))
        });
        rendering.await?.map_err(|error| unreadable(&error))
    }

    /// Does what takes time with the size of a message, beside as many others as may.
    pub(crate) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let permit = Arc::clone(&self.renders).acquire_owned().await;
        let working = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        working.await.map_err(|_| Problem::internal("work on a message ended early"))
    }

    /// Makes the blobs of a message durable; until then no command may refer to them (P-1). Answers the epoch of the placement
    /// for which they are: a command that refers to them is proposed under it; 0 where there are none.
    pub(crate) async fn put_all(&self, shard: ShardId, blobs: Vec<CutBlob>) -> Result<u64, Problem> {
        if blobs.is_empty() {
            return Ok(0);
        }
        let epoch = Place::of(&self.cluster.map(), shard).map_or(0, |place| place.epoch);
        let put = self.of_shard(shard)?.put_all(blobs).await;
        put.map(|()| epoch).map_err(|error| match error {
            BlobError::TooLarge { max } => Problem::new(Kind::MessageTooLarge).member("bytes_max", max),
            error if error.is_retryable() => {
                Problem::new(Kind::Unavailable).detail("fewer than two regions could store an attachment")
            }
            error => Problem::internal(&error.to_string()),
        })
    }
}

/// Puts what a stream gives behind what is there already. Whoever calls it has room for all of it.
pub(crate) async fn append<E>(
    whole: &mut BytesMut,
    mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    failed: impl Fn(E) -> Problem,
) -> Result<(), Problem> {
    while let Some(chunk) = stream.next().await {
        whole.extend_from_slice(&chunk.map_err(&failed)?);
    }
    Ok(())
}

/// A turn, if it was taken before the session was known to be true.
pub(crate) struct EarlyTurn(Option<Turn>);

impl EarlyTurn {
    /// The turn; taken now, behind an answer to `caller`, if it was not before.
    pub(crate) async fn or_now(self, bodies: &Bodies, caller: &Caller) -> Result<Turn, Problem> {
        match self.0 {
            Some(turn) => Ok(turn),
            None => bodies.reads.take(caller.user).await,
        }
    }
}

/// What a stored message that cannot be read is to the client.
pub(crate) fn unreadable(error: &RawError) -> Problem {
    match error {
        RawError::Blob(BlobReadError::Unavailable(_)) => {
            Problem::new(Kind::Unavailable).detail("no object store could give a part of the message")
        }
        RawError::Blob(BlobReadError::Missing(_) | BlobReadError::Damaged(_))
        | RawError::Recipe(_)
        | RawError::Text => Problem::internal(&error.to_string()),
    }
}

/// A response that holds a turn until the last byte of it is on its way, or nobody wants it any more.
pub(crate) fn held(response: Response, turn: Turn) -> Response {
    response.map(|body| Body::new(Held { body, _turn: turn }))
}

struct Held {
    body: Body,
    _turn: Turn,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::thread::{self, ThreadId};

    use async_trait::async_trait;
    use parking_lot::Mutex;
    use postrider_api::env::{SystemClock, SystemEntropy};
    use postrider_api::id::{BlobHash, BodyId};
    use postrider_blob::{BlobReader, BlobStore, Listed, MemoryStore, Put, Replicated, Zone};

    use super::*;
    use crate::cache::{Cache, CacheSettings};
    use crate::cluster::mail::{MailCluster, REGIONS};
    use crate::rest::ClusterSecret;
    use postrider_mime::IngestLimits;

    /// Notes which thread reads.
    struct Noting {
        store: MemoryStore,
        readers: Arc<Mutex<Vec<ThreadId>>>,
    }

    #[async_trait]
    impl BlobStore for Noting {
        fn region(&self) -> &str {
            self.store.region()
        }

        async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError> {
            self.store.put(zone, hash, content).await
        }

        async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError> {
            self.store.replace(zone, hash, content).await
        }

        async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
            self.readers.lock().push(thread::current().id());
            self.store.get(zone, hash, range).await
        }

        async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
            self.store.head(zone, hash).await
        }

        async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
            self.store.delete(zone, hash).await
        }

        async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError> {
            self.store.delete_version(zone, hash, version).await
        }

        async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError> {
            self.store.list(zone, after, max).await
        }
    }

    #[tokio::test]
    async fn messages_are_decoded_away_from_the_threads_that_serve() {
        let readers: Arc<Mutex<Vec<ThreadId>>> = Arc::default();
        let stores = REGIONS.map(|region| -> Arc<dyn BlobStore> {
            Arc::new(Noting { store: MemoryStore::new(region), readers: Arc::clone(&readers) })
        });
        let blobs = Blobs::new(Replicated::new(stores.to_vec(), "seoul", SystemClock::shared()));
        let cluster = MailCluster::new(1);
        let secret = ClusterSecret::new(vec![7; 32]).unwrap();
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let cache = Cache::new(&CacheSettings::default(), &secret, clock, entropy).unwrap();
        let near = Near::new(cache, Arc::clone(&cluster) as _, "seoul".to_owned());
        let bodies = Bodies::new(blobs, cluster, near);
        let raw = format!("Subject: x\r\nContent-Type: text/html\r\n\r\n{}", "<p>Hello</p>\r\n".repeat(100_000));
        let ingested = mime::ingest(&Bytes::from(raw), BodyId([1; 16]), &IngestLimits::default());
        assert!(!ingested.blobs.is_empty(), "a text of this size is cut out");
        bodies.put_all(ShardId::MAILBOX_FIRST, ingested.blobs).await.unwrap();
        let message = ingested.message;
        let body = message.body.unwrap();
        let record = pb::EmailRecord { parts: message.parts.clone(), ..Default::default() };
        let stored = pb::StoredBody {
            pieces: message.pieces,
            parts: message.parts,
            body: Some(pb::BodyRecord {
                compression: body.compression,
                text: body.text,
                text_length: body.text_length,
            }),
        };
        let (_, rendered) = bodies.render(ShardId::MAILBOX_FIRST, record, stored).await.unwrap();
        assert!(rendered.text.unwrap().starts_with("Hello"));
        let readers = readers.lock();
        // Reading and decoding are one task; this thread is the only one that serves.
        assert!(!readers.is_empty() && readers.iter().all(|reader| *reader != thread::current().id()), "{readers:?}");
    }
}
