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
use postrider_api::id::{ModSeq, ShardId, Slot, UserId};
use postrider_api::pb;
use postrider_api::pb::{answer, query};
use postrider_frontend::cluster::Cluster;
use postrider_router::{Answered, ReadMode, RouteError, WatchItem};
use postrider_shard::store::{MemoryStore, Txn};
use tokio::sync::watch;

pub(crate) const DOMAIN: &str = "postrider.example";
/// Everybody is in this directory shard.
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
            zone: "world".to_owned(),
            slot_first: 0,
            slot_last: 65_535,
        };
        let last = u32::from(u16::MAX);
        let directory = |id, slot_first, slot_last| pb::Shard {
            slot_first,
            slot_last,
            ..shard(id, pb::ShardKind::Directory, "seoul")
        };
        let mut shards = vec![directory(DIRECTORY, 0, last - 1), directory(OTHER_DIRECTORY, last, last)];
        shards.extend(SHARDS.map(|(id, region)| shard(id, pb::ShardKind::Mailbox, region)));
        let node = |(id, region): (u64, &str)| pb::Node { id, region: region.to_owned(), address: String::new() };
        let region = |name: &str| pb::Region { name: name.to_owned(), zone: "world".to_owned(), ..Default::default() };
        let map = Arc::new(pb::ShardMap {
            version: 1,
            regions: REGIONS.map(region).to_vec(),
            nodes: (1..).zip(REGIONS).map(node).collect(),
            shards,
            domains: vec![DOMAIN.to_owned()],
            ..pb::ShardMap::default()
        });
        let ids = [DIRECTORY, OTHER_DIRECTORY, SHARDS[0].0, SHARDS[1].0];
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

    pub(crate) fn queries(&self) -> u64 {
        self.faults.lock().queries
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
        postrider_shard::query(shard, &state.store, self.clock.wall_ms(), &query)
            .map_err(|error| RouteError::Malformed { detail: error.to_string() })
    }

    fn check_session(&self, shard: ShardId, session: Option<&pb::SessionProof>) -> Result<(), RouteError> {
        let Some(proof) = session else { return Ok(()) };
        let shards = self.shards.lock();
        let state = shards.get(&shard).ok_or(RouteError::UnknownShard)?;
        match postrider_shard::session_valid(&state.store, self.clock.wall_ms(), proof) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RouteError::Unauthenticated),
            Err(error) => Err(RouteError::Corrupt { detail: error.to_string() }),
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

    async fn query(
        &self,
        shard: ShardId,
        session: Option<pb::SessionProof>,
        query: query::Query,
        mode: ReadMode,
        min_modseq: u64,
        _deadline: Duration,
    ) -> Result<Answered, RouteError> {
        let is_stale = self.faults.lock().no_quorum.contains(&shard);
        if is_stale && matches!(mode, ReadMode::Consistent) {
            return Err(RouteError::NoQuorum);
        }
        self.check_session(shard, session.as_ref())?;
        if let Some(user) = session.as_ref().and_then(|proof| UserId::try_from(&proof.user_id).ok()) {
            let shards = self.shards.lock();
            let modseq = postrider_shard::modseq(&shards[&shard].store, user).expect("the row decodes");
            if modseq.unwrap_or_default().0 < min_modseq {
                return Err(RouteError::Behind);
            }
        }
        let answer = self.ask(shard, query)?;
        Ok(Answered { answer, stale_ms: is_stale.then_some(1_700) })
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
        if self.faults.lock().no_quorum.contains(&DIRECTORY) {
            return Err(RouteError::NoQuorum);
        }
        let look_up = pb::LookUpAddress { address: address.as_str().to_owned() };
        self.find_address(query::Query::LookUpAddress(look_up))
    }

    async fn locate(&self, user: UserId, _: Duration) -> Result<Option<ShardId>, RouteError> {
        let locate = pb::LocateUser { user_id: user.to_bytes() };
        match self.find_address(query::Query::LocateUser(locate))? {
            Some(record) => Ok(Some(ShardId(record.shard))),
            // A replica alone is believed when it knows the user, not when it does not.
            None if self.faults.lock().no_quorum.contains(&DIRECTORY) => Err(RouteError::NoQuorum),
            None => Ok(None),
        }
    }

    fn forget(&self, _: UserId) {}

    fn directory_shard(&self, _: Slot) -> Option<ShardId> {
        Some(DIRECTORY)
    }

    fn place_user(&self, region: &str, _: UserId) -> Option<ShardId> {
        SHARDS.iter().find(|(_, home)| *home == region).map(|(shard, _)| *shard)
    }

    async fn lease_queue(&self, _: ShardId, _: u32, _: u32, _: u32) -> Result<Vec<pb::LeasedEntry>, RouteError> {
        Err(RouteError::Busy)
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
    fn find_address(&self, query: query::Query) -> Result<Option<pb::AddressRecord>, RouteError> {
        match self.ask(DIRECTORY, query)?.answer {
            Some(answer::Answer::Address(record)) => Ok(Some(record)),
            Some(answer::Answer::NotFound(_)) => Ok(None),
            other => panic!("the directory answered {other:?}"),
        }
    }
}
