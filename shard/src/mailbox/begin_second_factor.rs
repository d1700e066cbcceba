//! A secret for one-time passwords, which counts for nothing until its owner has shown a code of it.

use postrider_api::limit::SEALED_SECRET_BYTES_MAX;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountState, Refusal, SecondFactorRecord};

use crate::mailbox::account::Mailbox;
use crate::mailbox::{second_factor, session};
use crate::store::Rows;
use crate::turn::{Stop, Turn, malformed, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::BeginSecondFactor) -> Result<Made, Stop> {
    if command.sealed_secret.is_empty() || command.sealed_secret.len() > SEALED_SECRET_BYTES_MAX {
        return Err(malformed(format!("sealed_secret: 1 to {SEALED_SECRET_BYTES_MAX} bytes")));
    }
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    session::check_verified(&mailbox.account, &command.verified)?;
    if mailbox.account.state() == AccountState::Suspended {
        return Err(refuse(Refusal::AccountSuspended, "user_id: the account is suspended"));
    }
    if second_factor::confirmed(turn.rows, mailbox.user)?.is_some() {
        return Err(refuse(Refusal::Conflict, "user_id: the account has a second factor"));
    }
    let record = SecondFactorRecord {
        sealed_secret: command.sealed_secret.clone(),
        created_ms: turn.now,
        ..SecondFactorRecord::default()
    };
    second_factor::keep(turn, mailbox.user, &record);
    Ok(Made::Done(pb::Done {}))
}
