//! What one `Accept` costs apply, and one list page, in mailboxes of 100 and of 100,000 messages over RocksDB.
//!
//! `cargo bench -p postrider-shard`. The message has a body of 50,000 bytes and answers an earlier one. `apply` is the state
//! machine alone, its writes thrown away; `apply and write` also puts them into the database, without a log of its own as the
//! storage node does. `body` is a copy of as many bytes, measured in the same run.

#![allow(missing_docs, reason = "criterion's macro makes a function without any")]

use bytes::Bytes;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use postrider_api::id::{BodyId, MessageIdHash, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_shard::store::{RocksReader, Txn};
use postrider_shard::{INBOX, apply, query};

const PREFIX: [u8; 5] = [1, 0, 0, 3, 0xe8];
const SHARD: ShardId = ShardId::MAILBOX_FIRST;
const BODY_BYTES: usize = 50_000;
const START_MS: i64 = 1_790_000_000_000;

struct Shard {
    _directory: tempfile::TempDir,
    db: rocksdb::DB,
    index: u64,
    text: Bytes,
}

fn user() -> UserId {
    UserId::new(ZoneId(1), Slot(7), [7; 12])
}

fn id16(n: u64) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(&n.to_be_bytes()).as_bytes()[..16]);
    id
}

impl Shard {
    /// One mailbox of `messages` messages, with small bodies so that it is made quickly.
    fn filled(messages: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory for the database");
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        options.set_enable_blob_files(true);
        options.set_min_blob_size(4096);
        let db = rocksdb::DB::open(&options, directory.path()).expect("a new database");
        let mut shard = Self { _directory: directory, db, index: 0, text: Bytes::from_static(b"small") };
        let create = Op::CreateAccount(pb::CreateAccount {
            user_id: user().to_bytes(),
            address: "user@bench.example".to_owned(),
            password_hash: "$argon2id$".to_owned(),
            quota_bytes: u64::MAX / 2,
            ..Default::default()
        });
        shard.carry_out(&[create]);
        for first in (0..messages).step_by(100) {
            let batch: Vec<Op> = (first..(first + 100).min(messages)).map(|n| shard.accept(n)).collect();
            shard.carry_out(&batch);
        }
        shard.text = Bytes::from(vec![b'x'; BODY_BYTES]);
        shard
    }

    fn accept(&self, n: u64) -> Op {
        let mailbox = |email: &str| pb::Mailbox { name: "Somebody Or Other".to_owned(), email: email.to_owned() };
        let hash = |n: u64| Bytes::copy_from_slice(&MessageIdHash(id16(n)).0);
        let message = pb::NewMessage {
            envelope: Some(pb::Envelope {
                from: vec![mailbox("sender@far.example")],
                to: vec![mailbox("user@bench.example")],
                subject: format!("Re: something that was said before, {n}"),
                date_ms: Some(START_MS),
                message_id: format!("{n}@far.example"),
                ..Default::default()
            }),
            preview: "What a list shows of a message, two lines or so of it, a hundred characters and a few more."
                .to_owned(),
            size: BODY_BYTES as u64,
            parts: vec![pb::Part { path: "1".to_owned(), content_type: "text/plain".to_owned(), ..Default::default() }],
            pieces: vec![pb::Piece { literal_length: self.text.len() as u64, ..Default::default() }],
            body: Some(pb::Body {
                body_id: BodyId(id16(n | 1 << 60)).to_bytes(),
                compression: pb::Compression::None.into(),
                text: self.text.clone(),
                text_length: self.text.len() as u64,
            }),
            message_id_hash: hash(n),
            // Threads of four.
            reference_hashes: if n.is_multiple_of(4) { Vec::new() } else { vec![hash(n / 4 * 4)] },
            ..Default::default()
        };
        Op::Accept(pb::Accept {
            mail_from: "sender@far.example".to_owned(),
            recipients: vec![pb::Recipient {
                user_id: user().to_bytes(),
                address: "user@bench.example".to_owned(),
                ..Default::default()
            }],
            message: Some(message),
            ..Default::default()
        })
    }

    fn command(&self, op: Op, index: u64) -> pb::Command {
        pb::Command {
            at_ms: START_MS + index as i64,
            request: Bytes::copy_from_slice(&id16(index | 1 << 61)),
            entropy: Bytes::copy_from_slice(&id16(index | 1 << 62)),
            op: Some(op),
            ..Default::default()
        }
    }

    fn apply(&self, command: &pb::Command, index: u64) -> rocksdb::WriteBatch {
        let reader = RocksReader::new(&self.db, PREFIX);
        let mut txn = Txn::new(&reader);
        apply(SHARD, &mut txn, index, command).expect("no invariant is broken");
        batch_of(txn)
    }

    fn carry_out(&mut self, ops: &[Op]) {
        let commands: Vec<pb::Command> =
            ops.iter().zip(self.index + 1..).map(|(op, index)| self.command(op.clone(), index)).collect();
        let reader = RocksReader::new(&self.db, PREFIX);
        let mut txn = Txn::new(&reader);
        for (command, index) in commands.iter().zip(self.index + 1..) {
            apply(SHARD, &mut txn, index, command).expect("no invariant is broken");
        }
        self.write(batch_of(txn));
        self.index += ops.len() as u64;
    }

    fn write(&self, batch: rocksdb::WriteBatch) {
        let mut options = rocksdb::WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).expect("the database takes writes");
    }
}

fn batch_of(txn: Txn<'_, RocksReader<'_>>) -> rocksdb::WriteBatch {
    let mut batch = rocksdb::WriteBatch::default();
    for (key, value) in txn.into_writes() {
        let mut whole = [0; 5 + postrider_shard::key::KEY_BYTES_MAX];
        let key = key.as_ref();
        whole[..5].copy_from_slice(&PREFIX);
        whole[5..5 + key.len()].copy_from_slice(key);
        match value {
            Some(value) => batch.put(&whole[..5 + key.len()], value),
            None => batch.delete(&whole[..5 + key.len()]),
        }
    }
    batch
}

fn benches(criterion: &mut Criterion) {
    let text = vec![b'x'; BODY_BYTES];
    criterion.bench_function("body", |b| b.iter(|| std::hint::black_box(text.clone())));
    for size in [100, 100_000] {
        let shard = Shard::filled(size);
        let mut n = size;
        let mut next = || {
            n += 1;
            shard.command(shard.accept(n), n + 2)
        };
        criterion.bench_function(&format!("accept/apply/{size}"), |b| {
            b.iter_batched(
                &mut next,
                |command| {
                    let reader = RocksReader::new(&shard.db, PREFIX);
                    let mut txn = Txn::new(&reader);
                    apply(SHARD, &mut txn, size + 2, &command).expect("no invariant is broken");
                    txn.into_writes()
                },
                BatchSize::LargeInput,
            )
        });
        criterion.bench_function(&format!("list a page of 50/{size}"), |b| {
            let ask = pb::Query {
                query: Some(pb::query::Query::ListMessages(pb::ListMessages {
                    user_id: user().to_bytes(),
                    folder_id: INBOX.0,
                    limit: 50,
                    ..Default::default()
                })),
            };
            let reader = RocksReader::new(&shard.db, PREFIX);
            b.iter(|| query(SHARD, &reader, START_MS, &ask).expect("the query makes sense"))
        });
        criterion.bench_function(&format!("accept/apply and write/{size}"), |b| {
            b.iter_batched(&mut next, |command| shard.write(shard.apply(&command, size + 2)), BatchSize::LargeInput)
        });
    }
}

criterion_group!(accept, benches);
criterion_main!(accept);
