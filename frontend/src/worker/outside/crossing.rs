//! Recipients of other residency zones whose message waited for its time in the sender's shard (ADR 154): each gets it by an `Accept` in his own
//! shard, once that time has come.
//!
//! The sender's shard knows them as it knows everybody outside, by address: no command has users of two zones (ADR 051). Where they are is asked
//! when they are sent to.
//!
//! Invariant (P-6): the `Accept` has an id that follows from entry and user, so whoever asks again, in whichever attempt, makes no second copy.
//! Invariant (P-1): the attachments are durable in the target's regions before it hears of the message.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use postrider_api::address::Address;
use postrider_api::env::random;
use postrider_api::id::{ShardId, UserId};
use postrider_api::limit::OUTGOING_RETRY_MS_MIN;
use postrider_api::pb::{self, AddressStatus, PendingRecipient, Refusal, command::Op, outcome};
use postrider_api::request;
use postrider_outgoing::Fate;
use postrider_router::RouteError;

use super::{Tried, cut};
use crate::worker::delivery::{Deliveries, Entry};
use crate::worker::lease::Lease;
use crate::worker::limit::{QUESTIONS_AT_ONCE_MAX, REASON_BYTES_MAX};

/// Those of `due` whose domains are this cluster's, with what became of them, and the others.
pub(super) async fn cross<'a>(
    deliveries: &Deliveries,
    entry: &Entry,
    due: Vec<&'a PendingRecipient>,
) -> (Vec<Tried<'a>>, Vec<&'a PendingRecipient>) {
    let map = deliveries.cluster.map();
    let is_ours = |pending: &&PendingRecipient| {
        let domain = pending.address.rsplit_once('@').map_or("", |(_, domain)| domain);
        // An operator's way for him comes first.
        pending.route.is_empty() && map.domains.iter().any(|known| known.name == domain)
    };
    let (ours, others): (Vec<_>, Vec<_>) = due.into_iter().partition(is_ours);
    let mut crossing: Vec<BoxFuture<'_, Tried<'_>>> = Vec::with_capacity(ours.len());
    for pending in ours {
        crossing.push(async move { Tried::of(pending, cross_one(deliveries, entry, pending).await) }.boxed());
    }
    (stream::iter(crossing).buffer_unordered(QUESTIONS_AT_ONCE_MAX).collect().await, others)
}

async fn cross_one(deliveries: &Deliveries, entry: &Entry, pending: &PendingRecipient) -> Fate {
    let Ok(address) = Address::parse(&pending.address) else {
        return failed("5.1.3", format!("{} is no address of ours", pending.address));
    };
    match deliveries.cluster.look_up(&address, deliveries.timings.locate).await {
        Ok(Some(record)) if record.status() == AddressStatus::Active => match UserId::try_from(&record.user_id) {
            Ok(user) => hand_over(deliveries, entry, &address, (user, ShardId(record.shard))).await,
            Err(error) => deferred(format!("the directory's answer cannot be read: {error}")),
        },
        Ok(_) => failed("5.1.1", "there is no such user".to_owned()),
        Err(error) => deferred(format!("the directory does not answer: {error}")),
    }
}

async fn hand_over(deliveries: &Deliveries, entry: &Entry, to: &Address, (user, target): (UserId, ShardId)) -> Fate {
    let accept = pb::Accept {
        mail_from: entry.mail_from.clone(),
        recipients: vec![pb::Recipient {
            user_id: user.to_bytes(),
            address: to.as_str().to_owned(),
            ..pb::Recipient::default()
        }],
        message: Some(entry.message.clone()),
        submitted: true,
    };
    let command = pb::Command {
        request: request::of_crossing(entry.source, entry.id, user).to_bytes(),
        entropy: Bytes::copy_from_slice(&random::<16>(&*deliveries.entropy)),
        op: Some(Op::Accept(accept)),
        ..pb::Command::default()
    };
    // The entry's own lease is prolonged meanwhile; this bounds one attempt.
    let time = Lease::asked(Arc::clone(&deliveries.boot_clock), deliveries.timings.lease);
    let epoch = match deliveries.carry(entry, &time, target, &command.request).await {
        Ok(Ok(epoch)) => epoch,
        Ok(Err(fate)) => return deferred(fate.settlement().1.to_owned()),
        Err(_) => return deferred("there was no time for his attachments in this attempt".to_owned()),
    };
    match deliveries.cluster.propose_at(target, epoch, None, command, deliveries.timings.deliver).await {
        Ok(outcome) => taken(target, outcome),
        Err(RouteError::TimedOut { may_have_happened: true }) => {
            Fate::Unknown { reply: format!("shard {target} did not answer in time"), host: format!("shard {target}") }
        }
        Err(error) => deferred(format!("shard {target}: {error}")),
    }
}

fn taken(target: ShardId, outcome: pb::Outcome) -> Fate {
    match outcome.result {
        Some(outcome::Result::Accepted(_)) => {
            Fate::Accepted { reply: format!("shard {target} has it"), host: String::new(), relayed: true }
        }
        Some(outcome::Result::Refused(refused)) if refused.refusal() == Refusal::UnknownUser => {
            failed("5.1.1", "there is no such user any more".to_owned())
        }
        Some(outcome::Result::Refused(refused)) => {
            tracing::info!(target = target.0, refusal = ?refused.refusal(), detail = refused.detail, "a crossing was refused");
            deferred(format!("shard {target}: {}", refused.detail))
        }
        other => {
            tracing::error!(target = target.0, ?other, "a shard answered something else to a message");
            deferred(format!("shard {target} does not take it"))
        }
    }
}

fn failed(code: &str, reply: String) -> Fate {
    Fate::Failed { reply, code: code.to_owned(), host: String::new() }
}

/// His shard, or who knows it, does not take it now; others of his domain may have another.
fn deferred(reply: String) -> Fate {
    Fate::Deferred {
        reply: cut(&reply, REASON_BYTES_MAX),
        code: "4.4.0".to_owned(),
        destination: false,
        retry_after: Some(Duration::from_millis(OUTGOING_RETRY_MS_MIN.into())),
        host: String::new(),
    }
}
