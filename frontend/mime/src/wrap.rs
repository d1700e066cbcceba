//! Base64 in lines: how a blob that was cut out decoded turns back into the characters that arrived.
//!
//! Invariant: ingest cuts a part only after this very encoder has given its exact bytes again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Content that is encoded at once, bytes: whole groups of three.
const BLOCK_BYTES: usize = 48 * 1024;

/// The lines of one encoded part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrapping {
    /// Characters of each line but the last, which may be shorter. At least 1.
    pub(super) line_length: u32,
    /// Whether the last line ends with CRLF.
    pub(super) final_newline: bool,
}

impl Wrapping {
    /// Bytes that a blob of `content` bytes has when it is encoded; `None` when no number holds it.
    pub(super) fn encoded_length(self, content: u64) -> Option<u64> {
        let symbols = content.div_ceil(3).checked_mul(4)?;
        let lines = symbols.div_ceil(u64::from(self.line_length));
        let breaks = if self.final_newline { lines } else { lines.saturating_sub(1) };
        symbols.checked_add(breaks.checked_mul(2)?)
    }
}

/// Encodes a stream of chunks.
pub(super) struct Wrapper {
    wrapping: Wrapping,
    /// Bytes that wait for a whole group of three.
    carry: Vec<u8>,
    /// Characters in the line that is being written.
    column: u32,
    symbols: Vec<u8>,
}

impl Wrapper {
    pub(super) fn new(wrapping: Wrapping) -> Self {
        Self { wrapping, carry: Vec::with_capacity(3), column: 0, symbols: Vec::new() }
    }

    /// Appends the lines of `content`, whose last bytes may wait for the next call.
    pub(super) fn push(&mut self, mut content: &[u8], out: &mut Vec<u8>) {
        while !self.carry.is_empty() && self.carry.len() < 3 {
            let Some((&byte, rest)) = content.split_first() else { return };
            self.carry.push(byte);
            content = rest;
        }
        if self.carry.len() == 3 {
            let carry = std::mem::take(&mut self.carry);
            self.encode(&carry, out);
        }
        let (groups, rest) = content.split_at(content.len() - content.len() % 3);
        for block in groups.chunks(BLOCK_BYTES) {
            self.encode(block, out);
        }
        self.carry.extend_from_slice(rest);
    }

    /// Appends the last group with its padding, and the final line break.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let carry = std::mem::take(&mut self.carry);
        self.encode(&carry, out);
        if self.wrapping.final_newline && self.column > 0 {
            out.extend_from_slice(b"\r\n");
            self.column = 0;
        }
    }

    /// A line break is written only when a character follows, so that the last line has none.
    fn encode(&mut self, content: &[u8], out: &mut Vec<u8>) {
        self.symbols.resize(content.len().div_ceil(3) * 4, 0);
        let length = STANDARD
            .encode_slice(content, &mut self.symbols)
            .expect("four symbols for each three bytes are all that there are");
        let mut rest = &self.symbols[..length];
        out.reserve(length + 2 * (length / self.wrapping.line_length as usize + 1));
        while !rest.is_empty() {
            if self.column == self.wrapping.line_length {
                out.extend_from_slice(b"\r\n");
                self.column = 0;
            }
            // No line is longer than its length, so the difference fits a usize.
            let take = rest.len().min((self.wrapping.line_length - self.column) as usize);
            out.extend_from_slice(&rest[..take]);
            self.column += take as u32;
            rest = &rest[take..];
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(content: &[u8], wrapping: Wrapping, chunk: usize) -> Vec<u8> {
        let mut wrapper = Wrapper::new(wrapping);
        let mut out = Vec::new();
        for chunk in content.chunks(chunk.max(1)) {
            wrapper.push(chunk, &mut out);
        }
        wrapper.finish(&mut out);
        out
    }

    #[test]
    fn full_last_line_has_no_break_unless_it_had() {
        let wrapping = Wrapping { line_length: 4, final_newline: false };
        assert_eq!(wrapped(b"abcdef", wrapping, 1), b"YWJj\r\nZGVm");
        assert_eq!(wrapped(b"abcdef", Wrapping { final_newline: true, ..wrapping }, 6), b"YWJj\r\nZGVm\r\n");
        assert_eq!(wrapped(b"", Wrapping { final_newline: true, ..wrapping }, 1), b"");
    }

    proptest! {
        #[test]
        fn length_is_foretold_and_chunks_make_no_difference(
            content in proptest::collection::vec(any::<u8>(), 0..500),
            line_length in 1u32..100,
            final_newline: bool,
            chunk in 1usize..80,
        ) {
            let wrapping = Wrapping { line_length, final_newline };
            let out = wrapped(&content, wrapping, chunk);
            prop_assert_eq!(wrapping.encoded_length(content.len() as u64), Some(out.len() as u64));
            prop_assert_eq!(&out, &wrapped(&content, wrapping, content.len()));
            let symbols: Vec<u8> = out.into_iter().filter(|byte| !b"\r\n".contains(byte)).collect();
            prop_assert_eq!(STANDARD.decode(symbols).unwrap(), content);
        }
    }
}
