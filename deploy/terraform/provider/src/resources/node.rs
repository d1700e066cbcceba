//! `postrider_node`: a storage node that has joined, whether it bears anything, and its end.
//!
//! A node that is being emptied is `draining` until it is `drained`: an apply that was interrupted finds it so, the plan shows it, and the
//! next apply waits for the operation that runs.

use std::time::Duration;

use async_trait::async_trait;
use postrider_api::audit;
use postrider_api::id::NodeId;
use postrider_api::pb::{self, NodeState, command::Op};

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::timeout;
use crate::protocol::value::{Attributes as _, Object, Value, object};

/// Emptying a node copies everything that it has.
const TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Between two looks whether a node has joined.
const PAUSE: Duration = Duration::from_millis(500);

const ACTIVE: &str = "active";
const DRAINING: &str = "draining";
const DRAINED: &str = "drained";

pub(super) struct Node;

#[async_trait]
impl Resource<Connection> for Node {
    fn name(&self) -> &'static str {
        "node"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "A storage node. Nodes join by themselves when they start: creating the resource waits until this one has. `drain = true` gives \
                          its leads and replicas to others and waits until it has none; destroying the resource does the same, and then removes \
                          the node for good.",
            attributes: vec![
                Attribute::required("id", Type::Number, "Its number, which is never given to another one.").replaces(),
                Attribute::defaulted("drain", Type::Bool, false, "Whether it is to bear nothing."),
                super::forget_on_destroy(
                    "Destroying it leaves the node as it is; otherwise it is emptied and removed, for good.",
                ),
                timeout::attribute(),
                Attribute::computed(
                    "state",
                    Type::Text,
                    "`active`, `draining` (it is being emptied) or `drained`. A plan that shows it going on to `drained` waits for the operation that runs.",
                ),
                Attribute::computed("region", Type::Text, "Where it is."),
                Attribute::computed("address", Type::Text, "`HOST:PORT` of its gRPC."),
                Attribute::computed(
                    "failure_domain",
                    Type::Text,
                    "What fails at once with others that name the same. Empty: nothing else.",
                ),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("4", "the node's number")
    }

    fn plan(&self, _: Option<&Object>, planned: &mut Object) {
        let state = planned.flag("drain").map(|drain| Value::from(if drain { DRAINED } else { ACTIVE }));
        planned.insert("state".to_owned(), state.unwrap_or(Value::Unknown));
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        Ok(find(&map, id(&state)).map(|node| state_of(node, &state)))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        let id = id(planned);
        while find(&connection.map().await?, id).is_none() {
            tracing::info!(node = id, "node {id} has not joined yet");
            tokio::time::sleep(PAUSE).await;
        }
        settle(connection, planned).await
    }

    async fn update(&self, connection: &Connection, _: &Object, planned: &Object) -> Done<()> {
        settle(connection, planned).await
    }

    async fn delete(&self, connection: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        let id = id(prior);
        if super::forgets(prior) || find(&connection.map().await?, id).is_none() {
            return Ok(Vec::new());
        }
        drain(connection, id).await?;
        let remove = Op::RemoveNode(pb::RemoveNode { node: id });
        connection.session().await?.place("node.remove", target(id), remove).await?;
        tracing::info!(node = id, "node {id} is removed: its process can be stopped");
        Ok(Vec::new())
    }

    fn import(&self, id: &str) -> Done<Object> {
        let id = super::number(id, "a node's number")?;
        Ok(object([("id", id.into())]))
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

fn id(state: &Object) -> u64 {
    state.integer("id").and_then(|id| u64::try_from(id).ok()).unwrap_or_default()
}

fn target(id: u64) -> Vec<String> {
    vec![audit::node(NodeId(id))]
}

fn find(map: &pb::ShardMap, id: u64) -> Option<&pb::Node> {
    map.nodes.iter().find(|node| node.id == id)
}

fn word_of(node: &pb::Node) -> &'static str {
    match (node.state(), node.operation) {
        (NodeState::Active, _) => ACTIVE,
        (NodeState::Draining, 0) => DRAINED,
        (NodeState::Draining, _) => DRAINING,
    }
}

fn state_of(node: &pb::Node, before: &Object) -> Object {
    let mut state = before.clone();
    state.extend(object([
        ("id", node.id.into()),
        ("drain", (node.state() == NodeState::Draining).into()),
        ("state", word_of(node).into()),
        ("region", node.region.clone().into()),
        ("address", node.address.clone().into()),
        ("failure_domain", node.failure_domain.clone().into()),
    ]));
    state
}

/// Emptied, or taking leads and replicas, as it is wanted.
async fn settle(connection: &Connection, planned: &Object) -> Done<()> {
    let id = id(planned);
    if planned.flag("drain").unwrap_or(false) {
        return drain(connection, id).await;
    }
    let map = connection.map().await?;
    let Some(node) = find(&map, id).filter(|node| node.state() == NodeState::Draining) else { return Ok(()) };
    let session = connection.session().await?;
    if node.operation != 0 {
        session.cancel(node.operation, "cancelled by Terraform: the node shall bear something").await?;
        return Ok(());
    }
    session.place("node.activate", target(id), Op::ActivateNode(pb::ActivateNode { node: id })).await?;
    Ok(())
}

/// Waits until the node holds nothing. What runs already is taken up.
async fn drain(connection: &Connection, id: u64) -> Done<()> {
    let map = connection.map().await?;
    let holds = map.shards.iter().any(|shard| shard.replicas.contains(&id));
    if !holds && find(&map, id).is_some_and(|node| word_of(node) == DRAINED) {
        return Ok(());
    }
    super::carry_out(connection, "node.drain", target(id), Op::DrainNode(pb::DrainNode { node: id })).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(drain: bool) -> Object {
        let mut planned = object([("id", 4_u32.into()), ("drain", drain.into()), ("state", Value::Unknown)]);
        Node.plan(None, &mut planned);
        planned
    }

    #[test]
    fn a_node_that_is_being_emptied_differs_from_what_is_wanted_either_way() {
        let draining = pb::Node { id: 4, state: NodeState::Draining.into(), operation: 77, ..Default::default() };
        let there = state_of(&draining, &planned(true));
        assert_ne!(there.value("state"), planned(true).value("state"), "the next apply waits");
        assert_ne!(there.value("state"), planned(false).value("state"), "the next apply cancels");
        let drained = pb::Node { operation: 0, ..draining };
        let there = state_of(&drained, &planned(true));
        assert_eq!(there.value("state"), planned(true).value("state"));
        assert_eq!(there.flag("drain"), Some(true));
        let active = state_of(&pb::Node { id: 4, ..Default::default() }, &planned(false));
        assert_eq!(active.value("state"), planned(false).value("state"));
    }
}
