//! What a change will make of a resource, by its schema: defaults, what will be known only afterwards, and whether it is another thing.

use super::schema::{Presence, Schema};
use super::value::{Attributes as _, Object, Value};

/// What will be.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// The state afterwards, as far as it is known.
    pub state: Object,
    /// The attributes for whose sake what is there is removed first.
    pub replaces: Vec<&'static str>,
}

/// Plans from the state before (`None`: there is nothing yet), what Terraform proposes (the configuration over the state) and the configuration.
#[must_use]
pub fn plan(schema: &Schema, prior: Option<&Object>, proposed: Object, config: &Object) -> Planned {
    let mut state = proposed;
    for attribute in &schema.attributes {
        if let Presence::Defaulted(default) = &attribute.presence
            && config.value(attribute.name).is_null()
        {
            state.insert(attribute.name.to_owned(), default.clone());
        }
    }
    let mut state = schema.conform(state);
    let Some(prior) = prior else {
        for attribute in &schema.attributes {
            let is_the_clusters = matches!(attribute.presence, Presence::Computed | Presence::OptionalComputed);
            if is_the_clusters && config.value(attribute.name).is_null() {
                state.insert(attribute.name.to_owned(), Value::Unknown);
            }
        }
        return Planned { state, replaces: Vec::new() };
    };
    let prior = schema.conform(prior.clone());
    let changed = |state: &Object, name: &str| state.value(name) != prior.value(name);
    for attribute in &schema.attributes {
        let follows = attribute.follows.iter().any(|other| changed(&state, other));
        if follows && config.value(attribute.name).is_null() {
            state.insert(attribute.name.to_owned(), Value::Unknown);
        }
    }
    let replaces = schema.attributes.iter().filter(|attribute| attribute.replaces && changed(&state, attribute.name));
    let replaces = replaces.map(|attribute| attribute.name).collect();
    Planned { state, replaces }
}

/// The state after an apply: what was planned, and where that was not known, what the cluster says.
#[must_use]
pub fn settled(planned: &Object, found: &Object) -> Object {
    let of = |(name, value): (&String, &Value)| {
        let value = if value.is_known() { value } else { found.value(name) };
        (name.clone(), value.clone())
    };
    planned.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::schema::{Attribute, Type};
    use super::super::value::object;
    use super::*;

    fn schema() -> Schema {
        Schema {
            description: "",
            attributes: vec![
                Attribute::required("name", Type::Text, "").replaces(),
                Attribute::defaulted("weight", Type::Number, 100_u32, ""),
                Attribute::optional("rotation", Type::Text, ""),
                Attribute::computed("records", Type::texts(), "").follows(&["rotation"]),
                Attribute::new("zone", Type::Text, Presence::OptionalComputed, "").replaces(),
            ],
        }
    }

    fn config(name: &str, rotation: Value) -> Object {
        let nothing = [("weight", Value::Null), ("records", Value::Null), ("zone", Value::Null)];
        let mut config = object(nothing);
        config.extend(object([("name", name.into()), ("rotation", rotation)]));
        config
    }

    #[test]
    fn a_new_thing_knows_what_it_was_told() {
        let planned = plan(&schema(), None, config("a", Value::Null), &config("a", Value::Null));
        assert_eq!(planned.state.integer("weight"), Some(100));
        assert_eq!(planned.state.value("records"), &Value::Unknown);
        assert_eq!(planned.state.value("zone"), &Value::Unknown);
        let found = object([("records", Value::texts(["r"])), ("zone", "world".into()), ("weight", 1_u32.into())]);
        let settled = settled(&planned.state, &found);
        assert_eq!((settled.text("zone"), settled.integer("weight")), (Some("world"), Some(100)));
    }

    #[test]
    fn what_follows_a_change_is_not_known_and_what_does_not_stays() {
        let mut prior = config("a", "1".into());
        prior.extend(object([("weight", 100_u32.into()), ("records", Value::texts(["r"])), ("zone", "world".into())]));
        let proposed = |config: Object| -> Object {
            let mut proposed = prior.clone();
            proposed.extend(config.into_iter().filter(|(_, value)| !value.is_null()));
            proposed
        };
        let same = config("a", "1".into());
        let planned = plan(&schema(), Some(&prior), proposed(same.clone()), &same);
        assert_eq!(planned, Planned { state: schema().conform(prior.clone()), replaces: vec![] });
        let rotated = config("a", "2".into());
        let planned = plan(&schema(), Some(&prior), proposed(rotated.clone()), &rotated);
        assert_eq!(planned.state.value("records"), &Value::Unknown);
        assert_eq!((planned.state.text("zone"), planned.replaces.len()), (Some("world"), 0));
        let other = config("b", "1".into());
        assert_eq!(plan(&schema(), Some(&prior), proposed(other.clone()), &other).replaces, ["name"]);
    }
}
