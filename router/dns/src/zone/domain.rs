//! The plain description of a mail domain.

use postrider_api::pb;
use sha2::Digest as _;

/// A domain that the cluster takes mail for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// In lower-case A-labels.
    pub name: String,
    /// Rises with whatever changes the zone (RFC 1982).
    pub serial: u32,
    /// Names of the regions that may be named for it: those of its residency zone.
    pub regions: Vec<String>,
    /// Its signing keys.
    pub dkim: Vec<DkimKey>,
    /// What it says of itself.
    pub policy: Policy,
    /// What a certificate authority looks for to see that hosts of it are ours (RFC 8555 section 8.4): the host, and the text.
    pub challenges: Vec<(String, String)>,
    /// The operator's own records, as lines of a zone file with names relative to the domain.
    pub own: String,
}

/// A key that mail of a domain is signed with (RFC 6376), or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimKey {
    /// The label before `_domainkey`.
    pub selector: String,
    /// What it signs with.
    pub algorithm: DkimAlgorithm,
    /// DER SubjectPublicKeyInfo.
    pub public_key: Vec<u8>,
}

impl DkimKey {
    /// As placement tells it; `None` of a newer build's kind, of which nothing can be said.
    #[must_use]
    pub fn of(key: &pb::DkimKey) -> Option<Self> {
        let algorithm = match key.algorithm() {
            pb::DkimAlgorithm::Ed25519Sha256 => DkimAlgorithm::Ed25519Sha256,
            pb::DkimAlgorithm::RsaSha256 => DkimAlgorithm::RsaSha256,
            pb::DkimAlgorithm::Unspecified => return None,
        };
        Some(Self { selector: key.selector.clone(), algorithm, public_key: key.public_key.to_vec() })
    }
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DkimAlgorithm {
    /// RFC 6376.
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

/// What a domain says of its mail and of its services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether mail from elsewhere fails SPF (`-all`) or is only suspect (`~all`).
    pub spf_fails: bool,
    /// Domains whose SPF records are included.
    pub spf_include: Vec<String>,
    /// What receivers shall do with mail that fails DMARC.
    pub dmarc: DmarcPolicy,
    /// Where reports go, as URIs; empty: `mailto:postmaster@DOMAIN`.
    pub report_to: Vec<String>,
    /// Whether senders shall insist on TLS with a certificate of the names in MX (RFC 8461).
    pub mta_sts: MtaSts,
    /// Authorities that may issue certificates for the domain; empty: it does not say.
    pub caa: Vec<String>,
    /// The port for mail programs that begin with TLS (RFC 8314); 0: there is none.
    pub submissions_port: u16,
    /// The port for mail programs that begin without (RFC 6409); 0: there is none.
    pub submission_port: u16,
    /// The port of IMAP over TLS; 0: there is none.
    pub imaps_port: u16,
    /// The port of JMAP (RFC 8620); 0: there is none.
    pub jmap_port: u16,
    /// The port of our own programs' interface.
    pub api_port: u16,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            spf_fails: false,
            spf_include: Vec::new(),
            dmarc: DmarcPolicy::None,
            report_to: Vec::new(),
            mta_sts: MtaSts::Testing,
            caa: Vec::new(),
            submissions_port: 465,
            submission_port: 587,
            imaps_port: 0,
            jmap_port: 0,
            api_port: 443,
        }
    }
}

/// RFC 9989 section 4.7, `p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DmarcPolicy {
    /// Only report.
    None,
    /// Treat as suspicious.
    Quarantine,
    /// Refuse.
    Reject,
}

/// RFC 8461 section 3.2, `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MtaSts {
    /// No policy.
    None,
    /// Only report.
    Testing,
    /// Do not deliver without.
    Enforce,
}

/// How long a sender keeps the policy. RFC 8461 section 3.2: some weeks or more.
pub const MTA_STS_AGE_MAX_S: u32 = 14 * 24 * 3600;

/// The policy file that frontends serve at `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`, of a domain whose MX records point
/// to these hosts; `None`: there is none.
pub fn mta_sts_policy<'a>(mode: MtaSts, hosts: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mode = match mode {
        MtaSts::None => return None,
        MtaSts::Testing => "testing",
        MtaSts::Enforce => "enforce",
    };
    let mut hosts: Vec<&str> = hosts.into_iter().collect();
    hosts.sort_unstable();
    let hosts: String = hosts.iter().map(|host| format!("mx: {host}\r\n")).collect();
    Some(format!("version: STSv1\r\nmode: {mode}\r\n{hosts}max_age: {MTA_STS_AGE_MAX_S}\r\n"))
}

/// The id that tells one policy from the next: of its content, so that every region says the same.
pub(crate) fn mta_sts_id(policy: &str) -> String {
    // RFC 8461 section 3.1: at most 32 letters and digits.
    sha2::Sha256::digest(policy.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_all_hosts_and_its_id_follows_its_content() {
        let policy = mta_sts_policy(MtaSts::Enforce, ["mx-b.example.org", "mx-a.example.org"]).unwrap();
        assert_eq!(
            policy,
            "version: STSv1\r\nmode: enforce\r\nmx: mx-a.example.org\r\nmx: mx-b.example.org\r\nmax_age: 1209600\r\n"
        );
        assert_eq!(mta_sts_id(&policy).len(), 32);
        assert_ne!(mta_sts_id(&policy), mta_sts_id(&mta_sts_policy(MtaSts::Testing, ["mx-a.example.org"]).unwrap()));
        assert_eq!(mta_sts_policy(MtaSts::None, []), None);
    }
}
