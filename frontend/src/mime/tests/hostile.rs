//! Mail that is meant to cost much: what it makes us do is bounded by its size and by named limits (P-13). Work is counted in
//! bytes that were looked at and things that were made, never in time.

use postrider_api::limit::{MESSAGE_BYTES_MAX, PARTS_MAX, REFERENCES_MAX};

use super::super::IngestLimits;
use super::super::limit::MIME_DEPTH_MAX;
use super::super::structure::{LOOKS_MAX, Structure, walk};
use super::memory::checked;

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
