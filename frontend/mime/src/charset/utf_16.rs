//! UTF-16, whose byte order is often said by nobody.

use encoding_rs::{UTF_16BE, UTF_16LE};

use super::label::ByteOrder;

/// Bytes that are looked at to guess the order.
const GUESS_BYTES: usize = 256;

/// `bytes` as text.
pub(super) fn decode(bytes: &[u8], order: ByteOrder) -> String {
    let (order, bytes) = match (bytes, order) {
        ([0xfe, 0xff, rest @ ..], ByteOrder::Unknown | ByteOrder::Big) => (ByteOrder::Big, rest),
        ([0xff, 0xfe, rest @ ..], ByteOrder::Unknown | ByteOrder::Little) => (ByteOrder::Little, rest),
        (bytes, ByteOrder::Unknown) => (guess(bytes), bytes),
        (bytes, order) => (order, bytes),
    };
    let encoding = if order == ByteOrder::Little { UTF_16LE } else { UTF_16BE };
    encoding.decode_without_bom_handling(bytes).0.into_owned()
}

/// RFC 2781 section 4.3: big-endian where nothing speaks against it, as spaces and line breaks of the other order do.
fn guess(bytes: &[u8]) -> ByteOrder {
    let units = bytes[..bytes.len().min(GUESS_BYTES)].as_chunks::<2>().0;
    let zeros = |at: usize| units.iter().filter(|unit| unit[at] == 0).count();
    if zeros(1) > zeros(0) { ByteOrder::Little } else { ByteOrder::Big }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_found() {
        let big: Vec<u8> = "안녕 you".encode_utf16().flat_map(u16::to_be_bytes).collect();
        let little: Vec<u8> = "안녕 you".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for text in [&big, &little, &[&[0xfe, 0xff], &big[..]].concat(), &[&[0xff, 0xfe], &little[..]].concat()] {
            assert_eq!(decode(text, ByteOrder::Unknown), "안녕 you");
        }
        assert_eq!(decode(&little, ByteOrder::Little), "안녕 you");
        assert_eq!(decode(&big, ByteOrder::Big), "안녕 you");
        assert_eq!(decode(b"\0", ByteOrder::Unknown), "\u{fffd}");
    }
}
