//! Deleted accounts go: whoever leads a shard takes each deletion that stands in it to its end.
//!
//! Invariant: every step may be done again, and a step begins only once the one before is done; so whoever leads next goes on
//! from wherever it stands (`shard/src/mailbox/delete_account.rs` has the order). Nothing is kept in memory but what spares
//! repetitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::address::{hash_of, slot_of};
use postrider_api::id::{IdError, ShardId, UserId};
use postrider_api::limit::DROPPED_ENTRIES_MAX;
use postrider_api::pb::{self, Refusal, ShardKind, answer::Answer, command::Op, outcome::Result as Made, query::Query};
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::calls::{CallError, Calls};
use crate::fault;
use crate::map::MapView;
use crate::steward::Fitness;

/// How often it is looked for deletions that a leader before this one has begun.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Deletions of one shard that are looked at in one round.
const DELETIONS_PER_ROUND: u32 = 16;
/// Commands that one deletion gets in one round: a large mailbox does not keep the others waiting.
const DRAINS_PER_ROUND: usize = 32;
/// Between two of them: a large mailbox does not keep the shard's mail waiting, either.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// Deletions of which is remembered that their address is closed.
const CLOSED_MAX: usize = 10_000;

/// Takes deletions of the shards that this node leads to their end.
pub(crate) struct Deleter {
    pub(crate) calls: Calls,
    pub(crate) fitness: Arc<Fitness>,
    /// Rings when an account begins to be deleted.
    pub(crate) begun: Arc<Notify>,
    pub(crate) stop: CancellationToken,
}

#[derive(Debug, Error)]
enum DeletionError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("shard {0} said something else than was asked")]
    Unexpected(ShardId),
    #[error("its record has no user: {0}")]
    User(#[from] IdError),
    #[error("the shard map has no directory shard for its address")]
    NoDirectory,
    #[error("its rows cannot be read")]
    Unread,
}

/// How far a round has brought a deletion.
#[derive(PartialEq, Eq)]
enum Progress {
    Over,
    /// There is more to remove than one round may.
    More,
}

impl Deleter {
    pub(crate) async fn run(self) {
        let mut closed = HashSet::new();
        let mut is_more = false;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.begun.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY), if !is_more => {}
                () = tokio::time::sleep(DRAIN_PAUSE), if is_more => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                more = self.round(&mut closed) => is_more = more,
            }
        }
    }

    /// Whether something is left that can go on at once.
    async fn round(&self, closed: &mut HashSet<UserId>) -> bool {
        let mut is_more = false;
        for group in self.calls.replicas.host.groups() {
            let shard = ShardId(group.0);
            if shard.kind() != Some(ShardKind::Mailbox) || !self.fitness.is_fit() {
                continue;
            }
            let deletions = match self.deletions(shard) {
                Ok(deletions) => deletions,
                Err(error) => {
                    tracing::error!(shard = shard.0, %error, "deletions cannot be looked for");
                    continue;
                }
            };
            if deletions.is_empty() || !self.leads(shard).await {
                continue;
            }
            is_more |= deletions.len() == DELETIONS_PER_ROUND as usize;
            for deletion in deletions {
                match self.carry_on(shard, &deletion, closed).await {
                    Ok(Progress::Over) => {}
                    Ok(Progress::More) => is_more = true,
                    Err(error) => {
                        tracing::info!(shard = shard.0, since_ms = deletion.since_ms, %error, "a deletion is put off");
                    }
                }
            }
        }
        is_more
    }

    /// Whether this node is the one to do it. A group that nobody leads, and that sleeps, is woken: it has something to do.
    async fn leads(&self, shard: ShardId) -> bool {
        let replicas = &self.calls.replicas;
        if replicas.leading(shard).is_ok() {
            return true;
        }
        if replicas.status(shard).is_some_and(|status| status.leader.is_none()) {
            // Whoever leads then looks by himself.
            drop(replicas.barrier(shard).await);
        }
        false
    }

    /// From this replica's rows: whoever is late here is told so by the commands.
    fn deletions(&self, shard: ShardId) -> Result<Vec<pb::Deletion>, DeletionError> {
        let query = pb::Query { query: Some(Query::ListDeletions(pb::ListDeletions { limit: DELETIONS_PER_ROUND })) };
        let replicas = &self.calls.replicas;
        let now_ms = replicas.clock.wall_ms();
        let answered = replicas.read(shard, |reader| postrider_shard::query(shard, reader, now_ms, &query));
        match answered {
            Ok(pb::Answer { answer: Some(Answer::Deletions(deletions)) }) => Ok(deletions.deletions),
            Ok(_) => Err(DeletionError::Unread),
            Err(error) => {
                drop(fault::of_query(error)); // which logs it
                Err(DeletionError::Unread)
            }
        }
    }

    async fn carry_on(
        &self,
        shard: ShardId,
        deletion: &pb::Deletion,
        closed: &mut HashSet<UserId>,
    ) -> Result<Progress, DeletionError> {
        let user = UserId::try_from(&deletion.user_id)?;
        let map = self.calls.map.get().ok_or(DeletionError::NoDirectory)?;
        let directory = directory_of(&map, shard, &deletion.address).ok_or(DeletionError::NoDirectory)?;
        let address_hash = Bytes::copy_from_slice(&hash_of(&deletion.address));
        let user_id = user.to_bytes();
        if !closed.contains(&user) {
            let close = pb::CloseAddress { address_hash: address_hash.clone(), user_id: user_id.clone() };
            done_or_nobodys(self.calls.propose(directory, Op::CloseAddress(close)).await)?;
            if closed.len() >= CLOSED_MAX {
                closed.clear();
            }
            closed.insert(user);
        }
        if !self.drain(shard, user).await? {
            return Ok(Progress::More);
        }
        self.drop_from_queues(&map, shard, user).await?;
        let retire = pb::RetireAddress { address_hash, user_id: user_id.clone() };
        done_or_nobodys(self.calls.propose(directory, Op::RetireAddress(retire)).await)?;
        self.calls.propose(shard, Op::FinishDeletion(pb::FinishDeletion { user_id })).await?;
        closed.remove(&user);
        metrics::counter!("postrider_node_accounts_deleted_total").increment(1);
        tracing::info!(shard = shard.0, %user, "an account is deleted");
        Ok(Progress::Over)
    }

    /// Whether nothing is left.
    async fn drain(&self, shard: ShardId, user: UserId) -> Result<bool, DeletionError> {
        for _ in 0..DRAINS_PER_ROUND {
            let drain = pb::DrainAccount { user_id: user.to_bytes() };
            match self.calls.propose(shard, Op::DrainAccount(drain)).await? {
                Made::AccountDraining(pb::AccountDraining { is_empty: true }) => return Ok(true),
                Made::AccountDraining(_) => tokio::time::sleep(DRAIN_PAUSE).await,
                _ => return Err(DeletionError::Unexpected(shard)),
            }
        }
        Ok(false)
    }

    /// Queues of the zone's shards: mail that waits for the user, and mail that was given up.
    async fn drop_from_queues(&self, map: &MapView, home: ShardId, user: UserId) -> Result<(), DeletionError> {
        let zone = map.shard(home).map(|shard| shard.zone.as_str()).unwrap_or_default();
        let mailboxes = map.map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox && shard.zone == zone);
        for shard in mailboxes.map(|shard| ShardId(shard.id)) {
            self.drop_from_queue(shard, user).await?;
        }
        Ok(())
    }

    async fn drop_from_queue(&self, shard: ShardId, user: UserId) -> Result<(), DeletionError> {
        let mut after_entry = 0;
        loop {
            let find = pb::FindRecipient { user_id: user.to_bytes(), after_entry };
            let found = match self.calls.query(shard, Query::FindRecipient(find)).await? {
                Answer::RecipientEntries(found) => found,
                _ => return Err(DeletionError::Unexpected(shard)),
            };
            for entries in found.entries.chunks(DROPPED_ENTRIES_MAX) {
                let drop = pb::DropRecipient { user_id: user.to_bytes(), entries: entries.to_vec() };
                self.calls.propose(shard, Op::DropRecipient(drop)).await?;
            }
            if !found.more {
                return Ok(());
            }
            after_entry = found.until_entry;
        }
    }
}

/// The directory shard of the zone that answers for an address.
fn directory_of(map: &MapView, mailbox: ShardId, address: &str) -> Option<ShardId> {
    let zone = map.shard(mailbox)?.zone.as_str();
    let slot = u32::from(slot_of(address).0);
    let answers = |shard: &&pb::Shard| {
        let is_its = (shard.slot_first..=shard.slot_last).contains(&slot);
        shard.kind() == ShardKind::Directory && shard.zone == zone && is_its
    };
    map.map.shards.iter().find(answers).map(|shard| ShardId(shard.id))
}

/// An address that nobody has, or that somebody else has by now, needs no end.
fn done_or_nobodys(made: Result<Made, CallError>) -> Result<(), CallError> {
    match made {
        Ok(_) => Ok(()),
        Err(CallError::Refused { refusal: Refusal::UnknownAddress | Refusal::AddressTaken, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
