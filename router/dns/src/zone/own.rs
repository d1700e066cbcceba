//! The operator's own records, written as lines of a zone file.

use hickory_proto::rr::{LowerName, Name, RData, RecordType};
use hickory_proto::serialize::txt::Parser;

use super::build::ZoneError;

/// A description that is longer is refused.
pub(super) const OWN_BYTES_MAX: usize = 1 << 20;

/// One set of them.
#[derive(Debug, PartialEq)]
pub(super) struct OwnSet {
    pub(super) name: LowerName,
    pub(super) rtype: RecordType,
    pub(super) ttl: u32,
    pub(super) data: Vec<RData>,
}

/// Types that an operator may write: what is made by whoever signs, and what is not of this zone, is none of them.
const ALLOWED: &[RecordType] = &[
    RecordType::A,
    RecordType::AAAA,
    RecordType::CAA,
    RecordType::CERT,
    RecordType::CNAME,
    RecordType::DS,
    RecordType::HTTPS,
    RecordType::MX,
    RecordType::NAPTR,
    RecordType::NS,
    RecordType::OPENPGPKEY,
    RecordType::PTR,
    RecordType::SMIMEA,
    RecordType::SRV,
    RecordType::SSHFP,
    RecordType::SVCB,
    RecordType::TLSA,
    RecordType::TXT,
];

/// Reads them.
pub(super) fn parse(text: &str, origin: &Name) -> Result<Vec<OwnSet>, ZoneError> {
    let refused = |detail: String| ZoneError::Own { detail };
    if text.len() > OWN_BYTES_MAX {
        return Err(refused(format!("{} bytes of at most {OWN_BYTES_MAX}", text.len())));
    }
    // It names a file of whoever reads, which is not the writer.
    if text.to_ascii_uppercase().contains("$INCLUDE") {
        return Err(refused("$INCLUDE is not allowed".into()));
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The parser wants a TTL, and takes the last one where a line has none.
    let text = format!("$TTL {}\n{text}\n", super::build::TTL_S);
    let (_, sets) =
        Parser::new(text, None, Some(origin.clone())).parse().map_err(|error| refused(error.to_string()))?;
    let mut found = Vec::with_capacity(sets.len());
    for (key, set) in sets {
        let name = Name::from(key.name());
        let rtype = set.record_type();
        if !origin.zone_of(&name) {
            return Err(refused(format!("{name} {rtype}: not in {origin}")));
        }
        if !ALLOWED.contains(&rtype) {
            return Err(refused(format!("{name} {rtype}: records of this type cannot be added")));
        }
        if name == *origin && matches!(rtype, RecordType::NS | RecordType::CNAME | RecordType::DS) {
            return Err(refused(format!("{name} {rtype}: not at the domain itself")));
        }
        let data = set.records_without_rrsigs().map(|record| record.data.clone()).collect();
        found.push(OwnSet { name: LowerName::new(&name), rtype, ttl: set.ttl(), data });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        parse(text, &Name::from_ascii("example.org.").unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn lines_are_read_relative_to_the_domain() {
        let text = "www 60 IN A 192.0.2.80\n@ IN TXT \"site=1\"\nwww IN AAAA 2001:db8::80 ; a site\n*.dev IN CNAME www";
        let sets = parse(text, &Name::from_ascii("example.org.").unwrap()).unwrap();
        assert_eq!(sets.len(), 4);
        let www = sets.iter().find(|set| set.rtype == RecordType::A).unwrap();
        assert_eq!((www.name.to_string().as_str(), www.ttl, www.data.len()), ("www.example.org.", 60, 1));
        assert_eq!(parse(" \n", &Name::root()).unwrap(), []);
    }

    #[test]
    fn what_is_not_the_operators_is_refused() {
        assert!(refusal("$INCLUDE /etc/passwd").contains("$INCLUDE"));
        assert!(refusal("$include \"/etc/passwd\"").contains("$INCLUDE"));
        assert!(refusal("@ IN NS ns.elsewhere.net.").contains("not at the domain itself"));
        assert!(refusal("www.elsewhere.net. IN A 192.0.2.1").contains("not in example.org."));
        assert!(refusal("www IN A 192.0.2.300").contains("own records"));
    }
}
