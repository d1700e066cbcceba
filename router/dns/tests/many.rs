//! A thousand domains are loaded in seconds, and each is served.

mod support;

use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use postrider_dns::zone::Zones;
use support::{Question, Setup, domain, pem, regions, responder};

#[test]
fn a_thousand_domains_load_in_seconds() {
    let responder = responder(Setup { key: Some(pem()), ..Setup::default() });
    let domains: Vec<_> = (0..1000).map(|number| domain(&format!("d{number}.example"))).collect();
    let begun = Instant::now();
    let (zones, refused) = Zones::build(&domains, &regions());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!((zones.len(), refused.len()), (1000, 0));
    responder.set_zones(zones);
    for number in [0, 500, 999] {
        let name = format!("mail.d{number}.example");
        let answer = Question::new(&name, RecordType::A).signed().ask(&responder);
        assert_eq!(answer.answers.len(), 2, "an address and its signature");
    }
}
