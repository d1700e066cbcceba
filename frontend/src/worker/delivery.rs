//! One leased queue entry: from its waiting recipients to their mailboxes, and back to the source with what became of it.
//!
//! Invariant (P-6): every `Deliver` names its targets by `request::of_transfer`, so a target shard carries each transfer out
//! once, whoever asks and however often. Whatever is not certain is settled as waiting, or not at all.
//! Invariant (P-1): nothing is proposed to a target before the blobs that it refers to are durable in two of the target's regions.
//! Invariant (P-1): a recipient is given up only for what is known of himself. A shard or directory that does not answer, or a
//! mailbox that is too full, puts him off for as long as it takes; what is given up is kept in the source's error queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use postrider_api::env::{Clock, Entropy, random};
use postrider_api::id::{BlobHash, EntryId, IdError, RequestId, ShardId, UserId};
use postrider_api::pb::{self, Refusal, command::Op, outcome};
use postrider_api::request;
use postrider_api::trace::{self, Context, Kind};
use postrider_router::RouteError;
use tokio::sync::OwnedSemaphorePermit;

use super::carrier::{BlobCarrier, blobs_of};
use super::forget::Forgetter;
use super::lease::{BootClock, Lapsed, Lease};
use super::limit::{OUTSIDE_BUSY_MS, QUESTIONS_AT_ONCE_MAX, TARGETS_AT_ONCE_MAX, WorkerTimings};
use super::outside::{self, Outside, Settled};
use crate::cluster::Cluster;
use crate::pins::{self, PinError};
use crate::place::Place;
use crate::trouble::Troubled;

/// What deliveries share.
pub(super) struct Deliveries {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) blobs: Arc<dyn BlobCarrier>,
    pub(super) boot_clock: Arc<dyn BootClock>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) timings: WorkerTimings,
    pub(super) troubled: Troubled,
    pub(super) forgetter: Forgetter,
    /// `None`: whoever is outside waits for another worker.
    pub(super) outside: Option<Outside>,
}

/// What became of one recipient in this attempt. Of whom nothing is known there is none. The texts are kept in the entry and
/// shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// In the mailbox, which is in this shard.
    Delivered(ShardId),
    /// To be tried again, however long: nothing was learnt of him. Where it is his shard that did not answer, he waits in its
    /// line.
    Held(String, Option<ShardId>),
    /// The same: his shard has just said that his mailbox is too full.
    Full,
    /// To be tried again, but not for ever: a shard has answered, and what it said would keep him waiting.
    Deferred(String),
    /// There is no such user any more.
    Gone,
    /// His account was deleted: nobody wants the message any more.
    Dropped,
    /// It was so long ago that he certainly did not have the message that his shard cannot tell whether he has it.
    TooOld,
}

/// A recipient of an entry.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    user: UserId,
    address: String,
    attempts: u32,
    /// When he certainly did not have it.
    undelivered_ms: i64,
}

/// A leased entry that has been understood.
pub(super) struct Entry {
    pub(super) source: ShardId,
    pub(super) id: EntryId,
    /// Those who were tried least come first: what there was no time for in one attempt is done in the next.
    pub(super) users: Vec<Waiting>,
    /// Those who are outside.
    pub(super) outside: Vec<pb::PendingRecipient>,
    pub(super) mail_from: String,
    /// Who sent it, if he lives here: he is told what becomes of it.
    pub(super) sender: Option<UserId>,
    pub(super) options: pb::SendOptions,
    pub(super) message: pb::NewMessage,
    /// What the message refers to.
    blobs: Vec<BlobHash>,
    pub(super) attempts: u32,
    pub(super) created_ms: i64,
    /// When the lease was given, by the clock of the source's leader.
    pub(super) leased_ms: i64,
}

impl Deliveries {
    /// Delivers and settles one entry of `source`, within its lease. Whoever is outside may take many leases: it is prolonged meanwhile,
    /// and `place` is given back to others.
    pub(super) async fn deliver(
        &self,
        source: ShardId,
        lease: &Lease,
        leased: pb::LeasedEntry,
        place: OwnedSemaphorePermit,
    ) {
        let context = Context::from_bytes(&leased.trace);
        // Hosts outside take their time.
        let mut span = trace::continued(context, "deliver", Kind::Consumer).patient();
        span.set("postrider.shard", source.0);
        span.set("postrider.entry", leased.entry.as_ref().map_or(0, |entry| entry.entry));
        span.scope(self.deliver_within(source, lease, leased, place)).await;
    }

    async fn deliver_within(
        &self,
        source: ShardId,
        lease: &Lease,
        leased: pb::LeasedEntry,
        place: OwnedSemaphorePermit,
    ) {
        let fence = leased.fence.unwrap_or_default();
        let entry = match Entry::read(source, leased) {
            Ok(entry) => entry,
            Err(error) => {
                // Left as it is: the lease lapses, and an operator sees the entry and this line.
                tracing::error!(source = source.0, %error, "a queue entry cannot be read");
                return;
            }
        };
        let fates = self.attempt(&entry, lease).await;
        if fates.len() < entry.users.len() {
            metrics::counter!("postrider_worker_lapsed_total").increment(1);
            let left = entry.users.len() - fates.len();
            tracing::info!(source = source.0, entry = entry.id.0, left, "a lease was too short for all recipients");
        }
        drop(place);
        let outside = match &self.outside {
            _ if entry.outside.is_empty() => Settled::default(),
            None => {
                let Some((settled, lease)) = outside::without(self, &entry, lease, fence).await else { return };
                return self.settle(&entry, &lease, fence, &fates, settled).await;
            }
            Some(outside) => match outside.place(&entry) {
                None => outside::put_off(&entry, "this worker has enough to send already", OUTSIDE_BUSY_MS),
                Some(places) => {
                    // Whoever has it, once the lease is lost, settles it.
                    if let Some(taken) = outside.take(self, &entry, lease, fence, places).await {
                        self.settle_taken(&entry, fence, &fates, taken).await;
                    }
                    return;
                }
            },
        };
        // Nothing is known: the lease lapses, as it does when a worker dies.
        if !fates.is_empty() || !outside.results.is_empty() {
            self.settle(&entry, lease, fence, &fates, outside).await;
        }
    }

    async fn attempt(&self, entry: &Entry, lease: &Lease) -> BTreeMap<UserId, Fate> {
        let mut fates = BTreeMap::new();
        let mut groups = Vec::<(ShardId, Vec<Waiting>)>::new();
        let reserve = self.timings.to_deliver();
        let located: Vec<_> = stream::iter(entry.users.clone())
            .map(|waiting| async move {
                let locate = |limit| self.cluster.locate(waiting.user, limit);
                let shard = lease.within(reserve, self.timings.locate, locate).await;
                (waiting, shard)
            })
            .buffered(QUESTIONS_AT_ONCE_MAX)
            .collect()
            .await;
        for (waiting, shard) in located {
            match shard {
                Ok(Ok(Some(shard))) => match groups.iter_mut().find(|(target, _)| *target == shard) {
                    Some((_, users)) => users.push(waiting),
                    None => groups.push((shard, vec![waiting])),
                },
                Ok(Ok(None)) => {
                    fates.insert(waiting.user, Fate::Gone);
                }
                Ok(Err(error)) => {
                    fates.insert(waiting.user, unanswered(&error));
                }
                Err(Lapsed) => {}
            }
        }
        let delivered: Vec<_> = stream::iter(groups)
            .map(|(target, users)| self.transfer(entry, lease, target, users))
            .buffer_unordered(TARGETS_AT_ONCE_MAX)
            .collect()
            .await;
        fates.extend(delivered.into_iter().flatten());
        fates
    }

    /// Delivers to those of the recipients who live in `target`.
    async fn transfer(
        &self,
        entry: &Entry,
        lease: &Lease,
        target: ShardId,
        users: Vec<Waiting>,
    ) -> Vec<(UserId, Fate)> {
        let mut span = trace::child("transfer", Kind::Internal);
        span.set("postrider.shard", target.0);
        span.set("postrider.recipients", users.len());
        span.scope(self.transfer_within(entry, lease, target, users)).await
    }

    async fn transfer_within(
        &self,
        entry: &Entry,
        lease: &Lease,
        target: ShardId,
        users: Vec<Waiting>,
    ) -> Vec<(UserId, Fate)> {
        let all = |fate: Fate| users.iter().map(|waiting| (waiting.user, fate.clone())).collect();
        if self.troubled.has(target) {
            return all(Fate::Held(format!("shard {target} has no quorum"), Some(target)));
        }
        let command = self.command(entry, &users);
        let epoch = match self.carry(entry, lease, target, &command.request).await {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(fate)) => return all(fate),
            Err(Lapsed) => return Vec::new(),
        };
        let propose = |limit| self.cluster.propose_at(target, epoch, None, command, limit);
        match lease.within(self.timings.to_settle(), self.timings.deliver, propose).await {
            Ok(Ok(outcome)) => {
                self.troubled.remove(target);
                match outcome.result {
                    Some(outcome::Result::Delivered(delivered)) => self.sort(lease, target, &users, &delivered).await,
                    other => all(refused(entry, target, other)),
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(source = entry.source.0, entry = entry.id.0, target = target.0, %error, "put off");
                all(self.unreached(target, &error))
            }
            // It may have been carried out: whoever has the entry next asks under the same requests.
            Err(Lapsed) => Vec::new(),
        }
    }

    /// Pins the message's blobs in the target, and makes them durable for it, so far as they are not; answers the epoch of the placement for which
    /// they are, 0 where there are none.
    pub(super) async fn carry(
        &self,
        entry: &Entry,
        lease: &Lease,
        target: ShardId,
        request: &Bytes,
    ) -> Result<Result<u64, Fate>, Lapsed> {
        if entry.blobs.is_empty() || target == entry.source {
            return Ok(Ok(0));
        }
        let refs = pins::of_message(&entry.message);
        let pin = |limit| pins::pin(&*self.cluster, target, None, request, refs, None, limit);
        let reserve = self.timings.to_settle().saturating_add(self.timings.deliver);
        match lease.within(reserve, self.timings.carry, pin).await? {
            Ok(()) => {}
            Err(PinError::Route(error)) => return Ok(Err(self.unreached(target, &error))),
            Err(error) => {
                let why = format!("the attachments cannot be pinned in shard {target} yet: {error}");
                return Ok(Err(Fate::Held(why, None)));
            }
        }
        let map = self.cluster.map();
        let epoch = Place::of(&map, target).map_or(0, |place| place.epoch);
        let carry = |limit| tokio::time::timeout(limit, self.blobs.carry(&map, entry.source, target, &entry.blobs));
        let why = match lease.within(reserve, self.timings.carry, carry).await? {
            Ok(Ok(())) => return Ok(Ok(epoch)),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it takes longer than one attempt may".to_owned(),
        };
        Ok(Err(Fate::Held(format!("the attachments are not durable for shard {target} yet: {why}"), None)))
    }

    fn unreached(&self, target: ShardId, error: &RouteError) -> Fate {
        let reason = format!("shard {target}: {error}");
        match error {
            RouteError::NoQuorum | RouteError::TimedOut { .. } | RouteError::UnknownShard | RouteError::Busy => {
                self.troubled.add(target);
                Fate::Held(reason, Some(target))
            }
            // The message itself cannot be delivered there, today or later.
            RouteError::TooLarge { .. } | RouteError::Malformed { .. } => {
                tracing::error!(target = target.0, %error, "a delivery cannot be made");
                Fate::Deferred(reason)
            }
            // What it refers to has to be carried to where the shard is now.
            RouteError::Moved => Fate::Held(reason, None),
            // An operator must act, and the recipient has nothing to do with it.
            RouteError::Unauthenticated
            | RouteError::Suspended
            | RouteError::Behind
            | RouteError::Forbidden { .. }
            | RouteError::LeaseLost
            | RouteError::TooCostly { .. }
            | RouteError::Unready { .. }
            | RouteError::Corrupt { .. } => {
                tracing::error!(target = target.0, %error, "a delivery cannot be made");
                Fate::Held(reason, Some(target))
            }
        }
    }

    fn command(&self, entry: &Entry, users: &[Waiting]) -> pb::Command {
        let targets = users.iter().map(|Waiting { user, address, undelivered_ms, .. }| pb::Target {
            user_id: user.to_bytes(),
            address: address.clone(),
            request: request::of_transfer(entry.source, entry.id, *user).to_bytes(),
            undelivered_ms: *undelivered_ms,
        });
        pb::Command {
            request: RequestId(random(&*self.entropy)).to_bytes(),
            entropy: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            op: Some(Op::Deliver(pb::Deliver {
                source_shard: entry.source.0,
                entry: entry.id.0,
                targets: targets.collect(),
                mail_from: entry.mail_from.clone(),
                message: Some(entry.message.clone()),
                leased_ms: entry.leased_ms,
            })),
            ..pb::Command::default()
        }
    }

    /// Reads what the target said of each.
    async fn sort(
        &self,
        lease: &Lease,
        target: ShardId,
        users: &[Waiting],
        delivered: &pb::Delivered,
    ) -> Vec<(UserId, Fate)> {
        let names = |ids: &[Bytes], user: UserId| ids.iter().any(|id| id.as_ref() == user.0);
        let mut fates = Vec::with_capacity(users.len());
        for Waiting { user, .. } in users {
            let fate = if delivered.deliveries.iter().any(|delivery| delivery.user_id.as_ref() == user.0) {
                Fate::Delivered(target)
            } else if names(&delivered.unknown_users, *user) {
                match self.not_there(lease, *user, target).await {
                    Ok(fate) => fate,
                    Err(Lapsed) => continue,
                }
            } else if names(&delivered.over_quota, *user) {
                Fate::Full
            } else if names(&delivered.suspended, *user) {
                Fate::Deferred("the account is suspended".to_owned())
            } else if names(&delivered.deleted, *user) {
                Fate::Dropped
            } else if names(&delivered.too_old, *user) {
                Fate::TooOld
            } else {
                Fate::Deferred(format!("shard {target} said nothing of the recipient"))
            };
            fates.push((*user, fate));
        }
        fates
    }

    /// The shard does not know the user: asks the directory anew, because what was remembered may be old.
    async fn not_there(&self, lease: &Lease, user: UserId, target: ShardId) -> Result<Fate, Lapsed> {
        self.cluster.forget(user);
        let locate = |limit| self.cluster.locate(user, limit);
        Ok(match lease.within(self.timings.to_settle(), self.timings.locate, locate).await? {
            Ok(None) => Fate::Gone,
            Ok(Some(shard)) if shard == target => Fate::Deferred(format!("shard {target} does not have the user yet")),
            Ok(Some(shard)) => Fate::Held(format!("the user is in shard {shard} now"), None),
            Err(error) => unanswered(&error),
        })
    }
}

fn unanswered(error: &RouteError) -> Fate {
    Fate::Held(format!("the directory does not answer: {error}"), None)
}

/// A shard that answered, and did not take the delivery.
fn refused(entry: &Entry, target: ShardId, result: Option<outcome::Result>) -> Fate {
    let (source, id) = (entry.source.0, entry.id.0);
    match result {
        Some(outcome::Result::Refused(refused))
            if matches!(refused.refusal(), Refusal::BlobsNotPinned | Refusal::BlobCondemned) =>
        {
            Fate::Held(format!("shard {target}: {}", refused.detail), None)
        }
        Some(outcome::Result::Refused(refused)) if refused.refusal() == Refusal::LeaseTooOld => {
            // This worker was stopped for long, or the clocks of two leaders are far apart.
            tracing::warn!(source, entry = id, target = target.0, detail = refused.detail, "a delivery came too late");
            Fate::Held(format!("shard {target}: {}", refused.detail), None)
        }
        Some(outcome::Result::Refused(refused)) if refused.refusal() == Refusal::VersionNotEnabled => {
            // This build is newer than the shard, which will be raised; nothing is wrong with the message.
            Fate::Held(format!("shard {target}: {}", refused.detail), Some(target))
        }
        Some(outcome::Result::Refused(refused)) => {
            let refusal = refused.refusal();
            tracing::error!(
                source,
                entry = id,
                target = target.0,
                ?refusal,
                detail = refused.detail,
                "a delivery was refused"
            );
            Fate::Deferred(format!("shard {target} refuses the delivery: {}", refused.detail))
        }
        other => {
            tracing::error!(
                source,
                entry = id,
                target = target.0,
                ?other,
                "a shard answered something else to a delivery"
            );
            Fate::Deferred(format!("shard {target} refuses the delivery"))
        }
    }
}

impl Entry {
    /// Puts the text back into the message.
    fn read(source: ShardId, leased: pb::LeasedEntry) -> Result<Self, Unreadable> {
        let record = leased.entry.ok_or(Unreadable::Part("the entry"))?;
        let body = leased.body.ok_or(Unreadable::Part("the text"))?;
        let mut message = record.message.ok_or(Unreadable::Part("the message"))?;
        let stored = message.body.as_mut().ok_or(Unreadable::Part("the body id"))?;
        *stored = pb::Body {
            body_id: stored.body_id.clone(),
            compression: body.compression,
            text: body.text,
            text_length: body.text_length,
        };
        let (outside, users): (Vec<_>, Vec<_>) =
            record.pending.into_iter().partition(|pending| pending.user_id.is_empty());
        let mut users = users
            .into_iter()
            .map(|pending| {
                let user = UserId::try_from(&pending.user_id)?;
                let pb::PendingRecipient { address, attempts, undelivered_ms, .. } = pending;
                Ok(Waiting { user, address, attempts, undelivered_ms })
            })
            .collect::<Result<Vec<_>, IdError>>()?;
        users.sort_by_key(|waiting| waiting.attempts);
        let blobs = blobs_of(&message)?;
        let sender = match record.sender_user_id.is_empty() {
            true => None,
            false => Some(UserId::try_from(&record.sender_user_id)?),
        };
        Ok(Self {
            source,
            id: EntryId(record.entry),
            users,
            outside,
            sender,
            options: record.options.unwrap_or_default(),
            mail_from: record.mail_from,
            message,
            blobs,
            attempts: record.attempts,
            created_ms: record.created_ms,
            leased_ms: leased.leased_ms,
        })
    }
}

/// Why a leased entry makes no sense.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("{0} is missing")]
    Part(&'static str),
    #[error(transparent)]
    Id(#[from] IdError),
}
