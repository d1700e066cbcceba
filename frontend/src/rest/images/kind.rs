//! What an image is, by its first bytes (MIME Sniffing Standard, section 6.1). What its sender calls it counts for nothing.

/// Bytes that tell.
pub(super) const HEAD_BYTES: usize = 32;

/// Grids of pixels, which browsers show and run nothing of. SVG is a document, and is none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageKind {
    Avif,
    Bmp,
    Gif,
    Icon,
    Jpeg,
    Png,
    WebP,
}

impl ImageKind {
    /// `None`: it is not shown.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let starts = |start: &[u8]| bytes.starts_with(start);
        let has = |at: usize, text: &[u8]| bytes.get(at..at + text.len()) == Some(text);
        if starts(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if starts(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Some(Self::Gif)
        } else if starts(b"RIFF") && has(8, b"WEBPVP") {
            Some(Self::WebP)
        } else if has(4, b"ftypavif") || has(4, b"ftypavis") {
            Some(Self::Avif)
        } else if starts(b"\0\0\x01\0") {
            Some(Self::Icon)
        // Two letters say little; the reserved bytes of the header are zero.
        } else if starts(b"BM") && has(6, b"\0\0\0\0") {
            Some(Self::Bmp)
        } else {
            None
        }
    }

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Avif => "image/avif",
            Self::Bmp => "image/bmp",
            Self::Gif => "image/gif",
            Self::Icon => "image/x-icon",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grids_of_pixels_are_images() {
        for (bytes, media_type) in [
            (&b"\x89PNG\r\n\x1a\n\0"[..], "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a\x01", "image/gif"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
            (b"\0\0\0\x20ftypavif", "image/avif"),
            (b"\0\0\x01\0\x01", "image/x-icon"),
            (b"BM\0\0\0\0\0\0\0\0", "image/bmp"),
        ] {
            assert_eq!(ImageKind::of(bytes).map(ImageKind::media_type), Some(media_type));
        }
        for bytes in [
            &b""[..],
            b"<svg xmlns='http://www.w3.org/2000/svg'>",
            b"<?xml version='1.0'?><svg>",
            b"<!DOCTYPE html>",
            b"GIF",
            b"\x1f\x8b",
            b"%PDF-1.7",
            b"RIFF\0\0\0\0WAVE",
            b"BM<script>",
            b"\0\0\0\x20ftypmp42",
            b"PK\x03\x04",
        ] {
            assert_eq!(ImageKind::of(bytes), None, "{bytes:?}");
        }
    }
}
