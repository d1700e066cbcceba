//! The owner has shown a code: log-ins want one from now on. Sessions that are open stay so; he sees them, and may end them.

use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal, SecondFactorRecord};

use crate::mailbox::account::Mailbox;
use crate::mailbox::second_factor;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ConfirmSecondFactor) -> Result<Made, Stop> {
    second_factor::check_step(command.step, turn.now)?;
    second_factor::check_recovery_hashes(&command.recovery_hashes)?;
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    let Some(begun) = second_factor::of(turn.rows, mailbox.user)? else {
        return Err(refuse(Refusal::UnknownSecondFactor, "user_id: no second factor was begun"));
    };
    if begun.confirmed_ms > 0 || begun.sealed_secret != command.sealed_secret {
        return Err(refuse(Refusal::Conflict, "sealed_secret: another was begun since, or it is confirmed"));
    }
    let record = SecondFactorRecord {
        confirmed_ms: turn.now.max(1),
        last_step: command.step,
        recovery_hashes: command.recovery_hashes.clone(),
        ..begun
    };
    second_factor::keep(turn, mailbox.user, &record);
    Ok(Made::Done(pb::Done {}))
}
