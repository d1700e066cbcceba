//! Return paths of ours: where it can be told whom a bounce is about, and whether it is about anything that we sent.
//!
//! * [`ReturnPaths`] writes the reverse-path of mail that our users send. It names sender, message and recipient, carries a tag that
//!   only this cluster can make (as BATV's `prvs` does), and the day from which it counts. So what comes back to it is matched to its
//!   message whatever it is, and what was never sent has nowhere to come back to.
//! * [`Srs`] rewrites the reverse-path of mail that is forwarded (SRS0, SRS1), and undoes it.
//!
//! Invariant: pure functions of a secret, a day and what they are given; whatever the text is, reading it neither panics nor looks at
//! more than [`LOCAL_BYTES_MAX`] bytes before the `@`.
//! Invariant: nothing is believed of a path whose tag is not ours; tags are compared in constant time.

mod base32;
mod bounce;
mod srs;

pub use bounce::{Origin, PathError, ReturnPaths};
pub use srs::{Srs, SrsError};

/// A local part, bytes (RFC 5321 section 4.5.3.1.1).
const LOCAL_BYTES_MAX: usize = 64;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Whether a local part looks like that of a return path: nobody has it as his own.
pub fn is_reserved(local: &str) -> bool {
    bounce::is_of_form(local) || srs::is_of_form(local)
}

/// The day of a time in milliseconds since the Unix epoch.
fn day_of(ms: i64) -> i64 {
    ms.div_euclid(DAY_MS)
}

/// Whether two tags are the same, in a time that does not tell where they differ.
pub(crate) fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
