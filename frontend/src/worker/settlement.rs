//! Telling the source of an entry what became of its recipients.
//!
//! Invariant: a settlement counts only under the lease that the entry is held by: the source's leader compares the fence.

use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::Bytes;
use postrider_api::env::random;
use postrider_api::id::{RequestId, ShardId, UserId};
use postrider_api::limit::ENTRY_AGE_MS_MAX;
use postrider_api::pb::{self, Settlement, command::Op, outcome};
use postrider_api::request;
use postrider_router::RouteError;

use super::backoff;
use super::delivery::{Deliveries, Entry, Fate};
use super::lease::{Lapsed, Lease};
use super::limit::{OUTSIDE_SETTLE, REASON_BYTES_MAX};
use super::outside::{self, Settled, Taken};

impl Deliveries {
    /// Settles what is known when the lease ends. What there is no time for is done by whoever has the entry next.
    pub(super) async fn settle(
        &self,
        entry: &Entry,
        lease: &Lease,
        fence: pb::Fence,
        fates: &BTreeMap<UserId, Fate>,
        outside: Settled,
    ) {
        let command = self.settlement(entry, fates, outside);
        let settle = |limit| self.cluster.settle_queue(entry.source, fence, command, limit);
        match lease.within(self.timings.lease_margin, self.timings.settle, settle).await {
            Ok(answer) => self.settled(entry, fates, answer),
            Err(Lapsed) => {
                tracing::info!(
                    source = entry.source.0,
                    entry = entry.id.0,
                    "a lease was over before its entry was settled"
                );
            }
        }
    }

    /// Settles what hosts outside have said, and nobody can ask them again: whatever happens to the source meanwhile, it is told until it
    /// answers. Whether the lease is still this worker's is for the source to say; whoever leads it next lets the lease go on (ADR 116).
    pub(super) async fn settle_taken(
        &self,
        entry: &Entry,
        fence: pb::Fence,
        fates: &BTreeMap<UserId, Fate>,
        taken: Taken<'_>,
    ) {
        let command = self.settlement(entry, fates, taken.settled);
        let mut pause = self.timings.poll_pause_min;
        let told = async {
            loop {
                let settle = self.cluster.settle_queue(entry.source, fence, command.clone(), self.timings.settle);
                match settle.await {
                    Err(error) if is_passing(&error) => {
                        tracing::info!(source = entry.source.0, entry = entry.id.0, %error, "an entry is not settled yet");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(self.timings.poll_pause_max);
                    }
                    answer => return answer,
                }
            }
        };
        let kept = async {
            outside::keep(self, entry, fence, &taken.lease).await;
            std::future::pending::<Infallible>().await
        };
        let answer = tokio::select! {
            biased;
            answer = tokio::time::timeout(OUTSIDE_SETTLE, told) => answer,
            never = kept => match never {},
        };
        self.settled(entry, fates, answer.unwrap_or(Err(RouteError::TimedOut { may_have_happened: true })));
    }

    fn settlement(&self, entry: &Entry, fates: &BTreeMap<UserId, Fate>, outside: Settled) -> pb::Command {
        let results = fates.iter().map(|(user, fate)| {
            let (settlement, reason) = fate.settlement();
            let reason = reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
            let shard = fate.shard().map_or(0, |shard| shard.0);
            pb::RecipientResult {
                user_id: user.to_bytes(),
                settlement: settlement.into(),
                reason,
                shard,
                ..Default::default()
            }
        });
        // Whoever there was no time for has not been tried.
        let is_partial = fates.len() < entry.users.len();
        let attempts = if is_partial { 0 } else { entry.attempts };
        let settle = pb::Settle {
            entry: entry.id.0,
            results: results.chain(outside.results).collect(),
            retry_ms: backoff::pause_ms(attempts, &self.timings, &*self.entropy),
            report: outside.report,
        };
        pb::Command {
            request: RequestId(random(&*self.entropy)).to_bytes(),
            entropy: Bytes::copy_from_slice(&random::<16>(&*self.entropy)),
            op: Some(Op::Settle(settle)),
            ..pb::Command::default()
        }
    }

    /// What the source said to a settlement.
    fn settled(&self, entry: &Entry, fates: &BTreeMap<UserId, Fate>, answer: Result<pb::Outcome, RouteError>) {
        let (source, id) = (entry.source.0, entry.id.0);
        match answer {
            Ok(pb::Outcome { result: Some(outcome::Result::Done(_)) }) => {
                let transfers = fates.iter().filter_map(|(user, fate)| match fate {
                    Fate::Delivered(target) => Some((*target, request::of_transfer(entry.source, entry.id, *user))),
                    _ => None,
                });
                self.forgetter.settled(entry.leased_ms, transfers);
                fates.iter().for_each(|(user, fate)| report(entry, *user, fate));
            }
            Ok(other) => tracing::error!(source, entry = id, ?other, "an entry was not settled"),
            // Another worker has it, or will when the lease lapses; the transfers are known by their requests.
            Err(error) => tracing::info!(source, entry = id, %error, "an entry was not settled"),
        }
    }
}

/// Whether the same question may be answered later.
fn is_passing(error: &RouteError) -> bool {
    match error {
        RouteError::NoQuorum
        | RouteError::Busy
        | RouteError::TimedOut { .. }
        | RouteError::UnknownShard
        | RouteError::Moved
        | RouteError::Behind
        | RouteError::Unready { .. } => true,
        RouteError::LeaseLost
        | RouteError::Unauthenticated
        | RouteError::Suspended
        | RouteError::TooLarge { .. }
        | RouteError::TooCostly { .. }
        | RouteError::Forbidden { .. }
        | RouteError::Malformed { .. }
        | RouteError::Corrupt { .. } => false,
    }
}

impl Fate {
    /// The recipient's shard, if it has just answered, or is what he waits for.
    fn shard(&self) -> Option<ShardId> {
        match self {
            Fate::Delivered(shard) => Some(*shard),
            Fate::Held(_, shard) => *shard,
            Fate::Full | Fate::Deferred(_) | Fate::Gone | Fate::TooOld | Fate::Dropped => None,
        }
    }

    /// As the source is told, with the reason that it keeps.
    pub(super) fn settlement(&self) -> (Settlement, &str) {
        match self {
            Fate::Delivered(_) => (Settlement::Delivered, ""),
            Fate::Held(reason, _) => (Settlement::Held, reason),
            Fate::Dropped => (Settlement::Dropped, ""),
            Fate::Full => (Settlement::Full, "the mailbox is far over its quota"),
            Fate::Deferred(reason) => (Settlement::Deferred, reason),
            Fate::Gone => (Settlement::Failed, "there is no such user any more"),
            Fate::TooOld => (Settlement::Failed, "nobody can tell any more whether the recipient has it"),
        }
    }

    /// Why the recipient is given up, in a word for counters; `None` when he is not.
    fn given_up(&self, entry: &Entry) -> Option<&'static str> {
        match self {
            Fate::Gone => Some("gone"),
            Fate::TooOld => Some("too_old"),
            // The source decides, by its own time: it gives up a moment earlier than this says, never later.
            Fate::Deferred(_) if entry.leased_ms.saturating_sub(entry.created_ms) > ENTRY_AGE_MS_MAX => Some("refused"),
            Fate::Deferred(_) | Fate::Held(..) | Fate::Full | Fate::Dropped | Fate::Delivered(_) => None,
        }
    }
}

/// Counts, and says so where mail that was acknowledged will not arrive. The recipient is named by his id, not his address (P-9).
fn report(entry: &Entry, user: UserId, fate: &Fate) {
    let result = match (fate.given_up(entry), fate) {
        (Some(cause), _) => {
            metrics::counter!("postrider_worker_given_up_total", "cause" => cause).increment(1);
            let (_, reason) = fate.settlement();
            tracing::warn!(source = entry.source.0, entry = entry.id.0, %user, cause, reason, "a recipient was given up");
            "failed"
        }
        (None, Fate::Delivered(_)) => "delivered",
        (None, Fate::Dropped) => "dropped",
        (None, _) => "deferred",
    };
    metrics::counter!("postrider_worker_recipients_total", "result" => result).increment(1);
}
