//! A transfer from a queue entry, of another shard or of this one. Each target is deduplicated by a request of its own, so a
//! worker that died half way, or two that hold the same entry, deliver once (P-6).
//!
//! A target whose mailbox is over its quota by more than the bound is named in `over_quota`: it was accepted long ago, so it
//! waits at its source and never bounces for quota. One whose account was deleted is named in `deleted`, and its source drops it. A target of whom it cannot be said any more whether he has the message is
//! named in `too_old`, and gets nothing: the source keeps it in its error queue.

use postrider_api::id::{RequestId, UserId};
use postrider_api::limit::{ADDRESS_BYTES_MAX, RECIPIENTS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::dedup;
use crate::mailbox::account::Mailbox;
use crate::mailbox::incoming::Incoming;
use crate::mailbox::{accept, body};
use crate::store::Rows;
use crate::turn::{Stop, Turn, id, malformed, refuse};

/// Whom to deliver to, once.
struct Target {
    user: UserId,
    request: RequestId,
    undelivered_ms: i64,
}

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::Deliver) -> Result<Made, Stop> {
    let incoming = Incoming::of_command(command.message.as_ref(), &command.mail_from)?;
    let targets = targets(command)?;
    turn.demand_entropy()?;
    dedup::check_lease(turn, command)?;
    let mut first_time = false;
    for Target { user, request, .. } in &targets {
        match dedup::transferred(turn, *request)? {
            Some(delivery) if delivery.user_id != user.0[..] => {
                return Err(refuse(Refusal::Conflict, format!("targets.request: {request} was another user's")));
            }
            known => first_time |= known.is_none(),
        }
    }
    if first_time {
        // Only then is the body needed: a repetition may come after the message was deleted.
        body::check(turn, &incoming)?;
    }
    let mut made = pb::Delivered::default();
    let mut references = 0;
    for Target { user, request, undelivered_ms } in targets {
        if let Some(delivery) = dedup::transferred(turn, request)? {
            made.deliveries.push(delivery);
            continue;
        }
        if dedup::may_have_expired(turn, undelivered_ms) {
            made.too_old.push(user.to_bytes());
            continue;
        }
        match Mailbox::open(turn, user)? {
            None if Mailbox::is_deleted(turn, user)? => made.deleted.push(user.to_bytes()),
            None => made.unknown_users.push(user.to_bytes()),
            Some(mailbox) if mailbox.refuses_mail() => made.suspended.push(user.to_bytes()),
            Some(mailbox) if mailbox.is_over_bound(incoming.new.size) => made.over_quota.push(user.to_bytes()),
            Some(mailbox) => {
                let delivery = accept::to_inbox(turn, mailbox, &incoming)?;
                dedup::keep_transfer(turn, command, request, &delivery);
                made.deliveries.push(delivery);
                references += 1;
            }
        }
    }
    body::store(turn, &incoming, references)?;
    Ok(Made::Delivered(made))
}

/// The targets, each user once.
fn targets(command: &pb::Deliver) -> Result<Vec<Target>, Stop> {
    if command.targets.is_empty() || command.targets.len() > RECIPIENTS_MAX {
        return Err(malformed(format!("targets: 1 to {RECIPIENTS_MAX}")));
    }
    let mut targets: Vec<Target> = Vec::with_capacity(command.targets.len());
    for target in &command.targets {
        let user = id(&target.user_id, "targets.user_id")?;
        let request = id(&target.request, "targets.request")?;
        if target.address.len() > ADDRESS_BYTES_MAX {
            return Err(malformed(format!("targets.address: at most {ADDRESS_BYTES_MAX} bytes")));
        }
        match targets.iter().find(|known| known.user == user || known.request == request) {
            None => targets.push(Target { user, request, undelivered_ms: target.undelivered_ms }),
            Some(known) if known.user == user => {}
            Some(_) => return Err(malformed("targets.request: two users have the same")),
        }
    }
    Ok(targets)
}
