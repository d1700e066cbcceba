//! A cluster in memory: real state machines, no consensus, and faults on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use postrider_api::address::Address;
use postrider_api::env::Clock;
use postrider_api::id::{ModSeq, ShardId, Slot, UserId, ZoneId};
use postrider_api::pb;
use postrider_api::pb::{answer, query};
use postrider_frontend::cluster::Cluster;
use postrider_router::{Answered, ReadMode, RouteError, WatchItem};
use postrider_shard::Standing;
use postrider_shard::store::{MemoryStore, Txn};
use prost::Message as _;
use tokio::sync::watch;

use crate::scan;

pub(crate) const DOMAIN: &str = "postrider.example";
/// The first zone.
const ZONE: ZoneId = ZoneId(1);
/// The second zone, with a domain, regions and shards of its own.
const SECOND_ZONE: ZoneId = ZoneId(2);
pub(crate) const SECOND_DOMAIN: &str = "second.example";
pub(crate) const SECOND_DIRECTORY: ShardId = ShardId(4);
pub(crate) const SECOND_SHARDS: [(ShardId, &str); 2] = [(ShardId(1100), "osaka"), (ShardId(1101), "paris")];
pub(crate) const SECOND_REGIONS: [&str; 3] = ["osaka", "paris", "oregon"];
/// Everybody of the first zone is in this directory shard.
pub(crate) const DIRECTORY: ShardId = ShardId(2);
/// And nobody in this one.
pub(crate) const OTHER_DIRECTORY: ShardId = ShardId(3);
pub(crate) const REGIONS: [&str; 3] = ["seoul", "frankfurt", "virginia"];
pub(crate) const SHARDS: [(ShardId, &str); 2] = [(ShardId(1000), "seoul"), (ShardId(1001), "frankfurt")];

#[derive(Default)]
struct Shard {
    store: MemoryStore,
    index: u64,
}

#[derive(Default)]
struct Faults {
    /// Shards whose leader cannot reach a quorum.
    no_quorum: BTreeSet<ShardId>,
    /// How many answers are given before one is lost: its command is applied, but nobody hears of it.
    answers_until_lost: Option<u32>,
    /// Watches from before this modseq are told that it is gone.
    floor: Option<ModSeq>,
    /// Queries that were answered.
    queries: u64,
    /// Bytes of their answers.
    answered_bytes: usize,
    /// Those that are asked under a session, and read more than the mailbox's modseq.
    rows_read: u64,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct MemoryCluster(Arc<Inner>);

impl Deref for MemoryCluster {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

pub(crate) struct Inner {
    shards: Mutex<BTreeMap<ShardId, Shard>>,
    faults: Mutex<Faults>,
    map: Arc<pb::ShardMap>,
    maps: watch::Sender<Arc<pb::ShardMap>>,
    /// Counts commands: watches look again when it rises.
    applied: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
}

impl MemoryCluster {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let shard = |id: ShardId, kind: pb::ShardKind, home_region: &str| pb::Shard {
            id: id.0,
            kind: kind.into(),
            replicas: vec![1, 2, 3],
            home_region: home_region.to_owned(),
            epoch: 1,
            zone: if SECOND_REGIONS.contains(&home_region) { "mars" } else { "world" }.to_owned(),
            slot_first: 0,
            slot_last: 65_535,
            ..Default::default()
        };
        let last = u32::from(u16::MAX);
        let directory = |id, slot_first, slot_last| pb::Shard {
            slot_first,
            slot_last,
            ..shard(id, pb::ShardKind::Directory, "seoul")
        };
        let mut shards = vec![directory(DIRECTORY, 0, last - 1), directory(OTHER_DIRECTORY, last, last)];
        shards.extend(SHARDS.map(|(id, region)| shard(id, pb::ShardKind::Mailbox, region)));
        shards.push(shard(SECOND_DIRECTORY, pb::ShardKind::Directory, SECOND_REGIONS[0]));
        shards.extend(SECOND_SHARDS.map(|(id, region)| shard(id, pb::ShardKind::Mailbox, region)));
        for shard in shards.iter_mut().filter(|shard| shard.zone == "mars") {
            shard.replicas = vec![4, 5, 6];
        }
        let node = |(id, region): (u64, &str)| pb::Node { id, region: region.to_owned(), ..Default::default() };
        let region = |name: &str| pb::Region {
            name: name.to_owned(),
            zone: if SECOND_REGIONS.contains(&name) { "mars" } else { "world" }.to_owned(),
            api_url: format!("https://{name}.example"),
            ..Default::default()
        };
        let map = Arc::new(pb::ShardMap {
            version: 1,
            regions: REGIONS.into_iter().chain(SECOND_REGIONS).map(region).collect(),
            nodes: (1..).zip(REGIONS.into_iter().chain(SECOND_REGIONS)).map(node).collect(),
            shards,
            domains: [(DOMAIN, "world"), (SECOND_DOMAIN, "mars")]
                .map(|(name, zone)| pb::Domain { name: name.to_owned(), zone: zone.to_owned(), ..Default::default() })
                .to_vec(),
            zones: [(ZONE, "world"), (SECOND_ZONE, "mars")]
                .map(|(id, name)| pb::Zone { name: name.to_owned(), id: id.0.into() })
                .to_vec(),
            ..pb::ShardMap::default()
        });
        let mailboxes = SHARDS.into_iter().chain(SECOND_SHARDS).map(|(id, _)| id);
        let others = [ShardId::PLACEMENT, DIRECTORY, OTHER_DIRECTORY, SECOND_DIRECTORY];
        let ids: Vec<ShardId> = others.into_iter().chain(mailboxes).collect();
        Self(Arc::new(Inner {
            shards: Mutex::new(ids.into_iter().map(|id| (id, Shard::default())).collect()),
            faults: Mutex::default(),
            maps: watch::channel(Arc::clone(&map)).0,
            map,
            applied: watch::channel(0).0,
            clock,
        }))
    }
}

impl Inner {
    pub(crate) fn lose_quorum(&self, shard: ShardId) {
        self.faults.lock().no_quorum.insert(shard);
    }

    pub(crate) fn regain_quorum(&self, shard: ShardId) {
        self.faults.lock().no_quorum.remove(&shard);
    }

    /// Loses one answer, after `given` others.
    pub(crate) fn lose_answer(&self, given: u32) {
        self.faults.lock().answers_until_lost = Some(given);
    }

    pub(crate) fn raise_floor(&self, floor: ModSeq) {
        self.faults.lock().floor = Some(floor);
    }

    pub(crate) fn rows_read(&self) -> u64 {
        self.faults.lock().rows_read
    }

    pub(crate) fn queries(&self) -> u64 {
        self.faults.lock().queries
    }

    /// Bytes that went from shards to frontends.
    pub(crate) fn answered_bytes(&self) -> usize {
        self.faults.lock().answered_bytes
    }

    /// Applies a command as the leader of the shard would.
    pub(crate) fn apply(&self, shard: ShardId, mut command: pb::Command) -> pb::Outcome {
        command.at_ms = self.clock.wall_ms();
        let mut shards = self.shards.lock();
        let state = shards.get_mut(&shard).expect("the shard exists");
        state.index += 1;
        let mut txn = Txn::new(&state.store);
        let applied = postrider_shard::apply(shard, &mut txn, state.index, &command).expect("the shard is whole");
        let writes = txn.into_writes();
        state.store.write(writes);
        drop(shards);
        self.applied.send_modify(|count| *count += 1);
        applied.outcome
    }

    pub(crate) fn ask(&self, shard: ShardId, query: query::Query) -> Result<pb::Answer, RouteError> {
        self.faults.lock().queries += 1;
        let shards = self.shards.lock();
        let state = shards.get(&shard).ok_or(RouteError::UnknownShard)?;
        let query = pb::Query { query: Some(query) };
        let answer = postrider_shard::query(shard, &state.store, self.clock.wall_ms(), &query)
            .map_err(|error| RouteError::Malformed { detail: error.to_string() })?;
        self.faults.lock().answered_bytes += answer.encoded_len();
        Ok(answer)
    }

    fn check_session(&self, shard: ShardId, session: Option<&pb::SessionProof>) -> Result<(), RouteError> {
        let Some(proof) = session else { return Ok(()) };
        let shards = self.shards.lock();
        let state = shards.get(&shard).ok_or(RouteError::UnknownShard)?;
        match postrider_shard::session_standing(&state.store, self.clock.wall_ms(), proof) {
            Ok(Standing::Valid) => Ok(()),
            Ok(Standing::Suspended) => Err(RouteError::Suspended),
            Ok(Standing::Nothing) => Err(RouteError::Unauthenticated),
            Err(error) => Err(RouteError::Corrupt { detail: error.to_string() }),
        }
    }

    fn read(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        mode: ReadMode,
        (min_modseq, known): (u64, Option<ModSeq>),
    ) -> Result<Answered, RouteError> {
        let is_stale = self.faults.lock().no_quorum.contains(&shard);
        if is_stale && matches!(mode, ReadMode::Consistent) {
            return Err(RouteError::NoQuorum);
        }
        let stale_ms = is_stale.then_some(1_700);
        self.check_session(shard, session.as_ref())?;
        let mut modseq = None;
        if let Some(user) = session.as_ref().and_then(|proof| UserId::try_from(&proof.user_id).ok()) {
            let shards = self.shards.lock();
            modseq = postrider_shard::modseq(&shards[&shard].store, user).expect("the row decodes");
            if modseq.unwrap_or_default().0 < min_modseq {
                return Err(RouteError::Behind);
            }
        }
        if modseq.is_some() && modseq == known {
            let answer = pb::Answer { answer: Some(answer::Answer::Unchanged(pb::Unchanged {})) };
            return Ok(Answered { answer, stale_ms, modseq });
        }
        self.faults.lock().rows_read += 1;
        let ask = |query| match self.ask(shard, query).map(|answer| answer.answer) {
            Ok(Some(answer)) => answer,
            other => panic!("a query was answered with {other:?}"),
        };
        let found = match &query {
            query::Query::Search(search) => Some(answer::Answer::Search(scan::search(search, &ask))),
            query::Query::Suggest(suggest) => Some(answer::Answer::Suggestions(scan::suggest(suggest, &ask))),
            _ => None,
        };
        let answer = match found {
            Some(answer) => pb::Answer { answer: Some(answer) },
            None => self.ask(shard, query)?,
        };
        Ok(Answered { answer, stale_ms, modseq })
    }

    /// Entries in a shard's queue.
    pub(crate) fn waiting(&self, shard: ShardId) -> usize {
        let list = pb::ListQueue { limit: 100, after_entry: 0, ..Default::default() };
        match self.ask(shard, query::Query::ListQueue(list)).map(|answer| answer.answer) {
            Ok(Some(answer::Answer::Queue(page))) => page.entries.len(),
            other => panic!("the queue was answered with {other:?}"),
        }
    }

    /// Every shard's counters, indexes and references, computed anew.
    pub(crate) fn verify(&self) {
        for (id, state) in &*self.shards.lock() {
            let verified = postrider_shard::verify(&state.store).expect("every row decodes");
            assert_eq!(verified.differences, Vec::<String>::new(), "shard {id}");
        }
    }

    fn changes(&self, shard: ShardId, user: UserId, since: ModSeq) -> Result<Option<WatchItem>, RouteError> {
        let floor = self.faults.lock().floor;
        if let Some(floor) = floor.filter(|floor| since < *floor) {
            return Ok(Some(WatchItem::Gone(floor)));
        }
        let list = pb::ListChanges { user_id: user.to_bytes(), since: since.0, limit: 3 };
        match self.ask(shard, query::Query::ListChanges(list))?.answer {
            Some(answer::Answer::Changes(page)) if page.changes.is_empty() => Ok(None),
            Some(answer::Answer::Changes(page)) => Ok(Some(WatchItem::Changes(page))),
            other => panic!("changes were answered with {other:?}"),
        }
    }
}

#[async_trait]
impl Cluster for MemoryCluster {
    fn map(&self) -> Arc<pb::ShardMap> {
        Arc::clone(&self.map)
    }

    fn map_changes(&self) -> watch::Receiver<Arc<pb::ShardMap>> {
        self.maps.subscribe()
    }

    async fn propose(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        _deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        if self.faults.lock().no_quorum.contains(&shard) {
            return Err(RouteError::NoQuorum);
        }
        self.check_session(shard, session.as_ref())?;
        let outcome = self.apply(shard, command);
        let mut faults = self.faults.lock();
        if faults.answers_until_lost == Some(0) {
            faults.answers_until_lost = None;
            return Err(RouteError::TimedOut { may_have_happened: true });
        }
        faults.answers_until_lost = faults.answers_until_lost.map(|given| given - 1);
        Ok(outcome)
    }

    async fn propose_at(
        &self,
        shard: ShardId,
        epoch: u64,
        session: Option<pb::SessionProof>,
        command: pb::Command,
        deadline: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        let placed = self.map.shards.iter().find(|placed| placed.id == shard.0).expect("the shard exists");
        if epoch > 0 && epoch != placed.epoch {
            return Err(RouteError::Moved);
        }
        self.propose(shard, session, command, deadline).await
    }

    async fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        mode: ReadMode,
        min_modseq: u64,
        _deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.read(shard, session, query, mode, (min_modseq, None))
    }

    async fn query_unless(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        known: Option<ModSeq>,
        min_modseq: u64,
        _deadline: Duration,
    ) -> Result<Answered, RouteError> {
        self.read(shard, session, query, ReadMode::StaleOk, (min_modseq, known))
    }

    fn watch(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        user: UserId,
        since: ModSeq,
    ) -> BoxStream<'static, Result<WatchItem, RouteError>> {
        if let Err(error) = self.check_session(shard, session.as_ref()) {
            return stream::iter([Err(error)]).boxed();
        }
        let state = (self.clone(), self.applied.subscribe(), since);
        stream::unfold(state, move |(cluster, mut applied, since)| async move {
            loop {
                applied.mark_unchanged();
                match cluster.changes(shard, user, since) {
                    Ok(Some(item)) => {
                        let since = match &item {
                            WatchItem::Changes(page) => ModSeq(page.changes.last().expect("not empty").modseq),
                            WatchItem::Gone(modseq) | WatchItem::Heartbeat(modseq) => *modseq,
                        };
                        return Some((Ok(item), (cluster, applied, since)));
                    }
                    Ok(None) => applied.changed().await.ok()?,
                    Err(error) => return Some((Err(error), (cluster, applied, since))),
                }
            }
        })
        .boxed()
    }

    async fn look_up(&self, address: &Address, _: Duration) -> Result<Option<pb::AddressRecord>, RouteError> {
        let directory = if address.domain() == SECOND_DOMAIN { SECOND_DIRECTORY } else { DIRECTORY };
        if self.faults.lock().no_quorum.contains(&directory) {
            return Err(RouteError::NoQuorum);
        }
        let look_up = pb::LookUpAddress { address: address.as_str().to_owned() };
        self.find_address(directory, query::Query::LookUpAddress(look_up))
    }

    async fn locate(&self, user: UserId, _: Duration) -> Result<Option<ShardId>, RouteError> {
        let locate = pb::LocateUser { user_id: user.to_bytes() };
        let directory = if user.zone() == SECOND_ZONE { SECOND_DIRECTORY } else { DIRECTORY };
        match self.find_address(directory, query::Query::LocateUser(locate))? {
            Some(record) => Ok(Some(ShardId(record.shard))),
            // A replica alone is believed when it knows the user, not when it does not.
            None if self.faults.lock().no_quorum.contains(&directory) => Err(RouteError::NoQuorum),
            None => Ok(None),
        }
    }

    fn forget(&self, _: UserId) {}

    async fn zone_of_domain(&self, domain: &str, _: Duration) -> Result<Option<ZoneId>, RouteError> {
        Ok(match domain {
            DOMAIN => Some(ZONE),
            SECOND_DOMAIN => Some(SECOND_ZONE),
            _ => None,
        })
    }

    fn directory_shard(&self, zone: ZoneId, _: Slot) -> Option<ShardId> {
        Some(if zone == SECOND_ZONE { SECOND_DIRECTORY } else { DIRECTORY })
    }

    fn place_user(&self, region: &str, _: &str, user: UserId) -> Option<ShardId> {
        if user.zone() == SECOND_ZONE {
            return Some(SECOND_SHARDS[0].0);
        }
        SHARDS.iter().find(|(_, home)| *home == region).map(|(shard, _)| *shard)
    }

    async fn lease_queue(&self, _: ShardId, _: u32, _: u32, _: u32) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        Err(RouteError::Busy)
    }

    async fn prolong_lease(&self, _: ShardId, _: u64, _: pb::Fence, _: u32, _: Duration) -> Result<(), RouteError> {
        Err(RouteError::LeaseLost)
    }

    async fn settle_queue(
        &self,
        _: ShardId,
        _: pb::Fence,
        _: pb::Command,
        _: Duration,
    ) -> Result<pb::Outcome, RouteError> {
        Err(RouteError::LeaseLost)
    }
}

impl Inner {
    fn find_address(&self, directory: ShardId, query: query::Query) -> Result<Option<pb::AddressRecord>, RouteError> {
        match self.ask(directory, query)?.answer {
            Some(answer::Answer::Address(record)) => Ok(Some(record)),
            Some(answer::Answer::NotFound(_)) => Ok(None),
            other => panic!("the directory answered {other:?}"),
        }
    }
}
