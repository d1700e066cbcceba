//! Measured round trips on their way: in from the region's frontends and from other regions' name servers, out to these.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use postrider_api::env::Clock;
use postrider_api::identity::{Caller, Role};
use postrider_api::pb::round_trip_service_server::{RoundTripService, RoundTripServiceServer};
use postrider_api::pb::{RecordRoundTrips, RoundTripReport, RoundTripsTaken};
use postrider_api::tls::{HTTP2, TlsIdentity, accept};
use postrider_dns::choice::Chooser;
use postrider_dns::latency::report::ReportError;
use postrider_dns::latency::sample::samples;
use tokio::net::TcpListener;
use tokio::time::MissedTickBehavior;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use crate::role::round_trips::NameServer;

/// Between two messages to the other regions.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Between two messages with all that is known here, for whoever lost what it was told.
const TELL_ALL_EVERY: Duration = Duration::from_secs(15 * 60);
/// What is told again, seconds: a second that was not over when it was told last, and a clock that was set back a little.
const TOLD_AGAIN_S: u64 = 5;
/// Messages of one connection that are taken in at a time.
const CALLS_MAX: usize = 4;
/// Handshakes at once.
const HANDSHAKES_MAX: usize = 16;
/// A message of the largest size, bytes: some 40 for each network.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Takes in what others tell.
pub(super) struct Exchange {
    chooser: Arc<Chooser>,
    region: String,
    clock: Arc<dyn Clock>,
}

impl Exchange {
    pub(super) fn new(chooser: Arc<Chooser>, region: String, clock: Arc<dyn Clock>) -> Self {
        Self { chooser, region, clock }
    }

    fn now_s(&self) -> u64 {
        now_s(&*self.clock)
    }
}

/// Listens; whoever connects now is served while the future is polled.
///
/// # Errors
/// When the address cannot be had, or the certificates cannot be used.
pub(super) async fn serve(
    exchange: Exchange,
    listen: SocketAddr,
    identity: &TlsIdentity,
) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen} for round trips"))?;
    let config = identity.server_config(&[HTTP2]).context("the certificate for round trips")?;
    let incoming = Box::pin(accept(listener, config, HANDSHAKES_MAX));
    let service = RoundTripServiceServer::new(exchange).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder().concurrency_limit_per_connection(CALLS_MAX).add_service(service);
    Ok(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::error!(%error, "round trips are taken in no more");
        }
    })
}

#[tonic::async_trait]
impl RoundTripService for Exchange {
    async fn record(&self, request: Request<RecordRoundTrips>) -> Result<Response<RoundTripsTaken>, Status> {
        require(&request, Role::Frontend)?;
        let record = request.into_inner();
        if record.region != self.region {
            let detail =
                format!("this name server stands in {}, and counts nothing for {}", self.region, record.region);
            return Err(Status::failed_precondition(detail));
        }
        self.chooser.record_own(&samples(&record).map_err(refused)?, self.now_s());
        count("frontend", record.networks.len());
        Ok(Response::new(RoundTripsTaken {}))
    }

    async fn merge(&self, request: Request<RoundTripReport>) -> Result<Response<RoundTripsTaken>, Status> {
        require(&request, Role::Dns)?;
        let report = request.into_inner();
        self.chooser.merge(&report, self.now_s()).map_err(refused)?;
        count("region", report.entries.len());
        Ok(Response::new(RoundTripsTaken {}))
    }
}

#[allow(clippy::result_large_err)] // tonic's own error type; every caller returns it as it is
fn require<T>(request: &Request<T>, role: Role) -> Result<(), Status> {
    let certificates = request.peer_certs();
    Caller::of(certificates.as_deref().map(Vec::as_slice)).require(&[role]).map(drop)
}

fn refused(error: ReportError) -> Status {
    Status::invalid_argument(error.to_string())
}

fn count(from: &'static str, networks: usize) {
    metrics::counter!("postrider_dns_measured_networks_total", "from" => from).increment(networks as u64);
}

fn now_s(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.wall_ms() / 1000).unwrap_or(0)
}

/// Tells the name servers of other regions what this one measured, for as long as it is polled.
pub(super) async fn tell(chooser: Arc<Chooser>, name_servers: Vec<NameServer>, clock: Arc<dyn Clock>) {
    // Each with the second up to which it was told; 0: of nothing.
    let mut others: Vec<(NameServer, u64)> = name_servers.into_iter().map(|server| (server, 0)).collect();
    let mut turns = tokio::time::interval(TELL_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told_all = clock.monotonic();
    loop {
        turns.tick().await;
        if clock.monotonic().saturating_sub(told_all) >= TELL_ALL_EVERY {
            told_all = clock.monotonic();
            others.iter_mut().for_each(|(_, since_s)| *since_s = 0);
        }
        let now_s = now_s(&*clock);
        // Most are told the same.
        let mut reports: BTreeMap<u64, Vec<RoundTripReport>> = BTreeMap::new();
        for (_, since_s) in &others {
            reports.entry(*since_s).or_insert_with(|| chooser.reports(*since_s));
        }
        let telling = others.iter_mut().map(|(server, since_s)| {
            let reports = reports.get(since_s).map(Vec::as_slice).unwrap_or_default();
            async move {
                for report in reports {
                    if !server.merge(report.clone()).await {
                        return;
                    }
                }
                *since_s = now_s.saturating_sub(TOLD_AGAIN_S);
            }
        });
        futures::future::join_all(telling).await;
    }
}
