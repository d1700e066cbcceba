//! What a user says about himself.

use postrider_api::id::ModSeq;
use postrider_api::limit::NAME_BYTES_MAX;
use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::mailbox::account::Mailbox;
use crate::mailbox::create_account::check_text;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn};

/// A signature, bytes.
const SIGNATURE_BYTES_MAX: usize = 8 * 1024;

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::UpdateProfile) -> Result<Made, Stop> {
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    if let Some(name) = &command.name {
        check_text("name", name, NAME_BYTES_MAX, true)?;
        mailbox.account.name.clone_from(name);
    }
    if let Some(signature) = &command.signature {
        check_text("signature", signature, SIGNATURE_BYTES_MAX, true)?;
        mailbox.account.signature.clone_from(signature);
    }
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}
