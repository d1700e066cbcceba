//! The end of an account. From this command on nobody uses it and nothing is delivered to it; what it has goes by and by.
//!
//! The order is fixed, and whoever leads the shard goes on with it, however often the last one died:
//! 1. here: sessions end, the account is closed to every other command, `deletions` names it;
//! 2. the directory closes its address, so that mail is turned away;
//! 3. [`drain_account`](super::drain_account) removes what it has, a bounded part at a time;
//! 4. entries of all queues that wait for it, or have given it up, drop it;
//! 5. the directory retires the address;
//! 6. [`finish_deletion`](super::finish_deletion) removes the account. Its row is the only place that still knew the address, so
//!    it is the last to go.

use postrider_api::id::{ModSeq, UserId};
use postrider_api::pb::outcome::Result as Made;
use postrider_api::pb::{self, AccountRecord, AccountState, DeletionRecord, Refusal};

use crate::key::Key;
use crate::mailbox::account::Mailbox;
use crate::mailbox::session;
use crate::row;
use crate::store::Rows;
use crate::tail::{self, Object, Verb};
use crate::turn::{Stop, Turn, id, refuse};

pub(crate) fn apply(turn: &mut Turn<'_, impl Rows>, command: &pb::DeleteAccount) -> Result<Made, Stop> {
    let user: UserId = id(&command.user_id, "user_id")?;
    let Some(mut mailbox) = Mailbox::open(turn, user)? else {
        return match Mailbox::is_deleted(turn, user)? {
            // The same again: the same answer.
            true => Ok(Made::Done(pb::Done {})),
            false => Err(refuse(Refusal::UnknownUser, format!("user {user} has no mailbox in this shard"))),
        };
    };
    session::check_verified(&mailbox.account, &command.verified)?;
    session::end_all(turn, &mut mailbox, None)?;
    let AccountRecord { user_id, address, modseq, folder_next, created_ms, .. } = mailbox.account;
    let account = AccountRecord {
        user_id,
        address,
        modseq,
        folder_next,
        created_ms,
        state: AccountState::Deleting.into(),
        state_ms: turn.now,
        ..Default::default()
    };
    row::put(turn.rows, Key::Account(user), &account);
    row::put(turn.rows, Key::Deletion(user), &DeletionRecord { since_ms: turn.now });
    tail::push(turn, Object::Account(user), Verb::Updated, ModSeq(0));
    turn.deletions = true;
    Ok(Made::Done(pb::Done {}))
}
