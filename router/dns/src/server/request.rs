//! A question, read from the bytes of a message.
//!
//! hickory-proto reads names and numbers; the frame is ours: of what follows the question only OPT and the presence of TSIG
//! matter, records of any other type are passed over unread, and what is malformed is told apart by what has to be answered.

use hickory_proto::op::{Header, MessageType, Metadata, OpCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable as _, BinDecoder};

use super::cookie::Cookie;
use super::subnet::Subnet;

/// RFC 1035 section 4.2.1: what a client takes that says nothing of itself.
pub(crate) const PLAIN_BYTES_MAX: u16 = 512;
/// Records behind the question that are passed over; nobody who asks has as many.
const RECORDS_MAX: u32 = 32;

/// RFC 7871 section 6.
pub(crate) const OPTION_SUBNET: u16 = 8;
/// RFC 7873 section 4.
pub(crate) const OPTION_COOKIE: u16 = 10;
/// RFC 5001 section 2.1.
pub(crate) const OPTION_NSID: u16 = 3;
/// RFC 9824 section 5.1: compact answers are understood.
const FLAG_COMPACT_OK: u16 = 0x4000;
const FLAG_DNSSEC_OK: u16 = 0x8000;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) metadata: Metadata,
    /// In the letters that it came in: they are echoed.
    pub(crate) name: Name,
    pub(crate) rtype: RecordType,
    pub(crate) class: DNSClass,
    pub(crate) edns: Option<RequestEdns>,
    /// It is signed with a key that we do not have.
    pub(crate) is_signed: bool,
}

/// What the client says of itself (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RequestEdns {
    pub(crate) version: u8,
    pub(crate) bytes_max: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) compact_ok: bool,
    pub(crate) subnet: Option<Subnet>,
    pub(crate) cookie: Option<Cookie>,
    pub(crate) wants_nsid: bool,
}

/// A message that is no question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unreadable {
    /// Not answered at all: no header, or an answer (two servers would echo for ever).
    Ignored,
    /// FORMERR.
    Malformed(Metadata),
    /// NOTIMP.
    UnknownOperation(Metadata),
}

impl Request {
    pub(crate) fn parse(message: &[u8]) -> Result<Self, Unreadable> {
        let mut decoder = BinDecoder::new(message);
        let header = Header::read(&mut decoder).map_err(|_| Unreadable::Ignored)?;
        let metadata = header.metadata;
        if metadata.message_type == MessageType::Response {
            return Err(Unreadable::Ignored);
        }
        if metadata.op_code != OpCode::Query {
            return Err(Unreadable::UnknownOperation(metadata));
        }
        Self::behind_header(&mut decoder, &header).ok_or(Unreadable::Malformed(metadata))
    }

    fn behind_header(decoder: &mut BinDecoder<'_>, header: &Header) -> Option<Self> {
        // RFC 9619: exactly one question.
        if header.counts.queries != 1 {
            return None;
        }
        let name = Name::read(decoder).ok()?;
        let rtype = RecordType::from(number(decoder)?);
        let class = DNSClass::from(number(decoder)?);
        let mut request = Self { metadata: header.metadata, name, rtype, class, edns: None, is_signed: false };
        let counts = header.counts;
        let others = u32::from(counts.answers) + u32::from(counts.authorities);
        if others + u32::from(counts.additionals) > RECORDS_MAX {
            return None;
        }
        for _ in 0..others {
            let record = Raw::read(decoder)?;
            // RFC 6891 section 6.1.1, RFC 8945 section 5.1: only in the additional section.
            if matches!(record.rtype, RecordType::OPT | RecordType::TSIG) {
                return None;
            }
        }
        for _ in 0..counts.additionals {
            if request.is_signed {
                return None; // RFC 8945 section 5.1: TSIG is the last
            }
            let record = Raw::read(decoder)?;
            match record.rtype {
                RecordType::OPT if request.edns.is_some() || !record.name.is_root() => return None,
                RecordType::OPT => request.edns = Some(RequestEdns::parse(&record)?),
                RecordType::TSIG => request.is_signed = true,
                _ => {}
            }
        }
        decoder.is_empty().then_some(request)
    }
}

impl RequestEdns {
    fn parse(record: &Raw<'_>) -> Option<Self> {
        let [_, version, flags_high, flags_low] = record.ttl.to_be_bytes();
        let flags = u16::from_be_bytes([flags_high, flags_low]);
        let mut edns = Self {
            version,
            // RFC 6891 section 6.2.3: less counts as 512.
            bytes_max: record.class.max(PLAIN_BYTES_MAX),
            dnssec_ok: flags & FLAG_DNSSEC_OK != 0,
            compact_ok: flags & FLAG_COMPACT_OK != 0,
            ..Self::default()
        };
        if version != 0 {
            return Some(edns); // options of another version may look otherwise
        }
        let mut options = record.data;
        while !options.is_empty() {
            let (head, rest) = options.split_first_chunk::<4>()?;
            let code = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (data, rest) = rest.split_at_checked(length)?;
            match code {
                OPTION_SUBNET if edns.subnet.is_some() => return None,
                OPTION_SUBNET => edns.subnet = Some(Subnet::parse(data).ok()?),
                // RFC 7873 section 5.2: the first counts, the others are passed over.
                OPTION_COOKIE if edns.cookie.is_none() => edns.cookie = Some(Cookie::parse(data)?),
                OPTION_NSID => edns.wants_nsid = true,
                _ => {}
            }
            options = rest;
        }
        Some(edns)
    }
}

/// A record whose data nobody has read.
struct Raw<'message> {
    name: Name,
    rtype: RecordType,
    class: u16,
    ttl: u32,
    data: &'message [u8],
}

impl<'message> Raw<'message> {
    fn read(decoder: &mut BinDecoder<'message>) -> Option<Self> {
        let name = Name::read(decoder).ok()?;
        let rtype = RecordType::from(number(decoder)?);
        let class = number(decoder)?;
        // The slice below is checked against what is left.
        let ttl = decoder.read_u32().ok()?.unverified();
        let length = usize::from(number(decoder)?);
        let data = decoder.read_slice(length).ok()?.unverified();
        Some(Self { name, rtype, class, ttl, data })
    }
}

/// Any number is one; what it means is looked at where it is used.
fn number(decoder: &mut BinDecoder<'_>) -> Option<u16> {
    Some(decoder.read_u16().ok()?.unverified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{Edns, Message, Query};
    use hickory_proto::rr::rdata::opt::EdnsOption;
    use proptest::prelude::*;

    fn question() -> Message {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(Name::from_ascii("MaiL.example.org.").unwrap(), RecordType::A));
        message
    }

    fn with_options(options: Vec<EdnsOption>) -> Vec<u8> {
        let mut message = question();
        let mut edns = Edns::new();
        edns.set_max_payload(4096).set_dnssec_ok(true);
        options.into_iter().for_each(|option| edns.options_mut().insert(option));
        message.set_edns(edns);
        message.to_vec().unwrap()
    }

    #[test]
    fn a_question_is_read() {
        let request = Request::parse(&question().to_vec().unwrap()).unwrap();
        assert_eq!((request.metadata.id, request.rtype, request.edns), (7, RecordType::A, None));
        assert_eq!(request.name.to_ascii(), "MaiL.example.org.");
        let options = vec![
            EdnsOption::Unknown(8, vec![0, 1, 24, 0, 203, 0, 113]),
            EdnsOption::Unknown(10, vec![1; 8]),
            EdnsOption::Unknown(3, vec![]),
            EdnsOption::Unknown(65_001, vec![1, 2, 3]),
        ];
        let edns = Request::parse(&with_options(options)).unwrap().edns.unwrap();
        assert!(edns.dnssec_ok && edns.wants_nsid && edns.cookie.is_some() && edns.bytes_max == 4096);
        assert_eq!(edns.subnet.unwrap().network(), Some(("203.0.113.0".parse().unwrap(), 24)));
    }

    #[test]
    fn what_is_malformed_is_told_apart() {
        let good = question().to_vec().unwrap();
        let malformed = |bytes: &[u8]| matches!(Request::parse(bytes), Err(Unreadable::Malformed(_)));
        assert_eq!(Request::parse(&good[..11]), Err(Unreadable::Ignored));
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert_eq!(Request::parse(&answer), Err(Unreadable::Ignored));
        let mut update = good.clone();
        update[2] = 5 << 3;
        assert!(matches!(Request::parse(&update), Err(Unreadable::UnknownOperation(_))));
        let mut none = good.clone();
        none[5] = 0;
        assert!(malformed(&none), "no question");
        assert!(malformed(&[&good[..], &[0]].concat()), "something behind");
        for at in 12..good.len() {
            assert!(malformed(&good[..at]), "cut at {at}");
        }
        for bad in [(8, vec![0, 1, 24, 0]), (10, vec![1; 9])] {
            assert!(malformed(&with_options(vec![EdnsOption::Unknown(bad.0, bad.1)])));
        }
        let mut two = question();
        two.add_query(Query::query(Name::root(), RecordType::A));
        assert!(malformed(&two.to_vec().unwrap()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn a_damaged_question_is_read_or_refused(at in 0usize..80, byte: u8) {
            let mut bytes = with_options(vec![EdnsOption::Unknown(8, vec![0, 1, 24, 0, 203, 0, 113])]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Request::parse(&bytes);
        }
    }
}
