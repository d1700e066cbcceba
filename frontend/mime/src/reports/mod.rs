//! Reports on a domain's mail that others send to whoever answers for the domain: how TLS went (RFC 8460), and what passed DMARC
//! (RFC 7489 section 7.2 and appendix C).
//!
//! Invariant: anybody can write a report about anything; what is read here is counted and believed by nobody.
//! Invariant: what is unpacked is bounded before it is unpacked, by bytes and not by what the archive says of itself, and nothing is unpacked
//! twice: there is no archive within an archive.

mod dmarc;
mod tls;
mod unpack;

pub use dmarc::{DmarcReport, DmarcRow};
pub use tls::{TlsCounts, TlsFailure, TlsReport};

use crate::decode::decoded_head;
use crate::structure;
use unpack::unpacked;

/// A packed report, bytes. RFC 8460 section 3.1 and RFC 7489 name no limit; the largest receivers keep to 10 MB of mail.
const PACKED_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The same unpacked.
const UNPACKED_BYTES_MAX: usize = 20 * 1024 * 1024;
/// Parts of one message that are looked at.
const PARTS_MAX: usize = 8;

/// A report on a domain's mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainReport {
    /// How TLS went.
    Tls(TlsReport),
    /// What passed DMARC.
    Dmarc(DmarcReport),
}

/// Whether a part may hold a report, by its type and name.
pub fn may_be_report(content_type: &str, filename: &str) -> bool {
    let filename = filename.to_ascii_lowercase();
    match content_type {
        "application/tlsrpt+gzip" | "application/tlsrpt+json" => true,
        // RFC 7489 section 7.2.1.1 has gzip or zip, and hosts have any type for either; the name has a `!`.
        "application/gzip"
        | "application/x-gzip"
        | "application/zip"
        | "application/x-zip-compressed"
        | "text/xml"
        | "application/xml"
        | "application/octet-stream" => {
            [".xml", ".xml.gz", ".zip", ".json", ".json.gz", ".gz"].iter().any(|end| filename.ends_with(end))
        }
        _ => false,
    }
}

/// Reads the reports of a message; nothing where there is none that can be read.
pub fn domain_reports(raw: &[u8]) -> Vec<DomainReport> {
    let structure = structure::parse(raw);
    let nodes = structure.nodes.iter();
    let candidates = nodes.filter(|node| may_be_report(&node.header.content_type, &node.header.filename));
    let read = candidates.take(PARTS_MAX).filter_map(|node| {
        let packed = decoded_head(node.header.encoding, &raw[node.body.clone()], PACKED_BYTES_MAX + 1);
        if packed.len() > PACKED_BYTES_MAX {
            return None;
        }
        read(&packed)
    });
    read.collect()
}

/// Reads one report, packed or not.
fn read(packed: &[u8]) -> Option<DomainReport> {
    let plain = unpacked(packed, UNPACKED_BYTES_MAX)?;
    let begins = plain.iter().find(|byte| !byte.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(byte))?;
    match begins {
        b'{' => tls::read(&plain).map(DomainReport::Tls),
        b'<' => dmarc::read(&plain).map(DomainReport::Dmarc),
        _ => None,
    }
}

/// Text of a report as it may be shown: in one line, and shortened.
fn word(text: &str) -> String {
    crate::text::in_line(text, WORD_BYTES_MAX)
}

/// A name or an id in a report, bytes.
const WORD_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::unpack::tests::{gzip, zip};
    use super::*;

    const XML: &str = include_str!("dmarc.xml");

    fn message(content_type: &str, filename: &str, content: &[u8]) -> Vec<u8> {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(content);
        format!(
            "From: reports@far.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nA report.\r\n--b\r\n\
             Content-Type: {content_type}; name=\"{filename}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{text}\r\n--b--\r\n"
        )
        .into_bytes()
    }

    #[test]
    fn a_report_is_read_however_it_is_packed() {
        let name = "far.example!near.example!1790000000!1790086400";
        for (content_type, end, content) in [
            ("application/gzip", ".xml.gz", gzip(XML.as_bytes())),
            ("application/zip", ".zip", zip(XML.as_bytes())),
            ("application/octet-stream", ".xml.gz", gzip(XML.as_bytes())),
            ("text/xml", ".xml", XML.as_bytes().to_vec()),
        ] {
            let found = domain_reports(&message(content_type, &format!("{name}{end}"), &content));
            assert!(
                matches!(&found[..], [DomainReport::Dmarc(report)] if report.rows.len() == 2),
                "{content_type}: {found:?}"
            );
        }
        let json = gzip(tls::tests::JSON.as_bytes());
        let found = domain_reports(&message("application/tlsrpt+gzip", "x.json.gz", &json));
        assert!(matches!(&found[..], [DomainReport::Tls(_)]), "{found:?}");
        assert_eq!(domain_reports(&message("image/png", "x.png", XML.as_bytes())), []);
        assert_eq!(domain_reports(b""), []);
    }

    #[test]
    fn bombs_are_no_reports() {
        let bomb = gzip(&vec![b' '; UNPACKED_BYTES_MAX + 1]);
        assert!(bomb.len() < PACKED_BYTES_MAX);
        assert_eq!(domain_reports(&message("application/gzip", "a.xml.gz", &bomb)), []);
        let twice = gzip(&gzip(XML.as_bytes()));
        assert_eq!(domain_reports(&message("application/gzip", "a.xml.gz", &twice)), []);
        let large = vec![b'<'; PACKED_BYTES_MAX + 1];
        assert_eq!(domain_reports(&message("text/xml", "a.xml", &large)), []);
    }
}
