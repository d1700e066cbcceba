//! Certificates of public authorities, by ACME (RFC 8555).
//!
//! What is wanted, who orders and what was issued stands in placement, and comes to every frontend and name server with the shard map.
//! So one frontend orders, the answer to a challenge is given by whoever is asked, and all show what was issued ([`shown`]).
//!
//! Invariant: a private key leaves the process that made it sealed only.
//! Deliberately absent: renewal information (RFC 9773), external account bindings.

mod client;
mod order;
pub mod shown;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::env::{Clock, Entropy, SystemClock, SystemEntropy, random};
use postrider_api::id::{RequestId, ShardId};
use postrider_api::pb::{self, PublicCertificate, Refusal, command::Op, outcome};
use postrider_outgoing::seal::{SealError, Sealer};
use postrider_router::RouteError;
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::rest::ClusterSecret;
use crate::rest::acme_challenges::ChallengeServer;

/// How long an order may take altogether.
const ORDER_MAX: Duration = Duration::from_secs(8 * 60);
/// For how long the orders are claimed: longer than one takes, its failure recorded.
const CLAIM_MS: i64 = 10 * 60 * 1000;
/// How long placement may take for one command.
const PLACEMENT_MAX: Duration = Duration::from_secs(10);
/// How long what was recorded may take to come back with the shard map.
const MAP_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether something is due, beside at each change of the map.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long nothing is tried after something that could not even be recorded.
const PAUSE: Duration = Duration::from_secs(10);
/// The same after a claim that another was granted.
const CLAIM_PAUSE: Duration = Duration::from_secs(1);
/// What is recorded of a failure, bytes.
const FAILURE_BYTES_MAX: usize = 1000;

/// With whom certificates are ordered.
#[derive(Debug, Clone)]
pub struct AcmeSettings {
    /// The authority's directory, an https URL.
    pub directory: String,
    /// Where it reaches the operator: `mailto:` URLs.
    pub contacts: Vec<String>,
    /// Authorities that the directory's own certificate is verified by, beside the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// Where this frontend stands: whoever looks is told.
    pub region: String,
}

/// Why an order came to nothing.
#[derive(Debug, Error)]
pub enum OrderError {
    /// The authority refused, or could not be reached.
    #[error("the authority: {0}")]
    Acme(#[from] instant_acme::Error),
    /// The authority did not find what it looked for.
    #[error("not proved: {0}")]
    Unproved(String),
    /// What it issued is not what was ordered.
    #[error("what was issued cannot be used: {0}")]
    Unfit(String),
    /// What was recorded before does not open.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// Placement could not be asked.
    #[error("placement: {0}")]
    Route(#[from] RouteError),
    /// Placement refused: mostly the certificate is wanted no more.
    #[error("placement: {0}")]
    Refused(String),
    /// What was recorded did not come back in time.
    #[error("the shard map does not follow")]
    MapBehind,
    /// [`ORDER_MAX`] is over.
    #[error("it was not done within {} s", ORDER_MAX.as_secs())]
    TooLong,
}

/// Seals what is kept in placement for frontends to open.
pub fn sealer(secret: &ClusterSecret) -> Sealer {
    Sealer::new("postrider 2026 certificate private keys", &secret.key("postrider 2026 certificates"))
}

/// What runs beside a frontend's protocols: it orders what is due, and answers the authority over plain HTTP.
pub struct Service {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Service {
    /// Listens where it is told to, and orders where there is somebody to order from.
    ///
    /// # Errors
    /// When it cannot be listened there.
    pub async fn start(
        http_listen: Option<SocketAddr>,
        authority: Option<AcmeSettings>,
        cluster: &Arc<dyn Cluster>,
        secret: &ClusterSecret,
    ) -> std::io::Result<Self> {
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        if let Some(listen) = http_listen {
            tasks.spawn(ChallengeServer::bind(listen, Arc::clone(cluster)).await?.run(stop.clone()));
        }
        if let Some(settings) = authority {
            let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
            let orders = Orders { settings, cluster: Arc::clone(cluster), sealer: sealer(secret), clock, entropy };
            tasks.spawn(orders.run(stop.clone()));
        }
        Ok(Self { stop, tasks })
    }

    /// An order that is under way is given up: another frontend begins it anew.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.join_all().await;
    }
}

/// Orders what is wanted and due.
struct Orders {
    settings: AcmeSettings,
    cluster: Arc<dyn Cluster>,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Next<'m> {
    Order(&'m PublicCertificate),
    Wait(Duration),
}

impl Orders {
    async fn run(self, stop: CancellationToken) {
        let mut changes = self.cluster.map_changes();
        loop {
            let map = changes.borrow_and_update().clone();
            let waiting = match next(&map, self.clock.wall_ms()) {
                Next::Wait(waiting) => waiting,
                Next::Order(certificate) => {
                    let ordered = tokio::select! {
                        ordered = self.order_claimed(&certificate.name) => ordered,
                        () = stop.cancelled() => return,
                    };
                    let Err(error) = ordered else { continue };
                    tracing::warn!(certificate = certificate.name, %error, "an order could not be recorded");
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => continue,
                        () = stop.cancelled() => return,
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep(waiting) => {}
                changed = changes.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    /// Claims the orders, and orders this certificate if it is still due. An error says that even this could not be recorded. A map
    /// without the claim has what was recorded under it, so that nothing is ordered twice.
    async fn order_claimed(&self, name: &str) -> Result<(), OrderError> {
        let holder = Bytes::copy_from_slice(&random::<16>(&*self.entropy));
        let claim = |claim_ms| {
            let region = self.settings.region.clone();
            Op::ClaimOrders(pb::ClaimOrders { holder: holder.clone(), region, claim_ms })
        };
        if !self.propose(claim(CLAIM_MS)).await? {
            // Another frontend was first: the map is about to tell, and then when it is done.
            tokio::time::sleep(CLAIM_PAUSE).await;
            return Ok(());
        }
        let ordered = self.order_held(name, &holder).await;
        // Without it the others wait until the claim is over, and no longer.
        if let Err(error) = self.propose(claim(0)).await {
            tracing::warn!(%error, "the claim to order certificates is not given back");
        }
        ordered
    }

    async fn order_held(&self, name: &str, holder: &Bytes) -> Result<(), OrderError> {
        // Whatever an order before this one has recorded is in a map that knows this claim.
        self.until(|map| claim(map).is_some_and(|claim| claim.holder == *holder)).await?;
        let map = self.cluster.map();
        let now_ms = self.clock.wall_ms();
        let due = map.public_certificates.iter().find(|known| known.name == name && is_due(known, now_ms));
        let Some(certificate) = due else { return Ok(()) };
        tracing::info!(certificate = name, names = ?certificate.names, "a certificate is ordered");
        let ordering = tokio::time::timeout(ORDER_MAX, self.order(certificate, holder));
        let failure = match ordering.await.unwrap_or(Err(OrderError::TooLong)) {
            Ok(()) => {
                metrics::counter!("postrider_public_certificate_orders_total", "result" => "issued").increment(1);
                tracing::info!(certificate = name, "a certificate was issued");
                return Ok(());
            }
            Err(error) => error,
        };
        metrics::counter!("postrider_public_certificate_orders_total", "result" => "failed").increment(1);
        tracing::error!(certificate = name, error = %failure, "a certificate was not issued");
        let text = shortened(&failure.to_string());
        let record = pb::RecordOrder {
            holder: holder.clone(),
            name: name.to_owned(),
            failure: text,
            ..pb::RecordOrder::default()
        };
        self.record(Op::RecordOrder(record)).await
    }

    /// Whether it was done; `false`: it conflicts with what another does.
    async fn propose(&self, op: Op) -> Result<bool, OrderError> {
        let command = pb::Command {
            request: RequestId(random(&*self.entropy)).to_bytes(),
            op: Some(op),
            ..pb::Command::default()
        };
        let outcome = self.cluster.propose(ShardId::PLACEMENT, None, command, PLACEMENT_MAX).await?;
        match outcome.result {
            Some(outcome::Result::Done(_)) => Ok(true),
            Some(outcome::Result::Refused(refused)) if refused.refusal() == Refusal::Conflict => Ok(false),
            Some(outcome::Result::Refused(refused)) => Err(OrderError::Refused(refused.detail)),
            _ => Err(OrderError::Refused("an outcome of another kind".to_owned())),
        }
    }

    /// Under the claim that is held.
    async fn record(&self, op: Op) -> Result<(), OrderError> {
        match self.propose(op).await? {
            true => Ok(()),
            false => Err(OrderError::Refused("the claim is lost, or the certificate is wanted no more".to_owned())),
        }
    }

    /// Waits for a map of which this is true.
    async fn until(&self, is_so: impl Fn(&pb::ShardMap) -> bool) -> Result<(), OrderError> {
        let mut changes: watch::Receiver<Arc<pb::ShardMap>> = self.cluster.map_changes();
        let waiting = tokio::time::timeout(MAP_MAX, changes.wait_for(|map| is_so(map)));
        match waiting.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(OrderError::MapBehind),
        }
    }
}

fn claim(map: &pb::ShardMap) -> Option<&pb::OrderClaim> {
    map.acme.as_ref()?.claim.as_ref()
}

/// When a certificate is to be ordered, milliseconds since the Unix epoch: once a third of its life is left, as authorities advise.
fn due_ms(certificate: &PublicCertificate) -> i64 {
    let is_wish_fulfilled = !certificate.chain.is_empty() && certificate.issued_for_ms == certificate.wanted_ms;
    let due = match is_wish_fulfilled {
        true => certificate.expires_ms - (certificate.expires_ms - certificate.begins_ms) / 3,
        false => 0,
    };
    due.max(certificate.retry_ms)
}

fn is_due(certificate: &PublicCertificate, now_ms: i64) -> bool {
    due_ms(certificate) <= now_ms
}

fn next(map: &pb::ShardMap, now_ms: i64) -> Next<'_> {
    let until = |ms: i64| Duration::from_millis(u64::try_from(ms - now_ms).unwrap_or(0)).min(LOOK_EVERY);
    match map.public_certificates.iter().min_by_key(|certificate| due_ms(certificate)) {
        None => Next::Wait(LOOK_EVERY),
        Some(first) if !is_due(first, now_ms) => Next::Wait(until(due_ms(first))),
        Some(first) => match claim(map).filter(|claim| claim.until_ms > now_ms) {
            Some(claim) => Next::Wait(until(claim.until_ms)),
            None => Next::Order(first),
        },
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(FAILURE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * 60 * 60 * 1000;

    fn certificate(name: &str) -> PublicCertificate {
        PublicCertificate { name: name.into(), wanted_ms: 5, ..PublicCertificate::default() }
    }

    fn issued(name: &str) -> PublicCertificate {
        let chain = Bytes::from_static(b"chain");
        PublicCertificate { chain, issued_for_ms: 5, begins_ms: 0, expires_ms: 90 * DAY_MS, ..certificate(name) }
    }

    fn map(public_certificates: Vec<PublicCertificate>) -> pb::ShardMap {
        pb::ShardMap { public_certificates, ..pb::ShardMap::default() }
    }

    #[test]
    fn what_is_new_or_other_or_has_a_third_of_its_life_left_is_ordered() {
        let now = 59 * DAY_MS;
        assert_eq!(next(&map(vec![]), now), Next::Wait(LOOK_EVERY));
        assert_eq!(next(&map(vec![issued("a.example")]), now), Next::Wait(LOOK_EVERY));
        let soon = 60 * DAY_MS - 1000;
        assert_eq!(next(&map(vec![issued("a.example")]), soon), Next::Wait(Duration::from_secs(1)));
        assert_eq!(next(&map(vec![issued("a.example")]), 60 * DAY_MS), Next::Order(&issued("a.example")));
        let new = map(vec![issued("a.example"), certificate("b.example")]);
        assert_eq!(next(&new, now), Next::Order(&certificate("b.example")));
        let other = PublicCertificate { wanted_ms: 6, ..issued("a.example") };
        assert_eq!(next(&map(vec![other.clone()]), now), Next::Order(&other));
    }

    #[test]
    fn a_failure_waits_and_so_do_those_who_do_not_order() {
        let failed = PublicCertificate { retry_ms: 12_000, ..certificate("a.example") };
        assert_eq!(next(&map(vec![failed.clone()]), 10_000), Next::Wait(Duration::from_secs(2)));
        let mut claimed = map(vec![certificate("a.example")]);
        let claim = pb::OrderClaim { until_ms: 15_000, ..pb::OrderClaim::default() };
        claimed.acme = Some(pb::AcmeRecord { claim: Some(claim), ..pb::AcmeRecord::default() });
        assert_eq!(next(&claimed, 10_000), Next::Wait(Duration::from_secs(5)));
        assert_eq!(next(&claimed, 15_000), Next::Order(&certificate("a.example")), "whoever claimed it is gone");
    }

    #[test]
    fn what_is_said_of_a_failure_is_cut_between_letters() {
        assert_eq!(shortened(&"ü".repeat(600)).chars().count(), 500);
        assert_eq!(shortened("short"), "short");
    }
}
