//! What a reader sees.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::executor::block_on;
use postrider_api::id::BlobHash;
use postrider_api::pb;

use super::super::limit::{RENDER_INPUT_BYTES_MAX, RENDERED_BYTES_MAX, RENDERED_FIELDS_MAX};
use super::super::{BlobReadError, BlobSource, BlobStream, IngestLimits, Rendered, ingest, render};
use super::memory::{BODY_ID, Memory, checked, stored};

/// Counts what is read of it.
#[derive(Clone)]
struct Counted {
    blobs: Memory,
    read: Arc<AtomicU64>,
}

impl BlobSource for Counted {
    async fn read(&self, hash: BlobHash, range: Range<u64>) -> Result<BlobStream, BlobReadError> {
        let read = Arc::clone(&self.read);
        let count = move |chunk: &Result<Bytes, BlobReadError>| {
            let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
            read.fetch_add(bytes, Ordering::Relaxed);
        };
        Ok(self.blobs.read(hash, range).await?.inspect(count).boxed())
    }
}

/// A message as it is shown, and how many bytes were read from blobs for it.
fn counted(raw: Vec<u8>) -> (Rendered, u64) {
    let ingested = ingest(&Bytes::from(raw), BODY_ID, &IngestLimits::default());
    let record = pb::EmailRecord { parts: ingested.message.parts.clone(), ..pb::EmailRecord::default() };
    let blobs = Counted { blobs: Memory::of(&ingested, 64 * 1024), read: Arc::default() };
    let shown = block_on(render(&record, &stored(&ingested.message), &blobs)).unwrap();
    (shown, blobs.read.load(Ordering::Relaxed))
}

fn rendered(raw: &[u8]) -> Rendered {
    let ingested = checked(raw, &IngestLimits::default());
    let record = pb::EmailRecord { parts: ingested.message.parts.clone(), ..pb::EmailRecord::default() };
    block_on(render(&record, &stored(&ingested.message), &Memory::of(&ingested, 4096))).unwrap()
}

#[test]
fn text_and_html_are_decoded() {
    let raw = "Content-Type: multipart/alternative; boundary=b\r\nSubject: =?utf-8?b?7JWI64WV?=\r\nX-Other: a\r\n b\r\n\r\n\
               --b\r\nContent-Type: text/plain; charset=euc-kr\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=BE=C8=B3=E7\r\n\
               --b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nPHA+7JWI64WVPC9wPg==\r\n--b--\r\n";
    let shown = rendered(raw.as_bytes());
    assert_eq!(shown.text.as_deref(), Some("안녕"));
    assert_eq!(shown.html.as_deref(), Some("<p>안녕</p>"));
    let header = |name: &str| shown.headers.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
    assert_eq!(header("Subject"), Some("안녕"));
    assert_eq!(header("X-Other"), Some("a b"));
    assert!(!shown.is_truncated);
}

#[test]
fn each_body_stands_in_for_the_other() {
    let html = rendered(b"Content-Type: text/html\r\n\r\n<p>one &amp; two</p>");
    assert_eq!(html.html.as_deref(), Some("<p>one &amp; two</p>"));
    assert_eq!(html.text.as_deref().map(str::trim), Some("one & two"));
    let plain = rendered(b"\r\none & two");
    assert_eq!((plain.text.as_deref(), plain.html), (Some("one & two"), None));
    let neither = rendered(b"Content-Type: application/pdf\r\n\r\npdf");
    assert_eq!((neither.text, neither.html), (None, None));
}

#[test]
fn parts_that_follow_each_other_are_shown_one_below_the_other() {
    let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n\
               --b\r\n\r\nplain\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>html</p>\r\n--b--\r\n--a\r\n\r\nfooter <list>\r\n--a--\r\n";
    let shown = rendered(raw.as_bytes());
    assert_eq!(shown.text.as_deref(), Some("plain\r\nfooter <list>"));
    let html = shown.html.unwrap();
    assert_eq!(html, "<p>html</p>\r\n<pre>footer &lt;list&gt;</pre>");
}

#[test]
fn what_is_given_is_bounded() {
    let raw = format!("{}\r\n{}", "X: y\r\n".repeat(5000), "안".repeat(RENDERED_BYTES_MAX));
    let shown = rendered(raw.as_bytes());
    assert_eq!(shown.headers.len(), RENDERED_FIELDS_MAX);
    let text = shown.text.unwrap();
    assert!(text.len() <= RENDERED_BYTES_MAX && text.len() > RENDERED_BYTES_MAX - 4);
    assert!(shown.is_truncated);
}

#[test]
fn headers_have_no_control_characters() {
    let shown = rendered(b"Subject: a\x07b =?utf-8?q?c=0D=0ABcc:_x?=\r\n\r\n");
    assert_eq!(shown.headers, [("Subject".to_owned(), "ab cBcc: x".to_owned())]);
}

/// One chunk may be read to its end.
const SLACK: u64 = 64 * 1024;

#[test]
fn html_without_text_is_not_read_for_ever() {
    let part = format!("--b\r\nContent-Type: text/html\r\n\r\n<style>{}</style>\r\n", "p{color:red} ".repeat(100_000));
    let raw = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}--b--\r\n", part.repeat(25));
    assert!(raw.len() as u64 > 7 * RENDER_INPUT_BYTES_MAX);
    let (shown, read) = counted(raw.into_bytes());
    assert!(read <= RENDER_INPUT_BYTES_MAX + SLACK, "{read} bytes were read");
    assert!(read >= RENDER_INPUT_BYTES_MAX - SLACK, "the test has lost its point: {read} bytes were read");
    assert!(shown.is_truncated);
}

#[test]
fn an_encoding_that_gives_nothing_is_not_read_for_ever() {
    let raw = format!(
        "Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nbegin {}end",
        "=\r\n".repeat(10_000_000)
    );
    let (shown, read) = counted(raw.into_bytes());
    assert!(read <= RENDER_INPUT_BYTES_MAX + SLACK, "{read} bytes were read");
    assert_eq!(shown.text.as_deref(), Some("begin "));
    assert!(shown.is_truncated);
}

#[test]
fn a_long_body_that_is_encoded_is_shown_as_far_as_it_goes() {
    let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n";
    let header = "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n";
    let (shown, _) = counted(format!("{header}{}", line.repeat(100_000)).into_bytes());
    assert_eq!(shown.text.map(|text| text.len()), Some(RENDERED_BYTES_MAX));
    assert!(shown.is_truncated);
    let (shown, _) = counted(format!("{header}{}", line.repeat(100)).into_bytes());
    assert_eq!(shown.text.map(|text| text.len()), Some(5700));
    assert!(!shown.is_truncated);
}
