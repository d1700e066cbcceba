//! The texts of TXT records.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::TXT;

use super::domain::{DkimAlgorithm, DkimKey, DmarcPolicy, Policy};
use crate::region::Region;

/// RFC 1035 section 3.3: what one character-string holds.
const STRING_BYTES_MAX: usize = 255;
/// The key behind the 12 bytes that introduce it in a SubjectPublicKeyInfo of Ed25519 (RFC 8410 section 4).
const ED25519_BYTES: usize = 32;

/// A text as one TXT record, cut into as many strings as it needs; readers join them (RFC 6376 section 3.6.2.2, RFC 7208
/// section 3.3).
pub(super) fn record(text: &str) -> RData {
    RData::TXT(TXT::from_bytes(text.as_bytes().chunks(STRING_BYTES_MAX).collect()))
}

/// RFC 7208: the addresses that send for the domain, by themselves, so that nobody needs a question for them.
pub(super) fn spf(policy: &Policy, regions: &[&Region]) -> String {
    let mut terms = vec!["v=spf1".to_owned()];
    for region in regions {
        let outgoing = if region.outgoing.is_empty() { &region.addresses } else { &region.outgoing };
        for address in outgoing {
            let term = if address.is_ipv4() { format!("ip4:{address}") } else { format!("ip6:{address}") };
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
    }
    terms.extend(policy.spf_include.iter().map(|domain| format!("include:{domain}")));
    terms.push(if policy.spf_fails { "-all" } else { "~all" }.to_owned());
    terms.join(" ")
}

/// RFC 6376 section 3.6.1, RFC 8463 section 4.
pub(super) fn dkim(key: &DkimKey) -> String {
    let (name, bytes) = match key.algorithm {
        DkimAlgorithm::RsaSha256 => ("rsa", key.public_key.as_slice()),
        DkimAlgorithm::Ed25519Sha256 => {
            let start = key.public_key.len().saturating_sub(ED25519_BYTES);
            ("ed25519", &key.public_key[start..])
        }
    };
    format!("v=DKIM1; k={name}; h=sha256; p={}", STANDARD.encode(bytes))
}

/// RFC 9989.
pub(super) fn dmarc(policy: &Policy, report_to: &[String]) -> String {
    let asked = match policy.dmarc {
        DmarcPolicy::None => "none",
        DmarcPolicy::Quarantine => "quarantine",
        DmarcPolicy::Reject => "reject",
    };
    format!("v=DMARC1; p={asked}; rua={}", report_to.join(","))
}

/// RFC 8461 section 3.1.
pub(super) fn mta_sts(id: &str) -> String {
    format!("v=STSv1; id={id};")
}

/// RFC 8460 section 3.
pub(super) fn tls_reports(report_to: &[String]) -> String {
    format!("v=TLSRPTv1; rua={}", report_to.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_split_and_nothing_is_lost() {
        let key = DkimKey {
            selector: "s".into(),
            algorithm: DkimAlgorithm::RsaSha256,
            // As long as a key of 4,096 bits is.
            public_key: (0..550u32).map(|at| at as u8).collect(),
        };
        let text = dkim(&key);
        let RData::TXT(record) = record(&text) else { panic!("a TXT record") };
        assert!(record.txt_data.len() > 2 && record.txt_data.iter().all(|string| string.len() <= 255));
        assert_eq!(record.txt_data.concat(), text.as_bytes());
    }

    #[test]
    fn an_ed25519_key_is_published_as_its_32_bytes() {
        let mut public_key = vec![0x30; 12];
        public_key.extend([7; 32]);
        let key = DkimKey { selector: "s".into(), algorithm: DkimAlgorithm::Ed25519Sha256, public_key };
        assert_eq!(dkim(&key), format!("v=DKIM1; k=ed25519; h=sha256; p={}", STANDARD.encode([7; 32])));
    }

    #[test]
    fn spf_names_what_sends() {
        let mut regions = crate::choice::tests::regions();
        regions[0].outgoing = vec!["203.0.113.9".parse().unwrap()];
        let policy = Policy { spf_fails: true, spf_include: vec!["other.example".into()], ..Default::default() };
        let all: Vec<&Region> = regions.iter().take(2).collect();
        assert_eq!(
            spf(&policy, &all),
            "v=spf1 ip4:203.0.113.9 ip4:192.0.2.2 ip6:2001:db8::2 include:other.example -all"
        );
    }
}
