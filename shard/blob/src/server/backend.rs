//! The S3 operations that we serve. Each one is short: the work is in `upload`, `object`, `list` and `commit`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput, ETag, ETagCondition, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, Object, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use tokio::sync::Semaphore;

use super::CONNECTIONS_MAX;
use super::commit::{Change, CommitError, Committer, Outcome};
use super::digest::Expected;
use super::key::KeyError;
use super::list;
use super::object::{ObjectFile, ReadError, Version};
use super::tree::Tree;
use super::upload;
use crate::BLOB_BYTES_MAX;

/// Bodies taken in at a time. More wait, their senders held back by TCP.
const UPLOADS_MAX: usize = 64;
/// How long one waits before it is told to slow down.
const UPLOAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// Objects given out at a time: half of the connections, so that readers, however slow, leave the others to writers. One more
/// is told to slow down at once; it has other regions to ask.
pub(super) const DOWNLOADS_MAX: usize = CONNECTIONS_MAX / 2;
/// Rows of one list page: S3's own limit.
const LIST_ROWS_MAX: i32 = 1000;
/// What a damaged object answers. No S3 status says this; a 5xx would only make clients repeat it.
const DAMAGED_STATUS: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
const DAMAGED_CODE: &str = "ObjectDamaged";
const CONTENT_TYPE: &str = "application/octet-stream";

/// The file system as an object store.
pub(crate) struct Backend {
    tree: Arc<Tree>,
    committer: Committer,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
}

impl Backend {
    pub(crate) fn new(tree: Arc<Tree>, committer: Committer, downloads_max: usize) -> Self {
        let (uploads, downloads) = (Semaphore::new(UPLOADS_MAX), Semaphore::new(downloads_max));
        Self { tree, committer, uploads: Arc::new(uploads), downloads: Arc::new(downloads) }
    }

    fn bucket(&self, name: &str) -> S3Result<PathBuf> {
        self.tree.bucket(name).ok_or_else(|| s3_error!(InvalidBucketName, "3 to 63 of a-z, 0-9 and '-'"))
    }

    /// The bucket's directory and the object's file.
    fn paths(&self, bucket: &str, key: &str) -> S3Result<(PathBuf, PathBuf)> {
        let bucket = self.bucket(bucket)?;
        let object = Tree::object(&bucket, key).map_err(|error| match error {
            KeyError::TooLong => s3_error!(error, KeyTooLongError),
            KeyError::Empty | KeyError::Foreign => s3_error!(error, InvalidRequest),
        })?;
        Ok((bucket, object))
    }

    /// Opens an object and runs `then` on it, all on a blocking thread; then waits until the object is durable.
    async fn open<T: Send + 'static>(
        &self,
        (bucket, path): (PathBuf, PathBuf),
        then: impl FnOnce(ObjectFile) -> S3Result<T> + Send + 'static,
    ) -> S3Result<T> {
        let opening = move || match ObjectFile::open(&path) {
            Ok(object) => then(object),
            Err(ReadError::Absent) if !bucket.is_dir() => Err(s3_error!(NoSuchBucket)),
            Err(error) => Err(read_error(error)),
        };
        let opened = tokio::task::spawn_blocking(opening).await.map_err(S3Error::internal_error)??;
        self.committer.settle().await.map_err(commit_error)?;
        Ok(opened)
    }

    /// Makes the upload an object.
    async fn create(&self, input: PutObjectInput, expected: Expected) -> S3Result<PutObjectOutput> {
        let (bucket, to) = self.paths(&input.bucket, &input.key)?;
        let only_new = match input.if_none_match {
            None => false,
            Some(ETagCondition::Any) => true,
            Some(ETagCondition::ETag(_)) => return Err(s3_error!(NotImplemented, "If-None-Match takes only *")),
        };
        let announced = input.content_length.and_then(|len| u64::try_from(len).ok());
        let announced = announced.ok_or_else(|| s3_error!(MissingContentLength))?;
        if announced > BLOB_BYTES_MAX {
            return Err(upload::too_large());
        }
        let body = input.body.ok_or_else(|| s3_error!(IncompleteBody))?;
        let waiting = tokio::time::timeout(UPLOAD_WAIT_MAX, Arc::clone(&self.uploads).acquire_owned());
        let Ok(Ok(_permit)) = waiting.await else { return Err(s3_error!(SlowDown)) };
        if only_new && self.open((bucket.clone(), to.clone()), |_| Ok(())).await.is_ok() {
            upload::drain(body).await?;
            return Err(exists());
        }
        let received = upload::receive(&self.tree, body, announced, expected).await?;
        let etag = received.footer.etag();
        let change = if only_new {
            Change::Create { from: received.file, bucket, to }
        } else {
            Change::Replace { from: received.file, bucket, to }
        };
        match self.committer.commit(change).await.map_err(commit_error)? {
            Outcome::Changed => Ok(PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..Default::default() }),
            Outcome::Unchanged => Err(exists()),
        }
    }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let path = self.bucket(&req.input.bucket)?;
        match self.committer.commit(Change::MakeBucket { path }).await.map_err(commit_error)? {
            Outcome::Changed => Ok(S3Response::new(CreateBucketOutput::default())),
            Outcome::Unchanged => Err(s3_error!(BucketAlreadyOwnedByYou)),
        }
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let path = self.bucket(&req.input.bucket)?;
        let there = tokio::task::spawn_blocking(move || path.is_dir()).await.map_err(S3Error::internal_error)?;
        if there { Ok(S3Response::new(HeadBucketOutput::default())) } else { Err(s3_error!(NoSuchBucket)) }
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        if req.input.if_match.is_some() {
            return Err(s3_error!(NotImplemented, "If-Match"));
        }
        let expected = Expected::of(&req.input, &req.headers, req.trailing_headers.clone())?;
        Ok(S3Response::new(self.create(req.input, expected).await?))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = req.input;
        let conditional = input.if_match.is_some()
            || input.if_none_match.is_some()
            || input.if_modified_since.is_some()
            || input.if_unmodified_since.is_some();
        if conditional || input.version_id.is_some() || input.part_number.is_some() {
            return Err(s3_error!(NotImplemented, "conditional reads, versions and parts"));
        }
        let Ok(permit) = Arc::clone(&self.downloads).try_acquire_owned() else { return Err(s3_error!(SlowDown)) };
        let wanted = input.range;
        let opened = self.open(self.paths(&input.bucket, &input.key)?, move |object| {
            let len = object.footer().len;
            let range = match wanted {
                Some(range) => range.check(len)?,
                None => 0..len,
            };
            let first = if range.is_empty() { Ok(Default::default()) } else { object.read_step(&range) };
            Ok((Arc::new(object), range, first.map_err(read_error)?))
        });
        let (object, range, first) = opened.await?;
        let Range { start, end } = range;
        let footer = *object.footer();
        let output = GetObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(end - start)),
            content_range: wanted.map(|_| format!("bytes {start}-{}/{}", end - 1, footer.len)),
            content_type: Some(CONTENT_TYPE.into()),
            e_tag: Some(ETag::Strong(footer.etag())),
            last_modified: Some(Timestamp::from(object.modified())),
            body: Some(StreamingBlob::new(object.stream(range, first, permit))),
            ..Default::default()
        };
        let mut response = S3Response::new(output);
        response.status = wanted.map(|_| StatusCode::PARTIAL_CONTENT);
        Ok(response)
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = req.input;
        if input.version_id.is_some() || input.part_number.is_some() || input.range.is_some() {
            return Err(s3_error!(NotImplemented, "versions, parts and ranges of HEAD"));
        }
        let opened =
            self.open(self.paths(&input.bucket, &input.key)?, |object| Ok((*object.footer(), object.modified())));
        let (footer, modified) = opened.await?;
        Ok(S3Response::new(HeadObjectOutput {
            accept_ranges: Some("bytes".into()),
            content_length: Some(signed(footer.len)),
            content_type: Some(CONTENT_TYPE.into()),
            e_tag: Some(ETag::Strong(footer.etag())),
            last_modified: Some(Timestamp::from(modified)),
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = req.input;
        if input.version_id.is_some() || input.if_match_last_modified_time.is_some() || input.if_match_size.is_some() {
            return Err(s3_error!(NotImplemented, "versions, and deletes on any condition but If-Match"));
        }
        let (_, path) = self.paths(&input.bucket, &input.key)?;
        let change = match input.if_match {
            None => Change::Remove { path },
            Some(ETagCondition::Any) => return Err(s3_error!(NotImplemented, "If-Match takes an ETag")),
            Some(ETagCondition::ETag(etag)) => Change::RemoveVersion { path, version: Version::given(etag.value()) },
        };
        // S3: deleting what is not there succeeds.
        self.committer.commit(change).await.map_err(commit_error)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        if input.delimiter.is_some() || input.encoding_type.is_some() {
            return Err(s3_error!(NotImplemented, "delimiters and encodings of lists"));
        }
        let bucket = self.bucket(&input.bucket)?;
        let after = match &input.continuation_token {
            // Ours is the last key of the page before, in hex so that it is a plain word.
            Some(token) => hex::decode(token)
                .ok()
                .and_then(|key| String::from_utf8(key).ok())
                .ok_or_else(|| s3_error!(InvalidArgument, "not a continuation token of ours"))?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let prefix = input.prefix.clone().unwrap_or_default();
        let limit = input.max_keys.unwrap_or(LIST_ROWS_MAX).clamp(0, LIST_ROWS_MAX);
        let rows = usize::try_from(limit).unwrap_or(0); // clamped above
        let listing = move || -> S3Result<list::Page> {
            if !bucket.is_dir() {
                return Err(s3_error!(NoSuchBucket));
            }
            list::page(&bucket, &prefix, &after, rows).map_err(upload::storage_error)
        };
        let page = tokio::task::spawn_blocking(listing).await.map_err(S3Error::internal_error)??;
        self.committer.settle().await.map_err(commit_error)?;
        let last = page.rows.last().filter(|_| page.truncated).map(|row| hex::encode(&row.key));
        let contents: Vec<Object> = page.rows.into_iter().map(listed).collect();
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            max_keys: Some(limit),
            key_count: i32::try_from(contents.len()).ok(), // at most LIST_ROWS_MAX
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            is_truncated: Some(last.is_some()),
            next_continuation_token: last,
            contents: Some(contents),
            ..Default::default()
        }))
    }
}

fn listed(row: list::Row) -> Object {
    Object {
        key: Some(row.key),
        size: Some(signed(row.len)),
        last_modified: Some(Timestamp::from(row.modified)),
        e_tag: Some(ETag::Strong(row.version.as_str().to_owned())),
        ..Default::default()
    }
}

/// Lengths are far below the point where the protocol's signed numbers end.
fn signed(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

fn exists() -> S3Error {
    s3_error!(PreconditionFailed, "the object exists")
}

fn commit_error(error: CommitError) -> S3Error {
    match error {
        CommitError::NoBucket => s3_error!(NoSuchBucket),
        CommitError::OtherVersion => s3_error!(PreconditionFailed, "the object is another one by now"),
        CommitError::Io(error) => upload::storage_error(error),
        CommitError::SyncFailed | CommitError::Stopping => s3_error!(error, ServiceUnavailable),
    }
}

fn read_error(error: ReadError) -> S3Error {
    match error {
        ReadError::Absent => s3_error!(NoSuchKey),
        ReadError::Format(_) => {
            // The one parse that cannot fail: unknown codes are kept as they are.
            let code = S3ErrorCode::from_bytes(DAMAGED_CODE.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
            let mut damaged = S3Error::with_source(code, error.into());
            damaged.set_status_code(DAMAGED_STATUS);
            damaged
        }
        ReadError::Io(error) => upload::storage_error(error),
    }
}
