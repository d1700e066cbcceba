//! From a whole message to a promise: parsed, its blobs durable in two regions, then one `Accept` in one shard.
//!
//! Invariant (P-1): no queue id before the shard has committed, and nothing is proposed to a shard before the blobs are durable in
//! two regions of that very shard, also where it is another than the recipient's own (P-5).
//! Invariant (P-6): the message is proposed to another shard only while it is certain that no shard before has it. After an
//! unknown outcome only the same shard is asked again, under the same request id.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use postrider_api::env::{Clock, Entropy, random};
use postrider_api::id::{BodyId, EmailId, EntryId, RequestId, ShardId, UserId};
use postrider_api::pb::{self, Refusal, command::Op, outcome};
use postrider_api::trace::{self, Kind};
use postrider_outgoing::return_path::ReturnPaths;
use postrider_router::RouteError;
use tokio::sync::Semaphore;

use super::congestion::Congestion;
use super::envelope::{Recipient, Transaction};
use super::intake::Intake;
use super::limit::{INGESTS_AT_ONCE_MAX, INLINE_INGEST_BYTES_MAX, SmtpLimits};
use super::reply::{QueueId, QueuePlace, Reply};
use super::reports::Reports;
use super::view::Views;
use crate::cluster::Cluster;
use crate::pins::{self, PinError};
use crate::place::Place;
use crate::trouble::Troubled;
use postrider_mime::{CutBlob, IngestLimits, Ingested, ingest};

/// Shards that are tried when the recipient's own has no quorum.
const OTHER_SHARDS_MAX: usize = 2;
/// Shards that are looked at for some whose stores are not those that have just failed.
const OTHER_CANDIDATES_MAX: usize = 64;
/// Placements of one shard that a message is tried under: one moves once in a while, and takes minutes.
const PLACEMENTS_MAX: usize = 3;
/// A shard that had no quorum is given only this long for the next message while it is remembered.
const TROUBLED_PATIENCE: Duration = Duration::from_millis(400);
/// How long it is remembered.
const TROUBLED: Duration = Duration::from_secs(5);
/// Between two questions for an outcome that is unknown.
const AGAIN_PAUSE: Duration = Duration::from_millis(50);
/// What a blob is given per MiB beyond the base time: a quarter of a line of 100 Mbit/s, twice.
const BLOB_TIME_PER_MIB: Duration = Duration::from_millis(700);

/// Makes blobs durable.
#[async_trait]
pub trait BlobSink: Send + Sync + 'static {
    /// Puts the blobs of one message for a shard of `map`; returns when the stores of two of the shard's regions have each of
    /// them on disk.
    async fn put_all(&self, map: &pb::ShardMap, shard: ShardId, blobs: Vec<CutBlob>) -> Result<(), BlobPutError>;
}

/// Why a blob is not durable.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum BlobPutError {
    /// Fewer than two regions have it: later it may work.
    #[error("fewer than two regions stored the blob: {0}")]
    Unavailable(String),
    /// An operator must act: the zone or its credentials are wrong.
    #[error("the blob cannot be stored: {0}")]
    Refused(String),
}

/// Makes messages durable.
pub(super) struct Committer {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) views: Arc<Views>,
    pub(super) return_paths: Option<ReturnPaths>,
    reports: Arc<Reports>,
    /// From when on what an account sends is held against what it used to send.
    pub(super) sending: Option<pb::SendingLimits>,
    blobs: Arc<dyn BlobSink>,
    pub(super) clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    region: String,
    pub(super) commit: Duration,
    commit_home: Duration,
    blobs_base: Duration,
    ingests: Semaphore,
    ingest_limits: Arc<IngestLimits>,
    troubled: Troubled,
    congestion: Arc<Congestion>,
    intake: Arc<Intake>,
}

/// The blobs of one message on their way.
pub(super) struct Blobs {
    cut: Vec<CutBlob>,
    /// What they are pinned for.
    request: Bytes,
    /// Whose quota the message is held against, where he lives, and its bytes; of several recipients nobody's.
    quota: Option<(UserId, ShardId, u64)>,
    /// Where they are durable in two regions.
    stored: Vec<Place>,
    /// Where they could not be made so.
    failed: Vec<Place>,
}

impl Blobs {
    pub(super) fn new(cut: Vec<CutBlob>, request: Bytes, quota: Option<(UserId, ShardId, u64)>) -> Self {
        Self { cut, request, quota, stored: Vec::new(), failed: Vec::new() }
    }

    /// Whether they can be durable at `place`, as far as is known.
    fn may_be_at(&self, place: &Place) -> bool {
        !self.failed.iter().any(|failed| place.is_within(failed))
    }
}

/// A proposal that was not accepted.
pub(super) enum Miss {
    /// Certainly not carried out, and another shard may do better.
    Elsewhere(Reply),
    /// Certainly not carried out: the shard has other replicas than the blobs were put for.
    Moved,
    /// This is the answer.
    Final(Reply),
}

impl Miss {
    pub(super) fn reply(self) -> Reply {
        match self {
            Miss::Elsewhere(reply) | Miss::Final(reply) => reply,
            Miss::Moved => Reply::NoQuorum,
        }
    }
}

impl Committer {
    /// Commits to `cluster`; `region` is this frontend's, whose shards are preferred where the recipient's has no quorum.
    pub(super) fn new(
        cluster: Arc<dyn Cluster>,
        views: Arc<Views>,
        blobs: Arc<dyn BlobSink>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        region: String,
        limits: &SmtpLimits,
    ) -> Self {
        let troubled = Troubled::new(Arc::clone(&clock), TROUBLED);
        let congestion = Arc::new(Congestion::new(Arc::clone(&clock)));
        let intake = Intake::new(Arc::clone(&clock), limits);
        let reports = Arc::new(Reports::new(Arc::clone(&views)));
        Self {
            cluster,
            reports,
            views,
            return_paths: None,
            sending: None,
            blobs,
            clock,
            entropy,
            region,
            commit: limits.commit,
            commit_home: limits.commit_home,
            blobs_base: limits.blobs,
            ingests: Semaphore::new(INGESTS_AT_ONCE_MAX),
            ingest_limits: Arc::new(IngestLimits::default()),
            troubled,
            congestion,
            intake,
        }
    }

    /// The same with what concerns mail of our own users: where it comes back to, and when it is much.
    pub(super) fn for_senders(self, return_paths: Option<ReturnPaths>, sending: Option<pb::SendingLimits>) -> Self {
        Self { return_paths, sending, ..self }
    }

    /// Whose queues are found full here: to be told at RCPT.
    pub(super) fn congestion(&self) -> Arc<Congestion> {
        Arc::clone(&self.congestion)
    }

    /// What strangers have brought to the object stores: to be told at RCPT, too.
    pub(super) fn intake(&self) -> Arc<Intake> {
        Arc::clone(&self.intake)
    }

    /// Makes one message durable.
    ///
    /// # Errors
    /// The reply to the end of the message.
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<QueueId, Reply> {
        let Transaction { id, peer, mail_from, recipients, message, submission: _ } = transaction;
        let home = home(&recipients);
        let view = self.views.newest();
        let zone = view.zone(home).ok_or(Reply::NoQuorum)?;
        let ingested = self.ingest(message.bytes.clone()).await?;
        self.take_feedback(id, &recipients, &message.bytes, &ingested.message).await?;
        self.reports.look_at(&recipients, &message.bytes, &ingested.message);
        if !ingested.blobs.is_empty() {
            let bytes = ingested.blobs.iter().map(|blob| blob.content.len() as u64).sum();
            self.intake.take(peer, recipients.iter().map(|recipient| recipient.user), bytes)?;
        }
        let quota = match &recipients[..] {
            [only] => Some((only.user, only.shard, ingested.message.size)),
            _ => None,
        };
        let blobs = Blobs::new(ingested.blobs, id.to_bytes(), quota);
        let command = self.command(
            id,
            Op::Accept(pb::Accept {
                mail_from,
                recipients: recipients.into_iter().map(to_pb).collect(),
                message: Some(ingested.message),
                submitted: false,
            }),
        );
        let accepted = self.accept(id, home, &zone, blobs, command).await;
        // Accounted until the command is gone, which holds the text.
        drop(message.share);
        accepted
    }

    pub(super) fn command(&self, id: RequestId, op: Op) -> pb::Command {
        pb::Command {
            request: id.to_bytes(),
            entropy: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            op: Some(op),
            ..pb::Command::default()
        }
    }

    pub(super) async fn ingest(&self, raw: Bytes) -> Result<Ingested, Reply> {
        let body = BodyId(random(&*self.entropy));
        if raw.len() <= INLINE_INGEST_BYTES_MAX {
            return Ok(ingest(&raw, body, &self.ingest_limits));
        }
        // The semaphore is never closed.
        let _permit = self.ingests.acquire().await.map_err(|_| Reply::Draining)?;
        let limits = Arc::clone(&self.ingest_limits);
        tokio::task::spawn_blocking(move || ingest(&raw, body, &limits)).await.map_err(|error| {
            tracing::error!(%error, "ingest did not finish");
            Reply::Broken
        })
    }

    /// Makes the blobs durable for a shard, unless they are so at a place whose regions are all its own. Answers the epoch of the
    /// placement for which they are, 0 where there are none.
    async fn store(&self, shard: ShardId, blobs: &mut Blobs) -> Result<u64, Miss> {
        if blobs.cut.is_empty() {
            return Ok(0);
        }
        let map = self.cluster.map();
        let place = Place::of(&map, shard).ok_or(Miss::Elsewhere(Reply::BlobsNotStored))?;
        let epoch = place.epoch;
        if blobs.stored.iter().any(|stored| stored.is_within(&place)) {
            return Ok(epoch);
        }
        match self.put(&map, shard, blobs.cut.clone()).await {
            Ok(()) => {
                blobs.stored.push(place);
                Ok(epoch)
            }
            Err(Reply::BlobsNotStored) => {
                pins::unpin(&self.cluster, shard, &blobs.request);
                blobs.failed.push(place);
                Err(Miss::Elsewhere(Reply::BlobsNotStored))
            }
            Err(reply) => Err(Miss::Final(reply)),
        }
    }

    /// Pins the blobs in the shard that will refer to them, before they are looked for in the stores (P-11). It says no where the
    /// message would be refused: nothing of it is stored then.
    async fn pin(&self, shard: ShardId, blobs: &Blobs, patience: Duration) -> Result<(), Miss> {
        if blobs.cut.is_empty() {
            return Ok(());
        }
        let quota = blobs.quota.filter(|(_, home, _)| *home == shard).map(|(user, _, bytes)| (user, bytes));
        let refs = pins::of_cut(&blobs.cut);
        let pinned = pins::pin(&*self.cluster, shard, None, &blobs.request, refs, quota, patience).await;
        pinned.map_err(|error| match error {
            PinError::QuotaExceeded(_) => Miss::Final(Reply::QuotaExceeded),
            PinError::Condemned => Miss::Final(Reply::BlobsNotStored),
            PinError::Refused(detail) => {
                tracing::error!(shard = shard.0, detail, "attachments cannot be pinned");
                Miss::Final(Reply::Broken)
            }
            // Whether it is pinned or not: nothing of the message is anywhere.
            PinError::Route(RouteError::TimedOut { .. }) => Miss::Elsewhere(Reply::NoQuorum),
            PinError::Route(error) => miss(shard, &error),
        })
    }

    async fn put(&self, map: &pb::ShardMap, shard: ShardId, blobs: Vec<CutBlob>) -> Result<(), Reply> {
        let bytes: usize = blobs.iter().map(|blob| blob.content.len()).sum();
        let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let patience = self.blobs_base.saturating_add(BLOB_TIME_PER_MIB.saturating_mul(mib));
        let mut span = trace::child("store blobs", Kind::Client);
        span.set("postrider.shard", shard.0);
        span.set("postrider.bytes", bytes);
        // Unless they are stored.
        span.fail("not stored");
        let stored = span.scope(tokio::time::timeout(patience, self.blobs.put_all(map, shard, blobs))).await;
        if let Ok(Ok(())) = &stored {
            span.succeed();
        }
        match stored {
            Ok(Ok(())) => Ok(()),
            Ok(Err(BlobPutError::Unavailable(detail))) => {
                tracing::warn!(detail, shard = shard.0, "attachments not stored");
                Err(Reply::BlobsNotStored)
            }
            Ok(Err(BlobPutError::Refused(detail))) => {
                tracing::error!(detail, shard = shard.0, "attachments cannot be stored");
                Err(Reply::Broken)
            }
            Err(_) => {
                tracing::warn!(shard = shard.0, "attachments not stored in time");
                Err(Reply::BlobsNotStored)
            }
        }
    }

    /// Proposes to `home`; to another shard of the zone only when it is certain that nobody before has it.
    pub(super) async fn accept(
        &self,
        id: RequestId,
        home: ShardId,
        zone: &str,
        mut blobs: Blobs,
        command: pb::Command,
    ) -> Result<QueueId, Reply> {
        let mut until = self.clock.monotonic().saturating_add(self.commit);
        let patience = if self.troubled.has(home) { TROUBLED_PATIENCE } else { self.commit_home };
        let mut reply = match self.entrust(home, &mut blobs, command.clone(), patience, &mut until).await {
            Ok(queued) => {
                self.troubled.remove(home);
                return Ok(queued);
            }
            Err(Miss::Final(reply)) => return Err(reply),
            Err(miss) => miss.reply(),
        };
        if blobs.failed.is_empty() {
            self.troubled.add(home);
        }
        // The request id spreads what a lost shard cannot take over the others.
        let salt = u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]);
        let others = self.others(home, zone, salt, &blobs);
        for (index, shard) in others.iter().enumerate() {
            let left = until.saturating_sub(self.clock.monotonic());
            let share = left / u32::try_from(others.len() - index).unwrap_or(1);
            match self.entrust(*shard, &mut blobs, command.clone(), share, &mut until).await {
                Ok(queued) => {
                    tracing::info!(home = home.0, shard = shard.0, %id, "another shard took a message");
                    metrics::counter!("postrider_smtp_elsewhere_messages_total").increment(1);
                    return Ok(queued);
                }
                Err(Miss::Final(reply)) => return Err(reply),
                Err(miss) => reply = miss.reply(),
            }
        }
        Err(reply)
    }

    /// The shards of the zone that may take what `home` cannot.
    fn others(&self, home: ShardId, zone: &str, salt: u32, blobs: &Blobs) -> Vec<ShardId> {
        let view = self.views.newest();
        if blobs.failed.is_empty() {
            return view.others(home, zone, &self.region, salt, OTHER_SHARDS_MAX);
        }
        let mut others = view.others(home, zone, &self.region, salt, OTHER_CANDIDATES_MAX);
        let map = self.cluster.map();
        others.retain(|shard| Place::of(&map, *shard).is_some_and(|place| blobs.may_be_at(&place)));
        others.truncate(OTHER_SHARDS_MAX);
        others
    }

    /// One shard: the blobs where it has replicas, then the command. What the blobs take is added to `until`.
    pub(super) async fn entrust(
        &self,
        shard: ShardId,
        blobs: &mut Blobs,
        command: pb::Command,
        patience: Duration,
        until: &mut Duration,
    ) -> Result<QueueId, Miss> {
        for _ in 0..PLACEMENTS_MAX {
            let left = until.saturating_sub(self.clock.monotonic());
            self.pin(shard, blobs, patience.min(left)).await?;
            let began = self.clock.monotonic();
            let epoch = self.store(shard, blobs).await?;
            *until = until.saturating_add(self.clock.monotonic().saturating_sub(began));
            match self.attempt(shard, epoch, command.clone(), patience, *until).await {
                // The blobs have to be where the shard is now.
                Err(Miss::Moved) => {}
                other => return other,
            }
        }
        Err(Miss::Elsewhere(Reply::NoQuorum))
    }

    /// One shard. Once its outcome is unknown, it is asked until `until`, whatever `patience` was.
    async fn attempt(
        &self,
        shard: ShardId,
        epoch: u64,
        command: pb::Command,
        patience: Duration,
        until: Duration,
    ) -> Result<QueueId, Miss> {
        let left = until.saturating_sub(self.clock.monotonic());
        let mut proposed = self.cluster.propose_at(shard, epoch, None, command.clone(), patience.min(left)).await;
        while let Err(RouteError::TimedOut { may_have_happened: true }) = proposed {
            // A shard that cannot be asked at all says so at once.
            tokio::time::sleep(AGAIN_PAUSE).await;
            let left = until.saturating_sub(self.clock.monotonic());
            if left.is_zero() {
                return Err(Miss::Final(Reply::OutcomeUnknown));
            }
            proposed = match self.cluster.propose(shard, None, command.clone(), left).await {
                Ok(outcome) => Ok(outcome),
                // What is certain of the second call says nothing of the first.
                Err(_) => Err(RouteError::TimedOut { may_have_happened: true }),
            };
        }
        match proposed {
            Ok(outcome) => self.queued(shard, outcome).map_err(Miss::Final),
            Err(error) => Err(miss(shard, &error)),
        }
    }

    fn queued(&self, shard: ShardId, outcome: pb::Outcome) -> Result<QueueId, Reply> {
        match outcome.result {
            Some(outcome::Result::Accepted(accepted)) => {
                place(&accepted).map(|place| QueueId { shard, place }).ok_or_else(|| {
                    tracing::error!(shard = shard.0, "a message was accepted for nobody");
                    Reply::Broken
                })
            }
            Some(outcome::Result::Sent(sent)) => {
                let copy = sent.sent_copy.as_ref().and_then(|copy| EmailId::try_from(&copy.email_id).ok());
                let place = if sent.entry == 0 {
                    copy.map(QueuePlace::Email)
                } else {
                    Some(QueuePlace::Entry(EntryId(sent.entry)))
                };
                place.map(|place| QueueId { shard, place }).ok_or_else(|| {
                    tracing::error!(shard = shard.0, "a message was sent without its copy");
                    Reply::Broken
                })
            }
            Some(outcome::Result::Refused(refused)) => Err(match refused.refusal() {
                Refusal::QuotaExceeded => Reply::QuotaExceeded,
                Refusal::UnknownUser => Reply::RecipientUnknown,
                // The pin was over before the command came.
                Refusal::BlobsNotPinned | Refusal::BlobCondemned => Reply::BlobsNotStored,
                Refusal::RecipientSuppressed => Reply::RecipientSuppressed,
                Refusal::SendingSlowed => Reply::SendingSlowed,
                Refusal::AccountSuspended => Reply::CredentialsRevoked,
                Refusal::QueueFull => {
                    self.congestion.found(&refused.users);
                    Reply::QueueFull
                }
                refusal => {
                    tracing::error!(shard = shard.0, ?refusal, detail = refused.detail, "a message was refused");
                    if refusal == Refusal::Malformed { Reply::ContentMalformed } else { Reply::Broken }
                }
            }),
            _ => {
                tracing::error!(shard = shard.0, "a shard answered something else to a message");
                Err(Reply::Broken)
            }
        }
    }
}

/// Where most of the recipients live; they have the message in the same command. Of equal shards the one that was named first.
pub(super) fn home(recipients: &[Recipient]) -> ShardId {
    let mut counts = BTreeMap::<ShardId, usize>::new();
    for recipient in recipients {
        *counts.entry(recipient.shard).or_default() += 1;
    }
    let shards = recipients.iter().rev().map(|recipient| recipient.shard);
    // A transaction has a recipient.
    shards.max_by_key(|shard| counts[shard]).unwrap_or(ShardId::MAILBOX_FIRST)
}

pub(super) fn to_pb(recipient: Recipient) -> pb::Recipient {
    pb::Recipient {
        user_id: recipient.user.to_bytes(),
        address: recipient.given,
        notify: recipient.reports.notify.0,
        original: recipient.reports.original,
    }
}

fn miss(shard: ShardId, error: &RouteError) -> Miss {
    match error {
        RouteError::NoQuorum | RouteError::TimedOut { may_have_happened: false } | RouteError::UnknownShard => {
            Miss::Elsewhere(Reply::NoQuorum)
        }
        RouteError::TimedOut { may_have_happened: true } => Miss::Final(Reply::OutcomeUnknown),
        RouteError::Moved => Miss::Moved,
        RouteError::Busy => Miss::Final(Reply::Overloaded),
        RouteError::TooLarge { .. } => Miss::Final(Reply::MessageTooLarge),
        RouteError::Unauthenticated
        | RouteError::Suspended
        | RouteError::Behind
        | RouteError::Forbidden { .. }
        | RouteError::LeaseLost
        | RouteError::Malformed { .. }
        | RouteError::TooCostly { .. }
        | RouteError::Unready { .. }
        | RouteError::Corrupt { .. } => {
            tracing::error!(shard = shard.0, %error, "a message was not accepted");
            Miss::Final(Reply::Broken)
        }
    }
}

fn place(accepted: &pb::Accepted) -> Option<QueuePlace> {
    if accepted.entry != 0 {
        return Some(QueuePlace::Entry(EntryId(accepted.entry)));
    }
    let first = accepted.deliveries.first()?;
    EmailId::try_from(&first.email_id).ok().map(QueuePlace::Email)
}
