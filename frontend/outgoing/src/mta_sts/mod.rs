//! MTA-STS (RFC 8461): a domain says by HTTPS which hosts take its mail, and that they speak TLS with a certificate of their name.
//!
//! Invariant: a policy that was fetched holds until it expires, also when it cannot be fetched again; `testing` is reported and never
//! enforced; where no policy was ever fetched there is none.
//! Invariant: the policy is fetched from an address that was looked at, without redirects, within `POLICY_BYTES_MAX` and
//! [`POLICY_FETCH`], however it is sent.

mod fetch;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;
use tokio::time::{Instant, timeout};

use crate::dns::{Dns, Domain};
use crate::limit::{POLICIES_MAX, POLICY_AGE_MAX, POLICY_FETCH, POLICY_RETRY};
use crate::route::AddressPolicy;
use crate::tls::Tls;

pub use policy::{Mode, Policy, PolicyError, record_id};

/// What is remembered of a domain.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The policy, until when it holds, and under which id of the TXT record it was fetched.
    policy: Option<(Arc<Policy>, Instant, String)>,
    /// When it is looked again.
    look_again: Option<Instant>,
}

/// The policies of all domains.
pub(crate) struct Policies {
    known: Cache<Domain, Arc<tokio::sync::Mutex<Known>>>,
    dns: Arc<dyn Dns>,
    tls: Tls,
    addresses: AddressPolicy,
    port: u16,
}

impl Policies {
    pub(crate) fn new(dns: Arc<dyn Dns>, tls: Tls, addresses: AddressPolicy, port: u16) -> Self {
        let known = Cache::builder().max_capacity(POLICIES_MAX).build();
        Self { known, dns, tls, addresses, port }
    }

    /// The policy of a domain, if there is one that holds. Whoever asks for the same domain at the same time waits for one question.
    pub(crate) async fn of(&self, domain: &Domain) -> Option<Arc<Policy>> {
        let entry = self.known.get_with_by_ref(domain, async { Arc::default() }).await;
        let mut known = entry.lock().await;
        let now = Instant::now();
        if known.look_again.is_none_or(|again| again <= now) {
            self.look(domain, &mut known).await;
            known.look_again = Some(Instant::now() + POLICY_RETRY);
        }
        let holds = known.policy.as_ref().filter(|(_, until, _)| *until > now);
        holds.map(|(policy, ..)| Arc::clone(policy)).filter(|policy| policy.mode != Mode::None)
    }

    async fn look(&self, domain: &Domain, known: &mut Known) {
        // RFC 8461 section 5.1: without a record, or with one that cannot be had, what is cached still holds.
        let id = match self.dns.txt(&format!("_mta-sts.{domain}")).await {
            Ok(answer) => record_id(&answer.records),
            Err(error) => {
                tracing::debug!(%domain, %error, "whether there is an MTA-STS policy is not known");
                None
            }
        };
        let Some(id) = id else { return };
        if known.policy.as_ref().is_some_and(|(_, until, old)| *old == id && *until > Instant::now()) {
            return;
        }
        let fetched = timeout(POLICY_FETCH, fetch::fetch(&*self.dns, &self.tls, self.addresses, self.port, domain));
        match fetched.await.unwrap_or(Err(fetch::FetchError::TimedOut)) {
            Ok(policy) => {
                metrics::counter!("postrider_outgoing_mta_sts_total", "result" => "fetched").increment(1);
                let age = Duration::from_secs(policy.max_age).min(POLICY_AGE_MAX);
                known.policy = Some((Arc::new(policy), Instant::now() + age, id));
            }
            Err(error) => {
                metrics::counter!("postrider_outgoing_mta_sts_total", "result" => "failed").increment(1);
                tracing::info!(%domain, %error, "an MTA-STS policy cannot be fetched");
            }
        }
    }
}
