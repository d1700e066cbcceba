//! Transfer encodings, decoded as a stream.
//!
//! Invariant: what comes out does not depend on how the input was cut into chunks; so the size that ingest counts is the size
//! that a reader gets.
//! Invariant: every input decodes to something. RFC 2045 section 6.8 has characters outside of the alphabet ignored, and
//! section 6.7 lets a decoder keep what is no valid escape.

use postrider_api::pb::TransferEncoding;

/// White space at the end of a quoted-printable line that is held back until it is known whether the line ends, bytes.
const HELD_BYTES_MAX: usize = 998;
/// Input that is decoded at once where only the size is wanted, bytes.
const COUNT_CHUNK_BYTES: usize = 48 * 1024;

/// Decodes one part.
pub(super) enum Decoder {
    Identity,
    Base64(Base64),
    QuotedPrintable(QuotedPrintable),
}

impl Decoder {
    pub(super) fn new(encoding: TransferEncoding) -> Self {
        match encoding {
            TransferEncoding::Identity => Self::Identity,
            TransferEncoding::Base64 => Self::Base64(Base64::default()),
            TransferEncoding::QuotedPrintable => Self::QuotedPrintable(QuotedPrintable::default()),
        }
    }

    /// Appends what `input` decodes to.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Identity => out.extend_from_slice(input),
            Self::Base64(base64) => base64.push(input, out),
            Self::QuotedPrintable(quoted) => quoted.push(input, out),
        }
    }

    /// Appends what was held back.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Identity => {}
            Self::Base64(base64) => base64.flush(out),
            Self::QuotedPrintable(quoted) => quoted.finish(out),
        }
    }
}

/// Bytes that `input` decodes to.
pub(super) fn decoded_size(encoding: TransferEncoding, input: &[u8]) -> u64 {
    if encoding == TransferEncoding::Identity {
        return input.len() as u64;
    }
    let mut decoder = Decoder::new(encoding);
    let mut out = Vec::with_capacity(input.len().min(COUNT_CHUNK_BYTES));
    let mut size = 0;
    for chunk in input.chunks(COUNT_CHUNK_BYTES) {
        decoder.push(chunk, &mut out);
        size += out.len() as u64;
        out.clear();
    }
    decoder.finish(&mut out);
    size + out.len() as u64
}

/// The beginning of what `input` decodes to: all of it, or a little more than `bytes_wanted`.
pub(super) fn decoded_head(encoding: TransferEncoding, input: &[u8], bytes_wanted: usize) -> Vec<u8> {
    if encoding == TransferEncoding::Identity {
        return input[..input.len().min(bytes_wanted)].to_vec();
    }
    let mut decoder = Decoder::new(encoding);
    let mut out = Vec::with_capacity(bytes_wanted.min(input.len()));
    for chunk in input.chunks(4096) {
        decoder.push(chunk, &mut out);
        if out.len() >= bytes_wanted {
            return out;
        }
    }
    decoder.finish(&mut out);
    out
}

const IGNORED: u8 = 0xff;
const PADDING: u8 = 0xfe;

const ALPHABET: [u8; 256] = {
    let mut table = [IGNORED; 256];
    let symbols = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0;
    while at < symbols.len() {
        table[symbols[at] as usize] = at as u8;
        at += 1;
    }
    table[b'=' as usize] = PADDING;
    table
};

/// Base64 with everything else ignored.
#[derive(Default)]
pub(super) struct Base64 {
    group: u32,
    symbols: u8,
}

impl Base64 {
    /// Whether the last group was cut in the middle of a byte, rather than left without its padding.
    pub(super) fn is_cut(&self) -> bool {
        match self.symbols {
            0 => false,
            2 => self.group & 0xf != 0,
            3 => self.group & 0x3 != 0,
            _ => true,
        }
    }

    /// Appends the whole groups of what came so far.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            if self.symbols == 0 {
                rest = whole_groups(rest, out);
            }
            let Some((&byte, tail)) = rest.split_first() else { return };
            rest = tail;
            match ALPHABET[usize::from(byte)] {
                IGNORED => {}
                // Padding ends a group; files pasted one after the other go on behind it.
                PADDING => self.flush(out),
                value => {
                    self.group = (self.group << 6) | u32::from(value);
                    self.symbols += 1;
                    if self.symbols == 4 {
                        out.extend_from_slice(&self.group.to_be_bytes()[1..]);
                        (self.group, self.symbols) = (0, 0);
                    }
                }
            }
        }
    }

    fn flush(&mut self, out: &mut Vec<u8>) {
        match self.symbols {
            2 => out.push((self.group >> 4) as u8),
            3 => out.extend_from_slice(&[(self.group >> 10) as u8, (self.group >> 2) as u8]),
            // One symbol alone is less than a byte.
            _ => {}
        }
        (self.group, self.symbols) = (0, 0);
    }
}

/// Decodes groups of four symbols up to the first byte that is none.
fn whole_groups<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    while let [a, b, c, d, tail @ ..] = rest {
        let [a, b, c, d] = [a, b, c, d].map(|symbol| ALPHABET[usize::from(*symbol)]);
        if (a | b | c | d) & 0xc0 != 0 {
            break;
        }
        let group = (u32::from(a) << 18) | (u32::from(b) << 12) | (u32::from(c) << 6) | u32::from(d);
        out.extend_from_slice(&group.to_be_bytes()[1..]);
        rest = tail;
    }
    rest
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Quoted {
    #[default]
    Text,
    /// Behind `=`.
    Escape,
    /// Behind `=` and one hexadecimal digit.
    Digit(u8),
    /// Behind `=` and white space: a soft line break if the line ends here.
    Soft,
}

/// Quoted-printable; what is no valid escape stays as it is.
#[derive(Default)]
pub(super) struct QuotedPrintable {
    state: Quoted,
    /// White space, or an escape that is not complete, that is kept if it turns out to be text.
    held: Vec<u8>,
}

impl QuotedPrintable {
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            self.step(byte, out);
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.state, byte) {
            (Quoted::Text, b'=') => {
                out.append(&mut self.held);
                self.held.push(byte);
                self.state = Quoted::Escape;
            }
            // RFC 2045 section 6.7 (3): white space at the end of a line was added on the way.
            (Quoted::Text, b'\n') => {
                let ended_by_crlf = self.held.last() == Some(&b'\r');
                self.held.clear();
                out.extend_from_slice(if ended_by_crlf { b"\r\n" } else { b"\n" });
            }
            (Quoted::Text, b' ' | b'\t' | b'\r') => {
                if self.held.len() == HELD_BYTES_MAX {
                    out.append(&mut self.held);
                }
                self.held.push(byte);
            }
            (Quoted::Text, _) => {
                out.append(&mut self.held);
                out.push(byte);
            }
            (Quoted::Escape, _) if byte.is_ascii_hexdigit() => {
                self.held.push(byte);
                self.state = Quoted::Digit(byte);
            }
            (Quoted::Digit(high), _) if byte.is_ascii_hexdigit() => {
                self.held.clear();
                out.push((hex_value(high) << 4) | hex_value(byte));
                self.state = Quoted::Text;
            }
            (Quoted::Escape | Quoted::Soft, b'\n') => {
                self.held.clear();
                self.state = Quoted::Text;
            }
            (Quoted::Escape | Quoted::Soft, b' ' | b'\t' | b'\r') if self.held.len() < HELD_BYTES_MAX => {
                self.held.push(byte);
                self.state = Quoted::Soft;
            }
            _ => {
                // No escape after all: what was held is text, and the byte begins afresh.
                out.append(&mut self.held);
                self.state = Quoted::Text;
                self.step(byte, out);
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        // The end of the data ends the line: white space before it, and a soft line break, go.
        if matches!(self.state, Quoted::Digit(_)) {
            out.append(&mut self.held);
        }
        self.held.clear();
        self.state = Quoted::Text;
    }
}

/// The value of a hexadecimal digit.
pub(super) fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn decode(encoding: TransferEncoding, input: &[u8], chunk: usize) -> Vec<u8> {
        let mut decoder = Decoder::new(encoding);
        let mut out = Vec::new();
        for chunk in input.chunks(chunk.max(1)) {
            decoder.push(chunk, &mut out);
        }
        decoder.finish(&mut out);
        out
    }

    #[test]
    fn quoted_printable_as_rfc_2045_section_6_7_says() {
        let decode =
            |text: &str| String::from_utf8(decode(TransferEncoding::QuotedPrintable, text.as_bytes(), 3)).unwrap();
        assert_eq!(decode("caf=C3=A9=20=\r\nau lait  \r\nend"), "café au lait\r\nend");
        assert_eq!(decode("soft= \t\r\nbreak"), "softbreak");
        assert_eq!(decode("1=2 =zz ==41 =4"), "1=2 =zz =A =4");
        assert_eq!(decode("kept  spaces"), "kept  spaces");
        assert_eq!(decode("end="), "end");
    }

    #[test]
    fn base64_ignores_what_is_none() {
        let decode = |text: &[u8]| decode(TransferEncoding::Base64, text, 5);
        assert_eq!(decode(b"aGVs\r\nbG8=\r\n-- \r\n"), b"hello");
        assert_eq!(decode(b"aGVsbG8"), b"hello");
        assert_eq!(decode(b"aGk=aGk="), b"hihi");
        assert_eq!(decode(b"a"), b"");
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(input in proptest::collection::vec(prop_oneof![Just(b'='), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200), chunk in 1usize..9) {
            for encoding in [TransferEncoding::Identity, TransferEncoding::Base64, TransferEncoding::QuotedPrintable] {
                let whole = decode(encoding, &input, input.len());
                prop_assert_eq!(&decode(encoding, &input, chunk), &whole);
                prop_assert_eq!(decoded_size(encoding, &input), whole.len() as u64);
                let head = decoded_head(encoding, &input, 16);
                prop_assert!(whole.starts_with(&head) && head.len() >= whole.len().min(16));
            }
        }

        #[test]
        fn base64_agrees_with_another_implementation(content in proptest::collection::vec(any::<u8>(), 0..200)) {
            let encoded = STANDARD.encode(&content);
            prop_assert_eq!(decode(TransferEncoding::Base64, encoded.as_bytes(), 7), content);
        }
    }
}
