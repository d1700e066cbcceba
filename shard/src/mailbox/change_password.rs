//! Another password. In the same command every session ends but the one that asks: whoever has the old password, or a token
//! that was opened with it, has nothing any more.
//!
//! The password was verified outside, against a hash that was read before. The command names that hash, so of two changes at
//! once one wins, and a log-in with the old password that comes late opens nothing ([`open_session`](super::open_session)).

use postrider_api::id::ModSeq;
use postrider_api::pb;
use postrider_api::pb::outcome::Result as Made;

use crate::mailbox::account::Mailbox;
use crate::mailbox::create_account::{PASSWORD_HASH_BYTES_MAX, check_text};
use crate::mailbox::session::{self, token_hash};
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::ChangePassword) -> Result<Made, Stop> {
    check_text("password_hash", &command.password_hash, PASSWORD_HASH_BYTES_MAX, false)?;
    let keep = match command.keep_token_hash.is_empty() {
        true => None,
        false => Some(token_hash(&command.keep_token_hash)?),
    };
    let mut mailbox = Mailbox::of_command(turn, &command.user_id)?;
    session::check_verified(&mailbox.account, &command.verified)?;
    mailbox.account.password_hash.clone_from(&command.password_hash);
    session::end_all(turn, &mut mailbox, keep)?;
    tail::push(turn, Object::Account(mailbox.user), Verb::Updated, ModSeq(0));
    mailbox.close(turn);
    Ok(Made::Done(pb::Done {}))
}
