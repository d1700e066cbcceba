//! A zone as a zone file (RFC 1035 section 5), for those who keep their DNS elsewhere.

use std::fmt::Write as _;

use hickory_proto::rr::{LowerName, RData};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};

use super::build::NEAREST_TTL_S;
use super::tree::{RrSet, Set, Zone};
use crate::choice::Choice;

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Absolute.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// `MX`, `TXT` …
    pub rtype: String,
    /// The record's data as it is written.
    pub data: String,
    /// Whether our own name servers would choose it for whoever asks.
    pub tailored: bool,
}

/// All records, without what only a name server of ours can do: what follows the client names all regions here, in the
/// configured order.
pub fn lines(zone: &Zone) -> Vec<Line> {
    let choice = Choice { order: zone.regions().iter().collect(), scope: 0 };
    let apex = LowerName::new(zone.origin());
    let mut names: Vec<_> = zone.names().collect();
    names.sort_by(|(one, _), (other, _)| (**one != apex, *one).cmp(&(**other != apex, *other)));
    let mut lines = Vec::new();
    for (name, node) in names {
        for set in node.sets() {
            for records in whole(zone, set, &choice) {
                lines.extend(records.data.iter().map(|data| Line {
                    name: name.to_string(),
                    ttl: records.ttl,
                    rtype: records.rtype.to_string(),
                    data: written(data),
                    tailored: Zone::is_tailored(set),
                }));
            }
        }
    }
    lines
}

/// The same as text.
pub fn print(zone: &Zone) -> String {
    let mut text = format!(
        "; {} for name servers that do not know the cluster. Ours answer addresses, MX and _postrider by\n\
         ; distance and health; here they are the same for all.\n",
        zone.origin()
    );
    for line in lines(zone) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} {} IN {} {}", line.name, line.ttl, line.rtype, line.data);
    }
    text
}

/// A set with everything that it may have.
fn whole(zone: &Zone, set: &Set, choice: &Choice) -> Vec<RrSet> {
    match set {
        Set::Nearest(rtype) => {
            let of_region = |region: usize| zone.records(set, &Choice { order: vec![region], scope: 0 });
            let data: Vec<RData> =
                choice.order.iter().filter_map(|region| of_region(*region)).flat_map(|set| set.data).collect();
            if data.is_empty() { Vec::new() } else { vec![RrSet { rtype: *rtype, ttl: NEAREST_TTL_S, data }] }
        }
        set => zone.records(set, choice).into_iter().collect(),
    }
}

/// A record's data in the form of a zone file.
pub(crate) fn written(data: &RData) -> String {
    match data {
        RData::TXT(txt) => txt.txt_data.iter().map(|string| quoted(string)).collect::<Vec<_>>().join(" "),
        RData::CAA(caa) => format!("{} {} {}", caa.flags(), caa.tag, quoted(&caa.value)),
        RData::A(_)
        | RData::AAAA(_)
        | RData::CNAME(_)
        | RData::MX(_)
        | RData::NS(_)
        | RData::PTR(_)
        | RData::SOA(_)
        | RData::SRV(_)
        | RData::TLSA(_) => data.to_string(),
        // RFC 3597 section 5: any type can be written so.
        other => generic(other),
    }
}

fn generic(data: &RData) -> String {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    // Canonical: no compression, which would point into a message.
    encoder.set_canonical_form(true);
    if data.emit(&mut encoder).is_err() {
        bytes.clear();
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\# {} {hex}", bytes.len()).trim_end().to_owned()
}

/// RFC 1035 section 5.1.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
    text.push('"');
    text
}
