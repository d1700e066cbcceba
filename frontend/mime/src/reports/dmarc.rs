//! DMARC aggregate reports (RFC 7489 appendix C): how many messages in a domain's name passed, by the address that they came from.
//!
//! The reader is a pull parser that knows no entities but the five of XML itself, so nothing expands and nothing is fetched.

use std::net::IpAddr;

use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;

use super::word;

/// Rows of one report that are kept.
const ROWS_MAX: usize = 10_000;
/// How deep a report nests: the schema has five.
const DEPTH_MAX: usize = 16;

/// What passed DMARC.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DmarcReport {
    /// Who tells it.
    pub organization: String,
    /// The report's own id.
    pub id: String,
    /// The domain that it is about, in lower case.
    pub domain: String,
    /// Messages, by where they came from.
    pub rows: Vec<DmarcRow>,
}

/// Messages from one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DmarcRow {
    /// From where; `None` where it is no address.
    pub source: Option<IpAddr>,
    /// How many.
    pub count: u64,
    /// `none`, `quarantine` or `reject`.
    pub disposition: String,
    /// Whether a signature of the domain holds.
    pub dkim: bool,
    /// Whether SPF of the domain holds.
    pub spf: bool,
}

/// `None` of what is no report.
pub(super) fn read(xml: &[u8]) -> Option<DmarcReport> {
    let mut reader = Reader::from_reader(xml);
    let (mut report, mut row) = (DmarcReport::default(), DmarcRow::default());
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut text = String::new();
    let mut is_report = false;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) => {
                if path.len() == DEPTH_MAX {
                    return None;
                }
                path.push(start.local_name().as_ref().to_vec());
                is_report |= path.len() == 1 && path[0] == b"feedback";
                text.clear();
            }
            Event::Text(part) => append(&mut text, &String::from_utf8_lossy(&part)),
            Event::CData(part) => append(&mut text, &String::from_utf8_lossy(&part)),
            Event::GeneralRef(entity) => {
                let entity = format!("&{};", String::from_utf8_lossy(&entity));
                // An entity that is not one of XML's own stands for itself.
                append(&mut text, &unescape(&entity).map_or_else(|_| entity.clone(), std::borrow::Cow::into_owned));
            }
            Event::End(_) => {
                let names: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
                note(&names, text.trim(), &mut report, &mut row);
                if names == [&b"feedback"[..], b"record"] {
                    if report.rows.len() == ROWS_MAX {
                        return is_report.then_some(report);
                    }
                    report.rows.push(std::mem::take(&mut row));
                }
                text.clear();
                path.pop();
            }
            Event::Eof => break,
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    (is_report && !report.domain.is_empty()).then_some(report)
}

/// Text between two marks, of which a little is looked at.
fn append(text: &mut String, part: &str) {
    const TEXT_BYTES_MAX: usize = 1024;
    let room = TEXT_BYTES_MAX.saturating_sub(text.len()).min(part.len());
    text.push_str(&part[..part.floor_char_boundary(room)]);
}

/// Takes what stands in an element.
fn note(path: &[&[u8]], text: &str, report: &mut DmarcReport, row: &mut DmarcRow) {
    match path {
        [b"feedback", b"report_metadata", b"org_name"] => report.organization = word(text),
        [b"feedback", b"report_metadata", b"report_id"] => report.id = word(text),
        [b"feedback", b"policy_published", b"domain"] => report.domain = word(text).to_ascii_lowercase(),
        [b"feedback", b"record", b"row", b"source_ip"] => row.source = text.parse().ok(),
        [b"feedback", b"record", b"row", b"count"] => row.count = text.parse().unwrap_or_default(),
        [b"feedback", b"record", b"row", b"policy_evaluated", b"disposition"] => {
            row.disposition = word(text).to_ascii_lowercase();
        }
        [b"feedback", b"record", b"row", b"policy_evaluated", b"dkim"] => row.dkim = text.eq_ignore_ascii_case("pass"),
        [b"feedback", b"record", b"row", b"policy_evaluated", b"spf"] => row.spf = text.eq_ignore_ascii_case("pass"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = read(include_bytes!("dmarc.xml")).unwrap();
        assert_eq!((report.organization.as_str(), report.domain.as_str()), ("Far Inc. & Sons", "near.example"));
        assert_eq!(report.id, "9391651994964116463");
        let first = DmarcRow {
            source: Some("192.0.2.1".parse().unwrap()),
            count: 17,
            disposition: "none".to_owned(),
            dkim: true,
            spf: true,
        };
        assert_eq!(report.rows[0], first);
        let second = &report.rows[1];
        assert_eq!((second.count, second.dkim, second.spf, second.disposition.as_str()), (3, false, false, "reject"));
    }

    #[test]
    fn what_is_no_report_is_none_and_nothing_expands() {
        for none in ["", "<", "<a>", "<html><body/></html>", "<feedback></feedback>", "<feedback><record></feedback>"] {
            assert_eq!(read(none.as_bytes()), None, "{none}");
        }
        let laughs = "<!DOCTYPE x [<!ENTITY a \"ha\"><!ENTITY b \"&a;&a;&a;\">]><feedback><policy_published><domain>x&b;</domain></policy_published></feedback>";
        assert_eq!(read(laughs.as_bytes()).unwrap().domain, "x&b;");
        let deep = "<feedback>".repeat(1_000_000);
        assert_eq!(read(deep.as_bytes()), None);
        let row = "<record><row><count>1</count></row></record>".repeat(ROWS_MAX + 100);
        let many = format!("<feedback><policy_published><domain>x.example</domain></policy_published>{row}</feedback>");
        assert_eq!(read(many.as_bytes()).unwrap().rows.len(), ROWS_MAX);
    }
}
