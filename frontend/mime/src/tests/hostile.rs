//! Mail that is meant to cost much: what it makes us do is bounded by its size and by named limits (P-13). Work is counted in
//! bytes that were looked at and things that were made, never in time.

use bytes::Bytes;
use postrider_api::limit::{MESSAGE_BYTES_MAX, PARTS_MAX, REFERENCES_MAX};

use super::super::limit::MIME_DEPTH_MAX;
use super::super::structure::{LOOKS_MAX, Structure, walk};
use super::super::{IngestLimits, ingest};
use super::memory::{BODY_ID, checked};

/// As much of `unit` as a message may have.
fn full_of(unit: &str) -> Vec<u8> {
    unit.repeat(MESSAGE_BYTES_MAX as usize / unit.len()).into_bytes()
}

fn walked(raw: &[u8]) -> Structure {
    let (structure, looked_at) = walk(raw);
    assert!(looked_at <= LOOKS_MAX * raw.len(), "{looked_at} of {} bytes", raw.len());
    assert!(structure.nodes.len() <= 2 * PARTS_MAX);
    structure
}

#[test]
fn the_walk_is_linear_on_anything() {
    for unit in [
        "\n",
        "--\n",
        "a:\r\n",
        " \r\n",
        "<>",
        "--b\r\n",
        "--b--\r\n",
        "Content-Type: message/rfc822\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n",
        "Content-Type: multipart/mixed; boundary=never\r\n\r\n",
        "--b\r\nContent-Type: multipart/mixed; boundary=never\r\n\r\n",
        "=?utf-8?q?",
    ] {
        walked(&full_of(unit));
        let within = [b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".as_slice(), &full_of(unit)].concat();
        walked(&within);
    }
}

#[test]
fn depth_is_bounded() {
    let deep: String = (0..50_000)
        .map(|at| format!("Content-Type: multipart/mixed; boundary=b{at}\r\n\r\n--b{at}\r\n"))
        .chain((0..50_000).rev().map(|at| format!("--b{at}--\r\n")))
        .collect();
    assert_eq!(walked(deep.as_bytes()).nodes.len(), MIME_DEPTH_MAX + 1);
    checked(deep.as_bytes(), &IngestLimits::default());
    let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(200_000);
    assert_eq!(walked(deep.as_bytes()).nodes.len(), MIME_DEPTH_MAX + 1);
    checked(deep.as_bytes(), &IngestLimits::default());
}

#[test]
fn parts_are_bounded() {
    let wide = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", "--b\r\n\r\nx\r\n".repeat(500_000));
    let message = checked(wide.as_bytes(), &IngestLimits::default()).message;
    assert_eq!(message.parts.len(), PARTS_MAX);
}

#[test]
fn headers_are_bounded() {
    let many = format!("Subject: seen\r\n{}To: late@x.example\r\n\r\nhello", "X-Field: value\r\n".repeat(100_000));
    let envelope = checked(many.as_bytes(), &IngestLimits::default()).message.envelope.unwrap();
    assert_eq!(envelope.subject, "seen");
    assert!(envelope.to.is_empty(), "what stands behind HEADER_BYTES_MAX is not seen");
    let long = format!("References: {}\r\n\r\n", "<a@b>\r\n <c@d> ".repeat(1_000_000));
    assert!(checked(long.as_bytes(), &IngestLimits::default()).message.reference_hashes.len() <= REFERENCES_MAX);
    // Each part has a header of its own.
    let part = format!("--b\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let parts = format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{}", part.repeat(500));
    walked(parts.as_bytes());
}

#[test]
fn fields_that_the_grammar_finds_hard_come_to_an_end() {
    for unit in [
        "=?utf-8?q?",
        "=?utf-8?b?",
        "=?a",
        "(",
        "\"",
        "<",
        ":",
        ";",
        ",",
        "a*1=b;",
        "a*0*=",
        "\\",
        "=?utf-8?q?=C3=A9?=",
        "<a@b>,",
        "(\"",
    ] {
        let value = unit.repeat(200_000 / unit.len());
        for name in ["Subject", "From", "Content-Type: text/plain; name", "Content-Disposition: x;", "Date"] {
            let raw = format!("{name}: {value}\r\n\r\nhello");
            checked(raw.as_bytes(), &IngestLimits::default());
        }
    }
}

#[test]
fn the_largest_message_of_nothing_is_cut() {
    for unit in ["\n", "\r\n", "x", "=\r\n"] {
        let ingested = checked(&full_of(unit), &IngestLimits::default());
        assert!(ingested.message.pieces.len() <= 4);
    }
}

#[test]
fn nothing_that_is_kept_holds_the_raw_message() {
    // One part is decoded, the other is kept as it came: a slice of the raw message would hold all of it beside what was decoded.
    let line = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0\r\n".repeat(20_000);
    let text = "eight bits: \u{e4}\r\n".repeat(80_000);
    let raw = Bytes::from(format!(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: application/pdf\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{line}\r\n--b\r\nContent-Type: text/csv\r\n\r\n{text}\r\n--b--\r\n"
    ));
    let ingested = ingest(&raw, BODY_ID, &IngestLimits::default());
    assert_eq!(ingested.blobs.len(), 2);
    assert!(raw.is_unique(), "the raw message is held");
    let blobs: usize = ingested.blobs.iter().map(|blob| blob.content.len()).sum();
    let kept = blobs + ingested.message.body.as_ref().map_or(0, |body| body.text.len());
    assert!(kept <= raw.len(), "{kept} bytes of {}", raw.len());
}
