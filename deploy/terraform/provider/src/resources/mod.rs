//! What the provider keeps as it is configured: one file for each, behind one trait.

mod account;
mod domain;
mod node;
mod placement;
mod policy;
mod region;
mod shards;

use postrider_api::pb::command::Op;
use postrider_operator::operation::{Look, OperationSummary};

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Type};
use crate::protocol::value::{Attributes as _, Object, Value};

/// All of them, in the order of the documentation.
pub(crate) fn all() -> Vec<Box<dyn Resource<Connection>>> {
    vec![
        Box::new(account::Account),
        Box::new(domain::Domain),
        Box::new(node::Node),
        Box::new(placement::Placement),
        Box::new(policy::Policy),
        Box::new(region::Region),
        Box::new(shards::Shards),
    ]
}

/// The attribute of what may be left behind.
fn forget_on_destroy(description: &'static str) -> Attribute {
    Attribute::defaulted("forget_on_destroy", Type::Bool, false, description)
}

fn forgets(prior: &Object) -> bool {
    prior.flag("forget_on_destroy").unwrap_or(false)
}

/// Has placement record a change, and waits until it is done, with its progress in the log. What runs already is taken up.
async fn carry_out(connection: &Connection, action: &str, targets: Vec<String>, op: Op) -> Done<()> {
    let session = connection.session().await?;
    match session.begin(action, targets, op).await? {
        Some(id) => until_done(connection, id).await,
        None => Ok(()),
    }
}

/// Waits until an operation is done, with its progress in the log.
async fn until_done(connection: &Connection, id: u64) -> Done<()> {
    let session = connection.session().await?;
    tracing::info!(operation = id, "waiting for operation {id}");
    Ok(session.until_done(id, &mut |look| tell(&look)).await?)
}

/// Progress, as Terraform's log shows it.
fn tell(look: &Look<'_>) {
    match look {
        Look::At(operation) => {
            let OperationSummary { of, step, .. } = OperationSummary::of(operation);
            let waits = if operation.waits_for.is_empty() {
                String::new()
            } else {
                format!(" (waits: {})", operation.waits_for)
            };
            tracing::info!(operation = operation.id, "{of}: {step}{waits}");
        }
        Look::Unanswered(id, error) => tracing::warn!(operation = id, "{error:#}; it goes on"),
    }
}

/// As the cluster has a list that may be left out: none, an empty one and null are the same there.
fn set_or_null(items: Vec<String>, before: &Value) -> Value {
    match (items.is_empty(), before) {
        (true, Value::List(before)) if before.is_empty() => Value::List(Vec::new()),
        (true, _) => Value::Null,
        (false, _) => Value::texts(items),
    }
}

/// The same of a text.
fn text_or_null(text: &str, before: &Value) -> Value {
    match (text.is_empty(), before) {
        (true, Value::Text(before)) if before.is_empty() => Value::Text(String::new()),
        _ => Value::text_or_null(text),
    }
}

/// An id that is a number.
fn number(id: &str, what: &str) -> Done<u32> {
    let wanted = || Diagnostic::error("Not an id", format!("{id:?}: {what} is wanted."));
    id.parse().map_err(|_| wanted())
}

/// What exists and is other than configured is not overwritten unseen.
fn exists(what: &str, id: &str, differs: &str) -> Diagnostic {
    let detail = format!(
        "{what} is there already, {differs}. `terraform import` takes it over (id {id:?}); the next plan shows what would change."
    );
    Diagnostic::error(format!("{what} exists"), detail)
}

#[cfg(test)]
mod tests {
    use crate::protocol::schema::Presence;

    use super::*;

    #[test]
    fn none_and_null_are_the_same_to_the_cluster() {
        assert_eq!(set_or_null(vec![], &Value::Null), Value::Null);
        assert_eq!(set_or_null(vec![], &Value::List(vec![])), Value::List(vec![]));
        assert_eq!(set_or_null(vec![], &Value::texts(["a"])), Value::Null, "somebody has emptied it");
        assert_eq!(set_or_null(vec!["a".into()], &Value::Null), Value::texts(["a"]));
        assert_eq!(text_or_null("", &Value::from("")), Value::from(""));
        assert_eq!(text_or_null("", &Value::from("a")), Value::Null);
    }

    #[test]
    fn every_resource_can_be_told_and_imported() {
        for resource in all() {
            let (name, schema) = (resource.name(), resource.schema());
            assert!(schema.attributes.iter().any(|attribute| attribute.presence != Presence::Computed), "{name}");
            for attribute in &schema.attributes {
                assert!(attribute.description.ends_with('.'), "{name}.{}: {}", attribute.name, attribute.description);
                // Names that Terraform keeps for itself.
                for reserved in
                    ["count", "for_each", "provider", "lifecycle", "depends_on", "connection", "provisioner"]
                {
                    assert_ne!(attribute.name, reserved, "{name}");
                }
                for other in attribute.follows {
                    assert!(
                        schema.attributes.iter().any(|known| known.name == *other),
                        "{name}.{} follows {other}",
                        attribute.name
                    );
                }
            }
            let (id, _) = resource.import_id();
            let imported = resource.import(id).unwrap_or_else(|error| panic!("{name}: {id:?}: {error:?}"));
            let known = |key: &String| schema.attributes.iter().any(|attribute| attribute.name == key);
            assert!(imported.keys().all(known), "{name}: {imported:?}");
        }
    }
}
