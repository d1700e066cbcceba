//! What the shard map costs at 100,000 shards of three replicas on 1,000 nodes: the whole of it, and one change.
//!
//! `cargo bench -p postrider-shard --bench map`. `whole` and `delta` are what placement does for one who asks, over RocksDB: rows read and the
//! answer encoded; `take in` is what a node or a router does with it: decoded, and put into the map that it has. The index that each of
//! them makes of a map is not in it. The sizes are printed first.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use postrider_api::id::ShardId;
use postrider_api::pb::command::Op;
use postrider_api::pb::map_update::Update;
use postrider_api::pb::{self, answer};
use postrider_shard::store::{RocksReader, Txn};
use postrider_shard::{apply, query};
use prost::Message;

const PREFIX: [u8; 5] = [1, 0, 0, 0, 1];
const NODES: u64 = 1_000;
const SHARDS: u32 = 100_000;
const REGIONS: [&str; 5] = ["seoul", "frankfurt", "virginia", "sydney", "lagos"];
const START_MS: i64 = 1_790_000_000_000;

struct Placement {
    _directory: tempfile::TempDir,
    db: rocksdb::DB,
    index: u64,
}

impl Placement {
    fn filled() -> Self {
        let directory = tempfile::tempdir().expect("a directory for the database");
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = rocksdb::DB::open(&options, directory.path()).expect("a new database");
        let mut placement = Self { _directory: directory, db, index: 0 };
        for region in REGIONS {
            let region = pb::Region {
                name: region.to_owned(),
                zone: "world".to_owned(),
                store_address: "10.0.0.1:9000".to_owned(),
                ..Default::default()
            };
            placement.carry_out(Op::RegisterRegion(pb::RegisterRegion { region: Some(region) }));
        }
        for id in 1..=NODES {
            let region = REGIONS[id as usize % REGIONS.len()].to_owned();
            let node =
                pb::Node { id, region, address: format!("10.0.{}.{}:7000", id / 250, id % 250), ..Default::default() };
            placement.carry_out(Op::RegisterNode(pb::RegisterNode { node: Some(node) }));
        }
        for n in 0..SHARDS {
            // Three nodes in three regions.
            let first = u64::from(n) % (NODES - 3) + 1;
            let shard = pb::Shard {
                id: ShardId::MAILBOX_FIRST.0 + n,
                kind: pb::ShardKind::Mailbox.into(),
                replicas: vec![first, first + 1, first + 2],
                home_region: REGIONS[first as usize % REGIONS.len()].to_owned(),
                incarnation: u64::from(n) << 32 | 7,
                ..Default::default()
            };
            placement.carry_out(Op::PlaceShard(pb::PlaceShard { shard: Some(shard), ..Default::default() }));
        }
        placement
    }

    fn carry_out(&mut self, op: Op) {
        self.index += 1;
        let command = pb::Command { at_ms: START_MS, op: Some(op), ..Default::default() };
        let reader = RocksReader::new(&self.db, PREFIX);
        let mut txn = Txn::new(&reader);
        let applied = apply(ShardId::PLACEMENT, &mut txn, self.index, &command).expect("the state machine takes it");
        let refused = matches!(applied.outcome.result, Some(pb::outcome::Result::Refused(_)));
        assert!(!refused, "{:?}", applied.outcome);
        let mut batch = rocksdb::WriteBatch::default();
        for (key, value) in txn.into_writes() {
            let prefixed = [&PREFIX, key.as_ref()].concat();
            match value {
                Some(value) => batch.put(prefixed, value),
                None => batch.delete(prefixed),
            }
        }
        self.db.write(batch).expect("the batch is written");
    }

    fn ask(&self, known_version: u64) -> Vec<u8> {
        let reader = RocksReader::new(&self.db, PREFIX);
        let ask = pb::Query { query: Some(pb::query::Query::GetShardMap(pb::GetShardMap { known_version })) };
        query(ShardId::PLACEMENT, &reader, START_MS, &ask).expect("an answer").encode_to_vec()
    }
}

fn update(answer: &[u8]) -> Update {
    match pb::Answer::decode(answer).expect("an answer").answer {
        Some(answer::Answer::ShardMap(update)) => update.update.expect("an update"),
        other => panic!("{other:?}"),
    }
}

fn whole(answer: &[u8]) -> pb::ShardMap {
    match update(answer) {
        Update::Whole(map) => map,
        Update::Delta(_) => panic!("a delta"),
    }
}

fn bench(criterion: &mut Criterion) {
    let mut placement = Placement::filled();
    let before = whole(&placement.ask(0));
    let shard = ShardId::MAILBOX_FIRST.0 + SHARDS / 2;
    let placed = before.shards.iter().find(|placed| placed.id == shard).expect("it is placed");
    let replicas = vec![placed.replicas[0], placed.replicas[1], placed.replicas[2] + 5];
    placement.carry_out(Op::SetReplicas(pb::SetReplicas { shard, replicas, ..Default::default() }));
    let (everything, change) = (placement.ask(0), placement.ask(before.version));
    println!("the whole map has {} bytes, the change of one shard {}", everything.len(), change.len());

    let mut group = criterion.benchmark_group("map of 100,000 shards");
    group.sample_size(20);
    group.bench_function("whole", |bencher| bencher.iter(|| placement.ask(0)));
    group.bench_function("delta", |bencher| bencher.iter(|| placement.ask(before.version)));
    group.bench_function("take in the whole", |bencher| bencher.iter(|| whole(&everything)));
    group.bench_function("take in a delta", |bencher| {
        bencher.iter_batched(
            || (),
            |()| {
                let mut map = before.clone();
                let Update::Delta(delta) = update(&change) else { panic!("the whole") };
                assert!(postrider_api::map::apply(&mut map, delta));
                map
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
