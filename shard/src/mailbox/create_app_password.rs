//! One more application password.

use postrider_api::id::{AppPasswordId, ModSeq};
use postrider_api::limit::{APP_PASSWORD_NAME_BYTES_MAX, APP_PASSWORDS_MAX};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountState, AppPasswordRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{app_password, name};
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::CreateAppPassword) -> Result<Made, Stop> {
    turn.demand_entropy()?;
    let name = name::check(&command.name, APP_PASSWORD_NAME_BYTES_MAX)?;
    app_password::check_scopes(command.scopes)?;
    let keys = command.keys.as_ref().ok_or_else(|| malformed("keys: are missing"))?;
    app_password::check_keys(keys)?;
    if pb::MailCategory::try_from(command.category).is_err() {
        return Err(malformed("category: none that is known"));
    }
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if mailbox.account.state() == AccountState::Suspended {
        return Err(refuse(Refusal::AccountSuspended, "user_id: the account is suspended"));
    }
    let others = app_password::all(turn.rows, mailbox.user)?;
    if others.len() >= APP_PASSWORDS_MAX {
        let detail = format!("an account has at most {APP_PASSWORDS_MAX} application passwords");
        return Err(refuse(Refusal::AppPasswordsTooMany, detail));
    }
    let salt_of = |record: &AppPasswordRecord| record.keys.as_ref().map(|keys| keys.salt.clone()).unwrap_or_default();
    if others.iter().any(|(_, record)| salt_of(record) != keys.salt) {
        return Err(refuse(Refusal::Conflict, "keys.salt: the account's application passwords have another one"));
    }
    let id = AppPasswordId(turn.draw());
    let record = AppPasswordRecord {
        name: name.to_owned(),
        scopes: command.scopes,
        created_ms: turn.now,
        last_used_ms: 0,
        keys: Some(keys.clone()),
        category: command.category,
    };
    row::put(turn.rows, Key::AppPassword(mailbox.user, id), &record);
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    Ok(Made::AppPasswordMade(pb::AppPasswordMade { app_password_id: id.to_bytes(), created_ms: turn.now }))
}
