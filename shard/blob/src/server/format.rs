//! An object's file: content, then a checksum for each block, then a footer.
//!
//! ```text
//! content | crc32c(block) u32 for each block | footer
//! footer: "PRBLOB" | version u16 | content length u64 | epoch u64 | sequence u64
//!         | crc32c(content) u32 | crc32c(block checksums) u32 | crc32c(footer so far) u32      all little-endian
//! ```
//!
//! History: version 1 is the first. A file of a newer version is refused, never guessed at.
//!
//! The block checksums let a range be checked as it is read, so bit rot is found before a wrong byte leaves the server.
//! Epoch (server start) and sequence (put of that start) name one put for ever: they are the ETag.

use thiserror::Error;

/// Content behind one checksum, bytes.
pub(crate) const BLOCK_BYTES: usize = 64 * 1024;
/// The footer, bytes.
pub(crate) const FOOTER_BYTES: usize = 44;
const MAGIC: &[u8; 6] = b"PRBLOB";
const VERSION: u16 = 1;

/// Why a file is not an object that we can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum FormatError {
    /// Torn, rotten, or never an object.
    #[error("damaged")]
    Damaged,
    /// Written by a newer release.
    #[error("format version {0} is newer than this release knows")]
    Newer(u16),
}

/// What the end of the file says about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) len: u64,
    pub(crate) epoch: u64,
    pub(crate) sequence: u64,
    pub(crate) content_crc: u32,
    pub(crate) sums_crc: u32,
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        out[..6].copy_from_slice(MAGIC);
        out[6..8].copy_from_slice(&VERSION.to_le_bytes());
        out[8..16].copy_from_slice(&self.len.to_le_bytes());
        out[16..24].copy_from_slice(&self.epoch.to_le_bytes());
        out[24..32].copy_from_slice(&self.sequence.to_le_bytes());
        out[32..36].copy_from_slice(&self.content_crc.to_le_bytes());
        out[36..40].copy_from_slice(&self.sums_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..40]);
        out[40..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the footer of a file of `file_len` bytes. Takes any bytes and never panics.
    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES], file_len: u64) -> Result<Self, FormatError> {
        if &bytes[..6] != MAGIC {
            return Err(FormatError::Damaged);
        }
        if crc32c::crc32c(&bytes[..40]) != u32_at(bytes, 40) {
            return Err(FormatError::Damaged);
        }
        let version = u16::from_le_bytes([bytes[6], bytes[7]]);
        if version != VERSION {
            return Err(FormatError::Newer(version));
        }
        let footer = Self {
            len: u64_at(bytes, 8),
            epoch: u64_at(bytes, 16),
            sequence: u64_at(bytes, 24),
            content_crc: u32_at(bytes, 32),
            sums_crc: u32_at(bytes, 36),
        };
        if file_len_of(footer.len) == Some(file_len) { Ok(footer) } else { Err(FormatError::Damaged) }
    }

    /// The ETag, without quotes. `-1` at the end, as multipart uploads have it, tells S3 clients that this is no MD5.
    pub(crate) fn etag(&self) -> String {
        format!("{:016x}{:016x}-1", self.epoch, self.sequence)
    }
}

/// For fuzzing: gives any bytes a footer's first word and checksum; returns the content's length that they claim.
pub(crate) fn seal(bytes: &mut [u8; FOOTER_BYTES]) -> u64 {
    bytes[..6].copy_from_slice(MAGIC);
    let crc = crc32c::crc32c(&bytes[..40]);
    bytes[40..].copy_from_slice(&crc.to_le_bytes());
    u64_at(bytes, 8)
}

fn u64_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(le)
}

fn u32_at(bytes: &[u8; FOOTER_BYTES], at: usize) -> u32 {
    let mut le = [0; 4];
    le.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(le)
}

/// How many blocks a content of `len` bytes has.
pub(crate) fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK_BYTES as u64)
}

/// The length of the whole file; `None` where no file can be that long.
pub(crate) fn file_len_of(len: u64) -> Option<u64> {
    len.checked_add(blocks(len) * 4)?.checked_add(FOOTER_BYTES as u64)
}

/// Checksums of content that arrives in pieces of any size.
#[derive(Default)]
pub(crate) struct BlockSums {
    sums: Vec<u8>,
    content_crc: u32,
    block_crc: u32,
    block_len: usize,
    len: u64,
}

impl BlockSums {
    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block_len));
            self.block_crc = crc32c::crc32c_append(self.block_crc, now);
            self.block_len += now.len();
            if self.block_len == BLOCK_BYTES {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn end_block(&mut self) {
        self.content_crc = crc32c::crc32c_combine(self.content_crc, self.block_crc, self.block_len);
        self.sums.extend_from_slice(&self.block_crc.to_le_bytes());
        (self.block_crc, self.block_len) = (0, 0);
    }

    /// What to write behind the content, and the footer that is part of it.
    pub(crate) fn finish(mut self, epoch: u64, sequence: u64) -> (Vec<u8>, Footer) {
        if self.block_len > 0 {
            self.end_block();
        }
        let footer = Footer {
            len: self.len,
            epoch,
            sequence,
            content_crc: self.content_crc,
            sums_crc: crc32c::crc32c(&self.sums),
        };
        self.sums.extend_from_slice(&footer.encode());
        (self.sums, footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tail_of(content: &[u8], piece: usize) -> (Vec<u8>, Footer) {
        let mut sums = BlockSums::default();
        content.chunks(piece).for_each(|chunk| sums.update(chunk));
        assert_eq!(sums.len, content.len() as u64);
        sums.finish(7, 9)
    }

    #[test]
    fn a_file_is_as_long_as_it_should_be() {
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
            let content = vec![7; len];
            let (tail, footer) = tail_of(&content, 1000);
            assert_eq!(file_len_of(len as u64), Some((len + tail.len()) as u64));
            assert_eq!(footer.content_crc, crc32c::crc32c(&content));
            let mut bytes = [0; FOOTER_BYTES];
            bytes.copy_from_slice(&tail[tail.len() - FOOTER_BYTES..]);
            assert_eq!(Footer::decode(&bytes, (len + tail.len()) as u64), Ok(footer));
        }
    }

    #[test]
    fn version_1_stays_as_it_is() {
        let footer = Footer { len: 5, epoch: 1, sequence: 2, content_crc: 3, sums_crc: 4 };
        let expected = concat!(
            "5052424c4f42",
            "0100",
            "0500000000000000",
            "0100000000000000",
            "0200000000000000",
            "03000000",
            "04000000"
        );
        let encoded = footer.encode();
        assert_eq!(hex::encode(&encoded[..40]), expected);
        assert_eq!(encoded[40..], crc32c::crc32c(&encoded[..40]).to_le_bytes());
        assert_eq!(footer.etag(), "00000000000000010000000000000002-1");
    }

    #[test]
    fn a_newer_version_is_not_damage() {
        let mut bytes = Footer { len: 0, epoch: 1, sequence: 2, content_crc: 0, sums_crc: 0 }.encode();
        bytes[6] = 2;
        let crc = crc32c::crc32c(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Footer::decode(&bytes, FOOTER_BYTES as u64), Err(FormatError::Newer(2)));
    }

    proptest! {
        #[test]
        fn how_content_arrives_changes_nothing(content in prop::collection::vec(any::<u8>(), 0..200_000), piece in 1usize..100_000) {
            prop_assert_eq!(tail_of(&content, piece), tail_of(&content, usize::MAX));
        }

        #[test]
        fn a_flipped_bit_shows(bit in 0usize..FOOTER_BYTES * 8) {
            let mut bytes = Footer { len: 0, epoch: 1, sequence: 2, content_crc: 0, sums_crc: 0 }.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Footer::decode(&bytes, FOOTER_BYTES as u64).is_err());
        }

        #[test]
        fn no_bytes_panic(mut bytes: [u8; FOOTER_BYTES], len: u64, file_len: u64) {
            prop_assert!(Footer::decode(&bytes, file_len).is_err());
            bytes = Footer { len, epoch: 0, sequence: 0, content_crc: 0, sums_crc: 0 }.encode();
            let fits = file_len_of(len) == Some(file_len);
            prop_assert_eq!(Footer::decode(&bytes, file_len).is_ok(), fits);
        }
    }
}
