//! The answer to a message: bytes in, bytes out.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::HINFO;
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};
use parking_lot::RwLock;
use postrider_api::env::Clock;

use super::cookie::Cookies;
use super::deny::{NXNAME, nsec};
use super::rate::{Kind, RateLimits, Verdict};
use super::request::{OPTION_COOKIE, OPTION_NSID, OPTION_SUBNET, PLAIN_BYTES_MAX, Request, RequestEdns, Unreadable};
use super::sign::Signer;
use crate::choice::{Choice, Chooser};
use crate::zone::Zones;
use crate::zone::build::STABLE_TTL_S;
use crate::zone::tree::{Found, Node, RrSet, Set, Zone};

/// What goes over UDP at most: more is cut into fragments on its way, which get lost and can be forged (RFC 9715).
pub(super) const UDP_BYTES_MAX: u16 = 1232;
/// Aliases that are followed within a zone.
const ALIASES_MAX: usize = 8;
/// RFC 8914 section 5.2.
const OPTION_EXTENDED_ERROR: u16 = 15;
/// RFC 8914 section 4.19 and 4.21; RFC 9824 section 9.
const PROHIBITED: u16 = 18;
const NOT_AUTHORITATIVE: u16 = 20;
const INVALID_QUERY_TYPE: u16 = 30;

/// How a message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Its sender may be forged, and the answer's size is bounded.
    Udp,
    /// Its sender is there.
    Tcp,
}

/// What a responder is made of.
pub struct ResponderOptions {
    /// Orders regions.
    pub chooser: Arc<Chooser>,
    /// `None`: nothing is signed.
    pub signer: Option<Signer>,
    /// Of the servers that answer at one address.
    pub cookie_secret: [u8; 16],
    /// See [`super::rate`]; 0: no limit.
    pub answers_per_second: u32,
    /// Where a counter of the limits lies is nobody's business.
    pub rate_secret: [u8; 16],
    /// What to say to who asks for it (RFC 5001).
    pub server_id: String,
    /// Signatures, cookies, limits and measurements go by it.
    pub clock: Arc<dyn Clock>,
}

/// Answers messages.
pub struct Responder {
    options: ResponderOptions,
    cookies: Cookies,
    rate: Option<RateLimits>,
    zones: RwLock<Arc<Zones>>,
    counters: Counters,
}

struct Counters {
    answered: metrics::Counter,
    missing: metrics::Counter,
    refused: metrics::Counter,
    malformed: metrics::Counter,
    truncated: metrics::Counter,
    dropped: metrics::Counter,
}

/// What is said of a question.
#[derive(Debug, Default)]
struct Answer {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    /// Left out where they do not fit.
    additionals: Vec<Record>,
    /// Whether the additional records are what a referral leads by: without them it is truncated.
    needs_additionals: bool,
    /// Of the networks that get the same.
    scope: u8,
    extended_error: Option<u16>,
    /// The zone, where there is one.
    zone: Option<Arc<Zone>>,
}

impl Answer {
    fn refusal(code: ResponseCode, extended_error: Option<u16>) -> Self {
        Self { code, extended_error, ..Self::default() }
    }
}

/// One question of one client: what is decided once for it.
struct Asked<'a> {
    responder: &'a Responder,
    zone: &'a Zone,
    /// Whether signatures are wanted and made.
    signed: bool,
    now_s: u32,
    choice: Option<Choice>,
    network: (IpAddr, u8),
    scope: u8,
}

impl Responder {
    /// A responder without zones: it refuses everything until it has some.
    pub fn new(options: ResponderOptions) -> Self {
        let counter = |result: &'static str| metrics::counter!("postrider_dns_answers_total", "result" => result);
        Self {
            cookies: Cookies::new(options.cookie_secret),
            rate: RateLimits::new(options.answers_per_second, options.rate_secret),
            zones: RwLock::new(Arc::default()),
            counters: Counters {
                answered: counter("answered"),
                missing: counter("missing"),
                refused: counter("refused"),
                malformed: counter("malformed"),
                truncated: counter("truncated"),
                dropped: counter("dropped"),
            },
            options,
        }
    }

    /// Serves these from now on.
    pub fn set_zones(&self, zones: Zones) {
        metrics::gauge!("postrider_dns_zones").set(zones.len() as f64);
        *self.zones.write() = Arc::new(zones);
    }

    /// The zones as they are served now.
    pub fn zones(&self) -> Arc<Zones> {
        self.zones.read().clone()
    }

    /// The order of regions that its answers follow.
    pub fn chooser(&self) -> &Arc<Chooser> {
        &self.options.chooser
    }

    /// The answer to a message from `client`; `None`: none is sent.
    pub fn respond(&self, message: &[u8], client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        // A resolver on a socket for both families.
        let client = client.to_canonical();
        let now_s = u32::try_from(self.options.clock.wall_ms() / 1000).unwrap_or(u32::MAX);
        let request = match Request::parse(message) {
            Ok(request) => request,
            Err(Unreadable::Ignored) => {
                self.counters.dropped.increment(1);
                return None;
            }
            Err(Unreadable::Malformed(metadata)) => {
                self.counters.malformed.increment(1);
                return self.bare(&metadata, ResponseCode::FormErr, client, transport);
            }
            Err(Unreadable::UnknownOperation(metadata)) => {
                self.counters.malformed.increment(1);
                return self.bare(&metadata, ResponseCode::NotImp, client, transport);
            }
        };
        let answer = self.answer(&request, client, now_s);
        let verdict = self.verdict(&request, &answer, client, transport, now_s);
        match verdict {
            Verdict::Send => self.counter(answer.code).increment(1),
            Verdict::Slip => self.counters.truncated.increment(1),
            Verdict::Drop => {
                self.counters.dropped.increment(1);
                return None;
            }
        }
        self.encode(&request, answer, verdict == Verdict::Slip, client, transport, now_s)
    }

    fn counter(&self, code: ResponseCode) -> &metrics::Counter {
        match code {
            ResponseCode::NoError => &self.counters.answered,
            ResponseCode::NXDomain => &self.counters.missing,
            ResponseCode::FormErr => &self.counters.malformed,
            _ => &self.counters.refused,
        }
    }

    fn verdict(&self, request: &Request, answer: &Answer, client: IpAddr, transport: Transport, now_s: u32) -> Verdict {
        let Some(rate) = &self.rate else { return Verdict::Send };
        let cookie = request.edns.as_ref().and_then(|edns| edns.cookie);
        let is_there = cookie.is_some_and(|cookie| self.cookies.knows(&cookie, client, now_s));
        if transport == Transport::Tcp || is_there {
            return Verdict::Send;
        }
        let mut name = Vec::with_capacity(64);
        let kind = match (&answer.zone, answer.answers.is_empty()) {
            (Some(zone), true) => {
                flat(zone.origin(), &mut name);
                Kind::Nothing(&name)
            }
            (Some(_), false) => {
                flat(&request.name, &mut name);
                Kind::Name(&name)
            }
            (None, _) => Kind::Error,
        };
        rate.count(client, kind, self.options.clock.monotonic())
    }

    /// An error about a message whose question could not be read.
    fn bare(&self, metadata: &Metadata, code: ResponseCode, client: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        let limited = self.rate.as_ref().filter(|_| transport == Transport::Udp);
        if limited.is_some_and(|rate| rate.count(client, Kind::Error, self.options.clock.monotonic()) != Verdict::Send)
        {
            self.counters.dropped.increment(1);
            return None;
        }
        let mut message = Message::new(metadata.id, MessageType::Response, metadata.op_code);
        message.metadata.recursion_desired = metadata.recursion_desired;
        message.metadata.response_code = code;
        message.to_vec().ok()
    }

    /// What is said of a question, whoever forged it.
    fn answer(&self, request: &Request, client: IpAddr, now_s: u32) -> Answer {
        let edns = request.edns.unwrap_or_default();
        if edns.version != 0 {
            return Answer::refusal(ResponseCode::BADVERS, None);
        }
        if request.is_signed {
            // RFC 8945 section 5.2.1: a key that is not known here.
            return Answer::refusal(ResponseCode::NotAuth, None);
        }
        if request.class != DNSClass::IN {
            return Answer::refusal(ResponseCode::Refused, Some(NOT_AUTHORITATIVE));
        }
        match request.rtype {
            RecordType::AXFR | RecordType::IXFR => return Answer::refusal(ResponseCode::Refused, Some(PROHIBITED)),
            // RFC 9824 section 3.5.
            NXNAME => return Answer::refusal(ResponseCode::FormErr, Some(INVALID_QUERY_TYPE)),
            // RFC 6895 section 3.1: questions about messages, which no zone has.
            RecordType::OPT | RecordType::TSIG | RecordType::Unknown(249 | 250 | 253 | 254) | RecordType::ZERO => {
                return Answer::refusal(ResponseCode::FormErr, Some(INVALID_QUERY_TYPE));
            }
            _ => {}
        }
        let zones = self.zones();
        let name = LowerName::new(&request.name);
        let mut zone = zones.find(&name);
        if request.rtype == RecordType::DS
            && let Some(below) = zone
            && *below.origin() == request.name
            && let Some(above) = zones.find_above(below.origin())
        {
            zone = Some(above);
        }
        let Some(zone) = zone else { return Answer::refusal(ResponseCode::Refused, Some(NOT_AUTHORITATIVE)) };
        let subnet = edns.subnet.and_then(|subnet| subnet.network());
        let mut asked = Asked {
            responder: self,
            zone,
            signed: edns.dnssec_ok && self.options.signer.is_some(),
            now_s,
            choice: None,
            // All of an address is known of who asks by itself.
            network: subnet.unwrap_or((client, 128)),
            scope: 0,
        };
        let mut answer = asked.look_up(request, &edns);
        answer.scope = asked.scope;
        answer.zone = Some(zone.clone());
        answer
    }

    fn encode(
        &self,
        request: &Request,
        answer: Answer,
        slips: bool,
        client: IpAddr,
        transport: Transport,
        now_s: u32,
    ) -> Option<Vec<u8>> {
        let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = request.metadata.recursion_desired;
        message.metadata.authoritative = answer.authoritative;
        message.metadata.response_code = answer.code;
        let mut query = Query::query(request.name.clone(), request.rtype);
        query.set_query_class(request.class);
        message.add_query(query);
        message.edns = request.edns.map(|edns| self.edns(&edns, &answer, client, now_s));
        let bytes_max = match (transport, &request.edns) {
            (Transport::Tcp, _) => u16::MAX,
            (Transport::Udp, None) => PLAIN_BYTES_MAX,
            (Transport::Udp, Some(edns)) => edns.bytes_max.min(UDP_BYTES_MAX),
        };
        if !slips {
            message.answers = answer.answers;
            message.authorities = answer.authorities;
            message.additionals = answer.additionals;
            let fits = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= usize::from(bytes_max));
            if let Some(bytes) = fits(&message) {
                return Some(bytes);
            }
            if !answer.needs_additionals {
                message.additionals.clear();
                if let Some(bytes) = fits(&message) {
                    return Some(bytes);
                }
            }
        }
        // RFC 6891 section 7: what is cut keeps its OPT. All else goes: half a set is none (RFC 2181 section 9).
        message.metadata.truncation = true;
        message.answers.clear();
        message.authorities.clear();
        message.additionals.clear();
        message.to_vec().ok()
    }

    fn edns(&self, asked: &RequestEdns, answer: &Answer, client: IpAddr, now_s: u32) -> Edns {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX).set_dnssec_ok(asked.dnssec_ok);
        if asked.compact_ok {
            edns.flags_mut().z = 0x4000; // RFC 9824 section 5.1: it is echoed
        }
        let mut option = |code, data| edns.options_mut().insert(EdnsOption::Unknown(code, data));
        if let Some(subnet) = asked.subnet {
            option(OPTION_SUBNET, subnet.answered(answer.scope));
        }
        if let Some(cookie) = asked.cookie {
            option(OPTION_COOKIE, self.cookies.answered(&cookie, client, now_s));
        }
        if asked.wants_nsid {
            option(OPTION_NSID, self.options.server_id.as_bytes().to_vec());
        }
        if let Some(code) = answer.extended_error {
            option(OPTION_EXTENDED_ERROR, code.to_be_bytes().to_vec());
        }
        edns
    }
}

impl Asked<'_> {
    fn look_up(&mut self, request: &Request, edns: &RequestEdns) -> Answer {
        let mut answer = Answer { authoritative: true, ..Answer::default() };
        let mut name = request.name.clone();
        for _ in 0..ALIASES_MAX {
            let zone = self.zone;
            match zone.find(&LowerName::new(&name)) {
                Found::Delegation(cut, node) if !(request.rtype == RecordType::DS && cut == name) => {
                    self.refer(&mut answer, &cut, node);
                    return answer;
                }
                Found::Delegation(_, node) | Found::Node(node) => match self.at_node(&mut answer, request, &name, node)
                {
                    Some(alias) => name = alias,
                    None => return answer,
                },
                Found::Nothing => {
                    self.deny(&mut answer, &name, std::iter::empty(), false);
                    // RFC 9824 section 3: the proof says that the name exists, and so must the code, unless the client
                    // can tell (section 5.1).
                    let is_compact = self.signed && !edns.compact_ok;
                    answer.code = if is_compact { ResponseCode::NoError } else { ResponseCode::NXDomain };
                    return answer;
                }
            }
        }
        answer
    }

    /// What is at a name that is there. Returns where an alias leads, within the zone.
    fn at_node(&mut self, answer: &mut Answer, request: &Request, name: &Name, node: &Node) -> Option<Name> {
        let zone = self.zone;
        match request.rtype {
            // RFC 8482 section 4.2: one small record in place of all.
            RecordType::ANY => {
                let data = RData::HINFO(HINFO::new("RFC8482".into(), String::new()));
                let set = RrSet { rtype: RecordType::HINFO, ttl: STABLE_TTL_S, data: vec![data] };
                self.add_answer(answer, name, &set);
                return None;
            }
            RecordType::DNSKEY if name == zone.origin() => {
                if let Some(signer) = &self.responder.options.signer {
                    self.add_answer(answer, name, &signer.dnskeys());
                    return None;
                }
            }
            RecordType::NSEC if self.responder.options.signer.is_some() => {
                let record = nsec(name, self.types(name, node, None).into_iter(), true);
                self.push_signed(&mut answer.answers, vec![record]);
                return None;
            }
            // Of signatures by themselves one is enough, as of ANY (RFC 8482 section 7).
            RecordType::RRSIG => {
                if let Some(set) = node.sets().first().and_then(|set| self.made(set)) {
                    let records = records(name, &set);
                    answer.answers.extend(self.signatures(&records));
                }
            }
            _ => {}
        }
        if let Some(set) = node.set(request.rtype).and_then(|set| self.made(set)) {
            self.add_answer(answer, name, &set);
            self.add_addresses(answer, &set);
            return None;
        }
        if let Some(set) = node.set(RecordType::CNAME).and_then(|set| self.made(set)) {
            self.add_answer(answer, name, &set);
            return match set.data.first() {
                Some(RData::CNAME(alias)) if zone.origin().zone_of(&alias.0) => Some(alias.0.clone()),
                _ => None,
            };
        }
        if answer.answers.is_empty() || request.rtype != RecordType::RRSIG {
            let types = self.types(name, node, Some(request.rtype));
            self.deny(answer, name, types.into_iter(), true);
        }
        None
    }

    /// The set as it is for this client.
    fn made(&mut self, set: &Set) -> Option<RrSet> {
        if !Zone::is_tailored(set) {
            return self.zone.records(set, &Choice { order: Vec::new(), scope: 0 });
        }
        let (client, length) = self.network;
        let chooser = &self.responder.options.chooser;
        let regions = self.zone.regions();
        let choice = self.choice.get_or_insert_with(|| chooser.choose(client, length, regions, self.now_s.into()));
        self.scope = choice.scope;
        self.zone.records(set, choice)
    }

    /// The types at a name, for the proof that there is no other.
    fn types(&self, name: &Name, node: &Node, without: Option<RecordType>) -> Vec<RecordType> {
        let whole = Choice { order: self.zone.regions().iter().collect(), scope: 0 };
        let is_there = |set: &&Set| self.zone.records(set, &whole).is_some();
        let mut types: Vec<RecordType> = node.sets().iter().filter(is_there).map(Set::rtype).collect();
        if name == self.zone.origin() && self.responder.options.signer.is_some() {
            types.push(RecordType::DNSKEY);
        }
        if node.has(RecordType::NS) && name != self.zone.origin() {
            // At a cut the rest is the other zone's (RFC 4035 section 2.3).
            types.retain(|rtype| matches!(rtype, RecordType::NS | RecordType::DS));
        }
        types.retain(|rtype| Some(*rtype) != without);
        types
    }

    fn add_answer(&self, answer: &mut Answer, name: &Name, set: &RrSet) {
        self.push_signed(&mut answer.answers, records(name, set));
    }

    fn push_signed(&self, section: &mut Vec<Record>, records: Vec<Record>) {
        let signatures = if self.signed { self.signatures(&records) } else { Vec::new() };
        section.extend(records);
        section.extend(signatures);
    }

    fn signatures(&self, records: &[Record]) -> Vec<Record> {
        let signer = self.responder.options.signer.as_ref();
        signer.map(|signer| signer.sign(self.zone.origin(), records, self.now_s)).unwrap_or_default()
    }

    /// RFC 2308 section 2.2, and the proof of it.
    fn deny(&self, answer: &mut Answer, name: &Name, types: impl Iterator<Item = RecordType>, exists: bool) {
        if let Some(soa) = self.zone.soa() {
            self.push_signed(&mut answer.authorities, records(self.zone.origin(), &soa));
        }
        if self.signed {
            self.push_signed(&mut answer.authorities, vec![nsec(name, types, exists)]);
        }
    }

    /// The way to a zone that was given away.
    fn refer(&mut self, answer: &mut Answer, cut: &Name, node: &Node) {
        answer.authoritative = !answer.answers.is_empty();
        let Some(servers) = node.set(RecordType::NS).and_then(|set| self.made(set)) else { return };
        // Not ours, so not signed by us (RFC 4035 section 2.2); whether it is a signed zone, is.
        answer.authorities.extend(records(cut, &servers));
        if self.signed {
            match node.set(RecordType::DS).and_then(|set| self.made(set)) {
                Some(set) => self.push_signed(&mut answer.authorities, records(cut, &set)),
                None => {
                    let proof = nsec(cut, std::iter::once(RecordType::NS), true);
                    self.push_signed(&mut answer.authorities, vec![proof]);
                }
            }
        }
        let zone = self.zone;
        for server in &servers.data {
            let RData::NS(server) = server else { continue };
            // Glue lies below the cut, where the zone says nothing else.
            if cut.zone_of(&server.0)
                && let Some(node) = zone.node(&LowerName::new(&server.0))
            {
                for rtype in [RecordType::A, RecordType::AAAA] {
                    if let Some(set) = node.set(rtype).and_then(|set| self.made(set)) {
                        answer.additionals.extend(records(&server.0, &set));
                        answer.needs_additionals = true;
                    }
                }
            }
        }
    }

    /// The addresses of the hosts that an answer names, where they are of this zone.
    fn add_addresses(&mut self, answer: &mut Answer, set: &RrSet) {
        let zone = self.zone;
        for data in &set.data {
            let host = match data {
                RData::MX(mx) => &mx.exchange,
                RData::NS(ns) => &ns.0,
                RData::SRV(srv) => &srv.target,
                _ => continue,
            };
            if !zone.origin().zone_of(host) {
                continue;
            }
            let Found::Node(node) = zone.find(&LowerName::new(host)) else { continue };
            for rtype in [RecordType::A, RecordType::AAAA] {
                if let Some(set) = node.set(rtype).and_then(|set| self.made(set)) {
                    self.push_signed(&mut answer.additionals, records(host, &set));
                }
            }
        }
    }
}

fn records(name: &Name, set: &RrSet) -> Vec<Record> {
    set.data.iter().map(|data| Record::from_rdata(name.clone(), set.ttl, data.clone())).collect()
}

/// A name's bytes in lower case.
fn flat(name: &Name, bytes: &mut Vec<u8>) {
    for label in name {
        bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX)); // a label has at most 63
        bytes.extend(label.iter().map(u8::to_ascii_lowercase));
    }
}
