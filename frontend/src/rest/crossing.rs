//! A message to people of several residency zones: one command for each zone, none of which leaves it.
//!
//! The order is: a plan, kept by the sender's shard under the request; an `Accept` in a shard of every other zone; last the `Send`
//! in the sender's own, which has his copy and is the answer. So a zone that cannot be reached costs nothing, for nothing has
//! happened yet, and whoever asks again under the same idempotency key goes on where the first attempt stopped.
//!
//! Invariant: what waits for a recipient waits in a shard of his zone, with attachments in the stores of his zone. Of the sender's
//! zone the others learn nothing but the message.
//! Invariant (P-6): the plan has the request's own id, so that another body under the same key is refused; each further command
//! has one that is derived from it, and goes to the shard that the plan names, whichever attempt proposes it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use postrider_api::id::{ShardId, ZoneId};
use postrider_api::pb::command::Op;
use postrider_api::pb::{self, ShardKind, outcome, query};
use postrider_api::request;
use postrider_router::ReadMode;

use crate::account::Intent;
use crate::rest::bodies::Bodies;
use crate::rest::mailboxes::{Caller, Mailboxes};
use crate::rest::problem::Problem;
use postrider_mime::Ingested;

/// How long a shard may take to show that it has a primary, before another of its zone is asked to take the message.
const PROBE_MAX: Duration = Duration::from_millis(1_500);
/// Shards that may take it for a home that has none.
const OTHER_SHARDS_MAX: usize = 2;

/// Somebody who gets the message.
pub(super) struct Resident {
    pub(super) recipient: pb::Recipient,
    /// Where his mailbox is.
    pub(super) shard: ShardId,
}

/// The recipients of zones that are not the sender's.
pub(super) type Abroad = BTreeMap<ZoneId, Vec<Resident>>;

/// What the `Send` is asked under.
pub(super) fn last(intent: &Intent) -> Intent {
    step(intent, "send")
}

/// What the command of one step behind the plan is asked under.
fn step(intent: &Intent, step: &str) -> Intent {
    Intent { request: request::of_step(intent.request, step), ..intent.clone() }
}

/// What the message is and who takes it in each zone: `date_ms` and `message_id`, unless an earlier attempt has decided.
pub(super) async fn plan(
    mailboxes: &Mailboxes,
    caller: &Caller,
    intent: &Intent,
    abroad: &Abroad,
    (date_ms, message_id): (i64, [u8; 16]),
) -> Result<pb::SendPlan, Problem> {
    let mut takers = Vec::with_capacity(abroad.len());
    for (zone, residents) in abroad {
        let shard = taker(mailboxes, residents).await;
        takers.push(pb::ZoneTaker { zone: zone.0.into(), shard: shard.0 });
    }
    let plan = pb::SendPlan { date_ms, message_id: Bytes::copy_from_slice(&message_id), takers };
    let op = Op::PlanSend(pb::PlanSend { user_id: caller.user.to_bytes(), plan: Some(plan) });
    match mailboxes.write(caller, intent.clone(), op).await? {
        Ok(outcome::Result::SendPlanned(plan)) => Ok(plan),
        Ok(_) => Err(Problem::internal("a shard answered a plan with an outcome of another kind")),
        Err(refused) => Err(Problem::refused(&refused)),
    }
}

/// Has every other zone take the message for its recipients.
pub(super) async fn hand_over(
    (mailboxes, bodies): (&Mailboxes, &Bodies),
    intent: &Intent,
    plan: &pb::SendPlan,
    abroad: Abroad,
    mail_from: &str,
    ingested: &Ingested,
) -> Result<(), Problem> {
    for (zone, residents) in abroad {
        let taker = plan.takers.iter().find(|taker| taker.zone == u32::from(zone.0));
        // The fingerprint binds the plan to the recipients.
        let taker = taker.ok_or_else(|| Problem::internal("the plan of a message lacks a zone"))?;
        let shard = ShardId(taker.shard);
        let accept = pb::Accept {
            mail_from: mail_from.to_owned(),
            recipients: residents.into_iter().map(|resident| resident.recipient).collect(),
            message: Some(ingested.message.clone()),
            submitted: true,
        };
        let intent = step(intent, &format!("zone {zone}"));
        match mailboxes.deposit((shard, None), bodies, &ingested.blobs, intent, Op::Accept(accept)).await? {
            Ok(outcome::Result::Accepted(_)) => {}
            Ok(_) => return Err(Problem::internal("a shard answered a message with an outcome of another kind")),
            Err(refused) => return Err(Problem::refused(&refused)),
        }
    }
    Ok(())
}

/// The shard where most of a zone's recipients live, or another of the zone where that one has no primary now (P-5).
async fn taker(mailboxes: &Mailboxes, residents: &[Resident]) -> ShardId {
    let mut counts = BTreeMap::<ShardId, usize>::new();
    for resident in residents {
        *counts.entry(resident.shard).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(_, count)| **count).map(|(shard, _)| *shard);
    // A zone is named for its recipients: it has one.
    let home = most.unwrap_or(ShardId::MAILBOX_FIRST);
    let user_id = residents.first().map(|resident| resident.recipient.user_id.clone()).unwrap_or_default();
    let question = || query::Query::CheckRecipient(pb::CheckRecipient { user_id: user_id.clone(), size: 0 });
    for shard in std::iter::once(home).chain(others(&mailboxes.cluster().map(), home)) {
        let asked = mailboxes.cluster().query(shard, None, question(), ReadMode::Consistent, 0, PROBE_MAX).await;
        // Whatever it answers, it has a primary.
        if asked.is_ok() {
            return shard;
        }
    }
    home
}

/// Mailbox shards of the zone of `home`, those behind it first: who stands in for whom is spread.
fn others(map: &pb::ShardMap, home: ShardId) -> Vec<ShardId> {
    let Some(zone) = map.shards.iter().find(|shard| shard.id == home.0).map(|shard| &shard.zone) else {
        return Vec::new();
    };
    let is_other = |shard: &&pb::Shard| shard.kind() == ShardKind::Mailbox && shard.zone == *zone && shard.id != home.0;
    let mut others: Vec<ShardId> = map.shards.iter().filter(is_other).map(|shard| ShardId(shard.id)).collect();
    others.sort_unstable_by_key(|shard| (*shard < home, *shard));
    others.truncate(OTHER_SHARDS_MAX);
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_of_the_zone() {
        let shard = |(id, zone): (u32, &str)| pb::Shard {
            id,
            kind: ShardId(id).kind().unwrap_or(ShardKind::Unspecified).into(),
            zone: zone.to_owned(),
            ..Default::default()
        };
        let shards = [(2, "eu"), (1000, "eu"), (1001, "us"), (1002, "eu"), (1003, "eu"), (1004, "eu")];
        let map = pb::ShardMap { shards: shards.map(shard).to_vec(), ..Default::default() };
        assert_eq!(others(&map, ShardId(1003)), [ShardId(1004), ShardId(1000)]);
        assert_eq!(others(&map, ShardId(1001)), []);
        assert_eq!(others(&map, ShardId(1009)), []);
    }
}
