//! The way to name servers with measured round trips: frontends tell those of their region, which tell those of the other regions.

use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use postrider_api::identity::DNS_TLS_NAME;
use postrider_api::pb;
use postrider_api::pb::round_trip_service_client::RoundTripServiceClient;
use postrider_api::tls::TlsIdentity;
use postrider_frontend::round_trips::RoundTrips;
use tokio::time::MissedTickBehavior;
use tonic::transport::Channel;

/// Between two messages of a frontend. What is measured is in its region's answers so much later.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// How long a name server may take to take it in.
const TELL_MAX: Duration = Duration::from_secs(5);

/// A name server that takes round trips.
#[derive(Clone)]
pub(super) struct NameServer {
    address: String,
    service: RoundTripServiceClient<Channel>,
    /// Whether the last message went through: only what changes is worth a line in the log.
    reached: bool,
}

/// Name servers by their addresses. Connects when something is to be told.
///
/// # Errors
/// When an address is none.
pub(super) fn connect(addresses: &[String], identity: &TlsIdentity) -> anyhow::Result<Vec<NameServer>> {
    let connect = |address: &String| {
        let endpoint = identity.endpoint_of(address, DNS_TLS_NAME).with_context(|| format!("{address:?}"))?;
        let service = RoundTripServiceClient::new(endpoint.timeout(TELL_MAX).connect_lazy());
        Ok(NameServer { address: address.clone(), service, reached: true })
    };
    addresses.iter().map(connect).collect()
}

/// Measures where somebody wants to know.
pub(super) fn measure(name_servers: &[NameServer]) -> RoundTrips {
    if name_servers.is_empty() {
        return RoundTrips::default();
    }
    RoundTrips::of_kernel().unwrap_or_else(|error| {
        tracing::warn!(%error, "the kernel does not tell how far clients are: nothing is measured");
        RoundTrips::default()
    })
}

/// Tells what a frontend measures, for as long as it is polled. What a name server cannot take is lost to it: more is measured all the time.
pub(super) async fn tell(round_trips: RoundTrips, region: String, mut name_servers: Vec<NameServer>) {
    let mut turns = tokio::time::interval(TELL_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        if let Some(record) = round_trips.take(&region) {
            join_all(name_servers.iter_mut().map(|server| server.record(record.clone()))).await;
        }
    }
}

impl NameServer {
    async fn record(&mut self, record: pb::RecordRoundTrips) {
        let told = self.service.record(record).await.map(drop);
        self.note(&told);
    }

    /// Tells what another region is to know. Returns whether it was taken in.
    pub(super) async fn merge(&mut self, report: pb::RoundTripReport) -> bool {
        let told = self.service.merge(report).await.map(drop);
        self.note(&told);
        told.is_ok()
    }

    fn note(&mut self, told: &Result<(), tonic::Status>) {
        match told {
            Ok(()) if !self.reached => {
                tracing::info!(name_server = self.address, "the name server takes round trips again")
            }
            Err(status) if self.reached => {
                tracing::warn!(name_server = self.address, %status, "the name server takes no round trips");
            }
            _ => {}
        }
        self.reached = told.is_ok();
    }
}
