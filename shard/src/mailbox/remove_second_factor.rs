//! Log-ins want a password alone again: by the owner, who shows a code once more, or by an operator, for an owner who has lost everything.

use postrider_api::id::ModSeq;
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::{second_factor, session};
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::RemoveSecondFactor) -> Result<Made, Stop> {
    let mailbox = Mailbox::of_command(turn, &command.user_id)?;
    session::check_verified(&mailbox.account, &command.verified)?;
    let Some(record) = second_factor::of(turn.rows, mailbox.user)? else {
        return Err(refuse(Refusal::UnknownSecondFactor, "user_id: the account has no second factor"));
    };
    // Who may leave it empty is decided where commands come in.
    let is_of_operator = command.verified.is_empty();
    if record.confirmed_ms > 0 && !is_of_operator {
        second_factor::spent(record, turn.now, command.second_factor.as_ref())?;
    }
    row::delete(turn.rows, Key::SecondFactor(mailbox.user));
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    Ok(Made::Done(pb::Done {}))
}
