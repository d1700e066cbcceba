//! One leased queue entry: from its waiting recipients to their mailboxes, and back to the source with what became of it.
//!
//! Invariant (P-6): every `Deliver` names its targets by `request::of_transfer`, so a target shard carries each transfer out
//! once, whoever asks and however often. Whatever is not certain is settled as deferred, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use postrider_api::env::{Clock, Entropy, random};
use postrider_api::id::{EntryId, IdError, RequestId, ShardId, UserId};
use postrider_api::pb::{self, Settlement, command::Op, outcome};
use postrider_api::request;
use postrider_router::RouteError;

use super::backoff;
use super::forget::Forgetter;
use super::limit::{ENTRY_AGE_MS_MAX, QUESTIONS_AT_ONCE_MAX, TARGETS_AT_ONCE_MAX, WorkerTimings};
use crate::cluster::Cluster;
use crate::trouble::Troubled;

/// What deliveries share.
pub(super) struct Deliveries {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) timings: WorkerTimings,
    pub(super) troubled: Troubled,
    pub(super) forgetter: Forgetter,
}

/// What became of one recipient in this attempt. The text is kept in the entry and shown to operators.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// In the mailbox, which is in this shard.
    Delivered(ShardId),
    /// To be tried again.
    Deferred(String),
    /// There is no such user any more.
    Failed(&'static str),
}

/// A recipient of an entry.
#[derive(Debug, Clone)]
struct Waiting {
    user: UserId,
    address: String,
}

/// A leased entry that has been understood.
struct Entry {
    source: ShardId,
    id: EntryId,
    users: Vec<Waiting>,
    mail_from: String,
    message: pb::NewMessage,
    attempts: u32,
    created_ms: i64,
}

impl Deliveries {
    /// Delivers and settles one entry of `source`.
    pub(super) async fn deliver(&self, source: ShardId, leased: pb::LeasedEntry) {
        let fence = leased.fence.unwrap_or_default();
        let entry = match Entry::read(source, leased) {
            Ok(entry) => entry,
            Err(error) => {
                // Left as it is: the lease lapses, and an operator sees the entry and this line.
                tracing::error!(source = source.0, %error, "a queue entry cannot be read");
                return;
            }
        };
        let fates = self.attempt(&entry).await;
        self.settle(&entry, fence, fates).await;
    }

    async fn attempt(&self, entry: &Entry) -> BTreeMap<UserId, Fate> {
        let mut fates = BTreeMap::new();
        let mut groups = BTreeMap::<ShardId, Vec<Waiting>>::new();
        let located: Vec<_> = stream::iter(entry.users.clone())
            .map(|waiting| async move {
                let shard = self.cluster.locate(waiting.user, self.timings.locate).await;
                (waiting, shard)
            })
            .buffered(QUESTIONS_AT_ONCE_MAX)
            .collect()
            .await;
        for (waiting, shard) in located {
            match shard {
                Ok(Some(shard)) => groups.entry(shard).or_default().push(waiting),
                Ok(None) => {
                    fates.insert(waiting.user, GONE);
                }
                Err(error) => {
                    fates.insert(waiting.user, Fate::Deferred(format!("the directory does not answer: {error}")));
                }
            }
        }
        let delivered: Vec<_> = stream::iter(groups)
            .map(|(target, users)| self.transfer(entry, target, users))
            .buffer_unordered(TARGETS_AT_ONCE_MAX)
            .collect()
            .await;
        fates.extend(delivered.into_iter().flatten());
        fates
    }

    /// Delivers to those of the recipients who live in `target`.
    async fn transfer(&self, entry: &Entry, target: ShardId, users: Vec<Waiting>) -> Vec<(UserId, Fate)> {
        let all = |fate: Fate| users.iter().map(|waiting| (waiting.user, fate.clone())).collect();
        if self.troubled.has(target) {
            return all(Fate::Deferred(format!("shard {target} has no quorum")));
        }
        let command = self.command(entry, &users);
        match self.cluster.propose(target, None, command, self.timings.deliver).await {
            Ok(outcome) => {
                self.troubled.remove(target);
                match outcome.result {
                    Some(outcome::Result::Delivered(delivered)) => self.sort(target, &users, &delivered).await,
                    other => {
                        tracing::error!(
                            source = entry.source.0,
                            entry = entry.id.0,
                            target = target.0,
                            ?other,
                            "a shard did not take a delivery"
                        );
                        all(Fate::Deferred(format!("shard {target} refuses the delivery")))
                    }
                }
            }
            Err(error) => {
                self.trouble(target, &error);
                tracing::debug!(source = entry.source.0, entry = entry.id.0, target = target.0, %error, "deferred");
                all(Fate::Deferred(format!("shard {target}: {error}")))
            }
        }
    }

    fn trouble(&self, target: ShardId, error: &RouteError) {
        match error {
            RouteError::NoQuorum | RouteError::TimedOut { .. } | RouteError::UnknownShard | RouteError::Busy => {
                self.troubled.add(target);
            }
            error => tracing::error!(target = target.0, %error, "a delivery cannot be made"),
        }
    }

    fn command(&self, entry: &Entry, users: &[Waiting]) -> pb::Command {
        let targets = users.iter().map(|Waiting { user, address }| pb::Target {
            user_id: user.to_bytes(),
            address: address.clone(),
            request: request::of_transfer(entry.source, entry.id, *user).to_bytes(),
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
            })),
            ..pb::Command::default()
        }
    }

    /// Reads what the target said of each.
    async fn sort(&self, target: ShardId, users: &[Waiting], delivered: &pb::Delivered) -> Vec<(UserId, Fate)> {
        let names = |ids: &[Bytes], user: UserId| ids.iter().any(|id| id.as_ref() == user.0);
        let mut fates = Vec::with_capacity(users.len());
        for Waiting { user, .. } in users {
            let fate = if delivered.deliveries.iter().any(|delivery| delivery.user_id.as_ref() == user.0) {
                Fate::Delivered(target)
            } else if names(&delivered.unknown_users, *user) {
                self.not_there(*user, target).await
            } else if names(&delivered.over_quota, *user) {
                Fate::Deferred("the mailbox is far over its quota".to_owned())
            } else {
                Fate::Deferred(format!("shard {target} said nothing of the recipient"))
            };
            fates.push((*user, fate));
        }
        fates
    }

    /// The shard does not know the user: asks the directory anew, because what was remembered may be old.
    async fn not_there(&self, user: UserId, target: ShardId) -> Fate {
        self.cluster.forget(user);
        match self.cluster.locate(user, self.timings.locate).await {
            Ok(None) => GONE,
            Ok(Some(shard)) if shard == target => Fate::Deferred(format!("shard {target} does not have the user yet")),
            Ok(Some(shard)) => Fate::Deferred(format!("the user is in shard {shard} now")),
            Err(error) => Fate::Deferred(format!("the directory does not answer: {error}")),
        }
    }

    async fn settle(&self, entry: &Entry, fence: pb::Fence, fates: BTreeMap<UserId, Fate>) {
        let now_ms = self.clock.wall_ms();
        let expired = now_ms.saturating_sub(entry.created_ms) > ENTRY_AGE_MS_MAX;
        let results = fates.iter().map(|(user, fate)| {
            let (settlement, reason) = match fate {
                Fate::Delivered(_) => (Settlement::Delivered, String::new()),
                Fate::Deferred(reason) if expired => (Settlement::Failed, format!("given up: {reason}")),
                Fate::Deferred(reason) => (Settlement::Deferred, reason.clone()),
                Fate::Failed(reason) => (Settlement::Failed, (*reason).to_owned()),
            };
            report(entry, settlement, &reason);
            pb::RecipientResult { user_id: user.to_bytes(), settlement: settlement.into(), reason }
        });
        let settle = pb::Settle {
            entry: entry.id.0,
            results: results.collect(),
            due_ms: now_ms.saturating_add(backoff::pause_ms(entry.attempts, &self.timings, &*self.entropy)),
        };
        let command = pb::Command {
            request: RequestId(random(&*self.entropy)).to_bytes(),
            op: Some(Op::Settle(settle)),
            ..pb::Command::default()
        };
        match self.cluster.settle_queue(entry.source, fence, command, self.timings.settle).await {
            Ok(pb::Outcome { result: Some(outcome::Result::Done(_)) }) => {
                self.forgetter.settled(fates.iter().filter_map(|(user, fate)| match fate {
                    Fate::Delivered(target) => Some((*target, request::of_transfer(entry.source, entry.id, *user))),
                    _ => None,
                }));
            }
            Ok(other) => {
                tracing::error!(source = entry.source.0, entry = entry.id.0, ?other, "an entry was not settled");
            }
            // Another worker has it, or will when the lease lapses; the transfers are known by their requests.
            Err(error) => {
                tracing::info!(source = entry.source.0, entry = entry.id.0, %error, "an entry was not settled")
            }
        }
    }
}

const GONE: Fate = Fate::Failed("there is no such user any more");

/// Counts, and says so where mail that was acknowledged will not arrive.
fn report(entry: &Entry, settlement: Settlement, reason: &str) {
    let result = match settlement {
        Settlement::Delivered => "delivered",
        Settlement::Deferred => "deferred",
        Settlement::Failed | Settlement::Unspecified => {
            tracing::warn!(source = entry.source.0, entry = entry.id.0, reason, "a recipient was given up");
            "failed"
        }
    };
    metrics::counter!("postrider_worker_recipients_total", "result" => result).increment(1);
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
        let users = record
            .pending
            .into_iter()
            .map(|pending| Ok(Waiting { user: UserId::try_from(&pending.user_id)?, address: pending.address }))
            .collect::<Result<_, IdError>>()?;
        Ok(Self {
            source,
            id: EntryId(record.entry),
            users,
            mail_from: record.mail_from,
            message,
            attempts: record.attempts,
            created_ms: record.created_ms,
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
