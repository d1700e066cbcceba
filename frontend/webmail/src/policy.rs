//! What a browser is told not to do: the policy of the page, and that of the frame that shows what a sender wrote.

/// Whose policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The page itself.
    Page,
    /// The frame in which HTML of a message is built, without anything from anywhere.
    Frame,
    /// The same once the reader has asked for images.
    FrameWithImages,
}

/// The page: nothing but files of this origin runs or styles, nothing is sent anywhere else, nobody frames it, and text becomes
/// markup only through three Trusted Types policies: Svelte's, for the templates that were compiled, the page's own, which makes
/// an inert document to take apart and the address of the service worker, and the editor's, for what is pasted into it (docs/adr/130-the-webmail.md).
const PAGE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; \
                    connect-src 'self'; frame-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; \
                    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                    trusted-types svelte-trusted-html postrider ProseMirrorClipboard";

/// The frame: no script, no form, no frame, no font, no network. `allow-same-origin` lets the page build the message's elements and
/// measure them; without `allow-scripts` nothing in the frame makes use of it (docs/adr/131-html-mail-in-a-frame.md).
const FRAME: &str = "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
                     style-src 'unsafe-inline'; img-src blob: data:; base-uri 'none'; form-action 'none'; \
                     frame-ancestors 'self'";

/// As [`FRAME`], and images over HTTPS.
const FRAME_WITH_IMAGES: &str = "sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox; \
                                 default-src 'none'; style-src 'unsafe-inline'; img-src blob: data: https:; \
                                 base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// What pages here never ask for.
pub(crate) const PERMISSIONS: &str =
    "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=(), interest-cohort=()";

impl Policy {
    /// Of a built file; scripts and styles need none.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            "frame.html" => Some(Self::Frame),
            "frame-images.html" => Some(Self::FrameWithImages),
            _ => path.ends_with(".html").then_some(Self::Page),
        }
    }

    /// As `Content-Security-Policy` has it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Page => PAGE,
            Self::Frame => FRAME,
            Self::FrameWithImages => FRAME_WITH_IMAGES,
        }
    }
}
