//! Reading an object's file: every byte is checked against its block's checksum before it leaves.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::{self, Stream};
use s3s::stream::{ByteStream, RemainingLength};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use super::format::{BLOCK_BYTES, FOOTER_BYTES, Footer, FormatError, blocks};

/// Read from disk at a time, bytes: with the connections, the bound of what readers hold in memory.
const READ_STEP_BYTES: u64 = 4 * BLOCK_BYTES as u64;
/// Read at once from the end of a file, bytes: footer and checksums of an object of up to 64 MiB.
const TAIL_BYTES: u64 = (FOOTER_BYTES + 4 * 1024) as u64;

/// Why an object cannot be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    #[error("no such object")]
    Absent,
    #[error("the object's file is not whole")]
    Format(#[from] FormatError),
    #[error("read the object's file")]
    Io(#[source] io::Error),
}

/// Which put wrote an object's file: what its ETag says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(String);

impl Version {
    /// As it came in a header.
    pub(crate) fn given(etag: &str) -> Self {
        Self(etag.to_owned())
    }

    /// Of the file at `path`, whose content is not looked at. A file without a sound footer has a version, too: it can be
    /// listed, and so deleted. Blocks.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut footer = [0; FOOTER_BYTES];
        let sound = match metadata.len().checked_sub(FOOTER_BYTES as u64) {
            None => None,
            Some(at) => {
                file.read_exact_at(&mut footer, at)?;
                Footer::decode(&footer, metadata.len()).ok()
            }
        };
        Ok(match sound {
            Some(footer) => Self(footer.etag()),
            None => {
                let since = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                Self(format!("damaged-{:x}-{:x}", metadata.len(), since.as_nanos()))
            }
        })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An open object.
pub(crate) struct ObjectFile {
    file: File,
    footer: Footer,
    sums: Vec<u8>,
    modified: SystemTime,
}

impl ObjectFile {
    /// Opens and checks everything but the content. Blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|error| match error.kind() {
            // A directory in the way of a longer key: that key does not exist either.
            ErrorKind::NotFound | ErrorKind::NotADirectory => ReadError::Absent,
            _ => ReadError::Io(error),
        })?;
        let metadata = file.metadata().map_err(ReadError::Io)?;
        let file_len = metadata.len();
        let mut tail = vec![0; usize_of(file_len.min(TAIL_BYTES))];
        let tail_at = file_len - tail.len() as u64;
        file.read_exact_at(&mut tail, tail_at).map_err(ReadError::Io)?;
        let footer = tail.last_chunk::<FOOTER_BYTES>().ok_or(FormatError::Damaged)?;
        let footer = Footer::decode(footer, file_len)?;
        let sums_len = usize_of(blocks(footer.len) * 4);
        tail.truncate(tail.len() - FOOTER_BYTES);
        let sums = if sums_len <= tail.len() {
            tail.split_off(tail.len() - sums_len)
        } else {
            let mut sums = vec![0; sums_len];
            file.read_exact_at(&mut sums, footer.len).map_err(ReadError::Io)?;
            sums
        };
        if crc32c::crc32c(&sums) != footer.sums_crc {
            return Err(FormatError::Damaged.into());
        }
        let modified = metadata.modified().map_err(ReadError::Io)?;
        Ok(Self { file, footer, sums, modified })
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    pub(crate) fn modified(&self) -> SystemTime {
        self.modified
    }

    /// The bytes from `range.start` on: as many as one step gives, or up to the end of the range. Blocks.
    pub(crate) fn read_step(&self, range: &Range<u64>) -> Result<Bytes, ReadError> {
        let block = BLOCK_BYTES as u64;
        let step_end = (range.start / READ_STEP_BYTES + 1) * READ_STEP_BYTES;
        let end = range.end.min(step_end).min(self.footer.len);
        let first = range.start / block;
        let aligned = first * block..end.next_multiple_of(block).min(self.footer.len);
        let mut buffer = vec![0; usize_of(aligned.end - aligned.start)];
        self.file.read_exact_at(&mut buffer, aligned.start).map_err(ReadError::Io)?;
        let sums = self.sums.chunks_exact(4).skip(usize_of(first));
        for (content, sum) in buffer.chunks(BLOCK_BYTES).zip(sums) {
            if crc32c::crc32c(content).to_le_bytes() != *sum {
                return Err(FormatError::Damaged.into());
            }
        }
        Ok(Bytes::from(buffer).slice(usize_of(range.start - aligned.start)..usize_of(end - aligned.start)))
    }

    /// The range as a response body. `first` is what [`Self::read_step`] gave for its beginning; `permit` is held to the end.
    pub(crate) fn stream(
        self: Arc<Self>,
        range: Range<u64>,
        first: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> ObjectStream {
        let remaining = range.end - range.start;
        let next = range.start + first.len() as u64..range.end;
        let rest = stream::try_unfold((self, next), |(object, range)| async move {
            if range.is_empty() {
                return Ok(None);
            }
            let reading = tokio::task::spawn_blocking(move || {
                let bytes = object.read_step(&range)?;
                Ok::<_, ReadError>((bytes, object, range))
            });
            let (bytes, object, range) = match reading.await {
                Ok(read) => read?,
                Err(stopped) => return Err(ReadError::Io(io::Error::other(stopped))),
            };
            let next = range.start + bytes.len() as u64..range.end;
            Ok(Some((bytes, (object, next))))
        });
        ObjectStream { first: (!first.is_empty()).then_some(first), rest: Box::pin(rest), remaining, _permit: permit }
    }
}

/// Lengths come from files that fit the address space: objects are bounded, and so are their checksums.
fn usize_of(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// A response body of known length.
pub(crate) struct ObjectStream {
    first: Option<Bytes>,
    rest: Pin<Box<dyn Stream<Item = Result<Bytes, ReadError>> + Send + Sync>>,
    remaining: u64,
    _permit: OwnedSemaphorePermit,
}

impl Stream for ObjectStream {
    type Item = Result<Bytes, s3s::StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => futures::ready!(self.rest.as_mut().poll_next(cx)),
        };
        Poll::Ready(next.map(|read| match read {
            Ok(bytes) => {
                self.remaining -= bytes.len() as u64;
                metrics::counter!("postrider_blob_bytes_total", "direction" => "out").increment(bytes.len() as u64);
                Ok(bytes)
            }
            Err(error) => {
                // The headers are out: breaking the connection is the only way left to say so.
                tracing::error!(%error, "an object became unreadable while it was being sent");
                Err(error.into())
            }
        }))
    }
}

impl ByteStream for ObjectStream {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize_of(self.remaining))
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::BlockSums;
    use super::*;
    use proptest::prelude::*;

    fn file_of(content: &[u8]) -> Vec<u8> {
        let mut sums = BlockSums::default();
        sums.update(content);
        let (tail, _) = sums.finish(1, 2);
        [content, &tail].concat()
    }

    fn read_all(path: &Path) -> Result<Vec<u8>, ReadError> {
        let object = ObjectFile::open(path)?;
        let mut range = 0..object.footer().len;
        let mut content = Vec::new();
        while !range.is_empty() {
            let step = object.read_step(&range)?;
            range.start += step.len() as u64;
            content.extend_from_slice(&step);
        }
        Ok(content)
    }

    /// What can happen to a file below us.
    #[derive(Debug, Clone)]
    enum Damage {
        None,
        Flip(prop::sample::Index, u8),
        Cut(prop::sample::Index),
        Append(Vec<u8>),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        prop_oneof![
            Just(Damage::None),
            (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            any::<prop::sample::Index>().prop_map(Damage::Cut),
            prop::collection::vec(any::<u8>(), 1..100).prop_map(Damage::Append),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_file_gives_its_content_or_an_error(
            // Around a block, and beyond what one read of the tail covers of small objects.
            len in prop_oneof![0usize..200, 65_500usize..65_600, 300_000usize..300_100], damage in damage()
        ) {
            let content: Vec<u8> = (0..len).map(|n| (n % 241) as u8).collect();
            let mut file = file_of(&content);
            match &damage {
                Damage::None => {}
                Damage::Flip(at, bit) => { let at = at.index(file.len()); file[at] ^= 1 << bit }
                Damage::Cut(at) => { let at = at.index(file.len()); file.truncate(at) }
                Damage::Append(more) => file.extend_from_slice(more),
            }
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("object");
            std::fs::write(&path, &file).unwrap();
            match (read_all(&path), damage) {
                (Ok(read), Damage::None) => prop_assert!(read == content),
                (Err(ReadError::Format(_)), Damage::Flip(..) | Damage::Cut(_) | Damage::Append(_)) => {}
                (read, damage) => prop_assert!(false, "{damage:?} gives {:?}", read.map(|read| read.len())),
            }
        }

        #[test]
        fn no_file_panics(file in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("object");
            std::fs::write(&path, &file).unwrap();
            prop_assert!(matches!(read_all(&path), Err(ReadError::Format(_))));
        }
    }
}
