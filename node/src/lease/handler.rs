//! Gives out leases, and takes results back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use postrider_api::id::{EntryId, ShardId};
use postrider_api::limit::LEASE_INHERITED_MS;
use postrider_api::pb::{self, answer, command::Op, lease_reply, outcome, query};
use postrider_api::trace;
use postrider_shard::key::{Key, KeyRange};
use postrider_shard::store::{Direction, Reader, RocksReader};
use postrider_shard::{Broken, queue};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::table::{LeaseTable, Lost};
use crate::fault::{self, malformed};
use crate::options::NodeLimits;
use crate::propose::{Proposer, reply};
use crate::received::Received;
use crate::replicas::{Lead, Replicas};

/// Entries of one lease call.
const ENTRIES_MAX: usize = 64;
/// Entries and bodies of one lease call, bytes: what goes beyond waits for the next. One entry always fits. Read and written where the
/// heartbeats are, so no more than a few milliseconds' worth.
const REPLY_BUDGET_BYTES: usize = 1024 * 1024;
/// What one look reads of entries that an earlier leader may have leased: their rows, and bytes of these. The next look goes on behind.
const INHERITED_ROWS_MAX: usize = 256;
const INHERITED_BYTES_MAX: usize = 1024 * 1024;
/// How long a lease that was inherited lasts, unless it is prolonged.
const INHERITED: Duration = Duration::from_millis(LEASE_INHERITED_MS);
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
    /// The look ended before it had seen everything: the next goes on.
    is_cut: bool,
    /// Until when an earlier leader's leases keep something back, on the node's clock.
    inherited_until: Option<Duration>,
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
            Ok(entries) => {
                let entries = self.traced(ShardId(request.shard), entries);
                lease_reply::Result::Entries(pb::LeasedEntries { entries })
            }
            Err(fault) => lease_reply::Result::Fault(fault),
        };
        pb::LeaseReply { result: Some(result) }
    }

    /// With where each stands in a trace, as far as this node remembers it.
    fn traced(&self, shard: ShardId, mut entries: Vec<pb::LeasedEntry>) -> Vec<pb::LeasedEntry> {
        if trace::is_on() {
            for leased in &mut entries {
                let entry = leased.entry.as_ref().map(|record| EntryId(record.entry));
                let context = entry.and_then(|entry| self.replicas.machines.trail.of(shard, entry));
                leased.trace = context.map(|context| context.to_bytes()).unwrap_or_default();
            }
        }
        entries
    }

    async fn wait_and_take(&self, request: &pb::LeaseRequest) -> Result<Vec<pb::LeasedEntry>, pb::Fault> {
        let shard = ShardId(request.shard);
        // Before the places are counted: whoever is told "busy" takes this node for the leader.
        self.replicas.leading(shard)?;
        if request.prolonged_entry != 0 {
            return self.prolong(shard, request).await.map(|()| Vec::new());
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

    /// For work that takes longer than the time after which others should take it over from a worker that died. A quorum is asked: one
    /// who leads no more prolongs nothing, and the group stays awake for whoever is at work.
    async fn prolong(&self, shard: ShardId, request: &pb::LeaseRequest) -> Result<(), pb::Fault> {
        let fence = request.fence.ok_or_else(|| malformed("there is no fence"))?;
        let entry = EntryId(request.prolonged_entry);
        self.replicas.barrier(shard).await?;
        let lead = self.replicas.lead(shard)?;
        let leases = self.of(shard);
        let mut table = leases.table.lock();
        table.enter(lead);
        let now = self.now();
        let until = now + Duration::from_millis(request.lease_ms.clamp(1, self.limits.lease_ms_max).into());
        self.inherit(shard, &mut table, entry, fence, now)?;
        table.prolong(entry, fence, now, until).map_err(lost)
    }

    /// Whoever has an entry by an earlier leader's lease has it by the same lease here. Call behind a barrier.
    fn inherit(
        &self,
        shard: ShardId,
        table: &mut LeaseTable,
        entry: EntryId,
        fence: pb::Fence,
        now: Duration,
    ) -> Result<(), pb::Fault> {
        if !table.is_older(fence) || table.is_held(entry, fence) || table.is_settled(fence) {
            return Ok(());
        }
        let made = self.replicas.read(shard, |reader| queue::made(reader, entry));
        let made = made.map_err(|broken| fault::corrupt(&broken))?;
        if !made.is_some_and(|made| table.inheritance.has(&made, now)) {
            return Err(lost(Lost));
        }
        table.inherit(entry, fence, now, now + INHERITED).map_err(lost)?;
        metrics::counter!("postrider_node_leases_inherited_total").increment(1);
        Ok(())
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
            let lead = self.replicas.lead(shard)?;
            metrics::counter!("postrider_node_lease_looks_total").increment(1);
            // Nobody but this node's own state is asked until there is something to lease: workers wait at every shard's queue, and a
            // quorum's word for each of them every few seconds would keep all shards awake. Who leads no more finds nothing, or asks.
            let mut found = self.take(shard, lead, request, Purpose::See)?;
            if found.is_due {
                self.replicas.barrier(shard).await?;
                found = self.take(shard, lead, request, Purpose::Lease)?;
            }
            let now = self.now();
            if !found.leased.is_empty() || (now >= deadline && !found.is_cut) {
                return Ok(found.leased);
            }
            if found.is_cut {
                tokio::task::yield_now().await;
                continue;
            }
            let until = self.until_next(shard, &found, now).map_or(deadline, |next| deadline.min(now + next));
            tokio::select! {
                () = changed => {}
                () = self.until_or_new_term(shard, lead.term, until) => {}
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
        lead: Lead,
        request: &pb::LeaseRequest,
        purpose: Purpose,
    ) -> Result<Found, pb::Fault> {
        let now = self.now();
        let lease = Duration::from_millis(request.lease_ms.clamp(1, self.limits.lease_ms_max).into());
        let max = usize::try_from(request.max).unwrap_or(usize::MAX).clamp(1, ENTRIES_MAX);
        let leases = self.of(shard);
        let mut table = leases.table.lock();
        table.enter(lead);
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
    fn until_next(&self, shard: ShardId, found: &Found, now: Duration) -> Option<Duration> {
        let due = found.next_due_ms.map(|due_ms| {
            let ms = due_ms.saturating_sub(self.replicas.clock.wall_ms()).max(1);
            Duration::from_millis(ms.unsigned_abs())
        });
        let lapse = self.of(shard).table.lock().next_lapse().map(|lapse| lapse.saturating_sub(now));
        let inherited = found.inherited_until.map(|until| until.saturating_sub(now));
        due.into_iter().chain(lapse).chain(inherited).min()
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
        let mut lead = self.replicas.lead(shard)?;
        if fence.term < lead.term {
            self.replicas.barrier(shard).await?;
            lead = self.replicas.lead(shard)?;
        }
        let leases = self.of(shard);
        {
            let mut table = leases.table.lock();
            table.enter(lead);
            let now = self.now();
            self.inherit(shard, &mut table, entry, fence, now)?;
            table.begin_settling(entry, fence, &request_id, now).map_err(lost)?;
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

fn lost(Lost: Lost) -> pb::Fault {
    fault::lease_lost()
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
        let mut found = Found {
            leased: Vec::new(),
            next_due_ms: None,
            is_due: false,
            is_cut: false,
            inherited_until: table.inheritance.until(self.now),
        };
        let mut budget = Budget::default();
        let mut first_ms = None;
        let passed = table.inheritance.passed(self.now);
        let range = match passed {
            Some((due_ms, entry)) => KeyRange::due_from(due_ms, entry),
            None => KeyRange::due(table.due_from_ms(), i64::MAX),
        };
        for row in reader.scan(&range, Direction::Forward) {
            let (key, _) = row?;
            let Key::QueueDue(due_ms, entry) = Key::decode(key.as_ref())? else { continue };
            first_ms.get_or_insert(due_ms);
            let is_free = table.is_free(entry, self.now);
            if is_free && due_ms > self.now_ms {
                found.next_due_ms = Some(due_ms);
                break;
            }
            if is_free && (found.leased.len() >= self.room || budget.leased_bytes >= REPLY_BUDGET_BYTES) {
                break;
            }
            let is_kept = !is_free || self.is_inherited(reader, table, entry, &mut budget)?;
            if !is_kept && self.purpose == Purpose::See {
                found.is_due = true;
                break;
            }
            if !is_kept && let Some((record, body)) = queue::leased_entry(reader, entry, self.now_ms)? {
                budget.leased_bytes += record.encoded_len() + body.encoded_len();
                let fence = Some(table.take(entry, self.until));
                let leased = pb::LeasedEntry {
                    entry: Some(record),
                    body: Some(body),
                    fence,
                    leased_ms: self.now_ms,
                    ..Default::default()
                };
                found.leased.push(leased);
            }
            if found.inherited_until.is_some() {
                table.inheritance.pass(due_ms, entry, self.seen_ms);
                // Those due at the shard's very time are seen again by the next look: it would come no further.
                found.is_cut = budget.is_used_up() && due_ms < self.seen_ms;
                if found.is_cut {
                    break;
                }
            }
        }
        if passed.is_none() && found.inherited_until.is_none() {
            table.looked(first_ms, self.seen_ms);
        }
        Ok(found)
    }

    fn is_inherited(
        &self,
        reader: &RocksReader<'_>,
        table: &LeaseTable,
        entry: EntryId,
        budget: &mut Budget,
    ) -> Result<bool, Broken> {
        if table.inheritance.until(self.now).is_none() {
            return Ok(false);
        }
        let Some(made) = queue::made(reader, entry)? else { return Ok(false) };
        budget.inherited_rows += 1;
        budget.inherited_bytes += made.bytes;
        Ok(table.inheritance.has(&made, self.now))
    }
}

/// What a look has read.
#[derive(Default)]
struct Budget {
    leased_bytes: usize,
    inherited_rows: usize,
    inherited_bytes: usize,
}

impl Budget {
    fn is_used_up(&self) -> bool {
        self.inherited_rows >= INHERITED_ROWS_MAX || self.inherited_bytes >= INHERITED_BYTES_MAX
    }
}
