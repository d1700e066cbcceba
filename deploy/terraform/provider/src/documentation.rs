//! The documentation of the schema, in the form that Terraform's registry shows: made from what Terraform itself is told.

use std::collections::BTreeMap;

use crate::protocol::resource::Provider;
use crate::protocol::schema::{Attribute, Presence, Schema, Type};
use crate::provider::PostriderProvider;

/// All pages, by their paths below the provider's `docs`. `example` gives the configuration that a page shows, by the same path without its end.
pub fn pages(example: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
    let provider = PostriderProvider::new();
    let name = provider.name();
    let mut pages = BTreeMap::new();
    let index = Page { kind: "Provider", name: name.to_owned(), schema: provider.schema(), import: None };
    pages.insert("index.md".to_owned(), index.render(example("index")));
    for resource in provider.resources() {
        let path = format!("resources/{}", resource.name());
        let full = format!("{name}_{}", resource.name());
        let page = Page { kind: "Resource", name: full, schema: resource.schema(), import: Some(resource.import_id()) };
        pages.insert(format!("{path}.md"), page.render(example(&path)));
    }
    for source in provider.data_sources() {
        let path = format!("data-sources/{}", source.name());
        let page = Page {
            kind: "Data Source",
            name: format!("{name}_{}", source.name()),
            schema: source.schema(),
            import: None,
        };
        pages.insert(format!("{path}.md"), page.render(example(&path)));
    }
    pages
}

struct Page {
    kind: &'static str,
    name: String,
    schema: Schema,
    import: Option<(&'static str, &'static str)>,
}

impl Page {
    fn render(&self, example: Option<String>) -> String {
        let Self { kind, name, schema, import } = self;
        let description = schema.description;
        // The registry's front matter wants plain text.
        let first = description.split(['.', ':']).next().unwrap_or_default().replace('`', "");
        let mut text = format!(
            "---\npage_title: \"{name} {kind}\"\ndescription: |-\n  {first}.\n---\n\n# {name} ({kind})\n\n{description}\n"
        );
        if let Some(example) = example {
            text += &format!("\n## Example Usage\n\n```terraform\n{}\n```\n", example.trim_end());
        }
        text += "\n## Schema\n";
        let mut nested = Vec::new();
        let of = |wanted: fn(&Presence) -> bool| {
            schema.attributes.iter().filter(move |attribute| wanted(&attribute.presence))
        };
        let is_optional = |presence: &Presence| {
            matches!(presence, Presence::Optional | Presence::OptionalComputed | Presence::Defaulted(_))
        };
        for (title, attributes) in [
            ("Required", of(|presence| *presence == Presence::Required).collect::<Vec<_>>()),
            ("Optional", of(is_optional).collect()),
            ("Read-Only", of(|presence| *presence == Presence::Computed).collect()),
        ] {
            if attributes.is_empty() {
                continue;
            }
            text += &format!("\n### {title}\n\n");
            for attribute in attributes {
                text += &line(attribute);
                nested.extend(inner(&attribute.kind).map(|inner| (attribute.name, inner)));
            }
        }
        for (name, attributes) in nested {
            text += &format!("\n<a id=\"nested--{name}\"></a>\n### Nested Schema for `{name}`\n\n");
            attributes.iter().for_each(|attribute| text += &line(attribute));
        }
        if let Some((id, what)) = import {
            text += &format!("\n## Import\n\nBy {what}:\n\n```shell\nterraform import {name}.example {id}\n```\n");
        }
        text
    }
}

fn inner(kind: &Type) -> Option<&[Attribute]> {
    match kind {
        Type::Nested(attributes) | Type::NestedList(attributes) => Some(attributes),
        _ => None,
    }
}

fn line(attribute: &Attribute) -> String {
    let Attribute { name, kind, presence, description, sensitive, replaces, .. } = attribute;
    let mut words = vec![type_name(kind)];
    if *sensitive {
        words.push("Sensitive".to_owned());
    }
    let mut text = format!("- `{name}` ({}) {description}", words.join(", "));
    if let Presence::Defaulted(value) = presence {
        text += &format!(" Default: `{}`.", written(value));
    }
    if *replaces {
        text += " Another value replaces the resource.";
    }
    if inner(kind).is_some() {
        text += &format!(" (see [below](#nested--{name}))");
    }
    text + "\n"
}

fn written(value: &crate::protocol::value::Value) -> String {
    use crate::protocol::value::Value;
    match value {
        Value::Null | Value::Unknown => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Text(text) => format!("\"{text}\""),
        Value::List(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members = members.iter().map(|(key, member)| format!("{key} = {}", written(member)));
            format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

fn type_name(kind: &Type) -> String {
    match kind {
        Type::Bool => "Boolean".to_owned(),
        Type::Number => "Number".to_owned(),
        Type::Text => "String".to_owned(),
        Type::List(of) => format!("List of {}", type_name(of)),
        Type::Set(of) => format!("Set of {}", type_name(of)),
        Type::Map(of) => format!("Map of {}", type_name(of)),
        Type::Object(attributes) => {
            let attributes = attributes.iter().map(|(name, of)| format!("`{name}` {}", type_name(of)));
            format!("Object: {}", attributes.collect::<Vec<_>>().join(", "))
        }
        Type::Nested(_) => "Attributes".to_owned(),
        Type::NestedList(_) => "Attributes List".to_owned(),
    }
}
