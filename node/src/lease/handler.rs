//! Gives out leases, and takes results back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{EntryId, ShardId};
use postrider_api::pb::{self, answer, command::Op, lease_reply, outcome, query};
use postrider_shard::key::{Key, KeyRange};
use postrider_shard::store::{Direction, Reader, RocksReader};
use postrider_shard::{Broken, queue};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::table::LeaseTable;
use crate::fault::{self, malformed};
use crate::options::NodeLimits;
use crate::propose::{Proposer, reply};
use crate::received::Received;
use crate::replicas::Replicas;

/// Entries of one lease call.
const ENTRIES_MAX: usize = 64;
/// Entries and bodies of one lease call, bytes: what goes beyond waits for the next. One entry always fits. Read and written where the
/// heartbeats are, so no more than a few milliseconds' worth.
const REPLY_BUDGET_BYTES: usize = 1024 * 1024;
/// How often a waiting call looks whether this node still leads.
const TICK: Duration = Duration::from_secs(1);

/// The queue leases of all shards that this node leads.
#[derive(Clone)]
pub(crate) struct Leases {
    replicas: Replicas,
    proposer: Proposer,
    limits: NodeLimits,
    shards: Arc<Mutex<HashMap<ShardId, Arc<ShardLeases>>>>,
    waiters: Arc<Semaphore>,
}

/// The leases of one shard, and who waits for one.
struct ShardLeases {
    table: Mutex<LeaseTable>,
    /// One call at a time watches the queue and looks; the others stand in line behind it. Whoever has found something, or
    /// leaves, lets the next one look: a change wakes one call, and none is lost.
    turn: Arc<Semaphore>,
}

/// What a look at the queue found.
struct Found {
    leased: Vec<pb::LeasedEntry>,
    /// When the next entry that is not leased becomes due, milliseconds of wall time.
    next_due_ms: Option<i64>,
    /// Something could be leased now, and was not: nothing was to be.
    is_due: bool,
}

/// What a look at the queue is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// To see whether there is anything to lease.
    See,
    Lease,
}

impl Leases {
    pub(crate) fn new(replicas: Replicas, proposer: Proposer, limits: NodeLimits) -> Self {
        let waiters = Arc::new(Semaphore::new(limits.lease_waiters_max));
        Self { replicas, proposer, limits, shards: Arc::default(), waiters }
    }

    pub(crate) async fn lease(&self, request: pb::LeaseRequest) -> pb::LeaseReply {
        let result = match self.wait_and_take(&request).await {
            Ok(entries) => lease_reply::Result::Entries(pb::LeasedEntries { entries }),
            Err(fault) => lease_reply::Result::Fault(fault),
        };
        pb::LeaseReply { result: Some(result) }
    }

    async fn wait_and_take(&self, request: &pb::LeaseRequest) -> Result<Vec<pb::LeasedEntry>, pb::Fault> {
        let shard = ShardId(request.shard);
        // Before the places are counted: whoever is told "busy" takes this node for the leader.
        let term = self.replicas.leading(shard)?;
        if request.prolonged_entry != 0 {
            return self.prolong(shard, term, request).map(|()| Vec::new());
        }
        let _waiter = self.waiters.try_acquire().map_err(|_| fault::busy())?;
        let wait = Duration::from_millis(request.wait_ms.min(self.limits.lease_wait_ms_max).into());
        let deadline = self.now() + wait;
        // Who does not wait looks for himself.
        let turn = match wait.is_zero() {
            true => None,
            false => match self.turn(shard, deadline).await? {
                Some(turn) => Some(turn),
                None => return Ok(Vec::new()),
            },
        };
        let taken = self.watch_and_take(shard, request, deadline).await;
        drop(turn);
        taken
    }

    /// For work that takes longer than the time after which others should take it over from a worker that died.
    fn prolong(&self, shard: ShardId, term: u64, request: &pb::LeaseRequest) -> Result<(), pb::Fault> {
        let fence = request.fence.ok_or_else(|| malformed("there is no fence"))?;
        let leases = self.of(shard);
        let mut table = leases.table.lock();
        table.enter(term);
        let now = self.now();
        let until = now + Duration::from_millis(request.lease_ms.clamp(1, self.limits.lease_ms_max).into());
        table.prolong(EntryId(request.prolonged_entry), fence, now, until).map_err(|_| fault::lease_lost())
    }

    /// Stands in line; `None` when the time is up. Whoever has had his turn has seen everything until then.
    async fn turn(&self, shard: ShardId, deadline: Duration) -> Result<Option<OwnedSemaphorePermit>, pb::Fault> {
        let turn = self.of(shard).turn.clone().acquire_owned();
        tokio::pin!(turn);
        loop {
            let left = deadline.saturating_sub(self.now());
            if left.is_zero() {
                return Ok(None);
            }
            tokio::select! {
                turn = &mut turn => return Ok(turn.ok()), // never closed
                () = tokio::time::sleep(left.min(TICK)) => self.replicas.leading(shard).map(|_| ())?,
            }
        }
    }

    async fn watch_and_take(
        &self,
        shard: ShardId,
        request: &pb::LeaseRequest,
        deadline: Duration,
    ) -> Result<Vec<pb::LeasedEntry>, pb::Fault> {
        loop {
            let machine = self.replicas.machines.get(shard).ok_or_else(fault::unknown_group)?;
            let changed = machine.queue.notified();
            tokio::pin!(changed);
            // Registered before the look, so that what changes behind it wakes.
            changed.as_mut().enable();
            let term = self.replicas.leading(shard)?;
            metrics::counter!("postrider_node_lease_looks_total").increment(1);
            // Nobody but this node's own state is asked until there is something to lease: workers wait at every shard's queue, and a
            // quorum's word for each of them every few seconds would keep all shards awake. Who leads no more finds nothing, or asks.
            let mut found = self.take(shard, term, request, Purpose::See)?;
            if found.is_due {
                self.replicas.barrier(shard).await?;
                found = self.take(shard, term, request, Purpose::Lease)?;
            }
            let now = self.now();
            if !found.leased.is_empty() || now >= deadline {
                return Ok(found.leased);
            }
            let until =
                self.until_next(shard, found.next_due_ms, now).map_or(deadline, |next| deadline.min(now + next));
            tokio::select! {
                () = changed => {}
                () = self.until_or_new_term(shard, term, until) => {}
            }
        }
    }

    /// Returns at `until`, or when this node leads no more or in another term: then the queue is to be looked at anew.
    async fn until_or_new_term(&self, shard: ShardId, term: u64, until: Duration) {
        loop {
            let left = until.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(TICK)).await;
            if self.replicas.leading(shard) != Ok(term) {
                return;
            }
        }
    }

    fn take(
        &self,
        shard: ShardId,
        term: u64,
        request: &pb::LeaseRequest,
        purpose: Purpose,
    ) -> Result<Found, pb::Fault> {
        let now = self.now();
        let lease = Duration::from_millis(request.lease_ms.clamp(1, self.limits.lease_ms_max).into());
        let max = usize::try_from(request.max).unwrap_or(usize::MAX).clamp(1, ENTRIES_MAX);
        let leases = self.of(shard);
        let mut table = leases.table.lock();
        table.enter(term);
        table.sweep(now);
        let room = self.limits.leases_max.saturating_sub(table.len()).min(max);
        let now_ms = self.replicas.clock.wall_ms();
        self.replicas.read(shard, |reader| {
            let seen_ms = shard_time(shard, reader)?;
            let look = Look { purpose, room, seen_ms, now_ms, now, until: now + lease };
            look.at(reader, &mut table).map_err(|broken| fault::corrupt(&broken))
        })
    }

    /// How long until something can be leased that cannot be now; `None`: until something changes.
    fn until_next(&self, shard: ShardId, next_due_ms: Option<i64>, now: Duration) -> Option<Duration> {
        let due = next_due_ms.map(|due_ms| {
            let ms = due_ms.saturating_sub(self.replicas.clock.wall_ms()).max(1);
            Duration::from_millis(ms.unsigned_abs())
        });
        let lapse = self.of(shard).table.lock().next_lapse().map(|lapse| lapse.saturating_sub(now));
        due.into_iter().chain(lapse).min()
    }

    pub(crate) async fn settle(&self, request: pb::SettleRequest) -> pb::ProposeReply {
        reply(self.settle_leased(request).await)
    }

    async fn settle_leased(&self, request: pb::SettleRequest) -> Result<(u64, pb::Outcome), pb::Fault> {
        let shard = ShardId(request.shard);
        let fence = request.fence.ok_or_else(|| malformed("there is no fence"))?;
        let command = Received::decode(request.command)?;
        if let Some(refused) = command.check()? {
            return Ok((0, pb::Outcome { result: Some(outcome::Result::Refused(refused)) }));
        }
        let Some(Op::Settle(settle)) = &command.command().op else {
            return Err(malformed("a leased entry is settled by Settle"));
        };
        let (entry, request_id) = (EntryId(settle.entry), command.command().request.clone());
        let term = self.replicas.leading(shard)?;
        let leases = self.of(shard);
        {
            let mut table = leases.table.lock();
            table.enter(term);
            table.begin_settling(entry, fence, &request_id, self.now()).map_err(|_| fault::lease_lost())?;
        }
        let outcome = self.proposer.submit(shard, command).await?;
        let was_full = {
            let mut table = leases.table.lock();
            let was_full = table.len() >= self.limits.leases_max;
            table.settled(entry, fence, request_id, self.now());
            was_full
        };
        if was_full && let Some(machine) = self.replicas.machines.get(shard) {
            // Nothing may have changed in the queue, but there is room again.
            machine.queue.notify_waiters();
        }
        Ok(outcome)
    }

    fn of(&self, shard: ShardId) -> Arc<ShardLeases> {
        let new = || Arc::new(ShardLeases { table: Mutex::default(), turn: Arc::new(Semaphore::new(1)) });
        self.shards.lock().entry(shard).or_insert_with(new).clone()
    }

    /// The replica is gone, and with it its leases.
    pub(crate) fn forget(&self, shard: ShardId) {
        self.shards.lock().remove(&shard);
    }

    fn now(&self) -> Duration {
        self.replicas.clock.monotonic()
    }
}

/// The shard's time as `reader` sees it, milliseconds.
fn shard_time(shard: ShardId, reader: &RocksReader<'_>) -> Result<i64, pb::Fault> {
    let query = pb::Query { query: Some(query::Query::GetShardStats(pb::GetShardStats {})) };
    match postrider_shard::query(shard, reader, 0, &query).map_err(fault::of_query)?.answer {
        Some(answer::Answer::ShardStats(record)) => Ok(record.now_ms),
        _ => Err(malformed("the shard answered something else than its record")),
    }
}

/// A look at the queue.
struct Look {
    purpose: Purpose,
    /// Leases that may be given.
    room: usize,
    /// The shard's time.
    seen_ms: i64,
    now_ms: i64,
    now: Duration,
    /// When a lease that is given now is over.
    until: Duration,
}

impl Look {
    /// Finds entries that are due and free, the longest due first. The scan begins where the first entry may be: before it lie only the
    /// traces of those that are gone, which a scan would step over one by one.
    fn at(&self, reader: &RocksReader<'_>, table: &mut LeaseTable) -> Result<Found, Broken> {
        let mut found = Found { leased: Vec::new(), next_due_ms: None, is_due: false };
        let mut bytes = 0;
        let mut first_ms = None;
        for row in reader.scan(&KeyRange::due(table.due_from_ms(), i64::MAX), Direction::Forward) {
            let (key, _) = row?;
            let Key::QueueDue(due_ms, entry) = Key::decode(key.as_ref())? else { continue };
            first_ms.get_or_insert(due_ms);
            if !table.is_free(entry, self.now) {
                continue;
            }
            if due_ms > self.now_ms {
                found.next_due_ms = Some(due_ms);
                break;
            }
            if found.leased.len() >= self.room || bytes >= REPLY_BUDGET_BYTES {
                break;
            }
            if self.purpose == Purpose::See {
                found.is_due = true;
                break;
            }
            let Some((record, body)) = queue::leased_entry(reader, entry, self.now_ms)? else { continue };
            bytes += record.encoded_len() + body.encoded_len();
            let fence = Some(table.take(entry, self.until));
            found.leased.push(pb::LeasedEntry { entry: Some(record), body: Some(body), fence, leased_ms: self.now_ms });
        }
        table.looked(first_ms, self.seen_ms);
        Ok(found)
    }
}
