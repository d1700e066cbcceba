//! DNS cookies: a client that shows the cookie it was given is where it says it is (RFC 7873, RFC 9018).

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// RFC 9018 section 4.3: older ones are not taken.
const AGE_MAX_S: u32 = 3600;
/// Ones from the future, of a server whose clock is ahead, up to here.
const AHEAD_MAX_S: u32 = 300;
/// Older ones are taken, and a new one is given.
const RENEWED_AFTER_S: u32 = 1800;

const CLIENT_BYTES: usize = 8;
const SERVER_BYTES: usize = 16;
const VERSION: u8 = 1;

/// The option of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cookie {
    client: [u8; CLIENT_BYTES],
    /// `None`: it has none of ours, or one of another length, which cannot be ours.
    server: Option<[u8; SERVER_BYTES]>,
}

impl Cookie {
    /// Reads the option; `None`: malformed (RFC 7873 section 5.2.2, FORMERR).
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let (client, server) = data.split_first_chunk::<CLIENT_BYTES>()?;
        match server.len() {
            0 => Some(Self { client: *client, server: None }),
            8..=32 => Some(Self { client: *client, server: server.try_into().ok() }),
            _ => None,
        }
    }
}

/// Makes and checks cookies. Servers with the same secret know each other's.
#[derive(Clone)]
pub struct Cookies {
    secret: [u8; 16],
}

impl Cookies {
    /// With a secret of the servers that answer at one address.
    pub fn new(secret: [u8; 16]) -> Self {
        Self { secret }
    }

    /// Whether the cookie is ours, of this client and young enough.
    pub(crate) fn knows(&self, cookie: &Cookie, address: IpAddr, now_s: u32) -> bool {
        let Some(server) = cookie.server else { return false };
        let made_s = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
        // RFC 1982 arithmetic: the distance, signed.
        let age = now_s.wrapping_sub(made_s).cast_signed();
        let is_in_time = age <= AGE_MAX_S.cast_signed() && age >= -AHEAD_MAX_S.cast_signed();
        // All 16 bytes: reserved ones count in the hash as they came (RFC 9018 section 4.2).
        is_in_time && server[0] == VERSION && self.hash(cookie, &server[..8], address) == server[8..]
    }

    /// The option of the answer: the client's cookie and ours.
    pub(crate) fn answered(&self, cookie: &Cookie, address: IpAddr, now_s: u32) -> Vec<u8> {
        let mut data = cookie.client.to_vec();
        let is_young = |server: &[u8; SERVER_BYTES]| {
            let made_s = u32::from_be_bytes([server[4], server[5], server[6], server[7]]);
            now_s.wrapping_sub(made_s).cast_signed() <= RENEWED_AFTER_S.cast_signed()
        };
        match cookie.server {
            Some(server) if self.knows(cookie, address, now_s) && is_young(&server) => data.extend(server),
            _ => {
                let [a, b, c, d] = now_s.to_be_bytes();
                let head = [VERSION, 0, 0, 0, a, b, c, d];
                data.extend(head);
                data.extend(self.hash(cookie, &head, address));
            }
        }
        data
    }

    /// RFC 9018 section 4.4: SipHash-2-4 of the client's cookie, the head of ours, and the client's address.
    fn hash(&self, cookie: &Cookie, head: &[u8], address: IpAddr) -> [u8; 8] {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&cookie.client);
        hasher.write(head);
        match address {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
        hasher.finish().to_le_bytes()
    }
}

impl std::fmt::Debug for Cookies {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cookies")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// RFC 9018 appendix A.1 and A.2.
    #[test]
    fn the_vectors_of_the_standard() {
        let cookies = Cookies::new(bytes("e5e973e5a6b2a43f48e7dc849e37bfcf").try_into().unwrap());
        let address = "198.51.100.100".parse().unwrap();
        let first = Cookie::parse(&bytes("2464c4abcf10c957")).unwrap();
        let answered = cookies.answered(&first, address, 0x5cf7_9f11);
        assert_eq!(answered, bytes("2464c4abcf10c957010000005cf79f111f8130c3eee29480"));
        let learned = Cookie::parse(&bytes("2464c4abcf10c957010000005cf79f111f8130c3eee29480")).unwrap();
        assert!(cookies.knows(&learned, address, 0x5cf7_a871));
        let renewed = cookies.answered(&learned, address, 0x5cf7_a871);
        assert_eq!(renewed, bytes("2464c4abcf10c957010000005cf7a871d4a564a1442aca77"));
    }

    /// RFC 9018 appendix A.3 and A.4.
    #[test]
    fn reserved_bytes_and_ipv6() {
        let cookies = Cookies::new(bytes("e5e973e5a6b2a43f48e7dc849e37bfcf").try_into().unwrap());
        let cookie = Cookie::parse(&bytes("fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5")).unwrap();
        assert!(cookies.knows(&cookie, "203.0.113.203".parse().unwrap(), 0x5cf7_8f71 + 60));
        let cookies = Cookies::new(bytes("dd3bdf9344b678b185a6f5cb60fca715").try_into().unwrap());
        let six = Cookie::parse(&bytes("22681ab97d52c298010000005cf7c57926556bd0934c72f8")).unwrap();
        assert!(cookies.knows(&six, "2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap(), 0x5cf7_c579 + 60));
    }

    #[test]
    fn another_address_another_secret_or_another_hour_is_none_of_ours() {
        let cookies = Cookies::new([7; 16]);
        let address = "192.0.2.1".parse().unwrap();
        let first = Cookie::parse(&[1; 8]).unwrap();
        assert!(!cookies.knows(&first, address, 1000));
        let cookie = Cookie::parse(&cookies.answered(&first, address, 1_000_000)).unwrap();
        assert!(cookies.knows(&cookie, address, 1_000_000 + 3600));
        assert!(!cookies.knows(&cookie, address, 1_000_000 + 3601));
        assert!(cookies.knows(&cookie, address, 1_000_000 - 300));
        assert!(!cookies.knows(&cookie, address, 1_000_000 - 301));
        assert!(!cookies.knows(&cookie, "192.0.2.2".parse().unwrap(), 1_000_000));
        assert!(!Cookies::new([8; 16]).knows(&cookie, address, 1_000_000));
        for length in [0, 7, 9, 15, 41] {
            assert_eq!(Cookie::parse(&vec![0; length]), None, "{length} bytes");
        }
    }
}
