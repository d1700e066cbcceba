//! HTML and text made harmless: whatever comes in, nothing that runs or fetches comes out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_sanitize::{Addresses, TextFormat, Theme, audit, html, text};

struct Ours;

impl Addresses for Ours {
    fn remote(&self, url: &str) -> Option<String> {
        Some(format!("/proxy?{}", url.len()))
    }

    fn inline(&self, _: &str) -> Option<String> {
        Some("/proxy?part".to_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let is_ours = |url: &str| url.starts_with("/proxy?");
    for theme in [Theme::Light, Theme::Dark] {
        let format = TextFormat::Flowed { deletes_space: theme == Theme::Dark };
        for view in [html(source, theme, &Ours), text(source, format, theme)] {
            let wrongs = audit(&view.document, &is_ours);
            assert!(wrongs.is_empty(), "{wrongs:?}: {}", view.document);
        }
    }
});
