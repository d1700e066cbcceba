//! `postrider_shards`: where shards are.

use async_trait::async_trait;
use postrider_api::pb::{self, ShardKind};

use crate::connection::Connection;
use crate::protocol::resource::{DataSource, Done};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, Value, object};

pub(super) struct Shards;

#[async_trait]
impl DataSource<Connection> for Shards {
    fn name(&self) -> &'static str {
        "shards"
    }

    fn schema(&self) -> Schema {
        let shard = &[
            ("id", Type::Number),
            ("kind", Type::Text),
            ("zone", Type::Text),
            ("home_region", Type::Text),
            ("policy", Type::Text),
            ("replicas", Type::List(Box::new(Type::Number))),
        ];
        Schema {
            description: "Where shards are, as placement wants it.",
            attributes: vec![
                Attribute::optional("zone", Type::Text, "Those of this zone alone."),
                Attribute::optional(
                    "policy",
                    Type::Text,
                    "Those that are held to this policy alone; an empty text: to none.",
                ),
                Attribute::computed("shards", Type::objects(shard), "By their numbers. `replicas`: the nodes."),
            ],
        }
    }

    async fn read(&self, connection: &Connection, config: &Object) -> Done<Object> {
        let map = connection.map().await?;
        let is = |name: &str, has: &str| config.text(name).is_none_or(|wanted| wanted == has);
        let is_meant = |shard: &&pb::Shard| is("zone", &shard.zone) && is("policy", &shard.policy);
        let mut shards: Vec<&pb::Shard> = map.shards.iter().filter(is_meant).collect();
        shards.sort_unstable_by_key(|shard| shard.id);
        Ok(object([
            ("zone", config.value("zone").clone()),
            ("policy", config.value("policy").clone()),
            ("shards", Value::List(shards.into_iter().map(shard_of).collect())),
        ]))
    }
}

fn shard_of(shard: &pb::Shard) -> Value {
    let kind = match shard.kind() {
        ShardKind::Placement => "placement",
        ShardKind::Directory => "directory",
        ShardKind::Mailbox => "mailbox",
        ShardKind::Unspecified => "unknown",
    };
    Value::Object(object([
        ("id", shard.id.into()),
        ("kind", kind.into()),
        ("zone", shard.zone.clone().into()),
        ("home_region", shard.home_region.clone().into()),
        ("policy", shard.policy.clone().into()),
        ("replicas", Value::List(shard.replicas.iter().map(|node| Value::from(*node)).collect())),
    ]))
}
