//! Images of the network: fetched once for each account that asks, kept for a while, bounded in all of it.
//!
//! Invariant: what was fetched for one account is shown to no other: how fast an image comes tells nobody what others read.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::future::Cache;
use postrider_api::id::UserId;
use postrider_outgoing::web::{FetchError, FetchLimits, Fetcher};

use crate::rest::images::{ImageKind, unavailable};
use crate::rest::limit::{
    IMAGE_BYTES_MAX, IMAGE_FETCH_MAX, IMAGE_REDIRECTS_MAX, IMAGE_REUSE, IMAGES_BYTES_MAX, IMAGES_FETCHED_MAX,
    IMAGES_FETCHED_PER_USER_MAX, NO_IMAGE_REUSE,
};
use crate::rest::problem::Problem;
use crate::rest::turns::Turns;

/// What is asked for: what is shown, the better ones first.
const ACCEPT: &str = "image/avif,image/webp,image/png,image/jpeg,image/gif";
/// What an entry without an image counts in the cache, bytes.
const ENTRY_BYTES: u32 = 128;

/// An image.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) kind: ImageKind,
    pub(crate) bytes: Bytes,
}

/// Fetches images. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Images {
    fetcher: Option<Fetcher>,
    /// By account and URL; `None`: there is no image there.
    kept: Cache<[u8; 32], Option<Image>>,
    turns: Turns,
}

/// What is an image is kept longer than what is none.
struct Lifetimes;

impl Expiry<[u8; 32], Option<Image>> for Lifetimes {
    fn expire_after_create(&self, _: &[u8; 32], image: &Option<Image>, _: Instant) -> Option<Duration> {
        Some(if image.is_some() { IMAGE_REUSE } else { NO_IMAGE_REUSE })
    }
}

impl Images {
    /// Without a fetcher none of the network is shown.
    pub(crate) fn new(fetcher: Option<Fetcher>) -> Self {
        let weight = |_: &[u8; 32], image: &Option<Image>| {
            let bytes = image.as_ref().map_or(0, |image| u32::try_from(image.bytes.len()).unwrap_or(u32::MAX));
            bytes.saturating_add(ENTRY_BYTES)
        };
        let kept = Cache::builder().max_capacity(IMAGES_BYTES_MAX).weigher(weight).expire_after(Lifetimes).build();
        Self { fetcher, kept, turns: Turns::new(IMAGES_FETCHED_MAX, IMAGES_FETCHED_PER_USER_MAX) }
    }

    /// Whether any are fetched here.
    pub(crate) fn are_fetched(&self) -> bool {
        self.fetcher.is_some()
    }

    /// The image at `url`, for a reader whose session is open.
    pub(crate) async fn get(&self, user: UserId, url: &str) -> Result<Image, Problem> {
        let Some(fetcher) = &self.fetcher else { return Err(unavailable()) };
        let key = *blake3::Hasher::new().update(&user.0).update(url.as_bytes()).finalize().as_bytes();
        let fetching = async {
            let _turn = self.turns.take(user).await?;
            Ok::<_, Problem>(fetch(fetcher, url).await)
        };
        // Whoever asks for the same at the same time waits for one question.
        let image = self.kept.try_get_with(key, fetching).await.map_err(|busy: Arc<Problem>| (*busy).clone())?;
        image.ok_or_else(unavailable)
    }
}

async fn fetch(fetcher: &Fetcher, url: &str) -> Option<Image> {
    let limits =
        FetchLimits { bytes_max: IMAGE_BYTES_MAX, redirects_max: IMAGE_REDIRECTS_MAX, time_max: IMAGE_FETCH_MAX };
    let fetched = fetcher.get(url, ACCEPT, limits).await;
    let (result, image) = match fetched {
        Ok(bytes) => match ImageKind::of(&bytes) {
            Some(kind) => ("fetched", Some(Image { kind, bytes })),
            None => ("no_image", None),
        },
        Err(error) => (told(&error), None),
    };
    metrics::counter!("postrider_rest_images_total", "result" => result).increment(1);
    image
}

/// The URL is not logged: it may name its reader.
fn told(error: &FetchError) -> &'static str {
    tracing::debug!(%error, "an image of a message cannot be fetched");
    if error.is_refusal() { "refused" } else { "failed" }
}
