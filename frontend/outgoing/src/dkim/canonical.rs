//! Relaxed canonicalization (RFC 6376 sections 3.4.2 and 3.4.4).

use ring::digest::{Context, SHA256};

/// One field of a header section.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// Its name as it stands there.
    pub(super) name: &'a [u8],
    /// What is behind the colon, with all its lines.
    pub(super) value: &'a [u8],
}

/// The fields of a message, and its body.
pub(super) fn split(message: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        if let Some(body) = rest.strip_prefix(b"\r\n") {
            return (fields, body);
        }
        let mut end = 0;
        loop {
            end = match memchr::memmem::find(&rest[end..], b"\r\n") {
                Some(at) => end + at + 2,
                None => rest.len(),
            };
            if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                break;
            }
        }
        let (line, left) = rest.split_at(end);
        rest = left;
        // A line without a colon is no field, and nobody's canonical form has it.
        if let Some(colon) = memchr::memchr(b':', line) {
            fields.push(Field { name: line[..colon].trim_ascii_end(), value: &line[colon + 1..] });
        }
    }
    (fields, b"")
}

/// A field without the CRLF at its end.
pub(super) fn field(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend(field.name.to_ascii_lowercase());
    out.push(b':');
    let mut is_blank = false;
    let mut is_first = true;
    for byte in field.value.iter().filter(|byte| !matches!(byte, b'\r' | b'\n')) {
        match byte {
            b' ' | b'\t' => is_blank = true,
            _ => {
                if is_blank && !is_first {
                    out.push(b' ');
                }
                (is_blank, is_first) = (false, false);
                out.push(*byte);
            }
        }
    }
}

/// The hash of a body.
pub(super) fn body_hash(body: &[u8]) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    let mut line = Vec::new();
    // Empty lines count only once another line follows.
    let mut empty = 0;
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n");
        let (raw, left) = match end {
            Some(end) => (&rest[..end], &rest[end + 2..]),
            None => (rest, &b""[..]),
        };
        rest = left;
        line.clear();
        relaxed_line(raw, &mut line);
        if line.is_empty() {
            empty += 1;
            continue;
        }
        for _ in 0..std::mem::take(&mut empty) {
            hash.update(b"\r\n");
        }
        line.extend_from_slice(b"\r\n");
        hash.update(&line);
    }
    hash.finish().as_ref().to_vec()
}

fn relaxed_line(raw: &[u8], out: &mut Vec<u8>) {
    let mut is_blank = false;
    for byte in raw {
        match byte {
            b' ' | b'\t' => is_blank = true,
            _ => {
                if std::mem::take(&mut is_blank) {
                    out.push(b' ');
                }
                out.push(*byte);
            }
        }
    }
}
