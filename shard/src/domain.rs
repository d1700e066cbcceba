//! Names of the DNS as commands bring them. They are looked at, never changed: whoever proposes brings the canonical form.

/// RFC 1035 section 2.3.4, without the dot at the end.
const DOMAIN_BYTES_MAX: usize = 253;
/// The same section.
const LABEL_BYTES_MAX: usize = 63;

/// Whether a name is one of lower-case A-labels.
pub(crate) fn is_canonical(domain: &str) -> bool {
    let is_label = |label: &str| {
        let is_inside = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_inside)
    };
    domain.len() <= DOMAIN_BYTES_MAX && domain.split('.').all(is_label)
}
