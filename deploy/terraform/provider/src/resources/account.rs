//! `postrider_account`: a mailbox, its password as long as Terraform says it, and whether it is suspended.

use std::time::Duration;

use async_trait::async_trait;
use postrider_api::env::SystemEntropy;
use postrider_api::pb::{self, AccountState, MailCategory};
use postrider_frontend::account::password;
use postrider_frontend::category::name_of;
use postrider_operator::account as operator;
use postrider_operator::account::Account as Found;

use crate::connection::Connection;
use crate::protocol::diagnostic::Diagnostic;
use crate::protocol::resource::{Done, Resource};
use crate::protocol::schema::{Attribute, Schema, Type};
use crate::protocol::timeout;
use crate::protocol::value::{Attributes as _, Object, Value, object};
use crate::sign_up::NewAccount;

/// What an account has is removed message by message.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

const CATEGORIES: [MailCategory; 3] = [MailCategory::Personal, MailCategory::Transactional, MailCategory::Bulk];

pub(super) struct Account;

#[async_trait]
impl Resource<Connection> for Account {
    fn name(&self) -> &'static str {
        "account"
    }

    fn schema(&self) -> Schema {
        Schema {
            description: "An account with its mailbox. It is made by a frontend (`frontends`, `admin_token`), and everything else is an operator's doing. \
                          **Destroying it deletes everything that it has; nothing undoes that.** `lifecycle { prevent_destroy = true }` guards it.",
            attributes: vec![
                Attribute::required("address", Type::Text, "The address.").replaces(),
                Attribute::optional(
                    "password",
                    Type::Text,
                    "Its password: needed to make it, and set anew when it is another here, which ends all sessions. It is in the state: keep that \
                     to yourself. Left out behind an import, the owner's own stays.",
                )
                .sensitive(),
                Attribute::optional("name", Type::Text, "What others see beside the address. Said once: it is the owner's to change."),
                Attribute::defaulted("suspended", Type::Bool, false, "Nobody logs in, and sessions open nothing."),
                Attribute::defaulted(
                    "receives",
                    Type::Bool,
                    true,
                    "Whether mail for it is still taken while it is suspended. Otherwise senders are told to try again later.",
                ),
                Attribute::defaulted(
                    "category",
                    Type::Text,
                    "personal",
                    "What its mail is, where neither a message nor the program that sends it says so: `personal`, `transactional` or `bulk`.",
                ),
                timeout::attribute(),
                Attribute::computed("user_id", Type::Text, "Its id."),
                Attribute::computed("home_region", Type::Text, "Where its mailbox was at home when it was made."),
            ],
        }
    }

    fn import_id(&self) -> (&'static str, &'static str) {
        ("ada@postrider.example", "the address")
    }

    fn check(&self, config: &Object) -> Vec<Diagnostic> {
        let mut wrong = Vec::new();
        if let Some(Err(rule)) = config.text("password").map(password::check_rules) {
            wrong.push(Diagnostic::error("Not a password", format!("{rule}.")).at("password"));
        }
        if config.text("category").is_some_and(|word| category_of(word).is_none()) {
            wrong.push(
                Diagnostic::error("Not a category", "`personal`, `transactional` or `bulk` is wanted.").at("category"),
            );
        }
        wrong
    }

    async fn read(&self, connection: &Connection, state: Object) -> Done<Option<Object>> {
        let session = connection.session().await?;
        let Some(found) = operator::look_up(session, state.text("address").unwrap_or_default()).await? else {
            return Ok(None);
        };
        let record = operator::record(session, &found).await?;
        let there = record.filter(|record| record.state() != AccountState::Deleting);
        Ok(there.map(|record| state_of(&found, &record, &state)))
    }

    async fn create(&self, connection: &Connection, planned: &Object) -> Done<()> {
        let Some(password) = planned.text("password") else {
            let detail = "A new account wants a password; one that is there is taken over by `terraform import`.";
            return Err(Diagnostic::error("No password", detail).at("password"));
        };
        let address = planned.text("address").unwrap_or_default();
        let name = planned.text("name").unwrap_or_default();
        connection.frontends().sign_up(&NewAccount { address, password, name }).await?;
        let found = operator::find(connection.session().await?, address).await?;
        settle(connection, &found, planned).await
    }

    /// Nobody could sign up under the address a second time.
    fn keeps_what_failed(&self) -> bool {
        true
    }

    async fn update(&self, connection: &Connection, prior: &Object, planned: &Object) -> Done<()> {
        let session = connection.session().await?;
        let found = operator::find(session, planned.text("address").unwrap_or_default()).await?;
        if let Some(new) = planned.text("password").filter(|new| prior.text("password") != Some(*new)) {
            let new = new.to_owned();
            let hashed = tokio::task::spawn_blocking(move || password::hash_once(&new, &SystemEntropy)).await;
            let failed = |error: String| Diagnostic::error("The password cannot be hashed", error);
            let hashed =
                hashed.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
            operator::change_password(session, &found, hashed).await?;
        }
        settle(connection, &found, planned).await
    }

    async fn delete(&self, connection: &Connection, prior: &Object) -> Done<Vec<Diagnostic>> {
        let session = connection.session().await?;
        let Some(found) = operator::look_up(session, prior.text("address").unwrap_or_default()).await? else {
            return Ok(Vec::new());
        };
        operator::delete(session, &found).await?;
        operator::until_gone(session, &found).await?;
        Ok(Vec::new())
    }

    fn import(&self, id: &str) -> Done<Object> {
        Ok(object([("address", id.into())]))
    }

    fn timeout(&self) -> Duration {
        TIMEOUT
    }
}

fn category_of(word: &str) -> Option<MailCategory> {
    CATEGORIES.into_iter().find(|category| name_of(*category) == word)
}

/// Suspended or not, and what its mail is.
async fn settle(connection: &Connection, found: &Found, planned: &Object) -> Done<()> {
    let session = connection.session().await?;
    let gone = || Diagnostic::error("No such account", "It is being deleted: plan again.");
    let record = operator::record(session, found).await?.ok_or_else(gone)?;
    if let Some(category) =
        planned.text("category").and_then(category_of).filter(|category| *category != record.category())
    {
        operator::set_category(session, found, category).await?;
    }
    let receives = planned.flag("receives").unwrap_or(true);
    let is_suspended = record.state() == AccountState::Suspended;
    match planned.flag("suspended").unwrap_or(false) {
        true if !is_suspended || record.refuses_mail == receives => operator::suspend(session, found, receives).await?,
        false if is_suspended => operator::resume(session, found).await?,
        true | false => {}
    }
    Ok(())
}

fn state_of(found: &Found, record: &pb::AccountRecord, before: &Object) -> Object {
    let is_suspended = record.state() == AccountState::Suspended;
    let receives = match is_suspended {
        true => Value::Bool(!record.refuses_mail),
        // Only a suspended account could be otherwise.
        false => Value::Bool(before.flag("receives").unwrap_or(true)),
    };
    let mut state = before.clone();
    state.extend(object([
        ("suspended", is_suspended.into()),
        ("receives", receives),
        ("category", name_of(record.category()).into()),
        ("user_id", found.user.to_string().into()),
        ("home_region", record.home_region.clone().into()),
    ]));
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_checked_before_anybody_is_asked() {
        let wrong = object([("password", "short".into()), ("category", "spam".into())]);
        assert_eq!(Account.check(&wrong).len(), 2);
        assert!(Account.check(&object([("password", Value::Unknown), ("category", "bulk".into())])).is_empty());
    }
}
