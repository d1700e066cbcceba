//! What an account's mail is, where neither the message nor the program that sends it says so.

use postrider_api::id::ModSeq;
use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::mailbox::account::Mailbox;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, malformed};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::SetCategory) -> Result<Made, Stop> {
    if pb::MailCategory::try_from(command.category).is_err() {
        return Err(malformed("category: none that is known"));
    }
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    mailbox.account.category = command.category;
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}
