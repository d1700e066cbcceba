//! The webmail: the files that `npm run build` made in `dist/`, and what a browser is told with each of them.
//!
//! `dist/` is committed, so that whoever builds the service needs no npm; CI builds it again and fails on any difference.
//!
//! Invariant: nothing here reads a mailbox. The page is the same for everybody; what it shows it asks REST for.
//! Invariant: the page's policy lets only files of this origin run. What a sender wrote is REST's document (`GET /v1/messages/{id}/view`), in a frame
//! whose policy lets nothing run at all.

mod encoding;
mod policy;

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::encoding::Encoding;

/// What was built. `debug-embed` is on: a binary has its files within itself, however it was compiled.
#[derive(RustEmbed)]
#[folder = "dist/"]
struct Dist;

/// Where the built files are, as the page names them (`base` in `vite.config.ts`).
pub const FILES: &str = "/webmail/";

/// The paths that open the page, in the syntax of axum's router. The page itself reads what stands behind them.
pub const PAGES: &[&str] = &["/mail", "/mail/{*place}", "/settings", "/settings/{*place}", "/login", "/sign-up"];

/// The paths that open the operator's page.
pub const OPERATORS_PAGES: &[&str] = &["/admin", "/admin/{*place}"];

/// The page's own file.
const PAGE: &str = "index.html";

/// Files whose name is made of what they hold: they never change.
const HASHED: &str = "assets/";

/// Such a file is kept for a year, the longest that RFC 9111 section 5.2.2.1 has in mind.
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Everything else is asked for again, which costs a 304.
const ASKED: HeaderValue = HeaderValue::from_static("no-cache");

/// Whether whoever asks reads pages: `text/html` is named in its `Accept`. Programs that take anything do not name it.
pub fn reads_pages(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
}

/// The page, for `/` and each path of [`PAGES`], in a cluster whose regions have these `origins`: it may ask how far each is.
pub fn page<'a>(headers: &HeaderMap, origins: impl IntoIterator<Item = &'a str>) -> Response<Bytes> {
    // The build fails where there is no page: see the tests.
    sent(PAGE, headers, &policy::of_page(origins)).unwrap_or_else(|| status(StatusCode::NOT_FOUND))
}

/// The page for each path of [`OPERATORS_PAGES`].
pub fn operators_page(headers: &HeaderMap) -> Response<Bytes> {
    file("admin.html", headers).unwrap_or_else(|| status(StatusCode::NOT_FOUND))
}

/// The service worker. It stands at the root, since a worker looks after what lies below its own path.
pub fn worker(headers: &HeaderMap) -> Response<Bytes> {
    file("sw.js", headers).unwrap_or_else(|| status(StatusCode::NOT_FOUND))
}

/// A built file by its path behind [`FILES`]; `None` where there is none.
pub fn file(path: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    sent(path, headers, &policy::of_page([]))
}

fn sent(path: &str, headers: &HeaderMap, policy: &HeaderValue) -> Option<Response<Bytes>> {
    // The compressed forms are no files of their own.
    if Encoding::of_name(path).is_some() {
        return None;
    }
    let content_type = content_type(path)?;
    let (found, encoding) = chosen(path, headers)?;
    let is_page = path.ends_with(".html");
    let tag = entity_tag(&found, encoding, is_page.then_some(policy));
    let mut response = if is_held(headers, &tag) {
        status(StatusCode::NOT_MODIFIED)
    } else {
        let mut response = Response::new(bytes(found.data));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(name) = encoding.header() {
            response.headers_mut().insert(CONTENT_ENCODING, name);
        }
        response
    };
    let fields = response.headers_mut();
    fields.insert(ETAG, tag);
    fields.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    fields.insert(CACHE_CONTROL, if path.starts_with(HASHED) { KEPT } else { ASKED });
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    fields.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    if is_page {
        fields.insert(CONTENT_SECURITY_POLICY, policy.clone());
        fields.insert(HeaderName::from_static("permissions-policy"), HeaderValue::from_static(policy::PERMISSIONS));
        fields.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    }
    Some(response)
}

/// The file in the smallest form that the browser takes.
fn chosen(path: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, Encoding)> {
    Encoding::taken(headers).find_map(|encoding| Some((Dist::get(&encoding.name(path))?, encoding)))
}

/// Of the form that is sent: the forms of a file are different entities (RFC 9110 section 8.8.3.3). A page under another policy is, too:
/// browsers do not take a policy from a 304.
fn entity_tag(found: &EmbeddedFile, encoding: Encoding, policy: Option<&HeaderValue>) -> HeaderValue {
    let digest: String = found.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = policy.map_or_else(String::new, |policy| {
        let mut hasher = DefaultHasher::new();
        policy.as_bytes().hash(&mut hasher);
        format!("-{:016x}", hasher.finish())
    });
    let text = format!("\"{digest}{policy}{}\"", encoding.suffix());
    HeaderValue::from_str(&text).expect("hexadecimal digits and a suffix are visible ASCII")
}

fn is_held(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let Ok(tag) = tag.to_str() else { return false };
    let held = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A proxy that compresses makes a tag weak; for a GET weak ones compare (RFC 9110 section 13.1.2).
    held.flat_map(|value| value.split(','))
        .any(|held| held.trim().trim_start_matches("W/") == tag || held.trim() == "*")
}

fn bytes(data: Cow<'static, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(data) => Bytes::from_static(data),
        Cow::Owned(data) => Bytes::from(data),
    }
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = status;
    response
}

/// By the ending; what has another one is not served.
fn content_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
