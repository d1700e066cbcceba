//! A mailbox while a command works on it: the account's row is read once and written once.

use bytes::Bytes;
use postrider_api::id::{EmailId, ModSeq, UserId};
use postrider_api::limit::QUOTA_OVERRUN_BYTES_MAX;
use postrider_api::pb::{AccountRecord, AccountState, DeletedRecord, Refusal};

use crate::key::Key;
use crate::store::Rows;
use crate::turn::{Stop, Turn, refuse};
use crate::{Broken, row};

/// An open mailbox. [`Mailbox::close`] writes it back; dropping it instead forgets what was counted.
#[must_use]
pub(crate) struct Mailbox {
    pub(crate) user: UserId,
    pub(crate) account: AccountRecord,
    modseq_before: u64,
}

impl Mailbox {
    /// `None` when the user has no mailbox here, or one that is being deleted: nobody works on that any more.
    pub(crate) fn open(turn: &Turn<'_, impl Rows>, user: UserId) -> Result<Option<Self>, Broken> {
        let account = row::get::<AccountRecord>(turn.rows, Key::Account(user))?;
        let account = account.filter(|account| account.state() != AccountState::Deleting);
        Ok(account.map(|account| Self { user, modseq_before: account.modseq, account }))
    }

    /// Whether the user's account is being deleted or was: what comes for it is nobody's.
    pub(crate) fn is_deleted(turn: &Turn<'_, impl Rows>, user: UserId) -> Result<bool, Broken> {
        let account = row::get::<AccountRecord>(turn.rows, Key::Account(user))?;
        match account {
            Some(account) => Ok(account.state() == AccountState::Deleting),
            None => Ok(row::get::<DeletedRecord>(turn.rows, Key::DeletedUser(user))?.is_some()),
        }
    }

    /// The mailbox that a command names.
    pub(crate) fn of_command(turn: &Turn<'_, impl Rows>, user_id: &Bytes) -> Result<Self, Stop> {
        let user = crate::turn::id(user_id, "user_id")?;
        Self::open(turn, user)?
            .ok_or_else(|| refuse(Refusal::UnknownUser, format!("user {user} has no mailbox in this shard")))
    }

    /// A new mailbox, not yet written.
    pub(crate) fn create(user: UserId, account: AccountRecord) -> Self {
        Self { user, account, modseq_before: 0 }
    }

    pub(crate) fn modseq(&self) -> ModSeq {
        ModSeq(self.account.modseq)
    }

    pub(crate) fn next_modseq(&mut self) -> ModSeq {
        self.account.modseq += 1;
        self.modseq()
    }

    /// Later than every id before it in this mailbox, even when the clock stands still: arrival order = id order.
    pub(crate) fn next_email_id(&mut self, turn: &mut Turn<'_, impl Rows>) -> EmailId {
        let ms = turn.now.max(self.account.email_ms_last + 1);
        self.account.email_ms_last = ms;
        EmailId::new(ms, turn.draw())
    }

    /// Whether the account is suspended, and mail for it is to wait.
    pub(crate) fn refuses_mail(&self) -> bool {
        self.account.state() == AccountState::Suspended && self.account.refuses_mail
    }

    /// Whether `size` more bytes go over the quota.
    pub(crate) fn is_over_quota(&self, size: u64) -> bool {
        over_quota(&self.account, size)
    }

    /// Whether `size` more bytes go over what a delivery may overrun the quota by.
    pub(crate) fn is_over_bound(&self, size: u64) -> bool {
        self.account.used_bytes.saturating_add(size) > self.account.quota_bytes.saturating_add(QUOTA_OVERRUN_BYTES_MAX)
    }

    /// Writes the account, and tells who watches it when anything has changed.
    pub(crate) fn close(self, turn: &mut Turn<'_, impl Rows>) {
        row::put(turn.rows, Key::Account(self.user), &self.account);
        if self.account.modseq != self.modseq_before {
            let modseq = self.modseq();
            match turn.touched.iter_mut().find(|(user, _)| *user == self.user) {
                Some(touched) => touched.1 = modseq,
                None => turn.touched.push((self.user, modseq)),
            }
        }
    }
}

/// Whether `size` more bytes go over the account's quota.
pub(crate) fn over_quota(account: &AccountRecord, size: u64) -> bool {
    account.used_bytes.saturating_add(size) > account.quota_bytes
}
