//! The content of messages, put and found again.
//!
//! Invariant: only what never changes under a message's id is in here; [`View::with`] takes everything else from the row that its
//! shard has just answered with, and refuses a row that names another body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Clock, Entropy};
use postrider_api::id::{BlobHash, EmailId, UserId};
use postrider_api::pb;
use prost::Message as _;
use tokio::sync::Semaphore;

use crate::cache::Values;
use crate::cache::limit::{CONTENT_BYTES_MAX, INLINE_BYTES_MAX, LIFETIME_MAX, PUTS_MAX, VALUE_BYTES_MAX};
use crate::cache::name::{Aspect, Name};
use crate::cache::seal::{Foreign, Sealer};
use postrider_mime::Rendered;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// How a content is written: as it is, or compressed with its length before it.
const PLAIN: u8 = 0;
const ZSTD: u8 = 1;
/// Less is not worth compressing, bytes.
const COMPRESSED_BYTES_MIN: usize = 1024;
/// Fast: what is read from here is waited for.
const ZSTD_LEVEL: i32 = 1;

/// A value that says what it cannot mean. Only this program writes them, so it is one of another build, or a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// What a reader sees of a message, but for what changes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct View {
    /// The row; of what may change there is nothing in it.
    #[prost(message, optional, tag = "1")]
    record: Option<pb::EmailRecord>,
    #[prost(string, optional, tag = "2")]
    text: Option<String>,
    #[prost(string, optional, tag = "3")]
    html: Option<String>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<Field>,
    #[prost(bool, tag = "5")]
    is_truncated: bool,
}

/// A header field.
#[derive(Clone, PartialEq, prost::Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl View {
    /// Of a message's row and what was rendered of it.
    pub(crate) fn of(record: &pb::EmailRecord, rendered: &Rendered) -> Self {
        let record = pb::EmailRecord {
            thread_id: Bytes::new(),
            folder_id: 0,
            uid: 0,
            modseq: 0,
            keywords: 0,
            labels: Vec::new(),
            ..record.clone()
        };
        let field = |(name, value): &(String, String)| Field { name: name.clone(), value: value.clone() };
        Self {
            record: Some(record),
            text: rendered.text.clone(),
            html: rendered.html.clone(),
            headers: rendered.headers.iter().map(field).collect(),
            is_truncated: rendered.is_truncated,
        }
    }

    /// With what may change, as the shard has just answered; `None` when that is the row of another content.
    pub(crate) fn with(self, state: pb::EmailRecord) -> Option<(pb::EmailRecord, Rendered)> {
        let content = self.record?;
        let is_same = content.email_id == state.email_id && content.body_id == state.body_id;
        if !is_same || content.size != state.size || content.received_ms != state.received_ms {
            return None;
        }
        let record = pb::EmailRecord {
            thread_id: state.thread_id,
            folder_id: state.folder_id,
            uid: state.uid,
            modseq: state.modseq,
            keywords: state.keywords,
            labels: state.labels,
            ..content
        };
        let rendered = Rendered {
            text: self.text,
            html: self.html,
            headers: self.headers.into_iter().map(|field| (field.name, field.value)).collect(),
            is_truncated: self.is_truncated,
        };
        Some((record, rendered))
    }
}

/// What it takes to give back a message's bytes, but for its blobs.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stored {
    #[prost(message, optional, tag = "1")]
    pub(crate) body: Option<pb::StoredBody>,
}

/// One value's bytes before they are sealed.
fn write(content: &[u8]) -> Vec<u8> {
    if content.len() >= COMPRESSED_BYTES_MIN
        && let Ok(compressed) = zstd::bulk::compress(content, ZSTD_LEVEL)
        && compressed.len() + 5 < content.len()
        && let Ok(length) = u32::try_from(content.len())
    {
        let mut written = vec![ZSTD];
        written.extend_from_slice(&length.to_be_bytes());
        written.extend_from_slice(&compressed);
        return written;
    }
    let mut written = vec![PLAIN];
    written.extend_from_slice(content);
    written
}

fn read(mut written: Bytes) -> Result<Bytes, Unreadable> {
    if written.is_empty() {
        return Err(Unreadable);
    }
    match written.split_to(1)[0] {
        PLAIN => Ok(written),
        ZSTD => {
            let length = written.first_chunk::<4>().ok_or(Unreadable)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| Unreadable)?;
            if length > CONTENT_BYTES_MAX {
                return Err(Unreadable);
            }
            let content = zstd::bulk::decompress(&written[4..], length).map_err(|_| Unreadable)?;
            if content.len() == length { Ok(content.into()) } else { Err(Unreadable) }
        }
        _ => Err(Unreadable),
    }
}

/// For fuzzing: what decodes is encoded as it was understood, and nothing panics.
///
/// # Panics
/// When a content is not read as it was written: that is the finding.
pub fn fuzz_content(bytes: &[u8]) {
    let written = Bytes::copy_from_slice(bytes);
    let sealer = Sealer::new(&[7; 32], postrider_api::env::SystemEntropy::shared());
    let name = Name::of_message(Aspect::View, UserId([1; 16]), EmailId([1; 16]));
    assert!(sealer.open(&name, written.clone()).is_err(), "nobody seals by chance");
    let Ok(content) = read(written) else { return };
    assert_eq!(read(write(&content).into()), Ok(content.clone()));
    if let Ok(view) = View::decode(content.clone()) {
        assert_eq!(View::decode(&*view.encode_to_vec()).as_ref(), Ok(&view));
        if let Some(record) = view.record.clone() {
            let shown = view.with(record.clone()).expect("it is of its own row");
            assert_eq!(shown.0, record);
        }
    }
    if let Ok(stored) = Stored::decode(content) {
        assert_eq!(Stored::decode(&*stored.encode_to_vec()), Ok(stored));
    }
}

/// Values, sealed.
pub(crate) struct Sealed {
    values: Arc<dyn Values>,
    sealer: Sealer,
}

impl Sealed {
    pub(crate) fn new(values: Arc<dyn Values>, key: [u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self { values, sealer: Sealer::new(&key, entropy) }
    }

    async fn get(self: &Arc<Self>, name: Name) -> Option<Bytes> {
        let key = self.sealer.key(&name);
        let aspect = name.aspect.label();
        let Some(sealed) = self.values.get(&key).await else {
            metrics::counter!("postrider_cache_misses_total", "aspect" => aspect).increment(1);
            return None;
        };
        let sealed_bytes = sealed.len();
        let this = Arc::clone(self);
        let open = move || {
            let opened = this.sealer.open(&name, sealed);
            opened.map_err(|Foreign| "seal").and_then(|opened| read(opened).map_err(|Unreadable| "content"))
        };
        let opened = match sealed_bytes <= INLINE_BYTES_MAX {
            true => open(),
            false => tokio::task::spawn_blocking(open).await.unwrap_or(Err("content")),
        };
        match opened {
            Ok(content) => {
                metrics::counter!("postrider_cache_hits_total", "aspect" => aspect).increment(1);
                Some(content)
            }
            Err(reason) => {
                metrics::counter!("postrider_cache_refused_total", "aspect" => aspect, "reason" => reason).increment(1);
                self.values.remove(&key).await;
                None
            }
        }
    }

    async fn put(self: Arc<Self>, name: Name, content: impl FnOnce() -> Vec<u8> + Send + 'static, lifetime: Duration) {
        let this = Arc::clone(&self);
        let sealing = tokio::task::spawn_blocking(move || {
            let content = content();
            let written = (content.len() <= CONTENT_BYTES_MAX).then(|| write(&content))?;
            let fits = written.len() + SEAL_BYTES <= VALUE_BYTES_MAX;
            fits.then(|| (this.sealer.key(&name), this.sealer.seal(&name, &written)))
        });
        if let Ok(Some((key, sealed))) = sealing.await {
            self.values.put(&key, sealed, lifetime).await;
        }
    }
}

/// More than what a seal adds.
const SEAL_BYTES: usize = 64;

/// The contents of a frontend's region. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Contents {
    sealed: Arc<Sealed>,
    clock: Arc<dyn Clock>,
    recent_ms: i64,
    puts: Arc<Semaphore>,
}

impl Contents {
    pub(crate) fn new(sealed: Sealed, clock: Arc<dyn Clock>, recent_days: u32) -> Self {
        let puts = Arc::new(Semaphore::new(PUTS_MAX));
        Self { sealed: Arc::new(sealed), clock, recent_ms: i64::from(recent_days).saturating_mul(DAY_MS), puts }
    }

    pub(crate) async fn view(&self, user: UserId, message: EmailId) -> Option<View> {
        self.lifetime(message)?;
        let found = self.sealed.get(Name::of_message(Aspect::View, user, message)).await?;
        View::decode(found).ok()
    }

    pub(crate) async fn stored(&self, user: UserId, message: EmailId) -> Option<pb::StoredBody> {
        self.lifetime(message)?;
        let found = self.sealed.get(Name::of_message(Aspect::Stored, user, message)).await?;
        Stored::decode(found).ok()?.body
    }

    /// A blob of a message of the user.
    pub(crate) async fn blob(&self, user: UserId, message: EmailId, blob: &BlobHash) -> Option<Bytes> {
        self.lifetime(message)?;
        self.sealed.get(Name::of_blob(user, blob)).await
    }

    pub(crate) fn put_view(&self, user: UserId, message: EmailId, view: View) {
        self.put(message, Name::of_message(Aspect::View, user, message), move || view.encode_to_vec());
    }

    pub(crate) fn put_stored(&self, user: UserId, message: EmailId, body: pb::StoredBody) {
        let stored = Stored { body: Some(body) };
        self.put(message, Name::of_message(Aspect::Stored, user, message), move || stored.encode_to_vec());
    }

    pub(crate) fn put_blob(&self, user: UserId, message: EmailId, blob: &BlobHash, content: Bytes) {
        self.put(message, Name::of_blob(user, blob), move || content.into());
    }

    /// In the background as well.
    pub(crate) fn forget(&self, user: UserId, message: EmailId) {
        if self.lifetime(message).is_none() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.puts).try_acquire_owned() else { return };
        let sealed = Arc::clone(&self.sealed);
        tokio::spawn(async move {
            for aspect in [Aspect::View, Aspect::Stored] {
                let key = sealed.sealer.key(&Name::of_message(aspect, user, message));
                sealed.values.remove(&key).await;
            }
            drop(permit);
        });
    }

    /// In the background: nobody waits for it, and what is too much at once is not put.
    fn put(&self, message: EmailId, name: Name, content: impl FnOnce() -> Vec<u8> + Send + 'static) {
        let Some(lifetime) = self.lifetime(message) else { return };
        let Ok(permit) = Arc::clone(&self.puts).try_acquire_owned() else { return };
        let sealed = Arc::clone(&self.sealed);
        tokio::spawn(async move {
            sealed.put(name, content, lifetime).await;
            drop(permit);
        });
    }

    /// How long a value of a message may lie; `None` when the message is not recent any more. Its id tells when it came.
    fn lifetime(&self, message: EmailId) -> Option<Duration> {
        let until = message.ms().saturating_add(self.recent_ms);
        let left = until.saturating_sub(self.clock.wall_ms());
        let left = u64::try_from(left).ok().filter(|left| *left > 0)?;
        Some(Duration::from_millis(left).min(LIFETIME_MAX))
    }
}

#[cfg(test)]
mod tests {
    use postrider_api::env::SystemEntropy;
    use postrider_api::id::{Slot, ZoneId};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::memory::Memory;

    const NOW_MS: i64 = 1_790_000_000_000;

    struct Today;

    impl Clock for Today {
        fn wall_ms(&self) -> i64 {
            NOW_MS
        }

        fn monotonic(&self) -> Duration {
            Duration::from_secs(1)
        }
    }

    fn record() -> pb::EmailRecord {
        pb::EmailRecord {
            email_id: Bytes::from_static(&[1; 16]),
            thread_id: Bytes::from_static(&[2; 16]),
            body_id: Bytes::from_static(&[3; 16]),
            folder_id: 1,
            uid: 7,
            modseq: 8,
            keywords: 9,
            labels: vec![1, 2],
            preview: "first words".to_owned(),
            size: 1234,
            received_ms: NOW_MS,
            mail_from: "a@elsewhere.example".to_owned(),
            ..Default::default()
        }
    }

    fn rendered() -> Rendered {
        Rendered {
            text: Some("text ".repeat(1_000)),
            html: None,
            headers: vec![("Subject".to_owned(), "x".to_owned())],
            is_truncated: true,
        }
    }

    #[test]
    fn what_changes_comes_from_the_shard_and_another_content_is_refused() {
        let view = View::of(&record(), &rendered());
        let kept = view.record.clone().unwrap();
        assert_eq!((kept.folder_id, kept.modseq, kept.keywords, kept.labels.len()), (0, 0, 0, 0));
        let state = pb::EmailRecord {
            folder_id: 5,
            modseq: 99,
            keywords: 0,
            labels: vec![3],
            thread_id: Bytes::from_static(&[9; 16]),
            preview: String::new(),
            mail_from: String::new(),
            ..record()
        };
        let (joined, shown) = view.clone().with(state.clone()).unwrap();
        let expected = pb::EmailRecord { preview: record().preview, mail_from: record().mail_from, ..state.clone() };
        assert_eq!((joined, shown), (expected, rendered()));
        let other = Bytes::from_static(&[4; 16]);
        for wrong in [
            pb::EmailRecord { body_id: other.clone(), ..state.clone() },
            pb::EmailRecord { email_id: other, ..state.clone() },
            pb::EmailRecord { size: 1, ..state.clone() },
        ] {
            assert_eq!(view.clone().with(wrong), None);
        }
        assert_eq!(View::default().with(state), None);
    }

    #[test]
    fn contents_that_lie_about_their_length_take_no_memory() {
        let compressed = zstd::bulk::compress(&[0; 100_000], 1).unwrap();
        let claims = |length: u32| {
            let mut written = vec![ZSTD];
            written.extend_from_slice(&length.to_be_bytes());
            written.extend_from_slice(&compressed);
            read(written.into())
        };
        assert_eq!(claims(100_000).unwrap().len(), 100_000);
        for length in [0, 1, 99_999, 100_001, CONTENT_BYTES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(claims(length), Err(Unreadable), "{length}");
        }
        for bad in [&[][..], &[ZSTD], &[ZSTD, 0, 0, 0], &[ZSTD, 0, 0, 0, 1], &[2, 1]] {
            assert_eq!(read(Bytes::copy_from_slice(bad)), Err(Unreadable));
        }
        assert_eq!(read(Bytes::from_static(&[PLAIN])).unwrap(), "");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(content in prop::collection::vec(0..4_u8, 0..5_000), noise: Vec<u8>) {
            prop_assert_eq!(read(write(&content).into()).unwrap(), content);
            fuzz_content(&noise);
            fuzz_content(&[&[PLAIN], &noise[..]].concat());
        }
    }

    #[tokio::test]
    async fn recent_mail_is_kept_and_what_is_gone_is_not() {
        let values = Arc::new(Memory::new(1024 * 1024));
        let sealed = Sealed::new(Arc::clone(&values) as _, [1; 32], SystemEntropy::shared());
        let contents = Contents::new(sealed, Arc::new(Today), 16);
        let user = UserId::new(ZoneId(1), Slot(1), [1; 12]);
        let (recent, old) = (EmailId::new(NOW_MS - 15 * DAY_MS, [1; 10]), EmailId::new(NOW_MS - 16 * DAY_MS, [1; 10]));
        assert_eq!(contents.lifetime(recent), Some(Duration::from_millis(DAY_MS as u64)));
        assert_eq!(contents.lifetime(EmailId::new(NOW_MS, [1; 10])), Some(LIFETIME_MAX));
        assert_eq!(contents.lifetime(old), None);
        let view = View::of(&record(), &rendered());
        contents.put_view(user, old, view.clone());
        contents.put_view(user, recent, view.clone());
        // In the background: all that was to be put is, once every permit is back.
        let all = u32::try_from(PUTS_MAX).unwrap();
        drop(contents.puts.acquire_many(all).await.unwrap());
        assert_eq!(contents.view(user, recent).await, Some(view));
        assert_eq!(contents.view(user, old).await, None);
        assert_eq!(contents.stored(user, recent).await, None);
        let other = UserId::new(ZoneId(1), Slot(1), [2; 12]);
        assert_eq!(contents.view(other, recent).await, None);
        contents.forget(user, recent);
        drop(contents.puts.acquire_many(all).await.unwrap());
        assert_eq!(contents.view(user, recent).await, None);
    }
}
