//! What frontends and name servers tell each other of round trips: it is taken in whole or refused, and estimates stay numbers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postrider_api::pb::{RecordRoundTrips, RoundTripReport};
use postrider_dns::latency::prefix::Prefix;
use postrider_dns::latency::report;
use postrider_dns::latency::sample::samples;
use postrider_dns::latency::table::Table;
use prost::Message as _;

const NOW_S: u64 = 1_800_000_000;
const REGIONS: usize = 2;

fuzz_target!(|data: &[u8]| {
    let mut table = Table::new(64);
    if let Ok(record) = RecordRoundTrips::decode(data)
        && let Ok(samples) = samples(&record)
    {
        for sample in samples {
            table.record_mean(sample.network, 0, sample.round_trip, sample.connections, NOW_S);
        }
    }
    if let Ok(reported) = RoundTripReport::decode(data) {
        let before = table.len();
        if report::merge(&reported, &mut table, 1, NOW_S).is_err() {
            assert_eq!(table.len(), before, "all of it or nothing");
        }
    }
    for region in 0..REGIONS {
        for (network, measured) in table.measured_of(region) {
            assert!(measured.mean_us.is_finite() && measured.weight.is_finite(), "{network:?}: {measured:?}");
            let estimates = table.estimate(network, &[5000.0; REGIONS], NOW_S);
            assert!(estimates.round_trip_us.iter().all(|estimate| estimate.is_finite() && *estimate >= 0.0));
        }
        // What is told of it is what another table takes in.
        let mut other = Table::new(64);
        for told in report::reports(&table, region, "a", 0) {
            assert_eq!(report::merge(&told, &mut other, region, NOW_S), Ok(()));
        }
    }
    table.estimate(Prefix::new([192, 0, 2, 1].into(), 24), &[5000.0; REGIONS], NOW_S);
});
