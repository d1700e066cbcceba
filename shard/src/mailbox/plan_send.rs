//! What a message to several zones is, for everybody who asks again (P-6).
//!
//! No command spans zones, so such a message is several, and whoever carries it out may stop between two of them. Whoever goes on
//! has to ask the same shards for the same message: the first plan that was kept under the request id is the plan.

use postrider_api::id::{RequestId, ShardId};
use postrider_api::limit::RECIPIENTS_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, ShardKind};

use crate::mailbox::account::Mailbox;
use crate::store::Rows;
use crate::turn::{Stop, Turn, id, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::PlanSend) -> Result<Made, Stop> {
    let plan = command.plan.as_ref().ok_or_else(|| malformed("plan: is missing"))?;
    // As long as a request id, and as random.
    id::<RequestId>(&plan.message_id, "plan.message_id")?;
    if plan.takers.is_empty() || plan.takers.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("plan.takers: 1 to {RECIPIENTS_MAX}")));
    }
    for (place, taker) in plan.takers.iter().enumerate() {
        if ShardId(taker.shard).kind() != Some(ShardKind::Mailbox) {
            return Err(malformed(format!("plan.takers.shard: {} is no mailbox shard", taker.shard)));
        }
        if plan.takers[..place].iter().any(|known| known.zone == taker.zone) {
            return Err(malformed(format!("plan.takers.zone: {} is named twice", taker.zone)));
        }
    }
    let sender = Mailbox::of_command(turn, &command.user_id)?;
    if sender.is_over_quota(0) {
        // Better now than when the other zones have it.
        return Err(refuse(Refusal::QuotaExceeded, "the mailbox has no room for the copy in Sent"));
    }
    Ok(Made::SendPlanned(plan.clone()))
}
