//! The text that remains of a message, compressed where that pays.

use std::cell::RefCell;

use bytes::Bytes;
use postrider_api::pb;
use zstd::bulk::Compressor;

/// The fastest of zstd's ordinary levels: a message is compressed once, on the way of its acknowledgement.
const LEVEL: i32 = 1;
/// Text below this is not tried, bytes: it fits a disk block either way.
const TRY_BYTES_MIN: usize = 512;
/// Text above this is probed first, bytes: two samples tell whether the whole is worth it.
const PROBE_BYTES_MIN: usize = 16 * 1024;
/// One sample, bytes.
const SAMPLE_BYTES: usize = 2 * 1024;

thread_local! {
    /// A context is some hundred KiB, made once a thread; `None` until then, or where zstd had no memory for it.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// `text`, smaller by a tenth at least, or as it is.
pub(super) fn compress(text: Bytes) -> (pb::Compression, Bytes) {
    let plain = (pb::Compression::None, text.clone());
    if text.len() < TRY_BYTES_MIN || (text.len() >= PROBE_BYTES_MIN && !promises(&text)) {
        return plain;
    }
    match squeeze(&text) {
        Some(small) if pays(text.len(), small.len()) => (pb::Compression::Zstd, Bytes::from(small)),
        _ => plain,
    }
}

/// Whether either of two samples pays. They stand at a third and two thirds: the header, which always pays, says nothing about
/// what follows it.
fn promises(text: &[u8]) -> bool {
    [text.len() / 3, text.len() * 2 / 3].into_iter().any(|at| {
        let sample = &text[at..text.len().min(at + SAMPLE_BYTES)];
        squeeze(sample).is_some_and(|small| pays(sample.len(), small.len()))
    })
}

fn pays(before: usize, after: usize) -> bool {
    after <= before - before / 10
}

/// `None` where zstd fails, for want of memory: the text is stored as it is then, which is right too.
fn squeeze(text: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Compressor::new(LEVEL).ok();
        }
        slot.as_mut()?.compress(text).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes without any order, the same in each run.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn text_is_compressed_and_noise_is_not() {
        let text = Bytes::from("all work and no play ".repeat(2000));
        let (compression, small) = compress(text.clone());
        assert_eq!(compression, pb::Compression::Zstd);
        assert_eq!(zstd::bulk::decompress(&small, text.len()).unwrap(), text);
        let noise = Bytes::from(noise(50_000));
        assert_eq!(compress(noise.clone()), (pb::Compression::None, noise));
        let tiny = Bytes::from_static(b"aaaaaaaaaaaaaaaaaaaaaaaa");
        assert_eq!(compress(tiny.clone()), (pb::Compression::None, tiny));
    }

    #[test]
    fn one_sample_that_pays_is_enough() {
        let mut half = noise(30_000);
        half.extend_from_slice("all work and no play ".repeat(1500).as_bytes());
        assert_eq!(compress(Bytes::from(half)).0, pb::Compression::Zstd);
    }
}
