//! One region's store behind the S3 protocol.
//!
//! Invariant: no other file of the workspace names the S3 SDK; nothing of it is in a public signature.
//!
//! What a put costs is kept down: content is not hashed a third time. Its CRC-32C goes into a signed header, so the
//! store checks what arrives, and the body itself is sent unsigned where nobody can sit in between (TLS or loopback).

mod client;
mod error;
mod options;

use std::ops::Range;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::stream;
use postrider_api::id::BlobHash;

use crate::store::LIST_ROWS_MAX;
use crate::{BLOB_BYTES_MAX, BlobError, BlobReader, BlobStore, Listed, Outage, Put, Zone};
use error::{Failure, failure};
pub use options::{S3Options, S3Timeouts};

/// From this size on a put asks first whether the blob is there, bytes: then a round trip is cheaper than the body.
const HEAD_FIRST_BYTES: usize = 1024 * 1024;
/// Tries of a conditional put that meets another one in progress (S3: 409 ConditionalRequestConflict).
const CONFLICT_TRIES_MAX: u32 = 5;
/// Pause between them.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// A client of one region's object store. Cheap to clone.
#[derive(Clone)]
pub struct S3Store {
    client: Client,
    region: String,
    bucket: String,
    timeouts: S3Timeouts,
    sign_body: bool,
    create_bucket: bool,
}

impl S3Store {
    /// Checks the options and makes a client. Talks to nobody yet: that a region is down must not keep the others from
    /// starting.
    pub async fn connect(options: S3Options) -> Result<Self, BlobError> {
        let security = options.check()?;
        Ok(Self {
            client: client::build(&options, security)?,
            region: options.region_name,
            bucket: options.bucket,
            timeouts: options.timeouts,
            sign_body: security == options::Security::Plain,
            create_bucket: options.create_bucket,
        })
    }

    /// Makes the bucket if it is missing.
    pub async fn ensure_bucket(&self) -> Result<(), BlobError> {
        let request = self.client.create_bucket().bucket(&self.bucket).send();
        match self.within(0, "create_bucket", request).await {
            Ok(_) | Err(Failure::BucketExists) => Ok(()),
            Err(failure) => Err(self.error(failure)),
        }
    }

    /// Runs a request, for as long as one that carries `bytes` may take, and measures it.
    async fn within<T, E: error::Coded>(
        &self,
        bytes: u64,
        operation: &'static str,
        request: impl Future<Output = Result<T, error::SdkError<E>>>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        let result = match tokio::time::timeout(self.timeouts.of(bytes), request).await {
            Ok(result) => result.map_err(failure),
            Err(_) => Err(Failure::Out(Outage::Timeout)),
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        metrics::histogram!("postrider_blob_store_seconds",
            "region" => self.region.clone(), "operation" => operation, "outcome" => outcome)
        .record(start.elapsed().as_secs_f64());
        result
    }

    async fn send(&self, key: &str, content: &Bytes, only_new: bool) -> Result<(), Failure> {
        let crc = STANDARD.encode(crc32c::crc32c(content).to_be_bytes());
        let put = self.client.put_object().bucket(&self.bucket).key(key);
        let put = put.checksum_crc32_c(crc).body(ByteStream::from(content.clone()));
        let put = if only_new { put.if_none_match("*") } else { put };
        let bytes = content.len() as u64;
        if self.sign_body {
            self.within(bytes, "put", put.send()).await?;
        } else {
            self.within(bytes, "put", put.customize().disable_payload_signing().send()).await?;
        }
        Ok(())
    }

    /// Sends, through a missing bucket and through concurrent puts of the same key.
    async fn store(&self, key: &str, content: &Bytes, only_new: bool) -> Result<(), Failure> {
        let mut tries = 0;
        let mut may_create = self.create_bucket;
        loop {
            match self.send(key, content, only_new).await {
                Err(Failure::NoBucket) if may_create => {
                    may_create = false;
                    self.ensure_bucket().await.map_err(|_| Failure::NoBucket)?;
                }
                Err(Failure::Conflict) if tries < CONFLICT_TRIES_MAX => {
                    tries += 1;
                    tokio::time::sleep(CONFLICT_PAUSE * tries).await;
                }
                done => return done,
            }
        }
    }

    fn error(&self, failure: Failure) -> BlobError {
        let region = self.region.clone();
        match failure {
            Failure::NotFound => BlobError::NotFound,
            Failure::Damaged => BlobError::Corrupt { region },
            Failure::Denied => BlobError::Denied { region },
            Failure::Out(outage) => BlobError::Unavailable { region, outage },
            Failure::Conflict => BlobError::Unavailable { region, outage: Outage::Busy },
            Failure::TooLarge => BlobError::TooLarge { max: BLOB_BYTES_MAX },
            Failure::BadRange => BlobError::Invalid { what: "the range lies outside of the blob" },
            Failure::NoBucket => BlobError::Invalid { what: "the bucket does not exist" },
            Failure::Exists | Failure::BucketExists | Failure::Refused => {
                BlobError::Invalid { what: "the store does not understand the request" }
            }
        }
    }
}

#[async_trait]
impl BlobStore for S3Store {
    fn region(&self) -> &str {
        &self.region
    }

    async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError> {
        if content.len() as u64 > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { max: BLOB_BYTES_MAX });
        }
        let there = content.len() >= HEAD_FIRST_BYTES
            && self.head(zone, hash).await.is_ok_and(|len| len == Some(content.len() as u64));
        if there {
            return Ok(Put::Existed);
        }
        match self.store(&zone.key(hash), &content, true).await {
            Ok(()) => Ok(Put::Stored),
            Err(Failure::Exists) => Ok(Put::Existed),
            Err(failure) => Err(self.error(failure)),
        }
    }

    async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError> {
        if content.len() as u64 > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge { max: BLOB_BYTES_MAX });
        }
        self.store(&zone.key(hash), &content, false).await.map_err(|failure| self.error(failure))
    }

    async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
        let mut request = self.client.get_object().bucket(&self.bucket).key(zone.key(hash));
        if let Some(range) = &range {
            if range.is_empty() {
                return Err(BlobError::Invalid { what: "the range lies outside of the blob" });
            }
            // Positions of the protocol end at i64::MAX; no blob comes near.
            request = request.range(match range.end {
                0..=BLOB_BYTES_MAX => format!("bytes={}-{}", range.start, range.end - 1),
                _ => format!("bytes={}-", range.start),
            });
        }
        let opened = self.within(0, "get", request.send()).await;
        let answer = opened.map_err(|failure| {
            self.error(match failure {
                Failure::NoBucket => Failure::NotFound,
                other => other,
            })
        })?;
        let failing = || BlobError::unavailable(&self.region, Outage::Failing);
        let len = answer.content_length().and_then(|len| u64::try_from(len).ok()).ok_or_else(failing)?;
        let blob_len = match (&range, answer.content_range()) {
            (None, _) => len,
            (Some(range), Some(given)) => blob_len(given, range, len).ok_or_else(failing)?,
            // The store ignored the range.
            (Some(_), None) => return Err(failing()),
        };
        let chunks = chunks(answer.body, self.region.clone(), self.timeouts.idle);
        let reader = BlobReader::new(&self.region, len, blob_len, chunks);
        Ok(if range.is_none() { reader.verified(&self.region, *hash) } else { reader })
    }

    async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        let request = self.client.head_object().bucket(&self.bucket).key(zone.key(hash)).send();
        match self.within(0, "head", request).await {
            Ok(answer) => {
                let len = answer.content_length().and_then(|len| u64::try_from(len).ok());
                len.map(Some).ok_or_else(|| BlobError::unavailable(&self.region, Outage::Failing))
            }
            Err(Failure::NotFound | Failure::NoBucket) => Ok(None),
            Err(failure) => Err(self.error(failure)),
        }
    }

    async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(zone.key(hash)).send();
        match self.within(0, "delete", request).await {
            Ok(_) | Err(Failure::NotFound | Failure::NoBucket) => Ok(()),
            Err(failure) => Err(self.error(failure)),
        }
    }

    async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError> {
        let request = self.client.delete_object().bucket(&self.bucket).key(zone.key(hash)).if_match(version).send();
        match self.within(0, "delete", request).await {
            Ok(_) | Err(Failure::NotFound | Failure::NoBucket) => Ok(true),
            Err(Failure::Exists) => Ok(false),
            Err(failure) => Err(self.error(failure)),
        }
    }

    async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError> {
        let rows = i32::try_from(max.min(LIST_ROWS_MAX)).unwrap_or(i32::MAX);
        let request = self.client.list_objects_v2().bucket(&self.bucket).max_keys(rows).prefix(format!("{zone}/"));
        let request = request.set_start_after(after.map(|hash| zone.key(hash)));
        let answer = match self.within(0, "list", request.send()).await {
            Ok(answer) => answer,
            Err(Failure::NotFound | Failure::NoBucket) => return Ok(Vec::new()),
            Err(failure) => return Err(self.error(failure)),
        };
        let row = |object: &aws_sdk_s3::types::Object| {
            let hash = zone.hash_of_key(object.key()?)?;
            let version = object.e_tag()?.to_owned();
            Some(Listed { hash, bytes: u64::try_from(object.size()?).ok()?, version })
        };
        // A key that is none of ours would end the list early if it were alone on a page: it has no business there.
        let foreign = BlobError::Invalid { what: "the bucket has keys that are not blobs" };
        answer.contents().iter().map(|object| row(object).ok_or_else(|| foreign.clone())).collect()
    }
}

/// A response body as a stream that gives up on a store that has fallen silent.
fn chunks(
    body: ByteStream,
    region: String,
    idle: Duration,
) -> impl futures::Stream<Item = Result<Bytes, BlobError>> + Send + 'static {
    stream::unfold(Some((body, region)), move |state| async move {
        let (mut body, region) = state?;
        match tokio::time::timeout(idle, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some((body, region)))),
            Ok(Some(Err(_))) => Some((Err(BlobError::unavailable(&region, Outage::Connection)), None)),
            Err(_) => Some((Err(BlobError::unavailable(&region, Outage::Timeout)), None)),
        }
    })
}

/// The blob's length in `bytes <first>-<last>/<length>` (RFC 9110 section 14.4), if that is the answer to `asked`.
fn blob_len(content_range: &str, asked: &Range<u64>, len: u64) -> Option<u64> {
    let (span, blob_len) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    // What is no number is no answer, and the caller says so.
    let (first, last, blob_len): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, blob_len.parse().ok()?);
    let right =
        first == asked.start && last.checked_add(1)? == asked.end.min(blob_len) && last.checked_sub(first)? + 1 == len;
    right.then_some(blob_len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_must_be_the_one_asked_for() {
        assert_eq!(blob_len("bytes 2-4/10", &(2..5), 3), Some(10));
        assert_eq!(blob_len("bytes 2-9/10", &(2..99), 8), Some(10));
        for (given, len) in
            [("bytes 3-5/10", 3), ("bytes 2-4/10", 4), ("bytes 2-5/10", 4), ("bytes */10", 3), ("2-4/10", 3)]
        {
            assert_eq!(blob_len(given, &(2..5), len), None, "{given}");
        }
    }
}
