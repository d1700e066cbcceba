//! Datagrams: one thread and one socket for each core, all of them at one address (`SO_REUSEPORT`: the kernel shares out).
//!
//! A datagram is answered where it was read, without a task or a queue: an answer takes microseconds, and a queue before it
//! would only hide an overload from the kernel's own, which drops.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::respond::{Responder, Transport};

/// Longer questions do not exist; what is cut off is malformed then.
const QUESTION_BYTES_MAX: usize = 4096;
/// How long a thread may take to see that it shall end.
const STOP_SEEN_AFTER: Duration = Duration::from_millis(200);
/// Room for bursts while all threads work.
const SOCKET_BYTES: usize = 1 << 20;

pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    // The kernel gives what it may.
    let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
    socket.set_read_timeout(Some(STOP_SEEN_AFTER))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

pub(crate) fn serve(
    number: usize,
    socket: UdpSocket,
    responder: Arc<Responder>,
    stop: Arc<AtomicBool>,
) -> io::Result<JoinHandle<()>> {
    let run = move || {
        let mut buffer = [0; QUESTION_BYTES_MAX];
        while !stop.load(Ordering::Acquire) {
            match socket.recv_from(&mut buffer) {
                // Nobody is at port 0: forged.
                Ok((_, client)) if client.port() == 0 => {}
                Ok((length, client)) => {
                    if let Some(answer) = responder.respond(&buffer[..length], client.ip(), Transport::Udp) {
                        // Whoever is gone does not get it; the next question is not its fault.
                        let _ = socket.send_to(&answer, client);
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                // What an earlier answer met (a port that nobody listens at), or a signal.
                Err(error) => tracing::debug!(%error, "a datagram was not read"),
            }
        }
    };
    std::thread::Builder::new().name(format!("dns-udp-{number}")).spawn(run)
}
