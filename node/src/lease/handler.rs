//! Gives out leases, and takes results back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{EntryId, ShardId};
use postrider_api::pb::{self, command::Op, lease_reply};
use postrider_shard::key::{Key, KeyRange};
use postrider_shard::store::{Direction, Reader, RocksReader};
use postrider_shard::{Broken, queue};
use prost::Message;
use tokio::sync::Semaphore;

use super::table::LeaseTable;
use crate::fault::{self, malformed};
use crate::options::NodeLimits;
use crate::propose::{Proposer, reply};
use crate::replicas::Replicas;

/// Entries of one lease call.
const ENTRIES_MAX: usize = 64;
/// Entries and bodies of one lease call, bytes: what goes beyond waits for the next. One entry always fits.
const REPLY_BUDGET_BYTES: usize = 4 * 1024 * 1024;
/// How often a waiting call looks whether this node still leads.
const TICK: Duration = Duration::from_secs(1);

/// The queue leases of all shards that this node leads.
#[derive(Clone)]
pub(crate) struct Leases {
    replicas: Replicas,
    proposer: Proposer,
    limits: NodeLimits,
    tables: Arc<Mutex<HashMap<ShardId, Arc<Mutex<LeaseTable>>>>>,
    waiters: Arc<Semaphore>,
}

/// What a look at the queue found.
struct Found {
    leased: Vec<pb::LeasedEntry>,
    /// When the next entry that is not leased becomes due, milliseconds of wall time.
    next_due_ms: Option<i64>,
}

impl Leases {
    pub(crate) fn new(replicas: Replicas, proposer: Proposer, limits: NodeLimits) -> Self {
        let waiters = Arc::new(Semaphore::new(limits.lease_waiters_max));
        Self { replicas, proposer, limits, tables: Arc::default(), waiters }
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
        let _waiter = self.waiters.try_acquire().map_err(|_| fault::busy())?;
        let wait = Duration::from_millis(request.wait_ms.min(self.limits.lease_wait_ms_max).into());
        let deadline = self.now() + wait;
        loop {
            let machine = self.replicas.machines.get(shard).ok_or_else(fault::unknown_group)?;
            let changed = machine.queue.notified();
            tokio::pin!(changed);
            // Registered before the look, so that what changes behind it wakes.
            changed.as_mut().enable();
            let term = self.replicas.leading(shard)?;
            self.replicas.barrier(shard).await?;
            let found = self.take(shard, term, request)?;
            let now = self.now();
            if !found.leased.is_empty() || now >= deadline {
                return Ok(found.leased);
            }
            let pause = self.until_next(shard, found.next_due_ms, now).min(deadline - now).min(TICK);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn take(&self, shard: ShardId, term: u64, request: &pb::LeaseRequest) -> Result<Found, pb::Fault> {
        let now = self.now();
        let lease = Duration::from_millis(request.lease_ms.clamp(1, self.limits.lease_ms_max).into());
        let max = usize::try_from(request.max).unwrap_or(usize::MAX).clamp(1, ENTRIES_MAX);
        let table = self.table(shard);
        let mut table = table.lock();
        table.enter(term);
        table.sweep(now);
        let room = self.limits.leases_max.saturating_sub(table.len()).min(max);
        let now_ms = self.replicas.clock.wall_ms();
        self.replicas
            .read(shard, |reader| look(reader, &mut table, room, now_ms, now, now + lease))
            .map_err(|broken| fault::corrupt(&broken))
    }

    /// How long until something can be leased that cannot be now.
    fn until_next(&self, shard: ShardId, next_due_ms: Option<i64>, now: Duration) -> Duration {
        let due = next_due_ms.map(|due_ms| {
            let ms = due_ms.saturating_sub(self.replicas.clock.wall_ms()).max(1);
            Duration::from_millis(ms.unsigned_abs())
        });
        let lapse = self.table(shard).lock().next_lapse().map(|lapse| lapse.saturating_sub(now));
        due.into_iter().chain(lapse).min().unwrap_or(TICK)
    }

    pub(crate) async fn settle(&self, request: pb::SettleRequest) -> pb::ProposeReply {
        reply(self.settle_leased(request).await)
    }

    async fn settle_leased(&self, request: pb::SettleRequest) -> Result<(u64, pb::Outcome), pb::Fault> {
        let shard = ShardId(request.shard);
        let fence = request.fence.ok_or_else(|| malformed("there is no fence"))?;
        let command = request.command.ok_or_else(|| malformed("there is no command"))?;
        let Some(Op::Settle(settle)) = &command.op else {
            return Err(malformed("a leased entry is settled by Settle"));
        };
        let (entry, request_id) = (EntryId(settle.entry), command.request.clone());
        let term = self.replicas.leading(shard)?;
        let table = self.table(shard);
        {
            let mut table = table.lock();
            table.enter(term);
            table.begin_settling(entry, fence, &request_id, self.now()).map_err(|_| fault::lease_lost())?;
        }
        let outcome = self.proposer.submit(shard, command).await?;
        table.lock().settled(entry, fence, request_id, self.now());
        Ok(outcome)
    }

    fn table(&self, shard: ShardId) -> Arc<Mutex<LeaseTable>> {
        self.tables.lock().entry(shard).or_default().clone()
    }

    /// The replica is gone, and with it its leases.
    pub(crate) fn forget(&self, shard: ShardId) {
        self.tables.lock().remove(&shard);
    }

    fn now(&self) -> Duration {
        self.replicas.clock.monotonic()
    }
}

/// Leases entries that are due and free, the longest due first.
fn look(
    reader: &RocksReader<'_>,
    table: &mut LeaseTable,
    room: usize,
    now_ms: i64,
    now: Duration,
    until: Duration,
) -> Result<Found, Broken> {
    let mut found = Found { leased: Vec::new(), next_due_ms: None };
    let mut bytes = 0;
    for row in reader.scan(&KeyRange::due(i64::MAX, None), Direction::Forward) {
        let (key, _) = row?;
        let Key::QueueDue(due_ms, entry) = Key::decode(key.as_ref())? else { continue };
        if !table.is_free(entry, now) {
            continue;
        }
        if due_ms > now_ms {
            found.next_due_ms = Some(due_ms);
            break;
        }
        if found.leased.len() >= room || bytes >= REPLY_BUDGET_BYTES {
            break;
        }
        let Some((record, body)) = queue::entry(reader, entry)? else { continue };
        bytes += record.encoded_len() + body.encoded_len();
        let fence = Some(table.take(entry, until));
        found.leased.push(pb::LeasedEntry { entry: Some(record), body: Some(body), fence });
    }
    Ok(found)
}
