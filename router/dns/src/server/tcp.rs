//! Connections (RFC 7766): bounded in number, in time and in what each may hold.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use std::collections::HashMap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::respond::{Responder, Transport};
use crate::latency::prefix::Prefix;

/// Connections at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 1024;
/// Of one network, a /24 or a /48.
const CONNECTIONS_PER_NETWORK_MAX: usize = 64;
/// How long a connection may be silent between questions (RFC 7766 section 6.2.3: a few seconds), and within one.
const IDLE: Duration = Duration::from_secs(10);
/// How long it may take its answer to be taken.
const WRITE: Duration = Duration::from_secs(10);
/// Questions of one connection; then it may come again.
const QUESTIONS_MAX: usize = 1000;
/// Longer questions do not exist.
const QUESTION_BYTES_MAX: usize = 4096;
/// Between two attempts to accept while the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Open connections by network.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<Prefix, usize>>);

/// A connection's place among those of its network.
struct Place {
    open: Arc<Open>,
    network: Prefix,
}

impl Open {
    fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Place> {
        let network = Prefix::of_client(client);
        let mut open = self.0.lock();
        let count = open.entry(network).or_default();
        if *count >= CONNECTIONS_PER_NETWORK_MAX {
            return None;
        }
        *count += 1;
        Some(Place { open: self.clone(), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.0.lock();
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// Serves until it is told to stop; connections that are open end with the question that they are at.
pub(crate) async fn serve(listener: TcpListener, responder: Arc<Responder>, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let open = Arc::new(Open::default());
    loop {
        let Ok(permit) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = open.enter(client.ip()) else { continue };
        let (responder, mut stop) = (responder.clone(), stop.clone());
        tokio::spawn(async move {
            let _held = (permit, place);
            tokio::select! {
                // A connection that breaks is its client's affair.
                _ = answer_all(stream, client, &responder) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        });
    }
}

async fn answer_all(mut stream: TcpStream, client: SocketAddr, responder: &Responder) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut question = Vec::new();
    for _ in 0..QUESTIONS_MAX {
        let length = match timeout(IDLE, stream.read_u16()).await {
            Ok(length) => usize::from(length?),
            Err(_) => return Ok(()),
        };
        if length > QUESTION_BYTES_MAX {
            return Ok(());
        }
        question.resize(length, 0);
        match timeout(IDLE, stream.read_exact(&mut question)).await {
            Ok(read) => read?,
            Err(_) => return Ok(()),
        };
        let Some(answer) = responder.respond(&question, client.ip(), Transport::Tcp) else { return Ok(()) };
        // An answer is made to fit.
        let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
        // In one write: some clients want length and message in one segment (RFC 7766 section 8).
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        match timeout(WRITE, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}
