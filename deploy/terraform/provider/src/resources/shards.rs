//! `postrider_shards`: the mailbox shards of a zone that are held to one policy, or to none.

use std::time::Duration;

use async_trait::async_trait;
use postrider_api::audit;
use postrider_api::id::ShardId;
use postrider_api::pb::{self, ShardKind, command::Op};
use postrider_operator::growth::{self, ADDED_MAX, Growth};

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Presence, Schema, Type};
use crate::protocol::timeout;
use crate::protocol::value::{Attributes as _, Object, Value, object};

/// Groups are made one after the other.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

pub(super) struct Shards;

#[async_trait]
impl Resource<Connection> for Shards {
    fn name(&self) -> &'static str {
        "shards"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "The mailbox shards of a zone that are held to one policy, or to none. Those that are there are taken over; what is missing to \
                          `total` is made while the cluster serves, and new accounts spread over it. A shard is never removed: destroying the \
                          resource leaves them.",
            attributes: vec![
                Attribute::required("total", Type::Number, "How many there shall be. It only ever rises."),
                Attribute::optional(
                    "policy",
                    Type::Text,
                    "What they are held to. Without it they have three replicas in as many regions of the zone, and their homes go round its regions.",
                ),
                Attribute::new(
                    "zone",
                    Type::Text,
                    Presence::OptionalComputed,
                    "Their residency zone. May be left out where there is one, or where a policy says it.",
                )
                .replaces(),
                timeout::attribute(),
                Attribute::computed("ids", Type::Set(Box::new(Type::Number)), "Their numbers.")
                    .follows(&["total", "policy"]),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("world/near", "the zone, and behind a slash the policy, where there is one")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        match config.integer("total") {
            Some(total) if total < 1 => {
                vec![
                    Diagnostic::error("Not a number of shards", "At least 1 is wanted: shards are never removed.")
                        .at("total"),
                ]
            }
            _ => Vec::new(),
        }
    }

    fn check_change(&self, prior: &Object, planned: &Object) -> Vec<Diagnostic> {
        match (prior.integer("total"), planned.integer("total")) {
            (Some(before), Some(total)) if total < before => vec![fewer(before, total)],
            _ => Vec::new(),
        }
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        let zone = zone(&map, &state)?;
        let of = members(&map, &zone, state.text("policy").unwrap_or_default());
        if of.is_empty() {
            return Ok(None);
        }
        let ids = of.iter().map(|shard| Value::from(shard.id)).collect();
        let mut state = state;
        state.extend(object([("total", of.len().into()), ("zone", zone.into()), ("ids", Value::List(ids))]));
        Ok(Some(state))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        grow(connection, planned).await
    }

    async fn update(&self, connection: &Connection, prior: &Object, planned: &Object) -> Done<()> {
        if prior.value("policy") != planned.value("policy") {
            hold(connection, prior, planned).await?;
        }
        grow(connection, planned).await
    }

    async fn delete(&self, _: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        let total = prior.integer("total").unwrap_or_default();
        let detail = format!(
            "Shards are never removed, since mailboxes are in them: the {total} of them stay as they are, and Terraform forgets them."
        );
        Ok(vec![Diagnostic::warning("The shards stay", detail)])
    }

    fn import(&self, id: &str) -> Done<Object> {
        let (zone, policy) = id.split_once('/').unwrap_or((id, ""));
        Ok(object([("zone", zone.into()), ("policy", Value::text_or_null(policy))]))
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

fn fewer(before: i64, total: i64) -> Diagnostic {
    let detail = format!(
        "There are {before}, and mailboxes are in them: they cannot become {total}. Set total to {before} or more."
    );
    Diagnostic::error("Shards are never removed", detail).at("total")
}

fn zone(map: &pb::ShardMap, state: &Object) -> Done<String> {
    let of_policy = state.text("policy").and_then(|name| map.policies.iter().find(|policy| policy.name == name));
    match (state.text("zone"), of_policy) {
        (None, Some(policy)) => Ok(policy.zone.clone()),
        (zone, _) => Ok(growth::zone(map, zone)?),
    }
}

fn members<'m>(map: &'m pb::ShardMap, zone: &str, policy: &str) -> Vec<&'m pb::Shard> {
    let is_one =
        |shard: &&pb::Shard| shard.kind() == ShardKind::Mailbox && shard.zone == zone && shard.policy == policy;
    map.shards.iter().filter(is_one).collect()
}

/// Waits for those that are being made, and makes what is missing.
async fn grow(connection: &Connection, planned: &Object) -> Done<()> {
    let map = connection.map().await?;
    let zone = zone(&map, planned)?;
    let policy = planned.text("policy");
    let there = members(&map, &zone, policy.unwrap_or_default());
    // Of an apply that was interrupted.
    for shard in there.iter().filter(|shard| shard.making && shard.operation != 0) {
        super::until_done(connection, shard.operation).await?;
    }
    let total = planned.integer("total").unwrap_or_default();
    let missing = total.saturating_sub(i64::try_from(there.len()).unwrap_or(i64::MAX));
    if missing < 0 {
        return Err(fewer(total.saturating_sub(missing), total));
    }
    let session = connection.session().await?;
    let mut missing = u32::try_from(missing).unwrap_or(u32::MAX);
    while missing > 0 {
        let count = missing.min(ADDED_MAX);
        let zone = policy.is_none().then(|| zone.clone());
        let growth = Growth { count, policy: policy.map(str::to_owned), zone };
        tracing::info!("{count} shards are made");
        growth::add(session, &growth, &mut |look| super::tell(&look)).await?;
        missing -= count;
    }
    Ok(())
}

/// Holds those that are there to another policy.
async fn hold(connection: &Connection, prior: &Object, planned: &Object) -> Done<()> {
    let map = connection.map().await?;
    let zone = zone(&map, prior)?;
    let policy = planned.text("policy").unwrap_or_default();
    let moved = members(&map, &zone, prior.text("policy").unwrap_or_default());
    let together = moved.len() + members(&map, &zone, policy).len();
    if i64::try_from(together).unwrap_or(i64::MAX) > planned.integer("total").unwrap_or_default() {
        let detail = format!(
            "With those that are held to {policy:?} already there would be {together}. Keep all of them in one resource (total = {together}), or leave \
             the policy as it is."
        );
        return Err(Diagnostic::error("Others are held to the policy", detail).at("policy"));
    }
    let session = connection.session().await?;
    for shard in moved {
        let target = audit::shard(ShardId(shard.id));
        let targets = [target].into_iter().chain((!policy.is_empty()).then(|| format!("policy {policy}")));
        let set = Op::SetShardPolicy(pb::SetShardPolicy { shard: shard.id, policy: policy.to_owned() });
        session.place("policy.shard", targets, set).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_of_one_policy_are_one_resource() {
        let shard = |id: u32, kind: ShardKind, policy: &str| pb::Shard {
            id,
            kind: kind.into(),
            zone: "world".into(),
            policy: policy.into(),
            ..Default::default()
        };
        let shards = vec![
            shard(2, ShardKind::Directory, ""),
            shard(1000, ShardKind::Mailbox, ""),
            shard(1001, ShardKind::Mailbox, "near"),
        ];
        let policies = vec![pb::Policy { name: "near".into(), zone: "world".into(), ..Default::default() }];
        let zones = vec![pb::Zone { name: "world".into(), id: 1 }, pb::Zone { name: "eu".into(), id: 2 }];
        let map = pb::ShardMap { shards, policies, zones, ..Default::default() };
        let ids = |policy: &str| members(&map, "world", policy).iter().map(|shard| shard.id).collect::<Vec<_>>();
        assert_eq!((ids(""), ids("near")), (vec![1000], vec![1001]));
        assert_eq!(zone(&map, &object([("policy", "near".into())])).unwrap(), "world");
        assert!(zone(&map, &Object::new()).is_err(), "two zones to choose from");
        let shrunk = Shards.check_change(&object([("total", 3_u32.into())]), &object([("total", 2_u32.into())]));
        assert_eq!(shrunk.len(), 1);
    }
}
