//! `postrider_plan`: what should move, and why.

use std::collections::BTreeSet;

use async_trait::async_trait;
use postrider_balance::limits::Limits;
use postrider_balance::step::Step;
use postrider_operator::plan;

use crate::connection::Connection;
use crate::protocol::resource::{DataSource, Done};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, Value, object};

pub(super) struct Plan;

#[async_trait]
impl DataSource<Connection> for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }

    fn schema(&self) -> Schema {
        let step = &[("shard", Type::Number), ("priority", Type::Text), ("change", Type::Text), ("reason", Type::Text)];
        Schema {
            description: "What should move, and why, by what the nodes say now. Nothing is done: `postrider_placement` does it.",
            attributes: vec![
                Attribute::defaulted(
                    "whole",
                    Type::Bool,
                    false,
                    "All of it, and not only what may be under way at a time.",
                ),
                Attribute::computed("is_good", Type::Bool, "Whether all is where it should be."),
                Attribute::computed("steps", Type::objects(step), "The most urgent first."),
                Attribute::computed(
                    "blocked",
                    Type::texts(),
                    "What is wrong and stays so, the first few, with the reason.",
                ),
                Attribute::computed("waiting_shards", Type::Number, "Shards that wait for nodes that do not answer."),
                Attribute::computed("silent_nodes", Type::List(Box::new(Type::Number)), "Nodes that do not answer."),
            ],
        }
    }

    async fn read(&self, connection: &Connection, config: &Object) -> Done<Object> {
        let map = connection.map().await?;
        let limits = Limits::default();
        let limits = if config.flag("whole").unwrap_or(false) { limits.unbounded() } else { limits };
        let (planned, silent) =
            plan::make(&connection.session().await?.router, &map, &BTreeSet::new(), &limits).await?;
        let blocked = planned.blocked.iter().map(|blocked| format!("shard {}: {}", blocked.shard, blocked.reason));
        Ok(object([
            ("whole", config.value("whole").clone()),
            ("is_good", plan::is_good(&planned).into()),
            ("steps", Value::List(planned.steps.iter().map(step_of).collect())),
            ("blocked", Value::texts(blocked)),
            ("waiting_shards", planned.waiting_shards.into()),
            ("silent_nodes", Value::List(silent.into_iter().map(Value::from).collect())),
        ]))
    }
}

fn step_of(step: &Step) -> Value {
    Value::Object(object([
        ("shard", step.shard.0.into()),
        ("priority", step.priority.to_string().into()),
        ("change", step.change.to_string().into()),
        ("reason", step.reason.to_string().into()),
    ]))
}
