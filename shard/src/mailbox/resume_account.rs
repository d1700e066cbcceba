//! A suspended account is as it was before, and so is one that was slowed. Nothing happens to any other.

use postrider_api::id::ModSeq;
use postrider_api::pb;
use postrider_api::pb::AccountState;
use postrider_api::pb::outcome::Result as Made;

use crate::mailbox::account::Mailbox;
use crate::mailbox::session;
use crate::sending::standing;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ResumeAccount) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    standing::release(turn, mailbox.user)?;
    if mailbox.account.state() == AccountState::Suspended {
        mailbox.account.set_state(AccountState::Active);
        mailbox.account.refuses_mail = false;
        mailbox.account.state_ms = 0;
        mailbox.account.suspended_why.clear();
        session::mark_suspended(turn, mailbox.user, false)?;
        tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
        mailbox.close(turn);
    }
    Ok(Made::Done(pb::Done {}))
}
