//! `postrider_nodes`: the storage nodes.

use async_trait::async_trait;
use postrider_api::pb::{self, NodeState};

use crate::connection::Connection;
use crate::protocol::resource::{DataSource, Done};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, Value, object};

pub(super) struct Nodes;

#[async_trait]
impl DataSource<Connection> for Nodes {
    fn name(&self) -> &'static str {
        "nodes"
    }

    fn schema(&self) -> Schema {
        let node = &[
            ("id", Type::Number),
            ("region", Type::Text),
            ("address", Type::Text),
            ("failure_domain", Type::Text),
            ("state", Type::Text),
            ("replicas", Type::Number),
            ("build", Type::Text),
        ];
        Schema {
            description: "The storage nodes.",
            attributes: vec![
                Attribute::optional("region", Type::Text, "Those of this region alone."),
                Attribute::computed(
                    "nodes",
                    Type::objects(node),
                    "By their numbers. `state`: `active`, `draining`, `drained`, `silent` (it does not answer) or `given up` (its replicas are made elsewhere).",
                ),
            ],
        }
    }

    async fn read(&self, connection: &Connection, config: &Object) -> Done<Object> {
        let map = connection.map().await?;
        let is_meant = |node: &&pb::Node| config.text("region").is_none_or(|region| region == node.region);
        let mut nodes: Vec<&pb::Node> = map.nodes.iter().filter(is_meant).collect();
        nodes.sort_unstable_by_key(|node| node.id);
        let nodes = nodes.into_iter().map(|node| node_of(node, &map)).collect();
        Ok(object([("region", config.value("region").clone()), ("nodes", Value::List(nodes))]))
    }
}

fn node_of(node: &pb::Node, map: &pb::ShardMap) -> Value {
    let state = match (node.state(), node.operation) {
        _ if node.given_up_ms != 0 => "given up",
        _ if node.silent_since_ms != 0 => "silent",
        (NodeState::Active, _) => "active",
        (NodeState::Draining, 0) => "drained",
        (NodeState::Draining, _) => "draining",
    };
    let replicas = map.shards.iter().filter(|shard| shard.replicas.contains(&node.id)).count();
    Value::Object(object([
        ("id", node.id.into()),
        ("region", node.region.clone().into()),
        ("address", node.address.clone().into()),
        ("failure_domain", node.failure_domain.clone().into()),
        ("state", state.into()),
        ("replicas", replicas.into()),
        ("build", node.build.clone().into()),
    ]))
}
