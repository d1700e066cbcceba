//! Addresses: the canonical form under which the directory knows one.

use thiserror::Error;

use crate::id::Slot;
use crate::limit::ADDRESS_BYTES_MAX;

/// Why some text is no address.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// No `@`, or nothing on one side of it.
    #[error("an address is local-part@domain")]
    Shape,
    /// RFC 5321 section 4.5.3.1.
    #[error("an address has at most {ADDRESS_BYTES_MAX} bytes, 64 of them before the @")]
    Length,
    /// A control character, a space or a character of the grammar that needs quoting.
    #[error("the local part holds a character that is not allowed")]
    LocalPart,
    /// The domain is none (RFC 5890).
    #[error("the domain is not valid")]
    Domain,
}

/// Local part, bytes. RFC 5321 section 4.5.3.1.1.
const LOCAL_PART_BYTES_MAX: usize = 64;

/// An address in canonical form: the local part in lower case, the domain in lower-case A-labels.
///
/// RFC 5321 section 2.4 leaves the meaning of case in the local part to the host that owns the mailbox; here it has none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    text: String,
    at: usize,
}

impl Address {
    /// # Errors
    /// When `text` is no address.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Shape)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Shape);
        }
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError::Length);
        }
        if !is_dot_string(local) {
            return Err(AddressError::LocalPart);
        }
        let domain = canonical_domain(domain).ok_or(AddressError::Domain)?;
        let local = local.to_lowercase();
        let text = format!("{local}@{domain}");
        // Of the canonical form, which may be longer: it has to be an address itself.
        if text.len() > ADDRESS_BYTES_MAX || local.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::Length);
        }
        Ok(Self { at: local.len(), text })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands before the `@`.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// What stands behind the `@`, in A-labels.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The directory slot that answers for this address.
    pub fn slot(&self) -> Slot {
        slot_of(&self.text)
    }
}

/// An address outside: the local part byte for byte, since only its own host knows what in it means the same; the domain in
/// lower-case A-labels. No address literal: a domain is asked for its hosts, and nobody names a host of ours as one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteAddress {
    text: String,
    at: usize,
}

impl RemoteAddress {
    /// # Errors
    /// When `text` is no address that mail could be sent to.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Shape)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Shape);
        }
        if !is_dot_string(local) && !is_quoted_string(local) {
            return Err(AddressError::LocalPart);
        }
        let domain = canonical_domain(domain).ok_or(AddressError::Domain)?;
        let text = format!("{local}@{domain}");
        if text.len() > ADDRESS_BYTES_MAX || local.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::Length);
        }
        Ok(Self { at: local.len(), text })
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands behind the `@`, in A-labels.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }
}

/// The directory slot of a canonical address.
pub fn slot_of(canonical: &str) -> Slot {
    let [a, b, ..] = hash_of(canonical);
    Slot(u16::from_be_bytes([a, b]))
}

/// The hash under which the directory keeps a canonical address.
pub fn hash_of(canonical: &str) -> [u8; 32] {
    *blake3::hash(canonical.as_bytes()).as_bytes()
}

/// A domain in lower-case A-labels; `None` when it is none, or is longer than RFC 1035 section 2.3.4 allows.
pub fn canonical_domain(domain: &str) -> Option<String> {
    let ascii = idna::domain_to_ascii_strict(domain).ok()?;
    let labels_fit = ascii.split('.').all(|label| !label.is_empty() && label.len() <= 63);
    (labels_fit && ascii.len() <= 253).then_some(ascii)
}

/// RFC 5321 section 4.1.2 Quoted-string, of what no parser of paths could trip over: without spaces and angle brackets.
fn is_quoted_string(local: &str) -> bool {
    let Some(text) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut chars = text.chars();
    let is_printed = |c: char| !c.is_control() && !c.is_whitespace() && !"<>".contains(c);
    while let Some(c) = chars.next() {
        let fits = match c {
            '\\' => chars.next().is_some_and(is_printed),
            '"' => false,
            c => is_printed(c),
        };
        if !fits {
            return false;
        }
    }
    // Behind the last backslash stood the quote.
    local.len() > 1
}

/// RFC 5321 section 4.1.2 Dot-string, with RFC 6531 section 3.3's UTF-8. Quoted strings name no mailbox here.
fn is_dot_string(local: &str) -> bool {
    local.split('.').all(|atom| {
        !atom.is_empty()
            && atom.chars().all(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' => true,
                c if c.is_ascii() => "!#$%&'*+-/=?^_`{|}~".contains(c),
                c => !c.is_control() && !c.is_whitespace(),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        let address = Address::parse("Ada.Lovelace@Postrider.Example").unwrap();
        assert_eq!(address.as_str(), "ada.lovelace@postrider.example");
        assert_eq!(address.local_part(), "ada.lovelace");
        assert_eq!(address.domain(), "postrider.example");
        assert_eq!(Address::parse("한글@bücher.example").unwrap().domain(), "xn--bcher-kva.example");
    }

    #[test]
    fn refused() {
        for (text, error) in [
            ("ada", AddressError::Shape),
            ("@x.example", AddressError::Shape),
            ("a b@x.example", AddressError::LocalPart),
            ("a..b@x.example", AddressError::LocalPart),
            ("a\r\nb@x.example", AddressError::LocalPart),
            ("a@x..example", AddressError::Domain),
            ("a@x example", AddressError::Domain),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@x.example", "a".repeat(65))), Err(AddressError::Length));
        // In lower case it has half as many bytes again.
        assert_eq!(Address::parse(&format!("{}@x.example", "İ".repeat(32))), Err(AddressError::Length));
    }
}
