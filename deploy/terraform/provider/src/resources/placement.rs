//! `postrider_placement`: where shards are: pins, and the balancer, which an apply runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use postrider_api::audit;
use postrider_api::id::ShardId;
use postrider_api::pb::operation::Kind;
use postrider_api::pb::{self, OperationState, command::Op};
use postrider_balance::limits::Limits;
use postrider_operator::operation::{LOOK_EVERY, OperationSummary, parent_of};
use postrider_operator::{Session, plan};

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::timeout;
use crate::protocol::value::{Attributes as _, Object, Value, object};

/// Evening out may copy half of what there is.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// What `terraform import` is given: there is one in a cluster.
const ID: &str = "cluster";

pub(super) struct Placement;

#[async_trait]
impl Resource<Connection> for Placement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn schema(&self) -> Schema {
        let by_shard = || Type::Map(Box::new(Type::Text));
        Schema {
            description: "Where shards are; one in a cluster. Applying it pins what is pinned, and then has the cluster put right and evened out, until \
                          nothing is left to do; `TF_LOG=INFO` shows the steps. What could be better placed shows in a plan as `balanced` going from \
                          `false` to `true`, and the data source `postrider_plan` says what. How much goes to a region is said by `postrider_region`.",
            attributes: vec![
                Attribute::defaulted("balance", Type::Bool, true, "Whether an apply runs the balancer."),
                Attribute::optional(
                    "homes",
                    by_shard(),
                    "Pins: the region where a shard's primary shall be, by the shard's number. The region has a replica. A pin that the balancer \
                     would undo wants a policy with `home` instead.",
                ),
                Attribute::optional(
                    "policies",
                    by_shard(),
                    "The policy that a shard is held to, by its number, for shards that no `postrider_shards` keeps.",
                ),
                timeout::attribute(),
                Attribute::computed(
                    "balanced",
                    Type::Bool,
                    "Whether all is where it should be, by what the nodes say now.",
                ),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        (ID, "the word `cluster`")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        let of = |name: &str| config.nested(name).into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        let wrong = |name: &'static str| {
            let keys = of(name).into_iter().filter(|key| key.parse::<u32>().is_err());
            keys.map(move |key| {
                Diagnostic::error("Not a shard", format!("{key:?}: a shard's number is wanted.")).at(name)
            })
        };
        wrong("homes").chain(wrong("policies")).collect()
    }

    fn plan(&self, prior: Option<&Object>, planned: &mut Object) {
        let balanced = match (planned.flag("balance"), prior) {
            (Some(true), _) => Value::Bool(true),
            (Some(false), Some(prior)) => prior.value("balanced").clone(),
            (Some(false), None) | (None, _) => Value::Unknown,
        };
        planned.insert("balanced".to_owned(), balanced);
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        let shard = |key: &str| map.shards.iter().find(|shard| shard.id.to_string() == key);
        let homes = |key: &str| shard(key).map(|shard| shard.home_region.clone());
        let policies = |key: &str| shard(key).map(|shard| shard.policy.clone());
        let balanced = is_balanced(connection.session().await?, &map).await?;
        let (homes, policies) = (as_they_are(&state, "homes", homes), as_they_are(&state, "policies", policies));
        let mut state = state;
        state.extend(object([("homes", homes), ("policies", policies), ("balanced", balanced.into())]));
        Ok(Some(state))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        self.update(connection, &Object::new(), planned).await
    }

    async fn update(&self, connection: &Connection, _: &Object, planned: &Object) -> Done<()> {
        let session = connection.session().await?;
        let map = connection.map().await?;
        for (id, policy) in by_shard(planned, "policies") {
            if map.shards.iter().any(|shard| shard.id == id && shard.policy == policy) {
                continue;
            }
            let targets = [audit::shard(ShardId(id)), format!("policy {policy}")];
            session
                .place("policy.shard", targets, Op::SetShardPolicy(pb::SetShardPolicy { shard: id, policy }))
                .await?;
        }
        for (shard, region) in by_shard(planned, "homes") {
            let targets = vec![audit::shard(ShardId(shard)), format!("region {region}")];
            let set = pb::SetHome { shard, region, ..Default::default() };
            super::carry_out(connection, "shard.home", targets, Op::SetHome(set)).await?;
        }
        if planned.flag("balance").unwrap_or(true) {
            balance(session).await?;
        }
        let map = connection.map().await?;
        let undone = by_shard(planned, "homes")
            .into_iter()
            .filter(|(id, region)| map.shards.iter().any(|shard| shard.id == *id && shard.home_region != *region));
        let undone: Vec<String> = undone.map(|(id, region)| format!("shard {id} is not in {region}")).collect();
        if undone.is_empty() {
            return Ok(());
        }
        let detail =
            format!("{}. Give them a policy whose `home` is that region, and leave the pins out.", undone.join(", "));
        Err(Diagnostic::error("The balancer has undone pins", detail).at("homes"))
    }

    async fn delete(&self, _: &Connection, _: &Object) -> Done<Vec<Diagnostic>> {
        // Everything stays where it is.
        Ok(Vec::new())
    }

    fn import(&self, id: &str) -> Done<Object> {
        match id {
            ID => Ok(Object::new()),
            _ => Err(Diagnostic::error("Not an id", format!("{id:?}: {ID:?} is wanted; there is one placement."))),
        }
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

/// What is configured by shard; the keys have been checked.
fn by_shard(planned: &Object, name: &str) -> BTreeMap<u32, String> {
    let of = |(key, value): (&String, &Value)| {
        let Value::Text(text) = value else { return None };
        Some((key.parse().ok()?, text.clone()))
    };
    planned.nested(name).into_iter().flatten().filter_map(of).collect()
}

/// The same shards, with what is so of them now; those that are gone are left out.
fn as_they_are(state: &Object, name: &str, now: impl Fn(&str) -> Option<String>) -> Value {
    let Some(before) = state.nested(name) else { return state.value(name).clone() };
    Value::Object(before.keys().filter_map(|key| Some((key.clone(), Value::from(now(key)?)))).collect())
}

/// Whether nothing is left to do, and nobody is at it.
async fn is_balanced(session: &Session, map: &pb::ShardMap) -> Done<bool> {
    let is_running = map.operations.iter().any(|operation| matches!(operation.kind, Some(Kind::Balance(_))));
    let (planned, _) = plan::make(&session.router, map, &BTreeSet::new(), &Limits::default()).await?;
    Ok(plan::is_good(&planned) && !is_running)
}

/// Runs the balancer, or goes on waiting for the one that runs, and tells of its steps.
async fn balance(session: &Session) -> Done<()> {
    let begun = session.begin("cluster.balance", ["cluster".to_owned()], Op::Balance(pb::Balance {})).await?;
    if let Some(id) = begun {
        until_balanced(session, id).await?;
    }
    let map = session.newest_map().await?;
    let (planned, silent) = plan::make(&session.router, &map, &BTreeSet::new(), &Limits::default()).await?;
    if plan::is_good(&planned) {
        return Ok(());
    }
    let mut stuck: Vec<String> = planned
        .blocked
        .iter()
        .map(|blocked| format!("shard {} stays as it is: {}", blocked.shard, blocked.reason))
        .collect();
    if planned.waiting_shards > 0 {
        stuck.push(format!("{} shards wait for nodes that do not answer: {silent:?}", planned.waiting_shards));
    }
    if !planned.steps.is_empty() {
        stuck.push(format!("{} steps have come up meanwhile: apply again", planned.steps.len()));
    }
    Err(Diagnostic::error(
        "Not everything is where it should be",
        format!("{}. `postrider ctl plan` says more.", stuck.join("; ")),
    ))
}

async fn until_balanced(session: &Session, id: u64) -> Done<()> {
    let mut states = BTreeMap::new();
    loop {
        let looked = async { anyhow::Ok((session.operation(id).await?, session.operations().await?)) };
        match looked.await {
            Ok((own, listed)) => {
                // The newest come first.
                for operation in listed.iter().rev().filter(|operation| parent_of(operation) == id) {
                    let OperationSummary { of, state, why, .. } = OperationSummary::of(operation);
                    if states.insert(operation.id, state) != Some(state) {
                        tracing::info!(operation = operation.id, "{of}: {state}: {why}");
                    }
                }
                match own.state() {
                    OperationState::Done => return Ok(()),
                    OperationState::Cancelled => {
                        let detail = format!("Operation {id} was cancelled: {}. Apply again to go on.", own.waits_for);
                        return Err(Diagnostic::error("The balancer was stopped", detail));
                    }
                    _ => {}
                }
            }
            Err(error) => tracing::warn!("operation {id}: {error:#}; it goes on"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_better_placed_is_a_difference() {
        let mut planned = object([("balance", true.into()), ("balanced", Value::Unknown)]);
        Placement.plan(Some(&object([("balanced", false.into())])), &mut planned);
        assert_eq!(planned.flag("balanced"), Some(true));
        let mut left_alone = object([("balance", false.into())]);
        Placement.plan(Some(&object([("balanced", false.into())])), &mut left_alone);
        assert_eq!(left_alone.flag("balanced"), Some(false));
    }

    #[test]
    fn pins_are_by_shard() {
        let homes = Value::Object(object([("1000", "seoul".into()), ("1001", "virginia".into())]));
        let state = object([("homes", homes)]);
        assert_eq!(by_shard(&state, "homes").into_keys().collect::<Vec<_>>(), [1000, 1001]);
        assert!(by_shard(&state, "policies").is_empty());
        let now = as_they_are(&state, "homes", |key| (key == "1000").then(|| "virginia".to_owned()));
        assert_eq!(now, Value::Object(object([("1000", "virginia".into())])));
        assert!(Placement.check(&object([("homes", Value::Object(object([("first", "seoul".into())])))])).len() == 1);
    }
}
