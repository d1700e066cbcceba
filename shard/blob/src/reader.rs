//! A blob on its way to a reader.
//!
//! Invariant: of a verified read, the last bytes are given out only after the hash of everything was right. A reader
//! that saw the stream end without an error has the blob; one that saw an error does not have all of it.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use postrider_api::id::BlobHash;

use crate::{BlobError, Outage};

/// Length and bytes of a blob or of a part of one.
pub struct BlobReader {
    len: u64,
    blob_len: u64,
    stream: BoxStream<'static, Result<Bytes, BlobError>>,
}

impl BlobReader {
    /// `len` bytes out of a blob of `blob_len`. A stream that gives more or fewer bytes than `len` ends with
    /// [`BlobError::Unavailable`] of `region`.
    pub(crate) fn new(
        region: &str,
        len: u64,
        blob_len: u64,
        stream: impl Stream<Item = Result<Bytes, BlobError>> + Send + 'static,
    ) -> Self {
        debug_assert!(len <= blob_len, "a part is not longer than the whole");
        let stream = Exact { inner: stream.boxed(), region: region.to_owned(), remaining: len, done: false };
        Self { len, blob_len, stream: stream.boxed() }
    }

    /// The bytes of a part that is in memory already.
    pub(crate) fn of_bytes(region: &str, blob_len: u64, bytes: Bytes) -> Self {
        let len = bytes.len() as u64;
        let chunk = (!bytes.is_empty()).then_some(Ok(bytes));
        Self::new(region, len, blob_len, stream::iter(chunk))
    }

    /// Lets the stream end well only if everything in it has the hash.
    pub(crate) fn verified(self, region: &str, hash: BlobHash) -> Self {
        let stream = Verified {
            inner: self.stream,
            region: region.to_owned(),
            hash,
            hasher: Box::new(blake3::Hasher::new()),
            held: None,
            done: false,
        };
        Self { len: self.len, blob_len: self.blob_len, stream: stream.boxed() }
    }

    /// How many bytes the stream gives.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the stream gives no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of the whole blob, also where only a range of it was asked for.
    pub fn blob_len(&self) -> u64 {
        self.blob_len
    }

    /// Everything, in memory, unless it is more than `max` bytes.
    pub async fn collect(self, max: u64) -> Result<Bytes, BlobError> {
        let too_large = BlobError::TooLarge { max };
        if self.len > max {
            return Err(too_large);
        }
        let len = usize::try_from(self.len).map_err(|_| too_large)?;
        let mut stream = self.stream;
        let Some(first) = stream.try_next().await? else { return Ok(Bytes::new()) };
        if first.len() == len {
            // Its end must be seen too: that is where a bad hash shows.
            return stream.try_next().await.map(|_| first);
        }
        let mut all = BytesMut::with_capacity(len);
        all.extend_from_slice(&first);
        while let Some(chunk) = stream.try_next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}

impl Stream for BlobReader {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("len", &self.len).field("blob_len", &self.blob_len).finish_non_exhaustive()
    }
}

/// Counts bytes: a connection that breaks must not look like the end of the blob.
struct Exact {
    inner: BoxStream<'static, Result<Bytes, BlobError>>,
    region: String,
    remaining: u64,
    done: bool,
}

impl Stream for Exact {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let next = futures::ready!(self.inner.poll_next_unpin(cx));
        let bad = match next {
            Some(Ok(chunk)) => match self.remaining.checked_sub(chunk.len() as u64) {
                Some(remaining) => {
                    self.remaining = remaining;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                None => BlobError::unavailable(&self.region, Outage::Failing),
            },
            Some(Err(error)) => error,
            None if self.remaining == 0 => {
                self.done = true;
                return Poll::Ready(None);
            }
            None => BlobError::unavailable(&self.region, Outage::Connection),
        };
        self.done = true;
        Poll::Ready(Some(Err(bad)))
    }
}

/// Hashes what passes and holds the last chunk back until the hash is known to be right.
struct Verified {
    inner: BoxStream<'static, Result<Bytes, BlobError>>,
    region: String,
    hash: BlobHash,
    hasher: Box<blake3::Hasher>,
    held: Option<Bytes>,
    done: bool,
}

impl Stream for Verified {
    type Item = Result<Bytes, BlobError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        loop {
            match futures::ready!(self.inner.poll_next_unpin(cx)) {
                Some(Ok(chunk)) => {
                    self.hasher.update(&chunk);
                    if let Some(held) = self.held.replace(chunk) {
                        return Poll::Ready(Some(Ok(held)));
                    }
                }
                Some(Err(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.done = true;
                    let right = *self.hasher.finalize().as_bytes() == self.hash.0;
                    let last =
                        if right { self.held.take().map(Ok) } else { Some(Err(BlobError::corrupt(&self.region))) };
                    return Poll::Ready(last);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(len: u64, chunks: &[&'static [u8]]) -> BlobReader {
        let chunks: Vec<_> = chunks.iter().map(|c| Ok(Bytes::from_static(c))).collect();
        BlobReader::new("here", len, len, stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_wrong_hash_withholds_the_end() {
        let hash = BlobHash::of(b"abcdef");
        let good = StreamExt::collect::<Vec<_>>(reader(6, &[b"abc", b"def"]).verified("here", hash)).await;
        assert_eq!(good, [Ok(Bytes::from_static(b"abc")), Ok(Bytes::from_static(b"def"))]);
        let bad = StreamExt::collect::<Vec<_>>(reader(6, &[b"abc", b"deg"]).verified("here", hash)).await;
        assert_eq!(bad, [Ok(Bytes::from_static(b"abc")), Err(BlobError::corrupt("here"))]);
    }

    #[tokio::test]
    async fn an_empty_blob_is_verified_too() {
        assert_eq!(reader(0, &[]).verified("here", BlobHash::of(b"")).collect(0).await, Ok(Bytes::new()));
        let wrong = reader(0, &[]).verified("here", BlobHash::of(b"x")).collect(0).await;
        assert_eq!(wrong, Err(BlobError::corrupt("here")));
    }

    #[tokio::test]
    async fn a_short_or_long_stream_is_an_error() {
        let short = reader(7, &[b"abc", b"def"]).collect(10).await;
        assert_eq!(short, Err(BlobError::unavailable("here", Outage::Connection)));
        let long = reader(5, &[b"abc", b"def"]).collect(10).await;
        assert_eq!(long, Err(BlobError::unavailable("here", Outage::Failing)));
    }

    #[tokio::test]
    async fn collect_is_bounded() {
        assert_eq!(reader(6, &[b"abcdef"]).collect(5).await, Err(BlobError::TooLarge { max: 5 }));
        assert_eq!(reader(6, &[b"abcdef"]).collect(6).await.unwrap(), "abcdef");
    }
}
