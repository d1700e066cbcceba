//! Checks a JSON value against a schema of an OpenAPI document: the part of JSON Schema that the document uses.

use serde_json::Value;

/// What is wrong with `value`, with its place; `None` when nothing is. Members that no schema names are wrong, too, except
/// in a problem document, and where the schema names none at all.
pub(crate) fn mismatch(document: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let path = reference.strip_prefix('#').expect("references stay within the document");
        let target = document.pointer(path).unwrap_or_else(|| panic!("{reference} is not in the document"));
        return mismatch(document, target, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let all: Vec<_> = choices.iter().map(|choice| mismatch(document, choice, value, at)).collect();
        let fits = all.iter().any(Option::is_none);
        return (!fits).then(|| format!("{at}: none of {all:?}"));
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return all_of(document, parts, value, at);
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Some(format!("{at}: {value} is not among {values:?}"));
    }
    type_mismatch(schema, value, at).or_else(|| match value {
        Value::Object(_) => object(document, schema, value, at, true),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| mismatch(document, &schema["items"], item, &format!("{at}/{index}"))),
        Value::String(text) => string(schema, text, at),
        _ => None,
    })
}

fn type_mismatch(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    (!types.contains(&found)).then(|| format!("{at}: {found} where {types:?} is wanted"))
}

fn object(document: &Value, schema: &Value, value: &Value, at: &str, strict: bool) -> Option<String> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        if value.get(name).is_none() {
            return Some(format!("{at}: {name} is missing"));
        }
    }
    let properties = schema["properties"].as_object();
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => {
                if let Some(wrong) = mismatch(document, schema, member, &at) {
                    return Some(wrong);
                }
            }
            None if strict && properties.is_some() && !at.starts_with("problem/") => {
                return Some(format!("{at}: the schema does not name it"));
            }
            None => {}
        }
    }
    None
}

/// Each part has to fit; each member has to be named by one of them.
fn all_of(document: &Value, parts: &[Value], value: &Value, at: &str) -> Option<String> {
    let resolve = |part: &Value| match part["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).expect("references stay within the document").clone(),
        None => part.clone(),
    };
    let parts: Vec<Value> = parts.iter().map(resolve).collect();
    for part in &parts {
        if let Some(wrong) = object(document, part, value, at, false) {
            return Some(wrong);
        }
    }
    let named = |name: &String| parts.iter().any(|part| part["properties"].get(name).is_some());
    let unnamed = value.as_object()?.keys().find(|name| !named(name))?;
    Some(format!("{at}/{unnamed}: the schema does not name it"))
}

fn string(schema: &Value, text: &str, at: &str) -> Option<String> {
    let is_hex =
        |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let fits = match (schema["pattern"].as_str(), schema["format"].as_str()) {
        (Some("^[0-9a-f]{32}$"), _) => is_hex(text),
        (Some("^(0|[1-9][0-9]{0,9})$"), _) => text.parse::<u32>().is_ok_and(|number| number.to_string() == text),
        (Some("^#[0-9a-f]{6}$"), _) => text.strip_prefix('#').is_some_and(|digits| {
            digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        }),
        (Some(words), _) if alternatives(words).is_some() => {
            alternatives(words).is_some_and(|mut words| words.any(|word| word == text))
        }
        (Some(other), _) => panic!("{at}: the test does not know the pattern {other}"),
        (None, Some("date-time")) => text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok(),
        (None, _) => true,
    };
    (!fits).then(|| format!("{at}: {text:?} has not the form of {schema}"))
}

/// The words of `^(one|other)$`.
fn alternatives(pattern: &str) -> Option<impl Iterator<Item = &str>> {
    let words = pattern.strip_prefix("^(")?.strip_suffix(")$")?;
    words.bytes().all(|b| b.is_ascii_lowercase() || b"_-|".contains(&b)).then(|| words.split('|'))
}

#[test]
fn finds_what_is_wrong() {
    let document = serde_json::json!({"components": {"schemas": {"A": {
        "type": "object", "required": ["id"],
        "properties": {"id": {"type": "string"}, "more": {"oneOf": [{"type": "null"}, {"$ref": "#/components/schemas/A"}]}}
    }}}});
    let schema = serde_json::json!({"$ref": "#/components/schemas/A"});
    let wrong = |value: Value| mismatch(&document, &schema, &value, "v");
    assert_eq!(wrong(serde_json::json!({"id": "a", "more": {"id": "b"}})), None);
    assert_eq!(wrong(serde_json::json!({"id": "a", "more": null})), None);
    for bad in [
        serde_json::json!({}),
        serde_json::json!({"id": 7}),
        serde_json::json!({"id": "a", "x": 1}),
        serde_json::json!({"id": "a", "more": {}}),
        serde_json::json!([]),
    ] {
        assert!(wrong(bad.clone()).is_some(), "{bad}");
    }
}
