//! The service over a provider in memory: one thing, which may be slow, and may fail half-way.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::super::schema::{Attribute, Type};
use super::super::value::{Attributes as _, object};
use super::*;

/// What there is, and how it behaves.
#[derive(Default)]
struct World {
    thing: Mutex<Option<Object>>,
    slow: bool,
    fails_after: bool,
    begun: Notify,
}

struct Thing;

#[async_trait]
impl Resource<Arc<World>> for Thing {
    fn name(&self) -> &'static str {
        "thing"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "A thing.",
            attributes: vec![
                Attribute::required("name", Type::Text, "Its name.").replaces(),
                Attribute::defaulted("size", Type::Number, 3_u32, "Its size."),
                timeout::attribute(),
                Attribute::computed("mark", Type::Text, "Its mark.").follows(&["size"]),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("a", "its name")
    }

    async fn read(&self, world: &Arc<World>, state: Object) -> Done<Option<Object>> {
        let Some(thing) = world.thing.lock().unwrap().clone() else { return Ok(None) };
        let mut state = state;
        let mark = format!("{} of {:?}", thing.text("name").unwrap(), thing.integer("size").unwrap());
        state.extend(object([("size", thing.value("size").clone()), ("mark", mark.into())]));
        Ok(Some(state))
    }

    async fn create(&self, world: &Arc<World>, planned: &Object) -> Done<()> {
        self.update(world, &Object::new(), planned).await
    }

    fn keeps_what_failed(&self) -> bool {
        true
    }

    async fn update(&self, world: &Arc<World>, _: &Object, planned: &Object) -> Done<()> {
        world.begun.notify_one();
        if world.slow {
            std::future::pending::<()>().await;
        }
        *world.thing.lock().unwrap() = Some(planned.clone());
        if world.fails_after {
            return Err(Diagnostic::error("Half of it", "The rest is missing."));
        }
        Ok(())
    }

    async fn delete(&self, world: &Arc<World>, _: &Object) -> Done<Vec<Diagnostic>> {
        *world.thing.lock().unwrap() = None;
        Ok(vec![Diagnostic::warning("Gone", "It is gone.")])
    }

    fn import(&self, id: &str) -> Done<Object> {
        Ok(object([("name", id.into())]))
    }
}

struct Fake {
    world: Arc<World>,
    resources: Vec<Box<dyn Resource<Arc<World>>>>,
}

impl Provider for Fake {
    type Connection = Arc<World>;

    fn name(&self) -> &'static str {
        "fake"
    }

    fn schema(&self) -> Schema {
        Schema { description: "A fake.", attributes: Vec::new() }
    }

    fn configure(&self, _: &Object) -> Done<Arc<World>> {
        Ok(Arc::clone(&self.world))
    }

    fn resources(&self) -> &[Box<dyn Resource<Arc<World>>>] {
        &self.resources
    }

    fn data_sources(&self) -> &[Box<dyn DataSource<Arc<World>>>] {
        &[]
    }
}

async fn service(world: World) -> (Service<Fake>, Arc<World>) {
    let world = Arc::new(world);
    let fake = Fake { world: Arc::clone(&world), resources: vec![Box::new(Thing)] };
    let service = Service::new(fake, CancellationToken::new());
    let configured = service.configure_provider(Request::new(pb::configure_provider::Request::default())).await;
    assert!(configured.unwrap().into_inner().diagnostics.is_empty());
    (service, world)
}

fn config(size: Value, timeouts: Value) -> Object {
    object([("name", "a".into()), ("size", size), ("timeouts", timeouts), ("mark", Value::Null)])
}

/// As Terraform proposes: the configuration, and where it says nothing what is computed already.
fn proposed(prior: Option<&Object>, config: &Object) -> Object {
    let of = |(name, value): (&String, &Value)| match (value, prior) {
        (Value::Null, Some(prior)) if name == "mark" || name == "size" => (name.clone(), prior.value(name).clone()),
        _ => (name.clone(), value.clone()),
    };
    config.iter().map(of).collect()
}

fn told_of(object: Option<&Object>) -> Option<pb::DynamicValue> {
    Some(dynamic(&object.map_or(Value::Null, |object| Value::Object(object.clone()))))
}

fn plan(service: &Service<Fake>, prior: Option<&Object>, config: &Object) -> Object {
    let planned = service.plan(pb::plan_resource_change::Request {
        type_name: "fake_thing".into(),
        prior_state: told_of(prior),
        proposed_new_state: told_of(Some(&proposed(prior, config))),
        config: told_of(Some(config)),
        ..Default::default()
    });
    let planned = planned.unwrap();
    assert!(planned.diagnostics.is_empty(), "{:?}", planned.diagnostics);
    object_of(planned.planned_state).unwrap()
}

fn object_of(told: Option<pb::DynamicValue>) -> Option<Object> {
    super::object(told).unwrap()
}

async fn apply(
    service: &Service<Fake>,
    prior: Option<&Object>,
    planned: Option<&Object>,
) -> (Option<Object>, Vec<pb::Diagnostic>) {
    let request = pb::apply_resource_change::Request {
        type_name: "fake_thing".into(),
        prior_state: told_of(prior),
        planned_state: told_of(planned),
        ..Default::default()
    };
    let applied = service.apply_resource_change(Request::new(request)).await.unwrap().into_inner();
    (object_of(applied.new_state), applied.diagnostics)
}

async fn read(service: &Service<Fake>, state: &Object) -> Option<Object> {
    let request = pb::read_resource::Request {
        type_name: "fake_thing".into(),
        current_state: told_of(Some(state)),
        ..Default::default()
    };
    object_of(PbProvider::read_resource(service, Request::new(request)).await.unwrap().into_inner().new_state)
}

#[tokio::test]
async fn what_was_applied_shows_no_difference_and_drift_does() {
    let (service, world) = service(World::default()).await;
    let config = config(Value::Null, Value::Null);
    let planned = plan(&service, None, &config);
    assert_eq!((planned.integer("size"), planned.value("mark")), (Some(3), &Value::Unknown));
    let (state, said) = apply(&service, None, Some(&planned)).await;
    let state = state.unwrap();
    assert!(said.is_empty() && state.text("mark") == Some("a of 3"), "{state:?}");
    let state = read(&service, &state).await.unwrap();
    assert_eq!(plan(&service, Some(&state), &config), state);

    world.thing.lock().unwrap().as_mut().unwrap().insert("size".into(), 5_u32.into());
    let drifted = read(&service, &state).await.unwrap();
    let planned = plan(&service, Some(&drifted), &config);
    assert_eq!((drifted.integer("size"), planned.integer("size")), (Some(5), Some(3)));
    assert_eq!(planned.value("mark"), &Value::Unknown);
    let (state, _) = apply(&service, Some(&drifted), Some(&planned)).await;
    assert_eq!(state.unwrap().text("mark"), Some("a of 3"));

    let (gone, said) = apply(&service, Some(&drifted), None).await;
    assert!(gone.is_none() && said.len() == 1, "{said:?}");
    assert_eq!(read(&service, &drifted).await, None, "what is gone is planned anew");
}

#[tokio::test]
async fn what_failed_half_way_is_kept() {
    let (service, _) = service(World { fails_after: true, ..World::default() }).await;
    let planned = plan(&service, None, &config(4_u32.into(), Value::Null));
    let (state, said) = apply(&service, None, Some(&planned)).await;
    assert_eq!(said.first().map(|said| said.summary.as_str()), Some("Half of it"));
    let state = state.unwrap();
    assert_eq!((state.text("name"), state.text("mark")), (Some("a"), Some("a of 4")));
}

#[tokio::test]
async fn waiting_ends_with_the_time_and_with_a_stop() {
    let (service, world) = service(World { slow: true, ..World::default() }).await;
    let timeouts = Value::Object(object([("create", "1s".into()), ("update", Value::Null), ("delete", Value::Null)]));
    let planned = plan(&service, None, &config(Value::Null, timeouts));
    let (state, said) = apply(&service, None, Some(&planned)).await;
    assert!(state.is_none() && said[0].summary.contains("no end in time"), "{said:?}");
    assert!(said[0].detail.contains("more than 1 s") && said[0].detail.contains("next apply takes it up"), "{said:?}");
    // Until the first began, the second cannot have.
    world.begun.notified().await;
    let planned = plan(&service, None, &config(Value::Null, Value::Null));
    let applying = apply(&service, None, Some(&planned));
    let stopping = async {
        world.begun.notified().await;
        service.stop_provider(Request::new(pb::stop_provider::Request {})).await.unwrap();
    };
    let ((state, said), ()) = tokio::join!(applying, stopping);
    assert!(state.is_none() && said[0].summary.contains("stopped waiting"), "{said:?}");
}

#[tokio::test]
async fn states_are_imported_and_old_ones_understood() {
    let (service, _) = service(World::default()).await;
    let request = pb::import_resource_state::Request { type_name: "fake_thing".into(), id: "b".into() };
    let imported = service.import_resource_state(Request::new(request)).await.unwrap().into_inner();
    let state = object_of(imported.imported_resources.into_iter().next().unwrap().state).unwrap();
    assert_eq!((state.text("name"), state.integer("size")), (Some("b"), Some(3)));

    let raw = pb::RawState { json: r#"{"name": "b", "gone": 1}"#.into(), ..Default::default() };
    let request =
        pb::upgrade_resource_state::Request { type_name: "fake_thing".into(), raw_state: Some(raw), version: 0 };
    let upgraded = service.upgrade_resource_state(Request::new(request)).await.unwrap().into_inner();
    let state = object_of(upgraded.upgraded_state).unwrap();
    assert_eq!(state.keys().collect::<Vec<_>>(), ["mark", "name", "size", "timeouts"]);

    let nobody = pb::read_resource::Request { type_name: "fake_other".into(), ..Default::default() };
    let answered = PbProvider::read_resource(&service, Request::new(nobody)).await.unwrap().into_inner();
    assert!(answered.diagnostics[0].summary.contains("fake_other"));
    let broken = pb::DynamicValue { msgpack: vec![0xc1].into(), ..Default::default() };
    let broken = pb::read_resource::Request {
        type_name: "fake_thing".into(),
        current_state: Some(broken),
        ..Default::default()
    };
    let answered = PbProvider::read_resource(&service, Request::new(broken)).await.unwrap().into_inner();
    assert!(answered.diagnostics[0].detail.contains("begins nothing"), "{:?}", answered.diagnostics);
}
