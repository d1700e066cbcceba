//! Other recovery codes: those of before may be in hands that they were not meant for.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::mailbox::account::Mailbox;
use crate::mailbox::{second_factor, session};
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ReplaceRecoveryCodes) -> Result<Made, Stop> {
    second_factor::check_recovery_hashes(&command.recovery_hashes)?;
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    session::check_verified(&mailbox.account, &command.verified)?;
    let Some(record) = second_factor::confirmed(turn.rows, mailbox.user)? else {
        return Err(refuse(Refusal::UnknownSecondFactor, "user_id: the account has no second factor"));
    };
    let mut record = second_factor::spent(record, turn.now, command.second_factor.as_ref())?;
    record.recovery_hashes.clone_from(&command.recovery_hashes);
    second_factor::keep(turn, mailbox.user, &record);
    Ok(Made::Done(pb::Done {}))
}
