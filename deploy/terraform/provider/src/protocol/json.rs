//! Values as JSON: states as Terraform stores them, and values that it sends so.

use super::msgpack::number;
use super::value::Value;

/// A value; JSON knows nothing that is not known.
pub(super) fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(told) => match told.as_i64() {
            Some(integer) => Value::Integer(integer),
            None => told.as_f64().map_or(Value::Null, number),
        },
        serde_json::Value::String(text) => Value::Text(text.clone()),
        serde_json::Value::Array(items) => Value::List(items.iter().map(value).collect()),
        serde_json::Value::Object(members) => {
            Value::Object(members.iter().map(|(key, member)| (key.clone(), value(member))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read() {
        let json = serde_json::json!({ "id": 7, "half": 0.5, "list": ["a", null], "yes": true });
        let Value::Object(object) = value(&json) else { panic!("an object") };
        assert_eq!(object["id"], Value::Integer(7));
        assert_eq!(object["half"], Value::Float(0.5));
        assert_eq!(object["list"], Value::List(vec![Value::from("a"), Value::Null]));
    }
}
