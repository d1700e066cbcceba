//! A domain as the DNS knows it: lower-case A-labels.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A name, bytes without the dot of the root (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;
/// A label, bytes (the same).
const LABEL_BYTES_MAX: usize = 63;

/// A domain or host: lower-case A-labels, no dot at the end, never an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Domain(String);

/// Text that is no domain.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{text:?} is no domain: {why}")]
pub struct DomainError {
    text: String,
    why: &'static str,
}

impl Domain {
    /// As text, for the DNS and for SMTP.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Everything behind the first dot.
    pub fn parent(&self) -> Option<&str> {
        self.0.split_once('.').map(|(_, parent)| parent)
    }
}

impl FromStr for Domain {
    type Err = DomainError;

    /// Takes U-labels as well; a dot at the end is dropped.
    fn from_str(text: &str) -> Result<Self, DomainError> {
        let error = |why| DomainError { text: text.chars().take(NAME_BYTES_MAX).collect(), why };
        if text.len() > 4 * NAME_BYTES_MAX {
            return Err(error("it is too long"));
        }
        let ascii = match text.is_ascii() {
            // As it stands: names of hosts with an underline are seen, which IDNA does not know.
            true => text.to_ascii_lowercase(),
            false => idna::domain_to_ascii(text).map_err(|_| error("it is no internationalized name"))?,
        };
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(error("it is empty or longer than 253 bytes"));
        }
        for label in name.split('.') {
            if label.is_empty() || label.len() > LABEL_BYTES_MAX {
                return Err(error("a label is empty or longer than 63 bytes"));
            }
            if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
                return Err(error("a label has other characters than letters, digits, hyphens"));
            }
        }
        // RFC 3696 section 2: no top-level domain is all digits; what looks like an address is none of a host.
        if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
            return Err(error("it is an address, or ends like one"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_lower_case_a_labels() {
        for (text, name) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("Bücher.example", "xn--bcher-kva.example"),
            ("_dmarc.example.org", "_dmarc.example.org"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("mx_1.example.org", "mx_1.example.org"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a.".repeat(130);
        let label = "a".repeat(64) + ".org";
        for text in
            ["", ".", "a..b", "[192.0.2.1]", "192.0.2.1", "a b.org", "a\r\n.org", "a/b.org", &long, &label, "xn--ü"]
        {
            assert!(text.parse::<Domain>().is_err(), "{text:?}");
        }
    }
}
