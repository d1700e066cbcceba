//! Sweeps against shards and stores in memory, killed, frozen and raced by writers at every step (P-11).
//!
//! The shards are the real state machines. Between any two calls of a driver, writers pin, put, propose, deliver across shards
//! and delete; and after each of those steps every blob that a shard refers to has to be whole in a store.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use postrider_api::id::{BlobHash, BodyId, RequestId, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb::{self, Refusal, ShardKind, SweepPhase, answer::Answer, command::Op, outcome, query::Query};
use postrider_blob::{BlobError, BlobReader, BlobStore, Fault, Faulty, Listed, MemoryStore, Outage, Put, Rule, Zone};
use postrider_shard::store::{MemoryStore as Rows, Txn};
use postrider_shard::{INBOX, TRASH, apply, query, verify};
use tokio::sync::Notify;

use super::SweepOptions;
use super::driver::{Driver, Progress, SweepError};
use super::durable;
use super::pace::Pace;
use super::world::{World, ZoneView};

const REGIONS: [&str; 3] = ["seoul", "frankfurt", "virginia"];
const SHARDS: [ShardId; 3] = [ShardId(1000), ShardId(1001), ShardId(1002)];
const START_MS: i64 = 1_790_000_000_000;
const BLOBS: u8 = 10;

fn zone() -> Zone {
    Zone::new("world").unwrap()
}

fn content(n: u8) -> Bytes {
    Bytes::from(vec![n; 100 + usize::from(n)])
}

fn hash(n: u8) -> BlobHash {
    BlobHash::of(&content(n))
}

fn owner(shard: ShardId) -> UserId {
    UserId::new(ZoneId(1), Slot(shard.0 as u16), [7; 12])
}

/// A state machine and its rows.
struct Machine {
    shard: ShardId,
    rows: Rows,
    index: u64,
}

impl Machine {
    fn new(shard: ShardId) -> Self {
        Self { shard, rows: Rows::new(), index: 0 }
    }

    fn propose(&mut self, request: Option<RequestId>, op: Op) -> outcome::Result {
        self.index += 1;
        let mut entropy = [3; 16];
        entropy[..8].copy_from_slice(&self.index.to_be_bytes());
        let command = pb::Command {
            at_ms: START_MS + self.index as i64,
            request: request.map(RequestId::to_bytes).unwrap_or_default(),
            entropy: Bytes::copy_from_slice(&entropy),
            op: Some(op),
            ..Default::default()
        };
        let mut txn = Txn::new(&self.rows);
        let applied = apply(self.shard, &mut txn, self.index, &command).unwrap();
        let writes = txn.into_writes();
        self.rows.write(writes);
        applied.outcome.result.unwrap()
    }

    fn ask(&self, ask: Query) -> Answer {
        query(self.shard, &self.rows, START_MS, &pb::Query { query: Some(ask) }).unwrap().answer.unwrap()
    }

    /// Blobs that are referred to, and those that are pinned.
    fn blobs(&self) -> (BTreeSet<BlobHash>, BTreeSet<BlobHash>) {
        let (mut referred, mut pinned) = (BTreeSet::new(), BTreeSet::new());
        let Answer::Blobs(page) = self.ask(Query::ListBlobs(pb::ListBlobs::default())) else { panic!("a page") };
        for row in page.blobs {
            let (hash, blob) = (BlobHash::try_from(&row.hash[..]).unwrap(), row.blob.unwrap());
            if blob.references > 0 {
                referred.insert(hash);
            }
            if blob.pins > 0 {
                pinned.insert(hash);
            }
        }
        (referred, pinned)
    }
}

fn refusal(made: &outcome::Result) -> Option<Refusal> {
    match made {
        outcome::Result::Refused(refused) => Some(refused.refusal()),
        _ => None,
    }
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A writer on its way: a message with one file for a shard, or a delivery of it from another.
struct Writer {
    request: RequestId,
    shard: ShardId,
    blob: u8,
    /// Of a delivery.
    source: Option<(ShardId, u64)>,
    stage: Stage,
}

#[derive(PartialEq)]
enum Stage {
    Pinned,
    Durable,
}

struct State {
    shards: BTreeMap<ShardId, Machine>,
    placement: Machine,
    dice: Dice,
    writers: Vec<Writer>,
    made: u64,
    /// Shards that do not answer the sweep.
    silent: BTreeSet<ShardId>,
}

/// The zone, shared by drivers and writers.
struct Fake {
    state: Mutex<State>,
    stores: Vec<Arc<Faulty<MemoryStore>>>,
    busy: AtomicBool,
}

/// What a driver has in its hands: each call counts, and one of them may be its last.
#[derive(Clone)]
struct Hands {
    fake: Arc<Fake>,
    calls: Arc<AtomicU64>,
    /// Before this call, or after it, the driver stands still.
    stop_at: u64,
    stopped: Arc<Notify>,
    /// Goes on with what it was about to do.
    thaw: Arc<Notify>,
}

impl Hands {
    fn new(fake: &Arc<Fake>, stop_at: u64) -> Self {
        Self { fake: Arc::clone(fake), calls: Arc::default(), stop_at, stopped: Arc::default(), thaw: Arc::default() }
    }

    /// A moment before or after a call: the others act, and it may be the driver's last.
    async fn moment(&self) {
        if self.fake.busy.load(Ordering::Relaxed) {
            self.fake.act().await;
        }
        self.fake.check().await;
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.stop_at {
            self.stopped.notify_one();
            self.thaw.notified().await;
        }
    }

    fn stores(&self) -> Vec<Arc<dyn BlobStore>> {
        let wrap = |store: &Arc<Faulty<MemoryStore>>| {
            Arc::new(Touched { store: Arc::clone(store), hands: self.clone() }) as Arc<dyn BlobStore>
        };
        self.fake.stores.iter().map(wrap).collect()
    }
}

/// A store in a driver's hands.
struct Touched {
    store: Arc<Faulty<MemoryStore>>,
    hands: Hands,
}

macro_rules! touched {
    ($self:ident, $call:expr) => {{
        $self.hands.moment().await;
        let answer = $call.await;
        $self.hands.moment().await;
        answer
    }};
}

#[tonic::async_trait]
impl BlobStore for Touched {
    fn region(&self) -> &str {
        self.store.region()
    }

    async fn put(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<Put, BlobError> {
        touched!(self, self.store.put(zone, hash, content))
    }

    async fn replace(&self, zone: &Zone, hash: &BlobHash, content: Bytes) -> Result<(), BlobError> {
        touched!(self, self.store.replace(zone, hash, content))
    }

    async fn get(&self, zone: &Zone, hash: &BlobHash, range: Option<Range<u64>>) -> Result<BlobReader, BlobError> {
        touched!(self, self.store.get(zone, hash, range))
    }

    async fn head(&self, zone: &Zone, hash: &BlobHash) -> Result<Option<u64>, BlobError> {
        touched!(self, self.store.head(zone, hash))
    }

    async fn delete(&self, zone: &Zone, hash: &BlobHash) -> Result<(), BlobError> {
        touched!(self, self.store.delete(zone, hash))
    }

    async fn delete_version(&self, zone: &Zone, hash: &BlobHash, version: &str) -> Result<bool, BlobError> {
        touched!(self, self.store.delete_version(zone, hash, version))
    }

    async fn list(&self, zone: &Zone, after: Option<&BlobHash>, max: usize) -> Result<Vec<Listed>, BlobError> {
        touched!(self, self.store.list(zone, after, max))
    }
}

impl World for Hands {
    async fn view(&self, _: &str) -> Result<ZoneView, SweepError> {
        self.moment().await;
        let regions = || REGIONS.map(str::to_owned).into();
        Ok(ZoneView { stores: self.stores(), shards: SHARDS.into_iter().map(|shard| (shard, regions())).collect() })
    }

    async fn record(&self, step: pb::AdvanceSweep) -> Result<(), SweepError> {
        self.moment().await;
        let made = self.fake.state.lock().placement.propose(None, Op::AdvanceSweep(step));
        self.moment().await;
        match made {
            outcome::Result::Done(_) => Ok(()),
            made => {
                assert_eq!(refusal(&made), Some(Refusal::Conflict), "{made:?}");
                Err(SweepError::Overtaken)
            }
        }
    }

    async fn blobs(&self, shard: ShardId, after: Bytes, until: Bytes) -> Result<pb::BlobPage, SweepError> {
        self.moment().await;
        let page = self
            .fake
            .shard(shard, |machine| machine.ask(Query::ListBlobs(pb::ListBlobs { after, until, limit: 3 })))?;
        self.moment().await;
        match page {
            Answer::Blobs(page) => Ok(page),
            _ => Err(SweepError::Malformed),
        }
    }

    async fn condemn(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<Vec<Bytes>, SweepError> {
        self.moment().await;
        let condemn = Op::CondemnBlobs(pb::CondemnBlobs { batch, blobs });
        let made = self.fake.shard(shard, |machine| machine.propose(None, condemn))?;
        self.moment().await;
        match made {
            outcome::Result::BlobsCondemned(condemned) => Ok(condemned.kept),
            _ => Err(SweepError::Overtaken),
        }
    }

    async fn pardon(&self, shard: ShardId, batch: u64, blobs: Vec<Bytes>) -> Result<(), SweepError> {
        self.moment().await;
        let pardon = Op::PardonBlobs(pb::PardonBlobs { batch, blobs });
        self.fake.shard(shard, |machine| machine.propose(None, pardon))?;
        self.moment().await;
        Ok(())
    }
}

impl Fake {
    fn new(seed: u64) -> Arc<Self> {
        let mut shards = BTreeMap::new();
        for shard in SHARDS {
            let mut machine = Machine::new(shard);
            let account = pb::CreateAccount {
                user_id: owner(shard).to_bytes(),
                address: format!("u{shard}@world.example"),
                quota_bytes: 1 << 40,
                home_region: "seoul".to_owned(),
                password_hash: "x".to_owned(),
                ..Default::default()
            };
            machine.propose(None, Op::CreateAccount(account));
            shards.insert(shard, machine);
        }
        let mut placement = Machine::new(ShardId::PLACEMENT);
        for region in REGIONS {
            let region = pb::Region {
                name: region.to_owned(),
                zone: "world".to_owned(),
                store_address: format!("{region}.example:1"),
                ..Default::default()
            };
            placement.propose(None, Op::RegisterRegion(pb::RegisterRegion { region: Some(region) }));
        }
        let state =
            State { shards, placement, dice: Dice(seed), writers: Vec::new(), made: 0, silent: BTreeSet::new() };
        Arc::new(Self {
            state: Mutex::new(state),
            stores: REGIONS.map(|region| Arc::new(Faulty::new(MemoryStore::new(region)))).into(),
            busy: AtomicBool::new(true),
        })
    }

    fn sweep(&self) -> Option<pb::Sweep> {
        match self.state.lock().placement.ask(Query::ListSweeps(pb::ListSweeps {})) {
            Answer::Sweeps(sweeps) => sweeps.sweeps.into_iter().next(),
            other => panic!("{other:?}"),
        }
    }

    fn shard<T>(&self, shard: ShardId, work: impl FnOnce(&mut Machine) -> T) -> Result<T, SweepError> {
        let mut state = self.state.lock();
        if state.silent.contains(&shard) {
            return Err(crate::calls::CallError::Unreachable { shard }.into());
        }
        Ok(work(state.shards.get_mut(&shard).unwrap()))
    }

    /// One step of one of the writers, or of somebody who deletes.
    async fn act(&self) {
        let verb = self.state.lock().dice.roll(6);
        match verb {
            0 | 1 => self.begin(),
            2 | 3 => self.go_on().await,
            4 => self.delete_one(),
            _ => self.begin_delivery(),
        }
    }

    fn begin(&self) {
        let mut state = self.state.lock();
        let blob = state.dice.roll(u64::from(BLOBS)) as u8;
        let shard = SHARDS[state.dice.roll(3) as usize];
        pin(&mut state, shard, blob, None);
    }

    /// A message whose other recipient lives elsewhere: what an entry of the source's queue names is brought over.
    fn begin_delivery(&self) {
        let mut state = self.state.lock();
        let source = SHARDS[state.dice.roll(3) as usize];
        let target = SHARDS[state.dice.roll(3) as usize];
        let ask = Query::ListQueue(pb::ListQueue { limit: 1, after_entry: 0, ..Default::default() });
        let Answer::Queue(page) = state.shards[&source].ask(ask) else { panic!("a page") };
        let Some(entry) = page.entries.first().filter(|_| source != target) else { return };
        // A list of the queue leaves out what a message is made of.
        let ask = Query::GetQueueEntry(pb::GetQueueEntry { entry: entry.entry, with_body: false });
        let Answer::QueueEntry(whole) = state.shards[&source].ask(ask) else { panic!("an entry") };
        let message = whole.waiting.unwrap().message.unwrap();
        let blob = &message.pieces[1].blob;
        let Some(blob) = (0..BLOBS).find(|n| hash(*n).0[..] == blob[..]) else { return };
        pin(&mut state, target, blob, Some((source, entry.entry)));
    }

    async fn go_on(&self) {
        let (writer, dice) = {
            let mut state = self.state.lock();
            if state.writers.is_empty() {
                return;
            }
            let count = state.writers.len() as u64;
            let pick = state.dice.roll(count) as usize;
            (state.writers.swap_remove(pick), state.dice.roll(10))
        };
        let mut writer = writer;
        if dice == 0 {
            return; // it dies, and its pin stays
        }
        if writer.stage == Stage::Pinned {
            // Two of three regions, as a put does; of a delivery, what another region has.
            for (at, store) in self.stores.iter().enumerate() {
                if at as u64 != dice % 3 {
                    let has = store.put(&zone(), &hash(writer.blob), content(writer.blob)).await;
                    assert!(has.is_ok());
                }
            }
            writer.stage = Stage::Durable;
            self.state.lock().writers.push(writer);
            return;
        }
        propose(&mut self.state.lock(), &writer);
    }

    fn delete_one(&self) {
        let mut state = self.state.lock();
        let shard = SHARDS[state.dice.roll(3) as usize];
        let machine = state.shards.get_mut(&shard).unwrap();
        for folder in [TRASH, INBOX] {
            let ask = pb::ListMessages {
                user_id: owner(shard).to_bytes(),
                folder_id: folder.0,
                limit: 1,
                ..Default::default()
            };
            let Answer::Messages(page) = machine.ask(Query::ListMessages(ask)) else { panic!("a page") };
            let Some(row) = page.rows.first() else { continue };
            let update = pb::MessageUpdate { email_id: row.email_id.clone(), delete: true, ..Default::default() };
            let updates = pb::UpdateMessages { user_id: owner(shard).to_bytes(), updates: vec![update] };
            machine.propose(None, Op::UpdateMessages(updates));
            return;
        }
    }

    /// The promise: what a shard refers to is whole in a store.
    async fn check(&self) {
        let referred: BTreeSet<BlobHash> = {
            let state = self.state.lock();
            state.shards.values().flat_map(|machine| machine.blobs().0).collect()
        };
        for hash in referred {
            let mut copies = 0;
            for store in &self.stores {
                copies += usize::from(store.inner().head(&zone(), &hash).await.unwrap().is_some());
            }
            assert!(copies > 0, "a live blob is gone: {hash}");
        }
    }

    /// Nobody writes any more; pins of the dead go.
    fn rest(&self) {
        self.busy.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        state.writers.clear();
        let made = state.made;
        for machine in state.shards.values_mut() {
            for n in 0..made {
                machine.propose(None, Op::UnpinBlobs(pb::UnpinBlobs { request: request(n).to_bytes() }));
            }
        }
    }

    /// After two sweeps: every store has what is referred to, and nothing else.
    async fn check_tidy(&self) {
        let referred: BTreeSet<BlobHash> = {
            let state = self.state.lock();
            for machine in state.shards.values() {
                assert_eq!(verify(&machine.rows).unwrap().differences, Vec::<String>::new());
            }
            state.shards.values().flat_map(|machine| machine.blobs().0).collect()
        };
        for store in &self.stores {
            let held = store.inner().list(&zone(), None, 1000).await.unwrap();
            let held: BTreeSet<BlobHash> = held.into_iter().map(|row| row.hash).collect();
            assert_eq!(held, referred, "{}", store.region());
        }
    }
}

fn request(n: u64) -> RequestId {
    let mut id = [9; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    RequestId(id)
}

fn pin(state: &mut State, shard: ShardId, blob: u8, source: Option<(ShardId, u64)>) {
    let request = request(state.made);
    state.made += 1;
    let blobs = vec![pb::BlobRef { hash: hash(blob).to_bytes(), bytes: content(blob).len() as u64 }];
    let op = Op::PinBlobs(pb::PinBlobs { request: request.to_bytes(), blobs, ..Default::default() });
    let made = state.shards.get_mut(&shard).unwrap().propose(None, op);
    match refusal(&made) {
        None => state.writers.push(Writer { request, shard, blob, source, stage: Stage::Pinned }),
        Some(refusal) => assert_eq!(refusal, Refusal::BlobCondemned),
    }
}

fn message(writer: &Writer) -> pb::NewMessage {
    let text = Bytes::from_static(b"Subject: x\r\n\r\n");
    let blob = hash(writer.blob).to_bytes();
    pb::NewMessage {
        envelope: Some(pb::Envelope::default()),
        size: 1000,
        parts: vec![pb::Part { blob: blob.clone(), is_attachment: true, ..Default::default() }],
        pieces: vec![
            pb::Piece { literal_length: text.len() as u64, ..Default::default() },
            pb::Piece { blob, blob_length: content(writer.blob).len() as u64, ..Default::default() },
        ],
        body: Some(pb::Body {
            body_id: BodyId(writer.request.0).to_bytes(),
            text_length: text.len() as u64,
            text,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn propose(state: &mut State, writer: &Writer) {
    let recipient = |shard: ShardId| pb::Recipient {
        user_id: owner(shard).to_bytes(),
        address: String::new(),
        ..Default::default()
    };
    let Some((source, entry)) = writer.source else {
        // Sometimes to somebody of another shard as well: he waits in the queue.
        let mut recipients = vec![recipient(writer.shard)];
        if state.dice.roll(2) == 0 {
            recipients.push(pb::Recipient {
                user_id: Bytes::from_static(&[1; 16]),
                address: String::new(),
                ..Default::default()
            });
        }
        let accept = pb::Accept { recipients, message: Some(message(writer)), ..Default::default() };
        let made = state.shards.get_mut(&writer.shard).unwrap().propose(Some(writer.request), Op::Accept(accept));
        assert_eq!(refusal(&made), None, "{made:?}");
        return;
    };
    let target = pb::Target {
        user_id: owner(writer.shard).to_bytes(),
        address: String::new(),
        request: writer.request.to_bytes(),
        undelivered_ms: START_MS + (1 << 20),
    };
    let deliver = pb::Deliver {
        source_shard: source.0,
        entry,
        targets: vec![target],
        mail_from: String::new(),
        message: Some(message(writer)),
        leased_ms: START_MS,
    };
    let made = state.shards.get_mut(&writer.shard).unwrap().propose(Some(writer.request), Op::Deliver(deliver));
    assert_eq!(refusal(&made), None, "{made:?}");
    // And only then the source lets its reference go.
    let result = pb::RecipientResult {
        user_id: Bytes::from_static(&[1; 16]),
        settlement: pb::Settlement::Delivered.into(),
        ..Default::default()
    };
    let settle = pb::Settle { entry, results: vec![result], retry_ms: 0, ..Default::default() };
    state.shards.get_mut(&source).unwrap().propose(None, Op::Settle(settle));
}

fn options() -> SweepOptions {
    SweepOptions {
        bytes_per_s: u64::MAX,
        takeover: Duration::ZERO,
        condemn_patience: Duration::from_millis(20),
        delete_patience: Duration::from_millis(20),
        again: Duration::from_millis(5),
        ..SweepOptions::default()
    }
}

/// Begins sweeps and drives them until so many have ended in all.
async fn drive(hands: &Hands, sweeps: u64, reads: bool) {
    let mut driver = Driver::new(hands.clone(), "world".to_owned(), options());
    loop {
        let sweep = hands.fake.sweep().unwrap_or_default();
        match sweep.phase() {
            SweepPhase::Unspecified | SweepPhase::Ended if sweep.number >= sweeps => return,
            SweepPhase::Unspecified | SweepPhase::Ended => {
                let start = pb::StartSweep { zone: "world".to_owned(), reads };
                hands.fake.state.lock().placement.propose(None, Op::StartSweep(start));
            }
            _ => match driver.step(sweep).await {
                Ok(Progress::Stepped | Progress::Idle) => {}
                Err(SweepError::Overtaken) => {}
                Err(error) => {
                    tracing::debug!(%error, "again");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            },
        }
    }
}

/// A zone with some mail and some garbage in it.
async fn lived_in(seed: u64) -> Arc<Fake> {
    let fake = Fake::new(seed);
    for _ in 0..150 {
        fake.act().await;
    }
    fake
}

/// Kills the driver at every step of a sweep, one after the other: before a call takes effect, and after it.
#[tokio::test]
async fn killed_at_every_step_it_loses_nothing_and_leaves_nothing() {
    let mut kills = 0;
    // Some sweeps have fewer steps than that, and end before they are killed.
    for stop_at in 1..=120 {
        let fake = lived_in(stop_at).await;
        let hands = Hands::new(&fake, stop_at);
        let ended = tokio::select! {
            biased;
            () = drive(&hands, 1, false) => true,
            () = hands.stopped.notified() => false,
        };
        kills += u64::from(!ended);
        // The next leader, with everybody still at work; then two sweeps in peace.
        let next = Hands::new(&fake, 0);
        drive(&next, 2, false).await;
        fake.rest();
        drive(&next, 4, false).await;
        fake.check_tidy().await;
    }
    assert!(kills > 60, "only {kills} steps were tried");
}

/// A driver stands still anywhere, others go on for two sweeps, and then it goes on with what it was about to do.
#[tokio::test]
async fn frozen_at_every_step_it_does_no_harm_when_it_wakes() {
    let mut frozen = 0;
    for stop_at in 1..=120 {
        let fake = lived_in(1000 + stop_at).await;
        let hands = Hands::new(&fake, stop_at);
        let mut sleeper = Box::pin(drive(&hands, 1, false));
        let ended = tokio::select! {
            biased;
            () = &mut sleeper => true,
            () = hands.stopped.notified() => false,
        };
        if ended {
            continue;
        }
        frozen += 1;
        let next = Hands::new(&fake, 0);
        drive(&next, 3, false).await;
        // It wakes, and writers are at work meanwhile.
        hands.thaw.notify_one();
        sleeper.await;
        fake.rest();
        drive(&next, 5, false).await;
        fake.check_tidy().await;
    }
    assert!(frozen > 60, "only {frozen} steps were tried");
}

#[tokio::test]
async fn a_silent_shard_stops_all_deletion_and_nobody_waits_for_it() {
    let fake = lived_in(5).await;
    fake.rest();
    let garbage = hash(200);
    for store in &fake.stores {
        store.put(&zone(), &garbage, content(200)).await.unwrap();
    }
    let hands = Hands::new(&fake, 0);
    // It answers what it refers to, and then no more.
    let started = fake
        .state
        .lock()
        .placement
        .propose(None, Op::StartSweep(pb::StartSweep { zone: "world".to_owned(), reads: false }));
    assert_eq!(refusal(&started), None);
    let mut driver = Driver::new(hands.clone(), "world".to_owned(), options());
    while fake.sweep().unwrap().phase() != SweepPhase::Condemning {
        driver.step(fake.sweep().unwrap()).await.unwrap();
    }
    fake.state.lock().silent.insert(SHARDS[2]);
    driver.step(fake.sweep().unwrap()).await.unwrap();
    assert_eq!(fake.sweep().unwrap().phase(), SweepPhase::Pardoning);
    assert!(driver.step(fake.sweep().unwrap()).await.is_err(), "the silent one is not pardoned yet");
    assert_eq!(fake.stores[0].head(&zone(), &garbage).await, Ok(Some(300)));
    fake.state.lock().silent.clear();
    drive(&hands, 2, false).await;
    assert_eq!(fake.stores[0].head(&zone(), &garbage).await, Ok(None));
    fake.check_tidy().await;
}

#[tokio::test]
async fn no_shard_is_placed_while_garbage_is_condemned() {
    let fake = lived_in(6).await;
    fake.rest();
    fake.stores[0].put(&zone(), &hash(200), content(200)).await.unwrap();
    let hands = Hands::new(&fake, 0);
    let place = |fake: &Fake| {
        let mut state = fake.state.lock();
        let node = pb::Node { id: 1, region: "seoul".to_owned(), address: "n1:1".to_owned(), ..Default::default() };
        state.placement.propose(None, Op::RegisterNode(pb::RegisterNode { node: Some(node) }));
        let shard = pb::Shard {
            id: 1003,
            kind: ShardKind::Mailbox.into(),
            replicas: vec![1],
            home_region: "seoul".to_owned(),
            ..Default::default()
        };
        refusal(
            &state.placement.propose(None, Op::PlaceShard(pb::PlaceShard { shard: Some(shard), ..Default::default() })),
        )
    };
    let mut driver = Driver::new(hands.clone(), "world".to_owned(), options());
    let start = pb::StartSweep { zone: "world".to_owned(), reads: false };
    fake.state.lock().placement.propose(None, Op::StartSweep(start));
    while fake.sweep().unwrap().phase() != SweepPhase::Deleting {
        driver.step(fake.sweep().unwrap()).await.unwrap();
    }
    assert_eq!(place(&fake), Some(Refusal::Conflict));
    drive(&hands, 1, false).await;
    assert_eq!(place(&fake), None);
}

#[tokio::test]
async fn a_store_that_was_wiped_is_whole_again() {
    let fake = lived_in(7).await;
    fake.rest();
    let hands = Hands::new(&fake, 0);
    drive(&hands, 2, false).await;
    fake.stores[1].inner().wipe();
    drive(&hands, 3, false).await;
    fake.check_tidy().await;
    let last = fake.sweep().unwrap().last.unwrap();
    assert!(last.missing > 0 && last.restored == last.missing && last.lost == 0, "{last:?}");
}

#[tokio::test]
async fn damaged_copies_are_found_by_reading_and_mended() {
    let fake = lived_in(8).await;
    fake.rest();
    let hands = Hands::new(&fake, 0);
    drive(&hands, 2, false).await;
    let held = fake.stores[0].list(&zone(), None, 1000).await.unwrap();
    let bad = held.first().unwrap();
    fake.stores[0].inner().put_unchecked(&zone(), &bad.hash, Bytes::from(vec![0xee; bad.bytes as usize]));
    drive(&hands, 3, false).await;
    assert_eq!(fake.sweep().unwrap().last.unwrap().damaged, 0, "a list does not tell");
    drive(&hands, 4, true).await;
    let last = fake.sweep().unwrap().last.unwrap();
    assert_eq!((last.damaged, last.restored, last.lost), (1, 1, 0));
    let whole = fake.stores[0].get(&zone(), &bad.hash, None).await.unwrap().collect(1 << 20).await;
    assert!(whole.is_ok());
    // No store has it whole: that is said, and nothing else is done.
    for store in &fake.stores {
        store.inner().put_unchecked(&zone(), &bad.hash, Bytes::from(vec![0xee; bad.bytes as usize]));
    }
    drive(&hands, 5, true).await;
    assert_eq!(fake.sweep().unwrap().last.unwrap().lost, 1);
}

#[tokio::test]
async fn a_store_that_is_down_keeps_its_garbage_for_the_next_sweep() {
    let fake = lived_in(9).await;
    fake.rest();
    for store in &fake.stores {
        store.put(&zone(), &hash(200), content(200)).await.unwrap();
    }
    fake.stores[2].add(Rule::always(postrider_blob::Op::Delete, Fault::Fail(Outage::Connection)));
    let hands = Hands::new(&fake, 0);
    drive(&hands, 1, false).await;
    assert_eq!(fake.stores[0].head(&zone(), &hash(200)).await, Ok(None));
    assert_eq!(fake.stores[2].head(&zone(), &hash(200)).await, Ok(Some(300)));
    fake.stores[2].clear();
    drive(&hands, 3, false).await;
    fake.check_tidy().await;
}

#[tokio::test]
async fn a_shards_blobs_are_copied_to_where_it_goes() {
    let fake = lived_in(10).await;
    fake.rest();
    let hands = Hands::new(&fake, 0);
    drive(&hands, 2, false).await;
    fake.stores[2].inner().wipe();
    let view = hands.view("world").await.unwrap();
    let regions: BTreeSet<String> = ["virginia".to_owned()].into();
    let referred = fake.state.lock().shards[&SHARDS[0]].blobs().0;
    assert!(!referred.is_empty());
    let pace = Pace::new(u64::MAX);
    let copied = durable::ensure(&hands, &view, &zone(), SHARDS[0], &regions, &pace).await.unwrap();
    assert_eq!(copied, referred.len() as u64);
    for hash in &referred {
        assert!(fake.stores[2].head(&zone(), hash).await.unwrap().is_some());
    }
    let again = durable::ensure(&hands, &view, &zone(), SHARDS[0], &regions, &pace).await.unwrap();
    assert_eq!(again, 0);
}

/// The fault that the design closes, put back: without a pin, a writer that found its blob in the stores loses it.
#[tokio::test]
async fn without_pins_a_live_blob_would_go() {
    let fake = Fake::new(1);
    fake.busy.store(false, Ordering::Relaxed);
    for store in &fake.stores {
        store.put(&zone(), &hash(1), content(1)).await.unwrap();
    }
    let hands = Hands::new(&fake, 0);
    // The writer has seen it there, and proposes after the sweep: it is refused.
    drive(&hands, 1, false).await;
    let writer = Writer { request: request(1), shard: SHARDS[0], blob: 1, source: None, stage: Stage::Durable };
    let recipient =
        pb::Recipient { user_id: owner(SHARDS[0]).to_bytes(), address: String::new(), ..Default::default() };
    let accept = pb::Accept { recipients: vec![recipient], message: Some(message(&writer)), ..Default::default() };
    let made = fake.state.lock().shards.get_mut(&SHARDS[0]).unwrap().propose(Some(writer.request), Op::Accept(accept));
    assert_eq!(refusal(&made), Some(Refusal::BlobsNotPinned));
}
