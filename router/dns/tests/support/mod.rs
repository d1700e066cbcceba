//! A cluster as tests describe it, and a responder or a server of it.

#![allow(dead_code)] // each test program uses its part

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use hickory_proto::op::{Edns, Message, Query};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::{Name, Record, RecordType};
use postrider_api::env::{Clock, SystemClock};
use postrider_dns::choice::Chooser;
use postrider_dns::latency::table::{PREFIXES_MAX, Table};
use postrider_dns::region::{Region, Tlsa};
use postrider_dns::server::sign::Signer;
use postrider_dns::server::{Responder, ResponderOptions, Transport};
use postrider_dns::zone::Zones;
use postrider_dns::zone::domain::{DkimAlgorithm, DkimKey, DmarcPolicy, Domain, MtaSts, Policy};

pub(crate) const REGIONS: [&str; 3] = ["seoul", "virginia", "frankfurt"];
pub(crate) const DOMAIN: &str = "example.org";

/// The operator's own records of [`domain`].
pub(crate) const OWN: &str = "\
www 300 IN CNAME mail
alias 300 IN CNAME elsewhere.example.net.
*.dev 300 IN A 192.0.2.80
a.b.c 300 IN TXT \"deep\"
lab 300 IN NS ns.lab
ns.lab 300 IN A 192.0.2.53
@ 300 IN TXT \"site-verification=1\"
";

/// Regions in the order of [`REGIONS`], each with one address of each family, 192.0.2.1 to 3 and 2001:db8::1 to 3.
pub(crate) fn regions() -> Vec<Region> {
    let region = |(at, name): (usize, &&str)| Region {
        name: (*name).into(),
        addresses: vec![
            format!("192.0.2.{}", at + 1).parse().unwrap(),
            format!("2001:db8::{}", at + 1).parse().unwrap(),
        ],
        mail_host: format!("mx-{name}.{DOMAIN}"),
        ns_host: format!("ns-{name}.{DOMAIN}"),
        ns_addresses: vec![format!("192.0.2.{}", at + 101).parse().unwrap()],
        outgoing: Vec::new(),
        tlsa: vec![Tlsa::dane_ee(name.as_bytes())],
    };
    REGIONS.iter().enumerate().map(region).collect()
}

/// A domain with everything.
pub(crate) fn domain(name: &str) -> Domain {
    let key = |selector: &str, algorithm, length: usize| DkimKey {
        selector: selector.into(),
        algorithm,
        public_key: (0..length).map(|at| (at * 7) as u8).collect(),
    };
    Domain {
        name: name.into(),
        serial: 2_026_113_001,
        regions: REGIONS.iter().map(|region| (*region).to_owned()).collect(),
        dkim: vec![key("r1", DkimAlgorithm::RsaSha256, 550), key("e1", DkimAlgorithm::Ed25519Sha256, 44)],
        policy: Policy {
            dmarc: DmarcPolicy::Reject,
            mta_sts: MtaSts::Enforce,
            caa: vec!["letsencrypt.org".into()],
            ..Policy::default()
        },
        challenges: Vec::new(),
        own: if name == DOMAIN { OWN.into() } else { String::new() },
    }
}

/// A new key in PEM.
pub(crate) fn pem() -> String {
    let der = base64::engine::general_purpose::STANDARD.encode(Signer::generate().unwrap());
    format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
}

/// A clock that is set by hand; the wall stands at a real date.
#[derive(Default)]
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn wall_ms(&self) -> i64 {
        1_796_000_000_000 + self.0.load(Ordering::SeqCst) as i64
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct Setup {
    pub(crate) key: Option<String>,
    pub(crate) answers_per_second: u32,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { key: None, answers_per_second: 0, clock: SystemClock::shared() }
    }
}

/// A responder in the first region, with [`DOMAIN`].
pub(crate) fn responder(setup: Setup) -> Arc<Responder> {
    let chooser = Chooser::new(&regions(), 0, Table::new(PREFIXES_MAX), 7);
    let responder = Responder::new(ResponderOptions {
        chooser: Arc::new(chooser),
        signer: setup.key.as_deref().map(|key| Signer::new([key]).unwrap()),
        cookie_secret: [1; 16],
        answers_per_second: setup.answers_per_second,
        rate_secret: [2; 16],
        server_id: "seoul".into(),
        clock: setup.clock,
    });
    let (zones, refused) = Zones::build(&[domain(DOMAIN)], &regions());
    assert_eq!(refused, []);
    responder.set_zones(zones);
    Arc::new(responder)
}

/// A question, with EDNS where options or signatures are wanted.
pub(crate) struct Question {
    pub(crate) message: Message,
}

impl Question {
    pub(crate) fn new(name: &str, rtype: RecordType) -> Self {
        let mut message = Message::query();
        message.metadata.id = 4711;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
        Self { message }
    }

    fn edns(mut self, set: impl FnOnce(&mut Edns)) -> Self {
        let mut edns = self.message.edns.take().unwrap_or_else(|| {
            let mut edns = Edns::new();
            edns.set_max_payload(1232);
            edns
        });
        set(&mut edns);
        self.message.set_edns(edns);
        self
    }

    pub(crate) fn signed(self) -> Self {
        self.edns(|edns| {
            edns.set_dnssec_ok(true);
        })
    }

    pub(crate) fn option(self, code: u16, data: &[u8]) -> Self {
        self.edns(|edns| edns.options_mut().insert(EdnsOption::Unknown(code, data.to_vec())))
    }

    pub(crate) fn subnet(self, address: &str) -> Self {
        let address: std::net::Ipv4Addr = address.parse().unwrap();
        let [a, b, c, _] = address.octets();
        self.option(8, &[0, 1, 24, 0, a, b, c])
    }

    pub(crate) fn ask_by(&self, responder: &Responder, transport: Transport) -> Option<Message> {
        let client: IpAddr = "198.51.100.53".parse().unwrap();
        let answer = responder.respond(&self.message.to_vec().unwrap(), client, transport)?;
        Some(Message::from_vec(&answer).unwrap())
    }

    pub(crate) fn ask(&self, responder: &Responder) -> Message {
        self.ask_by(responder, Transport::Udp).expect("an answer")
    }
}

/// The data of records, as text.
pub(crate) fn data(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.data.to_string()).collect()
}
