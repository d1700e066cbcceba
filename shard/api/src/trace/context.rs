//! What goes from process to process: W3C Trace Context, as text in metadata and as bytes in messages of ours.

use std::fmt;

use bytes::Bytes;

/// The field's name (W3C Trace Context section 3.2.1).
pub const TRACEPARENT: &str = "traceparent";
/// A context in a message of ours: trace id, span id, flags.
pub const CONTEXT_BYTES: usize = 16 + 8 + 1;

/// The text's length in the version that is written here, and the least of any version (section 3.2.2).
const TEXT_BYTES: usize = 55;
/// The flag that says that somebody keeps the trace (section 3.2.2.5.1).
const SAMPLED: u8 = 1;

/// Names a trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId(pub(super) [u8; 16]);

impl TraceId {
    /// As it is in OTLP.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in a trace: what comes of it has this span as its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span. Never 0.
    pub span: u64,
    /// Whether whoever hands it on keeps the trace.
    pub sampled: bool,
}

impl Context {
    /// Reads a `traceparent` field; `None` for what is none: the trace begins anew then (section 3.2.2.1). What newer versions have behind
    /// the flags is passed over.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let [version, trace, span, flags] =
            [bytes.get(..2)?, bytes.get(3..35)?, bytes.get(36..52)?, bytes.get(53..55)?];
        let dashes = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let [version] = lower_hex::<1>(version)?;
        let is_whole = match version {
            0 => bytes.len() == TEXT_BYTES,
            0xff => false,
            _ => bytes.len() == TEXT_BYTES || bytes.get(TEXT_BYTES) == Some(&b'-'),
        };
        if !dashes || !is_whole {
            return None;
        }
        let [flags] = lower_hex::<1>(flags)?;
        Self::of(lower_hex(trace)?, u64::from_be_bytes(lower_hex(span)?), flags)
    }

    /// The field's text.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{:016x}-{:02x}", self.trace, self.span, self.flags())
    }

    /// As a field of a message of ours.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = [0; CONTEXT_BYTES];
        let (trace, rest) = bytes.split_at_mut(16);
        trace.copy_from_slice(&self.trace.0);
        let (span, flags) = rest.split_at_mut(8);
        span.copy_from_slice(&self.span.to_be_bytes());
        flags.fill(self.flags());
        Bytes::copy_from_slice(&bytes)
    }

    /// From a field of a message of ours; `None` where it is empty, or what only a newer build writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; CONTEXT_BYTES] = bytes.try_into().ok()?;
        let (trace, rest) = bytes.split_at(16);
        let (span, flags) = rest.split_at(8);
        Self::of(trace.try_into().ok()?, u64::from_be_bytes(span.try_into().ok()?), *flags.first()?)
    }

    fn of(trace: [u8; 16], span: u64, flags: u8) -> Option<Self> {
        let is_valid = trace != [0; 16] && span != 0;
        is_valid.then_some(Self { trace: TraceId(trace), span, sampled: flags & SAMPLED != 0 })
    }

    fn flags(&self) -> u8 {
        if self.sampled { SAMPLED } else { 0 }
    }
}

/// Lower-case digits only, as the grammar has it.
fn lower_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_standard() {
        let context = Context::parse(EXAMPLE).unwrap();
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span, context.sampled), (0x00f0_67aa_0ba9_02b7, true));
        assert_eq!(context.traceparent(), EXAMPLE);
    }

    #[test]
    fn what_is_none_begins_anew() {
        for text in [
            "",
            "00",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736+00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(text), None, "{text}");
        }
        // A version that is newer: its beginning is known.
        assert!(Context::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-09-more").unwrap().sampled);
        assert!(!Context::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02").unwrap().sampled);
    }

    proptest! {
        #[test]
        fn both_forms_say_the_same(trace in any::<[u8; 16]>(), span in any::<u64>(), sampled in any::<bool>()) {
            prop_assume!(trace != [0; 16] && span != 0);
            let context = Context { trace: TraceId(trace), span, sampled };
            prop_assert_eq!(Context::parse(&context.traceparent()), Some(context));
            prop_assert_eq!(Context::from_bytes(&context.to_bytes()), Some(context));
        }

        #[test]
        fn anything_is_read_or_refused(text in ".{0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _either = (Context::parse(&text), Context::from_bytes(&bytes));
        }
    }
}
