//! How far clients are: the kernel's round trip of each connection that is accepted, gathered by network for the region's name
//! servers (docs/adr/136-round-trips-of-accepted-connections.md).
//!
//! Invariant: a connection is never held up by it and never fails by it; what cannot be measured is not measured.
//! Deliberately absent: connections of proxies, whose round trip is not the client's; gRPC, which the binary does.

mod kernel;

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use postrider_api::pb::RecordRoundTrips;
use postrider_dns::latency::sample::Gathered;
use tokio::net::TcpStream;

use self::kernel::Kernel;

/// Measures accepted connections. Cheap to clone; the default measures nothing.
#[derive(Clone, Default)]
pub struct RoundTrips {
    measuring: Option<Arc<Measuring>>,
}

struct Measuring {
    kernel: Mutex<Kernel>,
    gathered: Mutex<Gathered>,
}

impl RoundTrips {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it does not tell this process of its sockets.
    pub fn of_kernel() -> std::io::Result<Self> {
        let kernel = Mutex::new(Kernel::open()?);
        Ok(Self { measuring: Some(Arc::new(Measuring { kernel, gathered: Mutex::default() })) })
    }

    /// Measures a connection of a client that nobody stands before.
    pub(crate) fn measure(&self, stream: &TcpStream, client: IpAddr) {
        let Some(measuring) = &self.measuring else { return };
        let count = |result: &'static str| {
            metrics::counter!("postrider_round_trips_total", "result" => result).increment(1);
        };
        let (Ok(here), Ok(there)) = (stream.local_addr(), stream.peer_addr()) else { return count("gone") };
        let asked = measuring.kernel.lock().round_trip(here, there);
        match asked {
            Ok(Some(round_trip)) => match measuring.gathered.lock().add(client, round_trip) {
                true => count("measured"),
                false => count("too many networks"),
            },
            Ok(None) => count("unknown"),
            Err(error) => {
                tracing::debug!(%error, "a round trip was not measured");
                count("gone");
            }
        }
    }

    /// Takes what was measured since it was taken last, as `region` tells it.
    pub fn take(&self, region: &str) -> Option<RecordRoundTrips> {
        self.measuring.as_ref()?.gathered.lock().take(region)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_dns::latency::prefix::Prefix;
    use postrider_dns::latency::sample::samples;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn an_accepted_connection_is_measured_by_its_network() {
        let round_trips = RoundTrips::of_kernel().unwrap();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            round_trips.measure(&stream, peer.ip());
            let told = samples(&round_trips.take("seoul").unwrap()).unwrap();
            assert_eq!((told[0].network, told[0].connections), (Prefix::of_client(peer.ip()), 1));
            assert!(told[0].round_trip.as_millis() < 1000, "{told:?}");
        }
        assert_eq!(round_trips.take("seoul"), None);
        assert_eq!(RoundTrips::default().take("seoul"), None);
    }
}
