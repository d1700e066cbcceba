//! The signature of one message by some keys.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::canonical::{self, Field};
use super::key::{DkimKey, KeyError};
use crate::dns::Domain;

/// Fields that are signed once more than they stand there: whoever adds one breaks the signature.
const OVERSIGNED: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Fields that are signed where they stand.
const SIGNED: &[&str] = &[
    "Content-Disposition",
    "Content-Description",
    "Resent-From",
    "Resent-To",
    "Resent-Date",
    "Resent-Message-ID",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Post",
    "Auto-Submitted",
    "TLS-Required",
];
/// Base64 of one line of a signature.
const BASE64_LINE_BYTES: usize = 72;

/// A key with the name that it is published under.
pub struct Signer {
    /// The domain that answers.
    pub domain: Domain,
    /// The selector.
    pub selector: String,
    /// The key.
    pub key: DkimKey,
}

/// The `DKIM-Signature` fields of a message, one for each key, to be put on top of it as they are.
///
/// # Errors
/// When a key does not sign.
pub fn sign<'a>(message: &[u8], signers: impl IntoIterator<Item = &'a Signer>, at_s: i64) -> Result<Vec<u8>, KeyError> {
    let (fields, body) = canonical::split(message);
    let (names, mut input) = selected(&fields);
    let body_hash = STANDARD.encode(canonical::body_hash(body));
    let selected_bytes = input.len();
    let mut out = Vec::new();
    for Signer { domain, selector, key } in signers {
        let value = format!(
            " v=1; a={}; c=relaxed/relaxed; d={domain}; s={selector};\r\n\tt={at_s}; h={};\r\n\tbh={body_hash};\r\n\tb=",
            key.algorithm().tag(),
            names.join(":\r\n\t "),
        );
        input.truncate(selected_bytes);
        canonical::field(&Field { name: b"DKIM-Signature", value: value.as_bytes() }, &mut input);
        let signature = STANDARD.encode(key.sign(&input)?);
        out.extend_from_slice(b"DKIM-Signature:");
        out.extend_from_slice(value.as_bytes());
        for (index, line) in signature.as_bytes().chunks(BASE64_LINE_BYTES).enumerate() {
            if index > 0 {
                out.extend_from_slice(b"\r\n\t ");
            }
            out.extend_from_slice(line);
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(out)
}

/// The names of tag `h`, and the canonical fields that they select: of fields of one name the last comes first (RFC 6376
/// section 5.4.2).
fn selected(fields: &[Field<'_>]) -> (Vec<&'static str>, Vec<u8>) {
    let (mut names, mut input) = (Vec::new(), Vec::new());
    let lists = [(OVERSIGNED, true), (SIGNED, false)];
    for (name, is_oversigned) in lists.iter().flat_map(|(names, over)| names.iter().map(move |name| (*name, *over))) {
        for field in fields.iter().rev().filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes())) {
            names.push(name);
            canonical::field(field, &mut input);
            input.extend_from_slice(b"\r\n");
        }
        if is_oversigned {
            names.push(name);
        }
    }
    (names, input)
}
