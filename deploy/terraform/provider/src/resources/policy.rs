//! `postrider_policy`: what shards, and the new accounts of domains, are held to.

use async_trait::async_trait;
use postrider_api::pb::{self, command::Op};
use postrider_operator::growth;

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Presence, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, object};

/// Replicas of a shard: odd, so that a majority is one.
const REPLICAS: [i64; 4] = [1, 3, 5, 7];

pub(super) struct Policy;

#[async_trait]
impl Resource<Connection> for Policy {
    fn name(&self) -> &'static str {
        "policy"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "What shards, and the new accounts of domains, are held to: how many replicas, in which regions. What shards of a changed \
                          policy lack, the balancer puts right (`postrider_placement`).",
            attributes: vec![
                Attribute::required("name", Type::Text, "Its name.").replaces(),
                Attribute::new(
                    "zone",
                    Type::Text,
                    Presence::OptionalComputed,
                    "The residency zone, which everything of its shards stays in. May be left out where there is one.",
                )
                .replaces(),
                Attribute::defaulted("replicas", Type::Number, 3_u32, "Replicas of each shard: 1, 3, 5 or 7."),
                Attribute::optional(
                    "regions",
                    Type::set_of_texts(),
                    "The regions that may hold one. Without it, every region of the zone.",
                ),
                Attribute::defaulted(
                    "spread",
                    Type::Text,
                    "regions",
                    "What has at most one replica: `regions`, or `domains` (a failure domain, of which a region may have several).",
                ),
                Attribute::optional(
                    "home",
                    Type::Text,
                    "The region where primaries should be. Without it, where each is at home, and evenly.",
                ),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("near", "the policy's name")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        if config.integer("replicas").is_some_and(|replicas| !REPLICAS.contains(&replicas)) {
            wrong.push(
                Diagnostic::error("Not a number of replicas", "1, 3, 5 or 7 are possible: a majority has to be one.")
                    .at("replicas"),
            );
        }
        if config.text("spread").is_some_and(|spread| spread_of(spread).is_none()) {
            wrong.push(Diagnostic::error("Not a spread", "`regions` or `domains` is wanted.").at("spread"));
        }
        wrong
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        let name = state.text("name").unwrap_or_default();
        Ok(map.policies.iter().find(|policy| policy.name == name).map(|policy| state_of(policy, &state)))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        let map = connection.map().await?;
        let wanted = policy(planned, &map)?;
        match map.policies.iter().find(|known| known.name == wanted.name) {
            // Made by an apply that was interrupted.
            Some(known) if *known == wanted => Ok(()),
            Some(_) => Err(super::exists(&format!("Policy {}", wanted.name), &wanted.name, "in another form")),
            None => set(connection, wanted).await,
        }
    }

    async fn update(&self, connection: &Connection, _: &Object, planned: &Object) -> Done<()> {
        let wanted = policy(planned, &connection.map().await?)?;
        set(connection, wanted).await
    }

    async fn delete(&self, connection: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        let name = prior.text("name").unwrap_or_default().to_owned();
        let remove = Op::RemovePolicy(pb::RemovePolicy { name: name.clone() });
        let removed = connection.session().await?.place("policy.remove", target(&name), remove).await;
        removed.map(|_| Vec::new()).map_err(|error| {
            let detail = format!("{error:#}. Hold what is held to it to another policy first (`policy` of postrider_shards and postrider_domain).");
            Diagnostic::error(format!("Policy {name} is not removed"), detail)
        })
    }

    fn import(&self, id: &str) -> Done<Object> {
        Ok(object([("name", id.into())]))
    }
}

fn target(name: &str) -> [String; 1] {
    [format!("policy {name}")]
}

fn spread_of(word: &str) -> Option<pb::Spread> {
    match word {
        "regions" => Some(pb::Spread::Regions),
        "domains" => Some(pb::Spread::Domains),
        _ => None,
    }
}

async fn set(connection: &Connection, policy: pb::Policy) -> Done<()> {
    let targets = target(&policy.name);
    let set = Op::SetPolicy(pb::SetPolicy { policy: Some(policy) });
    connection.session().await?.place("policy.set", targets, set).await?;
    Ok(())
}

fn policy(planned: &Object, map: &pb::ShardMap) -> Done<pb::Policy> {
    let mut regions = planned.list_of_texts("regions").unwrap_or_default();
    regions.sort_unstable();
    Ok(pb::Policy {
        name: planned.text("name").unwrap_or_default().to_owned(),
        zone: growth::zone(map, planned.text("zone"))?,
        replicas: planned.integer("replicas").and_then(|replicas| u32::try_from(replicas).ok()).unwrap_or_default(),
        regions,
        spread: planned.text("spread").and_then(spread_of).unwrap_or_default().into(),
        home: planned.text("home").unwrap_or_default().to_owned(),
    })
}

fn state_of(policy: &pb::Policy, before: &Object) -> Object {
    let mut regions = policy.regions.clone();
    regions.sort_unstable();
    let spread = match policy.spread() {
        pb::Spread::Regions => "regions",
        pb::Spread::Domains => "domains",
    };
    object([
        ("name", policy.name.clone().into()),
        ("zone", policy.zone.clone().into()),
        ("replicas", policy.replicas.into()),
        ("regions", super::set_or_null(regions, before.value("regions"))),
        ("spread", spread.into()),
        ("home", super::text_or_null(&policy.home, before.value("home"))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::value::Value;

    #[test]
    fn a_policy_is_the_same_there_and_back() {
        let map = pb::ShardMap { zones: vec![pb::Zone { name: "world".into(), id: 1 }], ..Default::default() };
        let planned = object([
            ("name", "near".into()),
            ("zone", Value::Unknown),
            ("replicas", 5_u32.into()),
            ("regions", Value::texts(["seoul", "virginia"])),
            ("spread", "domains".into()),
            ("home", Value::Null),
        ]);
        let made = policy(&planned, &map).unwrap();
        let state = state_of(&made, &planned);
        assert_eq!(state.text("zone"), Some("world"));
        for attribute in ["name", "replicas", "regions", "spread", "home"] {
            assert_eq!(state.value(attribute), planned.value(attribute), "{attribute}");
        }
        let wrong = object([("replicas", 2_u32.into()), ("spread", "racks".into())]);
        assert_eq!(Policy.check(&wrong).len(), 2);
        assert!(Policy.check(&object([("replicas", Value::Unknown)])).is_empty());
    }
}
