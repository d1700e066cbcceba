//! An account that nobody may use for now. It keeps what it has, and gets mail unless that is said; its sessions stay, open
//! nothing, and are told why.

use postrider_api::id::ModSeq;
use postrider_api::pb;
use postrider_api::pb::AccountState;
use postrider_api::pb::outcome::Result as Made;

use crate::Broken;
use crate::mailbox::account::Mailbox;
use crate::mailbox::session;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SuspendAccount) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    suspend(turn, &mut mailbox)?;
    mailbox.account.refuses_mail = !command.receive;
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}

/// The shard does it, for what the account sends. Mail for it is still taken: its owner may have nothing to do with it.
pub(crate) fn by_itself(turn: &mut Turn<'_, impl Rows>, mut mailbox: Mailbox, why: &str) -> Result<(), Broken> {
    if mailbox.account.state() == AccountState::Active {
        suspend(turn, &mut mailbox)?;
        mailbox.account.suspended_why = why.to_owned();
    }
    mailbox.close(turn);
    Ok(())
}

fn suspend(turn: &mut Turn<'_, impl Rows>, mailbox: &mut Mailbox) -> Result<(), Broken> {
    if mailbox.account.state() != AccountState::Suspended {
        mailbox.account.set_state(AccountState::Suspended);
        mailbox.account.state_ms = turn.now;
        session::mark_suspended(turn, mailbox.user, true)?;
    }
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    Ok(())
}
