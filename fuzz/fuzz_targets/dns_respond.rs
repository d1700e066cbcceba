//! Whatever comes to port 53: it is answered by bytes that are a message with the same id, or not at all.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use postrider_api::env::SystemClock;
use postrider_dns::choice::Chooser;
use postrider_dns::latency::table::Table;
use postrider_dns::region::Region;
use postrider_dns::server::{Responder, ResponderOptions, Transport};
use postrider_dns::zone::Zones;
use postrider_dns::zone::domain::{Domain, Policy};

static RESPONDER: LazyLock<Responder> = LazyLock::new(|| {
    let region = |name: &str| Region {
        name: name.into(),
        addresses: vec![[192, 0, 2, 1].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into()],
        mail_host: format!("mx-{name}.o"),
        ns_host: format!("ns-{name}.o"),
        ns_addresses: vec![[192, 0, 2, 53].into()],
        outgoing: Vec::new(),
        tlsa: Vec::new(),
    };
    let regions = [region("a"), region("b")];
    let domain = Domain {
        name: "o".into(),
        serial: 1,
        regions: vec!["a".into(), "b".into()],
        dkim: Vec::new(),
        policy: Policy::default(),
        challenges: vec![("o".into(), "text".into())],
        own: "*.w IN A 192.0.2.80\nc IN CNAME d\nd IN CNAME c\nl IN NS ns.l\nns.l IN A 192.0.2.9\n".into(),
    };
    let responder = Responder::new(ResponderOptions {
        chooser: Arc::new(Chooser::new(&regions, 0, Table::new(1000), 1)),
        signer: None,
        cookie_secret: [1; 16],
        answers_per_second: 0,
        rate_secret: [1; 16],
        server_id: "a".into(),
        clock: SystemClock::shared(),
    });
    responder.set_zones(Zones::build(&[domain], &regions).0);
    responder
});

fuzz_target!(|data: &[u8]| {
    let client = [198, 51, 100, 1].into();
    if let Some(answer) = RESPONDER.respond(data, client, Transport::Udp) {
        assert!(answer.len() >= 12 && answer[..2] == data[..2], "the id comes back");
        assert!(answer[2] & 0x80 != 0, "it is an answer");
        assert!(answer.len() <= 1232, "{} bytes", answer.len());
    }
    RESPONDER.respond(data, client, Transport::Tcp);
});
