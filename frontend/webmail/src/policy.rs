//! What a browser is told that the page must not do. A message is in a frame with a policy of its own, which REST sends with it
//! (docs/adr/131-html-mail-in-a-frame.md).

use http::{HeaderValue, Uri};

/// The page: nothing but files of this origin runs or styles, nothing is sent anywhere else, nobody frames it, and text becomes
/// markup only through three Trusted Types policies: Svelte's, for the templates that were compiled, the page's own, which makes
/// an inert document to take apart and the address of the service worker, and the editor's, for what is pasted into it (docs/adr/130-the-webmail.md).
const BEFORE: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; \
                      connect-src 'self'";
const BEHIND: &str = "; frame-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types svelte-trusted-html postrider ProseMirrorClipboard";

/// The path by which the page asks how far another region is. A policy names it whole: nothing else of that origin can be asked for.
const PING: &str = "/v1/ping";

/// Regions that the policy names; more than any cluster has.
const REGIONS_MAX: usize = 64;

/// What pages here never ask for.
pub(crate) const PERMISSIONS: &str =
    "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=(), interest-cohort=()";

/// The page's policy, in a cluster whose regions have these origins: how far each is may be asked, and nothing else
/// (docs/adr/134-another-region-is-another-page.md).
pub(crate) fn of_page<'a>(origins: impl IntoIterator<Item = &'a str>) -> HeaderValue {
    let mut text = BEFORE.to_owned();
    for origin in origins.into_iter().filter(|origin| is_origin(origin)).take(REGIONS_MAX) {
        text.push(' ');
        text.push_str(origin.trim_end_matches('/'));
        text.push_str(PING);
    }
    text.push_str(BEHIND);
    HeaderValue::try_from(text).expect("origins are visible ASCII, and so is the rest")
}

/// Whether it is an origin of the web and nothing that would be read as more of a policy.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    is_web
        && !authority.is_empty()
        && authority.bytes().all(is_plain)
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_region_is_may_be_asked_and_nothing_else() {
        let policy = of_page(["https://virginia.example", "http://127.0.1.2:8080/"]);
        let policy = policy.to_str().unwrap();
        let named = "connect-src 'self' https://virginia.example/v1/ping http://127.0.1.2:8080/v1/ping; frame-src";
        assert!(policy.contains(named), "{policy}");
        assert!(of_page([]).to_str().unwrap().contains("connect-src 'self'; frame-src"));
    }

    #[test]
    fn what_is_no_origin_adds_nothing() {
        let none = of_page([]);
        for text in [
            "",
            "virginia.example",
            "*",
            "https://*",
            "ftp://virginia.example",
            "https://virginia.example/path",
            "https://virginia.example?x",
            "https://virginia.example; script-src *",
            "https://virginia.example,x",
            "https://user@virginia.example",
            "https://virginia.example\r\nx: y",
            "'unsafe-inline'",
        ] {
            assert_eq!(of_page([text]), none, "{text}");
        }
    }
}
