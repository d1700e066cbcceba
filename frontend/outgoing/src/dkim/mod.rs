//! DKIM (RFC 6376, RFC 8463): who answers for a message.
//!
//! Invariant: nothing is signed but the bytes that are sent, and every field that a reader goes by is signed once more than it
//! stands there, so that none can be added (RFC 6376 section 8.15).
//! Invariant: a private key is whole only in a process that signs; wherever it lies it is sealed to its domain and selector.

mod canonical;
mod key;
mod seal;
mod sign;

pub use key::{Algorithm, DkimKey, KeyError, txt_value};
pub use seal::{KEYS_PURPOSE, KeySealer, Sealed};
pub use sign::{Signer, sign};

#[cfg(test)]
mod tests;
