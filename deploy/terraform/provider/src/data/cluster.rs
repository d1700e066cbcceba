//! `postrider_cluster`: zones, regions, domains, policies.

use async_trait::async_trait;
use postrider_api::limit::REGION_WEIGHT;
use postrider_api::pb;

use crate::connection::Connection;
use crate::protocol::resource::{DataSource, Done};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::{Object, Value, object};

pub(super) struct Cluster;

#[async_trait]
impl DataSource<Connection> for Cluster {
    fn name(&self) -> &'static str {
        "cluster"
    }

    fn schema(&self) -> Schema {
        let regions = &[
            ("name", Type::Text),
            ("zone", Type::Text),
            ("weight", Type::Number),
            ("url", Type::Text),
            ("nodes", Type::Number),
        ];
        Schema {
            description: "What the cluster consists of.",
            attributes: vec![
                Attribute::computed("zones", Type::texts(), "Its residency zones."),
                Attribute::computed(
                    "regions",
                    Type::objects(regions),
                    "Its regions, with what clients are told of them.",
                ),
                Attribute::computed("domains", Type::texts(), "The domains that mail is accepted for."),
                Attribute::computed("policies", Type::texts(), "Its policies."),
                Attribute::computed("nodes", Type::Number, "How many storage nodes there are."),
                Attribute::computed("shards", Type::Number, "How many shards there are."),
                Attribute::computed("operations", Type::Number, "How many operations run."),
            ],
        }
    }

    async fn read(&self, connection: &Connection, _: &Object) -> Done<Object> {
        let map = connection.map().await?;
        let names = |names: Vec<&String>| Value::texts(names.into_iter().cloned());
        Ok(object([
            ("zones", names(map.zones.iter().map(|zone| &zone.name).collect())),
            ("regions", Value::List(map.regions.iter().map(|region| region_of(region, &map)).collect())),
            ("domains", names(map.domains.iter().map(|domain| &domain.name).collect())),
            ("policies", names(map.policies.iter().map(|policy| &policy.name).collect())),
            ("nodes", map.nodes.len().into()),
            ("shards", map.shards.len().into()),
            ("operations", map.operations.len().into()),
        ]))
    }
}

fn region_of(region: &pb::Region, map: &pb::ShardMap) -> Value {
    let nodes = map.nodes.iter().filter(|node| node.region == region.name).count();
    Value::Object(object([
        ("name", region.name.clone().into()),
        ("zone", region.zone.clone().into()),
        ("weight", region.weight.unwrap_or(REGION_WEIGHT).into()),
        ("url", region.api_url.clone().into()),
        ("nodes", nodes.into()),
    ]))
}
