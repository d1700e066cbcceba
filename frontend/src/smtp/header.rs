//! The bounds of a message's header section, and its hop count.

use std::ops::Range;

use super::limit::{HEADER_BYTES_MAX, HEADER_FIELDS_MAX, HOPS_MAX};
use super::reply::Reply;

const RECEIVED: &[u8] = b"received";

/// Looks at the header section of `message`, whose lines end with CRLF.
///
/// # Errors
/// The refusal of a header section that is too large, has too many fields, or tells of a loop.
pub(super) fn check(message: &[u8]) -> Result<(), Reply> {
    let (mut fields, mut hops, mut start) = (0, 0, 0);
    for end in memchr::memchr_iter(b'\n', message) {
        let line = &message[start..=end];
        if line == b"\r\n" {
            break;
        }
        start = end + 1;
        if start > HEADER_BYTES_MAX {
            return Err(Reply::HeaderTooLarge);
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            continue;
        }
        if !is_field(line) {
            // No header section, or the end of one: the body begins without the empty line.
            break;
        }
        fields += 1;
        if fields > HEADER_FIELDS_MAX {
            return Err(Reply::HeaderTooLarge);
        }
        if is_received(line) {
            hops += 1;
            if hops > HOPS_MAX {
                return Err(Reply::Loop);
            }
        }
    }
    Ok(())
}

/// A header field.
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    /// Behind the colon, as it stands, with what it is folded into and its last CRLF.
    pub(super) value: &'a [u8],
    /// The whole of it.
    pub(super) range: Range<usize>,
}

/// The fields of the header section of `message`, whose lines end with CRLF.
///
/// # Errors
/// When a line in it is no field, and none that a field is folded into.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Reply> {
    let mut fields: Vec<Field<'_>> = Vec::new();
    let (mut start, mut value_start) = (0, 0);
    for end in memchr::memchr_iter(b'\n', message) {
        let line = &message[start..=end];
        if line == b"\r\n" {
            return Ok(fields);
        }
        let range = start..end + 1;
        start = range.end;
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            let folded = fields.last_mut().ok_or(Reply::HeaderMalformed)?;
            folded.range.end = range.end;
            folded.value = &message[value_start..range.end];
            continue;
        }
        let colon = memchr::memchr(b':', line).filter(|_| is_field(line)).ok_or(Reply::HeaderMalformed)?;
        value_start = range.start + colon + 1;
        fields.push(Field { name: line[..colon].trim_ascii_end(), value: &message[value_start..range.end], range });
    }
    // A last chunk may end within a line.
    if start == message.len() { Ok(fields) } else { Err(Reply::HeaderMalformed) }
}

/// RFC 5322 section 2.2: printable ASCII without colon, then the colon. White space before the colon is obsolete, and seen.
fn is_field(line: &[u8]) -> bool {
    memchr::memchr(b':', line).is_some_and(|colon| {
        let name = line[..colon].trim_ascii_end();
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_graphic())
    })
}

fn is_received(line: &[u8]) -> bool {
    line.get(..RECEIVED.len()).is_some_and(|name| name.eq_ignore_ascii_case(RECEIVED))
        && line[RECEIVED.len()..].trim_ascii_start().starts_with(b":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops() {
        let hop = b"RECEIVED : from a\r\n by b; now\r\n";
        let end = b"Subject: x\r\n\r\nReceived: in the body\r\n";
        assert_eq!(check(&[&hop.repeat(HOPS_MAX)[..], end].concat()), Ok(()));
        assert_eq!(check(&[&hop.repeat(HOPS_MAX + 1)[..], end].concat()), Err(Reply::Loop));
        let body = b"Received: from a\r\n".repeat(HOPS_MAX + 1);
        assert_eq!(check(&[b"Subject: x\r\n\r\n", &body[..]].concat()), Ok(()));
        assert_eq!(check(&[b"X-Received-From: x\r\n".as_slice(), &hop.repeat(HOPS_MAX)].concat()), Ok(()));
    }

    #[test]
    fn bounds() {
        assert_eq!(check(&b"A: b\r\n".repeat(HEADER_FIELDS_MAX)), Ok(()));
        assert_eq!(check(&b"A: b\r\n".repeat(HEADER_FIELDS_MAX + 1)), Err(Reply::HeaderTooLarge));
        let folded = [b"A: b\r\n".as_slice(), &b" c\r\n".repeat(HEADER_BYTES_MAX / 4)].concat();
        assert_eq!(check(&folded), Err(Reply::HeaderTooLarge));
        assert_eq!(check(&b"no header here\r\n".repeat(HEADER_BYTES_MAX / 8)), Ok(()));
        assert_eq!(check(b""), Ok(()));
        assert_eq!(check(b"\r\n"), Ok(()));
    }
}
