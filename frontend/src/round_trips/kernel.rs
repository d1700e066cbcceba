//! The kernel's word on a connection, by `sock_diag(7)`: the same figures as `TCP_INFO`, without a call that Rust cannot check.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as KernelAddr};

/// An answer about one socket, bytes: some 400 with all that newer kernels add.
const ANSWER_BYTES_MAX: usize = 8192;
/// `tcpi_rtt` in `struct tcp_info` (linux/tcp.h): behind eight bytes and fifteen words, since Linux 2.4 and for good.
const ROUND_TRIP_AT: usize = 8 + 15 * 4;
/// Any socket, whichever it is by its number (`INET_DIAG_NOCOOKIE`).
const ANY_COOKIE: [u8; 8] = [0xff; 8];
/// Answers to questions before this one that are passed over: there is one at most, of a question whose answer could not be read.
const ANSWERS_MAX: usize = 4;

/// A socket that the kernel answers on.
pub(super) struct Kernel {
    socket: Socket,
    asked: u32,
    answer: Vec<u8>,
}

impl Kernel {
    /// # Errors
    /// When there is no such socket to be had: another system, or one that is locked down.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&KernelAddr::new(0, 0))?;
        // The answer is there when sending returns: nobody waits.
        socket.set_non_blocking(true)?;
        Ok(Self { socket, asked: 0, answer: vec![0; ANSWER_BYTES_MAX] })
    }

    /// The smoothed round trip of the connection between two addresses; `None`: the kernel has none, as of a connection that began
    /// with a SYN cookie.
    ///
    /// # Errors
    /// When there is no such connection any more, or the answer cannot be read.
    pub(super) fn round_trip(&mut self, here: SocketAddr, there: SocketAddr) -> io::Result<Option<Duration>> {
        self.asked = self.asked.wrapping_add(1);
        self.socket.send(&question(self.asked, here, there), 0)?;
        for _ in 0..ANSWERS_MAX {
            let length = self.socket.recv(&mut &mut self.answer[..], 0)?;
            let bytes = self.answer.get(..length).unwrap_or_default();
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(bytes).map_err(unreadable)?;
            if message.header.sequence_number == self.asked {
                return read(message.payload);
            }
        }
        Err(unreadable("other answers than to what was asked"))
    }
}

fn question(number: u32, here: SocketAddr, there: SocketAddr) -> Vec<u8> {
    // A socket that takes both families is one of IPv6 to the kernel, and its addresses are.
    let family = if here.is_ipv4() { AF_INET } else { AF_INET6 };
    let socket_id = SocketId {
        source_port: here.port(),
        destination_port: there.port(),
        source_address: here.ip(),
        destination_address: match (here.ip(), there.ip()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) => v4.to_ipv6_mapped().into(),
            (_, other) => other,
        },
        interface_id: match here {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        },
        cookie: ANY_COOKIE,
    };
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::all(),
        socket_id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn read(payload: NetlinkPayload<SockDiagMessage>) -> io::Result<Option<Duration>> {
    match payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(answer)) => {
            let info = answer.nlas.iter().find_map(|nla| match nla {
                Nla::TcpInfo(info) => Some(info),
                _ => None,
            });
            let figure = info.and_then(|info| info.get(ROUND_TRIP_AT..ROUND_TRIP_AT + 4));
            let micros = figure.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
            Ok((micros > 0).then(|| Duration::from_micros(micros.into())))
        }
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(unreadable("neither an answer nor an error")),
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
