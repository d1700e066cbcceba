//! Runs of rows on the wire: key length u32, value length u32 (big-endian), key, value, and so on.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// A row ends behind the block.
    #[error("a row of the block is cut off")]
    Cut,
    /// The checksum differs.
    #[error("the checksum of the block differs")]
    Checksum,
}

const HEAD_BYTES: usize = 8;

/// A key and its value.
pub type Row<'a> = (&'a [u8], &'a [u8]);

/// The rows of a block.
///
/// # Errors
/// When the bytes end within a row.
pub fn decode_block(mut block: &[u8]) -> Result<Vec<Row<'_>>, BlockError> {
    let mut rows = Vec::new();
    while !block.is_empty() {
        let (head, rest) = block.split_first_chunk::<HEAD_BYTES>().ok_or(BlockError::Cut)?;
        let [a, b, c, d, e, f, g, h] = *head;
        let key_bytes = u32::from_be_bytes([a, b, c, d]) as usize;
        let value_bytes = u32::from_be_bytes([e, f, g, h]) as usize;
        let (key, rest) = rest.split_at_checked(key_bytes).ok_or(BlockError::Cut)?;
        let (value, rest) = rest.split_at_checked(value_bytes).ok_or(BlockError::Cut)?;
        rows.push((key, value));
        block = rest;
    }
    Ok(rows)
}

/// Gathers rows into a block.
#[derive(Default)]
pub(crate) struct BlockBuilder {
    buffer: BytesMut,
    rows: u64,
}

impl BlockBuilder {
    /// Adds a row. Keys and values are far below 4 GiB: commands are limited to a mebibyte.
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), BlockError> {
        let key_bytes = u32::try_from(key.len()).map_err(|_| BlockError::Cut)?;
        let value_bytes = u32::try_from(value.len()).map_err(|_| BlockError::Cut)?;
        self.buffer.reserve(HEAD_BYTES + key.len() + value.len());
        self.buffer.put_u32(key_bytes);
        self.buffer.put_u32(value_bytes);
        self.buffer.put_slice(key);
        self.buffer.put_slice(value);
        self.rows += 1;
        Ok(())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The block so far, and how many rows it has.
    pub(crate) fn take(&mut self) -> (Bytes, u64) {
        (self.buffer.split().freeze(), std::mem::take(&mut self.rows))
    }
}

/// What the sum over all blocks says at the end: counts, and a checksum over checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) blocks: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) checksum: u32,
}

impl Total {
    pub(crate) fn add(&mut self, bytes: usize, rows: u64, checksum: u32) {
        self.blocks += 1;
        self.rows += rows;
        self.bytes += bytes as u64;
        self.checksum = crc32c::crc32c_append(self.checksum, &checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_read_back(rows in prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..20)) {
            let mut builder = BlockBuilder::default();
            for (key, value) in &rows {
                builder.add(key, value).expect("small rows");
            }
            let (block, count) = builder.take();
            let read = decode_block(&block).expect("a block");
            prop_assert_eq!(count as usize, rows.len());
            let wrote: Vec<Row<'_>> = rows.iter().map(|(key, value)| (&key[..], &value[..])).collect();
            prop_assert_eq!(read, wrote);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in any::<Vec<u8>>()) {
            if let Ok(rows) = decode_block(&bytes) {
                let total: usize = rows.iter().map(|(key, value)| HEAD_BYTES + key.len() + value.len()).sum();
                prop_assert_eq!(total, bytes.len());
            }
        }
    }
}
