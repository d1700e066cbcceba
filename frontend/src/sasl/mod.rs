//! SASL (RFC 4422) as it goes over the wire: what a client's responses say, and what a server's challenges are. Whoever they are
//! from, and whether it is true, is [`account::programs`](crate::account::programs)'.
//!
//! Invariant: pure; whatever the bytes are, nothing here panics ([`fuzz_sasl`]).

pub(crate) mod plain;
pub(crate) mod scram;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// A name to log in with, bytes: longer than an address.
pub(crate) const NAME_BYTES_MAX: usize = 512;
/// A response, bytes, decoded: a name twice, a password, and what stands around them.
pub(crate) const RESPONSE_BYTES_MAX: usize = 1536;

/// A response that is none of its mechanism.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SaslError {
    /// Not base64, or too long.
    #[error("the response is not base64")]
    Base64,
    /// Not what the mechanism wants.
    #[error("the response is none of this mechanism")]
    Malformed,
    /// Channel binding, or an extension that must be understood.
    #[error("the response asks for what is not offered")]
    Unsupported,
    /// In another's name.
    #[error("the response asks to act for somebody else")]
    Foreign,
}

/// A response as a line carries it: base64, or `=` for an empty one (RFC 4954 section 4).
pub(crate) fn response(text: &[u8]) -> Result<Vec<u8>, SaslError> {
    if text == b"=" {
        return Ok(Vec::new());
    }
    let decoded = STANDARD.decode(text).map_err(|_| SaslError::Base64)?;
    if decoded.len() > RESPONSE_BYTES_MAX { Err(SaslError::Base64) } else { Ok(decoded) }
}

/// A name in a response: text of one line.
pub(crate) fn name(bytes: &[u8]) -> Result<&str, SaslError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SaslError::Malformed)?;
    let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
    if fits { Ok(text) } else { Err(SaslError::Malformed) }
}

/// A password in a response.
pub(crate) fn password(bytes: &[u8]) -> Result<&str, SaslError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SaslError::Malformed)?;
    if text.is_empty() || text.contains('\0') { Err(SaslError::Malformed) } else { Ok(text) }
}

/// For fuzzing: every decoder of this room.
///
/// # Panics
/// When what was decoded does not say what was sent: that is the finding.
pub fn fuzz_sasl(data: &[u8]) {
    if let Ok(decoded) = response(data) {
        assert!(decoded.len() <= RESPONSE_BYTES_MAX);
    }
    if let Ok(plain) = plain::parse(data) {
        assert!(!plain.name.contains('\0') && !plain.password.contains('\0'));
    }
    if let Ok(first) = scram::ClientFirst::parse(data) {
        assert_eq!(format!("{}{}", first.gs2_header, first.bare).as_bytes(), data);
        assert!(!first.nonce.contains(','));
    }
    if let Ok(last) = scram::ClientFinal::parse(data) {
        assert!(data.starts_with(last.without_proof.as_bytes()));
    }
}
