//! A connection to one host: both families, the first that answers (RFC 8305).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::AddressPolicy;
use crate::dns::{Dns, DnsError, Domain, Family};
use crate::limit::{ADDRESSES_MAX, ATTEMPT_DELAY};

/// A connection, and whether DNSSEC proves that the host has this address.
#[derive(Debug)]
pub struct Reached {
    /// The connection.
    pub stream: TcpStream,
    /// The peer.
    pub peer: SocketAddr,
}

/// Why a host was not reached. All of it may be otherwise tomorrow.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// The DNS does not say.
    #[error(transparent)]
    Dns(#[from] DnsError),
    /// It has no address.
    #[error("{0} has no address")]
    NoAddress(Domain),
    /// Every address that it has is one that nothing goes to.
    #[error("{host} is at {address}, which is {what}: nothing is sent there")]
    Refused {
        /// The host.
        host: Domain,
        /// One of its addresses.
        address: IpAddr,
        /// What that is.
        what: &'static str,
    },
    /// No address took the connection.
    #[error("{host} does not answer at {address}: {why}")]
    Unreachable {
        /// The host.
        host: Domain,
        /// The address that was tried last.
        address: SocketAddr,
        /// What happened.
        why: String,
    },
}

/// Connects to `host`, from one of the `sources` where some are given for the family.
///
/// # Errors
/// When no address may be or can be connected to.
pub async fn connect(
    dns: &dyn Dns,
    host: &Domain,
    port: u16,
    policy: AddressPolicy,
    sources: &[IpAddr],
    patience: Duration,
) -> Result<Reached, ConnectError> {
    let addresses = addresses(dns, host, policy).await?;
    race(host, addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect(), sources, patience).await
}

/// The addresses that may be connected to: the families in turns, IPv6 first (RFC 8305 section 4).
async fn addresses(dns: &dyn Dns, host: &Domain, policy: AddressPolicy) -> Result<Vec<IpAddr>, ConnectError> {
    let (v6, v4) = futures::join!(dns.addresses(host, Family::V6), dns.addresses(host, Family::V4));
    let (v6, v4) = match (v6, v4) {
        (Err(error), Err(_)) => return Err(error.into()),
        // A name server that fails for AAAA is common, and no reason not to use A.
        (v6, v4) => (v6.map(|answer| answer.records), v4.map(|answer| answer.records)),
    };
    let failed = v6.as_ref().err().or(v4.as_ref().err()).cloned();
    let mut families = [v6.unwrap_or_default().into_iter(), v4.unwrap_or_default().into_iter()];
    let mut found = Vec::new();
    let mut refused = None;
    loop {
        let round: Vec<IpAddr> = families.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            break;
        }
        for address in round {
            match policy.refusal(address) {
                Some(what) => refused = Some((address, what)),
                None => found.push(address),
            }
        }
    }
    found.truncate(ADDRESSES_MAX);
    match (found.is_empty(), refused, failed) {
        (false, ..) => Ok(found),
        (true, Some((address, what)), _) => Err(ConnectError::Refused { host: host.clone(), address, what }),
        (true, None, Some(error)) => Err(error.into()),
        (true, None, None) => Err(ConnectError::NoAddress(host.clone())),
    }
}

/// One address after the other, the next as soon as one fails or [`ATTEMPT_DELAY`] is over; the first connection is taken.
async fn race(
    host: &Domain,
    mut addresses: VecDeque<SocketAddr>,
    sources: &[IpAddr],
    patience: Duration,
) -> Result<Reached, ConnectError> {
    let mut under_way = FuturesUnordered::new();
    let mut last = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            under_way.push(async move {
                let connected = match timeout(patience, dial(address, sources)).await {
                    Ok(connected) => connected.map_err(|error| error.to_string()),
                    Err(_) => Err(format!("no connection in {} s", patience.as_secs_f32())),
                };
                (address, connected)
            });
        }
        let next = Instant::now() + ATTEMPT_DELAY;
        tokio::select! {
            done = under_way.next() => match done {
                Some((peer, Ok(stream))) => return Ok(Reached { stream, peer }),
                Some((address, Err(why))) => last = Some((address, why)),
                None => {
                    let Some((address, why)) = last else { return Err(ConnectError::NoAddress(host.clone())) };
                    return Err(ConnectError::Unreachable { host: host.clone(), address, why });
                }
            },
            () = sleep_until(next), if !addresses.is_empty() => {}
        }
    }
}

async fn dial(address: SocketAddr, sources: &[IpAddr]) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let mut of_family = sources.iter().filter(|source| source.is_ipv4() == address.is_ipv4());
    if let Some(source) = of_family.next() {
        socket.bind(SocketAddr::new(*source, 0))?;
    }
    let stream = socket.connect(address).await?;
    // Commands are small and wait for their replies.
    stream.set_nodelay(true)?;
    Ok(stream)
}
