//! The header of the PROXY protocol, version 2 (section 2.2 of its specification).
//!
//! ```text
//!  12 bytes   signature: no beginning of any protocol that stands behind
//!   1 byte    version (4 bits), command (4 bits): LOCAL or PROXY
//!   1 byte    address family (4 bits), transport (4 bits)
//!   2 bytes   length of what follows, big-endian
//!             addresses and ports of source and destination, by family; then TLVs, which are passed over
//! ```
//!
//! Invariant: exactly the header is read, and what is none is refused at its first byte that shows it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What stands in front.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What stands before the addresses, bytes.
pub const FIXED_BYTES: usize = 16;
/// Addresses and TLVs, bytes. Those of today's proxies are below a kilobyte; a client's certificate name makes them longer.
pub const REST_BYTES_MAX: usize = 4096;
/// What a header of version 1 begins with.
const VERSION_1: &[u8] = b"PROXY ";

/// Whom a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// This client's.
    Client(SocketAddr),
    /// The proxy speaks for itself, or does not say for whom.
    Itself,
}

/// Why a connection has no valid header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// It begins with something else.
    #[error("it does not begin with a PROXY protocol header")]
    Missing,
    /// It begins with a header of version 1.
    #[error("its PROXY protocol header is of version 1; version 2 is spoken here")]
    Version1,
    /// The version is not 2.
    #[error("its PROXY protocol header is of version {0}; version 2 is spoken here")]
    Version(u8),
    /// Neither LOCAL nor PROXY.
    #[error("its PROXY protocol header has the unknown command {0}")]
    Command(u8),
    /// A family or a transport that does not exist, or is not of a stream.
    #[error("its PROXY protocol header has the address family {0:#04x}, which is not one of streams")]
    Family(u8),
    /// Shorter than its addresses.
    #[error("its PROXY protocol header has {bytes} bytes where its addresses take {wanted}")]
    Short {
        /// What it has.
        bytes: usize,
        /// What its family takes.
        wanted: usize,
    },
    /// Longer than [`REST_BYTES_MAX`].
    #[error("its PROXY protocol header has {0} bytes; at most {REST_BYTES_MAX} are read")]
    Long(usize),
    /// It did not come in time.
    #[error("its PROXY protocol header did not come in time")]
    Late,
    /// The connection ended or broke.
    #[error("its PROXY protocol header did not come: {0}")]
    Broken(#[from] io::Error),
}

/// What the fixed part says of the rest.
struct Fixed {
    is_local: bool,
    family: u8,
    rest: usize,
}

/// Reads the header and nothing behind it.
///
/// # Errors
/// See [`HeaderError`]. What was read is lost: the connection cannot go on.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Header, HeaderError> {
    let mut bytes = [0; FIXED_BYTES];
    let mut filled = 0;
    while filled < FIXED_BYTES {
        let read = stream.read(&mut bytes[filled..]).await?;
        if read == 0 {
            return Err(HeaderError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        filled += read;
        check_beginning(&bytes[..filled])?;
    }
    let fixed = fixed(&bytes)?;
    let mut rest = vec![0; fixed.rest];
    stream.read_exact(&mut rest).await?;
    addresses(&fixed, &rest)
}

/// The header that `bytes` begin with, and its length.
///
/// # Errors
/// See [`HeaderError`]; [`HeaderError::Broken`] when there is not all of it.
pub fn parse(bytes: &[u8]) -> Result<(Header, usize), HeaderError> {
    let end = || HeaderError::Broken(io::ErrorKind::UnexpectedEof.into());
    check_beginning(&bytes[..bytes.len().min(FIXED_BYTES)])?;
    let (head, rest) = bytes.split_first_chunk().ok_or_else(end)?;
    let fixed = fixed(head)?;
    let rest = rest.get(..fixed.rest).ok_or_else(end)?;
    Ok((addresses(&fixed, rest)?, FIXED_BYTES + rest.len()))
}

/// Whether a header may begin like this.
fn check_beginning(bytes: &[u8]) -> Result<(), HeaderError> {
    let same = |expected: &[u8]| bytes.iter().zip(expected).all(|(byte, expected)| byte == expected);
    if same(&SIGNATURE) {
        return Ok(());
    }
    match same(VERSION_1) {
        // Only its whole first word tells it from any other protocol.
        true if bytes.len() < VERSION_1.len() => Ok(()),
        true => Err(HeaderError::Version1),
        false => Err(HeaderError::Missing),
    }
}

fn fixed(bytes: &[u8; FIXED_BYTES]) -> Result<Fixed, HeaderError> {
    let [.., version_and_command, family, high, low] = *bytes;
    let (version, command) = (version_and_command >> 4, version_and_command & 0x0f);
    if version != 2 {
        return Err(HeaderError::Version(version));
    }
    let is_local = match command {
        0 => true,
        1 => false,
        command => return Err(HeaderError::Command(command)),
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > REST_BYTES_MAX {
        return Err(HeaderError::Long(rest));
    }
    Ok(Fixed { is_local, family, rest })
}

fn addresses(fixed: &Fixed, rest: &[u8]) -> Result<Header, HeaderError> {
    if fixed.is_local {
        // "The receiver must … discard the protocol block including the family which is ignored."
        return Ok(Header::Itself);
    }
    let block = |wanted| rest.get(..wanted).ok_or(HeaderError::Short { bytes: rest.len(), wanted });
    let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    match fixed.family {
        // Not told.
        0x00 => Ok(Header::Itself),
        // TCP over IPv4: two addresses of 4 bytes, two ports.
        0x11 => {
            let block = block(12)?;
            let source = Ipv4Addr::from([block[0], block[1], block[2], block[3]]);
            Ok(Header::Client(SocketAddr::from((source, port(&block[8..])))))
        }
        // TCP over IPv6: two addresses of 16 bytes, two ports.
        0x21 => {
            let block = block(36)?;
            let source = Ipv6Addr::from_bits(number(&block[..16]));
            Ok(Header::Client(SocketAddr::from((source, port(&block[32..])))))
        }
        // A stream of the proxy's own machine: two paths of 108 bytes, and no address.
        0x31 => block(216).map(|_| Header::Itself),
        family => Err(HeaderError::Family(family)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([version_and_command, family]);
        bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0, 25];
    const TLV: &[u8] = &[0x02, 0x00, 0x03, b'm', b'x', b'1', 0x04, 0x00, 0x00];

    fn parsed(bytes: &[u8]) -> Result<Header, String> {
        parse(bytes).map(|(header, _)| header).map_err(|error| error.to_string())
    }

    #[test]
    fn the_client_is_who_the_proxy_says() {
        let client = |text: &str| Ok(Header::Client(text.parse().unwrap()));
        assert_eq!(parsed(&header(0x21, 0x11, &V4)), client("192.0.2.7:12345"));
        assert_eq!(
            parsed(&header(0x21, 0x11, &[&V4, TLV].concat())),
            client("192.0.2.7:12345"),
            "TLVs are passed over"
        );
        let source: Ipv6Addr = "2001:db8::9".parse().unwrap();
        let v6 = [&source.octets()[..], &[0; 16], &[0, 80, 0, 25]].concat();
        assert_eq!(parsed(&header(0x21, 0x21, &v6)), client("[2001:db8::9]:80"));
        for itself in [
            header(0x20, 0x00, &[]),
            header(0x20, 0x11, &V4),
            header(0x20, 0xff, TLV),
            header(0x21, 0x00, TLV),
            header(0x21, 0x31, &[b'/'; 216]),
        ] {
            assert_eq!(parsed(&itself), Ok(Header::Itself));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = |bytes: &[u8]| parse(bytes).unwrap_err();
        assert!(matches!(error(b"EHLO"), HeaderError::Missing));
        assert!(matches!(error(b"\x16\x03\x01"), HeaderError::Missing));
        assert!(matches!(error(b"PROXX TCP4"), HeaderError::Missing));
        assert!(matches!(error(b"PROXY TCP4 192.0.2.7"), HeaderError::Version1));
        assert!(matches!(error(b"PRO"), HeaderError::Broken(_)));
        assert!(matches!(error(&header(0x11, 0x11, &V4)), HeaderError::Version(1)));
        assert!(matches!(error(&header(0x22, 0x11, &V4)), HeaderError::Command(2)));
        for family in [0x10, 0x12, 0x22, 0x32, 0x41, 0x01] {
            assert!(matches!(error(&header(0x21, family, &[0; 216])), HeaderError::Family(_)), "{family:#x}");
        }
        assert!(matches!(error(&header(0x21, 0x11, &V4[..11])), HeaderError::Short { bytes: 11, wanted: 12 }));
        assert!(matches!(error(&header(0x21, 0x21, &[0; 35])), HeaderError::Short { bytes: 35, wanted: 36 }));
        assert!(matches!(error(&header(0x21, 0x11, &[0; REST_BYTES_MAX + 1])), HeaderError::Long(_)));
        assert!(parse(&header(0x21, 0x11, &[0; REST_BYTES_MAX])).is_ok());
    }

    #[tokio::test]
    async fn exactly_the_header_is_read() {
        let bytes = [header(0x21, 0x11, &[&V4, TLV].concat()), b"EHLO x\r\n".to_vec()].concat();
        let mut stream = &bytes[..];
        assert!(matches!(read(&mut stream).await, Ok(Header::Client(_))));
        assert_eq!(stream, b"EHLO x\r\n");
    }

    #[tokio::test]
    async fn what_is_none_is_refused_at_once() {
        // The client goes on waiting for an answer, and the connection stays open.
        let (mut client, mut server) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut client, b"E").await.unwrap();
        assert!(matches!(read(&mut server).await, Err(HeaderError::Missing)));
    }

    proptest! {
        #[test]
        fn read_and_parsed_are_one(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), marked: bool) {
            if marked {
                bytes.splice(0..0, SIGNATURE);
            }
            let parsed = parse(&bytes).map_err(|error| error.to_string());
            let mut stream = &bytes[..];
            let read = futures::executor::block_on(read(&mut stream)).map_err(|error| error.to_string());
            prop_assert_eq!(parsed.as_ref().map(|(header, _)| *header).map_err(Clone::clone).is_ok(), read.is_ok());
            if let Ok((header, length)) = parsed {
                prop_assert_eq!(Ok(header), read);
                prop_assert_eq!(stream, &bytes[length..]);
            }
        }
    }
}
