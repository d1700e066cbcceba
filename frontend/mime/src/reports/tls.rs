//! TLS-RPT (RFC 8460 section 4.4): how many sessions with a domain's hosts were secure, and why others were not.

use serde::Deserialize;

use super::word;

/// Policies of one report that are looked at.
const POLICIES_MAX: usize = 1000;
/// Kinds of failures of one policy that are looked at.
const FAILURES_MAX: usize = 1000;

/// How TLS went with the hosts of our domains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsReport {
    /// Who tells it.
    pub organization: String,
    /// The report's own id.
    pub id: String,
    /// The domains that it is about, each with its counts.
    pub domains: Vec<TlsCounts>,
}

/// Sessions with the hosts of one domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsCounts {
    /// In lower case.
    pub domain: String,
    /// Those that were secure.
    pub successes: u64,
    /// Those that were not.
    pub failures: u64,
    /// Why.
    pub reasons: Vec<TlsFailure>,
}

/// Why sessions were not secure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFailure {
    /// `certificate-expired` and so on (RFC 8460 section 4.3).
    pub result: String,
    /// Of our hosts that it was with.
    pub host: String,
    /// How many.
    pub sessions: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    #[serde(default)]
    organization_name: String,
    #[serde(default)]
    report_id: String,
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Policy {
    policy: Named,
    #[serde(default)]
    summary: Summary,
    #[serde(default)]
    failure_details: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Named {
    policy_domain: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    #[serde(default)]
    total_successful_session_count: u64,
    #[serde(default)]
    total_failure_session_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Failure {
    result_type: String,
    #[serde(default)]
    receiving_mx_hostname: String,
    #[serde(default)]
    failed_session_count: u64,
}

/// `None` of what is no report.
pub(super) fn read(json: &[u8]) -> Option<TlsReport> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    // serde_json bounds its depth.
    let report: Report = serde_json::from_slice(json).ok()?;
    let counts = |policy: Policy| TlsCounts {
        domain: word(&policy.policy.policy_domain).to_ascii_lowercase(),
        successes: policy.summary.total_successful_session_count,
        failures: policy.summary.total_failure_session_count,
        reasons: policy.failure_details.into_iter().take(FAILURES_MAX).map(failure).collect(),
    };
    Some(TlsReport {
        organization: word(&report.organization_name),
        id: word(&report.report_id),
        domains: report.policies.into_iter().take(POLICIES_MAX).map(counts).collect(),
    })
}

fn failure(failure: Failure) -> TlsFailure {
    TlsFailure {
        result: word(&failure.result_type).to_ascii_lowercase(),
        host: word(&failure.receiving_mx_hostname).to_ascii_lowercase(),
        sessions: failure.failed_session_count,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// After the example of RFC 8460, appendix B, with names of our own.
    pub(crate) const JSON: &str = r#"{
        "organization-name": "Far Inc.",
        "date-range": {"start-datetime": "2026-11-29T00:00:00Z", "end-datetime": "2026-11-29T23:59:59Z"},
        "contact-info": "sts-reporting@far.example",
        "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
        "policies": [{
            "policy": {"policy-type": "sts", "policy-string": ["version: STSv1"], "policy-domain": "Near.example", "mx-host": ["mx.near.example"]},
            "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 303},
            "failure-details": [
                {"result-type": "certificate-expired", "sending-mta-ip": "2001:db8::1", "receiving-mx-hostname": "mx1.near.example", "failed-session-count": 100},
                {"result-type": "starttls-not-supported", "failed-session-count": 203, "additional-information": "https://far.example/"}
            ]
        }]
    }"#;

    #[test]
    fn a_report_is_read() {
        let report = read(JSON.as_bytes()).unwrap();
        assert_eq!((report.organization.as_str(), report.domains.len()), ("Far Inc.", 1));
        let counts = &report.domains[0];
        assert_eq!((counts.domain.as_str(), counts.successes, counts.failures), ("near.example", 5326, 303));
        assert_eq!((counts.reasons[0].result.as_str(), counts.reasons[0].sessions), ("certificate-expired", 100));
        assert_eq!(counts.reasons[0].host, "mx1.near.example");
        for none in ["", "{}", "[]", r#"{"policies": 7}"#, r#"{"policies": [{}]}"#] {
            assert_eq!(read(none.as_bytes()), None, "{none}");
        }
        assert_eq!(read("[".repeat(1_000_000).as_bytes()), None);
    }
}
