//! Settings of a name server.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use postrider_dns::server::rate::ANSWERS_PER_SECOND;
use postrider_dns::zone::domain::{DmarcPolicy, MtaSts, Policy};
use postrider_frontend::rest::MailNames;
use serde::{Deserialize, Serialize};

use crate::role::ClusterConfig;

/// Settings of `postrider dns`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DnsRoleConfig {
    /// The region that it stands in.
    pub(crate) region: String,
    /// Where to listen, over UDP and TCP.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where gRPC listens, for frontends of the region that tell how far clients are and for name servers of other regions; without it
    /// round trips are not measured.
    pub(crate) round_trips_listen: Option<SocketAddr>,
    /// Where measured round trips, and what the shard map said last, are kept.
    pub(crate) data_dir: PathBuf,
    /// A secret of all name servers, for cookies; without it each makes its own at each start.
    #[serde(default)]
    pub(crate) cookie_secret_file: Option<PathBuf>,
    /// PEM files with P-256 keys (PKCS#8), the same at every name server; the first signs, all are published. None: unsigned.
    #[serde(default)]
    pub(crate) dnssec_key_files: Vec<PathBuf>,
    /// Answers of one kind to one network over UDP; 0: as many as it likes.
    #[serde(default = "answers_per_second")]
    pub(crate) answers_per_second: u32,
    /// Where counters are served over plain HTTP at /metrics; not at all when it is left out.
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// The storage nodes.
    pub(crate) cluster: ClusterConfig,
    /// What each region shows to the world; the same at every name server, in the same order.
    pub(crate) regions: Vec<RegionConfig>,
    /// What every domain says of itself, where it says nothing else.
    #[serde(default)]
    pub(crate) policy: PolicyConfig,
    /// What single domains have otherwise.
    #[serde(default)]
    pub(crate) domains: BTreeMap<String, DomainConfig>,
}

/// One region.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegionConfig {
    /// Its name in the shard map.
    pub(crate) name: String,
    /// Addresses of its frontends, as clients reach them.
    pub(crate) addresses: Vec<IpAddr>,
    /// The name that its SMTP servers say of themselves.
    pub(crate) mail_host: String,
    /// The name of its name server.
    pub(crate) ns_host: String,
    /// Addresses of its name server, as the world reaches it.
    pub(crate) ns_addresses: Vec<IpAddr>,
    /// From where it sends mail, where that is not `addresses`.
    #[serde(default)]
    pub(crate) outgoing: Vec<IpAddr>,
    /// PEM files of the certificates that `mail_host` shows on port 25, for TLSA records.
    #[serde(default)]
    pub(crate) certificate_files: Vec<PathBuf>,
    /// Its name servers' `round_trips_listen`, HOST:PORT, as the other regions reach them.
    #[serde(default)]
    pub(crate) round_trips: Vec<String>,
    /// Whether it serves: `http://HOST:PORT/PATH` (a 200), `smtp://HOST:PORT` (a 220), `tcp://HOST:PORT` (a connection). It does
    /// while, of each kind that is named, one does. None: nobody looks, and it counts as well.
    #[serde(default)]
    pub(crate) looks: Vec<String>,
}

/// What one domain has for itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DomainConfig {
    /// A file with the operator's own records, as lines of a zone file.
    pub(crate) own_records_file: Option<PathBuf>,
    /// What it says of itself otherwise than `[policy]`.
    pub(crate) policy: PolicyConfig,
}

/// What domains say of themselves; what is left out is taken from `[policy]`, and there is the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PolicyConfig {
    /// Whether mail from elsewhere fails SPF (`-all`) or is only suspect (`~all`, the default).
    spf_fails: Option<bool>,
    spf_include: Option<Vec<String>>,
    dmarc: Option<DmarcConfig>,
    /// Where reports go, as URIs.
    report_to: Option<Vec<String>>,
    mta_sts: Option<MtaStsConfig>,
    /// Who may issue certificates.
    caa: Option<Vec<String>>,
    /// Ports for mail programs; 0: it is said that there is none.
    submission_port: Option<u16>,
    submissions_port: Option<u16>,
    imaps_port: Option<u16>,
    jmap_port: Option<u16>,
    api_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DmarcConfig {
    None,
    Quarantine,
    Reject,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum MtaStsConfig {
    None,
    Testing,
    Enforce,
}

impl PolicyConfig {
    /// With the ports that frontends listen at.
    pub(crate) fn with_ports(submission: u16, submissions: u16, api: u16) -> Self {
        Self {
            submission_port: Some(submission),
            submissions_port: Some(submissions),
            api_port: Some(api),
            ..Self::default()
        }
    }

    /// What is said here, over what was said before.
    pub(crate) fn over(&self, before: Policy) -> Policy {
        let dmarc = self.dmarc.map(|policy| match policy {
            DmarcConfig::None => DmarcPolicy::None,
            DmarcConfig::Quarantine => DmarcPolicy::Quarantine,
            DmarcConfig::Reject => DmarcPolicy::Reject,
        });
        let mta_sts = self.mta_sts.map(|mode| match mode {
            MtaStsConfig::None => MtaSts::None,
            MtaStsConfig::Testing => MtaSts::Testing,
            MtaStsConfig::Enforce => MtaSts::Enforce,
        });
        Policy {
            spf_fails: self.spf_fails.unwrap_or(before.spf_fails),
            spf_include: self.spf_include.clone().unwrap_or(before.spf_include),
            dmarc: dmarc.unwrap_or(before.dmarc),
            report_to: self.report_to.clone().unwrap_or(before.report_to),
            mta_sts: mta_sts.unwrap_or(before.mta_sts),
            caa: self.caa.clone().unwrap_or(before.caa),
            submission_port: self.submission_port.unwrap_or(before.submission_port),
            submissions_port: self.submissions_port.unwrap_or(before.submissions_port),
            imaps_port: self.imaps_port.unwrap_or(before.imaps_port),
            jmap_port: self.jmap_port.unwrap_or(before.jmap_port),
            api_port: self.api_port.unwrap_or(before.api_port),
        }
    }
}

/// What the configuration in `path` has frontends tell of domains.
///
/// # Errors
/// When it is none.
pub(crate) fn mail_names(path: &Path) -> anyhow::Result<MailNames> {
    let config: DnsRoleConfig = crate::role::read(path)?;
    let policy = config.policy.over(Policy::default());
    let of = |(name, domain): (&String, &DomainConfig)| (name.clone(), domain.policy.over(policy.clone()));
    Ok(MailNames {
        domains: config.domains.iter().map(of).collect(),
        mail_hosts: config.regions.into_iter().map(|region| (region.name, region.mail_host)).collect(),
        policy,
    })
}

/// The key of cookies, of the cluster's secret.
pub(crate) fn cookie_secret(secret: &str) -> [u8; 16] {
    let derived = blake3::derive_key("postrider 2026 DNS cookies", secret.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&derived[..16]);
    key
}

fn answers_per_second() -> u32 {
    ANSWERS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_says_what_all_say_and_more() {
        let all: PolicyConfig = toml::from_str("dmarc = \"reject\"\ncaa = [\"letsencrypt.org\"]").unwrap();
        let one: PolicyConfig = toml::from_str("spf_fails = true\ndmarc = \"quarantine\"").unwrap();
        let policy = one.over(all.over(Policy::default()));
        assert_eq!((policy.dmarc, policy.spf_fails), (DmarcPolicy::Quarantine, true));
        assert_eq!(policy.caa, ["letsencrypt.org"]);
        assert!(toml::from_str::<PolicyConfig>("dmark = \"reject\"").is_err());
    }
}
