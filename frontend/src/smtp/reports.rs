//! Reports on our domains' mail (TLS-RPT, DMARC) that come to whoever answers for a domain: summed up in counters, beside being filed like
//! other mail.
//!
//! Anybody can write such a report, so nothing follows from one. What it counts for is bounded: labels are words of the standards, and the
//! same report counts once.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use postrider_api::pb;
use postrider_mime::reports::{DmarcReport, DomainReport, TlsReport, domain_reports, may_be_report};
use tokio::sync::Semaphore;

use super::envelope::Recipient;
use super::view::Views;

/// Whom reports are sent to: what `postrider dns` publishes unless it is told otherwise, and what others do.
const MAILBOXES: [&str; 6] = ["postmaster", "dmarc", "dmarc-reports", "tlsrpt", "tls-reports", "abuse"];
/// Messages that are read at once: each may unpack a few megabytes.
const AT_ONCE_MAX: usize = 2;
/// Messages that wait for that; of more, reports are not counted.
const WAITING_MAX: usize = 64;
/// Reports that are remembered, and for how long: senders try again for days.
const REMEMBERED_MAX: u64 = 100_000;
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Why TLS failed (RFC 8460 section 4.3); anything else counts as `other`.
const TLS_RESULTS: [&str; 12] = [
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
    "other",
];
const DISPOSITIONS: [&str; 4] = ["none", "quarantine", "reject", "other"];

/// Counts what reports say.
pub(super) struct Reports {
    views: Arc<Views>,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    seen: Cache<[u8; 32], ()>,
}

impl Reports {
    pub(super) fn new(views: Arc<Views>) -> Self {
        Self {
            views,
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            seen: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED).build(),
        }
    }

    /// Reads a message that came in, in its own time, where it may be one of reports.
    pub(super) fn look_at(self: &Arc<Self>, recipients: &[Recipient], raw: &Bytes, message: &pb::NewMessage) {
        let is_for_reports = |recipient: &Recipient| MAILBOXES.contains(&recipient.address.local_part());
        let may_be = message.parts.iter().any(|part| may_be_report(&part.content_type, &part.filename));
        if !may_be || !recipients.iter().any(is_for_reports) {
            return;
        }
        let Ok(waiting) = Arc::clone(&self.waiting).try_acquire_owned() else {
            metrics::counter!("postrider_domain_reports_total", "kind" => "skipped").increment(1);
            return;
        };
        let (reports, raw) = (Arc::clone(self), raw.clone());
        tokio::spawn(async move {
            let Ok(_turn) = reports.turns.acquire().await else { return };
            let read = tokio::task::spawn_blocking(move || domain_reports(&raw)).await.unwrap_or_default();
            read.into_iter().for_each(|report| reports.count(report));
            drop(waiting);
        });
    }

    fn count(&self, report: DomainReport) {
        let (kind, organization, id) = match &report {
            DomainReport::Tls(report) => ("tls", &report.organization, &report.id),
            DomainReport::Dmarc(report) => ("dmarc", &report.organization, &report.id),
        };
        let name = blake3::hash(format!("{kind}\0{organization}\0{id}").as_bytes());
        if self.seen.get(name.as_bytes()).is_some() {
            return;
        }
        self.seen.insert(*name.as_bytes(), ());
        metrics::counter!("postrider_domain_reports_total", "kind" => kind).increment(1);
        match report {
            DomainReport::Tls(report) => self.count_tls(&report),
            DomainReport::Dmarc(report) => self.count_dmarc(&report),
        }
    }

    fn count_tls(&self, report: &TlsReport) {
        let view = self.views.newest();
        for counts in report.domains.iter().filter(|counts| view.has_domain(&counts.domain)) {
            let sessions = |result, number| {
                metrics::counter!("postrider_tlsrpt_sessions_total", "result" => result).increment(number);
            };
            sessions("success", counts.successes);
            sessions("failure", counts.failures);
            for failure in &counts.reasons {
                let result = known(&TLS_RESULTS, &failure.result);
                metrics::counter!("postrider_tlsrpt_failures_total", "type" => result).increment(failure.sessions);
            }
        }
    }

    fn count_dmarc(&self, report: &DmarcReport) {
        if !self.views.newest().has_domain(&report.domain) {
            return;
        }
        for row in &report.rows {
            let passed = |passed| if passed { "pass" } else { "fail" };
            let disposition = known(&DISPOSITIONS, &row.disposition);
            let (dkim, spf) = (passed(row.dkim), passed(row.spf));
            metrics::counter!("postrider_dmarc_messages_total", "disposition" => disposition, "dkim" => dkim, "spf" => spf)
                .increment(row.count);
        }
    }
}

/// A word of the list, of which the last stands for all others.
fn known<const N: usize>(words: &[&'static str; N], word: &str) -> &'static str {
    words.iter().find(|known| **known == word).unwrap_or(&words[N - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_that_are_known() {
        assert_eq!(known(&TLS_RESULTS, "certificate-expired"), "certificate-expired");
        assert_eq!(known(&TLS_RESULTS, "made up"), "other");
        assert_eq!(known(&DISPOSITIONS, ""), "other");
    }
}
