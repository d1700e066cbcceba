//! Each network is sent to the region that is nearest to it, as its own connections have measured.

mod support;

use std::time::Duration;

use hickory_proto::rr::RecordType;
use postrider_dns::latency::sample::Sample;
use support::{Question, Setup, data, responder};

/// Milliseconds from three client networks to the three regions, in their order. The name server that is asked stands in the first.
const NETWORKS: [(&str, [u64; 3]); 3] =
    [("203.0.113", [8, 180, 240]), ("198.51.100", [190, 12, 90]), ("192.88.98", [250, 95, 15])];
const CONNECTIONS: usize = 200;

/// Asks, connects to the region that is named, and lets that region measure.
fn connect(responder: &postrider_dns::server::Responder, network: usize, client: usize) -> usize {
    let (prefix, delays) = NETWORKS[network];
    let answer = Question::new("mail.example.org", RecordType::A).subnet(&format!("{prefix}.0")).ask(responder);
    let named = data(&answer.answers);
    let region = (0..3).find(|region| named[0] == format!("192.0.2.{}", region + 1)).expect("a region");
    let jitter = (client % 7) as u64;
    let address = format!("{prefix}.{}", client % 250 + 1).parse().unwrap();
    let sample = Sample::of(address, Duration::from_millis(delays[region] + jitter));
    let now_s = u64::try_from(postrider_api::env::SystemClock::shared().wall_ms() / 1000).unwrap();
    responder.chooser().record(region, &[sample], now_s);
    region
}

#[test]
fn after_200_connections_95_percent_of_answers_name_the_nearest() {
    let responder = responder(Setup::default());
    let peers = [None, Some(Duration::from_millis(180)), Some(Duration::from_millis(240))];
    responder.chooser().set_peers(&peers);
    for client in 0..CONNECTIONS {
        for network in 0..3 {
            connect(&responder, network, client);
        }
    }
    for network in 0..3 {
        let nearest = (0..1000).filter(|client| connect(&responder, network, *client) == network).count();
        assert!(nearest >= 950, "network {network}: {nearest} of 1000");
    }
    // A network next door that was never seen gets what its neighbours get.
    for (network, (prefix, _)) in NETWORKS.iter().enumerate() {
        let (front, last) = prefix.rsplit_once('.').unwrap();
        let neighbour = format!("{front}.{}.0", last.parse::<u8>().unwrap() ^ 1);
        let question = Question::new("mail.example.org", RecordType::A).subnet(&neighbour);
        let expected = [format!("192.0.2.{}", network + 1)];
        let nearest = (0..1000).filter(|_| data(&question.ask(&responder).answers) == expected).count();
        assert!(nearest >= 950, "beside network {network}: {nearest} of 1000");
    }
}
