//! A cluster in memory, as far as mail passes through it, with faults to order: for tests.
//!
//! It keeps to the contract of the router and the shards: commands are carried out once under their request id, transfers once
//! under theirs, leases are fenced. What it is told to lose, it loses the way a network does.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use postrider_api::address::Address;
use postrider_api::env::{Clock, SystemClock};
use postrider_api::id::{EmailId, ModSeq, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb::command::Op;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, Settlement, ShardKind, answer, query};
use postrider_router::{Answered, ReadMode, RouteError, WatchItem};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Cluster;

/// The first zone's domain.
pub(crate) const DOMAIN: &str = "postrider.example";
/// The first zone's directory shard.
pub(crate) const DIRECTORY: ShardId = ShardId(2);

/// Each has a replica of every shard of the first zone.
pub(crate) const REGIONS: [&str; 3] = ["seoul", "frankfurt", "virginia"];

/// The second zone's domain, which is in the map once the zone has a shard ([`MailCluster::add_zone`]).
pub(crate) const OTHER_DOMAIN: &str = "postrider-two.example";
/// The second zone's directory shard.
pub(crate) const OTHER_DIRECTORY: ShardId = ShardId(3);
/// The second zone's only mailbox shard.
pub(crate) const OTHER_MAILBOX: ShardId = ShardId(1100);
/// Each has a replica of every shard of the second zone.
pub(crate) const OTHER_REGIONS: [&str; 3] = ["osaka", "paris", "oregon"];

const ZONES: [(ZoneId, &str); 2] = [(ZoneId(1), "all"), (ZoneId(2), "other")];

/// What befalls calls to one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No replica leads: certainly not carried out.
    NoQuorum,
    /// Overloaded: certainly not carried out.
    Busy,
    /// Carried out, but the next so many answers are lost.
    LosesReplies(u32),
    /// Not carried out, but nobody can tell.
    Swallows,
}

/// A message in a mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) user: UserId,
    pub(crate) mail_from: String,
    pub(crate) message: pb::NewMessage,
}

impl Kept {
    /// The raw message, when nothing was cut and nothing compressed.
    pub(crate) fn raw(&self) -> Vec<u8> {
        let body = self.message.body.as_ref().expect("a message has a body");
        match body.compression() {
            pb::Compression::None => body.text.to_vec(),
            pb::Compression::Zstd => zstd::decode_all(&body.text[..]).expect("ingest compresses rightly"),
        }
    }
}

#[derive(Default)]
struct Shard {
    fault: Option<Fault>,
    mailboxes: HashSet<UserId>,
    full: HashSet<UserId>,
    /// For whom as much waits as may.
    congested: HashSet<UserId>,
    kept: Vec<Kept>,
    outcomes: HashMap<Bytes, pb::Outcome>,
    transfers: HashMap<Bytes, pb::Delivery>,
    forgotten: Vec<Bytes>,
    queue: BTreeMap<u64, Queued>,
    entry_last: u64,
    fence_last: u64,
    proposals: u32,
    /// What came back of messages.
    feedback: Vec<pb::RecordFeedback>,
}

struct Queued {
    record: pb::QueueRecord,
    body: pb::BodyRecord,
    due: Instant,
    lease: Option<(u64, Instant)>,
}

/// The cluster.
pub(crate) struct MailCluster {
    map: watch::Sender<Arc<pb::ShardMap>>,
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    directory: Mutex<HashMap<String, (UserId, ShardId)>>,
    located: Mutex<HashMap<UserId, ShardId>>,
    changed: Notify,
    moves: Mutex<HashMap<ShardId, Vec<&'static str>>>,
    /// Domains and their zones that placement knows and the map does not yet.
    pub(crate) unpublished: Mutex<HashMap<String, String>>,
    /// How long each proposal takes.
    pub(crate) takes: Mutex<Duration>,
    pub(crate) look_ups: Mutex<u32>,
}

impl MailCluster {
    /// Mailbox shards 1000, 1001 and so on, in one zone.
    pub(crate) fn new(mailbox_shards: u32) -> Arc<Self> {
        let zone = |(id, name): (ZoneId, &str)| pb::Zone { name: name.to_owned(), id: id.0.into() };
        let node = |(id, region): (u64, &str)| pb::Node { id, region: region.to_owned(), ..pb::Node::default() };
        let mut map = pb::ShardMap {
            version: 1,
            regions: REGIONS.map(|region| in_zone(region, ZONES[0].1)).to_vec(),
            nodes: (1..).zip(REGIONS).map(node).collect(),
            domains: vec![pb::Domain { name: DOMAIN.to_owned(), zone: ZONES[0].1.to_owned(), ..Default::default() }],
            zones: ZONES.map(zone).to_vec(),
            ..pb::ShardMap::default()
        };
        map.shards.push(placed(DIRECTORY, ShardKind::Directory));
        let mut shards = BTreeMap::from([ShardId::PLACEMENT, DIRECTORY].map(|shard| (shard, Shard::default())));
        for number in 0..mailbox_shards {
            let shard = ShardId(ShardId::MAILBOX_FIRST.0 + number);
            map.shards.push(placed(shard, ShardKind::Mailbox));
            shards.insert(shard, Shard::default());
        }
        Arc::new(Self {
            map: watch::Sender::new(Arc::new(map)),
            shards: Mutex::new(shards),
            directory: Mutex::default(),
            located: Mutex::default(),
            changed: Notify::new(),
            moves: Mutex::default(),
            unpublished: Mutex::default(),
            takes: Mutex::default(),
            look_ups: Mutex::default(),
        })
    }

    /// Adds a mailbox shard.
    pub(crate) fn add_shard(&self, shard: ShardId) {
        self.shards.lock().insert(shard, Shard::default());
        self.map.send_modify(|map| {
            let map = Arc::make_mut(map);
            map.version += 1;
            map.shards.push(placed(shard, ShardKind::Mailbox));
        });
    }

    /// Adds the second zone with its regions, its directory shard and its mailbox shard.
    pub(crate) fn add_zone(&self) {
        for shard in [OTHER_DIRECTORY, OTHER_MAILBOX] {
            self.shards.lock().insert(shard, Shard::default());
        }
        self.map.send_modify(|map| {
            let map = Arc::make_mut(map);
            map.version += 1;
            map.regions.extend(OTHER_REGIONS.map(|region| in_zone(region, ZONES[1].1)));
            let node = |(id, region): (u64, &str)| pb::Node { id, region: region.to_owned(), ..pb::Node::default() };
            map.nodes.extend((4..).zip(OTHER_REGIONS).map(node));
            let there = |shard| pb::Shard { zone: ZONES[1].1.to_owned(), replicas: vec![4, 5, 6], ..shard };
            map.shards.push(there(placed(OTHER_DIRECTORY, ShardKind::Directory)));
            map.shards.push(there(placed(OTHER_MAILBOX, ShardKind::Mailbox)));
            map.domains.push(pb::Domain {
                name: OTHER_DOMAIN.to_owned(),
                zone: ZONES[1].1.to_owned(),
                ..Default::default()
            });
        });
    }

    /// Gives a shard replicas in these regions of the first zone.
    pub(crate) fn place(&self, shard: ShardId, regions: &[&str]) {
        self.map.send_modify(|map| {
            let map = Arc::make_mut(map);
            let mut replicas = Vec::new();
            for region in regions {
                if map.regions.iter().all(|known| known.name != *region) {
                    map.regions.push(in_zone(region, ZONES[0].1));
                }
                // Numbers that no other node has.
                let id = 100 + map.nodes.len() as u64;
                map.nodes.push(pb::Node { id, region: (*region).to_owned(), ..pb::Node::default() });
                replicas.push(id);
            }
            let placed = map.shards.iter_mut().find(|placed| placed.id == shard.0).expect("a shard of the test");
            (placed.replicas, placed.epoch) = (replicas, placed.epoch + 1);
        });
    }

    /// The same, once the next command for the shard has come: whoever proposes it did not know yet.
    pub(crate) fn place_behind_the_map(&self, shard: ShardId, regions: &[&'static str]) {
        self.moves.lock().insert(shard, regions.to_vec());
    }

    /// Adds an account, in the domain of the shard's zone.
    pub(crate) fn add_user(&self, name: &str, shard: ShardId) -> UserId {
        let (zone, domain) = match shard {
            OTHER_MAILBOX => (ZONES[1].0, OTHER_DOMAIN),
            _ => (ZONES[0].0, DOMAIN),
        };
        let address = Address::parse(&format!("{name}@{domain}")).expect("a name for a test");
        let mut random = [0; 12];
        random.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..12]);
        let user = UserId::new(zone, address.slot(), random);
        self.directory.lock().insert(address.as_str().to_owned(), (user, shard));
        self.on(shard, |shard| shard.mailboxes.insert(user));
        user
    }

    /// Takes an account away.
    pub(crate) fn remove_user(&self, user: UserId) {
        self.directory.lock().retain(|_, (known, _)| *known != user);
        for shard in self.shards.lock().values_mut() {
            shard.mailboxes.remove(&user);
        }
    }

    pub(crate) fn fill(&self, user: UserId, shard: ShardId) {
        self.on(shard, |shard| shard.full.insert(user));
    }

    /// Lets as much wait for the user in `shard` as may.
    pub(crate) fn congest(&self, user: UserId, shard: ShardId) {
        self.on(shard, |shard| shard.congested.insert(user));
    }

    pub(crate) fn set_fault(&self, shard: ShardId, fault: Option<Fault>) {
        self.on(shard, |shard| shard.fault = fault);
        self.changed.notify_waiters();
    }

    /// Messages of a user, in the order of arrival.
    pub(crate) fn inbox(&self, user: UserId) -> Vec<Kept> {
        let shards = self.shards.lock();
        shards.values().flat_map(|shard| &shard.kept).filter(|kept| kept.user == user).cloned().collect()
    }

    /// What was recorded as having come back.
    pub(crate) fn feedback(&self) -> Vec<pb::RecordFeedback> {
        self.shards.lock().values().flat_map(|shard| shard.feedback.clone()).collect()
    }

    /// All messages in all mailboxes.
    pub(crate) fn kept(&self) -> usize {
        self.shards.lock().values().map(|shard| shard.kept.len()).sum()
    }

    /// Entries that wait in a shard's queue.
    pub(crate) fn waiting(&self, shard: ShardId) -> Vec<pb::QueueRecord> {
        self.on(shard, |shard| shard.queue.values().map(|queued| queued.record.clone()).collect())
    }

    pub(crate) fn proposals(&self, shard: ShardId) -> u32 {
        self.on(shard, |shard| shard.proposals)
    }

    /// Transfers that a shard remembers, and has forgotten.
    pub(crate) fn transfers(&self, shard: ShardId) -> (usize, usize) {
        self.on(shard, |shard| (shard.transfers.len(), shard.forgotten.len()))
    }

    /// Puts an entry into a shard's queue, as `Accept` does for recipients who live elsewhere.
    pub(crate) fn enqueue(&self, shard: ShardId, users: &[UserId], text: &str) -> u64 {
        self.enqueue_message(shard, users, &message(text))
    }

    /// The same, with a message of more than text.
    pub(crate) fn enqueue_message(&self, shard: ShardId, users: &[UserId], message: &pb::NewMessage) -> u64 {
        let recipients = users.iter().map(|user| pb::Recipient {
            user_id: user.to_bytes(),
            address: String::new(),
            ..Default::default()
        });
        let entry = self.on(shard, |shard| shard.enqueue("", recipients.collect(), message));
        self.changed.notify_waiters();
        entry
    }

    /// Puts an entry for addresses outside into the shard of whoever sends it, as `Send` does.
    pub(crate) fn enqueue_outside(&self, shard: ShardId, sender: UserId, to: Vec<pb::Recipient>, text: &str) -> u64 {
        let entry = self.on(shard, |shard| {
            let entry = shard.enqueue("sender@postrider.example", to, &message(text));
            if let Some(queued) = shard.queue.get_mut(&entry) {
                queued.record.sender_user_id = sender.to_bytes();
            }
            entry
        });
        self.changed.notify_waiters();
        entry
    }

    /// The same, from the null reverse-path.
    pub(crate) fn enqueue_from_nobody(&self, shard: ShardId, to: Vec<pb::Recipient>, text: &str) {
        self.on(shard, |shard| shard.enqueue("", to, &message(text)));
        self.changed.notify_waiters();
    }

    /// Makes an entry older by so much.
    pub(crate) fn age(&self, shard: ShardId, entry: u64, by_ms: i64) {
        self.on(shard, |shard| {
            if let Some(queued) = shard.queue.get_mut(&entry) {
                queued.record.created_ms -= by_ms;
                queued.record.pending.iter_mut().for_each(|pending| pending.since_ms -= by_ms);
            }
        });
    }

    fn on<T>(&self, shard: ShardId, work: impl FnOnce(&mut Shard) -> T) -> T {
        work(self.shards.lock().get_mut(&shard).expect("a shard of the test"))
    }

    /// What happens to a call before it is carried out.
    async fn reach(&self, shard: ShardId, deadline: Duration) -> Result<(), RouteError> {
        let takes = *self.takes.lock();
        tokio::time::sleep(takes).await;
        let fault = self.shards.lock().get(&shard).ok_or(RouteError::UnknownShard)?.fault;
        match fault {
            Some(Fault::NoQuorum) => {
                tokio::time::sleep(deadline.min(Duration::from_millis(50))).await;
                Err(RouteError::NoQuorum)
            }
            Some(Fault::Busy) => Err(RouteError::Busy),
            Some(Fault::Swallows) => {
                tokio::time::sleep(deadline).await;
                Err(RouteError::TimedOut { may_have_happened: true })
            }
            Some(Fault::LosesReplies(_)) | None => Ok(()),
        }
    }

    /// What happens to an answer on its way back.
    fn reply<T>(&self, shard: ShardId, answer: T) -> Result<T, RouteError> {
        self.on(shard, |shard| match &mut shard.fault {
            Some(Fault::LosesReplies(left)) if *left > 0 => {
                *left -= 1;
                Err(RouteError::TimedOut { may_have_happened: true })
            }
            _ => Ok(answer),
        })
    }
}

/// A message of some text.
pub(crate) fn message(text: &str) -> pb::NewMessage {
    pb::NewMessage {
        size: text.len() as u64,
        pieces: vec![pb::Piece {
            literal_length: text.len() as u64,
            raw_length: text.len() as u64,
            ..pb::Piece::default()
        }],
        body: Some(pb::Body {
            body_id: Bytes::copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]),
            text: Bytes::copy_from_slice(text.as_bytes()),
            text_length: text.len() as u64,
            ..pb::Body::default()
        }),
        ..pb::NewMessage::default()
    }
}

fn in_zone(region: &str, zone: &str) -> pb::Region {
    pb::Region { name: region.to_owned(), zone: zone.to_owned(), ..pb::Region::default() }
}

fn placed(shard: ShardId, kind: ShardKind) -> pb::Shard {
    pb::Shard {
        id: shard.0,
        kind: kind.into(),
        replicas: (1..).take(REGIONS.len()).collect(),
        zone: "all".to_owned(),
        slot_last: u32::from(u16::MAX),
        epoch: 1,
        ..pb::Shard::default()
    }
}

impl Shard {
    fn carry_out(&mut self, command: pb::Command) -> pb::Outcome {
        if matches!(command.op, Some(Op::PinBlobs(_) | Op::UnpinBlobs(_))) {
            // Nothing is deleted here.
            return pb::Outcome { result: Some(Made::Done(pb::Done {})) };
        }
        if let Some(outcome) = self.outcomes.get(&command.request) {
            return outcome.clone();
        }
        self.proposals += 1;
        let made = match command.op {
            Some(Op::Accept(accept)) => self.accept(accept),
            Some(Op::Deliver(deliver)) => self.deliver(deliver),
            Some(Op::RecordFeedback(feedback)) => {
                let recorded = feedback.items.len() as u32;
                self.feedback.push(feedback);
                Made::FeedbackRecorded(pb::FeedbackRecorded { is_known: true, recorded })
            }
            Some(Op::Forget(forget)) => {
                for request in forget.requests {
                    self.transfers.remove(&request);
                    self.forgotten.push(request);
                }
                Made::Done(pb::Done {})
            }
            _ => refused(Refusal::Malformed),
        };
        let outcome = pb::Outcome { result: Some(made) };
        if !command.request.is_empty() {
            self.outcomes.insert(command.request, outcome.clone());
        }
        outcome
    }

    fn accept(&mut self, accept: pb::Accept) -> Made {
        let message = accept.message.expect("a command has its message");
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            accept.recipients.into_iter().partition(|recipient| self.mailboxes.contains(&user_of(&recipient.user_id)));
        if let ([only], []) = (&here[..], &elsewhere[..])
            && self.full.contains(&user_of(&only.user_id))
        {
            return refused(Refusal::QuotaExceeded);
        }
        let users: Vec<Bytes> = elsewhere.iter().map(|recipient| recipient.user_id.clone()).collect();
        let users: Vec<Bytes> = users.into_iter().filter(|user| self.congested.contains(&user_of(user))).collect();
        if !users.is_empty() {
            return Made::Refused(pb::Refused { refusal: Refusal::QueueFull.into(), users, ..Default::default() });
        }
        let deliveries =
            here.iter().map(|recipient| self.keep(user_of(&recipient.user_id), &accept.mail_from, &message)).collect();
        let entry = if elsewhere.is_empty() { 0 } else { self.enqueue(&accept.mail_from, elsewhere, &message) };
        Made::Accepted(pb::Accepted { entry, deliveries })
    }

    fn keep(&mut self, user: UserId, mail_from: &str, message: &pb::NewMessage) -> pb::Delivery {
        self.kept.push(Kept { user, mail_from: mail_from.to_owned(), message: message.clone() });
        let mut random = [0; 10];
        random[..8].copy_from_slice(&(self.kept.len() as u64).to_be_bytes());
        pb::Delivery {
            user_id: user.to_bytes(),
            email_id: EmailId::new(1_790_000_000_000, random).to_bytes(),
            ..pb::Delivery::default()
        }
    }

    fn enqueue(&mut self, mail_from: &str, recipients: Vec<pb::Recipient>, message: &pb::NewMessage) -> u64 {
        self.entry_last += 1;
        let mut message = message.clone();
        let body = message.body.as_mut().expect("a message has a body");
        let record = pb::BodyRecord {
            compression: body.compression,
            text: std::mem::take(&mut body.text),
            text_length: body.text_length,
        };
        let pending = recipients.into_iter().map(|recipient| pb::PendingRecipient {
            user_id: recipient.user_id,
            address: recipient.address,
            notify: recipient.notify,
            original: recipient.original,
            since_ms: CLOCK.wall_ms(),
            ..pb::PendingRecipient::default()
        });
        let queued = Queued {
            record: pb::QueueRecord {
                entry: self.entry_last,
                mail_from: mail_from.to_owned(),
                pending: pending.collect(),
                message: Some(message),
                created_ms: CLOCK.wall_ms(),
                ..pb::QueueRecord::default()
            },
            body: record,
            due: Instant::now(),
            lease: None,
        };
        self.queue.insert(self.entry_last, queued);
        self.entry_last
    }

    fn deliver(&mut self, deliver: pb::Deliver) -> Made {
        let message = deliver.message.expect("a command has its message");
        let mut made = pb::Delivered::default();
        for target in deliver.targets {
            let user = user_of(&target.user_id);
            if let Some(delivery) = self.transfers.get(&target.request) {
                made.deliveries.push(delivery.clone());
            } else if !self.mailboxes.contains(&user) {
                made.unknown_users.push(target.user_id);
            } else if self.full.contains(&user) {
                made.over_quota.push(target.user_id);
            } else {
                let delivery = self.keep(user, &deliver.mail_from, &message);
                self.transfers.insert(target.request, delivery.clone());
                made.deliveries.push(delivery);
            }
        }
        Made::Delivered(made)
    }

    fn settle(&mut self, fence: u64, settle: &pb::Settle) -> Result<(), RouteError> {
        let queued = self.queue.get_mut(&settle.entry).ok_or(RouteError::LeaseLost)?;
        if queued.lease.is_none_or(|(held, _)| held != fence) {
            return Err(RouteError::LeaseLost);
        }
        let mut is_told = false;
        for result in &settle.results {
            let is_his = |pending: &pb::PendingRecipient| {
                pending.user_id == result.user_id && (!pending.user_id.is_empty() || pending.address == result.address)
            };
            let Some(place) = queued.record.pending.iter().position(is_his) else { continue };
            is_told |= result.reported;
            match result.settlement() {
                Settlement::Delivered | Settlement::Failed => {
                    queued.record.pending.remove(place);
                }
                settlement => {
                    let pending = &mut queued.record.pending[place];
                    pending.attempts += u32::from(settlement != Settlement::Waits);
                    pending.reason.clone_from(&result.reason);
                    pending.reply.clone_from(&result.reply);
                    pending.unknown_attempts += u32::from(result.unknown);
                    pending.delay_reported |= result.reported;
                }
            }
        }
        queued.record.attempts += 1;
        queued.lease = None;
        queued.due = Instant::now() + Duration::from_millis(settle.retry_ms.into());
        let sender = queued.record.sender_user_id.clone();
        if queued.record.pending.is_empty() {
            self.queue.remove(&settle.entry);
        }
        // In the same breath, as the shard does it.
        if let Some(report) = settle.report.as_ref().filter(|_| is_told && !sender.is_empty()) {
            self.keep(user_of(&sender), "", report);
        }
        Ok(())
    }

    fn lease(&mut self, max: u32, lease: Duration) -> Vec<pb::LeasedEntry> {
        let now = Instant::now();
        let Self { queue, fence_last, .. } = self;
        let due =
            queue.values_mut().filter(|queued| queued.due <= now && queued.lease.is_none_or(|(_, until)| until <= now));
        due.take(max as usize)
            .map(|queued| {
                *fence_last += 1;
                queued.lease = Some((*fence_last, now + lease));
                pb::LeasedEntry {
                    entry: Some(queued.record.clone()),
                    body: Some(queued.body.clone()),
                    fence: Some(pb::Fence { term: 1, counter: *fence_last }),
                    leased_ms: CLOCK.wall_ms(),
                    ..Default::default()
                }
            })
            .collect()
    }
}

fn refused(refusal: Refusal) -> Made {
    Made::Refused(pb::Refused { refusal: refusal.into(), ..Default::default() })
}

fn user_of(bytes: &Bytes) -> UserId {
    UserId::try_from(bytes).expect("a command has user ids")
}

/// The clock of this cluster and of what is tested against it.
pub(crate) static CLOCK: LazyLock<Arc<dyn Clock>> = LazyLock::new(SystemClock::shared);

#[async_trait]
impl Cluster for MailCluster {
    fn map(&self) -> Arc<pb::ShardMap> {
        self.map.borrow().clone()
    }

    fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>> {
        self.map.subscribe()
    }

    async fn propose(
        &self,
        shard: ShardId,
        _session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        self.reach(shard, deadline).await?;
        let outcome = self.on(shard, |shard| shard.carry_out(command));
        self.changed.notify_waiters();
        self.reply(shard, outcome)
    }

    async fn propose_at(
        &self,
        shard: ShardId,
        epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        if let Some(moved) = self.moves.lock().remove(&shard) {
            // What the nodes have known for a moment, the map knows by their refusal.
            self.place(shard, &moved);
        }
        let map = self.map.borrow().clone();
        let placed = map.shards.iter().find(|placed| placed.id == shard.0).ok_or(RouteError::UnknownShard)?;
        if epoch > 0 && epoch != placed.epoch {
            return Err(RouteError::Moved);
        }
        self.propose(shard, session, command, deadline).await
    }

    async fn query(
        &self,
        shard: ShardId,
        _session: Option<pb::SessionProof>,
        query: query::Query,
        _mode: ReadMode,
        _min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.reach(shard, deadline).await?;
        let check = match query {
            query::Query::CheckRecipient(check) => check,
            // Nobody is suppressed here.
            query::Query::CheckDomainSuppressed(_) => {
                let answer = Some(answer::Answer::Suppressions(pb::Suppressions::default()));
                return Ok(Answered { answer: pb::Answer { answer }, stale_ms: None, modseq: None });
            }
            _ => return Err(RouteError::Malformed { detail: "not a question of mail".to_owned() }),
        };
        let user = user_of(&check.user_id);
        let state = self.on(shard, |shard| pb::RecipientState {
            active: shard.mailboxes.contains(&user),
            over_quota: shard.full.contains(&user),
            queue_full: shard.congested.contains(&user),
            ..Default::default()
        });
        let answer = pb::Answer { answer: Some(answer::Answer::Recipient(state)) };
        Ok(Answered { answer, stale_ms: None, modseq: None })
    }

    async fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        _known: Option<ModSeq>,
        min_modseq: u64,
        deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.query(shard, session, query, ReadMode::StaleOk, min_modseq, deadline).await
    }

    fn watch(
        &self,
        _shard: ShardId,
        _session: Option<pb::SessionProof>,
        _user: UserId,
        _since: ModSeq,
    ) -> BoxStream<'static, Result<WatchItem, RouteError>> {
        futures::stream::pending().boxed()
    }

    async fn look_up(&self, address: &Address, deadline: Duration) -> Result<Option<pb::AddressRecord>, RouteError> {
        let directory = if address.domain() == OTHER_DOMAIN { OTHER_DIRECTORY } else { DIRECTORY };
        self.reach(directory, deadline).await?;
        *self.look_ups.lock() += 1;
        Ok(self.directory.lock().get(address.as_str()).map(|(user, shard)| pb::AddressRecord {
            address: address.as_str().to_owned(),
            user_id: user.to_bytes(),
            shard: shard.0,
            status: pb::AddressStatus::Active.into(),
            reserved_ms: 0,
        }))
    }

    async fn locate(&self, user: UserId, deadline: Duration) -> Result<Option<ShardId>, RouteError> {
        if let Some(shard) = self.located.lock().get(&user) {
            return Ok(Some(*shard));
        }
        self.reach(if user.zone() == ZONES[1].0 { OTHER_DIRECTORY } else { DIRECTORY }, deadline).await?;
        let found = self.directory.lock().values().find(|(known, _)| *known == user).map(|(_, shard)| *shard);
        if let Some(shard) = found {
            self.located.lock().insert(user, shard);
        }
        Ok(found)
    }

    fn forget(&self, user: UserId) {
        self.located.lock().remove(&user);
    }

    /// What placement says, however old the map is that a test has given out.
    async fn zone_of_domain(&self, domain: &str, deadline: Duration) -> Result<Option<ZoneId>, RouteError> {
        let map = self.map.borrow().clone();
        let zone = match map.domains.iter().find(|known| known.name == domain) {
            Some(known) => Some(known.zone.clone()),
            None => {
                self.reach(ShardId::PLACEMENT, deadline).await?;
                self.unpublished.lock().get(domain).cloned()
            }
        };
        Ok(zone.and_then(|zone| ZONES.into_iter().find(|(_, name)| *name == zone)).map(|(id, _)| id))
    }

    fn directory_shard(&self, zone: ZoneId, _slot: Slot) -> Option<ShardId> {
        Some(if zone == ZONES[1].0 { OTHER_DIRECTORY } else { DIRECTORY })
    }

    fn place_user(&self, _region: &str, _domain: &str, _user: UserId) -> Option<ShardId> {
        Some(ShardId::MAILBOX_FIRST)
    }

    async fn lease_queue(
        &self,
        shard: ShardId,
        max: u32,
        lease_ms: u32,
        wait_ms: u32,
    ) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        let until = Instant::now() + Duration::from_millis(wait_ms.into());
        loop {
            let changed = self.changed.notified();
            if self.on(shard, |shard| shard.fault == Some(Fault::NoQuorum)) {
                return Err(RouteError::NoQuorum);
            }
            let leased = self.on(shard, |shard| shard.lease(max, Duration::from_millis(lease_ms.into())));
            if !leased.is_empty() || Instant::now() >= until {
                return Ok(leased);
            }
            // Due times and lapses come without a notice.
            let look = (Instant::now() + Duration::from_millis(20)).min(until);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    async fn prolong_lease(
        &self,
        shard: ShardId,
        entry: u64,
        fence: pb::Fence,
        lease_ms: u32,
        deadline: Duration,
    ) -> Result<(), RouteError> {
        self.reach(shard, deadline).await?;
        let now = Instant::now();
        self.on(shard, |shard| {
            let lease = shard.queue.get_mut(&entry).and_then(|queued| queued.lease.as_mut());
            let held = lease.filter(|(held, until)| *held == fence.counter && *until > now);
            let (_, until) = held.ok_or(RouteError::LeaseLost)?;
            *until = now + Duration::from_millis(lease_ms.into());
            Ok(())
        })
    }

    async fn settle_queue(
        &self,
        shard: ShardId,
        fence: pb::Fence,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        self.reach(shard, deadline).await?;
        let Some(Op::Settle(settle)) = &command.op else {
            return Err(RouteError::Malformed { detail: "not a settlement".to_owned() });
        };
        self.on(shard, |shard| shard.settle(fence.counter, settle))?;
        self.changed.notify_waiters();
        self.reply(shard, pb::Outcome { result: Some(Made::Done(pb::Done {})) })
    }
}
