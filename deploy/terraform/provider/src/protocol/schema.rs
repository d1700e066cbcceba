//! Schemas: which attributes there are, of which types, and what becomes of those that nobody has set.

use serde_json::json;

use super::msgpack;
use super::pb::provider as pb;
use super::value::{Attributes as _, Object, Value};

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A number.
    Number,
    /// A string.
    Text,
    /// Values in an order.
    List(Box<Type>),
    /// Values without an order, each once.
    Set(Box<Type>),
    /// Values by keys.
    Map(Box<Type>),
    /// One of each.
    Object(Vec<(&'static str, Type)>),
    /// An object some of whose attributes may be left out.
    Nested(Vec<Attribute>),
    /// A list of such objects.
    NestedList(Vec<Attribute>),
}

impl Type {
    /// A list of texts.
    #[must_use]
    pub fn texts() -> Self {
        Self::List(Box::new(Self::Text))
    }

    /// A set of texts.
    #[must_use]
    pub fn set_of_texts() -> Self {
        Self::Set(Box::new(Self::Text))
    }

    /// A list of objects.
    #[must_use]
    pub fn objects(attributes: &[(&'static str, Type)]) -> Self {
        Self::List(Box::new(Self::Object(attributes.to_vec())))
    }

    /// As Terraform writes types; null of what is told in another way.
    fn json(&self) -> serde_json::Value {
        match self {
            Self::Bool => json!("bool"),
            Self::Number => json!("number"),
            Self::Text => json!("string"),
            Self::List(of) => json!(["list", of.json()]),
            Self::Set(of) => json!(["set", of.json()]),
            Self::Map(of) => json!(["map", of.json()]),
            Self::Object(attributes) => {
                let attributes: serde_json::Map<String, serde_json::Value> =
                    attributes.iter().map(|(name, of)| ((*name).to_owned(), of.json())).collect();
                json!(["object", attributes])
            }
            Self::Nested(_) | Self::NestedList(_) => serde_json::Value::Null,
        }
    }

    fn nested(&self) -> Option<(&[Attribute], pb::schema::object::NestingMode)> {
        match self {
            Self::Nested(attributes) => Some((attributes, pb::schema::object::NestingMode::Single)),
            Self::NestedList(attributes) => Some((attributes, pb::schema::object::NestingMode::List)),
            _ => None,
        }
    }
}

/// Who sets an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Presence {
    /// The configuration has to.
    Required,
    /// The configuration may.
    Optional,
    /// The configuration may; otherwise this.
    Defaulted(Value),
    /// The configuration may; otherwise it is as the cluster has it.
    OptionalComputed,
    /// The cluster alone.
    Computed,
}

/// An attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Type,
    /// Who sets it.
    pub presence: Presence,
    /// What it is, Markdown.
    pub description: &'static str,
    /// It is shown nowhere.
    pub sensitive: bool,
    /// Another value is another thing: the one that is there is removed first.
    pub replaces: bool,
    /// It will be another when one of these is.
    pub follows: &'static [&'static str],
}

impl Attribute {
    /// An attribute.
    #[must_use]
    pub fn new(name: &'static str, kind: Type, presence: Presence, description: &'static str) -> Self {
        Self { name, kind, presence, description, sensitive: false, replaces: false, follows: &[] }
    }

    /// One that the configuration has to set.
    #[must_use]
    pub fn required(name: &'static str, kind: Type, description: &'static str) -> Self {
        Self::new(name, kind, Presence::Required, description)
    }

    /// One that it may set.
    #[must_use]
    pub fn optional(name: &'static str, kind: Type, description: &'static str) -> Self {
        Self::new(name, kind, Presence::Optional, description)
    }

    /// One that it may set; otherwise `value`.
    #[must_use]
    pub fn defaulted(name: &'static str, kind: Type, value: impl Into<Value>, description: &'static str) -> Self {
        Self::new(name, kind, Presence::Defaulted(value.into()), description)
    }

    /// One that the cluster sets.
    #[must_use]
    pub fn computed(name: &'static str, kind: Type, description: &'static str) -> Self {
        Self::new(name, kind, Presence::Computed, description)
    }

    /// The same, shown nowhere.
    #[must_use]
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// The same, of which another value is another thing.
    #[must_use]
    pub fn replaces(mut self) -> Self {
        self.replaces = true;
        self
    }

    /// The same, which will be another when one of these is.
    #[must_use]
    pub fn follows(mut self, others: &'static [&'static str]) -> Self {
        self.follows = others;
        self
    }

    fn to_pb(&self) -> pb::schema::Attribute {
        let nested_type = self.kind.nested().map(|(attributes, nesting)| pb::schema::Object {
            attributes: attributes.iter().map(Self::to_pb).collect(),
            nesting: nesting.into(),
        });
        let kind = match nested_type {
            Some(_) => Vec::new(),
            None => self.kind.json().to_string().into_bytes(),
        };
        pb::schema::Attribute {
            name: self.name.to_owned(),
            r#type: kind.into(),
            nested_type,
            description: self.description.to_owned(),
            description_kind: pb::StringKind::Markdown.into(),
            required: self.presence == Presence::Required,
            optional: matches!(self.presence, Presence::Optional | Presence::OptionalComputed | Presence::Defaulted(_)),
            computed: matches!(self.presence, Presence::Computed | Presence::OptionalComputed | Presence::Defaulted(_)),
            sensitive: self.sensitive,
            ..pb::schema::Attribute::default()
        }
    }
}

/// Of a provider, a resource or a data source.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// What it is, Markdown.
    pub description: &'static str,
    /// In the order of the documentation.
    pub attributes: Vec<Attribute>,
}

impl Schema {
    /// A state of this schema, whatever an older one lacked or had beside it; sets in one order, so that two of them can be compared.
    #[must_use]
    pub fn conform(&self, mut object: Object) -> Object {
        let of = |attribute: &Attribute| {
            let mut value = object.remove(attribute.name).unwrap_or(Value::Null);
            if let (Type::Set(_), Value::List(items)) = (&attribute.kind, &mut value) {
                items.sort_by_cached_key(msgpack::encode);
                items.dedup();
            }
            (attribute.name.to_owned(), value)
        };
        self.attributes.iter().map(of).collect()
    }

    /// What is null and has a default, with it.
    #[must_use]
    pub fn with_defaults(&self, mut object: Object) -> Object {
        for attribute in &self.attributes {
            if let Presence::Defaulted(default) = &attribute.presence
                && object.value(attribute.name).is_null()
            {
                object.insert(attribute.name.to_owned(), default.clone());
            }
        }
        self.conform(object)
    }

    pub(super) fn to_pb(&self) -> pb::Schema {
        let block = pb::schema::Block {
            attributes: self.attributes.iter().map(Attribute::to_pb).collect(),
            description: self.description.to_owned(),
            description_kind: pb::StringKind::Markdown.into(),
            ..pb::schema::Block::default()
        };
        pb::Schema { version: 0, block: Some(block) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::object;
    use super::*;

    #[test]
    fn types_are_told_as_terraform_does() {
        let objects = Type::objects(&[("name", Type::Text), ("shards", Type::Set(Box::new(Type::Number)))]);
        assert_eq!(objects.json().to_string(), r#"["list",["object",{"name":"string","shards":["set","number"]}]]"#);
        let nested =
            Attribute::optional("timeouts", Type::Nested(vec![Attribute::optional("create", Type::Text, "")]), "");
        let told = nested.to_pb();
        assert!(told.r#type.is_empty() && told.nested_type.is_some_and(|nested| nested.attributes.len() == 1));
        let defaulted = Attribute::defaulted("drain", Type::Bool, false, "").to_pb();
        assert!(defaulted.optional && defaulted.computed && !defaulted.required);
    }

    #[test]
    fn states_conform() {
        let schema = Schema {
            description: "",
            attributes: vec![
                Attribute::optional("regions", Type::set_of_texts(), ""),
                Attribute::defaulted("weight", Type::Number, 100_u32, ""),
            ],
        };
        let old = object([("regions", Value::texts(["b", "a"])), ("gone", Value::Null)]);
        let conformed = schema.conform(old.clone());
        assert_eq!(conformed, object([("regions", Value::texts(["a", "b"])), ("weight", Value::Null)]));
        assert_eq!(schema.with_defaults(old).integer("weight"), Some(100));
    }
}
