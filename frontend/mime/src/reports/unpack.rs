//! What a report is packed in: gzip (RFC 1952), or a zip archive of which the first file is the report (APPNOTE.TXT of PKWARE, sections
//! 4.3.7, 4.3.12 and 4.3.16).

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, GzDecoder};

const GZIP: &[u8] = &[0x1f, 0x8b];
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const CENTRAL_HEADER: &[u8] = b"PK\x01\x02";
const END_RECORD: &[u8] = b"PK\x05\x06";
/// Of the record at the end, without its comment.
const END_BYTES: usize = 22;
/// The longest comment behind it.
const COMMENT_BYTES_MAX: usize = u16::MAX as usize;
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// The content; `None` where it is more than `bytes_max`, or cannot be unpacked.
pub(super) fn unpacked(packed: &[u8], bytes_max: usize) -> Option<Cow<'_, [u8]>> {
    if packed.starts_with(GZIP) {
        return bounded(GzDecoder::new(packed), bytes_max).map(Cow::Owned);
    }
    if packed.starts_with(LOCAL_HEADER) {
        let (method, content) = first_file(packed)?;
        return match method {
            STORED => Some(Cow::Borrowed(content)).filter(|content| content.len() <= bytes_max),
            DEFLATED => bounded(DeflateDecoder::new(content), bytes_max).map(Cow::Owned),
            _ => None,
        };
    }
    Some(Cow::Borrowed(packed)).filter(|content| content.len() <= bytes_max)
}

/// What a decoder gives, as long as it is no more than so much: one byte more is never held.
fn bounded(decoder: impl Read, bytes_max: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // A byte more shows that there is more.
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut out).ok()?;
    (out.len() <= bytes_max).then_some(out)
}

/// Method and packed bytes of the first file of the archive's directory, which alone says how long it is.
fn first_file(archive: &[u8]) -> Option<(u16, &[u8])> {
    let from = archive.len().checked_sub(END_BYTES)?.saturating_sub(COMMENT_BYTES_MAX);
    let end = from + memchr::memmem::rfind(&archive[from..], END_RECORD)?;
    let central = number(archive, end + 16, 4)?;
    let entry = archive.get(central..central.checked_add(CENTRAL_BYTES)?)?;
    if !entry.starts_with(CENTRAL_HEADER) {
        return None;
    }
    let method = number(entry, 10, 2)?;
    let (length, local) = (number(entry, 20, 4)?, number(entry, 42, 4)?);
    let header = archive.get(local..local.checked_add(LOCAL_BYTES)?)?;
    if !header.starts_with(LOCAL_HEADER) {
        return None;
    }
    let content = local + LOCAL_BYTES + number(header, 26, 2)? + number(header, 28, 2)?;
    let content = archive.get(content..content.checked_add(length)?)?;
    Some((u16::try_from(method).ok()?, content))
}

/// Little-endian, of two or four bytes.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(length)?)?;
    Some(part.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder};
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    /// An archive of one file.
    pub(crate) fn zip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        let packed = encoder.finish().unwrap();
        let name = b"report.xml";
        let common = |packed: usize| {
            let mut out = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            out.extend_from_slice(&(packed as u32).to_le_bytes());
            out.extend_from_slice(&(plain.len() as u32).to_le_bytes());
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(&[0, 0]);
            out
        };
        let mut out = [LOCAL_HEADER, &common(packed.len()), name, &packed].concat();
        let central = out.len() as u32;
        out.extend_from_slice(&[CENTRAL_HEADER, &[20, 0], &common(packed.len()), &[0; 14], name].concat());
        let length = out.len() as u32 - central;
        out.extend_from_slice(
            &[END_RECORD, &[0, 0, 0, 0, 1, 0, 1, 0], &length.to_le_bytes(), &central.to_le_bytes(), &[0, 0]].concat(),
        );
        out
    }

    #[test]
    fn what_was_packed_comes_back_up_to_a_bound() {
        let plain = b"<feedback/>".repeat(100);
        for packed in [gzip(&plain), zip(&plain), plain.clone()] {
            assert_eq!(unpacked(&packed, plain.len()).unwrap(), plain);
            assert_eq!(unpacked(&packed, plain.len() - 1), None);
        }
        let cut = gzip(&plain);
        assert_eq!(unpacked(&cut[..cut.len() / 2], 10_000), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_not(mut bytes: Vec<u8>, kind in 0..3usize, cut: usize) {
            let head: &[u8] = [GZIP, LOCAL_HEADER, b""][kind];
            bytes.splice(0..0, head.iter().copied());
            drop(unpacked(&bytes, 100));
            let mut zip = zip(b"abc");
            let at = cut % zip.len();
            zip[at] ^= 0x55;
            drop(unpacked(&zip, 100));
            drop(unpacked(&zip[..at], 100));
        }
    }
}
