//! Replication against stores in memory that fail as told.

use std::time::Instant;

use super::*;
use crate::{BLOB_BYTES_MAX, BlobReader, Fault, Faulty, MemoryStore, Op, Put, Rule};

/// A clock that stands still until it is told.
pub(super) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub(super) fn shared() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Duration::from_secs(1000))))
    }

    pub(super) fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        *self.0.lock()
    }
}

const REGIONS: [&str; 3] = ["seoul", "frankfurt", "virginia"];
const DEADLINE: Duration = Duration::from_secs(60);

struct Cluster {
    stores: Vec<Arc<Faulty<MemoryStore>>>,
    replicated: Replicated,
    clock: Arc<ManualClock>,
    zone: Zone,
}

fn cluster() -> Cluster {
    cluster_with(Tuning { hedge_after: Duration::from_secs(5), ..Tuning::default() })
}

fn cluster_with(tuning: Tuning) -> Cluster {
    let stores: Vec<_> = REGIONS.iter().map(|region| Arc::new(Faulty::new(MemoryStore::new(*region)))).collect();
    let clock = ManualClock::shared();
    let dynamic = stores.iter().map(|store| Arc::clone(store) as Arc<dyn BlobStore>).collect();
    let replicated = Replicated::with_tuning(dynamic, "frankfurt", clock.clone(), tuning);
    Cluster { stores, replicated, clock, zone: Zone::new("eu").unwrap() }
}

/// Content that is told apart from any other by its length.
fn blob(len: usize) -> (BlobHash, Bytes) {
    let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
    (BlobHash::of(&content), content.into())
}

impl Cluster {
    fn store(&self, region: &str) -> &Faulty<MemoryStore> {
        &self.stores[REGIONS.iter().position(|name| *name == region).unwrap()]
    }

    async fn has(&self, region: &str, hash: &BlobHash) -> bool {
        self.store(region).inner().get(&self.zone, hash, None).await.is_ok()
    }

    async fn put(&self, (hash, content): &(BlobHash, Bytes)) -> Result<Durable, BlobError> {
        self.replicated.put(&self.zone, hash, content.clone()).await
    }

    async fn read(&self, hash: &BlobHash) -> Result<Bytes, BlobError> {
        self.replicated.get(&self.zone, hash, None).await?.collect(BLOB_BYTES_MAX).await
    }

    /// Waits until every region has a good copy.
    async fn until_everywhere(&self, (hash, content): &(BlobHash, Bytes)) {
        let start = Instant::now();
        'again: loop {
            assert!(start.elapsed() < DEADLINE, "a copy is still missing");
            tokio::time::sleep(Duration::from_millis(5)).await;
            for region in REGIONS {
                let reader = self.store(region).inner().get(&self.zone, hash, None).await;
                let Ok(reader) = reader else { continue 'again };
                if reader.collect(BLOB_BYTES_MAX).await.as_ref() != Ok(content) {
                    continue 'again;
                }
            }
            return;
        }
    }
}

#[tokio::test]
async fn a_put_ends_up_everywhere_and_the_second_finds_it() {
    let cluster = cluster();
    let blob = blob(1000);
    let first = cluster.put(&blob).await.unwrap();
    assert!(first.regions.len() >= COPIES_MIN && !first.existed);
    cluster.until_everywhere(&blob).await;
    assert!(cluster.put(&blob).await.unwrap().existed);
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    assert_eq!(cluster.replicated.head(&cluster.zone, &blob.0).await, Ok(Some(1000)));
}

#[tokio::test]
async fn one_store_down_is_not_noticed_and_gets_its_copy_later() {
    let cluster = cluster();
    cluster.store("frankfurt").add(Rule::every(Fault::Fail(Outage::Connection)));
    let blob = blob(1000);
    let mut durable = cluster.put(&blob).await.unwrap().regions;
    durable.sort();
    assert_eq!(durable, ["seoul", "virginia"]);
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    assert!(!cluster.has("frankfurt", &blob.0).await);
    cluster.store("frankfurt").clear();
    cluster.clock.advance(Duration::from_secs(60));
    cluster.until_everywhere(&blob).await;
}

#[tokio::test]
async fn a_store_that_failed_is_left_alone_for_a_while() {
    let cluster = cluster();
    let seoul = cluster.store("seoul");
    seoul.add(Rule::every(Fault::Fail(Outage::Connection)));
    // The first put may return before the failure is noted; after the second, it has been.
    let start = Instant::now();
    for len in 1.. {
        assert!(start.elapsed() < DEADLINE, "every put still asks the store that is down");
        let before = seoul.calls(Op::Put);
        cluster.put(&blob(len)).await.unwrap();
        tokio::task::yield_now().await;
        if seoul.calls(Op::Put) == before {
            break;
        }
    }
    let rested = seoul.calls(Op::Put);
    for len in 2000..2020 {
        cluster.put(&blob(len)).await.unwrap();
    }
    assert_eq!(seoul.calls(Op::Put), rested);
    assert!(cluster.replicated.repairs_waiting() >= 20);
}

#[tokio::test]
async fn a_stalled_store_delays_nobody() {
    let cluster = cluster();
    cluster.store("virginia").add(Rule::every(Fault::Stall));
    for len in 0..50 {
        let blob = blob(len);
        tokio::time::timeout(Duration::from_secs(5), cluster.put(&blob)).await.expect("waited for it").unwrap();
        assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    }
}

#[tokio::test]
async fn a_stalled_and_a_failing_store_are_too_few_copies_in_bounded_time() {
    let cluster = cluster_with(Tuning { answer_max: Duration::from_millis(100), ..Tuning::default() });
    cluster.store("seoul").add(Rule::every(Fault::Stall));
    cluster.store("virginia").add(Rule::every(Fault::Fail(Outage::Timeout)));
    let ten = blob(10);
    let put = tokio::time::timeout(DEADLINE, cluster.put(&ten)).await.expect("waited for a stalled store");
    assert_eq!(put, Err(BlobError::TooFewCopies { durable: 1, needed: 2 }));
}

#[tokio::test]
async fn a_resting_store_is_asked_when_there_is_no_choice() {
    let cluster = cluster();
    for region in ["seoul", "virginia"] {
        cluster.store(region).add(Rule::every(Fault::Fail(Outage::Connection)));
    }
    assert_eq!(cluster.put(&blob(1)).await, Err(BlobError::TooFewCopies { durable: 1, needed: 2 }));
    cluster.store("seoul").clear(); // back, and still resting by the clock
    assert!(cluster.put(&blob(2)).await.is_ok());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_no_copy_and_no_harm() {
    let cluster = cluster();
    for region in ["seoul", "virginia"] {
        cluster.store(region).add(Rule::once(Op::Put, Fault::LoseAnswer(Outage::Connection)));
    }
    let blob = blob(7);
    assert_eq!(cluster.put(&blob).await, Err(BlobError::TooFewCopies { durable: 1, needed: 2 }));
    let again = cluster.put(&blob).await.unwrap();
    assert!(again.existed);
}

#[tokio::test]
async fn wrong_or_oversized_content_is_refused() {
    let cluster = cluster();
    let wrong = (BlobHash::of(b"other"), Bytes::from_static(b"this"));
    assert!(matches!(cluster.put(&wrong).await, Err(BlobError::Invalid { .. })));
    let large = Bytes::from(vec![0; BLOB_BYTES_MAX as usize + 1]);
    assert_eq!(cluster.put(&(BlobHash::of(b""), large)).await, Err(BlobError::TooLarge { max: BLOB_BYTES_MAX }));
    for region in REGIONS {
        assert_eq!(cluster.store(region).calls(Op::Put), 0);
    }
}

#[tokio::test]
async fn corruption_is_served_from_elsewhere_and_mended() {
    let cluster = cluster();
    let blob = blob(100_000);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    let mut bad = blob.1.to_vec();
    bad[50_000] ^= 4;
    cluster.store("frankfurt").inner().put_unchecked(&cluster.zone, &blob.0, bad.into());
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    cluster.until_everywhere(&blob).await;
    assert_eq!(cluster.store("frankfurt").calls(Op::Replace), 1);
}

#[tokio::test]
async fn a_bit_flipped_on_the_way_costs_no_repair() {
    let cluster = cluster();
    let blob = blob(100_000);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    cluster.store("frankfurt").add(Rule::once(Op::Get, Fault::FlipBit { at: 99_999 }));
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    let start = Instant::now();
    while cluster.replicated.repairs_waiting() > 0 {
        assert!(start.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster.store("frankfurt").calls(Op::Replace), 0);
}

#[tokio::test]
async fn large_reads_go_on_elsewhere_at_the_same_byte() {
    for fault in [Fault::Cut { after: 1_000_001 }, Fault::Fail(Outage::Busy), Fault::Missing] {
        let cluster = cluster();
        let blob = blob(9 * 1024 * 1024);
        cluster.put(&blob).await.unwrap();
        cluster.until_everywhere(&blob).await;
        cluster.store("frankfurt").add(Rule::once(Op::Get, fault));
        assert!(cluster.read(&blob.0).await.unwrap() == blob.1, "{fault:?}");
        cluster.store("frankfurt").add(Rule::once(Op::Get, fault));
        let range = 5_000..7 * 1024 * 1024;
        let part = cluster.replicated.get(&cluster.zone, &blob.0, Some(range.clone())).await.unwrap();
        assert_eq!(part.blob_len(), blob.1.len() as u64);
        let part = part.collect(BLOB_BYTES_MAX).await.unwrap();
        assert!(part == blob.1.slice(range.start as usize..range.end as usize), "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_that_falls_silent_goes_on_elsewhere() {
    let cluster = cluster_with(Tuning { idle_max: Duration::from_millis(100), ..Tuning::default() });
    let blob = blob(9 * 1024 * 1024);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    cluster.store("frankfurt").add(Rule::once(Op::Get, Fault::Hang { after: 3_000_000 }));
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
}

#[tokio::test]
async fn a_large_bad_copy_is_an_error_once_and_then_avoided() {
    let cluster = cluster();
    let blob = blob(9 * 1024 * 1024);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    let mut bad = blob.1.to_vec();
    bad[1] ^= 4;
    cluster.store("frankfurt").inner().put_unchecked(&cluster.zone, &blob.0, bad.into());
    assert_eq!(cluster.read(&blob.0).await.err(), Some(BlobError::corrupt("frankfurt")));
    assert!(cluster.read(&blob.0).await.unwrap() == blob.1);
    cluster.until_everywhere(&blob).await;
}

#[tokio::test]
async fn missing_copies_are_found_by_reads_and_by_the_sweep() {
    let cluster = cluster();
    let (read, swept) = (blob(10), blob(20));
    for blob in [&read, &swept] {
        cluster.store("virginia").inner().put(&cluster.zone, &blob.0, blob.1.clone()).await.unwrap();
    }
    assert!(cluster.read(&read.0).await.unwrap() == read.1);
    cluster.until_everywhere(&read).await;
    let repaired = cluster.replicated.repair(&cluster.zone, &swept.0).await;
    assert_eq!(repaired, Ok(Repaired { present: 1, mended: 2 }));
    let repaired = cluster.replicated.repair(&cluster.zone, &swept.0).await;
    assert_eq!(repaired, Ok(Repaired { present: 3, mended: 0 }));
    let nowhere = cluster.replicated.repair(&cluster.zone, &blob(30).0).await;
    assert_eq!(nowhere, Err(BlobError::NotFound));
}

#[tokio::test]
async fn not_found_is_only_said_when_every_store_says_so() {
    let cluster = cluster();
    let hash = blob(1).0;
    assert_eq!(cluster.read(&hash).await, Err(BlobError::NotFound));
    assert_eq!(cluster.replicated.head(&cluster.zone, &hash).await, Ok(None));
    cluster.store("virginia").add(Rule::every(Fault::Fail(Outage::Connection)));
    assert!(matches!(cluster.read(&hash).await, Err(BlobError::Unavailable { .. })));
    assert!(matches!(cluster.replicated.head(&cluster.zone, &hash).await, Err(BlobError::Unavailable { .. })));
}

#[tokio::test]
async fn a_slow_store_is_overtaken_and_then_left_alone() {
    let cluster = cluster_with(Tuning { hedge_after: Duration::from_millis(20), ..Tuning::default() });
    let blob = blob(100);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    cluster.store("frankfurt").add(Rule::always(Op::Get, Fault::Stall));
    let before = cluster.store("frankfurt").calls(Op::Get);
    for _ in 0..10 {
        let read = tokio::time::timeout(DEADLINE, cluster.read(&blob.0)).await.expect("waited for a stalled store");
        assert!(read.unwrap() == blob.1);
    }
    assert_eq!(cluster.store("frankfurt").calls(Op::Get) - before, 3);
}

#[tokio::test]
async fn views_keep_to_their_regions() {
    let cluster = cluster();
    let view = cluster.replicated.in_regions(["virginia", "frankfurt", "atlantis"]);
    assert_eq!(view.regions().collect::<Vec<_>>(), ["frankfurt", "virginia"]);
    let (hash, content) = blob(100);
    view.put(&cluster.zone, &hash, content.clone()).await.unwrap();
    view.get(&cluster.zone, &hash, None).await.unwrap();
    assert_eq!(view.repair(&cluster.zone, &hash).await, Ok(Repaired { present: 2, mended: 0 }));
    assert_eq!(cluster.store("seoul").calls(Op::Put), 0);
    assert!(!cluster.has("seoul", &hash).await, "residency");
    let alone = cluster.replicated.in_regions(["seoul"]);
    let too_few = alone.put(&cluster.zone, &hash, content).await;
    assert_eq!(too_few, Err(BlobError::TooFewCopies { durable: 1, needed: 2 }));
}

#[tokio::test]
async fn a_delete_reaches_all_or_says_so() {
    let cluster = cluster();
    let blob = blob(100);
    cluster.put(&blob).await.unwrap();
    cluster.until_everywhere(&blob).await;
    cluster.store("seoul").add(Rule::once(Op::Delete, Fault::Fail(Outage::Busy)));
    assert!(cluster.replicated.delete(&cluster.zone, &blob.0).await.is_err());
    assert!(cluster.has("seoul", &blob.0).await);
    cluster.replicated.delete(&cluster.zone, &blob.0).await.unwrap();
    for region in REGIONS {
        assert!(!cluster.has(region, &blob.0).await);
    }
}

#[tokio::test]
async fn zones_share_nothing() {
    let cluster = cluster();
    let blob = blob(100);
    cluster.put(&blob).await.unwrap();
    let other = Zone::new("us").unwrap();
    let read: Result<BlobReader, _> = cluster.replicated.get(&other, &blob.0, None).await;
    assert!(matches!(read, Err(BlobError::NotFound)));
    let stored = cluster.store("seoul").put(&other, &blob.0, blob.1.clone()).await;
    assert_eq!(stored, Ok(Put::Stored), "no dedup across zones");
}

#[tokio::test]
async fn close_waits_for_what_goes_on() {
    let cluster = cluster();
    cluster.store("virginia").add(Rule::once(Op::Put, Fault::Delay(Duration::from_millis(100))));
    let blob = blob(100);
    cluster.put(&blob).await.unwrap();
    cluster.replicated.close().await;
    assert!(cluster.has("virginia", &blob.0).await);
}
