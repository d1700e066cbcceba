//! An upload, from the first byte to a synced temporary file.
//!
//! Invariant: [`receive`] returns only after content, checksums and footer are synced, and only if they are what the
//! client announced. Dropping an upload removes its file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::digest::{Digests, Expected};
use super::format::{BlockSums, Footer};
use super::tree::Tree;
use crate::BLOB_BYTES_MAX;

/// Gathered in memory before it is written, bytes. What is smaller takes one trip to a blocking thread in all.
const WRITE_STEP_BYTES: usize = 1024 * 1024;
/// Longest silence of a client in the middle of a body.
const BODY_IDLE_MAX: Duration = Duration::from_secs(20);

/// A file under `tmp/` that goes away with this value.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    path: PathBuf,
}

impl TemporaryFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {} // renamed
            // Costs space until the next start, which empties the directory.
            Err(error) => tracing::warn!(%error, "a temporary file stays until the next start"),
        }
    }
}

/// An upload that is on disk, under no name yet.
pub(crate) struct Received {
    pub(crate) file: TemporaryFile,
    pub(crate) footer: Footer,
}

struct Upload {
    temporary: TemporaryFile,
    file: File,
    sequence: u64,
    sums: BlockSums,
    /// Boxed: hash states are large, and this value moves from thread to thread.
    digests: Box<Digests>,
}

impl Upload {
    fn create(tree: &Tree, digests: Box<Digests>) -> io::Result<Self> {
        let sequence = tree.next_sequence();
        let path = tree.temporary(sequence);
        let file = File::create_new(&path)?;
        Ok(Self { temporary: TemporaryFile { path }, file, sequence, sums: BlockSums::default(), digests })
    }

    fn append(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            self.file.write_all(chunk)?;
            self.sums.update(chunk);
            self.digests.update(chunk);
        }
        Ok(())
    }

    fn finish(mut self, tree: &Tree) -> io::Result<(Received, Box<Digests>)> {
        let (tail, footer) = self.sums.finish(tree.epoch(), self.sequence);
        self.file.write_all(&tail)?;
        tree.disk().sync_content(&self.file)?;
        Ok((Received { file: self.temporary, footer }, self.digests))
    }
}

enum Step {
    More(Box<Upload>),
    Done(Received, Box<Digests>),
}

/// Takes a body in. `announced` is its length.
pub(crate) async fn receive(
    tree: &Arc<Tree>,
    mut body: StreamingBlob,
    announced: u64,
    expected: Expected,
) -> S3Result<Received> {
    let mut upload: Option<Box<Upload>> = None;
    let mut digests = Some(expected.digests());
    let mut len = 0;
    loop {
        let (chunks, ended) = gather(&mut body, &mut len).await?;
        if len > announced || (ended && len < announced) {
            return Err(s3_error!(IncompleteBody, "the body is not as long as was announced"));
        }
        let tree = Arc::clone(tree);
        let (resumed, fresh) = (upload.take(), digests.take().unwrap_or_default());
        let step = tokio::task::spawn_blocking(move || -> io::Result<Step> {
            let mut upload = match resumed {
                Some(upload) => upload,
                None => Box::new(Upload::create(&tree, fresh)?),
            };
            upload.append(&chunks)?;
            if ended {
                upload.finish(&tree).map(|(received, digests)| Step::Done(received, digests))
            } else {
                Ok(Step::More(upload))
            }
        });
        match step.await.map_err(S3Error::internal_error)?.map_err(storage_error)? {
            Step::More(more) => upload = Some(more),
            Step::Done(received, digests) => {
                expected.check(*digests, &received.footer)?;
                return Ok(received);
            }
        }
    }
}

/// Reads a body to its end and forgets it: a client that is still sending could miss an early answer.
pub(crate) async fn drain(mut body: StreamingBlob) -> S3Result<()> {
    let mut len = 0;
    while !gather(&mut body, &mut len).await?.1 {}
    Ok(())
}

/// The next piece of a body, and whether it is the last.
async fn gather(body: &mut StreamingBlob, len: &mut u64) -> S3Result<(Vec<Bytes>, bool)> {
    let mut chunks = Vec::new();
    let mut gathered = 0;
    while gathered < WRITE_STEP_BYTES {
        let next = tokio::time::timeout(BODY_IDLE_MAX, body.next())
            .await
            .map_err(|_| s3_error!(RequestTimeout, "no more of the body came"))?;
        match next {
            None => return Ok((chunks, true)),
            Some(Err(error)) => return Err(S3Error::with_source(S3ErrorCode::IncompleteBody, error)),
            Some(Ok(chunk)) => {
                *len += chunk.len() as u64;
                gathered += chunk.len();
                if *len > BLOB_BYTES_MAX {
                    return Err(too_large());
                }
                metrics::counter!("postrider_blob_bytes_total", "direction" => "in").increment(chunk.len() as u64);
                chunks.push(chunk);
            }
        }
    }
    Ok((chunks, false))
}

pub(crate) fn too_large() -> S3Error {
    s3_error!(EntityTooLarge, "an object may have at most {} bytes", BLOB_BYTES_MAX)
}

/// A full disk is for the client to know as such; anything else is ours.
pub(crate) fn storage_error(error: io::Error) -> S3Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => s3_error!(error, ServiceUnavailable, "the disk is full"),
        _ => S3Error::internal_error(error),
    }
}
