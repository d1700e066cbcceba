//! Addresses and parameters as they stand in MAIL and RCPT.

use thiserror::Error;

/// A path, bytes without its brackets (RFC 5321 section 4.5.3.1.3).
const PATH_BYTES_MAX: usize = 254;
/// A local part, bytes (RFC 5321 section 4.5.3.1.1).
const LOCAL_BYTES_MAX: usize = 64;

/// Text that must not stand between the brackets of MAIL or RCPT.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("the address cannot be written into a command: {0}")]
pub struct PathError(&'static str);

/// Looks at an address before it is written into a command.
///
/// # Errors
/// When it would be read as something else than one address.
pub fn check(address: &str) -> Result<(), PathError> {
    if address.len() > PATH_BYTES_MAX {
        return Err(PathError("it is longer than 254 bytes"));
    }
    let (local, domain) = address.rsplit_once('@').ok_or(PathError("it has no @"))?;
    if local.is_empty() || local.len() > LOCAL_BYTES_MAX || domain.is_empty() {
        return Err(PathError("a part of it is empty, or its local part longer than 64 bytes"));
    }
    if address.chars().any(char::is_control) {
        return Err(PathError("it has control characters"));
    }
    let is_quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let special = |c: char| matches!(c, ' ' | '<' | '>' | '(' | ')' | '[' | ']' | ',' | ';' | ':' | '\\' | '"' | '@');
    match is_quoted {
        true => quoted(&local[1..local.len() - 1])?,
        false if local.contains(special) => return Err(PathError("its local part must be quoted")),
        false => {}
    }
    match domain.contains(|c: char| special(c) && !matches!(c, '[' | ']' | ':')) {
        true => Err(PathError("its domain has characters that no domain has")),
        false => Ok(()),
    }
}

/// RFC 5321 section 4.1.2: within the quotes a quote and a backslash stand behind a backslash.
fn quoted(inner: &str) -> Result<(), PathError> {
    let mut is_escaped = false;
    for c in inner.chars() {
        match (is_escaped, c) {
            (false, '\\') => is_escaped = true,
            (false, '"') => return Err(PathError("its quotes end early")),
            _ => is_escaped = false,
        }
    }
    if is_escaped { Err(PathError("its quotes do not end")) } else { Ok(()) }
}

/// Whether text may stand as a parameter's value as it is: one word, without what ends it. UTF-8 is for sessions with SMTPUTF8
/// (RFC 6533 section 3).
pub(crate) fn is_value(text: &str, utf8: bool) -> bool {
    let is_of_word = |c: char| if c.is_ascii() { c.is_ascii_graphic() && c != '=' } else { utf8 };
    !text.is_empty() && text.chars().all(is_of_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_be_more_than_one_are_refused() {
        for address in [
            "ada@far.example",
            "\"a b\"@far.example",
            "\"a\\\"b\"@far.example",
            "jörg@bücher.example",
            "a+b@[192.0.2.1]",
        ] {
            assert_eq!(check(address), Ok(()), "{address}");
        }
        for address in [
            "",
            "@",
            "a@",
            "@b",
            "a b@c",
            "a>@c",
            "a@c> NOTIFY=NEVER",
            "a\r\nRCPT TO:<b@c>@d",
            "\"a\"b\"@c",
            "\"a\\\"@c",
            "a@b c",
            "a\0@c",
        ] {
            assert!(check(address).is_err(), "{address:?}");
        }
    }

    #[test]
    fn a_value_is_one_word() {
        assert!(is_value("a+2Bb", false) && is_value("rfc822;a@b", false) && is_value("ü", true));
        for text in ["", "a b", "a=b", "a\r\nRCPT", "ü"] {
            assert!(!is_value(text, false), "{text:?}");
        }
    }
}
