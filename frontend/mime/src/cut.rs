//! What is cut out of a message: large leaves, and whatever else keeps the rest from fitting a command.
//!
//! Invariant: a blob holds decoded bytes only if encoding them again has given the exact bytes that arrived.
//! Invariant: cuts do not overlap and are ordered; what they leave is at most the limit that was asked for.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use postrider_api::id::BlobHash;
use postrider_api::pb::TransferEncoding;

use super::decode::decoded_size;
use super::limit::{LINE_LENGTH_MAX, LINE_LENGTH_MIN};
use super::wrap::{Wrapper, Wrapping};

/// Leaves that are cut one by one; those behind them are cut together. With `BLOB_BYTES_MIN`, `MESSAGE_BYTES_MAX` holds 280.
const LEAF_CUTS_MAX: usize = 300;
/// Symbols that are decoded at once, bytes: whole groups of four.
const SYMBOLS_BYTES: usize = 64 * 1024;
/// Content that is encoded at once for the comparison, bytes.
const COMPARE_BYTES: usize = 48 * 1024;

/// A range of the raw message that goes to a blob.
pub(super) struct Cut {
    pub(super) raw: Range<usize>,
    pub(super) content: Bytes,
    pub(super) hash: BlobHash,
    /// How the content turns back into the range; `None`: it is the range.
    pub(super) wrapping: Option<Wrapping>,
}

impl Cut {
    fn as_arrived(raw: &Bytes, range: Range<usize>) -> Self {
        // Its own bytes: a slice would keep the whole message in memory beside the parts that were decoded out of it.
        let content = Bytes::copy_from_slice(&raw[range.clone()]);
        Self { raw: range, hash: BlobHash::of(&content), content, wrapping: None }
    }
}

/// A leaf to look at.
pub(super) struct Leaf {
    pub(super) body: Range<usize>,
    pub(super) encoding: TransferEncoding,
}

/// What became of a leaf.
pub(super) struct Measured {
    pub(super) decoded_size: u64,
    pub(super) blob: Option<BlobHash>,
}

/// The cuts of one message while they are found.
pub(super) struct Cutter<'a> {
    raw: &'a Bytes,
    blob_bytes_min: usize,
    cuts: Vec<Cut>,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(raw: &'a Bytes, blob_bytes_min: usize) -> Self {
        Self { raw, blob_bytes_min: blob_bytes_min.max(1), cuts: Vec::new() }
    }

    /// Measures a leaf and cuts it out if it is large. Leaves come in the order of the raw message.
    pub(super) fn leaf(&mut self, leaf: &Leaf) -> Measured {
        let body = &self.raw[leaf.body.clone()];
        // Decoded is never longer than encoded.
        let may_cut = body.len() >= self.blob_bytes_min && self.cuts.len() < LEAF_CUTS_MAX;
        if may_cut
            && leaf.encoding == TransferEncoding::Base64
            && let Some(cut) = decoded(self.raw, leaf.body.clone())
        {
            let decoded_size = cut.content.len() as u64;
            let is_large = cut.content.len() >= self.blob_bytes_min;
            let blob = is_large.then_some(cut.hash);
            self.cuts.extend(is_large.then_some(cut));
            return Measured { decoded_size, blob };
        }
        let decoded_size = decoded_size(leaf.encoding, body);
        if !may_cut || decoded_size < self.blob_bytes_min as u64 {
            return Measured { decoded_size, blob: None };
        }
        let cut = Cut::as_arrived(self.raw, leaf.body.clone());
        let blob = Some(cut.hash);
        self.cuts.push(cut);
        Measured { decoded_size, blob }
    }

    /// Cuts more until at most `literal_bytes_max` remain: the longest stretches first, the message's own header, which ends at
    /// `header_end`, last.
    pub(super) fn fit(mut self, literal_bytes_max: usize, header_end: usize) -> Vec<Cut> {
        let mut stretches = self.stretches(header_end);
        let mut literal: usize = stretches.iter().map(Range::len).sum();
        stretches.sort_by_key(|stretch| (stretch.start < header_end, std::cmp::Reverse(stretch.len())));
        for stretch in stretches {
            if literal <= literal_bytes_max {
                break;
            }
            literal -= stretch.len();
            self.cuts.push(Cut::as_arrived(self.raw, stretch));
        }
        self.cuts.sort_by_key(|cut| cut.raw.start);
        self.cuts
    }

    /// What no cut covers, split at the end of the header.
    fn stretches(&self, header_end: usize) -> Vec<Range<usize>> {
        let mut stretches = Vec::new();
        let mut at = 0;
        let end = self.raw.len()..self.raw.len();
        for cut in self.cuts.iter().map(|cut| cut.raw.clone()).chain(std::iter::once(end)) {
            for (start, end) in [(at, cut.start.min(header_end)), (at.max(header_end), cut.start)] {
                if start < end {
                    stretches.push(start..end);
                }
            }
            at = cut.end;
        }
        stretches
    }
}

/// The leaf as a cut of its decoded content; `None` where encoding it again would give other bytes.
fn decoded(raw: &Bytes, body: Range<usize>) -> Option<Cut> {
    let text = &raw[body.clone()];
    let lead = text.len() - text.trim_ascii_start().len();
    let core = text.trim_ascii();
    let line_length = memchr::memchr(b'\r', core).unwrap_or(core.len());
    let line_length =
        u32::try_from(line_length).ok().filter(|length| (LINE_LENGTH_MIN..=LINE_LENGTH_MAX).contains(length))?;
    let final_newline = text[lead + core.len()..].starts_with(b"\r\n");
    let wrapping = Wrapping { line_length, final_newline };
    let content = decode_lines(core, line_length as usize)?;
    let start = body.start + lead;
    let end = start + core.len() + if final_newline { 2 } else { 0 };
    gives(&content, wrapping, &raw[start..end]).then(|| Cut {
        raw: start..end,
        hash: BlobHash::of(&content),
        content: Bytes::from(content),
        wrapping: Some(wrapping),
    })
}

/// Decodes lines of equal length; `None` where they are not, or are no base64.
fn decode_lines(core: &[u8], line_length: usize) -> Option<Vec<u8>> {
    let mut content = Vec::with_capacity(core.len() / 4 * 3);
    let mut symbols = Vec::with_capacity(SYMBOLS_BYTES + line_length);
    for line in core.chunks(line_length + 2) {
        let is_last = line.len() < line_length + 2;
        symbols.extend_from_slice(if is_last { line } else { line.strip_suffix(b"\r\n")? });
        if symbols.len() >= SYMBOLS_BYTES || is_last {
            let whole = if is_last { symbols.len() } else { symbols.len() - symbols.len() % 4 };
            STANDARD.decode_vec(&symbols[..whole], &mut content).ok()?;
            symbols.drain(..whole);
        }
    }
    // Where the core's length is a whole number of lines with their breaks, there was no last line: the core ends with a symbol.
    symbols.is_empty().then_some(content)
}

/// Whether `content` in lines is `expected`.
fn gives(content: &[u8], wrapping: Wrapping, expected: &[u8]) -> bool {
    let mut wrapper = Wrapper::new(wrapping);
    let mut lines = Vec::new();
    let mut rest = expected;
    for chunk in content.chunks(COMPARE_BYTES) {
        wrapper.push(chunk, &mut lines);
        match rest.strip_prefix(lines.as_slice()) {
            Some(tail) => rest = tail,
            None => return false,
        }
        lines.clear();
    }
    wrapper.finish(&mut lines);
    rest == lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(content: &[u8], wrapping: Wrapping) -> Vec<u8> {
        let mut wrapper = Wrapper::new(wrapping);
        let mut out = Vec::new();
        wrapper.push(content, &mut out);
        wrapper.finish(&mut out);
        out
    }

    fn cut_of(text: &[u8]) -> Option<Cut> {
        let raw = Bytes::copy_from_slice(text);
        let length = raw.len();
        decoded(&raw, 0..length)
    }

    #[test]
    fn lines_of_equal_length_are_stored_decoded() {
        for text in
            ["YWJj\r\nZGVm", "YWJj\r\nZGVm\r\n", "YWJj\r\nZGVm\r\nZw==", "\r\n YWJj\r\nZA==\r\n\r\n", "YWJjZGVm"]
        {
            let cut = cut_of(text.as_bytes()).unwrap();
            assert_eq!(wrapped(&cut.content, cut.wrapping.unwrap()), text.as_bytes()[cut.raw]);
        }
    }

    #[test]
    fn what_cannot_be_encoded_again_is_not() {
        for text in [
            "YWJj\nZGVm",               // other line breaks
            "YWJj\r\nZGVmZw==",         // a longer last line
            "YWJjZGVm\r\nYWJj\r\nZGVm", // a short line in the middle
            "YWJj\r\nZB==",             // bits behind the end
            "YWJj\r\nZA",               // no padding
            "YWJj\r\n\r\nZGVm",         // an empty line
            "YW==\r\nZGVm",             // padding in the middle
            "YWJj \r\nZGVm",            // white space
            "abc",                      // shorter than a group
            "",
        ] {
            assert!(cut_of(text.as_bytes()).is_none(), "{text:?}");
        }
        assert!(cut_of(&b"YWJj".repeat(300)).is_none(), "a line of 1,200");
    }

    #[test]
    fn large_parts_cross_the_blocks() {
        let content: Vec<u8> = (0..1_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for line_length in [76, 75, 64, 998, 4] {
            let text = wrapped(&content, Wrapping { line_length, final_newline: true });
            assert_eq!(cut_of(&text).unwrap().content, content);
        }
    }

    #[test]
    fn the_longest_stretches_go_first_and_the_header_last() {
        let raw = Bytes::from(vec![b'x'; 1000]);
        let starts = |max| {
            let mut cutter = Cutter::new(&raw, 100);
            cutter.leaf(&Leaf { body: 300..500, encoding: TransferEncoding::Identity });
            let cuts = cutter.fit(max, 50);
            cuts.into_iter().map(|cut| (cut.raw.start, cut.raw.end)).collect::<Vec<_>>()
        };
        assert_eq!(starts(800), [(300, 500)]);
        assert_eq!(starts(799), [(300, 500), (500, 1000)]);
        assert_eq!(starts(299), [(50, 300), (300, 500), (500, 1000)]);
        assert_eq!(starts(49), [(0, 50), (50, 300), (300, 500), (500, 1000)]);
    }

    proptest! {
        #[test]
        fn a_cut_gives_its_range_again(text in "([A-Za-z0-9+/]{8}\r\n){0,4}[A-Za-z0-9+/]{0,8}={0,2}(\r\n){0,2}") {
            if let Some(cut) = cut_of(text.as_bytes()) {
                prop_assert_eq!(wrapped(&cut.content, cut.wrapping.unwrap()), text.as_bytes()[cut.raw].to_vec());
            }
        }
    }
}
