//! For the fuzz target `terraform_values`.

use super::msgpack::{decode, encode};

/// Whatever decodes is written, and read again as the same.
///
/// # Panics
/// When it is not.
pub fn drive_values(bytes: &[u8]) {
    let Ok(value) = decode(bytes) else { return };
    let written = encode(&value);
    let again = decode(&written).map(|value| encode(&value));
    assert!(again.as_ref() == Ok(&written), "{value:?} is read as {again:?}");
}
