//! What waits for the outside, by destination, with the reason; and an operator's hand on what waits for one.

use std::collections::BTreeMap;

use axum::Json;
use bytes::Bytes;
use postrider_api::id::ShardId;
use postrider_api::limit::PAGE_ROWS_MAX;
use postrider_api::pb;
use postrider_api::pb::command::Op;
use postrider_api::pb::{QueueAction, ShardKind, answer, query};
use postrider_router::operate::{DestinationSummary, is_for};
use serde::Serialize;
use utoipa::ToSchema;

use crate::rest::admin::operator::{Act, Operator, Reason};
use crate::rest::extract::{JsonBody, PathId};
use crate::rest::openapi::OperatorProblems;
use crate::rest::problem::{Kind, Problem};
use crate::rest::time::Time;

/// Destinations of one answer: those that most waits for.
const DESTINATIONS_MAX: usize = 200;
/// Entries that one request holds or releases.
const ENTRIES_MAX: usize = 500;

/// A destination that mail waits for.
#[derive(Serialize, ToSchema)]
pub(crate) struct DestinationView {
    /// A domain, or `via HOST` where an operator has named one.
    #[schema(example = "far.example")]
    destination: String,
    entries: u64,
    recipients: u64,
    bytes: u64,
    /// The oldest entry, as `ctl queue` names it.
    #[schema(example = "1003-7")]
    oldest: String,
    /// Since when that waits.
    since: Time,
    /// An operator holds what would be tried next.
    held: bool,
    /// When it is tried next; null: not by itself.
    next_at: Option<Time>,
    /// How often the oldest was tried.
    attempts: u32,
    /// Others wait behind it until the destination takes mail.
    in_line: bool,
    /// Why the oldest waits.
    why: String,
    /// What the destination said last.
    reply: String,
}

impl From<DestinationSummary> for DestinationView {
    fn from(summary: DestinationSummary) -> Self {
        let (shard, entry) = summary.oldest;
        Self {
            destination: summary.destination,
            entries: summary.entries,
            recipients: summary.recipients,
            bytes: summary.bytes,
            oldest: format!("{shard}-{entry}"),
            since: Time(summary.oldest_ms),
            held: summary.held,
            next_at: (!summary.held && summary.next_ms != i64::MAX).then_some(Time(summary.next_ms)),
            attempts: summary.attempts,
            in_line: summary.in_line,
            why: summary.why,
            reply: summary.reply,
        }
    }
}

/// What waits for the outside.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// Those that most waits for first; at most 200.
    destinations: Vec<DestinationView>,
    /// Destinations that are not among them.
    left: usize,
}

/// Show what waits for the outside by destination, and why. The look stands in the audit log.
#[utoipa::path(
    get, path = "/v1/admin/queues", operation_id = "list_queues", tag = "administration",
    responses((status = 200, description = "The destinations", body = QueueView), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn list(operator: Operator) -> Result<Json<QueueView>, Problem> {
    let act = Act { action: "queue.why", targets: Vec::new(), why: "" };
    let found = operator.carry_out(act, destinations(&operator)).await?;
    let mut found: Vec<DestinationSummary> = found.into_values().collect();
    found.sort_by_key(|summary| std::cmp::Reverse(summary.entries));
    let left = found.len().saturating_sub(DESTINATIONS_MAX);
    found.truncate(DESTINATIONS_MAX);
    Ok(Json(QueueView { destinations: found.into_iter().map(DestinationView::from).collect(), left }))
}

fn mailbox_shards(operator: &Operator) -> Vec<ShardId> {
    let map = operator.map();
    let mailboxes = map.shards.iter().filter(|shard| shard.kind() == ShardKind::Mailbox);
    let mut shards: Vec<ShardId> = mailboxes.map(|shard| ShardId(shard.id)).collect();
    shards.sort_unstable();
    shards
}

async fn destinations(operator: &Operator) -> Result<BTreeMap<String, DestinationSummary>, Problem> {
    let mut found: BTreeMap<String, DestinationSummary> = BTreeMap::new();
    for shard in mailbox_shards(operator) {
        let mut after = Bytes::new();
        loop {
            let ask = pb::ListDestinations { limit: PAGE_ROWS_MAX, after, ..pb::ListDestinations::default() };
            let asked = operator.ask(shard, query::Query::ListDestinations(ask)).await?;
            let answer::Answer::Destinations(page) = asked else { return Err(another_answer()) };
            for one in page.destinations {
                let summary = DestinationSummary::of(shard.0, one);
                match found.get_mut(&summary.destination) {
                    Some(known) => known.add(summary),
                    None => {
                        found.insert(summary.destination.clone(), summary);
                    }
                }
            }
            if !page.more {
                break;
            }
            after = page.until;
        }
    }
    Ok(found)
}

fn another_answer() -> Problem {
    Problem::internal("a shard gave an answer to another question")
}

/// What was held, or released.
#[derive(Serialize, ToSchema)]
pub(crate) struct QueueChanged {
    entries: usize,
    recipients: usize,
    /// More wait for the destination: ask again.
    more: bool,
}

/// Do not try what waits for a destination now until it is released; at most 500 entries. What comes later is tried as ever.
#[utoipa::path(
    post, path = "/v1/admin/queues/{destination}/hold", operation_id = "hold_destination", tag = "administration",
    params(("destination" = String, Path, description = "As the list of queues names it")), request_body = Reason,
    responses((status = 200, description = "What is held now", body = QueueChanged), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn hold(
    operator: Operator,
    PathId(destination): PathId<String>,
    JsonBody(reason): JsonBody<Reason>,
) -> Result<Json<QueueChanged>, Problem> {
    change(&operator, &destination, QueueAction::Hold, &reason.checked()?).await
}

/// Try again what was held of a destination; at most 500 entries.
#[utoipa::path(
    post, path = "/v1/admin/queues/{destination}/release", operation_id = "release_destination", tag = "administration",
    params(("destination" = String, Path, description = "As the list of queues names it")), request_body = Reason,
    responses((status = 200, description = "What is tried again", body = QueueChanged), OperatorProblems),
    security(("token" = [])),
)]
pub(crate) async fn release(
    operator: Operator,
    PathId(destination): PathId<String>,
    JsonBody(reason): JsonBody<Reason>,
) -> Result<Json<QueueChanged>, Problem> {
    change(&operator, &destination, QueueAction::Release, &reason.checked()?).await
}

async fn change(
    operator: &Operator,
    destination: &str,
    action: QueueAction,
    why: &str,
) -> Result<Json<QueueChanged>, Problem> {
    let is_known = !destination.is_empty() && destination.len() <= DESTINATION_BYTES_MAX;
    if !is_known || destination.chars().any(char::is_control) {
        return Err(Problem::new(Kind::NotFound));
    }
    let verb = if action == QueueAction::Hold { "queue.hold" } else { "queue.release" };
    let act = Act { action: verb, targets: vec![format!("destination {destination}")], why };
    operator.carry_out(act, of_all(operator, destination, action, why)).await.map(Json)
}

/// `via ` and a host with its port; a domain has at most 253 (RFC 1035 section 2.3.4).
const DESTINATION_BYTES_MAX: usize = 240;

async fn of_all(
    operator: &Operator,
    destination: &str,
    action: QueueAction,
    why: &str,
) -> Result<QueueChanged, Problem> {
    let mut changed = QueueChanged { entries: 0, recipients: 0, more: false };
    for shard in mailbox_shards(operator) {
        let mut after_entry = 0;
        loop {
            let ask = pb::ListQueue { limit: PAGE_ROWS_MAX, after_entry, destination: destination.to_owned() };
            let asked = operator.ask(shard, query::Query::ListQueue(ask)).await?;
            let answer::Answer::Queue(page) = asked else { return Err(another_answer()) };
            let Some(last) = page.entries.last() else { break };
            after_entry = last.entry;
            for entry in page.entries {
                let is_meant = |pending: &&pb::PendingRecipient| {
                    is_for(pending, destination) && pending.held != (action == QueueAction::Hold)
                };
                let addresses: Vec<String> =
                    entry.pending.iter().filter(is_meant).map(|pending| pending.address.clone()).collect();
                if addresses.is_empty() {
                    continue;
                }
                if changed.entries == ENTRIES_MAX {
                    return Ok(QueueChanged { more: true, ..changed });
                }
                changed.entries += 1;
                changed.recipients += addresses.len();
                manage(operator, shard, entry.entry, addresses, action, why).await?;
            }
            if !page.more {
                break;
            }
        }
    }
    Ok(changed)
}

async fn manage(
    operator: &Operator,
    shard: ShardId,
    entry: u64,
    addresses: Vec<String>,
    action: QueueAction,
    why: &str,
) -> Result<(), Problem> {
    let op = pb::ManageQueue {
        entry,
        action: action.into(),
        by: operator.name().to_owned(),
        why: why.to_owned(),
        addresses,
        ..pb::ManageQueue::default()
    };
    match operator.propose(shard, Op::ManageQueue(op)).await {
        // Delivered meanwhile.
        Err(problem) if problem.kind() == Kind::NotFound => Ok(()),
        other => other.map(drop),
    }
}
