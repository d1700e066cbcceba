//! Where images come from.

use crate::limit::DATA_URL_BYTES_MAX;
use crate::link::{RemoteImage, remote_image};

/// What an image's address is.
pub(crate) enum Source {
    /// Of the network.
    Remote(RemoteImage),
    /// Of the message, by its Content-ID.
    Inline(String),
    /// In its own URL, which asks nobody.
    Data(String),
    /// None that is shown.
    Unusable,
}

/// Kinds of images that are shown from their own URL: grids of pixels, whose readers run nothing. SVG is a document.
const DATA_KINDS: &[&str] = &["avif", "bmp", "gif", "jpeg", "jpg", "png", "webp", "x-icon"];

/// Reads an address.
pub(crate) fn source(src: &str) -> Source {
    let src = src.trim();
    match src.split_once(':') {
        Some((scheme, id)) if scheme.eq_ignore_ascii_case("cid") => Source::Inline(content_id(id)),
        Some((scheme, of)) if scheme.eq_ignore_ascii_case("data") => data(of).map_or(Source::Unusable, Source::Data),
        _ => remote_image(src).map_or(Source::Unusable, Source::Remote),
    }
}

/// RFC 2392 section 2: a Content-ID without its brackets, percent-encoded where a URL wants that.
fn content_id(encoded: &str) -> String {
    let bytes = encoded.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = encoded.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    let text = String::from_utf8_lossy(&decoded);
    text.trim().trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// RFC 2397, written anew: the kind from the list and the digits.
fn data(rest: &str) -> Option<String> {
    if rest.len() > DATA_URL_BYTES_MAX {
        return None;
    }
    let (head, body) = rest.split_once(',')?;
    let head = head.to_ascii_lowercase();
    let mut words = head.split(';').map(str::trim);
    let kind = words.next()?.strip_prefix("image/")?;
    if !DATA_KINDS.contains(&kind) || words.next_back() != Some("base64") {
        return None;
    }
    let digits: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let digits = digits.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
    let is_base64 =
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    is_base64.then(|| format!("data:image/{kind};base64,{digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        assert!(matches!(source(" cid:%3Ca%40b%3E "), Source::Inline(id) if id == "a@b"));
        assert!(matches!(source("CID:logo%"), Source::Inline(id) if id == "logo%"));
        assert!(
            matches!(source("data:image/PNG;base64,iVBO Rw0="), Source::Data(url) if url == "data:image/png;base64,iVBORw0=")
        );
        assert!(matches!(source("https://a.example/x"), Source::Remote(image) if image.host == "a.example"));
        for src in [
            "",
            "x.png",
            "javascript:1",
            "data:image/svg+xml;base64,AAAA",
            "data:text/html,x",
            "data:image/png,x\"",
            "blob:https://a/1",
            "data:image/png;base64,<svg>",
            "file:///x",
            "data:",
            "data",
        ] {
            assert!(matches!(source(src), Source::Unusable), "{src}");
        }
    }
}
