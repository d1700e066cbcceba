//! `postrider_region`: what clients are told of a region.

use async_trait::async_trait;
use postrider_api::limit::{REGION_WEIGHT, REGION_WEIGHT_MAX};
use postrider_api::pb::{self, command::Op};

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Presence, Schema, Type};
use crate::protocol::value::{Attributes as _, Object, object};

pub(super) struct Region;

#[async_trait]
impl Resource<Connection> for Region {
    fn name(&self) -> &'static str {
        "region"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "What clients are told of a region, by DNS and by `GET /v1/regions`. A region that is there is taken over; one that is not is \
                          registered.",
            attributes: vec![
                Attribute::required("name", Type::Text, "Its name.").replaces(),
                Attribute::defaulted(
                    "weight",
                    Type::Number,
                    REGION_WEIGHT,
                    "How much of what is near to it shall go there. 100: its fair share; 50: as if it were twice as far away; 0: it is drained, and \
                     nobody new is sent there.",
                ),
                Attribute::optional(
                    "url",
                    Type::Text,
                    "Where clients reach its REST, `https://HOST` or `https://HOST:PORT`. Without it, nobody is told of it.",
                ),
                Attribute::new(
                    "zone",
                    Type::Text,
                    Presence::OptionalComputed,
                    "Its residency zone, for ever. Needed where the region is not there yet.",
                )
                .replaces(),
                Attribute::new(
                    "store_address",
                    Type::Text,
                    Presence::OptionalComputed,
                    "`HOST:PORT` of its object store. Needed where the region is not there yet.",
                ),
                super::forget_on_destroy(
                    "Destroying it leaves the region as it is; otherwise it is removed, which wants it empty.",
                ),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("seoul", "the region's name")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        if config.integer("weight").is_some_and(|weight| !(0..=i64::from(REGION_WEIGHT_MAX)).contains(&weight)) {
            wrong.push(
                Diagnostic::error(
                    "Not a weight",
                    format!("0 to {REGION_WEIGHT_MAX} are possible; 100 is a fair share."),
                )
                .at("weight"),
            );
        }
        wrong
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let map = connection.map().await?;
        Ok(find(&map, &state).map(|region| state_of(region, &state)))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        let name = planned.text("name").unwrap_or_default();
        let map = connection.map().await?;
        let (zone, store) = (planned.text("zone"), planned.text("store_address"));
        match (find(&map, planned), zone, store) {
            (Some(region), Some(zone), _) if region.zone != zone => {
                let detail = format!("Region {name} is in zone {}, and stays there.", region.zone);
                return Err(Diagnostic::error("Another zone", detail).at("zone"));
            }
            (Some(_), ..) => {}
            (None, Some(zone), Some(store)) => register(connection, name, zone, store).await?,
            (None, ..) => {
                let detail = format!(
                    "There is no region {name} yet: give zone and store_address to register it, or correct its name."
                );
                return Err(Diagnostic::error("No such region", detail).at("name"));
            }
        }
        self.update(connection, &Object::new(), planned).await
    }

    async fn update(&self, connection: &Connection, _: &Object, planned: &Object) -> Done<()> {
        let map = connection.map().await?;
        let name = planned.text("name").unwrap_or_default();
        let gone = || Diagnostic::error("No such region", format!("Region {name} is gone: plan again."));
        let region = find(&map, planned).ok_or_else(gone)?;
        if let Some(store) = planned.text("store_address").filter(|store| *store != region.store_address) {
            register(connection, name, &region.zone, store).await?;
        }
        let weight = planned.integer("weight").and_then(|weight| u32::try_from(weight).ok());
        let update = pb::UpdateRegion {
            region: name.to_owned(),
            api_url: Some(planned.text("url").unwrap_or_default().to_owned()),
            weight,
        };
        connection.session().await?.place("region.update", target(name), Op::UpdateRegion(update)).await?;
        Ok(())
    }

    async fn delete(&self, connection: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        if super::forgets(prior) {
            return Ok(Vec::new());
        }
        let name = prior.text("name").unwrap_or_default();
        let remove = Op::RemoveRegion(pb::RemoveRegion { region: name.to_owned() });
        let removed = connection.session().await?.place("region.remove", target(name), remove).await;
        removed.map(|_| Vec::new()).map_err(|error| {
            let detail = format!("{error:#}. `forget_on_destroy = true`, applied before, leaves the region as it is.");
            Diagnostic::error(format!("Region {name} is not removed"), detail)
        })
    }

    fn import(&self, id: &str) -> Done<Object> {
        Ok(object([("name", id.into())]))
    }
}

fn target(name: &str) -> [String; 1] {
    [format!("region {name}")]
}

fn find<'m>(map: &'m pb::ShardMap, state: &Object) -> Option<&'m pb::Region> {
    let name = state.text("name").unwrap_or_default();
    map.regions.iter().find(|region| region.name == name)
}

async fn register(connection: &Connection, name: &str, zone: &str, store: &str) -> Done<()> {
    let region = pb::Region {
        name: name.to_owned(),
        zone: zone.to_owned(),
        store_address: store.to_owned(),
        ..pb::Region::default()
    };
    let register = Op::RegisterRegion(pb::RegisterRegion { region: Some(region) });
    connection.session().await?.place("region.register", target(name), register).await?;
    Ok(())
}

fn state_of(region: &pb::Region, before: &Object) -> Object {
    let mut state = before.clone();
    state.extend(object([
        ("name", region.name.clone().into()),
        ("weight", region.weight.unwrap_or(REGION_WEIGHT).into()),
        ("url", super::text_or_null(&region.api_url, before.value("url"))),
        ("zone", region.zone.clone().into()),
        ("store_address", region.store_address.clone().into()),
    ]));
    state
}
