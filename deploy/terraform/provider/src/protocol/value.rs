//! Values of Terraform's type system, without their types: those are the schema's.

use std::collections::BTreeMap;

/// An object or a map, by the names of its attributes or its keys.
pub type Object = BTreeMap<String, Value>;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// There is none.
    Null,
    /// It will be known when something else has been applied. What is known of it already (a refinement) is not used here.
    Unknown,
    /// `true` or `false`.
    Bool(bool),
    /// A number without a fraction.
    Integer(i64),
    /// Any other number.
    Float(f64),
    /// A string.
    Text(String),
    /// A list, a set or a tuple.
    List(Vec<Value>),
    /// An object or a map.
    Object(Object),
}

impl Value {
    /// Whether it is there, known or not.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether all of it is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        match self {
            Self::Unknown => false,
            Self::List(items) => items.iter().all(Self::is_known),
            Self::Object(object) => object.values().all(Self::is_known),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::Float(_) | Self::Text(_) => true,
        }
    }

    /// A list of texts.
    pub fn texts<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(|item| Self::Text(item.into())).collect())
    }

    /// A text; none where it is empty.
    #[must_use]
    pub fn text_or_null(text: &str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text.to_owned()) }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<u64> for Value {
    /// Ids and counts of this cluster never come near to 2^63.
    fn from(number: u64) -> Self {
        Self::Integer(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

/// An object of these attributes.
pub fn object<const N: usize>(attributes: [(&str, Value); N]) -> Object {
    attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What an attribute holds, where it is known and there: the schema has made sure of its type.
pub trait Attributes {
    /// The attribute; null where there is none of the name.
    fn value(&self, name: &str) -> &Value;

    /// A text.
    fn text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number without a fraction.
    fn integer(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Value::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// `true` or `false`.
    fn flag(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The texts of a list or a set.
    fn list_of_texts(&self, name: &str) -> Option<Vec<String>> {
        let Value::List(items) = self.value(name) else { return None };
        Some(
            items
                .iter()
                .filter_map(|item| if let Value::Text(text) = item { Some(text.clone()) } else { None })
                .collect(),
        )
    }

    /// An object or a map.
    fn nested(&self, name: &str) -> Option<&Object> {
        match self.value(name) {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl Attributes for Object {
    fn value(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&Value::Null)
    }
}
